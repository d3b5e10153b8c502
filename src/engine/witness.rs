//! Witness events: Atlas' own event about each of our rotations, as a second source.
//!
//! After a rotation ended with its new key in force, its event is searched in Atlas' event feed: at once,
//! then less and less often, for a day. The event is stored beside the rotation. It decides nothing: the
//! rotation was verified by observing the key, and an event cannot name a key. The feed also shows a
//! change of the key by another actor between our observation and our PATCH. No later observation can
//! show that change; it is recorded and announced.

use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::announce::{News, content};
use super::{ENGINE, Engine};
use crate::atlas::AtlasApi;
use crate::domain::event::{KeyEvent, ProofState, SLACK, Witness, atlas_time, clock, witness};
use crate::domain::notice::{Notice, Overwrote};
use crate::domain::rotation::journal::JournalKind;
use crate::domain::rotation::outcome::Failure;
use crate::domain::time::{Span, Timestamp};
use crate::store::{
    AwaitedWitness, NewAudit, NewJournal, NewOutbox, RotationRow, StoreError, WitnessEnd, WitnessEvent,
};

/// Rotations read from the database at once.
const BATCH: usize = 64;

/// The shortest and the longest wait between two reads of the feed.
const WAITS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(2 * 3600));

/// Searches the feed for each rotation that is due now; returns how many were handled.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn once(engine: &Engine, stop: &CancellationToken) -> Result<usize, StoreError> {
    if engine.epoch.in_doubt() {
        return Ok(0);
    }
    let due = engine.store.due_proofs(engine.clock.now(), BATCH).await?;
    let mut done = 0;
    for awaited in due {
        if stop.is_cancelled() {
            break;
        }
        // A rotation that cannot be written must not block the others.
        match one(engine, awaited).await {
            Ok(()) => done += 1,
            Err(error) => {
                tracing::error!(rotation.id = %awaited.rotation, error = %error, "witness event not recorded; the rotation stays due");
            }
        }
    }
    Ok(done)
}

async fn one(engine: &Engine, awaited: AwaitedWitness) -> Result<(), StoreError> {
    let Some(row) = engine.store.rotation(awaited.rotation).await? else { return Ok(()) };
    let asked = ask(engine, &row).await;
    let now = engine.clock.now();
    let found = match asked {
        Ok(found) if found.event.is_some() => found,
        unfound => {
            let failure = unfound.err();
            let error = failure.as_ref().map(ToString::to_string);
            if now < awaited.until {
                let asked = failure.and_then(|it| it.retry_after).map_or(Duration::ZERO, Span::get);
                let at = now + wait(&row, now).max(asked);
                return engine
                    .store
                    .await_proof(row.rotation.id, at.min(awaited.until), error.as_deref())
                    .await;
            }
            let proof = WitnessEvent {
                state: ProofState::NotFound,
                event: None,
                overwrote: Vec::new(),
                last_error: error,
            };
            let end = WitnessEnd { proof, journal: Vec::new(), audit: Vec::new(), outbox: Vec::new() };
            engine.store.settle_proof(row.rotation.id, &end, now).await?;
            return Ok(());
        }
    };
    let owners = if found.overwrote.is_empty() {
        Vec::new()
    } else {
        engine.store.owners(&row.rotation.group_id).await?
    };
    let end = end(engine, &row, found, &owners, now);
    let mails = !end.outbox.is_empty();
    if engine.store.settle_proof(row.rotation.id, &end, now).await? && mails {
        tracing::warn!(
            rotation.id = %row.rotation.id,
            project.id = %row.rotation.group_id,
            "this rotation overwrote a change that another actor had made just before"
        );
        engine.mail_due.notify_one();
    }
    Ok(())
}

/// The wait before the next read: as long as the search has lasted, within [`WAITS`].
fn wait(row: &RotationRow, now: Timestamp) -> Duration {
    let ended = row.rotation.ending.finished_at.unwrap_or(now);
    now.since(ended).clamp(WAITS.0, WAITS.1)
}

async fn ask(engine: &Engine, row: &RotationRow) -> Result<Witness, Failure> {
    let rotation = &row.rotation;
    // A PATCH that Atlas certainly did not apply cannot have replaced a change. The observation before
    // the next PATCH would have shown a change by another actor.
    let sent = rotation.patching.first_at.or(rotation.patching.patched_at).unwrap_or(rotation.created_at);
    let skew = rotation.observing.last.as_ref().and_then(|seen| seen.skew_ms);
    let sent = atlas_time(sent, skew);
    let looked = sent - rotation.rules.pace.fresh.get();
    let done = atlas_time(
        rotation.patching.patched_at.or(rotation.ending.finished_at).unwrap_or(rotation.created_at),
        skew,
    );
    let timeout = engine.settings.request_timeout.get();
    let events = engine.atlas.key_events(&row.credential, &rotation.group_id, looked - SLACK, timeout).await;
    let own = engine.atlas.identity(&row.credential);
    events.map(|events| witness(&events, rotation.provider, (looked, sent, done), own.as_deref()))
}

fn end(engine: &Engine, row: &RotationRow, found: Witness, owners: &[String], now: Timestamp) -> WitnessEnd {
    let rotation = &row.rotation;
    let mut end = WitnessEnd {
        proof: WitnessEvent {
            state: ProofState::Found,
            event: found.event,
            overwrote: found.overwrote,
            last_error: None,
        },
        journal: Vec::new(),
        audit: Vec::new(),
        outbox: Vec::new(),
    };
    let audit = |kind: &str, event: &KeyEvent| NewAudit {
        actor: ENGINE.to_owned(),
        action: format!("rotation.{kind}"),
        subject: format!("rotation/{}", rotation.id),
        detail: shown(event).to_string(),
    };
    // The journal ended with the rotation, and its streams are closed by now: only an overwritten change
    // is added to it.
    end.audit.extend(end.proof.event.as_ref().map(|event| audit("atlas_event", event)));
    for event in &end.proof.overwrote {
        end.audit.push(audit("overwrote", event));
        end.journal.push(NewJournal {
            actor: ENGINE.to_owned(),
            kind: JournalKind::Overwrote,
            from_state: Some(rotation.state),
            to_state: rotation.state,
            detail: shown(event),
            replay: None,
            merge: false,
        });
        end.outbox.extend(told(engine, row, event, owners, now));
    }
    end
}

fn shown(event: &KeyEvent) -> serde_json::Value {
    json!({ "atlasEventId": event.id, "at": event.at, "by": event.by.to_string() })
}

fn told(
    engine: &Engine,
    row: &RotationRow,
    event: &KeyEvent,
    owners: &[String],
    now: Timestamp,
) -> Vec<NewOutbox> {
    let rotation = &row.rotation;
    let notice = Notice::Overwrote(Overwrote {
        group_id: rotation.group_id.clone(),
        project_name: row.project_name.clone(),
        rotation_id: rotation.id,
        old_key: (&rotation.old_key).into(),
        new_key: (&rotation.new_key).into(),
        state: rotation.state,
        by: event.by.to_string(),
        atlas_event_id: event.id.clone(),
        atlas_event_at: event.at,
        sentences: vec![format!(
            "Atlas reports that {} changed the key at {} (event {}), after Keywheel's last observation and before its PATCH. \
             The new key has replaced that change; Atlas does not report which key it was. Ask whether it was meant to stay.",
            event.by,
            clock(event.at),
            event.id
        )],
    });
    let news = News {
        identity: format!("{}/overwrote/{}", rotation.id, event.id),
        subject: (&rotation.group_id).into(),
        content: content(&engine.settings, notice),
    };
    news.rows(engine, owners, now)
}
