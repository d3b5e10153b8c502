//! One call of [`next`](super::next) while it is being decided: the rotation, the instant, and what
//! every phase needs of them: waits, deadlines, and the recording of an attempt.

use std::time::Duration;

use super::sight::skewed;
use super::step::{Effect, Notice};
use crate::domain::rotation::state::{Attempt, Rotation, State, Target};
use crate::domain::time::Timestamp;

/// One call of [`next`](super::next) while it is being decided.
pub(super) struct Turn {
    pub(super) r: Rotation,
    pub(super) now: Timestamp,
    pub(super) effect: Effect,
    pub(super) notices: Vec<Notice>,
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
        self.rest(if self.r.permission.expires_at > self.now {
            idle.min(self.r.permission.expires_at)
        } else {
            idle
        });
    }

    pub(super) fn look_again_soon(&mut self) {
        let every = self.r.rules.verify.every.get();
        self.rest(self.before_guard(self.now + every));
    }

    /// A wait never sleeps through the guard: that decision can be taken without a call.
    pub(super) fn before_guard(&self, until: Timestamp) -> Timestamp {
        match self.r.patching.guard_deadline {
            Some(deadline) if deadline > self.now => until.min(deadline),
            _ => until,
        }
    }

    /// The time between two looks in this state.
    pub(super) fn cadence(&self) -> Duration {
        let verify = &self.r.rules.verify;
        match self.r.state {
            State::NeedsOperator => verify.deploy_poll.get(),
            // A key that is to be proven again is read as often as at first, and a gap is one as early.
            State::Deploying if self.r.readings.trues >= verify.readings => verify.deploy_poll.get(),
            _ => verify.every.get(),
        }
    }

    /// Permission has ended, unless the clocks disagree about what time it is.
    pub(super) fn expired(&self) -> bool {
        self.now >= self.r.permission.expires_at && !self.r.observing.last.as_ref().is_some_and(skewed)
    }

    pub(super) fn guard_over(&self) -> bool {
        self.r.patching.guard_deadline.is_some_and(|deadline| self.now >= deadline)
    }

    /// The old key so soon after the PATCH may be a read that lags behind.
    pub(super) fn may_be_stale(&self) -> bool {
        self.r
            .patching
            .latest
            .as_ref()
            .is_some_and(|patch| self.now < patch.sent_at + self.r.rules.pace.settle.get())
    }

    /// Records the attempt; the caller commits it before the request leaves.
    pub(super) fn send(&mut self, target: Target) {
        self.r.patching.attempts += 1;
        self.r.patching.tries += 1;
        self.r.patching.retry_at = None;
        self.r.patching.sent_old |= target == Target::Old;
        self.r.patching.latest = Some(Attempt {
            number: self.r.patching.attempts,
            target,
            sent_at: self.now,
            deadline: self.now + self.r.rules.request_timeout.get(),
            reply: None,
            interrupted: false,
        });
        if self.r.patching.first_at.is_none() {
            self.r.patching.first_at = Some(self.now);
            self.r.patching.guard_deadline = Some(self.now + self.r.rules.verify.guard.get());
        }
        // Should the sender die, the next one looks at once when it takes over.
        self.rest(self.now);
        self.effect = Effect::Patch(target);
    }
}
