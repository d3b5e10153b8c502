//! The webhooks for the fuzz targets: the stored part of a target's reply.

use super::target::Target;

/// The stored part of a reply's body.
#[must_use]
pub fn kept(target: &Target, text: &str) -> String {
    target.cleaned(text)
}
