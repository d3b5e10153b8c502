//! The integration tests: one binary, one module per subject.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod atlas;
mod engine;
mod kill;
mod layers;
mod machine;
mod store;
mod support;
