//! Subscriptions: changes of the simulated world are sent to every subscriber, as the clouds and Atlas
//! would send them.
//!
//! A subscription is an order of `/sim/v1/emit` without an event and its subject, kept in the world and
//! so seedable. `only` lists the events to send; `about` is the required prefix of the key (for Atlas:
//! of the group id). After each request the world is compared with its state before, so the origin of a
//! change does not matter. The events:
//!
//! | change | `azure-event-grid` | `aws-eventbridge`, `aws-sns` | `gcp-pubsub` |
//! |---|---|---|---|
//! | a new key or version | `KeyNewVersionCreated` | nothing | `CreateCryptoKeyVersion` |
//! | another primary version | | | `UpdateCryptoKeyPrimaryVersion` |
//! | new material in an old key | | `KMS CMK Rotation` | |
//! | its end is near, has come | `KeyNearExpiry`, `KeyExpired` | nothing | nothing |
//! | switched off or on | nothing | `DisableKey`, `EnableKey` | `UpdateCryptoKeyVersion` |
//! | to be deleted, deleted | nothing | `ScheduleKeyDeletion`, `KMS CMK Deletion` | `DestroyCryptoKeyVersion`, `scheduledDestructionEvent` |
//! | an alias made, moved, removed | | `CreateAlias`, `UpdateAlias`, `DeleteAlias` | |
//!
//! `atlas` reports alerts that open and close. `cloudevents` and `standard` request a rotation to a new
//! version of the key that a project holds. A world that was replaced as a whole causes no event.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::emit::{Order, complete};
use super::subscription::{ANYBODY, ATLAS, AWS, AZURE, GCP, GIVEN, Subscription, Told};
use super::{Bad, Kind};
use crate::sim::world::{Facts, KeyState, World};
use crate::sim::{Shared, events};

/// The part of the world whose changes are sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Picture {
    keys: BTreeMap<String, KeyState>,
    facts: BTreeMap<String, Facts>,
    aliases: BTreeMap<String, String>,
    /// Google: the version that each key encrypts with.
    primaries: BTreeMap<String, String>,
    /// The key of each group.
    held: BTreeMap<String, String>,
    /// By id: the group, the type, and whether it is open.
    alerts: BTreeMap<String, (String, String, bool)>,
}

impl Picture {
    fn of(world: &World) -> Self {
        let alerts = world.projects.iter().flat_map(|(group, project)| {
            project.alerts.iter().map(move |alert| {
                let about = (group.clone(), alert.event_type_name.clone(), alert.resolved.is_none());
                (alert.id.clone(), about)
            })
        });
        Self {
            keys: world.keys.clone(),
            facts: world.kms.facts.clone(),
            aliases: world.kms.aliases.clone(),
            primaries: primaries(world),
            held: world.projects.iter().map(|(group, it)| (group.clone(), it.key())).collect(),
            alerts: alerts.collect(),
        }
    }

    /// The changes between this picture and `new`.
    fn changes(&self, new: &Self) -> Vec<Told> {
        let mut told = Vec::new();
        for (key, state) in &new.keys {
            let old = self.keys.get(key);
            if old.is_none() {
                told.extend(new.created(key));
            }
            if old != Some(state) {
                told.extend(turned(key, old.copied(), *state, new.dates(key)));
            }
            let material = |picture: &Self| picture.facts.get(key).and_then(|facts| facts.material.clone());
            if material(self).is_some() && material(self) != material(new) {
                told.push(Told::new(AWS, "KMS CMK Rotation", key, json!({ "key": key })));
            }
        }
        for (key, primary) in &new.primaries {
            if self.primaries.get(key).is_some_and(|old| old != primary) && !primary.is_empty() {
                let fields = json!({ "key": primary });
                told.push(Told::new(GCP, "UpdateCryptoKeyPrimaryVersion", primary, fields));
            }
        }
        for (alias, key) in &new.aliases {
            let fields = json!({ "alias": alias, "key": key });
            match self.aliases.get(alias) {
                None => told.push(Told::new(AWS, "CreateAlias", key, fields)),
                Some(old) if old != key => told.push(Told::new(AWS, "UpdateAlias", key, fields)),
                Some(_) => {}
            }
        }
        for (alias, key) in self.aliases.iter().filter(|(alias, _)| !new.aliases.contains_key(*alias)) {
            told.push(Told::new(AWS, "DeleteAlias", key, json!({ "alias": alias, "key": key })));
        }
        for (id, (group, event, is_open)) in &new.alerts {
            let was_open = self.alerts.get(id).is_some_and(|(.., open)| *open);
            if *is_open != was_open {
                let action = if *is_open { "open" } else { "close" };
                let fields = json!({ "groupId": group, "event": event, "action": action, "alertId": id });
                told.push(Told::new(ATLAS, "", group, fields));
            }
        }
        told
    }

    /// A key, and the ends of its time in seconds since 1970.
    fn dates(&self, key: &str) -> Value {
        let facts = self.facts.get(key).cloned().unwrap_or_default();
        let mut fields = json!({ "key": key });
        for (name, at) in [("nbf", facts.not_before), ("exp", facts.expires)] {
            if let Some(at) = at {
                fields[name] = json!(super::epoch(at));
            }
        }
        fields
    }

    /// A key that was not there before.
    fn created(&self, key: &str) -> Vec<Told> {
        let mut told = Vec::new();
        if key.starts_with("https://") {
            told.push(Told::new(AZURE, "KeyNewVersionCreated", key, self.dates(key)));
        } else if key.starts_with("projects/") {
            told.push(Told::new(GCP, "CreateCryptoKeyVersion", key, json!({ "key": key })));
        }
        let family = |key: &str| key.rsplit_once('/').map(|(family, _)| family.to_owned());
        for (group, _) in
            self.held.iter().filter(|(_, held)| family(key).is_some() && family(held) == family(key))
        {
            told.push(Told::new(ANYBODY, "", key, json!({ "groupId": group, "key": key })));
        }
        told
    }
}

/// The version that each Google key encrypts with; the newest where none is named.
fn primaries(world: &World) -> BTreeMap<String, String> {
    let number = |version: &str| version.rsplit('/').next().and_then(|it| it.parse::<u64>().ok());
    let mut primaries = BTreeMap::<String, String>::new();
    for version in world.keys.keys() {
        let Some((key, _)) = version.split_once("/cryptoKeyVersions/") else { continue };
        let newest = primaries.entry(key.to_owned()).or_insert_with(|| version.clone());
        if number(version) > number(newest) {
            newest.clone_from(version);
        }
    }
    primaries.extend(world.kms.primaries.clone());
    primaries
}

/// A key whose state changed; only Key Vault reports its dates.
fn turned(key: &str, old: Option<KeyState>, new: KeyState, dates: Value) -> Option<Told> {
    if key.starts_with("https://") {
        let event = match new {
            KeyState::Expiring => "KeyNearExpiry",
            KeyState::Expired => "KeyExpired",
            _ => return None,
        };
        return Some(Told::new(AZURE, event, key, dates));
    }
    let fields = json!({ "key": key });
    let of_google = key.starts_with("projects/");
    let (aws, gcp) = match (old, new) {
        (_, KeyState::Disabled) => ("DisableKey", "UpdateCryptoKeyVersion"),
        (Some(KeyState::Disabled), KeyState::Enabled) => ("EnableKey", "UpdateCryptoKeyVersion"),
        (Some(KeyState::PendingDeletion), KeyState::Enabled) => {
            ("CancelKeyDeletion", "RestoreCryptoKeyVersion")
        }
        (_, KeyState::PendingDeletion) => ("ScheduleKeyDeletion", "DestroyCryptoKeyVersion"),
        (_, KeyState::Destroyed) => ("KMS CMK Deletion", "scheduledDestructionEvent"),
        _ => return None,
    };
    Some(if of_google { Told::new(GCP, gcp, key, fields) } else { Told::new(AWS, aws, key, fields) })
}

/// Handles a request, then sends its changes to subscribers.
pub(crate) async fn after(State(sim): State<Shared>, request: Request, next: Next) -> Response {
    let replaced = request.method() == Method::PUT && request.uri().path() == "/sim/v1/world";
    let response = next.run(request).await;
    if replaced {
        *sim.event_source.seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
    look(&sim);
    response
}

/// Compares the world with the last picture of it, and sends the changes.
pub(crate) fn look(sim: &Shared) {
    let mut seen = sim.event_source.seen.lock().unwrap_or_else(PoisonError::into_inner);
    let (subscriptions, new) = {
        let mut world = sim.world();
        if world.subscriptions.is_empty() {
            *seen = None;
            return;
        }
        let now = sim.clock.now();
        for group in world.projects.keys().cloned().collect::<Vec<_>>() {
            events::look(&mut world, &group, now);
        }
        (world.subscriptions.clone(), Picture::of(&world))
    };
    let told = seen.as_ref().map(|old| old.changes(&new)).unwrap_or_default();
    *seen = Some(new);
    drop(seen);
    for subscription in subscriptions {
        let orders: Vec<_> =
            told.iter().filter(|it| subscription.wants(it)).map(|it| subscription.order_for(it)).collect();
        if !orders.is_empty() {
            sim.tasks.spawn(deliver(sim.clone(), subscription.kind, orders));
        }
    }
}

/// Carries orders out one after another, and notes the results.
async fn deliver(sim: Shared, kind: Kind, orders: Vec<Map<String, Value>>) {
    for fields in orders {
        let about = Value::Object(super::take(&mut fields.clone(), &GIVEN));
        let mut note = json!({ "what": "delivered", "at": sim.clock.now(), "kind": kind, "about": about });
        let sent = match Order::read(complete(&sim, fields)) {
            Ok(order) => order.carry_out(sim.clone()).await,
            Err(bad) => Err(bad),
        };
        match sent {
            Ok(sent) => note["sent"] = json!(sent),
            Err(bad) => note["error"] = json!(bad.to_string()),
        }
        sim.event_source.note(note);
    }
}

pub(super) async fn list(State(sim): State<Shared>) -> Json<Vec<Subscription>> {
    Json(sim.world().subscriptions.clone())
}

pub(super) async fn subscribe(State(sim): State<Shared>, body: Bytes) -> Response {
    let fields = match serde_json::from_slice::<Map<String, Value>>(&body) {
        Ok(fields) => fields,
        Err(error) => return Bad::new("body", error).into_response(),
    };
    match Subscription::read(fields) {
        Ok(subscription) => {
            let mut world = sim.world();
            world.subscriptions.push(subscription);
            let count = json!({ "subscriptions": world.subscriptions.len() });
            (StatusCode::CREATED, Json(count)).into_response()
        }
        Err(bad) => bad.into_response(),
    }
}

pub(super) async fn unsubscribe(State(sim): State<Shared>) -> StatusCode {
    sim.world().subscriptions.clear();
    StatusCode::NO_CONTENT
}
