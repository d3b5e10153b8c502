//! The JSON API. One file for each resource; [`views`] says how rows look from outside.

mod projects;
mod rotations;
mod views;
mod watch;

use axum::Router;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts};
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Web;
use super::problem::Problem;

/// Everything but the streams, which outlive any time limit.
pub(super) fn routes() -> Router<Web> {
    Router::new()
        .route("/projects", get(projects::list).post(projects::add))
        .route("/projects/{group_id}", get(projects::show).patch(projects::edit).delete(projects::remove))
        .route("/projects/{group_id}/why", get(projects::why))
        .route("/projects/{group_id}/rotations", post(rotations::propose))
        .route("/rotations", get(rotations::list))
        .route("/rotations/{id}", get(rotations::show))
        .route("/rotations/{id}/journal", get(rotations::journal))
        .route("/rotations/{id}/{verb}", post(rotations::say))
        .route("/audit", get(watch::audit))
        .route("/status", get(watch::status))
        .route("/outbox", get(watch::outbox))
        .route("/outbox/{id}", get(watch::mail))
}

/// The server-sent events.
pub(super) fn streams() -> Router<Web> {
    Router::new().route("/rotations/{id}/stream", get(rotations::stream))
}

/// A request body; what does not fit is a problem document that names the field.
#[derive(FromRequest)]
#[from_request(via(axum::Json), rejection(Problem))]
struct Json<T>(T);

/// Query parameters, likewise.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
struct Query<T>(T);

/// Path parameters, likewise.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
struct Path<T>(T);

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let status = rejection.status();
        let code = if status == StatusCode::PAYLOAD_TOO_LARGE { "too-large" } else { "malformed" };
        Problem::new(status, code, rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Problem::new(rejection.status(), "malformed", rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Problem::new(rejection.status(), "malformed", rejection.body_text())
    }
}

/// The paging parameters of every list.
#[derive(Debug, Deserialize)]
struct Page {
    limit: Option<usize>,
    cursor: Option<String>,
}

impl Page {
    /// Rows a page may hold: 100 unless asked, 500 at most.
    fn limit(&self) -> usize {
        self.limit.unwrap_or(100).clamp(1, 500)
    }

    /// The cursor as the row key it is.
    fn after<T: std::str::FromStr>(&self) -> Result<Option<T>, Problem> {
        self.cursor
            .as_deref()
            .map(|text| {
                text.parse()
                    .map_err(|_| Problem::invalid("cursor", "give back `next` as the last page had it"))
            })
            .transpose()
    }
}

/// A page as it leaves.
#[expect(clippy::needless_pass_by_value, reason = "both are built for this call")]
fn page(items: Vec<Value>, next: Option<String>) -> axum::Json<Value> {
    axum::Json(json!({ "items": items, "next": next }))
}
