//! Which reminders were given: one row for each project, cycle, threshold and recipient, for good.
//!
//! A cycle is a key's time in service; it begins anew with `keySince`. What to remind of is decided
//! elsewhere; here a decision is written together with its mails, or not at all.

use super::{NewOutbox, Sql, Store, StoreError, Tx, each, read};
use crate::domain::ids::GroupId;
use crate::domain::project::Project;
use crate::domain::time::Timestamp;

const GIVEN: Sql = Sql::same("SELECT threshold, recipient FROM reminders WHERE group_id = $1 AND cycle = $2");
const GIVE: Sql = Sql::same(
    "INSERT INTO reminders (group_id, cycle, threshold, recipient, at, outcome) VALUES ($1, $2, $3, $4, $5, $6) \
     ON CONFLICT DO NOTHING",
);
// Somebody who changed the project meanwhile has set this anew, and it is looked at again.
const NEXT: Sql = Sql {
    sqlite: "UPDATE projects SET next_reminder_at = $3 WHERE group_id = $1 AND next_reminder_at IS $2",
    postgres: "UPDATE projects SET next_reminder_at = $3 WHERE group_id = $1 AND next_reminder_at IS NOT DISTINCT FROM $2",
};
const ALL: Sql = Sql::same("UPDATE projects SET next_reminder_at = $1");

pub(super) const STATEMENTS: &[&Sql] = &[&GIVEN, &GIVE, &NEXT, &ALL];

/// A reminder to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reminder {
    /// The project.
    pub group_id: GroupId,
    /// The cycle: since when the key serves.
    pub cycle: String,
    /// Days from the due date.
    pub threshold: i32,
    /// To whom.
    pub recipient: String,
    /// False when a later threshold was over already, so that this one is no longer worth a mail.
    pub mailed: bool,
}

impl Store {
    /// The thresholds and recipients that are done in a cycle.
    ///
    /// # Errors
    /// What the database answered.
    pub async fn reminders(&self, group: &GroupId, cycle: &str) -> Result<Vec<(i32, String)>, StoreError> {
        let rows: Vec<(i64, String)> = read!(self, GIVEN, |pool, text| sqlx::query_as(text)
            .bind(group.as_str())
            .bind(cycle)
            .fetch_all(pool)
            .await)?;
        Ok(rows.into_iter().filter_map(|(days, who)| Some((i32::try_from(days).ok()?, who))).collect())
    }

    /// Records reminders, writes their mails, and says when each project is looked at next.
    ///
    /// # Errors
    /// [`StoreError::Conflict`], and nothing is written, when one of the projects was changed since it
    /// was read.
    pub async fn remind(
        &self,
        reminders: &[Reminder],
        mails: &[NewOutbox],
        next: &[(Project, Option<Timestamp>)],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for (project, at) in next {
            let done = each!(&mut tx, NEXT, |conn, text| sqlx::query(text)
                .bind(project.group_id.as_str())
                .bind(project.next_reminder_at)
                .bind(at)
                .execute(conn)
                .await
                .map(|done| done.rows_affected()))?;
            if done == 0 {
                return Err(StoreError::Conflict);
            }
        }
        for it in reminders {
            tx.write_reminder(it, now).await?;
        }
        tx.write_outbox(mails, now).await?;
        tx.commit().await
    }

    /// Has every project's reminders looked at again: the defaults may be others than before.
    ///
    /// # Errors
    /// What the database answered.
    pub async fn look_at_all_reminders(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        each!(&mut tx, ALL, |conn, text| sqlx::query(text).bind(now).execute(conn).await.map(|_| ()))?;
        tx.commit().await
    }
}

impl Tx {
    async fn write_reminder(&mut self, it: &Reminder, now: Timestamp) -> Result<(), StoreError> {
        each!(self, GIVE, |conn, text| sqlx::query(text)
            .bind(it.group_id.as_str())
            .bind(it.cycle.as_str())
            .bind(i64::from(it.threshold))
            .bind(it.recipient.as_str())
            .bind(now)
            .bind(if it.mailed { "mailed" } else { "passed_over" })
            .execute(conn)
            .await
            .map(|_| ()))?;
        Ok(())
    }
}
