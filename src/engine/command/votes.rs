//! Votes on a rotation. Which of them count is decided by [`Ballot`]; this gathers what it depends on.

use super::super::announce::asked;
use super::super::authority::{plain, rows};
use super::super::settling::{delays, unreadable};
use super::super::{ENGINE, Engine};
use super::CommandError;
use crate::domain::approver::{BY_TOKEN, Strength};
use crate::domain::notice::{Authority, Kind};
use crate::domain::role::Role;
use crate::domain::rotation::outcome::Command;
use crate::domain::rotation::state::State;
use crate::domain::vote::{BY_MAIL, Ballot, CastVote, Counted, Identity, Stored, Terms};
use crate::store::{NewApproval, NewOutbox, RotationRow, SignedVote, StoreError, Vote};

/// What the count of the votes on `row` depends on beside what is stored about them.
pub(in crate::engine) fn terms(engine: &Engine, row: &RotationRow) -> Terms {
    let it = &row.rotation;
    Terms {
        proposer: row.requested_by.clone(),
        proposed_at: it.created_at,
        self_approval: it.rules.policy.self_approval,
        excluded: it.rules.excluded.clone(),
        local_approves: engine.settings.socket_role.includes(Role::Approver),
        approvers: it.rules.policy.approvers.clone(),
        owners: it.rules.owners.clone(),
        least: it.rules.policy.approval_method,
        issuers: engine.settings.issuers.clone(),
        site: engine.site().ok().map(|it| it.id),
        delays: delays(engine),
        now: engine.clock.now(),
    }
}

/// Everything that decides which votes on `row` count. `asked` is the name of who wants to vote.
pub(in crate::engine) async fn ballot(
    engine: &Engine,
    row: &RotationRow,
    asked: Option<&str>,
) -> Result<Ballot, StoreError> {
    let it = &row.rotation;
    let issuers = &engine.settings.issuers;
    let stored = engine.store.stored_ballot(it.id, &it.group_id, issuers).await?;
    terms(engine, row).ballot(stored, asked).map_err(unreadable)
}

/// The votes that are missing, and who could give one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct Outstanding {
    /// The votes that count.
    pub(in crate::engine) given: u32,
    /// Who gave one, whether it counts or not.
    pub(in crate::engine) voted: Vec<String>,
    /// The tokens and people whose vote would count now.
    pub(in crate::engine) may: Vec<String>,
    /// The addresses that can give one by the link of a mail, and in no other way.
    pub(in crate::engine) by_link: Vec<String>,
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
    let (strength, mut with) = (Strength::Session.max(ballot.least), ballot.clone());
    let mut may = Vec::new();
    let is_asked =
        |name: &str, it: &Identity| !name.starts_with("local:") && (it.may_approve || name.contains(':'));
    for (name, _) in ballot.identities.iter().filter(|(name, it)| is_asked(name, it)) {
        if ballot.refusal(name, strength, None).is_none() {
            let (by, at, passkey) = (name.clone(), with.now, None);
            with.votes.push(CastVote { by, at, of_policy: false, strength, passkey });
            if with.count().given > given {
                may.push(name.clone());
            }
            with.votes.pop();
        }
    }
    let mut by_link = Vec::new();
    for address in engine.answerers(row).await? {
        let name = format!("{BY_MAIL}{address}");
        with.identities.entry(name.clone()).or_insert_with(|| Identity::mail(&address));
        // Who may sign in is told that way.
        let signs_in = may.iter().any(|it| is_of(&ballot, it, &address));
        if !signs_in && with.refusal(&name, Strength::Link, None).is_none() {
            by_link.push(address);
        }
    }
    let voted = ballot.votes.iter().map(|vote| vote.by.clone()).collect();
    Ok(Outstanding { given, voted, may, by_link })
}

/// Whether `name` is an identity of the person with this address.
fn is_of(ballot: &Ballot, name: &str, address: &str) -> bool {
    let person = ballot.identities.get(name).and_then(|it| it.person.as_deref());
    person.is_some_and(|it| it.eq_ignore_ascii_case(address))
}

/// Who votes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Voter<'a> {
    /// The identity.
    pub name: &'a str,
    /// The method as it is recorded.
    pub method: &'static str,
    /// The hash of the link that it uses up.
    pub link: Option<&'a str>,
    /// What a passkey has signed.
    pub signed: Option<&'a SignedVote>,
}

impl<'a> Voter<'a> {
    /// The same, with the signature of a passkey.
    #[must_use]
    pub fn signing(self, signed: &'a SignedVote) -> Self {
        Self { method: Strength::Passkey.as_str(), signed: Some(signed), ..self }
    }

    fn passkey(&self) -> Option<&'a str> {
        self.signed.map(|it| it.passkey.as_str())
    }
}

/// The holder of a token.
impl<'a> From<&'a str> for Voter<'a> {
    fn from(name: &'a str) -> Self {
        Self { name, method: BY_TOKEN, link: None, signed: None }
    }
}

/// What a person may say about a rotation that waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Say {
    /// Why an approval of this person would not count, or not once more; `None` when it would.
    pub refused: Option<String>,
    /// Whether this person has given one, in whatever way.
    pub has_voted: bool,
}

impl Say {
    /// Whether this person's yes counts, or would.
    #[must_use]
    pub const fn has_a_say(&self) -> bool {
        self.has_voted || self.refused.is_none()
    }
}

impl Engine {
    /// What `actor` may say about `row`.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn may_say(&self, row: &RotationRow, voter: Voter<'_>) -> Result<Say, StoreError> {
        self.may_say_among(row, voter, &self.voters().await?).await
    }

    /// Everybody who may vote, whatever the rotation.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn voters(&self) -> Result<Stored, StoreError> {
        self.store.electorate(&self.settings.issuers).await
    }

    /// [`Engine::may_say`] where everybody who may vote was read already.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn may_say_among(
        &self,
        row: &RotationRow,
        voter: Voter<'_>,
        voters: &Stored,
    ) -> Result<Say, StoreError> {
        let it = &row.rotation;
        let stored = self.store.ballot_among(it.id, &it.group_id, voters.clone()).await?;
        let ballot = terms(self, row).ballot(stored, Some(voter.name)).map_err(unreadable)?;
        let strength = Strength::of(voter.method);
        let (own, void) = (ballot.own_vote(voter.name), ballot.count().void);
        let counts = |vote: &&CastVote| void.iter().all(|(by, _)| *by != vote.by);
        let again = own
            .filter(|vote| vote.strength >= strength)
            .filter(counts)
            .map(|_| "you have approved it".to_owned());
        Ok(Say {
            refused: again
                .or_else(|| ballot.refusal(voter.name, strength, voter.passkey()).map(|why| why.to_string())),
            has_voted: own.is_some(),
        })
    }
}

/// The approval of `actor`; `None` when it is counted already.
pub(super) async fn approve(
    engine: &Engine,
    row: &RotationRow,
    voter: Voter<'_>,
    comment: Option<&str>,
) -> Result<Option<(Command, Option<Vote>)>, CommandError> {
    let (actor, strength) = (voter.name, Strength::of(voter.method));
    let mut ballot = ballot(engine, row, Some(actor)).await?;
    // A vote that does not count any more is given anew, as with another passkey.
    let is_void = ballot.count().void.iter().any(|(by, _)| by == actor);
    let has_voted = !is_void && ballot.votes.iter().any(|vote| vote.by == actor && vote.strength >= strength);
    if let Some(why) = ballot.refusal(actor, strength, voter.passkey()) {
        return Err(CommandError::VoteVoid(Box::new(why)));
    }
    if has_voted && !row.rotation.state.is_final() {
        // A vote that did not count before may count now.
        let given = ballot.count().given;
        let more =
            row.rotation.state == State::AwaitingApproval && given > row.rotation.permission.quorum.given;
        return Ok(more.then_some((Command::Approve { given }, None)));
    }
    ballot.votes.retain(|vote| vote.by != actor);
    let passkey = voter.passkey().map(str::to_owned);
    ballot.votes.push(CastVote { by: actor.to_owned(), at: ballot.now, of_policy: false, strength, passkey });
    let given = ballot.count().given;
    let vote = NewApproval {
        by: actor.to_owned(),
        method: voter.method.to_owned(),
        comment: comment.map(ToOwned::to_owned),
        signed: voter.signed.cloned().map(Box::new),
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
    let Some(by) = ballot.own_vote(actor).map(|vote| vote.by.clone()) else {
        return Err(CommandError::NothingToWithdraw(actor.to_owned()));
    };
    ballot.votes.retain(|vote| vote.by != by);
    Ok((Command::Withdraw { given: ballot.count().given }, Vote::Withdrawn(by)))
}

/// A count of the votes that differs from the recorded one.
pub(in crate::engine) struct Recount {
    /// The command that records it.
    pub(in crate::engine) command: Command,
    /// The reasons, for the journal.
    pub(in crate::engine) why: String,
    /// What those hear of it who were asked to approve.
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
    let people = asked(&engine.store.owners(&it.group_id).await?, &it.rules);
    let facts = Authority {
        group_id: Some(it.group_id.clone()),
        project_name: Some(row.project_name.clone()),
        rotation_id: Some(it.id),
        detail: Some(why.clone()),
        ..plain(Kind::VoteVoid, it.group_id.to_string(), ENGINE, ballot.now)
    };
    let identity = format!("{}/vote_void/{}", it.id, row.version);
    let outbox = rows(engine, &identity, facts, &people, ballot.now);
    Ok(Some(Recount { command: Command::Withdraw { given }, why, outbox }))
}
