//! Deletes records that are no longer needed: old messages, handled events, and, of rotations that ended
//! long ago, unchanged observations and replay data. Transitions, decisions of people, and the audit log
//! stay for good.

use super::lanes::Lane;
use super::{Sql, Store, StoreError, each};
use crate::domain::time::Timestamp;

/// Rows in one transaction, so that no other write waits behind a large deletion.
const BATCH: i64 = 1000;

/// The greatest number of rounds in one run; the rest is left to the next day.
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

const CONDITIONS: Sql = Sql::same(
    "DELETE FROM conditions WHERE (subject, kind, since) IN (SELECT subject, kind, since FROM conditions \
     WHERE ended_at < $1 LIMIT $2)",
);

pub(super) const STATEMENTS: &[&Sql] = &[&MAILS, &EVENTS, &LOOKS, &REPLAYS, &CONDITIONS];

/// Records from before each of these instants may be deleted.
#[derive(Clone, Copy, Debug)]
pub struct Horizon {
    /// Messages that were sent, failed, or have no recipient, and conditions that ended.
    pub mails: Timestamp,
    /// Events that were handled.
    pub events: Timestamp,
    /// Observations that changed nothing, of rotations that ended before.
    pub looks: Timestamp,
    /// Replay data of the steps of rotations that ended before.
    pub replays: Timestamp,
}

impl Store {
    /// Deletes old records and replay data; returns the number of rows.
    ///
    /// # Errors
    /// Fails when the database cannot be written; the deletions of earlier rounds stay.
    pub async fn forget(&self, horizon: Horizon) -> Result<u64, StoreError> {
        let mut gone = 0;
        for (sql, before) in [
            (MAILS, horizon.mails),
            (EVENTS, horizon.events),
            (LOOKS, horizon.looks),
            (REPLAYS, horizon.replays),
            (CONDITIONS, horizon.mails),
        ] {
            for _ in 0..ROUNDS {
                // A repetition after a lost answer counts only the rows that are left.
                let rows = self.transact("retention.forget", Lane::Rest, (), move |tx, (), _| {
                    Box::pin(async move {
                        tx.write_later().await?;
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
