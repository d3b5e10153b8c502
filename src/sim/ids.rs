//! Ids: those that are derived from names, and those that are random.

use sha2::{Digest as _, Sha256};

/// The organisation of all projects.
pub(super) const ORG: &str = "65aa0000000000000000feed";

/// An id of 24 hex digits that is always the same for the same parts.
pub(super) fn object_id(parts: &[&str]) -> String {
    hex::encode(Sha256::digest(parts.join("/"))).chars().take(24).collect()
}

/// A random text that cannot be guessed.
pub(super) fn opaque() -> String {
    let mut bits = [0u8; 24];
    // A simulator without randomness still works, its tokens only repeat.
    let _ = aws_lc_rs::rand::fill(&mut bits);
    hex::encode(bits)
}
