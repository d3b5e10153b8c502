//! Findings in Atlas' event feed: changes of keys by other actors, and the witness events of our own
//! rotations.
//!
//! The transaction that ends a rotation with its new key in force also starts the search for its witness
//! event, for a day at most. Neither table takes part in any decision about a rotation.

use std::time::Duration;

use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use super::lanes::Lane;
use super::types::{json, storable};
use super::{NewAudit, NewJournal, NewOutbox, Sql, Store, StoreError, Tx, each, read};
use crate::domain::event::{KeyEvent, ProofState};
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::notice::Drifted;
use crate::domain::time::Timestamp;

/// Timeout of the search for a witness event.
const PATIENCE: Duration = Duration::from_secs(86_400);

const DRIFT: Sql = Sql::same(
    "INSERT INTO drifts (group_id, at, finding) VALUES ($1, $2, $3) ON CONFLICT (group_id, at) DO NOTHING",
);
const LAST_DRIFT: Sql = Sql::same("SELECT finding FROM drifts WHERE group_id = $1 ORDER BY at DESC LIMIT 1");
const AWAIT: Sql = Sql::same(
    "INSERT INTO proofs (rotation_id, state, next_look_at, until_at) VALUES ($1, 'awaited', $2, $3) \
     ON CONFLICT (rotation_id) DO NOTHING",
);
const DUE: Sql = Sql::same(
    "SELECT rotation_id, until_at FROM proofs WHERE next_look_at <= $1 ORDER BY next_look_at, rotation_id LIMIT $2",
);
pub(super) const PROOF: Sql =
    Sql::same("SELECT state, event, overwrote, last_error FROM proofs WHERE rotation_id = $1");
const LATER: Sql = Sql::same(
    "UPDATE proofs SET next_look_at = $2, last_error = $3 WHERE rotation_id = $1 AND state = 'awaited'",
);
const SETTLE: Sql = Sql::same(
    "UPDATE proofs SET state = $2, event = $3, overwrote = $4, last_error = $5, next_look_at = NULL \
     WHERE rotation_id = $1 AND state = 'awaited'",
);
// A journal has one writer at a time.
const LOCK: Sql = Sql {
    sqlite: "SELECT version FROM rotations WHERE id = $1",
    postgres: "SELECT version FROM rotations WHERE id = $1 FOR UPDATE",
};

pub(super) const STATEMENTS: &[&Sql] = &[&DRIFT, &LAST_DRIFT, &AWAIT, &DUE, &PROOF, &LATER, &SETTLE, &LOCK];

/// The search for the witness event of a rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessEvent {
    /// The state of the search.
    pub state: ProofState,
    /// The event.
    pub event: Option<KeyEvent>,
    /// Changes by other actors that our PATCH has undone.
    pub overwrote: Vec<KeyEvent>,
    /// The error of the last attempt to read the feed, when it failed.
    pub last_error: Option<String>,
}

/// A rotation whose search is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AwaitedWitness {
    /// The rotation.
    pub rotation: RotationId,
    /// When the search ends.
    pub until: Timestamp,
}

/// The end of a search, and the rows written with it.
#[derive(Clone, Debug)]
pub struct WitnessEnd {
    /// The finding.
    pub proof: WitnessEvent,
    /// Rows for the rotation's journal.
    pub journal: Vec<NewJournal>,
    /// Audit rows.
    pub audit: Vec<NewAudit>,
    /// Mails and webhooks.
    pub outbox: Vec<NewOutbox>,
}

#[derive(FromRow)]
pub(super) struct WitnessRow {
    state: String,
    event: Option<String>,
    overwrote: Option<String>,
    last_error: Option<String>,
}

impl WitnessRow {
    pub(super) fn event(self, id: RotationId) -> Result<WitnessEvent, StoreError> {
        let bad = |column| StoreError::corrupt("proofs", column, id);
        let event =
            self.event.map(|text| serde_json::from_str(&text).map_err(|_| bad("event"))).transpose()?;
        let overwrote = self.overwrote.map(|text| serde_json::from_str(&text).map_err(|_| bad("overwrote")));
        Ok(WitnessEvent {
            state: self.state.parse().map_err(|_| bad("state"))?,
            event,
            overwrote: overwrote.transpose()?.unwrap_or_default(),
            last_error: self.last_error,
        })
    }
}

impl Store {
    /// The finding about the last change of the project's key by another actor.
    ///
    /// # Errors
    /// Fails when the database or the stored finding cannot be read.
    pub async fn last_drift(&self, group: &GroupId) -> Result<Option<Drifted>, StoreError> {
        let row: Option<(String,)> = read!(self, LAST_DRIFT, |pool, text| sqlx::query_as(text)
            .bind(group.as_str())
            .fetch_optional(pool)
            .await)?;
        let bad = || StoreError::corrupt("drifts", "finding", group);
        row.map(|(text,)| serde_json::from_str(&text).map_err(|_| bad())).transpose()
    }

    /// The search for the witness event of a rotation; `None` when no search was started.
    ///
    /// # Errors
    /// Fails when the database or a stored value cannot be read.
    pub async fn proof(&self, id: RotationId) -> Result<Option<WitnessEvent>, StoreError> {
        let row: Option<WitnessRow> =
            read!(self, PROOF, |pool, text| sqlx::query_as(text).bind(id.0).fetch_optional(pool).await)?;
        row.map(|row| row.event(id)).transpose()
    }

    /// Rotations whose search is due.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn due_proofs(&self, now: Timestamp, limit: usize) -> Result<Vec<AwaitedWitness>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows: Vec<(Uuid, Timestamp)> =
            read!(self, DUE, |pool, text| sqlx::query_as(text).bind(now).bind(limit).fetch_all(pool).await)?;
        Ok(rows.into_iter().map(|(id, until)| AwaitedWitness { rotation: RotationId(id), until }).collect())
    }

    /// Defers a search to `at`; `error` is the reason why the feed could not be read, when it could not.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn await_proof(
        &self,
        id: RotationId,
        at: Timestamp,
        error: Option<&str>,
    ) -> Result<(), StoreError> {
        let error = error.map(|text| storable(text).into_owned());
        self.transact("witness.defer", Lane::Rest, error, move |tx, error, _| {
            Box::pin(async move {
                each!(tx, LATER, |conn, text| sqlx::query(text)
                    .bind(id.0)
                    .bind(at)
                    .bind(error.as_deref())
                    .execute(conn)
                    .await
                    .map(drop))?;
                Ok(())
            })
        })
        .await
    }

    /// Ends a search; true when this call ended it. Otherwise nothing is written.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn settle_proof(
        &self,
        id: RotationId,
        end: &WitnessEnd,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.transact("witness.settle", Lane::Rest, end.clone(), move |tx, end, unsure| {
            Box::pin(tx.settle_proof(id, end, now, unsure))
        })
        .await
    }
}

impl Tx {
    async fn settle_proof(
        &mut self,
        id: RotationId,
        end: &WitnessEnd,
        now: Timestamp,
        unsure: bool,
    ) -> Result<bool, StoreError> {
        let proof = &end.proof;
        let event = proof.event.as_ref().map(|event| json("proofs", "event", id, event)).transpose()?;
        let overwrote = (!proof.overwrote.is_empty())
            .then(|| json("proofs", "overwrote", id, &proof.overwrote))
            .transpose()?;
        each!(self, LOCK, |conn, text| sqlx::query(text).bind(id.0).fetch_optional(conn).await.map(|_| ()))?;
        let done = each!(self, SETTLE, |conn, sql| sqlx::query(sql)
            .bind(id.0)
            .bind(proof.state.as_str())
            .bind(event.as_deref())
            .bind(overwrote.as_deref())
            .bind(proof.last_error.as_deref().map(storable))
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))?;
        if done == 0 {
            return Ok(unsure && self.is_appended(&end.audit, now).await?);
        }
        for entry in &end.journal {
            self.write_journal(id, entry, now).await?;
        }
        self.write_outbox(&end.outbox, now).await?;
        self.append_audit(&end.audit, now).await?;
        Ok(true)
    }

    pub(super) async fn write_drift(
        &mut self,
        group: &GroupId,
        finding: &Drifted,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let finding = json!(finding).to_string();
        each!(self, DRIFT, |conn, text| sqlx::query(text)
            .bind(group.as_str())
            .bind(now)
            .bind(finding.as_str())
            .execute(conn)
            .await
            .map(|_| ()))?;
        Ok(())
    }

    /// Starts the search for the rotation's witness event.
    pub(super) async fn expect_witness(&mut self, id: RotationId, now: Timestamp) -> Result<(), StoreError> {
        each!(self, AWAIT, |conn, text| sqlx::query(text)
            .bind(id.0)
            .bind(now)
            .bind(now + PATIENCE)
            .execute(conn)
            .await
            .map(|_| ()))?;
        Ok(())
    }
}
