//! `awaiting_approval` and `approved`: no PATCH is in flight, except one of an earlier `applying` that
//! may still take effect.
//!
//! After the quorum, a hold may delay the PATCH: the window, clock skew, the current key, a cluster, the
//! checklist. Every hold passes by itself, so it does not end the rotation.

use super::sight::{Sight, sight, skewed};
use super::step::Announcement;
use super::turn::Turn;
use crate::domain::preflight::failed;
use crate::domain::rotation::outcome::{Look, Observation};
use crate::domain::rotation::state::{Cause, Hold, State, Target};

impl Turn {
    pub(super) fn awaiting_approval(&mut self, seen: &Observation) {
        match sight(&self.r, seen) {
            Sight::New => self.finish(State::Superseded, Some(Cause::DoneByHand)),
            Sight::Other => self.finish(State::Superseded, Some(Cause::KeyChanged)),
            Sight::Elsewhere => self.finish(State::Superseded, Some(Cause::ConfigChanged)),
            Sight::Old if self.expired() => self.finish(State::Expired, None),
            Sight::Old => {
                self.r.hold = if skewed(seen) { Some(Hold::ClockSkew) } else { None };
                self.rest_until_idle();
            }
        }
    }

    pub(super) fn approved(&mut self, look: &Look) {
        match sight(&self.r, &look.seen) {
            // The rotation returned from `applying` because its permission ended, while a PATCH of ours
            // was still under way. That PATCH has now taken effect. As `done_by_hand` the rotation would
            // end here and leave our key in force without verification.
            Sight::New if self.r.patching.first_at.is_some() => self.begin_verifying(look),
            Sight::New => self.finish(State::Superseded, Some(Cause::DoneByHand)),
            Sight::Other => self.finish(State::Superseded, Some(Cause::KeyChanged)),
            Sight::Elsewhere => self.finish(State::Superseded, Some(Cause::ConfigChanged)),
            Sight::Old if self.expired() => self.finish(State::Expired, None),
            Sight::Old if !self.r.permission.quorum.is_met() => self.back_to_awaiting(),
            Sight::Old => match self.hold_reason(look) {
                None => {
                    self.r.state = State::Applying;
                    self.r.hold = None;
                    // `hold_reason` lets only `valid: true` pass, so Atlas can use the old key: a
                    // rollback is possible.
                    self.r.rollback.old_key_was_valid = true;
                    self.send(Target::New);
                }
                Some(hold) => self.hold(hold),
            },
        }
    }

    /// The hold that stops a PATCH of the new key after the quorum; `None` when the PATCH may leave.
    pub(super) fn hold_reason(&self, look: &Look) -> Option<Hold> {
        let seen = &look.seen;
        if skewed(seen) {
            return Some(Hold::ClockSkew);
        }
        match seen.valid {
            Some(true) => {}
            Some(false) => return Some(Hold::CurrentKeyInvalid),
            None => return Some(Hold::CurrentKeyUnknown),
        }
        if self.r.new_key.check_place(&seen.place).is_err() {
            return Some(Hold::ConfigChanged);
        }
        if self.r.rules.whole_block && seen.block_hash != self.r.block.hash {
            return Some(Hold::BlockChanged);
        }
        match &look.clusters {
            None => return Some(Hold::ClustersUnknown),
            Some(clusters) if clusters.iter().any(|cluster| cluster.state == "REPAIRING") => {
                return Some(Hold::ClusterRepairing);
            }
            Some(_) => {}
        }
        if look.checks.as_deref().is_some_and(|checks| failed(checks).is_some()) {
            return Some(Hold::Preflight);
        }
        let put_off = self.r.state == State::Approved && self.r.patching.put_off_since.is_some();
        if put_off && self.r.patching.retry_at.is_some_and(|at| self.now < at) {
            return Some(self.r.put_off_by());
        }
        if self.r.rules.window_open(self.now) { None } else { Some(Hold::Window) }
    }

    fn hold(&mut self, hold: Hold) {
        if hold == Hold::Preflight && self.r.hold != Some(hold) {
            self.notices.push(Announcement::PreflightFailed);
        }
        self.r.hold = Some(hold);
        let opens = self.r.rules.next_open(self.now).filter(|_| hold == Hold::Window);
        let idle = self.now + self.r.rules.pace.idle_every.get();
        let until = match opens {
            Some(opens) => opens.min(idle),
            None => self.now + self.r.rules.verify.deploy_poll.get(),
        };
        // Nothing expires during clock skew. A wait that ends at an expiry already past would wake the
        // rotation at once, again and again.
        let until = if hold == Hold::ClockSkew { until } else { until.min(self.r.permission.expires_at) };
        self.rest(until);
    }

    pub(super) fn back_to_awaiting(&mut self) {
        self.r.state = State::AwaitingApproval;
        self.r.permission.approved_at = None;
        self.r.permission.expires_at = self.r.rules.approval_deadline(self.r.created_at);
        self.rest(self.now);
    }
}
