//! The signed end of the audit log, which leaves this machine once a day.
//!
//! Who writes the database and has old copies of everything beside it can shorten the log unseen here. What was mailed,
//! logged elsewhere or sent to a webhook before shows it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::authority::told;
use crate::domain::notice::{AuditHead, Notice};
use crate::domain::subject::Subject;
use crate::domain::time::Timestamp;
use crate::lifecycle::pause;
use crate::store::StoreError;

/// The time between two looks at the clock.
const EVERY: Duration = Duration::from_secs(30);

/// Sends the end of the log once for each `mail.daily_at` that has passed, and at the first start, until `stop`.
pub async fn run(engine: Engine, stop: CancellationToken) {
    let mut last = None;
    while !stop.is_cancelled() {
        match once(&engine, last).await {
            Ok(done) => last = done.or(last),
            Err(error) => {
                tracing::error!(error = %error, "the end of the audit log was not sent; tried again in half a minute");
            }
        }
        pause(EVERY, &stop).await;
    }
}

/// Sends the end of the log when `last` is another day than today; returns the day.
///
/// # Errors
/// Fails when the database cannot be read or written.
pub async fn once(engine: &Engine, last: Option<Timestamp>) -> Result<Option<Timestamp>, StoreError> {
    let now = engine.clock.now();
    let day = engine.settings.limits.daily.latest(now);
    // What was not read to its end, or is in doubt, is signed for nobody.
    if last == Some(day) || engine.epoch.in_doubt() || !engine.store.seals().is_followed() {
        return Ok(None);
    }
    let Some(head) = signed(engine, now).await? else { return Ok(None) };
    tracing::info!(
        seq = head.seq,
        hash = head.hash,
        fingerprint = head.fingerprint,
        signature = head.signature,
        "the end of the audit log"
    );
    let people = &engine.settings.security;
    // Daemons that share the database, and a second start today, tell it once.
    let identity = format!("audit_head/{}", day.as_micros());
    let rows = told(engine, identity, Subject::Installation, Notice::AuditHead(head), people, now);
    engine.store.write_messages(rows, now).await?;
    engine.mail_due.notify_one();
    Ok(Some(day))
}

/// The end of the log as it was read, signed; `None` for an empty log.
async fn signed(engine: &Engine, now: Timestamp) -> Result<Option<AuditHead>, StoreError> {
    engine.store.follow_seals().await?;
    let seals = engine.store.seals();
    let (key, report) = (seals.key()?, seals.report());
    if report.rows == 0 {
        return Ok(None);
    }
    let broken = seals.fault().map(|broken| format!("row {}: {}", broken.seq, broken.why));
    let mut head = AuditHead {
        subject: Subject::Installation.to_string(),
        database: engine.store.audit_marks(0).await?.first,
        seq: report.rows,
        hash: report.head,
        at: now,
        fingerprint: key.fingerprint(),
        public_key: STANDARD.encode(key.public_key()),
        signature: String::new(),
        broken,
    };
    head.signature = STANDARD.encode(key.sign(head.message().as_bytes()));
    Ok(Some(head))
}
