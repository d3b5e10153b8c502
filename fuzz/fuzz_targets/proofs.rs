//! Secrets and signatures in a request's head. The first byte, a digit, chooses the proof; lines up to an empty
//! one are the head, and the rest is the body.
//!
//! Nobody who does not know the secret is believed, whatever they send. Who signs it is believed
//! exactly as long as the signed instant is near, and not with another body.

#![no_main]

use std::sync::LazyLock;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keywheel::config::hooks::SigningKey;
use keywheel::domain::time::Timestamp;
use keywheel::fuzzing::hooks::is_proven;
use keywheel::webhook::sign::signatures;
use libfuzzer_sys::fuzz_target;

/// Made anew for each run, so that no corpus learns it.
static SECRET: LazyLock<(String, Vec<u8>)> = LazyLock::new(|| {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).expect("random bytes");
    (format!("whsec_{}", STANDARD.encode(bytes)), bytes.to_vec())
});

/// 2026-11-20T03:12:45Z.
const NOW: i64 = 1_795_144_365;

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let kind = kind.wrapping_sub(b'0') % 7;
    let empty = rest.windows(2).position(|two| two == b"\n\n");
    let (head, body) = empty.map_or((rest, &b""[..]), |at| (&rest[..at], &rest[at + 2..]));
    let (secret, bytes) = &*SECRET;
    let now = Timestamp::from_micros(NOW * 1_000_000);
    let believed = is_proven(kind, head, body, secret, now);
    if kind == 5 {
        // An origin is no secret; it is one that is listed or none.
        let line = head.to_ascii_lowercase();
        let named = |it: &[u8]| line.windows(it.len()).any(|some| some == it);
        assert!(!believed || (named(b"webhook-request-origin") && named(b"eventgrid.azure.net")));
        return;
    }
    assert!(!believed, "{:?}", String::from_utf8_lossy(rest));
    // And now with the secret: the head is what else is signed.
    let mut other = body.to_vec();
    other.push(b' ');
    let believed = |head: &str, body: &[u8]| is_proven(kind, head.as_bytes(), body, secret, now);
    match kind {
        0 => assert!(believed(&format!("authorization: Bearer {secret}"), body)),
        1 => assert!(believed(&format!("x-api-key: {secret}"), body)),
        2 => {
            let pair = STANDARD.encode(format!("keywheel:{secret}"));
            assert!(believed(&format!("authorization: Basic {pair}"), body));
        }
        3 | 4 => {
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
            let tag = hmac::sign(&key, body);
            let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            let tag = if kind == 3 { STANDARD.encode(tag) } else { hex };
            assert!(believed(&format!("x-mms-signature: {tag}"), body));
            assert!(!believed(&format!("x-mms-signature: {tag}"), &other));
        }
        _ => {
            let key = SigningKey::new(bytes).expect("32 bytes are a key");
            let far = head.first_chunk::<2>().map_or(0, |far| i64::from(i16::from_le_bytes(*far)));
            let at = NOW + far;
            let id = format!("msg_{far}");
            let tag = signatures(&[key], &id, at, body);
            let head = format!("webhook-id: {id}\nwebhook-timestamp: {at}\nwebhook-signature: v1,x {tag}");
            assert_eq!(believed(&head, body), far.abs() <= 300, "{far}");
            assert!(!believed(&head, &other));
        }
    }
});
