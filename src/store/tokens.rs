//! API tokens, and the budget of Atlas log-ins.

use std::time::Duration;

use sqlx::FromRow;

use super::lanes::Lane;
use super::readable::readable;
use super::{NewAudit, NewOutbox, Sql, Store, StoreError, Tx, each, read};
use crate::domain::role::Role;
use crate::domain::time::Timestamp;

/// The log-ins that a credential may request in one minute, restarts included.
const TOKEN_REQUESTS_A_MINUTE: i64 = 10;

const TOKEN: Sql = Sql::same(
    "INSERT INTO tokens (name, hash, roles, created_at, made_by, person, given_at, given_by) \
     VALUES ($1, $2, $3, $4, $5, $6, $4, $5) ON CONFLICT DO NOTHING",
);
macro_rules! columns {
    () => {
        "SELECT name, roles, created_at, revoked_at, made_by, person, given_at, given_by FROM tokens "
    };
}
const BY_HASH: Sql = Sql::same(concat!(columns!(), "WHERE hash = $1 AND revoked_at IS NULL"));
const BY_NAME: Sql = Sql::same(concat!(columns!(), "WHERE name = $1"));
const TOKENS: Sql = Sql {
    sqlite: concat!(columns!(), "ORDER BY name"),
    postgres: concat!(columns!(), "ORDER BY name COLLATE \"C\""),
};
const EDIT: Sql = Sql::same(
    "UPDATE tokens SET roles = $2, person = $3, given_at = $4, given_by = $5 WHERE name = $1 AND revoked_at IS NULL \
     AND roles = $6",
);
// The votes are counted again.
const WAKE: Sql = Sql::same(
    "UPDATE rotations SET wake_at = $2 WHERE state IN ('awaiting_approval', 'approved') AND wake_at > $2 \
     AND id IN (SELECT rotation_id FROM approvals WHERE approver = $1)",
);
const REVOKE: Sql = Sql::same("UPDATE tokens SET revoked_at = $2 WHERE name = $1 AND revoked_at IS NULL");
const INSERTED: Sql = Sql::same("SELECT COUNT(*) FROM tokens WHERE name = $1 AND hash = $2");
const REVOKED: Sql = Sql::same("SELECT COUNT(*) FROM tokens WHERE name = $1 AND revoked_at = $2");
const REQUESTS: Sql =
    Sql::same("SELECT COUNT(*), MIN(at) FROM token_requests WHERE credential = $1 AND at > $2");
const FORGET_REQUESTS: Sql = Sql::same("DELETE FROM token_requests WHERE credential = $1 AND at <= $2");
const REQUEST: Sql = Sql::same("INSERT INTO token_requests (credential, at) VALUES ($1, $2)");

pub(super) const STATEMENTS: &[&Sql] = &[
    &TOKEN,
    &BY_HASH,
    &BY_NAME,
    &TOKENS,
    &EDIT,
    &WAKE,
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
    /// Who made it.
    pub made_by: Option<String>,
    /// The mail address of its person.
    pub person: Option<String>,
    /// When it was made, got a role that approves, or was given to its person.
    pub given_at: Timestamp,
    /// Who did that.
    pub given_by: Option<String>,
}

#[derive(FromRow)]
struct TokenRow {
    name: String,
    roles: String,
    created_at: Timestamp,
    revoked_at: Option<Timestamp>,
    made_by: Option<String>,
    person: Option<String>,
    given_at: Option<Timestamp>,
    given_by: Option<String>,
}

impl TryFrom<TokenRow> for Token {
    type Error = StoreError;
    fn try_from(row: TokenRow) -> Result<Self, StoreError> {
        let roles = row.roles.split_whitespace().map(str::parse).collect::<Result<_, _>>();
        let roles = roles.map_err(|_| StoreError::corrupt("tokens", "roles", &row.name))?;
        Ok(Self {
            name: row.name,
            roles,
            created_at: row.created_at,
            revoked_at: row.revoked_at,
            made_by: row.made_by,
            person: row.person,
            given_at: row.given_at.unwrap_or(row.created_at),
            given_by: row.given_by,
        })
    }
}

fn joined(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" ")
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
        self.insert_given_token((name, hash), roles, (None, None), (audit, &[]), now).await
    }

    /// The same for a token that `by` made and gave to a person.
    ///
    /// # Errors
    /// As [`Store::insert_token`].
    pub async fn insert_given_token(
        &self,
        (name, hash): (&str, &str),
        roles: &[Role],
        (by, person): (Option<&str>, Option<&str>),
        (audit, outbox): (&[NewAudit], &[NewOutbox]),
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let given = (by.map(str::to_owned), person.map(str::to_owned));
        let args = (name.to_owned(), hash.to_owned(), joined(roles), given, audit.to_vec(), outbox.to_vec());
        self.transact("token.insert", Lane::Command, args, move |tx, args, unsure| {
            let (name, hash, roles, given, audit, outbox) = args;
            Box::pin(async move {
                if tx.insert_token(name, hash, roles, given, now).await? {
                    tx.write_outbox(outbox, now).await?;
                    return tx.append_audit(audit, now).await;
                }
                if unsure && tx.is_token_inserted(name, hash).await? {
                    return Ok(());
                }
                Err(StoreError::Exists { what: "token", name: name.clone() })
            })
        })
        .await
    }

    /// The token with this hash, unless it was revoked.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn token_by_hash(&self, hash: &str) -> Result<Option<Token>, StoreError> {
        let row: Option<TokenRow> =
            read!(self, BY_HASH, |pool, text| sqlx::query_as(text).bind(hash).fetch_optional(pool).await)?;
        row.map(Token::try_from).transpose()
    }

    /// The token with this name, revoked or not.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn token(&self, name: &str) -> Result<Option<Token>, StoreError> {
        let row: Option<TokenRow> =
            read!(self, BY_NAME, |pool, text| sqlx::query_as(text).bind(name).fetch_optional(pool).await)?;
        row.map(Token::try_from).transpose()
    }

    /// Changes roles, person and the instant since which they count of a token that has the roles of `before`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it was changed or revoked meanwhile.
    pub async fn edit_token(
        &self,
        before: &Token,
        after: &Token,
        (audit, outbox): (&[NewAudit], &[NewOutbox]),
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let args = (joined(&before.roles), after.clone(), audit.to_vec(), outbox.to_vec());
        self.transact("token.edit", Lane::Command, args, move |tx, (roles, after, audit, outbox), unsure| {
            Box::pin(async move {
                let done = each!(tx, EDIT, |conn, text| sqlx::query(text)
                    .bind(after.name.as_str())
                    .bind(joined(&after.roles))
                    .bind(after.person.as_deref())
                    .bind(after.given_at)
                    .bind(after.given_by.as_deref())
                    .bind(roles.as_str())
                    .execute(conn)
                    .await
                    .map(|done| done.rows_affected()))?;
                if done == 0 {
                    let own = unsure && tx.is_appended(audit, now).await?;
                    return if own { Ok(()) } else { Err(StoreError::Conflict) };
                }
                tx.wake_voted(&after.name, now).await?;
                tx.write_outbox(outbox, now).await?;
                tx.append_audit(audit, now).await
            })
        })
        .await
    }

    /// All tokens by name, without those that cannot be read.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        let rows: Vec<TokenRow> =
            read!(self, TOKENS, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        readable(rows.into_iter().map(Token::try_from))
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
        self.revoke_told_token(name, (audit, &[]), now).await
    }

    /// The same, with the messages about it.
    ///
    /// # Errors
    /// As [`Store::revoke_token`].
    pub async fn revoke_told_token(
        &self,
        name: &str,
        (audit, outbox): (&[NewAudit], &[NewOutbox]),
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let args = (name.to_owned(), audit.to_vec(), outbox.to_vec());
        self.transact("token.revoke", Lane::Command, args, move |tx, (name, audit, outbox), unsure| {
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
                tx.wake_voted(name, now).await?;
                tx.write_outbox(outbox, now).await?;
                tx.append_audit(audit, now).await?;
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
    async fn insert_token(
        &mut self,
        name: &str,
        hash: &str,
        roles: &str,
        (by, person): &(Option<String>, Option<String>),
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let done = each!(self, TOKEN, |conn, text| sqlx::query(text)
            .bind(name)
            .bind(hash)
            .bind(roles)
            .bind(now)
            .bind(by.as_deref())
            .bind(person.as_deref())
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))?;
        Ok(done > 0)
    }

    /// Makes the rotations due on which this token has voted.
    async fn wake_voted(&mut self, name: &str, now: Timestamp) -> Result<(), StoreError> {
        each!(self, WAKE, |conn, text| sqlx::query(text).bind(name).bind(now).execute(conn).await.map(drop))?;
        Ok(())
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
