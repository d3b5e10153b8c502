//! The fields of a rotation by phase: one struct for each group.
//!
//! The phases set the fields, and the decisions of [`machine`](super::machine) read them. Nothing here
//! decides.

use serde::{Deserialize, Serialize};

use super::outcome::{Failure, Observation, PatchReply};
use crate::domain::key::{KeyRef, Place};
use crate::domain::named::named;
use crate::domain::preflight::Check;
use crate::domain::time::Timestamp;

/// The provider's block of Atlas' configuration, as it was at the proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The region or vault of the keys; completes bare AWS ids in comparisons.
    pub place: Place,
    /// Its hash without key and `valid`, for `patch_body = "whole-block"`.
    pub hash: String,
}

/// Votes needed and given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    /// Distinct approvers needed.
    pub required: u32,
    /// Distinct approvers whose approval stands.
    pub given: u32,
}

impl Quorum {
    /// Whether enough approvers agreed.
    #[must_use]
    pub const fn is_met(self) -> bool {
        self.given >= self.required
    }
}

/// The permission for the PATCH: the votes and the expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// Votes.
    pub quorum: Quorum,
    /// When the quorum was reached.
    pub approved_at: Option<Timestamp>,
    /// When the present permission lapses: the approval's or the execution's.
    pub expires_at: Timestamp,
}

/// The last observation and failure, and the pause that Atlas requested.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observing {
    /// The last observation.
    pub last: Option<Observation>,
    /// The latest pre-flight checklist.
    pub checks: Vec<Check>,
    /// Observations that failed in a row, for the backoff.
    pub failures: u32,
    /// Atlas requested no call before this instant.
    pub not_before: Option<Timestamp>,
    /// The last failure of any call, verbatim.
    pub failure: Option<Failure>,
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
    /// The reply. `None` while in flight, and after a crash: then the outcome is unknown.
    pub reply: Option<PatchReply>,
    /// Its sender ended before it could record a reply, so the request may outlive it.
    pub interrupted: bool,
}

/// The PATCHes sent, of either key, and the guard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patching {
    /// PATCHes sent, of either key.
    pub attempts: u32,
    /// The latest of them.
    pub latest: Option<Attempt>,
    /// When the first PATCH that may have been applied was sent: the guard counts from here.
    pub first_at: Option<Timestamp>,
    /// The guard's end.
    pub guard_deadline: Option<Timestamp>,
    /// When the last PATCH(new) of unknown outcome was sent.
    pub unknown_at: Option<Timestamp>,
    /// PATCHes of the present target, for the backoff.
    pub tries: u32,
    /// When the next PATCH may leave, after a backoff.
    pub retry_at: Option<Timestamp>,
    /// When the first PATCH(new) was sent of those that Atlas all put off.
    pub put_off_since: Option<Timestamp>,
    /// When Atlas first showed the new key after our PATCH.
    pub patched_at: Option<Timestamp>,
    /// A PATCH of the old key was sent at some time.
    pub sent_old: bool,
}

/// The readings of the key that is to be verified: the new one, or the old one after a rollback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// When `verifying`, or the verification of a rollback, began.
    pub since: Option<Timestamp>,
    /// Consecutive true readings.
    pub trues: u32,
    /// The first false reading since the last true one.
    pub false_since: Option<Timestamp>,
    /// Since when the alerts that tell a bad key from a bad network were requested and not answered.
    pub alerts_unanswered_since: Option<Timestamp>,
    /// Since when `valid` is absent.
    pub absent_since: Option<Timestamp>,
    /// How often `valid` fell from true to false.
    pub flaps: u32,
    /// Consecutive observations without a gap longer than two cadences.
    pub round: u32,
    /// Gaps since the last full round of readings.
    pub gaps: u32,
    /// When the new key was verified.
    pub valid_at: Option<Timestamp>,
}

/// The observed progress of one cluster since Atlas showed the new key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterProgress {
    /// The cluster's name.
    pub name: String,
    /// It was seen UPDATING at least once.
    pub seen_updating: bool,
    /// Consecutive observations that showed it IDLE.
    pub idle: u32,
    /// Why the roll-out does not wait for it (paused, creating, repairing, deleting); `None` when it
    /// waits.
    pub exception: Option<String>,
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

/// The roll-out to the clusters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RollOut {
    /// When `deploying` began.
    pub since: Option<Timestamp>,
    /// Clusters seen since Atlas showed the new key: a quick roll-out is over before `deploying`.
    pub clusters: Vec<ClusterProgress>,
    /// How it ended.
    pub deployed: Option<Deployed>,
    /// When its end was found.
    pub deployed_at: Option<Timestamp>,
}

/// The way back to the old key.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, none implies another")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rollback {
    /// Atlas called the old key valid at the observation before the first PATCH.
    pub old_key_was_valid: bool,
    /// When `rolling_back` began.
    pub since: Option<Timestamp>,
    /// An operator ordered it: it goes on although the new key may be valid.
    pub ordered: bool,
    /// The one return from `rolling_back` to `verifying` was used.
    pub returned: bool,
    /// The one automatic return from a refused rollback was used.
    pub healed: bool,
}

/// The pages to operators, and their answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operator {
    /// When the page was sent.
    pub paged_at: Option<Timestamp>,
    /// 1 once it was. Earlier versions repeated pages here and counted them.
    pub pages: u32,
    /// An operator gave `resume`: the next observation decides the next state.
    pub resuming: bool,
}

/// The end, and the observations after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// When the rotation became final.
    pub finished_at: Option<Timestamp>,
    /// Until when it is observed after that.
    pub watch_until: Option<Timestamp>,
    /// The key Atlas held at the end.
    pub settled_key: Option<KeyRef>,
    /// A late effect of a PATCH was announced.
    pub late_apply: bool,
}
