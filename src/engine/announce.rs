//! Turns notices into outbox rows: one mail for each owner, one webhook for each target that subscribes.
//!
//! Rows are written in the transaction of their cause and sent by the senders. A row holds a notice,
//! never a secret; a link by which its recipient can decide is made when the mail leaves.

use std::sync::PoisonError;

use sha2::{Digest, Sha256};

use super::{Engine, Settings};
use crate::domain::approver::Named;
use crate::domain::condition::{ConditionKind, condition_id};
use crate::domain::emergency::EMERGENCY;
use crate::domain::key::{KeyRef, Provider};
use crate::domain::notice::{CheckedRotation, Content, Notice, ProposalFacts, RotationFacts};
use crate::domain::policy::Rules;
use crate::domain::preflight::{Check, CheckName, Verdict, failed};
use crate::domain::project::Project;
use crate::domain::rotation::machine;
use crate::domain::rotation::state::{Cause, Rotation, State};
use crate::domain::subject::Subject;
use crate::domain::time::Timestamp;
use crate::mail::{ID_DOMAIN, wire_id};
use crate::store::{Channel, NewOutbox, RotationRow};

/// Recipient for projects without an owner. Such messages are never sent; `outbox list` shows them.
pub const NO_OWNER: &str = "nobody";

/// A notice to announce.
#[derive(Debug)]
pub(super) struct News {
    /// Identifies this news and no other, in every process and at every time, so that no recipient gets
    /// it twice.
    pub(super) identity: String,
    pub(super) subject: Subject,
    pub(super) content: Content,
}

impl News {
    /// The messages to `owners` and to every target that subscribes to this kind.
    pub(super) fn rows(&self, engine: &Engine, owners: &[String], now: Timestamp) -> Vec<NewOutbox> {
        let row = |channel, recipient: String, message_id| NewOutbox {
            channel,
            content: self.content.clone(),
            subject: self.subject.clone(),
            message_id,
            recipient,
            next_try_at: now,
        };
        // A page goes to those who look after the installation, too.
        let operators = &engine.settings.operators;
        let pages = self.content.notice.kind().pages();
        let more = operators.iter().filter(|mail| pages && !owners.contains(*mail));
        let people: Vec<_> = owners.iter().chain(more).cloned().collect();
        let mails = addressed(&people).into_iter().map(|recipient| {
            let id = message_id(&format!("{}/{recipient}", self.identity));
            row(Channel::Mail, recipient, id)
        });
        let targets = engine.webhooks.all();
        let webhooks = targets.iter().filter(|target| target.takes(&self.content.notice)).map(|target| {
            row(Channel::Webhook, target.name().to_owned(), webhook_id(&self.identity, target.name()))
        });
        mails.chain(webhooks).collect()
    }
}

/// `notice` with this server's address.
pub(super) fn content(settings: &Settings, notice: Notice) -> Content {
    Content { server: settings.public_url.clone(), notice }
}

/// The rows for what a step announces.
#[must_use]
pub fn rows(
    engine: &Engine,
    before: &RotationRow,
    after: &Rotation,
    announced: &[machine::Announcement],
    owners: &[String],
    now: Timestamp,
) -> Vec<NewOutbox> {
    announced
        .iter()
        .filter_map(|it| Some((it, notice(*it, before, after)?)))
        .flat_map(|(it, notice)| {
            let news = News {
                identity: format!("{}/{}/{}", after.id, notice.kind(), part(*it, before, after, now)),
                subject: (&after.group_id).into(),
                content: content(&engine.settings, notice),
            };
            news.rows(engine, owners, now)
        })
        .collect()
}

/// Who hears of a proposal: the owners, and whom the policy names by a mail address.
pub(in crate::engine) fn asked(owners: &[String], rules: &Rules) -> Vec<String> {
    let mut people = owners.to_vec();
    for entry in &rules.policy.approvers {
        if let Named::Mail(mail) = &entry.who
            && people.iter().all(|it| !it.eq_ignore_ascii_case(mail))
        {
            people.push(mail.clone());
        }
    }
    people
}

/// The rows about a new proposal: `notice` requests approvals, or states that the policy approved it.
pub(super) fn proposal_rows(
    engine: &Engine,
    row: &RotationRow,
    notice: fn(CheckedRotation) -> Notice,
    project: &Project,
    now: Timestamp,
) -> Vec<NewOutbox> {
    let mut facts = checked(row, &row.rotation);
    if let Some(proposal) = &mut facts.proposal {
        proposal.old_key_due = project.due(&engine.settings.policy);
    }
    let notice = notice(facts);
    let news = News {
        identity: format!("{}/{}", row.rotation.id, notice.kind()),
        subject: (&row.rotation.group_id).into(),
        content: content(&engine.settings, notice),
    };
    news.rows(engine, &asked(&project.owners, &row.rotation.rules), now)
}

/// The notice that asks for approvals of a proposal.
pub(super) fn facts_to_ask(row: &RotationRow) -> Notice {
    Notice::ApprovalRequested(checked(row, &row.rotation))
}

/// The checks that did not pass. Checks that are open only because the key could not be looked up are
/// left out.
fn remarks(checks: &[Check]) -> Vec<Check> {
    use CheckName::{EncryptDecrypt, KeyDeletion, KeyEnabled, KeyExpiry, KeySymmetric};
    let follows = |check: &Check| {
        check.result == Verdict::NotChecked
            && matches!(check.name, EncryptDecrypt | KeyDeletion | KeyEnabled | KeyExpiry | KeySymmetric)
    };
    checks.iter().filter(|check| check.result != Verdict::Pass && !follows(check)).cloned().collect()
}

/// The owners, or [`NO_OWNER`].
pub(super) fn addressed(owners: &[String]) -> Vec<String> {
    if owners.is_empty() { vec![NO_OWNER.to_owned()] } else { owners.to_vec() }
}

/// The notice that a step announces. `None` for a rotation that ended in a state that is not final; the
/// machine never announces that.
fn notice(announced: machine::Announcement, before: &RotationRow, after: &Rotation) -> Option<Notice> {
    let rotation = facts(before, after);
    Some(match announced {
        machine::Announcement::Finished(state) => {
            let notice = Notice::ended(state, rotation);
            if notice.is_none() {
                tracing::error!(rotation.id = %after.id, %state, "a rotation ended in a state that is not final; no message was written");
            }
            return notice;
        }
        machine::Announcement::Page => Notice::NeedsOperator(rotation),
        machine::Announcement::PreflightFailed => Notice::PreflightFailed(checked(before, after)),
        machine::Announcement::LateApply => Notice::LateApply(rotation),
        machine::Announcement::NotDeployed => Notice::NotDeployed(rotation),
    })
}

/// The part of the identity that differs from earlier notices of the same kind and rotation.
fn part(announced: machine::Announcement, before: &RotationRow, after: &Rotation, now: Timestamp) -> String {
    match announced {
        // A rotation may stop again after an operator resumed it: each page is a new message.
        machine::Announcement::Page => before.version.to_string(),
        machine::Announcement::PreflightFailed => {
            let which = failed(&after.observing.checks).map_or("", |check| check.name.as_str());
            // A check that fails again and again is announced at most once an hour.
            format!("{which}/{}", now.as_micros() / 3_600_000_000)
        }
        machine::Announcement::Finished(_)
        | machine::Announcement::LateApply
        | machine::Announcement::NotDeployed => String::new(),
    }
}

fn checked(row: &RotationRow, rotation: &Rotation) -> CheckedRotation {
    let checks = &rotation.observing.checks;
    CheckedRotation {
        rotation: facts(row, rotation),
        checks: remarks(checks),
        proposal: Some(proposal(row, rotation)),
    }
}

fn proposal(row: &RotationRow, rotation: &Rotation) -> ProposalFacts {
    let (permission, rules) = (&rotation.permission, &rotation.rules);
    let policy = &rules.policy;
    let passed = || rotation.observing.checks.iter().filter(|check| check.result == Verdict::Pass);
    let any_time = policy.windows.is_empty() && policy.freezes.is_empty() && rules.planned_for.is_none();
    ProposalFacts {
        environment: row.environment.clone(),
        clusters: passed().find(|check| check.name == CheckName::Clusters).map(|it| it.detail.clone()),
        emergency: row.trigger == EMERGENCY,
        approvals: permission.quorum.required,
        approved: permission.quorum.given,
        answer_until: permission.expires_at,
        opens_at: if any_time { None } else { rules.next_open(rotation.created_at) },
        checks_passed: passed().count(),
        old_key_due: None,
    }
}

pub(super) fn facts(row: &RotationRow, rotation: &Rotation) -> RotationFacts {
    RotationFacts {
        planned_for: rotation.rules.planned_for,
        group_id: rotation.group_id.clone(),
        project_name: row.project_name.clone(),
        rotation_id: rotation.id,
        provider: rotation.provider,
        old_key: (&rotation.old_key).into(),
        new_key: (&rotation.new_key).into(),
        state: rotation.state,
        cause: rotation.cause,
        requested_by: row.requested_by.clone(),
        reason: row.reason.clone(),
        atlas_error_code: rotation.observing.failure.as_ref().and_then(|it| it.code.clone()),
        atlas_detail: rotation.observing.failure.as_ref().map(|it| it.detail.clone()),
        remedy: rotation.cause.map(|cause| remedy(cause, rotation)),
        condition_id: (rotation.state == State::NeedsOperator)
            .then(|| condition_id(&(&rotation.group_id).into(), ConditionKind::NeedsOperator)),
    }
}

/// What an operator can do about `cause`, in one or two sentences.
#[must_use]
pub fn remedy(cause: Cause, rotation: &Rotation) -> String {
    let (new, old) = (&rotation.new_key, &rotation.old_key);
    match cause {
        Cause::DoneByHand => "Another actor has set the proposed key; there is nothing left to do.".to_owned(),
        Cause::KeyChanged => "Atlas holds a third key. Find out who set it, then propose again if needed.".to_owned(),
        Cause::Reverted => format!("Another actor has put {old} back. If a Terraform file still names it, change it there first."),
        Cause::Refused => "Atlas refused the new key; its own words are above. Fix the key or its policy and propose again.".to_owned(),
        Cause::Auth => "Atlas no longer accepts the credential. Check its secret, its Project Owner role and its IP access list. The rotation goes on by itself once Atlas accepts it and the key in force works.".to_owned(),
        Cause::Gone => "Atlas reports that the project no longer exists.".to_owned(),
        Cause::NotApplied => "Atlas did not apply the new key in time. Propose again when Atlas answers.".to_owned(),
        Cause::ConfigChanged => "Encryption at rest was disabled or moved to another provider. Check the project in Atlas, then resume or close.".to_owned(),
        Cause::Unreachable => format!("Atlas could not be reached. Check in Atlas whether {new} is in force and valid, then resume, roll back or accept."),
        Cause::KmsUnreachable => "Atlas cannot reach the key service (alert ENCRYPTION_AT_REST_KMS_NETWORK_ACCESS_DENIED). Open the network path, then resume.".to_owned(),
        Cause::Unproven => format!("Atlas does not report whether {new} is valid. Check the project in Atlas, then resume, accept or roll back."),
        Cause::NewKeyInvalid => format!("{new} became invalid after its verification. Re-enable it in the key service at once, then resume."),
        Cause::OldKeyInvalid => format!("{old} cannot be verified as valid. Re-enable it in the key service, or enable {new} and go forward."),
        Cause::RollbackRefused => format!("Atlas refuses the rollback while {new} is invalid. Re-enable it: {}", enable_command(new)),
        Cause::Tampered => "The rotation, its votes or the audit log were changed outside of Keywheel, so no new key is sent. Find out who changed them (`keywheel audit verify` lists what does not fit); then close the rotation and propose again, or roll back if its PATCH was sent.".to_owned(),
        Cause::RollbackUnproven => format!("The rollback to {old} is not verified. Check the project in Atlas, then resume, roll back or close."),
    }
}

/// The provider's own command that makes `key` usable again.
#[must_use]
pub fn enable_command(key: &KeyRef) -> String {
    match key.provider() {
        Provider::Aws => format!("aws kms enable-key --key-id {key}"),
        Provider::Azure => format!("az keyvault key set-attributes --id {key} --enabled true"),
        Provider::Gcp => format!("gcloud kms keys versions enable {}", of_version(key)),
    }
}

/// The provider's own command that takes the deletion of `key` back, before it can be enabled.
#[must_use]
pub fn restore_command(key: &KeyRef) -> String {
    match key {
        KeyRef::Azure(azure) => {
            format!("az keyvault key recover --vault-name {} --name {}", azure.vault(), azure.name())
        }
        _ if key.provider() == Provider::Gcp => {
            format!("gcloud kms keys versions restore {}", of_version(key))
        }
        _ => format!("aws kms cancel-key-deletion --key-id {key}"),
    }
}

/// A version of a Google key as its command line names it.
fn of_version(key: &KeyRef) -> String {
    let text = key.to_string();
    let part =
        |name: &str| text.split('/').skip_while(|it| *it != name).nth(1).unwrap_or_default().to_owned();
    format!(
        "{} --key {} --keyring {} --location {} --project {}",
        part("cryptoKeyVersions"),
        part("cryptoKeys"),
        part("keyRings"),
        part("locations"),
        part("projects")
    )
}

/// The id of a logical mail: the same identity always gives the same id.
pub(super) fn message_id(identity: &str) -> String {
    format!("<{}@{ID_DOMAIN}>", hex::encode(&Sha256::digest(identity)[..16]))
}

impl Engine {
    /// The Message-ID of a stored mail as it leaves.
    #[must_use]
    pub fn wire_id(&self, message_id: &str) -> String {
        let domain = self.mail_domain.read().unwrap_or_else(PoisonError::into_inner);
        wire_id(message_id, &domain)
    }
}

/// The id of a logical webhook. It holds no full stop: in the signed text a full stop follows it.
pub(super) fn webhook_id(identity: &str, target: &str) -> String {
    format!("msg_{}", hex::encode(&Sha256::digest(format!("webhook/{target}/{identity}"))[..16]))
}
