//! The reserve of an SQLite database: a file beside it that is given up when the disk is full, so that roll-backs
//! and pages still fit.
//!
//! While it is given up, only what a rotation under way, its pages and the watch need is written; hooks and commands
//! are refused. It is made again when there is room for twice its size.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Store, StoreError};

/// Its size in bytes.
const SIZE: u64 = 16 * 1024 * 1024;

/// What is written while the reserve is given up, by the beginning of the transaction's name.
const URGENT: [&str; 15] = [
    "condition.",
    "daemon.",
    "mail.",
    "outbox.",
    "project.checked",
    "project.look_soon",
    "project.observe",
    "project.quiet_looks",
    "readings.",
    "ready.",
    "retention.",
    "rotation.",
    "token.request",
    "webhook.",
    "witness.",
];

/// A new rotation is not urgent.
const NOT_URGENT: &str = "rotation.propose";

/// The reserve.
#[derive(Debug)]
pub struct Reserve {
    /// `None` for a command beside the daemon.
    file: Option<PathBuf>,
    is_given_up: AtomicBool,
}

impl Reserve {
    /// The reserve of the database `file`, of its daemon.
    pub(super) fn of_daemon(file: &Path) -> Self {
        let file = file.with_file_name("reserve");
        Self { file: Some(file), is_given_up: AtomicBool::new(false) }
    }

    pub(super) const fn none() -> Self {
        Self { file: None, is_given_up: AtomicBool::new(false) }
    }

    /// Whether a transaction with this name may be written now.
    pub(super) fn admits(&self, name: &str) -> bool {
        let urgent = name != NOT_URGENT && URGENT.iter().any(|it| name.starts_with(it));
        urgent || !self.is_given_up.load(Ordering::SeqCst)
    }

    /// The disk is full: gives the reserve up. True when there is more room now.
    pub(super) fn give_up(&self) -> bool {
        let Some(file) = &self.file else { return false };
        self.is_given_up.store(true, Ordering::SeqCst);
        match std::fs::remove_file(file) {
            Ok(()) => {
                tracing::error!(
                    reserve = %file.display(),
                    "the disk that holds the database is full; the reserve is given up, and until there is room only \
                     rotations under way, conditions and messages are written"
                );
                true
            }
            Err(_) => false,
        }
    }

    /// Makes the reserve when it is missing and there is room for twice its size.
    fn make(&self) -> std::io::Result<()> {
        let Some(file) = self.file.as_ref().filter(|file| !file.exists()) else { return Ok(()) };
        let fresh = file.with_extension("new");
        let made = fill(&fresh, 2 * SIZE).and_then(|whole| {
            whole.set_len(SIZE)?;
            whole.sync_all()?;
            std::fs::rename(&fresh, file)
        });
        if made.is_err() {
            // Nothing of it may keep the room that is left.
            let _ = std::fs::remove_file(&fresh);
        }
        made
    }
}

/// Writes `size` bytes that a file system cannot leave out.
fn fill(file: &Path, size: u64) -> std::io::Result<File> {
    let mut whole = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    let block = vec![0x6b; 64 * 1024];
    for _ in 0..size / block.len() as u64 {
        whole.write_all(&block)?;
    }
    whole.sync_all()?;
    Ok(whole)
}

impl Store {
    /// Whether the reserve is given up because the disk is full.
    #[must_use]
    pub fn is_short_of_room(&self) -> bool {
        match self {
            Store::Sqlite { reserve, .. } => reserve.is_given_up.load(Ordering::SeqCst),
            Store::Postgres { .. } => false,
        }
    }

    /// Makes the reserve again, when it was given up and there is room. Writes to the disk: call it where blocking
    /// is allowed.
    ///
    /// # Errors
    /// Fails when there is no room.
    pub fn make_reserve(&self) -> std::io::Result<()> {
        let Store::Sqlite { reserve, .. } = self else { return Ok(()) };
        let is_given_up = reserve.is_given_up.load(Ordering::SeqCst);
        reserve.make()?;
        if reserve.is_given_up.swap(false, Ordering::SeqCst) && is_given_up {
            tracing::info!("the reserve beside the database is there");
        }
        Ok(())
    }

    /// The disk is full. True when there is more room now.
    pub(super) fn give_up_reserve(&self) -> bool {
        matches!(self, Store::Sqlite { reserve, .. } if reserve.give_up())
    }

    /// Refuses what is not urgent while the reserve is given up.
    pub(super) fn admit(&self, name: &str) -> Result<(), StoreError> {
        match self {
            Store::Sqlite { reserve, .. } if !reserve.admits(name) => Err(StoreError::Full),
            _ => Ok(()),
        }
    }
}
