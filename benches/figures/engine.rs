//! The engine on SQLite against the simulator in this process: how long from a yes to the PATCH, a
//! fleet of rotations, a sweep among many projects, and what a year leaves in the database.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all};
use keywheel::atlas::{Atlas, TokenBudget};
use keywheel::config::{self, Credential, PatchBody};
use keywheel::domain::ids::GroupId;
use keywheel::domain::policy::{Pace, Policy, Verify};
use keywheel::domain::role::Role;
use keywheel::domain::time::{Clock, ManualClock, Span, SystemClock, Timestamp};
use keywheel::engine::command::OperatorVerb;
use keywheel::engine::epoch::EpochWatch;
use keywheel::engine::propose::Proposed;
use keywheel::engine::{Engine, Settings, driver, remind, sweep};
use keywheel::seal::InstallationKey;
use keywheel::secret::Secret;
use keywheel::sim::fault::{Fault, Kind};
use keywheel::sim::world::KeyState;
use keywheel::sim::{Sim, World};
use keywheel::store::{Access, RotationRow, Store};
use tokio_util::sync::CancellationToken;

use super::{group, percentile, project};

struct Unlimited;

impl TokenBudget for Unlimited {
    fn take<'a>(&'a self, _: &'a str, _: Timestamp) -> BoxFuture<'a, Result<(), Timestamp>> {
        Box::pin(async { Ok(()) })
    }
}

/// A store in a file, an engine with its guard, and Atlas with `count` projects on AWS.
struct Site {
    folder: tempfile::TempDir,
    sim: Sim,
    engine: Engine,
}

fn key(number: usize, version: usize) -> String {
    format!("{number:08x}-aaaa-4aaa-8aaa-{version:012x}")
}

async fn pragma(store: &Store, text: &'static str) {
    let Store::Sqlite { write, .. } = store else { unreachable!() };
    sqlx::query(text).execute(write).await.unwrap();
}

impl Site {
    async fn new(count: usize, clock: Arc<dyn Clock>, change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open("sqlite:kw.db", folder.path(), Access::Beside).await.unwrap();
        store.migrate().await.unwrap();
        super::unlock(&store, &InstallationKey::random().unwrap()).await;
        for name in ["ada", "grace"] {
            store.insert_token(name, name, &[Role::Admin], &[], clock.now()).await.unwrap();
        }
        let mut world = World::demo();
        let model = world.projects.values().next().unwrap().clone();
        // The fleet is set up quickly and then measured as it runs.
        pragma(&store, "PRAGMA synchronous = OFF").await;
        for number in 0..count {
            let mut twin = model.clone();
            twin.block.insert("customerMasterKeyID".to_owned(), key(number, 1).into());
            (twin.update_after_ms, twin.update_takes_ms) = (0, 0);
            world.projects.insert(group(number), twin);
            for version in 1..6 {
                world.keys.insert(key(number, version), KeyState::Enabled);
            }
            store.insert_project(&project(number, clock.now()), &[], clock.now()).await.unwrap();
        }
        pragma(&store, "PRAGMA synchronous = FULL").await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sim = Sim::start(listener, world, Arc::clone(&clock)).unwrap();
        let credential = Credential::ServiceAccount {
            client_id: "mdb_sa_id_demo".to_owned(),
            client_secret: Secret::new("mdb_sa_sk_demo"),
        };
        let options = config::Atlas {
            base_url: sim.base_url(),
            request_timeout: Span::from_secs(30),
            patch_body: PatchBody::KeyOnly,
            credentials: [("default".to_owned(), credential)].into(),
        };
        let atlas = Atlas::new(&options, Arc::clone(&clock), Arc::new(Unlimited)).unwrap();
        let mut settings = Settings {
            policy: Policy::default(),
            verify: Verify::default(),
            pace: Pace::default(),
            drift_every: Span::from_secs(900),
            watch_every: Span::from_secs(30),
            watch_for: Span::from_secs(3600),
            limits: keywheel::domain::condition::Limits {
                confirm_after: Span::from_secs(10),
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
            request_timeout: Span::from_secs(30),
            whole_block: false,
            public_url: "http://127.0.0.1".to_owned(),
            slots: 64,
            retention: keywheel::config::Retention {
                messages: Span::from_days(400),
                events: Span::from_days(90),
                observations: Span::from_days(400),
                replays: Span::from_days(90),
            },
        };
        change(&mut settings);
        let guard = EpochWatch::new(folder.path().join("epoch")).unwrap();
        let engine = Engine::new(store, Arc::new(atlas), clock, settings).with_guard(guard);
        Self { folder, sim, engine }
    }

    async fn proposed(&self, number: usize, version: usize) -> RotationRow {
        let group = group(number).parse().unwrap();
        match self
            .engine
            .propose("ada", &group, key(number, version).parse().unwrap(), None, false)
            .await
            .unwrap()
        {
            Proposed::Created(row) => row,
            other => panic!("{other:?}"),
        }
    }

    async fn approve(&self, row: &RotationRow) {
        self.engine.say("grace", row.rotation.id, OperatorVerb::Approve, None, None).await.unwrap();
    }

    /// When Atlas received each PATCH, by group.
    fn patches(&self) -> Vec<(String, Timestamp)> {
        let log = self.sim.log().into_iter().filter(|it| it.operation == "patch_ear");
        log.map(|it| (it.group_id.unwrap(), it.at)).collect()
    }
}

const IN_FLIGHT: usize = 100;

/// From a hundred rotations that are approved to their PATCHes on the wire, p99; and the same for a bare
/// client that only commits, looks, commits and sends.
pub(super) async fn yes_to_patch() -> (Duration, Duration) {
    let site = Site::new(IN_FLIGHT, Arc::new(SystemClock), |settings| settings.slots = IN_FLIGHT).await;
    let mut rows = Vec::new();
    for number in 0..IN_FLIGHT {
        rows.push(site.proposed(number, 2).await);
    }
    // Looks that a proposal waits for are over, and connections are open.
    driver::run_due(&site.engine).await.unwrap();
    for row in &rows {
        site.approve(row).await;
    }
    let stop = CancellationToken::new();
    let approved = SystemClock.now();
    let running = tokio::spawn(driver::run(site.engine.clone(), stop.clone()));
    while site.patches().len() < IN_FLIGHT {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    running.await.unwrap();
    let took = site.patches().into_iter().map(|(_, sent)| sent.since(approved));
    let ours = percentile(99, took.collect());
    site.sim.clone().shutdown().await;
    (ours, bare().await)
}

/// A client without any of this: two commits into a file and two requests, as often at the same time.
async fn bare() -> Duration {
    let site = Site::new(IN_FLIGHT, Arc::new(SystemClock), |_| {}).await;
    let Store::Sqlite { write, .. } = &site.engine.store else { unreachable!() };
    sqlx::raw_sql("CREATE TABLE bare (id INTEGER PRIMARY KEY, what TEXT NOT NULL)")
        .execute(write)
        .await
        .unwrap();
    let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
    let base = site.sim.base_url();
    let token = http
        .post(format!("{base}/api/oauth/token"))
        .basic_auth("mdb_sa_id_demo", Some("mdb_sa_sk_demo"))
        .form(&[("grant_type", "client_credentials")])
        .send()
        .await
        .unwrap();
    let token: serde_json::Value = token.json().await.unwrap();
    let token = token["access_token"].as_str().unwrap();
    let all = join_all((0..IN_FLIGHT).map(|number| {
        let (http, base) = (http.clone(), base.clone());
        async move {
            let at = SystemClock.now();
            let commit = || async {
                sqlx::query("INSERT INTO bare (what) VALUES ('intent')").execute(write).await.unwrap();
            };
            let url = format!("{base}/api/atlas/v2/groups/{}/encryptionAtRest", group(number));
            let accept = "application/vnd.atlas.2023-01-01+json";
            commit().await;
            let look = http.get(&url).bearer_auth(token).header("accept", accept).send().await.unwrap();
            assert!(look.status().is_success());
            drop(look.bytes().await);
            commit().await;
            let body = serde_json::json!({ "awsKms": { "customerMasterKeyID": key(number, 2) } });
            let body = body.to_string();
            let sent = http.patch(&url).bearer_auth(token).header("accept", accept);
            let sent = sent.header("content-type", accept).body(body).send().await.unwrap();
            assert!(sent.status().is_success(), "{}", sent.status());
            (group(number), at)
        }
    }))
    .await;
    let patches = site.patches();
    let took = all.iter().map(|(group, at)| {
        let (_, sent) = patches.iter().find(|(it, _)| it == group).unwrap();
        sent.since(*at)
    });
    let p99 = percentile(99, took.collect());
    site.sim.clone().shutdown().await;
    p99
}

/// A thousand rotations, 64 at a time, where each request takes 50 ms: how long they took, and how
/// long their requests alone take when 64 are always under way.
pub(super) async fn fleet() -> (Duration, Duration) {
    const COUNT: usize = 1000;
    const SLOTS: u32 = 64;
    const LATENCY: Duration = Duration::from_millis(50);
    let ms = Span::from_millis;
    let site = Site::new(COUNT, Arc::new(SystemClock), |settings| {
        settings.verify.every = ms(250);
        settings.verify.deploy_poll = ms(250);
        settings.verify.deploy_grace = ms(1);
        settings.slots = SLOTS as usize;
    })
    .await;
    for number in 0..COUNT {
        let row = site.proposed(number, 2).await;
        site.approve(&row).await;
    }
    let any = Kind::Delay(50);
    let slow = Fault { operation: "any".to_owned(), group_id: None, skip: 0, times: None, kind: any };
    let before = site.sim.log().len();
    site.sim.with(|world| world.faults.push(slow));
    let started = Instant::now();
    let stop = CancellationToken::new();
    let running = tokio::spawn(driver::run(site.engine.clone(), stop.clone()));
    let Store::Sqlite { read, .. } = &site.engine.store else { unreachable!() };
    loop {
        let open = "SELECT COUNT(*) FROM rotations WHERE state != 'completed'";
        let (open,): (i64,) = sqlx::query_as(open).fetch_one(read).await.unwrap();
        if open == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = started.elapsed();
    stop.cancel();
    running.await.unwrap();
    let requests = u32::try_from(site.sim.log().len() - before).unwrap();
    site.sim.clone().shutdown().await;
    (took, LATENCY * requests / SLOTS)
}

/// One sweep with a hundred projects due among each of `counts`; the best of twenty.
pub(super) async fn sweeps(counts: &[usize]) -> Vec<Duration> {
    let mut all = Vec::new();
    for count in counts {
        let clock = ManualClock::new(SystemClock.now());
        let site = Site::new(super::DUE, Arc::new(clock.clone()), |settings| {
            settings.drift_every = Span::from_days(800);
        })
        .await;
        let store = &site.engine.store;
        let due: Vec<GroupId> = (0..super::DUE).map(|number| group(number).parse().unwrap()).collect();
        pragma(store, "PRAGMA synchronous = OFF").await;
        for number in super::DUE..*count {
            let mut other = project(number, clock.now());
            other.next_check_at = clock.now() + Duration::from_secs(400 * 86_400);
            store.insert_project(&other, &[], clock.now()).await.unwrap();
        }
        pragma(store, "PRAGMA synchronous = FULL").await;
        let mut best = Duration::MAX;
        for _ in 0..20 {
            store.look_soon(&due, clock.now()).await.unwrap();
            let started = Instant::now();
            let seen = sweep::once(&site.engine, &CancellationToken::new()).await.unwrap();
            best = best.min(started.elapsed());
            assert_eq!(seen, super::DUE);
            clock.advance(Duration::from_secs(1));
        }
        all.push(best);
        site.sim.clone().shutdown().await;
    }
    all
}

fn size(folder: &Path) -> u64 {
    std::fs::metadata(folder.join("kw.db")).unwrap().len()
}

async fn compact(store: &Store) {
    let Store::Sqlite { write, .. } = store else { unreachable!() };
    sqlx::raw_sql("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)").execute(write).await.unwrap();
}

/// Bytes that one project with one owner adds in a year of sweeps each quarter of an hour, four rotations
/// and their reminders.
pub(super) async fn growth() -> u64 {
    const PROJECTS: usize = 4;
    const QUARTERS: usize = 4;
    let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
    let site = Site::new(PROJECTS, Arc::new(clock.clone()), |_| {}).await;
    let store = &site.engine.store;
    pragma(store, "PRAGMA synchronous = OFF").await;
    let stop = CancellationToken::new();
    sweep::once(&site.engine, &stop).await.unwrap();
    compact(store).await;
    let before = size(site.folder.path());
    for quarter in 0..QUARTERS {
        let mut open = Vec::new();
        for number in 0..PROJECTS {
            let row = site.proposed(number, quarter + 2).await;
            site.approve(&row).await;
            open.push(row.rotation.id);
        }
        // The rotations at their own cadence, to the end of their watch.
        while let Some(wake) = store.next_wake(clock.now()).await.unwrap() {
            clock.set(clock.now().max(wake));
            driver::run_due(&site.engine).await.unwrap();
        }
        for id in open {
            assert_eq!(site.engine.rotation(id).await.unwrap().rotation.state.as_str(), "completed");
        }
        let end = clock.now() + Duration::from_secs(91 * 86_400);
        while clock.now() < end {
            sweep::once(&site.engine, &stop).await.unwrap();
            remind::once(&site.engine).await.unwrap();
            clock.advance(Duration::from_secs(901));
        }
        sweep::forget(&site.engine).await.unwrap();
    }
    compact(store).await;
    let grown = size(site.folder.path()) - before;
    site.sim.clone().shutdown().await;
    grown / PROJECTS as u64
}
