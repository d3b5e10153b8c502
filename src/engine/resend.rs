//! Sends the conditions that hold to each Alertmanager again and again, because it closes what stays away.
//!
//! Starts and ends are webhooks of the outbox like those to other targets, so none is lost. What is sent here
//! keeps an alert open, and closes one whose end was overtaken by an earlier sending. It is idempotent: several
//! daemons send the same alerts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::announce::content;
use super::conditions::plain;
use super::{Engine, Settings};
use crate::config::webhooks::Format;
use crate::domain::condition::ConditionKind;
use crate::domain::notice::{Content, Kind};
use crate::domain::time::Timestamp;
use crate::lifecycle::pause;
use crate::mail::Letter;
use crate::store::{ConditionRow, StoreError};
use crate::webhook::{Note, Target, TargetResponse};

/// The time between two sendings.
const EVERY: Duration = Duration::from_mins(1);

/// For so long an end is sent again.
const ENDED: Duration = Duration::from_mins(3);

/// Alerts in one request.
const AT_ONCE: usize = 200;

/// Sends again each minute until `stop`.
pub async fn run(engine: Engine, stop: CancellationToken) {
    let mut failing = BTreeSet::new();
    while !stop.is_cancelled() {
        match once(&engine).await {
            Ok(results) => log(&engine, &mut failing, results),
            Err(error) => {
                tracing::error!(error = %error, "conditions cannot be read; Alertmanager gets them a minute later");
            }
        }
        pause(EVERY, &stop).await;
    }
}

/// Sends to every Alertmanager once; returns what each answered.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn once(engine: &Engine) -> Result<Vec<(String, TargetResponse)>, StoreError> {
    let mut targets = engine.webhooks.all();
    targets.retain(|target| target.format() == Format::Alertmanager && target.retired_at().is_none());
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let now = engine.clock.now();
    let told = told(engine.store.conditions(now - ENDED).await?);
    let contents: Vec<_> = told.iter().filter_map(|row| again(&engine.settings, row)).collect();
    Ok(join_all(targets.iter().map(|target| send(target, &contents, now))).await)
}

/// The last start of each condition that was told: the others are over.
fn told(rows: Vec<ConditionRow>) -> Vec<ConditionRow> {
    let mut last: BTreeMap<(String, ConditionKind), ConditionRow> = BTreeMap::new();
    for row in rows.into_iter().filter(|row| row.told > 0) {
        let key = (row.subject.to_string(), row.kind);
        if last.get(&key).is_none_or(|before| before.since < row.since) {
            last.insert(key, row);
        }
    }
    last.into_values().collect()
}

/// What holds or has just ended, as a notice.
fn again(settings: &Settings, row: &ConditionRow) -> Option<Content> {
    let kind = Kind::of_condition(row.kind, row.ended_at.is_some())?;
    Some(content(settings, plain(kind, None, row, row.ended_at, row.cause.clone(), None)))
}

async fn send(target: &Arc<Target>, contents: &[Content], now: Timestamp) -> (String, TargetResponse) {
    let wanted: Vec<_> = contents.iter().filter(|it| target.takes(&it.notice)).collect();
    let mut last = TargetResponse::Taken(String::new());
    for some in wanted.chunks(AT_ONCE) {
        let letters: Vec<_> = some.iter().map(|content| Letter::new(content)).collect();
        let notes: Vec<_> = some
            .iter()
            .zip(&letters)
            .map(|(content, letter)| Note {
                id: "",
                at: now,
                server: &content.server,
                notice: &content.notice,
                title: &letter.subject,
                paragraphs: &letter.paragraphs,
                facts: &letter.facts,
            })
            .collect();
        last = target.send_alerts(&notes, now).await;
        if !matches!(last, TargetResponse::Taken(_)) {
            break;
        }
    }
    (target.name().to_owned(), last)
}

/// Logs the first failure of a row of them, and the success after it.
fn log(engine: &Engine, failing: &mut BTreeSet<String>, results: Vec<(String, TargetResponse)>) {
    for (target, result) in results {
        match result {
            TargetResponse::Taken(_) if failing.remove(&target) => {
                tracing::info!(webhook.target = target, "Alertmanager takes the conditions that hold again");
            }
            TargetResponse::Taken(_) => {}
            TargetResponse::Gone(said) | TargetResponse::Failed { said, .. } => {
                engine.metrics.webhooks(&target, "failed", 1);
                if failing.insert(target.clone()) {
                    tracing::warn!(
                        webhook.target = target,
                        "Alertmanager did not take the conditions that hold: {said}; next attempt in a minute"
                    );
                }
            }
        }
    }
}
