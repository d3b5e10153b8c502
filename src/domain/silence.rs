//! For how long messages about a project wait: its mails in a silence, its reminders after an acknowledged due date.

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

/// How long after the due date an acknowledgement may keep reminders back: the week after which the reminders of an
/// overdue key repeat. Later ones are kept back by nobody, however often somebody acknowledges.
pub const LONGEST_ACKNOWLEDGED: Duration = Duration::from_hours(7 * 24);

/// A due date that a person has acknowledged: the key is to be replaced on a planned day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueAck {
    /// The cycle that it is about; it says nothing about the next key.
    pub cycle: String,
    /// Until when no reminder is given.
    pub until: Timestamp,
    /// Who has acknowledged.
    pub by: String,
}

impl DueAck {
    /// The latest end of an acknowledgement.
    #[must_use]
    pub fn latest(due: Timestamp) -> Timestamp {
        due + LONGEST_ACKNOWLEDGED
    }

    /// Whether it keeps reminders of a key due at `due` back. An end further ahead than any comes from a clock that was
    /// wrong, and keeps nothing back.
    #[must_use]
    pub fn lasts(&self, due: Timestamp, now: Timestamp) -> bool {
        now < self.until && self.until <= Self::latest(due)
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
