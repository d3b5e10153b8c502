//! SQLite's one writer: a task that owns the writing connection and commits many pieces at once.
//!
//! The task has a thread of its own. Otherwise each statement of a piece would wait behind the requests
//! that the daemon's threads answer first. A flood of requests would delay a rollback.
//!
//! Work waits in lanes. The writer opens a transaction for the first piece, adds the pieces that have
//! arrived meanwhile, and commits them together. Each piece after the first has a savepoint of its own.
//! Pieces that arrive during the commit form the next group. The writer never waits for further pieces.
//! The rows of journal and audit log are written once for the group. When one is refused, the group is rolled back
//! and each of its pieces runs in a transaction of its own, so that only its own caller gets the error.
//! No caller gets an answer before the commit, because the answer may rest on another piece's write. A
//! piece runs here and not in its caller's task, so that a caller that is cancelled, or not polled, never
//! holds the connection.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::SqlitePool;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::lanes::{Lane, Lanes};
use super::{Seals, StoreError, Tx, TxConn};

#[cfg(test)]
mod tests;

/// Pieces in one transaction.
const MOST: usize = 64;

/// After this long a group takes no further piece: the first in it waits for the commit.
const LONGEST: Duration = Duration::from_millis(4);

/// The same while steps wait. Each group costs a flush and the statements that begin and end it, so shorter ones make
/// the last of a crowd of rotations wait longer.
const LONGEST_OF_STEPS: Duration = Duration::from_millis(20);

/// Timeout of one piece. No piece waits for anything but the database.
const PIECE: Duration = if cfg!(test) { Duration::from_secs(2) } else { Duration::from_secs(10) };

/// Work for one transaction, and the caller that waits for its result.
pub(super) trait Piece: Send {
    /// Whether the caller still waits. A piece without a caller is not begun.
    fn is_wanted(&self) -> bool;

    /// Does the work. The result is kept until the commit.
    fn run<'a>(&'a mut self, tx: &'a mut Tx) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Gives the caller the result of the work, and whether its transaction appended to the audit log, or the error that
    /// came instead.
    fn answer(self: Box<Self>, end: Result<bool, StoreError>);

    /// Passes a panic on to the caller.
    fn panicked(self: Box<Self>, payload: Box<dyn Any + Send>);
}

enum Message {
    Piece(Lane, Box<dyn Piece>),
    Stop(oneshot::Sender<()>),
}

/// A handle of the writer. The task ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Writer {
    queue: mpsc::UnboundedSender<Message>,
}

impl Writer {
    /// Starts the task that writes with the connection of `pool`.
    pub(super) fn start(pool: SqlitePool, seals: Arc<Seals>) -> std::io::Result<Self> {
        let (queue, inbox) = mpsc::unbounded_channel();
        let work =
            Queue { inbox, lanes: Lanes::default(), alone: VecDeque::new(), stopping: None, seals }.run(pool);
        let (built, wait_until_built) = std::sync::mpsc::channel();
        // Built in the thread: a runtime must not be dropped in a task, and a failed spawn would drop it here.
        std::thread::Builder::new().name("writer".to_owned()).spawn(move || {
            match tokio::runtime::Builder::new_current_thread().enable_time().build() {
                Ok(runtime) => {
                    let _ = built.send(Ok(()));
                    runtime.block_on(work);
                }
                Err(error) => drop(built.send(Err(error))),
            }
        })?;
        wait_until_built.recv().map_err(std::io::Error::other)??;
        Ok(Self { queue })
    }

    /// Queues `piece` in its lane.
    pub(super) fn send(&self, lane: Lane, piece: Box<dyn Piece>) -> Result<(), StoreError> {
        let message = Message::Piece(lane, piece);
        self.queue.send(message).map_err(|_| StoreError::Unavailable(sqlx::Error::PoolClosed))
    }

    /// Ends the task after the work that waits already. Later work is refused.
    pub(super) async fn stop(&self) {
        let (stopped, end) = oneshot::channel();
        if self.queue.send(Message::Stop(stopped)).is_ok() {
            // The task answers, or is gone already.
            let _ = end.await;
        }
    }
}

struct Queue {
    inbox: mpsc::UnboundedReceiver<Message>,
    lanes: Lanes<Box<dyn Piece>>,
    /// The pieces of a group in which a row was refused.
    alone: VecDeque<Box<dyn Piece>>,
    stopping: Option<oneshot::Sender<()>>,
    seals: Arc<Seals>,
}

impl Queue {
    async fn run(mut self, pool: SqlitePool) {
        loop {
            while let Some(first) = self.next() {
                self.group(&pool, first, MOST).await;
                while let Some(piece) = self.alone.pop_front() {
                    self.group(&pool, piece, 1).await;
                }
            }
            if self.stopping.is_some() {
                break;
            }
            let Some(message) = self.inbox.recv().await else { break };
            self.sort(message);
        }
        if let Some(stopped) = self.stopping {
            let _ = stopped.send(());
        }
    }

    fn sort(&mut self, message: Message) {
        match message {
            Message::Piece(lane, piece) => self.lanes.push(lane, piece),
            Message::Stop(stopped) => {
                self.inbox.close();
                self.stopping = Some(stopped);
            }
        }
    }

    fn receive(&mut self) {
        while let Ok(message) = self.inbox.try_recv() {
            self.sort(message);
        }
    }

    /// Whether a group that is so old takes another piece.
    fn takes_more(&mut self, age: Duration) -> bool {
        if age < LONGEST {
            return true;
        }
        self.receive();
        age < LONGEST_OF_STEPS && self.lanes.waits(Lane::Step)
    }

    /// The next piece whose caller still waits.
    fn next(&mut self) -> Option<Box<dyn Piece>> {
        self.receive();
        std::iter::from_fn(|| self.lanes.pop()).find(|piece| piece.is_wanted())
    }

    /// Runs `first`, and the pieces that have arrived meanwhile, in one transaction of at most `most`.
    async fn group(&mut self, pool: &SqlitePool, first: Box<dyn Piece>, most: usize) {
        let mut tx = match begin(pool, Arc::clone(&self.seals)).await {
            Ok(tx) => tx,
            Err(error) => {
                // The other pieces would fail the same way, each after the same wait.
                while let Some(piece) = self.alone.pop_front().or_else(|| self.next()) {
                    piece.answer(Err(error.for_companion()));
                }
                return first.answer(Err(error));
            }
        };
        let began = Instant::now();
        let mut done = match run(&mut tx, first).await {
            // Nothing else is in the transaction, so all of it is rolled back.
            Ran::Undone(piece, error) => {
                drop(tx);
                return piece.answer(Err(error));
            }
            Ran::Panicked => return,
            Ran::Kept(piece) => vec![(piece, Ok(()))],
        };
        while done.len() < most && self.takes_more(began.elapsed()) {
            let Some(piece) = self.next() else { break };
            if let Err(error) = savepoint(&mut tx, "SAVEPOINT piece").await {
                done.push((piece, Ok(())));
                return fail(done, || StoreError::rolled_back(&error));
            }
            let mark = tx.mark();
            let undone = match run(&mut tx, piece).await {
                Ran::Kept(piece) => {
                    done.push((piece, Ok(())));
                    continue;
                }
                Ran::Undone(piece, error) => Some((piece, error)),
                Ran::Panicked => None,
            };
            // A full disk makes SQLite roll back the whole transaction by itself: the savepoint is gone then.
            if let Err(lost) = savepoint(&mut tx, "ROLLBACK TO piece").await {
                let cause = undone.as_ref().map_or(&lost, |(_, error)| error);
                fail(done, || StoreError::rolled_back(cause));
                return undone.into_iter().for_each(|(piece, error)| piece.answer(Err(error)));
            }
            tx.back_to(mark);
            done.extend(undone.map(|(piece, error)| (piece, Err(error))));
        }
        if done.len() > 1 && tx.write_later().await.is_err() {
            drop(tx);
            self.alone.extend(done.into_iter().map(|(piece, _)| piece));
            return;
        }
        match tx.commit().await {
            Ok(appended) => done.into_iter().for_each(|(piece, end)| piece.answer(end.map(|()| appended))),
            Err(error) => fail(done, || error.for_companion()),
        }
    }
}

async fn begin(pool: &SqlitePool, seals: Arc<Seals>) -> Result<Tx, StoreError> {
    let mut tx = Tx::new(TxConn::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?), seals);
    tx.check_schema().await?;
    Ok(tx)
}

async fn savepoint(tx: &mut Tx, statement: &'static str) -> Result<(), StoreError> {
    let TxConn::Sqlite(tx) = &mut tx.conn else { return Ok(()) };
    sqlx::query(statement).execute(&mut **tx).await?;
    Ok(())
}

/// Answers all pieces of a group that was not committed. A piece's own refusal may rest on another
/// piece's write, which is gone now, so it is replaced too.
fn fail(done: Vec<(Box<dyn Piece>, Result<(), StoreError>)>, error: impl Fn() -> StoreError) {
    for (piece, _) in done {
        piece.answer(Err(error()));
    }
}

enum Ran {
    Kept(Box<dyn Piece>),
    Undone(Box<dyn Piece>, StoreError),
    /// Its caller has the panic.
    Panicked,
}

async fn run(tx: &mut Tx, mut piece: Box<dyn Piece>) -> Ran {
    let work = AssertUnwindSafe(piece.run(tx)).catch_unwind();
    match tokio::time::timeout(PIECE, work).await {
        Ok(Ok(Ok(()))) => Ran::Kept(piece),
        Ok(Ok(Err(error))) => Ran::Undone(piece, error),
        Ok(Err(payload)) => {
            piece.panicked(payload);
            Ran::Panicked
        }
        Err(_) => {
            let error = sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
            Ran::Undone(piece, StoreError::Unavailable(error))
        }
    }
}
