//! Any other system: CloudEvents over HTTP, and Standard Webhooks.
//!
//! Both request a rotation: `groupId`, and optionally `key` (the new key) and `reason`; `data` replaces
//! all three. `event` is the type, `io.keywheel.rotation.requested.v1` unless given.
//!
//! - `cloudevents`: `mode` is `binary`, `structured` (the default) or `batch`, where all events travel in
//!   one request; `token` is a bearer token; `source` names the sender; `dataBase64` sends the data as
//!   `data_base64`.
//! - `standard`: `secret` is `whsec_` and Base64; with `previousSecret` both sign, as while a secret is
//!   changed. `envelope` is `standard` (type, timestamp, data) or `cloudevents`;
//!   `body` replaces both.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::forge::Forge;
use super::post::{Message, Rules, Verdict};
use super::{Bad, Sender, Sending, as_sent, epoch, keys, millis};

/// The schedule of Standard Webhooks; CloudEvents name none.
const RULES: Rules = Rules {
    patience: Duration::from_secs(20),
    verdict: |status| match status {
        200..=299 => Verdict::Done,
        410 => Verdict::Never,
        _ => Verdict::Again,
    },
    waits: &[5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400],
    tries: 10,
    asks_when: true,
};

const CLOUD_RULES: Rules = Rules {
    verdict: |status| match status {
        200..=299 => Verdict::Done,
        410 | 415 => Verdict::Never,
        _ => Verdict::Again,
    },
    ..RULES
};

fn requested() -> String {
    "io.keywheel.rotation.requested.v1".to_owned()
}

fn source() -> String {
    "/keywheel-sim".to_owned()
}

fn data(group: Option<&str>, key: Option<&str>, reason: Option<&str>) -> Value {
    let fields = [("groupId", group), ("newKey", key), ("reason", reason)];
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?))));
    Value::Object(fields.collect::<Map<_, _>>())
}

/// A sender of CloudEvents.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CloudEvents {
    #[serde(default = "requested")]
    event: String,
    #[serde(default = "source")]
    source: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    group_id: Option<String>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    data: Option<Value>,
    #[serde(default)]
    data_base64: bool,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    token: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Binary,
    #[default]
    Structured,
    Batch,
}

impl CloudEvents {
    fn content(&self) -> Value {
        self.data
            .clone()
            .unwrap_or_else(|| data(self.group_id.as_deref(), self.key.as_deref(), self.reason.as_deref()))
    }

    fn event(&self, sending: &Sending) -> (String, Value) {
        let id = self.id.clone().unwrap_or_else(keys::random_uuid);
        let mut event = json!({
            "specversion": "1.0", "id": id, "source": self.source, "type": self.event,
            "time": millis(sending.now), "datacontenttype": "application/json",
        });
        if self.data_base64 {
            event["data_base64"] = json!(STANDARD.encode(self.content().to_string()));
        } else {
            event["data"] = self.content();
        }
        (id, event)
    }

    fn binary(&self, sending: &Sending) -> Message {
        let id = self.id.clone().unwrap_or_else(keys::random_uuid);
        let time = millis(sending.now);
        let mut message =
            Message::post(id.clone(), self.content().to_string(), &[("Content-Type", "application/json")]);
        for (name, value) in [
            ("specversion", "1.0"),
            ("id", &id),
            ("source", &self.source),
            ("type", &self.event),
            ("time", &time),
        ] {
            message.headers.push((format!("ce-{name}"), encoded(value)));
        }
        message
    }
}

/// A header's value as the HTTP binding of CloudEvents encodes it.
fn encoded(value: &str) -> String {
    let mut text = String::new();
    for letter in value.chars() {
        if letter.is_ascii_graphic() && letter != '"' && letter != '%' {
            text.push(letter);
        } else {
            for byte in letter.encode_utf8(&mut [0; 4]).bytes() {
                text = format!("{text}%{byte:02X}");
            }
        }
    }
    text
}

impl Sender for CloudEvents {
    fn rules(&self) -> &'static Rules {
        &CLOUD_RULES
    }

    fn forgeries(&self) -> &'static [Forge] {
        match self.token {
            Some(_) => &[Forge::Signature, Forge::Unsigned],
            None => &[],
        }
    }

    fn messages(&self, count: u32, sending: &Sending) -> Result<Vec<Message>, Bad> {
        let structured = [("Content-Type", "application/cloudevents+json; charset=utf-8")];
        Ok(match self.mode {
            Mode::Binary => (0..count).map(|_| self.binary(sending)).collect(),
            Mode::Structured => (0..count)
                .map(|_| {
                    let (id, event) = self.event(sending);
                    Message::post(id, event.to_string(), &structured)
                })
                .collect(),
            Mode::Batch => {
                let (ids, events): (Vec<_>, Vec<_>) = (0..count).map(|_| self.event(sending)).unzip();
                let kind = [("Content-Type", "application/cloudevents-batch+json; charset=utf-8")];
                vec![Message::post(ids.join(" "), json!(events).to_string(), &kind)]
            }
        })
    }

    fn stamps(&self, _: &Message, _: u32, sending: &Sending) -> Result<Vec<(String, String)>, Bad> {
        let token = self.token.as_ref().filter(|_| !sending.forges(Forge::Unsigned));
        Ok(token
            .map(|token| ("Authorization".to_owned(), format!("Bearer {}", sending.proof(token))))
            .into_iter()
            .collect())
    }
}

/// A sender of Standard Webhooks.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Standard {
    #[serde(default = "requested")]
    event: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    group_id: Option<String>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    data: Option<Value>,
    secret: String,
    #[serde(default)]
    previous_secret: Option<String>,
    #[serde(default)]
    envelope: Envelope,
    #[serde(default)]
    body: Option<Value>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Envelope {
    #[default]
    Standard,
    CloudEvents,
}

impl Standard {
    fn request(&self, id: &str, sending: &Sending) -> Value {
        let data = self
            .data
            .clone()
            .unwrap_or_else(|| data(self.group_id.as_deref(), self.key.as_deref(), self.reason.as_deref()));
        match self.envelope {
            Envelope::Standard => {
                json!({ "type": self.event, "timestamp": millis(sending.now), "data": data })
            }
            Envelope::CloudEvents => json!({
                "specversion": "1.0", "id": id, "source": source(), "type": self.event, "time": millis(sending.now),
                "datacontenttype": "application/json", "data": data,
            }),
        }
    }
}

fn signing_key(field: &str, secret: &str) -> Result<Vec<u8>, Bad> {
    let text = secret
        .strip_prefix("whsec_")
        .ok_or_else(|| Bad::new(field, "it must be whsec_ and the Base64 of 24 to 64 bytes"))?;
    STANDARD
        .decode(text)
        .map_err(|error| Bad::new(field, format!("what follows whsec_ is no Base64: {error}")))
}

impl Sender for Standard {
    fn rules(&self) -> &'static Rules {
        &RULES
    }

    fn forgeries(&self) -> &'static [Forge] {
        &[Forge::Signature, Forge::Unsigned, Forge::Stranger, Forge::Expired, Forge::Early]
    }

    fn messages(&self, count: u32, sending: &Sending) -> Result<Vec<Message>, Bad> {
        let kind = match self.envelope {
            Envelope::Standard => "application/json",
            Envelope::CloudEvents => "application/cloudevents+json",
        };
        let one = |_| {
            let id = self.id.clone().unwrap_or_else(|| format!("msg_{}", keys::random_hex(14)));
            let body = self.body.as_ref().map_or_else(|| self.request(&id, sending).to_string(), as_sent);
            Message::post(id, body, &[("Content-Type", kind)])
        };
        Ok((0..count).map(one).collect())
    }

    fn stamps(&self, message: &Message, _: u32, sending: &Sending) -> Result<Vec<(String, String)>, Bad> {
        let hour = Duration::from_secs(3600);
        let at = match sending.forge {
            Some(Forge::Expired) => sending.now - hour,
            Some(Forge::Early) => sending.now + hour,
            _ => sending.now,
        };
        let at = epoch(at).to_string();
        let mut signed = format!("{}.{at}.", message.id).into_bytes();
        signed.extend_from_slice(&message.body);
        let mut secrets = vec![signing_key("secret", &self.secret)?];
        if let Some(previous) = &self.previous_secret {
            secrets.push(signing_key("previousSecret", previous)?);
        }
        if sending.forges(Forge::Stranger) {
            secrets = vec![b"not the secret, nor one like it".to_vec()];
        }
        let signature = |secret: &Vec<u8>| {
            let mut tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), &signed).as_ref().to_vec();
            if sending.forges(Forge::Signature) {
                tag = keys::spoilt(tag);
            }
            format!("v1,{}", STANDARD.encode(tag))
        };
        let signatures: Vec<String> = secrets.iter().map(signature).collect();
        let mut stamps =
            vec![("webhook-id".to_owned(), message.id.clone()), ("webhook-timestamp".to_owned(), at)];
        if !sending.forges(Forge::Unsigned) {
            stamps.push(("webhook-signature".to_owned(), signatures.join(" ")));
        }
        Ok(stamps)
    }
}
