//! The store's contract, the same on both databases.

use std::time::Duration;

use keywheel::domain::event::{Actor, KeyEvent, ProofState};
use keywheel::domain::ids::GroupId;
use keywheel::domain::key::{KeyRef, Place, Provider};
use keywheel::domain::notice::{DriftKind, Drifted};
use keywheel::domain::policy::Rules;
use keywheel::domain::project::{PolicyOverride, Project, SinceSource, Status};
use keywheel::domain::role::Role;
use keywheel::domain::rotation::journal::JournalKind;
use keywheel::domain::rotation::machine::next;
use keywheel::domain::rotation::outcome::{Command, Observation, Outcome};
use keywheel::domain::rotation::state::{Proposal, Rotation, State};
use keywheel::domain::time::Timestamp;
use keywheel::store::{
    Access, AuditFilter, AwaitedWitness, Drift, DueFilter, NewAudit, NewEvent, NewJournal, NewRotation,
    ProjectFilter, ProjectWrite, RotationRow, StepWrite, Store, StoreError, TABLES, WitnessEnd, WitnessEvent,
    known_version, statements,
};
use sqlx::{AssertSqlSafe, Executor, Row, SqlSafeStr, Statement};

use crate::support::db::{Backend, TestDb, unlock};

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn group() -> GroupId {
    "32b6e34b3d91647abb20e7b8".parse().unwrap()
}

fn key(digit: char) -> KeyRef {
    let text = "xxxxxxxx-xxxx-4xxx-8xxx-xxxxxxxxxxxx".replace('x', &digit.to_string());
    KeyRef::parse(Provider::Aws, &text).unwrap()
}

fn audit(action: &str) -> NewAudit {
    NewAudit {
        actor: "ada".to_owned(),
        action: action.to_owned(),
        subject: "test".to_owned(),
        detail: "{\"b\":1,\"a\":2}".to_owned(),
    }
}

fn project() -> Project {
    Project {
        group_id: group(),
        name: "Ünïcode <b>&amp;".to_owned(),
        provider: Some(Provider::Aws),
        current_key: Some(key('1')),
        place: Place::default(),
        key_since: Some(now()),
        key_since_source: Some(keywheel::domain::project::SinceSource::Operator),
        valid: Some(true),
        private_networking: false,
        owners: vec!["ada@example.com".to_owned(), "bob@example.com".to_owned()],
        environment: None,
        credential: "default".to_owned(),
        kms: None,
        alias: None,
        policy: None,
        drift_key: None,
        last_checked_at: None,
        last_error: None,
        next_check_at: now(),
        next_reminder_at: Some(now()),
        created_at: now(),
        open_rotation: None,
        holding: Vec::new(),
        silence: None,
        due_ack: None,
        key_ends_at: None,
        version: 1,
    }
}

fn row() -> RotationRow {
    let seen = Observation {
        at: now(),
        provider: Some(Provider::Aws),
        key: Some(key('1')),
        valid: Some(true),
        private_networking: false,
        place: Place::default(),
        block_hash: String::new(),
        invalid_beside: None,
        skew_ms: None,
    };
    let proposal = Proposal {
        group_id: group(),
        new_key: key('2'),
        seen,
        checks: Vec::new(),
        old_key: key('1'),
        rules: Rules::default(),
    };
    RotationRow {
        rotation: Rotation::propose(proposal, now()),
        trigger: "operator".to_owned(),
        reason: None,
        requested_by: "ada".to_owned(),
        proposal_hash: "hash".to_owned(),
        policy_version: "1".to_owned(),
        version: 1,
        project_name: "p".to_owned(),
        credential: "default".to_owned(),
        environment: None,
        kms: None,
        lease: None,
    }
}

fn entry(kind: JournalKind, merge: bool) -> NewJournal {
    NewJournal {
        actor: "ada".to_owned(),
        kind,
        from_state: Some(State::Approved),
        to_state: State::Approved,
        detail: serde_json::json!({ "same": true }),
        replay: None,
        merge,
    }
}

fn write<'a>(before: &'a RotationRow, after: &'a Rotation, keep: Option<Timestamp>) -> StepWrite<'a> {
    StepWrite {
        before,
        after,
        keep_lease: keep,
        journal: Some(entry(JournalKind::Look, true)),
        audit: vec![audit("rotation.step")],
        outbox: Vec::new(),
        project: None,
        vote: None,
        sends: None,
        terms: None,
        now: now(),
    }
}

fn proposed(row: &RotationRow, audit: Vec<NewAudit>) -> NewRotation<'_> {
    let journal = vec![entry(JournalKind::Proposed, false)];
    NewRotation { row, journal, vote: None, audit, outbox: Vec::new(), review: None, now: now() }
}

async fn approved(store: &Store) -> RotationRow {
    store.insert_project(&project(), &[audit("project.added")], now()).await.unwrap();
    let row = row();
    store.insert_rotation(proposed(&row, vec![audit("rotation.proposed")])).await.unwrap();
    let step = next(&row.rotation, &Outcome::Said(Command::Approve { given: 1 }), now());
    store.commit(write(&row, &step.rotation, None)).await.unwrap();
    store.rotation(row.rotation.id).await.unwrap().unwrap()
}

async fn projects_read_back_as_written(store: &Store) {
    store.insert_project(&project(), &[audit("project.added")], now()).await.unwrap();
    let stored = store.project(&group()).await.unwrap().unwrap();
    assert_eq!(stored, project());
    assert_eq!(stored.status(&Rules::default().policy, now()), Status::Ok);
    let again = store.insert_project(&project(), &[], now()).await;
    assert!(matches!(again, Err(StoreError::Exists { .. })));
    let lost = store.update_project(&stored, 7, &[], &[], now()).await;
    assert!(matches!(lost, Err(StoreError::Conflict)));
    let filter = ProjectFilter { owner: Some("bob@example.com".to_owned()), ..ProjectFilter::default() };
    assert_eq!(store.projects(&filter, None, 10).await.unwrap().len(), 1);
    assert_eq!(store.projects(&filter, Some(&group()), 10).await.unwrap().len(), 0);
}

async fn a_group_of_events_keeps_each_once_and_settles_what_waits(store: &Store) {
    let event = |number: usize| NewEvent {
        source: "grid".to_owned(),
        event_id: format!("event-{number}\0"),
        kind: "test".to_owned(),
        body: "not a hint".to_owned(),
    };
    store.insert_events(vec![event(5)], now()).await.unwrap();
    // More than one statement holds, one of them known already, one twice.
    let many: Vec<_> = (0..300).map(event).chain([event(7)]).collect();
    let new = store.insert_events(many, now()).await.unwrap();
    let again: Vec<_> = new.iter().enumerate().filter(|(_, new)| !**new).map(|(number, _)| number).collect();
    assert_eq!((new.len(), again), (301, vec![5, 300]));
    assert_eq!(store.insert_events(Vec::new(), now()).await.unwrap(), Vec::<bool>::new());
    // None of them can be read, so each is settled with that.
    let later = now() + Duration::from_secs(60);
    assert_eq!(store.claim_events(now(), later, 1000).await.unwrap().len(), 0);
    let outcome = store.event_outcome("grid", "event-299\u{fffd}").await.unwrap().unwrap();
    assert!(outcome.outcome.unwrap().contains("cannot be read") && outcome.handled_at.is_some());
    assert_eq!(store.next_event().await.unwrap(), None);
}

async fn waiting_events_are_settled_and_others_left(store: &Store) {
    let hint = serde_json::from_value(serde_json::json!({
        "kind": "test", "subject": { "is": "project", "group": group() }, "meaning": { "is": "look" }
    }));
    let hint = hint.unwrap();
    let events = (0..150).map(|number| NewEvent::new("grid", &number.to_string(), &hint).unwrap()).collect();
    store.insert_events(events, now()).await.unwrap();
    let later = now() + Duration::from_secs(60);
    let ids: Vec<_> =
        store.claim_events(now(), later, 150).await.unwrap().into_iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), 150);
    store.events_handled(&ids[..140], "done", now()).await.unwrap();
    // What is settled stays so.
    store.events_put_off(&ids[130..], "busy", later).await.unwrap();
    assert_eq!(store.next_event().await.unwrap(), Some(later));
    let left: Vec<_> = store.claim_events(later, later, 150).await.unwrap();
    let left: Vec<_> = left.into_iter().map(|event| event.id).collect();
    assert_eq!(left.len(), 10);
    assert!(left.iter().all(|id| ids[140..].contains(id)));
}

async fn audit_rows_of_one_write_are_one_chain(store: &Store) {
    let rows: Vec<_> = (0..40).map(|number| audit(&format!("test.{number}"))).collect();
    store.append(&rows, now()).await.unwrap();
    store.append(&rows[..1], now()).await.unwrap();
    assert_eq!(store.verify_audit().await.unwrap().intact().unwrap().rows, 42);
    let stored = store.audit(None, 100).await.unwrap();
    let actions: Vec<_> = stored.iter().rev().skip(1).take(40).map(|row| row.action.clone()).collect();
    assert_eq!(actions, rows.into_iter().map(|row| row.action).collect::<Vec<_>>());
}

async fn one_open_rotation_for_a_project(store: &Store) {
    let open = approved(store).await;
    let second = store.insert_rotation(proposed(&row(), Vec::new())).await;
    assert!(matches!(second, Err(StoreError::OpenRotationExists { id }) if id == open.rotation.id));
    let shown = store.project(&group()).await.unwrap().unwrap().open_rotation.unwrap();
    assert_eq!((shown.id, shown.state), (open.rotation.id, State::Approved));
}

async fn of_many_claimers_one_wins(store: &Store) {
    approved(store).await;
    let claims = (0..16).map(|_| store.claim(now(), 4, Duration::from_secs(60)));
    let won: usize =
        futures_util::future::join_all(claims).await.into_iter().map(|rows| rows.unwrap().len()).sum();
    assert_eq!(won, 1);
}

async fn a_claim_that_ran_out_writes_nothing(store: &Store) {
    approved(store).await;
    let first = store.claim(now(), 1, Duration::ZERO).await.unwrap().remove(0);
    let second = store.claim(now(), 1, Duration::from_secs(60)).await.unwrap().remove(0);
    assert_ne!(first.lease, second.lease);
    let before = store.audit(None, 100).await.unwrap().len();
    let late = store.commit(write(&first, &first.rotation, None)).await;
    assert!(matches!(late, Err(StoreError::Conflict)));
    assert_eq!(store.audit(None, 100).await.unwrap().len(), before);
    store.commit(write(&second, &second.rotation, Some(now() + Duration::from_secs(60)))).await.unwrap();
}

async fn equal_looks_are_one_row(store: &Store) {
    let mut row = approved(store).await;
    for _ in 0..5 {
        let version = store.commit(write(&row, &row.rotation.clone(), None)).await.unwrap();
        row.version = version;
    }
    let journal = store.journal(row.rotation.id, 0, 100).await.unwrap();
    assert_eq!(journal.iter().map(|it| it.count).collect::<Vec<_>>(), [1, 6]);
}

async fn the_chain_names_what_was_tampered_with(store: &Store) {
    for action in ["a", "b", "c"] {
        store.insert_token(action, action, &[Role::Viewer], &[audit(action)], now()).await.unwrap();
    }
    assert_eq!(store.verify_audit().await.unwrap().intact().unwrap().rows, 4);
    for (spoil, repair, seq) in [
        ("UPDATE audit SET actor = 'eve' WHERE seq = 3", "UPDATE audit SET actor = 'ada' WHERE seq = 3", 3),
        (
            "UPDATE audit SET detail = '{}' WHERE seq = 2",
            "UPDATE audit SET detail = '{\"b\":1,\"a\":2}' WHERE seq = 2",
            2,
        ),
        ("UPDATE audit_head SET seq = 5", "UPDATE audit_head SET seq = 4", 5),
        ("DELETE FROM audit WHERE seq = 4", "SELECT 1", 4),
    ] {
        raw(store, spoil).await;
        let broken = store.verify_audit().await.unwrap().intact().unwrap_err();
        assert_eq!(broken.seq, seq, "{spoil}: {}", broken.why);
        raw(store, repair).await;
    }
}

async fn tokens_are_counted_over_restarts(store: &Store) {
    for _ in 0..10 {
        store.take_token_request("default", now()).await.unwrap().unwrap();
    }
    let until = store.take_token_request("default", now()).await.unwrap().unwrap_err();
    assert_eq!(until, now() + Duration::from_secs(60));
    store.take_token_request("default", until).await.unwrap().unwrap();
    // Connections that are open already, so that the crowd is not served one after the other.
    if let Store::Postgres { write, .. } = store {
        drop(futures_util::future::join_all((0..5).map(|_| write.acquire())).await);
    }
    let crowd = (0..30).map(|_| store.take_token_request("crowd", now()));
    let crowd = futures_util::future::join_all(crowd).await;
    assert_eq!(crowd.iter().filter(|it| matches!(it, Ok(Ok(())))).count(), 10);
    assert_eq!(crowd.iter().filter(|it| it.is_err()).count(), 0);
}

async fn what_atlas_feed_says_is_kept(store: &Store) {
    let event = |id: &str| KeyEvent {
        id: id.to_owned(),
        at: now(),
        provider: Provider::Aws,
        by: Actor::Person("eve@example.com".to_owned()),
    };
    let row = approved(store).await;
    let (id, day) = (row.rotation.id, Duration::from_secs(86_400));
    assert_eq!(store.proof(id).await.unwrap(), None);
    let done = |state| {
        let mut rotation = Rotation { state, ..row.rotation.clone() };
        rotation.patching.patched_at = Some(now());
        rotation
    };
    store.commit(write(&row, &done(State::Completed), None)).await.unwrap();
    let awaited = AwaitedWitness { rotation: id, until: now() + day };
    assert_eq!(store.due_proofs(now(), 10).await.unwrap(), [awaited]);
    store.await_proof(id, now() + Duration::from_secs(60), Some("no\0 answer")).await.unwrap();
    assert_eq!(store.due_proofs(now(), 10).await.unwrap(), []);
    let waiting = store.proof(id).await.unwrap().unwrap();
    assert_eq!(
        (waiting.state, waiting.last_error.as_deref()),
        (ProofState::Awaited, Some("no\u{fffd} answer"))
    );
    let proof = WitnessEvent {
        state: ProofState::Found,
        event: Some(event("a")),
        overwrote: vec![event("b")],
        last_error: None,
    };
    let journal = vec![entry(JournalKind::Overwrote, false)];
    let end = WitnessEnd { proof: proof.clone(), journal, audit: vec![audit("x")], outbox: vec![] };
    let before = store.journal(id, 0, 100).await.unwrap().len();
    assert!(store.settle_proof(id, &end, now()).await.unwrap());
    assert!(!store.settle_proof(id, &end, now()).await.unwrap(), "only one daemon writes it");
    assert_eq!(store.proof(id).await.unwrap(), Some(proof));
    assert_eq!(store.journal(id, 0, 100).await.unwrap().len(), before + 1);
    assert_eq!(store.due_proofs(now() + day, 10).await.unwrap(), []);

    // A key that is back: the project keeps its first day, the ledger both times.
    assert_eq!(store.last_drift(&group()).await.unwrap(), None);
    let mut moved = store.project(&group()).await.unwrap().unwrap();
    moved.current_key = Some(key('2'));
    let version = store.update_project(&moved, moved.version, &[], &[], now() + day).await.unwrap();
    moved.current_key = Some(key('1'));
    let drift = Drift {
        finding: Drifted {
            group_id: group(),
            project_name: "p".to_owned(),
            from: Some((&key('2')).into()),
            to: Some((&key('1')).into()),
            kind: DriftKind::Reverted,
            by: Some("eve".to_owned()),
            atlas_event_id: None,
            atlas_event_at: Some(now()),
            served_until: Some(now() + day),
            undone_rotation: Some(id),
            undone_key: None,
            sentences: vec!["It is a revert.".to_owned()],
            terraform: None,
            condition_id: None,
        },
        since: (now() + day + day, SinceSource::AtlasEvent),
    };
    store.drift_project(&moved, version, Some(&drift), (&[], &[]), now() + day + day).await.unwrap();
    assert_eq!(store.last_drift(&group()).await.unwrap(), Some(drift.finding.clone()));
    let spans = store.keys(&group()).await.unwrap();
    let spans: Vec<_> =
        spans.iter().map(|it| (it.key.clone(), it.since, it.until.is_none(), it.source.as_str())).collect();
    let (one, two) = (key('1').to_string(), key('2').to_string());
    assert_eq!(
        spans,
        [
            (one.clone(), now(), false, "operator"),
            (two, now(), false, "operator"),
            (one, now() + day + day, true, "atlas_event")
        ]
    );
    let stale = store.drift_project(&moved, version, Some(&drift), (&[], &[]), now()).await;
    assert!(matches!(stale, Err(StoreError::Conflict)));
}

async fn an_observation_without_news_collides_with_nobody(store: &Store) {
    let minute = Duration::from_secs(60);
    let row = approved(store).await;
    let read = store.project(&group()).await.unwrap().unwrap();
    // A sweep, and a rotation's step, that see what is recorded already.
    let (at, next) = (Some(now() + minute), now() + minute + minute);
    assert!(store.project_checked(&group(), read.version, at, next).await.unwrap());
    let seen = ProjectWrite { group_id: group(), valid: read.valid, checked_at: at, key_change: None };
    let mut step = write(&row, &row.rotation, None);
    step.project = Some(seen.clone());
    let version = store.commit(step).await.unwrap();
    let checked = store.project(&group()).await.unwrap().unwrap();
    assert_eq!((checked.version, checked.last_checked_at, checked.next_check_at), (read.version, at, next));
    // A person has read the project before, and edits it now.
    let edited = Project { name: "edited".to_owned(), ..read.clone() };
    let written = store.update_project(&edited, read.version, &[audit("project.edited")], &[], now()).await;
    assert_eq!(written.unwrap(), read.version + 1);
    let edited = store.project(&group()).await.unwrap().unwrap();
    assert_eq!((edited.name.as_str(), edited.last_checked_at), ("edited", at), "the instant stays true");
    assert!(
        !store.project_checked(&group(), read.version, at, next).await.unwrap(),
        "the edit is read first"
    );
    // News is another version.
    let row = RotationRow { version, ..row };
    let mut step = write(&row, &row.rotation, None);
    step.project = Some(ProjectWrite { valid: Some(false), ..seen });
    store.commit(step).await.unwrap();
    assert_eq!(store.project(&group()).await.unwrap().unwrap().version, edited.version + 1);
}

async fn the_due_list_is_in_the_order_of_the_due_dates(store: &Store) {
    let day = |days: u64| Duration::from_secs(days * 86_400);
    let defaults = Rules::default().policy;
    let id = |number: u64| format!("{number:024x}").parse::<GroupId>().unwrap();
    let own = |interval: &str| {
        Some(PolicyOverride { interval: Some(interval.parse().unwrap()), ..PolicyOverride::default() })
    };
    let other = Some(PolicyOverride { approvals: Some(2), ..PolicyOverride::default() });
    let azure = |text: &str| {
        KeyRef::observed(Provider::Azure, &format!("https://kw-demo.vault.azure.net/keys/{text}"))
    };
    let mut all = Vec::new();
    for (number, served, policy, key) in [
        (1, Some(95), None, key('1')),
        (2, Some(60), own("1w"), key('2')),
        (3, Some(10), own("36h30m"), key('3')),
        (4, Some(85), other, key('4')),
        (5, Some(500), own("365d"), azure("name")),
        (6, Some(40), own("45d"), azure("name/0123456789abcdef0123456789abcdef")),
        (7, None, None, key('7')),
        (8, Some(20), None, key('8')),
    ] {
        let it = Project {
            group_id: id(number),
            provider: Some(key.provider()),
            current_key: Some(key),
            key_since: served.map(|days| now() - day(days)),
            policy,
            owners: if number == 8 { Vec::new() } else { project().owners },
            ..project()
        };
        store.insert_project(&it, &[], now()).await.unwrap();
        all.push(it);
    }
    // Its key ends before its cryptoperiod does.
    store.record_key_end(&id(8), &key('8'), Some(now() + day(9)), now()).await.unwrap();
    let list = async |filter: &DueFilter, skip, limit| {
        store.due_list(filter, defaults.interval, skip, limit).await.unwrap()
    };
    let page = list(&DueFilter::default(), 0, 100).await;
    let dues: Vec<_> = page.projects.iter().map(|it| it.due(&defaults)).collect();
    let mut sorted = dues.clone();
    sorted.sort_by_key(|due| due.map_or(i64::MAX, Timestamp::as_micros));
    assert_eq!((page.total, page.projects.len()), (8, 8));
    assert_eq!(dues, sorted);
    assert!(dues[6..].iter().all(Option::is_none), "{dues:?}");
    let second = list(&DueFilter::default(), 3, 2).await;
    assert_eq!((second.total, &second.projects[..]), (8, &page.projects[3..5]));
    for days in [0, 3, 7, 30] {
        let filter = DueFilter { until: Some(now() + day(days)), ..DueFilter::default() };
        let expected = dues.iter().flatten().filter(|due| **due <= now() + day(days)).count();
        assert_eq!(list(&filter, 0, 100).await.total, u64::try_from(expected).unwrap(), "{days}");
    }
    let filter =
        DueFilter { words: "bob@".to_owned(), provider: Some(Provider::Azure), ..DueFilter::default() };
    assert_eq!(list(&filter, 0, 100).await.total, 2);
    let counts = store.fleet_counts(defaults.interval, now()).await.unwrap();
    let soon = dues.iter().flatten().filter(|due| **due > now() && **due <= now() + day(30)).count();
    assert_eq!((counts.projects, counts.overdue, counts.without_owner), (8, 3, 1));
    assert_eq!(
        (counts.in_30, counts.in_30_idle),
        (i64::try_from(soon).unwrap(), i64::try_from(soon).unwrap())
    );
    // A row that cannot be read hides no other.
    raw(store, "UPDATE projects SET policy = '{\"interval\":\"x' WHERE provider = 'AZURE'").await;
    assert_eq!(list(&DueFilter::default(), 0, 100).await.projects.len(), 6);
}

async fn the_audit_log_is_searched_in_shares(store: &Store) {
    let row =
        |number: u32| NewAudit { subject: format!("project/{number}"), ..audit(&format!("test.{number}")) };
    let rows: Vec<_> = (0..30).map(row).collect();
    store.append(&rows, now()).await.unwrap();
    let found = async |filter: AuditFilter, before: i64| {
        store
            .search_audit(&filter, before, 100)
            .await
            .unwrap()
            .into_iter()
            .flatten()
            .map(|it| it.action)
            .collect::<Vec<_>>()
    };
    let words = AuditFilter { words: "PROJECT/7".to_owned(), ..AuditFilter::default() };
    assert_eq!(found(words, i64::MAX / 2).await, Vec::<String>::new(), "a share is searched, not all of it");
    let words = AuditFilter { words: "PROJECT/7".to_owned(), ..AuditFilter::default() };
    assert_eq!(found(words, 1000).await, ["test.7"]);
    let action =
        AuditFilter { action: "test.2".to_owned(), actor: "ada".to_owned(), ..AuditFilter::default() };
    assert_eq!(found(action, 1000).await.len(), 11);
    let later = AuditFilter { from: Some(now() + Duration::from_secs(1)), ..AuditFilter::default() };
    assert!(!found(later, 1000).await.iter().any(|it| it.starts_with("test.")));
    let until = AuditFilter { until: Some(now()), action: "test.".to_owned(), ..AuditFilter::default() };
    assert_eq!(found(until, 1000).await, Vec::<String>::new());
}

async fn raw(store: &Store, text: &str) {
    let text = AssertSqlSafe(text.to_owned());
    match store {
        Store::Sqlite { write, .. } => drop(write.execute(sqlx::raw_sql(text)).await.unwrap()),
        Store::Postgres { write, .. } => drop(write.execute(sqlx::raw_sql(text)).await.unwrap()),
    }
}

macro_rules! contract {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test] async fn $name() { super::$name(&super::TestDb::new(super::Backend::Sqlite).await.store).await; })+
        }
        mod postgres {
            $(#[tokio::test] async fn $name() { super::$name(&super::TestDb::new(super::Backend::Postgres).await.store).await; })+
        }
    };
}

contract!(
    projects_read_back_as_written,
    a_group_of_events_keeps_each_once_and_settles_what_waits,
    waiting_events_are_settled_and_others_left,
    audit_rows_of_one_write_are_one_chain,
    one_open_rotation_for_a_project,
    of_many_claimers_one_wins,
    a_claim_that_ran_out_writes_nothing,
    equal_looks_are_one_row,
    the_chain_names_what_was_tampered_with,
    tokens_are_counted_over_restarts,
    what_atlas_feed_says_is_kept,
    an_observation_without_news_collides_with_nobody,
    the_due_list_is_in_the_order_of_the_due_dates,
    the_audit_log_is_searched_in_shares,
);

#[test]
#[expect(clippy::print_stdout, reason = "the numbers are for the reader of a run")]
fn as_many_contract_tests_run_on_each_database() {
    // What this very program would run, not what the macro above was meant to make.
    let listed = std::process::Command::new(std::env::current_exe().unwrap()).arg("--list").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let of = |backend: &str| -> Vec<&str> {
        let prefix = format!("store::{backend}::");
        let mut names: Vec<&str> =
            listed.lines().filter_map(|line| line.strip_prefix(prefix.as_str())).collect();
        names.sort_unstable();
        names
    };
    let (lite, postgres) = (of("sqlite"), of("postgres"));
    println!("contract tests: {} on SQLite, {} on PostgreSQL", lite.len(), postgres.len());
    assert!(lite.len() >= 7, "{listed}");
    assert_eq!(lite, postgres);
}

#[tokio::test]
async fn every_statement_prepares_on_both_databases() {
    let (lite, postgres) = (TestDb::new(Backend::Sqlite).await, TestDb::new(Backend::Postgres).await);
    let (Store::Sqlite { write, .. }, Store::Postgres { write: pool, .. }) = (&lite.store, &postgres.store)
    else {
        unreachable!()
    };
    let all = statements();
    assert!(all.len() > 30);
    for sql in all {
        let one = write
            .prepare(sql.sqlite.into_sql_str())
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", sql.sqlite));
        let two = pool
            .prepare(sql.postgres.into_sql_str())
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", sql.postgres));
        assert_eq!(one.columns().len(), two.columns().len(), "{}", sql.sqlite);
        let parameters = sql
            .sqlite
            .split('$')
            .skip(1)
            .filter_map(|it| it.split(|c: char| !c.is_ascii_digit()).next()?.parse::<usize>().ok())
            .max()
            .unwrap_or(0);
        let known = two.parameters().and_then(sqlx::Either::left).map_or(0, <[_]>::len);
        assert_eq!(parameters, known, "{}", sql.postgres);
    }
}

#[tokio::test]
async fn both_schemas_have_the_same_columns() {
    let (lite, postgres) = (TestDb::new(Backend::Sqlite).await, TestDb::new(Backend::Postgres).await);
    let (Store::Sqlite { write, .. }, Store::Postgres { write: pool, .. }) = (&lite.store, &postgres.store)
    else {
        unreachable!()
    };
    let one = sqlx::query(
        "SELECT m.name || '.' || c.name AS it FROM sqlite_master m JOIN pragma_table_info(m.name) c \
         WHERE m.type = 'table' AND m.name NOT LIKE '\\_sqlx%' ESCAPE '\\' AND m.name NOT LIKE 'sqlite%' ORDER BY 1",
    );
    let two = sqlx::query(
        "SELECT table_name || '.' || column_name AS it FROM information_schema.columns \
         WHERE table_schema = 'public' AND table_name NOT LIKE '\\_sqlx%' ORDER BY 1",
    );
    let mut left: Vec<String> = one.fetch_all(write).await.unwrap().iter().map(|row| row.get("it")).collect();
    let mut right: Vec<String> = two.fetch_all(pool).await.unwrap().iter().map(|row| row.get("it")).collect();
    left.sort();
    right.sort();
    assert!(left.len() > 80);
    assert_eq!(left, right);
    let mut tables: Vec<&str> = left.iter().filter_map(|it| it.split('.').next()).collect();
    tables.dedup();
    assert_eq!(tables, TABLES, "what a foreign database is told by");
}

#[tokio::test]
async fn a_newer_database_is_refused_and_left_alone() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let db = TestDb::new(backend).await;
        raw(
            &db.store,
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             SELECT 9999, 'later', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
        )
        .await;
        assert!(matches!(
            db.store.check_schema().await,
            Err(StoreError::NewerSchema { found: 9999, known }) if known == known_version()
        ));
        assert!(
            matches!(db.store.migrate().await, Err(StoreError::NewerSchema { found: 9999, .. })),
            "{}",
            db.url
        );
    }
}

/// A crowd of probes waits for a row that somebody else holds; a step does not need it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_lane_takes_the_connections_that_a_step_needs() {
    let db = TestDb::new(Backend::Postgres).await;
    let Store::Postgres { write, read, .. } = &db.store else { unreachable!() };
    approved(&db.store).await;
    db.store.check_writable(now()).await.unwrap();
    let mut holder = write.acquire().await.unwrap().detach();
    holder.execute("BEGIN; UPDATE meta SET value = value WHERE name = 'ready'").await.unwrap();
    let crowd: Vec<_> = (0..40)
        .map(|_| {
            let store = db.store.clone();
            crate::support::wait::spawn(async move { store.check_writable(now()).await.is_ok() })
        })
        .collect();
    let waiting = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    let mut most = 0;
    for _ in 0..20 {
        let (count,): (i64,) = sqlx::query_as(waiting).fetch_one(read).await.unwrap();
        most = most.max(count);
        crate::support::wait::pause(Duration::from_millis(50)).await;
    }
    assert_eq!(most, 3, "the share of everything else");
    let claim = db.store.claim(now(), 1, Duration::from_secs(60));
    let claimed = tokio::time::timeout(Duration::from_secs(3), claim).await;
    assert_eq!(claimed.expect("it waited for the crowd").unwrap().len(), 1);
    for one in &crowd {
        one.abort();
    }
}

#[tokio::test]
async fn a_second_daemon_on_one_file_is_told_the_first_ones_pid() {
    let db = TestDb::new(Backend::Sqlite).await;
    let here = std::path::Path::new("");
    let first = Store::open(&db.url, here, Access::Daemon).await.unwrap();
    let second = Store::open(&db.url, here, Access::Daemon).await.unwrap_err();
    assert!(second.to_string().contains(&format!("pid {}", std::process::id())), "{second}");
    drop(first);
    Store::open(&db.url, here, Access::Daemon).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_writes_nothing_and_says_so() {
    let db = TestDb::new(Backend::Sqlite).await;
    let row = approved(&db.store).await;
    let before = db.store.audit(None, 1000).await.unwrap().len();
    let Store::Sqlite { write: pool, .. } = &db.store else { unreachable!() };
    let (pages,): (i64,) = sqlx::query_as("PRAGMA page_count").fetch_one(pool).await.unwrap();
    raw(&db.store, &format!("PRAGMA max_page_count = {pages}")).await;
    let mut big = write(&row, &row.rotation, None);
    big.audit[0].detail = "x".repeat(200_000);
    assert!(matches!(db.store.commit(big).await, Err(StoreError::Full)));
    assert_eq!(db.store.audit(None, 1000).await.unwrap().len(), before);
    raw(&db.store, "PRAGMA max_page_count = 1000000").await;
    db.store.commit(write(&row, &row.rotation, None)).await.unwrap();
    assert!(db.folder.path().exists());
}

#[tokio::test]
async fn a_commit_on_sqlite_is_on_the_disk() {
    let db = TestDb::new(Backend::Sqlite).await;
    let Store::Sqlite { write, .. } = &db.store else { unreachable!() };
    let (synchronous,): (i64,) = sqlx::query_as("PRAGMA synchronous").fetch_one(write).await.unwrap();
    let (journal,): (String,) = sqlx::query_as("PRAGMA journal_mode").fetch_one(write).await.unwrap();
    // 2 is FULL: the log is synced at each commit, not only at checkpoints.
    assert_eq!((synchronous, journal.as_str()), (2, "wal"));
    // What a machine finds that lost its power now: the files as they are, with nothing closed.
    approved(&db.store).await;
    let folder = tempfile::tempdir().unwrap();
    for name in ["kw.db", "kw.db-wal"] {
        std::fs::copy(db.folder.path().join(name), folder.path().join(name)).unwrap();
    }
    let found = Store::open("sqlite:kw.db", folder.path(), Access::Beside).await.unwrap();
    unlock(&found).await;
    assert_eq!(found.rotations(None, None, None, 10).await.unwrap().len(), 1);
    assert!(found.verify_audit().await.unwrap().intact().is_ok());
}

/// A refusal is known by its code: the server's language is a setting.
#[tokio::test]
async fn what_postgresql_refuses_is_read_from_its_code_and_not_from_its_words() {
    let db = TestDb::new(Backend::Postgres).await;
    for (code, words, refused) in [
        ("42501", "keine Berechtigung f\u{fc}r Tabelle audit", true),
        ("P0001", "permission denied for table audit", false),
    ] {
        let Store::Postgres { write, .. } = &db.store else { unreachable!() };
        let refuse = format!(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION '{words}' \
             USING ERRCODE = '{code}'; END $$ LANGUAGE plpgsql; \
             DROP TRIGGER IF EXISTS refuse ON audit; CREATE TRIGGER refuse BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION refuse()"
        );
        write.execute(sqlx::raw_sql(AssertSqlSafe(refuse))).await.unwrap();
        let error = db.store.append(&[audit("x")], now()).await.unwrap_err();
        assert_eq!(matches!(error, StoreError::ReadOnly(_)), refused, "{code}: {error}");
    }
}

/// On a full disk the reserve makes room for rotations and pages, and for nothing else until it is back.
#[tokio::test]
async fn a_full_disk_gives_up_the_reserve_for_what_cannot_wait() {
    let mut db = TestDb::new(Backend::Sqlite).await;
    let row = approved(&db.store).await;
    db.store.close().await;
    db.store = Store::open(&db.url, std::path::Path::new(""), Access::Daemon).await.unwrap();
    unlock(&db.store).await;
    let file = std::path::PathBuf::from(db.url.strip_prefix("sqlite:").unwrap()).with_file_name("reserve");
    db.store.make_reserve().unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 16 * 1024 * 1024);
    let Store::Sqlite { write: pool, .. } = &db.store else { unreachable!() };
    let (pages,): (i64,) = sqlx::query_as("PRAGMA page_count").fetch_one(pool).await.unwrap();
    raw(&db.store, &format!("PRAGMA max_page_count = {pages}")).await;
    let mut big = write(&row, &row.rotation, None);
    big.audit[0].detail = "x".repeat(200_000);
    // The limit is that of a connection, and the next attempt has a new one: as if the reserve had made room.
    db.store.commit(big).await.unwrap();
    assert!(db.store.is_short_of_room() && !file.exists());
    // The room of the reserve is for what cannot wait.
    db.store.look_soon(&[group()], now()).await.unwrap();
    let event = NewEvent {
        source: "s".to_owned(),
        event_id: "1".to_owned(),
        kind: "k".to_owned(),
        body: "{}".to_owned(),
    };
    assert!(matches!(db.store.insert_events(vec![event.clone()], now()).await, Err(StoreError::Full)));
    assert!(matches!(db.store.append(&[], now()).await, Err(StoreError::Full)));
    db.store.make_reserve().unwrap();
    assert!(!db.store.is_short_of_room() && file.exists());
    db.store.insert_events(vec![event], now()).await.unwrap();
}
