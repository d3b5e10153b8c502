//! The parser of `WWW-Authenticate` and `Authentication-Info` (RFC 9110, RFC 7616).
//!
//! Several challenges, of several schemes, may share one header line or have a line each; those of
//! other schemes are only named. Of the supported Digest challenges the strongest counts: SHA-256
//! before MD5, and at equal strength the one that was offered first. Unknown parameters are skipped. A
//! known parameter that is repeated or unreadable makes its challenge unusable. The reason is kept, so
//! that an operator can find the proxy that wrote the header. Nothing here has access to a key.

use super::Algorithm;

/// The longest foreign word that is quoted in a message, in characters.
const WORD_CAP: usize = 40;

/// A Digest challenge that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) realm: String,
    pub(super) nonce: String,
    pub(super) opaque: Option<String>,
    pub(super) algorithm: Algorithm,
    /// Whether the algorithm was named; only then is it named in return.
    pub(super) names_algorithm: bool,
    /// `qop=auth`, or the older form of RFC 2069 without any `qop`.
    pub(super) has_qop: bool,
    /// The server's `stale`: only the nonce was wrong.
    pub(super) stale: bool,
}

/// Why a challenge cannot be answered. The text continues "Atlas answered 401".
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::atlas) enum Unanswerable {
    #[error("without a challenge")]
    NoChallenge,
    #[error("without a Digest challenge; it offers {}", .0.join(", "))]
    NoDigest(Vec<String>),
    #[error("with a Digest challenge that cannot be used: {0}")]
    Unusable(#[from] Unusable),
    #[error("but public_key or the challenge has a character that a header must not have")]
    NoHeader,
    #[error("but the system's random source failed")]
    NoRandom,
}

/// The fault of a Digest challenge.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::atlas) enum Unusable {
    #[error("it has no {0}")]
    Missing(&'static str),
    #[error("its {0} is there twice")]
    Twice(&'static str),
    #[error("its {name} {fault}")]
    Value { name: &'static str, fault: BadValue },
    #[error("its nonce is empty")]
    EmptyNonce,
    #[error("its algorithm {0:?} is unknown")]
    Algorithm(String),
    #[error("its qop {0:?} does not offer auth")]
    Qop(String),
    #[error("{0} is offered without a qop")]
    NoQop(&'static str),
}

/// The fault of a parameter's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::atlas) enum BadValue {
    #[error("is neither a word nor a quoted text")]
    NoText,
    #[error("begins with a quote that does not end")]
    OpenQuote,
    #[error("goes on after its closing quote")]
    GoesOn,
}

/// The challenge to answer among the lines of `WWW-Authenticate`.
///
/// # Errors
/// Fails when none can be answered.
pub(super) fn choose(lines: &[String]) -> Result<Challenge, Unanswerable> {
    let offers: Vec<Offer> = lines.iter().flat_map(|line| offers(line)).collect();
    let mut best: Option<Challenge> = None;
    let mut reason = None;
    for offer in offers.iter().filter(|offer| offer.is_digest()) {
        match offer.read() {
            Ok(it)
                if best.as_ref().is_none_or(|best| it.algorithm.strength() > best.algorithm.strength()) =>
            {
                best = Some(it);
            }
            Ok(_) => {}
            Err(why) => reason = reason.or(Some(why)),
        }
    }
    best.ok_or_else(|| match reason {
        Some(why) => Unanswerable::Unusable(why),
        None if offers.is_empty() => Unanswerable::NoChallenge,
        None => Unanswerable::NoDigest(offers.iter().map(|offer| short(offer.scheme)).collect()),
    })
}

/// The nonce for the next request, from `Authentication-Info`.
pub(super) fn next_nonce(line: &str) -> Option<String> {
    elements(line).find_map(|element| {
        let (name, value) = parameter(element)?;
        if !name.eq_ignore_ascii_case("nextnonce") {
            return None;
        }
        unquote(value).ok().filter(|nonce| !nonce.is_empty())
    })
}

/// One challenge of any scheme, not yet parsed.
struct Offer<'a> {
    scheme: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl Offer<'_> {
    fn is_digest(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("Digest")
    }

    fn read(&self) -> Result<Challenge, Unusable> {
        let required = |name| self.value(name)?.ok_or(Unusable::Missing(name));
        let realm = required("realm")?;
        let nonce = required("nonce")?;
        if nonce.is_empty() {
            return Err(Unusable::EmptyNonce);
        }
        let named = self.value("algorithm")?;
        let algorithm = match &named {
            None => Algorithm::MD5,
            Some(name) => Algorithm::parse(name).ok_or_else(|| Unusable::Algorithm(short(name)))?,
        };
        let qop = self.value("qop")?.filter(|qop| !qop.trim().is_empty());
        if let Some(qop) = &qop
            && !qop.split(',').any(|one| one.trim().eq_ignore_ascii_case("auth"))
        {
            return Err(Unusable::Qop(short(qop)));
        }
        if algorithm.is_session() && qop.is_none() {
            return Err(Unusable::NoQop(algorithm.name()));
        }
        Ok(Challenge {
            realm,
            nonce,
            opaque: self.value("opaque")?,
            algorithm,
            names_algorithm: named.is_some(),
            has_qop: qop.is_some(),
            stale: self.value("stale")?.is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        })
    }

    fn value(&self, name: &'static str) -> Result<Option<String>, Unusable> {
        let mut values = self.parameters.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some((_, value)), None) => {
                unquote(value).map(Some).map_err(|fault| Unusable::Value { name, fault })
            }
            (Some(_), Some(_)) => Err(Unusable::Twice(name)),
        }
    }
}

/// The challenges of one header line, in order.
fn offers(line: &str) -> Vec<Offer<'_>> {
    let mut offers: Vec<Offer> = Vec::new();
    for element in elements(line) {
        let found = parameter(element);
        // A comma separates parameters and challenges alike: an element that is no parameter begins a
        // challenge.
        match (found, offers.last_mut()) {
            (Some(found), Some(offer)) => offer.parameters.push(found),
            (Some(_), None) => {}
            (None, _) => {
                let (scheme, rest) = element.split_at(token_length(element));
                // Any other text after a scheme is a token of that scheme, which is not needed here.
                let parameters = parameter(rest.trim_start()).into_iter().collect();
                offers.push(Offer { scheme, parameters });
            }
        }
    }
    offers.retain(|offer| !offer.scheme.is_empty());
    offers
}

/// The parts of a line between the commas outside of quotes.
fn elements(line: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    line.split(move |c: char| {
        if escaped {
            escaped = false;
            return false;
        }
        match c {
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => return true,
            _ => {}
        }
        false
    })
    .map(str::trim)
    .filter(|element| !element.is_empty())
}

/// `name = value`, with the value unchanged.
fn parameter(element: &str) -> Option<(&str, &str)> {
    let (name, rest) = element.split_at(token_length(element));
    let value = rest.trim_start().strip_prefix('=')?.trim_start();
    // `abc=` and `abc==` are padded tokens of a scheme.
    (!name.is_empty() && !value.is_empty() && !value.starts_with('=')).then_some((name, value))
}

fn token_length(text: &str) -> usize {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    text.bytes().take_while(|b| is_token(*b)).count()
}

/// The text of a value: a token, or a quoted text without its quotes and escapes.
fn unquote(value: &str) -> Result<String, BadValue> {
    let Some(rest) = value.strip_prefix('"') else {
        let is_token = !value.is_empty() && token_length(value) == value.len();
        return if is_token { Ok(value.to_owned()) } else { Err(BadValue::NoText) };
    };
    let mut text = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next() {
            None => return Err(BadValue::OpenQuote),
            Some('"') => break,
            Some('\\') => text.push(chars.next().ok_or(BadValue::OpenQuote)?),
            Some(c) => text.push(c),
        }
    }
    if chars.as_str().is_empty() { Ok(text) } else { Err(BadValue::GoesOn) }
}

fn short(word: &str) -> String {
    if word.chars().count() > WORD_CAP {
        word.chars().take(WORD_CAP).chain(['…']).collect()
    } else {
        word.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chosen(lines: &[&str]) -> Result<Challenge, Unanswerable> {
        choose(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_challenge_of_atlas_is_read() {
        let line = r#"Digest realm="MMS Public API", domain="", nonce="FY7+fAKe0Gh1", algorithm=MD5, qop="auth", stale=false"#;
        let expected = Challenge {
            realm: "MMS Public API".to_owned(),
            nonce: "FY7+fAKe0Gh1".to_owned(),
            opaque: None,
            algorithm: Algorithm::MD5,
            names_algorithm: true,
            has_qop: true,
            stale: false,
        };
        assert_eq!(chosen(&[line]), Ok(expected));
    }

    #[test]
    fn the_strongest_understood_challenge_is_chosen_wherever_it_stands() {
        for lines in [
            &[
                r#"Digest realm="r", nonce="1", algorithm=MD5, Digest realm="r", nonce="2", algorithm=SHA-256"#,
            ][..],
            &[r#"Digest realm="r", nonce="2", algorithm="sha-256""#, r#"Digest realm="r", nonce="1""#],
            &[
                r#"Negotiate abc==, Digest realm="r", nonce="1", Basic realm="a, Digest nonce=\"3\"""#,
                r#"Digest realm="r", nonce="0", algorithm=SHA-512-9, DIGEST Realm = "r" ,, Nonce="2",algorithm=SHA-256"#,
            ],
            &[
                r#"Digest realm="r", nonce="2", algorithm=SHA-256-sess, qop=auth, Digest realm="r", nonce="1", algorithm=SHA-256"#,
            ],
        ] {
            let challenge = chosen(lines).unwrap();
            assert_eq!((challenge.nonce.as_str(), challenge.realm.as_str()), ("2", "r"), "{lines:?}");
        }
    }

    #[test]
    fn quotes_escapes_and_unknown_parameters_are_understood() {
        let line = r#"Digest x="a,b=\"c\"", realm="a \"b\", \\c", nonce=abc, userhash=true, opaque="", qop="auth-int , AUTH", stale=TRUE"#;
        let challenge = chosen(&[line]).unwrap();
        assert_eq!(challenge.realm, r#"a "b", \c"#);
        assert_eq!((challenge.nonce.as_str(), challenge.opaque.as_deref()), ("abc", Some("")));
        assert!(challenge.has_qop && challenge.stale && !challenge.names_algorithm);
        assert!(!chosen(&[r#"Digest realm="r", nonce="n", qop="""#]).unwrap().has_qop);
    }

    #[test]
    fn what_cannot_be_answered_is_named() {
        for (lines, wanted) in [
            (&[][..], "without a challenge"),
            (&[""], "without a challenge"),
            (&["nonce=\"lost\""], "without a challenge"),
            (
                &["Bearer realm=\"x\", Basic realm=\"y\""],
                "without a Digest challenge; it offers Bearer, Basic",
            ),
            (&["Digest"], "it has no realm"),
            (&["Digest realm=\"r\""], "it has no nonce"),
            (&["Digest realm=\"r\", nonce=\"\""], "its nonce is empty"),
            (&["Digest realm=\"r\", nonce=\"abc"], "its nonce begins with a quote that does not end"),
            (&["Digest realm=\"r\", nonce=\"abc\\"], "its nonce begins with a quote that does not end"),
            (&["Digest realm=\"r\"s, nonce=\"n\""], "its realm goes on after its closing quote"),
            (&["Digest realm=a b, nonce=\"n\""], "its realm is neither a word nor a quoted text"),
            (&["Digest realm=\"r\", nonce=\"n\", nonce=\"m\""], "its nonce is there twice"),
            (&["Digest realm=\"r\", nonce=\"n\", algorithm=MD6"], "its algorithm \"MD6\" is unknown"),
            (
                &["Digest realm=\"r\", nonce=\"n\", qop=\"auth-int\""],
                "its qop \"auth-int\" does not offer auth",
            ),
            (&["Digest realm=\"r\", nonce=\"n\", algorithm=MD5-sess"], "MD5-sess is offered without a qop"),
        ] {
            let why = chosen(lines).unwrap_err().to_string();
            assert!(why.contains(wanted), "{lines:?}: {why}");
        }
    }

    #[test]
    fn the_next_nonce_is_found_among_others() {
        assert_eq!(next_nonce(r#"qop=auth, nextnonce="a,\"b", nc=00000001"#).as_deref(), Some("a,\"b"));
        for line in ["", "qop=auth", "nextnonce=\"\"", "nextnonce=\"a", "nextnonce"] {
            assert_eq!(next_nonce(line), None, "{line}");
        }
    }

    /// Texts made of the parts of challenges, so that every branch is reached.
    fn near_challenges() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "Digest",
            " ",
            ",",
            "=",
            "\"",
            "\\",
            "realm",
            "nonce",
            "algorithm",
            "MD5",
            "SHA-256-sess",
            "qop",
            "auth",
            "opaque",
            "stale",
            "true",
            "é",
            "\t",
            "\u{0}",
            "Basic",
            "x",
            "==",
        ]);
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(any in ".*", near in near_challenges()) {
            for text in [any, near] {
                let _ = next_nonce(&text);
                if let Err(why) = choose(&[text.clone(), format!("Digest {text}")]) {
                    prop_assert!(why.to_string().starts_with("with"));
                }
            }
        }

        #[test]
        fn every_text_comes_back_through_quotes(realm in "\\PC*", nonce in "\\PC+", opaque in "\\PC*") {
            let quoted = super::super::quoted;
            let line = format!(
                "Digest realm={}, opaque={},nonce={}", quoted(&realm), quoted(&opaque), quoted(&nonce)
            );
            let challenge = choose(&[line]).unwrap();
            prop_assert_eq!((challenge.realm, challenge.nonce), (realm, nonce));
            prop_assert_eq!(challenge.opaque, Some(opaque));
        }
    }
}
