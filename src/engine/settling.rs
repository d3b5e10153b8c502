//! The delays in force: the first day of the installation, and the delay after it.

use super::Engine;
use crate::domain::time::Span;
use crate::domain::vote::{Delays, Settling};
use crate::store::StoreError;

/// The delays as they are configured.
pub(super) fn delays(engine: &Engine) -> Delays {
    Delays {
        loosen_after: engine.settings.loosen_after,
        settle_in: engine.settings.settle_in,
        began: engine.store.seals().since().unwrap_or_else(|| engine.clock.now()),
    }
}

/// The first day: until when nothing is delayed and nobody needs to be told.
///
/// # Errors
/// Fails when the database cannot be read, and before the audit log was read.
pub(super) async fn settling_in(engine: &Engine) -> Result<Settling, StoreError> {
    let recorded = engine.store.recorded_settings().await?;
    delays(engine).settling(&recorded).map_err(unreadable)
}

/// How long after its announcement a loosened rule takes effect.
///
/// # Errors
/// Fails when the database cannot be read, and before the audit log was read.
pub(super) async fn loosen_after(engine: &Engine) -> Result<Span, StoreError> {
    let recorded = engine.store.recorded_settings().await?;
    delays(engine).loosen_after(&recorded).map_err(unreadable)
}

/// The error of a setting that cannot be read.
pub(super) fn unreadable(name: &'static str) -> StoreError {
    StoreError::Corrupt { table: "settings", column: "value", id: name.to_owned() }
}
