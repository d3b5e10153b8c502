//! Evidence bundles on this machine: the public key that signs them, and their verification.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::config::Config;
use crate::evidence::{Expected, LARGEST, TrustedKey, key_id, pem, verify};
use crate::seal::{InstallationKey, spki};

/// The largest bundle that is read, in bytes.
pub const LARGEST_BUNDLE: u64 = LARGEST;

/// The public half of the installation key, as other programs read it. Nothing of it is secret.
///
/// # Errors
/// Fails when the key file cannot be read.
pub fn evidence_key(config: &Config) -> anyhow::Result<Value> {
    let key = InstallationKey::read(&config.server.key_file)?;
    Ok(json!({
        "pem": pem(&spki(key.public_key())),
        "fingerprint": key.fingerprint(),
        "keyId": key_id(key.public_key()),
        "publicKey": STANDARD.encode(key.public_key()),
    }))
}

/// Whether a text is a public key or a fingerprint.
#[must_use]
pub fn is_evidence_key(text: &str) -> bool {
    TrustedKey::parse(text).is_some()
}

/// Verifies a bundle; `None` when `key` is no public key.
#[must_use]
pub fn evidence_verify(
    bundle: &[u8],
    key: Option<&str>,
    expected: Option<(i64, String)>,
    previous: Option<&[u8]>,
) -> Option<Value> {
    let trusted = match key {
        None => None,
        Some(text) => Some(TrustedKey::parse(text)?),
    };
    let expected = expected.map(|(seq, hash)| Expected { seq, hash });
    serde_json::to_value(verify(bundle, trusted.as_ref(), expected.as_ref(), previous)).ok()
}
