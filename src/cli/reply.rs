//! An answer of the server, as it came and as it reads.

use serde_json::Value;

/// A successful answer.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    /// As it came.
    pub(super) text: String,
    /// As it reads; null when there is no body.
    pub(super) json: Value,
    /// Whether the server made something new (201).
    pub(super) created: bool,
}
