//! Facts and commands below the sentences, for each kind of notice.
//!
//! Both matches are exhaustive. Texts that come from outside pass [`visible`].

use std::fmt::Display;

use super::age::Age;
use super::sentences::{name, when};
use crate::domain::event::clock;
use crate::domain::ids::GroupId;
use crate::domain::notice::{
    AuditHead, Authority, CheckedRotation, CurrentKeyInvalid, Drifted, Kind, Notice, Reminder,
    RevokedTokenUsed, RotationFacts,
};
use crate::domain::preflight::Check;
use crate::domain::text::visible;

/// Names and values, in the order in which people read them.
#[derive(Default)]
struct Facts(Vec<(String, String)>);

impl Facts {
    fn about(name: &str, group: &GroupId) -> Self {
        let mut facts = Self::default();
        facts.add("Project", name);
        facts.add("Atlas project id", group);
        facts
    }

    fn add(&mut self, label: &str, value: impl Display) {
        self.maybe(label, Some(value));
    }

    fn maybe(&mut self, label: &str, value: Option<impl Display>) {
        let value = value.map(|value| visible(&value.to_string())).filter(|value| !value.is_empty());
        self.0.extend(value.map(|value| (label.to_owned(), value)));
    }
}

/// The facts below the sentences.
pub(super) fn facts(notice: &Notice) -> Vec<(String, String)> {
    match notice {
        Notice::ApprovalRequested(it) | Notice::AutoApproved(it) | Notice::PreflightFailed(it) => {
            checked_facts(it)
        }
        Notice::Completed(it)
        | Notice::RolledBack(it)
        | Notice::Failed(it)
        | Notice::Rejected(it)
        | Notice::Cancelled(it)
        | Notice::Expired(it)
        | Notice::Superseded(it)
        | Notice::Accepted(it)
        | Notice::Closed(it)
        | Notice::NeedsOperator(it)
        | Notice::LateApply(it)
        | Notice::NotDeployed(it) => rotation_facts(it),
        Notice::CurrentKeyInvalid(CurrentKeyInvalid::Rotation(it)) => rotation_facts(it),
        Notice::CurrentKeyInvalid(CurrentKeyInvalid::Project(it)) => {
            let mut facts = Facts::about(&it.project_name, &it.group_id);
            facts.maybe("Key in force", it.current_key.as_ref());
            facts.0
        }
        Notice::Drifted(it) => drift_facts(it),
        Notice::KeyAlarm(it) => {
            let mut facts = Facts::about(&it.project_name, &it.group_id);
            facts.maybe("Key in force", it.current_key.as_ref());
            facts.add("Reported about", &it.subject);
            facts.maybe("The sender's message", it.words.as_ref());
            facts.maybe("By", it.by.as_ref());
            facts.0
        }
        Notice::Overwrote(it) => {
            let mut facts = Facts::about(&it.project_name, &it.group_id);
            facts.add("Rotation", it.rotation_id);
            facts.add("State", it.state);
            facts.add("Old key", &it.old_key);
            facts.add("New key", &it.new_key);
            facts.add("By", &it.by);
            facts.add("Atlas' event", &it.atlas_event_id);
            facts.0
        }
        Notice::Reminder(it) => {
            let mut facts = Facts::about(&it.project_name, &it.group_id);
            facts.maybe("Key in force", it.current_key.as_ref());
            facts.maybe("Serves since", it.key_since.map(clock));
            facts.add("Due", clock(it.due));
            facts.maybe("Age", Age::of(it));
            facts.0
        }
        Notice::ReminderDigest(it) => it.items.iter().map(line).collect(),
        Notice::Condition(it) => {
            let mut facts = Facts::about(&it.project_name, &it.group_id);
            facts.maybe("Rotation", it.rotation_id);
            facts.maybe("Key", it.current_key.as_ref());
            facts.maybe("Cause", it.cause.as_ref());
            facts.add("Since", clock(it.since));
            facts.maybe("Over at", it.over_at.map(clock));
            facts.0
        }
        Notice::Installation(it) => {
            let mut facts = Facts::default();
            facts.add("Concerns", &it.subject);
            facts.maybe("Cause", it.cause.as_ref());
            facts.maybe("Details", it.detail.as_ref());
            facts.add("Since", clock(it.since));
            facts.maybe("Over at", it.over_at.map(clock));
            facts.0
        }
        Notice::Authority(it) => authority_facts(it),
        Notice::RevokedTokenUsed(it) => revoked_token_used(it),
        Notice::AuditHead(it) => audit_head(it),
    }
}

fn revoked_token_used(it: &RevokedTokenUsed) -> Vec<(String, String)> {
    let mut facts = Facts::default();
    facts.add("Concerns", "installation");
    facts.add("Token", it.token());
    facts.add("Revoked at", clock(it.revoked_at));
    facts.add("Used at", clock(it.used_at));
    facts.maybe("From", it.from.as_ref());
    facts.0
}

fn audit_head(it: &AuditHead) -> Vec<(String, String)> {
    let mut facts = Facts::default();
    facts.add("Concerns", "installation");
    facts.add("Row", it.seq.to_string());
    facts.add("Hash", &it.hash);
    facts.add("Signed at", it.at.to_string());
    facts.maybe("Broken", it.broken.as_ref());
    facts.add("Database", &it.database);
    facts.add("Fingerprint", &it.fingerprint);
    facts.add("Public key", &it.public_key);
    facts.add("Signature", &it.signature);
    facts.0
}

fn authority_facts(it: &Authority) -> Vec<(String, String)> {
    let mut facts = match &it.group_id {
        Some(group) => Facts::about(it.project_name.as_deref().unwrap_or_default(), group),
        None => Facts::default(),
    };
    if it.group_id.is_none() {
        facts.add("Concerns", &it.subject);
    }
    facts.maybe("Rotation", it.rotation_id);
    for change in &it.changes {
        facts.add(&change.field, format!("{} -> {}", change.from, change.to));
    }
    facts.add("By", &it.by);
    facts.add("At", clock(it.at));
    facts.maybe("Takes effect", it.takes_effect_at.map(clock));
    facts.maybe("Details", it.detail.as_ref());
    facts.0
}

fn rotation_facts(it: &RotationFacts) -> Vec<(String, String)> {
    let mut facts = Facts::about(&it.project_name, &it.group_id);
    facts.add("Rotation", it.rotation_id);
    facts.add("State", it.state);
    facts.maybe("Cause", it.cause);
    facts.add("Old key", &it.old_key);
    facts.add("New key", &it.new_key);
    facts.maybe("Reason", it.reason.as_ref());
    facts.add("Proposed by", &it.requested_by);
    facts.maybe("Atlas' error code", it.atlas_error_code.as_ref());
    facts.maybe("Atlas' message", it.atlas_detail.as_ref());
    facts.0
}

fn checked_facts(it: &CheckedRotation) -> Vec<(String, String)> {
    let mut facts = Facts(rotation_facts(&it.rotation));
    if let Some(proposal) = &it.proposal {
        let runs = proposal.opens_at.map_or_else(
            || "as soon as it is approved".to_owned(),
            |at| format!("once approved, at {} at the earliest", clock(at)),
        );
        facts.maybe("Planned for", it.rotation.planned_for.map(clock));
        facts.add("Runs", runs);
        facts.maybe("Old key due", proposal.old_key_due.map(clock));
        facts.add("Answer until", clock(proposal.answer_until));
        facts.add("Checks", format!("{} pass, {} to consider", proposal.checks_passed, it.checks.len()));
    }
    facts.0.extend(it.checks.iter().map(check));
    facts.0
}

fn drift_facts(it: &Drifted) -> Vec<(String, String)> {
    let mut facts = Facts::about(&it.project_name, &it.group_id);
    facts.maybe("Was", it.from.as_ref());
    facts.maybe("Is now", it.to.as_ref());
    facts.maybe("By", it.by.as_ref());
    facts.maybe("Atlas' event", it.atlas_event_id.as_ref());
    facts.maybe("Served until", it.served_until.map(clock));
    facts.maybe("Undoes rotation", it.undone_rotation);
    facts.0
}

/// One line of the pre-flight checklist.
fn check(it: &Check) -> (String, String) {
    let result = it.result.as_str().replace('_', " ");
    (format!("Check {}", it.name), format!("{result}: {}", visible(&it.detail)))
}

/// One project of a digest.
fn line(it: &Reminder) -> (String, String) {
    let key = it.current_key.as_ref().map(|key| format!("  {}", visible(&key.to_string())));
    (
        name(&it.project_name, &it.group_id),
        format!("{}  {}{}", when(it.days_left), it.group_id, key.unwrap_or_default()),
    )
}

/// The title of the command for a rotation that ended badly or stopped.
const SHOW: &str = "Everything that happened:";

/// The commands to run, each with a title; `server` is named in each.
pub(super) fn commands(notice: &Notice, server: &str) -> Vec<(String, String)> {
    let command = |title: &str, rest: String| {
        (title.to_owned(), format!("keywheel --server {server} --token-file TOKEN_FILE {rest}"))
    };
    let show = |id| command(SHOW, format!("rotation show {id}"));
    let reject = |title, id| command(title, format!("reject {id} --comment \"...\""));
    match notice {
        Notice::ApprovalRequested(it) => {
            let id = it.rotation.rotation_id;
            vec![
                command("To approve exactly this change:", format!("approve {id}")),
                reject("Or to reject it:", id),
            ]
        }
        Notice::AutoApproved(it) => {
            let id = it.rotation.rotation_id;
            vec![reject("To stop it:", id), show(id)]
        }
        Notice::NeedsOperator(it) => vec![
            show(it.rotation_id),
            command("When it is fixed (or: rollback, accept, close):", format!("resume {}", it.rotation_id)),
        ],
        Notice::LateApply(it) | Notice::NotDeployed(it) | Notice::Failed(it) | Notice::RolledBack(it) => {
            vec![show(it.rotation_id)]
        }
        Notice::PreflightFailed(it) => vec![show(it.rotation.rotation_id)],
        Notice::Overwrote(it) => vec![show(it.rotation_id)],
        Notice::Reminder(it) => vec![command(
            "Make a new key or key version, then propose it:",
            format!("rotate {} --to NEW_KEY", it.group_id),
        )],
        Notice::ReminderDigest(_) => vec![command("All projects that are due:", "due".to_owned())],
        Notice::Drifted(it) => {
            let mut commands = Vec::new();
            if let Some(key) = &it.undone_key {
                let lines: Vec<_> = it.terraform.iter().flatten().map(|line| visible(line)).collect();
                let title = "To make Terraform agree with the rotation, write in its file:";
                commands.push((title.to_owned(), lines.join("\n")));
                let key = visible(&key.to_string());
                commands
                    .push(command("Then, to rotate again:", format!("rotate {} --to {key}", it.group_id)));
            }
            let take = format!("project edit {} --since DATE", it.group_id);
            commands.push(command("To take it over as it is:", take));
            commands
        }
        Notice::Completed(_)
        | Notice::Rejected(_)
        | Notice::Cancelled(_)
        | Notice::Expired(_)
        | Notice::Superseded(_)
        | Notice::Accepted(_)
        | Notice::Closed(_)
        | Notice::CurrentKeyInvalid(_)
        | Notice::KeyAlarm(_)
        | Notice::RevokedTokenUsed(_) => Vec::new(),
        Notice::AuditHead(it) => {
            let expect = format!("audit verify --expect {}:{}", it.seq, it.hash);
            vec![command("Later, to see whether this row is still in the log:", expect)]
        }
        Notice::Condition(it) => vec![command("What is known:", format!("why {}", it.group_id))],
        Notice::Installation(_) => vec![command("What holds now:", "status".to_owned())],
        Notice::Authority(it) => match (it.kind, it.loosening_id, it.rotation_id) {
            (Kind::LooseningAnnounced, Some(id), _) => {
                vec![command("To stop it before it takes effect:", format!("loosening withdraw {id}"))]
            }
            (_, _, Some(id)) => vec![show(id)],
            _ => vec![command("Everything that anyone did:", "audit list".to_owned())],
        },
    }
}
