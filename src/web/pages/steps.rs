//! The steps of a rotation: what is done with its time, what goes on now, and what is still to come.
//!
//! They are read from the rotation and its journal. A step that the journal does not show is not claimed.

use super::moment::clock;
use super::word::{self, Word, word};
use crate::api::rotation::Rotation as Shown;
use crate::domain::preflight::Verdict;
use crate::domain::rotation::journal::JournalKind;
use crate::domain::rotation::state::{Deployed, Rotation, State};
use crate::domain::text::visible;
use crate::domain::time::Timestamp;
use crate::store::JournalEntry;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) icon: Word,
    /// For `datetime`, where it is done.
    pub(super) exact: Option<String>,
    /// Such as `13:40:02`, `now` or `after that`.
    pub(super) when: String,
    pub(super) name: String,
    pub(super) detail: String,
    /// `done`, `now` or `later`.
    pub(super) tense: &'static str,
}

const DONE: Word = word("done", "tick", "ok");
const LATER: Word = word("still to come", "circle", "grey");

/// A step that is over, with its instant.
type Past = (Timestamp, String, String);

/// The steps in their order. The names in `shown` have no hidden characters.
pub(super) fn steps(it: &Rotation, shown: &Shown, journal: &[JournalEntry], now: Timestamp) -> Vec<Step> {
    let mut past = permitted(it, shown, journal);
    past.extend(sent(it, journal));
    past.extend(verified(it, shown, journal));
    past.sort_by_key(|(at, ..)| *at);
    let when = |at: Timestamp| {
        let is_today = now.as_chrono().date_naive() == at.as_chrono().date_naive();
        if is_today { clock(at) } else { at.as_chrono().format("%-d %b %H:%M").to_string() }
    };
    let done = |(at, name, detail): Past| Step {
        icon: DONE,
        exact: Some(at.to_string()),
        when: when(at),
        name,
        detail,
        tense: "done",
    };
    let mut steps: Vec<Step> = past.into_iter().map(done).collect();
    if let Some(at) = it.ending.finished_at.filter(|_| it.state.is_final()) {
        let end = word::state(it.state);
        let detail = it.cause.map(|cause| cause.as_str().replace('_', " ")).unwrap_or_default();
        steps.push(Step { icon: end, ..done((at, end.text.to_owned(), detail)) });
        return steps;
    }
    let (name, detail) = present(it, shown, journal);
    let icon = word::state(it.state);
    steps.push(Step { icon, exact: None, when: "now".to_owned(), name, detail, tense: "now" });
    let later = later(it.state, returned(it, journal).is_some());
    for (index, name) in later.iter().enumerate() {
        let when = match index {
            _ if index + 1 == later.len() => "last",
            0 => "after that",
            _ => "then",
        };
        steps.push(Step {
            icon: LATER,
            exact: None,
            when: when.to_owned(),
            name: (*name).to_owned(),
            detail: String::new(),
            tense: "later",
        });
    }
    steps
}

/// The proposal, the approvals and the window.
fn permitted(it: &Rotation, shown: &Shown, journal: &[JournalEntry]) -> Vec<Past> {
    let reason = shown.reason.as_ref().map(|it| format!(": \u{201c}{it}\u{201d}")).unwrap_or_default();
    let mut past = vec![(it.created_at, "Proposed".to_owned(), format!("{}{reason}", shown.requested_by))];
    let given = &shown.approvals.given;
    past.extend(it.permission.approved_at.map(|at| {
        let votes: Vec<String> =
            given.iter().map(|vote| format!("{} at {}", vote.by, &clock(vote.at)[..5])).collect();
        let name = format!("Approved, {} of {}", given.len(), shown.approvals.required);
        (at, name, votes.join(", "))
    }));
    let waited = |entry: &JournalEntry| entry.detail["hold"] == "window";
    if let Some(last) = journal.iter().rposition(waited) {
        past.extend(journal.get(last + 1).map(|entry| (entry.at, "Window opened".to_owned(), String::new())));
    }
    past
}

/// The PATCHes, each key's together, with the last reply.
fn sent(it: &Rotation, journal: &[JournalEntry]) -> Vec<Past> {
    let mut past = Vec::new();
    let patches = |target: &'static str| {
        journal.iter().enumerate().filter(move |(_, entry)| {
            entry.kind == JournalKind::Patch && entry.detail["patch"]["target"] == target
        })
    };
    if let Some((_, first)) = patches("new").next() {
        past.push((first.at, "Looked first".to_owned(), looked(it, first)));
    }
    for (target, name) in [("new", "New key sent to Atlas"), ("old", "Old key sent")] {
        let Some((at, patch)) = patches(target).next_back() else { continue };
        let reply = journal[at..].iter().find(|entry| entry.kind == JournalKind::Reply);
        let told = reply.map_or("no answer yet".to_owned(), |reply| {
            let code = reply.detail["atlasErrorCode"].as_str().map(|it| format!(": {}", visible(it)));
            let said = match reply.detail["reply"].as_str() {
                Some("accepted") => "Atlas accepted it",
                Some("refused") => "Atlas refused it",
                Some("not_taken") => "Atlas put it off",
                Some("auth") => "Atlas did not accept the credential",
                Some("gone") => "the project is gone",
                _ => "it is not known whether Atlas took it",
            };
            format!("{said}{}", code.unwrap_or_default())
        });
        let number = patch.detail["patch"]["attempt"].as_u64().unwrap_or(1);
        past.push((patch.at, name.to_owned(), format!("{told}, attempt {number}")));
    }
    past
}

/// What the observation before the PATCH found.
fn looked(it: &Rotation, patch: &JournalEntry) -> String {
    let valid = match patch.detail["valid"].as_bool() {
        Some(true) => "valid",
        Some(false) => "invalid",
        None => "not said whether valid",
    };
    let count = |verdict| it.observing.checks.iter().filter(|check| check.result == verdict).count();
    let (passed, warned) = (count(Verdict::Pass), count(Verdict::Warn));
    let warned = if warned > 0 { format!(", {warned} warn") } else { String::new() };
    format!("Atlas held the old key, {valid}; {passed} checks pass{warned}")
}

/// When Atlas showed the old key again after it was sent.
fn returned(it: &Rotation, journal: &[JournalEntry]) -> Option<Timestamp> {
    let sent = journal
        .iter()
        .rposition(|entry| entry.kind == JournalKind::Patch && entry.detail["patch"]["target"] == "old")?;
    let old = it.old_key.to_string();
    let shows =
        |entry: &&JournalEntry| entry.kind == JournalKind::Look && entry.detail["key"] == old.as_str();
    journal[sent + 1..].iter().find(shows).map(|entry| entry.at)
}

/// What Atlas showed, and what people and Keywheel made of it.
fn verified(it: &Rotation, shown: &Shown, journal: &[JournalEntry]) -> Vec<Past> {
    let mut past = Vec::new();
    let mut add = |at: Option<Timestamp>, name: &str, detail: String| {
        past.extend(at.map(|at| (at, name.to_owned(), detail)));
    };
    add(it.patching.patched_at, "New key seen", String::new());
    let readings = format!("{} readings in a row were true", shown.readings.required);
    add(it.readings.valid_at, "Proving that it works", readings);
    let deployed = match it.rollout.deployed {
        Some(Deployed::Observed) => clusters(shown),
        Some(Deployed::Assumed) => "assumed: the clusters stayed idle".to_owned(),
        Some(Deployed::No) => "not all clusters were done in time".to_owned(),
        None => String::new(),
    };
    add(it.rollout.deployed_at, "Clusters take it up", deployed);
    add(returned(it, journal), "Old key seen", String::new());
    for entry in journal.iter().filter(|entry| entry.from_state != Some(entry.to_state)) {
        let cause = entry.detail["cause"].as_str().unwrap_or_default().replace('_', " ");
        let by = match entry.detail["comment"].as_str() {
            Some(comment) => format!("{}: \u{201c}{}\u{201d}", visible(&entry.actor), visible(comment)),
            None => visible(&entry.actor),
        };
        match (entry.from_state, entry.to_state) {
            (_, State::NeedsOperator) if it.state != State::NeedsOperator => {
                add(Some(entry.at), "Needed an operator", cause);
            }
            (Some(State::NeedsOperator), to) if !to.is_final() => {
                add(Some(entry.at), "Went on", by);
            }
            (_, State::RollingBack) => {
                add(Some(entry.at), "Going back to the old key", "the new key stayed false".to_owned());
            }
            _ => {}
        }
    }
    past
}

fn clusters(shown: &Shown) -> String {
    let waited = || shown.clusters.iter().filter(|cluster| cluster.exception.is_none());
    let done = waited().filter(|cluster| cluster.seen_updating && cluster.idle >= 2).count();
    format!("{done} of {} clusters", waited().count())
}

/// What goes on now.
fn present(it: &Rotation, shown: &Shown, journal: &[JournalEntry]) -> (String, String) {
    let readings =
        || format!("{} of {} readings in a row are true", shown.readings.in_a_row, shown.readings.required);
    let (name, detail) = match it.state {
        State::AwaitingApproval => {
            let given = format!("{} of {} given", shown.approvals.given.len(), shown.approvals.required);
            ("Waiting for approvals", given)
        }
        State::Approved if it.hold.is_some() => ("Waiting", "the banner says for what".to_owned()),
        State::Approved => ("Looking first", String::new()),
        State::Applying => ("Waiting until Atlas shows the new key", String::new()),
        State::Verifying => ("Proving that it works", readings()),
        State::Deploying => ("Clusters take it up", clusters(shown)),
        State::RollingBack if returned(it, journal).is_some() => ("Proving the old key", readings()),
        State::RollingBack => ("Waiting until Atlas shows the old key", String::new()),
        _ => ("Needs an operator", it.cause.map(|it| it.as_str().replace('_', " ")).unwrap_or_default()),
    };
    (name.to_owned(), detail)
}

/// What comes after the present step, if all goes well.
fn later(state: State, is_returned: bool) -> &'static [&'static str] {
    const FORTH: [&str; 5] =
        ["Approved", "New key sent to Atlas", "Proving that it works", "Clusters take it up", "Completed"];
    const BACK: [&str; 2] = ["Proving the old key", "Rolled back"];
    match state {
        State::AwaitingApproval => &FORTH,
        State::Approved => &FORTH[1..],
        State::Applying => &FORTH[2..],
        State::Verifying => &FORTH[3..],
        State::Deploying => &FORTH[4..],
        State::RollingBack if is_returned => &BACK[1..],
        State::RollingBack => &BACK,
        _ => &[],
    }
}
