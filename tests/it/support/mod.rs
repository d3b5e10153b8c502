//! What the tests share: databases, and an engine against the simulator.

pub(crate) mod authenticator;
pub(crate) mod daemon;
pub(crate) mod db;
pub(crate) mod document;
pub(crate) mod events;
pub(crate) mod issuer;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod receiver;
pub(crate) mod smtpd;
pub(crate) mod wait;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use keywheel::atlas::{Atlas, TokenBudget};
use keywheel::config::{self, Credential, PatchBody};
use keywheel::domain::key::{KeyRef, Provider};
use keywheel::domain::notice::{Content, Notice, RotationFacts};
use keywheel::domain::policy::{Pace, Policy, Verify};
use keywheel::domain::role::Role;
use keywheel::domain::rotation::state::State;
use keywheel::domain::time::{Clock, ManualClock, Span, SystemClock, Timestamp};
use keywheel::engine::command::{NewProject, OperatorVerb};
use keywheel::engine::propose::Proposed;
use keywheel::engine::{Engine, Settings, driver};
use keywheel::mail::Letter;
use keywheel::secret::Secret;
use keywheel::sim::world::{KeyState, demo_key};
use keywheel::sim::{Sim, World};
use keywheel::store::{NewAudit, OutboxRow, RotationRow, Store};

struct Unlimited;

impl TokenBudget for Unlimited {
    fn take<'a>(&'a self, _: &'a str, _: Timestamp) -> BoxFuture<'a, Result<(), Timestamp>> {
        Box::pin(async { Ok(()) })
    }
}

/// The mail of an outbox row.
pub(crate) fn letter(row: &OutboxRow) -> Letter {
    Letter::new(&row.content().unwrap())
}

/// A notice with little in it.
pub(crate) fn notice(about: &str, kind: fn(RotationFacts) -> Notice) -> Content {
    let facts = RotationFacts {
        planned_for: None,
        group_id: about.parse().unwrap(),
        project_name: "ü".to_owned(),
        rotation_id: "0198c5a0-0000-7000-8000-000000000001".parse().unwrap(),
        provider: Provider::Aws,
        old_key: (&KeyRef::observed(Provider::Aws, "old")).into(),
        new_key: (&KeyRef::observed(Provider::Aws, "new")).into(),
        state: State::Completed,
        cause: None,
        requested_by: "ada".to_owned(),
        reason: None,
        atlas_error_code: None,
        atlas_detail: None,
        remedy: None,
        condition_id: None,
    };
    Content { server: "https://kw.example".to_owned(), notice: kind(facts) }
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

/// Makes the tokens of the people who propose and approve. Each is another person's, and old enough for a daemon to
/// count its votes.
pub(crate) async fn people(store: &Store) {
    let made = "2026-01-01T00:00:00Z".parse().unwrap();
    for name in ["ada", "bob", "edsger", "grace"] {
        let audit = NewAudit {
            actor: "local:test".to_owned(),
            action: "token.created".to_owned(),
            subject: format!("token/{name}"),
            detail: "{}".to_owned(),
        };
        let (hash, person) = (format!("hash of {name}"), format!("{name}@example.com"));
        let given = (None, Some(person.as_str()));
        store.insert_given_token((name, &hash), &[Role::Admin], given, (&[audit], &[]), made).await.unwrap();
    }
}

/// An engine on a database, against a simulator. Both have one clock.
pub(crate) struct TestApp {
    pub(crate) sim: Sim,
    pub(crate) engine: Engine,
    pub(crate) db: db::TestDb,
    /// Set where the test decides what time it is; `None` beside real daemons, which have the system's.
    clock: Option<ManualClock>,
}

impl TestApp {
    pub(crate) async fn new() -> Self {
        Self::on(db::Backend::Sqlite, World::demo()).await
    }

    /// The same on either database, in a given world.
    pub(crate) async fn on(backend: db::Backend, world: World) -> Self {
        Self::by(Some(ManualClock::new(SystemClock.now())), backend, world).await
    }

    /// The same beside daemons that are processes of their own: on the system's clock.
    pub(crate) async fn live(backend: db::Backend, world: World) -> Self {
        Self::by(None, backend, world).await
    }

    async fn by(clock: Option<ManualClock>, backend: db::Backend, world: World) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sim = Sim::start(listener, world, time(clock.as_ref())).unwrap();
        let db = db::TestDb::new(backend).await;
        people(&db.store).await;
        let engine = engine_at(&sim, db.store.clone(), time(clock.as_ref()));
        let new = NewProject {
            group_id: group(1),
            owners: vec!["ada@example.com".to_owned()],
            ..NewProject::default()
        };
        engine.add_project("ada", new).await.unwrap();
        Self { sim, engine, db, clock }
    }

    /// Changes what is proposed from now on is bound to.
    pub(crate) fn rule(&mut self, change: impl FnOnce(&mut Settings)) {
        let mut settings = Settings::clone(&self.engine.settings);
        change(&mut settings);
        self.engine.settings = Arc::new(settings);
    }

    /// Tracks project `number` too.
    pub(crate) async fn track(&self, number: u64) {
        let new = NewProject { group_id: group(number), ..NewProject::default() };
        self.engine.add_project("ada", new).await.unwrap();
    }

    /// A new process on the same database.
    pub(crate) fn restart(&mut self) {
        self.engine = engine_at(&self.sim, self.db.store.clone(), time(self.clock.as_ref()));
    }

    /// Makes it `at`, or later.
    pub(crate) fn pass_until(&self, at: Timestamp) {
        let clock = self.clock.as_ref().expect("beside a daemon time passes by itself");
        clock.set(clock.now().max(at));
    }

    pub(crate) fn pass(&self, span: std::time::Duration) {
        self.pass_until(self.engine.clock.now() + span);
    }

    /// Proposes and approves the move of project 1 to its new key.
    pub(crate) async fn approved(&self) -> RotationRow {
        self.approved_to(1, &new_key()).await
    }

    /// Proposes and approves the move of project `number` to `key`.
    pub(crate) async fn approved_to(&self, number: u64, key: &str) -> RotationRow {
        let group = group(number).parse().unwrap();
        let proposed = self.engine.propose("ada", &group, key.parse().unwrap(), None, false).await.unwrap();
        let Proposed::Created(row) = proposed else { panic!("not new") };
        self.engine.say("grace", row.rotation.id, OperatorVerb::Approve, None, None).await.unwrap()
    }

    /// Steps until the rotation is final, or waits for an operator.
    pub(crate) async fn settle(&self, row: &RotationRow) -> RotationRow {
        self.until(row, |state| state.is_final() || state == State::NeedsOperator).await
    }

    /// Steps until the rotation's state is one that is `wanted`.
    pub(crate) async fn until(&self, row: &RotationRow, wanted: impl Fn(State) -> bool) -> RotationRow {
        self.until_row(row, |row| wanted(row.rotation.state)).await
    }

    /// The same by the whole row.
    pub(crate) async fn until_row(
        &self,
        row: &RotationRow,
        wanted: impl Fn(&RotationRow) -> bool,
    ) -> RotationRow {
        let mut seen = None;
        for _ in 0..1000 {
            Box::pin(driver::run_due(&self.engine)).await.unwrap();
            let row = self.engine.rotation(row.rotation.id).await.unwrap();
            if wanted(&row) {
                return row;
            }
            self.pass_until(row.rotation.wake_at.expect("it ended in another state"));
            seen = Some(row.rotation.state);
        }
        panic!("the rotation rests in {seen:?}")
    }

    /// Another person sets `key` in Atlas.
    pub(crate) fn set_by_hand(&self, key: &str) {
        self.sim.with(|world| {
            world.keys.entry(key.to_owned()).or_insert(KeyState::Enabled);
            let project = world.projects.get_mut(&group(1)).unwrap();
            project.block.insert("customerMasterKeyID".to_owned(), key.into());
        });
    }

    pub(crate) fn patches(&self) -> Vec<String> {
        self.sim.log().into_iter().filter(|it| it.operation == "patch_ear").filter_map(|it| it.key).collect()
    }

    pub(crate) fn held(&self) -> String {
        self.sim.with(|world| world.projects[&group(1)].key())
    }
}

fn time(clock: Option<&ManualClock>) -> Arc<dyn Clock> {
    clock.map_or_else(|| Arc::new(SystemClock) as Arc<dyn Clock>, |it| Arc::new(it.clone()))
}

pub(crate) fn engine_at(sim: &Sim, store: Store, clock: Arc<dyn Clock>) -> Engine {
    let credential = Credential::ServiceAccount {
        client_id: "mdb_sa_id_demo".to_owned(),
        client_secret: Secret::new("mdb_sa_sk_demo"),
    };
    let options = config::Atlas {
        base_url: sim.base_url(),
        request_timeout: Span::from_secs(2),
        patch_body: PatchBody::KeyOnly,
        credentials: [("default".to_owned(), credential)].into(),
    };
    let atlas = Atlas::new(&options, Arc::clone(&clock), Arc::new(Unlimited)).unwrap();
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
            ..Pace::default()
        },
        drift_every: Span::from_secs(60),
        watch_every: ms(200),
        watch_for: ms(600),
        limits: keywheel::domain::condition::Limits {
            confirm_after: ms(100),
            told_after: Span::from_secs(900),
            gather: Span::from_millis(0),
            daily: keywheel::domain::condition::Daily::default(),
        },
        operators: Vec::new(),
        digest: None,
        mail_domain: "example.com".to_owned(),
        security: Vec::new(),
        mails: true,
        loosen_after: Span::from_days(1),
        settle_in: None,
        socket_role: keywheel::domain::role::Role::Admin,
        issuers: std::collections::BTreeSet::new(),
        daemon: "here:8440".to_owned(),
        poll_every: Span::from_secs(6 * 3600),
        request_timeout: ms(2000),
        whole_block: false,
        public_url: "http://127.0.0.1".to_owned(),
        slots: 8,
        retention: keywheel::config::Retention {
            messages: Span::from_days(400),
            events: Span::from_days(90),
            observations: Span::from_days(400),
            replays: Span::from_days(90),
        },
    };
    Engine::new(store, Arc::new(atlas), clock, settings)
}
