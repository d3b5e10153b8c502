//! Events and alerts of a project: changes of its key, and the validity of the key.
//!
//! Atlas checks keys every 15 minutes and on each GET; here they are checked on every request that names
//! the project. Alert configurations, acknowledging, thresholds of age and webhooks are not simulated.
//! How an event names a service account is not known; `publicKey` is used for all credentials.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::answer::{SimReply, SimResult, refuse};
use super::ask::Ask;
use super::ids::{ORG, object_id};
use super::inventory::find;
use super::world::{Alert, Event, Project, World};
use crate::domain::time::Timestamp;

const NETWORK_DENIED: &str = "ENCRYPTION_AT_REST_KMS_NETWORK_ACCESS_DENIED";
const NETWORK_RESTORED: &str = "ENCRYPTION_AT_REST_KMS_NETWORK_ACCESS_RESTORED";

fn record(
    project: &mut Project,
    group: &str,
    name: &str,
    by: Option<&str>,
    person: Option<&str>,
    now: Timestamp,
) {
    let id = object_id(&[group, "event", &project.events.len().to_string()]);
    project.events.push(Event {
        id,
        created: now,
        event_type_name: name.to_owned(),
        public_key: by.map(str::to_owned),
        username: person.map(str::to_owned),
    });
}

/// The project's key was changed, by a credential or by a person.
pub(super) fn key_rotated(
    project: &mut Project,
    group: &str,
    by: Option<&str>,
    person: Option<&str>,
    now: Timestamp,
) {
    let name = format!("{}_ENCRYPTION_KEY_ROTATED", project.provider);
    record(project, group, &name, by, person, now);
}

/// A person sets the key in the Atlas UI; returns whether there is such a project with a key.
pub(super) fn human_edit(
    world: &mut World,
    group: &str,
    key: &str,
    person: Option<&str>,
    now: Timestamp,
) -> bool {
    let project = world.projects.get_mut(group).filter(|project| !project.provider.is_empty());
    let Some(project) = project else { return false };
    if project.key() != key {
        project.set_key(key, now);
        key_rotated(project, group, None, Some(person.unwrap_or("somebody@example.com")), now);
    }
    look(world, group, now);
    true
}

/// Checks the project's key as Atlas does: alerts open and close.
pub(super) fn look(world: &mut World, group: &str, now: Timestamp) {
    let Some(project) = world.projects.get(group) else { return };
    let mut wanted: BTreeSet<String> = project.open_alerts.clone();
    if project.kms_unreachable {
        wanted.insert(NETWORK_DENIED.to_owned());
    } else if !project.provider.is_empty() && !world.believed_valid(project, now) {
        wanted.insert(format!("{}_ENCRYPTION_KEY_INVALID", project.provider));
    }
    let Some(project) = world.projects.get_mut(group) else { return };
    let mut told = Vec::new();
    for alert in project.alerts.iter_mut().filter(|alert| alert.resolved.is_none()) {
        if !wanted.remove(&alert.event_type_name) {
            alert.resolved = Some(now);
            if alert.event_type_name == NETWORK_DENIED {
                told.push(NETWORK_RESTORED.to_owned());
            } else if let Some(provider) = alert.event_type_name.strip_suffix("_ENCRYPTION_KEY_INVALID") {
                told.push(format!("{provider}_ENCRYPTION_KEY_VALID"));
            }
        }
    }
    for name in wanted {
        let id = object_id(&[group, "alert", &project.alerts.len().to_string()]);
        project.alerts.push(Alert { id, event_type_name: name.clone(), created: now, resolved: None });
        told.push(name);
    }
    for name in told {
        record(project, group, &name, None, None, now);
    }
}

fn alert_view(group: &str, alert: &Alert) -> Value {
    let mut view = json!({
        "id": alert.id, "groupId": group, "orgId": ORG, "eventTypeName": alert.event_type_name,
        "alertConfigId": object_id(&[group, &alert.event_type_name]), "links": [],
        "status": if alert.resolved.is_some() { "CLOSED" } else { "OPEN" },
        "created": alert.created, "updated": alert.resolved.unwrap_or(alert.created),
    });
    if let Some(resolved) = alert.resolved {
        view["resolved"] = json!(resolved);
    }
    view
}

pub(super) fn alerts(world: &mut World, ask: &Ask) -> SimResult {
    let extras = world.odd.extras;
    let group = ask.param("group");
    let project = find(world, ask)?;
    let mut views: Vec<_> = project.alerts.iter().rev().map(|it| alert_view(group, it)).collect();
    if let Some(status) = ask.query.get("status") {
        if !["OPEN", "TRACKING", "CLOSED"].contains(&status.as_str()) {
            return Err(refuse(400, "INVALID_ENUM_VALUE", "There is no such status.").about("status"));
        }
        views.retain(|view| view["status"] == **status);
    }
    if extras {
        views.insert(0, json!({ "id": object_id(&[group, "extra"]), "eventTypeName": "SOMETHING_NEW", "status": "MUTED" }));
    }
    Ok(SimReply::List(views))
}

pub(super) fn alert(world: &mut World, ask: &Ask) -> SimResult {
    let project = find(world, ask)?;
    let found = project.alerts.iter().find(|it| it.id == ask.param("alert"));
    let found = found.ok_or_else(|| refuse(404, "RESOURCE_NOT_FOUND", "There is no such alert."))?;
    Ok(SimReply::One(alert_view(ask.param("group"), found)))
}

fn event_view(group: &str, event: &Event) -> Value {
    let mut view = json!({
        "id": event.id, "groupId": group, "orgId": ORG, "eventTypeName": event.event_type_name,
        "created": event.created, "isGlobalAdmin": false, "links": [],
    });
    if let Some(key) = &event.public_key {
        (view["publicKey"], view["apiKeyId"]) = (json!(key), json!(object_id(&[key])));
    }
    if let Some(name) = &event.username {
        (view["username"], view["userId"]) = (json!(name), json!(object_id(&[name])));
    }
    view
}

/// The events, newest first.
pub(super) fn events(world: &mut World, ask: &Ask) -> SimResult {
    let extras = world.odd.extras;
    let group = ask.param("group");
    let instant = |name: &'static str| match ask.query.get(name) {
        None => Ok(None),
        Some(text) => text
            .parse::<Timestamp>()
            .map(Some)
            .map_err(|_| refuse(400, "VALIDATION_ERROR", format!("{name} must be an instant.")).about(name)),
    };
    let (from, to) = (instant("minDate")?, instant("maxDate")?);
    let named = |name| ask.query.get(name).map(|list| list.split(',').collect::<Vec<_>>());
    let (only, without) = (named("eventType"), named("excludedEventType").unwrap_or_default());
    let project = find(world, ask)?;
    let mut views: Vec<_> = project
        .events
        .iter()
        .rev()
        .filter(|it| from.is_none_or(|from| it.created >= from) && to.is_none_or(|to| it.created <= to))
        .filter(|it| only.as_ref().is_none_or(|only| only.contains(&it.event_type_name.as_str())))
        .filter(|it| !without.contains(&it.event_type_name.as_str()))
        .map(|it| event_view(group, it))
        .collect();
    if extras {
        views.insert(0, json!({ "id": object_id(&[group, "extra"]), "eventTypeName": "SOMETHING_NEW" }));
    }
    Ok(SimReply::List(views))
}

pub(super) fn event(world: &mut World, ask: &Ask) -> SimResult {
    let project = find(world, ask)?;
    let found = project.events.iter().find(|it| it.id == ask.param("event"));
    let found = found.ok_or_else(|| refuse(404, "RESOURCE_NOT_FOUND", "There is no such event."))?;
    Ok(SimReply::One(event_view(ask.param("group"), found)))
}
