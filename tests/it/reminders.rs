//! Reminders in simulated time: which are due, that each is given once, and a year of a fleet beside
//! another computation of what its owners should have heard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use keywheel::domain::condition::Daily;
use keywheel::domain::day::Planned;
use keywheel::domain::ids::GroupId;
use keywheel::domain::key::{KeyRef, Place, Provider};
use keywheel::domain::patch::Patch;
use keywheel::domain::project::{PolicyEdit, Project, SinceSource};
use keywheel::domain::rotation::outcome::Observation;
use keywheel::domain::time::{Clock, ManualClock, Span, Timestamp};
use keywheel::engine::command::ProjectEdit;
use keywheel::engine::propose::NewProposal;
use keywheel::engine::{Engine, Settings, remind};
use keywheel::mail::Calendar;
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
            due_ack: None,
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
        // The date of a subject follows from the days.
        let days = |subject: String| {
            let end = subject.find(", on ").or(subject.find(", since "));
            subject[..end.unwrap_or(subject.len())].to_owned()
        };
        mails.map(|mail| days(letter(&mail).subject)).collect()
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
async fn a_reminder_states_the_age_what_follows_and_who_gets_it() {
    let fleet = Fleet::on(Backend::Sqlite).await;
    let owners = ["ada@example.com".to_owned(), "team@example.com".to_owned()];
    fleet.track(1, DAY * 83, &owners).await;
    fleet.pass(Duration::ZERO).await;
    let mails = fleet.mails().await;
    assert_eq!(mails.len(), 2);
    let letter = letter(&mails[0]);
    assert_eq!(letter.subject, "project-1: encryption key due in 7 days, on Thu 8 Jan");
    let (text, html) = (letter.text(), letter.html().unwrap());
    for said in [
        "Atlas project project-1 (AWS KMS) is to be replaced every 90 days. It has served for 83 days.",
        "83 of 90 days",
        "Next reminders, unless it is rotated: Mon 5 Jan, Wed 7 Jan, Thu 8 Jan. Each goes to ada@example.com, team@example.com.",
        "http://127.0.0.1/projects/000000000000000000000001/propose",
        "keywheel project edit 000000000000000000000001 --owner ADDRESS",
    ] {
        assert!(text.contains(said), "{said}: {text}");
        assert!(html.replace("<strong>", "").replace("</strong>", "").contains(said), "{said}: {html}");
    }
    for cell in [
        "class=\"bar\" style=\"width:66%",
        "class=\"soon\" style=\"width:25%",
        "class=\"left\" style=\"width:9%",
    ] {
        assert!(html.contains(cell), "{cell}: {html}");
    }
}

/// A calendar, unfolded: the values of a property.
fn values(calendar: &Calendar, property: &str) -> Vec<String> {
    let text = calendar.text();
    assert!(text.ends_with("END:VCALENDAR\r\n") && text.lines().all(|line| line.len() <= 75), "{text}");
    let text = text.replace("\r\n ", "");
    let start = format!("{property}:");
    text.lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_calendar_entry_keeps_its_id_and_moves_with_the_date() {
    let fleet = Fleet::on(Backend::Sqlite).await;
    fleet.track(1, DAY * 60, &one("ada@example.com")).await;
    fleet.pass(Duration::ZERO).await;
    let policy = serde_json::json!({ "interval": "80d" });
    fleet
        .edit(1, ProjectEdit { policy: serde_json::from_value(policy).unwrap(), ..ProjectEdit::default() })
        .await;
    fleet.pass(DAY * 7).await;
    let mails = fleet.mails().await;
    let entries: Vec<_> = mails.iter().map(|row| letter(row).calendar.unwrap()).collect();
    let all = |property| entries.iter().flat_map(|it| values(it, property)).collect::<Vec<_>>();
    assert_eq!(all("DTSTART;VALUE=DATE"), ["20260131", "20260121"]);
    assert_eq!(all("METHOD"), ["PUBLISH", "PUBLISH"]);
    let (ids, sequence) = (all("UID"), all("SEQUENCE"));
    assert_eq!(ids[0], ids[1]);
    let number = |at: usize| sequence[at].parse::<i64>().unwrap();
    assert!(number(0) < number(1), "{sequence:?}");
    assert_eq!(all("SUMMARY"), ["project-1: encryption key due", "project-1: encryption key due"]);
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
    assert_eq!(fleet.pass(Duration::ZERO).await, 5);
    let mails = fleet.mails().await;
    let of_many: Vec<_> = mails.iter().filter(|it| it.recipient == "many@example.com").map(letter).collect();
    let mut subjects: Vec<_> = of_many.iter().map(|it| it.subject.as_str()).collect();
    subjects.sort_unstable();
    // What is due today is not one line among others.
    let expected = ["9 projects need a new encryption key", "project-10: encryption key due today"];
    assert_eq!(subjects, expected);
    let letter = of_many.iter().find(|it| it.subject.starts_with('9')).unwrap();
    let text = letter.text();
    let order: Vec<_> = (1..=9u64).rev().map(|it| text.find(&group(it).to_string()).unwrap()).collect();
    assert!(order.is_sorted(), "the most urgent first: {text}");
    assert_eq!(mails.iter().filter(|it| it.recipient == "few@example.com").count(), 3);
    assert_eq!(fleet.pass(HOUR).await, 0);
}

/// Who got a mail since the mail number `from`, in order.
async fn recipients(fleet: &Fleet, from: usize) -> Vec<String> {
    let mut all: Vec<_> = fleet.mails().await.into_iter().skip(from).map(|it| it.recipient).collect();
    all.sort();
    all
}

#[tokio::test]
async fn who_is_named_for_keys_that_stay_overdue_gets_a_copy_and_is_told_why() {
    let fleet = Fleet::on(Backend::Sqlite).await;
    fleet.track(1, DAY * 89 + HOUR, &one("ada@example.com")).await;
    let steps = serde_json::json!([
        { "after": "1d", "to": ["team@example.com", "ADA@example.com"] },
        { "after": "2d", "to": ["security@example.com", "team@example.com"] },
    ]);
    let escalate = Patch::Value(serde_json::from_value(steps).unwrap());
    let policy = PolicyEdit { escalate, ..PolicyEdit::default() };
    fleet.edit(1, ProjectEdit { policy, ..ProjectEdit::default() }).await;
    fleet.pass(Duration::ZERO).await;
    let mut seen = fleet.mails().await.len();
    let mut by_day = Vec::new();
    for _ in 0..8 {
        fleet.pass(DAY).await;
        by_day.push(recipients(&fleet, seen).await.join(" ").replace("@example.com", ""));
        seen = fleet.mails().await.len();
    }
    // Due, a day over, two (a step and no reminder of the owner), three, and a week.
    let all = "ada security team";
    assert_eq!(by_day, ["ada", "ada team", "security", all, "", "", "", all]);
    let mails = fleet.mails().await;
    let first = |who: &str| letter(mails.iter().find(|it| it.recipient.starts_with(who)).unwrap()).text();
    let why = "You get a copy because the key was not replaced 2 days after its due date";
    assert!(
        first("security").contains(why) && first("security").contains("ada@example.com"),
        "{}",
        first("security")
    );
    assert!(!first("ada").contains("You get a copy"), "{}", first("ada"));
}

#[tokio::test]
async fn an_acknowledged_due_date_reminds_nobody_until_the_planned_day() {
    let fleet = Fleet::on(Backend::Sqlite).await;
    fleet.track(1, DAY * 80, &one("ada@example.com")).await;
    assert_eq!(fleet.pass(Duration::ZERO).await, 1);
    let now = fleet.clock.now();
    let ack =
        async |at: Timestamp| fleet.engine.acknowledge_due("ada", &group(1), Planned::At(at), None).await;
    for (at, why) in [(now, "has begun already"), (now + DAY * 18, "is too late")] {
        let refused = ack(at).await.unwrap_err().to_string();
        assert!(refused.starts_with("until: ") && refused.contains(why), "{refused}");
    }
    ack(now + DAY * 16).await.unwrap();
    for _ in 0..15 {
        assert_eq!(fleet.pass(DAY).await, 0, "{}", fleet.clock.now());
    }
    let project = fleet.engine.store.project(&group(1)).await.unwrap().unwrap();
    let why = fleet.engine.why(&project).await.unwrap().sentences.join(" ");
    assert!(why.contains("ada has acknowledged the due date"), "{why}");
    // The day has come and the key serves on.
    assert_eq!(fleet.pass(DAY).await, 1);
    assert_eq!(fleet.subjects().await.last().unwrap(), "project-1: encryption key 6 days overdue");
    // A week after the due date it ends, however often somebody acknowledges.
    let late = ack(fleet.clock.now() + DAY * 2).await.unwrap_err().to_string();
    assert!(late.contains("is too late"), "{late}");
    ack(fleet.clock.now() + DAY).await.unwrap();
    assert_eq!(fleet.pass(HOUR * 23).await, 0);
    assert_eq!(fleet.pass(HOUR).await, 1);
    assert!(ack(fleet.clock.now() + HOUR).await.is_err());
}

#[tokio::test]
async fn an_acknowledged_due_date_says_nothing_about_the_next_key() {
    let fleet = Fleet::on(Backend::Sqlite).await;
    fleet.track(1, DAY * 80, &one("ada@example.com")).await;
    assert_eq!(fleet.pass(Duration::ZERO).await, 1);
    let (since, until) = (fleet.clock.now() - DAY * 70, fleet.clock.now() + DAY * 16);
    fleet.engine.acknowledge_due("ada", &group(1), Planned::At(until), None).await.unwrap();
    fleet.edit(1, ProjectEdit { key_since: Some(since), ..ProjectEdit::default() }).await;
    assert_eq!(fleet.pass(HOUR).await, 1);
}

#[tokio::test]
async fn with_an_hour_reminders_leave_together_and_urgent_ones_at_once() {
    let mut fleet = Fleet::on(Backend::Sqlite).await;
    let at = chrono::NaiveTime::from_hms_opt(8, 0, 0).unwrap();
    let mut settings = Settings::clone(&fleet.engine.settings);
    settings.digest = Some(Daily { at, zone: "Europe/Berlin".parse().unwrap() });
    fleet.engine.settings = Arc::new(settings);
    // Six reach 30 days before due in the course of a day and an hour; one is due in the evening.
    for number in 0..6u32 {
        fleet.track(u64::from(number) + 1, HOUR * (60 * 24 - number * 5), &one("ada@example.com")).await;
    }
    fleet.track(9, HOUR * (90 * 24 - 20), &one("ada@example.com")).await;
    let mut told = Vec::new();
    for hour in 0..48u32 {
        if fleet.pass(if hour == 0 { Duration::ZERO } else { HOUR }).await > 0 {
            told.push((hour, fleet.subjects().await.last().unwrap().clone()));
        }
    }
    let expected = [
        // It had reached an earlier reminder long ago.
        (0, "project-9: encryption key due in 1 day"),
        // 08:00 in Berlin is 07:00 in UTC: the first two, and the day before the last is due.
        (7, "project-9: encryption key due in 1 day"),
        (20, "project-9: encryption key due today"),
        (31, "4 projects need a new encryption key"),
        (44, "project-9: encryption key 1 day overdue"),
    ];
    let told: Vec<_> = told.iter().map(|(hour, subject)| (*hour, subject.as_str())).collect();
    assert_eq!(told, expected);
    assert_eq!(fleet.mails().await.iter().filter(|it| it.recipient == "ada@example.com").count(), 7);
}

#[tokio::test]
async fn the_year_ahead_has_due_dates_and_the_dates_of_open_rotations() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let fleet = Fleet::on(backend).await;
        fleet.track(1, DAY * 80, &one("ada@example.com")).await;
        fleet.track(2, DAY * 10, &one("ada@example.com")).await;
        let interval = Patch::Value(Span::from_days(30));
        let policy = PolicyEdit { interval, ..PolicyEdit::default() };
        fleet.edit(2, ProjectEdit { policy, ..ProjectEdit::default() }).await;
        let (now, planned) = (fleet.clock.now(), fleet.clock.now() + DAY * 5);
        let new_key = KeyRef::parse(Provider::Aws, "00000001-aaaa-4aaa-8aaa-000000000002").unwrap();
        let proposal = NewProposal {
            new_key,
            reason: None,
            planned: Some(Planned::At(planned)),
            emergency: false,
            dry_run: false,
        };
        fleet.engine.propose_on("ada", &group(1), proposal).await.unwrap();
        let ahead = fleet.engine.ahead(60, 5).await.unwrap();
        let keys: Vec<_> = (ahead.projects.iter().zip(&ahead.keys))
            .map(|(project, key)| (project.name.as_str(), key.due, key.planned_for))
            .collect();
        let expected = [("project-1", now + DAY * 10, Some(planned)), ("project-2", now + DAY * 20, None)];
        assert_eq!(keys, expected, "{backend:?}");
        let dues: Vec<_> = ahead.plan.dues.iter().map(|it| (it.key, it.at)).collect();
        assert_eq!(dues, [(0, now + DAY * 10), (1, now + DAY * 20), (1, now + DAY * 50)], "{backend:?}");
    }
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
