//! Keys in play that a lookup finds disabled, pending deletion or about to expire.
//!
//! A hook hears of it only where one is set up. The poll asks the key service about the key in force and about the keys
//! of the open rotation as well. What it finds becomes the condition `key_ending`. A key that is found usable ends what
//! the key service reported of it, and not what Atlas did.

use std::time::Duration;

use super::{Engine, conditions};
use crate::domain::condition::{Ending, Reporter};
use crate::domain::ids::GroupId;
use crate::domain::key::KeyRef;
use crate::domain::project::Project;
use crate::domain::time::Timestamp;
use crate::kms::{Found, KeyState};
use crate::store::StoreError;

/// A key that expires later is no news yet. Key Vault reports it as long before.
const NEAR: Duration = Duration::from_hours(30 * 24);

/// Asks the project's lookup about its keys in play. A key that cannot be looked up says nothing.
///
/// # Errors
/// Fails when the database cannot be read or written.
pub(super) async fn look_up(engine: &Engine, group: &GroupId) -> Result<(), StoreError> {
    let Some(project) = engine.store.project(group).await? else { return Ok(()) };
    let Some(lookup) = project.kms.as_deref() else { return Ok(()) };
    let Some(service) = engine.kms.get(lookup) else { return Ok(()) };
    let mut keys: Vec<KeyRef> = project.current_key.iter().cloned().collect();
    if let Some(open) = project.open_rotation
        && let Some(row) = engine.store.rotation(open.id).await?
    {
        keys.extend([row.rotation.old_key, row.rotation.new_key]);
    }
    keys.sort_by_key(ToString::to_string);
    keys.dedup();
    for key in keys {
        let asked_at = engine.clock.now();
        let found = match service.describe(&key, &project.place).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(project.id = %group, lookup, error = %error, "a key in play was not looked up");
                continue;
            }
        };
        if project.current_key.as_ref() == Some(&key) {
            note_end(engine, &project, &key, found.ends_at()).await?;
        }
        let key = key.to_string();
        match ending(&found, asked_at) {
            None => conditions::refute_endings(engine, group, &key, asked_at).await?,
            Some((event, ends_at)) => {
                let from = lookup.to_owned();
                let (at, reporter) = (engine.clock.now(), Reporter::Lookup);
                let ending = Ending { key, event, from, at, ends_at, good: None, reporter };
                conditions::note_ending(engine, group, ending).await?;
            }
        }
    }
    Ok(())
}

/// Records when the key in force ends: its project is due before.
///
/// # Errors
/// Fails when the database cannot be written.
pub(super) async fn note_end(
    engine: &Engine,
    project: &Project,
    key: &KeyRef,
    ends_at: Option<Timestamp>,
) -> Result<(), StoreError> {
    if project.key_ends_at == ends_at {
        return Ok(());
    }
    engine.store.record_key_end(&project.group_id, key, ends_at, engine.clock.now()).await?;
    engine.look_due.notify_one();
    Ok(())
}

/// What is said of a key that ends, and from when on it cannot be used; `None` when it cannot be already.
fn ending(found: &Found, now: Timestamp) -> Option<(String, Option<Timestamp>)> {
    match &found.state {
        KeyState::Enabled => {}
        KeyState::Disabled => return Some(("is disabled".to_owned(), None)),
        // None of the key services uses a key whose deletion is pending.
        KeyState::PendingDeletion { at: Some(at) } => {
            return Some((format!("is pending deletion, at {at}"), None));
        }
        KeyState::PendingDeletion { at: None } => return Some(("is pending deletion".to_owned(), None)),
        KeyState::Other(word) => return Some((format!("is reported as {word}"), None)),
    }
    let end = found.expires.filter(|end| *end < now + NEAR)?;
    Some(if end <= now {
        (format!("expired at {end}"), None)
    } else {
        (format!("expires at {end}"), Some(end))
    })
}
