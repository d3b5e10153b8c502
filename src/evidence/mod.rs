//! Evidence bundles: one file for a period, which an auditor checks without Keywheel and without trusting it.
//!
//! `docs/evidence.md` specifies the format byte for byte. Nothing here reads the database or asks anybody: rows come in
//! as arguments, and a bundle is verified from its bytes and a public key.

mod archive;
mod bundle;
mod csv;
mod dossier;
mod manifest;
mod page;
mod signature;
mod story;
mod tables;
mod verify;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use archive::{LARGEST, MOST_FILES};
pub use bundle::Bundle;
pub use dossier::{Dossier, JournalLine, OpenReview, Overwritten, Signed, Vote};
pub use manifest::{Heads, Installation, KeyLink, Manifest, Mark, Period, Versions};
pub use signature::{TrustedKey, key_id, pem};
pub use story::{Move, SentKey, Stories, Story};
pub use tables::{
    Approval, Finding, InventoryLine, KeyService, Mail, PasskeyLine, PolicyLine, Rotation, Table,
};
pub use verify::{Expected, Previous, Report, changes_rules, verify};

/// The format of a bundle.
pub const FORMAT: &str = "keywheel-evidence/1";

/// The file that explains the others.
const README: &str = "README.txt";

/// The rows of the audit log.
const AUDIT: &str = "audit.jsonl";

/// The list of the files, and what they are about.
const MANIFEST: &str = "manifest.json";

/// Its signature.
const ENVELOPE: &str = "manifest.dsse.json";

/// Something in a bundle that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The rule that it breaks, as docs/evidence.md names it.
    pub rule: &'static str,
    /// The file in the bundle; `None` for the bundle itself.
    pub file: Option<String>,
    /// The line of that file.
    pub line: Option<usize>,
    /// What does not fit.
    pub what: String,
}

impl Fault {
    fn of(rule: &'static str, what: impl Into<String>) -> Self {
        Self { rule, file: None, line: None, what: what.into() }
    }

    fn file(self, file: &str) -> Self {
        Self { file: Some(file.to_owned()), ..self }
    }

    fn line(self, line: usize) -> Self {
        Self { line: Some(line), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (None, _) => write!(f, "{}: {}", self.rule, self.what),
            (Some(file), None) => write!(f, "{file}: {}: {}", self.rule, self.what),
            (Some(file), Some(line)) => write!(f, "{file}, line {line}: {}: {}", self.rule, self.what),
        }
    }
}

/// A row of the audit log as a bundle holds it. The seal of the installation is left out: only its key can check it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditLine {
    /// Counts from 1 without gaps.
    pub seq: i64,
    /// The instant.
    pub at: String,
    /// The actor.
    pub actor: String,
    /// The action.
    pub action: String,
    /// The subject.
    pub subject: String,
    /// JSON text.
    pub detail: String,
    /// A line for each row that it seals, with its digest and its subject.
    pub seals: String,
    /// The hash of the row before.
    pub prev_hash: String,
    /// The hash of this row.
    pub hash: String,
}
