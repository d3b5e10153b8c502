//! One operation of the API: its name, its versions, its rate limit, and its handler.

use super::answer::SimResult;
use super::ask::Ask;
use super::world::World;

/// One operation of the API.
#[derive(Clone, Copy)]
pub(super) struct Operation {
    /// Its name in the log and in the script.
    pub(super) name: &'static str,
    /// The versions it exists in, ascending; empty for an operation without a log-in.
    pub(super) versions: &'static [&'static str],
    /// Which rate limit it counts against.
    pub(super) limit: &'static str,
    /// Whether it changes something, which only owners may.
    pub(super) writes: bool,
    /// Its handler.
    pub(super) handle: fn(&mut World, &Ask) -> SimResult,
}

impl Operation {
    /// The newest version that is not newer than the date asked for.
    pub(super) fn served(self, accept: &str) -> Option<&'static str> {
        let wanted = asked_version(accept)?;
        self.versions.iter().rev().find(|version| **version <= wanted).copied()
    }
}

/// The date in a media type such as `application/vnd.atlas.2023-01-01+json`.
pub(super) fn asked_version(accept: &str) -> Option<&str> {
    accept.strip_prefix("application/vnd.atlas.")?.strip_suffix("+json")
}
