//! The same search about the watch: whatever happens to a small fleet, people hear of each danger in time, and of
//! its end, and nobody is told twice of one thing.
//!
//! The judge knows the simulated truth and the messages that were written, and nothing else. A plant makes the program
//! fall silent in one of the ways it once did; the judge must notice each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use keywheel::atlas::{AtlasApi, Group, Groups, Level, Team};
use keywheel::domain::condition::ConditionKind;
use keywheel::domain::event::KeyEvent;
use keywheel::domain::hint::{Hint, Meaning, Subject};
use keywheel::domain::ids::GroupId;
use keywheel::domain::key::{KeyRef, Place, Provider};
use keywheel::domain::rotation::outcome::{Class, Cluster, Failure, Observation, PatchReply};
use keywheel::domain::rotation::state::{Hold, State};
use keywheel::domain::time::{Clock, ManualClock, Span, Timestamp};
use keywheel::engine::command::{NewProject, OperatorVerb, ProjectEdit};
use keywheel::engine::epoch::{EpochWatch, present_mark, write_mark};
use keywheel::engine::{Engine, Settings, conditions, driver, hint, sweep};
use keywheel::store::{NewEvent, Store};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::world::Dice;
use super::{Database, plain};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Three projects of one credential, and one of another.
const PROJECTS: usize = 4;

/// People hear of a key that can be read within this time.
const PROMISE: Duration = Duration::from_secs(120);

/// In the hour after a rotation, in which its project is observed each 30 s, within this: a minute, and a beat of the judge.
const AFTERWARDS: Duration = Duration::from_secs(70);

/// And of one that cannot be read within this.
const UNREAD: Duration = Duration::from_secs(370);

/// Between a PATCH and its end the machine decides before its guard.
const GUARDED: Duration = Duration::from_secs(15 * 60);

/// The end is told within this time: readings, their confirmation, and the rest after a condition that flapped.
const ENDED: Duration = Duration::from_secs(14 * 60);

fn group(number: usize) -> String {
    format!("{:024x}", 0xabc0 + number)
}

fn credential(number: usize) -> &'static str {
    if number < 3 { "default" } else { "other" }
}

fn key_name(number: usize, which: usize) -> String {
    format!("{:08x}-0000-4000-8000-{which:012x}", 0x1000 + number)
}

/// What Atlas holds of a project.
#[derive(Clone, Debug)]
struct Truth {
    key: String,
    /// The status that the reading of the key gets instead of an answer.
    status: Option<u16>,
    /// The next reading is put off for so long.
    retry_after: Option<u64>,
    /// Atlas asked for a pause that is honoured until then.
    paused_until: Option<Timestamp>,
    is_tracked: bool,
}

#[derive(Debug)]
struct Inner {
    projects: Vec<Truth>,
    /// Keys that are not plainly valid.
    keys: BTreeMap<String, Option<bool>>,
    refused: BTreeSet<&'static str>,
    /// Projects at which the credential has lost its role.
    demoted: BTreeSet<usize>,
}

impl Inner {
    fn valid(&self, number: usize) -> Option<bool> {
        self.keys.get(&self.projects[number].key).copied().unwrap_or(Some(true))
    }

    fn can_be_read(&self, number: usize, now: Timestamp) -> bool {
        let it = &self.projects[number];
        it.status.is_none()
            && it.paused_until.is_none_or(|until| until <= now)
            && !self.refused.contains(credential(number))
    }
}

/// Atlas, as the fleet sees it.
#[derive(Clone, Debug)]
struct Fleet {
    inner: Arc<Mutex<Inner>>,
    clock: ManualClock,
}

fn failed(status: u16, retry_after: Option<u64>) -> Failure {
    let class = match status {
        401 => Class::Auth,
        404 => Class::Gone,
        429 => Class::Transient,
        _ => Class::Unknown,
    };
    Failure {
        class,
        status: Some(status),
        code: None,
        detail: format!("as the seed has it: {status}"),
        retry_after: retry_after.map(Span::from_secs),
    }
}

impl Fleet {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn number(group: &GroupId) -> usize {
        (0..PROJECTS).find(|it| super::watch::group(*it) == group.as_str()).unwrap()
    }

    fn fault(&self, group: &GroupId) -> Option<Failure> {
        let mut inner = self.inner();
        let number = Self::number(group);
        if inner.refused.contains(credential(number)) {
            return Some(failed(401, None));
        }
        if let Some(seconds) = inner.projects[number].retry_after.take() {
            let longest = SECOND * u32::try_from(seconds.min(300)).unwrap();
            inner.projects[number].paused_until = Some(self.clock.now() + longest + SECOND * 15);
            return Some(failed(429, Some(seconds)));
        }
        inner.projects[number].status.map(|status| failed(status, None))
    }
}

fn nothing<T: Default + Send>() -> BoxFuture<'static, Result<T, Failure>> {
    Box::pin(async { Ok(T::default()) })
}

impl AtlasApi for Fleet {
    fn knows(&self, _: &str) -> bool {
        true
    }

    fn observe<'a>(
        &'a self,
        _: &'a str,
        group: &'a GroupId,
        _: Duration,
    ) -> BoxFuture<'a, Result<Observation, Failure>> {
        Box::pin(async move {
            if let Some(failure) = self.fault(group) {
                return Err(failure);
            }
            let mut inner = self.inner();
            let number = Self::number(group);
            // A person has had it read in the middle of a pause.
            inner.projects[number].paused_until = None;
            Ok(Observation {
                at: self.clock.now(),
                provider: Some(Provider::Aws),
                key: Some(KeyRef::parse(Provider::Aws, &inner.projects[number].key).unwrap()),
                valid: inner.valid(number),
                private_networking: false,
                place: Place::default(),
                block_hash: String::new(),
                invalid_beside: None,
                skew_ms: Some(0),
            })
        })
    }

    fn set_key<'a>(
        &'a self,
        _: &'a str,
        group: &'a GroupId,
        key: &'a KeyRef,
        _: Duration,
    ) -> BoxFuture<'a, PatchReply> {
        Box::pin(async move {
            if let Some(failure) = self.fault(group) {
                return match failure.class {
                    Class::Auth => PatchReply::Auth(failure),
                    Class::Gone => PatchReply::Gone(failure),
                    Class::Transient => PatchReply::NotTaken(failure),
                    _ => PatchReply::Unknown(failure),
                };
            }
            let (mut inner, number) = (self.inner(), Self::number(group));
            if inner.valid(number) == Some(false) {
                return PatchReply::Refused(Failure { class: Class::Refused, ..failed(400, None) });
            }
            inner.projects[number].key = key.to_string();
            PatchReply::Accepted
        })
    }

    fn group<'a>(
        &'a self,
        _: &'a str,
        group: &'a GroupId,
        _: Duration,
    ) -> BoxFuture<'a, Result<Group, Failure>> {
        let (id, name) = (group.clone(), group.to_string());
        Box::pin(async { Ok(Group { id, name, org: None, clusters: None, tags: Vec::new() }) })
    }

    fn cmk_clusters<'a>(
        &'a self,
        _: &'a str,
        _: &'a GroupId,
        _: Provider,
        _: Duration,
    ) -> BoxFuture<'a, Result<Vec<Cluster>, Failure>> {
        Box::pin(async {
            Ok(vec![Cluster {
                name: "c".to_owned(),
                state: "IDLE".to_owned(),
                paused: false,
                ..Cluster::default()
            }])
        })
    }

    fn may_change<'a>(
        &'a self,
        _: &'a str,
        group: &'a GroupId,
        _: Duration,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(async { Ok(!self.inner().demoted.contains(&Self::number(group))) })
    }

    fn network_denied<'a>(
        &'a self,
        _: &'a str,
        _: &'a GroupId,
        _: Duration,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(async { Ok(false) })
    }

    fn credentials(&self) -> Vec<String> {
        vec!["default".to_owned(), "other".to_owned()]
    }

    fn levels(&self) -> Vec<Level> {
        Vec::new()
    }

    fn identity(&self, _: &str) -> Option<String> {
        None
    }

    fn groups<'a>(
        &'a self,
        _: &'a str,
        _: u32,
        _: u32,
        _: Duration,
    ) -> BoxFuture<'a, Result<Groups, Failure>> {
        Box::pin(async { Err(failed(500, None)) })
    }

    fn key_events<'a>(
        &'a self,
        _: &'a str,
        _: &'a GroupId,
        _: Timestamp,
        _: Duration,
    ) -> BoxFuture<'a, Result<Vec<KeyEvent>, Failure>> {
        nothing()
    }

    fn project_owners<'a>(
        &'a self,
        _: &'a str,
        _: &'a GroupId,
        _: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        nothing()
    }

    fn teams<'a>(
        &'a self,
        _: &'a str,
        _: &'a GroupId,
        _: Duration,
    ) -> BoxFuture<'a, Result<Vec<Team>, Failure>> {
        nothing()
    }

    fn team_members<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: &'a str,
        _: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        nothing()
    }

    fn team_name<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: &'a str,
        _: Duration,
    ) -> BoxFuture<'a, Result<String, Failure>> {
        nothing()
    }

    fn org_owners<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        nothing()
    }
}

/// What happens to the fleet.
#[derive(Clone, Debug)]
enum Event {
    /// The key in force is called valid, invalid, or neither.
    Valid(usize, Option<bool>),
    /// Somebody sets another key, which works or does not.
    SetByHand(usize, bool),
    /// The reading of the key fails with this status, or no more.
    Status(usize, Option<u16>),
    /// Atlas asks for a pause once.
    RetryAfter(usize, u64),
    /// A credential is refused, or no more.
    Refused(&'static str, bool),
    /// The clock of the daemon is wrong for five seconds.
    Clock(u64),
    Restart,
    /// The database is in doubt, or no more.
    Doubt(bool),
    /// Somebody spoils rows of a project.
    Spoil(usize),
    Propose(usize),
    Say(usize, OperatorVerb),
    /// A hook reports the key in force, or the proposed one, as disabled, or as enabled.
    Heard(usize, bool),
    Remove(usize),
    Add(usize),
    Edit(usize),
    Acknowledge(usize),
    /// The credential loses its role at a project, or gets it back.
    Role(usize, bool),
    /// A person has a project read at once.
    Refresh(usize),
    /// A person keeps the mails of a project back for an hour, or no more.
    Silence(usize, bool),
}

/// How the program falls silent, by the places in which it once did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    /// 1: what a rotation, or adding, has written first is not told.
    EdgeOfAnother,
    /// 2: a hold that is set quietly tells nobody.
    QuietHold,
    /// 3: a project that cannot be read is not told.
    Unread,
    /// 4: `Retry-After` is honoured in full.
    LongPause,
    /// 5: a rotation after its PATCH bears everything.
    Bears,
    /// 6: events are not handled.
    DeafHooks,
    /// 7: a notice names another key than the one that Atlas holds.
    WrongKey,
    /// 8: an absent validity is calm.
    Absent,
    /// 9: a schedule from a clock that was ahead is kept.
    FutureSchedule,
    /// 10: an approved rotation that is held is not told.
    Held,
    /// 11: in doubt nothing is read.
    BlindInDoubt,
    /// 12: a page waits half an hour.
    Late,
}

/// Each with a seed that has noticed it, which is played first.
const PLANTS: [(Plant, u64); 12] = [
    (Plant::EdgeOfAnother, 3),
    (Plant::QuietHold, 13),
    (Plant::Unread, 0),
    (Plant::LongPause, 1),
    (Plant::Bears, 0),
    (Plant::DeafHooks, 22),
    (Plant::WrongKey, 0),
    (Plant::Absent, 2),
    (Plant::FutureSchedule, 6),
    (Plant::Held, 13),
    (Plant::BlindInDoubt, 1),
    (Plant::Late, 0),
];

/// Since when something is so, by what and by project.
type Since = BTreeMap<(&'static str, usize), Timestamp>;

struct Watched {
    fleet: Fleet,
    engines: [Engine; 2],
    store: Store,
    folder: tempfile::TempDir,
    dice: Dice,
    plant: Option<Plant>,
    /// The true time; the daemon's clock may differ from it.
    now: Timestamp,
    events: Vec<(Timestamp, Event)>,
    doubted: bool,
    /// The clock was wrong a moment ago: what was due by it was told.
    jumped: bool,
    /// No look before this, as a plant has it.
    blind_until: Timestamp,
    last_row: i64,
    /// Conditions that were told and not ended, with when, and with what they said.
    open: BTreeMap<(String, String), (Timestamp, String)>,
    since: Since,
    /// When the last rotation of a project has ended that had sent a key.
    ended: BTreeMap<usize, Timestamp>,
    /// When something last kept the daemon from its rotations.
    disturbed: Timestamp,
    /// Dangers whose notice is counted among the latencies.
    counted: BTreeSet<(&'static str, usize)>,
    latencies: Vec<(&'static str, Duration)>,
    story: Vec<String>,
}

const START: &str = "2026-03-01T12:00:00Z";

impl Watched {
    async fn new(seed: u64, plant: Option<Plant>, database: &Database) -> Self {
        database.empty().await;
        let mut dice = Dice::new(seed ^ (1 << 45));
        let now = START.parse::<Timestamp>().unwrap() + SECOND * u32::try_from(dice.roll(86_400)).unwrap();
        let clock = ManualClock::new(now);
        let projects = (0..PROJECTS).map(|number| Truth {
            key: key_name(number, 1),
            status: None,
            retry_after: None,
            paused_until: None,
            is_tracked: false,
        });
        let inner = Inner {
            projects: projects.collect(),
            keys: BTreeMap::new(),
            refused: BTreeSet::new(),
            demoted: BTreeSet::new(),
        };
        let fleet = Fleet { inner: Arc::new(Mutex::new(inner)), clock };
        let store = database.store.clone();
        let engine = || Self::engine(&fleet, &store);
        let mut it = Self {
            engines: [engine(), engine()],
            fleet: fleet.clone(),
            store: store.clone(),
            folder: tempfile::tempdir().unwrap(),
            dice,
            plant,
            now,
            events: Vec::new(),
            doubted: false,
            jumped: false,
            blind_until: now,
            last_row: 0,
            open: BTreeMap::new(),
            since: Since::new(),
            ended: BTreeMap::new(),
            disturbed: now,
            counted: BTreeSet::new(),
            latencies: Vec::new(),
            story: Vec::new(),
        };
        for number in 0..PROJECTS {
            it.act(&Event::Add(number)).await;
        }
        it.draw(seed);
        it
    }

    fn engine(fleet: &Fleet, store: &Store) -> Engine {
        let settings =
            Settings { watch_every: Span::from_secs(30), watch_for: Span::from_secs(3600), ..plain() };
        Engine::new(store.clone(), Arc::new(fleet.clone()), Arc::new(fleet.clock.clone()), settings)
    }

    /// The day of this seed: things go wrong, mostly one at a time, and mostly right again.
    fn draw(&mut self, seed: u64) {
        let mut at = self.now + MINUTE;
        for _ in 0..3 + self.dice.roll(5) {
            let number = usize::try_from(self.dice.roll(PROJECTS as u64)).unwrap();
            let lasts = SECOND * u32::try_from(5 + self.dice.roll(1500)).unwrap();
            let what = self.dice.roll(18);
            let more = if what < 13 {
                self.fault(what, number, at, lasts)
            } else {
                self.people(what, number, at, lasts)
            };
            self.events.extend(more);
            if self.dice.chance(30) {
                self.events.push((at + lasts / 2, Event::Acknowledge(number)));
            }
            // Often before the last one is over.
            at = at + lasts * u32::try_from(self.dice.roll(3)).unwrap() + MINUTE;
        }
        self.meddle(seed, at);
        self.events.sort_by_key(|(at, _)| *at);
    }

    /// What people do besides until `end`, by dice of its own, so that the days of the seeds stay what they were.
    fn meddle(&mut self, seed: u64, end: Timestamp) {
        let mut dice = Dice::new(seed ^ (1 << 46));
        for _ in 0..dice.roll(5) {
            let number = usize::try_from(dice.roll(PROJECTS as u64)).unwrap();
            let at =
                self.now + SECOND * u32::try_from(dice.roll(end.since(self.now).as_secs() + 60)).unwrap();
            let later = at + SECOND * u32::try_from(60 + dice.roll(1200)).unwrap();
            let verbs =
                [OperatorVerb::Reject, OperatorVerb::Withdraw, OperatorVerb::Rollback, OperatorVerb::Accept];
            self.events.extend(match dice.roll(4) {
                0 => vec![(at, Event::Role(number, false)), (later, Event::Role(number, true))],
                1 => vec![(at, Event::Refresh(number)), (later, Event::Refresh(number))],
                2 => vec![(at, Event::Silence(number, true)), (later, Event::Silence(number, false))],
                _ => vec![(at, Event::Say(number, verbs[usize::try_from(dice.roll(4)).unwrap()]))],
            });
        }
    }

    /// What goes wrong by itself.
    fn fault(&mut self, what: u64, number: usize, at: Timestamp, lasts: Duration) -> Vec<(Timestamp, Event)> {
        let pair = |one: Event, other: Event| vec![(at, one), (at + lasts, other)];
        match what {
            0..=2 => pair(Event::Valid(number, Some(false)), Event::Valid(number, Some(true))),
            3 => pair(Event::Valid(number, None), Event::Valid(number, Some(true))),
            4 => pair(Event::SetByHand(number, true), Event::Edit(number)),
            5 => pair(Event::SetByHand(number, false), Event::Valid(number, Some(true))),
            6 | 7 => {
                let status = [404, 500, 503][usize::try_from(self.dice.roll(3)).unwrap()];
                pair(Event::Status(number, Some(status)), Event::Status(number, None))
            }
            8 => {
                let name = credential(number);
                pair(Event::Refused(name, true), Event::Refused(name, false))
            }
            9 => {
                let wait = [30, 3600, 86_400][usize::try_from(self.dice.roll(3)).unwrap()];
                let bad = Event::Valid(number, Some(false));
                vec![
                    (at, Event::RetryAfter(number, wait)),
                    (at + SECOND * 100, bad),
                    (at + lasts + SECOND * 100, Event::Valid(number, Some(true))),
                ]
            }
            10 => {
                let bad = Event::Valid(number, Some(false));
                vec![
                    (at, Event::Clock(600 + self.dice.roll(86_400))),
                    (at + SECOND * 10, bad),
                    (at + lasts + SECOND * 10, Event::Valid(number, Some(true))),
                ]
            }
            11 => vec![(at, Event::Restart), (at + SECOND * 20, Event::Spoil(number))],
            _ => {
                let bad = Event::Valid(number, Some(false));
                let mut more = pair(Event::Doubt(true), Event::Doubt(false));
                more.push((at + SECOND * 5, bad));
                more.push((at + lasts + SECOND * 5, Event::Valid(number, Some(true))));
                more
            }
        }
    }

    /// What goes wrong while people change keys.
    fn people(
        &mut self,
        what: u64,
        number: usize,
        at: Timestamp,
        lasts: Duration,
    ) -> Vec<(Timestamp, Event)> {
        let pair = |one: Event, other: Event| vec![(at, one), (at + lasts, other)];
        match what {
            13 => {
                let mut more = pair(Event::Propose(number), Event::Say(number, OperatorVerb::Cancel));
                more.push((at + SECOND * 10, Event::Valid(number, Some(false))));
                more.push((at + lasts + MINUTE * 5, Event::Valid(number, Some(true))));
                more
            }
            14 | 15 => {
                // A rotation, and something on its way.
                let mut more = vec![(at, Event::Propose(number))];
                more.push((at + SECOND * 20, Event::Say(number, OperatorVerb::Approve)));
                let meanwhile = at + SECOND * u32::try_from(15 + self.dice.roll(400)).unwrap();
                let bad = if self.dice.chance(50) { Some(false) } else { None };
                match self.dice.roll(4) {
                    0 => more.push((meanwhile, Event::Status(number, Some(503)))),
                    1 => more.push((at + SECOND * 18, Event::Valid(number, Some(false)))),
                    _ => more.push((meanwhile, Event::Valid(number, bad))),
                }
                let end = at + lasts + MINUTE * 20;
                more.push((end, Event::Status(number, None)));
                more.push((end, Event::Valid(number, Some(true))));
                more.push((end + SECOND * 30, Event::Say(number, OperatorVerb::Resume)));
                more.push((end + MINUTE * 14, Event::Say(number, OperatorVerb::Close)));
                more
            }
            16 => {
                let mut more = pair(Event::Heard(number, true), Event::Heard(number, false));
                if self.dice.chance(50) {
                    more.insert(0, (at, Event::Propose(number)));
                    more.push((at + lasts + MINUTE, Event::Say(number, OperatorVerb::Cancel)));
                }
                more
            }
            _ => {
                let mut more = pair(Event::Remove(number), Event::Add(number));
                if self.dice.chance(60) {
                    more.push((at + lasts, Event::Valid(number, Some(false))));
                    more.rotate_right(1);
                    more.push((at + lasts + MINUTE * 8, Event::Valid(number, Some(true))));
                }
                more
            }
        }
    }

    async fn raw(&self, text: String) {
        let Store::Sqlite { write, .. } = &self.store else { unreachable!() };
        sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(write).await.unwrap();
    }

    async fn open_rotation(&self, number: usize) -> Option<(keywheel::domain::ids::RotationId, State)> {
        let group = group(number).parse().unwrap();
        let project = self.store.project(&group).await.unwrap()?;
        project.open_rotation.map(|open| (open.id, open.state))
    }

    async fn act(&mut self, event: &Event) {
        self.story.push(format!("{} {event:?}", self.now));
        if !matches!(event, Event::Valid(..) | Event::SetByHand(..) | Event::Acknowledge(_)) {
            self.disturbed = self.now;
        }
        match event {
            Event::Valid(number, valid) => {
                let mut inner = self.fleet.inner();
                let key = inner.projects[*number].key.clone();
                inner.keys.insert(key, *valid);
            }
            Event::SetByHand(number, works) => {
                let mut inner = self.fleet.inner();
                let key = key_name(*number, 7);
                inner.keys.insert(key.clone(), Some(*works));
                inner.projects[*number].key = key;
            }
            Event::Status(number, status) => self.fleet.inner().projects[*number].status = *status,
            Event::RetryAfter(number, seconds) => {
                self.fleet.inner().projects[*number].retry_after = Some(*seconds);
                if self.plant == Some(Plant::LongPause) {
                    self.blind_until = self.now + SECOND * u32::try_from(*seconds).unwrap();
                }
            }
            Event::Refused(name, refused) => {
                let mut inner = self.fleet.inner();
                if *refused {
                    inner.refused.insert(name);
                } else {
                    inner.refused.remove(name);
                }
            }
            Event::Clock(ahead) => {
                let ahead = SECOND * u32::try_from(*ahead).unwrap();
                self.fleet.clock.set(self.now + ahead);
                self.work().await;
                self.fleet.clock.set(self.now);
                self.jumped = true;
                if self.plant == Some(Plant::FutureSchedule) {
                    self.blind_until = self.now + ahead;
                }
            }
            Event::Role(number, is_owner) => {
                let mut inner = self.fleet.inner();
                if *is_owner {
                    inner.demoted.remove(number);
                } else {
                    inner.demoted.insert(*number);
                }
            }
            Event::Restart => {
                for number in 0..2 {
                    let guard = Arc::clone(&self.engines[number].epoch);
                    self.engines[number] = Self::engine(&self.fleet, &self.store);
                    self.engines[number].epoch = guard;
                }
            }
            Event::Doubt(doubted) => self.doubt(*doubted).await,
            Event::Spoil(number) => {
                let group = group(*number);
                self.raw(format!("INSERT OR REPLACE INTO readings VALUES ('{group}', 'no JSON')")).await;
            }
            _ => self.command(event).await,
        }
    }

    /// What people and hooks do.
    async fn command(&mut self, event: &Event) {
        let engine = self.engines[0].clone();
        let id = |number| -> GroupId { group(number).parse().unwrap() };
        match event {
            Event::Propose(number) => {
                if !self.doubted {
                    let key = key_name(*number, 2 + usize::try_from(self.dice.roll(4)).unwrap());
                    let key = KeyRef::parse(Provider::Aws, &key).unwrap();
                    let _ = engine.propose("ada", &id(*number), key, None, false).await;
                }
            }
            Event::Say(number, verb) => {
                if let Some((rotation, _)) = self.open_rotation(*number).await {
                    let _ = engine.say("grace", rotation, *verb, None, None).await;
                }
            }
            Event::Heard(number, bad) => self.hear(*number, *bad).await,
            Event::Remove(number) => {
                if engine.remove_project("ada", &id(*number)).await.is_ok() {
                    self.fleet.inner().projects[*number].is_tracked = false;
                }
            }
            Event::Add(number) => {
                let new = NewProject {
                    group_id: group(*number),
                    owners: vec!["ada@example.com".to_owned()],
                    credential: Some(credential(*number).to_owned()),
                    ..NewProject::default()
                };
                if engine.add_project("ada", new).await.is_ok() {
                    self.fleet.inner().projects[*number].is_tracked = true;
                }
            }
            Event::Edit(number) => {
                let since = Some(self.now - MINUTE);
                let edit = ProjectEdit { key_since: since, ..ProjectEdit::default() };
                let _ = engine.edit_project("ada", &id(*number), edit).await;
            }
            Event::Acknowledge(number) => {
                for kind in [ConditionKind::Invalid, ConditionKind::Unreachable, ConditionKind::NeedsOperator]
                {
                    let _ = engine.acknowledge("grace", &id(*number), kind, None).await;
                }
            }
            Event::Refresh(number) => {
                let _ = engine.refresh_project(&id(*number)).await;
            }
            Event::Silence(number, begins) => {
                let span = begins.then(|| Span::from_secs(3600));
                let _ = engine.silence("grace", &id(*number), span, None).await;
            }
            _ => unreachable!(),
        }
    }

    async fn hear(&mut self, number: usize, bad: bool) {
        let key = self.fleet.inner().projects[number].key.clone();
        let meaning = if bad { Meaning::Alarm { once: self.now.to_string() } } else { Meaning::Usable };
        let hint = Hint {
            kind: if bad { "DisableKey" } else { "EnableKey" }.to_owned(),
            subject: Subject::Key { key: KeyRef::parse(Provider::Aws, &key).unwrap() },
            meaning,
            new_key: None,
            by: None,
            words: None,
            ends_at: None,
        };
        let event = NewEvent::new("aws", &self.now.to_string(), &hint).unwrap();
        self.store.insert_events(vec![event], self.now).await.unwrap();
        let is_tracked = self.fleet.inner().projects[number].is_tracked;
        if bad && is_tracked {
            self.since.insert(("heard", number), self.now);
        } else {
            self.since.remove(&("heard", number));
        }
    }

    async fn doubt(&mut self, doubted: bool) {
        let file = self.folder.path().join("epoch");
        let Some(mut mark) = present_mark(&self.store).await.unwrap() else { return };
        if doubted {
            mark.seq += 1_000_000;
        }
        write_mark(&file, &mark).unwrap();
        for engine in &mut self.engines {
            let guard = EpochWatch::new(file.clone()).unwrap();
            guard.start(&self.store, self.now).await.unwrap();
            *engine = engine.clone().with_guard(guard);
        }
        self.doubted = doubted;
    }

    /// What one of the daemons does at this instant.
    async fn work(&mut self) {
        let engine = self.engines[usize::try_from(self.dice.roll(2)).unwrap()].clone();
        let stop = CancellationToken::new();
        let blind = self.now < self.blind_until || (self.plant == Some(Plant::BlindInDoubt) && self.doubted);
        if !blind {
            sweep::once(&engine, &stop).await.unwrap();
        }
        driver::run_due(&engine).await.unwrap();
        if self.plant != Some(Plant::DeafHooks) {
            hint::once(&engine, &stop).await.unwrap();
        }
        conditions::once(&engine).await.unwrap();
        // A reading that waits for a second one has a timer of its own, which wakes the sweep.
        if !blind && engine.look_due.notified().now_or_never().is_some() {
            sweep::once(&engine, &stop).await.unwrap();
            conditions::once(&engine).await.unwrap();
        }
    }

    /// Reads the new messages; a plant takes some away.
    async fn read(&mut self) -> Result<(), String> {
        type Row = (i64, String, String, String, String, String);
        let Store::Sqlite { read, .. } = &self.store else { unreachable!() };
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT rowid, kind, group_id, model, created_at, next_try_at FROM outbox WHERE rowid > ? AND channel = 'mail' ORDER BY rowid",
        )
        .bind(self.last_row)
        .fetch_all(read)
        .await
        .unwrap();
        for (row, kind, subject, model, created, next) in rows {
            self.last_row = row;
            let model: Value = serde_json::from_str(&model).unwrap();
            if self.is_dropped(&kind, &subject, &model).await {
                continue;
            }
            let next: Timestamp = next.parse().unwrap();
            let created: Timestamp = created.parse().unwrap();
            let planted = self.plant == Some(Plant::Late);
            let next = if planted { next + MINUTE * 30 } else { next };
            if next.since(created) > MINUTE {
                return Err(format!("{kind} about {subject} leaves {:?} late", next.since(created)));
            }
            let Some(id) = model["conditionId"].as_str() else { continue };
            self.note(&kind, id, &subject, &model)?;
        }
        Ok(())
    }

    fn note(&mut self, kind: &str, id: &str, subject: &str, model: &Value) -> Result<(), String> {
        self.story.push(format!("{} TOLD {kind} {id}", self.now));
        let at = (id.to_owned(), "ada@example.com".to_owned());
        if kind.ends_with("_over") {
            return match self.open.remove(&at) {
                Some(_) => Ok(()),
                None => Err(format!("the end of {id} was told without its start")),
            };
        }
        let said = ["currentKey", "cause", "to", "state", "newKey", "event"]
            .map(|name| model[name].to_string())
            .join(" ");
        if kind == "current_key_invalid" {
            let number = (0..PROJECTS).find(|it| group(*it) == subject).unwrap();
            let held = self.fleet.inner().projects[number].key.clone();
            let named = model["currentKey"].as_str().unwrap_or_default();
            let planted = self.plant == Some(Plant::WrongKey);
            if named != held || planted {
                return Err(format!("{id} names {named}, and Atlas holds {held}"));
            }
        }
        if let Some((last, before)) = self.open.insert(at, (self.now, said.clone()))
            && before == said
            && self.now.since(last) < MINUTE * 4
            && kind != "needs_operator"
            && !self.jumped
        {
            return Err(format!("{id} was told twice within {:?}", self.now.since(last)));
        }
        Ok(())
    }

    /// Whether a plant keeps this message from everybody.
    async fn is_dropped(&self, kind: &str, subject: &str, model: &Value) -> bool {
        let Some(plant) = self.plant else { return false };
        let number = (0..PROJECTS).find(|it| group(*it) == subject);
        let open = match number {
            Some(number) => self.open_rotation(number).await.map(|(_, state)| state),
            None => None,
        };
        let over = kind.ends_with("_over");
        match plant {
            Plant::EdgeOfAnother => kind == "current_key_invalid" && open == Some(State::AwaitingApproval),
            Plant::QuietHold => kind == "current_key_invalid" && open == Some(State::Approved),
            Plant::Unread => {
                !over && ["unreachable", "atlas_unreachable", "credential_refused"].contains(&kind)
            }
            Plant::Bears => kind == "needs_operator" && model["cause"] != "refused",
            Plant::Absent => kind == "validity_unknown",
            Plant::Held => kind == "held",
            _ => false,
        }
    }

    fn is_open(&self, id: &str) -> bool {
        self.open.contains_key(&(id.to_owned(), "ada@example.com".to_owned()))
    }

    fn is_told(&self, number: usize, kinds: &[&str]) -> bool {
        kinds.iter().any(|kind| self.is_open(&format!("{}/{kind}", group(number))))
    }

    /// How long something has been so; forgets it when it is not.
    fn lasts(&mut self, what: &'static str, number: usize, is_so: bool) -> Duration {
        if !is_so {
            self.since.remove(&(what, number));
            return Duration::ZERO;
        }
        let now = self.now;
        now.since(*self.since.entry((what, number)).or_insert(now))
    }

    fn demand(
        &mut self,
        what: &'static str,
        number: usize,
        lasts: Duration,
        bound: Duration,
        told: bool,
    ) -> Result<(), String> {
        self.demand_of(what, what, number, lasts, bound, told)
    }

    /// The same, with the latency counted under another `name`.
    fn demand_of(
        &mut self,
        what: &'static str,
        name: &'static str,
        number: usize,
        lasts: Duration,
        bound: Duration,
        told: bool,
    ) -> Result<(), String> {
        if !self.since.contains_key(&(what, number)) {
            self.counted.remove(&(what, number));
        } else if told && self.counted.insert((what, number)) && !lasts.is_zero() {
            self.latencies.push((name, lasts));
        }
        if lasts > bound && !told {
            return Err(format!("project {number}: {name} for {lasts:?}, and nobody was told"));
        }
        Ok(())
    }

    /// What a key is that was called invalid for `bad`, and within which time people hear of it. `moving` is whether a
    /// rotation is between its PATCH and its end.
    fn promised(&self, number: usize, bad: Duration, moving: bool) -> (&'static str, Duration) {
        let from = self.now - bad;
        let watched = |ended: &Timestamp| *ended < from && self.now < *ended + MINUTE * 55;
        match self.ended.get(&number).filter(|ended| watched(ended)) {
            _ if moving => ("invalid, between a PATCH and its end", GUARDED),
            Some(_) if from > self.disturbed + MINUTE * 5 => {
                ("invalid, in the hour after a rotation", AFTERWARDS)
            }
            _ => ("invalid", PROMISE),
        }
    }

    async fn judge(&mut self) -> Result<(), String> {
        for number in 0..PROJECTS {
            let (tracked, readable, valid, key) = {
                let inner = self.fleet.inner();
                let it = &inner.projects[number];
                (it.is_tracked, inner.can_be_read(number, self.now), inner.valid(number), it.key.clone())
            };
            let id = group(number).parse().unwrap();
            let project = self.store.project(&id).await.unwrap();
            let open = project.as_ref().and_then(|it| it.open_rotation).map(|open| open.state);
            let patched = open.is_some_and(|state| state.is_after_patch() || state == State::Applying);
            if self.since.contains_key(&("patched", number)) && open.is_none() {
                self.ended.insert(number, self.now);
            }
            let moving = self.lasts("patched", number, patched);
            let bound = |plain: Duration| if moving.is_zero() { plain } else { GUARDED };
            let name = credential(number);
            let of_credential = ["credential_refused", "atlas_unreachable"]
                .iter()
                .any(|kind| self.is_open(&format!("credential/{name}/{kind}")));

            let bad = self.lasts("invalid", number, tracked && readable && valid == Some(false));
            let told = self.is_told(number, &["invalid", "needs_operator", "key_ending"]);
            let (what, promise) = self.promised(number, bad, !moving.is_zero());
            self.demand_of("invalid", what, number, bad, promise, told)?;

            let unread = self.lasts("unread", number, tracked && !readable);
            let told = of_credential || self.is_told(number, &["unreachable", "needs_operator"]);
            self.demand("unread", number, unread, bound(UNREAD), told)?;

            let absent = self.lasts("absent", number, tracked && readable && valid.is_none());
            let told = self.is_told(number, &["validity_unknown", "needs_operator", "invalid"]);
            self.demand("absent", number, absent, bound(UNREAD), told)?;

            let recorded = project.as_ref().and_then(|it| it.current_key.as_ref()).map(ToString::to_string);
            let other = tracked && readable && open.is_none() && recorded.as_ref() != Some(&key);
            let drifted = self.lasts("drift", number, other && !self.doubted);
            self.demand("drift", number, drifted, PROMISE, self.is_told(number, &["drifted"]))?;

            let heard = self.since.get(&("heard", number)).copied();
            if let Some(heard) = heard.filter(|_| tracked) {
                let lasts = self.now.since(heard);
                let told = self.is_told(number, &["key_ending"]);
                if told || lasts > MINUTE * 15 {
                    self.since.remove(&("heard", number));
                }
                self.demand("heard", number, lasts, MINUTE, told)?;
            }

            let held = match self.open_rotation(number).await {
                Some((id, State::Approved)) => {
                    let row = self.store.rotation(id).await.unwrap();
                    row.and_then(|row| row.rotation.hold).is_some_and(|hold| hold != Hold::Window)
                }
                _ => false,
            };
            let held = self.lasts("held", number, held && !self.doubted);
            let told =
                of_credential || self.is_told(number, &["held", "invalid", "unreachable", "key_ending"]);
            self.demand("held", number, held, MINUTE * 17, told)?;

            let fine = tracked && readable && valid == Some(true) && !self.doubted;
            let fine = self.lasts("fine", number, fine);
            if fine > ENDED {
                for kind in ["invalid", "unreachable", "validity_unknown"] {
                    if self.is_told(number, &[kind]) {
                        return Err(format!(
                            "project {number}: all is well for {fine:?}, and the end of {kind} was not told"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    async fn play(&mut self) -> Result<(), String> {
        let mut events = std::mem::take(&mut self.events).into_iter().peekable();
        let end = events.clone().map(|(at, _)| at).max().unwrap_or(self.now) + ENDED + MINUTE * 3;
        let mut calm_from = self.now;
        while self.now < end {
            while let Some((_, event)) = events.next_if(|(at, _)| *at <= self.now) {
                self.act(&event).await;
                calm_from = self.now + MINUTE * 7;
            }
            self.work().await;
            self.read().await?;
            self.jumped = false;
            self.judge().await?;
            let step = if self.now < calm_from { SECOND * 10 } else { SECOND * 30 };
            let next = events.peek().map_or(end, |(at, _)| *at);
            self.now = (self.now + step).min(next.max(self.now + SECOND));
            self.fleet.clock.set(self.now);
        }
        Ok(())
    }
}

/// Plays a seed; returns the latencies, or the fault with its story.
async fn played(
    seed: u64,
    plant: Option<Plant>,
    database: &Database,
) -> Result<Vec<(&'static str, Duration)>, String> {
    let mut it = Box::pin(Watched::new(seed, plant, database)).await;
    match it.play().await {
        Ok(()) => Ok(it.latencies),
        Err(fault) => Err(format!("KEYWHEEL_SEED={seed}: {fault}\n{}", it.story.join("\n"))),
    }
}

/// Has each of some threads work with a database of its own: two for each core, because each waits for its database.
fn beside_each_other(work: impl Fn(&tokio::runtime::Runtime, &Database) + Sync) {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..2 * cores {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let database = runtime.block_on(Database::new());
                work(&runtime, &database);
            });
        }
    });
}

#[test]
#[expect(clippy::print_stdout, reason = "figures for the reader")]
fn no_danger_is_silent_and_no_alarm_is_without_end() {
    let seeds = super::number("KEYWHEEL_WATCH_SEEDS").unwrap_or(40);
    let first = super::number("KEYWHEEL_WATCH_FROM").unwrap_or(0);
    let range = super::number("KEYWHEEL_SEED").map_or(first..first + seeds, |seed| seed..seed + 1);
    let next = AtomicU64::new(range.start);
    let found = Mutex::new((BTreeMap::<&str, Vec<Duration>>::new(), Vec::new()));
    beside_each_other(|runtime, database| {
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= range.end || !found.lock().unwrap().1.is_empty() {
                return;
            }
            let played = runtime.block_on(Box::pin(played(seed, None, database)));
            let mut found = found.lock().unwrap();
            match played {
                Ok(all) => {
                    for (what, lasts) in all {
                        found.0.entry(what).or_default().push(lasts);
                    }
                }
                Err(fault) => found.1.push(fault),
            }
        }
    });
    let (latencies, faults) = found.into_inner().unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
    for (what, mut all) in latencies {
        all.sort_unstable();
        let at = |share: usize| all[(all.len() - 1) * share / 100].as_secs();
        println!("{what}: {} times, p50 {} s, p99 {} s, max {} s", all.len(), at(50), at(99), at(100));
    }
}

/// The fault that the judge has found with this plant.
async fn noticed(plant: Plant, known: u64, database: &Database) -> Option<String> {
    for seed in std::iter::once(known).chain(0..150) {
        if let Err(fault) = Box::pin(played(seed, Some(plant), database)).await {
            return fault.lines().next().map(ToOwned::to_owned);
        }
    }
    None
}

#[test]
#[expect(clippy::print_stdout, reason = "the seed is for the reader of a failed run")]
fn each_way_to_fall_silent_is_noticed() {
    let plants = Mutex::new(PLANTS.into_iter());
    beside_each_other(|runtime, database| {
        let next = || plants.lock().unwrap().next();
        while let Some((plant, known)) = next() {
            let noticed = runtime.block_on(noticed(plant, known, database));
            println!("{plant:?}: {noticed:?}");
            assert!(noticed.is_some(), "{plant:?} was not noticed in 150 seeds");
        }
    });
}
