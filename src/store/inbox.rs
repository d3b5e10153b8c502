//! Events that were received: written many at a time, each once, and kept with what became of them.
//!
//! An event waits (`next_try_at`) until it was handled; a claim is a postponement, so that the events
//! of a daemon that died come up again. Nothing here reads what an event says.

use sha2::{Digest, Sha256};
use sqlx::FromRow;
use uuid::Uuid;

use super::lanes::Lane;
use super::types::{json, storable};
use super::{Sql, Store, StoreError, Tx, each, read};
use crate::domain::hint::Hint;
use crate::domain::ids::EventId;
use crate::domain::time::Timestamp;

const INSERT: Sql = Sql::same(
    "INSERT INTO inbox (id, source, event_id, kind, body, received_at, next_try_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT (source, event_id) DO NOTHING",
);
macro_rules! claim {
    ($lock:literal) => {
        concat!(
            "UPDATE inbox SET attempts = attempts + 1, next_try_at = $2 WHERE id IN (SELECT id FROM inbox \
             WHERE next_try_at <= $1 ORDER BY next_try_at, id LIMIT $3",
            $lock,
            ") RETURNING id, source, event_id, body, received_at, attempts"
        )
    };
}
const CLAIM: Sql = Sql { sqlite: claim!(""), postgres: claim!(" FOR UPDATE SKIP LOCKED") };
const HANDLED: Sql = Sql::same(
    "UPDATE inbox SET handled_at = $2, outcome = $3, next_try_at = NULL WHERE id = $1 AND handled_at IS NULL",
);
const PUT_OFF: Sql =
    Sql::same("UPDATE inbox SET next_try_at = $2, outcome = $3 WHERE id = $1 AND handled_at IS NULL");
const NEXT: Sql = Sql::same("SELECT MIN(next_try_at) FROM inbox WHERE next_try_at IS NOT NULL");
const OUTCOME: Sql =
    Sql::same("SELECT kind, received_at, handled_at, outcome FROM inbox WHERE source = $1 AND event_id = $2");

pub(super) const STATEMENTS: &[&Sql] = &[&INSERT, &CLAIM, &HANDLED, &PUT_OFF, &NEXT, &OUTCOME];

/// Events settled in one transaction: the next one that comes waits for its end.
const SHARE: usize = 128;

/// A longer id of a sender is kept as its SHA-256.
const LONGEST_ID: usize = 512;

/// An event to write.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The hook it came by.
    pub source: String,
    /// The sender's id of it, which makes a repetition one.
    pub event_id: String,
    /// The sender's name of it.
    pub kind: String,
    /// The hint, as JSON.
    pub body: String,
}

impl NewEvent {
    /// An event of the hook `source`.
    ///
    /// # Errors
    /// The hint has no form in which it could be stored.
    pub fn new(source: &str, event_id: &str, hint: &Hint) -> Result<Self, StoreError> {
        let body = json("inbox", "body", format_args!("{source}/{event_id}"), hint)?;
        // An index takes no endless value, and one sender's id must not spoil the others' write.
        let event_id = if event_id.len() > LONGEST_ID {
            hex::encode(Sha256::digest(event_id))
        } else {
            event_id.to_owned()
        };
        Ok(Self { source: source.to_owned(), event_id, kind: hint.kind.clone(), body })
    }
}

/// An event that this process may handle now.
#[derive(Clone, Debug)]
pub struct ClaimedEvent {
    /// Our id.
    pub id: EventId,
    /// The hook it came by.
    pub source: String,
    /// The sender's id of it.
    pub event_id: String,
    /// What it comes down to.
    pub hint: Hint,
    /// When it came.
    pub received_at: Timestamp,
    /// How often it was tried, this time included.
    pub attempts: i64,
}

/// What became of an event.
#[derive(Clone, Debug, FromRow)]
pub struct EventOutcome {
    /// The sender's name of it.
    pub kind: String,
    /// When it came.
    pub received_at: Timestamp,
    /// When it was handled.
    pub handled_at: Option<Timestamp>,
    /// What that came to, or what kept it the last time.
    pub outcome: Option<String>,
}

#[derive(FromRow)]
struct EventRow {
    id: Uuid,
    source: String,
    event_id: String,
    body: String,
    received_at: Timestamp,
    attempts: i64,
}

impl Store {
    /// Writes events in one transaction and says for each whether it is new.
    ///
    /// # Errors
    /// None of them is there then.
    pub async fn insert_events(
        &self,
        events: Vec<NewEvent>,
        now: Timestamp,
    ) -> Result<Vec<bool>, StoreError> {
        self.transact("inbox.insert", Lane::Intake, events, move |tx, events, unsure| {
            Box::pin(tx.insert_events(events, now, unsure))
        })
        .await
    }

    /// Takes up to `limit` events whose turn it is; they come up again at `until` unless handled.
    ///
    /// # Errors
    /// What the database answered. A row that does not read is ended with that as its outcome.
    pub async fn claim_events(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<ClaimedEvent>, StoreError> {
        // Events that an unanswered attempt has claimed come up again by themselves.
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = self
            .transact("inbox.claim", Lane::Rest, (), move |tx, (), _| {
                Box::pin(async move {
                    let rows: Vec<EventRow> = each!(tx, CLAIM, |conn, text| sqlx::query_as(text)
                        .bind(now)
                        .bind(until)
                        .bind(limit)
                        .fetch_all(conn)
                        .await)?;
                    Ok(rows)
                })
            })
            .await?;
        // RETURNING keeps no order.
        rows.sort_by_key(|row| (row.received_at, row.id));
        let mut events = Vec::with_capacity(rows.len());
        for row in rows {
            let id = EventId(row.id);
            match serde_json::from_str(&row.body) {
                Ok(hint) => events.push(ClaimedEvent {
                    id,
                    source: row.source,
                    event_id: row.event_id,
                    hint,
                    received_at: row.received_at,
                    attempts: row.attempts,
                }),
                // Kept as it is, and out of the way of the others.
                Err(error) => {
                    tracing::error!(event.id = %id, "an event in the inbox does not read: {error}");
                    self.events_handled(&[id], &format!("does not read: {error}"), now).await?;
                }
            }
        }
        Ok(events)
    }

    /// Ends events, all with the same outcome.
    ///
    /// # Errors
    /// What the database answered; then they come up again, or the rest of them.
    pub async fn events_handled(
        &self,
        ids: &[EventId],
        outcome: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.settle(HANDLED, ids, now, outcome).await
    }

    /// Has events wait until `until`, and says why.
    ///
    /// # Errors
    /// What the database answered; then they wait as long as their claim does, or the rest of them.
    pub async fn events_put_off(
        &self,
        ids: &[EventId],
        why: &str,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.settle(PUT_OFF, ids, until, why).await
    }

    async fn settle(&self, sql: Sql, ids: &[EventId], at: Timestamp, words: &str) -> Result<(), StoreError> {
        let words = storable(words);
        for share in ids.chunks(SHARE) {
            let args = (share.to_vec(), words.clone().into_owned());
            self.transact("inbox.settle", Lane::Rest, args, move |tx, (ids, words), _| {
                Box::pin(async move {
                    for id in ids {
                        each!(tx, sql, |conn, text| sqlx::query(text)
                            .bind(id.0)
                            .bind(at)
                            .bind(words.as_str())
                            .execute(conn)
                            .await
                            .map(drop))?;
                    }
                    Ok(())
                })
            })
            .await?;
        }
        Ok(())
    }

    /// When the next event is to be looked at.
    ///
    /// # Errors
    /// What the database answered.
    pub async fn next_event(&self) -> Result<Option<Timestamp>, StoreError> {
        let (at,): (Option<Timestamp>,) =
            read!(self, NEXT, |pool, text| sqlx::query_as(text).fetch_one(pool).await)?;
        Ok(at)
    }

    /// What became of an event.
    ///
    /// # Errors
    /// What the database answered.
    pub async fn event_outcome(
        &self,
        source: &str,
        event_id: &str,
    ) -> Result<Option<EventOutcome>, StoreError> {
        Ok(read!(self, OUTCOME, |pool, text| sqlx::query_as(text)
            .bind(source)
            .bind(event_id)
            .fetch_optional(pool)
            .await)?)
    }
}

impl Tx {
    async fn insert_events(
        &mut self,
        events: &[NewEvent],
        now: Timestamp,
        unsure: bool,
    ) -> Result<Vec<bool>, StoreError> {
        let mut new = Vec::with_capacity(events.len());
        for event in events {
            let rows = each!(self, INSERT, |conn, text| sqlx::query(text)
                .bind(EventId::new().0)
                .bind(&event.source)
                .bind(storable(&event.event_id))
                .bind(storable(&event.kind))
                .bind(storable(&event.body))
                .bind(now)
                .execute(conn)
                .await
                .map(|done| done.rows_affected()))?;
            // After a commit whose answer was lost, an own row is nobody's duplicate.
            new.push(rows == 1 || unsure);
        }
        Ok(new)
    }
}
