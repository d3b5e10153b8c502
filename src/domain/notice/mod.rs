//! Notices: the types of all messages to people and to other systems.
//!
//! A [`Notice`] is written to the outbox in the transaction of its cause, once for each recipient, and is
//! rendered when it is sent: a mail by `mail/letter.rs`, a webhook by `webhook/body.rs`. Both match on
//! the enum, so a new kind does not compile before both can render it. `facts.rs` holds one struct for
//! each shape; the twelve kinds that only state a rotation share one.
//!
//! The model of a row ([`Content`]) is the notice's struct as JSON, with `kind` and `server` beside its
//! members. Rows outlive upgrades, so members are only ever added. A row that cannot be read is an error
//! that names the member; no value stands in for it.

mod facts;
mod kind;

pub use facts::{
    AuditHead, Authority, CheckedRotation, ConditionFacts, CurrentKeyInvalid, DriftKind, Drifted,
    InstallationCondition, InvalidKey, KeyAlarm, KeyText, Overwrote, ProposalFacts, Reminder, ReminderDigest,
    RevokedTokenUsed, RotationFacts,
};
pub use kind::{Kind, URGENT_WAITS, Urgency};

/// The cause of an end that no reading has shown.
pub const NO_LONGER_WATCHED: &str = "no longer watched";

/// The cause of an end for somebody who is told no more.
pub const NO_LONGER_OWNER: &str = "no longer yours";

/// The cause of the end of what only a daemon that is gone could see.
pub const NO_LONGER_RUNS: &str = "the daemon no longer runs";

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::condition::ConditionKind;
use super::ids::{GroupId, RotationId};
use super::rotation::state::State;
use super::time::Timestamp;

/// A notice with its facts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kinds document the variants")]
pub enum Notice {
    ApprovalRequested(CheckedRotation),
    AutoApproved(CheckedRotation),
    Completed(RotationFacts),
    RolledBack(RotationFacts),
    Failed(RotationFacts),
    Rejected(RotationFacts),
    Cancelled(RotationFacts),
    Expired(RotationFacts),
    Superseded(RotationFacts),
    Accepted(RotationFacts),
    Closed(RotationFacts),
    NeedsOperator(RotationFacts),
    CurrentKeyInvalid(CurrentKeyInvalid),
    PreflightFailed(CheckedRotation),
    LateApply(RotationFacts),
    NotDeployed(RotationFacts),
    Drifted(Drifted),
    KeyAlarm(KeyAlarm),
    Overwrote(Overwrote),
    Reminder(Reminder),
    ReminderDigest(ReminderDigest),
    Condition(ConditionFacts),
    Installation(InstallationCondition),
    Authority(Authority),
    RevokedTokenUsed(RevokedTokenUsed),
    AuditHead(AuditHead),
}

/// The project and the rotation that a notice concerns. A digest concerns several projects and names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About<'a> {
    /// The project.
    pub project: Option<&'a GroupId>,
    /// The rotation.
    pub rotation: Option<RotationId>,
}

/// The condition of which a notice tells the start, a repetition or the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldCondition<'a> {
    /// The same from the start to the end.
    pub id: &'a str,
    /// The condition.
    pub kind: ConditionKind,
    /// The project's name.
    pub name: &'a str,
    /// When it began, where the notice states it.
    pub since: Option<Timestamp>,
    /// When it ended; `None` while it holds.
    pub over_at: Option<Timestamp>,
}

impl Notice {
    /// The notice of a rotation that ended in `state`; `None` when no rotation ends in it.
    #[must_use]
    pub fn ended(state: State, rotation: RotationFacts) -> Option<Self> {
        Some(match state {
            State::Completed => Self::Completed(rotation),
            State::RolledBack => Self::RolledBack(rotation),
            State::Failed => Self::Failed(rotation),
            State::Rejected => Self::Rejected(rotation),
            State::Cancelled => Self::Cancelled(rotation),
            State::Expired => Self::Expired(rotation),
            State::Superseded => Self::Superseded(rotation),
            State::Accepted => Self::Accepted(rotation),
            State::Closed => Self::Closed(rotation),
            State::AwaitingApproval
            | State::Approved
            | State::Applying
            | State::Verifying
            | State::Deploying
            | State::RollingBack
            | State::NeedsOperator => return None,
        })
    }

    /// The notice's kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::ApprovalRequested(_) => Kind::ApprovalRequested,
            Self::AutoApproved(_) => Kind::AutoApproved,
            Self::Completed(_) => Kind::Completed,
            Self::RolledBack(_) => Kind::RolledBack,
            Self::Failed(_) => Kind::Failed,
            Self::Rejected(_) => Kind::Rejected,
            Self::Cancelled(_) => Kind::Cancelled,
            Self::Expired(_) => Kind::Expired,
            Self::Superseded(_) => Kind::Superseded,
            Self::Accepted(_) => Kind::Accepted,
            Self::Closed(_) => Kind::Closed,
            Self::NeedsOperator(_) => Kind::NeedsOperator,
            Self::CurrentKeyInvalid(_) => Kind::CurrentKeyInvalid,
            Self::PreflightFailed(_) => Kind::PreflightFailed,
            Self::LateApply(_) => Kind::LateApply,
            Self::NotDeployed(_) => Kind::NotDeployed,
            Self::Drifted(_) => Kind::Drifted,
            Self::KeyAlarm(_) => Kind::KeyAlarm,
            Self::Overwrote(_) => Kind::Overwrote,
            Self::Reminder(_) => Kind::Reminder,
            Self::ReminderDigest(_) => Kind::ReminderDigest,
            Self::Condition(it) => it.kind,
            Self::Installation(it) => it.kind,
            Self::Authority(it) => it.kind,
            Self::RevokedTokenUsed(_) => Kind::RevokedTokenUsed,
            Self::AuditHead(_) => Kind::AuditHead,
        }
    }

    /// The notice's urgency.
    #[must_use]
    pub const fn urgency(&self) -> Urgency {
        self.kind().urgency()
    }

    /// The project and the rotation that the notice concerns.
    #[must_use]
    pub fn about(&self) -> About<'_> {
        const fn of_project(group: &GroupId) -> About<'_> {
            About { project: Some(group), rotation: None }
        }
        if let Some(it) = self.rotation() {
            return About { project: Some(&it.group_id), rotation: Some(it.rotation_id) };
        }
        match self {
            Self::CurrentKeyInvalid(CurrentKeyInvalid::Project(it)) => of_project(&it.group_id),
            Self::Drifted(it) => of_project(&it.group_id),
            Self::KeyAlarm(it) => of_project(&it.group_id),
            Self::Overwrote(it) => About { project: Some(&it.group_id), rotation: Some(it.rotation_id) },
            Self::Reminder(it) => of_project(&it.group_id),
            Self::Condition(it) => About { project: Some(&it.group_id), rotation: it.rotation_id },
            Self::Authority(it) => About { project: it.group_id.as_ref(), rotation: it.rotation_id },
            _ => About { project: None, rotation: None },
        }
    }

    /// The rotation that it tells, with its keys.
    #[must_use]
    pub const fn rotation(&self) -> Option<&RotationFacts> {
        match self {
            Self::ApprovalRequested(it) | Self::AutoApproved(it) | Self::PreflightFailed(it) => {
                Some(&it.rotation)
            }
            Self::Completed(it)
            | Self::RolledBack(it)
            | Self::Failed(it)
            | Self::Rejected(it)
            | Self::Cancelled(it)
            | Self::Expired(it)
            | Self::Superseded(it)
            | Self::Accepted(it)
            | Self::Closed(it)
            | Self::NeedsOperator(it)
            | Self::LateApply(it)
            | Self::NotDeployed(it) => Some(it),
            Self::CurrentKeyInvalid(CurrentKeyInvalid::Rotation(it)) => Some(it),
            Self::CurrentKeyInvalid(CurrentKeyInvalid::Project(_))
            | Self::Drifted(_)
            | Self::KeyAlarm(_)
            | Self::Overwrote(_)
            | Self::Reminder(_)
            | Self::ReminderDigest(_)
            | Self::Condition(_)
            | Self::Installation(_)
            | Self::Authority(_)
            | Self::RevokedTokenUsed(_)
            | Self::AuditHead(_) => None,
        }
    }

    /// The condition of which it tells the start, a repetition or the end.
    #[must_use]
    pub fn condition(&self) -> Option<ToldCondition<'_>> {
        let (id, kind, name, since, over_at) = match self {
            Self::NeedsOperator(it) => {
                (it.condition_id.as_deref()?, ConditionKind::NeedsOperator, &it.project_name, None, None)
            }
            Self::CurrentKeyInvalid(CurrentKeyInvalid::Project(it)) => {
                (it.condition_id.as_deref()?, ConditionKind::Invalid, &it.project_name, it.since, None)
            }
            Self::Drifted(it) => {
                (it.condition_id.as_deref()?, ConditionKind::Drifted, &it.project_name, None, None)
            }
            Self::KeyAlarm(it) => {
                (it.condition_id.as_deref()?, ConditionKind::KeyEnding, &it.project_name, None, None)
            }
            Self::Condition(it) => {
                (it.condition_id.as_str(), it.condition, &it.project_name, Some(it.since), it.over_at)
            }
            Self::Installation(it) => {
                (it.condition_id.as_str(), it.condition, &it.subject, Some(it.since), it.over_at)
            }
            Self::ApprovalRequested(_)
            | Self::AutoApproved(_)
            | Self::Completed(_)
            | Self::RolledBack(_)
            | Self::Failed(_)
            | Self::Rejected(_)
            | Self::Cancelled(_)
            | Self::Expired(_)
            | Self::Superseded(_)
            | Self::Accepted(_)
            | Self::Closed(_)
            | Self::CurrentKeyInvalid(CurrentKeyInvalid::Rotation(_))
            | Self::PreflightFailed(_)
            | Self::LateApply(_)
            | Self::NotDeployed(_)
            | Self::Overwrote(_)
            | Self::Reminder(_)
            | Self::ReminderDigest(_)
            | Self::Authority(_)
            | Self::RevokedTokenUsed(_)
            | Self::AuditHead(_) => return None,
        };
        Some(ToldCondition { id, kind, name, since, over_at })
    }

    /// The notice's facts, as JSON.
    #[must_use]
    pub fn facts(&self) -> Value {
        match self {
            Self::ApprovalRequested(it) | Self::AutoApproved(it) | Self::PreflightFailed(it) => json!(it),
            Self::Completed(it)
            | Self::RolledBack(it)
            | Self::Failed(it)
            | Self::Rejected(it)
            | Self::Cancelled(it)
            | Self::Expired(it)
            | Self::Superseded(it)
            | Self::Accepted(it)
            | Self::Closed(it)
            | Self::NeedsOperator(it)
            | Self::LateApply(it)
            | Self::NotDeployed(it) => json!(it),
            Self::CurrentKeyInvalid(it) => json!(it),
            Self::Drifted(it) => json!(it),
            Self::KeyAlarm(it) => json!(it),
            Self::Overwrote(it) => json!(it),
            Self::Reminder(it) => json!(it),
            Self::ReminderDigest(it) => json!(it),
            Self::Condition(it) => json!(it),
            Self::Installation(it) => json!(it),
            Self::Authority(it) => json!(it),
            Self::RevokedTokenUsed(it) => json!(it),
            Self::AuditHead(it) => json!(it),
        }
    }

    fn read(kind: Kind, model: &Value) -> Result<Self, BadMember> {
        Ok(match kind {
            Kind::ApprovalRequested => Self::ApprovalRequested(read_checked(model)?),
            Kind::AutoApproved => Self::AutoApproved(read_checked(model)?),
            Kind::Completed => Self::Completed(read(model)?),
            Kind::RolledBack => Self::RolledBack(read(model)?),
            Kind::Failed => Self::Failed(read(model)?),
            Kind::Rejected => Self::Rejected(read(model)?),
            Kind::Cancelled => Self::Cancelled(read(model)?),
            Kind::Expired => Self::Expired(read(model)?),
            Kind::Superseded => Self::Superseded(read(model)?),
            Kind::Accepted => Self::Accepted(read(model)?),
            Kind::Closed => Self::Closed(read(model)?),
            Kind::NeedsOperator => Self::NeedsOperator(read(model)?),
            Kind::CurrentKeyInvalid => Self::CurrentKeyInvalid(read_invalid(model)?),
            Kind::PreflightFailed => Self::PreflightFailed(read_checked(model)?),
            Kind::LateApply => Self::LateApply(read(model)?),
            Kind::NotDeployed => Self::NotDeployed(read(model)?),
            Kind::Drifted => Self::Drifted(read(model)?),
            Kind::KeyAlarm => Self::KeyAlarm(read(model)?),
            Kind::Overwrote => Self::Overwrote(read(model)?),
            Kind::Reminder => Self::Reminder(read(model)?),
            Kind::ReminderDigest => Self::ReminderDigest(read(model)?),
            Kind::Unreachable
            | Kind::ValidityUnknown
            | Kind::NoKey
            | Kind::Held
            | Kind::NeedsOperatorOver
            | Kind::CurrentKeyInvalidOver
            | Kind::UnreachableOver
            | Kind::ValidityUnknownOver
            | Kind::NoKeyOver
            | Kind::DriftedOver
            | Kind::HeldOver
            | Kind::NotOwner
            | Kind::NotOwnerOver
            | Kind::KeyAlarmOver => Self::Condition(read(model)?),
            Kind::NotSending
            | Kind::DatabaseUnwritable
            | Kind::AtlasUnreachable
            | Kind::CredentialRefused
            | Kind::CredentialEnding
            | Kind::MailFailing
            | Kind::WebhookDisabled
            | Kind::SweepLate
            | Kind::RowUnreadable
            | Kind::NotSendingOver
            | Kind::DatabaseUnwritableOver
            | Kind::AtlasUnreachableOver
            | Kind::CredentialRefusedOver
            | Kind::CredentialEndingOver
            | Kind::MailFailingOver
            | Kind::WebhookDisabledOver
            | Kind::SweepLateOver
            | Kind::RowUnreadableOver => Self::Installation(read(model)?),
            Kind::LooseningAnnounced
            | Kind::LooseningWithdrawn
            | Kind::LooseningEffective
            | Kind::OwnersChanged
            | Kind::AddressRefused
            | Kind::EmergencyRequested
            | Kind::ReviewClosed
            | Kind::VoteVoid
            | Kind::TokenCreated
            | Kind::TokenRevoked
            | Kind::TokenRoles
            | Kind::PasskeyConfirmed
            | Kind::PasskeyRemoved
            | Kind::PersonJoined
            | Kind::PersonRenamed
            | Kind::PersonRemoved
            | Kind::ConfigChanged
            | Kind::Acceptance => Self::Authority(read(model)?),
            Kind::RevokedTokenUsed => Self::RevokedTokenUsed(read(model)?),
            Kind::AuditHead => Self::AuditHead(read(model)?),
        })
    }
}

/// Reads a struct; the error names the member.
fn read<T: DeserializeOwned>(model: &Value) -> Result<T, BadMember> {
    serde_path_to_error::deserialize(model).map_err(|error| BadMember {
        path: error.path().iter().next().map(|_| error.path().to_string()),
        why: error.into_inner().to_string(),
    })
}

/// The rotation is read by itself first: an error in a flattened part names no member.
fn read_checked(model: &Value) -> Result<CheckedRotation, BadMember> {
    read::<RotationFacts>(model)?;
    read(model)
}

/// A model with a `rotationId` holds the facts of a rotation.
fn read_invalid(model: &Value) -> Result<CurrentKeyInvalid, BadMember> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Which {
        rotation_id: Option<RotationId>,
    }
    Ok(match read::<Which>(model)?.rotation_id {
        Some(_) => CurrentKeyInvalid::Rotation(read(model)?),
        None => CurrentKeyInvalid::Project(read(model)?),
    })
}

/// A member that is missing or has another type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMember {
    /// Its path in the model; `None` when the model is not an object, or lacks the member at the top.
    pub path: Option<String>,
    /// Its fault.
    pub why: String,
}

impl std::fmt::Display for BadMember {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{path}: {}", self.why),
            None => f.write_str(&self.why),
        }
    }
}

/// A notice that a stored model does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableNotice {
    /// This version has no such kind: a newer version wrote the row.
    #[error("{0:?} is not a kind of notice of this version; run the version that wrote the message")]
    UnknownKind(String),
    /// A member is missing or has another type.
    #[error("the model is not a notice of kind {kind}: {why}")]
    BadModel {
        /// The row's kind.
        kind: Kind,
        /// The member and its fault.
        why: BadMember,
    },
}

/// The content of a message: a notice, and the address of the server that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The address under which people reach the server, without a slash at its end.
    pub server: String,
    /// The notice.
    pub notice: Notice,
}

impl Content {
    /// The model of an outbox row. A drift's `kind` is its own.
    #[must_use]
    pub fn model(&self) -> Value {
        let with = |kind: Kind, facts: Value| {
            let mut model = json!({ "kind": kind, "server": self.server });
            if let (Value::Object(model), Value::Object(facts)) = (&mut model, facts) {
                model.extend(facts);
            }
            model
        };
        match &self.notice {
            // Each reminder of a digest is stored as one that stands alone.
            Notice::ReminderDigest(it) => {
                let items: Vec<_> = it.items.iter().map(|it| with(Kind::Reminder, json!(it))).collect();
                with(Kind::ReminderDigest, json!({ "items": items }))
            }
            notice => with(notice.kind(), notice.facts()),
        }
    }

    /// Reads the model of a row of this kind.
    ///
    /// # Errors
    /// The error names the kind or the member that cannot be read.
    pub fn read(kind: &str, model: &Value) -> Result<Self, UnreadableNotice> {
        #[derive(Deserialize)]
        struct Sender {
            server: String,
        }
        let kind: Kind = kind.parse().map_err(|_| UnreadableNotice::UnknownKind(kind.to_owned()))?;
        let bad = |why| UnreadableNotice::BadModel { kind, why };
        let Sender { server } = read(model).map_err(bad)?;
        Ok(Self { server, notice: Notice::read(kind, model).map_err(bad)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation() -> Value {
        json!({
            "kind": "completed", "server": "https://kw.example", "groupId": "32b6e34b3d91647abb20e7b8",
            "projectName": "pay", "rotationId": "0198c5a0-0000-7000-8000-000000000001", "provider": "AWS",
            "oldKey": "o", "newKey": "n", "state": "completed", "cause": null, "requestedBy": "ada",
            "reason": null, "atlasErrorCode": null, "atlasDetail": null, "remedy": null,
        })
    }

    #[test]
    fn every_final_state_and_no_other_ends_a_rotation_with_a_notice_of_its_name() {
        let Notice::Completed(facts) = Content::read("completed", &rotation()).unwrap().notice else {
            panic!()
        };
        for state in State::ALL {
            let kind = Notice::ended(*state, facts.clone()).map(|notice| notice.kind().as_str());
            assert_eq!(kind, state.is_final().then_some(state.as_str()));
        }
    }

    #[test]
    fn an_error_names_the_member() {
        let read = |kind: &str, member: &str, value: Option<Value>| {
            let mut model = rotation();
            model["checks"] = json!([]);
            match value {
                Some(value) => model[member] = value,
                None => drop(model.as_object_mut().unwrap().remove(member)),
            }
            Content::read(kind, &model).unwrap_err().to_string()
        };
        for (kind, member, value, wanted) in [
            (
                "completed",
                "newKey",
                None,
                "the model is not a notice of kind completed: missing field `newKey`",
            ),
            ("completed", "server", None, "missing field `server`"),
            ("completed", "state", Some(json!("asleep")), "state: unknown variant `asleep`"),
            ("failed", "groupId", Some(json!("")), "groupId: groupId \"\" is not an Atlas project id"),
            ("auto_approved", "rotationId", Some(json!("x")), "rotationId: UUID parsing failed"),
            ("auto_approved", "checks", None, "missing field `checks`"),
            (
                "preflight_failed",
                "checks",
                Some(json!([{ "name": "format" }])),
                "checks[0]: missing field `result`",
            ),
            ("current_key_invalid", "rotationId", Some(json!(7)), "rotationId: "),
            ("reminder", "due", Some(json!("soon")), "due: \"soon\" is not a date"),
        ] {
            let error = read(kind, member, value);
            assert!(error.contains(wanted), "{kind} {member}: {error}");
        }
        assert_eq!(
            Content::read("renewed", &rotation()),
            Err(UnreadableNotice::UnknownKind("renewed".to_owned()))
        );
        assert!(Content::read("completed", &json!("no JSON")).is_err());
    }
}
