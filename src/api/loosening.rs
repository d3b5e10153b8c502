//! Changes of what decides who must agree, which are announced and take effect later.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::ids::{GroupId, LooseningId};
use crate::domain::loosening::{Change, LooseningState};
use crate::domain::time::Timestamp;

/// A loosened rule that has not taken effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Loosening {
    /// Its id.
    pub id: LooseningId,
    /// A project's id, `token/NAME`, `person/ISSUER#SUBJECT` of an account, or `installation`.
    pub subject: String,
    /// The project; null where it concerns something else.
    #[schema(schema_with = super::schema::maybe_text)]
    pub group_id: Option<GroupId>,
    /// Whether it was announced to everybody who must hear of it.
    pub state: LooseningState,
    /// The changed fields.
    pub changes: Vec<Change>,
    /// Who requested it.
    pub requested_by: String,
    /// When.
    pub requested_at: Timestamp,
    /// Who must hear of it by mail: one of the owners, and each address of `mail.security`.
    pub to_tell: Vec<String>,
    /// When they were told; null before.
    pub announced_at: Option<Timestamp>,
    /// When it takes effect; null before it was announced.
    pub takes_effect_at: Option<Timestamp>,
}
