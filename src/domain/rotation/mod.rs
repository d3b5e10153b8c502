//! The rotation: its states, what can happen to it, and the one function that decides.
//!
//! [`state`] is what a rotation is (what it remembers of each phase is in `progress`, how that is
//! stored in `stored`), [`journal`] names the kinds of its journal rows, [`outcome`] what the world
//! answers, [`machine`] the decision, [`retry`] the waits between attempts.

pub mod journal;
pub mod machine;
pub mod outcome;
mod progress;
pub mod retry;
pub mod state;
mod stored;
