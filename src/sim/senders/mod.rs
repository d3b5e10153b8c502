//! Senders of events, each as the real one sends: its body, its headers, its authentication, its
//! handshake, its retries.
//!
//! Written from the senders' known behaviour and not from Keywheel's receiver, so that the two check
//! each other. Behaviour that was never observed is an option with the documented reading as its
//! default. Keys are the simulator's own; the means to verify them are served here:
//! `/senders/entra/{tenant}/keys`, `/senders/google/certs`, `/senders/sns/ca.pem` and the certificates
//! that messages name.
//!
//! `POST /sim/v1/emit` sends. The body names `kind` and `url`, and for the delivery as a whole:
//!
//! - `count` (1 to 5000): that many events.
//! - `forge`: a delivery that a receiver must refuse, see [`forge::Forge`].
//! - `replay`: each request so many times more, byte for byte.
//! - `duplicate`: each event twice, as at-least-once delivery does: same id, new signature.
//! - `shuffle`: the last event first.
//! - `truncate`: only the first half of each body. `oversize`: bodies filled up to so many bytes.
//! - `retries`: tries again by the sender's own rules, a millisecond for each of its seconds; `tries` at
//!   most (4 unless said).
//!
//! The other fields of an event depend on `kind`; each is documented in its module: `atlas` ([`atlas`]),
//! `azure-event-grid` ([`azure`]), `aws-eventbridge` ([`eventbridge`]), `aws-sns` ([`sns`]),
//! `gcp-pubsub` ([`gcp`]), `cloudevents` and `standard` ([`generic`]). An order that cannot be parsed is
//! a 400 that names the field, and sends nothing. The response is a list `sent`: for each delivery the
//! event's `id`, the `attempts` with status, headers and body of each reply, whether it was `delivered`,
//! and for a handshake whether it was `agreed`.
//!
//! `GET|POST|DELETE /sim/v1/subscriptions`: the same orders without an event; see [`watch`].
//! `GET /sim/v1/emissions` lists the deliveries of subscriptions, and the confirmations and validations.
//!
//! Anyone who reaches the simulator can make it send to any address: keep it on the loopback interface.

mod atlas;
mod aws;
mod azure;
mod emit;
mod eventbridge;
mod forge;
mod gcp;
mod generic;
mod keys;
mod post;
mod sns;
pub(super) mod subscription;
pub(super) mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post as on_post};
use axum::{Json, Router};
use chrono::SecondsFormat;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use self::forge::Forge;
use self::keys::{Keys, Signer};
use self::post::{Message, Rules};
use super::Shared;
use crate::domain::time::Timestamp;

/// How many notes are kept.
const NOTES: usize = 1000;

/// The state that the senders share.
#[derive(Debug)]
pub(super) struct EventSource {
    /// The simulator's base URL.
    base_url: String,
    keys: Keys,
    client: OnceLock<reqwest::Client>,
    notes: Mutex<VecDeque<Value>>,
    /// The world when subscriptions were last served.
    seen: Mutex<Option<watch::Picture>>,
}

impl EventSource {
    pub(super) fn new(base_url: String) -> Arc<Self> {
        Arc::new(Self {
            base_url,
            keys: Keys::default(),
            client: OnceLock::new(),
            notes: Mutex::default(),
            seen: Mutex::default(),
        })
    }

    fn client(&self) -> &reqwest::Client {
        self.client.get_or_init(post::client)
    }

    fn note(&self, note: Value) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() == NOTES {
            notes.pop_front();
        }
        notes.push_back(note);
    }
}

/// An order that cannot be sent, with the reason.
#[derive(Debug, Serialize)]
pub struct Bad {
    /// The field that is at fault, with its path.
    field: String,
    error: String,
}

impl Bad {
    pub(super) fn new(field: &str, text: impl std::fmt::Display) -> Self {
        Self { field: field.to_owned(), error: format!("{field}: {text}") }
    }
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.error)
    }
}

impl IntoResponse for Bad {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, Json(self)).into_response()
    }
}

/// Reads `fields`, or names the one that cannot be read.
fn read<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, Bad> {
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let text = error.inner().to_string();
        match error.path().to_string() {
            path if path != "." => Bad::new(&path, text),
            _ => {
                let missing = text.split('`').nth(1).unwrap_or_default();
                Bad { field: missing.to_owned(), error: text.clone() }
            }
        }
    })
}

/// Takes the fields `names` out of `fields`.
fn take(fields: &mut Map<String, Value>, names: &[&str]) -> Map<String, Value> {
    names.iter().filter_map(|name| fields.remove_entry(*name)).collect()
}

/// Senders by the names that hooks have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Atlas,
    AzureEventGrid,
    AwsEventbridge,
    AwsSns,
    GcpPubsub,
    #[serde(rename = "cloudevents")]
    CloudEvents,
    Standard,
}

impl Kind {
    /// The sender that `fields` describe.
    fn sender(self, fields: Map<String, Value>) -> Result<Box<dyn Sender>, Bad> {
        Ok(match self {
            Kind::Atlas => Box::new(read::<atlas::Alerts>(fields)?),
            Kind::AzureEventGrid => Box::new(read::<azure::EventGrid>(fields)?),
            Kind::AwsEventbridge => Box::new(eventbridge::Destination::read(fields)?),
            Kind::AwsSns => Box::new(sns::Topic::read(fields)?),
            Kind::GcpPubsub => Box::new(read::<gcp::Push>(fields)?),
            Kind::CloudEvents => Box::new(read::<generic::CloudEvents>(fields)?),
            Kind::Standard => Box::new(read::<generic::Standard>(fields)?),
        })
    }
}

/// A sender's input for the delivery that it prepares.
struct Sending<'a> {
    event_source: &'a EventSource,
    now: Timestamp,
    url: &'a url::Url,
    forge: Option<Forge>,
}

impl Sending<'_> {
    fn forges(&self, forge: Forge) -> bool {
        self.forge == Some(forge)
    }

    /// `genuine`, or another text of the same length where the secret is to be wrong.
    fn proof(&self, genuine: &str) -> String {
        if !self.forges(Forge::Signature) {
            return genuine.to_owned();
        }
        let last = genuine.len().saturating_sub(1);
        let turned = |(at, letter)| match (at == last, letter) {
            (false, letter) => letter,
            (true, 'x') => 'y',
            (true, _) => 'x',
        };
        genuine.char_indices().map(turned).collect()
    }
}

/// One kind of sender, set up.
trait Sender: Send + Sync {
    /// How it delivers.
    fn rules(&self) -> &'static Rules;

    /// The forgeries it supports; none when it was given neither key nor secret.
    fn forgeries(&self) -> &'static [Forge];

    /// The requests for `count` events, without what each try makes anew.
    fn messages(&self, count: u32, sending: &Sending) -> Result<Vec<Message>, Bad>;

    /// The headers that try number `attempt`, from 1, makes anew.
    fn stamps(
        &self,
        message: &Message,
        attempt: u32,
        sending: &Sending,
    ) -> Result<Vec<(String, String)>, Bad>;

    /// For a handshake: whether the receiver agreed, or why not.
    fn agreed(&self, _message: &Message, _reply: &post::Attempt) -> Option<Result<(), Disagreement>> {
        None
    }
}

/// Why a receiver did not agree to a handshake.
#[derive(Debug, thiserror::Error)]
pub(super) enum Disagreement {
    #[error("the status is {found:?}{}", if *.strict { ", not 200" } else { "" })]
    Status { found: Option<u16>, strict: bool },
    #[error("there is no WebHook-Allowed-Origin")]
    NoOrigin,
    #[error("WebHook-Allowed-Origin is {found}, not {own}")]
    OtherOrigin { found: String, own: String },
    #[error("there is no WebHook-Allowed-Rate, and a rate was asked for")]
    NoRate,
    #[error("validationResponse is not the code")]
    OtherCode,
}

/// A body that replaces the sender's own: a text is sent as it is.
fn as_sent(body: &Value) -> String {
    body.as_str().map_or_else(|| body.to_string(), str::to_owned)
}

/// An instant in seconds, as most senders write it.
fn seconds(at: Timestamp) -> String {
    at.as_chrono().to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// An instant in milliseconds.
fn millis(at: Timestamp) -> String {
    at.as_chrono().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Seconds since 1970, as tokens count.
fn epoch(at: Timestamp) -> i64 {
    at.as_chrono().timestamp()
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/sim/v1/emit", on_post(emit::emit))
        .route("/sim/v1/subscriptions", get(watch::list).post(watch::subscribe).delete(watch::unsubscribe))
        .route("/sim/v1/emissions", get(notes))
        .route("/senders/entra/{tenant}/keys", get(entra_keys))
        .route("/senders/google/certs", get(google_keys))
        .route("/senders/azure/validate", get(validate))
        .route("/senders/sns/", get(sns::act))
        .route("/senders/sns/{file}", get(sns::file))
}

async fn notes(State(sim): State<Shared>) -> Json<Value> {
    let notes = sim.event_source.notes.lock().unwrap_or_else(PoisonError::into_inner);
    Json(json!(*notes))
}

async fn entra_keys(State(sim): State<Shared>, Path(_): Path<String>) -> Json<Value> {
    Json(published(sim.event_source, Signer::Entra).await)
}

async fn google_keys(State(sim): State<Shared>) -> Json<Value> {
    Json(published(sim.event_source, Signer::Google).await)
}

async fn published(event_source: Arc<EventSource>, signer: Signer) -> Value {
    off_thread(move || event_source.keys.published(signer)).await
}

/// Runs work that may have to create a key on a thread where it blocks no other request.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failure) => std::panic::resume_unwind(failure.into_panic()),
    }
}

/// Notes that a `validationUrl` was followed: a receiver that follows it can be sent to any address.
async fn validate(State(sim): State<Shared>, Query(query): Query<BTreeMap<String, String>>) -> StatusCode {
    sim.event_source.note(json!({ "what": "validated", "at": sim.clock.now(), "code": query.get("code") }));
    StatusCode::OK
}
