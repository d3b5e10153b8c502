//! Links in mails: who decides by one, and who does not.

use std::time::Duration;

use keywheel::domain::approver::Strength;
use keywheel::engine::command::{CommandError, OperatorVerb};
use keywheel::engine::propose::Proposed;
use serde_json::json;

use crate::pages::{Browser, hidden};
use crate::support::daemon::Daemon;
use crate::support::smtpd::{Accepted, Smtpd};
use crate::support::wait::{LIMIT, eventually};
use crate::support::{TestApp, group, new_key};

const SETTINGS: &str = "policy.approvers = [\"mail:Grace@Example.com\"]\npolicy.approval_method = \"link\"\n";

async fn started(smtpd: &Smtpd) -> Daemon {
    Daemon::start_with(&format!("{SETTINGS}mail.smtp_url = \"smtp://127.0.0.1:{}?tls=none\"\n", smtpd.port))
        .await
}

/// The links that were mailed to grace, the oldest first.
pub(crate) fn links(smtpd: &Smtpd) -> Vec<String> {
    let hers = smtpd.mails().into_iter().filter(|mail| mail.to.eq_ignore_ascii_case("grace@example.com"));
    let link = |text: String| {
        let (_, rest) = text.split_once("/a/")?;
        Some(format!("/a/{}", rest.split_whitespace().next()?))
    };
    hers.filter_map(|mail| link(mail.read())).collect()
}

/// The last link of `count` that are mailed.
async fn mailed(smtpd: &Smtpd, count: usize) -> String {
    let arrived = async || links(smtpd).into_iter().nth(count - 1);
    eventually(LIMIT, arrived).await.expect("no mail with a link")
}

fn tail() -> String {
    new_key()[new_key().len() - 6..].to_owned()
}

/// The value of a property in the calendar of a mail.
fn entry(mail: &Accepted, property: &str) -> Option<String> {
    let (_, text) = mail.content.split_once("BEGIN:VCALENDAR")?;
    let text = text.replace("\n ", "");
    text.lines().find_map(|line| line.strip_prefix(&format!("{property}:")).map(str::to_owned))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_calendar_entry_of_a_reminder_is_cancelled_by_the_mail_about_the_new_key() {
    let smtpd = Smtpd::start(json!({}));
    let settings = format!("mail.smtp_url = \"smtp://127.0.0.1:{}?tls=none\"\n", smtpd.port);
    let daemon = Daemon::start_with(&settings).await;
    let ada = daemon.token("ada", "admin");
    let project = daemon.add(&ada, 1).await;
    let linus = daemon.token("linus", "approver");
    let owners = json!({ "owners": ["team@example.com"], "keySince": "2026-01-01" });
    let edited = daemon.call(&ada, "PATCH", &format!("/projects/{project}"), owners).await;
    assert_eq!(edited.status, 200, "{edited:?}");
    let mailed = async |part: &str| {
        let found = async || {
            let mails = smtpd.mails().into_iter().filter(|it| it.to == "team@example.com");
            mails.into_iter().find(|it| it.header("Subject").is_some_and(|it| it.contains(part)))
        };
        eventually(LIMIT, found).await.unwrap_or_else(|| panic!("no mail about {part}: {:?}", smtpd.mails()))
    };
    let reminder = mailed("overdue").await;
    assert_eq!(entry(&reminder, "METHOD").as_deref(), Some("PUBLISH"), "{}", reminder.content);
    let id = daemon.propose(&ada, &project, &new_key()).await;
    daemon.call(&linus, "POST", &format!("/rotations/{id}/approve"), json!({})).await;
    let done = mailed("key rotated").await;
    let of_both = |property| [&reminder, &done].map(|mail| entry(mail, property).unwrap());
    assert_eq!(of_both("METHOD"), ["PUBLISH", "CANCEL"]);
    assert_eq!(of_both("STATUS"), ["CONFIRMED", "CANCELLED"]);
    let [begun, ended] = of_both("UID");
    assert_eq!(begun, ended);
    let [before, after] = of_both("SEQUENCE").map(|it| it.parse::<i64>().unwrap());
    assert!(before < after, "{before} {after}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_decides_once_and_a_scanner_decides_nothing() {
    let smtpd = Smtpd::start(json!({}));
    let daemon = started(&smtpd).await;
    let ada = daemon.token("ada", "operator");
    let project = daemon.add(&ada, 1).await;
    let id = daemon.propose(&ada, &project, &new_key()).await;
    let link = mailed(&smtpd, 1).await;
    // Nobody else gets it, and nothing else has it.
    let others = async || {
        let others =
            smtpd.mails().into_iter().filter(|mail| !mail.to.eq_ignore_ascii_case("grace@example.com"));
        Some(others.map(|mail| mail.read()).collect::<Vec<_>>()).filter(|all| !all.is_empty())
    };
    let others = eventually(LIMIT, others).await.expect("the owner hears nothing");
    assert!(others.iter().all(|text| text.contains("/rotations/") && !text.contains("/a/")), "{others:?}");
    let proof = link.trim_start_matches("/a/");
    let stored = daemon.cli(&["-o", "json", "outbox", "list"]).out;
    assert!(!stored.contains(proof) && !daemon.log.lock().unwrap().contains(proof));
    for file in ["keywheel.db", "keywheel.db-wal"] {
        let bytes = std::fs::read(daemon.folder.path().join("data").join(file)).unwrap_or_default();
        assert!(!bytes.windows(proof.len()).any(|it| it == proof.as_bytes()), "{file}");
    }

    let browser = Browser::new(&daemon);
    let page = browser.get(&link).await;
    assert_eq!(page.status, 200, "{}", page.text);
    for part in ["You answer as grace@example.com", "Approve a new key for payments-prod?", &new_key()] {
        assert!(page.text.contains(part), "{part} is not in {}", page.text);
    }
    assert!(!page.text.contains("<nav") && !page.text.contains("href=\"/\""), "{}", page.text);
    let hash = hidden(&page.text, "hash");
    let decide = async |decision: &str, tail: &str, comment: &str| {
        let fields =
            [("form", ""), ("hash", &*hash), ("decision", decision), ("tail", tail), ("comment", comment)];
        browser.post(&link, &fields).await
    };
    // What a scanner does: it follows, asks, and presses each button, with whatever is in the fields.
    let address = format!("{}{link}", daemon.base);
    for method in [reqwest::Method::HEAD, reqwest::Method::OPTIONS, reqwest::Method::GET] {
        let _ = browser.http.request(method, &address).send().await.unwrap();
    }
    for decision in ["approve", "reject", "withdraw", "", "cancel"] {
        for tail in ["", "test", "aaaaaa"] {
            let page = decide(decision, tail, "scanned").await;
            assert!((400..500).contains(&page.status), "{decision} {tail}: {}", page.text);
        }
    }
    let waiting = daemon.get(&ada, &format!("/rotations/{id}")).await.json;
    assert_eq!(
        (&waiting["state"], &waiting["approvals"]["given"]),
        (&json!("awaiting_approval"), &json!([]))
    );
    let why = waiting["why"].to_string();
    assert!(why.contains("grace@example.com can give one by the link in the mail to that address"), "{why}");

    let done = decide("approve", &tail(), "from the train").await;
    assert_eq!((done.status, done.to.as_deref()), (303, Some(&*link)), "{}", done.text);
    let after = browser.get(&link).await;
    assert!(after.text.contains("You approved at"), "{}", after.text);
    for decision in ["approve", "reject"] {
        let again = decide(decision, &tail(), "again").await;
        assert!(again.status == 409 && again.text.contains("You approved at"), "{}", again.text);
    }
    let done = daemon.until(&ada, &id, |it| it["state"] == "completed").await;
    let given = &done["approvals"]["given"];
    assert_eq!(given.as_array().unwrap().len(), 1, "{given}");
    assert_eq!((&given[0]["by"], &given[0]["method"]), (&json!("mail:grace@example.com"), &json!("link")));
    let log = daemon.cli(&["audit", "list"]);
    assert!(log.out.contains("link.used") && !log.out.contains(proof), "{}", log.out);
    assert_eq!(daemon.cli(&["audit", "verify"]).code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_was_changed_handed_on_or_taken_back_decides_nothing() {
    let smtpd = Smtpd::start(json!({}));
    let daemon = started(&smtpd).await;
    let ada = daemon.token("ada", "operator");
    let linus = daemon.token("linus", "approver");
    let hers = daemon.token("grace", "approver");
    for (name, person) in [("linus", "linus@example.com"), ("grace", "grace@example.com")] {
        let said = daemon.cli(&["token", "edit", name, "--person", person]);
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    // A window that is not open keeps the approved rotation waiting.
    let project = daemon.add(&ada, 1).await;
    let window = json!({ "policy": { "windows": [{ "cron": "0 0 1 29 2 *", "duration": "1h" }] } });
    assert_eq!(daemon.call(&ada, "PATCH", &format!("/projects/{project}"), window).await.status, 200);
    let id = daemon.propose(&ada, &project, &new_key()).await;
    let link = mailed(&smtpd, 1).await;
    let stranger = Browser::new(&daemon);
    let mut changed = link.clone().into_bytes();
    changed[10] = if changed[10] == b'A' { b'B' } else { b'A' };
    for wrong in [String::from_utf8(changed).unwrap(), link[..link.len() - 2].to_owned(), "/a/x".to_owned()] {
        let page = stranger.get(&wrong).await;
        assert!(page.status == 404 && page.text.contains("Nothing was changed"), "{wrong}: {}", page.text);
    }
    let forwarded = Browser::signed_in(&daemon, &linus).await.get(&link).await;
    assert!(forwarded.status == 403 && forwarded.text.contains("another mailbox"), "{}", forwarded.text);
    assert!(!forwarded.text.contains("grace@"), "{}", forwarded.text);
    assert_eq!(Browser::signed_in(&daemon, &hers).await.get(&link).await.status, 200);

    let hash = hidden(&stranger.get(&link).await.text, "hash");
    let decide = async |link: &str, decision: &str| {
        let fields = [("hash", &*hash), ("decision", decision), ("tail", &*tail()), ("comment", "c")];
        stranger.post(link, &fields).await
    };
    assert_eq!(decide(&link, "approve").await.status, 303);
    let used = stranger.get(&link).await;
    for (part, is_there) in
        [("it is approved and runs at", true), ("Take my approval back", true), ("/fresh", false)]
    {
        assert_eq!(used.text.contains(part), is_there, "{part}: {}", used.text);
    }
    let fields = [("hash", &*hash), ("decision", "withdraw"), ("tail", "aaaaaa")];
    let wrong = stranger.post(&link, &fields).await;
    assert!(wrong.status == 422 && wrong.text.contains("Nothing was decided"), "{}", wrong.text);
    // She is one person, whichever way she comes.
    let path = format!("/rotations/{id}");
    let own = Browser::signed_in(&daemon, &hers).await.get(&path).await;
    assert!(own.text.contains("Take my approval back"), "{}", own.text);
    let twice = daemon.call(&hers, "POST", &format!("{path}/approve"), json!({})).await;
    assert_eq!(
        daemon.get(&ada, &path).await.json["approvals"]["given"].as_array().unwrap().len(),
        1,
        "{twice:?}"
    );

    assert_eq!(daemon.get(&ada, &path).await.json["state"], "approved");
    // What a used link still does is to take its approval back; it does not bring it again.
    let back = decide(&link, "withdraw").await;
    assert!(back.status == 200 && back.text.contains("You took your approval back"), "{}", back.text);
    assert_eq!(daemon.get(&ada, &path).await.json["state"], "awaiting_approval");
    let asked = stranger.post(&format!("{link}/fresh"), &[]).await;
    assert!(asked.status == 200 && asked.text.contains("Look into your mailbox"), "{}", asked.text);
    assert_ne!(mailed(&smtpd, 2).await, link);
    let replayed = decide(&link, "approve").await;
    assert!(replayed.status == 409 && replayed.text.contains("You approved at"), "{}", replayed.text);
    assert_eq!(daemon.get(&ada, &path).await.json["approvals"]["given"], json!([]));
    let rejected = daemon.call(&hers, "POST", &format!("{path}/reject"), json!({ "comment": "no" })).await;
    assert_eq!(rejected.status, 200, "{rejected:?}");
    let metrics =
        stranger.http.get(format!("{}/metrics", daemon.base)).send().await.unwrap().text().await.unwrap();
    for outcome in ["forwarded", "used", "decided", "opened"] {
        assert!(
            metrics.contains(&format!("keywheel_mail_links_total{{outcome=\"{outcome}\"}}")),
            "{metrics}"
        );
    }
}

/// An engine whose project takes votes by link of `ann@example.com`, or of its owners.
async fn app(approvers: &str) -> TestApp {
    let mut app = TestApp::new().await;
    app.rule(|settings| {
        settings.policy.approvers = vec![approvers.parse().unwrap()];
        settings.policy.approval_method = Strength::Link;
    });
    app
}

#[tokio::test]
async fn a_link_ends_and_belongs_to_one_mailbox_and_one_proposal() {
    let app = app("mail:ann@example.com").await;
    let group = group(1).parse().unwrap();
    let made = app.engine.propose("ada", &group, new_key().parse().unwrap(), None, false).await.unwrap();
    let Proposed::Created(row) = made else { panic!("not new") };
    let id = row.rotation.id;
    assert_eq!(app.engine.link_for(id, "bob@example.com").await.unwrap(), None);
    let path = app.engine.link_for(id, "Ann@Example.com").await.unwrap().expect("no link");
    let text = path.strip_prefix("/a/").unwrap();
    let link = app.engine.link(text).await.unwrap().expect("it is not known");
    assert_eq!(link.recipient, "ann@example.com");
    app.pass(Duration::from_hours(3 * 24));
    let late = app.engine.answer(&link, OperatorVerb::Approve, None).await;
    assert!(matches!(late, Err(CommandError::LinkEnded(_))), "{late:?}");
    let fresh = app.engine.link_for(id, "ann@example.com").await.unwrap().unwrap();
    assert_ne!(fresh, path);
    let fresh = app.engine.link(fresh.strip_prefix("/a/").unwrap()).await.unwrap().unwrap();
    app.engine.answer(&fresh, OperatorVerb::Reject, Some("no".to_owned())).await.unwrap();
    let again = app.engine.answer(&fresh, OperatorVerb::Approve, None).await;
    assert!(matches!(again, Err(CommandError::LinkUsed(_))), "{again:?}");
    assert_eq!(app.engine.link_for(id, "ann@example.com").await.unwrap(), None, "it is decided");
}

#[tokio::test]
async fn an_owner_answers_while_he_is_one_and_who_joined_lately_does_not() {
    let mut app = app("owners").await;
    // The first day is over: whom an operator makes an owner approves nothing for a day.
    app.rule(|settings| settings.settle_in = Some("1ms".parse().unwrap()));
    app.pass(Duration::from_mins(1));
    let group: keywheel::domain::ids::GroupId = group(1).parse().unwrap();
    let owners = |all: &[&str]| keywheel::engine::command::ProjectEdit {
        owners: Some(all.iter().map(|it| (*it).to_owned()).collect()),
        ..Default::default()
    };
    app.engine.edit_project("bob", &group, owners(&["ada@example.com", "eve@example.com"])).await.unwrap();
    let made = app.engine.propose("bob", &group, new_key().parse().unwrap(), None, false).await.unwrap();
    let Proposed::Created(row) = made else { panic!("not new") };
    assert_eq!(row.rotation.rules.owners, ["ada@example.com"]);
    assert_eq!(app.engine.link_for(row.rotation.id, "eve@example.com").await.unwrap(), None);
    let path = app.engine.link_for(row.rotation.id, "ada@example.com").await.unwrap().expect("no link");
    let link = app.engine.link(path.strip_prefix("/a/").unwrap()).await.unwrap().unwrap();
    let row = app.engine.answer(&link, OperatorVerb::Approve, None).await.unwrap();
    assert_eq!(row.rotation.permission.quorum.given, 1);
    // Her yes ends with her being an owner.
    app.engine.edit_project("bob", &group, owners(&["eve@example.com"])).await.unwrap();
    let back = app.until(&row, |state| state == keywheel::domain::rotation::state::State::AwaitingApproval);
    assert_eq!(back.await.rotation.permission.quorum.given, 0);
    assert_eq!(app.patches(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_key_is_compared_where_it_is_given() {
    let daemon = Daemon::start().await;
    let (ada, grace) = (daemon.token("ada", "operator"), daemon.token("grace", "approver"));
    let project = daemon.add(&ada, 1).await;
    let id = daemon.propose(&ada, &project, &new_key()).await;
    let path = format!("/rotations/{id}/approve");
    let wrong = daemon.call(&grace, "POST", &path, json!({ "tail": "aaaaaa" })).await;
    assert_eq!((wrong.problem(422), &wrong.json["field"]), ("invalid", &json!("tail")));
    let said = daemon.cli_as("grace", &["approve", &id, "--tail", "aaaaaa"]);
    assert!(said.code == Some(2) && said.err.contains("not the end of the new key"), "{said:?}");
    assert_eq!(daemon.get(&ada, &format!("/rotations/{id}")).await.json["approvals"]["given"], json!([]));
    let said = daemon.cli_as("grace", &["approve", &id, "--tail", &tail()]);
    assert_eq!(said.code, Some(0), "{said:?}");
}
