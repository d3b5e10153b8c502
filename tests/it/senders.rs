//! The senders of the simulator, judged by what a receiver finds on the wire. What needs somebody else's
//! library to judge is in `tests/oracles`, run by `scripts/interop`.

mod clouds;
mod control;
mod generic;
mod retries;
mod watch;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use keywheel::domain::time::ManualClock;
use keywheel::sim::{Sim, World};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use crate::support::wait::{LIMIT, eventually};

/// One request as it came.
#[derive(Clone, Debug)]
struct Seen {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Head and claims of the bearer token.
    fn token(&self) -> (Value, Value) {
        let token = self.header("authorization").unwrap().strip_prefix("Bearer ").unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        assert_eq!(parts.len(), 3, "{token}");
        let read = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        (read(parts[0]), read(parts[1]))
    }
}

type Scripted = (u16, Vec<(&'static str, String)>, String);

/// What a receiver saw, and what it answers next; 202 when nothing is scripted.
#[derive(Clone, Default)]
struct Endpoint {
    seen: Arc<Mutex<Vec<Seen>>>,
    answers: Arc<Mutex<VecDeque<Scripted>>>,
}

async fn receive(
    State(endpoint): State<Endpoint>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    endpoint.seen.lock().unwrap().push(Seen { method, uri, headers, body });
    let next = endpoint.answers.lock().unwrap().pop_front();
    let (status, headers, body) = next.unwrap_or((202, Vec::new(), String::new()));
    let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

/// A simulator whose clock stands, and a receiver.
struct Site {
    sim: Sim,
    clock: ManualClock,
    endpoint: Endpoint,
    hook: String,
    client: reqwest::Client,
}

impl Site {
    async fn new() -> Self {
        Self::of(World::demo()).await
    }

    async fn of(world: World) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let clock = ManualClock::new("2026-11-20T03:12:45.103673Z".parse().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sim = Sim::start(listener, world, Arc::new(clock.clone())).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hook = format!("http://{}/hooks/it", listener.local_addr().unwrap());
        let endpoint = Endpoint::default();
        let app = Router::new().fallback(receive).with_state(endpoint.clone());
        crate::support::wait::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { sim, clock, endpoint, hook, client }
    }

    fn answer(&self, status: u16, headers: &[(&'static str, &str)], body: &str) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.endpoint.answers.lock().unwrap().push_back((status, headers, body.to_owned()));
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}{path}", self.sim.base_url());
        let reply = self.client.post(url).body(body.to_string()).send().await.unwrap();
        let status = reply.status().as_u16();
        (status, serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap_or_default())
    }

    async fn fetch(&self, path: &str) -> String {
        let reply = self.client.get(format!("{}{path}", self.sim.base_url())).send().await.unwrap();
        assert_eq!(reply.status(), 200, "{path}");
        reply.text().await.unwrap()
    }

    /// The order with the receiver's address in it.
    fn order(&self, kind: &str, fields: Value) -> Value {
        let Value::Object(mut order) = fields else { panic!("an order is an object") };
        order.insert("kind".to_owned(), json!(kind));
        order.entry("url").or_insert(json!(self.hook));
        Value::Object(order)
    }

    /// Emits, and gives what was answered and what the receiver saw of it.
    async fn emit(&self, kind: &str, fields: Value) -> (Value, Vec<Seen>) {
        self.endpoint.seen.lock().unwrap().clear();
        let order = self.order(kind, fields);
        let (status, answer) = self.post("/sim/v1/emit", &order).await;
        assert_eq!(status, 200, "{order}: {answer}");
        (answer["sent"].clone(), self.endpoint.seen.lock().unwrap().clone())
    }

    /// Emits one event that makes one request.
    async fn one(&self, kind: &str, fields: Value) -> Seen {
        let (_, seen) = self.emit(kind, fields).await;
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0].clone()
    }

    /// Asserts that an order is refused with a word about a field.
    async fn refused(&self, kind: &str, fields: Value, field: &str, word: &str) {
        let order = self.order(kind, fields);
        let (status, answer) = self.post("/sim/v1/emit", &order).await;
        assert_eq!((status, answer["field"].as_str()), (400, Some(field)), "{order}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(word), "{order}: {answer}");
        assert!(self.endpoint.seen.lock().unwrap().is_empty(), "{order}");
    }

    /// Waits until the receiver has seen `count` requests.
    async fn seen(&self, count: usize) -> Vec<Seen> {
        let all = eventually(LIMIT, async || {
            let seen = self.endpoint.seen.lock().unwrap().clone();
            (seen.len() >= count).then_some(seen)
        });
        all.await.expect("too few requests")
    }
}

/// `fields` with `more` laid over.
fn with(fields: &Value, more: Value) -> Value {
    let Value::Object(mut fields) = fields.clone() else { panic!("no object") };
    let Value::Object(more) = more else { panic!("no object") };
    fields.extend::<Map<String, Value>>(more);
    Value::Object(fields)
}

fn unbase64(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap()
}

/// Whether a token of three parts is signed by a key of a published set, under its name.
fn is_signed_by(set: &str, token: &str) -> bool {
    let parts: Vec<&str> = token.split('.').collect();
    let head: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[0]).unwrap()).unwrap();
    let set: Value = serde_json::from_str(set).unwrap();
    let Some(key) = set["keys"].as_array().unwrap().iter().find(|key| key["kid"] == head["kid"]) else {
        return false;
    };
    let part = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let public = aws_lc_rs::signature::RsaPublicKeyComponents { n: part("n"), e: part("e") };
    let text = format!("{}.{}", parts[0], parts[1]);
    let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    let rule = &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256;
    head["alg"] == "RS256" && public.verify(rule, text.as_bytes(), &signature).is_ok()
}
