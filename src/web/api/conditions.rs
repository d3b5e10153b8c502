//! What holds for the installation, and its acknowledgement.

use axum::extract::State;
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Object, Path, views};
use crate::api::problem::Code;
use crate::api::project::{Acknowledgement, Condition};
use crate::api::{ConditionPage, CorruptRow, Listed, Page};
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
async fn list(State(web): State<Web>) -> Result<Json<Page<Listed<Condition>>>, Problem> {
    let corrupt = web.engine.store.corrupt_conditions().await?.into_iter();
    let corrupt = corrupt.map(|row| Listed::Corrupt(CorruptRow::new(row.id)));
    let rows = web.engine.installation().await?;
    let items = rows.iter().map(views::condition).map(Listed::Row).chain(corrupt).collect();
    Ok(Json(Page { items, next: None }))
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
) -> Result<Json<Page<Listed<Condition>>>, Problem> {
    let kind = kind.parse::<ConditionKind>().map_err(|error| Problem::invalid("kind", error))?;
    web.engine.acknowledge_installation(&caller.name, kind, body.comment.as_deref()).await?;
    list(State(web)).await
}
