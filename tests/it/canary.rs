//! A whole rotation of the real binary in which every secret is a canary: none may be found in what
//! the program prints, logs, answers or stores. The detector is shown to work by planting them.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use keywheel::domain::time::SystemClock;
use keywheel::sim::fault::{Fault, Kind};
use keywheel::sim::world::KeyState;
use keywheel::sim::{Sim, World};
use serde_json::{Value, json};

use crate::support::receiver::{Receiver, reply};
use crate::support::smtpd::Smtpd;
use crate::support::wait::{LIMIT, eventually};
use crate::support::{group, new_key};

const CLIENT_ID: &str = "mdb_sa_id_canary";

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A secret, and every spelling in which it may leak.
struct Canary {
    name: &'static str,
    forms: Vec<String>,
}

impl Canary {
    fn new(name: &'static str, secret: &str, pair_with: Option<&str>) -> Self {
        let percent = secret.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02X}"));
        let escaped = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let mut forms = vec![
            secret.to_owned(),
            percent.to_lowercase(),
            percent,
            escaped,
            hex::encode(secret),
            STANDARD.encode(secret),
            URL_SAFE.encode(secret),
        ];
        if let Some(id) = pair_with {
            forms.push(STANDARD.encode(format!("{id}:{secret}")));
        }
        Self { name, forms: forms.into_iter().map(|form| form.trim_end_matches('=').to_owned()).collect() }
    }

    fn found_in(&self, bytes: &[u8]) -> bool {
        let text = String::from_utf8_lossy(bytes);
        self.forms.iter().any(|form| text.contains(form))
    }
}

/// The key that the daemon has made, in every spelling.
fn installation_key(folder: &Path) -> Canary {
    let text = std::fs::read_to_string(folder.join("installation.key")).unwrap();
    let digits = text.trim().split_once(' ').unwrap().1;
    let bytes = hex::decode(digits).unwrap();
    let forms = [digits.to_owned(), digits.to_uppercase(), STANDARD.encode(&bytes), URL_SAFE.encode(&bytes)];
    Canary {
        name: "the installation key",
        forms: forms.map(|it| it.trim_end_matches('=').to_owned()).to_vec(),
    }
}

/// Everything that left the program, by the name of where it was found.
type Finds = Vec<(String, Vec<u8>)>;

fn leaks(canaries: &[Canary], finds: &Finds) -> Vec<String> {
    canaries
        .iter()
        .flat_map(|canary| {
            let places = finds.iter().filter(|(_, bytes)| canary.found_in(bytes));
            places.map(|(place, _)| format!("{} in {place}", canary.name))
        })
        .collect()
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keywheel"));
    command.args(args).arg("--config").arg(folder.join("keywheel.toml")).current_dir(folder);
    command
}

fn output(folder: &Path, args: &[&str]) -> Vec<u8> {
    let out = command(folder, args).output().unwrap();
    [out.stdout, out.stderr].concat()
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap()
}

/// The answers of every address that can be read, and of some that refuse.
async fn answers(base: &str, token: &str, rotation: &str) -> Finds {
    let client = client();
    let mut finds = Finds::new();
    let paths = [
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/api/v1/projects",
        "/api/v1/rotations",
        "/api/v1/audit?limit=500",
        "/api/v1/status",
        "/api/v1/outbox",
        "/api/v1/nothing-here",
    ];
    let of_rotation = ["", "/journal"].map(|rest| format!("/api/v1/rotations/{rotation}{rest}"));
    let of_project = ["", "/why"].map(|rest| format!("/api/v1/projects/{}{rest}", group(1)));
    for path in paths.into_iter().map(str::to_owned).chain(of_rotation).chain(of_project) {
        for bearer in [token.to_owned(), format!("{token}x")] {
            let reply = client.get(format!("{base}{path}")).bearer_auth(bearer).send().await.unwrap();
            let head = format!("{} {:?}\n", reply.status(), reply.headers());
            let body = reply.bytes().await.unwrap();
            finds.push((format!("the answer of {path}"), [head.as_bytes(), &body].concat()));
        }
    }
    finds
}

fn files(folder: &Path) -> Finds {
    let mut finds = Finds::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let given = ["keywheel.toml", "secret", "installation.key"].contains(&name.as_str());
        if !given && entry.file_type().unwrap().is_file() {
            finds.push((format!("the file {name}"), std::fs::read(entry.path()).unwrap()));
        }
    }
    finds
}

async fn until_final(api: &impl Fn(&str) -> reqwest::RequestBuilder, path: &str) -> Value {
    let ended = eventually(LIMIT, async || {
        let row: Value = api(path).send().await.unwrap().json().await.unwrap();
        (row["finishedAt"].is_string() || row["state"] == "needs_operator").then_some(row)
    });
    ended.await.expect("the rotation did not end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "one rotation from its start to the search for secrets")]
async fn no_secret_leaves_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let secret = "mdb_sa_sk_Canary-7_Yellow";
    let mut world = World::demo();
    world.service_accounts.insert(CLIENT_ID.to_owned(), secret.to_owned());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sim = Sim::start(listener, world, Arc::new(SystemClock)).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let base = format!("http://127.0.0.1:{port}");
    crate::support::daemon::private(folder.join("secret"), secret);
    let mail = Smtpd::start(json!({ "user": "mailer", "password": MAIL_PASSWORD }));
    let receiver = Receiver::start().await;
    // A dead-man's switch that redirects, fails and then takes it.
    let switch = Receiver::start().await;
    // Services for incidents that repeat the keys they get, and then take them.
    let mut services = Vec::new();
    for key in [ROUTING_KEY, API_KEY, ALERT_TOKEN] {
        let service = Receiver::start().await;
        service.then([reply(403, &format!("no such key: {key}"))]);
        service.always(reply(202, &format!("thank you, {key}")));
        services.push(service);
    }
    switch.then([reply(302, SWITCH_PATH), reply(500, SWITCH_PATH)]);
    // A server that repeats what it was asked for, as many do, and then takes it.
    let echo = format!("no {HOOK_PATH}?key={HOOK_KEY} for Bearer {HOOK_TOKEN} here");
    receiver.then([reply(404, &echo), reply(500, &echo)]);
    receiver.always(reply(200, &echo));
    let text = settings(folder, port, &sim.base_url(), secret)
        + &mail_settings(mail.port)
        + &webhook_settings(receiver.port)
        + &service_settings(&services)
        + &format!(
            "[heartbeat]\nurl = \"http://127.0.0.1:{}/{SWITCH_PATH}\"\nevery = \"100ms\"\n",
            switch.port
        );
    crate::support::daemon::private(folder.join("keywheel.toml"), text);

    assert!(command(folder, &["migrate"]).output().unwrap().status.success());
    let token = |name: &str, role: &str| {
        let made = command(folder, &["token", "create", "--name", name, "--role", role]).output().unwrap();
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    };
    let (ada, grace) = (token("ada", "admin"), token("grace", "admin"));
    assert!(ada.starts_with("kw_"), "{ada:?}");
    // Failures are where secrets slip out: the log-in, the PATCH and a look fail first.
    let fault = |operation: &str, kind| Fault {
        operation: operation.to_owned(),
        group_id: None,
        skip: 0,
        times: Some(1),
        kind,
    };
    sim.with(|world| {
        // The daemon logs in by itself, as soon as it runs.
        let refused = fault("token", Kind::Status { status: 500, code: None, retry_after: None });
        world.faults = vec![Fault { times: None, ..refused }];
    });
    let log = std::fs::File::create(folder.join("daemon.log")).unwrap();
    let mut serve = command(folder, &["serve"]);
    let _daemon =
        Daemon(serve.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null()).spawn().unwrap());

    let client = client();
    let read = |path: &str| client.get(format!("{base}/api/v1{path}")).bearer_auth(&ada);
    let send = |path: &str, token: &str, body: Value| {
        client.post(format!("{base}/api/v1{path}")).bearer_auth(token).json(&body).send()
    };
    let ready = eventually(LIMIT, async || client.get(format!("{base}/healthz")).send().await.ok());
    ready.await.expect("the daemon did not start");
    let mut added = Finds::new();
    for (name, status) in [("default", 502), ("filed", 201)] {
        let body = json!({ "groupId": group(1), "owners": ["ada@example.com"], "credential": name });
        let reply = send("/projects", &ada, body).await.unwrap();
        let (seen, bytes) = (reply.status(), reply.bytes().await.unwrap().to_vec());
        assert_eq!(seen, status, "{}", String::from_utf8_lossy(&bytes));
        added.push(("the answer to adding a project".to_owned(), bytes));
        sim.with(|world| world.faults.clear());
    }
    sim.with(|world| {
        world.faults = vec![
            fault("patch_ear", Kind::DropReply),
            Fault {
                skip: 1,
                ..fault("get_ear", Kind::Status { status: 502, code: None, retry_after: None })
            },
            Fault { skip: 3, ..fault("get_ear", Kind::Truncate) },
        ];
    });
    let path = format!("/projects/{}/rotations", group(1));
    let body = json!({ "newKey": new_key(), "reason": "quarterly" });
    let row: Value = send(&path, &ada, body).await.unwrap().json().await.unwrap();
    let rotation = row["id"].as_str().unwrap_or_else(|| panic!("{row}")).to_owned();
    send(&format!("/rotations/{rotation}/approve"), &grace, json!({})).await.unwrap();
    let row = until_final(&read, &format!("/rotations/{rotation}")).await;
    assert_eq!(row["state"], "completed", "{row}");

    // A key that another actor sets opens incidents.
    let body = json!({ "groupId": group(2), "credential": "filed" });
    assert_eq!(send("/projects", &ada, body).await.unwrap().status(), 201);
    sim.with(|world| {
        world.keys.insert(DRIFT_KEY.to_owned(), KeyState::Enabled);
        let second = world.projects.get_mut(&group(2)).unwrap();
        second.block.insert("customerMasterKeyID".to_owned(), DRIFT_KEY.into());
    });
    let told =
        eventually(LIMIT, async || services.iter().all(|service| service.received().len() > 1).then_some(()));
    told.await.expect("a service for incidents did not hear of it");
    let asked = services.iter().map(|service| service.received().remove(0)).collect::<Vec<_>>();
    let [pagerduty, opsgenie, alertmanager] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(pagerduty.json()["routing_key"], ROUTING_KEY);
    assert_eq!(opsgenie.header("authorization"), Some(&*format!("GenieKey {API_KEY}")));
    assert_eq!(alertmanager.header("authorization"), Some(&*format!("Bearer {ALERT_TOKEN}")));

    let live = sim.with(|world| world.live_tokens());
    assert!(!live.is_empty());
    let mut canaries = vec![
        Canary::new("client_secret", secret, Some(CLIENT_ID)),
        Canary::new("ada's token", &ada, Some("ada")),
        Canary::new("grace's token", &grace, Some("grace")),
    ];
    let mut password = Canary::new("the mail password", MAIL_PASSWORD, None);
    // As it goes over the line, user and all.
    password
        .forms
        .push(STANDARD.encode(format!("\0mailer\0{MAIL_PASSWORD}")).trim_end_matches('=').to_owned());
    canaries.push(password);
    let arrived = eventually(LIMIT, async || (mail.mails().len() >= 2).then_some(()));
    arrived.await.expect("the password was never used");
    let delivered = tokio::time::timeout(Duration::from_secs(60), async {
        // One event more than was refused, so that the wait for the refused ones is not the test's.
        while receiver.received().len() < 2 {
            receiver.arrived().await;
        }
    });
    delivered.await.expect("no webhook was sent");
    let hooked = receiver.received();
    assert!(hooked.iter().all(|it| it.header("authorization") == Some(&format!("Bearer {HOOK_TOKEN}"))));
    assert!(hooked.iter().all(|it| it.path.contains(HOOK_PATH) && it.path.contains(HOOK_KEY)));
    let said = eventually(LIMIT, async || {
        let page: Value = read("/outbox").send().await.unwrap().json().await.unwrap();
        let mut rows = page["items"].as_array().unwrap().iter().filter(|row| row["channel"] == "webhook");
        rows.all(|row| row["lastReply"].is_string()).then_some(page)
    });
    let said = said.await.expect("an answer was not kept").to_string();
    assert!(said.contains("*** for Bearer *** here"), "{said}");
    let beaten = eventually(LIMIT, async || (switch.received().len() > 2).then_some(()));
    beaten.await.expect("the switch was not requested");
    for (name, it) in [
        ("the path of a webhook", HOOK_PATH),
        ("the key of a webhook", HOOK_KEY),
        ("the token of a webhook", HOOK_TOKEN),
        ("the secret of a webhook", HOOK_SECRET),
        ("the previous secret of a webhook", HOOK_PREVIOUS),
        ("the address of the dead-man's switch", SWITCH_PATH),
        ("PagerDuty's routing key", ROUTING_KEY),
        ("Opsgenie's API key", API_KEY),
        ("Alertmanager's token", ALERT_TOKEN),
    ] {
        canaries.push(Canary::new(name, it, None));
    }
    canaries.push(installation_key(folder));
    canaries.extend(live.iter().map(|it| Canary::new("Atlas' access token", it, None)));
    let mut finds = answers(&base, &ada, &rotation).await;
    finds.extend(added);
    for args in [
        &["config", "show"][..],
        &["config", "check"],
        &["token", "list"],
        &["status"],
        &["audit", "verify"],
        &["doctor"],
        &["key", "show"],
        &["outbox", "list"],
    ] {
        finds.push((format!("keywheel {}", args.join(" ")), output(folder, args)));
    }
    finds.extend(files(folder));
    let places: Vec<_> = finds.iter().map(|(place, bytes)| format!("{place}: {}", bytes.len())).collect();
    let log = finds.iter().find(|(place, _)| place == "the file daemon.log").unwrap();
    let lines = String::from_utf8_lossy(&log.1).lines().count();
    assert!(lines > 100, "the log of level trace has {lines} lines");
    assert!(finds.iter().any(|(place, _)| place == "the file kw.db"), "{places:?}");
    assert_eq!(leaks(&canaries, &finds), Vec::<String>::new());

    // The same detector over the same places, with the secrets planted by somebody careless.
    for form in [secret.to_owned(), STANDARD.encode(format!("{CLIENT_ID}:{secret}"))] {
        let path = format!("/projects/{}/rotations", group(1));
        let body = json!({ "newKey": "33333333-3333-4333-8333-333333333333", "reason": form });
        let row: Value = send(&path, &ada, body).await.unwrap().json().await.unwrap();
        let planted = row["id"].as_str().unwrap_or_else(|| panic!("{row}")).to_owned();
        let mut finds = answers(&base, &ada, &planted).await;
        finds.extend(files(folder));
        let found = leaks(&canaries, &finds);
        for place in
            [format!("the answer of /api/v1/rotations/{planted}"), "the answer of /api/v1/outbox".to_owned()]
        {
            assert!(found.contains(&format!("client_secret in {place}")), "{place}: {found:?}");
        }
        assert!(found.iter().any(|it| it.starts_with("client_secret in the file kw.db")), "{found:?}");
        send(&format!("/rotations/{planted}/cancel"), &ada, json!({})).await.unwrap();
    }
    for canary in &canaries {
        for form in &canary.forms {
            let planted = vec![("a log".to_owned(), format!("before {form} after").into_bytes())];
            assert_eq!(leaks(&canaries, &planted), [format!("{} in a log", canary.name)], "{form}");
        }
    }
}

const MAIL_PASSWORD: &str = "Canary-7+Post_Box";

fn mail_settings(port: u16) -> String {
    let password = MAIL_PASSWORD.replace('+', "%2B");
    format!(
        "[mail]\nsmtp_url = \"smtp://mailer:{password}@127.0.0.1:{port}?tls=none\"\nfrom = \"k@example.com\"\n"
    )
}

const SWITCH_PATH: &str = "Canary-7-Lantern";
const DRIFT_KEY: &str = "44444444-4444-4444-8444-444444444444";
const ROUTING_KEY: &str = "Canary-7-Foghorn";
const API_KEY: &str = "Canary-7-Breakwater";
const ALERT_TOKEN: &str = "Canary-7-Semaphore";
const HOOK_PATH: &str = "T0-Canary-7-Harbour";
const HOOK_KEY: &str = "Canary-7-Anchor";
const HOOK_TOKEN: &str = "Canary-7-Lighthouse";
// Without what every secret begins with, so that one without it is found too.
const HOOK_SECRET: &str = "Q2FuYXJ5LTctUGllci1DYW5hcnktNy1QaWVy";
const HOOK_PREVIOUS: &str = "Q2FuYXJ5LTctUXVheS1DYW5hcnktNy1RdWF5";

fn webhook_settings(port: u16) -> String {
    format!(
        "[[webhooks]]\nname = \"ops\"\nurl = \"http://127.0.0.1:{port}/{HOOK_PATH}?key={HOOK_KEY}\"\nsecret = \"whsec_{HOOK_SECRET}\"\nprevious_secret = \"whsec_{HOOK_PREVIOUS}\"\ntoken = \"{HOOK_TOKEN}\"\nallow_private = true\n"
    )
}

fn service_settings(services: &[Receiver]) -> String {
    let of = |place: usize, name: &str, path: &str, secret: &str| {
        let port = services[place].port;
        format!(
            "[[webhooks]]\nname = \"{name}\"\nformat = \"{name}\"\nurl = \"http://127.0.0.1:{port}{path}\"\n{secret}\nallow_private = true\n"
        )
    };
    of(0, "pagerduty", "/v2/enqueue", &format!("routing_key = \"{ROUTING_KEY}\""))
        + &of(1, "opsgenie", "/v2/alerts", &format!("api_key = \"{API_KEY}\""))
        + &of(2, "alertmanager", "/api/v2/alerts", &format!("token = \"{ALERT_TOKEN}\""))
}

fn settings(folder: &Path, port: u16, atlas: &str, secret: &str) -> String {
    format!(
        r#"
data_dir = "{folder}"
[server]
listen = "127.0.0.1:{port}"
[database]
url = "sqlite:kw.db"
[atlas]
base_url = "{atlas}"
request_timeout = "2s"
[atlas.credentials.default]
kind = "service-account"
client_id = "{CLIENT_ID}"
client_secret = "{secret}"
[atlas.credentials.filed]
kind = "service-account"
client_id = "{CLIENT_ID}"
client_secret_file = "{folder}/secret"
[verify]
every = "60ms"
false_grace = "300ms"
timeout = "20s"
guard = "30s"
private_network_hold = "31s"
deploy_poll = "60ms"
deploy_grace = "1500ms"
deploy_timeout = "20s"
[sweep]
cron = "* * * * * *"
drift_every = "2s"
watch_every = "200ms"
watch_for = "1s"
[pace]
backoff_min = "50ms"
backoff_max = "300ms"
settle = "400ms"
[log]
level = "trace"
"#,
        folder = folder.display()
    )
}
