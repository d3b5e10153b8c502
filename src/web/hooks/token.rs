//! Signed tokens (JWT) of Microsoft Entra and of Google, and the keys that sign them.
//!
//! Only RS256 is accepted, whatever algorithm a token names. An audience alone proves little, because
//! other programs may obtain a token for it; so the identity that holds the token is compared too.
//! Keys are kept for an hour. An unknown key id has them fetched again, at most once a minute: forged
//! tokens must not cause a call to the issuer each. While the issuer cannot be reached, keys serve for a
//! day: a key that the issuer has withdrawn must not stay trusted because its address is blocked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

use super::fetch::Fetcher;
use super::{Refusal, text_of, verification};
use crate::config::hooks::Entra;
use crate::domain::time::Timestamp;

/// How long keys are used without another fetch.
const FRESH: Duration = Duration::from_secs(3600);
/// The longest time that keys are used when their issuer cannot be reached.
const OLDEST: Duration = Duration::from_hours(24);
/// The longest time from a token's issue, or from now, to its end, in seconds. Google's tokens last an hour,
/// Entra's 28 at most.
const LONGEST_LIFE: i64 = 28 * 3600;
/// The shortest time between two fetches.
const PAUSE: Duration = Duration::from_secs(60);
/// Clock skew that is tolerated, in seconds.
const LEEWAY: i64 = 60;
/// The longest key set that is read; one has a few kilobytes.
const KEYS_LIMIT: usize = 256 * 1024;
/// The longest token that is parsed; the issuers' tokens are shorter.
const LONGEST_TOKEN: usize = 16 * 1024;

/// The keys of all issuers, by address.
#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<BTreeMap<String, Kept>>);

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
    /// Keys as if they had just been fetched, so that no fetch follows.
    #[cfg(fuzzing)]
    pub(super) fn fetched(url: &str, set: JwkSet, now: Timestamp) -> Self {
        let kept = Kept { asked: Some(now), set: Some(Arc::new(set)), got: Some(now), asking: None };
        Self(Mutex::new(BTreeMap::from([(url.to_owned(), kept)])))
    }

    /// The claims of the delivery's bearer token, when one of the keys at `jwks_url` signed it for
    /// `audience` and it is in force.
    async fn claims(
        &self,
        fetcher: &Fetcher,
        headers: &HeaderMap,
        (jwks_url, audience): (&str, &str),
        now: Timestamp,
    ) -> Result<Value, Refusal> {
        let token = verification::bearer(headers).ok_or(Refusal::unknown("no-token"))?;
        if token.len() > LONGEST_TOKEN {
            return Err(Refusal::unknown("wrong-token"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refusal::unknown("wrong-token"))?;
        if header.alg != Algorithm::RS256 {
            return Err(Refusal::unknown("wrong-algorithm"));
        }
        let kid = header.kid.as_deref().ok_or(Refusal::unknown("wrong-token"))?;
        let key = self.key(fetcher, jwks_url, kid, now).await?;
        let mut rules = Validation::new(Algorithm::RS256);
        rules.set_audience(&[audience]);
        // Times are checked below, against the clock that is passed in.
        rules.validate_exp = false;
        rules.set_required_spec_claims(&["aud"]);
        let claims = jsonwebtoken::decode::<Value>(token, &key, &rules).map_err(|error| {
            use jsonwebtoken::errors::ErrorKind as E;
            Refusal::unknown(match error.kind() {
                E::InvalidAudience | E::MissingRequiredClaim(_) => "wrong-audience",
                E::InvalidSignature => "wrong-signature",
                _ => "wrong-token",
            })
        })?;
        let claims = claims.claims;
        let second = now.as_micros() / 1_000_000;
        let at = |name: &str| claims.get(name).and_then(Value::as_f64);
        #[expect(clippy::cast_precision_loss, reason = "seconds of our era fit a double exactly")]
        let (earliest, latest) = ((second - LEEWAY) as f64, (second + LEEWAY) as f64);
        let Some(end) = at("exp").filter(|end| *end >= earliest) else {
            return Err(Refusal::unknown("expired"));
        };
        if ["nbf", "iat"].into_iter().any(|name| at(name).is_some_and(|from| from > latest)) {
            return Err(Refusal::unknown("expired"));
        }
        #[expect(clippy::cast_precision_loss, reason = "a day of seconds fits a double exactly")]
        let longest = LONGEST_LIFE as f64;
        if end > latest + longest || at("iat").is_some_and(|issued| end - issued > longest) {
            return Err(Refusal::unknown("lives-too-long"));
        }
        Ok(claims)
    }

    async fn key(
        &self,
        fetcher: &Fetcher,
        url: &str,
        kid: &str,
        now: Timestamp,
    ) -> Result<DecodingKey, Refusal> {
        let find = |set: &Arc<JwkSet>| set.find(kid).and_then(|jwk| DecodingKey::from_jwk(jwk).ok());
        let asking = {
            let mut all = self.lock();
            let kept =
                all.entry(url.to_owned()).or_insert(Kept { asked: None, set: None, got: None, asking: None });
            let fresh = kept.got.is_some_and(|got| now.since(got) < FRESH);
            let known = kept.set.as_ref().and_then(find);
            if let Some(key) = known.filter(|_| fresh) {
                return Ok(key);
            }
            let rested = kept.asked.is_none_or(|asked| now.since(asked) >= PAUSE);
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
        let Some(kept) = all.get_mut(url) else { return Err(Refusal::Unavailable("keys-not-fetched")) };
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
            Some(set) => find(set).ok_or(Refusal::unknown("wrong-token")),
            None => Err(Refusal::Unavailable("keys-not-fetched")),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Verifies that Event Grid sent this, with a token of the configured directory.
    pub(super) async fn entra(
        &self,
        fetcher: &Fetcher,
        headers: &HeaderMap,
        entra: &Entra,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let claims = self.claims(fetcher, headers, (&entra.jwks_url, &entra.audience), now).await?;
        let tenant = &entra.tenant_id;
        let issuers = [
            format!("https://sts.windows.net/{tenant}/"),
            format!("https://login.microsoftonline.com/{tenant}/v2.0"),
        ];
        if !text_of(&claims, "iss").is_some_and(|iss| issuers.iter().any(|own| own == iss)) {
            return Err(Refusal::unknown("wrong-issuer"));
        }
        if text_of(&claims, "tid") != Some(tenant) {
            return Err(Refusal::unknown("wrong-issuer"));
        }
        // Version 1 tokens call it appid, version 2 tokens azp.
        let holder = text_of(&claims, "appid").or_else(|| text_of(&claims, "azp"));
        if holder != Some(&entra.app_id) {
            return Err(Refusal::unknown("wrong-identity"));
        }
        Ok(())
    }

    /// Verifies that Cloud Pub/Sub sent this, with a token of the configured service account.
    pub(super) async fn google(
        &self,
        fetcher: &Fetcher,
        headers: &HeaderMap,
        (jwks_url, audience, email): (&str, &str, &str),
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let claims = self.claims(fetcher, headers, (jwks_url, audience), now).await?;
        if !matches!(text_of(&claims, "iss"), Some("https://accounts.google.com" | "accounts.google.com")) {
            return Err(Refusal::unknown("wrong-issuer"));
        }
        let verified = claims.get("email_verified").and_then(Value::as_bool) == Some(true);
        if !verified || text_of(&claims, "email") != Some(email) {
            return Err(Refusal::unknown("wrong-identity"));
        }
        Ok(())
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
        let keys = Keys(Mutex::new(BTreeMap::from([(url.to_owned(), kept)])));
        let at = async |minutes: u64| {
            keys.key(&fetcher, url, "one", got + Duration::from_mins(minutes)).await.map(|_| ()).err()
        };
        assert_eq!(at(59).await, None);
        assert_eq!(at(61).await, None, "an hour old, and the issuer does not answer");
        assert_eq!(at(23 * 60 + 59).await, None);
        assert_eq!(at(24 * 60).await, Some(Refusal::Unavailable("keys-not-fetched")));
        assert_eq!(at(24 * 60 + 2).await, Some(Refusal::Unavailable("keys-not-fetched")), "they are gone");
    }
}
