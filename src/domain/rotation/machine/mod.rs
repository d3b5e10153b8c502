//! The decision: given a rotation and what just happened, what is it now and what comes next.
//!
//! One rule carries everything. **A state names the single effect that may be in flight; it is
//! committed before the effect, and every resume starts with an observation.** So the first run and the
//! recovery after a crash are the same code, and a reply that never came is an outcome like any
//! other. [`next`] is total and pure: no I/O, no clock, no random source. The
//! caller commits the returned rotation before carrying out the returned effect.
//!
//! ```text
//! awaiting_approval -> approved -> applying -> verifying -> deploying -> completed
//!    rejected            |            |            |  \
//!    cancelled           |          failed         |   rolling_back -> rolled_back
//!    expired             +------------+------------+-----+---> needs_operator -> accepted, closed
//!                        superseded: somebody else changed the key
//! ```
//!
//! A phase is a file: `approving`, `applying`, `verifying`, `deploying`, `rolling_back`, `operator`,
//! `ended`. The four kinds of outcome come in through `observed`, `blind`, `reply` and `commands`, which do
//! what holds in every state and hand over to the phase. `readings` counts `valid`, `sight` compares
//! keys, `turn` is what all of them work on, `step` what comes out.
//!
//! Not here: waiting, HTTP, storage, who may say what. Where the truth cannot be proven the
//! machine stops in `needs_operator`; it never picks the nicer story, never PATCHes over a key that
//! is neither old nor new, and never rolls back on a missing reading.

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
pub const MACHINE_VERSION: i32 = 4;

/// How a claimed rotation goes on: always with an observation, unless Atlas asked not to be called yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Observe Atlas.
    Look(Extras),
    /// Pass this on as [`Outcome::Blind`] without a call.
    Blind(Failure),
}

/// What a worker that just claimed `rotation` does first.
#[must_use]
pub fn resume(rotation: &Rotation, now: Timestamp) -> Resume {
    match (rotation.observing.not_before, &rotation.observing.failure) {
        (Some(until), Some(failure)) if now < until => Resume::Blind(failure.clone()),
        _ => Resume::Look(extras(rotation)),
    }
}

/// Decides what `rotation` is after `outcome`, and what comes next. Commit the first, then do the second.
#[must_use]
pub fn next(rotation: &Rotation, outcome: &Outcome, now: Timestamp) -> Step {
    let mut turn =
        Turn { r: rotation.clone(), now, effect: Effect::Rest, notices: Vec::new(), illegal: false };
    match outcome {
        Outcome::Looked(look) => turn.observed(look),
        Outcome::Blind(failure) => turn.blind(failure),
        Outcome::Replied(reply) => turn.replied(reply),
        Outcome::Said(command) => turn.said(command),
    }
    if turn.illegal {
        turn.r = rotation.clone();
    }
    Step { rotation: turn.r, effect: turn.effect, notices: turn.notices, illegal: turn.illegal }
}
