//! How a state is said on a page: its word, its icon, and the colour that tells who acts next.
//!
//! Grey: nobody. Green: proven. Blue: Keywheel. Amber: a person, soon. Red: a person, now.

use crate::domain::preflight::{Check, Verdict};
use crate::domain::project::Status;
use crate::domain::rotation::state::State;
use crate::domain::text::visible;

/// A word with its icon and its colour, both names of the stylesheet and of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: &'static str,
    pub(super) icon: &'static str,
    pub(super) colour: &'static str,
}

pub(super) const fn word(text: &'static str, icon: &'static str, colour: &'static str) -> Word {
    Word { text, icon, colour }
}

/// A project's status.
pub(super) const fn status(status: Status) -> Word {
    match status {
        Status::Ok => word("In order", "tick", "grey"),
        Status::DueSoon => word("Due soon", "clock", "warn"),
        Status::Overdue => word("Overdue", "clock", "bad"),
        Status::Rotating => word("Rotating", "turn", "live"),
        Status::NeedsOperator => word("Needs operator", "stop", "bad"),
        Status::Drifted => word("Drifted", "fork", "warn"),
        Status::Invalid => word("Key invalid", "cross", "bad"),
        Status::Unreachable => word("Unreachable", "broken", "warn"),
        Status::UnmanagedVersion => word("No version", "question", "grey"),
        Status::Unknown => word("Unknown", "dashed", "grey"),
    }
}

/// A rotation's state.
pub(super) const fn state(state: State) -> Word {
    match state {
        State::AwaitingApproval => word("Awaiting approval", "person", "warn"),
        State::Approved => word("Approved", "clock", "live"),
        State::Applying => word("Applying", "turn", "live"),
        State::Verifying => word("Verifying", "turn", "live"),
        State::Deploying => word("Deploying", "turn", "live"),
        State::RollingBack => word("Rolling back", "back", "live"),
        State::NeedsOperator => word("Needs operator", "stop", "bad"),
        State::Completed => word("Completed", "tick", "ok"),
        State::RolledBack => word("Rolled back", "back", "grey"),
        State::Failed => word("Failed", "cross", "warn"),
        State::Rejected => word("Rejected", "cross", "grey"),
        State::Cancelled => word("Cancelled", "minus", "grey"),
        State::Expired => word("Expired", "minus", "grey"),
        State::Superseded => word("Superseded", "minus", "grey"),
        State::Closed => word("Closed", "minus", "grey"),
        State::Accepted => word("Accepted", "tick", "grey"),
    }
}

/// The verdict of a check.
pub(super) const fn verdict(verdict: Verdict) -> Word {
    match verdict {
        Verdict::Pass => word("pass", "tick", "ok"),
        Verdict::Warn => word("warning", "warning", "warn"),
        Verdict::Fail => word("fail", "cross", "bad"),
        Verdict::NotChecked => word("not checked", "dashed", "grey"),
    }
}

/// Whether a part is well; `None` where it is not known.
pub(super) const fn sign(is_well: Option<bool>) -> Word {
    match is_well {
        Some(true) => word("well", "tick", "ok"),
        Some(false) => word("not well", "warning", "warn"),
        None => word("not known", "dashed", "grey"),
    }
}

/// Atlas' `valid` at a reading.
pub(super) const fn reading(valid: Option<bool>) -> Word {
    match valid {
        Some(true) => word("true", "tick", "ok"),
        Some(false) => word("false", "cross", "bad"),
        None => word("not reported", "dashed", "grey"),
    }
}

/// The worst first, and what could not be checked before what passed.
pub(super) fn checks(all: &[Check]) -> (Vec<(Word, String, String)>, String) {
    let order = [Verdict::Fail, Verdict::Warn, Verdict::NotChecked, Verdict::Pass];
    let rank = |it: &Check| order.iter().position(|verdict| *verdict == it.result);
    let mut sorted: Vec<&Check> = all.iter().collect();
    sorted.sort_by_key(|it| rank(it));
    let said: Vec<String> = (order.iter().rev())
        .map(|verdict| (self::verdict(*verdict).text, all.iter().filter(|it| it.result == *verdict).count()))
        .filter(|(_, count)| *count > 0)
        .map(|(text, count)| format!("{count} {text}"))
        .collect();
    let line =
        |it: &Check| (self::verdict(it.result), it.name.as_str().replace('_', " "), visible(&it.detail));
    (sorted.into_iter().map(line).collect(), said.join(", "))
}

impl Word {
    /// The icon as SVG of our own, without text from elsewhere.
    pub(super) fn svg(self) -> String {
        let circle =
            r#"<circle cx="8" cy="8" r="6.2" fill="none" stroke="currentColor" stroke-width="1.5"/>"#;
        let line = |path: &str| {
            format!(
                r#"<path d="{path}" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round"/>"#
            )
        };
        let dashed = r#"<circle cx="8" cy="8" r="6.2" fill="none" stroke="currentColor" stroke-width="1.5" stroke-dasharray="2 2"/>"#;
        let inner = match self.icon {
            "tick" => format!("{circle}{}", line("M5 8.2 7.2 10.3 11 6")),
            "clock" => format!("{circle}{}", line("M8 4.8V8l2.2 1.6")),
            "turn" => line("M13.5 8a5.5 5.5 0 1 1-1.7-4M13.5 2v2.6h-2.6"),
            "back" => line("M2.5 8a5.5 5.5 0 1 0 1.7-4M2.5 2v2.6h2.6"),
            "stop" => {
                r#"<path d="M5.2 1.5h5.6l3.7 3.7v5.6l-3.7 3.7H5.2L1.5 10.8V5.2z" fill="currentColor"/><path d="M8 4.5v4M8 11v.4" stroke="var(--surface)" stroke-width="1.6" stroke-linecap="round"/>"#.to_owned()
            }
            "cross" => format!("{circle}{}", line("M5.8 5.8l4.4 4.4M10.2 5.8l-4.4 4.4")),
            "circle" => circle.to_owned(),
            "minus" => format!("{circle}{}", line("M5 8h6")),
            "person" => format!(
                r#"<circle cx="8" cy="5" r="2.6" fill="none" stroke="currentColor" stroke-width="1.5"/>{}"#,
                line("M3 14c.4-3 2.2-4.4 5-4.4s4.6 1.4 5 4.4")
            ),
            "fork" => line("M4 14V2M4 9c4 0 7-1 7-4M8.8 6.6 11 4.6l2.2 2"),
            "broken" => line("M1.5 8h4M10.5 8h4M7 5.5 9 10.5"),
            "warning" => format!("{}{}", line("M8 2 14.5 13.5h-13z"), line("M8 6.5v3M8 11.6v.1")),
            "question" => format!("{circle}{}", line("M6.3 6.3c.2-2.4 3.6-2.2 3.5 0C9.7 7.7 8 7.8 8 9.2M8 11.4v.1")),
            _ => dashed.to_owned(),
        };
        format!(r#"<svg viewBox="0 0 16 16" aria-hidden="true" focusable="false">{inner}</svg>"#)
    }
}
