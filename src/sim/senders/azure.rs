//! Azure Event Grid with the events of a Key Vault.
//!
//! `event` is `KeyNewVersionCreated` (unless given), `KeyNearExpiry`, `KeyExpired`,
//! `VaultAccessPolicyChanged`, `SubscriptionValidation` or `SubscriptionDeletion`; `key` is the
//! identifier of a key version. `schema` is `event-grid` or `cloud-events`. A secret of the query stands
//! in `url` (a wrong one too), one in a header in `headers`; `entra` {`tenantId`, `audience`, `appId`,
//! `version` 1 or 2, `roles`} sends a token that `/senders/entra/{tenant}/keys` verifies. With `batch`
//! all events travel in one request. `nbf` and `exp` are seconds since 1970. `documented` spells the
//! data as the documentation's sample does (a blank in a name, a blank before the version, dates as
//! text), not as deliveries were observed. `array: false` sends one cloud event bare.
//!
//! The handshake of the Event Grid schema is a POST that must be answered 200 with the code; that of
//! CloudEvents is an OPTIONS that must be answered with the origin (and a rate, if `rate` asks for one).

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::forge::Forge;
use super::keys::{self, Signer};
use super::post::{Attempt, Message, Rules, Verdict};
use super::{Bad, Disagreement, Sender, Sending, epoch};
use crate::domain::time::Timestamp;

/// Success is 200 to 204 and nothing else; four refusals are final.
const RULES: Rules = Rules {
    patience: Duration::from_secs(30),
    verdict: |status| match status {
        200..=204 => Verdict::Done,
        400 | 401 | 403 | 413 => Verdict::Never,
        _ => Verdict::Again,
    },
    waits: &[10, 30, 60, 300, 600, 1800, 3600, 10_800, 21_600, 43_200],
    tries: 30,
    asks_when: false,
};

/// Microsoft's own application for Event Grid.
const EVENT_GRID_APP: &str = "4962773b-9cdb-44cf-a8bf-237846a00ab7";
const OTHER_APP: &str = "11111111-2222-4333-8444-555555555555";
const VALIDATION: &str = "SubscriptionValidation";
const DELETION: &str = "SubscriptionDeletion";
const POLICY: &str = "VaultAccessPolicyChanged";
const EVENTS: [&str; 6] =
    ["KeyNewVersionCreated", "KeyNearExpiry", "KeyExpired", POLICY, VALIDATION, DELETION];

/// One event subscription.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EventGrid {
    #[serde(default)]
    schema: Schema,
    #[serde(default = "new_version")]
    event: String,
    #[serde(default)]
    key: Option<String>,
    #[serde(default = "subscription")]
    subscription: String,
    #[serde(default = "azure_subscription")]
    subscription_id: String,
    #[serde(default = "resource_group")]
    resource_group: String,
    #[serde(default)]
    nbf: Option<i64>,
    #[serde(default)]
    exp: Option<i64>,
    #[serde(default)]
    documented: bool,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    entra: Option<Entra>,
    #[serde(default)]
    batch: bool,
    #[serde(default = "yes")]
    array: bool,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default = "origin")]
    origin: String,
    #[serde(default)]
    rate: Option<u32>,
    #[serde(default)]
    callback: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Schema {
    #[default]
    EventGrid,
    CloudEvents,
}

/// The issuer and the audience of the tokens that are sent.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entra {
    tenant_id: String,
    audience: String,
    #[serde(default = "app")]
    app_id: String,
    #[serde(default = "first")]
    version: u8,
    #[serde(default)]
    roles: Vec<String>,
}

fn new_version() -> String {
    EVENTS[0].to_owned()
}

fn subscription() -> String {
    "ATLAS-CMK".to_owned()
}

fn azure_subscription() -> String {
    "00000000-0000-4000-8000-000000000003".to_owned()
}

fn resource_group() -> String {
    "kw".to_owned()
}

fn yes() -> bool {
    true
}

fn origin() -> String {
    "eventgrid.azure.net".to_owned()
}

fn app() -> String {
    EVENT_GRID_APP.to_owned()
}

fn first() -> u8 {
    1
}

/// A key version, parsed from its identifier.
struct VaultKey<'a> {
    id: &'a str,
    vault: &'a str,
    name: &'a str,
    version: &'a str,
}

impl<'a> VaultKey<'a> {
    fn parse(id: &'a str) -> Option<Self> {
        let (host, path) = id.strip_prefix("https://")?.split_once("/keys/")?;
        let (name, version) = path.split_once('/')?;
        let vault = host.split('.').next()?;
        (!version.contains('/')).then_some(Self { id, vault, name, version })
    }
}

impl EventGrid {
    fn key(&self) -> Result<VaultKey<'_>, Bad> {
        let id = self.key.as_deref().ok_or_else(|| Bad::new("key", "this event is about a key version"))?;
        VaultKey::parse(id)
            .ok_or_else(|| Bad::new("key", "it must be https://VAULT.vault.azure.net/keys/NAME/VERSION"))
    }

    fn topic(&self, vault: &str) -> String {
        format!(
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.KeyVault/vaults/{vault}",
            self.subscription_id, self.resource_group
        )
    }

    /// The event's data about the key.
    fn data(&self, key: &VaultKey) -> Value {
        let VaultKey { id, vault, name, version } = key;
        if self.event == POLICY {
            return json!({
                "Id": format!("https://{vault}.vault.azure.net"), "VaultName": vault, "ObjectType": "Vault",
                "ObjectName": vault, "Version": null, "NBF": null, "EXP": null,
            });
        }
        if self.documented {
            let text = |date: Option<i64>| date.map(|it| it.to_string());
            return json!({
                "id": id, "VaultName": vault, "ObjectType": "Key", "ObjectName ": name,
                "Version": format!(" {version}"), "NBF": text(self.nbf), "EXP": text(self.exp),
            });
        }
        json!({
            "Id": id, "VaultName": vault, "ObjectType": "Key", "ObjectName": name, "Version": version,
            "NBF": self.nbf, "EXP": self.exp,
        })
    }

    fn event(&self, sending: &Sending) -> Result<(String, Value), Bad> {
        let key = self.key()?;
        let (id, data) = (keys::random_uuid(), self.data(&key));
        let subject = if self.event == POLICY { key.vault } else { key.name };
        let (topic, kind) = (self.topic(key.vault), format!("Microsoft.KeyVault.{}", self.event));
        let at = ticks(sending.now);
        let event = match self.schema {
            Schema::EventGrid => json!({
                "id": id, "topic": topic, "subject": subject, "eventType": kind, "eventTime": at, "data": data,
                "dataVersion": "1", "metadataVersion": "1",
            }),
            Schema::CloudEvents => json!({
                "id": id, "source": topic, "subject": subject, "type": kind, "time": at, "specversion": "1.0",
                "data": data,
            }),
        };
        Ok((id, event))
    }

    /// A request of the Event Grid schema or of CloudEvents.
    fn request(&self, id: &str, body: &Value, what: &str) -> Message {
        let own = match (self.schema, body.is_array() && (self.batch || self.content_type.is_none())) {
            (Schema::EventGrid, _) => "application/json; charset=utf-8",
            (Schema::CloudEvents, true) => "application/cloudevents-batch+json; charset=utf-8",
            (Schema::CloudEvents, false) => "application/cloudevents+json; charset=utf-8",
        };
        let kind = self.content_type.as_deref().unwrap_or(own);
        let name = self.subscription.to_uppercase();
        let mut headers = vec![
            ("Content-Type", kind),
            ("aeg-event-type", what),
            ("aeg-subscription-name", name.as_str()),
            ("aeg-output-event-id", id),
        ];
        if self.schema == Schema::EventGrid {
            headers.extend([("aeg-data-version", "1"), ("aeg-metadata-version", "1")]);
        }
        Message::post(id.to_owned(), body.to_string(), &headers)
    }

    /// The POST that requests its code back.
    fn validation(&self, sending: &Sending) -> Message {
        let (id, code) = (keys::random_uuid(), keys::random_uuid().to_uppercase());
        let url = format!("{}/senders/azure/validate?code={code}", sending.event_source.base_url);
        let topic = self.topic(self.key().map_or("kw-demo", |key| key.vault));
        let event = json!([{
            "id": id, "topic": topic, "subject": "", "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
            "eventTime": ticks(sending.now), "data": { "validationCode": code, "validationUrl": url },
            "metadataVersion": "1", "dataVersion": "2",
        }]);
        let mut message = self.request(&id, &event, VALIDATION);
        // The response is compared with the code.
        message.id = code;
        message
    }

    fn options(&self) -> Message {
        let mut message = Message::post(
            keys::random_uuid(),
            Vec::new(),
            &[("WebHook-Request-Origin", self.origin.as_str())],
        );
        message.method = Method::OPTIONS;
        if let Some(rate) = self.rate {
            message.headers.push(("WebHook-Request-Rate".to_owned(), rate.to_string()));
        }
        if let Some(callback) = &self.callback {
            message.headers.push(("WebHook-Request-Callback".to_owned(), callback.clone()));
        }
        message
    }

    fn consents(&self, reply: &Attempt) -> Result<(), Disagreement> {
        let header = |name| reply.headers.get(name).and_then(|value| value.to_str().ok());
        if !reply.status.is_some_and(|status| (200..300).contains(&status)) {
            return Err(Disagreement::Status { found: reply.status, strict: false });
        }
        match header("webhook-allowed-origin") {
            None => return Err(Disagreement::NoOrigin),
            Some(origin) if origin != "*" && origin != self.origin => {
                return Err(Disagreement::OtherOrigin { found: origin.to_owned(), own: self.origin.clone() });
            }
            Some(_) => {}
        }
        let rate = header("webhook-allowed-rate");
        if self.rate.is_some() && rate.is_none_or(|rate| rate != "*" && rate.parse::<u32>().is_err()) {
            return Err(Disagreement::NoRate);
        }
        Ok(())
    }
}

/// An instant to a tenth of a microsecond, as the service writes it.
fn ticks(at: Timestamp) -> String {
    let micros = at.to_string();
    format!("{}6Z", micros.trim_end_matches('Z'))
}

impl Entra {
    fn claims(&self, sending: &Sending) -> Result<Value, Bad> {
        let tenant = match sending.forge {
            Some(Forge::Issuer) => OTHER_APP,
            _ => &self.tenant_id,
        };
        let app = if sending.forges(Forge::AppId) { OTHER_APP } else { &self.app_id };
        let audience = if sending.forges(Forge::Audience) { OTHER_APP } else { &self.audience };
        let day = Duration::from_secs(86_400);
        let from = match sending.forge {
            Some(Forge::Expired) => sending.now - day * 2,
            Some(Forge::Early) => sending.now + day,
            _ => sending.now,
        };
        let life = if sending.forges(Forge::Lasting) { day * 365 } else { day };
        let mut claims = json!({
            "aud": audience, "iat": epoch(from), "nbf": epoch(from), "exp": epoch(from + life), "tid": tenant,
            "oid": OTHER_APP, "sub": OTHER_APP,
        });
        match self.version {
            1 => {
                claims["iss"] = json!(format!("https://sts.windows.net/{tenant}/"));
                (claims["appid"], claims["appidacr"], claims["ver"]) = (json!(app), json!("2"), json!("1.0"));
            }
            2 => {
                claims["iss"] = json!(format!("https://login.microsoftonline.com/{tenant}/v2.0"));
                (claims["azp"], claims["azpacr"], claims["ver"]) = (json!(app), json!("2"), json!("2.0"));
            }
            _ => return Err(Bad::new("entra.version", "it must be 1 or 2")),
        }
        if !self.roles.is_empty() {
            claims["roles"] = json!(self.roles);
        }
        Ok(claims)
    }
}

impl Sender for EventGrid {
    fn rules(&self) -> &'static Rules {
        &RULES
    }

    fn forgeries(&self) -> &'static [Forge] {
        match (&self.entra, self.headers.is_empty()) {
            // A secret of the query is in the given address already.
            (None, true) => return &[],
            (None, false) => return &[Forge::Signature, Forge::Unsigned],
            (Some(_), _) => {}
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
            Forge::AppId,
        ]
    }

    fn messages(&self, count: u32, sending: &Sending) -> Result<Vec<Message>, Bad> {
        if !EVENTS.contains(&self.event.as_str()) {
            return Err(Bad::new("event", format!("it must be one of {}", EVENTS.join(", "))));
        }
        let handshake = self.event == VALIDATION;
        if handshake && self.schema == Schema::CloudEvents {
            return Ok((0..count).map(|_| self.options()).collect());
        }
        if handshake {
            return Ok((0..count).map(|_| self.validation(sending)).collect());
        }
        if self.event == DELETION {
            let event = json!([{ "id": keys::random_uuid(), "eventType": "Microsoft.EventGrid.SubscriptionDeletedEvent",
                "topic": self.topic("kw-demo"), "subject": "", "eventTime": ticks(sending.now), "data": {},
                "metadataVersion": "1", "dataVersion": "1" }]);
            return Ok(vec![self.request(&keys::random_uuid(), &event, DELETION)]);
        }
        let events = (0..count).map(|_| self.event(sending)).collect::<Result<Vec<_>, Bad>>()?;
        if self.batch {
            let (ids, events): (Vec<_>, Vec<_>) = events.into_iter().unzip();
            let mut message = self.request(&ids[0], &json!(events), "Notification");
            message.id = ids.join(" ");
            return Ok(vec![message]);
        }
        let bare = self.schema == Schema::CloudEvents && !self.array;
        let one = |(id, event): (String, Value)| {
            let body = if bare { event } else { json!([event]) };
            self.request(&id, &body, "Notification")
        };
        Ok(events.into_iter().map(one).collect())
    }

    fn stamps(
        &self,
        message: &Message,
        attempt: u32,
        sending: &Sending,
    ) -> Result<Vec<(String, String)>, Bad> {
        let mut stamps = Vec::new();
        if message.method == Method::POST {
            stamps.push(("aeg-delivery-count".to_owned(), (attempt - 1).to_string()));
        }
        if !sending.forges(Forge::Unsigned) {
            for (name, value) in &self.headers {
                let value = if self.entra.is_none() { sending.proof(value) } else { value.clone() };
                stamps.push((name.clone(), value));
            }
        }
        if let Some(entra) = &self.entra
            && let Some(token) =
                sending.event_source.keys.token(Signer::Entra, &entra.claims(sending)?, sending.forge)
        {
            stamps.push(("Authorization".to_owned(), format!("Bearer {token}")));
        }
        Ok(stamps)
    }

    fn agreed(&self, message: &Message, reply: &Attempt) -> Option<Result<(), Disagreement>> {
        if self.event != VALIDATION {
            return None;
        }
        if message.method == Method::OPTIONS {
            return Some(self.consents(reply));
        }
        let body: Value = serde_json::from_str(&reply.body).unwrap_or_default();
        Some(if reply.status != Some(200) {
            Err(Disagreement::Status { found: reply.status, strict: true })
        } else if body["validationResponse"] == message.id {
            Ok(())
        } else {
            Err(Disagreement::OtherCode)
        })
    }
}
