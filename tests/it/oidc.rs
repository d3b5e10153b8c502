//! Signing in with an identity provider: who comes in, whose votes count, and each way of a forged or broken answer.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use url::Url;

use crate::support::daemon::{Daemon, private, run, serve};
use crate::support::issuer::{CLIENT, Issuer, IssuerKey, SECRET};
use crate::support::new_key;
use crate::support::wait::{LIMIT, eventually, pause};

/// What the running daemon is asked for longer than it would take to send a key.
const PATIENCE: Duration = Duration::from_secs(2);

/// A page as it was answered.
#[derive(Debug)]
struct Page {
    status: u16,
    to: String,
    text: String,
}

/// A browser that keeps cookies and follows nothing.
struct Browser<'a> {
    daemon: &'a Daemon,
    http: reqwest::Client,
    cookies: RefCell<BTreeMap<String, String>>,
}

impl<'a> Browser<'a> {
    fn new(daemon: &'a Daemon) -> Self {
        let http = reqwest::Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        Self { daemon, http, cookies: RefCell::default() }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Page {
        let cookies: Vec<_> =
            self.cookies.borrow().iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = request.header(COOKIE, cookies.join("; ")).send().await.unwrap();
        for set in answer.headers().get_all(SET_COOKIE) {
            let set = set.to_str().unwrap();
            for part in ["__Host-keywheel", "Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
                assert!(set.contains(part), "{set}");
            }
            let (name, rest) = set.split_once('=').unwrap();
            let mut cookies = self.cookies.borrow_mut();
            if rest.contains("Max-Age=0") {
                cookies.remove(name);
            } else {
                cookies.insert(name.to_owned(), rest.split(';').next().unwrap().to_owned());
            }
        }
        let to = answer.headers().get(LOCATION).map_or("", |it| it.to_str().unwrap()).to_owned();
        let status = answer.status().as_u16();
        Page { status, to, text: answer.text().await.unwrap() }
    }

    async fn get(&self, path: &str) -> Page {
        self.send(self.http.get(format!("{}{path}", self.daemon.base))).await
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        self.send(self.http.post(format!("{}{path}", self.daemon.base)).form(fields)).await
    }

    /// Begins at the provider `name`; gives the address that the browser is sent to.
    async fn begin(&self, name: &str, to: &str) -> Url {
        let page = self.get(&format!("/login/oidc/{name}?to={to}")).await;
        assert_eq!(page.status, 303, "{page:?}");
        page.to.parse().unwrap()
    }

    /// Brings an answer back.
    async fn finish(&self, name: &str, answer: &[(&str, &str)]) -> Page {
        let url = format!("{}/login/oidc/{name}/callback", self.daemon.base);
        self.send(self.http.get(Url::parse_with_params(&url, answer).unwrap())).await
    }

    /// Signs in at the provider `name`, as far as that lets it.
    async fn sign_in(&self, name: &str, issuer: &Issuer) -> Page {
        let url = self.begin(name, "/").await;
        self.finish(name, &[("code", &issuer.code(&url)), ("state", &asked(&url, "state"))]).await
    }

    async fn is_in(&self) -> bool {
        self.get("/").await.status == 200
    }

    /// Approves a rotation on its page.
    async fn approve(&self, id: &str) -> Page {
        let path = format!("/rotations/{id}");
        let page = self.get(&path).await;
        let fields = |name: &str| hidden(&page.text, name);
        let tail = &new_key()[new_key().len() - 6..];
        let (form, hash) = (fields("form"), fields("hash"));
        let fields =
            [("form", &*form), ("hash", &*hash), ("decision", "approve"), ("tail", tail), ("comment", "")];
        self.post(&path, &fields).await
    }
}

fn asked(url: &Url, name: &str) -> String {
    url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned()
}

/// The value of a hidden field.
fn hidden(text: &str, name: &str) -> String {
    let (_, rest) =
        text.split_once(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| panic!("no {name}: {text}"));
    rest.split('"').next().unwrap().to_owned()
}

fn settings(name: &str, issuer: &Issuer) -> String {
    format!(
        "oidc.{name}.issuer = {:?}\noidc.{name}.client_id = {CLIENT:?}\noidc.{name}.client_secret = {SECRET:?}\noidc.{name}.roles = {{ approver = [\"key-approvers\"], operator = [\"platform\"], viewer = [\"staff\"] }}\n",
        issuer.base()
    )
}

async fn daemon() -> (Daemon, Issuer) {
    let issuer = Issuer::start().await;
    (Daemon::start_with(&settings("acme", &issuer)).await, issuer)
}

async fn proposed(daemon: &Daemon, token: &str) -> String {
    let project = daemon.add(token, 1).await;
    daemon.propose(token, &project, &new_key()).await
}

async fn write(daemon: &Daemon, text: &'static str) -> u64 {
    let file = daemon.folder.path().join("data/keywheel.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let database = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query(text).execute(&database).await.unwrap().rows_affected()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approver_signs_in_with_a_provider_and_decides() {
    let (daemon, issuer) = daemon().await;
    let ada = daemon.token("ada", "operator");
    let id = proposed(&daemon, &ada).await;
    let browser = Browser::new(&daemon);
    let login = browser.get("/login?to=/rotations/1").await;
    assert!(
        login.text.contains("Sign in with acme") && login.text.contains("name=\"token\""),
        "{}",
        login.text
    );
    let url = browser.begin("acme", "/rotations/1").await;
    assert!(url.as_str().starts_with(&format!("{}/auth?kept=1&", issuer.base())), "{url}");
    assert_eq!(asked(&url, "redirect_uri"), "http://localhost:8440/login/oidc/acme/callback");
    assert_eq!(asked(&url, "scope"), "openid email");
    let done =
        browser.finish("acme", &[("code", &issuer.code(&url)), ("state", &asked(&url, "state"))]).await;
    assert_eq!((done.status, &*done.to), (303, "/rotations/1"), "{done:?}");
    assert_eq!(browser.cookies.borrow().keys().collect::<Vec<_>>(), ["__Host-keywheel"]);
    let home = browser.get("/").await;
    assert!(
        home.text.contains("mail:grace@example.com") && home.text.contains("viewer, approver"),
        "{}",
        home.text
    );
    let done = browser.approve(&id).await;
    assert_eq!(done.status, 303, "{}", done.text);
    let rotation = daemon.until(&ada, &id, |it| it["state"] == "completed").await;
    assert_eq!(rotation["approvals"]["given"][0]["by"], "mail:grace@example.com");

    let events = || daemon.cli(&["audit", "list", "--limit", "200"]).out.matches("person.signed_in").count();
    let again = Browser::new(&daemon);
    assert_eq!(again.sign_in("acme", &issuer).await.status, 303);
    assert_eq!(events(), 1, "nothing is new");
    issuer.rule(|it| it.claims = json!({ "groups": ["staff"] }));
    assert_eq!(again.sign_in("acme", &issuer).await.status, 303);
    assert_eq!(events(), 2);
    // Every session has what the provider said last.
    let home = browser.get("/").await;
    assert!(home.text.contains("viewer") && !home.text.contains("approver"), "{}", home.text);

    let form = hidden(&browser.get("/").await.text, "form");
    let out = browser.post("/logout", &[("form", &form), ("everywhere", "yes")]).await;
    let there = format!("{}/out?client_id=key+wheel&#38;post_logout_redirect_uri=", issuer.base());
    assert!(out.status == 200 && out.text.contains("Sign out at acme too"), "{}", out.text);
    assert!(out.text.contains(&there), "{}", out.text);
    assert!(!browser.is_in().await && !again.is_in().await);
    let verified = daemon.cli(&["audit", "verify"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert!(!daemon.log.lock().unwrap().contains("code-0"), "a code is in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_counts_once_in_the_browser_that_began_and_from_the_provider_alone() {
    let (daemon, issuer) = daemon().await;
    let refused = |page: &Page, said: &str| {
        assert!((400..500).contains(&page.status) && page.text.contains(said), "{page:?}");
        assert!(
            page.text.contains("Nothing was changed") && page.text.contains("href=\"/login\""),
            "{page:?}"
        );
    };
    let browser = Browser::new(&daemon);
    let url = browser.begin("acme", "/").await;
    let (code, state) = (issuer.code(&url), asked(&url, "state"));
    // Another browser, which has begun a sign-in of its own, or none.
    let other = Browser::new(&daemon);
    refused(&other.finish("acme", &[("code", &code), ("state", &state)]).await, "not begun in this browser");
    other.begin("acme", "/").await;
    refused(&other.finish("acme", &[("code", &code), ("state", &state)]).await, "not begun in this browser");
    assert!(!other.is_in().await);
    let begun = browser.cookies.borrow().clone();
    for answer in
        [vec![], vec![("code", &*code)], vec![("code", &code), ("state", "x")], vec![("state", &state)]]
    {
        *browser.cookies.borrow_mut() = begun.clone();
        refused(&browser.finish("acme", &answer).await, "not begun in this browser");
        assert!(browser.cookies.borrow().is_empty());
    }
    *browser.cookies.borrow_mut() = begun.clone();
    let foreign = [("code", &*code), ("state", &state), ("iss", "https://evil.example")];
    refused(&browser.finish("acme", &foreign).await, "does not come from acme");
    *browser.cookies.borrow_mut() = begun.clone();
    let denied = [("error", "access_denied"), ("error_description", "No <b>\u{202e}"), ("state", &*state)];
    refused(&browser.finish("acme", &denied).await, "No &#60;b&#62;\\u{202e} (access_denied)");
    *browser.cookies.borrow_mut() = begun.clone();
    let own = [("code", &*code), ("state", &*state), ("iss", issuer.base())];
    assert_eq!(browser.finish("acme", &own).await.status, 303);
    assert!(browser.is_in().await);
    // Even who has recorded all of it cannot repeat it.
    let replay = Browser::new(&daemon);
    *replay.cookies.borrow_mut() = begun;
    refused(&replay.finish("acme", &own).await, "it was used before");
    assert!(!replay.is_in().await);
    assert_eq!(browser.get("/login/oidc/other").await.status, 404);
    assert_eq!(browser.get("/login/oidc/acme/callback?state=a&state=b").await.status, 400);

    // A provider that promises to name itself has to.
    let named = Issuer::start().await;
    named.rule(|it| it.document = json!({ "authorization_response_iss_parameter_supported": true }));
    let daemon = Daemon::start_with(&settings("named", &named)).await;
    let browser = Browser::new(&daemon);
    refused(&browser.sign_in("named", &named).await, "does not come from named");
    let url = browser.begin("named", "//evil.example").await;
    let (code, state) = (named.code(&url), asked(&url, "state"));
    let own = [("code", &*code), ("state", &*state), ("iss", named.base())];
    let done = browser.finish("named", &own).await;
    assert_eq!((done.status, &*done.to), (303, "/"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_the_provider_did_not_make_for_this_sign_in_signs_nobody_in() {
    let (daemon, issuer) = daemon().await;
    let base = issuer.base().to_owned();
    let claims = json!({ "iss": base, "aud": CLIENT, "sub": "7", "exp": 9_999_999_999_u64, "iat": 1 });
    let encode = |header: Value| {
        let part = |it: &Value| URL_SAFE_NO_PAD.encode(it.to_string());
        format!("{}.{}.", part(&header), part(&claims))
    };
    let mut shared = Header::new(Algorithm::HS256);
    shared.kid = Some("one".to_owned());
    let mut point = String::new();
    issuer.rule(|it| point = it.keys[0].to_string());
    let confused =
        jsonwebtoken::encode(&shared, &claims, &EncodingKey::from_secret(point.as_bytes())).unwrap();
    let forged = IssuerKey::new("one").sign(&claims);
    let unknown = IssuerKey::new("two").sign(&claims);
    for (change, token, said) in [
        (json!({ "iss": "https://evil.example" }), None, "names another issuer"),
        (json!({ "aud": "other" }), None, "for another application"),
        (json!({ "azp": "other" }), None, "given to another application"),
        (json!({ "nonce": "n" }), None, "another sign-in"),
        (json!({ "exp": 1 }), None, "has expired"),
        (json!({ "iat": 9_999_999_999_u64 }), None, "from the future"),
        (json!({ "nbf": 9_999_999_999_u64 }), None, "does not count yet"),
        (json!({ "sub": null }), None, "no name of your account"),
        (json!({ "groups": ["strangers"] }), None, "none of your groups there has a role here"),
        (json!({ "groups": null }), None, "none of your groups there has a role here"),
        (json!({}), Some(encode(json!({ "alg": "none" }))), "algorithm that is not accepted"),
        (json!({}), Some(confused), "a shared secret"),
        (json!({}), Some(forged), "the signature of its token does not fit"),
        (json!({}), Some(unknown), "a key that it does not publish"),
        (json!({}), Some("x".to_owned()), "cannot be read"),
    ] {
        issuer.rule(|it| (it.claims, it.token) = (change.clone(), token));
        let browser = Browser::new(&daemon);
        let page = browser.sign_in("acme", &issuer).await;
        assert!(page.status == 403 && page.text.contains(said), "{change}: {page:?}");
        assert!(page.text.contains("Nothing was changed"), "{page:?}");
        assert!(!page.text.contains("strangers") && !browser.is_in().await);
    }
    // The server's log, and no page, has the groups.
    assert!(daemon.log.lock().unwrap().contains("strangers"));
    assert!(!daemon.cli(&["audit", "list"]).out.contains("person.signed_in"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_changes_its_key_is_followed_and_one_that_is_down_keeps_no_token_out() {
    let (daemon, issuer) = daemon().await;
    let grace = daemon.token("grace", "approver");
    assert_eq!(Browser::new(&daemon).sign_in("acme", &issuer).await.status, 303);
    let fresh = IssuerKey::new("fresh");
    issuer.rule(|it| (it.keys, it.signer) = (vec![fresh.jwk()], fresh));
    // Keys are fetched again once in five seconds at most.
    let browser = Browser::new(&daemon);
    let followed = eventually(LIMIT, async || {
        pause(Duration::from_millis(500)).await;
        (browser.sign_in("acme", &issuer).await.status == 303).then_some(())
    });
    assert!(followed.await.is_some(), "{}", daemon.log.lock().unwrap());

    // The groups may stand in userinfo alone, and only of the same account.
    let plain = Issuer::start().await;
    plain.rule(|it| {
        it.claims = json!({ "groups": null });
        it.userinfo = json!({ "sub": "8", "groups": ["key-approvers"] });
    });
    let down = Issuer::start().await;
    down.rule(|it| it.is_down = true);
    let both = format!("{}{}", settings("plain", &plain), settings("down", &down));
    let daemon = Daemon::start_with(&both).await;
    let browser = Browser::new(&daemon);
    let page = browser.sign_in("plain", &plain).await;
    assert!(page.status == 403 && page.text.contains("another account"), "{page:?}");
    plain.rule(|it| it.userinfo["sub"] = json!("7"));
    assert_eq!(browser.sign_in("plain", &plain).await.status, 303);

    let page = browser.get("/login/oidc/down").await;
    assert!(page.status == 502 && page.text.contains("A token signs in without it"), "{page:?}");
    let token = daemon.token("grace", "approver");
    assert_eq!(Browser::new(&daemon).post("/login", &[("token", &*token)]).await.status, 303);
    let checked = run(daemon.folder.path(), &["doctor", "-o", "json"]);
    let checked: Value = serde_json::from_str(&checked.out).unwrap();
    let result = |name: &str| {
        let all = checked["checks"].as_array().unwrap();
        all.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("{checked:#}")).clone()
    };
    assert_eq!(result("oidc.plain")["result"], "pass", "{checked:#}");
    assert_eq!(result("oidc.down")["result"], "fail", "{checked:#}");
    assert!(result("oidc.down")["detail"].as_str().unwrap().contains("503"), "{checked:#}");
    drop(grace);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_is_one_by_every_provider_and_token_and_nobody_takes_a_name_over() {
    let (one, two) = (Issuer::start().await, Issuer::start().await);
    let daemon = Daemon::start_with(&format!("{}{}", settings("one", &one), settings("two", &two))).await;
    let ada = daemon.token("ada", "operator");
    let made = daemon.cli(&["token", "create", "--name", "bare", "--role", "approver"]);
    let id = proposed(&daemon, &ada).await;
    let path = format!("/rotations/{id}/approve");
    let bare = daemon.call(made.out.trim(), "POST", &path, json!({})).await;
    assert_eq!(bare.problem(403), "vote-not-counted");
    assert!(
        bare.json["detail"].as_str().unwrap().contains("keywheel token edit bare --person MAIL"),
        "{bare:?}"
    );
    for name in ["mail:ada@example.com", "oidc:one/7"] {
        let taken = daemon.cli(&["token", "create", "--name", name, "--role", "approver"]);
        assert!(taken.code != Some(0) && taken.err.contains("a token's name takes"), "{taken:?}");
    }

    // Who proposed with a token does not approve as the person of that address.
    one.rule(|it| it.claims = json!({ "email": "ada@example.com", "sub": "ada" }));
    let browser = Browser::new(&daemon);
    assert_eq!(browser.sign_in("one", &one).await.status, 303);
    let page = browser.get(&format!("/rotations/{id}")).await;
    assert!(
        !page.text.contains("value=\"approve\"") && page.text.contains("count as one person"),
        "{}",
        page.text
    );
    // Another address does not make another person.
    one.rule(|it| it.claims["email"] = json!("lovelace@example.com"));
    assert_eq!(browser.sign_in("one", &one).await.status, 303);
    let page = browser.get(&format!("/rotations/{id}")).await;
    assert!(page.text.contains("mail:lovelace@example.com"), "{}", page.text);
    assert!(
        !page.text.contains("value=\"approve\"") && page.text.contains("count as one person"),
        "{}",
        page.text
    );
    // Nor does one without any.
    one.rule(|it| it.claims["email_verified"] = json!(false));
    assert_eq!(browser.sign_in("one", &one).await.status, 303);
    let page = browser.get(&format!("/rotations/{id}")).await;
    assert!(page.text.contains("oidc:one/ada") && page.text.contains("count as one person"), "{}", page.text);

    // Another account of the same provider is another person, whatever address it has now.
    for name in ["ada@example.com", "lovelace@example.com"] {
        one.rule(|it| it.claims = json!({ "email": name, "sub": "eve" }));
        let page = Browser::new(&daemon).sign_in("one", &one).await;
        assert!(page.status == 403 && page.text.contains("Another account at one"), "{page:?}");
    }

    // Two providers that verify one address mean one person, who has one vote.
    let browser = Browser::new(&daemon);
    for (name, issuer) in [("one", &one), ("two", &two)] {
        issuer.rule(|it| it.claims = json!({ "sub": format!("grace-{name}") }));
        assert_eq!(browser.sign_in(name, issuer).await.status, 303);
    }
    assert_eq!(browser.approve(&id).await.status, 303);
    let rotation = daemon.until(&ada, &id, |it| it["state"] == "completed").await;
    assert_eq!(rotation["approvals"]["given"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_whose_row_somebody_writes_is_signed_out_and_votes_for_nothing() {
    let issuer = Issuer::start().await;
    let daemon = Daemon::start_with(&format!("policy.approvals = 2\n{}", settings("acme", &issuer))).await;
    let (ada, edsger) = (daemon.token("ada", "operator"), daemon.token("edsger", "approver"));
    let id = proposed(&daemon, &ada).await;
    let browser = Browser::new(&daemon);
    assert_eq!(browser.sign_in("acme", &issuer).await.status, 303);
    assert_eq!(browser.approve(&id).await.status, 303);
    issuer.rule(|it| it.claims = json!({ "groups": ["staff"] }));
    assert_eq!(browser.sign_in("acme", &issuer).await.status, 303);
    assert!(browser.is_in().await);
    let raised = "UPDATE people SET roles = 'approver', given_at = since";
    assert_eq!(write(&daemon, raised).await, 1);
    assert!(!browser.is_in().await, "a role was written into the table");
    let verified = daemon.cli(&["audit", "verify"]);
    let said = format!("{}{}", verified.out, verified.err);
    assert!(verified.code != Some(0) && said.contains("person/") && said.contains("#7"), "{verified:?}");
    // The second vote is right, and the first one counts for nothing all the same.
    let path = format!("/rotations/{id}/approve");
    assert_eq!(daemon.call(&edsger, "POST", &path, json!({})).await.status, 200);
    let patches = || daemon.sim.log().into_iter().filter(|it| it.operation == "patch_ear").count();
    let sent = eventually(PATIENCE, async || (patches() > 0).then_some(())).await;
    assert!(sent.is_none(), "a key was sent with the vote of somebody who is no approver");
    // It is not written anew as if nothing had happened.
    let page = browser.sign_in("acme", &issuer).await;
    assert!(page.status >= 400 && !browser.is_in().await, "{page:?}");
    assert_eq!(write(&daemon, "DELETE FROM people").await, 1);
    let page = browser.sign_in("acme", &issuer).await;
    assert!(page.status >= 400 && !browser.is_in().await, "{page:?}");
    let verified = daemon.cli(&["audit", "verify"]);
    assert!(verified.code != Some(0) && verified.out.contains("somebody removed it"), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_configured_no_more_signs_everybody_out_and_its_votes_are_void() {
    let issuer = Issuer::start().await;
    let mut daemon =
        Daemon::start_with(&format!("policy.approvals = 2\n{}", settings("acme", &issuer))).await;
    let (ada, edsger) = (daemon.token("ada", "operator"), daemon.token("edsger", "approver"));
    let id = proposed(&daemon, &ada).await;
    let browser = Browser::new(&daemon);
    assert_eq!(browser.sign_in("acme", &issuer).await.status, 303);
    assert_eq!(browser.approve(&id).await.status, 303);
    let (http, cookies) = (browser.http, browser.cookies);
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    let file = daemon.folder.path().join("keywheel.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    private(&file, text.lines().filter(|it| !it.starts_with("oidc.")).collect::<Vec<_>>().join("\n"));
    (daemon.child, daemon.base, daemon.log) = serve(daemon.folder.path());
    let browser = Browser { daemon: &daemon, http, cookies };
    assert!(!browser.is_in().await);
    assert!(!browser.get("/login").await.text.contains("Sign in with"));
    let path = format!("/rotations/{id}");
    // The daemon counts again at the same moment, and one of the two writes first.
    let approved = async || {
        let said = daemon.call(&edsger, "POST", &format!("{path}/approve"), json!({})).await;
        (said.status == 200).then_some(())
    };
    assert!(eventually(LIMIT, approved).await.is_some(), "{}", daemon.log.lock().unwrap());
    assert_eq!(daemon.get(&ada, &path).await.json["state"], "awaiting_approval");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_installation_key_keeps_people_only_where_the_old_one_vouches_for_them() {
    let (mut daemon, issuer) = daemon().await;
    assert_eq!(Browser::new(&daemon).sign_in("acme", &issuer).await.status, 303);
    for (verb, recorded) in [("rotate", 1), ("replace", 2)] {
        daemon.child.kill().unwrap();
        daemon.child.wait().unwrap();
        if verb == "replace" {
            std::fs::remove_file(daemon.folder.path().join("data/installation.key")).unwrap();
        }
        let changed = daemon.cli(&["key", verb]);
        assert_eq!(changed.code, Some(0), "{changed:?}");
        (daemon.child, daemon.base, daemon.log) = serve(daemon.folder.path());
        let browser = Browser::new(&daemon);
        assert_eq!(browser.sign_in("acme", &issuer).await.status, 303);
        assert!(browser.is_in().await);
        let log = daemon.cli(&["audit", "list", "--limit", "200"]);
        assert_eq!(log.out.matches("person.signed_in").count(), recorded, "{verb}: {}", log.out);
        let verified = daemon.cli(&["audit", "verify"]);
        assert_eq!(verified.code, Some(0), "{verb}: {verified:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_secret_is_taken_over_by_a_running_daemon_and_other_roles_are_not() {
    let issuer = Issuer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    private(&secret, "another\n");
    let own = format!("client_secret_file = {:?}", secret.display().to_string());
    let text = settings("acme", &issuer).replace(&format!("client_secret = {SECRET:?}"), &own);
    let daemon = Daemon::start_with(&text).await;
    let page = Browser::new(&daemon).sign_in("acme", &issuer).await;
    assert!(page.status == 502 && !page.text.contains("another"), "{page:?}");
    assert!(daemon.log.lock().unwrap().contains("invalid_client"));
    private(&secret, format!("{SECRET}\n"));
    let file = daemon.folder.path().join("keywheel.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    private(&file, text.replace("viewer = [\"staff\"]", "admin = [\"staff\"]"));
    let hup = std::process::Command::new("kill").args(["-HUP", &daemon.child.id().to_string()]).status();
    assert!(hup.unwrap().success());
    let browser = Browser::new(&daemon);
    let taken =
        eventually(LIMIT, async || (browser.sign_in("acme", &issuer).await.status == 303).then_some(()));
    assert!(taken.await.is_some(), "{}", daemon.log.lock().unwrap());
    let home = browser.get("/").await;
    assert!(home.text.contains("viewer, approver") && !home.text.contains("admin"), "{}", home.text);
    let log = daemon.log.lock().unwrap();
    assert!(log.contains("need a restart: oidc.acme.roles.admin, oidc.acme.roles.viewer"), "{log}");
    assert!(!log.contains(SECRET));
}
