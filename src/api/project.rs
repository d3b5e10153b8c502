//! Projects: tracked ones, their edits, and those that a discovery finds in Atlas.

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::loosening::Loosening;

use crate::domain::approver::{Approver, Strength};
use crate::domain::condition::ConditionKind;
use crate::domain::emergency::Emergency;
use crate::domain::escalation::Escalation;
use crate::domain::freeze::Freeze;
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::key::Provider;
use crate::domain::notice::DriftKind;
use crate::domain::patch::Patch;
use crate::domain::policy;
use crate::domain::project::{OpenRotation, PolicyEdit, PolicyOverride, SinceSource, Status};
use crate::domain::time::{DayOffset, Span, Timestamp};

/// A tracked project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Project {
    /// Atlas' id.
    pub group_id: GroupId,
    /// Atlas' name, or the one that replaces it.
    pub name: String,
    /// The provider whose key Atlas uses; null before the first observation.
    pub provider: Option<Provider>,
    /// The key last recorded.
    pub current_key: Option<String>,
    /// When the key's service began.
    pub key_since: Option<Timestamp>,
    /// Where `keySince` comes from.
    pub key_since_source: Option<SinceSource>,
    /// Atlas' `valid` at the last observation.
    pub valid: Option<bool>,
    /// When the key expires or is destroyed, as its key service said.
    #[serde(default)]
    pub key_ends_at: Option<Timestamp>,
    /// When the key is to be replaced: the end of its cryptoperiod, or seven days before it ends itself.
    pub due: Option<Timestamp>,
    /// The most urgent of the project's conditions.
    pub status: Status,
    /// Everything that holds, the most urgent first.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// The acknowledged due date; no reminder is given until then.
    #[serde(default)]
    pub acknowledged_due: Option<AcknowledgedDue>,
    /// The silence that lasts; its mails wait.
    #[serde(default)]
    pub silence: Option<Silence>,
    /// The people responsible, by mail address.
    pub owners: Vec<String>,
    /// A tag such as `prod`.
    pub environment: Option<String>,
    /// The name of the Atlas credential.
    pub credential: String,
    /// The name of the project's lookup, `kms.NAME` in the configuration.
    pub kms: Option<String>,
    /// AWS only: the alias that points at the key to use.
    pub alias: Option<String>,
    /// The rules in force.
    pub policy: Policy,
    /// The rules in which the project differs from the defaults, as an inventory file has them.
    #[serde(default)]
    pub policy_override: Option<PolicyOverride>,
    /// When Atlas was last read.
    pub last_checked_at: Option<Timestamp>,
    /// Why the last observation failed, when it did.
    pub last_error: Option<String>,
    /// The rotation that is open.
    pub open_rotation: Option<OpenRotation>,
    /// The loosened rules that have not taken effect. Only where one project is shown.
    #[serde(default)]
    pub loosenings: Vec<Loosening>,
    /// In the answer to its addition: it was tracked before and keeps the rules that it had.
    #[serde(default)]
    pub rules_kept: bool,
}

/// What is wrong with a project or with the installation, for as long as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Its kind.
    pub kind: ConditionKind,
    /// Its id: the notices of its start and of its end have it, too.
    pub condition_id: String,
    /// A project's id, or `credential/NAME`, `daemon/HOST:PORT` or `installation`.
    #[serde(default)]
    pub subject: String,
    /// When it began; null for one that follows from a date or from the open rotation.
    pub since: Option<Timestamp>,
    /// What makes it so.
    pub cause: Option<String>,
    /// The key that it concerns.
    pub key: Option<String>,
    /// The rotation that it concerns.
    pub rotation_id: Option<RotationId>,
    /// How often it was told; 0 for one that is only shown, or that another condition says already.
    pub told: u32,
    /// When it was told last.
    pub told_at: Option<Timestamp>,
    /// When it is told next.
    pub tell_at: Option<Timestamp>,
    /// When a person acknowledged it.
    pub acknowledged_at: Option<Timestamp>,
    /// That person.
    pub acknowledged_by: Option<String>,
}

/// An acknowledgement of a condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Acknowledgement {
    /// Words for the audit log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// A due date that a person has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AcknowledgedDue {
    /// Until when no reminder is given.
    pub until: Timestamp,
    /// Who has acknowledged.
    pub by: String,
}

/// An acknowledgement of a due date: the key is to be replaced on a planned day.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DueAcknowledgement {
    /// Until when no reminder is given: an instant, or a day, which begins in the zone of the project's first window. At
    /// most 7 days after the due date.
    #[schema(examples("2026-12-12"))]
    pub until: String,
    /// Words for the audit log.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 2000)]
    pub comment: Option<String>,
}

/// A silence of a project's mails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Silence {
    /// When it began.
    pub since: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    /// The person who asked for it.
    pub by: String,
}

/// A request for a silence, or for its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NewSilence {
    /// For how long from now on the mails wait, at most 24 hours; without it, the silence that lasts ends.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// Words for the audit log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// The rules in force for a project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// How long a key may serve (cryptoperiod).
    pub interval: Span,
    /// Days before due on which owners are reminded.
    pub remind_before: Vec<DayOffset>,
    /// Days after due on which owners are reminded; the last one repeats.
    pub remind_overdue: Vec<DayOffset>,
    /// Who gets a copy of the reminders when a key stays overdue.
    #[serde(default)]
    pub escalate: Vec<Escalation>,
    /// How many people must approve.
    #[schema(minimum = 1)]
    pub approvals: u32,
    /// Whether the proposer may approve too.
    pub self_approval: bool,
    /// How long a proposal waits for its quorum.
    pub approval_ttl: Span,
    /// How long an approved rotation may wait to run.
    pub execution_ttl: Span,
    /// Triggers whose proposals are approved without a person.
    pub auto_approve: Vec<String>,
    /// When a PATCH may be sent; empty means always.
    pub windows: Vec<WindowInForce>,
    /// Days on which no new key is sent.
    #[serde(default)]
    #[schema(required)]
    pub freezes: Vec<Freeze>,
    /// Who may approve; empty means everybody with a role that approves.
    #[serde(default)]
    #[schema(required)]
    pub approvers: Vec<Approver>,
    /// The weakest method by which a vote counts.
    #[serde(default)]
    #[schema(required)]
    pub approval_method: Strength,
    /// Who may propose an emergency rotation.
    #[serde(default)]
    #[schema(required)]
    pub emergency: Emergency,
    /// Whether a versionless Azure identifier may be replaced or proposed.
    pub allow_versionless: bool,
}

/// A recurring span of time in which a PATCH may be sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WindowInForce {
    /// When it opens: a cron expression with seconds, in `timezone`.
    pub cron: String,
    /// How long it stays open.
    pub duration: Span,
    /// An IANA time zone name such as `Europe/Berlin`.
    pub timezone: String,
}

impl From<policy::Policy> for Policy {
    fn from(it: policy::Policy) -> Self {
        let window = |it: policy::Window| WindowInForce {
            cron: it.cron,
            duration: it.duration,
            timezone: it.timezone,
        };
        Self {
            interval: it.interval,
            remind_before: it.remind_before,
            remind_overdue: it.remind_overdue,
            approvals: it.approvals,
            self_approval: it.self_approval,
            approval_ttl: it.approval_ttl,
            execution_ttl: it.execution_ttl,
            auto_approve: it.auto_approve,
            windows: it.windows.into_iter().map(window).collect(),
            escalate: it.escalate,
            freezes: it.freezes,
            approvers: it.approvers,
            approval_method: it.approval_method,
            emergency: it.emergency,
            allow_versionless: it.allow_versionless,
        }
    }
}

/// A project to track.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewProject {
    /// Atlas' id.
    #[schema(value_type = GroupId)]
    pub group_id: String,
    /// A name instead of Atlas' own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The people responsible, by mail address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(schema_with = super::schema::mails)]
    pub owners: Vec<String>,
    /// The name of the Atlas credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// A tag such as `prod`, or empty for none. Without it, a project that was never tracked takes its tag `environment` in
    /// Atlas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The name of the project's lookup, `kms.NAME` in the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms: Option<String>,
    /// AWS only: the alias that points at the key to use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// When the current key's service began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_since: Option<Timestamp>,
    /// The rules in which the project differs from the defaults.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyOverride>,
    /// Check everything and write nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// A change of a tracked project. A member that is left out leaves its field as it is, and so does null
/// except for `kms` and `alias`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProjectEdit {
    /// A name instead of Atlas' own.
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>, required = false)]
    pub name: Patch<String>,
    /// The people responsible, by mail address.
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(schema_with = super::schema::maybe_mails, required = false)]
    pub owners: Patch<Vec<String>>,
    /// The name of the Atlas credential.
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>, required = false)]
    pub credential: Patch<String>,
    /// A tag such as `prod`. An empty text clears it.
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>, required = false)]
    pub environment: Patch<String>,
    /// The name of the project's lookup, `kms.NAME` in the configuration. Null or an empty text clears it.
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>, required = false)]
    pub kms: Patch<String>,
    /// AWS only: the alias that points at the key to use. Null or an empty text clears it.
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>, required = false)]
    pub alias: Patch<String>,
    /// When the current key's service began; also settles a drift.
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<Timestamp>, required = false)]
    pub key_since: Patch<Timestamp>,
    /// The rules to change; the others stay as they are. Null clears a rule, so that the default applies.
    #[serde(deserialize_with = "object", skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<PolicyEdit>, required = false)]
    pub policy: Patch<PolicyEdit>,
}

/// Reads a member that is an object. Serde accepts an array for a struct too, field by field, which no sender
/// of JSON means.
fn object<'de, D, T, M>(from: D) -> Result<M, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
    M: From<Option<T>>,
{
    struct Member<T>(std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Member<T> {
        type Value = Option<T>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object {...} or null")
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
            from.deserialize_any(self)
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }
    from.deserialize_option(Member(std::marker::PhantomData)).map(M::from)
}

/// The parameters of the list of projects.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ProjectQuery {
    /// Only projects in this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<Status>)]
    pub status: Option<String>,
    /// Only projects of this owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Only projects on this provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<Provider>)]
    pub provider: Option<String>,
    /// Only projects with exactly this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Rows of a page: 100 unless given, 500 at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0)]
    pub limit: Option<usize>,
    /// `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^[0-9a-f]{24}$")]
    pub cursor: Option<String>,
}

/// A key that a project has had.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// The key as the provider writes it.
    pub key: String,
    /// When its service began.
    pub since: Timestamp,
    /// When its service ended; null for the key in force.
    pub until: Option<Timestamp>,
    /// Where `since` comes from.
    pub source: SinceSource,
}

/// The newest usable key of a project, as its lookup names it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewestKey {
    /// The newest key, as a proposal takes it.
    pub key: String,
    /// The key that Atlas holds. Where both are the same, nothing is to be rotated.
    pub current_key: String,
    /// The lookup that was made, `kms.NAME` in the configuration.
    pub kms: String,
    /// AWS only: the alias that points at the key.
    pub alias: Option<String>,
    /// When its key service created it.
    pub created_at: Option<Timestamp>,
}

/// The reasons of a project's status.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// Atlas' id of the project.
    pub group_id: GroupId,
    /// The project's name.
    pub name: String,
    /// The project's condition.
    pub status: Status,
    /// The reasons, in sentences.
    pub sentences: Vec<String>,
    /// The change of the key outside of Keywheel, while it is not recorded.
    pub drift: Option<Drift>,
}

/// A change of a project's key outside of Keywheel. A member is null where its value is not known.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// The key that was recorded.
    pub from: Option<String>,
    /// The key that Atlas holds.
    pub to: Option<String>,
    /// How the key changed.
    pub kind: DriftKind,
    /// The author of the change, by Atlas' event.
    pub by: Option<String>,
    /// Atlas' id of that event.
    pub atlas_event_id: Option<String>,
    /// When it happened, by Atlas' clock.
    pub atlas_event_at: Option<Timestamp>,
    /// When the earlier service of a reverted key ended.
    pub served_until: Option<Timestamp>,
    /// The rotation that was undone.
    pub undone_rotation: Option<RotationId>,
    /// The lines that make a Terraform file agree with the rotation that was undone.
    pub terraform: Option<Vec<String>>,
}

/// The parameters of a discovery.
#[derive(Clone, Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DiscoverQuery {
    /// Only projects that this credential can see.
    pub credential: Option<String>,
    /// Only projects with this Atlas tag, as key=value; a project must have all of several tags.
    #[param(schema_with = super::schema::tags, required = false, style = Form, explode)]
    pub tag: Vec<String>,
    /// Also projects that are tracked or have no customer-managed key.
    pub all: Option<bool>,
    /// Projects of Atlas' list that a page covers: 50 unless given, 100 at most. A page may hold fewer items.
    #[param(minimum = 0, maximum = 4_294_967_295.0)]
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// One page of a discovery.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Discovery {
    /// The projects.
    pub items: Vec<Found>,
    /// The cursor of the next page; null on the last one.
    pub next: Option<String>,
    /// The credential that the page belongs to.
    pub credential: String,
    /// How many projects of that list were read so far.
    pub seen: u64,
    /// How many projects that list has, by Atlas' estimate.
    pub total: Option<u64>,
}

/// A project that a credential can see.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// Atlas' id; null where the credential's list cannot be read.
    #[schema(schema_with = super::schema::maybe_text)]
    pub group_id: Option<GroupId>,
    /// Atlas' name.
    pub name: Option<String>,
    /// The credential.
    pub credential: String,
    /// The provider whose key Atlas uses.
    pub provider: Option<Provider>,
    /// The key.
    pub key: Option<String>,
    /// Atlas' `valid`.
    pub valid: Option<bool>,
    /// How many clusters the project has.
    pub cluster_count: Option<u64>,
    /// The project's owners in Atlas.
    pub owners: Vec<FoundOwner>,
    /// Why some owners are not known, in Atlas' words.
    pub owners_unknown: Vec<String>,
    /// The project's tags in Atlas.
    pub tags: Vec<Tag>,
    /// Whether it is tracked already.
    pub tracked: bool,
    /// Why it cannot be read, in Atlas' words.
    pub error: Option<String>,
}

/// An owner of a project in Atlas.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FoundOwner {
    /// The mail address.
    pub mail: String,
    /// Where the ownership comes from: `project`, `team:NAME` or `organization`.
    pub from: Vec<String>,
}

/// A tag in Atlas.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tag {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
}

/// How many projects are read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefreshedProjects {
    /// The number of projects.
    pub projects: u64,
}
