//! `rolling_back`: a PATCH of the old key may be in flight.

use super::readings::Proof;
use super::sight::{Sight, extras, sight};
use super::step::Effect;
use super::turn::Turn;
use crate::domain::rotation::outcome::{Observation, Reply};
use crate::domain::rotation::state::{Attempt, Cause, State, Target};

impl Turn {
    pub(super) fn begin_rolling_back(&mut self) {
        self.r.state = State::RollingBack;
        self.r.rollback.since = Some(self.now);
        (self.r.patching.retry_at, self.r.patching.tries, self.r.readings.since) = (None, 0, None);
        self.start_readings();
        self.effect = Effect::Look(extras(&self.r));
    }

    pub(super) fn look_rolling_back(&mut self, seen: &Observation) {
        let sent = self.rollback_patch().is_some();
        match sight(&self.r, seen) {
            Sight::Other => self.finish(State::Superseded, Some(Cause::KeyChanged)),
            Sight::Elsewhere => self.need_operator(Cause::ConfigChanged),
            // A person asked for the old key, or an earlier PATCH of ours brought it: it is to be proven.
            Sight::Old if sent || self.r.patching.sent_old || self.r.rollback.ordered => self.prove_old(seen),
            Sight::Old if self.may_be_stale() => self.rest_for_reading(),
            Sight::Old => self.finish(State::Superseded, Some(Cause::Reverted)),
            Sight::New if sent => self.still_new(),
            Sight::New => self.before_rollback(seen),
        }
    }

    /// Atlas shows the new key and no PATCH(old) has left yet.
    fn before_rollback(&mut self, seen: &Observation) {
        let patch = self.r.patching.latest.clone();
        let settle = self.r.rules.pace.settle.get();
        let in_flight_until = patch.filter(|patch| patch.interrupted).map(|patch| patch.deadline + settle);
        if !self.r.rollback.old_key_was_valid {
            return self.need_operator(Cause::OldKeyInvalid);
        }
        let forward = !self.r.rollback.ordered && !self.r.rollback.returned;
        self.count(seen.valid);
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
        // Only a bad reading, or a person, moves a key back. A good or missing one is waited out.
        let wanted = self.r.rollback.ordered || seen.valid == Some(false);
        match in_flight_until {
            _ if !wanted => self.rest_for_reading(),
            Some(until) if self.now < until => self.rest_for_reading(),
            _ => self.send(Target::Old),
        }
    }

    /// PATCH(old) was sent and Atlas still shows the new key.
    fn still_new(&mut self) {
        let Some(patch) = self.rollback_patch().cloned() else { return };
        if matches!(patch.reply, Some(Reply::Refused(_))) {
            return self.need_operator(Cause::RollbackRefused);
        }
        if self.guard_over() {
            return self.need_operator(Cause::RollbackUnproven);
        }
        let settled = patch.sent_at + self.r.rules.pace.settle.get();
        let retry_at = if patch.reply == Some(Reply::Accepted) {
            settled
        } else {
            self.r.patching.retry_at.unwrap_or(self.now)
        };
        if self.now < retry_at {
            match patch.reply {
                Some(Reply::Accepted) => self.look_again_soon(),
                _ => self.rest(retry_at),
            }
            return;
        }
        self.send(Target::Old);
    }

    /// The PATCH(old) of the present rollback, when one was sent.
    fn rollback_patch(&self) -> Option<&Attempt> {
        let since = self.r.rollback.since?;
        self.r.patching.latest.as_ref().filter(|patch| patch.target == Target::Old && patch.sent_at >= since)
    }

    fn prove_old(&mut self, seen: &Observation) {
        if self.r.readings.since.is_none() {
            self.r.readings.since = Some(self.now);
            self.start_readings();
        }
        match self.read(seen) {
            Proof::Proven => self.finish(State::RolledBack, None),
            Proof::Bad | Proof::TimedOut => self.need_operator(Cause::OldKeyInvalid),
            Proof::Pending if self.guard_over() && self.r.readings.trues < self.r.rules.verify.readings => {
                self.need_operator(Cause::RollbackUnproven);
            }
            Proof::Pending => self.rest_for_reading(),
        }
    }
}
