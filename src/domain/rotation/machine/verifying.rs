//! `verifying`: Atlas showed the new key, and readings are taken until they prove it, or do not.

use super::deploying::note_clusters;
use super::readings::Proof;
use super::sight::{Sight, extras, sight};
use super::step::Effect;
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
        self.r.patching.unknown_at = None;
        self.r.rollout.clusters.clear();
        self.start_readings();
        self.look_verifying(look);
    }

    pub(super) fn look_verifying(&mut self, look: &Look) {
        let seen = &look.seen;
        match sight(&self.r, seen) {
            Sight::Other => self.finish(State::Superseded, Some(Cause::KeyChanged)),
            Sight::Elsewhere => self.need_operator(Cause::ConfigChanged),
            Sight::Old if self.may_be_stale() => self.rest_for_reading(),
            Sight::Old => self.reverted(),
            Sight::New => match self.read_with_clusters(look) {
                Proof::Proven => self.begin_deploying(),
                Proof::Pending if self.never_a_round() => self.need_operator(Cause::Unproven),
                Proof::Pending => self.rest_for_reading(),
                Proof::TimedOut => self.need_operator(Cause::Unproven),
                Proof::Bad => match look.network_denied {
                    Some(true) => self.need_operator(Cause::KmsUnreachable),
                    Some(false) => self.begin_rolling_back(),
                    // An unreachable key service must be ruled out first: ask at once.
                    None if self.r.readings.false_since == Some(self.now) => {
                        self.effect = Effect::Look(extras(&self.r));
                    }
                    None if self.guard_over() => self.need_operator(Cause::Unproven),
                    None => self.rest_for_reading(),
                },
            },
        }
    }

    fn read_with_clusters(&mut self, look: &Look) -> Proof {
        if let Some(clusters) = &look.clusters {
            note_clusters(&mut self.r.rollout.clusters, clusters);
        }
        self.note_late_report(&look.seen);
        self.read(&look.seen)
    }

    /// On private networking the nodes report minutes later, and with that the danger begins: from
    /// the first bad report on there is as much time to go back as elsewhere from the PATCH on.
    fn note_late_report(&mut self, seen: &Observation) {
        let verify = &self.r.rules.verify;
        let turned = self.r.readings.trues >= verify.readings
            && self.r.readings.flaps == 0
            && seen.valid == Some(false);
        if seen.private_networking && turned {
            self.r.patching.guard_deadline = Some(self.now + verify.guard.get());
        }
    }

    /// The guard is over, and looks come too slowly for a round of readings. A restart alone is one gap.
    fn never_a_round(&self) -> bool {
        self.guard_over() && self.r.readings.gaps > self.r.rules.verify.readings
    }

    /// The old key is back. When no PATCH of ours can have done that, somebody else did.
    pub(super) fn reverted(&mut self) {
        if self.r.patching.sent_old {
            self.begin_rolling_back();
        } else {
            self.finish(State::Superseded, Some(Cause::Reverted));
        }
    }
}
