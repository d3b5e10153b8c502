//! The seals begin anew: after a change of the installation key, and after an older copy of the database was accepted.
//!
//! Both are one transaction. What people had agreed to is kept only where the old seals vouch for it.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::lanes::Lane;
use super::readable::readable;
use super::seal::Seal;
use super::seals::FINGERPRINT;
use super::tokens::{ALL_IN_FORCE, InForce, SealedToken};
use super::types::json;
use super::{NewAudit, Sql, Store, StoreError, Tx, each, read};
use crate::domain::rotation::state::State;
use crate::domain::time::Timestamp;
use crate::seal::InstallationKey;

const NAME_KEY: Sql = Sql::same(
    "INSERT INTO meta (name, value) VALUES ('installation', $1) ON CONFLICT (name) DO UPDATE SET value = $1",
);
const UNVOTE_ALL: Sql = Sql::same("DELETE FROM approvals WHERE rotation_id = $1");
const BACK: Sql = Sql::same(
    "UPDATE rotations SET state = $2, cause = NULL, machine = $3, wake_at = $4, version = version + 1 WHERE id = $1",
);

pub(super) const STATEMENTS: &[&Sql] = &[&NAME_KEY, &UNVOTE_ALL, &BACK];

/// The action of the rows that seal what is stored, as it is.
pub const SEALED: &str = "installation.sealed";

/// Subjects that are sealed in one audit row.
const AT_ONCE: usize = 100;

/// What is believed of the rows that are sealed anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belief {
    /// All: the old key was there, and vouches for them.
    All,
    /// Neither votes on rotations whose key was not sent yet, nor loosened rules that are to take effect, nor tokens
    /// until they are confirmed, nor people until they sign in again, nor passkeys.
    NoVotesNoTokens,
}

impl Store {
    /// Seals the rows that an earlier version has written.
    pub(super) async fn seal_earlier(&self, fingerprint: &str, now: Timestamp) -> Result<(), StoreError> {
        self.follow_seals().await?;
        self.transact("installation.seal", Lane::Command, fingerprint.to_owned(), move |tx, own, _| {
            Box::pin(async move {
                let found: Option<(String,)> =
                    each!(tx, FINGERPRINT, |conn, text| sqlx::query_as(text).fetch_optional(conn).await)?;
                match found {
                    // An earlier attempt was written, or another daemon was first.
                    Some((found,)) if found == *own => return Ok(()),
                    Some((found,)) => return Err(StoreError::OtherKey { found, own: own.clone() }),
                    None => {}
                }
                each!(tx, NAME_KEY, |conn, text| sqlx::query(text)
                    .bind(own.as_str())
                    .execute(conn)
                    .await
                    .map(drop))?;
                tx.seal_all(own, Belief::All, Vec::new(), now).await
            })
        })
        .await
    }

    pub(super) async fn name_key(&self, fingerprint: &str) -> Result<(), StoreError> {
        self.transact("installation.name", Lane::Command, fingerprint.to_owned(), |tx, own, _| {
            Box::pin(async move {
                each!(tx, NAME_KEY, |conn, text| sqlx::query(text)
                    .bind(own.as_str())
                    .execute(conn)
                    .await
                    .map(drop))?;
                Ok(())
            })
        })
        .await
    }

    /// Seals everything with another installation key, and writes `row` down first.
    ///
    /// # Errors
    /// Fails when the database cannot be read or written.
    pub async fn rekey(
        &self,
        key: &InstallationKey,
        row: NewAudit,
        belief: Belief,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.give_key(key);
        self.follow_seals().await?;
        let args = (key.fingerprint(), row);
        self.transact("installation.rekey", Lane::Command, args, move |tx, (own, row), unsure| {
            Box::pin(async move {
                if unsure && tx.is_appended(std::slice::from_ref(row), now).await? {
                    return Ok(());
                }
                each!(tx, NAME_KEY, |conn, text| sqlx::query(text)
                    .bind(own.as_str())
                    .execute(conn)
                    .await
                    .map(drop))?;
                tx.append_audit(std::slice::from_ref(row), now).await?;
                let ended = if belief == Belief::All { Vec::new() } else { tx.void(now).await? };
                tx.seal_all(own, belief, ended, now).await
            })
        })
        .await
    }

    /// Voids the votes on rotations whose key was not sent yet, and every token until it is confirmed: after an older
    /// copy of the database was accepted, withdrawals and revocations may be lost. Returns how many rotations wait for
    /// their approvals again, and the tokens.
    ///
    /// # Errors
    /// Fails when the database cannot be read or written.
    pub async fn void_after_restore(
        &self,
        row: NewAudit,
        now: Timestamp,
    ) -> Result<(usize, Vec<String>), StoreError> {
        self.transact("installation.void", Lane::Command, row, move |tx, row, _| {
            Box::pin(async move {
                let tokens = tx.tokens_in_force().await?;
                let mut seals = tx.void(now).await?;
                let rotations = seals.iter().filter(|it| it.subject.starts_with("votes/")).count();
                seals.extend(tokens.iter().map(SealedToken::suspended));
                seals.extend(tx.unconfirm_passkeys().await?);
                // Who was removed after the copy was made is there again in it.
                seals.extend(tx.forget_people().await?);
                seals.push(tx.end_every_link(now).await?);
                // Who signed out after the copy was made is signed in again in it.
                seals.extend(tx.end_every_web_session().await?);
                tx.append_sealing(std::slice::from_ref(row), seals, now).await?;
                Ok((rotations, tokens.into_iter().map(|it| it.name).collect()))
            })
        })
        .await
    }

    /// The names of the tokens that wait to be confirmed.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn suspended(&self) -> Result<BTreeSet<String>, StoreError> {
        self.follow_seals().await?;
        let rows: Vec<InForce> =
            read!(self, ALL_IN_FORCE, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        let rows = readable(rows.into_iter().map(SealedToken::try_from))?;
        let waits = |it: &SealedToken| {
            let Seal { subject, digest } = it.suspended();
            digest.is_some_and(|digest| self.seals().fits(&subject, digest))
        };
        Ok(rows.into_iter().filter(waits).map(|it| it.name).collect())
    }

    /// Lets a token in that was suspended; false when no such token is in force.
    ///
    /// # Errors
    /// Fails when the database cannot be read or written.
    pub async fn confirm_token(&self, name: &str, row: NewAudit, now: Timestamp) -> Result<bool, StoreError> {
        let args = (name.to_owned(), row);
        self.transact("token.confirm", Lane::Command, args, move |tx, (name, row), _| {
            Box::pin(async move {
                let tokens = tx.tokens_in_force().await?;
                let Some(token) = tokens.into_iter().find(|it| it.name == *name) else { return Ok(false) };
                tx.append_sealing(std::slice::from_ref(row), vec![token.seal()], now).await?;
                Ok(true)
            })
        })
        .await
    }
}

impl Tx {
    /// Takes the rotations whose key was not sent yet back to their approvals, without votes, and withdraws loosened rules
    /// that are to take effect; returns the seals.
    async fn void(&mut self, now: Timestamp) -> Result<Vec<Seal>, StoreError> {
        let mut seals = self.withdraw_pending(now).await?;
        for mut row in self.open_rotations_to_seal().await? {
            let it = &mut row.rotation;
            let unsent =
                matches!(it.state, State::AwaitingApproval | State::Approved) && it.patching.attempts == 0;
            if !unsent {
                continue;
            }
            it.state = State::AwaitingApproval;
            (it.hold, it.wake_at) = (None, Some(now));
            it.permission.quorum.given = 0;
            it.permission.approved_at = None;
            it.permission.expires_at = it.rules.approval_deadline(now);
            let (id, state) = (it.id, it.state);
            let machine = json("rotations", "machine", id, &*it)?;
            let uuid: Uuid = id.0;
            each!(self, UNVOTE_ALL, |conn, text| sqlx::query(text).bind(uuid).execute(conn).await.map(drop))?;
            each!(self, BACK, |conn, text| sqlx::query(text)
                .bind(uuid)
                .bind(state.as_str())
                .bind(machine.as_str())
                .bind(now)
                .execute(conn)
                .await
                .map(drop))?;
            seals.push(row.seal()?);
            seals.push(self.seal_of_votes(id).await?);
        }
        Ok(seals)
    }

    /// Seals whatever authorises, as it is stored.
    pub(super) async fn seal_all(
        &mut self,
        fingerprint: &str,
        belief: Belief,
        first: Vec<Seal>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut all = first;
        self.each_seal_of_projects(|it| all.push(it)).await?;
        match belief {
            Belief::All => {
                all.extend(self.seals_of_tokens().await?);
                all.extend(self.seals_of_people().await?);
                all.extend(self.seals_of_passkeys().await?);
            }
            Belief::NoVotesNoTokens => {
                all.extend(self.suspended_tokens().await?);
                all.extend(self.forget_people().await?);
                all.extend(self.forget_passkeys().await?);
            }
        }
        all.extend(self.seals_of_revoked().await?);
        all.extend(self.seals_of_removals().await?);
        all.extend(self.seals_of_loosenings().await?);
        all.extend(self.seals_of_announcements().await?);
        all.extend(self.seals_of_rotations().await?);
        for seal in [self.seal_of_settings().await?, self.seal_of_reviews().await?] {
            all.extend(Some(seal).filter(|it| it.digest.is_some()));
        }
        let row = NewAudit {
            actor: "keywheel".to_owned(),
            action: SEALED.to_owned(),
            subject: "installation".to_owned(),
            detail: serde_json::json!({ "fingerprint": fingerprint }).to_string(),
        };
        self.append_audit(std::slice::from_ref(&row), now).await?;
        for seals in all.chunks(AT_ONCE) {
            self.append_sealing(std::slice::from_ref(&row), seals.to_vec(), now).await?;
        }
        Ok(())
    }

    /// The seals that all tokens in force have while they wait to be confirmed.
    pub(super) async fn suspended_tokens(&mut self) -> Result<Vec<Seal>, StoreError> {
        Ok(self.tokens_in_force().await?.iter().map(SealedToken::suspended).collect())
    }
}
