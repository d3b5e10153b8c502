//! The decision: from a rotation and an outcome, the rotation's next value and the next effect.
//!
//! One rule carries everything. **A state names the single effect that may be in flight; it is committed
//! before the effect, and every resume starts with an observation.** So the first run and the recovery
//! after a crash are the same code. A missing reply is an outcome like any other. [`next`] is total and
//! pure: no I/O, no clock, no random source. The caller commits the returned rotation before carrying out
//! the returned effect.
//!
//! ```text
//! awaiting_approval -> approved -> applying -> verifying -> deploying -> completed
//!    rejected            |            |            |  \
//!    cancelled           |          failed         |   rolling_back -> rolled_back
//!    expired             +------------+------------+-----+---> needs_operator -> accepted, closed
//!                        superseded: another actor changed the key
//! ```
//!
//! A phase is a file: `approving`, `applying`, `verifying`, `deploying`, `rolling_back`, `operator`,
//! `ended`. The four kinds of outcome enter through `observed`, `blind`, `reply` and `commands`. Each
//! applies the rules of every state and passes on to the phase. `readings` counts `valid`, `sight`
//! compares keys, `turn` is the shared working state, and `step` the result.
//!
//! Not here: waiting, HTTP, storage, the rights of people. Where the key in force cannot be verified, the
//! machine stops in `needs_operator`. It never assumes the better of two possible states, and never rolls
//! back on a missing reading. It never PATCHes over a key that is neither old nor new.

use std::time::Duration;

mod applying;
mod approving;
mod blind;
mod commands;
mod deploying;
mod ended;
mod observed;
mod operator;
mod readings;
mod reply;
mod rolling_back;
mod sight;
mod step;
mod turn;
mod verifying;

pub use self::sight::{MAX_SKEW, Sight, extras, sight};
pub use self::step::{Announcement, Effect, Step};
use self::turn::Turn;
use crate::domain::rotation::outcome::{Extras, Failure, Outcome};
use crate::domain::rotation::state::Rotation;
use crate::domain::time::Timestamp;

/// Counts changes of [`next`] that would decide a recorded outcome differently.
pub const MACHINE_VERSION: i32 = 5;

/// How a claimed rotation goes on: with an observation, unless Atlas requested a pause that still runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Observe Atlas.
    Look(Extras),
    /// Pass this on as [`Outcome::Blind`] without a call.
    Blind(Failure),
}

/// The longest pause between two readings of a key that Atlas can request.
pub const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// The first action of a worker that has just claimed `rotation`. A pause that is longer than any that is kept was
/// written by a clock that was wrong.
#[must_use]
pub fn resume(rotation: &Rotation, now: Timestamp) -> Resume {
    match (rotation.observing.not_before, &rotation.observing.failure) {
        (Some(until), Some(failure)) if now < until && until <= now + LONGEST_PAUSE => {
            Resume::Blind(failure.clone())
        }
        _ => Resume::Look(extras(rotation)),
    }
}

/// Decides the rotation after `outcome`, and the next effect. The caller commits the rotation before it
/// carries out the effect.
#[must_use]
pub fn next(rotation: &Rotation, outcome: &Outcome, now: Timestamp) -> Step {
    let mut turn =
        Turn { r: rotation.clone(), now, effect: Effect::Rest, notices: Vec::new(), illegal: false };
    match outcome {
        Outcome::Looked(look) => turn.observed(look),
        Outcome::Blind(failure) => turn.blind(failure),
        Outcome::Replied(reply) => turn.replied(reply),
        Outcome::Said(command) => turn.said(command),
        Outcome::Tampered { .. } => turn.tampered(),
    }
    if turn.illegal {
        turn.r = rotation.clone();
    }
    Step { rotation: turn.r, effect: turn.effect, notices: turn.notices, illegal: turn.illegal }
}
