//! What Keywheel does by itself while a rotation is under way: the sentences of the banner and the countdown to the guard.
//!
//! What people have to do stands elsewhere. Nothing is decided here: the rules that the sentences tell are those of
//! `domain/rotation/machine`.

use super::moment::{clock, moment, setting, span};
use crate::domain::rotation::state::{Rotation, State, Target};
use crate::domain::text::visible;
use crate::domain::time::Timestamp;
use crate::store::JournalEntry;

/// The banner of a rotation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) heading: &'static str,
    pub(super) sentences: Vec<String>,
    pub(super) countdown: Option<Countdown>,
}

/// The time that is left of the guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Countdown {
    /// Its end, for the script.
    pub(super) exact: String,
    /// Its end as a time of day.
    pub(super) clock: String,
    pub(super) left: String,
    /// The whole guard.
    pub(super) of: String,
}

impl Progress {
    pub(super) fn of(it: &Rotation, entries: &[JournalEntry], now: Timestamp) -> Self {
        let (heading, sentences) = match it.state {
            State::Applying => (
                ALONE,
                vec!["If Atlas still shows the old key when the guard ends, the rotation has failed and the old key serves on.".to_owned()],
            ),
            State::Verifying => (ALONE, verifying(it, now)),
            State::RollingBack => (
                ALONE,
                vec![format!(
                    "The old key goes back to Atlas: {} of {} readings of it in a row are true. If at the guard nothing is proven, Keywheel stops and pages a person.",
                    it.readings.trues, it.rules.verify.readings
                )],
            ),
            State::Deploying => (ALONE, vec![deploying(it)]),
            State::AwaitingApproval | State::NeedsOperator => ("", Vec::new()),
            State::Approved => (ALONE, Vec::new()),
            _ => ("It has ended.", ended(it.state, entries, now).into_iter().collect()),
        };
        let is_guarded = matches!(it.state, State::Applying | State::Verifying | State::RollingBack);
        let guard = it.patching.guard_deadline.filter(|at| is_guarded && *at > now);
        let countdown = guard.map(|at| Countdown {
            exact: at.to_string(),
            clock: clock(at),
            left: span(now.until(at).as_secs()),
            of: setting(it.rules.verify.guard),
        });
        Self { heading, sentences, countdown }
    }
}

const ALONE: &str = "Nothing for you to do. Keywheel decides by itself.";

/// Who ended it, when, and in which words, where that was a person.
fn ended(state: State, entries: &[JournalEntry], now: Timestamp) -> Option<String> {
    let did = match state {
        State::Rejected => "rejected",
        State::Cancelled => "cancelled",
        State::Accepted => "accepted",
        State::Closed => "closed",
        _ => return None,
    };
    let last = entries.iter().rev().find(|it| it.to_state == state && it.from_state != Some(state))?;
    let at = moment(last.at, now);
    let words = last.detail["comment"]
        .as_str()
        .map_or(".".to_owned(), |text| format!(": \u{201c}{}\u{201d}", visible(text)));
    Some(format!("{} {did} it {}, {}{words}", visible(&last.actor), at.relative, at.absolute))
}

fn verifying(it: &Rotation, now: Timestamp) -> Vec<String> {
    let (verify, trues) = (&it.rules.verify, it.readings.trues);
    let times = if trues == 1 { "once" } else { "times in a row" };
    let count = if trues == 1 { String::new() } else { format!("{trues} ") };
    let mut told = vec![format!(
        "Atlas holds the new key and has called it valid {count}{times}; {} are needed.",
        verify.readings
    )];
    told.extend(
        hold_end(it).filter(|at| *at > now).map(|at| {
            format!("Because of the private network it goes on observing until {} UTC.", clock(at))
        }),
    );
    let back = if it.rollback.old_key_was_valid {
        "the old one goes back"
    } else {
        "Keywheel stops and pages a person"
    };
    told.push(format!(
        "Should the key be bad for longer than {}, {back}. If at the guard nothing is proven, Keywheel stops and pages a person.",
        setting(verify.false_grace)
    ));
    vec![told.join(" ")]
}

/// Until when true readings verify nothing, because the nodes behind a private network report late.
pub(super) fn hold_end(it: &Rotation) -> Option<Timestamp> {
    let is_private = it.observing.last.as_ref().is_some_and(|seen| seen.private_networking);
    let patch = it.patching.latest.as_ref().filter(|patch| is_private && patch.target == Target::New)?;
    Some(patch.sent_at + it.rules.verify.private_network_hold.get())
}

fn deploying(it: &Rotation) -> String {
    let waited: Vec<_> = it.rollout.clusters.iter().filter(|cluster| cluster.exception.is_none()).collect();
    let done = waited.iter().filter(|cluster| cluster.seen_updating && cluster.idle >= 2).count();
    format!(
        "The new key is proven. {done} of {} clusters were seen to take it up; it ends by itself.",
        waited.len()
    )
}
