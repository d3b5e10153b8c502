//! An API destination of EventBridge.
//!
//! The fields of [`super::aws`] name the event. The authentication is one of `apiKey` {`header`,
//! `value`}, `basic` {`user`, `password`} and `bearer`. `headers` are a connection's extra ones; `body`
//! is the output of an input transformer.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::aws::{self, Change};
use super::forge::Forge;
use super::post::{Message, Rules, Verdict};
use super::{Bad, Sender, Sending, as_sent, read, take};

/// Five seconds; every refusal but "too many" is final.
const RULES: Rules = Rules {
    patience: Duration::from_secs(5),
    verdict: |status| match status {
        200..=299 => Verdict::Done,
        429 => Verdict::Again,
        400..=499 => Verdict::Never,
        _ => Verdict::Again,
    },
    waits: &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512],
    tries: 185,
    asks_when: true,
};

/// A destination and its event.
pub(super) struct Destination {
    change: Change,
    connection: Connection,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Connection {
    #[serde(default)]
    api_key: Option<ApiKey>,
    #[serde(default)]
    basic: Option<Basic>,
    #[serde(default)]
    bearer: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApiKey {
    #[serde(default = "header")]
    header: String,
    value: String,
}

fn header() -> String {
    "x-api-key".to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Basic {
    user: String,
    password: String,
}

impl Destination {
    pub(super) fn read(mut fields: Map<String, Value>) -> Result<Self, Bad> {
        let change = read(take(&mut fields, &aws::FIELDS))?;
        let connection: Connection = read(fields)?;
        let proofs = [connection.api_key.is_some(), connection.basic.is_some(), connection.bearer.is_some()];
        if proofs.iter().filter(|given| **given).count() > 1 {
            return Err(Bad::new("apiKey", "a connection has one of apiKey, basic and bearer"));
        }
        Ok(Self { change, connection })
    }
}

impl Sender for Destination {
    fn rules(&self) -> &'static Rules {
        &RULES
    }

    fn forgeries(&self) -> &'static [Forge] {
        let Connection { api_key, basic, bearer, .. } = &self.connection;
        if api_key.is_none() && basic.is_none() && bearer.is_none() {
            return &[];
        }
        &[Forge::Signature, Forge::Unsigned]
    }

    fn messages(&self, count: u32, sending: &Sending) -> Result<Vec<Message>, Bad> {
        let one = |_| {
            let (id, event) = self.change.event(sending)?;
            let body = self.connection.body.as_ref().map_or_else(|| event.to_string(), as_sent);
            let mut message = Message::post(
                id,
                body,
                &[
                    ("Content-Type", "application/json; charset=utf-8"),
                    ("User-Agent", "Amazon/EventBridge/ApiDestinations"),
                    ("Range", "bytes=0-1048575"),
                    ("Accept-Encoding", "gzip,deflate"),
                    ("Connection", "close"),
                ],
            );
            message.headers.extend(self.connection.headers.clone());
            Ok(message)
        };
        (0..count).map(one).collect()
    }

    fn stamps(&self, _: &Message, _: u32, sending: &Sending) -> Result<Vec<(String, String)>, Bad> {
        let Connection { api_key, basic, bearer, .. } = &self.connection;
        if sending.forges(Forge::Unsigned) {
            return Ok(Vec::new());
        }
        let mut stamps = Vec::new();
        if let Some(key) = api_key {
            stamps.push((key.header.clone(), sending.proof(&key.value)));
        }
        if let Some(Basic { user, password }) = basic {
            let pair = STANDARD.encode(format!("{user}:{}", sending.proof(password)));
            stamps.push(("Authorization".to_owned(), format!("Basic {pair}")));
        }
        if let Some(token) = bearer {
            stamps.push(("Authorization".to_owned(), format!("Bearer {}", sending.proof(token))));
        }
        Ok(stamps)
    }
}
