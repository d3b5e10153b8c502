//! People: by what each is known, and whether a vote would count.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::role::Role;
use crate::domain::time::Timestamp;

/// Somebody who is known here: by an identity provider, a token, a link that was used, or a passkey. What shares an
/// address is one person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    /// The mail address, or the name of an account without a verified one.
    pub address: String,
    /// Other addresses and names of the same person, such as those of before.
    pub other_addresses: Vec<String>,
    /// The accounts at identity providers.
    pub accounts: Vec<Account>,
    /// The tokens in force.
    pub tokens: Vec<PersonToken>,
    /// When a link in a mail was used last; null when none was.
    pub link_used_at: Option<Timestamp>,
    /// The roles of all of them.
    pub roles: Vec<Role>,
    /// The groups that a policy names as approvers.
    pub approver_groups: Vec<String>,
    /// The passkeys.
    pub passkeys: Vec<PersonPasskey>,
    /// The open sessions of the pages, the latest first.
    pub sessions: Vec<PersonSession>,
    /// Whether a vote would count.
    pub vote: PersonVote,
}

/// A person who was removed, and what went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PersonRemoved {
    /// Who it was, and by what it was known.
    pub removed: Person,
    /// The ids of the projects that one of the addresses owns still: their mails go on, and nobody else gets them.
    pub still_owns: Vec<String>,
}

/// The separation of an address from an identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Untie {
    /// The token or account from which the address is separated; it may be left out where there is only one.
    pub from: Option<String>,
}

/// An account at an identity provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// The issuer.
    pub issuer: String,
    /// The identity in journal and audit log.
    pub name: String,
    /// Its roles, by its groups.
    pub roles: Vec<Role>,
    /// When it signed in first.
    pub since: Timestamp,
    /// When it signed in last.
    pub last_sign_in: Timestamp,
    /// Whether this provider is configured; otherwise it signs nobody in.
    pub configured: bool,
}

/// A token that was given to a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PersonToken {
    /// Its name.
    pub name: String,
    /// Its roles.
    pub roles: Vec<Role>,
}

/// A passkey of a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PersonPasskey {
    /// The id of its credential.
    pub id: String,
    /// What its holder calls it.
    pub name: String,
    /// The host at which it works.
    pub site: String,
    /// When it was confirmed; null while it waits for that.
    pub confirmed_at: Option<Timestamp>,
    /// From when on its signatures count; null before all were told who must hear of it.
    pub counts_from: Option<Timestamp>,
    /// Why it signs no votes now; null when it does.
    pub why_not: Option<String>,
}

/// An open session of the pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PersonSession {
    /// The token or account that signed in.
    pub name: String,
    /// When it began.
    pub began_at: Timestamp,
    /// When it was used last, to a minute.
    pub seen_at: Timestamp,
    /// When it ends at the latest.
    pub ends_at: Timestamp,
}

/// Whether a person's vote would count on a proposal of somebody else, before a project's own approvers narrow it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PersonVote {
    /// Whether it would.
    pub counts: bool,
    /// Why not; null when it would.
    pub why: Option<String>,
    /// From when on it would, where that is known.
    pub counts_from: Option<Timestamp>,
}
