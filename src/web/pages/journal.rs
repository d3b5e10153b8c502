//! The journal of a rotation as pages show it: the entries that changed the state.

use super::word;
use crate::domain::text::visible;
use crate::store::JournalEntry;

/// Entries of the journal that are read.
pub(super) const ENTRIES: usize = 500;

/// When, who, and the state after.
pub(super) fn lines(entries: Vec<JournalEntry>) -> Vec<(String, String, String)> {
    let moves = entries.into_iter().filter(|entry| entry.from_state != Some(entry.to_state));
    moves
        .map(|it| (it.at.to_string(), visible(&it.actor), word::state(it.to_state).text.to_owned()))
        .collect()
}
