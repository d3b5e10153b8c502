//! The outbox: mails and webhooks, delivered or not.

use axum::extract::State;
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Paging, Path, Query, views};
use crate::api::problem::Code;
use crate::api::record::{Mail, SettledMessages};
use crate::api::{IdentifiedPage, Listed, MailPage, Page};
use crate::domain::ids::OutboxId;
use crate::domain::role::Role;
use crate::web::Web;
use crate::web::auth::Caller;
use crate::web::operation::{QUERY, needs};
use crate::web::problem::Problem;

pub(super) fn routes(web: &Web) -> OpenApiRouter<Web> {
    let unknown = [Code::NotFound, Code::MailNotFound];
    let settle = |routes| needs(web, Role::Operator, &[&unknown, &[Code::Invalid]], routes);
    let settle_all = |routes| needs(web, Role::Operator, &[], routes);
    OpenApiRouter::new()
        .routes(needs(web, Role::Viewer, &[&QUERY], routes!(list)))
        .routes(needs(web, Role::Viewer, &[&unknown], routes!(show)))
        .routes(settle(routes!(retry)))
        .routes(settle(routes!(dismiss)))
        .routes(settle_all(routes!(retry_failed)))
        .routes(settle_all(routes!(dismiss_failed)))
}

#[utoipa::path(
    get, path = "/outbox", tag = "watching", operation_id = "listMails",
    summary = "List mails and webhooks, the newest first",
    params(IdentifiedPage),
    responses((status = 200, description = "A page of the outbox.", body = MailPage)),
)]
async fn list(
    State(web): State<Web>,
    Query(page): Query<IdentifiedPage>,
) -> Result<Json<Page<Listed<Mail>>>, Problem> {
    let paging = Paging::new(page.limit, page.cursor);
    let rows = web.engine.store.list_outbox(paging.after()?, paging.limit).await?;
    Ok(paging.listed(rows, |row| row.id.to_string(), |row| views::mail(row, &web.engine)))
}

#[utoipa::path(
    get, path = "/outbox/{id}", tag = "watching", operation_id = "showMail",
    summary = "Show a mail or a webhook",
    params(("id" = OutboxId, Path, description = "The message's id.")),
    responses((status = 200, description = "The message.", body = Mail)),
)]
async fn show(State(web): State<Web>, Path(id): Path<OutboxId>) -> Result<Json<Mail>, Problem> {
    let row = web.engine.store.outbox_row(id).await?;
    let row = row.ok_or_else(|| Problem::new(Code::MailNotFound, format!("there is no message {id}")))?;
    Ok(Json(views::mail(row, &web.engine)))
}

#[utoipa::path(
    post, path = "/outbox/{id}/retry", tag = "watching", operation_id = "retryMail",
    summary = "Try a message again at once",
    description = "One that failed or waits. From then on it is tried as a new one is, for five days.",
    params(("id" = OutboxId, Path, description = "The message's id.")),
    responses((status = 200, description = "The message.", body = Mail)),
)]
async fn retry(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<OutboxId>,
) -> Result<Json<Mail>, Problem> {
    web.engine.retry_messages(&caller.name, Some(id)).await?;
    show(State(web), Path(id)).await
}

#[utoipa::path(
    post, path = "/outbox/{id}/dismiss", tag = "watching", operation_id = "dismissMail",
    summary = "Dismiss a message that failed",
    description = "It is not sent, and counts as failed no more.",
    params(("id" = OutboxId, Path, description = "The message's id.")),
    responses((status = 200, description = "The message.", body = Mail)),
)]
async fn dismiss(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<OutboxId>,
) -> Result<Json<Mail>, Problem> {
    web.engine.dismiss_messages(&caller.name, Some(id)).await?;
    show(State(web), Path(id)).await
}

#[utoipa::path(
    post, path = "/outbox/retry", tag = "watching", operation_id = "retryFailedMails",
    summary = "Try every message that failed again",
    responses((status = 200, description = "How many.", body = SettledMessages)),
)]
async fn retry_failed(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<SettledMessages>, Problem> {
    let messages = web.engine.retry_messages(&caller.name, None).await?;
    Ok(Json(SettledMessages { messages }))
}

#[utoipa::path(
    post, path = "/outbox/dismiss", tag = "watching", operation_id = "dismissFailedMails",
    summary = "Dismiss every message that failed",
    responses((status = 200, description = "How many.", body = SettledMessages)),
)]
async fn dismiss_failed(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<SettledMessages>, Problem> {
    let messages = web.engine.dismiss_messages(&caller.name, None).await?;
    Ok(Json(SettledMessages { messages }))
}
