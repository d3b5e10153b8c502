//! The audit log.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Paging, Query, views};
use crate::api::record::AuditEntry;
use crate::api::{AuditPage, Listed, NumberedPage, Page};
use crate::domain::role::Role;
use crate::web::Web;
use crate::web::operation::{QUERY, needs};
use crate::web::problem::Problem;

pub(super) fn routes(web: &Web) -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(needs(web, Role::Viewer, &[&QUERY], routes!(list)))
}

#[utoipa::path(
    get, path = "/audit", tag = "watching", operation_id = "listAudit",
    summary = "List the audit log, the newest row first",
    params(NumberedPage),
    responses((status = 200, description = "A page of the audit log.", body = AuditPage)),
)]
async fn list(
    State(web): State<Web>,
    Query(page): Query<NumberedPage>,
) -> Result<Json<Page<Listed<AuditEntry>>>, Problem> {
    let paging = Paging::new(page.limit, page.cursor);
    let rows = web.engine.store.list_audit(paging.after()?, paging.limit).await?;
    Ok(paging.listed(rows, |row| row.seq.to_string(), views::audit))
}
