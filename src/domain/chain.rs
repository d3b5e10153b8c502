//! The hash of a row of the audit log, which covers the row before it.
//!
//! Who appends computes it, who verifies computes it again; an evidence bundle is verified without a database.

use sha2::{Digest, Sha256};

/// What the hash of a row of the audit log covers, each part as the log holds it.
#[derive(Clone, Copy, Debug)]
pub struct ChainedRow<'a> {
    /// Counts from 1 without gaps.
    pub seq: i64,
    /// The instant, as Keywheel writes it.
    pub at: &'a str,
    /// The actor.
    pub actor: &'a str,
    /// The action.
    pub action: &'a str,
    /// The subject.
    pub subject: &'a str,
    /// JSON text, byte for byte.
    pub detail: &'a str,
    /// The hash of the row before; empty for the first.
    pub prev_hash: &'a str,
    /// The digests of the rows that it seals.
    pub seals: &'a str,
}

impl ChainedRow<'_> {
    /// The SHA-256 in hexadecimal. Every field is preceded by its length, so that no two rows share their bytes.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        let seq = self.seq.to_string();
        let Self { at, actor, action, subject, detail, prev_hash, seals, .. } = *self;
        let fields = [seq.as_str(), at, actor, action, subject, detail, prev_hash];
        // Rows of earlier versions have no such field.
        for field in fields.into_iter().chain(Some(seals).filter(|it| !it.is_empty())) {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field.as_bytes());
        }
        hex::encode(hash.finalize())
    }
}
