//! Rows as the API answers them: names from Atlas unchanged, keys as plain texts.

use crate::api::loosening::Loosening;
use crate::api::project::{AcknowledgedDue, Condition, Drift, Found, FoundOwner, Key, Project, Silence, Tag};
use crate::api::record::{AuditEntry, ClockSkew, DatabaseStatus, Difference, Doubt, Hook, Mail};
use crate::api::rotation::{
    Approval, Approvals, Cluster, Comment, JournalEntry, LastObservation, Overwritten, Readings, Rotation,
};
use crate::domain::condition::{ConditionKind, condition_id};
use crate::domain::ids::GroupId;
use crate::domain::notice::Drifted;
use crate::domain::policy::Policy;
use crate::domain::project;
use crate::domain::time::Timestamp;
use crate::engine::epoch;
use crate::engine::intake::Tally;
use crate::engine::{Engine, discover};
use crate::store::{self, ConditionRow, KeySpan, MessageState, OutboxRow, RotationRow, WitnessEvent};

/// `on_record` are the conditions on record, of this project and of others.
pub(super) fn project(
    it: &project::Project,
    on_record: &[ConditionRow],
    defaults: &Policy,
    now: Timestamp,
) -> Project {
    let mut conditions: Vec<_> =
        on_record.iter().filter(|row| row.subject.project() == Some(&it.group_id)).map(condition).collect();
    conditions.extend(it.shown(defaults, now).into_iter().map(|kind| shown(it, kind)));
    conditions.sort_by_key(|it| it.kind);
    Project {
        conditions,
        group_id: it.group_id.clone(),
        name: it.name.clone(),
        provider: it.provider,
        current_key: it.current_key.as_ref().map(ToString::to_string),
        key_since: it.key_since,
        key_since_source: it.key_since_source,
        valid: it.valid,
        key_ends_at: it.key_ends_at,
        due: it.due(defaults),
        status: it.status(defaults, now),
        acknowledged_due: it
            .acknowledged(defaults, now)
            .map(|it| AcknowledgedDue { until: it.until, by: it.by.clone() }),
        silence: it.silence.as_ref().filter(|it| it.lasts(now)).map(|it| Silence {
            since: it.began_at,
            until: it.ends_at,
            by: it.by.clone(),
        }),
        owners: it.owners.clone(),
        environment: it.environment.clone(),
        credential: it.credential.clone(),
        kms: it.kms.clone(),
        alias: it.alias.clone(),
        policy: it.policy(defaults).into(),
        policy_override: it.policy.clone(),
        last_checked_at: it.last_checked_at,
        last_error: it.last_error.clone(),
        open_rotation: it.open_rotation,
        loosenings: Vec::new(),
        rules_kept: false,
    }
}

/// A change that takes effect later.
pub(super) fn loosening(it: &store::Loosening) -> Loosening {
    Loosening {
        id: it.id,
        subject: it.subject.clone(),
        group_id: it.subject.parse().ok(),
        state: it.state,
        changes: it.changes.clone(),
        requested_by: it.requested_by.clone(),
        requested_at: it.requested_at,
        to_tell: it.owners.iter().chain(&it.security).cloned().collect(),
        announced_at: it.announced_at,
        takes_effect_at: it.effective_at,
    }
}

/// A condition on record.
pub(super) fn condition(row: &ConditionRow) -> Condition {
    Condition {
        kind: row.kind,
        condition_id: condition_id(&row.subject, row.kind),
        subject: row.subject.to_string(),
        since: Some(row.since),
        cause: row.cause.clone(),
        key: row.key.clone(),
        rotation_id: row.rotation_id,
        told: row.told,
        told_at: row.told_at,
        tell_at: row.tell_at,
        acknowledged_at: row.acknowledged_at,
        acknowledged_by: row.acknowledged_by.clone(),
    }
}

/// A condition that is only shown.
fn shown(it: &project::Project, kind: ConditionKind) -> Condition {
    Condition {
        kind,
        condition_id: condition_id(&(&it.group_id).into(), kind),
        subject: it.group_id.to_string(),
        since: None,
        cause: None,
        key: it.current_key.as_ref().map(ToString::to_string),
        rotation_id: it.open_rotation.filter(|_| kind == ConditionKind::Rotating).map(|open| open.id),
        told: 0,
        told_at: None,
        tell_at: None,
        acknowledged_at: None,
        acknowledged_by: None,
    }
}

pub(super) fn key(it: KeySpan) -> Key {
    Key { key: it.key, since: it.since, until: it.until, source: it.source }
}

/// A change of a key outside of Keywheel.
pub(super) fn drift(it: Drifted) -> Drift {
    Drift {
        from: it.from.map(|key| key.to_string()),
        to: it.to.map(|key| key.to_string()),
        kind: it.kind,
        by: it.by,
        atlas_event_id: it.atlas_event_id,
        atlas_event_at: it.atlas_event_at,
        served_until: it.served_until,
        undone_rotation: it.undone_rotation,
        terraform: it.terraform,
    }
}

pub(super) fn rotation(
    row: &RotationRow,
    votes: Vec<store::Approval>,
    comments: Vec<store::Commented>,
    proof: Option<&WitnessEvent>,
    why: Vec<String>,
) -> Rotation {
    let it = &row.rotation;
    let event = proof.and_then(|proof| proof.event.as_ref());
    let given = votes.into_iter().map(|vote| Approval {
        by: vote.by,
        at: vote.at,
        method: vote.method,
        comment: vote.comment,
    });
    Rotation {
        id: it.id,
        group_id: it.group_id.clone(),
        project_name: row.project_name.clone(),
        provider: it.provider,
        old_key: it.old_key.to_string(),
        new_key: it.new_key.to_string(),
        new_key_tail: it.new_key.tail(),
        state: it.state,
        cause: it.cause,
        trigger: row.trigger.clone(),
        reason: row.reason.clone(),
        requested_by: row.requested_by.clone(),
        proposal_hash: row.proposal_hash.clone(),
        approvals: Approvals { required: it.permission.quorum.required, given: given.collect() },
        comments: comments.into_iter().map(comment).collect(),
        why,
        readings: Readings { in_a_row: it.readings.trues, required: it.rules.verify.readings },
        last_observation: it.observing.last.as_ref().map(|seen| LastObservation {
            at: seen.at,
            key: seen.key.as_ref().map(ToString::to_string),
            enabled: seen.provider.is_some(),
            valid: seen.valid,
        }),
        hold: it.hold,
        checks: it.observing.checks.clone(),
        attempts: it.patching.attempts,
        created_at: it.created_at,
        approved_at: it.permission.approved_at,
        patched_at: it.patching.patched_at,
        valid_at: it.readings.valid_at,
        deployed_at: it.rollout.deployed_at,
        finished_at: it.ending.finished_at,
        expires_at: it.permission.expires_at,
        planned_for: it.rules.planned_for,
        guard_deadline: it.patching.guard_deadline,
        deployed: it.rollout.deployed,
        clusters: it.rollout.clusters.iter().map(cluster).collect(),
        atlas_error_code: it.observing.failure.as_ref().and_then(|failure| failure.code.clone()),
        atlas_detail: it.observing.failure.as_ref().map(|failure| failure.detail.clone()),
        atlas_event: proof.map(|proof| proof.state),
        atlas_event_id: event.map(|event| event.id.clone()),
        atlas_event_at: event.map(|event| event.at),
        atlas_event_by: event.map(|event| event.by.to_string()),
        overwrote: proof
            .map(|proof| &proof.overwrote[..])
            .unwrap_or_default()
            .iter()
            .map(overwritten)
            .collect(),
        version: row.version,
    }
}

fn comment(it: store::Commented) -> Comment {
    Comment { method: it.method, comment: it.text, at: it.at, by: it.by }
}

fn cluster(it: &crate::domain::rotation::state::ClusterProgress) -> Cluster {
    Cluster {
        name: it.name.clone(),
        seen_updating: it.seen_updating,
        idle: it.idle,
        exception: it.exception.clone(),
    }
}

fn overwritten(event: &crate::domain::event::KeyEvent) -> Overwritten {
    Overwritten { atlas_event_id: event.id.clone(), at: event.at, by: event.by.to_string() }
}

pub(super) fn journal(it: store::JournalEntry) -> JournalEntry {
    JournalEntry {
        seq: it.seq,
        at: it.at,
        actor: it.actor,
        kind: it.kind.to_string(),
        from_state: it.from_state,
        to_state: it.to_state,
        detail: it.detail,
        count: it.count,
        last_at: it.last_at,
    }
}

/// A detail that is not JSON is answered as a text: an audit log must stay readable.
pub(super) fn audit(it: store::AuditEntry) -> AuditEntry {
    AuditEntry {
        seq: it.seq,
        at: it.at,
        actor: it.actor,
        action: it.action,
        subject: it.subject,
        detail: serde_json::from_str(&it.detail).unwrap_or(serde_json::Value::String(it.detail)),
        hash: it.hash,
        prev_hash: it.prev_hash,
    }
}

pub(super) fn mail(it: OutboxRow, engine: &Engine) -> Mail {
    Mail {
        id: it.id,
        channel: it.channel.to_string(),
        kind: it.kind,
        group_id: it.subject.parse::<GroupId>().ok().map(String::from),
        rotation_id: it.rotation_id,
        recipient: it.recipient,
        message_id: engine.wire_id(&it.message_id),
        next_try_at: Some(it.next_try_at).filter(|_| it.state == MessageState::Waiting),
        state: it.state.to_string(),
        created_at: it.created_at,
        attempts: it.attempts,
        last_tried_at: it.last_tried_at,
        last_reply: it.last_reply,
        sent_at: it.sent_at,
        retried_at: it.retried_at,
        model: it.model,
    }
}

/// A hook with its counts.
pub(super) fn hook(name: &str, tally: &Tally, stopped: Option<String>, server: &str) -> Hook {
    let (seen, accepted_at) = tally.last();
    let [received, accepted, duplicate, irrelevant, handshake, unknown_subject] = tally.counts();
    Hook {
        name: name.to_owned(),
        kind: tally.kind.to_owned(),
        url: format!("{server}/hooks/{name}"),
        stopped,
        since: tally.since,
        last_seen_at: seen,
        last_accepted_at: accepted_at,
        received,
        accepted,
        duplicate,
        irrelevant,
        handshake,
        unknown_subject,
        refused: tally.refusals().into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect(),
    }
}

pub(super) fn database(it: epoch::Shown) -> DatabaseStatus {
    let epoch::Skew { database, atlas } = it.clock_skew_ms;
    let doubt = it.doubt.map(|doubt| Doubt {
        kind: doubt.kind.to_owned(),
        detail: doubt.detail,
        way_out: doubt.way_out,
        since: doubt.since,
        differences: doubt.differences.map(|all| all.into_iter().map(difference).collect()),
    });
    DatabaseStatus { sending: it.sending, doubt, clock_skew_ms: ClockSkew { database, atlas } }
}

fn difference(it: epoch::Difference) -> Difference {
    Difference {
        group_id: it.group_id,
        name: it.name,
        recorded: it.recorded,
        atlas: it.atlas,
        valid: it.valid,
        rotation: it.rotation,
        error: it.error,
    }
}

pub(super) fn found(it: discover::Found) -> Found {
    let (group, seen) = (it.group.as_ref(), it.seen.as_ref());
    let tags = group.map(|group| &group.tags[..]).unwrap_or_default().iter();
    let owners =
        it.owners.into_iter().map(|(mail, from)| FoundOwner { mail, from: from.into_iter().collect() });
    Found {
        group_id: group.map(|group| group.id.clone()),
        name: group.map(|group| group.name.clone()),
        credential: it.credential,
        provider: seen.and_then(|seen| seen.provider),
        key: seen.and_then(|seen| seen.key.as_ref()).map(ToString::to_string),
        valid: seen.and_then(|seen| seen.valid),
        cluster_count: group.and_then(|group| group.clusters),
        owners: owners.collect(),
        owners_unknown: it.unknown_owners,
        tags: tags.map(|(key, value)| Tag { key: key.clone(), value: value.clone() }).collect(),
        tracked: it.tracked,
        error: it.error,
    }
}
