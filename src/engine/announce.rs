//! Turns the machine's notices into outbox rows, one for each owner and notice.
//!
//! Rows are written in the transaction of their cause. Nothing is sent from here: the rows hold a
//! model, never a secret and never a link, and stay readable until a courier takes them.

use serde_json::json;
use sha2::{Digest, Sha256};

use super::Settings;
use crate::domain::rotation::machine::Notice;
use crate::domain::rotation::state::{Cause, Rotation};
use crate::domain::time::Timestamp;
use crate::store::{NewOutbox, RotationRow};

/// Who hears of a project that has no owner: the row rests there and says so.
pub const NO_OWNER: &str = "nobody";

/// The rows for `notices`.
#[must_use]
pub fn rows(
    settings: &Settings,
    before: &RotationRow,
    after: &Rotation,
    notices: &[Notice],
    owners: &[String],
    now: Timestamp,
) -> Vec<NewOutbox> {
    notices
        .iter()
        .flat_map(|notice| {
            let (kind, part) = name(*notice);
            let model = model(settings, before, after, kind);
            addressed(owners).into_iter().map(move |recipient| NewOutbox {
                kind: kind.to_owned(),
                group_id: after.group_id.clone(),
                rotation_id: Some(after.id),
                message_id: message_id(&format!("{}/{kind}/{part}/{recipient}", after.id)),
                recipient,
                model: model.clone(),
                next_try_at: now,
            })
        })
        .collect()
}

/// The rows that ask for approvals of a fresh proposal.
#[must_use]
pub fn proposal_rows(
    settings: &Settings,
    row: &RotationRow,
    owners: &[String],
    now: Timestamp,
) -> Vec<NewOutbox> {
    let model = model(settings, row, &row.rotation, "approval_requested");
    addressed(owners)
        .into_iter()
        .map(|recipient| NewOutbox {
            kind: "approval_requested".to_owned(),
            group_id: row.rotation.group_id.clone(),
            rotation_id: Some(row.rotation.id),
            message_id: message_id(&format!("{}/approval_requested/{recipient}", row.rotation.id)),
            recipient,
            model: model.clone(),
            next_try_at: now,
        })
        .collect()
}

/// The owners, or nobody by name.
pub(super) fn addressed(owners: &[String]) -> Vec<String> {
    if owners.is_empty() { vec![NO_OWNER.to_owned()] } else { owners.to_vec() }
}

fn name(notice: Notice) -> (&'static str, String) {
    match notice {
        Notice::Finished(state) => (state.as_str(), String::new()),
        Notice::Page { repeat } => ("needs_operator", repeat.to_string()),
        Notice::CurrentKeyInvalid => ("current_key_invalid", String::new()),
        Notice::LateApply => ("late_apply", String::new()),
        Notice::NotDeployed => ("not_deployed", String::new()),
    }
}

fn model(settings: &Settings, row: &RotationRow, rotation: &Rotation, kind: &str) -> serde_json::Value {
    json!({
        "kind": kind,
        "groupId": rotation.group_id,
        "projectName": row.project_name,
        "rotationId": rotation.id,
        "provider": rotation.provider,
        "oldKey": rotation.old_key.to_string(),
        "newKey": rotation.new_key.to_string(),
        "state": rotation.state,
        "cause": rotation.cause,
        "requestedBy": row.requested_by,
        "reason": row.reason,
        "atlasErrorCode": rotation.failure.as_ref().and_then(|it| it.code.clone()),
        "atlasDetail": rotation.failure.as_ref().map(|it| it.detail.clone()),
        "remedy": rotation.cause.map(|cause| remedy(cause, rotation)),
        "server": settings.public_url,
    })
}

/// What a person can do about `cause`, in one or two sentences.
#[must_use]
pub fn remedy(cause: Cause, rotation: &Rotation) -> String {
    let (new, old) = (&rotation.new_key, &rotation.old_key);
    match cause {
        Cause::DoneByHand => "The proposed key was set by somebody else; there is nothing left to do.".to_owned(),
        Cause::KeyChanged => "Atlas holds a third key. Find out who set it, then propose again if needed.".to_owned(),
        Cause::Reverted => format!("Somebody put {old} back. If a Terraform file still names it, change it there first."),
        Cause::Refused => "Atlas refused the new key; its own words are above. Mend the key or its policy and propose again.".to_owned(),
        Cause::Auth => "Atlas no longer accepts the credential. Check its secret, its Project Owner role and its IP access list.".to_owned(),
        Cause::Gone => "Atlas says that the project is gone.".to_owned(),
        Cause::NotApplied => "Atlas never took the new key in time. Propose again when Atlas answers.".to_owned(),
        Cause::ConfigChanged => "Encryption at rest was disabled or moved to another provider. Check the project in Atlas, then resume or close.".to_owned(),
        Cause::Unreachable => format!("Atlas could not be asked. Check in Atlas whether {new} is in force and valid, then resume, roll back or accept."),
        Cause::KmsUnreachable => "Atlas cannot reach the key service (alert ENCRYPTION_AT_REST_KMS_NETWORK_ACCESS_DENIED). Open the network path, then resume.".to_owned(),
        Cause::Unproven => format!("Atlas does not say whether {new} is valid. Check the project in Atlas, then resume, accept or roll back."),
        Cause::NewKeyInvalid => format!("{new} went bad after it was proven. Re-enable it in the key service at once, then resume."),
        Cause::OldKeyInvalid => format!("{old} cannot be proven valid. Re-enable it in the key service, or enable {new} and go forward."),
        Cause::RollbackRefused => format!("Atlas refuses to go back while {new} is bad. Re-enable it: {}", enable_command(rotation)),
        Cause::RollbackUnproven => format!("The way back to {old} is not proven. Check the project in Atlas, then resume, roll back or close."),
    }
}

/// The provider's own command that makes the new key usable again.
#[must_use]
pub fn enable_command(rotation: &Rotation) -> String {
    use crate::domain::key::Provider;
    let key = &rotation.new_key;
    match rotation.provider {
        Provider::Aws => format!("aws kms enable-key --key-id {key}"),
        Provider::Azure => format!("az keyvault key set-attributes --id {key} --enabled true"),
        Provider::Gcp => {
            let text = key.to_string();
            let part = |name: &str| {
                text.split('/').skip_while(|it| *it != name).nth(1).unwrap_or_default().to_owned()
            };
            format!(
                "gcloud kms keys versions enable {} --key {} --keyring {} --location {} --project {}",
                part("cryptoKeyVersions"),
                part("cryptoKeys"),
                part("keyRings"),
                part("locations"),
                part("projects")
            )
        }
    }
}

/// One id for one logical mail: the same text always gives the same id.
pub(super) fn message_id(identity: &str) -> String {
    format!("<{}@keywheel>", hex::encode(&Sha256::digest(identity)[..16]))
}
