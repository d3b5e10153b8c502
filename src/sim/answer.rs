//! The result of a handler: an object, a list, or a refusal in Atlas' own shape.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// The result of a handler.
pub(super) type SimResult = Result<SimReply, Refusal>;

/// A result before it is rendered.
pub(super) enum SimReply {
    /// One object.
    One(Value),
    /// A list, to be cut into pages.
    List(Vec<Value>),
}

/// A refusal in Atlas' own shape, or in that of OAuth.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    detail: String,
    parameters: Vec<Value>,
    headers: Vec<(&'static str, String)>,
    oauth: bool,
}

pub(super) fn refuse(status: u16, code: &'static str, detail: impl Into<String>) -> Refusal {
    Refusal {
        status: status_of(status),
        code,
        detail: detail.into(),
        parameters: Vec::new(),
        headers: Vec::new(),
        oauth: false,
    }
}

/// A failed log-in: Atlas gives no further reason.
pub(super) fn unauthorized() -> Refusal {
    refuse(401, "UNEXPECTED_ERROR", "You are not authorized for this resource.")
}

/// A refusal of the token endpoint.
pub(super) fn oauth(status: u16, error: &'static str, detail: &str) -> Refusal {
    Refusal { oauth: true, ..refuse(status, error, detail) }
}

impl Refusal {
    /// Adds the subject of the refusal, for programs.
    pub(super) fn about(mut self, parameter: impl Into<Value>) -> Self {
        self.parameters.push(parameter.into());
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = if self.oauth {
            json!({ "error": self.code, "error_description": self.detail })
        } else {
            json!({
                "error": self.status.as_u16(), "errorCode": self.code, "detail": self.detail,
                "reason": self.status.canonical_reason(), "parameters": self.parameters,
            })
        };
        // Only the reply to a failed log-in was observed with line breaks.
        let text =
            if self.status == StatusCode::UNAUTHORIZED { format!("{body:#}") } else { body.to_string() };
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], text).into_response();
        if !self.oauth {
            put(response.headers_mut(), "x-error-code", self.code);
        }
        for (name, value) in &self.headers {
            put(response.headers_mut(), name, value);
        }
        response
    }
}

pub(super) fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY)
}

pub(super) fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    // A value that is no header text cannot be sent; only the seed of a world could hold one.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}
