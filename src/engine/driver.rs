//! Claims rotations that are due and steps them, a bounded number at a time.
//!
//! It wakes when a command changed something, when the schedule says "look", and when the earliest
//! `wake_at` comes; on a shared database also every second, for what other daemons gave back. A
//! wake-up carries no information: what is due is always asked of the database. A stop waits for
//! the running steps, each of which gives its claim back where it rests, so that another daemon
//! goes on at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::{Engine, step};
use crate::lifecycle::{pause, wait};
use crate::store::{RotationRow, StoreError};

/// The longest the driver sleeps without asking the database.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// The same where other daemons may give back what they held.
const LONGEST_SLEEP_SHARED: Duration = Duration::from_secs(1);

/// How long it waits for more of the same after it was woken.
const GATHER: Duration = Duration::from_millis(5);

/// How long it waits after the database failed.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Claims and steps until `stop`; then waits for the running steps to park. Ends by itself only when
/// a newer program has changed the database's schema: nothing may be done to it any more.
pub async fn run(engine: Engine, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(engine.settings.slots));
    let steps = TaskTracker::new();
    while !stop.is_cancelled() {
        let longest = match claim(&engine, &slots, &steps).await {
            Ok(longest) => longest,
            Err(error @ StoreError::NewerSchema { .. }) => {
                tracing::error!(error = %error, "this daemon is too old for its database and stops acting");
                break;
            }
            Err(error) => {
                tracing::error!(error = %error, "rotations cannot be claimed; nothing is sent until that is fixed");
                AFTER_FAILURE
            }
        };
        let wake = async {
            engine.rotations_due.notified().await;
            // Slots that come free together are filled together: a claim is a durable write.
            pause(GATHER, &stop).await;
        };
        wait(wake, longest, &stop).await;
    }
    steps.close();
    steps.wait().await;
}

/// Claims what is due and free slots allow; says how long nothing more will be due.
async fn claim(engine: &Engine, slots: &Arc<Semaphore>, steps: &TaskTracker) -> Result<Duration, StoreError> {
    let now = engine.clock.now();
    let longest = if engine.store.is_shared() { LONGEST_SLEEP_SHARED } else { LONGEST_SLEEP };
    let free = slots.available_permits();
    if free == 0 {
        return Ok(longest);
    }
    if engine.epoch.doubts(&engine.store, now).await? {
        return Ok(longest);
    }
    let rows = engine.store.claim(now, free, engine.settings.lease()).await?;
    let full = rows.len() == free;
    for row in rows {
        let Ok(permit) = Arc::clone(slots).try_acquire_owned() else { break };
        let engine = engine.clone();
        // Everything that is logged on the way carries these.
        let span = tracing::info_span!(
            "rotation", rotation.id = %row.rotation.id, project.id = %row.rotation.group_id
        );
        let step = async move {
            if let Err(error) = work(&engine, &row, AFTER_FAILURE).await {
                tracing::error!(
                    rotation.id = %row.rotation.id,
                    error = %error,
                    "step not recorded; nothing is sent for this rotation before one is"
                );
            }
            drop(permit);
            engine.rotations_due.notify_one();
        };
        steps.spawn(step.instrument(span));
    }
    if full {
        return Ok(Duration::ZERO);
    }
    let next = engine.store.next_wake(now).await?;
    Ok(next.map_or(longest, |at| now.until(at).clamp(Duration::from_millis(10), longest)))
}

/// Steps one claimed rotation. Whatever comes of it, the claim is not kept for nothing: after a
/// failure it is given back when `pause` is over, and the next claim begins with a look.
async fn work(engine: &Engine, row: &RotationRow, pause: Duration) -> Result<(), StoreError> {
    let Err(error) = step::run(engine, row.clone()).await else { return Ok(()) };
    let overtaken = matches!(error, StoreError::Conflict | StoreError::LeaseLost);
    if matches!(error, StoreError::LeaseLost) {
        engine.metrics.lease_losses.inc();
    }
    if !overtaken {
        #[expect(clippy::disallowed_methods, reason = "two seconds at most, with the claim still held")]
        tokio::time::sleep(pause).await;
    }
    if let Err(error) = engine.store.release(row).await {
        tracing::warn!(rotation.id = %row.rotation.id, error = %error, "claim not released, it runs out by itself");
    }
    if overtaken { Ok(()) } else { Err(error) }
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
        if engine.epoch.doubts(&engine.store, engine.clock.now()).await? {
            return Ok(done);
        }
        let rows =
            engine.store.claim(engine.clock.now(), engine.settings.slots, engine.settings.lease()).await?;
        if rows.is_empty() {
            return Ok(done);
        }
        for row in rows {
            done += 1;
            work(engine, &row, Duration::ZERO).await?;
        }
    }
}
