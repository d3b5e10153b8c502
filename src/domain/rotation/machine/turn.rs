//! The working state of one call of [`next`](super::next), and the helpers of all phases: waits,
//! deadlines, and the recording of an attempt.

use std::time::Duration;

use super::LONGEST_PAUSE;
use super::sight::{extras, skewed};
use super::step::{Announcement, Effect};
use crate::domain::rotation::state::{Attempt, Rotation, State, Target};
use crate::domain::time::Timestamp;

/// The phases are its methods, each in the file of its phase.
pub(super) struct Turn {
    /// The rotation as it will be committed.
    pub(super) r: Rotation,
    pub(super) now: Timestamp,
    pub(super) effect: Effect,
    pub(super) notices: Vec<Announcement>,
    pub(super) illegal: bool,
}

impl Turn {
    pub(super) fn rest(&mut self, until: Timestamp) {
        self.r.wake_at = Some(until);
    }

    pub(super) fn rest_for_reading(&mut self) {
        self.rest(self.now + self.r.rules.verify.every.get());
    }

    pub(super) fn rest_until_idle(&mut self) {
        let idle = self.now + self.r.rules.pace.idle_every.get();
        let expires_at = self.r.permission.expires_at;
        self.rest(if expires_at > self.now { idle.min(expires_at) } else { idle });
    }

    pub(super) fn observe_at_once(&mut self) {
        self.effect = Effect::Look(extras(&self.r));
    }

    pub(super) fn observe_again_soon(&mut self) {
        let every = self.r.rules.verify.every.get();
        self.rest(self.before_guard(self.now + every));
    }

    /// A wait never outlasts the guard: the decision at its end needs no call.
    pub(super) fn before_guard(&self, until: Timestamp) -> Timestamp {
        match self.r.patching.guard_deadline {
            Some(deadline) if deadline > self.now => until.min(deadline),
            _ => until,
        }
    }

    /// The longest pause between two readings that Atlas can request in this state: while a key is proven, a
    /// third of what is left of the guard.
    pub(super) fn longest_pause(&self) -> Duration {
        let verify = &self.r.rules.verify;
        match (self.r.state, self.r.patching.guard_deadline) {
            (State::Verifying | State::Deploying | State::RollingBack, Some(deadline)) => {
                let left = self.now.until(deadline);
                let pause = if left.is_zero() { verify.deploy_poll.get() } else { left / 3 };
                pause.max(verify.every.get())
            }
            _ => LONGEST_PAUSE,
        }
    }

    /// The time between two observations in this state.
    pub(super) fn cadence(&self) -> Duration {
        let verify = &self.r.rules.verify;
        match self.r.state {
            State::NeedsOperator => verify.deploy_poll.get(),
            // A key that lost its readings while it is deployed must be verified again, so it is read
            // as often as at first. With the longer cadence, two true readings an hour apart would
            // count as consecutive.
            State::Deploying if self.r.readings.trues >= verify.readings => verify.deploy_poll.get(),
            _ => verify.every.get(),
        }
    }

    /// The last observation is older than two cadences, so nothing may be concluded from it.
    pub(super) fn last_is_old(&self) -> bool {
        self.r.observing.last.as_ref().is_none_or(|last| self.now.since(last.at) > self.cadence() * 2)
    }

    /// Whether the permission has lapsed. During clock skew the time is uncertain, so it has not.
    pub(super) fn expired(&self) -> bool {
        self.now >= self.r.permission.expires_at && !self.r.observing.last.as_ref().is_some_and(skewed)
    }

    pub(super) fn guard_over(&self) -> bool {
        self.r.patching.guard_deadline.is_some_and(|deadline| self.now >= deadline)
    }

    /// Less than `settle` after the latest PATCH, Atlas may still show the configuration from before it.
    /// An old key is no reading then: taken for another actor's change, it would end a healthy rotation.
    pub(super) fn may_be_stale(&self) -> bool {
        let patch = self.r.patching.latest.as_ref();
        patch.is_some_and(|patch| self.now < patch.sent_at + self.r.rules.pace.settle.get())
    }

    /// Records the attempt. The caller commits it before the request leaves.
    pub(super) fn send(&mut self, target: Target) {
        let patching = &mut self.r.patching;
        patching.attempts += 1;
        patching.tries += 1;
        patching.retry_at = None;
        patching.sent_old |= target == Target::Old;
        patching.latest = Some(Attempt {
            number: patching.attempts,
            target,
            sent_at: self.now,
            deadline: self.now + self.r.rules.request_timeout.get(),
            reply: None,
            interrupted: false,
        });
        if patching.first_at.is_none() {
            patching.first_at = Some(self.now);
            let guard = self.now + self.r.rules.verify.guard.get();
            patching.guard_deadline = match target {
                Target::New => Some(guard),
                // Somebody else set the new key: its danger began before this PATCH.
                Target::Old => patching.guard_deadline.or(Some(guard)),
            };
        }
        // If the sender dies now, the worker that takes over observes without a wait.
        self.rest(self.now);
        self.effect = Effect::Patch(target);
    }
}
