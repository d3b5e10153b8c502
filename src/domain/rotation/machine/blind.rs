//! Atlas could not be read.

use super::sight::skewed;
use super::turn::Turn;
use crate::domain::rotation::outcome::{Class, Failure};
use crate::domain::rotation::retry;
use crate::domain::rotation::state::{Cause, Hold, State};
use crate::domain::time::Timestamp;

impl Turn {
    pub(super) fn blind(&mut self, failure: &Failure) {
        self.r.observing.failures = self.r.observing.failures.saturating_add(1);
        self.r.observing.failure = Some(failure.clone());
        let wait = retry::wait_after(failure, self.r.observing.failures, &self.r.rules.pace, self.r.salt());
        // A wait that is already running is not begun anew.
        let until = self.r.observing.not_before.filter(|until| self.now < *until).unwrap_or(self.now + wait);
        if failure.retry_after.is_some() || failure.status == Some(429) {
            self.r.observing.not_before = Some(until);
        }
        match self.r.state {
            State::AwaitingApproval | State::Approved => self.blind_before(failure, until),
            State::Applying => self.blind_applying(failure, until),
            State::Verifying | State::Deploying | State::RollingBack => self.blind_after(failure, until),
            State::NeedsOperator => self.page_again(),
            _ => self.watch_on(),
        }
    }

    /// Nothing was sent in this state, so nothing is lost by waiting.
    fn blind_before(&mut self, failure: &Failure, until: Timestamp) {
        let skew = self.r.observing.last.as_ref().is_some_and(skewed);
        match failure.class {
            Class::Gone => return self.finish(State::Failed, Some(Cause::Gone)),
            _ if self.expired() && !skew => return self.finish(State::Expired, None),
            Class::Auth => self.r.hold = Some(Hold::AtlasAuth),
            _ => self.r.hold = Some(Hold::AtlasUnreachable),
        }
        self.rest(until.min(self.r.permission.expires_at));
    }

    fn blind_applying(&mut self, failure: &Failure, until: Timestamp) {
        match failure.class {
            Class::Auth => return self.shut_out(Cause::Auth),
            Class::Gone => return self.shut_out(Cause::Gone),
            _ if self.guard_over() => return self.need_operator(Cause::Unreachable),
            _ => {}
        }
        if self.r.patching.guard_deadline.is_none() && self.expired() {
            // Nothing that counts was sent and permission has ended.
            self.r.state = State::Approved;
        }
        self.rest(self.before_guard(until));
    }

    fn blind_after(&mut self, failure: &Failure, until: Timestamp) {
        match failure.class {
            Class::Auth => return self.need_operator(Cause::Auth),
            Class::Gone => return self.need_operator(Cause::Gone),
            _ => {}
        }
        let unseen =
            self.r.observing.last.as_ref().is_none_or(|last| self.now.since(last.at) > self.cadence() * 2);
        let deployment_over = self.r.state == State::Deploying
            && self.now.since(self.r.rollout.since.unwrap_or(self.now))
                >= self.r.rules.verify.deploy_timeout.get();
        if unseen && (deployment_over || (self.r.state != State::Deploying && self.guard_over())) {
            let cause =
                if self.r.state == State::RollingBack { Cause::RollbackUnproven } else { Cause::Unreachable };
            return self.need_operator(cause);
        }
        let soonest = self.now + self.cadence();
        // Ask no later than a reading is due unless Atlas itself asked for more time.
        let wait = if self.r.observing.not_before.is_some() { until } else { until.min(soonest) };
        self.rest(self.before_guard(wait));
    }
}
