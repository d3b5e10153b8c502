//! The reminders given: one row for each project, cycle, threshold and recipient, kept for good.
//!
//! A cycle is a key's time in service; it begins anew with `keySince`. The decision to remind is made
//! elsewhere; here it is written together with its mails, or not at all.

use super::lanes::Lane;
use super::types::json;
use super::{NewAudit, NewOutbox, Sql, Store, StoreError, Tx, each, read};
use crate::domain::ids::GroupId;
use crate::domain::key::KeyRef;
use crate::domain::project::Project;
use crate::domain::silence::DueAck;
use crate::domain::time::Timestamp;

const GIVEN: Sql = Sql::same("SELECT threshold, recipient FROM reminders WHERE group_id = $1 AND cycle = $2");
const GIVEN_OF: Sql = Sql::same(
    "SELECT COUNT(*) FROM keys k JOIN reminders r ON r.group_id = k.group_id AND r.at >= k.since WHERE k.group_id = $1 \
     AND k.key = $2 AND k.until IS NOT NULL AND r.recipient = $3 AND r.outcome = 'mailed'",
);
const GIVE: Sql = Sql::same(
    "INSERT INTO reminders (group_id, cycle, threshold, recipient, at, outcome) VALUES ($1, $2, $3, $4, $5, $6) \
     ON CONFLICT DO NOTHING",
);
// A change of the project meanwhile has set this anew, and the project is checked again.
const NEXT: Sql = Sql {
    sqlite: "UPDATE projects SET next_reminder_at = $3 WHERE group_id = $1 AND next_reminder_at IS $2",
    postgres: "UPDATE projects SET next_reminder_at = $3 WHERE group_id = $1 AND next_reminder_at IS NOT DISTINCT FROM $2",
};
const NEXT_IS: Sql = Sql::same("SELECT next_reminder_at FROM projects WHERE group_id = $1");
const KEY_ENDS: Sql = Sql::same(
    "UPDATE projects SET key_ends_at = $2, key_ends_of = current_key, next_reminder_at = $3 WHERE group_id = $1 AND current_key = $4",
);
const ACK: Sql = Sql::same(
    "INSERT INTO due_acks (group_id, cycle, until, acknowledged_by) SELECT $1, $2, $3, $4 \
     WHERE EXISTS (SELECT 1 FROM projects WHERE group_id = $1) \
     ON CONFLICT (group_id) DO UPDATE SET cycle = $2, until = $3, acknowledged_by = $4",
);
const LOOK: Sql = Sql::same("UPDATE projects SET next_reminder_at = $2 WHERE group_id = $1");
const FORGET_ACK: Sql = Sql::same("DELETE FROM due_acks WHERE group_id = $1");
const ALL: Sql = Sql::same("UPDATE projects SET next_reminder_at = $1");

pub(super) const STATEMENTS: &[&Sql] =
    &[&GIVEN, &GIVEN_OF, &GIVE, &NEXT, &NEXT_IS, &KEY_ENDS, &ACK, &LOOK, &FORGET_ACK, &ALL];

/// A reminder to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reminder {
    /// The project.
    pub group_id: GroupId,
    /// The cycle: since when the key serves.
    pub cycle: String,
    /// Days from the due date.
    pub threshold: i32,
    /// The recipient.
    pub recipient: String,
    /// False when a later threshold had passed already, so that no mail was written for this one.
    pub mailed: bool,
}

impl Store {
    /// The thresholds and recipients that are done in a cycle.
    ///
    /// # Errors
    /// Fails when the database or a stored value cannot be read.
    pub async fn reminders(&self, group: &GroupId, cycle: &str) -> Result<Vec<(i32, String)>, StoreError> {
        let rows: Vec<(i64, String)> = read!(self, GIVEN, |pool, text| sqlx::query_as(text)
            .bind(group.as_str())
            .bind(cycle)
            .fetch_all(pool)
            .await)?;
        rows.into_iter()
            .map(|(days, who)| {
                let bad = |_| {
                    StoreError::corrupt(
                        "reminders",
                        "threshold",
                        format_args!("{group}/{cycle}/{days}/{who}"),
                    )
                };
                Ok((i32::try_from(days).map_err(bad)?, who))
            })
            .collect()
    }

    /// Whether a recipient was mailed a reminder of a key that does not serve any more.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn was_reminded_of(
        &self,
        group: &GroupId,
        key: &str,
        recipient: &str,
    ) -> Result<bool, StoreError> {
        let (count,): (i64,) = read!(self, GIVEN_OF, |pool, text| sqlx::query_as(text)
            .bind(group.as_str())
            .bind(key)
            .bind(recipient)
            .fetch_one(pool)
            .await)?;
        Ok(count > 0)
    }

    /// Records reminders, writes their mails, and sets when each project is checked next.
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
        let moves = next.iter().map(|(it, at)| (it.group_id.clone(), it.next_reminder_at, *at));
        let args = (reminders.to_vec(), mails.to_vec(), moves.collect::<Vec<_>>());
        self.transact("reminder.give", Lane::Rest, args, move |tx, (reminders, mails, moves), unsure| {
            Box::pin(async move {
                for (group, from, to) in moves {
                    if !tx.move_reminder(group, *from, *to, unsure).await? {
                        return Err(StoreError::Conflict);
                    }
                }
                for it in reminders {
                    tx.write_reminder(it, now).await?;
                }
                tx.write_outbox(mails, now).await
            })
        })
        .await
    }

    /// Writes an acknowledgement of a due date in the place of the one before, and has the reminders looked at again.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn acknowledge_due(
        &self,
        group: &GroupId,
        ack: &DueAck,
        audit: NewAudit,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let args = (group.clone(), ack.clone(), [audit]);
        self.transact("reminder.acknowledge", Lane::Command, args, move |tx, (group, ack, audit), unsure| {
            Box::pin(async move {
                if unsure && tx.is_appended(audit, now).await? {
                    return Ok(());
                }
                each!(tx, ACK, |conn, text| sqlx::query(text)
                    .bind(group.as_str())
                    .bind(ack.cycle.as_str())
                    .bind(ack.until)
                    .bind(ack.by.as_str())
                    .execute(conn)
                    .await
                    .map(drop))?;
                each!(tx, LOOK, |conn, text| sqlx::query(text)
                    .bind(group.as_str())
                    .bind(now)
                    .execute(conn)
                    .await
                    .map(drop))?;
                tx.append_audit(audit, now).await
            })
        })
        .await
    }

    /// Makes every project's reminders due for a check: the default policy may have changed.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn look_at_all_reminders(&self, now: Timestamp) -> Result<(), StoreError> {
        self.transact("reminder.all", Lane::Rest, (), move |tx, (), _| {
            Box::pin(async move {
                each!(tx, ALL, |conn, text| sqlx::query(text).bind(now).execute(conn).await.map(drop))?;
                Ok(())
            })
        })
        .await
    }

    /// Records when the key in force ends, as its key service said; nothing where another key is in force meanwhile.
    /// The project's reminders are looked at again.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn record_key_end(
        &self,
        group: &GroupId,
        key: &KeyRef,
        ends_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let key = json("projects", "current_key", group, key)?;
        let of = (group.clone(), key, ends_at);
        self.transact("project.key_ends", Lane::Rest, of, move |tx, (group, key, ends_at), _| {
            Box::pin(async move {
                each!(tx, KEY_ENDS, |conn, text| sqlx::query(text)
                    .bind(group.as_str())
                    .bind(*ends_at)
                    .bind(now)
                    .bind(key.as_str())
                    .execute(conn)
                    .await
                    .map(drop))?;
                Ok(())
            })
        })
        .await
    }
}

impl Tx {
    /// Moves a project's next reminder; returns whether it was at `from`, or was moved by an unanswered
    /// attempt.
    async fn move_reminder(
        &mut self,
        group: &GroupId,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
        unsure: bool,
    ) -> Result<bool, StoreError> {
        let done = each!(self, NEXT, |conn, text| sqlx::query(text)
            .bind(group.as_str())
            .bind(from)
            .bind(to)
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))?;
        if done > 0 || !unsure {
            return Ok(done > 0);
        }
        let found: Option<(Option<Timestamp>,)> = each!(self, NEXT_IS, |conn, text| sqlx::query_as(text)
            .bind(group.as_str())
            .fetch_optional(conn)
            .await)?;
        Ok(found == Some((to,)))
    }

    pub(super) async fn forget_due_ack(&mut self, group: &GroupId) -> Result<(), StoreError> {
        each!(self, FORGET_ACK, |conn, text| sqlx::query(text)
            .bind(group.as_str())
            .execute(conn)
            .await
            .map(drop))?;
        Ok(())
    }

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
