//! A reply of Atlas, before it is interpreted.

use crate::domain::time::{Span, Timestamp};
use crate::net::cause::root_cause;

/// A reply, as far as it is needed.
pub(super) struct AtlasResponse {
    pub(super) status: u16,
    /// When it was complete, by our clock.
    pub(super) at: Timestamp,
    /// The `X-Error-Code` header.
    pub(super) error_code: Option<String>,
    pub(super) retry_after: Option<Span>,
    /// The `RateLimit-Limit` and `RateLimit-Remaining` headers; either may be missing.
    pub(super) rate_limit: (Option<u64>, Option<u64>),
    /// Our clock at the middle of the trip minus the `Date` header, in milliseconds.
    pub(super) skew_ms: Option<i64>,
    /// Scheme and host that a redirect points to.
    pub(super) redirect: Option<String>,
    /// The lines of `WWW-Authenticate`.
    pub(super) challenges: Vec<String>,
    /// The `Authentication-Info` header.
    pub(super) authentication_info: Option<String>,
    /// The body, or why it was not read.
    pub(super) body: Result<Vec<u8>, Unread>,
}

/// Why a body was not read. The text goes on after "Atlas answered".
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error("the reply is larger than 1 MiB")]
    TooLong,
    #[error("the reply stopped half-way")]
    Silent,
    #[error("the reply was not complete within {0}")]
    Late(Span),
    #[error("the reply cannot be decoded ({})", root_cause(.0))]
    Undecodable(#[source] reqwest::Error),
    #[error("connection closed before the reply was complete")]
    Closed,
}

impl AtlasResponse {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}
