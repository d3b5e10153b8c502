//! Reviews of emergency rotations: list and close.

use axum::extract::State;
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Object, Path, Query};
use crate::api::ReviewPage;
use crate::api::problem::Code;
use crate::api::review::{Finding, Review, ReviewQuery};
use crate::domain::ids::RotationId;
use crate::domain::role::Role;
use crate::store;
use crate::web::Web;
use crate::web::auth::Caller;
use crate::web::operation::{BODY, QUERY, needs};
use crate::web::problem::Problem;

pub(super) fn routes(web: &Web) -> OpenApiRouter<Web> {
    let refused =
        [Code::NotFound, Code::RotationNotFound, Code::ReviewNotClosed, Code::Tampered, Code::Conflict];
    OpenApiRouter::new()
        .routes(needs(web, Role::Viewer, &[&QUERY, &[Code::Tampered]], routes!(list)))
        .routes(needs(web, Role::Approver, &[&BODY, &refused], routes!(close)))
}

fn view(it: store::Review) -> Review {
    Review {
        rotation_id: it.rotation_id,
        group_id: it.group_id,
        project_name: it.project_name,
        requested_by: it.requested_by,
        requested_at: it.requested_at,
        reason: it.reason,
        closed_by: it.closed_by,
        closed_at: it.closed_at,
        finding: it.finding,
    }
}

#[utoipa::path(
    get, path = "/reviews", tag = "rotations", operation_id = "listReviews",
    summary = "List the reviews of emergency rotations",
    description = "Each emergency rotation leaves one. Until another person has closed it, who proposed the rotation proposes no second one.",
    params(ReviewQuery),
    responses((status = 200, description = "The reviews, the oldest first.", body = ReviewPage)),
)]
async fn list(State(web): State<Web>, Query(query): Query<ReviewQuery>) -> Result<Json<ReviewPage>, Problem> {
    let mut all = web.engine.reviews().await?;
    all.retain(|it| query.all || it.is_open());
    Ok(Json(ReviewPage { items: all.into_iter().map(view).collect(), next: None }))
}

#[utoipa::path(
    post, path = "/rotations/{rotationId}/review/close", tag = "rotations", operation_id = "closeReview",
    summary = "Close the review of an emergency rotation",
    description = "After the rotation's end, by another person than the one who proposed it.",
    params(("rotationId" = RotationId, Path, description = "The emergency rotation.")),
    request_body = Finding,
    responses((status = 200, description = "The review, closed.", body = Review)),
)]
async fn close(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<RotationId>,
    Object(body): Object<Finding>,
) -> Result<Json<Review>, Problem> {
    Ok(Json(view(web.engine.close_review(caller.actor(), id, &body.finding).await?)))
}
