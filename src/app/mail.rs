//! `keywheel mail`: what the mail of a kind looks like, with invented facts, and whether the mail server takes one now.
//!
//! A mail that is sent here is no message of the outbox: nothing is recorded, and nothing is tried again.

use serde_json::{Value, json};
use uuid::Uuid;

use super::smtp;
use crate::config::Config;
use crate::domain::condition::ConditionKind;
use crate::domain::notice::{Content, Kind};
use crate::domain::rotation::state::State;
use crate::domain::time::{Clock, SystemClock};
use crate::mail::{ID_DOMAIN, Letter, Reason, is_address};

/// A mail as its reader sees it.
#[derive(Debug)]
pub struct MailPreview {
    /// The subject.
    pub subject: String,
    /// The plain text.
    pub text: String,
    /// The HTML.
    pub html: String,
}

/// How the test of the mail server ended.
#[derive(Debug)]
pub enum MailTest {
    /// The server took the mail: its name and reply.
    Accepted(String, String),
    /// The server refused it: the step with its reply, and what to change.
    Refused(String, &'static str),
    /// No server took it, for want of a connection: the step with its cause, and what to change.
    Unreachable(String, &'static str),
    /// The recipient is no mail address.
    NoAddress,
    /// `mail.smtp_url` is not set.
    NoServer,
}

/// The mail about a sample of this kind.
///
/// # Errors
/// Fails when the mail cannot be rendered.
pub fn mail_preview(kind: Kind) -> anyhow::Result<MailPreview> {
    let letter = letter(kind)?;
    Ok(MailPreview { subject: letter.subject.clone(), text: letter.text(), html: letter.html()? })
}

fn letter(kind: Kind) -> anyhow::Result<Letter> {
    let letter = Letter::new(&Content::read(kind.as_str(), &sample(kind)?)?);
    Ok(if kind == Kind::ApprovalRequested { letter.answered_by("/a/EXAMPLE") } else { letter })
}

/// Sends a mail to `recipient` through `mail.smtp_url`: the sample of `kind`, or one that says what it is for.
///
/// # Errors
/// Fails when the mail server's settings cannot be used.
pub async fn mail_test(config: &Config, recipient: &str, kind: Option<Kind>) -> anyhow::Result<MailTest> {
    if !is_address(recipient) {
        return Ok(MailTest::NoAddress);
    }
    let Some(smtp) = smtp(config)? else { return Ok(MailTest::NoServer) };
    let letter = match kind {
        Some(kind) => letter(kind)?.as_sample(),
        None => Letter::test(&config.server.public_url),
    };
    let id = format!("<{}@{ID_DOMAIN}>", Uuid::now_v7().simple());
    Ok(match smtp.send(&letter, recipient, &id, SystemClock.now()).await {
        Ok(reply) => MailTest::Accepted(smtp.to_string(), reply),
        Err(trouble) => {
            let (said, way_out) = (format!("{smtp}: {trouble}"), trouble.way_out());
            match trouble.reason {
                Reason::Connection(_) | Reason::Silent(_) | Reason::SpeaksPlain | Reason::OwnCa => {
                    MailTest::Unreachable(said, way_out)
                }
                _ => MailTest::Refused(said, way_out),
            }
        }
    })
}

/// Invented facts with the members of all kinds.
const SAMPLE: &str = include_str!("sample.json");

fn sample(kind: Kind) -> serde_json::Result<Value> {
    let name = kind.as_str();
    let tells =
        |it: &ConditionKind| [false, true].iter().any(|over| Kind::of_condition(*it, *over) == Some(kind));
    let mut model: Value = serde_json::from_str(SAMPLE)?;
    model["kind"] = json!(name);
    model["state"] = json!(name.parse::<State>().unwrap_or(State::AwaitingApproval));
    model["condition"] = json!(ConditionKind::ALL.iter().find(|it| tells(it)));
    if name.ends_with("_over") {
        model["overAt"] = json!("2026-11-28T15:42:10Z");
    }
    adjust(kind, &mut model)?;
    Ok(model)
}

/// What one kind has otherwise.
fn adjust(kind: Kind, model: &mut Value) -> serde_json::Result<()> {
    let differs = match kind {
        Kind::NeedsOperator => json!({
            "cause": "kms_unreachable",
            "remedy": "Atlas cannot reach the key service (alert ENCRYPTION_AT_REST_KMS_NETWORK_ACCESS_DENIED). Open the network path, then resume.",
        }),
        Kind::Failed => json!({
            "cause": "refused", "atlasErrorCode": "INVALID_AZURE_CREDENTIALS", "atlasDetail": "Invalid Azure credentials.",
            "remedy": "Atlas refused the new key; its own words are above. Fix the key or its policy and propose again.",
        }),
        Kind::CurrentKeyInvalid | Kind::KeyAlarm => json!({ "rotationId": null, "subject": "atlas-cmk" }),
        Kind::Drifted => {
            json!({ "kind": "changed", "from": model["oldKey"], "to": model["newKey"], "by": "eve@example.com" })
        }
        Kind::Overwrote => json!({ "by": "eve@example.com" }),
        Kind::AtlasUnreachable
        | Kind::AtlasUnreachableOver
        | Kind::CredentialRefused
        | Kind::CredentialRefusedOver
        | Kind::CredentialEndingOver => json!({ "subject": "credential/default" }),
        Kind::CredentialEnding => {
            json!({ "subject": "credential/default", "cause": "its secret expires in 30 days" })
        }
        Kind::WebhookDisabled => json!({ "cause": "chat" }),
        Kind::AddressRefused => json!({
            "subject": "ada@example.com", "groupId": null, "rotationId": null, "changes": [], "by": "the mail server",
            "detail": "It owns payments-prod. The mail server says: name the recipient: 550 5.1.1 no such user",
        }),
        Kind::Held => json!({ "cause": "window" }),
        Kind::NotSending => json!({ "cause": "clock_skew" }),
        Kind::TokenCreated | Kind::TokenRevoked | Kind::TokenRoles | Kind::RevokedTokenUsed => {
            json!({ "subject": "token/ci", "groupId": null, "rotationId": null })
        }
        Kind::PasskeyConfirmed | Kind::PasskeyRemoved => json!({
            "subject": "person/grace@example.com", "groupId": null, "rotationId": null, "changes": [],
            "detail": "Passkey \"Phone\" of grace@example.com, enrolled 2026-06-01T10:00:00Z.",
        }),
        Kind::PersonJoined => json!({
            "subject": "person/grace@example.com", "groupId": null, "rotationId": null, "changes": [],
            "by": "mail:grace@example.com", "detail": "It has signed in at https://id.example.com as approver.",
        }),
        Kind::PersonRenamed => json!({
            "subject": "person/hopper@example.com", "groupId": null, "rotationId": null, "changes": [],
            "by": "mail:hopper@example.com", "detail": "At https://id.example.com it was grace@example.com before.",
        }),
        Kind::PersonRemoved => json!({
            "subject": "person/grace@example.com", "groupId": null, "rotationId": null, "changes": [],
            "detail": "Of grace@example.com went: tokens grace; passkeys Phone; one open session.",
        }),
        Kind::ConfigChanged | Kind::Acceptance | Kind::AuditHead => {
            json!({ "groupId": null, "rotationId": null })
        }
        Kind::LooseningAnnounced => json!({
            "rotationId": null, "takesEffectAt": "2026-11-29T15:42:10Z",
            "looseningId": "01a22277-04c1-7d52-9e0b-6b1f4a9d2c08",
        }),
        Kind::ReminderDigest => {
            let names = [("claims-prod", -3), ("hr-prod", 0), ("identity-prod", 7), ("ledger-prod", 14)];
            let items = names.map(|(name, left)| {
                let mut item = sample(Kind::Reminder)?;
                (item["projectName"], item["daysLeft"]) = (json!(name), json!(left));
                Ok(item)
            });
            json!({ "items": items.into_iter().collect::<serde_json::Result<Vec<_>>>()? })
        }
        _ => json!({}),
    };
    if let (Value::Object(model), Value::Object(differs)) = (model, differs) {
        model.extend(differs);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_sample() {
        for kind in Kind::ALL {
            let shown = mail_preview(*kind).unwrap_or_else(|why| panic!("{kind}: {why}"));
            assert!(!shown.text.contains("null") && !shown.subject.is_empty(), "{kind}: {}", shown.text);
        }
    }
}
