//! A PATCH came to its end.

use super::sight::extras;
use super::step::Effect;
use super::turn::Turn;
use crate::domain::rotation::outcome::Reply;
use crate::domain::rotation::retry;
use crate::domain::rotation::state::{Cause, Target};

impl Turn {
    pub(super) fn replied(&mut self, reply: &Reply) {
        let (pace, tries) = (self.r.rules.pace.clone(), self.r.patching.tries);
        let Some(patch) = self.r.patching.latest.as_mut().filter(|patch| patch.reply.is_none()) else {
            return;
        };
        patch.reply = Some(reply.clone());
        let (sent_at, target) = (patch.sent_at, patch.target);
        let may_have_applied = matches!(reply, Reply::Accepted | Reply::Unknown(_));
        if !may_have_applied && target == Target::New && self.r.patching.first_at == Some(sent_at) {
            (self.r.patching.first_at, self.r.patching.guard_deadline) = (None, None);
        }
        match reply {
            Reply::Accepted => self.effect = Effect::Look(extras(&self.r)),
            Reply::Unknown(failure) => {
                if target == Target::New {
                    self.r.patching.unknown_at = Some(sent_at);
                }
                self.r.observing.failure = Some(failure.clone());
                self.r.patching.retry_at =
                    Some(self.now + retry::wait_after(failure, tries, &pace, self.r.salt()));
                self.effect = Effect::Look(extras(&self.r));
            }
            Reply::Refused(failure) => {
                self.r.observing.failure = Some(failure.clone());
                self.effect = Effect::Look(extras(&self.r));
            }
            Reply::NotTaken(failure) => {
                self.r.observing.failure = Some(failure.clone());
                let until = self.now + retry::wait_after(failure, tries, &pace, self.r.salt());
                self.r.patching.retry_at = Some(until);
                if failure.retry_after.is_some() || failure.status == Some(429) {
                    self.r.observing.not_before = Some(until);
                }
                self.rest(self.before_guard(until));
            }
            Reply::Auth(failure) | Reply::Gone(failure) => {
                self.r.observing.failure = Some(failure.clone());
                let cause = if matches!(reply, Reply::Gone(_)) { Cause::Gone } else { Cause::Auth };
                match target {
                    Target::Old => self.need_operator(cause),
                    Target::New => self.shut_out(cause),
                }
            }
        }
    }
}
