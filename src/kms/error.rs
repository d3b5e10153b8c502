//! Failed lookups: the provider's own words, and the permission to grant.

use std::fmt;

/// The longest message of a provider that is kept, in characters.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
const MESSAGE_CAP: usize = 2000;

/// The kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Our identity lacks the permission.
    Denied,
    /// There is no such key, version, alias or vault.
    NotFound,
    /// Network, firewall, timeout, or a service that is down.
    Unreachable,
    /// No login: an expired secret, no credential at all.
    Credential,
    /// Too many requests.
    Throttled,
    /// The service refuses to use the key: disabled, pending deletion, expired.
    Unusable,
    /// A reply that is not valid, or a lookup that the service cannot serve.
    Broken,
}

/// A failed lookup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct KmsError {
    /// What kind of failure it is.
    pub kind: ErrorKind,
    /// The provider's code.
    pub code: Option<String>,
    /// The provider's own words; never a secret.
    pub message: String,
    /// Which permission, role or network rule is missing, and what to grant.
    pub advice: String,
}

/// Code, words and advice in one line.
impl fmt::Display for KmsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) if !self.message.starts_with(code.as_str()) => {
                write!(f, "{code}: {}; {}", self.message, self.advice)
            }
            _ => write!(f, "{}; {}", self.message, self.advice),
        }
    }
}

#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
impl KmsError {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { kind, code: None, message: cap(message.into()), advice: advice.into() }
    }

    pub(super) fn with_code(self, code: Option<String>) -> Self {
        Self { code: code.filter(|it| !it.is_empty()).map(cap), ..self }
    }

    pub(super) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(
            ErrorKind::Unreachable,
            message,
            "check the network path from this machine to the key service: DNS, proxy, firewall, private endpoint",
        )
    }

    pub(super) fn broken(message: impl Into<String>) -> Self {
        Self::new(
            ErrorKind::Broken,
            message,
            "check that the endpoint is the key service itself and not a proxy in front of it",
        )
    }

    /// A lookup of another provider's key.
    pub(super) fn foreign(service: &str, key: &crate::domain::key::KeyRef) -> Self {
        Self::new(
            ErrorKind::Broken,
            format!("{key} is not a key of {service}"),
            "name a lookup of the project's own provider: keywheel project edit PROJECT --kms NAME",
        )
    }
}

/// A foreign text on one line, cut at [`MESSAGE_CAP`].
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
fn cap(text: String) -> String {
    let text = if text.contains(char::is_control) {
        text.split(char::is_control).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    } else {
        text
    };
    if text.chars().count() > MESSAGE_CAP {
        text.chars().take(MESSAGE_CAP).chain(['…']).collect()
    } else {
        text
    }
}
