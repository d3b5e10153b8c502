//! The CloudEvents that programs receive: the envelope, and the `data` of each kind of notice.
//!
//! `docs/events.schema.json` is generated from these types (`schema.rs`). Names on the wire are never
//! changed; members may be added.

use serde::Serialize;
use serde_json::{Value, json};

use super::note::Note;
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::notice::{About, DriftKind, Drifted, KeyText, Notice};
use crate::domain::time::Timestamp;

/// A `CloudEvent` 1.0 about a notice.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Event<T> {
    /// The version of the `CloudEvents` specification.
    #[cfg_attr(test, schemars(extend("const" = "1.0")))]
    specversion: &'static str,
    /// The id of this delivery, the same for each attempt; also the header `webhook-id`.
    id: String,
    /// The server: the setting `server.public_url`.
    #[cfg_attr(test, schemars(extend("format" = "uri-reference")))]
    source: String,
    /// `io.keywheel.KIND.v1`.
    #[serde(rename = "type")]
    kind: String,
    /// When the cause of the notice was written.
    time: Timestamp,
    /// The content type of `data`.
    #[cfg_attr(test, schemars(extend("const" = "application/json")))]
    datacontenttype: &'static str,
    /// `projects/{groupId}` or `projects/{groupId}/rotations/{rotationId}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// The facts of the notice.
    data: T,
}

impl<T> Event<T> {
    pub(super) fn new(note: &Note<'_>, data: T) -> Self {
        let about = note.notice.about();
        let subject = about.project.map(|group| match about.rotation {
            Some(id) => format!("projects/{group}/rotations/{id}"),
            None => format!("projects/{group}"),
        });
        Self {
            specversion: "1.0",
            id: note.id.to_owned(),
            source: note.server.to_owned(),
            kind: note.notice.kind().event_type(),
            time: note.at,
            datacontenttype: "application/json",
            subject,
            data,
        }
    }
}

/// The facts of a notice, with a line for people.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Data<T> {
    /// The notice's own members.
    #[serde(flatten)]
    pub(super) facts: T,
    /// One line for people.
    pub(super) summary: String,
    /// The page about the project or the rotation.
    pub(super) link: String,
}

/// Replaces data that stay too long even with every text cut.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct CutData {
    /// The Atlas project.
    group_id: Option<GroupId>,
    /// The rotation.
    rotation_id: Option<RotationId>,
    /// The page about the project or the rotation.
    link: String,
    /// Always true.
    #[cfg_attr(test, schemars(extend("const" = true)))]
    cut: bool,
}

impl CutData {
    pub(super) fn new(about: About<'_>, link: String) -> Self {
        Self { group_id: about.project.cloned(), rotation_id: about.rotation, link, cut: true }
    }
}

/// A drift on the wire: its keys have the names that they have in every other event.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct DriftFacts<'a> {
    /// The Atlas project.
    group_id: &'a GroupId,
    /// The project's name in Atlas.
    project_name: &'a str,
    /// The key on record before the change.
    old_key: Option<&'a KeyText>,
    /// The key that Atlas holds now.
    new_key: Option<&'a KeyText>,
    /// The way of the change.
    kind: DriftKind,
    /// The actor of Atlas' event about the change.
    by: Option<&'a str>,
    /// The id of Atlas' event.
    atlas_event_id: Option<&'a str>,
    /// The instant of Atlas' event.
    atlas_event_at: Option<Timestamp>,
    /// The end of the earlier service of a key that is back.
    served_until: Option<Timestamp>,
    /// The rotation that the change undoes.
    undone_rotation: Option<RotationId>,
    /// The key of that rotation.
    undone_key: Option<&'a KeyText>,
    /// The findings, as sentences for people.
    sentences: &'a [String],
    /// The lines of a Terraform file that agree with the undone rotation.
    terraform: Option<&'a [String]>,
    /// The condition that this starts. Its end has the same id.
    #[serde(skip_serializing_if = "Option::is_none")]
    condition_id: Option<&'a str>,
}

impl<'a> From<&'a Drifted> for DriftFacts<'a> {
    fn from(it: &'a Drifted) -> Self {
        Self {
            group_id: &it.group_id,
            project_name: &it.project_name,
            old_key: it.from.as_ref(),
            new_key: it.to.as_ref(),
            kind: it.kind,
            by: it.by.as_deref(),
            atlas_event_id: it.atlas_event_id.as_deref(),
            atlas_event_at: it.atlas_event_at,
            served_until: it.served_until,
            undone_rotation: it.undone_rotation,
            undone_key: it.undone_key.as_ref(),
            sentences: &it.sentences,
            terraform: it.terraform.as_deref(),
            condition_id: it.condition_id.as_deref(),
        }
    }
}

/// The members of `data` that state the notice.
pub(super) fn facts(notice: &Notice) -> Value {
    match notice {
        Notice::Drifted(it) => json!(DriftFacts::from(it)),
        Notice::ApprovalRequested(_)
        | Notice::AutoApproved(_)
        | Notice::Completed(_)
        | Notice::RolledBack(_)
        | Notice::Failed(_)
        | Notice::Rejected(_)
        | Notice::Cancelled(_)
        | Notice::Expired(_)
        | Notice::Superseded(_)
        | Notice::Accepted(_)
        | Notice::Closed(_)
        | Notice::NeedsOperator(_)
        | Notice::CurrentKeyInvalid(_)
        | Notice::PreflightFailed(_)
        | Notice::LateApply(_)
        | Notice::NotDeployed(_)
        | Notice::KeyAlarm(_)
        | Notice::Overwrote(_)
        | Notice::Reminder(_)
        | Notice::ReminderDigest(_)
        | Notice::Condition(_)
        | Notice::Installation(_)
        | Notice::Authority(_)
        | Notice::RevokedTokenUsed(_)
        | Notice::AuditHead(_) => notice.facts(),
    }
}
