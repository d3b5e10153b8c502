//! Webhooks out: what one says ([`body`]), how it proves where it comes from ([`sign`]), and how it
//! reaches its target ([`target`]).
//!
//! A body is rendered from the notice that its outbox row holds, each time it is sent, and comes out the same.
//! Which webhooks there are, when each is tried and what becomes of it is the engine's business;
//! nothing here waits for another try or knows of the database.

pub mod body;
mod event;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod note;
#[cfg(test)]
mod schema;
pub mod sign;
pub mod target;

pub use note::Note;
pub use target::{Target, TargetResponse};
