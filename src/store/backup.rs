//! A copy of an SQLite database, and putting one back. PostgreSQL has tools of its own.
//!
//! A backup is one file that needs no companion. A restore checks the file before anything is touched, moves the database
//! that is there aside together with its write-ahead log, and can be run again after an interruption. That the copy is older
//! than what was sent meanwhile is found by the daemon, at its next start.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection};

use super::files::{COMPANIONS, STAGED, beside, check, held, holder, set_aside};
use super::open::lock;
use super::{StoreError, known_version};
use crate::domain::time::Timestamp;

/// What a copy holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Projects.
    pub projects: i64,
    /// Rotations, open and ended.
    pub rotations: i64,
    /// The number of the last audit row.
    pub audit_row: i64,
}

/// A database that was put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What it holds.
    pub contents: Contents,
    /// Where the database before is now.
    pub aside: Option<PathBuf>,
}

/// The file of `url`, as the configuration gives it: with `data_dir` before a relative one.
///
/// # Errors
/// Fails for PostgreSQL, with the tools to use.
pub fn sqlite_path(url: &str) -> Result<PathBuf, StoreError> {
    url.strip_prefix("sqlite:").map(PathBuf::from).ok_or_else(|| {
        unusable(
            "database.url is PostgreSQL: use pg_dump --format=custom and pg_restore --clean, with the daemons stopped for the restore"
                .to_owned(),
        )
    })
}

const fn unusable(text: String) -> StoreError {
    StoreError::Unusable(text)
}

/// Copies the database at `path` to the new file `to`, beside a running daemon too.
///
/// # Errors
/// Fails when `to` exists, when it cannot be written, and when the copy is not sound. No file is left then.
pub async fn back_up(path: &Path, to: &Path) -> Result<Contents, StoreError> {
    if !path.exists() {
        return Err(unusable(format!(
            "there is no database {}; run this where the daemon runs",
            path.display()
        )));
    }
    check(path).await?;
    if to.exists() {
        return Err(unusable(format!(
            "{} exists already, and is left as it is; name a new file",
            to.display()
        )));
    }
    let partial = beside(to, ".partial");
    let _ = std::fs::remove_file(&partial);
    let done = copy(path, &partial).await;
    let placed = match done {
        // Unlike a rename, this replaces no file that somebody made meanwhile.
        Ok(contents) => {
            std::fs::hard_link(&partial, to).map(|()| contents).map_err(|error| in_file(to, &error))
        }
        Err(error) => Err(error),
    };
    for end in COMPANIONS.into_iter().chain([""]) {
        let _ = std::fs::remove_file(beside(&partial, end));
    }
    let contents = placed?;
    sync_folder(to)?;
    Ok(contents)
}

async fn copy(path: &Path, partial: &Path) -> Result<Contents, StoreError> {
    // Made before SQLite fills it, so that nobody else can ever read it.
    private(partial).map_err(|error| in_file(partial, &error))?;
    let target = partial.to_str().ok_or_else(|| unusable(format!("{} is not UTF-8", partial.display())))?;
    let mut source = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await?;
    let copied = sqlx::query("VACUUM INTO ?").bind(target).execute(&mut source).await;
    source.close().await?;
    copied.map_err(|error| {
        held(path, &error)
            .unwrap_or_else(|| unusable(format!("{} cannot be written ({error})", partial.display())))
    })?;
    let contents = inspect(partial).await?;
    std::fs::File::open(partial).and_then(|it| it.sync_all()).map_err(|error| in_file(partial, &error))?;
    Ok(contents)
}

/// Puts the copy `from` in the place of the database at `path`; no daemon may run.
///
/// # Errors
/// Fails, and changes nothing, when a daemon runs, when `from` is not a sound database of this program, and when it is of a
/// newer version. When the files cannot be moved, running it again goes on.
pub async fn restore(path: &Path, from: &Path, now: Timestamp) -> Result<Restored, StoreError> {
    let same = |other: &Path| {
        std::fs::canonicalize(path)
            .is_ok_and(|it| std::fs::canonicalize(other).is_ok_and(|other| it == other))
    };
    if same(from) {
        return Err(unusable(format!("{} is the database itself; name the backup", from.display())));
    }
    if !from.is_file() {
        return Err(unusable(format!("there is no file {}", from.display())));
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|error| in_file(folder, &error))?;
    let _lock = lock(path)?;
    // What it writes later would go to the database that is moved aside.
    if let Some(by) = holder(path, "WRITE").or_else(|| holder(path, "READ")) {
        return Err(unusable(format!(
            "another process ({by}) has {} open; stop it, then run this again",
            path.display()
        )));
    }
    let staged = beside(path, STAGED);
    let result = stage(from, &staged).await;
    let contents = match result {
        Ok(contents) => contents,
        Err(error) => {
            for end in COMPANIONS.into_iter().chain([""]) {
                let _ = std::fs::remove_file(beside(&staged, end));
            }
            return Err(error);
        }
    };
    // As root for the daemon's user: the files stay with who owned them.
    let owner = std::fs::metadata(path).or_else(|_| std::fs::metadata(folder));
    if let Ok(owner) = owner {
        let _ = chown(&staged, Some(owner.uid()), Some(owner.gid()));
    }
    let at = now.as_chrono().format("%Y%m%dT%H%M%SZ");
    let aside = set_aside(path, &format!(".before-restore-{at}")).map_err(|error| in_file(path, &error))?;
    std::fs::rename(&staged, path).map_err(|error| in_file(path, &error))?;
    sync_folder(path)?;
    Ok(Restored { contents, aside })
}

/// Copies `from` with its write-ahead log, and makes one sound file of both.
async fn stage(from: &Path, staged: &Path) -> Result<Contents, StoreError> {
    for end in COMPANIONS.into_iter().chain([""]) {
        let _ = std::fs::remove_file(beside(staged, end));
    }
    for end in ["", "-wal"] {
        let (source, target) = (beside(from, end), beside(staged, end));
        if source.is_file() {
            private(&target).map_err(|error| in_file(&target, &error))?;
            std::fs::copy(&source, &target).map_err(|error| in_file(&source, &error))?;
            std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o600))
                .map_err(|error| in_file(&target, &error))?;
        }
    }
    let contents = inspect(staged).await.map_err(|error| {
        unusable(format!("{} cannot be restored: {error}; the database was left as it is", from.display()))
    })?;
    std::fs::File::open(staged).and_then(|it| it.sync_all()).map_err(|error| in_file(staged, &error))?;
    Ok(contents)
}

/// Checks a database that nobody else has open, and leaves it as one file.
async fn inspect(path: &Path) -> Result<Contents, StoreError> {
    let mut db = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await?;
    let found = contents(&mut db).await;
    // Takes the log into the file.
    let folded = sqlx::query("PRAGMA journal_mode = DELETE").execute(&mut db).await;
    db.close().await?;
    folded?;
    found
}

async fn contents(db: &mut SqliteConnection) -> Result<Contents, StoreError> {
    let sound: Vec<(String,)> = sqlx::query_as("PRAGMA integrity_check(1)").fetch_all(&mut *db).await?;
    if sound.first().is_none_or(|(first,)| first != "ok") {
        let first = sound.into_iter().next().map(|(first,)| first).unwrap_or_default();
        return Err(unusable(format!("it is not sound ({first})")));
    }
    let version: Result<(Option<i64>,), _> =
        sqlx::query_as("SELECT MAX(version) FROM _sqlx_migrations").fetch_one(&mut *db).await;
    let Ok((Some(found),)) = version else {
        return Err(unusable("it is not a database of Keywheel".to_owned()));
    };
    if found > known_version() {
        return Err(StoreError::NewerSchema { found, known: known_version() });
    }
    let mut count = async |sql: &'static str| -> Result<i64, StoreError> {
        let (count,): (i64,) = sqlx::query_as(AssertSqlSafe(sql)).fetch_one(&mut *db).await?;
        Ok(count)
    };
    Ok(Contents {
        projects: count("SELECT COUNT(*) FROM projects").await?,
        rotations: count("SELECT COUNT(*) FROM rotations").await?,
        audit_row: count("SELECT COALESCE(MAX(seq), 0) FROM audit").await?,
    })
}

fn private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map(drop)
}

fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder).and_then(|it| it.sync_all()).map_err(|error| in_file(folder, &error))
}

fn in_file(path: &Path, error: &std::io::Error) -> StoreError {
    unusable(format!("{} cannot be read or written ({error})", path.display()))
}
