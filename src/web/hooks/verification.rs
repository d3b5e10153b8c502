//! Verification of the sender: shared secrets and signatures over the body, compared in constant time.
//!
//! Every function takes all secrets that are valid at the moment, so that a sender's own secret can be
//! rotated. No result shows which one matched, or how much of a wrong one was right.

use aws_lc_rs::{constant_time, hmac};
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Refusal;
use crate::config::hooks::SigningKey;
use crate::domain::time::Timestamp;
use crate::secret::Secret;

/// How far a signed instant may be from this machine's clock, in seconds.
const TOLERANCE: u64 = 300;

/// Signatures of one delivery that are compared: a sender has one for each of its secrets.
const MOST_SIGNATURES: usize = 16;

/// A header's text; `None` when it is missing or not text.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether `given` is one of `wanted`.
pub(super) fn secret(given: Option<&str>, wanted: &[Secret]) -> Result<(), Refusal> {
    let given = given.ok_or(Refusal::unknown("no-token"))?;
    // No early end: the duration would show which of them matched.
    let found = wanted.iter().fold(false, |found, one| found | is_equal(given, one.expose()));
    if found { Ok(()) } else { Err(Refusal::unknown("wrong-token")) }
}

fn is_equal(a: &str, b: &str) -> bool {
    constant_time::verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}

/// The token of an `Authorization: Bearer` header.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = header(headers, "authorization")?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Compares user and password of HTTP basic authentication.
pub(super) fn basic(headers: &HeaderMap, user: &str, passwords: &[Secret]) -> Result<(), Refusal> {
    let given = header(headers, "authorization")
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .ok_or(Refusal::unknown("no-token"))?;
    let decoded = STANDARD.decode(given.1.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let (name, password) =
        decoded.as_deref().and_then(|text| text.split_once(':')).ok_or(Refusal::unknown("wrong-token"))?;
    let right = secret(Some(password), passwords);
    if is_equal(name, user) { right } else { Err(Refusal::unknown("wrong-token")) }
}

/// Atlas' signature: HMAC-SHA-1 over the raw body, Base64 or hexadecimal.
pub(super) fn atlas(headers: &HeaderMap, body: &[u8], secrets: &[Secret], hex: bool) -> Result<(), Refusal> {
    let given = header(headers, "x-mms-signature").ok_or(Refusal::unknown("no-signature"))?.trim();
    let tag = if hex { ::hex::decode(given).ok() } else { STANDARD.decode(given).ok() };
    let tag = tag.ok_or(Refusal::unknown("wrong-signature"))?;
    let keys = secrets
        .iter()
        .map(|secret| hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose().as_bytes()));
    signed(keys, body, &[tag])
}

/// Compares a Standard Webhooks signature; returns the id that is signed with the body.
pub(super) fn standard(
    headers: &HeaderMap,
    body: &[u8],
    keys: &[SigningKey],
    now: Timestamp,
) -> Result<String, Refusal> {
    let missing = Refusal::unknown("no-signature");
    let id = header(headers, "webhook-id").ok_or(missing)?;
    let at = header(headers, "webhook-timestamp").ok_or(missing)?;
    let given = header(headers, "webhook-signature").ok_or(missing)?;
    // The header's text is signed, and a number may be written in several ways.
    let seconds: i64 = at.parse().map_err(|_| Refusal::unknown("wrong-signature"))?;
    let tags: Vec<Vec<u8>> = given
        .split(' ')
        .filter_map(|one| one.strip_prefix("v1,"))
        .filter_map(|one| STANDARD.decode(one).ok())
        .take(MOST_SIGNATURES)
        .collect();
    let text = [id.as_bytes(), b".", at.as_bytes(), b".", body].concat();
    let keys = keys.iter().map(|key| hmac::Key::new(hmac::HMAC_SHA256, key.expose()));
    signed(keys, &text, &tags)?;
    if (now.as_micros() / 1_000_000).abs_diff(seconds) > TOLERANCE {
        return Err(Refusal::unknown("old-timestamp"));
    }
    Ok(id.to_owned())
}

/// Whether one of `keys` made one of `tags` over `text`. The text is signed once for each key, however
/// many tags a delivery has.
fn signed(keys: impl Iterator<Item = hmac::Key>, text: &[u8], tags: &[Vec<u8>]) -> Result<(), Refusal> {
    let found = keys.fold(false, |found, key| {
        let own = hmac::sign(&key, text);
        let same = |tag: &Vec<u8>| constant_time::verify_slices_are_equal(own.as_ref(), tag).is_ok();
        tags.iter().fold(found, |found, tag| found | same(tag))
    });
    if found { Ok(()) } else { Err(Refusal::unknown("wrong-signature")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_signature_of_an_alert_is_right_in_both_spellings() {
        let body = r#"{"id":"66f0a1b2c3d4e5f60718293a","groupId":"32b6e34b3d91647abb20e7b8","orgId":"4888442a3354817a7320eb61","alertConfigId":"57b76ddc96e8215c017ceafb","eventTypeName":"AWS_ENCRYPTION_KEY_NEEDS_ROTATION","status":"OPEN","created":"2026-08-02T02:27:02Z","updated":"2026-08-02T02:27:02Z","lastNotified":"2026-08-02T02:27:10Z","humanReadable":"AWS encryption key elapsed time since last rotation is above 90 days. Project: payments-prod Organization: ExampleOrg","links":[{"rel":"self","href":"https://cloud.mongodb.com/api/atlas/v2/groups/32b6e34b3d91647abb20e7b8/alerts/66f0a1b2c3d4e5f60718293a"}]}"#;
        let secrets = [Secret::new("whsec-example")];
        for (signature, hex) in
            [("wWW1/uEjBzTK2Yk3tFkUGdliyhs=", false), ("c165b5fee1230734cad98937b4591419d962ca1b", true)]
        {
            let mut headers = HeaderMap::new();
            headers.insert("x-mms-signature", signature.parse().unwrap());
            assert_eq!(atlas(&headers, body.as_bytes(), &secrets, hex), Ok(()));
            assert!(atlas(&headers, b"{}", &secrets, hex).is_err());
        }
    }
}
