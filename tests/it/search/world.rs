//! A world whose time is simulated: Atlas, its key service, other people, and the accidents of the
//! process that asks. Everything is drawn from one seed.
//!
//! It judges by itself what it is sent; what it was asked and what it answered is its own log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use keywheel::atlas::AtlasApi;
use keywheel::domain::ids::{GroupId, RotationId};
use keywheel::domain::key::{KeyRef, Place, Provider};
use keywheel::domain::rotation::outcome::{Class, Cluster, Failure, Observation};
use keywheel::domain::rotation::state::{Reply, State, Target};
use keywheel::domain::time::{Clock, ManualClock, Span, Timestamp};
use keywheel::store::Store;
use tokio::sync::Notify;

pub(crate) const OLD: &str = "11111111-1111-4111-8111-111111111111";
pub(crate) const NEW: &str = "22222222-2222-4222-8222-222222222222";
pub(crate) const THIRD: &str = "33333333-3333-4333-8333-333333333333";

/// A small generator: the same seed, the same run.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Self(seed ^ 0x9e37_79b9_7f4a_7c15);
        dice.roll(2);
        dice
    }

    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides.max(1)
    }

    /// True in `percent` of a hundred cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }

    fn seconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from * 1000 + self.roll((to - from) * 1000 + 1))
    }
}

/// How the program is lied to, to show that the judge sees what a broken program does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Lie {
    None,
    /// A lost reply looks like a refusal.
    UnknownIsRefused,
    /// Whatever Atlas says of a key, it looks valid.
    AlwaysValid,
    /// Somebody else's key looks like the old one.
    ThirdIsOld,
}

/// Why the process stopped in the middle of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Stop {
    /// It is gone.
    Crash,
    /// It stands still for this long, then goes on as if nothing had been.
    Suspend(Duration),
}

/// What a seed decides beforehand.
#[expect(clippy::struct_excessive_bools, reason = "each is drawn by itself")]
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) lie: Lie,
    /// Percent of calls that fail on their way.
    faults: u64,
    /// Per mille of points at which the process is killed, or stands still.
    accidents: u64,
    /// Percent of commits that fail.
    pub(crate) bad_commits: u64,
    /// A second process takes over what a stopped one held; otherwise a restart knows that it is alone.
    pub(crate) fleet: bool,
    /// No faults and no accidents from then on.
    pub(crate) calm_from: Timestamp,
    /// What `valid` says of the new key, from which second after its first use on.
    validity: Vec<(u64, Option<bool>)>,
    /// The old key's last second, counted likewise.
    old_dies: Option<u64>,
    /// The key service cannot be reached, and an alert says so.
    network_denied: bool,
    /// Atlas lets go of a key that does not work. Documented: it does not.
    lets_go: bool,
    pub(crate) private: bool,
    stale: Duration,
    clusters: Vec<&'static str>,
}

fn validity(dice: &mut Dice) -> Vec<(u64, Option<bool>)> {
    let (a, b) = (dice.roll(300), dice.roll(900));
    match dice.roll(12) {
        0 => vec![(0, Some(false))],
        1 => vec![(0, Some(false)), (a, Some(true))],
        2 => vec![(0, Some(true)), (a, Some(false))],
        3 => vec![(0, Some(true)), (a, Some(false)), (a + b, Some(true))],
        4 => (0..40).map(|step| (step * (10 + a / 10), Some(step % 2 == 0))).collect(),
        5 => vec![(0, None), (b, Some(true))],
        6 => vec![(0, None)],
        7 => vec![(0, None), (a, Some(false))],
        _ => vec![(0, Some(true))],
    }
}

impl Plan {
    fn draw(dice: &mut Dice, start: Timestamp, lie: Lie) -> Self {
        let rough = dice.chance(70);
        let mut percent = |most: u64| if rough && dice.chance(60) { dice.roll(most + 1) } else { 0 };
        let (faults, accidents, bad_commits) = (percent(40), percent(60), percent(12));
        let human = dice.chance(30);
        Self {
            lie,
            faults,
            accidents,
            bad_commits,
            fleet: dice.chance(40),
            calm_from: start + dice.seconds(60, 3 * 3600),
            validity: validity(dice),
            old_dies: dice.chance(10).then(|| dice.roll(400)),
            network_denied: dice.chance(10),
            lets_go: dice.chance(60),
            private: dice.chance(5),
            stale: if dice.chance(15) { dice.seconds(1, 60) } else { Duration::ZERO },
            clusters: match dice.roll(8) {
                0 => vec![],
                1 => vec!["IDLE", "PAUSED"],
                2 => vec!["UPDATES", "CREATING"],
                3 => vec!["STUCK"],
                4 if human => vec!["REPAIRING"],
                _ => vec!["UPDATES"],
            },
        }
    }
}

/// Something that happens by itself at an instant.
#[derive(Clone, Debug)]
enum Event {
    /// A request that took its time.
    Late(&'static str),
    /// Another person sets a key.
    Human(&'static str),
}

#[derive(Clone, Debug)]
pub(crate) struct Patch {
    pub(crate) at: Timestamp,
    pub(crate) key: &'static str,
}

/// What the world remembers.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) dice: Dice,
    pub(crate) plan: Plan,
    pub(crate) key: &'static str,
    /// The key before the last change, and when that was.
    before: (&'static str, Timestamp),
    first_new: Option<Timestamp>,
    last_change: Timestamp,
    events: VecDeque<(Timestamp, Event)>,
    pub(crate) humans_left: Vec<(u64, &'static str)>,
    pub(crate) human_acted: bool,
    /// When an operator last told a rotation to go on or back.
    pub(crate) commanded: Option<Timestamp>,
    pub(crate) patches: Vec<Patch>,
    pub(crate) looks: Vec<(Timestamp, &'static str, Option<bool>)>,
    in_flight: Option<&'static str>,
    not_before: Option<Timestamp>,
    pub(crate) stop: Option<Stop>,
    /// Time in which no process could act.
    pub(crate) downtime: Duration,
    pub(crate) broken: Option<String>,
    pub(crate) watched: Option<RotationId>,
    pub(crate) trace: Vec<String>,
}

/// The world and the clock that everybody in it reads.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) stopped: Arc<Notify>,
    pub(crate) store: Store,
    inner: Arc<Mutex<Inner>>,
}

fn constant(key: &str) -> Option<&'static str> {
    [OLD, NEW, THIRD].into_iter().find(|it| *it == key)
}

pub(crate) fn key(text: &str) -> KeyRef {
    KeyRef::parse(Provider::Aws, text).unwrap()
}

fn failed(class: Class, status: Option<u16>, retry_after: Option<Span>) -> Failure {
    Failure { class, status, code: None, detail: "as the seed has it".to_owned(), retry_after }
}

impl World {
    pub(crate) fn new(seed: u64, lie: Lie, store: Store) -> Self {
        let start: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let mut dice = Dice::new(seed);
        let start = start + dice.seconds(0, 86_400);
        let plan = Plan::draw(&mut dice, start, lie);
        let humans = match dice.roll(10) {
            0 => vec![(dice.roll(1200), THIRD)],
            1 => vec![(dice.roll(1200), OLD)],
            2 => vec![(dice.roll(300), NEW), (300 + dice.roll(300), THIRD)],
            _ => vec![],
        };
        let inner = Inner {
            dice,
            plan,
            key: OLD,
            before: (OLD, start),
            first_new: None,
            last_change: start,
            events: VecDeque::new(),
            humans_left: humans,
            human_acted: false,
            commanded: None,
            patches: Vec::new(),
            looks: Vec::new(),
            in_flight: None,
            not_before: None,
            stop: None,
            downtime: Duration::ZERO,
            broken: None,
            watched: None,
            trace: Vec::new(),
        };
        let clock = ManualClock::new(start);
        Self { clock, stopped: Arc::default(), store, inner: Arc::new(Mutex::new(inner)) }
    }

    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Other people begin to act: their seconds count from now.
    pub(crate) fn release_humans(&self) {
        let now = self.clock.now();
        let mut inner = self.inner();
        for (after, key) in std::mem::take(&mut inner.humans_left) {
            inner.events.push_back((now + Duration::from_secs(after), Event::Human(key)));
        }
    }

    /// Time goes by, and with it what was to happen.
    pub(crate) fn pass(&self, span: Duration) {
        let until = self.clock.now() + span;
        let mut inner = self.inner();
        loop {
            let next = inner.events.iter().map(|(at, _)| *at).filter(|at| *at <= until).min();
            let Some(at) = next else { break };
            let Some(index) = inner.events.iter().position(|(it, _)| *it == at) else { break };
            let Some((_, event)) = inner.events.remove(index) else { break };
            inner.trace.push(format!("{at} {event:?}"));
            match event {
                Event::Late(key) => inner.set(key, at),
                Event::Human(key) => {
                    inner.human_acted = true;
                    inner.set(key, at);
                }
            }
        }
        self.clock.set(until);
    }

    /// Whether nothing more will happen by itself.
    pub(crate) fn is_calm(&self) -> bool {
        let now = self.clock.now();
        let inner = self.inner();
        inner.events.is_empty() && now >= inner.plan.calm_from
    }

    /// The way of every call: latency, accidents, then `effect` at Atlas, and the way back.
    async fn call<T>(
        &self,
        what: &str,
        timeout: Duration,
        effect: impl FnOnce(&mut Inner, Timestamp) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (there, back, lost, odd) = {
            let mut inner = self.inner();
            let calm = self.clock.now() >= inner.plan.calm_from;
            let faults = if calm { 0 } else { inner.plan.faults };
            let latency = inner.dice.roll(250) + 2;
            let lost = inner.dice.chance(faults / 2).then(|| inner.dice.roll(2));
            let odd = inner.dice.chance(faults / 2).then(|| inner.dice.roll(4));
            (Duration::from_millis(latency / 2), Duration::from_millis(latency - latency / 2), lost, odd)
        };
        if let Some(asleep) = self.accident().await
            && asleep >= timeout
        {
            return Err(failed(Class::Unknown, None, None));
        }
        self.pass(there);
        {
            let now = self.clock.now();
            let mut inner = self.inner();
            // People may be impatient, and a new process does not know what the last one was told.
            let known = inner.watched.is_some() && inner.plan.accidents == 0 && inner.plan.bad_commits == 0;
            if known && inner.not_before.is_some_and(|at| now < at) {
                inner.accuse("I13: asked again before Retry-After was over");
            }
        }
        if lost == Some(0) {
            self.pass(timeout);
            return Err(failed(Class::Unknown, None, None));
        }
        match odd {
            Some(0) => {
                let seconds = self.inner().dice.roll(90) + 1;
                let until = self.clock.now() + Duration::from_secs(seconds);
                self.inner().not_before = Some(until);
                self.pass(back);
                // The header counts from the answer; the world is that much kinder.
                return Err(failed(Class::Transient, Some(429), Some(Span::from_secs(seconds))));
            }
            Some(1) => {
                self.pass(back);
                return Err(failed(Class::Unknown, Some(502), None));
            }
            Some(2) if what != "set_key" => {
                self.pass(back);
                return Err(failed(Class::Transient, Some(429), None));
            }
            _ => {}
        }
        let now = self.clock.now();
        let answer = effect(&mut self.inner(), now);
        if let Some(asleep) = self.accident().await
            && asleep >= timeout
        {
            return Err(failed(Class::Unknown, None, None));
        }
        if lost == Some(1) {
            self.pass(timeout);
            return Err(failed(Class::Unknown, None, None));
        }
        self.pass(back);
        answer
    }

    /// Perhaps the process is killed here, or stands still; says for how long it did.
    async fn accident(&self) -> Option<Duration> {
        let stop = {
            let mut inner = self.inner();
            let calm = self.clock.now() >= inner.plan.calm_from;
            let rate = if calm { 0 } else { inner.plan.accidents };
            if inner.dice.roll(1000) >= rate {
                return None;
            }
            let fleet = inner.plan.fleet;
            let stop = match inner.dice.roll(3) {
                0 if fleet => Stop::Suspend(inner.dice.seconds(1, 40 * 60)),
                1 if fleet => Stop::Suspend(inner.dice.seconds(1, 30)),
                _ => Stop::Crash,
            };
            inner.stop = Some(stop);
            stop
        };
        let before = self.clock.now();
        self.stopped.notify_one();
        let mut polled = false;
        // The harness sees the stop and drops this future, or polls it again when its time has come.
        std::future::poll_fn(|_| {
            if std::mem::replace(&mut polled, true) && stop != Stop::Crash {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
        Some(self.clock.now().since(before))
    }

    /// I1 to I4 and I7, at the instant a PATCH is received.
    async fn judge_patch(&self, key: &'static str) {
        let id = self.inner().watched;
        let Some(id) = id else { return self.inner().accuse("I2: a PATCH before any proposal") };
        let row = self.store.rotation(id).await.unwrap().unwrap().rotation;
        let votes = self.store.approvals(id).await.unwrap();
        let target = if key == NEW { Target::New } else { Target::Old };
        let intent = row.patch.as_ref().filter(|it| it.target == target && it.reply.is_none());
        let state = if target == Target::New { State::Applying } else { State::RollingBack };
        let mut inner = self.inner();
        if key == THIRD {
            inner.accuse("I1: a key that is neither old nor new");
        }
        let Some(intent) = intent.filter(|_| row.state == state) else {
            return inner.accuse(&format!("I2: PATCH({target}) without a committed intent"));
        };
        let sent = intent.sent_at;
        if target == Target::New {
            let yes = votes.iter().filter(|vote| vote.by != "ada").count();
            let required = row.rules.policy.approvals as usize;
            if yes < required || sent >= row.expires_at || !row.rules.policy.window_open(sent) {
                inner.accuse("I3: a PATCH without permission");
            }
        }
        let seen = inner.looks.last().map(|(_, key, _)| *key);
        let wanted = if target == Target::New { OLD } else { NEW };
        if seen != Some(wanted) {
            inner.accuse(&format!("I7: PATCH({target}) after a look that showed {seen:?}"));
        }
    }
}

impl Inner {
    pub(crate) fn accuse(&mut self, why: &str) {
        self.trace.push(format!("ACCUSED {why}"));
        self.broken.get_or_insert_with(|| why.to_owned());
    }

    fn set(&mut self, key: &'static str, now: Timestamp) {
        if key == self.key {
            return;
        }
        self.before = (self.key, now);
        self.key = key;
        self.last_change = now;
        if key == NEW {
            self.first_new.get_or_insert(now);
        }
    }

    fn valid(&self, key: &str, now: Timestamp) -> Option<bool> {
        let since = self.first_new.map_or(0, |at| now.since(at).as_secs());
        match key {
            NEW => self.plan.validity.iter().rev().find(|(from, _)| *from <= since).and_then(|it| it.1),
            OLD => Some(self.first_new.is_none() || self.plan.old_dies.is_none_or(|end| since < end)),
            _ => Some(true),
        }
    }

    fn shown(&self, now: Timestamp) -> &'static str {
        let (before, at) = self.before;
        if now.since(at) < self.plan.stale { before } else { self.key }
    }

    fn observe(&mut self, now: Timestamp) -> Observation {
        let shown = self.shown(now);
        let valid = self.valid(shown, now);
        self.looks.push((now, shown, valid));
        self.trace.push(format!("{now} look {} {valid:?}", &shown[..2]));
        let told = if self.plan.lie == Lie::ThirdIsOld && shown == THIRD { OLD } else { shown };
        Observation {
            at: now,
            provider: Some(Provider::Aws),
            key: Some(key(told)),
            valid: if self.plan.lie == Lie::AlwaysValid { Some(true) } else { valid },
            private_networking: self.plan.private,
            place: Place::default(),
            block_hash: String::new(),
            skew_ms: Some(0),
        }
    }

    /// What Atlas does with a PATCH that reached it.
    fn take(&mut self, key: &'static str, now: Timestamp) -> Result<(), Failure> {
        let current_works = self.valid(self.key, now) != Some(false);
        if !current_works && !self.plan.lets_go && key != self.key {
            let code = Some("ENCRYPTION_AT_REST_SETTINGS_INVALID".to_owned());
            return Err(Failure { code, ..failed(Class::Refused, Some(400), None) });
        }
        let calm = now >= self.plan.calm_from;
        if !calm && self.plan.faults > 0 && self.dice.chance(self.plan.faults / 4) {
            let late = now + self.dice.seconds(1, 85);
            self.events.push_back((late, Event::Late(key)));
            return Err(failed(Class::Unknown, None, None));
        }
        self.set(key, now);
        Ok(())
    }

    fn clusters(&self, now: Timestamp) -> Vec<Cluster> {
        let since = now.since(self.last_change).as_secs();
        let changed = self.first_new.is_some();
        let state = |kind: &str| match kind {
            "UPDATES" if changed && (10..70).contains(&since) => "UPDATING",
            "STUCK" if changed => "UPDATING",
            "CREATING" => "CREATING",
            "REPAIRING" if changed => "REPAIRING",
            _ => "IDLE",
        };
        let list = self.plan.clusters.iter().enumerate();
        list.map(|(number, kind)| Cluster {
            name: format!("c{number}"),
            state: state(kind).to_owned(),
            paused: *kind == "PAUSED",
        })
        .collect()
    }
}

impl AtlasApi for World {
    fn knows(&self, _: &str) -> bool {
        true
    }

    fn observe<'a>(
        &'a self,
        _: &'a str,
        _: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Observation, Failure>> {
        Box::pin(async move {
            let mut seen = self.call("observe", timeout, |inner, now| Ok(inner.observe(now))).await?;
            seen.at = self.clock.now();
            Ok(seen)
        })
    }

    fn set_key<'a>(
        &'a self,
        _: &'a str,
        _: &'a GroupId,
        key: &'a KeyRef,
        timeout: Duration,
    ) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            let text = key.to_string();
            let Some(key) = constant(&text) else {
                self.inner().accuse("I1: a key from nowhere");
                return Reply::Accepted;
            };
            self.judge_patch(key).await;
            {
                let now = self.clock.now();
                let mut inner = self.inner();
                if let Some(other) = inner.in_flight.replace(key) {
                    inner.trace.push(format!("{now} a PATCH({}) was still open", &other[..2]));
                }
                inner.patches.push(Patch { at: now, key });
                inner.trace.push(format!("{now} PATCH {}", &key[..2]));
            }
            let answer = self.call("set_key", timeout, |inner, now| inner.take(key, now)).await;
            let mut inner = self.inner();
            inner.in_flight = None;
            let lie = inner.plan.lie;
            inner.trace.push(format!("reply {:?}", answer.as_ref().map_err(|it| (it.class, it.status))));
            match answer {
                Ok(()) => Reply::Accepted,
                Err(failure) => match failure.class {
                    Class::Transient => Reply::NotTaken(failure),
                    Class::Refused => Reply::Refused(failure),
                    _ if lie == Lie::UnknownIsRefused => Reply::Refused(failure),
                    _ => Reply::Unknown(failure),
                },
            }
        })
    }

    fn group_name<'a>(
        &'a self,
        _: &'a str,
        _: &'a GroupId,
        _: Duration,
    ) -> BoxFuture<'a, Result<String, Failure>> {
        Box::pin(async { Ok("searched".to_owned()) })
    }

    fn cmk_clusters<'a>(
        &'a self,
        _: &'a str,
        _: &'a GroupId,
        _: Provider,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<Cluster>, Failure>> {
        Box::pin(self.call("clusters", timeout, |inner, now| Ok(inner.clusters(now))))
    }

    fn network_denied<'a>(
        &'a self,
        _: &'a str,
        _: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(self.call("alerts", timeout, |inner, _| Ok(inner.plan.network_denied)))
    }
}
