//! Databases that cannot be used: each is refused before anything is written, and the message names
//! the setting, what was found, and the way out.

use std::path::Path;

use keywheel::store::{Access, Store};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::support::db::{Backend, TestDb, WITH_PASSWORD};

/// Opens, migrates and checks as `serve` does.
async fn start(url: &str) -> Result<(), String> {
    let said = |error: keywheel::store::StoreError| error.to_string();
    let store = Store::open(url, Path::new(""), Access::Daemon).await.map_err(said)?;
    let checked = async {
        store.migrate().await?;
        store.check_schema().await
    };
    let checked = checked.await.map_err(said);
    store.close().await;
    checked
}

#[track_caller]
fn told(outcome: Result<(), String>, wanted: &[&str]) {
    let said = outcome.expect_err("it was not refused");
    for part in [&["database.url"], wanted].concat() {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    assert!(!said.contains("canary"), "{said}");
}

async fn run(url: &str, text: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    connection.execute(sqlx::raw_sql(AssertSqlSafe(text.to_owned()))).await.unwrap();
    connection.close().await.unwrap();
}

fn with(url: &str, change: impl FnOnce(&mut url::Url)) -> String {
    let mut url: url::Url = url.parse().unwrap();
    change(&mut url);
    url.to_string()
}

fn unique(what: &str) -> String {
    format!("kw_{what}_{}", uuid::Uuid::now_v7().simple())
}

#[tokio::test]
async fn a_postgres_that_cannot_be_used_says_what_to_do() {
    let db = TestDb::new(Backend::Postgres).await;
    let admin = &db.url;
    let fresh = async |options: &str| {
        let name = unique("fresh");
        run(admin, &format!("CREATE DATABASE {name} {options}")).await;
        with(admin, |url| url.set_path(&name))
    };

    // A role that may not create tables, and one that may not write them.
    let role = unique("role");
    run(admin, &format!("CREATE ROLE {role} LOGIN PASSWORD 'canary'")).await;
    let as_role = |url: &str| {
        with(url, |url| {
            url.set_username(&role).unwrap();
            url.set_password(Some("canary")).unwrap();
        })
    };
    let empty = fresh("").await;
    run(&empty, "REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    told(start(&as_role(&empty)).await, &[&role, "may not create tables", "GRANT CREATE"]);
    start(&empty).await.unwrap();
    let read = format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}");
    run(&empty, &read).await;
    told(start(&as_role(&empty)).await, &[&role, "approvals", "GRANT SELECT, INSERT"]);
    run(&empty, &format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"))
        .await;
    start(&as_role(&empty)).await.unwrap();

    // Text that cannot hold every name.
    let latin = fresh("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0").await;
    told(start(&latin).await, &["LATIN1", "ENCODING 'UTF8'"]);

    // Another program's database.
    let foreign = fresh("").await;
    run(&foreign, "CREATE TABLE projects (id INT); CREATE TABLE other (id INT)").await;
    told(start(&foreign).await, &["\"projects\"", "of its own"]);
    let theirs = fresh("").await;
    run(
        &theirs,
        "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, installed_on \
         TIMESTAMPTZ NOT NULL DEFAULT now(), success BOOLEAN NOT NULL, checksum BYTEA NOT NULL, execution_time BIGINT \
         NOT NULL); INSERT INTO _sqlx_migrations VALUES (20240101, 'users', now(), true, '\\x00', 0)",
    )
    .await;
    told(start(&theirs).await, &["20240101", "not one of ours", "of its own"]);
    run(&theirs, "UPDATE _sqlx_migrations SET version = 1").await;
    told(start(&theirs).await, &["migration 1", "not one of ours"]);

    // A server that takes no writes.
    let standby = fresh("").await;
    let name = standby.parse::<url::Url>().unwrap().path().trim_start_matches('/').to_owned();
    run(admin, &format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    told(start(&standby).await, &["read-only", "primary"]);

    // Not who, not where, not there.
    run(admin, &format!("CREATE ROLE {WITH_PASSWORD} LOGIN PASSWORD 'right'")).await;
    let wrong = with(admin, |url| {
        url.set_username(WITH_PASSWORD).unwrap();
        url.set_password(Some("canary")).unwrap();
    });
    told(start(&wrong).await, &[WITH_PASSWORD, "password", "correct the URL"]);
    let nowhere = with(admin, |url| url.set_host(Some("db.invalid")).unwrap());
    told(start(&nowhere).await, &["db.invalid", "cannot be reached", "check host"]);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = with(admin, |url| url.set_port(Some(closed)).unwrap());
    told(start(&refused).await, &[&closed.to_string(), "cannot be reached"]);
    let missing = with(admin, |url| url.set_path("kw_missing"));
    told(start(&missing).await, &["kw_missing", "does not exist", "create it"]);
    told(start("postgres://kw:canary@127.0.0.1:port/db").await, &["cannot be read as a PostgreSQL URL"]);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let url = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
    std::fs::write(folder.path().join("notes.txt"), "these are notes, not a database").unwrap();
    told(start(&url("notes.txt")).await, &["notes.txt", "not an SQLite database", "name a file"]);
    std::fs::create_dir(folder.path().join("dir")).unwrap();
    told(start(&url("dir")).await, &["a folder", "name a file"]);
    assert!(!folder.path().join("dir.lock").exists() && !folder.path().join("notes.txt.lock").exists());

    // Another program's file.
    let store = Store::open(&url("other.db"), Path::new(""), Access::Beside).await.unwrap();
    let Store::Sqlite { write, .. } = &store else { unreachable!() };
    write.execute("CREATE TABLE tokens (id INTEGER)").await.unwrap();
    store.close().await;
    told(start(&url("other.db")).await, &["\"tokens\"", "of its own"]);

    // An empty file becomes a database.
    std::fs::write(folder.path().join("empty.db"), "").unwrap();
    start(&url("empty.db")).await.unwrap();
}

/// The program as a user who may not do everything: root may, so it becomes nobody.
fn as_nobody(program: &Path) -> std::process::Command {
    use std::os::unix::fs::MetadataExt;
    if std::fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0) {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program);
        command
    } else {
        std::process::Command::new(program)
    }
}

#[test]
fn the_socket_of_another_user_is_named_with_the_way_out() {
    use std::os::unix::fs::PermissionsExt;
    let desk = tempfile::tempdir().unwrap();
    let mode =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(desk.path(), 0o755);
    let program = desk.path().join("keywheel");
    std::fs::copy(env!("CARGO_BIN_EXE_keywheel"), &program).unwrap();
    let folder = desk.path().join("data");
    std::fs::create_dir(&folder).unwrap();
    mode(&folder, 0o000);
    let mut command = as_nobody(&program);
    let ended = command.arg("status").current_dir(desk.path()).env("KEYWHEEL_DATA_DIR", &folder).output();
    mode(&folder, 0o755);
    let said = String::from_utf8(ended.unwrap().stderr).unwrap();
    assert!(said.contains("cannot reach the local socket") && said.contains("become that user"), "{said}");
}

#[test]
fn a_file_in_a_read_only_folder_says_what_to_do() {
    use std::os::unix::fs::PermissionsExt;
    let desk = tempfile::tempdir().unwrap();
    let mode =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(desk.path(), 0o755);
    let program = desk.path().join("keywheel");
    std::fs::copy(env!("CARGO_BIN_EXE_keywheel"), &program).unwrap();
    let folder = desk.path().join("data");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("keywheel.db"), "").unwrap();
    // Its owner may read it and nobody else; where this is root, the owner is who runs the program.
    let _ = std::os::unix::fs::chown(folder.join("keywheel.db"), Some(65534), Some(65534));
    mode(&folder.join("keywheel.db"), 0o400);
    mode(&folder, 0o555);
    let mut command = as_nobody(&program);
    let ended =
        command.arg("migrate").current_dir(desk.path()).env("KEYWHEEL_DATA_DIR", &folder).output().unwrap();
    mode(&folder, 0o755);
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    for part in ["error: database.url", "keywheel.db", "may read and write the file and its folder"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
}
