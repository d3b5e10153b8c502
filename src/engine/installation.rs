//! What is known of the installation: this daemon's database, clock and watch, its messages, and rows that cannot
//! be read.
//!
//! Only gathers; what follows from it is decided by [`of_installation`](crate::domain::condition::of_installation).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Engine;
use crate::domain::condition::{ConditionKind, DaemonFacts, InstallationFacts};
use crate::domain::subject::Subject;
use crate::domain::time::Timestamp;
use crate::store::{ConditionRow, StoreError};

const UNWRITABLE: ConditionKind = ConditionKind::DatabaseUnwritable;

/// Projects that are read later than this are read late: the promise is two minutes.
const LATE: Duration = Duration::from_mins(2);

/// How often the database is searched for rows that cannot be read.
const SEARCH_EVERY: Duration = Duration::from_mins(1);

/// The most unreadable rows that are named.
const NAMED: usize = 5;

/// Mails of a project that was silenced leave within this time after the silence.
const AFTER_SILENCE: Duration = Duration::from_mins(10);

/// Mails that were refused for good count for this long.
const FAILED_FOR: Duration = Duration::from_hours(24);

/// What this daemon remembers between two comparisons.
#[derive(Debug, Default)]
pub struct Watched(Mutex<State>);

#[derive(Clone, Debug, Default)]
struct State {
    /// When the watch began: what was due before counts from here.
    began: Option<Timestamp>,
    /// When rows were searched last, since when some cannot be read, and which.
    searched: Option<Timestamp>,
    unreadable: Option<(Timestamp, Vec<String>)>,
    /// Since when rows are not as Keywheel wrote them, and which.
    tampered: Option<(Timestamp, Vec<String>)>,
    /// Since when the disk is full, and since when nothing can be written.
    disk_full: Option<Timestamp>,
    unwritable: Option<Timestamp>,
    /// What held for the installation at the last comparison.
    holding: Vec<ConditionKind>,
}

impl Watched {
    /// What held for the installation at the last comparison, without names.
    #[must_use]
    pub fn holding(&self) -> Vec<ConditionKind> {
        self.state().holding.clone()
    }

    pub(super) fn set_unwritable(&self, since: Option<Timestamp>) {
        self.state().unwritable = since;
    }

    pub(super) fn compared(&self, mut holding: Vec<ConditionKind>) {
        holding.sort_unstable();
        holding.dedup();
        self.state().holding = holding;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gathers the facts of the installation.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn facts(engine: &Engine, now: Timestamp) -> Result<InstallationFacts, StoreError> {
    let shown = engine.epoch.shown();
    let unreadable = unreadable(engine, now).await?;
    let tampered = engine.watched.state().tampered.clone();
    let doubt = shown.doubt.map(|it| (it.kind, it.since, format!("{}. {}", it.detail, it.way_out)));
    let doubt = doubt.or_else(|| tampered.map(|(since, rows)| ("tampered", since, rows.join(". "))));
    let skew = engine.epoch.clocks_differ().then(|| {
        let ms = |it: Option<i64>| it.map_or("not known".to_owned(), |ms| format!("{ms} ms"));
        let of = shown.clock_skew_ms;
        format!("difference to Atlas: {}; to the database: {}", ms(of.atlas), ms(of.database))
    });
    let targets = engine.webhooks.all();
    let gone =
        targets.iter().filter(|target| target.retired_at().is_some()).map(|target| target.name().to_owned());
    let (mail_stuck_since, mail_words) =
        engine.store.stuck_mail(now - FAILED_FOR, now - AFTER_SILENCE).await?.unzip();
    Ok(InstallationFacts {
        daemon: DaemonFacts {
            name: engine.settings.daemon.clone(),
            doubt,
            clock_skew: skew,
            disk_full_since: disk_full(engine, now),
            late_since: late_since(engine, now).await?,
            gone_targets: gone.collect(),
        },
        mail_stuck_since,
        mail_words: mail_words.flatten(),
        unreadable,
    })
}

/// Since when the disk is full and the reserve is given up.
fn disk_full(engine: &Engine, now: Timestamp) -> Option<Timestamp> {
    let mut state = engine.watched.state();
    state.disk_full =
        engine.store.is_short_of_room().then(|| state.disk_full.filter(|at| *at <= now).unwrap_or(now));
    state.disk_full
}

/// Since when projects are read later than promised.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn late_since(engine: &Engine, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let began = *engine.watched.state().began.get_or_insert(now);
    // After a clock that was ahead, the watch begins anew.
    if began > now {
        engine.watched.state().began = Some(now);
        return Ok(None);
    }
    let next = if engine.epoch.in_doubt() {
        // Every sweep reads every project then, and writes no schedule.
        *engine.last_sweep.lock().unwrap_or_else(PoisonError::into_inner)
    } else {
        engine.store.next_check().await?
    };
    Ok(next.map(|at| at.max(began) + LATE).filter(|late| *late < now))
}

/// The rows in play that cannot be read, searched once a minute.
async fn unreadable(engine: &Engine, now: Timestamp) -> Result<Option<(Timestamp, Vec<String>)>, StoreError> {
    let State { searched, unreadable: before, .. } = engine.watched.state().clone();
    if searched.is_some_and(|at| at <= now && now.since(at) < SEARCH_EVERY) {
        return Ok(before);
    }
    let tampered = tampered(engine, now).await?;
    let found = some(engine.store.unreadable_in_play().await?.iter().map(named).collect(), before, now);
    let mut state = engine.watched.state();
    state.searched = Some(now);
    state.unreadable.clone_from(&found);
    state.tampered = tampered;
    Ok(found)
}

/// The rows that authorise and are not as Keywheel wrote them.
async fn tampered(engine: &Engine, now: Timestamp) -> Result<Option<(Timestamp, Vec<String>)>, StoreError> {
    let before = engine.watched.state().tampered.clone();
    match engine.store.tampered().await {
        Ok(found) => Ok(some(found.iter().map(named).collect(), before, now)),
        // Before the audit log was read nothing is known.
        Err(StoreError::Unverified | StoreError::NoKey) => Ok(before),
        // What else is known is told all the same.
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::error!(error = %error, "rows not compared with the audit log");
            Ok(before)
        }
        Err(error) => Err(error),
    }
}

/// Some of `rows`, since they were found first; `None` for none.
fn some(
    mut rows: Vec<String>,
    before: Option<(Timestamp, Vec<String>)>,
    now: Timestamp,
) -> Option<(Timestamp, Vec<String>)> {
    if rows.len() > NAMED {
        let more = format!("and {} more", rows.len() - NAMED);
        rows.truncate(NAMED);
        rows.push(more);
    }
    (!rows.is_empty()).then(|| (before.map_or(now, |(since, _)| since), rows))
}

fn named(error: &StoreError) -> String {
    match error {
        StoreError::Corrupt { table, column, id } => format!("{table}.{column} of {id}"),
        other => other.to_string(),
    }
}

impl Engine {
    /// What holds for the installation, the most urgent first.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn installation(&self) -> Result<Vec<ConditionRow>, StoreError> {
        let mut rows = self.store.conditions_of_installation().await?;
        let unwritable = self.watched.state().unwritable;
        if let Some(since) = unwritable.filter(|_| rows.iter().all(|row| row.kind != UNWRITABLE)) {
            rows.push(ConditionRow::in_memory(
                Subject::Daemon(self.settings.daemon.clone()),
                UNWRITABLE,
                since,
            ));
        }
        rows.sort_by_key(|row| row.kind);
        Ok(rows)
    }

    /// Who hears of the installation: its operators, or every owner where none is named.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub(super) async fn responsible(&self) -> Result<Vec<String>, StoreError> {
        match self.settings.operators.as_slice() {
            [] => self.store.all_owners().await,
            operators => Ok(operators.to_vec()),
        }
    }
}
