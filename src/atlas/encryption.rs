//! A project's `encryptionAtRest`: observing it, and setting its key.
//!
//! An observation is always a GET: the reply to a PATCH is never taken for the state of the project.
//! Unknown fields and values are skipped. A known field of the wrong type makes the whole reply
//! unreadable, because half of an observation is a guess. `valid` is never sent, and neither is a static
//! secret where Atlas uses a role.

use reqwest::Method;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;

use super::client::{Broken, Deadline, Request};
use super::error::{failure, told, unreadable};
use super::response::AtlasResponse;
use super::{Atlas, error};
use crate::config::PatchBody;
use crate::domain::ids::GroupId;
use crate::domain::key::{KeyRef, Place, Provider, aws_region};
use crate::domain::rotation::outcome::{Class, EndpointSet, Failure, Observation, PatchReply};

/// The only version in which this resource exists.
pub(super) const V2023: &str = "application/vnd.atlas.2023-01-01+json";

/// Logins that Atlas takes from the block itself, and that a role replaces.
const STATIC_SECRETS: [&str; 4] = ["accessKeyID", "secretAccessKey", "secret", "serviceAccountKey"];

type Block = Map<String, Value>;

impl Atlas {
    /// Observes the project's encryption configuration.
    ///
    /// # Errors
    /// Fails when no readable reply came within `timeout`, or Atlas refused.
    pub async fn observe(
        &self,
        credential: &str,
        group: &GroupId,
        timeout: Duration,
    ) -> Result<Observation, Failure> {
        let answer = self.read(credential, group, Deadline::after(timeout)).await;
        observation(&answer.map_err(Broken::into_failure)?)
    }

    /// Sends one PATCH that sets the project's key, and returns its outcome. The reply is about the
    /// request only; the next observation shows the project's key.
    pub async fn set_key(
        &self,
        credential: &str,
        group: &GroupId,
        key: &KeyRef,
        timeout: Duration,
    ) -> PatchReply {
        let deadline = Deadline::after(timeout);
        let body = match self.patch_body {
            PatchBody::KeyOnly => key_only(key),
            PatchBody::WholeBlock => match self.whole_block(credential, group, key, deadline).await {
                Ok(body) => body,
                Err(failure) => return unsent(failure),
            },
        };
        let request = Request {
            method: Method::PATCH,
            path: path(group),
            accept: V2023,
            body: Some((V2023, body.to_string().into_bytes())),
        };
        reply(self.call(credential, EndpointSet::Encryption, &request, deadline).await)
    }

    async fn read(
        &self,
        credential: &str,
        group: &GroupId,
        deadline: Deadline,
    ) -> Result<AtlasResponse, Broken> {
        let request = Request { method: Method::GET, path: path(group), accept: V2023, body: None };
        self.call(credential, EndpointSet::Encryption, &request, deadline).await
    }

    async fn whole_block(
        &self,
        credential: &str,
        group: &GroupId,
        key: &KeyRef,
        deadline: Deadline,
    ) -> Result<Value, Failure> {
        let answer = self.read(credential, group, deadline).await.map_err(Broken::into_failure)?;
        let provider = key.provider();
        match enabled(&answer)?.into_iter().next() {
            Some((found, block)) if found == provider => Ok(replaced(key, block)),
            _ => Err(told(
                Class::Config,
                format!("nothing was sent: Atlas no longer encrypts this project with a key of {provider}"),
            )),
        }
    }
}

fn path(group: &GroupId) -> String {
    format!("/api/atlas/v2/groups/{group}/encryptionAtRest")
}

fn key_only(key: &KeyRef) -> Value {
    let provider = key.provider();
    json!({ provider.block(): { provider.key_field(): key.to_string() } })
}

fn replaced(key: &KeyRef, mut block: Block) -> Value {
    let provider = key.provider();
    block.remove("valid");
    // In a reply, null and absent mean the same; in a PATCH, a null may unset a field.
    block.retain(|_, value| !value.is_null());
    if block.contains_key("roleId") {
        block.retain(|name, _| !STATIC_SECRETS.contains(&name.as_str()));
    }
    block.insert(provider.key_field().to_owned(), Value::String(key.to_string()));
    json!({ provider.block(): block })
}

/// The outcome of a PATCH.
fn reply(result: Result<AtlasResponse, Broken>) -> PatchReply {
    let answer = match result {
        Ok(answer) if answer.is_success() => return PatchReply::Accepted,
        Ok(answer) => answer,
        Err(Broken::NotSent(failure)) => return unsent(failure),
        Err(Broken::Unanswered(failure)) => return PatchReply::Unknown(failure),
    };
    let failure = failure(&answer);
    match failure.class {
        Class::Transient | Class::TooOld => PatchReply::NotTaken(failure),
        Class::BadKey | Class::Refused | Class::Config => PatchReply::Refused(failure),
        Class::Auth => PatchReply::Auth(failure),
        Class::Gone => PatchReply::Gone(failure),
        Class::Unknown => PatchReply::Unknown(failure),
    }
}

/// The outcome of a PATCH that was not sent.
fn unsent(failure: Failure) -> PatchReply {
    match failure.class {
        Class::Auth => PatchReply::Auth(failure),
        Class::Gone => PatchReply::Gone(failure),
        _ => PatchReply::NotTaken(failure),
    }
}

pub(super) fn observation(answer: &AtlasResponse) -> Result<Observation, Failure> {
    let mut blocks = enabled(answer)?.into_iter();
    let found = blocks.next();
    let mut invalid_beside = None;
    for (provider, block) in blocks {
        let key = text_field(answer, &block, provider.key_field())?;
        if let (Some(key), Some(false)) = (key, flag(answer, &block, "valid")?) {
            invalid_beside.get_or_insert(KeyRef::observed(provider, key));
        }
    }
    let provider = found.as_ref().map(|(provider, _)| *provider);
    let block = found.map(|(_, block)| block).unwrap_or_default();
    let text = |name: &str| text_field(answer, &block, name);
    let key = match provider {
        Some(provider) => text(provider.key_field())?.map(|key| KeyRef::observed(provider, key)),
        None => None,
    };
    let place = match provider {
        Some(Provider::Aws) => Place { aws_region: text("region")?.and_then(aws_region), azure_vault: None },
        Some(Provider::Azure) => {
            Place { aws_region: None, azure_vault: text("keyVaultName")?.map(str::to_owned) }
        }
        Some(Provider::Gcp) | None => Place::default(),
    };
    Ok(Observation {
        at: answer.at,
        provider,
        key,
        valid: flag(answer, &block, "valid")?,
        private_networking: flag(answer, &block, "requirePrivateNetworking")?.unwrap_or(false),
        place,
        block_hash: block_hash(provider, &block),
        skew_ms: answer.skew_ms,
        invalid_beside,
    })
}

/// The enabled providers and their blocks, in Atlas' order. The first is the one in force.
fn enabled(answer: &AtlasResponse) -> Result<Vec<(Provider, Block)>, Failure> {
    let Value::Object(mut config) = error::json(answer)? else {
        return Err(unreadable(answer.status, "Atlas' reply is no encryption configuration"));
    };
    // A `{}` from a proxy in Atlas' place must not be read as "encryption was disabled".
    if !Provider::ALL.iter().any(|provider| config.contains_key(provider.block())) {
        return Err(unreadable(answer.status, "Atlas' reply names no provider of keys"));
    }
    let mut found = Vec::new();
    for provider in Provider::ALL {
        match config.remove(provider.block()) {
            None | Some(Value::Null) => {}
            Some(Value::Object(block)) => {
                if flag(answer, &block, "enabled")? == Some(true) {
                    found.push((provider, block));
                }
            }
            Some(_) => {
                return Err(unreadable(
                    answer.status,
                    format!("{} in Atlas' reply is no object", provider.block()),
                ));
            }
        }
    }
    Ok(found)
}

fn flag(answer: &AtlasResponse, block: &Block, name: &str) -> Result<Option<bool>, Failure> {
    match block.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(_) => {
            Err(unreadable(answer.status, format!("{name} in Atlas' reply is neither true nor false")))
        }
    }
}

fn text_field<'a>(answer: &AtlasResponse, block: &'a Block, name: &str) -> Result<Option<&'a str>, Failure> {
    match block.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(value)) => Ok(Some(value.as_str()).filter(|value| !value.trim().is_empty())),
        Some(_) => Err(unreadable(answer.status, format!("{name} in Atlas' reply is no text"))),
    }
}

/// A hash of the block without key and `valid`, to detect changes. It does not depend on the order of
/// fields, and a null field counts as absent.
fn block_hash(provider: Option<Provider>, block: &Block) -> String {
    let key_field = provider.map_or("", Provider::key_field);
    let mut fields: Vec<_> = block
        .iter()
        .filter(|(name, value)| *name != key_field && *name != "valid" && !value.is_null())
        .collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    let mut text = provider.map_or("", Provider::block).to_owned();
    for (name, value) in fields {
        write_canonical(&Value::String(name.clone()), &mut text);
        write_canonical(value, &mut text);
    }
    hex::encode(Sha256::digest(text))
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (name, value) in fields {
                write_canonical(&Value::String(name.clone()), out);
                write_canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write_canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
