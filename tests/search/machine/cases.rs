//! Decisions at their limits, case by case: one rotation in one state, one outcome, one instant.

mod applying;
mod approving;
mod blind;
mod deploying;
mod ended;
mod operator;
mod rolling_back;
mod verifying;

use std::collections::BTreeMap;
use std::time::Duration;

use keywheel::domain::key::{Place, Provider};
use keywheel::domain::rotation::machine::{Effect, Step, next};
use keywheel::domain::rotation::outcome::{
    Class, Cluster, Command, Failure, Look, Observation, Outcome, PatchReply,
};
use keywheel::domain::rotation::state::{Attempt, Cause, Rotation, State, Target};
use keywheel::domain::time::{Span, Timestamp};

use super::world::{NEW, OLD, PLAIN, World, failure, key, propose, start};

/// The instant that everything here is counted from: the PATCH, or the beginning of the state.
fn t(secs: u64) -> Timestamp {
    start() + Duration::from_secs(1000 + secs)
}

const TICK: Duration = Duration::from_micros(1);

/// What a case looks at of a step.
type Ends = (State, Option<Cause>);

fn ends(step: &Step) -> Ends {
    (step.rotation.state, step.rotation.cause)
}

fn observation(shown: Option<&str>, valid: Option<bool>, at: Timestamp) -> Observation {
    Observation {
        at,
        provider: shown.map(|_| Provider::Aws),
        key: shown.map(key),
        valid,
        private_networking: false,
        place: Place::default(),
        block_hash: String::new(),
        invalid_beside: None,
        skew_ms: Some(0),
    }
}

fn look(shown: &str, valid: Option<bool>, at: Timestamp) -> Look {
    Look {
        seen: observation(Some(shown), valid, at),
        network_denied: None,
        clusters: Some(Vec::new()),
        checks: None,
        unanswered: BTreeMap::new(),
    }
}

fn cluster(name: &str, state: &str) -> Cluster {
    Cluster { name: name.to_owned(), state: state.to_owned(), paused: false, ..Cluster::default() }
}

/// The rotation is told of `look` without a gap after its last observation.
fn looks(it: &Rotation, look: Look) -> Step {
    let mut it = it.clone();
    let now = look.seen.at;
    if let Some(last) = &mut it.observing.last {
        last.at = now - Duration::from_secs(15);
    }
    next(&it, &Outcome::Looked(look), now)
}

fn sees(it: &Rotation, shown: &str, valid: Option<bool>, at: Timestamp) -> Step {
    looks(it, look(shown, valid, at))
}

/// Atlas could not be read, `unseen` after the last observation.
fn fails(it: &Rotation, failure: Failure, at: Timestamp, unseen: Duration) -> Step {
    let mut it = it.clone();
    if let Some(last) = &mut it.observing.last {
        last.at = at - unseen;
    }
    next(&it, &Outcome::Blind(failure), at)
}

fn unknown() -> Failure {
    failure(Class::Unknown, None)
}

fn limited(secs: u64) -> Failure {
    Failure { retry_after: Some(Span::from_secs(secs)), ..failure(Class::Transient, Some(429)) }
}

fn says(it: &Rotation, command: Command, at: Timestamp) -> Step {
    next(it, &Outcome::Said(command), at)
}

fn approved() -> Rotation {
    propose(&World::new(PLAIN))
}

fn attempt(target: Target, at: Timestamp, reply: Option<PatchReply>) -> Attempt {
    Attempt {
        number: 1,
        target,
        sent_at: at,
        deadline: at + Duration::from_secs(30),
        reply,
        interrupted: false,
    }
}

/// PATCH(new) left at `t(0)`; the guard ends at `t(780)`.
fn applying(reply: Option<PatchReply>) -> Rotation {
    let mut it = approved();
    it.state = State::Applying;
    it.rollback.old_key_was_valid = true;
    it.patching.attempts = 1;
    it.patching.tries = 1;
    it.patching.latest = Some(attempt(Target::New, t(0), reply));
    it.patching.first_at = Some(t(0));
    it.patching.guard_deadline = Some(t(780));
    it.observing.last = Some(observation(Some(OLD), Some(true), t(0)));
    it
}

/// Atlas showed the new key at `t(0)`, and nothing has been read since.
fn verifying() -> Rotation {
    let mut it = applying(Some(PatchReply::Accepted));
    it.state = State::Verifying;
    it.patching.patched_at = Some(t(0));
    it.readings.since = Some(t(0));
    it.readings.round = 9;
    it.observing.last = Some(observation(Some(NEW), None, t(0)));
    it
}

/// The new key was verified at `t(0)`, by as many readings as are wanted.
fn deploying() -> Rotation {
    let mut it = verifying();
    it.state = State::Deploying;
    it.readings.trues = 3;
    it.readings.valid_at = Some(t(0));
    it.rollout.since = Some(t(0));
    it
}

/// The new key turned out bad at `t(0)`; no PATCH(old) has left.
fn rolling_back() -> Rotation {
    let mut it = verifying();
    it.state = State::RollingBack;
    it.rollback.since = Some(t(0));
    it.readings.since = None;
    it
}

/// PATCH(old) left at `t(0)`.
fn sent_back(reply: Option<PatchReply>) -> Rotation {
    let mut it = rolling_back();
    it.patching.attempts = 2;
    it.patching.sent_old = true;
    it.patching.latest = Some(attempt(Target::Old, t(0), reply));
    it
}

/// A person was paged at `t(0)`.
fn stuck(cause: Cause) -> Rotation {
    let mut it = verifying();
    (it.state, it.cause) = (State::NeedsOperator, Some(cause));
    it.operator.paged_at = Some(t(0));
    it
}

fn rests(step: &Step) -> Option<Timestamp> {
    assert_eq!(step.effect, Effect::Rest);
    step.rotation.wake_at
}
