//! Notices about who may decide: rules, owners, tokens, votes and settings.

use std::collections::BTreeSet;

use super::Engine;
use super::announce::{News, content};
use crate::domain::notice::{Authority, Kind, Notice};
use crate::domain::subject::Subject;
use crate::domain::time::Timestamp;
use crate::store::{Channel, NewOutbox, StoreError};

/// The messages about `facts` to `people` and to every target that subscribes; `identity` is the same for the same
/// news.
pub(super) fn rows(
    engine: &Engine,
    identity: &str,
    facts: Authority,
    people: &[String],
    now: Timestamp,
) -> Vec<NewOutbox> {
    let subject = facts
        .group_id
        .as_ref()
        .map_or_else(|| facts.subject.parse().unwrap_or(Subject::Installation), Subject::from);
    told(engine, identity.to_owned(), subject, Notice::Authority(facts), people, now)
}

/// The messages about `notice` to `people`, without anybody to none, and to every target that subscribes.
pub(super) fn told(
    engine: &Engine,
    identity: String,
    subject: Subject,
    notice: Notice,
    people: &[String],
    now: Timestamp,
) -> Vec<NewOutbox> {
    let news = News { identity, subject, content: content(&engine.settings, notice) };
    let mut rows = news.rows(engine, people, now);
    // Without anybody to tell, the row of the audit log says it.
    rows.retain(|row| row.channel != Channel::Mail || !people.is_empty());
    rows
}

/// A notice of `kind` with nothing in it but its author.
pub(super) fn plain(kind: Kind, subject: String, by: &str, at: Timestamp) -> Authority {
    Authority {
        kind,
        subject,
        group_id: None,
        project_name: None,
        rotation_id: None,
        by: by.to_owned(),
        at,
        changes: Vec::new(),
        takes_effect_at: None,
        loosening_id: None,
        detail: None,
    }
}

/// `one` and `other`, each address once.
pub(super) fn together(one: &[String], other: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    one.iter().chain(other).filter(|mail| seen.insert(mail.to_ascii_lowercase())).cloned().collect()
}

impl Engine {
    /// Tells those who look after the security that an operator has accepted, on the machine, what Keywheel did not vouch
    /// for. Without `mail.security` it goes to those who look after the installation.
    ///
    /// # Errors
    /// Fails when the database cannot be read or written.
    pub async fn tell_acceptance(&self, by: &str, detail: String) -> Result<(), StoreError> {
        let now = self.clock.now();
        let people = match self.settings.security.as_slice() {
            [] => self.responsible().await?,
            security => security.to_vec(),
        };
        let facts = Authority {
            detail: Some(detail),
            ..plain(Kind::Acceptance, Subject::Installation.to_string(), by, now)
        };
        let rows = rows(self, &format!("acceptance/{}", now.as_micros()), facts, &people, now);
        self.store.write_messages(rows, now).await
    }
}
