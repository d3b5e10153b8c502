//! What the fuzz targets call of the webhooks: what is kept of a target's reply.

use std::time::Duration;

use super::target::{Target, wait};
use crate::domain::time::Timestamp;

/// The wait that `Retry-After` asks for.
#[must_use]
pub fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    wait(text, now)
}

/// What is kept of a reply's body.
#[must_use]
pub fn kept(target: &Target, text: &str) -> String {
    target.cleaned(text)
}
