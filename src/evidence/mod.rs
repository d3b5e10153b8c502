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

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

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
        Self { rule, file: None, line: None, what: printable(&what.into()) }
    }

    fn file(self, file: &str) -> Self {
        Self { file: Some(printable(file)), ..self }
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

/// The text with what a terminal does not print as one character escaped: a bundle must not write lines of its own into
/// what is said about it.
fn printable(text: &str) -> String {
    let hides = |it: char| {
        it.is_control()
            || matches!(it, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().map(|it| if hides(it) { it.escape_unicode().to_string() } else { it.to_string() }).collect()
}

/// Whether a text is JSON in which no object has a member twice: readers differ in which one they take.
fn is_plain(json: &[u8]) -> bool {
    serde_json::from_slice::<Plain>(json).is_ok()
}

struct Plain;

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(PlainVisitor)
    }
}

struct PlainVisitor;

impl<'de> Visitor<'de> for PlainVisitor {
    type Value = Plain;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated members")
    }

    fn visit_unit<E>(self) -> Result<Plain, E> {
        Ok(Plain)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Plain, E> {
        Ok(Plain)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Plain, E> {
        Ok(Plain)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Plain, E> {
        Ok(Plain)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Plain, E> {
        Ok(Plain)
    }

    fn visit_str<E>(self, _: &str) -> Result<Plain, E> {
        Ok(Plain)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Plain, A::Error> {
        while items.next_element::<Plain>()?.is_some() {}
        Ok(Plain)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Plain, A::Error> {
        let mut names = BTreeSet::new();
        while let Some((name, Plain)) = members.next_entry::<String, Plain>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("a member is repeated"));
            }
        }
        Ok(Plain)
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
