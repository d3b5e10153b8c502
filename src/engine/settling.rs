//! The first day of the installation, and the delay after it.
//!
//! A lower value in the configuration takes effect later (`deciding.rs`), so the values in force are those on record.

use std::str::FromStr;

use super::Engine;
use crate::domain::time::{Span, Timestamp};
use crate::domain::vote::Settling;
use crate::store::StoreError;

/// The name of the delay of what loosens.
pub(super) const LOOSEN_AFTER: &str = "policy.loosen_after";

/// The name of the length of the first day.
pub(super) const SETTLE_IN: &str = "policy.settle_in";

/// The name of the instant at which the first day began. Another installation key begins no other.
pub(super) const SINCE: &str = "installation.since";

/// When the first day began: as it is recorded, or with the first row that the installation key has sealed.
pub(super) fn since(engine: &Engine, recorded: Option<String>) -> Result<Timestamp, StoreError> {
    match recorded {
        Some(text) => parsed(SINCE, &text),
        None => Ok(engine.store.seals().since().unwrap_or_else(|| engine.clock.now())),
    }
}

/// The first day: until when nothing is delayed and nobody needs to be told.
///
/// # Errors
/// Fails when the database cannot be read, and before the audit log was read.
pub(super) async fn settling_in(engine: &Engine) -> Result<Settling, StoreError> {
    let Some(configured) = engine.settings.settle_in else { return Ok(Settling::Demo) };
    let mut recorded = engine.store.recorded_settings().await?;
    let span = in_force(SETTLE_IN, recorded.remove(SETTLE_IN), configured)?;
    Ok(Settling::Until(since(engine, recorded.remove(SINCE))? + span.get()))
}

/// How long after its announcement a loosened rule takes effect.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn loosen_after(engine: &Engine) -> Result<Span, StoreError> {
    let configured = engine.settings.loosen_after;
    if engine.settings.settle_in.is_none() {
        return Ok(configured);
    }
    in_force(LOOSEN_AFTER, engine.store.recorded_settings().await?.remove(LOOSEN_AFTER), configured)
}

/// The value on record; without one, the configured value.
fn in_force(name: &str, recorded: Option<String>, configured: Span) -> Result<Span, StoreError> {
    recorded.map_or(Ok(configured), |text| parsed(name, &text))
}

fn parsed<T: FromStr>(name: &str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt { table: "settings", column: "value", id: name.to_owned() })
}
