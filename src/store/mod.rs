//! All SQL of the program, for SQLite and PostgreSQL, over the native drivers.
//!
//! One text per operation; where the dialects differ, a [`Sql`] holds both. Every write runs in a
//! transaction that [`Store::begin`] opened (`BEGIN IMMEDIATE` on SQLite). Times are bound from the
//! caller's clock, never taken in SQL, with one exception: lease time on PostgreSQL is database
//! time, because several daemons must agree on it. Secrets never come here.

mod audit;
mod error;
mod open;
mod people;
mod projects;
mod rotations;
mod types;

pub use audit::{AuditBroken, AuditEntry, AuditReport, NewAudit};
pub use error::StoreError;
pub use open::{Access, known_version};
pub use people::{Approval, NewApproval, NewOutbox, OutboxRow, Token};
pub use projects::{KeyChange, ProjectFilter, ProjectWrite};
pub use rotations::{JournalEntry, NewJournal, RotationRow, StepWrite};

use std::fs::File;
use std::sync::Arc;

use sqlx::{PgPool, Postgres, Sqlite, SqlitePool, Transaction};

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
    [audit::STATEMENTS, people::STATEMENTS, projects::STATEMENTS, rotations::STATEMENTS].concat()
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
    },
    /// A server, any number of daemons.
    Postgres(PgPool),
}

/// A transaction on either database; dropped without a commit, it is rolled back.
#[derive(Debug)]
pub enum Tx {
    /// On SQLite.
    Sqlite(Transaction<'static, Sqlite>),
    /// On PostgreSQL.
    Postgres(Transaction<'static, Postgres>),
}

/// Runs `$body` with a connection and the text for its database.
macro_rules! each {
    ($tx:expr, $sql:expr, |$conn:ident, $text:ident| $body:expr) => {
        match $tx {
            $crate::store::Tx::Sqlite(tx) => {
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
            $crate::store::Store::Postgres(pool) => {
                let ($pool, $text) = (pool, $sql.postgres);
                $body
            }
        }
    };
}
use {each, read};

impl Store {
    /// Opens a transaction that may write.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(match self {
            Store::Sqlite { write, .. } => Tx::Sqlite(write.begin_with("BEGIN IMMEDIATE").await?),
            Store::Postgres(pool) => Tx::Postgres(pool.begin_with("BEGIN").await?),
        })
    }
}

impl Tx {
    /// Makes everything in it durable.
    ///
    /// # Errors
    /// When that is refused; then nothing of it is there, or on a lost connection nobody knows.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self {
            Tx::Sqlite(tx) => tx.commit().await?,
            Tx::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }
}
