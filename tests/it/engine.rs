//! The engine over real HTTP against the simulator, with faults between the two.

use std::time::Duration;

use keywheel::domain::day::Planned;
use keywheel::domain::rotation::machine::next;
use keywheel::domain::rotation::outcome::Outcome;
use keywheel::domain::rotation::state::{Cause, Hold, Rotation, State};
use keywheel::engine::command::{CommandError, OperatorVerb};
use keywheel::engine::driver;
use keywheel::engine::propose::{NewProposal, Proposed};
use keywheel::sim::fault::{Fault, Kind};
use keywheel::sim::world::{Cluster, KeyState, Odd, demo_key};
use keywheel::store::StoreError;

use crate::support::{TestApp, group, new_key, old_key};

fn fault(operation: &str, times: u32, kind: Kind) -> Fault {
    Fault { operation: operation.to_owned(), group_id: None, skip: 0, times: Some(times), kind }
}

fn status(status: u16, code: Option<&str>, retry_after: Option<u64>) -> Kind {
    Kind::Status { status, code: code.map(str::to_owned), retry_after }
}

/// A key that nobody proposed.
const THIRD: &str = "33333333-3333-4333-8333-333333333333";

/// Runs one rotation through `faults`; says how it ended, Atlas' key, and which keys were sent.
async fn through(faults: Vec<Fault>) -> (State, Option<Cause>, String, Vec<String>) {
    let test_app = TestApp::new().await;
    test_app.sim.with(|world| world.faults = faults);
    let row = test_app.approved().await;
    let row = test_app.settle(&row).await;
    test_app.engine.store.verify_audit().await.unwrap().intact().unwrap();
    (row.rotation.state, row.rotation.cause, test_app.held(), test_app.patches())
}

#[tokio::test]
async fn a_rotation_completes_and_the_project_has_the_new_key() {
    let test_app = TestApp::new().await;
    let row = test_app.approved().await;
    let row = test_app.settle(&row).await;
    assert_eq!(row.rotation.state, State::Completed);
    let project = test_app.engine.store.project(&group(1).parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(project.current_key.unwrap().to_string(), new_key());
    assert_eq!(project.key_since, row.rotation.patching.patched_at);
    assert_eq!(test_app.patches(), [new_key()]);
    let kinds: Vec<_> =
        test_app.engine.store.outbox(None, 10).await.unwrap().into_iter().map(|it| it.kind).collect();
    assert_eq!(kinds, ["completed", "approval_requested"]);
}

#[tokio::test]
async fn a_lost_request_is_sent_again() {
    let (state, _, held, patches) = through(vec![fault("patch_ear", 1, Kind::DropRequest)]).await;
    assert_eq!((state, held, patches.len()), (State::Completed, new_key(), 2));
}

#[tokio::test]
async fn a_lost_reply_is_not_a_second_patch() {
    let (state, _, held, patches) = through(vec![fault("patch_ear", 1, Kind::DropReply)]).await;
    assert_eq!((state, held, patches.len()), (State::Completed, new_key(), 1));
}

#[tokio::test]
async fn a_late_effect_is_waited_for_or_made_harmless() {
    let (state, _, held, patches) = through(vec![fault("patch_ear", 1, Kind::LateApply(300))]).await;
    assert_eq!((state, held), (State::Completed, new_key()));
    assert!(patches.iter().all(|key| *key == new_key()) && patches.len() <= 3, "{patches:?}");
}

#[tokio::test]
async fn an_html_error_page_is_no_answer() {
    for kind in [
        status(502, None, None),
        status(500, Some("UNEXPECTED_ERROR"), None),
        status(409, Some("SOMETHING_NEW"), None),
        Kind::AppliedStatus(503),
        Kind::Truncate,
    ] {
        let (state, _, held, _) = through(vec![
            fault("patch_ear", 1, kind.clone()),
            Fault { skip: 2, ..fault("get_ear", 2, status(502, None, None)) },
        ])
        .await;
        assert_eq!((state, held), (State::Completed, new_key()), "{kind:?}");
    }
}

#[tokio::test]
async fn a_rate_limit_is_waited_out() {
    let test_app = TestApp::new().await;
    test_app
        .sim
        .with(|world| world.faults = vec![fault("patch_ear", 1, status(429, Some("RATE_LIMITED"), Some(1)))]);
    let row = test_app.approved().await;
    assert_eq!(test_app.settle(&row).await.rotation.state, State::Completed);
    let log: Vec<_> = test_app.sim.log().into_iter().filter(|it| it.operation.ends_with("_ear")).collect();
    let refused = log.iter().position(|it| it.status == Some(429)).unwrap();
    let waited = log[refused + 1].at.since(log[refused].at);
    assert!(waited >= std::time::Duration::from_secs(1), "asked again after {waited:?}");
}

#[tokio::test]
async fn a_refused_key_fails_with_atlas_words_and_changes_nothing() {
    let test_app = TestApp::new().await;
    test_app.sim.with(|world| world.keys.insert(new_key(), KeyState::Disabled));
    let row = test_app.approved().await;
    let row = test_app.settle(&row).await;
    assert_eq!((row.rotation.state, row.rotation.cause), (State::Failed, Some(Cause::Refused)));
    assert_eq!(
        row.rotation.observing.failure.unwrap().code.as_deref(),
        Some("AWS_KMS_CUSTOMER_MASTER_KEY_NOT_ENABLED")
    );
    assert_eq!((test_app.held(), test_app.patches().len()), (old_key(), 1));
}

#[tokio::test]
async fn a_key_that_fails_on_the_nodes_is_rolled_back() {
    let test_app = TestApp::new().await;
    test_app.sim.with(|world| {
        world.keys.insert(new_key(), KeyState::FailsOnNodes);
        world.projects.get_mut(&group(1)).unwrap().change_while_invalid = true;
        world.faults = vec![Fault { skip: 1, ..fault("patch_ear", 1, Kind::DropReply) }];
    });
    let row = test_app.approved().await;
    let row = test_app.settle(&row).await;
    assert_eq!(row.rotation.state, State::RolledBack);
    assert_eq!((test_app.held(), test_app.patches()), (old_key(), vec![new_key(), old_key()]));
}

#[tokio::test]
async fn a_refused_rollback_pages_and_heals_when_the_key_does() {
    let test_app = TestApp::new().await;
    test_app.sim.with(|world| world.keys.insert(new_key(), KeyState::FailsOnNodes));
    let row = test_app.approved().await;
    let row = test_app.settle(&row).await;
    assert_eq!(
        (row.rotation.state, row.rotation.cause),
        (State::NeedsOperator, Some(Cause::RollbackRefused))
    );
    assert_eq!(
        row.rotation.observing.failure.as_ref().unwrap().code.as_deref(),
        Some("ENCRYPTION_AT_REST_SETTINGS_INVALID")
    );
    assert_eq!(test_app.patches(), [new_key(), old_key()]);
    let mails = test_app.engine.store.outbox(None, 10).await.unwrap();
    assert!(mails[0].model["remedy"].as_str().unwrap().contains("aws kms enable-key"), "{}", mails[0].model);
    test_app.sim.with(|world| world.keys.insert(new_key(), KeyState::Enabled));
    test_app.until(&row, |state| state == State::Completed).await;
    assert_eq!(test_app.patches().len(), 2, "a healed key must not be PATCHed again");
}

#[tokio::test]
async fn odd_replies_are_borne() {
    let test_app = TestApp::new().await;
    test_app.sim.with(|world| {
        world.odd = Odd {
            nulls: true,
            extras: true,
            unpadded_dates: true,
            links_elsewhere: true,
            omit_headers: ["content-type", "x-error-code"].map(str::to_owned).into(),
        };
        let clusters = (0..60).map(|it| Cluster { name: format!("c{it}"), ..Cluster::default() });
        world.projects.get_mut(&group(1)).unwrap().clusters = clusters.collect();
    });
    let row = test_app.approved().await;
    test_app.sim.with(|world| world.odd.omit_headers.insert("date".to_owned()));
    assert_eq!(test_app.settle(&row).await.rotation.state, State::Completed);
    assert_eq!(test_app.patches(), [new_key()]);
}

#[tokio::test]
async fn a_reply_too_large_to_read_is_no_reading() {
    for kind in [Kind::Huge(3_000_000), Kind::GzipBomb(30_000_000)] {
        let faults =
            vec![Fault { skip: 2, ..fault("get_ear", 2, kind.clone()) }, fault("patch_ear", 1, kind.clone())];
        let (state, _, held, _) = through(faults).await;
        assert_eq!((state, held), (State::Completed, new_key()), "{kind:?}");
    }
}

#[tokio::test]
async fn on_private_networking_a_key_that_turns_out_bad_is_not_completed() {
    let test_app = TestApp::new().await;
    test_app.sim.with(|world| {
        world.keys.insert(new_key(), KeyState::Disabled);
        let project = world.projects.get_mut(&group(1)).unwrap();
        project.block.insert("requirePrivateNetworking".to_owned(), true.into());
        project.node_check_ms = 1500;
    });
    let row = test_app.approved().await;
    let row = test_app.settle(&row).await;
    assert_eq!(
        (row.rotation.state, row.rotation.cause),
        (State::NeedsOperator, Some(Cause::RollbackRefused))
    );
    assert_eq!((test_app.held(), test_app.patches()), (new_key(), vec![new_key(), old_key()]));
}

#[tokio::test]
async fn a_key_service_out_of_reach_is_not_rolled_back() {
    let test_app = TestApp::new().await;
    let row = test_app.approved().await;
    test_app.sim.with(|world| {
        let project = world.projects.get_mut(&group(1)).unwrap();
        project.valid_sequence = vec![Some(true), Some(true), Some(false)];
        project.open_alerts.insert("ENCRYPTION_AT_REST_KMS_NETWORK_ACCESS_DENIED".to_owned());
    });
    let row = test_app.settle(&row).await;
    assert_eq!((row.rotation.state, row.rotation.cause), (State::NeedsOperator, Some(Cause::KmsUnreachable)));
    assert_eq!(test_app.patches(), [new_key()]);
}

#[tokio::test]
async fn one_false_reading_is_borne() {
    let test_app = TestApp::new().await;
    test_app.sim.with(|world| {
        let project = world.projects.get_mut(&group(1)).unwrap();
        project.valid_sequence = vec![Some(true), Some(true), Some(false), None, Some(true)];
    });
    let row = test_app.approved().await;
    assert_eq!(test_app.settle(&row).await.rotation.state, State::Completed);
}

#[tokio::test]
async fn a_third_key_is_never_patched_over() {
    let test_app = TestApp::new().await;
    let row = test_app.approved().await;
    test_app.set_by_hand(THIRD);
    let row = test_app.settle(&row).await;
    assert_eq!((row.rotation.state, row.rotation.cause), (State::Superseded, Some(Cause::KeyChanged)));
    assert!(test_app.patches().is_empty());
}

#[tokio::test]
async fn a_restart_goes_on_where_the_last_process_stopped() {
    let mut test_app = TestApp::new().await;
    let row = test_app.approved().await;
    for _ in 0..200 {
        driver::run_due(&test_app.engine).await.unwrap();
        test_app.restart();
        let row = test_app.engine.rotation(row.rotation.id).await.unwrap();
        if row.rotation.state.is_final() {
            break;
        }
        test_app.pass_until(row.rotation.wake_at.unwrap());
    }
    assert_eq!(test_app.engine.rotation(row.rotation.id).await.unwrap().rotation.state, State::Completed);
    assert_eq!(test_app.patches(), [new_key()]);
}

/// Scripts what GETs say of `valid` from now on, the last for good.
fn valid(test_app: &TestApp, readings: &[Option<bool>]) {
    test_app.sim.with(|world| {
        let project = world.projects.get_mut(&group(1)).unwrap();
        project.valid_sequence = readings.to_vec();
        project.change_while_invalid = true;
    });
}

#[tokio::test]
async fn a_flapping_key_is_never_completed_by_luck() {
    let test_app = TestApp::new().await;
    let row = test_app.approved().await;
    // The look before the PATCH, then flaps: never as many true readings in a row as a proof takes.
    valid(&test_app, &[Some(true), Some(false)].repeat(8));
    let row = test_app.until(&row, |it| it == State::RollingBack || it.is_final()).await;
    assert_eq!(row.rotation.state, State::RollingBack);
    valid(&test_app, &[]);
    test_app.sim.with(|world| world.keys.insert(new_key(), KeyState::FailsOnNodes));
    let row = test_app.settle(&row).await;
    assert_eq!(row.rotation.state, State::RolledBack);
    assert_eq!((test_app.held(), test_app.patches()), (old_key(), vec![new_key(), old_key()]));
}

#[tokio::test]
async fn a_slow_proof_is_waited_for() {
    let test_app = TestApp::new().await;
    let row = test_app.approved().await;
    valid(&test_app, &[&[Some(true)][..], &[None; 12], &[Some(true)]].concat());
    let row = test_app.settle(&row).await;
    assert_eq!((row.rotation.state, test_app.patches()), (State::Completed, vec![new_key()]));
}

#[tokio::test]
async fn what_is_never_proven_pages_and_is_not_rolled_back() {
    let test_app = TestApp::new().await;
    let row = test_app.approved().await;
    valid(&test_app, &[Some(true), None]);
    let row = test_app.settle(&row).await;
    assert_eq!((row.rotation.state, row.rotation.cause), (State::NeedsOperator, Some(Cause::Unproven)));
    assert_eq!((test_app.held(), test_app.patches()), (new_key(), vec![new_key()]));
}

#[tokio::test]
async fn somebody_elses_key_stays_whenever_it_comes() {
    for state in [State::Verifying, State::Deploying, State::RollingBack, State::NeedsOperator] {
        let test_app = TestApp::new().await;
        if matches!(state, State::RollingBack | State::NeedsOperator) {
            test_app.sim.with(|world| {
                world.keys.insert(new_key(), KeyState::FailsOnNodes);
                // Going back takes long enough to be overtaken, or is refused.
                world.projects.get_mut(&group(1)).unwrap().change_while_invalid = state == State::RollingBack;
                world.faults = vec![Fault { skip: 1, ..fault("patch_ear", 1, Kind::DropRequest) }];
            });
        }
        let row = test_app.approved().await;
        let row = test_app.until(&row, |it| it == state).await;
        let sent = test_app.patches();
        test_app.set_by_hand(THIRD);
        let row = if state == State::NeedsOperator {
            // A person decides here; looking again finds the third key.
            test_app.engine.say("grace", row.rotation.id, OperatorVerb::Resume, None, None).await.unwrap()
        } else {
            row
        };
        let row = test_app.until(&row, State::is_final).await;
        assert_eq!(
            (row.rotation.state, row.rotation.cause),
            (State::Superseded, Some(Cause::KeyChanged)),
            "{state}"
        );
        assert_eq!((test_app.held(), test_app.patches()), (THIRD.to_owned(), sent), "in {state}");
    }
}

#[tokio::test]
async fn every_provider_moves_to_its_new_key_and_back() {
    for (number, provider, name) in [(5, "AZURE", "identity-prod"), (9, "GCP", "analytics-prod")] {
        let test_app = TestApp::new().await;
        test_app.track(number).await;
        let small = u32::try_from(number).unwrap();
        let keys = [1, 2].map(|version| demo_key(provider, name, small, version));
        let row = test_app.approved_to(number, &keys[1]).await;
        assert_eq!(test_app.settle(&row).await.rotation.state, State::Completed, "{provider}");
        test_app.sim.with(|world| {
            world.keys.insert(keys[0].clone(), KeyState::FailsOnNodes);
            world.projects.get_mut(&group(number)).unwrap().change_while_invalid = true;
        });
        let row = test_app.approved_to(number, &keys[0]).await;
        assert_eq!(test_app.settle(&row).await.rotation.state, State::RolledBack, "{provider}");
        let sent = [keys[1].clone(), keys[0].clone(), keys[1].clone()];
        assert_eq!(test_app.patches(), sent, "{provider}");
    }
}

#[tokio::test]
async fn a_full_disk_at_the_intent_sends_nothing_and_goes_on_when_there_is_room() {
    let test_app = TestApp::new().await;
    let row = test_app.approved().await;
    let keywheel::store::Store::Sqlite { write: pool, .. } = &test_app.engine.store else { unreachable!() };
    let (pages,): (i64,) = sqlx::query_as("PRAGMA page_count").fetch_one(pool).await.unwrap();
    let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
    sqlx::query(limit).execute(pool).await.unwrap();
    // What is left on the journal's last page goes too.
    let fill = "INSERT INTO journal SELECT rotation_id, (SELECT MAX(seq) FROM journal) + 1, at, actor, kind, from_state, \
                to_state, '{}', NULL, count, last_at FROM journal LIMIT 1";
    while sqlx::query(fill).execute(pool).await.is_ok() {}
    let error = driver::run_due(&test_app.engine).await.unwrap_err();
    assert!(matches!(error, StoreError::Full), "{error}");
    assert!(error.to_string().contains("disk"), "{error}");
    assert_eq!(test_app.engine.rotation(row.rotation.id).await.unwrap().rotation.state, State::Approved);
    assert!(test_app.patches().is_empty());
    sqlx::query("PRAGMA max_page_count = 1000000").execute(pool).await.unwrap();
    assert_eq!(test_app.settle(&row).await.rotation.state, State::Completed);
    assert_eq!(test_app.patches(), [new_key()]);
}

#[tokio::test]
async fn the_journal_replays_to_what_was_decided() {
    let test_app = TestApp::new().await;
    test_app.sim.with(|world| {
        world.keys.insert(new_key(), KeyState::FailsOnNodes);
        world.projects.get_mut(&group(1)).unwrap().change_while_invalid = true;
        world.faults = vec![fault("patch_ear", 1, Kind::DropReply)];
    });
    let row = test_app.approved().await;
    let row = test_app.settle(&row).await;
    assert_eq!(row.rotation.state, State::RolledBack);
    let keywheel::store::Store::Sqlite { read, .. } = &test_app.engine.store else { unreachable!() };
    let rows: Vec<(String, String, String)> =
        sqlx::query_as("SELECT at, to_state, replay FROM journal WHERE replay IS NOT NULL ORDER BY seq")
            .fetch_all(read)
            .await
            .unwrap();
    assert!(rows.len() >= 6, "{} rows", rows.len());
    for (at, to_state, replay) in rows {
        let mut replay: serde_json::Value = serde_json::from_str(&replay).unwrap();
        replay["before"]["rules"] = serde_json::to_value(&row.rotation.rules).unwrap();
        let before: Rotation = serde_json::from_value(replay["before"].take()).unwrap();
        let outcome: Outcome = serde_json::from_value(replay["outcome"].take()).unwrap();
        let step = next(&before, &outcome, at.parse().unwrap());
        assert_eq!(step.rotation.state.as_str(), to_state);
    }
}

#[tokio::test]
async fn a_rotation_keeps_the_rules_it_was_proposed_under() {
    let mut test_app = TestApp::new().await;
    let group = group(1).parse().unwrap();
    let proposed =
        test_app.engine.propose("ada", &group, new_key().parse().unwrap(), None, false).await.unwrap();
    let keywheel::engine::propose::Proposed::Created(row) = proposed else { panic!("not new") };
    test_app.rule(|settings| {
        settings.policy.approvals = 3;
        settings.policy.windows = vec![
            serde_json::from_str(r#"{ "cron": "0 0 3 29 2 *", "duration": "1m", "timezone": "UTC" }"#)
                .unwrap(),
        ];
        settings.verify.readings = 500;
    });
    test_app.engine.say("grace", row.rotation.id, OperatorVerb::Approve, None, None).await.unwrap();
    let row = test_app.settle(&row).await;
    assert_eq!((row.rotation.state, row.rotation.permission.quorum.required), (State::Completed, 1));
}

#[tokio::test]
async fn a_planned_rotation_sends_nothing_before_its_date() {
    let app = TestApp::new().await;
    let group = group(1).parse().unwrap();
    let ask = |planned| NewProposal {
        new_key: new_key().parse().unwrap(),
        reason: None,
        planned: Some(planned),
        emergency: false,
        dry_run: false,
    };
    let now = app.engine.clock.now();
    let days = |days: u64| Planned::At(now + Duration::from_hours(days * 24));
    for (planned, why) in
        [(Planned::At(now - Duration::from_hours(24)), "is over"), (days(93), "too far ahead")]
    {
        let refused = app.engine.propose_on("ada", &group, ask(planned)).await.unwrap_err().to_string();
        assert!(refused.starts_with("plannedFor: ") && refused.contains(why), "{refused}");
    }
    let proposed = app.engine.propose_on("ada", &group, ask(days(20))).await.unwrap();
    let Proposed::Created(row) = proposed else { panic!("not new") };
    // The same key for another day is another proposal.
    let other = app.engine.propose_on("ada", &group, ask(days(10))).await;
    assert!(matches!(other, Err(CommandError::RotationOpen { .. })), "{other:?}");
    // It may be approved later than proposals without a date expire.
    app.pass(Duration::from_hours(12 * 24));
    driver::run_due(&app.engine).await.unwrap();
    app.engine.say("grace", row.rotation.id, OperatorVerb::Approve, None, None).await.unwrap();
    for _ in 0..191 {
        app.pass(Duration::from_hours(1));
        driver::run_due(&app.engine).await.unwrap();
        assert_eq!(app.patches(), Vec::<String>::new());
    }
    let row = app.engine.rotation(row.rotation.id).await.unwrap();
    assert_eq!((row.rotation.state, row.rotation.hold), (State::Approved, Some(Hold::Window)));
    let why = app.engine.why_waiting(&row).await.unwrap();
    assert!(why[0].starts_with("It is planned for ") && why[0].contains("nothing is sent before"), "{why:?}");
    app.pass(Duration::from_hours(1));
    let row = app.settle(&row).await;
    assert_eq!((row.rotation.state, app.patches()), (State::Completed, vec![new_key()]));
}
