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
    /// Where the rotation is.
    pub state: State,
    /// Why it is there.
    pub cause: Option<Cause>,
    /// What proposed it: `operator` or `hook:NAME`.
    pub trigger: String,
    /// The proposer's reason.
    pub reason: Option<String>,
    /// The proposer.
    pub requested_by: String,
    /// The SHA-256 that approvals are bound to.
    pub proposal_hash: String,
    /// Approvals needed and given.
    pub approvals: Approvals,
    /// What Atlas showed last.
    pub last_observation: Option<LastObservation>,
    /// Why it does not go on right now.
    pub hold: Option<Hold>,
    /// The last pre-flight checklist.
    pub checks: Vec<Check>,
    /// How many PATCHes were sent.
    pub attempts: u32,
    /// When it was proposed.
    pub created_at: Timestamp,
    /// When the quorum was met.
    pub approved_at: Option<Timestamp>,
    /// When the PATCH took effect.
    pub patched_at: Option<Timestamp>,
    /// When the new key was verified.
    pub valid_at: Option<Timestamp>,
    /// When the clusters had it.
    pub deployed_at: Option<Timestamp>,
    /// When the rotation ended.
    pub finished_at: Option<Timestamp>,
    /// When an approval lapses.
    pub expires_at: Timestamp,
    /// By when the outcome of the PATCH is verified, rolled back or paged.
    pub guard_deadline: Option<Timestamp>,
    /// How the roll-out to the clusters ended.
    pub deployed: Option<Deployed>,
    /// The clusters and their roll-out.
    pub clusters: Vec<Cluster>,
    /// Atlas' own code of the last failure.
    pub atlas_error_code: Option<String>,
    /// Atlas' own words of the last failure.
    pub atlas_detail: Option<String>,
    /// The search for Atlas' own event about this rotation; null before it ended, or where none was made.
    pub atlas_event: Option<ProofState>,
    /// Atlas' id of that event.
    pub atlas_event_id: Option<String>,
    /// When it happened, by Atlas' clock.
    pub atlas_event_at: Option<Timestamp>,
    /// Who did it, by Atlas.
    pub atlas_event_by: Option<String>,
    /// Changes by others between the observation and the PATCH, which the PATCH replaced.
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
    /// Those who did, the oldest first.
    pub given: Vec<Approval>,
}

/// One person's approval.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// The approver.
    pub by: String,
    /// When it was given.
    pub at: Timestamp,
    /// How it was given.
    pub method: String,
    /// The approver's comment.
    pub comment: Option<String>,
}

/// One reading of Atlas.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastObservation {
    /// When Atlas answered.
    pub at: Timestamp,
    /// The key that Atlas holds.
    pub key: Option<String>,
    /// Whether encryption with a customer-managed key is enabled.
    pub enabled: bool,
    /// Atlas' `valid`; null where Atlas did not say.
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
    /// Why it is not waited for.
    pub exception: Option<String>,
}

/// A change by another hand that a rotation replaced.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Overwritten {
    /// Atlas' id of the event.
    pub atlas_event_id: String,
    /// When it happened, by Atlas' clock.
    pub at: Timestamp,
    /// Who did it, by Atlas.
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

/// One thing that happened to a rotation.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JournalEntry {
    /// Counts from 1 in each rotation.
    pub seq: i64,
    /// When it first happened.
    pub at: Timestamp,
    /// Who or what caused it.
    pub actor: String,
    /// What kind of thing it is.
    pub kind: String,
    /// The state before.
    pub from_state: Option<State>,
    /// The state after.
    pub to_state: State,
    /// What happened; the members depend on the kind.
    pub detail: Value,
    /// How often in a row it was the same.
    pub count: i64,
    /// When it last was.
    pub last_at: Timestamp,
}
