//! Keys that cannot be used or read, and rotations that wait for a person, when the first daemon with conditions takes over
//! a database: they are told as one list for each recipient, "found at the upgrade".
//!
//! Says until when they are gathered. `conditions` tells none of them before, and `mail_sender` makes the list.
//! Conditions of other kinds, webhooks and all that begins later are told as always.

use std::time::Duration;

use super::Engine;
use crate::domain::condition::ConditionKind;
use crate::domain::notice::Kind;
use crate::domain::time::Timestamp;
use crate::store::{ConditionRow, OutboxRow, StoreError};

/// Every key is read and confirmed within this time, and with the wait for mails that are alike the list leaves within
/// two minutes.
const GATHERS: Duration = Duration::from_secs(100);

/// What is told at the end of it is written within this time.
const WRITES: Duration = Duration::from_mins(1);

/// Until when starts are gathered; `None` for a database that was not upgraded from a version without conditions.
///
/// # Errors
/// Fails when the database cannot be read or written.
pub(super) async fn gathers_until(engine: &Engine) -> Result<Option<Timestamp>, StoreError> {
    if let Some(known) = engine.upgrade.get() {
        return Ok(*known);
    }
    let now = engine.clock.now();
    // In doubt nothing is written about projects.
    let until = match engine.store.gathered_until().await? {
        None => None,
        Some(None) if engine.epoch.in_doubt() => return Ok(None),
        Some(None) => engine.store.gather_until(now + GATHERS, now).await?,
        Some(until) => until,
    };
    // An instant further ahead comes from a clock that was wrong.
    let until = until.filter(|until| *until <= now + GATHERS);
    Ok(*engine.upgrade.get_or_init(|| until))
}

/// Whether a condition of this kind is told in the list.
pub(super) const fn is_listed(kind: ConditionKind) -> bool {
    matches!(kind, ConditionKind::Invalid | ConditionKind::Unreachable | ConditionKind::NeedsOperator)
}

/// When the condition of `row` is told, while what is found is gathered until `until`: with the list, unless it was told
/// since the daemon was started.
pub(super) fn tell_at(row: &ConditionRow, until: Timestamp) -> Option<Timestamp> {
    let is_told = row.told_at.is_some_and(|at| at > until - GATHERS);
    row.tell_at.map(|at| if is_told { at } else { until })
}

/// From when on the mails of the list were written, where `mail` is one of them.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn list_of(engine: &Engine, mail: &OutboxRow) -> Result<Option<Timestamp>, StoreError> {
    let is_listed = [Kind::CurrentKeyInvalid, Kind::Unreachable, Kind::NeedsOperator]
        .iter()
        .any(|kind| mail.kind == kind.as_str());
    let from = if is_listed { gathers_until(engine).await? } else { None };
    Ok(from.filter(|from| *from <= mail.created_at && mail.created_at < *from + WRITES))
}
