//! Calendars as RFC 5545 writes them: whole days, each event with a name that stays and a number that grows.
//!
//! By hand: a feed needs six properties, and the text must be the same for the same events.

use std::fmt::Write as _;

use chrono::{Days, NaiveDate};

use super::time::Timestamp;

/// The longest line in bytes, without its end.
const LINE: usize = 75;

/// An event of whole days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Names the event for good; a reader replaces what it had under this name.
    pub uid: String,
    /// Counts changes of the event.
    pub sequence: i64,
    /// The first day.
    pub from: NaiveDate,
    /// The last day.
    pub to: NaiveDate,
    /// What is shown in the calendar.
    pub summary: String,
    /// What is shown with the event.
    pub description: String,
    /// A page about it.
    pub url: Option<String>,
}

/// The calendar of these events, made at `now`.
#[must_use]
pub fn calendar(name: &str, events: &[Event], now: Timestamp) -> String {
    let mut out = String::new();
    let stamp = now.as_chrono().format("%Y%m%dT%H%M%SZ");
    for line in ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//Keywheel//Keywheel//EN", "CALSCALE:GREGORIAN"] {
        fold(&mut out, line);
    }
    fold(&mut out, &format!("X-WR-CALNAME:{}", escaped(name)));
    fold(&mut out, "REFRESH-INTERVAL;VALUE=DURATION:PT6H");
    for it in events {
        // The end of an event is the first day after it.
        let end = it.to.checked_add_days(Days::new(1)).unwrap_or(it.to);
        fold(&mut out, "BEGIN:VEVENT");
        fold(&mut out, &format!("UID:{}", escaped(&it.uid)));
        fold(&mut out, &format!("DTSTAMP:{stamp}"));
        fold(&mut out, &format!("SEQUENCE:{}", it.sequence));
        fold(&mut out, &format!("DTSTART;VALUE=DATE:{}", it.from.format("%Y%m%d")));
        fold(&mut out, &format!("DTEND;VALUE=DATE:{}", end.format("%Y%m%d")));
        fold(&mut out, &format!("SUMMARY:{}", escaped(&it.summary)));
        fold(&mut out, &format!("DESCRIPTION:{}", escaped(&it.description)));
        if let Some(url) = &it.url {
            fold(&mut out, &format!("URL:{url}"));
        }
        fold(&mut out, "TRANSP:TRANSPARENT");
        fold(&mut out, "END:VEVENT");
    }
    fold(&mut out, "END:VCALENDAR");
    out
}

/// Text as a property holds it.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | ';' | ',' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// Appends a line; a long one goes on in the next, after a space, and no character is cut.
pub fn fold(out: &mut String, line: &str) {
    let mut length = 0;
    for c in line.chars() {
        if length + c.len_utf8() > LINE {
            out.push_str("\r\n ");
            length = 1;
        }
        let _ = write!(out, "{c}");
        length += c.len_utf8();
    }
    out.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(summary: &str) -> String {
        let event = Event {
            uid: "due-32b6e34b3d91647abb20e7b8@keywheel".to_owned(),
            sequence: 7,
            from: "2026-12-14".parse().unwrap(),
            to: "2026-12-14".parse().unwrap(),
            summary: summary.to_owned(),
            description: "one\ntwo".to_owned(),
            url: Some("https://keywheel.example/projects/32b6e34b3d91647abb20e7b8".to_owned()),
        };
        calendar("Keywheel", &[event], "2026-11-28T15:42:10Z".parse().unwrap())
    }

    #[test]
    fn an_event_has_its_days_its_name_and_its_number() {
        let text = made("payments; due, now\\then");
        for line in [
            "UID:due-32b6e34b3d91647abb20e7b8@keywheel",
            "SEQUENCE:7",
            "DTSTAMP:20261128T154210Z",
            "DTSTART;VALUE=DATE:20261214",
            "DTEND;VALUE=DATE:20261215",
            "SUMMARY:payments\\; due\\, now\\\\then",
            "DESCRIPTION:one\\ntwo",
        ] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{line}\n{text}");
        }
    }

    #[test]
    fn lines_are_short_and_unfold_to_what_they_were() {
        let name = "ä".repeat(200) + "\r\nBEGIN:VEVENT";
        let text = made(&name);
        assert!(text.lines().all(|line| line.len() <= LINE));
        let whole = text.replace("\r\n ", "");
        assert!(whole.contains(&format!("SUMMARY:{}\\nBEGIN:VEVENT\r\n", "ä".repeat(200))));
        assert_eq!(whole.matches("\r\nBEGIN:VEVENT\r\n").count(), 1, "a name begins no event");
    }
}
