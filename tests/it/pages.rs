//! The pages in the hands of people: signing in, deciding with the typed tail, and who gets no further.

mod comments;
mod fleet;
mod home;
mod operator;

use keywheel::sim::world::demo_key;
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::redirect::Policy;
use serde_json::json;

use crate::support::daemon::Daemon;
use crate::support::new_key;
use crate::support::wait::{LIMIT, eventually};

/// A page as it was answered.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) to: Option<String>,
    pub(crate) text: String,
    cookie: Option<String>,
}

/// A browser without scripts: it keeps one cookie and follows nothing.
pub(crate) struct Browser<'a> {
    daemon: &'a Daemon,
    pub(crate) http: reqwest::Client,
    cookie: Option<String>,
}

impl<'a> Browser<'a> {
    pub(crate) fn new(daemon: &'a Daemon) -> Self {
        let http = reqwest::Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        Self { daemon, http, cookie: None }
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Page {
        let request = match &self.cookie {
            Some(cookie) => request.header(COOKIE, cookie),
            None => request,
        };
        let answer = request.send().await.unwrap();
        let header = |name| answer.headers().get(name).map(|it| it.to_str().unwrap().to_owned());
        let (to, cookie, status) = (header(LOCATION), header(SET_COOKIE), answer.status().as_u16());
        let policy = header(reqwest::header::CONTENT_SECURITY_POLICY).unwrap_or_default();
        assert!(policy.contains("default-src 'none'"), "{policy}");
        let text = answer.text().await.unwrap();
        let own = text.replace("<script src=\"/live.js\" defer></script>", "");
        assert!(!own.contains("<script") && !own.contains(" style="), "{text}");
        Page { status, to, text, cookie }
    }

    pub(crate) async fn get(&self, path: &str) -> Page {
        self.send(self.http.get(format!("{}{path}", self.daemon.base))).await
    }

    pub(crate) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        self.send(self.http.post(format!("{}{path}", self.daemon.base)).form(fields)).await
    }

    /// Signs in as the holder of a token.
    pub(crate) async fn signed_in(daemon: &'a Daemon, token: &str) -> Self {
        let mut it = Self::new(daemon);
        let page = it.post("/login", &[("token", token), ("to", "/")]).await;
        assert_eq!((page.status, page.to.as_deref()), (303, Some("/")), "{page:?}");
        let cookie = page.cookie.unwrap();
        for part in ["__Host-keywheel=", "; Path=/;", "Secure", "HttpOnly", "SameSite=Lax", "Max-Age=28800"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        it.cookie = cookie.split(';').next().map(str::to_owned);
        it
    }
}

/// The value of a hidden field.
pub(crate) fn hidden(text: &str, name: &str) -> String {
    let (_, rest) =
        text.split_once(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| panic!("no {name}: {text}"));
    rest.split('"').next().unwrap().to_owned()
}

async fn proposed(daemon: &Daemon, token: &str) -> String {
    let project = daemon.add(token, 1).await;
    let body = json!({ "newKey": new_key(), "reason": "Q4 <b>\u{202e}&" });
    let made = daemon.call(token, "POST", &format!("/projects/{project}/rotations"), body).await;
    made.json["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approver_signs_in_reads_the_change_and_decides() {
    let daemon = Daemon::start().await;
    let (ada, grace) = (daemon.token("ada", "operator"), daemon.token("grace", "approver"));
    let id = proposed(&daemon, &ada).await;
    let path = format!("/rotations/{id}");
    let browser = Browser::signed_in(&daemon, &grace).await;
    let home = browser.get("/").await;
    assert!(
        home.text.contains("1 thing needs you") && home.text.contains(&format!("href=\"{path}\"")),
        "{}",
        home.text
    );
    let page = browser.get(&path).await;
    assert_eq!(page.status, 200);
    for part in [
        "Approve a new key for payments-prod?",
        "Type the last 6 characters",
        &new_key(),
        "Q4 &#60;b&#62;\\u{202e}&#38;",
    ] {
        assert!(page.text.contains(part), "{part} is not in {}", page.text);
    }
    let (form, hash) = (hidden(&page.text, "form"), hidden(&page.text, "hash"));
    let tail = &new_key()[new_key().len() - 6..];
    let decide = async |decision: &str, tail: &str, comment: &str| {
        let fields = [
            ("form", &*form),
            ("hash", &*hash),
            ("decision", decision),
            ("tail", tail),
            ("comment", comment),
        ];
        browser.post(&path, &fields).await
    };
    for (decision, tail, said) in [
        ("approve", "", "That is not the end of the new key. Nothing was decided."),
        ("approve", "000001", "That is not the end of the new key"),
        ("reject", tail, "Write a comment to reject. Nothing was rejected."),
    ] {
        let page = decide(decision, tail, "").await;
        assert!(page.status == 422 && page.text.contains(said), "{}", page.text);
    }
    let waiting = daemon.get(&ada, &path).await;
    assert_eq!(
        (&waiting.json["state"], &waiting.json["approvals"]["given"]),
        (&json!("awaiting_approval"), &json!([]))
    );
    let done = decide("approve", tail, "looks right").await;
    assert_eq!((done.status, done.to.as_deref()), (303, Some(&*path)), "{}", done.text);
    let completed = async || {
        let page = browser.get(&path).await;
        page.text.contains("It has ended.").then_some(page)
    };
    let page = eventually(LIMIT, completed).await.expect("it did not complete");
    // Its readings and steps are drawn.
    assert!(page.text.contains("<line class=\"true\"") && page.text.contains("Proving that it works"));
    assert!(page.text.contains("looks right") && !page.text.contains("name=\"decision\""), "{}", page.text);
    let given = &daemon.get(&ada, &path).await.json["approvals"]["given"][0];
    assert_eq!((&given["by"], &given["method"]), (&json!("grace"), &json!("session")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_see_nothing_and_another_sites_form_does_nothing() {
    let daemon = Daemon::start().await;
    let (ada, grace) = (daemon.token("ada", "operator"), daemon.token("grace", "approver"));
    let id = proposed(&daemon, &ada).await;
    let path = format!("/rotations/{id}");
    let stranger = Browser::new(&daemon);
    for asked in ["/", &path, "/rotations/none"] {
        let page = stranger.get(asked).await;
        assert_eq!(page.status, 303, "{page:?}");
        assert!(page.to.unwrap().starts_with("/login?to=") && page.text.is_empty());
    }
    let wrong = stranger.post("/login", &[("token", "kw_guess"), ("to", &path)]).await;
    assert!(wrong.status == 401 && wrong.text.contains("not known or was revoked") && wrong.cookie.is_none());
    assert!(!wrong.text.contains("kw_guess"), "{}", wrong.text);
    for to in ["//evil.example", "/\t/evil.example", "/\0"] {
        let away = stranger.post("/login", &[("token", &*grace), ("to", to)]).await;
        assert_eq!((away.status, away.to.as_deref()), (303, Some("/")), "{to:?}");
    }
    let foreign = stranger.http.post(format!("{}/login", daemon.base)).form(&[("token", &*grace)]);
    assert_eq!(stranger.send(foreign.header("origin", "https://evil.example")).await.status, 403);

    let (hers, his) = (Browser::signed_in(&daemon, &grace).await, Browser::signed_in(&daemon, &ada).await);
    let page = hers.get(&path).await;
    let tail = &new_key()[new_key().len() - 6..];
    let hash = hidden(&page.text, "hash");
    let foreign = hidden(&his.get("/").await.text, "form");
    for form in [foreign.as_str(), "", &"0".repeat(64)] {
        let fields = [("form", form), ("hash", &hash), ("decision", "approve"), ("tail", tail)];
        let refused = hers.post(&path, &fields).await;
        assert!(refused.status == 403 && refused.text.contains("Nothing was changed"), "{}", refused.text);
    }
    // Who proposed it has no button, and a form of his own making does not help.
    let own = his.get(&path).await;
    assert!(!own.text.contains("value=\"approve\""), "{}", own.text);
    let form = hidden(&own.text, "form");
    let fields = [("form", &*form), ("hash", &*hash), ("decision", "approve"), ("tail", tail)];
    assert_eq!(his.post(&path, &fields).await.status, 403);
    let given = &daemon.get(&ada, &path).await.json["approvals"]["given"];
    assert_eq!(given, &json!([]));
    assert_eq!(his.get("/rotations/none").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_with_its_token_its_time_and_whatever_somebody_writes_into_the_table() {
    let daemon = Daemon::start().await;
    let grace = daemon.token("grace", "approver");
    daemon.token("ada", "admin");
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(daemon.folder.path().join("data/keywheel.db"));
    let database = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let write =
        async |text: &'static str| sqlx::query(text).execute(&database).await.unwrap().rows_affected();
    let is_in = async |browser: &Browser<'_>| browser.get("/").await.status == 200;

    let browser = Browser::signed_in(&daemon, &grace).await;
    assert!(is_in(&browser).await);
    assert_eq!(write("UPDATE web_sessions SET name = 'ada'").await, 1);
    assert!(!is_in(&browser).await, "a session was turned into another person's");
    write("UPDATE web_sessions SET name = 'grace'").await;
    assert!(is_in(&browser).await);
    assert_eq!(write("UPDATE web_sessions SET ends_at = '2099-01-01T00:00:00.000000Z'").await, 1);
    assert!(!is_in(&browser).await, "a session was made longer");

    let browser = Browser::signed_in(&daemon, &grace).await;
    write("UPDATE web_sessions SET seen_at = '2026-01-01T00:00:00.000000Z'").await;
    assert!(!is_in(&browser).await, "it was not used for an hour");
    write("UPDATE web_sessions SET seen_at = '2099-01-01T00:00:00.000000Z'").await;
    assert!(!is_in(&browser).await, "it is used in a year to come");
    // What others put beside the cookie signs nobody out.
    let mut browser = Browser::signed_in(&daemon, &grace).await;
    browser.cookie = browser.cookie.map(|it| format!("a=\u{e9}; {it}; b"));
    assert!(is_in(&browser).await);

    let (one, two) = (Browser::signed_in(&daemon, &grace).await, Browser::signed_in(&daemon, &grace).await);
    let form = hidden(&one.get("/").await.text, "form");
    let out = one.post("/logout", &[("form", &form), ("everywhere", "no")]).await;
    assert!(out.cookie.unwrap().contains("Max-Age=0"));
    assert!(!is_in(&one).await && is_in(&two).await);
    // One that somebody hides in the table ends with the others.
    let hidden_one = Browser::signed_in(&daemon, &grace).await;
    let hash =
        keywheel::web::auth::token_hash(hidden_one.cookie.as_deref().unwrap().split_once('=').unwrap().1);
    let hide = |token: &str| format!("UPDATE web_sessions SET name = '{token}' WHERE hash = '{hash}'");
    sqlx::query(sqlx::AssertSqlSafe(hide("x"))).execute(&database).await.unwrap();
    let (three, form) = (Browser::signed_in(&daemon, &grace).await, hidden(&two.get("/").await.text, "form"));
    two.post("/logout", &[("form", &form), ("everywhere", "yes")]).await;
    assert!(!is_in(&two).await && !is_in(&three).await);
    sqlx::query(sqlx::AssertSqlSafe(hide("grace"))).execute(&database).await.unwrap();
    assert!(!is_in(&hidden_one).await, "a session was kept from its end");

    let last = Browser::signed_in(&daemon, &grace).await;
    assert!(is_in(&last).await);
    let revoked = daemon.cli(&["token", "revoke", "grace"]);
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    assert!(!is_in(&last).await, "the token was revoked");
    let verified = daemon.cli(&["audit", "verify"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    let log = daemon.cli(&["audit", "list"]);
    assert!(log.out.contains("web_session.started") && log.out.contains("web_session.ended"), "{}", log.out);
    assert!(!log.out.contains("__Host"), "{}", log.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_page_is_told_of_changes_until_its_session_ends() {
    let daemon = Daemon::start().await;
    let (ada, grace) = (daemon.token("ada", "operator"), daemon.token("grace", "approver"));
    let id = proposed(&daemon, &ada).await;
    let (path, browser) = (format!("/rotations/{id}/stream"), Browser::signed_in(&daemon, &grace).await);
    assert_eq!(Browser::new(&daemon).get(&path).await.status, 303);
    assert_eq!(browser.get("/rotations/none/stream").await.status, 404);
    let open = async |path: &str| {
        let request = browser.http.get(format!("{}{path}", daemon.base));
        request.header(COOKIE, browser.cookie.as_ref().unwrap()).send().await.unwrap()
    };
    let version = daemon.get(&ada, &format!("/rotations/{id}")).await.json["version"].as_i64().unwrap();
    // Who has seen the present version hears of the next one.
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(open(&format!("{path}?seen={version}")).await);
        assert_eq!(streams.last().unwrap().headers()["content-type"], "text/event-stream");
    }
    assert_eq!(open(&path).await.status(), 429, "one session may open streams without end");
    daemon.call(&ada, "POST", &format!("/rotations/{id}/cancel"), json!({})).await;
    let mut told = streams.remove(0);
    let mut text = String::new();
    while let Some(chunk) = told.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(text.starts_with("event: end\n") && text.contains("id: "), "{text}");
    drop(streams);
    let again = async || {
        let mut stream = open(&path).await;
        (stream.status() == 200).then_some(())?;
        stream.chunk().await.unwrap()
    };
    assert!(eventually(LIMIT, again).await.is_some(), "a stream that was closed counts on");

    let project = daemon.add(&ada, 2).await;
    let other = daemon.propose(&ada, &project, &demo_key("AWS", "payments-staging", 2, 2)).await;
    let mut stream = open(&format!("/rotations/{other}/stream")).await;
    assert!(stream.chunk().await.unwrap().unwrap().starts_with(b"event: change\n"));
    assert_eq!(daemon.cli(&["token", "revoke", "grace"]).code, Some(0));
    let ended = async || stream.chunk().await.unwrap().is_none().then_some(());
    eventually(LIMIT, ended).await.expect("the stream outlives its session");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_cannot_be_read_is_answered_with_a_page() {
    let daemon = Daemon::start().await;
    let ada = daemon.token("ada", "operator");
    let id = proposed(&daemon, &ada).await;
    let path = format!("/rotations/{id}");
    let browser = Browser::signed_in(&daemon, &ada).await;
    let large = "x".repeat(100_000);
    let sent = |path: &str, body: &str, kind: &str| {
        let request = browser.http.post(format!("{}{path}", daemon.base)).body(body.to_owned());
        request.header("content-type", kind.to_owned())
    };
    let form = "application/x-www-form-urlencoded";
    for (request, status) in [
        (browser.http.get(format!("{}/rotations/%ff", daemon.base)), 400),
        (browser.http.get(format!("{}/login?to=a&to=b", daemon.base)), 400),
        (sent(&path, "decision=cancel", form), 422),
        (sent(&path, "{}", "application/json"), 415),
        (sent(&path, &format!("comment={large}"), form), 413),
        (sent("/logout", "", form), 422),
    ] {
        let page = browser.send(request).await;
        assert_eq!(page.status, status, "{page:?}");
        assert!(
            page.text.starts_with("<!doctype html>") && page.text.contains("Nothing was changed"),
            "{}",
            page.text
        );
    }
    assert_eq!(daemon.get(&ada, &path).await.json["state"], "awaiting_approval");
    // An operator has the buttons of an operator.
    let page = browser.get(&path).await;
    assert!(
        page.text.contains("value=\"cancel\"") && !page.text.contains("value=\"reject\""),
        "{}",
        page.text
    );
    let (form, hash) = (hidden(&page.text, "form"), hidden(&page.text, "hash"));
    let fields = [("form", &*form), ("hash", &*hash), ("decision", "cancel"), ("comment", "another key")];
    assert_eq!(browser.post(&path, &fields).await.status, 303);
    let page = browser.get(&path).await;
    assert!(page.text.contains("Cancelled") && page.text.contains("It has ended"), "{}", page.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_signs_in_without_end_does_not_fill_the_audit_log() {
    let daemon = Daemon::start().await;
    let (ada, grace) = (daemon.token("ada", "viewer"), daemon.token("grace", "approver"));
    let browser = Browser::new(&daemon);
    let (mut let_in, mut refused) = (0, 0);
    for _ in 0..30 {
        let page = browser.post("/login", &[("token", &*ada), ("to", "/")]).await;
        match page.status {
            303 => let_in += 1,
            429 => refused += 1,
            _ => panic!("{page:?}"),
        }
    }
    assert_eq!((let_in, refused), (10, 20));
    // Nobody else waits.
    Browser::signed_in(&daemon, &grace).await;
    let log = daemon.cli(&["audit", "list", "--limit", "200"]);
    assert_eq!(log.out.matches("web_session.started").count(), 11, "{}", log.out);
}
