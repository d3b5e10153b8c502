//! Alerts as Atlas posts them to a webhook.
//!
//! `event` (such as `AWS_ENCRYPTION_KEY_NEEDS_ROTATION`) and `groupId` name the alert; `action` is
//! `open` unless given (`close`, `update`, `acknowledge`, `cancel`, `inform`). `secret` signs:
//! HMAC-SHA-1 over the body, in Base64, or in hex as an old page of Ops Manager says (`encoding`).
//! Without a secret nothing is signed. `body` (JSON, or text that is sent as it is) and `headers` stand
//! for customers' templates, of any shape. The body has no severity, and no signed part has the time.
//! Atlas' retries after a failure are not known: it tries once here.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::forge::Forge;
use super::post::{Message, Rules, Verdict};
use super::{Bad, Sender, Sending, as_sent, keys, seconds};
use crate::sim::ids::{ORG, object_id};

const RULES: Rules = Rules {
    patience: Duration::from_secs(30),
    verdict: |status| if (200..300).contains(&status) { Verdict::Done } else { Verdict::Never },
    waits: &[],
    tries: 1,
    asks_when: false,
};

/// Alerts of one project.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Alerts {
    event: String,
    group_id: String,
    #[serde(default)]
    action: Action,
    #[serde(default)]
    secret: Option<String>,
    #[serde(default)]
    encoding: Encoding,
    #[serde(default)]
    alert_id: Option<String>,
    #[serde(default)]
    project_name: Option<String>,
    #[serde(default)]
    body: Option<Value>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// The change of the alert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    #[default]
    Open,
    Close,
    Update,
    Acknowledge,
    Cancel,
    Inform,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::Open => "alert.open",
            Action::Close => "alert.close",
            Action::Update => "alert.update",
            Action::Acknowledge => "alert.acknowledge",
            Action::Cancel => "alert.cancel",
            Action::Inform => "alert.inform",
        }
    }

    fn status(self) -> &'static str {
        match self {
            Action::Close => "CLOSED",
            Action::Cancel => "CANCELLED",
            _ => "OPEN",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Encoding {
    #[default]
    Base64,
    Hex,
}

impl Alerts {
    fn alert(&self, id: &str, sending: &Sending) -> Value {
        let (group, now) = (&self.group_id, seconds(sending.now));
        let name = self.project_name.as_deref().unwrap_or(group);
        let mut alert = json!({
            "id": id, "groupId": group, "orgId": ORG, "alertConfigId": object_id(&[group, &self.event]),
            "eventTypeName": self.event, "status": self.action.status(),
            "created": now, "updated": now, "lastNotified": now,
            "humanReadable": format!("{}. Project: {name} Organization: Demo", self.words()),
            "links": [{ "rel": "self", "href": format!("{}/api/atlas/v2/groups/{group}/alerts/{id}", sending.event_source.base_url) }],
        });
        match self.action {
            Action::Close | Action::Cancel => alert["resolved"] = json!(now),
            Action::Acknowledge => {
                alert["acknowledgedUntil"] = json!(seconds(sending.now + Duration::from_secs(86_400)));
                alert["acknowledgingUsername"] = json!("ada@example.com");
                alert["acknowledgementComment"] = json!("seen");
            }
            _ => {}
        }
        alert
    }

    fn words(&self) -> String {
        let provider = self.event.split('_').next().unwrap_or_default();
        if self.event.ends_with("_ENCRYPTION_KEY_NEEDS_ROTATION") {
            format!("{provider} encryption key elapsed time since last rotation is above 90 days")
        } else if self.event.ends_with("_ENCRYPTION_KEY_INVALID") {
            format!("{provider} encryption key is invalid")
        } else {
            self.event.to_lowercase().replace('_', " ")
        }
    }
}

impl Sender for Alerts {
    fn rules(&self) -> &'static Rules {
        &RULES
    }

    fn forgeries(&self) -> &'static [Forge] {
        match self.secret {
            Some(_) => &[Forge::Signature, Forge::Unsigned, Forge::Stranger],
            None => &[],
        }
    }

    fn messages(&self, count: u32, sending: &Sending) -> Result<Vec<Message>, Bad> {
        let one = |_| {
            let id = self.alert_id.clone().unwrap_or_else(|| keys::random_hex(12));
            let body = self.body.as_ref().map_or_else(|| self.alert(&id, sending).to_string(), as_sent);
            let mut message = Message::post(
                id,
                body,
                &[("Content-Type", "application/json"), ("X-MMS-Event", self.action.name())],
            );
            message.headers.extend(self.headers.clone());
            message
        };
        Ok((0..count).map(one).collect())
    }

    fn stamps(&self, message: &Message, _: u32, sending: &Sending) -> Result<Vec<(String, String)>, Bad> {
        let Some(secret) = self.secret.as_ref().filter(|_| !sending.forges(Forge::Unsigned)) else {
            return Ok(Vec::new());
        };
        let secret = if sending.forges(Forge::Stranger) { "not the secret" } else { secret };
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
        let mut tag = hmac::sign(&key, &message.body).as_ref().to_vec();
        if sending.forges(Forge::Signature) {
            tag = keys::spoilt(tag);
        }
        let text = match self.encoding {
            Encoding::Base64 => STANDARD.encode(tag),
            Encoding::Hex => hex::encode(tag),
        };
        Ok(vec![("X-MMS-Signature".to_owned(), text)])
    }
}
