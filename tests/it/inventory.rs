//! Discovery, import, drift, and Atlas' events as a second source: over real HTTP against the simulator.

use std::sync::Arc;
use std::time::Duration;

use keywheel::atlas::AtlasApi;
use keywheel::domain::event::{Actor, ProofState};
use keywheel::domain::ids::GroupId;
use keywheel::domain::notice::DriftKind;
use keywheel::domain::project::{Project, SinceSource, Status};
use keywheel::domain::rotation::journal::JournalKind;
use keywheel::domain::rotation::state::{Cause, State};
use keywheel::domain::time::{Clock, ManualClock, Span, SystemClock, Timestamp};
use keywheel::engine::command::{NewProject, OperatorVerb};
use keywheel::engine::{Engine, Settings, remind, sweep, witness};
use keywheel::sim::World;
use keywheel::sim::fault::{Fault, Kind};
use keywheel::sim::world::{Event, KeyState, Team, User, demo_key};
use keywheel::store::{OutboxRow, ProjectFilter, Store, StoreError};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tokio_util::sync::CancellationToken;

use crate::support::daemon::{Daemon, keywheel};
use crate::support::db::Backend;
use crate::support::wait::{LIMIT, eventually};
use crate::support::{TestApp, engine_at, group, letter, new_key, old_key};

const THIRD: &str = "33333333-3333-4333-8333-333333333333";
const OWN: &str = "mdb_sa_id_demo";
const TEAM: &str = "65bb00000000000000000001";

fn fault(operation: &str, number: Option<u64>, times: u32, kind: Kind) -> Fault {
    Fault { operation: operation.to_owned(), group_id: number.map(group), skip: 0, times: Some(times), kind }
}

fn denied() -> Kind {
    Kind::Status { status: 403, code: Some("USER_UNAUTHORIZED".to_owned()), retry_after: None }
}

/// A person sets a key in Atlas, through the simulator's control side.
async fn edit(base: &str, number: u64, key: &str, by: &str) {
    let url = format!("{base}/sim/v1/projects/{}/human-edit", group(number));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let done = http.post(url).json(&json!({ "key": key, "by": by })).send().await.unwrap();
    assert!(done.status().is_success());
}

impl TestApp {
    async fn edited(&self, key: &str, by: &str) {
        self.sim.with(|world| *world.keys.entry(key.to_owned()).or_insert(KeyState::Enabled));
        edit(&self.sim.base_url(), 1, key, by).await;
    }

    async fn project(&self) -> Project {
        self.engine.store.project(&group(1).parse().unwrap()).await.unwrap().unwrap()
    }

    /// Lets the sweep look at the project now.
    async fn swept(&self) -> Project {
        let mut project = self.project().await;
        project.next_check_at = self.engine.clock.now();
        let version = project.version;
        self.engine.store.update_project(&project, version, &[], &[], self.engine.clock.now()).await.unwrap();
        sweep::once(&self.engine, &CancellationToken::new()).await.unwrap();
        self.project().await
    }

    async fn mails(&self, kind: &str) -> Vec<OutboxRow> {
        let all = self.engine.store.outbox(None, 50).await.unwrap();
        all.into_iter().filter(|mail| mail.kind == kind).collect()
    }

    async fn audited(&self, action: &str) -> Vec<String> {
        let all = self.engine.store.audit(None, 100).await.unwrap();
        all.into_iter().filter(|row| row.action == action).map(|row| row.detail).collect()
    }
}

async fn drift_names_who_did_it_on(backend: Backend) {
    let test_app = TestApp::on(backend, World::demo()).await;
    test_app.edited(THIRD, "eve@example.com").await;
    let project = test_app.swept().await;
    assert_eq!(project.current_key.as_ref().unwrap().to_string(), THIRD);
    assert_eq!(project.key_since_source, Some(SinceSource::AtlasEvent));
    let event = test_app.sim.with(|world| world.projects[&group(1)].events.last().cloned().unwrap());
    assert_eq!(project.key_since, Some(event.created));
    let mails = test_app.mails("drifted").await;
    assert_eq!(mails.len(), 1);
    let text = letter(&mails[0]).text();
    for part in ["eve@example.com made the change", &event.id, THIRD, &old_key(), "does not change it back"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("Terraform agree"), "nothing of ours was undone: {text}");
    assert!(test_app.audited("project.drifted").await[0].contains("eve@example.com"));
    let finding = test_app.engine.store.last_drift(&project.group_id).await.unwrap().unwrap();
    assert_eq!((finding.kind, finding.by.as_deref()), (DriftKind::Changed, Some("eve@example.com")));
    // Nothing is changed back, and a second look finds nothing new.
    test_app.swept().await;
    assert_eq!((test_app.mails("drifted").await.len(), test_app.patches()), (1, vec![]));
    test_app.engine.store.verify_audit().await.unwrap().intact().unwrap();
}

#[tokio::test]
async fn drift_names_who_did_it() {
    drift_names_who_did_it_on(Backend::Sqlite).await;
}

#[tokio::test]
async fn drift_names_who_did_it_on_postgres() {
    drift_names_who_did_it_on(Backend::Postgres).await;
}

#[tokio::test]
async fn an_undone_rotation_is_a_revert_with_the_lines_that_make_terraform_agree() {
    let test_app = TestApp::new().await;
    let first = test_app.project().await.key_since;
    let row = test_app.approved().await;
    let row = test_app.settle(&row).await;
    assert_eq!(row.rotation.state, State::Completed);
    test_app.edited(&old_key(), "terraform@example.com").await;
    let project = test_app.swept().await;
    // A key that is back keeps its first day, so it is not taken for a young one.
    assert_eq!((project.key_since, project.key_since_source), (first, Some(SinceSource::FirstSeen)));
    assert_eq!(
        project.status(&test_app.engine.settings.policy, test_app.engine.clock.now()),
        Status::Drifted
    );
    let mails = test_app.mails("drifted").await;
    let (mail, model) = (&mails[0], &mails[0].model);
    assert_eq!(model["kind"], "reverted");
    assert_eq!(model["undoneRotation"], json!(row.rotation.id));
    let text = letter(mail).text();
    let lines = format!(
        "    resource \"mongodbatlas_encryption_at_rest\" \"…\" {{\n      aws_kms_config {{\n        \
         customer_master_key_id = \"{}\"\n      }}\n    }}\n",
        new_key()
    );
    let again = format!("rotate {} --to {}", group(1), new_key());
    for part in ["is the key that served until", "Terraform apply", &lines, &again, "terraform@example.com"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // The ledger keeps both times in service apart.
    let keys = test_app.engine.store.keys(&project.group_id).await.unwrap();
    let told: Vec<_> =
        keys.iter().map(|it| (it.key.clone(), it.until.is_some(), it.source.as_str())).collect();
    assert_eq!(
        told,
        [(old_key(), true, "first_seen"), (new_key(), true, "rotation"), (old_key(), false, "atlas_event")]
    );
    assert_eq!(test_app.patches(), [new_key()], "it is not rotated back");
}

/// Switches encryption with a key of one's own off in project 1, or on with `key`.
fn switch(test_app: &TestApp, key: Option<&str>) {
    test_app.sim.with(|world| {
        let project = world.projects.get_mut(&group(1)).unwrap();
        match key {
            None => project.provider.clear(),
            Some(key) => {
                world.keys.insert(key.to_owned(), KeyState::Enabled);
                "AWS".clone_into(&mut project.provider);
                project.block.insert("customerMasterKeyID".to_owned(), key.into());
            }
        }
    });
}

#[tokio::test]
async fn a_key_that_is_taken_away_ends_and_the_next_one_is_announced() {
    let test_app = TestApp::new().await;
    switch(&test_app, None);
    let project = test_app.swept().await;
    assert_eq!(project.current_key, None);
    assert_eq!(test_app.mails("drifted").await[0].model["kind"], "removed");
    let keys = test_app.engine.store.keys(&project.group_id).await.unwrap();
    assert!(keys.len() == 1 && keys[0].until.is_some(), "{keys:?}");

    switch(&test_app, Some(THIRD));
    let project = test_app.swept().await;
    assert_eq!(project.drift_key.unwrap().to_string(), THIRD);
    let mails = test_app.mails("drifted").await;
    assert_eq!((mails.len(), &mails[0].model["kind"]), (2, &json!("changed")));
    assert_eq!((&mails[0].model["from"], &mails[0].model["to"]), (&Value::Null, &json!(THIRD)));
    let keys = test_app.engine.store.keys(&project.group_id).await.unwrap();
    let told: Vec<_> = keys.iter().map(|it| (it.key.clone(), it.until.is_some())).collect();
    assert_eq!(told, [(old_key(), true), (THIRD.to_owned(), false)]);

    switch(&test_app, None);
    test_app.swept().await;
    switch(&test_app, Some(THIRD));
    test_app.swept().await;
    assert_eq!(test_app.mails("drifted").await[0].model["kind"], "reverted");
}

#[tokio::test]
async fn the_first_key_of_a_project_is_no_drift() {
    let test_app = TestApp::new().await;
    test_app.sim.with(|world| {
        let project =
            keywheel::sim::world::Project { provider: String::new(), ..world.projects[&group(1)].clone() };
        world.projects.insert(group(99), project);
    });
    test_app.track(99).await;
    test_app.sim.with(|world| world.projects.get_mut(&group(99)).unwrap().provider = "AWS".to_owned());
    let mut project = test_app.engine.store.project(&group(99).parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(project.current_key, None);
    project.next_check_at = test_app.engine.clock.now();
    let now = test_app.engine.clock.now();
    test_app.engine.store.update_project(&project, project.version, &[], &[], now).await.unwrap();
    sweep::once(&test_app.engine, &CancellationToken::new()).await.unwrap();
    let project = test_app.engine.store.project(&project.group_id).await.unwrap().unwrap();
    assert_eq!(project.current_key.unwrap().to_string(), old_key());
    assert!(test_app.mails("drifted").await.is_empty());
}

#[tokio::test]
async fn an_edit_never_collides_with_sweeps_that_find_nothing_new() {
    let test_app = TestApp::on(Backend::Sqlite, World::demo()).await;
    let read = test_app.swept().await;
    for _ in 0..3 {
        test_app.pass(Duration::from_secs(60));
        let (store, now) = (&test_app.engine.store, test_app.engine.clock.now());
        assert!(
            store.project_checked(&read.group_id, read.version, read.last_checked_at, now).await.unwrap()
        );
        assert_eq!(sweep::once(&test_app.engine, &CancellationToken::new()).await.unwrap(), 1);
    }
    let swept = test_app.project().await;
    assert!(swept.last_checked_at > read.last_checked_at && swept.next_check_at > read.next_check_at);
    let edited = Project { name: "edited".to_owned(), ..read.clone() };
    let now = test_app.engine.clock.now();
    test_app.engine.store.update_project(&edited, read.version, &[], &[], now).await.unwrap();
    let edited = test_app.project().await;
    assert_eq!((edited.name.as_str(), edited.last_checked_at), ("edited", swept.last_checked_at));
}

/// Each look at this clock takes four seconds.
#[derive(Debug)]
struct Slow(ManualClock);

impl Slow {
    fn new(test_app: &TestApp) -> Self {
        Self(ManualClock::new(test_app.engine.clock.now()))
    }
}

impl Clock for Slow {
    fn now(&self) -> Timestamp {
        self.0.advance(Duration::from_secs(4));
        self.0.now()
    }
}

#[tokio::test]
async fn an_atlas_that_hangs_keeps_no_reminder_from_being_written() {
    let test_app = TestApp::new().await;
    let mut project = test_app.project().await;
    let now = test_app.engine.clock.now();
    (project.next_check_at, project.next_reminder_at) = (now, Some(now));
    project.key_since = Some(now - 400 * Duration::from_secs(86_400));
    for number in 100..300 {
        project.group_id = group(number).parse().unwrap();
        let found = test_app.sim.with(|world| world.projects[&group(1)].clone());
        test_app.sim.with(|world| world.projects.insert(group(number), found));
        test_app.engine.store.insert_project(&project, &[], now).await.unwrap();
    }
    test_app.sim.with(|world| world.faults = vec![fault("get_ear", None, 999, Kind::Delay(600_000))]);
    let mut engine = engine_at(&test_app.sim, test_app.db.store.clone(), Arc::new(Slow::new(&test_app)));
    let mut settings = Settings::clone(&engine.settings);
    settings.request_timeout = Span::from_millis(50);
    engine.settings = Arc::new(settings);
    let asked = test_app.sim.log().len();
    let stop = CancellationToken::new();
    let sweeping = crate::support::wait::spawn(sweep::run(engine.clone(), stop.clone()));
    let reminded =
        eventually(LIMIT, async || (!test_app.mails("reminder_digest").await.is_empty()).then_some(()));
    reminded.await.expect("nobody is reminded");
    stop.cancel();
    sweeping.await.unwrap();
    assert!(engine.last_sweep.lock().unwrap().is_some());
    let looks = test_app.sim.log().into_iter().skip(asked).filter(|it| it.operation == "get_ear").count();
    assert!(looks >= 1, "{looks}");
}

#[tokio::test]
async fn what_comes_due_during_a_sweep_is_the_next_sweeps() {
    let mut test_app = TestApp::new().await;
    test_app.track(5).await;
    test_app.rule(|settings| settings.drift_every = Span::from_millis(0));
    let later = engine_at(
        &test_app.sim,
        test_app.db.store.clone(),
        Arc::new(Slow(ManualClock::new(test_app.engine.clock.now() + Duration::from_secs(400)))),
    );
    let engine = Engine { settings: Arc::clone(&test_app.engine.settings), ..later };
    assert_eq!(sweep::once(&engine, &CancellationToken::new()).await.unwrap(), 2);
}

#[tokio::test]
async fn a_project_that_does_not_read_keeps_no_other_from_being_looked_at() {
    let test_app = TestApp::new().await;
    test_app.track(5).await;
    let keywheel::store::Store::Sqlite { write: pool, .. } = &test_app.engine.store else { unreachable!() };
    let spoil = "UPDATE projects SET place = '{', next_check_at = '2000-01-01T00:00:00.000000Z', \
                 next_reminder_at = next_check_at WHERE group_id = $1";
    sqlx::query(spoil).bind(group(5)).execute(pool).await.unwrap();
    test_app.edited(THIRD, "eve@example.com").await;
    assert_eq!(test_app.swept().await.current_key.unwrap().to_string(), THIRD);
    remind::once(&test_app.engine).await.unwrap();
}

/// A row that cannot be read is passed over by every list and by the claim, and doctor's source names it.
#[tokio::test]
async fn rows_that_cannot_be_read_are_named_and_stop_no_others() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let test_app = TestApp::on(backend, World::demo()).await;
        let store = &test_app.engine.store;
        test_app.track(5).await;
        let (spoilt, good) = (
            test_app.approved().await,
            test_app.approved_to(5, &demo_key("AZURE", "identity-prod", 5, 2)).await,
        );
        let (first, other) = (group(1).parse::<GroupId>().unwrap(), group(5).parse::<GroupId>().unwrap());
        assert!(first < other && store.unreadable().await.unwrap().is_empty());
        let spoil = async |text: String| match store {
            Store::Sqlite { write, .. } => {
                sqlx::raw_sql(AssertSqlSafe(text)).execute(write).await.unwrap();
            }
            Store::Postgres { write, .. } => {
                sqlx::raw_sql(AssertSqlSafe(text)).execute(write).await.unwrap();
            }
        };
        spoil(format!("UPDATE projects SET place = '\"x\"' WHERE group_id = '{first}'")).await;
        spoil(format!("UPDATE rotations SET machine = '\"x\"' WHERE group_id = '{first}'")).await;
        let named: Vec<_> = store.unreadable().await.unwrap().iter().map(ToString::to_string).collect();
        let rows = [
            format!("projects.place that cannot be read (row {first})"),
            format!("rotations.machine that cannot be read (row {})", spoilt.rotation.id),
        ];
        assert!(
            named.len() == 2 && named.iter().zip(&rows).all(|(said, row)| said.contains(row)),
            "{named:?}"
        );
        // A page of one, which is the bad one, does not end a list.
        let all = store.projects(&ProjectFilter::default(), None, 1).await.unwrap();
        assert_eq!(all.iter().map(|it| &it.group_id).collect::<Vec<_>>(), [&other]);
        assert_eq!(store.watches().await.unwrap().iter().map(|it| &it.group).collect::<Vec<_>>(), [&other]);
        let all = store.rotations(None, None, None, 100).await.unwrap();
        assert_eq!(all.iter().map(|it| it.rotation.id).collect::<Vec<_>>(), [good.rotation.id]);
        let claimed = store.claim(test_app.engine.clock.now(), 10, Duration::from_secs(60)).await.unwrap();
        assert_eq!(claimed.iter().map(|it| it.rotation.id).collect::<Vec<_>>(), [good.rotation.id]);
        let asked = store.project(&first).await.unwrap_err();
        assert!(matches!(asked, StoreError::Corrupt { table: "projects", .. }), "{asked}");
    }
}

#[tokio::test]
async fn a_feed_that_cannot_be_read_keeps_no_drift_from_being_announced() {
    let test_app = TestApp::new().await;
    test_app.sim.with(|world| world.faults = vec![fault("get_events", None, 9, denied())]);
    test_app.edited(THIRD, "eve@example.com").await;
    let project = test_app.swept().await;
    assert_eq!(project.key_since_source, Some(SinceSource::FirstSeen));
    let text = letter(&test_app.mails("drifted").await[0]).text();
    assert!(text.contains("could not be read") && text.contains("USER_UNAUTHORIZED"), "{text}");
    assert!(!text.contains("eve@example.com"));
}

#[tokio::test]
async fn an_event_that_does_not_fit_accuses_nobody() {
    let test_app = TestApp::new().await;
    // The key changes, and the feed has only what was before the last look.
    test_app.edited(THIRD, "eve@example.com").await;
    let before = test_app.project().await.last_checked_at.unwrap() - Duration::from_secs(3600);
    test_app.sim.with(|world| world.projects.get_mut(&group(1)).unwrap().events[0].created = before);
    let project = test_app.swept().await;
    assert_eq!(project.key_since_source, Some(SinceSource::FirstSeen));
    let mails = test_app.mails("drifted").await;
    let (mail, model) = (&mails[0], &mails[0].model);
    assert!(model["by"].is_null());
    assert!(letter(mail).text().contains("the actor is unknown"));
}

#[tokio::test]
async fn our_own_credential_in_other_hands_is_called_that() {
    let test_app = TestApp::new().await;
    test_app.sim.with(|world| world.keys.insert(THIRD.to_owned(), KeyState::Enabled));
    let other = test_app.engine.clone();
    let key = keywheel::domain::key::KeyRef::observed(keywheel::domain::key::Provider::Aws, THIRD);
    let id: GroupId = group(1).parse().unwrap();
    other.atlas.set_key("default", &id, &key, Duration::from_secs(5)).await;
    test_app.swept().await;
    let text = letter(&test_app.mails("drifted").await[0]).text();
    assert!(text.contains("the service account mdb_sa_id_demo") && text.contains("own credential"), "{text}");
}

#[tokio::test]
async fn the_event_of_our_own_patch_is_not_blamed_for_somebody_elses_key() {
    let test_app = TestApp::new().await;
    let row = test_app.approved().await;
    let row = test_app.until(&row, |it| it == State::Verifying).await;
    // Their event is not in the feed yet, and ours is.
    test_app.set_by_hand(THIRD);
    let row = test_app.until(&row, State::is_final).await;
    assert_eq!(row.rotation.state, State::Superseded);
    let project = test_app.swept().await;
    assert_eq!(project.current_key.as_ref().unwrap().to_string(), THIRD);
    assert_eq!(project.key_since_source, Some(SinceSource::FirstSeen));
    let mails = test_app.mails("drifted").await;
    let (mail, model) = (&mails[0], &mails[0].model);
    assert!(model["by"].is_null(), "{model}");
    let text = letter(mail).text();
    assert!(text.contains("no event that fits") && !text.contains("own credential"), "{text}");
}

/// The sweep finds the new key, and it is no drift.
async fn the_new_key_is_known(test_app: &TestApp) {
    let project = test_app.swept().await;
    assert_eq!(project.current_key.as_ref().unwrap().to_string(), new_key());
    assert_eq!((test_app.held(), project.drift_key), (new_key(), None));
    assert!(test_app.mails("drifted").await.is_empty());
    let keys = test_app.engine.store.keys(&project.group_id).await.unwrap();
    let told: Vec<_> = keys.iter().map(|it| (it.key.clone(), it.until.is_some())).collect();
    assert_eq!(told, [(old_key(), true), (new_key(), false)]);
}

#[tokio::test]
async fn a_rotation_closed_on_its_new_key_is_no_drift() {
    let test_app = TestApp::new().await;
    test_app.sim.with(|world| world.keys.insert(new_key(), KeyState::FailsOnNodes));
    let row = test_app.approved().await;
    let row = test_app.settle(&row).await;
    assert_eq!(row.rotation.state, State::NeedsOperator);
    let row = test_app.engine.say("grace", row.rotation.id, OperatorVerb::Close, None, None).await.unwrap();
    assert_eq!(row.rotation.state, State::Closed);
    the_new_key_is_known(&test_app).await;
}

#[tokio::test]
async fn a_patch_that_takes_effect_after_its_rotation_failed_is_no_drift() {
    let mut test_app = TestApp::new().await;
    test_app.rule(|settings| {
        settings.verify.guard = Span::from_millis(300);
        settings.watch_for = Span::from_secs(60);
    });
    test_app.sim.with(|world| world.faults = vec![fault("patch_ear", None, 99, Kind::DropRequest)]);
    let row = test_app.approved().await;
    let row = test_app.settle(&row).await;
    assert_eq!((row.rotation.state, row.rotation.cause), (State::Failed, Some(Cause::NotApplied)));
    test_app.set_by_hand(&new_key());
    test_app.until_row(&row, |row| row.rotation.ending.late_apply).await;
    the_new_key_is_known(&test_app).await;
}

async fn a_completed_rotation_has_a_witness_on(backend: Backend) {
    let test_app = TestApp::on(backend, World::demo()).await;
    let row = test_app.approved().await;
    let id = test_app.settle(&row).await.rotation.id;
    assert_eq!(test_app.engine.store.proof(id).await.unwrap().unwrap().state, ProofState::Awaited);
    let stop = CancellationToken::new();
    assert_eq!(witness::once(&test_app.engine, &stop).await.unwrap(), 1);
    let proof = test_app.engine.store.proof(id).await.unwrap().unwrap();
    let event = test_app.sim.with(|world| world.projects[&group(1)].events.last().cloned().unwrap());
    let found = proof.event.unwrap();
    assert_eq!((proof.state, &found.id), (ProofState::Found, &event.id));
    assert_eq!((found.by, proof.overwrote), (Actor::ServiceAccount(OWN.to_owned()), vec![]));
    assert_eq!(witness::once(&test_app.engine, &stop).await.unwrap(), 0, "once is enough");
    assert_eq!(test_app.audited("rotation.atlas_event").await.len(), 1);
    assert!(test_app.mails("overwrote").await.is_empty());
    test_app.engine.store.verify_audit().await.unwrap().intact().unwrap();
}

#[tokio::test]
async fn a_completed_rotation_has_a_witness() {
    a_completed_rotation_has_a_witness_on(Backend::Sqlite).await;
}

#[tokio::test]
async fn a_completed_rotation_has_a_witness_on_postgres() {
    a_completed_rotation_has_a_witness_on(Backend::Postgres).await;
}

#[tokio::test]
async fn a_witness_that_does_not_come_within_a_day_is_said_to_be_missing() {
    let test_app = TestApp::new().await;
    let row = test_app.approved().await;
    let id = test_app.settle(&row).await.rotation.id;
    let (stop, proof) =
        (CancellationToken::new(), async || test_app.engine.store.proof(id).await.unwrap().unwrap());
    test_app.sim.with(|world| world.faults = vec![fault("get_events", None, 1, denied())]);
    witness::once(&test_app.engine, &stop).await.unwrap();
    let unread = proof().await;
    assert_eq!(unread.state, ProofState::Awaited);
    assert!(unread.last_error.unwrap().starts_with("USER_UNAUTHORIZED"));
    assert_eq!(witness::once(&test_app.engine, &stop).await.unwrap(), 0, "not asked again at once");
    test_app.sim.with(|world| world.projects.get_mut(&group(1)).unwrap().events.clear());
    let clock = ManualClock::new(SystemClock.now() + Duration::from_secs(3600));
    let later = engine_at(&test_app.sim, test_app.db.store.clone(), Arc::new(clock.clone()));
    assert_eq!(witness::once(&later, &stop).await.unwrap(), 1);
    assert_eq!((proof().await.state, proof().await.last_error), (ProofState::Awaited, None));
    clock.advance(Duration::from_secs(86_400));
    assert_eq!(witness::once(&later, &stop).await.unwrap(), 1);
    assert_eq!(proof().await.state, ProofState::NotFound);
    clock.advance(Duration::from_secs(86_400));
    assert_eq!(witness::once(&later, &stop).await.unwrap(), 0);
}

#[tokio::test]
async fn a_change_between_our_look_and_our_patch_is_told() {
    let test_app = TestApp::new().await;
    test_app.sim.with(|world| {
        world.keys.insert(THIRD.to_owned(), KeyState::Enabled);
        world.faults = vec![fault("patch_ear", None, 1, Kind::HumanEdit(THIRD.to_owned()))];
    });
    let row = test_app.approved().await;
    let row = test_app.settle(&row).await;
    assert_eq!((row.rotation.state, test_app.held()), (State::Completed, new_key()));
    // The journal's words are for people: another text in its rows changes no decision.
    let keywheel::store::Store::Sqlite { write: pool, .. } = &test_app.engine.store else { unreachable!() };
    sqlx::query("UPDATE journal SET detail = '{\"Absicht\": \"neu\"}'").execute(pool).await.unwrap();
    witness::once(&test_app.engine, &CancellationToken::new()).await.unwrap();
    let proof = test_app.engine.store.proof(row.rotation.id).await.unwrap().unwrap();
    let events = test_app.sim.with(|world| world.projects[&group(1)].events.clone());
    assert_eq!(proof.event.unwrap().id, events[1].id);
    assert_eq!(proof.overwrote.len(), 1);
    assert_eq!(proof.overwrote[0].by, Actor::Person("somebody@example.com".to_owned()));
    let mails = test_app.mails("overwrote").await;
    assert_eq!((mails.len(), mails[0].recipient.as_str()), (1, "ada@example.com"));
    let letter = letter(&mails[0]);
    assert!(letter.subject.contains("replaced a change by somebody@example.com"), "{}", letter.subject);
    assert!(letter.text().contains(&events[0].id), "{}", letter.text());
    assert!(test_app.audited("rotation.overwrote").await[0].contains("somebody@example.com"));
    let journal = test_app.engine.store.journal(row.rotation.id, 0, 100).await.unwrap();
    assert!(journal.iter().any(|entry| entry.kind == JournalKind::Overwrote));
}

#[tokio::test]
async fn a_new_project_takes_the_age_of_its_key_from_atlas_where_nothing_contradicts_it() {
    let test_app = TestApp::new().await;
    let days = |count: u64| SystemClock.now() - Duration::from_secs(count * 86_400);
    let event = |id: &str, kind: &str, at| Event {
        id: id.to_owned(),
        created: at,
        event_type_name: format!("{kind}_ENCRYPTION_KEY_ROTATED"),
        public_key: None,
        username: Some("eve@example.com".to_owned()),
    };
    let (forty, seventy) = (days(40), days(70));
    test_app.sim.with(|world| {
        let mut set = |number, events| world.projects.get_mut(&group(number)).unwrap().events = events;
        set(2, vec![event("a", "AWS", seventy), event("b", "AWS", forty)]);
        set(3, vec![event("a", "AWS", seventy), event("b", "GCP", forty)]);
    });
    let add = async |number, since| {
        let new = NewProject { group_id: group(number), key_since: since, ..NewProject::default() };
        let project = test_app.engine.add_project("ada", new).await.unwrap();
        (project.key_since_source.unwrap(), project.key_since)
    };
    assert_eq!(add(2, None).await, (SinceSource::AtlasEvent, Some(forty)));
    assert_eq!(add(3, None).await.0, SinceSource::FirstSeen, "it was another provider's meanwhile");
    assert_eq!(add(4, Some(days(5))).await.0, SinceSource::Operator);
    test_app.sim.with(|world| world.faults = vec![fault("get_events", None, 1, denied())]);
    assert_eq!(add(5, None).await.0, SinceSource::FirstSeen, "the feed is only good to have");
}

/// A world with people, tags, and a project that cannot be read.
fn peopled(world: &mut World) {
    let person = |name: &str, roles: &[&str]| User {
        username: name.to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        ..User::default()
    };
    let invited = |name: &str, roles: &[&str]| User { status: "PENDING".to_owned(), ..person(name, roles) };
    let members = vec![person("tea@example.com", &[]), invited("new@example.com", &[])];
    world.teams.insert(TEAM.to_owned(), Team { name: "platform".to_owned(), members });
    world.org_users = vec![
        person("org@example.com", &["ORG_OWNER"]),
        person("member@example.com", &["ORG_MEMBER"]),
        invited("soon@example.com", &["ORG_OWNER"]),
    ];
    let first = world.projects.get_mut(&group(1)).unwrap();
    first.teams.insert(TEAM.to_owned(), vec!["GROUP_OWNER".to_owned()]);
    first.users.push(invited("invited@example.com", &["GROUP_OWNER"]));
    first.users.push(person("reader@example.com", &["GROUP_READ_ONLY"]));
    let bare = world.projects.get_mut(&group(12)).unwrap();
    (bare.provider, bare.block) = (String::new(), serde_json::Map::new());
    world.faults = vec![fault("get_ear", Some(3), 99, denied())];
}

fn named<'a>(items: &'a Value, name: &str) -> &'a Value {
    items["items"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_credentials_see_is_listed_with_who_owns_it() {
    let it = Daemon::start().await;
    let ada = it.token("ada", "operator");
    it.add(&ada, 2).await;
    it.sim.with(peopled);
    let found = it.get(&ada, "/discover").await;
    assert_eq!(found.status, 200, "{found:?}");
    let items = &found.json;
    assert_eq!((&items["next"], &items["seen"], &items["total"]), (&Value::Null, &json!(12), &json!(12)));
    assert_eq!(items["items"].as_array().unwrap().len(), 10, "all but one tracked and one without a key");
    let first = named(items, "payments-prod");
    assert_eq!((&first["provider"], &first["key"]), (&json!("AWS"), &json!(old_key())));
    assert_eq!((&first["valid"], &first["clusterCount"]), (&json!(true), &json!(1)));
    assert_eq!((&first["credential"], &first["tracked"]), (&json!("default"), &json!(false)));
    assert_eq!(first["tags"], json!([{ "key": "environment", "value": "prod" }]));
    assert_eq!(
        first["owners"],
        json!([
            { "mail": "org@example.com", "from": ["organization"] },
            { "mail": "payments-owners@example.com", "from": ["project"] },
            { "mail": "tea@example.com", "from": ["team:platform"] },
        ])
    );
    assert!(named(items, "ledger-prod")["error"].as_str().unwrap().contains("USER_UNAUTHORIZED"));
    assert_eq!(named(items, "mobile-prod")["valid"], false);

    let all = it.get(&ada, "/discover?all=true").await.json;
    assert_eq!(all["items"].as_array().unwrap().len(), 12);
    assert_eq!(named(&all, "payments-staging")["tracked"], true);
    assert_eq!(named(&all, "billing-prod")["provider"], Value::Null);
    let tagged = it.get(&ada, "/discover?tag=environment=test").await.json;
    assert_eq!(tagged["items"].as_array().unwrap().len(), 2);
    let none = it.get(&ada, "/discover?tag=environment=test&tag=team=x").await.json;
    assert_eq!(none["items"], json!([]));
    // Pages, each with the place of the next.
    let (mut path, mut names) = ("/discover?limit=5".to_owned(), Vec::new());
    loop {
        let page = it.get(&ada, &path).await.json;
        names.extend(page["items"].as_array().unwrap().iter().map(|it| it["name"].to_string()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/discover?limit=5&cursor={next}");
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 10);
    for (query, code) in [
        ("credential=none", "invalid"),
        ("cursor=x", "invalid"),
        ("cursor=1.5.none", "invalid"),
        ("tag=prod", "invalid"),
        ("all=perhaps", "invalid"),
        ("limit=many", "invalid"),
    ] {
        assert_eq!(it.get(&ada, &format!("/discover?{query}")).await.problem(422), code, "{query}");
    }
    assert_eq!(it.get(&ada, "/discover?what=x").await.problem(400), "malformed");
    // Who may not look at the organisation still sees the rest, and is told what is missing.
    it.sim.with(|world| world.no_org.insert(OWN.to_owned()));
    let partly = it.get(&ada, "/discover?tag=environment=staging&all=true").await.json;
    let staging = named(&partly, "payments-staging");
    assert_eq!(staging["owners"], json!([{ "mail": "payments-owners@example.com", "from": ["project"] }]));
    assert!(staging["ownersUnknown"][0].as_str().unwrap().contains("organization"), "{staging}");
}

/// A project that is added by hand or from a file takes Atlas' tag, as one that discovery adds does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_project_takes_its_environment_from_its_tag_in_atlas() {
    let it = Daemon::start().await;
    let ada = it.token("ada", "operator");
    let environment = async |number: u64| {
        let shown = it.get(&ada, &format!("/projects/{}", group(number))).await.json;
        shown["environment"].clone()
    };
    it.cli_as("ada", &["project", "add", &group(1), "--name", "payments"]);
    it.cli_as("ada", &["project", "add", &group(2), "--environment", "test"]);
    it.cli_as("ada", &["project", "add", &group(3), "--environment", ""]);
    let rows = format!("groupId,environment\n{},\n{},dr\n", group(4), group(5));
    std::fs::write(it.folder.path().join("fleet.csv"), rows).unwrap();
    let imported = it.cli_as("ada", &["project", "import", "fleet.csv"]);
    assert!(imported.code == Some(0) && imported.err.contains("2 added"), "{imported:?}");
    let tag = |number: u64| it.sim.with(|world| world.projects[&group(number)].tags["environment"].clone());
    assert_eq!(environment(1).await, tag(1));
    assert_eq!((environment(2).await, environment(3).await), (json!("test"), Value::Null));
    assert_eq!((environment(4).await, environment(5).await), (json!(tag(4)), json!("dr")));
    // A change of the environment loosens, so an operator who adds a project again brings none with it.
    it.cli_as("ada", &["project", "remove", &group(3)]);
    let again = it.cli_as("ada", &["project", "add", &group(3)]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(environment(3).await, Value::Null);
    // A tag that Keywheel cannot take is refused, and the refusal names the way out.
    let long = "e".repeat(65);
    it.sim
        .with(|world| world.projects.get_mut(&group(6)).unwrap().tags.insert("environment".to_owned(), long));
    let refused = it.cli_as("ada", &["project", "add", &group(6)]);
    assert!(refused.code == Some(2) && refused.err.contains("--environment"), "{refused:?}");
    assert_eq!(it.cli_as("ada", &["project", "add", &group(6), "--environment", "e"]).code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_only_slows_discovery_down() {
    let it = Daemon::start().await;
    let ada = it.token("ada", "operator");
    let limit = Kind::Status { status: 429, code: Some("RATE_LIMITED".to_owned()), retry_after: Some(1) };
    it.sim.with(|world| {
        world.faults = vec![
            fault("get_groups", None, 1, limit.clone()),
            fault("get_ear", None, 3, limit.clone()),
            fault("get_org_users", None, 1, limit),
        ];
    });
    let found = it.get(&ada, "/discover").await.json;
    let items = found["items"].as_array().unwrap();
    assert_eq!((items.len(), items.iter().filter(|it| !it["error"].is_null()).count()), (12, 0), "{found}");
    assert!(items.iter().all(|it| it["ownersUnknown"] == json!([])), "{found}");
    it.sim.with(|world| world.faults = vec![fault("get_groups", None, 2, denied())]);
    let blind = it.get(&ada, "/discover").await.json;
    assert_eq!((&blind["items"][0]["groupId"], &blind["next"]), (&Value::Null, &Value::Null));
    assert!(blind["items"][0]["error"].as_str().unwrap().contains("USER_UNAUTHORIZED"));
    assert_eq!(it.get(&ada, "/discover?credential=default").await.problem(502), "atlas-auth");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovery_tracks_on_request_and_says_what_became_of_each() {
    let it = Daemon::start().await;
    it.sim.with(peopled);
    let listed = it.cli(&["project", "discover", "--tag", "environment=prod"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    for part in ["payments-prod", "tea@example.com (team:platform)", "USER_UNAUTHORIZED"] {
        assert!(listed.out.contains(part), "{part}: {}", listed.out);
    }
    assert!(!listed.out.contains("payments-staging") && !listed.out.contains("invited@example.com"));
    assert!(listed.err.contains("1 could not be read"), "{}", listed.err);

    let added = it.cli(&["project", "discover", "--tag", "environment=prod", "--add"]);
    assert_eq!(added.code, Some(1), "one could not be read: {added:?}");
    let lines: Vec<_> = added.out.lines().collect();
    assert_eq!(lines.iter().filter(|line| line.contains(": added ")).count(), 7, "{}", added.out);
    assert_eq!(
        lines.iter().filter(|line| line.contains("refused") && line.contains("ledger-prod")).count(),
        1
    );
    assert!(added.err.contains("7 added, 1 refused"), "{}", added.err);
    let shown = it.cli(&["project", "show", "payments-prod", "-o", "json"]);
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(shown["environment"], "prod");
    assert_eq!(shown["owners"], json!(["org@example.com", "payments-owners@example.com", "tea@example.com"]));
    let again = it.cli(&["project", "discover", "--tag", "environment=staging", "--add", "-o", "json"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    let again: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!(
        (&again["items"][0]["result"], &again["items"][0]["groupId"]),
        (&json!("added"), &json!(group(2)))
    );
    let usage = it.cli(&["project", "discover", "--tag", "prod"]);
    assert_eq!(usage.code, Some(2));
    assert!(usage.err.contains("KEY=VALUE"), "{}", usage.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_projects_is_imported_row_by_row() {
    let it = Daemon::start().await;
    let tracked = it.cli(&["project", "add", &group(4), "--owner", "ada@example.com"]);
    assert_eq!(tracked.code, Some(0), "{tracked:?}");
    let unknown = "ffffffffffffffffffffffff";
    let rows = [
        format!("{},ada@example.com;bob@example.com,prod,2026-06-01", group(1)),
        format!("{},,,", group(2)),
        format!("{},not an address,,", group(3)),
        format!("{},bob@example.com,,", group(4)),
        format!("{unknown},,,"),
        "nope,,,".to_owned(),
        format!("{},,,", group(2)),
        format!("{},,test,", group(2)),
        format!("{},,,2999-01-01", group(5)),
    ];
    let file = it.folder.path().join("fleet.csv");
    std::fs::write(&file, format!("\u{feff}groupId,owners,environment,since\r\n{}\r\n", rows.join("\r\n")))
        .unwrap();
    let file = file.to_str().unwrap();
    let dry = it.cli(&["project", "import", file, "--dry-run"]);
    assert_eq!(dry.code, Some(1), "{dry:?}");
    assert!(dry.out.contains(&format!("row 1 (line 2): would add {}", group(1))), "{}", dry.out);
    assert_eq!(it.cli(&["project", "list", "-o", "json"]).out.matches("\"groupId\"").count(), 1);

    let done = it.cli(&["project", "import", file]);
    assert_eq!(done.code, Some(1), "{done:?}");
    let lines: Vec<_> = done.out.lines().collect();
    assert_eq!(lines.len(), rows.len(), "one line for each row: {}", done.out);
    for (line, parts) in lines.iter().zip([
        vec!["row 1 (line 2): added", &group(1)],
        vec!["row 2 (line 3): added"],
        vec!["row 3 (line 4): refused", "owners", "not a mail address"],
        vec!["row 4 (line 5): already tracked", "owners (file: bob@example.com, tracked: ada@example.com)"],
        vec!["row 5 (line 6): refused", "GROUP_NOT_FOUND"],
        vec!["row 6 (line 7): refused", "groupId:", "24 hexadecimal digits"],
        vec!["row 7 (line 8): duplicate", "row 2 (line 3)"],
        vec!["row 8 (line 9): refused", "row 2 (line 3) has other values"],
        vec!["row 9 (line 10): refused", "keySince", "future"],
    ]) {
        for part in parts {
            assert!(line.contains(part), "{part:?} in {line:?}");
        }
    }
    assert!(done.err.contains("2 added, 1 already tracked, 1 duplicate, 5 refused"), "{}", done.err);
    let first = it.cli(&["project", "show", &group(1), "-o", "json"]);
    let first: Value = serde_json::from_str(&first.out).unwrap();
    assert_eq!((&first["environment"], &first["keySinceSource"]), (&json!("prod"), &json!("operator")));
    assert_eq!(first["owners"], json!(["ada@example.com", "bob@example.com"]));

    let yaml = it.folder.path().join("more.yaml");
    let text = format!(
        "- groupId: {}\n  name: ledger\n  policy:\n    approvals: 2\n- groupId: {}\n  owners: [ada@example.com]\n",
        group(3),
        group(6)
    );
    std::fs::write(&yaml, text).unwrap();
    let done = it.cli(&["project", "import", yaml.to_str().unwrap(), "-o", "json"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let report: Value = serde_json::from_str(&done.out).unwrap();
    assert!(report["items"].as_array().unwrap().iter().all(|it| it["result"] == "added"), "{report}");
    let ledger = it.cli(&["project", "show", "ledger", "-o", "json"]);
    assert!(
        ledger.out.contains("\"approvals\":2") || ledger.out.contains("\"approvals\": 2"),
        "{}",
        ledger.out
    );

    let bad = it.folder.path().join("bad.csv");
    std::fs::write(&bad, "groupId,onwers\n").unwrap();
    let refused = it.cli(&["project", "import", bad.to_str().unwrap()]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("did you mean owners?"), "{}", refused.err);
    let unclear = it.cli(&["project", "import", "fleet"]);
    assert_eq!(unclear.code, Some(2));
    assert!(unclear.err.contains("--format"), "{}", unclear.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn projects_come_through_a_pipe_and_an_export_is_whole_or_not_there() {
    let it = Daemon::start().await;
    let file = it.folder.path().join("fleet.yaml");
    std::fs::write(&file, format!("- groupId: {}\n- groupId: {}\n", group(3), group(6))).unwrap();
    let piped = |args: &[&str]| {
        let mut command = keywheel(it.folder.path(), &[&["project", "import", "-"], args].concat());
        let said = command.stdin(std::fs::File::open(&file).unwrap()).output().unwrap();
        (
            said.status.code(),
            format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr)),
        )
    };
    let (code, said) = piped(&["--format", "yaml"]);
    assert!(code == Some(0) && said.contains("2 added"), "{said}");
    let (code, said) = piped(&[]);
    assert!(code == Some(2) && said.contains("standard input: name its format"), "{said}");
    // What cannot be written whole leaves the file that is there.
    let out = it.folder.path().join("out.csv");
    std::fs::write(&out, "before").unwrap();
    let whole = it.cli(&["project", "export", "--out", out.to_str().unwrap()]);
    assert!(
        whole.code == Some(0) && std::fs::read_to_string(&out).unwrap().starts_with("groupId,"),
        "{whole:?}"
    );
    let full = it.cli(&["project", "export", "--out", "/dev/full"]);
    assert!(full.code == Some(1) && full.err.contains("cannot be written"), "{full:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_updates_what_is_tracked_and_leaves_what_it_does_not_name() {
    let it = Daemon::start().await;
    let edit = |line: &str| {
        let said = it.cli(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(said.code, Some(0), "{said:?}");
    };
    edit(&format!("project add {} --owner ada@example.com --environment staging --name pay", group(1)));
    edit(&format!("project add {} --owner bob@example.com --environment prod", group(2)));
    let file = it.folder.path().join("fleet.csv");
    let rows = [
        "groupId,owners,environment,name,policy".to_owned(),
        format!(r#"{},,prod,pay,"{{""interval"": ""2160h"", ""approvals"": 2}}""#, group(1)),
        format!("{},bob@example.com,prod,,", group(2)),
        format!("{},not an address,,,", group(3)),
        format!("{},ada@example.com,prod,,", group(4)),
    ];
    std::fs::write(&file, rows.join("\n")).unwrap();
    let import = |more: &[&str]| it.cli(&[&["project", "import", "fleet.csv", "--update"], more].concat());
    let changes = "environment: staging -> prod; policy.approvals: - -> 2; policy.interval: - -> 90d";
    let dry = import(&["--dry-run"]);
    assert!(
        dry.out.contains(&format!("row 1 (line 2): would update {} pay: {changes}", group(1))),
        "{dry:?}"
    );
    let before = it.cli(&["project", "show", &group(1), "-o", "json"]).out;
    assert!(before.contains("\"staging\"") && before.contains("\"policyOverride\":null"), "{before}");

    let done = import(&[]);
    assert_eq!(done.code, Some(1), "{done:?}");
    for line in [
        format!("row 1 (line 2): updated {} pay: {changes}\n", group(1)),
        format!("row 2 (line 3): unchanged {}\n", group(2)),
        format!("row 4 (line 5): added {}\n", group(4)),
    ] {
        assert!(done.out.contains(&line), "{line}{done:?}");
    }
    assert!(
        done.out.contains("row 3 (line 4): refused") && done.out.contains("not a mail address"),
        "{done:?}"
    );
    assert!(done.err.ends_with("1 added, 1 refused, 1 unchanged, 1 updated\n"), "{done:?}");
    let now: Value =
        serde_json::from_str(&it.cli(&["project", "show", &group(1), "-o", "json"]).out).unwrap();
    assert_eq!((&now["owners"], &now["environment"]), (&json!(["ada@example.com"]), &json!("prod")));
    assert_eq!(now["policyOverride"], json!({ "interval": "90d", "approvals": 2 }));
    assert!(import(&[]).err.ends_with("1 refused, 3 unchanged\n"));
    // A rule that is refused is named, and the project stays as it was.
    std::fs::write(&file, format!("groupId,policy\n{},\"{{\"\"aprovals\"\": 3}}\"\n", group(1))).unwrap();
    let refused = import(&[]);
    assert!(refused.code == Some(1) && refused.out.contains("did you mean `approvals`?"), "{refused:?}");
}

/// What an operator has decided about the tracked projects.
fn decided(it: &Daemon) -> Vec<Value> {
    const FIELDS: &str =
        "groupId name owners credential environment keySince kms alias policy policyOverride";
    let list: Value = serde_json::from_str(&it.cli(&["project", "list", "-o", "json"]).out).unwrap();
    let kept = |it: &Value| FIELDS.split(' ').map(|name| (name.to_owned(), it[name].clone())).collect();
    list["items"].as_array().unwrap().iter().map(|it| Value::Object(kept(it))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_reads_back_as_it_was() {
    let it = Daemon::start().await;
    // One word of the command line between two bars.
    for (number, words) in [
        (
            1,
            "--owner|ada@example.com|--owner|bob@example.com|--kms|aws|--alias|alias/a-b|--policy|{\"interval\": \"90d\", \
             \"windows\": [{\"cron\": \"0 0 1 * * Sat\", \"duration\": \"4h\", \"timezone\": \"Europe/Kyiv\"}]}",
        ),
        (2, "--name|=HYPERLINK(\"http://a.example\", \"x\")|--owner|+a@example.com|--environment=-1"),
        (3, "--name|'=1; \"two\", 3: # no|--environment|@prod"),
        (4, "--name|2026-01-01|--environment|true|--since|2026-06-01|--policy|{\"approvals\": 2}"),
        (5, "--name|Zahlungen für Köln, Süd|--kms|azure"),
    ] {
        let words: Vec<&str> = words.split('|').collect();
        let said = it.cli(&[&["project", "add", &group(number)], words.as_slice()].concat());
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    let before = decided(&it);
    for name in ["fleet.csv", "fleet.yaml", "fleet.json"] {
        let said = it.cli(&["project", "export", "--out", name]);
        assert_eq!((said.code, said.out.as_str()), (Some(0), ""), "{said:?}");
        assert_eq!(said.err, format!("5 projects are in {name}\n"));
        let same = it.cli(&["project", "import", name, "--update"]);
        assert_eq!((same.code, same.err.as_str()), (Some(0), "5 unchanged\n"), "{same:?}");
        let text = std::fs::read_to_string(it.folder.path().join(name)).unwrap();
        let format = name.rsplit('.').next().unwrap();
        let printed = it.cli(&["project", "export", "--format", format]);
        assert_eq!((printed.out.as_str(), printed.err.as_str()), (text.as_str(), ""));
        let other = Daemon::start().await;
        let empty = other.cli(&["project", "export"]);
        assert_eq!(empty.out, "groupId,name,owners,credential,environment,since,kms,alias,policy\n");
        std::fs::write(other.folder.path().join(name), &text).unwrap();
        let moved = other.cli(&["project", "import", name]);
        assert_eq!((moved.code, moved.err.as_str()), (Some(0), "5 added\n"), "{moved:?}");
        assert_eq!(decided(&other), before, "{name}");
    }
    // No spreadsheet takes a cell for a formula.
    let csv = std::fs::read_to_string(it.folder.path().join("fleet.csv")).unwrap();
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    assert_eq!(
        reader.headers().unwrap().iter().collect::<Vec<_>>().join(","),
        "groupId,name,owners,credential,environment,since,kms,alias,policy"
    );
    for record in reader.records() {
        assert!(record.unwrap().iter().all(|cell| !cell.starts_with(['=', '+', '-', '@'])), "{csv}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_says_who_changed_its_key_and_a_rotation_who_saw_it() {
    let mut it = Daemon::start().await;
    it.restart_with(|text| text.replace("drift_every = \"1h\"", "drift_every = \"300ms\""));
    let (ada, grace) = (it.token("ada", "operator"), it.token("grace", "approver"));
    it.add(&ada, 1).await;
    let id = it.propose(&ada, &group(1), &new_key()).await;
    it.call(&grace, "POST", &format!("/rotations/{id}/approve"), Value::Null).await;
    let done = it.until(&ada, &id, |it| it["atlasEvent"] == "found").await;
    let event = it.sim.with(|world| world.projects[&group(1)].events[0].id.clone());
    assert_eq!((&done["state"], &done["atlasEventId"]), (&json!("completed"), &json!(event)));
    assert_eq!(done["atlasEventBy"], "the service account mdb_sa_id_demo");
    assert_eq!(done["overwrote"], json!([]));
    assert!(it.cli(&["rotation", "show", &id]).out.contains(&event));

    edit(&it.sim.base_url(), 1, &old_key(), "eve@example.com").await;
    let path = format!("/projects/{}/why", group(1));
    let why = eventually(LIMIT, async || {
        let why = it.get(&ada, &path).await.json;
        (!why["drift"].is_null()).then_some(why)
    });
    let why = why.await.expect("the drift is not seen");
    assert_eq!((&why["drift"]["kind"], &why["drift"]["by"]), (&json!("reverted"), &json!("eve@example.com")));
    assert_eq!((&why["status"], &why["drift"]["undoneRotation"]), (&json!("drifted"), &json!(id)));
    let lines = why["drift"]["terraform"].as_array().unwrap();
    assert!(
        lines.iter().any(|line| line == &json!(format!("    customer_master_key_id = \"{}\"", new_key())))
    );
    let said = it.cli(&["why", &group(1)]).out;
    for part in ["eve@example.com made the change", "is the key that served until", "customer_master_key_id"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
}
