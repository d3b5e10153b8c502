//! What is announced, how long a rotation rests, and how it ends.

use std::time::Duration;

use keywheel::domain::rotation::machine::{Announcement, Effect, Step};
use keywheel::domain::rotation::outcome::Outcome;
use keywheel::domain::rotation::state::{Cause, Deployed, Hold, Rotation, State, Target};
use keywheel::domain::time::Timestamp;

use super::super::search::World;
use super::super::world::{NEW, OLD, key};
use super::{Judge, Shown};

impl Judge {
    /// Each end and page is announced once.
    pub(super) fn announces(
        &mut self,
        before: &Rotation,
        outcome: &Outcome,
        step: &Step,
        now: Timestamp,
    ) -> Result<(), String> {
        let after = &step.rotation;
        let moved = before.state != after.state;
        let mut due = Vec::new();
        if moved && after.state == State::Completed && after.rollout.deployed == Some(Deployed::No) {
            due.push(Announcement::NotDeployed);
        }
        if moved && after.state.is_final() {
            due.push(Announcement::Finished(after.state));
            rule!(after.ending.finished_at == Some(now), "finished at {:?}", after.ending.finished_at);
        }
        if moved && after.state == State::NeedsOperator {
            due.push(Announcement::Page);
            (self.pages, self.stuck_since) = (1, Some(now));
        } else if before.state == State::NeedsOperator && moved {
            self.stuck_since = None;
        }
        let held_anew = after.state == State::Approved && !moved && after.hold != before.hold;
        if held_anew && after.hold == Some(Hold::Preflight) {
            due.push(Announcement::PreflightFailed);
        }
        if before.state.is_final() && matches!(outcome, Outcome::Looked(_)) && !self.late_told {
            let shown = self.last().shown;
            let settled = before.ending.settled_key.as_ref();
            let sent = |target| self.sent.iter().any(|it| it.target == target);
            let late = match shown {
                Shown::New => !self.sent.is_empty() && settled != Some(&key(NEW)),
                Shown::Old => sent(Target::Old) && settled != Some(&key(OLD)),
                _ => false,
            };
            if late && settled.is_some() {
                self.late_told = true;
                due.push(Announcement::LateApply);
            }
        }
        rule!(step.notices == due, "announced {:?} instead of {due:?}", step.notices);
        Ok(())
    }

    /// A wait is neither for ever nor no wait at all, and the guard is not slept through.
    pub(super) fn rests(&self, before: &Rotation, step: &Step, world: &World) -> Result<(), String> {
        use State as S;
        let (after, now) = (&step.rotation, world.now);
        let open = after.ending.watch_until.is_some_and(|until| now < until);
        if after.state.is_final() {
            rule!(after.wake_at.is_some() == open, "{} wakes at {:?}", after.state, after.wake_at);
            rule!(open || self.sent.is_empty() || before.state.is_final(), "an end that is not watched");
            return Ok(());
        }
        let Some(wake) = after.wake_at else { return Err(format!("{} never wakes", after.state)) };
        if step.effect != Effect::Rest {
            return Ok(());
        }
        let verify = &after.rules.verify;
        let asked = after.observing.not_before.unwrap_or(now);
        let closed = world.closed_until.max(now).max(asked) + Duration::from_secs(120);
        let cadence = match after.state {
            S::AwaitingApproval | S::Approved => after.rules.pace.idle_every.get(),
            S::NeedsOperator | S::Deploying => verify.deploy_poll.get(),
            _ => verify.every.get() * 2,
        };
        rule!(wake <= (now + cadence).max(closed), "{} sleeps until {wake}", after.state);
        if let Some(guard) = self.guard.filter(|guard| *guard > now) {
            let exposed = matches!(after.state, S::Applying | S::Verifying | S::RollingBack);
            rule!(
                !exposed || wake <= guard.max(now + verify.every.get()),
                "{} sleeps through the guard",
                after.state
            );
        }
        Ok(())
    }

    /// I6 and I16, when nothing happens any more.
    pub(in super::super) fn end(&self, it: &Rotation, world: &World) -> Result<(), String> {
        use State as S;
        rule!(it.state.is_final(), "I16: at rest in {}", it.state);
        let explained = world.other_acted || self.late_told || self.pages > 0;
        let agrees = match it.state {
            S::Completed => world.key == Some(NEW),
            S::RolledBack => world.key == Some(OLD),
            S::Failed => world.key == Some(OLD) || it.cause == Some(Cause::Gone),
            _ => true,
        };
        rule!(agrees || explained, "I16: {} while Atlas holds {:?}", it.state, world.key);
        Ok(())
    }
}
