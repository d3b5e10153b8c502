//! API keys: what a challenge leads to, how long a nonce serves, and what a second 401 means.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use keywheel::config::{Credential, PatchBody};
use keywheel::domain::key::Provider;
use keywheel::domain::rotation::outcome::{Class, PatchReply};
use keywheel::secret::Secret;
use md5::{Digest as _, Md5};
use sha2::Sha256;

use super::fake::{Fake, GENEROUS, Step, close, hang, ok, refusal, reply, unauthorized};
use super::{ARN, Setup, build_with, credentials, enabled, group};

const PUBLIC: &str = "abcdefgh";
const PRIVATE: &str = "11111111-canary-3333-4444-555555555555";

fn client(fake: &Fake) -> Setup {
    client_at(&fake.url)
}

fn client_at(url: &str) -> Setup {
    let key = Credential::ApiKey { public_key: PUBLIC.to_owned(), private_key: Secret::new(PRIVATE) };
    // No token request is allowed: a Digest login must not need one.
    build_with(url, credentials(&["default", "other"], &key), 0, PatchBody::KeyOnly, GENEROUS)
}

/// A challenge as Atlas words it.
fn offer(nonce: &str, stale: bool) -> String {
    format!(
        r#"Digest realm="MMS Public API", domain="", nonce="{nonce}", algorithm=MD5, qop="auth", stale={stale}"#
    )
}

fn reading() -> Step {
    ok(&enabled(ARN))
}

/// What the request proves, as a server reads it; `None` when it carries no login.
struct Login {
    nonce: String,
    count: String,
    header: String,
}

fn login(request: &str) -> Option<Login> {
    let header = request.lines().find_map(|line| line.strip_prefix("authorization: "))?;
    let value = |name: &str| {
        let value = header.split(&format!("{name}=")).nth(1).unwrap_or_default();
        value.split(", ").next().unwrap_or_default().trim_matches('"').to_owned()
    };
    let mut line = request.lines().next().unwrap().split(' ');
    let (method, target) = (line.next().unwrap(), line.next().unwrap());
    assert_eq!(value("uri"), target, "{header}");
    let hash = |text: String| match value("algorithm").as_str() {
        "SHA-256" => hex::encode(Sha256::digest(text)),
        _ => hex::encode(Md5::digest(text)),
    };
    let (nonce, count, cnonce) = (value("nonce"), value("nc"), value("cnonce"));
    let a1 = hash(format!("{PUBLIC}:{}:{PRIVATE}", value("realm")));
    let a2 = hash(format!("{method}:{target}"));
    let proof = match value("qop").as_str() {
        "" => hash(format!("{a1}:{nonce}:{a2}")),
        qop => hash(format!("{a1}:{nonce}:{count}:{cnonce}:{qop}:{a2}")),
    };
    assert_eq!(value("response"), proof, "{header}");
    Some(Login { nonce, count, header: header.to_owned() })
}

/// Nonce and count of every request, checked as a server would.
fn uses(fake: &Fake) -> Vec<(String, String)> {
    let pair = |call: &String| login(call).map_or_else(Default::default, |it| (it.nonce, it.count));
    fake.calls().iter().map(pair).collect()
}

fn used(nonce: &str, count: u32) -> (String, String) {
    (nonce.to_owned(), format!("{count:08x}"))
}

fn nothing() -> (String, String) {
    Default::default()
}

#[tokio::test]
async fn a_challenge_is_answered_and_its_nonce_serves_the_next_calls_unasked() {
    let fake =
        Fake::start([unauthorized(&offer("one", false)), reading(), reading(), reply(202, "", "{}")]).await;
    let setup = client(&fake);
    setup.observe().await.unwrap();
    setup.observe().await.unwrap();
    assert!(matches!(setup.set_key().await, PatchReply::Accepted));
    assert_eq!(uses(&fake), [nothing(), used("one", 1), used("one", 2), used("one", 3)]);
    assert!(!fake.calls()[0].contains("authorization:"));
    assert!(fake.token_calls().is_empty());
}

#[tokio::test]
async fn the_query_and_the_base_path_are_part_of_the_proof() {
    let page = || ok(r#"{"results":[]}"#);
    let fake = Fake::start([unauthorized(&offer("one", false)), page()]).await;
    let atlas = client_at(&format!("{}/prefix/", fake.url)).atlas;
    atlas.cmk_clusters("default", &group(), Provider::Aws, GENEROUS).await.unwrap();
    let header = login(&fake.calls()[1]).unwrap().header;
    assert!(header.contains("uri=\"/prefix/api/atlas/v2/groups/"), "{header}");
    assert!(header.contains("/clusters?itemsPerPage=50&pageNum=1\""), "{header}");
}

#[tokio::test]
async fn a_new_nonce_restarts_once_whether_it_says_stale_or_not() {
    for stale in [true, false] {
        let fake = Fake::start([
            unauthorized(&offer("one", false)),
            reading(),
            unauthorized(&offer("two", stale)),
            reading(),
            reading(),
        ])
        .await;
        let setup = client(&fake);
        for _ in 0..3 {
            setup.observe().await.unwrap();
        }
        let expected = [nothing(), used("one", 1), used("one", 2), used("two", 1), used("two", 2)];
        assert_eq!(uses(&fake), expected, "stale={stale}");
    }
}

#[tokio::test]
async fn the_nonce_named_for_the_next_request_is_used() {
    let named = "Content-Type: application/json\r\nAuthentication-Info: qop=auth, nextnonce=\"two\"\r\n";
    let fake =
        Fake::start([unauthorized(&offer("one", false)), reply(200, named, enabled(ARN)), reading()]).await;
    let setup = client(&fake);
    setup.observe().await.unwrap();
    setup.observe().await.unwrap();
    assert_eq!(uses(&fake)[2], used("two", 1));
}

#[tokio::test]
async fn a_second_401_is_an_authentication_failure() {
    let fake = Fake::start((0..9).map(|number| unauthorized(&offer(&format!("n{number}"), true)))).await;
    let setup = client(&fake);
    let failure = setup.observe().await.unwrap_err();
    assert_eq!((failure.class, failure.status), (Class::Auth, Some(401)));
    assert_eq!(failure.detail, "You are not authorized for this resource.");
    assert_eq!(fake.calls().len(), 2);
    assert!(matches!(setup.set_key().await, PatchReply::Auth(_)));
    assert_eq!(fake.calls().len(), 4);
}

#[tokio::test]
async fn the_same_nonce_again_is_the_key_refused_unless_it_says_stale() {
    for (stale, calls) in [(false, 3), (true, 4)] {
        let fake = Fake::start([
            unauthorized(&offer("one", false)),
            reading(),
            unauthorized(&offer("one", stale)),
            reading(),
        ])
        .await;
        let setup = client(&fake);
        setup.observe().await.unwrap();
        assert_eq!(setup.observe().await.is_ok(), stale);
        assert_eq!(fake.calls().len(), calls);
    }
}

#[tokio::test]
async fn a_401_about_the_project_leaves_the_nonce_and_is_final() {
    let fake = Fake::start([
        unauthorized(&offer("one", false)),
        refusal(401, "NOT_IN_GROUP"),
        refusal(401, "NOT_IN_GROUP"),
        reading(),
    ])
    .await;
    let setup = client(&fake);
    for _ in 0..2 {
        let failure = setup.observe().await.unwrap_err();
        assert_eq!((failure.class, failure.code.as_deref()), (Class::Auth, Some("NOT_IN_GROUP")));
    }
    setup.observe().await.unwrap();
    assert_eq!(uses(&fake), [nothing(), used("one", 1), used("one", 2), used("one", 3)]);
}

#[tokio::test]
async fn a_patch_goes_out_again_after_a_401_and_never_after_silence() {
    let fake = Fake::start([
        unauthorized(&offer("one", false)),
        reading(),
        unauthorized(&offer("two", true)),
        reply(202, "", "{}"),
        close(),
        unauthorized(&offer("three", true)),
        close(),
    ])
    .await;
    let setup = client(&fake);
    setup.observe().await.unwrap();
    assert!(matches!(setup.set_key().await, PatchReply::Accepted));
    let calls = fake.calls();
    let body = |call: &str| call.split_once("\r\n\r\n").unwrap().1.to_owned();
    assert_eq!(body(&calls[2]), body(&calls[3]));
    assert!(matches!(setup.set_key().await, PatchReply::Unknown(_)));
    assert_eq!(fake.calls().len(), 5, "not repeated");
    assert!(matches!(setup.set_key().await, PatchReply::Unknown(_)), "the second sending may have arrived");
    assert_eq!(fake.calls().len(), 7);
}

#[tokio::test]
async fn the_stronger_of_two_challenges_is_answered() {
    let md5 = offer("weak", false);
    let both = format!(
        "{md5}\r\nWWW-Authenticate: Basic realm=\"x\", Digest realm=\"MMS Public API\", nonce=\"strong\", algorithm=SHA-256, qop=\"auth\""
    );
    let fake = Fake::start([unauthorized(&both), reading()]).await;
    client(&fake).observe().await.unwrap();
    assert_eq!(uses(&fake)[1], used("strong", 1));
}

#[tokio::test]
async fn a_challenge_without_qop_is_answered_in_the_older_form() {
    let fake =
        Fake::start([unauthorized("Digest realm=\"MMS Public API\", nonce=\"old\""), reading(), reading()])
            .await;
    let setup = client(&fake);
    setup.observe().await.unwrap();
    setup.observe().await.unwrap();
    let header = login(&fake.calls()[2]).unwrap().header;
    assert!(!header.contains("nc=") && !header.contains("cnonce") && !header.contains("qop"), "{header}");
}

#[tokio::test]
async fn a_challenge_that_cannot_be_used_is_an_error_that_says_why() {
    for (challenge, why) in [
        ("Digest realm=\"r\"", "it has no nonce"),
        ("Digest realm=\"r\", nonce=\"n", "its nonce begins with a quote that does not end"),
        ("Digest realm=\"r\", nonce=\"n\", algorithm=MD17", "its algorithm \"MD17\" is unknown"),
        ("Digest realm=\"r\", nonce=\"n\", qop=\"auth-int\"", "its qop \"auth-int\" does not offer auth"),
        ("Bearer realm=\"r\"", "without a Digest challenge; it offers Bearer"),
        (",,=,\"", "without a challenge"),
    ] {
        let fake = Fake::start([unauthorized(challenge), unauthorized(challenge)]).await;
        let setup = client(&fake);
        let failure = setup.observe().await.unwrap_err();
        assert_eq!((failure.class, failure.status), (Class::Auth, Some(401)));
        let start = "no login with the API key of the credential \"default\": Atlas answered 401 with";
        assert!(failure.detail.starts_with(start) && failure.detail.ends_with(why), "{}", failure.detail);
        assert!(matches!(setup.set_key().await, PatchReply::Auth(_)));
        assert_eq!(fake.calls().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_at_the_same_time_never_use_a_count_twice() {
    let fake = Fake::start((0..80).map(|_| reading())).await;
    fake.demand(&offer("one", false));
    let setup = Arc::new(client(&fake));
    for _ in 0..2 {
        let calls = (0..40).map(|_| {
            let setup = Arc::clone(&setup);
            crate::support::wait::spawn(async move { setup.observe().await.is_ok() })
        });
        for call in futures_util::future::join_all(calls).await {
            assert!(call.unwrap());
        }
    }
    let proven: Vec<_> = uses(&fake).into_iter().filter(|used| *used != nothing()).collect();
    let different: BTreeSet<_> = proven.iter().cloned().collect();
    assert_eq!((proven.len(), different.len()), (80, 80));
    assert_eq!(different.last(), Some(&used("one", 80)));
}

#[tokio::test]
async fn every_credential_has_nonces_of_its_own() {
    let fake = Fake::start((0..3).map(|_| reading())).await;
    fake.demand(&offer("one", false));
    let setup = client(&fake);
    setup.observe().await.unwrap();
    setup.atlas.observe("other", &group(), GENEROUS).await.unwrap();
    setup.observe().await.unwrap();
    let expected = [nothing(), used("one", 1), nothing(), used("one", 1), used("one", 2)];
    assert_eq!(uses(&fake), expected);
}

/// What a subscriber writes.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn neither_the_private_key_nor_its_hash_is_in_logs_errors_or_debug() {
    let lines = Lines::default();
    let sink = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || sink.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let fake = Fake::start([
        unauthorized(&offer("one", false)),
        reading(),
        unauthorized(&offer("two", true)),
        unauthorized(&offer("three", true)),
        unauthorized("Digest nonsense"),
        close(),
    ])
    .await;
    let setup = client(&fake);
    let first = setup.observe().await;
    let others = [setup.set_key().await, setup.set_key().await, setup.set_key().await];
    drop(guard);
    let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let said = format!("{:?} {first:?} {others:?} {logged}", setup.atlas);
    assert!(said.contains("atlas.call"), "the logs were read");
    let a1 = format!("{PUBLIC}:MMS Public API:{PRIVATE}");
    let wire = fake.calls().concat();
    for canary in [PRIVATE.to_owned(), "canary".to_owned(), hex::encode(Md5::digest(a1))] {
        assert!(!said.contains(&canary) && !wire.contains(&canary), "{canary} in:\n{said}");
    }
    for call in fake.calls() {
        let Some(header) = login(&call).map(|login| login.header) else { continue };
        let response = header.split("response=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        assert!(!said.contains(&response), "the proof is in:\n{said}");
    }
}

#[tokio::test]
async fn a_silent_atlas_ends_in_time() {
    let fake = Fake::start([hang()]).await;
    let limit = std::time::Duration::from_millis(500);
    let setup = client(&fake);
    let failure = setup.atlas.observe("default", &group(), limit).await.unwrap_err();
    assert_eq!(failure.class, Class::Unknown);
}
