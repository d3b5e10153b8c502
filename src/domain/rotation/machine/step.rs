//! The result of [`next`](super::next): the rotation from now on, one effect, and the announcements.

use crate::domain::rotation::outcome::Extras;
use crate::domain::rotation::state::{Rotation, State, Target};

/// The engine's action after the commit of the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Observe now: GET the configuration and these extras.
    Look(Extras),
    /// PATCH this key now, as the attempt just recorded.
    Patch(Target),
    /// Nothing until `wake_at`.
    Rest,
}

/// A notice to people, written in the transaction of its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// The rotation reached this final state.
    Finished(State),
    /// An operator is paged for the rotation's cause.
    Page,
    /// The quorum is met, and a line of the pre-flight checklist fails.
    PreflightFailed,
    /// A PATCH took effect after the rotation had ended.
    LateApply,
    /// The clusters had not taken up the key when the wait ended.
    NotDeployed,
}

/// The result of [`next`](super::next).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The rotation from now on.
    pub rotation: Rotation,
    /// The effect after the commit.
    pub effect: Effect,
    /// The announcements.
    pub notices: Vec<Announcement>,
    /// The command has no meaning in this state; then nothing else changed.
    pub illegal: bool,
}
