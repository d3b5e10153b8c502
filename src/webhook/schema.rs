//! The JSON Schema of the events, made from the types that are sent. Tests only: it is a document of
//! the project, `docs/events.schema.json`, and no part of the program.

use std::borrow::Cow;
use std::path::Path;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::event::{CutData, Data, DriftFacts, Event};
use crate::domain::ids::{GroupId, LooseningId, RotationId};
use crate::domain::notice::{
    AuditHead, Authority, CheckedRotation, ConditionFacts, CurrentKeyInvalid, InstallationCondition,
    KeyAlarm, Kind, Overwrote, Reminder, ReminderDigest, RevokedTokenUsed, RotationFacts,
};
use crate::domain::time::Timestamp;

/// A type that is a text on the wire.
macro_rules! text {
    ($name:ident, $schema:tt) => {
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}
text!(Timestamp, { "type": "string", "format": "date-time" });
text!(GroupId, { "type": "string", "pattern": "^[0-9a-f]{24}$" });
text!(LooseningId, { "type": "string", "format": "uuid" });
text!(RotationId, { "type": "string", "format": "uuid" });

fn data(kind: Kind, schemas: &mut SchemaGenerator) -> Schema {
    match kind {
        Kind::ApprovalRequested | Kind::AutoApproved | Kind::PreflightFailed => {
            schemas.subschema_for::<Data<CheckedRotation>>()
        }
        Kind::Completed
        | Kind::RolledBack
        | Kind::Failed
        | Kind::Rejected
        | Kind::Cancelled
        | Kind::Expired
        | Kind::Superseded
        | Kind::Accepted
        | Kind::Closed
        | Kind::NeedsOperator
        | Kind::LateApply
        | Kind::NotDeployed => schemas.subschema_for::<Data<RotationFacts>>(),
        Kind::CurrentKeyInvalid => schemas.subschema_for::<Data<CurrentKeyInvalid>>(),
        Kind::Drifted => schemas.subschema_for::<Data<DriftFacts<'_>>>(),
        Kind::KeyAlarm => schemas.subschema_for::<Data<KeyAlarm>>(),
        Kind::Overwrote => schemas.subschema_for::<Data<Overwrote>>(),
        Kind::Reminder => schemas.subschema_for::<Data<Reminder>>(),
        Kind::ReminderDigest => schemas.subschema_for::<Data<ReminderDigest>>(),
        Kind::Unreachable
        | Kind::ValidityUnknown
        | Kind::NoKey
        | Kind::Held
        | Kind::NeedsOperatorOver
        | Kind::CurrentKeyInvalidOver
        | Kind::UnreachableOver
        | Kind::ValidityUnknownOver
        | Kind::NoKeyOver
        | Kind::DriftedOver
        | Kind::HeldOver
        | Kind::NotOwner
        | Kind::NotOwnerOver
        | Kind::KeyAlarmOver => schemas.subschema_for::<Data<ConditionFacts>>(),
        Kind::NotSending
        | Kind::DatabaseUnwritable
        | Kind::AtlasUnreachable
        | Kind::CredentialRefused
        | Kind::CredentialEnding
        | Kind::MailFailing
        | Kind::WebhookDisabled
        | Kind::SweepLate
        | Kind::RowUnreadable
        | Kind::NotSendingOver
        | Kind::DatabaseUnwritableOver
        | Kind::AtlasUnreachableOver
        | Kind::CredentialRefusedOver
        | Kind::CredentialEndingOver
        | Kind::MailFailingOver
        | Kind::WebhookDisabledOver
        | Kind::SweepLateOver
        | Kind::RowUnreadableOver => schemas.subschema_for::<Data<InstallationCondition>>(),
        Kind::LooseningAnnounced
        | Kind::LooseningWithdrawn
        | Kind::LooseningEffective
        | Kind::OwnersChanged
        | Kind::AddressRefused
        | Kind::EmergencyRequested
        | Kind::ReviewClosed
        | Kind::VoteVoid
        | Kind::TokenCreated
        | Kind::PasskeyConfirmed
        | Kind::PasskeyRemoved
        | Kind::PersonJoined
        | Kind::PersonRenamed
        | Kind::PersonRemoved
        | Kind::TokenRevoked
        | Kind::TokenRoles
        | Kind::ConfigChanged
        | Kind::Acceptance => schemas.subschema_for::<Data<Authority>>(),
        Kind::AuditHead => schemas.subschema_for::<Data<AuditHead>>(),
        Kind::RevokedTokenUsed => schemas.subschema_for::<Data<RevokedTokenUsed>>(),
    }
}

fn schema() -> Value {
    let mut schemas = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let envelope = schemas.subschema_for::<Event<Value>>();
    let cut = schemas.subschema_for::<CutData>();
    let mut kinds = serde_json::Map::new();
    for kind in Kind::ALL {
        let data = data(*kind, &mut schemas);
        let event = json!({
            "allOf": [envelope],
            "properties": { "type": { "const": kind.event_type() }, "data": { "anyOf": [data, cut] } },
        });
        kinds.insert(kind.event_type(), event);
    }
    let each: Vec<_> = kinds.keys().map(|name| json!({ "$ref": format!("#/$defs/{name}") })).collect();
    let mut types = schemas.take_definitions(true);
    types.append(&mut kinds);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Events of Keywheel",
        "description": "The CloudEvents that Keywheel sends to webhooks. Members and types of event may be added; a receiver ignores unknown ones. A text longer than 2000 characters, or of a long event, is cut and ends with \"… (cut)\".",
        "oneOf": each,
        "$defs": types,
    })
}

#[test]
fn the_schema_of_the_events_is_true() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/events.schema.json");
    let made = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
    if std::env::var_os("KEYWHEEL_BLESS").is_some() {
        std::fs::write(&file, &made).unwrap();
    }
    let stored = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(stored == made, "docs/events.schema.json is not what is sent; KEYWHEEL_BLESS=1 writes it anew");
}
