//! Whose key it is decides: what Atlas shows, and what may be sent over it.

use keywheel::domain::rotation::outcome::{Look, Outcome, PatchReply};
use keywheel::domain::rotation::state::{Cause, Rotation, State, Target};
use keywheel::domain::time::Timestamp;
use std::time::Duration;

use super::{Judge, Sent, Shown};

impl Judge {
    /// I7 and I16: what Atlas shows decides, and a key that is not ours is left alone.
    pub(super) fn holds_keys(
        &self,
        before: &Rotation,
        outcome: &Outcome,
        after: &Rotation,
        now: Timestamp,
    ) -> Result<(), String> {
        use State as S;
        let (from, to, cause) = (before.state, after.state, after.cause);
        let resuming = before.operator.resuming;
        if !matches!(outcome, Outcome::Looked(_))
            || from.is_final()
            || (from == S::NeedsOperator && !resuming)
        {
            return Ok(());
        }
        let ours = before.patching.first_at.is_some();
        let pending = matches!(from, S::AwaitingApproval | S::Approved);
        let lapsed = now >= self.lapses_at && !self.last().skewed;
        match self.last().shown {
            Shown::Other => rule!(
                (to, cause) == (S::Superseded, Some(Cause::KeyChanged)),
                "I7: a third key led to {to} ({cause:?})"
            ),
            Shown::Disabled if pending || resuming => {
                rule!((to, cause) == (S::Superseded, Some(Cause::ConfigChanged)), "{to} without encryption");
            }
            Shown::Disabled => {
                rule!(
                    (to, cause) == (S::NeedsOperator, Some(Cause::ConfigChanged)),
                    "{to} without encryption"
                );
            }
            Shown::New if pending && !(ours && from == S::Approved) => {
                rule!((to, cause) == (S::Superseded, Some(Cause::DoneByHand)), "{to} although done by hand");
            }
            Shown::New if matches!(from, S::Approved | S::Applying) => {
                let never = to == S::NeedsOperator && cause == Some(Cause::Unproven);
                rule!(to == S::Verifying || never, "{to} although Atlas shows our key");
            }
            Shown::Old if pending && lapsed => rule!(to == S::Expired, "I14: {to} after permission lapsed"),
            Shown::Old if pending => rule!(to != S::Expired, "I14: expired before {}", self.lapses_at),
            Shown::Old if matches!(from, S::Verifying | S::Deploying | S::RollingBack) => {
                self.old_again(before, after, now)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Atlas shows the old key although it showed the new one.
    fn old_again(&self, before: &Rotation, after: &Rotation, now: Timestamp) -> Result<(), String> {
        use State as S;
        let (from, to, cause) = (before.state, after.state, after.cause);
        let settle = after.rules.pace.settle.get();
        let sent_old = self.sent.iter().any(|it| it.target == Target::Old);
        let stale = self.sent.last().is_some_and(|it| now < it.at + settle);
        let verifies = from == S::RollingBack && (sent_old || self.ordered);
        if verifies {
            return Ok(());
        }
        if stale {
            rule!(to == from, "a stale read led to {to}");
        } else if sent_old {
            rule!(to == S::RollingBack, "{to} although our own rollback may have arrived");
        } else {
            rule!((to, cause) == (S::Superseded, Some(Cause::Reverted)), "I7: {to} after a revert");
        }
        Ok(())
    }

    /// I1 to I4: a PATCH is intended, permitted and not a storm.
    pub(super) fn sends(
        &mut self,
        before: &Rotation,
        outcome: &Outcome,
        after: &Rotation,
        target: Target,
        now: Timestamp,
    ) -> Result<(), String> {
        let Outcome::Looked(look) = outcome else {
            return Err("I2: a PATCH without an observation".to_owned());
        };
        let Some(patch) = after.patching.latest.as_ref() else { return Err("I2: no intent".to_owned()) };
        let deadline = now + after.rules.request_timeout.get();
        let intent = (patch.number, patch.target, patch.sent_at, patch.deadline, patch.interrupted)
            == (before.patching.attempts + 1, target, now, deadline, false);
        rule!(intent && patch.reply.is_none(), "I2: the intent is {patch:?}");
        rule!(after.patching.attempts == patch.number, "I2: {} attempts", after.patching.attempts);
        match target {
            Target::New => self.may_send_new(before, look, after, now)?,
            Target::Old => self.may_send_old(after, now)?,
        }
        self.may_send_again(before, after, target, now)?;
        self.old_was_valid |= target == Target::New;
        self.sent.push(Sent { at: now, target, deadline, reply: None });
        rule!(self.sent.len() < 60, "I4: {} PATCHes", self.sent.len());
        if self.guard.is_none() {
            self.guard = Some(now + after.rules.verify.guard.get());
        }
        Ok(())
    }

    fn may_send_new(
        &self,
        before: &Rotation,
        look: &Look,
        after: &Rotation,
        now: Timestamp,
    ) -> Result<(), String> {
        let seen = self.last();
        rule!(seen.shown == Shown::Old, "I7: PATCH(new) over {:?}", seen.shown);
        rule!(after.state == State::Applying, "I2: PATCH(new) in {}", after.state);
        let quorum = before.permission.quorum;
        rule!(quorum.given >= quorum.required, "I3: PATCH(new) without a quorum");
        rule!(now < self.lapses_at, "I3: PATCH(new) after permission lapsed");
        rule!(after.rules.policy.window_open(now), "I3: PATCH(new) outside each window");
        rule!(!seen.skewed, "I3: PATCH(new) with skewed clocks");
        rule!(seen.valid == Some(true), "PATCH(new) while the current key is {:?}", seen.valid);
        let clusters = look.clusters.as_ref();
        let whole = clusters.is_some_and(|all| all.iter().all(|it| it.state != "REPAIRING"));
        rule!(whole, "PATCH(new) with clusters {clusters:?}");
        let same = look.seen.block_hash.is_empty() || !after.rules.whole_block;
        rule!(same, "PATCH(new) of a block that has changed");
        let fails = look.checks.iter().flatten().any(|it| it.result.as_str() == "fail");
        rule!(!fails, "PATCH(new) although a check fails");
        Ok(())
    }

    fn may_send_old(&self, after: &Rotation, now: Timestamp) -> Result<(), String> {
        let seen = self.last();
        rule!(seen.shown == Shown::New, "I7: PATCH(old) over {:?}", seen.shown);
        rule!(after.state == State::RollingBack, "I2: PATCH(old) in {}", after.state);
        rule!(self.old_was_valid, "PATCH(old) of a key that was not valid");
        let wanted = self.ordered || seen.valid == Some(false) || self.old_sent_now();
        rule!(wanted, "PATCH(old) without a false reading");
        rule!(self.guard.is_some_and(|guard| now < guard), "PATCH(old) after the guard");
        // PATCH(new) of a dead sender may arrive late.
        let lost = self.sent.last().filter(|it| it.target == Target::New && it.reply.is_none());
        let settle = after.rules.pace.settle.get();
        let over = lost.is_none_or(|it| now >= it.deadline + settle);
        rule!(over, "PATCH(old) while PATCH(new) may be in flight");
        Ok(())
    }

    fn may_send_again(
        &self,
        before: &Rotation,
        after: &Rotation,
        target: Target,
        now: Timestamp,
    ) -> Result<(), String> {
        let Some(earlier) = self.sent.last().filter(|it| it.target == target) else { return Ok(()) };
        let soonest = Duration::from_millis(790);
        let wait = match &earlier.reply {
            Some((_, PatchReply::Accepted)) => earlier.at + after.rules.pace.settle.get(),
            Some((_, PatchReply::Refused(_))) if before.operator.paged_at.is_none() && self.pages == 0 => {
                return Err("I4: PATCH again after a refusal".to_owned());
            }
            Some((at, _)) => *at + soonest,
            None => earlier.at + soonest,
        };
        rule!(now >= wait || self.pages > 0, "I4: PATCH again before {wait}");
        Ok(())
    }

    /// A PATCH(old) of the present rollback has left.
    fn old_sent_now(&self) -> bool {
        self.sent.last().is_some_and(|it| it.target == Target::Old && it.at >= self.rolling_back_since)
    }
}
