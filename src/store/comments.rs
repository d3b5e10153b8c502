//! Comments on rotations: rows of the audit log that decide nothing, with a copy in the journal.
//!
//! A comment moves no version, so a step that is under way is not begun again because of it, and nobody's form goes
//! stale. What is shown beside the button that approves is read from the audit log: a comment that somebody writes into the
//! database, or takes out of it, breaks the chain.

use serde_json::{Value, json};
use sqlx::FromRow;

use super::lanes::Lane;
use super::rotations::NewJournal;
use super::types::Instant;
use super::{NewAudit, Sql, Store, StoreError, each, read};
use crate::domain::ids::RotationId;
use crate::domain::rotation::journal::JournalKind;
use crate::domain::rotation::state::State;
use crate::domain::time::Timestamp;

/// The action of the row in which somebody comments on a rotation.
pub const COMMENTED: &str = "rotation.commented";

/// The comments of a rotation that are shown.
const COMMENTS_SHOWN: i64 = 50;

// The lock has the rows of a journal counted one after the other.
const STATE: Sql = Sql {
    sqlite: "SELECT state FROM rotations WHERE id = $1",
    postgres: "SELECT state FROM rotations WHERE id = $1 FOR UPDATE",
};
const LAST: Sql = Sql::same(
    "SELECT seq, at, actor, detail FROM audit WHERE action = 'rotation.commented' AND subject = $1 \
     ORDER BY seq DESC LIMIT $2",
);
const COUNT: Sql =
    Sql::same("SELECT COUNT(*) FROM audit WHERE action = 'rotation.commented' AND subject = $1");

pub(super) const STATEMENTS: &[&Sql] = &[&STATE, &LAST, &COUNT];

/// A comment to write.
#[derive(Clone, Debug)]
pub struct NewComment {
    /// Who writes it.
    pub by: String,
    /// How it came, as votes say it.
    pub method: &'static str,
    /// The text.
    pub text: String,
}

fn subject(id: RotationId) -> String {
    format!("rotation/{id}")
}

/// A comment, as the audit log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commented {
    /// When.
    pub at: Timestamp,
    /// Who wrote it.
    pub by: String,
    /// How it came, as votes say it.
    pub method: String,
    /// The text.
    pub text: String,
}

#[derive(FromRow)]
struct CommentRow {
    seq: i64,
    at: Instant,
    actor: String,
    detail: String,
}

impl TryFrom<CommentRow> for Commented {
    type Error = StoreError;
    fn try_from(row: CommentRow) -> Result<Self, StoreError> {
        let bad = |column| StoreError::corrupt("audit", column, row.seq);
        let detail: Value = serde_json::from_str(&row.detail).map_err(|_| bad("detail"))?;
        let text = |name: &str| detail[name].as_str().unwrap_or_default().to_owned();
        Ok(Self { at: row.at.or(bad("at"))?, by: row.actor, method: text("method"), text: text("comment") })
    }
}

impl NewComment {
    fn audit(&self, id: RotationId, state: State) -> NewAudit {
        NewAudit {
            actor: self.by.clone(),
            action: COMMENTED.to_owned(),
            subject: subject(id),
            detail: json!({ "state": state, "method": self.method, "comment": self.text }).to_string(),
        }
    }
}

impl Store {
    /// Writes a comment into the journal and the audit log; the state of the rotation, in which a final one has got none.
    /// `None` without such a rotation.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn comment(
        &self,
        id: RotationId,
        comment: NewComment,
        now: Timestamp,
    ) -> Result<Option<State>, StoreError> {
        self.transact("rotation.comment", Lane::Command, comment, move |tx, comment, unsure| {
            Box::pin(async move {
                // In the order of a step: the end of the audit log, then the rotation.
                tx.audit_head().await?;
                let found: Option<(String,)> = each!(tx, STATE, |conn, text| sqlx::query_as(text)
                    .bind(id.0)
                    .fetch_optional(conn)
                    .await)?;
                let Some((state,)) = found else { return Ok(None) };
                let state: State =
                    state.parse().map_err(|_| StoreError::corrupt("rotations", "state", id))?;
                let audit = [comment.audit(id, state)];
                if state.is_final() || unsure && tx.is_appended(&audit, now).await? {
                    return Ok(Some(state));
                }
                let entry = NewJournal {
                    actor: comment.by.clone(),
                    kind: JournalKind::Comment,
                    from_state: Some(state),
                    to_state: state,
                    detail: json!({ "comment": comment.text, "method": comment.method }),
                    replay: None,
                    merge: false,
                };
                tx.write_journal(id, &entry, now).await?;
                tx.append_audit(&audit, now).await?;
                Ok(Some(state))
            })
        })
        .await
    }

    /// The last 50 comments on a rotation, the oldest first.
    ///
    /// # Errors
    /// Fails when the database or a stored comment cannot be read.
    pub async fn comments(&self, id: RotationId) -> Result<Vec<Commented>, StoreError> {
        let rows: Vec<CommentRow> = read!(self, LAST, |pool, text| sqlx::query_as(text)
            .bind(subject(id))
            .bind(COMMENTS_SHOWN)
            .fetch_all(pool)
            .await)?;
        rows.into_iter().rev().map(Commented::try_from).collect()
    }

    /// How many comments a rotation has.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn comment_count(&self, id: RotationId) -> Result<i64, StoreError> {
        let (count,): (i64,) =
            read!(self, COUNT, |pool, text| sqlx::query_as(text).bind(subject(id)).fetch_one(pool).await)?;
        Ok(count)
    }
}
