//! What the key services have to say: which key is the newest, the checklist before a change, and when
//! the policy may agree in the place of people.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keywheel::config::kms::{AzureCredential, Kms, Login};
use keywheel::domain::patch::Patch;
use keywheel::domain::preflight::{Check, CheckName, Verdict};
use keywheel::domain::project::PolicyEdit;
use keywheel::domain::rotation::journal::JournalKind;
use keywheel::domain::rotation::state::{Hold, State};
use keywheel::domain::time::{Clock, ManualClock, Span, SystemClock, Timestamp};
use keywheel::engine::command::{Actor, CommandError, NewProject, OperatorVerb, ProjectEdit};
use keywheel::engine::propose::Proposed;
use keywheel::engine::{conditions, driver, poll, remind};
use keywheel::kms::{KeyService, connect};
use keywheel::secret::Secret;
use keywheel::sim::world::{Facts, KeyState, Role, demo_key};
use keywheel::store::{Channel, OutboxRow, RotationRow};
use serde_json::json;

use super::HookServer;
use super::senders::{trail, vault_event};
use crate::support::db::Backend;
use crate::support::group;

const HOOKS: &str = r#"
[[hooks]]
name = "grid"
kind = "azure-event-grid"
token = "the-secret-in-the-address"
[[hooks]]
name = "bus"
kind = "aws-eventbridge"
token = "the-key-of-the-connection"
[[hooks]]
name = "ci"
kind = "cloudevents"
token = "the-token-of-our-pipeline"
"#;

fn azure(version: u32) -> String {
    demo_key("AZURE", "identity-prod", 5, version)
}

fn aws(version: u32) -> String {
    demo_key("AWS", "payments-prod", 1, version)
}

impl HookServer {
    /// The same, with lookups at the simulated key services that the projects name.
    pub(super) async fn asking(backend: Backend, clock: Option<ManualClock>) -> Self {
        let mut server = Self::on(backend, HOOKS, clock).await;
        let base = server.sim.base_url();
        let login = Login::Azure {
            tenant_id: Some("00000000-0000-4000-8000-000000000002".to_owned()),
            client_id: Some("00000000-0000-4000-8000-000000000009".to_owned()),
            proof: Some(AzureCredential::Secret(Secret::new("keywheel-demo-azure"))),
            authority: Some(format!("{base}/kms/entra").parse().unwrap()),
        };
        let keys = Some(("AKIAKEYWHEELDEMO0000".to_owned(), Secret::new("keywheel-demo-aws")));
        let made = [
            ("vaults", "/kms/azure", login),
            ("aws", "/kms/aws", Login::Aws { region: None, profile: None, keys }),
        ];
        let lookups: BTreeMap<_, Arc<dyn KeyService>> = made
            .into_iter()
            .map(|(name, path, login)| {
                let endpoint = Some(format!("{base}{path}").parse().unwrap());
                let options = Kms { timeout: Span::from_secs(20), endpoint, login };
                (name.to_owned(), connect(name, options).unwrap() as Arc<dyn KeyService>)
            })
            .collect();
        server.engine.kms = Arc::new(lookups);
        server
            .edit(5, ProjectEdit { kms: Patch::Value("vaults".to_owned()), ..ProjectEdit::default() })
            .await;
        let aws = ProjectEdit {
            kms: Patch::Value("aws".to_owned()),
            alias: Patch::Value("alias/payments-prod".to_owned()),
            ..ProjectEdit::default()
        };
        server.edit(1, aws).await;
        server
    }

    async fn edit(&self, number: u64, edit: ProjectEdit) {
        self.engine.edit_project(Actor::admin("ada"), &group(number).parse().unwrap(), edit).await.unwrap();
    }

    async fn agree(&self, number: u64, triggers: &[&str]) {
        let hooks = triggers.iter().filter_map(|it| it.strip_prefix("hook:"));
        let hooks = hooks.map(|it| (it.to_owned(), Vec::new()));
        self.engine.hook_owners.lock().unwrap().extend(hooks);
        let triggers = triggers.iter().map(|it| (*it).to_owned()).collect();
        let policy = PolicyEdit {
            auto_approve: Patch::Value(triggers),
            approvals: Patch::Value(2),
            ..PolicyEdit::default()
        };
        self.edit(number, ProjectEdit { policy, ..ProjectEdit::default() }).await;
    }

    async fn poll(&self) {
        poll::once(&self.engine, &self.stop).await.unwrap();
    }

    /// Lets time pass. The client's token is over by then, and it learns that from the vault.
    async fn later(&self, time: Duration) {
        self.clock.advance(time);
        self.poll().await;
        assert!(
            self.said(5).await.contains("the newest key could not be looked up"),
            "{}",
            self.said(5).await
        );
    }

    async fn said(&self, number: u64) -> String {
        let group = group(number).parse().unwrap();
        self.engine.store.last_look_up(&group).await.unwrap().map(|(_, said)| said).unwrap_or_default()
    }

    fn key(&self, key: &str, state: KeyState) {
        self.sim.with(|world| world.keys.insert(key.to_owned(), state));
    }

    fn fact(&self, key: &str, change: impl FnOnce(&mut Facts)) {
        self.sim.with(|world| change(world.kms.facts.entry(key.to_owned()).or_default()));
    }

    async fn only(&self) -> RotationRow {
        let mut rotations = self.engine.store.rotations(None, None, None, 100).await.unwrap();
        assert_eq!(rotations.len(), 1, "{rotations:?}");
        rotations.remove(0)
    }

    async fn none(&self) {
        assert_eq!(self.engine.store.rotations(None, None, None, 100).await.unwrap().len(), 0);
    }

    /// What a proposal would be checked with.
    async fn checklist(&self, number: u64, key: &str) -> Vec<Check> {
        let group = group(number).parse().unwrap();
        match self.engine.propose("ada", &group, key.parse().unwrap(), None, true).await.unwrap() {
            Proposed::Checked { checks, .. } => checks,
            other => panic!("{other:?}"),
        }
    }

    async fn until(&self, row: &RotationRow, wanted: impl Fn(&RotationRow) -> bool) -> RotationRow {
        for _ in 0..1000 {
            driver::run_due(&self.engine).await.unwrap();
            let row = self.engine.rotation(row.rotation.id).await.unwrap();
            if wanted(&row) {
                return row;
            }
            let wake = row.rotation.wake_at.unwrap_or_else(|| panic!("it rests as {:?}", row.rotation));
            self.clock.set(self.clock.now().max(wake));
        }
        panic!("it moves and never gets there: {row:?}")
    }
}

/// The lines of a checklist of today.
fn written() -> Vec<CheckName> {
    CheckName::ALL.iter().copied().filter(|name| *name != CheckName::Format).collect()
}

fn line(checks: &[Check], name: CheckName) -> (Verdict, &str) {
    let check = checks.iter().find(|check| check.name == name).unwrap();
    (check.result, check.detail.as_str())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_only_says_where_to_look() {
    let server = HookServer::asking(Backend::Sqlite, None).await;
    // The event tells of the second version, which somebody has switched off again.
    server.key(&azure(2), KeyState::Disabled);
    server.grid(&vault_event("KeyNewVersionCreated", 2, "1")).await;
    server.none().await;
    // Late, it tells of the second version again; the third is there by now.
    server.key(&azure(2), KeyState::Enabled);
    server.key(&azure(3), KeyState::Enabled);
    server.fact(&azure(3), |it| it.created = "2026-03-01T00:00:00Z".parse().ok());
    server.grid(&vault_event("KeyNewVersionCreated", 2, "2")).await;
    let row = server.only().await;
    assert_eq!(row.rotation.new_key.to_string(), azure(3));
    for check in &row.rotation.observing.checks {
        assert_eq!(check.result, Verdict::Pass, "{check:?}");
    }
    let names: Vec<_> = row.rotation.observing.checks.iter().map(|check| check.name).collect();
    assert_eq!(names, written());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_without_a_key_is_enough_where_the_key_service_is_asked() {
    let server = HookServer::asking(Backend::Sqlite, None).await;
    server.grid(&vault_event("KeyNearExpiry", 1, "1")).await;
    assert_eq!(server.only().await.rotation.new_key.to_string(), azure(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_ends_before_its_period_is_due_before_it_ends() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let server = HookServer::asking(backend, Some(ManualClock::new(SystemClock.now()))).await;
        let project = async || {
            let group = group(5).parse().unwrap();
            server.engine.store.project(&group).await.unwrap().unwrap()
        };
        let defaults = server.engine.settings.policy.clone();
        let usual = project().await.due(&defaults).unwrap();
        let day = Duration::from_hours(24);
        let ends =
            Timestamp::from_micros((server.clock.now() + day * 20).as_micros() / 1_000_000 * 1_000_000);
        server.fact(&azure(1), |it| it.expires = Some(ends));
        server.fact(&azure(2), |it| it.expires = Some(ends));
        let (verdict, said) = {
            let checks = server.checklist(5, &azure(2)).await;
            let (verdict, said) = line(&checks, CheckName::KeyExpiry);
            (verdict, said.to_owned())
        };
        assert_eq!(verdict, Verdict::Warn, "{said}");
        server.poll().await;
        let early = project().await;
        assert_eq!((early.key_ends_at, early.due(&defaults)), (Some(ends), Some(ends - day * 7)));
        let why = server.engine.why(&early).await.unwrap().sentences.join(" ");
        assert!(why.contains(&format!("it ends at {ends}")), "{why}");
        remind::once(&server.engine).await.unwrap();
        let reminders = async || {
            let all = server.engine.store.outbox(None, 100).await.unwrap();
            all.into_iter()
                .filter(|it| it.kind == "reminder" && it.model["groupId"] == group(5))
                .collect::<Vec<_>>()
        };
        let told = reminders().await;
        assert!(
            !told.is_empty() && told.iter().all(|it| it.model["keyEndsAt"] == ends.to_string()),
            "{told:?}"
        );
        // The date is moved: what follows from it goes.
        server.fact(&azure(1), |it| it.expires = None);
        server.later(Duration::from_secs(6 * 3600 + 1)).await;
        server.clock.advance(Duration::from_secs(6 * 3600 + 1));
        server.poll().await;
        let late = project().await;
        assert_eq!((late.key_ends_at, late.due(&defaults)), (None, Some(usual)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_system_asks_for_by_name_is_proposed_and_a_lower_version_by_event_is_not() {
    let server = HookServer::asking(Backend::Sqlite, None).await;
    // The third is in force and its time is over in the vault; the second is usable, older, and never served.
    let past = "2026-10-01T00:00:00Z".parse().ok();
    server.key(&azure(3), KeyState::Enabled);
    server.fact(&azure(3), |it| (it.created, it.expires) = ("2026-03-01T00:00:00Z".parse().ok(), past));
    server.sim.with(|world| {
        let project = world.projects.get_mut(&group(5)).unwrap();
        project.block.insert("keyIdentifier".to_owned(), azure(3).into());
    });
    server.poll().await;
    let said = server.said(5).await;
    assert!(said.contains("is older than the one in force"), "{said}");
    server.grid(&vault_event("KeyNewVersionCreated", 2, "1")).await;
    server.none().await;
    server.ask("1", json!({ "groupId": group(5), "newKey": azure(2) })).await;
    assert_eq!(server.only().await.rotation.new_key.to_string(), azure(2));
}

async fn the_poll_finds_what_no_event_told_on(backend: Backend) {
    // Amazon's own client signs by the machine's clock.
    let clock = ManualClock::new(SystemClock.now());
    let server = HookServer::asking(backend, Some(clock)).await;
    server.poll().await;
    let row = server.only().await;
    assert_eq!((row.trigger.as_str(), row.rotation.state), ("poll", State::AwaitingApproval));
    assert_eq!(row.rotation.new_key.to_string(), azure(2));
    assert_eq!(server.said(5).await, format!("proposed as rotation {}", row.rotation.id));
    assert!(server.said(1).await.contains("already"), "{}", server.said(1).await);
    // Nothing is due before six hours are over, and then nothing is new.
    let asked = server.sim.log().len();
    server.poll().await;
    assert_eq!(server.sim.log().len(), asked);
    server.later(Duration::from_secs(6 * 3600 + 1)).await;
    assert!(server.sim.log().len() > asked);
    // What failed is tried again sooner.
    server.clock.advance(Duration::from_secs(1801));
    server.poll().await;
    assert!(server.said(5).await.starts_with("proposed already"), "{}", server.said(5).await);
    server.only().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_poll_finds_what_no_event_told() {
    the_poll_finds_what_no_event_told_on(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_poll_finds_what_no_event_told_on_postgres() {
    the_poll_finds_what_no_event_told_on(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_aws_the_alias_says_which_key_is_new() {
    let server = HookServer::asking(Backend::Sqlite, None).await;
    server.agree(1, &["hook:bus"]).await;
    server.sim.with(|world| world.kms.aliases.insert("alias/payments-prod".to_owned(), aws(2)));
    let asked = json!({ "aliasName": "alias/payments-prod", "targetKeyId": aws(1) });
    server.bus(&trail("UpdateAlias", &asked, "e1")).await;
    let row = server.only().await;
    assert!(row.rotation.new_key.to_string().ends_with(&aws(2)), "{}", row.rotation.new_key);
    assert_eq!(row.rotation.state, State::Approved, "the alias' target is what the policy agrees to");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_up_that_fails_says_what_is_missing_and_stops_nothing() {
    for (deny, firewall, expired, words) in [
        ("keys/get", false, false, "Key Vault Reader"),
        ("", true, false, "irewall"),
        ("", false, true, "secret"),
    ] {
        let server = HookServer::asking(Backend::Sqlite, None).await;
        server.sim.with(|world| {
            world.kms.denied.insert(deny.to_owned());
            if firewall {
                world.kms.firewalled.insert("kw-demo".to_owned());
            }
            world.kms.azure_apps.values_mut().for_each(|app| app.expired = expired);
        });
        server.poll().await;
        let said = server.said(5).await;
        assert!(said.contains(words) && said.contains("the newest key could not be looked up"), "{said}");
        assert!(!said.contains("keywheel-demo-azure"), "{said}");
        server.none().await;
        // An event names a key, and people see what nobody could check.
        server.grid(&vault_event("KeyNewVersionCreated", 2, "1")).await;
        let row = server.only().await;
        let (verdict, detail) = line(&row.rotation.observing.checks, CheckName::KeyExists);
        assert_eq!(verdict, Verdict::Warn, "{detail}");
        assert!(detail.contains(words), "{detail}");
        let mail = server.mails("approval_requested").await.remove(0);
        assert!(mail.model["checks"][0]["detail"].as_str().unwrap().contains(words), "{}", mail.model);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_line_of_the_checklist_can_fail() {
    let server = HookServer::asking(Backend::Sqlite, None).await;
    let now = SystemClock.now();
    let (soon, later) = (now + Duration::from_secs(47 * 3600), now + Duration::from_secs(49 * 3600));
    let fails = async |number, key: &str, name, words: &str| {
        let checks = server.checklist(number, key).await;
        let (verdict, detail) = line(&checks, name);
        assert_eq!(verdict, Verdict::Fail, "{name}: {detail}");
        assert!(detail.contains(words), "{words:?} not in {detail}");
        let proposed = server
            .engine
            .propose("ada", &group(number).parse().unwrap(), key.parse().unwrap(), None, false)
            .await;
        assert!(matches!(proposed, Err(CommandError::Preflight(_))), "{proposed:?}");
    };
    let passes = async |number, key: &str, name| {
        let checks = server.checklist(number, key).await;
        let (verdict, detail) = line(&checks, name);
        // What ends before the next rotation is due is only warned of.
        let wanted = if name == CheckName::KeyExpiry { Verdict::Warn } else { Verdict::Pass };
        assert_eq!(verdict, wanted, "{name}: {detail}");
    };
    let key = azure(2);
    let nowhere = azure(9);
    fails(5, &nowhere, CheckName::KeyExists, "KeyNotFound").await;
    for (state, name, words) in [
        (KeyState::Disabled, CheckName::KeyEnabled, "enable it"),
        (KeyState::Disabled, CheckName::EncryptDecrypt, "vaults: "),
    ] {
        server.key(&key, state);
        fails(5, &key, name, words).await;
    }
    server.key(&key, KeyState::Enabled);
    server.fact(&key, |it| it.expires = Some(soon));
    fails(5, &key, CheckName::KeyExpiry, "less than 48 hours").await;
    server.fact(&key, |it| it.expires = Some(now - Duration::from_secs(60)));
    fails(5, &key, CheckName::KeyExpiry, "it expired at").await;
    server.fact(&key, |it| (it.expires, it.not_before) = (Some(later), Some(soon)));
    fails(5, &key, CheckName::KeyExpiry, "not be used before").await;
    server.fact(&key, |it| it.not_before = None);
    passes(5, &key, CheckName::KeyExpiry).await;
    server.fact(&key, |it| it.kind = Some("EC".to_owned()));
    fails(5, &key, CheckName::KeySymmetric, "EC").await;
    let key = aws(2);
    server.key(&key, KeyState::PendingDeletion);
    server.fact(&key, |it| it.deletion_date = Some(later));
    fails(1, &key, CheckName::KeyDeletion, "it will be deleted at").await;
    server.key(&key, KeyState::Enabled);
    passes(1, &key, CheckName::KeyDeletion).await;
    server.fact(&key, |it| it.kind = Some("RSA_2048".to_owned()));
    fails(1, &key, CheckName::KeySymmetric, "RSA_2048").await;
    server.fact(&key, |it| it.kind = None);
    server.sim.with(|world| world.roles.insert("mdb_sa_id_demo".to_owned(), Role::ReadOnly));
    fails(1, &key, CheckName::ProjectOwner, "grant it that role").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_for_two_environments_is_stopped_when_it_begins_and_shown_when_it_goes_on() {
    let server = HookServer::asking(Backend::Sqlite, None).await;
    let shared = |checks: &[Check]| {
        let (verdict, detail) = line(checks, CheckName::SharedKey);
        (verdict, detail.to_owned())
    };
    let tag = |name: &str| ProjectEdit { environment: Some(name.to_owned()), ..ProjectEdit::default() };
    server.edit(5, tag("")).await;
    assert_eq!(shared(&server.checklist(5, &azure(2)).await).0, Verdict::NotChecked);
    server.edit(5, tag("prod")).await;
    assert_eq!(shared(&server.checklist(5, &azure(2)).await).0, Verdict::Pass);
    // Another project of this vault, for tests, holds a version of the same key.
    server.sim.with(|world| {
        let project = world.projects.get_mut(&group(6)).unwrap();
        project.block.insert("keyIdentifier".to_owned(), azure(2).replace("https://kw", "https://KW").into());
    });
    let new =
        NewProject { group_id: group(6), environment: Some("test".to_owned()), ..NewProject::default() };
    server.engine.add_project("ada", new).await.unwrap();
    let (verdict, detail) = shared(&server.checklist(5, &azure(2)).await);
    assert_eq!(verdict, Verdict::Warn, "{detail}");
    assert!(detail.contains("identity-test (test) uses the same key, as before"), "{detail}");
    let other = demo_key("AZURE", "identity-test", 6, 2);
    let (verdict, _) = shared(&server.checklist(5, &other).await);
    assert_eq!(verdict, Verdict::Pass, "nobody holds that one any more");
    // The other way round it would begin.
    server.edit(6, tag("prod")).await;
    server.edit(5, tag("test")).await;
    server.sim.with(|world| {
        let project = world.projects.get_mut(&group(6)).unwrap();
        project.block.insert("keyIdentifier".to_owned(), demo_key("AZURE", "identity-test", 6, 1).into());
    });
    let (verdict, detail) = shared(&server.checklist(6, &azure(2)).await);
    assert_eq!(verdict, Verdict::Fail, "{detail}");
    assert!(detail.contains("identity-prod (test)"), "{detail}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_goes_bad_after_the_approvals_is_not_sent_until_it_is_fixed() {
    let server = HookServer::asking(Backend::Sqlite, None).await;
    server.grid(&vault_event("KeyNewVersionCreated", 2, "1")).await;
    let row = server.only().await;
    server.key(&azure(2), KeyState::Disabled);
    server.engine.say("grace", row.rotation.id, OperatorVerb::Approve, None, None).await.unwrap();
    let held = server.until(&row, |row| row.rotation.hold.is_some()).await;
    assert_eq!((held.rotation.state, held.rotation.hold), (State::Approved, Some(Hold::Preflight)));
    assert_eq!(line(&held.rotation.observing.checks, CheckName::KeyEnabled).0, Verdict::Fail);
    let mail = server.mails("preflight_failed").await;
    assert_eq!(mail.len(), 1);
    assert!(mail[0].model["checks"].as_array().unwrap().iter().any(|it| it["name"] == "key_enabled"));
    assert!(server.sim.log().iter().all(|it| it.operation != "patch_ear"), "nothing was sent");
    server.key(&azure(2), KeyState::Enabled);
    let ended = server.until(&row, |row| row.rotation.state.is_final()).await;
    assert_eq!(ended.rotation.state, State::Completed);
    let journal = server.engine.store.journal(row.rotation.id, 0, 100).await.unwrap();
    let sent = journal.iter().find(|it| it.kind == JournalKind::Patch).unwrap();
    assert_eq!(sent.detail["checks"].as_array().unwrap().len(), written().len(), "kept as evidence");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_agrees_only_to_what_was_confirmed_and_once_a_day() {
    let clock = ManualClock::new("2026-11-20T03:00:00Z".parse().unwrap());
    let server = HookServer::asking(Backend::Sqlite, Some(clock)).await;
    server.agree(5, &["hook:grid", "hook:ci"]).await;
    server.grid(&vault_event("KeyNewVersionCreated", 2, "1")).await;
    let row = server.only().await;
    assert_eq!(row.rotation.state, State::Approved);
    assert!(row.rotation.permission.approved_at.is_some() && row.rotation.permission.quorum.is_met());
    let votes = server.engine.store.approvals(row.rotation.id).await.unwrap();
    let [vote] = votes.as_slice() else { panic!("{votes:?}") };
    assert_eq!((vote.by.as_str(), vote.method.as_str()), ("policy:auto_approve", "auto_approve"));
    assert!(vote.comment.as_deref().unwrap().contains("hook:grid"));
    assert_eq!(server.mails("approval_requested").await.len(), 0);
    assert_eq!(server.mails("auto_approved").await.len(), 1);
    let kinds: Vec<_> = server.engine.store.journal(row.rotation.id, 0, 10).await.unwrap();
    assert_eq!(
        kinds.iter().map(|it| (it.kind.as_str(), it.to_state)).collect::<Vec<_>>(),
        [("proposed", State::AwaitingApproval), ("command", State::Approved)]
    );
    assert!(server.engine.store.verify_audit().await.unwrap().intact().is_ok());
    // Anyone who sees it in time can stop it; then the next one within a day is people's.
    server.engine.say("grace", row.rotation.id, OperatorVerb::Reject, None, None).await.unwrap();
    server.key(&azure(3), KeyState::Enabled);
    server.fact(&azure(3), |it| it.created = "2026-03-01T00:00:00Z".parse().ok());
    server.later(Duration::from_secs(23 * 3600)).await;
    server.grid(&vault_event("KeyNewVersionCreated", 3, "2")).await;
    let second = server.engine.store.rotations(None, None, None, 1).await.unwrap().remove(0);
    assert_eq!(
        (second.rotation.state, second.rotation.permission.quorum.required),
        (State::AwaitingApproval, 2)
    );
    let first = server.engine.store.journal(second.rotation.id, 0, 1).await.unwrap().remove(0);
    let why = first.detail["autoApproval"].as_str().unwrap();
    assert!(why.contains("another rotation"), "{why}");
    server.engine.say("grace", second.rotation.id, OperatorVerb::Reject, None, None).await.unwrap();
    // What a system asks for by name nobody confirms, a day later or not.
    server.later(Duration::from_secs(2 * 86_400)).await;
    server.key(&azure(4), KeyState::Enabled);
    server.fact(&azure(4), |it| it.created = "2026-02-02T00:00:00Z".parse().ok());
    server.ask("1", json!({ "groupId": group(5), "newKey": azure(4) })).await;
    let third = server.engine.store.rotations(None, None, None, 1).await.unwrap().remove(0);
    assert_eq!(third.rotation.new_key.to_string(), azure(4));
    assert_eq!(third.rotation.state, State::AwaitingApproval);
    server.engine.say("grace", third.rotation.id, OperatorVerb::Reject, None, None).await.unwrap();
    // A warning is for people too.
    server.key(&azure(5), KeyState::Enabled);
    server.fact(&azure(5), |it| it.created = "2026-05-01T00:00:00Z".parse().ok());
    server.sim.with(|world| world.kms.denied.insert("keys/encrypt".to_owned()));
    server.grid(&vault_event("KeyNewVersionCreated", 5, "5")).await;
    let fourth = server.engine.store.rotations(None, None, None, 1).await.unwrap().remove(0);
    assert_eq!(fourth.rotation.new_key.to_string(), azure(5));
    assert_eq!(fourth.rotation.state, State::AwaitingApproval);
    assert_eq!(line(&fourth.rotation.observing.checks, CheckName::EncryptDecrypt).0, Verdict::Warn);
}

/// No event is needed: the poll asks about the keys in play, whatever the newest key is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_that_finds_a_key_in_play_unusable_pages_until_it_is_usable() {
    let server = HookServer::asking(Backend::Sqlite, None).await;
    let told = async |kind: &str| {
        conditions::once(&server.engine).await.unwrap();
        let rows = server.engine.store.outbox(None, 100).await.unwrap();
        let is_mail = |row: &OutboxRow| row.kind == kind && row.channel == Channel::Mail;
        rows.into_iter().rev().filter(is_mail).map(|row| row.model).collect::<Vec<_>>()
    };
    // A lookup that is named anew is asked at once.
    let again = async || {
        for kms in [Patch::Null, Patch::Value("aws".to_owned())] {
            let alias = Patch::Value("alias/payments-prod".to_owned());
            let alias = if kms == Patch::Null { Patch::Null } else { alias };
            server.edit(1, ProjectEdit { kms, alias, ..ProjectEdit::default() }).await;
        }
        server.poll().await;
    };
    server.poll().await;
    assert_eq!(told("key_alarm").await.len(), 0);
    for (state, words) in
        [(KeyState::Disabled, "is disabled"), (KeyState::PendingDeletion, "is pending deletion")]
    {
        server.key(&aws(1), state);
        again().await;
        let alarms = told("key_alarm").await;
        let last = alarms.last().unwrap();
        assert!(last["event"].as_str().unwrap().starts_with(words), "{last}");
        assert_eq!((&last["lookedUp"], &last["hook"]), (&json!(true), &json!("aws")), "{last}");
        assert_eq!(last["conditionId"], format!("{}/key_ending", group(1)));
    }
    server.key(&aws(1), KeyState::Enabled);
    again().await;
    assert_eq!(told("key_alarm_over").await.len(), 1);
}
