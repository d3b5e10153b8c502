//! Passkeys: whose each is, from when on it votes, and what it has signed.
//!
//! A row is sealed with its counter, so that a passkey which somebody writes into the table, or has count earlier, signs
//! nothing. What is signed is kept with the vote and covered by the seal of the votes; it is never removed, so that what
//! was signed once counts once. Signatures are checked in `passkey`; who may enrol and confirm is decided by the engine.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::FromRow;

use super::lanes::Lane;
use super::readable::readable;
use super::seal::Seal;
use super::types::{Instant, instant, json};
use super::{NewAudit, NewOutbox, Sql, Store, StoreError, Tx, each, read};
use crate::domain::ids::RotationId;
use crate::domain::time::Timestamp;
use crate::domain::vote;
use crate::passkey::{Assertion, Credential, Site, bytes, challenge, text, verify};
use crate::seal::Digest;

const ALL: Sql = Sql {
    sqlite: "SELECT id, holder, name, site, public_key, counter, may_be_copied, is_copied, enrolled_by, enrolled_at, \
             confirmed_by, confirmed_at, told, counts_from FROM passkeys ORDER BY enrolled_at, id",
    postgres: "SELECT id, holder, name, site, public_key, counter, may_be_copied, is_copied, enrolled_by, enrolled_at, \
               confirmed_by, confirmed_at, told, counts_from FROM passkeys ORDER BY enrolled_at, id COLLATE \"C\"",
};
const INSERT: Sql = Sql::same(
    "INSERT INTO passkeys (id, holder, name, site, public_key, counter, may_be_copied, is_copied, enrolled_by, \
     enrolled_at, told) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, '[]') ON CONFLICT DO NOTHING",
);
const CONFIRM: Sql = Sql::same(
    "UPDATE passkeys SET confirmed_by = $2, confirmed_at = $3, told = $4, counts_from = $5 \
     WHERE id = $1 AND confirmed_at IS NULL",
);
const COUNTS: Sql = Sql::same(
    "UPDATE passkeys SET counts_from = $2 WHERE id = $1 AND confirmed_at = $3 AND counts_from IS NULL",
);
const REMOVE: Sql = Sql::same("DELETE FROM passkeys WHERE id = $1");
const USE: Sql = Sql::same("UPDATE passkeys SET counter = $3, is_copied = $4 WHERE id = $1 AND counter = $2");
const UNCONFIRM: Sql = Sql::same(
    "UPDATE passkeys SET confirmed_by = NULL, confirmed_at = NULL, told = '[]', counts_from = NULL",
);
const FORGET: Sql = Sql::same("DELETE FROM passkeys");
const SIGNED: Sql = Sql::same(
    "INSERT INTO assertions (nonce, rotation_id, voter, passkey, at, evidence) VALUES ($1, $2, $3, $4, $5, $6) \
     ON CONFLICT DO NOTHING",
);
const WAKE: Sql = Sql::same(
    "UPDATE rotations SET wake_at = $2 WHERE state IN ('awaiting_approval', 'approved') AND wake_at > $2 \
     AND id IN (SELECT rotation_id FROM assertions WHERE passkey = $1)",
);
const SITES: Sql = Sql::same("SELECT site, COUNT(*) FROM passkeys GROUP BY site ORDER BY site");
const HOLDERS: Sql = Sql::same("SELECT holder, COUNT(*) FROM passkeys GROUP BY holder ORDER BY holder");
const IS_SIGNED: Sql = Sql::same("SELECT COUNT(*) FROM assertions WHERE nonce = $1");

pub(super) const STATEMENTS: &[&Sql] = &[
    &ALL, &INSERT, &CONFIRM, &COUNTS, &REMOVE, &USE, &UNCONFIRM, &FORGET, &SIGNED, &WAKE, &SITES, &HOLDERS,
    &IS_SIGNED,
];

/// What the subject of a passkey's seal begins with.
pub(super) const SUBJECT: &str = "passkey/";

/// A passkey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passkey {
    /// The id of its credential, as browsers send it.
    pub id: String,
    /// Whose it is: a mail address in lower case, or the name of an account without a verified one.
    pub holder: String,
    /// What its holder calls it.
    pub name: String,
    /// The host at which it works.
    pub site: String,
    /// Its key and counter.
    pub credential: Credential,
    /// The identity that enrolled it.
    pub enrolled_by: String,
    /// When.
    pub enrolled_at: Timestamp,
    /// Who confirmed it; `None` for one that counts for nothing.
    pub confirmed_by: Option<String>,
    /// When.
    pub confirmed_at: Option<Timestamp>,
    /// Who must hear of it before it counts.
    pub told: Vec<String>,
    /// From when on its signatures count; `None` until it is confirmed and told.
    pub counts_from: Option<Timestamp>,
}

/// The vote that a passkey has signed, as evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignedVote {
    /// The random part of the challenge.
    pub nonce: String,
    /// The id of the passkey.
    pub passkey: String,
    /// The kind of its key.
    pub algorithm: String,
    /// Its key (COSE).
    pub public_key: String,
    /// The host of the pages.
    pub site: String,
    /// Their origin.
    pub origin: String,
    /// The hash of the proposal.
    pub proposal_hash: String,
    /// What the page showed.
    pub shown: Vec<String>,
    /// The browser's part.
    pub client_data: String,
    /// The authenticator's part.
    pub authenticator_data: String,
    /// The signature.
    pub signature: String,
    /// The counter before and after; it is no evidence of its own.
    #[serde(skip)]
    pub counter: (u32, u32),
    /// Whether the passkey is stored elsewhere, too.
    #[serde(skip)]
    pub is_copied: bool,
}

#[derive(FromRow)]
struct PasskeyRow {
    id: String,
    holder: String,
    name: String,
    site: String,
    public_key: String,
    counter: i64,
    may_be_copied: bool,
    is_copied: bool,
    enrolled_by: String,
    enrolled_at: Instant,
    confirmed_by: Option<String>,
    confirmed_at: Option<Instant>,
    told: String,
    counts_from: Option<Instant>,
}

impl TryFrom<PasskeyRow> for Passkey {
    type Error = StoreError;
    fn try_from(row: PasskeyRow) -> Result<Self, StoreError> {
        let bad = |column| StoreError::corrupt("passkeys", column, &row.id);
        let credential = Credential {
            id: bytes(&row.id).ok_or_else(|| bad("id"))?,
            key: bytes(&row.public_key).ok_or_else(|| bad("public_key"))?,
            counter: u32::try_from(row.counter).map_err(|_| bad("counter"))?,
            may_be_copied: row.may_be_copied,
            is_copied: row.is_copied,
        };
        Ok(Self {
            credential,
            enrolled_at: row.enrolled_at.or(bad("enrolled_at"))?,
            confirmed_at: instant(row.confirmed_at, || bad("confirmed_at"))?,
            told: serde_json::from_str(&row.told).map_err(|_| bad("told"))?,
            counts_from: instant(row.counts_from, || bad("counts_from"))?,
            id: row.id,
            holder: row.holder,
            name: row.name,
            site: row.site,
            enrolled_by: row.enrolled_by,
            confirmed_by: row.confirmed_by,
        })
    }
}

impl Passkey {
    /// The subject of its rows in the audit log.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("{SUBJECT}{}", self.id)
    }

    /// What its person reads to the one who confirms it: it follows from the key, so another key in its place is noticed.
    #[must_use]
    pub fn code(&self) -> String {
        let digits = hex::encode(Sha256::digest(&self.credential.key));
        format!("{}-{}-{}", &digits[..4], &digits[4..8], &digits[8..12])
    }

    /// Whether it signs votes at `now`.
    #[must_use]
    pub fn counts(&self, now: Timestamp) -> bool {
        self.counts_from.is_some_and(|from| from <= now)
    }

    pub(super) fn seal(&self) -> Seal {
        let it = &self.credential;
        let times = [Some(self.enrolled_at), self.confirmed_at, self.counts_from]
            .map(|at| at.map(|at| at.to_string()));
        let counter = format!("{} {} {}", it.counter, it.may_be_copied, it.is_copied);
        let (key, told) = (text(&it.key), serde_json::json!(self.told).to_string());
        let mut fields = [&self.holder, &self.name, &self.site, &key, &counter, &self.enrolled_by, &told]
            .map(|it| Some(it.as_str()))
            .to_vec();
        fields.push(self.confirmed_by.as_deref());
        fields.extend(times.iter().map(Option::as_deref));
        let subject = self.subject();
        let digest = Digest::of(&subject, &fields);
        Seal::new(subject, digest)
    }

    /// What decides whether a vote counts that it has signed.
    pub(super) fn facts(&self, former: &BTreeSet<String>) -> vote::Passkey {
        vote::Passkey {
            holder: self.holder.clone(),
            site: self.site.clone(),
            counts_from: self.counts_from,
            is_of_former: former.contains(&self.holder),
        }
    }
}

/// The use of a passkey that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasskeyUse {
    /// Its id.
    pub id: String,
    /// Its counter before and after.
    pub counter: (u32, u32),
    /// Whether it is stored elsewhere, too.
    pub is_copied: bool,
}

impl SignedVote {
    /// The challenge of an approval of this proposal.
    #[must_use]
    pub fn challenge(id: RotationId, proposal_hash: &str, nonce: &str) -> crate::passkey::Challenge {
        challenge("approve", &[&id.to_string(), proposal_hash, nonce])
    }

    /// Refuses what was not signed by this passkey for exactly this proposal.
    pub(super) fn check(&self, id: RotationId, proposal_hash: &str, passkey: &Passkey) -> Result<(), String> {
        let part = |text: &str| bytes(text).ok_or_else(|| "it cannot be read".to_owned());
        if part(&self.public_key)? != passkey.credential.key || self.site != passkey.site {
            return Err("it was signed by another passkey".to_owned());
        }
        let answer = Assertion {
            client_data: part(&self.client_data)?,
            authenticator_data: part(&self.authenticator_data)?,
            signature: part(&self.signature)?,
        };
        let site = Site { id: self.site.clone(), origin: self.origin.clone() };
        let challenge = Self::challenge(id, proposal_hash, &self.nonce);
        verify(&site, &challenge, &passkey.credential, &answer).map(drop).map_err(|fault| fault.to_string())
    }
}

impl Store {
    /// All passkeys, the oldest first. A row that Keywheel did not write is left out.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn passkeys(&self) -> Result<Vec<Passkey>, StoreError> {
        let rows: Vec<PasskeyRow> = read!(self, ALL, |pool, sql| sqlx::query_as(sql).fetch_all(pool).await)?;
        let all = readable(rows.into_iter().map(Passkey::try_from))?;
        let seals: Vec<_> = all.iter().map(Passkey::seal).collect();
        // One look at the log for all, and one for each only where something does not fit.
        match self.check_seals(&seals).await {
            Err(StoreError::Tampered { .. }) => {}
            checked => return checked.map(|()| all),
        }
        let mut found = Vec::new();
        for it in all {
            let Seal { subject, digest: Some(digest) } = it.seal() else { continue };
            if self.is_sealed(&subject, digest).await? {
                found.push(it);
            } else {
                tracing::error!(
                    passkey = it.id,
                    "a passkey is not as Keywheel wrote it; it counts for nothing"
                );
            }
        }
        Ok(found)
    }

    /// Writes a passkey that is not confirmed.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is enrolled already; fails when the database cannot be written.
    pub async fn enrol_passkey(&self, it: &Passkey, audit: NewAudit) -> Result<(), StoreError> {
        self.transact("passkey.enrol", Lane::Command, (it.clone(), audit), |tx, (it, audit), unsure| {
            Box::pin(async move {
                let (now, audit) = (it.enrolled_at, std::slice::from_ref(&*audit));
                let done = each!(tx, INSERT, |conn, sql| sqlx::query(sql)
                    .bind(it.id.as_str())
                    .bind(it.holder.as_str())
                    .bind(it.name.as_str())
                    .bind(it.site.as_str())
                    .bind(text(&it.credential.key))
                    .bind(i64::from(it.credential.counter))
                    .bind(it.credential.may_be_copied)
                    .bind(it.credential.is_copied)
                    .bind(it.enrolled_by.as_str())
                    .bind(now)
                    .execute(conn)
                    .await
                    .map(|done| done.rows_affected()))?;
                if done == 0 {
                    let own = unsure && tx.is_appended(audit, now).await?;
                    return if own { Ok(()) } else { Err(StoreError::Conflict) };
                }
                tx.append_sealing(audit, vec![it.seal()], now).await
            })
        })
        .await
    }

    /// Writes that `after` was confirmed, with the messages that tell it, and the use of the passkey that confirmed it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when one was removed, used or confirmed meanwhile.
    pub async fn confirm_passkey(
        &self,
        (before, after): (&Passkey, &Passkey),
        used: Option<PasskeyUse>,
        audit: NewAudit,
        outbox: &[NewOutbox],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let args = (before.clone(), after.clone(), used, audit, outbox.to_vec());
        self.transact(
            "passkey.confirm",
            Lane::Command,
            args,
            move |tx, (before, it, used, audit, outbox), unsure| {
                Box::pin(async move {
                    let audit = std::slice::from_ref(&*audit);
                    if unsure && tx.is_appended(audit, now).await? {
                        return Ok(());
                    }
                    tx.check_seals(&[before.seal()]).await?;
                    let done = each!(tx, CONFIRM, |conn, sql| sqlx::query(sql)
                        .bind(it.id.as_str())
                        .bind(it.confirmed_by.as_deref())
                        .bind(it.confirmed_at)
                        .bind(json("passkeys", "told", &it.id, &it.told)?)
                        .bind(it.counts_from)
                        .execute(conn)
                        .await
                        .map(|done| done.rows_affected()))?;
                    if done != 1 {
                        return Err(StoreError::Conflict);
                    }
                    let mut seals = tx.write_announcing(outbox, now).await?;
                    seals.push(it.seal());
                    if let Some(used) = used {
                        seals.push(tx.use_passkey(used).await?);
                    }
                    tx.append_sealing(audit, seals, now).await
                })
            },
        )
        .await
    }

    /// Writes from when on a passkey counts: everybody has heard of it who must.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it was removed meanwhile.
    pub async fn passkey_told(
        &self,
        before: &Passkey,
        counts_from: Timestamp,
        audit: NewAudit,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.transact(
            "passkey.told",
            Lane::Command,
            (before.clone(), audit),
            move |tx, (it, audit), unsure| {
                Box::pin(async move {
                    let audit = std::slice::from_ref(&*audit);
                    if unsure && tx.is_appended(audit, now).await? {
                        return Ok(());
                    }
                    tx.check_seals(&[it.seal()]).await?;
                    let done = each!(tx, COUNTS, |conn, sql| sqlx::query(sql)
                        .bind(it.id.as_str())
                        .bind(counts_from)
                        .bind(it.confirmed_at)
                        .execute(conn)
                        .await
                        .map(|done| done.rows_affected()))?;
                    if done != 1 {
                        return Err(StoreError::Conflict);
                    }
                    let after = Passkey { counts_from: Some(counts_from), ..it.clone() };
                    tx.append_sealing(audit, vec![after.seal()], now).await
                })
            },
        )
        .await
    }

    /// Removes a passkey. The votes that it signed for rotations that have sent nothing are void.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is gone; fails when the database cannot be written.
    pub async fn remove_passkey(
        &self,
        it: &Passkey,
        audit: NewAudit,
        outbox: &[NewOutbox],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let args = (it.clone(), audit, outbox.to_vec());
        self.transact("passkey.remove", Lane::Command, args, move |tx, (it, audit, outbox), unsure| {
            Box::pin(async move {
                let audit = std::slice::from_ref(&*audit);
                if unsure && tx.is_appended(audit, now).await? {
                    return Ok(());
                }
                let Some(seal) = tx.take_passkey(&it.id, now).await? else {
                    return Err(StoreError::Conflict);
                };
                tx.write_outbox(outbox, now).await?;
                tx.append_sealing(audit, vec![seal], now).await
            })
        })
        .await
    }

    /// The hosts at which passkeys were enrolled, and how many, as the table has them.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn passkey_sites(&self) -> Result<Vec<(String, i64)>, StoreError> {
        Ok(read!(self, SITES, |pool, sql| sqlx::query_as(sql).fetch_all(pool).await)?)
    }

    /// Whose passkeys there are, and how many, as the table has them.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn passkey_holders(&self) -> Result<Vec<(String, i64)>, StoreError> {
        Ok(read!(self, HOLDERS, |pool, sql| sqlx::query_as(sql).fetch_all(pool).await)?)
    }

    /// Whether this was signed before.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn is_signed(&self, nonce: &str) -> Result<bool, StoreError> {
        let (found,): (i64,) =
            read!(self, IS_SIGNED, |pool, sql| sqlx::query_as(sql).bind(nonce).fetch_one(pool).await)?;
        Ok(found > 0)
    }
}

impl Tx {
    async fn stored_passkeys(&mut self) -> Result<Vec<Passkey>, StoreError> {
        let rows: Vec<PasskeyRow> = each!(self, ALL, |conn, sql| sqlx::query_as(sql).fetch_all(conn).await)?;
        readable(rows.into_iter().map(Passkey::try_from))
    }

    /// Removes a passkey and has the votes counted again that it signed; returns the seal that says so, `None` where
    /// there was none.
    pub(super) async fn take_passkey(
        &mut self,
        id: &str,
        now: Timestamp,
    ) -> Result<Option<Seal>, StoreError> {
        let done = each!(self, REMOVE, |conn, sql| sqlx::query(sql)
            .bind(id)
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))?;
        if done != 1 {
            return Ok(None);
        }
        each!(self, WAKE, |conn, sql| sqlx::query(sql).bind(id).bind(now).execute(conn).await.map(drop))?;
        Ok(Some(Seal::end(format!("{SUBJECT}{id}"))))
    }

    /// The ids of the passkeys whose holder is one of `holders`.
    pub(super) async fn passkeys_held(
        &mut self,
        holders: impl Fn(&str) -> bool,
    ) -> Result<BTreeSet<String>, StoreError> {
        let all = self.stored_passkeys().await?;
        Ok(all.into_iter().filter(|it| holders(&it.holder)).map(|it| it.id).collect())
    }

    /// The passkeys that are as Keywheel wrote them, by their ids.
    pub(super) async fn sound_passkeys(&mut self) -> Result<BTreeMap<String, Passkey>, StoreError> {
        let mut found = BTreeMap::new();
        for it in self.stored_passkeys().await? {
            match self.check_seals(&[it.seal()]).await {
                Ok(()) => drop(found.insert(it.id.clone(), it)),
                Err(StoreError::Tampered { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Keeps what was signed with a vote; returns the seal of the passkey with its new counter.
    pub(super) async fn write_signed(
        &mut self,
        id: RotationId,
        voter: &str,
        it: &SignedVote,
        now: Timestamp,
    ) -> Result<Seal, StoreError> {
        let used = PasskeyUse { id: it.passkey.clone(), counter: it.counter, is_copied: it.is_copied };
        let seal = self.use_passkey(&used).await?;
        let kept = each!(self, SIGNED, |conn, sql| sqlx::query(sql)
            .bind(it.nonce.as_str())
            .bind(id.0)
            .bind(voter)
            .bind(it.passkey.as_str())
            .bind(now)
            .bind(json("assertions", "evidence", &it.nonce, it)?)
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))?;
        if kept != 1 {
            return Err(StoreError::Conflict);
        }
        Ok(seal)
    }

    /// Keeps the counter of a passkey that was used; returns its seal.
    async fn use_passkey(&mut self, it: &PasskeyUse) -> Result<Seal, StoreError> {
        let mut all = self.sound_passkeys().await?;
        let Some(passkey) = all.remove(&it.id) else { return Err(StoreError::Conflict) };
        let used = each!(self, USE, |conn, sql| sqlx::query(sql)
            .bind(it.id.as_str())
            .bind(i64::from(it.counter.0))
            .bind(i64::from(it.counter.1))
            .bind(it.is_copied)
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))?;
        if used != 1 {
            return Err(StoreError::Conflict);
        }
        let credential =
            Credential { counter: it.counter.1, is_copied: it.is_copied, ..passkey.credential.clone() };
        Ok(Passkey { credential, ..passkey }.seal())
    }

    /// The seals of all passkeys.
    pub(super) async fn seals_of_passkeys(&mut self) -> Result<Vec<Seal>, StoreError> {
        Ok(self.stored_passkeys().await?.iter().map(Passkey::seal).collect())
    }

    /// Has every passkey count for nothing until it is confirmed again; returns the seals that say so. A row that
    /// Keywheel did not write gets none.
    pub(super) async fn unconfirm_passkeys(&mut self) -> Result<Vec<Seal>, StoreError> {
        let sound = self.sound_passkeys().await?;
        each!(self, UNCONFIRM, |conn, sql| sqlx::query(sql).execute(conn).await.map(drop))?;
        let before = |it: Passkey| Passkey {
            confirmed_by: None,
            confirmed_at: None,
            told: Vec::new(),
            counts_from: None,
            ..it
        };
        Ok(sound.into_values().map(|it| before(it).seal()).collect())
    }

    /// Forgets every passkey: nobody vouches for them any more. Returns the seals that say so.
    pub(super) async fn forget_passkeys(&mut self) -> Result<Vec<Seal>, StoreError> {
        let all = self.stored_passkeys().await?;
        each!(self, FORGET, |conn, sql| sqlx::query(sql).execute(conn).await.map(drop))?;
        Ok(all.iter().map(|it| Seal::end(it.subject())).collect())
    }
}
