//! Comments on rotations. A comment decides nothing and counts as nobody's vote: it changes neither the state nor the
//! version nor the proposal, so no step and nobody's reading of the page is disturbed.

use std::time::Duration;

use super::votes::Voter;
use super::{CommandError, check_words};
use crate::domain::ids::RotationId;
use crate::domain::rotation::state::State;
use crate::engine::Engine;
use crate::engine::links::Link;
use crate::store::{COMMENTED, NewComment, RotationRow};

/// The comments of one identity within a minute: each writes a row that stays, and a mail scanner can press the button.
const MOST_A_MINUTE: i64 = 10;

impl Engine {
    /// Records a comment of `by` on an open rotation. With `hash` it is refused where another proposal was read.
    ///
    /// # Errors
    /// Fails, without a change, for an empty or unreadable text, for a rotation that has ended, after ten comments within
    /// a minute, and when the database cannot be written.
    pub async fn comment(
        &self,
        by: impl Into<Voter<'_>>,
        id: RotationId,
        text: &str,
        hash: Option<&str>,
    ) -> Result<RotationRow, CommandError> {
        let by = by.into();
        check_words("comment", Some(text))?;
        let text = text.trim();
        if text.is_empty() {
            let rule = "write what is to be said; nothing was recorded".to_owned();
            return Err(CommandError::Invalid { field: "comment", rule });
        }
        let row = self.rotation(id).await?;
        if hash.is_some_and(|hash| hash != row.proposal_hash) {
            return Err(CommandError::ProposalChanged);
        }
        if row.rotation.state.is_final() {
            return Err(ended(&row, row.rotation.state));
        }
        let now = self.clock.now();
        let since = now - Duration::from_mins(1);
        if self.store.done_since(by.name, COMMENTED, since).await? >= MOST_A_MINUTE {
            return Err(CommandError::TooManyComments);
        }
        let comment = NewComment { by: by.name.to_owned(), method: by.method, text: text.to_owned() };
        match self.store.comment(id, comment, now).await? {
            None => return Err(CommandError::NoRotation(id)),
            Some(state) if state.is_final() => return Err(ended(&self.rotation(id).await?, state)),
            Some(_) => {}
        }
        // Sending fails when no stream listens, which is no error.
        let _ = self.journal.send(id);
        Ok(row)
    }

    /// The same by a link in a mail, which is not used up: it still decides once.
    ///
    /// # Errors
    /// As [`Engine::comment`], and for a link that was used or has ended.
    pub async fn comment_by_link(&self, link: &Link, text: &str) -> Result<RotationRow, CommandError> {
        if self.clock.now() >= link.expires_at {
            return Err(CommandError::LinkEnded(link.expires_at));
        }
        if let Some(used) = &link.used {
            return Err(CommandError::LinkUsed(used.clone()));
        }
        self.comment(link.voter(), link.row.rotation.id, text, Some(&link.row.proposal_hash)).await
    }
}

fn ended(row: &RotationRow, state: State) -> CommandError {
    let at = row.rotation.ending.finished_at.map(|at| format!(": it ended at {at}")).unwrap_or_default();
    let then = format!(
        "{at}; what is left to be said fits the next proposal, `keywheel rotate {} --to KEY --reason TEXT`",
        row.rotation.group_id
    );
    CommandError::Illegal { verb: "comment", state, then }
}
