//! Schemas of the domain's own texts for the document of the API.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{
    Array, ArrayBuilder, KnownFormat, Object, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type,
};
use utoipa::{PartialSchema, ToSchema};

use super::plan::ConflictKind;
use super::problem::Code;
use crate::domain::approver::{Approver, Strength};
use crate::domain::condition::ConditionKind;
use crate::domain::event::ProofState;
use crate::domain::ids::{GroupId, LooseningId, OutboxId, RotationId};
use crate::domain::key::Provider;
use crate::domain::loosening::{Course, LooseningState};
use crate::domain::notice::DriftKind;
use crate::domain::preflight::{CheckName, Verdict};
use crate::domain::project::{SinceSource, Status};
use crate::domain::role::Role;
use crate::domain::rotation::state::{Cause, Deployed, Hold, State};
use crate::domain::time::{DayOffset, Span, Timestamp};

macro_rules! words {
    ($($name:ty: $description:literal;)+) => { $(
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let words = <$name>::ALL.iter().map(|word| word.as_str());
                text($description).enum_values(Some(words)).into()
            }
        }

        impl ToSchema for $name {}
    )+ };
}

words! {
    State: "The state of a rotation. It is final from `completed` on.";
    Cause: "The reason of a rotation's state.";
    Hold: "Why an open rotation waits, for a reason that passes. The rotation goes on by itself.";
    Deployed: "How the roll-out to the clusters ended.";
    Status: "A project's condition, the most urgent one where several apply.";
    ConditionKind: "What is wrong with a project for as long as it is.";
    SinceSource: "Where `keySince` comes from.";
    Provider: "The cloud whose key service holds the key.";
    CheckName: "A check of the pre-flight checklist.";
    Strength: "How a vote was given, the weakest first.";
    Verdict: "The result of a check: `fail` stops the PATCH, `warn` is for the approvers.";
    DriftKind: "How a key changed outside of Keywheel: `reverted` is to a key that had served before.";
    ProofState: "The search for Atlas' own event about a rotation.";
    ConflictKind: "Why a due date cannot be kept.";
    Role: "A right of a token or a person.";
    LooseningState: "How far a loosened rule is: `announcing` while somebody has to be told.";
    Course: "The direction of a change: `looser` takes an admin and takes effect later.";
    Code: "The kind of a problem, as a stable word.";
}

macro_rules! texts {
    ($($name:ty: $schema:expr;)+) => { $(
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                $schema.into()
            }
        }

        impl ToSchema for $name {}
    )+ };
}

texts! {
    GroupId: text("Atlas' id of a project.").pattern(Some("^[0-9a-f]{24}$"));
    RotationId: text("The id of a rotation.").format(Some(SchemaFormat::Custom("uuid".to_owned())));
    LooseningId: text("The id of a change of rules.").format(Some(SchemaFormat::Custom("uuid".to_owned())));
    OutboxId: text("The id of a message.").format(Some(SchemaFormat::Custom("uuid".to_owned())));
    Timestamp: text("An instant in UTC, with microseconds.")
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    Span: span("A span of time such as 90d, 12h or 500ms.");
    Approver: text("Whom an entry of `approvers` names; one vote of them counts where `one:` stands before it.")
        .pattern(Some("^(one:)?(owners|mail:.+@.+|group:.+)$"));
    DayOffset: span("Whole days before or after the due date, such as 14d.");
}

fn text(description: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description))
}

/// A mail address.
fn mail() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::Email)))
}

fn list(items: impl Into<RefOr<Schema>>) -> ArrayBuilder {
    ArrayBuilder::new().items(items.into())
}

pub(super) fn mails() -> Array {
    list(mail()).build()
}

pub(super) fn maybe_mails() -> Array {
    list(mail()).schema_type(SchemaType::from_iter([Type::Array, Type::Null])).build()
}

pub(super) fn tags() -> Array {
    list(ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[^=]+=.*$"))).build()
}

pub(super) fn maybe_text() -> Object {
    ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Null])).build()
}

fn one_of<const N: usize>(words: [&str; N]) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).build()
}

pub(super) fn channel() -> Object {
    one_of(["mail", "webhook"])
}

pub(super) fn message_state() -> Object {
    one_of(["waiting", "sent", "failed"])
}

/// True and never false.
pub(super) fn always() -> Object {
    ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([true])).build()
}

fn span(description: &str) -> Object {
    text(description).pattern(Some("^([0-9]{1,6}(ms|s|m|h|d|w))+$")).examples(["90d"]).build()
}
