//! Atlas could not be observed.
//!
//! A missing reading neither completes a rotation nor rolls it back. It ends a wait only when Atlas
//! no longer knows the project, or when a deadline passes: a deadline must not pass unreported. A refused credential is
//! borne until then: it may be accepted again.

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
        // A worker that takes over during a wait reports the same failure without a call. Counted from
        // now, the wait would grow with each such report.
        let running = self.r.observing.not_before.filter(|until| self.now < *until);
        let until = running.unwrap_or(self.now + wait.min(self.longest_pause()));
        if failure.asks_to_wait() {
            self.r.observing.not_before = Some(until);
        }
        match self.r.state {
            State::AwaitingApproval | State::Approved => self.blind_before(failure, until),
            State::Applying => self.blind_applying(failure, until),
            State::Verifying | State::Deploying | State::RollingBack => self.blind_after(failure, until),
            State::NeedsOperator => self.look_on(),
            _ => self.watch_on(),
        }
    }

    /// No PATCH is under way, so nothing is lost by waiting.
    fn blind_before(&mut self, failure: &Failure, until: Timestamp) {
        match failure.class {
            Class::Gone => return self.finish(State::Failed, Some(Cause::Gone)),
            _ if self.expired() => return self.finish(State::Expired, None),
            Class::Auth => self.r.hold = Some(Hold::AtlasAuth),
            Class::TooOld => self.r.hold = Some(Hold::TooOld),
            _ => self.r.hold = Some(Hold::AtlasUnreachable),
        }
        self.rest(until.min(self.r.permission.expires_at));
    }

    /// A PATCH may have been applied, and no observation can show it. After the guard an unverified key
    /// may be in force, so an operator is paged without a reading.
    fn blind_applying(&mut self, failure: &Failure, until: Timestamp) {
        match failure.class {
            Class::Gone => return self.shut_out(),
            _ if self.guard_over() => return self.need_operator(unread(failure, Cause::Unreachable)),
            _ => {}
        }
        if self.r.patching.guard_deadline.is_none() && self.expired() {
            // No guard runs: Atlas carried out no attempt, and the permission has lapsed. Rotations
            // expire in `approved`.
            self.r.state = State::Approved;
        }
        self.rest(self.before_guard(until));
    }

    /// Whether a round of readings has failed, and the last one that did not is older than a verification may take.
    fn unread_for_too_long(&self) -> bool {
        let verify = &self.r.rules.verify;
        let last = self.r.observing.last.as_ref();
        self.r.observing.failures >= verify.readings
            && last.is_none_or(|last| self.now.since(last.at) >= verify.timeout.get())
    }

    /// Atlas holds a key of ours that is not verified yet, or not deployed.
    fn blind_after(&mut self, failure: &Failure, until: Timestamp) {
        if failure.class == Class::Gone {
            return self.need_operator(Cause::Gone);
        }
        // The end of the guard alone is no reason to page: while the last observation is fresh, the next
        // one decides better than a failed one. In `deploying` the key is verified, so the guard has no
        // meaning there. It may go unread for as long as a verification may take.
        let over =
            if self.r.state == State::Deploying { self.unread_for_too_long() } else { self.guard_over() };
        if over && self.last_is_old() {
            let cause =
                if self.r.state == State::RollingBack { Cause::RollbackUnproven } else { Cause::Unreachable };
            return self.need_operator(unread(failure, cause));
        }
        let soonest = self.now + self.cadence();
        // The backoff never delays a reading that is due, unless Atlas itself requested a longer pause.
        let wait = if self.r.observing.not_before.is_some() { until } else { until.min(soonest) };
        self.rest(self.before_guard(wait));
    }
}

/// The cause of a page without a reading: a refused credential is fixed in another place than a silent Atlas.
fn unread(failure: &Failure, otherwise: Cause) -> Cause {
    if failure.class == Class::Auth { Cause::Auth } else { otherwise }
}
