//! A daemon in the hands of its operator and its supervisor: signals, signs of life, doctor.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::Duration;

use keywheel::domain::rotation::journal::JournalKind;
use keywheel::engine::sweep;
use keywheel::sim::World;
use keywheel::sim::world::Role;
use keywheel::store::{Horizon, MessageEnd};
use serde_json::{Value, json};
use sqlx::Connection;

use crate::support::daemon::{Daemon, keywheel, only_for_us, private, serve};
use crate::support::db::{Backend, WITH_PASSWORD, local};
use crate::support::receiver::Receiver;
use crate::support::wait::{LIMIT, Stopwatch, eventually, eventually_blocking, pause, spawn};
use crate::support::{TestApp, group, new_key};

fn signal(child: &Child, name: &str) {
    let done = std::process::Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(done.success());
}

impl Daemon {
    /// Waits until the log says `text`.
    fn says(&self, text: &str) {
        let said = eventually_blocking(LIMIT, || self.log.lock().unwrap().contains(text).then_some(()));
        assert!(said.is_some(), "it never said {text:?}:\n{}", self.log.lock().unwrap());
    }

    /// Changes the configuration and starts anew under it.
    pub(crate) fn restart_with(&mut self, change: impl FnOnce(String) -> String) {
        signal(&self.child, "-TERM");
        assert!(self.child.wait().unwrap().success(), "{}", self.log.lock().unwrap());
        self.rewrite(change);
        let (child, base, log) = serve(self.folder.path());
        (self.child, self.base, self.log) = (child, base, log);
    }

    pub(crate) fn rewrite(&self, change: impl FnOnce(String) -> String) {
        let file = self.folder.path().join("keywheel.toml");
        std::fs::write(&file, change(std::fs::read_to_string(&file).unwrap())).unwrap();
    }

    fn doctor(&self) -> (Option<i32>, Value) {
        let said = self.cli(&["doctor", "-o", "json"]);
        (said.code, serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}")))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_secret_is_taken_over_without_a_restart_and_a_broken_file_is_not() {
    let mut it = Daemon::start().await;
    let ada = it.token("ada", "operator");
    let secret = it.folder.path().join("atlas-secret");
    let write = |text: &str| {
        std::fs::write(&secret, text).unwrap();
        only_for_us(&secret);
    };
    write("mdb_sa_sk_old");
    let name = secret.display().to_string();
    it.restart_with(|text| {
        text.replace("client_secret = \"mdb_sa_sk_demo\"", &format!("client_secret_file = {name:?}"))
    });
    let add = json!({ "groupId": group(1) });
    assert_eq!(it.call(&ada, "POST", "/projects", add.clone()).await.problem(502), "atlas-auth");

    it.rewrite(|text| text.replace("[sweep]", "[sweep]\nnobody_knows = 1"));
    signal(&it.child, "-HUP");
    it.says("the configuration was not reloaded, the old one stays");
    it.says("sweep.nobody_knows");
    assert_eq!(it.call(&ada, "POST", "/projects", add.clone()).await.problem(502), "atlas-auth");

    write("mdb_sa_sk_demo");
    it.rewrite(|text| {
        text.replace("nobody_knows = 1\n", "")
            .replace("drift_every = \"1h\"", "drift_every = \"2h\"")
            .replace("[sweep]", "[log]\nlevel = \"debug\"\n[sweep]")
    });
    signal(&it.child, "-HUP");
    it.says("changed: atlas.credentials.default.client_secret, log.level");
    it.says("need a restart: sweep.drift_every");
    it.says("DEBUG");
    assert_eq!(it.call(&ada, "POST", "/projects", add).await.status, 201);
    let log = it.log.lock().unwrap().clone();
    assert!(!log.contains("mdb_sa_sk"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhook_targets_are_taken_over_without_a_restart_and_doctor_lists_them() {
    let it = Daemon::start().await;
    let ada = it.token("ada", "operator");
    let receiver = Receiver::start().await;
    it.add(&ada, 1).await;
    it.rewrite(|text| {
        format!(
            "{text}\n[[webhooks]]\nname = \"ops\"\nurl = \"{}\"\nformat = \"slack\"\nallow_private = true\n",
            receiver.url()
        )
    });
    signal(&it.child, "-HUP");
    it.says("webhooks.ops.url");
    let path = format!("/projects/{}/rotations", group(1));
    let proposed = it.call(&ada, "POST", &path, json!({ "newKey": new_key() })).await;
    assert_eq!(proposed.status, 201);
    receiver.arrived().await;
    assert_eq!(receiver.only().json()["text"], "payments-prod: approve a new encryption key?");
    let listed = it.cli(&["outbox", "list"]).out;
    assert!(listed.contains("webhook") && listed.contains("ops"), "{listed}");
    let (_, report) = it.doctor();
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["name"] == "webhooks.ops").unwrap();
    assert_eq!(found["result"], "pass");
    assert_eq!(found["detail"], "slack to 127.0.0.1, not signed: everything; it was not called");
    assert_eq!(receiver.received().len(), 1);
    assert!(!it.log.lock().unwrap().contains("path-canary") && !report.to_string().contains("path-canary"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supervisor_hears_when_it_serves_lives_reloads_and_stops() {
    let mut it = Daemon::start().await;
    signal(&it.child, "-TERM");
    assert!(it.child.wait().unwrap().success());
    let path = it.folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut child = keywheel(it.folder.path(), &["serve"])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "300000")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let hears = |wanted: &str| {
        let mut buffer = [0; 500];
        loop {
            let length = socket.recv(&mut buffer).expect("nothing more was heard");
            if String::from_utf8_lossy(&buffer[..length]).contains(wanted) {
                return;
            }
        }
    };
    hears("READY=1");
    hears("WATCHDOG=1");
    hears("WATCHDOG=1");
    signal(&child, "-HUP");
    hears("RELOADING=1");
    hears("READY=1");
    signal(&child, "-TERM");
    hears("STOPPING=1");
    assert!(child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_tries_each_credential_and_says_what_to_do() {
    let it = Daemon::start().await;
    let ada = it.token("ada", "operator");
    let named = |report: &Value, name: &str| {
        let checks = report["checks"].as_array().unwrap().iter();
        let found = checks
            .filter(|it| it["name"] == name)
            .map(|it| (it["result"].as_str().unwrap().to_owned(), it["detail"].as_str().unwrap().to_owned()));
        found.collect::<Vec<_>>()
    };
    let (_, report) = it.doctor();
    let [(result, detail)] = &named(&report, "atlas.credentials.default")[..] else { panic!("{report}") };
    assert!(result == "warn" && detail.contains("no project uses it"), "{detail}");
    it.add(&ada, 1).await;
    let (code, report) = it.doctor();
    assert_eq!((code, &report["ok"]), (Some(0), &json!(true)), "{report:#}");
    assert_eq!(named(&report, "atlas.credentials.default")[0].0, "pass", "{report:#}");
    assert!(named(&report, "clock").iter().any(|(_, detail)| detail.contains("Atlas'")), "{report:#}");
    assert_eq!(named(&report, "mail")[0].0, "warn");
    assert!(named(&report, "schedule")[0].1.contains("the next sweep is at"));

    it.sim.with(|world| world.roles.insert("mdb_sa_id_demo".to_owned(), Role::ReadOnly));
    let (code, report) = it.doctor();
    let [(result, detail)] = &named(&report, "atlas.credentials.default")[..] else { panic!("{report}") };
    assert!(code == Some(1) && result == "fail" && detail.contains("Project Owner"), "{detail}");

    it.sim.with(|world| world.access_list = vec!["192.0.2.1".to_owned()]);
    let (_, report) = it.doctor();
    let [(result, detail)] = &named(&report, "atlas.credentials.default")[..] else { panic!("{report}") };
    assert!(result == "fail" && detail.contains("add this machine's address"), "{detail}");

    it.sim.with(|world| {
        world.access_list.clear();
        world.service_accounts.insert("mdb_sa_id_demo".to_owned(), "another".to_owned());
    });
    let (_, report) = it.doctor();
    let [(result, detail)] = &named(&report, "atlas.credentials.default")[..] else { panic!("{report}") };
    assert!(result == "fail" && detail.contains("check its id and secret"), "{detail}");
}

#[tokio::test]
async fn what_is_over_is_forgotten_and_what_counts_stays() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let test_app = TestApp::on(backend, World::demo()).await;
        let row = test_app.approved().await;
        let row = test_app.settle(&row).await;
        let store = &test_app.engine.store;
        let kinds = async || -> Vec<JournalKind> {
            let rows = store.journal(row.rotation.id, 0, 500).await.unwrap();
            rows.into_iter().filter(|it| it.from_state == Some(it.to_state)).map(|it| it.kind).collect()
        };
        let moves =
            async || store.journal(row.rotation.id, 0, 500).await.unwrap().len() - kinds().await.len();
        let (before, mails) = (moves().await, store.outbox(None, 100).await.unwrap().len());
        assert!(kinds().await.contains(&JournalKind::Look) && mails == 2, "{:?}", kinds().await);
        // Nothing is old enough.
        assert_eq!(sweep::forget(&test_app.engine).await.unwrap(), 0);
        // One was sent, one is still on its way.
        let claimed = store
            .claim_mail(
                test_app.engine.clock.now(),
                Duration::from_secs(60),
                keywheel::domain::time::Timestamp::from_micros(0),
            )
            .await
            .unwrap()
            .unwrap();
        store.mail_ended(&claimed, &MessageEnd::Sent, "250 ok", test_app.engine.clock.now()).await.unwrap();
        let later = test_app.engine.clock.now() + Duration::from_secs(1);
        store.forget(Horizon { mails: later, events: later, looks: later, replays: later }).await.unwrap();
        assert!(
            !kinds().await.iter().any(|it| matches!(it, JournalKind::Look | JournalKind::Blind)),
            "{:?}",
            kinds().await
        );
        assert_eq!((moves().await, store.outbox(None, 100).await.unwrap().len()), (before, 1));
        assert!(store.verify_audit().await.unwrap().intact().is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_of_a_rotation_reach_a_collector_and_carry_no_secret() {
    let collector = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = collector.local_addr().unwrap().port();
    let got = std::sync::Arc::new(std::sync::Mutex::new(Vec::<u8>::new()));
    let kept = std::sync::Arc::clone(&got);
    let take = axum::routing::post(move |body: axum::body::Bytes| {
        kept.lock().unwrap().extend_from_slice(&body);
        async { "" }
    });
    crate::support::wait::spawn(
        axum::serve(collector, axum::Router::new().route("/v1/traces", take)).into_future(),
    );
    let mut it = Daemon::start().await;
    it.restart_with(|text| {
        text.replace(
            "[sweep]",
            &format!("[log]\notlp_endpoint = \"http://127.0.0.1:{port}/v1/traces\"\n[sweep]"),
        )
    });
    let (ada, grace) = (it.token("ada", "operator"), it.token("grace", "approver"));
    let group = it.add(&ada, 1).await;
    let id = it.propose(&ada, &group, &crate::support::new_key()).await;
    it.call(&grace, "POST", &format!("/rotations/{id}/approve"), Value::Null).await;
    it.until(&ada, &id, |it| it["state"] == "completed").await;
    // What is left is handed over at the end.
    signal(&it.child, "-TERM");
    assert!(it.child.wait().unwrap().success());
    let got = got.lock().unwrap();
    let has = |text: &str| got.windows(text.len()).any(|it| it == text.as_bytes());
    for text in ["rotation.id", &id, "project.id", "set_key", "keywheel"] {
        assert!(has(text), "{text} is in no span");
    }
    assert!(!has("mdb_sa_sk_demo") && !has(&ada) && !has("Bearer"));
}

/// What the last probe has left in the database, so that probes can be counted.
async fn probed(it: &Daemon) -> String {
    let url = format!("sqlite:{}", it.folder.path().join("data/keywheel.db").display());
    let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect(&url).await.unwrap();
    let row: Option<(String,)> = sqlx::query_as("SELECT value FROM meta WHERE name = 'ready'")
        .fetch_optional(&mut connection)
        .await
        .unwrap();
    row.map(|(value,)| value).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_readiness_requests_costs_one_probe_a_second_and_a_hanging_database_is_told_at_once() {
    let it = Daemon::start().await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/readyz", it.base);
    let ready =
        eventually(LIMIT, async || (http.get(&url).send().await.unwrap().status() == 200).then_some(()));
    ready.await.expect("never ready");
    let stop = tokio_util::sync::CancellationToken::new();
    let crowd: Vec<_> = (0..300)
        .map(|_| {
            let (http, url, stop) = (http.clone(), url.clone(), stop.clone());
            spawn(async move {
                let (mut ready, mut answers) = (0, 0);
                while !stop.is_cancelled() {
                    // A connection that the daemon has closed is made anew.
                    let Ok(answer) = http.get(&url).send().await else { continue };
                    ready += u32::from(answer.status() == 200);
                    answers += 1;
                }
                (ready, answers)
            })
        })
        .collect();
    let (begin, mut probes) = (Stopwatch::start(), std::collections::BTreeSet::new());
    while begin.elapsed() < Duration::from_secs(4) {
        probes.insert(probed(&it).await);
        pause(Duration::from_millis(50)).await;
    }
    let seconds = begin.elapsed().as_secs();
    stop.cancel();
    let (mut ready, mut answers) = (0, 0);
    for one in crowd {
        let (own_ready, own_answers) = one.await.unwrap();
        (ready, answers) = (ready + own_ready, answers + own_answers);
    }
    assert!(answers > 300 && ready * 10 >= answers * 9, "{ready} of {answers} said ready");
    assert!(probes.len() >= 2, "nothing was probed: {probes:?}");
    assert!(probes.len() as u64 <= seconds + 2, "{} probes in {seconds} s", probes.len());

    // Somebody holds the database: no request waits for it, and none says ready for long.
    let file = format!("sqlite:{}", it.folder.path().join("data/keywheel.db").display());
    let mut holder = <sqlx::SqliteConnection as sqlx::Connection>::connect(&file).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut holder).await.unwrap();
    let status = async |within: u64, wanted: u16| {
        let reached = eventually(Duration::from_secs(within), async || {
            let asked = Stopwatch::start();
            let status = http.get(&url).send().await.map_or(0, |answer| answer.status().as_u16());
            assert!(asked.elapsed() < Duration::from_secs(3), "it answered after {:?}", asked.elapsed());
            (status == wanted).then_some(())
        });
        reached.await.unwrap_or_else(|| panic!("not {wanted} within {within} s"));
    };
    status(10, 503).await;
    sqlx::query("ROLLBACK").execute(&mut holder).await.unwrap();
    status(10, 200).await;
}

/// A database password is rotated, and a mounted file brings the new one, without a signal or a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_database_password_is_taken_from_its_file_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, admin) = local(&folder).await;
    let mut connection = sqlx::PgConnection::connect(&admin).await.unwrap();
    let run = async |connection: &mut sqlx::PgConnection, text: String| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(connection).await.unwrap();
    };
    run(&mut connection, format!("CREATE ROLE {WITH_PASSWORD} LOGIN PASSWORD 'canary1'")).await;
    run(&mut connection, format!("CREATE DATABASE kw OWNER {WITH_PASSWORD}")).await;
    let port = admin.parse::<url::Url>().unwrap().port().unwrap();
    let mut it = Daemon::start().await;
    let file = it.folder.path().join("database-url");
    let write = |password: &str| {
        // As PowerShell writes it, with a byte order mark.
        private(&file, format!("\u{feff}postgres://{WITH_PASSWORD}:{password}@127.0.0.1:{port}/kw\r\n"));
    };
    write("canary1");
    let name = file.display().to_string();
    it.restart_with(|text| {
        text.replace("/data\"", "/other\"")
            .replace("[server]", &format!("[database]\nurl_file = {name:?}\n[server]"))
    });
    let ada = it.token("ada", "operator");
    it.add(&ada, 1).await;

    run(&mut connection, format!("ALTER ROLE {WITH_PASSWORD} PASSWORD 'canary2'")).await;
    write("canary2");
    it.says("so the configuration is read again");
    it.says("changed: database.url");
    let cut =
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{WITH_PASSWORD}'");
    run(&mut connection, cut).await;
    let again = eventually(LIMIT, async || {
        let answer = it.call(&ada, "GET", "/projects", json!({})).await;
        (answer.status == 200).then_some(answer)
    });
    assert_eq!(again.await.expect("the new password is not used").json["items"].as_array().unwrap().len(), 1);

    write("canary2@127.0.0.1:1/x");
    it.says("need a restart: database.url");
    assert!(!it.log.lock().unwrap().contains("canary"));
}
