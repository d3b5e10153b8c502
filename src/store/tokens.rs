//! API tokens, and the budget of Atlas log-ins.

use std::time::Duration;

use sqlx::FromRow;

use super::lanes::Lane;
use super::readable::{Listed, listed, readable};
use super::seal::Seal;
use super::types::{Instant, instant};
use super::{NewAudit, Sql, Store, StoreError, Tx, each, read};
use crate::domain::role::Role;
use crate::domain::time::Timestamp;
use crate::seal::Digest;

/// The log-ins that a credential may request in one minute, restarts included.
const TOKEN_REQUESTS_A_MINUTE: i64 = 10;

const TOKEN: Sql = Sql::same(
    "INSERT INTO tokens (name, hash, roles, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
);
const BY_HASH: Sql = Sql::same(
    "SELECT name, roles, created_at, revoked_at FROM tokens WHERE hash = $1 AND revoked_at IS NULL",
);
pub(super) const ALL_IN_FORCE: Sql =
    Sql::same("SELECT name, hash, roles, created_at FROM tokens WHERE revoked_at IS NULL ORDER BY name");
const REVOKED_BY_HASH: Sql = Sql::same(
    "SELECT name, roles, created_at, revoked_at FROM tokens WHERE hash = $1 AND revoked_at IS NOT NULL",
);
const TOKENS: Sql = Sql {
    sqlite: "SELECT name, roles, created_at, revoked_at FROM tokens ORDER BY name",
    postgres: "SELECT name, roles, created_at, revoked_at FROM tokens ORDER BY name COLLATE \"C\"",
};
const REVOKE: Sql = Sql::same("UPDATE tokens SET revoked_at = $2 WHERE name = $1 AND revoked_at IS NULL");
const INSERTED: Sql = Sql::same("SELECT COUNT(*) FROM tokens WHERE name = $1 AND hash = $2");
const REVOKED: Sql = Sql::same("SELECT COUNT(*) FROM tokens WHERE name = $1 AND revoked_at = $2");
const REQUESTS: Sql =
    Sql::same("SELECT COUNT(*), MIN(at) FROM token_requests WHERE credential = $1 AND at > $2");
const FORGET_REQUESTS: Sql = Sql::same("DELETE FROM token_requests WHERE credential = $1 AND at <= $2");
const REQUEST: Sql = Sql::same("INSERT INTO token_requests (credential, at) VALUES ($1, $2)");

pub(super) const STATEMENTS: &[&Sql] = &[
    &TOKEN,
    &ALL_IN_FORCE,
    &BY_HASH,
    &REVOKED_BY_HASH,
    &TOKENS,
    &REVOKE,
    &INSERTED,
    &REVOKED,
    &REQUESTS,
    &FORGET_REQUESTS,
    &REQUEST,
];

/// An API token without its secret.
#[derive(Clone, Debug)]
pub struct Token {
    /// The identity of its holder.
    pub name: String,
    /// Its rights.
    pub roles: Vec<Role>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

#[derive(FromRow)]
struct TokenRow {
    name: String,
    roles: String,
    created_at: Instant,
    revoked_at: Option<Instant>,
}

impl TryFrom<TokenRow> for Token {
    type Error = StoreError;
    fn try_from(row: TokenRow) -> Result<Self, StoreError> {
        let roles = row.roles.split_whitespace().map(str::parse).collect::<Result<_, _>>();
        let bad = |column| StoreError::corrupt("tokens", column, &row.name);
        let roles = roles.map_err(|_| bad("roles"))?;
        let created_at = row.created_at.or(bad("created_at"))?;
        let revoked_at = instant(row.revoked_at, || bad("revoked_at"))?;
        Ok(Self { name: row.name, roles, created_at, revoked_at })
    }
}

/// A token in force as it is stored.
#[derive(FromRow)]
pub(super) struct InForce {
    name: String,
    hash: String,
    roles: String,
    created_at: Instant,
}

impl TryFrom<InForce> for SealedToken {
    type Error = StoreError;
    fn try_from(row: InForce) -> Result<Self, StoreError> {
        let created_at = row.created_at.or(StoreError::corrupt("tokens", "created_at", &row.name))?;
        Ok(Self { name: row.name, hash: row.hash, roles: row.roles, created_at })
    }
}

/// A token in force as its seal covers it.
#[derive(Clone, Debug)]
pub(super) struct SealedToken {
    pub(super) name: String,
    pub(super) hash: String,
    pub(super) roles: String,
    pub(super) created_at: Timestamp,
}

impl SealedToken {
    pub(super) fn subject(&self) -> String {
        subject(&self.name)
    }

    /// The seal of a token that counts for nothing until it is confirmed.
    pub(super) fn suspended(&self) -> Seal {
        let digest = self.digest().to_string();
        Seal::new(self.subject(), Digest::of(&self.subject(), &[Some("suspended"), Some(&digest)]))
    }

    /// Whether it has this role, or one that includes it.
    pub(super) fn may(&self, role: Role) -> bool {
        self.roles.split_whitespace().any(|it| it.parse::<Role>().is_ok_and(|it| it.includes(role)))
    }

    pub(super) fn digest(&self) -> Digest {
        let at = self.created_at.to_string();
        Digest::of(&self.subject(), &[Some(&self.hash), Some(&self.roles), Some(&at)])
    }
}

fn subject(name: &str) -> String {
    format!("token/{name}")
}

impl Store {
    /// Stores a token's hash under a new name.
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
        let roles = roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" ");
        let args = (name.to_owned(), hash.to_owned(), roles, audit.to_vec());
        self.transact("token.insert", Lane::Command, args, move |tx, (name, hash, roles, audit), unsure| {
            Box::pin(async move {
                if tx.insert_token(name, hash, roles, now).await? {
                    let [name, hash, roles] = [name, hash, roles].map(Clone::clone);
                    let token = SealedToken { name, hash, roles, created_at: now };
                    let seal = Seal::new(token.subject(), token.digest());
                    return tx.append_sealing(audit, vec![seal], now).await;
                }
                if unsure && tx.is_token_inserted(name, hash).await? {
                    return Ok(());
                }
                Err(StoreError::Exists { what: "token", name: name.clone() })
            })
        })
        .await
    }

    /// The token with this hash, unless it was revoked. A row that Keywheel did not write does not count.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn token_by_hash(&self, hash: &str) -> Result<Option<Token>, StoreError> {
        let row: Option<TokenRow> =
            read!(self, BY_HASH, |pool, text| sqlx::query_as(text).bind(hash).fetch_optional(pool).await)?;
        let Some(row) = row else { return Ok(None) };
        let roles = row.roles.clone();
        let found = Token::try_from(row)?;
        let token = SealedToken {
            name: found.name.clone(),
            hash: hash.to_owned(),
            roles,
            created_at: found.created_at,
        };
        if !self.is_sealed(&token.subject(), token.digest()).await? {
            tracing::error!(
                token = token.name,
                "a token was used that is not as Keywheel wrote it; it counts for nothing"
            );
            return Ok(None);
        }
        Ok(Some(found))
    }

    /// The revoked token with this hash.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn revoked_token_by_hash(&self, hash: &str) -> Result<Option<Token>, StoreError> {
        let row: Option<TokenRow> = read!(self, REVOKED_BY_HASH, |pool, text| sqlx::query_as(text)
            .bind(hash)
            .fetch_optional(pool)
            .await)?;
        row.map(Token::try_from).transpose()
    }

    /// All tokens by name; those that cannot be read by their names alone.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn list_tokens(&self) -> Result<Vec<Listed<Token>>, StoreError> {
        let rows: Vec<TokenRow> =
            read!(self, TOKENS, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        listed(rows.into_iter().map(Token::try_from))
    }

    /// Revokes a token; returns whether there was an active one.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn revoke_token(
        &self,
        name: &str,
        audit: &[NewAudit],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let args = (name.to_owned(), audit.to_vec());
        self.transact("token.revoke", Lane::Command, args, move |tx, (name, audit), unsure| {
            Box::pin(async move {
                let done = each!(tx, REVOKE, |conn, text| sqlx::query(text)
                    .bind(name.as_str())
                    .bind(now)
                    .execute(conn)
                    .await
                    .map(|done| done.rows_affected()))?;
                if done == 0 {
                    return Ok(unsure && tx.is_token_revoked(name, now).await?);
                }
                tx.append_sealing(audit, vec![Seal::end(subject(name))], now).await?;
                Ok(true)
            })
        })
        .await
    }

    /// Counts one log-in of `credential`; the inner error is the instant at which the next one is
    /// allowed.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn take_token_request(
        &self,
        credential: &str,
        now: Timestamp,
    ) -> Result<Result<(), Timestamp>, StoreError> {
        // A repetition after a lost answer may count twice: that allows too few log-ins, never too many.
        self.transact("token.request", Lane::Step, credential.to_owned(), move |tx, credential, _| {
            Box::pin(tx.count_token_request(credential, now))
        })
        .await
    }
}

impl Tx {
    /// The seals of all tokens in force.
    pub(super) async fn seals_of_tokens(&mut self) -> Result<Vec<Seal>, StoreError> {
        let tokens = self.tokens_in_force().await?;
        Ok(tokens.iter().map(|it| Seal::new(it.subject(), it.digest())).collect())
    }

    /// The tokens in force, without those that cannot be read.
    pub(super) async fn tokens_in_force(&mut self) -> Result<Vec<SealedToken>, StoreError> {
        let rows: Vec<InForce> =
            each!(self, ALL_IN_FORCE, |conn, text| sqlx::query_as(text).fetch_all(conn).await)?;
        readable(rows.into_iter().map(SealedToken::try_from))
    }

    async fn insert_token(
        &mut self,
        name: &str,
        hash: &str,
        roles: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let done = each!(self, TOKEN, |conn, text| sqlx::query(text)
            .bind(name)
            .bind(hash)
            .bind(roles)
            .bind(now)
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))?;
        Ok(done > 0)
    }

    /// Whether an unanswered attempt has written this token: no other caller has its hash.
    async fn is_token_inserted(&mut self, name: &str, hash: &str) -> Result<bool, StoreError> {
        let (found,): (i64,) = each!(self, INSERTED, |conn, text| sqlx::query_as(text)
            .bind(name)
            .bind(hash)
            .fetch_one(conn)
            .await)?;
        Ok(found > 0)
    }

    /// Whether an unanswered attempt has revoked this token.
    async fn is_token_revoked(&mut self, name: &str, now: Timestamp) -> Result<bool, StoreError> {
        let (found,): (i64,) = each!(self, REVOKED, |conn, text| sqlx::query_as(text)
            .bind(name)
            .bind(now)
            .fetch_one(conn)
            .await)?;
        Ok(found > 0)
    }

    async fn count_token_request(
        &mut self,
        credential: &str,
        now: Timestamp,
    ) -> Result<Result<(), Timestamp>, StoreError> {
        const MINUTE: Duration = Duration::from_secs(60);
        // Two daemons on one PostgreSQL must not both count nine.
        self.take_turn(credential).await?;
        let (count, first): (i64, Option<Timestamp>) =
            each!(self, REQUESTS, |conn, text| sqlx::query_as(text)
                .bind(credential)
                .bind(now - MINUTE)
                .fetch_one(conn)
                .await)?;
        if count >= TOKEN_REQUESTS_A_MINUTE {
            return Ok(Err(first.unwrap_or(now) + MINUTE));
        }
        each!(self, FORGET_REQUESTS, |conn, text| sqlx::query(text)
            .bind(credential)
            .bind(now - MINUTE)
            .execute(conn)
            .await
            .map(drop))?;
        each!(self, REQUEST, |conn, text| sqlx::query(text)
            .bind(credential)
            .bind(now)
            .execute(conn)
            .await
            .map(drop))?;
        Ok(Ok(()))
    }
}
