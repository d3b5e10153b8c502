//! Atlas was observed: the rules of every state, applied before the phase decides.

use super::turn::Turn;
use crate::domain::rotation::outcome::{Class, Failure, Look, PatchReply};
use crate::domain::rotation::retry;
use crate::domain::rotation::state::{State, Target};

impl Turn {
    pub(super) fn observed(&mut self, look: &Look) {
        let seen = &look.seen;
        self.count_round();
        self.r.observing.failures = 0;
        self.r.observing.not_before = None;
        if let Some(checks) = &look.checks {
            self.r.observing.checks.clone_from(checks);
        }
        let previous = self.r.observing.last.replace(seen.clone());
        self.note_interrupted_patch();
        match self.r.state {
            State::AwaitingApproval => self.awaiting_approval(seen),
            State::Approved => self.approved(look),
            State::Applying => self.applying(look),
            State::Verifying => self.verifying(look),
            State::Deploying => self.deploying(look),
            State::RollingBack => self.rolling_back(seen),
            State::NeedsOperator => self.needs_operator(seen, previous.as_ref()),
            _ => self.ended(seen),
        }
    }

    /// Counts consecutive observations, and starts anew after a gap (a restart, a suspended or overloaded
    /// machine).
    ///
    /// The key may have been valid or not during a gap. True readings from before it would count as
    /// consecutive, and a false one as false ever since. Both are dropped, and a full round of readings
    /// comes first.
    fn count_round(&mut self) {
        let gap = self.last_is_old();
        let readings = &mut self.r.readings;
        if gap {
            (readings.round, readings.trues, readings.false_since) = (0, 0, None);
            readings.absent_since = None;
            readings.gaps += 1;
        }
        readings.round += 1;
        if readings.round >= self.r.rules.verify.readings {
            readings.gaps = 0;
        }
    }

    /// An attempt that has no reply when an observation arrives belongs to a sender that died.
    ///
    /// At this point the PATCH may never have left, may have been applied, or may be applied later: the
    /// request can outlive its sender up to its deadline. So the outcome is unknown. The attempt is
    /// marked, because a PATCH of the other key must wait until this one can no longer take effect.
    fn note_interrupted_patch(&mut self) {
        let salt = self.r.salt();
        let patching = &mut self.r.patching;
        let Some(patch) = patching.latest.as_mut().filter(|patch| patch.reply.is_none()) else { return };
        patch.interrupted = true;
        patch.reply = Some(PatchReply::Unknown(Failure {
            class: Class::Unknown,
            status: None,
            code: None,
            detail: "the daemon ended before the reply was recorded".to_owned(),
            retry_after: None,
        }));
        if patch.target == Target::New {
            patching.unknown_at = Some(patch.sent_at);
        }
        let wait = retry::backoff(patching.tries, &self.r.rules.pace, salt);
        patching.retry_at.get_or_insert(patch.sent_at + wait);
    }
}
