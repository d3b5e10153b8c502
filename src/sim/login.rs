//! Admission of requests: tokens of service accounts, API keys, access lists, versions, limits and
//! roles.
//!
//! Atlas answers every failed log-in with a 401 without a useful code; only roles have codes.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::answer::{Refusal, SimReply, SimResult, oauth, refuse, unauthorized};
use super::ask::Ask;
use super::ids::opaque;
use super::operation::{Operation, asked_version};
use super::world::{Role, World};
use super::{digest, limits};

/// Live tokens a service account may have; beyond that Atlas answers 403.
const MAX_TOKENS: usize = 100;

/// Limit and remainder of the rate limit that applies, or a refusal.
pub(super) type Admission = Result<Option<(u32, u32)>, Refusal>;

/// The credential that a request names, verified or not; never a secret.
pub(super) fn claimed(world: &World, ask: &Ask) -> Option<String> {
    let header = ask.header("authorization");
    if let Some(token) = header.strip_prefix("Bearer ") {
        return world.tokens.get(token).map(|(client, _)| client.clone());
    }
    if let Some(pair) = header.strip_prefix("Basic ") {
        return basic(pair).map(|(id, _)| id).filter(|id| world.service_accounts.contains_key(id));
    }
    digest::username(header).filter(|name| world.api_keys.contains_key(name))
}

/// Admits a request, or returns the refusal.
pub(super) fn admit(world: &mut World, ask: &Ask, ip: IpAddr, operation: Operation) -> Admission {
    if operation.versions.is_empty() {
        return Ok(None);
    }
    authenticate(world, ask)?;
    if !world.access_list.is_empty() && !world.access_list.iter().any(|it| *it == ip.to_string()) {
        return Err(refuse(403, "IP_ADDRESS_NOT_ON_ACCESS_LIST", format!("{ip} is not on the access list."))
            .about(ip.to_string()));
    }
    let accept = ask.header("accept");
    match asked_version(accept) {
        None => return Err(refuse(400, "INVALID_VERSION_DATE", "The Accept header names no version.")),
        Some(date) if date.len() != 10 || date.parse::<chrono::NaiveDate>().is_err() => {
            return Err(refuse(406, "INVALID_VERSION_DATE", "The version is no date.").about(date));
        }
        Some(date) if operation.served(accept).is_none() => {
            return Err(refuse(406, "INVALID_VERSION_DATE", "There is no version that old.").about(date));
        }
        Some(_) => {}
    }
    let standing = limits::take(world, ask, operation)?;
    let project = ask.group().and_then(|group| world.projects.get(group));
    match project.map(|project| world.role(&ask.who, project)) {
        Some(Role::None) => {
            Err(refuse(401, "USER_CANNOT_ACCESS_GROUP", "The credential has no access to this project.")
                .about(ask.param("group")))
        }
        Some(Role::ReadOnly) if operation.writes => {
            Err(refuse(403, "USER_UNAUTHORIZED", "The credential lacks the role for this."))
        }
        _ => Ok(standing),
    }
}

fn authenticate(world: &mut World, ask: &Ask) -> Result<(), Refusal> {
    let header = ask.header("authorization");
    if header.starts_with("Digest ") {
        return digest::verify(world, ask);
    }
    let Some(token) = header.strip_prefix("Bearer ") else {
        return Err(digest::challenge(world, ask, false));
    };
    let live = world
        .tokens
        .get(token)
        .is_some_and(|(client, until)| ask.now < *until && !world.revoked.contains(client));
    if live { Ok(()) } else { Err(unauthorized()) }
}

/// A token for a service account.
pub(super) fn token(world: &mut World, ask: &Ask) -> SimResult {
    let kind = ask.header("content-type").split(';').next().unwrap_or_default().trim();
    if kind != "application/x-www-form-urlencoded" {
        return Err(oauth(400, "invalid_request", "The body must be a form."));
    }
    let form: Vec<(String, String)> = url::form_urlencoded::parse(&ask.body).into_owned().collect();
    let grant = form.iter().find(|(name, _)| name == "grant_type").map(|(_, value)| value.as_str());
    match grant {
        None => return Err(oauth(400, "invalid_request", "grant_type is missing.")),
        Some("client_credentials") => {}
        Some(_) => {
            return Err(oauth(400, "unsupported_grant_type", "Only client_credentials is supported."));
        }
    }
    let known = ask
        .header("authorization")
        .strip_prefix("Basic ")
        .and_then(basic)
        .filter(|(id, secret)| world.service_accounts.get(id).is_some_and(|it| it == secret))
        .filter(|(id, _)| !world.revoked.contains(id));
    let Some((client, _)) = known else {
        return Err(oauth(401, "invalid_client", "Invalid credentials provided."));
    };
    world.tokens.retain(|_, (_, until)| ask.now < *until);
    if world.tokens.values().filter(|(owner, _)| *owner == client).count() >= MAX_TOKENS {
        return Err(oauth(403, "access_denied", "Too many live tokens."));
    }
    let (token, life) = (opaque(), world.token_life.max(1));
    world.tokens.insert(token.clone(), (client, ask.now + Duration::from_secs(life)));
    Ok(SimReply::One(json!({ "access_token": token, "expires_in": life, "token_type": "Bearer" })))
}

/// Id and secret of a Basic header; both are sent form-encoded (RFC 6749, 2.3.1).
fn basic(text: &str) -> Option<(String, String)> {
    let pair = String::from_utf8(STANDARD.decode(text).ok()?).ok()?;
    let form = pair.replacen(':', "=", 1);
    url::form_urlencoded::parse(form.as_bytes()).next().map(|(id, secret)| (id.into(), secret.into()))
}
