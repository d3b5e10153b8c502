//! Acknowledgements of due dates.

use serde_json::json;

use super::{CommandError, check_words};
use crate::domain::day::Planned;
use crate::domain::ids::GroupId;
use crate::domain::silence::DueAck;
use crate::engine::Engine;
use crate::store::NewAudit;

impl Engine {
    /// Keeps the reminders of a project's due date back until `until`: a person says that the key is replaced then.
    ///
    /// # Errors
    /// Fails when the project is not tracked or has no due date, when `until` is over or too far ahead, and when the
    /// database cannot be written.
    pub async fn acknowledge_due(
        &self,
        by: &str,
        group: &GroupId,
        until: Planned,
        comment: Option<&str>,
    ) -> Result<(), CommandError> {
        check_words("comment", comment)?;
        let project = self.store.project(group).await?;
        let project = project.ok_or_else(|| CommandError::NoProject(group.clone()))?;
        let (defaults, now) = (&self.settings.policy, self.clock.now());
        let invalid = |rule: String| Err(CommandError::Invalid { field: "until", rule });
        let (Some(due), Some(cycle)) = (project.due(defaults), project.cycle(defaults)) else {
            return invalid("this project has no due date, so there is nothing to acknowledge".to_owned());
        };
        let zone = project.policy(defaults).zone();
        let at = until.start(zone);
        if at <= now {
            return invalid(format!("{until} has begun already; give a later day ({zone})"));
        }
        let latest = DueAck::latest(due);
        if at > latest {
            return invalid(format!(
                "{until} is too late: the key is due at {due}, and reminders wait until {latest} at most; plan a rotation \
                 with `keywheel rotate --on` for a later day"
            ));
        }
        let ack = DueAck { cycle, until: at, by: by.to_owned() };
        let audit = NewAudit {
            actor: by.to_owned(),
            action: "project.due_acknowledged".to_owned(),
            subject: format!("project/{group}"),
            detail: json!({ "due": due, "until": at, "comment": comment }).to_string(),
        };
        Ok(self.store.acknowledge_due(group, &ack, audit, now).await?)
    }
}
