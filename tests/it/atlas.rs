//! The Atlas client against replies as Atlas sends them, and as proxies and bad days send them.

#![expect(clippy::unwrap_used, reason = "a test helper fails its test by panicking")]

mod auth;
mod calls;
mod digest;
mod fake;
mod replies;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use keywheel::atlas::{Atlas, AtlasError, AtlasOptions, Credential, CredentialKind, PatchBody, TokenBudget};
use keywheel::domain::ids::GroupId;
use keywheel::domain::key::{KeyRef, Provider};
use keywheel::domain::rotation::outcome::Observation;
use keywheel::domain::time::{Clock, ManualClock, Timestamp};
use keywheel::secret::Secret;

use fake::{Fake, GENEROUS};

const GROUP: &str = "32b6e34b3d91647abb20e7b8";
const SECRET: &str = "mdb_sa_sk_canary";
const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const AZURE: &str = "https://kv-prod.vault.azure.net/keys/cmk/9c1e5b0c7d3a4f0f8e2b6a5d4c3b2a10";
const GCP: &str = "projects/p/locations/global/keyRings/r/cryptoKeys/k/cryptoKeyVersions/7";

/// Counts, and refuses from a number on.
struct Counted {
    taken: AtomicUsize,
    most: usize,
}

impl TokenBudget for Counted {
    fn take<'a>(&'a self, credential: &'a str, now: Timestamp) -> BoxFuture<'a, Result<(), Timestamp>> {
        assert_eq!(credential, "default");
        let taken = self.taken.fetch_add(1, Ordering::SeqCst);
        let room_at = now + Duration::from_secs(41);
        std::future::ready(if taken < self.most { Ok(()) } else { Err(room_at) }).boxed()
    }
}

struct Setup {
    atlas: Atlas,
    clock: ManualClock,
}

fn noon() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

fn build(url: &str, most_tokens: usize, patch_body: PatchBody, request_timeout: Duration) -> Setup {
    build_with(url, vec![credential("default")], most_tokens, patch_body, request_timeout)
}

fn build_with(
    url: &str,
    credentials: Vec<Credential>,
    most_tokens: usize,
    patch_body: PatchBody,
    request_timeout: Duration,
) -> Setup {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let clock = ManualClock::new(noon());
    let atlas = Atlas::new(
        AtlasOptions { base_url: url.parse().unwrap(), request_timeout, patch_body },
        credentials,
        Arc::new(clock.clone()) as Arc<dyn Clock>,
        Arc::new(Counted { taken: AtomicUsize::new(0), most: most_tokens }),
    );
    Setup { atlas: atlas.unwrap(), clock }
}

fn credential(name: &str) -> Credential {
    let client_id = "mdb_sa_id_1".to_owned();
    let kind = CredentialKind::ServiceAccount { client_id, client_secret: Secret::new(SECRET) };
    Credential { name: name.to_owned(), kind }
}

fn client(fake: &Fake) -> Setup {
    build(&fake.url, 100, PatchBody::KeyOnly, GENEROUS)
}

fn group() -> GroupId {
    GROUP.parse().unwrap()
}

fn key(provider: Provider, text: &str) -> KeyRef {
    KeyRef::parse(provider, text).unwrap()
}

fn enabled(key: &str) -> String {
    format!(
        r#"{{"awsKms":{{"customerMasterKeyID":"{key}","enabled":true,"region":"US_EAST_1","valid":true}}}}"#
    )
}

impl Setup {
    async fn observe(&self) -> Result<Observation, keywheel::domain::rotation::outcome::Failure> {
        self.atlas.observe("default", &group(), GENEROUS).await
    }

    async fn set_key(&self) -> keywheel::domain::rotation::outcome::PatchReply {
        self.atlas.set_key("default", &group(), &key(Provider::Aws, ARN), GENEROUS).await
    }
}

#[test]
fn options_that_cannot_work_are_refused_when_the_program_starts() {
    let build = |url: &str, credentials: Vec<Credential>| {
        let options = AtlasOptions {
            base_url: url.parse().unwrap(),
            request_timeout: GENEROUS,
            patch_body: PatchBody::KeyOnly,
        };
        let budget = Arc::new(Counted { taken: AtomicUsize::new(0), most: 1 });
        Atlas::new(options, credentials, Arc::new(ManualClock::new(noon())), budget)
    };
    for url in
        ["ftp://cloud.mongodb.com", "https://me:hunter2@cloud.mongodb.com", "https://cloud.mongodb.com?x=1"]
    {
        let error = build(url, vec![]).err().unwrap();
        let text = error.to_string();
        assert!(text.contains("atlas.base_url") && !text.contains("hunter2"), "{text}");
    }
    let twice = build("http://127.0.0.1:1", vec![credential("a"), credential("a")]).err().unwrap();
    assert!(matches!(twice, AtlasError::DuplicateCredential(name) if name == "a"));
    let atlas = build("http://127.0.0.1:1", vec![credential("a")]).unwrap();
    assert!(!format!("{atlas:?} {:?}", credential("a")).contains("canary"));
}
