//! Keys that end, and roles that are lost: told before a rotation or Atlas finds out.

use std::time::Duration;

use keywheel::domain::condition::{ConditionKind, Ending, Readings, Reporter};
use keywheel::domain::hint::{Hint, Meaning, Subject};
use keywheel::domain::key::{KeyRef, Provider};
use keywheel::domain::project::Status;
use keywheel::domain::time::Timestamp;
use keywheel::engine::command::{NewProject, OperatorVerb, ProjectEdit};
use keywheel::engine::hint;
use keywheel::sim::fault::{Fault, Kind};
use keywheel::sim::world::KeyState;
use keywheel::store::NewEvent;
use tokio_util::sync::CancellationToken;

use crate::conditions::app;
use crate::support::db::Backend;
use crate::support::{TestApp, group, new_key, old_key};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

impl TestApp {
    async fn hear(&self, event: &str, key: &str, meaning: Meaning, ends_at: Option<Timestamp>) {
        let now = self.engine.clock.now();
        let hint = Hint {
            kind: event.to_owned(),
            subject: Subject::Key { key: KeyRef::parse(Provider::Aws, key).unwrap() },
            meaning,
            new_key: None,
            by: None,
            words: None,
            ends_at,
        };
        let event = NewEvent::new("aws", &format!("{event}/{now}"), &hint).unwrap();
        self.engine.store.insert_events(vec![event], now).await.unwrap();
        hint::once(&self.engine, &CancellationToken::new()).await.unwrap();
        self.live_for(SECOND).await;
    }

    async fn alarms(&self) -> (usize, usize) {
        self.counts("key_alarm").await
    }
}

fn alarm(once: &str) -> Meaning {
    Meaning::Alarm { once: once.to_owned() }
}

#[tokio::test]
async fn a_disabled_key_is_paged_until_it_is_enabled() {
    let app = app(Backend::Sqlite).await;
    app.hear("DisableKey", &old_key(), alarm("1"), None).await;
    assert_eq!(app.alarms().await, (1, 0));
    let first = app.told("key_alarm").await.remove(0);
    assert_eq!(first.model["conditionId"], format!("{}/key_ending", group(1)));
    assert_eq!(app.watched().await.holding, [ConditionKind::KeyEnding]);
    let policy = &app.engine.settings.policy;
    assert_eq!(app.watched().await.status(policy, app.engine.clock.now()), Status::Invalid);
    // Atlas may not have noticed yet: what it calls valid for the next quarter of an hour ends nothing.
    app.live_for(SECOND * 300).await;
    assert_eq!(app.alarms().await, (2, 0));
    app.live_for(SECOND * 600).await;
    assert_eq!(app.alarms().await, (3, 0));
    app.hear("EnableKey", &old_key(), Meaning::Usable, None).await;
    assert_eq!(app.alarms().await, (3, 1));
    let over = app.told("key_alarm_over").await.remove(0);
    assert_eq!(over.model["conditionId"], first.model["conditionId"]);
    app.live_for(HOUR).await;
    assert_eq!(app.alarms().await, (3, 1));
}

/// A key that Atlas calls invalid covers the alarm about it. When that is over, the alarm goes on where it was, and an
/// acknowledgement of it holds on.
#[tokio::test]
async fn an_alarm_that_was_covered_is_not_told_anew_when_the_cover_is_over() {
    for acknowledged in [false, true] {
        let app = app(Backend::Sqlite).await;
        app.make(&old_key(), KeyState::Disabled);
        app.live_for(SECOND * 120).await;
        app.hear("DisableKey", &old_key(), alarm("1"), None).await;
        assert_eq!(app.alarms().await, (1, 0));
        if acknowledged {
            let id = group(1).parse().unwrap();
            app.engine.acknowledge("grace", &id, ConditionKind::KeyEnding, None).await.unwrap();
        }
        app.live_for(SECOND * 60).await;
        app.make(&old_key(), KeyState::Enabled);
        app.live_for(SECOND * 180).await;
        assert_eq!(app.counts("current_key_invalid").await.1, 1);
        assert_eq!(app.watched().await.holding, [ConditionKind::KeyEnding]);
        assert_eq!(app.alarms().await, (1, 0));
        app.live_for(SECOND * 60).await;
        assert_eq!(app.alarms().await, (if acknowledged { 1 } else { 2 }, 0));
    }
}

#[tokio::test]
async fn readings_after_atlas_has_checked_refute_what_an_event_said() {
    let app = app(Backend::Sqlite).await;
    app.hear("DisableKey", &old_key(), alarm("1"), None).await;
    app.live_for(SECOND * 900).await;
    assert_eq!(app.alarms().await.1, 0);
    app.live_for(SECOND * 300).await;
    assert_eq!(app.alarms().await.1, 1);
    assert!(app.engine.store.all_readings().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_key_that_expires_is_told_once_and_paged_in_its_last_three_days() {
    let app = app(Backend::Sqlite).await;
    let ends = app.engine.clock.now() + HOUR * 24 * 4;
    app.hear("KeyNearExpiry", &old_key(), alarm("1"), Some(ends)).await;
    app.live_for(HOUR * 20).await;
    assert_eq!(app.alarms().await, (1, 0));
    app.live_for(HOUR * 6).await;
    let (paged, over) = app.alarms().await;
    assert!(paged >= 3 && over == 0, "{paged} {over}");
}

#[tokio::test]
async fn what_ends_is_over_when_the_key_leaves_play() {
    let app = app(Backend::Sqlite).await;
    let id = app.proposed().await;
    app.hear("ScheduleKeyDeletion", &new_key(), alarm("1"), None).await;
    assert_eq!(app.alarms().await, (1, 0));
    assert_eq!(app.told("key_alarm").await[0].model["proposed"], true);
    app.engine.say("grace", id, OperatorVerb::Cancel, None, None).await.unwrap();
    app.live_for(SECOND * 10).await;
    assert_eq!(app.alarms().await, (1, 1));
    assert_eq!(app.watched().await.holding, []);
}

#[tokio::test]
async fn an_event_about_another_key_holds_for_nobody() {
    let app = app(Backend::Sqlite).await;
    app.hear("DisableKey", "44444444-4444-4444-8444-444444444444", alarm("1"), None).await;
    assert_eq!((app.alarms().await, app.watched().await.holding), ((0, 0), vec![]));
}

/// The role is asked for once a day, before a rotation needs it.
#[tokio::test]
async fn a_role_that_was_lost_is_told_within_a_day() {
    let app = app(Backend::Sqlite).await;
    let code = Some("USER_UNAUTHORIZED".to_owned());
    app.break_with(Fault {
        operation: "get_endpoints".to_owned(),
        group_id: Some(group(1)),
        skip: 0,
        times: None,
        kind: Kind::Status { status: 401, code, retry_after: None },
    });
    app.live_for(HOUR * 24).await;
    assert_eq!(app.counts("not_owner").await, (1, 0));
    let now = app.engine.clock.now();
    assert_eq!(app.watched().await.status(&app.engine.settings.policy, now), Status::Unreachable);
    app.cure();
    app.live_for(SECOND * 1200).await;
    assert_eq!(app.counts("not_owner").await, (1, 1));
    let asked = app.sim.log().iter().filter(|it| it.operation == "get_endpoints").count();
    assert!(asked < 110, "asked {asked} times in a day");
}

#[tokio::test]
async fn a_credential_that_cannot_read_the_project_is_not_taken() {
    let app = app(Backend::Sqlite).await;
    let edit = ProjectEdit { credential: Some("other".to_owned()), ..ProjectEdit::default() };
    let id = group(1).parse().unwrap();
    app.engine.edit_project("ada", &id, edit).await.unwrap_err();
    assert_eq!(app.watched().await.credential, "default");
}

#[tokio::test]
async fn a_project_added_again_compares_with_its_last_recorded_key() {
    let app = app(Backend::Sqlite).await;
    let id = group(1).parse().unwrap();
    app.engine.remove_project("ada", &id).await.unwrap();
    app.set_by_hand("33333333-3333-4333-8333-333333333333");
    let owners = vec!["ada@example.com".to_owned()];
    let again = NewProject { group_id: group(1), owners, ..NewProject::default() };
    app.engine.add_project("ada", again).await.unwrap();
    app.live_for(SECOND * 10).await;
    assert_eq!(app.counts("drifted").await, (1, 0));
    let told = app.told("drifted").await.remove(0);
    assert_eq!(told.model["from"], old_key());
}

/// Senders choose the names of their events: a flood of names makes no row grow.
#[tokio::test]
async fn a_flood_of_alarms_is_remembered_within_bounds() {
    let app = app(Backend::Sqlite).await;
    for number in 0..40 {
        app.hear(&format!("EVENT_{number}"), &old_key(), alarm(&number.to_string()), None).await;
    }
    let readings = app.engine.store.readings(&group(1).parse().unwrap()).await.unwrap();
    assert_eq!(readings.endings.len(), 16);
    assert_eq!(readings.endings.last().unwrap().event, "EVENT_39");
}

/// A lookup knows of the key, and not of Atlas' trouble with it; nor of what was heard after it had asked.
#[test]
fn a_lookup_that_finds_a_key_usable_ends_only_what_it_can_know() {
    let asked_at: Timestamp = "2026-11-30T00:00:00Z".parse().unwrap();
    let (before, after) = (asked_at - SECOND, asked_at + SECOND);
    let mut readings = Readings::default();
    for (event, reporter, at) in [
        ("AWS_ENCRYPTION_KEY_INVALID", Reporter::Other, before),
        ("DisableKey", Reporter::KeyService, before),
        ("is disabled", Reporter::Lookup, before),
        ("ScheduleKeyDeletion", Reporter::KeyService, after),
    ] {
        let (key, event, from) = (old_key(), event.to_owned(), "aws".to_owned());
        readings.note_ending(Ending { key, event, from, at, ends_at: None, good: None, reporter });
    }
    readings.refute_endings(&new_key(), after + SECOND);
    assert_eq!(readings.endings.len(), 4);
    readings.refute_endings(&old_key(), asked_at);
    let left: Vec<_> = readings.endings.iter().map(|it| it.event.as_str()).collect();
    assert_eq!(left, ["AWS_ENCRYPTION_KEY_INVALID", "ScheduleKeyDeletion"]);
}
