//! Failed calls: Atlas' own words, and the class of the failure.
//!
//! Only an error of Atlas itself is definite. An error page of a proxy or load balancer in between is
//! an unknown outcome, except where the status alone settles it (401, 403, 405, 429). Atlas' list
//! of codes is open, so codes that are not named here fall back to their status. Atlas' words are passed
//! on unchanged.

use serde_json::Value;

use super::response::AtlasResponse;
use crate::domain::rotation::outcome::{Class, Failure};

/// The longest detail that is kept, in characters.
const DETAIL_CAP: usize = 4000;

/// Codes of 401s about permissions; another login with the same credential gets the same reply.
const NOT_ABOUT_THE_LOGIN: [&str; 3] = ["USER_CANNOT_ACCESS_GROUP", "NOT_IN_GROUP", "USER_UNAUTHORIZED"];

/// A failure without Atlas' words.
pub(super) fn told(class: Class, detail: impl Into<String>) -> Failure {
    Failure { class, status: None, code: None, detail: detail.into(), retry_after: None }
}

/// A reply with a success status but without the expected content.
pub(super) fn unreadable(status: u16, detail: impl Into<String>) -> Failure {
    Failure { status: Some(status), ..told(Class::Unknown, detail) }
}

/// The JSON of a successful reply.
pub(super) fn json(answer: &AtlasResponse) -> Result<Value, Failure> {
    if !answer.is_success() {
        return Err(failure(answer));
    }
    let body = answer.body.as_ref().map_err(|what| unreadable(answer.status, what.to_string()))?;
    serde_json::from_slice(body).map_err(|_| unreadable(answer.status, "Atlas' reply is not JSON"))
}

/// Reads a reply that is not a success.
pub(super) fn failure(answer: &AtlasResponse) -> Failure {
    let said = said_by_atlas(answer);
    let word = |name: &str| said.as_ref().and_then(|said| said.get(name)).and_then(text);
    let code = word("errorCode").or_else(|| answer.error_code.clone());
    let is_atlas = said.is_some() || answer.error_code.is_some();
    Failure {
        class: class_of(answer.status, code.as_deref(), is_atlas),
        status: Some(answer.status),
        detail: word("detail").or_else(|| word("reason")).map_or_else(|| describe(answer), cap),
        code: code.map(cap),
        retry_after: answer.retry_after,
    }
}

/// Whether another login with the same credential could change the reply.
pub(super) fn is_about_the_login(answer: &AtlasResponse) -> bool {
    answer.status == 401
        && failure(answer).code.is_none_or(|code| !NOT_ABOUT_THE_LOGIN.contains(&code.as_str()))
}

/// The error object, when the body is one of Atlas'.
fn said_by_atlas(answer: &AtlasResponse) -> Option<Value> {
    let value: Value = serde_json::from_slice(answer.body.as_ref().ok()?).ok()?;
    ["error", "errorCode", "detail"].iter().any(|name| value.get(name).is_some()).then_some(value)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A foreign text, cut at [`DETAIL_CAP`].
pub(super) fn cap(text: String) -> String {
    if text.chars().count() > DETAIL_CAP {
        text.chars().take(DETAIL_CAP).chain(['…']).collect()
    } else {
        text
    }
}

fn describe(answer: &AtlasResponse) -> String {
    let status = answer.status;
    match (&answer.redirect, &answer.body) {
        (Some(to), _) => format!(
            "Atlas answered {status} with a redirect to {to}, which is not followed: set atlas.base_url to the final address"
        ),
        (None, Err(what)) => format!("Atlas answered {status}, and {what}"),
        (None, Ok(_)) => format!("Atlas answered {status} without a reason"),
    }
}

fn class_of(status: u16, code: Option<&str>, is_atlas: bool) -> Class {
    match status {
        300..=399 | 407 => Class::Config,
        401 => Class::Auth,
        405 | 429 => Class::Transient,
        400 | 402..=499 => code.and_then(class_of_code).unwrap_or(match status {
            403 => Class::Auth,
            408 | 409 => Class::Unknown,
            _ if !is_atlas => Class::Unknown,
            404 | 410 => Class::Gone,
            // The version stands in `Accept`.
            406 => Class::TooOld,
            _ => Class::Config,
        }),
        _ => Class::Unknown,
    }
}

/// Codes that have the same meaning under every 4xx status.
fn class_of_code(code: &str) -> Option<Class> {
    match code {
        // The role or the key version exists but is not usable everywhere yet: the failure passes.
        "GOOGLE_CLOUD_KMS_KEY_VERSION_PENDING_GENERATION"
        | "CANNOT_ASSUME_ROLE"
        | "INVALID_AWS_CREDENTIALS"
        | "CLOUD_PROVIDER_ACCESS_ROLE_NOT_AUTHORIZED"
        | "RATE_LIMITED"
        | "RATE_LIMITED_TOKEN_BUCKET"
        | "WRITES_NOT_ALLOWED_DURING_APP_UPGRADES" => Some(Class::Transient),
        "VERSION_GONE" | "INVALID_VERSION_DATE" => Some(Class::TooOld),
        // The current key is inaccessible, and Atlas changes nothing until it is restored.
        "ENCRYPTION_AT_REST_SETTINGS_INVALID" => Some(Class::Refused),
        "NO_PERMISSION_TO_ENCRYPT_DECRYPT" | "AWS_CUSTOMER_MASTER_KEY_NOT_FOUND" => Some(Class::BadKey),
        "CANNOT_DISABLE_ENCRYPTION_AT_REST"
        | "CANNOT_CHANGE_ENCRYPTION_AT_REST_PROVIDER"
        | "CANNOT_ROTATE_KEY_ENCRYPTION_DISABLED" => Some(Class::Config),
        _ => ["AWS_KMS_CUSTOMER_MASTER_KEY_", "AZURE_KEY_VAULT_KEY_", "GOOGLE_CLOUD_KMS_KEY_VERSION_"]
            .iter()
            .any(|family| code.starts_with(family))
            .then_some(Class::BadKey),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_published_code_has_its_class() {
        for (status, code, class) in [
            (400, "ENCRYPTION_AT_REST_SETTINGS_INVALID", Class::Refused),
            (400, "NO_PERMISSION_TO_ENCRYPT_DECRYPT", Class::BadKey),
            (400, "AWS_KMS_CUSTOMER_MASTER_KEY_PENDING_DELETION", Class::BadKey),
            (400, "AWS_KMS_REGION_NOT_SUPPORTED", Class::Config),
            (404, "AWS_CUSTOMER_MASTER_KEY_NOT_FOUND", Class::BadKey),
            (400, "AZURE_KEY_VAULT_KEY_EXPIRING", Class::BadKey),
            (400, "AZURE_KEY_VAULT_ENVIRONMENT_NOT_SUPPORTED", Class::Config),
            (400, "GOOGLE_CLOUD_KMS_KEY_VERSION_DESTROY_SCHEDULED", Class::BadKey),
            (400, "GOOGLE_CLOUD_KMS_KEY_VERSION_PENDING_GENERATION", Class::Transient),
            (400, "INVALID_AWS_CREDENTIALS", Class::Transient),
            (400, "INVALID_AZURE_CREDENTIALS", Class::Config),
            (403, "CANNOT_ASSUME_ROLE", Class::Transient),
            (409, "CANNOT_ROTATE_KEY_ENCRYPTION_DISABLED", Class::Config),
            (409, "CLUSTER_BUSY_IN_A_NEW_WAY", Class::Unknown),
            (400, "SOMETHING_NEW", Class::Config),
            (404, "GROUP_NOT_FOUND", Class::Gone),
            (410, "VERSION_GONE", Class::TooOld),
            (410, "GROUP_GONE", Class::Gone),
            (400, "INVALID_VERSION_DATE", Class::TooOld),
            (406, "NOT_ACCEPTABLE", Class::TooOld),
            (401, "USER_CANNOT_ACCESS_GROUP", Class::Auth),
            (403, "IP_ADDRESS_NOT_ON_ACCESS_LIST", Class::Auth),
            (405, "WRITES_NOT_ALLOWED_DURING_APP_UPGRADES", Class::Transient),
            (429, "RATE_LIMITED_TOKEN_BUCKET", Class::Transient),
            (500, "UNEXPECTED_ERROR", Class::Unknown),
        ] {
            assert_eq!(class_of(status, Some(code), true), class, "{status} {code}");
        }
    }

    #[test]
    fn what_atlas_did_not_say_is_not_definite() {
        for status in [400, 404, 409, 410, 422, 500, 502, 504, 599] {
            assert_eq!(class_of(status, None, false), Class::Unknown, "{status}");
        }
        assert_eq!(class_of(403, None, false), Class::Auth);
        assert_eq!(class_of(429, None, false), Class::Transient);
        assert_eq!(class_of(302, None, false), Class::Config);
    }
}
