//! Secrets: texts that neither print nor serialise.
//!
//! The few places that need the text call `expose`, which can be searched for. A [`SecretUrl`] shows
//! everything but its password, because an error must show the host. Nothing here reads files or decides
//! which settings are secret.

use std::fmt;

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

/// A secret text. `Debug` shows three stars; there is no `Display` and no `Serialize`.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The text itself, for the call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A URL that may hold a password. `Debug` and `Display` show `user:***@host`.
#[derive(Clone)]
pub struct SecretUrl(Secret);

impl SecretUrl {
    /// Wraps a URL as it was written.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Secret::new(text))
    }

    /// The URL with its password, for the call that connects.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// The user and the password in the URL, percent-decoded; `None` without a user.
    ///
    /// # Errors
    /// One of them is not UTF-8.
    pub fn login(&self) -> Result<Option<(String, Secret)>, BadLogin> {
        let Ok(url) = Url::parse(self.expose()) else { return Ok(None) };
        if url.username().is_empty() {
            return Ok(None);
        }
        let decoded = |text, what| percent_decode_str(text).decode_utf8().map_err(|_| BadLogin(what));
        let user = decoded(url.username(), "user")?;
        let password = decoded(url.password().unwrap_or_default(), "password")?;
        Ok(Some((user.into_owned(), Secret::new(password))))
    }
}

/// A login in a URL that is not text. The login itself is not in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} in the URL is not UTF-8 once percent-decoded; write each byte of its UTF-8 form as %XX")]
pub struct BadLogin(&'static str);

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.expose();
        let Ok(mut url) = Url::parse(text) else {
            // A URL that cannot be parsed cannot be masked either.
            return f.write_str(if text.is_empty() { "" } else { "***" });
        };
        // The text before an `@` may be user information in the wrong place, so nothing is shown.
        if url.cannot_be_a_base() && text.contains('@') {
            return f.write_str("***");
        }
        let secret_query = url.query_pairs().any(|(name, _)| is_secret_parameter(&name));
        if url.password().is_none() && !secret_query {
            return f.write_str(text);
        }
        if url.password().is_some() && url.set_password(Some("***")).is_err() {
            return f.write_str("***");
        }
        if secret_query {
            mask_query(&mut url);
        }
        f.write_str(url.as_str())
    }
}

/// Whether a parameter of the query may hold a secret: libpq takes the password there too.
fn is_secret_parameter(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.contains("password") || name.contains("passwd") || name.contains("secret") || name.contains("token")
}

/// Masks the values of secret parameters. The rest stays as it was written: decoding could change its
/// meaning.
fn mask_query(url: &mut Url) {
    let masked = |pair: &str| {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        let secret = is_secret_parameter(&percent_decode_str(name).decode_utf8_lossy());
        if secret { format!("{name}=***") } else { pair.to_owned() }
    };
    let pairs: Vec<String> = url.query().unwrap_or_default().split('&').map(masked).collect();
    url.set_query(Some(&pairs.join("&")));
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print_itself() {
        let secret = Secret::new("canary");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(secret.expose(), "canary");
    }

    #[test]
    fn a_login_is_percent_decoded_and_nothing_else() {
        for (url, user, password) in [
            ("smtp://kw:a&b@host", "kw", "a&b"),
            ("smtp://kw:a+b@host", "kw", "a+b"),
            ("smtp://kw:a%2Bb@host", "kw", "a+b"),
            ("smtp://kw:a%26b%3Dc@host", "kw", "a&b=c"),
            ("smtp://kw:100%25@host", "kw", "100%"),
            ("smtp://kw:100%@host", "kw", "100%"),
            ("smtp://kw:a%20b c@host", "kw", "a b c"),
            ("smtp://kw:a:b%3Ac@host", "kw", "a:b:c"),
            ("smtp://me%40x.example:p%C3%A4ss@host", "me@x.example", "p\u{e4}ss"),
            ("smtp://k%2Bw@host", "k+w", ""),
        ] {
            let (found, secret) = SecretUrl::new(url).login().unwrap().unwrap();
            assert_eq!((found.as_str(), secret.expose()), (user, password), "{url}");
        }
        assert!(SecretUrl::new("smtp://host").login().unwrap().is_none());
        for (url, what) in [("smtp://k%FFw:canary@host", "user"), ("smtp://kw:canary%C3@host", "password")] {
            let refused = SecretUrl::new(url).login().unwrap_err().to_string();
            assert!(refused.starts_with(&format!("the {what} in the URL is not UTF-8")), "{refused}");
            assert!(!refused.contains("canary"), "{refused}");
        }
    }

    #[test]
    fn a_secret_url_shows_all_but_its_password() {
        for (text, shown) in [
            (
                "postgres://kw:canary@db:5432/keywheel?sslmode=require",
                "postgres://kw:***@db:5432/keywheel?sslmode=require",
            ),
            ("postgres://db/keywheel?user=kw&password=canary", "postgres://db/keywheel?user=kw&password=***"),
            (
                "postgres://db/keywheel?options=-c%20a%3Db+c&p%61ssword=canary%26canary",
                "postgres://db/keywheel?options=-c%20a%3Db+c&p%61ssword=***",
            ),
            ("smtps://me%40x.example:canary@mail.example", "smtps://me%40x.example:***@mail.example"),
            ("sqlite:keywheel.db", "sqlite:keywheel.db"),
            ("postgres:kw:canary@db", "***"),
            ("kw:canary@db/keywheel", "***"),
            ("not a url canary", "***"),
            ("", ""),
        ] {
            let url = SecretUrl::new(text);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
            assert_eq!(url.expose(), text);
        }
    }
}
