//! The audit log of a bundle: each row's place and hash, and what the rows say about each rotation.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::manifest::{Manifest, Mark};
use super::super::{AUDIT, AuditLine, Fault};
use super::Report;
use super::contents::Contents;
use crate::domain::chain::ChainedRow;
use crate::domain::rotation::state::State;
use crate::domain::time::Timestamp;

/// A row, with its line in the file.
pub(super) struct Row {
    pub(super) line: usize,
    pub(super) at: Option<Timestamp>,
    pub(super) it: AuditLine,
    pub(super) detail: Value,
}

/// A change of a rotation's state.
pub(super) struct Move {
    pub(super) at: Option<Timestamp>,
    pub(super) from: String,
    pub(super) to: String,
}

/// What the rows say about one rotation.
#[derive(Default)]
pub(super) struct Story {
    /// Their numbers.
    pub(super) rows: Vec<i64>,
    /// The place of the proposal among the rows.
    pub(super) proposed: Option<usize>,
    /// The changes of its state that happened.
    pub(super) moves: Vec<Move>,
    /// The PATCHes that were about to be sent: line, instant, whether of the new key, key.
    pub(super) sent: Vec<(usize, Option<Timestamp>, bool, String)>,
    /// Atlas' own events.
    pub(super) events: Vec<Value>,
    /// What the votes were sealed as at last, and before the new key was sent.
    pub(super) votes: Option<String>,
    pub(super) votes_before_sent: Option<String>,
    /// Its project, where a row names it.
    pub(super) project: Option<String>,
    pub(super) state: String,
    pub(super) ended_at: Option<Timestamp>,
    /// The first line that does not follow from the ones before.
    pub(super) broken: Option<usize>,
}

/// The rows of the bundle.
pub(super) struct Chain {
    pub(super) rows: Vec<Row>,
    pub(super) stories: BTreeMap<String, Story>,
    /// Whether the rows seal anything: those of early versions do not.
    pub(super) has_seals: bool,
}

/// Whether a state of this name is the end of a rotation.
pub(super) fn is_final(state: &str) -> bool {
    state.parse::<State>().is_ok_and(State::is_final)
}

/// The state of every proposal.
const WAITS: &str = "awaiting_approval";

impl Story {
    fn is_sent(&self) -> bool {
        self.sent.iter().any(|(.., new, _)| *new)
    }

    /// Takes a row about the rotation over.
    fn take(&mut self, at: usize, row: &Row) {
        self.rows.push(row.it.seq);
        let text = |name: &str| row.detail[name].as_str().unwrap_or_default().to_owned();
        let group = row.detail["groupId"].as_str().map(str::to_owned);
        self.project = self.project.take().or(group);
        match row.it.action.as_str() {
            "rotation.proposed" => {
                if self.proposed.is_some() || self.rows.len() > 1 {
                    self.broken.get_or_insert(row.line);
                }
                self.proposed = Some(at);
                WAITS.clone_into(&mut self.state);
            }
            "rotation.moved" => {
                let (from, to) = (text("from"), text("to"));
                if !self.state.is_empty() && self.state != from {
                    self.broken.get_or_insert(row.line);
                }
                if is_final(&to) && !is_final(&from) {
                    self.ended_at = row.at;
                } else if !is_final(&to) {
                    self.ended_at = None;
                }
                self.state.clone_from(&to);
                self.moves.push(Move { at: row.at, from, to });
            }
            "rotation.patch_intent" => {
                let is_new = text("target") == "new";
                if is_new && !self.is_sent() {
                    self.votes_before_sent.clone_from(&self.votes);
                }
                self.sent.push((row.line, row.at, is_new, text("key")));
            }
            "rotation.atlas_event" => self.events.push(row.detail.clone()),
            _ => {}
        }
    }
}

impl Chain {
    pub(super) fn read(contents: &Contents<'_>, report: &mut Report) -> Self {
        let mut chain = Self { rows: Vec::new(), stories: BTreeMap::new(), has_seals: false };
        let manifest = &contents.manifest;
        let mut before = manifest.head.before.clone();
        if (before.seq == 0) != before.hash.is_empty() || before.seq < 0 {
            report.fault(
                Fault::of("chain", "the row before the first one is no place in a log").file(super::MANIFEST),
            );
        }
        for (number, text) in contents.audit.split_inclusive('\n').enumerate() {
            let line = number + 1;
            let bad = |what: String| Fault::of("chain", what).file(AUDIT).line(line);
            let read = serde_json::from_str::<AuditLine>(text.trim_end_matches('\n'));
            let Some(it) = read.ok().filter(|it| {
                serde_json::to_string(it)
                    .is_ok_and(|written| text.strip_suffix('\n') == Some(written.as_str()))
            }) else {
                report.fault(bad("it is not written as Keywheel writes a row".to_owned()));
                continue;
            };
            if let Some(what) = fault(&it, &before) {
                report.fault(bad(what));
            }
            before = Mark { seq: it.seq, hash: it.hash.clone() };
            let at = it.at.parse::<Timestamp>().ok().filter(|at| at.to_string() == it.at);
            if at.is_none() {
                report.fault(bad(format!("row {} has no instant", it.seq)));
            }
            let detail = serde_json::from_str(&it.detail).unwrap_or_default();
            chain.take(Row { line, at, it, detail });
        }
        if before != manifest.head.after {
            let what =
                format!("it ends with row {}, and the manifest says {}", before.seq, manifest.head.after.seq);
            report.fault(Fault::of("chain", what).file(AUDIT));
        }
        if manifest.counts.get(AUDIT) != Some(&(chain.rows.len() as u64)) {
            let what = format!("it has {} rows, and the manifest gives another number", chain.rows.len());
            report.fault(Fault::of("counts", what).file(AUDIT));
        }
        chain
    }

    fn take(&mut self, row: Row) {
        if matches!(row.it.action.as_str(), "database.restore_accepted" | "installation.key_replaced") {
            // What was not sent yet waits for its approvals again.
            for story in self.stories.values_mut().filter(|it| it.state == "approved" && !it.is_sent()) {
                WAITS.clone_into(&mut story.state);
            }
        }
        for (digest, subject) in row.it.seals.lines().filter_map(|it| it.split_once(' ')) {
            self.has_seals = true;
            if let Some(id) = subject.strip_prefix("votes/").filter(|_| digest != "-") {
                self.stories.entry(id.to_owned()).or_default().votes = Some(digest.to_owned());
            }
        }
        if let Some(id) = row.it.subject.strip_prefix("rotation/") {
            self.stories.entry(id.to_owned()).or_default().take(self.rows.len(), &row);
        }
        self.rows.push(row);
    }

    /// The hash of a row; of the one before the first, too.
    pub(super) fn hash_of<'a>(&'a self, seq: i64, manifest: &'a Manifest) -> Option<&'a String> {
        if seq == manifest.head.before.seq {
            return Some(&manifest.head.before.hash);
        }
        self.rows.iter().find(|row| row.it.seq == seq).map(|row| &row.it.hash)
    }

    /// Checks that the row `expected` is there.
    pub(super) fn expect(&self, expected: &Mark, manifest: &Manifest, report: &mut Report) {
        let Mark { seq, hash } = expected;
        let what = match self.hash_of(*seq, manifest) {
            Some(found) if found == hash => return,
            Some(found) => {
                format!("row {seq} has the hash {found}, and {hash} was expected: the log was rewritten")
            }
            None => format!(
                "row {seq} is not among rows {} to {}: export a period that reaches it",
                manifest.head.before.seq + 1,
                manifest.head.after.seq
            ),
        };
        report.fault(Fault::of("expect", what).file(AUDIT));
    }
}

/// What keeps a row from following the row `before`.
fn fault(it: &AuditLine, before: &Mark) -> Option<String> {
    let seq = it.seq;
    if seq != before.seq + 1 {
        return Some(format!("row {seq} stands where row {} belongs", before.seq + 1));
    }
    if it.prev_hash != before.hash {
        return Some(format!("row {seq}: its prevHash is not the hash of the row before it"));
    }
    let AuditLine { at, actor, action, subject, detail, seals, prev_hash, .. } = it;
    let row = ChainedRow { seq, at, actor, action, subject, detail, prev_hash, seals };
    (row.hash() != it.hash).then(|| format!("row {seq}: its content does not match its hash"))
}
