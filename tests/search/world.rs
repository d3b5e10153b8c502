//! A world whose time is simulated: Atlas, its key service, other people, and the accidents of the
//! process that asks. Everything is drawn from one seed.
//!
//! It judges by itself what it is sent; what it was asked and what it answered is its own log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use keywheel::atlas::{AtlasApi, Group, Groups, Level, Team};
use keywheel::domain::event::KeyEvent;
use keywheel::domain::ids::{GroupId, RotationId};
use keywheel::domain::key::{KeyRef, Place, Provider};
use keywheel::domain::rotation::outcome::{Class, Cluster, EndpointSet, Failure, Observation, PatchReply};
use keywheel::domain::rotation::state::{State, Target};
use keywheel::domain::time::{Clock, ManualClock, Span, Timestamp};
use keywheel::store::Store;
use tokio::sync::Notify;

pub(crate) const OLD: &str = "11111111-1111-4111-8111-111111111111";
pub(crate) const NEW: &str = "22222222-2222-4222-8222-222222222222";
pub(crate) const THIRD: &str = "33333333-3333-4333-8333-333333333333";

/// Seconds after which whatever a script broke is repaired.
pub(crate) const HALF_A_DAY: u64 = 12 * 3600;

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

/// Where in a call its process is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum At {
    /// Before anything left.
    Before,
    /// Atlas has acted, the reply is on its way.
    Acted,
    /// The reply is here, and nothing of it is written.
    Answered,
}

/// One kill of a script: the first call like this that comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kill {
    pub(crate) call: &'static str,
    pub(crate) at: At,
    pub(crate) state: Option<State>,
    /// Calls like this to let pass.
    pub(crate) skip: u32,
}

/// What a scripted call meets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Odd {
    /// It never arrives, and nobody says so before the time limit.
    Lost,
    /// It is carried out, and the reply never comes.
    LostReply,
    /// No reply in time; it is carried out after this many seconds.
    Late(u64),
    /// It is not carried out, and this class and status come of it; seconds for `Retry-After`.
    Fails(Class, u16, Option<u64>),
    /// It is carried out, and what comes back cannot be read.
    Unreadable,
    /// Another person sets this key just before it is carried out.
    HumanBefore(&'static str),
    /// Another person sets this key just after it was carried out.
    HumanAfter(&'static str),
}

/// Which calls a scripted fault strikes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    /// So many, after so many.
    Calls { skip: u32, times: u32 },
    /// All in these seconds, counted from the new key's first use.
    Seconds(u64, u64),
}

/// A scripted fault. `call` is `observe`, `clusters`, `alerts`, `patch_new`, `patch_old` or `any`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) call: &'static str,
    pub(crate) when: When,
    pub(crate) odd: Odd,
}

/// What a named case decides instead of a seed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    pub(crate) faults: Vec<Fault>,
    pub(crate) kills: VecDeque<Kill>,
    /// Kills that happened.
    pub(crate) killed: usize,
    /// Seconds after the new key's first use from which Atlas does not encrypt with it any more.
    pub(crate) disabled_from: Option<u64>,
    /// The mail of a rotation's end cannot be written, once.
    pub(crate) torn_end: bool,
    /// The first approvals are cut off while they are written.
    pub(crate) torn_vote: bool,
    /// A new process goes on after every step.
    pub(crate) restarts: bool,
    /// After how many seconds another person sets which key.
    pub(crate) humans: Vec<(u64, &'static str)>,
}

/// What a drained bucket says in `Retry-After`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Header {
    Missing,
    UntilFull,
    /// So many seconds, and then it is still empty.
    Short(u64),
}

/// A time in which the bucket of an endpoint set is empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drained {
    pub(crate) set: EndpointSet,
    from: Timestamp,
    to: Timestamp,
    header: Header,
}

impl Drained {
    fn draw(dice: &mut Dice, start: Timestamp, calm_from: Timestamp) -> Self {
        const SETS: [EndpointSet; 5] = [
            EndpointSet::Encryption,
            EndpointSet::PrivateEndpoints,
            EndpointSet::Clusters,
            EndpointSet::Alerts,
            EndpointSet::Events,
        ];
        let set = SETS[usize::try_from(dice.roll(5)).unwrap()];
        let from = start + dice.seconds(0, 1200);
        let to = (from + dice.seconds(10, 3600)).min(calm_from);
        let header = match dice.roll(3) {
            0 => Header::Missing,
            1 => Header::UntilFull,
            _ => Header::Short(dice.roll(90) + 1),
        };
        Self { set, from, to, header }
    }
}

/// What a seed decides beforehand.
#[expect(clippy::struct_excessive_bools, reason = "each is drawn by itself")]
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) lie: Lie,
    /// Percent of calls that fail on their way.
    pub(crate) faults: u64,
    /// Per mille of points at which the process is killed, or stands still.
    pub(crate) accidents: u64,
    /// Percent of commits that fail.
    pub(crate) bad_commits: u64,
    /// A second process takes over what a stopped one held; otherwise a restart knows that it is alone.
    pub(crate) fleet: bool,
    /// No faults and no accidents from then on.
    pub(crate) calm_from: Timestamp,
    /// What `valid` says of the new key, from which second after its first use on.
    pub(crate) validity: Vec<(u64, Option<bool>)>,
    /// The old key's last second, counted likewise.
    pub(crate) old_dies: Option<u64>,
    /// The key service cannot be reached, and an alert says so.
    pub(crate) network_denied: bool,
    /// Atlas lets go of a key that does not work. Documented: it does not.
    pub(crate) lets_go: bool,
    pub(crate) private: bool,
    pub(crate) stale: Duration,
    pub(crate) clusters: Vec<&'static str>,
    /// After how many seconds an approver thinks better of it.
    pub(crate) withdraws: Option<u64>,
    /// Rate limits that other tools of the customer use up.
    pub(crate) drained: Vec<Drained>,
    pub(crate) script: Option<Script>,
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
    /// Nothing goes wrong but what `script` says.
    pub(crate) fn scripted(start: Timestamp, lie: Lie, script: Script) -> Self {
        Self {
            lie,
            faults: 0,
            accidents: 0,
            bad_commits: 0,
            fleet: false,
            calm_from: start,
            validity: vec![(0, Some(true))],
            old_dies: None,
            network_denied: false,
            lets_go: false,
            private: false,
            stale: Duration::ZERO,
            clusters: vec!["UPDATES", "UPDATES"],
            withdraws: None,
            drained: Vec::new(),
            script: Some(script),
        }
    }

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
            withdraws: None,
            drained: Vec::new(),
            script: None,
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
    /// Until when Atlas refuses an endpoint set, as its last `Retry-After` named it.
    not_before: BTreeMap<EndpointSet, Timestamp>,
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

/// Whose rate limit a call counts against.
fn set_of(call: &str) -> EndpointSet {
    match call {
        "clusters" => EndpointSet::Clusters,
        "alerts" => EndpointSet::Alerts,
        "events" => EndpointSet::Events,
        "may_change" => EndpointSet::PrivateEndpoints,
        _ => EndpointSet::Encryption,
    }
}

fn failed(class: Class, status: Option<u16>, retry_after: Option<Span>) -> Failure {
    Failure { class, status, code: None, detail: "as the seed has it".to_owned(), retry_after }
}

impl World {
    pub(crate) fn new(seed: u64, lie: Lie, store: Store) -> Self {
        let start: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let mut dice = Dice::new(seed);
        let start = start + dice.seconds(0, 86_400);
        let mut plan = Plan::draw(&mut dice, start, lie);
        // Dice of its own: what was kept before there was this must go on telling its story.
        let mut second = Dice::new(seed ^ (1 << 40));
        plan.withdraws = second.chance(15).then(|| second.roll(500));
        let mut third = Dice::new(seed ^ (1 << 41));
        if third.chance(40) {
            let calm_from = plan.calm_from;
            plan.drained = (0..=third.roll(3)).map(|_| Drained::draw(&mut third, start, calm_from)).collect();
        }
        let humans = match dice.roll(10) {
            0 => vec![(dice.roll(1200), THIRD)],
            1 => vec![(dice.roll(1200), OLD)],
            2 => vec![(dice.roll(300), NEW), (300 + dice.roll(300), THIRD)],
            _ => vec![],
        };
        Self::of(dice, plan, start, humans, store)
    }

    /// A world in which only `script` decides, and what `more` makes of it.
    pub(crate) fn scripted(lie: Lie, script: Script, more: impl FnOnce(&mut Plan), store: Store) -> Self {
        let start: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let humans = script.humans.clone();
        let mut plan = Plan::scripted(start, lie, script);
        more(&mut plan);
        Self::of(Dice::new(0), plan, start, humans, store)
    }

    fn of(dice: Dice, plan: Plan, start: Timestamp, humans: Vec<(u64, &'static str)>, store: Store) -> Self {
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
            not_before: BTreeMap::new(),
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
    #[expect(clippy::too_many_lines, reason = "the way of a call is told in its order")]
    async fn call<T>(
        &self,
        what: &'static str,
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
        let set = set_of(what);
        self.runs().await;
        self.killed(what, At::Before).await;
        if let Some(asleep) = self.accident().await
            && asleep >= timeout
        {
            return Err(failed(Class::Unknown, None, None));
        }
        self.pass(there);
        self.judge_wait(set);
        if lost == Some(0) {
            self.pass(timeout);
            return Err(failed(Class::Unknown, None, None));
        }
        let now = self.clock.now();
        // Bound first: what is matched on in place would hold the lock through the branch.
        let drained = self.inner().drained(set, now);
        if let Some(seconds) = drained {
            self.wait_named(set, seconds);
            self.pass(back);
            return Err(failed(Class::Transient, Some(429), seconds.map(Span::from_secs)));
        }
        let scripted = self.inner().struck(what, now);
        match scripted {
            None | Some(Odd::LostReply | Odd::Unreadable | Odd::HumanAfter(_)) => {}
            Some(Odd::Lost) => {
                self.pass(timeout);
                return Err(failed(Class::Unknown, None, None));
            }
            Some(Odd::Late(seconds)) => {
                let key = if what == "patch_old" { OLD } else { NEW };
                let at = now + Duration::from_secs(seconds);
                self.inner().events.push_back((at, Event::Late(key)));
                self.pass(timeout);
                return Err(failed(Class::Unknown, None, None));
            }
            Some(Odd::Fails(class, status, retry_after)) => {
                self.killed(what, At::Acted).await;
                self.pass(back);
                self.killed(what, At::Answered).await;
                self.wait_named(set, retry_after);
                return Err(failed(class, Some(status), retry_after.map(Span::from_secs)));
            }
            Some(Odd::HumanBefore(key)) => {
                let mut inner = self.inner();
                inner.human_acted = true;
                inner.set(key, now);
            }
        }
        match odd {
            Some(0) => {
                let seconds = self.inner().dice.roll(90) + 1;
                self.wait_named(set, Some(seconds));
                self.pass(back);
                // The header counts from the answer; the world is that much kinder.
                return Err(failed(Class::Transient, Some(429), Some(Span::from_secs(seconds))));
            }
            Some(1) => {
                self.pass(back);
                return Err(failed(Class::Unknown, Some(502), None));
            }
            Some(2) if !what.starts_with("patch") => {
                self.pass(back);
                return Err(failed(Class::Transient, Some(429), None));
            }
            _ => {}
        }
        let now = self.clock.now();
        let answer = effect(&mut self.inner(), now);
        if let Some(Odd::HumanAfter(key)) = scripted {
            let mut inner = self.inner();
            inner.human_acted = true;
            inner.set(key, now);
        }
        self.killed(what, At::Acted).await;
        if matches!(scripted, Some(Odd::LostReply)) {
            self.pass(timeout);
            return Err(failed(Class::Unknown, None, None));
        }
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
        self.killed(what, At::Answered).await;
        if matches!(scripted, Some(Odd::Unreadable)) {
            return Err(failed(Class::Unknown, Some(200), None));
        }
        answer
    }

    /// I13, at the instant a request is received.
    fn judge_wait(&self, set: EndpointSet) {
        let now = self.clock.now();
        let mut inner = self.inner();
        // People may be impatient, and a new process does not know what the last one was told.
        let known = inner.watched.is_some() && inner.plan.accidents == 0 && inner.plan.bad_commits == 0;
        if known && inner.not_before.get(&set).is_some_and(|at| now < *at) {
            inner.accuse(&format!("I13: {set} was asked again before its Retry-After was over"));
        }
    }

    /// Atlas refuses `set`, and names a wait or none.
    fn wait_named(&self, set: EndpointSet, seconds: Option<u64>) {
        let now = self.clock.now();
        let mut inner = self.inner();
        match seconds {
            Some(seconds) => {
                // A key is read after five minutes whatever Atlas asks for, and while it is proven sooner.
                let longest = match (set, inner.patches.is_empty()) {
                    (EndpointSet::Encryption, true) => 300,
                    (EndpointSet::Encryption, false) => 15,
                    _ => seconds,
                };
                inner.not_before.insert(set, now + Duration::from_secs(seconds.min(longest)))
            }
            None => inner.not_before.remove(&set),
        };
    }

    /// The key may be read at once.
    pub(crate) fn impatient(&self) {
        self.inner().not_before.remove(&EndpointSet::Encryption);
    }

    /// A new process knows of the waits that are in the database, and of no others.
    pub(crate) fn forget_waits(&self) {
        self.inner().not_before.retain(|set, _| *set == EndpointSet::Encryption);
    }

    /// Calls of one observation run side by side: while their process stands still, none of them goes on.
    async fn runs(&self) {
        std::future::poll_fn(|_| {
            if self.inner().stop.is_some() { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
        })
        .await;
    }

    /// The process ends here if the script says so; then this never returns.
    async fn killed(&self, call: &'static str, at: At) {
        let Some((kill, watched)) = self.inner().next_kill() else { return };
        if kill.call != call || kill.at != at {
            return;
        }
        if let Some(state) = kill.state {
            let row = self.store.rotation(watched).await.unwrap().unwrap();
            if row.rotation.state != state {
                return;
            }
        }
        let dies = self.inner().kill_now();
        if dies {
            self.stopped.notify_one();
            std::future::pending::<()>().await;
        }
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
        let intent = row.patching.latest.as_ref().filter(|it| it.target == target && it.reply.is_none());
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
            if yes < required || sent >= row.permission.expires_at || !row.rules.policy.window_open(sent) {
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
    fn next_kill(&self) -> Option<(Kill, RotationId)> {
        Some((*self.plan.script.as_ref()?.kills.front()?, self.watched?))
    }

    /// Counts the call that fits; says whether it is the one.
    fn kill_now(&mut self) -> bool {
        let Some(script) = &mut self.plan.script else { return false };
        let Some(kill) = script.kills.front_mut() else { return false };
        if kill.skip > 0 {
            kill.skip -= 1;
            return false;
        }
        script.kills.pop_front();
        script.killed += 1;
        self.stop = Some(Stop::Crash);
        true
    }

    /// The answer of a bucket that is empty: what `Retry-After` names, if it names anything.
    #[expect(clippy::option_option, reason = "a refusal, and its header")]
    fn drained(&self, set: EndpointSet, now: Timestamp) -> Option<Option<u64>> {
        let empty = |it: &&Drained| it.set == set && it.from <= now && now < it.to;
        let drained = self.plan.drained.iter().find(empty)?;
        let left = drained.to.since(now).as_secs() + 1;
        Some(match drained.header {
            Header::Missing => None,
            Header::UntilFull => Some(left),
            Header::Short(seconds) => Some(seconds.min(left)),
        })
    }

    /// The scripted fault that strikes this call, if one does.
    fn struck(&mut self, call: &str, now: Timestamp) -> Option<Odd> {
        self.watched?;
        let since = self.first_new.map(|at| now.since(at).as_secs());
        let script = self.plan.script.as_mut()?;
        for fault in script.faults.iter_mut().filter(|it| it.call == call || it.call == "any") {
            match &mut fault.when {
                When::Calls { skip: 1.., .. } | When::Calls { times: 0, .. } => {
                    if let When::Calls { skip: skip @ 1.., .. } = &mut fault.when {
                        *skip -= 1;
                    }
                }
                When::Calls { times, .. } => {
                    *times -= 1;
                    return Some(fault.odd);
                }
                When::Seconds(from, to) if since.is_some_and(|it| (*from..*to).contains(&it)) => {
                    return Some(fault.odd);
                }
                When::Seconds(..) => {}
            }
        }
        None
    }

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
        let disabled = (self.plan.script.as_ref())
            .and_then(|it| it.disabled_from)
            .zip(self.first_new)
            .is_some_and(|(from, at)| (from..HALF_A_DAY).contains(&now.since(at).as_secs()));
        let told = if self.plan.lie == Lie::ThirdIsOld && shown == THIRD { OLD } else { shown };
        Observation {
            at: now,
            provider: (!disabled).then_some(Provider::Aws),
            key: (!disabled).then(|| key(told)),
            valid: if self.plan.lie == Lie::AlwaysValid { Some(true) } else { valid },
            private_networking: self.plan.private,
            place: Place::default(),
            block_hash: String::new(),
            invalid_beside: None,
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
            ..Cluster::default()
        })
        .collect()
    }
}

/// This world keeps no events and lists nobody.
fn nothing_kept<'a, T: Send + 'a>() -> BoxFuture<'a, Result<T, Failure>> {
    Box::pin(async { Err(failed(Class::Unknown, None, None)) })
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
    ) -> BoxFuture<'a, PatchReply> {
        Box::pin(async move {
            let text = key.to_string();
            let Some(key) = constant(&text) else {
                self.inner().accuse("I1: a key from nowhere");
                return PatchReply::Accepted;
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
            let what = if key == OLD { "patch_old" } else { "patch_new" };
            let answer = self.call(what, timeout, |inner, now| inner.take(key, now)).await;
            let mut inner = self.inner();
            inner.in_flight = None;
            let lie = inner.plan.lie;
            inner.trace.push(format!("reply {:?}", answer.as_ref().map_err(|it| (it.class, it.status))));
            match answer {
                Ok(()) => PatchReply::Accepted,
                Err(failure) => match failure.class {
                    Class::Transient | Class::TooOld => PatchReply::NotTaken(failure),
                    Class::Refused | Class::BadKey | Class::Config => PatchReply::Refused(failure),
                    Class::Auth => PatchReply::Auth(failure),
                    Class::Gone => PatchReply::Gone(failure),
                    _ if lie == Lie::UnknownIsRefused => PatchReply::Refused(failure),
                    Class::Unknown => PatchReply::Unknown(failure),
                },
            }
        })
    }

    fn group<'a>(
        &'a self,
        _: &'a str,
        group: &'a GroupId,
        _: Duration,
    ) -> BoxFuture<'a, Result<Group, Failure>> {
        let name = "searched".to_owned();
        Box::pin(async { Ok(Group { id: group.clone(), name, org: None, clusters: None, tags: Vec::new() }) })
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

    fn may_change<'a>(
        &'a self,
        _: &'a str,
        _: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(self.call("may_change", timeout, |_, _| Ok(true)))
    }

    fn network_denied<'a>(
        &'a self,
        _: &'a str,
        _: &'a GroupId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(self.call("alerts", timeout, |inner, _| Ok(inner.plan.network_denied)))
    }

    fn credentials(&self) -> Vec<String> {
        vec!["default".to_owned()]
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
        nothing_kept()
    }

    fn key_events<'a>(
        &'a self,
        _: &'a str,
        _: &'a GroupId,
        _: Timestamp,
        _: Duration,
    ) -> BoxFuture<'a, Result<Vec<KeyEvent>, Failure>> {
        Box::pin(async move {
            let now = self.clock.now();
            self.judge_wait(EndpointSet::Events);
            let seconds = self.inner().drained(EndpointSet::Events, now);
            let Some(seconds) = seconds else { return nothing_kept().await };
            self.wait_named(EndpointSet::Events, seconds);
            Err(failed(Class::Transient, Some(429), seconds.map(Span::from_secs)))
        })
    }

    fn project_owners<'a>(
        &'a self,
        _: &'a str,
        _: &'a GroupId,
        _: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        nothing_kept()
    }

    fn teams<'a>(
        &'a self,
        _: &'a str,
        _: &'a GroupId,
        _: Duration,
    ) -> BoxFuture<'a, Result<Vec<Team>, Failure>> {
        nothing_kept()
    }

    fn team_members<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: &'a str,
        _: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        nothing_kept()
    }

    fn team_name<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: &'a str,
        _: Duration,
    ) -> BoxFuture<'a, Result<String, Failure>> {
        nothing_kept()
    }

    fn org_owners<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        nothing_kept()
    }
}
