//! Turns notices into outbox rows: one mail for each owner, and one webhook for each target that wants it.
//!
//! Rows are written in the transaction of their cause. Nothing is sent from here: the rows hold a
//! model, never a secret and never a link, and stay readable until somebody takes them.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Engine, Settings};
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::notice::KINDS;
use crate::domain::preflight::{Check, CheckName, Verdict, failed};
use crate::domain::rotation::machine::Notice;
use crate::domain::rotation::state::{Cause, Rotation};
use crate::domain::time::Timestamp;
use crate::store::{Channel, NewOutbox, RotationRow};

/// Who hears of a project that has no owner: the row rests there and says so.
pub const NO_OWNER: &str = "nobody";

/// Something that people and other systems are told.
#[derive(Debug)]
pub(super) struct News<'a> {
    /// One of the kinds of notice.
    pub(super) kind: &'static str,
    /// The same for the same news, always, and for no other: no recipient is told twice.
    pub(super) identity: String,
    pub(super) group_id: &'a GroupId,
    pub(super) rotation_id: Option<RotationId>,
    /// What it says; no link and no secret.
    pub(super) model: Value,
}

impl News<'_> {
    /// The rows that tell `owners`, and every target that wants news of this kind.
    pub(super) fn rows(&self, engine: &Engine, owners: &[String], now: Timestamp) -> Vec<NewOutbox> {
        debug_assert!(KINDS.contains(&self.kind), "{} is no kind of notice", self.kind);
        let row = |channel, recipient: String, message_id| NewOutbox {
            channel,
            kind: self.kind.to_owned(),
            group_id: self.group_id.clone(),
            rotation_id: self.rotation_id,
            message_id,
            recipient,
            model: self.model.clone(),
            next_try_at: now,
        };
        let mails = addressed(owners).into_iter().map(|recipient| {
            let id = message_id(&format!("{}/{recipient}", self.identity));
            row(Channel::Mail, recipient, id)
        });
        let targets = engine.webhooks.all();
        let webhooks = targets.iter().filter(|target| target.wants(self.kind)).map(|target| {
            row(Channel::Webhook, target.name().to_owned(), webhook_id(&self.identity, target.name()))
        });
        mails.chain(webhooks).collect()
    }
}

/// The rows for `notices`.
#[must_use]
pub fn rows(
    engine: &Engine,
    before: &RotationRow,
    after: &Rotation,
    notices: &[Notice],
    owners: &[String],
    now: Timestamp,
) -> Vec<NewOutbox> {
    notices
        .iter()
        .flat_map(|notice| {
            let (kind, part) = (name(*notice), part(*notice, before, after, now));
            let mut model = model(&engine.settings, before, after, kind);
            if *notice == Notice::PreflightFailed {
                model["checks"] = remarks(&after.observing.checks);
            }
            let news = News {
                kind,
                identity: format!("{}/{kind}/{part}", after.id),
                group_id: &after.group_id,
                rotation_id: Some(after.id),
                model,
            };
            news.rows(engine, owners, now)
        })
        .collect()
}

/// The rows about a fresh proposal: that approvals are asked for, or that the policy has agreed.
pub(super) fn proposal_rows(
    engine: &Engine,
    row: &RotationRow,
    kind: &'static str,
    owners: &[String],
    now: Timestamp,
) -> Vec<NewOutbox> {
    let mut model = model(&engine.settings, row, &row.rotation, kind);
    model["checks"] = remarks(&row.rotation.observing.checks);
    let news = News {
        kind,
        identity: format!("{}/{kind}", row.rotation.id),
        group_id: &row.rotation.group_id,
        rotation_id: Some(row.rotation.id),
        model,
    };
    news.rows(engine, owners, now)
}

/// The lines of the checklist that are not simply passed. What follows from an unknown key is left out.
fn remarks(checks: &[Check]) -> Value {
    use CheckName::{EncryptDecrypt, KeyDeletion, KeyEnabled, KeyExpiry, KeySymmetric};
    let follows = |check: &Check| {
        check.result == Verdict::NotChecked
            && matches!(check.name, EncryptDecrypt | KeyDeletion | KeyEnabled | KeyExpiry | KeySymmetric)
    };
    let remarkable = checks.iter().filter(|check| check.result != Verdict::Pass && !follows(check));
    remarkable.map(|check| json!(check)).collect()
}

/// The owners, or nobody by name.
pub(super) fn addressed(owners: &[String]) -> Vec<String> {
    if owners.is_empty() { vec![NO_OWNER.to_owned()] } else { owners.to_vec() }
}

fn name(notice: Notice) -> &'static str {
    match notice {
        Notice::Finished(state) => state.as_str(),
        Notice::Page { .. } => "needs_operator",
        Notice::CurrentKeyInvalid => "current_key_invalid",
        Notice::PreflightFailed => "preflight_failed",
        Notice::LateApply => "late_apply",
        Notice::NotDeployed => "not_deployed",
    }
}

/// What tells a notice from an earlier one of its kind and rotation.
fn part(notice: Notice, before: &RotationRow, after: &Rotation, now: Timestamp) -> String {
    // A trouble that comes and goes is told once an hour at most.
    let hour = || (now.as_micros() / 3_600_000_000).to_string();
    match notice {
        // A rotation may come to a stop again after an operator sent it on: each page is news.
        Notice::Page { .. } => before.version.to_string(),
        Notice::CurrentKeyInvalid => hour(),
        Notice::PreflightFailed => {
            let which = failed(&after.observing.checks).map_or("", |check| check.name.as_str());
            format!("{which}/{}", hour())
        }
        Notice::Finished(_) | Notice::LateApply | Notice::NotDeployed => String::new(),
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
        "atlasErrorCode": rotation.observing.failure.as_ref().and_then(|it| it.code.clone()),
        "atlasDetail": rotation.observing.failure.as_ref().map(|it| it.detail.clone()),
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

/// The same for a webhook: it stands in the signed text before a full stop, so it holds none.
pub(super) fn webhook_id(identity: &str, target: &str) -> String {
    format!("msg_{}", hex::encode(&Sha256::digest(format!("webhook/{target}/{identity}"))[..16]))
}
