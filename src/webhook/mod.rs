//! Outgoing webhooks: the body ([`body`]), its signature ([`sign`]), and its delivery ([`target`]). Beside them
//! the [`Switch`] that the heartbeat requests.
//!
//! A body is rendered from the notice that its outbox row holds, each time it is sent, with the same
//! result. Recipients, attempts and results are the engine's part; retries and the database are not
//! handled here.

pub mod body;
mod cut;
mod event;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod incident;
mod note;
mod reply;
#[cfg(test)]
mod schema;
pub mod sign;
mod switch;
pub mod target;

pub use note::Note;
pub use switch::Switch;
pub use target::{Target, TargetResponse};
