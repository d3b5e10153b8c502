//! Calendar feeds: one secret address for each person, for programs that cannot sign in.
//!
//! An address is computed from the installation key, the person and the instant, as the links in mails are; nothing of it
//! is stored. The audit log has the instant of the one in force, so a new address ends the one before. Whose it is must
//! still be known when it is read: the pages check that.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use super::Engine;
use super::plan::PER_DAY;
use crate::domain::day::day_of;
use crate::domain::freeze::Freeze;
use crate::domain::ics::{Event, calendar};
use crate::domain::ids::GroupId;
use crate::domain::project::Project;
use crate::domain::text::visible;
use crate::domain::time::Timestamp;
use crate::domain::zone::Zone;
use crate::store::{FeedMade, StoreError};

/// What the proof of a feed begins with. That of a link in a mail begins with the id of a rotation.
const PURPOSE: &[u8] = b"calendar feed\n";

/// How far a feed looks ahead, in days.
const DAYS: u64 = 365;

/// The most events of a feed.
const MOST: usize = 1000;

/// The bytes of the instant and of the proof.
const MADE: usize = 8;
const PROOF: usize = 32;

/// Whose feed it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedHolder {
    /// The token or person.
    pub name: String,
    /// The issuer that vouches for a person; `None` for the holder of a token.
    pub issuer: Option<String>,
}

fn covered(made: u64, name: &str) -> Vec<u8> {
    [PURPOSE, &made.to_be_bytes(), name.as_bytes()].concat()
}

impl Engine {
    /// Makes a new secret for the feed of `holder`; the one before ends.
    ///
    /// # Errors
    /// Fails when the database cannot be written, and without the installation key.
    pub async fn make_feed(&self, holder: FeedHolder) -> Result<String, StoreError> {
        let now = self.clock.now();
        let made = now.as_micros().max(0).unsigned_abs();
        let proof = self.store.seals().key()?.link_proof(&covered(made, &holder.name));
        let FeedHolder { name, issuer } = holder;
        self.store.append(&[FeedMade { made, issuer }.record(&name)], now).await?;
        Ok(BASE64.encode([&made.to_be_bytes()[..], &proof, name.as_bytes()].concat()))
    }

    /// When the feed of `name` was made that is in force; `None` without one.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn feed_made(&self, name: &str) -> Result<Option<Timestamp>, StoreError> {
        let made = self.store.last_feed(name).await?;
        Ok(made.map(|it| Timestamp::from_micros(i64::try_from(it.made).unwrap_or(i64::MAX))))
    }

    /// Ends the feed of `name`, where there is one.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn revoke_feed(&self, name: &str) -> Result<(), StoreError> {
        if self.store.last_feed(name).await?.is_none() {
            return Ok(());
        }
        self.store.append(&[FeedMade::ended(name, name)], self.clock.now()).await
    }

    /// Whose feed this secret opens; `None` for one that was not made here or is not in force any more.
    ///
    /// # Errors
    /// Fails when the database cannot be read, and without the installation key.
    pub async fn feed_holder(&self, secret: &str) -> Result<Option<FeedHolder>, StoreError> {
        let Ok(bytes) = BASE64.decode(secret) else { return Ok(None) };
        let Some((made, rest)) = bytes.split_first_chunk::<MADE>() else { return Ok(None) };
        let Some((proof, name)) = rest.split_at_checked(PROOF) else { return Ok(None) };
        let (made, Ok(name)) = (u64::from_be_bytes(*made), std::str::from_utf8(name)) else {
            return Ok(None);
        };
        if !self.store.seals().key()?.is_link_proof(&covered(made, name), proof) {
            return Ok(None);
        }
        let last = self.store.last_feed(name).await?.filter(|it| it.made == made);
        Ok(last.map(|it| FeedHolder { name: name.to_owned(), issuer: it.issuer }))
    }

    /// The calendar of a person: what falls due of the projects that this mailbox owns, or of all where it owns none;
    /// the dates of planned rotations, and the freezes.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn feed(&self, mailbox: Option<&str>) -> Result<String, StoreError> {
        let ahead = self.ahead(DAYS, PER_DAY).await?;
        let owned = match mailbox {
            Some(mail) => self.store.groups_owned_by(mail).await?,
            None => BTreeSet::new(),
        };
        let groups = ahead.projects.iter().map(|it| &it.group_id);
        let groups = groups.filter(|group| owned.is_empty() || owned.contains(group.as_str()));
        let groups: Vec<GroupId> = groups.take(MOST).cloned().collect();
        let projects = self.store.projects_of(&groups).await?;
        let projects: BTreeMap<&GroupId, &Project> = projects.iter().map(|it| (&it.group_id, it)).collect();
        let mut events = Vec::new();
        for (known, key) in ahead.projects.iter().zip(&ahead.keys) {
            let Some(project) = projects.get(&known.group_id) else { continue };
            let event = |kind: &str, at, summary, description| {
                let day = day_of(at, Zone::UTC);
                Event {
                    uid: format!("{kind}-{}@keywheel", known.group_id),
                    sequence: project.version,
                    from: day,
                    to: day,
                    summary,
                    description,
                    url: Some(format!("{}/projects/{}", self.settings.public_url, known.group_id)),
                }
            };
            let name = visible(&known.name);
            events.push(event(
                "due",
                key.due,
                format!("{name}: encryption key due"),
                format!("The cryptoperiod of the key of {name} ends at {}.", key.due),
            ));
            events.extend(key.planned_for.map(|at| {
                let text =
                    format!("The new key of {name} is sent at {at} at the earliest, once it is approved.");
                event("planned", at, format!("{name}: key rotation planned"), text)
            }));
        }
        events.extend(self.settings.policy.freezes.iter().filter(|it| it.is_ahead(ahead.from)).map(frozen));
        Ok(calendar("Keywheel", &events, ahead.from))
    }
}

fn frozen(it: &Freeze) -> Event {
    let name = visible(&it.name);
    Event {
        // Another span is another freeze.
        uid: format!("freeze-{}-{}-{}@keywheel", it.from, it.to, hex::encode(it.name.as_bytes())),
        sequence: 0,
        from: it.from,
        to: it.to,
        summary: format!("Freeze {name}: no new key is sent"),
        description: format!("From {} to {} ({}).", it.from, it.to, it.timezone),
        url: None,
    }
}
