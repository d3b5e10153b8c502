//! Decisions of people. A command that has no meaning in its state is illegal and changes nothing.

use super::sight::{Sight, sight};
use super::turn::Turn;
use crate::domain::rotation::outcome::Command;
use crate::domain::rotation::state::{Cause, State};

impl Turn {
    pub(super) fn said(&mut self, command: &Command) {
        let before = matches!(self.r.state, State::AwaitingApproval | State::Approved);
        // Whatever it says cannot be believed: neither its new key nor that it was verified.
        let believed = self.r.cause != Some(Cause::Tampered);
        match command {
            Command::Approve { given } if self.r.state == State::AwaitingApproval => {
                self.r.permission.quorum.given = *given;
                if self.r.permission.quorum.is_met() {
                    self.r.state = State::Approved;
                    self.r.permission.approved_at = Some(self.now);
                    self.r.permission.expires_at = self.r.rules.execution_deadline(self.now);
                }
                self.rest(self.now);
            }
            Command::Withdraw { given } if before => {
                self.r.permission.quorum.given = *given;
                if self.r.state == State::Approved && !self.r.permission.quorum.is_met() {
                    self.back_to_awaiting();
                } else {
                    self.rest(self.now);
                }
            }
            Command::Reject if before => self.finish(State::Rejected, None),
            Command::Cancel if before => self.finish(State::Cancelled, None),
            Command::Resume if self.r.state == State::NeedsOperator && believed => {
                self.r.operator.resuming = true;
                self.r.observing.not_before = None;
                self.rest(self.now);
            }
            Command::Rollback if self.r.state == State::NeedsOperator && self.r.patching.attempts > 0 => {
                self.r.cause = None;
                self.r.operator.paged_at = None;
                self.r.operator.resuming = false;
                self.r.rollback.ordered = true;
                self.r.observing.not_before = None;
                self.renew_deadlines();
                self.begin_rolling_back();
                self.rest(self.now);
            }
            Command::Accept
                if self.r.state == State::NeedsOperator && believed && self.new_key_acceptable() =>
            {
                self.finish(State::Accepted, None);
            }
            Command::Close if self.r.state == State::NeedsOperator => self.finish(State::Closed, None),
            _ => self.illegal = true,
        }
    }

    /// An operator accepts the new key without verification, so a fresh observation must show it, and not
    /// as invalid. An absent `valid` suffices; otherwise a rotation with the cause `unproven` could not
    /// be accepted.
    fn new_key_acceptable(&self) -> bool {
        let last = self.r.observing.last.as_ref().filter(|_| !self.last_is_old());
        last.is_some_and(|last| sight(&self.r, last) == Sight::New && last.valid != Some(false))
    }
}
