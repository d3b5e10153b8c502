//! The rate limits that Atlas named last, for operators.
//!
//! Atlas keeps a token bucket for each endpoint set and each project, organization or user. The customer's
//! other tools use the same bucket. Its size is not part of the API's contract and any header may be
//! missing, so nothing is decided here: Atlas refuses a request, never this count.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::response::AtlasResponse;
use crate::domain::rotation::outcome::EndpointSet;
use crate::domain::time::Timestamp;

/// The period in which Atlas refills a bucket; an older level is out of date.
const PERIOD: Duration = Duration::from_mins(1);

/// The level of a bucket, as a reply named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// The credential of the request.
    pub credential: String,
    /// The endpoint set of the request.
    pub set: EndpointSet,
    /// The size of the bucket in requests (`RateLimit-Limit`).
    pub limit: Option<u64>,
    /// The requests left (`RateLimit-Remaining`).
    pub remaining: u64,
    /// When the reply came.
    pub at: Timestamp,
}

/// The levels by credential and endpoint set. A credential reads many projects, each with a bucket of its own: the
/// lowest level of the last minute is kept.
#[derive(Debug, Default)]
pub(super) struct Levels(Mutex<BTreeMap<(String, EndpointSet), Level>>);

impl Levels {
    pub(super) fn note(&self, credential: &str, set: EndpointSet, answer: &AtlasResponse) {
        let (limit, Some(remaining)) = answer.rate_limit else { return };
        let level = Level { credential: credential.to_owned(), set, limit, remaining, at: answer.at };
        let mut levels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = levels.entry((level.credential.clone(), set)).or_insert_with(|| level.clone());
        if level.remaining <= kept.remaining || level.at.since(kept.at) >= PERIOD {
            *kept = level;
        }
    }

    pub(super) fn all(&self) -> Vec<Level> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
