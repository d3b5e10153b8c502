//! `needs_operator`: the key in force cannot be verified, so an operator decides. Until then Atlas is
//! observed.

use super::sight::{Sight, sight};
use super::step::{Announcement, Effect};
use super::turn::Turn;
use crate::domain::rotation::outcome::Observation;
use crate::domain::rotation::state::{Cause, State};

impl Turn {
    pub(super) fn need_operator(&mut self, cause: Cause) {
        self.r.state = State::NeedsOperator;
        self.r.cause = Some(cause);
        self.r.hold = None;
        self.r.operator.paged_at = Some(self.now);
        self.r.operator.pages = 1;
        self.r.readings.trues = 0;
        self.notices.push(Announcement::Page);
        self.effect = Effect::Rest;
        self.rest(self.now + self.cadence());
    }

    /// What the rotation rests on was changed outside of Keywheel: nothing of it is believed, and only people go on.
    pub(super) fn tampered(&mut self) {
        if self.r.state.is_final() {
            self.illegal = true;
        } else {
            self.need_operator(Cause::Tampered);
        }
    }

    pub(super) fn needs_operator(&mut self, seen: &Observation, previous: Option<&Observation>) {
        let sight = sight(&self.r, seen);
        if self.r.operator.resuming {
            return self.go_on(sight);
        }
        self.count(seen.valid);
        // Readings belong to one key: those from before a change of the key do not count for this one.
        if previous.is_none_or(|previous| previous.key != seen.key) {
            self.r.readings.trues = u32::from(seen.valid == Some(true));
        }
        // Atlas refused the rollback because it could not use the new key. It can use that key now, so
        // the rotation goes forward without an operator. Once only: a key that keeps flapping would be
        // PATCHed back and forth without end.
        let works = self.r.readings.trues >= self.r.rules.verify.readings;
        match (self.r.cause, sight) {
            (Some(Cause::RollbackRefused), Sight::New) if works && !self.r.rollback.healed => {
                self.r.rollback.healed = true;
                self.heal(State::Verifying);
            }
            // Atlas accepts the credential again, and the key that it holds works. A key that does not is left to
            // the operator who was paged.
            (Some(Cause::Auth), Sight::New) if works => self.heal(State::Verifying),
            (Some(Cause::Auth), Sight::Old) if works && self.r.patching.sent_old => {
                self.heal(State::RollingBack);
                self.r.rollback.since = Some(self.now);
            }
            (Some(Cause::Auth), Sight::Old) if works => {
                self.heal(State::Approved);
                (self.r.patching.retry_at, self.r.patching.tries) = (None, 0);
            }
            _ => self.look_on(),
        }
    }

    /// Goes on without an operator, with new deadlines.
    fn heal(&mut self, state: State) {
        self.r.operator.paged_at = None;
        self.renew_deadlines();
        self.r.state = state;
        self.r.cause = None;
        self.rest_for_reading();
    }

    /// `resume`: the key that Atlas holds decides the next state, not the state before the page. Days may
    /// have passed, so every deadline begins anew.
    fn go_on(&mut self, sight: Sight) {
        self.r.operator.resuming = false;
        self.r.operator.paged_at = None;
        self.r.cause = None;
        self.renew_deadlines();
        match sight {
            Sight::New => {
                self.r.state = State::Verifying;
                // The key may have been another one meanwhile: the clusters then take this one up anew.
                self.r.rollout.clusters.clear();
                self.rest_for_reading();
            }
            Sight::Old => {
                self.r.state = State::Approved;
                self.r.permission.expires_at = self.r.rules.execution_deadline(self.now);
                (self.r.patching.retry_at, self.r.patching.tries) = (None, 0);
                self.rest(self.now);
            }
            Sight::Other => self.finish(State::Superseded, Some(Cause::KeyChanged)),
            Sight::Elsewhere => self.finish(State::Superseded, Some(Cause::ConfigChanged)),
        }
    }

    /// The page is repeated as a condition (`domain/condition.rs`); here only the readings go on.
    pub(super) fn look_on(&mut self) {
        let wake = self.now + self.cadence();
        self.rest(self.r.observing.not_before.map_or(wake, |until| until.max(wake)));
    }
}
