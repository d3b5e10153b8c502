//! Conditions of the installation over real HTTP: what concerns no single project is told once to those who
//! look after it, for as long as it holds, and covers the projects behind it.

use std::collections::BTreeMap;
use std::time::Duration;

use keywheel::config::Webhook;
use keywheel::config::hooks::SigningKey;
use keywheel::config::webhooks::Format;
use keywheel::domain::condition::ConditionKind;
use keywheel::domain::ids::GroupId;
use keywheel::domain::rotation::state::State;
use keywheel::domain::subject::Subject;
use keywheel::engine::command::{OperatorVerb, ProjectEdit};
use keywheel::engine::epoch::EpochWatch;
use keywheel::engine::heartbeat::Heartbeat;
use keywheel::engine::last_resort::LastResort;
use keywheel::engine::{conditions, credentials, deciding, driver, sweep};
use keywheel::mail::Smtp;
use keywheel::secret::{Secret, SecretUrl};
use keywheel::sim::fault::{Fault, Kind};
use keywheel::sim::world::KeyState;
use keywheel::store::{ConditionRow, OutboxRow, Presence};
use keywheel::webhook::{Switch, Target};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::conditions::app;
use crate::support::db::Backend;
use crate::support::receiver::Receiver;
use crate::support::smtpd::Smtpd;
use crate::support::{TestApp, engine_at, group, old_key};

const SECOND: Duration = Duration::from_secs(1);

/// Every project of every credential answers this.
fn all(operation: &str, status: u16) -> Fault {
    let kind = Kind::Status { status, code: None, retry_after: None };
    Fault { operation: operation.to_owned(), group_id: None, skip: 0, times: None, kind }
}

fn one(number: u64, status: u16) -> Fault {
    Fault { group_id: Some(group(number)), ..all("get_ear", status) }
}

impl TestApp {
    async fn installed(&self) -> Vec<ConditionRow> {
        self.engine.installation().await.unwrap()
    }

    /// The mails about the installation and about projects that cannot be read.
    async fn notices(&self) -> Vec<OutboxRow> {
        let mut all = self.engine.store.outbox(None, 500).await.unwrap();
        all.retain(|mail| {
            mail.subject.contains('/') || mail.subject == "installation" || mail.kind.starts_with("unreach")
        });
        all.reverse();
        all
    }

    async fn kinds(&self) -> Vec<String> {
        self.notices().await.into_iter().map(|mail| mail.kind).collect()
    }
}

async fn fleet(projects: u64) -> TestApp {
    let mut app = app(Backend::Sqlite).await;
    app.rule(|settings| settings.operators = vec!["night@example.com".to_owned()]);
    // When in its interval each project is read follows from the clock: the same for each run of a test.
    app.pass_until("2036-03-01T12:00:00Z".parse().unwrap());
    for number in 2..=projects {
        app.track(number).await;
    }
    app.live_for(SECOND).await;
    app
}

#[tokio::test]
async fn an_atlas_that_cannot_be_reached_is_one_page_and_covers_its_projects() {
    let app = fleet(4).await;
    app.break_with(all("get_ear", 503));
    app.live_for(SECOND * 360).await;
    let told = app.notices().await;
    assert_eq!(told.iter().map(|it| it.kind.as_str()).collect::<Vec<_>>(), ["atlas_unreachable"]);
    assert_eq!(told[0].subject, "credential/default");
    assert_eq!(told[0].recipient, "night@example.com");
    assert_eq!(told[0].model["conditionId"], "credential/default/atlas_unreachable");
    let letter = crate::support::letter(&told[0]);
    assert!(letter.subject.contains("Credential default"), "{}", letter.subject);
    assert!(letter.text().contains("503"), "Atlas' own words are missing: {}", letter.text());
    // The projects are shown as what they are, and are not told.
    let held = app.holding().await;
    assert_eq!((held[0].kind, held[0].told), (ConditionKind::Unreachable, 0));
    app.live_for(SECOND * 900).await;
    assert_eq!(app.kinds().await, ["atlas_unreachable"; 3]);
    // What is still unread when it ends is told by itself.
    app.cure();
    app.break_with(one(2, 503));
    app.live_for(SECOND * 240).await;
    assert_eq!(app.kinds().await[3..], ["atlas_unreachable_over", "unreachable"]);
    assert_eq!(app.notices().await[4].subject, group(2));
    app.cure();
    app.live_for(SECOND * 120).await;
    assert_eq!(app.kinds().await[5..], ["unreachable_over"]);
}

#[tokio::test]
async fn a_few_projects_that_cannot_be_read_are_told_by_themselves() {
    let app = fleet(4).await;
    app.break_with(one(2, 503));
    app.break_with(one(3, 503));
    app.live_for(SECOND * 360).await;
    assert_eq!(app.kinds().await, ["unreachable"; 2]);
}

#[tokio::test]
async fn a_refused_credential_is_told_once_and_then_each_day() {
    let app = fleet(4).await;
    app.break_with(all("get_ear", 401));
    app.live_for(SECOND * 360).await;
    assert_eq!(app.kinds().await, ["credential_refused"]);
    app.live_for(SECOND * 7200).await;
    assert_eq!(app.kinds().await, ["credential_refused"]);
    app.live_for(SECOND * 86_400).await;
    assert_eq!(app.kinds().await, ["credential_refused"; 2]);
    let held = app.installed().await;
    let row = held.iter().find(|row| row.kind == ConditionKind::CredentialRefused).unwrap();
    let next = row.tell_at.unwrap().to_string();
    assert!(next.ends_with("T08:00:00.000000Z"), "{next}");
    app.cure();
    app.live_for(SECOND * 120).await;
    assert_eq!(app.kinds().await[2..], ["credential_refused_over"]);
}

#[tokio::test]
async fn a_refused_credential_pages_while_a_key_is_being_verified() {
    let app = fleet(1).await;
    let row = app.approved().await;
    let row = app.until(&row, |state| state == State::Verifying).await;
    app.break_with(all("get_ear", 401));
    app.settle(&row).await;
    app.live_for(SECOND * 700).await;
    assert!(app.told("needs_operator").await.len() >= 2);
    let told = app.told("credential_refused").await.len();
    assert!(told >= 2, "told {told} times while a rotation is after its PATCH");
}

#[tokio::test]
async fn a_database_in_doubt_is_paged_until_it_is_accepted() {
    let mut app = fleet(1).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("epoch");
    std::fs::write(&file, r#"{"database":"other","seq":1,"hash":"none"}"#).unwrap();
    let mark = keywheel::engine::epoch::present_mark(&app.engine.store).await.unwrap().unwrap();
    std::fs::write(
        &file,
        serde_json::json!({ "database": mark.database, "seq": mark.seq + 5, "hash": "0" }).to_string(),
    )
    .unwrap();
    let guard = EpochWatch::new(file.clone()).unwrap();
    guard.start(&app.engine.store, app.engine.clock.now()).await.unwrap();
    app.engine = app.engine.clone().with_guard(guard);
    app.live_for(SECOND * 400).await;
    assert_eq!(app.kinds().await, ["not_sending"; 2]);
    let told = app.notices().await.remove(0);
    assert_eq!((told.subject.as_str(), &told.model["cause"]), ("daemon/here:8440", &"restored".into()));
    assert!(told.model["detail"].as_str().unwrap().contains("doctor"), "{}", told.model);
    let switch = Heartbeat::new(Switch::new("http://127.0.0.1:9/".parse().unwrap()).unwrap(), SECOND);
    let missed = switch.beat(&app.engine, None).await.unwrap_err().to_string();
    assert_eq!(missed, "none is sent: the database is in doubt");
    // A key that goes bad meanwhile is told all the same.
    app.make(&old_key(), KeyState::Disabled);
    app.live_for(SECOND * 120).await;
    let told = app.told("current_key_invalid").await.into_iter().map(|mail| mail.recipient);
    assert_eq!(told.collect::<Vec<_>>(), ["ada@example.com", "night@example.com"]);
    keywheel::engine::epoch::write_mark(&file, &mark).unwrap();
    app.live_for(SECOND * 120).await;
    assert_eq!(app.kinds().await.last().unwrap(), "not_sending_over");
    assert!(app.installed().await.is_empty());
}

#[tokio::test]
async fn mail_that_does_not_leave_is_told_and_ends_when_it_does() {
    let app = fleet(1).await;
    let now = app.engine.clock.now();
    app.proposed().await;
    let mut claimed = Vec::new();
    while let Some(mail) =
        app.engine.store.claim_mail(now, SECOND, "2000-01-01".parse().unwrap()).await.unwrap()
    {
        let later = keywheel::store::MessageEnd::Again(now + SECOND * 86_400);
        app.engine.store.mail_ended(&mail, &later, "451 4.7.1 not now", now).await.unwrap();
        claimed.push(mail);
    }
    assert!(!claimed.is_empty());
    app.live_for(SECOND * 800).await;
    assert_eq!(app.kinds().await, [""; 0]);
    app.live_for(SECOND * 120).await;
    assert_eq!(app.kinds().await, ["mail_failing"]);
    assert_eq!(app.notices().await[0].model["detail"], "451 4.7.1 not now");
    let now = app.engine.clock.now();
    let mail =
        app.engine.store.claim_mail(now, SECOND, "2000-01-01".parse().unwrap()).await.unwrap().unwrap();
    app.engine.store.mail_ended(&mail, &keywheel::store::MessageEnd::Sent, "250 ok", now).await.unwrap();
    app.live_for(SECOND * 10).await;
    assert_eq!(app.kinds().await, ["mail_failing", "mail_failing_over"]);
}

#[tokio::test]
async fn projects_that_are_read_late_are_told() {
    let app = fleet(1).await;
    // Nothing sweeps.
    for _ in 0..60 {
        app.pass(SECOND * 5);
        conditions::once(&app.engine).await.unwrap();
    }
    assert_eq!(app.kinds().await, ["sweep_late"]);
    app.live_for(SECOND * 10).await;
    assert_eq!(app.kinds().await, ["sweep_late", "sweep_late_over"]);
}

#[tokio::test]
async fn rows_that_cannot_be_read_are_told_and_named() {
    let app = fleet(2).await;
    app.raw(format!("UPDATE projects SET policy = '{{' WHERE group_id = '{}'", group(2))).await;
    app.live_for(SECOND * 70).await;
    assert_eq!(app.kinds().await, ["row_unreadable"]);
    let cause = app.notices().await[0].model["cause"].as_str().unwrap().to_owned();
    assert!(cause.contains("projects.policy") && cause.contains(&group(2)), "{cause}");
    app.raw(format!("UPDATE projects SET policy = NULL WHERE group_id = '{}'", group(2))).await;
    app.live_for(SECOND * 70).await;
    assert_eq!(app.kinds().await, ["row_unreadable", "row_unreadable_over"]);
}

#[tokio::test]
async fn an_acknowledged_condition_of_the_installation_is_told_again_after_twelve_hours() {
    let app = fleet(4).await;
    let none = app.engine.acknowledge_installation("grace", ConditionKind::AtlasUnreachable, None).await;
    assert!(none.unwrap_err().to_string().contains("keywheel status"));
    app.break_with(all("get_ear", 503));
    app.live_for(SECOND * 360).await;
    app.engine
        .acknowledge_installation("grace", ConditionKind::AtlasUnreachable, Some("on it"))
        .await
        .unwrap();
    app.live_for(SECOND * 11 * 3600).await;
    assert_eq!(app.kinds().await, ["atlas_unreachable"]);
    app.live_for(SECOND * 2 * 3600).await;
    assert_eq!(app.kinds().await[..2], ["atlas_unreachable"; 2]);
}

/// What another daemon alone could see is its own to end, until it is gone.
#[tokio::test]
async fn what_a_daemon_sees_ends_with_the_daemon() {
    let app = app(Backend::Postgres).await;
    let now = app.engine.clock.now();
    let subject = Subject::Daemon("there:8440".to_owned());
    let presence = Presence {
        id: Uuid::now_v7(),
        name: "there".to_owned(),
        subject: subject.clone(),
        settings: std::collections::BTreeMap::new(),
    };
    let welcome = |_: &Presence, _: &[keywheel::store::Other]| Ok::<(), ()>(());
    app.engine.store.join(&presence, now, welcome).await.unwrap().unwrap();
    let row = ConditionRow {
        subject,
        kind: ConditionKind::NotSending,
        since: now,
        name: String::new(),
        cause: Some("restored".to_owned()),
        key: None,
        rotation_id: None,
        told: 1,
        told_at: Some(now),
        tell_at: None,
        damped: false,
        calm_since: None,
        acknowledged_at: None,
        acknowledged_by: None,
        ended_at: None,
        version: 0,
    };
    app.engine.store.tell(vec![row], Vec::new(), Vec::new(), now).await.unwrap();
    for (passed, kinds) in [(120, vec![]), (120, vec!["not_sending_over"])] {
        app.pass(SECOND * passed);
        conditions::once(&app.engine).await.unwrap();
        assert_eq!(app.kinds().await, kinds);
    }
    let letter = crate::support::letter(&app.notices().await[0]);
    assert!(letter.subject.contains("no longer runs"), "{}", letter.subject);
}

/// What cannot be found out about the installation keeps nobody from hearing of a key.
#[tokio::test]
async fn no_instant_that_cannot_be_read_makes_anybody_mute_or_blind() {
    for (table, column, filter) in [
        ("projects", "next_check_at", "group_id"),
        ("projects", "last_checked_at", "group_id"),
        ("projects", "created_at", "group_id"),
        ("projects", "next_reminder_at", "group_id"),
        ("outbox", "created_at", "group_id"),
        ("outbox", "last_tried_at", "group_id"),
    ] {
        for text in ["", "x"] {
            let app = fleet(2).await;
            app.proposed().await;
            let one = group(1);
            app.raw(format!("UPDATE outbox SET attempts = 1 WHERE group_id = '{one}'")).await;
            app.raw(format!("UPDATE {table} SET {column} = '{text}' WHERE {filter} = '{one}'")).await;
            let second = app.sim.with(|world| world.projects[&group(2)].key());
            app.make(&second, KeyState::Disabled);
            app.live_for(SECOND * 150).await;
            let subject = group(2).parse().unwrap();
            let told = app.engine.store.conditions_of(&subject, &subject).await;
            let told: Vec<_> = told.unwrap().into_iter().map(|row| (row.kind, row.told)).collect();
            assert_eq!(told, [(ConditionKind::Invalid, 1)], "{table}.{column} = {text:?}");
        }
    }
}

/// What a key service said of a key's end is no reason not to read the key.
#[tokio::test]
async fn an_end_that_cannot_be_read_leaves_its_project_watched() {
    let app = fleet(1).await;
    let one = group(1);
    app.raw(format!(
        "UPDATE projects SET key_ends_at = 'x', key_ends_of = current_key WHERE group_id = '{one}'"
    ))
    .await;
    let project = app.engine.store.project(&one.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(project.key_ends_at, None);
    app.make(&old_key(), KeyState::Disabled);
    app.live_for(SECOND * 150).await;
    let subject = one.parse().unwrap();
    let told = app.engine.store.conditions_of(&subject, &subject).await.unwrap();
    assert!(told.iter().any(|row| (row.kind, row.told) == (ConditionKind::Invalid, 1)), "{told:?}");
}

/// The rows that decide about an open rotation decide nothing about whether its key is read and the danger is told.
#[tokio::test]
async fn no_row_that_decides_keeps_a_key_from_being_read_when_it_cannot_be() {
    let mut mute = Vec::new();
    for (table, column) in [
        ("loosenings", "requested_at"),
        ("loosenings", "effective_at"),
        ("loosenings", "changes"),
        ("loosenings", "state"),
        ("loosenings", "kind"),
        ("approvals", "at"),
        ("tokens", "created_at"),
        ("tokens", "given_at"),
        ("tokens", "roles"),
        ("settings", "value"),
        ("owners", "mail"),
        ("former_projects", "record"),
        ("projects", "policy"),
        ("outbox", "sent_at"),
    ] {
        for approved in [false, true] {
            let mut app = fleet(2).await;
            app.rule(|settings| settings.policy.approvals = 2);
            let found = BTreeMap::from([("policy.approvals".to_owned(), "2".to_owned())]);
            deciding::record(&app.engine, found).await.unwrap();
            let one: GroupId = group(1).parse().unwrap();
            let edit = |mails: &[&str]| ProjectEdit {
                owners: Some(mails.iter().map(|mail| (*mail).to_owned()).collect()),
                ..ProjectEdit::default()
            };
            app.engine.edit_project("ada", &one, edit(&["other@example.com"])).await.unwrap();
            let id = app.proposed().await;
            let mut voters = vec!["grace"];
            voters.extend(approved.then_some("edsger"));
            for by in voters {
                app.engine.say(by, id, OperatorVerb::Approve, None, None).await.unwrap();
            }
            app.raw(format!("PRAGMA ignore_check_constraints = ON; UPDATE {table} SET {column} = 'x'")).await;
            for number in [1, 2] {
                let key = app.sim.with(|world| world.projects[&group(number)].key());
                app.make(&key, KeyState::Disabled);
            }
            // As the daemon does it: what fails is tried again.
            for _ in 0..30 {
                let _ = sweep::once(&app.engine, &CancellationToken::new()).await;
                let _ = driver::run_due(&app.engine).await;
                let _ = conditions::once(&app.engine).await;
                app.pass(SECOND * 5);
            }
            for number in if table == "projects" { vec![] } else { vec![1, 2] } {
                let subject = group(number).parse().unwrap();
                let told = app.engine.store.conditions_of(&subject, &subject).await.unwrap();
                let told = told.iter().any(|row| row.kind == ConditionKind::Invalid && row.told > 0);
                if !told {
                    mute.push(format!("{table}.{column}, approved: {approved}, project {number}"));
                }
            }
            assert!(app.patches().is_empty(), "{table}.{column}");
            // Nor from being compared with what was sealed.
            let compared = app.engine.store.tampered().await;
            assert!(compared.is_ok(), "{table}.{column}: {compared:?}");
        }
    }
    assert!(mute.is_empty(), "nobody hears of these keys:\n{}", mute.join("\n"));
}

/// A daemon with a mail server and a channel, whose database can be written or not.
fn last_resort(app: &TestApp, smtpd: &Smtpd, receiver: &Receiver) -> LastResort {
    let ops = Webhook {
        name: "ops".to_owned(),
        url: Secret::new(receiver.url()),
        format: Format::CloudEvents,
        keys: vec![SigningKey::new(&[7; 32]).unwrap()],
        token: None,
        service_key: None,
        kinds: Vec::new(),
        allow_private: true,
        proxy: None,
        ca_file: None,
    };
    app.engine.webhooks.replace(vec![Target::new(&ops).unwrap()]);
    let url = SecretUrl::new(format!("smtp://127.0.0.1:{}?tls=none", smtpd.port));
    let smtp = Smtp::new(&url, "keywheel@example.com", None, None).unwrap();
    LastResort::new(app.engine.clone(), watch::channel(Some(smtp)).1)
}

#[tokio::test]
async fn a_database_that_cannot_be_written_is_told_without_it() {
    let app = fleet(1).await;
    let (smtpd, receiver) = (Smtpd::start(json!({})), Receiver::start().await);
    let mut it = last_resort(&app, &smtpd, &receiver);
    let told = || (smtpd.mails().len(), receiver.received().len());
    it.once(false).await;
    app.pass(SECOND * 290);
    it.once(false).await;
    assert_eq!(told(), (0, 0));
    let held = app.installed().await;
    assert_eq!(held[0].kind, ConditionKind::DatabaseUnwritable, "it is shown at once");
    app.pass(SECOND * 10);
    it.once(false).await;
    app.pass(SECOND * 3600);
    it.once(false).await;
    assert_eq!(told(), (1, 1));
    it.once(true).await;
    it.once(true).await;
    assert_eq!(told(), (2, 2));
    let ids: Vec<_> = receiver.received().iter().map(|it| it.json()["data"]["conditionId"].clone()).collect();
    assert_eq!(ids, ["daemon/here:8440/database_unwritable"; 2]);
    assert!(app.installed().await.is_empty());
    assert_eq!(app.kinds().await, [""; 0], "nothing of it is in the outbox");
}

#[tokio::test]
async fn with_a_key_being_verified_it_is_told_after_half_a_minute() {
    let app = fleet(1).await;
    let (smtpd, receiver) = (Smtpd::start(json!({})), Receiver::start().await);
    let mut it = last_resort(&app, &smtpd, &receiver);
    let row = app.approved().await;
    app.until(&row, |state| state == State::Verifying).await;
    it.once(false).await;
    app.pass(SECOND * 31);
    it.once(false).await;
    assert_eq!((smtpd.mails().len(), receiver.received().len()), (1, 1));
    let said = &receiver.received()[0].json()["data"];
    assert_eq!(said["cause"], "rotation_under_way");
}

/// A secret of a service account lasts a year at most.
#[tokio::test]
async fn a_secret_that_expires_is_told_at_thirty_seven_and_one_days_and_when_it_is_over() {
    const DAY: Duration = Duration::from_hours(24);
    let app = app(Backend::Sqlite).await;
    let until = |days: u32| {
        app.sim.with(|world| {
            let ends = app.engine.clock.now() + DAY * days;
            world.secret_ends.insert("mdb_sa_id_demo".to_owned(), ends);
        });
    };
    let read = async || {
        assert!(credentials::once(&app.engine).await);
        conditions::once(&app.engine).await.unwrap();
        app.told("credential_ending").await
    };
    until(31);
    assert!(read().await.is_empty());
    let mut seen = 0;
    for (days, words) in
        [(29, "within 30 days"), (28, ""), (6, "within 7 days"), (1, "within a day"), (0, "has expired")]
    {
        until(days);
        let told = read().await;
        seen += usize::from(!words.is_empty());
        assert_eq!(told.len(), seen, "{days}: {told:?}");
        let cause = told.last().unwrap().model["cause"].as_str().unwrap();
        assert!(cause.contains(words), "{days}: {cause}");
    }
    let text = keywheel::engine::metrics::scrape(&app.engine).await.unwrap();
    assert!(text.contains("keywheel_credential_expires_timestamp_seconds{credential=\"default\"}"), "{text}");
    // Another daemon has not read it yet, and ends nothing.
    let other = engine_at(&app.sim, app.engine.store.clone(), app.engine.clock.clone());
    conditions::once(&other).await.unwrap();
    assert_eq!(
        (app.told("credential_ending").await.len(), app.told("credential_ending_over").await.len()),
        (4, 0)
    );
    // An answer that does not come says nothing.
    app.sim.with(|world| {
        world.faults = vec![
            serde_json::from_value(json!({ "operation": "get_service_account", "kind": "truncate" }))
                .unwrap(),
        ];
    });
    assert!(!credentials::once(&app.engine).await);
    conditions::once(&app.engine).await.unwrap();
    assert_eq!(app.told("credential_ending_over").await.len(), 0);
    app.sim.with(|world| world.faults.clear());
    until(365);
    assert_eq!(read().await.len(), 4);
    assert_eq!(app.told("credential_ending_over").await.len(), 1);
}
