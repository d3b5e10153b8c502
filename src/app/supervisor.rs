//! Notifications to systemd: ready, reloading, stopping, and the watchdog while sweeps finish.
//!
//! Without systemd, nothing is sent. The watchdog is no longer notified when no sweep has finished for
//! long: a process that hangs would otherwise look alive.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::lifecycle::pause;

/// A sweep that has not finished for this long counts as hung.
pub(super) const SWEEP_PATIENCE: Duration = Duration::from_mins(30);

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(error = %error, "systemd was not notified");
    }
}

/// Reports that the daemon answers requests.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Reports that the configuration is being read again.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// Reports the shutdown.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Reports readiness, then notifies the watchdog until `stop`.
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
                "no sweep has finished for half an hour; the watchdog of systemd is no longer notified"
            );
        }
        pause(limit / 3, &stop).await;
        if stop.is_cancelled() {
            return;
        }
    }
}
