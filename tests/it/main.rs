//! The integration tests: one binary, one module per subject.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod api;
mod atlas;
mod attacks;
mod backup;
mod canary;
mod cli;
mod conditions;
mod corrupt;
mod daemons;
mod deploy;
mod differential;
mod document;
mod endings;
mod engine;
mod epoch;
mod four_eyes;
mod hooks;
mod incidents;
mod installation;
mod inventory;
mod kill;
#[cfg(all(feature = "aws", feature = "azure", feature = "gcp"))]
mod kms;
mod layers;
mod limits;
mod looks;
mod machine;
mod mail;
mod messages;
mod notices;
mod operate;
mod pooler;
mod refused;
mod reminders;
mod roles;
mod screens;
mod search;
mod senders;
mod silence;
mod sim;
mod store;
mod strangers;
mod support;
mod tls;
mod webhooks;
mod windows;
mod words;
