//! All SQL of the program, for SQLite and PostgreSQL, over the native drivers.
//!
//! One text per operation; where the dialects differ, a [`Sql`] holds both. Every write runs in a
//! transaction that [`Store::begin`] opened (`BEGIN IMMEDIATE` on SQLite), and is repeated as a
//! whole when the database could not be reached or gave it up (`retry.rs`). Times are bound from the
//! caller's clock, never taken in SQL, with one exception: lease time on PostgreSQL is database
//! time, because several daemons must agree on it. Secrets never come here.
//!
//! What claims and steps rotations has connections of its own (`write`), so that people's lists
//! (`read`), however slow, never keep it waiting. SQLite has one that writes; who waits for it waits for a
//! turn first, so that a sender whose event must be on disk before its answer is behind one of them at most.

mod audit;
mod daemons;
mod error;
mod feed;
mod inbox;
mod inspect;
mod look_ups;
mod open;
mod outbox;
mod people;
mod projects;
mod reminders;
mod retention;
mod retry;
mod rotations;
mod schema;
mod types;

pub use audit::{AuditBroken, AuditEntry, AuditMarks, AuditReport, BREAK_ACCEPTED, NewAudit};
pub use daemons::{GONE_AFTER, Other, Presence};
pub use error::StoreError;
pub use feed::{AwaitedProof, Proof, ProofEnd};
pub use inbox::{ClaimedEvent, EventOutcome, NewEvent};
pub use inspect::{TABLES, check_server_version};
pub use open::Access;
pub use outbox::{Channel, ClaimedMail, Lane, MailCount, MailEnd, NewOutbox, OutboxRow, WebhookCount};
pub use people::{Approval, NewApproval, OWN_APPROVAL, Token, Vote};
pub use projects::{Drift, KeyChange, KeySpan, ProjectFilter, ProjectWrite};
pub use reminders::Reminder;
pub use retention::Horizon;
pub use rotations::{JournalEntry, NewJournal, NewRotation, RotationRow, StepWrite};
pub use schema::known_version;

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{PgPool, Postgres, Sqlite, SqlitePool, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// One operation's text for both databases.
#[derive(Clone, Copy, Debug)]
pub struct Sql {
    /// For SQLite.
    pub sqlite: &'static str,
    /// For PostgreSQL.
    pub postgres: &'static str,
}

impl Sql {
    /// The normal case: one text for both.
    #[must_use]
    pub const fn same(text: &'static str) -> Self {
        Self { sqlite: text, postgres: text }
    }
}

/// Every statement, so that a test can prepare each on both databases.
#[must_use]
pub fn statements() -> Vec<&'static Sql> {
    [
        audit::STATEMENTS,
        daemons::STATEMENTS,
        inbox::STATEMENTS,
        feed::STATEMENTS,
        inspect::STATEMENTS,
        look_ups::STATEMENTS,
        outbox::STATEMENTS,
        people::STATEMENTS,
        projects::STATEMENTS,
        reminders::STATEMENTS,
        retention::STATEMENTS,
        rotations::STATEMENTS,
    ]
    .concat()
}

/// An open database. Clones share its connections.
#[derive(Clone, Debug)]
pub enum Store {
    /// One file, one daemon.
    Sqlite {
        /// The only connection that writes.
        write: SqlitePool,
        /// Connections that read.
        read: SqlitePool,
        /// Held while this daemon runs.
        lock: Option<Arc<File>>,
        /// Whose turn it is to ask for the connection that writes.
        turn: Arc<Mutex<()>>,
    },
    /// A server, any number of daemons.
    Postgres {
        /// Connections that write, and on which the state machine reads.
        write: PgPool,
        /// Connections that read, for people.
        read: PgPool,
    },
}

/// A transaction on either database; dropped without a commit, it is rolled back.
#[derive(Debug)]
pub enum Tx {
    /// On SQLite, with the turn that was waited for.
    Sqlite(Transaction<'static, Sqlite>, Option<OwnedMutexGuard<()>>),
    /// On PostgreSQL.
    Postgres(Transaction<'static, Postgres>),
}

/// Runs `$body` with a connection and the text for its database.
macro_rules! each {
    ($tx:expr, $sql:expr, |$conn:ident, $text:ident| $body:expr) => {
        match $tx {
            $crate::store::Tx::Sqlite(tx, _) => {
                let ($conn, $text) = (&mut **tx, $sql.sqlite);
                $body
            }
            $crate::store::Tx::Postgres(tx) => {
                let ($conn, $text) = (&mut **tx, $sql.postgres);
                $body
            }
        }
    };
}

/// The same for a read outside a transaction.
macro_rules! read {
    ($store:expr, $sql:expr, |$pool:ident, $text:ident| $body:expr) => {
        match $store {
            $crate::store::Store::Sqlite { read, .. } => {
                let ($pool, $text) = (read, $sql.sqlite);
                $body
            }
            $crate::store::Store::Postgres { read, .. } => {
                let ($pool, $text) = (read, $sql.postgres);
                $body
            }
        }
    };
}

/// The same for a read that the state machine waits for.
macro_rules! urgent {
    ($store:expr, $sql:expr, |$pool:ident, $text:ident| $body:expr) => {
        match $store {
            $crate::store::Store::Sqlite { write, .. } => {
                let ($pool, $text) = (write, $sql.sqlite);
                $body
            }
            $crate::store::Store::Postgres { write, .. } => {
                let ($pool, $text) = (write, $sql.postgres);
                $body
            }
        }
    };
}
use {each, read, urgent};

/// How long a turn is waited for: as long as for a connection.
const TURN: Duration = Duration::from_secs(30);

/// Asked first in every transaction that may write.
const SCHEMA: Sql = Sql::same("SELECT MAX(version) FROM _sqlx_migrations");

impl Store {
    /// Opens a transaction that may write.
    ///
    /// # Errors
    /// When the database cannot be reached, and when a newer program has changed its schema since
    /// it was opened: what a row means now, this program does not know.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        let turn = match self {
            Store::Sqlite { turn, .. } => {
                let turn = tokio::time::timeout(TURN, Arc::clone(turn).lock_owned()).await;
                Some(turn.map_err(|_| sqlx::Error::PoolTimedOut)?)
            }
            Store::Postgres { .. } => None,
        };
        self.begin_with(turn).await
    }

    /// The same ahead of all who wait for a turn. Only for one writer at a time, or the others never have theirs.
    async fn begin_ahead(&self) -> Result<Tx, StoreError> {
        self.begin_with(None).await
    }

    async fn begin_with(&self, turn: Option<OwnedMutexGuard<()>>) -> Result<Tx, StoreError> {
        let mut tx = match self {
            Store::Sqlite { write, .. } => Tx::Sqlite(write.begin_with("BEGIN IMMEDIATE").await?, turn),
            Store::Postgres { write, .. } => Tx::Postgres(write.begin_with("BEGIN").await?),
        };
        let (found,): (Option<i64>,) =
            each!(&mut tx, SCHEMA, |conn, text| sqlx::query_as(text).fetch_one(conn).await)?;
        let known = known_version();
        match found {
            Some(found) if found > known => Err(StoreError::NewerSchema { found, known }),
            _ => Ok(tx),
        }
    }

    /// Whether other daemons may use this database at the same time.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        matches!(self, Store::Postgres { .. })
    }
}

impl Tx {
    /// Makes everything in it durable.
    ///
    /// # Errors
    /// When that is refused, nothing of it is there. [`StoreError::Unsure`] when no answer came.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self {
            Tx::Sqlite(tx, _turn) => Ok(tx.commit().await?),
            Tx::Postgres(tx) => tx.commit().await.map_err(StoreError::from_commit),
        }
    }
}
