//! A real HTTP server that webhooks are sent to: it keeps what it gets and answers as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::sync::{Notify, Semaphore};

/// What it answers with: a status, headers and a body.
pub(crate) type ScriptedReply = (u16, Vec<(&'static str, String)>, String);

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn id(&self) -> &str {
        self.header("webhook-id").unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The hook that one of the signatures was made with, by a computation of its own.
    pub(crate) fn is_signed_with(&self, secret: &[u8]) -> bool {
        use base64::Engine as _;
        use hmac::{KeyInit, Mac};
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(secret).unwrap();
        mac.update(self.id().as_bytes());
        mac.update(b".");
        mac.update(self.header("webhook-timestamp").unwrap().as_bytes());
        mac.update(b".");
        mac.update(&self.body);
        let wanted = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
        let signatures = self.header("webhook-signature").unwrap_or_default();
        signatures.split(' ').any(|it| it == format!("v1,{wanted}"))
    }
}

struct Endpoint {
    received: Mutex<Vec<Received>>,
    replies: Mutex<VecDeque<ScriptedReply>>,
    always: Mutex<ScriptedReply>,
    arrived: Notify,
    gate: Semaphore,
}

/// A running receiver; it ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Receiver {
    endpoint: Arc<Endpoint>,
    pub(crate) port: u16,
}

async fn answer(
    State(endpoint): State<Arc<Endpoint>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    endpoint.received.lock().unwrap().push(Received { path: uri.to_string(), headers, body });
    endpoint.arrived.notify_one();
    // While the gate is shut, the sender waits for an answer.
    drop(endpoint.gate.acquire().await);
    let (status, headers, body) = endpoint
        .replies
        .lock()
        .unwrap()
        .pop_front()
        .unwrap_or_else(|| endpoint.always.lock().unwrap().clone());
    let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

pub(crate) fn reply(status: u16, body: &str) -> ScriptedReply {
    (status, Vec::new(), body.to_owned())
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let endpoint = Arc::new(Endpoint {
            received: Mutex::default(),
            replies: Mutex::default(),
            always: Mutex::new(reply(204, "")),
            arrived: Notify::new(),
            gate: Semaphore::new(1000),
        });
        let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&endpoint));
        crate::support::wait::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { endpoint, port }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hooks/path-canary", self.port)
    }

    /// Answers like this first, one after the other.
    pub(crate) fn then(&self, replies: impl IntoIterator<Item = ScriptedReply>) {
        self.endpoint.replies.lock().unwrap().extend(replies);
    }

    /// Answers like this when nothing else was said.
    pub(crate) fn always(&self, reply: ScriptedReply) {
        *self.endpoint.always.lock().unwrap() = reply;
    }

    /// Leaves the sender waiting.
    pub(crate) fn shut(&self) {
        self.endpoint.gate.forget_permits(1000);
    }

    /// Answers again, those that wait too.
    pub(crate) fn open(&self) {
        self.endpoint.gate.add_permits(1000);
    }

    /// Waits for a request that was not waited for yet.
    pub(crate) async fn arrived(&self) {
        let soon = std::time::Duration::from_secs(30);
        tokio::time::timeout(soon, self.endpoint.arrived.notified()).await.expect("nothing arrived");
    }

    /// What came so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        let received = self.endpoint.received.lock().unwrap().clone();
        // Programs that read events are written after the schema.
        for it in &received {
            if it.header("content-type") == Some("application/cloudevents+json") {
                super::events::described(&it.json()).unwrap();
            }
        }
        received
    }

    /// What came since the last call.
    pub(crate) fn take(&self) -> Vec<Received> {
        let received = self.received();
        self.endpoint.received.lock().unwrap().drain(..received.len());
        received
    }

    /// The only request there was.
    pub(crate) fn only(&self) -> Received {
        let mut all = self.received();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }
}
