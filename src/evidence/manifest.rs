//! The manifest of a bundle: what it is about, and each of its files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::time::Timestamp;

/// What a bundle is about, and its files. It is written as compact JSON with the members in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// The format.
    pub format: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// Who asked for it.
    pub made_by: String,
    /// Which time it is about.
    pub period: Period,
    /// The one project that it is about; `None` for all.
    pub project: Option<String>,
    /// Who made it.
    pub installation: Installation,
    /// Which programs.
    pub versions: Versions,
    /// The audit log before the first and at the last row.
    pub head: Heads,
    /// Each change of the installation key, from the beginning of the log on.
    pub keys: Vec<KeyLink>,
    /// The rows of each table, by its file.
    pub counts: BTreeMap<String, u64>,
    /// The files in the order of the archive.
    pub files: Vec<FileEntry>,
}

/// A span of time in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Period {
    /// Its first instant.
    pub from: Timestamp,
    /// The first instant after it.
    pub to: Timestamp,
}

impl Period {
    /// Whether something that began and ended then was open at any time in it.
    #[must_use]
    pub fn covers(&self, began: Timestamp, ended: Option<Timestamp>) -> bool {
        began < self.to && ended.is_none_or(|ended| ended >= self.from)
    }
}

/// The installation that signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Installation {
    /// The fingerprint of its key.
    pub fingerprint: String,
    /// The public half, base64 of 32 bytes.
    pub public_key: String,
    /// The SHA-256 of its `SubjectPublicKeyInfo`.
    pub key_id: String,
}

/// The programs that made a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// Keywheel's version.
    pub keywheel: String,
    /// The version of the database's schema.
    pub schema: i64,
}

/// Places in the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heads {
    /// The row before the first one of the bundle; row 0 without a hash where the bundle begins with the log.
    pub before: Mark,
    /// The last row, which was the end of the log.
    pub after: Mark,
}

/// A row of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Its number.
    pub seq: i64,
    /// Its hash.
    pub hash: String,
}

/// A change of the installation key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyLink {
    /// The row of the audit log.
    pub row: i64,
    /// When.
    pub at: Timestamp,
    /// The fingerprint of the key before.
    pub from: String,
    /// The fingerprint of the next key.
    pub to: String,
    /// The public half of the key before; `None` where it was lost, and has signed nothing.
    pub old_public_key: Option<String>,
    /// The public half of the next key.
    pub public_key: Option<String>,
    /// The signature of the key before over the next one.
    pub signature: Option<String>,
}

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}
