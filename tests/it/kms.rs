//! Our three lookups against the simulator's key services over HTTP: neither was written from the
//! other, so that the two check each other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keywheel::config::kms::{AzureCredential, Follow, Kms, Login};
use keywheel::domain::key::{KeyRef, Place, Provider};
use keywheel::domain::time::{Clock, Span, SystemClock, Timestamp};
use keywheel::kms::{Connected, ErrorKind, Found, KeyState, KmsError, Watched, connect};
use keywheel::secret::Secret;
use keywheel::sim::fault::{Fault, Kind};
use keywheel::sim::world::{App, Facts, KeyState as SimState, demo_key};
use keywheel::sim::{Sim, World};
use serde_json::{Value, json};

const TENANT: &str = "00000000-0000-4000-8000-000000000002";
const APP: &str = "00000000-0000-4000-8000-000000000009";
const ACCESS_KEY: &str = "AKIAKEYWHEELDEMO0000";
const AWS_SECRET: &str = "keywheel-demo-aws";
const AZURE_SECRET: &str = "keywheel-demo-azure";
const EMAIL: &str = "keywheel@kw-demo.iam.gserviceaccount.com";
const REGION: &str = "eu-central-1";
const RING: &str = "projects/kw-demo/locations/europe-west3/keyRings/atlas/cryptoKeys";
const LONG: Duration = Duration::from_secs(20);
const LIMIT: Span = Span::from_secs(20);

struct Site {
    sim: Sim,
    base: String,
}

impl Site {
    async fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sim = Sim::start(listener, World::demo(), Arc::new(SystemClock)).unwrap();
        let base = sim.base_url();
        Self { sim, base }
    }

    fn connect(&self, path: &str, login: Login) -> Arc<dyn Connected> {
        let endpoint = Some(format!("{}{path}", self.base).parse().unwrap());
        connect("test", Kms { timeout: LIMIT, endpoint, login }).unwrap()
    }

    fn aws(&self) -> Arc<dyn Connected> {
        self.connect("/kms/aws", aws_login(ACCESS_KEY, AWS_SECRET))
    }

    fn azure(&self) -> Arc<dyn Connected> {
        self.connect("/kms/azure", self.azure_login(AzureCredential::Secret(Secret::new(AZURE_SECRET))))
    }

    fn azure_login(&self, proof: AzureCredential) -> Login {
        Login::Azure {
            tenant_id: Some(TENANT.to_owned()),
            client_id: Some(APP.to_owned()),
            proof: Some(proof),
            authority: Some(format!("{}/kms/entra", self.base).parse().unwrap()),
        }
    }

    /// A client whose account the simulator knows from now on.
    fn gcp(&self, follow: Follow) -> Arc<dyn Connected> {
        let (account, public) = service_account();
        self.sim.with(|world| world.kms.gcp_accounts.insert(EMAIL.to_owned(), public));
        self.connect("/kms/gcp", Login::Gcp { service_account: Some(account), follow })
    }

    fn set(&self, key: &str, state: SimState) {
        self.sim.with(|world| world.keys.insert(key.to_owned(), state));
    }

    fn fact(&self, key: &str, change: impl FnOnce(&mut Facts)) {
        self.sim.with(|world| change(world.kms.facts.entry(key.to_owned()).or_default()));
    }

    fn deny(&self, actions: &[&str]) {
        self.sim.with(|world| world.kms.denied = actions.iter().map(|it| (*it).to_owned()).collect());
    }

    fn fault(&self, operation: &str, kind: Kind) {
        let fault = Fault { operation: operation.to_owned(), group_id: None, skip: 0, times: Some(1), kind };
        self.sim.with(|world| world.faults.push(fault));
    }

    fn asked(&self, operation: &str) -> usize {
        self.sim.log().iter().filter(|entry| entry.operation == operation).count()
    }

    async fn control(&self, path: &str, body: Value) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let reply = client.post(format!("{}{path}", self.base)).json(&body).send().await.unwrap();
        assert_eq!(reply.status(), 204, "{}", reply.text().await.unwrap());
    }
}

fn aws_login(id: &str, secret: &str) -> Login {
    Login::Aws { region: None, profile: None, keys: Some((id.to_owned(), Secret::new(secret))) }
}

/// A service account's key file, and the public key in it (PEM).
fn service_account() -> (Secret, String) {
    let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let pem = |label: &str, der: &[u8]| {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    };
    let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    let public =
        AsDer::<PublicKeyX509Der<'_>>::as_der(aws_lc_rs::signature::KeyPair::public_key(&pair)).unwrap();
    let file = json!({
        "type": "service_account", "client_email": EMAIL, "private_key_id": "1", "project_id": "kw-demo",
        "private_key": pem("PRIVATE KEY", private.as_ref()), "universe_domain": "googleapis.com",
    });
    (Secret::new(file.to_string()), pem("PUBLIC KEY", public.as_ref()))
}

fn here() -> Place {
    Place { aws_region: Some(REGION.to_owned()), azure_vault: None }
}

fn now() -> Timestamp {
    SystemClock.now()
}

fn key(provider: Provider, text: &str) -> KeyRef {
    KeyRef::parse(provider, text).unwrap()
}

fn aws_key(version: u32) -> KeyRef {
    key(Provider::Aws, &demo_key("AWS", "payments-prod", 1, version))
}

fn azure_key(version: u32) -> KeyRef {
    key(Provider::Azure, &demo_key("AZURE", "identity-prod", 5, version))
}

fn gcp_key(version: u32) -> KeyRef {
    key(Provider::Gcp, &demo_key("GCP", "analytics-prod", 9, version))
}

async fn newest(
    service: &Arc<dyn Connected>,
    key: &KeyRef,
    alias: Option<&str>,
) -> Result<Option<Found>, KmsError> {
    service.newest(Watched { key, place: &here(), alias }, now()).await
}

#[track_caller]
fn failed<T: std::fmt::Debug>(result: Result<T, KmsError>, kind: ErrorKind, advice: &str) -> KmsError {
    let error = result.unwrap_err();
    assert_eq!(error.kind, kind, "{error:?}");
    assert!(error.advice.contains(advice), "{advice:?} not in {error:?}");
    assert!(!error.message.is_empty(), "{error:?}");
    error
}

#[tokio::test]
async fn on_aws_the_newest_key_is_the_one_its_alias_points_to() {
    let site = Site::new().await;
    let aws = site.aws();
    let (old, new) = (aws_key(1), aws_key(2));
    assert_eq!(newest(&aws, &old, None).await.unwrap(), None);
    assert_eq!(site.sim.log().len(), 0, "nothing names a key, so nothing is asked");
    let alias = Some("alias/payments-prod");
    let found = newest(&aws, &old, alias).await.unwrap().unwrap();
    assert!(found.key.is_same(&old, &here()));
    assert_eq!(
        (found.state, found.suits, found.region.as_deref()),
        (KeyState::Enabled, Ok(()), Some(REGION))
    );
    assert_eq!(found.created, Some("2026-01-01T00:00:00Z".parse().unwrap()));
    assert_eq!(found.material.map(|id| id.len()), Some(64));
    site.control("/sim/v1/aliases", json!({ "alias": "alias/payments-prod", "key": new.to_string() })).await;
    let found = newest(&aws, &old, alias).await.unwrap().unwrap();
    assert_eq!(found.key.to_string(), format!("arn:aws:kms:{REGION}:111122223333:key/{new}"));
    // An ARN says where to look, whatever Atlas' block says; the alias is looked up in its account.
    let arn = key(Provider::Aws, &format!("arn:aws:kms:us-east-1:999999999999:key/{old}"));
    let found = newest(&aws, &arn, alias).await.unwrap().unwrap();
    assert_eq!(found.key.to_string(), format!("arn:aws:kms:us-east-1:999999999999:key/{new}"));
    let foreign = newest(&aws, &azure_key(1), alias).await;
    failed(foreign, ErrorKind::Broken, "--kms");
}

#[tokio::test]
async fn on_azure_the_newest_version_is_the_youngest_that_may_be_used_now() {
    let site = Site::new().await;
    let azure = site.azure();
    let watched = azure_key(1);
    assert!(newest(&azure, &watched, None).await.unwrap().unwrap().key.is_same(&azure_key(2), &here()));
    // Ids say nothing about age: the list is in their order, three to a page.
    site.sim.with(|world| world.kms.page = 3);
    let day = Duration::from_secs(86_400);
    for (version, month) in [(3, 9), (4, 5), (5, 8), (6, 3), (7, 10), (8, 11), (9, 12), (10, 2)] {
        let id = azure_key(version).to_string();
        site.set(&id, SimState::Enabled);
        site.fact(&id, |facts| facts.created = format!("2026-{month:02}-01T00:00:00Z").parse().ok());
    }
    site.set(&azure_key(9).to_string(), SimState::Disabled);
    site.fact(&azure_key(8).to_string(), |facts| facts.not_before = Some(now() + day));
    site.fact(&azure_key(7).to_string(), |facts| facts.expires = "2026-10-02T00:00:00Z".parse().ok());
    site.fact(&azure_key(3).to_string(), |facts| facts.expires = Some(now() + day));
    let before = site.asked("vault_versions");
    let found = newest(&azure, &watched, None).await.unwrap().unwrap();
    assert_eq!(found.key, azure_key(3));
    assert_eq!(found.created, Some("2026-09-01T00:00:00Z".parse().unwrap()));
    assert!(found.expires.is_some_and(|at| at > now()) && found.not_before.is_none());
    assert_eq!((found.state, found.suits), (KeyState::Enabled, Ok(())));
    assert_eq!(site.asked("vault_versions") - before, 4, "ten versions on pages of three");
    assert_eq!(site.asked("entra_token"), 1, "one token serves them all");
    for version in 1..=10 {
        site.set(&azure_key(version).to_string(), SimState::Disabled);
    }
    failed(newest(&azure, &watched, None).await, ErrorKind::Unusable, "enable a version");
    failed(newest(&azure, &gcp_key(1), None).await, ErrorKind::Broken, "--kms");
}

#[tokio::test]
async fn of_two_versions_made_in_the_same_second_the_one_in_use_counts() {
    let site = Site::new().await;
    for version in [1, 2] {
        site.fact(&azure_key(version).to_string(), |facts| {
            facts.created = "2026-01-01T00:00:00Z".parse().ok();
        });
    }
    for version in [1, 2] {
        let found = newest(&site.azure(), &azure_key(version), None).await.unwrap().unwrap();
        assert_eq!(found.key, azure_key(version));
    }
}

#[tokio::test]
async fn on_google_the_primary_counts_or_the_highest_number_that_is_enabled() {
    let site = Site::new().await;
    let (primary, follower) = (site.gcp(Follow::Primary), site.gcp(Follow::Newest));
    // Both clients have keys of their own; the simulator knows the last one.
    let watched = gcp_key(1);
    failed(newest(&primary, &watched, None).await, ErrorKind::Credential, "service account");
    site.sim.with(|world| world.kms.page = 2);
    for version in 3..=11 {
        site.set(&gcp_key(version).to_string(), SimState::Enabled);
    }
    site.set(&gcp_key(11).to_string(), SimState::Disabled);
    let found = newest(&follower, &watched, None).await.unwrap().unwrap();
    assert_eq!((found.key, found.region.as_deref()), (gcp_key(10), Some("europe-west3")));
    let primary = site.gcp(Follow::Primary);
    failed(newest(&primary, &watched, None).await, ErrorKind::Unusable, "set-primary-version");
    let body = json!({ "id": gcp_key(4).to_string(), "primary": true });
    site.control("/sim/v1/keys", body).await;
    let found = newest(&primary, &watched, None).await.unwrap().unwrap();
    assert_eq!((found.key, found.state, found.suits), (gcp_key(4), KeyState::Enabled, Ok(())));
    site.sim.with(|world| world.kms.primaries.insert(format!("{RING}/analytics-prod"), String::new()));
    let error = failed(newest(&primary, &watched, None).await, ErrorKind::Unusable, "follow");
    assert!(error.message.contains("no primary"), "{error}");
}

#[tokio::test]
async fn a_key_is_described_as_its_service_says() {
    let site = Site::new().await;
    let (aws, azure, gcp) = (site.aws(), site.azure(), site.gcp(Follow::Primary));
    let (place, end) = (here(), "2027-03-01T00:00:00Z".parse::<Timestamp>().unwrap());
    let pending = KeyState::PendingDeletion { at: Some(end) };
    let other = |word: &str| KeyState::Other(word.to_owned());
    for (service, key, state, wanted) in [
        (&aws, aws_key(2), SimState::Enabled, KeyState::Enabled),
        (&aws, aws_key(2), SimState::Disabled, KeyState::Disabled),
        (&aws, aws_key(2), SimState::PendingDeletion, pending.clone()),
        (&aws, aws_key(2), SimState::Pending, other("PendingImport")),
        (&azure, azure_key(2), SimState::Enabled, KeyState::Enabled),
        (&azure, azure_key(2), SimState::Disabled, KeyState::Disabled),
        (&gcp, gcp_key(2), SimState::Enabled, KeyState::Enabled),
        (&gcp, gcp_key(2), SimState::Disabled, KeyState::Disabled),
        (&gcp, gcp_key(2), SimState::PendingDeletion, pending),
        (&gcp, gcp_key(2), SimState::Destroyed, other("DESTROYED")),
        (&gcp, gcp_key(2), SimState::Pending, other("PENDING_GENERATION")),
    ] {
        let id = key.to_string();
        site.set(&id, state);
        site.fact(&id, |facts| facts.deletion_date = Some(end));
        let found = service.describe(&key, &place).await.unwrap();
        assert!(found.key.is_same(&key, &place));
        assert_eq!((found.state, found.suits), (wanted, Ok(())), "{id} {state:?}");
    }
    for (service, key, kind) in [
        (&aws, aws_key(2), "RSA_2048"),
        (&aws, aws_key(2), "HMAC_256"),
        (&azure, azure_key(2), "EC"),
        (&gcp, gcp_key(2), "ASYMMETRIC_SIGN"),
    ] {
        site.set(&key.to_string(), SimState::Enabled);
        for id in [key.to_string(), key.to_string().replace("ions/2", "ions/1")] {
            site.fact(&id, |facts| facts.kind = Some(kind.to_owned()));
        }
        let found = service.describe(&key, &place).await.unwrap();
        assert!(found.suits.unwrap_err().to_string().contains(kind), "{kind}");
    }
    site.fact(&azure_key(1).to_string(), |facts| facts.operations = Some(vec!["encrypt".to_owned()]));
    let found = azure.describe(&azure_key(1), &place).await.unwrap();
    assert!(found.suits.unwrap_err().to_string().contains("lack decrypt"));
    site.fact(&aws_key(1).to_string(), |facts| facts.expires = Some(end));
    assert_eq!(aws.describe(&aws_key(1), &place).await.unwrap().expires, Some(end));
}

#[tokio::test]
async fn a_probe_encrypts_and_decrypts_and_a_key_that_cannot_is_unusable() {
    let site = Site::new().await;
    let (aws, azure, gcp) = (site.aws(), site.azure(), site.gcp(Follow::Primary));
    let place = here();
    for (service, key, name) in
        [(&aws, aws_key(2), "aws"), (&azure, azure_key(2), "vault"), (&gcp, gcp_key(2), "gcp")]
    {
        service.probe(&key, &place).await.unwrap();
        for verb in ["encrypt", "decrypt"] {
            assert_eq!(site.asked(&format!("{name}_{verb}")), 1, "{name} {verb}");
        }
    }
    for (service, key, state, advice) in [
        (&aws, aws_key(2), SimState::Disabled, "enable-key"),
        (&aws, aws_key(2), SimState::PendingDeletion, "cancel-key-deletion"),
        (&aws, aws_key(2), SimState::Pending, "import"),
        (&azure, azure_key(2), SimState::Disabled, "enable this version"),
        (&azure, azure_key(2), SimState::Expired, "dates"),
        (&azure, azure_key(2), SimState::NotYetActive, "dates"),
        (&gcp, gcp_key(2), SimState::Disabled, "enable or restore"),
        (&gcp, gcp_key(2), SimState::PendingDeletion, "enable or restore"),
    ] {
        site.set(&key.to_string(), state);
        failed(service.probe(&key, &place).await, ErrorKind::Unusable, advice);
    }
    // Operations that a key does not permit are Azure's own.
    site.set(&azure_key(2).to_string(), SimState::Enabled);
    site.fact(&azure_key(2).to_string(), |facts| facts.operations = Some(vec!["sign".to_owned()]));
    failed(azure.probe(&azure_key(2), &place).await, ErrorKind::Unusable, "permitted operations");
}

#[tokio::test]
async fn what_is_denied_names_the_permission_to_grant() {
    let site = Site::new().await;
    let (aws, azure, gcp) = (site.aws(), site.azure(), site.gcp(Follow::Newest));
    let place = here();
    for (action, service, key, code, advice) in [
        ("kms:DescribeKey", &aws, aws_key(2), "AccessDeniedException", "kms:DescribeKey"),
        ("keys/get", &azure, azure_key(2), "ForbiddenByPolicy", "Key Vault Reader"),
        ("cloudkms.cryptoKeyVersions.get", &gcp, gcp_key(2), "PERMISSION_DENIED", "roles/cloudkms.viewer"),
        ("cloudkms.cryptoKeys.get", &gcp, gcp_key(2), "PERMISSION_DENIED", "roles/cloudkms.viewer"),
    ] {
        site.deny(&[action]);
        let error = failed(service.describe(&key, &place).await, ErrorKind::Denied, advice);
        assert_eq!(error.code.as_deref(), Some(code));
        let said = action.replace("keys/", "keys ");
        assert!(error.message.contains(&said), "{error}");
    }
    for (action, service, key, advice) in [
        ("kms:Encrypt", &aws, aws_key(2), "kms:Encrypt"),
        ("kms:Decrypt", &aws, aws_key(2), "kms:Decrypt"),
        ("keys/encrypt", &azure, azure_key(2), "Key Vault Crypto User"),
        ("keys/decrypt", &azure, azure_key(2), "encrypt and decrypt on keys"),
        (
            "cloudkms.cryptoKeyVersions.useToEncrypt",
            &gcp,
            gcp_key(2),
            "roles/cloudkms.cryptoKeyEncrypterDecrypter",
        ),
        (
            "cloudkms.cryptoKeyVersions.useToDecrypt",
            &gcp,
            gcp_key(2),
            "roles/cloudkms.cryptoKeyEncrypterDecrypter",
        ),
    ] {
        site.deny(&[action]);
        failed(service.probe(&key, &place).await, ErrorKind::Denied, advice);
        // Reading is another permission.
        service.describe(&key, &place).await.unwrap();
    }
    site.deny(&["keys/list", "cloudkms.cryptoKeyVersions.list"]);
    failed(newest(&azure, &azure_key(1), None).await, ErrorKind::Denied, "get and list");
    failed(newest(&gcp, &gcp_key(1), None).await, ErrorKind::Denied, "viewer");
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let site = Site::new().await;
    let (aws, azure, gcp) = (site.aws(), site.azure(), site.gcp(Follow::Primary));
    let place = here();
    for (service, key) in [(&aws, aws_key(9)), (&azure, azure_key(9)), (&gcp, gcp_key(9))] {
        failed(service.describe(&key, &place).await, ErrorKind::NotFound, "check");
        failed(service.probe(&key, &place).await, ErrorKind::NotFound, "check");
    }
    failed(newest(&aws, &aws_key(1), Some("alias/nowhere")).await, ErrorKind::NotFound, "alias");
    site.fact(&aws_key(2).to_string(), |facts| facts.region = Some("us-east-1".to_owned()));
    failed(aws.describe(&aws_key(2), &place).await, ErrorKind::NotFound, "region");
    site.set(&azure_key(2).to_string(), SimState::PendingDeletion);
    failed(azure.describe(&azure_key(2), &place).await, ErrorKind::NotFound, "recovered");
    let other = key(Provider::Gcp, &gcp_key(1).to_string().replace("analytics-prod", "none"));
    failed(newest(&gcp, &other, None).await, ErrorKind::NotFound, "check project");
}

#[tokio::test]
async fn a_log_in_that_fails_says_what_to_renew() {
    let site = Site::new().await;
    let place = here();
    for (id, secret, code) in [
        (ACCESS_KEY, "canary", "InvalidSignatureException"),
        ("AKIANOBODY0000000000", AWS_SECRET, "UnrecognizedClientException"),
    ] {
        let aws = site.connect("/kms/aws", aws_login(id, secret));
        let error = failed(aws.describe(&aws_key(1), &place).await, ErrorKind::Credential, "secret");
        assert_eq!(error.code.as_deref(), Some(code));
    }
    // A profile that nobody has ends the search at once.
    let nowhere =
        Login::Aws { region: None, profile: Some("keywheel-has-no-such-profile".to_owned()), keys: None };
    let aws = site.connect("/kms/aws", nowhere);
    failed(aws.describe(&aws_key(1), &place).await, ErrorKind::Credential, "profile");
    failed(aws.log_in().await, ErrorKind::Credential, "profile");
    let wrong = site.connect("/kms/azure", site.azure_login(AzureCredential::Secret(Secret::new("canary"))));
    let error = failed(wrong.describe(&azure_key(1), &place).await, ErrorKind::Credential, "secret's value");
    assert_eq!(error.code.as_deref(), Some("AADSTS7000215"));
    failed(wrong.log_in().await, ErrorKind::Credential, "secret's value");
    let azure = site.azure();
    site.sim.with(|world| world.kms.azure_apps.get_mut(APP).unwrap().expired = true);
    let error = failed(azure.log_in().await, ErrorKind::Credential, "has expired");
    assert!(error.message.contains("expired"), "{error}");
    site.sim.with(|world| world.kms.azure_apps.clear());
    failed(azure.log_in().await, ErrorKind::Credential, "tenant_id");
    let (account, _) = service_account();
    let gcp =
        site.connect("/kms/gcp", Login::Gcp { service_account: Some(account), follow: Follow::Primary });
    let error = failed(gcp.describe(&gcp_key(1), &place).await, ErrorKind::Credential, "service account");
    assert_eq!(error.code.as_deref(), Some("UNAUTHENTICATED"));
}

#[tokio::test]
async fn a_good_log_in_is_told_without_its_secret() {
    let site = Site::new().await;
    for service in [site.aws(), site.azure(), site.gcp(Follow::Primary)] {
        let said = service.log_in().await.unwrap();
        assert!(!said.is_empty() && !said.contains(AWS_SECRET) && !said.contains(AZURE_SECRET), "{said}");
    }
}

#[tokio::test]
async fn a_federated_token_is_read_anew_for_every_log_in() {
    let site = Site::new().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let azure = site.connect("/kms/azure", site.azure_login(AzureCredential::TokenFile(file.clone())));
    failed(azure.log_in().await, ErrorKind::Credential, "federated_token_file");
    std::fs::write(&file, "one\n").unwrap();
    failed(azure.log_in().await, ErrorKind::Credential, "no federated credential");
    site.sim.with(|world| {
        let app = App { tenant: TENANT.to_owned(), federated: Some("two".to_owned()), ..App::default() };
        world.kms.azure_apps.insert(APP.to_owned(), app);
    });
    std::fs::write(&file, "two\n").unwrap();
    azure.describe(&azure_key(1), &here()).await.unwrap();
}

#[tokio::test]
async fn a_token_that_the_vault_refuses_is_not_used_again() {
    let site = Site::new().await;
    let azure = site.azure();
    azure.describe(&azure_key(1), &here()).await.unwrap();
    // A simulator that starts over knows no tokens.
    site.sim.with(|world| *world = World::demo());
    failed(azure.describe(&azure_key(1), &here()).await, ErrorKind::Credential, "tenant_id");
    azure.describe(&azure_key(1), &here()).await.unwrap();
}

#[tokio::test]
async fn a_firewall_a_dead_port_and_a_service_that_is_down_are_unreachable() {
    let site = Site::new().await;
    let (aws, azure, gcp) = (site.aws(), site.azure(), site.gcp(Follow::Primary));
    let place = here();
    site.sim.with(|world| world.kms.firewalled.insert("kw-demo".to_owned()));
    let error = failed(azure.describe(&azure_key(1), &place).await, ErrorKind::Unreachable, "firewall");
    assert_eq!(error.code.as_deref(), Some("ForbiddenByFirewall"));
    assert!(error.message.contains("203.0.113.7"), "the address to allow: {error}");
    site.sim.with(|world| world.kms.firewalled.clear());
    let down = || Kind::Status { status: 503, code: None, retry_after: None };
    for (service, key, operation) in [
        (&aws, aws_key(1), "aws_describe"),
        (&azure, azure_key(1), "vault_get"),
        (&gcp, gcp_key(1), "gcp_version"),
    ] {
        site.fault(operation, down());
        failed(service.describe(&key, &place).await, ErrorKind::Unreachable, "firewall");
        site.fault(operation, Kind::DropRequest);
        failed(service.describe(&key, &place).await, ErrorKind::Unreachable, "DNS");
    }
    let closed = { tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap() };
    let dead = Site { sim: site.sim.clone(), base: format!("http://{closed}") };
    for (service, key) in
        [(dead.aws(), aws_key(1)), (dead.azure(), azure_key(1)), (dead.gcp(Follow::Primary), gcp_key(1))]
    {
        failed(service.describe(&key, &place).await, ErrorKind::Unreachable, "DNS");
        failed(service.probe(&key, &place).await, ErrorKind::Unreachable, "DNS");
    }
}

#[tokio::test]
async fn too_many_requests_are_throttled() {
    let site = Site::new().await;
    let place = here();
    for (service, key, operation, code) in [
        (site.aws(), aws_key(1), "aws_describe", "ThrottlingException"),
        (site.azure(), azure_key(1), "vault_get", "Throttled"),
        (site.gcp(Follow::Primary), gcp_key(1), "gcp_version", "RESOURCE_EXHAUSTED"),
    ] {
        let status = if operation == "aws_describe" { 400 } else { 429 };
        site.fault(operation, Kind::Status { status, code: Some(code.to_owned()), retry_after: None });
        let error = failed(service.describe(&key, &place).await, ErrorKind::Throttled, "poll less often");
        assert_eq!(error.code.as_deref(), Some(code));
        assert_eq!(site.asked(operation), 1, "asking again is not for us to decide");
    }
}

#[tokio::test]
async fn answers_that_make_no_sense_are_broken() {
    let site = Site::new().await;
    let (aws, azure, gcp) = (site.aws(), site.azure(), site.gcp(Follow::Primary));
    let place = here();
    for (service, key, operation) in [
        (&aws, aws_key(1), "aws_describe"),
        (&azure, azure_key(1), "vault_get"),
        (&gcp, gcp_key(1), "gcp_version"),
    ] {
        for status in [200, 302, 418] {
            site.fault(operation, Kind::Status { status, code: None, retry_after: None });
            failed(service.describe(&key, &place).await, ErrorKind::Broken, "endpoint");
        }
    }
    for (service, key, operation) in [(&azure, azure_key(1), "vault_get"), (&gcp, gcp_key(1), "gcp_version")]
    {
        site.fault(operation, Kind::Huge(2 * 1024 * 1024));
        let error = failed(service.describe(&key, &place).await, ErrorKind::Broken, "endpoint");
        assert!(error.message.contains("1 MiB"), "{error}");
    }
    let versionless = key(Provider::Azure, "https://kw-demo.vault.azure.net/keys/identity-prod");
    failed(azure.describe(&versionless, &place).await, ErrorKind::Broken, "newest");
}

#[tokio::test]
async fn a_slow_service_is_given_up_within_the_timeout() {
    let site = Site::new().await;
    let account = service_account().0;
    for (path, login, key, operation) in [
        ("/kms/aws", aws_login(ACCESS_KEY, AWS_SECRET), aws_key(1), "aws_describe"),
        (
            "/kms/azure",
            site.azure_login(AzureCredential::Secret(Secret::new(AZURE_SECRET))),
            azure_key(1),
            "entra_token",
        ),
        (
            "/kms/gcp",
            Login::Gcp { service_account: Some(account), follow: Follow::Primary },
            gcp_key(1),
            "gcp_version",
        ),
    ] {
        site.fault(operation, Kind::Delay(600_000));
        let endpoint = Some(format!("{}{path}", site.base).parse().unwrap());
        let timeout = Span::from_millis(300);
        let service = connect("slow", Kms { timeout, endpoint, login }).unwrap();
        let place = here();
        let asked = tokio::time::timeout(LONG, service.describe(&key, &place)).await;
        let error = failed(asked.expect("the lookup hangs"), ErrorKind::Unreachable, "firewall");
        assert!(error.message.contains("did not answer"), "{error}");
    }
}

#[tokio::test]
async fn a_next_page_on_another_host_is_refused_and_not_asked() {
    let (site, elsewhere) = (Site::new().await, Site::new().await);
    site.sim.with(|world| {
        world.kms.page = 1;
        world.kms.next_page_at = Some(elsewhere.base.clone());
    });
    failed(newest(&site.azure(), &azure_key(1), None).await, ErrorKind::Broken, "nothing but the vault");
    assert_eq!(elsewhere.sim.log().len(), 0);
}

/// A service that sends the log-in back in its error, as none should.
async fn parrot() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let answer = async |headers: HeaderMap, body: String| {
        let said = format!("{:?} {body}", headers.get("authorization"));
        let body =
            json!({ "error": { "code": 403, "message": said, "status": said }, "error_description": said });
        (axum::http::StatusCode::FORBIDDEN, axum::Json(body))
    };
    let app = axum::Router::new().fallback(answer);
    crate::support::wait::spawn(async move { axum::serve(listener, app).await });
    base
}

#[tokio::test]
async fn no_error_and_no_debug_text_holds_a_secret() {
    let site = Site::new().await;
    let base = parrot().await;
    let (account, public) = service_account();
    site.sim.with(|world| world.kms.gcp_accounts.insert(EMAIL.to_owned(), public));
    let place = here();
    let mut said = BTreeSet::new();
    let logins = [
        ("/kms/aws", aws_login(ACCESS_KEY, "canary"), aws_key(1)),
        ("/kms/azure", site.azure_login(AzureCredential::Secret(Secret::new("canary"))), azure_key(1)),
        ("/kms/azure", site.azure_login(AzureCredential::Secret(Secret::new(AZURE_SECRET))), azure_key(1)),
        (
            "/kms/gcp",
            Login::Gcp { service_account: Some(account.clone()), follow: Follow::Primary },
            gcp_key(1),
        ),
    ];
    for (path, login, key) in logins {
        for endpoint in [format!("{}{path}", site.base), base.clone()] {
            let endpoint = Some(endpoint.parse().unwrap());
            let options = Kms { timeout: LIMIT, endpoint, login: login.clone() };
            said.insert(format!("{options:?}"));
            let service = connect("x", options).unwrap();
            for error in [service.describe(&key, &place).await.err(), service.probe(&key, &place).await.err()]
            {
                said.extend(error.map(|error| format!("{error} {error:?}")));
            }
            said.insert(format!("{service:?}"));
        }
    }
    // A token endpoint that sends the form back.
    let Login::Azure { tenant_id, client_id, proof, .. } =
        site.azure_login(AzureCredential::Secret(Secret::new("canary")))
    else {
        panic!("another login")
    };
    let login = Login::Azure { tenant_id, client_id, proof, authority: Some(base.parse().unwrap()) };
    said.insert(format!("{:?}", site.connect("/kms/azure", login).log_in().await.unwrap_err()));
    assert!(said.iter().any(|text| text.contains("***")), "the parrot was heard: {said:?}");
    for text in said {
        for secret in ["canary", AZURE_SECRET, AWS_SECRET, "PRIVATE KEY", "Bearer ey"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        let tail = account.expose().split("MII").nth(1).unwrap();
        assert!(!text.contains(&tail[..40]), "{text}");
    }
}

#[tokio::test]
async fn a_service_account_that_is_none_is_refused_at_the_start() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    for text in ["canary", "{}", "{\"type\": \"service_account\", \"private_key\": \"canary\"}"] {
        let login = Login::Gcp { service_account: Some(Secret::new(text)), follow: Follow::Primary };
        let options = Kms { timeout: LIMIT, endpoint: None, login };
        let error = connect("prod", options).unwrap_err().to_string();
        assert!(error.contains("kms.prod.service_account") && !error.contains("canary"), "{error}");
    }
}

/// Amazon's interface as ministack has it: it must run where `KEYWHEEL_MINISTACK` says, or the test fails.
#[tokio::test]
#[ignore = "needs an emulator; scripts/interop-kms starts one"]
async fn ministack_answers_our_look_ups() {
    use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let base = std::env::var("KEYWHEEL_MINISTACK").expect("KEYWHEEL_MINISTACK says where ministack answers");
    let config = aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url(&base)
        .build();
    let admin = aws_sdk_kms::Client::from_conf(config);
    let made = async || {
        let made = admin.create_key().send().await.unwrap();
        made.key_metadata().unwrap().key_id().to_owned()
    };
    let (old, new) = (made().await, made().await);
    let name = format!("alias/keywheel-{}", &old[..8]);
    admin.create_alias().alias_name(&name).target_key_id(&old).send().await.unwrap();

    let endpoint = Some(base.parse().unwrap());
    let login = aws_login("test", "test");
    let aws = connect("ministack", Kms { timeout: LIMIT, endpoint, login }).unwrap();
    let place = Place { aws_region: Some("us-east-1".to_owned()), azure_vault: None };
    let (first, second) = (key(Provider::Aws, &old), key(Provider::Aws, &new));
    let look = async || {
        let of = Watched { key: &first, place: &place, alias: Some(&name) };
        aws.newest(of, now()).await.unwrap().unwrap()
    };
    let found = look().await;
    assert!(found.key.is_same(&first, &place), "{found:?}");
    assert_eq!(
        (&found.state, &found.suits, found.region.as_deref()),
        (&KeyState::Enabled, &Ok(()), Some("us-east-1"))
    );
    assert!(found.created.is_some());
    admin.update_alias().alias_name(&name).target_key_id(&new).send().await.unwrap();
    let found = look().await;
    assert!(found.key.is_same(&second, &place), "{found:?}");
    // From now on by ARN, as Atlas may hold it.
    let arn = found.key;
    let of = Watched { key: &arn, place: &place, alias: Some(&name) };
    assert_eq!(aws.newest(of, now()).await.unwrap().unwrap().key, arn);
    aws.probe(&arn, &place).await.unwrap();
    admin.disable_key().key_id(&new).send().await.unwrap();
    assert_eq!(aws.describe(&arn, &place).await.unwrap().state, KeyState::Disabled);
    failed(aws.probe(&arn, &place).await, ErrorKind::Unusable, "enable");
    admin.schedule_key_deletion().key_id(&old).pending_window_in_days(7).send().await.unwrap();
    let state = aws.describe(&first, &place).await.unwrap().state;
    assert!(matches!(state, KeyState::PendingDeletion { at: Some(_) }), "{state:?}");
    let nobody = key(Provider::Aws, "00000000-0000-4000-8000-000000000000");
    failed(aws.describe(&nobody, &place).await, ErrorKind::NotFound, "check");
}
