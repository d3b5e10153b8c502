//! `POST /hooks/{name}`: events of key services, Atlas and other systems.
//!
//! A delivery is read within limits, its sender verified, its events reduced to hints, and the hints
//! written durably before the answer leaves. No event changes a rotation or a project from here:
//! [`engine::hint`](crate::engine::hint) compares it with Atlas and decides. A delivery whose sender is
//! not verified leaves only a count.
//!
//! The statuses follow from what senders do with them. Most never repeat a delivery that was answered 4xx,
//! so 4xx is kept for forged and unreadable requests. An event without a meaning here gets 202, and a
//! fault of this server gets 503 with `Retry-After`.

mod atlas;
mod aws;
mod azure;
mod cloudevents;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod gcp;
mod sns;
mod token;
mod verification;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Web;
use super::auth::Authenticated;
use super::fetch::Fetcher;
use super::keys::Keys;
use super::operation::open;
use super::problem::Problem;
use super::sender::{self, Guesses};
use crate::api::problem::Code;
use crate::config::hooks::{Connection, Hook, Sender};
use crate::domain::hint::Hint;
use crate::domain::network::Network;
use crate::domain::time::Timestamp;
use crate::engine::intake::{NotStored, Tally};
use crate::net::client::BuildError;
use crate::store::NewEvent;
use sns::RootsError;

/// The largest body of a sender that is verified by the head: Event Grid's batches have a megabyte and an envelope.
const BODY_LIMIT: usize = 1_100_000;
/// The largest body that is read before its sender is verified: a notification of SNS has 256 KiB.
const UNPROVEN_LIMIT: usize = 400_000;
/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(5);
/// The memory for all bodies of one hook until they are written, in units of 16 KiB: 32 MiB. The first unit of
/// each body is free, so that large bodies do not keep out a usual event; the limit of connections bounds it.
const UNITS: usize = 2048;
const UNIT: usize = 16 * 1024;
/// Timeout of the write; after it the sender gets 503. API destinations wait 5 s.
const STORE_TIME: Duration = Duration::from_secs(4);
/// Failures of one hook that are logged. Those beyond are not, and an unverified sender gets 429 for them.
const FAILURES_PER_SECOND: u32 = 5;
const FAILURES_AT_ONCE: u32 = 50;

/// An event of a verified delivery.
pub(super) struct Received {
    /// The same for every delivery of the event.
    pub(super) id: String,
    /// Its hint; `None` when it has no meaning here.
    pub(super) hint: Option<Hint>,
}

/// The content of a verified delivery.
pub(super) enum HookReply {
    /// Events.
    Events(Vec<Received>),
    /// A handshake, answered.
    Done(Response),
}

/// Why a delivery is refused. The reasons are counted, and hold no more than the sender may learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The sender is not verified: 401.
    Unknown(&'static str),
    /// Cannot be read: 400.
    Malformed(&'static str),
    /// Larger than this many bytes: 413.
    TooLarge(usize),
    /// Came too slowly: 408.
    TooSlow,
    /// A fault of this server: 503.
    Unavailable(&'static str),
    /// The hook is stopped until its secret is longer: 503.
    Stopped,
    /// This sender has sent too many wrong secrets: 429.
    Slowed,
}

impl Refusal {
    pub(super) const fn unknown(reason: &'static str) -> Self {
        Refusal::Unknown(reason)
    }

    pub(super) const fn malformed(rule: &'static str) -> Self {
        Refusal::Malformed(rule)
    }

    /// The name under which it is counted.
    const fn reason(self) -> &'static str {
        match self {
            Refusal::Unknown(reason) | Refusal::Unavailable(reason) => reason,
            Refusal::Malformed(_) => "malformed",
            Refusal::TooLarge(_) => "too-large",
            Refusal::TooSlow => "too-slow",
            Refusal::Stopped => "short-secret",
            Refusal::Slowed => "slowed-down",
        }
    }

    fn problem(self) -> Problem {
        match self {
            Refusal::Unknown(_) => Problem::new(
                Code::Unauthenticated,
                "this hook could not verify the sender; compare its setup with the daemon's configuration",
            ),
            Refusal::Malformed(rule) => Problem::new(Code::Malformed, rule),
            Refusal::TooLarge(limit) => {
                Problem::new(Code::TooLarge, format!("the body is larger than {} KiB", limit / 1024))
            }
            Refusal::TooSlow => Problem::new(Code::TooSlow, "the body did not arrive in time"),
            Refusal::Unavailable(_) => {
                Problem::new(Code::Unavailable, "the event cannot be stored now; send it again")
            }
            Refusal::Stopped => Problem::new(
                Code::Unavailable,
                "this hook is stopped; `keywheel config check` on the server names the reason",
            ),
            Refusal::Slowed => {
                Problem::new(Code::TooManyFailures, "too many failures from this address; slow down")
            }
        }
    }
}

/// The configured hooks and what they share.
#[derive(Debug)]
pub struct Hooks {
    endpoints: BTreeMap<String, Endpoint>,
    fetcher: Fetcher,
    keys: Keys,
}

#[derive(Debug)]
struct Endpoint {
    sender: Sender,
    room: Arc<Semaphore>,
    sns: Option<sns::Sns>,
    failures: DefaultDirectRateLimiter,
    /// Why it takes no events.
    stopped: Option<String>,
    guesses: Guesses,
}

/// Why hooks cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum HooksError {
    /// The HTTPS client that verifications need cannot be built.
    #[error("hooks: {0}")]
    Client(#[from] BuildError),
    /// The file of trusted roots cannot be read.
    #[error("hooks.{hook}.trust_roots_file: {source}")]
    RootsFile {
        /// The hook.
        hook: String,
        /// The reason.
        source: std::io::Error,
    },
    /// The file of trusted roots holds no usable certificate.
    #[error("hooks.{hook}.trust_roots_file: {source}")]
    Roots {
        /// The hook.
        hook: String,
        /// The reason.
        source: RootsError,
    },
}

impl Hooks {
    /// Sets the hooks up.
    ///
    /// # Errors
    /// Names the hook and the setting that cannot be used.
    pub fn new(hooks: &[Hook]) -> Result<Self, HooksError> {
        let fetcher = Fetcher::new()?;
        let endpoints = hooks.iter().map(|hook| Ok((hook.name.clone(), Endpoint::new(hook)?)));
        let endpoints = endpoints.collect::<Result<_, HooksError>>()?;
        Ok(Self { endpoints, fetcher, keys: Keys::new(token::PAUSE) })
    }
}

/// The hooks in force. They can be replaced while requests are under way.
#[derive(Debug)]
pub struct LiveHooks(RwLock<Arc<Hooks>>);

impl LiveHooks {
    /// Starts with these hooks.
    #[must_use]
    pub fn new(hooks: Hooks) -> Self {
        Self(RwLock::new(Arc::new(hooks)))
    }

    /// New requests go to `hooks`; those under way end where they began.
    pub fn replace(&self, hooks: Hooks) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(hooks);
    }

    /// Why the hook `name` takes no events; `None` while it takes them.
    #[must_use]
    pub fn stopped(&self, name: &str) -> Option<String> {
        self.current().endpoints.get(name)?.stopped.clone()
    }

    fn current(&self) -> Arc<Hooks> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Endpoint {
    fn new(hook: &Hook) -> Result<Self, HooksError> {
        let sns = match &hook.sender {
            Sender::AwsSns { topics, cert_hosts, trust_roots_file } => {
                let name = || hook.name.clone();
                let roots = trust_roots_file.as_ref().map(std::fs::read).transpose();
                let roots = roots.map_err(|source| HooksError::RootsFile { hook: name(), source })?;
                let sns = sns::Sns::new(topics.clone(), cert_hosts.clone(), roots.as_deref());
                Some(sns.map_err(|source| HooksError::Roots { hook: name(), source })?)
            }
            _ => None,
        };
        let per_second = NonZeroU32::new(FAILURES_PER_SECOND).unwrap_or(NonZeroU32::MIN);
        let at_once = NonZeroU32::new(FAILURES_AT_ONCE).unwrap_or(NonZeroU32::MIN);
        let failures = RateLimiter::direct(Quota::per_second(per_second).allow_burst(at_once));
        let room = Arc::new(Semaphore::new(UNITS));
        let (stopped, guesses) = (hook.stopped.clone(), Guesses::default());
        Ok(Self { sender: hook.sender.clone(), room, sns, failures, stopped, guesses })
    }

    /// Whether its sender sends a secret, or signs with one, that can be guessed.
    fn has_secret(&self) -> bool {
        match &self.sender {
            Sender::AzureEventGrid { tokens, .. } => !tokens.is_empty(),
            Sender::AwsSns { .. } | Sender::GcpPubsub { .. } => false,
            Sender::Atlas { .. }
            | Sender::AwsEventbridge(_)
            | Sender::CloudEvents { .. }
            | Sender::Standard { .. } => true,
        }
    }

    /// Refuses a delivery to a stopped hook, and one of a sender that was wrong too often.
    fn admit(&self, sender: Option<Network>, now: Timestamp) -> Result<(), Refusal> {
        if self.stopped.is_some() {
            return Err(Refusal::Stopped);
        }
        match sender {
            Some(sender) if self.guesses.is_slowed(sender, now) => Err(Refusal::Slowed),
            _ => Ok(()),
        }
    }
}

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(open(&DELIVERY, routes!(receive))).routes(open(
        &[Code::NotFound, Code::Unauthenticated, Code::Malformed, Code::TooManyFailures],
        routes!(consent),
    ))
}

/// The problems of a delivery.
const DELIVERY: [Code; 7] = [
    Code::NotFound,
    Code::Unauthenticated,
    Code::Malformed,
    Code::TooSlow,
    Code::TooLarge,
    Code::TooManyFailures,
    Code::Unavailable,
];

#[utoipa::path(
    options, path = "/hooks/{name}", tag = "hooks", operation_id = "consentToEvents",
    summary = "Consent to deliveries of CloudEvents from a listed origin",
    params(("name" = String, Path, description = "The hook's name in the configuration.")),
    responses(
        (status = 200, description = "Consent."),
        (status = 405, description = "The hook's kind has no such handshake."),
    ),
)]
async fn consent(state: State<Web>, name: Path<String>, query: RawQuery, request: Request) -> Response {
    receive(state, name, query, request).await
}

#[utoipa::path(
    post, path = "/hooks/{name}", tag = "hooks", operation_id = "receiveEvent",
    summary = "Take an event from a configured sender, which is verified as the hook's kind demands",
    description = "docs/webhooks.md describes formats, verification, and the effects of an event.",
    params(("name" = String, Path, description = "The hook's name in the configuration.")),
    responses(
        (status = 200, description = "A handshake, answered."),
        (status = 202, description = "Taken: written durably, a repetition, or without a meaning here."),
    ),
)]
async fn receive(
    State(web): State<Web>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    let hooks = web.hooks.current();
    let (Some(endpoint), Some(tally)) = (hooks.endpoints.get(&name), web.engine.intake.tally(&name)) else {
        return Problem::new(Code::NotFound, "there is no hook of this name").into_response();
    };
    let now = web.engine.clock.now();
    tally.received(now);
    let (parts, body) = request.into_parts();
    let sender = sender::network(&parts.extensions, &parts.headers, &web.proxies);
    let sender = sender.filter(|_| endpoint.has_secret());
    let delivery =
        Delivery { hooks: &hooks, endpoint, query: query.as_deref(), headers: &parts.headers, now };
    let answered = match (endpoint.admit(sender, now), parts.method) {
        (Err(refusal), _) => Err(refusal),
        (Ok(()), Method::OPTIONS) => delivery.consent(),
        (Ok(()), _) => {
            let taken = delivery.take(body, &web, &name, &tally).await;
            if taken.is_ok() {
                Authenticated::note(&parts.extensions);
            }
            taken
        }
    };
    match answered {
        Ok(response) => response,
        Err(refusal) => {
            if let (Refusal::Unknown(_), Some(sender)) = (refusal, sender) {
                endpoint.guesses.wrong(sender, now);
            }
            refused(refusal, endpoint, &tally, &name, sender)
        }
    }
}

fn refused(
    refusal: Refusal,
    endpoint: &Endpoint,
    tally: &Tally,
    name: &str,
    sender: Option<Network>,
) -> Response {
    tally.refused(refusal.reason());
    let loud = endpoint.failures.check().is_ok();
    if loud {
        let sender = sender.map(tracing::field::display);
        tracing::warn!(hook = name, reason = refusal.reason(), sender, "a delivery was refused");
    }
    if !loud && matches!(refusal, Refusal::Unknown(_)) {
        return Problem::new(Code::TooManyFailures, "too many failures; slow down").into_response();
    }
    let mut response = refusal.problem().into_response();
    let own = response.headers_mut();
    match refusal {
        Refusal::Unavailable(_) | Refusal::Stopped => {
            own.insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
        }
        // The rest of the body is not read, so the connection cannot serve another request.
        Refusal::TooLarge(_) | Refusal::TooSlow => {
            own.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    response
}

/// One request whose sender is not verified yet.
struct Delivery<'a> {
    hooks: &'a Hooks,
    endpoint: &'a Endpoint,
    query: Option<&'a str>,
    headers: &'a HeaderMap,
    now: Timestamp,
}

impl Delivery<'_> {
    /// Takes a delivery. A sender that can be verified by the head is verified before the body is read.
    async fn take(&self, body: Body, web: &Web, name: &str, tally: &Tally) -> Result<Response, Refusal> {
        self.prove_head().await?;
        let (body, room) = self.read(body).await?;
        let events = match self.prove_body(&body).await? {
            HookReply::Done(response) => {
                tally.handshake();
                return Ok(response);
            }
            HookReply::Events(events) => events,
        };
        let mut hints = Vec::new();
        for Received { id, hint } in events {
            match hint {
                Some(hint) => hints.push(NewEvent::new(name, &id, &hint).map_err(|error| {
                    tracing::error!(hook = name, error = %error, "event refused");
                    Refusal::Unavailable("not-stored")
                })?),
                None => tally.irrelevant(),
            }
        }
        if !hints.is_empty() {
            let stored = tokio::time::timeout(STORE_TIME, web.engine.intake.store(hints, room)).await;
            match stored {
                Ok(Ok(new)) => new
                    .into_iter()
                    .for_each(|new| if new { tally.accepted(self.now) } else { tally.duplicate() }),
                Ok(Err(NotStored::Full)) => return Err(Refusal::Unavailable("queue-full")),
                Ok(Err(NotStored::Failed)) | Err(_) => return Err(Refusal::Unavailable("not-stored")),
            }
        }
        Ok(StatusCode::ACCEPTED.into_response())
    }

    /// The secret in the URL.
    fn code(&self) -> Option<String> {
        let pairs = url::form_urlencoded::parse(self.query?.as_bytes());
        pairs.into_iter().find(|(name, _)| name == "code").map(|(_, value)| value.into_owned())
    }

    fn consent(&self) -> Result<Response, Refusal> {
        let Sender::AzureEventGrid { tokens, header, allowed_origins, .. } = &self.endpoint.sender else {
            return Ok((StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")]).into_response());
        };
        // Headers and tokens come with deliveries only, and each delivery is verified by itself.
        if header.is_none() && !tokens.is_empty() {
            verification::secret(self.code().as_deref(), tokens)?;
        }
        azure::consent(self.headers, allowed_origins)
    }

    async fn prove_head(&self) -> Result<(), Refusal> {
        let (fetcher, keys) = (&self.hooks.fetcher, &self.hooks.keys);
        match &self.endpoint.sender {
            Sender::AzureEventGrid { tokens, header, entra, .. } => {
                if !tokens.is_empty() {
                    let given = match header {
                        Some(name) => verification::header(self.headers, name).map(ToOwned::to_owned),
                        None => self.code(),
                    };
                    verification::secret(given.as_deref(), tokens)?;
                }
                match entra {
                    Some(entra) => keys.entra(fetcher, self.headers, entra, self.now).await,
                    None => Ok(()),
                }
            }
            Sender::AwsEventbridge(Connection::Header { name, tokens }) => {
                let given = verification::header(self.headers, name);
                let given = if name == "authorization" {
                    verification::bearer(self.headers).or(given)
                } else {
                    given
                };
                verification::secret(given, tokens)
            }
            Sender::AwsEventbridge(Connection::Basic { user, passwords }) => {
                verification::basic(self.headers, user, passwords)
            }
            Sender::GcpPubsub { audience, email, jwks_url } => {
                keys.google(fetcher, self.headers, (jwks_url, audience, email), self.now).await
            }
            Sender::CloudEvents { tokens } => {
                verification::secret(verification::bearer(self.headers), tokens)
            }
            Sender::Atlas { .. } | Sender::AwsSns { .. } | Sender::Standard { .. } => Ok(()),
        }
    }

    /// Reads the body. Its room is given back when the permits are dropped.
    async fn read(&self, body: Body) -> Result<(Bytes, Vec<OwnedSemaphorePermit>), Refusal> {
        let told =
            verification::header(self.headers, "content-length").and_then(|text| text.parse::<usize>().ok());
        let limit = match self.endpoint.sender {
            Sender::Atlas { .. } | Sender::AwsSns { .. } | Sender::Standard { .. } => UNPROVEN_LIMIT,
            _ => BODY_LIMIT,
        };
        if told.is_some_and(|length| length > limit) {
            return Err(Refusal::TooLarge(limit));
        }
        let mut room = Vec::new();
        let mut bytes = Vec::new();
        let mut parts = body.into_data_stream();
        let reading = async {
            while let Some(part) = parts.next().await {
                let part = part.map_err(|_| Refusal::malformed("the body ended too early"))?;
                if bytes.len() + part.len() > limit {
                    return Err(Refusal::TooLarge(limit));
                }
                while (1 + room.len()) * UNIT < bytes.len() + part.len() {
                    let unit = Arc::clone(&self.endpoint.room).try_acquire_owned();
                    room.push(unit.map_err(|_| Refusal::Unavailable("no-room"))?);
                }
                bytes.extend_from_slice(&part);
            }
            Ok(())
        };
        tokio::time::timeout(BODY_TIME, reading).await.map_err(|_| Refusal::TooSlow)??;
        Ok((bytes.into(), room))
    }

    async fn prove_body(&self, body: &[u8]) -> Result<HookReply, Refusal> {
        let one = |event| Ok(HookReply::Events(vec![event]));
        match &self.endpoint.sender {
            Sender::Atlas { secrets, hex } => {
                verification::atlas(self.headers, body, secrets, *hex)?;
                one(atlas::read(body))
            }
            Sender::AzureEventGrid { .. } => azure::read(self.headers, body),
            Sender::AwsEventbridge(_) => one(aws::read(&json(body)?)?),
            Sender::AwsSns { .. } => match &self.endpoint.sns {
                Some(sns) => sns.receive(&self.hooks.fetcher, self.headers, body, self.now).await,
                None => Err(Refusal::Unavailable("not-ready")),
            },
            Sender::GcpPubsub { .. } => one(gcp::read(self.headers, body)?),
            Sender::CloudEvents { .. } => cloudevents::read(self.headers, body).map(HookReply::Events),
            Sender::Standard { keys } => {
                let id = verification::standard(self.headers, body, keys, self.now)?;
                one(cloudevents::payload(body, id)?)
            }
        }
    }
}

/// A JSON text.
fn json(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|_| Refusal::malformed("the body is not JSON"))
}

/// Objects, from an array or a single one.
fn objects(body: &[u8]) -> Result<Vec<Value>, Refusal> {
    match json(body)? {
        Value::Array(events) if events.iter().all(Value::is_object) => Ok(events),
        one @ Value::Object(_) => Ok(vec![one]),
        _ => Err(Refusal::malformed("the body takes an event or an array of events")),
    }
}

/// The id of an event from a sender's own texts: other texts never make the same one. The first one is
/// kept as it is; in the others the separator is escaped.
fn joined(first: &str, more: &[&str]) -> String {
    more.iter().fold(first.to_owned(), |all, text| format!("{all}/{}", part(text)))
}

/// A part of an id, without a slash and without two percent signs in a row.
fn part(text: &str) -> String {
    text.replace('%', "%25").replace('/', "%2F")
}

/// A member that is a text.
fn text_of<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

/// The longest text of a sender that is kept, in characters.
const LONGEST: usize = 300;

/// A sender's text for journals and mails: one line, cut at [`LONGEST`] characters.
fn words_of(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

/// A sender's name of a thing; `None` when it is too long or holds control characters. It is never cut or
/// changed, because the result would be another name.
fn name_of(text: &str) -> Option<String> {
    (text.chars().count() <= LONGEST && !text.contains(char::is_control)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn different_texts_never_make_the_same_id() {
        let texts = ["", "a", "/", "%", "a/b", "b", "%2F", "a%2Fb", "%%", "//", "25", "2F"];
        let mut seen = std::collections::BTreeMap::new();
        for one in texts {
            for two in texts {
                for three in texts {
                    let other = seen.insert(joined(one, &[two, three]), (one, two, three));
                    assert_eq!(other, None, "{one:?} {two:?} {three:?}");
                }
            }
        }
        assert_eq!(joined("/subscriptions/1", &["7e5b-01"]), "/subscriptions/1/7e5b-01");
        let id = |body: Value| match azure::read(&HeaderMap::new(), body.to_string().as_bytes()).unwrap() {
            HookReply::Events(mut events) => events.remove(0).id,
            HookReply::Done(_) => unreachable!(),
        };
        let event = |source: &str, id: &str| json!([{ "id": id, "eventType": "x", "topic": source }]);
        assert_ne!(id(event("a", "b/c")), id(event("a/b", "c")));
        let gcp = |body: Value| gcp::read(&HeaderMap::new(), body.to_string().as_bytes()).unwrap().id;
        let message = |subscription: &str, id: &str| json!({ "subscription": subscription, "message": { "messageId": id, "data": "" } });
        let entry = json!({ "logName": "a", "timestamp": "b", "insertId": "c" });
        assert_ne!(gcp(message("a/b", "c")), gcp(entry));
        assert_ne!(gcp(message("a", "b/c")), gcp(message("a/b", "c")));
    }

    #[test]
    fn log_entries_of_google_are_followed_without_their_response() {
        let path = "projects/example.com:acme/locations/global/keyRings/atlas-prod/cryptoKeys/cmk";
        let read = |method: &str, resource: &str, request: Value| {
            let entry = json!({
                "protoPayload": { "status": {}, "serviceName": "cloudkms.googleapis.com", "methodName": method,
                    "resourceName": resource, "request": request },
                "insertId": "1abcdefh", "timestamp": "2026-11-20T08:01:00.123456789Z",
                "resource": { "labels": { "project_id": "example.com:acme", "location": "global",
                    "key_ring_id": "atlas-prod", "crypto_key_id": "cmk" } },
                "logName": "projects/example.com:acme/logs/cloudaudit.googleapis.com%2Factivity",
            });
            gcp::read(&HeaderMap::new(), entry.to_string().as_bytes()).unwrap().hint.unwrap()
        };
        let primary =
            read("UpdateCryptoKeyPrimaryVersion", path, json!({ "name": path, "cryptoKeyVersionId": "2" }));
        let version = format!("{path}/cryptoKeyVersions/2");
        assert_eq!(primary.new_key.map(|key| key.to_string()), Some(version.clone()));
        assert_eq!(read("UpdateCryptoKeyPrimaryVersion", path, json!({ "name": path })).new_key, None);
        let destroyed = read("DestroyCryptoKeyVersion", path, json!({ "name": version }));
        assert!(matches!(destroyed.meaning, crate::domain::hint::Meaning::Alarm { .. }));
        assert_eq!(destroyed.subject.to_string(), format!("key {version}"));
        let state = |state: &str| {
            let asked = json!({ "cryptoKeyVersion": { "name": version, "state": state } });
            read("google.cloud.kms.v1.KeyManagementService.UpdateCryptoKeyVersion", &version, asked).meaning
        };
        assert!(matches!(state("DISABLED"), crate::domain::hint::Meaning::Alarm { .. }));
        assert_eq!(state("ENABLED"), crate::domain::hint::Meaning::Usable);
    }

    type Reader<'a> = &'a dyn Fn(&str) -> Option<Hint>;

    #[test]
    fn a_name_that_can_be_none_is_nobodys() {
        let alias = |name: &str| {
            let detail = json!({ "eventSource": "kms.amazonaws.com", "eventName": "UpdateAlias", "requestParameters": { "aliasName": name } });
            let event = json!({ "id": "1", "detail-type": "AWS API Call via CloudTrail", "detail": detail });
            aws::read(&event).unwrap().hint
        };
        let vault = |name: &str| {
            let kind = "Microsoft.KeyVault.VaultAccessPolicyChanged";
            let event = json!([{ "id": "1", "eventType": kind, "data": { "VaultName": name } }]);
            match azure::read(&HeaderMap::new(), event.to_string().as_bytes()).unwrap() {
                HookReply::Events(mut events) => events.remove(0).hint,
                HookReply::Done(_) => unreachable!(),
            }
        };
        let label = |name: &str| {
            let labels =
                json!({ "project_id": "p", "location": "l", "key_ring_id": "r", "crypto_key_id": name });
            let entry = json!({ "resource": { "labels": labels } }).to_string();
            gcp::read(&HeaderMap::new(), entry.as_bytes()).unwrap().hint
        };
        let resource = |name: &str| {
            let path = format!("projects/p/locations/l/keyRings/r/cryptoKeys/{name}");
            let entry = json!({ "protoPayload": { "resourceName": path } }).to_string();
            gcp::read(&HeaderMap::new(), entry.as_bytes()).unwrap().hint
        };
        let kind = |name: &str| {
            let body =
                json!({ "groupId": "0".repeat(24), "eventTypeName": format!("AWS_ENCRYPTION_KEY_{name}") });
            atlas::read(body.to_string().as_bytes()).hint
        };
        let readers: [Reader<'_>; 5] = [&alias, &vault, &label, &resource, &kind];
        for (place, read) in readers.into_iter().enumerate() {
            assert!(read("X").is_some(), "{place}");
            assert!(read("X\u{7f}Y").is_none(), "{place}");
            assert!(read(&"X".repeat(LONGEST + 1)).is_none(), "{place}");
        }
    }
}
