//! What a rotation is at one instant: its state, its cause, and the counters that
//! [`next`](super::machine::next) reads and writes.
//!
//! The whole of [`Rotation`] is stored with every step. Nothing here decides anything.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::outcome::{Failure, Observation, Reply};
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::key::{KeyRef, Place, Provider};
use crate::domain::named::named;
use crate::domain::policy::Rules;
use crate::domain::preflight::Check;
use crate::domain::time::Timestamp;

named! {
    /// The states of a rotation. A state names the single effect that may be in flight.
    State, "rotation state" {
        /// People are asked; nothing is in flight.
        AwaitingApproval = "awaiting_approval",
        /// Agreed; waits for its window, a valid current key, or nothing.
        Approved = "approved",
        /// A PATCH of the new key may be in flight.
        Applying = "applying",
        /// Atlas showed the new key; readings are taken.
        Verifying = "verifying",
        /// The new key is proven; clusters take it up.
        Deploying = "deploying",
        /// A PATCH of the old key may be in flight.
        RollingBack = "rolling_back",
        /// The truth cannot be proven; a person decides.
        NeedsOperator = "needs_operator",
        /// Final: the new key serves, verified.
        Completed = "completed",
        /// Final: the old key serves again, verified.
        RolledBack = "rolled_back",
        /// Final: Atlas never took the new key.
        Failed = "failed",
        /// Final: an approver said no.
        Rejected = "rejected",
        /// Final: called off before anything was sent.
        Cancelled = "cancelled",
        /// Final: the quorum or the window came too late.
        Expired = "expired",
        /// Final: somebody else changed the key.
        Superseded = "superseded",
        /// Final: an operator accepted the new key without our proof.
        Accepted = "accepted",
        /// Final: an operator closed it and left the key as it is.
        Closed = "closed",
    }
}

impl State {
    /// Whether nothing but observing happens from here.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            State::Completed
                | State::RolledBack
                | State::Failed
                | State::Rejected
                | State::Cancelled
                | State::Expired
                | State::Superseded
                | State::Accepted
                | State::Closed
        )
    }
}

named! {
    /// Why a rotation is where it is, for the states that need a reason.
    Cause, "cause" {
        /// Superseded: the proposed key was set by somebody else before we sent anything.
        DoneByHand = "done_by_hand",
        /// Superseded: Atlas holds a third key.
        KeyChanged = "key_changed",
        /// Superseded: Atlas went back to the old key without us.
        Reverted = "reverted",
        /// Failed: Atlas refused the new key; its code is kept verbatim.
        Refused = "refused",
        /// Failed or needs an operator: Atlas no longer accepts the credential.
        Auth = "auth",
        /// Failed: the project is gone.
        Gone = "gone",
        /// Failed: the guard ended and Atlas still showed the old key.
        NotApplied = "not_applied",
        /// Needs an operator: encryption was disabled or moved to another provider.
        ConfigChanged = "config_changed",
        /// Needs an operator: Atlas could not be asked until the guard ended.
        Unreachable = "unreachable",
        /// Needs an operator: Atlas cannot reach the key service, which says nothing of the key.
        KmsUnreachable = "kms_unreachable",
        /// Needs an operator: no proof within the timeout, and no contrary reading either.
        Unproven = "unproven",
        /// Needs an operator: the new key was proven and went bad afterwards.
        NewKeyInvalid = "new_key_invalid",
        /// Needs an operator: the old key was put back and is not valid.
        OldKeyInvalid = "old_key_invalid",
        /// Needs an operator: Atlas refuses to put the old key back while the new one is bad.
        RollbackRefused = "rollback_refused",
        /// Needs an operator: the guard ended before the rollback was proven.
        RollbackUnproven = "rollback_unproven",
    }
}

named! {
    /// Why an open rotation does not go on by itself right now. It ends by itself.
    Hold, "hold" {
        /// Atlas cannot use the project's current key and would refuse any change.
        CurrentKeyInvalid = "current_key_invalid",
        /// Atlas does not say whether the current key is valid.
        CurrentKeyUnknown = "current_key_unknown",
        /// No window is open.
        Window = "window",
        /// Our clock and Atlas' differ by more than two minutes.
        ClockSkew = "clock_skew",
        /// A cluster is being repaired.
        ClusterRepairing = "cluster_repairing",
        /// A line of the pre-flight checklist fails.
        Preflight = "preflight",
        /// Atlas cannot be read at the moment.
        AtlasUnreachable = "atlas_unreachable",
        /// Atlas does not accept the project's credential at the moment.
        AtlasAuth = "atlas_auth",
        /// Atlas no longer encrypts this project with the provider of the proposal.
        ConfigChanged = "config_changed",
        /// With `patch_body = "whole-block"`: the block differs from the one seen at proposal.
        BlockChanged = "block_changed",
    }
}

named! {
    /// How the roll-out to the clusters ended.
    Deployed, "deployed value" {
        /// Every cluster was seen updating and then idle twice.
        Observed = "observed",
        /// The clusters stayed idle for the whole grace.
        Assumed = "assumed",
        /// The clusters were not done when the wait ended.
        No = "no",
    }
}

named! {
    /// Which of the two keys of a rotation.
    Target, "target" {
        /// The approved new key.
        New = "new",
        /// The key before the rotation.
        Old = "old",
    }
}

/// One PATCH: committed before it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counts from 1 over the whole rotation.
    pub number: u32,
    /// The key it carries.
    pub target: Target,
    /// When its intent was committed.
    pub sent_at: Timestamp,
    /// When the request's own time limit ends.
    pub deadline: Timestamp,
    /// What came back. `None` while in flight, and after a crash: then it is unknown.
    pub reply: Option<Reply>,
    /// Its sender ended before it could record a reply, so the request may outlive it.
    pub interrupted: bool,
}

/// What was seen of one cluster since the new key was proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterProgress {
    /// The cluster's name.
    pub name: String,
    /// It was seen UPDATING at least once.
    pub seen_updating: bool,
    /// Consecutive looks that showed it IDLE.
    pub idle: u32,
    /// Why it is not waited for (paused, creating, repairing), when it is not.
    pub exception: Option<String>,
}

/// Votes needed and given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    /// Distinct approvers needed.
    pub required: u32,
    /// Distinct approvers whose yes stands.
    pub given: u32,
}

impl Quorum {
    /// Whether enough people agreed.
    #[must_use]
    pub const fn is_met(self) -> bool {
        self.given >= self.required
    }
}

/// One attempt to move a project from its old key to one named new key: everything the machine
/// reads and writes.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, none implies another")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Our id.
    pub id: RotationId,
    /// The Atlas project.
    pub group_id: GroupId,
    /// Whose key service.
    pub provider: Provider,
    /// The key Atlas held when the rotation was proposed.
    pub old_key: KeyRef,
    /// The key people were asked about.
    pub new_key: KeyRef,
    /// Where Atlas' block says keys live; completes bare AWS ids when keys are compared.
    pub place: Place,
    /// The rules it runs under to its end.
    pub rules: Rules,
    /// Where it is.
    pub state: State,
    /// Why, where the state has a reason.
    pub cause: Option<Cause>,
    /// Why it waits, where it waits for something that ends by itself.
    pub hold: Option<Hold>,
    /// Votes.
    pub quorum: Quorum,
    /// When it was proposed.
    pub created_at: Timestamp,
    /// When the quorum was reached.
    pub approved_at: Option<Timestamp>,
    /// When the present permission lapses: the approval's or the execution's.
    pub expires_at: Timestamp,
    /// The last successful look.
    pub last: Option<Observation>,
    /// The pre-flight checklist as it was last gone through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// Hash of the provider block at the proposal, for `patch_body = "whole-block"`.
    pub block_hash: String,
    /// Atlas called the old key valid at the look before the first PATCH.
    pub old_key_was_valid: bool,
    /// PATCHes sent, of either key.
    pub attempts: u32,
    /// The latest PATCH.
    pub patch: Option<Attempt>,
    /// When the last PATCH(new) of unknown outcome was sent.
    pub unknown_at: Option<Timestamp>,
    /// When the first PATCH that may have been applied was sent: the guard counts from here.
    pub first_patch_at: Option<Timestamp>,
    /// The guard's end.
    pub guard_deadline: Option<Timestamp>,
    /// When the next PATCH may leave, after a backoff.
    pub retry_at: Option<Timestamp>,
    /// Looks that failed in a row, for the backoff.
    pub failures: u32,
    /// PATCHes of the present target, for the backoff.
    pub tries: u32,
    /// Atlas asked not to be called before this instant.
    pub not_before: Option<Timestamp>,
    /// When Atlas first showed the new key after our PATCH.
    pub patched_at: Option<Timestamp>,
    /// When `verifying` (or the proof of a rollback) began.
    pub verifying_since: Option<Timestamp>,
    /// Consecutive true readings.
    pub trues: u32,
    /// Since when readings have been false without a true one between.
    pub false_since: Option<Timestamp>,
    /// How often `valid` fell from true to false.
    pub flaps: u32,
    /// Consecutive looks without a gap longer than two cadences.
    pub round: u32,
    /// Gaps since the last full round of readings.
    #[serde(default)]
    pub gaps: u32,
    /// When the key was proven.
    pub valid_at: Option<Timestamp>,
    /// When `deploying` began.
    pub deploying_since: Option<Timestamp>,
    /// Clusters seen since then.
    pub clusters: Vec<ClusterProgress>,
    /// How the roll-out ended.
    pub deployed: Option<Deployed>,
    /// When the roll-out was found over.
    pub deployed_at: Option<Timestamp>,
    /// When `rolling_back` began.
    pub rolling_back_since: Option<Timestamp>,
    /// An operator asked for the rollback: it goes on although the new key may be valid.
    pub rollback_ordered: bool,
    /// The one return from `rolling_back` to `verifying` was used.
    pub returned: bool,
    /// The one way by itself out of a refused rollback was used.
    pub healed: bool,
    /// A PATCH of the old key was sent at some time.
    pub sent_old: bool,
    /// An operator asked to go on: the next look decides where.
    pub resuming: bool,
    /// When `needs_operator` was entered.
    pub paged_at: Option<Timestamp>,
    /// Pages sent for the present cause.
    pub pages: u32,
    /// When it became final.
    pub finished_at: Option<Timestamp>,
    /// Until when it is observed after its end.
    pub watch_until: Option<Timestamp>,
    /// The key Atlas held at the end.
    pub settled_key: Option<KeyRef>,
    /// A late effect of a PATCH was announced.
    pub late_apply: bool,
    /// The failure that Atlas answered last, verbatim.
    pub failure: Option<Failure>,
    /// When the engine must look again; `None` when it need not.
    pub wake_at: Option<Timestamp>,
}

/// What a proposal fixes. The rest of a [`Rotation`] starts empty.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The Atlas project.
    pub group_id: GroupId,
    /// The key to move to.
    pub new_key: KeyRef,
    /// The look the proposal was checked against; it names the old key.
    pub seen: Observation,
    /// The pre-flight checklist at the proposal.
    pub checks: Vec<Check>,
    /// The key Atlas holds now.
    pub old_key: KeyRef,
    /// The rules in force now.
    pub rules: Rules,
}

impl Rotation {
    /// A fresh rotation that waits for its approvals.
    #[must_use]
    pub fn propose(proposal: Proposal, now: Timestamp) -> Self {
        let Proposal { group_id, new_key, seen, checks, old_key, rules } = proposal;
        let expires_at = now + rules.policy.approval_ttl.get();
        Self {
            id: RotationId::new(),
            group_id,
            provider: new_key.provider(),
            place: seen.place.clone(),
            block_hash: seen.block_hash.clone(),
            old_key,
            new_key,
            quorum: Quorum { required: rules.policy.approvals, given: 0 },
            wake_at: Some((now + rules.pace.idle_every.get()).min(expires_at)),
            rules,
            state: State::AwaitingApproval,
            cause: None,
            hold: None,
            created_at: now,
            approved_at: None,
            expires_at,
            last: Some(seen),
            checks,
            old_key_was_valid: false,
            attempts: 0,
            patch: None,
            unknown_at: None,
            first_patch_at: None,
            guard_deadline: None,
            retry_at: None,
            failures: 0,
            tries: 0,
            not_before: None,
            patched_at: None,
            verifying_since: None,
            trues: 0,
            false_since: None,
            flaps: 0,
            round: 0,
            gaps: 0,
            valid_at: None,
            deploying_since: None,
            clusters: Vec::new(),
            deployed: None,
            deployed_at: None,
            rolling_back_since: None,
            rollback_ordered: false,
            returned: false,
            healed: false,
            sent_old: false,
            resuming: false,
            paged_at: None,
            pages: 0,
            finished_at: None,
            watch_until: None,
            settled_key: None,
            late_apply: false,
            failure: None,
        }
    }

    /// What spreads this rotation's waits from those of others: drawn from its project and beginning.
    #[must_use]
    pub fn salt(&self) -> u64 {
        let mut hasher = Sha256::new();
        hasher.update(self.group_id.as_str());
        hasher.update(self.created_at.as_micros().to_be_bytes());
        hasher.finalize().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    /// Proposer and time aside, the key this rotation sends for `target`.
    #[must_use]
    pub const fn key(&self, target: Target) -> &KeyRef {
        match target {
            Target::New => &self.new_key,
            Target::Old => &self.old_key,
        }
    }
}
