//! `applying`: a PATCH of the new key may be in flight.

use super::sight::{Sight, sight};
use super::turn::Turn;
use crate::domain::rotation::outcome::{Look, PatchReply};
use crate::domain::rotation::state::{Cause, State, Target};

impl Turn {
    pub(super) fn applying(&mut self, look: &Look) {
        match sight(&self.r, &look.seen) {
            Sight::New => self.begin_verifying(look),
            Sight::Other => self.finish(State::Superseded, Some(Cause::KeyChanged)),
            Sight::Elsewhere => self.need_operator(Cause::ConfigChanged),
            Sight::Old => self.still_old(look),
        }
    }

    /// A PATCH(new) was recorded and Atlas shows the old key.
    ///
    /// At this point the PATCH was refused, never arrived, was applied but is not visible yet, or will be
    /// applied later. Ending the rotation while one of the last two is possible would leave an unverified
    /// new key in Atlas. Sending again is harmless: the value is the same.
    fn still_old(&mut self, look: &Look) {
        let reply = self.r.patching.latest.as_ref().and_then(|patch| patch.reply.clone());
        let settle = self.r.rules.pace.settle.get();
        if let Some(PatchReply::Refused(_)) = reply {
            return match self.r.patching.unknown_at {
                // This attempt was refused, but an earlier one ended unknown and may still be applied.
                Some(at) if self.now < at + settle => self.observe_again_soon(),
                _ => self.finish(State::Failed, Some(Cause::Refused)),
            };
        }
        if self.guard_over() {
            return self.finish(State::Failed, Some(Cause::NotApplied));
        }
        let sent_at = self.r.patching.latest.as_ref().map_or(self.now, |patch| patch.sent_at);
        if reply == Some(PatchReply::Accepted) && self.now < sent_at + settle {
            // Atlas accepted the PATCH, and a read may lag behind an accepted write. A second PATCH now
            // would most likely repeat a successful one.
            return self.observe_again_soon();
        }
        let retry_at = self.r.patching.retry_at.unwrap_or(self.now);
        if self.now < retry_at {
            let guard = self.r.rules.verify.guard.get();
            if self.r.patching.put_off_since.is_some_and(|since| self.now.since(since) >= guard) {
                // Nothing was sent that Atlas took, so nobody is paged: the rotation waits as it did before.
                self.r.state = State::Approved;
                self.r.hold = Some(self.r.put_off_by());
                return self.rest(self.now);
            }
            // The key is read meanwhile: a PATCH may be put off for a day.
            let look = self.now + self.r.rules.verify.deploy_poll.get();
            return self.rest(self.before_guard(retry_at.min(look)));
        }
        // Votes, permission, window and clocks may have changed since the first attempt. They are checked
        // in the step that records this attempt. Otherwise a PATCH could leave after an approval was
        // withdrawn or the window closed.
        let permitted = !self.expired() && self.r.permission.quorum.is_met();
        let hold = if permitted { self.hold_reason(look) } else { None };
        if permitted && hold.is_none() {
            return self.send(Target::New);
        }
        self.r.state = State::Approved;
        self.r.hold = hold;
        self.rest(self.now);
    }

    /// Atlas reports that the project is gone.
    ///
    /// An attempt that was accepted, ended unknown or has no reply may have put our key into Atlas. No
    /// observation can show it now, so an operator is paged. The rotation fails only if Atlas carried out
    /// no attempt.
    pub(super) fn shut_out(&mut self) {
        let patch = self.r.patching.latest.as_ref();
        let open = patch
            .is_some_and(|it| matches!(it.reply, None | Some(PatchReply::Accepted | PatchReply::Unknown(_))));
        if open || self.r.patching.unknown_at.is_some() {
            self.need_operator(Cause::Gone);
        } else {
            self.finish(State::Failed, Some(Cause::Gone));
        }
    }
}
