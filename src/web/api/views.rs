//! How rows look from outside: camelCase, names from Atlas as they are, keys as plain texts.

use serde_json::{Value, json};

use crate::domain::notice::Drifted;
use crate::domain::policy::Policy;
use crate::domain::project::Project;
use crate::domain::time::Timestamp;
use crate::engine::discover::Found;
use crate::engine::intake::{COUNTED, Tally};
use crate::store::{Approval, AuditEntry, JournalEntry, OutboxRow, Proof, RotationRow};

pub(super) fn project(it: &Project, defaults: &Policy, now: Timestamp) -> Value {
    json!({
        "groupId": it.group_id,
        "name": it.name,
        "provider": it.provider,
        "currentKey": it.current_key.as_ref().map(ToString::to_string),
        "keySince": it.key_since,
        "keySinceSource": it.key_since_source,
        "valid": it.valid,
        "due": it.due(defaults),
        "status": it.status(defaults, now),
        "owners": it.owners,
        "environment": it.environment,
        "credential": it.credential,
        "kms": it.kms,
        "alias": it.alias,
        "policy": it.policy(defaults),
        "lastCheckedAt": it.last_checked_at,
        "lastError": it.last_error,
        "openRotation": it.open_rotation.map(|open| json!({ "id": open.id, "state": open.state })),
    })
}

/// What was found out about a key that somebody else has set.
pub(super) fn drift(it: &Drifted) -> Value {
    json!({
        "from": it.from,
        "to": it.to,
        "kind": it.kind,
        "by": it.by,
        "atlasEventId": it.atlas_event_id,
        "atlasEventAt": it.atlas_event_at,
        "servedUntil": it.served_until,
        "undoneRotation": it.undone_rotation,
        "terraform": it.terraform,
    })
}

pub(super) fn rotation(row: &RotationRow, votes: &[Approval], proof: Option<&Proof>) -> Value {
    let it = &row.rotation;
    let event = proof.and_then(|proof| proof.event.as_ref());
    json!({
        "id": it.id,
        "groupId": it.group_id,
        "projectName": row.project_name,
        "provider": it.provider,
        "oldKey": it.old_key.to_string(),
        "newKey": it.new_key.to_string(),
        "newKeyTail": it.new_key.tail(),
        "state": it.state,
        "cause": it.cause,
        "trigger": row.trigger,
        "reason": row.reason,
        "requestedBy": row.requested_by,
        "proposalHash": row.proposal_hash,
        "approvals": {
            "required": it.permission.quorum.required,
            "given": votes.iter().map(|vote| json!({
                "by": vote.by, "at": vote.at, "method": vote.method, "comment": vote.comment,
            })).collect::<Vec<_>>(),
        },
        "lastObservation": it.observing.last.as_ref().map(|seen| json!({
            "at": seen.at,
            "key": seen.key.as_ref().map(ToString::to_string),
            "enabled": seen.provider.is_some(),
            "valid": seen.valid,
        })),
        "hold": it.hold,
        "checks": it.observing.checks,
        "attempts": it.patching.attempts,
        "createdAt": it.created_at,
        "approvedAt": it.permission.approved_at,
        "patchedAt": it.patching.patched_at,
        "validAt": it.readings.valid_at,
        "deployedAt": it.rollout.deployed_at,
        "finishedAt": it.ending.finished_at,
        "expiresAt": it.permission.expires_at,
        "guardDeadline": it.patching.guard_deadline,
        "deployed": it.rollout.deployed,
        "clusters": it.rollout.clusters.iter().map(|cluster| json!({
            "name": cluster.name,
            "seenUpdating": cluster.seen_updating,
            "idle": cluster.idle,
            "exception": cluster.exception,
        })).collect::<Vec<_>>(),
        "atlasErrorCode": it.observing.failure.as_ref().and_then(|failure| failure.code.clone()),
        "atlasDetail": it.observing.failure.as_ref().map(|failure| failure.detail.clone()),
        "atlasEvent": proof.map(|proof| proof.state),
        "atlasEventId": event.map(|event| &event.id),
        "atlasEventAt": event.map(|event| event.at),
        "atlasEventBy": event.map(|event| event.by.to_string()),
        "overwrote": proof.map(|proof| &proof.overwrote[..]).unwrap_or_default().iter().map(|event| json!({
            "atlasEventId": event.id, "at": event.at, "by": event.by.to_string(),
        })).collect::<Vec<_>>(),
        "version": row.version,
    })
}

pub(super) fn journal(it: &JournalEntry) -> Value {
    json!({
        "seq": it.seq,
        "at": it.at,
        "actor": it.actor,
        "kind": it.kind,
        "fromState": it.from_state,
        "toState": it.to_state,
        "detail": it.detail,
        "count": it.count,
        "lastAt": it.last_at,
    })
}

pub(super) fn audit(it: &AuditEntry) -> Value {
    json!({
        "seq": it.seq,
        "at": it.at,
        "actor": it.actor,
        "action": it.action,
        "subject": it.subject,
        "detail": serde_json::from_str::<Value>(&it.detail).unwrap_or_else(|_| json!(it.detail)),
        "hash": it.hash,
        "prevHash": it.prev_hash,
    })
}

pub(super) fn mail(it: &OutboxRow) -> Value {
    json!({
        "id": it.id,
        "channel": it.channel.as_str(),
        "kind": it.kind,
        "groupId": it.group_id,
        "rotationId": it.rotation_id,
        "recipient": it.recipient,
        "messageId": it.message_id,
        "state": it.state,
        "createdAt": it.created_at,
        "attempts": it.attempts,
        "nextTryAt": Some(it.next_try_at).filter(|_| it.state == "waiting"),
        "lastTriedAt": it.last_tried_at,
        "lastReply": it.last_reply,
        "sentAt": it.sent_at,
        "model": it.model,
    })
}

/// A hook with its counts.
pub(super) fn hook(name: &str, tally: &Tally, server: &str) -> Value {
    let (seen, accepted) = tally.last();
    let mut view = json!({
        "name": name,
        "kind": tally.kind,
        "url": format!("{server}/hooks/{name}"),
        "since": tally.since,
        "lastSeenAt": seen,
        "lastAcceptedAt": accepted,
        "refused": tally.refusals(),
    });
    for (counted, count) in COUNTED.into_iter().zip(tally.counts()) {
        view[counted] = json!(count);
    }
    view
}

pub(super) fn found(it: &Found) -> Value {
    let (group, seen) = (it.group.as_ref(), it.seen.as_ref());
    let owners = it.owners.iter().map(|(mail, from)| json!({ "mail": mail, "from": from }));
    json!({
        "groupId": group.map(|group| &group.id),
        "name": group.map(|group| &group.name),
        "credential": it.credential,
        "provider": seen.and_then(|seen| seen.provider),
        "key": seen.and_then(|seen| seen.key.as_ref()).map(ToString::to_string),
        "valid": seen.and_then(|seen| seen.valid),
        "clusterCount": group.and_then(|group| group.clusters),
        "owners": owners.collect::<Vec<_>>(),
        "ownersUnknown": it.unknown_owners,
        "tags": group.map(|group| &group.tags[..]).unwrap_or_default().iter()
            .map(|(key, value)| json!({ "key": key, "value": value })).collect::<Vec<_>>(),
        "tracked": it.tracked,
        "error": it.error,
    })
}
