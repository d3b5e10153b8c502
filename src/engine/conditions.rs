//! Compares what holds with what was told, and writes the start, the repetition and the end of each condition.
//!
//! [`once`] is the only place that tells conditions. It reads the facts themselves, not their changes.
//! Whatever is untold is told now, by whom and when ever it was written, and whatever is told and does not hold is
//! ended. So no writer can forget to announce anything, and a crash between a fact and its telling loses nothing.
//!
//! Facts come from the tables of projects and rotations, and from the readings that are noted here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::announce::{self, News, content};
use super::{Engine, Settings, installation, upgrade};
use crate::atlas::AtlasApi;
use crate::domain::condition::{
    Condition, ConditionKind, CredentialFacts, DAMPED, DAMPED_AT, Daily, Ending, Facts, Failed,
    LONGEST_ACKNOWLEDGED, LONGEST_REPEAT, Reading, Readings, Telling, condition_id, of_credential,
    of_installation, of_project, of_secret,
};
use crate::domain::ids::GroupId;
use crate::domain::notice::{
    ConditionFacts, CurrentKeyInvalid, InstallationCondition, InvalidKey, KeyAlarm, Kind, NO_LONGER_RUNS,
    NO_LONGER_WATCHED, Notice,
};
use crate::domain::project::Project;
use crate::domain::rotation::outcome::{Failure, Observation};
use crate::domain::rotation::state::State;
use crate::domain::subject::Subject;
use crate::domain::time::Timestamp;
use crate::lifecycle::wait;
use crate::store::{Channel, ConditionRow, NewOutbox, RotationRow, StoreError};

/// The longest sleep before the facts are compared again.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// The shortest one: notices of news that come together are told together.
const SHORTEST_SLEEP: Duration = Duration::from_millis(50);

/// Conditions that are written in one transaction: a step must not wait behind thousands. The others follow at
/// once.
const AT_ONCE: usize = 256;

/// Compares and tells until `stop`.
pub async fn run(engine: Engine, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let longest = once(&engine).await.unwrap_or_else(|error| {
            tracing::error!(error = %error, "conditions not compared; they are told at the next attempt");
            LONGEST_SLEEP
        });
        wait(engine.conditions_due.notified(), longest, &stop).await;
        wait(std::future::pending(), SHORTEST_SLEEP, &stop).await;
    }
}

/// Compares what holds with what was told, and tells the difference; returns the time until a repetition is due.
///
/// # Errors
/// Fails when the database cannot be read or written; the next comparison tells what was not told.
pub async fn once(engine: &Engine) -> Result<Duration, StoreError> {
    let store = &engine.store;
    let now = engine.clock.now();
    let all = store.all_readings().await?;
    *suspects(engine) = all.keys().cloned().collect();
    let unread = all.iter().filter(|(_, it)| it.is_none()).map(|(group, _)| group.clone()).collect();
    let readings = all.into_iter().filter_map(|(group, it)| Some((group, it?))).collect();
    let gathers = upgrade::gathers_until(engine).await?.filter(|until| *until > now);
    let mut next = confirm(engine, &readings, gathers.is_some(), now).await?;
    let projects = store.suspects().await?;
    let open = store.open_rotations().await?;
    let open = open.into_iter().map(|row| (row.rotation.group_id.clone(), row)).collect();
    let keyless = projects.iter().any(|project| project.current_key.is_none());
    let lost = if keyless { store.lost_keys().await? } else { BTreeSet::new() };
    let mut rows: BTreeMap<Subject, Vec<ConditionRow>> = BTreeMap::new();
    for row in store.conditions(now - DAMPED).await? {
        rows.entry(row.subject.clone()).or_default().push(row);
    }
    let known = Known { rows, open, unread, gathers, now };
    let (mut changes, said) = of_all(engine, &known, &projects, &readings).await?;
    next = [next, changes.iter().filter_map(|change| change.next).min()].into_iter().flatten().min();
    let mut count = changes.iter().map(|change| change.rows.len()).sum::<usize>();
    let none = Readings::default();
    for project in &projects {
        let group = &project.group_id;
        let subject = Subject::from(group);
        let facts = Facts {
            current_key: project.current_key.as_ref(),
            drift_key: project.drift_key.as_ref(),
            checked_at: project.last_checked_at,
            created_at: project.created_at,
            open: known.open.get(group).map(|row| &row.rotation),
            readings: readings.get(group).unwrap_or(&none),
            had_key: lost.contains(group.as_str()),
            credential: said.get(&project.credential).copied(),
            holding: &known.holding(&subject),
        };
        let found = of_project(&facts, &engine.settings.limits, now);
        let change = Change::of(&engine.settings, &known, &subject, Some(project), &found);
        next = [next, change.next].into_iter().flatten().min();
        count += change.rows.len();
        changes.push(change);
        if count >= AT_ONCE {
            next = Some(now);
            break;
        }
    }
    let watched: BTreeSet<_> = projects.iter().map(|project| &project.group_id).collect();
    for group in known.rows.keys().filter_map(Subject::project).filter(|group| !watched.contains(group)) {
        changes.extend(removed(engine, &known, group).await?);
    }
    changes.retain(|change| !change.rows.is_empty());
    write(engine, &changes, now).await?;
    Ok(next.map_or(LONGEST_SLEEP, |at| now.until(at).clamp(SHORTEST_SLEEP, LONGEST_SLEEP)))
}

/// The changes of everything but projects, and the credentials whose projects cannot be read because of them.
async fn of_all(
    engine: &Engine,
    known: &Known,
    projects: &[Project],
    readings: &BTreeMap<GroupId, Readings>,
) -> Result<(Vec<Change>, BTreeMap<String, ConditionKind>), StoreError> {
    let (now, limits) = (known.now, &engine.settings.limits);
    let (mut failed, mut verifying): (BTreeMap<&str, Vec<&Failed>>, BTreeSet<&str>) = Default::default();
    for project in projects {
        let credential = project.credential.as_str();
        let readings = readings.get(&project.group_id);
        failed.entry(credential).or_default().extend(readings.and_then(|it| it.failed.as_ref()));
        let open = known.open.get(&project.group_id);
        let state = open.map(|row| row.rotation.state);
        if state.is_some_and(|state| state.is_after_patch() || state == State::NeedsOperator) {
            verifying.insert(credential);
        }
    }
    failed.retain(|_, failed| !failed.is_empty());
    let counts = if failed.is_empty() { BTreeMap::new() } else { engine.store.credential_counts().await? };
    let mut found: BTreeMap<Subject, Vec<Condition>> = BTreeMap::new();
    let mut said = BTreeMap::new();
    for (name, failed) in failed {
        let subject = Subject::Credential(name.to_owned());
        let facts = CredentialFacts {
            name,
            projects: counts.get(name).copied().unwrap_or_default(),
            failed,
            is_verifying: verifying.contains(name),
            holding: &known.holding(&subject),
        };
        let conditions = of_credential(&facts, now);
        said.extend(conditions.first().map(|first| (name.to_owned(), first.kind)));
        found.insert(subject, conditions);
    }
    for name in engine.atlas.credentials() {
        let subject = Subject::Credential(name.clone());
        let row = known.of(&subject).find(|row| row.kind == ConditionKind::CredentialEnding);
        let condition = match (engine.secret_ends.of(&name), row) {
            (Some(end), _) => end.and_then(|end| of_secret(end, now)),
            // A daemon that has not read it yet ends nothing.
            (None, Some(row)) => Some(Condition {
                cause: row.cause.clone(),
                ..Condition::new(ConditionKind::CredentialEnding, row.since, now)
            }),
            (None, None) => None,
        };
        if let Some(condition) = condition {
            found.entry(subject).or_default().push(condition);
        }
    }
    // What cannot be found out about the installation keeps nobody from hearing of a key.
    let facts = installation::facts(engine, now).await;
    match &facts {
        Ok(facts) => {
            for (subject, condition) in of_installation(facts, limits.told_after, now) {
                found.entry(subject).or_default().push(condition);
            }
        }
        Err(error) => {
            tracing::error!(error = %error, "the state of the installation is not known; its conditions stay as they are");
        }
    }
    let mut changes: Vec<_> = found
        .iter()
        .map(|(subject, found)| Change::of(&engine.settings, known, subject, None, found))
        .collect();
    engine.watched.compared(found.values().flatten().map(|it| it.kind).collect());
    let own = Subject::Daemon(engine.settings.daemon.clone());
    let is_known = |subject: &Subject| matches!(subject, Subject::Credential(_)) || facts.is_ok();
    let gone = |it: &&Subject| it.project().is_none() && !found.contains_key(*it) && is_known(it);
    for subject in known.rows.keys().filter(gone) {
        if !matches!(subject, Subject::Daemon(_)) || *subject == own {
            changes.push(Change::of(&engine.settings, known, subject, None, &[]));
        } else if known.of(subject).next().is_some() && !engine.store.is_alive(subject, now).await? {
            let mut change = Change::none(subject.clone());
            for row in known.of(subject) {
                change.end(row.clone(), None, Some(NO_LONGER_RUNS), now);
            }
            changes.push(change);
        }
    }
    Ok((changes, said))
}

/// Adds a reading of a project's key. A good one of a project without bad ones is not written down.
pub(super) async fn note(engine: &Engine, group: &GroupId, reading: &Reading<'_>, at: Timestamp) {
    let good = matches!(reading, Reading::Seen { key: Some(_), valid: Some(true) });
    if good && !suspects(engine).contains(group) {
        return;
    }
    if let Err(error) = add(engine, group, reading, at).await {
        tracing::error!(project.id = %group, error = %error, "reading not written down; the next one counts");
    }
}

/// Adds the result of a look.
pub(super) async fn note_look(engine: &Engine, group: &GroupId, seen: Result<&Observation, &Failure>) {
    match seen {
        Ok(seen) => {
            // Data under the key of another block is lost with it just the same.
            let reading = match &seen.invalid_beside {
                Some(key) if seen.valid != Some(false) => {
                    Reading::Seen { key: Some(key), valid: Some(false) }
                }
                _ => Reading::Seen { key: seen.key.as_ref(), valid: seen.valid },
            };
            note(engine, group, &reading, seen.at).await;
        }
        Err(failure) => {
            let (words, refused) = (failure.to_string(), failure.is_of_the_credential());
            let reading = Reading::Failed { class: failure.class, words: &words, refused };
            note(engine, group, &reading, engine.clock.now()).await;
        }
    }
}

/// Adds what Atlas said of the credential's role.
pub(super) async fn note_role(engine: &Engine, group: &GroupId, is_owner: bool) -> Result<(), StoreError> {
    if is_owner && !suspects(engine).contains(group) {
        return Ok(());
    }
    let now = engine.clock.now();
    change(engine, group, move |readings| readings.note_role(is_owner, now)).await
}

/// Adds what was heard of a key in play.
pub(super) async fn note_ending(engine: &Engine, group: &GroupId, ending: Ending) -> Result<(), StoreError> {
    change(engine, group, move |readings| readings.note_ending(ending.clone())).await
}

/// A lookup that began at `asked_at` has found the key usable.
pub(super) async fn refute_endings(
    engine: &Engine,
    group: &GroupId,
    key: &str,
    asked_at: Timestamp,
) -> Result<(), StoreError> {
    let key = key.to_owned();
    change(engine, group, move |readings| readings.refute_endings(&key, asked_at)).await
}

/// The key can be used again, as an event says.
pub(super) async fn forget_endings(engine: &Engine, group: &GroupId, key: &str) -> Result<(), StoreError> {
    let key = key.to_owned();
    change(engine, group, move |readings| readings.forget_endings(&key)).await
}

async fn add(
    engine: &Engine,
    group: &GroupId,
    reading: &Reading<'_>,
    at: Timestamp,
) -> Result<(), StoreError> {
    let confirm_after = engine.settings.limits.confirm_after.get();
    match *reading {
        Reading::Seen { key, valid } => {
            let key = key.cloned();
            let note = move |readings: &mut Readings| {
                readings.note(&Reading::Seen { key: key.as_ref(), valid }, at, confirm_after);
            };
            change(engine, group, note).await
        }
        Reading::Failed { class, words, refused } => {
            let words = words.to_owned();
            let note = move |readings: &mut Readings| {
                readings.note(&Reading::Failed { class, words: &words, refused }, at, confirm_after);
            };
            change(engine, group, note).await
        }
    }
}

/// Changes the readings of a project, when that is news.
async fn change<F>(engine: &Engine, group: &GroupId, change: F) -> Result<(), StoreError>
where
    F: Fn(&mut Readings) + Send + Sync + 'static,
{
    // What cannot be read is written anew: it must not keep the project mute.
    let before = match engine.store.readings(group).await {
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::error!(project.id = %group, error = %error, "the last readings cannot be read; they begin anew");
            None
        }
        read => Some(read?),
    };
    let is_news = before.is_none_or(|before| {
        let mut after = before.clone();
        change(&mut after);
        before.is_news(&after, engine.settings.limits.confirm_after.get())
    });
    if is_news {
        if engine.store.change_readings(group, change).await?.is_calm() {
            suspects(engine).remove(group);
        } else {
            suspects(engine).insert(group.clone());
        }
        engine.conditions_due.notify_one();
    }
    Ok(())
}

pub(super) fn suspects(engine: &Engine) -> std::sync::MutexGuard<'_, BTreeSet<GroupId>> {
    engine.suspects.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What is known, as [`once`] has read it.
struct Known {
    /// The conditions that hold, and those that ended within [`DAMPED`], by subject.
    rows: BTreeMap<Subject, Vec<ConditionRow>>,
    open: BTreeMap<GroupId, RotationRow>,
    /// The projects whose last readings cannot be read: the next one is written anew.
    unread: BTreeSet<GroupId>,
    /// What is found until then is told as one list.
    gathers: Option<Timestamp>,
    now: Timestamp,
}

impl Known {
    fn holding(&self, subject: &Subject) -> Vec<ConditionKind> {
        self.of(subject).map(|row| row.kind).collect()
    }

    fn of<'a>(&'a self, subject: &'a Subject) -> impl Iterator<Item = &'a ConditionRow> {
        self.rows.get(subject).into_iter().flatten().filter(|row| row.ended_at.is_none())
    }

    /// The instant of a start: no two of one condition have the same.
    fn start(&self, subject: &Subject, it: &Condition) -> Timestamp {
        let mut rows = self.rows.get(subject).into_iter().flatten();
        if rows.any(|row| row.kind == it.kind && row.since == it.since) { self.now } else { it.since }
    }

    /// The row that would say whether this holds cannot be read, or the rotation has just moved on.
    fn is_unsure(&self, project: &Project, kind: ConditionKind) -> bool {
        if self.unread.contains(&project.group_id) && kind.follows_from_readings() {
            return true;
        }
        let told = |state| matches!(state, State::Approved | State::Applying | State::NeedsOperator);
        matches!(kind, ConditionKind::NeedsOperator | ConditionKind::Held)
            && project.open_rotation.is_some_and(|open| told(open.state))
            && !self.open.contains_key(&project.group_id)
    }

    /// How often this condition has started within [`DAMPED`].
    fn starts(&self, subject: &Subject, kind: ConditionKind) -> usize {
        let rows = self.rows.get(subject).into_iter().flatten();
        rows.filter(|it| it.kind == kind && self.now.since(it.since) < DAMPED).count()
    }
}

/// Has the projects read again whose last reading waits for a second one; returns when the next is to be. While
/// everything is `gathered`, a project that cannot be read is tried again as soon.
async fn confirm(
    engine: &Engine,
    readings: &BTreeMap<GroupId, Readings>,
    gathered: bool,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let confirm_after = engine.settings.limits.confirm_after.get();
    let last = |it: &Readings| {
        let bad = || it.good.or(it.bad).map_or(now, |run| run.last);
        let failed = if gathered { it.failed_lately() } else { None };
        failed.or_else(|| it.is_unconfirmed(confirm_after).then(bad))
    };
    let waiting = readings.iter().filter_map(|(group, it)| Some((group, last(it)?)));
    let mut next = None;
    let mut due = Vec::new();
    for (group, last) in waiting {
        match last + confirm_after {
            at if at <= now || last > now => due.push(group.clone()),
            at => next = [next, Some(at)].into_iter().flatten().min(),
        }
    }
    // A look that is not written yet must not hide that these are due.
    if !due.is_empty() && engine.quiet.forget(&due) | engine.store.look_soon(&due, now).await? {
        engine.look_due.notify_one();
    }
    Ok(next)
}

/// What changes for one subject: the rows to write and the notices to send.
struct Change {
    subject: Subject,
    rows: Vec<ConditionRow>,
    tell: Vec<(Notice, String)>,
    /// When the next repetition is due.
    next: Option<Timestamp>,
}

impl Change {
    const fn none(subject: Subject) -> Self {
        Self { subject, rows: Vec::new(), tell: Vec::new(), next: None }
    }

    fn of(
        settings: &Settings,
        known: &Known,
        subject: &Subject,
        project: Option<&Project>,
        found: &[Condition],
    ) -> Self {
        let (now, daily) = (known.now, &settings.limits.daily);
        let mut change = Self::none(subject.clone());
        let before = |kind| known.of(subject).find(|row| row.kind == kind);
        for it in found {
            let old = before(it.kind);
            let mut row = match old {
                Some(old) => held_on(old, it, daily, now),
                None => begun(known, subject, it, daily),
            };
            row.name = project.map(|project| project.name.clone()).unwrap_or_default();
            if let Some(until) = known.gathers.filter(|_| upgrade::is_listed(it.kind)) {
                row.tell_at = upgrade::tell_at(&row, until);
            }
            if is_due(&row, it.telling, settings.limits.told_after.get(), now)
                && let Some(notice) = notice(known, project, &row, it)
            {
                let identity = format!("{}/{}/{}", condition_id(&row.subject, row.kind), row.since, row.told);
                change.tell.push((notice, identity));
                row.told = row.told.saturating_add(1);
                row.told_at = Some(now);
                row.tell_at = it.telling.repeat_at(row.told, now, daily);
            }
            change.next = [change.next, row.tell_at].into_iter().flatten().min();
            if old != Some(&row) {
                change.rows.push(row);
            }
        }
        for row in known.of(subject) {
            let unsure = project.is_some_and(|project| known.is_unsure(project, row.kind));
            if found.iter().all(|it| it.kind != row.kind) && !unsure {
                change.not_found(project, row, now);
            }
        }
        change
    }

    /// The condition holds no more. One that started again and again ends only after a rest.
    fn not_found(&mut self, project: Option<&Project>, row: &ConditionRow, now: Timestamp) {
        let mut after = row.clone();
        if row.damped {
            let since = *after.calm_since.insert(row.calm_since.filter(|at| *at <= now).unwrap_or(now));
            if now.since(since) < DAMPED {
                if after != *row {
                    self.rows.push(after);
                }
                return;
            }
        }
        self.end(after, project, None, now);
    }

    fn end(&mut self, mut row: ConditionRow, project: Option<&Project>, why: Option<&str>, now: Timestamp) {
        row.ended_at = Some(now);
        row.tell_at = None;
        if row.told > 0
            && let Some(kind) = Kind::of_condition(row.kind, true)
        {
            let identity = format!("{}/{}/over", condition_id(&row.subject, row.kind), row.since);
            let why = why.map(ToOwned::to_owned);
            self.tell.push((plain(kind, project, &row, Some(now), why, None), identity));
        }
        self.rows.push(row);
    }

    /// The messages: mails wait for others like them.
    async fn messages(&self, engine: &Engine, now: Timestamp) -> Result<Vec<NewOutbox>, StoreError> {
        if self.tell.is_empty() {
            return Ok(Vec::new());
        }
        let owners = match &self.subject {
            Subject::Project(group) => engine.store.owners(group).await?,
            _ => engine.responsible().await?,
        };
        // Nobody owns a project that is gone.
        let gone = owners.is_empty() && self.rows.iter().all(|row| row.ended_at.is_some());
        let mut messages = Vec::new();
        for (notice, identity) in &self.tell {
            let content = content(&engine.settings, notice.clone());
            let news = News { identity: identity.clone(), subject: self.subject.clone(), content };
            messages.extend(news.rows(engine, &owners, now));
        }
        messages.retain(|row| !(gone && row.recipient == announce::NO_OWNER));
        for mail in messages.iter_mut().filter(|row| row.channel == Channel::Mail) {
            mail.next_try_at = now + engine.settings.limits.gather.get();
        }
        Ok(messages)
    }
}

/// The ends of what holds for a project that is not among those that can be read.
async fn removed(engine: &Engine, known: &Known, group: &GroupId) -> Result<Option<Change>, StoreError> {
    let subject = Subject::from(group);
    if known.of(&subject).next().is_none() {
        return Ok(None);
    }
    match engine.store.project(group).await {
        Ok(None) => {}
        // It is compared when it can be read again, or was not among the suspects a moment ago.
        Ok(Some(_)) | Err(StoreError::Corrupt { .. }) => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut change = Change::none(subject.clone());
    for row in known.of(&subject) {
        change.end(row.clone(), None, Some(NO_LONGER_WATCHED), known.now);
    }
    Ok(Some(change))
}

/// Writes all changes in one transaction; when that is refused, those of each project by themselves, so that one
/// project keeps nothing from the others.
async fn write(engine: &Engine, changes: &[Change], now: Timestamp) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    let (mut rows, mut outbox) = (Vec::new(), Vec::new());
    for change in changes {
        rows.extend(change.rows.iter().cloned());
        outbox.extend(change.messages(engine, now).await?);
    }
    match engine.store.tell(rows, outbox, Vec::new(), now).await {
        Err(error) if is_of_a_row(&error) => {
            for change in changes {
                match write_alone(engine, change, now).await {
                    Err(error) if is_of_a_row(&error) => tracing::error!(
                        subject = %change.subject, error = %error,
                        "conditions not written; they are told at the next attempt"
                    ),
                    done => done?,
                }
            }
        }
        done => done?,
    }
    engine.mail_due.notify_one();
    Ok(())
}

/// Whether the fault is one of a row, and other rows can be written.
const fn is_of_a_row(error: &StoreError) -> bool {
    matches!(error, StoreError::Conflict | StoreError::Corrupt { .. } | StoreError::Unwritable { .. })
}

/// Writes the changes of one project. Another daemon may have been faster: then nothing is left to do. A row that
/// cannot be read and stands in the way is set aside.
async fn write_alone(engine: &Engine, change: &Change, now: Timestamp) -> Result<(), StoreError> {
    let store = &engine.store;
    let messages = change.messages(engine, now).await?;
    match store.tell(change.rows.clone(), messages, Vec::new(), now).await {
        Err(StoreError::Conflict) => {}
        done => return done,
    }
    let held = store.conditions_of(&change.subject, &change.subject).await?;
    for row in change.rows.iter().filter(|row| row.version == 0) {
        if held.iter().all(|it| it.kind != row.kind) {
            store.set_condition_aside(&row.subject, row.kind, row.since).await?;
        }
    }
    Ok(())
}

fn begun(known: &Known, subject: &Subject, it: &Condition, daily: &Daily) -> ConditionRow {
    ConditionRow {
        cause: it.cause.clone(),
        key: it.key.clone(),
        rotation_id: it.rotation,
        told: u32::from(it.told),
        told_at: it.told.then_some(it.tell_at),
        tell_at: if it.told {
            it.telling.repeat_at(1, it.tell_at, daily)
        } else {
            Some(it.tell_at).filter(|_| !it.covered)
        },
        damped: known.starts(subject, it.kind) + 1 >= DAMPED_AT,
        ..ConditionRow::in_memory(subject.clone(), it.kind, known.start(subject, it))
    }
}

/// A condition that holds on. Another key or cause is news at once.
fn held_on(old: &ConditionRow, it: &Condition, daily: &Daily, now: Timestamp) -> ConditionRow {
    let mut row = old.clone();
    row.calm_since = None;
    if row.told_at.is_some_and(|at| at > now) {
        // A clock that was ahead has told it: a moment ago, as far as anybody knows.
        row.told_at = Some(now);
        row.acknowledged_at = row.acknowledged_at.map(|at| at.min(now));
        row.tell_at = match row.acknowledged_at {
            Some(at) => row.tell_at.map(|_| at + LONGEST_ACKNOWLEDGED),
            None => it.telling.repeat_at(row.told, now, daily),
        };
    }
    let stopped_again =
        it.kind == ConditionKind::NeedsOperator && old.told_at.is_some_and(|at| at < it.since);
    let news = row.cause != it.cause || row.key != it.key || (stopped_again && old.since < it.since);
    let paged_anew = stopped_again && row.rotation_id != it.rotation;
    (row.cause, row.key, row.rotation_id) = (it.cause.clone(), it.key.clone(), it.rotation);
    if news || paged_anew {
        (row.acknowledged_at, row.acknowledged_by) = (None, None);
        if it.told {
            // The step or the look that found it has told it.
            row.told = row.told.saturating_add(1);
            row.told_at = Some(now);
            row.tell_at = it.telling.repeat_at(1, now, daily);
        } else if row.told > 0 {
            row.tell_at = Some(now);
        }
    }
    if it.covered {
        row.tell_at = None;
    } else if row.tell_at.is_none() && row.told == 0 && it.kind == ConditionKind::Unreachable {
        // The credential's condition is over: the projects are read one after the other.
        row.tell_at = Some(now + UNCOVERED);
    } else if row.tell_at.is_none() && (row.told == 0 || it.telling == Telling::Repeated) {
        // What said it as well is over. People who have heard of it a moment ago, or answer for it, are not told anew.
        let repeat = row.told_at.and_then(|at| it.telling.repeat_at(1, at, daily));
        let acknowledged = row.acknowledged_at.map(|at| at + LONGEST_ACKNOWLEDGED);
        row.tell_at = [Some(now), repeat, acknowledged].into_iter().flatten().max();
    } else if let (Telling::Repeated, None, Some(at)) = (it.telling, &row.acknowledged_at, row.told_at) {
        // One that was told once a day may page by now.
        let sooner = it.telling.repeat_at(row.told, at, daily);
        row.tell_at = [row.tell_at, sooner].into_iter().flatten().min();
    }
    row
}

/// A round of looks, with a margin.
const UNCOVERED: Duration = Duration::from_secs(100);

/// A day, with the longest hour by which clocks are changed.
const LONGEST_DAY: Duration = Duration::from_hours(26);

/// Whether `row` is to be told now. An instant further ahead than any that is written comes from a clock that was
/// wrong.
fn is_due(row: &ConditionRow, telling: Telling, told_after: Duration, now: Timestamp) -> bool {
    let longest = match telling {
        _ if row.acknowledged_at.is_some() => LONGEST_ACKNOWLEDGED,
        Telling::Daily => LONGEST_DAY,
        _ => LONGEST_REPEAT.max(told_after),
    };
    row.tell_at.is_some_and(|at| at <= now || at > now + longest)
}

/// The notice of a start or a repetition.
fn notice(known: &Known, project: Option<&Project>, row: &ConditionRow, it: &Condition) -> Option<Notice> {
    let kind = Kind::of_condition(row.kind, false)?;
    match (row.kind, project) {
        (ConditionKind::NeedsOperator, Some(project)) => {
            let open = known.open.get(&project.group_id)?;
            Some(Notice::NeedsOperator(announce::facts(open, &open.rotation)))
        }
        (ConditionKind::Invalid, Some(project)) => {
            Some(Notice::CurrentKeyInvalid(CurrentKeyInvalid::Project(InvalidKey {
                group_id: project.group_id.clone(),
                project_name: project.name.clone(),
                provider: project.provider,
                current_key: row.key.clone().map(Into::into),
                condition_id: Some(condition_id(&row.subject, row.kind)),
                since: Some(row.since),
            })))
        }
        // The look that found it has told it, with the findings.
        (ConditionKind::Drifted, _) => None,
        (ConditionKind::KeyEnding, Some(project)) => {
            let current = project.current_key.as_ref().map(ToString::to_string);
            let key = row.key.clone().unwrap_or_default();
            Some(Notice::KeyAlarm(KeyAlarm {
                group_id: project.group_id.clone(),
                project_name: project.name.clone(),
                provider: project.provider,
                event: row.cause.clone().unwrap_or_default(),
                subject: format!("key {key}"),
                by: None,
                words: None,
                hook: it.detail.clone().unwrap_or_default(),
                earlier: false,
                looked_up: it.looked_up,
                proposed: current.as_ref() != Some(&key),
                current_key: current.map(Into::into),
                condition_id: Some(condition_id(&row.subject, row.kind)),
            }))
        }
        _ => Some(plain(kind, project, row, None, row.cause.clone(), it.detail.clone())),
    }
}

/// The notice of a condition that has no facts of its own.
pub(super) fn plain(
    kind: Kind,
    project: Option<&Project>,
    row: &ConditionRow,
    over_at: Option<Timestamp>,
    cause: Option<String>,
    detail: Option<String>,
) -> Notice {
    let (condition, condition_id) = (row.kind, condition_id(&row.subject, row.kind));
    let repeat = if over_at.is_some() { 0 } else { row.told };
    match &row.subject {
        Subject::Project(group) => Notice::Condition(ConditionFacts {
            kind,
            group_id: group.clone(),
            project_name: row.name.clone(),
            provider: project.and_then(|project| project.provider),
            rotation_id: row.rotation_id,
            condition,
            condition_id,
            current_key: row.key.clone().map(Into::into),
            since: row.since,
            over_at,
            cause,
            repeat,
        }),
        subject => Notice::Installation(InstallationCondition {
            kind,
            subject: subject.to_string(),
            condition,
            condition_id,
            since: row.since,
            over_at,
            cause,
            detail,
            repeat,
        }),
    }
}
