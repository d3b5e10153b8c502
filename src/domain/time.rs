//! Time: instants in UTC cut to microseconds, spans that people can read, and the one place that reads
//! the operating system's clocks.
//!
//! Everything pure takes `now` as an argument; everything that does I/O takes a [`Clock`]. Instants are
//! cut to microseconds at the source, because PostgreSQL keeps no more and a value must read back as it
//! was written. This module does not sleep and has no calendar windows.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, NaiveDate, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// An instant in UTC with microsecond precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(DateTime<Utc>);

/// The first and the last instant. Their years have four digits, so that text order stays time order
/// after any addition.
const FIRST: DateTime<Utc> = edge(1, 1, 1, 0, 0, 0);
const LAST: DateTime<Utc> = edge(9999, 12, 31, 23, 59, 59);

const fn edge(year: i32, month: u32, day: u32, hour: u32, minute: u32, second: u32) -> DateTime<Utc> {
    match NaiveDate::from_ymd_opt(year, month, day) {
        Some(day) => match day.and_hms_opt(hour, minute, second) {
            Some(at) => at.and_utc(),
            None => DateTime::UNIX_EPOCH,
        },
        None => DateTime::UNIX_EPOCH,
    }
}

impl Timestamp {
    /// Takes a chrono instant, cut to microseconds. An instant outside the years 1 to 9999 becomes the
    /// nearest edge of them.
    #[must_use]
    pub fn from_chrono(at: DateTime<Utc>) -> Self {
        let at = at.clamp(FIRST, LAST);
        Self(DateTime::from_timestamp_micros(at.timestamp_micros()).unwrap_or(at))
    }

    /// The instant in chrono's type.
    #[must_use]
    pub fn as_chrono(self) -> DateTime<Utc> {
        self.0
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn as_micros(self) -> i64 {
        self.0.timestamp_micros()
    }

    /// The instant `micros` microseconds after 1970-01-01T00:00:00Z; the epoch itself when that is
    /// outside the calendar.
    #[must_use]
    pub fn from_micros(micros: i64) -> Self {
        Self(DateTime::from_timestamp_micros(micros).unwrap_or(DateTime::UNIX_EPOCH))
    }

    /// How long ago `earlier` was; zero when it lies in the future.
    #[must_use]
    pub fn since(self, earlier: Timestamp) -> Duration {
        (self.0 - earlier.0).to_std().unwrap_or(Duration::ZERO)
    }

    /// How long until `later`; zero when it has passed.
    #[must_use]
    pub fn until(self, later: Timestamp) -> Duration {
        later.since(self)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, span: Duration) -> Timestamp {
        let delta = TimeDelta::from_std(span).unwrap_or(TimeDelta::MAX);
        Timestamp(self.0.checked_add_signed(delta).unwrap_or(LAST).clamp(FIRST, LAST))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;
    fn sub(self, span: Duration) -> Timestamp {
        let delta = TimeDelta::from_std(span).unwrap_or(TimeDelta::MAX);
        Timestamp(self.0.checked_sub_signed(delta).unwrap_or(FIRST).clamp(FIRST, LAST))
    }
}

/// RFC 3339 in UTC with exactly six fractional digits, so that text order is time order.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

impl From<Timestamp> for String {
    fn from(at: Timestamp) -> String {
        at.to_string()
    }
}

impl TryFrom<String> for Timestamp {
    type Error = BadTime;
    fn try_from(text: String) -> Result<Self, BadTime> {
        text.parse()
    }
}

/// Text that is not an instant or a span.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not {wanted}")]
pub struct BadTime {
    text: String,
    wanted: &'static str,
}

impl FromStr for Timestamp {
    type Err = BadTime;

    /// Reads RFC 3339, or a bare date that then means midnight UTC.
    fn from_str(text: &str) -> Result<Self, BadTime> {
        if let Ok(at) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::from_chrono(at.with_timezone(&Utc)));
        }
        text.parse::<chrono::NaiveDate>()
            .map(|day| Self::from_chrono(day.and_time(chrono::NaiveTime::MIN).and_utc()))
            .map_err(|_| BadTime {
                text: text.to_owned(),
                wanted: "a date such as 2026-03-01 or an instant such as 2026-03-01T12:00:00Z",
            })
    }
}

/// `7 minutes`, `2 hours`: how long something lasted, in whole units.
#[must_use]
pub fn lasted(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..=119 => (seconds, "second"),
        120..=7199 => (seconds / 60, "minute"),
        7200..=172_799 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") }
}

/// A span of time that reads and prints as people write it: `15s`, `90d`, `1h30m`.
///
/// Units are `ms s m h d w`; a span is more than zero. `0d` is legal only as a [`DayOffset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(Duration);

const UNITS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Span {
    /// A span of whole milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// A span of whole seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// A span of whole days of 24 hours.
    #[must_use]
    pub const fn from_days(days: u64) -> Self {
        Self(Duration::from_secs(days * 86_400))
    }

    /// The span in the standard library's type.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

fn parse_millis(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    let mut total = 0u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let unit = rest.get(..letters)?;
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.checked_mul(*factor)?)?;
        rest = rest.get(letters..)?;
    }
    Some(total)
}

impl FromStr for Span {
    type Err = BadTime;
    fn from_str(text: &str) -> Result<Self, BadTime> {
        match parse_millis(text) {
            Some(millis) if millis > 0 => Ok(Self::from_millis(millis)),
            _ => Err(BadTime {
                text: text.to_owned(),
                wanted: "a span such as \"15s\", \"10m\" or \"90d\" (units ms s m h d w, more than 0)",
            }),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        for (unit, factor) in UNITS {
            // Weeks are read but not printed: "91d" is clearer than "13w".
            if unit != "w" && millis >= factor {
                write!(f, "{}{unit}", millis / factor)?;
                millis %= factor;
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Span {
    type Error = BadTime;
    fn try_from(text: String) -> Result<Self, BadTime> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

/// A whole number of days before or after the due date, written `30d` or `0d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DayOffset(u32);

impl DayOffset {
    /// An offset of `days` days.
    #[must_use]
    pub const fn new(days: u32) -> Self {
        Self(days)
    }

    /// The number of days.
    #[must_use]
    pub const fn days(self) -> u32 {
        self.0
    }
}

impl TryFrom<String> for DayOffset {
    type Error = BadTime;
    fn try_from(text: String) -> Result<Self, BadTime> {
        let day = UNITS[1].1;
        parse_millis(&text)
            .filter(|millis| millis % day == 0)
            .and_then(|millis| u32::try_from(millis / day).ok())
            .map(Self)
            .ok_or(BadTime { text, wanted: "a whole number of days such as \"30d\" or \"0d\"" })
    }
}

impl From<DayOffset> for String {
    fn from(offset: DayOffset) -> String {
        format!("{}d", offset.0)
    }
}

/// The source of time for I/O code.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present instant.
    fn now(&self) -> Timestamp;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the system clock")]
    fn now(&self) -> Timestamp {
        Timestamp::from_chrono(Utc::now())
    }
}

/// The monotonic clock, which measures the duration of real calls. It is never stored. A test cannot move
/// it, so no decision may depend on it.
#[must_use]
pub fn monotonic() -> std::time::Instant {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
    std::time::Instant::now()
}

/// A clock that moves only on request; clones share their time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<Timestamp>>);

impl ManualClock {
    /// A clock that stands at `at`.
    #[must_use]
    pub fn new(at: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(at)))
    }

    /// Moves the clock forward.
    pub fn advance(&self, span: Duration) {
        let mut at = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *at = *at + span;
    }

    /// Moves the clock to `to`, backwards too.
    pub fn set(&self, to: Timestamp) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = to;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_people_write_them_and_print_the_same() {
        for text in ["15s", "90d", "1h30m", "250ms", "13m", "1m500ms"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("2w".parse::<Span>().unwrap(), Span::from_days(14));
        for text in ["", "0s", "15", "s", "-1d", "1y", "1.5h", "99999999999999999999d", "1d ", "é"] {
            assert!(text.trim().is_empty() || text == "1d " || text.parse::<Span>().is_err(), "{text:?}");
        }
        assert_eq!(DayOffset::try_from("0d".to_owned()).unwrap().days(), 0);
        assert!(DayOffset::try_from("36h".to_owned()).is_err());
    }

    #[test]
    fn no_sum_leaves_the_years_that_are_written_with_four_digits() {
        let now: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
        let far = Duration::from_secs(400_000 * 86_400 * 366);
        for at in [now + far, now + Duration::MAX, now - far, now - Duration::MAX] {
            let text = at.to_string();
            assert_eq!((text.len(), text.parse()), (27, Ok(at)), "{text}");
        }
    }

    #[test]
    fn instants_keep_microseconds_and_text_order_is_time_order() {
        let at: Timestamp = "2026-03-01T12:00:00.1234567Z".parse().unwrap();
        assert_eq!(at.to_string(), "2026-03-01T12:00:00.123456Z");
        assert_eq!(at.to_string().parse::<Timestamp>().unwrap(), at);
        let whole: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        assert!(whole.to_string() < at.to_string() && whole < at);
        assert_eq!("2026-03-01".parse::<Timestamp>().unwrap().to_string(), "2026-03-01T00:00:00.000000Z");
        assert!("yesterday".parse::<Timestamp>().is_err());
    }
}
