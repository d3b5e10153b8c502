//! Votes on a rotation. Which of them count is decided by [`Ballot`]; this gathers what it depends on.

use super::super::authority::{plain, rows};
use super::super::settling::{delays, unreadable};
use super::super::{ENGINE, Engine};
use super::CommandError;
use crate::domain::notice::{Authority, Kind};
use crate::domain::role::Role;
use crate::domain::rotation::outcome::Command;
use crate::domain::rotation::state::State;
use crate::domain::vote::{Ballot, CastVote, Counted, Terms};
use crate::store::{NewApproval, NewOutbox, RotationRow, StoreError, Vote};

/// What the count of the votes on `row` depends on beside what is stored about them.
pub(in crate::engine) fn terms(engine: &Engine, row: &RotationRow) -> Terms {
    let it = &row.rotation;
    Terms {
        proposer: row.requested_by.clone(),
        proposed_at: it.created_at,
        self_approval: it.rules.policy.self_approval,
        excluded: it.rules.excluded.clone(),
        local_approves: engine.settings.socket_role.includes(Role::Approver),
        delays: delays(engine),
        now: engine.clock.now(),
    }
}

/// Everything that decides which votes on `row` count. `asked` is the name of who wants to vote.
async fn ballot(engine: &Engine, row: &RotationRow, asked: Option<&str>) -> Result<Ballot, StoreError> {
    let it = &row.rotation;
    let stored = engine.store.stored_ballot(it.id, &it.group_id).await?;
    terms(engine, row).ballot(stored, asked).map_err(unreadable)
}

/// The votes that are missing, and who could give one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct Outstanding {
    /// The votes that count.
    pub(in crate::engine) given: u32,
    /// Who gave one, whether it counts or not.
    pub(in crate::engine) voted: Vec<String>,
    /// The tokens whose vote would count now.
    pub(in crate::engine) may: Vec<String>,
}

/// The votes that are missing on `row`.
///
/// # Errors
/// Fails when the database cannot be read.
pub(in crate::engine) async fn outstanding(
    engine: &Engine,
    row: &RotationRow,
) -> Result<Outstanding, StoreError> {
    let ballot = ballot(engine, row, None).await?;
    let given = ballot.count().given;
    let counts = |name: &&String| {
        let mut with = ballot.clone();
        with.votes.push(CastVote { by: (*name).clone(), at: with.now, of_policy: false });
        ballot.refusal(name).is_none() && with.count().given > given
    };
    let tokens = ballot.identities.keys().filter(|name| !name.starts_with("local:"));
    let may = tokens.filter(counts).cloned().collect();
    let voted = ballot.votes.iter().map(|vote| vote.by.clone()).collect();
    Ok(Outstanding { given, voted, may })
}

/// The approval of `actor`; `None` when it is counted already.
pub(super) async fn approve(
    engine: &Engine,
    row: &RotationRow,
    actor: &str,
    comment: Option<&str>,
) -> Result<Option<(Command, Option<Vote>)>, CommandError> {
    let mut ballot = ballot(engine, row, Some(actor)).await?;
    let has_voted = ballot.votes.iter().any(|vote| vote.by == actor);
    if let Some(why) = ballot.refusal(actor) {
        return Err(CommandError::VoteVoid(Box::new(why)));
    }
    if has_voted && !row.rotation.state.is_final() {
        // A vote that did not count before may count now.
        let given = ballot.count().given;
        let more =
            row.rotation.state == State::AwaitingApproval && given > row.rotation.permission.quorum.given;
        return Ok(more.then_some((Command::Approve { given }, None)));
    }
    ballot.votes.push(CastVote { by: actor.to_owned(), at: ballot.now, of_policy: false });
    let given = ballot.count().given;
    let vote = NewApproval {
        by: actor.to_owned(),
        method: "api".to_owned(),
        comment: comment.map(ToOwned::to_owned),
    };
    Ok(Some((Command::Approve { given }, Some(Vote::Yes(vote)))))
}

/// The withdrawal of `actor`'s approval.
pub(super) async fn withdraw(
    engine: &Engine,
    row: &RotationRow,
    actor: &str,
) -> Result<(Command, Vote), CommandError> {
    let mut ballot = ballot(engine, row, Some(actor)).await?;
    let before = ballot.votes.len();
    ballot.votes.retain(|vote| vote.by != actor);
    if ballot.votes.len() == before {
        return Err(CommandError::NothingToWithdraw(actor.to_owned()));
    }
    Ok((Command::Withdraw { given: ballot.count().given }, Vote::Withdrawn(actor.to_owned())))
}

/// A count of the votes that differs from the recorded one.
pub(in crate::engine) struct Recount {
    /// The command that records it.
    pub(in crate::engine) command: Command,
    /// The reasons, for the journal.
    pub(in crate::engine) why: String,
    /// What the owners hear of it.
    pub(in crate::engine) outbox: Vec<NewOutbox>,
}

/// Counts the votes of a rotation that has sent nothing: tokens are revoked and people loosen rules after they have
/// voted. `None` when the recorded count is right.
pub(in crate::engine) async fn recount(
    engine: &Engine,
    row: &RotationRow,
) -> Result<Option<Recount>, StoreError> {
    let it = &row.rotation;
    let waits = it.state == State::AwaitingApproval;
    // Once there were enough votes, time makes none of them void.
    let is_counted = || {
        let counted = it.permission.approved_at;
        let decided = engine.store.seals().decided_at();
        counted.is_some_and(|counted| decided.is_none_or(|decided| decided < counted))
    };
    if !waits && (it.state != State::Approved || is_counted()) {
        return Ok(None);
    }
    let ballot = ballot(engine, row, None).await?;
    let recorded = it.permission.quorum.given;
    let Counted { given, void } = ballot.count();
    if given > recorded && waits {
        let why = "votes count now that did not count before".to_owned();
        return Ok(Some(Recount { command: Command::Approve { given }, why, outbox: Vec::new() }));
    }
    if given >= recorded {
        return Ok(None);
    }
    let why: Vec<_> =
        void.iter().map(|(by, why)| format!("the vote of {by} does not count: {why}")).collect();
    let why = why.join("; ");
    let owners = engine.store.owners(&it.group_id).await?;
    let facts = Authority {
        group_id: Some(it.group_id.clone()),
        project_name: Some(row.project_name.clone()),
        rotation_id: Some(it.id),
        detail: Some(why.clone()),
        ..plain(Kind::VoteVoid, it.group_id.to_string(), ENGINE, ballot.now)
    };
    let identity = format!("{}/vote_void/{}", it.id, row.version);
    let outbox = rows(engine, &identity, facts, &owners, ballot.now);
    Ok(Some(Recount { command: Command::Withdraw { given }, why, outbox }))
}
