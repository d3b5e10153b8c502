//! The Atlas client against replies as Atlas sends them, and as proxies and bad days send them.

#![expect(clippy::unwrap_used, reason = "a test helper fails its test by panicking")]

mod auth;
mod calls;
mod digest;
mod fake;
mod replies;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use keywheel::atlas::{Atlas, TokenBudget};
use keywheel::config::{self, Credential, PatchBody};
use keywheel::domain::ids::GroupId;
use keywheel::domain::key::{KeyRef, Provider};
use keywheel::domain::rotation::outcome::Observation;
use keywheel::domain::time::{Clock, ManualClock, Span, Timestamp};
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
    build_with(url, credentials(&["default"], &service_account()), most_tokens, patch_body, request_timeout)
}

fn build_with(
    url: &str,
    credentials: BTreeMap<String, Credential>,
    most_tokens: usize,
    patch_body: PatchBody,
    request_timeout: Duration,
) -> Setup {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let clock = ManualClock::new(noon());
    let request_timeout = Span::from_millis(u64::try_from(request_timeout.as_millis()).unwrap());
    let options = config::Atlas { base_url: url.to_owned(), request_timeout, patch_body, credentials };
    let atlas = Atlas::new(
        &options,
        Arc::new(clock.clone()) as Arc<dyn Clock>,
        Arc::new(Counted { taken: AtomicUsize::new(0), most: most_tokens }),
    );
    Setup { atlas: atlas.unwrap(), clock }
}

fn service_account() -> Credential {
    Credential::ServiceAccount { client_id: "mdb_sa_id_1".to_owned(), client_secret: Secret::new(SECRET) }
}

fn credentials(names: &[&str], credential: &Credential) -> BTreeMap<String, Credential> {
    names.iter().map(|name| ((*name).to_owned(), credential.clone())).collect()
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
    let build = |url: &str| {
        let options = config::Atlas {
            base_url: url.to_owned(),
            request_timeout: Span::from_secs(9),
            patch_body: PatchBody::KeyOnly,
            credentials: credentials(&["a"], &service_account()),
        };
        let budget = Arc::new(Counted { taken: AtomicUsize::new(0), most: 1 });
        Atlas::new(&options, Arc::new(ManualClock::new(noon())), budget)
    };
    for url in [
        "hunter2",
        "ftp://cloud.mongodb.com",
        "https://me:hunter2@cloud.mongodb.com",
        "https://cloud.mongodb.com?x=1",
    ] {
        let error = build(url).err().unwrap();
        let text = error.to_string();
        assert!(text.contains("atlas.base_url") && !text.contains("hunter2"), "{text}");
    }
    let atlas = build("http://127.0.0.1:1").unwrap();
    assert!(!format!("{atlas:?} {:?}", service_account()).contains("canary"));
}
