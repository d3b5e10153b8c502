//! The signature of a bundle: a DSSE envelope around the manifest, with the installation's Ed25519 key.
//!
//! DSSE, because tools verify it that know nothing of Keywheel: the signed text is in the envelope, and names what it is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::seal::{InstallationKey, fingerprint, is_signed, spki, succession};

use super::Fault;
use super::manifest::KeyLink;

/// What the envelope says that it holds.
pub(super) const PAYLOAD_TYPE: &str = "application/vnd.keywheel.evidence-manifest+json";

/// The file of the envelope.
const FILE: &str = super::ENVELOPE;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    keyid: String,
    sig: String,
}

/// The SHA-256 of a key as other programs read it, in hexadecimal: the name of the key in an envelope.
#[must_use]
pub fn key_id(public_key: &[u8]) -> String {
    hex::encode(Sha256::digest(spki(public_key)))
}

/// A public key (`SubjectPublicKeyInfo`) as a PEM text.
#[must_use]
pub fn pem(spki: &[u8]) -> String {
    let text = STANDARD.encode(spki);
    let mut lines = String::from("-----BEGIN PUBLIC KEY-----\n");
    for part in text.as_bytes().chunks(64) {
        lines.push_str(&String::from_utf8_lossy(part));
        lines.push('\n');
    }
    lines + "-----END PUBLIC KEY-----\n"
}

fn signed_text(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// The envelope of `manifest`, signed with `key`.
///
/// # Errors
/// Fails when it has no JSON form.
pub(super) fn envelope(manifest: &[u8], key: &InstallationKey) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Envelope {
        payload_type: PAYLOAD_TYPE.to_owned(),
        payload: STANDARD.encode(manifest),
        signatures: vec![Signature {
            keyid: key_id(key.public_key()),
            sig: STANDARD.encode(key.sign(&signed_text(manifest))),
        }],
    })
}

/// Checks that the envelope holds `manifest`, signed by the key with this public half.
///
/// # Errors
/// What does not fit.
pub(super) fn check(bytes: &[u8], manifest: &[u8], public_key: &[u8]) -> Result<(), Fault> {
    let bad = |what: &str| Fault::of("signature", what).file(FILE);
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(|_| bad("it is no DSSE envelope"))?;
    if serde_json::to_vec(&envelope).ok().as_deref() != Some(bytes) {
        return Err(bad("it is written in another way than Keywheel writes it"));
    }
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(bad("its payloadType is another one"));
    }
    if envelope.payload != STANDARD.encode(manifest) {
        return Err(bad("its payload is not manifest.json"));
    }
    let [Signature { keyid, sig }] = &envelope.signatures[..] else {
        return Err(bad("it has not exactly one signature"));
    };
    if *keyid != key_id(public_key) {
        return Err(bad("its keyid is not that of the key in the manifest"));
    }
    let sig = STANDARD.decode(sig).map_err(|_| bad("its signature cannot be read"))?;
    if is_signed(public_key, &signed_text(manifest), &sig) {
        Ok(())
    } else {
        Err(bad("its signature is not that of the key in the manifest over manifest.json"))
    }
}

/// A public key that an auditor has from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedKey {
    /// The key itself, 32 bytes.
    Key(Vec<u8>),
    /// The beginning of its hash, or of the hash of its SPKI, in lower-case hexadecimal.
    Hash(String),
}

impl TrustedKey {
    /// Reads a key: PEM, base64 of the 32 bytes, the fingerprint (32 digits), or the SHA-256 of the SPKI (64 digits).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_hash = |it: &str| [32, 64].contains(&it.len()) && it.bytes().all(|it| it.is_ascii_hexdigit());
        if is_hash(text) {
            return Some(Self::Hash(text.to_ascii_lowercase()));
        }
        let bytes = match text.strip_prefix("-----BEGIN PUBLIC KEY-----") {
            Some(rest) => {
                let body: String =
                    rest.split_once("-----END PUBLIC KEY-----")?.0.split_whitespace().collect();
                let bytes = STANDARD.decode(body).ok()?;
                let key = bytes.get(12..)?.to_vec();
                (spki(&key) == bytes).then_some(key)?
            }
            None => STANDARD.decode(text).ok()?,
        };
        (bytes.len() == 32).then_some(Self::Key(bytes))
    }

    /// Whether it is this one.
    #[must_use]
    pub fn is(&self, public_key: &[u8]) -> bool {
        match self {
            Self::Key(key) => key == public_key,
            Self::Hash(hash) if hash.len() == 32 => *hash == fingerprint(public_key),
            Self::Hash(hash) => *hash == key_id(public_key),
        }
    }
}

/// Follows the changes of the installation key from `trusted` to `signer`; returns how many there were.
///
/// # Errors
/// Why `trusted` does not vouch for `signer`.
pub(super) fn follow(trusted: &TrustedKey, links: &[KeyLink], signer: &[u8]) -> Result<usize, Fault> {
    if trusted.is(signer) {
        return Ok(0);
    }
    let bad = |what: String| Fault::of("key", what).file(super::MANIFEST);
    let decoded =
        |text: &Option<String>| STANDARD.decode(text.as_deref().unwrap_or_default()).unwrap_or_default();
    let from = links.iter().position(|link| trusted.is(&decoded(&link.old_public_key)));
    let from = from.ok_or_else(|| {
        let what = "the bundle is signed by another key than the one given, and no change of keys in it leads from that \
                    one to it; ask the operator of the installation for its public key in another way";
        bad(what.to_owned())
    })?;
    let mut present = decoded(&links[from].old_public_key);
    for link in &links[from..] {
        let next = decoded(&link.public_key);
        let signature = decoded(&link.signature);
        if decoded(&link.old_public_key) != present || !is_signed(&present, &succession(&next), &signature) {
            return Err(bad(format!(
                "row {} of the audit log puts another key in the place of the one given, and the one given did not \
                 sign that: give the key of afterwards, from a source that you trust",
                link.row
            )));
        }
        present = next;
    }
    if present == signer {
        Ok(links.len() - from)
    } else {
        Err(
            bad("the last change of keys leads to another key than the one that signed the bundle".to_owned()),
        )
    }
}
