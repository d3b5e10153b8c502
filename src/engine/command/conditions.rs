//! Acknowledgements of conditions.

use serde_json::json;

use super::{CommandError, TRIES, check_words};
use crate::domain::condition::{ConditionKind, LONGEST_ACKNOWLEDGED, Telling};
use crate::domain::ids::GroupId;
use crate::engine::Engine;
use crate::store::{NewAudit, StoreError};

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
            let rows = self.store.conditions_of(group, group).await?;
            let Some(mut row) = rows.into_iter().find(|row| row.kind == kind && row.told > 0) else {
                return Err(CommandError::NoCondition { group: group.clone(), kind });
            };
            let now = self.clock.now();
            (row.acknowledged_at, row.acknowledged_by) = (Some(now), Some(by.to_owned()));
            row.tell_at = (kind.telling() == Telling::Repeated).then(|| now + LONGEST_ACKNOWLEDGED);
            let audit = NewAudit {
                actor: by.to_owned(),
                action: "condition.acknowledged".to_owned(),
                subject: format!("project/{group}"),
                detail: json!({ "kind": kind, "since": row.since, "comment": comment }).to_string(),
            };
            match self.store.tell(vec![row], Vec::new(), vec![audit], now).await {
                Err(StoreError::Conflict) => {}
                done => return Ok(done?),
            }
        }
        Err(StoreError::Conflict.into())
    }
}
