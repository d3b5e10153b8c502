//! Rate limits over real HTTP: what Atlas refuses for one endpoint set leaves the others alone; and which
//! calls a rotation makes at all.

use std::sync::Arc;
use std::time::Duration;

use keywheel::domain::preflight::{CheckName, Verdict};
use keywheel::domain::rotation::state::{Deployed, State};
use keywheel::domain::time::{Clock, ManualClock, Span};
use keywheel::engine::command::{NewProject, OperatorVerb};
use keywheel::engine::propose::Proposed;
use keywheel::engine::{driver, metrics};
use keywheel::sim::fault::{Fault, Kind};
use keywheel::sim::world::{Bucket, KeyState, Role};
use keywheel::sim::{Sim, World};
use keywheel::store::RotationRow;

use crate::support::db::{Backend, TestDb};
use crate::support::{TestApp, engine_at, group, new_key, old_key};

/// From the call after the first `skip` on, Atlas answers 429.
fn drained(operation: &str, skip: u32, retry_after: Option<u64>) -> Fault {
    let code = Some("RATE_LIMITED_TOKEN_BUCKET".to_owned());
    let kind = Kind::Status { status: 429, code, retry_after };
    Fault { operation: operation.to_owned(), group_id: None, skip, times: None, kind }
}

fn calls(sim: &Sim, operation: &str) -> usize {
    sim.log().iter().filter(|it| it.operation == operation).count()
}

fn verdict(row: &RotationRow, name: CheckName) -> (Verdict, &str) {
    let check = row.rotation.observing.checks.iter().find(|check| check.name == name).unwrap();
    (check.result, &check.detail)
}

#[tokio::test]
async fn a_drained_bucket_of_the_clusters_ends_no_rotation() {
    for retry_after in [Some(600), None] {
        let mut test_app = TestApp::new().await;
        test_app.rule(|settings| settings.verify.deploy_timeout = Span::from_millis(600));
        // The proposal and the check before the PATCH are answered.
        test_app.sim.with(|world| world.faults = vec![drained("get_clusters", 2, retry_after)]);
        let row = test_app.approved().await;
        let row = test_app.settle(&row).await;
        assert_eq!(
            (row.rotation.state, row.rotation.rollout.deployed),
            (State::Completed, Some(Deployed::No))
        );
        let refused = calls(&test_app.sim, "get_clusters") - 2;
        assert!(if retry_after.is_some() { refused == 1 } else { (2..5).contains(&refused) }, "{refused}");
        let journal = test_app.engine.store.journal(row.rotation.id, 0, 100).await.unwrap();
        let said = journal.iter().find_map(|entry| entry.detail["unanswered"]["clusters"].as_str());
        assert!(said.unwrap().contains("RATE_LIMITED_TOKEN_BUCKET"), "{said:?}");
    }
}

#[tokio::test]
async fn a_drained_bucket_before_the_patch_holds_it_until_the_clusters_answer() {
    let test_app = TestApp::new().await;
    test_app.sim.with(|world| {
        world.rate_limits.insert("clusters".to_owned(), Bucket { capacity: 0, refill: 60 });
        world.faults = vec![drained("get_endpoints", 0, Some(600))];
    });
    let row = test_app.approved().await;
    for (name, part) in [
        (CheckName::Clusters, "Atlas did not list the clusters: RATE_LIMITED_TOKEN_BUCKET"),
        (CheckName::ProjectOwner, "RATE_LIMITED_TOKEN_BUCKET"),
    ] {
        let (result, detail) = verdict(&row, name);
        assert!(result == Verdict::NotChecked && detail.contains(part), "{result} {detail}");
    }
    driver::run_due(&test_app.engine).await.unwrap();
    let held = test_app.engine.rotation(row.rotation.id).await.unwrap();
    assert_eq!((held.rotation.state, test_app.patches().len()), (State::Approved, 0));
    assert_eq!(held.rotation.hold.unwrap().as_str(), "clusters_unknown");
    test_app.sim.with(|world| world.rate_limits.clear());
    let row = test_app.settle(&row).await;
    assert_eq!((row.rotation.state, test_app.patches()), (State::Completed, vec![new_key()]));
    assert_eq!(calls(&test_app.sim, "get_endpoints"), 1, "its Retry-After is not over");
    assert_eq!(verdict(&row, CheckName::Clusters).0, Verdict::Pass);
}

#[tokio::test]
async fn a_role_that_is_lost_after_the_approval_holds_the_patch_until_it_is_back() {
    let test_app = TestApp::new().await;
    let row = test_app.approved().await;
    let role = |role| test_app.sim.with(|world| world.roles.insert("mdb_sa_id_demo".to_owned(), role));
    role(Role::ReadOnly);
    driver::run_due(&test_app.engine).await.unwrap();
    let held = test_app.engine.rotation(row.rotation.id).await.unwrap();
    assert_eq!((held.rotation.state, test_app.patches().len()), (State::Approved, 0));
    assert_eq!(held.rotation.hold.unwrap().as_str(), "preflight");
    let (result, detail) = verdict(&held, CheckName::ProjectOwner);
    assert!(result == Verdict::Fail && detail.contains("grant it that role"), "{result} {detail}");
    role(Role::Owner);
    let row = test_app.settle(&row).await;
    assert_eq!((row.rotation.state, test_app.patches()), (State::Completed, vec![new_key()]));
}

#[tokio::test]
async fn a_drained_bucket_of_the_alerts_delays_a_rollback_and_does_not_prevent_it() {
    let test_app = TestApp::new().await;
    test_app.sim.with(|world| {
        world.keys.insert(new_key(), KeyState::FailsOnNodes);
        world.projects.get_mut(&group(1)).unwrap().change_while_invalid = true;
        world.faults = vec![drained("get_alerts", 0, Some(600))];
    });
    let row = test_app.approved().await;
    let row = test_app.settle(&row).await;
    assert_eq!((row.rotation.state, test_app.held()), (State::RolledBack, old_key()));
    assert_eq!(calls(&test_app.sim, "get_alerts"), 1);
}

#[tokio::test]
async fn the_levels_of_the_buckets_and_what_waits_are_metrics() {
    let test_app = TestApp::new().await;
    test_app.sim.with(|world| {
        world.rate_limits.insert("clusters".to_owned(), Bucket { capacity: 5, refill: 1 });
        world.faults = vec![drained("get_endpoints", 0, Some(600))];
    });
    test_app.approved().await;
    let text = metrics::scrape(&test_app.engine).await.unwrap();
    for line in [
        r#"keywheel_atlas_rate_limit_remaining{credential="default",set="clusters"} 4"#,
        r#"keywheel_atlas_rate_limit{credential="default",set="clusters"} 5"#,
        r#"keywheel_atlas_rate_limit_waits{set="private_endpoints"} 1"#,
        r#"keywheel_atlas_rate_limit_waits{set="clusters"} 0"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

/// The state in which a rotation was claimed, and what it asked of Atlas then, the encryption configuration last.
type Turn = (&'static str, Vec<String>);

/// Every call to Atlas from the proposal to the end, at the default settings. The reason of each is in
/// `docs/architecture.md`.
fn expected() -> Vec<Turn> {
    let turn = |state, calls: &[&str]| (state, calls.iter().map(|it| (*it).to_owned()).collect());
    let reading = ["get_clusters", "get_ear"];
    vec![
        turn("proposal", &["get_clusters", "get_endpoints", "get_ear"]),
        turn(
            "approved",
            &["get_clusters", "get_endpoints", "get_ear", "patch_ear", "get_clusters", "get_ear"],
        ),
        turn("verifying", &reading),
        turn("verifying", &reading),
        turn("deploying", &reading),
        turn("deploying", &reading),
        turn("deploying", &reading),
    ]
}

/// What was asked since the last time; of calls side by side, the order does not count.
fn since(sim: &Sim, seen: &mut usize) -> Vec<String> {
    let log = sim.log();
    let mut calls: Vec<String> = log[*seen..].iter().map(|it| it.operation.clone()).collect();
    *seen = log.len();
    for part in calls.split_inclusive_mut(|it| it.ends_with("_ear")) {
        let last = part.len() - usize::from(part.last().is_some_and(|it| it.ends_with("_ear")));
        part[..last].sort();
    }
    calls
}

#[tokio::test]
async fn a_rotation_makes_the_calls_that_are_written_down_and_no_others() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let clock = ManualClock::new("2026-03-01T12:00:00Z".parse().unwrap());
    let mut world = World::demo();
    let project = world.projects.get_mut(&group(1)).unwrap();
    (project.update_after_ms, project.update_takes_ms) = (20_000, 60_000);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sim = Sim::start(listener, world, Arc::new(clock.clone())).unwrap();
    let db = TestDb::new(Backend::Sqlite).await;
    crate::support::people(&db.store).await;
    let mut engine = engine_at(&sim, db.store.clone(), Arc::new(clock.clone()));
    let settings = Arc::make_mut(&mut engine.settings);
    (settings.verify, settings.pace) = Default::default();
    engine.add_project("ada", NewProject { group_id: group(1), ..NewProject::default() }).await.unwrap();
    let mut seen = sim.log().len();
    let proposed =
        engine.propose("ada", &group(1).parse().unwrap(), new_key().parse().unwrap(), None, false).await;
    let Proposed::Created(row) = proposed.unwrap() else { panic!("not new") };
    let mut proposal = since(&sim, &mut seen);
    // The configuration comes first here: it names the provider by which the new key is read.
    proposal.rotate_left(1);
    let mut turns = vec![("proposal", proposal)];
    engine.say("grace", row.rotation.id, OperatorVerb::Approve, None, None).await.unwrap();
    loop {
        let row = engine.rotation(row.rotation.id).await.unwrap();
        if row.rotation.state.is_final() {
            assert_eq!(
                (row.rotation.state, row.rotation.rollout.deployed),
                (State::Completed, Some(Deployed::Observed))
            );
            break;
        }
        clock.set(clock.now().max(row.rotation.wake_at.unwrap()));
        driver::run_due(&engine).await.unwrap();
        turns.push((row.rotation.state.as_str(), since(&sim, &mut seen)));
    }
    assert_eq!(turns, expected());
    // Afterwards only the key is observed.
    clock.advance(Duration::from_hours(1));
    driver::run_due(&engine).await.unwrap();
    assert_eq!(since(&sim, &mut seen), ["token", "get_ear"]);
}
