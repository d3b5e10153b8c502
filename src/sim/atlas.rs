//! The Atlas side: log-in, projects, clusters, alerts, and encryption at rest with its validation.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Shared;
use super::fault::{self, Kind};
use super::wire::Kill;
use super::world::{KeyState, World, names};
use crate::domain::time::Timestamp;

/// Live tokens a service account may have; beyond that Atlas answers 403.
const MAX_TOKENS: usize = 100;

/// A refusal in Atlas' own shape.
struct Refusal(StatusCode, &'static str, String);

type Answer = Result<Value, Refusal>;

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Refusal(status, code, detail) = self;
        let body = json!({
            "error": status.as_u16(), "errorCode": code, "detail": detail,
            "reason": status.canonical_reason(), "parameters": [],
        });
        let headers = [
            (header::CONTENT_TYPE, "application/json"),
            (header::HeaderName::from_static("x-error-code"), code),
        ];
        (status, headers, body.to_string()).into_response()
    }
}

fn refuse(status: u16, code: &'static str, detail: impl Into<String>) -> Refusal {
    Refusal(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), code, detail.into())
}

fn http_date(at: Timestamp) -> String {
    at.as_chrono().format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Log, fault, handle, answer: the way of every request.
async fn serve(
    sim: &Shared,
    kill: &Kill,
    operation: &str,
    group: Option<&str>,
    headers: &HeaderMap,
    key: Option<String>,
    handle: impl FnOnce(&mut World, Timestamp) -> Answer + Send + 'static,
) -> Response {
    let (index, fault) = {
        let now = sim.clock.now();
        let mut world = sim.world();
        let index = world.note(now, operation, group, key);
        (index, fault::strike(&mut world.faults, operation, group))
    };
    if let Some(Kind::Delay(ms)) = fault {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    match &fault {
        Some(Kind::DropRequest) => {
            kill.cut();
            return StatusCode::OK.into_response();
        }
        Some(Kind::LateApply(ms)) => {
            kill.cut();
            let (later, sim, ms) = (sim.clone(), sim.clone(), *ms);
            later.tasks.spawn(async move {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                let now = sim.clock.now();
                let mut world = sim.world();
                if handle(&mut world, now).is_ok()
                    && let Some(entry) = world.log.get_mut(index)
                {
                    entry.applied_at = Some(now);
                }
            });
            return StatusCode::OK.into_response();
        }
        Some(Kind::Status { status, code, retry_after }) => {
            return scripted(sim, index, *status, code.as_deref(), *retry_after);
        }
        _ => {}
    }
    let now = sim.clock.now();
    let answer = {
        let mut world = sim.world();
        allowed(&mut world, headers, operation, now).and_then(|()| handle(&mut world, now))
    };
    let applied = answer.is_ok();
    let mut response = match answer {
        Ok(body) => body_of(&body, operation, headers),
        Err(refusal) => refusal.into_response(),
    };
    response.headers_mut().insert(
        header::DATE,
        header::HeaderValue::from_str(&http_date(now))
            .unwrap_or_else(|_| header::HeaderValue::from_static("")),
    );
    match fault {
        Some(Kind::DropReply) => kill.cut(),
        Some(Kind::AppliedStatus(status)) => {
            *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        }
        Some(Kind::Truncate) => {
            response.headers_mut().insert(header::CONTENT_LENGTH, header::HeaderValue::from_static("4096"));
        }
        _ => {}
    }
    let mut world = sim.world();
    if let Some(entry) = world.log.get_mut(index) {
        entry.applied_at = applied.then_some(now);
        entry.replied_at = Some(sim.clock.now());
        entry.status = Some(response.status().as_u16());
    }
    response
}

fn scripted(
    sim: &Shared,
    index: usize,
    status: u16,
    code: Option<&str>,
    retry_after: Option<u64>,
) -> Response {
    let now = sim.clock.now();
    if let Some(entry) = sim.world().log.get_mut(index) {
        entry.replied_at = Some(now);
        entry.status = Some(status);
    }
    let (kind, body) = match code {
        Some(code) => (
            "application/json",
            json!({ "error": status, "errorCode": code, "detail": "scripted by the simulator" }).to_string(),
        ),
        None => ("text/html", "<html><body><h1>scripted by the simulator</h1></body></html>".to_owned()),
    };
    let mut response = (
        StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY),
        [(header::CONTENT_TYPE, kind)],
        body,
    )
        .into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from(seconds));
    }
    response
}

fn body_of(body: &Value, operation: &str, headers: &HeaderMap) -> Response {
    let wanted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let served = if operation == "get_clusters" { "2024-08-05" } else { "2023-01-01" };
    let kind = if wanted.starts_with("application/vnd.atlas") {
        format!("application/vnd.atlas.{served}+json;charset=utf-8")
    } else {
        "application/json".to_owned()
    };
    ([(header::CONTENT_TYPE, kind)], Body::from(body.to_string())).into_response()
}

/// A live bearer token and a version in `Accept`.
fn allowed(world: &mut World, headers: &HeaderMap, operation: &str, now: Timestamp) -> Result<(), Refusal> {
    if operation == "token" {
        return Ok(());
    }
    let text = |name| {
        headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok()).unwrap_or_default()
    };
    let token = text(header::AUTHORIZATION).strip_prefix("Bearer ").unwrap_or_default();
    if world.tokens.get(token).is_none_or(|until| now >= *until) {
        return Err(refuse(401, "UNEXPECTED_ERROR", "You are not authorized for this resource."));
    }
    let version = text(header::ACCEPT)
        .strip_prefix("application/vnd.atlas.")
        .and_then(|rest| rest.strip_suffix("+json"));
    match version {
        None => Err(refuse(400, "INVALID_VERSION_DATE", "The Accept header names no version.")),
        Some(date) if date.parse::<chrono::NaiveDate>().is_err() || date < "2023-01-01" => {
            Err(refuse(406, "INVALID_VERSION_DATE", "No such version."))
        }
        Some(_) => Ok(()),
    }
}

pub(super) async fn token(
    State(sim): State<Shared>,
    ConnectInfo(kill): ConnectInfo<Kill>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let basic = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Basic "));
    let pair = basic
        .and_then(|text| STANDARD.decode(text).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or_default();
    let good_form = body.as_ref() == b"grant_type=client_credentials";
    let oauth = |status: StatusCode, error: &str, text: &str| {
        (status, axum::Json(json!({ "error": error, "error_description": text }))).into_response()
    };
    let known = {
        let mut world = sim.world();
        let now = sim.clock.now();
        world.tokens.retain(|_, until| now < *until);
        if world.tokens.len() >= MAX_TOKENS {
            return oauth(StatusCode::FORBIDDEN, "access_denied", "Too many live tokens.");
        }
        pair.split_once(':')
            .is_some_and(|(id, secret)| world.service_accounts.get(id).is_some_and(|it| it == secret))
    };
    if !good_form {
        return oauth(
            StatusCode::BAD_REQUEST,
            "unsupported_grant_type",
            "Only client_credentials is supported.",
        );
    }
    if !known {
        return oauth(StatusCode::UNAUTHORIZED, "invalid_client", "Invalid credentials provided.");
    }
    serve(&sim, &kill, "token", None, &headers, None, |world, now| {
        let token = opaque();
        world.tokens.insert(token.clone(), now + Duration::from_secs(world.token_life.max(1)));
        Ok(json!({ "access_token": token, "expires_in": world.token_life.max(1), "token_type": "Bearer" }))
    })
    .await
}

/// Tokens are opaque; any text that cannot be guessed does.
fn opaque() -> String {
    let mut bits = [0u8; 24];
    // A simulator without randomness still works, its tokens only repeat.
    let _ = aws_lc_rs::rand::fill(&mut bits);
    hex::encode(bits)
}

fn find<'a>(world: &'a mut World, group: &str) -> Result<&'a mut super::world::Project, Refusal> {
    if group.len() != 24 || !group.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(refuse(404, "INVALID_GROUP_ID", format!("An invalid group ID {group} was specified.")));
    }
    world
        .projects
        .get_mut(group)
        .ok_or_else(|| refuse(404, "GROUP_NOT_FOUND", format!("Cannot find a group with ID {group}.")))
}

pub(super) async fn groups(
    State(sim): State<Shared>,
    ConnectInfo(kill): ConnectInfo<Kill>,
    headers: HeaderMap,
) -> Response {
    serve(&sim, &kill, "get_groups", None, &headers, None, |world, _| {
        let results: Vec<_> = world
            .projects
            .iter()
            .map(|(id, it)| json!({ "id": id, "name": it.name, "clusterCount": it.clusters.len() }))
            .collect();
        Ok(json!({ "links": [], "totalCount": results.len(), "results": results }))
    })
    .await
}

pub(super) async fn group(
    State(sim): State<Shared>,
    ConnectInfo(kill): ConnectInfo<Kill>,
    Path(group): Path<String>,
    headers: HeaderMap,
) -> Response {
    let id = group.clone();
    serve(&sim, &kill, "get_group", Some(&group), &headers, None, move |world, _| {
        let project = find(world, &id)?;
        Ok(json!({ "id": id, "name": project.name, "clusterCount": project.clusters.len(), "links": [] }))
    })
    .await
}

pub(super) async fn clusters(
    State(sim): State<Shared>,
    ConnectInfo(kill): ConnectInfo<Kill>,
    Path(group): Path<String>,
    headers: HeaderMap,
) -> Response {
    let id = group.clone();
    serve(&sim, &kill, "get_clusters", Some(&group), &headers, None, move |world, now| {
        let project = find(world, &id)?;
        let provider = if project.provider.is_empty() { "NONE" } else { &project.provider };
        let results: Vec<_> = project
            .clusters
            .iter()
            .map(|it| {
                json!({
                    "name": it.name, "paused": it.paused, "encryptionAtRestProvider": provider,
                    "stateName": project.cluster_state(it, now), "clusterType": "REPLICASET",
                })
            })
            .collect();
        Ok(json!({ "links": [], "totalCount": results.len(), "results": results }))
    })
    .await
}

pub(super) async fn alerts(
    State(sim): State<Shared>,
    ConnectInfo(kill): ConnectInfo<Kill>,
    Path(group): Path<String>,
    headers: HeaderMap,
) -> Response {
    let id = group.clone();
    serve(&sim, &kill, "get_alerts", Some(&group), &headers, None, move |world, _| {
        let project = find(world, &id)?;
        let results: Vec<_> = project
            .open_alerts
            .iter()
            .map(|name| json!({ "id": "66f0a1b2c3d4e5f60718293a", "groupId": id, "eventTypeName": name, "status": "OPEN" }))
            .collect();
        Ok(json!({ "links": [], "totalCount": results.len(), "results": results }))
    })
    .await
}

pub(super) async fn encryption(
    State(sim): State<Shared>,
    ConnectInfo(kill): ConnectInfo<Kill>,
    Path(group): Path<String>,
    headers: HeaderMap,
) -> Response {
    let id = group.clone();
    serve(&sim, &kill, "get_ear", Some(&group), &headers, None, move |world, now| shown(world, &id, now))
        .await
}

/// The configuration as a GET shows it: all three blocks, the unconfigured ones disabled.
fn shown(world: &mut World, group: &str, now: Timestamp) -> Answer {
    let project = find(world, group)?;
    let stale = project
        .changed
        .as_ref()
        .filter(|(at, _)| now.since(*at) < Duration::from_millis(project.stale_read_ms))
        .map(|(_, key)| key.clone());
    let key = stale.unwrap_or_else(|| project.key());
    let scripted = match project.valid_sequence.len() {
        0 => None,
        1 => Some(project.valid_sequence[0]),
        _ => Some(project.valid_sequence.remove(0)),
    };
    let (provider, mut block) = (project.provider.clone(), project.block.clone());
    let valid = scripted.unwrap_or_else(|| Some(world.usable(&key)));
    let mut body = Map::new();
    for name in ["AWS", "AZURE", "GCP"] {
        let Some((block_name, field)) = names(name) else { continue };
        if name == provider {
            block.insert(field.to_owned(), json!(key));
            for secret in ["secretAccessKey", "secret", "serviceAccountKey"] {
                block.remove(secret);
            }
            if let Some(valid) = valid {
                block.insert("valid".to_owned(), json!(valid));
            }
            body.insert(block_name.to_owned(), Value::Object(block.clone()));
        } else {
            body.insert(block_name.to_owned(), json!({ "enabled": false }));
        }
    }
    body.insert("enabledForSearchNodes".to_owned(), json!(false));
    Ok(Value::Object(body))
}

pub(super) async fn change(
    State(sim): State<Shared>,
    ConnectInfo(kill): ConnectInfo<Kill>,
    Path(group): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let parsed: Result<Value, _> = serde_json::from_slice(&body);
    let key = parsed.as_ref().ok().and_then(|body| {
        ["AWS", "AZURE", "GCP"].into_iter().find_map(|name| {
            let (block, field) = names(name)?;
            body.get(block)?.get(field)?.as_str().map(str::to_owned)
        })
    });
    let id = group.clone();
    serve(&sim, &kill, "patch_ear", Some(&group), &headers, key, move |world, now| {
        let body = parsed.map_err(|_| refuse(400, "MALFORMED_JSON", "Received JSON is malformed."))?;
        apply(world, &id, &body, now)?;
        shown(world, &id, now)
    })
    .await
}

fn apply(world: &mut World, group: &str, body: &Value, now: Timestamp) -> Result<(), Refusal> {
    let blocks = body.as_object().ok_or_else(|| refuse(400, "INVALID_JSON", "The body is not an object."))?;
    let project = find(world, group)?;
    let (current, provider) = (project.key(), project.provider.clone());
    let (own, field) = names(&provider).ok_or_else(|| {
        refuse(409, "CANNOT_ROTATE_KEY_ENCRYPTION_DISABLED", "Encryption at rest is not enabled.")
    })?;
    for (name, value) in blocks {
        if name == "enabledForSearchNodes" && value.is_boolean() {
            continue;
        }
        let known = names("AWS").is_some_and(|it| it.0 == name)
            || names("AZURE").is_some_and(|it| it.0 == name)
            || names("GCP").is_some_and(|it| it.0 == name);
        let fields = value.as_object().filter(|_| known);
        let fields = fields.ok_or_else(|| {
            refuse(400, "INVALID_ATTRIBUTE", format!("Invalid attribute {name} specified."))
        })?;
        check_fields(name, fields)?;
        if name != own && fields.get("enabled") == Some(&json!(true)) {
            return Err(refuse(
                409,
                "CANNOT_CHANGE_ENCRYPTION_AT_REST_PROVIDER",
                "Disable encryption at rest before changing its provider.",
            ));
        }
    }
    let Some(fields) = blocks.get(own).and_then(Value::as_object) else { return Ok(()) };
    if fields.get("enabled") == Some(&json!(false)) {
        return Err(refuse(
            409,
            "CANNOT_DISABLE_ENCRYPTION_AT_REST",
            "A cluster still uses encryption at rest.",
        ));
    }
    let change_while_invalid = project.change_while_invalid;
    let region = project
        .block
        .get("region")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_ascii_lowercase()
        .replace('_', "-");
    let vault = project.block.get("keyVaultName").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(key) = fields.get(field).and_then(Value::as_str) else { return Ok(()) };
    if !world.usable(&current) && !change_while_invalid {
        return Err(refuse(
            400,
            "ENCRYPTION_AT_REST_SETTINGS_INVALID",
            "The current encryption at rest settings are invalid; restore access to the current key first.",
        ));
    }
    check_key(&provider, key, &region, &vault)?;
    check_state(&provider, world.state(key))?;
    let project = find(world, group)?;
    if project.key() != key {
        project.set_key(key, now);
    }
    Ok(())
}

/// Field names and types of each block, as the published schema has them.
fn check_fields(block: &str, fields: &Map<String, Value>) -> Result<(), Refusal> {
    let texts: &[&str] = match block {
        "awsKms" => &["accessKeyID", "secretAccessKey", "customerMasterKeyID", "region", "roleId"],
        "azureKeyVault" => &[
            "azureEnvironment",
            "clientID",
            "tenantID",
            "subscriptionID",
            "keyIdentifier",
            "keyVaultName",
            "resourceGroupName",
            "roleId",
            "secret",
        ],
        _ => &["keyVersionResourceID", "serviceAccountKey", "roleId"],
    };
    for (name, value) in fields {
        let good = match name.as_str() {
            "enabled" | "valid" | "requirePrivateNetworking" => value.is_boolean(),
            "roleId" => value
                .as_str()
                .is_some_and(|text| text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit())),
            "azureEnvironment" => {
                matches!(value.as_str(), Some("AZURE" | "AZURE_CHINA" | "AZURE_US_GOVERNMENT"))
            }
            name if texts.contains(&name) => value.is_string(),
            _ => {
                return Err(refuse(400, "INVALID_ATTRIBUTE", format!("Invalid attribute {name} specified.")));
            }
        };
        if !good {
            return Err(refuse(400, "INVALID_ATTRIBUTE", format!("Invalid value for attribute {name}.")));
        }
    }
    Ok(())
}

fn check_key(provider: &str, key: &str, region: &str, vault: &str) -> Result<(), Refusal> {
    match provider {
        "AWS" if key.starts_with("arn:") && !key.contains(&format!(":kms:{region}:")) => {
            Err(refuse(400, "AWS_KMS_REGION_NOT_SUPPORTED", "The key is not in the configured region."))
        }
        "AZURE" if !key.starts_with("https://") || key.split('/').count() < 6 => Err(refuse(
            400,
            "AZURE_KEY_VAULT_KEY_IDENTIFIER_INVALID_FORMAT",
            "The key identifier is malformed.",
        )),
        "AZURE"
            if !key.to_ascii_lowercase().starts_with(&format!("https://{}.", vault.to_ascii_lowercase())) =>
        {
            Err(refuse(400, "INVALID_AZURE_API_REQUEST", "The key is not in the configured vault."))
        }
        _ => Ok(()),
    }
}

fn check_state(provider: &str, state: Option<KeyState>) -> Result<(), Refusal> {
    use KeyState as K;
    let (status, code) = match (provider, state) {
        (_, Some(K::Enabled | K::FailsOnNodes)) | ("AWS" | "GCP", Some(K::Expiring)) => return Ok(()),
        (_, Some(K::NoPermission)) => (400, "NO_PERMISSION_TO_ENCRYPT_DECRYPT"),
        ("AWS", None | Some(K::Destroyed)) => (404, "AWS_CUSTOMER_MASTER_KEY_NOT_FOUND"),
        ("AWS", Some(K::PendingDeletion)) => (400, "AWS_KMS_CUSTOMER_MASTER_KEY_PENDING_DELETION"),
        ("AWS", _) => (400, "AWS_KMS_CUSTOMER_MASTER_KEY_NOT_ENABLED"),
        ("AZURE", None | Some(K::Destroyed)) => (400, "AZURE_KEY_VAULT_KEY_NOT_FOUND"),
        ("AZURE", Some(K::Expiring)) => (400, "AZURE_KEY_VAULT_KEY_EXPIRING"),
        ("AZURE", _) => (400, "AZURE_KEY_VAULT_KEY_NOT_ENABLED"),
        (_, None) => (400, "GOOGLE_CLOUD_KMS_KEY_VERSION_NOT_FOUND"),
        (_, Some(K::Destroyed)) => (400, "GOOGLE_CLOUD_KMS_KEY_VERSION_DESTROYED"),
        (_, Some(K::PendingDeletion)) => (400, "GOOGLE_CLOUD_KMS_KEY_VERSION_DESTROY_SCHEDULED"),
        (_, _) => (400, "GOOGLE_CLOUD_KMS_KEY_VERSION_DISABLED"),
    };
    Err(refuse(status, code, "The key service refuses this key."))
}
