//! Windows against the calendar: time zones, the two days a year on which clocks change, and a year
//! walked minute by minute by another computation.

use chrono::{DateTime, NaiveDate, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use keywheel::domain::policy::{Policy, Rules, Window};
use keywheel::domain::time::{Span, Timestamp};
use proptest::prelude::*;

fn window(cron: &str, duration: &str, timezone: &str) -> Window {
    let text = serde_json::json!({ "cron": cron, "duration": duration, "timezone": timezone });
    serde_json::from_value(text).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// All starts in `[from, to)`.
fn starts(window: &Window, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
    let mut all = Vec::new();
    let mut now = from - std::time::Duration::from_millis(1);
    while let Some(start) = window.next_start(now).filter(|start| *start < to) {
        assert!(start > now, "{window:?} starts at {start} after {now}");
        all.push(start);
        now = start;
    }
    all
}

#[test]
fn a_window_opens_by_the_clock_on_the_wall_of_its_zone() {
    let it = window("0 0 1 * * *", "4h", "Europe/Berlin");
    assert!(it.is_open(at("2026-01-10T00:00:00Z")) && it.is_open(at("2026-01-10T03:59:59Z")));
    assert!(!it.is_open(at("2026-01-10T04:00:00Z")) && !it.is_open(at("2026-01-09T23:59:59Z")));
    assert!(it.is_open(at("2026-07-09T23:00:00Z")) && !it.is_open(at("2026-07-09T22:59:59Z")));
}

#[test]
fn a_window_keeps_its_length_over_a_change_of_clocks() {
    let it = window("0 0 1 * * *", "4h", "Europe/Berlin");
    // Four hours are four hours: the wall shows 06:00 in spring and 04:00 in autumn.
    assert!(it.is_open(at("2026-03-29T03:59:59Z")) && !it.is_open(at("2026-03-29T04:00:00Z")));
    assert!(it.is_open(at("2026-10-25T02:59:59Z")) && !it.is_open(at("2026-10-25T03:00:00Z")));
}

#[test]
fn a_start_that_the_clocks_skip_or_repeat_comes_once() {
    let it = window("0 30 2 * * *", "1h", "Europe/Berlin");
    let spring = starts(&it, at("2026-03-28T23:00:00Z"), at("2026-03-29T22:00:00Z"));
    assert_eq!(spring, [at("2026-03-29T01:00:00Z")], "skipped, it comes when the clocks have moved on");
    let autumn = starts(&it, at("2026-10-24T22:00:00Z"), at("2026-10-25T23:00:00Z"));
    assert_eq!(autumn, [at("2026-10-25T00:30:00Z")], "repeated, the first counts");
}

#[test]
fn rare_days_come_and_impossible_ones_are_refused() {
    let leap = window("0 0 3 29 2 *", "1h", "UTC");
    assert_eq!(leap.next_start(at("2026-03-01T00:00:00Z")), Some(at("2028-02-29T03:00:00Z")));
    let last = window("0 0 3 31 * *", "1h", "UTC");
    assert_eq!(last.next_start(at("2026-03-31T03:00:00Z")), Some(at("2026-05-31T03:00:00Z")));
    let now = at("2026-03-01T00:00:00Z");
    for (cron, zone, said) in [
        ("0 0 3 30 2 *", "UTC", "matches no date"),
        ("0 0 3 * *", "UTC", "six fields"),
        ("0 0 3 * * *", "Europe/Berln", "not an IANA name"),
    ] {
        let why = window(cron, "1h", zone).check(now).unwrap_err();
        assert!(why.to_string().contains(said), "{cron} {zone}: {why}");
    }
}

#[test]
fn a_day_of_the_month_and_a_day_of_the_week_must_both_fit() {
    let it = window("0 0 1 1-7 * Sat", "4h", "UTC");
    let found = starts(&it, at("2026-01-01T00:00:00Z"), at("2026-04-01T00:00:00Z"));
    assert_eq!(found, [at("2026-01-03T01:00:00Z"), at("2026-02-07T01:00:00Z"), at("2026-03-07T01:00:00Z")]);
    let last = window("0 0 1 25-31 * Mon", "4h", "UTC");
    assert_eq!(last.next_start(at("2026-02-01T00:00:00Z")), Some(at("2026-03-30T01:00:00Z")));
    let day = window("0 0 1 * * Sat", "4h", "Europe/Berlin");
    let next = ["Sat 2026-01-03 01:00", "Sat 2026-01-10 01:00", "Sat 2026-01-17 01:00"];
    assert_eq!(day.openings(at("2026-01-01T00:00:00Z")), next);
}

#[test]
fn an_approval_lasts_to_the_end_of_the_second_window() {
    let windows = vec![window("0 0 1 * * Sat", "4h", "UTC")];
    let policy = Policy { windows, execution_ttl: Span::from_secs(3600), ..Policy::default() };
    // 2026-03-04 is a Wednesday, so the windows end on the 7th and on the 14th.
    assert_eq!(policy.execution_deadline(at("2026-03-04T12:00:00Z")), at("2026-03-14T05:00:00Z"));
    assert_eq!(policy.next_open(at("2026-03-04T12:00:00Z")), Some(at("2026-03-07T01:00:00Z")));
    let patient = Policy { execution_ttl: Span::from_days(30), ..policy };
    assert_eq!(patient.execution_deadline(at("2026-03-04T12:00:00Z")), at("2026-04-03T12:00:00Z"));
}

/// The starts of a daily window in 2026, found by looking at each minute's wall clock.
fn walked(zone: Tz, hour: u32, minute: u32) -> Vec<Timestamp> {
    let start = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
    let mut all = Vec::new();
    let mut last_day = NaiveDate::MIN;
    for number in 0..365 * 24 * 60 {
        let instant: DateTime<Utc> = start + chrono::TimeDelta::minutes(number);
        let wall = instant.with_timezone(&zone);
        // A time that the clocks skipped is over when the next minute shows a later one.
        let reached = (wall.hour(), wall.minute()) >= (hour, minute);
        let before = (instant - chrono::TimeDelta::minutes(1)).with_timezone(&zone);
        let fresh =
            before.date_naive() < wall.date_naive() || (before.hour(), before.minute()) < (hour, minute);
        if reached && fresh && last_day < wall.date_naive() {
            last_day = wall.date_naive();
            all.push(instant.to_rfc3339().parse().unwrap());
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_year_of_starts_is_what_the_walls_showed(hour in 0u32..24, minute in 0u32..60, zone in 0usize..5) {
        let name = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"][zone];
        let walked = walked(name.parse().unwrap(), hour, minute);
        // The first and the last day are cut by the zone's offset.
        let (from, to) = (walked[1], walked[walked.len() - 2]);
        let expected: Vec<_> = walked.into_iter().filter(|it| *it >= from && *it < to).collect();
        let it = window(&format!("0 {minute} {hour} * * *"), "30m", name);
        prop_assert_eq!(starts(&it, from, to), expected);
    }

    #[test]
    fn there_is_always_a_next_opening_and_it_is_open(seconds in 0i64..4 * 365 * 86_400, hours in 1u64..48) {
        let now: Timestamp = (Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap()
            + chrono::TimeDelta::seconds(seconds)).to_rfc3339().parse().unwrap();
        for (cron, zone) in [("0 0 22 * * Fri", "America/New_York"), ("0 30 2 31 * *", "Europe/Berlin"), ("0 0 0 29 2 *", "UTC")] {
            let it = window(cron, &format!("{hours}h"), zone);
            let policy = Policy { windows: vec![it.clone()], ..Policy::default() };
            let opens = policy.next_open(now).unwrap();
            prop_assert!(opens >= now && policy.window_open(opens), "{cron} {zone} {now} {opens}");
            prop_assert!(it.is_open(now) || opens == it.next_start(now).unwrap());
        }
    }
}

/// The policy of a Saturday window, and a freeze over two of them.
fn frozen() -> Policy {
    let winter = serde_json::json!([{ "name": "Winter", "from": "2026-12-14", "to": "2027-01-04" }]);
    Policy {
        windows: vec![window("0 0 1 * * Sat", "4h", "UTC")],
        freezes: serde_json::from_value(winter).unwrap(),
        ..Policy::default()
    }
}

#[test]
fn no_window_opens_in_a_freeze() {
    let it = frozen();
    assert!(it.window_open(at("2026-12-12T01:00:00Z")));
    assert!(!it.window_open(at("2026-12-19T01:00:00Z")) && !it.window_open(at("2027-01-02T01:00:00Z")));
    assert_eq!(it.next_open(at("2026-12-12T05:00:00Z")), Some(at("2027-01-09T01:00:00Z")));
    let without = Policy { windows: Vec::new(), ..it };
    assert!(
        without.window_open(at("2026-12-13T23:59:59Z")) && !without.window_open(at("2026-12-14T00:00:00Z"))
    );
    assert_eq!(without.next_open(at("2026-12-20T12:00:00Z")), Some(at("2027-01-05T00:00:00Z")));
}

#[test]
fn a_window_that_a_freeze_cuts_opens_for_its_rest() {
    let cut = serde_json::json!([{ "name": "Cut", "from": "2026-12-18", "to": "2026-12-18" }]);
    let it = Policy {
        windows: vec![window("0 0 22 * * Fri", "4h", "UTC")],
        freezes: serde_json::from_value(cut).unwrap(),
        ..Policy::default()
    };
    assert_eq!(it.next_open(at("2026-12-17T00:00:00Z")), Some(at("2026-12-19T00:00:00Z")));
    assert!(it.window_open(at("2026-12-19T01:59:59Z")) && !it.window_open(at("2026-12-19T02:00:00Z")));
}

#[test]
fn an_approval_outlasts_a_freeze() {
    let it = frozen();
    // The second window after it is the one of 16 January.
    assert_eq!(it.execution_deadline(at("2026-12-12T05:00:00Z")), at("2027-01-16T05:00:00Z"));
    let without = Policy { windows: Vec::new(), ..it };
    assert_eq!(without.execution_deadline(at("2026-12-20T12:00:00Z")), at("2027-01-12T00:00:00Z"));
    assert_eq!(without.execution_deadline(at("2026-12-01T00:00:00Z")), at("2026-12-08T00:00:00Z"));
}

#[test]
fn a_planned_date_comes_before_windows_and_freezes() {
    let on = |date: &str| Rules { policy: frozen(), planned_for: Some(at(date)), ..Rules::default() };
    let it = on("2026-12-09T00:00:00Z");
    assert!(!it.window_open(at("2026-12-05T02:00:00Z")), "its window is open, its date has not come");
    assert!(it.window_open(at("2026-12-12T02:00:00Z")));
    assert_eq!(it.next_open(at("2026-12-01T00:00:00Z")), Some(at("2026-12-12T01:00:00Z")));
    // A date inside a freeze waits for its end, and then for a window.
    assert_eq!(
        on("2026-12-20T00:00:00Z").next_open(at("2026-12-01T00:00:00Z")),
        Some(at("2027-01-09T01:00:00Z"))
    );
    let plain = Rules { planned_for: Some(at("2026-12-09T00:00:00Z")), ..Rules::default() };
    assert_eq!(plain.execution_deadline(at("2026-12-01T00:00:00Z")), at("2026-12-16T00:00:00Z"));
    assert_eq!(plain.approval_deadline(at("2026-11-20T00:00:00Z")), at("2026-12-09T00:00:00Z"));
    assert_eq!(plain.approval_deadline(at("2026-12-05T00:00:00Z")), at("2026-12-12T00:00:00Z"));
}
