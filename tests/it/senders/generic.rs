//! Anybody's own system.

use serde_json::json;

use super::{Site, unbase64, with};
use crate::support::group;

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

#[tokio::test]
async fn the_public_vector_of_standard_webhooks_comes_out() {
    let site = Site::new().await;
    site.clock.set("2022-04-07T21:39:13Z".parse().unwrap());
    let order = json!({
        "secret": SECRET, "id": "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
        "body": r#"{"email":"test@example.com","username":"test_user"}"#,
    });
    let seen = site.one("standard", order.clone()).await;
    assert_eq!(seen.header("webhook-timestamp"), Some("1649367553"));
    assert_eq!(seen.header("webhook-id"), Some("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk"));
    let good = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";
    assert_eq!(seen.header("webhook-signature"), Some(good));
    let both = site.one("standard", with(&order, json!({ "previousSecret": SECRET }))).await;
    assert_eq!(both.header("webhook-signature"), Some(format!("{good} {good}").as_str()));
    for forge in ["signature", "stranger", "expired", "early"] {
        let seen = site.one("standard", with(&order, json!({ "forge": forge }))).await;
        let signature = seen.header("webhook-signature").unwrap();
        assert_ne!(signature, good, "{forge}");
        assert_eq!(unbase64(signature.strip_prefix("v1,").unwrap()).len(), 32);
        let is_now = seen.header("webhook-timestamp") == Some("1649367553");
        assert_eq!(is_now, !["expired", "early"].contains(&forge), "{forge}");
    }
    assert_eq!(
        site.one("standard", with(&order, json!({ "forge": "unsigned" }))).await.header("webhook-signature"),
        None
    );
}

#[tokio::test]
async fn a_rotation_is_asked_for_in_either_envelope() {
    let site = Site::new().await;
    let order = json!({ "secret": SECRET, "groupId": group(1), "key": "k", "reason": "quarterly" });
    let data = json!({ "groupId": group(1), "newKey": "k", "reason": "quarterly" });
    let body = site.one("standard", order.clone()).await.json();
    assert_eq!((&body["type"], &body["data"]), (&json!("io.keywheel.rotation.requested.v1"), &data));
    let seen = site.one("standard", with(&order, json!({ "envelope": "cloudevents" }))).await;
    assert_eq!(seen.header("content-type"), Some("application/cloudevents+json"));
    let body = seen.json();
    assert_eq!((body["id"].as_str(), &body["data"]), (seen.header("webhook-id"), &data));
}

#[tokio::test]
async fn cloud_events_come_in_three_modes() {
    let site = Site::new().await;
    let order = json!({ "groupId": group(1), "source": "/täglich \"jobs\"", "token": "t0ken" });
    let seen = site.one("cloudevents", with(&order, json!({ "mode": "binary" }))).await;
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-type", "io.keywheel.rotation.requested.v1"),
        ("ce-source", "/t%C3%A4glich%20%22jobs%22"),
        ("ce-time", "2026-11-20T03:12:45.103Z"),
        ("content-type", "application/json"),
        ("authorization", "Bearer t0ken"),
    ] {
        assert_eq!(seen.header(name), Some(value));
    }
    assert_eq!((seen.json(), seen.header("ce-datacontenttype")), (json!({ "groupId": group(1) }), None));
    let seen = site.one("cloudevents", order.clone()).await;
    assert_eq!(seen.header("content-type"), Some("application/cloudevents+json; charset=utf-8"));
    assert_eq!((&seen.json()["source"], seen.header("ce-id")), (&json!("/täglich \"jobs\""), None));
    let seen = site.one("cloudevents", with(&order, json!({ "mode": "batch", "count": 3 }))).await;
    assert_eq!(seen.header("content-type"), Some("application/cloudevents-batch+json; charset=utf-8"));
    assert_eq!(seen.json().as_array().unwrap().len(), 3);
    let seen = site.one("cloudevents", with(&order, json!({ "dataBase64": true }))).await.json();
    assert!(seen["data"].is_null());
    assert_eq!(
        unbase64(seen["data_base64"].as_str().unwrap()),
        json!({ "groupId": group(1) }).to_string().into_bytes()
    );
    let seen = site.one("cloudevents", with(&order, json!({ "forge": "signature" }))).await;
    assert_eq!(seen.header("authorization"), Some("Bearer t0kex"));
}
