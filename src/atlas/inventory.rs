//! Further reads of a project: its name, clusters, open alerts, rotation events and owners; and the list
//! of the projects that a credential can see.
//!
//! Lists come in pages. A link in a reply may point at another host, so the next page's address is built
//! here, and a link only shows that there is a next page. Names and states are passed on unchanged, also
//! unknown ones.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::Atlas;
use super::auth::Account;
use super::client::{Broken, Deadline, Request};
use super::encryption::V2023;
use super::error::{json, unreadable};
use crate::domain::event::{Actor, KeyEvent};
use crate::domain::ids::GroupId;
use crate::domain::key::Provider;
use crate::domain::rotation::outcome::{Cluster, EndpointSet, Failure};
use crate::domain::time::Timestamp;

/// The version of the cluster list without an announced end of life.
const V2024: &str = "application/vnd.atlas.2024-08-05+json";
/// The version of the people's lists without an announced end of life.
const V2025: &str = "application/vnd.atlas.2025-02-19+json";
const NETWORK_DENIED: &str = "ENCRYPTION_AT_REST_KMS_NETWORK_ACCESS_DENIED";
/// Small enough that a page of large cluster descriptions stays well below the body cap.
const PER_PAGE: u32 = 50;
/// Larger for events and people: their items are small, and their rate limits low.
const PER_LONG_PAGE: u32 = 200;
/// The most pages that are read of a list that does not end.
const MOST_PAGES: u32 = 200;

/// A project as the list of all shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its name, as Atlas has it.
    pub name: String,
    /// Its organisation, where the list names it.
    pub org: Option<String>,
    /// The number of its clusters, where the list names it.
    pub clusters: Option<u64>,
    /// Its tags, as Atlas has them.
    pub tags: Vec<(String, String)>,
}

impl Group {
    /// Its tag `environment`.
    #[must_use]
    pub fn environment(&self) -> Option<&str> {
        let tag = self.tags.iter().find(|(key, _)| key == "environment");
        tag.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

/// One page of the list of all projects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// The projects; unreadable entries are left out.
    pub groups: Vec<Group>,
    /// Whether more pages follow.
    pub more: bool,
    /// How many projects there are in all, as Atlas estimates it.
    pub total: Option<u64>,
}

/// A team that has a role in a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Team {
    /// Its id.
    pub id: String,
    /// Whether it makes its members owners.
    pub owns: bool,
}

impl Atlas {
    /// The names of all credentials.
    #[must_use]
    pub fn credentials(&self) -> Vec<String> {
        self.accounts.keys().cloned().collect()
    }

    /// The public part of a credential, by which Atlas names it: client id or public key.
    #[must_use]
    pub fn identity(&self, credential: &str) -> Option<String> {
        Some(match self.accounts.get(credential)? {
            Account::Service(account) => account.client_id().to_owned(),
            Account::Key(_, key) => key.public_key().to_owned(),
        })
    }

    /// One page of `size` (500 at most) of the projects that the credential can see; the first is 1.
    ///
    /// # Errors
    /// Fails when no readable reply came within `timeout`, or Atlas refused.
    pub async fn groups(
        &self,
        credential: &str,
        number: u32,
        size: u32,
        timeout: Duration,
    ) -> Result<Groups, Failure> {
        let deadline = Deadline::after(timeout);
        let list = List { set: EndpointSet::Groups, path: "/api/atlas/v2/groups?", accept: V2023 };
        let page = self.page_of(list, (number, size.clamp(1, 500)), credential, deadline).await?;
        Ok(Groups {
            groups: page.items.iter().filter_map(group).collect(),
            more: !page.is_last,
            total: page.total,
        })
    }

    /// Atlas' events about rotations of the project's key since `since`, the newest first.
    ///
    /// Usually one request: the feed allows a hundred a minute for each project.
    ///
    /// # Errors
    /// Fails when not every page could be read within `timeout`, or Atlas refused.
    pub async fn key_events(
        &self,
        credential: &str,
        group: &GroupId,
        since: Timestamp,
        timeout: Duration,
    ) -> Result<Vec<KeyEvent>, Failure> {
        let names: Vec<_> = Provider::ALL.iter().map(|it| format!("eventType={}&", rotated(*it))).collect();
        // Whole seconds: the fraction is not documented for this parameter.
        let since = since.as_chrono().format("%Y-%m-%dT%H:%M:%SZ");
        let names = names.concat();
        let path = format!("/api/atlas/v2/groups/{group}/events?{names}minDate={since}&includeCount=false&");
        let list = List { set: EndpointSet::Events, path: &path, accept: V2023 };
        let items = self.all(credential, list, Deadline::after(timeout)).await?;
        let mut events: Vec<_> = items.iter().filter_map(key_event).collect();
        events.sort_by_key(|event| std::cmp::Reverse(event.at));
        Ok(events)
    }

    /// The active people with the owner role in the project itself.
    ///
    /// # Errors
    /// Fails when not every page could be read within `timeout`, or Atlas refused.
    pub async fn project_owners(
        &self,
        credential: &str,
        group: &GroupId,
        timeout: Duration,
    ) -> Result<Vec<String>, Failure> {
        let path = format!("/api/atlas/v2/groups/{group}/users?");
        let list = List { set: EndpointSet::Users, path: &path, accept: V2025 };
        let people = self.all(credential, list, Deadline::after(timeout)).await?;
        Ok(people.iter().filter(|it| has_role(it, "GROUP_OWNER")).filter_map(active).collect())
    }

    /// The teams of the project.
    ///
    /// # Errors
    /// Fails when not every page could be read within `timeout`, or Atlas refused.
    pub async fn teams(
        &self,
        credential: &str,
        group: &GroupId,
        timeout: Duration,
    ) -> Result<Vec<Team>, Failure> {
        let path = format!("/api/atlas/v2/groups/{group}/teams?");
        let list = List { set: EndpointSet::Teams, path: &path, accept: V2023 };
        let teams = self.all(credential, list, Deadline::after(timeout)).await?;
        let team = |it: &Value| {
            let id = text(it, "teamId").or_else(|| text(it, "id"))?;
            let owns = strings(it, "roleNames").any(|role| role == "GROUP_OWNER");
            is_object_id(id).then(|| Team { id: id.to_owned(), owns })
        };
        Ok(teams.iter().filter_map(team).collect())
    }

    /// The active members of a team.
    ///
    /// # Errors
    /// Fails when not every page could be read within `timeout`, or Atlas refused.
    pub async fn team_members(
        &self,
        credential: &str,
        org: &str,
        team: &str,
        timeout: Duration,
    ) -> Result<Vec<String>, Failure> {
        let path = format!("/api/atlas/v2/orgs/{org}/teams/{team}/users?");
        let list = List { set: EndpointSet::Users, path: &path, accept: V2025 };
        let members = self.all(credential, list, Deadline::after(timeout)).await?;
        Ok(members.iter().filter_map(active).collect())
    }

    /// The name of a team; its id when Atlas names none.
    ///
    /// # Errors
    /// Fails when no readable reply came within `timeout`, or Atlas refused.
    pub async fn team_name(
        &self,
        credential: &str,
        org: &str,
        team: &str,
        timeout: Duration,
    ) -> Result<String, Failure> {
        let path = format!("/api/atlas/v2/orgs/{org}/teams/{team}");
        let request = Request { method: Method::GET, path, accept: V2023, body: None };
        let answer = self.call(credential, EndpointSet::Teams, &request, Deadline::after(timeout)).await;
        let answer = answer.map_err(Broken::into_failure)?;
        Ok(json(&answer)?.get("name").and_then(Value::as_str).unwrap_or(team).to_owned())
    }

    /// The active owners of an organisation.
    ///
    /// # Errors
    /// Fails when not every page could be read within `timeout`, or Atlas refused.
    pub async fn org_owners(
        &self,
        credential: &str,
        org: &str,
        timeout: Duration,
    ) -> Result<Vec<String>, Failure> {
        let path = format!("/api/atlas/v2/orgs/{org}/users?");
        let list = List { set: EndpointSet::Users, path: &path, accept: V2025 };
        let people = self.all(credential, list, Deadline::after(timeout)).await?;
        Ok(people.iter().filter(|it| has_role(it, "ORG_OWNER")).filter_map(active).collect())
    }

    /// When the secret of a service account expires; `None` for an API key, which does not, and where the credential may
    /// not read it. `org` is the organisation of a project of it.
    ///
    /// # Errors
    /// Fails when no readable reply came within `timeout`.
    pub async fn secret_end(
        &self,
        credential: &str,
        org: &str,
        timeout: Duration,
    ) -> Result<Option<Timestamp>, Failure> {
        let Some(Account::Service(account)) = self.accounts.get(credential) else { return Ok(None) };
        let path = format!("/api/atlas/v2/orgs/{org}/serviceAccounts/{}", account.client_id());
        let request = Request { method: Method::GET, path, accept: V2024, body: None };
        let answer = self.call(credential, EndpointSet::Groups, &request, Deadline::after(timeout)).await;
        let answer = answer.map_err(Broken::into_failure)?;
        if matches!(answer.status, 401 | 403 | 404) {
            return Ok(None);
        }
        let found = json(&answer)?;
        let secrets = found.get("secrets").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let end = |it: &&Value| text(it, "expiresAt").and_then(|at| at.parse::<Timestamp>().ok());
        let ours = secrets
            .iter()
            .find(|it| text(it, "maskedSecretValue").is_some_and(|mask| account.has_secret(mask)));
        Ok(ours.as_ref().and_then(end).or_else(|| secrets.iter().filter_map(|it| end(&it)).max()))
    }

    /// The project, as Atlas has it.
    ///
    /// # Errors
    /// Fails when no readable reply came within `timeout`, or Atlas refused.
    pub async fn group(
        &self,
        credential: &str,
        group: &GroupId,
        timeout: Duration,
    ) -> Result<Group, Failure> {
        let request = Request {
            method: Method::GET,
            path: format!("/api/atlas/v2/groups/{group}"),
            accept: V2023,
            body: None,
        };
        let answer = self.call(credential, EndpointSet::Groups, &request, Deadline::after(timeout)).await;
        let answer = answer.map_err(Broken::into_failure)?;
        let found = self::group(&json(&answer)?).filter(|found| found.id == *group && !found.name.is_empty());
        found.ok_or_else(|| unreadable(answer.status, "Atlas' reply names no project"))
    }

    /// Whether the credential may change the project's key. Determined by a read that Atlas grants to a
    /// Project Owner only: the list of private endpoints.
    ///
    /// # Errors
    /// Fails when no reply came within `timeout`, or Atlas refused for another reason than the role.
    pub async fn may_change(
        &self,
        credential: &str,
        group: &GroupId,
        timeout: Duration,
    ) -> Result<bool, Failure> {
        let path = format!("/api/atlas/v2/groups/{group}/encryptionAtRest/AWS/privateEndpoints?");
        let list = List { set: EndpointSet::PrivateEndpoints, path: &path, accept: V2023 };
        match self.page_of(list, (1, PER_PAGE), credential, Deadline::after(timeout)).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.code.as_deref() == Some("USER_UNAUTHORIZED") => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// The project's clusters that are encrypted with keys of `provider`.
    ///
    /// # Errors
    /// Fails when not every page could be read within `timeout`, or Atlas refused.
    pub async fn cmk_clusters(
        &self,
        credential: &str,
        group: &GroupId,
        provider: Provider,
        timeout: Duration,
    ) -> Result<Vec<Cluster>, Failure> {
        let deadline = Deadline::after(timeout);
        let path = format!("/api/atlas/v2/groups/{group}/clusters?");
        let list = List { set: EndpointSet::Clusters, path: &path, accept: V2024 };
        let mut clusters = Vec::new();
        for number in 1..=MOST_PAGES {
            let page = self.page_of(list, (number, PER_PAGE), credential, deadline).await?;
            for item in &page.items {
                if text(item, "encryptionAtRestProvider") == Some(provider.as_str()) {
                    let nameless = || unreadable(page.status, "Atlas' list holds a cluster without a name");
                    clusters.push(cluster(item).ok_or_else(nameless)?);
                }
            }
            if page.is_last {
                return Ok(clusters);
            }
        }
        Err(endless())
    }

    /// Whether Atlas has an open alert that it cannot reach the project's key service.
    ///
    /// # Errors
    /// Fails when not every page could be read within `timeout`, or Atlas refused.
    pub async fn network_denied(
        &self,
        credential: &str,
        group: &GroupId,
        timeout: Duration,
    ) -> Result<bool, Failure> {
        let deadline = Deadline::after(timeout);
        let path = format!("/api/atlas/v2/groups/{group}/alerts?status=OPEN&");
        let list = List { set: EndpointSet::Alerts, path: &path, accept: V2023 };
        for number in 1..=MOST_PAGES {
            let page = self.page_of(list, (number, PER_PAGE), credential, deadline).await?;
            if page.items.iter().any(is_network_denied) {
                return Ok(true);
            }
            if page.is_last {
                return Ok(false);
            }
        }
        Err(endless())
    }

    /// Every item of a list of small ones.
    async fn all(&self, credential: &str, list: List<'_>, deadline: Deadline) -> Result<Vec<Value>, Failure> {
        let mut all = Vec::new();
        for number in 1..=MOST_PAGES {
            let page = self.page_of(list, (number, PER_LONG_PAGE), credential, deadline).await?;
            all.extend(page.items);
            if page.is_last {
                return Ok(all);
            }
        }
        Err(endless())
    }

    async fn page_of(
        &self,
        List { set, path, accept }: List<'_>,
        (number, size): (u32, u32),
        credential: &str,
        deadline: Deadline,
    ) -> Result<Page, Failure> {
        let path = format!("{path}itemsPerPage={size}&pageNum={number}");
        let request = Request { method: Method::GET, path, accept, body: None };
        let answer = self.call(credential, set, &request, deadline).await.map_err(Broken::into_failure)?;
        let mut body = json(&answer)?;
        let Some(Value::Array(items)) = body.get_mut("results").map(Value::take) else {
            return Err(unreadable(answer.status, "Atlas' reply holds no list of results"));
        };
        let links = body.get("links").and_then(Value::as_array);
        let has_next = links.is_some_and(|links| links.iter().any(|link| text(link, "rel") == Some("next")));
        let is_last = !has_next || items.is_empty();
        let total = body.get("totalCount").and_then(Value::as_u64);
        Ok(Page { items, is_last, total, status: answer.status })
    }
}

fn endless() -> Failure {
    unreadable(200, "Atlas' list does not end")
}

/// A list that comes in pages.
#[derive(Clone, Copy)]
struct List<'a> {
    /// Whose rate limit it counts against.
    set: EndpointSet,
    /// Path and query, up to where the page is named.
    path: &'a str,
    /// The media type to accept.
    accept: &'static str,
}

struct Page {
    items: Vec<Value>,
    is_last: bool,
    total: Option<u64>,
    status: u16,
}

fn cluster(item: &Value) -> Option<Cluster> {
    let list = |of: &Value, name: &str| of.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let shards = list(item, "replicationSpecs");
    let parts: Vec<Value> = shards.iter().flat_map(|it| list(it, "regionConfigs")).collect();
    // One shard is like the other, mostly.
    let regions: BTreeSet<&str> = parts.iter().filter_map(|it| text(it, "regionName")).collect();
    let size = |it| text(it, "instanceSize");
    let tiers: BTreeSet<&str> =
        parts.iter().filter_map(|it| it.get("electableSpecs").and_then(size)).collect();
    Some(Cluster {
        name: text(item, "name")?.to_owned(),
        state: text(item, "stateName").unwrap_or("UNKNOWN").to_owned(),
        paused: item.get("paused").and_then(Value::as_bool).unwrap_or(false),
        tier: tiers.first().filter(|_| tiers.len() == 1).map(|it| (*it).to_owned()),
        regions: regions.into_iter().map(str::to_owned).collect(),
    })
}

/// The request names open alerts only, but an alert with another status is skipped all the same.
fn is_network_denied(alert: &Value) -> bool {
    text(alert, "eventTypeName") == Some(NETWORK_DENIED)
        && text(alert, "status").is_none_or(|status| status == "OPEN")
}

pub(super) fn group(item: &Value) -> Option<Group> {
    let id = text(item, "id")?.parse().ok()?;
    let tags = item.get("tags").and_then(Value::as_array).into_iter().flatten();
    let tag = |it: &Value| Some((text(it, "key")?.to_owned(), text(it, "value")?.to_owned()));
    Some(Group {
        id,
        name: text(item, "name").unwrap_or_default().to_owned(),
        org: text(item, "orgId").filter(|org| is_object_id(org)).map(str::to_owned),
        clusters: item.get("clusterCount").and_then(Value::as_u64),
        tags: tags.filter_map(tag).collect(),
    })
}

const fn rotated(provider: Provider) -> &'static str {
    match provider {
        Provider::Aws => "AWS_ENCRYPTION_KEY_ROTATED",
        Provider::Azure => "AZURE_ENCRYPTION_KEY_ROTATED",
        Provider::Gcp => "GCP_ENCRYPTION_KEY_ROTATED",
    }
}

/// The request names the event types, but each type is checked again: Atlas' list of types changes often.
pub(super) fn key_event(item: &Value) -> Option<KeyEvent> {
    let kind = text(item, "eventTypeName")?;
    let provider = Provider::ALL.into_iter().find(|it| rotated(*it) == kind)?;
    let said = |name: &str| text(item, name).filter(|it| !it.trim().is_empty());
    let by = match (said("publicKey"), said("username")) {
        (Some(key), _) => Actor::credential(key),
        (None, Some(name)) => Actor::Person(name.to_owned()),
        (None, None) => Actor::Unsaid,
    };
    Some(KeyEvent {
        id: text(item, "id")?.to_owned(),
        at: text(item, "created")?.parse().ok()?,
        provider,
        by,
    })
}

/// Roles come as a list in a project, and as an object with a list in an organisation.
fn has_role(person: &Value, role: &str) -> bool {
    let below = person.get("roles").filter(|roles| roles.is_object());
    strings(person, "roles")
        .chain(below.into_iter().flat_map(|it| strings(it, "orgRoles")))
        .any(|it| it == role)
}

/// The address of an active member; a pending invitation has no rights.
fn active(person: &Value) -> Option<String> {
    (text(person, "orgMembershipStatus") == Some("ACTIVE"))
        .then(|| text(person, "username").map(str::to_owned))
        .flatten()
}

fn strings<'a>(item: &'a Value, name: &str) -> impl Iterator<Item = &'a str> {
    item.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Whether a text is an object id: a text from a reply must not change the path that it becomes part of.
fn is_object_id(text: &str) -> bool {
    text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn text<'a>(item: &'a Value, name: &str) -> Option<&'a str> {
    item.get(name).and_then(Value::as_str)
}
