//! Databases for tests: a fresh SQLite file, or a fresh database on a PostgreSQL that is taken from
//! `TEST_POSTGRES_URL`, from a container where an engine answers, or from local server binaries.
//! Where none can be had, the test fails and says what to install. It never skips.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use keywheel::seal::InstallationKey;
use keywheel::store::{Access, Store};
use sqlx::Connection;
use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};

use super::wait::{LIMIT, eventually};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

/// The one user whose password a local server asks for; the test makes it.
pub(crate) const WITH_PASSWORD: &str = "kw_with_password";

/// A migrated database of its own, gone when dropped.
pub(crate) struct TestDb {
    pub(crate) store: Store,
    pub(crate) url: String,
    pub(crate) folder: tempfile::TempDir,
    _server: Option<Server>,
}

pub(crate) enum Server {
    Given,
    /// Removed when dropped.
    Container(#[expect(dead_code, reason = "held for its drop")] Box<ContainerAsync<GenericImage>>),
    Local(Child),
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Server::Local(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl TestDb {
    pub(crate) async fn new(backend: Backend) -> Self {
        Self::with(backend, "").await
    }

    /// With `options` at the end of PostgreSQL's `CREATE DATABASE`.
    pub(crate) async fn with(backend: Backend, options: &str) -> Self {
        let it = Self::bare(backend, options).await;
        it.store.migrate().await.unwrap();
        unlock(&it.store).await;
        key().create(&it.folder.path().join("installation.key")).unwrap();
        it
    }

    /// Without tables: for a daemon that sets it up.
    pub(crate) async fn bare(backend: Backend, options: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (url, server) = match backend {
            Backend::Sqlite => (format!("sqlite:{}", folder.path().join("kw.db").display()), None),
            Backend::Postgres => {
                let (server, admin) = postgres(&folder).await;
                let name = format!("kw_{}", uuid::Uuid::now_v7().simple());
                let mut connection = sqlx::PgConnection::connect(&admin).await.unwrap();
                let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name} {options}"));
                sqlx::query(create).execute(&mut connection).await.unwrap();
                let mut url: url::Url = admin.parse().unwrap();
                url.set_path(&name);
                (url.to_string(), Some(server))
            }
        };
        let store = Store::open(&url, std::path::Path::new(""), Access::Beside).await.unwrap();
        Self { store, url, folder, _server: server }
    }
}

/// The installation key of every test.
pub(crate) fn key() -> InstallationKey {
    InstallationKey::of([7; 32]).unwrap()
}

/// Gives an open database the key, and reads its audit log.
pub(crate) async fn unlock(store: &Store) {
    store.unlock(&key(), true, "2026-01-01T00:00:00Z".parse().unwrap()).await.unwrap();
    store.follow_seals().await.unwrap();
}

async fn postgres(folder: &tempfile::TempDir) -> (Server, String) {
    if let Ok(url) = std::env::var("TEST_POSTGRES_URL") {
        return (Server::Given, url);
    }
    if std::env::var("DOCKER_HOST").is_ok()
        || std::os::unix::net::UnixStream::connect("/var/run/docker.sock").is_ok()
    {
        let container = GenericImage::new("postgres", "17-alpine")
            .with_exposed_port(5432.tcp())
            .with_wait_for(WaitFor::message_on_stderr("database system is ready to accept connections"))
            .with_env_var("POSTGRES_PASSWORD", "test")
            .start()
            .await
            .unwrap();
        let port = container.get_host_port_ipv4(5432).await.unwrap();
        let url = format!("postgres://postgres:test@127.0.0.1:{port}/postgres");
        return (Server::Container(Box::new(container)), url);
    }
    local(folder).await
}

fn binary(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|it| it.path().join("bin"));
    std::env::split_paths(&path)
        .chain(debian)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| {
            panic!("these tests need PostgreSQL: set TEST_POSTGRES_URL, start a container engine, or install its server binaries (Debian: apt-get install postgresql); {name} was not found")
        })
}

/// The server refuses to run as root; then it runs as nobody.
pub(crate) fn as_server_user(program: PathBuf) -> Command {
    let root = std::fs::metadata("/proc/self").is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0);
    if !root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program);
    command
}

pub(crate) async fn local(folder: &tempfile::TempDir) -> (Server, String) {
    use std::os::unix::fs::PermissionsExt;
    let data = folder.path().join("pg");
    std::fs::create_dir(&data).unwrap();
    for path in [folder.path(), data.as_path()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let made = as_server_user(binary("initdb"))
        .current_dir("/tmp")
        .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", "-D"])
        .arg(data.join("d"))
        .output()
        .unwrap();
    assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    // One user that must give a password, so that a wrong one can be refused.
    let hba = data.join("d/pg_hba.conf");
    let rules = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, format!("host all {WITH_PASSWORD} 127.0.0.1/32 scram-sha-256\n{rules}")).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let child = as_server_user(binary("postgres"))
        .current_dir("/tmp")
        .arg("-D")
        .arg(data.join("d"))
        .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-k"])
        .arg(&data)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server::Local(child);
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    let ready = eventually(LIMIT, async || sqlx::PgConnection::connect(&url).await.ok());
    ready.await.expect("the local PostgreSQL did not start");
    (server, url)
}
