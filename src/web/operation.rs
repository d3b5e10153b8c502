//! One operation of the API: its route, the role it needs, and the problems it may answer.
//!
//! A role is stated once: [`needs`] puts the check of the role before the handlers and writes the role
//! into the document, so the two cannot differ. An operation that answers a problem it does not list fails
//! the tests, which compare every answer with the document.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Required, SecurityRequirement};
use utoipa_axum::router::UtoipaMethodRouter;

use super::Web;
use super::auth::Caller;
use super::problem::Problem;
use crate::api::problem::Code;
use crate::domain::role::Role;

/// The name of the security scheme: a bearer token.
pub(super) const TOKEN: &str = "token";

/// The problems of every operation that takes a token.
const WITH_TOKEN: [Code; 5] =
    [Code::Unauthenticated, Code::Forbidden, Code::TooManyFailures, Code::Database, Code::Internal];

/// The problems of a request body that is JSON.
pub(super) const BODY: [Code; 3] = [Code::Malformed, Code::TooLarge, Code::Invalid];

/// The problems of query parameters.
pub(super) const QUERY: [Code; 2] = [Code::Malformed, Code::Invalid];

/// The problems of a call to Atlas.
pub(super) const ATLAS: [Code; 6] = [
    Code::AtlasAuth,
    Code::AtlasNotFound,
    Code::AtlasTooOld,
    Code::AtlasBusy,
    Code::AtlasUnreachable,
    Code::AtlasRefused,
];

/// Operations that need `role`, and the problems they may answer beside those of a token.
pub(super) fn needs(
    web: &Web,
    role: Role,
    problems: &[&[Code]],
    routes: UtoipaMethodRouter<Web>,
) -> UtoipaMethodRouter<Web> {
    needs_one_of(web, &[role], problems, routes)
}

/// Operations that need one of `roles`.
pub(super) fn needs_one_of(
    web: &Web,
    roles: &[Role],
    problems: &[&[Code]],
    (schemas, mut paths, routes): UtoipaMethodRouter<Web>,
) -> UtoipaMethodRouter<Web> {
    let names: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    for operation in paths.paths.values_mut().flat_map(operations) {
        // Of several requirements one is enough.
        let requirements = names.iter().map(|role| SecurityRequirement::new(TOKEN, [*role]));
        operation.security = Some(requirements.collect());
        let extensions = operation.extensions.get_or_insert_default();
        let stated = match names[..] {
            [role] => role.into(),
            _ => names.clone().into(),
        };
        extensions.insert("x-required-role".to_owned(), stated);
        let role = format!("Needs the role `{}`.", names.join("` or `"));
        operation.description = Some(match operation.description.take().filter(|text| !text.is_empty()) {
            Some(text) => format!("{text}\n\n{role}"),
            None => role,
        });
        document(operation, problems.iter().copied().flatten().chain(&WITH_TOKEN));
    }
    let roles: Arc<[Role]> = roles.into();
    (schemas, paths, routes.route_layer(from_fn_with_state((web.clone(), roles), admit)))
}

/// Operations on fields of which most changes need `admin`, whatever role the operation needs. The engine
/// enforces it (`engine/command/loosening.rs`).
pub(super) fn with_admin_fields(
    fields: impl Iterator<Item = String>,
    (schemas, mut paths, routes): UtoipaMethodRouter<Web>,
) -> UtoipaMethodRouter<Web> {
    let fields: Vec<String> = fields.collect();
    for operation in paths.paths.values_mut().flat_map(operations) {
        let roles: BTreeMap<&str, &str> =
            fields.iter().map(|it| (it.as_str(), Role::Admin.as_str())).collect();
        let extensions = operation.extensions.get_or_insert_default();
        extensions.insert("x-field-roles".to_owned(), serde_json::json!(roles));
        let names: Vec<_> = fields.iter().map(|field| format!("`{field}`")).collect();
        let text = format!(
            "Needs the role `admin` for {}, unless the change is tighter: the first window, a part of several windows, a \
             shorter interval or TTL, or more approvals, up to the number of people who may approve. Its author may undo \
             such a change within an hour. `credential`, `kms` and `alias` are free where `autoApprove` is off. Every \
             other change of these fields is announced and takes effect `policy.loosen_after` later.",
            names.join(", ")
        );
        operation.description = Some(match operation.description.take().filter(|text| !text.is_empty()) {
            Some(before) => format!("{before}\n\n{text}"),
            None => text,
        });
    }
    (schemas, paths, routes)
}

/// Operations whose request body may be left out.
pub(super) fn body_optional(
    (schemas, mut paths, routes): UtoipaMethodRouter<Web>,
) -> UtoipaMethodRouter<Web> {
    for operation in paths.paths.values_mut().flat_map(operations) {
        if let Some(RefOr::T(body)) = &mut operation.request_body {
            body.required = Some(Required::False);
        }
    }
    (schemas, paths, routes)
}

/// Operations that take no token, and the problems they may answer.
pub(super) fn open(
    problems: &[Code],
    (schemas, mut paths, routes): UtoipaMethodRouter<Web>,
) -> UtoipaMethodRouter<Web> {
    for operation in paths.paths.values_mut().flat_map(operations) {
        operation.security = Some(Vec::new());
        document(operation, problems.iter().chain(&[Code::Internal]));
    }
    (schemas, paths, routes)
}

/// Lets callers with one of the roles through. Handlers find the caller among the request's extensions.
async fn admit(
    State((web, roles)): State<(Web, Arc<[Role]>)>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::identify(&parts, &web).await?;
    caller.must_be_one_of(&roles)?;
    parts.extensions.insert(caller);
    Ok(next.run(Request::from_parts(parts, body)).await)
}

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, options, head, patch, trace, .. } = path;
    [get, put, post, delete, options, head, patch, trace].into_iter().flatten()
}

/// Adds a response for each status, with the codes that may come with it.
fn document<'a>(operation: &mut Operation, problems: impl Iterator<Item = &'a Code>) {
    let mut by_status = BTreeMap::<u16, Vec<Code>>::new();
    for code in problems {
        for status in code.statuses() {
            let codes = by_status.entry(*status).or_default();
            if !codes.contains(code) {
                codes.push(*code);
            }
        }
    }
    for (status, codes) in by_status {
        let meanings: Vec<_> = codes.iter().map(|code| format!("`{code}`: {}", code.meaning())).collect();
        let one_of = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(codes.iter().map(|code| code.as_str())));
        let schema = AllOfBuilder::new()
            .item(Ref::from_schema_name("Problem"))
            .item(ObjectBuilder::new().property("code", one_of));
        let content = ContentBuilder::new().schema(Some(RefOr::T(schema.build().into()))).build();
        let response = ResponseBuilder::new()
            .description(format!("{}.", meanings.join("; ")))
            .content("application/problem+json", content);
        operation.responses.responses.insert(status.to_string(), response.build().into());
    }
}
