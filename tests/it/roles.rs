//! Who may lift whose limits: what loosens takes an admin, is announced and takes effect later, and nobody gets
//! around an approval in two steps.

mod emergency;
mod forged;
mod heads;
mod matrix;
mod passkeys;
mod people;
mod races;

use std::collections::BTreeMap;
use std::time::Duration;

use keywheel::domain::ids::GroupId;
use keywheel::domain::patch::Patch;
use keywheel::domain::project::PolicyEdit;
use keywheel::domain::role::Role;
use keywheel::domain::rotation::state::State;
use keywheel::domain::time::{Span, Timestamp};
use keywheel::engine::command::{Actor, CommandError, NewProject, OperatorVerb, ProjectEdit, TokenEdit};
use keywheel::engine::propose::Proposed;
use keywheel::engine::{deciding, driver, loosen};
use keywheel::sim::World;
use keywheel::store::{Loosening, MessageEnd, OutboxRow, RotationRow, StoreError};

use crate::four_eyes::raw;
use crate::support::db::Backend;
use crate::support::{TestApp, group, new_key};

const DAY: Duration = Duration::from_hours(24);
const SECURITY: &str = "security@example.com";

/// An installation whose first day is over, with three people. Tokens of all of them are old.
struct Fixture(TestApp);

impl std::ops::Deref for Fixture {
    type Target = TestApp;
    fn deref(&self) -> &TestApp {
        &self.0
    }
}

impl Fixture {
    async fn new() -> Self {
        Self::on(Backend::Sqlite).await
    }

    async fn on(backend: Backend) -> Self {
        let mut app = TestApp::on(backend, World::demo()).await;
        app.rule(|settings| {
            settings.settle_in = Some(Span::from_secs(3600));
            settings.security = vec![SECURITY.to_owned()];
        });
        let it = Self(app);
        it.pass(Duration::from_hours(2));
        it.give("ada", &[Role::Operator]).await;
        for name in ["grace", "edsger"] {
            it.give(name, &[Role::Operator, Role::Approver]).await;
        }
        it.engine.revoke_token("local:admin", "bob").await.unwrap();
        it.make("root", &[Role::Admin]).await;
        it.pass(2 * DAY);
        it
    }

    /// Gives a token that is there other roles.
    async fn give(&self, name: &str, roles: &[Role]) {
        let edit = TokenEdit { roles: Some(roles.to_vec()), person: None };
        self.engine.edit_token(admin(), name, edit).await.unwrap();
    }

    async fn make(&self, name: &str, roles: &[Role]) {
        self.make_as("local:admin", name, roles).await;
    }

    async fn make_as(&self, by: &str, name: &str, roles: &[Role]) {
        let person = format!("{name}@example.com");
        self.engine.create_token(by, (name, name), roles, Some(&person)).await.unwrap();
    }

    async fn edit(&self, by: Actor<'_>, edit: ProjectEdit) -> Result<(), CommandError> {
        self.engine.edit_project(by, &project(), edit).await.map(drop)
    }

    async fn approvals(&self) -> u32 {
        let project = self.engine.store.project(&project()).await.unwrap().unwrap();
        project.policy(&self.engine.settings.policy).approvals
    }

    async fn pending(&self) -> Vec<Loosening> {
        self.engine.loosenings().await.unwrap()
    }

    /// Has the mails leave that go to one of these.
    async fn deliver(&self, recipients: &[&str]) {
        let now = self.engine.clock.now();
        let mut kept = Vec::new();
        let from = Timestamp::from_micros(0);
        while let Some(mail) = self.engine.store.claim_mail(now, DAY, from).await.unwrap() {
            let end = if recipients.contains(&mail.row.recipient.as_str()) {
                MessageEnd::Sent
            } else {
                kept.push(mail);
                continue;
            };
            self.engine.store.mail_ended(&mail, &end, "250 ok", now).await.unwrap();
        }
        for mail in kept {
            self.engine.store.mail_ended(&mail, &MessageEnd::Again(now), "later", now).await.unwrap();
        }
    }

    async fn round(&self) {
        loosen::run_due(&self.engine).await.unwrap();
    }

    async fn propose(&self, by: &str) -> RotationRow {
        let proposed = self.engine.propose(by, &project(), new_key().parse().unwrap(), None, false).await;
        let Proposed::Created(row) = proposed.unwrap() else { panic!("not new") };
        row
    }

    async fn approve(&self, by: &str, row: &RotationRow) -> Result<RotationRow, CommandError> {
        self.engine.say(by, row.rotation.id, OperatorVerb::Approve, None, None).await
    }

    async fn mails(&self, kind: &str) -> Vec<OutboxRow> {
        let mut rows = self.engine.store.outbox(None, 500).await.unwrap();
        rows.retain(|row| row.kind == kind);
        rows
    }

    async fn told(&self, kind: &str) -> Vec<String> {
        let mut told: Vec<_> = self.mails(kind).await.into_iter().map(|row| row.recipient).collect();
        told.sort();
        told
    }

    async fn audited(&self, action: &str) -> usize {
        let rows = self.engine.store.audit(None, 500).await.unwrap();
        rows.iter().filter(|row| row.action == action).count()
    }
}

/// The project of these tests.
fn project() -> GroupId {
    group(1).parse().unwrap()
}

/// A user of the machine.
fn admin() -> Actor<'static> {
    Actor { on_machine: true, ..Actor::admin("local:admin") }
}

fn approvals(count: u32) -> ProjectEdit {
    rule(|it| it.approvals = Patch::Value(count))
}

fn rule(set: impl FnOnce(&mut PolicyEdit)) -> ProjectEdit {
    let mut policy = PolicyEdit::default();
    set(&mut policy);
    ProjectEdit { policy, ..ProjectEdit::default() }
}

fn owners(mails: &[&str]) -> ProjectEdit {
    let owners = mails.iter().map(|mail| (*mail).to_owned()).collect();
    ProjectEdit { owners: Some(owners), ..ProjectEdit::default() }
}

#[track_caller]
fn not_allowed(done: Result<(), CommandError>) -> String {
    match done {
        Err(CommandError::NotAllowed { field, role: Role::Admin, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn counts_from(voted: Result<RotationRow, CommandError>) -> Option<Timestamp> {
    match voted {
        Err(CommandError::VoteVoid(why)) => why.from(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_operator_tightens_and_undoes_it_within_an_hour() {
    let it = Fixture::new().await;
    it.edit("ada".into(), approvals(2)).await.unwrap();
    assert_eq!(it.approvals().await, 2);
    assert_eq!(not_allowed(it.edit("grace".into(), approvals(1)).await), "policy.approvals", "another's");
    it.edit("ada".into(), approvals(1)).await.unwrap();
    assert_eq!(it.approvals().await, 1);
    it.edit("ada".into(), approvals(2)).await.unwrap();
    it.pass(Duration::from_mins(61));
    assert_eq!(not_allowed(it.edit("ada".into(), approvals(1)).await), "policy.approvals");
    assert_eq!(it.approvals().await, 2);
    // Five may approve: Grace, Edsger, root and a user of this machine, so five are too many.
    assert_eq!(not_allowed(it.edit("ada".into(), approvals(5)).await), "policy.approvals");
    it.edit("ada".into(), approvals(4)).await.unwrap();
    assert_eq!(it.pending().await, []);
}

#[tokio::test]
async fn a_rule_is_merged_and_null_clears_it() {
    let it = Fixture::new().await;
    it.edit("ada".into(), rule(|it| it.interval = Patch::Value(Span::from_days(60)))).await.unwrap();
    it.edit("ada".into(), approvals(2)).await.unwrap();
    let policy = it.engine.store.project(&project()).await.unwrap().unwrap().policy.unwrap();
    assert_eq!((policy.interval, policy.approvals), (Some(Span::from_days(60)), Some(2)));
    it.edit(Actor::admin("root"), rule(|it| it.remind_before = Patch::Null)).await.unwrap();
    let cleared = it.edit("grace".into(), rule(|it| it.interval = Patch::Null)).await;
    assert_eq!(not_allowed(cleared), "policy.interval");
    let unknown =
        it.edit(Actor::admin("root"), rule(|it| it.auto_approve = Patch::Value(vec!["hook:x".into()])));
    assert!(matches!(unknown.await, Err(CommandError::BadRule { rule_name: "auto_approve", .. })));
}

#[tokio::test]
async fn a_loosened_rule_takes_effect_a_day_after_it_was_announced() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let it = Fixture::on(backend).await;
        it.edit("ada".into(), approvals(2)).await.unwrap();
        it.pass(2 * DAY);
        it.edit(Actor::admin("root"), approvals(1)).await.unwrap();
        assert_eq!(it.approvals().await, 2);
        assert_eq!(it.told("loosening_announced").await, ["ada@example.com", SECURITY]);
        // An owner alone is not enough, however long it takes.
        it.deliver(&["ada@example.com"]).await;
        it.pass(9 * DAY);
        it.round().await;
        assert_eq!(it.approvals().await, 2);
        it.deliver(&[SECURITY]).await;
        it.round().await;
        let announced = it.engine.clock.now();
        let [waiting] = it.pending().await.try_into().unwrap();
        assert_eq!(waiting.effective_at, Some(announced + DAY));
        let before = it.propose("ada").await;
        it.pass_until(announced + DAY - Duration::from_micros(1));
        it.round().await;
        assert_eq!(it.approvals().await, 2);
        it.pass_until(announced + DAY);
        it.round().await;
        assert_eq!((it.approvals().await, it.pending().await.len()), (1, 0));
        assert_eq!(it.told("loosening_effective").await, ["ada@example.com", SECURITY]);
        for action in ["loosening.requested", "loosening.announced", "loosening.effective"] {
            assert_eq!(it.audited(action).await, 1, "{action}");
        }
        // The rotation that was proposed before keeps its rule, and who loosened does not count.
        assert_eq!(before.rotation.permission.quorum.required, 2);
        assert_eq!(counts_from(it.approve("root", &before).await), Some(announced + 2 * DAY));
        it.approve("grace", &before).await.unwrap();
        it.engine.say("grace", before.rotation.id, OperatorVerb::Cancel, None, None).await.unwrap();
        let after = it.propose("ada").await;
        assert_eq!(after.rotation.permission.quorum.required, 1);
        assert_eq!(counts_from(it.approve("root", &after).await), Some(announced + 2 * DAY));
        it.pass_until(announced + 2 * DAY);
        assert_eq!(it.approve("root", &after).await.unwrap().rotation.state, State::Approved);
    }
}

#[tokio::test]
async fn a_loosened_rule_can_be_withdrawn_and_a_newer_change_replaces_it() {
    let it = Fixture::new().await;
    it.edit("ada".into(), approvals(3)).await.unwrap();
    it.pass(DAY);
    it.edit(Actor::admin("root"), approvals(1)).await.unwrap();
    let [first] = it.pending().await.try_into().unwrap();
    it.edit(Actor::admin("root"), approvals(2)).await.unwrap();
    let [second] = it.pending().await.try_into().unwrap();
    assert_ne!(first.id, second.id);
    it.engine.withdraw_loosening("edsger", second.id).await.unwrap();
    let again = it.engine.withdraw_loosening("edsger", second.id).await;
    assert!(matches!(again, Err(CommandError::LooseningEnded { .. })));
    assert_eq!(it.told("loosening_withdrawn").await, ["ada@example.com", SECURITY]);
    it.deliver(&["ada@example.com", SECURITY]).await;
    it.pass(9 * DAY);
    it.round().await;
    assert_eq!((it.approvals().await, it.pending().await.len()), (3, 0));
    // Nothing has come of it, so root counts.
    let row = it.propose("ada").await;
    it.approve("root", &row).await.unwrap();
}

#[tokio::test]
async fn a_change_of_rules_that_is_edited_or_revived_in_the_database_takes_no_effect() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let it = Fixture::on(backend).await;
        it.edit("ada".into(), approvals(2)).await.unwrap();
        it.pass(2 * DAY);
        it.edit(Actor::admin("root"), approvals(1)).await.unwrap();
        let [pending] = it.pending().await.try_into().unwrap();
        it.deliver(&["ada@example.com", SECURITY]).await;
        it.round().await;
        raw(&it.engine.store, "UPDATE loosenings SET effective_at = requested_at WHERE state = 'waiting'")
            .await;
        it.round().await;
        assert_eq!((it.approvals().await, it.pending().await.len()), (2, 1));
        let found = it.engine.store.tampered().await.unwrap();
        assert!(found[0].to_string().starts_with("loosening/"), "{found:?}");
        it.engine.withdraw_loosening("edsger", pending.id).await.unwrap();
        raw(&it.engine.store, "UPDATE loosenings SET state = 'waiting' WHERE state = 'withdrawn'").await;
        it.round().await;
        assert_eq!((it.approvals().await, it.pending().await.len()), (2, 1));
    }
}

#[tokio::test]
async fn rules_of_a_removed_project_that_are_edited_or_deleted_are_not_taken_over() {
    let it = Fixture::new().await;
    it.edit("ada".into(), approvals(2)).await.unwrap();
    it.engine.remove_project(Actor::admin("root"), &project()).await.unwrap();
    let add = || NewProject { group_id: group(1), ..NewProject::default() };
    for sql in [
        "UPDATE former_projects SET record = replace(record, '\"approvals\":2', '\"approvals\":1')",
        "DELETE FROM former_projects",
    ] {
        raw(&it.engine.store, sql).await;
        let added = it.engine.add_project("ada", add()).await;
        assert!(matches!(added, Err(CommandError::Store(StoreError::Tampered { .. }))), "{added:?}");
    }
}

#[tokio::test]
async fn a_vote_of_a_token_that_is_made_older_in_the_database_sends_no_key() {
    for (column, of) in [("given_at", "'grace'"), ("person", "'edsger'")] {
        let it = Fixture::new().await;
        it.make("puppet", &[Role::Approver]).await;
        if column == "person" {
            it.pass(2 * DAY);
        }
        let row = it.propose("ada").await;
        let sql = format!(
            "UPDATE tokens SET {column} = (SELECT {column} FROM tokens WHERE name = {of}) WHERE name = 'puppet'"
        );
        raw(&it.engine.store, &sql).await;
        let row = it.approve("puppet", &row).await.unwrap();
        assert_eq!(row.rotation.state, State::Approved);
        for _ in 0..20 {
            driver::run_due(&it.engine).await.unwrap();
            it.pass(Duration::from_secs(15));
        }
        let row = it.engine.rotation(row.rotation.id).await.unwrap();
        assert_eq!((row.rotation.state, it.patches()), (State::AwaitingApproval, Vec::new()), "{column}");
    }
}

#[tokio::test]
async fn an_own_mailbox_as_owner_is_no_announcement() {
    let it = Fixture::new().await;
    it.edit("ada".into(), approvals(2)).await.unwrap();
    it.pass(2 * DAY);
    it.edit(Actor::admin("root"), owners(&["root@example.com"])).await.unwrap();
    assert_eq!(it.told("owners_changed").await, ["ada@example.com", SECURITY]);
    it.edit(Actor::admin("root"), approvals(1)).await.unwrap();
    assert_eq!(it.told("loosening_announced").await, ["ada@example.com", SECURITY]);
    it.deliver(&["root@example.com", SECURITY]).await;
    it.pass(9 * DAY);
    it.round().await;
    assert_eq!(it.approvals().await, 2);
    // An approver who changes the owners does not count for a day.
    let row = it.propose("ada").await;
    it.edit("grace".into(), owners(&["grace@example.com"])).await.unwrap();
    let changed = it.engine.clock.now();
    assert_eq!(counts_from(it.approve("grace", &row).await), Some(changed + DAY));
}

#[tokio::test]
async fn a_project_that_is_removed_and_added_again_keeps_its_rules() {
    let it = Fixture::new().await;
    it.edit("ada".into(), approvals(3)).await.unwrap();
    it.pass(2 * DAY);
    it.engine.remove_project("grace", &project()).await.unwrap();
    let new =
        NewProject { group_id: group(1), owners: vec!["grace@example.com".into()], ..NewProject::default() };
    let looser = NewProject {
        policy: Some(keywheel::domain::project::PolicyOverride { approvals: Some(1), ..Default::default() }),
        ..new.clone()
    };
    let refused = it.engine.track_project("grace", looser).await;
    assert_eq!(not_allowed(refused.map(drop)), "policy.approvals");
    let added = it.engine.track_project("grace", new).await.unwrap();
    assert!(added.rules_kept);
    assert_eq!(it.approvals().await, 3);
    assert_eq!(it.told("owners_changed").await, ["ada@example.com", SECURITY]);
    let row = it.propose("ada").await;
    assert!(counts_from(it.approve("grace", &row).await).is_some());
}

#[tokio::test]
async fn a_new_project_has_the_default_rules_or_tighter_ones() {
    let it = Fixture::new().await;
    let with = |approvals: u32, self_approval: Option<bool>| NewProject {
        group_id: group(2),
        policy: Some(keywheel::domain::project::PolicyOverride {
            approvals: Some(approvals),
            self_approval,
            ..Default::default()
        }),
        ..NewProject::default()
    };
    let refused = it.engine.add_project("ada", with(1, Some(true))).await.map(drop);
    assert_eq!(not_allowed(refused), "policy.selfApproval");
    // An admin's looser rules are announced too, and take effect later.
    let made = it.engine.add_project(Actor::admin("root"), with(2, Some(true))).await.unwrap();
    let policy = made.policy(&it.engine.settings.policy);
    assert_eq!((policy.approvals, policy.self_approval), (2, false));
    assert_eq!(it.told("loosening_announced").await, [SECURITY]);
    it.deliver(&[SECURITY]).await;
    it.round().await;
    it.pass(DAY);
    it.round().await;
    let made = it.engine.store.project(&made.group_id).await.unwrap().unwrap();
    assert!(made.policy(&it.engine.settings.policy).self_approval);
}

#[tokio::test]
async fn with_nobody_to_tell_a_rule_is_loosened_on_the_machine_only() {
    let mut it = Fixture::new().await;
    it.0.rule(|settings| settings.security.clear());
    it.edit("ada".into(), owners(&[])).await.unwrap();
    it.edit("ada".into(), approvals(2)).await.unwrap();
    it.pass(2 * DAY);
    let far = it.edit(Actor::admin("root"), approvals(1)).await;
    assert!(matches!(far, Err(CommandError::NobodyToTell { .. })), "{far:?}");
    let here = Actor { on_machine: true, ..Actor::admin("local:admin") };
    it.edit(here, approvals(1)).await.unwrap();
    assert_eq!((it.approvals().await, it.audited("loosening.requested").await), (2, 1));
    it.pass(DAY);
    it.round().await;
    assert_eq!(it.approvals().await, 1);
}

#[tokio::test]
async fn a_new_token_does_not_vote_and_is_its_makers() {
    let it = Fixture::new().await;
    it.make_as("grace", "puppet", &[Role::Operator, Role::Approver]).await;
    let made = it.engine.clock.now();
    assert!(it.told("token_created").await.contains(&SECURITY.to_owned()));
    let row = it.propose("ada").await;
    assert_eq!(counts_from(it.approve("puppet", &row).await), Some(made + DAY));
    it.engine.say("ada", row.rotation.id, OperatorVerb::Cancel, None, None).await.unwrap();
    // Its proposal is Grace's.
    let row = it.propose("puppet").await;
    assert_eq!(counts_from(it.approve("grace", &row).await), None);
    it.pass(DAY);
    assert_eq!(counts_from(it.approve("grace", &row).await), None, "it was new when it proposed");
    it.approve("edsger", &row).await.unwrap();
}

#[tokio::test]
async fn a_role_or_a_person_counts_a_day_after_it_was_given() {
    let it = Fixture::new().await;
    let row = it.propose("grace").await;
    let told = it.told("token_roles").await.len();
    let edit = TokenEdit { roles: Some(vec![Role::Operator, Role::Approver]), person: None };
    it.engine.edit_token(Actor::admin("root"), "ada", edit).await.unwrap();
    let given = it.engine.clock.now();
    assert_eq!(counts_from(it.approve("ada", &row).await), Some(given + DAY));
    let edit = TokenEdit { roles: None, person: Some("mallory@example.com".to_owned()) };
    it.engine.edit_token(Actor::admin("root"), "edsger", edit).await.unwrap();
    assert_eq!(it.told("token_roles").await.len(), told + 1);
    // Whose it is changes a day after it was announced, and its votes count a day later.
    it.deliver(&[SECURITY]).await;
    it.round().await;
    it.pass(DAY);
    it.round().await;
    let given = it.engine.clock.now();
    assert_eq!(counts_from(it.approve("edsger", &row).await), Some(given + DAY));
    it.pass(DAY);
    it.approve("edsger", &row).await.unwrap();
    // Two tokens of one person are one pair of eyes.
    it.make_as("local:admin", "grace-too", &[Role::Approver]).await;
    let edit = TokenEdit { roles: None, person: Some("Grace@example.com".to_owned()) };
    it.engine.edit_token(admin(), "grace-too", edit).await.unwrap();
    it.pass(2 * DAY);
    it.engine.say("ada", row.rotation.id, OperatorVerb::Cancel, None, None).await.unwrap();
    let row = it.propose("grace").await;
    assert_eq!(counts_from(it.approve("grace-too", &row).await), None);
}

#[tokio::test]
async fn the_vote_of_a_token_that_is_revoked_or_demoted_is_void() {
    for revoke in [true, false] {
        let it = Fixture::new().await;
        // A window that is closed keeps the rotation approved.
        let window = keywheel::domain::policy::Window {
            cron: "0 0 0 1 1 *".to_owned(),
            duration: Span::from_secs(1),
            timezone: "UTC".to_owned(),
        };
        it.edit("ada".into(), rule(|it| it.windows = Patch::Value(vec![window]))).await.unwrap();
        let row = it.propose("ada").await;
        assert_eq!(it.approve("edsger", &row).await.unwrap().rotation.state, State::Approved);
        driver::run_due(&it.engine).await.unwrap();
        if revoke {
            assert!(it.engine.revoke_token("local:admin", "edsger").await.unwrap());
            assert!(it.told("token_revoked").await.contains(&SECURITY.to_owned()));
        } else {
            let edit = TokenEdit { roles: Some(vec![Role::Operator]), person: None };
            it.engine.edit_token(admin(), "edsger", edit).await.unwrap();
        }
        driver::run_due(&it.engine).await.unwrap();
        let row = it.engine.rotation(row.rotation.id).await.unwrap();
        assert_eq!(row.rotation.state, State::AwaitingApproval);
        assert_eq!(row.rotation.permission.quorum.given, 0);
        assert_eq!(it.told("vote_void").await, ["ada@example.com"]);
        assert_eq!(it.patches(), [] as [String; 0]);
        it.approve("grace", &row).await.unwrap();
    }
}

#[tokio::test]
async fn who_loosens_after_voting_does_not_count_any_more() {
    let it = Fixture::new().await;
    let row = it.propose("ada").await;
    let voted = it.approve("grace", &row).await.unwrap();
    assert_eq!(voted.rotation.state, State::Approved);
    it.edit("grace".into(), owners(&["grace@example.com"])).await.unwrap();
    driver::run_due(&it.engine).await.unwrap();
    let row = it.engine.rotation(row.rotation.id).await.unwrap();
    assert_eq!(row.rotation.state, State::AwaitingApproval);
    assert_eq!(it.patches(), [] as [String; 0]);
    // Her vote counts again when the day is over.
    it.pass(DAY + Duration::from_secs(1));
    let row = it.approve("grace", &row).await.unwrap();
    assert_eq!(row.rotation.state, State::Approved);
}

#[tokio::test]
async fn other_settings_that_decide_are_told_to_old_and_new_addresses() {
    let mut it = Fixture::new().await;
    let settings = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let old = settings(&[("policy.approvals", "2"), ("mail.security", r#"["security@example.com"]"#)]);
    deciding::record(&it.engine, old.clone()).await.unwrap();
    deciding::record(&it.engine, old).await.unwrap();
    assert_eq!((it.audited("config.recorded").await, it.audited("config.changed").await), (1, 0));
    let new = settings(&[("policy.approvals", "1"), ("mail.security", r#"["mallory@example.com"]"#)]);
    deciding::record(&it.engine, new.clone()).await.unwrap();
    assert_eq!(it.audited("config.changed").await, 1);
    assert_eq!(it.told("config_changed").await, ["mallory@example.com", SECURITY]);
    // A shorter delay takes effect when it was announced for as long as the old one.
    it.0.rule(|settings| settings.loosen_after = Span::from_secs(60));
    deciding::record(&it.engine, new.clone()).await.unwrap();
    deciding::record(&it.engine, new.clone()).await.unwrap();
    let [pending] = it.pending().await.try_into().unwrap();
    assert_eq!(pending.changes[0].field, "policy.loosen_after");
    it.make_as("grace", "puppet", &[Role::Approver]).await;
    let made = it.engine.clock.now();
    let row = it.propose("ada").await;
    assert_eq!(counts_from(it.approve("puppet", &row).await), Some(made + DAY));
    it.deliver(&["mallory@example.com", SECURITY]).await;
    it.round().await;
    it.pass(DAY);
    it.round().await;
    assert_eq!(it.pending().await, []);
    it.make_as("grace", "puppet-too", &[Role::Approver]).await;
    let made = it.engine.clock.now();
    let refused = it.approve("puppet-too", &row).await;
    assert_eq!(counts_from(refused), Some(made + Duration::from_mins(1)));
    // The old delay is back at once where the configuration has it again.
    it.0.rule(|settings| settings.loosen_after = Span::from_days(1));
    deciding::record(&it.engine, new).await.unwrap();
    assert_eq!(counts_from(it.approve("puppet-too", &row).await), Some(made + DAY));
}

#[tokio::test]
async fn on_the_first_day_nothing_is_delayed() {
    let mut it = Fixture::new().await;
    it.0.rule(|settings| settings.settle_in = Some(Span::from_days(3650)));
    it.edit("ada".into(), approvals(2)).await.unwrap();
    it.edit(Actor::admin("root"), approvals(1)).await.unwrap();
    assert_eq!((it.approvals().await, it.pending().await.len()), (1, 0));
    it.make_as("local:admin", "new", &[Role::Approver]).await;
    let row = it.propose("ada").await;
    it.approve("new", &row).await.unwrap();
    assert_eq!(it.audited("project.edited").await, 2, "it is logged all the same");
}
