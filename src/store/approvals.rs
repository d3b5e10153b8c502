//! Votes on rotations.

use sqlx::FromRow;

use super::seal::Seal;
use super::tokens::SealedToken;
use super::types::{Instant, storable};
use super::{Sql, Store, StoreError, Tx, each, read};
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::role::Role;
use crate::domain::time::Timestamp;
use crate::seal::Digest;

/// The method of the policy's own approval.
pub const OWN_APPROVAL: &str = "auto_approve";

const VOTE: Sql = Sql::same(
    "INSERT INTO approvals (rotation_id, approver, at, method, comment) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
);
const UNVOTE: Sql = Sql::same("DELETE FROM approvals WHERE rotation_id = $1 AND approver = $2");
// Names sort by their bytes: a language's order differs between servers.
const VOTES: Sql = Sql {
    sqlite: "SELECT approver, at, method, comment FROM approvals WHERE rotation_id = $1 ORDER BY at, approver",
    postgres: "SELECT approver, at, method, comment FROM approvals WHERE rotation_id = $1 ORDER BY at, approver COLLATE \"C\"",
};
const CAST: Sql = Sql::same(
    "SELECT a.approver, a.method, t.hash AS token_hash, t.roles AS token_roles, t.created_at AS token_created_at \
     FROM approvals a LEFT JOIN tokens t ON t.name = a.approver AND t.revoked_at IS NULL WHERE a.rotation_id = $1",
);
const LAST_OWN: Sql = Sql::same(
    "SELECT MAX(a.at) FROM approvals a JOIN rotations r ON r.id = a.rotation_id WHERE r.group_id = $1 AND a.method = $2",
);

pub(super) const STATEMENTS: &[&Sql] = &[&VOTE, &UNVOTE, &VOTES, &CAST, &LAST_OWN];

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

/// A vote, with the token of its voter.
#[derive(Debug, FromRow)]
struct CastVote {
    approver: String,
    method: String,
    token_hash: Option<String>,
    token_roles: Option<String>,
    token_created_at: Option<Instant>,
}

impl CastVote {
    /// The voter's token, for one who has a token that is in force.
    fn token(&self) -> Option<SealedToken> {
        Some(SealedToken {
            name: self.approver.clone(),
            hash: self.token_hash.clone()?,
            roles: self.token_roles.clone()?,
            created_at: self
                .token_created_at?
                .or(StoreError::corrupt("tokens", "created_at", &self.approver))
                .ok()?,
        })
    }

    /// The policy's own approval stands for all; people on the machine have no token.
    fn is_without_token(&self) -> bool {
        self.method == OWN_APPROVAL || self.approver.starts_with("local:")
    }
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

    /// Counts the votes on a rotation anew, before its first PATCH: those of identities that exist and may approve.
    pub(super) async fn check_votes(&mut self, id: RotationId, needed: u32) -> Result<(), StoreError> {
        self.check_votes_seal(id).await?;
        let votes: Vec<CastVote> =
            each!(self, CAST, |conn, text| sqlx::query_as(text).bind(id.0).fetch_all(conn).await)?;
        let (mut counted, mut without) = (0, Vec::new());
        for vote in &votes {
            if vote.is_without_token() {
                counted += if vote.method == OWN_APPROVAL { needed } else { 1 };
                continue;
            }
            let is_good = match vote.token() {
                None => false,
                Some(token) => {
                    self.sealed(&token.subject()).await? == Some(token.digest()) && token.may(Role::Approver)
                }
            };
            if is_good {
                counted += 1;
            } else {
                without.push(vote.approver.clone());
            }
        }
        if counted < needed { Err(StoreError::Unapproved { voters: without }) } else { Ok(()) }
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
