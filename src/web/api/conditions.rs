//! What holds for the installation, and its acknowledgement.

use axum::extract::State;
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Object, Path, views};
use crate::api::ConditionPage;
use crate::api::problem::Code;
use crate::api::project::Acknowledgement;
use crate::domain::condition::ConditionKind;
use crate::domain::role::Role;
use crate::web::Web;
use crate::web::auth::Caller;
use crate::web::operation::{BODY, needs};
use crate::web::problem::Problem;

pub(super) fn routes(web: &Web) -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(needs(web, Role::Viewer, &[], routes!(list))).routes(needs(
        web,
        Role::Operator,
        &[&BODY, &[Code::ConditionNotFound, Code::Conflict]],
        routes!(acknowledge),
    ))
}

#[utoipa::path(
    get, path = "/conditions", tag = "watching", operation_id = "listConditions",
    summary = "List what holds for the installation",
    description = "What holds for a project is a part of the project.",
    responses((status = 200, description = "The conditions, the most urgent first.", body = ConditionPage)),
)]
async fn list(State(web): State<Web>) -> Result<Json<ConditionPage>, Problem> {
    let items = web.engine.installation().await?.iter().map(views::condition).collect();
    Ok(Json(ConditionPage { items, next: None }))
}

#[utoipa::path(
    post, path = "/conditions/{kind}/acknowledge", tag = "watching",
    operation_id = "acknowledgeInstallationCondition",
    summary = "Stop the repetitions of a condition of the installation",
    description = "Of every credential and daemon for which it holds; for this start only, and for at most twelve hours. Its \
                   end is told all the same.",
    params(("kind" = ConditionKind, Path, description = "The condition.")),
    request_body = Acknowledgement,
    responses((status = 200, description = "What holds for the installation.", body = ConditionPage)),
)]
async fn acknowledge(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(kind): Path<String>,
    Object(body): Object<Acknowledgement>,
) -> Result<Json<ConditionPage>, Problem> {
    let kind = kind.parse::<ConditionKind>().map_err(|error| Problem::invalid("kind", error))?;
    web.engine.acknowledge_installation(&caller.name, kind, body.comment.as_deref()).await?;
    list(State(web)).await
}
