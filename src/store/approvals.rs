//! Votes on rotations.

use sqlx::FromRow;

use super::passkeys::SignedVote;
use super::readable::readable;
use super::seal::Seal;
use super::types::{Instant, storable};
use super::{Sql, Store, StoreError, Tx, each, read};
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::time::Timestamp;
use crate::seal::Digest;

/// The method of the policy's own approval.
pub const OWN_APPROVAL: &str = "auto_approve";

// Another vote stands in the place of the first: the engine asks for it only where it is stronger, or the first is void.
const VOTE: Sql = Sql::same(
    "INSERT INTO approvals (rotation_id, approver, at, method, comment, assertion) VALUES ($1, $2, $3, $4, $5, $6) \
     ON CONFLICT (rotation_id, approver) DO UPDATE SET at = excluded.at, method = excluded.method, \
     comment = excluded.comment, assertion = excluded.assertion",
);
const UNVOTE: Sql = Sql::same("DELETE FROM approvals WHERE rotation_id = $1 AND approver = $2");
// Names sort by their bytes: a language's order differs between servers.
const VOTES: Sql = Sql {
    sqlite: "SELECT v.approver, v.at, v.method, v.comment, v.assertion, s.evidence FROM approvals v \
             LEFT JOIN assertions s ON s.nonce = v.assertion WHERE v.rotation_id = $1 ORDER BY v.at, v.approver",
    postgres: "SELECT v.approver, v.at, v.method, v.comment, v.assertion, s.evidence FROM approvals v \
               LEFT JOIN assertions s ON s.nonce = v.assertion WHERE v.rotation_id = $1 \
               ORDER BY v.at, v.approver COLLATE \"C\"",
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
    /// What a passkey has signed.
    pub signed: Option<Box<SignedVote>>,
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
#[derive(Clone, Debug)]
pub struct Approval {
    /// The approver.
    pub by: String,
    /// The instant.
    pub at: Timestamp,
    /// How it was given.
    pub method: String,
    /// The approver's comment.
    pub comment: Option<String>,
    /// What a passkey has signed.
    pub signed: Option<SignedVote>,
}

#[derive(FromRow)]
struct ApprovalRow {
    approver: String,
    at: Instant,
    method: String,
    comment: Option<String>,
    assertion: Option<String>,
    evidence: Option<String>,
}

impl TryFrom<ApprovalRow> for Approval {
    type Error = StoreError;
    fn try_from(row: ApprovalRow) -> Result<Self, StoreError> {
        let at = row.at.or(StoreError::corrupt("approvals", "at", &row.approver))?;
        let signed = row.evidence.as_deref().map(serde_json::from_str).transpose();
        let signed = signed.map_err(|_| StoreError::corrupt("assertions", "evidence", &row.approver))?;
        Ok(Self { by: row.approver, at, method: row.method, comment: row.comment, signed })
    }
}

/// The subject of the votes on a rotation, which are sealed together.
pub(super) fn votes_subject(id: RotationId) -> String {
    format!("votes/{id}")
}

fn seal(id: RotationId, votes: &[ApprovalRow]) -> Seal {
    let mut fields = Vec::new();
    for vote in votes {
        let at = vote.at.sealed();
        let comment = vote.comment.clone();
        fields.extend([Some(vote.approver.clone()), Some(at), Some(vote.method.clone()), comment]);
        // Votes without a signature are sealed as in earlier versions.
        if vote.assertion.is_some() {
            fields.extend([vote.assertion.clone(), vote.evidence.clone()]);
        }
    }
    let fields: Vec<_> = fields.iter().map(Option::as_deref).collect();
    let subject = votes_subject(id);
    let digest = Digest::of(&subject, &fields);
    Seal::new(subject, digest)
}

impl Tx {
    async fn stored_votes(&mut self, id: RotationId) -> Result<Vec<ApprovalRow>, StoreError> {
        Ok(each!(self, VOTES, |conn, text| sqlx::query_as(text).bind(id.0).fetch_all(conn).await)?)
    }

    /// The seal of the votes on a rotation as they are stored now.
    pub(super) async fn seal_of_votes(&mut self, id: RotationId) -> Result<Seal, StoreError> {
        Ok(seal(id, &self.stored_votes(id).await?))
    }

    /// The votes on a rotation; refuses those that are not the ones that were given and not withdrawn.
    pub(super) async fn sealed_votes(&mut self, id: RotationId) -> Result<Vec<Approval>, StoreError> {
        let votes = self.stored_votes(id).await?;
        self.check_seals(&[seal(id, &votes)]).await?;
        votes.into_iter().map(Approval::try_from).collect()
    }

    /// Returns the seal of the passkey that has signed the vote.
    pub(super) async fn write_vote(
        &mut self,
        id: RotationId,
        vote: &Vote,
        now: Timestamp,
    ) -> Result<Option<Seal>, StoreError> {
        let mut seal = None;
        if let Vote::Yes(NewApproval { by, signed: Some(signed), .. }) = vote {
            seal = Some(self.write_signed(id, by, signed, now).await?);
        }
        let done = match vote {
            Vote::Yes(yes) => each!(self, VOTE, |conn, text| sqlx::query(text)
                .bind(id.0)
                .bind(yes.by.as_str())
                .bind(now)
                .bind(yes.method.as_str())
                .bind(yes.comment.as_deref().map(storable))
                .bind(yes.signed.as_ref().map(|it| it.nonce.as_str()))
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
        if done == 1 { Ok(seal) } else { Err(StoreError::Conflict) }
    }
}

impl Store {
    /// The votes on a rotation, oldest first.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn approvals(&self, id: RotationId) -> Result<Vec<Approval>, StoreError> {
        let rows: Vec<ApprovalRow> =
            read!(self, VOTES, |pool, text| sqlx::query_as(text).bind(id.0).fetch_all(pool).await)?;
        readable(rows.into_iter().map(Approval::try_from))
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
