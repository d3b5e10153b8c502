//! What the tests share: databases, and an engine against the simulator.

pub(crate) mod db;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use keywheel::atlas::{Atlas, AtlasOptions, Credential, CredentialKind, PatchBody, TokenBudget};
use keywheel::domain::policy::{Pace, Policy, Verify};
use keywheel::domain::rotation::state::State;
use keywheel::domain::time::{Clock, Span, SystemClock, Timestamp};
use keywheel::engine::command::{NewProject, Proposed, Verb};
use keywheel::engine::{Engine, Settings, driver};
use keywheel::secret::Secret;
use keywheel::sim::world::demo_key;
use keywheel::sim::{Sim, World};
use keywheel::store::{RotationRow, Store};

struct Unlimited;

impl TokenBudget for Unlimited {
    fn take<'a>(&'a self, _: &'a str, _: Timestamp) -> BoxFuture<'a, Result<(), Timestamp>> {
        Box::pin(async { Ok(()) })
    }
}

/// The group id of the demo world's project number `number`.
pub(crate) fn group(number: u64) -> String {
    format!("{:024x}", 0x0065_aa00_0000_u64 + number)
}

pub(crate) fn old_key() -> String {
    demo_key("AWS", "payments-prod", 1, 1)
}

pub(crate) fn new_key() -> String {
    demo_key("AWS", "payments-prod", 1, 2)
}

/// An engine on a database, against a simulator, with waits that tests can bear.
pub(crate) struct Rig {
    pub(crate) sim: Sim,
    pub(crate) engine: Engine,
    pub(crate) db: db::TestDb,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sim = Sim::start(listener, World::demo(), Arc::new(SystemClock)).unwrap();
        let db = db::TestDb::new(db::Backend::Sqlite).await;
        let engine = engine(&sim, db.store.clone());
        let new = NewProject {
            group_id: group(1),
            owners: vec!["ada@example.com".to_owned()],
            ..NewProject::default()
        };
        engine.add_project("ada", new).await.unwrap();
        Self { sim, engine, db }
    }

    /// A new process on the same database.
    pub(crate) fn restart(&mut self) {
        self.engine = engine(&self.sim, self.db.store.clone());
    }

    /// Proposes and approves the move to the new key.
    pub(crate) async fn approved(&self) -> RotationRow {
        let group = group(1).parse().unwrap();
        let proposed = self.engine.propose("ada", &group, &new_key(), None, false).await.unwrap();
        let Proposed::Created(row) = proposed else { panic!("not new") };
        self.engine.say("grace", row.rotation.id, Verb::Approve, None, None).await.unwrap()
    }

    /// Steps until the rotation is final, or waits for an operator.
    pub(crate) async fn settle(&self, row: &RotationRow) -> RotationRow {
        let id = row.rotation.id;
        let settled = tokio::time::timeout(std::time::Duration::from_secs(60), async {
            loop {
                driver::run_due(&self.engine).await.unwrap();
                let row = self.engine.rotation(id).await.unwrap();
                if row.rotation.state.is_final() || row.rotation.state == State::NeedsOperator {
                    return row;
                }
                let wake = row.rotation.wake_at.unwrap();
                tokio::time::sleep(self.engine.clock.now().until(wake)).await;
            }
        });
        settled.await.expect("the rotation did not settle")
    }

    pub(crate) fn patches(&self) -> Vec<String> {
        self.sim.log().into_iter().filter(|it| it.operation == "patch_ear").filter_map(|it| it.key).collect()
    }

    pub(crate) fn held(&self) -> String {
        self.sim.with(|world| world.projects[&group(1)].key())
    }
}

pub(crate) fn engine(sim: &Sim, store: Store) -> Engine {
    let options = AtlasOptions {
        base_url: sim.base_url().parse().unwrap(),
        request_timeout: std::time::Duration::from_secs(2),
        patch_body: PatchBody::KeyOnly,
    };
    let credential = Credential {
        name: "default".to_owned(),
        kind: CredentialKind::ServiceAccount {
            client_id: "mdb_sa_id_demo".to_owned(),
            client_secret: Secret::new("mdb_sa_sk_demo"),
        },
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let atlas = Atlas::new(options, vec![credential], Arc::clone(&clock), Arc::new(Unlimited)).unwrap();
    let ms = Span::from_millis;
    let settings = Settings {
        policy: Policy::default(),
        verify: Verify {
            every: ms(60),
            false_grace: ms(200),
            timeout: ms(4000),
            guard: ms(6000),
            private_network_hold: ms(7000),
            deploy_poll: ms(60),
            deploy_grace: ms(2500),
            deploy_timeout: ms(5000),
            ..Verify::default()
        },
        pace: Pace {
            backoff_min: ms(50),
            backoff_max: ms(400),
            rate_limit_floor: ms(300),
            settle: ms(800),
            fresh: ms(1000),
            idle_every: ms(500),
            watch_every: ms(200),
            watch_for: ms(600),
        },
        drift_every: Span::from_secs(60),
        request_timeout: ms(2000),
        whole_block: false,
        public_url: "http://127.0.0.1".to_owned(),
        slots: 8,
    };
    Engine::new(store, Arc::new(atlas), clock, settings)
}
