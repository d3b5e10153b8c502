//! The JSON API. One file for each resource; [`views`] turns rows into answers.
//!
//! Each file begins with its routes, the role that each operation needs and the problems it may answer;
//! [`operation`](super::operation) enforces and documents them.

mod audit;
mod conditions;
mod discover;
pub(super) mod evidence;
mod hooks;
mod loosenings;
mod outbox;
mod passkeys;
mod people;
mod plan;
mod projects;
mod reviews;
pub(super) mod rotations;
mod status;
pub(super) mod stream;
mod views;
mod webhooks;

use axum::Router;
use axum::extract::rejection::{BytesRejection, JsonDataError, JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use tower_http::timeout::TimeoutLayer;
use utoipa_axum::router::OpenApiRouter;

use super::Web;
use super::problem::Problem;
use crate::api::problem::Code;
use crate::api::{CorruptRow, Listed, Page};
use crate::domain::named::UnknownName;
use crate::domain::text::with_nearest;
use crate::net::cause::{causes, root_cause};
use crate::store;

/// Everything but the streams and the bundles, which outlive any time limit.
const RESOURCES: [fn(&Web) -> OpenApiRouter<Web>; 14] = [
    projects::routes,
    loosenings::routes,
    passkeys::routes,
    people::routes,
    discover::routes,
    rotations::routes,
    reviews::routes,
    plan::routes,
    audit::routes,
    status::routes,
    conditions::routes,
    hooks::routes,
    webhooks::routes,
    outbox::routes,
];

/// The routes as they are served, with a time limit for all but the streams and the bundles. Each resource's part of the document
/// is dropped before the next is made: all of them together would leave megabytes of the heap unused.
pub(super) fn router(web: &Web, limit: TimeoutLayer) -> Router<Web> {
    let limited = RESOURCES.iter().fold(Router::new(), |all, routes| all.merge(Router::from(routes(web))));
    let unlimited = stream::routes(web).merge(evidence::routes(web));
    limited.layer(limit).merge(Router::from(unlimited))
}

/// The routes with their document.
pub(super) fn described(web: &Web) -> OpenApiRouter<Web> {
    let unlimited = stream::routes(web).merge(evidence::routes(web));
    RESOURCES.iter().fold(unlimited, |all, routes| all.merge(routes(web)))
}

/// A request body that is a JSON object. The problem of a body that does not fit names the field.
struct Object<T>(T);

impl<T: DeserializeOwned> Object<T> {
    fn from_bytes(body: &[u8]) -> Result<Self, Problem> {
        no_array(body)?;
        Ok(Self(axum::Json::from_bytes(body)?.0))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Object<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let body = Body::from_request(Request::from_parts(parts.clone(), body), state).await?.0;
        // The extractor refuses missing and foreign content types, so it gets the headers too.
        no_array(&body)?;
        let request = Request::from_parts(parts, axum::body::Body::from(body));
        Ok(Self(axum::Json::from_request(request, state).await?.0))
    }
}

/// Refuses an array. Serde accepts one for a struct, field by field, which no sender of JSON means.
fn no_array(body: &[u8]) -> Result<(), Problem> {
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::new(Code::Invalid, "body: takes an object {...}"));
    }
    Ok(())
}

/// Query parameters; those that cannot be read are a problem document.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
struct Query<T>(T);

/// Path parameters; those that cannot be read are a problem document.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
struct Path<T>(T);

/// A body that may be left out.
#[derive(FromRequest)]
#[from_request(rejection(Problem))]
struct Body(axum::body::Bytes);

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        match rejection {
            JsonRejection::BytesRejection(rejection) => rejection.into(),
            JsonRejection::JsonDataError(error) => unfit(&error),
            other => Problem::malformed(other.status(), other.body_text()),
        }
    }
}

/// The problem of a body that does not fit. The extractor wraps the parser's error, which has the path of
/// the member.
fn unfit(error: &JsonDataError) -> Problem {
    let parsed =
        causes(error).find_map(|cause| cause.downcast_ref::<serde_path_to_error::Error<serde_json::Error>>());
    match parsed.map(|it| (it.path(), with_nearest(&it.inner().to_string()))) {
        Some((path, rule)) if path.iter().len() > 0 => Problem::invalid(&path.to_string(), rule),
        Some((_, rule)) => Problem::new(Code::Invalid, format!("body: {rule}")),
        None => Problem::new(Code::Invalid, format!("body: {}", error.body_text())),
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return Problem::new(
                Code::TooLarge,
                format!("the body is larger than {} KiB", super::BODY_LIMIT / 1024),
            );
        }
        Problem::malformed(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        // The parser's words, behind the extractor's and the name of the parameter.
        let words = root_cause(&rejection);
        let words = words.split_once(": ").map_or(words.as_str(), |(_, rest)| rest);
        let near = with_nearest(words);
        let detail = if near == words { rejection.body_text() } else { format!("query: {near}") };
        Problem::malformed(rejection.status(), detail)
    }
}

impl From<PathRejection> for Problem {
    fn from(_: PathRejection) -> Self {
        // A text that is not an id names no rotation and no message.
        Problem::new(
            Code::NotFound,
            "the id in the URL is not valid: it takes 32 hexadecimal digits with dashes",
        )
    }
}

/// The page of a list that a request selects.
struct Paging {
    /// Rows of a page: 100 unless given, 500 at most.
    limit: usize,
    cursor: Option<String>,
}

impl Paging {
    fn new(limit: Option<usize>, cursor: Option<String>) -> Self {
        Self { limit: limit.unwrap_or(100).clamp(1, 500), cursor }
    }

    /// The cursor as a row key.
    fn after<T: std::str::FromStr>(&self) -> Result<Option<T>, Problem> {
        self.cursor
            .as_deref()
            .map(|text| {
                text.parse().map_err(|_| Problem::invalid("cursor", "it takes `next` of the page before"))
            })
            .transpose()
    }

    /// These rows as a page; those that cannot be read are shown by their ids, which are cursors too.
    fn listed<R, T>(
        &self,
        rows: Vec<store::Listed<R>>,
        cursor: impl Fn(&R) -> String,
        mut view: impl FnMut(R) -> T,
    ) -> axum::Json<Page<Listed<T>>> {
        let place = |row: &store::Listed<R>| row.as_ref().map_or_else(|corrupt| corrupt.id.clone(), &cursor);
        let next = self.next(&rows, place);
        axum::Json(Page { items: rows.into_iter().map(|row| listed_row(row, &mut view)).collect(), next })
    }

    /// The cursor after these rows, where more may follow.
    fn next<R>(&self, rows: &[R], cursor: impl Fn(&R) -> String) -> Option<String> {
        rows.last().filter(|_| rows.len() == self.limit).map(cursor)
    }
}

/// A row of a list for people.
fn listed_row<R, T>(row: store::Listed<R>, view: impl FnOnce(R) -> T) -> Listed<T> {
    match row {
        Ok(row) => Listed::Row(view(row)),
        Err(corrupt) => Listed::Corrupt(CorruptRow::new(corrupt.id)),
    }
}

/// Parses a word of a fixed list. The problem of another word names the most similar one, or the list.
fn word<T: std::str::FromStr<Err = UnknownName>>(
    field: &str,
    text: Option<&str>,
) -> Result<Option<T>, Problem> {
    text.map(str::parse).transpose().map_err(|error| Problem::invalid(field, error))
}
