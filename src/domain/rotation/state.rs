//! A rotation at one instant: its state, its cause, and its fields of each phase, as
//! [`next`](super::machine::next) reads and writes them.
//!
//! The whole of [`Rotation`] is stored with every step. Nothing here decides.

use sha2::{Digest, Sha256};

use super::outcome::{Class, Observation, PatchReply};
pub use super::progress::{
    Attempt, Block, ClusterProgress, Deployed, Ending, Observing, Operator, Patching, Permission, Quorum,
    Readings, RollOut, Rollback, Target,
};
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::key::{KeyRef, Provider};
use crate::domain::named::named;
use crate::domain::policy::Rules;
use crate::domain::preflight::Check;
use crate::domain::time::Timestamp;

named! {
    /// The states of a rotation. A state names the single effect that may be in flight.
    State, "rotation state" {
        /// Waits for approvals; no PATCH leaves.
        AwaitingApproval = "awaiting_approval",
        /// Approved; may wait for its window or for another hold to pass.
        Approved = "approved",
        /// A PATCH of the new key may be in flight.
        Applying = "applying",
        /// Atlas showed the new key; readings are taken.
        Verifying = "verifying",
        /// The new key is verified; clusters take it up.
        Deploying = "deploying",
        /// A PATCH of the old key may be in flight.
        RollingBack = "rolling_back",
        /// The key in force cannot be verified; an operator decides.
        NeedsOperator = "needs_operator",
        /// Final: the new key serves, verified.
        Completed = "completed",
        /// Final: the old key serves again, verified.
        RolledBack = "rolled_back",
        /// Final: Atlas never took the new key.
        Failed = "failed",
        /// Final: an approver rejected it.
        Rejected = "rejected",
        /// Final: cancelled before Atlas showed the new key.
        Cancelled = "cancelled",
        /// Final: the quorum or the window came too late.
        Expired = "expired",
        /// Final: another actor changed the key.
        Superseded = "superseded",
        /// Final: an operator accepted the new key although it was not verified.
        Accepted = "accepted",
        /// Final: an operator closed it and left the key as it is.
        Closed = "closed",
    }
}

impl State {
    /// Whether a PATCH of this rotation may be in force or under way, and its end is open.
    #[must_use]
    pub const fn is_after_patch(self) -> bool {
        matches!(self, State::Applying | State::Verifying | State::Deploying | State::RollingBack)
    }

    /// Whether the rotation has ended; only observations follow.
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
    /// The reason for a rotation's state, for the states that need one.
    Cause, "cause" {
        /// Superseded: another actor set the proposed key before we sent a PATCH.
        DoneByHand = "done_by_hand",
        /// Superseded: Atlas holds a third key.
        KeyChanged = "key_changed",
        /// Superseded: another actor set the old key again.
        Reverted = "reverted",
        /// Failed: Atlas refused the new key; its code is kept verbatim.
        Refused = "refused",
        /// Failed or needs an operator: Atlas no longer accepts the credential.
        Auth = "auth",
        /// Failed or needs an operator: the project is gone.
        Gone = "gone",
        /// Failed: the guard ended and Atlas still showed the old key.
        NotApplied = "not_applied",
        /// Superseded or needs an operator: encryption was disabled or moved to another provider.
        ConfigChanged = "config_changed",
        /// Needs an operator: Atlas could not be observed until the guard or the roll-out's timeout
        /// ended.
        Unreachable = "unreachable",
        /// Needs an operator: Atlas cannot reach the key service, which shows nothing about the key.
        KmsUnreachable = "kms_unreachable",
        /// Needs an operator: in time, the new key was neither verified nor shown to be bad.
        Unproven = "unproven",
        /// Needs an operator: the new key was verified and went bad afterwards.
        NewKeyInvalid = "new_key_invalid",
        /// Needs an operator: the old key was not valid before the rotation, or is not verified after it
        /// was put back.
        OldKeyInvalid = "old_key_invalid",
        /// Needs an operator: Atlas refuses to put the old key back while the new one is bad.
        RollbackRefused = "rollback_refused",
        /// Needs an operator: the guard ended before the rollback was verified.
        RollbackUnproven = "rollback_unproven",
        /// Needs an operator: the rotation, its votes or the audit log were changed outside of Keywheel.
        Tampered = "tampered",
    }
}

named! {
    /// The reason that delays an open rotation for now. It passes by itself.
    Hold, "hold" {
        /// Atlas cannot use the project's current key and would refuse any change.
        CurrentKeyInvalid = "current_key_invalid",
        /// Atlas does not report whether the current key is valid.
        CurrentKeyUnknown = "current_key_unknown",
        /// No window is open, or the planned date has not come.
        Window = "window",
        /// Our clock and Atlas' differ by more than two minutes.
        ClockSkew = "clock_skew",
        /// A cluster is being repaired.
        ClusterRepairing = "cluster_repairing",
        /// Atlas did not list the clusters, so any of them may be in repair.
        ClustersUnknown = "clusters_unknown",
        /// A line of the pre-flight checklist fails.
        Preflight = "preflight",
        /// Atlas cannot be read at the moment.
        AtlasUnreachable = "atlas_unreachable",
        /// Atlas does not accept the project's credential at the moment.
        AtlasAuth = "atlas_auth",
        /// Atlas puts every PATCH off.
        RateLimited = "rate_limited",
        /// Atlas no longer serves the version of its API that this program asks for.
        TooOld = "too_old",
        /// Atlas no longer encrypts this project with the provider of the proposal.
        ConfigChanged = "config_changed",
        /// With `patch_body = "whole-block"`: the block differs from the one seen at proposal.
        BlockChanged = "block_changed",
    }
}

/// One attempt to move a project from its old key to one named new key: everything the machine
/// reads and writes. It is stored flat, under names of its own (`stored.rs`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Our id.
    pub id: RotationId,
    /// The Atlas project.
    pub group_id: GroupId,
    /// The cloud whose key service holds both keys.
    pub provider: Provider,
    /// The key Atlas held when the rotation was proposed.
    pub old_key: KeyRef,
    /// The key that approvers vote on.
    pub new_key: KeyRef,
    /// The provider's block in Atlas at the proposal.
    pub block: Block,
    /// The rules it runs under to its end.
    pub rules: Rules,
    /// When it was proposed.
    pub created_at: Timestamp,
    /// Its state.
    pub state: State,
    /// The cause, for states that have one.
    pub cause: Option<Cause>,
    /// The hold, while one delays it.
    pub hold: Option<Hold>,
    /// When the engine must observe again; `None` when it need not.
    pub wake_at: Option<Timestamp>,
    /// The votes, and the expiry of the permission.
    pub permission: Permission,
    /// The last observation and failure, and the pause that Atlas requested.
    pub observing: Observing,
    /// The PATCHes sent, of either key, and the guard.
    pub patching: Patching,
    /// The readings of the key that is to be verified.
    pub readings: Readings,
    /// The roll-out to the clusters.
    pub rollout: RollOut,
    /// The way back to the old key.
    pub rollback: Rollback,
    /// The pages to operators, and their answer.
    pub operator: Operator,
    /// The end, and the observations after it.
    pub ending: Ending,
}

/// The part of a [`Rotation`] that its proposal fixes; the rest starts empty.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The Atlas project.
    pub group_id: GroupId,
    /// The key to move to.
    pub new_key: KeyRef,
    /// The observation that the proposal was checked against; it names the old key.
    pub seen: Observation,
    /// The pre-flight checklist at the proposal.
    pub checks: Vec<Check>,
    /// The key Atlas holds now.
    pub old_key: KeyRef,
    /// The rules in force now.
    pub rules: Rules,
}

impl Rotation {
    /// What delays a rotation whose PATCH Atlas puts off.
    #[must_use]
    pub fn put_off_by(&self) -> Hold {
        match self.patching.latest.as_ref().and_then(|patch| patch.reply.as_ref()) {
            Some(PatchReply::NotTaken(failure)) if failure.class == Class::TooOld => Hold::TooOld,
            Some(PatchReply::Auth(_)) => Hold::AtlasAuth,
            _ => Hold::RateLimited,
        }
    }

    /// A fresh rotation that waits for its approvals.
    #[must_use]
    pub fn propose(proposal: Proposal, now: Timestamp) -> Self {
        let Proposal { group_id, new_key, seen, checks, old_key, rules } = proposal;
        let expires_at = rules.approval_deadline(now);
        Self {
            id: RotationId::new(),
            group_id,
            provider: new_key.provider(),
            old_key,
            new_key,
            block: Block { place: seen.place.clone(), hash: seen.block_hash.clone() },
            created_at: now,
            state: State::AwaitingApproval,
            cause: None,
            hold: None,
            wake_at: Some((now + rules.pace.idle_every.get()).min(expires_at)),
            permission: Permission {
                quorum: Quorum { required: rules.policy.approvals, given: 0 },
                approved_at: None,
                expires_at,
            },
            observing: Observing { last: Some(seen), checks, ..Observing::default() },
            patching: Patching::default(),
            readings: Readings::default(),
            rollout: RollOut::default(),
            rollback: Rollback::default(),
            operator: Operator::default(),
            ending: Ending::default(),
            rules,
        }
    }

    /// The seed that spreads this rotation's waits from those of others: drawn from its project and its
    /// start.
    #[must_use]
    pub fn salt(&self) -> u64 {
        let mut hasher = Sha256::new();
        hasher.update(self.group_id.as_str());
        hasher.update(self.created_at.as_micros().to_be_bytes());
        hasher.finalize().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    /// The key that a PATCH for `target` carries.
    #[must_use]
    pub const fn key(&self, target: Target) -> &KeyRef {
        match target {
            Target::New => &self.new_key,
            Target::Old => &self.old_key,
        }
    }
}
