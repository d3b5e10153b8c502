//! Google Cloud KMS, as far as symmetric keys are read and used.
//!
//! A caller is a service account whose signed token (RS256) is checked with its public key. A key
//! exists when one of its versions does.

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{Named, Refused, created, object, open, parts, refuse, seal};
use crate::domain::time::Timestamp;
use crate::sim::ask::Ask;
use crate::sim::world::{KeyState, World};

const VERSIONS: &str = "/cryptoKeyVersions/";
const SCOPES: [&str; 2] =
    ["https://www.googleapis.com/auth/cloudkms", "https://www.googleapis.com/auth/cloud-platform"];

/// The resource and the verb behind its colon.
fn target(ask: &Ask) -> (String, String) {
    let path = parts(ask).join("/");
    match path.rsplit_once(':') {
        // A project may have a colon in its name.
        Some((resource, verb @ ("encrypt" | "decrypt"))) => (resource.to_owned(), verb.to_owned()),
        _ => (path, String::new()),
    }
}

pub(super) fn name(ask: &Ask) -> Named {
    let (resource, verb) = target(ask);
    let name = match verb.as_str() {
        "encrypt" => "gcp_encrypt",
        "decrypt" => "gcp_decrypt",
        _ if resource.ends_with("/cryptoKeyVersions") => "gcp_versions",
        _ if resource.contains(VERSIONS) => "gcp_version",
        _ => "gcp_key",
    };
    (name, Some(resource))
}

pub(super) fn refused(refused: &Refused) -> Value {
    let mut error = json!({ "code": refused.status, "message": refused.message, "status": refused.code });
    if let Some(reason) = refused.inner {
        error["details"] = json!([{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "iam.googleapis.com",
        }]);
    }
    json!({ "error": error })
}

pub(super) fn handle(world: &mut World, ask: &Ask) -> Result<Value, Refused> {
    authenticate(world, ask)?;
    let (resource, verb) = target(ask);
    let may = |action: &str, on: &str| {
        if !world.is_denied(&format!("cloudkms.{action}")) {
            return Ok(());
        }
        let message =
            format!("Permission 'cloudkms.{action}' denied on resource '{on}' (or it may not exist).");
        Err(Refused { inner: Some("IAM_PERMISSION_DENIED"), ..refuse(403, "PERMISSION_DENIED", message) })
    };
    match (ask.method.as_str(), verb.as_str()) {
        ("GET", "") => {
            if let Some(key) = resource.strip_suffix("/cryptoKeyVersions") {
                may("cryptoKeyVersions.list", key)?;
                list(world, ask, key)
            } else if resource.contains(VERSIONS) {
                may("cryptoKeyVersions.get", &resource)?;
                let state = version(world, &resource)?;
                Ok(shown(world, &resource, state))
            } else {
                may("cryptoKeys.get", &resource)?;
                crypto_key(world, &resource)
            }
        }
        ("POST", "encrypt") => {
            may("cryptoKeyVersions.useToEncrypt", &resource)?;
            encrypt(world, ask, &resource)
        }
        ("POST", "decrypt") => {
            may("cryptoKeyVersions.useToDecrypt", &resource)?;
            decrypt(world, ask, &resource)
        }
        _ => Err(refuse(404, "NOT_FOUND", "There is nothing here.")),
    }
}

fn authenticate(world: &World, ask: &Ask) -> Result<(), Refused> {
    let bad = || {
        refuse(
            401,
            "UNAUTHENTICATED",
            "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential.",
        )
    };
    let token = ask.header("authorization").strip_prefix("Bearer ").ok_or_else(bad)?;
    let (text, signature) = token.rsplit_once('.').ok_or_else(bad)?;
    let (head, claims) = text.split_once('.').ok_or_else(bad)?;
    let read =
        |part: &str| -> Option<Value> { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok() };
    let (head, claims) = (read(head).ok_or_else(bad)?, read(claims).ok_or_else(bad)?);
    let account = world.kms.gcp_accounts.get(claims["iss"].as_str().unwrap_or_default()).ok_or_else(bad)?;
    let now = super::seconds(ask.now);
    let scoped =
        claims["scope"].as_str().is_some_and(|scope| scope.split(' ').any(|it| SCOPES.contains(&it)))
            || claims["aud"].as_str().is_some_and(|aud| aud.starts_with("https://cloudkms.googleapis.com"));
    let timely = claims["exp"].as_i64().is_some_and(|end| now < end)
        && claims["iat"].as_i64().is_some_and(|start| start <= now + 300);
    let der: String = account.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(der).map_err(|_| bad())?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| bad())?;
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der);
    let signed = head["alg"] == "RS256" && key.verify(text.as_bytes(), &signature).is_ok();
    if signed && scoped && timely { Ok(()) } else { Err(bad()) }
}

fn word(state: KeyState) -> &'static str {
    match state {
        KeyState::Disabled => "DISABLED",
        KeyState::PendingDeletion => "DESTROY_SCHEDULED",
        KeyState::Destroyed => "DESTROYED",
        KeyState::Pending => "PENDING_GENERATION",
        _ => "ENABLED",
    }
}

fn version(world: &World, id: &str) -> Result<KeyState, Refused> {
    let missing = || refuse(404, "NOT_FOUND", format!("CryptoKeyVersion {id} not found."));
    world.keys.get(id).copied().ok_or_else(missing)
}

fn number(id: &str) -> u64 {
    id.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The versions of a key, sorted as text and not by their number.
fn versions(world: &World, key: &str) -> Vec<(String, KeyState)> {
    let start = format!("{key}{VERSIONS}");
    let own = world.keys.iter().filter(|(id, _)| id.starts_with(&start));
    own.map(|(id, state)| (id.clone(), *state)).collect()
}

fn time(at: Timestamp) -> Value {
    json!(at)
}

fn shown(world: &World, id: &str, state: KeyState) -> Value {
    let facts = world.facts(id);
    let mut body = json!({
        "name": id, "state": word(state), "protectionLevel": "SOFTWARE",
        "algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION", "createTime": time(created(&facts)),
    });
    if let Some(at) = facts.deletion_date {
        body["destroyTime"] = time(at);
    }
    body
}

fn primary(world: &World, key: &str) -> Option<String> {
    match world.kms.primaries.get(key) {
        Some(none) if none.is_empty() => None,
        Some(id) => Some(id.clone()),
        None => versions(world, key).into_iter().map(|(id, _)| id).max_by_key(|id| number(id)),
    }
}

fn crypto_key(world: &World, key: &str) -> Result<Value, Refused> {
    let all = versions(world, key);
    let Some((first, _)) = all.first() else {
        return Err(refuse(404, "NOT_FOUND", format!("CryptoKey {key} not found.")));
    };
    let facts = world.facts(first);
    let purpose = facts.kind.as_deref().unwrap_or("ENCRYPT_DECRYPT");
    let mut body = json!({
        "name": key, "purpose": purpose, "createTime": time(created(&facts)),
        "versionTemplate": { "protectionLevel": "SOFTWARE", "algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION" },
        "destroyScheduledDuration": "2592000s",
    });
    if let Some(id) = primary(world, key).filter(|_| purpose == "ENCRYPT_DECRYPT") {
        body["primary"] = shown(world, &id, version(world, &id)?);
    }
    Ok(body)
}

fn list(world: &World, ask: &Ask, key: &str) -> Result<Value, Refused> {
    let all = versions(world, key);
    if all.is_empty() {
        return Err(refuse(404, "NOT_FOUND", format!("CryptoKey {key} not found.")));
    }
    let field = |name: &str| ask.query.get(name).map_or("", String::as_str);
    let wanted = match field("filter").split_once('=') {
        None if field("filter").is_empty() => None,
        Some(("state", state)) => Some(state.to_owned()),
        _ => return Err(refuse(400, "INVALID_ARGUMENT", "The filter cannot be read.")),
    };
    let kept: Vec<Value> = all
        .iter()
        .filter(|(_, state)| wanted.as_ref().is_none_or(|wanted| wanted == word(*state)))
        .map(|(id, state)| shown(world, id, *state))
        .collect();
    let size = field("pageSize").parse::<usize>().ok().filter(|size| *size > 0).unwrap_or(100);
    let size = size.min(world.kms.page).max(1);
    let start = field("pageToken").parse::<usize>().unwrap_or(0);
    let mut body = json!({
        "cryptoKeyVersions": kept.iter().skip(start).take(size).collect::<Vec<_>>(), "totalSize": kept.len(),
    });
    if start + size < kept.len() {
        body["nextPageToken"] = json!((start + size).to_string());
    }
    Ok(body)
}

fn enabled(world: &World, id: &str) -> Result<(), Refused> {
    let state = word(version(world, id)?);
    if state == "ENABLED" {
        return Ok(());
    }
    Err(refuse(400, "FAILED_PRECONDITION", format!("{id} is not enabled, current state is: {state}.")))
}

fn encrypt(world: &World, ask: &Ask, resource: &str) -> Result<Value, Refused> {
    let id = if resource.contains(VERSIONS) {
        resource.to_owned()
    } else {
        crypto_key(world, resource)?;
        let none = || refuse(400, "FAILED_PRECONDITION", format!("{resource} has no primary version."));
        primary(world, resource).ok_or_else(none)?
    };
    enabled(world, &id)?;
    let body = object(ask);
    let (plain, verified) = given(&body, "plaintext")?;
    let along = body["additionalAuthenticatedData"].as_str().unwrap_or_default();
    let sealed = seal(&id, along, &plain).ok_or_else(|| refuse(500, "INTERNAL", "The cipher failed."))?;
    let sealed = [number(&id).to_be_bytes().as_slice(), &sealed].concat();
    Ok(json!({
        "name": id, "ciphertext": STANDARD.encode(&sealed), "ciphertextCrc32c": crc(&sealed).to_string(),
        "verifiedPlaintextCrc32c": verified, "protectionLevel": "SOFTWARE",
    }))
}

fn decrypt(world: &World, ask: &Ask, key: &str) -> Result<Value, Refused> {
    if key.contains(VERSIONS) {
        return Err(refuse(400, "INVALID_ARGUMENT", "A key is decrypted with, not one of its versions."));
    }
    let body = object(ask);
    let (sealed, _) = given(&body, "ciphertext")?;
    let invalid = || refuse(400, "INVALID_ARGUMENT", "Decryption failed: the ciphertext is invalid.");
    let (head, rest) = sealed.split_first_chunk::<8>().ok_or_else(invalid)?;
    let id = format!("{key}{VERSIONS}{}", u64::from_be_bytes(*head));
    enabled(world, &id)?;
    let along = body["additionalAuthenticatedData"].as_str().unwrap_or_default();
    let plain = open(&id, along, rest).ok_or_else(invalid)?;
    Ok(json!({
        "plaintext": STANDARD.encode(&plain), "plaintextCrc32c": crc(&plain).to_string(),
        "usedPrimary": primary(world, key).as_deref() == Some(&id), "protectionLevel": "SOFTWARE",
    }))
}

/// The bytes of a field, and whether a correct checksum came with them.
fn given(body: &Value, field: &str) -> Result<(Vec<u8>, bool), Refused> {
    let bytes = body[field].as_str().and_then(|text| STANDARD.decode(text).ok());
    let bytes =
        bytes.ok_or_else(|| refuse(400, "INVALID_ARGUMENT", format!("{field} is no base64 text.")))?;
    let name = format!("{field}Crc32c");
    let told = match &body[&name] {
        Value::Null => return Ok((bytes, false)),
        Value::String(text) => text.parse().ok(),
        number => number.as_u64(),
    };
    if told == Some(u64::from(crc(&bytes))) {
        Ok((bytes, true))
    } else {
        Err(refuse(400, "INVALID_ARGUMENT", format!("The checksum in {name} does not match {field}.")))
    }
}

/// CRC-32C by long division, most significant bit first, over the mirrored input.
fn crc(bytes: &[u8]) -> u32 {
    let mut rest = u32::MAX;
    for byte in bytes {
        rest ^= u32::from(byte.reverse_bits()) << 24;
        for _ in 0..8 {
            let carry = rest & 0x8000_0000 != 0;
            rest <<= 1;
            if carry {
                rest ^= 0x1EDC_6F41;
            }
        }
    }
    !rest.reverse_bits()
}
