//! AWS' events about a KMS key through EventBridge: those of the key service itself, and calls that
//! CloudTrail recorded. Both ways of delivery carry the same text.
//!
//! `event` is `KMS CMK Rotation`, `KMS Imported Key Material Expiration`, `KMS CMK Deletion`, or the
//! name of a call (`UpdateAlias`, `ScheduleKeyDeletion`, ...). `key` is an id or an ARN, `alias` such as
//! `alias/atlas-prod`. Options: `account`, `region`, `source`; `plain` leaves out what was added in
//! 2025; `rotationType`; `errorCode` makes the call one that failed; `targetArn` names the target of an
//! alias by its ARN; `reversed` lists the resources in the other documented order.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Bad, Sending, keys, seconds};

/// The fields of [`Change`].
pub(super) const FIELDS: [&str; 11] = [
    "event",
    "key",
    "alias",
    "account",
    "region",
    "source",
    "plain",
    "rotationType",
    "errorCode",
    "targetArn",
    "reversed",
];

const ROTATION: &str = "KMS CMK Rotation";
const EXPIRATION: &str = "KMS Imported Key Material Expiration";
const REMOVAL: &str = "KMS CMK Deletion";
/// What KMS does by itself and `CloudTrail` records.
const SERVICE: [&str; 4] =
    ["DeleteKey", "DeleteExpiredKeyMaterial", "RotateKey", "SynchronizeMultiRegionKey"];
const CALLS: [&str; 9] = [
    "CreateAlias",
    "UpdateAlias",
    "DeleteAlias",
    "DisableKey",
    "EnableKey",
    "ScheduleKeyDeletion",
    "CancelKeyDeletion",
    "PutKeyPolicy",
    "DeleteImportedKeyMaterial",
];

/// A change of a key.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Change {
    pub(super) event: String,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    alias: Option<String>,
    #[serde(default = "account")]
    account: String,
    #[serde(default)]
    region: Option<String>,
    #[serde(default = "source")]
    source: String,
    #[serde(default)]
    plain: bool,
    #[serde(default = "on_demand")]
    rotation_type: String,
    #[serde(default)]
    error_code: Option<String>,
    #[serde(default)]
    target_arn: bool,
    #[serde(default)]
    reversed: bool,
}

fn account() -> String {
    "111122223333".to_owned()
}

fn source() -> String {
    "aws.kms".to_owned()
}

fn on_demand() -> String {
    "ON_DEMAND".to_owned()
}

impl Change {
    fn region(&self) -> &str {
        let of_key =
            self.key.as_deref().filter(|key| key.starts_with("arn:")).and_then(|arn| arn.split(':').nth(3));
        self.region.as_deref().or(of_key).unwrap_or("eu-central-1")
    }

    fn arn(&self, resource: &str) -> String {
        format!("arn:aws:kms:{}:{}:{resource}", self.region(), self.account)
    }

    /// Id and ARN of the key.
    fn key(&self) -> Result<(String, String), Bad> {
        let key = self.key.as_deref().ok_or_else(|| Bad::new("key", "this event is about a key"))?;
        match key.rsplit_once(":key/") {
            Some((_, id)) => Ok((id.to_owned(), key.to_owned())),
            None => Ok((key.to_owned(), self.arn(&format!("key/{key}")))),
        }
    }

    fn alias(&self) -> Result<&str, Bad> {
        self.alias
            .as_deref()
            .filter(|alias| alias.starts_with("alias/"))
            .ok_or_else(|| Bad::new("alias", "this event is about an alias, such as alias/atlas-prod"))
    }

    /// The event's id and text.
    pub(super) fn event(&self, sending: &Sending) -> Result<(String, Value), Bad> {
        let id = keys::random_uuid();
        let call = CALLS.contains(&self.event.as_str());
        let (name, resources, detail) = if call {
            ("AWS API Call via CloudTrail", Vec::new(), self.call(sending)?)
        } else if SERVICE.contains(&self.event.as_str()) {
            ("AWS Service Event via CloudTrail", Vec::new(), self.service(sending)?)
        } else {
            let (_, arn) = self.key()?;
            (self.event.as_str(), vec![arn], self.detail()?)
        };
        let event = json!({
            "version": "0", "id": id, "detail-type": name, "source": self.source, "account": self.account,
            "time": seconds(sending.now), "region": self.region(), "resources": resources, "detail": detail,
        });
        Ok((id, event))
    }

    /// The detail of an event of the key service itself.
    fn detail(&self) -> Result<Value, Bad> {
        let (id, _) = self.key()?;
        let mut detail = json!({ "key-id": id });
        match self.event.as_str() {
            ROTATION if !self.plain => {
                detail["key-origin"] = json!("AWS_KMS");
                detail["rotation-type"] = json!(self.rotation_type);
                detail["previous-key-material-id"] = json!(keys::random_hex(32));
                detail["current-key-material-id"] = json!(keys::random_hex(32));
            }
            EXPIRATION if !self.plain => detail["key-origin"] = json!("EXTERNAL"),
            ROTATION | EXPIRATION | REMOVAL => {}
            other => {
                let known = [ROTATION, EXPIRATION, REMOVAL]
                    .into_iter()
                    .chain(CALLS)
                    .chain(SERVICE)
                    .collect::<Vec<_>>();
                return Err(Bad::new("event", format!("{other:?} is not one of {}", known.join(", "))));
            }
        }
        Ok(detail)
    }

    /// What KMS did by itself, as `CloudTrail` records it.
    fn service(&self, sending: &Sending) -> Result<Value, Bad> {
        let mut detail = self.call(sending)?;
        let (id, _) = self.key()?;
        detail["eventType"] = json!("AwsServiceEvent");
        detail["userIdentity"] = json!({ "accountId": self.account, "invokedBy": "AWS Internal" });
        detail["requestParameters"] = Value::Null;
        detail["serviceEventDetails"] = json!({ "keyId": id });
        Ok(detail)
    }

    /// A call as CloudTrail records it.
    fn call(&self, sending: &Sending) -> Result<Value, Bad> {
        let of_alias = self.event.ends_with("Alias");
        let (mut parameters, mut named) = (json!({}), Vec::new());
        if of_alias {
            let alias = self.alias()?;
            parameters["aliasName"] = json!(alias);
            named.push(self.arn(alias));
        }
        if !of_alias || self.event != "DeleteAlias" || self.key.is_some() {
            let (id, arn) = self.key()?;
            if !of_alias {
                parameters["keyId"] = json!(id);
            } else if self.event != "DeleteAlias" {
                parameters["targetKeyId"] = json!(if self.target_arn { &arn } else { &id });
            }
            named.push(arn);
        }
        match self.event.as_str() {
            "ScheduleKeyDeletion" => parameters["pendingWindowInDays"] = json!(30),
            "PutKeyPolicy" => {
                parameters["policyName"] = json!("default");
                parameters["policy"] = json!(r#"{"Version":"2012-10-17","Statement":[]}"#);
            }
            _ => {}
        }
        if self.reversed {
            named.reverse();
        }
        let resources: Vec<Value> = named
            .iter()
            .map(|arn| json!({ "accountId": self.account, "type": "AWS::KMS::Key", "ARN": arn }))
            .collect();
        let arn = format!("arn:aws:sts::{}:assumed-role/KeyOps/alice", self.account);
        let mut detail = json!({
            "eventVersion": "1.11",
            "userIdentity": { "type": "AssumedRole", "arn": arn, "accountId": self.account },
            "eventTime": seconds(sending.now), "eventSource": "kms.amazonaws.com", "eventName": self.event,
            "awsRegion": self.region(), "sourceIPAddress": "203.0.113.7", "requestParameters": parameters,
            "responseElements": null, "requestID": keys::random_uuid(), "eventID": keys::random_uuid(),
            "readOnly": false, "resources": resources, "eventType": "AwsApiCall", "managementEvent": true,
            "recipientAccountId": self.account, "eventCategory": "Management",
        });
        if let Some(code) = &self.error_code {
            detail["errorCode"] = json!(code);
            detail["errorMessage"] = json!("the call was refused");
        }
        Ok(detail)
    }
}
