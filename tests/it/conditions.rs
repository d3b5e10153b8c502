//! Conditions over real HTTP: people hear of a danger, whichever part has written it
//! and whatever happens to the daemon; they hear of it again, and of its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keywheel::domain::condition::{ConditionKind, Reading, Readings};
use keywheel::domain::ids::{GroupId, RotationId};
use keywheel::domain::policy::Window;
use keywheel::domain::project::{Project, Status};
use keywheel::domain::rotation::outcome::Class;
use keywheel::domain::rotation::state::{Cause, Hold, State};
use keywheel::domain::time::{Clock, Span, Timestamp};
use keywheel::engine::command::{Actor, OperatorVerb, ProjectEdit};
use keywheel::engine::heartbeat::Heartbeat;
use keywheel::engine::{conditions, driver, sweep};
use keywheel::sim::World;
use keywheel::sim::fault::{Fault, Kind};
use keywheel::sim::world::KeyState;
use keywheel::store::{ConditionRow, OutboxRow, Store};
use keywheel::webhook::Switch;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::db::Backend;
use crate::support::receiver::{Receiver, reply};
use crate::support::{TestApp, engine_at, group, new_key, old_key};

const THIRD: &str = "33333333-3333-4333-8333-333333333333";

const SECOND: Duration = Duration::from_secs(1);

fn failing(operation: &str, times: Option<u32>, status: u16, retry_after: Option<u64>) -> Fault {
    let kind = Kind::Status { status, code: None, retry_after };
    Fault { operation: operation.to_owned(), group_id: Some(group(1)), skip: 0, times, kind }
}

impl TestApp {
    /// Lets time pass, with everything that the daemon does meanwhile: every 5 s, or every 30 s of a span of hours.
    pub(crate) async fn live_for(&self, span: Duration) {
        let tick = SECOND * if span > SECOND * 3600 { 30 } else { 5 };
        let end = self.engine.clock.now() + span;
        loop {
            let stop = CancellationToken::new();
            sweep::once(&self.engine, &stop).await.unwrap();
            driver::run_due(&self.engine).await.unwrap();
            conditions::once(&self.engine).await.unwrap();
            if self.engine.clock.now() >= end {
                return;
            }
            self.pass_until((self.engine.clock.now() + tick).min(end));
        }
    }

    pub(crate) async fn raw(&self, text: String) {
        let Store::Sqlite { write, .. } = &self.db.store else { panic!("not SQLite") };
        sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(write).await.unwrap();
    }

    pub(crate) fn make(&self, key: &str, state: KeyState) {
        self.sim.with(|world| world.keys.insert(key.to_owned(), state));
    }

    pub(crate) fn break_with(&self, fault: Fault) {
        self.sim.with(|world| world.faults.push(fault));
    }

    pub(crate) fn cure(&self) {
        self.sim.with(|world| world.faults.clear());
    }

    /// A rotation that waits for an operator: its credential was lost while the new key was verified.
    pub(crate) async fn stopped(&self) -> RotationId {
        let id = self.proposed().await;
        self.engine.say("grace", id, OperatorVerb::Approve, None, None).await.unwrap();
        let row = self.engine.rotation(id).await.unwrap();
        let row = self.until(&row, |state| state == State::Verifying).await;
        self.break_with(failing("get_ear", None, 401, None));
        let row = self.settle(&row).await;
        assert_eq!((row.rotation.state, row.rotation.cause), (State::NeedsOperator, Some(Cause::Auth)));
        id
    }

    /// The mails of this kind, the oldest first.
    pub(crate) async fn told(&self, kind: &str) -> Vec<OutboxRow> {
        let all = self.engine.store.outbox(None, 500).await.unwrap();
        all.into_iter().rev().filter(|mail| mail.kind == kind).collect()
    }

    pub(crate) async fn counts(&self, kind: &str) -> (usize, usize) {
        (self.told(kind).await.len(), self.told(&format!("{kind}_over")).await.len())
    }

    pub(crate) async fn watched(&self) -> Project {
        self.engine.store.project(&group(1).parse().unwrap()).await.unwrap().unwrap()
    }

    pub(crate) async fn holding(&self) -> Vec<ConditionRow> {
        let subject = group(1).parse().unwrap();
        self.engine.store.conditions_of(&subject, &subject).await.unwrap()
    }
}

pub(crate) async fn app(backend: Backend) -> TestApp {
    let mut app = TestApp::on(backend, World::demo()).await;
    app.rule(|settings| {
        settings.drift_every = Span::from_secs(90);
        settings.limits.confirm_after = Span::from_secs(10);
        settings.limits.told_after = Span::from_secs(900);
    });
    app.live_for(SECOND).await;
    app
}

async fn an_invalid_key_is_told_repeated_and_ended_on(backend: Backend) {
    let app = app(backend).await;
    app.make(&old_key(), KeyState::Disabled);
    app.live_for(SECOND * 120).await;
    let mails = app.told("current_key_invalid").await;
    assert_eq!(mails.len(), 1);
    let id = format!("{}/invalid", group(1));
    assert_eq!(mails[0].model["conditionId"], id);
    assert_eq!(app.watched().await.holding, [ConditionKind::Invalid]);
    // 5 minutes, 10 minutes, then each hour.
    app.live_for(SECOND * 290).await;
    assert_eq!(app.told("current_key_invalid").await.len(), 2);
    app.live_for(SECOND * 600).await;
    assert_eq!(app.told("current_key_invalid").await.len(), 3);
    app.live_for(SECOND * 3600).await;
    assert_eq!(app.counts("current_key_invalid").await, (4, 0));
    app.make(&old_key(), KeyState::Enabled);
    app.live_for(SECOND * 120).await;
    assert_eq!(app.counts("current_key_invalid").await, (4, 1));
    let over = app.told("current_key_invalid_over").await.remove(0);
    assert_eq!((&over.model["conditionId"], over.model["overAt"].is_string()), (&id.into(), true));
    let letter = crate::support::letter(&over);
    assert!(letter.subject.contains("valid again after"), "{}", letter.subject);
    assert_eq!(app.watched().await.holding, []);
    app.live_for(SECOND * 7200).await;
    assert_eq!(app.counts("current_key_invalid").await, (4, 1));
}

#[tokio::test]
async fn an_invalid_key_is_told_repeated_and_ended() {
    Box::pin(an_invalid_key_is_told_repeated_and_ended_on(Backend::Sqlite)).await;
}

#[tokio::test]
async fn an_invalid_key_is_told_repeated_and_ended_on_postgres() {
    Box::pin(an_invalid_key_is_told_repeated_and_ended_on(Backend::Postgres)).await;
}

#[tokio::test]
async fn one_false_reading_is_no_news() {
    let app = app(Backend::Sqlite).await;
    app.make(&old_key(), KeyState::Disabled);
    app.pass(SECOND * 90);
    sweep::once(&app.engine, &CancellationToken::new()).await.unwrap();
    conditions::once(&app.engine).await.unwrap();
    assert_eq!(
        app.watched().await.status(&app.engine.settings.policy, app.engine.clock.now()),
        Status::Invalid
    );
    app.make(&old_key(), KeyState::Enabled);
    app.live_for(SECOND * 300).await;
    assert_eq!(app.counts("current_key_invalid").await, (0, 0));
    assert!(app.engine.store.all_readings().await.unwrap().is_empty());
}

/// Somebody else's write of `valid: false` swallows no notice.
#[tokio::test]
async fn people_hear_of_an_invalid_key_whichever_part_has_written_it() {
    // Disabled while the proposal waits, then cancelled.
    let app = app(Backend::Sqlite).await;
    let id = app.proposed().await;
    app.make(&old_key(), KeyState::Disabled);
    app.live_for(SECOND * 30).await;
    app.engine.say("ada", id, OperatorVerb::Cancel, None, None).await.unwrap();
    app.live_for(SECOND * 120).await;
    assert_eq!(app.counts("current_key_invalid").await, (1, 0));

    // The proposal expires.
    let app = self::app(Backend::Sqlite).await;
    app.proposed().await;
    app.make(&old_key(), KeyState::Disabled);
    app.live_for(SECOND * 120).await;
    assert_eq!(app.counts("current_key_invalid").await, (1, 0), "an open proposal blinds nothing");

    // A third key that is disabled.
    let app = self::app(Backend::Sqlite).await;
    app.proposed().await;
    app.set_by_hand(THIRD);
    app.make(THIRD, KeyState::Disabled);
    app.live_for(SECOND * 240).await;
    assert_eq!(app.told("superseded").await.len(), 1);
    let mails = app.told("current_key_invalid").await;
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].model["currentKey"], THIRD);

    // A project that is added with a disabled key.
    let app = self::app(Backend::Sqlite).await;
    let second = app.sim.with(|world| world.projects[&group(2)].key());
    app.make(&second, KeyState::Disabled);
    app.track(2).await;
    app.live_for(SECOND * 120).await;
    assert_eq!(app.told("current_key_invalid").await.len(), 1);
}

/// A rotation that waits, or a flood of events, has a key read each second: the danger is told no later for it.
#[tokio::test]
async fn readings_that_follow_each_other_closely_confirm_as_soon_as_any() {
    let mut app = app(Backend::Sqlite).await;
    app.rule(|settings| settings.drift_every = Span::from_secs(1));
    app.live_for(SECOND * 120).await;
    app.make(&old_key(), KeyState::Disabled);
    for _ in 0..14 {
        app.live_for(SECOND).await;
    }
    assert_eq!(app.told("current_key_invalid").await.len(), 1);
}

#[tokio::test]
async fn another_invalid_key_is_news_and_an_acknowledgement_ends() {
    let app = app(Backend::Sqlite).await;
    let id = group(1).parse().unwrap();
    app.make(&old_key(), KeyState::Disabled);
    app.live_for(SECOND * 120).await;
    app.engine.acknowledge("grace", &id, ConditionKind::Invalid, Some("on it")).await.unwrap();
    app.live_for(SECOND * 4000).await;
    assert_eq!(app.counts("current_key_invalid").await, (1, 0));
    assert_eq!(app.holding().await[0].acknowledged_by.as_deref(), Some("grace"));
    app.set_by_hand(THIRD);
    app.make(THIRD, KeyState::Disabled);
    app.live_for(SECOND * 120).await;
    assert_eq!(app.counts("current_key_invalid").await, (2, 0));
    let row = app.holding().await.into_iter().find(|row| row.kind == ConditionKind::Invalid).unwrap();
    assert_eq!((row.key.as_deref(), row.acknowledged_by), (Some(THIRD), None));
    let audit = app.engine.store.audit(None, 10).await.unwrap();
    assert!(audit.iter().any(|row| row.action == "condition.acknowledged" && row.detail.contains("on it")));
    // What does not hold cannot be acknowledged.
    let refused = app.engine.acknowledge("grace", &id, ConditionKind::Held, None).await.unwrap_err();
    assert!(refused.to_string().contains("held does not hold"), "{refused}");
}

#[tokio::test]
async fn a_project_that_cannot_be_read_is_told_and_so_is_its_end() {
    for status in [403, 404, 503] {
        let app = app(Backend::Sqlite).await;
        app.break_with(failing("get_ear", None, status, None));
        app.live_for(SECOND * 360).await;
        assert_eq!(app.told("unreachable").await.len(), 1, "{status}");
        assert_eq!(app.counts("unreachable").await.1, 0);
        let now = app.engine.clock.now();
        assert_eq!(app.watched().await.status(&app.engine.settings.policy, now), Status::Unreachable);
        app.cure();
        app.live_for(SECOND * 120).await;
        assert_eq!(app.counts("unreachable").await.1, 1, "{status}");
    }
}

#[tokio::test]
async fn one_retry_after_blinds_for_five_minutes_and_not_for_a_day() {
    let app = app(Backend::Sqlite).await;
    app.break_with(failing("get_ear", Some(1), 429, Some(86_400)));
    app.live_for(SECOND * 100).await;
    app.make(&old_key(), KeyState::Disabled);
    app.live_for(SECOND * 420).await;
    assert_eq!(app.counts("current_key_invalid").await, (1, 0));
}

/// Atlas has answered since it asked for a pause: the sweep goes on in its time.
#[tokio::test]
async fn what_a_command_reads_ends_the_pause_that_atlas_asked_for() {
    for proposes in [true, false] {
        let app = app(Backend::Sqlite).await;
        app.break_with(failing("get_ear", Some(1), 429, Some(86_400)));
        app.live_for(SECOND * 100).await;
        let (now, every) = (app.engine.clock.now(), app.engine.settings.drift_every.get());
        assert!(app.watched().await.next_check_at > now + every);
        if proposes {
            app.proposed().await;
        } else {
            let edit = ProjectEdit { key_since: Some(now - SECOND * 3600), ..ProjectEdit::default() };
            app.engine.edit_project("ada", &group(1).parse().unwrap(), edit).await.unwrap();
        }
        assert!(app.watched().await.next_check_at <= now + every);
        app.make(&old_key(), KeyState::Disabled);
        app.live_for(SECOND * 120).await;
        assert_eq!(app.counts("current_key_invalid").await, (1, 0), "{proposes}");
    }
}

/// What a proposal reads is a reading like any other.
#[tokio::test]
async fn a_key_that_a_proposal_can_read_is_reachable_again() {
    let app = app(Backend::Sqlite).await;
    app.break_with(failing("get_ear", None, 503, None));
    app.live_for(SECOND * 360).await;
    assert_eq!(app.counts("unreachable").await, (1, 0));
    app.cure();
    app.proposed().await;
    conditions::once(&app.engine).await.unwrap();
    assert_eq!(app.counts("unreachable").await, (1, 1));
}

#[tokio::test]
async fn a_clock_that_was_a_day_ahead_blinds_for_one_look() {
    let app = app(Backend::Sqlite).await;
    let mut project = app.watched().await;
    let ahead = app.engine.clock.now() + Duration::from_secs(86_400);
    (project.next_check_at, project.last_checked_at) = (ahead, Some(ahead));
    let version = project.version;
    app.engine.store.update_project(&project, version, &[], &[], app.engine.clock.now()).await.unwrap();
    app.make(&old_key(), KeyState::Disabled);
    app.live_for(SECOND * 120).await;
    assert_eq!(app.counts("current_key_invalid").await, (1, 0));
}

#[tokio::test]
async fn a_validity_that_atlas_does_not_state_is_told() {
    let app = app(Backend::Sqlite).await;
    let state = |valid: &[Option<bool>]| {
        let sequence = valid.to_vec();
        app.sim.with(|world| world.projects.get_mut(&group(1)).unwrap().valid_sequence = sequence);
    };
    state(&[None]);
    app.live_for(SECOND * 360).await;
    assert_eq!(app.counts("validity_unknown").await, (1, 0));
    let now = app.engine.clock.now();
    assert_eq!(app.watched().await.status(&app.engine.settings.policy, now), Status::Unknown);
    state(&[]);
    app.live_for(SECOND * 120).await;
    assert_eq!(app.counts("validity_unknown").await, (1, 1));
}

#[tokio::test]
async fn an_approved_rotation_that_is_held_is_told() {
    let app = app(Backend::Sqlite).await;
    let row = app.proposed().await;
    app.break_with(failing("get_clusters", None, 503, None));
    app.engine.say("grace", row, OperatorVerb::Approve, None, None).await.unwrap();
    app.live_for(SECOND * 600).await;
    assert_eq!(app.told("held").await.len(), 0);
    app.live_for(SECOND * 400).await;
    let mails = app.told("held").await;
    assert_eq!((mails.len(), &mails[0].model["cause"]), (1, &"clusters_unknown".into()));
    app.cure();
    app.live_for(SECOND * 60).await;
    assert_eq!(app.counts("held").await, (1, 1));
}

#[tokio::test]
async fn a_page_is_repeated_whatever_atlas_asks_for_and_its_end_is_told() {
    let app = app(Backend::Sqlite).await;
    let id = app.stopped().await;
    conditions::once(&app.engine).await.unwrap();
    assert_eq!(app.told("needs_operator").await.len(), 1);
    app.cure();
    app.break_with(failing("get_ear", Some(1), 429, Some(86_400)));
    app.live_for(SECOND * 1000).await;
    let pages = app.told("needs_operator").await;
    assert_eq!(pages.len(), 3);
    assert_eq!(pages[0].model["conditionId"], pages[2].model["conditionId"]);
    let why = app.engine.why(&app.watched().await).await.unwrap().sentences.join("\n");
    let holds = format!("Atlas holds the key {}", new_key());
    assert!(why.starts_with(&holds) && why.contains("It is needs operator (auth) since"), "{why}");
    app.engine.say("grace", id, OperatorVerb::Close, None, None).await.unwrap();
    app.live_for(SECOND * 10).await;
    assert_eq!(app.counts("needs_operator").await, (3, 1));
}

#[tokio::test]
async fn why_says_what_is_waited_for_and_what_the_last_rotation_came_to() {
    let mut app = app(Backend::Sqlite).await;
    app.rule(|settings| {
        settings.policy.approvals = 2;
        settings.policy.windows = vec![Window {
            cron: "0 0 1 * * Sat".to_owned(),
            duration: Span::from_secs(3600),
            timezone: "Europe/Kyiv".to_owned(),
        }];
    });
    let why = async || {
        let project = app.watched().await;
        app.engine.why(&project).await.unwrap().sentences.join("\n")
    };
    let read = app.watched().await.last_checked_at.unwrap();
    assert!(
        why().await.starts_with(&format!("Atlas holds the key {} (read at {read}).", old_key())),
        "{}",
        why().await
    );
    let id = app.proposed().await;
    let waits = why().await;
    assert!(waits.contains("0 of 2 are given; it expires at"), "{waits}");
    assert!(waits.contains("grace") && !waits.contains("ada can give"), "{waits}");
    app.engine.say("grace", id, OperatorVerb::Approve, None, None).await.unwrap();
    let waits = why().await;
    assert!(
        waits.contains("1 of 2 are given (by grace)") && waits.contains(&format!("`keywheel approve {id}`")),
        "{waits}"
    );
    let others = waits.split("given (by grace)").nth(1).unwrap();
    assert!(!others.contains("grace"), "who has voted can give no other: {waits}");
    app.engine.say("bob", id, OperatorVerb::Approve, None, None).await.unwrap();
    driver::run_due(&app.engine).await.unwrap();
    let waits = why().await;
    assert!(
        waits.contains("It waits for its window, which opens on Sat ")
            && waits.contains(" 01:00 Europe/Kyiv ("),
        "{waits}"
    );
    app.engine.say("ada", id, OperatorVerb::Cancel, None, None).await.unwrap();
    let last = why().await;
    assert!(
        last.contains(&format!("Its last rotation, {id} to {}, ended at", new_key()))
            && last.contains("as cancelled"),
        "{last}"
    );
}

#[tokio::test]
async fn a_put_off_patch_keeps_the_notice_of_the_key_in_force() {
    let app = app(Backend::Sqlite).await;
    let id = app.proposed().await;
    app.break_with(failing("patch_ear", Some(1), 429, Some(3600)));
    app.engine.say("grace", id, OperatorVerb::Approve, None, None).await.unwrap();
    app.live_for(SECOND * 20).await;
    assert_eq!(app.engine.rotation(id).await.unwrap().rotation.state, State::Applying);
    app.make(&old_key(), KeyState::Disabled);
    // The PATCH and the reading share one endpoint set: for five minutes no call leaves.
    app.live_for(SECOND * 420).await;
    assert_eq!(app.counts("current_key_invalid").await, (1, 0));
    app.live_for(SECOND * 3600).await;
    let rotation = app.engine.rotation(id).await.unwrap().rotation;
    assert_eq!((rotation.state, rotation.hold), (State::Approved, Some(Hold::CurrentKeyInvalid)));
}

#[tokio::test]
async fn what_held_when_a_project_is_removed_ends_as_no_longer_watched() {
    let app = app(Backend::Sqlite).await;
    app.break_with(failing("get_ear", None, 404, None));
    app.live_for(SECOND * 360).await;
    assert_eq!(app.told("unreachable").await.len(), 1);
    app.engine.remove_project("ada", &group(1).parse().unwrap()).await.unwrap();
    app.live_for(SECOND * 10).await;
    assert!(app.engine.store.conditions(app.engine.clock.now()).await.unwrap().is_empty());
    assert!(app.engine.store.all_readings().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_fleet_that_cannot_be_read_is_told_a_part_at_a_time() {
    let app = app(Backend::Sqlite).await;
    let now = app.engine.clock.now();
    let one = app.watched().await;
    let mut readings = Readings::default();
    for seconds in 0..3 {
        let failed = Reading::Failed { class: Class::Auth, words: "no", refused: false };
        readings.note(&failed, now - SECOND * (10 - seconds), SECOND);
    }
    for number in 100..700 {
        let group: GroupId = group(number).parse().unwrap();
        let project = Project { group_id: group.clone(), ..one.clone() };
        app.engine.store.insert_project(&project, &[], now).await.unwrap();
        app.engine.store.write_readings(&group, &readings).await.unwrap();
    }
    // The credential's own condition is one more.
    let held = async || app.engine.store.condition_counts().await.unwrap().values().sum::<i64>();
    for told in [256, 512, 601, 601] {
        let wait = conditions::once(&app.engine).await.unwrap();
        assert_eq!((held().await, wait < SECOND), (told, told < 601));
    }
}

/// One unreadable row is one project's trouble, and not even there does it keep a danger from being told.
#[tokio::test]
async fn no_unreadable_row_makes_anybody_mute_or_blind() {
    let danger = async |spoil: String| {
        let app = app(Backend::Sqlite).await;
        let second = app.sim.with(|world| world.projects[&group(2)].key());
        app.track(2).await;
        app.proposed().await;
        app.raw(spoil.clone()).await;
        app.make(&old_key(), KeyState::Disabled);
        app.make(&second, KeyState::Disabled);
        app.live_for(SECOND * 150).await;
        let mut told: Vec<_> =
            app.told("current_key_invalid").await.into_iter().map(|mail| mail.subject).collect();
        told.sort();
        assert_eq!(told, [group(1), group(2)], "{spoil}");
    };
    let one = group(1);
    danger(format!("UPDATE rotations SET machine = '{{}}' WHERE group_id = '{one}'")).await;
    danger(format!("INSERT INTO readings VALUES ('{one}', 'no JSON')")).await;
    // What is no instant is a fault of its row, wherever it stands in the order of texts.
    for text in ["", "x"] {
        danger(format!(
            "INSERT INTO conditions SELECT '{one}', 'held', '{text}', '', NULL, NULL, NULL, 1, '{text}', '{text}', 0, \
             NULL, NULL, NULL, NULL, 1 FROM projects WHERE group_id = '{one}'"
        ))
        .await;
    }
    danger(format!(
        "INSERT INTO conditions SELECT '{one}', 'invalid', created_at, '', NULL, NULL, NULL, -1, NULL, NULL, 0, NULL, NULL, \
         NULL, NULL, 1 FROM projects WHERE group_id = '{one}'"
    ))
    .await;
}

/// The rotation that waits for an operator cannot be read any more: nobody may hear that it is over.
/// Readings that somebody has spoiled say nothing, least of all that a danger is over.
#[tokio::test]
async fn unreadable_readings_end_nothing() {
    let app = app(Backend::Sqlite).await;
    app.make(&old_key(), KeyState::Disabled);
    app.live_for(SECOND * 120).await;
    assert_eq!(app.counts("current_key_invalid").await, (1, 0));
    app.raw("UPDATE readings SET readings = 'no JSON'".to_owned()).await;
    conditions::once(&app.engine).await.unwrap();
    app.live_for(SECOND * 120).await;
    assert_eq!(app.counts("current_key_invalid").await, (1, 0));
    // A reading that says the opposite ends it, and the row with it.
    app.raw("UPDATE readings SET readings = 'no JSON'".to_owned()).await;
    app.make(&old_key(), KeyState::Enabled);
    app.live_for(SECOND * 120).await;
    assert_eq!(app.counts("current_key_invalid").await, (1, 1));
    assert!(app.engine.store.all_readings().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_unreadable_rotation_ends_no_page() {
    let app = app(Backend::Sqlite).await;
    app.stopped().await;
    conditions::once(&app.engine).await.unwrap();
    app.raw("UPDATE rotations SET machine = '{}'".to_owned()).await;
    app.live_for(SECOND * 20).await;
    assert_eq!(app.counts("needs_operator").await, (1, 0));
    assert!(app.watched().await.holding.contains(&ConditionKind::NeedsOperator));
}

/// A confirmation is waited for, not hammered at: when Atlas stops to answer, its own pause counts.
#[tokio::test]
async fn an_unconfirmed_reading_does_not_hammer_at_atlas() {
    let app = app(Backend::Sqlite).await;
    app.make(&old_key(), KeyState::Disabled);
    app.live_for(SECOND * 95).await;
    app.break_with(failing("get_ear", None, 429, Some(300)));
    app.make(&old_key(), KeyState::Enabled);
    app.live_for(SECOND * 60).await;
    let reads = || app.sim.log().iter().filter(|it| it.operation == "get_ear").count();
    let before = reads();
    app.live_for(SECOND * 240).await;
    assert!(reads() - before <= 2, "{} reads", reads() - before);
}

#[tokio::test]
async fn what_was_not_told_cannot_be_acknowledged() {
    let app = app(Backend::Sqlite).await;
    let id = app.proposed().await;
    app.break_with(failing("get_clusters", None, 503, None));
    app.engine.say("grace", id, OperatorVerb::Approve, None, None).await.unwrap();
    app.live_for(SECOND * 60).await;
    assert_eq!(app.watched().await.holding, [ConditionKind::Held]);
    let group = group(1).parse().unwrap();
    assert!(app.engine.acknowledge("grace", &group, ConditionKind::Held, None).await.is_err());
    app.live_for(SECOND * 60).await;
    assert_eq!(app.told("held").await.len(), 0, "an acknowledgement tells nothing");
}

#[tokio::test]
async fn a_page_goes_to_the_operators_too() {
    let mut app = app(Backend::Sqlite).await;
    app.rule(|settings| {
        settings.operators = vec!["oncall@example.com".to_owned(), "ada@example.com".to_owned()];
    });
    app.make(&old_key(), KeyState::Disabled);
    app.live_for(SECOND * 120).await;
    app.make(&old_key(), KeyState::Enabled);
    app.live_for(SECOND * 120).await;
    for kind in ["current_key_invalid", "current_key_invalid_over"] {
        let mut to: Vec<_> = app.told(kind).await.into_iter().map(|mail| mail.recipient).collect();
        to.sort();
        assert_eq!(to, ["ada@example.com", "oncall@example.com"], "{kind}");
    }
}

#[tokio::test]
async fn a_key_that_flaps_does_not_flood() {
    let app = app(Backend::Sqlite).await;
    for _ in 0..12 {
        app.make(&old_key(), KeyState::Disabled);
        app.live_for(SECOND * 105).await;
        app.make(&old_key(), KeyState::Enabled);
        app.live_for(SECOND * 105).await;
    }
    let (starts, ends) = app.counts("current_key_invalid").await;
    assert!(starts <= 8 && ends <= 3, "{starts} {ends}");
    app.live_for(SECOND * 1200).await;
    assert_eq!(app.watched().await.holding, []);
}

#[tokio::test]
async fn a_drift_and_its_settlement_are_start_and_end() {
    let app = app(Backend::Sqlite).await;
    app.set_by_hand(THIRD);
    app.live_for(SECOND * 120).await;
    assert_eq!(app.counts("drifted").await, (1, 0));
    let edit = ProjectEdit { key_since: Some(app.engine.clock.now()), ..ProjectEdit::default() };
    app.engine.edit_project("ada", &group(1).parse().unwrap(), edit).await.unwrap();
    app.live_for(SECOND * 10).await;
    assert_eq!(app.counts("drifted").await, (1, 1));
    let both = [app.told("drifted").await.remove(0), app.told("drifted_over").await.remove(0)];
    assert_eq!(both[0].model["conditionId"], both[1].model["conditionId"]);
}

#[tokio::test]
async fn a_restart_between_the_fact_and_its_notice_loses_and_repeats_nothing() {
    let mut app = app(Backend::Sqlite).await;
    app.make(&old_key(), KeyState::Disabled);
    for _ in 0..3 {
        app.pass(SECOND * 90);
        sweep::once(&app.engine, &CancellationToken::new()).await.unwrap();
        app.restart();
    }
    assert_eq!(app.counts("current_key_invalid").await, (0, 0));
    conditions::once(&app.engine).await.unwrap();
    app.restart();
    conditions::once(&app.engine).await.unwrap();
    assert_eq!(app.counts("current_key_invalid").await, (1, 0));
}

impl TestApp {
    pub(crate) async fn proposed(&self) -> keywheel::domain::ids::RotationId {
        let group = group(1).parse().unwrap();
        let key = new_key().parse().unwrap();
        let proposed = self.engine.propose("ada", &group, key, None, false).await.unwrap();
        let keywheel::engine::propose::Proposed::Created(row) = proposed else { panic!("not new") };
        row.rotation.id
    }
}

/// A switch that hears nothing raises the alarm, so silence is the message.
#[tokio::test]
async fn the_heartbeat_stays_away_when_nobody_watches() {
    let app = app(Backend::Sqlite).await;
    let stop = CancellationToken::new();
    let ready = crate::support::wait::spawn(keywheel::engine::ready::run(app.engine.clone(), stop.clone()));
    let receiver = Receiver::start().await;
    let switch = Heartbeat::new(Switch::new(receiver.url().parse().unwrap()).unwrap(), SECOND);
    let first = switch.beat(&app.engine, None).await.unwrap();
    assert_eq!(receiver.received().len(), 1);
    let missed = async |beaten| switch.beat(&app.engine, beaten).await.unwrap_err().to_string();
    assert!(missed(Some(first)).await.contains("no sweep has finished"));
    app.live_for(SECOND * 5).await;
    let second = switch.beat(&app.engine, Some(first)).await.unwrap();
    // The projects are not read in time, whatever the reason.
    app.pass(SECOND * 300);
    *app.engine.last_sweep.lock().unwrap() = Some(app.engine.clock.now());
    assert!(missed(Some(second)).await.contains("read late"));
    app.live_for(SECOND * 5).await;
    for (status, said) in [(302, "redirects (302)"), (500, "answered 500")] {
        receiver.always(reply(status, "no"));
        let missed = missed(None).await;
        assert!(missed.contains(said) && !missed.contains("127.0.0.1"), "{missed}");
    }
    stop.cancel();
    ready.await.unwrap();
    let dead = Heartbeat::new(Switch::new("http://127.0.0.1:9/secret".parse().unwrap()).unwrap(), SECOND);
    let why = dead.beat(&app.engine, None).await.unwrap_err().to_string();
    assert!(!why.contains("secret"), "{why}");
}

/// Whether Atlas ever enables two providers is not known. If it does, data under the second key is as much in danger.
#[tokio::test]
async fn a_second_enabled_block_with_an_invalid_key_is_told() {
    let app = app(Backend::Sqlite).await;
    let key = "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1";
    let block = |valid: bool| json!({ "enabled": true, "keyVersionResourceID": key, "valid": valid });
    let show = |block: Value| {
        app.sim.with(|world| {
            world.projects.get_mut(&group(1)).unwrap().beside.insert("googleCloudKms".to_owned(), block);
        });
    };
    show(block(true));
    app.live_for(SECOND * 120).await;
    assert_eq!(app.counts("current_key_invalid").await, (0, 0));
    show(block(false));
    app.live_for(SECOND * 120).await;
    assert_eq!(app.counts("current_key_invalid").await, (1, 0));
    assert_eq!(app.told("current_key_invalid").await[0].model["currentKey"], key);
    assert_eq!(app.watched().await.current_key.unwrap().to_string(), old_key());
    show(block(true));
    app.live_for(SECOND * 120).await;
    assert_eq!(app.counts("current_key_invalid").await, (1, 1));
}

/// An owner who joins hears what holds, and one who leaves waits for no end.
#[tokio::test]
async fn owners_who_join_or_leave_hear_what_concerns_them() {
    let app = app(Backend::Sqlite).await;
    let id = group(1).parse().unwrap();
    let own = async |owners: &[&str]| {
        let owners = Some(owners.iter().map(|mail| format!("{mail}@example.com")).collect());
        app.engine
            .edit_project(Actor::admin("ada"), &id, ProjectEdit { owners, ..ProjectEdit::default() })
            .await
            .unwrap();
    };
    let heard = async |kind: &str| {
        let mails = app.told(kind).await;
        mails.iter().map(|mail| mail.recipient.split_once('@').unwrap().0.to_owned()).collect::<Vec<_>>()
    };
    own(&["ada", "bob"]).await;
    assert_eq!(heard("current_key_invalid").await, Vec::<String>::new());
    app.make(&old_key(), KeyState::Disabled);
    app.live_for(SECOND * 120).await;
    assert_eq!(heard("current_key_invalid").await, ["ada", "bob"]);
    own(&["bob", "eve"]).await;
    assert_eq!(heard("current_key_invalid").await, ["ada", "bob", "eve"]);
    assert_eq!(heard("current_key_invalid_over").await, ["ada"]);
    assert_eq!(app.told("current_key_invalid_over").await[0].model["cause"], "no longer yours");
    let joined = app.told("current_key_invalid").await.pop().unwrap();
    assert_eq!(joined.model["conditionId"], format!("{}/invalid", group(1)));
    // Nobody changes, nobody hears anything.
    own(&["bob", "eve"]).await;
    app.make(&old_key(), KeyState::Enabled);
    app.live_for(SECOND * 120).await;
    assert_eq!(heard("current_key_invalid_over").await, ["ada", "bob", "eve"]);
}

/// Atlas asks to wait for a day; a person who decides has the look made at once all the same.
#[tokio::test]
async fn a_decision_of_a_person_looks_at_once_whatever_atlas_asks_for() {
    for verb in [OperatorVerb::Resume, OperatorVerb::Rollback] {
        let app = app(Backend::Sqlite).await;
        let id = app.stopped().await;
        app.cure();
        app.break_with(failing("get_ear", Some(1), 429, Some(86_400)));
        app.live_for(SECOND * 100).await;
        let reads = || app.sim.log().iter().filter(|it| it.operation == "get_ear").count();
        let before = reads();
        driver::run_due(&app.engine).await.unwrap();
        assert_eq!(reads(), before, "{verb:?}: the pause that Atlas asked for is kept");
        app.engine.say("grace", id, verb, None, None).await.unwrap();
        driver::run_due(&app.engine).await.unwrap();
        assert!(reads() > before, "{verb:?}: no look was made");
        let end = if verb == OperatorVerb::Resume { State::Completed } else { State::RolledBack };
        app.until(&app.engine.rotation(id).await.unwrap(), |state| state == end).await;
    }
}

/// Atlas retires the version of its API that this program asks for: the rotation waits, and one notice says so.
#[tokio::test]
async fn a_version_that_atlas_has_retired_holds_and_is_told_once() {
    let app = app(Backend::Sqlite).await;
    let id = app.proposed().await;
    let mut retired = failing("get_ear", None, 410, None);
    if let Kind::Status { code, .. } = &mut retired.kind {
        *code = Some("VERSION_GONE".to_owned());
    }
    app.break_with(retired);
    app.engine.say("grace", id, OperatorVerb::Approve, None, None).await.unwrap();
    app.live_for(SECOND * 1000).await;
    let held = app.engine.rotation(id).await.unwrap().rotation;
    assert_eq!((held.state, held.hold), (State::Approved, Some(Hold::TooOld)));
    let mails = app.told("held").await;
    assert_eq!((mails.len(), &mails[0].model["cause"]), (1, &"too_old".into()));
    app.cure();
    app.live_for(SECOND * 120).await;
    assert_ne!(app.engine.rotation(id).await.unwrap().rotation.state, State::Approved);
}

/// An approved rotation whose credential Atlas does not take waits, and people hear why.
#[tokio::test]
async fn a_hold_for_the_credential_is_told() {
    let app = app(Backend::Sqlite).await;
    let id = app.proposed().await;
    app.break_with(failing("get_ear", None, 401, None));
    app.engine.say("grace", id, OperatorVerb::Approve, None, None).await.unwrap();
    app.live_for(SECOND * 1000).await;
    let held = app.engine.rotation(id).await.unwrap().rotation;
    assert_eq!((held.state, held.hold), (State::Approved, Some(Hold::AtlasAuth)));
    let mails = app.told("held").await;
    assert_eq!((mails.len(), &mails[0].model["cause"]), (1, &"atlas_auth".into()));
    app.cure();
    app.live_for(SECOND * 120).await;
    assert_eq!(app.counts("held").await, (1, 1));
    assert_ne!(app.engine.rotation(id).await.unwrap().rotation.state, State::Approved);
}

/// The daemon's clock, which may be ahead of everybody else's.
#[derive(Debug)]
struct Ahead {
    clock: Arc<dyn Clock>,
    seconds: AtomicU64,
}

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        self.clock.now() + Duration::from_secs(self.seconds.load(Ordering::SeqCst))
    }
}

/// A wrong clock holds every new key back. Those who look after the installation hear of it after a minute, and the owners
/// of what waits for it after `sweep.told_after`; a key that cannot be used is told all the same.
#[tokio::test]
async fn a_hold_for_a_wrong_clock_is_told_and_hides_no_danger() {
    let mut app = app(Backend::Sqlite).await;
    let (clock, settings) = (Arc::clone(&app.engine.clock), Arc::clone(&app.engine.settings));
    let ahead = Arc::new(Ahead { clock: Arc::clone(&clock), seconds: AtomicU64::new(180) });
    let id = app.proposed().await;
    app.engine = engine_at(&app.sim, app.db.store.clone(), Arc::clone(&ahead) as Arc<dyn Clock>);
    app.engine.settings = settings;
    app.rule(|settings| settings.operators = vec!["night@example.com".to_owned()]);
    app.engine.say("grace", id, OperatorVerb::Approve, None, None).await.unwrap();
    let live = async |app: &TestApp, seconds: u32| {
        for _ in 0..seconds / 5 {
            sweep::once(&app.engine, &CancellationToken::new()).await.unwrap();
            driver::run_due(&app.engine).await.unwrap();
            conditions::once(&app.engine).await.unwrap();
            app.pass_until(clock.now() + SECOND * 5);
        }
    };
    live(&app, 200).await;
    let held = app.engine.rotation(id).await.unwrap().rotation;
    assert_eq!((held.state, held.hold), (State::Approved, Some(Hold::ClockSkew)));
    assert!(app.patches().is_empty());
    let pages = app.told("not_sending").await;
    assert_eq!((pages.len(), pages[0].recipient.as_str()), (1, "night@example.com"));
    assert_eq!(pages[0].model["cause"], "clock_skew");
    let switch = Heartbeat::new(Switch::new("http://127.0.0.1:9/".parse().unwrap()).unwrap(), SECOND);
    assert_eq!(
        switch.beat(&app.engine, None).await.unwrap_err().to_string(),
        "none is sent: the clocks differ"
    );
    live(&app, 900).await;
    let mails = app.told("held").await;
    assert_eq!((mails.len(), &mails[0].model["cause"]), (1, &"clock_skew".into()));
    assert_eq!(mails[0].recipient, "ada@example.com");
    app.make(&old_key(), KeyState::Disabled);
    live(&app, 120).await;
    assert_eq!(app.told("current_key_invalid").await.len(), 2, "one for the owner, one for the operators");
    // The clock is right again.
    app.make(&old_key(), KeyState::Enabled);
    ahead.seconds.store(0, Ordering::SeqCst);
    live(&app, 600).await;
    assert_eq!(app.counts("held").await, (1, 1));
    assert_eq!(app.counts("not_sending").await.1, 1);
    assert_eq!(app.counts("current_key_invalid").await.1, 2);
    assert_eq!(app.patches(), [new_key()]);
}
