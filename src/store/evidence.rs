//! What an evidence bundle is made of: one view of the audit log, the rotations and all that hangs on them, whatever is
//! written meanwhile.
//!
//! Rows are read a page at a time: a year of a fleet does not fit into the memory of the daemon.

use std::sync::Arc;
use std::time::Duration;

use sqlx::FromRow;
use uuid::Uuid;

use super::audit::{AuditEntry, ListedRow};
use super::feed::{PROOF, WitnessRow};
use super::keys::KeySpan;
use super::later::Head;
use super::rotation_row::{RotationRow, StoredRow, columns};
use super::rotations::{EntryRow, JOURNAL};
use super::seals::{AFTER, HEAD};
use super::types::Instant;
use super::{JournalEntry, Sql, Store, StoreError, Tx, TxConn, WitnessEvent, each};
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::time::Timestamp;

/// On PostgreSQL each statement of a transaction sees what was committed meanwhile, unless it is told otherwise.
const ONE_VIEW: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ";
const FIRST: Sql = Sql::same("SELECT MIN(seq) FROM audit WHERE at >= $1");
const BEFORE: Sql = Sql::same("SELECT hash FROM audit WHERE seq = $1");
const KEYS_CHANGED: Sql = Sql::same(
    "SELECT seq, at, action, detail FROM audit WHERE action IN ('installation.key_rotated', 'installation.key_replaced') \
     ORDER BY seq",
);
const OPEN_SINCE: Sql = Sql::same(
    "SELECT MIN(created_at), COUNT(*) FROM rotations WHERE created_at < $2 AND (finished_at IS NULL OR finished_at >= $1) \
     AND ($3 = '' OR group_id = $3)",
);
const POPULATION: Sql = Sql::same(concat!(
    "SELECT ",
    columns!(),
    " FROM rotations WHERE created_at < $2 AND (finished_at IS NULL OR finished_at >= $1) AND ($3 = '' OR group_id = $3) \
     AND id > $4 ORDER BY id LIMIT $5"
));
const VOTES: Sql = Sql {
    sqlite: "SELECT v.approver, v.at, v.method, v.comment, v.assertion, s.evidence FROM approvals v \
             LEFT JOIN assertions s ON s.nonce = v.assertion WHERE v.rotation_id = $1 ORDER BY v.at, v.approver",
    postgres: "SELECT v.approver, v.at, v.method, v.comment, v.assertion, s.evidence FROM approvals v \
               LEFT JOIN assertions s ON s.nonce = v.assertion WHERE v.rotation_id = $1 \
               ORDER BY v.at, v.approver COLLATE \"C\"",
};
const MAILS: Sql = Sql::same(
    "SELECT id, message_id, kind, group_id, rotation_id, recipient, created_at, state, attempts, sent_at, last_reply \
     FROM outbox WHERE channel = 'mail' AND id > $1 ORDER BY id LIMIT $2",
);
const SERVED: Sql = Sql::same(
    "SELECT group_id, key, since, until, source FROM keys WHERE since < $2 AND (until IS NULL OR until >= $1) \
     AND ($3 = '' OR group_id = $3) ORDER BY group_id, since, key",
);

pub(super) const STATEMENTS: &[&Sql] =
    &[&FIRST, &BEFORE, &KEYS_CHANGED, &OPEN_SINCE, &POPULATION, &VOTES, &MAILS, &SERVED];

/// How far an instant in a table lies from that in the audit log, at most.
const SLACK: Duration = Duration::from_mins(5);

/// Rows of one page.
const PAGE: i64 = 500;

/// A vote as it is stored, byte for byte, so that its seal can be computed again.
#[derive(Clone, Debug)]
pub struct StoredVote {
    /// The approver.
    pub by: String,
    /// The instant.
    pub at: Timestamp,
    /// How it was given.
    pub method: String,
    /// The approver's comment.
    pub comment: Option<String>,
    /// The random part of what a passkey signed.
    pub nonce: Option<String>,
    /// What the passkey signed.
    pub evidence: Option<String>,
}

#[derive(FromRow)]
struct VoteRow {
    approver: String,
    at: Instant,
    method: String,
    comment: Option<String>,
    assertion: Option<String>,
    evidence: Option<String>,
}

/// A mail without what it says.
#[derive(Clone, Debug, FromRow)]
pub struct MailRecord {
    id: Uuid,
    /// Its Message-ID.
    pub message_id: String,
    /// What it says.
    pub kind: String,
    /// The project, or the part of the installation.
    pub group_id: String,
    rotation_id: Option<Uuid>,
    /// To whom it goes.
    pub recipient: String,
    /// When its cause was written.
    pub created_at: Timestamp,
    /// Its state.
    pub state: String,
    /// How often it was tried.
    pub attempts: i64,
    /// When the recipient's server accepted it.
    pub sent_at: Option<Timestamp>,
    /// The last reply.
    pub last_reply: Option<String>,
}

impl MailRecord {
    /// The rotation that it is about.
    #[must_use]
    pub fn rotation(&self) -> Option<RotationId> {
        self.rotation_id.map(RotationId)
    }
}

/// A change of the installation key.
#[derive(Clone, Debug, FromRow)]
pub struct KeyChanged {
    /// The row of the audit log.
    pub seq: i64,
    /// When.
    pub at: Timestamp,
    /// `installation.key_rotated` or `installation.key_replaced`.
    pub action: String,
    /// The keys and the signature, as JSON text.
    pub detail: String,
}

/// Which rotations a bundle is about.
#[derive(Clone, Debug)]
pub struct Population {
    /// The first instant.
    pub from: Timestamp,
    /// The first instant after.
    pub to: Timestamp,
    /// The one project; `None` for all.
    pub project: Option<GroupId>,
}

impl Population {
    /// The instants between which the tables are searched: theirs may differ a little from those of the audit log.
    fn around(&self) -> (Timestamp, Timestamp) {
        (self.from - SLACK, self.to + SLACK)
    }

    fn group(&self) -> &str {
        self.project.as_ref().map_or("", GroupId::as_str)
    }
}

/// One view of the database.
#[derive(Debug)]
pub struct Snapshot {
    tx: Tx,
    /// The last row of the audit log, and its hash.
    pub head: (i64, String),
}

impl Store {
    /// Begins a view of the database that nothing changes, on a connection that delays no writer.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    #[expect(clippy::disallowed_methods, reason = "it only reads, and must not wait for the writer")]
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let (conn, seals) = match self {
            Store::Sqlite { read, seals, .. } => (TxConn::Sqlite(read.begin().await?), seals),
            Store::Postgres { read, seals, .. } => (TxConn::Postgres(read.begin().await?), seals),
        };
        let mut tx = Tx::new(conn, Arc::clone(seals));
        if let TxConn::Postgres(conn) = &mut tx.conn {
            sqlx::query(ONE_VIEW).execute(&mut **conn).await?;
        }
        let Head { seq, hash } = each!(tx, HEAD, |conn, text| sqlx::query_as(text).fetch_one(conn).await)?;
        Ok(Snapshot { tx, head: (seq, hash) })
    }
}

impl Snapshot {
    /// The first row that is not older than `at`, and the hash of the row before it. Every row that is not older comes
    /// after it. Without such a row, the end of the log.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn first_row(&mut self, at: Timestamp) -> Result<(i64, String), StoreError> {
        let (found,): (Option<i64>,) =
            each!(self.tx, FIRST, |conn, text| sqlx::query_as(text).bind(at).fetch_one(conn).await)?;
        let first = found.unwrap_or(self.head.0).max(1);
        let before: Option<(String,)> = each!(self.tx, BEFORE, |conn, text| sqlx::query_as(text)
            .bind(first - 1)
            .fetch_optional(conn)
            .await)?;
        Ok((first, before.map(|(hash,)| hash).unwrap_or_default()))
    }

    /// The next rows of the audit log after row `after`; empty at its end.
    ///
    /// # Errors
    /// Fails when the database or a row cannot be read.
    pub async fn audit(&mut self, after: i64) -> Result<Vec<AuditEntry>, StoreError> {
        let to = self.head.0.min(after + PAGE);
        let rows: Vec<ListedRow> = each!(self.tx, AFTER, |conn, text| sqlx::query_as(text)
            .bind(after)
            .bind(to)
            .fetch_all(conn)
            .await)?;
        rows.into_iter().map(AuditEntry::try_from).collect()
    }

    /// Every change of the installation key, the first one first.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn key_changes(&mut self) -> Result<Vec<KeyChanged>, StoreError> {
        Ok(each!(self.tx, KEYS_CHANGED, |conn, text| sqlx::query_as(text).fetch_all(conn).await)?)
    }

    /// When the first rotation of the population was proposed, and how many there are.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn open_since(&mut self, of: &Population) -> Result<(Option<Timestamp>, i64), StoreError> {
        let (from, to) = of.around();
        Ok(each!(self.tx, OPEN_SINCE, |conn, text| sqlx::query_as(text)
            .bind(from)
            .bind(to)
            .bind(of.group())
            .fetch_one(conn)
            .await)?)
    }

    /// The next rotations of the population and a few beside it, in the order of their ids.
    ///
    /// # Errors
    /// Fails when the database or a row cannot be read.
    pub async fn population(
        &mut self,
        of: &Population,
        after: Option<RotationId>,
    ) -> Result<Vec<RotationRow>, StoreError> {
        let (from, to) = of.around();
        let rows: Vec<StoredRow> = each!(self.tx, POPULATION, |conn, text| sqlx::query_as(text)
            .bind(from)
            .bind(to)
            .bind(of.group())
            .bind(after.map_or(Uuid::nil(), |id| id.0))
            .bind(PAGE / 10)
            .fetch_all(conn)
            .await)?;
        rows.into_iter().map(RotationRow::try_from).collect()
    }

    /// The journal of a rotation.
    ///
    /// # Errors
    /// Fails when the database or a row cannot be read.
    pub async fn journal(&mut self, id: RotationId) -> Result<Vec<JournalEntry>, StoreError> {
        let rows: Vec<EntryRow> = each!(self.tx, JOURNAL, |conn, text| sqlx::query_as(text)
            .bind(id.0)
            .bind(0_i64)
            .bind(i64::MAX)
            .fetch_all(conn)
            .await)?;
        rows.into_iter().map(|row| row.entry(id)).collect()
    }

    /// The votes on a rotation, in the order in which they are sealed.
    ///
    /// # Errors
    /// Fails when the database or a row cannot be read.
    pub async fn votes(&mut self, id: RotationId) -> Result<Vec<StoredVote>, StoreError> {
        let rows: Vec<VoteRow> =
            each!(self.tx, VOTES, |conn, text| sqlx::query_as(text).bind(id.0).fetch_all(conn).await)?;
        let vote = |row: VoteRow| {
            Ok(StoredVote {
                at: row.at.or(StoreError::corrupt("approvals", "at", &row.approver))?,
                by: row.approver,
                method: row.method,
                comment: row.comment,
                nonce: row.assertion,
                evidence: row.evidence,
            })
        };
        rows.into_iter().map(vote).collect()
    }

    /// The search for the witness event of a rotation; `None` when no search was started.
    ///
    /// # Errors
    /// Fails when the database or a stored value cannot be read.
    pub async fn proof(&mut self, id: RotationId) -> Result<Option<WitnessEvent>, StoreError> {
        let row: Option<WitnessRow> =
            each!(self.tx, PROOF, |conn, text| sqlx::query_as(text).bind(id.0).fetch_optional(conn).await)?;
        row.map(|row| row.event(id)).transpose()
    }

    /// The next mails after `last`, in the order in which they were written.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn mails(&mut self, last: Option<&MailRecord>) -> Result<Vec<MailRecord>, StoreError> {
        Ok(each!(self.tx, MAILS, |conn, text| sqlx::query_as(text)
            .bind(last.map_or(Uuid::nil(), |it| it.id))
            .bind(PAGE)
            .fetch_all(conn)
            .await)?)
    }

    /// The keys that served in the period, by project.
    ///
    /// # Errors
    /// Fails when the database or a row cannot be read.
    pub async fn served(&mut self, of: &Population) -> Result<Vec<(String, KeySpan)>, StoreError> {
        type Served = (String, String, Timestamp, Option<Timestamp>, String);
        let rows: Vec<Served> = each!(self.tx, SERVED, |conn, text| sqlx::query_as(text)
            .bind(of.from)
            .bind(of.to)
            .bind(of.group())
            .fetch_all(conn)
            .await)?;
        let span = |(group, key, since, until, source): Served| {
            let source = source.parse().map_err(|_| StoreError::corrupt("keys", "source", &group))?;
            Ok((group, KeySpan { key, since, until, source }))
        };
        rows.into_iter().map(span).collect()
    }
}
