//! Resources that are only read: the audit log, the outbox, the hooks, and the status of the fleet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::project::{Condition, Project};
use crate::domain::ids::{GroupId, OutboxId, RotationId};
use crate::domain::rotation::state::State;
use crate::domain::time::Timestamp;

/// A row of the audit log.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Counts from 1 without gaps.
    pub seq: i64,
    /// When it happened.
    pub at: Timestamp,
    /// The identity that acted: a token's name, a local user, a policy or Keywheel itself.
    pub actor: String,
    /// The action, such as `rotation.proposed`.
    pub action: String,
    /// The project, rotation or other record that the action changed.
    pub subject: String,
    /// The details; the members depend on the action.
    pub detail: Value,
    /// SHA-256 over this row and the hash before.
    pub hash: String,
    /// The hash of the row before; empty for the first one.
    pub prev_hash: String,
}

/// A message in the outbox: a mail or a webhook.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mail {
    /// The id.
    pub id: OutboxId,
    /// The channel: `mail` or `webhook`.
    #[schema(schema_with = super::schema::channel)]
    pub channel: String,
    /// The kind of the event.
    pub kind: String,
    /// The project of the event; of several, the first. Null for an event of the installation.
    #[schema(value_type = Option<GroupId>)]
    pub group_id: Option<String>,
    /// The rotation of the event.
    pub rotation_id: Option<RotationId>,
    /// A mail address, or the name of a webhook target.
    pub recipient: String,
    /// The Message-ID, or the webhook-id.
    pub message_id: String,
    /// `waiting`, `sent` or `failed`.
    #[schema(schema_with = super::schema::message_state)]
    pub state: String,
    /// When its cause was written.
    pub created_at: Timestamp,
    /// The number of attempts.
    pub attempts: i64,
    /// The earliest instant of the next attempt; null unless it waits.
    pub next_try_at: Option<Timestamp>,
    /// When the last attempt was made.
    pub last_tried_at: Option<Timestamp>,
    /// The last answer of the mail server or of the webhook target.
    pub last_reply: Option<String>,
    /// When the mail server or the webhook target accepted it.
    pub sent_at: Option<Timestamp>,
    /// When somebody asked for another attempt.
    pub retried_at: Option<Timestamp>,
    /// The event's data; the members depend on the kind.
    #[schema(value_type = Object)]
    pub model: Value,
}

/// How many messages are tried again, or were dismissed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SettledMessages {
    /// The number of messages.
    pub messages: u64,
}

/// A target of webhooks.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookTarget {
    /// Its name in the configuration.
    pub name: String,
    /// The format of its webhooks.
    pub format: String,
    /// The host of its URL; the rest of the URL is a secret.
    pub host: String,
    /// When it answered 410 and was disabled; null while it is in service.
    pub disabled_since: Option<Timestamp>,
}

/// A hook with its counts since the process began.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// The hook's name in the configuration.
    pub name: String,
    /// The hook's kind.
    pub kind: String,
    /// The URL for its sender.
    pub url: String,
    /// Why it takes no events until the configuration is changed; null while it takes them.
    #[serde(default)]
    pub stopped: Option<String>,
    /// When the counts began.
    pub since: Timestamp,
    /// When a request came last.
    pub last_seen_at: Option<Timestamp>,
    /// When a new event came last.
    pub last_accepted_at: Option<Timestamp>,
    /// Requests.
    pub received: u64,
    /// New events.
    pub accepted: u64,
    /// Repeated events.
    pub duplicate: u64,
    /// Events without a meaning here.
    pub irrelevant: u64,
    /// Handshakes.
    pub handshake: u64,
    /// Events about projects and keys that are not tracked.
    pub unknown_subject: u64,
    /// Refused requests by reason.
    pub refused: BTreeMap<String, u64>,
}

/// The status of the fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetStatus {
    /// When it was computed.
    pub at: Timestamp,
    /// Whether Keywheel acts on the database.
    pub database: DatabaseStatus,
    /// What holds for the installation, the most urgent first.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// How many projects are tracked.
    pub projects: u64,
    /// How many projects are in each status.
    pub by_status: BTreeMap<String, u64>,
    /// How many projects have no owner.
    pub without_owner: u64,
    /// The most urgent projects.
    pub next_due: Vec<Project>,
    /// The rotations that are open.
    pub open_rotations: Vec<OpenRotationOf>,
    /// Mails that are not delivered; webhooks are not counted.
    pub mails: MailCounts,
}

/// Whether Keywheel acts on the database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseStatus {
    /// Whether new keys are sent to Atlas.
    pub sending: bool,
    /// The reason why not, when the database is in doubt.
    pub doubt: Option<Doubt>,
    /// The clock skew of this machine.
    pub clock_skew_ms: ClockSkew,
}

/// The reason why the database is in doubt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Doubt {
    /// `restored`, `unknown_history`, `unsealed` or `audit_chain`. The last one stops new keys only.
    pub kind: String,
    /// The finding.
    pub detail: String,
    /// The remedy that ends the doubt.
    pub way_out: String,
    /// When it was found.
    pub since: Timestamp,
    /// Projects whose record differs from Atlas; null before they were compared.
    pub differences: Option<Vec<Difference>>,
}

/// A project whose record differs from Atlas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The project.
    pub group_id: GroupId,
    /// The project's name.
    pub name: String,
    /// The key in the database.
    pub recorded: Option<String>,
    /// The key in Atlas.
    pub atlas: Option<String>,
    /// Atlas' `valid`.
    pub valid: Option<bool>,
    /// The open rotation in the database, with its state.
    pub rotation: Option<String>,
    /// Why Atlas could not be read.
    pub error: Option<String>,
}

/// This machine's clock minus another one, in milliseconds; null where it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClockSkew {
    /// Against the database.
    pub database: Option<i64>,
    /// Against Atlas.
    pub atlas: Option<i64>,
}

/// An open rotation and its project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenRotationOf {
    /// The rotation.
    pub id: RotationId,
    /// Its state.
    pub state: State,
    /// The project.
    pub group_id: GroupId,
    /// The project's name.
    pub project_name: String,
}

/// Mails that are not delivered; webhooks are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MailCounts {
    /// Mails that are tried again.
    pub waiting: i64,
    /// Mails that were refused or given up.
    pub failed: i64,
    /// Mails whose project has no owner.
    pub unaddressed: i64,
}
