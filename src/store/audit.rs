//! The audit log: append-only and hash-chained from its first row.
//!
//! Each row's hash covers its own columns and the hash before it; the head row is locked during an
//! append, so daemons queue up and the chain never forks. A failed append fails the whole transaction:
//! without an audit row nothing else is written, and nothing is sent.

use sqlx::FromRow;

use super::lanes::Lane;
use super::later::{AuditRow, Head};
use super::readable::{Listed, listed};
use super::seal::{Seal, written};
use super::types::Instant;
use super::{Sql, Store, StoreError, Tx, each, read, urgent};
use crate::domain::chain::ChainedRow;
use crate::domain::time::Timestamp;

macro_rules! search {
    ($position:literal) => {
        concat!(
            "SELECT seq, at, actor, action, subject, detail, prev_hash, hash, seals, seal FROM audit WHERE seq < $1 \
             AND seq >= $2 AND ($3 = '' OR ", $position, "(lower(subject), $3) > 0 OR ", $position,
            "(lower(detail), $3) > 0) AND ($4 = '' OR actor = $4) \
             AND ($5 = '' OR substr(action, 1, length($5)) = $5) AND (at >= $6 AND at < $7) ORDER BY seq DESC LIMIT $8"
        )
    };
}

const HEAD_LOCK: Sql = Sql {
    sqlite: "SELECT seq, hash FROM audit_head WHERE id = 1",
    postgres: "SELECT seq, hash FROM audit_head WHERE id = 1 FOR UPDATE",
};
const MOVE_HEAD: Sql = Sql::same("UPDATE audit_head SET seq = $1, hash = $2 WHERE id = 1");
const LIST: Sql = Sql::same(
    "SELECT seq, at, actor, action, subject, detail, prev_hash, hash, seals, seal FROM audit WHERE seq < $1 ORDER BY seq DESC LIMIT $2",
);
// A search ends after a share of the log, so that none reads all of it.
const SEARCH: Sql = Sql { sqlite: search!("instr"), postgres: search!("strpos") };
const LATELY: Sql = Sql::same(
    "SELECT COUNT(*) FROM audit WHERE seq > (SELECT seq FROM audit_head WHERE id = 1) - 1000 AND actor = $1 \
     AND action = $2 AND at > $3",
);
const MARKS: Sql = Sql::same(
    "SELECT seq, hash, COALESCE((SELECT hash FROM audit WHERE seq = 1), ''), \
     COALESCE((SELECT hash FROM audit WHERE seq = $1), '') FROM audit_head WHERE id = 1",
);

const APPENDED: Sql = Sql::same(
    "SELECT COUNT(*) FROM audit WHERE seq > $1 AND at = $2 AND actor = $3 AND action = $4 AND subject = $5 AND detail = $6",
);

pub(super) const STATEMENTS: &[&Sql] = &[&HEAD_LOCK, &MOVE_HEAD, &LIST, &SEARCH, &LATELY, &MARKS, &APPENDED];

/// The rows at the end of the chain in which an own row is searched: more than all daemons append while
/// one transaction is repeated.
const RECENT: i64 = 10_000;

/// How many rows one search reads at most.
pub const SEARCHED: i64 = 100_000;

/// Which rows a search finds; everything that is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// A part of the subject or of the details.
    pub words: String,
    /// Exactly this identity.
    pub actor: String,
    /// The beginning of the action.
    pub action: String,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}

/// The action of a row in which an operator accepted that the row in its subject, `audit/SEQ`, is
/// broken.
pub const BREAK_ACCEPTED: &str = "audit.break_accepted";

/// Later than any row: the beginning of the year 9999, which has four digits as every stored instant.
const FOREVER: i64 = 253_370_764_800_000_000;

/// A row to append.
#[derive(Clone, Debug)]
pub struct NewAudit {
    /// The actor.
    pub actor: String,
    /// The action, as a dotted word.
    pub action: String,
    /// The subject.
    pub subject: String,
    /// JSON text, kept byte for byte.
    pub detail: String,
}

/// A stored row.
#[derive(Clone, Debug, FromRow)]
pub struct AuditEntry {
    /// Counts from 1 without gaps.
    pub seq: i64,
    /// The instant.
    pub at: Timestamp,
    /// The actor.
    pub actor: String,
    /// The action.
    pub action: String,
    /// The subject.
    pub subject: String,
    /// JSON text.
    pub detail: String,
    /// The hash of the row before; empty for the first.
    pub prev_hash: String,
    /// SHA-256 over this row, in hexadecimal.
    pub hash: String,
    /// What it seals: a line for each row that authorises, with its digest and its subject.
    pub seals: String,
    /// The installation's seal over `hash`; empty in rows of earlier versions.
    pub seal: String,
}

impl AuditEntry {
    /// Why it cannot follow a row with the hash `prev`.
    pub(super) fn fault(&self, prev: &str) -> Option<&'static str> {
        let Self { seq, at, prev_hash, seals, .. } = self;
        let [actor, action, subject, detail] =
            [&self.actor, &self.action, &self.subject, &self.detail].map(Clone::clone);
        if prev_hash != prev {
            return Some("its prev_hash is not the hash of the row before it");
        }
        let row = NewAudit { actor, action, subject, detail };
        (hash(*seq, *at, &row, prev_hash, seals) != self.hash)
            .then_some("its content does not match its hash")
    }
}

/// A row as it is stored.
#[derive(FromRow)]
pub(super) struct ListedRow {
    pub(super) seq: i64,
    at: Instant,
    actor: String,
    action: String,
    subject: String,
    detail: String,
    prev_hash: String,
    pub(super) hash: String,
    seals: String,
    seal: String,
}

impl TryFrom<ListedRow> for AuditEntry {
    type Error = StoreError;
    fn try_from(row: ListedRow) -> Result<Self, StoreError> {
        Ok(Self {
            at: row.at.or(StoreError::corrupt("audit", "at", row.seq))?,
            seq: row.seq,
            actor: row.actor,
            action: row.action,
            subject: row.subject,
            detail: row.detail,
            prev_hash: row.prev_hash,
            hash: row.hash,
            seals: row.seals,
            seal: row.seal,
        })
    }
}

/// What was found in the whole log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// How many rows it has.
    pub rows: i64,
    /// Its last hash.
    pub head: String,
    /// The rows that do not fit, those too that an operator has accepted.
    pub broken: Vec<AuditBroken>,
}

impl AuditReport {
    /// The report of a log in which everything fits.
    ///
    /// # Errors
    /// The first row that does not fit.
    pub fn intact(self) -> Result<Self, AuditBroken> {
        match self.broken.first() {
            None => Ok(self),
            Some(broken) => Err(broken.clone()),
        }
    }
}

/// A break of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditBroken {
    /// The first broken row.
    pub seq: i64,
    /// Its fault.
    pub why: String,
}

fn hash(seq: i64, at: Timestamp, row: &NewAudit, prev_hash: &str, seals: &str) -> String {
    let NewAudit { actor, action, subject, detail } = row;
    ChainedRow { seq, at: &at.to_string(), actor, action, subject, detail, prev_hash, seals }.hash()
}

impl Tx {
    /// The end of the chain with the rows of this transaction, and a lock on it where others write too: the
    /// lock also waits for a commit that is still under way elsewhere.
    pub(super) async fn audit_head(&mut self) -> Result<Head, StoreError> {
        if let Some(head) = self.head.as_ref().or(self.held.as_ref()) {
            return Ok(head.clone());
        }
        let head: Head = each!(self, HEAD_LOCK, |conn, text| sqlx::query_as(text).fetch_one(conn).await)?;
        self.held = Some(head.clone());
        Ok(head)
    }

    /// Writes the end of the chain, once for all rows that this transaction has appended.
    pub(super) async fn write_audit_head(&mut self) -> Result<(), StoreError> {
        let Some(Head { seq, hash }) = self.head.take() else { return Ok(()) };
        each!(self, MOVE_HEAD, |conn, text| sqlx::query(text)
            .bind(seq)
            .bind(hash)
            .execute(conn)
            .await
            .map(|_| ()))?;
        Ok(())
    }

    /// Appends rows to the chain.
    pub(super) async fn append_audit(&mut self, rows: &[NewAudit], now: Timestamp) -> Result<(), StoreError> {
        self.append_rows(rows, Vec::new(), now).await
    }

    /// Appends rows to the chain; the last of them seals.
    pub(super) async fn append_rows(
        &mut self,
        rows: &[NewAudit],
        seals: Vec<Seal>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut seals = Some(seals);
        let mut rows = rows.iter().peekable();
        while let Some(row) = rows.next() {
            let seals = if rows.peek().is_none() { seals.take() } else { None }.unwrap_or_default();
            let (text, before) = (written(&seals), self.audit_head().await?);
            let seq = before.seq + 1;
            let hash = hash(seq, now, row, &before.hash, &text);
            self.audit.push(AuditRow {
                seq,
                at: now,
                actor: row.actor.clone(),
                action: row.action.clone(),
                subject: row.subject.clone(),
                detail: row.detail.clone(),
                prev_hash: before.hash.clone(),
                hash: hash.clone(),
                seals: text,
                seal: self.seals.seal(&hash)?,
            });
            self.head = Some(Head { seq, hash: hash.clone() });
            self.note_appended(row, (seq, before.hash, hash), seals, now);
        }
        Ok(())
    }

    /// Whether these rows were appended at `now`, by an earlier attempt whose answer was lost. They are
    /// appended together, so the last one stands for all.
    pub(super) async fn is_appended(
        &mut self,
        rows: &[NewAudit],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let Some(row) = rows.last() else { return Ok(false) };
        self.write_later().await?;
        let head = self.audit_head().await?.seq;
        let (found,): (i64,) = each!(self, APPENDED, |conn, text| sqlx::query_as(text)
            .bind(head - RECENT)
            .bind(now)
            .bind(row.actor.as_str())
            .bind(row.action.as_str())
            .bind(row.subject.as_str())
            .bind(row.detail.as_str())
            .fetch_one(conn)
            .await)?;
        Ok(found > 0)
    }
}

impl Store {
    /// How often `actor` has done this since an instant, among the last thousand rows.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn done_since(&self, actor: &str, action: &str, since: Timestamp) -> Result<i64, StoreError> {
        let (count,): (i64,) = read!(self, LATELY, |pool, text| sqlx::query_as(text)
            .bind(actor)
            .bind(action)
            .bind(since)
            .fetch_one(pool)
            .await)?;
        Ok(count)
    }

    /// Rows, newest first, older than `before`.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn audit(&self, before: Option<i64>, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        Ok(read!(self, LIST, |pool, text| sqlx::query_as(text)
            .bind(before.unwrap_or(i64::MAX))
            .bind(limit)
            .fetch_all(pool)
            .await)?)
    }

    /// The same, those that cannot be read by their numbers.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn list_audit(
        &self,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<Listed<AuditEntry>>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows: Vec<ListedRow> = read!(self, LIST, |pool, text| sqlx::query_as(text)
            .bind(before.unwrap_or(i64::MAX))
            .bind(limit)
            .fetch_all(pool)
            .await)?;
        listed(rows.into_iter().map(AuditEntry::try_from))
    }

    /// Rows that fit `filter`, newest first, older than `before`, out of [`SEARCHED`] rows; those that cannot be read by
    /// their numbers.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn search_audit(
        &self,
        filter: &AuditFilter,
        before: i64,
        limit: usize,
    ) -> Result<Vec<Listed<AuditEntry>>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let from = filter.from.unwrap_or_else(|| Timestamp::from_micros(0));
        let until = filter.until.unwrap_or_else(|| Timestamp::from_micros(FOREVER));
        let rows: Vec<ListedRow> = read!(self, SEARCH, |pool, text| sqlx::query_as(text)
            .bind(before)
            .bind(before.saturating_sub(SEARCHED))
            .bind(filter.words.to_lowercase())
            .bind(&filter.actor)
            .bind(&filter.action)
            .bind(from)
            .bind(until)
            .bind(limit)
            .fetch_all(pool)
            .await)?;
        listed(rows.into_iter().map(AuditEntry::try_from))
    }

    /// Appends rows without any other change.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn append(&self, rows: &[NewAudit], now: Timestamp) -> Result<(), StoreError> {
        self.transact("audit.append", Lane::Command, rows.to_vec(), move |tx, rows, unsure| {
            Box::pin(async move {
                if unsure && tx.is_appended(rows, now).await? {
                    return Ok(());
                }
                tx.append_audit(rows, now).await
            })
        })
        .await
    }

    /// The end of the chain, and its hash at row `at`.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn audit_marks(&self, at: i64) -> Result<AuditMarks, StoreError> {
        let (seq, hash, first, there) =
            urgent!(self, MARKS, |pool, text| sqlx::query_as(text).bind(at).fetch_one(pool).await)?;
        Ok(AuditMarks { seq, hash, first, there })
    }
}

/// The end of the chain, and its hash at the row of an epoch file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditMarks {
    /// The last row.
    pub seq: i64,
    /// Its hash.
    pub hash: String,
    /// The first row's hash, which distinguishes this database from any other; empty without rows.
    pub first: String,
    /// The hash at the requested row; empty when the row is missing.
    pub there: String,
}
