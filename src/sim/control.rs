//! The control side: seeding, scripting, and the log.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::fault::Fault;
use super::world::{KeyState, LogEntry, Project, World};

pub(super) async fn world(State(sim): State<Shared>) -> Json<World> {
    Json(sim.world().clone())
}

pub(super) async fn replace(State(sim): State<Shared>, Json(world): Json<World>) -> StatusCode {
    *sim.world() = world;
    StatusCode::NO_CONTENT
}

pub(super) async fn project(
    State(sim): State<Shared>,
    Path(group): Path<String>,
    Json(body): Json<Project>,
) -> StatusCode {
    sim.world().projects.insert(group, body);
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
pub(super) struct Edit {
    key: String,
}

/// A person changes the key in the Atlas UI, now.
pub(super) async fn human_edit(
    State(sim): State<Shared>,
    Path(group): Path<String>,
    Json(edit): Json<Edit>,
) -> StatusCode {
    let now = sim.clock.now();
    match sim.world().projects.get_mut(&group) {
        Some(project) => {
            project.set_key(&edit.key, now);
            StatusCode::NO_CONTENT
        }
        None => StatusCode::NOT_FOUND,
    }
}

#[derive(Deserialize)]
pub(super) struct Key {
    id: String,
    state: KeyState,
}

pub(super) async fn key(State(sim): State<Shared>, Json(key): Json<Key>) -> StatusCode {
    sim.world().keys.insert(key.id, key.state);
    StatusCode::NO_CONTENT
}

pub(super) async fn faults(State(sim): State<Shared>) -> Json<Vec<Fault>> {
    Json(sim.world().faults.clone())
}

pub(super) async fn add_fault(
    State(sim): State<Shared>,
    Json(fault): Json<Fault>,
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
