//! The files of an SQLite database: the database itself, its write-ahead log and that log's index.
//!
//! They belong together wherever one is copied, moved or put in the place of another. SQLite cannot tell whether a
//! write-ahead log belongs to the file beside it: it reads the pages of a database that is gone into the one that was put
//! there. So a daemon leaves a mark in the file and writes it into the lock file; a file without that mark does not belong
//! to the log of that daemon.

use std::error::Error;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::iter::successors;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use uuid::Uuid;

use super::error::is_busy;
use super::{Store, StoreError, known_version};

/// What SQLite adds to the name of the database.
pub(super) const COMPANIONS: [&str; 2] = ["-wal", "-shm"];

/// The name of a file beside the database.
pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// What tells one database file from another that was put in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    /// The number that the last daemon wrote into the file (`user_version`).
    number: u32,
    /// Counts changes of the schema. SQLite counts up when it copies a database by `VACUUM INTO`.
    cookie: u32,
    inode: u64,
}

impl Mark {
    /// The mark of a file, without its write-ahead log; `None` when it is no database or cannot be read.
    fn of(path: &Path) -> Option<Self> {
        let mut header = [0u8; 100];
        let mut file = File::open(path).ok()?;
        file.read_exact(&mut header).ok()?;
        let number = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
        Some(Self { number: number(60)?, cookie: number(40)?, inode: file.metadata().ok()?.ino() })
    }

    /// The mark that the last daemon left in the lock file, and the version of the schema then.
    fn left(path: &Path) -> Option<(Self, i64)> {
        let text = std::fs::read_to_string(beside(path, ".lock")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("mark "))?;
        let mut words = line.split(' ');
        let (number, cookie) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let mark = Self { number, cookie, inode: words.next()?.parse().ok()? };
        Some((mark, words.next()?.parse().ok()?))
    }
}

/// The error of a database whose lock another process holds, for an error that comes of it.
#[must_use]
pub fn held(path: &Path, error: &(dyn Error + 'static)) -> Option<StoreError> {
    let mut causes = successors(Some(error), |error| (*error).source());
    let busy = causes.any(|it| it.downcast_ref().is_some_and(is_busy));
    busy.then(|| StoreError::Busy { path: path.to_owned(), by: holder(path, "WRITE") })
}

/// Another process with a lock of this kind on the database, as `sqlite3, pid 7`. Only Linux names it, and only within
/// the same container.
pub(super) fn holder(path: &Path, kind: &str) -> Option<String> {
    let id = |file: PathBuf| {
        let (device, inode) = std::fs::metadata(file).map(|it| (it.dev(), it.ino())).ok()?;
        let major = ((device >> 8) & 0xfff) | ((device >> 32) & !0xfff);
        let minor = (device & 0xff) | ((device >> 12) & !0xff);
        Some(format!("{major:02x}:{minor:02x}:{inode}"))
    };
    // In a write-ahead log's index, SQLite locks the log's writer.
    let files: Vec<String> = ["", "-shm"].into_iter().filter_map(|end| id(beside(path, end))).collect();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(3);
        let (found, pid, file) = (words.next()?, words.next()?.parse::<u32>().ok()?, words.next()?);
        let other = pid != 0 && pid != std::process::id();
        (found == kind && other && files.iter().any(|it| it == file)).then_some(pid)
    })?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(if name.trim().is_empty() { format!("pid {pid}") } else { format!("{}, pid {pid}", name.trim()) })
}

/// Refuses a write-ahead log that belongs to another database file, and a restore that was interrupted.
pub(super) async fn check(path: &Path) -> Result<(), StoreError> {
    let staged = beside(path, STAGED);
    if staged.exists() {
        return Err(StoreError::Unusable(format!(
            "database.url: a restore of {} was interrupted ({} is still there); run `keywheel restore FILE` again",
            path.display(),
            staged.display()
        )));
    }
    let log = beside(path, "-wal");
    let has_log = std::fs::metadata(&log).is_ok_and(|it| it.len() > 0);
    let (Some((left, version)), Some(present), true) = (Mark::left(path), Mark::of(path), has_log) else {
        return Ok(());
    };
    // What the daemon wrote since may wait in the log, and a migration counts the cookie up.
    let own = left.number == present.number && left.inode == present.inode;
    if own && (present.cookie <= left.cookie || migrated_to(path).await > Some(version)) {
        return Ok(());
    }
    Err(StoreError::Unusable(format!(
        "database.url: {} does not belong to {}, which was put there after the last daemon ended: opening both would undo the \
         restore or spoil the database. Run `keywheel restore FILE`; or, if the file in place is the one to use, move {} and {} away",
        log.display(),
        path.display(),
        log.display(),
        beside(path, "-shm").display()
    )))
}

/// The version of the schema in the file alone, without its write-ahead log; `None` when it cannot be read.
async fn migrated_to(path: &Path) -> Option<i64> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(true);
    let mut db = SqliteConnection::connect_with(&options).await.ok()?;
    let found = sqlx::query_as("SELECT MAX(version) FROM _sqlx_migrations").fetch_one(&mut db).await;
    let _ = db.close().await;
    let (version,): (Option<i64>,) = found.ok()?;
    version
}

/// The end of the name of a database that waits to be put in place.
pub(super) const STAGED: &str = ".restoring";

impl Store {
    /// Leaves a mark in the database file of this daemon, after the schema was brought up to date. Without it nothing is
    /// refused later.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn leave_mark(&self, path: &Path) -> Result<(), StoreError> {
        let Store::Sqlite { write, lock: Some(lock), .. } = self else { return Ok(()) };
        let [.., a, b, c, d] = Uuid::now_v7().into_bytes();
        let number = u32::from_be_bytes([a & 0x7f, b, c, d]);
        sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA user_version = {number}"))).execute(write).await?;
        let (busy, _, _): (i64, i64, i64) =
            sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(write).await?;
        // A reader beside the daemon may keep the mark in the log.
        if busy != 0 {
            return Ok(());
        }
        let (cookie,): (u32,) = sqlx::query_as("PRAGMA schema_version").fetch_one(write).await?;
        // The file is not opened here: closing it would drop the locks that this process has on it (POSIX), and the
        // next process that is done with the database would take itself for the last one and remove the log in use.
        let Ok(inode) = std::fs::metadata(path).map(|it| it.ino()) else { return Ok(()) };
        let mark = Mark { number, cookie, inode };
        let line = format!("mark {} {} {} {}", mark.number, mark.cookie, mark.inode, known_version());
        let written = writeln!(&**lock, "{line}").and_then(|()| lock.sync_all());
        written.map_err(|error| StoreError::Unusable(format!("the lock file cannot be written ({error})")))
    }
}

/// Moves the database and its companions to names that end in `end`; returns the new name of the database, or `None` when
/// there was none.
pub(super) fn set_aside(path: &Path, end: &str) -> std::io::Result<Option<PathBuf>> {
    let aside = beside(path, end);
    let mut any = false;
    // The log first: a database without it is older, and a log without its database is refused.
    for companion in COMPANIONS.into_iter().chain([""]) {
        match std::fs::rename(beside(path, companion), beside(&aside, companion)) {
            Ok(()) => any |= companion.is_empty(),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(any.then_some(aside))
}
