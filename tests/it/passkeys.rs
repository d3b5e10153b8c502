//! Passkeys: what an authenticator says is believed only where it answers exactly what was asked, and a person gets from
//! a browser's answer to a vote.

use keywheel::passkey::{
    Assertion, Challenge, Credential, Fault, NoSite, Site, challenge, register, text, verify, went_on,
};
use serde_json::json;

use crate::pages::{Browser, hidden};
use crate::support::authenticator::{Authenticator, Kind, Said};
use crate::support::daemon::Daemon;
use crate::support::new_key;

fn site() -> Site {
    Site::of("http://localhost:8440").unwrap()
}

fn asked() -> Challenge {
    challenge("test", &["one", "two"])
}

fn enrolled(it: &mut Authenticator) -> Credential {
    let (client, object) = it.make(&text(&asked()));
    register(&site(), &asked(), &client, &object).unwrap()
}

fn signed(it: &mut Authenticator, credential: &Credential) -> Result<u32, Fault> {
    let (client_data, authenticator_data, signature) = it.sign(&text(&asked()));
    let answer = Assertion { client_data, authenticator_data, signature };
    verify(&site(), &asked(), credential, &answer).map(|it| it.counter)
}

#[test]
fn each_kind_of_key_is_enrolled_and_signs() {
    for (kind, name) in [(Kind::Es256, "ES256"), (Kind::EdDsa, "EdDSA"), (Kind::Rs256, "RS256")] {
        let mut it = Authenticator::new(kind);
        let credential = enrolled(&mut it);
        assert_eq!((credential.algorithm(), &credential.id), (Ok(name), &it.id));
        assert_eq!(signed(&mut it, &credential), Ok(2), "{name}");
        let other = enrolled(&mut Authenticator::new(kind));
        assert_eq!(signed(&mut it, &other), Err(Fault::Signature), "{name}");
    }
}

#[test]
fn what_answers_something_else_is_refused() {
    type Lie = fn(&mut Said);
    let lies: [(&str, Lie, Fault); 9] = [
        (
            "another origin",
            |it| it.origin = "http://localhost:8441".to_owned(),
            Fault::Origin {
                found: "http://localhost:8441".to_owned(),
                expected: "http://localhost:8440".to_owned(),
            },
        ),
        ("another site", |it| it.site = "example.com".to_owned(), Fault::OtherSite),
        ("nobody verified", |it| it.flags = 0b001, Fault::NotVerified),
        ("nobody present", |it| it.flags = 0b100, Fault::NotVerified),
        ("stored elsewhere, and cannot be", |it| it.flags = 0b1_0101, Fault::Flags),
        ("framed by others", |it| it.more = ",\"topOrigin\":\"https://evil.example\"", Fault::OtherSite),
        ("a member twice", |it| it.more = ",\"challenge\":\"AAAA\"", Fault::Unreadable("client data")),
        ("cut off", |it| it.more = ",", Fault::Unreadable("client data")),
        (
            "an extension that is not there",
            |it| it.flags = 0b1000_0101,
            Fault::Unreadable("authenticator data"),
        ),
    ];
    for (what, lie, fault) in lies {
        let mut it = Authenticator::new(Kind::Es256);
        lie(&mut it.said);
        let (client, object) = it.make(&text(&asked()));
        assert_eq!(register(&site(), &asked(), &client, &object), Err(fault.clone()), "{what}");
        it.said = Said::default();
        let credential = enrolled(&mut it);
        lie(&mut it.said);
        assert_eq!(signed(&mut it, &credential), Err(fault), "{what}");
    }
}

#[test]
fn another_challenge_another_purpose_and_changed_bytes_are_refused() {
    let mut it = Authenticator::new(Kind::Es256);
    let credential = enrolled(&mut it);
    let (client_data, authenticator_data, signature) = it.sign(&text(&challenge("test", &["onet", "wo"])));
    let answer = Assertion { client_data, authenticator_data, signature };
    assert_eq!(verify(&site(), &asked(), &credential, &answer), Err(Fault::Challenge));
    // A registration is no signature, and the other way round.
    let (client_data, _) = it.make(&text(&asked()));
    assert_eq!(
        verify(&site(), &asked(), &credential, &Assertion { client_data, ..answer }),
        Err(Fault::Challenge)
    );
    let (client_data, authenticator_data, signature) = it.sign(&text(&asked()));
    let right = Assertion { client_data, authenticator_data, signature };
    assert!(verify(&site(), &asked(), &credential, &right).is_ok());
    for (part, at) in [(0, 60), (1, 33), (1, 36), (2, 10)] {
        let mut wrong = right.clone();
        let bytes = [&mut wrong.client_data, &mut wrong.authenticator_data, &mut wrong.signature];
        bytes.into_iter().nth(part).unwrap()[at] ^= 1;
        assert!(verify(&site(), &asked(), &credential, &wrong).is_err(), "{part} {at}");
    }
    for part in 0..3 {
        let mut wrong = right.clone();
        let bytes = [&mut wrong.client_data, &mut wrong.authenticator_data, &mut wrong.signature];
        bytes.into_iter().nth(part).unwrap().push(0);
        assert!(verify(&site(), &asked(), &credential, &wrong).is_err(), "one byte more: {part}");
    }
}

#[test]
fn a_key_that_verifies_nothing_is_not_enrolled() {
    let mut it = Authenticator::new(Kind::Es256);
    let right = it.cose();
    let mut off_curve = right.clone();
    *off_curve.last_mut().unwrap() ^= 1;
    let mut long = right.clone();
    long.push(0);
    let rsa = Authenticator::new(Kind::Rs256).cose();
    let exponent = [&rsa[..rsa.len() - 3], &[1, 0, 3]].concat();
    for (what, key) in [("off the curve", off_curve), ("one byte more", long), ("another exponent", exponent)]
    {
        let (client, object) = it.make_with(&text(&asked()), &key);
        assert!(register(&site(), &asked(), &client, &object).is_err(), "{what}");
    }
    let mut curve = right;
    curve[6] = 2;
    let (client, object) = it.make_with(&text(&asked()), &curve);
    assert_eq!(register(&site(), &asked(), &client, &object), Err(Fault::Algorithm), "another curve");
    it.id.clear();
    let (client, object) = it.make(&text(&asked()));
    assert!(register(&site(), &asked(), &client, &object).is_err(), "no id");
}

#[test]
fn a_counter_goes_on_or_stays_nothing() {
    for (before, now, goes) in
        [(0, 0, true), (0, 1, true), (7, 8, true), (7, 7, false), (7, 6, false), (7, 0, false)]
    {
        assert_eq!(went_on(before, now).is_ok(), goes, "{before} {now}");
    }
}

#[test]
fn a_site_is_a_name_that_browsers_trust() {
    let of = |url| Site::of(url).map(|it| (it.id, it.origin));
    let named = |id: &str, origin: &str| Ok((id.to_owned(), origin.to_owned()));
    assert_eq!(of("https://keys.example.com"), named("keys.example.com", "https://keys.example.com"));
    assert_eq!(of("https://Keys.Example.com:443/k/"), named("keys.example.com", "https://keys.example.com"));
    assert_eq!(of("http://localhost:8440"), named("localhost", "http://localhost:8440"));
    assert_eq!(of("http://127.0.0.1:8440"), Err(NoSite::Address));
    assert_eq!(of("https://[::1]"), Err(NoSite::Address));
    assert_eq!(of("http://keys.example.com"), Err(NoSite::NotSecure));
    assert_eq!(of("nonsense"), Err(NoSite::NoHost));
}

/// The value of a `data-` attribute.
fn data(text: &str, form: &str, name: &str) -> String {
    let (_, form) = text.split_once(form).unwrap_or_else(|| panic!("no {form}: {text}"));
    let (_, rest) = form.split_once(&format!("data-{name}=\"")).unwrap();
    rest.split('"').next().unwrap().to_owned()
}

/// Enrols a passkey on a person's own page; gives the text of the session's forms and the page.
async fn enrols(browser: &Browser<'_>, device: &mut Authenticator) -> (String, String) {
    let you = browser.get("/you").await;
    let asked = data(&you.text, "data-passkey=\"create\"", "challenge");
    let (form, ticket) = (hidden(&you.text, "form"), hidden(&you.text, "ticket"));
    let answer = device.made(&asked).to_string();
    let fields = |name: &'static str| {
        [
            ("form", form.as_str()),
            ("decision", "enrol"),
            ("name", name),
            ("ticket", &ticket),
            ("answer", &answer),
        ]
    };
    let nameless = browser.post("/you", &fields("")).await;
    assert_eq!(nameless.status, 422, "{}", nameless.text);
    let without = browser.post("/you", &[("form", &*form), ("decision", "enrol"), ("name", "Phone")]).await;
    assert!(
        without.status == 422 && without.text.contains("did not answer with a passkey"),
        "{}",
        without.text
    );
    let done = browser.post("/you", &fields("Phone <b>")).await;
    assert_eq!((done.status, done.to.as_deref()), (303, Some("/you")), "{}", done.text);
    let twice = browser.post("/you", &fields("Phone")).await;
    assert!(twice.status == 422 && twice.text.contains("enrolled already"), "{}", twice.text);
    let you = browser.get("/you").await;
    assert!(you.text.contains("Phone &#60;b&#62;") && you.text.contains("To confirm"), "{}", you.text);
    (form, you.text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_enrols_a_passkey_and_approves_with_it() {
    let daemon = Daemon::start_with("policy.approval_method = \"passkey\"\n").await;
    let ada = daemon.token("ada", "operator");
    let grace = daemon.token("grace", "approver");
    let (root, own) = (daemon.token("root", "admin"), daemon.token("bare", "admin"));
    let project = daemon.add(&ada, 1).await;
    let id = daemon.propose(&ada, &project, &new_key()).await;
    let path = format!("/rotations/{id}");
    let tail = &new_key()[new_key().len() - 6..];

    // Signed in alone, or with a token, nobody approves here.
    let browser = Browser::signed_in(&daemon, &grace).await;
    let page = browser.get(&path).await;
    assert!(page.text.contains("has no passkey that counts"), "{}", page.text);
    assert!(!page.text.contains("value=\"approve"), "{}", page.text);
    let refused =
        daemon.call(&grace, "POST", &format!("/rotations/{id}/approve"), json!({ "tail": tail })).await;
    assert_eq!(refused.problem(403), "vote-not-counted");

    // She enrols one.
    let mut device = Authenticator::new(Kind::Es256);
    let (form, you) = enrols(&browser, &mut device).await;

    // It counts for nothing before somebody else has confirmed it.
    let passkey = device.id();
    let mine =
        browser.post("/you", &[("form", &*form), ("decision", "confirm-other"), ("about", &passkey)]).await;
    assert_eq!(mine.status, 403, "{}", mine.text);
    let code = json!({ "code": daemon.get(&ada, "/passkeys").await.json["items"][0]["code"] });
    assert!(
        browser.get("/you").await.text.contains(code["code"].as_str().unwrap()),
        "she reads it to the admin"
    );
    let unsure = daemon.call(&ada, "POST", &format!("/passkeys/{passkey}/confirm"), code.clone()).await;
    assert_eq!(unsure.status, 403, "an operator");
    let confirmed = daemon.call(&root, "POST", &format!("/passkeys/{passkey}/confirm"), code).await;
    let holder = (confirmed.status, &confirmed.json["holder"]);
    assert_eq!(holder, (200, &json!("grace@example.com")), "{confirmed:?}");
    let listed = daemon.get(&ada, "/passkeys").await;
    assert!(
        listed.json["items"][0]["countsFrom"].is_string(),
        "on the first day nothing is delayed: {listed:?}"
    );

    // She reads the change, types its tail, and signs.
    let page = browser.get(&path).await;
    assert!(
        page.text.contains("Approve with a passkey") && !page.text.contains("value=\"approve\""),
        "{}",
        page.text
    );
    let asked = data(&page.text, "data-passkey=\"get\"", "challenge");
    assert_eq!(data(&page.text, "data-passkey=\"get\"", "known"), passkey);
    let (hash, ticket) = (hidden(&page.text, "hash"), hidden(&page.text, "ticket"));
    let answer = device.answer(&asked).to_string();
    let decide = async |tail: &str, ticket: &str, answer: &str| {
        let fields = [
            ("form", form.as_str()),
            ("hash", &hash),
            ("decision", "approve-passkey"),
            ("tail", tail),
            ("ticket", ticket),
            ("answer", answer),
            ("comment", "looked at it"),
        ];
        browser.post(&path, &fields).await
    };
    for (wrong, tail, ticket, answer) in [
        ("the tail", "aaaaaa", &*ticket, &*answer),
        ("no answer", tail, &*ticket, ""),
        ("no JSON", tail, &*ticket, "{"),
        ("no ticket", tail, "", &*answer),
        ("another ticket", tail, &*hidden(&you, "ticket"), &*answer),
    ] {
        let page = decide(tail, ticket, answer).await;
        assert_eq!(page.status, 422, "{wrong}: {}", page.text);
    }
    let done = decide(tail, &ticket, &answer).await;
    assert_eq!((done.status, done.to.as_deref()), (303, Some(path.as_str())), "{}", done.text);
    let rotation = daemon.until(&ada, &id, |it| it["state"] == "completed").await;
    let vote = &rotation["approvals"]["given"][0];
    assert_eq!((&vote["by"], &vote["method"]), (&json!("grace"), &json!("passkey")), "{vote}");

    crate::evidence::signed_by_a_passkey(&daemon, &id);

    // Lost: an admin removes it, and it is gone.
    let removed = daemon.call(&own, "DELETE", &format!("/passkeys/{passkey}"), json!(null)).await;
    assert_eq!(removed.status, 200, "{removed:?}");
    let gone = daemon.call(&own, "DELETE", &format!("/passkeys/{passkey}"), json!(null)).await;
    assert_eq!(gone.problem(404), "not-found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sees_where_one_is_signed_in_and_ends_it_there() {
    let daemon = Daemon::start().await;
    let (vera, bob) = (daemon.token("vera", "viewer"), daemon.token("bob", "viewer"));
    let (here, there) = (Browser::signed_in(&daemon, &vera).await, Browser::signed_in(&daemon, &vera).await);
    let stranger = Browser::signed_in(&daemon, &bob).await;
    let page = here.get("/you").await;
    assert_eq!(page.text.matches("Sign out there").count(), 1, "{}", page.text);
    let (form, other) = (hidden(&page.text, "form"), hidden(&page.text, "about"));
    let theirs = hidden(&stranger.get("/you").await.text, "form");
    let foreign = stranger.post("/you", &[("form", &*theirs), ("decision", "end"), ("about", &other)]).await;
    assert_eq!(foreign.status, 404, "{}", foreign.text);
    assert_eq!(there.get("/you").await.status, 200, "nobody ends another's");
    let ended = here.post("/you", &[("form", &*form), ("decision", "end"), ("about", &other)]).await;
    assert_eq!(ended.status, 303, "{}", ended.text);
    assert_eq!(there.get("/you").await.to.as_deref(), Some("/login?to=%2Fyou"));
    assert_eq!(here.get("/you").await.status, 200);
}
