//! Commands of operators: projects, votes, and decisions where a rotation stopped.
//!
//! Every command is checked against a fresh read of its subject and written by compare-and-swap. When
//! another writer was first, the command is decided again on the new row. The API checks roles.

mod actor;
mod comments;
mod conditions;
mod decisions;
mod due;
pub(in crate::engine) mod loosening;
mod outbox;
mod people;
mod projects;
mod refresh;
mod silence;
mod ties;
mod tokens;
pub(in crate::engine) mod votes;
mod webhooks;

pub use actor::Actor;
pub use decisions::OperatorVerb;
pub use people::Removed;
pub(in crate::engine) use projects::edited;
pub use projects::{Added, NewProject, ProjectEdit};
pub use tokens::{EditedToken, TokenEdit};
pub use votes::Voter;

use super::looks::next_look;
use super::{Engine, conditions as watch};
use crate::atlas::AtlasApi;
use crate::domain::condition::ConditionKind;
use crate::domain::ids::{BadGroupId, GroupId, LooseningId, OutboxId, RotationId};
use crate::domain::key::{KeyError, KeyRef};
use crate::domain::project::Project;
use crate::domain::role::Role;
use crate::domain::rotation::outcome::{Failure, Observation};
use crate::domain::rotation::state::State;
use crate::domain::time::Timestamp;
use crate::domain::vote::Void;
use crate::kms::KmsError;
use crate::store::{LinkUse, RotationRow, StoreError};

/// How often a command is decided when another writer was first.
const TRIES: usize = 8;

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No such project.
    #[error("project {0} is not tracked; `keywheel project list` shows those that are")]
    NoProject(GroupId),
    /// No such rotation.
    #[error("there is no rotation {0}")]
    NoRotation(RotationId),
    /// No such message in the outbox.
    #[error("there is no message {0}")]
    NoMessage(OutboxId),
    /// No such webhook target.
    #[error("there is no webhook target {name:?}; {near}")]
    NoWebhook {
        /// The name that was given.
        name: String,
        /// The names that are known.
        near: String,
    },
    /// The condition does not hold, or is not told.
    #[error("{kind} does not hold, or is not told; {} lists what holds", listed(group.as_ref()))]
    NoCondition {
        /// The project; `None` for the installation.
        group: Option<GroupId>,
        /// The condition.
        kind: ConditionKind,
    },
    /// Not a group id.
    #[error(transparent)]
    BadGroupId(#[from] BadGroupId),
    /// The project is tracked already.
    #[error("project {0} is tracked already")]
    ProjectExists(GroupId),
    /// A field of the request is wrong.
    #[error("{field}: {rule}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// The rule of the field.
        rule: String,
    },
    /// A rule of the policy is wrong.
    #[error("policy.{rule_name}: {rule}")]
    BadRule {
        /// The rule's name in the configuration.
        rule_name: &'static str,
        /// What it takes.
        rule: String,
    },
    /// The new key cannot be read.
    #[error("newKey: {0}")]
    KeyInvalid(KeyError),
    /// The new key lies in another region or vault.
    #[error("newKey: {0}")]
    KeyOtherPlace(KeyError),
    /// The new key is the current one.
    #[error("newKey: Atlas holds {0} already; there is nothing to rotate")]
    KeyUnchanged(Box<KeyRef>),
    /// Atlas' key is an Azure identifier without a version.
    #[error(
        "Atlas holds {0}, which names no version, so the version in force is unknown; set allowVersionless in this project's policy to continue"
    )]
    Versionless(Box<KeyRef>),
    /// A pre-flight check failed.
    #[error("{0}")]
    Preflight(String),
    /// Another rotation is open.
    #[error("rotation {id} of this project is still open ({state}); finish or cancel it first")]
    RotationOpen {
        /// Its id.
        id: RotationId,
        /// Its state.
        state: State,
    },
    /// The project cannot be removed now.
    #[error("project {group} has the open rotation {id}; finish or cancel it before removing the project")]
    RemoveWhileOpen {
        /// The project.
        group: GroupId,
        /// Its open rotation.
        id: RotationId,
    },
    /// The command means nothing in this state.
    #[error("{verb} is not possible while the rotation is {}{then}", .state.as_str().replace('_', " "))]
    Illegal {
        /// The command.
        verb: &'static str,
        /// The state.
        state: State,
        /// Since when, and the way out, where the rotation has ended.
        then: String,
    },
    /// The vote would not count.
    #[error("{0}")]
    VoteVoid(Box<Void>),
    /// The caller may not change this field in this way.
    #[error("{field}: {rule}; what loosens needs the role {role}")]
    NotAllowed {
        /// The field.
        field: String,
        /// What is allowed.
        rule: String,
        /// The role that the change needs.
        role: Role,
    },
    /// Nobody could be told of a loosened rule.
    #[error(
        "{field}: nobody can be told that this loosens (no owner and no mail.security, or no mail server), so it can be done on the machine only, over the local socket"
    )]
    NobodyToTell {
        /// The field.
        field: String,
    },
    /// No such token.
    #[error("no token named {0:?} is in force; `keywheel token list` shows them")]
    NoToken(String),
    /// Nobody is known by this address or name.
    #[error("nobody is known as {name:?}; {near}. `keywheel person list` shows who is")]
    NobodyKnown {
        /// What was given.
        name: String,
        /// Who is known by a similar one.
        near: String,
    },
    /// No such passkey.
    #[error("there is no passkey {0}; `keywheel passkey list` shows them")]
    NoPasskey(String),
    /// The policy names others, or nobody, for emergencies.
    #[error("emergency: {0}")]
    NoEmergency(String),
    /// The review of an earlier emergency rotation of the same person is open.
    #[error(
        "emergency: the review of your emergency rotation {0} is open; another person closes it first: `keywheel review close {0} --finding TEXT`"
    )]
    ReviewOpen(RotationId),
    /// No such review.
    #[error("rotation {0} has no review; `keywheel review list --all` shows those that there are")]
    NoReview(RotationId),
    /// The review cannot be closed now, or not by this person.
    #[error("{0}")]
    ReviewNotClosed(String),
    /// No such change of rules.
    #[error("there is no change {0} of rules; `keywheel loosening list` shows those that are to come")]
    NoLoosening(LooseningId),
    /// The change has taken effect or was withdrawn.
    #[error("the change {id} has taken effect or was withdrawn already")]
    LooseningEnded {
        /// Its id.
        id: LooseningId,
    },
    /// This operator has not approved.
    #[error("{0} has not approved this rotation; there is nothing to withdraw")]
    NothingToWithdraw(String),
    /// The link was used before.
    #[error("this link was used at {}: {}; a link decides once", .0.at, .0.decision)]
    LinkUsed(LinkUse),
    /// Too many comments of one identity.
    #[error("you have commented ten times within a minute; nothing was recorded, wait one")]
    TooManyComments,
    /// The link's time is over.
    #[error("this link ended at {0}")]
    LinkEnded(Timestamp),
    /// The hash is not that of this proposal.
    #[error("proposalHash is not that of this rotation; read it again before deciding")]
    ProposalChanged,
    /// No lookup names the newest key; the text has the reason.
    #[error("the newest key of this project is not known: {0}")]
    NoNewestKey(String),
    /// No bundle can be made now; the text has the reason and the way out.
    #[error("no evidence was exported: {0}")]
    NoEvidence(String),
    /// The key service did not answer, or refused.
    #[error("the newest key could not be looked up: {0}")]
    KeyService(KmsError),
    /// Atlas refused.
    #[error("Atlas: {}", .0.detail)]
    Atlas(Failure),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn listed(group: Option<&GroupId>) -> String {
    group.map_or("`keywheel status`".to_owned(), |group| format!("`keywheel project show {group}`"))
}

impl Engine {
    pub(in crate::engine) async fn observe(
        &self,
        credential: &str,
        group: &GroupId,
    ) -> Result<Observation, CommandError> {
        let timeout = self.settings.request_timeout.get();
        self.atlas.observe(credential, group, timeout).await.map_err(CommandError::Atlas)
    }

    /// Reads the key of a tracked project for a command. What it finds counts as a reading of the watch, and where Atlas
    /// answers, the pause that it asked for before is over.
    pub(in crate::engine) async fn read(&self, project: &Project) -> Result<Observation, CommandError> {
        let group = &project.group_id;
        let seen = self.observe(&project.credential, group).await?;
        watch::note_look(self, group, Ok(&seen)).await;
        let next = next_look(group, self.clock.now(), self.settings.drift_every.get());
        if project.next_check_at > next && !self.epoch.in_doubt() {
            self.store.look_soon(std::slice::from_ref(group), next).await?;
        }
        Ok(seen)
    }

    /// Reads one rotation.
    ///
    /// # Errors
    /// Fails when it does not exist, or when the database cannot be read.
    pub async fn rotation(&self, id: RotationId) -> Result<RotationRow, CommandError> {
        self.store.rotation(id).await?.ok_or(CommandError::NoRotation(id))
    }
}

/// The longest reason or comment, in characters.
const MOST_WORDS: usize = 2000;

/// Checks a text that is stored unchanged in the journal, which must stay readable.
pub(in crate::engine) fn check_words(field: &'static str, words: Option<&str>) -> Result<(), CommandError> {
    let words = words.unwrap_or_default();
    let long = words.chars().count() > MOST_WORDS;
    if long || words.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        let rule = format!("takes at most {MOST_WORDS} characters of text, without control characters");
        return Err(CommandError::Invalid { field, rule });
    }
    Ok(())
}
