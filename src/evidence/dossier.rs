//! The dossier of a rotation: everything about it in one file.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tables::{Approval, Mail, Rotation};

/// The format of a dossier.
pub(super) const FORMAT: &str = "keywheel-dossier/1";

/// Everything about a rotation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dossier {
    /// The format.
    pub format: String,
    /// Its row of rotations.csv.
    pub rotation: Rotation,
    /// Its votes.
    pub votes: Vec<Vote>,
    /// The policy that it runs under, as JSON text.
    pub policy: String,
    /// The last checklist before the new key was sent.
    pub checks: Value,
    /// Its journal. Observations that changed nothing are counted in one entry, and old ones are removed.
    pub journal: Vec<JournalLine>,
    /// The rows of the audit log about it.
    pub audit_rows: Vec<i64>,
    /// Changes by others, just before, that it has undone.
    pub overwrote: Vec<Overwritten>,
    /// Its rows of mails.csv.
    pub mails: Vec<Mail>,
    /// The review of an emergency.
    pub review: Option<OpenReview>,
}

impl Dossier {
    /// A dossier with a rotation and nothing else.
    #[must_use]
    pub fn new(rotation: Rotation) -> Self {
        Self {
            format: FORMAT.to_owned(),
            rotation,
            votes: Vec::new(),
            policy: String::new(),
            checks: Value::Null,
            journal: Vec::new(),
            audit_rows: Vec::new(),
            overwrote: Vec::new(),
            mails: Vec::new(),
            review: None,
        }
    }

    /// Its rows of approvals.csv.
    pub fn approvals(&self) -> impl Iterator<Item = Approval> {
        self.votes.iter().map(|vote| Approval {
            rotation_id: self.rotation.rotation_id.clone(),
            voter: vote.voter.clone(),
            at: vote.at.clone(),
            method: vote.method.clone(),
            comment: vote.comment.clone().unwrap_or_default(),
            passkey: vote.signed().map(|it| it.passkey).unwrap_or_default(),
            nonce: vote.nonce.clone().unwrap_or_default(),
            proposal_hash: self.rotation.proposal_hash.clone(),
        })
    }
}

/// A vote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Vote {
    /// Who approved.
    pub voter: String,
    /// When.
    pub at: String,
    /// How the vote was given.
    pub method: String,
    /// What the voter wrote.
    pub comment: Option<String>,
    /// The random part of what a passkey signed.
    pub nonce: Option<String>,
    /// What the passkey signed, as JSON text, byte for byte as it was sealed.
    pub evidence: Option<String>,
}

impl Vote {
    /// What the passkey signed.
    #[must_use]
    pub fn signed(&self) -> Option<Signed> {
        serde_json::from_str(self.evidence.as_deref()?).ok()
    }
}

/// What a passkey signed. All bytes are base64url without padding.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signed {
    /// The random part of the challenge.
    pub nonce: String,
    /// The id of the passkey.
    pub passkey: String,
    /// The kind of its key.
    pub algorithm: String,
    /// Its key (COSE).
    pub public_key: String,
    /// The host of the pages.
    pub site: String,
    /// Their origin.
    pub origin: String,
    /// The hash of the proposal.
    pub proposal_hash: String,
    /// The browser's part.
    pub client_data: String,
    /// The authenticator's part.
    pub authenticator_data: String,
    /// The signature.
    pub signature: String,
}

/// An entry of a journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JournalLine {
    /// Counts from 1 in each rotation.
    pub seq: i64,
    /// When it first happened.
    pub at: String,
    /// The person or component that caused it.
    pub actor: String,
    /// The kind of event.
    pub kind: String,
    /// The state before.
    pub from: Option<String>,
    /// The state after.
    pub to: String,
    /// The details.
    pub detail: Value,
    /// How often in a row it happened.
    pub count: i64,
    /// When it last happened.
    pub last_at: String,
}

/// A change of the key by somebody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Overwritten {
    /// The id of Atlas' event.
    pub atlas_event_id: String,
    /// When, by Atlas' clock.
    pub at: String,
    /// Who, as Atlas names it.
    pub by: String,
}

/// The review of an emergency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OpenReview {
    /// Why it was an emergency.
    pub reason: String,
    /// Who closed it; `None` while it is open.
    pub closed_by: Option<String>,
    /// When.
    pub closed_at: Option<String>,
    /// What they found.
    pub finding: Option<String>,
}
