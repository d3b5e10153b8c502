//! The one place in which tests wait on the system's clock, and start tasks.
//!
//! Time is a clock that a test passes in. What runs by itself (a process, a socket, a spawned task) is waited for
//! here: a condition that is polled, with a deadline that only a failing test reaches.

use std::time::{Duration, Instant};

/// Deadline for what takes well under a second on an idle machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(5);

/// Polls `look` until it has a value; `None` when the deadline came first.
#[must_use = "a condition that never came true is a failure"]
pub(crate) async fn eventually<T>(within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    tokio::time::timeout(within, async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            pause(POLL).await;
        }
    })
    .await
    .ok()
}

/// The same for a condition that needs no runtime.
#[must_use = "a condition that never came true is a failure"]
pub(crate) fn eventually_blocking<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Stopwatch::start();
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if started.elapsed() > within {
            return None;
        }
        #[expect(clippy::disallowed_methods, reason = "there is no runtime to hold up")]
        std::thread::sleep(POLL);
    }
}

/// Lets real time pass, where a test says when a process is killed or how slow a network is.
pub(crate) async fn pause(span: Duration) {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    tokio::time::sleep(span).await;
}

/// Real time that passes, for a bound on something real.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(keywheel::domain::time::monotonic())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Starts a task that ends with the test's runtime.
#[expect(clippy::disallowed_methods, reason = "a test has no shutdown to be waited for")]
pub(crate) fn spawn<F>(task: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(task)
}
