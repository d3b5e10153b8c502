//! The hooks with their counts.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::views;
use crate::api::{HookPage, Page};
use crate::domain::role::Role;
use crate::web::Web;
use crate::web::operation::needs;

pub(super) fn routes(web: &Web) -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(needs(web, Role::Viewer, &[], routes!(list)))
}

#[utoipa::path(
    get, path = "/hooks", tag = "watching", operation_id = "listHooks",
    summary = "List the hooks with their counts since the process began",
    responses((status = 200, description = "All hooks.", body = HookPage)),
)]
async fn list(State(web): State<Web>) -> Json<HookPage> {
    let server = &web.engine.settings.public_url;
    let tallies = web.engine.intake.tallies().into_iter();
    let items =
        tallies.map(|(name, tally)| views::hook(&name, &tally, web.hooks.stopped(&name), server)).collect();
    Json(Page { items, next: None })
}
