//! The document of the API: `OpenAPI` 3.1, generated from the routes and from the types in [`crate::api`].

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::ToSchema;
use utoipa::openapi::schema::{AdditionalProperties, Schema};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::Tag;
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, RefOr, SecurityRequirement};
use utoipa_axum::router::OpenApiRouter;

use super::operation::TOKEN;
use super::problem::Problem;
use super::{API, Web, api, hooks, probes};
use crate::api::problem::{self, Code};
use crate::api::rotation::JournalEntry;
use crate::domain::role::Role;

const DESCRIPTION: &str = "Rotates the customer-managed encryption keys of MongoDB Atlas projects, and verifies \
each new key. JSON in camelCase, problems as RFC 9457, instants in UTC with microseconds. Lists come in pages. \
Answers may get further members. Bearer tokens come from `keywheel token create`; the identity in approvals and \
in the audit log is the token's name. Each operation names the role that it needs.";

/// The document without its routes.
fn frame() -> OpenApi {
    let roles: Vec<_> = Role::ALL.iter().map(|role| format!("`{role}`: {}", role.meaning())).collect();
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(format!("Roles: {}.", roles.join(". "))))
        .build();
    // No route names these schemas: the problems of every operation, and the data of the streams' events.
    let mut schemas = Vec::new();
    problem::Problem::schemas(&mut schemas);
    JournalEntry::schemas(&mut schemas);
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .schema_from::<problem::Problem>()
        .schema_from::<JournalEntry>()
        .security_scheme(TOKEN, SecurityScheme::Http(token));
    OpenApiBuilder::new()
        .info(InfoBuilder::new().title("Keywheel").version("1").description(Some(DESCRIPTION)))
        .tags(Some(["projects", "rotations", "people", "watching", "probes", "hooks"].map(Tag::new)))
        .security(Some([SecurityRequirement::new(TOKEN, [""; 0])]))
        .components(Some(components.build()))
        .build()
}

/// The document as it is served, made at the first request: few daemons are ever asked for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Served(Arc<OnceLock<Bytes>>);

/// The document of all routes, this one included.
fn document(web: &Web) -> OpenApi {
    let routes = OpenApiRouter::with_openapi(frame()).nest(API, api::described(web));
    let mut document = routes.merge(hooks::routes()).merge(probes()).into_openapi();
    document.components.get_or_insert_default().schemas.values_mut().for_each(complete);
    document
}

/// Marks the members of answers as required. An answer carries all of its members, null where there is no
/// value; only a problem document leaves out members without a value. A schema that refuses unknown members
/// is a request.
fn complete(schema: &mut RefOr<Schema>) {
    let RefOr::T(Schema::Object(object)) = schema else { return };
    let request =
        matches!(object.additional_properties.as_deref(), Some(AdditionalProperties::FreeForm(false)));
    let problem = object.properties.contains_key("code");
    if request || problem {
        return;
    }
    let required: BTreeSet<_> = object.properties.keys().cloned().collect();
    object.required = required.into_iter().collect();
}

#[utoipa::path(
    get, path = "/openapi.json", tag = "probes", operation_id = "openapi",
    summary = "This document",
    responses((status = 200, description = "The document.", body = Object)),
)]
pub(super) async fn show(
    State(web): State<Web>,
    Extension(Served(served)): Extension<Served>,
) -> Result<Response, Problem> {
    let text = if let Some(text) = served.get() {
        text.clone()
    } else {
        let text = serde_json::to_vec(&document(&web)).map_err(|error| {
            tracing::error!(error = %error, "the document of the API cannot be written as JSON");
            Problem::new(
                Code::Internal,
                "the document of the API could not be written; the server's log has the reason",
            )
        })?;
        served.get_or_init(|| text.into()).clone()
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}
