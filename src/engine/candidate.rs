//! Whether a project has a newer key to move to, and its proposal.
//!
//! The project is observed again. Where it names a lookup, the newest usable key is looked up; it is
//! proposed only when it differs from Atlas' key and did not serve before. Without a lookup the key that
//! an event names is proposed. A repeated event, an open rotation to the same key, and an ended rotation
//! to it lead to no second proposal. The trigger, an event or the poll, decides nothing here. `propose`
//! decides whether approvals are needed.

use super::command::CommandError;
use super::propose::{self, NewProposal, Proposed, Proposer};
use super::{Engine, sweep};
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::key::{KeyRef, Provider};
use crate::domain::project::Project;
use crate::domain::rotation::outcome::{Class, Observation};
use crate::domain::rotation::state::State;
use crate::domain::time::Timestamp;
use crate::kms::{Found, KmsError, Watched};
use crate::store::{KeySpan, RotationRow, StoreError};

/// Recent rotations of a project that are searched for an earlier one to the same key.
const HISTORY: usize = 100;
/// How often a project is read when another writer changes it meanwhile.
const RACES: usize = 4;

/// Result of the search for a newer key.
#[derive(Debug)]
pub(super) enum Finding {
    /// A result that holds until the next event.
    Settled(Settled),
    /// No result; the search must be repeated.
    Deferred(Deferred),
}

/// A result that holds until the next event. Its text is for people; nothing is decided from it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Settled {
    /// A rotation to the key was created.
    #[error("proposed as rotation {0}")]
    Proposed(RotationId),
    /// The rotation to the key was open before.
    #[error("proposed already: rotation {0}")]
    ProposedBefore(RotationId),
    /// The proposal was a dry run.
    #[error("checked only")]
    Checked,
    /// The project was removed.
    #[error("the project is not tracked any more")]
    Untracked,
    /// The project has no customer-managed key.
    #[error("Atlas does not encrypt this project with a customer-managed key")]
    NotEncrypted,
    /// Atlas holds the key.
    #[error("Atlas holds {0} already")]
    Held(Box<KeyRef>),
    /// AWS rotated inside the key, and nothing else was reported.
    #[error("nothing to do in Atlas: AWS replaced the material inside the same key")]
    InPlace,
    /// The key was in force before.
    #[error("not proposed: {0} served before; only an operator may propose it again")]
    ServedBefore(Box<KeyRef>),
    /// The same rotation ended before, by an operator or by the machine.
    #[error(
        "not proposed: rotation {id} to the same key ended {state}; only an operator may propose it again"
    )]
    EndedBefore {
        /// The rotation.
        id: RotationId,
        /// Its last state.
        state: State,
    },
    /// The newest usable version is older than the key in force.
    #[error("not proposed: the newest usable version, {0}, is older than the one in force")]
    Older(Box<KeyRef>),
    /// Neither an event nor a key service names a key.
    #[error("nothing to propose: no new key is named, and {0}")]
    NoKey(Unasked),
    /// The proposal breaks a rule that only an operator can change.
    #[error("not proposed: {0}")]
    Refused(Box<CommandError>),
}

impl Settled {
    /// Whether a rotation to the key is open now.
    pub(super) const fn is_proposed(&self) -> bool {
        matches!(self, Settled::Proposed(_) | Settled::ProposedBefore(_))
    }
}

/// Why the search must be repeated.
#[derive(Debug, thiserror::Error)]
pub(super) enum Deferred {
    /// Atlas did not answer, or refused the credential.
    #[error("Atlas could not be read: {0}")]
    Atlas(String),
    /// The key service did not answer.
    #[error("the newest key could not be looked up: {0}")]
    KeyService(KmsError),
    /// A pre-flight check failed; it may pass later.
    #[error("not proposed: {0}")]
    Preflight(Box<CommandError>),
    /// Another rotation of the project is open; its decision may take days.
    #[error("not proposed yet: {0}")]
    RotationOpen(Box<CommandError>),
    /// The database could not be read or written.
    #[error("the database refused")]
    Store,
}

impl From<Settled> for Finding {
    fn from(settled: Settled) -> Self {
        Self::Settled(settled)
    }
}

impl From<Deferred> for Finding {
    fn from(deferred: Deferred) -> Self {
        Self::Deferred(deferred)
    }
}

/// A request to search a newer key for one project.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// The trigger of the proposal: `hook:NAME` or `poll`.
    pub(super) trigger: String,
    /// The key that the event names as new.
    pub(super) named: Option<KeyRef>,
    /// Whether the event requests exactly that key. Other events only report a change of a key.
    pub(super) by_request: bool,
    /// The proposal's reason.
    pub(super) words: String,
}

/// A key that may be proposed.
struct Candidate {
    key: KeyRef,
    /// Whether the key service confirms that it is newer and usable.
    confirmed: bool,
}

/// Result of the lookup of the newest key.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum Newest {
    /// No lookup was made, or it names no key.
    Unknown(Unasked),
    Failed(KmsError),
    Is(Found),
}

/// Why no key service names the newest key.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unasked {
    #[error("this project names no lookup")]
    NoLookUp,
    #[error("its lookup {0:?} is not configured any more")]
    NotConfigured(String),
    #[error(
        "AWS does not say which key follows another, and this project names no alias that points at the key to use"
    )]
    NoAlias,
}

/// The newest usable key of a project, as its lookup names it.
#[derive(Clone, Debug)]
pub struct NewestKey {
    /// The newest key.
    pub key: KeyRef,
    /// The key that Atlas holds.
    pub current: KeyRef,
    /// The lookup that was made, `kms.NAME`.
    pub lookup: String,
    /// AWS only: the alias that points at the key.
    pub alias: Option<String>,
    /// When its key service created it.
    pub created: Option<Timestamp>,
}

impl Engine {
    /// Looks up the newest usable key of a project. The key that Atlas holds may be the newest one.
    ///
    /// # Errors
    /// Fails where no lookup names the newest key, where that is older than the one in force, and where Atlas or the key
    /// service does not answer.
    pub async fn newest_key(&self, group: &GroupId) -> Result<NewestKey, CommandError> {
        let project =
            self.store.project(group).await?.ok_or_else(|| CommandError::NoProject(group.clone()))?;
        let seen = self.read(&project).await?;
        let (Some(provider), Some(current)) = (seen.provider, seen.key) else {
            return Err(propose::not_encrypted());
        };
        // What Atlas holds now: the record may be of a moment ago.
        let project = Project { place: seen.place, ..project };
        let found = match newest(self, &project, &current).await {
            Newest::Is(found) => found,
            Newest::Failed(error) => return Err(CommandError::KeyService(error)),
            Newest::Unknown(why) => {
                let mut text = why.to_string();
                if !matches!(why, Unasked::NoAlias) {
                    let fits =
                        self.kms.iter().filter(|(_, it)| it.provider().is_none_or(|it| it == provider));
                    let mut names: Vec<&str> = fits.map(|(name, _)| name.as_str()).collect();
                    names.sort_unstable();
                    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                    text = format!("{text} (configured for {provider}: {names})");
                }
                return Err(CommandError::NoNewestKey(text));
            }
        };
        let (key, created) = (found.key.clone(), found.created);
        if !key.is_same(&current, &project.place)
            && let Err(Finding::Settled(Settled::Older(key))) = newer(self, &project, &current, found).await
        {
            let why = format!("the newest usable version, {key}, is older than the one in force");
            return Err(CommandError::NoNewestKey(why));
        }
        let lookup = project.kms.unwrap_or_default();
        let alias = project.alias.filter(|_| provider == Provider::Aws);
        Ok(NewestKey { key, current, lookup, alias, created })
    }
}

/// Observes the project, searches a newer key, and proposes it.
pub(super) async fn consider(engine: &Engine, group: &GroupId, ask: &Ask) -> Result<Finding, StoreError> {
    let Some((project, seen)) = look_at_atlas(engine, group).await? else {
        return Ok(Settled::Untracked.into());
    };
    if let Some(error) = &project.last_error
        && project.open_rotation.is_none()
    {
        return Ok(Deferred::Atlas(error.clone()).into());
    }
    let (Some(provider), Some(current)) = (project.provider, &project.current_key) else {
        return Ok(Settled::NotEncrypted.into());
    };
    let Candidate { key: candidate, confirmed } =
        match candidate(engine, &project, provider, current, ask).await {
            Ok(found) => found,
            Err(finding) => return Ok(finding),
        };
    let before = |span: &KeySpan| {
        span.until.is_some() && KeyRef::observed(provider, &span.key).is_same(&candidate, &project.place)
    };
    if engine.store.keys(group).await?.iter().any(before) {
        return Ok(Settled::ServedBefore(Box::new(candidate)).into());
    }
    let ended = engine.store.rotations(None, Some(group), None, HISTORY).await?;
    let same = |row: &&RotationRow| {
        let it = &row.rotation;
        it.state.is_final()
            && it.new_key.is_same(&candidate, &project.place)
            && it.old_key.is_same(current, &project.place)
    };
    if let Some(row) = ended.iter().find(same) {
        return Ok(Settled::EndedBefore { id: row.rotation.id, state: row.rotation.state }.into());
    }
    propose(engine, group, ask, Candidate { key: candidate, confirmed }, seen.as_ref()).await
}

/// The key to propose in place of `current`.
///
/// # Errors
/// Why no key is proposed.
async fn candidate(
    engine: &Engine,
    project: &Project,
    provider: Provider,
    current: &KeyRef,
    ask: &Ask,
) -> Result<Candidate, Finding> {
    let named = ask.named.clone();
    if let Some(key) = &named {
        key.check_provider(provider)
            .map_err(|error| Settled::Refused(Box::new(CommandError::KeyInvalid(error))))?;
    }
    let is = |key: &KeyRef, other: &KeyRef| key.is_same(other, &project.place);
    let held = |key: &KeyRef| Err(Settled::Held(Box::new(key.clone())).into());
    match (newest(engine, project, current).await, named) {
        (Newest::Is(found), named) => {
            let asked_for = named.filter(|named| !is(named, &found.key));
            match asked_for {
                // A requested key is proposed even when the lookup names another, and so is a named key
                // while the lookup names the key in force: the new key may not be usable yet. The checks
                // of the proposal show that.
                Some(named) if !is(&named, current) && (ask.by_request || is(&found.key, current)) => {
                    Ok(Candidate { key: named, confirmed: false })
                }
                _ if is(&found.key, current) => held(&found.key),
                _ => {
                    let key = found.key.clone();
                    let ordered = ask.by_request && ask.named.is_some();
                    match newer(engine, project, current, found).await {
                        Err(_) if ordered => Ok(Candidate { key, confirmed: false }),
                        found => found,
                    }
                }
            }
        }
        (Newest::Unknown(_) | Newest::Failed(_), Some(named)) if is(&named, current) => held(&named),
        (Newest::Unknown(_) | Newest::Failed(_), Some(named)) => {
            Ok(Candidate { key: named, confirmed: false })
        }
        (Newest::Unknown(why), None) => Err(Settled::NoKey(why).into()),
        (Newest::Failed(error), None) => Err(Deferred::KeyService(error).into()),
    }
}

async fn newest(engine: &Engine, project: &Project, current: &KeyRef) -> Newest {
    let Some(name) = &project.kms else {
        return Newest::Unknown(Unasked::NoLookUp);
    };
    let Some(service) = engine.kms.get(name) else {
        return Newest::Unknown(Unasked::NotConfigured(name.clone()));
    };
    let watched = Watched { key: current, place: &project.place, alias: project.alias.as_deref() };
    match service.newest(watched, engine.clock.now()).await {
        Ok(Some(found)) => Newest::Is(found),
        Ok(None) => Newest::Unknown(Unasked::NoAlias),
        Err(error) => Newest::Failed(error),
    }
}

/// The newest usable version, unless it is older than the one in force. Then a version was disabled or
/// the primary version was set back, and an operator must decide about the way back.
async fn newer(
    engine: &Engine,
    project: &Project,
    current: &KeyRef,
    found: Found,
) -> Result<Candidate, Finding> {
    let service = project.kms.as_ref().and_then(|name| engine.kms.get(name));
    let in_force = match service {
        Some(service) => service.describe(current, &project.place).await.ok(),
        None => None,
    };
    let confirmed = match (in_force.as_ref(), &found.key) {
        // Operators point the alias. It was looked up in the account of our identity, unless Atlas' key
        // names an account. Only when the key in force was found in the same account is it certain that
        // the alias belongs to this project.
        (Some(Found { key: KeyRef::Aws(old), .. }), KeyRef::Aws(new)) => {
            old.account().is_some() && old.account() == new.account()
        }
        (Some(old), _) => match (old.created, found.created) {
            (Some(old), Some(new)) if new <= old => {
                return Err(Settled::Older(Box::new(found.key)).into());
            }
            (old, new) => old.is_some() && new.is_some(),
        },
        // Without the key in force there is no date to compare.
        (None, _) => false,
    };
    Ok(Candidate { key: found.key, confirmed })
}

async fn propose(
    engine: &Engine,
    group: &GroupId,
    ask: &Ask,
    Candidate { key, confirmed }: Candidate,
    seen: Option<&Observation>,
) -> Result<Finding, StoreError> {
    let words: String = ask.words.chars().take(1000).collect();
    let requested = ask.by_request;
    let proposer = Proposer { actor: &ask.trigger, trigger: &ask.trigger, confirmed, requested, seen };
    let proposal =
        NewProposal { new_key: key, reason: Some(words), planned: None, emergency: false, dry_run: false };
    Ok(match engine.propose_as(proposer, group, proposal).await {
        Ok(Proposed::Created(row)) => Settled::Proposed(row.rotation.id).into(),
        Ok(Proposed::Same(row)) => Settled::ProposedBefore(row.rotation.id).into(),
        Ok(Proposed::Checked { .. }) => Settled::Checked.into(),
        Err(CommandError::Store(error)) => return Err(error),
        Err(CommandError::Atlas(failure))
            if matches!(failure.class, Class::Transient | Class::Unknown | Class::Auth | Class::TooOld) =>
        {
            Deferred::Atlas(failure.detail).into()
        }
        Err(error @ CommandError::RotationOpen { .. }) => Deferred::RotationOpen(Box::new(error)).into(),
        Err(error @ CommandError::Preflight(_)) => Deferred::Preflight(Box::new(error)).into(),
        Err(error) => Settled::Refused(Box::new(error)).into(),
    })
}

/// The project as it is after an observation, and the observation; `None` when the project is gone.
async fn look_at_atlas(
    engine: &Engine,
    group: &GroupId,
) -> Result<Option<(Project, Option<Observation>)>, StoreError> {
    let mut seen = None;
    for _ in 0..RACES {
        let Some(project) = engine.store.project(group).await? else { return Ok(None) };
        let checked = sweep::check(engine, project).await?;
        seen = checked.seen;
        if checked.recorded {
            break;
        }
    }
    Ok(engine.store.project(group).await?.map(|project| (project, seen)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_proposed_is_no_matter_of_words() {
        let id = RotationId::new();
        let key: KeyRef = "1234abcd-12ab-34cd-56ef-1234567890ab".parse().unwrap();
        assert!(Settled::Proposed(id).is_proposed() && Settled::ProposedBefore(id).is_proposed());
        // A text that begins like that of `Settled::Proposed`.
        let refused = CommandError::NothingToWithdraw("proposed as rotation".to_owned());
        for settled in [
            Settled::Refused(Box::new(refused)),
            Settled::Held(Box::new(key)),
            Settled::Checked,
            Settled::InPlace,
        ] {
            assert!(!settled.is_proposed(), "{settled}");
        }
    }
}
