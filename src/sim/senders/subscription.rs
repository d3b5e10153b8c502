//! One subscriber: the changes that it is sent, and the order that each of them becomes.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::emit::Order;
use super::{Bad, Kind};

/// One subscriber.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
pub struct Subscription {
    pub(super) kind: Kind,
    only: Option<BTreeSet<String>>,
    about: Option<String>,
    /// The rest of the order.
    order: Map<String, Value>,
}

/// The order holds secrets.
impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl TryFrom<Map<String, Value>> for Subscription {
    type Error = Bad;

    fn try_from(fields: Map<String, Value>) -> Result<Self, Bad> {
        Self::read(fields)
    }
}

impl From<Subscription> for Map<String, Value> {
    fn from(subscription: Subscription) -> Self {
        let mut fields = subscription.order;
        fields.insert("kind".to_owned(), json!(subscription.kind));
        fields.extend(subscription.only.map(|only| ("only".to_owned(), json!(only))));
        fields.extend(subscription.about.map(|about| ("about".to_owned(), json!(about))));
        fields
    }
}

/// The fields that a change supplies.
pub(super) const GIVEN: [&str; 7] = ["event", "key", "alias", "groupId", "action", "nbf", "exp"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    kind: Kind,
    #[serde(default)]
    only: Option<BTreeSet<String>>,
    #[serde(default)]
    about: Option<String>,
}

impl Subscription {
    pub(super) fn read(mut fields: Map<String, Value>) -> Result<Self, Bad> {
        if let Some(name) = GIVEN.into_iter().find(|name| fields.contains_key(*name)) {
            return Err(Bad::new(name, "a subscription is told this by what changes"));
        }
        let own: Own = super::read(super::take(&mut fields, &["kind", "only", "about"]))?;
        let subscription = Self { kind: own.kind, only: own.only, about: own.about, order: fields };
        Order::read(subscription.order_for(&sample(own.kind)))?;
        Ok(subscription)
    }

    pub(super) fn wants(&self, told: &Told) -> bool {
        told.kinds.contains(&self.kind)
            && self.only.as_ref().is_none_or(|only| only.contains(told.event))
            && self.about.as_ref().is_none_or(|about| told.about.starts_with(about.as_str()))
    }

    pub(super) fn order_for(&self, told: &Told) -> Map<String, Value> {
        let mut order = self.order.clone();
        order.insert("kind".to_owned(), json!(self.kind));
        if !told.event.is_empty() {
            order.insert("event".to_owned(), json!(told.event));
        }
        order.extend(told.fields.clone());
        order
    }
}

/// One change to send, and the senders that send it.
#[derive(Clone, Debug)]
pub(super) struct Told {
    kinds: &'static [Kind],
    event: &'static str,
    about: String,
    fields: Map<String, Value>,
}

impl Told {
    pub(super) fn new(kinds: &'static [Kind], event: &'static str, about: &str, fields: Value) -> Self {
        let Value::Object(fields) = fields else { unreachable!("a change has fields") };
        Self { kinds, event, about: about.to_owned(), fields }
    }
}

pub(super) const AWS: &[Kind] = &[Kind::AwsEventbridge, Kind::AwsSns];
pub(super) const AZURE: &[Kind] = &[Kind::AzureEventGrid];
pub(super) const GCP: &[Kind] = &[Kind::GcpPubsub];
pub(super) const ATLAS: &[Kind] = &[Kind::Atlas];
pub(super) const ANYBODY: &[Kind] = &[Kind::CloudEvents, Kind::Standard];

/// A change that each kind could be sent, to check an order.
fn sample(kind: Kind) -> Told {
    let key = match kind {
        Kind::AzureEventGrid => "https://v.vault.azure.net/keys/k/1",
        Kind::GcpPubsub => "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1",
        _ => "1234abcd-12ab-34cd-56ef-1234567890ab",
    };
    match kind {
        Kind::Atlas => Told::new(ATLAS, "AWS_ENCRYPTION_KEY_INVALID", "", json!({ "groupId": "g" })),
        Kind::AzureEventGrid => Told::new(AZURE, "KeyExpired", key, json!({ "key": key })),
        Kind::GcpPubsub => Told::new(GCP, "CreateCryptoKeyVersion", key, json!({ "key": key })),
        Kind::AwsEventbridge | Kind::AwsSns => Told::new(AWS, "DisableKey", key, json!({ "key": key })),
        Kind::CloudEvents | Kind::Standard => Told::new(ANYBODY, "", key, json!({ "groupId": "g" })),
    }
}
