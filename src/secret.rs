//! Secrets: texts that neither print nor serialise.
//!
//! The few places that need the text call `expose`, which can be searched for. A [`SecretUrl`]
//! shows everything but its password, because the host is what a person needs to see in an error.
//! Nothing here reads files or knows which settings are secret.

use std::fmt;

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
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.expose();
        let Ok(mut url) = Url::parse(text) else {
            // What cannot be read cannot be masked either.
            return f.write_str(if text.is_empty() { "" } else { "***" });
        };
        // Anything that looks like user information outside its place is not worth the risk.
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

/// libpq takes these in the query as well as before the host.
fn is_secret_parameter(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.contains("password") || name.contains("passwd") || name.contains("secret") || name.contains("token")
}

fn mask_query(url: &mut Url) {
    let pairs: Vec<String> = url
        .query_pairs()
        .map(
            |(name, value)| {
                if is_secret_parameter(&name) { format!("{name}=***") } else { format!("{name}={value}") }
            },
        )
        .collect();
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
    fn a_secret_url_shows_all_but_its_password() {
        for (text, shown) in [
            (
                "postgres://kw:canary@db:5432/keywheel?sslmode=require",
                "postgres://kw:***@db:5432/keywheel?sslmode=require",
            ),
            ("postgres://db/keywheel?user=kw&password=canary", "postgres://db/keywheel?user=kw&password=***"),
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
