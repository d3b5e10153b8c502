//! Calendar days in a time zone: where they begin, which one an instant lies in, and the date of a plan as people give it.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Duration, NaiveDate, NaiveTime, TimeZone, Utc};

use super::time::{BadTime, Timestamp};
use super::zone::Zone;

/// The first instant of a day. Where the clocks skip midnight, the day begins later.
#[must_use]
pub fn midnight(day: NaiveDate, zone: Zone) -> Timestamp {
    let start = day.and_time(NaiveTime::MIN);
    let at = (0..24 * 4).find_map(|quarter| {
        let local = start + Duration::minutes(15 * quarter);
        zone.from_local_datetime(&local).earliest()
    });
    Timestamp::from_chrono(at.map_or_else(|| start.and_utc(), |at| at.with_timezone(&Utc)))
}

/// The day of an instant.
#[must_use]
pub fn day_of(at: Timestamp, zone: Zone) -> NaiveDate {
    let at = at.as_chrono();
    // Every date of a plan comes this way, and there are tens of thousands.
    if zone == Zone::UTC { at.date_naive() } else { at.with_timezone(&zone).date_naive() }
}

/// When something is to happen, as people write it: a day, or an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planned {
    /// From the start of this day on, in a zone that is known elsewhere.
    Day(NaiveDate),
    /// From this instant on.
    At(Timestamp),
}

impl Planned {
    /// Its first instant; a day is one of `zone`.
    #[must_use]
    pub fn start(self, zone: Zone) -> Timestamp {
        match self {
            Self::Day(day) => midnight(day, zone),
            Self::At(at) => at,
        }
    }

    /// Whether its day is over. An instant of today that has passed is now.
    #[must_use]
    pub fn is_past(self, zone: Zone, now: Timestamp) -> bool {
        match self {
            Self::Day(day) => day < day_of(now, zone),
            Self::At(at) => day_of(at, zone) < day_of(now, zone),
        }
    }
}

impl FromStr for Planned {
    type Err = BadTime;

    fn from_str(text: &str) -> Result<Self, BadTime> {
        match (text.parse(), DateTime::parse_from_rfc3339(text)) {
            (Ok(day), _) => Ok(Self::Day(day)),
            (_, Ok(at)) => Ok(Self::At(Timestamp::from_chrono(at.with_timezone(&Utc)))),
            // It says what a date looks like.
            (Err(_), Err(_)) => text.parse().map(Self::At),
        }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day(day) => day.fmt(f),
            Self::At(at) => at.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_in_its_zone_and_an_instant_is_exact() {
        let berlin: Zone = "Europe/Berlin".parse().unwrap();
        let day: Planned = "2026-12-12".parse().unwrap();
        assert_eq!(day.start(berlin).to_string(), "2026-12-11T23:00:00.000000Z");
        let at: Planned = "2026-12-12T03:00:00+01:00".parse().unwrap();
        assert_eq!(at.start(berlin).to_string(), "2026-12-12T02:00:00.000000Z");
        assert!("12 Dec".parse::<Planned>().unwrap_err().to_string().contains("a date such as"));
    }

    #[test]
    fn a_day_is_past_when_it_is_over() {
        let day: Planned = "2026-12-12".parse().unwrap();
        assert!(!day.is_past(Zone::UTC, "2026-12-12T23:59:59Z".parse().unwrap()));
        assert!(day.is_past(Zone::UTC, "2026-12-13T00:00:00Z".parse().unwrap()));
    }
}
