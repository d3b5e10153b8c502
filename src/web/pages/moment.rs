//! Instants on a page: relative first, the absolute time beside it, both in view.

use std::fmt::Write as _;

use chrono::Datelike as _;

use crate::domain::time::{Span, Timestamp};

/// An instant as a page shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// For `datetime`.
    pub(super) exact: String,
    /// Such as `in 6 days` or `9 min ago`; rounded down.
    pub(super) relative: String,
    /// Such as `5 Dec 13:40 UTC`.
    pub(super) absolute: String,
    /// Such as `5 Dec`, for lists.
    pub(super) day: String,
    /// Whether it lies behind.
    pub(super) is_past: bool,
}

/// `at`, seen from `now`.
pub(super) fn moment(at: Timestamp, now: Timestamp) -> Moment {
    let relative = if at > now {
        format!("in {}", span(now.until(at).as_secs()))
    } else {
        format!("{} ago", span(now.since(at).as_secs()))
    };
    let (at, is_past, this_year) = (at.as_chrono(), at <= now, now.as_chrono().year());
    let (absolute, day) = if at.year() == this_year {
        ("%-d %b %H:%M UTC", "%-d %b")
    } else {
        ("%-d %b %Y %H:%M UTC", "%-d %b %Y")
    };
    Moment {
        exact: at.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
        relative,
        absolute: at.format(absolute).to_string(),
        day: at.format(day).to_string(),
        is_past,
    }
}

/// A day, such as `2 Sep 2026`.
pub(super) fn day(at: Timestamp) -> String {
    at.as_chrono().format("%-d %b %Y").to_string()
}

/// A clock time of a page that was made `at`.
pub(super) fn made(at: Timestamp) -> String {
    at.as_chrono().format("%a %-d %b %Y, %H:%M:%S UTC").to_string()
}

/// The time of day, such as `15:42:10`.
pub(super) fn clock(at: Timestamp) -> String {
    at.as_chrono().format("%H:%M:%S").to_string()
}

/// Seconds under a minute, minutes and hours with what is left, then whole days.
pub(super) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let mut text = String::new();
    let _ = match (days, hours, minutes) {
        (0, 0, 0) => write!(text, "{seconds} s"),
        (0, 0, _) => write!(text, "{minutes} min {} s", seconds % 60),
        (0, ..) => write!(text, "{hours} h {} min", minutes % 60),
        (1, ..) => write!(text, "1 day"),
        _ => write!(text, "{days} days"),
    };
    text
}

/// The same for a setting: a unit that is 0 is left out.
pub(super) fn setting(span_of: Span) -> String {
    match span_of.get().as_secs() {
        0 => span_of.to_string(),
        seconds => {
            let text = span(seconds);
            text.strip_suffix(" 0 s").or(text.strip_suffix(" 0 min")).unwrap_or(&text).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_rounded_down() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (272, "4 min 32 s"),
            (29_900, "8 h 18 min"),
            (86_400, "1 day"),
            (604_799, "6 days"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn a_setting_names_no_zero() {
        for (given, text) in [("13m", "13 min"), ("6h", "6 h"), ("90s", "1 min 30 s"), ("300ms", "300ms")] {
            assert_eq!(setting(given.parse().unwrap()), text);
        }
    }

    #[test]
    fn an_instant_is_said_from_both_sides() {
        let now: Timestamp = "2026-11-28T15:42:10Z".parse().unwrap();
        let it = moment("2026-12-05T13:40:00Z".parse().unwrap(), now);
        assert_eq!((it.relative.as_str(), it.absolute.as_str()), ("in 6 days", "5 Dec 13:40 UTC"));
        assert_eq!(moment("2026-11-28T15:33:10Z".parse().unwrap(), now).relative, "9 min 0 s ago");
    }
}
