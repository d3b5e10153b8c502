//! Counting the readings of `valid`, and what all of them amount to.
//!
//! A reading comes from a GET, never from the reply to a PATCH. `valid` that is absent is not true.

use std::time::Duration;

use super::turn::Turn;
use crate::domain::rotation::outcome::Observation;

/// What the readings of one key amount to.
#[derive(PartialEq)]
pub(super) enum Proof {
    Pending,
    Proven,
    Bad,
    TimedOut,
}

impl Turn {
    pub(super) fn start_readings(&mut self) {
        (self.r.readings.trues, self.r.readings.flaps, self.r.readings.round, self.r.readings.false_since) =
            (0, 0, 1, None);
    }

    pub(super) fn renew_deadlines(&mut self) {
        self.r.readings.since = Some(self.now);
        self.r.patching.guard_deadline = Some(self.now + self.r.rules.verify.guard.get());
        self.r.rollback.since = None;
        self.start_readings();
    }

    /// Counts one reading of `valid`.
    pub(super) fn count(&mut self, valid: Option<bool>) {
        match valid {
            Some(true) => {
                self.r.readings.trues = self.r.readings.trues.saturating_add(1);
                self.r.readings.false_since = None;
            }
            Some(false) => {
                if self.r.readings.trues > 0 {
                    self.r.readings.flaps += 1;
                }
                self.r.readings.trues = 0;
                self.r.readings.false_since.get_or_insert(self.now);
            }
            None => self.r.readings.trues = 0,
        }
    }

    pub(super) fn false_for(&self) -> Duration {
        self.r.readings.false_since.map_or(Duration::ZERO, |since| self.now.since(since))
    }

    /// Counts one reading and says what all of them amount to.
    pub(super) fn read(&mut self, seen: &Observation) -> Proof {
        self.count(seen.valid);
        let verify = &self.r.rules.verify;
        let proven = self.r.readings.trues >= verify.readings;
        let sent_at = self.r.patching.latest.as_ref().map_or(self.now, |patch| patch.sent_at);
        if proven {
            let held = self.now >= sent_at + verify.private_network_hold.get();
            return if seen.private_networking && !held { Proof::Pending } else { Proof::Proven };
        }
        if self.r.readings.round < verify.readings {
            return Proof::Pending;
        }
        let bad = seen.valid == Some(false)
            && (self.false_for() > verify.false_grace.get() || self.r.readings.flaps > verify.max_flaps);
        let late = self.now.since(self.r.readings.since.unwrap_or(self.now)) >= verify.timeout.get();
        match (bad, late, self.r.readings.false_since) {
            (true, ..) => Proof::Bad,
            (false, true, Some(_)) if seen.valid == Some(false) => Proof::Bad,
            (false, true, _) => Proof::TimedOut,
            (false, false, _) => Proof::Pending,
        }
    }
}
