//! A tracked Atlas project: which key it has, since when, and when it is due.
//!
//! Due dates and statuses are computed from rows on each request and never stored.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::condition::ConditionKind;
use super::escalation::Escalation;
use super::ids::{GroupId, RotationId};
use super::key::{KeyRef, Place, Provider};
use super::named::named;
use super::patch::Patch;
use super::policy::Policy;
use super::rotation::state::State;
use super::silence::{DueAck, Silence};
use super::time::Timestamp;

named! {
    /// Where `keySince` comes from.
    SinceSource, "keySince source" {
        /// An operator set it.
        Operator = "operator",
        /// Our own rotation put the key there.
        Rotation = "rotation",
        /// Atlas' event about the rotation.
        AtlasEvent = "atlas_event",
        /// The first observation showed the key: it is at least this old.
        FirstSeen = "first_seen",
    }
}

named! {
    /// A project's condition in one word, the worst where several apply.
    Status, "project status" {
        /// Nothing to do.
        Ok = "ok",
        /// Due within the first reminder threshold.
        DueSoon = "due_soon",
        /// The cryptoperiod is over.
        Overdue = "overdue",
        /// A rotation is open.
        Rotating = "rotating",
        /// A rotation waits for an operator.
        NeedsOperator = "needs_operator",
        /// Atlas holds a key that Keywheel did not set and no operator recorded.
        Drifted = "drifted",
        /// Atlas cannot use the project's key.
        Invalid = "invalid",
        /// Atlas could not be read at the last attempt.
        Unreachable = "unreachable",
        /// The key is an Azure identifier without a version, so its age is unknown.
        UnmanagedVersion = "unmanaged_version",
        /// Never observed yet, or no customer-managed key is configured.
        Unknown = "unknown",
    }
}

/// A tracked project as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Atlas' id.
    pub group_id: GroupId,
    /// The project's name in Atlas.
    pub name: String,
    /// The provider whose key Atlas uses; `None` before the first observation.
    pub provider: Option<Provider>,
    /// The key last recorded.
    pub current_key: Option<KeyRef>,
    /// Region or vault of the block.
    pub place: Place,
    /// Since when the key serves.
    pub key_since: Option<Timestamp>,
    /// The source of `key_since`.
    pub key_since_source: Option<SinceSource>,
    /// When the key expires or is destroyed, as its key service said. It is not written with the project.
    #[serde(default)]
    pub key_ends_at: Option<Timestamp>,
    /// Atlas' `valid` at the last observation.
    pub valid: Option<bool>,
    /// Whether the block sets private networking.
    pub private_networking: bool,
    /// The people responsible, by mail address.
    pub owners: Vec<String>,
    /// A free tag such as `prod`, compared between projects.
    pub environment: Option<String>,
    /// The name of the Atlas credential.
    pub credential: String,
    /// The name of the lookup for its keys.
    pub kms: Option<String>,
    /// AWS: the alias that points at the key to use.
    pub alias: Option<String>,
    /// The settings in which this project differs; `None` means the defaults.
    pub policy: Option<PolicyOverride>,
    /// A key that was found as drift and that no operator has recorded yet.
    pub drift_key: Option<KeyRef>,
    /// When Atlas was last read.
    pub last_checked_at: Option<Timestamp>,
    /// The error of the last observation, verbatim, when it failed.
    pub last_error: Option<String>,
    /// When the sweep observes it next.
    pub next_check_at: Timestamp,
    /// When its reminders are checked next; `None` when no further one can follow.
    pub next_reminder_at: Option<Timestamp>,
    /// When it was added.
    pub created_at: Timestamp,
    /// The open rotation, when there is one.
    pub open_rotation: Option<OpenRotation>,
    /// The conditions on record that hold. They are not written with the project.
    #[serde(default)]
    pub holding: Vec<ConditionKind>,
    /// Its last silence. It is not written with the project.
    #[serde(default)]
    pub silence: Option<Silence>,
    /// Its last acknowledged due date. It is not written with the project.
    #[serde(default)]
    pub due_ack: Option<DueAck>,
    /// Counts writes; a write names the version it read.
    pub version: i64,
}

/// A key that ends is to be replaced this long before: time for an approval, a window and a second attempt.
pub const BEFORE_END: Duration = Duration::from_hours(7 * 24);

/// A project's open rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OpenRotation {
    /// Its id.
    pub id: RotationId,
    /// Its state.
    pub state: State,
}

/// The parts of a policy that a project sets for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PolicyOverride {
    /// See [`Policy::interval`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<super::time::Span>,
    /// See [`Policy::remind_before`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remind_before: Option<Vec<super::time::DayOffset>>,
    /// See [`Policy::remind_overdue`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remind_overdue: Option<Vec<super::time::DayOffset>>,
    /// See [`Policy::escalate`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escalate: Option<Vec<Escalation>>,
    /// See [`Policy::approvals`].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub approvals: Option<u32>,
    /// See [`Policy::self_approval`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_approval: Option<bool>,
    /// See [`Policy::approval_ttl`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval_ttl: Option<super::time::Span>,
    /// See [`Policy::execution_ttl`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_ttl: Option<super::time::Span>,
    /// See [`Policy::auto_approve`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_approve: Option<Vec<String>>,
    /// See [`Policy::windows`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<Vec<super::policy::Window>>,
    /// See [`Policy::freezes`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freezes: Option<Vec<super::freeze::Freeze>>,
    /// See [`Policy::approvers`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approvers: Option<Vec<super::approver::Approver>>,
    /// See [`Policy::approval_method`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval_method: Option<super::approver::Strength>,
    /// See [`Policy::emergency`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emergency: Option<super::emergency::Emergency>,
    /// See [`Policy::allow_versionless`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_versionless: Option<bool>,
}

impl PolicyOverride {
    /// The defaults with this project's settings laid over them.
    #[must_use]
    pub fn over(&self, defaults: &Policy) -> Policy {
        let it = self.clone();
        Policy {
            interval: it.interval.unwrap_or(defaults.interval),
            remind_before: it.remind_before.unwrap_or_else(|| defaults.remind_before.clone()),
            remind_overdue: it.remind_overdue.unwrap_or_else(|| defaults.remind_overdue.clone()),
            escalate: it.escalate.unwrap_or_else(|| defaults.escalate.clone()),
            approvals: it.approvals.unwrap_or(defaults.approvals),
            self_approval: it.self_approval.unwrap_or(defaults.self_approval),
            approval_ttl: it.approval_ttl.unwrap_or(defaults.approval_ttl),
            execution_ttl: it.execution_ttl.unwrap_or(defaults.execution_ttl),
            auto_approve: it.auto_approve.unwrap_or_else(|| defaults.auto_approve.clone()),
            windows: it.windows.unwrap_or_else(|| defaults.windows.clone()),
            freezes: it.freezes.unwrap_or_else(|| defaults.freezes.clone()),
            approvers: it.approvers.unwrap_or_else(|| defaults.approvers.clone()),
            approval_method: it.approval_method.unwrap_or(defaults.approval_method),
            emergency: it.emergency.unwrap_or_else(|| defaults.emergency.clone()),
            allow_versionless: it.allow_versionless.unwrap_or(defaults.allow_versionless),
        }
    }
}

/// A change of a project's own rules. A member that is left out leaves its rule as it is; null clears it, so that the
/// default applies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PolicyEdit {
    /// See [`Policy::interval`].
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<super::time::Span>, required = false)]
    pub interval: Patch<super::time::Span>,
    /// See [`Policy::remind_before`].
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<Vec<super::time::DayOffset>>, required = false)]
    pub remind_before: Patch<Vec<super::time::DayOffset>>,
    /// See [`Policy::remind_overdue`].
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<Vec<super::time::DayOffset>>, required = false)]
    pub remind_overdue: Patch<Vec<super::time::DayOffset>>,
    /// See [`Policy::approvals`].
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<u32>, required = false, minimum = 1)]
    pub approvals: Patch<u32>,
    /// See [`Policy::self_approval`].
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<bool>, required = false)]
    pub self_approval: Patch<bool>,
    /// See [`Policy::approval_ttl`].
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<super::time::Span>, required = false)]
    pub approval_ttl: Patch<super::time::Span>,
    /// See [`Policy::execution_ttl`].
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<super::time::Span>, required = false)]
    pub execution_ttl: Patch<super::time::Span>,
    /// See [`Policy::auto_approve`].
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<Vec<String>>, required = false)]
    pub auto_approve: Patch<Vec<String>>,
    /// See [`Policy::windows`].
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<Vec<super::policy::Window>>, required = false)]
    pub windows: Patch<Vec<super::policy::Window>>,
    /// See [`Policy::escalate`].
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<Vec<Escalation>>, required = false)]
    pub escalate: Patch<Vec<Escalation>>,
    /// See [`Policy::freezes`].
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<Vec<super::freeze::Freeze>>, required = false)]
    pub freezes: Patch<Vec<super::freeze::Freeze>>,
    /// See [`Policy::approvers`].
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<Vec<super::approver::Approver>>, required = false)]
    pub approvers: Patch<Vec<super::approver::Approver>>,
    /// See [`Policy::approval_method`].
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<super::approver::Strength>, required = false)]
    pub approval_method: Patch<super::approver::Strength>,
    /// See [`Policy::emergency`].
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<super::emergency::Emergency>, required = false)]
    pub emergency: Patch<super::emergency::Emergency>,
    /// See [`Policy::allow_versionless`].
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<bool>, required = false)]
    pub allow_versionless: Patch<bool>,
}

impl PolicyEdit {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The project's own rules after the change; `None` where no rule is left.
    #[must_use]
    pub fn onto(self, own: Option<PolicyOverride>) -> Option<PolicyOverride> {
        let mut own = own.unwrap_or_default();
        self.interval.apply(&mut own.interval);
        self.remind_before.apply(&mut own.remind_before);
        self.remind_overdue.apply(&mut own.remind_overdue);
        self.approvals.apply(&mut own.approvals);
        self.self_approval.apply(&mut own.self_approval);
        self.approval_ttl.apply(&mut own.approval_ttl);
        self.execution_ttl.apply(&mut own.execution_ttl);
        self.auto_approve.apply(&mut own.auto_approve);
        self.windows.apply(&mut own.windows);
        self.escalate.apply(&mut own.escalate);
        self.freezes.apply(&mut own.freezes);
        self.approvers.apply(&mut own.approvers);
        self.approval_method.apply(&mut own.approval_method);
        self.emergency.apply(&mut own.emergency);
        self.allow_versionless.apply(&mut own.allow_versionless);
        Some(own).filter(|own| *own != PolicyOverride::default())
    }
}

/// The change that sets these rules and leaves the others.
impl From<PolicyOverride> for PolicyEdit {
    fn from(own: PolicyOverride) -> Self {
        fn set<T>(rule: Option<T>) -> Patch<T> {
            rule.map_or(Patch::Absent, Patch::Value)
        }
        Self {
            interval: set(own.interval),
            remind_before: set(own.remind_before),
            remind_overdue: set(own.remind_overdue),
            approvals: set(own.approvals),
            self_approval: set(own.self_approval),
            approval_ttl: set(own.approval_ttl),
            execution_ttl: set(own.execution_ttl),
            auto_approve: set(own.auto_approve),
            windows: set(own.windows),
            escalate: set(own.escalate),
            freezes: set(own.freezes),
            approvers: set(own.approvers),
            approval_method: set(own.approval_method),
            emergency: set(own.emergency),
            allow_versionless: set(own.allow_versionless),
        }
    }
}

impl Project {
    /// The policy in force for this project.
    #[must_use]
    pub fn policy(&self, defaults: &Policy) -> Policy {
        self.policy.as_ref().map_or_else(|| defaults.clone(), |own| own.over(defaults))
    }

    /// When the current key is to be replaced: at the end of its cryptoperiod, or [`BEFORE_END`] before the key itself
    /// ends, whichever is earlier.
    #[must_use]
    pub fn due(&self, defaults: &Policy) -> Option<Timestamp> {
        let versionless = self.current_key.as_ref().is_some_and(KeyRef::is_versionless);
        let period =
            self.key_since.filter(|_| !versionless).map(|since| since + self.policy(defaults).interval.get());
        period.into_iter().chain(self.due_by_end()).min()
    }

    /// Names the cycle that the reminders are recorded under; `None` while the service of the key has no date.
    #[must_use]
    pub fn cycle(&self, defaults: &Policy) -> Option<String> {
        let since = self.key_since?;
        // A key that ends before its cryptoperiod has reminders of its own.
        let early = self.due_early(defaults);
        Some(early.map_or_else(|| since.to_string(), |early| format!("{since}/{early}")))
    }

    /// The acknowledgement that keeps the reminders of this key back at `now`.
    #[must_use]
    pub fn acknowledged(&self, defaults: &Policy, now: Timestamp) -> Option<&DueAck> {
        let (due, cycle) = (self.due(defaults)?, self.cycle(defaults)?);
        self.due_ack.as_ref().filter(|it| it.cycle == cycle && it.lasts(due, now))
    }

    /// When the current key is to be replaced because it ends, if that is before its cryptoperiod does.
    #[must_use]
    pub fn due_early(&self, defaults: &Policy) -> Option<Timestamp> {
        self.due_by_end().filter(|by_end| self.due(defaults) == Some(*by_end))
    }

    fn due_by_end(&self) -> Option<Timestamp> {
        let due = self.key_ends_at? - BEFORE_END;
        // A key that was short-lived from the start is due at once, and not before it served.
        Some(self.key_since.map_or(due, |since| since.max(due)))
    }

    /// The project's conditions at `now` that people are only shown, the most urgent first.
    #[must_use]
    pub fn shown(&self, defaults: &Policy, now: Timestamp) -> Vec<ConditionKind> {
        let mut shown = Vec::new();
        if self.open_rotation.is_some() {
            shown.push(ConditionKind::Rotating);
        }
        let Some(key) = &self.current_key else { return shown };
        if key.is_versionless() {
            shown.push(ConditionKind::UnmanagedVersion);
        }
        let policy = self.policy(defaults);
        let first = policy.remind_before.iter().map(|offset| offset.days()).max().unwrap_or(0);
        let soon = super::time::Span::from_days(u64::from(first)).get();
        match self.due(defaults) {
            Some(due) if now >= due => shown.push(ConditionKind::Overdue),
            Some(due) if now.until(due) <= soon => shown.push(ConditionKind::DueSoon),
            _ => {}
        }
        shown
    }

    /// The most urgent of the project's conditions at `now`, in one word. The last reading shows at once what
    /// becomes a condition only when it is confirmed.
    #[must_use]
    pub fn status(&self, defaults: &Policy, now: Timestamp) -> Status {
        let shown = self.shown(defaults, now);
        let holds = |kind| self.holding.contains(&kind) || shown.contains(&kind);
        let waits = self.open_rotation.is_some_and(|open| open.state == State::NeedsOperator);
        if waits {
            Status::NeedsOperator
        } else if self.valid == Some(false)
            || holds(ConditionKind::Invalid)
            || holds(ConditionKind::KeyEnding)
        {
            Status::Invalid
        } else if self.last_error.is_some()
            || holds(ConditionKind::Unreachable)
            || holds(ConditionKind::NotOwner)
        {
            Status::Unreachable
        } else if self.current_key.is_none() || holds(ConditionKind::ValidityUnknown) {
            Status::Unknown
        } else if self.drift_key.is_some() {
            Status::Drifted
        } else if self.open_rotation.is_some() {
            Status::Rotating
        } else if holds(ConditionKind::Overdue) {
            Status::Overdue
        } else if holds(ConditionKind::DueSoon) {
            Status::DueSoon
        } else if holds(ConditionKind::UnmanagedVersion) {
            Status::UnmanagedVersion
        } else if self.due(defaults).is_none() {
            Status::Unknown
        } else {
            Status::Ok
        }
    }
}
