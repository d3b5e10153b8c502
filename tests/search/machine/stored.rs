//! The stored form of rotations: rows and journals of earlier programs are read, and written back
//! byte by byte as they were. A writer recognises its own commit by these bytes.
//!
//! `rotations.jsonl` and `journal.jsonl` were written by the program as it was before `Rotation` had
//! groups: runs of the machine through every state, one rotation with every field set to a value of
//! its own, and each flag set alone.

use keywheel::domain::policy::Rules;
use keywheel::domain::rotation::machine::next;
use keywheel::domain::rotation::outcome::Outcome;
use keywheel::domain::rotation::state::{Rotation, State};
use keywheel::domain::time::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

const ROTATIONS: &str = include_str!("rotations.jsonl");
const JOURNAL: &str = include_str!("journal.jsonl");

fn stored() -> impl Iterator<Item = (&'static str, Rotation)> {
    ROTATIONS.lines().map(|line| (line, serde_json::from_str(line).unwrap()))
}

#[test]
fn stored_rotations_are_written_back_byte_by_byte() {
    for state in State::ALL {
        assert!(stored().any(|(_, it)| it.state == *state), "no stored rotation is {state}");
    }
    for (line, rotation) in stored() {
        assert_eq!(serde_json::to_string(&rotation).unwrap(), line);
    }
}

#[test]
fn every_stored_field_is_read_from_its_own_name() {
    let (full, _) = stored().find(|(line, _)| !line.contains("null")).expect("one has every field set");
    let before: Value = serde_json::from_str(full).unwrap();
    let optional = ["checks", "gaps"];
    for (name, value) in before.as_object().unwrap() {
        let mut without = before.clone();
        without.as_object_mut().unwrap().remove(name);
        let Ok(read) = serde_json::from_value::<Rotation>(without) else { continue };
        // Absent is the same as null, or as what rows of before the field stand for.
        let after = serde_json::to_value(read).unwrap();
        let empty = after.get(name).is_none_or(|it| it.is_null() || optional.contains(&name.as_str()));
        assert!(empty && after.get(name) != Some(value), "{name} was not read");
        for (other, value) in before.as_object().unwrap().iter().filter(|(other, _)| *other != name) {
            assert_eq!(after.get(other), Some(value), "{other} changed without {name}");
        }
    }
}

#[test]
fn rows_of_before_a_field_stand_for_its_default() {
    for (line, rotation) in stored() {
        let mut old: Value = serde_json::from_str(line).unwrap();
        for name in ["checks", "gaps"] {
            old.as_object_mut().unwrap().remove(name);
        }
        let read: Rotation = serde_json::from_value(old).unwrap();
        assert_eq!((read.readings.gaps, read.observing.checks.len()), (0, 0));
        assert_eq!(
            (read.state, read.patching, read.wake_at),
            (rotation.state, rotation.patching, rotation.wake_at)
        );
    }
}

/// A journal's row: what a transition was decided from, and what was decided.
#[derive(Deserialize)]
struct Entry {
    at: Timestamp,
    to_state: State,
    replay: Value,
}

#[test]
fn stored_journal_rows_replay_to_what_was_decided() {
    assert!(JOURNAL.lines().count() > 30);
    for line in JOURNAL.lines() {
        let mut entry: Entry = serde_json::from_str(line).unwrap();
        entry.replay["before"]["rules"] = json!(Rules::default());
        let before: Rotation = serde_json::from_value(entry.replay["before"].take()).unwrap();
        let outcome: Outcome = serde_json::from_value(entry.replay["outcome"].take()).unwrap();
        let step = next(&before, &outcome, entry.at);
        assert_eq!((step.rotation.state, step.illegal), (entry.to_state, false), "{line}");
    }
}
