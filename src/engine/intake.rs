//! Writes events from the hooks into the inbox, many in one durable write, and counts requests and events.
//!
//! A sender gets its reply when its event is on disk. Events that arrive during a write share the next
//! one, so that a disk with a few hundred flushes a second still takes thousands of events. Counts begin
//! at zero with the process. Nothing here reads the content of an event.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::domain::time::Timestamp;
use crate::store::NewEvent;

/// Deliveries that may wait for their write; further ones are refused, and their senders repeat them.
const QUEUE: usize = 4096;
/// Events in one write. A batch of Event Grid has up to 5000 and stays whole.
const BATCH: usize = 1024;

/// Why an event was not written. Its sender repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStored {
    /// The queue is full.
    Full,
    /// The database refused.
    Failed,
}

#[derive(Debug)]
struct Job {
    events: Vec<NewEvent>,
    /// Released when the job is written, whether or not its sender still waits.
    room: Vec<OwnedSemaphorePermit>,
    done: oneshot::Sender<Result<Vec<bool>, NotStored>>,
}

/// The queue to the inbox, and the counts.
#[derive(Debug)]
pub struct Intake {
    queue: mpsc::Sender<Job>,
    waiting: Mutex<Option<mpsc::Receiver<Job>>>,
    tallies: Mutex<BTreeMap<String, Arc<Tally>>>,
}

impl Default for Intake {
    fn default() -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        Self { queue, waiting: Mutex::new(Some(waiting)), tallies: Mutex::default() }
    }
}

impl Intake {
    /// Writes events durably and returns for each whether it is new. `room` holds their permits until then.
    ///
    /// # Errors
    /// Fails when the queue is full or the write failed; the sender must repeat all of them.
    pub async fn store(
        &self,
        events: Vec<NewEvent>,
        room: Vec<OwnedSemaphorePermit>,
    ) -> Result<Vec<bool>, NotStored> {
        let (done, answer) = oneshot::channel();
        self.queue.try_send(Job { events, room, done }).map_err(|_| NotStored::Full)?;
        answer.await.unwrap_or(Err(NotStored::Failed))
    }

    /// Counts for exactly these hooks from now on. A hook that stays keeps its counts.
    pub fn count_for(&self, hooks: impl Iterator<Item = (String, &'static str)>, now: Timestamp) {
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *tallies);
        tallies.extend(hooks.map(|(name, kind)| {
            let kept = before.remove(&name).filter(|it| it.kind == kind);
            (name, kept.unwrap_or_else(|| Arc::new(Tally::new(kind, now))))
        }));
    }

    /// The counts of one hook.
    #[must_use]
    pub fn tally(&self, hook: &str) -> Option<Arc<Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner).get(hook).cloned()
    }

    /// The counts of all hooks.
    #[must_use]
    pub fn tallies(&self) -> BTreeMap<String, Arc<Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Writes queued events until `stop`, and then those queued before it. Ends at once when another task
/// writes already.
pub async fn run(engine: Engine, stop: CancellationToken) {
    let taken = engine.intake.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut waiting) = taken else { return };
    loop {
        let first = tokio::select! {
            job = waiting.recv() => job,
            () = stop.cancelled() => waiting.try_recv().ok(),
        };
        let Some(first) = first else { return };
        let mut jobs = vec![first];
        let mut count = jobs[0].events.len();
        while count < BATCH {
            let Ok(job) = waiting.try_recv() else { break };
            count += job.events.len();
            jobs.push(job);
        }
        write(&engine, jobs).await;
    }
}

async fn write(engine: &Engine, jobs: Vec<Job>) {
    let mut events = Vec::new();
    let mut answers = Vec::new();
    let mut rooms = Vec::new();
    for Job { events: own, room, done } in jobs {
        answers.push((own.len(), done));
        events.extend(own);
        rooms.push(room);
    }
    let written = engine.store.insert_events(events, engine.clock.now()).await;
    let mut new = match written {
        Ok(new) => {
            engine.events_due.notify_one();
            Ok(new.into_iter())
        }
        Err(error) => {
            tracing::error!(error = %error, "events not written; their senders must repeat them");
            Err(NotStored::Failed)
        }
    };
    drop(rooms);
    for (count, done) in answers {
        let own = new.as_mut().map(|new| new.by_ref().take(count).collect()).map_err(|why| *why);
        // A sender that no longer waits repeats the event; the repetition is counted as a duplicate.
        let _ = done.send(own);
    }
}

/// The counts of one hook since the process began.
#[derive(Debug)]
pub struct Tally {
    /// The hook's kind.
    pub kind: &'static str,
    /// The start of the count.
    pub since: Timestamp,
    counts: [AtomicU64; 6],
    refused: Mutex<BTreeMap<&'static str, u64>>,
    last: Mutex<(Option<Timestamp>, Option<Timestamp>)>,
}

/// The names of the counts, beside refusals.
pub const COUNTED: [&str; 6] =
    ["received", "accepted", "duplicate", "irrelevant", "handshake", "unknownSubject"];

impl Tally {
    fn new(kind: &'static str, since: Timestamp) -> Self {
        Self { kind, since, counts: Default::default(), refused: Mutex::default(), last: Mutex::default() }
    }

    fn add(&self, which: usize) {
        self.counts[which].fetch_add(1, Ordering::Relaxed);
    }

    /// A request came.
    pub fn received(&self, now: Timestamp) {
        self.add(0);
        self.last.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(now);
    }

    /// A new event was written.
    pub fn accepted(&self, now: Timestamp) {
        self.add(1);
        self.last.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(now);
    }

    /// An event was in the inbox already.
    pub fn duplicate(&self) {
        self.add(2);
    }

    /// An event of a verified sender and of a kind that is not used.
    pub fn irrelevant(&self) {
        self.add(3);
    }

    /// A sender requested permission to send.
    pub fn handshake(&self) {
        self.add(4);
    }

    /// An event of a verified sender about a project or key that is not tracked.
    pub fn unknown_subject(&self) {
        self.add(5);
    }

    /// A request was refused.
    pub fn refused(&self, reason: &'static str) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    /// The counts, in the order of [`COUNTED`].
    #[must_use]
    pub fn counts(&self) -> [u64; 6] {
        std::array::from_fn(|which| self.counts[which].load(Ordering::Relaxed))
    }

    /// Refusals by reason.
    #[must_use]
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When the last request came, and the last new event.
    #[must_use]
    pub fn last(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
