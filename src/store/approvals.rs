//! Votes on rotations.

use sqlx::FromRow;

use super::ballots::{BallotFacts, OWN_APPROVAL};
use super::seal::Seal;
use super::types::storable;
use super::{Sql, Store, StoreError, Tx, each, read};
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::time::Timestamp;
use crate::domain::vote::{Ballot, Counted};
use crate::seal::Digest;

const VOTE: Sql = Sql::same(
    "INSERT INTO approvals (rotation_id, approver, at, method, comment) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
);
const UNVOTE: Sql = Sql::same("DELETE FROM approvals WHERE rotation_id = $1 AND approver = $2");
// Names sort by their bytes: a language's order differs between servers.
const VOTES: Sql = Sql {
    sqlite: "SELECT approver, at, method, comment FROM approvals WHERE rotation_id = $1 ORDER BY at, approver",
    postgres: "SELECT approver, at, method, comment FROM approvals WHERE rotation_id = $1 ORDER BY at, approver COLLATE \"C\"",
};
const LAST_OWN: Sql = Sql::same(
    "SELECT MAX(a.at) FROM approvals a JOIN rotations r ON r.id = a.rotation_id WHERE r.group_id = $1 AND a.method = $2",
);

pub(super) const STATEMENTS: &[&Sql] = &[&VOTE, &UNVOTE, &VOTES, &LAST_OWN];

/// An approval to write.
#[derive(Clone, Debug)]
pub struct NewApproval {
    /// The approver.
    pub by: String,
    /// How it was given.
    pub method: String,
    /// The approver's comment.
    pub comment: Option<String>,
}

/// The change of the votes by a step.
#[derive(Clone, Debug)]
pub enum Vote {
    /// One more approval.
    Yes(NewApproval),
    /// This approver's approval is withdrawn.
    Withdrawn(String),
}

/// A stored approval.
#[derive(Clone, Debug, FromRow)]
pub struct Approval {
    /// The approver.
    #[sqlx(rename = "approver")]
    pub by: String,
    /// The instant.
    pub at: Timestamp,
    /// How it was given.
    pub method: String,
    /// The approver's comment.
    pub comment: Option<String>,
}

/// The subject of the votes on a rotation, which are sealed together.
pub(super) fn votes_subject(id: RotationId) -> String {
    format!("votes/{id}")
}

impl Tx {
    /// The seal of the votes on a rotation as they are stored now.
    pub(super) async fn seal_of_votes(&mut self, id: RotationId) -> Result<Seal, StoreError> {
        let votes: Vec<Approval> =
            each!(self, VOTES, |conn, text| sqlx::query_as(text).bind(id.0).fetch_all(conn).await)?;
        let mut fields = Vec::new();
        for vote in &votes {
            let at = vote.at.to_string();
            fields.extend([Some(vote.by.clone()), Some(at), Some(vote.method.clone()), vote.comment.clone()]);
        }
        let fields: Vec<_> = fields.iter().map(Option::as_deref).collect();
        let subject = votes_subject(id);
        let digest = Digest::of(&subject, &fields);
        Ok(Seal::new(subject, digest))
    }

    /// Refuses votes that are not those that were given and not withdrawn.
    pub(super) async fn check_votes_seal(&mut self, id: RotationId) -> Result<(), StoreError> {
        match self.seal_of_votes(id).await? {
            Seal { subject, digest: Some(digest) } => self.check_seal(&subject, digest).await,
            Seal { subject, digest: None } => Err(StoreError::tampered(&subject, "it cannot be read")),
        }
    }

    /// Counts the votes on a rotation anew, before its first PATCH, by what is stored now and is as it was sealed.
    /// `known` is what the step knows beside that.
    pub(super) async fn check_votes(
        &mut self,
        id: RotationId,
        needed: u32,
        known: &Ballot,
        group: &GroupId,
    ) -> Result<(), StoreError> {
        self.check_votes_seal(id).await?;
        let BallotFacts { votes, mut identities, bars } = self.ballot_facts(id, group).await?;
        if votes.iter().any(|vote| vote.of_policy) {
            return Ok(());
        }
        self.check_settings().await?;
        self.sealed_loosenings(group).await?;
        let is_compared = |name: &str| name == known.proposer || bars.iter().any(|bar| bar.by == name);
        for token in self.tokens_in_force().await? {
            if self.sealed(&token.subject()).await? == Some(token.digest()) {
                continue;
            }
            // Who the proposer is cannot be told any more, so nobody can be told apart from it; the same for who is barred.
            if is_compared(&token.name) {
                self.check_seals(&[token.seal()]).await?;
            }
            identities.remove(&token.name);
        }
        for token in self.revoked_tokens().await? {
            if is_compared(&token.name) {
                self.check_seals(&[token.revoked()]).await?;
            }
        }
        let local = known.identities.iter().filter(|(name, _)| name.starts_with("local:"));
        identities.extend(local.map(|(name, it)| (name.clone(), it.clone())));
        let Counted { given, void } = Ballot { votes, identities, bars, ..known.clone() }.count();
        if given >= needed {
            return Ok(());
        }
        Err(StoreError::Unapproved { voters: void.into_iter().map(|(voter, _)| voter).collect() })
    }

    pub(super) async fn write_vote(
        &mut self,
        id: RotationId,
        vote: &Vote,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let done = match vote {
            Vote::Yes(yes) => each!(self, VOTE, |conn, text| sqlx::query(text)
                .bind(id.0)
                .bind(yes.by.as_str())
                .bind(now)
                .bind(yes.method.as_str())
                .bind(yes.comment.as_deref().map(storable))
                .execute(conn)
                .await
                .map(|done| done.rows_affected()))?,
            Vote::Withdrawn(by) => each!(self, UNVOTE, |conn, text| sqlx::query(text)
                .bind(id.0)
                .bind(by.as_str())
                .execute(conn)
                .await
                .map(|done| done.rows_affected()))?,
        };
        // No row: the vote stands or is withdrawn already, and must not count twice.
        if done == 1 { Ok(()) } else { Err(StoreError::Conflict) }
    }
}

impl Store {
    /// The votes on a rotation, oldest first.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn approvals(&self, id: RotationId) -> Result<Vec<Approval>, StoreError> {
        Ok(read!(self, VOTES, |pool, text| sqlx::query_as(text).bind(id.0).fetch_all(pool).await)?)
    }

    /// When the policy last approved a rotation of this project in the place of people.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn last_own_approval(&self, group: &GroupId) -> Result<Option<Timestamp>, StoreError> {
        let (at,): (Option<Timestamp>,) = read!(self, LAST_OWN, |pool, text| sqlx::query_as(text)
            .bind(group.as_str())
            .bind(OWN_APPROVAL)
            .fetch_one(pool)
            .await)?;
        Ok(at)
    }
}
