//! Atlas' checks of a PATCH of encryption at rest: names, types, forms, places, and the key itself.
//!
//! Atlas' published codes are used where there is one. Forms that no code is published for are
//! refused with the nearest published one.

use serde_json::{Map, Value, json};

use super::answer::{Refusal, refuse};
use super::world::{KeyState, names};

/// Fields that are taken in and never shown again.
pub(super) const SECRETS: [&str; 3] = ["secretAccessKey", "secret", "serviceAccountKey"];

/// Every field of a block except `valid`, as the published schema names them.
pub(super) fn field_names(provider: &str) -> &'static [&'static str] {
    match provider {
        "AWS" => &[
            "enabled",
            "customerMasterKeyID",
            "region",
            "roleId",
            "accessKeyID",
            "secretAccessKey",
            "requirePrivateNetworking",
        ],
        "AZURE" => &[
            "enabled",
            "keyIdentifier",
            "azureEnvironment",
            "keyVaultName",
            "resourceGroupName",
            "subscriptionID",
            "tenantID",
            "clientID",
            "secret",
            "roleId",
            "requirePrivateNetworking",
        ],
        _ => &["enabled", "keyVersionResourceID", "serviceAccountKey", "roleId"],
    }
}

fn invalid(name: &str) -> Refusal {
    refuse(400, "INVALID_ATTRIBUTE", format!("The attribute {name} cannot have this value.")).about(name)
}

/// Names and types of one block.
pub(super) fn fields(provider: &str, fields: &Map<String, Value>) -> Result<(), Refusal> {
    for (name, value) in fields {
        // `valid` is read-only; Atlas is known to tolerate it when a client sends back a block that it
        // read.
        if name != "valid" && !field_names(provider).contains(&name.as_str()) {
            return Err(refuse(400, "INVALID_ATTRIBUTE", format!("There is no attribute {name}."))
                .about(name.as_str()));
        }
        if matches!(name.as_str(), "enabled" | "valid" | "requirePrivateNetworking") {
            if !value.is_boolean() {
                return Err(invalid(name));
            }
            continue;
        }
        let text = value.as_str().ok_or_else(|| invalid(name))?;
        let good = match name.as_str() {
            "roleId" => is_hex(text, 24),
            "clientID" | "tenantID" | "subscriptionID" => text.parse::<uuid::Uuid>().is_ok(),
            "accessKeyID" => (16..=128).contains(&text.len()),
            "customerMasterKeyID" => (1..=2048).contains(&text.len()),
            "azureEnvironment" if matches!(text, "AZURE" | "AZURE_CHINA" | "AZURE_US_GOVERNMENT") => true,
            "region" if is_region(text) => true,
            "azureEnvironment" | "region" => {
                let detail = format!("{name} has no value of this name.");
                return Err(refuse(400, "INVALID_ENUM_VALUE", detail).about(name.as_str()));
            }
            _ => true,
        };
        if !good {
            return Err(invalid(name));
        }
    }
    Ok(())
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The form of Atlas' region names; not all that have the form exist.
fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('_').collect();
    text == "GLOBAL"
        || parts.split_last().is_some_and(|(number, words)| {
            words.len() >= 2
                && number.len() == 1
                && number.bytes().all(|byte| byte.is_ascii_digit())
                && words.iter().all(|it| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_uppercase()))
        })
}

/// A 24-digit id in a path.
pub(super) fn is_object_id(text: &str) -> bool {
    is_hex(text, 24)
}

/// First enablement needs everything a provider has.
pub(super) fn complete(provider: &str, block: &Map<String, Value>) -> Result<(), Refusal> {
    let (needed, secret): (&[&str], &str) = match provider {
        "AWS" => (&["customerMasterKeyID", "region"], "secretAccessKey"),
        "AZURE" => (
            &[
                "keyIdentifier",
                "azureEnvironment",
                "keyVaultName",
                "resourceGroupName",
                "subscriptionID",
                "tenantID",
                "clientID",
            ],
            "secret",
        ),
        _ => (&["keyVersionResourceID"], "serviceAccountKey"),
    };
    if provider == "AWS" && block.contains_key("accessKeyID") {
        return Err(refuse(
            400,
            "AWS_KMS_CREDENTIALS_AUTH_DEPRECATED",
            "Access keys are no longer taken; use a role.",
        ));
    }
    let has_credential = block.contains_key("roleId") || block.contains_key(secret);
    let missing = needed.iter().copied().find(|name| !block.contains_key(*name));
    match missing.or_else(|| (!has_credential).then_some("roleId")) {
        Some(name) => {
            Err(refuse(400, "MISSING_ATTRIBUTE", format!("The attribute {name} is missing.")).about(name))
        }
        None => Ok(()),
    }
}

/// Form and place of the key in `block`.
pub(super) fn key(provider: &str, block: &Map<String, Value>, versionless: bool) -> Result<(), Refusal> {
    let text = |name: &str| block.get(name).and_then(Value::as_str).unwrap_or_default();
    let key = text(names(provider).map_or("", |(_, field)| field));
    match provider {
        "AWS" => aws_key(key, &text("region").to_ascii_lowercase().replace('_', "-")),
        "AZURE" => azure_key(key, text("keyVaultName"), versionless),
        _ => gcp_key(key),
    }
}

fn aws_key(key: &str, region: &str) -> Result<(), Refusal> {
    let (found, id) = match key.strip_prefix("arn:") {
        None => (region, key),
        Some(arn) => {
            let parts: Vec<&str> = arn.splitn(5, ':').collect();
            match parts[..] {
                [_, "kms", found, _, resource] => (found, resource.strip_prefix("key/").unwrap_or_default()),
                _ => (region, ""),
            }
        }
    };
    let is_id = id.parse::<uuid::Uuid>().is_ok() && id.len() == 36;
    // Whether Atlas accepts an alias is not known; a rehearsal should not depend on it.
    if !is_id && !id.strip_prefix("mrk-").is_some_and(|rest| is_hex(rest, 32)) {
        return Err(refuse(404, "AWS_CUSTOMER_MASTER_KEY_NOT_FOUND", "This is not the id or ARN of a key.")
            .about(key));
    }
    if found != region {
        return Err(refuse(400, "AWS_KMS_REGION_NOT_SUPPORTED", "The key is not in the configured region."));
    }
    Ok(())
}

fn azure_key(key: &str, vault: &str, versionless: bool) -> Result<(), Refusal> {
    let malformed =
        || refuse(400, "AZURE_KEY_VAULT_KEY_IDENTIFIER_INVALID_FORMAT", "The key identifier is malformed.");
    let rest = key.strip_prefix("https://").ok_or_else(malformed)?;
    let parts: Vec<&str> = rest.trim_end_matches('/').split('/').collect();
    let host = match parts[..] {
        [host, "keys", name, version] if !name.is_empty() && is_hex(version, 32) => host,
        [host, "keys", name] if !name.is_empty() && versionless => host,
        _ => return Err(malformed()),
    };
    let (found, domain) = host.split_once('.').ok_or_else(malformed)?;
    if !domain.to_ascii_lowercase().starts_with("vault.") {
        return Err(malformed());
    }
    if !found.eq_ignore_ascii_case(vault) {
        return Err(refuse(400, "INVALID_AZURE_API_REQUEST", "The key is not in the configured vault."));
    }
    Ok(())
}

fn gcp_key(key: &str) -> Result<(), Refusal> {
    const NAMES: [&str; 5] = ["projects", "locations", "keyRings", "cryptoKeys", "cryptoKeyVersions"];
    let parts: Vec<&str> = key.split('/').collect();
    let version = parts.last().and_then(|version| version.parse::<u64>().ok());
    let good = parts.len() == 2 * NAMES.len()
        && version.is_some()
        && parts.chunks(2).zip(NAMES).all(|(pair, name)| pair[0] == name && !pair[1].is_empty());
    if good {
        return Ok(());
    }
    Err(refuse(400, "GOOGLE_CLOUD_KMS_KEY_VERSION_NOT_FOUND", "This is not the path of a key version.")
        .about(key))
}

/// Checks the state that the key service reports for the key.
pub(super) fn state(provider: &str, state: Option<KeyState>) -> Result<(), Refusal> {
    use KeyState as K;
    let (status, code) = match (provider, state) {
        (_, Some(K::Enabled | K::FailsOnNodes)) | ("AWS" | "GCP", Some(K::Expiring)) => return Ok(()),
        (_, Some(K::NoPermission)) => (400, "NO_PERMISSION_TO_ENCRYPT_DECRYPT"),
        ("AWS", None | Some(K::Destroyed)) => (404, "AWS_CUSTOMER_MASTER_KEY_NOT_FOUND"),
        ("AWS", Some(K::PendingDeletion)) => (400, "AWS_KMS_CUSTOMER_MASTER_KEY_PENDING_DELETION"),
        ("AWS", Some(K::Pending)) => (400, "AWS_KMS_CUSTOMER_MASTER_KEY_PENDING_IMPORT"),
        ("AWS", _) => (400, "AWS_KMS_CUSTOMER_MASTER_KEY_NOT_ENABLED"),
        ("AZURE", None | Some(K::Destroyed)) => (400, "AZURE_KEY_VAULT_KEY_NOT_FOUND"),
        ("AZURE", Some(K::Expiring)) => (400, "AZURE_KEY_VAULT_KEY_EXPIRING"),
        ("AZURE", Some(K::Expired)) => (400, "AZURE_KEY_VAULT_KEY_EXPIRED"),
        ("AZURE", Some(K::NotYetActive)) => (400, "AZURE_KEY_VAULT_KEY_NOT_ACTIVE"),
        ("AZURE", _) => (400, "AZURE_KEY_VAULT_KEY_NOT_ENABLED"),
        (_, None) => (400, "GOOGLE_CLOUD_KMS_KEY_VERSION_NOT_FOUND"),
        (_, Some(K::Destroyed)) => (400, "GOOGLE_CLOUD_KMS_KEY_VERSION_DESTROYED"),
        (_, Some(K::PendingDeletion)) => (400, "GOOGLE_CLOUD_KMS_KEY_VERSION_DESTROY_SCHEDULED"),
        (_, Some(K::Pending)) => (400, "GOOGLE_CLOUD_KMS_KEY_VERSION_PENDING_GENERATION"),
        (_, _) => (400, "GOOGLE_CLOUD_KMS_KEY_VERSION_DISABLED"),
    };
    Err(refuse(status, code, "The key service refuses this key."))
}

/// The `enabled` that the request sets, if it does.
pub(super) fn enabled(fields: &Map<String, Value>) -> Option<bool> {
    fields.get("enabled").and_then(Value::as_bool)
}

/// A block with `fields` laid over it, without the read-only ones.
pub(super) fn merged(block: &Map<String, Value>, fields: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = block.clone();
    merged.extend(
        fields.iter().filter(|(name, _)| *name != "valid").map(|(name, value)| (name.clone(), value.clone())),
    );
    merged.entry("enabled").or_insert(json!(true));
    merged
}
