//! What the rows of the audit log tell of each rotation.
//!
//! A bundle is filled and verified by the same reading of them: its times are those of the rows, not of the tables.

use std::collections::BTreeMap;

use serde_json::Value;

use super::AuditLine;
use crate::domain::rotation::state::State;
use crate::domain::time::Timestamp;

/// A change of a rotation's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// When.
    pub at: Option<Timestamp>,
    /// The state before.
    pub from: String,
    /// The state after.
    pub to: String,
}

/// A PATCH that was about to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentKey {
    /// The row.
    pub row: i64,
    /// Whether it carries the new key.
    pub is_new: bool,
    /// The key.
    pub key: String,
}

/// What the rows tell of one rotation.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// Their numbers.
    pub rows: Vec<i64>,
    /// The row that proposes it; `None` where it is older than the rows.
    pub proposed: Option<AuditLine>,
    /// Its project, where a row names it.
    pub project: Option<String>,
    /// When it was approved.
    pub approved_at: Option<Timestamp>,
    /// When its new key was first about to be sent.
    pub sent_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The row that ended it.
    pub(super) ended_row: Option<i64>,
    /// Its state.
    pub state: String,
    pub(super) moves: Vec<Move>,
    pub(super) sent: Vec<SentKey>,
    /// Atlas' own event that was noted last.
    pub(super) event: Value,
    /// What the votes were sealed as at last, and before the new key was sent last.
    pub(super) votes: Option<String>,
    pub(super) votes_before_sent: Option<String>,
    /// It was taken back to its approvals after its new key was sent last: its votes may have changed since.
    pub(super) has_fallen_back: bool,
    /// The first row that does not follow from the ones before.
    pub(super) broken: Option<i64>,
    /// The first row that sends the new key while it waits for approvals, has ended, or before its planned date.
    pub(super) unfounded: Option<i64>,
}

/// Whether a state of this name is the end of a rotation.
pub(super) fn is_final(state: &str) -> bool {
    state.parse::<State>().is_ok_and(State::is_final)
}

/// The state of every proposal.
const WAITS: &str = "awaiting_approval";

/// The state of one that may be sent.
const APPROVED: &str = "approved";

impl Story {
    /// When it was proposed.
    #[must_use]
    pub fn began_at(&self) -> Option<Timestamp> {
        self.proposed.as_ref()?.at.parse().ok()
    }

    /// Its new key was about to be sent.
    #[must_use]
    pub const fn is_sent(&self) -> bool {
        self.sent_at.is_some()
    }

    /// Whether it was sent, or ended without that, before the row `first`: `None` stands for a row that never came.
    pub(super) fn is_settled_before(&self, first: Option<i64>) -> bool {
        let Some(first) = first else { return true };
        let sent = self.sent.iter().find(|it| it.is_new).map(|it| it.row);
        sent.or(self.ended_row).is_some_and(|row| row < first)
    }

    /// Before when its new key was not to be sent.
    fn planned_for(&self) -> Option<Timestamp> {
        let detail: Value = serde_json::from_str(&self.proposed.as_ref()?.detail).ok()?;
        detail["plannedFor"].as_str()?.parse().ok()
    }

    /// Has it wait for its approvals.
    fn wait(&mut self) {
        WAITS.clone_into(&mut self.state);
        self.approved_at = None;
    }

    fn take(&mut self, row: &AuditLine) {
        self.rows.push(row.seq);
        let at = row.at.parse::<Timestamp>().ok();
        let detail: Value = serde_json::from_str(&row.detail).unwrap_or_default();
        let text = |name: &str| detail[name].as_str().unwrap_or_default().to_owned();
        self.project = self.project.take().or_else(|| detail["groupId"].as_str().map(str::to_owned));
        match row.action.as_str() {
            "rotation.proposed" => {
                if self.rows.len() > 1 {
                    self.broken.get_or_insert(row.seq);
                }
                self.proposed = Some(row.clone());
                self.wait();
            }
            "rotation.moved" => self.moved(row.seq, Move { at, from: text("from"), to: text("to") }),
            "rotation.patch_intent" => {
                let is_new = text("target") == "new";
                let is_early = self.planned_for().is_some_and(|day| at.is_none_or(|at| at < day));
                if is_new && (is_early || self.state == WAITS || is_final(&self.state)) {
                    self.unfounded.get_or_insert(row.seq);
                }
                if is_new {
                    self.votes_before_sent.clone_from(&self.votes);
                    self.has_fallen_back = false;
                    self.sent_at = self.sent_at.or(at);
                }
                self.sent.push(SentKey { row: row.seq, is_new, key: text("key") });
            }
            "rotation.atlas_event" => self.event = detail,
            _ => {}
        }
    }

    fn moved(&mut self, row: i64, step: Move) {
        if !self.state.is_empty() && self.state != step.from {
            self.broken.get_or_insert(row);
        }
        match (is_final(&step.from), is_final(&step.to)) {
            (_, false) => (self.ended_at, self.ended_row) = (None, None),
            (false, true) => (self.ended_at, self.ended_row) = (step.at, Some(row)),
            (true, true) => {}
        }
        match (step.from.as_str(), step.to.as_str()) {
            (WAITS, APPROVED) => self.approved_at = step.at,
            (_, WAITS) => self.approved_at = None,
            _ => {}
        }
        self.has_fallen_back |= self.is_sent() && [WAITS, APPROVED].contains(&step.to.as_str());
        self.state.clone_from(&step.to);
        self.moves.push(step);
    }
}

/// What the rows tell of all rotations.
#[derive(Clone, Debug, Default)]
pub struct Stories {
    of: BTreeMap<String, Story>,
    /// The first row that seals anything: those of early versions do not.
    pub(super) sealed_from: Option<i64>,
}

impl Stories {
    /// Takes the next row over.
    pub fn take(&mut self, row: &AuditLine) {
        // What was not sent yet waits for its approvals again.
        let takes_back = |it: &Story| it.state == APPROVED && !it.is_sent();
        if row.action == "installation.key_replaced" {
            self.of.values_mut().filter(|it| takes_back(it)).for_each(Story::wait);
        }
        for (digest, subject) in row.seals.lines().filter_map(|it| it.split_once(' ')) {
            self.sealed_from.get_or_insert(row.seq);
            if let Some(id) = subject.strip_prefix("votes/").filter(|_| digest != "-") {
                let story = self.of.entry(id.to_owned()).or_default();
                story.votes = Some(digest.to_owned());
                // Where another daemon vouches for the database no votes are voided, and none are sealed.
                if row.action == "database.restore_accepted" && takes_back(story) {
                    story.wait();
                }
            }
        }
        if let Some(id) = row.subject.strip_prefix("rotation/") {
            self.of.entry(id.to_owned()).or_default().take(row);
        }
    }

    /// That of one rotation.
    #[must_use]
    pub fn of(&self, id: &str) -> Option<&Story> {
        self.of.get(id).filter(|it| !it.rows.is_empty())
    }

    /// Those of all of which there are rows.
    pub fn all(&self) -> impl Iterator<Item = (&String, &Story)> {
        self.of.iter().filter(|(_, it)| !it.rows.is_empty())
    }
}
