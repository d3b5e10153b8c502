//! An SQLite database that another process has locked: each command names the file and that process.

use std::path::Path;

use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use crate::support::daemon::{Said, config, run};

/// A connection of this process, which is another one for the binary.
async fn holding(file: &Path, by: &'static [&'static str]) -> SqliteConnection {
    let mut held = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await.unwrap();
    for statement in by {
        sqlx::query(*statement).execute(&mut held).await.unwrap();
    }
    held
}

/// Runs all commands at the same time, because each waits for the lock first.
fn all(folder: &Path, lines: &[&[&str]]) -> Vec<Said> {
    std::thread::scope(|scope| {
        let running: Vec<_> = lines.iter().map(|line| scope.spawn(|| run(folder, line))).collect();
        running.into_iter().map(|it| it.join().unwrap()).collect()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_database_is_named_with_the_process_that_locks_it() {
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), "127.0.0.1:0", "http://127.0.0.1:1");
    // The usual one is relative.
    let file = folder.path().join("keywheel.toml");
    let absolute = format!("data_dir = \"{}/data\"", folder.path().display());
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(&absolute), "{text}");
    std::fs::write(&file, text.replace(&absolute, "data_dir = \"data\"")).unwrap();
    assert_eq!(run(folder.path(), &["migrate"]).code, Some(0));
    let copied = run(folder.path(), &["backup", "copy.db"]);
    assert_eq!(copied.code, Some(0), "{copied:?}");
    let database = folder.path().join("data/keywheel.db");
    let create: &[&str] = &["token", "create", "--name", "ada", "--role", "viewer"];
    let reading: &[&[&str]] =
        &[&["migrate"], &["backup", "other.db"], &["audit", "verify"], &["token", "list"], &["key", "show"]];
    let writing: &[&[&str]] = &[&["serve"], create, &["doctor"]];
    // A lock for writing leaves reads alone; an exclusive one does not.
    for (by, lines) in [
        (&["BEGIN IMMEDIATE"][..], writing.to_vec()),
        (&["PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE"], [reading, &writing[1..]].concat()),
    ] {
        let held = holding(&database, by).await;
        for (line, said) in lines.iter().zip(all(folder.path(), &lines)) {
            let text = format!("{}{}", said.out, said.err);
            assert_eq!(said.code, Some(1), "{line:?}: {text}");
            let pid = format!("pid {})", std::process::id());
            for part in ["another process (", &pid, " writes to data/keywheel.db; stop it"] {
                assert!(text.contains(part), "{part} of {line:?} not in: {text}");
            }
            // The log of the daemon tells of its repetitions.
            assert!(line[0] == "serve" || !text.contains("is locked"), "{line:?}: {text}");
        }
        let restored = run(folder.path(), &["restore", "copy.db"]);
        let open = format!("pid {}) has data/keywheel.db open; stop it", std::process::id());
        assert!(restored.code == Some(1) && restored.err.contains(&open), "{restored:?}");
        held.close().await.unwrap();
    }
    assert_eq!(run(folder.path(), create).code, Some(0));
    // One that only has it open keeps nobody from writing.
    let held = holding(&database, &["SELECT COUNT(*) FROM projects"]).await;
    assert_eq!(run(folder.path(), &["token", "revoke", "ada"]).code, Some(0));
    assert_eq!(run(folder.path(), &["restore", "copy.db"]).code, Some(1));
    held.close().await.unwrap();
    assert_eq!(run(folder.path(), &["restore", "copy.db"]).code, Some(0));
}
