//! A simulator of the Atlas Admin API over real HTTP, with a model of key services behind it.
//!
//! It is written from what is known of Atlas and not from our client, so that the two check each
//! other; its validation of keys is its own. It serves the demo, the tests, and people who rehearse.
//! What is not known of Atlas is a setting of a project ([`world::Project`]), with the documented
//! reading as its default. `/sim/v1` seeds it, scripts faults and shows the log of all requests.
//!
//! Control side: `GET|PUT /sim/v1/world`, `PUT /sim/v1/projects/{groupId}`, `PUT /sim/v1/keys`
//! `{id, state}`, `POST /sim/v1/projects/{groupId}/human-edit` `{key}`, `GET|POST|DELETE
//! /sim/v1/faults`, `GET /sim/v1/log`. Not simulated yet: API-key log-in, snapshots, events, users.

mod atlas;
mod control;
pub mod fault;
mod wire;
pub mod world;

use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::routing::{get, post, put};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::time::Clock;
pub use world::{LogEntry, World};

/// A running simulator. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Sim {
    address: std::net::SocketAddr,
    state: Shared,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What every handler sees.
#[derive(Clone, Debug)]
struct Shared {
    world: Arc<Mutex<World>>,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
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
    /// When the listener has no address.
    pub fn start(listener: TcpListener, world: World, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let state = Shared { world: Arc::new(Mutex::new(world)), clock, tasks: tasks.clone() };
        let address = listener.local_addr()?;
        let app = routes(state.clone());
        let ended = stop.clone();
        tasks.spawn(async move {
            let service = app.into_make_service_with_connect_info::<wire::Kill>();
            let serve = axum::serve(wire::Listener(listener), service);
            let _ = serve.with_graceful_shutdown(async move { ended.cancelled().await }).await;
        });
        Ok(Self { address, state, stop, tasks })
    }

    /// Where it answers.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The log of all requests so far.
    #[must_use]
    pub fn log(&self) -> Vec<LogEntry> {
        self.state.world().log.clone()
    }

    /// Looks at or changes the world behind the API.
    pub fn with<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        change(&mut self.state.world())
    }

    /// Stops answering.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        // Connections kept open by clients would hold the end back for ever.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), self.tasks.wait()).await;
    }
}

fn routes(state: Shared) -> Router {
    Router::new()
        .route("/api/oauth/token", post(atlas::token))
        .route("/api/atlas/v2/groups", get(atlas::groups))
        .route("/api/atlas/v2/groups/{group}", get(atlas::group))
        .route("/api/atlas/v2/groups/{group}/clusters", get(atlas::clusters))
        .route("/api/atlas/v2/groups/{group}/alerts", get(atlas::alerts))
        .route("/api/atlas/v2/groups/{group}/encryptionAtRest", get(atlas::encryption).patch(atlas::change))
        .route("/sim/v1/world", get(control::world).put(control::replace))
        .route("/sim/v1/projects/{group}", put(control::project))
        .route("/sim/v1/projects/{group}/human-edit", post(control::human_edit))
        .route("/sim/v1/keys", put(control::key))
        .route("/sim/v1/faults", get(control::faults).post(control::add_fault).delete(control::clear_faults))
        .route("/sim/v1/log", get(control::log))
        .with_state(state)
}
