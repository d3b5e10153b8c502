//! Whether a project has a newer key to move to, and its proposal.
//!
//! Atlas is read again, and where the project names a look-up the key service is asked for the newest
//! usable key; only one that differs from Atlas' and did not serve before is proposed. Without a look-up
//! the key that an event names is what people are asked about. The same event, the same proposal, and a
//! proposal that people turned down before make none. What set it off, an event or the poll, decides
//! nothing here, and whether people must agree is the proposal's business.

use super::command::CommandError;
use super::propose::{Proposed, Proposer};
use super::{Engine, sweep};
use crate::domain::ids::GroupId;
use crate::domain::key::{KeyRef, Provider};
use crate::domain::project::Project;
use crate::domain::rotation::outcome::Class;
use crate::kms::{Found, KmsError, Watched};
use crate::store::{KeySpan, RotationRow, StoreError};

/// Rotations of a project that are remembered when the same key comes up again.
const HISTORY: usize = 100;
/// How often a project is read again when somebody else wrote it meanwhile.
const RACES: usize = 4;

/// What looking came to.
#[derive(Clone, Debug)]
pub(super) enum Came {
    /// It is settled.
    Done(String),
    /// Something could not be asked, or is not as it must be.
    Again(String),
    /// Another rotation is open, and people take their time.
    Later(String),
}

/// A reason to look at one project.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// What the proposal says it came from: `hook:NAME` or `poll`.
    pub(super) trigger: String,
    /// The key that the event names as new.
    pub(super) named: Option<String>,
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
enum Newest {
    /// It was not asked, or names none; why.
    Unknown(String),
    Failed(KmsError),
    Is(Found),
}

/// Looks at Atlas, compares, and proposes what is new.
pub(super) async fn consider(engine: &Engine, group: &GroupId, ask: &Ask) -> Result<Came, StoreError> {
    let done = |words: String| Ok(Came::Done(words));
    let Some(project) = look_at_atlas(engine, group).await? else {
        return done("the project is not tracked any more".to_owned());
    };
    if let Some(error) = &project.last_error
        && project.open_rotation.is_none()
    {
        return Ok(Came::Again(format!("Atlas could not be read: {error}")));
    }
    let (Some(provider), Some(current)) = (project.provider, &project.current_key) else {
        return done("Atlas does not encrypt this project with a customer-managed key".to_owned());
    };
    let Candidate { key: candidate, confirmed } =
        match candidate(engine, &project, provider, current, ask).await {
            Ok(found) => found,
            Err(came) => return Ok(came),
        };
    let before = |span: &KeySpan| {
        span.until.is_some() && KeyRef::observed(provider, &span.key).is_same(&candidate, &project.place)
    };
    if engine.store.keys(group).await?.iter().any(before) {
        return done(format!("not proposed: {candidate} served before; a way back is a person's decision"));
    }
    let ended = engine.store.rotations(None, Some(group), None, HISTORY).await?;
    let same = |row: &&RotationRow| {
        let it = &row.rotation;
        it.state.is_final()
            && it.new_key.is_same(&candidate, &project.place)
            && it.old_key.is_same(current, &project.place)
    };
    if let Some(row) = ended.iter().find(same) {
        let (id, state) = (row.rotation.id, row.rotation.state);
        return done(format!(
            "not proposed: rotation {id} to the same key ended {state}; a person may propose it again"
        ));
    }
    propose(engine, group, ask, &Candidate { key: candidate, confirmed }).await
}

/// The key to propose in place of `current`.
///
/// # Errors
/// Why there is none.
async fn candidate(
    engine: &Engine,
    project: &Project,
    provider: Provider,
    current: &KeyRef,
    ask: &Ask,
) -> Result<Candidate, Came> {
    let named = ask.named.as_ref().map(|text| KeyRef::parse(provider, text)).transpose();
    let named = named.map_err(|error| Came::Done(format!("not proposed: {error}")))?;
    let is = |key: &KeyRef, other: &KeyRef| key.is_same(other, &project.place);
    let held = |key: &KeyRef| Came::Done(format!("Atlas holds {key} already"));
    match (newest(engine, project, current).await, named) {
        (Newest::Is(found), named) => {
            let asked_for = named.filter(|named| !is(named, &found.key));
            match asked_for {
                // An order is an order, and what is not usable yet is told by its checks.
                Some(named) if !is(&named, current) && (ask.by_request || is(&found.key, current)) => {
                    Ok(Candidate { key: named, confirmed: false })
                }
                _ if is(&found.key, current) => Err(held(&found.key)),
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
        (Newest::Unknown(_) | Newest::Failed(_), Some(named)) if is(&named, current) => Err(held(&named)),
        (Newest::Unknown(_) | Newest::Failed(_), Some(named)) => {
            Ok(Candidate { key: named, confirmed: false })
        }
        (Newest::Unknown(why), None) => Err(Came::Done(format!(
            "looked at Atlas: no new key is named, and {why}, so there is nothing to propose"
        ))),
        (Newest::Failed(error), None) => {
            Err(Came::Again(format!("the key service does not say which key is the newest: {error}")))
        }
    }
}

async fn newest(engine: &Engine, project: &Project, current: &KeyRef) -> Newest {
    let Some(name) = &project.kms else {
        return Newest::Unknown("this project names no look-up".to_owned());
    };
    let Some(service) = engine.kms.get(name) else {
        return Newest::Unknown(format!("its look-up {name:?} is not configured any more"));
    };
    let watched = Watched { key: current, place: &project.place, alias: project.alias.as_deref() };
    match service.newest(watched, engine.clock.now()).await {
        Ok(Some(found)) => Newest::Is(found),
        Ok(None) => Newest::Unknown("without an alias AWS cannot say which key is the newest".to_owned()),
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
) -> Result<Candidate, Came> {
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
                return Err(Came::Done(format!(
                    "not proposed: the newest usable version, {}, is older than the one in force",
                    found.key
                )));
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
    Candidate { key, confirmed }: &Candidate,
) -> Result<Came, StoreError> {
    let words: String = ask.words.chars().take(1000).collect();
    let proposer = Proposer { actor: &ask.trigger, trigger: &ask.trigger, confirmed: *confirmed };
    match engine.propose_as(proposer, group, &key.to_string(), Some(words), false).await {
        Ok(Proposed::Created(row)) => Ok(Came::Done(format!("proposed as rotation {}", row.rotation.id))),
        Ok(Proposed::Same(row)) => Ok(Came::Done(format!("proposed already: rotation {}", row.rotation.id))),
        Ok(Proposed::Checked { .. }) => Ok(Came::Done("checked only".to_owned())),
        Err(CommandError::Store(error)) => Err(error),
        Err(CommandError::Atlas(failure))
            if matches!(failure.class, Class::Transient | Class::Unknown | Class::Auth) =>
        {
            Ok(Came::Again(format!("Atlas could not be read: {}", failure.detail)))
        }
        Err(error @ CommandError::RotationOpen { .. }) => {
            Ok(Came::Later(format!("not proposed yet: {error}")))
        }
        Err(error @ CommandError::Preflight(_)) => Ok(Came::Again(format!("not proposed: {error}"))),
        Err(error) => Ok(Came::Done(format!("not proposed: {error}"))),
    }
}

/// The project as it is after a fresh look at Atlas; `None` when it is gone.
async fn look_at_atlas(engine: &Engine, group: &GroupId) -> Result<Option<Project>, StoreError> {
    for _ in 0..RACES {
        let Some(project) = engine.store.project(group).await? else { return Ok(None) };
        let version = project.version;
        sweep::check(engine, project).await?;
        match engine.store.project(group).await? {
            // The look was not written: somebody else wrote at the same moment.
            Some(after) if after.version == version => {}
            after => return Ok(after),
        }
    }
    engine.store.project(group).await
}
