//! Comments on rotations: journal rows that decide nothing.
//!
//! A comment moves no version, so a step that is under way is not begun again because of it, and nobody's form goes
//! stale. It is not sealed, because it authorises nothing; the audit log has a copy.

use serde_json::json;

use super::lanes::Lane;
use super::rotations::{EntryRow, JournalEntry, NewJournal};
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
    "SELECT seq, at, actor, kind, from_state, to_state, detail, count, last_at FROM journal \
     WHERE rotation_id = $1 AND kind = 'comment' ORDER BY seq DESC LIMIT $2",
);
const COUNT: Sql = Sql::same("SELECT COUNT(*) FROM journal WHERE rotation_id = $1 AND kind = 'comment'");

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

impl NewComment {
    fn audit(&self, id: RotationId, state: State) -> NewAudit {
        NewAudit {
            actor: self.by.clone(),
            action: COMMENTED.to_owned(),
            subject: format!("rotation/{id}"),
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
    pub async fn comments(&self, id: RotationId) -> Result<Vec<JournalEntry>, StoreError> {
        let rows: Vec<EntryRow> = read!(self, LAST, |pool, text| sqlx::query_as(text)
            .bind(id.0)
            .bind(COMMENTS_SHOWN)
            .fetch_all(pool)
            .await)?;
        rows.into_iter().rev().map(|row| row.entry(id)).collect()
    }

    /// How many comments a rotation has.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn comment_count(&self, id: RotationId) -> Result<i64, StoreError> {
        let (count,): (i64,) =
            read!(self, COUNT, |pool, text| sqlx::query_as(text).bind(id.0).fetch_one(pool).await)?;
        Ok(count)
    }
}
