//! `verifying`: Atlas showed the new key, and readings of `valid` decide whether it is verified.

use super::deploying::note_clusters;
use super::readings::Verification;
use super::sight::{Sight, sight};
use super::turn::Turn;
use crate::domain::rotation::outcome::{Look, Observation};
use crate::domain::rotation::state::{Cause, State};

impl Turn {
    pub(super) fn begin_verifying(&mut self, look: &Look) {
        self.r.state = State::Verifying;
        self.r.cause = None;
        self.r.hold = None;
        self.r.patching.patched_at.get_or_insert(self.now);
        self.r.readings.since = Some(self.now);
        // Without a PATCH of ours that may have been applied no guard runs yet: somebody else set the approved key.
        let guard = self.now + self.r.rules.verify.guard.get();
        self.r.patching.guard_deadline.get_or_insert(guard);
        self.r.patching.unknown_at = None;
        self.r.rollout.clusters.clear();
        self.start_readings();
        self.verifying(look);
    }

    pub(super) fn verifying(&mut self, look: &Look) {
        let seen = &look.seen;
        match sight(&self.r, seen) {
            Sight::Other => self.finish(State::Superseded, Some(Cause::KeyChanged)),
            Sight::Elsewhere => self.need_operator(Cause::ConfigChanged),
            Sight::Old if self.may_be_stale() => self.pass_over_stale_reading(),
            Sight::Old => self.reverted(),
            Sight::New => match self.read_with_clusters(look) {
                Verification::Verified => self.begin_deploying(look),
                Verification::Pending if self.never_a_round() => self.need_operator(Cause::Unproven),
                Verification::Pending => self.rest_for_reading(),
                Verification::TimedOut => self.need_operator(Cause::Unproven),
                Verification::Bad => self.bad(look),
            },
        }
    }

    /// The readings show the new key as invalid: for longer than the grace, after too many flaps, or at
    /// the timeout.
    ///
    /// At this point the key is bad, or Atlas cannot reach the key service and would call the old key
    /// invalid just as well. Only the project's open alerts distinguish the two. A rollback in the second
    /// case changes a key without benefit and ends with an old key that cannot be verified either.
    fn bad(&mut self, look: &Look) {
        match look.network_denied {
            Some(true) => self.need_operator(Cause::KmsUnreachable),
            Some(false) => self.begin_rolling_back(),
            // Alerts are requested from the first false reading on, so this observation came without
            // them.
            None if self.r.readings.false_since == Some(self.now) => self.observe_at_once(),
            None if self.guard_over() => self.need_operator(Cause::Unproven),
            None if self.alerts_are_late() => self.begin_rolling_back(),
            None => self.rest_for_reading(),
        }
    }

    /// Whether half of the guard is over, and the alerts stay unanswered for as long as a false reading is borne.
    /// One request without an answer decides nothing.
    ///
    /// The other half is needed to put the old key back and to verify it, even with a crash in between. A
    /// bad key shuts the clusters down soon after the guard; a rollback because of an unreachable key
    /// service ends with a page and with a key that worked before.
    fn alerts_are_late(&self) -> bool {
        let verify = &self.r.rules.verify;
        let reserve = verify.guard.get() / 2;
        let half = self.r.patching.guard_deadline.is_some_and(|deadline| self.now + reserve >= deadline);
        let since = self.r.readings.alerts_unanswered_since;
        half && since.is_some_and(|since| self.now.since(since) >= verify.false_grace.get())
    }

    /// Alerts are requested from the second false reading on.
    fn note_alerts(&mut self, look: &Look) {
        let readings = &mut self.r.readings;
        let requested = readings.false_since.is_some_and(|since| since < self.now);
        readings.alerts_unanswered_since = match look.network_denied {
            None if requested => readings.alerts_unanswered_since.or(Some(self.now)),
            _ => None,
        };
    }

    fn read_with_clusters(&mut self, look: &Look) -> Verification {
        // A quick roll-out is over before the key is verified; from `deploying` on, no observation would
        // show UPDATING.
        if let Some(clusters) = &look.clusters {
            note_clusters(&mut self.r.rollout.clusters, clusters);
        }
        self.note_late_report(&look.seen);
        let verification = self.read(&look.seen);
        self.note_alerts(look);
        verification
    }

    /// With private networking Atlas reports `valid` at once, and the nodes report minutes later. The
    /// danger begins with their first bad report, not with the PATCH. So the guard begins there;
    /// otherwise it would be over before the rollback could start.
    fn note_late_report(&mut self, seen: &Observation) {
        let verify = &self.r.rules.verify;
        let readings = &self.r.readings;
        let turned = readings.trues >= verify.readings && readings.flaps == 0 && seen.valid == Some(false);
        if seen.private_networking && turned {
            self.r.patching.guard_deadline = Some(self.now + verify.guard.get());
        }
    }

    /// Whether the guard is over and repeated gaps left no full round of readings. Without this check an
    /// overloaded daemon would stay here for ever, and no operator would be paged. One restart is one
    /// gap, which is no reason to page.
    fn never_a_round(&self) -> bool {
        self.guard_over() && self.r.readings.gaps > self.r.rules.verify.readings
    }

    /// Atlas holds the old key again, for longer than a stale read explains.
    ///
    /// If we ever sent PATCH(old), that PATCH may have arrived late, and the old key is verified as after
    /// any rollback. If not, another actor changed the key, and that change is left alone.
    pub(super) fn reverted(&mut self) {
        if self.r.patching.sent_old {
            self.begin_rolling_back();
        } else {
            self.finish(State::Superseded, Some(Cause::Reverted));
        }
    }
}
