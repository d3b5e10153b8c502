//! Silences: for how long the mails of a project wait.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// The longest silence.
pub const LONGEST: Duration = Duration::from_hours(24);

/// A silence of a project, while it lasts and afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// When it began.
    pub began_at: Timestamp,
    /// When it ends, or ended.
    pub ends_at: Timestamp,
    /// The person who asked for it.
    pub by: String,
}

impl Silence {
    /// Whether it lasts at `now`. An end further ahead than any silence is long comes from a clock that was wrong,
    /// and keeps nothing back.
    #[must_use]
    pub fn lasts(&self, now: Timestamp) -> bool {
        now < self.ends_at && self.ends_at <= now + LONGEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_silence_lasts_longer_than_a_day_from_now() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let ends = |ends_at| Silence { began_at: now, ends_at, by: "ada".to_owned() }.lasts(now);
        assert!(ends(now + Duration::from_micros(1)) && ends(now + LONGEST));
        assert!(!ends(now) && !ends(now + LONGEST + Duration::from_micros(1)));
    }
}
