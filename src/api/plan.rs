//! The plan: the due dates ahead, which of them cannot be kept, and earlier dates for those.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::domain::freeze::Freeze;
use crate::domain::ids::GroupId;
use crate::domain::named::named;
use crate::domain::rotation::state::State;
use crate::domain::time::Timestamp;

/// The parameters of the plan.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PlanQuery {
    /// How many days to look ahead: 365 unless given, 1 to 731.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 731)]
    pub days: Option<u64>,
    /// How many keys are to be replaced on one day at most: 5 unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 10000)]
    pub per_day: Option<usize>,
    /// Only due dates that cannot be kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflicts: Option<bool>,
    /// Due dates of a page: 100 unless given, 500 at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0)]
    pub limit: Option<usize>,
    /// `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^[0-9]{1,10}$")]
    pub cursor: Option<String>,
}

/// What lies ahead. The sums are over all due dates, the items over one page of them.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// When it was computed.
    pub from: Timestamp,
    /// The last instant of it.
    pub until: Timestamp,
    /// How many keys fall due. A date after the next one of a key assumes that the key is replaced when it is due.
    pub due: usize,
    /// How many of these dates cannot be kept.
    pub conflicts: usize,
    /// For how many of those an earlier date is proposed.
    pub proposed: usize,
    /// How many keys are due on each day that has any, by the day in UTC.
    pub days: BTreeMap<String, usize>,
    /// The freezes of projects without rules of their own that have not ended.
    pub freezes: Vec<Freeze>,
    /// Due dates, the earliest first.
    pub items: Vec<PlannedDue>,
    /// The cursor of the next page; null on the last one.
    pub next: Option<String>,
}

/// A due date.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedDue {
    /// The project.
    pub group_id: GroupId,
    /// The project's name in Atlas.
    pub project_name: String,
    /// When the key is due.
    pub due: Timestamp,
    /// Whether it is the next due date of the key; later ones are assumptions.
    pub is_next: bool,
    /// Why it cannot be kept.
    pub conflict: Option<ConflictKind>,
    /// The freeze in which it lies.
    pub freeze: Option<String>,
    /// When the key could be replaced instead; only where a proposal can carry that date now.
    pub proposed: Option<Timestamp>,
    /// The state of the open rotation.
    pub open_rotation: Option<State>,
    /// The date of the open rotation.
    pub planned_for: Option<Timestamp>,
    /// Who is reminded.
    pub owners: Vec<String>,
    /// When they are reminded until the due date; of a key that is overdue the next time.
    pub reminders: Vec<Timestamp>,
}

named! {
    /// Why a due date cannot be kept.
    ConflictKind, "conflict" {
        /// It lies in a freeze.
        Freeze = "freeze",
        /// No window opens between the first reminder, or now, and the date.
        NoWindow = "no_window",
        /// More keys are due on the day than are to be.
        Crowded = "crowded",
    }
}
