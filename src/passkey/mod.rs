//! Passkeys: what a browser and its authenticator say, checked as `WebAuthn` Level 3 asks of a relying party.
//!
//! A passkey is registered at a [`Site`] and signs challenges there. A challenge is derived from what the signature is
//! to stand for, so a signature says yes to that and to nothing else. The attestation of the device's maker is not asked
//! for: who may enrol a passkey is decided by people. Whose a passkey is, and whether it counts, is kept in the database
//! and decided elsewhere.

mod cbor;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::{Host, Url};

use cbor::Value;

/// What is signed, and said yes to.
pub type Challenge = [u8; 32];

/// The longest id of a credential, in bytes (`WebAuthn`, 4).
const LONGEST_ID: usize = 1023;

/// Where passkeys are used: the host and the origin of `server.public_url`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The host, the id of the relying party.
    pub id: String,
    /// Scheme, host and port as a browser writes them.
    pub origin: String,
}

/// Why passkeys work at no browser under `server.public_url`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSite {
    /// The host is an address.
    #[error("passkeys need a name: the host of server.public_url is an IP address")]
    Address,
    /// The scheme is not `https`, and the host not this machine.
    #[error(
        "browsers offer passkeys over HTTPS only, and for http://localhost: server.public_url begins with http://"
    )]
    NotSecure,
    /// It is no web address.
    #[error("server.public_url names no host")]
    NoHost,
}

impl Site {
    /// The site of the pages under this address.
    ///
    /// # Errors
    /// When no browser offers passkeys there.
    pub fn of(public_url: &str) -> Result<Self, NoSite> {
        let url = Url::parse(public_url).map_err(|_| NoSite::NoHost)?;
        let id = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(_) => return Err(NoSite::Address),
            None => return Err(NoSite::NoHost),
        };
        let is_local = id == "localhost" || id.ends_with(".localhost");
        if url.scheme() != "https" && !is_local {
            return Err(NoSite::NotSecure);
        }
        Ok(Self { id, origin: url.origin().ascii_serialization() })
    }
}

/// Why an answer of a browser or an authenticator does not count. Each is the browser's or somebody's doing, none the
/// typing of a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A part cannot be read.
    #[error("its {0} cannot be read")]
    Unreadable(&'static str),
    /// It answers something else.
    #[error("it does not answer what was asked")]
    Challenge,
    /// It was made on pages of another address.
    #[error("it was made at {found}, and these pages are at {expected}")]
    Origin {
        /// The origin in the answer.
        found: String,
        /// That of these pages.
        expected: String,
    },
    /// It was made for another site.
    #[error("it was made for another site than these pages")]
    OtherSite,
    /// Nobody touched the authenticator, or it did not ask who did.
    #[error("the authenticator did not verify its user; use one that asks for a PIN, a finger or a face")]
    NotVerified,
    /// The flags contradict each other.
    #[error("it says that it is stored elsewhere, and that it cannot be")]
    Flags,
    /// The kind of key is not one that was asked for.
    #[error("its kind of key is not one of ES256, EdDSA and RS256")]
    Algorithm,
    /// The key cannot be one of its kind.
    #[error("its key is not one of its kind")]
    Key,
    /// The signature is not that of the key.
    #[error("its signature does not fit")]
    Signature,
    /// The counter stands still or goes back.
    #[error(
        "its counter did not go on ({before}, now {now}): it may have been copied. Remove it and enrol another"
    )]
    Counter {
        /// The last one.
        before: u32,
        /// That of this answer.
        now: u32,
    },
}

/// A registered passkey, without whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Its id.
    pub id: Vec<u8>,
    /// The key as the authenticator wrote it (COSE, RFC 9052).
    pub key: Vec<u8>,
    /// Its counter; 0 where it has none.
    pub counter: u32,
    /// Whether it may be stored elsewhere, too.
    pub may_be_copied: bool,
    /// Whether it is.
    pub is_copied: bool,
}

impl Credential {
    /// The credential as far as its signatures name it, for one that was kept: its key, and whether it may be copied.
    #[must_use]
    pub fn kept(key: Vec<u8>, authenticator_data: &[u8]) -> Self {
        let may_be_copied = authenticator_data.get(32).is_some_and(|flags| flags & BE != 0);
        Self { id: Vec::new(), key, counter: 0, may_be_copied, is_copied: false }
    }

    /// Its key as other programs read it (`SubjectPublicKeyInfo`, DER).
    ///
    /// # Errors
    /// When the key is not of one of the three kinds.
    pub fn spki(&self) -> Result<Vec<u8>, Fault> {
        Ok(match Key::read(&self.key)? {
            Key::Es256(point) => [ES256_SPKI, &point].concat(),
            Key::EdDsa(key) => [ED25519_SPKI, key].concat(),
            Key::Rs256 { n, e } => {
                let numbers = der(0x30, &[der(2, &unsigned(n)), der(2, &unsigned(e))].concat());
                let bits = der(3, &[&[0], numbers.as_slice()].concat());
                der(0x30, &[RSA_ALGORITHM, &bits].concat())
            }
        })
    }

    /// The kind of its key, as in the field's registry of algorithms.
    ///
    /// # Errors
    /// When the key is not of one of the three kinds.
    pub fn algorithm(&self) -> Result<&'static str, Fault> {
        Ok(match Key::read(&self.key)? {
            Key::Es256(_) => "ES256",
            Key::EdDsa(_) => "EdDSA",
            Key::Rs256 { .. } => "RS256",
        })
    }
}

/// The answer of an authenticator that signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    /// The browser's part (JSON).
    pub client_data: Vec<u8>,
    /// The authenticator's part.
    pub authenticator_data: Vec<u8>,
    /// The signature of both.
    pub signature: Vec<u8>,
}

/// What an assertion says beside its yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The counter.
    pub counter: u32,
    /// Whether the passkey is stored elsewhere, too.
    pub is_copied: bool,
}

/// The challenge of `purpose` about `fields`. Each part is preceded by its length, so that no two share their bytes; one
/// of the fields is a [`nonce`], so that what was signed once is not signed again.
#[must_use]
pub fn challenge(purpose: &str, fields: &[&str]) -> Challenge {
    let mut hash = Sha256::new();
    hash.update(b"keywheel passkey\n");
    for part in [purpose].iter().chain(fields) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

/// A fresh challenge's random part.
///
/// # Errors
/// When the system gives no random bytes.
pub fn nonce() -> Result<String, aws_lc_rs::error::Unspecified> {
    let mut bits = [0; 32];
    aws_lc_rs::rand::fill(&mut bits)?;
    Ok(text(&bits))
}

/// Bytes as browsers send them.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Bytes that a browser sent.
#[must_use]
pub fn bytes(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

/// Reads the answer to a registration.
///
/// # Errors
/// When it does not answer `challenge` at `site` with a key that can be used.
pub fn register(
    site: &Site,
    challenge: &Challenge,
    client_data: &[u8],
    attestation: &[u8],
) -> Result<Credential, Fault> {
    check_client(site, challenge, client_data, "webauthn.create")?;
    let object = cbor::whole(attestation).ok_or(Fault::Unreadable("attestation"))?;
    let Some(Value::Bytes(data)) = object.get(&Value::Text("authData")) else {
        return Err(Fault::Unreadable("attestation"));
    };
    let data = AuthenticatorData::read(data)?;
    data.check(site)?;
    let (id, key) = data.registered.ok_or(Fault::Unreadable("key"))?;
    Key::read(key)?.check()?;
    Ok(Credential {
        id: id.to_vec(),
        key: key.to_vec(),
        counter: data.counter,
        may_be_copied: data.has(BE),
        is_copied: data.has(BS),
    })
}

/// Checks that the holder of `credential` said yes to `challenge` at `site`. Whether its counter went on is
/// [`went_on`]'s: what was signed long ago is checked without it.
///
/// # Errors
/// When it did not.
pub fn verify(
    site: &Site,
    challenge: &Challenge,
    credential: &Credential,
    answer: &Assertion,
) -> Result<Signed, Fault> {
    check_client(site, challenge, &answer.client_data, "webauthn.get")?;
    let data = AuthenticatorData::read(&answer.authenticator_data)?;
    data.check(site)?;
    if data.has(BE) != credential.may_be_copied {
        return Err(Fault::Flags);
    }
    let mut message = answer.authenticator_data.clone();
    message.extend(Sha256::digest(&answer.client_data));
    Key::read(&credential.key)?.verify(&message, &answer.signature)?;
    Ok(Signed { counter: data.counter, is_copied: data.has(BS) })
}

/// Refuses a counter that does not go on. Those of passkeys that are stored elsewhere, too, stay 0.
///
/// # Errors
/// [`Fault::Counter`] when it stands still or goes back.
pub const fn went_on(before: u32, now: u32) -> Result<(), Fault> {
    if now > before || (now == 0 && before == 0) { Ok(()) } else { Err(Fault::Counter { before, now }) }
}

/// What a browser says of the ceremony. Browsers add members; a member twice is refused.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientData {
    r#type: String,
    challenge: String,
    origin: String,
    #[serde(default)]
    cross_origin: bool,
    #[serde(default)]
    top_origin: Option<String>,
}

fn check_client(site: &Site, challenge: &Challenge, client_data: &[u8], kind: &str) -> Result<(), Fault> {
    let said: ClientData =
        serde_json::from_slice(client_data).map_err(|_| Fault::Unreadable("client data"))?;
    if said.r#type != kind || said.challenge != text(challenge) {
        return Err(Fault::Challenge);
    }
    if said.origin != site.origin {
        return Err(Fault::Origin { found: said.origin, expected: site.origin.clone() });
    }
    // Pages of others that frame these ask in somebody else's name.
    if said.cross_origin || said.top_origin.is_some() { Err(Fault::OtherSite) } else { Ok(()) }
}

/// Flags of the authenticator: present, verified, may be stored elsewhere, is, has a key, has extensions.
const UP: u8 = 1;
const UV: u8 = 1 << 2;
const BE: u8 = 1 << 3;
const BS: u8 = 1 << 4;
const AT: u8 = 1 << 6;
const ED: u8 = 1 << 7;

struct AuthenticatorData<'a> {
    site: &'a [u8],
    flags: u8,
    counter: u32,
    /// The id and the key of a registration.
    registered: Option<(&'a [u8], &'a [u8])>,
}

impl<'a> AuthenticatorData<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Fault> {
        Self::parsed(bytes).ok_or(Fault::Unreadable("authenticator data"))
    }

    fn parsed(bytes: &'a [u8]) -> Option<Self> {
        let (site, rest) = bytes.split_at_checked(32)?;
        let (flags, rest) = rest.split_first()?;
        let (counter, mut rest) = rest.split_first_chunk()?;
        let mut registered = None;
        if flags & AT != 0 {
            let (_model, behind) = rest.split_at_checked(16)?;
            let (length, behind) = behind.split_first_chunk()?;
            let length = usize::from(u16::from_be_bytes(*length));
            let (id, behind) =
                behind.split_at_checked(length).filter(|_| (1..=LONGEST_ID).contains(&length))?;
            let (_, after) = cbor::first(behind)?;
            registered = Some((id, behind.get(..behind.len() - after.len())?));
            rest = after;
        }
        if flags & ED != 0 {
            let (Value::Map(_), after) = cbor::first(rest)? else { return None };
            rest = after;
        }
        let counter = u32::from_be_bytes(*counter);
        rest.is_empty().then_some(Self { site, flags: *flags, counter, registered })
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn check(&self, site: &Site) -> Result<(), Fault> {
        if self.site != Sha256::digest(&site.id).as_slice() {
            return Err(Fault::OtherSite);
        }
        if !self.has(UP) || !self.has(UV) {
            return Err(Fault::NotVerified);
        }
        if self.has(BS) && !self.has(BE) { Err(Fault::Flags) } else { Ok(()) }
    }
}

/// What stands before the point of a P-256 key, and before an Ed25519 key, in a `SubjectPublicKeyInfo` (RFC 5480, 8410);
/// and the algorithm of an RSA key (RFC 3279).
const ES256_SPKI: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
const ED25519_SPKI: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
const RSA_ALGORITHM: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

/// An element of DER.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut element = vec![tag];
    match (content.len(), u8::try_from(length.len())) {
        (128.., Ok(count)) => {
            element.push(0x80 | count);
            element.extend(length);
        }
        (short, _) => element.push(u8::try_from(short).unwrap_or_default()),
    }
    element.extend(content);
    element
}

/// A number without a sign, as DER writes it.
fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let digits = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    let lead: &[u8] = if digits.first().is_none_or(|byte| byte & 0x80 != 0) { &[0] } else { &[] };
    [lead, digits].concat()
}

/// A public key (RFC 9053).
enum Key<'a> {
    /// The point, uncompressed.
    Es256([u8; 65]),
    EdDsa(&'a [u8]),
    Rs256 {
        n: &'a [u8],
        e: &'a [u8],
    },
}

impl<'a> Key<'a> {
    fn read(cose: &'a [u8]) -> Result<Self, Fault> {
        let map = cbor::whole(cose).ok_or(Fault::Unreadable("key"))?;
        let part = |name| map.bytes(name).ok_or(Fault::Key);
        // Kind, algorithm and curve.
        match (map.number(1), map.number(3), map.number(-1)) {
            (Some(2), Some(-7), Some(1)) => {
                let mut point = [4; 65];
                let (x, y) = (part(-2)?, part(-3)?);
                if (x.len(), y.len()) != (32, 32) {
                    return Err(Fault::Key);
                }
                point[1..33].copy_from_slice(x);
                point[33..].copy_from_slice(y);
                Ok(Self::Es256(point))
            }
            (Some(1), Some(-8), Some(6)) => Ok(Self::EdDsa(part(-2)?)),
            (Some(3), Some(-257), None) => Ok(Self::Rs256 { n: part(-1)?, e: part(-2)? }),
            _ => Err(Fault::Algorithm),
        }
    }

    /// Refuses one that can verify nothing, so that nobody learns of it at his first approval.
    fn check(&self) -> Result<(), Fault> {
        let parsed = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            ParsedPublicKey::new(algorithm, key).map(drop).map_err(|_| Fault::Key)
        };
        match self {
            Self::Es256(point) => parsed(&ECDSA_P256_SHA256_ASN1, point),
            Self::EdDsa(key) => parsed(&ED25519, key),
            Self::Rs256 { n, e } if (256..=1024).contains(&n.len()) && *e == [1, 0, 1] => Ok(()),
            Self::Rs256 { .. } => Err(Fault::Key),
        }
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Fault> {
        let done = match self {
            Self::Es256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature)
            }
            Self::EdDsa(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
            Self::Rs256 { n, e } => RsaPublicKeyComponents { n: *n, e: *e }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                message,
                signature,
            ),
        };
        done.map_err(|_| Fault::Signature)
    }
}
