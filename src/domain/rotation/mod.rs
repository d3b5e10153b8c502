//! The rotation: its states, what can happen to it, and the one function that decides.
//!
//! [`state`] is what is stored, [`journal`] names the kinds of its journal rows, [`outcome`] what the world answers, [`machine`] the decision,
//! [`retry`] the waits between attempts.

pub mod journal;
pub mod machine;
pub mod outcome;
pub mod retry;
pub mod state;
