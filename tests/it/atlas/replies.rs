//! Bad replies: what each means for a reading and for a change of key.

use std::time::Duration;

use keywheel::config::PatchBody;
use keywheel::domain::rotation::outcome::{Class, Failure, PatchReply};

use super::fake::{Fake, GENEROUS, Step, bytes, close, gzip_bomb, hang, ok, refusal, reply};
use super::{ARN, build, client, enabled};
use crate::support::wait::Stopwatch;

const HTML: &str = "<html><body><h1>502 Bad Gateway</h1></body></html>";

async fn read(step: Step) -> Failure {
    let fake = Fake::start([step]).await;
    client(&fake).observe().await.unwrap_err()
}

async fn change(step: Step) -> PatchReply {
    let fake = Fake::start([step]).await;
    let reply = client(&fake).set_key().await;
    assert_eq!(fake.calls().len(), 1, "one call is one PATCH");
    reply
}

fn cut(whole: &[u8], by: usize) -> Vec<u8> {
    whole[..whole.len() - by].to_vec()
}

#[tokio::test]
async fn a_reading_that_is_no_configuration_is_no_reading() {
    let gzip = "Content-Encoding: gzip\r\n";
    let text = enabled(ARN);
    for (step, words) in [
        (reply(200, "Content-Type: text/html\r\n", HTML), "not JSON"),
        (ok(""), "not JSON"),
        (reply(204, "", ""), "not JSON"),
        (ok("{}"), "names no provider"),
        (ok("[]"), "no encryption configuration"),
        (ok(r#"{"awsKms":"on"}"#), "awsKms"),
        (ok(r#"{"awsKms":{"enabled":"true"}}"#), "enabled"),
        (ok(r#"{"awsKms":{"enabled":true,"valid":"yes"}}"#), "valid"),
        (ok(r#"{"awsKms":{"enabled":true,"customerMasterKeyID":7}}"#), "customerMasterKeyID"),
        (Step::Bytes(cut(&bytes(200, "", &text), 9)), "connection closed before the reply was complete"),
        (reply(200, "", vec![b' '; 2 << 20]), "larger than 1 MiB"),
        (reply(200, gzip, gzip_bomb(64 << 20)), "larger than 1 MiB"),
        (reply(200, gzip, &text), "cannot be decoded"),
        (Step::Bytes(cut(&bytes(200, gzip, gzip_bomb(4096)), 12)), "closed"),
    ] {
        let failure = read(step).await;
        assert_eq!(failure.class, Class::Unknown, "{words}: {failure:?}");
        assert!(failure.detail.contains(words), "{words}: {failure:?}");
    }
}

#[tokio::test]
async fn a_reply_that_never_comes_ends_in_time() {
    let slow = || Step::ThenHang(cut(&bytes(200, "", enabled(ARN)), 9));
    for (step, words) in [(hang(), "no reply within 1s"), (slow(), "not complete within 1s")] {
        let fake = Fake::start([step]).await;
        let setup = build(&fake.url, 9, PatchBody::KeyOnly, Duration::from_secs(1));
        let started = Stopwatch::start();
        let failure = setup.observe().await.unwrap_err();
        assert_eq!(failure.class, Class::Unknown);
        assert!(failure.detail.contains(words), "{failure:?}");
        assert!(started.elapsed() < GENEROUS / 2);
    }
}

#[tokio::test]
async fn a_call_ends_at_its_own_deadline_too() {
    let fake = Fake::start([hang()]).await;
    let setup = client(&fake);
    let group = super::group();
    let failure = setup.atlas.observe("default", &group, Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(failure.class, Class::Unknown);
    let failure = setup.atlas.observe("default", &group, Duration::ZERO).await.unwrap_err();
    assert_eq!(failure.class, Class::Transient);
    assert_eq!(fake.calls().len(), 1, "without time nothing is sent");
}

#[tokio::test]
async fn any_success_means_that_atlas_took_the_change() {
    let whole = bytes(200, "", enabled(ARN));
    for step in [
        ok(&enabled(ARN)),
        reply(202, "", ""),
        reply(200, "Content-Type: text/html\r\n", HTML),
        Step::Bytes(cut(&whole, 5)),
        Step::ThenHang(cut(&whole, 5)),
        reply(200, "Content-Encoding: gzip\r\n", "no gzip"),
    ] {
        assert_eq!(change(step).await, PatchReply::Accepted);
    }
}

#[tokio::test]
async fn a_change_without_a_definite_answer_is_unknown() {
    let plain = bytes(400, "", r#"{"errorCode":"ATTRIBUTE_READ_ONLY","error":400}"#);
    for step in [
        close(),
        Step::Bytes(b"HTTP/1.1 20".to_vec()),
        Step::Bytes(b"SMTP ready\r\n\r\n".to_vec()),
        refusal(500, "UNEXPECTED_ERROR"),
        reply(502, "Content-Type: text/html\r\n", HTML),
        reply(504, "", ""),
        reply(400, "Content-Type: text/html\r\n", HTML),
        reply(404, "Content-Type: text/html\r\n", HTML),
        reply(408, "", ""),
        refusal(409, "CLUSTER_UPDATE_IN_PROGRESS"),
        Step::Bytes(cut(&plain, 5)),
    ] {
        let reply = change(step).await;
        assert!(matches!(reply, PatchReply::Unknown(_)), "{reply:?}");
    }
}

#[tokio::test]
async fn a_silent_change_is_unknown_and_a_refused_connection_is_not_taken() {
    let fake = Fake::start([ok(&enabled(ARN)), hang()]).await;
    let setup = build(&fake.url, 9, PatchBody::KeyOnly, Duration::from_secs(1));
    setup.observe().await.unwrap();
    let PatchReply::Unknown(failure) = setup.set_key().await else { panic!("a silent change was settled") };
    assert_eq!(failure.detail, "no reply within 1s");

    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let PatchReply::NotTaken(failure) = client_at(&url).set_key().await else { panic!("nobody was there") };
    assert!(failure.detail.contains("could not connect to 127.0.0.1"), "{failure:?}");
}

fn client_at(url: &str) -> super::Setup {
    build(url, 9, PatchBody::KeyOnly, GENEROUS)
}

#[tokio::test]
async fn atlas_refusals_keep_its_words_and_their_class() {
    for (status, code, class) in [
        (400, "ENCRYPTION_AT_REST_SETTINGS_INVALID", Class::Refused),
        (404, "AWS_CUSTOMER_MASTER_KEY_NOT_FOUND", Class::BadKey),
        (400, "AZURE_KEY_VAULT_KEY_EXPIRING", Class::BadKey),
        (400, "MISSING_ATTRIBUTE", Class::Config),
        (409, "CANNOT_ROTATE_KEY_ENCRYPTION_DISABLED", Class::Config),
    ] {
        let PatchReply::Refused(failure) = change(refusal(status, code)).await else { panic!("{code}") };
        assert_eq!((failure.class, failure.status), (class, Some(status)), "{code}");
        assert_eq!(failure.code.as_deref(), Some(code));
        assert_eq!(failure.detail, format!("Words of {code}."));
    }
}

#[tokio::test]
async fn what_atlas_did_not_look_at_was_not_taken() {
    for (step, wait) in [
        (
            reply(429, "Retry-After: 17\r\n", r#"{"errorCode":"RATE_LIMITED_TOKEN_BUCKET","error":429}"#),
            Some(17),
        ),
        (reply(429, "Retry-After: Mon, 23 Nov 2026 12:00:30 GMT\r\n", HTML), Some(30)),
        (reply(429, "", ""), None),
        (refusal(405, "WRITES_NOT_ALLOWED_DURING_APP_UPGRADES"), None),
        (refusal(400, "GOOGLE_CLOUD_KMS_KEY_VERSION_PENDING_GENERATION"), None),
        (refusal(403, "CANNOT_ASSUME_ROLE"), None),
    ] {
        let PatchReply::NotTaken(failure) = change(step).await else { panic!("{wait:?}") };
        assert_eq!(failure.class, Class::Transient);
        assert_eq!(failure.retry_after.map(|span| span.get().as_secs()), wait);
    }
}

#[tokio::test]
async fn a_missing_right_and_a_missing_project_are_told_apart() {
    for step in [refusal(403, "IP_ADDRESS_NOT_ON_ACCESS_LIST"), refusal(401, "NOT_IN_GROUP")] {
        assert!(matches!(change(step).await, PatchReply::Auth(_)));
    }
    assert!(matches!(change(refusal(404, "GROUP_NOT_FOUND")).await, PatchReply::Gone(_)));
    for step in
        [refusal(410, "VERSION_GONE"), refusal(406, "NOT_ACCEPTABLE"), refusal(400, "INVALID_VERSION_DATE")]
    {
        assert!(
            matches!(change(step).await, PatchReply::NotTaken(failure) if failure.class == Class::TooOld)
        );
    }
    let by_header = reply(404, "X-Error-Code: GROUP_NOT_FOUND\r\n", "");
    let PatchReply::Gone(failure) = change(by_header).await else { panic!("the header was not read") };
    assert_eq!(failure.code.as_deref(), Some("GROUP_NOT_FOUND"));
    assert_eq!(read(refusal(404, "GROUP_NOT_FOUND")).await.class, Class::Gone);
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_its_address_is_shown_without_its_secrets() {
    let elsewhere = Fake::start([ok(&enabled(ARN))]).await;
    let step = || {
        let to = elsewhere.url.replace("http://", "http://me:hunter2@");
        reply(307, &format!("Location: {to}/api?token=hunter2\r\n"), "")
    };
    let failure = read(step()).await;
    assert_eq!((failure.class, failure.status), (Class::Config, Some(307)));
    assert!(
        failure.detail.contains("http://127.0.0.1") && !failure.detail.contains("hunter2"),
        "{failure:?}"
    );
    let PatchReply::Refused(failure) = change(step()).await else {
        panic!("a redirect was taken for an answer")
    };
    assert_eq!(failure.class, Class::Config);
    assert!(elsewhere.calls().is_empty());
}
