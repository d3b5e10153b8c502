//! Signatures as Standard Webhooks 1.0.0 has them: HMAC-SHA-256 over id, instant and body.
//!
//! While a secret is replaced, the new one and the previous one sign side by side, and a receiver
//! takes whichever it knows. An empty or short secret never becomes a key: anybody could sign with it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The fewest bytes of a secret.
const SHORTEST: usize = 24;

/// What signs. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Key {
    /// A key from the bytes that `whsec_…` stands for; `None` when they are fewer than 24.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < SHORTEST {
            return None;
        }
        Hmac::new_from_slice(bytes).ok().map(Self)
    }

    fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// The value of `webhook-signature`: one signature for each of `keys`, the newest first.
/// `seconds` are those of `webhook-timestamp`, since 1970.
#[must_use]
pub fn signatures(keys: &[Key], id: &str, seconds: i64, body: &[u8]) -> String {
    keys.iter().map(|key| key.sign(id, seconds, body)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(&STANDARD.decode(text).unwrap()).unwrap()
    }

    #[test]
    fn the_public_vector_comes_out() {
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        let key = key("C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
        let signed = signatures(&[key], "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body);
        assert_eq!(signed, "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
    }

    #[test]
    fn two_keys_sign_side_by_side_and_everything_is_signed() {
        let (new, old) = (Key::new(&[1; 24]).unwrap(), Key::new(&[2; 64]).unwrap());
        let of = |keys: &[Key], id, at, body: &[u8]| signatures(keys, id, at, body);
        let both = of(&[new.clone(), old.clone()], "msg_1", 5, b"{}");
        let alone = of(std::slice::from_ref(&new), "msg_1", 5, b"{}");
        assert_eq!(both, format!("{alone} {}", of(&[old], "msg_1", 5, b"{}")));
        for other in [
            of(std::slice::from_ref(&new), "msg_2", 5, b"{}"),
            of(std::slice::from_ref(&new), "msg_1", 6, b"{}"),
            of(std::slice::from_ref(&new), "msg_1", 5, b"{ }"),
        ] {
            assert_ne!(alone, other);
        }
        assert_eq!(format!("{new:?}"), "***");
    }

    #[test]
    fn an_empty_or_short_secret_signs_nothing() {
        assert!(Key::new(&[]).is_none() && Key::new(&[7; 23]).is_none());
    }
}
