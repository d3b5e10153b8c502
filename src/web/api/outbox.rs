//! The outbox: mails and webhooks, delivered or not.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Paging, Path, Query, views};
use crate::api::problem::Code;
use crate::api::record::Mail;
use crate::api::{IdentifiedPage, Listed, MailPage, Page};
use crate::domain::ids::OutboxId;
use crate::domain::role::Role;
use crate::web::Web;
use crate::web::operation::{QUERY, needs};
use crate::web::problem::Problem;

pub(super) fn routes(web: &Web) -> OpenApiRouter<Web> {
    let unknown = [Code::NotFound, Code::MailNotFound];
    OpenApiRouter::new().routes(needs(web, Role::Viewer, &[&QUERY], routes!(list))).routes(needs(
        web,
        Role::Viewer,
        &[&unknown],
        routes!(show),
    ))
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
    Ok(paging.listed(rows, |row| row.id.to_string(), views::mail))
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
    Ok(Json(views::mail(row)))
}
