//! What systemd hears of us: ready, reloading, stopping, and a sign of life while work gets done.
//!
//! Without a supervisor that listens, all of this does nothing. The sign of life stops when the sweep
//! has not finished for long: a process that waits for ever looks alive to everybody else.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::lifecycle::pause;

/// A sweep that has not finished for this long is one that hangs.
pub(super) const SWEEP_PATIENCE: Duration = Duration::from_mins(30);

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(error = %error, "the supervisor was not told");
    }
}

/// Serving.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Reading the configuration again.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// On the way out.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says that we are ready, and gives signs of life until `stop`.
pub(super) async fn run(engine: Engine, stop: CancellationToken) {
    ready();
    let Some(limit) = sd_notify::watchdog_enabled() else { return stop.cancelled().await };
    let started = engine.clock.now();
    loop {
        let last = *engine.last_sweep.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if engine.clock.now().since(last.unwrap_or(started)) <= SWEEP_PATIENCE {
            tell(&[NotifyState::Watchdog]);
        } else {
            tracing::error!(
                "no sweep has finished for half an hour; the supervisor is no longer told that all is well"
            );
        }
        pause(limit / 3, &stop).await;
        if stop.is_cancelled() {
            return;
        }
    }
}
