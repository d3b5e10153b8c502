//! Orders: what they take, what they refuse, and how deliveries are spoilt.

use serde_json::{Value, json};

use super::{Site, with};
use crate::support::group;

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

#[tokio::test]
async fn what_cannot_be_understood_names_its_field() {
    let site = Site::new().await;
    let atlas = json!({ "event": "X", "groupId": group(1) });
    for (kind, fields, field, word) in [
        ("pigeon", json!({}), "kind", "aws-sns"),
        ("atlas", json!({ "event": "X" }), "groupId", "missing"),
        ("atlas", with(&atlas, json!({ "colour": 1 })), "colour", "unknown field"),
        ("atlas", with(&atlas, json!({ "secret": 1 })), "secret", "string"),
        ("atlas", with(&atlas, json!({ "action": "sing" })), "action", "acknowledge"),
        ("atlas", with(&atlas, json!({ "url": "ftp://127.0.0.1" })), "url", "http"),
        ("atlas", with(&atlas, json!({ "url": "nowhere" })), "url", "relative URL"),
        ("atlas", with(&atlas, json!({ "count": 0 })), "count", "1 to 5000"),
        ("atlas", with(&atlas, json!({ "count": "two" })), "count", "u32"),
        ("atlas", with(&atlas, json!({ "tries": 99 })), "tries", "1 to 30"),
        ("atlas", with(&atlas, json!({ "replay": 5001 })), "replay", "at most 5000"),
        ("atlas", with(&atlas, json!({ "oversize": 1_000_000, "count": 100 })), "oversize", "together"),
        (
            "atlas",
            with(&atlas, json!({ "forge": "alg-none", "secret": "s" })),
            "forge",
            "signature, unsigned",
        ),
        ("atlas", with(&atlas, json!({ "forge": "signature" })), "forge", "proves nothing"),
        (
            "aws-eventbridge",
            json!({ "event": "DisableKey", "key": "k", "forge": "signature" }),
            "forge",
            "proves nothing",
        ),
        ("azure-event-grid", json!({ "key": "k", "forge": "unsigned" }), "forge", "proves nothing"),
        ("cloudevents", json!({ "forge": "signature" }), "forge", "proves nothing"),
        ("gcp-pubsub", json!({ "key": "k", "forge": "kid" }), "forge", "proves nothing"),
        (
            "aws-sns",
            json!({ "topicArn": "t", "message": "m", "rawDelivery": true, "forge": "topic" }),
            "forge",
            "proves nothing",
        ),
        ("atlas", with(&atlas, json!({ "forge": "magic" })), "forge", "alg-none"),
        ("standard", json!({ "secret": "plain" }), "secret", "whsec_"),
        ("standard", json!({ "secret": "whsec_%%" }), "secret", "Base64"),
        ("standard", json!({ "secret": SECRET, "previousSecret": "x" }), "previousSecret", "whsec_"),
        ("azure-event-grid", json!({}), "key", "key version"),
        ("azure-event-grid", json!({ "key": "k" }), "key", "vault.azure.net"),
        ("azure-event-grid", json!({ "key": "k", "event": "Sneeze" }), "event", "KeyExpired"),
        ("azure-event-grid", json!({ "key": "k", "entra": { "tenantId": "t" } }), "entra", "audience"),
        ("aws-sns", json!({ "event": "DisableKey", "key": "k" }), "topicArn", "missing"),
        (
            "aws-sns",
            json!({ "topicArn": "t", "event": "SubscriptionConfirmation", "key": "k" }),
            "key",
            "nothing happened",
        ),
        ("aws-sns", json!({ "topicArn": "t" }), "event", "missing"),
    ] {
        site.refused(kind, fields, field, word).await;
    }
    let reply =
        site.client.post(format!("{}/sim/v1/emit", site.sim.base_url())).body("[1").send().await.unwrap();
    assert_eq!(reply.status(), 400);
}

#[tokio::test]
async fn an_answer_tells_what_the_receiver_said() {
    let site = Site::new().await;
    site.answer(422, &[("x-note", "seen")], "not today");
    let (sent, seen) = site.emit("standard", json!({ "secret": SECRET })).await;
    let attempt = &sent[0]["attempts"][0];
    assert_eq!((&attempt["status"], &attempt["body"]), (&json!(422), &json!("not today")));
    assert_eq!((&attempt["headers"]["x-note"], &sent[0]["delivered"]), (&json!("seen"), &json!(false)));
    assert_eq!(sent[0]["id"].as_str(), seen[0].header("webhook-id"));
    let secret = json!({ "secret": SECRET, "url": "http://127.0.0.1:9/hooks?code=canary" });
    let (sent, _) = site.emit("standard", secret).await;
    let error = sent[0]["attempts"][0]["error"].as_str().unwrap();
    assert!(!error.is_empty() && !error.contains("canary"), "{error}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let site = Site::new().await;
    site.answer(307, &[("location", &format!("{}/elsewhere", site.hook))], "");
    let (sent, seen) = site.emit("standard", json!({ "secret": SECRET })).await;
    assert_eq!((seen.len(), &sent[0]["attempts"][0]["status"]), (1, &json!(307)));
}

#[tokio::test]
async fn a_replay_is_the_same_and_a_duplicate_is_proved_anew() {
    let site = Site::new().await;
    let google = json!({
        "key": "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/7", "email": "push@example.com",
    });
    let (sent, seen) = site.emit("gcp-pubsub", with(&google, json!({ "replay": 2 }))).await;
    assert_eq!((seen.len(), sent.as_array().unwrap().len()), (3, 3));
    assert!(seen.iter().all(|it| it.body == seen[0].body && it.headers == seen[0].headers));
    let (_, seen) = site.emit("gcp-pubsub", with(&google, json!({ "duplicate": true, "count": 2 }))).await;
    let ids: Vec<Value> = seen.iter().map(|it| it.json()["message"]["messageId"].clone()).collect();
    assert!(ids[0] == ids[1] && ids[1] != ids[2] && ids[2] == ids[3], "{ids:?}");
}

#[tokio::test]
async fn events_can_come_in_the_wrong_order_cut_or_swollen() {
    let site = Site::new().await;
    let google = json!({ "key": "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/7" });
    let (_, seen) = site.emit("gcp-pubsub", with(&google, json!({ "shuffle": true, "count": 3 }))).await;
    let ids: Vec<String> = seen.iter().map(|it| it.json()["message"]["messageId"].to_string()).collect();
    assert!(ids[0] > ids[1] && ids[1] > ids[2], "{ids:?}");
    let whole = site.one("gcp-pubsub", google.clone()).await;
    let cut = site.one("gcp-pubsub", with(&google, json!({ "truncate": true }))).await;
    assert_eq!(cut.body.len(), whole.body.len() / 2);
    assert!(serde_json::from_slice::<Value>(&cut.body).is_err());
    // A swollen body is genuine: what is signed is what is sent.
    let order = json!({ "event": "X", "groupId": group(1), "secret": "s", "oversize": 300_000 });
    let seen = site.one("atlas", order).await;
    assert_eq!((seen.body.len(), &seen.json()["eventTypeName"]), (300_000, &json!("X")));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"s");
    let tag = super::unbase64(seen.header("x-mms-signature").unwrap());
    aws_lc_rs::hmac::verify(&key, &seen.body, &tag).unwrap();
}
