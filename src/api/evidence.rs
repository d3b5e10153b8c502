//! Evidence bundles.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::ids::GroupId;
use crate::domain::time::Timestamp;

/// What a bundle is to be about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvidenceExport {
    /// The first instant of the period; a date is its midnight in UTC.
    pub from: Timestamp,
    /// The first instant after the period.
    pub to: Timestamp,
    /// The one project; all where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<GroupId>,
}
