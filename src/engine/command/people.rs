//! People: removed with all by which they are known.

use serde_json::{Value, json};

use super::super::Engine;
use super::super::authority::{plain, rows, together};
use super::super::people::{Known, address};
use super::{Actor, CommandError, TRIES};
use crate::domain::approver::{Approver, Named};
use crate::domain::notice::{Authority, Kind};
use crate::domain::role::Role;
use crate::domain::text::did_you_mean;
use crate::domain::time::Timestamp;
use crate::mail::is_address;
use crate::store::{Leaver, NewAudit, NewOutbox, StoreError};

/// A person who was removed, as it was known, and what the removal leaves.
#[derive(Clone, Debug)]
pub struct Removed {
    /// Who it was.
    pub person: Known,
    /// The projects that one of the addresses owns still: their mails go on.
    pub still_owns: Vec<String>,
}

impl Engine {
    /// Removes a person: accounts lose their roles until they sign in again, tokens are revoked, passkeys removed,
    /// sessions and feeds end, and votes on what was not sent are void.
    ///
    /// # Errors
    /// Refuses anyone who is no admin, fails for somebody who is not known, and when the database cannot be written.
    pub async fn remove_person(&self, by: Actor<'_>, person: &str) -> Result<Removed, CommandError> {
        only_admin(by, "an admin removes a person")?;
        for tries in 1.. {
            let it = self.leaving(person).await?;
            let now = self.clock.now();
            let leaver = leaver(&it);
            let (audit, outbox) = (records(by.name, &it), self.told_of_removal(by.name, &it, now).await?);
            match self.store.remove_person(&leaver, by.name, (&audit, &outbox), now).await {
                Err(StoreError::Conflict) if tries < TRIES => {}
                done => {
                    done?;
                    self.mail_due.notify_one();
                    return Ok(Removed { still_owns: self.owned_by(&leaver).await?, person: it });
                }
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Who is known by this address or name; or whom an owner's list or a policy names, who may hold links to mailed
    /// proposals and was never seen.
    async fn leaving(&self, person: &str) -> Result<Known, CommandError> {
        match self.known_person(person).await {
            Err(CommandError::NobodyKnown { name, near }) => {
                let wanted = address(person.trim());
                if is_address(&wanted) && !self.is_removed(&wanted).await? && self.is_named(&wanted).await? {
                    return Ok(Known::named(wanted));
                }
                Err(CommandError::NobodyKnown { name, near })
            }
            known => known,
        }
    }

    /// Whether a project has this owner, or a policy names this address.
    async fn is_named(&self, wanted: &str) -> Result<bool, StoreError> {
        let mut named = self.store.named_approvers().await?;
        let policy = &self.settings.policy;
        named.extend(policy.approvers.iter().chain(&policy.emergency.by).cloned());
        let is = |it: &Approver| matches!(&it.who, Named::Mail(mail) if address(mail) == wanted);
        Ok(named.iter().any(is) || !self.store.groups_owned_by(wanted).await?.is_empty())
    }

    /// Who is known by this address or name.
    ///
    /// # Errors
    /// Names the nearest where nobody is.
    pub(super) async fn known_person(&self, person: &str) -> Result<Known, CommandError> {
        let wanted = address(person.trim());
        let all = self.known_people().await?;
        let near = did_you_mean(&wanted, all.iter().map(|it| it.address.as_str()));
        let found = all.into_iter().find(|it| it.address == wanted || it.others.contains(&wanted));
        found.ok_or_else(|| CommandError::NobodyKnown { name: person.to_owned(), near })
    }

    async fn owned_by(&self, it: &Leaver) -> Result<Vec<String>, StoreError> {
        let mut found = Vec::new();
        for address in &it.addresses {
            found.extend(self.store.groups_owned_by(address).await?);
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// The messages to those who look after the security, and to the person.
    async fn told_of_removal(
        &self,
        by: &str,
        it: &Known,
        now: Timestamp,
    ) -> Result<Vec<NewOutbox>, StoreError> {
        let facts = Authority {
            detail: Some(what(it)),
            ..plain(Kind::PersonRemoved, format!("person/{}", it.address), by, now)
        };
        let own: Vec<String> = it.all_addresses().filter(|it| is_address(it)).map(str::to_owned).collect();
        let people = together(&own, &self.hears_of_people().await?);
        let identity = format!("person/{}/removed/{}", it.address, now.as_micros());
        Ok(rows(self, &identity, facts, &people, now))
    }

    /// Who hears of people who come, change and go: those who look after the security, or else after the installation.
    pub(in crate::engine) async fn hears_of_people(&self) -> Result<Vec<String>, StoreError> {
        match self.settings.security.as_slice() {
            [] => self.responsible().await,
            security => Ok(security.to_vec()),
        }
    }
}

pub(super) fn only_admin(by: Actor<'_>, rule: &str) -> Result<(), CommandError> {
    if by.is_admin() {
        return Ok(());
    }
    Err(CommandError::NotAllowed { field: "person".to_owned(), rule: rule.to_owned(), role: Role::Admin })
}

fn leaver(it: &Known) -> Leaver {
    Leaver {
        addresses: it.all_addresses().map(str::to_owned).collect(),
        accounts: it.accounts.iter().map(|(it, _)| (it.issuer.clone(), it.subject.clone())).collect(),
        tokens: it.tokens.iter().map(|it| it.name.clone()).collect(),
        passkeys: it.passkeys.iter().map(|(it, _)| it.id.clone()).collect(),
    }
}

/// What goes with a person, for people.
fn what(it: &Known) -> String {
    let mut parts = Vec::new();
    let accounts: Vec<_> = it.accounts.iter().map(|(it, _)| it.issuer.as_str()).collect();
    let tokens: Vec<_> = it.tokens.iter().map(|it| it.name.as_str()).collect();
    let passkeys: Vec<_> = it.passkeys.iter().map(|(it, _)| it.name.as_str()).collect();
    for (what, names) in [("accounts at", accounts), ("tokens", tokens), ("passkeys", passkeys)] {
        if !names.is_empty() {
            parts.push(format!("{what} {}", names.join(", ")));
        }
    }
    match it.sessions.len() {
        0 => {}
        1 => parts.push("one open session".to_owned()),
        many => parts.push(format!("{many} open sessions")),
    }
    let others: Vec<_> = it.others.iter().map(String::as_str).collect();
    let also = if others.is_empty() { String::new() } else { format!(" (also {})", others.join(", ")) };
    let parts = if parts.is_empty() { "nothing but links in mails".to_owned() } else { parts.join("; ") };
    format!("Of {}{also} went: {parts}.", it.address)
}

/// The rows of the audit log, one about each part and the last about the person.
fn records(by: &str, it: &Known) -> Vec<NewAudit> {
    let row = |action: &str, subject: String, detail: Value| NewAudit {
        actor: by.to_owned(),
        action: action.to_owned(),
        subject,
        detail: detail.to_string(),
    };
    let why = json!({ "personRemoved": it.address });
    let tokens = it.tokens.iter().map(|it| row("token.revoked", format!("token/{}", it.name), why.clone()));
    let passkeys = it.passkeys.iter().map(|(it, _)| row("passkey.removed", it.subject(), why.clone()));
    let accounts = it.accounts.iter().map(|(it, _)| json!({ "issuer": it.issuer, "name": it.name }));
    let detail = json!({
        "addresses": it.all_addresses().collect::<Vec<_>>(), "accounts": accounts.collect::<Vec<_>>(),
        "tokens": it.tokens.iter().map(|it| &it.name).collect::<Vec<_>>(),
        "passkeys": it.passkeys.iter().map(|(it, _)| &it.id).collect::<Vec<_>>(),
        "sessions": it.sessions.len(),
    });
    let person = row("person.removed", format!("person/{}", it.address), detail);
    tokens.chain(passkeys).chain([person]).collect()
}
