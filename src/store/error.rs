//! What the database can answer beside rows, in the program's words.

use std::borrow::Cow;
use std::path::PathBuf;

use crate::domain::ids::RotationId;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A stored value does not read; nothing was guessed in its place.
    #[error("the database holds a {table}.{column} that cannot be read (row {id}); restore it from a backup")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row.
        id: String,
    },
    /// A compare-and-swap was lost: somebody else wrote first.
    #[error("somebody else wrote this first")]
    Conflict,
    /// The claim ran out and somebody else holds the rotation.
    #[error("the claim on this rotation ran out")]
    LeaseLost,
    /// The project has an open rotation.
    #[error("rotation {id} of this project is still open")]
    OpenRotationExists {
        /// The open one.
        id: RotationId,
    },
    /// A name is taken.
    #[error("{what} {name:?} exists already")]
    Exists {
        /// What kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The database was written by a newer program.
    #[error(
        "the database has schema {found}, this program knows {known}; use a keywheel at least as new as the one that wrote it"
    )]
    NewerSchema {
        /// The schema found.
        found: i64,
        /// The newest schema known.
        known: i64,
    },
    /// The database was not migrated, and migrating is switched off or not this command's business.
    #[error("the database is not set up for this version; run `keywheel migrate`")]
    NotMigrated,
    /// Another daemon has the file.
    #[error("{} is in use by another keywheel (pid {pid}); stop that one first, or give this one a data_dir of its own", path.display())]
    Locked {
        /// The database file.
        path: PathBuf,
        /// The other's process id.
        pid: String,
    },
    /// No room.
    #[error(
        "the disk that holds the database is full; nothing was written and nothing is sent to Atlas until there is room"
    )]
    Full,
    /// The database may not be written.
    #[error("the database is read-only: {0}; give this user the right to write it")]
    ReadOnly(String),
    /// The URL or the folder does not do.
    #[error("database: {0}")]
    Unusable(String),
    /// Not reachable, or busy for too long.
    #[error("the database does not answer: {0}")]
    Unavailable(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(Cow::into_owned);
        match code.as_deref() {
            Some("13" | "53100") => Self::Full,
            Some("8" | "25006" | "1032" | "264" | "520" | "776" | "1544") => {
                Self::ReadOnly(error.to_string())
            }
            _ => Self::Unavailable(error),
        }
    }
}

impl StoreError {
    /// A stored value that does not read.
    pub(super) fn corrupt(table: &'static str, column: &'static str, id: impl std::fmt::Display) -> Self {
        Self::Corrupt { table, column, id: id.to_string() }
    }
}
