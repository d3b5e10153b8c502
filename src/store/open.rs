//! Opening a database: where it lies, who may have it, and whether its schema is ours.
//!
//! On SQLite a lock file beside the database holds the daemon's process id and is locked by the
//! kernel, so it is free the moment the process is gone, however it went.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::{Store, StoreError};

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// Who opens the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The daemon: on SQLite, alone.
    Daemon,
    /// A command beside a daemon.
    Beside,
}

impl Store {
    /// Opens `url`; a relative SQLite path lies in `data_dir`. Nothing is migrated yet.
    ///
    /// # Errors
    /// Says which path or which other process is in the way.
    pub async fn open(url: &str, data_dir: &Path, access: Access) -> Result<Self, StoreError> {
        let Some(path) = url.strip_prefix("sqlite:") else {
            let pool = PgPoolOptions::new()
                .max_connections(10)
                .acquire_timeout(Duration::from_secs(10))
                .connect(url)
                .await?;
            return Ok(Store::Postgres(pool));
        };
        let path = data_dir.join(path.trim_start_matches("//"));
        prepare_folder(&path)?;
        let lock = if access == Access::Daemon { Some(Arc::new(lock(&path)?)) } else { None };
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // The journal is an intent log: what was committed must outlive a power cut.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        let write = SqlitePoolOptions::new()
            .max_connections(1)
            // A transaction that SQLite itself gave up (a full disk) leaves a connection behind that
            // believes to be in one still: every later write would be lost in it.
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
            .connect_with(options.clone()).await.map_err(|error| {
            StoreError::Unusable(format!("{} cannot be opened ({error}); check that this user may read and write the file and its folder", path.display()))
        })?;
        let read = SqlitePoolOptions::new().max_connections(4).connect_lazy_with(options.read_only(true));
        Ok(Store::Sqlite { write, read, lock })
    }

    /// Brings the schema up to date.
    ///
    /// # Errors
    /// A database newer than this program is left as it is.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let outcome = match self {
            Store::Sqlite { write, .. } => SQLITE.run(write).await,
            Store::Postgres(pool) => POSTGRES.run(pool).await,
        };
        outcome.map_err(|error| match error {
            MigrateError::VersionMissing(found) => StoreError::NewerSchema { found, known: known_version() },
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
            other => StoreError::Unusable(format!("the schema cannot be brought up to date: {other}")),
        })
    }

    /// Refuses a database whose schema is not this program's.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`] or [`StoreError::NotMigrated`].
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        let text = "SELECT MAX(version) FROM _sqlx_migrations";
        let found: Result<(Option<i64>,), sqlx::Error> = match self {
            Store::Sqlite { write, .. } => sqlx::query_as(text).fetch_one(write).await,
            Store::Postgres(pool) => sqlx::query_as(text).fetch_one(pool).await,
        };
        match found {
            Ok((Some(found),)) if found == known_version() => Ok(()),
            Ok((Some(found),)) if found > known_version() => {
                Err(StoreError::NewerSchema { found, known: known_version() })
            }
            Ok(_) | Err(sqlx::Error::Database(_)) => Err(StoreError::NotMigrated),
            Err(error) => Err(error.into()),
        }
    }

    /// Closes all connections.
    pub async fn close(&self) {
        match self {
            Store::Sqlite { write, read, .. } => {
                read.close().await;
                write.close().await;
            }
            Store::Postgres(pool) => pool.close().await,
        }
    }
}

/// The newest schema this program knows.
#[must_use]
pub fn known_version() -> i64 {
    SQLITE.iter().map(|migration| migration.version).max().unwrap_or(0)
}

fn prepare_folder(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|error| {
        StoreError::Unusable(format!(
            "the folder {} cannot be made ({error}); make it writable for this user or set data_dir",
            folder.display()
        ))
    })
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock_path).map_err(
            |error| {
                StoreError::Unusable(format!(
                    "{} cannot be written ({error}); make its folder writable for this user",
                    lock_path.display()
                ))
            },
        )?;
    if file.try_lock().is_err() {
        let mut pid = String::new();
        // Who it is, is a kindness: the refusal stands without it.
        let _ = file.read_to_string(&mut pid);
        let pid = if pid.trim().is_empty() { "unknown".to_owned() } else { pid.trim().to_owned() };
        return Err(StoreError::Locked { path: path.to_owned(), pid });
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .and_then(|()| file.sync_all());
    written.map_err(|error| {
        StoreError::Unusable(format!("{} cannot be written ({error})", lock_path.display()))
    })?;
    Ok(file)
}
