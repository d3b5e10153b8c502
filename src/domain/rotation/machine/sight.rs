//! What an observation must bring, and what it shows: the new key, the old key, or something else.

use std::time::Duration;

use crate::domain::rotation::outcome::{Extras, Observation};
use crate::domain::rotation::state::{Rotation, State};

/// Clocks that differ by more than this hold PATCHes and expiries.
pub const MAX_SKEW: Duration = Duration::from_mins(2);

/// How Atlas' configuration relates to a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It holds the new key.
    New,
    /// It holds the old key.
    Old,
    /// It holds a third key.
    Other,
    /// It does not encrypt with this provider any more.
    Elsewhere,
}

/// How `seen` relates to `rotation`'s two keys.
#[must_use]
pub fn sight(rotation: &Rotation, seen: &Observation) -> Sight {
    let Some(key) = seen.key.as_ref().filter(|_| seen.provider == Some(rotation.provider)) else {
        return Sight::Elsewhere;
    };
    if key.is_same(&rotation.new_key, &seen.place) {
        Sight::New
    } else if key.is_same(&rotation.old_key, &seen.place) {
        Sight::Old
    } else {
        Sight::Other
    }
}

/// What an observation in this state must bring beside the configuration.
#[must_use]
pub fn extras(rotation: &Rotation) -> Extras {
    Extras {
        alerts: rotation.state == State::Verifying
            && (rotation.readings.false_since.is_some() || rotation.readings.flaps > 0),
        // From the PATCH on: a quick roll-out is over before the key is verified.
        clusters: matches!(
            rotation.state,
            State::Approved | State::Applying | State::Verifying | State::Deploying
        ),
        // Not between two attempts of one PATCH: those must follow each other soon.
        preflight: rotation.state == State::Approved,
    }
}

/// Whether our clock and Atlas' disagree too much to trust either with a decision.
pub(super) fn skewed(seen: &Observation) -> bool {
    let limit = u64::try_from(MAX_SKEW.as_millis()).unwrap_or(u64::MAX);
    seen.skew_ms.is_some_and(|skew| skew.unsigned_abs() > limit)
}
