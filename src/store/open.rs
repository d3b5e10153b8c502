//! Opens a database: its place, its lock, and the check of its schema.
//!
//! On SQLite a lock file beside the database holds the daemon's process id. The kernel holds the lock,
//! and releases it when the process ends, however it ends.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Executor, PgConnection};
use url::Url;

use super::schema::{POSTGRES, SQLITE, known_version};
use super::{Reserve, Seals, Store, StoreError, Writer, files, inspect};

/// The process that opens the database.
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
    /// The error names the path or the other process.
    pub async fn open(url: &str, data_dir: &Path, access: Access) -> Result<Self, StoreError> {
        let Some(path) = url.strip_prefix("sqlite:") else {
            return postgres(url, access).await;
        };
        let path = data_dir.join(path);
        prepare_folder(&path)?;
        check_file(&path)?;
        files::check(&path).await?;
        let lock = if access == Access::Daemon { Some(Arc::new(lock(&path)?)) } else { None };
        make_private(&path);
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // The journal is an intent log: a commit must outlive a power cut.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        let write = SqlitePoolOptions::new()
            .max_connections(1)
            // When SQLite itself rolls back a transaction (a full disk), its connection may still count
            // as being in one. Every later write would be lost in it.
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
            // 8 MiB instead of 2: a sweep among many projects writes all over the file.
            .connect_with(options.clone().pragma("cache_size", "-8192")).await.map_err(|error| {
            files::held(&path, &error).unwrap_or_else(|| StoreError::Unusable(format!(
                "database.url: {} cannot be opened ({error}); check that this user may read and write the file and its folder",
                path.display()
            )))
        })?;
        // 512 KiB instead of 2 MiB for each of eight: the system's cache holds the same pages.
        let options = options.read_only(true).pragma("cache_size", "-512");
        let read = SqlitePoolOptions::new().max_connections(4).connect_lazy_with(options.clone());
        let urgent = SqlitePoolOptions::new().max_connections(4).connect_lazy_with(options);
        let seals = Arc::<Seals>::default();
        let writer = Writer::start(write.clone(), Arc::clone(&seals)).map_err(|error| {
            StoreError::Unusable(format!("the writer's thread cannot be started: {error}"))
        })?;
        let reserve = if lock.is_some() { Reserve::of_daemon(&path) } else { Reserve::none() };
        Ok(Store::Sqlite { write, read, urgent, lock, writer, reserve: Arc::new(reserve), seals })
    }

    /// Brings the schema up to date.
    ///
    /// # Errors
    /// Fails for a database newer than this program, and leaves it as it is.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        if self.applied(self.known()).await?.last() == Some(&known_version()) {
            return Ok(());
        }
        self.check_may_create().await?;
        let outcome = match self {
            Store::Sqlite { write, .. } => SQLITE.run(write).await,
            Store::Postgres { write, .. } => {
                // A connection of its own: a migration may take longer than the limits of a step.
                let options = write.connect_options();
                let mut connection = PgConnection::connect_with(&options).await?;
                let outcome = POSTGRES.run(&mut connection).await;
                let _ = connection.close().await;
                outcome
            }
        };
        outcome.map_err(|error| match error {
            MigrateError::VersionMissing(found) => StoreError::NewerSchema { found, known: known_version() },
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
            other => StoreError::Unusable(format!(
                "database.url: the schema cannot be brought up to date: {other}"
            )),
        })
    }

    fn known(&self) -> &'static Migrator {
        match self {
            Store::Sqlite { .. } => &SQLITE,
            Store::Postgres { .. } => &POSTGRES,
        }
    }

    /// Refuses a database whose schema is not this program's, or that this user may not write.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`], [`StoreError::NotMigrated`], or [`StoreError::Unusable`] with the
    /// missing right.
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        if self.applied(self.known()).await?.last() != Some(&known_version()) {
            return Err(StoreError::NotMigrated);
        }
        self.check_rights().await
    }

    /// Takes the login and the TLS of `url` for new connections; false when it is another database, which needs a
    /// restart.
    ///
    /// # Errors
    /// Fails when the URL or a file that it names cannot be read.
    pub fn take_login(&self, url: &str) -> Result<bool, StoreError> {
        let Store::Postgres { write, read, .. } = self else { return Ok(false) };
        if url.starts_with("sqlite:") {
            return Ok(false);
        }
        let fresh = postgres_options(url)?;
        let now = write.connect_options();
        let place = |it: &PgConnectOptions| {
            (
                it.get_host().to_owned(),
                it.get_port(),
                it.get_socket().cloned(),
                it.get_database().map(str::to_owned),
            )
        };
        if place(&fresh) != place(&now) {
            return Ok(false);
        }
        write.set_connect_options(fresh.clone());
        read.set_connect_options(fresh);
        Ok(true)
    }

    /// Closes all connections, after the writes that wait already.
    pub async fn close(&self) {
        match self {
            Store::Sqlite { write, read, urgent, writer, .. } => {
                writer.stop().await;
                read.close().await;
                urgent.close().await;
                write.close().await;
            }
            Store::Postgres { write, read, .. } => {
                read.close().await;
                write.close().await;
            }
        }
    }
}

/// The limits that the server enforces on a writing connection. A transaction of a daemon that hangs must
/// not hold the audit log's head, or every other daemon would wait for it.
const ACTING: &str =
    "SET statement_timeout = '10s'; SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = '10s'";

/// The limits for reads by people beside a running daemon.
const READING: &str = "SET statement_timeout = '30s'; SET default_transaction_read_only = on";

/// For a command that reads whole tables, such as the check of the audit log.
const READING_ALL: &str = "SET default_transaction_read_only = on";

/// How long a connection may take to show that it is alive.
const PING: Duration = Duration::from_secs(2);

fn postgres_options(url: &str) -> Result<PgConnectOptions, StoreError> {
    let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| {
        // The driver repeats the text that it could not parse, which may be the password.
        let kind = error.to_string().split(':').next().unwrap_or_default().to_owned();
        StoreError::Unusable(format!("database.url: it cannot be read as a PostgreSQL URL ({kind})"))
    })?;
    Ok(trusting_as_libpq(url, options)?.application_name("keywheel"))
}

async fn postgres(url: &str, access: Access) -> Result<Store, StoreError> {
    let options = postgres_options(url)?;
    inspect::check_server(&options).await?;
    let reading = if access == Access::Daemon { READING } else { READING_ALL };
    let write = pool(10, ACTING).connect_with(options.clone()).await?;
    let read = pool(5, reading).connect_lazy_with(options);
    Ok(Store::Postgres { write, read, shares: Arc::default(), seals: Arc::default() })
}

/// `sslrootcert` as libpq reads it: with it, `require` verifies the issuer; `system` stands for this machine's
/// certificates, and only for `verify-full`.
fn trusting_as_libpq(url: &str, options: PgConnectOptions) -> Result<PgConnectOptions, StoreError> {
    let refuse = |why: String| Err(StoreError::Unusable(format!("database.url: sslrootcert: {why}")));
    let named = Url::parse(url).ok().and_then(|url| {
        let mut pairs = url.query_pairs();
        pairs
            .find(|(name, _)| name == "sslrootcert" || name == "ssl-root-cert")
            .map(|(_, value)| value.into_owned())
    });
    let Some(file) = named.or_else(|| std::env::var("PGSSLROOTCERT").ok()).filter(|it| !it.is_empty()) else {
        return Ok(options);
    };
    let mode = options.get_ssl_mode();
    if file == "system" {
        return match mode {
            // Without a file, the driver trusts the system's certificates.
            PgSslMode::VerifyFull => Ok(without_root(url).parse::<PgConnectOptions>()?),
            _ => refuse(
                "system takes sslmode=verify-full: certificates for any name would do otherwise".to_owned(),
            ),
        };
    }
    if matches!(mode, PgSslMode::Disable) {
        return Ok(options);
    }
    match std::fs::read_to_string(&file) {
        Ok(text) if text.contains("-----BEGIN CERTIFICATE-----") => {}
        Ok(_) => return refuse(format!("{file} holds no PEM certificate")),
        Err(error) => return refuse(format!("{file} cannot be read ({error})")),
    }
    Ok(match mode {
        PgSslMode::Require => options.ssl_mode(PgSslMode::VerifyCa),
        _ => options,
    })
}

/// The URL without `sslrootcert`.
fn without_root(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else { return url.to_owned() };
    let rest: Vec<(String, String)> = parsed
        .query_pairs()
        .filter(|(name, _)| name != "sslrootcert" && name != "ssl-root-cert")
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    parsed.query_pairs_mut().clear().extend_pairs(rest);
    parsed.into()
}

fn pool(size: u32, settings: &'static str) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(Duration::from_secs(5))
        .after_connect(move |connection, _| {
            Box::pin(async move { connection.execute(settings).await.map(|_| ()) })
        })
        // The pool's own check waits for ever on a connection whose other end has vanished.
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(is_alive(connection)))
        .after_release(|connection, _| Box::pin(is_alive(connection)))
}

async fn is_alive(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    match tokio::time::timeout(PING, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

fn prepare_folder(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|error| {
        StoreError::Unusable(format!(
            "database.url: the folder {} cannot be made ({error}); make it writable for this user or set data_dir",
            folder.display()
        ))
    })
}

/// Refuses a path that is not an SQLite file, before anything is written beside it.
fn check_file(path: &Path) -> Result<(), StoreError> {
    let refuse = |found: &str| {
        Err(StoreError::Unusable(format!(
            "database.url: {} is {found}; name a file that keywheel may make, or one it made",
            path.display()
        )))
    };
    if path.is_dir() {
        return refuse("a folder, not a database file");
    }
    let mut header = [0u8; 16];
    match File::open(path).and_then(|mut file| file.read(&mut header)) {
        // A missing or empty file becomes a database; for an unreadable file SQLite reports the error.
        Ok(0) | Err(_) => Ok(()),
        Ok(_) if &header == b"SQLite format 3\0" => Ok(()),
        Ok(_) => refuse("not an SQLite database"),
    }
}

/// Makes the file of a new database, for this user only. `SQLite` gives its companions the same mode. An
/// existing file keeps its mode; where none can be made, `SQLite` reports the error.
fn make_private(path: &Path) {
    let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
}

pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&lock_path).map_err(
            |error| {
                StoreError::Unusable(format!(
                    "database.url: {} cannot be written ({error}); make its folder writable for this user, or name a file in another",
                    lock_path.display()
                ))
            },
        )?;
    if file.try_lock().is_err() {
        let mut pid = String::new();
        // The process id is optional: the refusal stands without it.
        let _ = file.read_to_string(&mut pid);
        let pid =
            pid.lines().next().map(str::trim).filter(|pid| !pid.is_empty()).unwrap_or("unknown").to_owned();
        return Err(StoreError::Locked { path: path.to_owned(), pid });
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .and_then(|()| file.sync_all());
    written.map_err(|error| {
        StoreError::Unusable(format!("database.url: {} cannot be written ({error})", lock_path.display()))
    })?;
    Ok(file)
}
