//! The JSON API. One file for each resource; [`views`] says how rows look from outside.

mod discover;
mod projects;
mod rotations;
mod views;
mod watch;

use std::marker::PhantomData;

use axum::Router;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::Web;
use super::problem::Problem;

/// Everything but the streams, which outlive any time limit.
pub(super) fn routes() -> Router<Web> {
    Router::new()
        .route("/projects", get(projects::list).post(projects::add))
        .route("/projects/{group_id}", get(projects::show).patch(projects::edit).delete(projects::remove))
        .route("/projects/{group_id}/why", get(projects::why))
        .route("/projects/{group_id}/keys", get(projects::keys))
        .route("/projects/{group_id}/rotations", post(rotations::propose))
        .route("/discover", get(discover::list))
        .route("/rotations", get(rotations::list))
        .route("/rotations/{id}", get(rotations::show))
        .route("/rotations/{id}/journal", get(rotations::journal))
        .route("/rotations/{id}/{verb}", post(rotations::say))
        .route("/audit", get(watch::audit))
        .route("/status", get(watch::status))
        .route("/hooks", get(watch::hooks))
        .route("/outbox", get(watch::outbox))
        .route("/outbox/{id}", get(watch::mail))
}

/// The server-sent events.
pub(super) fn streams() -> Router<Web> {
    Router::new().route("/rotations/{id}/stream", get(rotations::stream))
}

/// A request body, a JSON object; what does not fit is a problem document that names the field.
struct Json<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let body = Body::from_request(Request::from_parts(parts.clone(), body), state).await?.0;
        // Missing or foreign content types are the extractor's to refuse, so it sees them too.
        no_array(&body)?;
        let request = Request::from_parts(parts, axum::body::Body::from(body));
        Ok(Self(axum::Json::from_request(request, state).await?.0))
    }
}

fn no_array(body: &[u8]) -> Result<(), Problem> {
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "body: takes an object {...}"));
    }
    Ok(())
}

/// A member that is an object. A struct would be read from an array too, field by field, which
/// nobody who writes JSON means.
fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    struct Member<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Member<T> {
        type Value = Option<T>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object {...} or null")
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
            from.deserialize_any(self)
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }
    from.deserialize_option(Member(PhantomData))
}

/// Query parameters, likewise.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
struct Query<T>(T);

/// Path parameters, likewise.
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
            JsonRejection::JsonDataError(error) => {
                let text = error.body_text();
                // The extractor puts the path of the field before the parser's words.
                let text = text.split_once("target type: ").map_or(text.as_str(), |(_, rest)| rest);
                match text.split_once(": ") {
                    Some((field, rule)) if field != "." && !field.contains(' ') => {
                        Problem::invalid(field, rule)
                    }
                    Some((".", rule)) => {
                        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", format!("body: {rule}"))
                    }
                    _ => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", format!("body: {text}")),
                }
            }
            other => Problem::new(other.status(), "malformed", other.body_text()),
        }
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                format!("a request body may have {} KiB", super::BODY_LIMIT / 1024),
            );
        }
        Problem::new(rejection.status(), "malformed", rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Problem::new(rejection.status(), "malformed", rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(_: PathRejection) -> Self {
        // What is no id names nothing.
        Problem::new(
            StatusCode::NOT_FOUND,
            "not-found",
            "the id in this address is none: it takes 32 hexadecimal digits with dashes",
        )
    }
}

/// The paging parameters of every list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    limit: Option<usize>,
    cursor: Option<String>,
}

impl Page {
    /// Rows a page may hold: 100 unless asked, 500 at most.
    fn limit(&self) -> usize {
        self.limit.unwrap_or(100).clamp(1, 500)
    }

    /// The cursor as the row key it is.
    fn after<T: std::str::FromStr>(&self) -> Result<Option<T>, Problem> {
        self.cursor
            .as_deref()
            .map(|text| {
                text.parse()
                    .map_err(|_| Problem::invalid("cursor", "give back `next` as the last page had it"))
            })
            .transpose()
    }
}

/// A word from a fixed list; a problem names the list.
fn word<T>(field: &str, text: Option<&str>, all: &[T]) -> Result<Option<T>, Problem>
where
    T: std::str::FromStr<Err: std::fmt::Display> + std::fmt::Display,
{
    text.map(str::parse).transpose().map_err(|error| {
        let all: Vec<_> = all.iter().map(ToString::to_string).collect();
        Problem::invalid(field, format!("{error}; it is one of {}", all.join(", ")))
    })
}

/// A page as it leaves.
#[expect(clippy::needless_pass_by_value, reason = "both are built for this call")]
fn page(items: Vec<Value>, next: Option<String>) -> axum::Json<Value> {
    axum::Json(json!({ "items": items, "next": next }))
}
