//! Forgets what nobody needs any more: old mails, handled events, and of rotations that ended long ago
//! the looks and what their steps were decided from. What moved a rotation, who said what, and the audit log stay for good.

use super::lanes::Lane;
use super::{Sql, Store, StoreError, each};
use crate::domain::time::Timestamp;

/// Rows in one transaction, so that nobody waits behind a spring cleaning.
const BATCH: i64 = 1000;

/// More rounds than this at once belong to the next day.
const ROUNDS: usize = 200;

const MAILS: Sql = Sql::same(
    "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE (state <> 'waiting' OR recipient = 'nobody') \
     AND created_at < $1 LIMIT $2)",
);
const EVENTS: Sql =
    Sql::same("DELETE FROM inbox WHERE id IN (SELECT id FROM inbox WHERE handled_at < $1 LIMIT $2)");
const LOOKS: Sql = Sql::same(
    "DELETE FROM journal WHERE (rotation_id, seq) IN (SELECT j.rotation_id, j.seq FROM journal j \
     JOIN rotations r ON r.id = j.rotation_id WHERE r.finished_at < $1 AND j.kind IN ('look', 'blind') \
     AND j.from_state = j.to_state LIMIT $2)",
);

const REPLAYS: Sql = Sql::same(
    "UPDATE journal SET replay = NULL WHERE (rotation_id, seq) IN (SELECT j.rotation_id, j.seq FROM journal j \
     JOIN rotations r ON r.id = j.rotation_id WHERE r.finished_at < $1 AND j.replay IS NOT NULL LIMIT $2)",
);

pub(super) const STATEMENTS: &[&Sql] = &[&MAILS, &EVENTS, &LOOKS, &REPLAYS];

/// What lies before each of these instants may go.
#[derive(Clone, Copy, Debug)]
pub struct Horizon {
    /// Mails that were sent, failed, or could be sent to nobody.
    pub mails: Timestamp,
    /// Events that were handled.
    pub events: Timestamp,
    /// Looks that changed nothing, of rotations that ended before.
    pub looks: Timestamp,
    /// What the steps of rotations that ended before were decided from.
    pub replays: Timestamp,
}

impl Store {
    /// Forgets; says how many rows that were.
    ///
    /// # Errors
    /// What the database answered; what was forgotten before stays forgotten.
    pub async fn forget(&self, horizon: Horizon) -> Result<u64, StoreError> {
        let mut gone = 0;
        for (sql, before) in [
            (MAILS, horizon.mails),
            (EVENTS, horizon.events),
            (LOOKS, horizon.looks),
            (REPLAYS, horizon.replays),
        ] {
            for _ in 0..ROUNDS {
                // Repeated after a lost answer, it counts only what is left.
                let rows = self.transact("retention.forget", Lane::Rest, (), move |tx, (), _| {
                    Box::pin(async move {
                        let done = each!(tx, sql, |conn, text| sqlx::query(text)
                            .bind(before)
                            .bind(BATCH)
                            .execute(conn)
                            .await
                            .map(|done| done.rows_affected()))?;
                        Ok(done)
                    })
                });
                let rows = rows.await?;
                gone += rows;
                if rows < BATCH.unsigned_abs() {
                    break;
                }
            }
        }
        Ok(gone)
    }
}
