//! One HTTP round trip to a key service or to its token endpoint.
//!
//! A trip ends in time, follows no redirect (it would carry the token elsewhere), and never holds
//! more than [`BODY_CAP`] of a body. Headers, bodies and queries are never logged, and no message
//! holds a URL. The caller interprets the reply.

use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::Value;
use url::Url;

use super::error::KmsError;
use crate::net::body::{self, BodyError};
use crate::net::cause::root_cause;
use crate::net::client::{self, BuildError};

/// The longest body that is read, in bytes after decompression.
const BODY_CAP: usize = 1024 * 1024;

/// A client for one kind of host.
#[derive(Debug)]
pub(super) struct Http {
    client: reqwest::Client,
}

/// A reply with its status.
pub(super) struct KmsResponse {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Http {
    /// A client for `base` and the paths below; `None` for any https host that a key names.
    ///
    /// # Errors
    /// Fails when TLS cannot be set up.
    pub(super) fn new(base: Option<&Url>, timeout: Duration) -> Result<Self, BuildError> {
        let builder = client::builder(base, timeout).read_timeout(timeout).timeout(timeout);
        Ok(Self { client: client::build(builder)? })
    }

    pub(super) fn get(&self, url: Url) -> RequestBuilder {
        self.client.get(url)
    }

    pub(super) fn post(&self, url: Url) -> RequestBuilder {
        self.client.post(url)
    }
}

/// Sends a request and reads the whole reply.
///
/// # Errors
/// `Unreachable` without a reply, `Broken` for a reply that cannot be read.
pub(super) async fn send(request: RequestBuilder, service: &str) -> Result<KmsResponse, KmsError> {
    let mut response = request.send().await.map_err(|error| unreachable(&error.without_url(), service))?;
    let status = response.status().as_u16();
    let body = body::read(&mut response, BODY_CAP).await.map_err(|error| match error {
        BodyError::TooLong => KmsError::broken(format!("the reply of {service} is larger than 1 MiB")),
        BodyError::Broken(error) => unreachable(&error, service),
    })?;
    if (300..400).contains(&status) {
        return Err(KmsError::broken(format!(
            "{service} answered {status}, a redirect, which is not followed"
        )));
    }
    Ok(KmsResponse { status, body })
}

fn unreachable(error: &reqwest::Error, service: &str) -> KmsError {
    if error.is_builder() {
        return KmsError::broken(format!("the request to {service} could not be put together"));
    }
    let what = if error.is_timeout() { "did not answer in time" } else { "cannot be reached" };
    KmsError::unreachable(format!("{service} {what}: {}", root_cause(error)))
}

impl KmsResponse {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The same reply with `secret` masked, in case the service sent it back. Called before any part of the
    /// reply is cut or quoted, because a cut secret would not be found.
    pub(super) fn without(self, secret: &str) -> Self {
        fn mask(value: &mut Value, secret: &str) {
            match value {
                Value::String(text) if text.contains(secret) => *text = text.replace(secret, "***"),
                Value::Array(items) => items.iter_mut().for_each(|item| mask(item, secret)),
                Value::Object(fields) => fields.values_mut().for_each(|field| mask(field, secret)),
                _ => {}
            }
        }
        let mut body = self.json();
        if !secret.is_empty() {
            mask(&mut body, secret);
        }
        Self { status: self.status, body: body.to_string().into_bytes() }
    }

    /// The body as JSON; null when it is not JSON.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The JSON object of a successful reply.
    pub(super) fn object(&self, service: &str) -> Result<Value, KmsError> {
        match self.json() {
            body @ Value::Object(_) => Ok(body),
            _ => Err(KmsError::broken(format!("the reply of {service} is no JSON object"))),
        }
    }
}

/// `base` with more path segments, each escaped as needed; its query is kept.
pub(super) fn below<'a>(base: &Url, segments: impl IntoIterator<Item = &'a str>) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_masked_before_a_text_is_cut() {
        let secret = "canary".repeat(50);
        let body = serde_json::json!({ "error": { "message": format!("{}{secret}", "x".repeat(1900)) } });
        let reply = KmsResponse { status: 400, body: body.to_string().into_bytes() }.without(&secret);
        let error = KmsError::broken(reply.json()["error"]["message"].as_str().unwrap());
        assert!(error.message.ends_with("x***"), "{error}");
    }
}
