//! Published vectors, headers of another client for the same challenge, and the counting.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const PRIVATE: &str = "pri-vate";

fn key(public: &str, private: &str) -> ApiKey {
    ApiKey::new(public.to_owned(), Secret::new(private))
}

fn challenge(line: &str) -> Challenge {
    challenge::choose(&[line.to_owned()]).unwrap()
}

/// The header of the first request with this nonce, in one line.
fn first(key: &ApiKey, line: &str, cnonce: &str, uri: &str) -> String {
    let session = Session::new(challenge(line), cnonce.to_owned());
    key.authorization(&session, &Method::GET, uri).unwrap().to_str().unwrap().to_owned()
}

fn answer(challenge: Option<&str>, info: Option<&str>) -> AtlasResponse {
    AtlasResponse {
        status: 401,
        at: "2026-11-23T12:00:00Z".parse().unwrap(),
        error_code: None,
        retry_after: None,
        rate_limit: (None, None),
        skew_ms: None,
        redirect: None,
        challenges: challenge.map(str::to_owned).into_iter().collect(),
        authentication_info: info.map(str::to_owned),
        body: Ok(Vec::new()),
    }
}

#[test]
fn the_examples_of_rfc_7616_come_out() {
    let mufasa = key("Mufasa", "Circle of Life");
    for (algorithm, response) in [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ] {
        let line = format!(
            r#"Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={algorithm}, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#
        );
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let header = first(&mufasa, &line, cnonce, "/dir/index.html");
        let expected = format!(
            r#"Digest username="Mufasa", realm="http-auth@example.org", nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", uri="/dir/index.html", response="{response}", algorithm={algorithm}, qop=auth, nc=00000001, cnonce="{cnonce}", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#
        );
        assert_eq!(header, expected);
    }
}

#[test]
fn the_examples_of_the_older_rfcs_come_out() {
    let common = r#"Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41""#;
    let with_qop = first(
        &key("Mufasa", "Circle Of Life"),
        &format!("{common}, qop=\"auth,auth-int\""),
        "0a4f113b",
        "/dir/index.html",
    );
    assert!(with_qop.contains("response=\"6629fae49393a05397450978507c4ef1\""), "{with_qop}");
    assert!(!with_qop.contains("algorithm"), "not named, so not repeated: {with_qop}");
    let without = first(&key("Mufasa", "CircleOfLife"), common, "unused", "/dir/index.html");
    assert_eq!(
        without,
        r#"Digest username="Mufasa", realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", uri="/dir/index.html", response="1949323746fe6a43ef61f9606e7febea", opaque="5ccc069c403ebaf9f0171e9517f40e41""#
    );
}

/// Recorded from curl 7.88.1 with `--digest -u abcdefgh:pri-vate`.
#[test]
fn the_answers_are_those_of_another_client() {
    for (line, cnonce, response) in [
        (
            r#"Digest realm="MMS Public API", nonce="n0nce", algorithm=MD5-sess, qop="auth""#,
            "MWRiYzJjNDYyYzhhYmFjMjM4MGY2YzBhMDIxOWIwNzI=",
            "cce80336b3035b5559bd6bb03ce1f2ce",
        ),
        (
            r#"Digest realm="MMS Public API", nonce="n0nce", algorithm=SHA-256-sess, qop="auth", opaque="op""#,
            "ZDQ0ZmI3MzFjMDhkODAwYTFmMGFlY2ZhN2I5ZWY5MjM=",
            "97c050b481b40ed8994cb78cf16afc96fd9cd39c6bdb6880eac08a465032ddca",
        ),
        (r#"Digest realm="MMS Public API", nonce="n0nce""#, "", "f4d09e460ad58c215dd8babe7efd2cdf"),
        (
            r#"Digest realm="MMS \"Public\" API", nonce="n0nce", algorithm=MD5, qop="auth""#,
            "ZTgzMmRmMGYxZjQ2N2MxNDE4MzM0YzhjZWJjYzJhYzI=",
            "8bbfbd59760b0cebe96d03b2469d939b",
        ),
    ] {
        let header = first(&key("abcdefgh", PRIVATE), line, cnonce, "/api/x?a=1&b=2");
        assert!(header.contains(&format!("response=\"{response}\"")), "{line}\n{header}");
    }
}

#[test]
fn a_nonce_that_is_offered_again_goes_on_counting() {
    let key = key("abcdefgh", PRIVATE);
    let offer = answer(Some(r#"Digest realm="r", nonce="n", qop="auth""#), None);
    let other = answer(Some(r#"Digest realm="r", nonce="m", qop="auth""#), None);
    let mut headers = Vec::new();
    for offered in [&offer, &other, &offer] {
        let session = key.challenged(offered).unwrap().session;
        headers.push(key.authorization(&session, &Method::GET, "/").unwrap());
    }
    let counts: Vec<_> = headers
        .iter()
        .map(|header| header.to_str().unwrap().split("nc=").nth(1).unwrap()[..8].to_owned())
        .collect();
    assert_eq!(counts, ["00000001", "00000001", "00000002"]);
}

#[test]
fn a_nonce_is_shared_when_it_was_accepted_and_until_it_is_refused() {
    let key = key("abcdefgh", PRIVATE);
    let offer = |nonce: &str| answer(Some(&format!("Digest realm=r, nonce={nonce}, qop=auth")), None);
    let one = key.challenged(&offer("one")).unwrap().session;
    assert!(key.current().is_none(), "nobody knows yet whether it is good");
    key.accepted(&one, &answer(None, None));
    assert!(Arc::ptr_eq(&key.current().unwrap(), &one));
    let two = key.challenged(&offer("two")).unwrap().session;
    key.accepted(&two, &answer(None, None));
    key.refused(&one);
    assert!(Arc::ptr_eq(&key.current().unwrap(), &two), "an old refusal says nothing of the new nonce");
    key.accepted(&two, &answer(None, Some("qop=auth, nextnonce=\"three\"")));
    let three = key.current().unwrap();
    assert_eq!(three.challenge.nonce, "three");
    key.refused(&three);
    assert!(key.current().is_none());
}

#[test]
fn the_memory_for_nonces_is_bounded() {
    let key = key("abcdefgh", PRIVATE);
    for number in 0..2000 {
        key.challenged(&answer(Some(&format!("Digest realm=r, nonce=n{number}")), None)).unwrap();
    }
    assert_eq!(key.lock().known.len(), REMEMBERED);
}

#[test]
fn a_public_key_that_fits_no_header_is_a_reason_without_the_private_key() {
    let key = key("line\nbreak", PRIVATE);
    let session = Session::new(challenge("Digest realm=r, nonce=n"), String::new());
    let why = key.authorization(&session, &Method::GET, "/").unwrap_err().to_string();
    assert!(why.contains("public_key") && !why.contains(PRIVATE), "{why}");
}

proptest! {
    #[test]
    fn no_header_holds_the_private_key_or_its_hash(
        realm in "[ -~]{0,20}", uri in "/[ -~]{0,40}", session in any::<bool>(), qop in any::<bool>()
    ) {
        let canary = "private-key-canary";
        let (algorithm, qop) = if session { (", algorithm=MD5-sess", true) } else { ("", qop) };
        let qop = if qop { ", qop=\"auth\"" } else { "" };
        let line = format!("Digest realm={}, nonce=\"n\"{algorithm}{qop}", quoted(&realm));
        let header = first(&key("abcdefgh", canary), &line, "c", &uri);
        let ha1 = Algorithm::MD5.hash(&format!("abcdefgh:{realm}:{canary}"));
        prop_assert!(!header.contains(canary) && !header.contains(&ha1), "{}", header);
    }
}
