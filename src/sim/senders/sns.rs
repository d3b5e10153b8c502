//! The notification service of AWS, which signs its messages.
//!
//! `topicArn` is required. `event` is `SubscriptionConfirmation`, `UnsubscribeConfirmation`, or an event
//! by the fields of [`super::aws`], which then travels as text in `Message`. Options: `subject`;
//! `message` in place of the event; `signatureVersion` `"2"` (SHA-256, which hooks ask for) or `"1"`
//! (the service's default, SHA-1: only the version says so, the signature stays that of version 2,
//! because no receiver here may accept it); `rawDelivery` (no envelope, no signature); `lambdaSpelling`
//! (`SigningCertUrl`); `certUrl` and `subscribeUrl` in place of the simulator's own.
//!
//! `SubscribeURL` is answered by the simulator, and noted in `/sim/v1/emissions`. The authority that made the
//! certificates is at `/senders/sns/ca.pem`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::aws::{self, Change};
use super::forge::Forge;
use super::post::{Message, Rules, Verdict};
use super::{Bad, Sender, Sending, keys, millis, off_thread, read, take};
use crate::sim::Shared;

/// Three more tries, twenty seconds apart; a refusal counts as an answer.
const RULES: Rules = Rules {
    patience: Duration::from_secs(15),
    verdict: |status| match status {
        200..=299 => Verdict::Done,
        400..=499 => Verdict::Never,
        _ => Verdict::Again,
    },
    waits: &[20],
    tries: 4,
    asks_when: false,
};

const CONFIRMATION: &str = "SubscriptionConfirmation";
const UNSUBSCRIBED: &str = "UnsubscribeConfirmation";
const NOTIFICATION: &str = "Notification";

/// A topic and its message.
#[derive(Debug)]
pub(super) struct Topic {
    change: Option<Change>,
    kind: &'static str,
    settings: Settings,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Settings {
    topic_arn: String,
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    signature_version: Version,
    #[serde(default)]
    raw_delivery: bool,
    #[serde(default)]
    lambda_spelling: bool,
    #[serde(default)]
    cert_url: Option<String>,
    #[serde(default)]
    subscribe_url: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
enum Version {
    #[serde(rename = "1")]
    One,
    #[default]
    #[serde(rename = "2")]
    Two,
}

impl Topic {
    pub(super) fn read(mut fields: Map<String, Value>) -> Result<Self, Bad> {
        let mut about = take(&mut fields, &aws::FIELDS);
        let settings: Settings = read(fields)?;
        let kind = match about.get("event").and_then(Value::as_str) {
            Some(CONFIRMATION) => CONFIRMATION,
            Some(UNSUBSCRIBED) => UNSUBSCRIBED,
            _ => NOTIFICATION,
        };
        if kind != NOTIFICATION || (settings.message.is_some() && !about.contains_key("event")) {
            about.remove("event");
            if let Some(name) = about.keys().next() {
                return Err(Bad::new(name, "nothing happened to a key in this message"));
            }
            return Ok(Self { change: None, kind, settings });
        }
        Ok(Self { change: Some(read(about)?), kind, settings })
    }

    fn text(&self, sending: &Sending) -> Result<String, Bad> {
        let topic = &self.settings.topic_arn;
        Ok(match (&self.settings.message, self.kind, &self.change) {
            (Some(text), ..) => text.clone(),
            (_, CONFIRMATION, _) => format!(
                "You have chosen to subscribe to the topic {topic}.\nTo confirm the subscription, visit the SubscribeURL included in this message."
            ),
            (_, UNSUBSCRIBED, _) => format!(
                "You have chosen to deactivate the subscription to {topic}.\nTo go on, visit the SubscribeURL included in this message."
            ),
            (_, _, Some(change)) => change.event(sending)?.1.to_string(),
            _ => String::new(),
        })
    }

    fn message(&self, sending: &Sending) -> Result<Message, Bad> {
        let id = keys::random_uuid();
        let topic = if sending.forges(Forge::Topic) {
            format!("{}-of-somebody-else", self.settings.topic_arn)
        } else {
            self.settings.topic_arn.clone()
        };
        let at = if sending.forges(Forge::Expired) {
            sending.now - Duration::from_secs(7200)
        } else {
            sending.now
        };
        let text = self.text(sending)?;
        let mut signed = BTreeMap::from([
            ("Type", self.kind.to_owned()),
            ("MessageId", id.clone()),
            ("TopicArn", topic.clone()),
            ("Message", text.clone()),
            ("Timestamp", millis(at)),
        ]);
        let base = &sending.event_source.base_url;
        if self.kind == NOTIFICATION {
            signed.extend(self.settings.subject.clone().map(|subject| ("Subject", subject)));
        } else {
            let token = keys::random_hex(64);
            let own =
                format!("{base}/senders/sns/?Action=ConfirmSubscription&TopicArn={topic}&Token={token}");
            signed.insert("SubscribeURL", self.settings.subscribe_url.clone().unwrap_or(own));
            signed.insert("Token", token);
        }
        let body =
            if self.settings.raw_delivery { text } else { self.envelope(&signed, base, sending).to_string() };
        let subscription = format!("{topic}:c9135db0-26c4-47ec-8998-413945fb5a96");
        let mut message = Message::post(
            id.clone(),
            body,
            &[
                ("Content-Type", "text/plain; charset=UTF-8"),
                ("User-Agent", "Amazon Simple Notification Service Agent"),
                ("x-amz-sns-message-type", self.kind),
                ("x-amz-sns-message-id", &id),
                ("x-amz-sns-topic-arn", &topic),
            ],
        );
        let mut add = |name: &str, value: String| message.headers.push((name.to_owned(), value));
        if self.kind != CONFIRMATION {
            add("x-amz-sns-subscription-arn", subscription);
        }
        if self.settings.raw_delivery {
            add("x-amz-sns-rawdelivery", "true".to_owned());
        }
        Ok(message)
    }

    /// The signed fields with their signature.
    fn envelope(&self, signed: &BTreeMap<&str, String>, base: &str, sending: &Sending) -> Value {
        let mut body = json!(signed);
        if self.kind == NOTIFICATION {
            let leave =
                format!("{base}/senders/sns/?Action=Unsubscribe&SubscriptionArn={}", self.settings.topic_arn);
            body["UnsubscribeURL"] = json!(leave);
        }
        if sending.forges(Forge::Unsigned) {
            return body;
        }
        let notary = sending.event_source.keys.notary(sending.now);
        let (key, certificate) = match sending.forge {
            Some(Forge::Stranger) => (sending.event_source.keys.stranger(), &notary.strange),
            Some(Forge::Certificate) => (&notary.key, &notary.expired),
            _ => (&notary.key, &notary.good),
        };
        let text = string_to_sign(signed);
        let mut signature = key.sign(text.as_bytes());
        if sending.forges(Forge::Signature) {
            signature = keys::spoilt(signature);
        }
        let own = format!("{base}/senders/sns/{}", certificate.file);
        let spelling = if self.settings.lambda_spelling { "SigningCertUrl" } else { "SigningCertURL" };
        body["SignatureVersion"] = json!(self.settings.signature_version);
        body["Signature"] = json!(STANDARD.encode(signature));
        body[spelling] = json!(self.settings.cert_url.clone().unwrap_or(own));
        if self.settings.lambda_spelling {
            for (long, short) in [("SubscribeURL", "SubscribeUrl"), ("UnsubscribeURL", "UnsubscribeUrl")] {
                if let Some(value) = body.as_object_mut().and_then(|fields| fields.remove(long)) {
                    body[short] = value;
                }
            }
        }
        body
    }
}

/// Each name and its value on lines of their own, the names in the order of their bytes.
fn string_to_sign(signed: &BTreeMap<&str, String>) -> String {
    signed.iter().flat_map(|(name, value)| [*name, "\n", value, "\n"]).collect()
}

impl Sender for Topic {
    fn rules(&self) -> &'static Rules {
        &RULES
    }

    fn forgeries(&self) -> &'static [Forge] {
        if self.settings.raw_delivery {
            return &[];
        }
        &[
            Forge::Signature,
            Forge::Unsigned,
            Forge::Stranger,
            Forge::Expired,
            Forge::Topic,
            Forge::Certificate,
        ]
    }

    fn messages(&self, count: u32, sending: &Sending) -> Result<Vec<Message>, Bad> {
        (0..count).map(|_| self.message(sending)).collect()
    }

    fn stamps(&self, _: &Message, _: u32, _: &Sending) -> Result<Vec<(String, String)>, Bad> {
        Ok(Vec::new())
    }
}

/// The authority, or a certificate that a message names.
pub(super) async fn file(State(sim): State<Shared>, Path(name): Path<String>) -> Response {
    let now = sim.clock.now();
    let found = off_thread(move || {
        let notary = sim.event_source.keys.notary(now);
        if name == "ca.pem" {
            return Some(notary.authority_pem.clone());
        }
        let all = [&notary.good, &notary.expired, &notary.strange];
        all.into_iter().find(|it| it.file == name).map(|it| it.pem.clone())
    });
    match found.await {
        Some(pem) => ([(header::CONTENT_TYPE, "application/x-pem-file")], pem).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The query of a `SubscribeURL`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Act {
    action: String,
    #[serde(default)]
    topic_arn: String,
    #[serde(default)]
    token: String,
}

/// Answers as the service does, and notes the confirmation.
pub(super) async fn act(State(sim): State<Shared>, Query(act): Query<Act>) -> Response {
    if act.action != "ConfirmSubscription" || act.token.is_empty() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let topic = &act.topic_arn;
    sim.event_source
        .note(json!({ "what": "confirmed", "at": sim.clock.now(), "topicArn": topic, "token": act.token }));
    let xml = format!(
        "<ConfirmSubscriptionResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><ConfirmSubscriptionResult><SubscriptionArn>{topic}:c9135db0-26c4-47ec-8998-413945fb5a96</SubscriptionArn></ConfirmSubscriptionResult><ResponseMetadata><RequestId>{}</RequestId></ResponseMetadata></ConfirmSubscriptionResponse>",
        keys::random_uuid()
    );
    ([(header::CONTENT_TYPE, "text/xml")], xml).into_response()
}
