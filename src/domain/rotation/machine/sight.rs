//! The data that an observation must include, and the key that it shows: new, old, or another.

use std::time::Duration;

use crate::domain::rotation::outcome::{Extras, Observation};
use crate::domain::rotation::state::{Rotation, State};

/// Clock skew above this holds PATCHes and expiries.
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

/// The data that an observation in this state must include beside the configuration.
#[must_use]
pub fn extras(rotation: &Rotation) -> Extras {
    Extras {
        alerts: rotation.state == State::Verifying
            && (rotation.readings.false_since.is_some() || rotation.readings.flaps > 0),
        // `approved` needs them for its holds. From the PATCH on they are recorded, because a quick
        // roll-out is over before the key is verified.
        clusters: matches!(
            rotation.state,
            State::Approved | State::Applying | State::Verifying | State::Deploying
        ),
        // Not in `applying`: two attempts of one PATCH must follow each other soon.
        preflight: rotation.state == State::Approved,
    }
}

/// Whether the clock skew is too large for decisions about time.
pub(super) fn skewed(seen: &Observation) -> bool {
    let limit = u64::try_from(MAX_SKEW.as_millis()).unwrap_or(u64::MAX);
    seen.skew_ms.is_some_and(|skew| skew.unsigned_abs() > limit)
}
