//! The journal of a rotation as pages show it: the entries that changed the state, and comments.

use super::word;
use crate::domain::rotation::journal::JournalKind;
use crate::domain::text::visible;
use crate::store::JournalEntry;

/// Entries of the journal that are read.
pub(super) const ENTRIES: usize = 500;

/// When, who, and the state after or what was written.
pub(super) fn lines(entries: Vec<JournalEntry>) -> Vec<(String, String, String)> {
    let is_said = |entry: &JournalEntry| entry.kind == JournalKind::Comment;
    let kept = entries.into_iter().filter(|it| it.from_state != Some(it.to_state) || is_said(it));
    let what = |it: &JournalEntry| match it.detail["comment"].as_str().filter(|_| is_said(it)) {
        Some(text) => format!("Comment: {}", visible(text)),
        None => word::state(it.to_state).text.to_owned(),
    };
    kept.map(|it| (it.at.to_string(), visible(&it.actor), what(&it))).collect()
}
