//! The writer with pieces that fail, panic, hang, and lose their callers.

#![expect(clippy::disallowed_methods, reason = "tasks of a test end with it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::store::{Access, NewAudit, Sql, Store, each};

const PUT: Sql = Sql::same("INSERT INTO meta (name, value) VALUES ($1, $2)");

struct Bench {
    store: Store,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open("sqlite:kw.db", folder.path(), Access::Beside).await.unwrap();
        store.migrate().await.unwrap();
        let key = crate::seal::InstallationKey::of([7; 32]).unwrap();
        store.unlock(&key, true, crate::domain::time::Timestamp::from_micros(0)).await.unwrap();
        store.follow_seals().await.unwrap();
        Self { store, _folder: folder }
    }

    /// Names that are written.
    async fn written(&self) -> Vec<String> {
        let Store::Sqlite { read, .. } = &self.store else { unreachable!() };
        let rows: Vec<(String,)> = sqlx::query_as("SELECT name FROM meta WHERE name LIKE 't%' ORDER BY name")
            .fetch_all(read)
            .await
            .unwrap();
        rows.into_iter().map(|(name,)| name).collect()
    }

    /// Has each commit ask `hook` whether it may succeed.
    async fn on_commit(&self, hook: impl FnMut() -> bool + Send + 'static) {
        let Store::Sqlite { write, .. } = &self.store else { unreachable!() };
        let mut connection = write.acquire().await.unwrap();
        connection.lock_handle().await.unwrap().set_commit_hook(hook);
    }

    fn put(&self, name: &'static str, end: End) -> tokio::task::JoinHandle<Result<(), StoreError>> {
        let store = self.store.clone();
        tokio::spawn(async move { put(&store, name, end).await })
    }

    /// A piece that holds the writer until the gate opens; returns once it has begun.
    async fn holding(&self) -> (CancellationToken, tokio::task::JoinHandle<Result<(), StoreError>>) {
        let (gate, begun) = (CancellationToken::new(), Arc::new(Notify::new()));
        let (store, args) = (self.store.clone(), (gate.clone(), Arc::clone(&begun)));
        let held = tokio::spawn(async move {
            store
                .transact("test.hold", Lane::Step, args, |_, (gate, begun), _| {
                    Box::pin(async move {
                        begun.notify_one();
                        gate.cancelled().await;
                        Ok(())
                    })
                })
                .await
        });
        begun.notified().await;
        (gate, held)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Well,
    Conflict,
    Panic,
    Hang,
    TooBig,
}

async fn put(store: &Store, name: &'static str, end: End) -> Result<(), StoreError> {
    store
        .transact("test.put", Lane::Rest, (), move |tx, (), _| {
            Box::pin(async move {
                let value = if end == End::TooBig { "x".repeat(1_000_000) } else { String::new() };
                each!(tx, PUT, |conn, text| sqlx::query(text)
                    .bind(name)
                    .bind(value)
                    .execute(conn)
                    .await
                    .map(drop))?;
                let row = NewAudit {
                    actor: "test".to_owned(),
                    action: name.to_owned(),
                    subject: "test".to_owned(),
                    detail: "{}".to_owned(),
                };
                tx.append_audit(&[row], "2026-03-01T12:00:00Z".parse().unwrap()).await?;
                match end {
                    End::Well | End::TooBig => Ok(()),
                    End::Conflict => Err(StoreError::Conflict),
                    End::Panic => panic!("as the test wants it"),
                    End::Hang => std::future::pending().await,
                }
            })
        })
        .await
}

/// Lets spawned callers reach the queue.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_waits_together_is_committed_together_and_nobody_is_answered_before() {
    let it = Bench::new().await;
    let (commits, answered) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let early = Arc::new(AtomicU32::new(0));
    let hook = (Arc::clone(&commits), Arc::clone(&answered), Arc::clone(&early));
    it.on_commit(move || {
        let (commits, answered, early) = &hook;
        commits.fetch_add(1, Ordering::SeqCst);
        early.store(answered.load(Ordering::SeqCst), Ordering::SeqCst);
        true
    })
    .await;
    let (gate, held) = it.holding().await;
    let names: Vec<&'static str> = (0..20).map(|n| &*format!("t{n:02}").leak()).collect();
    let callers: Vec<_> = names
        .iter()
        .map(|name| {
            let (store, answered, name) = (it.store.clone(), Arc::clone(&answered), *name);
            tokio::spawn(async move {
                put(&store, name, End::Well).await.unwrap();
                answered.fetch_add(1, Ordering::SeqCst);
            })
        })
        .collect();
    settle().await;
    gate.cancel();
    held.await.unwrap().unwrap();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(it.written().await, names);
    let commits = commits.load(Ordering::SeqCst);
    assert!((1..=10).contains(&commits), "twenty writes that waited together took {commits} commits");
    assert!(early.load(Ordering::SeqCst) < 20, "a caller was answered before the last commit");
}

#[tokio::test]
async fn a_piece_that_fails_or_panics_harms_no_other() {
    let it = Bench::new().await;
    let (gate, held) = it.holding().await;
    let one = it.put("t1", End::Well);
    let two = it.put("t2", End::Conflict);
    let three = it.put("t3", End::Panic);
    let four = it.put("t4", End::Well);
    settle().await;
    gate.cancel();
    held.await.unwrap().unwrap();
    one.await.unwrap().unwrap();
    assert!(matches!(two.await.unwrap(), Err(StoreError::Conflict)));
    assert!(three.await.unwrap_err().is_panic(), "a panic is the caller's");
    four.await.unwrap().unwrap();
    assert_eq!(it.written().await, ["t1", "t4"]);
    // The chain of the audit log goes on behind the rows that were rolled back.
    assert_eq!(it.store.verify_audit().await.unwrap().intact().unwrap().rows, 3);
}

#[tokio::test]
async fn a_piece_whose_audit_row_is_refused_harms_no_other() {
    let it = Bench::new().await;
    let Store::Sqlite { write, .. } = &it.store else { unreachable!() };
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON audit WHEN NEW.action = 't2' \
                  BEGIN SELECT RAISE(ABORT, 'as the test wants it'); END";
    sqlx::query(refuse).execute(write).await.unwrap();
    let (gate, held) = it.holding().await;
    let callers = ["t1", "t2", "t3"].map(|name| it.put(name, End::Well));
    settle().await;
    gate.cancel();
    held.await.unwrap().unwrap();
    let [one, two, three] = callers;
    one.await.unwrap().unwrap();
    assert!(two.await.unwrap().is_err());
    three.await.unwrap().unwrap();
    assert_eq!(it.written().await, ["t1", "t3"]);
    assert_eq!(it.store.verify_audit().await.unwrap().intact().unwrap().rows, 3);
}

#[tokio::test]
async fn a_caller_that_is_gone_holds_nothing() {
    let it = Bench::new().await;
    let (gate, held) = it.holding().await;
    let waiting = it.put("t1", End::Well);
    settle().await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    // This one has begun, and runs to its end without its caller.
    held.abort();
    assert!(held.await.unwrap_err().is_cancelled());
    gate.cancel();
    put(&it.store, "t2", End::Well).await.unwrap();
    assert_eq!(it.written().await, ["t2"], "a piece without a caller is not begun");
}

#[tokio::test]
async fn a_piece_that_hangs_is_rolled_back_and_the_others_go_on() {
    let it = Bench::new().await;
    let hangs = it.put("t1", End::Hang);
    settle().await;
    let begun = Instant::now();
    it.put("t2", End::Well).await.unwrap().unwrap();
    assert!(begun.elapsed() < PIECE * 5, "{:?}", begun.elapsed());
    hangs.abort();
    assert_eq!(it.written().await, ["t2"]);
}

#[tokio::test]
async fn a_commit_that_fails_is_nobodys_success() {
    let it = Bench::new().await;
    let bad = Arc::new(AtomicU32::new(0));
    let hook = Arc::clone(&bad);
    it.on_commit(move || hook.load(Ordering::SeqCst) == 0).await;
    let (gate, held) = it.holding().await;
    let (one, two) = (it.put("t1", End::Well), it.put("t2", End::Conflict));
    settle().await;
    bad.store(1, Ordering::SeqCst);
    gate.cancel();
    assert!(held.await.unwrap().is_ok() || it.written().await.is_empty());
    let ends = [one.await.unwrap(), two.await.unwrap()];
    bad.store(0, Ordering::SeqCst);
    let written = it.written().await;
    for (end, name) in ends.iter().zip(["t1", "t2"]) {
        assert_eq!(end.is_ok(), written.iter().any(|it| it == name), "{name}: {end:?}");
    }
    // The connection is sound again.
    put(&it.store, "t3", End::Well).await.unwrap();
    assert!(it.written().await.contains(&"t3".to_owned()));
}

#[tokio::test]
async fn a_full_disk_is_told_to_the_piece_that_met_it_and_the_others_are_written() {
    let it = Bench::new().await;
    let Store::Sqlite { write, .. } = &it.store else { unreachable!() };
    let (pages,): (i64,) = sqlx::query_as("PRAGMA page_count").fetch_one(write).await.unwrap();
    let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {}", pages + 20));
    sqlx::raw_sql(limit).execute(write).await.unwrap();
    let (gate, held) = it.holding().await;
    let (one, big, two) = (it.put("t1", End::Well), it.put("t2", End::TooBig), it.put("t3", End::Well));
    settle().await;
    gate.cancel();
    held.await.unwrap().unwrap();
    one.await.unwrap().unwrap();
    let end = big.await.unwrap();
    two.await.unwrap().unwrap();
    assert!(matches!(end, Err(StoreError::Full)), "{end:?}");
    assert_eq!(it.written().await, ["t1", "t3"]);
}

#[tokio::test]
async fn what_waits_at_the_end_is_still_written_and_later_work_is_refused() {
    let it = Bench::new().await;
    let (gate, held) = it.holding().await;
    let one = it.put("t1", End::Well);
    settle().await;
    let store = it.store.clone();
    let closing = tokio::spawn(async move { store.close().await });
    settle().await;
    gate.cancel();
    held.await.unwrap().unwrap();
    one.await.unwrap().unwrap();
    closing.await.unwrap();
    assert!(matches!(put(&it.store, "t2", End::Well).await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn the_state_machine_reads_while_somebody_writes() {
    let it = Bench::new().await;
    let (gate, held) = it.holding().await;
    let read = it.store.next_wake("2026-03-01T12:00:00Z".parse().unwrap());
    let read = tokio::time::timeout(Duration::from_secs(5), read).await;
    assert_eq!(read.expect("it waited for the writer").unwrap(), None);
    gate.cancel();
    held.await.unwrap().unwrap();
}
