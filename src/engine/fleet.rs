//! The fleet at a glance: counts by status, the keys that are due next, the open rotations.
//!
//! Computed from rows on each request; nothing is stored.

use std::collections::BTreeMap;

use super::Engine;
use crate::domain::ids::GroupId;
use crate::domain::project::{Project, Status};
use crate::domain::time::Timestamp;
use crate::store::{ProjectFilter, StoreError};

/// How many of the most urgent projects are named.
const URGENT: usize = 10;

/// Projects read at once.
const BATCH: usize = 500;

/// The state of all projects together.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// How many projects are in which status.
    pub by_status: BTreeMap<Status, u64>,
    /// Projects without an owner: their messages are not sent.
    pub without_owner: u64,
    /// Projects whose mails wait for the end of a silence.
    pub silenced: u64,
    /// The projects that are due first.
    pub urgent: Vec<(Timestamp, Project)>,
    /// Projects with an open rotation.
    pub open: Vec<Project>,
}

impl Fleet {
    /// Reads every project.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn read(engine: &Engine) -> Result<Self, StoreError> {
        let (defaults, now) = (&engine.settings.policy, engine.clock.now());
        let mut fleet = Self::default();
        let mut after: Option<GroupId> = None;
        loop {
            let batch = engine.store.projects(&ProjectFilter::default(), after.as_ref(), BATCH).await?;
            let last = batch.len() < BATCH;
            after = batch.last().map(|project| project.group_id.clone());
            for project in batch {
                *fleet.by_status.entry(project.status(defaults, now)).or_default() += 1;
                fleet.without_owner += u64::from(project.owners.is_empty());
                fleet.silenced += u64::from(project.silence.as_ref().is_some_and(|it| it.lasts(now)));
                if project.open_rotation.is_some() {
                    fleet.open.push(project.clone());
                }
                if let Some(due) = project.due(defaults) {
                    fleet.urgent.push((due, project));
                }
            }
            fleet.urgent.sort_by_key(|(due, _)| *due);
            fleet.urgent.truncate(URGENT);
            if last {
                return Ok(fleet);
            }
        }
    }

    /// How many projects there are.
    #[must_use]
    pub fn projects(&self) -> u64 {
        self.by_status.values().sum()
    }
}
