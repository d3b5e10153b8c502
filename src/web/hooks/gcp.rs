//! Log entries of Google Cloud KMS, pushed by Cloud Pub/Sub, wrapped or not.
//!
//! Each entry that names a key is a reason to check the projects with that key. Rotation by schedule is
//! logged without the new version, so only the key's name is certain to be there.

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Received, Refusal, joined, json, name_of, part, text_of, verification, words_of};
use crate::domain::hint::{Hint, Meaning, Subject};
use crate::domain::key::{KeyRef, Provider};

/// Reads one pushed message.
pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Received, Refusal> {
    let outer = json(body)?;
    let Some(message) = outer.get("message").filter(|it| it.is_object()) else {
        // No part of a joined id has two percent signs in a row, so these are no id of a log entry.
        let id =
            verification::header(headers, "x-goog-pubsub-message-id").map(|id| format!("%%{}", part(id)));
        let id = id.unwrap_or_else(|| format!("%%%%{}", hex::encode(Sha256::digest(body))));
        return Ok(entry(&outer, id));
    };
    let id = text_of(message, "messageId").or_else(|| text_of(message, "message_id"));
    let id = id.ok_or(Refusal::malformed("message.messageId is missing"))?;
    let id = format!("{}/%%{}", text_of(&outer, "subscription").unwrap_or_default(), part(id));
    let data = text_of(message, "data").unwrap_or_default();
    let data = STANDARD.decode(data).map_err(|_| Refusal::malformed("message.data is not Base64"))?;
    // Anything may be published on a topic. A message that is not a log entry has no hint.
    Ok(match serde_json::from_slice(&data) {
        Ok(inner) => entry(&inner, id),
        Err(_) => Received { id, hint: None },
    })
}

fn entry(entry: &Value, message: String) -> Received {
    let own = (text_of(entry, "logName"), text_of(entry, "timestamp"), text_of(entry, "insertId"));
    let id = match own {
        // One entry may be exported more than once, each time as another message.
        (Some(log), Some(at), Some(insert)) => joined(log, &[at, insert]),
        _ => message,
    };
    let hint = about(entry, &id);
    Received { id, hint }
}

fn about(entry: &Value, id: &str) -> Option<Hint> {
    let call = entry.get("protoPayload").unwrap_or(&Value::Null);
    if call.pointer("/status/code").and_then(Value::as_i64).is_some_and(|code| code != 0) {
        return None;
    }
    let path = key_path(entry)?;
    let method = text_of(call, "methodName").map(|name| name.rsplit('.').next().unwrap_or(name));
    let version = |pointer: &str| call.pointer(pointer).and_then(Value::as_str).and_then(version_of);
    let by = call.pointer("/authenticationInfo/principalEmail").and_then(Value::as_str).map(words_of);
    let kind = words_of(method.unwrap_or("CryptoKeyEvent"));
    let look = Hint {
        kind,
        subject: Subject::GcpKey { path },
        meaning: Meaning::Look,
        new_key: None,
        by,
        words: None,
        ends_at: None,
    };
    let state = ["/response/state", "/request/cryptoKeyVersion/state"];
    let state = state.iter().find_map(|pointer| call.pointer(pointer).and_then(Value::as_str));
    let named = || {
        let places = ["/response/name", "/request/cryptoKeyVersion/name", "/request/name", "/resourceName"];
        places.into_iter().find_map(version)
    };
    let stopped = match method {
        Some("UpdateCryptoKeyPrimaryVersion") => {
            // Not every log entry has the response.
            let asked = || {
                let text = |pointer: &str| call.pointer(pointer).and_then(Value::as_str);
                let (key, version) = (text("/request/name")?, text("/request/cryptoKeyVersionId")?);
                version_of(&format!("{key}/cryptoKeyVersions/{version}"))
            };
            return Some(Hint { new_key: version("/response/primary/name").or_else(asked), ..look });
        }
        Some("DestroyCryptoKeyVersion") => named(),
        Some("UpdateCryptoKeyVersion") if state != Some("ENABLED") => named(),
        _ => None,
    };
    let usable = matches!(method, Some("UpdateCryptoKeyVersion" | "RestoreCryptoKeyVersion"))
        && state == Some("ENABLED");
    if usable && let Some(key) = named() {
        return Some(Hint { subject: Subject::Key { key }, meaning: Meaning::Usable, ..look });
    }
    Some(match stopped {
        Some(key) => Hint {
            subject: Subject::Key { key },
            meaning: Meaning::Alarm { once: format!("gcp/{id}") },
            ..look
        },
        None => look,
    })
}

fn version_of(path: &str) -> Option<KeyRef> {
    KeyRef::parse(Provider::Gcp, path).ok()
}

/// The key that an entry names: in the resource's labels or in the call's resource name.
fn key_path(entry: &Value) -> Option<String> {
    let labels = entry.pointer("/resource/labels").unwrap_or(&Value::Null);
    let label = |name: &str| text_of(labels, name);
    if let (Some(project), Some(location), Some(ring), Some(key)) =
        (label("project_id"), label("location"), label("key_ring_id"), label("crypto_key_id"))
    {
        return name_of(&format!("projects/{project}/locations/{location}/keyRings/{ring}/cryptoKeys/{key}"));
    }
    let named = entry.pointer("/protoPayload/resourceName").and_then(Value::as_str)?;
    // An Eventarc-style name begins with the service's host.
    let named = named.find("projects/").map_or(named, |at| &named[at..]);
    let (path, _) = named.split_once("/cryptoKeyVersions/").unwrap_or((named, ""));
    name_of(path).filter(|path| path.contains("/cryptoKeys/"))
}
