//! Rotations: proposals, answers, decisions, and the journal.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::domain::event::ProofState;
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::key::Provider;
use crate::domain::preflight::Check;
use crate::domain::rotation::state::{Cause, Deployed, Hold, State};
use crate::domain::time::Timestamp;

/// A rotation.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// The id.
    pub id: RotationId,
    /// The project.
    pub group_id: GroupId,
    /// The project's name at the proposal.
    pub project_name: String,
    /// The cloud whose key service holds the keys.
    pub provider: Provider,
    /// The key to replace.
    pub old_key: String,
    /// The proposed key.
    pub new_key: String,
    /// The end of the new key, by which people recognise it.
    pub new_key_tail: String,
    /// The state of the rotation.
    pub state: State,
    /// The reason of the state.
    pub cause: Option<Cause>,
    /// The origin of the proposal: `operator`, `hook:NAME` or `poll`.
    pub trigger: String,
    /// The proposer's reason.
    pub reason: Option<String>,
    /// The proposer.
    pub requested_by: String,
    /// The SHA-256 that approvals are bound to.
    pub proposal_hash: String,
    /// Approvals needed and given.
    pub approvals: Approvals,
    /// The last 50 comments, the oldest first. The comment of a vote is with the vote.
    #[serde(default)]
    pub comments: Vec<Comment>,
    /// What it waits for beside readings and clusters, and the remedy of its cause, in sentences.
    #[serde(default)]
    pub why: Vec<String>,
    /// The readings of the key that is being verified.
    #[serde(default)]
    pub readings: Readings,
    /// The last observation of Atlas.
    pub last_observation: Option<LastObservation>,
    /// Why it waits, for a reason that passes.
    pub hold: Option<Hold>,
    /// The last pre-flight checklist.
    pub checks: Vec<Check>,
    /// The number of PATCHes that were sent.
    pub attempts: u32,
    /// When it was proposed.
    pub created_at: Timestamp,
    /// When the quorum was met.
    pub approved_at: Option<Timestamp>,
    /// When the PATCH took effect.
    pub patched_at: Option<Timestamp>,
    /// When the new key was verified.
    pub valid_at: Option<Timestamp>,
    /// When the clusters had the new key.
    pub deployed_at: Option<Timestamp>,
    /// When the rotation ended.
    pub finished_at: Option<Timestamp>,
    /// When the proposal or its approval expires.
    pub expires_at: Timestamp,
    /// When the new key is sent at the earliest, where the proposer has chosen a date.
    #[serde(default)]
    pub planned_for: Option<Timestamp>,
    /// The guard: the deadline by which the PATCH is verified, rolled back or paged.
    pub guard_deadline: Option<Timestamp>,
    /// How the roll-out to the clusters ended.
    pub deployed: Option<Deployed>,
    /// The clusters and their roll-out.
    pub clusters: Vec<Cluster>,
    /// Atlas' own code of the last failure.
    pub atlas_error_code: Option<String>,
    /// Atlas' own words of the last failure.
    pub atlas_detail: Option<String>,
    /// The search for Atlas' own event about this rotation; null before the rotation ended, or without a search.
    pub atlas_event: Option<ProofState>,
    /// Atlas' id of that event.
    pub atlas_event_id: Option<String>,
    /// When the event happened, by Atlas' clock.
    pub atlas_event_at: Option<Timestamp>,
    /// The author of the change, by Atlas' event.
    pub atlas_event_by: Option<String>,
    /// Changes outside of Keywheel between the observation and the PATCH, which the PATCH replaced.
    pub overwrote: Vec<Overwritten>,
    /// Counts writes.
    pub version: i64,
}

/// Approvals needed and given.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approvals {
    /// How many people must approve.
    pub required: u32,
    /// The approvals given, the oldest first.
    pub given: Vec<Approval>,
}

/// The readings of the key that is being verified: the new one, or the old one after a rollback.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Readings {
    /// True readings in a row.
    pub in_a_row: u32,
    /// How many in a row verify the key.
    pub required: u32,
}

/// One person's approval.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// The approver.
    pub by: String,
    /// When it was given.
    pub at: Timestamp,
    /// The way it was given, such as `api` or `auto_approve`.
    pub method: String,
    /// The approver's comment.
    pub comment: Option<String>,
}

/// A comment that decided nothing.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Comment {
    /// Who wrote it.
    pub by: String,
    /// When it was written.
    pub at: Timestamp,
    /// The way it was given, such as `api` or `link`.
    pub method: String,
    /// The text.
    pub comment: String,
}

/// An observation of Atlas.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastObservation {
    /// When Atlas answered.
    pub at: Timestamp,
    /// The key that Atlas holds.
    pub key: Option<String>,
    /// Whether encryption with a customer-managed key is enabled.
    pub enabled: bool,
    /// Atlas' `valid`; null where Atlas did not report it.
    pub valid: Option<bool>,
}

/// A cluster and its roll-out.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// The cluster's name.
    pub name: String,
    /// Whether it was seen UPDATING.
    pub seen_updating: bool,
    /// How many observations in a row showed it IDLE.
    pub idle: u32,
    /// Why the roll-out does not wait for it.
    pub exception: Option<String>,
}

/// A change outside of Keywheel that a rotation replaced.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Overwritten {
    /// Atlas' id of the event.
    pub atlas_event_id: String,
    /// When it happened, by Atlas' clock.
    pub at: Timestamp,
    /// The author of the change, by Atlas' event.
    pub by: String,
}

/// A new key for a project.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Proposal {
    /// The key as the provider writes it.
    pub new_key: String,
    /// The reason, for the approvers and the audit log.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 2000)]
    pub reason: Option<String>,
    /// The new key is not sent before this: an instant, or a day, which begins in the zone of the project's first window
    /// (without windows of its first freeze, without both UTC). At most 92 days ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("2026-12-12"))]
    pub planned_for: Option<String>,
    /// It is an emergency: `policy.emergency` says who may propose one and how many people approve it. It needs a reason, waits
    /// for no window, and leaves a review that another person closes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emergency: bool,
    /// Check everything and propose nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// The answer to a proposal.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Proposed {
    /// The rotation, new or open with the same key.
    Rotation(Box<Rotation>),
    /// The result of a dry run.
    Checked(Checked),
}

/// The result of a dry run; nothing was proposed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// Always true.
    #[schema(schema_with = super::schema::always)]
    pub dry_run: bool,
    /// The key to replace.
    pub old_key: String,
    /// The proposed key.
    pub new_key: String,
    /// When the new key would be sent at the earliest, where a date was asked for.
    #[serde(default)]
    pub planned_for: Option<Timestamp>,
    /// The pre-flight checklist.
    pub checks: Vec<Check>,
}

/// A decision about a rotation. The body may be left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Decision {
    /// The decider's comment, for the journal and the audit log.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 2000)]
    pub comment: Option<String>,
    /// The hash of the proposal as it was read; another proposal is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proposal_hash: Option<String>,
    /// The end of the new key as the decider read it: its last six characters, at Google key name and version. Another end
    /// is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<String>,
}

/// A comment to record. It decides nothing and counts as no vote.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewComment {
    /// The text, for the journal and the audit log.
    #[schema(min_length = 1, max_length = 2000)]
    pub comment: String,
    /// The hash of the proposal as it was read; another proposal is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proposal_hash: Option<String>,
}

/// The parameters of the list of rotations.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RotationQuery {
    /// Only rotations in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<State>)]
    pub state: Option<String>,
    /// Only rotations of this project.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<GroupId>)]
    pub group_id: Option<String>,
    /// Rows of a page: 100 unless given, 500 at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0)]
    pub limit: Option<usize>,
    /// `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")]
    pub cursor: Option<String>,
}

/// An entry of a rotation's journal.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JournalEntry {
    /// Counts from 1 in each rotation.
    pub seq: i64,
    /// When it was first recorded.
    pub at: Timestamp,
    /// The identity that caused it.
    pub actor: String,
    /// The kind of the entry.
    pub kind: String,
    /// The state before.
    pub from_state: Option<State>,
    /// The state after.
    pub to_state: State,
    /// The details; the members depend on the kind.
    pub detail: Value,
    /// How many equal entries in a row this one stands for.
    pub count: i64,
    /// When the last of them was recorded.
    pub last_at: Timestamp,
}
