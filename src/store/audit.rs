//! The audit log: append-only and hash-chained from its first row.
//!
//! Each row's hash covers its own columns and the hash before it; the head row is locked during an
//! append, so daemons queue up and the chain never forks. A failed append fails the whole transaction:
//! without an audit row nothing else is written, and nothing is sent.

use futures_util::TryStreamExt;
use sha2::{Digest, Sha256};
use sqlx::FromRow;

use super::lanes::Lane;
use super::readable::{Listed, listed};
use super::types::Instant;
use super::{Sql, Store, StoreError, Tx, built, each, read, urgent};
use crate::domain::time::Timestamp;

const HEAD_LOCK: Sql = Sql {
    sqlite: "SELECT seq, hash FROM audit_head WHERE id = 1",
    postgres: "SELECT seq, hash FROM audit_head WHERE id = 1 FOR UPDATE",
};
const HEAD: Sql = Sql::same("SELECT seq, hash FROM audit_head WHERE id = 1");
const MOVE_HEAD: Sql = Sql::same("UPDATE audit_head SET seq = $1, hash = $2 WHERE id = 1");
const LIST: Sql = Sql::same(
    "SELECT seq, at, actor, action, subject, detail, prev_hash, hash FROM audit WHERE seq < $1 ORDER BY seq DESC LIMIT $2",
);
const ALL: Sql =
    Sql::same("SELECT seq, at, actor, action, subject, detail, prev_hash, hash FROM audit ORDER BY seq");
const MARKS: Sql = Sql::same(
    "SELECT seq, hash, COALESCE((SELECT hash FROM audit WHERE seq = 1), ''), \
     COALESCE((SELECT hash FROM audit WHERE seq = $1), '') FROM audit_head WHERE id = 1",
);

const APPENDED: Sql = Sql::same(
    "SELECT COUNT(*) FROM audit WHERE seq > $1 AND at = $2 AND actor = $3 AND action = $4 AND subject = $5 AND detail = $6",
);

pub(super) const STATEMENTS: &[&Sql] = &[&HEAD_LOCK, &HEAD, &MOVE_HEAD, &LIST, &ALL, &MARKS, &APPENDED];

/// Rows in one statement.
const AT_ONCE: usize = 16;

/// The rows at the end of the chain in which an own row is searched: more than all daemons append while
/// one transaction is repeated.
const RECENT: i64 = 10_000;

/// The action of a row in which an operator accepted that the row in its subject, `audit/SEQ`, is
/// broken.
pub const BREAK_ACCEPTED: &str = "audit.break_accepted";

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
}

#[derive(FromRow)]
struct ListedRow {
    seq: i64,
    at: Instant,
    actor: String,
    action: String,
    subject: String,
    detail: String,
    prev_hash: String,
    hash: String,
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
        })
    }
}

/// An intact chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// How many rows it has.
    pub rows: i64,
    /// Its last hash.
    pub head: String,
}

/// The first break of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditBroken {
    /// The first broken row.
    pub seq: i64,
    /// Its fault.
    pub why: String,
}

fn hash(seq: i64, at: Timestamp, row: &NewAudit, prev_hash: &str) -> String {
    let mut hash = Sha256::new();
    let (seq, at) = (seq.to_string(), at.to_string());
    // Every field is preceded by its length, so that no two rows share their bytes.
    for field in [&seq, &at, &row.actor, &row.action, &row.subject, &row.detail, prev_hash] {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field.as_bytes());
    }
    hex::encode(hash.finalize())
}

/// The end of the chain.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(super) struct Head {
    seq: i64,
    hash: String,
}

impl Tx {
    /// The end of the chain with the rows of this transaction, and a lock on it where others write too: the
    /// lock also waits for a commit that is still under way elsewhere.
    async fn audit_head(&mut self) -> Result<Head, StoreError> {
        if let Some(head) = &self.head {
            return Ok(head.clone());
        }
        Ok(each!(self, HEAD_LOCK, |conn, text| sqlx::query_as(text).fetch_one(conn).await)?)
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
        if rows.is_empty() {
            return Ok(());
        }
        let mut head = self.audit_head().await?;
        for rows in rows.chunks(AT_ONCE) {
            built!(self, |conn, query| {
                query.push("INSERT INTO audit (seq, at, actor, action, subject, detail, prev_hash, hash) ");
                query.push_values(rows, |mut values, row| {
                    let seq = head.seq + 1;
                    let hash = hash(seq, now, row, &head.hash);
                    values.push_bind(seq).push_bind(now).push_bind(&row.actor).push_bind(&row.action);
                    values.push_bind(&row.subject).push_bind(&row.detail);
                    values.push_bind(&head.hash).push_bind(&hash);
                    head = Head { seq, hash };
                });
                query.build().execute(conn).await.map(drop)
            })?;
        }
        self.head = Some(head);
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

    /// Recomputes the last `rows` rows and names the first broken row that no operator accepted.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn verify_audit_tail(&self, rows: usize) -> Result<Option<AuditBroken>, StoreError> {
        let (head_seq, head_hash): (i64, String) =
            read!(self, HEAD, |pool, text| sqlx::query_as(text).fetch_one(pool).await)?;
        let after = head_seq.saturating_sub(i64::try_from(rows).unwrap_or(i64::MAX)).max(0);
        let mut entries = self.audit(Some(head_seq.saturating_add(1)), rows).await?;
        entries.reverse();
        // Rows before the tail are not checked here; `verify_audit` reads them all.
        let prev = entries.first().filter(|_| after > 0).map(|row| row.prev_hash.clone()).unwrap_or_default();
        let mut chain = Chain { seq: after, prev };
        let (mut broken, mut accepted) = (Vec::new(), Vec::new());
        for row in entries.into_iter().take_while(|row| row.seq <= head_seq) {
            if row.action == BREAK_ACCEPTED {
                accepted.push(row.subject.clone());
            }
            let (seq, hash) = (row.seq, row.hash.clone());
            if let Err(why) = chain.take(row) {
                broken.push(why);
                (chain.seq, chain.prev) = (seq, hash);
            }
        }
        if chain.seq != head_seq || chain.prev != head_hash {
            broken.push(AuditBroken {
                seq: chain.seq + 1,
                why: format!("the chain ends at row {}, its head names row {head_seq}", chain.seq),
            });
        }
        Ok(broken.into_iter().find(|it| !accepted.contains(&format!("audit/{}", it.seq))))
    }

    /// Recomputes the whole chain and names the first broken row.
    ///
    /// # Errors
    /// Fails when the database cannot be read. A broken chain is the inner result.
    pub async fn verify_audit(&self) -> Result<Result<AuditReport, AuditBroken>, StoreError> {
        let (head_seq, head_hash): (i64, String) =
            read!(self, HEAD, |pool, text| sqlx::query_as(text).fetch_one(pool).await)?;
        let mut chain = Chain { seq: 0, prev: String::new() };
        let broken = read!(self, ALL, |pool, text| {
            let mut rows = sqlx::query_as::<_, AuditEntry>(text).fetch(pool);
            let mut broken = None;
            while let Some(row) = rows.try_next().await? {
                if row.seq > head_seq {
                    // Appended while we read; the head we compare with is older.
                    break;
                }
                if let Err(why) = chain.take(row) {
                    broken = Some(why);
                    break;
                }
            }
            broken
        });
        Ok(match broken {
            Some(broken) => Err(broken),
            None if chain.seq != head_seq || chain.prev != head_hash => Err(AuditBroken {
                seq: chain.seq + 1,
                why: format!(
                    "the chain ends at row {}, its head names row {head_seq}: rows are missing at the end",
                    chain.seq
                ),
            }),
            None => Ok(AuditReport { rows: chain.seq, head: chain.prev }),
        })
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

struct Chain {
    seq: i64,
    prev: String,
}

impl Chain {
    fn take(&mut self, row: AuditEntry) -> Result<(), AuditBroken> {
        let expected = self.seq + 1;
        if row.seq != expected {
            return Err(AuditBroken { seq: expected, why: "the row is missing".to_owned() });
        }
        if row.prev_hash != self.prev {
            return Err(AuditBroken {
                seq: row.seq,
                why: "its prev_hash is not the hash of the row before it".to_owned(),
            });
        }
        let new = NewAudit { actor: row.actor, action: row.action, subject: row.subject, detail: row.detail };
        if hash(row.seq, row.at, &new, &row.prev_hash) != row.hash {
            return Err(AuditBroken { seq: row.seq, why: "its content does not match its hash".to_owned() });
        }
        (self.seq, self.prev) = (row.seq, row.hash);
        Ok(())
    }
}
