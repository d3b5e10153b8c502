//! The first day of the installation, and the delay after it.
//!
//! A lower value in the configuration takes effect later (`deciding.rs`), so the values in force are those on record.

use super::Engine;
use crate::domain::time::Span;
use crate::domain::vote::Settling;
use crate::store::StoreError;

/// The name of the delay of what loosens.
pub(super) const LOOSEN_AFTER: &str = "policy.loosen_after";

/// The name of the length of the first day.
pub(super) const SETTLE_IN: &str = "policy.settle_in";

/// The first day: until when nothing is delayed and nobody needs to be told. It begins with the first row that
/// the installation key has sealed.
///
/// # Errors
/// Fails when the database cannot be read, and before the audit log was read.
pub(super) async fn settling_in(engine: &Engine) -> Result<Settling, StoreError> {
    let Some(configured) = engine.settings.settle_in else { return Ok(Settling::Demo) };
    let seals = engine.store.seals();
    if !seals.is_followed() {
        return Err(StoreError::Unverified);
    }
    let span = in_force(SETTLE_IN, engine.store.setting(SETTLE_IN).await?, configured)?;
    Ok(Settling::Until(seals.since().unwrap_or_else(|| engine.clock.now()) + span.get()))
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
    in_force(LOOSEN_AFTER, engine.store.setting(LOOSEN_AFTER).await?, configured)
}

/// The value on record; without one, the configured value.
fn in_force(name: &str, recorded: Option<String>, configured: Span) -> Result<Span, StoreError> {
    let Some(text) = recorded else { return Ok(configured) };
    text.parse().map_err(|_| StoreError::Corrupt { table: "settings", column: "value", id: name.to_owned() })
}
