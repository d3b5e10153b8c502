//! The plan and the calendar: what cannot be kept, earlier dates that become proposals, and the feed of a person.

use std::time::Duration;

use keywheel::domain::time::{Clock, SystemClock, Timestamp};
use serde_json::{Value, json};

use crate::pages::{Browser, hidden};
use crate::support::daemon::Daemon;
use crate::support::group;

const DAY: Duration = Duration::from_hours(24);

fn day(at: Timestamp) -> String {
    at.to_string()[..10].to_owned()
}

/// Nothing is sent from the 20th to the 40th day from now.
async fn frozen() -> (Daemon, Timestamp) {
    let now = SystemClock.now();
    let freeze = format!(
        "policy.freezes = [{{ name = \"Winter\", from = \"{}\", to = \"{}\" }}]",
        day(now + DAY * 20),
        day(now + DAY * 40)
    );
    (Daemon::start_with(&freeze).await, now)
}

/// A project whose key is due `days` from `now`.
fn due_in(it: &Daemon, now: Timestamp, number: u64, days: u32) {
    let since = (now - DAY * (90 - days)).to_string();
    let args =
        ["project", "add", &group(number), "--since", &since, "--kms", "azure", "--owner", "eve@example.com"];
    let added = it.cli(&args);
    assert_eq!(added.code, Some(0), "{added:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_freeze_makes_late_is_proposed_for_before_it_by_one_command() {
    let (it, now) = frozen().await;
    let (ada, victor) = (it.token("ada", "operator"), it.token("victor", "viewer"));
    for (number, days) in [(5, 25), (6, 30), (7, 60)] {
        due_in(&it, now, number, days);
    }
    let plan = it.get(&victor, "/plan?days=70").await;
    assert_eq!(plan.status, 200, "{plan:?}");
    let items = plan.json["items"].as_array().unwrap();
    let told: Vec<_> = items.iter().map(|it| (&it["conflict"], &it["freeze"], &it["owners"])).collect();
    let owners = json!(["eve@example.com"]);
    let (freeze, winter) = (json!("freeze"), json!("Winter"));
    assert_eq!(
        told,
        [(&freeze, &winter, &owners), (&freeze, &winter, &owners), (&Value::Null, &Value::Null, &owners)]
    );
    assert_eq!(
        (&plan.json["due"], &plan.json["conflicts"], &plan.json["proposed"]),
        (&json!(3), &json!(2), &json!(2))
    );
    // The next reminders of the first key are 14, 7, 3 and 1 days before it is due, and on the day.
    assert_eq!(items[0]["reminders"].as_array().unwrap().len(), 5, "{}", items[0]);
    let dates: Vec<&str> = items.iter().filter_map(|it| it["proposed"].as_str()).collect();
    assert!(dates.iter().all(|date| *date < &*day(now + DAY * 20)), "{dates:?}");
    let page = it.get(&victor, "/plan?days=70&limit=2").await;
    assert_eq!((page.json["items"].as_array().unwrap().len(), &page.json["next"]), (2, &json!("2")));
    let rest = it.get(&victor, "/plan?days=70&limit=2&cursor=2").await;
    assert_eq!((rest.json["items"].as_array().unwrap().len(), &rest.json["next"]), (1, &Value::Null));
    for wrong in ["days=0", "days=732", "perDay=0", "cursor=x"] {
        assert_eq!(it.get(&victor, &format!("/plan?{wrong}")).await.problem(422), "invalid");
    }

    let table = it.cli_as("victor", &["plan", "--days", "70", "--conflicts"]);
    assert_eq!(table.code, Some(0), "{table:?}");
    assert!(table.out.contains("in the freeze Winter"), "{table:?}");
    assert!(
        table.err.contains("2 of them on dates that cannot be kept, 2 with an earlier date"),
        "{table:?}"
    );
    let unasked = it.cli_as("ada", &["plan", "--days", "70", "--apply"]);
    assert!(unasked.code == Some(2) && unasked.err.contains("--yes"), "{unasked:?}");
    let dry = it.cli_as("ada", &["plan", "--days", "70", "--apply", "--dry-run"]);
    assert!(dry.err.contains("nothing was proposed"), "{dry:?}");
    assert_eq!(it.get(&ada, "/rotations").await.json["items"], json!([]));
    let done = it.cli_as("ada", &["plan", "--days", "70", "--apply", "--yes", "--reason", "winter"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let made = it.get(&ada, "/rotations").await.json["items"].as_array().unwrap().clone();
    let mut planned: Vec<_> = made.iter().map(|it| it["plannedFor"].as_str().unwrap()).collect();
    planned.sort_unstable();
    let mut wanted = dates.clone();
    wanted.sort_unstable();
    assert_eq!(planned, wanted);
    assert!(made[0]["why"][1].as_str().unwrap_or_default().contains("It is planned for "), "{}", made[0]);
    // Nothing is left to plan.
    let plan = it.get(&victor, "/plan?days=70").await;
    assert_eq!((&plan.json["conflicts"], &plan.json["proposed"]), (&json!(0), &json!(0)), "{plan:?}");
    assert_eq!(plan.json["items"][0]["plannedFor"], json!(dates[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_calendar_says_what_falls_into_a_freeze_and_its_button_plans_it() {
    let (it, now) = frozen().await;
    let (ada, victor) = (it.token("ada", "operator"), it.token("victor", "viewer"));
    for (number, days) in [(5, 25), (6, 30), (7, 60)] {
        due_in(&it, now, number, days);
    }
    let viewer = Browser::signed_in(&it, &victor).await;
    let page = viewer.get("/calendar").await;
    assert_eq!(page.status, 200, "{}", page.text);
    let inside = (now + DAY * 25).as_chrono().format("%-d %B, 1 key due, inside the freeze").to_string();
    for part in [
        "<h1>2 keys fall due inside the freeze Winter</h1>",
        "Nothing is sent from ",
        &inside,
        "An operator can plan them from this page.",
        "aria-current=\"page\">Calendar",
    ] {
        assert!(page.text.contains(part), "{part:?} is not in {}", page.text);
    }
    assert_eq!(page.text.matches("<table class=\"month\">").count(), 12);
    assert!(!page.text.contains("Plan these"), "{}", page.text);

    let operator = Browser::signed_in(&it, &ada).await;
    let page = operator.get("/calendar").await;
    assert!(page.text.contains("Plan these 2 before "), "{}", page.text);
    let values = |name: &str| {
        let field = format!("name=\"{name}\" value=\"");
        page.text.split(&field).skip(1).map(|it| it.split('"').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (form, projects, dates) = (hidden(&page.text, "form"), values("project"), values("on"));
    let mut fields = vec![("form", form.as_str())];
    fields.extend(projects.iter().map(|it| ("project", it.as_str())));
    fields.extend(dates.iter().map(|it| ("on", it.as_str())));
    let shown = operator.post("/due/propose", &fields).await;
    assert!(
        shown.text.contains("Propose these 2") && shown.text.contains("Nothing is sent before"),
        "{}",
        shown.text
    );
    assert_eq!(it.get(&ada, "/rotations").await.json["items"], json!([]), "a look proposed it");
    let proposals: Vec<_> = shown.text.split("name=\"proposal\" value=\"").skip(1).collect();
    let mut fields = vec![("form", form.as_str()), ("step", "propose"), ("reason", "")];
    fields.extend(proposals.iter().map(|it| ("proposal", it.split('"').next().unwrap())));
    let done = operator.post("/due/propose", &fields).await;
    assert!(done.text.contains("2 proposed"), "{}", done.text);
    let made = it.get(&ada, "/rotations").await.json["items"].as_array().unwrap().clone();
    assert!(made.iter().all(|it| it["plannedFor"].is_string()), "{made:?}");
    let page = operator.get("/calendar").await;
    assert!(page.text.contains(" due in 12 months"), "{}", page.text);
    let rotation = operator.get(&format!("/rotations/{}", made[0]["id"].as_str().unwrap())).await;
    assert!(rotation.text.contains("Planned for</b>"), "{}", rotation.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_calendar_feed_is_a_persons_own_and_ends_with_the_next_one() {
    let (it, now) = frozen().await;
    let victor = it.token("victor", "viewer");
    due_in(&it, now, 5, 25);
    let browser = Browser::signed_in(&it, &victor).await;
    let form = hidden(&browser.get("/calendar").await.text, "form");
    assert_eq!(browser.post("/calendar/feed", &[("form", "0")]).await.status, 403);
    let address = async || {
        let page = browser.post("/calendar/feed", &[("form", &form)]).await;
        assert_eq!(page.status, 200, "{}", page.text);
        let (_, rest) = page.text.split_once("/calendar/feed/").unwrap();
        format!("/calendar/feed/{}", rest.split('<').next().unwrap().trim())
    };
    let first = address().await;
    let read = async |path: &str| {
        let answer = browser.http.get(format!("{}{path}", it.base)).send().await.unwrap();
        let header = |name: &str| answer.headers().get(name).map(|it| it.to_str().unwrap().to_owned());
        let (kind, kept) =
            (header("content-type").unwrap_or_default(), header("cache-control").unwrap_or_default());
        (answer.status().as_u16(), kind, kept, answer.text().await.unwrap())
    };
    let (status, kind, kept, text) = read(&first).await;
    assert_eq!(
        (status, kind.as_str(), kept.as_str()),
        (200, "text/calendar; charset=utf-8", "no-store"),
        "{text}"
    );
    let due = (now + DAY * 25).as_chrono().format("DTSTART;VALUE=DATE:%Y%m%d").to_string();
    for line in [
        format!("UID:due-{}@keywheel", group(5)),
        due,
        "SUMMARY:Freeze Winter: no new key is sent".to_owned(),
    ] {
        assert!(text.contains(&format!("\r\n{line}\r\n")), "{line}: {text}");
    }
    let wrong = first.replace(".ics", "A.ics");
    for path in [wrong.as_str(), "/calendar/feed/x.ics", "/calendar/feed/x", first.trim_end_matches(".ics")] {
        assert_eq!(read(path).await.0, 404, "{path}");
    }
    let second = address().await;
    assert_eq!((read(&first).await.0, read(&second).await.0), (404, 200));
    let log = it.log.lock().unwrap().clone();
    let secret = second.trim_start_matches("/calendar/feed/").trim_end_matches(".ics");
    assert!(!log.contains(secret), "{log}");
    let audit = it.cli(&["audit", "list", "-o", "json"]).out;
    assert!(audit.contains("calendar_feed.made") && !audit.contains(secret), "{audit}");
    // Who may not sign in any more reads nothing.
    assert_eq!(it.cli(&["token", "revoke", "victor"]).code, Some(0));
    assert_eq!(read(&second).await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_calendar_feed_ends_when_its_person_revokes_it() {
    let it = Daemon::start().await;
    let victor = it.token("victor", "viewer");
    let browser = Browser::signed_in(&it, &victor).await;
    let page = browser.get("/calendar").await.text;
    assert!(!page.contains("Revoke this link"), "{page}");
    let form = hidden(&page, "form");
    let made = browser.post("/calendar/feed", &[("form", &form)]).await.text;
    let (_, rest) = made.split_once("/calendar/feed/").unwrap();
    let path = format!("/calendar/feed/{}", rest.split('<').next().unwrap().trim());
    assert_eq!(Browser::new(&it).get(&path).await.status, 200);
    assert!(browser.get("/calendar").await.text.contains("Revoke this link"));
    let revoke =
        async |form: &str| browser.post("/calendar/feed", &[("form", form), ("decision", "revoke")]).await;
    assert_eq!(revoke("0").await.status, 403);
    assert_eq!(Browser::new(&it).get(&path).await.status, 200);
    assert_eq!(revoke(&form).await.to.as_deref(), Some("/calendar"));
    assert_eq!(Browser::new(&it).get(&path).await.status, 404);
    assert!(!browser.get("/calendar").await.text.contains("Revoke this link"));
    assert!(it.cli(&["audit", "list"]).out.contains("calendar_feed.ended"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_feeds_without_end_does_not_fill_the_audit_log() {
    let (it, _) = frozen().await;
    let browser = Browser::signed_in(&it, &it.token("victor", "viewer")).await;
    let form = hidden(&browser.get("/calendar").await.text, "form");
    let (mut made, mut refused) = (0, 0);
    for _ in 0..20 {
        match browser.post("/calendar/feed", &[("form", &form)]).await.status {
            200 => made += 1,
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!((made, refused), (10, 10));
}
