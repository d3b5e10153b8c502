//! Whether the database may be acted on: the watch over its clock and its history.
//!
//! A restored backup and a failover to a lagging replica look like any other database. Acting on their
//! records would repeat or undo rotations. So the last row of the audit chain is recorded outside of the
//! database: in the epoch file, written after each commit that appended and before anybody is
//! answered or Atlas is asked. A database without that row, or with another row in its place, is in doubt. Then
//! rotations are not claimed, projects are not swept, and no PATCH leaves, until an operator accepts the database with `keywheel doctor`. Nothing here writes to the database or decides
//! about a rotation.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::{Engine, conditions};
use crate::atlas::AtlasApi;
use crate::domain::ids::GroupId;
use crate::domain::project::Project;
use crate::domain::rotation::machine::MAX_SKEW;
use crate::domain::rotation::outcome::Observation;
use crate::domain::time::{Clock, Timestamp};
use crate::store::{AuditMarks, ProjectFilter, Store, StoreError};

/// Projects that are observed at the same time while the database is in doubt.
const AT_ONCE: usize = 64;

/// An audit row that this database once had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochMark {
    /// The first row's hash: identifies the database.
    pub database: String,
    /// The row.
    pub seq: i64,
    /// Its hash.
    pub hash: String,
    /// The fingerprint of the installation key; missing in files of earlier versions, which sealed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Something was written to a database in doubt. It would be lost if the one with this row came back, so the doubt ends
    /// by acceptance alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub diverged: bool,
}

/// Why the database is not acted on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Doubt {
    /// `restored`, `unknown_history`, `unsealed` or `audit_chain`.
    pub kind: &'static str,
    /// The finding.
    pub detail: String,
    /// The action that ends the doubt.
    pub way_out: String,
    /// When it was found.
    pub since: Timestamp,
    /// Projects whose recorded key is not the key in Atlas; `None` before they were compared.
    pub differences: Option<Vec<Difference>>,
}

/// Why the epoch file was not written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The database is in doubt.
    #[error("{0}")]
    InDoubt(String),
    /// The database did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file cannot be written.
    #[error("cannot write the epoch file {}: {source}; make data_dir writable", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The writing thread ended early.
    #[error("the epoch file was not written: {0}")]
    Ended(#[source] tokio::task::JoinError),
}

/// A project whose recorded key is not the key in Atlas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The project.
    pub group_id: GroupId,
    /// Its name.
    pub name: String,
    /// The key in the database.
    pub recorded: Option<String>,
    /// The key in Atlas.
    pub atlas: Option<String>,
    /// Atlas' `valid` of that key.
    pub valid: Option<bool>,
    /// Its open rotation in the database, with its state.
    pub rotation: Option<String>,
    /// Why the project could not be observed.
    pub error: Option<String>,
}

/// The watch: the epoch file, the doubt, and the clock skews.
#[derive(Debug, Default)]
pub struct EpochWatch {
    /// `None` without an epoch file: such a watch never doubts.
    file: Option<PathBuf>,
    /// The content of the file.
    mark: Arc<Mutex<Option<EpochMark>>>,
    /// The right to write the file, and the last round that wrote it or found it up to date.
    written: Arc<tokio::sync::Mutex<u64>>,
    /// Rounds of [`EpochWatch::record`] that have begun.
    rounds: AtomicU64,
    /// The file was not written after the last commit.
    is_behind: Arc<AtomicBool>,
    doubt: Mutex<Option<Doubt>>,
    /// Why no new key is sent although everything else goes on.
    freeze: Mutex<Option<Doubt>>,
    skew: Mutex<Skew>,
}

/// Clock skew: our clock minus another, in milliseconds, as last measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Skew {
    /// Against the database's clock.
    pub database: Option<i64>,
    /// Against Atlas' clock.
    pub atlas: Option<i64>,
}

/// The state of the database and the clocks, for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// Whether new keys are sent to Atlas.
    pub sending: bool,
    /// Why the database is not acted on, when it is not.
    pub doubt: Option<Doubt>,
    /// The clock skew.
    pub clock_skew_ms: Skew,
}

fn too_far(skew_ms: Option<i64>) -> bool {
    skew_ms.is_some_and(|ms| u128::from(ms.unsigned_abs()) > MAX_SKEW.as_millis())
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the mark; `None` without a file.
///
/// # Errors
/// Fails when the file exists and cannot be read: it must not pass for a missing one.
pub fn read_mark(file: &Path) -> Result<Option<EpochMark>, StoreError> {
    let unreadable = |why: String| {
        StoreError::Unusable(format!(
            "cannot read the epoch file {}: {why}; without it an old copy of the database cannot be detected. If the database is no old copy, remove the file",
            file.display()
        ))
    };
    match std::fs::read_to_string(file) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| unreadable(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

/// Writes the mark so that it survives a power cut.
///
/// # Errors
/// Fails when the folder cannot be written.
pub fn write_mark(file: &Path, mark: &EpochMark) -> std::io::Result<()> {
    let folder = file.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut fresh = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut fresh, mark)?;
    fresh.as_file_mut().flush()?;
    fresh.as_file().sync_all()?;
    fresh.persist(file).map_err(|error| error.error)?;
    std::fs::File::open(folder)?.sync_all()
}

/// The mark of the last audit row; `None` without rows.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn present_mark(store: &Store) -> Result<Option<EpochMark>, StoreError> {
    let head = store.audit_marks(0).await?;
    Ok((head.seq > 0).then(|| mark(store, head)))
}

fn mark(store: &Store, head: AuditMarks) -> EpochMark {
    let fingerprint = store.seals().fingerprint();
    EpochMark { database: head.first, seq: head.seq, hash: head.hash, fingerprint, diverged: false }
}

/// How the database differs from `mark`, as a sentence; `None` when it has the row.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn regression(store: &Store, mark: &EpochMark) -> Result<Option<String>, StoreError> {
    Ok(went_back(&store.audit_marks(mark.seq).await?, mark))
}

fn went_back(found: &AuditMarks, mark: &EpochMark) -> Option<String> {
    if found.there == mark.hash {
        let lost = "this daemon has written to an older or shortened copy of it, and what it wrote there is not here";
        return mark.diverged.then(|| lost.to_owned());
    }
    Some(if found.seq < mark.seq {
        format!(
            "its audit log ends at row {}, and this daemon has seen row {}: it is an older copy of the database",
            found.seq, mark.seq
        )
    } else {
        format!(
            "its audit row {} is not the one this daemon has seen: it is an older copy that has diverged since",
            mark.seq
        )
    })
}

impl EpochWatch {
    /// A watch with the epoch file `file`.
    ///
    /// # Errors
    /// As [`read_mark`].
    pub fn new(file: PathBuf) -> Result<Self, StoreError> {
        let mark = Arc::new(Mutex::new(read_mark(&file)?));
        Ok(Self { file: Some(file), mark, ..Self::default() })
    }

    /// The first check, when the daemon starts.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn start(&self, store: &Store, now: Timestamp) -> Result<(), StoreError> {
        let _right = self.written.lock().await;
        let mut mark = locked(&self.mark).clone();
        if store.seals().is_stripped() {
            self.settle(Some(stripped(now)));
            return Ok(());
        }
        if mark.is_none() && store.seals().fingerprint().is_some() && !store.seals().is_new() {
            self.settle(Some(unknown(now)));
            return Ok(());
        }
        if let Some(known) = mark.as_ref() {
            let first = store.audit_marks(0).await?.first;
            // A sealed database is the only one of its installation: another one is no older copy of it, and no fresh
            // start either.
            if first != known.database && known.fingerprint.is_none() {
                tracing::warn!(
                    "this is another database than the one this daemon used before (it had {} audit rows)",
                    known.seq
                );
                mark = None;
                *locked(&self.mark) = None;
            }
        }
        let doubt = self.find(store, mark.as_ref(), now).await?;
        self.settle(doubt);
        Ok(())
    }

    /// Whether the database is in doubt. Checked before each claim: after a failover the pool reconnects
    /// without notice.
    ///
    /// # Errors
    /// Fails when the database or the epoch file cannot be read.
    pub async fn doubts(&self, store: &Store, now: Timestamp) -> Result<bool, StoreError> {
        if store.seals().fault().is_some() {
            // An operator may have accepted it meanwhile.
            store.follow_seals().await?;
        }
        self.look_for_freeze(store, now);
        let Some(file) = &self.file else { return Ok(false) };
        let doubted = locked(&self.doubt).is_some();
        if doubted {
            let _right = self.written.lock().await;
            // `keywheel doctor` accepts a database by a new mark in the file.
            let mark = read_mark(file)?;
            if store.seals().is_stripped() && !store.is_stripped_no_more().await? {
                return Ok(true);
            }
            if mark.is_none() && locked(&self.doubt).as_ref().is_some_and(|it| it.kind == UNKNOWN) {
                return Ok(true);
            }
            locked(&self.mark).clone_from(&mark);
            let doubt = self.find(store, mark.as_ref(), now).await?;
            if doubt.is_none() {
                // The log that is accepted may be another one than was read so far.
                store.seals().begin_anew();
                store.follow_seals().await?;
            }
            self.settle(doubt);
            return Ok(locked(&self.doubt).is_some());
        }
        // A claim does not wait for a file that is being written: the database must hold the older mark too.
        let known = locked(&self.mark).clone();
        if let Some(known) = known
            && let Some(found) = regression(store, &known).await?
        {
            self.settle(Some(restored(&found, now)));
        }
        Ok(locked(&self.doubt).is_some())
    }

    async fn find(
        &self,
        store: &Store,
        mark: Option<&EpochMark>,
        now: Timestamp,
    ) -> Result<Option<Doubt>, StoreError> {
        let Some(mark) = mark else { return Ok(None) };
        Ok(regression(store, mark).await?.map(|found| restored(&found, now)))
    }

    /// Why no new key is sent although the database is acted on: a row of the audit log does not fit.
    fn look_for_freeze(&self, store: &Store, now: Timestamp) {
        let found = store.seals().fault().map(|broken| Doubt {
            kind: "audit_chain",
            detail: format!("audit row {} is broken: {}", broken.seq, broken.why),
            way_out: format!(
                "find out who changed it; then `keywheel doctor --accept-broken-chain {}` lets new keys be sent again",
                broken.seq
            ),
            since: now,
            differences: None,
        });
        let mut freeze = locked(&self.freeze);
        match (&*freeze, &found) {
            (None, None) => return,
            (Some(known), Some(new)) if known.detail == new.detail => return,
            (_, Some(new)) => tracing::error!("no new key is sent to Atlas: {}. {}", new.detail, new.way_out),
            (Some(_), None) => tracing::warn!("the audit log was accepted; new keys are sent again"),
        }
        *freeze = found;
    }

    fn settle(&self, found: Option<Doubt>) {
        let mut doubt = locked(&self.doubt);
        match (&*doubt, &found) {
            (None, None) => return,
            (Some(known), Some(new)) if known.kind == new.kind && known.detail == new.detail => return,
            (_, Some(new)) => tracing::error!("nothing is sent to Atlas: {}. {}", new.detail, new.way_out),
            (Some(_), None) => tracing::warn!("the database was accepted; rotations are resumed"),
        }
        *doubt = found;
    }

    /// Writes the epoch file after a commit. An error is logged, and kept for the next PATCH.
    pub(super) async fn follow(&self, store: &Store, now: Timestamp) {
        match self.record(store, now).await {
            Ok(()) | Err(RecordError::InDoubt(_)) => {}
            Err(why) => tracing::warn!("epoch file not updated: {why}"),
        }
    }

    /// The same after a commit that appended. In doubt it keeps in mind that the database is another one from here on: what
    /// a person was answered must not be lost unseen when the older one comes back.
    pub(super) async fn appended(&self, store: &Store, now: Timestamp) {
        self.follow(store, now).await;
        let Some(file) = self.file.clone().filter(|_| self.in_doubt()) else { return };
        let written = Arc::clone(&self.written).lock_owned().await;
        let Some(mark) = locked(&self.mark).clone().filter(|mark| !mark.diverged) else { return };
        let (known_mark, mark) = (Arc::clone(&self.mark), EpochMark { diverged: true, ..mark });
        let done = tokio::task::spawn_blocking(move || {
            let _right = written;
            write_mark(&file, &mark)?;
            *locked(&known_mark) = Some(mark);
            Ok::<(), std::io::Error>(())
        });
        if !matches!(done.await, Ok(Ok(()))) {
            tracing::error!(
                "the epoch file cannot be written: that something was written in doubt is not kept"
            );
        }
    }

    /// Makes sure, before a PATCH, that the epoch file has the row of its intent. After an error no PATCH of a new key may
    /// leave, and while the database is in doubt none at all.
    ///
    /// # Errors
    /// As [`EpochWatch::record`].
    pub async fn hold(&self, store: &Store, now: Timestamp) -> Result<(), RecordError> {
        if self.is_behind.load(Ordering::SeqCst) {
            return self.record(store, now).await;
        }
        match &*locked(&self.doubt) {
            Some(doubt) => Err(RecordError::InDoubt(doubt.detail.clone())),
            None => Ok(()),
        }
    }

    /// Writes the epoch file. One write serves all callers whose commit came before it.
    ///
    /// # Errors
    /// Fails for a database in doubt, and when the database cannot be read or the file cannot be written.
    pub async fn record(&self, store: &Store, now: Timestamp) -> Result<(), RecordError> {
        let Some(file) = &self.file else { return Ok(()) };
        let begun = self.rounds.load(Ordering::SeqCst);
        let mut written = Arc::clone(&self.written).lock_owned().await;
        if let Some(doubt) = &*locked(&self.doubt) {
            return Err(RecordError::InDoubt(doubt.detail.clone()));
        }
        // A round that began after this call read the audit log after the caller's commit.
        if *written > begun {
            return Ok(());
        }
        let round = self.rounds.fetch_add(1, Ordering::SeqCst) + 1;
        let mark = locked(&self.mark).clone();
        let known = mark.as_ref().map_or(0, |mark| mark.seq);
        let head =
            store.audit_marks(known).await.inspect_err(|_| self.is_behind.store(true, Ordering::SeqCst))?;
        if let Some(found) = mark.as_ref().and_then(|mark| went_back(&head, mark)) {
            self.settle(Some(restored(&found, now)));
            return Err(RecordError::InDoubt(found));
        }
        let (file, known_mark, is_behind) =
            (file.clone(), Arc::clone(&self.mark), Arc::clone(&self.is_behind));
        let fresh = (head.seq > known).then(|| self::mark(store, head));
        // The blocking thread holds the lock until the file is written. Otherwise, when this call is
        // cancelled meanwhile, an older mark could replace a newer one.
        let written = tokio::task::spawn_blocking(move || {
            if let Some(mark) = fresh {
                let done = write_mark(&file, &mark);
                is_behind.store(done.is_err(), Ordering::SeqCst);
                done.map_err(|source| RecordError::File { file, source })?;
                *locked(&known_mark) = Some(mark);
            }
            is_behind.store(false, Ordering::SeqCst);
            *written = round;
            Ok(())
        });
        written.await.unwrap_or_else(|error| Err(RecordError::Ended(error)))?;
        // A claim may have found the database in doubt while the file was being written.
        match &*locked(&self.doubt) {
            Some(doubt) => Err(RecordError::InDoubt(doubt.detail.clone())),
            None => Ok(()),
        }
    }

    /// The messages that may be sent: all, or in doubt those that were written since. What a restored copy of the
    /// database still holds may have been sent long ago.
    #[must_use]
    pub fn sendable_from(&self) -> Timestamp {
        locked(&self.doubt).as_ref().map_or(Timestamp::from_micros(0), |doubt| doubt.since)
    }

    /// Whether the database was in doubt at the last check.
    #[must_use]
    pub fn in_doubt(&self) -> bool {
        locked(&self.doubt).is_some()
    }

    /// Measures the skew between our clock and the database's.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn compare_clocks(&self, store: &Store, clock: &dyn Clock) -> Result<(), StoreError> {
        let asked = clock.now();
        let Some(theirs) = store.server_time().await? else { return Ok(()) };
        let ours = asked + clock.now().since(asked) / 2;
        let skew = (ours.as_micros() - theirs.as_micros()) / 1000;
        let before = locked(&self.skew).database.replace(skew);
        if too_far(Some(skew)) {
            tracing::error!(
                skew_ms = skew,
                "this machine's clock and the database's differ by more than two minutes; no new key is sent until they agree: check NTP on both"
            );
        } else if too_far(before) {
            tracing::info!("this machine's clock and the database's agree again");
        }
        Ok(())
    }

    /// The observation with the database's skew in place of Atlas' where that is too large, so that either
    /// skew holds PATCHes of a new key.
    #[must_use]
    pub fn with_skew(&self, mut seen: Observation) -> Observation {
        let mut skew = locked(&self.skew);
        if too_far(seen.skew_ms) && !too_far(skew.atlas) {
            tracing::error!(
                skew_ms = seen.skew_ms,
                "this machine's clock and Atlas' differ by more than two minutes; no new key is sent until they agree: check NTP"
            );
        }
        if seen.skew_ms.is_some() {
            skew.atlas = seen.skew_ms;
        }
        if too_far(skew.database) {
            seen.skew_ms = skew.database;
        }
        seen
    }

    /// Whether the skew to Atlas' or the database's clock is too large.
    #[must_use]
    pub fn clocks_differ(&self) -> bool {
        let skew = *locked(&self.skew);
        too_far(skew.database) || too_far(skew.atlas)
    }

    /// The state for operators, as the API shows it.
    #[must_use]
    pub fn shown(&self) -> Shown {
        let doubt = locked(&self.doubt).clone().or_else(|| locked(&self.freeze).clone());
        Shown { sending: doubt.is_none() && !self.clocks_differ(), doubt, clock_skew_ms: *locked(&self.skew) }
    }
}

/// The doubt of a data folder without an epoch file, beside a database that had one.
const UNKNOWN: &str = "unknown_history";

fn unknown(now: Timestamp) -> Doubt {
    Doubt {
        kind: UNKNOWN,
        detail: "data_dir has no epoch file, and this database was used before: whether it is an older copy cannot be seen".to_owned(),
        way_out: "keep data_dir on a volume that outlives the daemon; check the differences in `keywheel status`; then `keywheel doctor --accept-restore` on this machine resumes rotations from the records of this database".to_owned(),
        since: now,
        differences: None,
    }
}

fn stripped(now: Timestamp) -> Doubt {
    Doubt {
        kind: "unsealed",
        detail: "the database has no seals, and either this installation has sealed its rows before or data_dir has no epoch file that says otherwise".to_owned(),
        way_out: "if it is the first start of this version with a new data_dir, or the database is the right one, check the differences in `keywheel status`; then `keywheel doctor --accept-restore` on this machine seals it as it is".to_owned(),
        since: now,
        differences: None,
    }
}

fn restored(found: &str, now: Timestamp) -> Doubt {
    Doubt {
        kind: "restored",
        detail: format!("the database went back in time: {found}"),
        way_out: "check the differences in `keywheel status`; then `keywheel doctor --accept-restore` on this machine resumes rotations from the records of this database".to_owned(),
        since: now,
        differences: None,
    }
}

impl Engine {
    /// Observes one project; returns how it differs from its record.
    async fn difference(&self, project: &Project) -> Option<Difference> {
        let timeout = self.settings.request_timeout.get();
        let looked = self.atlas.observe(&project.credential, &project.group_id, timeout).await;
        // In doubt, too, people hear of a key that Atlas cannot use or that cannot be read.
        conditions::note_look(self, &project.group_id, looked.as_ref()).await;
        let recorded = project.current_key.as_ref();
        let mut it = Difference {
            group_id: project.group_id.clone(),
            name: project.name.clone(),
            recorded: recorded.map(ToString::to_string),
            atlas: None,
            valid: None,
            rotation: project.open_rotation.map(|open| format!("{} is {}", open.id, open.state)),
            error: None,
        };
        match looked {
            Ok(seen) => {
                let same = match (recorded, &seen.key) {
                    (Some(one), Some(two)) => one.is_same(two, &seen.place),
                    (one, two) => one.is_none() && two.is_none(),
                };
                if same {
                    return None;
                }
                (it.atlas, it.valid) = (seen.key.as_ref().map(ToString::to_string), seen.valid);
            }
            Err(failure) => it.error = Some(failure.detail),
        }
        Some(it)
    }

    /// Observes every project; returns those whose record differs from what Atlas holds, and those that cannot be read.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn differences(&self) -> Result<Vec<Difference>, StoreError> {
        let mut projects: Vec<Project> = Vec::new();
        loop {
            let after = projects.last().map(|last| last.group_id.clone());
            let batch = self.store.projects(&ProjectFilter::default(), after.as_ref(), 500).await?;
            if batch.is_empty() {
                break;
            }
            projects.extend(batch);
        }
        let mut looks: Vec<BoxFuture<'_, Option<Difference>>> = Vec::with_capacity(projects.len());
        for project in &projects {
            looks.push(Box::pin(self.difference(project)));
        }
        // Many at once: a project that hangs must not keep the others unread.
        let looked = futures_util::stream::iter(looks).buffer_unordered(AT_ONCE);
        let mut differences: Vec<_> = looked.filter_map(|it| async { it }).collect().await;
        differences.sort_by(|one, two| one.group_id.cmp(&two.group_id));
        Ok(differences)
    }

    /// Lists the differences, so that an operator can decide.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub(super) async fn list_differences(&self) -> Result<(), StoreError> {
        let differences = self.differences().await?;
        let mut doubt = locked(&self.epoch.doubt);
        let Some(doubt) = doubt.as_mut() else { return Ok(()) };
        if doubt.differences.as_ref() != Some(&differences) {
            for it in &differences {
                tracing::error!(
                    project.id = %it.group_id,
                    project.name = it.name,
                    recorded = it.recorded,
                    atlas = it.atlas,
                    valid = it.valid,
                    rotation = it.rotation,
                    error = it.error,
                    "the database and Atlas differ"
                );
            }
            doubt.differences = Some(differences);
        }
        Ok(())
    }
}
