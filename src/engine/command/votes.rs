//! Votes on a rotation: an approval counts once for each approver. The proposer has no vote unless the
//! project's policy allows it.

use super::super::Engine;
use super::CommandError;
use crate::domain::rotation::outcome::Command;
use crate::store::{NewApproval, RotationRow, Vote};

/// The approval of `actor`; `None` when it is counted already.
pub(super) async fn approve(
    engine: &Engine,
    row: &RotationRow,
    actor: &str,
    comment: Option<&str>,
) -> Result<Option<(Command, Vote)>, CommandError> {
    if actor == row.requested_by && !row.rotation.rules.policy.self_approval {
        return Err(CommandError::SelfApproval(actor.to_owned()));
    }
    let votes = engine.store.approvals(row.rotation.id).await?;
    if !row.rotation.state.is_final() && votes.iter().any(|vote| vote.by == actor) {
        return Ok(None);
    }
    let given = u32::try_from(votes.len()).unwrap_or(u32::MAX).saturating_add(1);
    let vote = NewApproval {
        by: actor.to_owned(),
        method: "api".to_owned(),
        comment: comment.map(ToOwned::to_owned),
    };
    Ok(Some((Command::Approve { given }, Vote::Yes(vote))))
}

/// The withdrawal of `actor`'s approval.
pub(super) async fn withdraw(
    engine: &Engine,
    row: &RotationRow,
    actor: &str,
) -> Result<(Command, Vote), CommandError> {
    let votes = engine.store.approvals(row.rotation.id).await?;
    let left = votes.iter().filter(|vote| vote.by != actor).count();
    if left == votes.len() {
        return Err(CommandError::NothingToWithdraw(actor.to_owned()));
    }
    let given = u32::try_from(left).unwrap_or(u32::MAX);
    Ok((Command::Withdraw { given }, Vote::Withdrawn(actor.to_owned())))
}
