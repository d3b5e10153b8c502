//! Errors of the API: RFC 9457 problem documents with a stable `code`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::ids::RotationId;
use crate::domain::named::named;
use crate::domain::patch::Patch;
use crate::domain::rotation::state::State;
use crate::domain::time::Timestamp;

macro_rules! codes {
    ($($variant:ident = $code:literal $statuses:expr, $meaning:literal;)+) => {
        named! {
            /// The kind of a problem, as a stable word.
            Code, "problem code" { $(#[doc = $meaning] $variant = $code,)+ }
        }

        impl Code {
            /// The HTTP statuses that come with the code; the first one unless the writer chose another.
            #[must_use]
            pub const fn statuses(self) -> &'static [u16] {
                match self { $(Code::$variant => &$statuses,)+ }
            }

            /// The code in one line, for the document of the API.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Code::$variant => $meaning,)+ }
            }
        }
    };
}

// A request is malformed with 415 where its content type is not JSON.
codes! {
    NotFound = "not-found" [404], "there is no such page, hook or id";
    MethodNotAllowed = "method-not-allowed" [405], "the URL does not accept this method";
    Unauthenticated = "unauthenticated" [401], "no token, or an unknown one";
    Forbidden = "forbidden" [403], "the token lacks the role, for the operation or for `field`";
    TooManyFailures = "too-many-failures" [429], "too many unknown tokens, unverified deliveries or comments";
    Malformed = "malformed" [400, 415], "the request cannot be read";
    TooLarge = "too-large" [413], "the body is too large";
    TooSlow = "too-slow" [408], "the body did not arrive in time";
    Invalid = "invalid" [422], "`field` is not valid";
    GroupIdInvalid = "group-id-invalid" [422], "the group id is not 24 hexadecimal digits";
    ProjectNotFound = "project-not-found" [404], "the project is not tracked";
    ProjectExists = "project-exists" [409], "the project is tracked already";
    RotationNotFound = "rotation-not-found" [404], "there is no such rotation";
    ConditionNotFound = "condition-not-found" [404], "the condition does not hold";
    MailNotFound = "mail-not-found" [404], "there is no such message";
    KeyInvalid = "key-invalid" [422], "the new key breaks `rule`";
    KeyOtherPlace = "key-other-place" [422], "the new key lies in another region or vault than Atlas has configured";
    KeyUnchanged = "key-unchanged" [422], "Atlas has this key already";
    NoNewestKey = "no-newest-key" [409], "no lookup names the newest key of the project, or that is older than the one in force";
    KeyService = "key-service" [502], "the key service did not answer, or refused";
    Versionless = "versionless" [409], "the current Azure key names no version, and the policy does not allow that";
    PreflightFailed = "preflight-failed" [409], "a pre-flight check failed";
    RotationOpen = "rotation-open" [409], "the rotation `rotationId` is open";
    IllegalTransition = "illegal-transition" [409], "the rotation's `state` does not allow this";
    SelfApproval = "self-approval" [403], "the proposer may not approve";
    VoteNotCounted = "vote-not-counted" [403], "the vote would not count; from `countsFrom` on it would, where that is known";
    NobodyToTell = "nobody-to-tell" [409], "nobody can be told that `field` loosens; it can be done on the machine only";
    LooseningNotFound = "loosening-not-found" [404], "there is no such change of rules";
    ReviewOpen = "review-open" [409], "the review of an earlier emergency rotation of the same person, `rotationId`, is open";
    ReviewNotClosed = "review-not-closed" [409], "the review cannot be closed now, or not by the caller";
    LooseningEnded = "loosening-ended" [409], "the change of rules has taken effect or was withdrawn";
    NothingToWithdraw = "nothing-to-withdraw" [409], "the caller has not approved";
    ProposalChanged = "proposal-changed" [409], "the proposal is not the one that was read";
    NoEvidence = "no-evidence" [409], "no evidence bundle can be signed or written now";
    Conflict = "conflict" [409], "another writer changed this at the same moment; read it again and retry";
    Tampered = "tampered" [409], "a row that this rests on was changed outside of Keywheel";
    AtlasAuth = "atlas-auth" [502], "Atlas does not accept the credential";
    AtlasNotFound = "atlas-not-found" [502], "Atlas has no such project";
    AtlasTooOld = "atlas-too-old" [502], "Atlas no longer serves the API version that this Keywheel asks for";
    AtlasBusy = "atlas-busy" [502], "Atlas cannot answer at the moment; retry later";
    AtlasUnreachable = "atlas-unreachable" [502], "Atlas did not answer";
    AtlasRefused = "atlas-refused" [502], "Atlas refused the request";
    Database = "database" [503], "the database cannot be read or written";
    Sweep = "sweep" [503], "no sweep has finished lately";
    Unavailable = "unavailable" [503], "the event cannot be stored now";
    Internal = "internal" [500], "the server failed; its log has the reason";
}

/// A problem document by RFC 9457. `code` is stable; a problem that Atlas caused carries Atlas' own words.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Problem {
    /// `urn:keywheel:problem:` and the code.
    #[schema(required)]
    pub r#type: String,
    /// The HTTP status in words.
    #[schema(required)]
    pub title: String,
    /// The HTTP status.
    #[schema(required)]
    pub status: u16,
    /// The kind of the problem. A reader takes it as a text: newer servers may have other codes.
    #[schema(required, value_type = Code)]
    pub code: String,
    /// The problem and its remedy, for people.
    #[schema(required)]
    pub detail: String,
    /// The field that is not valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub field: Option<String>,
    /// The rule that the new key breaks, or that the field is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub rule: Option<String>,
    /// The role that the change of the field needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub role: Option<String>,
    /// From when on the vote would count.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub counts_from: Option<Timestamp>,
    /// The open rotation that prevents the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub rotation_id: Option<RotationId>,
    /// The state of the rotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub state: Option<State>,
    /// Atlas' own code; null when Atlas gave none.
    #[serde(skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>, required = false)]
    pub atlas_error_code: Patch<String>,
    /// Atlas' own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub atlas_detail: Option<String>,
}
