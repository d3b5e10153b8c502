//! The integration tests: one binary, one module per subject.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod atlas;
mod layers;
mod machine;
