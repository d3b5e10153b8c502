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
    /// At this point the PATCH was refused, never arrived, was applied but is not visible yet, or will
    /// be applied later. Ending the rotation while one of the last two is possible would leave Atlas
    /// with a new key that no one verifies. Sending again is harmless: the value is the same.
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
            // Atlas said yes, and a read may lag behind an accepted write. A second PATCH now would
            // most likely repeat one that worked.
            return self.observe_again_soon();
        }
        let retry_at = self.r.patching.retry_at.unwrap_or(self.now);
        if self.now < retry_at {
            return self.rest(retry_at);
        }
        // Votes, permission, window and clocks may have changed since the first attempt. They are
        // checked in the step that records this one, or a PATCH could leave that no one allows any more.
        let permitted = !self.expired() && self.r.permission.quorum.is_met();
        let hold = if permitted { self.hold_reason(look) } else { None };
        if permitted && hold.is_none() {
            return self.send(Target::New);
        }
        self.r.state = State::Approved;
        self.r.hold = hold;
        self.rest(self.now);
    }

    /// Atlas does not accept the credential any more, or says that the project is gone.
    ///
    /// If an attempt was accepted, ended unknown or has no reply, Atlas may hold our key and no one can
    /// see it: a person is paged. Only if every attempt was turned down, the rotation has failed.
    pub(super) fn shut_out(&mut self, cause: Cause) {
        let patch = self.r.patching.latest.as_ref();
        let open = patch
            .is_some_and(|it| matches!(it.reply, None | Some(PatchReply::Accepted | PatchReply::Unknown(_))));
        if open || self.r.patching.unknown_at.is_some() {
            self.need_operator(cause);
        } else {
            self.finish(State::Failed, Some(cause));
        }
    }
}
