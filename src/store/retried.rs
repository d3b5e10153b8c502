//! Messages that were given up and that somebody sends again or dismisses.

use super::lanes::Lane;
use super::{NewAudit, Sql, Store, StoreError, Tx, each};
use crate::domain::ids::OutboxId;
use crate::domain::time::Timestamp;

const RETRY: Sql = Sql::same(
    "UPDATE outbox SET state = 'waiting', attempts = 0, next_try_at = $2, retried_at = $2 WHERE id = $1 \
     AND lease IS NULL AND recipient <> 'nobody' AND state IN ('failed', 'waiting')",
);
const RETRY_FAILED: Sql = Sql::same(
    "UPDATE outbox SET state = 'waiting', attempts = 0, next_try_at = $1, retried_at = $1 WHERE state = 'failed' \
     AND lease IS NULL AND recipient <> 'nobody'",
);
const DISMISS: Sql = Sql {
    sqlite: "UPDATE outbox SET state = 'sent', next_try_at = $2, last_reply = $3 || COALESCE(last_reply, '') WHERE id = $1 \
             AND state = 'failed'",
    postgres: "UPDATE outbox SET state = 'sent', next_try_at = $2, last_reply = $3::text || COALESCE(last_reply, '') \
               WHERE id = $1 AND state = 'failed'",
};
const DISMISS_FAILED: Sql = Sql {
    sqlite: "UPDATE outbox SET state = 'sent', next_try_at = $1, last_reply = $2 || COALESCE(last_reply, '') \
             WHERE state = 'failed'",
    postgres: "UPDATE outbox SET state = 'sent', next_try_at = $1, last_reply = $2::text || COALESCE(last_reply, '') \
               WHERE state = 'failed'",
};

pub(super) const STATEMENTS: &[&Sql] = &[&RETRY, &RETRY_FAILED, &DISMISS, &DISMISS_FAILED];

/// What becomes of messages.
#[derive(Clone, Debug)]
pub enum Settled {
    /// They are tried again at once, and then as new ones are.
    Retried,
    /// Nobody needs them any more; these words stand before their last reply.
    Dismissed(String),
}

impl Store {
    /// Settles one message, or all that failed; returns how many, and writes `audit` for them.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn settle_messages(
        &self,
        id: Option<OutboxId>,
        end: Settled,
        audit: NewAudit,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        self.transact("outbox.settle", Lane::Command, (end, audit), move |tx, (end, audit), unsure| {
            Box::pin(async move {
                if unsure && tx.is_appended(std::slice::from_ref(audit), now).await? {
                    return Ok(1);
                }
                let count = tx.settle(id, end, now).await?;
                if count > 0 {
                    tx.append_audit(std::slice::from_ref(audit), now).await?;
                }
                Ok(count)
            })
        })
        .await
    }
}

impl Tx {
    async fn settle(
        &mut self,
        id: Option<OutboxId>,
        end: &Settled,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        Ok(match (id, end) {
            (Some(id), Settled::Retried) => each!(self, RETRY, |conn, text| sqlx::query(text)
                .bind(id.0)
                .bind(now)
                .execute(conn)
                .await
                .map(|done| done.rows_affected()))?,
            (None, Settled::Retried) => each!(self, RETRY_FAILED, |conn, text| sqlx::query(text)
                .bind(now)
                .execute(conn)
                .await
                .map(|done| done.rows_affected()))?,
            (Some(id), Settled::Dismissed(words)) => each!(self, DISMISS, |conn, text| sqlx::query(text)
                .bind(id.0)
                .bind(now)
                .bind(words.as_str())
                .execute(conn)
                .await
                .map(|done| done.rows_affected()))?,
            (None, Settled::Dismissed(words)) => each!(self, DISMISS_FAILED, |conn, text| sqlx::query(text)
                .bind(now)
                .bind(words.as_str())
                .execute(conn)
                .await
                .map(|done| done.rows_affected()))?,
        })
    }
}
