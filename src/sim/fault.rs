//! Scripted faults: the kind, the operation, and the count.
//!
//! A fault strikes a request that passed log-in and rate limits; `call` carries it out.

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::domain::text::distance;

/// What a fault can strike: the operations of Atlas, those of the key services, and any of them.
pub const OPERATIONS: [&str; 33] = [
    "any",
    "token",
    "get_groups",
    "get_group",
    "get_ear",
    "patch_ear",
    "get_endpoints",
    "get_clusters",
    "get_snapshots",
    "get_users",
    "get_teams",
    "get_team",
    "get_team_users",
    "get_org_users",
    "get_service_account",
    "get_alerts",
    "get_alert",
    "get_events",
    "get_event",
    "aws_describe",
    "aws_aliases",
    "aws_encrypt",
    "aws_decrypt",
    "entra_token",
    "vault_versions",
    "vault_get",
    "vault_encrypt",
    "vault_decrypt",
    "gcp_key",
    "gcp_versions",
    "gcp_version",
    "gcp_encrypt",
    "gcp_decrypt",
];

fn operation<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if OPERATIONS.contains(&text.as_str()) {
        return Ok(text);
    }
    let near = OPERATIONS.iter().min_by_key(|known| distance(&text, known)).unwrap_or(&"any");
    Err(de::Error::custom(format_args!(
        "operation: there is no {text:?}, did you mean {near:?}? Known are {}",
        OPERATIONS.join(", ")
    )))
}

/// One fault of the script. The first that matches a request and is not used up takes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// One of [`OPERATIONS`].
    #[serde(deserialize_with = "operation")]
    pub operation: String,
    /// Only for this project.
    #[serde(default)]
    pub group_id: Option<String>,
    /// Requests to let pass first.
    #[serde(default)]
    pub skip: u32,
    /// How often it strikes; `None` until it is removed.
    #[serde(default)]
    pub times: Option<u32>,
    /// The fault itself.
    pub kind: Kind,
}

/// The effect on a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// The connection is cut before anything is applied.
    DropRequest,
    /// It is applied, then the connection is cut without a reply.
    DropReply,
    /// It waits this many milliseconds before it is handled.
    Delay(u64),
    /// The connection is cut now, and it is applied this many milliseconds later.
    LateApply(u64),
    /// This answer instead; nothing is applied.
    Status {
        /// The HTTP status.
        status: u16,
        /// Atlas' code; without one the body is an HTML page.
        #[serde(default)]
        code: Option<String>,
        /// Seconds for `Retry-After`.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// It is applied, and this status is answered.
    AppliedStatus(u16),
    /// The reply stops in the middle of its body.
    Truncate,
    /// The reply is filled up with blanks to this many bytes.
    Huge(usize),
    /// The reply is a small gzip stream that unfolds to this many bytes.
    GzipBomb(usize),
    /// A person sets this key in the Atlas UI just before the request is handled.
    HumanEdit(String),
}

/// Finds the fault for a request and counts it.
pub(super) fn strike(faults: &mut [Fault], operation: &str, group: Option<&str>) -> Option<Kind> {
    for fault in faults {
        let here = fault.operation == operation || fault.operation == "any";
        if !here || (fault.group_id.is_some() && fault.group_id.as_deref() != group) || fault.times == Some(0)
        {
            continue;
        }
        if fault.skip > 0 {
            fault.skip -= 1;
            continue;
        }
        if let Some(times) = fault.times.as_mut() {
            *times -= 1;
        }
        return Some(fault.kind.clone());
    }
    None
}
