//! Whether what the database says may be acted on: the watch over its time and its history.
//!
//! A restored backup and a failover to a lagging replica look like any other database, and acting
//! on what they say would repeat or undo rotations. So a place of the audit chain is kept outside:
//! a small file, written after each commit that moved a rotation and before each PATCH. A database
//! in which that place is not what it was is in doubt, and so is one whose audit chain is broken:
//! rotations are neither claimed nor swept, and no PATCH leaves, until an operator has accepted it
//! with `keywheel doctor`. Nothing here writes to the database or decides about a rotation.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::Engine;
use crate::atlas::AtlasApi;
use crate::domain::ids::GroupId;
use crate::domain::rotation::machine::MAX_SKEW;
use crate::domain::rotation::outcome::Observation;
use crate::domain::time::{Clock, Timestamp};
use crate::store::{AuditMarks, ProjectFilter, Store, StoreError};

/// Audit rows that are verified at a start.
const TAIL: usize = 1000;

/// A place of the audit chain that was there once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochMark {
    /// The first row's hash: tells this database from any other.
    pub database: String,
    /// The row.
    pub seq: i64,
    /// Its hash.
    pub hash: String,
}

/// Why the database is not acted on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Doubt {
    /// `restored` or `audit_chain`.
    pub kind: &'static str,
    /// What was found.
    pub detail: String,
    /// What ends it.
    pub way_out: String,
    /// When it was found.
    pub since: Timestamp,
    /// Projects whose record is not what Atlas holds; `None` before they were compared.
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
    #[error("{} cannot be written ({source}); make data_dir writable", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The thread that writes ended early.
    #[error("the epoch file was not written: {0}")]
    Ended(#[source] tokio::task::JoinError),
}

/// A project whose record is not what Atlas holds.
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
    /// What Atlas says of it.
    pub valid: Option<bool>,
    /// Its open rotation in the database, with its state.
    pub rotation: Option<String>,
    /// Why Atlas could not be asked.
    pub error: Option<String>,
}

/// What is remembered outside the database.
#[derive(Debug, Default)]
pub struct EpochWatch {
    /// `None` where nothing is kept: a guard that never doubts.
    file: Option<PathBuf>,
    epoch: Arc<tokio::sync::Mutex<Epoch>>,
    /// Rounds of [`EpochWatch::record`] that have begun.
    rounds: AtomicU64,
    doubt: Mutex<Option<Doubt>>,
    skew: Mutex<Skew>,
}

/// The epoch file's content, and the last round that has written it or found it as it should be.
#[derive(Debug, Default)]
struct Epoch {
    mark: Option<EpochMark>,
    round: u64,
}

/// Our clock minus another, in milliseconds, as last seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Skew {
    /// Against the database's clock.
    pub database: Option<i64>,
    /// Against Atlas' clock.
    pub atlas: Option<i64>,
}

/// What an operator must know of the database and the clocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// Whether new keys are sent to Atlas.
    pub sending: bool,
    /// Why the database is not acted on, when it is not.
    pub doubt: Option<Doubt>,
    /// How far our clock is from others.
    pub clock_skew_ms: Skew,
}

fn too_far(skew_ms: Option<i64>) -> bool {
    skew_ms.is_some_and(|ms| u128::from(ms.unsigned_abs()) > MAX_SKEW.as_millis())
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the mark; `None` when none was ever kept.
///
/// # Errors
/// A file that cannot be read is not taken for none.
pub fn read_mark(file: &Path) -> Result<Option<EpochMark>, StoreError> {
    let unreadable = |why: String| {
        StoreError::Unusable(format!(
            "{} cannot be read ({why}), so nobody can tell whether the database is an old copy; if it is not, remove that file",
            file.display()
        ))
    };
    match std::fs::read_to_string(file) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| unreadable(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

/// Keeps the mark so that it outlives a power cut.
///
/// # Errors
/// When the folder cannot be written.
pub fn write_mark(file: &Path, mark: &EpochMark) -> std::io::Result<()> {
    let folder = file.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut fresh = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut fresh, mark)?;
    fresh.as_file_mut().flush()?;
    fresh.as_file().sync_all()?;
    fresh.persist(file).map_err(|error| error.error)?;
    std::fs::File::open(folder)?.sync_all()
}

/// Where the chain stands now.
///
/// # Errors
/// What the database answered.
pub async fn present_mark(store: &Store) -> Result<Option<EpochMark>, StoreError> {
    let head = store.audit_marks(0).await?;
    Ok((head.seq > 0).then_some(EpochMark { database: head.first, seq: head.seq, hash: head.hash }))
}

/// What a database that does not hold `mark` has instead, in words; `None` when it holds it.
///
/// # Errors
/// What the database answered.
pub async fn regression(store: &Store, mark: &EpochMark) -> Result<Option<String>, StoreError> {
    Ok(went_back(&store.audit_marks(mark.seq).await?, mark))
}

fn went_back(found: &AuditMarks, mark: &EpochMark) -> Option<String> {
    if found.there == mark.hash {
        return None;
    }
    Some(if found.seq < mark.seq {
        format!(
            "its audit log ends at row {}, and this daemon has seen row {}: it is an older copy of the database",
            found.seq, mark.seq
        )
    } else {
        format!(
            "its audit row {} is not the one this daemon has seen: it is an older copy that went another way since",
            mark.seq
        )
    })
}

impl EpochWatch {
    /// A guard that keeps its mark in `file`.
    ///
    /// # Errors
    /// As [`read_mark`].
    pub fn new(file: PathBuf) -> Result<Self, StoreError> {
        let epoch = Epoch { mark: read_mark(&file)?, round: 0 };
        Ok(Self { file: Some(file), epoch: Arc::new(tokio::sync::Mutex::new(epoch)), ..Self::default() })
    }

    /// The first look, when the daemon starts.
    ///
    /// # Errors
    /// What the database answered.
    pub async fn start(&self, store: &Store, now: Timestamp) -> Result<(), StoreError> {
        let mark = &mut self.epoch.lock().await.mark;
        if let Some(known) = mark.as_ref() {
            let first = store.audit_marks(0).await?.first;
            if first != known.database {
                tracing::warn!(
                    "this is another database than the one this daemon used before (it had {} audit rows)",
                    known.seq
                );
                *mark = None;
            }
        }
        let doubt = self.find(store, mark.as_ref(), now).await?;
        self.settle(doubt);
        Ok(())
    }

    /// Whether the database is in doubt. Asked before each claim: a pool reconnects unseen.
    ///
    /// # Errors
    /// What the database answered.
    pub async fn doubts(&self, store: &Store, now: Timestamp) -> Result<bool, StoreError> {
        let Some(file) = &self.file else { return Ok(false) };
        let mark = &mut self.epoch.lock().await.mark;
        let doubted = locked(&self.doubt).is_some();
        if doubted {
            // An operator's acceptance comes as a new mark.
            *mark = read_mark(file)?;
            let doubt = self.find(store, mark.as_ref(), now).await?;
            self.settle(doubt);
        } else if let Some(known) = mark.as_ref()
            && let Some(found) = regression(store, known).await?
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
        if let Some(mark) = mark
            && let Some(found) = regression(store, mark).await?
        {
            return Ok(Some(restored(&found, now)));
        }
        let broken = store.verify_audit_tail(TAIL).await?;
        Ok(broken.map(|broken| Doubt {
            kind: "audit_chain",
            detail: format!("audit row {} is broken: {}", broken.seq, broken.why),
            way_out: format!(
                "find out who changed it; then `keywheel doctor --accept-broken-chain {}` lets rotations go on",
                broken.seq
            ),
            since: now,
            differences: None,
        }))
    }

    fn settle(&self, found: Option<Doubt>) {
        let mut doubt = locked(&self.doubt);
        match (&*doubt, &found) {
            (None, None) => return,
            (Some(known), Some(new)) if known.kind == new.kind && known.detail == new.detail => return,
            (_, Some(new)) => tracing::error!("nothing is sent to Atlas: {}. {}", new.detail, new.way_out),
            (Some(_), None) => tracing::warn!("the database was accepted as it is; rotations go on"),
        }
        *doubt = found;
    }

    /// Writes the epoch file. Called before each PATCH: `Err` says why none may leave. One write serves
    /// everyone whose commit came before it.
    ///
    /// # Errors
    /// A database in doubt, or a file that cannot be written.
    pub async fn record(&self, store: &Store, now: Timestamp) -> Result<(), RecordError> {
        let Some(file) = &self.file else { return Ok(()) };
        let begun = self.rounds.load(Ordering::SeqCst);
        let mut epoch = Arc::clone(&self.epoch).lock_owned().await;
        if let Some(doubt) = &*locked(&self.doubt) {
            return Err(RecordError::InDoubt(doubt.detail.clone()));
        }
        // A round that began after this call has read the audit log after our commit.
        if epoch.round > begun {
            return Ok(());
        }
        let round = self.rounds.fetch_add(1, Ordering::SeqCst) + 1;
        let known = epoch.mark.as_ref().map_or(0, |mark| mark.seq);
        let head = store.audit_marks(known).await?;
        if let Some(found) = epoch.mark.as_ref().and_then(|mark| went_back(&head, mark)) {
            self.settle(Some(restored(&found, now)));
            return Err(RecordError::InDoubt(found));
        }
        let file = file.clone();
        // Its own thread has the lock until the file is written: were this call given up meanwhile, an
        // older mark could replace a newer one.
        let written = tokio::task::spawn_blocking(move || {
            if head.seq > known {
                let mark = EpochMark { database: head.first, seq: head.seq, hash: head.hash };
                write_mark(&file, &mark).map_err(|source| RecordError::File { file, source })?;
                epoch.mark = Some(mark);
            }
            epoch.round = round;
            Ok(())
        });
        written.await.unwrap_or_else(|error| Err(RecordError::Ended(error)))
    }

    /// Whether the database was in doubt when it was last asked.
    #[must_use]
    pub fn in_doubt(&self) -> bool {
        locked(&self.doubt).is_some()
    }

    /// Compares our clock with the database's.
    ///
    /// # Errors
    /// What the database answered.
    pub async fn compare_clocks(&self, store: &Store, clock: &dyn Clock) -> Result<(), StoreError> {
        let asked = clock.now();
        let Some(theirs) = store.server_time().await? else { return Ok(()) };
        let ours = asked + clock.now().since(asked) / 2;
        let skew = (ours.as_micros() - theirs.as_micros()) / 1000;
        let before = locked(&self.skew).database.replace(skew);
        if too_far(Some(skew)) {
            tracing::error!(
                skew_ms = skew,
                "this machine's clock and the database's differ by more than two minutes; no PATCH is sent until they agree: check NTP on both"
            );
        } else if too_far(before) {
            tracing::info!("this machine's clock and the database's agree again");
        }
        Ok(())
    }

    /// An observation with the worse of both clocks' skews, so that either holds new PATCHes.
    #[must_use]
    pub fn with_skew(&self, mut seen: Observation) -> Observation {
        let mut skew = locked(&self.skew);
        if too_far(seen.skew_ms) && !too_far(skew.atlas) {
            tracing::error!(
                skew_ms = seen.skew_ms,
                "this machine's clock and Atlas' differ by more than two minutes; no PATCH is sent until they agree: check NTP"
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

    /// Whether our clock is too far from Atlas' or the database's to be believed.
    #[must_use]
    pub fn clocks_differ(&self) -> bool {
        let skew = *locked(&self.skew);
        too_far(skew.database) || too_far(skew.atlas)
    }

    /// What an operator must know, as the API shows it.
    #[must_use]
    pub fn shown(&self) -> Shown {
        let doubt = locked(&self.doubt).clone();
        Shown { sending: doubt.is_none() && !self.clocks_differ(), doubt, clock_skew_ms: *locked(&self.skew) }
    }
}

fn restored(found: &str, now: Timestamp) -> Doubt {
    Doubt {
        kind: "restored",
        detail: format!("the database went back in time: {found}"),
        way_out: "look at the differences in `keywheel status`; then `keywheel doctor --accept-restore` on this machine lets rotations go on from what this database says".to_owned(),
        since: now,
        differences: None,
    }
}

impl Engine {
    /// Compares every record with Atlas, for the list an operator decides by.
    ///
    /// # Errors
    /// What the database answered.
    pub(super) async fn list_differences(&self) -> Result<(), StoreError> {
        let mut differences = Vec::new();
        let mut after: Option<GroupId> = None;
        loop {
            let batch = self.store.projects(&ProjectFilter::default(), after.as_ref(), 100).await?;
            let Some(last) = batch.last() else { break };
            after = Some(last.group_id.clone());
            for project in batch {
                let timeout = self.settings.request_timeout.get();
                let looked = self.atlas.observe(&project.credential, &project.group_id, timeout).await;
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
                            continue;
                        }
                        (it.atlas, it.valid) = (seen.key.as_ref().map(ToString::to_string), seen.valid);
                    }
                    Err(failure) => it.error = Some(failure.detail),
                }
                differences.push(it);
            }
        }
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
