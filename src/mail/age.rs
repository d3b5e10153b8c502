//! The age of a key beside its cryptoperiod: in words, and as the parts of a bar.

use std::fmt;

use crate::domain::notice::Reminder;

const DAY: u64 = 86_400;

/// Whole days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Age {
    /// Since the key serves.
    pub(super) served: i64,
    /// The cryptoperiod.
    period: i64,
    /// From when on people are reminded.
    remind_from: i64,
}

/// A stretch of the bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Its class in the style sheet, which has it for dark themes.
    pub(super) class: &'static str,
    pub(super) colour: &'static str,
    pub(super) percent: i64,
}

impl Age {
    /// `None` where it is not known since when the key serves.
    pub(super) fn of(it: &Reminder) -> Option<Self> {
        let since = it.key_since.filter(|since| *since < it.due)?;
        let days = |seconds: u64| i64::try_from(seconds / DAY).unwrap_or(i64::MAX);
        let period = days(it.due.since(since).as_secs());
        let remind_from = it.remind_from.map_or(period, |at| days(at.since(since).as_secs()).min(period));
        let served = period.saturating_sub(it.days_left).max(0);
        (period > 0).then_some(Self { served, period, remind_from })
    }

    /// Grey, amber from the first reminder, red after the due date, and what is left; up to 120 % of the cryptoperiod.
    pub(super) fn bar(self) -> Vec<Stretch> {
        let served = self.served.min(self.period.saturating_mul(6) / 5);
        let whole = served.max(self.period);
        let grey = served.min(self.remind_from);
        let amber = served.min(self.period) - grey;
        let red = (served - self.period).max(0);
        let percent = |days: i64| days.saturating_mul(100) / whole;
        let (grey, amber, red) = (percent(grey), percent(amber), percent(red));
        let left = if served < self.period { 100 - grey - amber - red } else { 0 };
        [
            ("bar", "#76818a", grey),
            ("soon", "#c27700", amber),
            ("late", "#cb3630", red),
            ("left", "#e9ecee", left),
        ]
        .into_iter()
        .filter(|(.., percent)| *percent > 0)
        .map(|(class, colour, percent)| Stretch { class, colour, percent })
        .collect()
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} days", self.served, self.period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_changes_its_colour_at_the_first_reminder_and_at_the_due_date() {
        let bar = |served| {
            let age = Age { served, period: 90, remind_from: 60 };
            age.bar().into_iter().map(|it| (it.class, it.percent)).collect::<Vec<_>>()
        };
        assert_eq!(bar(0), [("left", 100)]);
        assert_eq!(bar(45), [("bar", 50), ("left", 50)]);
        assert_eq!(bar(83), [("bar", 66), ("soon", 25), ("left", 9)]);
        assert_eq!(bar(90), [("bar", 66), ("soon", 33)]);
        assert_eq!(bar(1000), [("bar", 55), ("soon", 27), ("late", 16)], "at most 120 %");
        assert_eq!(Age { served: 83, period: 90, remind_from: 60 }.to_string(), "83 of 90 days");
    }
}
