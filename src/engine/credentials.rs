//! When the secrets of service accounts expire: Atlas gives them a year at most. Read once a day, where the credential may
//! read it, so that people hear of it 30, 7 and 1 days before.
//!
//! An answer that does not come says nothing: what is known stays.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::atlas::AtlasApi;
use crate::domain::time::Timestamp;
use crate::lifecycle::pause;

/// How often the secrets are read.
const EVERY: Duration = Duration::from_hours(24);

/// How soon after an attempt without an answer.
const AGAIN: Duration = Duration::from_mins(15);

/// When the secret of each credential expires, as far as this daemon has read it.
#[derive(Debug, Default)]
pub struct SecretEnds(Mutex<BTreeMap<String, Option<Timestamp>>>);

impl SecretEnds {
    /// When the secret of `credential` expires; `None` when that was not read yet.
    #[must_use]
    pub fn of(&self, credential: &str) -> Option<Option<Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(credential).copied()
    }

    /// Those that are known.
    #[must_use]
    pub fn known(&self) -> Vec<(String, Timestamp)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(|(name, end)| Some((name.clone(), (*end)?))).collect()
    }

    fn set(&self, credential: String, end: Option<Timestamp>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(credential, end);
    }
}

/// Reads once a day until `stop`.
pub async fn run(engine: Engine, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let wait = if once(&engine).await { EVERY } else { AGAIN };
        pause(wait, &stop).await;
    }
}

/// Reads the secrets of all credentials; returns whether each gave an answer.
pub async fn once(engine: &Engine) -> bool {
    let mut all = true;
    for credential in engine.atlas.credentials() {
        match end_of(engine.atlas.as_ref(), &credential, engine.settings.request_timeout.get()).await {
            Ok(end) => engine.secret_ends.set(credential, end),
            Err(error) => {
                tracing::debug!(credential, error, "when its secret expires was not read");
                all = false;
            }
        }
    }
    engine.conditions_due.notify_one();
    all
}

/// When the secret of `credential` expires, in the organisation of the first project that it sees.
///
/// # Errors
/// Atlas' words.
pub async fn end_of(
    atlas: &dyn AtlasApi,
    credential: &str,
    timeout: Duration,
) -> Result<Option<Timestamp>, String> {
    let page = atlas.groups(credential, 1, 1, timeout).await.map_err(|failure| failure.to_string())?;
    let Some(org) = page.groups.into_iter().next().and_then(|group| group.org) else { return Ok(None) };
    atlas.secret_end(credential, &org, timeout).await.map_err(|failure| failure.to_string())
}
