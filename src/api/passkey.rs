//! Passkeys, without what they sign with.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::time::Timestamp;

/// The confirmation of a passkey.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Confirmation {
    /// The code that its person reads on the page under the own name.
    pub code: String,
}

/// A passkey of a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Passkey {
    /// The id of its credential.
    pub id: String,
    /// Whose it is: a mail address, or the name of an account without a verified one.
    pub holder: String,
    /// What its holder calls it.
    pub name: String,
    /// What its person reads to the admin who confirms it.
    pub code: String,
    /// The host at which it works.
    pub site: String,
    /// The kind of its key: `ES256`, `EdDSA` or `RS256`.
    pub algorithm: String,
    /// Whether it may be stored on other devices, too.
    pub may_be_copied: bool,
    /// The identity that enrolled it.
    pub enrolled_by: String,
    /// When.
    pub enrolled_at: Timestamp,
    /// Who confirmed it; null for one that counts for nothing.
    pub confirmed_by: Option<String>,
    /// When.
    pub confirmed_at: Option<Timestamp>,
    /// Who must hear of it before it counts.
    pub to_tell: Vec<String>,
    /// From when on its signatures count; null until all of them have heard of it.
    pub counts_from: Option<Timestamp>,
    /// Why it signs no votes now; null when it does.
    pub why_not: Option<String>,
}
