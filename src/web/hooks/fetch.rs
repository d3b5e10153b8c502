//! The few things a proof must be fetched for: a sender's public keys, a certificate, a confirmation.
//!
//! Addresses are settings or were checked against a list before they come here. No redirect is
//! followed, no answer is read beyond its limit, and nothing waits longer than senders do.

use std::time::Duration;

/// SNS gives up after 15 s and an API destination after 5; the answer to them must still be written.
const LIMIT: Duration = Duration::from_secs(4);

/// The client for these calls.
#[derive(Clone, Debug)]
pub(super) struct Fetcher(reqwest::Client);

impl Fetcher {
    /// # Errors
    /// When TLS cannot be set up.
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(LIMIT)
            .connect_timeout(LIMIT)
            .user_agent(concat!("keywheel/", env!("CARGO_PKG_VERSION")))
            .build()
            .map(Self)
    }

    /// The body of a good answer, at most `limit` bytes of it.
    pub(super) async fn get(&self, url: &str, limit: usize) -> Result<Vec<u8>, String> {
        let mut answer = self.0.get(url).send().await.map_err(said)?;
        if !answer.status().is_success() {
            return Err(format!("it was answered with {}", answer.status()));
        }
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(said)? {
            if body.len() + part.len() > limit {
                return Err(format!("the answer is longer than {limit} bytes"));
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }
}

/// The cause without the address: a confirmation's holds a token.
fn said(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
