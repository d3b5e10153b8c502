//! Several daemons on one PostgreSQL, as real processes: who takes over and when, that no two PATCH
//! one project at a time, and what a bad network or a newer schema does to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use keywheel::domain::ids::RotationId;
use keywheel::domain::rotation::state::State;
use keywheel::domain::time::{Clock, Span, SystemClock, Timestamp};
use keywheel::engine::command::{NewProject, OperatorVerb};
use keywheel::engine::epoch::{EpochWatch, present_mark, read_mark};
use keywheel::engine::propose::Proposed;
use keywheel::sim::World;
use keywheel::sim::fault::{Fault, Kind};
use keywheel::sim::world::{KeyState, LogEntry, demo_key};
use keywheel::store::{Access, Store, StoreError, known_version};
use tokio_util::sync::CancellationToken;

use crate::support::db::Backend;
use crate::support::process::{Daemon, Dice, Orders};
use crate::support::proxy::{Mischief, Proxy};
use crate::support::wait::{Stopwatch, eventually, pause};
use crate::support::{TestApp, group, new_key};

/// The client ids of the two daemons; the test app itself uses the demo world's.
const CLIENTS: [&str; 2] = ["mdb_sa_id_one", "mdb_sa_id_two"];

/// A demo world with a service account for each daemon.
fn world() -> World {
    let mut world = World::demo();
    for id in CLIENTS {
        world.service_accounts.insert(id.to_owned(), "mdb_sa_sk_demo".to_owned());
    }
    world
}

/// One look each `ms`, and deadlines that only something broken would miss.
fn at_a_pace(test_app: &mut TestApp, ms: u64) {
    test_app.rule(|settings| {
        let verify = &mut settings.verify;
        (verify.every, verify.deploy_poll) = (Span::from_millis(ms), Span::from_millis(ms));
        (verify.timeout, verify.guard) = (Span::from_secs(180), Span::from_secs(200));
        verify.deploy_grace = Span::from_secs(1);
        settings.pace.fresh = Span::from_secs(10);
    });
}

fn slow_patches(test_app: &TestApp, ms: u64) {
    let fault = Fault {
        operation: "patch_ear".to_owned(),
        group_id: None,
        skip: 0,
        times: None,
        kind: Kind::Delay(ms),
    };
    test_app.sim.with(|world| world.faults = vec![fault]);
}

fn daemon(test_app: &TestApp, number: usize, database: &str, settings: &[(&str, &str)]) -> Daemon {
    let base_url = test_app.sim.base_url();
    let name = ["one", "two"][number];
    let orders = Orders { name, database, atlas: &base_url, client_id: CLIENTS[number], settings };
    Daemon::start(test_app.db.folder.path(), &orders)
}

async fn both(test_app: &TestApp, settings: &[(&str, &str)]) -> [Daemon; 2] {
    let mut daemons = [0, 1].map(|number| daemon(test_app, number, &test_app.db.url, settings));
    for daemon in &mut daemons {
        daemon.ready().await;
    }
    daemons
}

fn patches(test_app: &TestApp) -> Vec<LogEntry> {
    test_app.sim.log().into_iter().filter(|it| it.operation == "patch_ear").collect()
}

/// Waits for something to come true.
async fn until<T>(what: &str, within: Duration, look: impl AsyncFnMut() -> Option<T>) -> T {
    eventually(within, look).await.unwrap_or_else(|| panic!("not within {within:?}: {what}"))
}

async fn state(test_app: &TestApp, id: RotationId) -> State {
    test_app.engine.rotation(id).await.unwrap().rotation.state
}

/// Asserts that no two PATCHes of one project were under way at the same time. One whose sender was
/// killed ended, at the latest, then.
fn never_at_the_same_time(log: &[LogEntry], killed: &[Timestamp]) {
    let mut by_project: BTreeMap<&str, Vec<(Timestamp, Timestamp)>> = BTreeMap::new();
    for entry in log {
        let death = killed.iter().copied().find(|at| *at >= entry.at);
        let end = entry.replied_at.or(death).unwrap_or_else(|| panic!("{entry:?} never ended"));
        by_project.entry(entry.group_id.as_deref().unwrap()).or_default().push((entry.at, end));
    }
    for (group, mut spans) in by_project {
        spans.sort_unstable();
        for pair in spans.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "two PATCHes of {group} at a time: {pair:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_one_is_killed_after_its_patch_the_other_finishes_within_a_lease() {
    const LEASE: Duration = Duration::from_secs(2);
    let mut test_app = TestApp::live(Backend::Postgres, world()).await;
    at_a_pace(&mut test_app, 200);
    slow_patches(&test_app, 300);
    let settings = [("pace.lease", "2s")];
    let mut daemons = both(&test_app, &settings).await;
    let mut killed = Vec::new();
    // `applying`: the claim is held and nobody can know that its holder is dead.
    for (round, wanted) in
        [State::Applying, State::Verifying, State::Deploying, State::Applying].iter().enumerate()
    {
        let (old, new) = (test_app.held(), format!("{round:08x}-cccc-4ccc-8ccc-000000000000"));
        test_app.sim.with(|world| {
            world.keys.insert(new.clone(), KeyState::Enabled);
            world.projects.get_mut(&group(1)).unwrap().update_takes_ms = 400;
        });
        let before = patches(&test_app).len();
        let id = test_app.approved_to(1, &new).await.rotation.id;
        let sender = until("a PATCH", Duration::from_secs(30), async || {
            let sent = patches(&test_app).into_iter().nth(before)?;
            sent.credential
        })
        .await;
        until("the state", Duration::from_secs(30), async || {
            (state(&test_app, id).await == *wanted).then_some(())
        })
        .await;
        let number = CLIENTS.iter().position(|it| *it == sender).unwrap();
        daemons[number].kill();
        let (dead, since) = (SystemClock.now(), Stopwatch::start());
        killed.push(dead);
        until("its end", LEASE + Duration::from_secs(5), async || {
            (state(&test_app, id).await == State::Completed).then_some(())
        })
        .await;
        assert!(since.elapsed() <= LEASE + Duration::from_secs(5));
        assert_eq!(test_app.held(), new);
        let after = test_app.sim.log().into_iter().filter(|it| it.at > dead && it.operation == "get_ear");
        let lookers: BTreeSet<_> = after.filter_map(|it| it.credential).collect();
        assert_eq!(lookers, BTreeSet::from([CLIENTS[1 - number].to_owned()]), "round {round}");
        let sent = &patches(&test_app)[before..];
        assert!(sent.iter().all(|it| it.key.as_deref() == Some(&new)), "{old} {sent:?}");
        assert!(sent.len() <= if *wanted == State::Applying { 2 } else { 1 }, "{sent:?}");
        daemons[number] = daemon(&test_app, number, &test_app.db.url, &settings);
        daemons[number].ready().await;
    }
    never_at_the_same_time(&patches(&test_app), &killed);
    test_app.engine.store.verify_audit().await.unwrap().intact().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_one_gives_back_what_it_holds_and_the_other_goes_on_at_once() {
    let mut test_app = TestApp::live(Backend::Postgres, world()).await;
    at_a_pace(&mut test_app, 300);
    slow_patches(&test_app, 1000);
    // A lease of a minute, as in production: a daemon that waited for it would be seen.
    let mut daemons = both(&test_app, &[]).await;
    let id = test_app.approved().await.rotation.id;
    let sent = until("a PATCH", Duration::from_secs(30), async || patches(&test_app).pop()).await;
    let number = CLIENTS.iter().position(|it| Some(*it) == sent.credential.as_deref()).unwrap();
    daemons[number].terminate();
    let status = daemons[number].ended().await;
    assert_eq!(status.code(), Some(0), "{}", daemons[number].said());
    assert!(!state(&test_app, id).await.is_final(), "it waited for the end instead of parking");
    let since = Stopwatch::start();
    until("its end", Duration::from_secs(20), async || {
        (state(&test_app, id).await == State::Completed).then_some(())
    })
    .await;
    assert!(since.elapsed() < Duration::from_secs(20));
    assert_eq!(patches(&test_app).len(), 1, "the PATCH was finished by who had sent it");
    let last = test_app.sim.log().into_iter().rfind(|it| it.operation == "get_ear").unwrap();
    assert_eq!(last.credential.as_deref(), Some(CLIENTS[1 - number]));
    daemons[1 - number].terminate();
    assert_eq!(daemons[1 - number].ended().await.code(), Some(0));
    let Store::Postgres { write, .. } = &test_app.engine.store else { unreachable!() };
    let (held,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM rotations WHERE lease_token IS NOT NULL")
        .fetch_one(write)
        .await
        .unwrap();
    assert_eq!(held, 0);
}

/// Calls that hang for longer than a stop may take: of the step, the sweep, the look-up of roles and a request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_while_atlas_hangs_it_waits_for_no_answer() {
    let mut test_app = TestApp::live(Backend::Postgres, world()).await;
    at_a_pace(&mut test_app, 300);
    let mut daemon = daemon(&test_app, 0, &test_app.db.url, &[("atlas.request_timeout", "54s")]);
    daemon.ready().await;
    let id = test_app.approved().await.rotation.id;
    until("a PATCH", Duration::from_secs(30), async || patches(&test_app).pop()).await;
    let hangs = Fault {
        operation: "any".to_owned(),
        group_id: None,
        skip: 0,
        times: None,
        kind: Kind::Delay(120_000),
    };
    test_app.sim.with(|world| world.faults = vec![hangs]);
    let unanswered = || test_app.sim.log().into_iter().filter(|it| it.replied_at.is_none()).count();
    until("a call that hangs", Duration::from_secs(30), async || (unanswered() > 0).then_some(())).await;
    daemon.terminate();
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.said());
    assert!(!state(&test_app, id).await.is_final());
    let Store::Postgres { write, .. } = &test_app.engine.store else { unreachable!() };
    let (held,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM rotations WHERE lease_token IS NOT NULL")
        .fetch_one(write)
        .await
        .unwrap();
    assert_eq!(held, 0, "the claim was not given back");
}

/// Two daemons would otherwise take a slow project from each other for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_that_takes_longer_than_the_lease_keeps_its_claim() {
    let mut test_app = TestApp::live(Backend::Postgres, world()).await;
    at_a_pace(&mut test_app, 2000);
    let mut daemons = both(&test_app, &[("pace.lease", "1s"), ("atlas.request_timeout", "10s")]).await;
    let id = test_app.approved().await.rotation.id;
    let slow = Fault {
        operation: "get_ear".to_owned(),
        group_id: None,
        skip: 0,
        times: None,
        kind: Kind::Delay(2500),
    };
    test_app.sim.with(|world| world.faults = vec![slow]);
    let before = test_app.sim.log().len();
    until("the new key in Atlas", Duration::from_secs(30), async || {
        (state(&test_app, id).await == State::Verifying).then_some(())
    })
    .await;
    assert_eq!(patches(&test_app).len(), 1);
    let looks = test_app.sim.log()[before..].iter().filter(|it| it.operation == "get_ear").count();
    assert!(looks <= 4, "{looks} looks");
    for daemon in &mut daemons {
        daemon.terminate();
        assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.said());
    }
}

/// Tracks `count` more projects, each with a key to move to; gives their group ids and new keys.
async fn fleet(test_app: &TestApp, count: u32) -> Vec<(String, String)> {
    let projects: Vec<_> =
        (101..101 + count).map(|it| (group(it.into()), demo_key("AWS", "fleet", it, 2))).collect();
    test_app.sim.with(|world| {
        let like = world.projects[&group(1)].clone();
        for (number, (id, new)) in (101u32..).zip(&projects) {
            let old = demo_key("AWS", "fleet", number, 1);
            let mut project = like.clone();
            project.name = format!("fleet-{number}");
            project.block.insert("customerMasterKeyID".to_owned(), old.clone().into());
            (project.update_after_ms, project.update_takes_ms) = (0, 1500);
            world.projects.insert(id.clone(), project);
            world.keys.insert(old, KeyState::Enabled);
            world.keys.insert(new.clone(), KeyState::Enabled);
        }
    });
    let add = |id: String| async move {
        let new = NewProject { group_id: id, ..NewProject::default() };
        test_app.engine.add_project("ada", new).await.unwrap();
    };
    stream::iter(projects.iter().map(|(id, _)| id.clone())).for_each_concurrent(8, add).await;
    projects
}

/// Proposes and approves all of them.
async fn approve_all(test_app: &TestApp, projects: &[(String, String)]) -> Vec<RotationId> {
    let approve = |(id, new): (String, String)| async move {
        let proposed = test_app
            .engine
            .propose("ada", &id.parse().unwrap(), new.parse().unwrap(), None, false)
            .await
            .unwrap();
        let Proposed::Created(row) = proposed else { panic!("not new") };
        test_app.engine.say("grace", row.rotation.id, OperatorVerb::Approve, None, None).await.unwrap();
        row.rotation.id
    };
    stream::iter(projects.to_vec()).map(approve).buffer_unordered(8).collect().await
}

#[expect(clippy::print_stderr, reason = "what the daemons said is for the reader of a failed run")]
/// Waits until all are completed, and asserts that none ends otherwise.
async fn all_completed(test_app: &TestApp, ids: &[RotationId], daemons: &[Daemon], within: Duration) {
    let mut states = BTreeMap::new();
    let done = eventually(within, async || {
        states.clear();
        for id in ids {
            *states.entry(state(test_app, *id).await.as_str()).or_insert(0) += 1;
        }
        if states.get("completed") == Some(&ids.len()) {
            return Some(());
        }
        // The database is the daemons', too.
        pause(Duration::from_millis(500)).await;
        None
    });
    if done.await.is_none() {
        for daemon in daemons {
            let said = daemon.said();
            let lines: Vec<_> = said.lines().filter(|it| !it.contains(" INFO ")).collect();
            eprintln!("{}\n---", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        panic!("not completed within {within:?}: {states:?}");
    }
}

#[expect(clippy::print_stdout, reason = "figures for the reader of a run")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_share_two_hundred_rotations_and_each_is_patched_once() {
    let mut test_app = TestApp::live(Backend::Postgres, world()).await;
    // Readings that come later than twice this are begun anew, and the machine may be busy.
    at_a_pace(&mut test_app, 5000);
    let projects = fleet(&test_app, 200).await;
    let mut daemons = both(&test_app, &[("atlas.request_timeout", "20s")]).await;
    let started = Stopwatch::start();
    let ids = approve_all(&test_app, &projects).await;
    all_completed(&test_app, &ids, &daemons, Duration::from_secs(240)).await;
    let sent = patches(&test_app);
    let mut by_project: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut by_daemon: BTreeMap<_, usize> = BTreeMap::new();
    for entry in &sent {
        by_project.entry(entry.group_id.clone().unwrap()).or_default().push(entry.key.clone().unwrap());
        *by_daemon.entry(entry.credential.clone().unwrap()).or_default() += 1;
    }
    println!("200 rotations in {:?}, PATCHes by {by_daemon:?}", started.elapsed());
    let wanted: BTreeMap<_, _> = projects.into_iter().map(|(id, new)| (id, vec![new])).collect();
    assert_eq!(by_project, wanted);
    assert_eq!(by_daemon.keys().map(String::as_str).collect::<Vec<_>>(), CLIENTS);
    never_at_the_same_time(&sent, &[]);
    let report = test_app.engine.store.verify_audit().await.unwrap().intact().unwrap();
    assert!(report.rows > 200 * 5);
    for daemon in &mut daemons {
        daemon.terminate();
        assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.said());
    }
}

#[expect(clippy::print_stdout, reason = "figures for the reader of a run")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_bad_network_to_the_database_nothing_is_lost() {
    let mut test_app = TestApp::live(Backend::Postgres, world()).await;
    at_a_pace(&mut test_app, 1000);
    let projects = fleet(&test_app, 20).await;
    let proxies = [Proxy::before(&test_app.db.url).await, Proxy::before(&test_app.db.url).await];
    // Claims whose release got lost have to run out, so leases are short.
    let settings = [("pace.lease", "3s")];
    let mut daemons = [0, 1].map(|it| daemon(&test_app, it, &proxies[it].url(&test_app.db.url), &settings));
    for daemon in &mut daemons {
        daemon.ready().await;
    }
    let mut dice = Dice::new();
    for proxy in &proxies {
        proxy.set(Mischief::Random(Dice(dice.roll(u64::MAX))));
    }
    let ids = approve_all(&test_app, &projects).await;
    all_completed(&test_app, &ids, &daemons, Duration::from_secs(120)).await;
    let done = proxies.each_ref().map(Proxy::done);
    println!("faults: {done:?}, PATCHes: {}", patches(&test_app).len());
    assert!(done.iter().all(|it| *it > 10), "the network was too good: {done:?}");
    for (id, new) in &projects {
        assert_eq!(test_app.sim.with(|world| world.projects[id].key()), *new);
        let project = test_app.engine.store.project(&id.parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(project.current_key.unwrap().to_string(), *new);
    }
    let known: BTreeMap<_, _> = projects.into_iter().collect();
    for entry in patches(&test_app) {
        assert_eq!(entry.key.as_ref(), known.get(entry.group_id.as_ref().unwrap()), "{entry:?}");
    }
    never_at_the_same_time(&patches(&test_app), &[]);
    test_app.engine.store.verify_audit().await.unwrap().intact().unwrap();
    for proxy in &proxies {
        proxy.set(Mischief::Quiet);
    }
    for daemon in &mut daemons {
        daemon.terminate();
        assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.said());
    }
}

/// A commit that did not arrive is made again; one whose answer got lost is recognised.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_commit_and_a_lost_answer_write_each_step_once() {
    let test_app = TestApp::on(Backend::Postgres, world()).await;
    let proxy = Proxy::before(&test_app.db.url).await;
    let url = proxy.url(&test_app.db.url);
    let store = Store::open(&url, std::path::Path::new(""), Access::Daemon).await.unwrap();
    crate::support::db::unlock(&store).await;
    let engine = crate::support::engine_at(&test_app.sim, store, Arc::clone(&test_app.engine.clock));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("epoch");
    let engine = engine.with_guard(EpochWatch::new(file.clone()).unwrap());
    // Whether or not its answer came, the epoch file has what was written.
    let is_marked = async || {
        let present = present_mark(&test_app.engine.store).await.unwrap();
        assert_eq!(read_mark(&file).unwrap(), present);
    };
    for (number, mischief) in [Mischief::LoseCommits(1), Mischief::LoseAnswers(1)].into_iter().enumerate() {
        let number = u64::try_from(number).unwrap() + 2;
        test_app.track(number).await;
        let group = group(number).parse().unwrap();
        let key = format!("0000000{number}-dddd-4ddd-8ddd-000000000000");
        test_app.sim.with(|world| world.keys.insert(key.clone(), KeyState::Enabled));
        let audit = test_app.engine.store.audit(None, 1000).await.unwrap().len();
        proxy.set(mischief.clone());
        let proposed = engine.propose("ada", &group, key.parse().unwrap(), None, false).await.unwrap();
        let Proposed::Created(row) = proposed else { panic!("somebody else's?") };
        is_marked().await;
        proxy.set(mischief.clone());
        let approved = engine.say("grace", row.rotation.id, OperatorVerb::Approve, None, None).await.unwrap();
        assert_eq!((approved.rotation.state, approved.version), (State::Approved, 2));
        is_marked().await;
        proxy.set(mischief.clone());
        // Rows that a cut connection still has locked are passed over, and are there the next time.
        let claimed = until("the claim", Duration::from_secs(30), async || {
            let rows = engine.store.claim(engine.clock.now(), 10, Duration::from_secs(60)).await.unwrap();
            rows.into_iter().next()
        })
        .await;
        proxy.set(mischief);
        keywheel::engine::step::run(&engine, claimed, &mut Some(()), &CancellationToken::new())
            .await
            .unwrap();
        let row = engine.rotation(row.rotation.id).await.unwrap();
        assert_eq!(
            (row.rotation.state, row.rotation.patching.attempts, row.lease),
            (State::Verifying, 1, None)
        );
        let journal = engine.store.journal(row.rotation.id, 0, 100).await.unwrap();
        let kinds: Vec<_> = journal.iter().map(|it| it.kind.as_str()).collect();
        assert_eq!(kinds, ["proposed", "command", "patch", "reply", "look"]);
        assert_eq!(test_app.engine.store.audit(None, 1000).await.unwrap().len(), audit + 6);
        // Not claimed by the second turn of this loop.
        engine
            .store
            .claim(engine.clock.now() + Duration::from_secs(60), 10, Duration::from_secs(600))
            .await
            .unwrap();
    }
    assert_eq!(proxy.done(), 8);
    assert_eq!(patches(&test_app).len(), 2);
    test_app.engine.store.verify_audit().await.unwrap().intact().unwrap();
}

/// Deadlocks and serialization failures are repeated as a whole, and not for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_the_database_gives_up_is_repeated() {
    let test_app = TestApp::on(Backend::Postgres, world()).await;
    let Store::Postgres { write, .. } = &test_app.engine.store else { unreachable!() };
    // A sequence counts although the transaction is rolled back.
    let trouble = "CREATE SEQUENCE tries; CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
        IF nextval('tries') % 3 = 1 THEN RAISE EXCEPTION 'deadlock' USING ERRCODE = '40P01'; END IF; \
        IF currval('tries') % 3 = 2 THEN RAISE EXCEPTION 'serialize' USING ERRCODE = '40001'; END IF; \
        RETURN NEW; END $$; \
        CREATE TRIGGER trouble BEFORE UPDATE ON audit_head FOR EACH ROW EXECUTE FUNCTION trouble()";
    sqlx::raw_sql(trouble).execute(write).await.unwrap();
    let row = test_app.approved().await;
    let row = test_app.settle(&row).await;
    assert_eq!(row.rotation.state, State::Completed);
    assert_eq!(patches(&test_app).len(), 1);
    test_app.engine.store.verify_audit().await.unwrap().intact().unwrap();
    let for_ever = "CREATE OR REPLACE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
        RAISE EXCEPTION 'deadlock' USING ERRCODE = '40P01'; END $$";
    sqlx::raw_sql(for_ever).execute(write).await.unwrap();
    let row = test_app
        .engine
        .propose("ada", &group(1).parse().unwrap(), crate::support::old_key().parse().unwrap(), None, false)
        .await;
    assert!(row.is_err());
}

/// D12: people's slow reads have connections of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_reads_do_not_keep_a_rotation_waiting() {
    let test_app = TestApp::on(Backend::Postgres, world()).await;
    let Store::Postgres { read, .. } = &test_app.engine.store else { unreachable!() };
    let row = test_app.approved().await;
    let readers: Vec<_> = (0..20)
        .map(|_| {
            let read = read.clone();
            crate::support::wait::spawn(async move {
                sqlx::query("SELECT pg_sleep(30)").execute(&read).await.is_ok()
            })
        })
        .collect();
    until("all readers' connections are busy", Duration::from_secs(30), async || {
        (read.size() == 5 && read.num_idle() == 0).then_some(())
    })
    .await;
    let stepped =
        tokio::time::timeout(Duration::from_secs(4), keywheel::engine::driver::run_due(&test_app.engine));
    assert!(stepped.await.expect("it waited for the readers").unwrap() > 0);
    for reader in &readers {
        reader.abort();
    }
    assert_eq!(patches(&test_app).len(), 1, "{}", row.rotation.id);
}

/// The steps of an upgrade: the newer daemon migrates, the older one is still there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_older_than_the_schema_stops_acting_and_does_not_start() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let test_app = TestApp::live(backend, world()).await;
        let mut old = daemon(&test_app, 0, &test_app.db.url, &[]);
        old.ready().await;
        let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
            SELECT 9999, 'later', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1";
        let approved = "UPDATE rotations SET wake_at = created_at, version = version + 1";
        let row = test_app
            .engine
            .propose("ada", &group(1).parse().unwrap(), new_key().parse().unwrap(), None, false)
            .await
            .unwrap();
        let Proposed::Created(row) = row else { panic!("not new") };
        // The age of the credential is read when a daemon starts, whatever becomes of its schema.
        let about_keys = || {
            let log = test_app.sim.log();
            log.iter().filter(|it| it.group_id.is_some() && it.operation != "get_service_account").count()
        };
        let looks = about_keys();
        // In one transaction, so that the older daemon never sees work under the schema it knows.
        let both = format!("BEGIN; {later}; {approved}; COMMIT");
        let both = sqlx::AssertSqlSafe(both);
        match &test_app.engine.store {
            Store::Sqlite { write, .. } => drop(sqlx::raw_sql(both).execute(write).await.unwrap()),
            Store::Postgres { write, .. } => drop(sqlx::raw_sql(both).execute(write).await.unwrap()),
        }
        assert_eq!(old.ended().await.code(), Some(1), "{}", old.said());
        assert!(old.said().contains("the database has schema 9999, this program supports"), "{}", old.said());
        assert_eq!(about_keys(), looks, "it asked Atlas under a schema that it does not know");
        let mut again = daemon(&test_app, 0, &test_app.db.url, &[]);
        assert_eq!(again.ended().await.code(), Some(1));
        assert!(again.said().contains("use a keywheel at least as new"), "{}", again.said());
        let refused = test_app.engine.say("grace", row.rotation.id, OperatorVerb::Approve, None, None).await;
        let newer = keywheel::engine::command::CommandError::Store(StoreError::NewerSchema {
            found: 9999,
            known: known_version(),
        });
        assert_eq!(refused.unwrap_err().to_string(), newer.to_string());
    }
}
