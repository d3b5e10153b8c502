//! `applying`: a PATCH of the new key may be in flight.

use super::sight::{Sight, sight};
use super::turn::Turn;
use crate::domain::rotation::outcome::{Look, Reply};
use crate::domain::rotation::state::{Cause, State, Target};

impl Turn {
    pub(super) fn look_applying(&mut self, look: &Look) {
        match sight(&self.r, &look.seen) {
            Sight::New => self.begin_verifying(look),
            Sight::Other => self.finish(State::Superseded, Some(Cause::KeyChanged)),
            Sight::Elsewhere => self.need_operator(Cause::ConfigChanged),
            Sight::Old => self.still_old(look),
        }
    }

    /// Our PATCH was sent and Atlas shows the old key: refused, not arrived, not yet visible?
    fn still_old(&mut self, look: &Look) {
        let reply = self.r.patching.latest.as_ref().and_then(|patch| patch.reply.clone());
        let settle = self.r.rules.pace.settle.get();
        if let Some(Reply::Refused(_)) = reply {
            return match self.r.patching.unknown_at {
                Some(at) if self.now < at + settle => self.look_again_soon(),
                _ => self.finish(State::Failed, Some(Cause::Refused)),
            };
        }
        if self.guard_over() {
            return self.finish(State::Failed, Some(Cause::NotApplied));
        }
        let sent_at = self.r.patching.latest.as_ref().map_or(self.now, |patch| patch.sent_at);
        if reply == Some(Reply::Accepted) && self.now < sent_at + settle {
            // A read may lag behind an accepted write: no second PATCH before that is ruled out.
            return self.look_again_soon();
        }
        let retry_at = self.r.patching.retry_at.unwrap_or(self.now);
        if self.now < retry_at {
            return self.rest(retry_at);
        }
        let objection = if self.expired() || !self.r.permission.quorum.is_met() {
            Some(None)
        } else {
            self.objection(look).map(Some)
        };
        match objection {
            None => self.send(Target::New),
            Some(hold) => {
                self.r.state = State::Approved;
                self.r.hold = hold;
                self.rest(self.now);
            }
        }
    }

    /// Atlas does not let us in while applying: failed if it cannot hold our key, else a person.
    pub(super) fn shut_out(&mut self, cause: Cause) {
        let open = self
            .r
            .patching
            .latest
            .as_ref()
            .is_some_and(|patch| matches!(patch.reply, None | Some(Reply::Accepted | Reply::Unknown(_))));
        if open || self.r.patching.unknown_at.is_some() {
            self.need_operator(cause);
        } else {
            self.finish(State::Failed, Some(cause));
        }
    }
}
