//! The readings of a rotation on a time axis, from its first PATCH to the end of the verification.
//!
//! A drawing has its sentence beside it, so it is never the only place of a fact. It is made of numbers and times alone,
//! without texts from elsewhere. What a reading means is decided in `domain/rotation/machine`; here it is only shown.

use std::fmt::Write as _;

use super::moment::{clock, setting, span};
use super::progress::hold_end;
use crate::domain::key::KeyRef;
use crate::domain::rotation::journal::JournalKind;
use crate::domain::rotation::state::{Rotation, State, Target};
use crate::domain::time::Timestamp;
use crate::store::JournalEntry;

/// The newest readings that are drawn.
const MOST: usize = 240;

/// Sentences about readings that are not true.
const TOLD: usize = 5;

/// What one observation said about the key that is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    True,
    False,
    NoAnswer,
    OtherKey,
    Absent,
}

/// The strip as a page shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Strip {
    /// Such as `a GET every 15 s, 34 so far; last one 9 s ago: true`.
    pub(super) head: String,
    /// What the drawing shows, in a sentence.
    pub(super) label: String,
    pub(super) svg: String,
    /// On each reading that was not true.
    pub(super) sentences: Vec<String>,
}

/// A line across the axis.
struct Mark {
    at: Timestamp,
    name: &'static str,
    class: &'static str,
}

impl Strip {
    /// `None` before a PATCH that may have been applied.
    pub(super) fn of(it: &Rotation, journal: &[JournalEntry], now: Timestamp) -> Option<Self> {
        let start = it.patching.first_at?;
        let end = it.readings.valid_at.or(it.ending.finished_at);
        let readings = readings(it, journal, start, end);
        let count = |wanted: fn(Reading) -> bool| readings.iter().filter(|(_, it)| wanted(*it)).count();
        let (trues, falses) = (count(|it| it == Reading::True), count(|it| it == Reading::False));
        let others = readings.len() - trues - falses;
        let (count, every) = (readings.len(), setting(it.rules.verify.every));
        let mut head = match end {
            Some(_) => format!("{count} readings, a GET every {every}"),
            None => format!("a GET every {every}, {count} so far"),
        };
        if let (Some((at, last)), None) = (readings.last(), end) {
            let _ = write!(head, "; last one {} ago: {}", span(now.since(*at).as_secs()), last.text());
        }
        Some(Self {
            head,
            label: format!(
                "Readings since the PATCH at {}: {trues} true, {falses} false, {others} without a reading of this key",
                clock(start)
            ),
            svg: svg(&readings, &marks(it, journal, start, end, now)),
            sentences: sentences(it, &readings),
        })
    }
}

impl Reading {
    const fn text(self) -> &'static str {
        match self {
            Self::True => "true",
            Self::False => "false",
            Self::NoAnswer => "no answer",
            Self::OtherKey => "another key",
            Self::Absent => "not said",
        }
    }
}

/// The readings in their order. Equal ones in a row are one entry, and lie evenly between its first and its last.
fn readings(
    it: &Rotation,
    journal: &[JournalEntry],
    start: Timestamp,
    end: Option<Timestamp>,
) -> Vec<(Timestamp, Reading)> {
    let mut target = Target::New;
    let mut all = Vec::new();
    for entry in journal {
        let sends_old = entry.kind == JournalKind::Patch && entry.detail["patch"]["target"] == "old";
        let is_reading = matches!(entry.kind, JournalKind::Look | JournalKind::Blind) || sends_old;
        if is_reading && entry.at >= start && end.is_none_or(|end| entry.at <= end) {
            let count = u32::try_from(entry.count).unwrap_or(1).max(1);
            let step = entry.last_at.since(entry.at) / count.saturating_sub(1).max(1);
            let read = reading(it, entry, target);
            let last = (0..count).rev().take(MOST).rev();
            all.extend(last.map(|index| (entry.at + step.saturating_mul(index), read)));
        }
        if sends_old {
            target = Target::Old;
        }
    }
    all.split_off(all.len().saturating_sub(MOST))
}

fn reading(it: &Rotation, entry: &JournalEntry, target: Target) -> Reading {
    if entry.kind == JournalKind::Blind {
        return Reading::NoAnswer;
    }
    let key = entry.detail["key"].as_str().map(|text| KeyRef::observed(it.provider, text));
    if !key.is_some_and(|key| key.is_same(it.key(target), &it.block.place)) {
        return Reading::OtherKey;
    }
    match entry.detail["valid"].as_bool() {
        Some(true) => Reading::True,
        Some(false) => Reading::False,
        None => Reading::Absent,
    }
}

/// The lines of the axis, the most important first.
fn marks(
    it: &Rotation,
    journal: &[JournalEntry],
    start: Timestamp,
    end: Option<Timestamp>,
    now: Timestamp,
) -> Vec<Mark> {
    let mark = |at, name, class| Mark { at, name, class };
    let mut marks = vec![mark(start, "PATCH", "start")];
    let sends_old = |entry: &&JournalEntry| {
        entry.kind == JournalKind::Patch && entry.detail["patch"]["target"] == "old" && entry.at > start
    };
    let old_sent = journal.iter().find(sends_old).map(|entry| mark(entry.at, "old key sent", "limit"));
    if let Some(at) = end {
        let name = match (it.readings.valid_at, it.state) {
            (Some(_), _) => "proven",
            (None, State::RolledBack) => "old key proven",
            (None, _) => "ended",
        };
        marks.insert(0, mark(at, name, "guard"));
        marks.extend(old_sent.filter(|it| it.at < at));
        return marks;
    }
    marks.splice(0..0, it.patching.guard_deadline.map(|at| mark(at, "guard", "guard")));
    marks.insert(1, mark(now, "now", "now"));
    marks.extend(hold_end(it).map(|at| mark(at, "hold ends", "limit")));
    marks.extend(old_sent);
    let timeout = it.readings.since.filter(|_| it.state == State::Verifying);
    marks.extend(timeout.map(|at| mark(at + it.rules.verify.timeout.get(), "timeout", "limit")));
    marks
}

fn svg(readings: &[(Timestamp, Reading)], marks: &[Mark]) -> String {
    let all = || marks.iter().map(|it| it.at).chain(readings.iter().map(|(at, _)| *at));
    let (Some(from), Some(to)) = (all().min(), all().max()) else { return String::new() };
    let whole = to.since(from).as_secs_f64().max(0.001);
    let place = |at: Timestamp| 1.0 + 98.0 * at.since(from).as_secs_f64() / whole;
    let mut out = String::from(r#"<line class="axis" x1="0" x2="100%" y1="44" y2="44"/>"#);
    let mut labelled: Vec<f64> = Vec::new();
    for it in marks {
        let x = place(it.at);
        let class = it.class;
        let _ = write!(out, r#"<line class="{class}" x1="{x:.2}%" x2="{x:.2}%" y1="18" y2="68"/>"#);
        // Two labels do not fit on less of the axis; on a phone they need more of it.
        let nearest = labelled.iter().map(|other| (other - x).abs()).fold(100.0, f64::min);
        if nearest < 9.0 {
            continue;
        }
        labelled.push(x);
        let anchor = match x {
            ..12.0 => "start",
            88.0.. => "end",
            _ => "middle",
        };
        let width = if nearest < 26.0 { " roomy" } else { "" };
        for (y, text) in [(12, it.name.to_owned()), (82, clock(it.at))] {
            let _ = write!(
                out,
                r#"<text class="{class}{width}" x="{x:.2}%" y="{y}" text-anchor="{anchor}">{text}</text>"#
            );
        }
    }
    for (at, reading) in readings {
        let x = place(*at);
        let _ = match reading {
            Reading::True => write!(out, r#"<line class="true" x1="{x:.2}%" x2="{x:.2}%" y1="28" y2="42"/>"#),
            Reading::False => {
                write!(out, r#"<line class="false" x1="{x:.2}%" x2="{x:.2}%" y1="46" y2="60"/>"#)
            }
            _ => write!(out, r#"<circle class="none" cx="{x:.2}%" cy="44" r="2.7"/>"#),
        };
    }
    out
}

/// On each run of equal readings that are not true.
fn sentences(it: &Rotation, readings: &[(Timestamp, Reading)]) -> Vec<String> {
    let mut told = Vec::new();
    for run in readings.chunk_by(|(_, a), (_, b)| a == b) {
        let [(from, reading), ..] = run else { continue };
        let what = match reading {
            Reading::True => continue,
            Reading::False => "False",
            Reading::NoAnswer => "Not answered",
            Reading::OtherKey => "Atlas did not show this key",
            Reading::Absent => "Atlas did not say whether the key is valid",
        };
        let to = run.last().map_or(*from, |(at, _)| *at);
        let mut text = match run.len() {
            1 => format!("{what} once, at {}", clock(*from)),
            2 => format!("{what} twice, {} to {}", clock(*from), clock(to)),
            many => format!("{what} {many} times, {} to {}", clock(*from), clock(to)),
        };
        if *reading == Reading::False && it.state != State::RolledBack {
            let lasted = span(to.since(*from).as_secs());
            let _ =
                write!(text, ": {lasted} of the {} that are tolerated", setting(it.rules.verify.false_grace));
        }
        told.push(format!("{text}."));
    }
    let more = told.len().saturating_sub(TOLD);
    told.truncate(TOLD);
    if more > 0 {
        told.push(format!("{more} more such times stand in the journal."));
    }
    if it.readings.flaps > 0 {
        told.push(format!(
            "It fell back to false {} of the {} times that are tolerated.",
            it.readings.flaps, it.rules.verify.max_flaps
        ));
    }
    told
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::key::Place;
    use crate::domain::policy::Rules;
    use crate::domain::rotation::outcome::Observation;
    use crate::domain::rotation::state::Proposal;

    const OLD: &str = "11111111-aaaa-4aaa-8aaa-000000000001";
    const NEW: &str = "11111111-aaaa-4aaa-8aaa-000000000002";

    fn at(text: &str) -> Timestamp {
        format!("2026-11-28T{text}Z").parse().unwrap()
    }

    fn rotation() -> Rotation {
        let seen = Observation {
            at: at("15:00:00"),
            provider: None,
            key: OLD.parse().ok(),
            valid: Some(true),
            private_networking: false,
            place: Place::default(),
            block_hash: String::new(),
            skew_ms: None,
            invalid_beside: None,
        };
        let proposal = Proposal {
            group_id: "32b6e34b3d91647abb20e7b8".parse().unwrap(),
            new_key: NEW.parse().unwrap(),
            seen,
            checks: Vec::new(),
            old_key: OLD.parse().unwrap(),
            rules: Rules::default(),
        };
        let mut it = Rotation::propose(proposal, at("15:00:00"));
        it.state = State::Verifying;
        it.patching.first_at = Some(at("15:33:42"));
        it.patching.guard_deadline = Some(at("15:46:42"));
        it.readings.since = Some(at("15:33:57"));
        it
    }

    fn entry(kind: JournalKind, first: &str, last: &str, count: i64, detail: Value) -> JournalEntry {
        JournalEntry {
            seq: 1,
            at: at(first),
            actor: "keywheel".to_owned(),
            kind,
            from_state: Some(State::Verifying),
            to_state: State::Verifying,
            detail,
            count,
            last_at: at(last),
        }
    }

    fn look(first: &str, last: &str, count: i64, key: &str, valid: Option<bool>) -> JournalEntry {
        entry(JournalKind::Look, first, last, count, json!({ "key": key, "valid": valid }))
    }

    #[test]
    fn each_reading_that_was_not_true_has_its_sentence() {
        let journal = [
            look("15:33:40", "15:33:40", 1, OLD, Some(true)), // before the PATCH
            look("15:33:57", "15:33:57", 1, OLD, Some(true)),
            look("15:34:12", "15:34:42", 3, NEW, Some(true)),
            look("15:34:57", "15:35:12", 2, NEW, Some(false)),
            entry(JournalKind::Blind, "15:35:27", "15:35:27", 1, json!({})),
            look("15:35:42", "15:35:42", 1, NEW, Some(true)),
        ];
        let strip = Strip::of(&rotation(), &journal, at("15:35:51")).unwrap();
        assert_eq!(strip.head, "a GET every 15 s, 8 so far; last one 9 s ago: true");
        assert_eq!(
            strip.label,
            "Readings since the PATCH at 15:33:42: 4 true, 2 false, 2 without a reading of this key"
        );
        assert_eq!(
            strip.sentences,
            [
                "Atlas did not show this key once, at 15:33:57.",
                "False twice, 15:34:57 to 15:35:12: 15 s of the 1 min that are tolerated.",
                "Not answered once, at 15:35:27.",
            ]
        );
        assert_eq!(strip.svg.matches(r#"class="true""#).count(), 4);
        assert_eq!(
            Strip::of(
                &Rotation { patching: crate::domain::rotation::state::Patching::default(), ..rotation() },
                &[],
                at("15:35:51")
            ),
            None
        );
    }

    #[test]
    fn after_a_roll_back_the_old_key_is_the_one_that_is_read() {
        let sent = json!({ "key": NEW, "valid": false, "patch": { "target": "old", "attempt": 2 } });
        let journal = [
            look("15:34:12", "15:36:12", 9, NEW, Some(false)),
            entry(JournalKind::Patch, "15:36:20", "15:36:20", 1, sent),
            look("15:36:25", "15:36:25", 1, NEW, Some(false)),
            look("15:36:40", "15:37:10", 3, OLD, Some(true)),
        ];
        let mut it = rotation();
        it.state = State::RolledBack;
        it.ending.finished_at = Some(at("15:37:10"));
        let strip = Strip::of(&it, &journal, at("18:00:00")).unwrap();
        assert_eq!(strip.head, "14 readings, a GET every 15 s");
        assert_eq!(strip.svg.matches(r#"class="true""#).count(), 3);
        assert_eq!(strip.svg.matches(r#"class="false""#).count(), 10);
        assert!(strip.svg.contains("old key sent") && strip.svg.contains("old key proven"), "{}", strip.svg);
        assert!(!strip.svg.contains(">now<"), "{}", strip.svg);
    }

    #[test]
    fn labels_do_not_lie_on_each_other() {
        let mut it = rotation();
        it.patching.guard_deadline = Some(at("15:43:59"));
        let strip = Strip::of(&it, &[], at("15:33:43")).unwrap();
        // The timeout is two seconds before the guard, and now a second after the PATCH.
        assert!(strip.svg.contains(">guard<") && strip.svg.contains(">now<"), "{}", strip.svg);
        assert!(!strip.svg.contains(">timeout<") && !strip.svg.contains(">PATCH<"), "{}", strip.svg);
    }
}
