//! The real binary on either database, killed with SIGKILL at random instants while requests and
//! replies get lost. Judged from the simulator's log and from what Atlas holds afterwards.
//!
//! `KEYWHEEL_KILL_ROUNDS=200 cargo nextest run kill` makes it 200 rounds on each database.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use keywheel::domain::ids::RotationId;
use keywheel::domain::rotation::state::State;
use keywheel::domain::time::Span;
use keywheel::engine::command::OperatorVerb;
use keywheel::engine::propose::Proposed;
use keywheel::sim::World;
use keywheel::sim::fault::{Fault, Kind};
use keywheel::sim::world::KeyState;
use keywheel::store::{Access, Store};

use crate::support::db::Backend;
use crate::support::process::{Daemon, Dice, Orders};
use crate::support::wait::{LIMIT, Stopwatch, eventually, pause};
use crate::support::{TestApp, group};

/// On each database, unless `KEYWHEEL_KILL_ROUNDS` says otherwise.
const ROUNDS: usize = 30;

/// States that the machine must have been killed in at least this often.
const LEAST: usize = 5;
const WANTED: [State; 4] = [State::RollingBack, State::Applying, State::Verifying, State::Deploying];

/// Log-ins are counted across restarts, ten a minute; this many restarts would only wait for that.
async fn forget_log_ins(test_app: &TestApp) {
    let text = "DELETE FROM token_requests";
    match &test_app.engine.store {
        Store::Sqlite { write, .. } => drop(sqlx::query(text).execute(write).await.unwrap()),
        Store::Postgres { write, .. } => drop(sqlx::query(text).execute(write).await.unwrap()),
    }
}

async fn state(test_app: &TestApp, id: RotationId) -> State {
    test_app.engine.rotation(id).await.unwrap().rotation.state
}

/// Waits until the rotation is in `wanted` or final; says which.
async fn reach(test_app: &TestApp, id: RotationId, wanted: Option<State>, daemon: &Daemon) -> State {
    let reached = eventually(LIMIT, async || {
        let now = state(test_app, id).await;
        (Some(now) == wanted || now.is_final()).then_some(now)
    });
    let Some(state) = reached.await else {
        let row = test_app.engine.rotation(id).await.unwrap();
        let (state, cause) = (row.rotation.state, row.rotation.cause);
        panic!("stuck in {state} {cause:?} (wanted {wanted:?})\n{}", daemon.said());
    };
    state
}

fn faults(dice: &mut Dice) -> Vec<Fault> {
    // Every PATCH is slow enough to be killed in; some requests and replies are lost.
    let fault = |operation: &str, skip, times, kind| Fault {
        operation: operation.to_owned(),
        group_id: None,
        skip,
        times,
        kind,
    };
    let mut script = Vec::new();
    match dice.roll(4) {
        0 => script.push(fault("patch_ear", 0, Some(1), Kind::DropRequest)),
        1 => script.push(fault("patch_ear", 0, Some(1), Kind::DropReply)),
        2 => script.push(fault("get_ear", 2, Some(1), Kind::DropReply)),
        _ => {}
    }
    script.push(fault("patch_ear", 0, None, Kind::Delay(80)));
    script
}

#[expect(clippy::print_stdout, reason = "the histogram is for the reader of a run")]
async fn killed_at_any_instant(backend: Backend) {
    let rounds = std::env::var("KEYWHEEL_KILL_ROUNDS").map_or(ROUNDS, |it| it.parse().unwrap());
    let mut world = World::demo();
    // Tokens outlive their daemon, and a service account may have only a hundred: two a round.
    world.token_life = 10;
    let mut test_app = TestApp::live(backend, world).await;
    test_app.rule(|settings| {
        settings.verify.deploy_grace = Span::from_millis(600);
        (settings.verify.timeout, settings.verify.guard) = (Span::from_secs(20), Span::from_secs(30));
    });
    let folder = test_app.db.folder.path().to_owned();
    // On PostgreSQL nobody can know that the holder of a claim is dead until it runs out.
    let lease = if backend == Backend::Postgres { "1s" } else { "1m" };
    let base_url = test_app.sim.base_url();
    let orders = Orders {
        name: "daemon",
        database: &test_app.db.url,
        atlas: &base_url,
        client_id: "mdb_sa_id_demo",
        settings: &[("pace.lease", lease), ("log.level", "warn")],
    };
    let mut dice = Dice::new();
    let mut histogram: BTreeMap<&str, usize> = BTreeMap::new();
    let caught =
        |histogram: &BTreeMap<&str, usize>, state: State| histogram.get(state.as_str()).copied().unwrap_or(0);
    let mut round = 0;
    // A kill may come too late for the state it was meant for: such a round counts, and is made up for.
    while let Some(wanted) = (0..WANTED.len())
        .map(|shift| WANTED[(round + shift) % WANTED.len()])
        .find(|state| round < rounds || caught(&histogram, *state) < LEAST)
        .filter(|_| round < 2 * rounds.max(LEAST * WANTED.len()))
    {
        let bad = wanted == State::RollingBack;
        let old = test_app.held();
        let new = format!("{round:08x}-bbbb-4bbb-8bbb-000000000000");
        let script = faults(&mut dice);
        test_app.sim.with(|world| {
            world.keys.insert(new.clone(), if bad { KeyState::FailsOnNodes } else { KeyState::Enabled });
            let project = world.projects.get_mut(&group(1)).unwrap();
            (project.change_while_invalid, project.update_after_ms, project.update_takes_ms) =
                (true, 20, 150);
            project.changed = None;
        });
        let before = test_app.sim.log().len();
        let id = {
            let proposed = test_app
                .engine
                .propose("ada", &group(1).parse().unwrap(), new.parse().unwrap(), None, false)
                .await
                .unwrap();
            let Proposed::Created(row) = proposed else { panic!("not new") };
            row.rotation.id
        };
        test_app.engine.say("grace", id, OperatorVerb::Approve, None, None).await.unwrap();
        test_app.sim.with(|world| world.faults = script);
        forget_log_ins(&test_app).await;
        let mut daemon = Daemon::start(&folder, &orders);
        reach(&test_app, id, Some(wanted), &daemon).await;
        pause(Duration::from_millis(dice.roll(40))).await;
        daemon.kill();
        *histogram.entry(state(&test_app, id).await.as_str()).or_default() += 1;
        let daemon = Daemon::start(&folder, &orders);
        let end = reach(&test_app, id, None, &daemon).await;
        drop(daemon);
        let held = test_app.held();
        let project = test_app.engine.store.project(&group(1).parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(project.current_key.unwrap().to_string(), held, "round {round} ended {end}");
        assert_eq!(held, if bad { old.clone() } else { new.clone() }, "round {round} ended {end}");
        assert_eq!(end, if bad { State::RolledBack } else { State::Completed }, "round {round}");
        for entry in &test_app.sim.log()[before..] {
            let known = entry.key.as_ref().is_none_or(|key| *key == old || *key == new);
            assert!(known, "round {round}: {:?} is neither old nor new", entry.key);
        }
        round += 1;
    }
    println!("{round} rounds, killed in: {histogram:?}");
    test_app.engine.store.verify_audit().await.unwrap().intact().unwrap();
    for state in WANTED {
        let times = caught(&histogram, state);
        assert!(times >= LEAST, "killed in {state} only {times} times: {histogram:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_instant_on_sqlite_it_loses_nothing_and_repeats_nothing_that_matters() {
    killed_at_any_instant(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_instant_on_postgres_it_loses_nothing_and_repeats_nothing_that_matters() {
    killed_at_any_instant(Backend::Postgres).await;
}

/// Kills `keywheel migrate` later and later, until it is done before it is killed.
/// Sends events until the daemon is gone; returns the ids of those that it has accepted.
async fn send_until_killed(url: String, name: String) -> Vec<String> {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut accepted = Vec::new();
    for number in 0.. {
        let id = format!("{name}-{number}");
        let event = serde_json::json!({
            "specversion": "1.0", "id": id, "source": "/ci", "type": "io.keywheel.rotation.requested.v1",
            "data": { "groupId": group(1), "reason": "a test" },
        });
        let request =
            http.post(&url).bearer_auth(TOKEN).header("content-type", "application/cloudevents+json");
        match request.body(event.to_string()).send().await {
            Ok(answer) if answer.status() == 202 => accepted.push(id),
            Ok(answer) => panic!("{}: {}", answer.status(), answer.text().await.unwrap_or_default()),
            Err(_) => break,
        }
    }
    accepted
}

const TOKEN: &str = "the-token-of-the-pipeline-that-is-killed";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_caller_is_answered_before_the_commit_of_its_write() {
    let test_app = TestApp::live(Backend::Sqlite, World::demo()).await;
    let folder = test_app.db.folder.path().to_owned();
    let base_url = test_app.sim.base_url();
    let orders = Orders {
        name: "daemon",
        database: &test_app.db.url,
        atlas: &base_url,
        client_id: "mdb_sa_id_demo",
        // The last ones stand in a table of their own.
        settings: &[("[[hooks]]\nname", "ci"), ("kind", "cloudevents"), ("token", TOKEN)],
    };
    let mut dice = Dice::new();
    let mut written = 0;
    for round in 0..5 {
        let mut daemon = Daemon::start(&folder, &orders);
        daemon.ready().await;
        let said = daemon.said();
        let address = said.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
        let url = format!("http://{address}/hooks/ci");
        let senders = (0..16).map(|sender| send_until_killed(url.clone(), format!("{round}-{sender}")));
        let killed = async {
            pause(Duration::from_millis(200 + dice.roll(100))).await;
            daemon.kill();
        };
        let (accepted, ()) = tokio::join!(join_all(senders), killed);
        let accepted = accepted.concat();
        let Store::Sqlite { read, .. } = &test_app.engine.store else { unreachable!() };
        let rows: Vec<(String,)> =
            sqlx::query_as("SELECT event_id FROM inbox").fetch_all(read).await.unwrap();
        let stored: BTreeSet<_> = rows.iter().filter_map(|(id,)| id.rsplit([' ', '/', ':']).next()).collect();
        let lost: Vec<_> = accepted.iter().filter(|id| !stored.contains(id.as_str())).collect();
        assert!(
            lost.is_empty(),
            "round {round}: accepted and not stored: {lost:?}, stored {:?}",
            rows.last()
        );
        written += accepted.len();
    }
    assert!(written > 100, "only {written} events in all rounds");
}

async fn migrated_in_spite_of_kills(backend: Backend) {
    let test_app = TestApp::live(backend, World::demo()).await;
    let mut finished = 0;
    // How long it takes on this machine: the first round repeats a migration that nothing killed.
    let mut alone = Duration::ZERO;
    for round in 0..120 {
        let folder = tempfile::tempdir().unwrap();
        let url = match backend {
            Backend::Sqlite => "sqlite:kw.db".to_owned(),
            Backend::Postgres => {
                let name = format!("kw_killed_{round}");
                let Store::Postgres { write, .. } = &test_app.engine.store else { unreachable!() };
                let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
                sqlx::query(create).execute(write).await.unwrap();
                let mut url: url::Url = test_app.db.url.parse().unwrap();
                url.set_path(&name);
                url.to_string()
            }
        };
        let config = folder.path().join("keywheel.toml");
        let text = format!("data_dir = \"{}\"\n[database]\nurl = \"{url}\"\n", folder.path().display());
        crate::support::daemon::private(&config, text);
        crate::support::db::key().create(&folder.path().join("installation.key")).unwrap();
        let migrate = || {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_keywheel"));
            command.arg("migrate").arg("--config").arg(&config);
            command.stdout(std::process::Stdio::null());
            command
        };
        if round == 0 {
            let started = Stopwatch::start();
            assert!(migrate().status().unwrap().success());
            alone = started.elapsed();
        } else {
            let mut child = migrate().stderr(std::process::Stdio::null()).spawn().unwrap();
            pause(alone * round / 30).await;
            let _ = child.kill();
            finished += u32::from(child.wait().unwrap().success());
        }
        let again = migrate().output().unwrap();
        assert!(again.status.success(), "round {round}: {}", String::from_utf8_lossy(&again.stderr));
        let store = Store::open(&url, folder.path(), Access::Beside).await.unwrap();
        store.check_schema().await.unwrap();
        crate::support::db::unlock(&store).await;
        assert!(store.verify_audit().await.unwrap().intact().is_ok());
        store.close().await;
        if finished == 3 {
            break;
        }
    }
    assert!(finished > 0, "it was never left alone long enough");
}

#[tokio::test]
async fn a_migration_that_is_killed_is_done_again() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        migrated_in_spite_of_kills(backend).await;
    }
}
