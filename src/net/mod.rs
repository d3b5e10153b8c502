//! The shared parts of all HTTP calls to other machines.
//!
//! [`client`] builds clients, [`body`] reads replies up to a limit, and [`header`] parses `Retry-After`
//! and dates. [`cause`] finds the reason in a chain of errors, and [`resolver`] keeps a client on public
//! addresses. Nothing here interprets a reply, and nothing is retried. Servers, SMTP and the clients
//! inside foreign crates (the AWS SDK, the OTLP exporter) are not built here.

pub mod body;
pub mod cause;
pub mod client;
pub mod header;
pub mod resolver;
