//! Faults: what each kind does on the wire and to the world, and headers that are odd or missing.

use std::io::Read as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::Site;
use crate::support::wait::{LIMIT, Stopwatch, eventually};
use crate::support::{group, new_key, old_key};

fn new() -> String {
    format!(r#"{{"awsKms":{{"customerMasterKeyID":"{}"}}}}"#, new_key())
}

async fn struck(operation: &str, kind: Value) -> Site {
    let site = Site::new().await;
    let fault = json!({"operation": operation, "times": 1, "kind": kind});
    site.control("POST /sim/v1/faults", &fault.to_string()).await;
    site
}

fn held(site: &Site) -> String {
    site.sim.with(|world| world.projects[&group(1)].key())
}

/// Status and whether it took effect, of the last request in the log.
fn logged(site: &Site) -> (Option<u16>, bool) {
    let log = site.sim.log();
    let last = log.last().unwrap();
    assert_eq!(last.replied_at.is_some(), last.status.is_some());
    (last.status, last.applied_at.is_some())
}

#[tokio::test]
async fn a_dropped_request_has_no_effect_and_no_reply() {
    let site = struck("patch_ear", json!("drop_request")).await;
    assert!(site.try_patch(1, &new()).await.is_none());
    assert_eq!((held(&site), logged(&site)), (old_key(), (None, false)));
    assert_eq!(site.patch(1, &new()).await.status, 200);
}

#[tokio::test]
async fn a_dropped_reply_has_its_effect() {
    let site = struck("patch_ear", json!("drop_reply")).await;
    assert!(site.try_patch(1, &new()).await.is_none());
    assert_eq!((held(&site), logged(&site).1), (new_key(), true));
}

#[tokio::test]
async fn a_delayed_request_is_answered_later() {
    let site = struck("patch_ear", json!({"delay": 300})).await;
    let before = Stopwatch::start();
    assert_eq!(site.patch(1, &new()).await.status, 200);
    assert!(before.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_late_effect_comes_after_the_connection_was_cut() {
    let site = struck("patch_ear", json!({"late_apply": 200})).await;
    assert!(site.try_patch(1, &new()).await.is_none());
    assert_eq!((held(&site), logged(&site)), (old_key(), (None, false)));
    let applied = eventually(LIMIT, async || (held(&site) != old_key()).then_some(()));
    applied.await.expect("it was never applied");
    assert_eq!(logged(&site), (None, true));
}

#[tokio::test]
async fn a_scripted_status_has_no_effect() {
    let kind = json!({"status": {"status": 429, "code": "RATE_LIMITED", "retry_after": 7}});
    let site = struck("patch_ear", kind).await;
    let reply = site.patch(1, &new()).await;
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("7")));
    assert_eq!(reply.json()["errorCode"], "RATE_LIMITED");
    assert_eq!((held(&site), logged(&site)), (old_key(), (Some(429), false)));
}

#[tokio::test]
async fn a_scripted_status_without_a_code_is_a_page() {
    let site = struck("patch_ear", json!({"status": {"status": 502}})).await;
    let reply = site.patch(1, &new()).await;
    assert_eq!((reply.status, reply.header("content-type")), (502, Some("text/html")));
    assert!(reply.text().starts_with("<html>"));
}

#[tokio::test]
async fn an_applied_status_has_its_effect() {
    let site = struck("patch_ear", json!({"applied_status": 503})).await;
    assert_eq!(site.patch(1, &new()).await.status, 503);
    assert_eq!((held(&site), logged(&site)), (new_key(), (Some(503), true)));
}

#[tokio::test]
async fn a_truncated_reply_promises_more_than_it_brings() {
    let site = struck("get_ear", json!("truncate")).await;
    let reply = site.of_group("/encryptionAtRest").await;
    let promised: usize = reply.header("content-length").unwrap().parse().unwrap();
    assert_eq!((reply.status, reply.body.len()), (200, promised / 2));
    assert!(reply.body.starts_with(b"{"));
}

#[tokio::test]
async fn a_huge_reply_is_as_long_as_asked_and_says_the_same() {
    let site = struck("get_ear", json!({"huge": 3_000_000})).await;
    let reply = site.of_group("/encryptionAtRest").await;
    assert_eq!((reply.body.len(), reply.header("content-length")), (3_000_000, Some("3000000")));
    assert_eq!(reply.json()["awsKms"]["customerMasterKeyID"], old_key());
}

#[tokio::test]
async fn a_gzip_bomb_is_small_and_unfolds() {
    let site = struck("get_ear", json!({"gzip_bomb": 8_000_000})).await;
    let reply = site.of_group("/encryptionAtRest").await;
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    assert!(reply.body.len() < 100_000, "{} bytes", reply.body.len());
    let mut text = String::new();
    flate2::read::GzDecoder::new(&reply.body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text.len(), 8_000_000);
    assert!(text.contains(&old_key()));
}

#[tokio::test]
async fn a_person_can_come_between_two_calls() {
    let site = struck("get_ear", json!({"human_edit": new_key()})).await;
    assert_eq!(site.encryption(1).await["awsKms"]["customerMasterKeyID"], new_key());
    let events = site.of_group("/events").await.json();
    assert_eq!(events["results"][0]["eventTypeName"], "AWS_ENCRYPTION_KEY_ROTATED");
    assert!(events["results"][0]["username"].is_string());
}

#[tokio::test]
async fn a_fault_waits_for_its_turn_its_project_and_a_log_in() {
    let site = Site::new().await;
    let fault = json!({
        "operation": "any", "groupId": group(1), "skip": 1, "times": 2, "kind": {"status": {"status": 500}},
    });
    site.control("POST /sim/v1/faults", &fault.to_string()).await;
    assert_eq!(site.get(&format!("/groups/{}", group(2))).await.status, 200);
    let line = format!("GET /api/atlas/v2/groups/{}", group(1));
    assert_eq!(site.ask(&line, &[], "").await.unwrap().status, 401);
    for status in [200, 500, 500, 200] {
        assert_eq!(site.of_group("").await.status, status);
    }
}

#[tokio::test]
async fn a_fault_of_the_token_endpoint() {
    let site = struck("token", json!({"status": {"status": 503}})).await;
    assert_eq!(site.ask_token(super::BASIC, "grant_type=client_credentials").await.status, 503);
    site.token().await;
}

#[tokio::test]
async fn dates_can_lack_their_zero() {
    let site = Site::new().await;
    site.control("POST /sim/v1/world", r#"{"odd":{"unpaddedDates":true}}"#).await;
    assert_eq!(site.of_group("").await.header("date"), Some("Sun, 1 Mar 2026 12:00:00 GMT"));
}

#[tokio::test]
async fn headers_can_be_missing() {
    let site = Site::new().await;
    let odd = r#"{"odd":{"omitHeaders":["date","content-type","x-error-code","ratelimit-remaining"]},
        "rateLimits":{"groups":{"capacity":9,"refill":9}}}"#;
    site.control("POST /sim/v1/world", odd).await;
    let reply = site.of_group("").await;
    assert_eq!((reply.status, reply.header("ratelimit-limit")), (200, Some("9")));
    for name in ["date", "content-type", "ratelimit-remaining"] {
        assert_eq!(reply.header(name), None, "{}", reply.head);
    }
    let reply = site.get("/groups/nonsense").await;
    assert_eq!((reply.status, reply.header("x-error-code")), (404, None));
}

#[tokio::test]
async fn a_connection_goes_on_after_a_reply_and_not_after_a_cut() {
    let site = Site::new().await;
    let get = "GET /sim/v1/faults HTTP/1.1\r\nHost: sim.example\r\n\r\n";
    let last = get.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let both = site.send(&format!("{get}{last}")).await.unwrap();
    assert!(both.text().contains("HTTP/1.1 200 OK"), "{}", both.text());
    let fault = json!({"operation": "token", "times": 1, "kind": "drop_reply"});
    site.control("POST /sim/v1/faults", &fault.to_string()).await;
    let form = "grant_type=client_credentials";
    let token = format!(
        "POST /api/oauth/token HTTP/1.1\r\nHost: sim.example\r\nAuthorization: Basic {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        super::BASIC,
        form.len()
    );
    assert!(site.send(&format!("{token}{last}")).await.is_none());
}
