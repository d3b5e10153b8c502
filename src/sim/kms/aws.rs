//! AWS KMS: JSON 1.1, requests signed by Signature Version 4.
//!
//! The region is the one that the signature names; every key exists in every region unless its facts
//! say otherwise. An id without an ARN belongs to account 111122223333.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Named, Refused, created, object, open, refuse, seal, seconds};
use crate::domain::time::Timestamp;
use crate::sim::ask::Ask;
use crate::sim::world::{KeyState, World};

const ACCOUNT: &str = "111122223333";
/// How far a signature's date may be off.
const SKEW_S: u64 = 300;

pub(super) fn name(ask: &Ask) -> Named {
    let key = object(ask)["KeyId"].as_str().map(str::to_owned);
    let name = match operation(ask) {
        "DescribeKey" => "aws_describe",
        "ListAliases" => "aws_aliases",
        "Encrypt" => "aws_encrypt",
        "Decrypt" => "aws_decrypt",
        _ => "aws_other",
    };
    (name, key)
}

fn operation(ask: &Ask) -> &str {
    ask.header("x-amz-target").strip_prefix("TrentService.").unwrap_or_default()
}

pub(super) fn refused(refused: &Refused) -> Value {
    json!({ "__type": refused.code, "message": refused.message })
}

pub(super) fn handle(world: &mut World, ask: &Ask) -> Result<Value, Refused> {
    let caller = caller(world, ask)?;
    let body = object(ask);
    if !body.is_object() {
        return Err(refuse(400, "SerializationException", "The body is no JSON object."));
    }
    match operation(ask) {
        "DescribeKey" => {
            let key = find(world, &caller, &body["KeyId"])?;
            allowed(world, &caller, "kms:DescribeKey", &key.arn)?;
            Ok(describe(world, &key, ask.now))
        }
        "ListAliases" => {
            allowed(world, &caller, "kms:ListAliases", "*")?;
            list_aliases(world, &caller, &body)
        }
        "Encrypt" => {
            let key = find(world, &caller, &body["KeyId"])?;
            allowed(world, &caller, "kms:Encrypt", &key.arn)?;
            usable(world, &key)?;
            let plain = bytes(&body, "Plaintext")?;
            let sealed = seal(&key.id, &context(&body), &plain)
                .ok_or_else(|| refuse(500, "KMSInternalException", "The cipher failed."))?;
            let blob = [key.id.as_bytes(), b"\n", &sealed].concat();
            Ok(json!({
                "CiphertextBlob": STANDARD.encode(blob), "KeyId": key.arn,
                "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            }))
        }
        "Decrypt" => decrypt(world, &caller, &body),
        other => Err(refuse(400, "UnknownOperationException", format!("{other:?} is not simulated."))),
    }
}

struct Caller {
    access_key: String,
    region: String,
}

/// Checks the signature and returns the caller.
fn caller(world: &World, ask: &Ask) -> Result<Caller, Refused> {
    let header = ask.header("authorization");
    let Some(rest) = header.strip_prefix("AWS4-HMAC-SHA256 ") else {
        return Err(refuse(400, "MissingAuthenticationTokenException", "Missing Authentication Token"));
    };
    let field = |name: &str| {
        let mut fields = rest.split(',').map(str::trim);
        fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
    };
    let incomplete = || refuse(400, "IncompleteSignature", "Authorization header requires its parts.");
    let credential: Vec<&str> = field("Credential").split('/').collect();
    let [access_key, day, region, "kms", "aws4_request"] = credential[..] else { return Err(incomplete()) };
    let unknown = || {
        refuse(400, "UnrecognizedClientException", "The security token included in the request is invalid.")
    };
    let secret = world.kms.aws_keys.get(access_key).ok_or_else(unknown)?;
    let at = ask.header("x-amz-date");
    let signed = chrono::NaiveDateTime::parse_from_str(at, "%Y%m%dT%H%M%SZ").map_err(|_| incomplete())?;
    let signed = Timestamp::from_chrono(signed.and_utc());
    if ask.now.since(signed).max(signed.since(ask.now)).as_secs() > SKEW_S {
        return Err(refuse(
            400,
            "InvalidSignatureException",
            format!("Signature expired: {at} is too far away."),
        ));
    }
    let headers = field("SignedHeaders");
    let (path, query) = ask.uri.split_once('?').unwrap_or((&ask.uri, ""));
    let lines: Vec<String> =
        headers.split(';').map(|name| format!("{name}:{}\n", ask.header(name).trim())).collect();
    let body = hex::encode(Sha256::digest(&ask.body));
    let canonical = format!("{}\n{path}\n{query}\n{}\n{headers}\n{body}", ask.method, lines.concat());
    let scope = format!("{day}/{region}/kms/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{}", hex::encode(Sha256::digest(&canonical)));
    let mac = |key: &[u8], text: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
    };
    let first = mac(format!("AWS4{secret}").as_bytes(), day);
    let key = [region, "kms", "aws4_request"].iter().fold(first, |key, part| mac(&key, part));
    let must = ["host", "x-amz-date", "x-amz-target"];
    let covers = must.iter().all(|name| headers.split(';').any(|signed| signed == *name));
    if !covers || hex::encode(mac(&key, &text)) != field("Signature") {
        return Err(refuse(
            400,
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.",
        ));
    }
    Ok(Caller { access_key: access_key.to_owned(), region: region.to_owned() })
}

fn allowed(world: &World, caller: &Caller, action: &str, resource: &str) -> Result<(), Refused> {
    if !world.is_denied(action) {
        return Ok(());
    }
    let message = format!(
        "User: arn:aws:iam::{ACCOUNT}:user/{} is not authorized to perform: {action} on resource: {resource} because no identity-based policy allows the {action} action",
        caller.access_key
    );
    Err(refuse(400, "AccessDeniedException", message))
}

struct AwsKey {
    id: String,
    arn: String,
    state: KeyState,
}

/// The key behind an id, an alias, or the ARN of either.
fn find(world: &World, caller: &Caller, id: &Value) -> Result<AwsKey, Refused> {
    let text = id.as_str().unwrap_or_default();
    let region = &caller.region;
    let (account, name) = match text.strip_prefix("arn:") {
        None => (ACCOUNT, text.strip_prefix("key/").unwrap_or(text)),
        Some(rest) => match rest.splitn(5, ':').collect::<Vec<_>>()[..] {
            [_, "kms", own, account, name] if own == region => {
                (account, name.strip_prefix("key/").unwrap_or(name))
            }
            [_, "kms", own, _, _] => {
                return Err(refuse(400, "NotFoundException", format!("Invalid arn {own}")));
            }
            _ => return Err(refuse(400, "InvalidArnException", format!("Invalid arn {text}"))),
        },
    };
    let id = if name.starts_with("alias/") {
        let missing = || {
            let arn = format!("arn:aws:kms:{region}:{account}:{name}");
            refuse(400, "NotFoundException", format!("Alias {arn} is not found."))
        };
        world.kms.aliases.get(name).ok_or_else(missing)?.clone()
    } else {
        name.to_owned()
    };
    let arn = format!("arn:aws:kms:{region}:{account}:key/{id}");
    let here = world.facts(&id).region.is_none_or(|own| own == *region);
    match world.state(&id).filter(|state| here && *state != KeyState::Destroyed && !id.contains([':', '/'])) {
        Some(state) => Ok(AwsKey { id, arn, state }),
        None => Err(refuse(400, "NotFoundException", format!("Key '{arn}' does not exist"))),
    }
}

fn describe(world: &World, key: &AwsKey, now: Timestamp) -> Value {
    let facts = world.facts(&key.id);
    let spec = facts.kind.as_deref().unwrap_or("SYMMETRIC_DEFAULT");
    let state = match key.state {
        KeyState::Disabled => "Disabled",
        KeyState::PendingDeletion => "PendingDeletion",
        KeyState::Pending | KeyState::Expired => "PendingImport",
        _ => "Enabled",
    };
    let usage = if spec.starts_with("HMAC") { "GENERATE_VERIFY_MAC" } else { "ENCRYPT_DECRYPT" };
    let mut data = json!({
        "AWSAccountId": key.arn.split(':').nth(4), "KeyId": key.id, "Arn": key.arn,
        "CreationDate": seconds(created(&facts)), "Enabled": state == "Enabled", "Description": "",
        "KeyUsage": usage, "KeyState": state, "KeyManager": "CUSTOMER", "KeySpec": spec,
        "CustomerMasterKeySpec": spec, "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
        "MultiRegion": key.id.starts_with("mrk-"), "Origin": "AWS_KMS",
    });
    if spec == "SYMMETRIC_DEFAULT" {
        data["CurrentKeyMaterialId"] =
            json!(facts.material.unwrap_or_else(|| hex::encode(Sha256::digest(&key.id))));
    }
    let expires = facts
        .expires
        .or_else(|| (key.state == KeyState::Expiring).then(|| now + std::time::Duration::from_secs(86_400)));
    if let Some(at) = expires {
        (data["ValidTo"], data["Origin"]) = (json!(seconds(at)), json!("EXTERNAL"));
        data["ExpirationModel"] = json!("KEY_MATERIAL_EXPIRES");
    }
    if key.state == KeyState::PendingDeletion {
        let at = facts.deletion_date.unwrap_or(now + std::time::Duration::from_secs(30 * 86_400));
        data["DeletionDate"] = json!(seconds(at));
    }
    json!({ "KeyMetadata": data })
}

fn list_aliases(world: &World, caller: &Caller, body: &Value) -> Result<Value, Refused> {
    let target = match &body["KeyId"] {
        Value::Null => None,
        id => Some(find(world, caller, id)?.id),
    };
    let marker = body["Marker"].as_str().unwrap_or_default();
    let limit =
        body["Limit"].as_u64().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(world.kms.page);
    let mut aliases = world
        .kms
        .aliases
        .iter()
        .filter(|(name, id)| name.as_str() > marker && target.as_ref().is_none_or(|it| it == *id));
    let shown: Vec<(&String, &String)> = aliases.by_ref().take(limit.max(1)).collect();
    let mut reply = json!({
        "Aliases": shown.iter().map(|(name, id)| json!({
            "AliasName": name, "AliasArn": format!("arn:aws:kms:{}:{ACCOUNT}:{name}", caller.region),
            "TargetKeyId": id,
        })).collect::<Vec<_>>(),
        "Truncated": false,
    });
    if aliases.next().is_some() {
        reply["Truncated"] = json!(true);
        reply["NextMarker"] = json!(shown.last().map(|(name, _)| name));
    }
    Ok(reply)
}

fn usable(world: &World, key: &AwsKey) -> Result<(), Refused> {
    let facts = world.facts(&key.id);
    if facts.kind.as_deref().is_some_and(|spec| spec != "SYMMETRIC_DEFAULT") {
        let message = format!("{} key usage or spec does not fit this operation.", key.arn);
        return Err(refuse(400, "InvalidKeyUsageException", message));
    }
    let (code, what) = match key.state {
        KeyState::Disabled => ("DisabledException", "is disabled."),
        KeyState::PendingDeletion => ("KMSInvalidStateException", "is pending deletion."),
        KeyState::Pending | KeyState::Expired => ("KMSInvalidStateException", "is pending import."),
        _ => return Ok(()),
    };
    Err(refuse(400, code, format!("{} {what}", key.arn)))
}

fn decrypt(world: &World, caller: &Caller, body: &Value) -> Result<Value, Refused> {
    let blob = bytes(body, "CiphertextBlob")?;
    let invalid = || refuse(400, "InvalidCiphertextException", "");
    let at = blob.iter().position(|byte| *byte == b'\n').ok_or_else(invalid)?;
    let id = std::str::from_utf8(&blob[..at]).map_err(|_| invalid())?;
    let key = match &body["KeyId"] {
        Value::Null => find(world, caller, &json!(id))?,
        given => find(world, caller, given)?,
    };
    allowed(world, caller, "kms:Decrypt", &key.arn)?;
    usable(world, &key)?;
    if key.id != id {
        let message = "The key ID in the request does not identify a CMK that can perform this operation.";
        return Err(refuse(400, "IncorrectKeyException", message));
    }
    let plain = open(&key.id, &context(body), &blob[at + 1..]).ok_or_else(invalid)?;
    Ok(json!({
        "KeyId": key.arn, "Plaintext": STANDARD.encode(plain), "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
    }))
}

/// The encryption context in a fixed order.
fn context(body: &Value) -> String {
    let pairs: std::collections::BTreeMap<&String, &Value> =
        body["EncryptionContext"].as_object().into_iter().flatten().collect();
    json!(pairs.into_iter().collect::<Vec<_>>()).to_string()
}

fn bytes(body: &Value, field: &str) -> Result<Vec<u8>, Refused> {
    let bytes = body[field].as_str().and_then(|text| STANDARD.decode(text).ok());
    bytes.ok_or_else(|| refuse(400, "SerializationException", format!("{field} is no base64 text.")))
}
