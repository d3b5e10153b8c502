//! The keys that sign an issuer's tokens (JWKS), fetched when they are needed.
//!
//! Keys are kept for an hour. An unknown key id has them fetched again, at most once in a pause: forged
//! tokens must not cause a call to the issuer each. While the issuer cannot be reached, keys serve for a
//! day: a key that the issuer has withdrawn must not stay trusted because its address is blocked. No token is read here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use jsonwebtoken::jwk::{Jwk, JwkSet};

use super::fetch::Fetcher;
use crate::domain::time::Timestamp;

/// How long keys are used without another fetch.
const FRESH: Duration = Duration::from_secs(3600);
/// The longest time that keys are used when their issuer cannot be reached.
const OLDEST: Duration = Duration::from_hours(24);
/// The longest key set that is read; one has a few kilobytes.
const KEYS_LIMIT: usize = 256 * 1024;

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyError {
    /// The issuer has no such key, or had none when it was asked last.
    Unknown,
    /// The issuer cannot be reached.
    Unavailable,
}

/// The keys of issuers, by address.
#[derive(Debug)]
pub(super) struct Keys {
    kept: Mutex<BTreeMap<String, Kept>>,
    /// The shortest time between two fetches.
    pause: Duration,
}

/// One fetch for all deliveries that wait for it; it goes on when one of them is dropped.
type Asking = Shared<BoxFuture<'static, Option<Arc<JwkSet>>>>;

#[derive(Debug)]
struct Kept {
    asked: Option<Timestamp>,
    set: Option<Arc<JwkSet>>,
    /// When `set` was asked for.
    got: Option<Timestamp>,
    asking: Option<Asking>,
}

/// Fetches an issuer's keys.
fn ask(fetcher: Fetcher, url: String) -> Asking {
    let asking = async move {
        let warn = |why: &dyn std::error::Error| tracing::warn!("signing keys not fetched from {url}: {why}");
        let body = fetcher.get(&url, KEYS_LIMIT).await.inspect_err(|why| warn(why)).ok()?;
        serde_json::from_slice(&body).inspect_err(|why| warn(why)).ok().map(Arc::new)
    };
    asking.boxed().shared()
}

impl Keys {
    /// No keys yet; those of an issuer are fetched once in `pause` at most.
    pub(super) fn new(pause: Duration) -> Self {
        Self { kept: Mutex::default(), pause }
    }

    /// Keys as if they had just been fetched, so that no fetch follows.
    #[cfg(fuzzing)]
    pub(super) fn fetched(url: &str, set: JwkSet, now: Timestamp) -> Self {
        let kept = Kept { asked: Some(now), set: Some(Arc::new(set)), got: Some(now), asking: None };
        Self { kept: Mutex::new(BTreeMap::from([(url.to_owned(), kept)])), pause: Duration::from_mins(1) }
    }

    /// How many keys the issuer has.
    ///
    /// # Errors
    /// Fails when they cannot be fetched.
    pub(super) async fn count(
        &self,
        fetcher: &Fetcher,
        url: &str,
        now: Timestamp,
    ) -> Result<usize, KeyError> {
        self.find(fetcher, url, now, |set| Some(set.keys.len())).await
    }

    /// The key with this id; without one, the only key.
    ///
    /// # Errors
    /// Fails when the issuer has no such key, and when its keys cannot be fetched.
    pub(super) async fn key(
        &self,
        fetcher: &Fetcher,
        url: &str,
        kid: Option<&str>,
        now: Timestamp,
    ) -> Result<Jwk, KeyError> {
        let key = |set: &JwkSet| match (kid, set.keys.as_slice()) {
            (Some(kid), _) => set.find(kid).cloned(),
            (None, [only]) => Some(only.clone()),
            (None, _) => None,
        };
        self.find(fetcher, url, now, key).await
    }

    async fn find<T>(
        &self,
        fetcher: &Fetcher,
        url: &str,
        now: Timestamp,
        find: impl Fn(&JwkSet) -> Option<T>,
    ) -> Result<T, KeyError> {
        let asking = {
            let mut all = self.lock();
            let kept =
                all.entry(url.to_owned()).or_insert(Kept { asked: None, set: None, got: None, asking: None });
            let fresh = kept.got.is_some_and(|got| now.since(got) < FRESH);
            let known = kept.set.as_deref().and_then(&find);
            if let Some(key) = known.filter(|_| fresh) {
                return Ok(key);
            }
            let rested = kept.asked.is_none_or(|asked| now.since(asked) >= self.pause);
            if kept.asking.is_none() && rested {
                kept.asked = Some(now);
                kept.asking = Some(ask(fetcher.clone(), url.to_owned()));
            }
            kept.asking.clone()
        };
        let found = match asking {
            Some(asking) => asking.await,
            None => None,
        };
        let mut all = self.lock();
        let Some(kept) = all.get_mut(url) else { return Err(KeyError::Unavailable) };
        if kept.asking.as_ref().is_some_and(|asking| asking.peek().is_some()) {
            kept.asking = None;
        }
        if found.is_some() {
            (kept.set, kept.got) = (found, kept.asked);
        }
        if kept.got.is_some_and(|got| now.since(got) >= OLDEST) {
            kept.set = None;
        }
        // Keys of the last day are better than none while the issuer cannot be reached.
        match &kept.set {
            Some(set) => find(set).ok_or(KeyError::Unknown),
            None => Err(KeyError::Unavailable),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn keys_are_not_trusted_for_ever_when_their_issuer_cannot_be_reached() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        // Nothing listens there.
        let url = "http://127.0.0.1:9/keys";
        let fetcher = Fetcher::new().unwrap();
        let set: JwkSet = serde_json::from_value(json!({ "keys": [
            { "kty": "RSA", "kid": "one", "alg": "RS256", "n": "AQAB", "e": "AQAB" },
        ] }))
        .unwrap();
        let got: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let kept = Kept { asked: Some(got), set: Some(Arc::new(set)), got: Some(got), asking: None };
        let pause = Duration::from_mins(1);
        let keys = Keys { kept: Mutex::new(BTreeMap::from([(url.to_owned(), kept)])), pause };
        let at = async |minutes: u64| {
            keys.key(&fetcher, url, Some("one"), got + Duration::from_mins(minutes)).await.map(|_| ()).err()
        };
        assert_eq!(at(59).await, None);
        assert_eq!(at(61).await, None, "an hour old, and the issuer does not answer");
        assert_eq!(at(23 * 60 + 59).await, None);
        assert_eq!(at(24 * 60).await, Some(KeyError::Unavailable));
        assert_eq!(at(24 * 60 + 2).await, Some(KeyError::Unavailable), "they are gone");
    }
}
