//! What the fuzz targets call of the webhooks: what is kept of a target's reply.

use super::target::Target;

/// What is kept of a reply's body.
#[must_use]
pub fn kept(target: &Target, text: &str) -> String {
    target.cleaned(text)
}
