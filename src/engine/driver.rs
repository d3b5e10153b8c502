//! Claims rotations that are due and steps them, a bounded number at a time.
//!
//! The driver wakes after a command, at each beat of the schedule, and at the earliest `wake_at`. On a
//! shared database it also wakes every second, for claims that other daemons released. A wake-up carries
//! no information: the due rotations are always read from the database. A stop waits for the running
//! steps, which end with the PATCH or the write in hand: an observation is given up. Each step releases its claim where it
//! rests or stops, so that another daemon continues at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::step::Ended;
use super::{Engine, step};
use crate::lifecycle::{pause, wait};
use crate::store::{RotationRow, StoreError};

/// The longest sleep before the database is read again.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// The same on a shared database, where other daemons may release claims.
const LONGEST_SLEEP_SHARED: Duration = Duration::from_secs(1);

/// One rotation is claimed ahead for so many slots, where no other daemon could run it instead. A slot that
/// comes free then continues at once, not after the durable write of a claim.
const SLOTS_PER_CLAIM_AHEAD: usize = 4;

/// The wait for further wake-ups after the first.
const GATHER: Duration = Duration::from_millis(5);

/// The wait after the database failed.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Claims and steps until `stop`; then waits until the running steps rest. Ends by itself only when a
/// newer version has migrated the database's schema: this version must not write to it any more.
pub async fn run(engine: Engine, stop: CancellationToken) {
    let slots = Slots::of(&engine);
    let steps = TaskTracker::new();
    tokio::select! {
        // What a step rests on cannot be checked before.
        () = engine.store.seals_followed() => {}
        () = stop.cancelled() => {}
    }
    while !stop.is_cancelled() {
        let longest = match claim(&engine, &slots, &steps, &stop).await {
            Ok(longest) => longest,
            Err(error @ StoreError::NewerSchema { .. }) => {
                tracing::error!(error = %error, "this daemon is too old for its database and stops acting");
                break;
            }
            Err(error) => {
                tracing::error!(error = %error, "rotations cannot be claimed; no PATCH is sent until they can");
                AFTER_FAILURE
            }
        };
        let wake = async {
            engine.rotations_due.notified().await;
            // Slots that become free together are filled together: a claim is a durable write.
            pause(GATHER, &stop).await;
        };
        wait(wake, longest, &stop).await;
    }
    steps.close();
    steps.wait().await;
}

/// How many rotations are claimed, and how many of them run.
struct Slots {
    claimed: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Slots {
    fn of(engine: &Engine) -> Self {
        let running = engine.settings.slots;
        let ahead = if engine.store.is_shared() { 0 } else { running / SLOTS_PER_CLAIM_AHEAD };
        Self {
            claimed: Arc::new(Semaphore::new(running + ahead)),
            running: Arc::new(Semaphore::new(running)),
        }
    }
}

/// Claims due rotations for the free slots, and some ahead; returns the time until the next rotation is due.
async fn claim(
    engine: &Engine,
    slots: &Slots,
    steps: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Duration, StoreError> {
    let now = engine.clock.now();
    let longest = if engine.store.is_shared() { LONGEST_SLEEP_SHARED } else { LONGEST_SLEEP };
    let free = slots.claimed.available_permits();
    if free == 0 {
        return Ok(longest);
    }
    if engine.epoch.doubts(&engine.store, now).await? {
        return Ok(longest);
    }
    let rows = engine.store.claim(now, free, engine.settings.lease()).await?;
    let full = rows.len() == free;
    for row in rows {
        let Ok(claimed) = Arc::clone(&slots.claimed).try_acquire_owned() else { break };
        // Everything that is logged on the way carries these.
        let span = tracing::info_span!(
            "rotation", rotation.id = %row.rotation.id, project.id = %row.rotation.group_id
        );
        let (engine, running, stop) = (engine.clone(), Arc::clone(&slots.running), stop.clone());
        let work = async move {
            in_slot(&engine, claimed, running, &row, &stop).await;
            // The rotation may be due again, sooner than any other.
            engine.rotations_due.notify_one();
        };
        steps.spawn(work.instrument(span));
    }
    if full {
        return Ok(Duration::ZERO);
    }
    let next = engine.store.next_wake(now).await?;
    Ok(next.map_or(longest, |at| now.until(at).clamp(Duration::from_millis(10), longest)))
}

/// Steps a claimed rotation as soon as a slot is free. The claim is released when a third of its lease is over
/// before that, or when the daemon stops.
async fn in_slot(
    engine: &Engine,
    claimed: OwnedSemaphorePermit,
    running: Arc<Semaphore>,
    row: &RotationRow,
    stop: &CancellationToken,
) {
    let patience = engine.settings.lease() / 3;
    let running = tokio::select! {
        biased;
        running = tokio::time::timeout(patience, running.acquire_owned()) => running,
        () = stop.cancelled() => return release(engine, row).await,
    };
    let Ok(Ok(running)) = running else { return release(engine, row).await };
    let slot = Slot { permits: Some((claimed, running)), due: &engine.rotations_due };
    if let Err(error) = work(engine, row, slot, AFTER_FAILURE, stop).await {
        tracing::error!(
            rotation.id = %row.rotation.id,
            error = %error,
            "step not recorded; no PATCH is sent for this rotation until one is"
        );
    }
}

/// The place of a running step. The driver claims for it when it is dropped.
struct Slot<'a> {
    permits: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
    due: &'a Notify,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        drop(self.permits.take());
        self.due.notify_one();
    }
}

/// Steps one claimed rotation. Whatever comes of it, the claim is not kept for nothing: after a
/// failure it is given back when `pause` is over, and the next claim begins with a look.
async fn work<S: Send>(
    engine: &Engine,
    row: &RotationRow,
    slot: S,
    pause: Duration,
    stop: &CancellationToken,
) -> Result<(), StoreError> {
    let mut slot = Some(slot);
    let error = match step::run(engine, row.clone(), &mut slot, stop).await {
        Ok(Ended::AtRest) => return Ok(()),
        Ok(Ended::Stopped) => {
            release(engine, row).await;
            return Ok(());
        }
        Err(error) => error,
    };
    let overtaken = matches!(error, StoreError::Conflict | StoreError::LeaseLost);
    if matches!(error, StoreError::LeaseLost) {
        engine.metrics.lease_losses.inc();
    }
    if !overtaken {
        #[expect(clippy::disallowed_methods, reason = "two seconds at most, with the claim still held")]
        tokio::time::sleep(pause).await;
    }
    release(engine, row).await;
    if overtaken { Ok(()) } else { Err(error) }
}

async fn release(engine: &Engine, row: &RotationRow) {
    if let Err(error) = engine.store.release(row).await {
        tracing::warn!(rotation.id = %row.rotation.id, error = %error, "claim not released; it expires at the end of its lease");
    }
}

/// Steps every rotation that is due now and returns when none is left at this instant.
///
/// For tests with a clock of their own; the daemon uses [`run`].
///
/// # Errors
/// Fails when the database cannot be read or written.
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
            work(engine, &row, (), Duration::ZERO, &CancellationToken::new()).await?;
        }
    }
}
