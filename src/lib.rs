//! Keywheel rotates the customer-managed keys of MongoDB Atlas projects and verifies each new key.
//!
//! The library is rooms in layers: a room uses only rooms of lower layers. docs/architecture.md draws
//! which uses which, and a test holds the sources against that picture.

pub mod api;
pub mod app;
pub mod atlas;
pub mod cli;
pub mod config;
pub mod domain;
pub mod engine;
pub mod evidence;
pub mod kms;
pub mod lifecycle;
pub mod mail;
pub mod net;
pub mod passkey;
pub mod seal;
pub mod secret;
pub mod sim;
pub mod store;
pub mod telemetry;
pub mod web;
pub mod webhook;

/// The entry points of the targets in `fuzz/`. The parsers that face the network are private, and stay
/// so: only cargo-fuzz sets `--cfg fuzzing`, and no other build has these names.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    /// Replies of Atlas.
    pub mod atlas {
        pub use crate::atlas::fuzzing::*;
    }
    /// Inventory files.
    pub mod cli {
        pub use crate::cli::fuzzing::*;
    }
    /// Deliveries and the verification of their senders.
    pub mod hooks {
        pub use crate::web::hooks::fuzzing::*;
    }
    /// Replies of the key services.
    pub mod kms {
        pub use crate::kms::fuzzing::*;
    }
    /// Replies of webhooks' targets.
    pub mod webhook {
        pub use crate::webhook::fuzzing::*;
    }
}
