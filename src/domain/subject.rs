//! What a condition is about: a project, or a part of the installation.

use std::fmt;
use std::str::FromStr;

use super::ids::GroupId;

/// The subject of a condition. Its text is a part of the condition's id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// An Atlas project: its id.
    Project(GroupId),
    /// An Atlas credential: `credential/NAME`.
    Credential(String),
    /// What only one daemon can see: `daemon/HOST:PORT`.
    Daemon(String),
    /// An API token: `token/NAME`.
    Token(String),
    /// A person: `person/MAIL`.
    Person(String),
    /// Everything that daemons on one database share: `installation`.
    Installation,
}

/// The text of [`Subject::Installation`].
const INSTALLATION: &str = "installation";

impl Subject {
    /// The project, when it is one.
    #[must_use]
    pub const fn project(&self) -> Option<&GroupId> {
        match self {
            Self::Project(group) => Some(group),
            Self::Credential(_) | Self::Daemon(_) | Self::Token(_) | Self::Person(_) | Self::Installation => {
                None
            }
        }
    }
}

impl From<&GroupId> for Subject {
    fn from(group: &GroupId) -> Self {
        Self::Project(group.clone())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Project(group) => write!(f, "{group}"),
            Self::Credential(name) => write!(f, "credential/{name}"),
            Self::Daemon(name) => write!(f, "daemon/{name}"),
            Self::Token(name) => write!(f, "token/{name}"),
            Self::Person(name) => write!(f, "person/{name}"),
            Self::Installation => f.write_str(INSTALLATION),
        }
    }
}

impl FromStr for Subject {
    type Err = NoSubject;
    fn from_str(text: &str) -> Result<Self, NoSubject> {
        let named = |prefix| text.strip_prefix(prefix).filter(|name| !name.is_empty()).map(str::to_owned);
        if let Some(name) = named("credential/") {
            return Ok(Self::Credential(name));
        }
        if let Some(name) = named("daemon/") {
            return Ok(Self::Daemon(name));
        }
        if let Some(name) = named("token/") {
            return Ok(Self::Token(name));
        }
        if let Some(name) = named("person/") {
            return Ok(Self::Person(name));
        }
        if text == INSTALLATION {
            return Ok(Self::Installation);
        }
        text.parse().map(Self::Project).map_err(|_| NoSubject(text.chars().take(80).collect()))
    }
}

/// Text that names no subject.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no subject of a condition")]
pub struct NoSubject(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_read_back_as_it_was_written() {
        for text in [
            "32b6e34b3d91647abb20e7b8",
            "credential/default",
            "daemon/host:8440",
            "token/ci",
            "person/ada@example.com",
            "installation",
        ] {
            assert_eq!(text.parse::<Subject>().unwrap().to_string(), text);
        }
        for text in ["", "credential/", "daemon/", "Installation", "project/32b6e34b3d91647abb20e7b8"] {
            assert!(text.parse::<Subject>().is_err(), "{text}");
        }
    }
}
