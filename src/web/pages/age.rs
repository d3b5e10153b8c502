//! The age of a key as a drawing: its share of the cryptoperiod, with the due line. The words beside it say the same.
//!
//! Widths are attributes in percent, so no style stands in the page.

use crate::domain::policy::Policy;
use crate::domain::project::{Project, SinceSource};
use crate::domain::time::Timestamp;

const DAY: f64 = 86_400.0;

/// The end of the drawing, as a share of the period.
const END: f64 = 1.2;

/// The age of a project's key.
#[derive(Clone, Debug)]
pub(super) struct Age {
    /// In days, and of how many.
    pub(super) text: String,
    /// Where the bar begins and how wide it is, in percent, by the name of its fill.
    pub(super) bars: Vec<(&'static str, String, String)>,
    /// Where the due line stands, in percent.
    pub(super) due: String,
    /// The reminders that were sent: where, and how many days from the due date.
    pub(super) marks: Vec<(String, i32)>,
    /// The sentence that the drawing shows.
    pub(super) said: String,
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share.clamp(0.0, END) / END * 100.0)
}

#[expect(clippy::cast_precision_loss, reason = "seconds of a few years fit a float")]
fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    from.until(to).as_secs() as f64
}

/// The age of the key of `project`; `None` where it is not known or never due.
pub(super) fn age(project: &Project, defaults: &Policy, sent: &[i32], now: Timestamp) -> Option<Age> {
    let (since, due) = (project.key_since?, project.due(defaults)?);
    let period = seconds(since, due).max(1.0);
    let served = seconds(since, now) / period;
    let policy = project.policy(defaults);
    let first = policy.remind_before.iter().map(|it| it.days()).max().unwrap_or(0);
    let first = (1.0 - f64::from(first) * DAY / period).clamp(0.0, 1.0);
    let bars = [("bar", 0.0, first), ("warn", first, 1.0), ("bad", 1.0, END)].into_iter();
    let bars = bars
        .filter(|(_, from, _)| served > *from)
        .map(|(fill, from, to)| (fill, percent(from), percent(served.min(to) - from)));
    let (days, of) = ((served * period / DAY).floor(), (period / DAY).floor());
    let share = (served * 100.0).floor();
    let least = if project.key_since_source == Some(SinceSource::FirstSeen) { "at least " } else { "" };
    Some(Age {
        text: format!("{least}{days} of {of} d"),
        bars: bars.collect(),
        due: percent(1.0),
        marks: sent.iter().map(|days| (percent(1.0 + f64::from(*days) * DAY / period), *days)).collect(),
        said: format!("{least}{days} of {of} days, {share} %"),
    })
}
