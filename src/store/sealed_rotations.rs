//! The seals of rotations: what decides which key is sent, when, and for whom.

use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::approvals::votes_subject;
use super::readable::readable;
use super::rotation_row::{ALL_OPEN, RotationRow, StoredRow};
use super::seal::Seal;
use super::{StoreError, Tx, each};
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::key::{KeyRef, Place, Provider};
use crate::domain::policy::{Rules, proposal_hash, proposal_mark};
use crate::domain::rotation::state::{Cause, Quorum, Rotation, State, Target};
use crate::domain::time::Timestamp;
use crate::domain::vote::Terms;
use crate::seal::Digest;

/// What a rotation's seal covers: whatever decides which key is sent, when, and for whom. The rest are observations and
/// waits. The names are those of the stored form, sorted, and so are those within its members.
#[derive(Serialize)]
struct Covered<'a> {
    approved_at: Option<Timestamp>,
    attempts: u32,
    block_hash: &'a str,
    cause: Option<Cause>,
    created_at: Timestamp,
    expires_at: Timestamp,
    finished_at: Option<Timestamp>,
    first_patch_at: Option<Timestamp>,
    group_id: &'a GroupId,
    guard_deadline: Option<Timestamp>,
    id: RotationId,
    new_key: Sorted<&'a KeyRef>,
    old_key: Sorted<&'a KeyRef>,
    patch: (Option<u32>, Option<Target>),
    patched_at: Option<Timestamp>,
    place: Sorted<&'a Place>,
    provider: Provider,
    quorum: Sorted<&'a Quorum>,
    returned: bool,
    rollback_ordered: bool,
    rules: &'a RawValue,
    sent_old: bool,
    settled_key: Sorted<Option<&'a KeyRef>>,
    state: State,
}

fn subject(id: RotationId) -> String {
    format!("rotation/{id}")
}

/// The subject of the PATCH of the new key that was recorded: what is put back later must be its old key.
fn intent(id: RotationId) -> String {
    format!("intent/{id}")
}

/// The members of an object by their names, so that another order of a struct's fields changes no seal.
struct Sorted<T>(T);

impl<T: Serialize> Serialize for Sorted<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::to_value(&self.0).map_err(S::Error::custom)?.serialize(serializer)
    }
}

/// The rules as a seal covers them. They are the same in each step of a rotation.
fn covered_rules(id: RotationId, rules: &Rules) -> Result<Box<RawValue>, StoreError> {
    serde_json::value::to_raw_value(&Sorted(rules)).map_err(unwritable(id))
}

fn unwritable(id: RotationId) -> impl Fn(serde_json::Error) -> StoreError {
    move |source| StoreError::Unwritable { table: "rotations", column: "machine", id: id.to_string(), source }
}

/// The text of what a rotation's seal covers.
fn covered(it: &Rotation, rules: &RawValue) -> Result<String, StoreError> {
    let latest = it.patching.latest.as_ref();
    let covered = Covered {
        approved_at: it.permission.approved_at,
        attempts: it.patching.attempts,
        block_hash: &it.block.hash,
        cause: it.cause,
        created_at: it.created_at,
        expires_at: it.permission.expires_at,
        finished_at: it.ending.finished_at,
        first_patch_at: it.patching.first_at,
        group_id: &it.group_id,
        guard_deadline: it.patching.guard_deadline,
        id: it.id,
        new_key: Sorted(&it.new_key),
        old_key: Sorted(&it.old_key),
        patch: (latest.map(|patch| patch.number), latest.map(|patch| patch.target)),
        patched_at: it.patching.patched_at,
        place: Sorted(&it.block.place),
        provider: it.provider,
        quorum: Sorted(&it.permission.quorum),
        returned: it.rollback.returned,
        rollback_ordered: it.rollback.ordered,
        rules,
        sent_old: it.patching.sent_old,
        settled_key: Sorted(it.ending.settled_key.as_ref()),
        state: it.state,
    };
    serde_json::to_string(&covered).map_err(unwritable(it.id))
}

/// What a rotation says, for its seal.
fn digest(row: &RotationRow, it: &Rotation, rules: &RawValue) -> Result<Digest, StoreError> {
    let covered = covered(it, rules)?;
    let fields = [
        row.credential.as_str(),
        &row.trigger,
        &row.requested_by,
        &row.proposal_hash,
        &row.policy_version,
        &covered,
    ];
    Ok(Digest::of(&subject(it.id), &fields.map(Some)))
}

impl RotationRow {
    /// Its seal.
    pub(super) fn seal(&self) -> Result<Seal, StoreError> {
        let it = &self.rotation;
        Ok(Seal::new(subject(it.id), digest(self, it, &covered_rules(it.id, &it.rules)?)?))
    }
}

fn intent_digest(it: &Rotation) -> Digest {
    let (old, new) = (it.old_key.to_string(), it.new_key.to_string());
    Digest::of(&intent(it.id), &[Some(it.group_id.as_str()), Some(&old), Some(&new)])
}

/// The way of a step to its seals.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, none implies another")]
pub(super) struct Sealing {
    subject: String,
    before: Digest,
    after: Digest,
    /// The digest of the intent, before a PATCH of the new key and before one of the old key.
    intent: Digest,
    /// The PATCH that follows.
    sends: Option<Target>,
    /// What the PATCH of the new key needs: its approvals, and the proposal that they are bound to.
    needed: u32,
    proposal_hash: String,
    /// Both ends are final: nothing follows from the rotation any more.
    is_over: bool,
    /// A PATCH of the new key was sent, and its outcome is open.
    is_repeated: bool,
    pub(super) ends: bool,
    /// The hash that approvals are bound to is that of what is about to be sent.
    is_as_approved: bool,
    /// The step records that the rotation was changed outside of Keywheel, so it is sealed as it is.
    is_tampered: bool,
}

impl Sealing {
    pub(super) fn of(
        before: &RotationRow,
        after: &Rotation,
        sends: Option<Target>,
    ) -> Result<Self, StoreError> {
        let it = &before.rotation;
        let rules = covered_rules(it.id, &it.rules)?;
        let changed = if after.rules == it.rules { None } else { Some(covered_rules(it.id, &after.rules)?) };
        Ok(Self {
            subject: subject(it.id),
            before: digest(before, it, &rules)?,
            after: digest(before, after, changed.as_ref().unwrap_or(&rules))?,
            intent: intent_digest(it),
            sends,
            needed: after.rules.policy.approvals.max(1),
            proposal_hash: before.proposal_hash.clone(),
            is_repeated: it.state == State::Applying,
            is_over: it.state.is_final() && after.state.is_final(),
            ends: after.state.is_final() && !it.state.is_final(),
            is_as_approved: before.proposal_hash
                == proposal_hash(
                    &after.group_id,
                    after.provider,
                    &after.old_key,
                    &after.new_key,
                    &before.policy_version,
                    proposal_mark(&before.trigger, after.rules.planned_for).as_deref(),
                ),
            is_tampered: after.state == State::NeedsOperator && after.cause == Some(Cause::Tampered),
        })
    }
}

impl Tx {
    /// Checks what a step rests on, and says what it seals.
    pub(super) async fn seal_step(
        &mut self,
        id: RotationId,
        it: &Sealing,
        terms: Option<&(GroupId, Terms)>,
    ) -> Result<Vec<Seal>, StoreError> {
        if it.is_over {
            return Ok(Vec::new());
        }
        let mut seals = Vec::new();
        if !it.is_tampered {
            self.check_seal(&it.subject, it.before).await?;
        }
        match it.sends {
            None => {}
            Some(Target::New) => {
                if !it.is_as_approved {
                    return Err(StoreError::tampered(
                        &it.subject,
                        "the proposal's hash is not that of its keys",
                    ));
                }
                self.check_log().await?;
                if it.is_repeated {
                    // Votes stand once the PATCH was sent.
                    self.sealed_votes(id).await?;
                    self.check_seal(&intent(id), it.intent).await?;
                } else if let Some((group, terms)) = terms {
                    self.check_votes(id, (it.needed, &it.proposal_hash), terms, group).await?;
                } else {
                    return Err(StoreError::Unapproved { voters: Vec::new() });
                }
                seals.push(Seal::new(intent(id), it.intent));
            }
            Some(Target::Old) => self.check_seal(&intent(id), it.intent).await?,
        }
        if it.ends {
            let over = [it.subject.clone(), votes_subject(id), intent(id)];
            return Ok(over.into_iter().map(Seal::end).collect());
        }
        if it.is_tampered {
            if self.sealed(&it.subject).await? != Some(it.after) {
                seals.push(Seal::new(it.subject.clone(), it.after));
                // No vote on it counts again, so its new key is never sent.
                seals.push(Seal::end(votes_subject(id)));
            }
        } else if it.before != it.after {
            seals.push(Seal::new(it.subject.clone(), it.after));
        }
        Ok(seals)
    }

    /// The seals of all open rotations that can be read.
    pub(super) async fn seals_of_rotations(&mut self) -> Result<Vec<Seal>, StoreError> {
        let mut seals = Vec::new();
        for row in self.open_rotations_to_seal().await? {
            seals.push(row.seal()?);
            let it = &row.rotation;
            seals.push(self.seal_of_votes(it.id).await?);
            if it.patching.first_at.is_some() || it.patching.attempts > 0 {
                seals.push(Seal::new(intent(it.id), intent_digest(it)));
            }
        }
        Ok(seals)
    }

    /// All open rotations that can be read.
    pub(super) async fn open_rotations_to_seal(&mut self) -> Result<Vec<RotationRow>, StoreError> {
        let rows: Vec<StoredRow> =
            each!(self, ALL_OPEN, |conn, text| sqlx::query_as(text).fetch_all(conn).await)?;
        readable(rows.into_iter().map(RotationRow::try_from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One rotation of each kind, in the stored form.
    const STORED: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/search/machine/rotations.jsonl"));

    /// A seal must fit as long as the row does: what it covers is sorted, and named as it is stored.
    #[test]
    fn a_seal_covers_what_is_stored_under_the_same_names() {
        let mut count = 0;
        for line in STORED.lines() {
            let it: Rotation = serde_json::from_str(line).unwrap();
            let text = covered(&it, &covered_rules(it.id, &it.rules).unwrap()).unwrap();
            let sorted: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(sorted.to_string(), text);
            let stored = serde_json::to_value(&it).unwrap();
            for (name, value) in sorted.as_object().unwrap() {
                if name == "patch" {
                    assert_eq!(*value, serde_json::json!([stored[name]["number"], stored[name]["target"]]));
                } else {
                    assert_eq!(*value, stored[name], "{name}");
                }
            }
            count += 1;
        }
        assert!(count > 5);
    }
}
