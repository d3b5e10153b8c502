//! People who were removed: what goes with them in one transaction, and since when their addresses count for nothing.
//!
//! The row of an account stays, without roles: its names still tell who is one person. Who is one, and who may remove
//! whom, is decided by the engine.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::FromRow;

use super::feeds::FeedMade;
use super::lanes::Lane;
use super::people::{BY_MAIL, Person};
use super::readable::readable;
use super::seal::{REMOVAL, Seal};
use super::types::Instant;
use super::{NewAudit, NewOutbox, Sql, Store, StoreError, Tx, each, read};
use crate::domain::time::Timestamp;
use crate::seal::Digest;

const ALL: Sql = Sql {
    sqlite: "SELECT address, removed_at, removed_by FROM removals ORDER BY address",
    postgres: "SELECT address, removed_at, removed_by FROM removals ORDER BY address COLLATE \"C\"",
};
const ONE: Sql = Sql::same("SELECT address, removed_at, removed_by FROM removals WHERE address = $1");
const WRITE: Sql = Sql::same(
    "INSERT INTO removals (address, removed_at, removed_by) VALUES ($1, $2, $3) \
     ON CONFLICT (address) DO UPDATE SET removed_at = $2, removed_by = $3",
);

pub(super) const STATEMENTS: &[&Sql] = &[&ALL, &ONE, &WRITE];

/// Everything by which somebody is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaver {
    /// The addresses in lower case, and the names of accounts without one.
    pub addresses: BTreeSet<String>,
    /// The accounts, as issuer and subject.
    pub accounts: BTreeSet<(String, String)>,
    /// The tokens in force.
    pub tokens: BTreeSet<String>,
    /// The passkeys, by id.
    pub passkeys: BTreeSet<String>,
}

#[derive(FromRow)]
struct RemovalRow {
    address: String,
    removed_at: Instant,
    removed_by: String,
}

/// An address whose person was removed.
#[derive(Clone, Debug)]
pub(super) struct Removal {
    pub(super) address: String,
    pub(super) at: Timestamp,
    by: String,
}

impl TryFrom<RemovalRow> for Removal {
    type Error = StoreError;
    fn try_from(row: RemovalRow) -> Result<Self, StoreError> {
        let at = row.removed_at.or(StoreError::corrupt("removals", "removed_at", &row.address))?;
        Ok(Self { address: row.address, at, by: row.removed_by })
    }
}

impl Removal {
    pub(super) fn subject(&self) -> String {
        format!("{REMOVAL}{}", self.address)
    }

    pub(super) fn seal(&self) -> Seal {
        let (subject, at) = (self.subject(), self.at.to_string());
        let digest = Digest::of(&subject, &[Some(&at), Some(&self.by)]);
        Seal::new(subject, digest)
    }
}

/// Stands for every address: an older copy of the database was accepted, and removals after it are lost.
const EVERYBODY: &str = "*";

impl Store {
    /// The addresses whose person was removed, and when last. Rows that Keywheel did not write are left out.
    ///
    /// # Errors
    /// Fails when the database cannot be read, and before the audit log was read.
    pub async fn removals(&self) -> Result<BTreeMap<String, Timestamp>, StoreError> {
        let rows: Vec<RemovalRow> = read!(self, ALL, |pool, sql| sqlx::query_as(sql).fetch_all(pool).await)?;
        let mut all = readable(rows.into_iter().map(Removal::try_from))?;
        // What was written meanwhile is known then.
        self.check_seals(&[]).await?;
        let seals = self.seals();
        all.retain(|it| it.seal().digest.is_some_and(|digest| seals.fits(&it.subject(), digest)));
        Ok(all.into_iter().map(|it| (it.address, it.at)).collect())
    }

    /// When the person of this address was removed; `None` where that never was.
    ///
    /// # Errors
    /// [`StoreError::Tampered`] when that is not what Keywheel wrote; fails when the database cannot be read.
    pub async fn removed_at(&self, address: &str) -> Result<Option<Timestamp>, StoreError> {
        let row: Option<RemovalRow> =
            read!(self, ONE, |pool, sql| sqlx::query_as(sql).bind(address).fetch_optional(pool).await)?;
        let it = row.map(Removal::try_from).transpose()?;
        let seal = it.as_ref().map_or_else(|| Seal::end(format!("{REMOVAL}{address}")), Removal::seal);
        self.check_seals(&[seal]).await?;
        Ok(it.map(|it| it.at))
    }

    /// When the links to this address ended that were made before; `None` where they never did. That was with its person,
    /// or when an older copy of the database was accepted.
    ///
    /// # Errors
    /// As [`Store::removed_at`].
    pub async fn links_ended_at(&self, address: &str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.removed_at(address).await?.max(self.removed_at(EVERYBODY).await?))
    }

    /// Removes a person: accounts, tokens, passkeys, sessions and feeds, each with its row of the audit log in `audit`,
    /// and the messages about it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the person is known by something else meanwhile, and [`StoreError::Tampered`] when an
    /// account is not what Keywheel wrote.
    pub async fn remove_person(
        &self,
        it: &Leaver,
        by: &str,
        (audit, outbox): (&[NewAudit], &[NewOutbox]),
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let args = (it.clone(), by.to_owned(), audit.to_vec(), outbox.to_vec());
        self.transact("person.remove", Lane::Command, args, move |tx, (it, by, audit, outbox), unsure| {
            Box::pin(async move {
                if unsure && tx.is_appended(audit, now).await? {
                    return Ok(());
                }
                // Nobody signs in or gets a token meanwhile.
                tx.audit_head().await?;
                let (known, accounts) = tx.known_by(&it.addresses).await?;
                if known != *it {
                    return Err(StoreError::Conflict);
                }
                let mut seals = Vec::new();
                for account in accounts {
                    seals.extend(tx.remove_account(account, now).await?);
                }
                for token in &it.tokens {
                    seals.extend(tx.end_web_sessions_of(token, &format!("token/{token}"), now).await?);
                    seals.extend(tx.revoke(token, now).await?);
                }
                for id in &it.passkeys {
                    seals.extend(tx.take_passkey(id, now).await?);
                }
                for address in &it.addresses {
                    seals.push(tx.write_removal(address, by, now).await?);
                    tx.wake_voted(&format!("{BY_MAIL}{address}"), now).await?;
                }
                tx.write_outbox(outbox, now).await?;
                tx.append_sealing(audit, seals, now).await
            })
        })
        .await
    }
}

impl Tx {
    /// By what the person of these addresses is known now.
    async fn known_by(&mut self, addresses: &BTreeSet<String>) -> Result<(Leaver, Vec<Person>), StoreError> {
        let has =
            |name: &str| addresses.contains(&name.strip_prefix(BY_MAIL).unwrap_or(name).to_ascii_lowercase());
        let mut accounts = self.people().await?;
        accounts.retain(|it| !it.roles.is_empty() && it.names().any(has));
        let tokens = self.tokens_in_force().await?;
        let tokens = tokens.into_iter().filter(|it| it.person.as_deref().is_some_and(has));
        let leaver = Leaver {
            addresses: addresses.clone(),
            accounts: accounts.iter().map(|it| (it.issuer.clone(), it.subject.clone())).collect(),
            tokens: tokens.map(|it| it.name).collect(),
            passkeys: self.passkeys_held(has).await?,
        };
        Ok((leaver, accounts))
    }

    /// Takes the roles of an account, its sessions and its feeds; returns the seals that say so.
    async fn remove_account(&mut self, it: Person, now: Timestamp) -> Result<Vec<Seal>, StoreError> {
        // A row that somebody changed is not sealed as if Keywheel had written it.
        self.check_seals(&[it.seal()]).await?;
        let mut seals = Vec::new();
        for name in it.names() {
            seals.extend(self.end_web_sessions_of(name, &format!("person/{name}"), now).await?);
            self.wake_voted(name, now).await?;
        }
        for name in it.names() {
            self.end_feed(name, now).await?;
        }
        let after = it.without_roles();
        self.write_person(&after).await?;
        seals.push(after.seal());
        Ok(seals)
    }

    /// Ends the calendar feed of `name`, where one was made.
    pub(super) async fn end_feed(&mut self, name: &str, now: Timestamp) -> Result<(), StoreError> {
        if self.last_feed(name).await?.is_some_and(|it| it.is_open()) {
            let audit = FeedMade::ended("keywheel", name);
            self.append_audit(std::slice::from_ref(&audit), now).await?;
        }
        Ok(())
    }

    async fn write_removal(&mut self, address: &str, by: &str, now: Timestamp) -> Result<Seal, StoreError> {
        each!(self, WRITE, |conn, sql| sqlx::query(sql)
            .bind(address)
            .bind(now)
            .bind(by)
            .execute(conn)
            .await
            .map(drop))?;
        Ok(Removal { address: address.to_owned(), at: now, by: by.to_owned() }.seal())
    }

    /// Ends the links of everybody; returns the seal that says so.
    pub(super) async fn end_every_link(&mut self, now: Timestamp) -> Result<Seal, StoreError> {
        self.write_removal(EVERYBODY, "keywheel", now).await
    }

    /// The removals that can be read.
    pub(super) async fn stored_removals(&mut self) -> Result<Vec<Removal>, StoreError> {
        let rows: Vec<RemovalRow> = each!(self, ALL, |conn, sql| sqlx::query_as(sql).fetch_all(conn).await)?;
        readable(rows.into_iter().map(Removal::try_from))
    }

    /// The seals of all removals.
    pub(super) async fn seals_of_removals(&mut self) -> Result<Vec<Seal>, StoreError> {
        Ok(self.stored_removals().await?.iter().map(Removal::seal).collect())
    }
}
