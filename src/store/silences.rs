//! Silences of projects, and the mails that they delay.

use sqlx::FromRow;

use super::lanes::Lane;
use super::{NewAudit, Sql, Store, StoreError, Tx, each, urgent};
use crate::domain::ids::GroupId;
use crate::domain::silence::Silence;
use crate::domain::time::Timestamp;

const OF: Sql = Sql::same("SELECT began_at, ends_at, silenced_by FROM silences WHERE group_id = $1");
const WRITE: Sql = Sql::same(
    "INSERT INTO silences (group_id, began_at, ends_at, silenced_by) SELECT $1, $2, $3, $4 \
     WHERE EXISTS (SELECT 1 FROM projects WHERE group_id = $1) \
     ON CONFLICT (group_id) DO UPDATE SET began_at = $2, ends_at = $3, silenced_by = $4",
);
// A mail that an attempt holds is left to it.
const RELEASE: Sql = Sql::same(
    "UPDATE outbox SET next_try_at = $2 WHERE group_id = $1 AND channel = 'mail' AND state = 'waiting' AND lease IS NULL \
     AND next_try_at > $2",
);
const FORGET: Sql = Sql::same("DELETE FROM silences WHERE group_id = $1");
const LATER: Sql = Sql::same(
    "SELECT COUNT(*) FROM outbox WHERE state = 'waiting' AND channel = 'mail' AND recipient = $1 AND kind = $2 \
     AND group_id = $3 AND id > $4",
);

pub(super) const STATEMENTS: &[&Sql] = &[&OF, &WRITE, &RELEASE, &FORGET, &LATER];

#[derive(FromRow)]
struct SilenceRow {
    began_at: Timestamp,
    ends_at: Timestamp,
    silenced_by: String,
}

impl Store {
    /// The last silence of a project.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn silence(&self, group: &GroupId) -> Result<Option<Silence>, StoreError> {
        let row: Option<SilenceRow> = urgent!(self, OF, |pool, text| sqlx::query_as(text)
            .bind(group.as_str())
            .fetch_optional(pool)
            .await)?;
        Ok(row.map(|row| Silence { began_at: row.began_at, ends_at: row.ends_at, by: row.silenced_by }))
    }

    /// Writes a silence of a project in the place of the one before. Its mails are due at its end at the latest.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn write_silence(
        &self,
        group: &GroupId,
        silence: &Silence,
        audit: NewAudit,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let args = (group.clone(), silence.clone(), [audit]);
        self.transact("silence.write", Lane::Command, args, move |tx, (group, silence, audit), unsure| {
            Box::pin(async move {
                if unsure && tx.is_appended(audit, now).await? {
                    return Ok(());
                }
                each!(tx, WRITE, |conn, text| sqlx::query(text)
                    .bind(group.as_str())
                    .bind(silence.began_at)
                    .bind(silence.ends_at)
                    .bind(silence.by.as_str())
                    .execute(conn)
                    .await
                    .map(drop))?;
                each!(tx, RELEASE, |conn, text| sqlx::query(text)
                    .bind(group.as_str())
                    .bind(silence.ends_at.max(now))
                    .execute(conn)
                    .await
                    .map(drop))?;
                tx.append_audit(audit, now).await
            })
        })
        .await
    }

    /// Whether a later mail of the same kind about the same project waits for the same recipient.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn has_later_mail(&self, mail: &super::OutboxRow) -> Result<bool, StoreError> {
        let (count,): (i64,) = urgent!(self, LATER, |pool, text| sqlx::query_as(text)
            .bind(mail.recipient.as_str())
            .bind(mail.kind.as_str())
            .bind(mail.subject.as_str())
            .bind(mail.id.0)
            .fetch_one(pool)
            .await)?;
        Ok(count > 0)
    }
}

impl Tx {
    pub(super) async fn forget_silence(&mut self, group: &GroupId) -> Result<(), StoreError> {
        each!(self, FORGET, |conn, text| sqlx::query(text)
            .bind(group.as_str())
            .execute(conn)
            .await
            .map(drop))?;
        Ok(())
    }
}
