//! `POST /sim/v1/emit`: reads an order, prepares the requests, sends them one after another, and returns
//! the replies.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::forge::Forge;
use super::post::{self, Attempt, Message, Verdict};
use super::{Bad, Kind, Sender, Sending, off_thread, read, take};
use crate::sim::Shared;

/// The fields of [`Delivery`].
const COMMON: [&str; 11] = [
    "kind",
    "url",
    "count",
    "forge",
    "replay",
    "duplicate",
    "shuffle",
    "truncate",
    "oversize",
    "retries",
    "tries",
];

const MOST_EVENTS: u32 = 5000;
/// The limit of all bodies together.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// How to deliver, whatever the sender.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Delivery {
    kind: Kind,
    url: url::Url,
    #[serde(default = "one")]
    count: u32,
    #[serde(default)]
    forge: Option<Forge>,
    #[serde(default)]
    replay: u32,
    #[serde(default)]
    duplicate: bool,
    #[serde(default)]
    shuffle: bool,
    #[serde(default)]
    truncate: bool,
    #[serde(default)]
    oversize: usize,
    #[serde(default)]
    retries: bool,
    #[serde(default = "four")]
    tries: u32,
}

fn one() -> u32 {
    1
}

fn four() -> u32 {
    4
}

/// A delivery that was parsed.
pub(super) struct Order {
    delivery: Delivery,
    sender: Box<dyn Sender>,
}

/// The result of one delivery.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sent {
    id: String,
    attempts: Vec<Attempt>,
    delivered: bool,
    /// For a handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    agreed: Option<bool>,
    /// Why the receiver did not agree.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Order {
    pub(super) fn read(mut fields: Map<String, Value>) -> Result<Self, Bad> {
        let delivery: Delivery = read(take(&mut fields, &COMMON))?;
        if !matches!(delivery.url.scheme(), "http" | "https") {
            return Err(Bad::new("url", "it must begin with http:// or https://"));
        }
        for (field, number, most) in [("count", delivery.count, MOST_EVENTS), ("tries", delivery.tries, 30)] {
            if !(1..=most).contains(&number) {
                return Err(Bad::new(field, format!("it must be 1 to {most}")));
            }
        }
        if delivery.replay > MOST_EVENTS {
            return Err(Bad::new("replay", format!("it must be at most {MOST_EVENTS}")));
        }
        let bytes = usize::try_from(delivery.count).unwrap_or(usize::MAX).checked_mul(delivery.oversize);
        if bytes.is_none_or(|bytes| bytes > MOST_BYTES) {
            return Err(Bad::new("oversize", format!("all bodies together must be at most {MOST_BYTES}")));
        }
        let sender = delivery.kind.sender(fields)?;
        if delivery.forge.is_some_and(|forge| !sender.forgeries().contains(&forge)) {
            let known: Vec<String> = sender.forgeries().iter().map(|it| kebab(*it)).collect();
            let known =
                if known.is_empty() { "nothing, as it proves nothing".to_owned() } else { known.join(", ") };
            return Err(Bad::new("forge", format!("of this order can be forged: {known}")));
        }
        Ok(Self { delivery, sender })
    }

    /// The requests in the order they are sent, each with the headers of its first try; a replay is
    /// not one of its own.
    fn prepare(&self, sim: &Shared) -> Result<Vec<Prepared>, Bad> {
        let sending = self.sending(sim);
        let mut messages = self.sender.messages(self.delivery.count, &sending)?;
        if self.delivery.shuffle {
            messages.reverse();
        }
        let mut prepared = Vec::new();
        for mut message in messages {
            if message.body.len() < self.delivery.oversize {
                message.body.resize(self.delivery.oversize, b' ');
            }
            for _ in 0..=u32::from(self.delivery.duplicate) {
                let stamps = self.sender.stamps(&message, 1, &sending)?;
                prepared.push(Prepared { message: message.clone(), stamps });
            }
        }
        Ok(prepared)
    }

    fn sending<'a>(&'a self, sim: &'a Shared) -> Sending<'a> {
        Sending {
            event_source: &sim.event_source,
            now: sim.clock.now(),
            url: &self.delivery.url,
            forge: self.delivery.forge,
        }
    }

    async fn send(&self, sim: &Shared, prepared: &Prepared) -> Sent {
        let message = &prepared.message;
        let mut stamps = prepared.stamps.clone();
        let wire = self.on_the_wire(message);
        let rules = self.sender.rules();
        let most = if self.delivery.retries { self.delivery.tries.min(rules.tries) } else { 1 };
        let mut sent = Sent {
            id: message.id.clone(),
            attempts: Vec::new(),
            delivered: false,
            agreed: None,
            reason: None,
        };
        for tried in 1..=most {
            if tried > 1 {
                match self.sender.stamps(message, tried, &self.sending(sim)) {
                    Ok(fresh) => stamps = fresh,
                    Err(bad) => sent.reason = Some(bad.error),
                }
            }
            let reply =
                post::send(sim.event_source.client(), &self.delivery.url, &wire, &stamps, rules.patience)
                    .await;
            let verdict = reply.status.map_or(Verdict::Again, rules.verdict);
            let wait = rules.wait(tried, &reply);
            sent.delivered = verdict == Verdict::Done;
            if let Some(answer) = self.sender.agreed(message, &reply) {
                sent.agreed = Some(answer.is_ok());
                sent.reason = answer.err().map(|why| why.to_string());
            }
            sent.attempts.push(reply);
            if verdict != Verdict::Again || tried == most {
                break;
            }
            #[expect(clippy::disallowed_methods, reason = "the simulator waits as senders do")]
            tokio::time::sleep(wait).await;
        }
        sent
    }

    fn on_the_wire(&self, message: &Message) -> Message {
        let mut wire = message.clone();
        if self.delivery.truncate {
            wire.body.truncate(wire.body.len() / 2);
        }
        wire
    }

    /// Sends all of it.
    pub(super) async fn carry_out(self, sim: Shared) -> Result<Vec<Sent>, Bad> {
        let order = std::sync::Arc::new(self);
        let (own, world) = (std::sync::Arc::clone(&order), sim.clone());
        let prepared = off_thread(move || own.prepare(&world)).await?;
        let mut sent = Vec::new();
        for one in prepared {
            for _ in 0..=order.delivery.replay {
                sent.push(order.send(&sim, &one).await);
            }
        }
        Ok(sent)
    }
}

struct Prepared {
    message: Message,
    stamps: Vec<(String, String)>,
}

fn kebab(forge: Forge) -> String {
    let mut text = String::new();
    for letter in format!("{forge:?}").chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

pub(super) async fn emit(State(sim): State<Shared>, body: Bytes) -> Response {
    let fields = match serde_json::from_slice::<Map<String, Value>>(&body) {
        Ok(fields) => fields,
        Err(error) => return Bad::new("body", error).into_response(),
    };
    let order = match Order::read(complete(&sim, fields)) {
        Ok(order) => order,
        Err(bad) => return bad.into_response(),
    };
    match order.carry_out(sim).await {
        Ok(sent) => Json(json!({ "sent": sent })).into_response(),
        Err(bad) => bad.into_response(),
    }
}

/// Adds the project's name, which Atlas has and an order may leave out.
pub(super) fn complete(sim: &Shared, mut fields: Map<String, Value>) -> Map<String, Value> {
    if fields.get("kind").is_some_and(|kind| kind == "atlas") && !fields.contains_key("projectName") {
        let world = sim.world();
        let group = fields.get("groupId").and_then(Value::as_str).unwrap_or_default();
        if let Some(project) = world.projects.get(group) {
            fields.insert("projectName".to_owned(), json!(project.name));
        }
    }
    fields
}
