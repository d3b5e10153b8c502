//! Whether a project has a newer key to move to, and its proposal.
//!
//! Atlas is read again, and where the project names a lookup the key service is asked for the newest
//! usable key; only one that differs from Atlas' and did not serve before is proposed. Without a lookup
//! the key that an event names is what people are asked about. The same event, the same proposal, and a
//! proposal that people turned down before make none. What set it off, an event or the poll, decides
//! nothing here, and whether people must agree is the proposal's business.

use super::command::CommandError;
use super::propose::{Proposed, Proposer};
use super::{Engine, sweep};
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::key::{KeyRef, Provider};
use crate::domain::project::Project;
use crate::domain::rotation::outcome::{Class, Observation};
use crate::domain::rotation::state::State;
use crate::kms::{Found, KmsError, Watched};
use crate::store::{KeySpan, RotationRow, StoreError};

/// Rotations of a project that are remembered when the same key comes up again.
const HISTORY: usize = 100;
/// How often a project is read again when somebody else wrote it meanwhile.
const RACES: usize = 4;

/// Result of looking for a newer key.
#[derive(Debug)]
pub(super) enum Finding {
    /// The question is answered.
    Settled(Settled),
    /// The question must be asked again.
    Deferred(Deferred),
}

/// An answer that holds until the next event. Its text is for people; nothing is decided from it.
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
    #[error("not proposed: {0} served before; a way back is a person's decision")]
    ServedBefore(Box<KeyRef>),
    /// People or the machine ended the same rotation before.
    #[error("not proposed: rotation {id} to the same key ended {state}; a person may propose it again")]
    EndedBefore {
        /// The rotation.
        id: RotationId,
        /// Its last state.
        state: State,
    },
    /// The newest usable version is not the last one made.
    #[error("not proposed: the newest usable version, {0}, is older than the one in force")]
    Older(Box<KeyRef>),
    /// Neither an event nor a key service names a key.
    #[error("looked at Atlas: no new key is named, and {0}, so there is nothing to propose")]
    NoKey(Unasked),
    /// The proposal breaks a rule that only a person can change.
    #[error("not proposed: {0}")]
    Refused(Box<CommandError>),
}

impl Settled {
    /// Whether a rotation to the key is open now.
    pub(super) const fn is_proposed(&self) -> bool {
        matches!(self, Settled::Proposed(_) | Settled::ProposedBefore(_))
    }
}

/// Why the question must be asked again.
#[derive(Debug, thiserror::Error)]
pub(super) enum Deferred {
    /// Atlas did not answer, or refused the credential.
    #[error("Atlas could not be read: {0}")]
    Atlas(String),
    /// The key service did not answer.
    #[error("the key service does not say which key is the newest: {0}")]
    KeyService(KmsError),
    /// A pre-flight check failed; it may pass later.
    #[error("not proposed: {0}")]
    Preflight(Box<CommandError>),
    /// Another rotation of the project is open, and people take their time.
    #[error("not proposed yet: {0}")]
    RotationOpen(Box<CommandError>),
    /// The database did not take the answer.
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

/// A reason to look at one project.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// What the proposal says it came from: `hook:NAME` or `poll`.
    pub(super) trigger: String,
    /// The key that the event names as new.
    pub(super) named: Option<KeyRef>,
    /// Whether somebody's system asks for exactly that key, rather than telling what happened to one.
    pub(super) by_request: bool,
    /// For the proposal's reason.
    pub(super) words: String,
}

/// A key that may be proposed.
struct Candidate {
    key: KeyRef,
    /// The key service calls it newer and usable.
    confirmed: bool,
}

/// What the key service says of the newest key.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum Newest {
    /// It was not asked, or names none.
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
    #[error("without an alias AWS cannot say which key is the newest")]
    NoAlias,
}

/// Looks at Atlas, compares, and proposes what is new.
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
                // An order is an order, and what is not usable yet is told by its checks.
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

/// The newest usable version, unless it is older than the one in force: then a version was disabled or
/// the primary one set back, and going back is a person's decision.
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
        // An alias is pointed by hand. It was looked up in the account of our identity unless Atlas' key
        // names its own: only a key in force that is known there makes it an alias for this project.
        (Some(Found { key: KeyRef::Aws(old), .. }), KeyRef::Aws(new)) => {
            old.account().is_some() && old.account() == new.account()
        }
        (Some(old), _) => match (old.created, found.created) {
            (Some(old), Some(new)) if new <= old => {
                return Err(Settled::Older(Box::new(found.key)).into());
            }
            (old, new) => old.is_some() && new.is_some(),
        },
        // Which of the two is newer, nobody says.
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
    let proposer = Proposer { actor: &ask.trigger, trigger: &ask.trigger, confirmed, seen };
    Ok(match engine.propose_as(proposer, group, key, Some(words), false).await {
        Ok(Proposed::Created(row)) => Settled::Proposed(row.rotation.id).into(),
        Ok(Proposed::Same(row)) => Settled::ProposedBefore(row.rotation.id).into(),
        Ok(Proposed::Checked { .. }) => Settled::Checked.into(),
        Err(CommandError::Store(error)) => return Err(error),
        Err(CommandError::Atlas(failure))
            if matches!(failure.class, Class::Transient | Class::Unknown | Class::Auth) =>
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
        // A text that begins like a proposal's.
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
