//! A PATCH ended, as far as its sender can tell. An observation follows, whatever the reply was.

use super::turn::Turn;
use crate::domain::rotation::outcome::PatchReply;
use crate::domain::rotation::retry;
use crate::domain::rotation::state::{Cause, Target};

impl Turn {
    pub(super) fn replied(&mut self, reply: &PatchReply) {
        let (pace, tries) = (self.r.rules.pace.clone(), self.r.patching.tries);
        // A reply that arrives after another worker's observation is late: the attempt counts as unknown
        // by then. Decisions rest on that, so the reply is dropped.
        let Some(patch) = self.r.patching.latest.as_mut().filter(|patch| patch.reply.is_none()) else {
            return;
        };
        patch.reply = Some(reply.clone());
        let (sent_at, target) = (patch.sent_at, patch.target);
        let may_have_applied = matches!(reply, PatchReply::Accepted | PatchReply::Unknown(_));
        if !may_have_applied && target == Target::New && self.r.patching.first_at == Some(sent_at) {
            // The guard counts from the first PATCH that may have been applied. This PATCH was not
            // applied, and a guard that ran on would end a rotation that waits out a rate limit.
            (self.r.patching.first_at, self.r.patching.guard_deadline) = (None, None);
        }
        match reply {
            PatchReply::NotTaken(_) | PatchReply::Auth(_)
                if target == Target::New && self.r.patching.first_at.is_none() =>
            {
                self.r.patching.put_off_since.get_or_insert(sent_at);
            }
            _ => self.r.patching.put_off_since = None,
        }
        match reply {
            PatchReply::Accepted => self.observe_at_once(),
            PatchReply::Unknown(failure) => {
                if target == Target::New {
                    self.r.patching.unknown_at = Some(sent_at);
                }
                self.r.observing.failure = Some(failure.clone());
                self.r.patching.retry_at =
                    Some(self.now + retry::wait_after(failure, tries, &pace, self.r.salt()));
                self.observe_at_once();
            }
            PatchReply::Refused(failure) => {
                self.r.observing.failure = Some(failure.clone());
                self.observe_at_once();
            }
            // A refusal of the credential or of this machine's address may pass: a secret is renewed, an address
            // listed. It is borne as other trouble is, within the guard.
            PatchReply::NotTaken(failure) | PatchReply::Auth(failure) => {
                self.r.observing.failure = Some(failure.clone());
                let shut_out = target == Target::New && matches!(reply, PatchReply::Auth(_));
                let wait = if shut_out {
                    retry::refused(tries, &pace, self.r.salt())
                } else {
                    retry::wait_after(failure, tries, &pace, self.r.salt())
                };
                let pause = wait.min(self.longest_pause());
                // PATCH(new) waits in full. The old key is needed, and the readings are, whatever Atlas asks for.
                let patch_in = if target == Target::New { wait } else { pause };
                self.r.patching.retry_at = Some(self.now + patch_in);
                if failure.asks_to_wait() {
                    self.r.observing.not_before = Some(self.now + pause);
                }
                self.rest(self.before_guard(self.now + pause));
            }
            PatchReply::Gone(failure) => {
                self.r.observing.failure = Some(failure.clone());
                match target {
                    // The new key is bad and in force.
                    Target::Old => self.need_operator(Cause::Gone),
                    Target::New => self.shut_out(),
                }
            }
        }
    }
}
