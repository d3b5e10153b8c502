//! The outcomes that the machine reads: observations, failures, replies and commands.
//!
//! A missing reply is an outcome like any other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::key::{KeyRef, Place, Provider};
use crate::domain::named::named;
use crate::domain::preflight::Check;
use crate::domain::time::{Span, Timestamp};

/// One GET of the Atlas encryption configuration, reduced to the parts that rotations need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// When the reply arrived, by our clock.
    pub at: Timestamp,
    /// The enabled provider; `None` when customer-managed keys are disabled.
    pub provider: Option<Provider>,
    /// The key that provider's block holds.
    pub key: Option<KeyRef>,
    /// Atlas' `valid`; `None` when it is absent, which does not count as true.
    pub valid: Option<bool>,
    /// Whether the block sets private networking, with which `valid` may be ahead of the nodes' reports.
    pub private_networking: bool,
    /// Region or vault of the block.
    pub place: Place,
    /// SHA-256 of the provider block without key and `valid`: shows whether the block changed.
    pub block_hash: String,
    /// Our clock minus Atlas' `Date`, in milliseconds, when the header was there.
    pub skew_ms: Option<i64>,
    /// The key of another enabled block that Atlas calls invalid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid_beside: Option<KeyRef>,
}

/// How a failed call is to be treated. Sources: the published error table and the OAuth error shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Passes by itself, and the request was not carried out (429, 405 maintenance).
    Transient,
    /// The key itself is at fault.
    BadKey,
    /// Atlas refuses the change for a reason that is neither key nor configuration.
    Refused,
    /// Something in the project's configuration or the request is at fault.
    Config,
    /// The credential is not accepted.
    Auth,
    /// The project is gone (404, 410).
    Gone,
    /// Atlas no longer serves the version of its API that this program asks for; nothing was carried out.
    TooOld,
    /// It is unknown whether Atlas carried the request out.
    Unknown,
}

/// A failed call, with Atlas' error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// How to treat it.
    pub class: Class,
    /// The HTTP status, when there was one.
    pub status: Option<u16>,
    /// Atlas' `errorCode`, verbatim.
    pub code: Option<String>,
    /// Atlas' `detail`, verbatim; or the failure of the call. Never holds a secret.
    pub detail: String,
    /// The wait in `Retry-After`.
    pub retry_after: Option<Span>,
}

impl Failure {
    /// Whether the credential itself was refused: not a project, a role or an address.
    #[must_use]
    pub fn is_of_the_credential(&self) -> bool {
        self.class == Class::Auth
            && self.status != Some(403)
            && self.code.as_deref() != Some("USER_CANNOT_ACCESS_GROUP")
    }

    /// Whether Atlas requested a pause before the next call.
    #[must_use]
    pub fn asks_to_wait(&self) -> bool {
        self.retry_after.is_some() || self.status == Some(429)
    }
}

/// Atlas' code and detail.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.code {
            Some(code) => write!(f, "{code}: {}", self.detail),
            None => f.write_str(&self.detail),
        }
    }
}

/// The end of a PATCH, as far as its sender can tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PatchReply {
    /// 2xx.
    Accepted,
    /// Anything that leaves open whether Atlas applied it: no reply, 5xx, 409, an unreadable reply.
    Unknown(Failure),
    /// Atlas refused it for a reason that will not pass; it was certainly not applied.
    Refused(Failure),
    /// Atlas did not process it (429, 405): nothing was applied, try again.
    NotTaken(Failure),
    /// The credential was not accepted, after one refresh.
    Auth(Failure),
    /// The project is gone.
    Gone(Failure),
}

named! {
    /// The endpoints of Atlas that share a rate limit. A refusal for one set does not hold for another.
    EndpointSet, "endpoint set" {
        /// The encryption configuration: observations and PATCHes.
        Encryption = "encryption",
        /// The private endpoints. Atlas documents one bucket for these and the configuration; they are kept
        /// apart because a refusal of this list must not keep the key from being read.
        PrivateEndpoints = "private_endpoints",
        /// A project's clusters.
        Clusters = "clusters",
        /// A project's alerts.
        Alerts = "alerts",
        /// A project's events.
        Events = "events",
        /// The projects themselves.
        Groups = "groups",
        /// The users of a project, a team or an organization.
        Users = "users",
        /// The teams of a project or an organization.
        Teams = "teams",
    }
}

/// One CMK cluster of the project.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its name, as Atlas has it.
    pub name: String,
    /// Atlas' `stateName`, verbatim: IDLE, CREATING, UPDATING, DELETING, REPAIRING or a newer one.
    pub state: String,
    /// Whether it is paused.
    pub paused: bool,
    /// Its tier, such as `M30`; `None` where Atlas names none, or several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// The regions of its members, such as `EU_CENTRAL_1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
}

impl Cluster {
    /// `main (M30, EU_CENTRAL_1, paused)`.
    #[must_use]
    pub fn label(&self) -> String {
        let paused = self.paused.then_some("paused");
        let known: Vec<_> = self.tier.iter().chain(&self.regions).map(String::as_str).chain(paused).collect();
        if known.is_empty() { self.name.clone() } else { format!("{} ({})", self.name, known.join(", ")) }
    }
}

/// A successful observation, with the extras that were requested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// The encryption configuration.
    pub seen: Observation,
    /// Whether `ENCRYPTION_AT_REST_KMS_NETWORK_ACCESS_DENIED` is open; `None` when not requested or not
    /// answered.
    pub network_denied: Option<bool>,
    /// The clusters that use customer-managed keys of this provider; `None` when not requested or not
    /// answered.
    pub clusters: Option<Vec<Cluster>>,
    /// The pre-flight checklist; `None` when not requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<Vec<Check>>,
    /// The requests beside the configuration that failed, with Atlas' errors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unanswered: BTreeMap<EndpointSet, Failure>,
}

/// The data that an observation must include beside the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extras {
    /// The project's open alerts.
    pub alerts: bool,
    /// The project's clusters.
    pub clusters: bool,
    /// The pre-flight checklist.
    pub preflight: bool,
}

/// A command of a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// An approval was recorded; this many stand now.
    Approve {
        /// Distinct approvers whose approval stands.
        given: u32,
    },
    /// An approver withdrew an approval; this many stand now.
    Withdraw {
        /// Distinct approvers whose approval stands.
        given: u32,
    },
    /// An approver rejected the rotation.
    Reject,
    /// Cancel the rotation.
    Cancel,
    /// Go on from `needs_operator`.
    Resume,
    /// Put the old key back.
    Rollback,
    /// Accept the new key without verification.
    Accept,
    /// End the rotation and leave the key as it is.
    Close,
}

/// Everything that can happen to a rotation.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Atlas was observed.
    Looked(Look),
    /// Atlas could not be observed.
    Blind(Failure),
    /// A PATCH ended.
    Replied(PatchReply),
    /// A person gave a command.
    Said(Command),
    /// The step was refused: a row that it rests on is not what Keywheel wrote there.
    Tampered {
        /// The row, as the audit log names it.
        subject: String,
        /// What does not fit.
        why: String,
    },
}

impl Outcome {
    /// The pre-flight checklist that an observation brought.
    #[must_use]
    pub fn checks(&self) -> Option<&[Check]> {
        match self {
            Outcome::Looked(look) => look.checks.as_deref(),
            _ => None,
        }
    }
}
