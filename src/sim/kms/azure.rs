//! Key Vault, and Entra as far as it issues tokens for Key Vault to applications.
//!
//! A vault exists when one of its keys does. Versions are listed in the order of their ids, which is not
//! that of their age. A deleted key is answered like one that never existed.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Named, Refused, created, object, open, parts, refuse, seal, seconds};
use crate::domain::time::Timestamp;
use crate::sim::ask::Ask;
use crate::sim::ids::opaque;
use crate::sim::world::{KeyState, World};

const DAY: Duration = Duration::from_secs(86_400);
/// The challenge of a 401; a client must not follow its address.
pub(super) const CHALLENGE: &str =
    "Bearer authorization=\"https://login.example/tenant\", resource=\"https://vault.azure.net\"";
const HELP: &str =
    "For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125287";

pub(super) fn name(ask: &Ask) -> Named {
    let parts = parts(ask);
    let id =
        |vault: &str, rest: &[&str]| Some(format!("https://{vault}.vault.azure.net/keys/{}", rest.join("/")));
    match parts[..] {
        [vault, "keys", name, "versions"] => ("vault_versions", id(vault, &[name])),
        [vault, "keys", name, version, "encrypt"] => ("vault_encrypt", id(vault, &[name, version])),
        [vault, "keys", name, version, "decrypt"] => ("vault_decrypt", id(vault, &[name, version])),
        [vault, "keys", ref rest @ ..] => ("vault_get", id(vault, rest)),
        _ => ("vault_other", None),
    }
}

pub(super) fn refused(refused: &Refused) -> Value {
    let mut error = json!({ "code": refused.code, "message": refused.message });
    if let Some(inner) = refused.inner {
        error["innererror"] = json!({ "code": inner });
    }
    json!({ "error": error })
}

/// Entra's shape; the code is `error`, or `error:number`.
pub(super) fn no_token(refused: &Refused) -> Value {
    let (error, number) = refused.code.split_once(':').unwrap_or((&refused.code, ""));
    let mut body = json!({
        "error": error, "error_description": refused.message, "timestamp": "2026-01-01 00:00:00Z",
        "trace_id": "00000000-0000-4000-8000-000000000000", "correlation_id": "00000000-0000-4000-8000-000000000000",
    });
    if let Ok(number) = number.parse::<u64>() {
        body["error_codes"] = json!([number]);
    }
    body
}

/// A token for an application.
pub(super) fn token(world: &mut World, ask: &Ask) -> Result<Value, Refused> {
    let parts = parts(ask);
    let [tenant, "oauth2", "v2.0", "token"] = parts[..] else {
        return Err(refuse(404, "not_found", "There is nothing here."));
    };
    let form: Vec<(String, String)> = url::form_urlencoded::parse(&ask.body).into_owned().collect();
    let field = |name: &str| form.iter().find(|(it, _)| it == name).map_or("", |(_, value)| value.as_str());
    if ask.method != "POST" || field("grant_type") != "client_credentials" {
        return Err(refuse(
            400,
            "unsupported_grant_type:70003",
            "AADSTS70003: The app requested an unsupported grant type.",
        ));
    }
    if field("scope") != "https://vault.azure.net/.default" {
        return Err(refuse(
            400,
            "invalid_scope:1002012",
            "AADSTS1002012: The provided value for scope is not valid.",
        ));
    }
    let client = field("client_id");
    let known = world.kms.azure_apps.get(client);
    if !world.kms.azure_apps.values().any(|app| app.tenant == tenant) {
        let message = format!(
            "AADSTS90002: Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud."
        );
        return Err(refuse(400, "invalid_request:90002", message));
    }
    let Some(app) = known.filter(|app| app.tenant == tenant) else {
        let message = format!(
            "AADSTS700016: Application with identifier '{client}' was not found in the directory '{tenant}'."
        );
        return Err(refuse(400, "unauthorized_client:700016", message));
    };
    let assertion = field("client_assertion");
    if !assertion.is_empty() {
        let kind = field("client_assertion_type") == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        if !kind || app.federated.as_deref() != Some(assertion) {
            return Err(refuse(
                401,
                "invalid_client:700213",
                "AADSTS700213: No matching federated identity record found for presented assertion subject.",
            ));
        }
    } else if app.secret.is_empty() || app.secret != field("client_secret") {
        let message = format!(
            "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{client}'."
        );
        return Err(refuse(401, "invalid_client:7000215", message));
    } else if app.expired {
        let message = format!(
            "AADSTS7000222: The provided client secret keys for app '{client}' are expired. Visit the Azure portal to create new keys for your app."
        );
        return Err(refuse(401, "invalid_client:7000222", message));
    }
    let token = opaque();
    world.kms.tokens.insert(token.clone(), (client.to_owned(), ask.now + Duration::from_secs(3599)));
    Ok(json!({ "token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": token }))
}

pub(super) fn handle(world: &mut World, ask: &Ask) -> Result<Value, Refused> {
    let token = ask.header("authorization").strip_prefix("Bearer ");
    let Some(token) = token else {
        return Err(refuse(401, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token."));
    };
    let live = world.kms.tokens.get(token).filter(|(_, until)| ask.now < *until);
    let Some((client, _)) = live.cloned() else {
        return Err(refuse(
            401,
            "Unauthorized",
            "AKV10046: Unable to resolve the key used for signature validation.",
        ));
    };
    let parts = parts(ask);
    let [vault, ref rest @ ..] = parts[..] else { return Err(nothing()) };
    if world.kms.firewalled.contains(vault) {
        let message = format!(
            "Client address is not authorized and caller is not a trusted service.\r\nClient address: 203.0.113.7\r\nCaller: appid={client}\r\nVault: {vault};location=westeurope"
        );
        return Err(Refused { inner: Some("ForbiddenByFirewall"), ..refuse(403, "Forbidden", message) });
    }
    if ask.query.get("api-version").is_none_or(String::is_empty) {
        return Err(refuse(400, "BadParameter", "api-version must be specified"));
    }
    let may = |action: &str| {
        if !world.is_denied(&format!("keys/{action}")) {
            return Ok(());
        }
        let message = format!(
            "The user, group or application 'appid={client};oid=00000000-0000-4000-8000-000000000000' does not have keys {action} permission on key vault '{vault};location=westeurope'. {HELP}"
        );
        Err(Refused { inner: Some("ForbiddenByPolicy"), ..refuse(403, "Forbidden", message) })
    };
    match *rest {
        ["keys", name, "versions"] if ask.method == "GET" => {
            may("list")?;
            list(world, ask, vault, name)
        }
        ["keys", name] if ask.method == "GET" => {
            may("get")?;
            let newest =
                versions(world, vault, name).into_iter().max_by_key(|(id, _)| created(&world.facts(id)));
            let (id, state) = newest.ok_or_else(|| not_found(name, ""))?;
            Ok(bundle(world, &id, state, ask.now))
        }
        ["keys", name, version] if ask.method == "GET" => {
            may("get")?;
            let (id, state) = one(world, vault, name, version)?;
            Ok(bundle(world, &id, state, ask.now))
        }
        ["keys", name, version, action @ ("encrypt" | "decrypt")] if ask.method == "POST" => {
            may(action)?;
            let (id, state) = one(world, vault, name, version)?;
            crypt(world, ask, &id, state, action)
        }
        _ => Err(nothing()),
    }
}

fn nothing() -> Refused {
    refuse(404, "NotFound", "There is nothing here.")
}

fn not_found(name: &str, version: &str) -> Refused {
    let message = format!(
        "A key with (name/id) {name}/{version} was not found in this key vault. If you recently deleted this key you may be able to recover it using the correct recovery command. {HELP}"
    );
    refuse(404, "KeyNotFound", message)
}

fn exists(state: KeyState) -> bool {
    !matches!(state, KeyState::Destroyed | KeyState::PendingDeletion)
}

fn versions(world: &World, vault: &str, name: &str) -> Vec<(String, KeyState)> {
    let start = format!("https://{vault}.vault.azure.net/keys/{name}/");
    let own = world.keys.iter().filter(|(id, state)| id.starts_with(&start) && exists(**state));
    own.map(|(id, state)| (id.clone(), *state)).collect()
}

fn one(world: &World, vault: &str, name: &str, version: &str) -> Result<(String, KeyState), Refused> {
    let id = format!("https://{vault}.vault.azure.net/keys/{name}/{version}");
    match world.keys.get(&id).copied().filter(|state| exists(*state)) {
        Some(state) => Ok((id, state)),
        None => Err(not_found(name, version)),
    }
}

fn attributes(world: &World, id: &str, state: KeyState, now: Timestamp) -> Value {
    let facts = world.facts(id);
    let created = seconds(created(&facts));
    let mut attributes = json!({
        "enabled": state != KeyState::Disabled, "created": created, "updated": created,
        "recoveryLevel": "Recoverable+Purgeable", "recoverableDays": 90, "exportable": false,
    });
    let (not_before, expires) = dates(world, id, state, now);
    if let Some(at) = not_before {
        attributes["nbf"] = json!(seconds(at));
    }
    if let Some(at) = expires {
        attributes["exp"] = json!(seconds(at));
    }
    attributes
}

/// The start and the end of a version's use.
fn dates(world: &World, id: &str, state: KeyState, now: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
    let facts = world.facts(id);
    let not_before = facts.not_before.or_else(|| (state == KeyState::NotYetActive).then(|| now + DAY));
    let expires = facts.expires.or_else(|| match state {
        KeyState::Expiring => Some(now + DAY),
        KeyState::Expired => Some(created(&facts)),
        _ => None,
    });
    (not_before, expires)
}

fn bundle(world: &World, id: &str, state: KeyState, now: Timestamp) -> Value {
    let facts = world.facts(id);
    let ops = facts.operations.unwrap_or_else(|| {
        ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"].map(str::to_owned).to_vec()
    });
    json!({
        "key": { "kid": id, "kty": facts.kind.as_deref().unwrap_or("RSA"), "key_ops": ops, "n": "AQAB", "e": "AQAB" },
        "attributes": attributes(world, id, state, now),
        "tags": {},
    })
}

fn list(world: &World, ask: &Ask, vault: &str, name: &str) -> Result<Value, Refused> {
    let all = versions(world, vault, name);
    if all.is_empty() {
        return Err(not_found(name, ""));
    }
    let number = |name: &str| ask.query.get(name).and_then(|text| text.parse::<usize>().ok());
    let size = number("maxresults").unwrap_or(25).min(world.kms.page).max(1);
    let start = number("$skiptoken").unwrap_or(0);
    let shown = all.iter().skip(start).take(size);
    let value: Vec<Value> = shown
        .map(|(id, state)| json!({ "kid": id, "attributes": attributes(world, id, *state, ask.now), "tags": {} }))
        .collect();
    let next = (start + size < all.len()).then(|| {
        let here = format!("http://{}", ask.header("host"));
        let at = world.kms.next_page_at.as_deref().unwrap_or(&here);
        let version = ask.query.get("api-version").map_or("", String::as_str);
        format!("{at}/kms/azure/{vault}/keys/{name}/versions?api-version={version}&$skiptoken={}&maxresults={size}", start + size)
    });
    Ok(json!({ "value": value, "nextLink": next }))
}

fn crypt(world: &World, ask: &Ask, id: &str, state: KeyState, action: &str) -> Result<Value, Refused> {
    let forbidden = |inner, what: &str| Refused {
        inner: Some(inner),
        ..refuse(403, "Forbidden", format!("Operation {action} is not allowed on {what} key."))
    };
    let (not_before, expires) = dates(world, id, state, ask.now);
    if state == KeyState::Disabled {
        return Err(forbidden("KeyDisabled", "a disabled"));
    }
    if not_before.is_some_and(|at| ask.now < at) {
        return Err(forbidden("KeyNotYetValid", "a not yet valid"));
    }
    // Old data must stay readable: an expired key still decrypts.
    if action == "encrypt" && expires.is_some_and(|at| at <= ask.now) {
        return Err(forbidden("KeyExpired", "an expired"));
    }
    if world.facts(id).operations.is_some_and(|ops| !ops.iter().any(|op| op == action)) {
        return Err(Refused {
            inner: Some("KeyOperationForbidden"),
            ..refuse(403, "Forbidden", format!("Operation {action} is not permitted on this key."))
        });
    }
    let body = object(ask);
    let alg = body["alg"].as_str().unwrap_or_default();
    if !matches!(alg, "RSA-OAEP-256" | "RSA-OAEP" | "RSA1_5") {
        return Err(refuse(400, "BadParameter", format!("{alg:?} is no algorithm of this key.")));
    }
    let value = body["value"].as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let value = value.ok_or_else(|| refuse(400, "BadParameter", "value is no base64url text."))?;
    let done = if action == "encrypt" { seal(id, alg, &value) } else { open(id, alg, &value) };
    let done = done.ok_or_else(|| refuse(400, "BadParameter", "The parameter is incorrect."))?;
    Ok(json!({ "kid": id, "value": URL_SAFE_NO_PAD.encode(done) }))
}
