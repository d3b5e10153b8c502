//! Whether the database can be written: probed in the background, never by a request.
//!
//! A request takes the result of the last probe and triggers the next one. Probes run one at a time and
//! at most once a second, so any number of requests costs one small write a second, and without requests
//! there are no writes. A probe that hangs makes every request fail at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::domain::time::Clock;
use crate::lifecycle::pause;
use crate::store::Store;

/// The shortest time from one probe to the next.
const EVERY: Duration = Duration::from_secs(1);

/// Longest age of a result that is used.
const FRESH: Duration = Duration::from_secs(3);

/// The longest wait of a request for a probe: the first request after a pause finds no fresh result.
const WAIT: Duration = Duration::from_secs(1);

/// Timeout of one probe.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The results of the probes, and the signal for the next one.
#[derive(Debug, Default)]
pub struct Readiness {
    probes: watch::Sender<Probes>,
    asked: Notify,
    /// Why the last probe could not write.
    error: Mutex<Option<String>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Probes {
    /// The start of the running probe.
    began: Option<Instant>,
    /// When the last one ended, and whether it could write.
    last: Option<(Instant, bool)>,
}

impl Readiness {
    /// Whether the last probe could write; without a fresh result, the result of the next probe within a
    /// second.
    pub async fn is_writable(&self) -> bool {
        self.asked.notify_one();
        let mut probes = self.probes.subscribe();
        let limit = Instant::now() + WAIT;
        loop {
            let Probes { began, last } = *probes.borrow_and_update();
            if let Some((at, writable)) = last
                && at.elapsed() <= FRESH
            {
                return writable;
            }
            let hangs = began.is_some_and(|at| at.elapsed() > WAIT);
            if hangs || tokio::time::timeout_at(limit, probes.changed()).await.is_err() {
                return false;
            }
        }
    }

    /// Why the last probe could not write; `None` when it could.
    pub(super) fn last_error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn probe(&self, store: &Store, clock: &dyn Clock) {
        self.probes.send_modify(|it| it.began = Some(Instant::now()));
        let error = match tokio::time::timeout(TIMEOUT, store.check_writable(clock.now())).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", TIMEOUT.as_secs())),
        };
        let before = self.probes.borrow().last.is_none_or(|(_, writable)| writable);
        match &error {
            Some(error) if before => {
                tracing::warn!(error, "not ready: the database cannot be written: {error}");
            }
            None if !before => tracing::info!("ready: the database can be written again"),
            _ => {}
        }
        let last = Some((Instant::now(), error.is_none()));
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
        self.probes.send_modify(|it| *it = Probes { began: None, last });
    }
}

/// Probes on request until `stop`.
pub async fn run(engine: Engine, stop: CancellationToken) {
    let readiness = Arc::clone(&engine.readiness);
    loop {
        tokio::select! {
            () = readiness.asked.notified() => {}
            () = stop.cancelled() => return,
        }
        readiness.probe(&engine.store, engine.clock.as_ref()).await;
        pause(EVERY, &stop).await;
    }
}
