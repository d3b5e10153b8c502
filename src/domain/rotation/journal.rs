//! The kinds of journal rows and their stored names.

use crate::domain::named::named;

named! {
    /// The event that a journal row records.
    JournalKind, "journal kind" {
        /// A rotation was proposed.
        Proposed = "proposed",
        /// Atlas was observed.
        Look = "look",
        /// Atlas could not be observed.
        Blind = "blind",
        /// A PATCH ended, with a reply or without one.
        Reply = "reply",
        /// A person decided.
        Command = "command",
        /// A person commented and decided nothing.
        Comment = "comment",
        /// A PATCH leaves once this row is committed.
        Patch = "patch",
        /// Atlas' events show a change by another actor that the rotation has replaced.
        Overwrote = "overwrote",
        /// A row that the rotation rests on was changed outside of Keywheel.
        Tampered = "tampered",
    }
}
