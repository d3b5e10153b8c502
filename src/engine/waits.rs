//! Rate limits: after Atlas refused an endpoint set, no request to it leaves before `Retry-After` is over.
//!
//! A wait belongs to one endpoint set of one project, organization or user, and to one credential. It
//! delays nothing else, and never a GET of the encryption configuration: each rotation stores a wait of
//! its own for that (`not_before`), and so does the sweep. The waits here are in memory: after a restart
//! Atlas refuses once more and names its wait again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::rotation::outcome::{EndpointSet, Failure};
use crate::domain::time::{Span, Timestamp};

/// A wait without `Retry-After` doubles up to this multiple of the first.
const MOST: u32 = 8;

/// How long refusals in a row are kept after the wait, so that waits without `Retry-After` grow.
const REMEMBERED: Duration = Duration::from_mins(10);

/// Whose bucket a request counts against.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Scope {
    pub(super) set: EndpointSet,
    pub(super) credential: String,
    /// A project's or an organization's id; empty for the user's own buckets.
    pub(super) of: String,
}

#[derive(Debug)]
struct Wait {
    until: Timestamp,
    refusals: u32,
    failure: Failure,
}

/// The running waits.
#[derive(Debug)]
pub struct Waits {
    /// The first wait where Atlas names none.
    floor: Span,
    waits: Mutex<BTreeMap<Scope, Wait>>,
}

impl Waits {
    pub(super) fn new(floor: Span) -> Self {
        Self { floor, waits: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Scope, Wait>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The refusal that still holds at `now`, with the rest of its wait.
    pub(super) fn refusal(&self, scope: &Scope, now: Timestamp) -> Option<Failure> {
        let waits = self.lock();
        let wait = waits.get(scope).filter(|wait| now < wait.until)?;
        let left =
            Span::from_millis(u64::try_from(now.until(wait.until).as_millis()).unwrap_or(u64::MAX).max(1));
        Some(Failure { retry_after: Some(left), ..wait.failure.clone() })
    }

    /// Records the end of a request: a refusal begins a wait, any other end clears the earlier refusals.
    pub(super) fn note(&self, scope: Scope, failure: Option<&Failure>, now: Timestamp) {
        let mut waits = self.lock();
        let Some(failure) = failure.filter(|failure| failure.asks_to_wait()) else {
            waits.remove(&scope);
            return;
        };
        let refusals = waits.get(&scope).map_or(0, |wait| wait.refusals).saturating_add(1);
        let grown = 1u32.checked_shl(refusals - 1).unwrap_or(MOST).min(MOST);
        let wait = failure.retry_after.map_or(self.floor.get() * grown, Span::get);
        waits.retain(|_, it| now < it.until + REMEMBERED);
        waits.insert(scope, Wait { until: now + wait, refusals, failure: failure.clone() });
    }

    /// Clears all waits: another login has other limits.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// How many projects, organizations or users wait for `set`.
    #[must_use]
    pub fn count(&self, set: EndpointSet, now: Timestamp) -> u64 {
        let waiting = |(scope, wait): &(&Scope, &Wait)| scope.set == set && now < wait.until;
        self.lock().iter().filter(waiting).count().try_into().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::rotation::outcome::Class;

    fn scope(set: EndpointSet, credential: &str, of: &str) -> Scope {
        Scope { set, credential: credential.to_owned(), of: of.to_owned() }
    }

    fn refused(retry_after: Option<u64>) -> Failure {
        Failure {
            class: Class::Transient,
            status: Some(429),
            code: None,
            detail: "Too many requests.".to_owned(),
            retry_after: retry_after.map(Span::from_secs),
        }
    }

    #[test]
    fn a_wait_is_one_sets_one_projects_and_one_credentials() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let waits = Waits::new(Span::from_secs(10));
        let own = scope(EndpointSet::Clusters, "default", "a");
        waits.note(own.clone(), Some(&refused(Some(30))), now);
        let left = waits.refusal(&own, now + Duration::from_secs(20)).unwrap();
        assert_eq!(left.retry_after, Some(Span::from_secs(10)));
        for other in [
            scope(EndpointSet::Alerts, "default", "a"),
            scope(EndpointSet::Clusters, "second", "a"),
            scope(EndpointSet::Clusters, "default", "b"),
        ] {
            assert_eq!(waits.refusal(&other, now), None, "{other:?}");
        }
        assert_eq!((waits.count(EndpointSet::Clusters, now), waits.count(EndpointSet::Alerts, now)), (1, 0));
        assert_eq!(waits.refusal(&own, now + Duration::from_secs(30)), None);
    }

    #[test]
    fn without_retry_after_a_wait_doubles_until_an_answer_comes() {
        let mut now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let waits = Waits::new(Span::from_secs(10));
        let own = scope(EndpointSet::Alerts, "default", "a");
        for seconds in [10, 20, 40, 80, 80] {
            waits.note(own.clone(), Some(&refused(None)), now);
            let left = waits.refusal(&own, now).unwrap().retry_after;
            assert_eq!(left, Some(Span::from_secs(seconds)));
            now = now + Duration::from_secs(seconds);
            assert_eq!(waits.refusal(&own, now), None);
        }
        waits.note(own.clone(), None, now);
        waits.note(own.clone(), Some(&refused(None)), now);
        assert_eq!(waits.refusal(&own, now).unwrap().retry_after, Some(Span::from_secs(10)));
    }
}
