//! Atlas was read: what every state does with that before its own phase decides.

use super::turn::Turn;
use crate::domain::rotation::outcome::{Class, Failure, Look, Reply};
use crate::domain::rotation::retry;
use crate::domain::rotation::state::{State, Target};

impl Turn {
    pub(super) fn looked(&mut self, look: &Look) {
        let seen = &look.seen;
        let gap =
            self.r.observing.last.as_ref().is_none_or(|last| self.now.since(last.at) > self.cadence() * 2);
        if gap {
            // Nobody knows what happened in between: start a full round of readings.
            (self.r.readings.round, self.r.readings.trues, self.r.readings.false_since) = (0, 0, None);
            self.r.readings.gaps += 1;
        }
        self.r.readings.round += 1;
        if self.r.readings.round >= self.r.rules.verify.readings {
            self.r.readings.gaps = 0;
        }
        self.r.observing.failures = 0;
        self.r.observing.not_before = None;
        if let Some(checks) = &look.checks {
            self.r.observing.checks.clone_from(checks);
        }
        let previous = self.r.observing.last.replace(seen.clone());
        self.note_interrupted_patch();
        match self.r.state {
            State::AwaitingApproval => self.look_awaiting(seen),
            State::Approved => self.look_approved(look),
            State::Applying => self.look_applying(look),
            State::Verifying => self.look_verifying(look),
            State::Deploying => self.look_deploying(look),
            State::RollingBack => self.look_rolling_back(seen),
            State::NeedsOperator => self.look_needs_operator(seen, previous.as_ref()),
            _ => self.look_final(seen),
        }
    }

    /// An attempt without a reply at a look means that its sender died: its outcome is unknown.
    fn note_interrupted_patch(&mut self) {
        let Some(patch) = self.r.patching.latest.as_mut().filter(|patch| patch.reply.is_none()) else {
            return;
        };
        patch.interrupted = true;
        let failure = Failure {
            class: Class::Unknown,
            status: None,
            code: None,
            detail: "the daemon ended before the reply was recorded".to_owned(),
            retry_after: None,
        };
        patch.reply = Some(Reply::Unknown(failure));
        let (sent_at, target) = (patch.sent_at, patch.target);
        if target == Target::New {
            self.r.patching.unknown_at = Some(sent_at);
        }
        self.r.patching.retry_at.get_or_insert(
            sent_at + retry::backoff(self.r.patching.tries, &self.r.rules.pace, self.r.salt()),
        );
    }
}
