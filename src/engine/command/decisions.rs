//! Decisions of operators on a rotation: each is one transition of the machine, committed with its vote.

use super::super::Engine;
use super::super::step::{Said, commit};
use super::votes::Voter;
use super::{CommandError, TRIES, check_words, votes};
use crate::domain::ids::RotationId;
use crate::domain::rotation::machine::next;
use crate::domain::rotation::outcome::{Command, Outcome};
use crate::store::{LinkUse, RotationRow, StoreError};

impl Engine {
    /// Carries out `verb` on a rotation for `voter`.
    ///
    /// # Errors
    /// Fails, without a change, for an illegal verb, the proposer's own approval and a stale hash.
    pub async fn say(
        &self,
        voter: impl Into<Voter<'_>>,
        id: RotationId,
        verb: OperatorVerb,
        comment: Option<String>,
        hash: Option<&str>,
    ) -> Result<RotationRow, CommandError> {
        let voter = voter.into();
        let actor = voter.name;
        check_words("comment", comment.as_deref())?;
        let comment = comment.filter(|text| !text.trim().is_empty());
        for _ in 0..TRIES {
            let row = self.rotation(id).await?;
            // Whatever uses a link changes the rotation too, so of two that use it at once one is repeated.
            if let Some(link) = voter.link
                && let Some(used) = self.store.link_use(link).await?
            {
                return Err(CommandError::LinkUsed(used));
            }
            if hash.is_some_and(|hash| hash != row.proposal_hash) {
                return Err(CommandError::ProposalChanged);
            }
            let (command, vote) = match verb {
                OperatorVerb::Approve => {
                    match Box::pin(votes::approve(self, &row, voter, comment.as_deref())).await? {
                        Some(decided) => decided,
                        None => return Ok(row),
                    }
                }
                OperatorVerb::Withdraw => {
                    let (command, vote) = votes::withdraw(self, &row, actor).await?;
                    (command, Some(vote))
                }
                OperatorVerb::Reject => (Command::Reject, None),
                OperatorVerb::Cancel => (Command::Cancel, None),
                OperatorVerb::Resume => (Command::Resume, None),
                OperatorVerb::Rollback => (Command::Rollback, None),
                OperatorVerb::Accept => (Command::Accept, None),
                OperatorVerb::Close => (Command::Close, None),
            };
            let outcome = Outcome::Said(command);
            let step = next(&row.rotation, &outcome, self.clock.now());
            if step.illegal {
                let it = &row.rotation;
                let then = it.ending.finished_at.map(|at| {
                    format!(
                        ": it ended at {at}; propose it again with `keywheel rotate {} --to {}`",
                        it.group_id, it.new_key
                    )
                });
                let (verb, then) = (verb.as_str(), then.unwrap_or_default());
                return Err(CommandError::Illegal { verb, state: it.state, then });
            }
            let audit = voter.link.map(|link| LinkUse::record(actor, link, verb.as_str()));
            let said = Said {
                by: actor,
                comment: comment.as_deref(),
                vote,
                audit: audit.into_iter().collect(),
                outbox: Vec::new(),
            };
            let row = RotationRow { lease: None, ..row };
            match Box::pin(commit(self, &row, step, &outcome, said)).await {
                Ok(row) => {
                    self.rotations_due.notify_one();
                    return Ok(row);
                }
                Err(StoreError::Conflict | StoreError::LeaseLost) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// The verbs that are legal now for a rotation that waits for an operator.
    #[must_use]
    pub fn legal(&self, row: &RotationRow) -> Vec<OperatorVerb> {
        let now = self.clock.now();
        let verbs = [
            (OperatorVerb::Resume, Command::Resume),
            (OperatorVerb::Rollback, Command::Rollback),
            (OperatorVerb::Accept, Command::Accept),
            (OperatorVerb::Close, Command::Close),
        ];
        let is_legal = |command| !next(&row.rotation, &Outcome::Said(command), now).illegal;
        verbs.into_iter().filter_map(|(verb, command)| is_legal(command).then_some(verb)).collect()
    }
}

/// The verbs of operators on a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorVerb {
    /// Approves the rotation.
    Approve,
    /// Withdraws the own approval, before the first PATCH.
    Withdraw,
    /// Rejects the proposal.
    Reject,
    /// Cancels the rotation.
    Cancel,
    /// Resumes the rotation.
    Resume,
    /// Puts the old key back.
    Rollback,
    /// Accepts the new key without our verification.
    Accept,
    /// Ends the rotation with the key that Atlas holds.
    Close,
}

impl OperatorVerb {
    /// The word used in the API and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            OperatorVerb::Approve => "approve",
            OperatorVerb::Withdraw => "withdraw",
            OperatorVerb::Reject => "reject",
            OperatorVerb::Cancel => "cancel",
            OperatorVerb::Resume => "resume",
            OperatorVerb::Rollback => "rollback",
            OperatorVerb::Accept => "accept",
            OperatorVerb::Close => "close",
        }
    }
}
