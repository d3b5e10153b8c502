//! Which projects this daemon observes next, and the looks that found nothing new until they are written.
//!
//! The database holds the schedule. A look without news is only remembered, and written with the others at most
//! once in `WRITE_EVERY`. What is remembered counts only while the database holds the instant that the look has
//! read: an observation that is pulled forward there is made at once. After a crash, what was not
//! written is due again.
//!
//! Daemons that share a database divide the projects among them. A daemon that is gone, hangs or reaches no Atlas
//! leaves none of its projects unread: the others observe what it leaves overdue, and what it could not read.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use super::Engine;
use super::looks::hash;
use crate::domain::ids::GroupId;
use crate::domain::project::Project;
use crate::domain::rotation::machine::LONGEST_PAUSE;
use crate::domain::time::Timestamp;
use crate::store::{DueLook, QuietLook, StoreError};

/// How often looks without news are written.
pub(super) const WRITE_EVERY: Duration = Duration::from_mins(1);

/// A daemon that was not seen for this long has no share: three times the refresh interval, and some clock skew.
const ABSENT_AFTER: Duration = Duration::from_secs(35);

/// A project that is overdue for this long is observed by any daemon. What its own daemon has observed is
/// written within [`WRITE_EVERY`].
const LEFT_AFTER: Duration = Duration::from_secs(90);

/// The looks without news that are not written yet.
#[derive(Debug, Default)]
pub struct QuietLooks(Mutex<BTreeMap<GroupId, Remembered>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Remembered {
    look: QuietLook,
    /// It failed, and the row is left due for the other daemons.
    is_left: bool,
}

impl QuietLooks {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, look: QuietLook) {
        self.lock().insert(look.group_id.clone(), Remembered { look, is_left: false });
    }

    /// A look that failed, whose row is left due for the other daemons.
    pub(super) fn leave(&self, look: QuietLook) {
        self.lock().insert(look.group_id.clone(), Remembered { look, is_left: true });
    }

    /// The look after which a row with this version and this instant is still as the look has read it.
    fn of(&self, group: &GroupId, version: i64, next_check_at: Timestamp) -> Option<QuietLook> {
        let looks = self.lock();
        let look = &looks.get(group)?.look;
        (look.version == version && look.was == next_check_at).then(|| look.clone())
    }

    fn unwritten(&self) -> Vec<QuietLook> {
        self.lock().values().filter(|it| !it.is_left).map(|it| it.look.clone()).collect()
    }

    /// Forgets the looks at these projects, so that those are due as the database says; returns whether there were
    /// any.
    pub(super) fn forget(&self, groups: &[GroupId]) -> bool {
        let mut looks = self.lock();
        groups.iter().filter(|group| looks.remove(*group).is_some()).count() > 0
    }
}

/// The project with its last look, whether that is written or not, and when it is observed next.
pub(super) fn with_last_look(engine: &Engine, mut project: Project) -> (Project, Timestamp) {
    let mut next = project.next_check_at;
    if let Some(look) = engine.quiet.of(&project.group_id, project.version, next) {
        (project.last_checked_at, next) = (look.at, look.next);
    }
    (project, next)
}

/// Whether an observation that is due at `next` is due at `now`. An instant further ahead than any that is
/// written comes from a clock that was wrong.
pub(super) fn is_due(engine: &Engine, next: Timestamp, now: Timestamp) -> bool {
    next <= now || next > now + longest_wait(engine)
}

/// The longest time that a project is not read: nothing that Atlas asks for delays it further.
fn longest_wait(engine: &Engine) -> Duration {
    engine.settings.drift_every.get().max(LONGEST_PAUSE)
}

/// The projects that are due, the most overdue first.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn due(engine: &Engine, now: Timestamp) -> Result<Vec<DueLook>, StoreError> {
    let mut due = engine.store.due_looks(now, now + longest_wait(engine)).await?;
    for it in &mut due {
        if let Some(look) = engine.quiet.of(&it.group_id, it.version, it.next_check_at) {
            it.next_check_at = look.next;
        }
    }
    let daemons = engine.store.living(now - ABSENT_AFTER).await?;
    due.retain(|it| {
        let left = it.failed || now.since(it.next_check_at) > LEFT_AFTER || it.next_check_at > now;
        is_due(engine, it.next_check_at, now) && (left || is_own(engine.presence, &daemons, &it.group_id))
    });
    Ok(due)
}

/// Whether this daemon observes `group`: of the living ones, the one with the highest hash. When a daemon comes or
/// goes, only its share moves.
fn is_own(own: Uuid, daemons: &[Uuid], group: &GroupId) -> bool {
    let first = daemons.iter().max_by_key(|id| hash(&format!("{id}/{group}")));
    !daemons.contains(&own) || first == Some(&own)
}

/// Whether another daemon is to try what this one could not read.
pub(super) async fn leaves(engine: &Engine, group: &GroupId, now: Timestamp) -> Result<bool, StoreError> {
    let daemons = engine.store.living(now - ABSENT_AFTER).await?;
    Ok(daemons.len() > 1 && daemons.contains(&engine.presence) && is_own(engine.presence, &daemons, group))
}

/// For how long the most overdue observation is due.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn lag(engine: &Engine) -> Result<Duration, StoreError> {
    let now = engine.clock.now();
    let due = due(engine, now).await?;
    Ok(due.iter().map(|it| now.since(it.next_check_at)).max().unwrap_or_default())
}

/// Writes the looks that found nothing new, all in one statement.
///
/// # Errors
/// Fails when the database cannot be written; the looks are kept for the next attempt.
pub async fn write_quiet_looks(engine: &Engine) -> Result<(), StoreError> {
    let looks = engine.quiet.unwritten();
    // In doubt, nothing is written about projects.
    if looks.is_empty() || engine.epoch.in_doubt() {
        return Ok(());
    }
    engine.store.write_quiet_looks(&looks, engine.clock.now()).await?;
    let mut kept = engine.quiet.lock();
    for look in &looks {
        if kept.get(&look.group_id).is_some_and(|it| it.look == *look) {
            kept.remove(&look.group_id);
        }
    }
    Ok(())
}
