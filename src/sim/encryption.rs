//! Encryption at rest: the GET and the PATCH.
//!
//! One provider at a time; only the fields that change need be sent. While the key in force cannot be
//! used, every change is refused, a rollback included, unless a project is set to be more lenient.

use std::time::Duration;

use axum::body::Bytes;
use serde_json::{Map, Value, json};

use super::answer::{Refusal, SimReply, SimResult, refuse};
use super::ask::Ask;
use super::check;
use super::events;
use super::inventory::find;
use super::world::{PROVIDERS, Project, World, names};

/// The key that a body names, for the log.
pub(super) fn named_key(body: &Bytes) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    PROVIDERS.into_iter().find_map(|provider| {
        let (block, field) = names(provider)?;
        body.get(block)?.get(field)?.as_str().map(str::to_owned)
    })
}

/// The configuration as a GET shows it: all three blocks, the unconfigured ones disabled.
pub(super) fn get(world: &mut World, ask: &Ask) -> SimResult {
    let valid = {
        let project = find(world, ask)?;
        match project.valid_sequence.len() {
            0 => None,
            1 => Some(project.valid_sequence[0]),
            _ => Some(project.valid_sequence.remove(0)),
        }
    };
    let project = find(world, ask)?.clone();
    let stale = project
        .changed
        .as_ref()
        .filter(|(at, _)| ask.now.since(*at) < Duration::from_millis(project.stale_read_ms))
        .map(|(_, key)| key.clone());
    let truth = match &stale {
        Some(key) => world.usable(key),
        None => world.believed_valid(&project, ask.now),
    };
    let key = stale.unwrap_or_else(|| project.key());
    let mut body = Map::new();
    for provider in PROVIDERS {
        let Some((block_name, field)) = names(provider) else { continue };
        let mut block = Map::new();
        if provider == project.provider {
            block.clone_from(&project.block);
            block.retain(|name, _| !check::SECRETS.contains(&name.as_str()));
            block.insert(field.to_owned(), json!(key));
            if let Some(valid) = valid.unwrap_or(Some(truth)) {
                block.insert("valid".to_owned(), json!(valid));
            }
        } else {
            block.insert("enabled".to_owned(), json!(false));
        }
        if world.odd.nulls {
            for name in check::field_names(provider).iter().filter(|name| !check::SECRETS.contains(name)) {
                block.entry(*name).or_insert(Value::Null);
            }
            block.entry("valid").or_insert(Value::Null);
        }
        body.insert(block_name.to_owned(), Value::Object(block));
    }
    body.extend(project.beside.clone());
    body.insert("enabledForSearchNodes".to_owned(), json!(false));
    Ok(SimReply::One(Value::Object(body)))
}

/// Changes the configuration and shows it.
pub(super) fn patch(world: &mut World, ask: &Ask) -> SimResult {
    find(world, ask)?;
    let kind = ask.header("content-type").split(';').next().unwrap_or_default().trim();
    if kind != "application/json" && !(kind.starts_with("application/vnd.atlas.") && kind.ends_with("+json"))
    {
        return Err(refuse(415, "UNEXPECTED_ERROR", "The body must be JSON."));
    }
    let body: Value = serde_json::from_slice(&ask.body)
        .map_err(|_| refuse(400, "MALFORMED_JSON", "The body cannot be read as JSON."))?;
    let body = body.as_object().ok_or_else(|| refuse(400, "INVALID_JSON", "The body is no object."))?;
    let blocks = blocks(body)?;
    apply(world, ask, &blocks)?;
    get(world, ask)
}

type Blocks<'a> = Vec<(&'static str, &'a Map<String, Value>)>;

/// The providers' blocks of a body, each of sound form.
fn blocks(body: &Map<String, Value>) -> Result<Blocks<'_>, Refusal> {
    let mut blocks = Vec::new();
    for (name, value) in body {
        if name == "enabledForSearchNodes" && value.is_boolean() {
            continue;
        }
        let provider = PROVIDERS.into_iter().find(|it| names(it).is_some_and(|(block, _)| block == name));
        let Some((provider, fields)) = provider.zip(value.as_object()) else {
            let detail = format!("There is no attribute {name} of this form.");
            return Err(refuse(400, "INVALID_ATTRIBUTE", detail).about(name.as_str()));
        };
        check::fields(provider, fields)?;
        blocks.push((provider, fields));
    }
    Ok(blocks)
}

fn apply(world: &mut World, ask: &Ask, blocks: &Blocks<'_>) -> Result<(), Refusal> {
    let project = find(world, ask)?.clone();
    let mut enabling = None;
    for (provider, fields) in blocks.iter().filter(|(provider, _)| *provider != project.provider) {
        if check::enabled(fields) == Some(true) {
            if !project.provider.is_empty() || enabling.is_some() {
                return Err(refuse(
                    409,
                    "CANNOT_CHANGE_ENCRYPTION_AT_REST_PROVIDER",
                    "Disable encryption at rest before changing its provider.",
                ));
            }
            enabling = Some((*provider, *fields));
        } else if project.provider.is_empty()
            && names(provider).is_some_and(|(_, field)| fields.contains_key(field))
        {
            return Err(refuse(
                409,
                "CANNOT_ROTATE_KEY_ENCRYPTION_DISABLED",
                "Encryption at rest is not enabled.",
            ));
        }
    }
    if let Some((provider, fields)) = enabling {
        check::complete(provider, fields)?;
        let fresh = Project { provider: provider.to_owned(), block: Map::new(), ..project };
        return configure(world, ask, &fresh, fields);
    }
    let own = blocks.iter().find(|(provider, _)| *provider == project.provider);
    let Some((_, fields)) = own else { return Ok(()) };
    if check::enabled(fields) == Some(false) {
        if !project.clusters.is_empty() {
            return Err(refuse(
                409,
                "CANNOT_DISABLE_ENCRYPTION_AT_REST",
                "A cluster still uses encryption at rest.",
            ));
        }
        let project = find(world, ask)?;
        (project.provider, project.block) = (String::new(), Map::new());
        return Ok(());
    }
    if !world.believed_valid(&project, ask.now) && !project.change_while_invalid {
        return Err(refuse(
            400,
            "ENCRYPTION_AT_REST_SETTINGS_INVALID",
            "The key in force cannot be used; make it usable before changing anything.",
        ));
    }
    configure(world, ask, &project, fields)
}

/// Lays `fields` over the block of `project`, once the result has passed every check.
fn configure(
    world: &mut World,
    ask: &Ask,
    project: &Project,
    fields: &Map<String, Value>,
) -> Result<(), Refusal> {
    let provider = project.provider.as_str();
    let merged = Project { block: check::merged(&project.block, fields), ..project.clone() };
    check::key(provider, &merged.block, project.versionless_keys)?;
    // With private networking only the nodes can reach the key, and they check it later.
    if !merged.is_private() {
        check::state(provider, world.state(&merged.key()))?;
    }
    let (old, new) = (project.key(), merged.key());
    let by = Some(ask.who.as_str());
    let project = find(world, ask)?;
    (project.provider, project.block) = (provider.to_owned(), project_block(merged.block, &old, provider));
    if new != old {
        project.set_key(&new, ask.now);
        events::key_rotated(project, ask.group().unwrap_or_default(), by, None, ask.now);
    }
    Ok(())
}

/// The new block with the old key still in it, so that the change of the key is one step.
fn project_block(mut block: Map<String, Value>, old: &str, provider: &str) -> Map<String, Value> {
    if let Some((_, field)) = names(provider) {
        block.insert(field.to_owned(), json!(old));
    }
    block
}
