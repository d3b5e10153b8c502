//! Keywheel rotates the customer-managed keys of MongoDB Atlas projects and proves each new key.
//!
//! The library is laid out in five layers; imports only go down, and siblings never import each
//! other (a test reads the sources and holds this picture against them):
//!
//! ```text
//! L5  main -> cli -> app
//! L4  web                                         -> engine, store reads, domain
//! L3  engine                                      -> store, atlas, kms, mail, webhook, domain
//! L2  store | atlas | kms | mail | webhook | sim  -> domain, secret, net
//! L1  config | secret | net | lifecycle | telemetry
//! L0  domain
//! ```

pub mod app;
pub mod atlas;
pub mod cli;
pub mod config;
pub mod domain;
pub mod engine;
pub mod kms;
pub mod lifecycle;
pub mod mail;
pub mod net;
pub mod secret;
pub mod sim;
pub mod store;
pub mod telemetry;
pub mod web;
pub mod webhook;

/// What the targets in `fuzz/` call. The parsers that face the network are private, and stay so: only
/// cargo-fuzz sets `--cfg fuzzing`, and no other build has these names.
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
    /// Deliveries and their proofs.
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
