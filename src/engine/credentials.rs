//! When the secrets of service accounts expire: Atlas gives them a year at most. Read once a day, where the credential may
//! read it, so that people hear of it 30, 7 and 1 days before.
//!
//! An answer that does not come says nothing: what is known stays.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::atlas::AtlasApi;
use crate::domain::time::Timestamp;
use crate::lifecycle::wait;

/// How often the secrets are read.
const EVERY: Duration = Duration::from_hours(24);

/// How soon after an attempt without an answer.
const AGAIN: Duration = Duration::from_mins(15);

/// When the secret of each credential expires, as far as this daemon has read it.
#[derive(Debug, Default)]
pub struct SecretEnds {
    ends: Mutex<BTreeMap<String, Option<Timestamp>>>,
    due: Notify,
}

impl SecretEnds {
    /// When the secret of `credential` expires; `None` when that was not read yet.
    #[must_use]
    pub fn of(&self, credential: &str) -> Option<Option<Timestamp>> {
        self.lock().get(credential).copied()
    }

    /// Has them read at once: another secret is in force.
    pub fn read_again(&self) {
        self.due.notify_one();
    }

    /// Those that are known.
    #[must_use]
    pub fn known(&self) -> Vec<(String, Timestamp)> {
        self.lock().iter().filter_map(|(name, end)| Some((name.clone(), (*end)?))).collect()
    }

    fn set(&self, credential: String, end: Option<Timestamp>) {
        self.lock().insert(credential, end);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Option<Timestamp>>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads once a day, and after a change of the configuration, until `stop`.
pub async fn run(engine: Engine, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let longest = if once(&engine).await { EVERY } else { AGAIN };
        wait(engine.secret_ends.due.notified(), longest, &stop).await;
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
