//! The sweep: observes the projects that are due, compares them with their records, and triggers reminders.
//!
//! Only projects whose `next_check_at` has come are read, so the cost of a sweep grows with the due
//! projects, not with all of them. A key that Keywheel did not record is drift: it is recorded and
//! announced once, with the findings from Atlas' event feed (`drift.rs`). The sweep never rotates a key
//! back. A project with an open rotation is read by the rotation, which is woken when it has not looked for long.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{ENGINE, Engine, conditions, drift, remind, witness};
use crate::atlas::AtlasApi;
use crate::domain::project::{OpenRotation, Project, SinceSource};
use crate::domain::rotation::machine::LONGEST_PAUSE;
use crate::domain::rotation::outcome::Observation;
use crate::domain::time::Timestamp;
use crate::lifecycle::wait;
use crate::store::{Drift, Horizon, NewAudit, NewOutbox, StoreError};

/// Projects read from the database at once.
const BATCH: usize = 64;

/// Projects that are observed at the same time.
const AT_ONCE: usize = 8;

/// After this time a sweep ends, so that reminders are not delayed. The next sweep takes the projects
/// that are left.
const LONGEST: Duration = Duration::from_mins(4);

/// How often finished records are deleted.
const FORGET_EVERY: Duration = Duration::from_secs(86_400);

/// Deletes finished records that are older than `retention` allows.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn forget(engine: &Engine) -> Result<u64, StoreError> {
    let (now, keep) = (engine.clock.now(), engine.settings.retention);
    let horizon = Horizon {
        mails: now - keep.messages.get(),
        events: now - keep.events.get(),
        looks: now - keep.observations.get(),
        replays: now - keep.replays.get(),
    };
    engine.store.forget(horizon).await
}

/// Sweeps at each wake-up until `stop`.
pub async fn run(engine: Engine, stop: CancellationToken) {
    let mut forgotten: Option<Timestamp> = None;
    while !stop.is_cancelled() {
        if let Err(error) = once(&engine, &stop).await {
            tracing::error!(error = %error, "sweep not finished; the projects stay due");
        }
        if let Err(error) = remind::once(&engine).await {
            tracing::error!(error = %error, "reminders not written; they stay due");
        }
        if let Err(error) = witness::once(&engine, &stop).await {
            tracing::error!(error = %error, "witness events not recorded; their rotations stay due");
        }
        let now = engine.clock.now();
        // With a wrong clock or a database in doubt, records could be deleted too early.
        let sure = !engine.epoch.clocks_differ() && !engine.epoch.in_doubt();
        if sure && forgotten.is_none_or(|at| now.since(at) >= FORGET_EVERY) {
            match forget(&engine).await {
                Ok(rows) => {
                    forgotten = Some(now);
                    if rows > 0 {
                        tracing::info!(rows, "old messages, events and observations deleted");
                    }
                }
                Err(error) => {
                    tracing::error!(error = %error, "old messages, events and observations not deleted; the next sweep tries again");
                }
            }
        }
        wait(engine.look_due.notified(), Duration::MAX, &stop).await;
    }
}

/// Observes every project that is due now; returns how many were due.
///
/// # Errors
/// Fails when the database cannot be read or written.
pub async fn once(engine: &Engine, stop: &CancellationToken) -> Result<usize, StoreError> {
    engine.epoch.compare_clocks(&engine.store, engine.clock.as_ref()).await?;
    let begin = engine.clock.now();
    if engine.epoch.doubts(&engine.store, begin).await? {
        engine.list_differences().await?;
        finished(engine);
        return Ok(0);
    }
    let mut seen = 0;
    // Projects that become due meanwhile are left to the next sweep. `LONGEST` keeps a slow Atlas from
    // delaying reminders.
    while !stop.is_cancelled() && engine.clock.now().since(begin) < LONGEST {
        let due = engine.store.due_projects(begin, begin + longest_wait(engine), BATCH).await?;
        if due.is_empty() {
            break;
        }
        let mut looks: Vec<BoxFuture<'_, Result<usize, StoreError>>> = Vec::with_capacity(due.len());
        for project in due {
            looks.push(Box::pin(async move {
                if stop.is_cancelled() {
                    return Ok(0);
                }
                look(engine, project).await.map(|()| 1)
            }));
        }
        let looks: Vec<_> = futures_util::stream::iter(looks).buffer_unordered(AT_ONCE).collect().await;
        // Ends the sweep: a project that cannot be written would be the first of the next batch again.
        seen += looks.into_iter().sum::<Result<usize, _>>()?;
        finished(engine);
    }
    if let Err(why) = engine.epoch.record(&engine.store, engine.clock.now()).await {
        tracing::warn!("epoch file not updated: {why}");
    }
    finished(engine);
    Ok(seen)
}

/// The longest time that a project is not read: nothing that Atlas asks for delays it further.
fn longest_wait(engine: &Engine) -> Duration {
    engine.settings.drift_every.get().max(LONGEST_PAUSE)
}

fn finished(engine: &Engine) {
    *engine.last_sweep.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(engine.clock.now());
}

/// Result of [`check`].
pub(super) struct Checked {
    /// The observation; `None` when Atlas did not answer, or a rotation is open.
    pub(super) seen: Option<Observation>,
    /// Whether it was recorded. Otherwise another writer changed the project meanwhile, and it stays due.
    pub(super) recorded: bool,
}

/// Observes one project. A row of it that cannot be read is logged and keeps nothing from the other projects: this
/// one is read again in its turn.
async fn look(engine: &Engine, project: Project) -> Result<(), StoreError> {
    let (group, version, at) = (project.group_id.clone(), project.version, project.last_checked_at);
    match check(engine, project).await {
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::error!(project.id = %group, error = %error, "a row about this project cannot be read; its key is read all the same");
            let next = engine.clock.now() + engine.settings.drift_every.get();
            engine.store.project_checked(&group, version, at, next).await.map(drop)
        }
        done => done.map(drop),
    }
}

/// Observes one project and records the changes, or only the instant when nothing changed. After a
/// conflict the project stays due.
pub(super) async fn check(engine: &Engine, project: Project) -> Result<Checked, StoreError> {
    let timeout = engine.settings.request_timeout.get();
    let looking = engine.atlas.observe(&project.credential, &project.group_id, timeout);
    let looked = match project.open_rotation {
        None => Some(looking.await),
        Some(open) => {
            if let Err(error) = wake(engine, open).await {
                // The rotation cannot look, so its key is read without it.
                conditions::note_look(engine, &project.group_id, looking.await.as_ref()).await;
                return Err(error);
            }
            None
        }
    };
    let now = engine.clock.now();
    let mut found = None;
    let mut after = project.clone();
    after.next_check_at = now + engine.settings.drift_every.get();
    let mut audit = Vec::new();
    let mut outbox = Vec::new();
    let mut observed = None;
    let mut failed = None;
    match looked {
        None => {}
        Some(Ok(seen)) => {
            let seen = observed.insert(engine.epoch.with_skew(seen));
            // A recorded project without a key may have had one before. Then the new key is drift, not
            // the first key of the project.
            let asks = project.current_key.is_none() && seen.key.is_some();
            let served = asks && !engine.store.keys(&project.group_id).await?.is_empty();
            if note(&mut after, seen, served) {
                let drift = drift::explain(engine, &project, &mut after, seen).await?;
                audit.push(NewAudit {
                    actor: ENGINE.to_owned(),
                    action: "project.drifted".to_owned(),
                    subject: format!("project/{}", after.group_id),
                    detail: drift::content(engine, &drift.finding).model().to_string(),
                });
                outbox = drift::rows(engine, &after, &drift.finding, engine.clock.now());
                found = Some(drift);
            } else if project.current_key.is_none() {
                drift::date(engine, &project, &mut after, seen).await;
            }
            if project.valid != Some(false) && after.valid == Some(false) {
                audit.push(NewAudit {
                    actor: ENGINE.to_owned(),
                    action: "project.key_invalid".to_owned(),
                    subject: format!("project/{}", after.group_id),
                    detail: json!({ "key": after.current_key.as_ref().map(ToString::to_string) }).to_string(),
                });
            }
        }
        Some(Err(failure)) => {
            after.last_error = Some(failure.to_string());
            let asked = failure.retry_after.map_or(Duration::ZERO, crate::domain::time::Span::get);
            after.next_check_at = now + asked.min(LONGEST_PAUSE).max(engine.settings.drift_every.get());
            failed = Some(failure);
        }
    }
    let written = write(engine, &project, &after, found.as_ref(), (&audit, &outbox)).await;
    match (&observed, &failed) {
        (Some(seen), _) => conditions::note_look(engine, &project.group_id, Ok(seen)).await,
        (None, Some(failure)) => conditions::note_look(engine, &project.group_id, Err(failure)).await,
        (None, None) => {}
    }
    match written {
        Ok(recorded) => {
            if !outbox.is_empty() {
                engine.mail_due.notify_one();
            }
            Ok(Checked { seen: observed, recorded })
        }
        Err(StoreError::Conflict) => Ok(Checked { seen: observed, recorded: false }),
        Err(error) => Err(error),
    }
}

/// Writes what a look has found, or only its instant when that is nothing.
async fn write(
    engine: &Engine,
    project: &Project,
    after: &Project,
    found: Option<&Drift>,
    (audit, outbox): (&[NewAudit], &[NewOutbox]),
) -> Result<bool, StoreError> {
    let (store, now) = (&engine.store, engine.clock.now());
    let seen_before = Project {
        last_checked_at: project.last_checked_at,
        next_check_at: project.next_check_at,
        ..after.clone()
    };
    if found.is_none() && audit.is_empty() && outbox.is_empty() && seen_before == *project {
        let (at, next) = (after.last_checked_at, after.next_check_at);
        return store.project_checked(&after.group_id, project.version, at, next).await;
    }
    store.drift_project(after, project.version, found, (audit, outbox), now).await.map(|_| true)
}

/// Has an open rotation look that was not read for as long as a project without one would have been. Its
/// reading belongs to the machine, so no second one is made here.
async fn wake(engine: &Engine, open: OpenRotation) -> Result<(), StoreError> {
    let Some(row) = engine.store.rotation(open.id).await? else { return Ok(()) };
    let (now, limits) = (engine.clock.now(), &engine.settings.limits);
    let last = row.rotation.observing.last.as_ref().map(|seen| seen.at).filter(|at| *at <= now);
    // The machine confirms the readings after a PATCH itself.
    let every = if row.rotation.state.is_after_patch() {
        engine.settings.drift_every.get()
    } else {
        engine.settings.drift_every.get().min(limits.confirm_after.get())
    };
    if last.is_none_or(|at| now.since(at) >= every) {
        engine.store.wake(open.id, now).await?;
        engine.rotations_due.notify_one();
    }
    Ok(())
}

/// Writes an observation into the project; returns whether its key has drifted. `served` is whether a
/// project that is recorded without a key had one before.
pub(super) fn note(project: &mut Project, seen: &Observation, served: bool) -> bool {
    project.last_checked_at = Some(seen.at);
    project.last_error = None;
    project.valid = seen.valid;
    project.private_networking = seen.private_networking;
    project.place = seen.place.clone();
    project.provider = seen.provider;
    let same = match (&project.current_key, &seen.key) {
        (Some(known), Some(seen_key)) => known.is_same(seen_key, &seen.place),
        (known, seen_key) => known.is_none() && seen_key.is_none(),
    };
    if same {
        return false;
    }
    let drifted = served || project.current_key.is_some();
    project.current_key.clone_from(&seen.key);
    project.key_since = seen.key.as_ref().map(|_| seen.at);
    project.next_reminder_at = project.key_since;
    project.key_since_source = seen.key.as_ref().map(|_| SinceSource::FirstSeen);
    if drifted {
        project.drift_key.clone_from(&seen.key);
    }
    drifted
}
