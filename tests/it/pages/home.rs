//! What home keeps up to date, what it tells of the time since the visit before, and what is acknowledged on pages.

use keywheel::sim::world::KeyState;
use reqwest::header::COOKIE;
use serde_json::json;

use super::{Browser, hidden};
use crate::support::daemon::Daemon;
use crate::support::wait::{LIMIT, eventually};
use crate::support::{group, new_key, old_key};

const SINCE: &str = "Since you were last here";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn home_tells_what_ended_since_the_visit_before() {
    let daemon = Daemon::start().await;
    let (ada, grace) = (daemon.token("ada", "operator"), daemon.token("grace", "approver"));
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(daemon.folder.path().join("data/keywheel.db"));
    let database = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let away = async || {
        for text in [
            "UPDATE web_sessions SET seen_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-40 minutes')",
            "UPDATE visits SET began_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-50 minutes')",
        ] {
            sqlx::query(text).execute(&database).await.unwrap();
        }
    };
    let project = daemon.add(&ada, 1).await;
    let browser = Browser::signed_in(&daemon, &grace).await;
    assert!(!browser.get("/").await.text.contains(SINCE), "it is the first visit");
    away().await;
    let id = daemon.propose(&ada, &project, &new_key()).await;
    daemon.call(&ada, "POST", &format!("/rotations/{id}/cancel"), json!({})).await;
    // The first page notes that a visit begins, the next ones tell what it missed.
    browser.get("/due").await;
    let text = browser.get("/").await.text;
    let (_, part) = text.split_once(SINCE).unwrap_or_else(|| panic!("{text}"));
    assert!(part.contains(&format!("/rotations/{id}")) && part.contains("Cancelled"), "{part}");
    assert!(browser.get("/").await.text.contains(SINCE), "it goes on within the visit");
    let elsewhere = Browser::signed_in(&daemon, &grace).await;
    assert!(elsewhere.get("/").await.text.contains(&format!("/rotations/{id}")), "another browser of hers");
    let earlier = "UPDATE rotations SET finished_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-2 hours')";
    sqlx::query(earlier).execute(&database).await.unwrap();
    let text = browser.get("/").await.text;
    assert!(text.contains("No rotation has ended since."), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn home_hears_of_each_change_of_what_is_open() {
    let daemon = Daemon::start().await;
    let (ada, grace) = (daemon.token("ada", "operator"), daemon.token("grace", "approver"));
    let project = daemon.add(&ada, 1).await;
    let browser = Browser::signed_in(&daemon, &grace).await;
    assert_eq!(Browser::new(&daemon).get("/stream").await.status, 303);
    let page = browser.get("/").await.text;
    let (_, rest) = page.split_once("data-stream=\"").unwrap();
    let path = rest.split('"').next().unwrap();
    let request = browser.http.get(format!("{}{path}", daemon.base));
    let mut stream = request.header(COOKIE, browser.cookie.as_ref().unwrap()).send().await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    daemon.propose(&ada, &project, &new_key()).await;
    let mut text = String::new();
    while !text.contains("event: change\n") {
        let chunk = stream.chunk().await.unwrap().expect("the stream has ended");
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(text.contains("id: ") && !text.contains("payments"), "{text}");
    // Without scripts it renews where that is asked for.
    assert!(!page.contains("http-equiv=\"refresh\""));
    assert!(browser.get("/?every=15").await.text.contains("http-equiv=\"refresh\" content=\"15\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_renews_itself_is_no_visit() {
    let daemon = Daemon::start().await;
    let grace = daemon.token("grace", "approver");
    let browser = Browser::signed_in(&daemon, &grace).await;
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(daemon.folder.path().join("data/keywheel.db"));
    let database = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let seen = async || {
        let (at,): (String,) =
            sqlx::query_as("SELECT seen_at FROM web_sessions").fetch_one(&database).await.unwrap();
        at
    };
    sqlx::query("UPDATE web_sessions SET seen_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-20 minutes')")
        .execute(&database)
        .await
        .unwrap();
    let before = seen().await;
    let renewal = browser.http.get(format!("{}/", daemon.base)).header("x-keywheel-renewal", "1");
    assert_eq!(browser.send(renewal).await.status, 200);
    assert_eq!(seen().await, before, "an open tab keeps a session alive for ever");
    browser.get("/").await;
    assert_ne!(seen().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_pages_is_acknowledged_on_the_projects_page() {
    let daemon = Daemon::start().await;
    let (ada, vera) = (daemon.token("ada", "operator"), daemon.token("vera", "viewer"));
    daemon.add(&ada, 1).await;
    daemon.sim.with(|world| world.keys.insert(old_key(), KeyState::Disabled));
    let path = format!("/projects/{}", group(1));
    let browser = Browser::signed_in(&daemon, &ada).await;
    let told = eventually(LIMIT, async || {
        daemon.call(&ada, "POST", &format!("{path}/refresh"), json!({})).await;
        browser.get(&path).await.text.contains("stop paging").then_some(())
    });
    told.await.expect("nobody is paged");
    let reader = Browser::signed_in(&daemon, &vera).await;
    let text = reader.get(&path).await.text;
    assert!(text.contains("An operator can acknowledge it") && !text.contains("stop paging"), "{text}");
    let form = hidden(&reader.get("/you").await.text, "form");
    let to = format!("{path}/acknowledge");
    assert_eq!(reader.post(&to, &[("form", &form), ("kind", "invalid")]).await.status, 403);
    let form = hidden(&browser.get(&path).await.text, "form");
    assert_eq!(browser.post(&to, &[("form", "0"), ("kind", "invalid")]).await.status, 403);
    assert_eq!(browser.post(&to, &[("form", &form), ("kind", "nonsense")]).await.status, 422);
    let done = browser.post(&to, &[("form", &form), ("kind", "invalid"), ("comment", "on <it>")]).await;
    assert_eq!((done.status, done.to.as_deref()), (303, Some(&*path)), "{}", done.text);
    let text = browser.get(&path).await.text;
    assert!(text.contains("Acknowledged by ada") && !text.contains("stop paging"), "{text}");
    assert!(daemon.cli(&["audit", "list", "--limit", "50"]).out.contains("on <it>"));
}
