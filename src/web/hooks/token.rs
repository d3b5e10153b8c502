//! Signed tokens (JWT) of Microsoft Entra and of Google.
//!
//! Only RS256 is accepted, whatever algorithm a token names. An audience alone proves little, because
//! other programs may obtain a token for it; so the identity that holds the token is compared too.

use std::time::Duration;

use axum::http::HeaderMap;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

use super::super::fetch::Fetcher;
use super::super::keys::{KeyError, Keys};
use super::{Refusal, text_of, verification};
use crate::config::hooks::Entra;
use crate::domain::time::Timestamp;

/// The longest time from a token's issue, or from now, to its end, in seconds. Google's tokens last an hour,
/// Entra's 28 at most.
const LONGEST_LIFE: i64 = 28 * 3600;
/// The shortest time between two fetches of an issuer's keys.
pub(super) const PAUSE: Duration = Duration::from_secs(60);
/// Clock skew that is tolerated, in seconds.
const LEEWAY: i64 = 60;
/// The longest token that is parsed; the issuers' tokens are shorter.
const LONGEST_TOKEN: usize = 16 * 1024;

impl Keys {
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
        let key = self.key(fetcher, jwks_url, Some(kid), now).await.map_err(|why| match why {
            KeyError::Unknown => Refusal::unknown("wrong-token"),
            KeyError::Unavailable => Refusal::Unavailable("keys-not-fetched"),
        })?;
        let key = DecodingKey::from_jwk(&key).map_err(|_| Refusal::unknown("wrong-token"))?;
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
