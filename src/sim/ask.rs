//! A request as its handler reads it.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::http::{HeaderMap, Method};

use crate::domain::time::Timestamp;

/// A request, parsed.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// When it is handled.
    pub(super) now: Timestamp,
    /// The credential that sent it, once it is admitted.
    pub(super) who: String,
    pub(super) method: Method,
    /// Path and query as sent.
    pub(super) uri: String,
    pub(super) params: BTreeMap<String, String>,
    pub(super) query: BTreeMap<String, String>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Ask {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A part of the path; empty when the path has no such part.
    pub(super) fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }

    pub(super) fn group(&self) -> Option<&str> {
        self.params.get("group").map(String::as_str)
    }

    /// A boolean of the query.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.query.get(name).and_then(|text| text.parse().ok())
    }
}
