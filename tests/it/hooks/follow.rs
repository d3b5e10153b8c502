//! From a hint to a proposal: what is looked at, what is proposed, and what is not.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::senders::{kms_event, trail, vault_event};
use super::{HookServer, alert, atlas_signature};
use crate::support::db::Backend;
use crate::support::{group, new_key};
use keywheel::domain::rotation::state::State;
use keywheel::domain::time::ManualClock;
use keywheel::engine::command::OperatorVerb;
use keywheel::engine::driver;
use keywheel::engine::propose::Proposed;
use keywheel::sim::fault::{Fault, Kind};
use keywheel::sim::world::{KeyState, demo_key};
use keywheel::store::{OutboxRow, RotationRow};

const HOOKS: &str = r#"
[[hooks]]
name = "grid"
kind = "azure-event-grid"
token = "the-secret-in-the-address"
[[hooks]]
name = "atlas"
kind = "atlas"
secret = "the-present-secret-of-atlas"
[[hooks]]
name = "bus"
kind = "aws-eventbridge"
token = "the-key-of-the-connection"
[[hooks]]
name = "ci"
kind = "cloudevents"
token = "the-token-of-our-pipeline"
"#;
const VAULT: &str = "/subscriptions/0b1f6471-1bf0-4dda-aec3-111122223333/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/kw-demo";

impl HookServer {
    pub(super) async fn grid(&self, event: &Value) {
        let sent = self.send("grid?code=the-secret-in-the-address", &[], json!([event]).to_string()).await;
        assert_eq!(sent.status, 202, "{sent:?}");
        self.follow().await;
    }

    pub(super) async fn bus(&self, event: &Value) {
        let sent = self.send("bus", &[("x-api-key", "the-key-of-the-connection")], event.to_string()).await;
        assert_eq!(sent.status, 202, "{sent:?}");
        self.follow().await;
    }

    pub(super) async fn ask(&self, id: &str, data: Value) {
        let event = json!({ "specversion": "1.0", "id": id, "source": "/ci", "type": "io.keywheel.rotation.requested.v1", "data": data });
        let headers = [
            ("authorization", "Bearer the-token-of-our-pipeline"),
            ("content-type", "application/cloudevents+json"),
        ];
        let sent = self.send("ci", &headers, event.to_string()).await;
        assert_eq!(sent.status, 202, "{sent:?}");
        self.follow().await;
    }

    pub(super) async fn rotations(&self) -> Vec<RotationRow> {
        self.engine.store.rotations(None, None, None, 100).await.unwrap()
    }

    pub(super) async fn mails(&self, kind: &str) -> Vec<OutboxRow> {
        let all = self.engine.store.outbox(None, 100).await.unwrap();
        all.into_iter().filter(|row| row.kind == kind).collect()
    }

    pub(super) async fn came(&self, hook: &str, id: &str) -> String {
        let outcome = self.outcome(hook, id).await.unwrap();
        assert!(outcome.handled_at.is_some(), "{outcome:?}");
        outcome.outcome.unwrap()
    }
}

async fn a_new_version_becomes_one_proposal_on(backend: Backend) {
    let server = HookServer::on(backend, HOOKS, None).await;
    let before = server.sim.log().len();
    server.grid(&vault_event("KeyNewVersionCreated", 2, "1")).await;
    let log = server.sim.log();
    let mut asked: Vec<_> = log[before..].iter().map(|it| it.operation.clone()).collect();
    asked.sort_unstable();
    assert_eq!(asked, ["get_clusters", "get_ear", "get_endpoints"], "one observation, and the checklist");
    let rotations = server.rotations().await;
    let [row] = rotations.as_slice() else { panic!("{rotations:?}") };
    assert_eq!(row.rotation.state, State::AwaitingApproval);
    assert_eq!((row.trigger.as_str(), row.requested_by.as_str()), ("hook:grid", "hook:grid"));
    assert_eq!(row.rotation.new_key.to_string(), demo_key("AZURE", "identity-prod", 5, 2));
    let reason = row.reason.as_deref().unwrap();
    assert!(reason.contains("KeyNewVersionCreated") && reason.contains("identity-prod"), "{reason}");
    assert_eq!(server.mails("approval_requested").await.len(), 1);
    assert_eq!(
        server.came("grid", &format!("{VAULT}/1")).await,
        format!("proposed as rotation {}", row.rotation.id)
    );
    // A repetition is a duplicate; the same news under another id finds the proposal there.
    server.grid(&vault_event("KeyNewVersionCreated", 2, "1")).await;
    server.grid(&vault_event("KeyNewVersionCreated", 2, "2")).await;
    assert_eq!(server.rotations().await.len(), 1);
    assert!(server.came("grid", &format!("{VAULT}/2")).await.starts_with("proposed already"));
    // What people turned down is not proposed again by a sender that repeats it.
    server.engine.say("grace", row.rotation.id, OperatorVerb::Reject, None, None).await.unwrap();
    server.grid(&vault_event("KeyNewVersionCreated", 2, "3")).await;
    assert_eq!(server.rotations().await.len(), 1);
    let came = server.came("grid", &format!("{VAULT}/3")).await;
    assert!(came.contains("ended rejected"), "{came}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_becomes_one_proposal() {
    a_new_version_becomes_one_proposal_on(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_becomes_one_proposal_on_postgres() {
    a_new_version_becomes_one_proposal_on(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_new_is_not_proposed() {
    let server = HookServer::open(HOOKS).await;
    server.grid(&vault_event("KeyNewVersionCreated", 1, "1")).await;
    assert!(server.came("grid", &format!("{VAULT}/1")).await.starts_with("Atlas holds"));
    // Another key of the same vault concerns nobody.
    let mut other = vault_event("KeyNewVersionCreated", 2, "2");
    other["data"]["Id"] =
        json!("https://kw-demo.vault.azure.net/keys/nobodys/00000000000000000000000000000002");
    server.grid(&other).await;
    assert_eq!(server.came("grid", &format!("{VAULT}/2")).await, "no tracked project is concerned");
    assert_eq!(server.counts("grid")[5], 1);
    // A key that served before is a way back, not a rotation.
    let key2 = demo_key("AZURE", "identity-prod", 5, 2);
    server.sim.with(|world| {
        world.projects.get_mut(&group(5)).unwrap().block.insert("keyIdentifier".to_owned(), key2.into());
    });
    server.grid(&vault_event("VaultAccessPolicyChanged", 1, "3")).await;
    server.grid(&vault_event("KeyNewVersionCreated", 1, "4")).await;
    let came = server.came("grid", &format!("{VAULT}/4")).await;
    assert!(came.contains("served before"), "{came}");
    // An alias that no project is configured with.
    let target = json!({ "aliasName": "alias/atlas", "targetKeyId": new_key() });
    server.bus(&trail("UpdateAlias", &target, "5")).await;
    assert_eq!(server.came("bus", "5").await, "no tracked project is concerned");
    assert!(server.rotations().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_inside_aws_is_recorded_and_asks_for_nothing() {
    let server = HookServer::open(HOOKS).await;
    let before = server.sim.log().len();
    server.bus(&kms_event("KMS CMK Rotation", "1")).await;
    let came = server.came("bus", "1").await;
    assert!(came.starts_with("nothing to do in Atlas"), "{came}");
    let audit = server.engine.store.audit(None, 10).await.unwrap();
    let row = audit.iter().find(|row| row.action == "project.key_rotated_in_place").unwrap();
    assert_eq!(
        (row.actor.as_str(), row.subject.as_str()),
        ("hook:bus", format!("project/{}", group(1)).as_str())
    );
    assert!(row.detail.contains("nothing to do in Atlas"), "{row:?}");
    assert!(server.rotations().await.is_empty());
    assert_eq!(server.sim.log().len(), before, "Atlas was asked for nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_take_a_key_away_is_told_at_once_and_once() {
    let server = HookServer::open(HOOKS).await;
    let key = demo_key("AWS", "payments-prod", 1, 1);
    server.bus(&trail("ScheduleKeyDeletion", &json!({ "keyId": key, "pendingWindowInDays": 7 }), "1")).await;
    let mails = server.mails("key_alarm").await;
    let [mail] = mails.as_slice() else { panic!("{mails:?}") };
    assert_eq!(
        (mail.recipient.as_str(), &mail.model["event"], &mail.model["earlier"]),
        ("ada@example.com", &json!("ScheduleKeyDeletion"), &json!(false))
    );
    assert_eq!(mail.model["by"], "arn:aws:sts::111122223333:assumed-role/KeyOps/alice");
    // KMS repeats this one; each repetition has an id of its own.
    server.bus(&kms_event("KMS CMK Deletion", "2")).await;
    server.bus(&kms_event("KMS CMK Deletion", "3")).await;
    assert_eq!(server.mails("key_alarm").await.len(), 2);
    // A key that served before, and that old backups still need.
    server.sim.with(|world| {
        world
            .projects
            .get_mut(&group(1))
            .unwrap()
            .block
            .insert("customerMasterKeyID".to_owned(), new_key().into());
    });
    server.bus(&trail("PutKeyPolicy", &json!({ "keyId": key }), "4")).await;
    server.bus(&trail("DisableKey", &json!({ "keyId": key }), "5")).await;
    let mails = server.mails("key_alarm").await;
    assert_eq!(mails.len(), 3);
    assert_eq!(mails[0].model["earlier"], true);
    // A stranger's key.
    server.bus(&trail("DisableKey", &json!({ "keyId": "99999999-aaaa-4aaa-8aaa-000000000001" }), "6")).await;
    assert_eq!(server.mails("key_alarm").await.len(), 3);
    assert_eq!(server.engine.store.verify_audit().await.unwrap().intact().unwrap().rows, 3 + 3 + 1 + 5);
}

/// The proposed key, then the one that is being verified: both are in play.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_with_a_key_of_the_open_rotation_is_told() {
    let server = HookServer::open(HOOKS).await;
    let id = group(1).parse().unwrap();
    let proposed = server.engine.propose("ada", &id, new_key().parse().unwrap(), None, false).await.unwrap();
    let Proposed::Created(row) = proposed else { panic!("not new") };
    server.bus(&trail("DisableKey", &json!({ "keyId": new_key() }), "1")).await;
    let mails = server.mails("key_alarm").await;
    assert_eq!((mails.len(), &mails[0].model["proposed"]), (1, &json!(true)));
    let text = crate::support::letter(&mails[0]).text();
    assert!(text.contains("or cancel the rotation"), "{text}");
    server.engine.say("grace", row.rotation.id, OperatorVerb::Approve, None, None).await.unwrap();
    for _ in 0..100 {
        driver::run_due(&server.engine).await.unwrap();
        if server.engine.rotation(row.rotation.id).await.unwrap().rotation.state == State::Verifying {
            break;
        }
        tokio::task::yield_now().await;
    }
    let event = trail("ScheduleKeyDeletion", &json!({ "keyId": new_key(), "pendingWindowInDays": 7 }), "2");
    server.bus(&event).await;
    let mails = server.mails("key_alarm").await;
    assert_eq!((mails.len(), mails[0].model.get("proposed")), (2, None));
    assert_eq!(mails[0].model["earlier"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_that_is_open_pages_once_and_its_end_does_not() {
    let server = HookServer::open(HOOKS).await;
    // Its end first: order means nothing.
    for (kind, status, updated, mails) in [
        ("AWS_ENCRYPTION_KEY_INVALID", "CLOSED", "2026-08-02T03:00:00Z", 0),
        ("AWS_ENCRYPTION_KEY_NEEDS_ROTATION", "OPEN", "2026-08-02T02:00:00Z", 0),
        ("AWS_ENCRYPTION_KEY_INVALID", "OPEN", "2026-08-02T02:27:02Z", 1),
        ("AWS_ENCRYPTION_KEY_INVALID", "OPEN", "2026-08-02T02:32:02Z", 1),
        ("ENCRYPTION_AT_REST_KMS_NETWORK_ACCESS_RESTORED", "OPEN", "2026-08-02T02:33:02Z", 1),
    ] {
        let body = alert(kind, status, updated).to_string();
        let signature = atlas_signature("the-present-secret-of-atlas", body.as_bytes());
        assert_eq!(server.send("atlas", &[("x-mms-signature", &signature)], body).await.status, 202);
        server.follow().await;
        assert_eq!(server.mails("key_alarm").await.len(), mails, "{kind} {status} {updated}");
    }
    assert!(server.rotations().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_system_may_ask_for_a_rotation() {
    let server = HookServer::open(HOOKS).await;
    server
        .ask("1", json!({ "groupId": group(1), "newKey": new_key(), "reason": "the quarter is over" }))
        .await;
    let rotations = server.rotations().await;
    assert_eq!(rotations.len(), 1);
    assert!(rotations[0].reason.as_deref().unwrap().ends_with(": the quarter is over"));
    for (id, data, wanted) in [
        (
            "2",
            json!({ "groupId": group(9), "newKey": demo_key("AZURE", "identity-prod", 5, 2) }),
            "looks like a key of AZURE",
        ),
        ("4", json!({ "groupId": group(9) }), "no new key is named"),
        ("5", json!({ "groupId": "ffffffffffffffffffffffff" }), "no tracked project is concerned"),
    ] {
        server.ask(id, data).await;
        let came = server.came("ci", &format!("/ci/{id}")).await;
        assert!(came.contains(wanted), "{id}: {came}");
    }
    assert_eq!(server.rotations().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_about_one_project_is_one_look() {
    let server = HookServer::open(HOOKS).await;
    let events: Vec<Value> =
        (0..2000).map(|id| vault_event("KeyNewVersionCreated", 2, &id.to_string())).collect();
    let sent = server.send("grid?code=the-secret-in-the-address", &[], json!(events).to_string()).await;
    assert_eq!((sent.status, server.counts("grid")[1]), (202, 2000));
    let before = server.sim.log().len();
    server.follow().await;
    assert_eq!(server.rotations().await.len(), 1);
    let asked = server.sim.log().len() - before;
    assert!(asked <= 4, "{asked} calls to Atlas: one look, and one with role and clusters for the proposal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hint_waits_until_atlas_can_be_asked() {
    let clock = ManualClock::new("2026-11-20T03:00:00Z".parse().unwrap());
    let server = HookServer::on(Backend::Sqlite, HOOKS, Some(clock)).await;
    server.sim.with(|world| {
        world.faults.push(Fault {
            operation: "get_ear".to_owned(),
            group_id: None,
            skip: 0,
            times: None,
            kind: Kind::Status { status: 503, code: None, retry_after: None },
        });
    });
    server.grid(&vault_event("KeyNewVersionCreated", 2, "1")).await;
    let outcome = server.outcome("grid", &format!("{VAULT}/1")).await.unwrap();
    assert!(
        outcome.handled_at.is_none()
            && outcome.outcome.as_deref().unwrap().contains("Atlas could not be read"),
        "{outcome:?}"
    );
    assert!(server.rotations().await.is_empty());
    server.sim.with(|world| world.faults.clear());
    server.follow().await;
    assert!(server.rotations().await.is_empty(), "its turn has not come");
    server.clock.advance(Duration::from_secs(31));
    server.follow().await;
    assert_eq!(server.rotations().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_comes_while_another_is_open_waits_for_its_turn() {
    let clock = ManualClock::new("2026-11-20T03:00:00Z".parse().unwrap());
    let server = HookServer::on(Backend::Sqlite, HOOKS, Some(clock)).await;
    server.grid(&vault_event("KeyNewVersionCreated", 2, "1")).await;
    server.sim.with(|world| world.keys.insert(demo_key("AZURE", "identity-prod", 5, 3), KeyState::Enabled));
    server.grid(&vault_event("KeyNewVersionCreated", 3, "2")).await;
    let waits = server.outcome("grid", &format!("{VAULT}/2")).await.unwrap();
    assert!(
        waits.handled_at.is_none() && waits.outcome.as_deref().unwrap().contains("is still open"),
        "{waits:?}"
    );
    // People take longer than any number of tries.
    for _ in 0..20 {
        server.clock.advance(Duration::from_mins(31));
        server.follow().await;
    }
    let first = &server.rotations().await[0];
    assert_eq!(server.rotations().await.len(), 1);
    server.engine.say("grace", first.rotation.id, OperatorVerb::Reject, None, None).await.unwrap();
    server.clock.advance(Duration::from_mins(31));
    server.follow().await;
    let rotations = server.rotations().await;
    assert_eq!(rotations.len(), 2);
    assert_eq!(rotations[0].rotation.new_key.to_string(), demo_key("AZURE", "identity-prod", 5, 3));
    assert!(server.came("grid", &format!("{VAULT}/2")).await.starts_with("proposed as"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_wrong_event_does_not_hide_a_right_one() {
    let server = HookServer::open(HOOKS).await;
    let good = vault_event("KeyNewVersionCreated", 2, "1");
    let mut useless = vault_event("KeyNewVersionCreated", 1, "2");
    useless["data"]["NBF"] = json!(1);
    server.grid(&json!({ "nothing": 1, "id": "0", "topic": "x", "eventType": "y" })).await;
    let sent =
        server.send("grid?code=the-secret-in-the-address", &[], json!([good, useless]).to_string()).await;
    assert_eq!(sent.status, 202);
    server.follow().await;
    let rotations = server.rotations().await;
    assert_eq!(rotations.len(), 1, "{}", server.came("grid", &format!("{VAULT}/1")).await);
    assert_eq!(rotations[0].rotation.new_key.to_string(), demo_key("AZURE", "identity-prod", 5, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repairing_cluster_is_waited_for() {
    let clock = ManualClock::new("2026-11-20T03:00:00Z".parse().unwrap());
    let server = HookServer::on(Backend::Sqlite, HOOKS, Some(clock)).await;
    let held = |state: Option<&str>| {
        let state = state.map(ToOwned::to_owned);
        server.sim.with(|world| world.projects.get_mut(&group(5)).unwrap().clusters[0].held = state);
    };
    held(Some("REPAIRING"));
    server.grid(&vault_event("KeyNewVersionCreated", 2, "1")).await;
    assert!(server.rotations().await.is_empty());
    assert!(server.outcome("grid", &format!("{VAULT}/1")).await.unwrap().handled_at.is_none());
    held(None);
    server.clock.advance(Duration::from_secs(31));
    server.follow().await;
    assert_eq!(server.rotations().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn material_that_expires_again_is_told_again() {
    let server = HookServer::open(HOOKS).await;
    for (day, id, mails) in [("2026-11-20", "1", 1), ("2026-11-20", "2", 1), ("2027-02-18", "3", 2)] {
        let mut event = kms_event("KMS Imported Key Material Expiration", id);
        event["time"] = json!(format!("{day}T03:11:54Z"));
        server.bus(&event).await;
        assert_eq!(server.mails("key_alarm").await.len(), mails, "{day}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_id_spoils_nobodys_write_on_postgres() {
    let server = HookServer::on(Backend::Postgres, HOOKS, None).await;
    let mut long = vault_event("KeyNewVersionCreated", 2, "1");
    // Random enough that no compression helps an index.
    let id: String = (0..100u8).map(|at| hex::encode(Sha256::digest([at]))).collect();
    long["id"] = json!(id);
    for accepted in [1, 1] {
        server.grid(&long).await;
        assert_eq!(server.counts("grid")[1], accepted);
    }
}

/// Who has the secret of a hook proposes with it, and does not approve that. Without owners it may be anybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_owns_a_hook_does_not_approve_what_it_requests() {
    let owned = HOOKS.replace("kind = \"cloudevents\"", "kind = \"cloudevents\"\nowners = [\"grace\"]");
    for (hooks, required, owner_counts) in [(owned.as_str(), 1, false), (HOOKS, 2, true)] {
        let server = HookServer::open(hooks).await;
        server.ask("1", json!({ "groupId": group(1), "newKey": new_key() })).await;
        let [row] = server.rotations().await.try_into().unwrap();
        assert_eq!(row.rotation.permission.quorum.required, required);
        let vote =
            async |by: &str| server.engine.say(by, row.rotation.id, OperatorVerb::Approve, None, None).await;
        assert_eq!(vote("grace").await.is_ok(), owner_counts);
        assert_eq!(vote("edsger").await.unwrap().rotation.state, State::Approved);
    }
}
