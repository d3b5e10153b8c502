//! Evidence bundles: made on request, and sent as a file.

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Object;
use crate::api::evidence::EvidenceExport;
use crate::api::problem::Code;
use crate::domain::role::Role;
use crate::engine::evidence::{EvidenceRequest, MadeBundle};
use crate::web::Web;
use crate::web::auth::Caller;
use crate::web::operation::{BODY, needs};
use crate::web::problem::Problem;

pub(super) fn routes(web: &Web) -> OpenApiRouter<Web> {
    let refused = [Code::NoEvidence, Code::ProjectNotFound];
    OpenApiRouter::new().routes(needs(web, Role::Auditor, &[&BODY, &refused], routes!(export)))
}

#[utoipa::path(
    post, path = "/evidence", tag = "watching", operation_id = "exportEvidence",
    summary = "Export the evidence of a period as a signed bundle (zip)",
    description = "Every rotation that was open at any time in the period, with all that was recorded about each, and the audit log from the first row that concerns them to its end. The format is specified in docs/evidence.md. The export is a row of the audit log.",
    request_body = EvidenceExport,
    responses((status = 200, description = "The bundle.", body = Vec<u8>, content_type = "application/zip")),
)]
async fn export(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Object(body): Object<EvidenceExport>,
) -> Result<Response, Problem> {
    let asked = EvidenceRequest { from: body.from, to: body.to, project: body.group_id };
    Ok(answer(web.engine.export_evidence(&caller.name, &asked).await?))
}

/// A bundle as an answer.
pub(in crate::web) fn answer(made: MadeBundle) -> Response {
    let MadeBundle { bytes, size, name } = made;
    let headers = [
        (header::CONTENT_TYPE, "application/zip".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    let parts = stream::try_unfold(bytes, |bytes| async move {
        let part = bytes.read().await?;
        Ok::<_, std::io::Error>((!part.is_empty()).then(|| (Bytes::from(part), bytes)))
    });
    (headers, Body::from_stream(parts)).into_response()
}
