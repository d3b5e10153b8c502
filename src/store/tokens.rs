//! API tokens, and the budget of Atlas log-ins.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sqlx::FromRow;

use super::lanes::Lane;
use super::readable::{Listed, listed, readable};
use super::seal::Seal;
use super::types::{Instant, instant};
use super::{NewAudit, NewOutbox, Separation, Sql, Store, StoreError, Tx, each, read, urgent};
use crate::domain::role::Role;
use crate::domain::time::Timestamp;
use crate::domain::vote::Identity;
use crate::seal::Digest;

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
macro_rules! sealed_columns {
    () => {
        "SELECT name, hash, roles, created_at, made_by, person, given_at, given_by FROM tokens \
         WHERE revoked_at IS NULL "
    };
}
const BY_HASH: Sql = Sql::same(concat!(columns!(), "WHERE hash = $1 AND revoked_at IS NULL"));
const BY_NAME: Sql = Sql::same(concat!(columns!(), "WHERE name = $1"));
pub(super) const ALL_IN_FORCE: Sql = Sql::same(concat!(sealed_columns!(), "ORDER BY name"));
const ALL: Sql = Sql::same(
    "SELECT name, hash, roles, created_at, made_by, person, given_at, given_by, revoked_at FROM tokens ORDER BY name",
);
// Who made a token of an earlier version, the audit log knows.
const MAKERS: Sql = Sql::same(
    "SELECT a.subject, a.actor FROM audit a WHERE a.action = 'token.created' AND a.subject IN \
     (SELECT 'token/' || name FROM tokens WHERE made_by IS NULL) ORDER BY a.seq DESC",
);
const ONE_IN_FORCE: Sql = Sql::same(concat!(sealed_columns!(), "AND name = $1"));
const REVOKED_BY_HASH: Sql = Sql::same(concat!(columns!(), "WHERE hash = $1 AND revoked_at IS NOT NULL"));
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
    &ALL_IN_FORCE,
    &ALL,
    &MAKERS,
    &ONE_IN_FORCE,
    &BY_HASH,
    &BY_NAME,
    &REVOKED_BY_HASH,
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
    created_at: Instant,
    revoked_at: Option<Instant>,
    made_by: Option<String>,
    person: Option<String>,
    given_at: Option<Instant>,
    given_by: Option<String>,
}

impl TryFrom<TokenRow> for Token {
    type Error = StoreError;
    fn try_from(row: TokenRow) -> Result<Self, StoreError> {
        let roles = row.roles.split_whitespace().map(str::parse).collect::<Result<_, _>>();
        let bad = |column| StoreError::corrupt("tokens", column, &row.name);
        let roles = roles.map_err(|_| bad("roles"))?;
        let created_at = row.created_at.or(bad("created_at"))?;
        let revoked_at = instant(row.revoked_at, || bad("revoked_at"))?;
        let given_at = instant(row.given_at, || bad("given_at"))?.unwrap_or(created_at);
        Ok(Self {
            name: row.name,
            roles,
            created_at,
            revoked_at,
            made_by: row.made_by,
            person: row.person,
            given_at,
            given_by: row.given_by,
        })
    }
}

fn joined(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" ")
}

/// A token as it is stored, without whether it was revoked.
#[derive(FromRow)]
pub(super) struct InForce {
    name: String,
    hash: String,
    roles: String,
    created_at: Instant,
    made_by: Option<String>,
    person: Option<String>,
    given_at: Option<Instant>,
    given_by: Option<String>,
}

impl TryFrom<InForce> for SealedToken {
    type Error = StoreError;
    fn try_from(row: InForce) -> Result<Self, StoreError> {
        let created_at = row.created_at.or(StoreError::corrupt("tokens", "created_at", &row.name))?;
        let given_at =
            row.given_at.map(|at| at.or(StoreError::corrupt("tokens", "given_at", &row.name))).transpose()?;
        Ok(Self {
            name: row.name,
            hash: row.hash,
            roles: row.roles,
            created_at,
            made_by: row.made_by,
            person: row.person,
            given_at,
            given_by: row.given_by,
        })
    }
}

/// A token as its seal covers it.
#[derive(Clone, Debug)]
pub(super) struct SealedToken {
    pub(super) name: String,
    pub(super) hash: String,
    pub(super) roles: String,
    pub(super) created_at: Timestamp,
    pub(super) made_by: Option<String>,
    pub(super) person: Option<String>,
    pub(super) given_at: Option<Timestamp>,
    pub(super) given_by: Option<String>,
}

impl SealedToken {
    pub(super) fn subject(&self) -> String {
        subject(&self.name)
    }

    pub(super) fn seal(&self) -> Seal {
        Seal::new(self.subject(), self.digest())
    }

    /// The seal of a token that counts for nothing until it is confirmed.
    pub(super) fn suspended(&self) -> Seal {
        let digest = self.digest().to_string();
        Seal::new(self.subject(), Digest::of(&self.subject(), &[Some("suspended"), Some(&digest)]))
    }

    /// The seal of a token that was revoked. Whose it was still decides who counts as another person.
    pub(super) fn revoked(&self) -> Seal {
        let digest = self.digest().to_string();
        Seal::new(self.subject(), Digest::of(&self.subject(), &[Some("revoked"), Some(&digest)]))
    }

    pub(super) fn digest(&self) -> Digest {
        let at = self.created_at.to_string();
        let given_at = self.given_at.map(|at| at.to_string());
        let given = [&self.person, &self.made_by, &given_at, &self.given_by].map(Option::as_deref);
        let mut fields = vec![Some(self.hash.as_str()), Some(&self.roles), Some(&at)];
        // Tokens of earlier versions were sealed without these.
        if given.iter().any(Option::is_some) {
            fields.extend(given);
        }
        Digest::of(&self.subject(), &fields)
    }
}

/// A token as it is stored, in force or not.
#[derive(Debug)]
pub(super) struct StoredToken {
    token: SealedToken,
    is_revoked: bool,
    /// Who made it, where only the audit log says it.
    maker: Option<String>,
}

impl std::ops::Deref for StoredToken {
    type Target = SealedToken;
    fn deref(&self) -> &SealedToken {
        &self.token
    }
}

impl StoredToken {
    /// What its seal covers.
    pub(super) fn seal(&self) -> Seal {
        if self.is_revoked { self.token.revoked() } else { self.token.seal() }
    }

    /// Its holder, by name. A role that cannot be read approves nothing.
    pub(super) fn identity(&self) -> (String, Identity) {
        let it = &self.token;
        let approves = |role: &str| role.parse::<Role>().is_ok_and(|it| it.includes(Role::Approver));
        let identity = Identity {
            may_approve: !self.is_revoked && it.roles.split_whitespace().any(approves),
            person: it.person.clone(),
            former: Vec::new(),
            made_by: it.made_by.clone().or_else(|| self.maker.clone()),
            given_at: Some(it.given_at.unwrap_or(it.created_at)),
            given_by: it.given_by.clone(),
            groups: BTreeSet::new(),
        };
        (it.name.clone(), identity)
    }
}

#[derive(FromRow)]
struct StoredRow {
    #[sqlx(flatten)]
    token: InForce,
    revoked_at: Option<Instant>,
}

/// The tokens that can be read.
fn stored(rows: Vec<StoredRow>) -> Result<Vec<StoredToken>, StoreError> {
    readable(rows.into_iter().map(|row| {
        let is_revoked = row.revoked_at.is_some();
        Ok(StoredToken { token: SealedToken::try_from(row.token)?, is_revoked, maker: None })
    }))
}

/// Names the makers of tokens that do not say it; of several rows about one the oldest, which comes last, counts.
fn name_makers(tokens: &mut [StoredToken], makers: Vec<(String, String)>) {
    let makers: BTreeMap<String, String> = makers.into_iter().collect();
    for it in tokens.iter_mut().filter(|it| it.token.made_by.is_none()) {
        it.maker = makers.get(&it.token.subject()).cloned();
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
                // Nobody removes its person meanwhile.
                tx.audit_head().await?;
                if tx.insert_token(name, hash, roles, given, now).await? {
                    tx.write_outbox(outbox, now).await?;
                    let [name, hash, roles] = [name, hash, roles].map(Clone::clone);
                    let (made_by, person) = given.clone();
                    let given_by = made_by.clone();
                    let (created_at, given_at) = (now, Some(now));
                    let token =
                        SealedToken { name, hash, roles, created_at, made_by, person, given_at, given_by };
                    return tx.append_sealing(audit, vec![token.seal()], now).await;
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
        let (roles, was_given) = (row.roles.clone(), row.given_at.is_some());
        let found = Token::try_from(row)?;
        let token = SealedToken {
            name: found.name.clone(),
            hash: hash.to_owned(),
            roles,
            created_at: found.created_at,
            made_by: found.made_by.clone(),
            person: found.person.clone(),
            given_at: was_given.then_some(found.given_at),
            given_by: found.given_by.clone(),
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

    /// The token with this name, unless it was revoked. A row that Keywheel did not write does not count.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn token_in_force(&self, name: &str) -> Result<Option<Token>, StoreError> {
        let row: Option<InForce> = read!(self, ONE_IN_FORCE, |pool, text| sqlx::query_as(text)
            .bind(name)
            .fetch_optional(pool)
            .await)?;
        let Some(row) = row else { return Ok(None) };
        let token = SealedToken::try_from(row)?;
        if !self.is_sealed(&token.subject(), token.digest()).await? {
            return Ok(None);
        }
        let roles = token.roles.split_whitespace().map(str::parse).collect::<Result<_, _>>();
        Ok(Some(Token {
            roles: roles.map_err(|_| StoreError::corrupt("tokens", "roles", &token.name))?,
            given_at: token.given_at.unwrap_or(token.created_at),
            name: token.name,
            created_at: token.created_at,
            revoked_at: None,
            made_by: token.made_by,
            person: token.person,
            given_by: token.given_by,
        }))
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
    /// [`StoreError::Conflict`] when it was changed or revoked meanwhile, and [`StoreError::Tampered`] when it is not
    /// what Keywheel wrote.
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
                tx.audit_head().await?;
                if unsure && tx.is_appended(audit, now).await? {
                    return Ok(());
                }
                let Some(stored) = tx.token_in_force(&after.name).await? else {
                    return Err(StoreError::Conflict);
                };
                tx.check_seal(&stored.subject(), stored.digest()).await?;
                let sealed = SealedToken {
                    roles: joined(&after.roles),
                    person: after.person.clone(),
                    given_at: Some(after.given_at),
                    given_by: after.given_by.clone(),
                    ..stored
                };
                tx.write_edited(&sealed, roles, now).await?;
                tx.write_outbox(outbox, now).await?;
                tx.append_sealing(audit, vec![sealed.seal()], now).await
            })
        })
        .await
    }

    /// All tokens, without those that cannot be read.
    pub(super) async fn stored_tokens(&self) -> Result<Vec<StoredToken>, StoreError> {
        let rows = urgent!(self, ALL, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        let mut tokens = stored(rows)?;
        if tokens.iter().any(|it| it.token.made_by.is_none()) {
            let makers = urgent!(self, MAKERS, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
            name_makers(&mut tokens, makers);
        }
        Ok(tokens)
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
                let Some(seal) = tx.revoke(name, now).await? else {
                    return Ok(unsure && tx.is_token_revoked(name, now).await?);
                };
                tx.write_outbox(outbox, now).await?;
                tx.append_sealing(audit, vec![seal], now).await?;
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
        Ok(tokens.iter().map(SealedToken::seal).collect())
    }

    /// The tokens in force, without those that cannot be read.
    pub(super) async fn tokens_in_force(&mut self) -> Result<Vec<SealedToken>, StoreError> {
        let rows: Vec<InForce> =
            each!(self, ALL_IN_FORCE, |conn, text| sqlx::query_as(text).fetch_all(conn).await)?;
        readable(rows.into_iter().map(SealedToken::try_from))
    }

    /// All tokens, without those that cannot be read.
    pub(super) async fn stored_tokens(&mut self) -> Result<Vec<StoredToken>, StoreError> {
        let rows = each!(self, ALL, |conn, text| sqlx::query_as(text).fetch_all(conn).await)?;
        let mut tokens = stored(rows)?;
        if tokens.iter().any(|it| it.token.made_by.is_none()) {
            self.write_later().await?;
            let makers = each!(self, MAKERS, |conn, text| sqlx::query_as(text).fetch_all(conn).await)?;
            name_makers(&mut tokens, makers);
        }
        Ok(tokens)
    }

    /// The seals of all tokens that were revoked.
    pub(super) async fn seals_of_revoked(&mut self) -> Result<Vec<Seal>, StoreError> {
        let tokens = self.stored_tokens().await?;
        Ok(tokens.iter().filter(|it| it.is_revoked).map(StoredToken::seal).collect())
    }

    async fn token_in_force(&mut self, name: &str) -> Result<Option<SealedToken>, StoreError> {
        let row: Option<InForce> = each!(self, ONE_IN_FORCE, |conn, text| sqlx::query_as(text)
            .bind(name)
            .fetch_optional(conn)
            .await)?;
        row.map(SealedToken::try_from).transpose()
    }

    /// Revokes a token; returns its seal, `None` where none was in force.
    pub(super) async fn revoke(&mut self, name: &str, now: Timestamp) -> Result<Option<Seal>, StoreError> {
        let before = self.token_in_force(name).await?;
        let done = each!(self, REVOKE, |conn, text| sqlx::query(text)
            .bind(name)
            .bind(now)
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))?;
        if done == 0 {
            return Ok(None);
        }
        self.wake_voted(name, now).await?;
        Ok(Some(match before {
            // One that somebody edited is not vouched for.
            Some(token) if self.sealed(&token.subject()).await? == Some(token.digest()) => token.revoked(),
            Some(_) | None => Seal::end(subject(name)),
        }))
    }

    /// Takes a token from its person, and gives it to another one; returns its seal. Its votes count anew.
    pub(super) async fn give_token(
        &mut self,
        name: &str,
        it: &Separation,
        now: Timestamp,
    ) -> Result<Seal, StoreError> {
        let Some(stored) =
            self.token_in_force(name).await?.filter(|token| token.person.as_ref() == Some(&it.from))
        else {
            return Err(StoreError::Conflict);
        };
        self.check_seal(&stored.subject(), stored.digest()).await?;
        let roles = stored.roles.clone();
        let sealed = SealedToken {
            person: it.to.clone(),
            given_at: Some(now),
            given_by: Some(it.by.clone()),
            ..stored
        };
        self.write_edited(&sealed, &roles, now).await?;
        Ok(sealed.seal())
    }

    /// Writes roles and person of a token that has `roles`, and has its votes counted again.
    async fn write_edited(
        &mut self,
        sealed: &SealedToken,
        roles: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let done = each!(self, EDIT, |conn, text| sqlx::query(text)
            .bind(sealed.name.as_str())
            .bind(sealed.roles.as_str())
            .bind(sealed.person.as_deref())
            .bind(sealed.given_at)
            .bind(sealed.given_by.as_deref())
            .bind(roles)
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))?;
        if done == 0 {
            return Err(StoreError::Conflict);
        }
        self.wake_voted(&sealed.name, now).await
    }

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

    /// Makes the rotations due on which this identity has voted.
    pub(super) async fn wake_voted(&mut self, name: &str, now: Timestamp) -> Result<(), StoreError> {
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
