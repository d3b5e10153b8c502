//! The routes of the HTTP server: the API under `/api/v1`, hooks, probes, and the pages.
//!
//! Handlers translate: a request becomes an engine command or a store read, an error becomes a
//! problem document. Nothing is decided here except authorisation. The same router serves the TCP
//! port, where callers send a token, and the local socket, where the kernel names the user.

pub mod auth;
pub mod hooks;
pub mod oidc;
pub mod problem;
pub mod sender;

mod api;
mod document;
mod fetch;
mod keys;
mod operation;
mod pages;

pub use pages::Counted;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;

use operation::open;
use problem::Problem;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use crate::api::problem::Code;
use crate::domain::network::Network;
use crate::engine::Engine;

/// The largest request body that is read.
const BODY_LIMIT: usize = 256 * 1024;

/// Timeout of a request, streams aside. One call to Atlas takes less than 55 s.
const REQUEST_LIMIT: Duration = Duration::from_secs(90);

/// The state that all handlers share.
#[derive(Clone, Debug)]
pub struct Web {
    /// The engine.
    pub engine: Engine,
    /// The hooks in force.
    pub hooks: Arc<hooks::LiveHooks>,
    /// The identity providers.
    pub oidc: Arc<oidc::Providers>,
    /// Slows down the guessing of tokens.
    pub guesses: Arc<sender::Guesses>,
    /// The proxies that may name a client's address.
    pub proxies: Arc<[Network]>,
    /// Ends event streams at shutdown.
    pub stop: tokio_util::sync::CancellationToken,
    /// The settings that the daemon was started with; none in a demo.
    pub settings: Arc<[crate::config::Entry]>,
    /// The sweep counts as running while its last end is not older than this.
    pub sweep_patience: Duration,
    /// What the navigation of the pages counts, as it was counted last.
    pub counted: Counted,
}

/// The API's part of each URL.
const API: &str = "/api/v1";

/// The probes, and the document of all routes.
fn probes() -> OpenApiRouter<Web> {
    OpenApiRouter::new()
        .routes(open(&[], routes!(alive)))
        .routes(open(&[Code::Database, Code::Sweep], routes!(ready)))
        .routes(open(&[Code::Database], routes!(metrics)))
        .routes(open(&[], routes!(document::show)).layer(Extension(document::Served::default())))
}

/// All routes.
pub fn router(web: Web) -> Router {
    let timeout = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, REQUEST_LIMIT);
    Router::new()
        .nest(API, api::router(&web, timeout))
        .merge(hooks::routes())
        .merge(probes())
        .merge(pages::routes(&web))
        .fallback(pages::lost)
        .method_not_allowed_fallback(|| async {
            Problem::new(Code::MethodNotAllowed, "this URL does not accept that method")
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(SetResponseHeaderLayer::overriding(
            header::CACHE_CONTROL,
            header::HeaderValue::from_static("no-store"),
        ))
        .layer(SetResponseHeaderLayer::overriding(
            header::X_CONTENT_TYPE_OPTIONS,
            header::HeaderValue::from_static("nosniff"),
        ))
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            Problem::new(Code::Internal, "the request failed; the server's log has the reason")
                .into_response()
        }))
        .with_state(web)
}

#[utoipa::path(
    get, path = "/healthz", tag = "probes", operation_id = "isAlive",
    summary = "Whether the process answers",
    responses((status = 200, description = "The process answers.", body = String, content_type = "text/plain")),
)]
async fn alive() -> &'static str {
    "ok\n"
}

#[utoipa::path(
    get, path = "/metrics", tag = "probes", operation_id = "metrics",
    summary = "Metrics for a scraper, without names of projects, keys or people",
    responses((status = 200, description = "The metrics.", body = String, content_type = "application/openmetrics-text")),
)]
async fn metrics(State(web): State<Web>) -> Result<Response, Problem> {
    let text = crate::engine::metrics::scrape(&web.engine).await?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Ready when the database is migrated and writable and the sweep runs. A request reads the result of the
/// last probe (`engine/ready.rs`), so that callers without a token cannot load the
/// database. Atlas is never called.
#[utoipa::path(
    get, path = "/readyz", tag = "probes", operation_id = "isReady",
    summary = "Whether the database is writable and the sweep runs",
    description = "The second line names what holds for the installation, if anything does.",
    responses((status = 200, description = "The database is writable and the sweep runs.", body = String, content_type = "text/plain")),
)]
async fn ready(State(web): State<Web>) -> Response {
    if !web.engine.readiness.is_writable().await {
        return Problem::new(Code::Database, "the database cannot be written").into_response();
    }
    let last = *web.engine.last_sweep.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match last {
        Some(at) if web.engine.clock.now().since(at) <= web.sweep_patience => {
            let holding: Vec<_> = web.engine.watched.holding().iter().map(|it| it.as_str()).collect();
            if holding.is_empty() {
                "ready\n".into_response()
            } else {
                format!("ready\nholds: {}\n", holding.join(", ")).into_response()
            }
        }
        _ => Problem::new(Code::Sweep, "no sweep has finished lately").into_response(),
    }
}
