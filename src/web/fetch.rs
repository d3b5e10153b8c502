//! The GET requests that a verification needs: public keys, a certificate, a confirmation, what an issuer is.
//!
//! URLs are settings, were checked against a list, or come from an issuer's own document. No redirect is followed, no
//! answer is read beyond its limit, and no request takes longer than a sender waits.

use std::time::Duration;

use axum::http::StatusCode;

use crate::net::body::{self, BodyError};
use crate::net::cause::with_causes;
use crate::net::client::{self, BuildError};

/// Timeout of a request. SNS gives up after 15 s and an API destination after 5 s, and their answer must
/// still be written.
const LIMIT: Duration = Duration::from_secs(4);

/// Why a fetch failed. The URL is left out, because the URL of a confirmation holds a token.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{}", with_causes(.0))]
    Call(#[source] reqwest::Error),
    #[error("the answer was {0}")]
    Status(StatusCode),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// The client for these calls.
#[derive(Clone, Debug)]
pub(super) struct Fetcher(reqwest::Client);

impl Fetcher {
    /// # Errors
    /// When TLS cannot be set up.
    pub(super) fn new() -> Result<Self, BuildError> {
        client::build(client::builder(None, LIMIT).timeout(LIMIT)).map(Self)
    }

    /// The same over a client that its caller has built.
    pub(super) const fn over(client: reqwest::Client) -> Self {
        Self(client)
    }

    /// The body of a good answer, at most `limit` bytes of it.
    pub(super) async fn get(&self, url: &str, limit: usize) -> Result<Vec<u8>, FetchError> {
        Self::body(self.0.get(url), limit).await
    }

    /// The body of the good answer to a request, at most `limit` bytes of it.
    pub(super) async fn body(request: reqwest::RequestBuilder, limit: usize) -> Result<Vec<u8>, FetchError> {
        let call = |error: reqwest::Error| FetchError::Call(error.without_url());
        let mut answer = request.send().await.map_err(call)?;
        if !answer.status().is_success() {
            return Err(FetchError::Status(answer.status()));
        }
        body::read(&mut answer, limit).await.map_err(|error| match error {
            BodyError::TooLong => FetchError::TooLong(limit),
            BodyError::Broken(error) => call(error),
        })
    }
}
