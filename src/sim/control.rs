//! The control side: seeding, settings, scripting, and the log. It needs no log-in.
//!
//! `POST` lays the given fields over the present ones; `PUT` replaces. A body that cannot be understood
//! is a 400 that names the field, and changes nothing. The world is shown with its secrets: never seed a
//! real one.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Shared;
use super::events;
use super::fault::Fault;
use super::world::{Facts, KeyServices, KeyState, LogEntry, Project, World};

/// A body that was parsed completely.
pub(super) struct Order<T>(T);

impl<T: DeserializeOwned> FromRequest<Shared> for Order<T> {
    type Rejection = Response;

    async fn from_request(request: Request, sim: &Shared) -> Result<Self, Response> {
        let body = Bytes::from_request(request, sim).await.map_err(IntoResponse::into_response)?;
        serde_json::from_slice(&body).map(Self).map_err(|error| bad(&error))
    }
}

fn bad(error: &serde_json::Error) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": error.to_string() }))).into_response()
}

fn no_project(group: &str) -> Response {
    (StatusCode::NOT_FOUND, Json(json!({ "error": format!("there is no project {group}") }))).into_response()
}

/// `old` with `fields` in place of its own.
fn overlaid<T: Serialize + DeserializeOwned>(old: &T, fields: Map<String, Value>) -> serde_json::Result<T> {
    let mut value = serde_json::to_value(old)?;
    if let Some(known) = value.as_object_mut() {
        known.extend(fields);
    }
    serde_json::from_value(value)
}

pub(super) async fn world(State(sim): State<Shared>) -> Json<World> {
    Json(sim.world().clone())
}

pub(super) async fn replace(State(sim): State<Shared>, Order(world): Order<World>) -> StatusCode {
    *sim.world() = world;
    StatusCode::NO_CONTENT
}

pub(super) async fn settle(State(sim): State<Shared>, Order(fields): Order<Map<String, Value>>) -> Response {
    let mut world = sim.world();
    match overlaid(&*world, fields) {
        Ok(mut new) => {
            new.go_on_from(std::mem::take(&mut *world));
            *world = new;
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => bad(&error),
    }
}

pub(super) async fn project(
    State(sim): State<Shared>,
    Path(group): Path<String>,
    Order(body): Order<Project>,
) -> StatusCode {
    sim.world().projects.insert(group, body);
    StatusCode::NO_CONTENT
}

pub(super) async fn settle_project(
    State(sim): State<Shared>,
    Path(group): Path<String>,
    Order(fields): Order<Map<String, Value>>,
) -> Response {
    let now = sim.clock.now();
    let mut world = sim.world();
    let Some(project) = world.projects.get_mut(&group) else { return no_project(&group) };
    match overlaid(project, fields) {
        Ok(new) => {
            let changed = project.changed.take();
            *project = Project { changed, ..new };
            events::look(&mut world, &group, now);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => bad(&error),
    }
}

/// A person's change of a key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Edit {
    key: String,
    by: Option<String>,
}

/// A person changes the key in the Atlas UI, now.
pub(super) async fn human_edit(
    State(sim): State<Shared>,
    Path(group): Path<String>,
    Order(edit): Order<Edit>,
) -> Response {
    let now = sim.clock.now();
    if events::human_edit(&mut sim.world(), &group, &edit.key, edit.by.as_deref(), now) {
        StatusCode::NO_CONTENT.into_response()
    } else {
        let error = json!({ "error": format!("there is no project {group} with a key in force") });
        (StatusCode::NOT_FOUND, Json(error)).into_response()
    }
}

/// The state and properties of a key at its key service from now on; fields that are not given stay. A
/// new key needs a state, and is created now.
#[derive(Deserialize)]
pub(super) struct KeyChange {
    id: String,
    state: Option<KeyState>,
    /// Google: whether it is the primary version from now on.
    #[serde(default)]
    primary: bool,
    #[serde(flatten)]
    facts: Map<String, Value>,
}

pub(super) async fn key(State(sim): State<Shared>, Order(key): Order<KeyChange>) -> Response {
    let now = sim.clock.now();
    let mut world = sim.world();
    let is_new = !world.keys.contains_key(&key.id);
    if is_new && key.state.is_none() {
        let error = json!({ "error": format!("there is no key {}: a new one needs a state", key.id) });
        return (StatusCode::BAD_REQUEST, Json(error)).into_response();
    }
    let old = world.kms.facts.get(&key.id).cloned().unwrap_or_default();
    let old = Facts { created: old.created.or(is_new.then_some(now)), ..old };
    match overlaid(&old, key.facts) {
        Ok(facts) => world.kms.facts.insert(key.id.clone(), facts),
        Err(error) => return bad(&error),
    };
    if let Some((own, _)) = key.id.split_once("/cryptoKeyVersions/").filter(|_| key.primary) {
        world.kms.primaries.insert(own.to_owned(), key.id.clone());
    }
    if let Some(state) = key.state {
        world.keys.insert(key.id, state);
    }
    StatusCode::NO_CONTENT.into_response()
}

/// An alias, and the key it points to from now on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Alias {
    alias: String,
    key: String,
}

pub(super) async fn alias(State(sim): State<Shared>, Order(it): Order<Alias>) -> StatusCode {
    sim.world().kms.aliases.insert(it.alias, it.key);
    StatusCode::NO_CONTENT
}

/// Lays fields over those of the key services.
pub(super) async fn settle_kms(
    State(sim): State<Shared>,
    Order(fields): Order<Map<String, Value>>,
) -> Response {
    let mut world = sim.world();
    match overlaid::<KeyServices>(&world.kms, fields) {
        Ok(mut new) => {
            new.go_on_from(std::mem::take(&mut world.kms));
            world.kms = new;
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => bad(&error),
    }
}

pub(super) async fn faults(State(sim): State<Shared>) -> Json<Vec<Fault>> {
    Json(sim.world().faults.clone())
}

pub(super) async fn add_fault(
    State(sim): State<Shared>,
    Order(fault): Order<Fault>,
) -> (StatusCode, Json<Value>) {
    let mut world = sim.world();
    world.faults.push(fault);
    (StatusCode::CREATED, Json(json!({ "faults": world.faults.len() })))
}

pub(super) async fn clear_faults(State(sim): State<Shared>) -> StatusCode {
    sim.world().faults.clear();
    StatusCode::NO_CONTENT
}

pub(super) async fn log(State(sim): State<Shared>) -> Json<Vec<LogEntry>> {
    Json(sim.world().log.clone())
}
