//! Acknowledgements of conditions.

use serde_json::json;

use super::{CommandError, TRIES, check_words};
use crate::domain::condition::{ConditionKind, LONGEST_ACKNOWLEDGED, Telling};
use crate::domain::ids::GroupId;
use crate::domain::subject::Subject;
use crate::engine::Engine;
use crate::store::{ConditionRow, NewAudit, StoreError};

impl Engine {
    /// Stops the repetitions of this start of a condition, for twelve hours. Its end is told all the same.
    ///
    /// # Errors
    /// Fails when the condition does not hold or is only shown, and when the database cannot be written.
    pub async fn acknowledge(
        &self,
        by: &str,
        group: &GroupId,
        kind: ConditionKind,
        comment: Option<&str>,
    ) -> Result<(), CommandError> {
        check_words("comment", comment)?;
        for _ in 0..TRIES {
            if self.store.project(group).await?.is_none() {
                return Err(CommandError::NoProject(group.clone()));
            }
            let subject = group.into();
            let rows = self.store.conditions_of(&subject, &subject).await?;
            match self.write_acknowledged(by, rows, kind, comment, Some(group)).await {
                Err(CommandError::Store(StoreError::Conflict)) => {}
                done => return done,
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// The same for a condition of the installation, of every subject for which it holds.
    ///
    /// # Errors
    /// As [`Engine::acknowledge`].
    pub async fn acknowledge_installation(
        &self,
        by: &str,
        kind: ConditionKind,
        comment: Option<&str>,
    ) -> Result<(), CommandError> {
        check_words("comment", comment)?;
        for _ in 0..TRIES {
            let rows = self.store.conditions_of_installation().await?;
            match self.write_acknowledged(by, rows, kind, comment, None).await {
                Err(CommandError::Store(StoreError::Conflict)) => {}
                done => return done,
            }
        }
        Err(StoreError::Conflict.into())
    }

    async fn write_acknowledged(
        &self,
        by: &str,
        mut rows: Vec<ConditionRow>,
        kind: ConditionKind,
        comment: Option<&str>,
        group: Option<&GroupId>,
    ) -> Result<(), CommandError> {
        rows.retain(|row| row.kind == kind && row.told > 0);
        if rows.is_empty() {
            return Err(CommandError::NoCondition { group: group.cloned(), kind });
        }
        let now = self.clock.now();
        let mut audit = Vec::new();
        for row in &mut rows {
            (row.acknowledged_at, row.acknowledged_by) = (Some(now), Some(by.to_owned()));
            let again = matches!(kind.telling(), Telling::Repeated | Telling::Daily);
            row.tell_at = again.then(|| now + LONGEST_ACKNOWLEDGED);
            let subject = match &row.subject {
                Subject::Project(group) => format!("project/{group}"),
                other => other.to_string(),
            };
            audit.push(NewAudit {
                actor: by.to_owned(),
                action: "condition.acknowledged".to_owned(),
                subject,
                detail: json!({ "kind": kind, "since": row.since, "comment": comment }).to_string(),
            });
        }
        Ok(self.store.tell(rows, Vec::new(), audit, now).await?)
    }
}
