//! Daemons that share a database announce their settings, so that two with different settings do not
//! work on the same rotations. An open rotation keeps the rules it was proposed under either way.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::bail;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::{Config, Credential, PatchBody};
use crate::domain::subject::Subject;
use crate::domain::time::{Clock, SystemClock};
use crate::lifecycle::pause;
use crate::store::{GONE_AFTER, Other, Presence, Store};

/// How often a daemon renews its announcement.
const EVERY: Duration = Duration::from_secs(10);

/// Settings in which daemons on one database must agree: readings of one would not verify a key for the
/// other.
fn matters(path: &str) -> bool {
    matches!(path, "atlas.base_url" | "atlas.patch_body") || path.starts_with("verify.")
}

fn host() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Some(host.trim()).filter(|host| !host.is_empty()).unwrap_or("this-host").to_owned()
}

/// Names this daemon, the same after a restart: its host and its port.
pub(super) fn name(config: &Config) -> String {
    format!("{}:{}", host(), config.server.listen.port())
}

/// Announces this daemon, unless another one runs under settings that must not differ.
///
/// # Errors
/// Fails when such a daemon runs, with its name and the settings, or the database cannot be written.
pub(super) async fn join(config: &Config, store: &Store, id: Uuid) -> anyhow::Result<Presence> {
    let it = Presence {
        id,
        name: format!("{} (pid {})", host(), std::process::id()),
        subject: Subject::Daemon(name(config)),
        settings: settings(config),
    };
    let welcome = |it: &Presence, others: &[Other]| {
        for other in others {
            let (grave, harmless): (Vec<_>, Vec<_>) =
                differences(&it.settings, &other.settings).into_iter().partition(|(path, _)| matters(path));
            if !grave.is_empty() {
                bail!(
                    "another keywheel on this database, {}, runs with other settings: {}. Give both the same; \
                     if that one is gone without a clean stop, try again after {}",
                    other.name,
                    sentence(&grave),
                    other.seen_at + GONE_AFTER
                );
            }
            if !harmless.is_empty() {
                tracing::warn!(
                    "another keywheel on this database, {}, runs with other settings: {}",
                    other.name,
                    sentence(&harmless)
                );
            }
        }
        Ok(())
    };
    store.join(&it, SystemClock.now(), welcome).await??;
    Ok(it)
}

/// Renews the announcement until `stop`, then withdraws it.
pub(super) async fn run(store: Store, it: Presence, stop: CancellationToken) {
    loop {
        pause(EVERY, &stop).await;
        if stop.is_cancelled() {
            break;
        }
        if let Err(error) = store.stay(&it, SystemClock.now()).await {
            tracing::warn!(error = %error, "this daemon's announcement was not renewed; others may miss it");
        }
    }
    if let Err(error) = store.leave(&it).await {
        tracing::warn!(error = %error, "this daemon's announcement was not withdrawn; it lapses in a few minutes");
    }
}

/// The settings that daemons should share, by path, without secrets.
fn settings(config: &Config) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    let patch_body = match config.atlas.patch_body {
        PatchBody::KeyOnly => "key-only",
        PatchBody::WholeBlock => "whole-block",
    };
    settings.insert("atlas.base_url".to_owned(), config.atlas.base_url.clone());
    settings.insert("atlas.patch_body".to_owned(), patch_body.to_owned());
    settings.insert("atlas.request_timeout".to_owned(), config.atlas.request_timeout.to_string());
    for (name, credential) in &config.atlas.credentials {
        let id = match credential {
            Credential::ServiceAccount { client_id, .. } => client_id,
            Credential::ApiKey { public_key, .. } => public_key,
        };
        settings.insert(format!("atlas.credentials.{name}"), id.clone());
    }
    let groups = [
        ("policy", serde_json::to_value(&config.policy)),
        ("verify", serde_json::to_value(&config.verify)),
        ("pace", serde_json::to_value(&config.pace)),
    ];
    for (group, values) in groups {
        for (name, value) in values.as_ref().ok().and_then(Value::as_object).into_iter().flatten() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            settings.insert(format!("{group}.{name}"), text);
        }
    }
    settings
}

/// The paths that differ, each with both values.
fn differences(
    here: &BTreeMap<String, String>,
    there: &BTreeMap<String, String>,
) -> Vec<(String, (String, String))> {
    let mut paths: Vec<&String> = here.keys().chain(there.keys()).collect();
    paths.sort();
    paths.dedup();
    let shown = |side: &BTreeMap<String, String>, path: &String| {
        side.get(path).map_or("not set".to_owned(), |value| format!("{value:?}"))
    };
    paths
        .into_iter()
        .filter(|path| here.get(*path) != there.get(*path))
        .map(|path| (path.clone(), (shown(here, path), shown(there, path))))
        .collect()
}

fn sentence(differences: &[(String, (String, String))]) -> String {
    let mut text = String::new();
    for (path, (here, there)) in differences {
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}{path} is {here} here and {there} there");
    }
    text
}
