//! The targets of the links in webhooks. This version has no pages, so each names the command that shows
//! the same.
//!
//! Nothing is read and no token is needed: the answer is the same whether or not the rotation or project
//! exists.

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;

use super::Web;
use super::no_such_page;
use super::problem::Problem;
use crate::domain::ids::{GroupId, RotationId};

pub(super) fn routes() -> Router<Web> {
    Router::new().route("/rotations/{id}", get(rotation)).route("/projects/{id}", get(project))
}

async fn rotation(State(web): State<Web>, Path(id): Path<String>) -> Result<String, Problem> {
    let id: RotationId = id.parse().map_err(|_| no_such_page())?;
    Ok(sign(&web, &format!("Rotation {id}"), &format!("rotation show {id}")))
}

async fn project(State(web): State<Web>, Path(id): Path<String>) -> Result<String, Problem> {
    let id: GroupId = id.parse().map_err(|_| no_such_page())?;
    Ok(sign(&web, &format!("Project {id}"), &format!("why {id}")))
}

fn sign(web: &Web, what: &str, command: &str) -> String {
    let server = &web.engine.settings.public_url;
    format!(
        "{what}\n\nThis version has no pages. To read it:\n\n  keywheel --server {server} --token-file TOKEN_FILE {command}\n"
    )
}
