//! Headers of replies that hold a time: `Date` and `Retry-After`.

use std::time::Duration;

use chrono::DateTime;

use crate::domain::time::Timestamp;

/// Parses `Retry-After`: seconds, or an instant. An instant in the past is a wait of zero.
#[must_use]
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    Some(now.until(http_date(value)?))
}

/// Parses an HTTP date. The weekday is ignored, and the day may lack its leading zero, as in the
/// dates of Atlas.
#[must_use]
pub fn http_date(value: &str) -> Option<Timestamp> {
    let (_, date) = value.split_once(',')?;
    Some(Timestamp::from_chrono(DateTime::parse_from_rfc2822(date.trim()).ok()?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_with_and_without_a_leading_zero() {
        let expected: Timestamp = "2027-07-01T00:00:00Z".parse().unwrap();
        for text in
            ["Thu, 1 Jul 2027 00:00:00 GMT", "Thu, 01 Jul 2027 00:00:00 GMT", "Mon, 1 Jul 2027 00:00:00 GMT"]
        {
            assert_eq!(http_date(text), Some(expected), "{text}");
        }
        for text in ["", "yesterday", "Thu, 32 Jul 2027 00:00:00 GMT", "2027-07-01", "Thu, 1 Jul é GMT"] {
            assert_eq!(http_date(text), None, "{text}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_an_instant() {
        let now: Timestamp = "2027-07-01T00:00:00Z".parse().unwrap();
        for (text, wait) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("99999999999", Some(99_999_999_999)),
            ("Thu, 1 Jul 2027 00:00:30 GMT", Some(30)),
            ("Thu, 01 Jul 2026 00:00:30 GMT", Some(0)),
            ("-5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(text, now), wait.map(Duration::from_secs), "{text:?}");
        }
    }
}
