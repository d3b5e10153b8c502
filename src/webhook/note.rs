//! The input of a body: a notice with the texts of the mail about it.

use crate::domain::notice::Notice;
use crate::domain::time::Timestamp;

/// A notice with the texts of the mail about it.
#[derive(Clone, Debug)]
pub struct Note<'a> {
    /// The id of the delivery, the same for each attempt.
    pub id: &'a str,
    /// When its cause was written.
    pub at: Timestamp,
    /// The server's public URL, without a slash at its end.
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
    /// The names and values, with the id that joins a start with its end.
    pub(super) fn all_facts(&self) -> Vec<(String, String)> {
        let id = self.notice.condition().map(|it| ("Condition".to_owned(), it.id.to_owned()));
        self.facts.iter().cloned().chain(id).collect()
    }

    /// The page about the project or the rotation.
    pub(super) fn link(&self) -> String {
        let (server, about) = (self.server, self.notice.about());
        match (about.project, about.rotation) {
            (_, Some(id)) => format!("{server}/rotations/{id}"),
            (Some(group), None) => format!("{server}/projects/{group}"),
            (None, None) => server.to_owned(),
        }
    }
}
