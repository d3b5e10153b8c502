//! Votes, tokens, and the budget of Atlas log-ins.

use std::time::Duration;

use sqlx::FromRow;

use super::retry::persist;
use super::types::storable;
use super::{NewAudit, Sql, Store, StoreError, Tx, each, read};
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::role::Role;
use crate::domain::time::Timestamp;

/// Log-ins a credential may ask for in one minute, restarts included.
const TOKEN_REQUESTS_A_MINUTE: i64 = 10;

/// The method of the policy's own yes.
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
const LAST_OWN: Sql = Sql::same(
    "SELECT MAX(a.at) FROM approvals a JOIN rotations r ON r.id = a.rotation_id WHERE r.group_id = $1 AND a.method = $2",
);
const TOKEN: Sql = Sql::same(
    "INSERT INTO tokens (name, hash, roles, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
);
const BY_HASH: Sql = Sql::same(
    "SELECT name, roles, created_at, revoked_at FROM tokens WHERE hash = $1 AND revoked_at IS NULL",
);
const TOKENS: Sql = Sql {
    sqlite: "SELECT name, roles, created_at, revoked_at FROM tokens ORDER BY name",
    postgres: "SELECT name, roles, created_at, revoked_at FROM tokens ORDER BY name COLLATE \"C\"",
};
const REVOKE: Sql = Sql::same("UPDATE tokens SET revoked_at = $2 WHERE name = $1 AND revoked_at IS NULL");
// Two daemons on one PostgreSQL must not both count nine. On SQLite the transaction itself is the turn.
pub(super) const TURN: Sql = Sql {
    sqlite: "SELECT $1 AS turn",
    postgres: "SELECT pg_advisory_xact_lock(hashtextextended($1, 8440)) AS turn",
};
const REQUESTS: Sql =
    Sql::same("SELECT COUNT(*), MIN(at) FROM token_requests WHERE credential = $1 AND at > $2");
const FORGET_REQUESTS: Sql = Sql::same("DELETE FROM token_requests WHERE credential = $1 AND at <= $2");
const REQUEST: Sql = Sql::same("INSERT INTO token_requests (credential, at) VALUES ($1, $2)");
const TOUCH: Sql = Sql::same(
    "INSERT INTO meta (name, value) VALUES ('ready', $1) ON CONFLICT (name) DO UPDATE SET value = $1",
);

pub(super) const STATEMENTS: &[&Sql] = &[
    &VOTE,
    &UNVOTE,
    &VOTES,
    &LAST_OWN,
    &TOKEN,
    &BY_HASH,
    &TOKENS,
    &REVOKE,
    &TURN,
    &REQUESTS,
    &FORGET_REQUESTS,
    &REQUEST,
    &TOUCH,
];

/// A yes to write.
#[derive(Clone, Debug)]
pub struct NewApproval {
    /// Who.
    pub by: String,
    /// How it was given.
    pub method: String,
    /// In their words.
    pub comment: Option<String>,
}

/// What a step changes in the votes.
#[derive(Clone, Debug)]
pub enum Vote {
    /// One more yes.
    Yes(NewApproval),
    /// This person's yes is taken back.
    Withdrawn(String),
}

/// A stored yes.
#[derive(Clone, Debug, FromRow)]
pub struct Approval {
    /// Who.
    #[sqlx(rename = "approver")]
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// How it was given.
    pub method: String,
    /// In their words.
    pub comment: Option<String>,
}

/// An API token, without what would let anybody use it.
#[derive(Clone, Debug)]
pub struct Token {
    /// The identity of its holder.
    pub name: String,
    /// What they may do.
    pub roles: Vec<Role>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was taken back.
    pub revoked_at: Option<Timestamp>,
}

#[derive(FromRow)]
struct TokenRow {
    name: String,
    roles: String,
    created_at: Timestamp,
    revoked_at: Option<Timestamp>,
}

impl TryFrom<TokenRow> for Token {
    type Error = StoreError;
    fn try_from(row: TokenRow) -> Result<Self, StoreError> {
        let roles = row.roles.split_whitespace().map(str::parse).collect::<Result<_, _>>();
        let roles = roles.map_err(|_| StoreError::corrupt("tokens", "roles", &row.name))?;
        Ok(Self { name: row.name, roles, created_at: row.created_at, revoked_at: row.revoked_at })
    }
}

impl Tx {
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
        // A second yes of the same person would have counted twice.
        if done == 1 { Ok(()) } else { Err(StoreError::Conflict) }
    }
}

impl Store {
    /// The votes on a rotation, oldest first.
    ///
    /// # Errors
    /// What the database answered.
    pub async fn approvals(&self, id: RotationId) -> Result<Vec<Approval>, StoreError> {
        Ok(read!(self, VOTES, |pool, text| sqlx::query_as(text).bind(id.0).fetch_all(pool).await)?)
    }

    /// When the policy last said yes to a rotation of this project in the place of people.
    ///
    /// # Errors
    /// What the database answered.
    pub async fn last_own_approval(&self, group: &GroupId) -> Result<Option<Timestamp>, StoreError> {
        let (at,): (Option<Timestamp>,) = read!(self, LAST_OWN, |pool, text| sqlx::query_as(text)
            .bind(group.as_str())
            .bind(OWN_APPROVAL)
            .fetch_one(pool)
            .await)?;
        Ok(at)
    }

    /// Keeps a token's hash under a new name.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when the name is taken, by a revoked token too: an identity in the
    /// audit log must stay one person's.
    pub async fn insert_token(
        &self,
        name: &str,
        hash: &str,
        roles: &[Role],
        audit: &[NewAudit],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let given = roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" ");
        let mut tx = self.begin().await?;
        let done = each!(&mut tx, TOKEN, |conn, text| sqlx::query(text)
            .bind(name)
            .bind(hash)
            .bind(&given)
            .bind(now)
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))?;
        if done == 0 {
            return Err(StoreError::Exists { what: "token", name: name.to_owned() });
        }
        tx.append_audit(audit, now).await?;
        tx.commit().await
    }

    /// The token with this hash, unless it was revoked.
    ///
    /// # Errors
    /// What the database answered.
    pub async fn token_by_hash(&self, hash: &str) -> Result<Option<Token>, StoreError> {
        let row: Option<TokenRow> =
            read!(self, BY_HASH, |pool, text| sqlx::query_as(text).bind(hash).fetch_optional(pool).await)?;
        row.map(Token::try_from).transpose()
    }

    /// All tokens by name.
    ///
    /// # Errors
    /// What the database answered.
    pub async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        let rows: Vec<TokenRow> =
            read!(self, TOKENS, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        rows.into_iter().map(Token::try_from).collect()
    }

    /// Takes a token back; says whether there was one.
    ///
    /// # Errors
    /// What the database answered.
    pub async fn revoke_token(
        &self,
        name: &str,
        audit: &[NewAudit],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let done = each!(&mut tx, REVOKE, |conn, text| sqlx::query(text)
            .bind(name)
            .bind(now)
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))?;
        if done > 0 {
            tx.append_audit(audit, now).await?;
        }
        tx.commit().await?;
        Ok(done > 0)
    }

    /// Counts one log-in of `credential`; the inner error says when the next one may be.
    ///
    /// # Errors
    /// What the database answered.
    pub async fn take_token_request(
        &self,
        credential: &str,
        now: Timestamp,
    ) -> Result<Result<(), Timestamp>, StoreError> {
        // Repeated after a lost answer, it may be counted twice: too few log-ins, never too many.
        persist(|_| self.count_token_request(credential, now)).await
    }

    async fn count_token_request(
        &self,
        credential: &str,
        now: Timestamp,
    ) -> Result<Result<(), Timestamp>, StoreError> {
        const MINUTE: Duration = Duration::from_secs(60);
        let mut tx = self.begin().await?;
        each!(&mut tx, TURN, |conn, text| sqlx::query(text)
            .bind(credential)
            .execute(conn)
            .await
            .map(|_| ()))?;
        let (count, first): (i64, Option<Timestamp>) =
            each!(&mut tx, REQUESTS, |conn, text| sqlx::query_as(text)
                .bind(credential)
                .bind(now - MINUTE)
                .fetch_one(conn)
                .await)?;
        if count >= TOKEN_REQUESTS_A_MINUTE {
            return Ok(Err(first.unwrap_or(now) + MINUTE));
        }
        each!(&mut tx, FORGET_REQUESTS, |conn, text| sqlx::query(text)
            .bind(credential)
            .bind(now - MINUTE)
            .execute(conn)
            .await
            .map(|_| ()))?;
        each!(&mut tx, REQUEST, |conn, text| sqlx::query(text)
            .bind(credential)
            .bind(now)
            .execute(conn)
            .await
            .map(|_| ()))?;
        tx.commit().await?;
        Ok(Ok(()))
    }

    /// Writes one value, to see that writing works.
    ///
    /// # Errors
    /// What the database answered.
    pub async fn check_writable(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        each!(&mut tx, TOUCH, |conn, text| sqlx::query(text)
            .bind(now.to_string())
            .execute(conn)
            .await
            .map(|_| ()))?;
        tx.commit().await
    }
}
