//! The facts of each kind of notice: one struct for each shape, with the member names of stored rows.
//!
//! Stored models and the `data` of webhooks have these members; a name is never changed and a member is
//! never taken away. Every member without `Option` is in each row that was ever stored. Receivers read
//! the comments of the members: `docs/events.schema.json` is generated from them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::kind::Kind;
use crate::domain::condition::ConditionKind;
use crate::domain::ids::{GroupId, LooseningId, RotationId};
use crate::domain::key::{KeyRef, Provider};
use crate::domain::loosening::Change;
use crate::domain::named::named;
use crate::domain::preflight::Check;
use crate::domain::project::SinceSource;
use crate::domain::rotation::state::{Cause, State};
use crate::domain::time::Timestamp;

/// The identifier of a key as Atlas would hold it. It is made of a [`KeyRef`] and read back as it was
/// stored: most models do not name the provider, and nothing is decided by a key in a notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct KeyText(String);

impl From<String> for KeyText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&KeyRef> for KeyText {
    fn from(key: &KeyRef) -> Self {
        Self(key.to_string())
    }
}

impl fmt::Display for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A rotation, when the notice was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RotationFacts {
    /// The Atlas project.
    pub group_id: GroupId,
    /// The project's name in Atlas.
    pub project_name: String,
    /// The rotation.
    pub rotation_id: RotationId,
    /// The cloud whose key service holds both keys.
    pub provider: Provider,
    /// The key before the rotation.
    pub old_key: KeyText,
    /// The key that the rotation is to bring.
    pub new_key: KeyText,
    /// The rotation's state.
    pub state: State,
    /// The reason for the state, where the state needs one.
    pub cause: Option<Cause>,
    /// The person or trigger that proposed the rotation.
    pub requested_by: String,
    /// The reason that was given with the proposal.
    pub reason: Option<String>,
    /// Atlas' error code, when Atlas refused a request of this rotation.
    pub atlas_error_code: Option<String>,
    /// Atlas' own explanation of that error.
    pub atlas_detail: Option<String>,
    /// The remedy for the cause, for a person.
    pub remedy: Option<String>,
    /// When the new key is sent at the earliest, where the proposer has chosen a date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_for: Option<Timestamp>,
    /// The condition that this starts or repeats. Its end has the same id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition_id: Option<String>,
}

/// A rotation and its pre-flight checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct CheckedRotation {
    /// The rotation.
    #[serde(flatten)]
    pub rotation: RotationFacts,
    /// The checks that did not pass.
    pub checks: Vec<Check>,
    /// What those who decide need to know beyond the keys. Rows that earlier versions wrote lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposal: Option<ProposalFacts>,
}

/// The terms of a proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ProposalFacts {
    /// The project's environment, such as `prod`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Atlas' clusters that use the key, as a sentence of the checklist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clusters: Option<String>,
    /// Whether it is an emergency: fewer people approve it than usual, and it waits for no window.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emergency: bool,
    /// The number of people who must approve.
    pub approvals: u32,
    /// The number of people who have approved.
    pub approved: u32,
    /// When the proposal ends without its approvals.
    pub answer_until: Timestamp,
    /// When a window is open next; null where the policy has no windows and no freeze.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens_at: Option<Timestamp>,
    /// The number of checks that passed.
    pub checks_passed: usize,
    /// The end of the old key's cryptoperiod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_key_due: Option<Timestamp>,
}

/// The key in force cannot be used by Atlas: found by a rotation, which is held, or by the sweep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum CurrentKeyInvalid {
    /// Found before the PATCH of a rotation.
    Rotation(Box<RotationFacts>),
    /// Found by the sweep.
    Project(InvalidKey),
}

/// A project whose key in force cannot be used by Atlas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct InvalidKey {
    /// The Atlas project.
    pub group_id: GroupId,
    /// The project's name in Atlas.
    pub project_name: String,
    /// The cloud whose key service holds the key.
    pub provider: Option<Provider>,
    /// The key in force.
    pub current_key: Option<KeyText>,
    /// The condition that this starts or repeats. Its end has the same id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition_id: Option<String>,
    /// When Atlas first called the key invalid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// The start, a repetition or the end of a condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ConditionFacts {
    /// The kind of the notice.
    pub kind: Kind,
    /// The Atlas project.
    pub group_id: GroupId,
    /// The project's name in Atlas.
    pub project_name: String,
    /// The cloud whose key service holds the key in force.
    pub provider: Option<Provider>,
    /// The rotation that it concerns.
    pub rotation_id: Option<RotationId>,
    /// The condition. Its start, its repetitions and its end have the same `conditionId`.
    pub condition: ConditionKind,
    /// The id of the condition.
    pub condition_id: String,
    /// The key that it concerns.
    pub current_key: Option<KeyText>,
    /// When it began.
    pub since: Timestamp,
    /// When it ended; null while it holds.
    pub over_at: Option<Timestamp>,
    /// What makes it so.
    pub cause: Option<String>,
    /// 0 for the first notice of a start; repetitions count from 1.
    pub repeat: u32,
}

/// The start, a repetition or the end of a condition of the installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct InstallationCondition {
    /// The kind of the notice.
    pub kind: Kind,
    /// `credential/NAME`, `daemon/HOST:PORT`, or `installation`.
    pub subject: String,
    /// The condition. Its start, its repetitions and its end have the same `conditionId`.
    pub condition: ConditionKind,
    /// The id of the condition.
    pub condition_id: String,
    /// When it began.
    pub since: Timestamp,
    /// When it ended; null while it holds.
    pub over_at: Option<Timestamp>,
    /// What makes it so.
    pub cause: Option<String>,
    /// What is known beyond the cause, such as Atlas' or the mail server's own words.
    pub detail: Option<String>,
    /// 0 for the first notice of a start; repetitions count from 1.
    pub repeat: u32,
}

/// News about who may decide: rules, owners, tokens, votes and settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Authority {
    /// The kind of the notice.
    pub kind: Kind,
    /// The project's id, `token/NAME`, `installation`, or the mail address of an owner.
    pub subject: String,
    /// The Atlas project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<GroupId>,
    /// The project's name in Atlas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_name: Option<String>,
    /// The rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_id: Option<RotationId>,
    /// The identity that did it.
    pub by: String,
    /// When it was done.
    pub at: Timestamp,
    /// The changed fields.
    pub changes: Vec<Change>,
    /// When a loosened rule takes effect; null while somebody has to be told.
    pub takes_effect_at: Option<Timestamp>,
    /// The id under which a loosened rule can be withdrawn.
    pub loosening_id: Option<LooseningId>,
    /// What is known beyond that, for people.
    pub detail: Option<String>,
}

named! {
    /// The way in which a key was changed outside of Keywheel.
    DriftKind, "kind of drift" {
        /// Atlas holds a key that the project never had.
        Changed = "changed",
        /// Atlas holds a key that the project had before.
        Reverted = "reverted",
        /// Atlas no longer encrypts the project with a customer-managed key.
        Removed = "removed",
    }
}

/// A key that was changed outside of Keywheel. The same text is the finding of the drift.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drifted {
    /// The Atlas project.
    pub group_id: GroupId,
    /// The project's name in Atlas.
    pub project_name: String,
    /// The key on record before the change.
    pub from: Option<KeyText>,
    /// The key that Atlas holds now.
    pub to: Option<KeyText>,
    /// The way of the change.
    pub kind: DriftKind,
    /// The actor of Atlas' event about the change.
    pub by: Option<String>,
    /// The id of Atlas' event.
    pub atlas_event_id: Option<String>,
    /// The instant of Atlas' event.
    pub atlas_event_at: Option<Timestamp>,
    /// The end of the earlier service of a key that is back.
    pub served_until: Option<Timestamp>,
    /// The rotation that the change undoes.
    pub undone_rotation: Option<RotationId>,
    /// The key of that rotation.
    pub undone_key: Option<KeyText>,
    /// The findings, as sentences for people.
    pub sentences: Vec<String>,
    /// The lines of a Terraform file that agree with the undone rotation.
    pub terraform: Option<Vec<String>>,
    /// The condition that this starts. Its end has the same id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition_id: Option<String>,
}

/// An event that reports trouble with a key that a project depends on. Nothing in it is verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct KeyAlarm {
    /// The Atlas project.
    pub group_id: GroupId,
    /// The project's name in Atlas.
    pub project_name: String,
    /// The cloud whose key service holds the key in force.
    pub provider: Option<Provider>,
    /// The key in force.
    pub current_key: Option<KeyText>,
    /// The sender's name of the event.
    pub event: String,
    /// The key, alias or vault that the event names.
    pub subject: String,
    /// The actor that the sender names.
    pub by: Option<String>,
    /// The sender's explanation.
    pub words: Option<String>,
    /// The hook that received the event, or the lookup that found the key so.
    pub hook: String,
    /// True: a lookup found it, and `event` says what it found.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub looked_up: bool,
    /// True: the key served before, and older backup snapshots need it. False: the key is in force.
    pub earlier: bool,
    /// True: the key is not in force yet; the open rotation is to bring it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proposed: bool,
    /// The condition that this starts or repeats. Its end has the same id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition_id: Option<String>,
}

/// A rotation that replaced a change which another actor made between the last observation and the PATCH.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Overwrote {
    /// The Atlas project.
    pub group_id: GroupId,
    /// The project's name in Atlas.
    pub project_name: String,
    /// The rotation.
    pub rotation_id: RotationId,
    /// The key before the rotation.
    pub old_key: KeyText,
    /// The key that the rotation brought.
    pub new_key: KeyText,
    /// The rotation's state.
    pub state: State,
    /// The actor of the change, as Atlas' event names it.
    pub by: String,
    /// The id of Atlas' event about the change.
    pub atlas_event_id: String,
    /// The instant of Atlas' event.
    pub atlas_event_at: Timestamp,
    /// The findings, as sentences for people.
    pub sentences: Vec<String>,
}

/// The use of an API token after its revocation. The request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RevokedTokenUsed {
    /// `token/NAME`.
    pub subject: String,
    /// When the token was revoked.
    pub revoked_at: Timestamp,
    /// When it was used.
    pub used_at: Timestamp,
    /// The network of its user.
    pub from: Option<String>,
}

/// The end of the audit log, signed with the installation key: what is kept elsewhere shows later whether the log was
/// shortened or rewritten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AuditHead {
    /// Always `installation`.
    pub subject: String,
    /// The hash of the log's first row, which identifies the database.
    pub database: String,
    /// The number of the log's last row.
    pub seq: i64,
    /// Its hash, which covers all rows before.
    pub hash: String,
    /// When it was signed.
    pub at: Timestamp,
    /// The fingerprint of the installation key.
    pub fingerprint: String,
    /// The public half of the signing key: 32 bytes of Ed25519 in base64.
    pub public_key: String,
    /// The signature of [`AuditHead::message`], in base64.
    pub signature: String,
    /// The first row that does not fit, when one does not.
    pub broken: Option<String>,
}

impl AuditHead {
    /// What is signed: a line for each of a constant, database, sequence, hash, time and fingerprint.
    #[must_use]
    pub fn message(&self) -> String {
        let Self { database, seq, hash, at, fingerprint, .. } = self;
        format!("keywheel audit head\n{database}\n{seq}\n{hash}\n{at}\n{fingerprint}\n")
    }
}

impl RevokedTokenUsed {
    /// The name of the token.
    #[must_use]
    pub fn token(&self) -> &str {
        self.subject.strip_prefix("token/").unwrap_or(&self.subject)
    }
}

/// A key that reached a reminder's threshold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Reminder {
    /// The Atlas project.
    pub group_id: GroupId,
    /// The project's name in Atlas.
    pub project_name: String,
    /// The key in force.
    pub current_key: Option<KeyText>,
    /// The instant since which the key serves.
    pub key_since: Option<Timestamp>,
    /// The source of that instant.
    pub key_since_source: Option<SinceSource>,
    /// The end of the key's cryptoperiod.
    pub due: Timestamp,
    /// Days until `due`; negative when it has passed.
    pub days_left: i64,
    /// The cryptoperiod, such as `90 days`.
    pub interval: String,
    /// When the key itself ends, where it is due because of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_ends_at: Option<Timestamp>,
    /// A sentence about the rotation that is open already.
    pub open_note: Option<String>,
    /// Why this recipient, who is no owner, gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied_because: Option<String>,
    /// The cloud whose key service holds the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// The project's environment, such as `prod`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// When the first reminder of the cryptoperiod came, or would have come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remind_from: Option<Timestamp>,
    /// When it was written. A later calendar entry about the same key replaces an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_at: Option<Timestamp>,
    /// The next reminders, unless the key is rotated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_reminders: Vec<Timestamp>,
    /// The mail addresses that get each of them. Webhooks do not have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<String>,
}

/// Several reminders for one owner or channel, the most urgent first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReminderDigest {
    /// The reminders.
    pub items: Vec<Reminder>,
}
