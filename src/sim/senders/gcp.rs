//! A push subscription of Google Pub/Sub that carries the log of Cloud KMS.
//!
//! `key` is `projects/P/locations/L/keyRings/R/cryptoKeys/K`, with `/cryptoKeyVersions/N` where a
//! version is meant. `event` is the method of an audit log entry (`UpdateCryptoKeyPrimaryVersion` unless
//! given; `longNames` writes it in full) or what the key service itself logs: `rotationEvent`,
//! `keyGenerationEvent`, `importEvent`, `scheduledDestructionEvent`, which name no version. `statusCode`
//! is that of a call that failed. `email` is the service account whose token is sent (none without it),
//! `audience` the push URL unless given. Options: `subscription`; `wrapped: false` and `writeMetadata`;
//! `deliveryAttempt`; `snakeCase: false` leaves out the second spelling of ids; `body` in place of the
//! log entry.
//!
//! The name of the key service's own log was never observed; the one here is invented.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::forge::Forge;
use super::keys::{self, Signer};
use super::post::{Message, Rules, Verdict};
use super::{Bad, Sender, Sending, as_sent, epoch, millis};

/// Everything but five statuses is tried again until the message is too old.
const RULES: Rules = Rules {
    patience: Duration::from_secs(10),
    verdict: |status| match status {
        102 | 200 | 201 | 202 | 204 => Verdict::Done,
        _ => Verdict::Again,
    },
    waits: &[10, 20, 40, 80, 160, 320, 600],
    tries: 1000,
    asks_when: false,
};

const OF_VERSIONS: [&str; 3] =
    ["UpdateCryptoKeyVersion", "DestroyCryptoKeyVersion", "RestoreCryptoKeyVersion"];
const OF_KEYS: [&str; 2] = ["CreateCryptoKeyVersion", "UpdateCryptoKeyPrimaryVersion"];
const PLATFORM: [&str; 4] =
    ["rotationEvent", "keyGenerationEvent", "importEvent", "scheduledDestructionEvent"];

/// A push subscription.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Push {
    key: String,
    #[serde(default = "primary")]
    event: String,
    #[serde(default)]
    long_names: bool,
    #[serde(default)]
    status_code: i32,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    audience: Option<String>,
    #[serde(default)]
    subscription: Option<String>,
    #[serde(default = "yes")]
    wrapped: bool,
    #[serde(default)]
    write_metadata: bool,
    #[serde(default)]
    delivery_attempt: bool,
    #[serde(default = "yes")]
    snake_case: bool,
    #[serde(default)]
    body: Option<Value>,
}

fn primary() -> String {
    OF_KEYS[1].to_owned()
}

fn yes() -> bool {
    true
}

/// A key, or one of its versions, parsed from its path.
struct VersionName<'a> {
    path: &'a str,
    project: &'a str,
    location: &'a str,
    ring: &'a str,
    name: &'a str,
    version: Option<&'a str>,
}

impl<'a> VersionName<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let (key, version) = match parts.as_slice() {
            [key @ .., "cryptoKeyVersions", version] if key.len() == 8 => (key, Some(*version)),
            key => (key, None),
        };
        let ["projects", project, "locations", location, "keyRings", ring, "cryptoKeys", name] = key else {
            return None;
        };
        let path = text.split("/cryptoKeyVersions/").next()?;
        Some(Self { path, project, location, ring, name, version })
    }
}

impl Push {
    fn key(&self) -> Result<VersionName<'_>, Bad> {
        VersionName::parse(&self.key).ok_or_else(|| {
            Bad::new("key", "it must be projects/P/locations/L/keyRings/R/cryptoKeys/K[/cryptoKeyVersions/N]")
        })
    }

    fn log_entry(&self, key: &VersionName, sending: &Sending) -> Result<Value, Bad> {
        if PLATFORM.contains(&self.event.as_str()) {
            return Ok(self.platform(key, sending));
        }
        let of_version = OF_VERSIONS.contains(&self.event.as_str());
        if !of_version && !OF_KEYS.contains(&self.event.as_str()) {
            let known: Vec<_> = OF_KEYS.into_iter().chain(OF_VERSIONS).chain(PLATFORM).collect();
            return Err(Bad::new("event", format!("{:?} is not one of {}", self.event, known.join(", "))));
        }
        let version = key.version.ok_or_else(|| Bad::new("key", "this event needs /cryptoKeyVersions/N"))?;
        let full = format!("{}/cryptoKeyVersions/{version}", key.path);
        let method = if self.long_names {
            format!("google.cloud.kms.v1.KeyManagementService.{}", self.event)
        } else {
            self.event.clone()
        };
        let (request, response) = match self.event.as_str() {
            "UpdateCryptoKeyPrimaryVersion" => (
                json!({ "name": key.path, "cryptoKeyVersionId": version }),
                json!({ "primary": { "name": full, "state": "ENABLED" } }),
            ),
            "CreateCryptoKeyVersion" => {
                (json!({ "parent": key.path }), json!({ "name": full, "state": "ENABLED" }))
            }
            _ => (json!({ "name": full }), json!({ "name": full })),
        };
        let mut entry =
            frame(key, of_version.then_some(version), "cloudaudit.googleapis.com%2Factivity", sending);
        let mut payload = json!({
            "@type": "type.googleapis.com/google.cloud.audit.AuditLog", "serviceName": "cloudkms.googleapis.com",
            "methodName": method, "resourceName": if of_version { full.as_str() } else { key.path },
            "authenticationInfo": { "principalEmail": "alice@example.com" },
            "request": request, "response": response, "status": {},
        });
        if self.status_code != 0 {
            payload["status"] = json!({ "code": self.status_code, "message": "the call was refused" });
            payload["response"] = Value::Null;
            entry["severity"] = json!("ERROR");
        }
        entry["protoPayload"] = payload;
        Ok(entry)
    }

    /// An entry of the key service about its own actions.
    fn platform(&self, key: &VersionName, sending: &Sending) -> Value {
        let of_key = self.event == PLATFORM[0];
        let name = if of_key { "CryptoKeyEvent" } else { "CryptoKeyVersionEvent" };
        let version = key.version.filter(|_| !of_key);
        let mut entry = frame(key, version, "cloudkms.googleapis.com%2Fkey_events", sending);
        let status = if self.status_code == 0 { json!({}) } else { json!({ "code": self.status_code }) };
        entry["jsonPayload"] = json!({
            "@type": format!("type.googleapis.com/google.cloud.kms.logging.v1.{name}"),
            self.event.as_str(): { "status": status },
        });
        entry
    }
}

/// A log entry without its payload.
fn frame(key: &VersionName, version: Option<&str>, log: &str, sending: &Sending) -> Value {
    let mut labels = json!({
        "project_id": key.project, "location": key.location, "key_ring_id": key.ring, "crypto_key_id": key.name,
    });
    let kind = match version {
        Some(version) => {
            labels["crypto_key_version_id"] = json!(version);
            "cloudkms_cryptokeyversion"
        }
        None => "cloudkms_cryptokey",
    };
    json!({
        "insertId": keys::random_hex(6), "logName": format!("projects/{}/logs/{log}", key.project),
        "timestamp": millis(sending.now), "receiveTimestamp": millis(sending.now), "severity": "NOTICE",
        "resource": { "type": kind, "labels": labels },
    })
}

impl Sender for Push {
    fn rules(&self) -> &'static Rules {
        &RULES
    }

    fn forgeries(&self) -> &'static [Forge] {
        if self.email.is_none() {
            return &[];
        }
        &[
            Forge::Signature,
            Forge::Unsigned,
            Forge::Stranger,
            Forge::AlgNone,
            Forge::Hs256,
            Forge::Kid,
            Forge::Audience,
            Forge::Issuer,
            Forge::Expired,
            Forge::Early,
            Forge::Lasting,
            Forge::Email,
            Forge::EmailUnverified,
        ]
    }

    fn messages(&self, count: u32, sending: &Sending) -> Result<Vec<Message>, Bad> {
        let key = self.key()?;
        let own = format!("projects/{}/subscriptions/atlas-cmk-push", key.project);
        let subscription = self.subscription.as_deref().unwrap_or(&own);
        let one = |number: u32| {
            // Ids are decimal numbers that grow, but a receiver must not rely on that.
            let id = format!("{}{number:04}", sending.now.as_micros());
            let entry = match &self.body {
                Some(body) => as_sent(body),
                None => self.log_entry(&key, sending)?.to_string(),
            };
            let at = millis(sending.now);
            let agent = [("Content-Type", "application/json"), ("User-Agent", "CloudPubSub-Google")];
            if !self.wrapped {
                let mut message = Message::post(id.clone(), entry, &agent);
                if self.write_metadata {
                    for (name, value) in [
                        ("subscription-name", subscription),
                        ("message-id", id.as_str()),
                        ("publish-time", at.as_str()),
                    ] {
                        message.headers.push((format!("x-goog-pubsub-{name}"), value.to_owned()));
                    }
                }
                return Ok(message);
            }
            let mut inner = json!({
                "data": STANDARD.encode(entry), "messageId": id, "publishTime": at,
                "attributes": { "logging.googleapis.com/timestamp": at },
            });
            if self.snake_case {
                (inner["message_id"], inner["publish_time"]) = (json!(id), json!(at));
            }
            let mut body = json!({ "message": inner, "subscription": subscription });
            if self.delivery_attempt {
                body["deliveryAttempt"] = json!(1);
            }
            Ok(Message::post(id, body.to_string(), &agent))
        };
        (0..count).map(one).collect()
    }

    fn stamps(&self, _: &Message, _: u32, sending: &Sending) -> Result<Vec<(String, String)>, Bad> {
        let Some(email) = &self.email else { return Ok(Vec::new()) };
        let hour = Duration::from_secs(3600);
        let from = match sending.forge {
            Some(Forge::Expired) => sending.now - hour * 3,
            Some(Forge::Early) => sending.now + hour,
            _ => sending.now,
        };
        let audience = match (sending.forge, &self.audience) {
            (Some(Forge::Audience), _) => "https://somebody-else.example.com/push",
            (_, Some(audience)) => audience,
            (_, None) => sending.url.as_str(),
        };
        let issuer = if sending.forges(Forge::Issuer) {
            "https://accounts.example.com"
        } else {
            "https://accounts.google.com"
        };
        let email = if sending.forges(Forge::Email) {
            "somebody@another-project.iam.gserviceaccount.com"
        } else {
            email
        };
        let life = if sending.forges(Forge::Lasting) { hour * 24 * 365 } else { hour };
        let claims = json!({
            "aud": audience, "azp": "113774264463038321964", "email": email,
            "email_verified": !sending.forges(Forge::EmailUnverified), "iat": epoch(from), "exp": epoch(from + life),
            "iss": issuer, "sub": "113774264463038321964",
        });
        let token = sending.event_source.keys.token(Signer::Google, &claims, sending.forge);
        Ok(token.map(|token| ("Authorization".to_owned(), format!("Bearer {token}"))).into_iter().collect())
    }
}
