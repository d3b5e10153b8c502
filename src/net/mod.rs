//! What all HTTP calls to other machines share.
//!
//! [`client`] builds clients, [`body`] reads replies up to a limit, [`header`] parses `Retry-After`
//! and dates, [`cause`] finds the reason in a chain of errors, and [`resolver`] keeps a client on
//! public addresses. Nothing here knows what a reply means, and nothing is retried. Servers, SMTP
//! and the clients inside foreign crates (the AWS SDK, the OTLP exporter) are not built here.

pub mod body;
pub mod cause;
pub mod client;
pub mod header;
pub mod resolver;
