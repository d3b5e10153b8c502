//! Counts connections, and chooses the one to close when there are too many.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The most connections without a complete request.
const SILENT: usize = 512;
/// The most connections in all.
const MOST: usize = 4096;

/// Counts the connections.
#[derive(Default)]
pub(super) struct ConnectionLimiter {
    state: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    all: usize,
    last: u64,
    /// Those without a complete request, in the order in which they fell silent.
    silent: BTreeMap<u64, Waiting>,
}

/// A connection that may be closed for others' sake, unless its sender was authenticated.
struct Waiting {
    leave: CancellationToken,
    authenticated: Arc<AtomicBool>,
}

impl Connections {
    /// Closes the connection that is silent for longest; false when no connection can be closed. An authenticated one
    /// leaves the list instead: it is neither counted nor closed.
    fn shed(&mut self) -> bool {
        while let Some((_, longest)) = self.silent.pop_first() {
            if !longest.authenticated.load(Ordering::Relaxed) {
                longest.leave.cancel();
                return true;
            }
        }
        false
    }
}

impl ConnectionLimiter {
    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit for a new connection; `None` when there are too many and none of them can be closed.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Permit> {
        {
            let mut state = self.lock();
            if state.all >= MOST && !state.shed() {
                return None;
            }
            state.all += 1;
        }
        let permit = Permit {
            limiter: Arc::clone(self),
            own: Mutex::default(),
            open: AtomicUsize::new(0),
            closed: Notify::new(),
            leave: CancellationToken::new(),
            authenticated: Arc::default(),
        };
        permit.falls_silent(&mut permit.own(), &mut self.lock());
        Some(permit)
    }
}

/// One connection.
pub(super) struct Permit {
    limiter: Arc<ConnectionLimiter>,
    own: Mutex<Own>,
    /// Requests whose answers have not been sent whole.
    open: AtomicUsize,
    /// Wakes [`Self::idle_for`] when a request begins or ends.
    closed: Notify,
    /// Cancelled when the connection must go.
    pub(super) leave: CancellationToken,
    /// Set once a sender on this connection was authenticated.
    pub(super) authenticated: Arc<AtomicBool>,
}

#[derive(Default)]
struct Own {
    /// Its key in [`Connections::silent`].
    since: u64,
    /// Complete requests that are not answered yet.
    complete: usize,
}

impl Permit {
    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the connection as silent from now on. Beyond the limit, the one silent for longest is closed.
    fn falls_silent(&self, own: &mut Own, state: &mut Connections) {
        state.silent.remove(&own.since);
        state.last += 1;
        own.since = state.last;
        let waiting = Waiting { leave: self.leave.clone(), authenticated: Arc::clone(&self.authenticated) };
        state.silent.insert(own.since, waiting);
        if state.silent.len() > SILENT {
            state.shed();
        }
    }

    /// Counts a request whose head has come.
    pub(super) fn received(self: &Arc<Self>) -> (Arc<Received>, Open) {
        let mut own = self.own();
        if own.complete == 0 {
            self.falls_silent(&mut own, &mut self.limiter.lock());
        }
        drop(own);
        self.open.fetch_add(1, Ordering::AcqRel);
        self.closed.notify_waiters();
        let received = Received { permit: Arc::clone(self), stage: Mutex::new(Stage::Coming) };
        (Arc::new(received), Open(Arc::clone(self)))
    }

    /// Completes when no request was open for `span`.
    pub(super) async fn idle_for(&self, span: Duration) {
        loop {
            let changed = self.closed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if self.open.load(Ordering::Acquire) > 0 {
                changed.await;
                continue;
            }
            if tokio::time::timeout(span, changed).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let since = self.own().since;
        let mut state = self.limiter.lock();
        state.silent.remove(&since);
        state.all -= 1;
    }
}

/// A request until the last byte of its answer is handed over.
pub(super) struct Open(Arc<Permit>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.closed.notify_waiters();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Coming,
    Complete,
    Answered,
}

/// A request whose head has come.
pub(super) struct Received {
    permit: Arc<Permit>,
    stage: Mutex<Stage>,
}

impl Received {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of it has come. Until its answer the connection is not silent.
    pub(super) fn is_complete(&self) {
        let mut stage = self.stage();
        if *stage != Stage::Coming {
            return;
        }
        *stage = Stage::Complete;
        let mut own = self.permit.own();
        own.complete += 1;
        self.permit.limiter.lock().silent.remove(&own.since);
    }

    /// Counts the request as answered when the result is dropped; a request that the client gives up
    /// counts too.
    pub(super) fn until_answered(self: &Arc<Self>) -> Answering {
        Answering(Arc::clone(self))
    }
}

/// A request that a handler works on.
pub(super) struct Answering(Arc<Received>);

impl Drop for Answering {
    fn drop(&mut self) {
        let mut stage = self.0.stage();
        let before = std::mem::replace(&mut *stage, Stage::Answered);
        let permit = &self.0.permit;
        let mut own = permit.own();
        if before == Stage::Complete {
            own.complete -= 1;
        }
        if own.complete == 0 {
            permit.falls_silent(&mut own, &mut permit.limiter.lock());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter() -> Arc<ConnectionLimiter> {
        Arc::default()
    }

    #[test]
    fn the_connection_silent_for_longest_goes_and_an_authenticated_one_stays() {
        let limiter = limiter();
        let admit = || Arc::new(limiter.admit().unwrap());
        let (known, first) = (admit(), admit());
        known.authenticated.store(true, Ordering::Relaxed);
        let others: Vec<_> = (0..SILENT * 2).map(|_| admit()).collect();
        assert!(!known.leave.is_cancelled() && first.leave.is_cancelled());
        let closed = others.iter().filter(|it| it.leave.is_cancelled()).count();
        assert_eq!(closed, SILENT);
        assert!(others[..SILENT].iter().all(|it| it.leave.is_cancelled()));
    }

    #[test]
    fn a_request_in_hand_keeps_a_connection_and_an_answered_one_does_not() {
        let limiter = limiter();
        let admit = || Arc::new(limiter.admit().unwrap());
        let busy = admit();
        // Two requests at once, as HTTP/2 allows; one is answered, and one was given up by its client.
        let (one, _open) = busy.received();
        let (two, _open_too) = busy.received();
        one.is_complete();
        two.is_complete();
        drop(one.until_answered());
        let flood = |count: usize| (0..count).map(|_| admit()).collect::<Vec<_>>();
        let first = flood(SILENT + 1);
        assert!(!busy.leave.is_cancelled() && first[0].leave.is_cancelled());
        drop(two.until_answered());
        // A body that ends after the answer changes nothing any more.
        two.is_complete();
        drop(first);
        let _second = flood(SILENT);
        assert!(busy.leave.is_cancelled());
    }

    #[tokio::test]
    async fn a_connection_is_idle_only_without_an_open_request() {
        let (span, long) = (Duration::from_millis(1), Duration::from_secs(30));
        let permit = Arc::new(limiter().admit().unwrap());
        let (request, open) = permit.received();
        request.is_complete();
        drop(request.until_answered());
        let idle = permit.idle_for(span);
        let mut idle = std::pin::pin!(idle);
        // The answer is still being sent: an event stream, for example.
        assert!(tokio::time::timeout(span * 20, &mut idle).await.is_err());
        drop(open);
        assert!(tokio::time::timeout(long, &mut idle).await.is_ok());
    }

    #[test]
    fn when_all_places_are_taken_a_silent_stranger_makes_room() {
        let limiter = limiter();
        let busy: Vec<_> = (0..MOST - 1)
            .map(|_| {
                let permit = Arc::new(limiter.admit().unwrap());
                let (request, open) = permit.received();
                request.is_complete();
                (permit, request, open)
            })
            .collect();
        let silent = limiter.admit().unwrap();
        let new = limiter.admit().unwrap();
        assert!(silent.leave.is_cancelled());
        drop(silent);
        new.authenticated.store(true, Ordering::Relaxed);
        assert!(limiter.admit().is_none(), "only busy and authenticated ones are left");
        drop(busy);
        assert!(limiter.admit().is_some());
    }
}
