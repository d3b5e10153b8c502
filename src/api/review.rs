//! Reviews of emergency rotations.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::domain::ids::{GroupId, RotationId};
use crate::domain::time::Timestamp;

/// What closes a review.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Finding {
    /// What was found, for the audit log.
    #[schema(min_length = 1, max_length = 2000)]
    pub finding: String,
}

/// Which reviews are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ReviewQuery {
    /// Closed ones, too.
    pub all: bool,
}

/// The review of an emergency rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Review {
    /// The rotation.
    pub rotation_id: RotationId,
    /// Its project.
    pub group_id: GroupId,
    /// The project's name when the rotation was proposed.
    pub project_name: String,
    /// Who proposed it, and cannot close the review.
    pub requested_by: String,
    /// When.
    pub requested_at: Timestamp,
    /// Why it was an emergency.
    pub reason: String,
    /// Who closed the review; null while it is open.
    pub closed_by: Option<String>,
    /// When.
    pub closed_at: Option<Timestamp>,
    /// What they found.
    pub finding: Option<String>,
}
