//! Looks over real HTTP: what is written later hides nothing, daemons share them, and no clock pushes one away.

use std::time::Duration;

use keywheel::domain::condition::{Reading, Readings};
use keywheel::domain::project::Project;
use keywheel::domain::rotation::state::State;
use keywheel::domain::time::{Span, Timestamp};
use keywheel::engine::sweep::{self, Watch};
use keywheel::engine::{Engine, conditions, driver, due};
use keywheel::sim::World;
use keywheel::sim::fault::{Fault, Kind};
use keywheel::store::{Presence, ProjectFilter, Store};
use tokio_util::sync::CancellationToken;

use crate::support::db::Backend;
use crate::support::{TestApp, engine_at, group, old_key};

const SECOND: Duration = Duration::from_secs(1);

const DAY: Duration = Duration::from_hours(24);

async fn app(backend: Backend) -> TestApp {
    let mut app = TestApp::on(backend, World::demo()).await;
    app.rule(|settings| {
        settings.drift_every = Span::from_secs(90);
        settings.watch_every = Span::from_secs(30);
        settings.watch_for = Span::from_secs(3600);
        settings.limits.confirm_after = Span::from_secs(10);
    });
    swept(&app.engine).await;
    app
}

async fn swept(engine: &Engine) -> usize {
    sweep::once(engine, &CancellationToken::new()).await.unwrap()
}

impl TestApp {
    async fn row(&self) -> Project {
        self.engine.store.project(&group(1).parse().unwrap()).await.unwrap().unwrap()
    }

    fn now(&self) -> Timestamp {
        self.engine.clock.now()
    }

    fn looks(&self) -> usize {
        self.sim.log().into_iter().filter(|it| it.operation == "get_ear").count()
    }

    /// What a daemon's looks find, without the write that comes each minute.
    async fn looks_of(&self, watch: &mut Watch<'_>) -> usize {
        let before = self.looks();
        watch.sweep().await.unwrap();
        watch.look_at_all().await;
        self.looks() - before
    }

    async fn raw_sql(&self, text: String) {
        let Store::Sqlite { write, .. } = &self.db.store else { panic!("not SQLite") };
        sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(write).await.unwrap();
    }
}

async fn looks_without_news_are_written_later_and_hide_nothing_on(backend: Backend) {
    let app = app(backend).await;
    let engine = &app.engine;
    let mut watch = Watch::new(engine);
    app.pass(SECOND * 90);
    let before = app.row().await;
    assert_eq!(app.looks_of(&mut watch).await, 1);
    assert_eq!(app.row().await, before, "nothing is new, so nothing is written yet");
    assert_eq!(app.looks_of(&mut watch).await, 0);
    assert_eq!(due::lag(engine).await.unwrap(), Duration::ZERO);
    // An observation that another writer wants at once.
    let mut wanted = app.row().await;
    wanted.next_check_at = app.now();
    engine.store.update_project(&wanted, wanted.version, &[], &[], app.now()).await.unwrap();
    assert_eq!(app.looks_of(&mut watch).await, 1);
    // A bad reading of the rotation, which the sweep is to confirm.
    let mut readings = Readings::default();
    let key = wanted.current_key.as_ref();
    readings.note(&Reading::Seen { key, valid: Some(false) }, app.now(), SECOND * 10);
    engine.store.write_readings(&wanted.group_id, &readings).await.unwrap();
    app.pass(SECOND * 10);
    conditions::once(engine).await.unwrap();
    assert_eq!(app.looks_of(&mut watch).await, 1);
    app.pass(SECOND * 10);
    conditions::once(engine).await.unwrap();
    assert_eq!(app.looks_of(&mut watch).await, 1);
    // The second good reading has ended that.
    app.pass(SECOND * 90);
    let before = app.row().await;
    assert_eq!(app.looks_of(&mut watch).await, 1);
    assert_eq!(app.row().await, before);
    due::write_quiet_looks(engine).await.unwrap();
    let after = app.row().await;
    assert!(after.last_checked_at > before.last_checked_at && after.next_check_at > app.now());
    assert_eq!(after.version, before.version);
    assert_eq!(app.looks_of(&mut watch).await, 0);
    assert!(after.next_check_at <= app.now() + SECOND * 90);
}

#[tokio::test]
async fn looks_without_news_are_written_later_and_hide_nothing() {
    looks_without_news_are_written_later_and_hide_nothing_on(Backend::Sqlite).await;
}

#[tokio::test]
async fn looks_without_news_are_written_later_and_hide_nothing_on_postgres() {
    looks_without_news_are_written_later_and_hide_nothing_on(Backend::Postgres).await;
}

#[tokio::test]
async fn what_was_not_written_before_a_crash_is_due_again() {
    let mut app = app(Backend::Sqlite).await;
    app.pass(SECOND * 90);
    assert_eq!(app.looks_of(&mut Watch::new(&app.engine)).await, 1);
    let settings = app.engine.settings.clone();
    app.restart();
    app.engine.settings = settings;
    assert_eq!(swept(&app.engine).await, 1);
}

/// Two daemons on one database.
struct Two {
    app: TestApp,
    other: Engine,
    all: usize,
}

impl Two {
    async fn new() -> Self {
        let app = app(Backend::Postgres).await;
        let mut project = app.row().await;
        for number in 100..140 {
            project.group_id = group(number).parse().unwrap();
            app.sim.with(|world| {
                let copy = world.projects[&group(1)].clone();
                world.projects.insert(group(number), copy)
            });
            app.engine.store.insert_project(&project, &[], app.now()).await.unwrap();
        }
        let clock = app.engine.clock.clone();
        let mut other = engine_at(&app.sim, app.db.store.clone(), clock);
        other.settings = app.engine.settings.clone();
        let two = Self { app, other, all: 41 };
        two.present(&two.app.engine).await;
        two.present(&two.other).await;
        two
    }

    async fn present(&self, engine: &Engine) {
        let it = Presence {
            id: engine.presence,
            name: engine.presence.to_string(),
            subject: keywheel::domain::subject::Subject::Daemon(engine.presence.to_string()),
            settings: std::collections::BTreeMap::new(),
        };
        engine.store.stay(&it, self.app.now()).await.unwrap();
    }

    /// Lets time pass in which these daemons run.
    async fn pass(&self, span: Duration, running: &[&Engine]) {
        self.app.pass(span);
        for engine in running {
            self.present(engine).await;
        }
    }
}

#[tokio::test]
async fn daemons_divide_the_projects_and_leave_none_unread() {
    let two = Two::new().await;
    let (one, other) = (&two.app.engine, &two.other);
    two.pass(SECOND * 90, &[one, other]).await;
    let shares = [swept(one).await, swept(other).await];
    assert!(shares.iter().all(|share| *share > 0) && shares.iter().sum::<usize>() == two.all, "{shares:?}");
    // One that hangs is still there, and reads nothing.
    two.pass(SECOND * 90, &[one, other]).await;
    assert_eq!(swept(one).await, shares[0]);
    two.pass(SECOND * 91, &[one, other]).await;
    assert_eq!(swept(one).await, two.all);
    // One that is gone has no share.
    two.pass(SECOND * 90, &[one]).await;
    assert_eq!(swept(one).await, two.all);
}

#[tokio::test]
async fn what_one_daemon_cannot_read_another_reads_at_once() {
    let two = Two::new().await;
    let (one, other) = (&two.app.engine, &two.other);
    two.pass(SECOND * 90, &[one, other]).await;
    let kind = Kind::Status { status: 503, code: None, retry_after: None };
    let fault = Fault { operation: "get_ear".to_owned(), group_id: None, skip: 0, times: None, kind };
    two.app.sim.with(|world| world.faults = vec![fault]);
    let own = swept(one).await;
    assert_eq!(swept(one).await, 0, "the daemon that failed waits");
    two.app.sim.with(|world| world.faults.clear());
    assert_eq!(swept(other).await, two.all);
    assert!(own > 0);
    for project in one.store.projects(&ProjectFilter::default(), None, 100).await.unwrap() {
        assert_eq!(project.last_error, None);
    }
}

/// The watch after the end of a rotation reads it, not the sweep.
#[tokio::test]
async fn a_key_that_is_put_back_after_a_rotation_is_drift_within_the_watch() {
    let app = app(Backend::Sqlite).await;
    let row = app.approved().await;
    let row = app.settle(&row).await;
    assert_eq!(row.rotation.state, State::Completed);
    let ended = row.rotation.ending.finished_at.unwrap();
    assert_eq!(row.rotation.ending.watch_until, Some(ended + SECOND * 3600));
    app.set_by_hand(&old_key());
    app.pass(SECOND * 30);
    driver::run_due(&app.engine).await.unwrap();
    let project = app.row().await;
    assert_eq!(project.current_key.unwrap().to_string(), old_key());
    assert!(project.drift_key.is_some());
    let mails = app.engine.store.outbox(None, 100).await.unwrap();
    assert_eq!(mails.iter().filter(|mail| mail.kind == "drifted").count(), 1);
    // The hour is over.
    app.pass(SECOND * 3600);
    driver::run_due(&app.engine).await.unwrap();
    assert_eq!(app.engine.rotation(row.rotation.id).await.unwrap().rotation.wake_at, None);
}

/// A shorter interval holds from the start of the daemon on.
#[tokio::test]
async fn a_shorter_interval_takes_effect_at_once() {
    let app = app(Backend::Sqlite).await;
    let next = async || app.row().await.next_check_at;
    app.raw_sql(format!("UPDATE projects SET next_check_at = '{}'", app.now() + SECOND * 290)).await;
    app.engine.store.look_by(app.now() + SECOND * 30).await.unwrap();
    assert_eq!(next().await, app.now() + SECOND * 30);
    // What Atlas asks for is honoured, and nothing is put off.
    let paused = app.now() + SECOND * 290;
    app.raw_sql(format!("UPDATE projects SET next_check_at = '{paused}', last_error = '429'")).await;
    app.engine.store.look_by(app.now() + SECOND * 30).await.unwrap();
    assert_eq!(next().await, paused);
    app.raw_sql(format!("UPDATE projects SET next_check_at = '{}', last_error = NULL", app.now())).await;
    app.engine.store.look_by(app.now() + SECOND * 30).await.unwrap();
    assert_eq!(next().await, app.now());
}

#[tokio::test]
async fn a_clock_that_was_a_day_ahead_delays_nothing() {
    let app = app(Backend::Sqlite).await;
    let (store, now) = (&app.engine.store, app.now());
    // An open rotation.
    let group = group(1).parse().unwrap();
    app.engine.propose("ada", &group, crate::support::new_key().parse().unwrap(), None, false).await.unwrap();
    app.raw_sql(format!("UPDATE rotations SET wake_at = '{}'", now + DAY)).await;
    app.pass(SECOND * 90);
    swept(&app.engine).await;
    assert!(store.next_wake(app.now()).await.unwrap().unwrap() <= app.now());
    // A message: an urgent one by minutes, another one by more than a day.
    let now = app.now();
    assert!(!store.recall_messages(now).await.unwrap());
    for (urgency, ahead, recalled) in [
        (0, SECOND * 86_340, true),
        (1, DAY + SECOND * 60, true),
        (0, SECOND * 300, false),
        (1, SECOND * 80_000, false),
    ] {
        app.raw_sql(format!("UPDATE outbox SET urgency = {urgency}, next_try_at = '{}'", now + ahead)).await;
        assert_eq!(store.recall_messages(now).await.unwrap(), recalled, "{urgency} {ahead:?}");
        let rows = store.outbox(None, 10).await.unwrap();
        assert!(!rows.is_empty() && rows.iter().all(|row| (row.next_try_at == now) == recalled));
    }
    // A lookup; a shorter interval is the same.
    let beyond = now + SECOND * 3600;
    for (ahead, next) in [(DAY, now), (SECOND * 3601, now), (SECOND * 3600, beyond)] {
        app.raw_sql(format!("UPDATE projects SET kms = 'aws', next_look_up_at = '{}'", now + ahead)).await;
        assert_eq!(store.next_look_up(now, beyond).await.unwrap(), Some(next));
        let claimed = store.claim_look_ups(now, beyond, SECOND * 600, 9).await.unwrap();
        assert_eq!(claimed.len(), usize::from(next == now), "{ahead:?}");
    }
}

/// The sweep reads what is due while looks run: they must hold no connection that it waits for.
#[tokio::test]
async fn looks_that_run_do_not_keep_the_sweep_from_the_database() {
    let app = TestApp::on(Backend::Sqlite, World::demo()).await;
    for number in 2..=9 {
        app.track(number).await;
    }
    app.pass(Duration::from_secs(3600));
    let mut watch = sweep::Watch::new(&app.engine);
    watch.sweep().await.unwrap();
    // The looks begin, and are not awaited further.
    let begun = tokio::time::timeout(Duration::from_millis(1), watch.look_at_all()).await;
    drop(begun);
    app.pass(Duration::from_secs(3600));
    let swept = tokio::time::timeout(Duration::from_secs(4), watch.sweep()).await;
    swept.expect("the sweep waits for a connection").unwrap();
    watch.look_at_all().await;
}
