//! The heartbeat: a cron expression in UTC that wakes driver and sweep.
//!
//! Due times are stored in tables. A beat that is missed, doubled or late does no harm, because the due
//! work is computed from rows; so the scheduler keeps no state that matters.

use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;

use super::Engine;

/// Wakes driver and sweep at each occurrence of `cron` (six fields, UTC) until `stop`.
///
/// # Errors
/// Fails when the expression is not valid.
pub async fn run(engine: Engine, cron: &str, stop: CancellationToken) -> Result<(), JobSchedulerError> {
    let mut scheduler = JobScheduler::new().await?;
    let job = Job::new(cron, move |_, _| {
        engine.look_due.notify_one();
        engine.rotations_due.notify_one();
    })?;
    scheduler.add(job).await?;
    scheduler.start().await?;
    stop.cancelled().await;
    scheduler.shutdown().await
}
