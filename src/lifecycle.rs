//! Starting and ending of long-lived tasks.
//!
//! A [`Shutdown`] is passed to every task that runs for long; nothing is static. The first SIGTERM or
//! SIGINT requests every task to finish (state is durable, so parking a rotation is free). The second
//! ends the process at once with exit code 1. A task that returns or panics without that request ends the
//! whole process with exit code 1: a daemon that runs without its driver would look healthy and rotate
//! nothing. The order in which parts stop is not decided here.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The request to end, and the tasks that receive it. Clones share both.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
    died: Arc<AtomicBool>,
}

impl Shutdown {
    /// A process that runs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The token to select on; cancelled once the process should end.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Requests every task to finish.
    pub fn begin(&self) {
        self.token.cancel();
    }

    /// Whether the process should end.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Completes once the process should end.
    pub async fn ending(&self) {
        self.token.cancelled().await;
    }

    /// Runs a task that must live as long as the process. When it ends without a request, the process
    /// ends.
    pub fn spawn_named<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let own = self.clone();
        self.tasks.spawn(async move {
            let end = std::panic::AssertUnwindSafe(task).catch_unwind().await;
            match end {
                // The panic hook has printed the panic's message already.
                Err(_) => own.fail(name, "panicked"),
                Ok(()) if !own.is_ending() => own.fail(name, "ended without a request"),
                Ok(()) => tracing::debug!(task.name = name, "task ended"),
            }
        });
    }

    /// As [`spawn_named`](Self::spawn_named), for a task that may be [cut short](cut_short).
    pub fn spawn_watching<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_named(name, cut_short(task, self.token()));
    }

    /// Runs a task that may end at any time but must be waited for.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task);
    }

    fn fail(&self, name: &'static str, how: &str) {
        tracing::error!(task.name = name, "the task {name} {how}; the process ends");
        self.died.store(true, Ordering::SeqCst);
        self.begin();
    }

    /// Begins the end and waits for every task, at most `limit`. The exit code is a failure when a task
    /// died or did not finish.
    pub async fn finish(&self, limit: Duration) -> ExitCode {
        self.begin();
        self.tasks.close();
        let drained = tokio::time::timeout(limit, self.tasks.wait()).await.is_ok();
        if !drained {
            tracing::warn!(
                tasks = self.tasks.len(),
                "tasks did not finish before the shutdown timeout and are dropped"
            );
        }
        if drained && !self.died.load(Ordering::SeqCst) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Listens for SIGTERM and SIGINT from now on.
    ///
    /// # Errors
    /// Fails when the operating system does not allow handlers to be installed.
    pub fn listen(&self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let own = self.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "it lives until the second signal, and shutdown does not wait for it"
        )]
        tokio::spawn(async move {
            either(&mut terminate, &mut interrupt).await;
            tracing::info!("shutdown: a signal arrived; a second one ends the process at once");
            own.begin();
            either(&mut terminate, &mut interrupt).await;
            tracing::warn!(
                "shutdown: a second signal ends the process at once; open work continues at the next start"
            );
            std::process::exit(1);
        });
        Ok(())
    }
}

/// Waits for `span`; a stop ends every wait.
pub async fn pause(span: Duration, stop: &CancellationToken) {
    #[expect(clippy::disallowed_methods, reason = "this is the wait that a stop ends")]
    let passed = tokio::time::sleep(span);
    tokio::select! {
        () = passed => {}
        () = stop.cancelled() => {}
    }
}

/// How long [`cut_short`] lets work end by itself after a stop. It is enough for a write, and not for a call that hangs.
const GRACE: Duration = Duration::from_secs(3);

/// Runs work that observes and writes down what it observed. When it has not ended a few seconds after a stop, it is
/// dropped where it stands: an answer that does not come must not keep the process from ending, and what was not written
/// down is observed again at the next start.
pub async fn cut_short(work: impl Future<Output = ()>, stop: CancellationToken) {
    ends_after(work, GRACE, &stop).await;
}

/// Runs `work`, and drops it when it has not ended `grace` after a stop.
pub async fn ends_after(work: impl Future<Output = ()>, grace: Duration, stop: &CancellationToken) {
    #[expect(clippy::disallowed_methods, reason = "it begins with the stop, and ends what does not hear it")]
    let over = async {
        stop.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        () = work => {}
        () = over => {}
    }
}

/// Waits between two rounds of work: until `wake` completes, for `longest`, or until `stop`.
pub async fn wait(wake: impl Future<Output = ()>, longest: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = wake => {}
        () = pause(longest, stop) => {}
    }
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_wait_ends_by_news_by_time_or_by_a_stop() {
        let (stop, news) = (CancellationToken::new(), tokio::sync::Notify::new());
        // A notification from the round before ends the wait at once.
        news.notify_one();
        wait(news.notified(), Duration::MAX, &stop).await;
        wait(news.notified(), Duration::from_millis(1), &stop).await;
        stop.cancel();
        wait(news.notified(), Duration::MAX, &stop).await;
    }

    fn succeeded(code: ExitCode) -> bool {
        format!("{code:?}") == format!("{:?}", ExitCode::SUCCESS)
    }

    #[tokio::test]
    async fn tasks_that_end_when_asked_are_a_success() {
        let shutdown = Shutdown::new();
        let token = shutdown.token();
        shutdown.spawn_named("obedient", async move { token.cancelled().await });
        assert!(succeeded(shutdown.finish(LONG).await));
    }

    #[tokio::test]
    async fn a_task_that_returns_or_panics_ends_everything_with_a_failure() {
        for panics in [false, true] {
            let shutdown = Shutdown::new();
            shutdown.spawn_named("mortal", async move { assert!(!panics, "on purpose") });
            shutdown.ending().await;
            assert!(!succeeded(shutdown.finish(LONG).await));
        }
    }

    #[tokio::test]
    async fn work_that_hangs_is_dropped_after_a_stop_and_not_before() {
        let (stop, grace) = (CancellationToken::new(), Duration::from_millis(1));
        let mut hanging = std::pin::pin!(ends_after(std::future::pending(), grace, &stop));
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut hanging).await.is_err());
        stop.cancel();
        hanging.await;
        ends_after(async {}, LONG, &stop).await;
    }

    #[tokio::test]
    async fn a_task_that_does_not_hear_is_dropped_after_the_limit() {
        let shutdown = Shutdown::new();
        shutdown.spawn(std::future::pending());
        assert!(!succeeded(shutdown.finish(Duration::from_millis(10)).await));
    }
}
