//! A rotation that waits for an operator, on its page: what to do first, and the decisions that are legal.

use keywheel::sim::world::KeyState;
use serde_json::{Value, json};

use super::{Browser, hidden};
use crate::support::daemon::Daemon;
use crate::support::{group, new_key, old_key};

/// A rotation whose new key works nowhere. Without the key service in reach, nothing is rolled back.
async fn stopped(daemon: &Daemon, ada: &str, grace: &str, is_reachable: bool) -> String {
    daemon.sim.with(|world| {
        world.keys.insert(new_key(), KeyState::FailsOnNodes);
        if !is_reachable {
            let project = world.projects.get_mut(&group(1)).unwrap();
            project.change_while_invalid = true;
            project.open_alerts.insert("ENCRYPTION_AT_REST_KMS_NETWORK_ACCESS_DENIED".to_owned());
        }
    });
    daemon.add(ada, 1).await;
    let id = daemon.propose(ada, &group(1), &new_key()).await;
    daemon.call(grace, "POST", &format!("/rotations/{id}/approve"), Value::Null).await;
    daemon.until(ada, &id, |it| it["state"] == "needs_operator").await;
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_heading_is_the_order_and_the_command_stands_first() {
    let daemon = Daemon::start().await;
    let (ada, grace) = (daemon.token("ada", "operator"), daemon.token("grace", "approver"));
    let id = stopped(&daemon, &ada, &grace, true).await;
    let path = format!("/rotations/{id}");
    let browser = Browser::signed_in(&daemon, &ada).await;
    let page = browser.get(&path).await;
    let short = &new_key()[new_key().len() - 8..];
    for part in [
        &format!("payments-prod: enable the key …{short} now"),
        "aws kms enable-key \\\n  --key-id ",
        "1. Run this with AWS rights",
        "ENCRYPTION_AT_REST_SETTINGS_INVALID",
        "Nothing needs to be pressed",
        "Accept is not legal",
        "Atlas would have to show the new key now, and not as false.",
        "/confirm?decision=rollback",
        "/confirm?decision=close",
        "value=\"resume\"",
    ] {
        assert!(page.text.contains(part), "{part:?} is not in {}", page.text);
    }
    assert!(!page.text.contains("decision=accept"), "{}", page.text);
    // What is not legal has no page either.
    let accept = browser.get(&format!("{path}/confirm?decision=accept")).await;
    assert!(accept.status == 409 && accept.text.contains("accept is not possible"), "{}", accept.text);

    let viewer = Browser::signed_in(&daemon, &grace).await;
    let page = viewer.get(&path).await;
    assert!(page.text.contains("An operator decides. Your roles (approver) do not include operator."));
    assert!(!page.text.contains("name=\"decision\"") && !page.text.contains("/confirm?"), "{}", page.text);
    let form = hidden(&page.text, "form");
    for verb in ["resume", "close", "acknowledge"] {
        let fields = [("form", &*form), ("decision", verb), ("tail", &new_key()[new_key().len() - 6..])];
        assert_eq!(viewer.post(&format!("{path}/operator"), &fields).await.status, 403, "{verb}");
    }
    assert_eq!(viewer.get(&format!("{path}/confirm?decision=close")).await.status, 403);
    daemon.sim.with(|world| world.keys.insert(new_key(), KeyState::Enabled));
    daemon.until(&ada, &id, |it| it["state"] == "completed").await;
    // The button was on the page that the person still reads.
    let form = hidden(&browser.get("/").await.text, "form");
    let late = browser.post(&format!("{path}/operator"), &[("form", &*form), ("decision", "resume")]).await;
    assert!(late.status == 409 && late.text.contains("It moved on while you read"), "{}", late.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_wants_the_end_of_the_key_that_will_serve() {
    let daemon = Daemon::start().await;
    let (ada, grace) = (daemon.token("ada", "operator"), daemon.token("grace", "approver"));
    let id = stopped(&daemon, &ada, &grace, false).await;
    let path = format!("/rotations/{id}");
    let browser = Browser::signed_in(&daemon, &ada).await;
    let page = browser.get(&path).await;
    assert!(page.text.contains("open the network path to the key service"), "{}", page.text);
    assert!(!page.text.contains("aws kms"), "{}", page.text);
    let form = hidden(&page.text, "form");
    let decide = async |verb: &str, tail: &str| {
        let fields = [("form", &*form), ("decision", verb), ("tail", tail), ("comment", "by hand")];
        browser.post(&format!("{path}/operator"), &fields).await
    };
    let asked = browser.get(&format!("{path}/confirm?decision=close")).await;
    for part in ["Close the rotation of payments-prod", &new_key(), &old_key()] {
        assert!(asked.text.contains(part), "{part:?} is not in {}", asked.text);
    }
    let state = async || daemon.get(&ada, &path).await.json["state"].clone();
    for (verb, tail) in [("close", ""), ("close", "000000"), ("rollback", &new_key()[new_key().len() - 6..])]
    {
        let wrong = decide(verb, tail).await;
        assert!(wrong.status == 422 && wrong.text.contains("aria-invalid"), "{}", wrong.text);
        assert!(wrong.text.contains("by hand"), "what was typed is gone: {}", wrong.text);
    }
    assert_eq!(decide("approve", "").await.status, 422);
    assert_eq!(state().await, json!("needs_operator"));
    let told = crate::support::wait::eventually(crate::support::wait::LIMIT, async || {
        browser.get(&path).await.text.contains("stop paging").then_some(())
    });
    told.await.expect("nobody is paged");
    assert_eq!(decide("acknowledge", "").await.status, 303);
    assert!(browser.get(&path).await.text.contains("Acknowledged by ada"));
    let closed = decide("close", &new_key()[new_key().len() - 6..]).await;
    assert_eq!((closed.status, closed.to.as_deref()), (303, Some(&*path)), "{}", closed.text);
    assert_eq!(state().await, json!("closed"));
    let log = daemon.cli(&["audit", "list", "--limit", "200"]);
    assert!(log.out.contains("by hand") && log.out.contains("condition.acknowledged"), "{}", log.out);
}
