//! The targets of webhooks.

use axum::extract::State;
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Path;
use crate::api::problem::Code;
use crate::api::record::WebhookTarget;
use crate::api::{Page, WebhookTargetPage};
use crate::domain::role::Role;
use crate::engine::command::CommandError;
use crate::web::Web;
use crate::web::auth::Caller;
use crate::web::operation::needs;
use crate::web::problem::Problem;

pub(super) fn routes(web: &Web) -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(needs(web, Role::Viewer, &[], routes!(list))).routes(needs(
        web,
        Role::Operator,
        &[&[Code::NotFound]],
        routes!(enable),
    ))
}

fn targets(web: &Web) -> Vec<WebhookTarget> {
    let all = web.engine.webhooks.all();
    let shown = all.iter().map(|target| WebhookTarget {
        name: target.name().to_owned(),
        format: target.format().as_str().to_owned(),
        host: target.host().to_owned(),
        disabled_since: target.retired_at(),
    });
    shown.collect()
}

#[utoipa::path(
    get, path = "/webhooks", tag = "watching", operation_id = "listWebhooks",
    summary = "List the targets of webhooks, as this daemon serves them",
    responses((status = 200, description = "All targets.", body = WebhookTargetPage)),
)]
async fn list(State(web): State<Web>) -> Json<Page<WebhookTarget>> {
    Json(Page { items: targets(&web), next: None })
}

#[utoipa::path(
    post, path = "/webhooks/{name}/enable", tag = "watching", operation_id = "enableWebhook",
    summary = "Put a target that answered 410 back into service",
    description = "On the daemon that answers. Webhooks that ended meanwhile are sent by `POST /outbox/retry`.",
    params(("name" = String, Path, description = "The target's name in the configuration.")),
    responses((status = 200, description = "The target.", body = WebhookTarget)),
)]
async fn enable(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<WebhookTarget>, Problem> {
    web.engine.enable_webhook(&caller.name, &name).await?;
    let target = targets(&web).into_iter().find(|it| it.name == name);
    Ok(Json(
        target.ok_or_else(|| CommandError::NoWebhook { name, near: "a reload has removed it".to_owned() })?,
    ))
}
