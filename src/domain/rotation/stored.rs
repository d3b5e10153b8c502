//! The stored form of a [`Rotation`]: one flat object, its names and their order fixed.
//!
//! Rows and journals hold it, and a writer recognises its own commit by these bytes. The groups of
//! [`Rotation`] may change; this form may not. A new field goes to the end of `Stored`, with
//! `#[serde(default)]`: rows of an older program do not have it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::outcome::{Failure, Observation};
use super::state::{
    Attempt, Block, Cause, ClusterProgress, Deployed, Ending, Hold, Observing, Operator, Patching,
    Permission, Quorum, Readings, RollOut, Rollback, Rotation, State,
};
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::key::{KeyRef, Place, Provider};
use crate::domain::policy::Rules;
use crate::domain::preflight::Check;
use crate::domain::time::Timestamp;

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, none implies another")]
#[derive(Serialize, Deserialize)]
struct Stored {
    id: RotationId,
    group_id: GroupId,
    provider: Provider,
    old_key: KeyRef,
    new_key: KeyRef,
    place: Place,
    rules: Rules,
    state: State,
    cause: Option<Cause>,
    hold: Option<Hold>,
    quorum: Quorum,
    created_at: Timestamp,
    approved_at: Option<Timestamp>,
    expires_at: Timestamp,
    last: Option<Observation>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    checks: Vec<Check>,
    block_hash: String,
    old_key_was_valid: bool,
    attempts: u32,
    patch: Option<Attempt>,
    unknown_at: Option<Timestamp>,
    first_patch_at: Option<Timestamp>,
    guard_deadline: Option<Timestamp>,
    retry_at: Option<Timestamp>,
    failures: u32,
    tries: u32,
    not_before: Option<Timestamp>,
    patched_at: Option<Timestamp>,
    verifying_since: Option<Timestamp>,
    trues: u32,
    false_since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alerts_unanswered_since: Option<Timestamp>,
    flaps: u32,
    round: u32,
    #[serde(default)]
    gaps: u32,
    valid_at: Option<Timestamp>,
    deploying_since: Option<Timestamp>,
    clusters: Vec<ClusterProgress>,
    deployed: Option<Deployed>,
    deployed_at: Option<Timestamp>,
    rolling_back_since: Option<Timestamp>,
    rollback_ordered: bool,
    returned: bool,
    healed: bool,
    sent_old: bool,
    resuming: bool,
    paged_at: Option<Timestamp>,
    pages: u32,
    finished_at: Option<Timestamp>,
    watch_until: Option<Timestamp>,
    settled_key: Option<KeyRef>,
    late_apply: bool,
    failure: Option<Failure>,
    wake_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    put_off_since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    absent_since: Option<Timestamp>,
}

impl Serialize for Rotation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Stored::from(self.clone()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Rotation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Stored::deserialize(deserializer).map(Rotation::from)
    }
}

// Both directions name every field, so that none can be left out.

impl From<Rotation> for Stored {
    #[expect(clippy::too_many_lines, reason = "a list of fields")]
    fn from(it: Rotation) -> Self {
        let Rotation {
            id,
            group_id,
            provider,
            old_key,
            new_key,
            rules,
            state,
            cause,
            hold,
            created_at,
            wake_at,
            block: Block { place, hash: block_hash },
            permission: Permission { quorum, approved_at, expires_at },
            observing: Observing { last, checks, failures, not_before, failure },
            patching:
                Patching {
                    attempts,
                    latest: patch,
                    unknown_at,
                    first_at: first_patch_at,
                    guard_deadline,
                    retry_at,
                    put_off_since,
                    tries,
                    patched_at,
                    sent_old,
                },
            readings:
                Readings {
                    since: verifying_since,
                    trues,
                    false_since,
                    alerts_unanswered_since,
                    absent_since,
                    flaps,
                    round,
                    gaps,
                    valid_at,
                },
            rollout: RollOut { since: deploying_since, clusters, deployed, deployed_at },
            rollback:
                Rollback {
                    old_key_was_valid,
                    since: rolling_back_since,
                    ordered: rollback_ordered,
                    returned,
                    healed,
                },
            operator: Operator { resuming, paged_at, pages },
            ending: Ending { finished_at, watch_until, settled_key, late_apply },
        } = it;
        Self {
            id,
            group_id,
            provider,
            old_key,
            new_key,
            place,
            rules,
            state,
            cause,
            hold,
            quorum,
            created_at,
            approved_at,
            expires_at,
            last,
            checks,
            block_hash,
            old_key_was_valid,
            attempts,
            patch,
            unknown_at,
            first_patch_at,
            guard_deadline,
            retry_at,
            failures,
            tries,
            not_before,
            patched_at,
            verifying_since,
            trues,
            false_since,
            alerts_unanswered_since,
            flaps,
            round,
            gaps,
            valid_at,
            deploying_since,
            clusters,
            deployed,
            deployed_at,
            rolling_back_since,
            rollback_ordered,
            returned,
            healed,
            sent_old,
            resuming,
            paged_at,
            pages,
            finished_at,
            watch_until,
            settled_key,
            late_apply,
            failure,
            wake_at,
            put_off_since,
            absent_since,
        }
    }
}

impl From<Stored> for Rotation {
    #[expect(clippy::too_many_lines, reason = "a list of fields")]
    fn from(it: Stored) -> Self {
        let Stored {
            id,
            group_id,
            provider,
            old_key,
            new_key,
            place,
            rules,
            state,
            cause,
            hold,
            quorum,
            created_at,
            approved_at,
            expires_at,
            last,
            checks,
            block_hash,
            old_key_was_valid,
            attempts,
            patch,
            unknown_at,
            first_patch_at,
            guard_deadline,
            retry_at,
            failures,
            tries,
            not_before,
            patched_at,
            verifying_since,
            trues,
            false_since,
            alerts_unanswered_since,
            flaps,
            round,
            gaps,
            valid_at,
            deploying_since,
            clusters,
            deployed,
            deployed_at,
            rolling_back_since,
            rollback_ordered,
            returned,
            healed,
            sent_old,
            resuming,
            paged_at,
            pages,
            finished_at,
            watch_until,
            settled_key,
            late_apply,
            failure,
            wake_at,
            put_off_since,
            absent_since,
        } = it;
        Self {
            id,
            group_id,
            provider,
            old_key,
            new_key,
            rules,
            state,
            cause,
            hold,
            created_at,
            wake_at,
            block: Block { place, hash: block_hash },
            permission: Permission { quorum, approved_at, expires_at },
            observing: Observing { last, checks, failures, not_before, failure },
            patching: Patching {
                attempts,
                latest: patch,
                unknown_at,
                first_at: first_patch_at,
                guard_deadline,
                retry_at,
                put_off_since,
                tries,
                patched_at,
                sent_old,
            },
            readings: Readings {
                since: verifying_since,
                trues,
                false_since,
                alerts_unanswered_since,
                absent_since,
                flaps,
                round,
                gaps,
                valid_at,
            },
            rollout: RollOut { since: deploying_since, clusters, deployed, deployed_at },
            rollback: Rollback {
                old_key_was_valid,
                since: rolling_back_since,
                ordered: rollback_ordered,
                returned,
                healed,
            },
            operator: Operator { paged_at, pages, resuming },
            ending: Ending { finished_at, watch_until, settled_key, late_apply },
        }
    }
}
