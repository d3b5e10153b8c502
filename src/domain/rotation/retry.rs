//! The waits between attempts: doubling, bounded, and spread by a fixed jitter.
//!
//! The jitter is drawn from the rotation's salt and the attempt's number, not from a random source. So
//! the machine stays a pure function, and a journal replays to the same instants.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::outcome::Failure;
use crate::domain::policy::Pace;

/// The wait after the `n`-th failure in a row (counted from 1): `backoff_min` doubling up to
/// `backoff_max`, plus or minus 20 %.
#[must_use]
pub fn backoff(n: u32, pace: &Pace, salt: u64) -> Duration {
    doubled(pace.backoff_min.get(), n, pace.backoff_max.get(), salt)
}

/// The wait before the next call to Atlas after `failure`: at least `Retry-After`. Without it, a rate
/// limit waits 10 s at first and doubles; any other failure waits the plain backoff.
#[must_use]
pub fn wait_after(failure: &Failure, n: u32, pace: &Pace, salt: u64) -> Duration {
    match (failure.retry_after, failure.status) {
        (Some(asked), _) => asked.get() + pace.backoff_min.get().mul_f64(fraction(salt, n)),
        (None, Some(429)) => {
            let floor = pace.rate_limit_floor.get();
            // Jitter only upwards: the floor is a floor.
            doubled(floor, n, floor * 8, salt).max(floor)
        }
        (None, _) => backoff(n, pace, salt),
    }
}

/// The wait after the `n`-th new key in a row that Atlas refused because of the credential: doubling up to the pace of a
/// rotation that waits, because this may last until people act.
#[must_use]
pub fn refused(n: u32, pace: &Pace, salt: u64) -> Duration {
    doubled(pace.backoff_min.get(), n, pace.idle_every.get(), salt)
}

fn doubled(first: Duration, n: u32, most: Duration, salt: u64) -> Duration {
    let factor = 1u32 << n.saturating_sub(1).min(16);
    let plain = first.saturating_mul(factor).min(most);
    plain.mul_f64(0.8 + 0.4 * fraction(salt, n))
}

/// A number in 0..1 that is the same for the same salt and attempt.
fn fraction(salt: u64, n: u32) -> f64 {
    let digest = Sha256::new().chain_update(salt.to_be_bytes()).chain_update(n.to_be_bytes()).finalize();
    f64::from(u16::from_be_bytes([digest[0], digest[1]])) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::rotation::outcome::Class;
    use crate::domain::time::Span;

    fn failure(status: u16, retry_after: Option<Span>) -> Failure {
        Failure {
            class: Class::Transient,
            status: Some(status),
            code: None,
            detail: String::new(),
            retry_after,
        }
    }

    #[test]
    fn waits_double_from_one_second_to_thirty_within_a_fifth() {
        let (pace, salt) = (Pace::default(), 7);
        for (n, plain) in [(1, 1.0), (2, 2.0), (3, 4.0), (5, 16.0), (6, 30.0), (60, 30.0)] {
            let wait = backoff(n, &pace, salt).as_secs_f64();
            assert!((plain * 0.8..=plain * 1.2).contains(&wait), "{n}: {wait}");
            assert_eq!(backoff(n, &pace, salt), backoff(n, &pace, salt));
        }
    }

    #[test]
    fn a_rate_limit_waits_what_it_asks_and_never_less_than_ten_seconds_without() {
        let (pace, salt) = (Pace::default(), 7);
        for n in 1..9 {
            assert!(
                wait_after(&failure(429, Some(Span::from_secs(7))), n, &pace, salt) >= Duration::from_secs(7)
            );
            assert!(wait_after(&failure(429, None), n, &pace, salt) >= Duration::from_secs(10));
            assert!(wait_after(&failure(429, None), n, &pace, salt) <= Duration::from_secs(96));
        }
        // It grows to eight times the floor.
        assert!(wait_after(&failure(429, None), 4, &pace, salt) >= Duration::from_secs(64));
    }

    #[test]
    fn waits_of_rotations_and_of_attempts_are_spread() {
        let pace = Pace::default();
        let longest = Duration::from_secs(30);
        let waits: Vec<Duration> = (0..64).map(|salt| backoff(9, &pace, salt)).collect();
        assert!(waits.iter().any(|wait| *wait < longest) && waits.iter().any(|wait| *wait > longest));
        assert_ne!(backoff(9, &pace, 7), backoff(10, &pace, 7));
    }
}
