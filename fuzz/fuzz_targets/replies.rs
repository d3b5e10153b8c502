//! Replies of Atlas, of the key services and of webhooks' targets. The first byte, a digit, chooses what is read.
//!
//! A reading names the key that was asked for or none, waits have an end, nothing secret is repeated,
//! and what another system says stays short and on one line where a person reads it.

#![no_main]

use std::sync::LazyLock;

use keywheel::config::Webhook;
use keywheel::config::webhooks::Format;
use keywheel::domain::key::{AzureKey, KeyRef, Provider};
use keywheel::domain::time::Timestamp;
use keywheel::fuzzing::{atlas, kms, webhook};
use keywheel::kms::KmsError;
use keywheel::secret::Secret;
use keywheel::webhook::Target;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use url::Url;

const DAY: u64 = 86_400;
const SECRETS: [&str; 3] = ["T0AAAAAAA", "hunter2hunter2", "canary-token"];

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let options = Webhook {
        name: "ops".to_owned(),
        url: Secret::new(format!("https://hooks.example.com/{}/x?key={}", SECRETS[0], SECRETS[1])),
        format: Format::Slack,
        keys: Vec::new(),
        service_key: None,
        token: Some(Secret::new(SECRETS[2])),
        kinds: Vec::new(),
        allow_private: false,
        ca_file: None,
    };
    Target::new(&options).expect("a target")
});

static KEY: LazyLock<AzureKey> =
    LazyLock::new(|| match KeyRef::parse(Provider::Azure, "https://kv-prod.vault.azure.net/keys/cmk") {
        Ok(KeyRef::Azure(key)) => key,
        other => panic!("{other:?}"),
    });

fuzz_target!(|data: &[u8]| {
    let now = Timestamp::from_micros(1_795_144_365_000_000);
    let Some((kind, rest)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    match kind.wrapping_sub(b'0') % 9 {
        0 => {
            let read = atlas::observed(200, rest, now);
            assert_eq!(read.as_ref().ok(), atlas::observed(200, rest, now).as_ref().ok());
            if let Ok(read) = read {
                assert_eq!(read.block_hash.len(), 64);
                assert!(read.key.is_none_or(|key| Some(key.provider()) == read.provider));
            }
        }
        1 => {
            let Some((status, rest)) = status(rest) else { return };
            let failure = atlas::refusal(status, rest, now);
            assert!(failure.detail.chars().count() <= 4001 && !failure.detail.is_empty());
            assert!(failure.code.is_none_or(|code| code.chars().count() <= 4001));
        }
        2 => {
            let Some((status, rest)) = status(rest) else { return };
            let life = atlas::token(status, rest, now);
            assert!(life.is_err() || (200..300).contains(&status));
            assert!(
                life.is_ok_and(|life| life.get().as_secs() <= DAY)
                    || atlas::token(status, rest, now).is_err()
            );
            let Ok(item) = serde_json::from_slice::<Value>(rest) else { return };
            if let (Some(group), _) = atlas::listed(&item) {
                assert_eq!(group.id.as_str().len(), 24);
                assert!(group.org.is_none_or(|org| org.len() == 24));
            }
        }
        3 => {
            let (info, lines) = text.split_once('\n').unwrap_or(("", &text));
            let lines = lines.split('\n').map(str::to_owned).collect();
            for header in atlas::digest(lines, info, now).into_iter().flatten() {
                assert!(header.starts_with("Digest username=\"public\", realm=\""), "{header}");
                assert!(!header.contains("private") || text.contains("private"), "{header}");
                assert!(!header.contains(['\r', '\n']));
            }
        }
        4 => {
            let (wait, at) = atlas::times(&text, now);
            assert!(wait.is_none_or(|wait| (1..=DAY).contains(&wait.get().as_secs())));
            assert!(at.is_none_or(|at| at.to_string().len() == 27), "{at:?}");
            let _ = keywheel::net::header::retry_after(&text, now);
            let kept = webhook::kept(&TARGET, &text);
            assert!(!SECRETS.iter().any(|secret| kept.contains(secret)), "{kept}");
            assert!(kept.chars().count() <= 301 && !kept.contains(char::is_control), "{kept:?}");
        }
        5 => {
            let Ok(Value::Array(two)) = serde_json::from_slice(rest) else { return };
            let [version, key] = two.as_slice() else { return };
            match kms::gcp(version, key) {
                Ok(found) => {
                    assert_eq!(Some(found.key.to_string().as_str()), version["name"].as_str().map(str::trim));
                    assert_eq!(found.key.provider(), Provider::Gcp);
                    assert!(found.created.is_none_or(|at| at.to_string().len() == 27));
                }
                Err(error) => is_readable(&error),
            }
            match kms::gcp_primary(key) {
                Ok((number, found)) => {
                    assert!(found.key.to_string().ends_with(&format!("/cryptoKeyVersions/{number}")));
                }
                Err(error) => is_readable(&error),
            }
        }
        6 => {
            let Ok(body) = serde_json::from_slice(rest) else { return };
            if let Err(error) = kms::gcp_ciphertext(&body) {
                is_readable(&error);
            }
            match kms::azure(&body, &KEY) {
                Ok(id) => {
                    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
                    let kid = body["kid"].as_str().unwrap_or_default().trim().to_ascii_lowercase();
                    assert!(
                        kid.starts_with("https://kv-prod.vault.azure.net") && kid.contains("/keys/cmk/"),
                        "{kid}"
                    );
                }
                Err(error) => is_readable(&error),
            }
        }
        7 => {
            let first = Url::parse("https://kv-prod.vault.azure.net/keys/cmk/versions").expect("a URL");
            let Some(next) = kms::azure_next(&first, &text) else { return };
            assert_eq!((next.scheme(), next.host_str(), next.port()), ("https", first.host_str(), None));
            assert!(next.path().eq_ignore_ascii_case("/keys/cmk/versions"));
            assert!(next.username().is_empty() && next.password().is_none());
        }
        _ => {
            let Some((status, rest)) = status(rest) else { return };
            kms::refusals(status, rest).iter().for_each(is_readable);
        }
    }
});

/// Two bytes of a status, as one of those that HTTP has.
fn status(data: &[u8]) -> Option<(u16, &[u8])> {
    let (status, rest) = data.split_first_chunk::<3>()?;
    Some((std::str::from_utf8(status).ok()?.parse().ok()?, rest))
}

fn is_readable(error: &KmsError) {
    let KmsError { message, code, advice, .. } = error;
    for text in [message, advice].into_iter().chain(code) {
        assert!(text.chars().count() <= 2001, "{text}");
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}
