//! Strangers at the API: they are counted, logged within limits and told where it matters, and they take
//! nothing from those who may come in.

use serde_json::Value;

use crate::support::daemon::{Daemon, answer};
use crate::support::wait::{LIMIT, eventually};
use crate::support::{group, new_key};

async fn metric(it: &Daemon, name: &str) -> u64 {
    let text = answer(it.request("GET", "/metrics", "")).await.json;
    let line = text.as_str().unwrap().lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    line.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_senders_are_counted_and_a_revoked_token_is_told_once() {
    let mut it = Daemon::start().await;
    it.restart_with(|text| {
        format!("{text}\n[mail]\nsecurity = [\"sec@example.com\"]\noperators = [\"ops@example.com\"]\n")
    });
    let (ada, gone) = (it.token("ada", "viewer"), it.token("gone", "operator"));
    assert_eq!(it.get(&gone, "/status").await.status, 200);
    assert_eq!(it.cli(&["token", "revoke", "gone"]).code, Some(0));
    for _ in 0..40 {
        assert!(matches!(it.get(&gone, "/status").await.status, 401 | 429));
        assert!(matches!(it.get("kw_unknown", "/status").await.status, 401 | 429));
        assert_eq!(it.get("", "/status").await.problem(401), "unauthenticated");
    }
    for reason in ["revoked-token", "unknown-token", "no-token"] {
        assert_eq!(metric(&it, &format!("keywheel_api_refusals_total{{reason=\"{reason}\"}}")).await, 40);
    }
    let log = it.log.lock().unwrap().clone();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("an API request was refused")).collect();
    assert!((10..=14).contains(&lines.len()), "{} lines", lines.len());
    assert!(
        lines[0].contains("from=127.0.0.1") && lines[0].contains("reason=\"revoked-token\""),
        "{lines:?}"
    );
    for token in [&gone, &ada] {
        assert!(!log.contains(token.as_str()));
    }
    let auditor = it.token("auditor", "auditor,viewer");
    let outbox = it.get(&auditor, "/outbox").await.json;
    let told: Vec<_> = outbox["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["kind"] == "revoked_token_used")
        .collect();
    let [row] = told.as_slice() else { panic!("{outbox:#}") };
    assert_eq!(
        (&row["recipient"], &row["model"]["subject"]),
        (&"sec@example.com".into(), &"token/gone".into())
    );
    assert_eq!((&row["model"]["from"], &row["groupId"]), (&"127.0.0.1".into(), &Value::Null));
    assert_eq!(it.get(&ada, "/status").await.status, 200, "a good token is never slowed down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_the_token_that_opened_it() {
    let it = Daemon::start().await;
    let ada = it.token("ada", "operator,viewer");
    let group = it.add(&ada, 1).await;
    let id = it.propose(&ada, &group, &new_key()).await;
    let (kept, gone) = (it.token("kept", "viewer"), it.token("gone", "viewer"));
    let open = async |token: &str| {
        let path = format!("/api/v1/rotations/{id}/stream");
        let answer = it.request("GET", &path, token).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer
    };
    let (mut kept, mut gone) = (open(&kept).await, open(&gone).await);
    assert!(kept.chunk().await.unwrap().is_some() && gone.chunk().await.unwrap().is_some());
    assert_eq!(it.cli(&["token", "revoke", "gone"]).code, Some(0));
    let ended = async {
        // What was under way may still arrive.
        while gone.chunk().await.is_ok_and(|it| it.is_some()) {}
    };
    assert!(tokio::time::timeout(LIMIT, ended).await.is_ok(), "it goes on after its token");
    let said = it.call(&ada, "POST", &format!("/rotations/{id}/cancel"), Value::Null).await;
    assert_eq!(said.status, 200, "{said:?}");
    let news = eventually(LIMIT, async || {
        let part = kept.chunk().await.ok()??;
        String::from_utf8_lossy(&part).contains("cancelled").then_some(())
    });
    assert!(news.await.is_some(), "another one's stream goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_owners_are_bounded_and_a_refusal_names_the_rule() {
    let it = Daemon::start().await;
    let ada = it.token("ada", "operator");
    let owners = |count: usize| (0..count).map(|at| format!("owner{at}@example.com")).collect::<Vec<_>>();
    let long = format!("{}@example.com", "x".repeat(250));
    let group = it.add(&ada, 1).await;
    for (field, body, rule) in [
        ("owners", serde_json::json!({ "owners": owners(33) }), "at most 32"),
        ("owners", serde_json::json!({ "owners": [long] }), "at most 254 bytes"),
        ("owners", serde_json::json!({ "owners": ["a\u{202e}b@example.com"] }), "is not a mail address"),
        ("name", serde_json::json!({ "name": "n".repeat(201) }), "1 to 200 characters"),
        ("name", serde_json::json!({ "name": "pay\u{202e}ments" }), "no hidden ones"),
        ("name", serde_json::json!({ "name": "pay\u{200b}ments" }), "no hidden ones"),
        ("environment", serde_json::json!({ "environment": "pr\u{2028}od" }), "no hidden ones"),
    ] {
        let edited = it.call(&ada, "PATCH", &format!("/projects/{group}"), body.clone()).await;
        assert_eq!(edited.problem(422), "invalid", "{body}");
        let detail = edited.json["detail"].as_str().unwrap();
        assert!(detail.starts_with(field) && detail.contains(rule), "{detail}");
        let mut new = body;
        new["groupId"] = group_two().into();
        assert_eq!(it.call(&ada, "POST", "/projects", new).await.problem(422), "invalid");
    }
    let most = serde_json::json!({ "owners": owners(32), "name": "n".repeat(200) });
    assert_eq!(it.call(&ada, "PATCH", &format!("/projects/{group}"), most).await.status, 200);
}

fn group_two() -> String {
    group(4)
}
