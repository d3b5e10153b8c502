//! Reads projects now, instead of at their next look.

use super::CommandError;
use crate::domain::ids::GroupId;
use crate::domain::key::KeyRef;
use crate::domain::project::Project;
use crate::engine::{Engine, sweep};
use crate::store::ProjectFilter;

impl Engine {
    /// Reads a project from Atlas and records what was found, as the sweep does; an open rotation is woken to read it.
    ///
    /// # Errors
    /// Fails when the project is not tracked, and when the database cannot be read or written. That Atlas cannot be read is
    /// part of the project.
    pub async fn refresh_project(&self, group: &GroupId) -> Result<Project, CommandError> {
        let find = async || {
            let project = self.store.project(group).await?;
            project.ok_or_else(|| CommandError::NoProject(group.clone()))
        };
        if self.epoch.in_doubt() {
            // Every sweep reads every project then, and records nothing.
            self.look_due.notify_one();
            return find().await;
        }
        sweep::check(self, find().await?).await?;
        self.conditions_due.notify_one();
        find().await
    }

    /// Makes every project due to be read at once; returns how many there are.
    ///
    /// # Errors
    /// Fails when the database cannot be read or written.
    pub async fn refresh_all(&self) -> Result<u64, CommandError> {
        let (mut after, mut count): (Option<GroupId>, u64) = (None, 0);
        loop {
            let batch = self.store.projects(&ProjectFilter::default(), after.as_ref(), 500).await?;
            let Some(last) = batch.last() else { break };
            let groups: Vec<_> = batch.iter().map(|it| it.group_id.clone()).collect();
            self.quiet.forget(&groups);
            self.store.look_soon(&groups, self.clock.now()).await?;
            count += u64::try_from(groups.len()).unwrap_or_default();
            after = Some(last.group_id.clone());
        }
        self.look_due.notify_one();
        Ok(count)
    }

    /// Refuses a date for the key on record where Atlas holds another one.
    pub(super) async fn check_held(&self, project: &Project) -> Result<(), CommandError> {
        let seen = self.observe(&project.credential, &project.group_id).await?;
        let text = |key: Option<&KeyRef>| key.map_or_else(|| "no key".to_owned(), ToString::to_string);
        let same = match (&project.current_key, &seen.key) {
            (Some(recorded), Some(held)) => recorded.is_same(held, &seen.place),
            (recorded, held) => recorded.is_none() && held.is_none(),
        };
        if same {
            return Ok(());
        }
        Err(CommandError::Invalid {
            field: "keySince",
            rule: format!(
                "the record has {}, and Atlas holds {}: a date would be booked on a key that is not in force. `keywheel project \
                 refresh {}` records the key that Atlas holds; then give its date",
                text(project.current_key.as_ref()),
                text(seen.key.as_ref()),
                project.group_id
            ),
        })
    }
}
