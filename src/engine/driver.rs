//! Claims rotations that are due and steps them, a bounded number at a time.
//!
//! It wakes when a command changed something, when the schedule says "look", and when the earliest
//! `wake_at` comes. A wake-up carries no information: what is due is always asked of the database.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Engine, LEASE, step};
use crate::store::StoreError;

/// The longest the driver sleeps without asking the database.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// How long it waits after the database failed.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Claims and steps until `stop`; then waits for the running steps to park.
pub async fn run(engine: Engine, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(engine.settings.slots));
    let steps = TaskTracker::new();
    while !stop.is_cancelled() {
        let notified = engine.rotations_due.notified();
        let sleep = match claim(&engine, &slots, &steps).await {
            Ok(sleep) => sleep,
            Err(error) => {
                tracing::error!(error = %error, "rotations cannot be claimed; nothing is sent until that is mended");
                AFTER_FAILURE
            }
        };
        tokio::select! {
            () = notified => {}
            () = stop.cancelled() => {}
            () = tokio::time::sleep(sleep) => {}
        }
    }
    steps.close();
    steps.wait().await;
}

/// Claims what is due and free slots allow; says how long nothing more will be due.
async fn claim(engine: &Engine, slots: &Arc<Semaphore>, steps: &TaskTracker) -> Result<Duration, StoreError> {
    let now = engine.clock.now();
    let free = slots.available_permits();
    if free == 0 {
        return Ok(LONGEST_SLEEP);
    }
    let rows = engine.store.claim(now, free, LEASE).await?;
    let full = rows.len() == free;
    for row in rows {
        let Ok(permit) = Arc::clone(slots).try_acquire_owned() else { break };
        let engine = engine.clone();
        steps.spawn(async move {
            let id = row.rotation.id;
            match step::run(&engine, row.clone()).await {
                Ok(()) => {}
                Err(StoreError::Conflict | StoreError::LeaseLost) => {
                    // Somebody spoke meanwhile: give the claim back and look again.
                    if let Err(error) = engine.store.release(&row).await {
                        tracing::warn!(rotation.id = %id, error = %error, "claim not released, it runs out by itself");
                    }
                }
                Err(error) => {
                    tracing::error!(rotation.id = %id, error = %error, "step not recorded; nothing more is sent for it until the claim runs out");
                }
            }
            drop(permit);
            engine.rotations_due.notify_one();
        });
    }
    if full {
        return Ok(Duration::ZERO);
    }
    let next = engine.store.next_wake().await?;
    Ok(next.map_or(LONGEST_SLEEP, |at| now.until(at).clamp(Duration::from_millis(10), LONGEST_SLEEP)))
}

/// Steps everything that is due now and returns when nothing is left to do at this instant.
///
/// For tests with a clock of their own; the daemon uses [`run`].
///
/// # Errors
/// What the store answered.
pub async fn run_due(engine: &Engine) -> Result<usize, StoreError> {
    let mut done = 0;
    loop {
        let rows = engine.store.claim(engine.clock.now(), engine.settings.slots, LEASE).await?;
        if rows.is_empty() {
            return Ok(done);
        }
        for row in rows {
            done += 1;
            match step::run(engine, row.clone()).await {
                Err(StoreError::Conflict | StoreError::LeaseLost) => engine.store.release(&row).await?,
                other => other?,
            }
        }
    }
}
