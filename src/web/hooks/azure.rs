//! Azure Event Grid: both schemas, both handshakes.
//!
//! Event Grid requests consent before it delivers to a URL. Consent takes the same verification of the
//! sender as a delivery: otherwise anyone could point a subscription of theirs at this hook. A validation
//! event also offers a URL as a second way of consent, which is never fetched.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{HookReply, Received, Refusal, joined, name_of, objects, text_of, verification, words_of};
use crate::domain::hint::{Hint, Meaning, Subject};
use crate::domain::key::{KeyRef, Provider};
use crate::domain::time::Timestamp;

/// Reads the events of an authenticated delivery.
pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<HookReply, Refusal> {
    if verification::header(headers, "aeg-event-type")
        .is_some_and(|it| it.eq_ignore_ascii_case("SubscriptionDeletion"))
    {
        return Ok(HookReply::Done(StatusCode::OK.into_response()));
    }
    let events = objects(body)?;
    if let [one] = events.as_slice()
        && text_of(one, "eventType") == Some("Microsoft.EventGrid.SubscriptionValidationEvent")
    {
        let code = one.get("data").and_then(|data| text_of(data, "validationCode"));
        let code = code.ok_or(Refusal::malformed("data.validationCode is missing"))?;
        return Ok(HookReply::Done(axum::Json(json!({ "validationResponse": code })).into_response()));
    }
    events.iter().map(event).collect::<Result<_, _>>().map(HookReply::Events)
}

/// The answer to `OPTIONS`: consent for an origin that is listed.
pub(super) fn consent(headers: &HeaderMap, allowed: &[String]) -> Result<Response, Refusal> {
    let origin = verification::header(headers, "webhook-request-origin")
        .ok_or(Refusal::malformed("WebHook-Request-Origin is missing"))?;
    if !allowed.iter().any(|it| it.eq_ignore_ascii_case(origin)) {
        return Err(Refusal::unknown("wrong-origin"));
    }
    let mut response = StatusCode::OK.into_response();
    let own = response.headers_mut();
    let origin = HeaderValue::from_str(origin)
        .map_err(|_| Refusal::malformed("WebHook-Request-Origin is not text"))?;
    own.insert("webhook-allowed-origin", origin);
    own.insert("webhook-allowed-rate", HeaderValue::from_static("*"));
    own.insert(header::ALLOW, HeaderValue::from_static("POST"));
    Ok(response)
}

fn event(event: &Value) -> Result<Received, Refusal> {
    let kind = text_of(event, "eventType").or_else(|| text_of(event, "type"));
    let source = text_of(event, "topic").or_else(|| text_of(event, "source")).unwrap_or_default();
    let (Some(kind), Some(id)) = (kind, text_of(event, "id")) else {
        return Err(Refusal::malformed("an event has no id or no type"));
    };
    let id = joined(source, &[id]);
    let data = event.get("data").unwrap_or(&Value::Null);
    let hint =
        kind.strip_prefix("Microsoft.KeyVault.").and_then(|short| about(short, kind, source, data, &id));
    Ok(Received { id, hint })
}

fn about(short: &str, kind: &str, source: &str, data: &Value, id: &str) -> Option<Hint> {
    // The documentation has a lower-case `id` in one place; deliveries have `Id`.
    let key = text_of(data, "Id").or_else(|| text_of(data, "id")).map(str::trim);
    let key = key.map(|text| KeyRef::observed(Provider::Azure, text));
    let (subject, meaning) = match (short, &key) {
        ("KeyNewVersionCreated", Some(KeyRef::Azure(key))) => {
            let (vault, name) = (key.vault().to_owned(), key.name().to_owned());
            (Subject::AzureKey { vault, name }, Meaning::Look)
        }
        ("KeyNearExpiry" | "KeyExpired", Some(key @ KeyRef::Azure(_))) => {
            (Subject::Key { key: key.clone() }, Meaning::Alarm { once: format!("azure/{id}") })
        }
        ("VaultAccessPolicyChanged", _) => {
            let named = text_of(data, "VaultName").map(str::trim).filter(|name| !name.is_empty());
            let vault = named.or_else(|| source.rsplit_once("/vaults/").map(|(_, name)| name))?;
            (Subject::Vault { vault: name_of(vault)?.to_ascii_lowercase() }, Meaning::Look)
        }
        _ => return None,
    };
    let new_key = key.filter(|key| short == "KeyNewVersionCreated" && !key.is_versionless());
    let ends_at = data.get("EXP").and_then(Value::as_i64).filter(|_| short == "KeyNearExpiry");
    let ends_at = ends_at.map(|seconds| Timestamp::from_micros(seconds.saturating_mul(1_000_000)));
    Some(Hint { kind: words_of(kind), subject, meaning, new_key, by: None, words: None, ends_at })
}
