//! Subscriptions: a change of the world is told by itself.

use keywheel::sim::World;
use keywheel::sim::world::{KeyState, demo_key};
use serde_json::{Value, json};

use super::Site;
use crate::support::{group, old_key};

async fn subscribe(site: &Site, kind: &str, fields: Value) {
    let order = site.order(kind, fields);
    let (status, answer) = site.post("/sim/v1/subscriptions", &order).await;
    assert_eq!(status, 201, "{answer}");
}

async fn turn(site: &Site, key: &str, state: &str) {
    let (status, answer) = site.post("/sim/v1/keys", &json!({ "id": key, "state": state })).await;
    assert_eq!(status, 204, "{answer}");
}

#[tokio::test]
async fn a_new_key_vault_version_is_sent_to_every_subscriber() {
    let site = Site::new().await;
    subscribe(&site, "azure-event-grid", json!({ "entra": { "tenantId": "t", "audience": "a" } })).await;
    let third = demo_key("AZURE", "claims-prod", 7, 3);
    turn(&site, &third, "enabled").await;
    turn(&site, &third, "enabled").await;
    turn(&site, &third, "expiring").await;
    turn(&site, &third, "expired").await;
    let seen = site.seen(3).await;
    let told: Vec<Value> = seen.iter().map(|it| it.json()[0].clone()).collect();
    let mut kinds: Vec<_> =
        told.iter().map(|it| it["eventType"].as_str().unwrap().rsplit('.').next().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["KeyExpired", "KeyNearExpiry", "KeyNewVersionCreated"]);
    assert!(told.iter().all(|it| it["data"]["Id"] == third));
    assert!(seen.iter().all(|it| it.header("authorization").is_some()));
}

#[tokio::test]
async fn an_alias_that_moves_and_a_key_that_is_switched_off_are_told_by_cloudtrail() {
    let mut world = World::demo();
    world.kms.aliases = [("alias/payments".to_owned(), old_key())].into();
    let site = Site::of(world).await;
    let only = json!(["UpdateAlias", "DeleteAlias", "DisableKey", "ScheduleKeyDeletion"]);
    subscribe(&site, "aws-eventbridge", json!({ "only": only, "apiKey": { "value": "k" } })).await;
    let second = demo_key("AWS", "payments-prod", 1, 2);
    let steps = [
        json!({ "alias/payments": second }),
        json!({ "alias/payments": second, "alias/new": second }),
        json!({ "alias/new": second }),
    ];
    for (step, count) in steps.into_iter().zip([1, 1, 2]) {
        site.post("/sim/v1/kms", &json!({ "aliases": step })).await;
        site.seen(count).await;
    }
    turn(&site, &old_key(), "disabled").await;
    site.seen(3).await;
    turn(&site, &old_key(), "enabled").await;
    turn(&site, &old_key(), "pending_deletion").await;
    let seen = site.seen(4).await;
    let told: Vec<_> =
        seen.iter().map(|it| it.json()["detail"]["eventName"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told, ["UpdateAlias", "DeleteAlias", "DisableKey", "ScheduleKeyDeletion"]);
    let moved = seen[0].json()["detail"]["requestParameters"].clone();
    assert_eq!(moved, json!({ "aliasName": "alias/payments", "targetKeyId": second }));
}

#[tokio::test]
async fn google_logs_versions_and_anybody_asks_for_a_rotation() {
    let site = Site::new().await;
    subscribe(&site, "gcp-pubsub", json!({ "wrapped": false })).await;
    let third = demo_key("GCP", "analytics-prod", 9, 3);
    turn(&site, &third, "enabled").await;
    let told: Vec<Value> = site.seen(2).await.iter().map(|it| it.json()["protoPayload"].clone()).collect();
    let methods = [&told[0]["methodName"], &told[1]["methodName"]];
    assert_eq!(methods, ["CreateCryptoKeyVersion", "UpdateCryptoKeyPrimaryVersion"]);
    assert_eq!(told[1]["response"]["primary"]["name"], third);
    let gone =
        site.client.delete(format!("{}/sim/v1/subscriptions", site.sim.base_url())).send().await.unwrap();
    assert_eq!(gone.status(), 204);
    subscribe(&site, "cloudevents", json!({ "token": "t" })).await;
    let fourth = demo_key("GCP", "analytics-prod", 9, 4);
    site.sim.with(|world| world.keys.insert(fourth.clone(), KeyState::Enabled));
    let seen = site.seen(3).await;
    assert_eq!(seen[2].json()["data"], json!({ "groupId": group(9), "newKey": fourth }));
}

#[tokio::test]
async fn new_material_is_told_as_a_rotation_and_dates_travel_along() {
    let site = Site::new().await;
    let key = |id: &str, more: Value| super::with(&json!({ "id": id, "state": "enabled" }), more);
    site.post("/sim/v1/keys", &key(&old_key(), json!({ "material": "first" }))).await;
    subscribe(&site, "aws-eventbridge", json!({})).await;
    site.post("/sim/v1/keys", &key(&old_key(), json!({ "material": "second" }))).await;
    assert_eq!(site.seen(1).await[0].json()["detail-type"], "KMS CMK Rotation");
    subscribe(&site, "azure-event-grid", json!({})).await;
    let third = demo_key("AZURE", "claims-prod", 7, 3);
    site.post("/sim/v1/keys", &key(&third, json!({ "expires": "2026-12-01T00:00:00Z" }))).await;
    assert_eq!(site.seen(2).await[1].json()[0]["data"]["EXP"], 1_796_083_200);
}

#[tokio::test]
async fn an_alert_opens_and_closes() {
    let site = Site::new().await;
    subscribe(&site, "atlas", json!({ "secret": "s", "about": group(1) })).await;
    turn(&site, &old_key(), "disabled").await;
    let first = site.seen(1).await[0].clone();
    assert_eq!(
        (first.header("x-mms-event"), &first.json()["eventTypeName"]),
        (Some("alert.open"), &json!("AWS_ENCRYPTION_KEY_INVALID"))
    );
    turn(&site, &old_key(), "enabled").await;
    let second = site.seen(2).await[1].clone();
    assert_eq!(
        (second.header("x-mms-event"), &second.json()["id"]),
        (Some("alert.close"), &first.json()["id"])
    );
    assert!(second.json()["humanReadable"].as_str().unwrap().contains("payments-prod"));
}

#[tokio::test]
async fn subscriptions_are_seeded_listed_and_checked() {
    let site = Site::new().await;
    let own = json!({ "kind": "cloudevents", "url": site.hook, "about": "projects/" });
    let (status, answer) = site.post("/sim/v1/world", &json!({ "subscriptions": [own] })).await;
    assert_eq!(status, 204, "{answer}");
    let listed: Value = serde_json::from_str(&site.fetch("/sim/v1/subscriptions").await).unwrap();
    assert_eq!(listed, json!([own]));
    for (order, field) in [
        (json!({ "kind": "cloudevents", "url": site.hook, "colour": 1 }), "colour"),
        (json!({ "kind": "cloudevents", "url": site.hook, "key": "k" }), "key"),
        (json!({ "kind": "cloudevents" }), "url"),
        (json!({ "kind": "pigeon", "url": site.hook }), "kind"),
        (json!({ "kind": "aws-sns", "url": site.hook }), "topicArn"),
    ] {
        let (status, answer) = site.post("/sim/v1/subscriptions", &order).await;
        assert_eq!((status, answer["field"].as_str()), (400, Some(field)), "{order}: {answer}");
        let (status, answer) = site.post("/sim/v1/world", &json!({ "subscriptions": [order] })).await;
        assert!(status == 400 && answer["error"].as_str().unwrap().contains(field), "{order}: {answer}");
    }
    turn(&site, &demo_key("GCP", "analytics-prod", 9, 3), "enabled").await;
    site.seen(1).await;
    let wait = async {
        loop {
            let notes: Value = serde_json::from_str(&site.fetch("/sim/v1/emissions").await).unwrap();
            if let Some(note) = notes.get(0) {
                return note.clone();
            }
            tokio::task::yield_now().await;
        }
    };
    let note = tokio::time::timeout(std::time::Duration::from_secs(30), wait).await.unwrap();
    assert_eq!((&note["what"], &note["sent"][0]["delivered"]), (&json!("delivered"), &json!(true)));
}

#[tokio::test]
async fn a_world_that_is_replaced_tells_nothing() {
    let site = Site::new().await;
    let own = json!({ "kind": "azure-event-grid", "url": site.hook });
    let keys = json!({ "https://v.vault.azure.net/keys/k/1": "enabled" });
    let put = |world: Value| {
        site.client.put(format!("{}/sim/v1/world", site.sim.base_url())).body(world.to_string()).send()
    };
    put(json!({ "subscriptions": [own] })).await.unwrap();
    put(json!({ "subscriptions": [own], "keys": keys })).await.unwrap();
    turn(&site, "https://v.vault.azure.net/keys/k/2", "enabled").await;
    assert_eq!(site.seen(1).await[0].json()[0]["data"]["Version"], "2");
}
