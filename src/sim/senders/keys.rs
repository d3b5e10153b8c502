//! The senders' keys: one RSA key for each issuer of tokens, and an authority with the certificates
//! of the notification service.
//!
//! Each is created when it is first needed, because an RSA key takes a while to create and most
//! simulators never send. The stranger's key stands for anyone who is not the sender; nothing publishes
//! it as genuine.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::Datelike as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use x509_cert::der::asn1::UintRef;
use x509_cert::der::{self, Reader as _, SliceReader};

use super::forge::Forge;
use crate::domain::time::Timestamp;

const DAY: Duration = Duration::from_secs(86_400);

/// An RSA key with its name.
pub(super) struct Rsa {
    pair: KeyPair,
    kid: String,
}

impl fmt::Debug for Rsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rsa").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl Rsa {
    fn generate() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("an RSA key can be made");
        let digest = Sha256::digest(pair.public_key().as_ref());
        Self { kid: hex::encode(&digest[..20]), pair }
    }

    /// A PKCS#1 v1.5 signature with SHA-256.
    pub(super) fn sign(&self, text: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature)
            .expect("an RSA key signs");
        signature
    }

    fn private(&self) -> Vec<u8> {
        self.pair.as_der().expect("our own key can be written").as_ref().to_vec()
    }

    /// The public key as a JSON Web Key; only Google names the algorithm.
    fn public(&self, says_algorithm: bool) -> Value {
        let [modulus, exponent] =
            public_numbers(self.pair.public_key().as_ref()).expect("our own key can be read");
        let mut key = json!({
            "kty": "RSA", "use": "sig", "kid": self.kid,
            "n": URL_SAFE_NO_PAD.encode(modulus), "e": URL_SAFE_NO_PAD.encode(exponent),
        });
        if says_algorithm {
            key["alg"] = json!("RS256");
        } else {
            key["x5t"] = json!(self.kid);
        }
        key
    }

    /// The public key as people paste it, which the HS256 forgery uses as a shared secret.
    fn public_pem(&self) -> String {
        let der = self.pair.public_key().as_der().expect("our own key can be written");
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).filter_map(|it| std::str::from_utf8(it).ok()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }
}

/// Modulus and exponent of a public key in PKCS#1.
fn public_numbers(pkcs1: &[u8]) -> der::Result<[Vec<u8>; 2]> {
    SliceReader::new(pkcs1)?.sequence(|numbers| {
        let (modulus, exponent): (UintRef<'_>, UintRef<'_>) = (numbers.decode()?, numbers.decode()?);
        Ok([modulus.as_bytes().to_vec(), exponent.as_bytes().to_vec()])
    })
}

/// A certificate of the notification service, and where it lies.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) file: String,
    pub(super) pem: String,
}

/// The notification service's key and certificates.
#[derive(Debug)]
pub(super) struct Notary {
    pub(super) key: Rsa,
    pub(super) authority_pem: String,
    pub(super) good: Certificate,
    pub(super) expired: Certificate,
    /// Made by another authority, for the stranger's key.
    pub(super) strange: Certificate,
}

/// All keys of one simulator.
#[derive(Debug, Default)]
pub(super) struct Keys {
    entra: OnceLock<Rsa>,
    google: OnceLock<Rsa>,
    stranger: OnceLock<Rsa>,
    notary: OnceLock<Notary>,
}

/// The issuer of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signer {
    /// Microsoft Entra.
    Entra,
    /// Google.
    Google,
}

impl Keys {
    pub(super) fn of(&self, signer: Signer) -> &Rsa {
        match signer {
            Signer::Entra => self.entra.get_or_init(Rsa::generate),
            Signer::Google => self.google.get_or_init(Rsa::generate),
        }
    }

    pub(super) fn stranger(&self) -> &Rsa {
        self.stranger.get_or_init(Rsa::generate)
    }

    /// The key set that a signer publishes.
    pub(super) fn published(&self, signer: Signer) -> Value {
        json!({ "keys": [self.of(signer).public(signer == Signer::Google)] })
    }

    pub(super) fn notary(&self, now: Timestamp) -> &Notary {
        self.notary.get_or_init(|| make_notary(self.stranger(), now).expect("certificates can be made"))
    }

    /// A signed token of `claims`, or a forged one in its place; `None` when the forgery is to send
    /// none.
    pub(super) fn token(&self, signer: Signer, claims: &Value, forge: Option<Forge>) -> Option<String> {
        let key = self.of(signer);
        let (algorithm, kid) = match forge {
            Some(Forge::Unsigned) => return None,
            Some(Forge::AlgNone) => ("none", key.kid.as_str()),
            Some(Forge::Hs256) => ("HS256", key.kid.as_str()),
            Some(Forge::Kid) => ("RS256", "0000000000000000000000000000000000000000"),
            _ => ("RS256", key.kid.as_str()),
        };
        let mut header = json!({ "typ": "JWT", "alg": algorithm, "kid": kid });
        if signer == Signer::Entra {
            header["x5t"] = json!(kid);
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&header), part(claims));
        let signature = match forge {
            Some(Forge::AlgNone) => Vec::new(),
            Some(Forge::Hs256) => {
                let secret = hmac::Key::new(hmac::HMAC_SHA256, key.public_pem().as_bytes());
                hmac::sign(&secret, text.as_bytes()).as_ref().to_vec()
            }
            Some(Forge::Stranger) => self.stranger().sign(text.as_bytes()),
            Some(Forge::Signature) => spoilt(key.sign(text.as_bytes())),
            _ => key.sign(text.as_bytes()),
        };
        Some(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// A signature with one bit turned.
pub(super) fn spoilt(mut signature: Vec<u8>) -> Vec<u8> {
    if let Some(byte) = signature.get_mut(7) {
        *byte ^= 1;
    }
    signature
}

/// `bytes` random bytes as lower-case hex digits.
pub(super) fn random_hex(bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    rand::fill(&mut buffer).expect("the system gives random bytes");
    hex::encode(buffer)
}

/// A random UUID.
pub(super) fn random_uuid() -> String {
    let mut buffer = [0; 16];
    rand::fill(&mut buffer).expect("the system gives random bytes");
    uuid::Builder::from_random_bytes(buffer).into_uuid().to_string()
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn authority(name: &str) -> Result<(Issuer<'static, rcgen::KeyPair>, String), rcgen::Error> {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = rcgen::KeyPair::generate()?;
    let pem = params.self_signed(&key)?.pem();
    Ok((Issuer::new(params, key), pem))
}

/// A certificate for `key` that is good between two days.
fn certificate(
    issuer: &Issuer<'static, rcgen::KeyPair>,
    key: &Rsa,
    from: Timestamp,
    to: Timestamp,
) -> Result<Certificate, rcgen::Error> {
    let day = |at: Timestamp| {
        let date = at.as_chrono().date_naive();
        let short = |number: u32| u8::try_from(number).unwrap_or(1);
        rcgen::date_time_ymd(date.year(), short(date.month()), short(date.day()))
    };
    let mut params = named("sns.amazonaws.com");
    params.subject_alt_names =
        CertificateParams::new(vec!["sns.amazonaws.com".to_owned()])?.subject_alt_names;
    (params.not_before, params.not_after) = (day(from), day(to));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let own = rcgen::KeyPair::try_from(key.private().as_slice())?;
    let made = params.signed_by(&own, issuer)?;
    let digest = hex::encode(&Sha256::digest(made.der())[..16]);
    Ok(Certificate { file: format!("SimpleNotificationService-{digest}.pem"), pem: made.pem() })
}

fn make_notary(stranger: &Rsa, now: Timestamp) -> Result<Notary, rcgen::Error> {
    let key = Rsa::generate();
    let (issuer, authority_pem) = authority("Keywheel simulator test authority")?;
    let (other, _) = authority("Nobody's authority")?;
    let (yesterday, next_year) = (now - DAY, now + DAY * 365);
    Ok(Notary {
        good: certificate(&issuer, &key, yesterday, next_year)?,
        expired: certificate(&issuer, &key, now - DAY * 400, now - DAY * 30)?,
        strange: certificate(&other, stranger, yesterday, next_year)?,
        authority_pem,
        key,
    })
}
