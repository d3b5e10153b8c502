//! All SQL of the program, for SQLite and PostgreSQL, over the native drivers.
//!
//! One text per operation; where the dialects differ, a [`Sql`] holds both. Every write runs in a
//! transaction of `Store::transact` (`transact.rs`), which names it and puts it in a lane. A transaction
//! is repeated as a whole when the database could not be reached or aborted it (`retry.rs`). Times are
//! bound from the caller's clock, never taken in SQL, with one exception: lease time on PostgreSQL is
//! database time, because several daemons must agree on it. Secrets are never stored.
//!
//! The state machine reads on connections of its own (`urgent!`), so that slow lists for people (`read!`)
//! never delay it. SQLite has one connection that writes, and one task that owns it (`writer.rs`): it
//! commits pieces that wait together in one transaction. On PostgreSQL each lane has a share of the
//! connections.

mod ahead;
mod approvals;
mod audit;
mod backup;
mod ballots;
mod comments;
mod conditions;
mod daemons;
mod error;
mod evidence;
mod feed;
mod feeds;
mod files;
mod fleet;
mod inbox;
mod inspect;
mod keys;
mod lanes;
mod later;
mod links;
mod lookups;
mod loosenings;
mod open;
mod outbox;
mod passkeys;
mod people;
mod pooler;
mod projects;
mod readable;
mod refusals;
mod reminders;
mod removals;
mod reseal;
mod reserve;
mod retention;
mod retried;
mod retry;
mod reviews;
mod rotation_row;
mod rotations;
mod schema;
mod seal;
mod sealed_projects;
mod sealed_rotations;
mod seals;
mod separations;
mod settings;
mod silences;
mod tokens;
mod transact;
mod types;
mod unreadable;
mod visits;
mod web_sessions;
mod writer;

pub use approvals::{Approval, NewApproval, OWN_APPROVAL, Vote};
pub use audit::{
    AuditBroken, AuditEntry, AuditFilter, AuditMarks, AuditReport, BREAK_ACCEPTED, NewAudit, SEARCHED,
};
pub use backup::{Contents, Restored, back_up, restore, sqlite_path};
pub use comments::{COMMENTED, Commented, NewComment};
pub use conditions::ConditionRow;
pub use daemons::{GONE_AFTER, Other, Presence};
pub use error::StoreError;
pub use evidence::{KeyChanged, MailRecord, Population, Snapshot, StoredVote};
pub use feed::{AwaitedWitness, WitnessEnd, WitnessEvent};
pub use feeds::{FEED_ENDED, FEED_MADE, FeedMade};
pub use files::held;
pub use fleet::{DueDate, DueFilter, DuePage, FleetCounts};
pub use inbox::{ClaimedEvent, EventOutcome, NewEvent};
pub use inspect::{TABLES, check_server_version};
pub use keys::{KeyChange, KeySpan};
pub use links::LinkUse;
pub use loosenings::{FormerProject, Governed, Loosening};
pub use open::Access;
pub use outbox::{
    Channel, ClaimedMessage, Lane, MailCounts, MessageEnd, MessageState, NewOutbox, OutboxRow,
    UnreadableMessage, WebhookCount,
};
pub use passkeys::{Passkey, PasskeyUse, SignedVote};
pub use people::{Person, PersonRefusal, SeenPerson};
pub use projects::{Drift, DueLook, ProjectFilter, ProjectWrite, QuietLook};
pub use readable::{CorruptRow, Listed};
pub use refusals::RefusedAddress;
pub use reminders::Reminder;
pub use removals::Leaver;
pub use reseal::{Belief, SEALED};
pub use reserve::Reserve;
pub use retention::Horizon;
pub use retried::Settled;
pub use reviews::Review;
pub use rotation_row::RotationRow;
pub use rotations::{JournalEntry, NewJournal, NewRotation, StepWrite};
pub use schema::known_version;
pub use seals::Seals;
pub use separations::Separation;
pub use settings::NewSettings;
pub use tokens::Token;
pub use transact::Shares;
pub use visits::{EndedRotation, Missed};
pub use web_sessions::WebSession;
pub use writer::Writer;

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
    [
        approvals::STATEMENTS,
        audit::STATEMENTS,
        comments::STATEMENTS,
        conditions::STATEMENTS,
        silences::STATEMENTS,
        daemons::STATEMENTS,
        fleet::STATEMENTS,
        inbox::STATEMENTS,
        evidence::STATEMENTS,
        feed::STATEMENTS,
        inspect::STATEMENTS,
        keys::STATEMENTS,
        lookups::STATEMENTS,
        loosenings::STATEMENTS,
        settings::STATEMENTS,
        outbox::STATEMENTS,
        passkeys::STATEMENTS,
        people::STATEMENTS,
        ahead::STATEMENTS,
        projects::STATEMENTS,
        sealed_projects::STATEMENTS,
        refusals::STATEMENTS,
        reminders::STATEMENTS,
        removals::STATEMENTS,
        reseal::STATEMENTS,
        reviews::STATEMENTS,
        retention::STATEMENTS,
        retried::STATEMENTS,
        rotation_row::STATEMENTS,
        rotations::STATEMENTS,
        seals::STATEMENTS,
        tokens::STATEMENTS,
        visits::STATEMENTS,
        web_sessions::STATEMENTS,
        feeds::STATEMENTS,
        links::STATEMENTS,
        transact::STATEMENTS,
    ]
    .concat()
}

/// An open database. Clones share its connections.
#[derive(Clone, Debug)]
pub enum Store {
    /// One file, one daemon.
    Sqlite {
        /// The only connection that writes. The writer's task takes it.
        write: SqlitePool,
        /// Connections that read, for people.
        read: SqlitePool,
        /// Connections that read, for the state machine.
        urgent: SqlitePool,
        /// Held while this daemon runs.
        lock: Option<Arc<File>>,
        /// The task that writes.
        writer: Writer,
        /// The room that is kept for roll-backs and pages.
        reserve: Arc<Reserve>,
        /// What the audit log says about the rows that authorise.
        seals: Arc<Seals>,
    },
    /// A server, any number of daemons.
    Postgres {
        /// Connections that write, and on which the state machine reads.
        write: PgPool,
        /// Connections that read, for people.
        read: PgPool,
        /// The share of the writing connections for each lane.
        shares: Arc<Shares>,
        /// What the audit log says about the rows that authorise.
        seals: Arc<Seals>,
    },
}

/// A transaction on either database; dropped without a commit, it is rolled back.
#[derive(Debug)]
struct Tx {
    conn: TxConn,
    /// The end of the audit chain as this transaction has moved it; its commit writes it.
    head: Option<later::Head>,
    seals: Arc<Seals>,
    /// What it has appended to the audit log.
    appended: Vec<seals::Appended>,
    /// Its rows of the audit log.
    audit: later::Later<later::AuditRow>,
    /// Its rows of journals.
    journal: later::Later<later::JournalRow>,
    /// What it has compared with the seals.
    compared: ballots::Compared,
    /// The head that this transaction has found and holds: no other one appends before its end.
    held: Option<later::Head>,
    /// Whether the log was read up to the head.
    followed: bool,
}

#[derive(Debug)]
enum TxConn {
    /// On SQLite.
    Sqlite(Transaction<'static, Sqlite>),
    /// On PostgreSQL.
    Postgres(Transaction<'static, Postgres>),
}

/// Runs `$body` with a connection and the text for its database.
macro_rules! each {
    ($tx:expr, $sql:expr, |$conn:ident, $text:ident| $body:expr) => {
        match &mut $tx.conn {
            $crate::store::TxConn::Sqlite(tx) => {
                let ($conn, $text) = (&mut **tx, $sql.sqlite);
                $body
            }
            $crate::store::TxConn::Postgres(tx) => {
                let ($conn, $text) = (&mut **tx, $sql.postgres);
                $body
            }
        }
    };
}

/// The same for a statement whose number of rows or values is only known here.
macro_rules! built {
    ($tx:expr, |$conn:ident, $query:ident| $body:expr) => {
        match &mut $tx.conn {
            $crate::store::TxConn::Sqlite(tx) => {
                let ($conn, mut $query) = (&mut **tx, sqlx::QueryBuilder::<sqlx::Sqlite>::default());
                $body
            }
            $crate::store::TxConn::Postgres(tx) => {
                let ($conn, mut $query) = (&mut **tx, sqlx::QueryBuilder::<sqlx::Postgres>::default());
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
            $crate::store::Store::Sqlite { urgent, .. } => {
                let ($pool, $text) = (urgent, $sql.sqlite);
                $body
            }
            $crate::store::Store::Postgres { write, .. } => {
                let ($pool, $text) = (write, $sql.postgres);
                $body
            }
        }
    };
}
use {built, each, read, urgent};

impl Store {
    /// Whether other daemons may use this database at the same time.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        matches!(self, Store::Postgres { .. })
    }
}
