//! CloudEvents 1.0 over HTTP, in all three modes, for the operator's own systems.
//!
//! One type has a meaning here: `io.keywheel.rotation.requested.v1`, which requests a rotation. The sender
//! is a program of the operator, so a faulty event is answered with 400 instead of being taken and dropped.

use std::borrow::Cow;

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Received, Refusal, joined, json, text_of, verification};
use crate::domain::hint::{Hint, Meaning, Subject};
use crate::domain::key::KeyError;

/// The one type that has a meaning here.
const REQUESTED: &str = "io.keywheel.rotation.requested.v1";

/// The refusal of a `newKey` that is not a key.
const NO_KEY: &str = "data.newKey takes the id or ARN of an AWS key, the URL of an Azure key, or the path of a Google key version";

/// The longest reason, in characters.
const LONGEST_REASON: usize = 500;

/// Reads a verified request in any of the modes.
pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Vec<Received>, Refusal> {
    let kind = verification::header(headers, "content-type").unwrap_or_default().to_ascii_lowercase();
    // Batch first: its content type begins like the other one.
    if kind.starts_with("application/cloudevents-batch") {
        let Value::Array(events) = json(body)? else {
            return Err(Refusal::malformed("a batch takes an array of events"));
        };
        return events.iter().map(structured).collect();
    }
    if kind.starts_with("application/cloudevents") {
        return structured(&json(body)?).map(|one| vec![one]);
    }
    binary(headers, body).map(|one| vec![one])
}

/// Reads an event that is one JSON object.
pub(super) fn structured(event: &Value) -> Result<Received, Refusal> {
    let attribute = |name: &str| text_of(event, name).map(ToOwned::to_owned);
    let data = match (event.get("data"), text_of(event, "data_base64")) {
        (Some(data), _) => Some(data.clone()),
        (None, Some(encoded)) => {
            let bytes =
                STANDARD.decode(encoded).map_err(|_| Refusal::malformed("data_base64 is not Base64"))?;
            Some(json(&bytes)?)
        }
        (None, None) => None,
    };
    event_of(&attribute, data.as_ref())
}

fn binary(headers: &HeaderMap, body: &[u8]) -> Result<Received, Refusal> {
    let attribute = |name: &str| verification::header(headers, &format!("ce-{name}")).and_then(decoded);
    if attribute("specversion").is_none() {
        return Err(Refusal::malformed(
            "not a CloudEvent: the content type is not application/cloudevents+json, and the header ce-specversion is missing",
        ));
    }
    let data = if body.is_empty() { None } else { Some(json(body)?) };
    event_of(&attribute, data.as_ref())
}

fn event_of(attribute: &dyn Fn(&str) -> Option<String>, data: Option<&Value>) -> Result<Received, Refusal> {
    let needed = |name: &'static str, rule| {
        attribute(name).filter(|it| !it.is_empty()).ok_or(Refusal::malformed(rule))
    };
    if needed("specversion", "specversion is missing")? != "1.0" {
        return Err(Refusal::malformed("specversion is not 1.0"));
    }
    let id = needed("id", "id is missing")?;
    let source = needed("source", "source is missing")?;
    let kind = needed("type", "type is missing")?;
    let hint = if kind == REQUESTED { Some(requested(&kind, data)?) } else { None };
    Ok(Received { id: joined(&source, &[&id]), hint })
}

/// Reads the payload of a Standard Webhook: a CloudEvent, or `{type, data}` as that specification writes it.
pub(super) fn payload(body: &[u8], id: String) -> Result<Received, Refusal> {
    let payload = json(body)?;
    let hint = match text_of(&payload, "type") {
        Some(REQUESTED) => Some(requested(REQUESTED, payload.get("data"))?),
        _ => None,
    };
    Ok(Received { id, hint })
}

fn requested(kind: &str, data: Option<&Value>) -> Result<Hint, Refusal> {
    let data = data
        .filter(|data| data.is_object())
        .ok_or(Refusal::malformed("data takes {groupId, newKey?, reason?}"))?;
    let optional = |name: &str, rule| match data.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Refusal::malformed(rule)),
    };
    let group = optional("groupId", "data.groupId takes a text")?.and_then(|text| text.parse().ok());
    let group = group.ok_or(Refusal::malformed("data.groupId takes 24 hexadecimal digits"))?;
    let new_key = optional("newKey", "data.newKey takes a text or null")?
        .map(|text| text.parse())
        .transpose()
        .map_err(|_: KeyError| Refusal::malformed(NO_KEY))?;
    let words = optional("reason", "data.reason takes a text or null")?;
    if words
        .as_ref()
        .is_some_and(|text| text.chars().count() > LONGEST_REASON || text.chars().any(char::is_control))
    {
        return Err(Refusal::malformed("data.reason takes at most 500 characters on one line"));
    }
    Ok(Hint {
        kind: kind.to_owned(),
        subject: Subject::Project { group },
        meaning: Meaning::Requested,
        new_key,
        by: None,
        words,
        ends_at: None,
    })
}

/// An attribute in a header: unquoted, then percent-decoded once.
fn decoded(text: &str) -> Option<String> {
    let text = match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => unescaped(quoted),
        None => text.to_owned(),
    };
    percent_encoding::percent_decode_str(&text).decode_utf8().ok().map(Cow::into_owned)
}

fn unescaped(quoted: &str) -> String {
    let mut out = String::with_capacity(quoted.len());
    let mut letters = quoted.chars();
    while let Some(letter) = letters.next() {
        out.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_in_a_header_is_unquoted_and_decoded_once() {
        for (text, read) in [
            ("plain", Some("plain")),
            ("\"a \\\"b\\\\\"", Some("a \"b\\")),
            ("caf%C3%A9", Some("café")),
            ("50%25", Some("50%")),
            ("%2525", Some("%25")),
            ("100%", Some("100%")),
            ("%", Some("%")),
            ("%+1", Some("%+1")),
            ("%FF", None),
        ] {
            assert_eq!(decoded(text).as_deref(), read, "{text}");
        }
    }
}
