//! Errors over HTTP: RFC 9457 problem documents with a stable `code`.
//!
//! The detail is safe to show. What went wrong inside goes to the log, once, here.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::domain::rotation::outcome::{Class, Failure};
use crate::engine::command::CommandError;
use crate::store::StoreError;

/// One problem document.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    more: Map<String, Value>,
}

impl Problem {
    /// A problem with a stable code and a text for people.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), more: Map::new() }
    }

    /// Adds a member of its own.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.more.insert(name.to_owned(), value);
        self
    }

    /// A field of the request that does not hold.
    pub fn invalid(field: &str, rule: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", format!("{field}: {rule}"))
            .with("field", json!(field))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = self.more;
        body.insert("type".to_owned(), json!(format!("urn:keywheel:problem:{}", self.code)));
        body.insert("title".to_owned(), json!(self.status.canonical_reason().unwrap_or("Error")));
        body.insert("status".to_owned(), json!(self.status.as_u16()));
        body.insert("code".to_owned(), json!(self.code));
        body.insert("detail".to_owned(), json!(self.detail));
        let mut response = (
            self.status,
            [(header::CONTENT_TYPE, "application/problem+json")],
            Value::Object(body).to_string(),
        )
            .into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict => Self::new(
                StatusCode::CONFLICT,
                "conflict",
                "somebody changed this at the same moment; read it again and retry",
            ),
            StoreError::Unsure(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "database",
                "the database did not say whether this was written; read it again before you repeat it",
            ),
            other => {
                tracing::error!(error = %other, "a request failed at the database");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "database",
                    "the database refused; nothing was changed. The log says more",
                )
            }
        }
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        use CommandError as E;
        let detail = error.to_string();
        let (status, code) = match &error {
            E::NoProject(_) => (StatusCode::NOT_FOUND, "project-not-found"),
            E::NoRotation(_) => (StatusCode::NOT_FOUND, "rotation-not-found"),
            E::BadGroupId(_) => (StatusCode::UNPROCESSABLE_ENTITY, "group-id-invalid"),
            E::ProjectExists(_) => (StatusCode::CONFLICT, "project-exists"),
            E::Invalid { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            E::KeyInvalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "key-invalid"),
            E::KeyOtherPlace(_) => (StatusCode::UNPROCESSABLE_ENTITY, "key-other-place"),
            E::KeyUnchanged(_) => (StatusCode::UNPROCESSABLE_ENTITY, "key-unchanged"),
            E::Versionless(_) => (StatusCode::CONFLICT, "versionless"),
            E::Preflight(_) => (StatusCode::CONFLICT, "preflight-failed"),
            E::RotationOpen { .. } | E::RemoveWhileOpen { .. } => (StatusCode::CONFLICT, "rotation-open"),
            E::Illegal { .. } => (StatusCode::CONFLICT, "illegal-transition"),
            E::SelfApproval(_) => (StatusCode::FORBIDDEN, "self-approval"),
            E::NothingToWithdraw(_) => (StatusCode::CONFLICT, "nothing-to-withdraw"),
            E::ProposalChanged => (StatusCode::CONFLICT, "proposal-changed"),
            E::Atlas(failure) => return atlas(failure),
            E::Store(_) => {
                return match error {
                    E::Store(inner) => inner.into(),
                    _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail),
                };
            }
        };
        let problem = Self::new(status, code, detail);
        match error {
            E::RotationOpen { id, .. } | E::RemoveWhileOpen { id, .. } => {
                problem.with("rotationId", json!(id))
            }
            E::KeyInvalid(inner) | E::KeyOtherPlace(inner) => problem.with("rule", json!(inner.rule)),
            E::Invalid { field, .. } => problem.with("field", json!(field)),
            E::Illegal { state, .. } => problem.with("state", json!(state)),
            _ => problem,
        }
    }
}

fn atlas(failure: &Failure) -> Problem {
    let code = match failure.class {
        Class::Auth => "atlas-auth",
        Class::Gone => "atlas-not-found",
        Class::Transient => "atlas-busy",
        Class::Unknown => "atlas-unreachable",
        Class::BadKey | Class::Refused | Class::Config => "atlas-refused",
    };
    let said = match &failure.code {
        Some(code) => format!("Atlas answered {code}: {}", failure.detail),
        None => format!("Atlas: {}", failure.detail),
    };
    Problem::new(StatusCode::BAD_GATEWAY, code, said)
        .with("atlasErrorCode", json!(failure.code))
        .with("atlasDetail", json!(failure.detail))
}
