//! Received events: written in groups, each once, and kept with their outcomes.
//!
//! An event waits (`next_try_at`) until it is handled. A claim is a postponement, so that the events of a
//! daemon that died become due again. Nothing here interprets an event.

use std::collections::HashSet;

use sha2::{Digest, Sha256};
use sqlx::FromRow;
use uuid::Uuid;

use super::lanes::Lane;
use super::types::{json, storable};
use super::{Sql, Store, StoreError, Tx, built, each, read};
use crate::domain::hint::Hint;
use crate::domain::ids::EventId;
use crate::domain::time::Timestamp;

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
const HANDLED: &str = "UPDATE inbox SET next_try_at = NULL, handled_at = ";
const PUT_OFF: &str = "UPDATE inbox SET next_try_at = ";
const UNTRIED: &str = "UPDATE inbox SET attempts = attempts - 1, next_try_at = ";
const NEXT: Sql = Sql::same("SELECT MIN(next_try_at) FROM inbox WHERE next_try_at IS NOT NULL");
const OUTCOME: Sql =
    Sql::same("SELECT kind, received_at, handled_at, outcome FROM inbox WHERE source = $1 AND event_id = $2");

pub(super) const STATEMENTS: &[&Sql] = &[&CLAIM, &NEXT, &OUTCOME];

/// Events written by one statement.
const AT_ONCE: usize = 64;

/// Events settled in one transaction: an event that arrives waits for its end.
const SHARE: usize = 128;

/// A longer id of a sender is kept as its SHA-256.
const LONGEST_ID: usize = 512;

/// The beginning of an id that is kept as its hash.
const HASHED: &str = "sha256:";

/// An event to write.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The hook it came by.
    pub source: String,
    /// The sender's id of it, by which a repetition is recognised.
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
    /// Fails when the hint cannot be encoded.
    pub fn new(source: &str, event_id: &str, hint: &Hint) -> Result<Self, StoreError> {
        let body = json("inbox", "body", format_args!("{source}/{event_id}"), hint)?;
        // An index takes no value of unlimited length, and one sender's long id must not fail the write
        // of the group.
        // An id that only looks like such a hash is hashed too, so that no two ids become one.
        let event_id = if event_id.len() > LONGEST_ID || event_id.starts_with(HASHED) {
            format!("{HASHED}{}", hex::encode(Sha256::digest(event_id)))
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
    /// The hint.
    pub hint: Hint,
    /// When it came.
    pub received_at: Timestamp,
    /// How often it was tried, this time included.
    pub attempts: i64,
}

/// The outcome of an event.
#[derive(Clone, Debug, FromRow)]
pub struct EventOutcome {
    /// The sender's name of it.
    pub kind: String,
    /// When it came.
    pub received_at: Timestamp,
    /// When it was handled.
    pub handled_at: Option<Timestamp>,
    /// The result, or the reason of the last postponement.
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
    /// Writes events in one transaction, and returns for each whether it is new.
    ///
    /// # Errors
    /// Fails when the database cannot be written, for all events together.
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

    /// Claims up to `limit` due events; unless handled, they are due again at `until`.
    ///
    /// # Errors
    /// Fails when the database cannot be written. A row that cannot be read is settled with that as its
    /// outcome.
    pub async fn claim_events(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<ClaimedEvent>, StoreError> {
        // Events that an unanswered attempt has claimed become due again by themselves.
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
                // The row is kept, and it does not block the others.
                Err(error) => {
                    tracing::error!(event.id = %id, "an event in the inbox cannot be read: {error}");
                    self.events_handled(&[id], &format!("the stored event cannot be read: {error}"), now)
                        .await?;
                }
            }
        }
        Ok(events)
    }

    /// Settles events, all with the same outcome.
    ///
    /// # Errors
    /// Fails when the database cannot be written; events that were not settled become due again.
    pub async fn events_handled(
        &self,
        ids: &[EventId],
        outcome: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.settle(HANDLED, ids, now, outcome).await
    }

    /// Defers events to `until`, with the reason.
    ///
    /// # Errors
    /// Fails when the database cannot be written; events that were not deferred wait for the end of their
    /// claim.
    pub async fn events_put_off(
        &self,
        ids: &[EventId],
        why: &str,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.settle(PUT_OFF, ids, until, why).await
    }

    /// The same for events that were not tried: their attempt does not count.
    ///
    /// # Errors
    /// As [`Store::events_put_off`].
    pub async fn events_untried(
        &self,
        ids: &[EventId],
        why: &str,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.settle(UNTRIED, ids, until, why).await
    }

    async fn settle(
        &self,
        sql: &'static str,
        ids: &[EventId],
        at: Timestamp,
        words: &str,
    ) -> Result<(), StoreError> {
        let words = storable(words);
        for share in ids.chunks(SHARE) {
            let args = (share.to_vec(), words.clone().into_owned());
            self.transact("inbox.settle", Lane::Rest, args, move |tx, (ids, words), _| {
                Box::pin(async move {
                    built!(tx, |conn, query| {
                        query.push(sql).push_bind(at).push(", outcome = ").push_bind(words);
                        query.push(" WHERE handled_at IS NULL AND id IN (");
                        let mut list = query.separated(", ");
                        for id in ids {
                            list.push_bind(id.0);
                        }
                        query.push(")");
                        query.build().persistent(ids.len() == SHARE).execute(conn).await.map(drop)
                    })?;
                    Ok(())
                })
            })
            .await?;
        }
        Ok(())
    }

    /// When the next event is due.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn next_event(&self) -> Result<Option<Timestamp>, StoreError> {
        let (at,): (Option<Timestamp>,) =
            read!(self, NEXT, |pool, text| sqlx::query_as(text).fetch_one(pool).await)?;
        Ok(at)
    }

    /// The outcome of an event.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
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
        for events in events.chunks(AT_ONCE) {
            let ids: Vec<_> = events.iter().map(|_| EventId::new().0).collect();
            let written: Vec<(Uuid,)> = built!(self, |conn, query| {
                query.push("INSERT INTO inbox (id, source, event_id, kind, body, received_at, next_try_at) ");
                query.push_values(ids.iter().zip(events), |mut values, (id, event)| {
                    values.push_bind(id).push_bind(&event.source).push_bind(storable(&event.event_id));
                    values.push_bind(storable(&event.kind)).push_bind(storable(&event.body));
                    values.push_bind(now).push_bind(now);
                });
                query.push(" ON CONFLICT (source, event_id) DO NOTHING RETURNING id");
                // Other numbers of rows would crowd the cache of statements.
                query.build_query_as().persistent(ids.len() == AT_ONCE).fetch_all(conn).await
            })?;
            let written: HashSet<_> = written.into_iter().map(|(id,)| id).collect();
            // After a commit whose answer was lost, an existing row may be this call's own, so it counts
            // as new.
            new.extend(ids.iter().map(|id| unsure || written.contains(id)));
        }
        Ok(new)
    }
}
