//! Requests and answers of the HTTP API as types: the web layer fills them and the command line reads them.
//!
//! The document of the API is generated from these structs, so their comments are its descriptions. Members
//! are named in camelCase. Requests refuse unknown members. Answers carry every member, null where there is
//! no value. A reader skips unknown members, so an older command line reads a newer server. A newer command
//! line that meets an older server gets an error that names the missing member. Members that may be null are
//! the exception: a missing one reads as null, because the older server has no value for it.

pub mod evidence;
pub mod loosening;
pub mod passkey;
pub mod person;
pub mod plan;
pub mod problem;
pub mod project;
pub mod record;
pub mod review;
pub mod rotation;
mod schema;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{IntoParams, PartialSchema, ToSchema};

/// One page of a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// The cursor of the next page; null on the last one.
    pub next: Option<String>,
}

/// A row of a list, or the place of one that cannot be read.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Listed<T> {
    /// The row.
    Row(T),
    /// A row that cannot be read.
    Corrupt(CorruptRow),
}

/// A row of a list that the database holds and nobody can read; `keywheel doctor` says more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CorruptRow {
    /// The row's id, as far as it can be read.
    pub id: String,
    /// Always true.
    pub corrupt: bool,
}

impl CorruptRow {
    /// The row `id`.
    #[must_use]
    pub fn new(id: String) -> Self {
        Self { id, corrupt: true }
    }
}

/// Named after its rows, which it refers to; a derived schema would repeat them.
impl<T: ToSchema> PartialSchema for Page<T> {
    fn schema() -> RefOr<Schema> {
        let next = ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
            .description(Some("The cursor of the next page; null on the last one."));
        ObjectBuilder::new()
            .description(Some("One page of a list."))
            .property(
                "items",
                ArrayBuilder::new().items(
                    OneOfBuilder::new()
                        .item(Ref::from_schema_name(T::name()))
                        .item(Ref::from_schema_name(CorruptRow::name())),
                ),
            )
            .property("next", next)
            .into()
    }
}

impl<T: ToSchema> ToSchema for Page<T> {
    fn name() -> Cow<'static, str> {
        format!("{}Page", T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        schemas.push((CorruptRow::name().into_owned(), CorruptRow::schema()));
        T::schemas(schemas);
    }
}

/// Pages by their rows: the document's macros take a type without parameters.
pub type AuditPage = Page<record::AuditEntry>;
/// A page of loosened rules.
pub type LooseningPage = Page<loosening::Loosening>;
/// A page of reviews.
pub type ReviewPage = Page<review::Review>;
/// A page of passkeys.
pub type PasskeyPage = Page<passkey::Passkey>;
/// Everybody who is known.
pub type PersonPage = Page<person::Person>;
/// A page of hooks.
pub type HookPage = Page<record::Hook>;
/// Targets of webhooks.
pub type WebhookTargetPage = Page<record::WebhookTarget>;
/// A page of the journal.
pub type JournalPage = Page<rotation::JournalEntry>;
/// A page of the keys of a project.
pub type KeyPage = Page<project::Key>;
/// A page of the outbox.
pub type MailPage = Page<record::Mail>;
/// The conditions of the installation.
pub type ConditionPage = Page<project::Condition>;
/// A page of projects.
pub type ProjectPage = Page<project::Project>;
/// A page of rotations.
pub type RotationPage = Page<rotation::Rotation>;

/// The parameters of a list whose rows are numbered.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct NumberedPage {
    /// Rows of a page: 100 unless given, 500 at most.
    #[param(minimum = 0)]
    pub limit: Option<usize>,
    /// `next` of the page before.
    #[param(pattern = "^[0-9]{1,10}$")]
    pub cursor: Option<String>,
}

/// The parameters of a list whose rows have ids.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct IdentifiedPage {
    /// Rows of a page: 100 unless given, 500 at most.
    #[param(minimum = 0)]
    pub limit: Option<usize>,
    /// `next` of the page before.
    #[param(pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")]
    pub cursor: Option<String>,
}
