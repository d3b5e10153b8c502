//! Keywheel's types and decisions, without any I/O.
//!
//! Nothing here uses tokio, sqlx, axum or reqwest; the time is an argument. Every other layer may import
//! this one, and it imports none of them.

pub mod address;
pub mod approver;
pub mod chain;
pub mod condition;
pub mod day;
pub mod emergency;
pub mod escalation;
pub mod event;
pub mod freeze;
pub mod hint;
pub mod ics;
pub mod ids;
pub mod key;
pub mod loosening;
pub mod named;
pub mod network;
pub mod notice;
pub mod patch;
pub mod plan;
pub mod policy;
pub mod preflight;
pub mod project;
pub mod reminder;
pub mod role;
pub mod rotation;
pub mod silence;
pub mod subject;
pub mod terraform;
pub mod text;
pub mod time;
pub mod vote;
pub mod zone;
