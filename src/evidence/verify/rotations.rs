//! The population against the chain, and each rotation against the rows about it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::story::is_final;
use super::super::tables::{Approval, PolicyLine, Rotation, Table};
use super::super::{AuditLine, Dossier, Fault, Manifest, Stories, Story};
use super::Report;
use super::chain::Chain;
use super::contents::Contents;
use super::votes::{self, Counts};
use crate::domain::policy::{proposal_hash_of, proposal_mark};
use crate::domain::time::Timestamp;

/// Checks everything about the rotations; returns what was counted.
pub(super) fn check(contents: &Contents<'_>, chain: &Chain, report: &mut Report) -> Counts {
    population(contents, chain, report);
    let policies = votes::policies(&contents.policies, report);
    changes(&contents.policies, chain, report);
    let passkeys = votes::passkeys(&contents.passkeys, report);
    let mut counts = Counts::default();
    let mut approvals = Vec::new();
    for (number, dossier) in contents.dossiers.iter().enumerate() {
        let facts = &dossier.rotation;
        let place = Place { line: number + 2, id: &facts.rotation_id };
        let Some(story) = chain.stories.of(&facts.rotation_id) else { continue };
        for (rule, what) in told(dossier, story) {
            report.fault(place.fault(rule, what));
        }
        if contents.mails.get(&facts.rotation_id).map_or(&[][..], Vec::as_slice) != dossier.mails.as_slice() {
            report.fault(place.fault("mails", "its mails are not those of mails.csv"));
        }
        votes::check(
            dossier,
            story,
            chain.stories.sealed_from,
            (&policies, &passkeys),
            &mut counts,
            |rule, what| {
                report.fault(place.fault(rule, what));
            },
        );
        counts.rotations += 1;
        counts.events += usize::from(!facts.atlas_event_id.is_empty());
        approvals.extend(dossier.approvals());
    }
    if let Some(at) = (0..approvals.len().max(contents.approvals.len()))
        .find(|at| approvals.get(*at) != contents.approvals.get(*at))
    {
        let what = "it is not the vote that stands in this place of the dossiers";
        report.fault(Fault::of("votes", what).file(Approval::FILE).line(at + 2));
    }
    counts
}

/// Where a rotation stands in rotations.csv.
struct Place<'a> {
    line: usize,
    id: &'a str,
}

impl Place<'_> {
    fn fault(&self, rule: &'static str, what: impl AsRef<str>) -> Fault {
        Fault::of(rule, format!("rotation {}: {}", self.id, what.as_ref()))
            .file(Rotation::FILE)
            .line(self.line)
    }
}

/// The population is exactly what the rows show as open in the period.
fn population(contents: &Contents<'_>, chain: &Chain, report: &mut Report) {
    let manifest = &contents.manifest;
    let mut listed = BTreeSet::new();
    for (number, it) in contents.rotations.iter().enumerate() {
        let place = Place { line: number + 2, id: &it.rotation_id };
        if !listed.insert(it.rotation_id.as_str()) {
            report.fault(place.fault("population", "it is listed twice"));
        }
        if number > 0 && contents.rotations[number - 1].rotation_id > it.rotation_id {
            report.fault(place.fault("population", "the rotations are not in the order of their ids"));
        }
        if manifest.project.as_ref().is_some_and(|project| *project != it.project_id) {
            report.fault(place.fault("population", "it is of another project than the bundle is about"));
        }
        if chain.stories.of(&it.rotation_id).is_none_or(|story| story.proposed.is_none()) {
            report.fault(place.fault("population", "no row of audit.jsonl proposes it"));
        }
    }
    for (id, story) in chain.stories.all() {
        let was_open = match story.began_at() {
            Some(at) => manifest.period.covers(at, story.ended_at),
            // It was proposed before the first row: then it had ended before the period.
            None => story.moves.iter().any(|it| is_late(it.at, manifest.period.from) && !is_final(&it.from)),
        };
        let is_meant = is_meant(manifest, story, listed.contains(id.as_str()));
        let rows = || match story.rows[..] {
            [only] => format!("row {only}"),
            [first, .., last] => format!("rows {first} to {last}"),
            [] => String::new(),
        };
        let what = match (was_open && is_meant, listed.contains(id.as_str())) {
            (true, false) => {
                format!("rotation {id} was open in the period ({} of the audit log), and is missing", rows())
            }
            (false, true) if story.proposed.is_some() => {
                format!("rotation {id} was not open in the period ({} of the audit log)", rows())
            }
            _ => continue,
        };
        report.fault(Fault::of("population", what).file(Rotation::FILE));
    }
}

/// Whether a rotation is of the project that the bundle is about.
fn is_meant(manifest: &Manifest, story: &Story, is_listed: bool) -> bool {
    match (&manifest.project, &story.project) {
        (None, _) => true,
        (Some(project), Some(found)) => project == found,
        // Rows of early versions do not name the project.
        (Some(_), None) => is_listed,
    }
}

/// What an earlier bundle shows as open in the period, with the rows of this one, and this one leaves out.
pub(super) fn left_out(contents: &Contents<'_>, chain: &Chain, mut known: Stories, end: i64) -> Vec<String> {
    chain.rows.iter().filter(|row| row.seq > end).for_each(|row| known.take(row));
    let manifest = &contents.manifest;
    let listed: BTreeSet<&str> = contents.rotations.iter().map(|it| it.rotation_id.as_str()).collect();
    let missing = known.all().filter(|(id, story)| {
        let was_open = match story.began_at() {
            Some(at) => manifest.period.covers(at, story.ended_at),
            None if story.state.is_empty() || is_final(&story.state) => {
                story.ended_at.is_some_and(|at| at >= manifest.period.from)
            }
            None => true,
        };
        was_open && is_meant(manifest, story, false) && !listed.contains(id.as_str())
    });
    missing.map(|(id, _)| id.clone()).collect()
}

fn is_late(at: Option<Timestamp>, from: Timestamp) -> bool {
    at.is_none_or(|at| at >= from)
}

type Told = Vec<(&'static str, String)>;

/// What keeps a dossier from being what the rows tell.
fn told(dossier: &Dossier, story: &Story) -> Told {
    let (facts, mut wrong) = (&dossier.rotation, Told::new());
    let mut say = |what: String| wrong.push(("rotation", what));
    if dossier.audit_rows != story.rows {
        say("its auditRows are not the rows of audit.jsonl about it".to_owned());
    }
    if let Some(row) = story.broken {
        say(format!("its state does not follow from the row before (row {row} of audit.jsonl)"));
    }
    if let Some(row) = story.unfounded {
        say(format!(
            "row {row} of audit.jsonl sends its new key while it waits for approvals, has ended, or before its planned date"
        ));
    }
    let instant = |at: Option<Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
    let number = |it: Option<&i64>| it.map(ToString::to_string).unwrap_or_default();
    for (column, is, should) in [
        ("state", &facts.state, story.state.clone()),
        ("approved_at", &facts.approved_at, instant(story.approved_at)),
        ("first_sent_at", &facts.first_sent_at, instant(story.sent_at)),
        ("finished_at", &facts.finished_at, instant(story.ended_at)),
        ("first_row", &facts.first_row, number(story.rows.first())),
        ("last_row", &facts.last_row, number(story.rows.last())),
    ] {
        if *is != should {
            say(format!("{column} is not what the rows of audit.jsonl tell ({should:?})"));
        }
    }
    for it in &story.sent {
        if it.key != *(if it.is_new { &facts.new_key } else { &facts.old_key }) {
            say(format!("row {} of audit.jsonl sends another key", it.row));
        }
    }
    let is_taken = !facts.patched_at.is_empty()
        || matches!(facts.state.as_str(), "completed" | "accepted" | "rolled_back");
    if is_taken && !story.is_sent() {
        say("Atlas took its new key, and no row of audit.jsonl sends it".to_owned());
    }
    if let Some(row) = &story.proposed {
        wrong.extend(proposal(facts, row));
    }
    wrong.extend(journal(dossier, story));
    wrong.extend(witness(dossier, story));
    wrong
}

/// The proposal against the row that proposes it.
fn proposal(facts: &Rotation, row: &AuditLine) -> Told {
    let detail: Value = serde_json::from_str(&row.detail).unwrap_or_default();
    let text = |name: &str| detail[name].as_str().unwrap_or_default();
    let mut wrong = Told::new();
    for (column, is, should) in [
        ("requested_by", &facts.requested_by, row.actor.as_str()),
        ("proposed_at", &facts.proposed_at, row.at.as_str()),
        ("old_key", &facts.old_key, text("oldKey")),
        ("new_key", &facts.new_key, text("newKey")),
        ("reason", &facts.reason, text("reason")),
        ("proposal_hash", &facts.proposal_hash, text("proposalHash")),
        ("planned_for", &facts.planned_for, text("plannedFor")),
    ] {
        if is != should {
            wrong.push(("rotation", format!("{column} is not what row {} of audit.jsonl says", row.seq)));
        }
    }
    if !facts.planned_for.is_empty()
        && facts.planned_for.parse::<Timestamp>().ok().is_none_or(|at| at.to_string() != facts.planned_for)
    {
        wrong.push(("rotation", "planned_for is no instant".to_owned()));
    }
    if detail["approvals"].as_u64().map(|it| it.to_string()).as_ref() != Some(&facts.approvals_required) {
        wrong.push(("rotation", format!("approvals_required is not what row {} says", row.seq)));
    }
    let mark = proposal_mark(&facts.trigger, facts.planned_for.parse().ok());
    let bound = [&facts.project_id, &facts.provider, &facts.old_key, &facts.new_key, &facts.policy_version];
    if proposal_hash_of(bound.map(String::as_str), mark.as_deref()) != facts.proposal_hash {
        let what = "proposal_hash is not that of its project, provider, keys and policy version";
        wrong.push(("proposal", what.to_owned()));
    }
    wrong
}

/// The states of the journal are those of the chain.
fn journal(dossier: &Dossier, story: &Story) -> Told {
    let entries = dossier.journal.iter().filter_map(|it| Some((it.from.as_deref()?, it.to.as_str())));
    let entries: Vec<_> = entries.filter(|(from, to)| from != to).collect();
    let moves: Vec<_> = story.moves.iter().map(|it| (it.from.as_str(), it.to.as_str())).collect();
    let moves: Vec<_> = moves.into_iter().filter(|(from, to)| from != to).collect();
    if entries == moves {
        return Told::new();
    }
    vec![("journal", "the states in its journal are not those in audit.jsonl".to_owned())]
}

/// Atlas' own event is the one that the chain has noted.
fn witness(dossier: &Dossier, story: &Story) -> Told {
    let facts = &dossier.rotation;
    let noted = |name: &str| story.event[name].as_str().unwrap_or_default();
    let is = [&facts.atlas_event_id, &facts.atlas_event_at, &facts.atlas_event_by].map(String::as_str);
    if is == ["atlasEventId", "at", "by"].map(noted) {
        return Told::new();
    }
    vec![("atlas-event", "Atlas' event is not the one that audit.jsonl has noted".to_owned())]
}

/// The changes of rules are exactly the rows that make them, in their order.
fn changes(policies: &[PolicyLine], chain: &Chain, report: &mut Report) {
    let mut rows = chain.rows.iter().filter(|row| changes_rules(&row.action));
    for (number, it) in policies.iter().enumerate().filter(|(_, it)| it.kind == "change") {
        let row = rows.next().map(PolicyLine::change);
        if row.as_ref() != Some(it) {
            let what = row.map_or("no row of audit.jsonl makes this change".to_owned(), |row| {
                format!("row {} of audit.jsonl changes rules and belongs here", row.row)
            });
            report.fault(Fault::of("policy", what).file(PolicyLine::FILE).line(number + 2));
            return;
        }
    }
    if let Some(row) = rows.next() {
        let what = format!("row {} of audit.jsonl changes rules, and is missing", row.seq);
        report.fault(Fault::of("policy", what).file(PolicyLine::FILE));
    }
}

/// Whether a row with this action changes what a rotation runs under.
#[must_use]
pub fn changes_rules(action: &str) -> bool {
    let kinds = ["loosening.", "config."];
    matches!(action, "project.added" | "project.edited" | "project.removed")
        || kinds.iter().any(|kind| action.starts_with(kind))
}
