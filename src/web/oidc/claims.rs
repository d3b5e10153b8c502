//! The claims of an identity provider about a person: whether they are its own, for us, now, and of this sign-in, and
//! what of them is kept.
//!
//! Signatures are checked by the library; everything else is here, without a call to anybody. Times are compared with
//! the clock that is passed in.

use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};

use crate::domain::text::is_hidden;
use crate::domain::time::Timestamp;

/// Clock skew that is tolerated, in seconds.
const LEEWAY: i64 = 60;

/// Groups of a person that are kept, and the longest name of one, in bytes.
const MOST_GROUPS: usize = 200;
const LONGEST_GROUP: usize = 200;

/// The longest subject that OpenID Connect allows, in bytes.
const LONGEST_SUBJECT: usize = 255;

/// The longest mail address, in bytes.
const LONGEST_MAIL: usize = 254;

/// The algorithms whose keys only the provider has. A secret that both sides know proves nothing to others, and `none`
/// proves nothing at all.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// What a token must say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    pub(super) nonce: &'a str,
    pub(super) now: Timestamp,
}

/// What is kept of the claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The account, for ever.
    pub(super) subject: String,
    /// The verified mail address, in lower case.
    pub(super) mail: Option<String>,
    /// The groups.
    pub(super) groups: Vec<String>,
}

/// The id of the key that has signed a token, where its header names one that may have.
///
/// # Errors
/// The reason why no key of the provider can have signed it.
pub(super) fn key_id(token: &str) -> Result<(Algorithm, Option<String>), &'static str> {
    let header = jsonwebtoken::decode_header(token)
        .map_err(|_| "its token cannot be read, or names an algorithm that is not accepted")?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err("its token is signed with a shared secret, which is not accepted");
    }
    if header.crit.is_some_and(|it| !it.is_empty()) {
        return Err("its token demands an extension that is not known here");
    }
    Ok((header.alg, header.kid))
}

/// The claims of a token that `key` has signed and that says what is expected.
///
/// # Errors
/// The reason why it is not accepted.
pub(super) fn verified(
    token: &str,
    (algorithm, key): (Algorithm, &Jwk),
    expected: Expected<'_>,
) -> Result<Map<String, Value>, &'static str> {
    if matches!(&key.common.public_key_use, Some(it) if *it != PublicKeyUse::Signature) {
        return Err("the key of its token is not one for signatures");
    }
    let fixed = key.common.key_algorithm.as_ref();
    if fixed.is_some_and(|it: &KeyAlgorithm| it.to_string().parse() != Ok(algorithm)) {
        return Err("its token is signed with another algorithm than its key is for");
    }
    let key =
        DecodingKey::from_jwk(key).map_err(|_| "the key of its token is of a kind that is not accepted")?;
    let mut rules = Validation::new(algorithm);
    // Everything else is checked below.
    rules.validate_exp = false;
    rules.validate_aud = false;
    rules.required_spec_claims.clear();
    let token = jsonwebtoken::decode::<Map<String, Value>>(token, &key, &rules)
        .map_err(|_| "the signature of its token does not fit")?;
    check(&token.claims, expected)?;
    Ok(token.claims)
}

fn check(claims: &Map<String, Value>, expected: Expected<'_>) -> Result<(), &'static str> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(expected.issuer) {
        return Err("its token names another issuer");
    }
    let audience: Vec<Option<&str>> = match claims.get("aud") {
        Some(Value::Array(all)) => all.iter().map(Value::as_str).collect(),
        one => vec![one.and_then(Value::as_str)],
    };
    if !audience.contains(&Some(expected.client_id)) {
        return Err("its token is for another application");
    }
    let holder = text("azp");
    if (audience.len() > 1 || claims.contains_key("azp")) && holder != Some(expected.client_id) {
        return Err("its token was given to another application");
    }
    if text("nonce") != Some(expected.nonce) {
        return Err("its token belongs to another sign-in");
    }
    let second = expected.now.as_micros() / 1_000_000;
    let at = |name: &str| claims.get(name).and_then(Value::as_f64);
    #[expect(clippy::cast_precision_loss, reason = "seconds of our era fit a double exactly")]
    let (earliest, latest) = ((second - LEEWAY) as f64, (second + LEEWAY) as f64);
    match (at("exp"), at("iat")) {
        (Some(end), _) if end < earliest => {
            return Err("its token has expired; compare the clocks of both machines");
        }
        (_, Some(issued)) if issued > latest => {
            return Err("its token is from the future; compare the clocks of both machines");
        }
        (Some(_), Some(_)) => {}
        _ => return Err("its token does not say when it was made and when it ends"),
    }
    // One that is there and no number says nothing that could be trusted.
    if claims.contains_key("nbf") && at("nbf").is_none_or(|from| from > latest) {
        return Err("its token does not count yet; compare the clocks of both machines");
    }
    subject(claims).map(drop)
}

/// The account, as the provider names it.
///
/// # Errors
/// The reason why it is no name of an account.
pub(super) fn subject(claims: &Map<String, Value>) -> Result<String, &'static str> {
    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    let fits = !subject.is_empty() && subject.len() <= LONGEST_SUBJECT && !subject.chars().any(is_hidden);
    if fits { Ok(subject.to_owned()) } else { Err("it gives no name of your account that can be kept") }
}

/// Whether the claims lack what may be asked for separately.
pub(super) fn lacks(claims: &Map<String, Value>, groups_claim: &str) -> bool {
    !claims.contains_key(groups_claim) || !claims.contains_key("email")
}

/// What is kept of the claims. Of more groups than are kept, those stay that `wanted` has.
///
/// # Errors
/// The reason why they cannot be used.
pub(super) fn known(
    claims: &Map<String, Value>,
    groups_claim: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Known, &'static str> {
    let elsewhere = claims.get("_claim_names").is_some_and(|it| it.get(groups_claim).is_some());
    if elsewhere && !claims.contains_key(groups_claim) {
        return Err(
            "it lists too many groups to send them; let it send only the groups that are assigned to this application",
        );
    }
    let groups: Vec<&str> = match claims.get(groups_claim) {
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(one)) => vec![one],
        _ => Vec::new(),
    };
    let fits = |it: &&str| !it.is_empty() && it.len() <= LONGEST_GROUP && !it.chars().any(is_hidden);
    let (mut kept, mut others): (Vec<&str>, Vec<&str>) =
        groups.into_iter().filter(fits).partition(|it| wanted(it));
    // In whatever order the provider lists them, the same ones are kept: another group delays votes.
    others.sort_unstable();
    kept.extend(others);
    if kept.len() > MOST_GROUPS {
        tracing::warn!("of {} groups of a person the first {MOST_GROUPS} are kept", kept.len());
        kept.truncate(MOST_GROUPS);
    }
    kept.sort_unstable();
    kept.dedup();
    Ok(Known {
        subject: subject(claims)?,
        mail: mail(claims),
        groups: kept.into_iter().map(str::to_owned).collect(),
    })
}

/// The verified address. One with other than ASCII letters counts as not verified: letters that only look the same, or
/// become the same in lower case, would be another person's address.
fn mail(claims: &Map<String, Value>) -> Option<String> {
    let is_verified = claims.get("email_verified").and_then(Value::as_bool) == Some(true);
    let mail = claims.get("email").and_then(Value::as_str).filter(|_| is_verified)?;
    let (local, domain) = mail.rsplit_once('@')?;
    let plain = |b: u8| b.is_ascii_graphic() && !b"<>,;\"\\()@".contains(&b);
    let fits = [local, domain].into_iter().all(|it| !it.is_empty() && it.bytes().all(plain));
    (fits && mail.len() <= LONGEST_MAIL).then(|| mail.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://id.example.com";

    fn claims(changed: Value) -> Map<String, Value> {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let second = now.as_micros() / 1_000_000;
        let mut all = json!({
            "iss": ISSUER, "aud": "keywheel", "nonce": "n", "sub": "7", "iat": second, "exp": second + 300,
        });
        let Value::Object(changed) = changed else { panic!("an object") };
        let all = all.as_object_mut().unwrap();
        for (name, value) in changed {
            match value {
                Value::Null => _ = all.remove(&name),
                value => _ = all.insert(name, value),
            }
        }
        all.clone()
    }

    fn checked(changed: Value) -> Result<(), &'static str> {
        let now = "2026-03-01T12:00:00Z".parse().unwrap();
        check(&claims(changed), Expected { issuer: ISSUER, client_id: "keywheel", nonce: "n", now })
    }

    #[test]
    fn a_token_says_exactly_what_is_expected() {
        let second = "2026-03-01T12:00:00Z".parse::<Timestamp>().unwrap().as_micros() / 1_000_000;
        for good in [
            json!({}),
            json!({ "aud": ["keywheel"] }),
            json!({ "aud": ["other", "keywheel"], "azp": "keywheel" }),
            json!({ "exp": second - 60, "iat": second + 60, "nbf": second + 60 }),
        ] {
            assert_eq!(checked(good.clone()), Ok(()), "{good}");
        }
        for (bad, why) in [
            (json!({ "iss": "https://id.example.com/" }), "another issuer"),
            (json!({ "iss": null }), "another issuer"),
            (json!({ "aud": "other" }), "for another application"),
            (json!({ "aud": null }), "for another application"),
            (json!({ "aud": ["other", "keywheel"] }), "given to another application"),
            (json!({ "azp": "other" }), "given to another application"),
            (json!({ "azp": 7 }), "given to another application"),
            (json!({ "nonce": "m" }), "another sign-in"),
            (json!({ "nonce": null }), "another sign-in"),
            (json!({ "exp": second - 61 }), "expired"),
            (json!({ "exp": null }), "when it ends"),
            (json!({ "exp": "never" }), "when it ends"),
            (json!({ "iat": second + 61 }), "from the future"),
            (json!({ "iat": null }), "when it was made"),
            (json!({ "nbf": second + 61 }), "does not count yet"),
            (json!({ "nbf": "now" }), "does not count yet"),
            (json!({ "sub": null }), "no name of your account"),
            (json!({ "sub": "" }), "no name of your account"),
            (json!({ "sub": "x".repeat(256) }), "no name of your account"),
            (json!({ "sub": "a\nb" }), "no name of your account"),
        ] {
            let said = checked(bad.clone()).unwrap_err();
            assert!(said.contains(why), "{bad}: {said}");
        }
    }

    #[test]
    fn only_a_verified_address_names_a_person() {
        let mail = |changed| mail(&claims(changed));
        let good = json!({ "email": "Ada@Example.COM", "email_verified": true });
        assert_eq!(mail(good).as_deref(), Some("ada@example.com"));
        for bad in [
            json!({ "email": "ada@example.com" }),
            json!({ "email": "ada@example.com", "email_verified": false }),
            json!({ "email": "ada@example.com", "email_verified": "true" }),
            json!({ "email_verified": true }),
            json!({ "email": "ada", "email_verified": true }),
            json!({ "email": "@example.com", "email_verified": true }),
            json!({ "email": "a@b@example.com", "email_verified": true }),
            json!({ "email": "a b@example.com", "email_verified": true }),
            // The Kelvin sign becomes a k in lower case.
            json!({ "email": "\u{212a}im@example.com", "email_verified": true }),
        ] {
            assert_eq!(mail(bad.clone()), None, "{bad}");
        }
    }

    #[test]
    fn groups_are_bounded_and_those_with_a_role_stay() {
        let groups = |value: Value| known(&claims(json!({ "groups": value })), "groups", |it| it == "wanted");
        assert_eq!(groups(json!("one")).unwrap().groups, ["one"]);
        assert_eq!(groups(json!(7)).unwrap().groups, Vec::<String>::new());
        let odd = json!(["b", "a", "a", 7, "", "x".repeat(201), "line\nbreak"]);
        assert_eq!(groups(odd).unwrap().groups, ["a", "b"]);
        let mut many: Vec<String> = (0..300).map(|at| format!("group-{at}")).collect();
        many.push("wanted".to_owned());
        let kept = groups(json!(many)).unwrap().groups;
        assert!(kept.len() == 200 && kept.iter().any(|it| it == "wanted"));
        let overage = claims(json!({ "_claim_names": { "groups": "src1" } }));
        assert!(known(&overage, "groups", |_| true).unwrap_err().contains("too many groups"));
    }
}
