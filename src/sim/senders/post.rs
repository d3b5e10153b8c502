//! One delivery on the wire: the request, the reply, and whether the sender would try again.
//!
//! The rules of each sender are its own. Waits between tries are the sender's own too, with one
//! millisecond for each of its seconds, so that a rehearsal ends soon.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Serialize;

use crate::net::{self, cause::with_causes};

/// The longest reply that is kept.
const REPLY_CAP: usize = 64 * 1024;

/// An event, complete except for the headers that each try creates anew.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// The id by which a receiver recognises a duplicate.
    pub(super) id: String,
    /// `POST`, or `OPTIONS` for one handshake.
    pub(super) method: Method,
    /// The headers of every try.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Message {
    pub(super) fn post(id: String, body: impl Into<Vec<u8>>, headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { id, method: Method::POST, headers, body: body.into() }
    }
}

/// The result of one try.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attempt {
    /// The status, if there was a reply.
    pub(super) status: Option<u16>,
    #[serde(serialize_with = "pairs")]
    pub(super) headers: HeaderMap,
    pub(super) body: String,
    /// Why there was no reply.
    pub(super) error: Option<String>,
}

fn pairs<S: serde::Serializer>(headers: &HeaderMap, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(
        headers.iter().map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()))),
    )
}

/// A sender's decision about a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Delivered.
    Done,
    /// To be tried again.
    Again,
    /// Given up at once.
    Never,
}

/// How a sender delivers.
#[derive(Debug)]
pub(super) struct Rules {
    /// How long it waits for a reply.
    pub(super) patience: Duration,
    /// Its decision about a status.
    pub(super) verdict: fn(u16) -> Verdict,
    /// Seconds between its tries; the last one repeats.
    pub(super) waits: &'static [u64],
    /// How many tries it makes at most.
    pub(super) tries: u32,
    /// Whether it obeys `Retry-After`.
    pub(super) asks_when: bool,
}

impl Rules {
    /// How long it waits after try number `tried` was answered with `attempt`.
    pub(super) fn wait(&self, tried: u32, attempt: &Attempt) -> Duration {
        let index = usize::try_from(tried).unwrap_or(usize::MAX).saturating_sub(1);
        let own = self.waits.get(index).or(self.waits.last()).copied().unwrap_or_default();
        let asked = attempt.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let seconds = asked.filter(|_| self.asks_when).map_or(own, |asked: u64| own.max(asked));
        Duration::from_millis(seconds.min(3600))
    }
}

/// The client of all senders: no redirects, no reuse of a connection that a receiver closed.
pub(super) fn client() -> reqwest::Client {
    net::client::build(net::client::anonymous().no_gzip().http1_only()).expect("a client can be made")
}

/// Sends once and reads the reply.
pub(super) async fn send(
    client: &reqwest::Client,
    url: &url::Url,
    message: &Message,
    stamps: &[(String, String)],
    patience: Duration,
) -> Attempt {
    let mut headers = HeaderMap::new();
    for (name, value) in message.headers.iter().chain(stamps) {
        let pair = HeaderName::try_from(name.as_str()).ok().zip(HeaderValue::try_from(value.as_str()).ok());
        let Some((name, value)) = pair else {
            let error = format!("the header {name} cannot be sent");
            return Attempt { error: Some(error), ..Attempt::default() };
        };
        headers.insert(name, value);
    }
    let request = client
        .request(message.method.clone(), url.clone())
        .headers(headers)
        .body(message.body.clone())
        .timeout(patience);
    match read(request).await {
        Ok(attempt) => attempt,
        // The address may carry a secret.
        Err(error) => Attempt { error: Some(with_causes(&error.without_url())), ..Attempt::default() },
    }
}

async fn read(request: reqwest::RequestBuilder) -> Result<Attempt, reqwest::Error> {
    let mut response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let mut body = Vec::new();
    net::body::fill(&mut response, REPLY_CAP, &mut body).await?;
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Attempt { status: Some(status), headers, body, error: None })
}
