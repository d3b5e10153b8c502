//! `rolling_back`: a PATCH of the old key may be in flight.

use super::readings::Verification;
use super::sight::{Sight, sight};
use super::turn::Turn;
use crate::domain::rotation::outcome::{Observation, PatchReply};
use crate::domain::rotation::state::{Attempt, Cause, State, Target};

impl Turn {
    pub(super) fn begin_rolling_back(&mut self) {
        self.r.state = State::RollingBack;
        self.r.rollback.since = Some(self.now);
        (self.r.patching.retry_at, self.r.patching.tries, self.r.readings.since) = (None, 0, None);
        self.start_readings();
        self.observe_at_once();
    }

    pub(super) fn rolling_back(&mut self, seen: &Observation) {
        let sent = self.rollback_patch().is_some();
        match sight(&self.r, seen) {
            Sight::Other => self.finish(State::Superseded, Some(Cause::KeyChanged)),
            Sight::Elsewhere => self.need_operator(Cause::ConfigChanged),
            // An operator ordered the old key, or a PATCH of ours may have set it. It is verified before
            // the rotation counts as rolled back.
            Sight::Old if sent || self.r.patching.sent_old || self.r.rollback.ordered => {
                self.verify_old(seen);
            }
            // We never sent the old key. Soon after PATCH(new) this is a stale read; later it is another
            // actor's change.
            Sight::Old if self.may_be_stale() => self.pass_over_stale_reading(),
            Sight::Old => self.finish(State::Superseded, Some(Cause::Reverted)),
            Sight::New if sent => self.still_new(),
            Sight::New => self.before_rollback(seen),
        }
    }

    /// Atlas shows the new key and no PATCH(old) of this rollback has left yet.
    fn before_rollback(&mut self, seen: &Observation) {
        // Without a valid old key there is no way back: Atlas would refuse that key, or could not use it.
        if !self.r.rollback.old_key_was_valid {
            return self.need_operator(Cause::OldKeyInvalid);
        }
        self.count(seen.valid);
        // The new key recovered before a PATCH left. Going forward is safer than a second change, but
        // only once: a key that keeps flapping would hold the rotation here for ever.
        let forward = !self.r.rollback.ordered && !self.r.rollback.returned;
        if forward && self.r.readings.trues >= self.r.rules.verify.readings {
            self.r.rollback.returned = true;
            self.r.state = State::Verifying;
            self.r.readings.since = Some(self.now);
            self.r.rollback.since = None;
            self.start_readings();
            return self.rest_for_reading();
        }
        if self.guard_over() {
            return self.need_operator(Cause::RollbackUnproven);
        }
        // Only a false reading or an operator moves a key back. After a true or missing reading the next
        // one decides.
        let wanted = self.r.rollback.ordered || seen.valid == Some(false);
        if !wanted || self.new_may_be_in_flight() {
            return self.rest_for_reading();
        }
        self.send(Target::Old);
    }

    /// The sender of the latest PATCH died, and its request may outlive it: up to its own deadline, and
    /// `settle` more for Atlas to apply it. If PATCH(old) left now, PATCH(new) could arrive after it.
    /// Atlas would then hold the bad key under a rotation in `rolled_back`.
    fn new_may_be_in_flight(&self) -> bool {
        let settle = self.r.rules.pace.settle.get();
        let interrupted = self.r.patching.latest.as_ref().filter(|patch| patch.interrupted);
        interrupted.is_some_and(|patch| self.now < patch.deadline + settle)
    }

    /// PATCH(old) was recorded and Atlas still shows the new key.
    ///
    /// At this point the PATCH was refused, never arrived, or is not visible yet. Sending the same value
    /// again is harmless, but a refusal is definite: Atlas changes nothing while it cannot use the key
    /// that is in force. Only a person can restore Atlas' access to that key.
    fn still_new(&mut self) {
        let Some(patch) = self.rollback_patch().cloned() else { return };
        if matches!(patch.reply, Some(PatchReply::Refused(_))) {
            return self.need_operator(Cause::RollbackRefused);
        }
        if self.guard_over() {
            let shut_out = matches!(patch.reply, Some(PatchReply::Auth(_)));
            let cause = if shut_out { Cause::Auth } else { Cause::RollbackUnproven };
            return self.need_operator(cause);
        }
        let accepted = patch.reply == Some(PatchReply::Accepted);
        let retry_at = if accepted {
            patch.sent_at + self.r.rules.pace.settle.get()
        } else {
            self.r.patching.retry_at.unwrap_or(self.now)
        };
        if self.now >= retry_at {
            self.send(Target::Old);
        } else if accepted {
            self.observe_again_soon();
        } else {
            self.rest(self.before_guard(retry_at));
        }
    }

    /// The PATCH(old) of the present rollback; `None` when it was not sent yet. A PATCH of an earlier
    /// rollback does not count: its refusal does not hold for this one.
    fn rollback_patch(&self) -> Option<&Attempt> {
        let since = self.r.rollback.since?;
        self.r.patching.latest.as_ref().filter(|patch| patch.target == Target::Old && patch.sent_at >= since)
    }

    fn verify_old(&mut self, seen: &Observation) {
        if self.r.readings.since.is_none() {
            self.r.readings.since = Some(self.now);
            self.start_readings();
        }
        match self.read(seen) {
            Verification::Verified => self.finish(State::RolledBack, None),
            // Neither key could be verified, so no further PATCH can help.
            Verification::Bad | Verification::TimedOut => self.need_operator(Cause::OldKeyInvalid),
            // With private networking the readings may be complete while the hold still runs. That is no
            // failure.
            Verification::Pending
                if self.guard_over() && self.r.readings.trues < self.r.rules.verify.readings =>
            {
                self.need_operator(Cause::RollbackUnproven);
            }
            Verification::Pending => self.rest_for_reading(),
        }
    }
}
