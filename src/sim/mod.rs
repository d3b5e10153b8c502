//! A simulator of the Atlas Admin API over real HTTP, with a model of key services behind it.
//!
//! It is written from Atlas' known behaviour and not from Keywheel's client, so that the two check each
//! other; its validation of keys is its own. It serves the demo, the tests, and rehearsals. Behaviour of
//! Atlas that is not known is a setting of a project ([`world::Project`]), with the documented reading
//! as its default. `/sim/v1` seeds it, scripts faults and shows the log of all requests.
//!
//! The same port answers as the key services below `/kms`, see `kms`.
//!
//! Not simulated: private endpoints beyond an empty list, more than one organisation, alert
//! configurations and webhooks, cloud provider access, creating anything, TLS, and clusters that shut
//! down when their key is invalid.
//!
//! Control side, all JSON: `GET|PUT|POST /sim/v1/world`, `PUT|POST /sim/v1/projects/{groupId}`,
//! `POST /sim/v1/projects/{groupId}/human-edit` `{key, by}`, `PUT|POST /sim/v1/keys`
//! `{id, state?, created?, expires?, …}` (makes a key or a version, disables it, has it deleted),
//! `PUT|POST /sim/v1/aliases` `{alias, key}`, `POST /sim/v1/kms` (the key services' log-ins, the
//! operations denied to the client, firewalls), `GET|POST|DELETE /sim/v1/faults`, `GET /sim/v1/log`. PUT
//! replaces, POST lays fields over. Senders of events: `POST /sim/v1/emit`,
//! `GET|POST|DELETE /sim/v1/subscriptions`, `GET /sim/v1/emissions`, described in `senders`.

mod answer;
mod ask;
mod call;
mod check;
mod control;
mod demo;
mod demo_names;
mod digest;
mod encryption;
mod events;
pub mod fault;
mod ids;
mod inventory;
mod kms;
mod limits;
mod login;
mod operation;
mod reply;
mod senders;
mod wire;
pub mod world;

use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::response::IntoResponse as _;
use axum::routing::{any, get, patch, post, put};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::answer::{SimResult, refuse};
use self::ask::Ask;
use self::call::Call;
use self::kms::Service;
use self::operation::Operation;
use crate::domain::time::Clock;
pub use world::{KeyState, LogEntry, World};

/// A running simulator. Clones share it.
#[derive(Clone, Debug)]
pub struct Sim {
    address: std::net::SocketAddr,
    state: Shared,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// The state that all handlers share.
#[derive(Clone, Debug)]
struct Shared {
    world: Arc<Mutex<World>>,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    event_source: Arc<senders::EventSource>,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Sim {
    /// Serves `world` on `listener` until [`Sim::shutdown`].
    ///
    /// # Errors
    /// Fails when the listener has no address.
    pub fn start(listener: TcpListener, world: World, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let address = listener.local_addr()?;
        let event_source = senders::EventSource::new(format!("http://{address}"));
        let state = Shared { world: Arc::new(Mutex::new(world)), clock, tasks: tasks.clone(), event_source };
        senders::watch::look(&state);
        let app = routes(state.clone());
        let ended = stop.clone();
        tasks.spawn(async move {
            let service = app.into_make_service_with_connect_info::<wire::Peer>();
            let serve = axum::serve(wire::Listener(listener), service);
            let _ = serve.with_graceful_shutdown(async move { ended.cancelled().await }).await;
        });
        Ok(Self { address, state, stop, tasks })
    }

    /// Its base URL.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The log of all requests so far.
    #[must_use]
    pub fn log(&self) -> Vec<LogEntry> {
        self.state.world().log.clone()
    }

    /// Reads or changes the world behind the API.
    pub fn with<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let changed = change(&mut self.state.world());
        senders::watch::look(&self.state);
        changed
    }

    /// Stops answering.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        // Connections that clients keep open would delay the end for ever.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), self.tasks.wait()).await;
    }
}

/// The versions of an operation that exists in one version only.
const FIRST: &[&str] = &["2023-01-01"];
const CLUSTERS: &[&str] = &["2023-01-01", "2024-08-05"];
/// The earlier version of this list has another form and is not simulated.
const USERS: &[&str] = &["2025-02-19"];

fn routes(state: Shared) -> Router {
    let read = |name, versions, limit, handle: fn(&mut World, &Ask) -> SimResult| {
        get(answer(Operation { name, versions, limit, writes: false, handle }))
    };
    let token = Operation { name: "token", versions: &[], limit: "", writes: false, handle: login::token };
    let change = Operation {
        name: "patch_ear",
        versions: FIRST,
        limit: "encryption",
        writes: true,
        handle: encryption::patch,
    };
    // A list that only an owner may read.
    let endpoints = Operation { name: "get_endpoints", handle: inventory::endpoints, ..change };
    let of = |rest: &str| format!("/api/atlas/v2/groups/{{group}}{rest}");
    let org = |rest: &str| format!("/api/atlas/v2/orgs/{{org}}{rest}");
    Router::new()
        .route("/api/oauth/token", post(answer(token)))
        .route("/api/atlas/v2/groups", read("get_groups", FIRST, "groups", inventory::groups))
        .route(&of(""), read("get_group", FIRST, "groups", inventory::group))
        .route(
            &of("/encryptionAtRest"),
            read("get_ear", FIRST, "encryption", encryption::get).merge(patch(answer(change))),
        )
        .route(&of("/encryptionAtRest/{cloud}/privateEndpoints"), get(answer(endpoints)))
        .route(&of("/clusters"), read("get_clusters", CLUSTERS, "clusters", inventory::clusters))
        .route(
            &of("/clusters/{cluster}/backup/snapshots"),
            read("get_snapshots", FIRST, "backups", inventory::snapshots),
        )
        .route(&of("/teams"), read("get_teams", FIRST, "teams", inventory::teams))
        .route(&org("/users"), read("get_org_users", USERS, "users", inventory::org_users))
        .route(&org("/teams/{team}"), read("get_team", FIRST, "teams", inventory::team))
        .route(&org("/teams/{team}/users"), read("get_team_users", USERS, "users", inventory::team_users))
        .route(
            &org("/serviceAccounts/{client}"),
            read("get_service_account", CLUSTERS, "groups", inventory::service_account),
        )
        .route(&of("/users"), read("get_users", USERS, "users", inventory::users))
        .route(&of("/alerts"), read("get_alerts", FIRST, "alerts", events::alerts))
        .route(&of("/alerts/{alert}"), read("get_alert", FIRST, "alerts", events::alert))
        .route(&of("/events"), read("get_events", FIRST, "events", events::events))
        .route(&of("/events/{event}"), read("get_event", FIRST, "events", events::event))
        .route("/sim/v1/world", get(control::world).put(control::replace).post(control::settle))
        .route("/sim/v1/projects/{group}", put(control::project).post(control::settle_project))
        .route("/sim/v1/projects/{group}/human-edit", post(control::human_edit))
        .route("/sim/v1/keys", put(control::key).post(control::key))
        .route("/sim/v1/aliases", put(control::alias).post(control::alias))
        .route("/sim/v1/kms", post(control::settle_kms))
        .route("/kms/aws", any(key_service(Service::Aws)))
        .route("/kms/aws/", any(key_service(Service::Aws)))
        .route("/kms/entra/{*path}", any(key_service(Service::Entra)))
        .route("/kms/azure/{*path}", any(key_service(Service::Vault)))
        .route("/kms/gcp/v1/{*path}", any(key_service(Service::Gcp)))
        .route("/sim/v1/faults", get(control::faults).post(control::add_fault).delete(control::clear_faults))
        .route("/sim/v1/log", get(control::log))
        .fallback(async || refuse(404, "RESOURCE_NOT_FOUND", "There is nothing here.").into_response())
        .merge(senders::routes())
        .layer(axum::middleware::from_fn_with_state(state.clone(), senders::watch::after))
        .with_state(state)
}

fn key_service(
    service: Service,
) -> impl Fn(Call) -> futures_util::future::BoxFuture<'static, axum::response::Response> + Clone {
    move |call| Box::pin(kms::serve(service, call))
}

fn answer(
    operation: Operation,
) -> impl Fn(Call) -> futures_util::future::BoxFuture<'static, axum::response::Response> + Clone {
    move |call| Box::pin(call.answer(operation))
}
