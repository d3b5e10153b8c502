//! Copies of the SQLite database: the steps of the document as they stand there, and the files that belong together.

use std::path::{Path, PathBuf};
use std::process::Child;

use serde_json::Value;
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use keywheel::sim::world::demo_key;

use crate::support::daemon::{Daemon, Ended, Said, answer, keywheel, run, serve};
use crate::support::group;
use crate::support::wait::{LIMIT, eventually};

const DOCUMENT: &str = include_str!("../../docs/operations.md");

/// The commands of the section about backups, in order.
fn documented() -> Vec<String> {
    let from = DOCUMENT.split_once("\n## Back up and restore\n").unwrap().1;
    let section = from.split_once("\n## ").unwrap().0;
    let blocks = section.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    blocks.flat_map(str::lines).map(str::to_owned).collect()
}

fn database(it: &Daemon) -> PathBuf {
    it.folder.path().join("data/keywheel.db")
}

fn beside(path: &Path, end: &str) -> PathBuf {
    format!("{}{end}", path.display()).into()
}

/// SIGKILL, as a crash.
fn crash(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

async fn sql(path: &Path, text: &'static str) {
    let mut db = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await.unwrap();
    sqlx::query(text).execute(&mut db).await.unwrap();
    db.close().await.unwrap();
}

/// What `keywheel status` prints, once it says `words`.
async fn status_with(folder: &Path, words: &str) -> String {
    let said = eventually(LIMIT, async || {
        let status = run(folder, &["status"]);
        status.out.contains(words).then_some(status.out)
    });
    said.await.unwrap_or_else(|| panic!("status never says {words:?}"))
}

async fn projects(base: &str, token: &str) -> usize {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let listed = answer(client.get(format!("{base}/api/v1/projects")).bearer_auth(token)).await;
    listed.json["items"].as_array().map_or(0, Vec::len)
}

/// A daemon with one project, a backup of that, and two projects more.
async fn backed_up() -> (Daemon, String, PathBuf) {
    let it = Daemon::start().await;
    let token = it.token("ada", "admin");
    it.add(&token, 1).await;
    let copy = it.folder.path().join("backup.db");
    let made = it.cli(&["backup", copy.to_str().unwrap()]);
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(made.out.contains("holds 1 projects"), "{made:?}");
    it.add(&token, 2).await;
    it.add(&token, 3).await;
    (it, token, copy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_s_steps_restore_what_was_backed_up() {
    let mut it = Daemon::start().await;
    let folder = it.folder.path().to_owned();
    std::fs::create_dir(folder.join("backup")).unwrap();
    let token = it.token("ada", "admin");
    it.add(&token, 1).await;
    let mut base = it.base.clone();
    let mut later = None;
    let changed = demo_key("AWS", "payments-prod", 1, 2);
    for step in documented() {
        let here = step.replace("/backup/", &format!("{}/backup/", folder.display()));
        match here.split_whitespace().collect::<Vec<_>>()[..] {
            ["keywheel", ref args @ ..] => {
                let done = run(&folder, args);
                assert_eq!(done.code, Some(0), "{step}: {done:?}");
                if args[0] == "backup" {
                    it.add(&token, 2).await;
                    // What the copy does not know: another key in Atlas.
                    it.sim.with(|world| {
                        let project = world.projects.get_mut(&group(1)).unwrap();
                        project.block.insert("customerMasterKeyID".to_owned(), changed.clone().into());
                    });
                }
            }
            // A crash, which leaves the log behind: the harder way to stop.
            ["systemctl", "stop", "keywheel"] => {
                crash(&mut it.child);
                assert!(beside(&database(&it), "-wal").metadata().unwrap().len() > 0, "no log was left");
            }
            ["systemctl", "start", "keywheel"] => {
                let (child, address, _) = serve(&folder);
                (base, later) = (address, Some(Ended(child)));
            }
            _ => panic!("a step that the test does not know: {step}"),
        }
    }
    assert_eq!(projects(&base, &token).await, 1, "the restore did not take effect");
    let status = run(&folder, &["status"]);
    assert!(status.err.contains("--accept-restore"), "{status:?}");
    let listed = status_with(&folder, "records that differ from Atlas:").await;
    let pair = (demo_key("AWS", "payments-prod", 1, 1), changed.clone());
    assert!(listed.contains(&format!("on record: {}", pair.0)), "{listed}");
    assert!(listed.contains(&format!("at Atlas: {} (valid)", pair.1)), "{listed}");
    // No date is booked on a key that Atlas does not hold.
    let since = ["project", "edit", "payments-prod", "--since", "2026-11-01"];
    let refused = run(&folder, &since);
    assert!(refused.code != Some(0) && refused.err.contains("keywheel project refresh"), "{refused:?}");
    let kept = std::fs::read_dir(folder.join("data")).unwrap().map(|it| it.unwrap().file_name());
    let kept: Vec<_> =
        kept.map(|it| it.into_string().unwrap()).filter(|it| it.contains(".before-restore-")).collect();
    assert!(
        kept.iter().any(|it| it.ends_with('Z')) && kept.iter().any(|it| it.ends_with("Z-wal")),
        "{kept:?}"
    );
    let accepted = run(&folder, &["doctor", "--accept-restore"]);
    assert!(accepted.out.contains("accepted by"), "{accepted:?}");
    assert!(accepted.out.contains(&format!("on record: {}; at Atlas: {}", pair.0, pair.1)), "{accepted:?}");
    // Tokens of the copy count only after they are confirmed; the socket does not need one.
    let key = || {
        let shown = run(&folder, &["project", "show", "payments-prod", "-o", "json"]);
        let shown: Value = serde_json::from_str(&shown.out).unwrap_or_default();
        shown["currentKey"].as_str().map(str::to_owned)
    };
    let read = eventually(LIMIT, async || (key().as_deref() == Some(&*changed)).then_some(()));
    assert!(read.await.is_some(), "the project that differed was not read");
    let dated = run(&folder, &since);
    assert_eq!(dated.code, Some(0), "{dated:?}");
    let all = run(&folder, &["project", "refresh", "--all"]);
    assert!(all.out.contains("1 projects are read"), "{all:?}");
    let one = run(&folder, &["project", "refresh", "payments-prod"]);
    assert!(one.code == Some(0) && one.out.contains(&changed), "{one:?}");
    drop(later);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_beside_another_database_is_refused_by_name() {
    for (checkpoint, moved) in [(false, false), (true, false), (false, true)] {
        let (mut it, _, copy) = backed_up().await;
        let file = database(&it);
        if checkpoint {
            sql(&file, "PRAGMA wal_checkpoint(TRUNCATE)").await;
            it.cli(&["project", "list"]);
            let token = it.token("bob", "viewer");
            assert!(!token.is_empty());
        }
        crash(&mut it.child);
        assert!(beside(&file, "-wal").metadata().unwrap().len() > 0, "no log was left");
        if moved {
            std::fs::rename(&copy, &file).unwrap();
        } else {
            std::fs::copy(&copy, &file).unwrap();
        }
        for args in [&["serve"][..], &["migrate"], &["token", "list"]] {
            let refused = run(it.folder.path(), args);
            assert_eq!(refused.code, Some(1), "{refused:?}");
            for words in ["keywheel.db-wal", "does not belong to", "keywheel restore"] {
                assert!(refused.err.contains(words), "{args:?}: {refused:?}");
            }
        }
        // The way out that it names.
        std::fs::remove_file(beside(&file, "-wal")).unwrap();
        let _ = std::fs::remove_file(beside(&file, "-shm"));
        let listed = run(it.folder.path(), &["token", "list"]);
        assert_eq!(listed.code, Some(0), "{listed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_alone_is_no_other_database() {
    let (mut it, token, _) = backed_up().await;
    crash(&mut it.child);
    let (child, base, _) = serve(it.folder.path());
    let _ends = Ended(child);
    assert_eq!(projects(&base, &token).await, 3);
}

/// An upgrade whose migration has reached the file, with more in the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_since_is_no_other_database() {
    let (mut it, token, _) = backed_up().await;
    crash(&mut it.child);
    let file = database(&it);
    // As a daemon of an older version had left it: an earlier schema, and its cookie.
    let lock = beside(&file, ".lock");
    let text = std::fs::read_to_string(&lock).unwrap();
    let words: Vec<&str> = text.lines().find(|line| line.starts_with("mark ")).unwrap().split(' ').collect();
    let cookie: u32 = words[2].parse().unwrap();
    let older = |version: &str| {
        std::fs::write(&lock, format!("1\nmark {} {} {} {version}\n", words[1], cookie - 3, words[3]))
            .unwrap();
    };
    older(words[4]);
    let refused = run(it.folder.path(), &["token", "list"]);
    assert!(refused.code == Some(1) && refused.err.contains("does not belong to"), "{refused:?}");
    older("1");
    let (child, base, _) = serve(it.folder.path());
    let _ends = Ended(child);
    assert_eq!(projects(&base, &token).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_restored_changes_nothing() {
    let (mut it, token, copy) = backed_up().await;
    let folder = it.folder.path().to_owned();
    let refused = |args: &[&str], words: &[&str]| {
        let said: Said = run(&folder, args);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(words.iter().all(|it| said.err.contains(it)), "{words:?} not in {said:?}");
    };
    let name = |path: &Path| path.to_str().unwrap().to_owned();
    refused(&["restore", &name(&copy)], &["keywheel.db", "pid"]);
    refused(&["backup", &name(&copy)], &["exists already"]);
    refused(&["backup", "nowhere/copy.db"], &["nowhere"]);
    crash(&mut it.child);
    let text = folder.join("text.db");
    std::fs::write(&text, "no database").unwrap();
    let torn = folder.join("torn.db");
    let bytes = std::fs::read(&copy).unwrap();
    std::fs::write(&torn, &bytes[..bytes.len() / 2]).unwrap();
    let newer = folder.join("newer.db");
    std::fs::copy(&copy, &newer).unwrap();
    sql(&newer, "UPDATE _sqlx_migrations SET version = 9999 WHERE version = 1").await;
    let foreign = folder.join("foreign.db");
    sql_new(&foreign).await;
    refused(&["restore", "missing.db"], &["there is no file missing.db"]);
    refused(&["restore", &name(&text)], &["text.db", "left as it is"]);
    refused(&["restore", &name(&torn)], &["torn.db", "left as it is"]);
    refused(&["restore", &name(&newer)], &["9999"]);
    refused(&["restore", &name(&foreign)], &["not a database of Keywheel"]);
    refused(&["restore", &name(&database(&it))], &["is the database itself"]);
    let left = std::fs::read_dir(folder.join("data")).unwrap().map(|it| it.unwrap().file_name());
    let left: Vec<_> = left.map(|it| it.into_string().unwrap()).filter(|it| it.contains("restor")).collect();
    assert!(left.is_empty(), "{left:?}");
    // A restore that was interrupted is named, and running it again goes on.
    std::fs::copy(&copy, beside(&database(&it), ".restoring")).unwrap();
    refused(&["serve"], &["was interrupted", "keywheel restore"]);
    let done = run(&folder, &["restore", &name(&copy)]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let (child, base, _) = serve(&folder);
    let _ends = Ended(child);
    assert_eq!(projects(&base, &token).await, 1);
    let mut postgres = keywheel(&folder, &["backup", "x.db"]);
    let said = postgres.env("KEYWHEEL_DATABASE__URL", "postgres://u:secret@127.0.0.1:1/x").output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("pg_dump") && !said.contains("secret"), "{said}");
}

/// A live copy with its log beside it, as a snapshot of a disk has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_with_its_log_is_restored_with_it() {
    let (mut it, token, _) = backed_up().await;
    crash(&mut it.child);
    let snapshot = it.folder.path().join("snapshot.db");
    std::fs::copy(database(&it), &snapshot).unwrap();
    std::fs::copy(beside(&database(&it), "-wal"), beside(&snapshot, "-wal")).unwrap();
    let done = run(it.folder.path(), &["restore", snapshot.to_str().unwrap()]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains("3 projects"), "{done:?}");
    let (child, base, _) = serve(it.folder.path());
    let _ends = Ended(child);
    assert_eq!(projects(&base, &token).await, 3);
    let status: Value = serde_json::from_str(&run(it.folder.path(), &["status", "-o", "json"]).out).unwrap();
    assert!(status["database"]["doubt"].is_null(), "{status}");
}

async fn sql_new(path: &Path) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut db = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("CREATE TABLE notes (text TEXT)").execute(&mut db).await.unwrap();
    db.close().await.unwrap();
}

/// A daemon keeps SQLite's locks on its file. Without them the next process that closes the database removes the log in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_that_is_done_with_the_database_leaves_its_log_alone() {
    let daemon = crate::support::daemon::Daemon::start().await;
    let data = daemon.folder.path().join("data");
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(data.join("keywheel.db")).unwrap());
    let (pid, file) = (format!(" {} ", daemon.child.id()), format!(":{inode} "));
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    assert!(
        locks.lines().any(|line| line.contains(&pid) && line.contains(&file)),
        "it has no lock on {inode}: {locks}"
    );
    for _ in 0..3 {
        let listed = daemon.cli(&["token", "list"]);
        assert_eq!(listed.code, Some(0), "{listed:?}");
    }
    daemon.token("ada", "viewer");
    assert!(data.join("keywheel.db-wal").exists(), "another process removed the log");
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.child.id())).unwrap();
    let open: Vec<_> = open.filter_map(|it| std::fs::read_link(it.unwrap().path()).ok()).collect();
    assert!(!open.iter().any(|it| it.to_string_lossy().contains("(deleted)")), "{open:?}");
}
