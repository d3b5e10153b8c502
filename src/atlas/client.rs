//! One HTTP round trip to Atlas: the request, the reply, and the failures in between.
//!
//! A trip ends in time, follows no redirect (a redirect would carry the credential elsewhere), and
//! never holds more than [`BODY_CAP`] of a body in memory, counted after decompression. A failure records
//! whether the request may have reached Atlas, because a PATCH that may have arrived may be in force.
//! Headers and bodies are never logged. Tokens and Atlas' errors belong to other modules.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue};
use reqwest::header::{LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use tokio::time::timeout;
use url::{Position, Url};

use super::AtlasError;
use super::error::told;
use super::response::{AtlasResponse, Unread};
use crate::domain::rotation::outcome::{Class, Failure};
use crate::domain::time::{Clock, Span, Timestamp, monotonic};
use crate::net::body::{self, BodyError};
use crate::net::cause::{causes, root_cause};
use crate::net::client;
use crate::net::header::{http_date, retry_after};

/// The longest body that is read, in bytes after decompression.
const BODY_CAP: usize = 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout for reading a body that is not needed.
const DRAIN: Duration = Duration::from_secs(1);
/// Shorter than the idle timeout of common load balancers, so that a PATCH rarely uses a connection
/// that the other side is closing.
const POOL_IDLE: Duration = Duration::from_secs(30);
/// The longest wait that a `Retry-After` can request.
const LONGEST_WAIT_S: u64 = 86_400;
const NOT_PUT_TOGETHER: &str = "the request could not be put together";

/// One request, without its credential.
pub(super) struct Request {
    pub(super) method: Method,
    /// Path and query below the base URL.
    pub(super) path: String,
    /// The media type to accept.
    pub(super) accept: &'static str,
    /// Media type and bytes of the body.
    pub(super) body: Option<(&'static str, Vec<u8>)>,
}

/// A trip without a usable reply.
pub(super) enum Broken {
    /// Certainly no byte of the request arrived.
    NotSent(Failure),
    /// The request may have arrived.
    Unanswered(Failure),
}

impl Broken {
    pub(super) fn into_failure(self) -> Failure {
        match self {
            Broken::NotSent(failure) | Broken::Unanswered(failure) => failure,
        }
    }
}

/// The end of a call that may take several trips.
#[derive(Clone, Copy)]
pub(super) struct Deadline(Instant);

impl Deadline {
    pub(super) fn after(span: Duration) -> Self {
        let now = monotonic();
        Self(now.checked_add(span).unwrap_or(now + Duration::from_hours(1)))
    }

    pub(super) fn left(self) -> Duration {
        self.0.saturating_duration_since(monotonic())
    }

    /// The instant after a third of the time left.
    pub(super) fn third(self) -> Self {
        Self::after(self.left() / 3)
    }
}

/// The connections to one Atlas.
pub(super) struct Http {
    client: reqwest::Client,
    base: String,
    host: String,
    request_timeout: Duration,
    clock: Arc<dyn Clock>,
}

impl Http {
    pub(super) fn new(
        base_url: &str,
        request_timeout: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AtlasError> {
        let base_url = Url::parse(base_url)
            .map_err(|_| AtlasError::BaseUrl { url: "***".to_owned(), problem: "is not a URL" })?;
        let host = check_base(&base_url)?;
        // Only `auth` repeats a PATCH, and only after a 401.
        let builder = client::builder(Some(&base_url), CONNECT_TIMEOUT.min(request_timeout));
        let client = client::build(builder.read_timeout(request_timeout).pool_idle_timeout(POOL_IDLE))?;
        let base = base_url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { client, base, host, request_timeout, clock })
    }

    /// Path and query of `request` as they are sent.
    pub(super) fn request_target(&self, request: &Request) -> Result<String, Failure> {
        let url = Url::parse(&format!("{}{}", self.base, request.path))
            .map_err(|_| told(Class::Config, NOT_PUT_TOGETHER))?;
        Ok(url[Position::BeforePath..Position::AfterQuery].to_owned())
    }

    /// Sends `request` and reads the whole reply before `deadline`. Without `authorization` the reply is a
    /// 401 with the challenges.
    pub(super) async fn send(
        &self,
        request: &Request,
        authorization: Option<&HeaderValue>,
        deadline: Deadline,
    ) -> Result<AtlasResponse, Broken> {
        let limit = self.request_timeout.min(deadline.left());
        if limit.is_zero() {
            return Err(Broken::NotSent(told(Class::Transient, "no time was left for the request to Atlas")));
        }
        let started = monotonic();
        let result = timeout(limit, self.trip(request, authorization, limit)).await;
        let result =
            result.unwrap_or_else(|_| Err(Broken::Unanswered(told(Class::Unknown, no_reply(limit)))));
        let status = match &result {
            Ok(answer) => answer.status.to_string(),
            Err(Broken::NotSent(_)) => "not sent".to_owned(),
            Err(Broken::Unanswered(_)) => "no reply".to_owned(),
        };
        let path = request.path.split('?').next().unwrap_or_default();
        let latency_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(method = %request.method, path, status, latency_ms, "atlas.call");
        result
    }

    async fn trip(
        &self,
        request: &Request,
        authorization: Option<&HeaderValue>,
        limit: Duration,
    ) -> Result<AtlasResponse, Broken> {
        let mut outgoing = self
            .client
            .request(request.method.clone(), format!("{}{}", self.base, request.path))
            .headers(authorization.map(|it| (AUTHORIZATION, it.clone())).into_iter().collect())
            .header(ACCEPT, request.accept);
        if let Some((media_type, bytes)) = &request.body {
            outgoing = outgoing.header(CONTENT_TYPE, *media_type).body(bytes.clone());
        }
        let began = self.clock.now();
        let started = monotonic();
        let mut response = outgoing.send().await.map_err(|error| self.broken(error, limit))?;
        // The status is known now. The body gets less than the whole limit: at the limit, the outer
        // timeout would drop the status with the body.
        let mut left = limit.saturating_sub(started.elapsed()) * 9 / 10;
        if request.method == Method::PATCH && response.status().is_success() {
            // This body is not used; it is read only so that the connection can be reused.
            left = left.min(DRAIN);
        }
        let middle = began + self.clock.now().since(began) / 2;
        let body = match timeout(left, read_body(&mut response)).await {
            Ok(body) => body,
            Err(_) => Err(Unread::Late(say(limit))),
        };
        let at = self.clock.now();
        let status = response.status().as_u16();
        Ok(AtlasResponse {
            status,
            at,
            error_code: text(response.headers(), &HeaderName::from_static("x-error-code")),
            retry_after: text(response.headers(), &RETRY_AFTER).and_then(|value| wait(&value, at)),
            rate_limit: (
                number(response.headers(), "ratelimit-limit"),
                number(response.headers(), "ratelimit-remaining"),
            ),
            skew_ms: text(response.headers(), &DATE).and_then(|value| skew(&value, middle)),
            redirect: text(response.headers(), &LOCATION)
                .filter(|_| (300..400).contains(&status))
                .map(|to| self.origin(&to)),
            challenges: texts(response.headers(), &WWW_AUTHENTICATE),
            authentication_info: text(response.headers(), &HeaderName::from_static("authentication-info")),
            body,
        })
    }

    fn broken(&self, error: reqwest::Error, limit: Duration) -> Broken {
        let error = error.without_url();
        if error.is_connect() {
            let host = &self.host;
            let detail = if error.is_timeout() {
                format!("could not connect to {host} within {}", say(CONNECT_TIMEOUT.min(limit)))
            } else {
                format!("could not connect to {host}: {}", root_cause(&error))
            };
            return Broken::NotSent(told(Class::Transient, detail));
        }
        if error.is_builder() {
            return Broken::NotSent(told(Class::Config, NOT_PUT_TOGETHER));
        }
        let detail = if error.is_timeout() {
            no_reply(limit)
        } else {
            format!("connection closed before a reply came ({})", root_cause(&error))
        };
        Broken::Unanswered(told(Class::Unknown, detail))
    }

    /// The target of a `Location`, without path, query and user.
    fn origin(&self, location: &str) -> String {
        let here = Url::parse(&self.base).ok();
        Url::options().base_url(here.as_ref()).parse(location).map_or_else(
            |_| "an unreadable address".to_owned(),
            |url| format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default()),
        )
    }
}

fn check_base(url: &Url) -> Result<String, AtlasError> {
    let has_user = !url.username().is_empty() || url.password().is_some();
    let problem = if !matches!(url.scheme(), "http" | "https") {
        Some("is neither https nor http")
    } else if has_user {
        Some("holds a user or password")
    } else if url.query().is_some() || url.fragment().is_some() {
        Some("holds a query or fragment")
    } else {
        None
    };
    match (problem, url.host_str()) {
        (None, Some(host)) => Ok(host.to_owned()),
        (problem, _) => Err(AtlasError::BaseUrl {
            url: format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default()),
            problem: problem.unwrap_or("names no host"),
        }),
    }
}

async fn read_body(response: &mut reqwest::Response) -> Result<Vec<u8>, Unread> {
    body::read(response, BODY_CAP).await.map_err(|error| match error {
        BodyError::TooLong => Unread::TooLong,
        BodyError::Broken(error) if error.is_timeout() => Unread::Silent,
        BodyError::Broken(error) if error.is_decode() && !is_incomplete(&error) => Unread::Undecodable(error),
        BodyError::Broken(_) => Unread::Closed,
    })
}

/// Whether the stream ended early; a decoder reports that as a decoding error.
fn is_incomplete(error: &reqwest::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    causes(error).any(|cause| {
        let http = cause.downcast_ref::<hyper::Error>();
        let io = cause.downcast_ref::<std::io::Error>();
        http.is_some_and(|it| it.is_incomplete_message() || it.is_closed())
            || io.is_some_and(|it| {
                matches!(it.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
            })
    })
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

fn texts(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let lines = headers.get_all(name).iter();
    lines.map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned()).collect()
}

/// The wait that `Retry-After` requests: at least a second, at most a day.
pub(super) fn wait(value: &str, now: Timestamp) -> Option<Span> {
    retry_after(value, now).map(|asked| Span::from_secs(asked.as_secs().clamp(1, LONGEST_WAIT_S)))
}

/// The value of a header with a whole number.
fn number(headers: &HeaderMap, name: &'static str) -> Option<u64> {
    text(headers, &HeaderName::from_static(name))?.parse().ok()
}

fn skew(date: &str, middle: Timestamp) -> Option<i64> {
    let theirs = http_date(date)?;
    Some((middle.as_micros() - theirs.as_micros()) / 1000)
}

fn no_reply(limit: Duration) -> String {
    format!("no reply within {}", say(limit))
}

/// A duration for people: whole seconds unless it is shorter than one.
fn say(span: Duration) -> Span {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1);
    if millis < 1000 { Span::from_millis(millis) } else { Span::from_secs(millis.saturating_add(500) / 1000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_never_nothing_and_never_endless() {
        let now: Timestamp = "2027-07-01T00:00:00Z".parse().unwrap();
        for (text, seconds) in [
            ("7", Some(7)),
            ("0", Some(1)),
            ("99999999999", Some(86_400)),
            ("Thu, 1 Jul 2026 00:00:30 GMT", Some(1)),
            ("soon", None),
        ] {
            assert_eq!(wait(text, now), seconds.map(Span::from_secs), "{text}");
        }
    }
}
