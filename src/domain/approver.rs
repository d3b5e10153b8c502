//! Who may approve a project's rotations, and how strong a vote must be.
//!
//! A list of approvers narrows the vote to whom it names. Whether a voter exists, and is another person than the
//! proposer, is decided elsewhere.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::named::named;

named! {
    /// How a vote was given, the weakest first.
    Strength, "approval method" {
        /// By a one-time link to a mailbox, with the tail of the key.
        Link = "link",
        /// Signed in, or with a token.
        Session = "session",
        /// Signed in, with the signature of an own passkey over exactly this proposal, and the tail of the key.
        Passkey = "passkey",
    }
}

/// What an earlier version's policy takes.
impl Default for Strength {
    fn default() -> Self {
        Self::Session
    }
}

/// The method of a vote that was given with a token.
pub const BY_TOKEN: &str = "api";

impl Strength {
    /// The strength of a recorded method. A method that is not known is the weakest.
    #[must_use]
    pub fn of(method: &str) -> Self {
        if method == BY_TOKEN { Self::Session } else { method.parse().unwrap_or(Self::Link) }
    }
}

/// One entry of `policy.approvers`: `owners`, `mail:ann@example.com` or `group:payments`. With `one:` before it, one
/// vote of those it names counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Approver {
    /// Whether one vote of those it names counts, and no more.
    pub once: bool,
    /// Whom it names.
    pub who: Named,
}

/// Whom an entry names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Named {
    /// The project's owners.
    Owners,
    /// The person with this mail address.
    Mail(String),
    /// The members of this group at the identity provider.
    Group(String),
}

/// A text that names no approver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no approver; it takes \"owners\", \"mail:ann@example.com\" or \"group:NAME\", each with \"one:\" before it where one vote of them is to count"
)]
pub struct BadApprover(String);

/// Whether a text has the form of a mail address.
pub(super) fn is_mail_address(text: &str) -> bool {
    let has_blank = text.chars().any(|it| it.is_whitespace() || it.is_control());
    let parts = text.rsplit_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
    parts && !has_blank && text.len() <= 254
}

impl FromStr for Approver {
    type Err = BadApprover;
    fn from_str(text: &str) -> Result<Self, BadApprover> {
        let bad = || BadApprover(text.to_owned());
        let (once, rest) = text.strip_prefix("one:").map_or((false, text), |rest| (true, rest));
        let who = match rest.split_once(':') {
            None if rest == "owners" => Named::Owners,
            Some(("mail", mail)) if is_mail_address(mail) => Named::Mail(mail.to_owned()),
            Some(("group", group)) if !group.trim().is_empty() && group.len() <= 200 => {
                Named::Group(group.to_owned())
            }
            _ => return Err(bad()),
        };
        Ok(Self { once, who })
    }
}

impl fmt::Display for Approver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.once { "one:" } else { "" })?;
        match &self.who {
            Named::Owners => f.write_str("owners"),
            Named::Mail(mail) => write!(f, "mail:{mail}"),
            Named::Group(group) => write!(f, "group:{group}"),
        }
    }
}

impl TryFrom<String> for Approver {
    type Error = BadApprover;
    fn try_from(text: String) -> Result<Self, BadApprover> {
        text.parse()
    }
}

impl From<Approver> for String {
    fn from(it: Approver) -> Self {
        it.to_string()
    }
}

impl Named {
    /// Whether it names a person with this address and these groups; `owners` are the project's.
    #[must_use]
    pub fn names(&self, person: Option<&str>, groups: &BTreeSet<String>, owners: &[String]) -> bool {
        let is = |mail: &str| person.is_some_and(|it| it.eq_ignore_ascii_case(mail));
        match self {
            Self::Owners => owners.iter().any(|owner| is(owner)),
            Self::Mail(mail) => is(mail),
            Self::Group(group) => groups.contains(group),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_prints_as_it_was_read() {
        for text in ["owners", "one:owners", "mail:ann@example.com", "group:payments", "one:group:a:b c"] {
            assert_eq!(text.parse::<Approver>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "owner",
            "mail:",
            "mail:ann",
            "group:",
            "group: ",
            "one:",
            "one:one:owners",
            "ann@example.com",
        ] {
            assert!(text.parse::<Approver>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_compared_without_case() {
        let none = BTreeSet::new();
        let named = Named::Mail("Ann@Example.com".to_owned());
        assert!(named.names(Some("ann@example.COM"), &none, &[]) && !named.names(None, &none, &[]));
        assert!(Named::Owners.names(Some("ann@example.com"), &none, &["Ann@example.com".to_owned()]));
        assert!(Named::Group("a".to_owned()).names(None, &BTreeSet::from(["a".to_owned()]), &[]));
    }

    #[test]
    fn an_unknown_method_is_the_weakest() {
        assert_eq!(Strength::of("api"), Strength::Session);
        assert_eq!(Strength::of("something"), Strength::Link);
        assert!(Strength::Link < Strength::Session);
    }
}
