//! Loosened rules that have not taken effect: list and withdraw.

use axum::extract::State;
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Path, views};
use crate::api::LooseningPage;
use crate::api::loosening::Loosening;
use crate::api::problem::Code;
use crate::domain::ids::LooseningId;
use crate::domain::role::Role;
use crate::web::Web;
use crate::web::auth::Caller;
use crate::web::operation::needs;
use crate::web::problem::Problem;

pub(super) fn routes(web: &Web) -> OpenApiRouter<Web> {
    let ended = [Code::NotFound, Code::LooseningNotFound, Code::LooseningEnded];
    OpenApiRouter::new().routes(needs(web, Role::Viewer, &[], routes!(list))).routes(needs(
        web,
        Role::Operator,
        &[&ended],
        routes!(withdraw),
    ))
}

#[utoipa::path(
    get, path = "/loosenings", tag = "projects", operation_id = "listLoosenings",
    summary = "List the loosened rules that have not taken effect",
    description = "A change of what decides who must agree takes effect `policy.loosen_after` after it was announced.",
    responses((status = 200, description = "The changes, the oldest first.", body = LooseningPage)),
)]
async fn list(State(web): State<Web>) -> Result<Json<LooseningPage>, Problem> {
    let items = web.engine.loosenings().await?.iter().map(views::loosening).collect();
    Ok(Json(LooseningPage { items, next: None }))
}

#[utoipa::path(
    post, path = "/loosenings/{looseningId}/withdraw", tag = "projects", operation_id = "withdrawLoosening",
    summary = "Withdraw a loosened rule before it takes effect",
    params(("looseningId" = LooseningId, Path, description = "The id of the change.")),
    responses((status = 200, description = "The change, withdrawn.", body = Loosening)),
)]
async fn withdraw(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<LooseningId>,
) -> Result<Json<Loosening>, Problem> {
    Ok(Json(views::loosening(&web.engine.withdraw_loosening(&caller.name, id).await?)))
}
