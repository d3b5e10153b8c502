//! The engine over real HTTP against the simulator, with faults between the two.

use keywheel::domain::rotation::state::{Cause, State};
use keywheel::engine::driver;
use keywheel::sim::fault::{Fault, Kind};
use keywheel::sim::world::KeyState;

use crate::support::{Rig, group, new_key, old_key};

fn fault(operation: &str, times: u32, kind: Kind) -> Fault {
    Fault { operation: operation.to_owned(), group_id: None, skip: 0, times: Some(times), kind }
}

fn status(status: u16, code: Option<&str>, retry_after: Option<u64>) -> Kind {
    Kind::Status { status, code: code.map(str::to_owned), retry_after }
}

/// Runs one rotation through `faults`; says how it ended, Atlas' key, and which keys were sent.
async fn through(faults: Vec<Fault>) -> (State, Option<Cause>, String, Vec<String>) {
    let rig = Rig::new().await;
    rig.sim.with(|world| world.faults = faults);
    let row = rig.approved().await;
    let row = rig.settle(&row).await;
    rig.engine.store.verify_audit().await.unwrap().unwrap();
    (row.rotation.state, row.rotation.cause, rig.held(), rig.patches())
}

#[tokio::test]
async fn a_rotation_completes_and_the_project_has_the_new_key() {
    let rig = Rig::new().await;
    let row = rig.approved().await;
    let row = rig.settle(&row).await;
    assert_eq!(row.rotation.state, State::Completed);
    let project = rig.engine.store.project(&group(1).parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(project.current_key.unwrap().to_string(), new_key());
    assert_eq!(project.key_since, row.rotation.patched_at);
    assert_eq!(rig.patches(), [new_key()]);
    let kinds: Vec<_> =
        rig.engine.store.outbox(None, 10).await.unwrap().into_iter().map(|it| it.kind).collect();
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
    let rig = Rig::new().await;
    rig.sim
        .with(|world| world.faults = vec![fault("patch_ear", 1, status(429, Some("RATE_LIMITED"), Some(1)))]);
    let row = rig.approved().await;
    assert_eq!(rig.settle(&row).await.rotation.state, State::Completed);
    let log: Vec<_> = rig.sim.log().into_iter().filter(|it| it.operation.ends_with("_ear")).collect();
    let refused = log.iter().position(|it| it.status == Some(429)).unwrap();
    let waited = log[refused + 1].at.since(log[refused].at);
    assert!(waited >= std::time::Duration::from_secs(1), "asked again after {waited:?}");
}

#[tokio::test]
async fn a_refused_key_fails_with_atlas_words_and_changes_nothing() {
    let rig = Rig::new().await;
    rig.sim.with(|world| world.keys.insert(new_key(), KeyState::Disabled));
    let row = rig.approved().await;
    let row = rig.settle(&row).await;
    assert_eq!((row.rotation.state, row.rotation.cause), (State::Failed, Some(Cause::Refused)));
    assert_eq!(
        row.rotation.failure.unwrap().code.as_deref(),
        Some("AWS_KMS_CUSTOMER_MASTER_KEY_NOT_ENABLED")
    );
    assert_eq!((rig.held(), rig.patches().len()), (old_key(), 1));
}

#[tokio::test]
async fn a_key_that_fails_on_the_nodes_is_rolled_back() {
    let rig = Rig::new().await;
    rig.sim.with(|world| {
        world.keys.insert(new_key(), KeyState::FailsOnNodes);
        world.projects.get_mut(&group(1)).unwrap().change_while_invalid = true;
        world.faults = vec![Fault { skip: 1, ..fault("patch_ear", 1, Kind::DropReply) }];
    });
    let row = rig.approved().await;
    let row = rig.settle(&row).await;
    assert_eq!(row.rotation.state, State::RolledBack);
    assert_eq!((rig.held(), rig.patches()), (old_key(), vec![new_key(), old_key()]));
}

#[tokio::test]
async fn a_refused_rollback_pages_and_heals_when_the_key_does() {
    let rig = Rig::new().await;
    rig.sim.with(|world| world.keys.insert(new_key(), KeyState::FailsOnNodes));
    let row = rig.approved().await;
    let row = rig.settle(&row).await;
    assert_eq!(
        (row.rotation.state, row.rotation.cause),
        (State::NeedsOperator, Some(Cause::RollbackRefused))
    );
    assert_eq!(
        row.rotation.failure.as_ref().unwrap().code.as_deref(),
        Some("ENCRYPTION_AT_REST_SETTINGS_INVALID")
    );
    assert_eq!(rig.patches(), [new_key(), old_key()]);
    let mails = rig.engine.store.outbox(None, 10).await.unwrap();
    assert!(mails[0].model["remedy"].as_str().unwrap().contains("aws kms enable-key"), "{}", mails[0].model);
    rig.sim.with(|world| world.keys.insert(new_key(), KeyState::Enabled));
    let healed = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        loop {
            driver::run_due(&rig.engine).await.unwrap();
            let row = rig.engine.rotation(row.rotation.id).await.unwrap();
            if row.rotation.state == State::Completed {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    healed.await.expect("it did not heal");
    assert_eq!(rig.patches().len(), 2, "a healed key must not be PATCHed again");
}

#[tokio::test]
async fn one_false_reading_is_borne() {
    let rig = Rig::new().await;
    rig.sim.with(|world| {
        let project = world.projects.get_mut(&group(1)).unwrap();
        project.valid_sequence = vec![Some(true), Some(true), Some(false), None, Some(true)];
    });
    let row = rig.approved().await;
    assert_eq!(rig.settle(&row).await.rotation.state, State::Completed);
}

#[tokio::test]
async fn a_third_key_is_never_patched_over() {
    let rig = Rig::new().await;
    let third = "33333333-3333-4333-8333-333333333333";
    rig.sim.with(|world| {
        world.keys.insert(third.to_owned(), KeyState::Enabled);
        world.faults = vec![fault("patch_ear", 1, Kind::DropRequest)];
    });
    let row = rig.approved().await;
    rig.sim.with(|world| {
        let project = world.projects.get_mut(&group(1)).unwrap();
        project.block.insert("customerMasterKeyID".to_owned(), third.into());
    });
    let row = rig.settle(&row).await;
    assert_eq!((row.rotation.state, row.rotation.cause), (State::Superseded, Some(Cause::KeyChanged)));
    assert!(rig.patches().is_empty());
}

#[tokio::test]
async fn a_restart_goes_on_where_the_last_process_stopped() {
    let mut rig = Rig::new().await;
    let row = rig.approved().await;
    for _ in 0..200 {
        driver::run_due(&rig.engine).await.unwrap();
        rig.restart();
        let row = rig.engine.rotation(row.rotation.id).await.unwrap();
        if row.rotation.state.is_final() {
            break;
        }
        tokio::time::sleep(rig.engine.clock.now().until(row.rotation.wake_at.unwrap())).await;
    }
    assert_eq!(rig.engine.rotation(row.rotation.id).await.unwrap().rotation.state, State::Completed);
    assert_eq!(rig.patches(), [new_key()]);
}
