//! A database that is not to be acted on: restored from a backup, tampered with, or on another
//! clock; and daemons that disagree about how to act.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use keywheel::app::{Accept, doctor};
use keywheel::config::{Config, Sources};
use keywheel::domain::patch::Patch;
use keywheel::domain::project::PolicyEdit;
use keywheel::domain::role::Role;
use keywheel::domain::rotation::state::{Cause, Hold, State};
use keywheel::domain::time::{Clock, ManualClock, Span, SystemClock};
use keywheel::engine::command::{NewProject, OperatorVerb, ProjectEdit};
use keywheel::engine::epoch::EpochWatch;
use keywheel::engine::propose::Proposed;
use keywheel::engine::{conditions, driver, sweep};
use keywheel::sim::world::KeyState;
use keywheel::sim::{Sim, World};
use keywheel::store::{Access, RotationRow, Store};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor};
use tokio_util::sync::CancellationToken;

use crate::support::db::{Backend, TestDb, key, unlock};
use crate::support::wait::{LIMIT, eventually};
use crate::support::{TestApp, engine_at, group, new_key, old_key, people};

/// A test app whose engine remembers outside the database.
struct Guarded {
    test_app: TestApp,
    folder: tempfile::TempDir,
}

impl Guarded {
    async fn new() -> Self {
        let mut it = Self { test_app: TestApp::new().await, folder: tempfile::tempdir().unwrap() };
        key().create(&it.folder.path().join("installation.key")).unwrap();
        it.start().await;
        it
    }

    /// Starts as the daemon does.
    async fn start(&mut self) {
        let guard = EpochWatch::new(self.folder.path().join("epoch")).unwrap();
        guard.start(&self.test_app.db.store, self.test_app.engine.clock.now()).await.unwrap();
        self.test_app.restart();
        self.test_app.engine = self.test_app.engine.clone().with_guard(guard);
        self.sweep().await;
    }

    async fn sweep(&self) {
        sweep::once(&self.test_app.engine, &CancellationToken::new()).await.unwrap();
    }

    fn file(&self) -> PathBuf {
        self.test_app.db.url.strip_prefix("sqlite:").unwrap().into()
    }

    async fn raw(&self, text: String) {
        let Store::Sqlite { write, .. } = &self.test_app.db.store else { unreachable!() };
        write.execute(sqlx::raw_sql(AssertSqlSafe(text))).await.unwrap();
    }

    async fn back_up(&self) -> PathBuf {
        let copy = self.folder.path().join("backup.db");
        self.raw(format!("VACUUM INTO '{}'", copy.display())).await;
        copy
    }

    /// Puts the copy in the database's place and starts again.
    async fn restore(&mut self, copy: &Path) {
        self.test_app.db.store.close().await;
        let file = self.file();
        // The file too: a connection that closes late must not write over the copy.
        for tail in ["", "-wal", "-shm"] {
            let mut beside = file.as_os_str().to_owned();
            beside.push(tail);
            let _ = std::fs::remove_file(beside);
        }
        std::fs::copy(copy, &file).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        self.test_app.db.store =
            Store::open(&self.test_app.db.url, Path::new(""), Access::Beside).await.unwrap();
        unlock(&self.test_app.db.store).await;
        self.start().await;
    }

    async fn doctor(&self, accept: Accept) -> Value {
        let set = |path: &str, value: String| (path.to_owned(), value);
        let overrides = vec![
            set("data_dir", self.folder.path().display().to_string()),
            set("database.url", self.test_app.db.url.clone()),
            set("atlas.base_url", self.test_app.sim.base_url()),
            set("atlas.credentials.default.kind", "service-account".to_owned()),
            set("atlas.credentials.default.client_id", "mdb_sa_id_demo".to_owned()),
            set("atlas.credentials.default.client_secret", "mdb_sa_sk_demo".to_owned()),
        ];
        let loaded = Config::load(&Sources { overrides, ..Sources::default() }).unwrap();
        doctor(loaded, accept).await.unwrap()
    }

    fn shown(&self) -> Value {
        serde_json::to_value(self.test_app.engine.epoch.shown()).unwrap()
    }
}

async fn taken_back_to(state: State) -> (Guarded, RotationRow) {
    let mut it = Guarded::new().await;
    let row = it.test_app.approved().await;
    if state != State::Approved {
        it.test_app.until(&row, |now| now == state).await;
    }
    let copy = it.back_up().await;
    assert_eq!(it.test_app.settle(&row).await.rotation.state, State::Completed);
    let sent = it.test_app.patches();
    it.restore(&copy).await;

    // Nothing is done, however often it is asked for, and the list names the project.
    for _ in 0..3 {
        assert_eq!(driver::run_due(&it.test_app.engine).await.unwrap(), 0);
        it.sweep().await;
    }
    assert_eq!(it.test_app.patches(), sent);
    assert_eq!(it.test_app.engine.rotation(row.rotation.id).await.unwrap().rotation.state, state);
    let shown = it.shown();
    assert_eq!(shown["sending"], false);
    assert_eq!(shown["doubt"]["kind"], "restored");
    let listed = &shown["doubt"]["differences"];
    assert_eq!(listed.as_array().unwrap().len(), 1, "{shown:#}");
    assert_eq!(listed[0]["groupId"], group(1));
    assert_eq!((&listed[0]["recorded"], &listed[0]["atlas"]), (&old_key().into(), &new_key().into()));
    assert_eq!(listed[0]["rotation"], format!("{} is {state}", row.rotation.id));

    // A restart changes nothing about it, and `doctor` says it.
    it.start().await;
    assert_eq!(it.shown()["doubt"]["kind"], "restored");
    let report = it.doctor(Accept::default()).await;
    assert_eq!(report["ok"], false);
    assert!(report.to_string().contains("--accept-restore"), "{report:#}");
    let report = it.doctor(Accept { restore: true, ..Accept::default() }).await;
    assert_eq!(report["ok"], true, "{report:#}");
    let audit = it.test_app.engine.store.audit(None, 1000).await.unwrap();
    let accepted = audit.first().unwrap();
    assert_eq!(accepted.action, "database.restore_accepted");
    assert!(accepted.actor.starts_with("local:"), "{}", accepted.actor);
    let told = it.test_app.engine.store.outbox(None, 100).await.unwrap();
    assert!(told.iter().any(|mail| mail.kind == "acceptance"), "those who look after it hear it");
    (it, row)
}

#[tokio::test]
async fn a_backup_from_before_the_patch_is_not_acted_on() {
    let (it, row) = Box::pin(taken_back_to(State::Approved)).await;
    let row = it.test_app.settle(&row).await;
    assert_eq!((row.rotation.state, row.rotation.cause), (State::Superseded, Some(Cause::DoneByHand)));
    assert_eq!(it.test_app.patches(), [new_key()]);
    assert_eq!(it.shown()["sending"], true);
}

#[tokio::test]
async fn a_backup_from_the_middle_goes_on_once_it_is_accepted() {
    let (it, row) = Box::pin(taken_back_to(State::Verifying)).await;
    assert_eq!(it.test_app.settle(&row).await.rotation.state, State::Completed);
    assert_eq!(it.test_app.patches(), [new_key()]);
}

/// A copy that lacks nothing but one answer to a person is an older copy, too.
#[tokio::test]
async fn a_backup_that_lacks_one_answer_is_not_acted_on() {
    for what in ["revoked", "withdrawn", "tightened", "created"] {
        let mut it = Guarded::new().await;
        let row = it.test_app.approved().await;
        let copy = it.back_up().await;
        let engine = it.test_app.engine.clone();
        match what {
            "revoked" => drop(engine.revoke_token("ada", "grace").await.unwrap()),
            "withdrawn" => {
                engine.say("grace", row.rotation.id, OperatorVerb::Withdraw, None, None).await.unwrap();
            }
            "tightened" => {
                let policy =
                    PolicyEdit { interval: Patch::Value(Span::from_days(30)), ..PolicyEdit::default() };
                let edit = ProjectEdit { policy, ..ProjectEdit::default() };
                engine.edit_project("ada", &row.rotation.group_id, edit).await.unwrap();
            }
            _ => engine.create_token("ada", ("new", "n"), &[Role::Viewer], None).await.unwrap(),
        }
        drop(engine);
        it.restore(&copy).await;
        assert_eq!(it.shown()["doubt"]["kind"], "restored", "{what}");
        driver::run_due(&it.test_app.engine).await.unwrap();
        assert_eq!(it.test_app.patches(), [""; 0], "{what}");
    }
}

/// Somebody takes the log away, a person cancels, and the copy from before comes back.
#[tokio::test]
async fn what_was_answered_in_doubt_is_not_lost_when_the_older_database_comes_back() {
    for in_doubt in [true, false] {
        let mut it = Guarded::new().await;
        let row = it.test_app.approved().await;
        let copy = it.back_up().await;
        if in_doubt {
            it.raw("DELETE FROM audit; UPDATE audit_head SET seq = 0, hash = ''".to_owned()).await;
            it.sweep().await;
            it.test_app.engine.say("grace", row.rotation.id, OperatorVerb::Cancel, None, None).await.unwrap();
        }
        it.restore(&copy).await;
        let doubt = it.shown()["doubt"].clone();
        assert_eq!(doubt["kind"] == "restored", in_doubt, "{doubt}");
        driver::run_due(&it.test_app.engine).await.unwrap();
        assert_eq!(it.test_app.patches().is_empty(), in_doubt);
    }
}

#[tokio::test]
async fn a_copy_that_went_another_way_is_told_from_the_original() {
    let mut it = Guarded::new().await;
    let copy = it.back_up().await;
    let row = it.test_app.approved().await;
    it.test_app.settle(&row).await;
    it.restore(&copy).await;
    // Somebody goes on writing: now it has more rows than the one that was lost.
    for number in 0..100 {
        let name = format!("t{number}");
        let audit = keywheel::store::NewAudit {
            actor: "eve".to_owned(),
            action: "token.created".to_owned(),
            subject: name.clone(),
            detail: "{}".to_owned(),
        };
        let now = SystemClock.now();
        it.test_app.engine.store.insert_token(&name, &name, &[], &[audit], now).await.unwrap();
    }
    it.start().await;
    let shown = it.shown();
    assert!(shown["doubt"]["detail"].as_str().unwrap().contains("has diverged"), "{shown}");
}

#[tokio::test]
async fn a_database_that_goes_back_under_a_running_daemon_is_noticed() {
    let it = Guarded::new().await;
    it.test_app.approved().await;
    // As after a failover to a replica that lags behind.
    it.raw("DELETE FROM audit WHERE seq = (SELECT MAX(seq) FROM audit); UPDATE audit_head SET seq = seq - 1, hash = (SELECT hash FROM audit ORDER BY seq DESC LIMIT 1)".to_owned()).await;
    assert_eq!(driver::run_due(&it.test_app.engine).await.unwrap(), 0);
    assert_eq!(it.shown()["doubt"]["kind"], "restored");
    assert!(it.test_app.patches().is_empty());
}

#[tokio::test]
async fn in_doubt_people_still_hear_of_a_key_that_atlas_cannot_use() {
    let mut it = Guarded::new().await;
    it.test_app.approved().await;
    it.raw(
        "DELETE FROM audit WHERE seq > 5; UPDATE audit_head SET seq = 5, hash = (SELECT hash FROM audit WHERE seq = 5)"
            .to_owned(),
    )
    .await;
    it.start().await;
    assert_eq!(it.shown()["doubt"]["kind"], "restored");
    it.test_app.sim.with(|world| world.keys.insert(old_key(), KeyState::Disabled));
    for _ in 0..3 {
        it.test_app.pass(Duration::from_secs(15));
        it.sweep().await;
        conditions::once(&it.test_app.engine).await.unwrap();
    }
    let (store, now) = (&it.test_app.engine.store, it.test_app.engine.clock.now());
    let mails = store.outbox(None, 50).await.unwrap();
    assert_eq!(mails.iter().filter(|mail| mail.kind == "current_key_invalid").count(), 1, "{mails:?}");
    // What was written before the doubt may have been sent long ago; what is written in it leaves.
    let from = it.test_app.engine.epoch.sendable_from();
    for kind in ["not_sending", "current_key_invalid"] {
        let claimed = store.claim_mail(now, Duration::from_secs(60), from).await.unwrap().unwrap();
        assert_eq!(claimed.row.kind, kind);
    }
    assert!(store.claim_mail(now, Duration::from_secs(60), from).await.unwrap().is_none());
    assert!(it.test_app.patches().is_empty());
}

#[tokio::test]
async fn a_broken_audit_chain_stops_new_keys_until_it_is_accepted() {
    let mut it = Guarded::new().await;
    let row = it.test_app.approved().await;
    it.raw("UPDATE audit SET actor = 'eve' WHERE seq = 2".to_owned()).await;
    it.start().await;
    let shown = it.shown();
    assert_eq!(shown["doubt"]["kind"], "audit_chain");
    assert!(shown["doubt"]["wayOut"].as_str().unwrap().contains("--accept-broken-chain 2"), "{shown}");
    driver::run_due(&it.test_app.engine).await.unwrap();
    assert!(it.test_app.patches().is_empty());
    let wrong = it.doctor(Accept { broken_row: Some(1), ..Accept::default() }).await;
    assert_eq!(wrong["ok"], false);
    let report = it.doctor(Accept { broken_row: Some(2), ..Accept::default() }).await;
    // The row is accepted, and what it sealed stays void: the token of the proposer.
    let failed: Vec<_> =
        report["checks"].as_array().unwrap().iter().filter(|it| it["result"] == "fail").collect();
    assert_eq!(failed.len(), 1, "{report:#}");
    assert!(failed[0]["detail"].as_str().unwrap().starts_with("token/ada was changed"), "{report:#}");
    // The claim of the attempt that the freeze has stopped runs out.
    it.test_app.pass(Duration::from_secs(61));
    assert_eq!(it.test_app.settle(&row).await.rotation.state, State::Completed);
    it.start().await;
    assert_eq!(it.shown()["sending"], true);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_sends_nothing_new() {
    let it = Guarded::new().await;
    let row = it.test_app.approved().await;
    // A folder in the place of the file: it cannot be replaced.
    let file = it.folder.path().join("epoch");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    for _ in 0..5 {
        driver::run_due(&it.test_app.engine).await.unwrap();
        it.test_app.pass(Duration::from_millis(100));
    }
    assert!(it.test_app.patches().is_empty(), "{:?}", it.test_app.patches());
    std::fs::remove_dir(&file).unwrap();
    assert_eq!(it.test_app.settle(&row).await.rotation.state, State::Completed);
}

#[tokio::test]
async fn two_hours_between_our_clock_and_the_databases_hold_every_new_patch() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let clock = ManualClock::new(SystemClock.now() + Duration::from_secs(2 * 3600));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Atlas agrees with us, so that only the database's clock is another.
    let sim = Sim::start(listener, World::demo(), Arc::new(clock.clone())).unwrap();
    let db = TestDb::new(Backend::Postgres).await;
    people(&db.store).await;
    let engine = engine_at(&sim, db.store.clone(), Arc::new(clock.clone()));
    let new = NewProject { group_id: group(1), ..NewProject::default() };
    engine.add_project("ada", new).await.unwrap();
    let proposed = engine
        .propose("ada", &group(1).parse().unwrap(), new_key().parse().unwrap(), None, false)
        .await
        .unwrap();
    let Proposed::Created(row) = proposed else { panic!("not new") };
    sweep::once(&engine, &CancellationToken::new()).await.unwrap();
    engine.say("grace", row.rotation.id, OperatorVerb::Approve, None, None).await.unwrap();
    driver::run_due(&engine).await.unwrap();
    let held = engine.rotation(row.rotation.id).await.unwrap().rotation;
    assert_eq!((held.state, held.hold), (State::Approved, Some(Hold::ClockSkew)));
    let shown = serde_json::to_value(engine.epoch.shown()).unwrap();
    assert_eq!(shown["sending"], false);
    assert!(shown["clockSkewMs"]["database"].as_i64().unwrap().abs_diff(7_200_000) < 60_000, "{shown}");
    let sent = || sim.log().iter().filter(|it| it.operation == "patch_ear").count();
    assert_eq!(sent(), 0);

    clock.set(held.wake_at.unwrap());
    assert!(SystemClock.now() < clock.now());
    driver::run_due(&engine).await.unwrap();
    assert_eq!(sent(), 0);
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A daemon's folder: its configuration, its log.
struct DaemonFolder {
    folder: tempfile::TempDir,
}

impl DaemonFolder {
    fn new(database: &str, base_url: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "data_dir = \"{0}\"\n[server]\nlisten = \"127.0.0.1:0\"\n[database]\nurl = \"{database}\"\n[atlas]\n\
             base_url = \"{base_url}\"\n[atlas.credentials.default]\nkind = \"service-account\"\n\
             client_id = \"mdb_sa_id_demo\"\nclient_secret = \"canary\"\n{more}",
            folder.path().display()
        );
        crate::support::daemon::private(folder.path().join("keywheel.toml"), text);
        key().create(&folder.path().join("installation.key")).unwrap();
        Self { folder }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keywheel"));
        command.arg("serve").current_dir(self.folder.path()).env_clear();
        command
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Starts and waits until it serves.
    async fn serve(&self) -> Daemon {
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let out = log.try_clone().unwrap();
        let daemon = Daemon(self.command().stdout(Stdio::from(out)).stderr(log).spawn().unwrap());
        let served = eventually(LIMIT, async || self.log().contains("keywheel serves").then_some(()));
        assert!(served.await.is_some(), "{}", self.log());
        daemon
    }

    async fn refused(&self) -> Output {
        let command = self.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        tokio::task::spawn_blocking(move || command.wait_with_output().unwrap()).await.unwrap()
    }
}

#[tokio::test]
async fn a_second_daemon_with_other_settings_says_which() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sim = Sim::start(listener, World::demo(), Arc::new(SystemClock)).unwrap();
    let (db, base_url) = (TestDb::new(Backend::Postgres).await, sim.base_url());
    let folder_of = |more: &str| DaemonFolder::new(&db.url, &base_url, more);
    let first = folder_of("[verify]\nevery = \"15s\"\n");
    let mut running = first.serve().await;

    let strict = folder_of("[verify]\nevery = \"20s\"\n");
    let ended = strict.refused().await;
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    let pid = format!("(pid {})", running.0.id());
    for part in ["verify.every is \"20s\" here and \"15s\" there", pid.as_str(), "Give both the same"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    let elsewhere = DaemonFolder::new(&db.url, "http://127.0.0.1:9", "");
    let said = String::from_utf8(elsewhere.refused().await.stderr).unwrap();
    assert!(said.contains("atlas.base_url is \"http://127.0.0.1:9\" here"), "{said}");

    // What does not decide how a proof is made only warns.
    let lenient = folder_of("[policy]\ninterval = \"80d\"\n");
    let second = lenient.serve().await;
    assert!(lenient.log().contains("policy.interval is"), "{}", lenient.log());
    assert!(!lenient.log().contains("canary"));
    drop(second);

    // Another configuration is welcome once the first daemon has stopped. The one that was killed
    // is still announced, with the same proofs as the first.
    let stop = Command::new("kill").arg(running.0.id().to_string()).status().unwrap();
    assert!(stop.success());
    let code = tokio::task::spawn_blocking(move || running.0.wait().unwrap()).await.unwrap();
    assert!(code.success(), "{}", first.log());
    let Store::Postgres { write: pool, .. } = &db.store else { unreachable!() };
    let (left,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM daemons").fetch_one(pool).await.unwrap();
    assert_eq!(left, 1);
    let said = String::from_utf8(strict.refused().await.stderr).unwrap();
    assert!(said.contains("try again after"), "{said}");
    sqlx::query("UPDATE daemons SET seen_at = seen_at - INTERVAL '3 minutes'").execute(pool).await.unwrap();
    drop(strict.serve().await);
}
