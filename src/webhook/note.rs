//! The input of a body: a notice with the words of the mail about it.

use crate::domain::notice::Notice;
use crate::domain::time::Timestamp;

/// A notice with the words of the mail about it.
#[derive(Clone, Debug)]
pub struct Note<'a> {
    /// The same for each attempt.
    pub id: &'a str,
    /// When its cause was written.
    pub at: Timestamp,
    /// How people reach this server, without a slash at its end.
    pub server: &'a str,
    /// The notice.
    pub notice: &'a Notice,
    /// One line for people.
    pub title: &'a str,
    /// Sentences for people.
    pub paragraphs: &'a [String],
    /// Names and values for people.
    pub facts: &'a [(String, String)],
}

impl Note<'_> {
    /// Where a person finds it.
    pub(super) fn link(&self) -> String {
        let (server, about) = (self.server, self.notice.about());
        match (about.project, about.rotation) {
            (_, Some(id)) => format!("{server}/rotations/{id}"),
            (Some(group), None) => format!("{server}/projects/{group}"),
            (None, None) => server.to_owned(),
        }
    }
}
