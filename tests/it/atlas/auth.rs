//! Tokens: how they are asked for, how long they serve, and what a 401 does.

use std::time::Duration;

use keywheel::config::PatchBody;
use keywheel::domain::rotation::outcome::{Class, PatchReply};

use super::fake::{Fake, GENEROUS, hang, ok, refusal, reply};
use super::{ARN, SECRET, build, client, enabled, group};

fn readings(count: usize) -> Vec<super::fake::Step> {
    (0..count).map(|_| ok(&enabled(ARN))).collect()
}

/// A 401 as Atlas sends it: it carries no useful code.
fn unauthorized() -> super::fake::Step {
    refusal(401, "UNEXPECTED_ERROR")
}

#[tokio::test]
async fn the_token_request_is_as_documented() {
    let fake = Fake::start(readings(1)).await;
    client(&fake).observe().await.unwrap();
    assert_eq!(
        fake.token_calls(),
        ["POST /api/oauth/token HTTP/1.1\r\n\
          authorization: Basic bWRiX3NhX2lkXzE6bWRiX3NhX3NrX2NhbmFyeQ==\r\n\
          accept: application/json\r\n\
          content-type: application/x-www-form-urlencoded\r\n\
          user-agent: keywheel/0.1.0\r\n\
          accept-encoding: gzip\r\n\
          host: HOST\r\n\
          content-length: 29\r\n\
          \r\n\
          grant_type=client_credentials"]
    );
}

#[tokio::test]
async fn a_token_serves_many_calls_and_is_replaced_at_four_fifths_of_its_life() {
    let fake = Fake::start(readings(4)).await;
    let setup = client(&fake);
    setup.observe().await.unwrap();
    setup.clock.advance(Duration::from_secs(2879));
    setup.observe().await.unwrap();
    assert_eq!(fake.token_calls().len(), 1);
    setup.clock.advance(Duration::from_secs(1));
    setup.observe().await.unwrap();
    setup.observe().await.unwrap();
    assert_eq!(fake.token_calls().len(), 2);
    let calls = fake.calls();
    assert!(calls[1].contains("authorization: Bearer tok-1\r\n"), "{}", calls[1]);
    assert!(calls[3].contains("authorization: Bearer tok-2\r\n"), "{}", calls[3]);
}

#[tokio::test]
async fn calls_at_the_same_time_share_one_token_request() {
    let fake = Fake::start(readings(20)).await;
    let setup = client(&fake);
    let calls = (0..20).map(|_| setup.observe());
    assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!(fake.token_calls().len(), 1);
}

#[tokio::test]
async fn a_token_that_is_due_goes_on_serving_while_no_new_one_can_be_had() {
    let fake = Fake::start(readings(3)).await;
    let setup = client(&fake);
    setup.observe().await.unwrap();
    setup.clock.advance(Duration::from_mins(50));
    fake.script_tokens([reply(503, "", "")]);
    setup.observe().await.unwrap();
    setup.observe().await.unwrap();
    assert_eq!(fake.token_calls().len(), 2, "not asked again with every call");
    assert!(fake.calls().iter().all(|call| call.contains("Bearer tok-1")));
}

#[tokio::test]
async fn a_401_gets_one_new_token_and_one_repetition() {
    let fake = Fake::start([unauthorized(), ok(&enabled(ARN))]).await;
    client(&fake).observe().await.unwrap();
    let calls = fake.calls();
    assert!(calls[0].contains("Bearer tok-1") && calls[1].contains("Bearer tok-2"));
    assert_eq!(fake.token_calls().len(), 2);
}

#[tokio::test]
async fn a_second_401_is_final_and_uses_up_no_more_tokens() {
    let fake = Fake::start((0..20).map(|_| unauthorized())).await;
    let setup = client(&fake);
    for _ in 0..5 {
        let failure = setup.observe().await.unwrap_err();
        assert_eq!((failure.class, failure.status), (Class::Auth, Some(401)));
    }
    assert!(matches!(setup.set_key().await, PatchReply::Auth(_)));
    assert_eq!(fake.token_calls().len(), 2);
    setup.clock.advance(Duration::from_mins(1));
    setup.observe().await.unwrap_err();
    assert_eq!(fake.token_calls().len(), 3, "after a minute it may try again");
}

#[tokio::test]
async fn a_401_about_the_project_is_not_answered_with_a_new_token() {
    for code in ["USER_CANNOT_ACCESS_GROUP", "NOT_IN_GROUP", "USER_UNAUTHORIZED"] {
        let fake = Fake::start([refusal(401, code)]).await;
        let failure = client(&fake).observe().await.unwrap_err();
        assert_eq!((failure.class, failure.code.as_deref()), (Class::Auth, Some(code)));
        assert_eq!((fake.calls().len(), fake.token_calls().len()), (1, 1));
    }
}

#[tokio::test]
async fn a_used_up_budget_sends_nothing_and_says_when_there_is_room() {
    let fake = Fake::start([]).await;
    let setup = build(&fake.url, 0, PatchBody::KeyOnly, GENEROUS);
    let failure = setup.observe().await.unwrap_err();
    assert_eq!(failure.class, Class::Transient);
    assert_eq!(failure.retry_after.unwrap().get(), Duration::from_secs(42));
    assert!(failure.detail.contains("2026-11-23T12:00:41"), "{}", failure.detail);
    assert!(matches!(setup.set_key().await, PatchReply::NotTaken(_)));
    assert!(fake.calls().is_empty() && fake.token_calls().is_empty());
}

#[tokio::test]
async fn a_refused_login_is_an_authentication_failure_in_atlas_words() {
    let invalid = r#"{"error":"invalid_client","error_description":"Invalid credentials provided."}"#;
    let grant = r#"{"error":"invalid_grant","error_description":""}"#;
    for (status, body, words) in [
        (401, invalid, "Invalid credentials provided."),
        (400, grant, "Atlas answered 400 invalid_grant"),
        (403, "<html>", "Atlas answered 403"),
    ] {
        let fake = Fake::start([]).await;
        fake.script_tokens([reply(status, "", body), reply(status, "", body)]);
        let setup = client(&fake);
        let failure = setup.observe().await.unwrap_err();
        assert_eq!((failure.class, failure.status), (Class::Auth, Some(status)));
        assert!(failure.detail.contains(words) && !failure.detail.contains(SECRET), "{}", failure.detail);
        assert!(matches!(setup.set_key().await, PatchReply::Auth(_)));
        assert!(fake.calls().is_empty());
    }
}

#[tokio::test]
async fn too_many_living_tokens_pass_and_are_told_in_atlas_words() {
    let fake = Fake::start([]).await;
    let denied = r#"{"error":"access_denied","error_description":"Too many tokens."}"#;
    fake.script_tokens([reply(403, "", denied), reply(403, "", denied)]);
    let setup = client(&fake);
    let failure = setup.observe().await.unwrap_err();
    assert_eq!((failure.class, failure.status), (Class::Transient, Some(403)));
    assert_eq!(failure.code.as_deref(), Some("access_denied"));
    assert_eq!(failure.detail, "no token for the credential \"default\": Too many tokens.");
    assert!(matches!(setup.set_key().await, PatchReply::NotTaken(_)));
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn no_token_is_asked_for_before_the_time_that_retry_after_names() {
    let fake = Fake::start(readings(1)).await;
    fake.script_tokens([reply(429, "Retry-After: 90\r\n", r#"{"error":"slow_down"}"#)]);
    let setup = client(&fake);
    for passed in [0, 60, 29] {
        setup.clock.advance(Duration::from_secs(passed));
        let failure = setup.observe().await.unwrap_err();
        assert_eq!((failure.class, failure.status), (Class::Transient, Some(429)));
        assert!(failure.detail.contains("Atlas answered 429 slow_down"), "{}", failure.detail);
        assert!(failure.retry_after.unwrap().get() <= Duration::from_secs(91));
    }
    assert_eq!(fake.token_calls().len(), 1);
    setup.clock.advance(Duration::from_secs(1));
    setup.observe().await.unwrap();
    assert_eq!(fake.token_calls().len(), 2);
}

#[tokio::test]
async fn calls_at_the_same_time_share_a_failed_token_request_too() {
    let fake = Fake::start(readings(1)).await;
    fake.script_tokens([reply(500, "", "<html>")]);
    let setup = client(&fake);
    let calls = (0..20).map(|_| setup.observe());
    assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_err));
    assert_eq!(fake.token_calls().len(), 1);
    setup.observe().await.unwrap();
    assert_eq!(fake.token_calls().len(), 2, "a later caller asks again");
}

#[tokio::test]
async fn a_token_serves_to_its_end_and_not_beyond_while_none_can_be_had() {
    let fake = Fake::start(readings(9)).await;
    let setup = client(&fake);
    setup.observe().await.unwrap();
    let denied = || reply(403, "", r#"{"error":"access_denied"}"#);
    fake.script_tokens((0..9).map(|_| denied()));
    for at in [2880, 3599] {
        setup.clock.set(super::noon() + Duration::from_secs(at));
        setup.observe().await.unwrap();
    }
    setup.clock.set(super::noon() + Duration::from_secs(3600));
    assert_eq!(setup.observe().await.unwrap_err().class, Class::Transient);
    assert!(fake.calls().iter().all(|call| call.contains("Bearer tok-1")));
    assert_eq!(fake.calls().len(), 3);
}

#[tokio::test]
async fn a_token_endpoint_out_of_order_means_that_nothing_was_sent() {
    let steps = || {
        [
            reply(500, "", "<html>"),
            reply(429, "Retry-After: 9\r\n", r#"{"error":"slow_down"}"#),
            super::fake::close(),
            ok("<html>welcome</html>"),
            ok(r#"{"access_token":""}"#),
            ok(r#"{"access_token":"a\nb"}"#),
        ]
    };
    for (read, write) in steps().into_iter().zip(steps()) {
        let fake = Fake::start([]).await;
        fake.script_tokens([read, write]);
        let setup = client(&fake);
        let failure = setup.observe().await.unwrap_err();
        assert_eq!(failure.class, Class::Transient, "{failure:?}");
        assert!(matches!(setup.set_key().await, PatchReply::NotTaken(_)));
        assert!(fake.calls().is_empty());
    }
}

#[tokio::test]
async fn a_silent_token_endpoint_ends_in_time_with_nothing_sent() {
    let fake = Fake::start([]).await;
    fake.script_tokens([hang()]);
    let setup = build(&fake.url, 9, PatchBody::KeyOnly, Duration::from_millis(500));
    let PatchReply::NotTaken(failure) = setup.set_key().await else { panic!("something was sent") };
    assert!(failure.detail.contains("no reply within 500ms"), "{}", failure.detail);
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn an_unknown_credential_is_named() {
    let fake = Fake::start([]).await;
    let failure = client(&fake).atlas.observe("prod", &group(), GENEROUS).await.unwrap_err();
    assert_eq!(failure.class, Class::Auth);
    assert!(failure.detail.contains("[atlas.credentials.prod]"), "{}", failure.detail);
}
