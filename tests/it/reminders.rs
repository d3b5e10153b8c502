//! Reminders in simulated time: which are due, that each is given once, and a year of a fleet beside
//! another computation of what its owners should have heard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use keywheel::domain::ids::GroupId;
use keywheel::domain::key::{KeyRef, Place, Provider};
use keywheel::domain::project::{Project, SinceSource};
use keywheel::domain::rotation::outcome::Observation;
use keywheel::domain::time::{Clock, ManualClock, Timestamp};
use keywheel::engine::command::ProjectEdit;
use keywheel::engine::{Engine, remind};
use keywheel::sim::{Sim, World};
use keywheel::store::OutboxRow;

use crate::support::db::{Backend, TestDb};
use crate::support::process::Dice;
use crate::support::{engine_at, letter};

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3600);

struct Fleet {
    engine: Engine,
    clock: ManualClock,
    _db: TestDb,
    sim: Sim,
}

fn group(number: u64) -> GroupId {
    format!("{number:024x}").parse().unwrap()
}

impl Fleet {
    async fn on(backend: Backend) -> Self {
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sim = Sim::start(listener, World::demo(), Arc::new(clock.clone())).unwrap();
        let db = TestDb::new(backend).await;
        let engine = engine_at(&sim, db.store.clone(), Arc::new(clock.clone()));
        Self { engine, clock, _db: db, sim }
    }

    /// Tracks a project whose key has served for `age`.
    async fn track(&self, number: u64, age: Duration, owners: &[String]) {
        let now = self.clock.now();
        let key = KeyRef::parse(Provider::Aws, &format!("{number:08x}-aaaa-4aaa-8aaa-000000000001")).unwrap();
        // A date is booked on the key that Atlas holds.
        self.sim.with(|world| {
            let mut like = world.projects[&crate::support::group(1)].clone();
            like.block.insert("customerMasterKeyID".to_owned(), key.to_string().into());
            world.projects.insert(group(number).to_string(), like);
        });
        let project = Project {
            group_id: group(number),
            name: format!("project-{number}"),
            provider: Some(Provider::Aws),
            current_key: Some(key),
            place: Place::default(),
            key_since: Some(now - age),
            key_since_source: Some(SinceSource::Operator),
            valid: Some(true),
            private_networking: false,
            owners: owners.to_vec(),
            environment: None,
            credential: "default".to_owned(),
            kms: None,
            alias: None,
            policy: None,
            drift_key: None,
            last_checked_at: None,
            last_error: None,
            next_check_at: now,
            next_reminder_at: Some(now),
            created_at: now,
            open_rotation: None,
            holding: Vec::new(),
            silence: None,
            key_ends_at: None,
            version: 1,
        };
        self.engine.store.insert_project(&project, &[], now).await.unwrap();
    }

    async fn edit(&self, number: u64, edit: ProjectEdit) {
        self.engine.edit_project("ada", &group(number), edit).await.unwrap();
    }

    async fn pass(&self, span: Duration) -> usize {
        self.clock.advance(span);
        remind::once(&self.engine).await.unwrap()
    }

    /// All mails, the oldest first.
    async fn mails(&self) -> Vec<OutboxRow> {
        let mut all = Vec::new();
        let mut before = None;
        loop {
            let page = self.engine.store.outbox(before, 500).await.unwrap();
            before = page.last().map(|row| row.id);
            let last = page.len() < 500;
            all.extend(page);
            if last {
                break;
            }
        }
        all.reverse();
        all
    }

    async fn subjects(&self) -> Vec<String> {
        let mails = self.mails().await.into_iter();
        mails.map(|mail| letter(&mail).subject).collect()
    }
}

fn one(owner: &str) -> Vec<String> {
    vec![owner.to_owned()]
}

#[tokio::test]
async fn each_threshold_is_mailed_once_and_the_last_repeats() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let fleet = Fleet::on(backend).await;
        fleet.track(1, DAY * 50, &one("ada@example.com")).await;
        for _ in 0..62 * 4 {
            fleet.pass(HOUR * 6).await;
        }
        let left = ["in 30 days", "in 14 days", "in 7 days", "in 3 days", "in 1 day", "today"];
        let over = ["1 day", "3 days", "7 days", "14 days", "21 days"];
        let expected: Vec<_> = (left.iter().map(|it| format!("project-1: encryption key due {it}")))
            .chain(over.iter().map(|it| format!("project-1: encryption key {it} overdue")))
            .collect();
        assert_eq!(fleet.subjects().await, expected, "{backend:?}");
    }
}

#[tokio::test]
async fn after_a_long_sleep_the_latest_is_mailed_and_the_others_are_passed_over() {
    let fleet = Fleet::on(Backend::Sqlite).await;
    fleet.track(1, DAY * 95, &one("ada@example.com")).await;
    assert_eq!(fleet.pass(Duration::ZERO).await, 1);
    assert_eq!(fleet.subjects().await, ["project-1: encryption key 5 days overdue"]);
    let key_since: Timestamp = "2025-09-28T00:00:00Z".parse().unwrap();
    let given = fleet.engine.store.reminders(&group(1), &key_since.to_string()).await.unwrap();
    let days: BTreeSet<i32> = given.iter().map(|(days, _)| *days).collect();
    assert_eq!(days, [-30, -14, -7, -3, -1, 0, 1, 3].into());
    assert_eq!(fleet.pass(Duration::ZERO).await, 0);
    // A key that serves anew begins anew.
    let since = Some(fleet.clock.now());
    fleet.edit(1, ProjectEdit { key_since: since, ..ProjectEdit::default() }).await;
    assert_eq!(fleet.pass(DAY * 59).await, 0);
    assert_eq!(fleet.pass(DAY).await, 1);
}

#[tokio::test]
async fn who_becomes_an_owner_hears_of_it_and_who_was_one_hears_it_once() {
    let fleet = Fleet::on(Backend::Sqlite).await;
    fleet.track(1, DAY * 62, &one("ada@example.com")).await;
    assert_eq!(fleet.pass(Duration::ZERO).await, 1);
    let owners = Some(vec!["ada@example.com".to_owned(), "bob@example.com".to_owned()]);
    fleet.edit(1, ProjectEdit { owners, ..ProjectEdit::default() }).await;
    assert_eq!(fleet.pass(HOUR).await, 1);
    let mails = fleet.mails().await;
    assert_eq!(mails[1].recipient, "bob@example.com");
}

#[tokio::test]
async fn an_owner_of_many_keys_gets_one_list_and_of_few_a_mail_for_each() {
    let fleet = Fleet::on(Backend::Sqlite).await;
    for number in 1..=10 {
        let owners =
            [one("many@example.com"), if number <= 3 { one("few@example.com") } else { vec![] }].concat();
        fleet.track(number, DAY * (60 + u32::try_from(number).unwrap() * 3), &owners).await;
    }
    assert_eq!(fleet.pass(Duration::ZERO).await, 4);
    let mails = fleet.mails().await;
    let digest = mails.iter().find(|it| it.recipient == "many@example.com").unwrap();
    let letter = letter(digest);
    assert_eq!(letter.subject, "10 projects need a new encryption key");
    let text = letter.text();
    let order: Vec<_> = (1..=10u64).rev().map(|it| text.find(&group(it).to_string()).unwrap()).collect();
    assert!(order.is_sorted(), "the most urgent first: {text}");
    assert_eq!(mails.iter().filter(|it| it.recipient == "few@example.com").count(), 3);
    assert_eq!(fleet.pass(HOUR).await, 0);
}

#[tokio::test]
async fn nobody_is_reminded_by_a_clock_that_is_wrong() {
    let fleet = Fleet::on(Backend::Sqlite).await;
    fleet.track(1, DAY * 62, &one("ada@example.com")).await;
    let seen = |skew_ms| Observation {
        at: fleet.clock.now(),
        provider: None,
        key: None,
        valid: None,
        private_networking: false,
        place: Place::default(),
        block_hash: String::new(),
        invalid_beside: None,
        skew_ms: Some(skew_ms),
    };
    let _ = fleet.engine.epoch.with_skew(seen(10 * 365 * 86_400_000));
    assert_eq!(fleet.pass(DAY * 3650).await, 0);
    fleet.clock.set("2026-01-01T01:00:00Z".parse().unwrap());
    let _ = fleet.engine.epoch.with_skew(seen(0));
    assert_eq!(fleet.pass(Duration::ZERO).await, 1);
}

/// What was to be heard: project, cycle, days from the due date, and by whom.
type Heard = BTreeSet<(u64, String, i64, String)>;

/// Another computation: for each cycle each threshold's day, the first waking hour after it, and
/// whether a later threshold was over by then.
fn expected(cycles: &[(u64, Timestamp, Timestamp)], owners: &[Vec<String>], awake: &[Timestamp]) -> Heard {
    let mut heard = Heard::new();
    for (number, since, end) in cycles {
        let offsets = [-30i64, -14, -7, -3, -1, 0, 1, 3].into_iter().chain((1..80).map(|week| week * 7));
        let instants: Vec<_> =
            offsets.map(|days| (days, *since + DAY * u32::try_from(90 + days).unwrap())).collect();
        for (index, (days, at)) in instants.iter().enumerate() {
            let Some(woken) = awake.iter().find(|it| *it >= at).filter(|it| *it < end) else { continue };
            if instants.get(index + 1).is_some_and(|(_, later)| later <= woken) {
                continue;
            }
            for owner in &owners[usize::try_from(*number).unwrap()] {
                heard.insert((*number, since.to_string(), *days, owner.clone()));
            }
        }
    }
    heard
}

#[expect(clippy::print_stdout, reason = "how much a year was is for the reader of a run")]
#[tokio::test]
async fn a_year_of_three_hundred_projects_is_heard_of_once_each() {
    const PROJECTS: u64 = 300;
    let mut dice = Dice::new();
    let fleet = Fleet::on(Backend::Sqlite).await;
    let keywheel::store::Store::Sqlite { write, .. } = &fleet.engine.store else { unreachable!() };
    sqlx::query("PRAGMA synchronous = OFF").execute(write).await.unwrap();
    let start = fleet.clock.now();
    let mut owners = Vec::new();
    let mut since = Vec::new();
    for number in 0..PROJECTS {
        let people: BTreeSet<_> =
            (0..=dice.roll(2)).map(|_| format!("p{}@example.com", dice.roll(40))).collect();
        let people: Vec<_> = people.into_iter().collect();
        let age = HOUR * u32::try_from(dice.roll(130 * 24)).unwrap();
        fleet.track(number, age, &people).await;
        owners.push(people);
        since.push(start - age);
    }
    let (mut awake, mut cycles) = (Vec::new(), Vec::new());
    let end = start + DAY * 365;
    while fleet.clock.now() < end {
        let now = fleet.clock.now();
        // Some keys are rotated, on any day of their life.
        for number in 0..PROJECTS {
            let index = usize::try_from(number).unwrap();
            if dice.roll(4 * 85) == 0 {
                cycles.push((number, since[index], now));
                since[index] = now;
                fleet.edit(number, ProjectEdit { key_since: Some(now), ..ProjectEdit::default() }).await;
            }
        }
        awake.push(now);
        remind::once(&fleet.engine).await.unwrap();
        // Every six hours, but now and then it is down for days.
        let hours = if dice.roll(40) == 0 { 24 + dice.roll(9 * 24) } else { 6 };
        fleet.clock.advance(HOUR * u32::try_from(hours).unwrap());
    }
    cycles.extend((0..PROJECTS).zip(&since).map(|(number, since)| (number, *since, end + DAY)));
    let expected = expected(&cycles, &owners, &awake);
    let mut heard: BTreeMap<(u64, String, i64, String), u32> = BTreeMap::new();
    let mails = fleet.mails().await;
    for mail in &mails {
        let single = [mail.model.clone()];
        let items = mail.model["items"].as_array().map_or(&single[..], Vec::as_slice);
        for item in items {
            let number = u64::from_str_radix(item["groupId"].as_str().unwrap(), 16).unwrap();
            let since: Timestamp = item["keySince"].as_str().unwrap().parse().unwrap();
            let written = mail.created_at;
            // The threshold that was the latest when this was written.
            let age = written.since(since).as_secs() / DAY.as_secs();
            let days = i64::try_from(age).unwrap() - 90;
            let threshold = if days < 7 {
                *[-30, -14, -7, -3, -1, 0, 1, 3].iter().rev().find(|it| **it <= days).unwrap()
            } else {
                days / 7 * 7
            };
            *heard.entry((number, since.to_string(), threshold, mail.recipient.clone())).or_default() += 1;
        }
    }
    println!("{} reminders in {} mails", heard.len(), mails.len());
    let twice: Vec<_> = heard.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "heard more than once: {twice:?}");
    let heard: Heard = heard.into_keys().collect();
    let missing: Vec<_> = expected.difference(&heard).take(5).collect();
    let surplus: Vec<_> = heard.difference(&expected).take(5).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "not heard: {missing:?}; for nothing: {surplus:?}");
    assert!(heard.len() > 5000, "{}", heard.len());
}
