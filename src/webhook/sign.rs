//! Signatures as Standard Webhooks 1.0.0 has them: HMAC-SHA-256 over id, instant and body.
//!
//! While a secret is replaced, the new one and the previous one both sign, and a receiver accepts the
//! one that it has.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::config::hooks::SigningKey;

/// The value of `webhook-signature`: one signature for each of `keys`, the newest first.
/// `seconds` are those of `webhook-timestamp`, since 1970.
#[must_use]
pub fn signatures(keys: &[SigningKey], id: &str, seconds: i64, body: &[u8]) -> String {
    let signed = [format!("{id}.{seconds}.").as_bytes(), body].concat();
    let signature = |key: &SigningKey| {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()), &signed);
        format!("v1,{}", STANDARD.encode(tag))
    };
    keys.iter().map(signature).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> SigningKey {
        SigningKey::new(&STANDARD.decode(text).unwrap()).unwrap()
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
        let (new, old) = (SigningKey::new(&[1; 24]).unwrap(), SigningKey::new(&[2; 64]).unwrap());
        let of = |keys: &[SigningKey], id, at, body: &[u8]| signatures(keys, id, at, body);
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
        assert!(SigningKey::new(&[]).is_none() && SigningKey::new(&[7; 23]).is_none());
    }
}
