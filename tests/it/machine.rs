//! The pure machine in a fake world: every pair of crash points times every outcome.
//!
//! The driver loop is imitated exactly (claim, look, decide, commit, act) and killed at named
//! points. Invariants are judged from the world's own log of what it received, never from our rows.

mod stored;

use std::collections::BTreeMap;
use std::time::Duration;

use keywheel::domain::ids::{GroupId, RotationId};
use keywheel::domain::key::{KeyRef, Place, Provider};
use keywheel::domain::policy::Rules;
use keywheel::domain::preflight::{Check, CheckName, Verdict};
use keywheel::domain::rotation::machine::{
    Announcement, Effect, MACHINE_VERSION, Resume, Step, extras, next, resume,
};
use keywheel::domain::rotation::outcome::{
    Class, Cluster, Command, Extras, Failure, Look, Observation, Outcome, Reply,
};
use keywheel::domain::rotation::state::{Cause, Hold, Proposal, Rotation, State, Target};
use keywheel::domain::time::{Span, Timestamp};
use sha2::Digest;

const OLD: &str = "11111111-1111-4111-8111-111111111111";
const NEW: &str = "22222222-2222-4222-8222-222222222222";
const OTHER: &str = "33333333-3333-4333-8333-333333333333";

type Decide = fn(&Rotation, &Outcome, Timestamp) -> Step;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Patching {
    Good,
    DropRequest,
    DropReply,
    LateApply,
    StaleReads,
    DropReplyStale,
    RateLimited,
    RefusedBadKey,
    AppliedThen500,
    AuthLost,
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Validity {
    True,
    FalseForever,
    FalseOnce,
    Flapping,
    Absent,
    SlowTrue,
    BadLater,
    Blind,
    NetworkDenied,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rollback {
    Good,
    Refused,
    DropReply,
    DropRequest,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Human {
    Nobody,
    ThirdKey,
    Revert,
}

#[derive(Clone, Copy, Debug)]
struct Scenario {
    patching: Patching,
    validity: Validity,
    rollback: Rollback,
    human: Human,
    private: bool,
}

/// Nothing goes wrong.
const PLAIN: Scenario = Scenario {
    patching: Patching::Good,
    validity: Validity::True,
    rollback: Rollback::Good,
    human: Human::Nobody,
    private: false,
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    BeforeLook,
    AfterLook,
    BeforePatch,
    InPatch,
    AfterPatch,
    BeforeCommit,
    AfterCommit,
}

const POINTS: [At; 7] = [
    At::BeforeLook,
    At::AfterLook,
    At::BeforePatch,
    At::InPatch,
    At::AfterPatch,
    At::BeforeCommit,
    At::AfterCommit,
];

fn key(text: &str) -> KeyRef {
    KeyRef::parse(Provider::Aws, text).unwrap()
}

fn start() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn failure(class: Class, status: Option<u16>) -> Failure {
    Failure {
        class,
        status,
        code: Some("CODE".to_owned()),
        detail: "as scripted".to_owned(),
        retry_after: None,
    }
}

/// Atlas and its key service, with a log of their own.
struct World {
    scenario: Scenario,
    now: Timestamp,
    key: &'static str,
    shown: Vec<(Timestamp, &'static str)>,
    late: Option<(Timestamp, &'static str)>,
    patches: Vec<(Timestamp, Target)>,
    looks: Vec<(Timestamp, &'static str, Option<bool>)>,
    first_applied: Option<Timestamp>,
    human_done: bool,
    third_key_seen: bool,
}

impl World {
    fn new(scenario: Scenario) -> Self {
        Self {
            scenario,
            now: start(),
            key: OLD,
            shown: Vec::new(),
            late: None,
            patches: Vec::new(),
            looks: Vec::new(),
            first_applied: None,
            human_done: false,
            third_key_seen: false,
        }
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
        if let Some((at, key)) = self.late
            && self.now >= at
        {
            self.late = None;
            self.set(key);
        }
        let since = self.first_applied.map_or(Duration::ZERO, |at| self.now.since(at));
        let when = match self.scenario.human {
            Human::Nobody => return,
            Human::ThirdKey => Duration::from_secs(20),
            Human::Revert => Duration::from_secs(200),
        };
        if !self.human_done && since >= when {
            self.human_done = true;
            self.key = if self.scenario.human == Human::ThirdKey { OTHER } else { OLD };
        }
    }

    fn set(&mut self, key: &'static str) {
        if self.human_done {
            return;
        }
        self.key = key;
        if key == NEW {
            self.first_applied.get_or_insert(self.now);
        }
    }

    fn valid(&self, key: &str) -> Option<bool> {
        if key != NEW {
            return Some(true);
        }
        let since = self.first_applied.map_or(0, |at| self.now.since(at).as_secs());
        match self.scenario.validity {
            Validity::True | Validity::Blind => Some(true),
            Validity::FalseForever | Validity::NetworkDenied => Some(false),
            Validity::FalseOnce => Some(since > 10),
            Validity::Flapping => Some((since / 16).is_multiple_of(2)),
            Validity::Absent => None,
            Validity::SlowTrue => (since > 480).then_some(true),
            Validity::BadLater => Some(since < 120),
        }
    }

    fn look(&mut self, extras: Extras) -> Result<Look, Failure> {
        let since = self.first_applied.map_or(Duration::ZERO, |at| self.now.since(at));
        if self.scenario.validity == Validity::Blind && since > Duration::from_secs(5) {
            return Err(failure(Class::Unknown, None));
        }
        let stale = matches!(self.scenario.patching, Patching::StaleReads | Patching::DropReplyStale)
            && self.key == NEW
            && since < Duration::from_secs(60);
        let shown = if stale { OLD } else { self.key };
        self.third_key_seen |= shown == OTHER;
        let valid = self.valid(shown);
        self.looks.push((self.now, shown, valid));
        self.shown.push((self.now, shown));
        Ok(Look {
            seen: Observation {
                at: self.now,
                provider: Some(Provider::Aws),
                key: Some(key(shown)),
                valid,
                private_networking: self.scenario.private,
                place: Place::default(),
                block_hash: String::new(),
                skew_ms: Some(0),
            },
            network_denied: extras.alerts.then_some(self.scenario.validity == Validity::NetworkDenied),
            clusters: extras
                .clusters
                .then(|| vec![Cluster { name: "c0".to_owned(), state: "IDLE".to_owned(), paused: false }]),
            checks: extras.preflight.then(Vec::new),
            unanswered: BTreeMap::new(),
        })
    }

    fn patch(&mut self, target: Target) -> Reply {
        assert!(!self.third_key_seen, "I7: a PATCH after a third key was seen");
        self.patches.push((self.now, target));
        let first = self.patches.iter().filter(|(_, it)| *it == target).count() == 1;
        let unknown = || Reply::Unknown(failure(Class::Unknown, None));
        if target == Target::Old {
            return match self.scenario.rollback {
                Rollback::Refused => Reply::Refused(failure(Class::Refused, Some(400))),
                Rollback::DropRequest if first => unknown(),
                Rollback::DropReply if first => {
                    self.set(OLD);
                    unknown()
                }
                _ => {
                    self.set(OLD);
                    Reply::Accepted
                }
            };
        }
        match self.scenario.patching {
            Patching::DropRequest if first => return unknown(),
            Patching::LateApply if first => {
                self.late = Some((self.now + Duration::from_secs(90), NEW));
                return unknown();
            }
            Patching::RateLimited if first => {
                return Reply::NotTaken(Failure {
                    retry_after: Some(Span::from_secs(20)),
                    ..failure(Class::Transient, Some(429))
                });
            }
            Patching::RefusedBadKey => return Reply::Refused(failure(Class::BadKey, Some(400))),
            Patching::AuthLost => return Reply::Auth(failure(Class::Auth, Some(401))),
            Patching::Gone => return Reply::Gone(failure(Class::Gone, Some(404))),
            _ => {}
        }
        self.set(NEW);
        match self.scenario.patching {
            Patching::DropReply | Patching::DropReplyStale if first => unknown(),
            Patching::AppliedThen500 if first => Reply::Unknown(failure(Class::Unknown, Some(500))),
            _ => Reply::Accepted,
        }
    }
}

struct Run {
    rotation: Rotation,
    /// The rotation as it was committed each time.
    visited: Vec<Rotation>,
    world: World,
    notices: Vec<Announcement>,
    steps: usize,
}

fn proposed(world: &World) -> Rotation {
    let seen = Observation {
        at: world.now,
        provider: Some(Provider::Aws),
        key: Some(key(OLD)),
        valid: Some(true),
        private_networking: world.scenario.private,
        place: Place::default(),
        block_hash: String::new(),
        skew_ms: Some(0),
    };
    let rotation = Rotation::propose(
        Proposal {
            group_id: "32b6e34b3d91647abb20e7b8".parse::<GroupId>().unwrap(),
            new_key: key(NEW),
            seen,
            checks: Vec::new(),
            old_key: key(OLD),
            rules: Rules::default(),
        },
        world.now,
    );
    // Waits are spread by the id: a fixed one decides the same each time.
    Rotation { id: RotationId(uuid::Uuid::from_u128(7)), ..rotation }
}

fn propose(world: &World) -> Rotation {
    let rotation = proposed(world);
    next(&rotation, &Outcome::Said(Command::Approve { given: 1 }), world.now).rotation
}

/// Plays one scenario to its end, killed the first time each of `crashes` is reached, in order.
#[expect(clippy::too_many_lines, reason = "the world and the machine take turns in one loop")]
fn play(decide: Decide, scenario: Scenario, crashes: &[At]) -> Result<Run, String> {
    let mut world = World::new(scenario);
    let mut crashes = crashes.iter().copied().peekable();
    let mut durable = propose(&world);
    let mut notices = Vec::new();
    let mut visited = vec![durable.clone()];
    let mut steps = 0;
    let mut crash = |at: At| {
        let hit = crashes.peek() == Some(&at);
        if hit {
            crashes.next();
        }
        hit
    };
    while let Some(wake) = durable.wake_at {
        let stuck_for = durable.operator.paged_at.map_or(Duration::ZERO, |at| world.now.since(at));
        let done = durable.state == State::NeedsOperator && stuck_for > Duration::from_secs(300);
        if done || steps > 3000 {
            break;
        }
        world.pass(world.now.until(wake).max(Duration::from_millis(1)));
        let mut outcome = None;
        let mut effect = match resume(&durable, world.now) {
            Resume::Look(extras) => Effect::Look(extras),
            Resume::Blind(failure) => {
                outcome = Some(Outcome::Blind(failure));
                Effect::Rest
            }
        };
        loop {
            steps += 1;
            let happened = match (outcome.take(), effect) {
                (Some(outcome), _) => outcome,
                (None, Effect::Rest) => break,
                (None, Effect::Look(extras)) => {
                    if crash(At::BeforeLook) {
                        world.pass(Duration::from_secs(20));
                        break;
                    }
                    let looked = world.look(extras);
                    if crash(At::AfterLook) {
                        world.pass(Duration::from_secs(20));
                        break;
                    }
                    looked.map_or_else(Outcome::Blind, Outcome::Looked)
                }
                (None, Effect::Patch(target)) => {
                    let intent = durable
                        .patching
                        .latest
                        .as_ref()
                        .is_some_and(|it| it.target == target && it.reply.is_none());
                    if !intent {
                        return Err(format!("I2: PATCH({target}) without a committed intent"));
                    }
                    check_permission(&durable, target, world.now)?;
                    if crash(At::BeforePatch) {
                        world.pass(Duration::from_secs(20));
                        break;
                    }
                    let reply = world.patch(target);
                    if crash(At::InPatch) || crash(At::AfterPatch) {
                        world.pass(Duration::from_secs(70));
                        break;
                    }
                    Outcome::Replied(reply)
                }
            };
            world.pass(Duration::from_millis(20));
            let step = decide(&durable, &happened, world.now);
            if crash(At::BeforeCommit) {
                world.pass(Duration::from_secs(20));
                break;
            }
            if durable.state.is_final() && step.rotation.state != durable.state {
                return Err(format!("{} left its end for {}", durable.state, step.rotation.state));
            }
            durable = step.rotation;
            visited.push(durable.clone());
            notices.extend(step.notices);
            check(&durable, &world, notices.contains(&Announcement::Page { repeat: 0 }))?;
            if crash(At::AfterCommit) {
                world.pass(Duration::from_secs(20));
                break;
            }
            effect = step.effect;
        }
    }
    let run = Run { rotation: durable, visited, world, notices, steps };
    check_end(&run)?;
    Ok(run)
}

fn check_permission(rotation: &Rotation, target: Target, now: Timestamp) -> Result<(), String> {
    let allowed = target == Target::Old
        || (rotation.permission.quorum.is_met()
            && now < rotation.permission.expires_at
            && rotation.rules.policy.window_open(now));
    if allowed { Ok(()) } else { Err("I3: a PATCH without permission".to_owned()) }
}

fn check(rotation: &Rotation, world: &World, paged: bool) -> Result<(), String> {
    if rotation.state == State::Completed && rotation.ending.finished_at == Some(world.now) {
        let wanted = rotation.rules.verify.readings as usize;
        let last: Vec<_> = world.looks.iter().rev().take(wanted).collect();
        if last.len() < wanted || last.iter().any(|(_, key, valid)| *key != NEW || *valid != Some(true)) {
            return Err("I5: completed without readings that the world gave".to_owned());
        }
    }
    if let Some(first) = world.first_applied {
        let unresolved = matches!(rotation.state, State::Applying | State::Verifying | State::RollingBack);
        let limit = Duration::from_secs(if world.scenario.private { 22 * 60 } else { 16 * 60 });
        if unresolved && !paged && world.now.since(first) > limit {
            return Err(format!("I6: still {} after {:?}", rotation.state, world.now.since(first)));
        }
    }
    Ok(())
}

fn check_end(run: &Run) -> Result<(), String> {
    let (state, world) = (run.rotation.state, &run.world);
    let held = world.key;
    let agrees = match state {
        State::Completed => held == NEW || world.human_done,
        State::RolledBack | State::Failed => held == OLD,
        State::Superseded => world.human_done,
        State::NeedsOperator => run.notices.contains(&Announcement::Page { repeat: 0 }),
        _ => false,
    };
    if !agrees {
        return Err(format!("I16: ended {state} ({:?}) while Atlas holds {held}", run.rotation.cause));
    }
    let announced = state == State::NeedsOperator || run.notices.contains(&Announcement::Finished(state));
    if !announced {
        return Err(format!("{state} was not announced"));
    }
    if run.steps > 3000 {
        return Err("I16: does not converge".to_owned());
    }
    // Idempotent by value is no excuse for a storm.
    if world.patches.len() > 8 {
        return Err(format!("I4: {} PATCHes", world.patches.len()));
    }
    Ok(())
}

fn scenarios() -> Vec<Scenario> {
    use Patching as P;
    use Validity as V;
    let base = PLAIN;
    let mut all = Vec::new();
    for patching in [
        P::Good,
        P::DropRequest,
        P::DropReply,
        P::LateApply,
        P::StaleReads,
        P::DropReplyStale,
        P::RateLimited,
        P::RefusedBadKey,
        P::AppliedThen500,
        P::AuthLost,
        P::Gone,
    ] {
        for validity in [
            V::True,
            V::FalseForever,
            V::FalseOnce,
            V::Flapping,
            V::Absent,
            V::SlowTrue,
            V::BadLater,
            V::Blind,
            V::NetworkDenied,
        ] {
            all.push(Scenario { patching, validity, ..base });
        }
    }
    for rollback in [Rollback::Refused, Rollback::DropReply, Rollback::DropRequest] {
        for validity in [V::FalseForever, V::Flapping] {
            all.push(Scenario { validity, rollback, ..base });
        }
    }
    for human in [Human::ThirdKey, Human::Revert] {
        for validity in [V::True, V::FalseForever, V::Absent] {
            all.push(Scenario { validity, human, ..base });
        }
    }
    all.push(Scenario { private: true, ..base });
    all.push(Scenario { private: true, validity: V::BadLater, ..base });
    all
}

fn grid(decide: Decide) -> (usize, Vec<String>) {
    let mut runs = 0;
    let mut broken = Vec::new();
    for scenario in scenarios() {
        let mut schedules: Vec<Vec<At>> = vec![vec![]];
        schedules.extend(POINTS.iter().map(|point| vec![*point]));
        schedules.extend(POINTS.iter().flat_map(|a| POINTS.iter().map(|b| vec![*a, *b])));
        for schedule in schedules {
            runs += 1;
            let outcome = std::panic::catch_unwind(|| play(decide, scenario, &schedule).map(|_| ()));
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(why)) => broken.push(format!("{scenario:?} {schedule:?}: {why}")),
                Err(_) => broken.push(format!("{scenario:?} {schedule:?}: panicked")),
            }
        }
    }
    (runs, broken)
}

#[test]
fn every_pair_of_crash_points_times_every_outcome_keeps_the_invariants() {
    let (runs, broken) = grid(next);
    assert!(runs > 5000, "only {runs} runs");
    assert!(
        broken.is_empty(),
        "{} of {runs} runs broke a rule, first:\n{}",
        broken.len(),
        broken[..broken.len().min(12)].join("\n")
    );
}

fn unknown_counts_as_failed(rotation: &Rotation, outcome: &Outcome, now: Timestamp) -> Step {
    match outcome {
        Outcome::Replied(Reply::Unknown(failure)) => {
            next(rotation, &Outcome::Replied(Reply::Refused(failure.clone())), now)
        }
        other => next(rotation, other, now),
    }
}

fn unhealthy_counts_as_done(rotation: &Rotation, outcome: &Outcome, now: Timestamp) -> Step {
    match outcome {
        Outcome::Looked(look) => {
            let mut look = look.clone();
            look.seen.valid = Some(true);
            next(rotation, &Outcome::Looked(look), now)
        }
        other => next(rotation, other, now),
    }
}

#[test]
fn the_grid_catches_a_machine_that_takes_no_answer_for_a_no() {
    assert!(!grid(unknown_counts_as_failed).1.is_empty());
}

#[test]
fn the_grid_catches_a_machine_that_takes_unhealthy_for_done() {
    assert!(!grid(unhealthy_counts_as_done).1.is_empty());
}

fn end_of(
    patching: Patching,
    validity: Validity,
    rollback: Rollback,
    private: bool,
) -> (State, Option<Cause>, usize) {
    let scenario = Scenario { patching, validity, rollback, human: Human::Nobody, private };
    let run = play(next, scenario, &[]).unwrap();
    (run.rotation.state, run.rotation.cause, run.world.patches.len())
}

#[test]
fn each_outcome_ends_where_the_table_says() {
    use Patching as P;
    use Rollback as R;
    use State as S;
    use Validity as V;
    let table = [
        (P::Good, V::True, R::Good, false, (S::Completed, None, 1)),
        (P::DropRequest, V::True, R::Good, false, (S::Completed, None, 2)),
        (P::DropReply, V::True, R::Good, false, (S::Completed, None, 1)),
        (P::AppliedThen500, V::True, R::Good, false, (S::Completed, None, 1)),
        (P::StaleReads, V::True, R::Good, false, (S::Completed, None, 1)),
        (P::RateLimited, V::True, R::Good, false, (S::Completed, None, 2)),
        (P::RefusedBadKey, V::True, R::Good, false, (S::Failed, Some(Cause::Refused), 1)),
        (P::AuthLost, V::True, R::Good, false, (S::Failed, Some(Cause::Auth), 1)),
        (P::Gone, V::True, R::Good, false, (S::Failed, Some(Cause::Gone), 1)),
        (P::Good, V::FalseOnce, R::Good, false, (S::Completed, None, 1)),
        (P::Good, V::SlowTrue, R::Good, false, (S::Completed, None, 1)),
        (P::Good, V::FalseForever, R::Good, false, (S::RolledBack, None, 2)),
        (P::Good, V::FalseForever, R::DropReply, false, (S::RolledBack, None, 2)),
        (P::Good, V::FalseForever, R::Refused, false, (S::NeedsOperator, Some(Cause::RollbackRefused), 2)),
        (P::Good, V::NetworkDenied, R::Good, false, (S::NeedsOperator, Some(Cause::KmsUnreachable), 1)),
        (P::Good, V::Absent, R::Good, false, (S::NeedsOperator, Some(Cause::Unproven), 1)),
        (P::Good, V::Blind, R::Good, false, (S::NeedsOperator, Some(Cause::Unreachable), 1)),
        (P::Good, V::BadLater, R::Good, false, (S::NeedsOperator, Some(Cause::NewKeyInvalid), 1)),
        (P::Good, V::BadLater, R::Good, true, (S::RolledBack, None, 2)),
        (P::Good, V::True, R::Good, true, (S::Completed, None, 1)),
    ];
    for (patching, validity, rollback, private, expected) in table {
        assert_eq!(
            end_of(patching, validity, rollback, private),
            expected,
            "{patching:?} {validity:?} {rollback:?} private={private}"
        );
    }
}

#[test]
fn looks_that_always_come_too_late_page_when_the_guard_is_over() {
    let mut world = World::new(PLAIN);
    let mut rotation = propose(&world);
    let patched = next(&rotation, &Outcome::Looked(world.look(extras(&rotation)).unwrap()), world.now);
    let reply = world.patch(Target::New);
    rotation = next(&patched.rotation, &Outcome::Replied(reply), world.now).rotation;
    // An overloaded daemon: each look is later than two cadences after the last.
    for _ in 0..40 {
        world.pass(Duration::from_secs(40));
        let look = world.look(extras(&rotation)).unwrap();
        rotation = next(&rotation, &Outcome::Looked(look), world.now).rotation;
    }
    assert_eq!((rotation.state, rotation.cause), (State::NeedsOperator, Some(Cause::Unproven)));
}

#[test]
fn every_verb_is_legal_where_it_means_something() {
    use State as S;
    let world = World::new(PLAIN);
    let before = [S::AwaitingApproval, S::Approved];
    let stuck = [S::NeedsOperator];
    let table: [(Command, &[State]); 8] = [
        (Command::Approve { given: 1 }, &[S::AwaitingApproval]),
        (Command::Withdraw { given: 0 }, &before),
        (Command::Reject, &before),
        (Command::Cancel, &before),
        (Command::Resume, &stuck),
        (Command::Rollback, &stuck),
        (Command::Accept, &stuck),
        (Command::Close, &stuck),
    ];
    for state in State::ALL {
        for (command, legal) in &table {
            let mut rotation = propose(&world);
            rotation.state = *state;
            // A PATCH was sent, and Atlas shows the new key, valid.
            rotation.patching.attempts = 1;
            rotation.observing.last =
                Some(Observation { key: Some(key(NEW)), ..rotation.observing.last.unwrap() });
            let step = next(&rotation, &Outcome::Said(command.clone()), world.now);
            assert_eq!(!step.illegal, legal.contains(state), "{command:?} in {state}");
            if step.illegal {
                assert_eq!((step.rotation, step.effect, step.notices.len()), (rotation, Effect::Rest, 0));
            }
        }
    }
    // Nothing to put back, and nothing to take, where no PATCH was sent and the new key is not seen.
    let mut rotation = propose(&world);
    rotation.state = S::NeedsOperator;
    for command in [Command::Rollback, Command::Accept] {
        assert!(next(&rotation, &Outcome::Said(command), world.now).illegal);
    }
}

/// A look before the PATCH with a checklist of one line.
fn checked(now: Timestamp, result: Verdict) -> Look {
    Look {
        seen: Observation {
            at: now,
            provider: Some(Provider::Aws),
            key: Some(key(OLD)),
            valid: Some(true),
            private_networking: false,
            place: Place::default(),
            block_hash: String::new(),
            skew_ms: Some(0),
        },
        network_denied: None,
        clusters: Some(Vec::new()),
        checks: Some(vec![Check { name: CheckName::KeyEnabled, result, detail: "seen".to_owned() }]),
        unanswered: BTreeMap::new(),
    }
}

#[test]
fn a_check_that_fails_holds_the_patch_and_is_told_when_it_begins() {
    let mut world = World::new(PLAIN);
    let mut rotation = propose(&world);
    assert!(extras(&rotation).preflight, "asked for before a PATCH");
    for (verdict, told) in [(Verdict::Fail, true), (Verdict::Fail, false)] {
        world.pass(Duration::from_secs(30));
        let step = next(&rotation, &Outcome::Looked(checked(world.now, verdict)), world.now);
        assert_eq!((step.rotation.state, step.rotation.hold), (State::Approved, Some(Hold::Preflight)));
        assert_eq!(step.notices.contains(&Announcement::PreflightFailed), told);
        assert_eq!((step.effect, step.rotation.observing.checks[0].result), (Effect::Rest, Verdict::Fail));
        rotation = step.rotation;
    }
    // A warning is the approver's business.
    let step = next(&rotation, &Outcome::Looked(checked(world.now, Verdict::Warn)), world.now);
    assert_eq!((step.rotation.state, step.effect), (State::Applying, Effect::Patch(Target::New)));
    assert!(!extras(&step.rotation).preflight);
}

/// What a rotation may be told at some instant.
fn outcomes(now: Timestamp) -> Vec<Outcome> {
    let mut all = Vec::new();
    let cluster = |state: &str, paused| Cluster { name: "c0".to_owned(), state: state.to_owned(), paused };
    for shown in [Some(OLD), Some(NEW), Some(OTHER), None] {
        for valid in [Some(true), Some(false), None] {
            for (private, skew_ms, network_denied, clusters, place) in [
                (false, 0, None, None, Place::default()),
                (true, 0, Some(false), Some(vec![cluster("IDLE", false)]), Place::default()),
                (
                    false,
                    0,
                    Some(true),
                    Some(vec![cluster("UPDATING", false), cluster("IDLE", true)]),
                    Place::default(),
                ),
                (false, 120_001, None, Some(vec![]), Place::default()),
                (false, 120_000, Some(false), Some(vec![cluster("REPAIRING", false)]), Place::default()),
            ] {
                all.push(Outcome::Looked(Look {
                    seen: Observation {
                        at: now,
                        provider: shown.map(|_| Provider::Aws),
                        key: shown.map(key),
                        valid,
                        private_networking: private,
                        place,
                        block_hash: String::new(),
                        skew_ms: Some(skew_ms),
                    },
                    network_denied,
                    clusters,
                    checks: None,
                    unanswered: BTreeMap::new(),
                }));
            }
        }
    }
    for verdict in [Verdict::Warn, Verdict::Fail] {
        all.push(Outcome::Looked(checked(now, verdict)));
    }
    let long = Failure { retry_after: Some(Span::from_secs(45)), ..failure(Class::Transient, Some(429)) };
    let failures = [
        failure(Class::Unknown, None),
        failure(Class::Transient, Some(429)),
        failure(Class::Transient, None),
        long,
        failure(Class::Refused, Some(400)),
        failure(Class::BadKey, Some(400)),
        failure(Class::Config, Some(406)),
        failure(Class::Auth, Some(401)),
        failure(Class::Gone, Some(404)),
    ];
    for failure in failures {
        all.push(Outcome::Blind(failure.clone()));
        all.extend(
            [Reply::Unknown, Reply::Refused, Reply::NotTaken, Reply::Auth, Reply::Gone]
                .map(|reply| Outcome::Replied(reply(failure.clone()))),
        );
    }
    all.push(Outcome::Replied(Reply::Accepted));
    let commands = [
        Command::Approve { given: 1 },
        Command::Withdraw { given: 0 },
        Command::Withdraw { given: 1 },
        Command::Reject,
        Command::Cancel,
        Command::Resume,
        Command::Rollback,
        Command::Accept,
        Command::Close,
    ];
    all.extend(commands.into_iter().map(Outcome::Said));
    all
}

/// The instants around which a rotation decides differently.
fn instants(it: &Rotation) -> Vec<Timestamp> {
    let (verify, pace) = (&it.rules.verify, &it.rules.pace);
    let after = |at: Option<Timestamp>, spans: &[Span]| -> Vec<Timestamp> {
        at.into_iter().flat_map(|at| spans.iter().map(move |span| at + span.get())).collect()
    };
    let zero = Span::from_millis(0);
    let twice = |span: &Span| Span::from_millis(u64::try_from(span.get().as_millis()).unwrap() * 2);
    let last = it.observing.last.as_ref().map(|last| last.at);
    let sent = it.patching.latest.as_ref().map(|patch| patch.sent_at);
    let pages = [900, 3600, 4 * 3600].map(Span::from_secs);
    [
        after(it.wake_at, &[zero]),
        after(last, &[twice(&verify.every), twice(&verify.deploy_poll)]),
        after(sent, &[pace.settle, verify.private_network_hold]),
        after(it.patching.latest.as_ref().map(|patch| patch.deadline), &[pace.settle]),
        after(it.patching.unknown_at, &[pace.settle]),
        after(it.patching.retry_at, &[zero]),
        after(it.observing.not_before, &[zero]),
        after(it.patching.guard_deadline, &[zero]),
        after(Some(it.permission.expires_at), &[zero]),
        after(it.readings.false_since, &[verify.false_grace]),
        after(it.readings.since, &[verify.timeout]),
        after(it.rollout.since, &[verify.deploy_grace, verify.deploy_timeout]),
        after(it.ending.watch_until, &[zero]),
        after(it.operator.paged_at, &pages),
    ]
    .concat()
}

fn paged(it: &mut Rotation, at: Timestamp, pages: u32) {
    (it.state, it.cause) = (State::NeedsOperator, Some(Cause::Unproven));
    (it.operator.paged_at, it.operator.pages) = (Some(at), pages);
}

/// The rotation in every state, and with each thing that a decision may hang on turned the other way.
/// Most of these cannot come to be; what is decided about them must not change unseen either.
#[expect(clippy::too_many_lines, reason = "a list of variants")]
fn variants(base: &Rotation) -> Vec<Rotation> {
    let mut all = vec![base.clone()];
    let open = State::ALL.iter().filter(|state| !state.is_final() && **state != base.state);
    all.extend(open.map(|state| Rotation { state: *state, ..base.clone() }));
    let sent = base.patching.latest.as_ref().map_or(base.created_at, |patch| patch.sent_at);
    let changes: [fn(&mut Rotation, Timestamp); 33] = [
        |it, _| it.permission.quorum.given = 0,
        |it, _| it.patching.first_at = None,
        |it, _| it.patching.guard_deadline = None,
        |it, sent| it.patching.guard_deadline = Some(sent + Duration::from_secs(1)),
        |it, sent| it.patching.unknown_at = Some(sent),
        |it, sent| it.patching.retry_at = Some(sent + Duration::from_secs(7)),
        |it, sent| it.observing.not_before = Some(sent + Duration::from_secs(300)),
        |it, _| it.rollback.old_key_was_valid = !it.rollback.old_key_was_valid,
        |it, _| it.rollback.returned = !it.rollback.returned,
        |it, _| it.rollback.ordered = !it.rollback.ordered,
        |it, _| it.patching.sent_old = !it.patching.sent_old,
        |it, _| it.rollback.healed = !it.rollback.healed,
        |it, _| it.operator.resuming = !it.operator.resuming,
        |it, _| it.ending.late_apply = !it.ending.late_apply,
        |it, sent| (it.readings.flaps, it.readings.false_since) = (3, Some(sent)),
        |it, sent| (it.readings.trues, it.readings.round, it.readings.since) = (2, 5, Some(sent)),
        |it, sent| (it.readings.trues, it.readings.gaps, it.rollout.since) = (3, 9, Some(sent)),
        |it, sent| {
            (it.cause, it.operator.paged_at, it.operator.pages) =
                (Some(Cause::RollbackRefused), Some(sent), 2);
        },
        |it, sent| {
            if let Some(patch) = &mut it.patching.latest {
                (patch.target, patch.interrupted, it.rollback.since) = (Target::Old, true, Some(sent));
            }
        },
        |it, _| {
            if let Some(patch) = &mut it.patching.latest {
                patch.reply = Some(Reply::Refused(failure(Class::Refused, Some(400))));
            }
        },
        |it, _| it.patching.attempts = 0,
        |it, sent| {
            (it.state, it.patching.unknown_at) = (State::Applying, Some(sent));
            if let Some(patch) = &mut it.patching.latest {
                patch.reply = Some(Reply::Refused(failure(Class::Refused, Some(400))));
            }
        },
        |it, sent| {
            (it.state, it.readings.flaps, it.readings.trues, it.readings.round) = (State::Verifying, 3, 0, 9);
            (it.readings.false_since, it.patching.guard_deadline) =
                (Some(sent), Some(sent + Duration::from_secs(1)));
        },
        |it, sent| {
            (it.state, it.patching.sent_old, it.readings.trues, it.readings.round) =
                (State::RollingBack, true, 2, 9);
            (it.readings.since, it.patching.guard_deadline) =
                (Some(sent), Some(sent + Duration::from_secs(1)));
        },
        |it, sent| paged(it, sent, 1),
        |it, sent| paged(it, sent, 2),
        |it, sent| paged(it, sent, 5),
        |it, _| {
            (it.state, it.rules.whole_block, it.block.hash) = (State::Approved, true, "another".to_owned());
        },
        |it, _| (it.state, it.block.hash) = (State::Approved, "another".to_owned()),
        |it, sent| {
            (it.state, it.readings.round, it.readings.trues, it.readings.flaps) = (State::Verifying, 2, 0, 3);
            it.readings.false_since = Some(sent);
        },
        |it, _| {
            let never = r#"{ "cron": "0 0 3 29 2 *", "duration": "1m", "timezone": "UTC" }"#;
            (it.state, it.rules.policy.windows) =
                (State::Approved, vec![serde_json::from_str(never).unwrap()]);
        },
        |it, sent| {
            (it.state, it.readings.trues, it.readings.round, it.readings.flaps) = (State::Verifying, 2, 9, 0);
            (it.readings.since, it.patching.guard_deadline) = (Some(sent), None);
        },
        |it, sent| {
            (it.state, it.readings.trues, it.readings.gaps, it.readings.round) =
                (State::Verifying, 0, it.rules.verify.readings, 1);
            (it.readings.since, it.patching.guard_deadline) =
                (Some(sent), Some(sent + Duration::from_secs(1)));
        },
    ];
    // Each in the state it is in, and two together.
    for (number, change) in changes.iter().enumerate() {
        let mut one = base.clone();
        change(&mut one, sent);
        let mut two = one.clone();
        changes[(number + 7) % changes.len()](&mut two, sent);
        all.extend([one, two]);
    }
    all
}

/// A number for everything the machine decides about many rotations in many situations.
fn fingerprint() -> String {
    let mut visited: Vec<Rotation> = Vec::new();
    for (number, scenario) in scenarios().into_iter().enumerate() {
        for crashes in [&[][..], &[At::InPatch]] {
            let run = play(next, scenario, crashes).unwrap();
            let mut last = None;
            // Where a state begins; not of each run, they are much alike.
            visited.extend(run.visited.into_iter().filter(|it| {
                let fresh = last != Some(it.state);
                last = Some(it.state);
                fresh && number % 4 == 0
            }));
        }
    }
    let mut all = sha2::Sha256::default();
    all.update(serde_json::to_vec(&proposed(&World::new(PLAIN))).unwrap());
    let told = outcomes(start());
    let (mut probes, mut dice) = (0u64, 1u64);
    for rotation in visited.iter().flat_map(variants) {
        // Both sides of each edge, and the edge.
        let micro = Duration::from_micros(1);
        let edges = instants(&rotation).into_iter().flat_map(|at| [at - micro, at, at + micro]);
        for now in edges.filter(|at| *at > rotation.created_at) {
            all.update(format!("{:?}", resume(&rotation, now)));
            for outcome in &told {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                if !(dice >> 33).is_multiple_of(PROBED) {
                    continue;
                }
                probes += 1;
                let mut outcome = outcome.clone();
                if let Outcome::Looked(look) = &mut outcome {
                    look.seen.at = now;
                }
                let step = next(&rotation, &outcome, now);
                all.update(serde_json::to_vec(&step.rotation).unwrap());
                all.update(format!("{:?}{:?}{}", step.effect, step.notices, step.illegal));
            }
        }
    }
    assert!(probes > 100_000, "only {probes} probes");
    hex::encode(all.finalize())
}

/// One of so many situations is probed: enough to meet each decision many times, in a few seconds.
const PROBED: u64 = 199;

/// Journals are replayed by the version they were written under, so what [`next`] decides may change
/// only together with [`MACHINE_VERSION`]. When it was meant to: count up, and take the new print over.
#[test]
fn decisions_change_only_together_with_their_version() {
    const KNOWN: (i32, &str) = (3, "0ba30326636701decef9e672f5616e051b2aa72284bd6291957c1a2d3378d08a");
    assert_eq!((MACHINE_VERSION, fingerprint().as_str()), KNOWN);
}
