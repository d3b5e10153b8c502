//! The year ahead of the fleet: the rules of each project run forward over the due dates on record.
//!
//! The number of statements does not depend on the fleet: one row for each key that is due in time, and no project is
//! read whole. `domain::plan` decides; nothing is written here.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Engine;
use super::propose::FURTHEST;
use crate::domain::ids::GroupId;
use crate::domain::plan::{Key, Plan, Schedule};
use crate::domain::project::PolicyOverride;
use crate::domain::rotation::state::State;
use crate::domain::time::{Span, Timestamp};
use crate::store::StoreError;

/// How many keys are to be replaced on one day at most, unless asked otherwise.
pub const PER_DAY: usize = 5;

/// A key of the plan.
#[derive(Clone, Debug)]
pub struct PlannedKey {
    /// The project.
    pub group_id: GroupId,
    /// Its name in Atlas.
    pub name: String,
    /// The state of its open rotation.
    pub open: Option<State>,
}

/// What lies ahead.
#[derive(Debug)]
pub struct Ahead {
    /// When it was computed.
    pub from: Timestamp,
    /// The last instant of it.
    pub until: Timestamp,
    /// Whose keys they are, in the order of `keys`.
    pub projects: Vec<PlannedKey>,
    /// The keys.
    pub keys: Vec<Key>,
    /// Their due dates.
    pub plan: Plan,
    /// The rules of projects without rules of their own.
    pub defaults: Arc<Schedule>,
}

impl Engine {
    /// The due dates of the next `days` days, and earlier dates for those that cannot be kept or are more than `per_day`
    /// on a day.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn ahead(&self, days: u64, per_day: usize) -> Result<Ahead, StoreError> {
        let (from, defaults) = (self.clock.now(), &self.settings.policy);
        let until = from + Span::from_days(days).get();
        let rows = self.store.due_dates(defaults.interval, until).await?;
        let shared = Arc::new(Schedule::new(defaults.clone(), from, until));
        // Many projects share few sets of rules.
        let mut own: BTreeMap<String, Arc<Schedule>> = BTreeMap::new();
        let (mut projects, mut keys) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        for row in rows {
            let schedule = match row.policy {
                None => shared.clone(),
                Some(text) => own
                    .entry(text)
                    .or_insert_with_key(|text| {
                        // Rules that cannot be read are told by `doctor`.
                        let rules: PolicyOverride = serde_json::from_str(text).unwrap_or_default();
                        Arc::new(Schedule::new(rules.over(defaults), from, until))
                    })
                    .clone(),
            };
            let is_open = row.open.is_some();
            keys.push(Key { due: row.due, schedule, is_open, planned_for: row.planned_for });
            projects.push(PlannedKey { group_id: row.group_id, name: row.name, open: row.open });
        }
        let plan = Plan::ahead(&keys, from, until, per_day, FURTHEST);
        Ok(Ahead { from, until, projects, keys, plan, defaults: shared })
    }
}
