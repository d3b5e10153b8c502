//! Stored rows as the rows of a bundle.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::emergency::EMERGENCY;
use crate::domain::event::ProofState;
use crate::domain::policy::Policy;
use crate::domain::project::Project;
use crate::domain::time::Timestamp;
use crate::evidence::{
    AuditLine, Finding, InventoryLine, JournalLine, KeyLink, KeyService, Mail, OpenReview, Overwritten,
    PasskeyLine, PolicyLine, Rotation, Signed, Story, Vote, pem,
};
use crate::passkey::{Credential, bytes, text};
use crate::store::{
    AuditEntry, JournalEntry, KeyChanged, KeySpan, MailRecord, Passkey, Review, RotationRow, StoredVote,
    WitnessEvent,
};

/// Seconds of a day.
const DAY: u64 = 86_400;

fn shown(at: Option<Timestamp>) -> String {
    at.map(|at| at.to_string()).unwrap_or_default()
}

pub(super) fn audit(row: AuditEntry) -> AuditLine {
    AuditLine {
        seq: row.seq,
        at: row.at.to_string(),
        actor: row.actor,
        action: row.action,
        subject: row.subject,
        detail: row.detail,
        seals: row.seals,
        prev_hash: row.prev_hash,
        hash: row.hash,
    }
}

pub(super) fn key_link(it: &KeyChanged) -> KeyLink {
    let detail: serde_json::Value = serde_json::from_str(&it.detail).unwrap_or_default();
    let text = |name: &str| detail[name].as_str().map(str::to_owned);
    KeyLink {
        row: it.seq,
        at: it.at,
        from: text("from").unwrap_or_default(),
        to: text("to").unwrap_or_default(),
        old_public_key: text("oldPublicKey"),
        public_key: text("publicKey"),
        signature: text("signature"),
    }
}

pub(super) fn rotation(
    row: &RotationRow,
    votes: usize,
    proof: Option<&WitnessEvent>,
    story: &Story,
) -> Rotation {
    let it = &row.rotation;
    let event = proof.and_then(|proof| proof.event.as_ref());
    let number = |it: Option<&i64>| it.map(ToString::to_string).unwrap_or_default();
    Rotation {
        rotation_id: it.id.to_string(),
        project_id: it.group_id.to_string(),
        project_name: row.project_name.clone(),
        provider: it.provider.to_string(),
        old_key: it.old_key.to_string(),
        new_key: it.new_key.to_string(),
        trigger: row.trigger.clone(),
        reason: row.reason.clone().unwrap_or_default(),
        requested_by: row.requested_by.clone(),
        proposed_at: it.created_at.to_string(),
        planned_for: shown(it.rules.planned_for),
        policy_version: row.policy_version.clone(),
        proposal_hash: row.proposal_hash.clone(),
        approvals_required: it.permission.quorum.required.to_string(),
        approvals_given: votes.to_string(),
        approved_at: shown(story.approved_at),
        first_sent_at: shown(story.sent_at),
        patched_at: shown(it.patching.patched_at),
        finished_at: shown(story.ended_at),
        state: it.state.to_string(),
        cause: it.cause.map(|it| it.to_string()).unwrap_or_default(),
        atlas_event: proof.map(|it| it.state.to_string()).unwrap_or_default(),
        atlas_event_id: event.map(|it| it.id.clone()).unwrap_or_default(),
        atlas_event_at: shown(event.map(|it| it.at)),
        atlas_event_by: event.map(|it| it.by.to_string()).unwrap_or_default(),
        first_row: number(story.rows.first()),
        last_row: number(story.rows.last()),
    }
}

pub(super) fn vote(it: StoredVote) -> Vote {
    Vote {
        voter: it.by,
        at: it.at.to_string(),
        method: it.method,
        comment: it.comment,
        nonce: it.nonce,
        evidence: it.evidence,
    }
}

/// A passkey as the vote that it has signed keeps it.
pub(super) fn passkey(it: Signed) -> PasskeyLine {
    let credential = Credential::kept(bytes(&it.public_key).unwrap_or_default(), &[]);
    PasskeyLine {
        passkey: it.passkey,
        algorithm: it.algorithm,
        public_key: it.public_key,
        pem: credential.spki().map(|spki| pem(&spki)).unwrap_or_default(),
        ..PasskeyLine::default()
    }
}

/// Whose a passkey is that is there still.
pub(super) fn held(lines: &mut BTreeMap<(String, String), PasskeyLine>, it: &Passkey) {
    if let Some(line) = lines.get_mut(&(it.id.clone(), text(&it.credential.key))) {
        line.holder.clone_from(&it.holder);
        line.enrolled_at = it.enrolled_at.to_string();
        line.confirmed_by = it.confirmed_by.clone().unwrap_or_default();
        line.counts_from = shown(it.counts_from);
    }
}

pub(super) fn key_service(
    group: &str,
    span: &KeySpan,
    project: Option<&Project>,
    defaults: &Policy,
    until: Timestamp,
) -> KeyService {
    let interval = project.map(|it| it.policy(defaults).interval);
    let due = interval.map(|it| span.since + it.get());
    let end = span.until.unwrap_or(until).min(until);
    let ack = project.filter(|_| span.until.is_none()).and_then(|it| it.due_ack.as_ref());
    KeyService {
        project_id: group.to_owned(),
        project_name: project.map(|it| it.name.clone()).unwrap_or_default(),
        key: span.key.clone(),
        since: span.since.to_string(),
        source: span.source.to_string(),
        until: shown(span.until),
        interval: interval.map(|it| it.to_string()).unwrap_or_default(),
        due: shown(due),
        days: (end.since(span.since).as_secs() / DAY).to_string(),
        days_late: due.map(|due| (end.since(due).as_secs() / DAY).to_string()).unwrap_or_default(),
        exception: ack.map(|it| format!("acknowledged until {} by {}", it.until, it.by)).unwrap_or_default(),
    }
}

/// A key that served for longer than it may.
pub(super) fn overdue(it: &KeyService) -> Option<Finding> {
    let late: u64 = it.days_late.parse().ok()?;
    (late > 0).then(|| Finding {
        kind: "overdue".to_owned(),
        project_id: it.project_id.clone(),
        at: it.due.clone(),
        count: "1".to_owned(),
        detail: format!("{} served {late} days after it was due", it.key),
        ..Finding::default()
    })
}

pub(super) fn inventory(it: &Project, defaults: &Policy, policy_version: String) -> InventoryLine {
    InventoryLine {
        project_id: it.group_id.to_string(),
        project_name: it.name.clone(),
        environment: it.environment.clone().unwrap_or_default(),
        owners: it.owners.join(" "),
        provider: it.provider.map(|it| it.to_string()).unwrap_or_default(),
        place: [&it.place.aws_region, &it.place.azure_vault].into_iter().flatten().cloned().collect(),
        key: it.current_key.as_ref().map(ToString::to_string).unwrap_or_default(),
        key_since: shown(it.key_since),
        valid: it.valid.map(|it| it.to_string()).unwrap_or_default(),
        due: shown(it.due(defaults)),
        policy_version,
        credential: it.credential.clone(),
        lookup: it.kms.clone().unwrap_or_default(),
        tracked_since: it.created_at.to_string(),
        observed_at: shown(it.last_checked_at),
    }
}

/// Keys that projects of several environments hold, in any version.
pub(super) fn shared_keys(projects: &[Project]) -> Vec<Finding> {
    let mut holders: BTreeMap<String, Vec<&Project>> = BTreeMap::new();
    for it in projects {
        if let (Some(key), Some(_)) = (&it.current_key, &it.environment) {
            holders.entry(key.stem()).or_default().push(it);
        }
    }
    let several = |of: &[&Project]| of.iter().map(|it| &it.environment).collect::<BTreeSet<_>>().len() > 1;
    let found = holders.into_iter().filter(|(_, of)| several(of));
    let finding = |(key, of): (String, Vec<&Project>)| {
        let all =
            of.iter().map(|it| format!("{} ({})", it.name, it.environment.as_deref().unwrap_or_default()));
        Finding {
            kind: "key_in_two_environments".to_owned(),
            project_id: of[0].group_id.to_string(),
            count: of.len().to_string(),
            detail: format!("{key} serves {}", all.collect::<Vec<_>>().join(", ")),
            ..Finding::default()
        }
    };
    found.map(finding).collect()
}

pub(super) fn rules(version: &str, content: &str) -> PolicyLine {
    PolicyLine {
        kind: "rules".to_owned(),
        version: version.to_owned(),
        content: content.to_owned(),
        ..PolicyLine::default()
    }
}

pub(super) fn mail(it: MailRecord, wire_id: impl Fn(&str) -> String) -> Mail {
    Mail {
        message_id: wire_id(&it.message_id),
        rotation_id: it.rotation().map(|it| it.to_string()).unwrap_or_default(),
        kind: it.kind,
        project_id: it.group_id,
        recipient: it.recipient,
        created_at: it.created_at.to_string(),
        state: it.state,
        attempts: it.attempts.to_string(),
        sent_at: shown(it.sent_at),
        answer: it.last_reply.unwrap_or_default(),
    }
}

pub(super) fn journal(it: JournalEntry) -> JournalLine {
    JournalLine {
        seq: it.seq,
        at: it.at.to_string(),
        actor: it.actor,
        kind: it.kind.to_string(),
        from: it.from_state.map(|it| it.to_string()),
        to: it.to_state.to_string(),
        detail: it.detail,
        count: it.count,
        last_at: it.last_at.to_string(),
    }
}

pub(super) fn overwrote(proof: Option<&WitnessEvent>) -> Vec<Overwritten> {
    let events = proof.map_or(&[][..], |it| it.overwrote.as_slice()).iter();
    let events = events.map(|it| Overwritten {
        atlas_event_id: it.id.clone(),
        at: it.at.to_string(),
        by: it.by.to_string(),
    });
    events.collect()
}

pub(super) fn review(it: &Review) -> OpenReview {
    OpenReview {
        reason: it.reason.clone(),
        closed_by: it.closed_by.clone(),
        closed_at: it.closed_at.map(|at| at.to_string()),
        finding: it.finding.clone(),
    }
}

/// What an auditor would ask about this rotation.
pub(super) fn findings(row: &RotationRow, proof: Option<&WitnessEvent>) -> Vec<Finding> {
    let it = &row.rotation;
    let finding = |kind: &str, at: Timestamp, detail: String| Finding {
        kind: kind.to_owned(),
        project_id: it.group_id.to_string(),
        rotation_id: it.id.to_string(),
        at: at.to_string(),
        count: "1".to_owned(),
        detail,
        ..Finding::default()
    };
    let mut found = Vec::new();
    if row.trigger == EMERGENCY {
        let reason = row.reason.clone().unwrap_or_default();
        found.push(finding("emergency", it.created_at, reason));
    }
    if let Some(proof) = proof {
        if proof.state == ProofState::NotFound {
            let at = it.ending.finished_at.unwrap_or(it.created_at);
            let why =
                proof.last_error.clone().unwrap_or_else(|| "Atlas' feed has no event about it".to_owned());
            found.push(finding("atlas_event_missing", at, why));
        }
        for event in &proof.overwrote {
            found.push(finding(
                "overwrote",
                event.at,
                format!("{} changed the key (event {})", event.by, event.id),
            ));
        }
    }
    found
}

pub(super) fn open_review(it: &Review) -> Finding {
    Finding {
        kind: "review_open".to_owned(),
        project_id: it.group_id.to_string(),
        rotation_id: it.rotation_id.to_string(),
        at: it.requested_at.to_string(),
        count: "1".to_owned(),
        detail: "nobody has reviewed this emergency yet".to_owned(),
        ..Finding::default()
    }
}
