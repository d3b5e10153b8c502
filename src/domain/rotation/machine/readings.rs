//! Counts the readings of `valid`, and derives the verification from them.
//!
//! A reading comes from a GET, never from the reply to a PATCH. An absent `valid` is neither true nor
//! false: it neither completes a rotation nor rolls it back.

use std::time::Duration;

use super::turn::Turn;
use crate::domain::rotation::outcome::Observation;

/// The result of the readings of one key.
pub(super) enum Verification {
    Pending,
    Verified,
    Bad,
    TimedOut,
}

impl Turn {
    /// The observation at hand is the first of a new round.
    pub(super) fn start_readings(&mut self) {
        let readings = &mut self.r.readings;
        (readings.trues, readings.flaps, readings.round, readings.false_since) = (0, 0, 1, None);
        (readings.alerts_unanswered_since, readings.absent_since) = (None, None);
    }

    /// Atlas showed the configuration of before the latest PATCH. The readings that verify the new key follow
    /// each other, so their count begins again.
    pub(super) fn pass_over_stale_reading(&mut self) {
        self.r.readings.trues = 0;
        self.rest_for_reading();
    }

    pub(super) fn renew_deadlines(&mut self) {
        self.r.readings.since = Some(self.now);
        self.r.patching.guard_deadline = Some(self.now + self.r.rules.verify.guard.get());
        self.r.rollback.since = None;
        self.start_readings();
    }

    pub(super) fn count(&mut self, valid: Option<bool>) {
        let readings = &mut self.r.readings;
        readings.absent_since = match valid {
            None => readings.absent_since.or(Some(self.now)),
            Some(_) => None,
        };
        match valid {
            Some(true) => {
                readings.trues = readings.trues.saturating_add(1);
                readings.false_since = None;
            }
            Some(false) => {
                if readings.trues > 0 {
                    readings.flaps += 1;
                }
                readings.trues = 0;
                readings.false_since.get_or_insert(self.now);
            }
            None => readings.trues = 0,
        }
    }

    pub(super) fn false_for(&self) -> Duration {
        self.r.readings.false_since.map_or(Duration::ZERO, |since| self.now.since(since))
    }

    /// Counts one reading, and returns the result of all of them.
    pub(super) fn read(&mut self, seen: &Observation) -> Verification {
        self.count(seen.valid);
        let (verify, readings) = (&self.r.rules.verify, &self.r.readings);
        if readings.trues >= verify.readings {
            // With private networking `valid` is true before any node has tried the key. Until the nodes
            // have reported, true readings verify nothing, and the rotation would complete on a dead key.
            let sent_at = self.r.patching.latest.as_ref().map_or(self.now, |patch| patch.sent_at);
            let held = self.now >= sent_at + verify.private_network_hold.get();
            return if seen.private_networking && !held {
                Verification::Pending
            } else {
                Verification::Verified
            };
        }
        // A timeout and a rollback are decided on fresh readings only, never on readings from before a
        // gap.
        if readings.round < verify.readings {
            return Verification::Pending;
        }
        let bad = seen.valid == Some(false)
            && (self.false_for() > verify.false_grace.get() || readings.flaps > verify.max_flaps);
        let late = self.now.since(readings.since.unwrap_or(self.now)) >= verify.timeout.get();
        match (bad, late) {
            (true, _) => Verification::Bad,
            (false, true) if seen.valid == Some(false) => Verification::Bad,
            (false, true) => Verification::TimedOut,
            (false, false) => Verification::Pending,
        }
    }
}
