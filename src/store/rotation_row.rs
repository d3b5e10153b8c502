//! A rotation as a row of its table.

use sqlx::FromRow;
use uuid::Uuid;

use super::{Sql, StoreError};
use crate::domain::ids::LeaseToken;
use crate::domain::rotation::state::Rotation;

macro_rules! columns {
    () => {
        "id, project_name, credential, trigger_name, reason, requested_by, proposal_hash, policy_version, machine, \
         version, lease_token, (SELECT environment FROM projects p WHERE p.group_id = rotations.group_id) AS environment, \
         (SELECT kms FROM projects p WHERE p.group_id = rotations.group_id) AS kms"
    };
}
pub(super) use columns;

/// Every rotation that is open.
pub(super) const ALL_OPEN: Sql = Sql::same(concat!(
    "SELECT ",
    columns!(),
    " FROM rotations WHERE state IN ('awaiting_approval', 'approved', 'applying', 'verifying', 'deploying', 'rolling_back', \
     'needs_operator')"
));

pub(super) const STATEMENTS: &[&Sql] = &[&ALL_OPEN];

/// A stored rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationRow {
    /// The rotation, as the machine reads and writes it.
    pub rotation: Rotation,
    /// The trigger of the proposal: `operator` or `hook:<name>`.
    pub trigger: String,
    /// The proposer's reason.
    pub reason: Option<String>,
    /// The proposer.
    pub requested_by: String,
    /// The hash that approvals are bound to.
    pub proposal_hash: String,
    /// The policy it was proposed under.
    pub policy_version: String,
    /// Counts writes.
    pub version: i64,
    /// The project's name at the proposal.
    pub project_name: String,
    /// The Atlas credential.
    pub credential: String,
    /// The project's environment, when the row was read.
    pub environment: Option<String>,
    /// The name of the project's lookup, when the row was read.
    pub kms: Option<String>,
    /// The claim under which it was read, when it was claimed.
    pub lease: Option<LeaseToken>,
}

#[derive(FromRow)]
pub(super) struct StoredRow {
    pub(super) id: Uuid,
    project_name: String,
    credential: String,
    trigger_name: String,
    reason: Option<String>,
    requested_by: String,
    proposal_hash: String,
    policy_version: String,
    machine: String,
    version: i64,
    lease_token: Option<Uuid>,
    environment: Option<String>,
    kms: Option<String>,
}

impl TryFrom<StoredRow> for RotationRow {
    type Error = StoreError;
    fn try_from(row: StoredRow) -> Result<Self, StoreError> {
        Ok(Self {
            rotation: serde_json::from_str(&row.machine)
                .map_err(|_| StoreError::corrupt("rotations", "machine", row.id))?,
            trigger: row.trigger_name,
            reason: row.reason,
            requested_by: row.requested_by,
            proposal_hash: row.proposal_hash,
            policy_version: row.policy_version,
            version: row.version,
            project_name: row.project_name,
            credential: row.credential,
            environment: row.environment,
            kms: row.kms,
            lease: row.lease_token.map(LeaseToken),
        })
    }
}
