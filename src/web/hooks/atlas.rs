//! Atlas' alert webhooks.
//!
//! A customer can template the body, so it may have any shape. A text that looks like a project id or an
//! event type is taken from anywhere in it. No instant is signed, so a replay looks like the first
//! delivery; it carries the same alert, status and time of change and counts as a duplicate.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Received, joined, name_of, text_of, words_of};
use crate::domain::hint::{Hint, Meaning, Subject};
use crate::domain::ids::GroupId;

/// Reads a body with a verified signature.
pub(super) fn read(body: &[u8]) -> Received {
    let fingerprint = hex::encode(Sha256::digest(body));
    let Ok(alert) = serde_json::from_slice::<Value>(body) else {
        return Received { id: fingerprint, hint: None };
    };
    let id = match (text_of(&alert, "id"), text_of(&alert, "status"), text_of(&alert, "updated")) {
        (Some(id), Some(status), Some(updated)) => joined(id, &[status, updated]),
        _ => fingerprint,
    };
    let kind = find(&alert, &|text| is_about_keys(text).then(|| name_of(text)).flatten());
    let group = text_of(&alert, "groupId").and_then(|text| text.parse().ok()).or_else(|| {
        find_under(&alert, "group").or_else(|| find(&alert, &|text| text.parse::<GroupId>().ok()))
    });
    let known_type = text_of(&alert, "eventTypeName");
    let (Some(group), true) = (group, kind.is_some() || known_type.is_none()) else {
        return Received { id, hint: None };
    };
    let kind = kind.unwrap_or_else(|| "(templated alert)".to_owned());
    let over = matches!(text_of(&alert, "status"), Some("CLOSED" | "CANCELLED"));
    let meaning = if is_alarm(&kind) && !over {
        // The same alert is reported again every few minutes while it is open.
        let alert = text_of(&alert, "id").unwrap_or(&id);
        Meaning::Alarm { once: format!("atlas/{alert}") }
    } else if is_alarm(&kind) || is_restored(&kind) {
        Meaning::Usable
    } else {
        Meaning::Look
    };
    let words = text_of(&alert, "humanReadable").map(words_of);
    let hint = Hint {
        kind,
        subject: Subject::Project { group },
        meaning,
        new_key: None,
        by: None,
        words,
        ends_at: None,
    };
    Received { id, hint: Some(hint) }
}

fn is_about_keys(text: &str) -> bool {
    let word = text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    word && (text.contains("_ENCRYPTION_KEY_") || text.starts_with("ENCRYPTION_AT_REST_"))
}

/// Whether the event reports a key that Atlas cannot use, so that clusters may be shut down. A key that works
/// again, or is only old, is no alarm.
fn is_alarm(kind: &str) -> bool {
    let fine = ["_RESTORED", "_IS_VALID", "_NEEDS_ROTATION", "_KEY_ROTATED", "_KEY_VALID"];
    kind.ends_with("_ENCRYPTION_KEY_INVALID")
        || (kind.starts_with("ENCRYPTION_AT_REST_") && !fine.iter().any(|end| kind.ends_with(end)))
}

/// Whether the event reports a key that Atlas can use again.
fn is_restored(kind: &str) -> bool {
    ["_RESTORED", "_IS_VALID", "_KEY_VALID"].iter().any(|end| kind.ends_with(end))
}

/// The first word anywhere in `value` that `pick` accepts.
fn find<T>(value: &Value, pick: &impl Fn(&str) -> Option<T>) -> Option<T> {
    match value {
        Value::String(text) => text.split_whitespace().find_map(pick),
        Value::Array(items) => items.iter().find_map(|item| find(item, pick)),
        Value::Object(members) => members.values().find_map(|member| find(member, pick)),
        _ => None,
    }
}

/// The first group id in a member whose name contains `name` or `project`. An alert's own id has the same
/// form, so only the member's name tells them apart.
fn find_under(value: &Value, name: &str) -> Option<GroupId> {
    match value {
        Value::Array(items) => items.iter().find_map(|item| find_under(item, name)),
        Value::Object(members) => members
            .iter()
            .find_map(|(own, member)| {
                let own = own.to_ascii_lowercase();
                let named = own.contains(name) || own.contains("project");
                member.as_str().filter(|_| named).and_then(|text| text.parse().ok())
            })
            .or_else(|| members.values().find_map(|member| find_under(member, name))),
        _ => None,
    }
}
