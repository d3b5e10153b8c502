//! The rotation: its states, its outcomes, and the one function that decides.
//!
//! [`state`] holds the rotation, `progress` its fields by phase, and `stored` its stored form.
//! [`journal`] names the kinds of journal rows. [`outcome`] holds observations, failures, replies and
//! commands. [`machine`] decides, and [`retry`] computes the waits between attempts.

pub mod journal;
pub mod machine;
pub mod outcome;
mod progress;
pub mod retry;
pub mod state;
mod stored;
