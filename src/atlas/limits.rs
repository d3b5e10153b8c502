//! What Atlas last said of its rate limits, for operators.
//!
//! Atlas keeps a token bucket for each endpoint set and each project, organization or user, and shares it with the
//! customer's other tools. Its sizes are not part of the API's contract and any header may be missing, so nothing is
//! decided here: a request is refused by Atlas, never by this count.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::response::AtlasResponse;
use crate::domain::rotation::outcome::EndpointSet;
use crate::domain::time::Timestamp;

/// The period in which Atlas refills a bucket; an older level says nothing any more.
const PERIOD: Duration = Duration::from_mins(1);

/// The level of a bucket, as a reply named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// The credential that asked.
    pub credential: String,
    /// The endpoint set that it asked.
    pub set: EndpointSet,
    /// How many requests the bucket holds when it is full (`RateLimit-Limit`).
    pub limit: Option<u64>,
    /// How many were left (`RateLimit-Remaining`).
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
