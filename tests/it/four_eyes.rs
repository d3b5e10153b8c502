//! Who writes the database gets no key into Atlas that the required people did not agree to, and is found.
//!
//! Each attack is SQL on the tables of a real rotation, on both databases, before the engine goes on.

use std::time::Duration;

use keywheel::domain::day::Planned;
use keywheel::domain::role::Role;
use keywheel::domain::rotation::state::{Cause, State};
use keywheel::engine::command::{CommandError, OperatorVerb};
use keywheel::engine::propose::{NewProposal, Proposed};
use keywheel::engine::{conditions, driver, sweep};
use keywheel::sim::World;
use keywheel::sim::world::KeyState;
use keywheel::store::{NewAudit, RotationRow, Store, StoreError};
use sqlx::{AssertSqlSafe, Executor};
use tokio_util::sync::CancellationToken;

use crate::support::db::Backend;
use crate::support::{TestApp, group, new_key, old_key};

/// The attacker's key. Atlas could use it.
const EVIL: &str = "eeeeeeee-dddd-4ddd-8ddd-000000000000";

pub(crate) async fn raw(store: &Store, text: &str) {
    let text = AssertSqlSafe(text.to_owned());
    match store {
        Store::Sqlite { write, .. } => drop(write.execute(sqlx::raw_sql(text)).await.unwrap()),
        Store::Postgres { write, .. } => drop(write.execute(sqlx::raw_sql(text)).await.unwrap()),
    }
}

/// How far the rotation is when the database is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// One of two has approved.
    HalfApproved,
    /// Both have.
    Approved,
    /// Both have, and it is planned for a day in a month.
    Planned,
    /// Both had, and one has withdrawn.
    Withdrawn,
    Rejected,
    Completed,
}

struct Attack {
    name: &'static str,
    at: Stage,
    /// `ID` is the rotation's id in the database's own writing, `NEW` and `EVIL` are keys.
    sql: &'static str,
    /// What `keywheel audit verify` names.
    names: &'static str,
}

const ATTACKS: &[Attack] = &[
    Attack {
        name: "another new key, where the machine reads it",
        at: Stage::Approved,
        sql: "UPDATE rotations SET machine = replace(machine, 'NEW', 'EVIL') WHERE id = ID",
        names: "rotation/",
    },
    Attack {
        name: "another new key in every column, before the second approval",
        at: Stage::HalfApproved,
        sql: "UPDATE rotations SET machine = replace(machine, 'NEW', 'EVIL'), new_key = 'EVIL', version = version + 1 WHERE id = ID; \
              UPDATE journal SET detail = replace(detail, 'NEW', 'EVIL'); UPDATE audit SET detail = replace(detail, 'NEW', 'EVIL')",
        names: "rotation/",
    },
    Attack {
        name: "an earlier date",
        at: Stage::Planned,
        sql: "UPDATE rotations SET machine = replace(machine, '\"planned_for\":\"20', '\"planned_for\":\"19'), wake_at = created_at WHERE id = ID",
        names: "rotation/",
    },
    Attack {
        name: "no date",
        at: Stage::Planned,
        sql: "UPDATE rotations SET machine = replace(machine, '\"planned_for\"', '\"planned\"'), wake_at = created_at WHERE id = ID",
        names: "rotation/",
    },
    Attack {
        name: "the two keys in each other's place",
        at: Stage::Approved,
        sql: "UPDATE rotations SET machine = replace(replace(replace(machine, 'NEW', '~'), 'OLD', 'NEW'), '~', 'OLD') WHERE id = ID",
        names: "rotation/",
    },
    Attack {
        name: "an invented vote",
        at: Stage::HalfApproved,
        sql: "INSERT INTO approvals (rotation_id, approver, at, method) SELECT rotation_id, 'edsger', at, method FROM approvals WHERE rotation_id = ID; \
              UPDATE rotations SET state = 'approved', machine = replace(replace(machine, '\"given\":1', '\"given\":2'), '\"state\":\"awaiting_approval\"', '\"state\":\"approved\"'), wake_at = created_at WHERE id = ID",
        names: "rotation/",
    },
    Attack {
        name: "a vote of the policy in the place of a person's",
        at: Stage::HalfApproved,
        sql: "UPDATE approvals SET method = 'auto_approve', approver = 'policy:auto_approve' WHERE rotation_id = ID",
        names: "votes/",
    },
    Attack {
        name: "fewer approvals needed",
        at: Stage::HalfApproved,
        sql: "UPDATE rotations SET state = 'approved', machine = replace(replace(machine, '\"required\":2', '\"required\":1'), '\"state\":\"awaiting_approval\"', '\"state\":\"approved\"'), wake_at = created_at WHERE id = ID",
        names: "rotation/",
    },
    Attack {
        name: "a vote from before its withdrawal, put back",
        at: Stage::Withdrawn,
        sql: "INSERT INTO approvals (rotation_id, approver, at, method) SELECT rotation_id, 'grace', at, method FROM approvals WHERE rotation_id = ID; \
              UPDATE rotations SET state = 'approved', machine = replace(replace(machine, '\"given\":1', '\"given\":2'), '\"state\":\"awaiting_approval\"', '\"state\":\"approved\"'), wake_at = created_at WHERE id = ID",
        names: "rotation/",
    },
    Attack {
        name: "a rejected rotation as approved",
        at: Stage::Rejected,
        sql: "UPDATE rotations SET state = 'approved', finished_at = NULL, machine = replace(replace(machine, '\"given\":1', '\"given\":2'), '\"state\":\"rejected\"', '\"state\":\"approved\"'), wake_at = created_at WHERE id = ID",
        names: "rotation/",
    },
    Attack {
        name: "a finished rotation as approved, with another key",
        at: Stage::Completed,
        sql: "UPDATE rotations SET state = 'approved', finished_at = NULL, machine = replace(replace(machine, 'NEW', 'EVIL'), '\"state\":\"completed\"', '\"state\":\"approved\"'), wake_at = created_at WHERE id = ID",
        names: "rotation/",
    },
    Attack {
        name: "a finished rotation as rolling back to another key",
        at: Stage::Completed,
        sql: "UPDATE rotations SET state = 'rolling_back', finished_at = NULL, machine = replace(replace(machine, 'OLD', 'EVIL'), '\"state\":\"completed\"', '\"state\":\"rolling_back\"'), wake_at = created_at WHERE id = ID",
        names: "rotation/",
    },
    Attack {
        name: "other owners",
        at: Stage::Approved,
        sql: "UPDATE owners SET mail = 'eve@example.com'",
        names: "project/",
    },
    Attack {
        name: "another credential",
        at: Stage::Approved,
        sql: "UPDATE projects SET credential = 'other'",
        names: "project/",
    },
];

struct Scene {
    app: TestApp,
    row: RotationRow,
}

impl Scene {
    async fn at(stage: Stage, backend: Backend) -> Self {
        let mut app = TestApp::on(backend, World::demo()).await;
        app.rule(|settings| settings.policy.approvals = 2);
        app.sim.with(|world| world.keys.insert(EVIL.to_owned(), KeyState::Enabled));
        let id = group(1).parse().unwrap();
        let in_a_month = app.engine.clock.now() + Duration::from_hours(30 * 24);
        let proposal = NewProposal {
            new_key: new_key().parse().unwrap(),
            reason: None,
            planned: (stage == Stage::Planned).then_some(Planned::At(in_a_month)),
            emergency: false,
            dry_run: false,
        };
        let proposed = app.engine.propose_on("ada", &id, proposal).await.unwrap();
        let Proposed::Created(row) = proposed else { panic!("not new") };
        let say =
            async |who: &str, verb| app.engine.say(who, row.rotation.id, verb, None, None).await.unwrap();
        let mut row = say("grace", OperatorVerb::Approve).await;
        match stage {
            Stage::HalfApproved => {}
            Stage::Rejected => row = say("bob", OperatorVerb::Reject).await,
            Stage::Approved | Stage::Planned | Stage::Completed => {
                row = say("bob", OperatorVerb::Approve).await;
            }
            Stage::Withdrawn => {
                say("bob", OperatorVerb::Approve).await;
                row = say("grace", OperatorVerb::Withdraw).await;
            }
        }
        if stage == Stage::Completed {
            row = app.settle(&row).await;
            assert_eq!(row.rotation.state, State::Completed);
        }
        assert!(app.engine.store.tampered().await.unwrap().is_empty());
        Self { app, row }
    }

    fn sql(&self, text: &str) -> String {
        let id = self.row.rotation.id.0;
        let id = match self.app.engine.store {
            Store::Sqlite { .. } => format!("X'{}'", id.simple()),
            Store::Postgres { .. } => format!("'{id}'"),
        };
        text.replace("'NEW'", &format!("'{}'", new_key()))
            .replace("'OLD'", &format!("'{}'", old_key()))
            .replace("EVIL", EVIL)
            .replace("= ID", &format!("= {id}"))
    }

    /// Lets the engine go on for some minutes.
    async fn go_on(&self) {
        for _ in 0..40 {
            sweep::once(&self.app.engine, &CancellationToken::new()).await.unwrap();
            driver::run_due(&self.app.engine).await.unwrap();
            self.app.pass(Duration::from_secs(15));
        }
    }

    async fn state(&self) -> (State, Option<Cause>) {
        let row = self.app.engine.rotation(self.row.rotation.id).await.unwrap();
        (row.rotation.state, row.rotation.cause)
    }
}

async fn no_edit_of_the_database_sends_a_key(backend: Backend) {
    for attack in ATTACKS {
        let name = attack.name;
        let scene = Box::pin(Scene::at(attack.at, backend)).await;
        let sent = scene.app.patches().len();
        raw(&scene.app.engine.store, &scene.sql(attack.sql)).await;
        let found: Vec<_> = scene.app.engine.store.tampered().await.unwrap();
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert!(found.iter().any(|it| it.starts_with(attack.names)), "{name}: {found:?}");
        if attack.at == Stage::HalfApproved || attack.at == Stage::Withdrawn {
            let who = if attack.at == Stage::HalfApproved { "bob" } else { "edsger" };
            let said =
                scene.app.engine.say(who, scene.row.rotation.id, OperatorVerb::Approve, None, None).await;
            let refused = matches!(
                &said,
                Err(CommandError::Store(StoreError::Tampered { .. }) | CommandError::Illegal { .. })
            );
            assert!(refused, "{name}: {said:?}");
        }
        // What concerns nobody's project is told as the installation's.
        conditions::once(&scene.app.engine).await.unwrap();
        scene.go_on().await;
        conditions::once(&scene.app.engine).await.unwrap();
        assert_eq!(scene.app.patches().len(), sent, "{name}");
        assert!(!scene.app.patches().contains(&EVIL.to_owned()), "{name}");
        let (state, cause) = scene.state().await;
        let voters_only = attack.names == "votes/";
        assert!(
            (state, cause) == (State::NeedsOperator, Some(Cause::Tampered)) || voters_only,
            "{name}: {state} {cause:?}"
        );
        let mails = scene.app.engine.store.outbox(None, 100).await.unwrap();
        let told = mails.iter().any(|it| matches!(it.kind.as_str(), "needs_operator" | "not_sending"));
        assert!(told, "{name}: nobody was told");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_edit_of_the_database_sends_a_key_on_sqlite() {
    Box::pin(no_edit_of_the_database_sends_a_key(Backend::Sqlite)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_edit_of_the_database_sends_a_key_on_postgres() {
    Box::pin(no_edit_of_the_database_sends_a_key(Backend::Postgres)).await;
}

/// Without the row of one of her identities a person must not become two.
async fn nobody_becomes_two_people(backend: Backend, edit: &str) {
    let app = TestApp::on(backend, World::demo()).await;
    let (store, now) = (&app.engine.store, app.engine.clock.now());
    for (name, role) in [("eve-ops", Role::Operator), ("eve-app", Role::Approver)] {
        let audit = NewAudit {
            actor: "local:test".to_owned(),
            action: "token.created".to_owned(),
            subject: format!("token/{name}"),
            detail: "{}".to_owned(),
        };
        let given = (Some("local:test"), Some("eve@example.com"));
        store.insert_given_token((name, name), &[role], given, (&[audit], &[]), now).await.unwrap();
    }
    let id = group(1).parse().unwrap();
    let proposed = app.engine.propose("eve-ops", &id, new_key().parse().unwrap(), None, false).await.unwrap();
    let Proposed::Created(row) = proposed else { panic!("not new") };
    let approve =
        async || app.engine.say("eve-app", row.rotation.id, OperatorVerb::Approve, None, None).await;
    assert!(matches!(approve().await, Err(CommandError::VoteVoid(_))));
    raw(store, edit).await;
    let _ = approve().await;
    let scene = Scene { app, row };
    scene.go_on().await;
    assert_eq!(scene.app.patches(), Vec::<String>::new(), "{edit}");
    let (state, cause) = scene.state().await;
    let stopped = (state, cause) == (State::NeedsOperator, Some(Cause::Tampered));
    assert!(stopped || state == State::AwaitingApproval, "{edit}: {state} {cause:?}");
    // A row that cannot be read is told as that.
    let found = scene.app.engine.store.tampered().await.unwrap();
    let is_named = found.iter().any(|it| it.to_string().starts_with("token/eve-ops"));
    assert!(is_named || edit.contains("created_at"), "{edit}: {found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_removes_the_row_of_an_identity_does_not_approve_what_it_proposed() {
    for edit in [
        "DELETE FROM tokens WHERE name = 'eve-ops'",
        "UPDATE tokens SET name = 'eve-opz' WHERE name = 'eve-ops'",
        "UPDATE tokens SET person = 'adam@example.com' WHERE name = 'eve-ops'",
    ] {
        Box::pin(nobody_becomes_two_people(Backend::Sqlite, edit)).await;
        Box::pin(nobody_becomes_two_people(Backend::Postgres, edit)).await;
    }
    let unreadable = "UPDATE tokens SET created_at = 'x' WHERE name = 'eve-ops'";
    Box::pin(nobody_becomes_two_people(Backend::Sqlite, unreadable)).await;
}

/// A tampered rotation is closed, and a new proposal goes its way.
#[tokio::test]
async fn people_close_what_was_tampered_with_and_nothing_else_goes_on() {
    let scene = Box::pin(Scene::at(Stage::Approved, Backend::Sqlite)).await;
    raw(&scene.app.engine.store, &scene.sql(ATTACKS[0].sql)).await;
    scene.go_on().await;
    assert_eq!(scene.state().await, (State::NeedsOperator, Some(Cause::Tampered)));
    for verb in [OperatorVerb::Resume, OperatorVerb::Accept, OperatorVerb::Rollback] {
        let said = scene.app.engine.say("bob", scene.row.rotation.id, verb, None, None).await;
        assert!(matches!(said, Err(CommandError::Illegal { .. })), "{verb:?}: {said:?}");
    }
    scene.app.engine.say("bob", scene.row.rotation.id, OperatorVerb::Close, None, None).await.unwrap();
    let id = group(1).parse().unwrap();
    let again = scene.app.engine.propose("ada", &id, new_key().parse().unwrap(), None, false).await.unwrap();
    let Proposed::Created(row) = again else { panic!("not new") };
    for who in ["bob", "grace"] {
        scene.app.engine.say(who, row.rotation.id, OperatorVerb::Approve, None, None).await.unwrap();
    }
    assert_eq!(scene.app.settle(&row).await.rotation.state, State::Completed);
    assert_eq!(scene.app.patches(), [new_key()]);
}

/// A token that Keywheel did not write, or that it has ended, does not count.
#[tokio::test]
async fn tokens_that_are_written_or_revived_by_hand_let_nobody_in() {
    let app = TestApp::new().await;
    let store = &app.engine.store;
    let now = app.engine.clock.now();
    let audit = |action: &str, name: &str| {
        [NewAudit {
            actor: "local:test".to_owned(),
            action: action.to_owned(),
            subject: format!("token/{name}"),
            detail: "{}".to_owned(),
        }]
    };
    for (name, role) in [("low", Role::Viewer), ("high", Role::Admin), ("gone", Role::Admin)] {
        store
            .insert_token(name, &format!("{name}-hash"), &[role], &audit("token.created", name), now)
            .await
            .unwrap();
    }
    store.revoke_token("gone", &audit("token.revoked", "gone"), now).await.unwrap();
    assert!(store.token_by_hash("low-hash").await.unwrap().is_some());
    for edit in [
        "UPDATE tokens SET revoked_at = NULL WHERE name = 'gone'",
        "UPDATE tokens SET roles = CASE name WHEN 'low' THEN 'admin' WHEN 'high' THEN 'viewer' ELSE roles END",
        "INSERT INTO tokens (name, hash, roles, created_at) SELECT 'eve', 'eve-hash', 'admin', created_at FROM tokens WHERE name = 'high'",
    ] {
        raw(store, edit).await;
    }
    for hash in ["low-hash", "high-hash", "gone-hash", "eve-hash"] {
        assert!(store.token_by_hash(hash).await.unwrap().is_none(), "{hash}");
    }
    let found: Vec<_> = store.tampered().await.unwrap().iter().map(ToString::to_string).collect();
    for name in ["low", "high", "gone", "eve"] {
        assert!(found.iter().any(|it| it.starts_with(&format!("token/{name} "))), "{name}: {found:?}");
    }
}

/// The vote of a token that was revoked does not count when the PATCH is due.
#[tokio::test]
async fn votes_of_a_revoked_token_are_void_until_the_patch() {
    let scene = Box::pin(Scene::at(Stage::Approved, Backend::Sqlite)).await;
    let app = &scene.app;
    let audit = NewAudit {
        actor: "local:test".to_owned(),
        action: "token.revoked".to_owned(),
        subject: "token/grace".to_owned(),
        detail: "{}".to_owned(),
    };
    app.engine.store.revoke_token("grace", &[audit], app.engine.clock.now()).await.unwrap();
    driver::run_due(&app.engine).await.unwrap();
    assert!(app.patches().is_empty());
    assert_eq!(scene.state().await, (State::AwaitingApproval, None));
    app.engine.say("edsger", scene.row.rotation.id, OperatorVerb::Approve, None, None).await.unwrap();
    assert_eq!(app.settle(&scene.row).await.rotation.state, State::Completed);
}

/// While the log does not fit, no new key is sent; a roll-back that runs arrives, and a bad key is told.
#[tokio::test]
async fn a_freeze_stops_new_keys_and_nothing_else() {
    let scene = Box::pin(Scene::at(Stage::Approved, Backend::Sqlite)).await;
    let app = &scene.app;
    // Atlas holds the new key when the log is edited, and cannot use it soon after.
    let verifying = app.until(&scene.row, |state| state == State::Verifying).await;
    raw(&app.engine.store, "UPDATE audit SET actor = 'eve' WHERE seq = 3").await;
    app.sim.with(|world| world.keys.insert(new_key(), KeyState::Disabled));
    sweep::once(&app.engine, &CancellationToken::new()).await.unwrap();
    assert!(app.engine.store.seals().fault().is_some());
    let end = app.settle(&verifying).await;
    assert!(matches!(end.rotation.state, State::RolledBack | State::NeedsOperator), "{}", end.rotation.state);
    assert_eq!(app.patches()[1], old_key(), "the roll-back leaves");
}

/// A folder with a configuration, and the program in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("keywheel.toml"), "data_dir = \"data\"\n").unwrap();
        Self(folder)
    }

    /// Exit code, standard output and standard error.
    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_keywheel"));
        command.args(args).args(["--config", "keywheel.toml"]).current_dir(self.0.path()).env_clear();
        let done = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code(), text(&done.stdout), text(&done.stderr))
    }

    fn done(&self, args: &[&str]) -> String {
        let (code, out, err) = self.run(args);
        assert_eq!(code, Some(0), "{args:?}: {out}{err}");
        out
    }

    fn key(&self) -> std::path::PathBuf {
        self.0.path().join("data/installation.key")
    }
}

fn private(file: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn the_installation_key_is_made_rotated_and_replaced() {
    let place = Place::new();
    place.done(&["migrate"]);
    place.done(&["token", "create", "--name", "ci", "--role", "admin"]);
    let first = place.done(&["key", "show"]);
    let rotated = place.done(&["key", "rotate"]);
    assert!(!first.contains(rotated.trim()) && place.done(&["key", "show"]).contains(rotated.trim()));
    assert!(place.done(&["audit", "verify"]).contains("the chain is intact"));
    let audit = place.done(&["audit", "verify", "-o", "json"]);
    let head: serde_json::Value = serde_json::from_str(&audit).unwrap();
    let known = format!("{}:{}", head["rows"], head["head"].as_str().unwrap());
    place.done(&["audit", "verify", "--expect", &known]);
    for (expect, code, words) in [
        (format!("1:{}", "0".repeat(64)), 1, "the log was replaced"),
        (format!("999:{}", "0".repeat(64)), 1, "is missing"),
        ("999".to_owned(), 3, "takes the number of an audit row"),
        ("x:y".to_owned(), 3, "takes the number of an audit row"),
    ] {
        let (ended, out, err) = place.run(&["audit", "verify", "--expect", &expect]);
        assert!(
            ended == Some(code) && format!("{out}{err}").contains(words),
            "{expect}: {ended:?} {out}{err}"
        );
    }

    // Another installation's key, and none.
    let own = std::fs::read_to_string(place.key()).unwrap();
    let other = format!("keywheel-installation-key {}\n", "42".repeat(32));
    private(&place.key(), &other);
    let (code, _, err) = place.run(&["audit", "verify"]);
    assert!(code == Some(1) && err.contains("was sealed with the installation key"), "{code:?} {err}");
    std::fs::remove_file(place.key()).unwrap();
    let (code, _, err) = place.run(&["token", "list"]);
    assert!(code == Some(1) && err.contains("keywheel key replace"), "{code:?} {err}");
    assert!(!place.key().exists(), "no key is made for a database that is sealed with another");
    std::fs::write(place.key(), &own).unwrap();
    let (code, _, err) = place.run(&["key", "replace"]);
    assert!(code == Some(1) && err.contains("chmod o-rwx"), "{code:?} {err}");
    private(&place.key(), &own);
    let (code, _, err) = place.run(&["key", "replace"]);
    assert!(code == Some(1) && err.contains("keywheel key rotate"), "{code:?} {err}");
    std::fs::remove_file(place.key()).unwrap();
    place.done(&["key", "replace"]);
    assert_ne!(std::fs::read_to_string(place.key()).unwrap(), own);
    assert!(place.done(&["token", "list", "-o", "json"]).contains("\"suspended\": true"));
    place.done(&["token", "confirm", "ci"]);
    assert!(place.done(&["token", "list", "-o", "json"]).contains("\"suspended\": false"));
    assert!(place.done(&["audit", "verify"]).contains("the chain is intact"));
    let (code, _, err) = place.run(&["token", "confirm", "nobody"]);
    assert!(code == Some(4) && err.contains("token list"), "{code:?} {err}");
}

/// SQL on the database of a folder, as somebody else would run it.
fn by_hand(place: &Place, text: &str) {
    let file = place.0.path().join("data/keywheel.db");
    let text = text.to_owned();
    let done = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
            let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
            connection.execute(sqlx::raw_sql(AssertSqlSafe(text))).await.unwrap();
        });
    });
    done.join().unwrap();
}

#[test]
fn a_database_that_lost_its_seals_is_served_and_believed_only_when_it_is_accepted() {
    let place = Place::new();
    place.done(&["migrate"]);
    place.done(&["token", "create", "--name", "ci", "--role", "admin"]);
    // The row that names the key: the log says the same.
    by_hand(&place, "DELETE FROM meta WHERE name = 'installation'");
    assert!(place.done(&["audit", "verify"]).contains("the chain is intact"));

    let empty = "DELETE FROM meta WHERE name = 'installation'; DELETE FROM audit; UPDATE audit_head SET seq = 0, hash = ''";
    by_hand(&place, empty);
    for args in [
        &["token", "list"][..],
        &["audit", "verify"],
        &["token", "create", "--name", "eve", "--role", "admin"],
    ] {
        let (code, _, err) = place.run(args);
        assert!(code == Some(1) && err.contains("doctor --accept-restore"), "{args:?}: {code:?} {err}");
    }
    let (code, out, _) = place.run(&["doctor"]);
    assert!(code == Some(1) && out.contains("--accept-restore"), "{out}");
    // It goes on watching and telling, and says why it sends nothing.
    let mut serve = std::process::Command::new(env!("CARGO_BIN_EXE_keywheel"));
    serve.args(["serve", "--listen", "127.0.0.1:0", "--config", "keywheel.toml"]).current_dir(place.0.path());
    let mut serve = serve.env_clear().stderr(std::process::Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(serve.stderr.take().unwrap()));
    let said: Vec<_> = {
        let mut said = Vec::new();
        for line in lines.map(Result::unwrap) {
            let is_last = line.contains("keywheel serves");
            said.push(line);
            if is_last {
                break;
            }
        }
        said
    };
    serve.kill().unwrap();
    serve.wait().unwrap();
    assert!(said.last().is_some_and(|it| it.contains("keywheel serves")), "{said:?}");
    assert!(said.iter().any(|it| it.contains("nothing is sent to Atlas")), "{said:?}");
    let (_, out, err) = place.run(&["doctor", "--accept-restore"]);
    assert!(out.contains("keywheel token confirm NAME"), "{out}{err}");
    assert!(place.done(&["audit", "verify"]).contains("the chain is intact"));
    assert!(place.done(&["token", "list", "-o", "json"]).contains("\"suspended\": true"));
}

/// What somebody does to the audit log, its head and the row that names the key, while a rotation is approved.
const LOG_ATTACKS: &[(&str, &str)] = &[
    (
        "the last rows removed, and the head repaired",
        "DELETE FROM audit WHERE seq > (SELECT seq - 3 FROM audit_head); UPDATE audit_head SET seq = (SELECT MAX(seq) FROM audit), \
         hash = (SELECT hash FROM audit ORDER BY seq DESC LIMIT 1)",
    ),
    ("an old row removed", "DELETE FROM audit WHERE seq = 3"),
    ("the row of the first sealing removed", "DELETE FROM audit WHERE seq = 1"),
    ("the seals cleared", "UPDATE audit SET seal = ''"),
    ("what the rows seal cleared", "UPDATE audit SET seals = ''"),
    (
        "the seals of two rows in each other's place",
        "UPDATE audit SET seal = CASE seq WHEN 3 THEN (SELECT seal FROM audit WHERE seq = 4) ELSE (SELECT seal FROM audit WHERE seq = 3) END WHERE seq IN (3, 4)",
    ),
    (
        "a forged acceptance of a broken row",
        "UPDATE audit SET actor = 'eve' WHERE seq = 3; INSERT INTO audit (seq, at, actor, action, subject, detail, prev_hash, hash) \
         SELECT h.seq + 1, a.at, 'eve', 'audit.break_accepted', 'audit/3', '{}', h.hash, 'ff' FROM audit_head h, audit a WHERE a.seq = 1; \
         UPDATE audit_head SET seq = seq + 1, hash = 'ff'",
    ),
    ("an empty log", "DELETE FROM audit; UPDATE audit_head SET seq = 0, hash = ''"),
    ("no head", "DELETE FROM audit_head"),
];

async fn no_edit_of_the_log_sends_a_key_or_hides_a_danger(backend: Backend) {
    for (name, sql) in LOG_ATTACKS {
        let scene = Box::pin(Scene::at(Stage::Approved, backend)).await;
        raw(&scene.app.engine.store, sql).await;
        scene.app.sim.with(|world| world.keys.insert(old_key(), KeyState::Disabled));
        for _ in 0..20 {
            let _ = sweep::once(&scene.app.engine, &CancellationToken::new()).await;
            let _ = driver::run_due(&scene.app.engine).await;
            let _ = conditions::once(&scene.app.engine).await;
            scene.app.pass(Duration::from_secs(15));
        }
        let mails = scene.app.engine.store.outbox(None, 100).await.unwrap();
        let told = |kind: &str| mails.iter().any(|it| it.kind == kind);
        assert!(told("current_key_invalid"), "{name}: nobody heard of the key: {mails:?}");
        // Atlas could use it again, so nothing but the log holds the PATCH.
        scene.app.sim.with(|world| world.keys.insert(old_key(), KeyState::Enabled));
        for _ in 0..20 {
            let _ = sweep::once(&scene.app.engine, &CancellationToken::new()).await;
            let _ = driver::run_due(&scene.app.engine).await;
            let _ = conditions::once(&scene.app.engine).await;
            scene.app.pass(Duration::from_secs(15));
        }
        assert!(scene.app.patches().is_empty(), "{name}: {:?}", scene.app.patches());
        let mails = scene.app.engine.store.outbox(None, 100).await.unwrap();
        let told = mails.iter().any(|it| matches!(it.kind.as_str(), "not_sending" | "needs_operator"));
        assert!(told || *name == "no head", "{name}: nobody was told: {mails:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_edit_of_the_log_sends_a_key_or_hides_a_danger_on_sqlite() {
    Box::pin(no_edit_of_the_log_sends_a_key_or_hides_a_danger(Backend::Sqlite)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_edit_of_the_log_sends_a_key_or_hides_a_danger_on_postgres() {
    Box::pin(no_edit_of_the_log_sends_a_key_or_hides_a_danger(Backend::Postgres)).await;
}
