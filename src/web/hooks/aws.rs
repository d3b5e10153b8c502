//! Events of AWS KMS as Amazon EventBridge writes them, whether they come from an API destination or
//! inside a notification of Amazon SNS.
//!
//! Automatic and on-demand rotation keep the key's id, so Atlas needs no change. A manual rotation needs
//! one: it shows as an alias that points to another key, and only CloudTrail reports that.

use serde_json::Value;

use super::{Received, Refusal, cloudevents, joined, name_of, text_of, words_of};
use crate::domain::hint::{Hint, Meaning, Subject};
use crate::domain::key::{KeyRef, Provider, aws_partition};

/// Reads one event.
pub(super) fn read(event: &Value) -> Result<Received, Refusal> {
    // An input transformer may write a CloudEvent in the place of the event.
    if text_of(event, "specversion").is_some() {
        return cloudevents::structured(event);
    }
    let detail = event.get("detail").unwrap_or(&Value::Null);
    let (Some(kind), Some(id)) = (text_of(event, "detail-type"), text_of(event, "id")) else {
        return Err(Refusal::malformed("an event has no id or no detail-type"));
    };
    let id = text_of(detail, "eventID").unwrap_or(id).to_owned();
    let hint = match kind {
        "AWS API Call via CloudTrail" => call(event, detail, &id),
        "AWS Service Event via CloudTrail" => service(event, detail),
        _ => own(event, detail, kind),
    };
    Ok(Received { id, hint })
}

/// An event that KMS reports by itself.
fn own(event: &Value, detail: &Value, kind: &str) -> Option<Hint> {
    let key = key_of(event, text_of(detail, "key-id")).or_else(|| first_key(event.get("resources")?))?;
    let meaning = match kind {
        "KMS CMK Rotation" => Meaning::InPlace,
        "KMS CMK Deletion" => deleted(&key),
        "KMS Imported Key Material Expiration" => expired(event, &key),
        _ => return None,
    };
    Some(hint(kind, Subject::Key { key }, meaning))
}

/// What KMS did by itself, as CloudTrail reports it: the end of a waiting period, of imported material.
fn service(event: &Value, detail: &Value) -> Option<Hint> {
    if !succeeded(detail) {
        return None;
    }
    let name = text_of(detail, "eventName")?;
    let key = key_of(event, detail.get("serviceEventDetails").and_then(|it| text_of(it, "keyId")));
    let key = key.or_else(|| first_key(detail.get("resources")?))?;
    let meaning = match name {
        "DeleteKey" => deleted(&key),
        "DeleteExpiredKeyMaterial" => expired(event, &key),
        "RotateKey" => Meaning::InPlace,
        "SynchronizeMultiRegionKey" => Meaning::Look,
        _ => return None,
    };
    Some(hint(name, Subject::Key { key }, meaning))
}

/// KMS reports a deletion in several ways, and each perhaps more than once.
fn deleted(key: &KeyRef) -> Meaning {
    Meaning::Alarm { once: format!("KMS CMK Deletion/{key}") }
}

/// As [`deleted`]; material can be imported again and expire on another day.
fn expired(event: &Value, key: &KeyRef) -> Meaning {
    let day: String = text_of(event, "time").unwrap_or_default().chars().take(10).collect();
    Meaning::Alarm { once: format!("KMS Imported Key Material Expiration/{key}/{day}") }
}

/// Whether this is an event of KMS about something that took place.
fn succeeded(detail: &Value) -> bool {
    text_of(detail, "eventSource") == Some("kms.amazonaws.com")
        && detail.get("errorCode").is_none_or(Value::is_null)
}

/// A call to KMS, as CloudTrail reports it.
fn call(event: &Value, detail: &Value, id: &str) -> Option<Hint> {
    if !succeeded(detail) {
        return None;
    }
    let name = text_of(detail, "eventName")?;
    let asked = detail.get("requestParameters").unwrap_or(&Value::Null);
    let by = detail.get("userIdentity").and_then(|user| text_of(user, "arn")).map(words_of);
    let about_key = |meaning| {
        let key = key_of(event, text_of(asked, "keyId")).or_else(|| first_key(detail.get("resources")?))?;
        Some(hint(name, Subject::Key { key }, meaning))
    };
    let place = |name: &str| text_of(event, name).and_then(name_of);
    let found = match name {
        "CreateAlias" | "UpdateAlias" | "DeleteAlias" => {
            let alias = name_of(text_of(asked, "aliasName")?)?;
            let subject = Subject::Alias { name: alias, region: place("region"), account: place("account") };
            let target = key_of(event, text_of(asked, "targetKeyId"));
            Some(Hint { new_key: target, ..hint(name, subject, Meaning::Look) })
        }
        "DisableKey" | "ScheduleKeyDeletion" | "DeleteImportedKeyMaterial" => {
            about_key(Meaning::Alarm { once: joined(name, &[id]) })
        }
        // A key whose deletion is cancelled is disabled until it is enabled.
        // New material for a key that is disabled makes it no more usable.
        "PutKeyPolicy" | "CancelKeyDeletion" | "RevokeGrant" | "RetireGrant" | "ImportKeyMaterial" => {
            about_key(Meaning::Look)
        }
        // The event names a key store and none of its keys.
        "DisconnectCustomKeyStore" | "UpdateCustomKeyStore" | "ConnectCustomKeyStore" => {
            let subject = Subject::Region { region: place("region"), account: place("account") };
            Some(hint(name, subject, Meaning::Look))
        }
        "EnableKey" => about_key(Meaning::Usable),
        "RotateKeyOnDemand" => about_key(Meaning::InPlace),
        _ => None,
    }?;
    Some(Hint { by, ..found })
}

fn hint(kind: &str, subject: Subject, meaning: Meaning) -> Hint {
    Hint { kind: words_of(kind), subject, meaning, new_key: None, by: None, words: None, ends_at: None }
}

/// An id or ARN as the ARN that the event's region and account make of it.
fn key_of(event: &Value, text: Option<&str>) -> Option<KeyRef> {
    let text = text?;
    if let (false, Some(region), Some(account)) =
        (text.starts_with("arn:"), text_of(event, "region"), text_of(event, "account"))
        && let Some(key) = parse(&format!("arn:{}:kms:{region}:{account}:key/{text}", aws_partition(region)))
    {
        return Some(key);
    }
    parse(text)
}

fn parse(text: &str) -> Option<KeyRef> {
    KeyRef::parse(Provider::Aws, text).ok()
}

/// The first ARN of a key among `resources`, whose order and labels mean nothing.
fn first_key(resources: &Value) -> Option<KeyRef> {
    resources.as_array()?.iter().find_map(|one| {
        let arn = one.as_str().or_else(|| text_of(one, "ARN")).or_else(|| text_of(one, "arn"))?;
        parse(arn)
    })
}
