//! Hooks: what each sender sends, forged and mangled too, and what becomes of it.
//!
//! Requests go over HTTP to the router that the daemon serves, with hooks read from a configuration as
//! an operator writes it. Bodies are the senders' documented ones; signatures are made here with the
//! primitives, and by independent packages in `scripts/interop`.

mod asked;
mod follow;
mod limits;
mod proofs;
mod senders;

use std::sync::Arc;
use std::time::Duration;

use keywheel::config::{Config, Sources};
use keywheel::domain::time::{Clock, ManualClock, SystemClock};
use keywheel::engine::command::NewProject;
use keywheel::engine::{Engine, hint, intake};
use keywheel::sim::{Sim, World};
use keywheel::store::EventOutcome;
use keywheel::web::hooks::{Hooks, LiveHooks};
use keywheel::web::{Web, router};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::daemon::{Answer, answer};
use crate::support::db::{Backend, TestDb};
use crate::support::{engine_at, group};

/// A server with hooks, over a database and a simulated Atlas.
pub(crate) struct HookServer {
    pub(crate) sim: Sim,
    pub(crate) engine: Engine,
    pub(crate) live: Arc<LiveHooks>,
    pub(crate) clock: ManualClock,
    base: String,
    http: reqwest::Client,
    stop: CancellationToken,
    _db: TestDb,
}

impl Drop for HookServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl HookServer {
    pub(crate) async fn open(hooks: &str) -> Self {
        Self::on(Backend::Sqlite, hooks, None).await
    }

    /// The same at an instant of its own.
    pub(crate) async fn at(instant: &str, hooks: &str) -> Self {
        Self::on(Backend::Sqlite, hooks, Some(ManualClock::new(instant.parse().unwrap()))).await
    }

    pub(crate) async fn on(backend: Backend, hooks: &str, manual: Option<ManualClock>) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let clock = manual.unwrap_or_else(|| ManualClock::new(SystemClock.now()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sim = Sim::start(listener, World::demo(), Arc::new(clock.clone())).unwrap();
        let db = TestDb::new(backend).await;
        crate::support::people(&db.store).await;
        let engine = engine_at(&sim, db.store.clone(), Arc::new(clock.clone()));
        for number in [1, 5, 9] {
            let new = NewProject {
                group_id: group(number),
                owners: vec!["ada@example.com".to_owned()],
                ..NewProject::default()
            };
            engine.add_project("ada", new).await.unwrap();
        }
        let configured = configured(
            &hooks
                .replace("{sim}", &sim.base_url())
                .replace("{host}", sim.base_url().trim_start_matches("http://")),
        );
        let named = configured.hooks.iter().map(|hook| (hook.name.clone(), hook.sender.kind()));
        engine.intake.count_for(named, engine.clock.now());
        let owners = configured.hooks.iter().map(|hook| (hook.name.clone(), hook.owners.clone()));
        engine.hook_owners.lock().unwrap().extend(owners);
        let live = Arc::new(LiveHooks::new(Hooks::new(&configured.hooks).unwrap()));
        let web = Web {
            counted: keywheel::web::Counted::default(),
            oidc: std::sync::Arc::default(),
            engine: engine.clone(),
            hooks: Arc::clone(&live),
            guesses: Arc::default(),
            proxies: ["127.0.0.1".parse().unwrap()].into(),
            stop: CancellationToken::new(),
            settings: Vec::new().into(),
            sweep_patience: Duration::from_secs(60),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stop = web.stop.clone();
        let ending = stop.clone().cancelled_owned();
        crate::support::wait::spawn(async move {
            axum::serve(listener, router(web)).with_graceful_shutdown(ending).await
        });
        crate::support::wait::spawn(intake::run(engine.clone(), stop.clone()));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { sim, engine, live, clock, base, http, stop, _db: db }
    }

    /// A request to `path` below `/hooks/`.
    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method.parse().unwrap(), format!("{}/hooks/{path}", self.base))
    }

    /// A delivery.
    pub(crate) async fn send(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        let request =
            headers.iter().fold(self.request("POST", path), |it, (name, value)| it.header(*name, *value));
        answer(request.body(body.into())).await
    }

    /// Has the simulator send an event to a hook: the status of each delivery, 0 where the connection ended first.
    pub(crate) async fn emit(&self, path: &str, order: &Value, more: Value) -> Vec<u64> {
        let mut order = order.clone();
        let whole = order.as_object_mut().unwrap();
        whole.extend(more.as_object().unwrap().clone());
        whole.insert("url".to_owned(), format!("{}/hooks/{path}", self.base).into());
        let sent = answer(self.http.post(format!("{}/sim/v1/emit", self.sim.base_url())).json(&order)).await;
        assert_eq!(sent.status, 200, "{order} {sent:?}");
        let sent = sent.json["sent"].as_array().unwrap().clone();
        assert!(!sent.is_empty(), "nothing was sent for {order}");
        sent.iter()
            .map(|it| it["attempts"].as_array().unwrap().last().unwrap()["status"].as_u64().unwrap_or(0))
            .collect()
    }

    /// Follows every hint that waits.
    pub(crate) async fn follow(&self) {
        hint::once(&self.engine, &self.stop).await.unwrap();
    }

    /// What became of an event.
    pub(crate) async fn outcome(&self, hook: &str, event_id: &str) -> Option<EventOutcome> {
        self.engine.store.event_outcome(hook, event_id).await.unwrap()
    }

    /// received, accepted, duplicate, irrelevant, handshake, unknown subject.
    pub(crate) fn counts(&self, hook: &str) -> [u64; 6] {
        self.engine.intake.tally(hook).unwrap().counts()
    }

    /// How often a delivery was refused, for which reasons.
    pub(crate) fn refusals(&self, hook: &str) -> Vec<(&'static str, u64)> {
        self.engine.intake.tally(hook).unwrap().refusals().into_iter().collect()
    }

    /// Rows of the inbox.
    pub(crate) async fn stored(&self) -> usize {
        let now = self.engine.clock.now();
        let far = now + Duration::from_secs(86_400);
        self.engine.store.claim_events(far, far, 100_000).await.unwrap().len()
    }
}

/// A configuration with these hooks.
pub(crate) fn configured(hooks: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keywheel.toml");
    crate::support::daemon::private(&file, hooks);
    Config::load(&Sources { file: Some(file), ..Sources::default() }).unwrap().config
}

/// The signature that Atlas makes.
pub(crate) fn atlas_signature(secret: &str, body: &[u8]) -> String {
    use aws_lc_rs::hmac;
    use base64::Engine as _;
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(hmac::sign(&key, body))
}

/// An alert of Atlas about a project.
pub(crate) fn alert(kind: &str, status: &str, updated: &str) -> Value {
    serde_json::json!({
        "id": "66f0a1b2c3d4e5f60718293a", "groupId": group(1), "orgId": "4888442a3354817a7320eb61",
        "alertConfigId": "57b76ddc96e8215c017ceafb", "eventTypeName": kind, "status": status,
        "created": "2026-08-02T02:27:02Z", "updated": updated,
        "humanReadable": "AWS encryption key elapsed time since last rotation is above 90 days. Project: payments-prod",
    })
}
