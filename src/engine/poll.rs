//! The poll: looks up the newest key of each project on a schedule, so that no event is needed.
//!
//! Each project that names a lookup is polled every `sweep.poll_every`. A newer key is proposed under the
//! trigger `poll`, just as after an event. A failed lookup is retried sooner, and its error is stored
//! with the project.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::candidate::{Ask, Deferred, Finding, consider};
use super::{Engine, endings};
use crate::domain::ids::GroupId;
use crate::lifecycle::pause;
use crate::store::StoreError;

/// Projects claimed at once.
const BATCH: i64 = 64;
/// Projects polled at the same time.
const AT_ONCE: usize = 8;
/// How long a claim on a project lasts.
const CLAIM: Duration = Duration::from_mins(10);
/// The wait after a lookup that failed, if that is sooner than the next turn.
const AFTER_FAILURE: Duration = Duration::from_mins(30);
/// The longest sleep before the database is read again.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Polls until `stop`.
pub async fn run(engine: Engine, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let wait = once(&engine, &stop).await.unwrap_or_else(|error| {
            tracing::error!(error = %error, "key services not polled; next attempt in 30 s");
            LONGEST_SLEEP
        });
        pause(wait, &stop).await;
    }
}

/// Polls every project that is due; returns the time until the next one is.
///
/// # Errors
/// Fails when the database cannot be read or written.
pub async fn once(engine: &Engine, stop: &CancellationToken) -> Result<Duration, StoreError> {
    while !stop.is_cancelled() {
        let now = engine.clock.now();
        if engine.epoch.doubts(&engine.store, now).await? {
            return Ok(LONGEST_SLEEP);
        }
        let beyond = now + engine.settings.poll_every.get().max(CLAIM);
        match engine.store.next_look_up(now, beyond).await? {
            None => return Ok(LONGEST_SLEEP),
            Some(at) if at > now => {
                return Ok(now.until(at).clamp(Duration::from_millis(50), LONGEST_SLEEP));
            }
            Some(_) => {}
        }
        let groups = engine.store.claim_look_ups(now, beyond, CLAIM, BATCH).await?;
        if groups.is_empty() {
            // Another daemon has claimed them.
            return Ok(Duration::from_secs(1));
        }
        let mut asked: Vec<BoxFuture<'_, _>> = Vec::with_capacity(groups.len());
        for group in &groups {
            asked.push(Box::pin(ask(engine, group)));
        }
        let asked: Vec<_> = futures_util::stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
        asked.into_iter().collect::<Result<(), _>>()?;
    }
    Ok(LONGEST_SLEEP)
}

async fn ask(engine: &Engine, group: &GroupId) -> Result<(), StoreError> {
    let ask = Ask {
        trigger: "poll".to_owned(),
        named: None,
        by_request: false,
        words: "the key service was polled for the newest key".to_owned(),
    };
    let finding = consider(engine, group, &ask).await?;
    if let Err(error) = endings::look_up(engine, group).await {
        tracing::error!(project.id = %group, error = %error, "keys in play not looked up; the next poll tries again");
    }
    let every = engine.settings.poll_every.get();
    let (said, wait) = match finding {
        Finding::Settled(settled) => (settled.to_string(), every),
        Finding::Deferred(why @ Deferred::RotationOpen(_)) => (why.to_string(), every),
        Finding::Deferred(why) => {
            tracing::warn!(project.id = %group, "poll of a project deferred: {why}");
            (why.to_string(), every.min(AFTER_FAILURE))
        }
    };
    let now = engine.clock.now();
    engine.store.looked_up(group, &said, now, now + wait).await
}
