//! HTTP Digest, as Atlas demands it of API keys (RFC 7616, `qop=auth`).
//!
//! Nonces are short-lived and not tied to a key. Their uses are not counted, because it is not known
//! whether Atlas counts them.

use std::collections::BTreeMap;
use std::time::Duration;

use md5::Md5;
use sha2::{Digest as _, Sha256};

use super::answer::{Refusal, unauthorized};
use super::ask::Ask;
use super::ids::opaque;
use super::world::{DigestAlgorithm, World};

const REALM: &str = "MMS Public API";

impl DigestAlgorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
        }
    }

    fn hash(self, text: &str) -> String {
        match self {
            Self::Md5 => hex::encode(Md5::digest(text)),
            Self::Sha256 => hex::encode(Sha256::digest(text)),
        }
    }
}

/// A 401 with a new nonce.
pub(super) fn challenge(world: &mut World, ask: &Ask, stale: bool) -> Refusal {
    // 32 characters, as Atlas' nonces have.
    let nonce: String = opaque().chars().take(32).collect();
    world.nonces.retain(|_, until| ask.now < *until);
    world.nonces.insert(nonce.clone(), ask.now + Duration::from_secs(world.nonce_life.max(1)));
    let header = format!(
        "Digest realm=\"{REALM}\", domain=\"\", nonce=\"{nonce}\", algorithm={}, qop=\"auth\", stale={stale}",
        world.digest_algorithm.name()
    );
    unauthorized().header("www-authenticate", header)
}

/// Checks the answer to a challenge.
pub(super) fn verify(world: &mut World, ask: &Ask) -> Result<(), Refusal> {
    let said = fields(ask.header("authorization"));
    let field = |name: &str| said.get(name).map_or("", String::as_str);
    let algorithm = world.digest_algorithm;
    let expected = world.api_keys.get(field("username")).map(|secret| {
        let who = algorithm.hash(&format!("{}:{REALM}:{secret}", field("username")));
        let what = algorithm.hash(&format!("{}:{}", ask.method, ask.uri));
        algorithm.hash(&format!("{who}:{}:{}:{}:auth:{what}", field("nonce"), field("nc"), field("cnonce")))
    });
    let right = expected.is_some_and(|expected| expected == field("response"))
        && field("realm") == REALM
        && field("uri") == ask.uri
        && field("qop") == "auth"
        && matches!(field("algorithm"), name if name == algorithm.name() || (name.is_empty() && algorithm == DigestAlgorithm::Md5))
        && !world.revoked.contains(field("username"));
    if !right {
        return Err(challenge(world, ask, false));
    }
    let lives = world.nonces.get(field("nonce")).is_some_and(|until| ask.now < *until);
    if lives {
        return Ok(());
    }
    let stale = world.says_stale;
    Err(challenge(world, ask, stale))
}

/// The user name in a Digest header.
pub(super) fn username(header: &str) -> Option<String> {
    fields(header).remove("username")
}

/// Takes `Digest a="b", c=d` apart; commas inside quotes belong to the value.
fn fields(header: &str) -> BTreeMap<String, String> {
    let mut rest = header.strip_prefix("Digest ").unwrap_or_default().trim_start();
    let mut fields = BTreeMap::new();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        fields.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        rest = after.trim_start_matches([',', ' ']);
    }
    fields
}
