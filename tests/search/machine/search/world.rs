//! A world that one seed makes: Atlas with late, lost and refused PATCHes, stale reads, drained rate limits
//! and clocks that disagree; a key service that changes its mind; clusters; and other people.

use std::collections::BTreeMap;
use std::time::Duration;

use keywheel::domain::key::{Place, Provider};
use keywheel::domain::policy::{Policy, Rules};
use keywheel::domain::preflight::{Check, CheckName, Verdict};
use keywheel::domain::rotation::outcome::{Class, Cluster, Extras, Failure, Look, Observation, PatchReply};
use keywheel::domain::rotation::state::Target;
use keywheel::domain::time::{Span, Timestamp};

use super::super::world::{NEW, OLD, OTHER, failure, key, start};

pub(in super::super) struct Dice(u64);

impl Dice {
    /// Splitmix64.
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(super) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    pub(super) fn pick<T, const N: usize>(&mut self, of: [T; N]) -> T {
        let index = usize::try_from(self.below(N as u64)).unwrap();
        of.into_iter().nth(index).unwrap()
    }

    pub(super) fn secs(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from * 1000 + self.below((to - from) * 1000))
    }
}

/// What Atlas would say of `valid` of the new key, from the instant at which it is in force.
#[derive(Clone, Copy, Debug)]
enum Health {
    Good,
    Bad,
    Absent,
    GoodAfter(Duration),
    AbsentUntil(Duration),
    GoodUntil(Duration),
    Flapping(Duration),
    Moody,
}

impl Health {
    pub(super) fn roll(dice: &mut Dice) -> Self {
        let minutes = Duration::from_secs(dice.one(&[10, 40, 65, 100, 300, 700, 1000, 1500]));
        match dice.below(12) {
            0..=3 => Health::Good,
            4 => Health::Bad,
            5 => Health::Absent,
            6 => Health::GoodAfter(minutes),
            7 => Health::AbsentUntil(minutes),
            8 | 9 => Health::GoodUntil(minutes),
            10 => Health::Flapping(Duration::from_secs(dice.one(&[14, 31, 47, 62]))),
            _ => Health::Moody,
        }
    }
}

/// A cluster after the key in force has changed.
#[derive(Clone, Debug)]
struct Roll {
    name: &'static str,
    begins: Duration,
    ends: Duration,
    during: &'static str,
    paused: bool,
}

impl Roll {
    pub(super) fn new(dice: &mut Dice, number: u64) -> Self {
        let begins = dice.secs(0, 90);
        Roll {
            name: ["c0", "c1", "c2"][usize::try_from(number).unwrap()],
            begins,
            ends: begins + Duration::from_secs(dice.one(&[5, 70, 900, 100_000])),
            during: dice.one(&["UPDATING", "UPDATING", "IDLE", "CREATING", "REPAIRING", "ODD"]),
            paused: dice.chance(15),
        }
    }
}

fn rules(dice: &mut Dice) -> Rules {
    let mut rules = Rules::default();
    if dice.chance(15) {
        let text = r#"{ "cron": "0 0 13 * * *", "duration": "2h", "timezone": "UTC" }"#;
        rules.policy = Policy { windows: vec![serde_json::from_str(text).unwrap()], ..rules.policy };
    }
    rules.policy.approvals = if dice.chance(20) { 2 } else { 1 };
    rules.whole_block = dice.chance(20);
    if dice.chance(30) {
        rules.policy.execution_ttl = Span::from_secs(dice.one(&[1, 30, 300, 5000]));
    }
    if dice.chance(20) {
        rules.policy.approval_ttl = Span::from_secs(dice.one(&[60, 3600]));
    }
    rules.verify.deploy_grace = Span::from_secs(dice.one(&[60, 600]));
    rules.verify.deploy_timeout = Span::from_secs(dice.one(&[700, 3600]));
    rules
}

/// What the world knows; `judge` reads it.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, none implies another")]
pub(in super::super) struct World {
    pub(in super::super) dice: Dice,
    pub(in super::super) rules: Rules,
    pub(in super::super) private: bool,
    pub(in super::super) now: Timestamp,
    /// The key in force, since when, and the one before it.
    pub(in super::super) key: Option<&'static str>,
    pub(in super::super) changed_at: Timestamp,
    previous: Option<&'static str>,
    stale_for: Duration,
    late: Vec<(Timestamp, &'static str)>,
    health: Health,
    denied: bool,
    old_bad_from: Option<Timestamp>,
    skew: Option<(Timestamp, Timestamp, i64)>,
    dark: Vec<(Timestamp, Timestamp, Failure)>,
    drops: u64,
    instant: bool,
    pub(super) operators: u64,
    /// How often they decide before they give up.
    pub(super) orders: u64,
    other: Option<(Timestamp, Option<&'static str>)>,
    pub(in super::super) other_acted: bool,
    rolls: Vec<Roll>,
    check_fails_until: Timestamp,
    block_changes_at: Option<Timestamp>,
    patch_faults: u64,
    /// No call may come before this instant.
    pub(in super::super) closed_until: Timestamp,
    /// Whether a PATCH has left.
    pub(in super::super) sent: bool,
    /// When a PATCH of the new key first was, or may have been, applied.
    pub(in super::super) exposed_since: Option<Timestamp>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let now = start();
        let rules = rules(&mut dice);
        let health = Health::roll(&mut dice);
        let spell = |dice: &mut Dice, percent: u64, within: u64, long: &[u64]| {
            dice.chance(percent).then(|| {
                let from = now + dice.secs(0, within);
                (from, from + Duration::from_secs(dice.one(long)))
            })
        };
        let skew = spell(&mut dice, 10, 300, &[60, 400, 9000])
            .map(|(from, to)| (from, to, dice.one(&[120_000, -120_001, 120_001, 7_200_000])));
        let dark = (0..2)
            .filter_map(|_| {
                let (from, to) = spell(&mut dice, 25, 1200, &[5, 40, 400, 1500, 6000])?;
                Some((from, to, fault(&mut dice)))
            })
            .collect();
        let other = dice
            .chance(25)
            .then(|| (now + dice.secs(1, 2000), dice.one(&[Some(OTHER), Some(OLD), Some(NEW), None])));
        let rolls = (0..dice.below(3)).map(|number| Roll::new(&mut dice, number)).collect();
        Self {
            private: dice.chance(25),
            now,
            key: Some(OLD),
            changed_at: now - Duration::from_secs(86_400),
            previous: None,
            stale_for: if dice.chance(20) { dice.secs(1, 110) } else { Duration::ZERO },
            late: Vec::new(),
            health,
            denied: dice.chance(15),
            old_bad_from: dice.chance(15).then(|| now + dice.secs(0, 1500)),
            skew,
            dark,
            instant: dice.chance(50),
            operators: dice.one(&[0, 2, 15]),
            orders: 6,
            drops: dice.one(&[0, 0, 0, 3, 20]),
            other,
            other_acted: false,
            rolls,
            check_fails_until: if dice.chance(10) { now + dice.secs(1, 300) } else { now },
            block_changes_at: dice.chance(10).then(|| now + dice.secs(0, 400)),
            patch_faults: dice.one(&[0, 0, 30, 60]),
            closed_until: now,
            sent: false,
            exposed_since: None,
            rules,
            dice,
        }
    }

    /// None at all in half of the worlds, so that instants meet their limits exactly.
    pub(super) fn latency(&mut self) -> Duration {
        if self.instant { Duration::ZERO } else { Duration::from_millis(5 + self.dice.below(100)) }
    }

    pub(super) fn pass(&mut self, span: Duration) {
        let to = self.now + span;
        loop {
            let late = self.late.iter().map(|(at, _)| *at).filter(|at| *at <= to).min();
            let other = self.other.map(|(at, _)| at).filter(|at| *at <= to);
            let Some(at) = late.into_iter().chain(other).min() else { break };
            self.now = at.max(self.now);
            if Some(at) == other {
                let (_, key) = self.other.take().unwrap();
                if self.key != key {
                    self.other_acted = true;
                    self.set(key);
                }
            } else {
                let index = self.late.iter().position(|(it, _)| *it == at).unwrap();
                let (_, key) = self.late.remove(index);
                self.set(Some(key));
            }
        }
        self.now = to;
    }

    fn set(&mut self, key: Option<&'static str>) {
        if self.key != key {
            (self.previous, self.key, self.changed_at) = (self.key, key, self.now);
        }
    }

    /// What Atlas says of a key that is in force.
    pub(in super::super) fn valid(&mut self, key: &str) -> Option<bool> {
        if key == OLD {
            return Some(self.old_bad_from.is_none_or(|from| self.now < from));
        }
        if key != NEW {
            return Some(true);
        }
        let since = self.now.since(self.changed_at);
        match self.health {
            Health::Good => Some(true),
            Health::Bad => Some(false),
            Health::Absent => None,
            Health::GoodAfter(span) => Some(since >= span),
            Health::AbsentUntil(span) => (since >= span).then_some(true),
            Health::GoodUntil(span) => Some(since < span),
            Health::Flapping(span) => Some((since.as_secs() / span.as_secs()).is_multiple_of(2)),
            Health::Moody => self.dice.one(&[Some(true), Some(true), Some(true), Some(false), None]),
        }
    }

    fn clusters(&self) -> Vec<Cluster> {
        let since = self.now.since(self.changed_at);
        let state = |roll: &Roll| {
            if since >= roll.begins && since < roll.ends { roll.during } else { "IDLE" }
        };
        self.rolls
            .iter()
            .map(|it| Cluster {
                name: it.name.to_owned(),
                state: state(it).to_owned(),
                paused: it.paused,
                ..Cluster::default()
            })
            .collect()
    }

    fn fails(&mut self) -> Option<Failure> {
        let dark = self.dark.iter().find(|(from, to, _)| *from <= self.now && self.now < *to);
        let mut failure = dark.map(|(.., failure)| failure.clone());
        if failure.is_none() && self.dice.chance(self.drops) {
            failure = Some(fault(&mut self.dice));
        }
        if let Some(failure) = &failure {
            self.close(failure);
        }
        failure
    }

    fn close(&mut self, failure: &Failure) {
        let wait = match (failure.retry_after, failure.status) {
            (Some(span), _) => span.get(),
            (None, Some(429)) => self.rules.pace.rate_limit_floor.get(),
            _ => return,
        };
        // A key is read after five minutes whatever Atlas asks for, and while it is proven sooner.
        let longest = if self.sent { self.rules.verify.every.get() } else { Duration::from_secs(300) };
        self.closed_until = self.closed_until.max(self.now + wait.min(longest));
    }

    pub(super) fn look(&mut self, extras: Extras) -> Result<Look, Failure> {
        if let Some(failure) = self.fails() {
            return Err(failure);
        }
        let stale = self.now < self.changed_at + self.stale_for && self.previous.is_some();
        let shown = if stale { self.previous } else { self.key };
        let skew = self.skew.filter(|(from, to, _)| *from <= self.now && self.now < *to);
        let verdict = if self.now < self.check_fails_until { Verdict::Fail } else { Verdict::Warn };
        let checks = vec![Check { name: CheckName::KeyEnabled, result: verdict, detail: String::new() }];
        let changed = self.block_changes_at.is_some_and(|at| self.now >= at);
        // Alerts and clusters are calls of their own, and may fail on their own.
        let alerts = extras.alerts && !self.dice.chance(self.drops);
        let clusters = extras.clusters && !self.dice.chance(self.drops);
        Ok(Look {
            seen: Observation {
                at: self.now,
                provider: shown.map(|_| Provider::Aws),
                key: shown.map(key),
                valid: shown.and_then(|shown| self.valid(shown)),
                private_networking: self.private,
                place: Place::default(),
                block_hash: if changed { "changed".to_owned() } else { String::new() },
                invalid_beside: None,
                skew_ms: skew.map_or(Some(0), |(.., ms)| Some(ms)),
            },
            network_denied: alerts.then_some(self.denied),
            clusters: clusters.then(|| self.clusters()),
            checks: extras.preflight.then_some(checks),
            unanswered: BTreeMap::new(),
        })
    }

    pub(super) fn patch(&mut self, target: Target) -> PatchReply {
        let key = if target == Target::New { NEW } else { OLD };
        if let Some(failure) = self.fails() {
            return match failure.class {
                Class::Auth => PatchReply::Auth(failure),
                Class::Gone => PatchReply::Gone(failure),
                Class::Transient => PatchReply::NotTaken(failure),
                _ => PatchReply::Unknown(failure),
            };
        }
        let unknown = || PatchReply::Unknown(failure(Class::Unknown, Some(503)));
        if self.dice.chance(self.patch_faults) {
            match self.dice.below(6) {
                0 => return unknown(),
                1 => {
                    self.expose(target);
                    let at = self.now + self.dice.secs(1, 100);
                    self.late.push((at, key));
                    return unknown();
                }
                2 => {
                    self.expose(target);
                    self.set(Some(key));
                    return unknown();
                }
                3 => return PatchReply::Refused(failure(Class::BadKey, Some(400))),
                4 => return PatchReply::NotTaken(failure(Class::Transient, Some(405))),
                _ => {
                    let failure = fault(&mut self.dice);
                    self.close(&failure);
                    return PatchReply::NotTaken(Failure { class: Class::Transient, ..failure });
                }
            }
        }
        // Atlas refuses any change while it cannot use the key in force.
        let held = self.key.unwrap_or(OTHER);
        if self.valid(held) == Some(false) && self.dice.chance(50) {
            return PatchReply::Refused(failure(Class::Refused, Some(400)));
        }
        self.expose(target);
        self.set(Some(key));
        PatchReply::Accepted
    }

    fn expose(&mut self, target: Target) {
        if target == Target::New {
            self.exposed_since.get_or_insert(self.now);
        }
    }
}

fn fault(dice: &mut Dice) -> Failure {
    let class = dice.one(&[Class::Unknown, Class::Unknown, Class::Transient, Class::Auth, Class::Gone]);
    match class {
        Class::Transient => {
            let asked = dice.one(&[None, Some(3), Some(45), Some(400)]);
            Failure { retry_after: asked.map(Span::from_secs), ..failure(class, Some(429)) }
        }
        Class::Auth => failure(class, Some(401)),
        Class::Gone => failure(class, Some(404)),
        _ => failure(class, None),
    }
}
