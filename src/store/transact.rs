//! The only door to a transaction: named, in a lane, and repeated as a whole.
//!
//! On SQLite the writer's task runs the work (`writer.rs`). On PostgreSQL it runs here, on a connection
//! that the lane has a share of. The argument of repeated work states whether a commit got no answer.
//! Such work must recognise its own earlier write before it attributes that write to another writer.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tracing::{Instrument, Span};

use super::ballots::Compared;
use super::lanes::Lane;
use super::later::Later;
use super::retry::persist;
use super::writer::Piece;
use super::{Seals, Sql, Store, StoreError, Tx, TxConn, each, known_version};

/// The first statement of every transaction.
const SCHEMA: Sql = Sql::same("SELECT MAX(version) FROM _sqlx_migrations");

/// A lock until the end of the transaction. SQLite has one writing transaction at a time and needs none.
const TURN: Sql = Sql {
    sqlite: "SELECT $1 AS turn",
    postgres: "SELECT pg_advisory_xact_lock(hashtextextended($1, 8440)) AS turn",
};

pub(super) const STATEMENTS: &[&Sql] = &[&SCHEMA, &TURN];

/// Timeout for a lane's share of the connections: as long as for a connection.
const SHARE: Duration = Duration::from_secs(5);

/// How many of PostgreSQL's writing connections each lane may take at once. Together they leave two of
/// ten, so that steps and their reads always find one; steps themselves are not bounded.
#[derive(Debug)]
pub struct Shares {
    command: Semaphore,
    intake: Semaphore,
    rest: Semaphore,
}

impl Default for Shares {
    fn default() -> Self {
        Self { command: Semaphore::new(3), intake: Semaphore::new(2), rest: Semaphore::new(3) }
    }
}

impl Shares {
    async fn take(&self, lane: Lane) -> Result<Option<SemaphorePermit<'_>>, StoreError> {
        let share = match lane {
            Lane::Step => return Ok(None),
            Lane::Command => &self.command,
            Lane::Intake => &self.intake,
            Lane::Rest => &self.rest,
        };
        match tokio::time::timeout(SHARE, share.acquire()).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            Ok(Err(_)) | Err(_) => Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)),
        }
    }
}

impl Store {
    /// Runs `work` on `args` in one transaction, which is committed when it succeeds and rolled back when
    /// it does not. The whole transaction is repeated while that may help; the last argument of `work`
    /// states whether an earlier attempt may have been written. `work` must wait for nothing but the
    /// database.
    pub(super) async fn transact<A, T, F>(
        &self,
        name: &'static str,
        lane: Lane,
        args: A,
        work: F,
    ) -> Result<T, StoreError>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
        F: for<'a> Fn(&'a mut Tx, &'a A, bool) -> BoxFuture<'a, Result<T, StoreError>>
            + Send
            + Sync
            + 'static,
    {
        let work = Arc::new((work, args));
        persist(name, |unsure| self.admitted(name, lane, &work, unsure)).await
    }

    /// The same, once. Only for work whose caller has a better repetition of its own; a comment there
    /// names it.
    pub(super) async fn transact_once<A, T, F>(
        &self,
        name: &'static str,
        lane: Lane,
        args: A,
        work: F,
    ) -> Result<T, StoreError>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
        F: for<'a> Fn(&'a mut Tx, &'a A, bool) -> BoxFuture<'a, Result<T, StoreError>>
            + Send
            + Sync
            + 'static,
    {
        self.admitted(name, lane, &Arc::new((work, args)), false).await
    }

    /// One attempt; when the disk is full, another one with the reserve given up.
    async fn admitted<A, T, F>(
        &self,
        name: &'static str,
        lane: Lane,
        work: &Arc<(F, A)>,
        unsure: bool,
    ) -> Result<T, StoreError>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
        F: for<'a> Fn(&'a mut Tx, &'a A, bool) -> BoxFuture<'a, Result<T, StoreError>>
            + Send
            + Sync
            + 'static,
    {
        self.admit(name)?;
        match self.attempt(name, lane, work, unsure).await {
            Err(StoreError::Full) if self.give_up_reserve() && self.admit(name).is_ok() => {
                self.attempt(name, lane, work, unsure).await
            }
            done => done,
        }
    }

    async fn attempt<A, T, F>(
        &self,
        name: &'static str,
        lane: Lane,
        work: &Arc<(F, A)>,
        unsure: bool,
    ) -> Result<T, StoreError>
    where
        A: Send + Sync + 'static,
        T: Send + 'static,
        F: for<'a> Fn(&'a mut Tx, &'a A, bool) -> BoxFuture<'a, Result<T, StoreError>>
            + Send
            + Sync
            + 'static,
    {
        let span = tracing::debug_span!("transaction", transaction = name, lane = ?lane);
        let (value, appended) = match self {
            Store::Sqlite { writer, .. } => {
                let (answer, answered) = oneshot::channel();
                let work = Arc::clone(work);
                writer.send(lane, Box::new(Job { work, unsure, span, answer, value: None }))?;
                match answered.await {
                    Ok(Ok(end)) => end,
                    Ok(Err(payload)) => std::panic::resume_unwind(payload),
                    // The writer's task ended with its runtime, before or after the commit.
                    Err(_) => Err(StoreError::Unsure(sqlx::Error::WorkerCrashed)),
                }?
            }
            Store::Postgres { write, shares, seals, .. } => {
                let attempt = async {
                    let _share = shares.take(lane).await?;
                    let mut tx =
                        Tx::new(TxConn::Postgres(write.begin_with("BEGIN").await?), Arc::clone(seals));
                    tx.check_schema().await?;
                    let value = (work.0)(&mut tx, &work.1, unsure).await?;
                    let appended = tx.commit().await?;
                    Ok::<_, StoreError>((value, appended))
                };
                attempt.instrument(span).await?
            }
        };
        // An earlier attempt without an answer may have appended what this one has only recognised.
        if (appended || unsure)
            && let Some(follow) = self.seals().after_append()
        {
            follow(self.clone()).await;
        }
        Ok(value)
    }
}

impl Tx {
    pub(super) fn new(conn: TxConn, seals: Arc<Seals>) -> Self {
        Self {
            conn,
            head: None,
            seals,
            appended: Vec::new(),
            audit: Later::default(),
            journal: Later::default(),
            compared: Compared::default(),
            held: None,
            followed: false,
        }
    }

    /// Refuses a schema that a newer program has made: this program could misread its rows.
    pub(super) async fn check_schema(&mut self) -> Result<(), StoreError> {
        let (found,): (Option<i64>,) =
            each!(self, SCHEMA, |conn, text| sqlx::query_as(text).fetch_one(conn).await)?;
        let known = known_version();
        match found {
            Some(found) if found > known => Err(StoreError::NewerSchema { found, known }),
            _ => Ok(()),
        }
    }

    /// Waits until no other transaction holds the turn called `name`, and holds it to its end.
    pub(super) async fn take_turn(&mut self, name: &str) -> Result<(), StoreError> {
        each!(self, TURN, |conn, text| sqlx::query(text).bind(name).execute(conn).await.map(drop))?;
        Ok(())
    }

    /// Makes everything in it durable; returns whether it has appended to the audit log. Dropped instead, it is rolled
    /// back.
    pub(super) async fn commit(mut self) -> Result<bool, StoreError> {
        self.write_later().await?;
        self.write_audit_head().await?;
        match self.conn {
            TxConn::Sqlite(tx) => tx.commit().await,
            TxConn::Postgres(tx) => tx.commit().await,
        }
        .map_err(StoreError::from_commit)?;
        self.seals.advance(&self.appended);
        Ok(!self.appended.is_empty())
    }
}

/// One attempt as the writer of SQLite sees it.
struct Job<F, A, T> {
    work: Arc<(F, A)>,
    unsure: bool,
    span: Span,
    answer: oneshot::Sender<std::thread::Result<Result<(T, bool), StoreError>>>,
    value: Option<T>,
}

impl<F, A, T> Piece for Job<F, A, T>
where
    A: Send + Sync + 'static,
    T: Send + 'static,
    F: for<'a> Fn(&'a mut Tx, &'a A, bool) -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync + 'static,
{
    fn is_wanted(&self) -> bool {
        !self.answer.is_closed()
    }

    fn run<'a>(&'a mut self, tx: &'a mut Tx) -> BoxFuture<'a, Result<(), StoreError>> {
        let span = self.span.clone();
        let work = async {
            self.value = Some((self.work.0)(tx, &self.work.1, self.unsure).await?);
            Ok(())
        };
        Box::pin(work.instrument(span))
    }

    fn answer(mut self: Box<Self>, end: Result<bool, StoreError>) {
        let end = match (end, self.value.take()) {
            (Ok(appended), Some(value)) => Ok((value, appended)),
            (Ok(_), None) => return,
            (Err(error), _) => Err(error),
        };
        // A caller that is gone needs no answer.
        let _ = self.answer.send(Ok(end));
    }

    fn panicked(self: Box<Self>, payload: Box<dyn Any + Send>) {
        let _ = self.answer.send(Err(payload));
    }
}
