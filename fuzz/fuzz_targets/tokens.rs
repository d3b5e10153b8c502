//! Signed tokens and the keys that sign them. The first byte, as a digit even or odd, chooses: a token beside a key set, both as
//! they come (an empty line between them), or claims that an issuer whom we trust has signed.
//!
//! A token that is not signed with our issuer's key is nobody's. One that is counts for whom its claims
//! name, and while it is in force, and a foreign key beside ours changes nothing.

#![no_main]

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keywheel::domain::time::Timestamp;
use keywheel::fuzzing::hooks::is_token;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

static ISSUER: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate(KeySize::Rsa2048).expect("a key"));

/// The issuer's key.
static KEY: LazyLock<Value> = LazyLock::new(|| {
    let key = ISSUER.public_key();
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let n = text(key.modulus().big_endian_without_leading_zero());
    let e = text(key.exponent().big_endian_without_leading_zero());
    json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": "own", "n": n, "e": e })
});

static KEYS: LazyLock<String> = LazyLock::new(|| json!({ "keys": [*KEY] }).to_string());

/// The same beside keys of kinds that nobody here knows.
static MORE_KEYS: LazyLock<String> = LazyLock::new(|| {
    let later = json!({ "kty": "AKP", "alg": "ML-DSA-65", "kid": "later", "pub": "AAAA" });
    let other =
        json!({ "kty": "EC", "crv": "P-999", "use": "new", "alg": "ES999", "kid": "other", "x": "AA" });
    json!({ "keys": [later, other, *KEY] }).to_string()
});

/// 2026-11-20T03:12:45Z.
const NOW: i64 = 1_795_144_365;

fuzz_target!(|data: &[u8]| {
    let now = Timestamp::from_micros(NOW * 1_000_000);
    let Some((mode, rest)) = data.split_first() else { return };
    let grid = mode & 2 != 0;
    if mode & 1 == 0 {
        let empty = rest.windows(2).position(|two| two == b"\n\n");
        let (token, set) = empty.map_or((rest, &b""[..]), |at| (&rest[..at], &rest[at + 2..]));
        let Ok(token) = std::str::from_utf8(token) else { return };
        // Only the owner of the keys may sign.
        let _ = is_token(grid, set, token, now);
        assert_ne!(is_token(grid, KEYS.as_bytes(), token, now), Some(true), "{token}");
        return;
    }
    let token = signed(br#"{"alg":"RS256","typ":"JWT","kid":"own"}"#, rest);
    let proven = is_token(grid, KEYS.as_bytes(), &token, now).expect("the set reads");
    assert_eq!(is_token(grid, MORE_KEYS.as_bytes(), &token, now), Some(proven), "a foreign key changes it");
    let claims: Value = serde_json::from_slice(rest).unwrap_or_default();
    if proven {
        let text = |name: &str| claims[name].as_str().unwrap_or_default();
        let at = |name: &str| claims[name].as_f64();
        let audience = match &claims["aud"] {
            Value::Array(all) => all.contains(&json!("audience")),
            one => one == "audience",
        };
        assert!(audience, "{claims}");
        assert!(at("exp").is_some_and(|end| end >= (NOW - 60) as f64), "{claims}");
        assert!(at("nbf").is_none_or(|from| from <= (NOW + 60) as f64), "{claims}");
        if grid {
            assert!(text("iss").contains("tenant") && text("tid") == "tenant", "{claims}");
            assert!(text("appid") == "app" || text("azp") == "app", "{claims}");
        } else {
            assert!(text("iss").ends_with("accounts.google.com"), "{claims}");
            assert!(text("email") == "push@example.com" && claims["email_verified"] == true, "{claims}");
        }
        for alg in ["none", "HS256", "RS384", "PS256"] {
            let head = json!({ "alg": alg, "kid": "own" }).to_string();
            let token = signed(head.as_bytes(), rest);
            assert_eq!(is_token(grid, KEYS.as_bytes(), &token, now), Some(false), "{alg}");
        }
    }
});

fn signed(head: &[u8], claims: &[u8]) -> String {
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
    let mut tag = vec![0; ISSUER.public_modulus_len()];
    ISSUER.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut tag).expect("a signature");
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
}
