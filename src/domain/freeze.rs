//! Days on which no new key is sent.
//!
//! A freeze binds the PATCH of a new key and nothing else: a rollback and a running verification go on.

use chrono::{Days, NaiveDate};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::day::midnight;
use super::time::Timestamp;
use super::zone::Zone;

/// The longest freeze, in days: two years.
const LONGEST: i64 = 731;

/// Whole days on which no new key is sent, the first and the last included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// What people call it.
    #[schema(examples("Winter"))]
    pub name: String,
    /// The first day.
    #[schema(value_type = String, format = Date)]
    pub from: NaiveDate,
    /// The last day.
    #[schema(value_type = String, format = Date)]
    pub to: NaiveDate,
    /// An IANA time zone name such as `Europe/Berlin`, in which the days begin and end.
    #[serde(default = "utc")]
    #[schema(examples("Europe/Berlin"))]
    pub timezone: String,
}

fn utc() -> String {
    "UTC".to_owned()
}

impl Freeze {
    /// Why it cannot be used.
    ///
    /// # Errors
    /// The error names the field and the values that it takes.
    pub fn check(&self) -> Result<(), String> {
        if self.name.trim().is_empty() || self.name.chars().count() > 100 {
            return Err("name takes 1 to 100 characters".to_owned());
        }
        if self.timezone.parse::<Zone>().is_err() {
            return Err(format!(
                "timezone {:?} is not an IANA name such as \"Europe/Berlin\"",
                self.timezone
            ));
        }
        match (self.to - self.from).num_days() {
            ..0 => Err(format!("it ends on {}, before it begins on {}", self.to, self.from)),
            LONGEST.. => Err("it takes at most two years".to_owned()),
            _ => Ok(()),
        }
    }

    /// Its first instant, and the first one after it.
    #[must_use]
    pub fn span(&self) -> (Timestamp, Timestamp) {
        let zone = self.timezone.parse().unwrap_or(Zone::UTC);
        let after = self.to.checked_add_days(Days::new(1)).unwrap_or(self.to);
        (midnight(self.from, zone), midnight(after, zone))
    }

    /// Whether it lies in the future or has not ended.
    #[must_use]
    pub fn is_ahead(&self, now: Timestamp) -> bool {
        now < self.span().1
    }
}

/// The freeze that holds at `now`.
#[must_use]
pub fn freeze_at(freezes: &[Freeze], now: Timestamp) -> Option<&Freeze> {
    freezes.iter().find(|it| {
        let (from, end) = it.span();
        from <= now && now < end
    })
}

/// The first instant at or after `now` that lies in no freeze.
#[must_use]
pub fn after_freezes(freezes: &[Freeze], now: Timestamp) -> Timestamp {
    // Each freeze is left at its end, so no more steps than freezes are needed.
    (0..=freezes.len()).fold(now, |at, _| freeze_at(freezes, at).map_or(at, |it| it.span().1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn freeze(from: &str, to: &str, timezone: &str) -> Freeze {
        Freeze {
            name: "Winter".to_owned(),
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            timezone: timezone.to_owned(),
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn both_days_are_included_in_their_own_zone() {
        let it = [freeze("2026-12-14", "2027-01-04", "Europe/Berlin")];
        assert_eq!(it[0].span(), (at("2026-12-13T23:00:00Z"), at("2027-01-04T23:00:00Z")));
        assert!(freeze_at(&it, at("2026-12-13T22:59:59Z")).is_none());
        assert!(freeze_at(&it, at("2026-12-13T23:00:00Z")).is_some());
        assert!(freeze_at(&it, at("2027-01-04T22:59:59Z")).is_some());
        assert!(freeze_at(&it, at("2027-01-04T23:00:00Z")).is_none());
    }

    #[test]
    fn one_freeze_after_another_is_one_wait() {
        let it = [freeze("2026-12-20", "2026-12-31", "UTC"), freeze("2026-12-14", "2026-12-20", "UTC")];
        assert_eq!(after_freezes(&it, at("2026-12-15T12:00:00Z")), at("2027-01-01T00:00:00Z"));
        assert_eq!(after_freezes(&it, at("2026-12-13T12:00:00Z")), at("2026-12-13T12:00:00Z"));
    }

    #[test]
    fn a_day_whose_midnight_is_skipped_begins_later() {
        // Clocks in Beirut went from 0:00 to 1:00 on this day.
        let it = freeze("2024-03-31", "2024-03-31", "Asia/Beirut");
        assert_eq!(it.span().0, at("2024-03-30T22:00:00Z"));
    }

    #[test]
    fn what_cannot_be_a_freeze_is_named() {
        for (it, fault) in [
            (freeze("2026-12-14", "2026-12-13", "UTC"), "before it begins"),
            (freeze("2026-12-14", "2029-12-13", "UTC"), "two years"),
            (freeze("2026-12-14", "2026-12-14", "Berlin"), "timezone"),
            (Freeze { name: " ".to_owned(), ..freeze("2026-12-14", "2026-12-14", "UTC") }, "name"),
        ] {
            assert!(it.check().unwrap_err().contains(fault), "{it:?}");
        }
        assert_eq!(freeze("2026-12-14", "2026-12-14", "Europe/Berlin").check(), Ok(()));
    }
}
