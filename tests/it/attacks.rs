//! Who writes the database file, against the running binary: nothing that is edited, rewritten, put back or replaced sends
//! a key; it is named by the daemon, by `doctor` and by `audit verify`; and what keeps clusters alive goes on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keywheel::seal::InstallationKey;
use keywheel::sim::world::KeyState;
use keywheel::store::{Access, NewAudit, Store};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use crate::support::daemon::{Daemon, only_for_us, private, serve};
use crate::support::wait::{LIMIT, eventually};
use crate::support::{group, new_key, old_key};

/// What the running daemon is asked for longer than it would take to send a key.
const PATIENCE: Duration = Duration::from_secs(2);

struct Target {
    it: Daemon,
    id: String,
    /// The database with one vote of two.
    copy: PathBuf,
}

impl Target {
    /// A rotation that one of two has approved.
    async fn new() -> Self {
        let mut it = Daemon::start_with("policy.approvals = 2").await;
        // Keys are read every second.
        it.child.kill().unwrap();
        it.child.wait().unwrap();
        let file = it.folder.path().join("keywheel.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        private(&file, text.replace("drift_every = \"1h\"", "drift_every = \"1s\""));
        (it.child, it.base, it.log) = serve(it.folder.path());
        let ada = it.token("ada", "operator");
        for name in ["grace", "edsger"] {
            it.token(name, "approver");
        }
        it.add(&ada, 1).await;
        let id = it.propose(&ada, &group(1), &new_key()).await;
        let said = it.cli_as("grace", &["approve", &id]);
        assert_eq!(said.code, Some(0), "{said:?}");
        let copy = it.folder.path().join("copy.db");
        let this = Self { it, id, copy };
        this.sql(&format!("VACUUM INTO '{}'", this.copy.display())).await;
        this
    }

    fn file(&self, name: &str) -> PathBuf {
        self.it.folder.path().join("data").join(name)
    }

    /// Writes the database beside the daemon.
    async fn sql(&self, text: &str) {
        let url = format!("sqlite:{}", self.file("keywheel.db").display());
        let mut own = SqliteConnection::connect(&url).await.unwrap();
        let text = text.replace("OLD", &old_key()).replace("NEW", &new_key());
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut own).await.unwrap();
        own.close().await.unwrap();
    }

    fn stop(&mut self) {
        self.it.child.kill().unwrap();
        self.it.child.wait().unwrap();
    }

    /// Another process on what is there now.
    fn start(&mut self) {
        (self.it.child, self.it.base, self.it.log) = serve(self.it.folder.path());
    }

    /// Puts another file in the database's place.
    fn replace(&self, from: Option<&Path>) {
        for tail in ["-wal", "-shm", ""] {
            let _ = std::fs::remove_file(self.file(&format!("keywheel.db{tail}")));
        }
        if let Some(from) = from {
            std::fs::copy(from, self.file("keywheel.db")).unwrap();
            only_for_us(&self.file("keywheel.db"));
        }
    }

    fn patches(&self) -> Vec<String> {
        let log = self.it.sim.log().into_iter().filter(|it| it.operation == "patch_ear");
        log.map(|it| it.key.unwrap_or_default()).collect()
    }

    /// Nothing is sent, and somebody can see why.
    async fn sends_nothing(&self, what: &str, named: &str) {
        let sent = eventually(PATIENCE, async || (!self.patches().is_empty()).then_some(())).await;
        assert!(sent.is_none(), "{what}: {:?}", self.patches());
        let doctor = self.it.cli(&["doctor"]);
        let verify = self.it.cli(&["audit", "verify"]);
        let log = self.it.log.lock().unwrap().clone();
        for (who, said) in [("doctor", &doctor), ("audit verify", &verify)] {
            let text = format!("{}{}", said.out, said.err);
            assert!(said.code != Some(0) && text.contains(named), "{what}: {who} does not name it: {said:?}");
        }
        let told = self.it.cli(&["outbox", "list", "-o", "json"]).out;
        assert!(
            ["needs_operator", "not_sending", "nothing is sent", "no new key is sent"]
                .iter()
                .any(|it| told.contains(it) || log.contains(it)),
            "{what}: the daemon does not name it:\n{log}"
        );
    }

    /// A key that Atlas cannot use is paged all the same.
    async fn pages(&self, what: &str) {
        self.it.sim.with(|world| world.keys.insert(old_key(), KeyState::Disabled));
        let paged = eventually(LIMIT, async || {
            let told = self.it.cli(&["outbox", "list", "-o", "json"]).out;
            told.contains("current_key_invalid").then_some(())
        });
        let log = || self.it.log.lock().unwrap().clone();
        assert!(paged.await.is_some(), "{what}: nobody hears of a key that does not work:\n{}", log());
        self.it.sim.with(|world| world.keys.insert(old_key(), KeyState::Enabled));
    }
}

fn noticed(it: &Daemon) -> bool {
    let log = it.log.lock().unwrap();
    log.contains("no new key is sent") || log.contains("nothing is sent to Atlas")
}

/// While the daemon runs, and before it starts again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_beside_the_running_daemon_send_nothing_and_are_named() {
    for (what, named, sql) in [
        (
            "an invented vote and the state that it leads to",
            "votes/",
            "INSERT INTO approvals (rotation_id, approver, at, method) SELECT rotation_id, 'edsger', at, method FROM approvals; \
             UPDATE rotations SET state = 'approved', machine = replace(replace(machine, '\"given\":1', '\"given\":2'), \
             '\"state\":\"awaiting_approval\"', '\"state\":\"approved\"'), wake_at = created_at, version = version + 1",
        ),
        (
            "the last rows of the log removed, with the head",
            "audit",
            "DELETE FROM audit WHERE seq > (SELECT seq - 2 FROM audit_head); UPDATE audit_head SET seq = (SELECT MAX(seq) FROM audit), \
             hash = (SELECT hash FROM audit ORDER BY seq DESC LIMIT 1)",
        ),
        ("a row of the log edited", "audit row 3", "UPDATE audit SET actor = 'eve' WHERE seq = 3"),
    ] {
        let mut target = Target::new().await;
        target.sql(sql).await;
        if named.starts_with("audit") {
            // The log is read again by each sweep, a part of it at a time.
            let log = async || self::noticed(&target.it).then_some(());
            assert!(eventually(LIMIT, log).await.is_some(), "{what}: {}", target.it.log.lock().unwrap());
        }
        // The second person's vote is genuine; what it is added to is not.
        let _ = target.it.cli_as("edsger", &["approve", &target.id]);
        target.sends_nothing(what, named).await;
        target.stop();
        target.start();
        target.sends_nothing(what, named).await;
        target.pages(what).await;
    }
}

/// Somebody with a Keywheel and a key of his own approves on a copy, and puts it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_goes_on_under_another_key_sends_nothing() {
    let mut target = Target::new().await;
    target.stop();
    let own = InstallationKey::of([66; 32]).unwrap();
    let genuine = {
        let text = std::fs::read_to_string(target.file("installation.key")).unwrap();
        let digits = text.trim().split_once(' ').unwrap().1.to_owned();
        InstallationKey::of(hex::decode(digits).unwrap().try_into().unwrap()).unwrap().fingerprint()
    };
    let now = "2026-11-29T00:00:00Z".parse().unwrap();
    target.sql(&format!("UPDATE meta SET value = '{}' WHERE name = 'installation'", own.fingerprint())).await;
    {
        let url = format!("sqlite:{}", target.file("keywheel.db").display());
        let store = Store::open(&url, Path::new(""), Access::Beside).await.unwrap();
        store.unlock(&own, false, now).await.unwrap();
        let row = NewAudit {
            actor: "edsger".to_owned(),
            action: "rotation.approve".to_owned(),
            subject: format!("rotation/{}", target.id),
            detail: "{}".to_owned(),
        };
        store.append(&[row], now).await.unwrap();
        store.close().await;
    }
    target.sql(&format!("UPDATE meta SET value = '{genuine}' WHERE name = 'installation'")).await;
    target.start();
    let _ = target.it.cli_as("edsger", &["approve", &target.id]);
    target.sends_nothing("another key's rows", "its seal does not fit").await;
    target.pages("another key's rows").await;
}

/// Files in the database's place, with the epoch file and without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_database_in_its_place_sends_nothing() {
    let mut target = Target::new().await;
    let withdrawn = target.it.cli_as("grace", &["withdraw", &target.id]);
    assert_eq!(withdrawn.code, Some(0), "{withdrawn:?}");
    let head: serde_json::Value =
        serde_json::from_str(&target.it.cli(&["audit", "verify", "-o", "json"]).out).unwrap();
    let expect = format!("{}:{}", head["rows"], head["head"].as_str().unwrap());
    let copy = target.copy.clone();
    let older_epoch = {
        // What the epoch file said when the copy was made.
        let mut own = SqliteConnection::connect(&format!("sqlite:{}", copy.display())).await.unwrap();
        let of = |sql: &'static str| sqlx::query_as::<_, (i64, String)>(sql);
        let (seq, hash) = of("SELECT seq, hash FROM audit_head").fetch_one(&mut own).await.unwrap();
        let now = std::fs::read_to_string(target.file("epoch")).unwrap();
        let mut mark: serde_json::Value = serde_json::from_str(&now).unwrap();
        (mark["seq"], mark["hash"]) = (seq.into(), hash.into());
        own.close().await.unwrap();
        mark.to_string()
    };
    let doubted = async |target: &Target, what: &str, kind: &str| {
        let sent = eventually(PATIENCE, async || (!target.patches().is_empty()).then_some(())).await;
        assert!(sent.is_none(), "{what}: {:?}", target.patches());
        let status = target.it.cli(&["status", "-o", "json"]).out;
        assert!(status.contains(kind), "{what}: {status}");
        let doctor = target.it.cli(&["doctor"]);
        assert!(doctor.code != Some(0) && doctor.out.contains("--accept-restore"), "{what}: {doctor:?}");
    };

    // An older copy beside the epoch file.
    target.stop();
    target.replace(Some(&copy));
    target.start();
    doubted(&target, "an older copy", "restored").await;
    target.pages("an older copy").await;
    // The same without it.
    target.stop();
    std::fs::remove_file(target.file("epoch")).unwrap();
    target.replace(Some(&copy));
    target.start();
    doubted(&target, "an older copy without the epoch file", "unknown_history").await;
    // With an epoch file of the same age it is believed, and the head that was noted shows it.
    target.stop();
    target.replace(Some(&copy));
    std::fs::write(target.file("epoch"), older_epoch).unwrap();
    target.start();
    assert_eq!(target.it.cli(&["audit", "verify"]).code, Some(0));
    let verify = target.it.cli(&["audit", "verify", "--expect", &expect]);
    assert!(verify.code == Some(1) && format!("{verify:?}").contains("is missing"), "{verify:?}");
    // An empty one.
    target.stop();
    target.replace(None);
    target.start();
    let status = target.it.cli(&["status", "-o", "json"]).out;
    assert!(status.contains("unsealed") || status.contains("restored"), "{status}");
    // Another installation's.
    let other = Target::new().await;
    target.stop();
    target.replace(Some(&other.copy));
    let refused = target.it.cli(&["serve"]);
    assert!(
        refused.code != Some(0) && refused.err.contains("this database was sealed with the installation key"),
        "another installation's database: {refused:?}"
    );
}

/// What was sent before the log was edited is taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_roll_back_arrives_though_the_log_and_the_project_are_edited() {
    let target = Target::new().await;
    target.it.sim.with(|world| {
        world.keys.insert(new_key(), KeyState::FailsOnNodes);
        world.projects.get_mut(&group(1)).unwrap().change_while_invalid = true;
    });
    let _ = target.it.cli_as("edsger", &["approve", &target.id]);
    let sent = eventually(LIMIT, async || (!target.patches().is_empty()).then_some(())).await;
    assert!(sent.is_some(), "{}", target.it.log.lock().unwrap());
    target
        .sql("UPDATE audit SET actor = 'eve' WHERE seq = 3; UPDATE owners SET mail = 'eve@example.com'")
        .await;
    let back = eventually(LIMIT, async || {
        target.patches().last().is_some_and(|key| *key == old_key()).then_some(())
    });
    assert!(back.await.is_some(), "{:?}\n{}", target.patches(), target.it.log.lock().unwrap());
}
