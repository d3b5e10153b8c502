//! An authenticator without a device: it makes passkeys and signs with them, and lies where a test wants it to.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ciborium::Value;
use sha2::{Digest, Sha256};

/// The kinds of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Es256,
    EdDsa,
    Rs256,
}

enum Pair {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Rs256(Box<RsaKeyPair>),
}

/// What the authenticator says.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) origin: String,
    pub(crate) site: String,
    pub(crate) flags: u8,
    /// Added to each counter, so that 0 keeps it 0.
    pub(crate) step: u32,
    /// Behind the members of the client data.
    pub(crate) more: &'static str,
}

impl Default for Said {
    fn default() -> Self {
        let (origin, site) = ("http://localhost:8440".to_owned(), "localhost".to_owned());
        Self { origin, site, flags: 0b101, step: 1, more: "" }
    }
}

/// A passkey on its device.
pub(crate) struct Authenticator {
    pub(crate) id: Vec<u8>,
    pub(crate) counter: u32,
    pub(crate) said: Said,
    pair: Pair,
}

pub(crate) fn text(bytes: impl AsRef<[u8]>) -> String {
    BASE64.encode(bytes)
}

impl Authenticator {
    pub(crate) fn new(kind: Kind) -> Self {
        let pair = match kind {
            Kind::Es256 => Pair::Es256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap()),
            Kind::EdDsa => Pair::EdDsa(Ed25519KeyPair::generate().unwrap()),
            Kind::Rs256 => Pair::Rs256(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())),
        };
        let mut id = vec![0; 16];
        aws_lc_rs::rand::fill(&mut id).unwrap();
        Self { id, counter: 0, said: Said::default(), pair }
    }

    pub(crate) fn id(&self) -> String {
        text(&self.id)
    }

    fn client_data(&self, kind: &str, challenge: &str) -> Vec<u8> {
        let Said { origin, more, .. } = &self.said;
        format!(
            r#"{{"type":"{kind}","challenge":"{challenge}","origin":"{origin}","crossOrigin":false{more}}}"#
        )
        .into()
    }

    fn data(&mut self, flags: u8) -> Vec<u8> {
        self.counter += self.said.step;
        let site = Sha256::digest(&self.said.site);
        [site.as_slice(), &[self.said.flags | flags], &self.counter.to_be_bytes()].concat()
    }

    /// The key as an authenticator writes it.
    pub(crate) fn cose(&self) -> Vec<u8> {
        let number = |it: i64| Value::Integer(it.into());
        let entries = match &self.pair {
            Pair::Es256(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = (point[1..33].to_vec(), point[33..].to_vec());
                vec![
                    (1, number(2)),
                    (3, number(-7)),
                    (-1, number(1)),
                    (-2, Value::Bytes(x)),
                    (-3, Value::Bytes(y)),
                ]
            }
            Pair::EdDsa(pair) => {
                let x = Value::Bytes(pair.public_key().as_ref().to_vec());
                vec![(1, number(1)), (3, number(-8)), (-1, number(6)), (-2, x)]
            }
            Pair::Rs256(pair) => {
                let key = pair.public_key();
                let (n, e) = (key.modulus().big_endian_without_leading_zero(), key.exponent());
                let e = e.big_endian_without_leading_zero().to_vec();
                vec![(1, number(3)), (3, number(-257)), (-1, Value::Bytes(n.to_vec())), (-2, Value::Bytes(e))]
            }
        };
        written(&Value::Map(entries.into_iter().map(|(name, value)| (number(name), value)).collect()))
    }

    /// The answer to a registration: the client data and the attestation object.
    pub(crate) fn make(&mut self, challenge: &str) -> (Vec<u8>, Vec<u8>) {
        let cose = self.cose();
        self.make_with(challenge, &cose)
    }

    /// The same with another key.
    pub(crate) fn make_with(&mut self, challenge: &str, cose: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let length = u16::try_from(self.id.len()).unwrap().to_be_bytes();
        let data = [&*self.data(1 << 6), &[0; 16], &length, &self.id, cose].concat();
        let object = Value::Map(vec![
            (Value::Text("fmt".to_owned()), Value::Text("none".to_owned())),
            (Value::Text("attStmt".to_owned()), Value::Map(Vec::new())),
            (Value::Text("authData".to_owned()), Value::Bytes(data)),
        ]);
        (self.client_data("webauthn.create", challenge), written(&object))
    }

    /// The answer to a challenge: client data, authenticator data, signature.
    pub(crate) fn sign(&mut self, challenge: &str) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let (client, data) = (self.client_data("webauthn.get", challenge), self.data(0));
        let message = [data.as_slice(), &Sha256::digest(&client)].concat();
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Es256(pair) => pair.sign(&random, &message).unwrap().as_ref().to_vec(),
            Pair::EdDsa(pair) => pair.sign(&message).as_ref().to_vec(),
            Pair::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, &message, &mut signature).unwrap();
                signature
            }
        };
        (client, data, signature)
    }

    /// What a page's script sends when it was made.
    pub(crate) fn made(&mut self, challenge: &str) -> serde_json::Value {
        let (client, object) = self.make(challenge);
        serde_json::json!({ "clientData": text(client), "attestation": text(object) })
    }

    /// What a page's script sends when it has signed.
    pub(crate) fn answer(&mut self, challenge: &str) -> serde_json::Value {
        let (client, data, signature) = self.sign(challenge);
        serde_json::json!({
            "id": self.id(), "clientData": text(client), "authenticatorData": text(data), "signature": text(signature),
        })
    }
}

fn written(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}
