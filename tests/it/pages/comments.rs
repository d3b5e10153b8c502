//! Comments that decide nothing: on the page of an approver, by a link in a mail, and over the API.

use serde_json::{Value, json};

use super::{Browser, hidden};
use crate::support::daemon::Daemon;
use crate::support::new_key;
use crate::support::smtpd::Smtpd;
use crate::support::wait::{LIMIT, eventually};

/// What people write that a page must not take for its own.
const NASTY: &str = "<b>wait</b> \u{202e}& see\r\nsecond line";

fn tail() -> String {
    new_key()[new_key().len() - 6..].to_owned()
}

async fn say(browser: &Browser<'_>, path: &str, decision: &str, comment: &str) -> super::Page {
    let page = browser.get(path).await;
    let (form, hash) = (hidden(&page.text, "form"), hidden(&page.text, "hash"));
    let fields =
        [("form", &*form), ("hash", &*hash), ("decision", decision), ("tail", ""), ("comment", comment)];
    browser.post(path, &fields).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comment_is_shown_and_takes_nobodys_approval_away() {
    let daemon = Daemon::start().await;
    let (ada, grace) = (daemon.token("ada", "operator"), daemon.token("grace", "approver"));
    let viewer = daemon.token("vera", "viewer");
    let project = daemon.add(&ada, 1).await;
    let id = daemon.propose(&ada, &project, &new_key()).await;
    let (path, browser) = (format!("/rotations/{id}"), Browser::signed_in(&daemon, &grace).await);
    let read = browser.get(&path).await;
    assert!(read.text.contains("value=\"comment\">Comment only</button>"), "{}", read.text);
    let before = daemon.get(&ada, &path).await.json;

    for empty in ["", " \r\n\t"] {
        let page = say(&browser, &path, "comment", empty).await;
        assert_eq!(page.status, 422, "{}", page.text);
        for part in ["Write a comment first. Nothing was recorded.", "aria-invalid", "href=\"#comment\""] {
            assert!(page.text.contains(part), "{part} is not in {}", page.text);
        }
    }
    let long = say(&browser, &path, "comment", &"x".repeat(4096)).await;
    assert!(long.status == 422 && long.text.contains("at most 2000 characters"), "{}", long.text);
    let said = say(&browser, &path, "comment", NASTY).await;
    assert_eq!((said.status, said.to.as_deref()), (303, Some(&*path)), "{}", said.text);
    let shown = browser.get(&path).await;
    assert!(shown.text.contains("&#60;b&#62;wait&#60;/b&#62; \\u{202e}&#38; see"), "{}", shown.text);

    let after = daemon.get(&ada, &path).await.json;
    for same in ["state", "version", "proposalHash", "approvals"] {
        assert_eq!(before[same], after[same], "{same}");
    }
    let kept = &after["comments"][0];
    assert_eq!((&kept["by"], &kept["method"]), (&json!("grace"), &json!("session")));
    // The proposer may comment too, and who only reads may not.
    let his = say(&Browser::signed_in(&daemon, &ada).await, &path, "comment", "it is 4711").await;
    assert_eq!(his.status, 303, "{}", his.text);
    let hers = Browser::signed_in(&daemon, &viewer).await;
    let page = hers.get(&path).await;
    assert!(!page.text.contains("value=\"comment\""), "{}", page.text);
    let (form, hash) = (hidden(&page.text, "form"), hidden(&read.text, "hash"));
    let fields = [("form", &*form), ("hash", &*hash), ("decision", "comment"), ("comment", "me too")];
    assert_eq!(hers.post(&path, &fields).await.status, 403);

    // The form that she has read before all this still approves.
    let (form, hash) = (hidden(&read.text, "form"), hidden(&read.text, "hash"));
    let fields = [("form", &*form), ("hash", &*hash), ("decision", "approve"), ("tail", &*tail())];
    let done = browser.post(&path, &fields).await;
    assert_eq!(done.status, 303, "{}", done.text);
    daemon.until(&ada, &id, |it| it["state"] == "completed").await;
    // A comment that somebody writes into the database is not shown.
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(daemon.folder.path().join("data/keywheel.db"));
    let database = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let forged = "UPDATE journal SET actor = 'mail:security@example.com', detail = replace(detail, '4711', 'our key') \
                  WHERE kind = 'comment'";
    assert!(sqlx::query(forged).execute(&database).await.unwrap().rows_affected() > 0);
    let shown = daemon.get(&ada, &path).await.json["comments"].to_string();
    assert!(shown.contains("it is 4711") && !shown.contains("security@example.com"), "{shown}");
    let audit = daemon.cli(&["audit", "list", "--limit", "200"]).out;
    assert!(audit.contains("rotation.commented") && audit.contains("it is 4711"), "{audit}");
    assert_eq!(daemon.cli(&["audit", "verify"]).code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comment_by_a_link_needs_no_tail_and_leaves_the_link_as_it_is() {
    let smtpd = Smtpd::start(json!({}));
    let settings = format!(
        "policy.approvers = [\"mail:grace@example.com\"]\npolicy.approval_method = \"link\"\n\
         mail.smtp_url = \"smtp://127.0.0.1:{}?tls=none\"\n",
        smtpd.port
    );
    let daemon = Daemon::start_with(&settings).await;
    let ada = daemon.token("ada", "operator");
    let project = daemon.add(&ada, 1).await;
    let id = daemon.propose(&ada, &project, &new_key()).await;
    let found = async || crate::links::links(&smtpd).into_iter().next();
    let link = eventually(LIMIT, found).await.expect("no mail with a link");
    let browser = Browser::new(&daemon);
    let page = browser.get(&link).await;
    assert!(page.text.contains("value=\"comment\""), "{}", page.text);
    let hash = hidden(&page.text, "hash");
    let send = async |decision: &str, comment: &str, tail: &str| {
        let fields = [("hash", &*hash), ("decision", decision), ("comment", comment), ("tail", tail)];
        browser.post(&link, &fields).await
    };
    let empty = send("comment", "", "").await;
    assert!(empty.status == 422 && empty.text.contains("Write a comment first"), "{}", empty.text);
    let said = send("comment", "which key is it?", "").await;
    assert_eq!((said.status, said.to.as_deref()), (303, Some(&*link)), "{}", said.text);
    assert!(browser.get(&link).await.text.contains("which key is it?"));
    // A scanner presses each button more than once.
    let pressed = async {
        for _ in 0..20 {
            let page = send("comment", "test", "").await;
            if page.status == 429 {
                return page;
            }
        }
        panic!("a scanner fills the log");
    };
    assert!(pressed.await.text.contains("ten times within a minute"));
    let seen = daemon.get(&ada, &format!("/rotations/{id}")).await.json;
    assert_eq!((&seen["state"], &seen["approvals"]["given"]), (&json!("awaiting_approval"), &json!([])));
    assert_eq!(
        (&seen["comments"][0]["by"], &seen["comments"][0]["method"]),
        (&json!("mail:grace@example.com"), &json!("link"))
    );
    let done = send("approve", "", &tail()).await;
    assert_eq!(done.status, 303, "{}", done.text);
    let late = send("comment", "one more", "").await;
    assert!(late.status == 409 && late.text.contains("You approved at"), "{}", late.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_comments_until_the_rotation_has_ended() {
    let daemon = Daemon::start().await;
    let (ada, grace) = (daemon.token("ada", "operator"), daemon.token("grace", "approver"));
    let viewer = daemon.token("vera", "viewer");
    let project = daemon.add(&ada, 1).await;
    let id = daemon.propose(&ada, &project, &new_key()).await;
    let path = format!("/rotations/{id}/comment");
    let said = daemon.cli_as("grace", &["comment", &id, "--comment", "after the freeze, please"]);
    assert!(said.code == Some(0) && said.out.contains("after the freeze, please"), "{said:?}");
    let shown = daemon.cli(&["rotation", "show", &id]);
    assert!(shown.out.contains("comments   grace, ") && shown.out.contains("after the freeze"), "{shown:?}");
    let empty = daemon.cli_as("grace", &["comment", &id, "--comment", " "]);
    assert!(empty.code == Some(2) && empty.err.contains("nothing was recorded"), "{empty:?}");
    let none = daemon.call(&grace, "POST", &path, json!({ "comment": "" })).await;
    assert_eq!((none.problem(422), &none.json["field"]), ("invalid", &json!("comment")));
    let other = json!({ "comment": "c", "proposalHash": "0" });
    assert_eq!(daemon.call(&grace, "POST", &path, other).await.problem(409), "proposal-changed");
    let refused = daemon.call(&viewer, "POST", &path, json!({ "comment": "c" })).await;
    assert_eq!(refused.problem(403), "forbidden");
    assert!(refused.json["detail"].as_str().unwrap().contains("approver or operator"), "{refused:?}");
    // Who has commented approves like anybody else.
    let approved = daemon.call(&grace, "POST", &format!("/rotations/{id}/approve"), Value::Null).await;
    assert_eq!(approved.status, 200, "{approved:?}");
    daemon.until(&ada, &id, |it| it["state"] == "completed").await;
    let late = daemon.call(&grace, "POST", &path, json!({ "comment": "well done" })).await;
    assert_eq!((late.problem(409), &late.json["state"]), ("illegal-transition", &json!("completed")));
    let detail = late.json["detail"].as_str().unwrap();
    assert!(detail.contains("it ended at") && detail.contains("--reason TEXT"), "{detail}");
    let journal = daemon.cli(&["rotation", "show", &id, "--journal"]);
    assert!(journal.out.contains("comment"), "{journal:?}");
}
