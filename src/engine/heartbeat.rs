//! The heartbeat: a request to a dead-man's switch while this daemon watches.
//!
//! None is sent while the database is in doubt or cannot be written, while clocks differ, or when no sweep has
//! finished or projects are read late: the switch raises the alarm because the request stays away.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Engine, installation};
use crate::domain::time::Timestamp;
use crate::lifecycle::pause;
use crate::webhook::Switch;

/// The requests to a dead-man's switch.
#[derive(Debug)]
pub struct Heartbeat {
    switch: Switch,
    every: Duration,
}

/// Why no request was sent, or why it failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missed {
    /// This daemon does not watch as it should.
    #[error("none is sent: {0}")]
    NotWatching(&'static str),
    /// The switch did not take it.
    #[error("{0}")]
    Failed(String),
}

impl Heartbeat {
    /// Requests `switch` at most once in `every`.
    #[must_use]
    pub const fn new(switch: Switch, every: Duration) -> Self {
        Self { switch, every }
    }

    /// Requests the switch while `engine` watches, until `stop`.
    pub async fn run(self, engine: Engine, stop: CancellationToken) {
        let mut beaten: Option<Timestamp> = None;
        let mut before: Option<Missed> = None;
        while !stop.is_cancelled() {
            let missed = match self.beat(&engine, beaten).await {
                Ok(sweep) => {
                    beaten = Some(sweep);
                    None
                }
                Err(missed) => Some(missed),
            };
            match (&missed, &before) {
                (Some(missed), _) if Some(missed) != before.as_ref() => tracing::warn!("heartbeat: {missed}"),
                (None, Some(_)) => tracing::info!("heartbeat: sent again"),
                _ => {}
            }
            before = missed;
            pause(self.every, &stop).await;
        }
    }

    /// One request, when a sweep has finished since the one at `beaten`; returns the instant of that sweep.
    ///
    /// # Errors
    /// None was sent, or it was not taken.
    pub async fn beat(&self, engine: &Engine, beaten: Option<Timestamp>) -> Result<Timestamp, Missed> {
        let sweep = watches(engine, beaten).await.map_err(Missed::NotWatching)?;
        self.switch.request().await.map_err(Missed::Failed)?;
        Ok(sweep)
    }
}

/// The instant of the last sweep, when this daemon watches as it should.
async fn watches(engine: &Engine, beaten: Option<Timestamp>) -> Result<Timestamp, &'static str> {
    if engine.epoch.in_doubt() {
        return Err("the database is in doubt");
    }
    if engine.epoch.clocks_differ() {
        return Err("the clocks differ");
    }
    if !engine.readiness.is_writable().await {
        return Err("the database cannot be written");
    }
    let last = *engine.last_sweep.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(sweep) = last.filter(|last| beaten.is_none_or(|beaten| *last > beaten)) else {
        return Err("no sweep has finished since the last one");
    };
    let late = installation::late_since(engine, engine.clock.now()).await;
    if late.map_err(|_| "the database cannot be read")?.is_some() {
        return Err("projects are read late");
    }
    Ok(sweep)
}
