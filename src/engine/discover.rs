//! Discovery: the projects that the credentials can see, with their keys and their owners.
//!
//! One call reads one page of Atlas' list for one credential, so that each call ends in time even in a
//! fleet of thousands. A cursor names the next page. A project that cannot be read is an entry with Atlas'
//! words, and the others follow. Nothing is written: an operator adds a found project like any other. A
//! project that two credentials can see is listed twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use tokio::sync::OnceCell;

use super::Engine;
use super::command::CommandError;
use crate::atlas::{AtlasApi, Group, Groups};
use crate::domain::rotation::outcome::{Class, Failure, Observation};
use crate::domain::text::did_you_mean;
use crate::domain::time::monotonic;

/// Projects observed at the same time.
const AT_ONCE: usize = 8;

/// Timeout of one page.
const PATIENCE: Duration = Duration::from_secs(75);

/// The filter and the place of a page.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only with this credential; otherwise with each in turn.
    pub credential: Option<String>,
    /// Only projects that have all these tags.
    pub tags: Vec<(String, String)>,
    /// Also projects that are tracked, and those without a customer-managed key.
    pub all: bool,
    /// The place of the page; the first page when absent.
    pub cursor: Option<Cursor>,
    /// Projects of Atlas' list in one page.
    pub limit: u32,
}

/// A place in the lists of all credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    page: u32,
    /// Part of the cursor, because a page number is valid for one size only.
    size: u32,
    credential: String,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.page, self.size, self.credential)
    }
}

impl FromStr for Cursor {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '.');
        let mut number = || parts.next()?.parse::<u32>().ok().filter(|it| *it > 0);
        let (page, size) = number().zip(number()).ok_or(())?;
        let credential = parts.next().filter(|it| !it.is_empty()).ok_or(())?.to_owned();
        Ok(Self { page, size: size.min(500), credential })
    }
}

/// One project, or, without a project, a credential whose list cannot be read.
#[derive(Clone, Debug)]
pub struct Found {
    /// The credential that can see it.
    pub credential: String,
    /// The project, as the list has it.
    pub group: Option<Group>,
    /// Its encryption.
    pub seen: Option<Observation>,
    /// Its owners, each with the sources: `project`, `team:<name>`, `organization`.
    pub owners: BTreeMap<String, BTreeSet<String>>,
    /// The sources of owners that could not be read, in Atlas' words.
    pub unknown_owners: Vec<String>,
    /// Whether it is tracked already.
    pub tracked: bool,
    /// Why it cannot be read.
    pub error: Option<String>,
}

/// One page.
#[derive(Clone, Debug)]
pub struct Discovered {
    /// The projects of the page that pass the filter.
    pub items: Vec<Found>,
    /// The cursor of the next page.
    pub next: Option<Cursor>,
    /// How many projects of the credential's list were read so far, with those of earlier pages.
    pub seen: u64,
    /// How many there are in that list, as Atlas estimates it.
    pub total: Option<u64>,
    /// The credential whose list it is.
    pub credential: String,
}

impl Engine {
    /// One page of the projects that the credentials can see.
    ///
    /// # Errors
    /// Fails for an unknown credential or a cursor that is not valid, when Atlas refused the list of the
    /// one credential that was named, or when the database cannot be read.
    pub async fn discover(&self, wanted: &Wanted) -> Result<Discovered, CommandError> {
        let names = match &wanted.credential {
            Some(name) => vec![name.clone()],
            None => self.atlas.credentials(),
        };
        let invalid = |field, rule: String| CommandError::Invalid { field, rule };
        if let Some(name) = wanted.credential.as_ref().filter(|name| !self.atlas.knows(name)) {
            let configured = self.atlas.credentials();
            let near = did_you_mean(name, configured.iter().map(String::as_str));
            return Err(invalid("credential", format!("no credential {name:?} is configured; {near}")));
        }
        let first = names.first().ok_or_else(|| {
            invalid("credential", "no credential is configured; add [atlas.credentials.default]".to_owned())
        })?;
        let at = wanted.cursor.clone().unwrap_or_else(|| Cursor {
            page: 1,
            size: wanted.limit.clamp(1, 500),
            credential: first.clone(),
        });
        let place = names.iter().position(|name| *name == at.credential).ok_or_else(|| {
            invalid("cursor", "must be `next` of the last page, with the same credential".to_owned())
        })?;
        let look = Look::new(self, &at.credential);
        let other =
            names.get(place + 1).map(|name| Cursor { page: 1, credential: name.clone(), ..at.clone() });
        let listed = look.patiently(|left| self.atlas.groups(&at.credential, at.page, at.size, left)).await;
        let Groups { groups, more, total } = match listed {
            Ok(groups) => groups,
            Err(failure) if wanted.credential.is_some() => return Err(CommandError::Atlas(failure)),
            Err(failure) => {
                let items = vec![look.unreadable(None, &failure)];
                let credential = at.credential.clone();
                return Ok(Discovered { items, next: other, seen: 0, total: None, credential });
            }
        };
        let before = u64::from(at.page - 1) * u64::from(at.size);
        let seen = before + u64::try_from(groups.len()).unwrap_or_default();
        let has = |group: &Group| wanted.tags.iter().all(|tag| group.tags.contains(tag));
        let mut looks: Vec<BoxFuture<'_, Result<Option<Found>, CommandError>>> = Vec::new();
        for group in groups.into_iter().filter(has) {
            looks.push(Box::pin(look.at(group, wanted.all)));
        }
        let found: Vec<_> = stream::iter(looks).buffered(AT_ONCE).collect().await;
        let items = found.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        let next = if more { Some(Cursor { page: at.page + 1, ..at.clone() }) } else { other };
        Ok(Discovered { items, next, seen, total, credential: at.credential })
    }
}

/// Results that many projects share, by the id of the team or organization; each is requested once.
type Asked<T> = Mutex<BTreeMap<String, Arc<OnceCell<Result<T, Failure>>>>>;

/// The state that the projects of one page share: the deadline, and the people of their organisations.
struct Look<'a> {
    engine: &'a Engine,
    credential: &'a str,
    end: Instant,
    organizations: Asked<Vec<String>>,
    teams: Asked<(String, Vec<String>)>,
}

fn shared<T>(cells: &Asked<T>, key: &str) -> Arc<OnceCell<Result<T, Failure>>> {
    let mut cells = cells.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(cells.entry(key.to_owned()).or_default())
}

impl<'a> Look<'a> {
    fn new(engine: &'a Engine, credential: &'a str) -> Self {
        Self {
            engine,
            credential,
            end: monotonic() + PATIENCE,
            organizations: Mutex::default(),
            teams: Mutex::default(),
        }
    }

    /// Sends a request, and repeats it after a 429 as long as there is time. Only requests to the same
    /// endpoint set wait with it.
    async fn patiently<'b, T>(
        &self,
        ask: impl Fn(Duration) -> BoxFuture<'b, Result<T, Failure>> + Send,
    ) -> Result<T, Failure> {
        loop {
            let left = self.end.saturating_duration_since(monotonic());
            let answer = ask(left.min(self.engine.settings.request_timeout.get())).await;
            let limited =
                |failure: &&Failure| failure.class == Class::Transient && failure.status == Some(429);
            let Some(failure) = answer.as_ref().err().filter(limited) else { return answer };
            let asked = failure.retry_after.unwrap_or(self.engine.settings.pace.rate_limit_floor).get();
            let again = monotonic() + asked;
            if again >= self.end {
                return answer;
            }
            tokio::time::sleep_until(again.into()).await;
        }
    }

    fn unreadable(&self, group: Option<Group>, failure: &Failure) -> Found {
        Found {
            credential: self.credential.to_owned(),
            group,
            seen: None,
            owners: BTreeMap::new(),
            unknown_owners: Vec::new(),
            tracked: false,
            error: Some(failure.to_string()),
        }
    }

    /// The entry of one project; `None` when the filter excludes it.
    async fn at(&self, group: Group, all: bool) -> Result<Option<Found>, CommandError> {
        let tracked = self.engine.store.project(&group.id).await?.is_some();
        if tracked && !all {
            return Ok(None);
        }
        let atlas = &self.engine.atlas;
        let seen = self.patiently(|left| atlas.observe(self.credential, &group.id, left)).await;
        let seen = match seen {
            Ok(seen) if seen.provider.is_none() && !all => return Ok(None),
            Ok(seen) => seen,
            Err(failure) => {
                return Ok(Some(Found { tracked, ..self.unreadable(Some(group), &failure) }));
            }
        };
        let (owners, unknown_owners) = self.owners(&group).await;
        Ok(Some(Found {
            credential: self.credential.to_owned(),
            group: Some(group),
            seen: Some(seen),
            owners,
            unknown_owners,
            tracked,
            error: None,
        }))
    }

    async fn owners(&self, group: &Group) -> (BTreeMap<String, BTreeSet<String>>, Vec<String>) {
        let (atlas, credential) = (&self.engine.atlas, self.credential);
        let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut unknown = Vec::new();
        let mut add = |from: &str, mails: Vec<String>| {
            for mail in mails {
                owners.entry(mail).or_default().insert(from.to_owned());
            }
        };
        let cannot = |whose: &str, failure: &Failure| format!("{whose} cannot be read: {failure}");
        match self.patiently(|left| atlas.project_owners(credential, &group.id, left)).await {
            Ok(mails) => add("project", mails),
            Err(failure) => unknown.push(cannot("the project's people", &failure)),
        }
        let teams = match self.patiently(|left| atlas.teams(credential, &group.id, left)).await {
            Ok(teams) => teams,
            Err(failure) => {
                unknown.push(cannot("the project's teams", &failure));
                Vec::new()
            }
        };
        let Some(org) = &group.org else {
            unknown.push("Atlas does not name the organization of the project".to_owned());
            return (owners, unknown);
        };
        for team in teams.iter().filter(|team| team.owns) {
            let cell = shared(&self.teams, &team.id);
            let ask = async || {
                let members =
                    self.patiently(|left| atlas.team_members(credential, org, &team.id, left)).await?;
                let name = self.patiently(|left| atlas.team_name(credential, org, &team.id, left)).await?;
                Ok((name, members))
            };
            match cell.get_or_init(ask).await {
                Ok((name, mails)) => add(&format!("team:{name}"), mails.clone()),
                Err(failure) => unknown.push(cannot(&format!("the team {}", team.id), failure)),
            }
        }
        let cell = shared(&self.organizations, org);
        let ask = || self.patiently(|left| atlas.org_owners(credential, org, left));
        match cell.get_or_init(ask).await {
            Ok(mails) => add("organization", mails.clone()),
            Err(failure) => unknown.push(cannot("the organization's people", failure)),
        }
        (owners, unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_garbage_does_not() {
        let cursor = Cursor { page: 3, size: 50, credential: "team.a".to_owned() };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["", "1", "1.2", "1.2.", "0.5.x", "1.0.x", "-1.5.x", "a.b.c"] {
            assert_eq!(text.parse::<Cursor>(), Err(()), "{text}");
        }
    }
}
