//! The rows that a transaction appends to the journal and to the audit log. They wait in memory and are written
//! together, before the commit or before the transaction reads one of the two tables.
//!
//! On SQLite one transaction holds the pieces of many callers, and each statement is a change of thread. A piece that
//! is undone takes back its own rows only: those of others that were written within it wait again.

use std::collections::HashSet;

use super::{StoreError, Tx, built};
use crate::domain::ids::RotationId;
use crate::domain::time::Timestamp;

/// The numbers of rows in one statement. Few numbers keep the statements prepared.
const SIZES: [usize; 5] = [16, 8, 4, 2, 1];

/// The end of the chain.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(super) struct Head {
    pub(super) seq: i64,
    pub(super) hash: String,
}

/// A row of the audit log.
#[derive(Debug)]
pub(super) struct AuditRow {
    pub(super) seq: i64,
    pub(super) at: Timestamp,
    pub(super) actor: String,
    pub(super) action: String,
    pub(super) subject: String,
    pub(super) detail: String,
    pub(super) prev_hash: String,
    pub(super) hash: String,
    pub(super) seals: String,
    pub(super) seal: String,
}

/// A row of a journal; the statement counts its number.
#[derive(Debug)]
pub(super) struct JournalRow {
    pub(super) id: RotationId,
    pub(super) at: Timestamp,
    pub(super) actor: String,
    pub(super) kind: &'static str,
    pub(super) from_state: Option<&'static str>,
    pub(super) to_state: &'static str,
    pub(super) detail: String,
    pub(super) replay: Option<String>,
}

/// The rows of one table, of which the first `written` are in the database.
#[derive(Debug)]
pub(super) struct Later<T> {
    rows: Vec<T>,
    written: usize,
}

impl<T> Default for Later<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), written: 0 }
    }
}

impl<T> Later<T> {
    pub(super) fn push(&mut self, row: T) {
        self.rows.push(row);
    }

    pub(super) fn waiting(&self) -> &[T] {
        &self.rows[self.written..]
    }

    fn mark(&self) -> (usize, usize) {
        (self.rows.len(), self.written)
    }

    fn back_to(&mut self, (rows, written): (usize, usize)) {
        self.rows.truncate(rows);
        self.written = written;
    }
}

/// How far a transaction was before a piece began.
#[derive(Debug)]
pub(super) struct Mark {
    head: Option<Head>,
    appended: usize,
    audit: (usize, usize),
    journal: (usize, usize),
}

impl Tx {
    /// The place to which [`Tx::back_to`] goes when the piece that begins here is undone.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            head: self.head.clone(),
            appended: self.appended.len(),
            audit: self.audit.mark(),
            journal: self.journal.mark(),
        }
    }

    /// Forgets what was kept in memory since `mark`. The database must be back there already.
    pub(super) fn back_to(&mut self, mark: Mark) {
        self.head = mark.head;
        self.appended.truncate(mark.appended);
        self.audit.back_to(mark.audit);
        self.journal.back_to(mark.journal);
        self.compared.forget();
    }

    /// Writes the rows that wait.
    pub(super) async fn write_later(&mut self) -> Result<(), StoreError> {
        while !self.journal.waiting().is_empty() {
            // The statement counts from the rows before it, so it holds one row of each rotation.
            let mut seen = HashSet::new();
            let alike = self.journal.waiting().iter().take_while(|row| seen.insert(row.id)).count();
            self.write_journal_rows(size(alike)).await?;
        }
        while !self.audit.waiting().is_empty() {
            self.write_audit_rows(size(self.audit.waiting().len())).await?;
        }
        Ok(())
    }

    async fn write_journal_rows(&mut self, count: usize) -> Result<(), StoreError> {
        let rows = &self.journal.waiting()[..count];
        built!(self, |conn, query| {
            query.push(
                "INSERT INTO journal (rotation_id, seq, at, actor, kind, from_state, to_state, detail, replay, count, last_at) ",
            );
            query.push_values(rows, |mut values, row| {
                values.push_bind(row.id.0);
                values.push("(SELECT COALESCE(MAX(seq), 0) + 1 FROM journal WHERE rotation_id = ");
                values.push_bind_unseparated(row.id.0).push_unseparated(")");
                values.push_bind(row.at).push_bind(row.actor.as_str()).push_bind(row.kind);
                values.push_bind(row.from_state).push_bind(row.to_state);
                values.push_bind(row.detail.as_str()).push_bind(row.replay.as_deref());
                values.push("1").push_bind(row.at);
            });
            query.build().execute(conn).await.map(drop)
        })?;
        self.journal.written += count;
        Ok(())
    }

    async fn write_audit_rows(&mut self, count: usize) -> Result<(), StoreError> {
        let rows = &self.audit.waiting()[..count];
        built!(self, |conn, query| {
            query.push(
                "INSERT INTO audit (seq, at, actor, action, subject, detail, prev_hash, hash, seals, seal) ",
            );
            query.push_values(rows, |mut values, row| {
                values.push_bind(row.seq).push_bind(row.at);
                values.push_bind(row.actor.as_str()).push_bind(row.action.as_str());
                values.push_bind(row.subject.as_str()).push_bind(row.detail.as_str());
                values.push_bind(row.prev_hash.as_str()).push_bind(row.hash.as_str());
                values.push_bind(row.seals.as_str()).push_bind(row.seal.as_str());
            });
            query.build().execute(conn).await.map(drop)
        })?;
        self.audit.written += count;
        Ok(())
    }
}

/// The largest of [`SIZES`] that `rows` fill; `rows` is not 0.
fn size(rows: usize) -> usize {
    SIZES.into_iter().find(|size| *size <= rows).unwrap_or(1)
}
