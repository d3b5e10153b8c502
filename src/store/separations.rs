//! An address is separated from an identity: from a token that was given to it, or from an account that had it before.
//!
//! Whether and when is decided by the engine; the change that says so stays (`loosenings.rs`), because on rotations that
//! were proposed before both still count as one person.

use super::lanes::Lane;
use super::loosenings::Governed;
use super::people::{BY_MAIL, Person};
use super::seal::Seal;
use super::{NewAudit, NewOutbox, Store, StoreError, Tx};
use crate::domain::time::Timestamp;

/// What is separated from what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Separation {
    /// The subject of the identity: `token/NAME`, or `person/ISSUER#SUBJECT`.
    pub subject: String,
    /// The address, or the former name of an account.
    pub from: String,
    /// Whom a token is given to.
    pub to: Option<String>,
    /// Who asked for it.
    pub by: String,
}

impl Store {
    /// Whether the identity is there and has the address.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn is_tied(&self, it: &Separation) -> Result<bool, StoreError> {
        if let Some(name) = it.subject.strip_prefix("token/") {
            let token = self.token(name).await?.filter(|token| token.revoked_at.is_none());
            return Ok(token.is_some_and(|token| token.person.as_ref() == Some(&it.from)));
        }
        let people = self.people().await?;
        Ok(people.iter().any(|person| person.log_subject() == it.subject && person.can_leave(&it.from)))
    }

    /// Separates an address from an identity, with the change that says so.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the identity is another meanwhile, and [`StoreError::Tampered`] when it is not what
    /// Keywheel wrote.
    pub async fn separate(
        &self,
        it: &Separation,
        governed: Governed,
        (audit, outbox): (&[NewAudit], &[NewOutbox]),
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let args = (it.clone(), governed, audit.to_vec(), outbox.to_vec());
        self.transact(
            "person.separate",
            Lane::Command,
            args,
            move |tx, (it, governed, audit, outbox), unsure| {
                Box::pin(async move {
                    if unsure && tx.is_appended(audit, now).await? {
                        return Ok(());
                    }
                    let mut seals = tx.write_governed(governed, now).await?;
                    match it.subject.strip_prefix("token/") {
                        Some(name) => seals.push(tx.give_token(name, it, now).await?),
                        None => seals.extend(tx.leave_name(it, now).await?),
                    }
                    tx.write_outbox(outbox, now).await?;
                    tx.append_sealing(audit, seals, now).await
                })
            },
        )
        .await
    }
}

impl Tx {
    /// Takes a former name from an account; returns the seals. The passkeys of that address are removed: whose mailbox
    /// it is now may be somebody else.
    async fn leave_name(&mut self, it: &Separation, now: Timestamp) -> Result<Vec<Seal>, StoreError> {
        let people = self.people().await?;
        let own = people.into_iter().find(|person| person.log_subject() == it.subject);
        let Some(before) = own.filter(|person| person.can_leave(&it.from)) else {
            return Err(StoreError::Conflict);
        };
        self.check_seals(&[before.seal()]).await?;
        let mut after = before.clone();
        after.former.retain(|name| *name != it.from);
        if after.name == it.from {
            // No sign-in has a name like this.
            after.name = format!("account:{}", after.subject);
        }
        self.write_person(&after).await?;
        let mut seals = vec![after.seal()];
        for name in before.names() {
            self.wake_voted(name, now).await?;
        }
        let left = it.from.strip_prefix(BY_MAIL).unwrap_or(&it.from);
        for id in self.passkeys_held(|holder| holder.eq_ignore_ascii_case(left)).await? {
            seals.extend(self.take_passkey(&id, now).await?);
        }
        Ok(seals)
    }
}

impl Person {
    /// Whether this name can be taken from the account: it had it before, or its person was removed.
    #[must_use]
    pub fn can_leave(&self, name: &str) -> bool {
        self.former.iter().any(|it| it == name) || (self.is_removed() && self.name == name)
    }
}
