//! Keywheel rotates the customer-managed keys of MongoDB Atlas projects and proves each new key.
//!
//! The library is laid out in five layers; imports only go down, and siblings never import each
//! other (a test reads the sources and holds this picture against them):
//!
//! ```text
//! L5  main -> cli -> app
//! L4  web                                         -> engine, store reads, domain
//! L3  engine                                      -> store, atlas, kms, mail, webhook, domain
//! L2  store | atlas | kms | mail | webhook | sim  -> domain, secret
//! L1  config | secret | lifecycle | telemetry
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
pub mod secret;
pub mod sim;
pub mod store;
pub mod telemetry;
pub mod web;
pub mod webhook;
