//! Passkeys of people: enrolled while signed in, confirmed by somebody or something that is trusted already, and counting
//! only a while after those were told who must hear of it.
//!
//! What a passkey is to sign is derived from a ticket: a random number that this server made for one person and one
//! purpose, encrypted, so that nothing of it is stored before it is used. Signatures are checked in `crate::passkey`,
//! once when they arrive and once more before a PATCH (`store/ballots.rs`).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::announce::message_id;
use super::authority::{plain, rows, together};
use super::command::{Actor, CommandError};
use super::settling::{loosen_after, settling_in};
use super::{ENGINE, Engine};
use crate::domain::notice::{Authority, Kind};
use crate::domain::role::Role;
use crate::domain::time::Timestamp;
use crate::mail::is_address;
use crate::passkey::{
    Assertion, Challenge, NoSite, Site, bytes, challenge, nonce, register, text, verify, went_on,
};
use crate::store::{NewAudit, NewOutbox, Passkey, PasskeyUse, RotationRow, SignedVote, StoreError};

/// How long a page may be read before its ticket is used.
const TICKET: Duration = Duration::from_hours(1);

/// Passkeys of one person.
const MOST: usize = 10;

/// The action of the audit row of an enrolment.
pub const ENROLLED: &str = "passkey.enrolled";

/// The longest name of a passkey, in characters.
const LONGEST_NAME: usize = 60;

/// What the answer of a browser is to say.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The challenge, as browsers take it.
    pub challenge: String,
    /// What comes back with the answer.
    pub ticket: String,
}

#[derive(Serialize, Deserialize)]
struct Ticket {
    nonce: String,
    holder: String,
    about: String,
    until: Timestamp,
}

/// What a passkey is asked for. The name is part of what is signed.
const ENROL: &str = "enrol";
const CONFIRM: &str = "confirm";
const APPROVE: &str = "approve";

/// What a browser sends back when a passkey has signed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The id of the passkey.
    pub id: String,
    /// The browser's part.
    pub client_data: String,
    /// The authenticator's part.
    pub authenticator_data: String,
    /// The signature.
    pub signature: String,
}

/// What a browser sends back when a passkey was made.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Made {
    /// The browser's part.
    pub client_data: String,
    /// The authenticator's part.
    pub attestation: String,
}

fn wrong(rule: impl std::fmt::Display) -> CommandError {
    CommandError::Invalid { field: "passkey", rule: rule.to_string() }
}

fn part(text: &str) -> Result<Vec<u8>, CommandError> {
    bytes(text).ok_or_else(|| wrong("what the browser sent cannot be read"))
}

impl Answer {
    fn assertion(&self) -> Result<Assertion, CommandError> {
        Ok(Assertion {
            client_data: part(&self.client_data)?,
            authenticator_data: part(&self.authenticator_data)?,
            signature: part(&self.signature)?,
        })
    }
}

/// The name under which a person's passkeys are kept.
#[must_use]
pub fn holder(person: &str) -> String {
    person.to_ascii_lowercase()
}

impl Engine {
    /// Where passkeys are used.
    ///
    /// # Errors
    /// When no browser offers them under `server.public_url`.
    pub fn site(&self) -> Result<Site, NoSite> {
        Site::of(&self.settings.public_url)
    }

    fn own_site(&self) -> Result<Site, CommandError> {
        self.site().map_err(wrong)
    }

    fn ask(&self, purpose: &str, holder: &str, about: &str) -> Result<Asked, CommandError> {
        let no_bits = || wrong("the system gives no random bytes");
        let nonce = nonce().map_err(|_| no_bits())?;
        let challenge = text(&asked_for(purpose, about, &nonce));
        let until = self.clock.now() + TICKET;
        let ticket = Ticket { nonce, holder: holder.to_owned(), about: about.to_owned(), until };
        let closed =
            self.store.seals().key()?.close(&format!("passkey {purpose}"), &json!(ticket).to_string());
        Ok(Asked { challenge, ticket: closed.ok_or_else(no_bits)? })
    }

    /// The random part of the challenge that was made for this.
    fn answered(
        &self,
        purpose: &str,
        holder: &str,
        about: &str,
        ticket: &str,
    ) -> Result<(String, Challenge), CommandError> {
        let text = self.store.seals().key()?.open(&format!("passkey {purpose}"), ticket);
        let ticket: Option<Ticket> = text.and_then(|text| serde_json::from_str(&text).ok());
        let own = ticket.filter(|it| it.holder == holder && it.about == about);
        let own = own.ok_or_else(|| wrong("the form is not one of this page; load it again"))?;
        if self.clock.now() >= own.until {
            return Err(wrong("the page was open for more than an hour; load it again"));
        }
        let challenge = asked_for(purpose, about, &own.nonce);
        Ok((own.nonce, challenge))
    }

    /// The passkeys of this person, the oldest first.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn passkeys_of(&self, holder: &str) -> Result<Vec<Passkey>, StoreError> {
        let mut all = self.store.passkeys().await?;
        all.retain(|it| it.holder == holder);
        Ok(all)
    }

    /// Those of them that sign votes now, at the present address of the pages.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn signing_passkeys(&self, holder: &str) -> Result<Vec<Passkey>, StoreError> {
        let former = self.store.former_addresses().await?;
        let mut all = self.passkeys_of(holder).await?;
        all.retain(|it| self.why_unsigned(it, &former).is_none());
        Ok(all)
    }

    /// What a new passkey of `holder` answers.
    ///
    /// # Errors
    /// Fails without a name for the site or without random bytes.
    pub fn ask_to_enrol(&self, holder: &str) -> Result<Asked, CommandError> {
        self.own_site()?;
        self.ask(ENROL, holder, "")
    }

    /// Enrols a passkey. It counts for nothing until it is confirmed.
    ///
    /// # Errors
    /// Names what is wrong with it, and fails when the database cannot be written.
    pub async fn enrol_passkey(
        &self,
        (by, holder): (&str, &str),
        name: &str,
        ticket: &str,
        made: &Made,
    ) -> Result<Passkey, CommandError> {
        let (site, now) = (self.own_site()?, self.clock.now());
        let name = name.trim();
        if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
            return Err(CommandError::Invalid {
                field: "name",
                rule: format!("it takes 1 to {LONGEST_NAME} characters, such as \"Phone\""),
            });
        }
        let (_, challenge) = self.answered(ENROL, holder, "", ticket)?;
        let credential = register(&site, &challenge, &part(&made.client_data)?, &part(&made.attestation)?);
        let credential = credential.map_err(wrong)?;
        if self.passkeys_of(holder).await?.len() >= MOST {
            return Err(wrong(format!("you have {MOST}, which is the most; remove one first")));
        }
        let it = Passkey {
            id: text(&credential.id),
            holder: holder.to_owned(),
            name: name.to_owned(),
            site: site.id,
            credential,
            enrolled_by: by.to_owned(),
            enrolled_at: now,
            confirmed_by: None,
            confirmed_at: None,
            told: Vec::new(),
            counts_from: None,
        };
        match self.store.enrol_passkey(&it, record(by, ENROLLED, &it)).await {
            Ok(()) => Ok(it),
            Err(StoreError::Conflict) => Err(wrong("it is enrolled already")),
            Err(error) => Err(error.into()),
        }
    }

    /// What a passkey of `holder` that counts signs to confirm another one.
    ///
    /// # Errors
    /// Fails without random bytes.
    pub fn ask_to_confirm(&self, holder: &str, it: &Passkey) -> Result<Asked, CommandError> {
        self.ask(CONFIRM, holder, &confirming(it))
    }

    /// Confirms a passkey with another one of the same person.
    ///
    /// # Errors
    /// Names what is wrong with the signature, and fails when the database cannot be written.
    pub async fn confirm_by_own(
        &self,
        (by, holder): (&str, &str),
        id: &str,
        (ticket, answer): (&str, &Answer),
    ) -> Result<(), CommandError> {
        let it = self.passkey(id).await?;
        let (_, challenge) = self.answered(CONFIRM, holder, &confirming(&it), ticket)?;
        let own = self.signing_passkeys(holder).await?;
        let own = own.into_iter().find(|it| it.id == answer.id && it.id != id);
        let own = own.ok_or_else(|| wrong("it is not one of your passkeys that count"))?;
        let signed = verify(&self.own_site()?, &challenge, &own.credential, &answer.assertion()?);
        let signed = signed.map_err(wrong)?;
        went_on(own.credential.counter, signed.counter).map_err(wrong)?;
        if it.holder != holder {
            return Err(CommandError::NoPasskey(id.to_owned()));
        }
        let counter = (own.credential.counter, signed.counter);
        let used = PasskeyUse { id: own.id, counter, is_copied: signed.is_copied };
        self.confirmed(by, it, Some(used), false).await
    }

    /// Confirms a passkey of somebody else, whose person has read its code to the admin.
    ///
    /// # Errors
    /// Refuses the own one, another code and anyone who is no admin, and fails when the database cannot be written.
    pub async fn confirm_passkey(
        &self,
        by: Actor<'_>,
        person: Option<&str>,
        (id, code): (&str, &str),
    ) -> Result<Passkey, CommandError> {
        let it = self.passkey(id).await?;
        let rule = |rule: &str| CommandError::NotAllowed {
            field: "passkey".to_owned(),
            rule: rule.to_owned(),
            role: Role::Admin,
        };
        if !by.is_admin() {
            return Err(rule("an admin confirms the first passkey of a person"));
        }
        let own = it.enrolled_by == by.name || person.is_some_and(|mail| holder(mail) == it.holder);
        if own && !by.on_machine {
            return Err(rule(
                "nobody confirms an own passkey but with another one; another admin must, or somebody on the machine",
            ));
        }
        // Whose it is cannot be told from a token that was given to nobody.
        if person.is_none() && !by.on_machine {
            return Err(rule("who confirms must be known as a person, and this token was given to nobody"));
        }
        let token = self.store.token(&it.enrolled_by).await?;
        let made = token.is_some_and(|it| [it.made_by, it.given_by].iter().flatten().any(|it| it == by.name));
        if made && !by.on_machine {
            return Err(rule(
                "you have made or given the token that enrolled it; another admin must confirm it",
            ));
        }
        if code.trim().to_ascii_lowercase() != it.code() {
            return Err(CommandError::Invalid {
                field: "code",
                rule: "it is not the code of this passkey; ask its person for the one on the page under the own name".to_owned(),
            });
        }
        self.confirmed(by.name, it, None, by.on_machine).await?;
        self.passkey(id).await
    }

    async fn confirmed(
        &self,
        by: &str,
        before: Passkey,
        used: Option<PasskeyUse>,
        on_machine: bool,
    ) -> Result<(), CommandError> {
        if before.confirmed_at.is_some() {
            return Err(wrong("it is confirmed already"));
        }
        let now = self.clock.now();
        let is_first_day = settling_in(self).await?.covers(now);
        let told = if self.settings.mails { self.who_hears(&before) } else { Vec::new() };
        if told.is_empty() && !is_first_day && !on_machine {
            return Err(CommandError::NobodyToTell { field: "passkey".to_owned() });
        }
        let mut after = before.clone();
        (after.confirmed_by, after.confirmed_at) = (Some(by.to_owned()), Some(now));
        after.counts_from = match (is_first_day, told.is_empty()) {
            (true, _) => Some(now),
            (false, true) => Some(now + loosen_after(self).await?.get()),
            (false, false) => None,
        };
        after.told = told;
        let outbox = self.passkey_rows(Kind::PasskeyConfirmed, by, &after, now);
        let audit = record(by, "passkey.confirmed", &after);
        match self.store.confirm_passkey((&before, &after), used, audit, &outbox, now).await {
            Ok(()) => self.mail_due.notify_one(),
            Err(StoreError::Conflict) => {
                return Err(wrong("one of the two was confirmed, used or removed meanwhile"));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Removes a passkey: an own one, or as an admin anybody's. Who has none left begins anew, with an admin.
    ///
    /// # Errors
    /// Refuses those of others to anyone who is no admin, and fails when the database cannot be written.
    pub async fn remove_passkey(
        &self,
        by: Actor<'_>,
        person: Option<&str>,
        id: &str,
    ) -> Result<Passkey, CommandError> {
        let it = self.passkey(id).await?;
        let is_own = person.is_some_and(|mail| holder(mail) == it.holder);
        if !is_own && !by.is_admin() {
            return Err(CommandError::NoPasskey(id.to_owned()));
        }
        let now = self.clock.now();
        // One that was never confirmed was told to nobody.
        let outbox = match it.confirmed_at {
            Some(_) => self.passkey_rows(Kind::PasskeyRemoved, by.name, &it, now),
            None => Vec::new(),
        };
        let audit = record(by.name, "passkey.removed", &it);
        match self.store.remove_passkey(&it, audit, &outbox, now).await {
            Ok(()) => self.mail_due.notify_one(),
            Err(StoreError::Conflict) => return Err(CommandError::NoPasskey(id.to_owned())),
            Err(error) => return Err(error.into()),
        }
        Ok(it)
    }

    /// What a passkey of `holder` signs to approve `row`.
    ///
    /// # Errors
    /// Fails without random bytes.
    pub fn ask_to_approve(&self, holder: &str, row: &RotationRow) -> Result<Asked, CommandError> {
        self.ask(APPROVE, holder, &about(row))
    }

    /// The vote of `holder` on `row` that a passkey has signed. `shown` is what the page said.
    ///
    /// # Errors
    /// Names what is wrong with the signature, and fails when the database cannot be read.
    pub async fn signed_vote(
        &self,
        holder: &str,
        row: &RotationRow,
        (ticket, answer): (&str, &Answer),
        shown: Vec<String>,
    ) -> Result<SignedVote, CommandError> {
        let (nonce, challenge) = self.answered(APPROVE, holder, &about(row), ticket)?;
        let own = self.signing_passkeys(holder).await?.into_iter().find(|it| it.id == answer.id);
        let own = own.ok_or_else(|| wrong("it is not one of your passkeys that count"))?;
        if self.store.is_signed(&nonce).await? {
            return Err(wrong("this was signed before; load the page again"));
        }
        let site = self.own_site()?;
        let assertion = answer.assertion()?;
        let signed = verify(&site, &challenge, &own.credential, &assertion).map_err(wrong)?;
        went_on(own.credential.counter, signed.counter).map_err(wrong)?;
        Ok(SignedVote {
            nonce,
            algorithm: own.credential.algorithm().map_err(wrong)?.to_owned(),
            public_key: text(&own.credential.key),
            passkey: own.id,
            site: site.id,
            origin: site.origin,
            proposal_hash: row.proposal_hash.clone(),
            shown,
            client_data: text(&assertion.client_data),
            authenticator_data: text(&assertion.authenticator_data),
            signature: text(&assertion.signature),
            counter: (own.credential.counter, signed.counter),
            is_copied: signed.is_copied,
        })
    }

    async fn passkey(&self, id: &str) -> Result<Passkey, CommandError> {
        let found = self.store.passkeys().await?.into_iter().find(|it| it.id == id);
        found.ok_or_else(|| CommandError::NoPasskey(id.to_owned()))
    }

    /// Who must hear of a passkey: its holder, where that is a mailbox, and those who look after the security.
    fn who_hears(&self, it: &Passkey) -> Vec<String> {
        let own: Vec<String> = Some(it.holder.clone()).filter(|it| is_address(it)).into_iter().collect();
        together(&own, &self.settings.security)
    }

    fn passkey_rows(&self, kind: Kind, by: &str, it: &Passkey, now: Timestamp) -> Vec<NewOutbox> {
        let detail = format!(
            "Passkey \"{}\" of {}, code {}, enrolled {}.",
            it.name,
            it.holder,
            it.code(),
            it.enrolled_at
        );
        let facts = Authority {
            detail: Some(detail),
            takes_effect_at: it.counts_from,
            ..plain(kind, format!("person/{}", it.holder), by, now)
        };
        rows(self, &identity(kind, it, now), facts, &self.who_hears(it), now)
    }
}

/// Identifies the news about a passkey.
fn identity(kind: Kind, it: &Passkey, at: Timestamp) -> String {
    format!("{}/{kind}/{}", it.subject(), at.as_micros())
}

/// What the confirmation of a passkey is about.
fn confirming(it: &Passkey) -> String {
    format!("{} {}", it.id, it.code())
}

/// What an approval is about.
fn about(row: &RotationRow) -> String {
    format!("{} {}", row.rotation.id, row.proposal_hash)
}

fn asked_for(purpose: &str, about: &str, nonce: &str) -> Challenge {
    let fields: Vec<&str> = about.split(' ').chain([nonce]).collect();
    challenge(purpose, &fields)
}

fn record(by: &str, action: &str, it: &Passkey) -> NewAudit {
    NewAudit {
        actor: by.to_owned(),
        action: action.to_owned(),
        subject: it.subject(),
        detail: json!({
            "holder": it.holder, "name": it.name, "site": it.site, "publicKey": text(&it.credential.key),
            "enrolledBy": it.enrolled_by, "enrolledAt": it.enrolled_at, "confirmedBy": it.confirmed_by,
            "told": it.told, "countsFrom": it.counts_from,
        })
        .to_string(),
    }
}

/// Has confirmed passkeys count: each a while after the last of those was told who must hear of it.
///
/// # Errors
/// Fails when the database cannot be read or written.
pub(super) async fn run_due(engine: &Engine) -> Result<(), StoreError> {
    for it in engine.store.passkeys().await? {
        let (Some(confirmed_at), None) = (it.confirmed_at, it.counts_from) else { continue };
        let identity = identity(Kind::PasskeyConfirmed, &it, confirmed_at);
        let mut last = Some(confirmed_at);
        for mail in &it.told {
            let at = engine.store.announced_at(&message_id(&format!("{identity}/{mail}"))).await?;
            last = last.zip(at).map(|(last, at)| last.max(at));
        }
        let Some(last) = last else { continue };
        let counts_from = last + loosen_after(engine).await?.get();
        let after = Passkey { counts_from: Some(counts_from), ..it.clone() };
        let audit = record(ENGINE, "passkey.told", &after);
        match engine.store.passkey_told(&it, counts_from, audit, engine.clock.now()).await {
            Ok(()) | Err(StoreError::Conflict) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
