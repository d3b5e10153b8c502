//! Messages of Amazon SNS, up to their signature. The first byte, as a digit even or odd, chooses: a message, or certificates.
//!
//! What is signed says one message only, and nothing is fetched but from SNS in the topic's own region,
//! or from the host that is configured. No certificate counts that is not in force, and none whose
//! chain does not lead to the roots where roots are demanded.

#![no_main]

use keywheel::domain::time::Timestamp;
use keywheel::fuzzing::hooks::{Envelope, certificate, envelope};
use libfuzzer_sys::fuzz_target;

/// An authority whose key nobody has.
const ROOTS: &[u8] = include_bytes!("../roots.pem");

fuzz_target!(|data: &[u8]| {
    let Some((mode, rest)) = data.split_first() else { return };
    if mode & 1 == 1 {
        // When the corpus' certificates are in force: 2027-03-01.
        let now = Timestamp::from_micros(1_803_859_200_000_000);
        let found = certificate(rest, None, now);
        assert_eq!(found, certificate(rest, None, now));
        // As its own root, and under somebody else's.
        if certificate(rest, Some(rest), now).is_some() {
            assert!(found.is_some());
        }
        assert_eq!(certificate(rest, Some(ROOTS), now), None);
        return;
    }
    // 2026-11-20T03:12:45Z.
    let now = Timestamp::from_micros(1_795_144_365_000_000);
    let Some(message) = envelope(rest, now) else { return };
    assert_eq!(envelope(rest, now).as_ref(), Some(&message));
    is_of_sns(&message);
    says_one(&message);
});

fn text<'a>(message: &'a Envelope, name: &str) -> &'a str {
    message.members.get(name).map_or("", String::as_str)
}

fn is_of_sns(message: &Envelope) {
    let region = text(message, "TopicArn").split(':').nth(3).unwrap_or_default();
    for url in message.certificate.iter().chain(&message.confirmation) {
        let host = url.host_str().unwrap_or_default();
        assert!(url.username().is_empty() && url.password().is_none(), "{url}");
        if (host, url.port()) == ("127.0.0.1", Some(8441)) {
            assert!(matches!(url.scheme(), "http" | "https"), "{url}");
            continue;
        }
        assert_eq!((url.scheme(), url.port()), ("https", None), "{url}");
        let own = host.strip_prefix("sns.").and_then(|rest| {
            rest.strip_suffix(".amazonaws.com").or_else(|| rest.strip_suffix(".amazonaws.com.cn"))
        });
        assert_eq!(own, Some(region), "{url}");
        assert!(!region.contains('.'), "{url}");
    }
    if let Some(url) = &message.certificate {
        assert!(url.path().ends_with(".pem") && url.query().is_none(), "{url}");
    }
}

/// Takes the signed text apart from its end, where only lines stand, and finds the members again.
fn says_one(message: &Envelope) {
    let is_event = text(message, "Type") == "Notification";
    // Without them nothing comes of a message.
    let needed: &[&str] =
        if is_event { &["Message", "MessageId"] } else { &["Message", "MessageId", "SubscribeURL", "Token"] };
    if needed.iter().any(|name| !message.members.contains_key(name)) {
        return;
    }
    let mut left = message.signed.strip_suffix('\n').expect("it ends a line");
    let mut found = Vec::new();
    loop {
        // The first member may have lines of its own.
        if found.last().is_some_and(|(name, _)| *name == "MessageId") {
            found.push(("Message", left.strip_prefix("Message\n").expect("it begins so")));
            break;
        }
        let (rest, value) = left.rsplit_once('\n').expect("a value");
        let (rest, name) = rest.rsplit_once('\n').expect("a name");
        found.push((name, value));
        left = rest;
    }
    for (name, value) in &found {
        assert_eq!(text(message, name), *value, "{name} in {:?}", message.signed);
    }
    assert_eq!(found[0], ("Type", text(message, "Type")));
}
