//! The final states. No state follows them. A PATCH of ours may still take effect, and that is announced.

use super::sight::{Sight, sight};
use super::step::{Announcement, Effect};
use super::turn::Turn;
use crate::domain::rotation::outcome::Observation;
use crate::domain::rotation::state::{Cause, State};

impl Turn {
    pub(super) fn finish(&mut self, state: State, cause: Option<Cause>) {
        self.r.state = state;
        self.r.cause = cause;
        self.r.hold = None;
        self.r.operator.resuming = false;
        self.r.ending.finished_at = Some(self.now);
        self.r.ending.settled_key = self.r.observing.last.as_ref().and_then(|last| last.key.clone());
        self.notices.push(Announcement::Finished(state));
        self.effect = Effect::Rest;
        let pace = &self.r.rules.pace;
        self.r.ending.watch_until = (self.r.patching.attempts > 0).then(|| self.now + pace.watch_for.get());
        self.r.wake_at = self.r.ending.watch_until.map(|_| self.now + pace.watch_every.get());
    }

    /// Atlas shows one of our two keys, but not the one it held at the end. Either a PATCH of ours was
    /// applied late, or a person set that key by hand. Only a key that we sent can be a late PATCH. Any
    /// other key is another actor's change, and this rotation does not announce it.
    pub(super) fn ended(&mut self, seen: &Observation) {
        let key = match sight(&self.r, seen) {
            Sight::New if self.r.patching.attempts > 0 => Some(&self.r.new_key),
            Sight::Old if self.r.patching.sent_old => Some(&self.r.old_key),
            _ => None,
        };
        let settled = self.r.ending.settled_key.as_ref();
        let late = key.is_some_and(|key| settled.is_some_and(|settled| !key.is_same(settled, &seen.place)));
        if late && !self.r.ending.late_apply {
            self.r.ending.late_apply = true;
            self.notices.push(Announcement::LateApply);
        }
        self.watch_on();
    }

    pub(super) fn watch_on(&mut self) {
        let wake = self.now + self.r.rules.pace.watch_every.get();
        self.r.wake_at = self.r.ending.watch_until.filter(|until| self.now < *until).map(|_| wake);
    }
}
