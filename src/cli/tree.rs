//! A rotation as a tree: the states that it passed, what the present one waits for, its readings, clusters and
//! checks, and how to end it.
//!
//! The time is an argument and nothing is read or printed here, so every verb that shows a rotation shows it alike.
//! Reasons that the server finds (who may approve, when a window opens, the remedy of a cause) are its own
//! sentences.

use std::time::Duration;

use super::printer::{cell, tally};
use super::screen::{Line, Mood, Screen, wrap};
use crate::api::rotation::{Cluster, JournalEntry, Rotation};
use crate::domain::preflight::Verdict;
use crate::domain::rotation::state::{Cause, State};
use crate::domain::text::visible;
use crate::domain::time::Timestamp;

/// The identity of the engine in the journal.
const ENGINE: &str = "keywheel";
/// The width of the names of facts.
const LABEL: usize = 11;
/// The most readings in a row of marks; the newest are shown.
const MARKS: usize = 24;
/// Names in a list; the others are counted.
const NAMED: usize = 6;

/// How much of a rotation is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// In few lines, beside other rotations.
    Brief,
    /// Everything, with the checklist as one line.
    Full,
    /// Everything, with every check.
    Checks,
}

/// The signs of a tree.
struct Signs {
    fork: &'static str,
    last: &'static str,
    trunk: &'static str,
    passed: &'static str,
    present: &'static str,
    page: &'static str,
    bad: &'static str,
    absent: &'static str,
}

const UNICODE: Signs = Signs {
    fork: "\u{251c}\u{2500} ",
    last: "\u{2514}\u{2500} ",
    trunk: "\u{2502}  ",
    passed: "\u{2713}",
    present: "\u{25cf}",
    page: "!",
    bad: "\u{2717}",
    absent: "?",
};
const ASCII: Signs = Signs {
    fork: "|- ",
    last: "`- ",
    trunk: "|  ",
    passed: "+",
    present: "*",
    page: "!",
    bad: "x",
    absent: "?",
};

impl Signs {
    fn of(screen: &Screen) -> &'static Self {
        if screen.ascii { &ASCII } else { &UNICODE }
    }

    /// The mark of a state that was passed to `next`, or of the present one.
    fn mark(&self, state: State, next: Option<State>) -> (&'static str, Option<Mood>) {
        let mood = Mood::of("state", state.as_str());
        match state {
            _ if matches!(next, Some(State::RollingBack | State::NeedsOperator)) => {
                (self.bad, Some(Mood::Bad))
            }
            State::NeedsOperator => (self.page, Some(Mood::Bad)),
            State::Failed | State::RolledBack => (self.bad, Some(Mood::Bad)),
            State::Rejected | State::Cancelled | State::Expired | State::Superseded | State::Closed => {
                (self.bad, None)
            }
            _ if next.is_none() && !state.is_final() => (self.present, mood),
            _ => (self.passed, Some(Mood::Good)),
        }
    }
}

/// A branch: its first line, and what stands below it.
#[derive(Default)]
struct Node {
    head: Line,
    /// Paragraphs.
    body: Vec<String>,
}

/// A state with the readings that were taken in it.
struct Visit {
    state: State,
    at: Option<Timestamp>,
    note: String,
    readings: Vec<Option<bool>>,
}

/// The lines of a rotation. Without its journal the states come from its own instants, without readings.
pub(super) fn tree(
    it: &Rotation,
    journal: &[JournalEntry],
    depth: Depth,
    now: Timestamp,
    screen: &Screen,
) -> Vec<Line> {
    let signs = Signs::of(screen);
    let visits = visits(it, journal);
    let mut nodes = Vec::new();
    if depth == Depth::Brief {
        let left = screen.prose().saturating_sub(LABEL + 3);
        nodes.push(fact("to", &screen.shorten(&visible(&it.new_key), left)));
        let mut passed = Line::default();
        for pair in visits.windows(2) {
            let [visit, next] = pair else { continue };
            let (sign, mood) = signs.mark(visit.state, Some(next.state));
            passed.push(mood, sign);
            passed.push(None, &format!(" {}  ", visit.state));
        }
        if passed.width() > 0 {
            nodes.push(Node { head: passed, body: Vec::new() });
        }
        nodes.extend(visits.last().map(|visit| state(visit, None, it, now, signs)));
    } else {
        nodes.extend(header(it, screen));
        let next = |at: usize| visits.get(at + 1).map(|next| next.state);
        nodes.extend(visits.iter().enumerate().map(|(at, visit)| state(visit, next(at), it, now, signs)));
        // The one approval of one stands beside the state that it led to.
        let many = it.approvals.given.len() > 1 || it.state == State::AwaitingApproval;
        if many || journal.is_empty() {
            nodes.extend(approvals(it));
        }
        nodes.extend(comments(it));
        nodes.extend(facts(it, depth, signs));
    }
    nodes.extend(ways(it));
    let mut lines = title(it, screen);
    let count = nodes.len();
    for (index, node) in nodes.into_iter().enumerate() {
        lay(node, index + 1 == count, screen, signs, &mut lines);
    }
    lines
}

/// What an open rotation waits for and how it is ended, in plain sentences.
pub(super) fn waits(it: &Rotation, now: Timestamp) -> Vec<String> {
    let progress = progress(it, now);
    let mut told = Vec::new();
    if !progress.is_empty() {
        told.push(progress);
    }
    told.extend(it.why.iter().map(|sentence| short_times(sentence)));
    for node in ways(it) {
        let label = node.head.render(&Screen::default());
        let words: Vec<&str> = label.split_whitespace().collect();
        told.push(format!("{}: {}", words.join(" "), node.body.join(", or ")));
    }
    told
}

/// The project and the id, which is whole.
fn title(it: &Rotation, screen: &Screen) -> Vec<Line> {
    let id = it.id.to_string();
    let name = visible(&it.project_name);
    let width = screen.prose();
    let left = width.saturating_sub(id.len() + 2);
    if left < LABEL {
        return vec![Line::plain(&screen.shorten(&name, width)), Line::plain(&id)];
    }
    vec![Line::plain(&format!("{}  {id}", screen.shorten(&name, left)))]
}

fn header(it: &Rotation, screen: &Screen) -> Vec<Node> {
    // A key that is broken is hard to copy.
    let key = |name, key: &str| {
        if LABEL + 3 + key.len() > screen.prose() {
            Node { head: Line::plain(name), body: vec![key.to_owned()] }
        } else {
            fact(name, key)
        }
    };
    let by = if it.trigger == "operator" || it.trigger == it.requested_by {
        format!("by {}", it.requested_by)
    } else {
        format!("by {} ({})", it.requested_by, it.trigger)
    };
    let proposed = match &it.reason {
        Some(reason) => format!("{by}: {reason}"),
        None => by,
    };
    vec![
        fact("project", &format!("{} ({})", it.group_id, it.provider)),
        key("from", &it.old_key),
        key("to", &it.new_key),
        fact("proposed", &proposed),
    ]
}

/// A fact with its name. The text may be longer than a line.
fn fact(name: &str, text: &str) -> Node {
    let mut head = Line::plain(name);
    head.pad(LABEL);
    head.push(None, text);
    Node { head, body: Vec::new() }
}

/// The states of a rotation, the present one last.
fn visits(it: &Rotation, journal: &[JournalEntry]) -> Vec<Visit> {
    // The journal may have been read after the rotation.
    let known = journal.iter().rposition(|entry| entry.to_state == it.state);
    let journal = known.map_or(journal, |at| &journal[..=at]);
    let visit = |state, at, note| Visit { state, at, note, readings: Vec::new() };
    let mut visits: Vec<Visit> = Vec::new();
    let verifies = |state| matches!(state, State::Verifying | State::RollingBack);
    for entry in journal {
        let count = usize::try_from(entry.count).unwrap_or(1).min(MARKS);
        let mut readings = (entry.kind == "look").then(|| vec![entry.detail["valid"].as_bool(); count]);
        if entry.from_state.is_some_and(verifies)
            && let Some(visit) = visits.last_mut()
        {
            visit.readings.extend(readings.take().into_iter().flatten());
        }
        if entry.from_state != Some(entry.to_state) {
            visits.push(visit(entry.to_state, Some(entry.at), note(entry)));
            // The observation that shows the new key is the first reading of it.
            if let Some(visit) = visits.last_mut().filter(|visit| visit.state == State::Verifying) {
                visit.readings.extend(readings.into_iter().flatten());
            }
        }
    }
    if visits.is_empty() {
        let known = [
            (State::AwaitingApproval, Some(it.created_at)),
            (State::Approved, it.approved_at),
            (State::Verifying, it.patched_at),
            (State::Deploying, it.valid_at),
        ];
        let before = known.into_iter().take_while(|(state, _)| *state != it.state);
        visits
            .extend(before.filter(|(_, at)| at.is_some()).map(|(state, at)| visit(state, at, String::new())));
        let at = match it.state {
            State::AwaitingApproval => Some(it.created_at),
            State::Approved => it.approved_at,
            State::Verifying => it.patched_at,
            State::Deploying => it.valid_at,
            _ => it.finished_at,
        };
        visits.push(visit(it.state, at, String::new()));
    }
    if visits.last().is_some_and(|last| last.state != it.state) {
        visits.push(visit(it.state, it.finished_at, String::new()));
    }
    visits
}

/// Who caused a change of the state, and why.
fn note(entry: &JournalEntry) -> String {
    let mut note = String::new();
    if let Some(cause) = entry.detail["cause"].as_str() {
        note.extend(["(", cause, ") "]);
    }
    // The proposer stands above.
    if entry.actor != ENGINE && entry.from_state.is_some() {
        note.extend(["by ", &entry.actor]);
        if let Some(comment) = entry.detail["comment"].as_str() {
            note.extend([": ", comment]);
        }
    }
    note
}

/// A state with its mark, its instant and its readings; the present one with what it waits for.
fn state(visit: &Visit, next: Option<State>, it: &Rotation, now: Timestamp, signs: &Signs) -> Node {
    let present = next.is_none();
    let (sign, mood) = signs.mark(visit.state, next);
    let mut head = Line::default().with(mood, sign).with(None, " ");
    head.push(mood.filter(|_| present), visit.state.as_str());
    if visit.at.is_some() {
        head.pad(21);
    } else {
        head.push(None, "  ");
    }
    let at = visit.at.map(|at| cell(&at.to_string().into())).unwrap_or_default();
    let cause =
        it.cause.filter(|_| present && !visit.note.starts_with('(')).map(|cause| format!("({cause})"));
    for part in [at, cause.unwrap_or_default(), visit.note.clone()].iter().filter(|part| !part.is_empty()) {
        head.push(None, &format!("{part}  "));
    }
    if !visit.readings.is_empty() {
        for reading in &visit.readings[visit.readings.len().saturating_sub(MARKS)..] {
            match reading {
                Some(true) => head.push(Some(Mood::Good), signs.passed),
                Some(false) => head.push(Some(Mood::Bad), signs.bad),
                None => head.push(Some(Mood::Waiting), signs.absent),
            }
        }
        head.push(None, "  ");
    }
    let mut body = Vec::new();
    if present {
        let progress = progress(it, now);
        body.extend((!progress.is_empty()).then_some(progress));
        body.extend(it.why.iter().map(|sentence| short_times(sentence)));
    }
    Node { head, body }
}

/// How far the present state is, and its deadline.
fn progress(it: &Rotation, now: Timestamp) -> String {
    let until = |what: &str, at: Option<Timestamp>| match at {
        Some(at) if at > now => format!("{what} in {}", span(now.until(at))),
        Some(at) => format!("{what} since {}", span(now.since(at))),
        None => String::new(),
    };
    let readings = || format!("{} of {} readings true in a row", it.readings.in_a_row, it.readings.required);
    let parts = match it.state {
        State::AwaitingApproval | State::Approved => [String::new(), until("expires", Some(it.expires_at))],
        State::Applying => [String::new(), until("guard ends", it.guard_deadline)],
        State::Verifying | State::RollingBack => [readings(), until("guard ends", it.guard_deadline)],
        State::Deploying => [rolled_out(&it.clusters), String::new()],
        _ => [String::new(), String::new()],
    };
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

/// How many clusters have the new key.
fn rolled_out(clusters: &[Cluster]) -> String {
    let waited: Vec<&Cluster> = clusters.iter().filter(|it| it.exception.is_none()).collect();
    let (done, open): (Vec<&Cluster>, Vec<&Cluster>) =
        waited.iter().partition(|cluster| cluster.seen_updating && cluster.idle >= 2);
    let mut text = format!("{} of {} clusters were seen to roll out the key", done.len(), waited.len());
    if !open.is_empty() {
        text.extend(["; not yet: ", &some(open.iter().map(|it| it.name.clone()))]);
    }
    let others = clusters.iter().filter_map(|it| Some(format!("{} ({})", it.name, it.exception.as_ref()?)));
    let others = some(others);
    if !others.is_empty() {
        text.extend(["; not waited for: ", &others]);
    }
    text
}

/// A few names, and how many more there are.
fn some(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    let first = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// Who approved, and with what words.
fn approvals(it: &Rotation) -> Vec<Node> {
    let mut nodes = Vec::new();
    for (index, vote) in it.approvals.given.iter().enumerate() {
        let name = if index == 0 { "approved" } else { "" };
        let comment = vote.comment.as_ref().map(|comment| format!(": {comment}")).unwrap_or_default();
        nodes.push(fact(name, &format!("by {}, {}{comment}", vote.by, cell(&vote.at.to_string().into()))));
    }
    nodes
}

/// What people wrote without deciding.
fn comments(it: &Rotation) -> Vec<Node> {
    let said = it.comments.iter().enumerate().map(|(index, said)| {
        let name = if index == 0 { "comments" } else { "" };
        fact(name, &format!("{}, {}: {}", said.by, cell(&said.at.to_string().into()), said.comment))
    });
    said.collect()
}

/// What is known beside the states.
fn facts(it: &Rotation, depth: Depth, signs: &Signs) -> Vec<Node> {
    let mut nodes = Vec::new();
    if !it.clusters.is_empty() && it.state != State::Deploying {
        nodes.push(fact("clusters", &rolled_out(&it.clusters)));
    }
    if let Some(detail) = &it.atlas_detail {
        let code = it.atlas_error_code.as_ref().map(|code| format!("{code}: ")).unwrap_or_default();
        nodes.push(fact("Atlas", &format!("{code}{detail}")));
    }
    if let Some(last) = &it.last_observation {
        let key = match last.key.as_deref() {
            Some(key) if key == it.new_key => "the new key",
            Some(key) if key == it.old_key => "the old key",
            Some(key) => key,
            None => "no customer-managed key",
        };
        let valid = match last.valid {
            Some(true) => "valid",
            Some(false) => "invalid",
            None => "valid not reported",
        };
        let at = cell(&last.at.to_string().into());
        nodes.push(fact("observed", &format!("Atlas held {key} at {at}, {valid}")));
    }
    if let (Some(id), Some(at)) = (&it.atlas_event_id, it.atlas_event_at) {
        let by = it.atlas_event_by.as_deref().unwrap_or("an unnamed actor");
        nodes.push(fact("event", &format!("Atlas' event {id}, {}, by {by}", cell(&at.to_string().into()))));
    }
    if let Some(search) = it.atlas_event.filter(|_| it.atlas_event_id.is_none()) {
        nodes.push(fact("event", &format!("Atlas' event about it: {search}")));
    }
    for other in &it.overwrote {
        let at = cell(&other.at.to_string().into());
        nodes.push(fact("replaced", &format!("a change outside of Keywheel, {at}, by {}", other.by)));
    }
    if it.checks.is_empty() {
        return nodes;
    }
    let hint = if depth == Depth::Checks { "" } else { " (--checks shows them)" };
    let mut checks = fact("checks", &format!("{}{hint}", tally(&it.checks)));
    if it.checks.iter().any(|check| check.result == Verdict::Fail) {
        checks.head = checks.head.in_mood(Mood::Bad);
    }
    nodes.push(checks);
    if depth == Depth::Checks {
        for check in &it.checks {
            let (sign, mood) = match check.result {
                Verdict::Pass => (signs.passed, Some(Mood::Good)),
                Verdict::Warn => (signs.page, Some(Mood::Waiting)),
                Verdict::Fail => (signs.bad, Some(Mood::Bad)),
                Verdict::NotChecked => (signs.absent, None),
            };
            let mut head = Line::plain("  ").with(mood, sign);
            head.push(None, &format!(" {}: {}", check.name, check.detail));
            nodes.push(Node { head, body: Vec::new() });
        }
    }
    nodes
}

/// The commands that let an open rotation go on, and those that end it.
fn ways(it: &Rotation) -> Vec<Node> {
    let command = |verb: &str| format!("keywheel {verb} {}", it.id);
    let commands = |verbs: &[&str]| verbs.iter().map(|verb| command(verb)).collect::<Vec<_>>();
    let believed = it.cause != Some(Cause::Tampered);
    let node = |name: &str, body: Vec<String>| Node { head: Line::plain(name), body };
    match it.state {
        State::AwaitingApproval => vec![
            node("to let it go on", commands(&["approve"])),
            node("to end it", commands(&["reject", "cancel"])),
        ],
        State::Approved => vec![node("to end it", commands(&["cancel", "reject"]))],
        State::Applying | State::Verifying | State::RollingBack => {
            let end =
                "verified, rolled back or with a page to an operator, when the guard ends at the latest";
            vec![node("it ends by itself", vec![end.to_owned()])]
        }
        State::Deploying => {
            vec![node("it ends by itself", vec!["completed, when the clusters have the key".to_owned()])]
        }
        State::NeedsOperator => {
            let accept =
                believed && it.last_observation.as_ref().is_some_and(|last| last.valid != Some(false));
            let mut end = vec!["rollback"];
            end.retain(|_| it.attempts > 0);
            end.extend(accept.then_some("accept"));
            end.push("close");
            let mut nodes = vec![node("to end it", commands(&end))];
            if believed {
                nodes.insert(0, node("to let it go on", commands(&["resume"])));
            }
            nodes
        }
        _ => Vec::new(),
    }
}

/// Adds the lines of a branch.
fn lay(node: Node, last: bool, screen: &Screen, signs: &Signs, lines: &mut Vec<Line>) {
    let width = screen.prose();
    let (fork, below) = if last { (signs.last, "   ") } else { (signs.fork, signs.trunk) };
    let (first, rest) = node.head.split(width.saturating_sub(3), LABEL);
    lines.push(Line::plain(fork).then(first));
    for line in rest {
        lines.push(Line::plain(below).then(line));
    }
    for paragraph in node.body {
        for line in wrap(&visible(&paragraph), width.saturating_sub(5)) {
            lines.push(Line::plain(&format!("{below}  {line}")));
        }
    }
}

/// Instants in a sentence without their microseconds.
fn short_times(sentence: &str) -> String {
    let mut out = String::new();
    let mut rest = sentence;
    while let Some(dot) = rest.find('.') {
        let (before, after) = rest.split_at(dot);
        out.push_str(before);
        let digits = after[1..].bytes().take_while(u8::is_ascii_digit).count();
        let is_instant = digits == 6
            && after[1 + digits..].starts_with('Z')
            && before.get(before.len().saturating_sub(9)..).is_some_and(|time| time.starts_with('T'));
        if is_instant {
            rest = &after[1 + digits..];
        } else {
            out.push('.');
            rest = &after[1..];
        }
    }
    out + rest
}

/// A span in its two largest units.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (1.., ..) => format!("{days}d {hours:02}h"),
        (0, 1.., _) => format!("{hours}h {minutes:02}m"),
        (0, 0, 1..) => format!("{minutes}m {:02}s", seconds % 60),
        _ => format!("{seconds}s"),
    }
}
