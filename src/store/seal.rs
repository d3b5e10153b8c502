//! The seal of a row that authorises, and how an audit row carries it.

use crate::seal::Digest;

/// The seal of a row: its subject, such as `token/ci`, and what it says; `None` ends the subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) subject: String,
    pub(super) digest: Option<Digest>,
}

/// What the subject of a removal's seal begins with (`removals.rs`).
pub(super) const REMOVAL: &str = "removed/";

impl Seal {
    pub(super) fn new(subject: impl Into<String>, digest: Digest) -> Self {
        Self { subject: subject.into(), digest: Some(digest) }
    }

    /// Nothing counts under `subject` any more.
    pub(super) fn end(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), digest: None }
    }
}

/// The seals of an audit row as its column holds them: a line for each, the subject last because it may have spaces.
pub(super) fn written(seals: &[Seal]) -> String {
    let line = |seal: &Seal| match &seal.digest {
        Some(digest) => format!("{digest} {}", seal.subject),
        None => format!("- {}", seal.subject),
    };
    seals.iter().map(line).collect::<Vec<_>>().join("\n")
}
