//! The daemons that run on this database, their settings, and the database's clock.
//!
//! A daemon's row is its presence: refreshed while it runs, deleted when it stops, and ignored once it is
//! old. The caller decides about differing settings.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::FromRow;
use uuid::Uuid;

use super::lanes::Lane;
use super::types::json;
use super::{Sql, Store, StoreError, Tx, each, read, urgent};
use crate::domain::subject::Subject;
use crate::domain::time::Timestamp;

/// A daemon whose row was not refreshed for this long is gone. This is many times the refresh interval,
/// and more than the tolerated clock skew.
pub const GONE_AFTER: Duration = Duration::from_mins(3);

const OTHERS: Sql = Sql::same(
    "SELECT name, settings, seen_at FROM daemons WHERE id <> $1 AND seen_at > $2 ORDER BY seen_at DESC",
);
const ALIVE: Sql = Sql::same("SELECT COUNT(*) FROM daemons WHERE subject = $1 AND seen_at > $2");
const FORGET: Sql = Sql::same("DELETE FROM daemons WHERE seen_at <= $1");
const SEEN: Sql = Sql::same(
    "INSERT INTO daemons (id, name, settings, started_at, seen_at, subject) VALUES ($1, $2, $3, $4, $4, $5) \
     ON CONFLICT (id) DO UPDATE SET seen_at = $4",
);
const LIVING: Sql = Sql::same("SELECT id FROM daemons WHERE seen_at > $1 ORDER BY id");
const LEAVE: Sql = Sql::same("DELETE FROM daemons WHERE id = $1");
const TIME: Sql = Sql { sqlite: "SELECT NULL", postgres: "SELECT clock_timestamp()" };

pub(super) const STATEMENTS: &[&Sql] = &[&ALIVE, &OTHERS, &FORGET, &SEEN, &LIVING, &LEAVE, &TIME];

/// A daemon as it announces itself.
#[derive(Clone, Debug)]
pub struct Presence {
    /// Made at its start.
    pub id: Uuid,
    /// Host and process, for people.
    pub name: String,
    /// Its subject in conditions, the same after a restart.
    pub subject: Subject,
    /// Settings that all daemons should share, by path; no secret among them.
    pub settings: BTreeMap<String, String>,
}

/// Another daemon on the same database.
#[derive(Clone, Debug)]
pub struct Other {
    /// Host and process.
    pub name: String,
    /// Its settings.
    pub settings: BTreeMap<String, String>,
    /// The last refresh of its row.
    pub seen_at: Timestamp,
}

#[derive(FromRow)]
struct DaemonRow {
    name: String,
    settings: String,
    seen_at: Timestamp,
}

impl Store {
    /// Announces `it`, unless `welcome` refuses it beside the daemons that run already; the inner error
    /// is that refusal. On SQLite the lock file guarantees that no other daemon runs.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn join<R: Send + 'static>(
        &self,
        it: &Presence,
        now: Timestamp,
        welcome: impl Fn(&Presence, &[Other]) -> Result<(), R> + Send + Sync + 'static,
    ) -> Result<Result<(), R>, StoreError> {
        // On SQLite every announced daemon is gone, whatever instant its row holds.
        let gone = if self.is_shared() { now - GONE_AFTER } else { now + Duration::from_hours(1_000_000) };
        self.transact("daemon.join", Lane::Rest, (it.clone(), welcome), move |tx, (it, welcome), _| {
            Box::pin(async move {
                let others = tx.others(it, gone).await?;
                match welcome(it, &others) {
                    Ok(()) => tx.write_presence(it, now).await.map(Ok),
                    refused => Ok(refused),
                }
            })
        })
        .await
    }

    /// Whether the daemon with this subject runs. On SQLite no daemon runs but the one that asks.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn is_alive(&self, subject: &Subject, now: Timestamp) -> Result<bool, StoreError> {
        let (count,): (i64,) = urgent!(self, ALIVE, |pool, text| sqlx::query_as(text)
            .bind(subject.to_string())
            .bind(now - GONE_AFTER)
            .fetch_one(pool)
            .await)?;
        Ok(self.is_shared() && count > 0)
    }

    /// Refreshes the presence of `it`.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn stay(&self, it: &Presence, now: Timestamp) -> Result<(), StoreError> {
        self.transact("daemon.stay", Lane::Rest, it.clone(), move |tx, it, _| {
            Box::pin(tx.write_presence(it, now))
        })
        .await
    }

    /// The daemons whose rows were refreshed after `since`; none on SQLite, where no other one runs.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn living(&self, since: Timestamp) -> Result<Vec<Uuid>, StoreError> {
        if !self.is_shared() {
            return Ok(Vec::new());
        }
        let rows: Vec<(Uuid,)> =
            read!(self, LIVING, |pool, text| sqlx::query_as(text).bind(since).fetch_all(pool).await)?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }

    /// Deletes the presence of `it`.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn leave(&self, it: &Presence) -> Result<(), StoreError> {
        self.transact("daemon.leave", Lane::Rest, it.id, |tx, id, _| {
            Box::pin(async move {
                each!(tx, LEAVE, |conn, text| sqlx::query(text).bind(*id).execute(conn).await.map(drop))?;
                Ok(())
            })
        })
        .await
    }

    /// The database's time; `None` on SQLite, which has no clock of its own.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn server_time(&self) -> Result<Option<Timestamp>, StoreError> {
        let (at,): (Option<Timestamp>,) =
            read!(self, TIME, |pool, text| sqlx::query_as(text).fetch_one(pool).await)?;
        Ok(at)
    }
}

impl Tx {
    /// The other daemons; none joins until the transaction ends. Rows of daemons that are gone are
    /// deleted.
    async fn others(&mut self, it: &Presence, gone: Timestamp) -> Result<Vec<Other>, StoreError> {
        self.take_turn("daemons").await?;
        each!(self, FORGET, |conn, text| sqlx::query(text).bind(gone).execute(conn).await.map(drop))?;
        let rows: Vec<DaemonRow> = each!(self, OTHERS, |conn, text| sqlx::query_as(text)
            .bind(it.id)
            .bind(gone)
            .fetch_all(conn)
            .await)?;
        let other = |row: DaemonRow| {
            Ok(Other {
                settings: serde_json::from_str(&row.settings)
                    .map_err(|_| StoreError::corrupt("daemons", "settings", &row.name))?,
                name: row.name,
                seen_at: row.seen_at,
            })
        };
        rows.into_iter().map(other).collect()
    }

    async fn write_presence(&mut self, it: &Presence, now: Timestamp) -> Result<(), StoreError> {
        let settings = json("daemons", "settings", &it.name, &it.settings)?;
        each!(self, SEEN, |conn, text| sqlx::query(text)
            .bind(it.id)
            .bind(it.name.as_str())
            .bind(settings)
            .bind(now)
            .bind(it.subject.to_string())
            .execute(conn)
            .await
            .map(|_| ()))?;
        Ok(())
    }
}
