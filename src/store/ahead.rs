//! Messages whose next attempt a clock has set that was ahead: they are due now. Those of a silenced project wait.

use super::lanes::Lane;
use super::{Sql, Store, StoreError, each, read};
use crate::domain::time::Timestamp;
use std::time::Duration;

/// No urgent mail waits longer for its next attempt.
const URGENT: Duration = Duration::from_mins(10);

/// No message waits longer: a target's `Retry-After` is honoured for a day.
const LONGEST: Duration = Duration::from_hours(24);

macro_rules! ahead {
    () => {
        "WHERE state = 'waiting' AND recipient <> 'nobody' AND (next_try_at > $2 \
         OR (next_try_at > $1 AND channel = 'mail' AND urgency = 0 \
         AND NOT EXISTS (SELECT 1 FROM silences s WHERE s.group_id = outbox.group_id AND s.ends_at >= outbox.next_try_at)))"
    };
}
const COUNT: Sql = Sql::same(concat!("SELECT COUNT(*) FROM outbox ", ahead!()));
const DUE: Sql = Sql::same(concat!("UPDATE outbox SET next_try_at = $3, lease = NULL ", ahead!()));

pub(super) const STATEMENTS: &[&Sql] = &[&COUNT, &DUE];

impl Store {
    /// Makes messages due whose next attempt lies further ahead than any wait; returns whether there were any.
    ///
    /// # Errors
    /// Fails when the database cannot be read or written.
    pub async fn recall_messages(&self, now: Timestamp) -> Result<bool, StoreError> {
        let (urgent, longest) = (now + URGENT, now + LONGEST);
        let (count,): (i64,) = read!(self, COUNT, |pool, text| sqlx::query_as(text)
            .bind(urgent)
            .bind(longest)
            .fetch_one(pool)
            .await)?;
        if count == 0 {
            return Ok(false);
        }
        self.transact("outbox.recall", Lane::Rest, (), move |tx, (), _| {
            Box::pin(async move {
                each!(tx, DUE, |conn, text| sqlx::query(text)
                    .bind(urgent)
                    .bind(longest)
                    .bind(now)
                    .execute(conn)
                    .await
                    .map(drop))?;
                Ok(true)
            })
        })
        .await
    }
}
