//! Errors of the database, in the program's terms.

use std::borrow::Cow;
use std::path::PathBuf;

use super::pooler::WAY_OUT;
use crate::domain::ids::RotationId;

/// Why an operation of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A stored value cannot be read; no guess stands in for it.
    #[error("the database holds a {table}.{column} that cannot be read (row {id}); restore it from a backup")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row.
        id: String,
    },
    /// A value cannot be encoded for its column.
    #[error("{table}.{column} cannot be written (row {id}): {source}; nothing was written")]
    Unwritable {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row.
        id: String,
        /// The reason.
        source: serde_json::Error,
    },
    /// A compare-and-swap was lost: another writer was first.
    #[error("another change to this record was written first; read it again and repeat yours")]
    Conflict,
    /// The claim expired, and another worker may hold the rotation.
    #[error("the claim on this rotation expired; another worker may have taken it over")]
    LeaseLost,
    /// The project has an open rotation.
    #[error("rotation {id} of this project is still open")]
    OpenRotationExists {
        /// The open one.
        id: RotationId,
    },
    /// The review of an earlier emergency rotation of the same person is open.
    #[error("the review of the emergency rotation {id} is open")]
    ReviewOpen {
        /// The earlier rotation.
        id: RotationId,
    },
    /// A name is taken.
    #[error("{what} {name:?} exists already")]
    Exists {
        /// The kind of record.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The database was written by a newer program.
    #[error(
        "the database has schema {found}, this program supports {known}; use a keywheel at least as new as the one that wrote it"
    )]
    NewerSchema {
        /// The schema found.
        found: i64,
        /// The newest schema known.
        known: i64,
    },
    /// The database was not migrated, and migrating is switched off or not part of this command.
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
    /// Another process holds the file's lock.
    #[error(
        "another process{} writes to {}; stop it, or wait until it is done, then run this again",
        by.as_ref().map(|by| format!(" ({by})")).unwrap_or_default(),
        path.display()
    )]
    Busy {
        /// The database file.
        path: PathBuf,
        /// The other process, where the kernel names it.
        by: Option<String>,
    },
    /// The disk is full.
    #[error(
        "the disk that holds the database is full; nothing was written and nothing is sent to Atlas until there is room"
    )]
    Full,
    /// The database may not be written.
    #[error("the database is read-only: {0}; give this user the right to write it")]
    ReadOnly(String),
    /// The URL or the folder cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// A row that authorises is not what Keywheel wrote there.
    #[error(
        "{subject} was changed outside of Keywheel: {why}; no new key is sent because of it. Find out who changed it: `keywheel audit verify` and `keywheel doctor` list all that does not fit"
    )]
    Tampered {
        /// The row, as the audit log names it.
        subject: String,
        /// What does not fit.
        why: String,
    },
    /// The votes that stand are too few, because voters were removed or lost the role.
    #[error("too few approvals stand: the voters {} were removed or may not approve any more", voters.join(", "))]
    Unapproved {
        /// Those whose votes are void.
        voters: Vec<String>,
    },
    /// The audit log was not read to its end yet.
    #[error("the audit log is still being checked after the start; try again in a moment")]
    Unverified,
    /// The installation key was not given.
    #[error("the installation key was not read, so nothing can be written down in the audit log")]
    NoKey,
    /// The database belongs to another installation key.
    #[error(
        "server.key_file: this database was sealed with the installation key {found}, and the file holds {own}; put the file of {found} there, or, when it is lost, run `keywheel key replace`"
    )]
    OtherKey {
        /// The fingerprint of the database's key.
        found: String,
        /// The fingerprint of the key in the file.
        own: String,
    },
    /// The database has no seals although it had.
    #[error(
        "the database has no seals, and this installation has sealed its rows before: it is an older copy, or somebody removed them. Put the right database there, or accept this one on this machine with `keywheel doctor --accept-restore`"
    )]
    Unsealed,
    /// A commit got no answer: the transaction may be durable or not.
    #[error(
        "the database did not confirm the commit ({0}), so the change may be written; read the record again before you repeat it"
    )]
    Unsure(#[source] sqlx::Error),
    /// Not reachable, or busy for too long.
    #[error("the database does not answer: {0}")]
    Unavailable(#[source] sqlx::Error),
}

fn code(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code)
}

/// Whether `SQLite` gave up waiting for another process' lock: busy and locked, with their extended codes.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| {
        code.len() < 5 && code.parse().is_ok_and(|code: u32| matches!(code & 0xff, 5 | 6))
    })
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match code(&error).as_deref() {
            Some("13" | "53100") => Self::Full,
            // A prepared statement that is there twice, or not at all: the connection was given to somebody else.
            Some("42P05" | "26000") => Self::Unusable(format!(
                "the database is behind a connection pooler that shares its connections ({error}); database.url: {WAY_OUT}"
            )),
            Some("8" | "25006" | "42501" | "1032" | "264" | "520" | "776" | "1544") => {
                Self::ReadOnly(error.to_string())
            }
            _ => Self::Unavailable(error),
        }
    }
}

impl StoreError {
    /// The error of a failed commit. Only a database that names a reason for its rollback has certainly
    /// written nothing; on SQLite that is every reason but an I/O error.
    pub(super) fn from_commit(error: sqlx::Error) -> Self {
        let refused = code(&error).is_some_and(|code| match code.parse::<u32>() {
            Ok(lite) if code.len() < 5 => lite & 0xff != 10,
            _ => code.starts_with("40") || code.starts_with("23"),
        });
        match Self::from(error) {
            Self::Unavailable(error) if !refused => Self::Unsure(error),
            other => other,
        }
    }

    /// The same error for another piece of work in the transaction.
    pub(super) fn for_companion(&self) -> Self {
        let copy = |error: &sqlx::Error| sqlx::Error::Io(std::io::Error::other(error.to_string()));
        match self {
            Self::Full => Self::Full,
            Self::ReadOnly(why) => Self::ReadOnly(why.clone()),
            Self::NewerSchema { found, known } => Self::NewerSchema { found: *found, known: *known },
            Self::Unsure(error) => Self::Unsure(copy(error)),
            Self::Unavailable(error) if self.passes() => Self::Unavailable(copy(error)),
            other => Self::Unavailable(sqlx::Error::AnyDriverError(other.to_string().into())),
        }
    }

    /// The transaction was rolled back because of other work in it; the same work may be started again.
    pub(super) fn rolled_back(why: &Self) -> Self {
        Self::Unavailable(sqlx::Error::Io(std::io::Error::other(format!(
            "rolled back with another write: {why}"
        ))))
    }

    /// Whether the same transaction may succeed when it is started again.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Unsure(_) => true,
            Self::Unavailable(error) => match code(error) {
                // Serialization failure and deadlock, connection lost or refused for now, lock and
                // statement timeouts; on SQLite a lock.
                Some(code) => {
                    ["40", "08", "53", "57"].iter().any(|class| code.len() == 5 && code.starts_with(class))
                        || ["55P03", "25P02", "25P03"].contains(&code.as_ref())
                        || is_busy(error)
                }
                None => matches!(
                    error,
                    sqlx::Error::Io(_)
                        | sqlx::Error::PoolTimedOut
                        | sqlx::Error::Protocol(_)
                        | sqlx::Error::Tls(_)
                ),
            },
            _ => false,
        }
    }

    /// A row that does not fit its seal.
    pub(super) fn tampered(subject: &str, why: &str) -> Self {
        Self::Tampered { subject: subject.to_owned(), why: why.to_owned() }
    }

    /// A stored value that cannot be read.
    pub(super) fn corrupt(table: &'static str, column: &'static str, id: impl std::fmt::Display) -> Self {
        Self::Corrupt { table, column, id: id.to_string() }
    }
}
