//! The rules that every step of a rotation keeps, checked against what the world gave.
//!
//! The judge keeps a record of its own (observations, PATCHes, votes, pages) and computes from it what
//! may follow. It reads the machine's memory only for what the machine itself promises to record.

macro_rules! rule {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(format!($($why)+));
        }
    };
}

mod keys;
mod readings;
mod told;

use std::time::Duration;

use keywheel::domain::rotation::machine::{Effect, MAX_SKEW, Step};
use keywheel::domain::rotation::outcome::{Cluster, Command, Look, Outcome, PatchReply};
use keywheel::domain::rotation::state::{Rotation, State, Target};
use keywheel::domain::time::Timestamp;

use super::search::World;
use super::world::{NEW, OLD, key};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shown {
    New,
    Old,
    Other,
    Disabled,
}

struct Seen {
    at: Timestamp,
    recorded_at: Timestamp,
    shown: Shown,
    valid: Option<bool>,
    skewed: bool,
    clusters: Option<Vec<Cluster>>,
    network_denied: Option<bool>,
    /// It came later than two cadences after the one before.
    gap: bool,
}

struct Sent {
    at: Timestamp,
    target: Target,
    deadline: Timestamp,
    /// The reply and when it was recorded. None is recorded when the sender died.
    reply: Option<(Timestamp, PatchReply)>,
}

pub(super) struct Judge {
    seen: Vec<Seen>,
    sent: Vec<Sent>,
    /// The first observation that counts as a reading of the key at hand.
    from: usize,
    verifying_since: Timestamp,
    deploying_since: Timestamp,
    rolling_back_since: Timestamp,
    lapses_at: Timestamp,
    guard: Option<Timestamp>,
    old_was_valid: bool,
    ordered: bool,
    returns: u32,
    heals: u32,
    pages: u32,
    stuck_since: Option<Timestamp>,
    late_told: bool,
}

impl Judge {
    pub(super) fn new(it: &Rotation) -> Self {
        let now = it.created_at;
        let first = Seen {
            at: now,
            recorded_at: now,
            shown: Shown::Old,
            valid: Some(true),
            skewed: false,
            clusters: None,
            network_denied: None,
            gap: false,
        };
        Self {
            seen: vec![first],
            sent: Vec::new(),
            from: 0,
            verifying_since: now,
            deploying_since: now,
            rolling_back_since: now,
            lapses_at: now + it.rules.policy.approval_ttl.get(),
            guard: None,
            old_was_valid: false,
            ordered: false,
            returns: 0,
            heals: 0,
            pages: 0,
            stuck_since: None,
            late_told: false,
        }
    }

    pub(super) fn stuck_for(&self, now: Timestamp) -> Duration {
        self.stuck_since.map_or(Duration::ZERO, |at| now.since(at))
    }

    pub(super) fn step(
        &mut self,
        before: &Rotation,
        outcome: &Outcome,
        step: &Step,
        world: &mut World,
    ) -> Result<(), String> {
        let after = &step.rotation;
        let now = world.now;
        if step.illegal {
            let same = after == before && step.notices.is_empty() && step.effect == Effect::Rest;
            rule!(same && matches!(outcome, Outcome::Said(_)), "a step that is illegal changed something");
            return Ok(());
        }
        match outcome {
            Outcome::Looked(look) => self.saw(before, look, now),
            Outcome::Replied(reply) => {
                let sent = self.sent.last_mut().filter(|it| it.reply.is_none());
                if let Some(sent) = sent {
                    sent.reply = Some((now, reply.clone()));
                }
                // The guard counts from the first PATCH that may have been applied.
                let open = matches!(reply, PatchReply::Accepted | PatchReply::Unknown(_));
                if !open && self.sent.len() == self.turned_down() {
                    self.guard = None;
                }
            }
            Outcome::Blind(_) | Outcome::Tampered { .. } => {}
            Outcome::Said(command) => self.heard(command, before, now),
        }
        Self::moves(before, outcome, after)?;
        self.holds_keys(before, outcome, after, now)?;
        if let Effect::Patch(target) = step.effect {
            self.sends(before, outcome, after, target, now)?;
        }
        self.verifies(before, outcome, after, now)?;
        self.enters(before, after, now);
        rule!(
            after.state.is_final() || after.patching.guard_deadline == self.guard,
            "I6: the guard ends at {:?} instead of {:?}",
            after.patching.guard_deadline,
            self.guard
        );
        self.announces(before, outcome, step, now)?;
        self.rests(before, step, world)?;
        Ok(())
    }

    /// PATCHes of the new key that were definitely not applied.
    fn turned_down(&self) -> usize {
        let no = |it: &&Sent| {
            let reply = it.reply.as_ref().map(|(_, reply)| reply);
            matches!(
                reply,
                Some(
                    PatchReply::NotTaken(_)
                        | PatchReply::Refused(_)
                        | PatchReply::Auth(_)
                        | PatchReply::Gone(_)
                )
            )
        };
        self.sent.iter().filter(no).count()
    }

    fn saw(&mut self, before: &Rotation, look: &Look, now: Timestamp) {
        let at = self.seen.last().map_or(before.created_at, |it| it.at);
        let verify = &before.rules.verify;
        let slow = match before.state {
            State::NeedsOperator => true,
            State::Deploying => self.trues(Shown::New) >= verify.readings as usize,
            _ => false,
        };
        let cadence = if slow { verify.deploy_poll } else { verify.every };
        let shown = match (&look.seen.provider, &look.seen.key) {
            (Some(_), Some(it)) if *it == key(NEW) => Shown::New,
            (Some(_), Some(it)) if *it == key(OLD) => Shown::Old,
            (Some(_), Some(_)) => Shown::Other,
            _ => Shown::Disabled,
        };
        let limit = i64::try_from(MAX_SKEW.as_millis()).unwrap();
        let gap = now.since(at) > cadence.get() * 2;
        // On private networking the first bad report of the nodes is when the danger begins.
        let verified = self.trues(Shown::New) >= verify.readings as usize && self.flaps() == 0;
        let report = look.seen.private_networking && shown == Shown::New && look.seen.valid == Some(false);
        if before.state == State::Verifying && verified && report && !gap {
            self.guard = Some(now + verify.guard.get());
        }
        self.seen.push(Seen {
            at: look.seen.at,
            recorded_at: now,
            shown,
            valid: look.seen.valid,
            skewed: look.seen.skew_ms.is_some_and(|it| it.abs() > limit),
            clusters: look.clusters.clone(),
            network_denied: look.network_denied,
            gap,
        });
    }

    fn heard(&mut self, command: &Command, before: &Rotation, now: Timestamp) {
        match command {
            Command::Approve { given } if *given >= before.permission.quorum.required => {
                self.lapses_at = before.rules.policy.execution_deadline(now);
            }
            Command::Rollback => {
                self.ordered = true;
                self.guard = Some(now + before.rules.verify.guard.get());
            }
            _ => {}
        }
    }

    fn last(&self) -> &Seen {
        self.seen.last().unwrap()
    }

    /// Consecutive true readings of `shown`, without a gap between them.
    fn trues(&self, shown: Shown) -> usize {
        let mut count = 0;
        for seen in self.seen[self.from.min(self.seen.len())..].iter().rev() {
            if seen.valid != Some(true) || seen.shown != shown {
                break;
            }
            count += 1;
            if seen.gap {
                break;
            }
        }
        count
    }

    /// True readings of either key since the last gap. Version 3 of the machine keeps its count when
    /// Atlas shows the new key again in the middle of a verified rollback, so this is all it promises.
    fn trues_of_either(&self) -> usize {
        let tail = &self.seen[self.seen.len() - self.round()..];
        tail.iter().filter(|it| it.valid == Some(true)).count()
    }

    /// Observations without a gap between them.
    fn round(&self) -> usize {
        let tail = &self.seen[self.from.min(self.seen.len())..];
        tail.iter().rev().position(|it| it.gap).map_or(tail.len(), |before| before + 1)
    }

    /// For how long `valid` has been false without a true reading or a gap between.
    fn false_for(&self, now: Timestamp) -> Duration {
        let mut since = None;
        for seen in self.seen[self.from.min(self.seen.len())..].iter().rev() {
            if seen.valid == Some(true) {
                break;
            }
            if seen.valid == Some(false) {
                since = Some(seen.at);
            }
            if seen.gap {
                break;
            }
        }
        since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// For how long the alerts have been requested without an answer: from the second of the false readings on.
    fn alerts_unanswered_for(&self, now: Timestamp) -> Duration {
        let tail = &self.seen[self.from.min(self.seen.len())..];
        let fresh = tail.iter().rposition(|it| it.gap).unwrap_or(0);
        let tail = tail[fresh..].iter().filter(|it| it.shown == Shown::New);
        let (mut requested, mut since) = (false, None);
        for seen in tail {
            if seen.valid == Some(true) {
                (requested, since) = (false, None);
            } else if requested && seen.network_denied.is_none() {
                since = since.or(Some(seen.recorded_at));
            } else {
                since = None;
                requested |= seen.valid == Some(false);
            }
        }
        since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// How often `valid` fell from true to false.
    fn flaps(&self) -> usize {
        let tail = &self.seen[self.from.min(self.seen.len())..];
        tail.windows(2)
            .filter(|it| it[0].valid == Some(true) && it[1].valid == Some(false) && !it[1].gap)
            .count()
    }

    fn moves(before: &Rotation, outcome: &Outcome, after: &Rotation) -> Result<(), String> {
        use State as S;
        let (from, to) = (before.state, after.state);
        if from == to {
            return Ok(());
        }
        let legal = match outcome {
            Outcome::Tampered { .. } => to == S::NeedsOperator,
            Outcome::Looked(_) => match from {
                S::AwaitingApproval => matches!(to, S::Superseded | S::Expired),
                S::Approved => {
                    matches!(
                        to,
                        S::AwaitingApproval
                            | S::Superseded
                            | S::Expired
                            | S::Applying
                            | S::Verifying
                            | S::Deploying
                    )
                }
                S::Applying => {
                    matches!(to, S::Approved | S::Verifying | S::Superseded | S::Failed | S::NeedsOperator)
                }
                S::Verifying => {
                    // The observation that verifies the key may be the one that shows the roll-out done.
                    matches!(
                        to,
                        S::Deploying | S::Completed | S::RollingBack | S::Superseded | S::NeedsOperator
                    )
                }
                S::Deploying => {
                    matches!(to, S::Completed | S::RollingBack | S::Superseded | S::NeedsOperator)
                }
                S::RollingBack => {
                    matches!(to, S::RolledBack | S::Verifying | S::Superseded | S::NeedsOperator)
                }
                S::NeedsOperator => matches!(to, S::Verifying | S::RollingBack | S::Approved | S::Superseded),
                _ => false,
            },
            Outcome::Blind(_) => match from {
                S::AwaitingApproval | S::Approved => matches!(to, S::Failed | S::Expired),
                S::Applying => matches!(to, S::Approved | S::Failed | S::NeedsOperator),
                S::Verifying | S::Deploying | S::RollingBack => to == S::NeedsOperator,
                _ => false,
            },
            Outcome::Replied(_) => {
                matches!(from, S::Applying | S::RollingBack) && matches!(to, S::Failed | S::NeedsOperator)
            }
            Outcome::Said(_) => match from {
                S::AwaitingApproval => matches!(to, S::Approved | S::Rejected | S::Cancelled),
                S::Approved => matches!(to, S::AwaitingApproval | S::Rejected | S::Cancelled),
                S::NeedsOperator => matches!(to, S::RollingBack | S::Accepted | S::Closed),
                _ => false,
            },
        };
        rule!(legal, "{from} must not lead to {to}");
        Ok(())
    }

    /// What a state that was entered begins with.
    fn enters(&mut self, before: &Rotation, after: &Rotation, now: Timestamp) {
        use State as S;
        let from = before.state;
        if from == after.state {
            return;
        }
        let verify = &after.rules.verify;
        let entry = matches!(from, S::Approved | S::Applying);
        if entry && matches!(after.state, S::Verifying | S::Deploying) {
            // No PATCH of ours began a guard: somebody else set the approved key.
            self.guard.get_or_insert(now + verify.guard.get());
        }
        match after.state {
            S::Verifying => {
                self.from = self.seen.len() - usize::from(entry);
                self.verifying_since = now;
                if from == S::NeedsOperator {
                    self.guard = Some(now + verify.guard.get());
                }
            }
            S::RollingBack => {
                self.from = self.seen.len();
                self.rolling_back_since = now;
                if from == S::NeedsOperator {
                    self.guard = Some(now + verify.guard.get());
                }
            }
            S::Deploying => self.deploying_since = now,
            S::AwaitingApproval => self.lapses_at = after.created_at + after.rules.policy.approval_ttl.get(),
            S::Approved if from == S::NeedsOperator => {
                // Only people extend a permission.
                if before.operator.resuming {
                    self.lapses_at = after.rules.policy.execution_deadline(now);
                }
                self.guard = Some(now + verify.guard.get());
            }
            _ => {}
        }
    }
}
