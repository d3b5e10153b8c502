//! Whose a token is, and which former addresses an account keeps: to change that, or to take it away, is a loosening.
//!
//! Until it takes effect, and on each rotation that was proposed before, both count as one person (`domain/vote.rs`). A
//! token that is given to somebody else counts as that person's, too, from the request on.

use serde_json::{Value, json};

use super::super::authority::{rows, together};
use super::super::people::address;
use super::super::settling::{loosen_after, settling_in};
use super::super::{ENGINE, Engine};
use super::loosening::{audit_row, facts, identity};
use super::people::only_admin;
use super::{Actor, CommandError};
use crate::domain::ids::LooseningId;
use crate::domain::loosening::{Change, Course, HeldEdit, LooseningKind, LooseningState};
use crate::domain::notice::Kind;
use crate::domain::text::did_you_mean;
use crate::mail::is_address;
use crate::store::{Governed, Loosening, NewAudit, NewOutbox, Person, Separation, StoreError, Token};

/// The field of a change that separates an address from an identity.
const FIELD: &str = "person";

/// An identity from which an address can be separated.
struct Tied {
    /// What people call it: the name of a token, or of an account.
    name: String,
    /// The subject of its changes.
    subject: String,
    /// The address, as the identity has it.
    from: String,
}

impl Engine {
    /// Separates an address from the identity `from` that counts as the same person: from a token, or from an account that
    /// had it before. Without `from` it is separated from the only one there is.
    ///
    /// # Errors
    /// Refuses anyone who is no admin, fails where nothing is tied or several are, where nobody can be told, and when
    /// the database cannot be written.
    pub async fn untie_person(
        &self,
        by: Actor<'_>,
        person: &str,
        from: Option<&str>,
    ) -> Result<Loosening, CommandError> {
        only_admin(by, "an admin separates an address from an identity")?;
        let wanted = address(person.trim());
        let (accounts, mut tokens) = (self.store.people().await?, self.store.list_tokens().await?);
        tokens.retain(|it| it.as_ref().is_ok_and(|it| it.revoked_at.is_none()));
        let tokens: Vec<Token> = tokens.into_iter().flatten().collect();
        let mut tied = tied(&wanted, &accounts, &tokens);
        if let Some(from) = from {
            tied.retain(|it| it.name == from || address(&it.name) == address(from));
        }
        match (tied.pop(), tied.is_empty()) {
            (Some(one), true) => self.separate(by, &one.subject, &one.from, None).await,
            (Some(one), false) => {
                let names: Vec<String> = tied.into_iter().chain([one]).map(|it| it.name).collect();
                let rule = format!(
                    "{wanted} is tied to {}; name the one from which it is to be separated",
                    names.join(", ")
                );
                Err(CommandError::Invalid { field: "from", rule })
            }
            (None, _) => Err(nothing_tied(person, from, &wanted, &accounts, &tokens)),
        }
    }

    /// Separates `from` from the identity with this subject, and gives a token to `to`: on the first day at once, later
    /// as a change that is announced and takes effect after its delay.
    pub(super) async fn separate(
        &self,
        by: Actor<'_>,
        subject: &str,
        from: &str,
        to: Option<&str>,
    ) -> Result<Loosening, CommandError> {
        let now = self.clock.now();
        let change =
            Change { field: FIELD.to_owned(), course: Course::Looser, from: json!(from), to: json!(to) };
        let mut it = Loosening {
            id: LooseningId::new(),
            subject: subject.to_owned(),
            kind: LooseningKind::Loosening,
            state: LooseningState::Effective,
            requested_by: by.name.to_owned(),
            requested_at: now,
            changes: vec![change],
            edit: HeldEdit::default(),
            owners: Vec::new(),
            security: Vec::new(),
            announced_at: None,
            effective_at: Some(now),
            ended_at: None,
            ended_by: None,
            version: 1,
        };
        let mut governed = Governed { by: by.name.to_owned(), ..Governed::default() };
        let mut audit = self.replaced(by.name, &it, &mut governed).await?;
        let own: Vec<String> =
            [Some(from), to].into_iter().flatten().map(address).filter(|it| is_address(it)).collect();
        if settling_in(self).await?.covers(now) {
            let outbox = self.told_of_separation(Kind::LooseningEffective, &it, &own).await?;
            audit.push(audit_row(by.name, "loosening.effective", &it));
            governed.new.push(it.clone());
            self.store.separate(&separation(&it), governed, (&audit, &outbox), now).await?;
            self.mail_due.notify_one();
            return Ok(it);
        }
        (it.state, it.effective_at) = (LooseningState::Announcing, None);
        if self.settings.mails {
            (it.owners, it.security) = self.who_must_hear().await?;
        }
        if it.owners.is_empty() && it.security.is_empty() {
            if !by.on_machine {
                return Err(CommandError::NobodyToTell { field: FIELD.to_owned() });
            }
            it.state = LooseningState::Waiting;
            it.announced_at = Some(now);
            it.effective_at = Some(now + loosen_after(self).await?.get());
        }
        let outbox = self.told_of_separation(Kind::LooseningAnnounced, &it, &own).await?;
        audit.push(audit_row(by.name, "loosening.requested", &it));
        governed.new.push(it.clone());
        self.store.govern(governed, (&audit, &outbox), now).await?;
        self.mail_due.notify_one();
        Ok(it)
    }

    /// A newer change of the same tie replaces what was to come of it.
    async fn replaced(
        &self,
        by: &str,
        it: &Loosening,
        governed: &mut Governed,
    ) -> Result<Vec<NewAudit>, StoreError> {
        let mut audit = Vec::new();
        for earlier in self.store.pending_loosenings().await? {
            let is_same = |a: &Change, b: &Change| a.field == b.field && a.from == b.from;
            let same = earlier.changes.iter().zip(&it.changes).any(|(a, b)| is_same(a, b));
            if earlier.subject == it.subject && same {
                audit.push(audit_row(by, "loosening.withdrawn", &earlier));
                governed.withdrawn.push(earlier.id);
            }
        }
        Ok(audit)
    }

    /// Of the first one must hear, of the second each.
    async fn who_must_hear(&self) -> Result<(Vec<String>, Vec<String>), StoreError> {
        let (security, operators) = (&self.settings.security, &self.settings.operators);
        Ok(match (security.as_slice(), operators.as_slice()) {
            ([], []) => (self.store.all_owners().await?, Vec::new()),
            ([], operators) => (Vec::new(), operators.to_vec()),
            (security, _) => (Vec::new(), security.to_vec()),
        })
    }

    async fn told_of_separation(
        &self,
        kind: Kind,
        it: &Loosening,
        own: &[String],
    ) -> Result<Vec<NewOutbox>, StoreError> {
        let now = self.clock.now();
        let people = match kind {
            Kind::LooseningAnnounced => together(&it.owners, &it.security),
            _ => self.hears_of_people().await?,
        };
        let facts = facts(kind, it, None, &it.requested_by, now);
        let identity =
            if kind == Kind::LooseningAnnounced { identity(it) } else { format!("{}/effective", it.id) };
        Ok(rows(self, &identity, facts, &together(&people, own), now))
    }

    /// Has a change take effect that separates an address from an identity; one of an identity that is another by now is
    /// withdrawn.
    ///
    /// # Errors
    /// Fails when the database cannot be read or written.
    pub(in crate::engine) async fn separated(&self, it: &Loosening) -> Result<(), StoreError> {
        let now = self.clock.now();
        let separation = separation(it);
        if !self.store.is_tied(&separation).await? {
            let audit = [audit_row(ENGINE, "loosening.withdrawn", it)];
            self.store.withdraw_loosening(it.id, ENGINE, &audit, &[], now).await?;
            return Ok(());
        }
        let after = Loosening { effective_at: Some(now), ..it.clone() };
        let governed = Governed { effective: Some(it.clone()), by: ENGINE.to_owned(), ..Governed::default() };
        let own: Vec<String> = [Some(&separation.from), separation.to.as_ref()]
            .into_iter()
            .flatten()
            .map(|it| address(it))
            .filter(|it| is_address(it))
            .collect();
        let outbox = self.told_of_separation(Kind::LooseningEffective, &after, &own).await?;
        let audit = [audit_row(&it.requested_by, "loosening.effective", &after)];
        self.store.separate(&separation, governed, (&audit, &outbox), now).await?;
        self.mail_due.notify_one();
        Ok(())
    }
}

/// What a change separates.
fn separation(it: &Loosening) -> Separation {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let change = it.changes.first();
    Separation {
        subject: it.subject.clone(),
        from: text(change.map(|it| &it.from)).unwrap_or_default(),
        to: text(change.map(|it| &it.to)),
        by: it.requested_by.clone(),
    }
}

/// The identities from which `wanted` can be separated: tokens in force that were given to it, accounts that had it
/// before, and the account of a person who was removed.
fn tied(wanted: &str, accounts: &[Person], tokens: &[Token]) -> Vec<Tied> {
    let mut found = Vec::new();
    for it in accounts {
        let present = Some(&it.name).filter(|_| it.is_removed());
        let names = it.former.iter().chain(present);
        found.extend(names.filter(|name| address(name) == wanted).map(|name| Tied {
            name: it.name.clone(),
            subject: it.log_subject(),
            from: name.clone(),
        }));
    }
    for it in tokens {
        let person = it.person.as_ref().filter(|person| address(person) == wanted);
        found.extend(person.map(|person| Tied {
            name: it.name.clone(),
            subject: format!("token/{}", it.name),
            from: person.clone(),
        }));
    }
    found
}

fn nothing_tied(
    person: &str,
    from: Option<&str>,
    wanted: &str,
    accounts: &[Person],
    tokens: &[Token],
) -> CommandError {
    let known = || {
        accounts
            .iter()
            .map(|it| address(&it.name))
            .chain(tokens.iter().filter_map(|it| it.person.as_deref().map(address)))
    };
    if let Some(it) = accounts.iter().find(|it| address(&it.name) == *wanted && !it.is_removed()) {
        let rule = format!(
            "{wanted} is the present address of an account at {}, which verifies it at each sign-in; change it there, or \
             remove the person (`keywheel person remove {wanted}`)",
            it.issuer
        );
        return CommandError::Invalid { field: FIELD, rule };
    }
    if let Some(from) = from.filter(|_| known().any(|it| it == wanted)) {
        let rule = format!("{wanted} is not tied to {from:?}; `keywheel person list` shows what is tied");
        return CommandError::Invalid { field: "from", rule };
    }
    let all: Vec<String> = known().collect();
    let near = did_you_mean(wanted, all.iter().map(String::as_str));
    CommandError::NobodyKnown { name: person.to_owned(), near }
}
