//! Atlas' own events about a change of the key: the instant, the actor, and the limits of that evidence.
//!
//! An event `{AWS,AZURE,GCP}_ENCRYPTION_KEY_ROTATED` names a project, an instant and an actor. It does
//! **not** name a key. So it can support or contradict an observation of the key. Alone it shows nothing
//! about any key. The retention of events in Atlas is not known, so a missing event shows nothing either.
//!
//! Instants here are Atlas' own: a comparison with ours corrects for the clock skew first.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::key::Provider;
use super::named::named;
use super::time::Timestamp;

named! {
    /// The search for the witness event of a rotation.
    ProofState, "proof state" {
        /// The search goes on.
        Awaited = "awaited",
        /// The event was found.
        Found = "found",
        /// No event appeared within a day.
        NotFound = "not_found",
    }
}

/// Tolerance in comparisons with the instant of an event. Atlas' instants may lack their fraction, and
/// its feed and its `Date` header need not agree to the second.
pub const SLACK: Duration = Duration::from_secs(2);

/// The actor of an event, as Atlas names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "name")]
pub enum Actor {
    /// A person, by mail address.
    Person(String),
    /// An API key, by its public key.
    ApiKey(String),
    /// A service account, by its client id.
    ServiceAccount(String),
    /// The event names no actor.
    Unsaid,
}

impl Actor {
    /// The credential with this public key or client id.
    #[must_use]
    pub fn credential(identity: &str) -> Self {
        if identity.starts_with("mdb_sa_id_") {
            Self::ServiceAccount(identity.to_owned())
        } else {
            Self::ApiKey(identity.to_owned())
        }
    }

    /// Whether this is the credential with this public key or client id.
    #[must_use]
    pub fn is(&self, identity: &str) -> bool {
        matches!(self, Self::ApiKey(name) | Self::ServiceAccount(name) if name == identity)
    }
}

/// Formatted for a sentence.
impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person(name) => f.write_str(name),
            Self::ApiKey(name) => write!(f, "the API key {name}"),
            Self::ServiceAccount(name) => write!(f, "the service account {name}"),
            Self::Unsaid => f.write_str("an unknown actor (Atlas' event names none)"),
        }
    }
}

/// Formats an instant for a sentence.
#[must_use]
pub fn clock(at: Timestamp) -> String {
    at.as_chrono().format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// One event about a rotated key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyEvent {
    /// Atlas' id of the event.
    pub id: String,
    /// When it happened, by Atlas' clock.
    pub at: Timestamp,
    /// The provider of the rotated key.
    pub provider: Provider,
    /// The actor.
    pub by: Actor,
}

/// Converts our instant to Atlas' clock. `skew_ms` is our clock minus Atlas', where it is known.
#[must_use]
pub fn atlas_time(at: Timestamp, skew_ms: Option<i64>) -> Timestamp {
    Timestamp::from_micros(at.as_micros().saturating_sub(skew_ms.unwrap_or_default().saturating_mul(1000)))
}

/// The event of the change that brought the key of `provider` observed at `seen`: the newest event,
/// unless something contradicts it.
///
/// The newest event does not count in four cases. It is about another provider: then the present key was
/// set without an event. It is newer than the observation of the key. It is older than `after`, an
/// instant at which another key was still observed. It is `ours`, the event of a PATCH that did not set
/// this key: then the event of the present key is not in the feed yet.
///
/// An event does not show whether a later change made no event, nor whether it was about this key at all.
#[must_use]
pub fn began(
    events: &[KeyEvent],
    provider: Provider,
    after: Option<Timestamp>,
    seen: Timestamp,
    ours: impl Fn(&KeyEvent) -> bool,
) -> Option<&KeyEvent> {
    let newest = events.iter().max_by_key(|event| (event.at, !ours(event)))?;
    let fits = newest.provider == provider
        && !ours(newest)
        && newest.at <= seen + SLACK
        && after.is_none_or(|after| newest.at + SLACK >= after);
    fits.then_some(newest)
}

/// The events of Atlas' feed about a rotation of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// The event of our own PATCH.
    pub event: Option<KeyEvent>,
    /// Changes by other actors between our last observation and our PATCH, which our PATCH has undone.
    pub overwrote: Vec<KeyEvent>,
}

/// Finds the witness event of our PATCH, which left at `sent` and had taken effect at `done`. `looked` is
/// the last observation of the old key. All three are by Atlas' clock.
///
/// Ours is the latest event that names `own`. An event without an actor counts as ours only when it is
/// the only one: Atlas does not document how events name a service account. Without an event of our own,
/// no event counts as another actor's either, because it may be ours under another name.
#[must_use]
pub fn witness(
    events: &[KeyEvent],
    provider: Provider,
    (looked, sent, done): (Timestamp, Timestamp, Timestamp),
    own: Option<&str>,
) -> Witness {
    let inside = |event: &&KeyEvent| {
        event.provider == provider && event.at + SLACK >= looked && event.at <= done + SLACK
    };
    let mut all: Vec<&KeyEvent> = events.iter().filter(inside).collect();
    all.sort_by_key(|event| event.at);
    let is_own =
        |event: &&&KeyEvent| event.at + SLACK >= sent && own.is_some_and(|identity| event.by.is(identity));
    let ours: Vec<&KeyEvent> = all.iter().filter(is_own).copied().collect();
    let (first, last) = match (ours.as_slice(), all.as_slice()) {
        ([first, .., last], _) => (*first, *last),
        ([only], _) => (*only, *only),
        ([], [only]) if only.by == Actor::Unsaid => (*only, *only),
        _ => return Witness::default(),
    };
    let foreign = |event: &&KeyEvent| event.at <= first.at && event.id != first.id && !ours.contains(event);
    Witness { event: Some(last.clone()), overwrote: all.into_iter().filter(foreign).cloned().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "mdb_sa_id_own";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(1_800_000_000_000_000 + second * 1_000_000)
    }

    fn event(second: i64, by: Actor) -> KeyEvent {
        KeyEvent { id: format!("e{second}"), at: at(second), provider: Provider::Aws, by }
    }

    fn nobody(_: &KeyEvent) -> bool {
        false
    }

    fn eve() -> Actor {
        Actor::Person("eve@example.com".to_owned())
    }

    #[test]
    fn the_newest_event_says_since_when_a_key_serves() {
        let events = [event(10, eve()), event(40, Actor::Unsaid), event(20, eve())];
        assert_eq!(began(&events, Provider::Aws, None, at(100), nobody).unwrap().id, "e40");
        assert_eq!(began(&[], Provider::Aws, None, at(100), nobody), None);
    }

    #[test]
    fn an_event_that_something_contradicts_does_not_count() {
        let moved = KeyEvent { provider: Provider::Gcp, ..event(50, eve()) };
        assert_eq!(
            began(&[event(10, eve()), moved], Provider::Aws, None, at(100), nobody),
            None,
            "another provider"
        );
        let events = [event(40, eve())];
        assert_eq!(began(&events, Provider::Aws, None, at(30), nobody), None, "newer than the observation");
        assert_eq!(
            began(&events, Provider::Aws, Some(at(50)), at(100), nobody),
            None,
            "another key was seen later"
        );
        assert!(
            began(&events, Provider::Aws, Some(at(41)), at(100), nobody).is_some(),
            "a second is no contradiction"
        );
    }

    #[test]
    fn the_event_of_our_own_patch_does_not_stand_for_a_key_that_came_after_it() {
        let ours = |event: &KeyEvent| event.by.is(OWN);
        let own = || event(15, Actor::credential(OWN));
        assert_eq!(began(&[event(12, eve()), own()], Provider::Aws, None, at(100), ours), None);
        for newer in [event(15, eve()), event(20, eve())] {
            let events = [newer.clone(), own()];
            assert_eq!(began(&events, Provider::Aws, None, at(100), ours), Some(&newer));
        }
    }

    #[test]
    fn our_own_event_is_told_from_others() {
        let own = || Actor::credential(OWN);
        let times = (at(10), at(11), at(60));
        let found = witness(&[event(11, own())], Provider::Aws, times, Some(OWN));
        assert_eq!((found.event.unwrap().id.as_str(), found.overwrote.len()), ("e11", 0));
        let found = witness(&[event(12, own()), event(11, eve())], Provider::Aws, times, Some(OWN));
        assert_eq!((found.event.unwrap().id, found.overwrote[0].by.clone()), ("e12".to_owned(), eve()));
        // Our observation shows a change from before it, and the machine observes a change from after our
        // PATCH.
        let found =
            witness(&[event(3, eve()), event(12, own()), event(14, eve())], Provider::Aws, times, Some(OWN));
        assert_eq!((found.event.unwrap().id.as_str(), found.overwrote.len()), ("e12", 0));
    }

    #[test]
    fn without_an_event_of_our_own_nobody_is_accused() {
        let times = (at(10), at(11), at(60));
        for by in [eve(), Actor::ApiKey("other".to_owned())] {
            assert_eq!(witness(&[event(11, by)], Provider::Aws, times, Some(OWN)), Witness::default());
        }
        let unsaid = witness(&[event(11, Actor::Unsaid)], Provider::Aws, times, Some(OWN));
        assert_eq!(unsaid.event.unwrap().id, "e11");
        let two = [event(11, Actor::Unsaid), event(12, eve())];
        assert_eq!(witness(&two, Provider::Aws, times, Some(OWN)), Witness::default());
        assert_eq!(
            witness(&[event(90, Actor::credential(OWN))], Provider::Aws, times, Some(OWN)).event,
            None
        );
    }

    #[test]
    fn our_clock_is_corrected_by_what_is_known_of_atlas() {
        assert_eq!(atlas_time(at(10), Some(4000)), at(6));
        assert_eq!(atlas_time(at(10), None), at(10));
    }
}
