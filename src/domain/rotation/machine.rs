//! The decision: given a rotation and what just happened, what is it now and what comes next.
//!
//! One rule carries everything. **A state names the single effect that may be in flight; it is
//! committed before the effect, and every resume starts by looking.** So the first run and the
//! recovery after a crash are the same code, and a reply that never came is an outcome like any
//! other. [`next`] is total and pure: no I/O, no clock, no random source. Whoever calls it commits
//! the returned rotation before carrying out the returned effect.
//!
//! ```text
//! awaiting_approval -> approved -> applying -> verifying -> deploying -> completed
//!    rejected            |            |            |  \
//!    cancelled           |          failed         |   rolling_back -> rolled_back
//!    expired             +------------+------------+-----+---> needs_operator -> accepted, closed
//!                        superseded: somebody else changed the key
//! ```
//!
//! Not here: waiting, HTTP, storage, who may say what. Where the truth cannot be proven the
//! machine stops in `needs_operator`; it never picks the nicer story, never PATCHes over a key that
//! is neither old nor new, and never rolls back on a missing reading.

use std::time::Duration;

use super::outcome::{Class, Cluster, Command, Extras, Failure, Look, Observation, Outcome};
use super::retry;
use super::state::{Attempt, Cause, ClusterProgress, Deployed, Hold, Reply, Rotation, State, Target};
use crate::domain::preflight::failed;
use crate::domain::time::Timestamp;

/// Counts changes of [`next`] that would decide a recorded outcome differently.
pub const MACHINE_VERSION: i32 = 3;

/// Clocks that differ by more than this hold PATCHes and expiries.
pub const MAX_SKEW: Duration = Duration::from_mins(2);

/// What the engine does once the rotation is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// GET the configuration, and what else is asked for, now.
    Look(Extras),
    /// PATCH this key now, as the attempt just recorded.
    Patch(Target),
    /// Nothing until `wake_at`.
    Rest,
}

/// What people are to be told; written in the same transaction as its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The rotation reached this final state.
    Finished(State),
    /// A person is needed, for the rotation's cause. Repeats count from 1.
    Page {
        /// 0 for the first page of a cause.
        repeat: u32,
    },
    /// The project's current key is invalid, so Atlas would refuse any change.
    CurrentKeyInvalid,
    /// People agreed, and a line of the pre-flight checklist fails.
    PreflightFailed,
    /// A PATCH took effect after the rotation had ended.
    LateApply,
    /// The clusters had not taken up the key when the wait ended.
    NotDeployed,
}

/// The answer of [`next`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The rotation from now on.
    pub rotation: Rotation,
    /// What to do once it is committed.
    pub effect: Effect,
    /// What to announce.
    pub notices: Vec<Notice>,
    /// A command that has no meaning in this state; then nothing else changed.
    pub illegal: bool,
}

/// How Atlas' configuration relates to a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It holds the new key.
    New,
    /// It holds the old key.
    Old,
    /// It holds a third key.
    Other,
    /// It does not encrypt with this provider any more.
    Elsewhere,
}

/// How `seen` relates to `rotation`'s two keys.
#[must_use]
pub fn sight(rotation: &Rotation, seen: &Observation) -> Sight {
    let Some(key) = seen.key.as_ref().filter(|_| seen.provider == Some(rotation.provider)) else {
        return Sight::Elsewhere;
    };
    if key.is_same(&rotation.new_key, &seen.place) {
        Sight::New
    } else if key.is_same(&rotation.old_key, &seen.place) {
        Sight::Old
    } else {
        Sight::Other
    }
}

/// How a claimed rotation goes on: always by looking, unless Atlas asked not to be called yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Look at Atlas.
    Look(Extras),
    /// Pass this on as [`Outcome::Blind`] without a call.
    Blind(Failure),
}

/// What a worker that just claimed `rotation` does first.
#[must_use]
pub fn resume(rotation: &Rotation, now: Timestamp) -> Resume {
    match (rotation.not_before, &rotation.failure) {
        (Some(until), Some(failure)) if now < until => Resume::Blind(failure.clone()),
        _ => Resume::Look(extras(rotation)),
    }
}

/// What a look in this state must bring beside the configuration.
#[must_use]
pub fn extras(rotation: &Rotation) -> Extras {
    Extras {
        alerts: rotation.state == State::Verifying && (rotation.false_since.is_some() || rotation.flaps > 0),
        // From the PATCH on: a quick roll-out is over before the key is proven.
        clusters: matches!(
            rotation.state,
            State::Approved | State::Applying | State::Verifying | State::Deploying
        ),
        // Not between two tries of one PATCH: those must follow each other soon.
        preflight: rotation.state == State::Approved,
    }
}

/// Decides.
#[must_use]
pub fn next(rotation: &Rotation, outcome: &Outcome, now: Timestamp) -> Step {
    let mut turn =
        Turn { r: rotation.clone(), now, effect: Effect::Rest, notices: Vec::new(), illegal: false };
    match outcome {
        Outcome::Looked(look) => turn.looked(look),
        Outcome::Blind(failure) => turn.blind(failure),
        Outcome::Replied(reply) => turn.replied(reply),
        Outcome::Said(command) => turn.said(command),
    }
    if turn.illegal {
        turn.r = rotation.clone();
    }
    Step { rotation: turn.r, effect: turn.effect, notices: turn.notices, illegal: turn.illegal }
}

/// One call of [`next`] while it is being decided.
struct Turn {
    r: Rotation,
    now: Timestamp,
    effect: Effect,
    notices: Vec<Notice>,
    illegal: bool,
}

/// What the readings of one key amount to.
#[derive(PartialEq)]
enum Proof {
    Pending,
    Proven,
    Bad,
    TimedOut,
}

impl Turn {
    // === A look at Atlas ===

    fn looked(&mut self, look: &Look) {
        let seen = &look.seen;
        let gap = self.r.last.as_ref().is_none_or(|last| self.now.since(last.at) > self.cadence() * 2);
        if gap {
            // Nobody knows what happened in between: start a full round of readings.
            (self.r.round, self.r.trues, self.r.false_since) = (0, 0, None);
            self.r.gaps += 1;
        }
        self.r.round += 1;
        if self.r.round >= self.r.rules.verify.readings {
            self.r.gaps = 0;
        }
        self.r.failures = 0;
        self.r.not_before = None;
        if let Some(checks) = &look.checks {
            self.r.checks.clone_from(checks);
        }
        let previous = self.r.last.replace(seen.clone());
        self.note_interrupted_patch();
        match self.r.state {
            State::AwaitingApproval => self.look_awaiting(seen),
            State::Approved => self.look_approved(look),
            State::Applying => self.look_applying(look),
            State::Verifying => self.look_verifying(look),
            State::Deploying => self.look_deploying(look),
            State::RollingBack => self.look_rolling_back(seen),
            State::NeedsOperator => self.look_needs_operator(seen, previous.as_ref()),
            _ => self.look_final(seen),
        }
    }

    /// An attempt without a reply at a look means that its sender died: its outcome is unknown.
    fn note_interrupted_patch(&mut self) {
        let Some(patch) = self.r.patch.as_mut().filter(|patch| patch.reply.is_none()) else { return };
        patch.interrupted = true;
        let failure = Failure {
            class: Class::Unknown,
            status: None,
            code: None,
            detail: "the daemon ended before the reply was recorded".to_owned(),
            retry_after: None,
        };
        patch.reply = Some(Reply::Unknown(failure));
        let (sent_at, target) = (patch.sent_at, patch.target);
        if target == Target::New {
            self.r.unknown_at = Some(sent_at);
        }
        self.r
            .retry_at
            .get_or_insert(sent_at + retry::backoff(self.r.tries, &self.r.rules.pace, self.r.salt()));
    }

    fn look_awaiting(&mut self, seen: &Observation) {
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

    fn look_approved(&mut self, look: &Look) {
        match sight(&self.r, &look.seen) {
            // A PATCH of ours may still have been under way when permission ended.
            Sight::New if self.r.first_patch_at.is_some() => self.begin_verifying(look),
            Sight::New => self.finish(State::Superseded, Some(Cause::DoneByHand)),
            Sight::Other => self.finish(State::Superseded, Some(Cause::KeyChanged)),
            Sight::Elsewhere => self.finish(State::Superseded, Some(Cause::ConfigChanged)),
            Sight::Old if self.expired() => self.finish(State::Expired, None),
            Sight::Old if !self.r.quorum.is_met() => self.back_to_awaiting(),
            Sight::Old => match self.objection(look) {
                None => {
                    self.r.state = State::Applying;
                    self.r.hold = None;
                    self.r.old_key_was_valid = true;
                    self.send(Target::New);
                }
                Some(hold) => self.hold(hold),
            },
        }
    }

    fn look_applying(&mut self, look: &Look) {
        match sight(&self.r, &look.seen) {
            Sight::New => self.begin_verifying(look),
            Sight::Other => self.finish(State::Superseded, Some(Cause::KeyChanged)),
            Sight::Elsewhere => self.need_operator(Cause::ConfigChanged),
            Sight::Old => self.still_old(look),
        }
    }

    /// Our PATCH was sent and Atlas shows the old key: refused, not arrived, not yet visible?
    fn still_old(&mut self, look: &Look) {
        let reply = self.r.patch.as_ref().and_then(|patch| patch.reply.clone());
        let settle = self.r.rules.pace.settle.get();
        if let Some(Reply::Refused(_)) = reply {
            return match self.r.unknown_at {
                Some(at) if self.now < at + settle => self.look_again_soon(),
                _ => self.finish(State::Failed, Some(Cause::Refused)),
            };
        }
        if self.guard_over() {
            return self.finish(State::Failed, Some(Cause::NotApplied));
        }
        let sent_at = self.r.patch.as_ref().map_or(self.now, |patch| patch.sent_at);
        if reply == Some(Reply::Accepted) && self.now < sent_at + settle {
            // A read may lag behind an accepted write: no second PATCH before that is ruled out.
            return self.look_again_soon();
        }
        let retry_at = self.r.retry_at.unwrap_or(self.now);
        if self.now < retry_at {
            return self.rest(retry_at);
        }
        let objection = if self.expired() || !self.r.quorum.is_met() {
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

    fn begin_verifying(&mut self, look: &Look) {
        self.r.state = State::Verifying;
        self.r.cause = None;
        self.r.hold = None;
        self.r.patched_at.get_or_insert(self.now);
        self.r.verifying_since = Some(self.now);
        self.r.unknown_at = None;
        self.r.clusters.clear();
        self.start_readings();
        self.look_verifying(look);
    }

    fn look_verifying(&mut self, look: &Look) {
        let seen = &look.seen;
        match sight(&self.r, seen) {
            Sight::Other => self.finish(State::Superseded, Some(Cause::KeyChanged)),
            Sight::Elsewhere => self.need_operator(Cause::ConfigChanged),
            Sight::Old if self.may_be_stale() => self.rest_for_reading(),
            Sight::Old => self.reverted(),
            Sight::New => match self.read_with_clusters(look) {
                Proof::Proven => self.begin_deploying(),
                Proof::Pending if self.never_a_round() => self.need_operator(Cause::Unproven),
                Proof::Pending => self.rest_for_reading(),
                Proof::TimedOut => self.need_operator(Cause::Unproven),
                Proof::Bad => match look.network_denied {
                    Some(true) => self.need_operator(Cause::KmsUnreachable),
                    Some(false) => self.begin_rolling_back(),
                    // An unreachable key service must be ruled out first: ask at once.
                    None if self.r.false_since == Some(self.now) => {
                        self.effect = Effect::Look(extras(&self.r));
                    }
                    None if self.guard_over() => self.need_operator(Cause::Unproven),
                    None => self.rest_for_reading(),
                },
            },
        }
    }

    fn read_with_clusters(&mut self, look: &Look) -> Proof {
        if let Some(clusters) = &look.clusters {
            note_clusters(&mut self.r.clusters, clusters);
        }
        self.note_late_report(&look.seen);
        self.read(&look.seen)
    }

    /// On private networking the nodes report minutes later, and with that the danger begins: from
    /// the first bad report on there is as much time to go back as elsewhere from the PATCH on.
    fn note_late_report(&mut self, seen: &Observation) {
        let verify = &self.r.rules.verify;
        let turned = self.r.trues >= verify.readings && self.r.flaps == 0 && seen.valid == Some(false);
        if seen.private_networking && turned {
            self.r.guard_deadline = Some(self.now + verify.guard.get());
        }
    }

    fn begin_deploying(&mut self) {
        self.r.state = State::Deploying;
        self.r.valid_at = Some(self.now);
        self.r.deploying_since = Some(self.now);
        self.r.false_since = None;
        // The clusters are looked at in the same breath: the update may already be running.
        self.effect = Effect::Look(extras(&self.r));
    }

    fn look_deploying(&mut self, look: &Look) {
        match sight(&self.r, &look.seen) {
            Sight::Other => return self.finish(State::Superseded, Some(Cause::KeyChanged)),
            Sight::Elsewhere => return self.need_operator(Cause::ConfigChanged),
            Sight::Old if self.may_be_stale() => return self.rest_for_reading(),
            Sight::Old => return self.reverted(),
            Sight::New => {}
        }
        self.count(look.seen.valid);
        if self.false_for() > self.r.rules.verify.false_grace.get() {
            return self.need_operator(Cause::NewKeyInvalid);
        }
        if let Some(clusters) = &look.clusters {
            note_clusters(&mut self.r.clusters, clusters);
        }
        let deployed = self.deployed(look.clusters.is_some());
        // The proof must hold at the end as it did at the beginning.
        let proven = self.r.trues >= self.r.rules.verify.readings;
        match deployed {
            Some(how) if proven => {
                self.r.deployed = Some(how);
                self.r.deployed_at = Some(self.now);
                if how == Deployed::No {
                    self.notices.push(Notice::NotDeployed);
                }
                self.finish(State::Completed, None);
            }
            Some(Deployed::No) if self.unproven_for_too_long() => self.need_operator(Cause::Unproven),
            _ => {
                let verify = &self.r.rules.verify;
                let wait = if proven { verify.deploy_poll } else { verify.every };
                self.rest(self.now + wait.get());
            }
        }
    }

    /// The roll-out is given up, and since then no round of readings proved the key again.
    fn unproven_for_too_long(&self) -> bool {
        let verify = &self.r.rules.verify;
        let limit = verify.deploy_timeout.get() + verify.timeout.get();
        self.r.deploying_since.is_some_and(|since| self.now.since(since) >= limit)
    }

    fn deployed(&self, looked: bool) -> Option<Deployed> {
        let verify = &self.r.rules.verify;
        let waited = self.now.since(self.r.deploying_since.unwrap_or(self.now));
        let mut waiting = self.r.clusters.iter().filter(|cluster| cluster.exception.is_none()).peekable();
        let any = waiting.peek().is_some();
        let idle = waiting.clone().all(|cluster| cluster.idle >= 2);
        if looked && any && idle && waiting.all(|cluster| cluster.seen_updating) {
            Some(Deployed::Observed)
        } else if looked && idle && waited >= verify.deploy_grace.get() {
            Some(Deployed::Assumed)
        } else if waited >= verify.deploy_timeout.get() {
            Some(Deployed::No)
        } else {
            None
        }
    }

    /// The old key is back. When no PATCH of ours can have done that, somebody else did.
    fn reverted(&mut self) {
        if self.r.sent_old {
            self.begin_rolling_back();
        } else {
            self.finish(State::Superseded, Some(Cause::Reverted));
        }
    }

    fn begin_rolling_back(&mut self) {
        self.r.state = State::RollingBack;
        self.r.rolling_back_since = Some(self.now);
        (self.r.retry_at, self.r.tries, self.r.verifying_since) = (None, 0, None);
        self.start_readings();
        self.effect = Effect::Look(extras(&self.r));
    }

    fn look_rolling_back(&mut self, seen: &Observation) {
        let sent = self.rollback_patch().is_some();
        match sight(&self.r, seen) {
            Sight::Other => self.finish(State::Superseded, Some(Cause::KeyChanged)),
            Sight::Elsewhere => self.need_operator(Cause::ConfigChanged),
            // A person asked for the old key, or an earlier PATCH of ours brought it: it is to be proven.
            Sight::Old if sent || self.r.sent_old || self.r.rollback_ordered => self.prove_old(seen),
            Sight::Old if self.may_be_stale() => self.rest_for_reading(),
            Sight::Old => self.finish(State::Superseded, Some(Cause::Reverted)),
            Sight::New if sent => self.still_new(),
            Sight::New => self.before_rollback(seen),
        }
    }

    /// Atlas shows the new key and no PATCH(old) has left yet.
    fn before_rollback(&mut self, seen: &Observation) {
        let patch = self.r.patch.clone();
        let settle = self.r.rules.pace.settle.get();
        let in_flight_until = patch.filter(|patch| patch.interrupted).map(|patch| patch.deadline + settle);
        if !self.r.old_key_was_valid {
            return self.need_operator(Cause::OldKeyInvalid);
        }
        let forward = !self.r.rollback_ordered && !self.r.returned;
        self.count(seen.valid);
        if forward && self.r.trues >= self.r.rules.verify.readings {
            self.r.returned = true;
            self.r.state = State::Verifying;
            self.r.verifying_since = Some(self.now);
            self.r.rolling_back_since = None;
            self.start_readings();
            return self.rest_for_reading();
        }
        if self.guard_over() {
            return self.need_operator(Cause::RollbackUnproven);
        }
        // Only a bad reading, or a person, moves a key back. A good or missing one is waited out.
        let wanted = self.r.rollback_ordered || seen.valid == Some(false);
        match in_flight_until {
            _ if !wanted => self.rest_for_reading(),
            Some(until) if self.now < until => self.rest_for_reading(),
            _ => self.send(Target::Old),
        }
    }

    /// PATCH(old) was sent and Atlas still shows the new key.
    fn still_new(&mut self) {
        let Some(patch) = self.rollback_patch().cloned() else { return };
        if matches!(patch.reply, Some(Reply::Refused(_))) {
            return self.need_operator(Cause::RollbackRefused);
        }
        if self.guard_over() {
            return self.need_operator(Cause::RollbackUnproven);
        }
        let settled = patch.sent_at + self.r.rules.pace.settle.get();
        let retry_at =
            if patch.reply == Some(Reply::Accepted) { settled } else { self.r.retry_at.unwrap_or(self.now) };
        if self.now < retry_at {
            match patch.reply {
                Some(Reply::Accepted) => self.look_again_soon(),
                _ => self.rest(retry_at),
            }
            return;
        }
        self.send(Target::Old);
    }

    fn prove_old(&mut self, seen: &Observation) {
        if self.r.verifying_since.is_none() {
            self.r.verifying_since = Some(self.now);
            self.start_readings();
        }
        match self.read(seen) {
            Proof::Proven => self.finish(State::RolledBack, None),
            Proof::Bad | Proof::TimedOut => self.need_operator(Cause::OldKeyInvalid),
            Proof::Pending if self.guard_over() && self.r.trues < self.r.rules.verify.readings => {
                self.need_operator(Cause::RollbackUnproven);
            }
            Proof::Pending => self.rest_for_reading(),
        }
    }

    fn look_needs_operator(&mut self, seen: &Observation, previous: Option<&Observation>) {
        let sight = sight(&self.r, seen);
        if self.r.resuming {
            return self.go_on(sight);
        }
        self.count(seen.valid);
        if previous.is_none_or(|previous| previous.key != seen.key) {
            self.r.trues = u32::from(seen.valid == Some(true));
        }
        // Once only: a key that keeps flapping would be PATCHed back and forth without an end.
        let healed = self.r.cause == Some(Cause::RollbackRefused)
            && !self.r.healed
            && sight == Sight::New
            && self.r.trues >= self.r.rules.verify.readings;
        if healed {
            self.r.healed = true;
            self.r.paged_at = None;
            self.renew_deadlines();
            self.r.state = State::Verifying;
            self.r.cause = None;
            return self.rest_for_reading();
        }
        self.page_again();
    }

    /// `resume`: what Atlas holds decides where to go on.
    fn go_on(&mut self, sight: Sight) {
        self.r.resuming = false;
        self.r.paged_at = None;
        self.r.cause = None;
        self.renew_deadlines();
        match sight {
            Sight::New => {
                self.r.state = State::Verifying;
                self.rest_for_reading();
            }
            Sight::Old => {
                self.r.state = State::Approved;
                self.r.expires_at = self.r.rules.policy.execution_deadline(self.now);
                (self.r.retry_at, self.r.tries) = (None, 0);
                self.rest(self.now);
            }
            Sight::Other => self.finish(State::Superseded, Some(Cause::KeyChanged)),
            Sight::Elsewhere => self.finish(State::Superseded, Some(Cause::ConfigChanged)),
        }
    }

    fn look_final(&mut self, seen: &Observation) {
        let key = match sight(&self.r, seen) {
            Sight::New if self.r.attempts > 0 => Some(&self.r.new_key),
            Sight::Old if self.r.sent_old => Some(&self.r.old_key),
            _ => None,
        };
        let settled = self.r.settled_key.as_ref();
        let late = key.is_some_and(|key| settled.is_some_and(|settled| !key.is_same(settled, &seen.place)));
        if late && !self.r.late_apply {
            self.r.late_apply = true;
            self.notices.push(Notice::LateApply);
        }
        self.watch_on();
    }

    // === No look at Atlas ===

    fn blind(&mut self, failure: &Failure) {
        self.r.failures = self.r.failures.saturating_add(1);
        self.r.failure = Some(failure.clone());
        let wait = retry::wait_after(failure, self.r.failures, &self.r.rules.pace, self.r.salt());
        // A wait that is already running is not begun anew.
        let until = self.r.not_before.filter(|until| self.now < *until).unwrap_or(self.now + wait);
        if failure.retry_after.is_some() || failure.status == Some(429) {
            self.r.not_before = Some(until);
        }
        match self.r.state {
            State::AwaitingApproval | State::Approved => self.blind_before(failure, until),
            State::Applying => self.blind_applying(failure, until),
            State::Verifying | State::Deploying | State::RollingBack => self.blind_after(failure, until),
            State::NeedsOperator => self.page_again(),
            _ => self.watch_on(),
        }
    }

    /// Nothing was sent in this state, so nothing is lost by waiting.
    fn blind_before(&mut self, failure: &Failure, until: Timestamp) {
        let skew = self.r.last.as_ref().is_some_and(skewed);
        match failure.class {
            Class::Gone => return self.finish(State::Failed, Some(Cause::Gone)),
            _ if self.expired() && !skew => return self.finish(State::Expired, None),
            Class::Auth => self.r.hold = Some(Hold::AtlasAuth),
            _ => self.r.hold = Some(Hold::AtlasUnreachable),
        }
        self.rest(until.min(self.r.expires_at));
    }

    fn blind_applying(&mut self, failure: &Failure, until: Timestamp) {
        match failure.class {
            Class::Auth => return self.shut_out(Cause::Auth),
            Class::Gone => return self.shut_out(Cause::Gone),
            _ if self.guard_over() => return self.need_operator(Cause::Unreachable),
            _ => {}
        }
        if self.r.guard_deadline.is_none() && self.expired() {
            // Nothing that counts was sent and permission has ended.
            self.r.state = State::Approved;
        }
        self.rest(self.before_guard(until));
    }

    fn blind_after(&mut self, failure: &Failure, until: Timestamp) {
        match failure.class {
            Class::Auth => return self.need_operator(Cause::Auth),
            Class::Gone => return self.need_operator(Cause::Gone),
            _ => {}
        }
        let unseen = self.r.last.as_ref().is_none_or(|last| self.now.since(last.at) > self.cadence() * 2);
        let deployment_over = self.r.state == State::Deploying
            && self.now.since(self.r.deploying_since.unwrap_or(self.now))
                >= self.r.rules.verify.deploy_timeout.get();
        if unseen && (deployment_over || (self.r.state != State::Deploying && self.guard_over())) {
            let cause =
                if self.r.state == State::RollingBack { Cause::RollbackUnproven } else { Cause::Unreachable };
            return self.need_operator(cause);
        }
        let soonest = self.now + self.cadence();
        // Ask no later than a reading is due unless Atlas itself asked for more time.
        let wait = if self.r.not_before.is_some() { until } else { until.min(soonest) };
        self.rest(self.before_guard(wait));
    }

    // === The reply to a PATCH ===

    fn replied(&mut self, reply: &Reply) {
        let (pace, tries) = (self.r.rules.pace.clone(), self.r.tries);
        let Some(patch) = self.r.patch.as_mut().filter(|patch| patch.reply.is_none()) else { return };
        patch.reply = Some(reply.clone());
        let (sent_at, target) = (patch.sent_at, patch.target);
        let may_have_applied = matches!(reply, Reply::Accepted | Reply::Unknown(_));
        if !may_have_applied && target == Target::New && self.r.first_patch_at == Some(sent_at) {
            (self.r.first_patch_at, self.r.guard_deadline) = (None, None);
        }
        match reply {
            Reply::Accepted => self.effect = Effect::Look(extras(&self.r)),
            Reply::Unknown(failure) => {
                if target == Target::New {
                    self.r.unknown_at = Some(sent_at);
                }
                self.r.failure = Some(failure.clone());
                self.r.retry_at = Some(self.now + retry::wait_after(failure, tries, &pace, self.r.salt()));
                self.effect = Effect::Look(extras(&self.r));
            }
            Reply::Refused(failure) => {
                self.r.failure = Some(failure.clone());
                self.effect = Effect::Look(extras(&self.r));
            }
            Reply::NotTaken(failure) => {
                self.r.failure = Some(failure.clone());
                let until = self.now + retry::wait_after(failure, tries, &pace, self.r.salt());
                self.r.retry_at = Some(until);
                if failure.retry_after.is_some() || failure.status == Some(429) {
                    self.r.not_before = Some(until);
                }
                self.rest(self.before_guard(until));
            }
            Reply::Auth(failure) | Reply::Gone(failure) => {
                self.r.failure = Some(failure.clone());
                let cause = if matches!(reply, Reply::Gone(_)) { Cause::Gone } else { Cause::Auth };
                match target {
                    Target::Old => self.need_operator(cause),
                    Target::New => self.shut_out(cause),
                }
            }
        }
    }

    /// Atlas does not let us in while applying: failed if it cannot hold our key, else a person.
    fn shut_out(&mut self, cause: Cause) {
        let open = self
            .r
            .patch
            .as_ref()
            .is_some_and(|patch| matches!(patch.reply, None | Some(Reply::Accepted | Reply::Unknown(_))));
        if open || self.r.unknown_at.is_some() {
            self.need_operator(cause);
        } else {
            self.finish(State::Failed, Some(cause));
        }
    }

    // === What people say ===

    fn said(&mut self, command: &Command) {
        let before = matches!(self.r.state, State::AwaitingApproval | State::Approved);
        match command {
            Command::Approve { given } if self.r.state == State::AwaitingApproval => {
                self.r.quorum.given = *given;
                if self.r.quorum.is_met() {
                    self.r.state = State::Approved;
                    self.r.approved_at = Some(self.now);
                    self.r.expires_at = self.r.rules.policy.execution_deadline(self.now);
                }
                self.rest(self.now);
            }
            Command::Withdraw { given } if before => {
                self.r.quorum.given = *given;
                if self.r.state == State::Approved && !self.r.quorum.is_met() {
                    self.back_to_awaiting();
                } else {
                    self.rest(self.now);
                }
            }
            Command::Reject if before => self.finish(State::Rejected, None),
            Command::Cancel if before => self.finish(State::Cancelled, None),
            Command::Resume if self.r.state == State::NeedsOperator => {
                self.r.resuming = true;
                self.rest(self.now);
            }
            Command::Rollback if self.r.state == State::NeedsOperator && self.r.attempts > 0 => {
                self.r.cause = None;
                self.r.paged_at = None;
                self.r.resuming = false;
                self.r.rollback_ordered = true;
                self.renew_deadlines();
                self.begin_rolling_back();
                self.rest(self.now);
            }
            Command::Accept if self.r.state == State::NeedsOperator && self.new_key_acceptable() => {
                self.finish(State::Accepted, None);
            }
            Command::Close if self.r.state == State::NeedsOperator => self.finish(State::Closed, None),
            _ => self.illegal = true,
        }
    }

    /// The new key was seen lately and is not known to be bad.
    fn new_key_acceptable(&self) -> bool {
        self.r.last.as_ref().is_some_and(|last| {
            self.now.since(last.at) <= self.cadence() * 2
                && sight(&self.r, last) == Sight::New
                && last.valid != Some(false)
        })
    }

    // === Parts ===

    /// Why no PATCH of the new key may leave now although people agreed.
    fn objection(&self, look: &Look) -> Option<Hold> {
        let seen = &look.seen;
        let policy = &self.r.rules.policy;
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
        if self.r.rules.whole_block && seen.block_hash != self.r.block_hash {
            return Some(Hold::BlockChanged);
        }
        match &look.clusters {
            None => return Some(Hold::AtlasUnreachable),
            Some(clusters) if clusters.iter().any(|cluster| cluster.state == "REPAIRING") => {
                return Some(Hold::ClusterRepairing);
            }
            Some(_) => {}
        }
        if look.checks.as_deref().is_some_and(|checks| failed(checks).is_some()) {
            return Some(Hold::Preflight);
        }
        if policy.window_open(self.now) { None } else { Some(Hold::Window) }
    }

    fn hold(&mut self, hold: Hold) {
        if self.r.hold != Some(hold) {
            match hold {
                Hold::CurrentKeyInvalid => self.notices.push(Notice::CurrentKeyInvalid),
                Hold::Preflight => self.notices.push(Notice::PreflightFailed),
                _ => {}
            }
        }
        self.r.hold = Some(hold);
        let opens = self.r.rules.policy.next_open(self.now).filter(|_| hold == Hold::Window);
        let idle = self.now + self.r.rules.pace.idle_every.get();
        let until = match opens {
            Some(opens) => opens.min(idle),
            None => self.now + self.r.rules.verify.deploy_poll.get(),
        };
        // Expiry is held while the clocks disagree, and must not turn into a busy loop.
        let until = if hold == Hold::ClockSkew { until } else { until.min(self.r.expires_at) };
        self.rest(until);
    }

    /// Records the attempt; the caller commits it before the request leaves.
    fn send(&mut self, target: Target) {
        self.r.attempts += 1;
        self.r.tries += 1;
        self.r.retry_at = None;
        self.r.sent_old |= target == Target::Old;
        self.r.patch = Some(Attempt {
            number: self.r.attempts,
            target,
            sent_at: self.now,
            deadline: self.now + self.r.rules.request_timeout.get(),
            reply: None,
            interrupted: false,
        });
        if self.r.first_patch_at.is_none() {
            self.r.first_patch_at = Some(self.now);
            self.r.guard_deadline = Some(self.now + self.r.rules.verify.guard.get());
        }
        // Should the sender die, the next one looks at once when it takes over.
        self.rest(self.now);
        self.effect = Effect::Patch(target);
    }

    /// The PATCH(old) of the present rollback, when one was sent.
    fn rollback_patch(&self) -> Option<&Attempt> {
        let since = self.r.rolling_back_since?;
        self.r.patch.as_ref().filter(|patch| patch.target == Target::Old && patch.sent_at >= since)
    }

    fn start_readings(&mut self) {
        (self.r.trues, self.r.flaps, self.r.round, self.r.false_since) = (0, 0, 1, None);
    }

    fn renew_deadlines(&mut self) {
        self.r.verifying_since = Some(self.now);
        self.r.guard_deadline = Some(self.now + self.r.rules.verify.guard.get());
        self.r.rolling_back_since = None;
        self.start_readings();
    }

    /// Counts one reading of `valid`.
    fn count(&mut self, valid: Option<bool>) {
        match valid {
            Some(true) => {
                self.r.trues = self.r.trues.saturating_add(1);
                self.r.false_since = None;
            }
            Some(false) => {
                if self.r.trues > 0 {
                    self.r.flaps += 1;
                }
                self.r.trues = 0;
                self.r.false_since.get_or_insert(self.now);
            }
            None => self.r.trues = 0,
        }
    }

    fn false_for(&self) -> Duration {
        self.r.false_since.map_or(Duration::ZERO, |since| self.now.since(since))
    }

    /// Counts one reading and says what all of them amount to.
    fn read(&mut self, seen: &Observation) -> Proof {
        self.count(seen.valid);
        let verify = &self.r.rules.verify;
        let proven = self.r.trues >= verify.readings;
        let sent_at = self.r.patch.as_ref().map_or(self.now, |patch| patch.sent_at);
        if proven {
            let held = self.now >= sent_at + verify.private_network_hold.get();
            return if seen.private_networking && !held { Proof::Pending } else { Proof::Proven };
        }
        if self.r.round < verify.readings {
            return Proof::Pending;
        }
        let bad = seen.valid == Some(false)
            && (self.false_for() > verify.false_grace.get() || self.r.flaps > verify.max_flaps);
        let late = self.now.since(self.r.verifying_since.unwrap_or(self.now)) >= verify.timeout.get();
        match (bad, late, self.r.false_since) {
            (true, ..) => Proof::Bad,
            (false, true, Some(_)) if seen.valid == Some(false) => Proof::Bad,
            (false, true, _) => Proof::TimedOut,
            (false, false, _) => Proof::Pending,
        }
    }

    /// The old key so soon after the PATCH may be a read that lags behind.
    fn may_be_stale(&self) -> bool {
        self.r.patch.as_ref().is_some_and(|patch| self.now < patch.sent_at + self.r.rules.pace.settle.get())
    }

    /// Permission has ended, unless the clocks disagree about what time it is.
    fn expired(&self) -> bool {
        self.now >= self.r.expires_at && !self.r.last.as_ref().is_some_and(skewed)
    }

    fn guard_over(&self) -> bool {
        self.r.guard_deadline.is_some_and(|deadline| self.now >= deadline)
    }

    /// The guard is over, and looks come too slowly for a round of readings. A restart alone is one gap.
    fn never_a_round(&self) -> bool {
        self.guard_over() && self.r.gaps > self.r.rules.verify.readings
    }

    /// A wait never sleeps through the guard: that decision can be taken without a call.
    fn before_guard(&self, until: Timestamp) -> Timestamp {
        match self.r.guard_deadline {
            Some(deadline) if deadline > self.now => until.min(deadline),
            _ => until,
        }
    }

    /// The time between two looks in this state.
    fn cadence(&self) -> Duration {
        let verify = &self.r.rules.verify;
        match self.r.state {
            State::NeedsOperator => verify.deploy_poll.get(),
            // A key that is to be proven again is read as often as at first, and a gap is one as early.
            State::Deploying if self.r.trues >= verify.readings => verify.deploy_poll.get(),
            _ => verify.every.get(),
        }
    }

    fn rest(&mut self, until: Timestamp) {
        self.r.wake_at = Some(until);
    }

    fn rest_for_reading(&mut self) {
        self.rest(self.now + self.r.rules.verify.every.get());
    }

    fn rest_until_idle(&mut self) {
        let idle = self.now + self.r.rules.pace.idle_every.get();
        self.rest(if self.r.expires_at > self.now { idle.min(self.r.expires_at) } else { idle });
    }

    fn look_again_soon(&mut self) {
        let every = self.r.rules.verify.every.get();
        self.rest(self.before_guard(self.now + every));
    }

    fn back_to_awaiting(&mut self) {
        self.r.state = State::AwaitingApproval;
        self.r.approved_at = None;
        self.r.expires_at = self.r.created_at + self.r.rules.policy.approval_ttl.get();
        self.rest(self.now);
    }

    fn need_operator(&mut self, cause: Cause) {
        self.r.state = State::NeedsOperator;
        self.r.cause = Some(cause);
        self.r.hold = None;
        self.r.paged_at = Some(self.now);
        self.r.pages = 1;
        self.r.trues = 0;
        self.notices.push(Notice::Page { repeat: 0 });
        self.effect = Effect::Rest;
        self.rest(self.now + self.cadence());
    }

    /// Repeats the page 15 minutes, 1 hour and then every 4 hours after the one before.
    fn page_again(&mut self) {
        const REPEATS: [u64; 3] = [15 * 60, 3600, 4 * 3600];
        let since = self.r.paged_at.unwrap_or(self.now);
        let wait = REPEATS[(self.r.pages.saturating_sub(1) as usize).min(REPEATS.len() - 1)];
        if self.now >= since + Duration::from_secs(wait) {
            self.notices.push(Notice::Page { repeat: self.r.pages });
            self.r.pages += 1;
            self.r.paged_at = Some(self.now);
        }
        let wake = self.now + self.cadence();
        self.rest(self.r.not_before.map_or(wake, |until| until.max(wake)));
    }

    fn finish(&mut self, state: State, cause: Option<Cause>) {
        self.r.state = state;
        self.r.cause = cause;
        self.r.hold = None;
        self.r.resuming = false;
        self.r.finished_at = Some(self.now);
        self.r.settled_key = self.r.last.as_ref().and_then(|last| last.key.clone());
        self.notices.push(Notice::Finished(state));
        self.effect = Effect::Rest;
        let pace = &self.r.rules.pace;
        self.r.watch_until = (self.r.attempts > 0).then(|| self.now + pace.watch_for.get());
        self.r.wake_at = self.r.watch_until.map(|_| self.now + pace.watch_every.get());
    }

    fn watch_on(&mut self) {
        let wake = self.now + self.r.rules.pace.watch_every.get();
        self.r.wake_at = self.r.watch_until.filter(|until| self.now < *until).map(|_| wake);
    }
}

/// Whether our clock and Atlas' disagree too much to trust either with a decision.
fn skewed(seen: &Observation) -> bool {
    let limit = u64::try_from(MAX_SKEW.as_millis()).unwrap_or(u64::MAX);
    seen.skew_ms.is_some_and(|skew| skew.unsigned_abs() > limit)
}

fn note_clusters(known: &mut Vec<ClusterProgress>, seen: &[Cluster]) {
    known.retain(|cluster| seen.iter().any(|it| it.name == cluster.name));
    for cluster in seen {
        if !known.iter().any(|it| it.name == cluster.name) {
            known.push(ClusterProgress {
                name: cluster.name.clone(),
                seen_updating: false,
                idle: 0,
                exception: None,
            });
        }
        let Some(progress) = known.iter_mut().find(|it| it.name == cluster.name) else { continue };
        progress.exception = match cluster.state.as_str() {
            _ if cluster.paused => Some("paused".to_owned()),
            "CREATING" | "REPAIRING" | "DELETING" => Some(cluster.state.to_ascii_lowercase()),
            _ => None,
        };
        match cluster.state.as_str() {
            "IDLE" => progress.idle += 1,
            "UPDATING" => (progress.seen_updating, progress.idle) = (true, 0),
            _ => progress.idle = 0,
        }
    }
}
