//! What [`next`](super::next) answers: the rotation from now on, one effect, and what to announce.

use crate::domain::rotation::outcome::Extras;
use crate::domain::rotation::state::{Rotation, State, Target};

/// What the engine does once the rotation is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// GET the configuration, and what else is asked for, now.
    Look(Extras),
    /// PATCH this key now, as the attempt just recorded.
    Patch(Target),
    /// Nothing until `wake_at`.
    Rest,
}

/// What people are told, written in the same transaction as its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// The rotation reached this final state.
    Finished(State),
    /// A person is needed, for the rotation's cause. Repeats count from 1.
    Page {
        /// 0 for the first page of a cause.
        repeat: u32,
    },
    /// The project's current key is invalid, so Atlas would refuse any change.
    CurrentKeyInvalid,
    /// People agreed, and a line of the pre-flight checklist fails.
    PreflightFailed,
    /// A PATCH took effect after the rotation had ended.
    LateApply,
    /// The clusters had not taken up the key when the wait ended.
    NotDeployed,
}

/// The answer of [`next`](super::next).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The rotation from now on.
    pub rotation: Rotation,
    /// What to do once it is committed.
    pub effect: Effect,
    /// What to announce.
    pub notices: Vec<Announcement>,
    /// A command that has no meaning in this state; then nothing else changed.
    pub illegal: bool,
}
