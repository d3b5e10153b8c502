//! The sweep: observes the projects that are due, compares them with their records, and triggers reminders.
//!
//! Only projects whose `next_check_at` has come are read, so the cost of a sweep grows with the due
//! projects, not with all of them. A key that Keywheel did not record is drift: it is recorded and
//! announced once, with the findings from Atlas' event feed (`drift.rs`). The sweep never rotates a key
//! back. A project with an open rotation is read by the rotation, which is woken when it has not looked for long.

use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::due::{WRITE_EVERY, due, is_due, leaves, with_last_look, write_quiet_looks};
use super::looks::{GIVES_WAY, Look, Looks, next_look};
use super::{ENGINE, Engine, conditions, drift, remind, roles, witness};
use crate::atlas::AtlasApi;
use crate::config::LONGEST_BEAT;
use crate::domain::ids::GroupId;
use crate::domain::project::{OpenRotation, Project, SinceSource};
use crate::domain::rotation::machine::LONGEST_PAUSE;
use crate::domain::rotation::outcome::{Failure, Observation};
use crate::domain::time::Timestamp;
use crate::lifecycle::{pause, wait};
use crate::store::{Horizon, NewAudit, QuietLook, StoreError};

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

/// Sweeps at each wake-up until `stop`. Looks and the work after a sweep run side by side, so that a look that
/// hangs delays neither reminders nor the next sweep.
pub async fn run(engine: Engine, stop: CancellationToken) {
    let swept = Notify::new();
    let watching = async {
        let mut watch = Watch::new(&engine);
        while !stop.is_cancelled() {
            if let Err(error) = watch.sweep().await {
                tracing::error!(error = %error, "sweep not finished; the projects stay due");
            }
            swept.notify_one();
            watch.look_until(wait(engine.look_due.notified(), LONGEST_BEAT, &stop)).await;
        }
    };
    let following = async {
        let mut forgotten: Option<Timestamp> = None;
        while !stop.is_cancelled() {
            wait(swept.notified(), Duration::MAX, &stop).await;
            if !stop.is_cancelled() {
                follow(&engine, &mut forgotten, &stop).await;
            }
        }
    };
    let writing = async {
        while !stop.is_cancelled() {
            pause(WRITE_EVERY, &stop).await;
            if let Err(error) = write_quiet_looks(&engine).await {
                tracing::warn!(error = %error, "observations without news not written; they are kept for the next attempt");
            }
        }
    };
    tokio::join!(watching, following, writing);
}

/// The work after a sweep.
async fn follow(engine: &Engine, forgotten: &mut Option<Timestamp>, stop: &CancellationToken) {
    match engine.store.recall_messages(engine.clock.now()).await {
        Ok(true) => engine.mail_due.notify_one(),
        Ok(false) => {}
        Err(error) => tracing::error!(error = %error, "messages of a clock that was ahead not found"),
    }
    if let Err(error) = remind::once(engine).await {
        tracing::error!(error = %error, "reminders not written; they stay due");
    }
    if let Err(error) = witness::once(engine, stop).await {
        tracing::error!(error = %error, "witness events not recorded; their rotations stay due");
    }
    let now = engine.clock.now();
    // With a wrong clock or a database in doubt, records could be deleted too early.
    let sure = !engine.epoch.clocks_differ() && !engine.epoch.in_doubt();
    if sure && forgotten.is_none_or(|at| now.since(at) >= FORGET_EVERY) {
        match forget(engine).await {
            Ok(rows) => {
                *forgotten = Some(now);
                if rows > 0 {
                    tracing::info!(rows, "old messages, events and observations deleted");
                }
            }
            Err(error) => {
                tracing::error!(error = %error, "old messages, events and observations not deleted; the next sweep tries again");
            }
        }
    }
}

/// Observes every project that is due now, and writes all of it; returns how many were observed.
///
/// # Errors
/// Fails when the database cannot be read or written.
pub async fn once(engine: &Engine, stop: &CancellationToken) -> Result<usize, StoreError> {
    let mut watch = Watch::new(engine);
    watch.sweep().await?;
    tokio::select! {
        () = watch.look_at_all() => {}
        () = stop.cancelled() => {}
    }
    write_quiet_looks(engine).await?;
    finished(engine);
    watch.fault.map_or(Ok(watch.seen), Err)
}

/// The looks of this daemon.
pub struct Watch<'a> {
    engine: &'a Engine,
    looks: Looks<'a>,
    /// The looks that were made.
    seen: usize,
    /// The first error of a look.
    fault: Option<StoreError>,
}

impl<'a> Watch<'a> {
    /// No look runs yet.
    #[must_use]
    pub fn new(engine: &'a Engine) -> Self {
        Self { engine, looks: Looks::new(), seen: 0, fault: None }
    }

    /// Reads which projects are due. The looks that run go on.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn sweep(&mut self) -> Result<(), StoreError> {
        let engine = self.engine;
        engine.epoch.compare_clocks(&engine.store, engine.clock.as_ref()).await?;
        let now = engine.clock.now();
        match engine.store.check_seals_again().await {
            // Without a key nothing is sealed, and nothing can be written down in the audit log.
            Ok(()) | Err(StoreError::NoKey) => {}
            Err(error) => {
                tracing::error!(error = %error, "the audit log was not checked; the next sweep tries again");
            }
        }
        if engine.epoch.doubts(&engine.store, now).await? {
            self.looks.await_all(Vec::new());
            engine.list_differences().await?;
        } else {
            self.looks.await_all(due(engine, now).await?);
            // After a failed write, and for the rows of other daemons.
            engine.epoch.follow(&engine.store, engine.clock.now()).await;
        }
        finished(engine);
        Ok(())
    }

    /// Makes looks until `end` completes.
    async fn look_until(&mut self, end: impl Future<Output = ()>) {
        tokio::select! {
            () = end => {}
            () = async {
                self.look_at_all().await;
                std::future::pending::<()>().await;
            } => {}
        }
    }

    /// Makes every look that waits.
    pub async fn look_at_all(&mut self) {
        let (engine, unstopped) = (self.engine, CancellationToken::new());
        while !self.looks.is_empty() {
            self.looks.start(engine.clock.now(), |group| task(engine, group));
            // A look that lasts gives way to one that waits.
            let gives_way = if self.looks.is_waiting() { GIVES_WAY } else { Duration::MAX };
            let ended = tokio::select! {
                ended = self.looks.ended(|| engine.clock.now()) => ended,
                () = pause(gives_way, &unstopped) => None,
            };
            match ended {
                Some((_, Ok(made))) => self.seen += usize::from(made),
                Some((group, Err(error))) => {
                    tracing::error!(project.id = %group, error = %error, "observation not recorded; the project stays due");
                    self.fault.get_or_insert(error);
                }
                None => {}
            }
        }
    }
}

/// A look as a task of its own. As a future of the sweep's task it would stand still, with a connection to the
/// database, while the sweep itself waits for one.
#[expect(clippy::disallowed_methods, reason = "the sweep owns it, and dropping it aborts it")]
fn task(engine: &Engine, group: &GroupId) -> Look<'static> {
    let (engine, group) = (engine.clone(), group.clone());
    let named = group.clone();
    let task = AbortOnDropHandle::new(tokio::spawn(async move { look(&engine, group).await }));
    Box::pin(async move {
        task.await.unwrap_or_else(|error| {
            tracing::error!(project.id = %named, error = %error, "an observation was aborted; the project stays due");
            Ok(false)
        })
    })
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

/// Observes one project; returns whether it was still due. A row of it that cannot be read is logged and keeps
/// nothing from the other projects: this one is read again in its turn.
async fn look(engine: &Engine, group: GroupId) -> Result<bool, StoreError> {
    let project = match engine.store.project(&group).await {
        Ok(Some(project)) => project,
        Ok(None) => return Ok(false),
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::error!(project.id = %group, error = %error, "this project cannot be read, so its key is not observed");
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    let (project, next) = with_last_look(engine, project);
    if !is_due(engine, next, engine.clock.now()) {
        // Another daemon was faster.
        return Ok(false);
    }
    let (version, at) = (project.version, project.last_checked_at);
    let asked = project.clone();
    match observe(engine, project, Record::News).await {
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::error!(project.id = %group, error = %error, "a row about this project cannot be read; its key is read all the same");
            let next = next_look(&group, engine.clock.now(), engine.settings.drift_every.get());
            engine.store.project_checked(&group, version, at, next).await.map(drop)
        }
        done => done.map(drop),
    }?;
    // After the key: an answer that does not come must not delay its reading.
    roles::ask(engine, &asked).await;
    Ok(true)
}

/// Observes one project and records the changes, or only the instant when nothing changed. After a
/// conflict the project stays due.
pub(super) async fn check(engine: &Engine, project: Project) -> Result<Checked, StoreError> {
    observe(engine, project, Record::All).await
}

/// What of an observation is written at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Record {
    All,
    /// Only what is new; that nothing is new is written later, with that of other projects.
    News,
}

async fn observe(engine: &Engine, project: Project, record: Record) -> Result<Checked, StoreError> {
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
    take(engine, &project, looked, record).await
}

/// Records what an observation of a project has found. `looked` is `None` where a rotation is open, which observes
/// the project itself.
async fn take(
    engine: &Engine,
    project: &Project,
    looked: Option<Result<Observation, Failure>>,
    record: Record,
) -> Result<Checked, StoreError> {
    let now = engine.clock.now();
    let mut found = None;
    let mut after = project.clone();
    let every = engine.settings.drift_every.get();
    after.next_check_at = next_look(&project.group_id, now, every);
    let mut audit = Vec::new();
    let mut outbox = Vec::new();
    let mut observed = None;
    let mut failed = None;
    let mut own_next = None;
    match looked {
        None => {}
        Some(Ok(seen)) => {
            let seen = observed.insert(engine.epoch.with_skew(seen));
            // A recorded project without a key may have had one before. Then the new key is drift, not
            // the first key of the project.
            let asks = project.current_key.is_none() && seen.key.is_some();
            let served = asks && !engine.store.keys(&project.group_id).await?.is_empty();
            if note(&mut after, seen, served) {
                let drift = drift::explain(engine, project, &mut after, seen).await?;
                audit.push(NewAudit {
                    actor: ENGINE.to_owned(),
                    action: "project.drifted".to_owned(),
                    subject: format!("project/{}", after.group_id),
                    detail: drift::content(engine, &drift.finding).model().to_string(),
                });
                outbox = drift::rows(engine, &after, &drift.finding, engine.clock.now());
                found = Some(drift);
            } else if project.current_key.is_none() {
                drift::date(engine, project, &mut after, seen).await;
            }
            audit.extend(key_invalid(project, &after));
        }
        Some(Err(failure)) => {
            after.last_error = Some(failure.to_string());
            let asked = failure.retry_after.map_or(Duration::ZERO, crate::domain::time::Span::get);
            after.next_check_at = after.next_check_at.max(now + asked.min(LONGEST_PAUSE));
            if !failure.asks_to_wait() && leaves(engine, &project.group_id, now).await? {
                // The row is due for the other daemons, and not for this one.
                own_next = Some(std::mem::replace(&mut after.next_check_at, now));
            }
            failed = Some(failure);
        }
    }
    let quiet = found.is_none() && audit.is_empty() && outbox.is_empty() && is_quiet(project, &after);
    let written = if quiet {
        Ok(project.version)
    } else {
        let store = &engine.store;
        let (version, now) = (project.version, engine.clock.now());
        store.drift_project(&after, version, found.as_ref(), (&audit, &outbox), now).await
    };
    match (&observed, &failed) {
        (Some(seen), _) => conditions::note_look(engine, &project.group_id, Ok(seen)).await,
        (None, Some(failure)) => conditions::note_look(engine, &project.group_id, Err(failure)).await,
        (None, None) => {}
    }
    let recorded = match written {
        Ok(version) if quiet => {
            write_quiet(engine, project, &after, record).await.map(|done| (done, version))
        }
        done => done.map(|version| (true, version)),
    };
    match recorded {
        Ok((recorded, version)) => {
            if let Some(next) = own_next {
                let (group_id, was, at) =
                    (project.group_id.clone(), after.next_check_at, after.last_checked_at);
                engine.quiet.leave(QuietLook { group_id, version, was, at, next });
            }
            if !outbox.is_empty() {
                engine.mail_due.notify_one();
            }
            Ok(Checked { seen: observed, recorded })
        }
        Err(StoreError::Conflict) => Ok(Checked { seen: observed, recorded: false }),
        Err(error) => Err(error),
    }
}

/// The audit row of a key that has become invalid.
fn key_invalid(before: &Project, after: &Project) -> Option<NewAudit> {
    let begins = before.valid != Some(false) && after.valid == Some(false);
    begins.then(|| NewAudit {
        actor: ENGINE.to_owned(),
        action: "project.key_invalid".to_owned(),
        subject: format!("project/{}", after.group_id),
        detail: json!({ "key": after.current_key.as_ref().map(ToString::to_string) }).to_string(),
    })
}

/// Takes over what the watch after the end of a rotation has observed, as if the sweep had observed it.
///
/// # Errors
/// Fails when the database cannot be read or written.
pub(super) async fn hand_over(
    engine: &Engine,
    group: &GroupId,
    seen: &Observation,
) -> Result<(), StoreError> {
    let Some(project) = engine.store.project(group).await? else { return Ok(()) };
    let (project, _) = with_last_look(engine, project);
    let newest = project.last_checked_at.is_none_or(|at| at <= seen.at || at > engine.clock.now());
    if project.open_rotation.is_some() || !newest {
        conditions::note_look(engine, group, Ok(seen)).await;
        return Ok(());
    }
    take(engine, &project, Some(Ok(seen.clone())), Record::News).await.map(drop)
}

/// Whether nothing but the instants of a project has changed.
fn is_quiet(before: &Project, after: &Project) -> bool {
    let (last_checked_at, next_check_at) = (before.last_checked_at, before.next_check_at);
    Project { last_checked_at, next_check_at, ..after.clone() } == *before
}

/// Records a look without news. The schedule of a project whose readings are not good is always written at once:
/// its next observation may be pulled forward in the database.
async fn write_quiet(
    engine: &Engine,
    before: &Project,
    after: &Project,
    record: Record,
) -> Result<bool, StoreError> {
    let (group_id, version) = (before.group_id.clone(), before.version);
    let (was, at, next) = (before.next_check_at, after.last_checked_at, after.next_check_at);
    if record == Record::All || conditions::suspects(engine).contains(&group_id) {
        return engine.store.project_checked(&group_id, version, at, next).await;
    }
    engine.quiet.note(QuietLook { group_id, version, was, at, next });
    Ok(true)
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
