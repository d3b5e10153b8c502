//! Repeats a transaction that the database aborted or whose connection was lost.
//!
//! Bounded in number and time. A repetition is the whole transaction from its first read on, never a part
//! of it. When the answer to a commit was lost, the argument of the next attempt states so. It must check
//! for its own earlier write before it attributes a conflict to another writer.

use std::future::Future;
use std::time::Duration;

use super::StoreError;

/// The waits between attempts.
const WAITS: [Duration; 5] = [
    Duration::from_millis(20),
    Duration::from_millis(80),
    Duration::from_millis(250),
    Duration::from_millis(600),
    Duration::from_millis(1200),
];

/// How long one attempt may take: longer than the server's own limits, which give a clear answer, and
/// short enough that a dead connection does not hold a step for minutes.
const PATIENCE: Duration = Duration::from_secs(15);

/// Runs `attempt` until it has succeeded, is refused for good, or has failed too often. Its argument
/// states whether an earlier attempt may have been written.
pub(super) async fn persist<T, F>(
    name: &'static str,
    mut attempt: impl FnMut(bool) -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut unsure = false;
    let mut waits = WAITS.into_iter();
    loop {
        let error = match tokio::time::timeout(PATIENCE, attempt(unsure)).await {
            Ok(Err(error)) if error.passes() => error,
            Ok(done) => return done,
            Err(_) => StoreError::Unsure(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
        };
        unsure |= matches!(error, StoreError::Unsure(_));
        let Some(wait) = waits.next() else {
            return Err(match error {
                StoreError::Unavailable(error) if unsure => StoreError::Unsure(error),
                error => error,
            });
        };
        tracing::warn!(transaction = name, error = %error, "transaction {name} is repeated: {error}");
        #[expect(clippy::disallowed_methods, reason = "six short waits at most")]
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> StoreError {
        StoreError::Unavailable(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()))
    }

    #[tokio::test]
    async fn it_is_repeated_a_bounded_number_of_times_and_says_what_is_not_known() {
        let mut told = Vec::new();
        let end: Result<(), _> = persist("test", |unsure| {
            told.push(unsure);
            let second = told.len() == 2;
            async move {
                Err(if second {
                    StoreError::Unsure(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()))
                } else {
                    lost()
                })
            }
        })
        .await;
        assert!(matches!(end, Err(StoreError::Unsure(_))));
        assert_eq!(told, [false, false, true, true, true, true]);
    }

    #[tokio::test]
    async fn a_refusal_is_not_repeated() {
        let mut tries = 0;
        let end: Result<(), _> = persist("test", |_| {
            tries += 1;
            async { Err(StoreError::Conflict) }
        })
        .await;
        assert!(matches!((end, tries), (Err(StoreError::Conflict), 1)));
    }
}
