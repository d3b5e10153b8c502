//! What else rotations ask of a project: its name, its clusters, its open alerts.
//!
//! Lists come in pages. Links in replies may point at another host, so the next page's address is
//! built here and a link only says that there is one. Names and states are passed on as they are,
//! those that nobody here knows too.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::Atlas;
use super::client::{Broken, Deadline, Request};
use super::encryption::V2023;
use super::error::{json, unreadable};
use crate::domain::ids::GroupId;
use crate::domain::key::Provider;
use crate::domain::rotation::outcome::{Cluster, Failure};

/// The version of the cluster list that no date for its end is announced for.
const V2024: &str = "application/vnd.atlas.2024-08-05+json";
const NETWORK_DENIED: &str = "ENCRYPTION_AT_REST_KMS_NETWORK_ACCESS_DENIED";
/// Small enough that a page of large cluster descriptions stays well below the body cap.
const PER_PAGE: u32 = 50;
/// An end for lists that never end.
const MOST_PAGES: u32 = 200;

impl Atlas {
    /// The project's name, as Atlas has it.
    ///
    /// # Errors
    /// No readable answer came within `timeout`, or Atlas refused.
    pub async fn group_name(
        &self,
        credential: &str,
        group: &GroupId,
        timeout: Duration,
    ) -> Result<String, Failure> {
        let request = Request {
            method: Method::GET,
            path: format!("/api/atlas/v2/groups/{group}"),
            accept: V2023,
            body: None,
        };
        let answer = self.call(credential, &request, Deadline::after(timeout)).await;
        let answer = answer.map_err(Broken::into_failure)?;
        let project = json(&answer)?;
        let name = project.get("name").and_then(Value::as_str);
        name.map(str::to_owned).ok_or_else(|| unreadable(answer.status, "Atlas' reply names no project"))
    }

    /// Whether the credential may change the project's key. Asked by a look that Atlas grants to a
    /// Project Owner only, and that changes nothing: the list of private endpoints.
    ///
    /// # Errors
    /// No answer came within `timeout`, or Atlas refused for another reason than the role.
    pub async fn may_change(
        &self,
        credential: &str,
        group: &GroupId,
        timeout: Duration,
    ) -> Result<bool, Failure> {
        let list = format!("/api/atlas/v2/groups/{group}/encryptionAtRest/AWS/privateEndpoints?");
        match self.page(credential, &list, V2023, 1, Deadline::after(timeout)).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.code.as_deref() == Some("USER_UNAUTHORIZED") => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// The project's clusters that are encrypted with keys of `provider`.
    ///
    /// # Errors
    /// Not every page could be read within `timeout`, or Atlas refused.
    pub async fn cmk_clusters(
        &self,
        credential: &str,
        group: &GroupId,
        provider: Provider,
        timeout: Duration,
    ) -> Result<Vec<Cluster>, Failure> {
        let deadline = Deadline::after(timeout);
        let list = format!("/api/atlas/v2/groups/{group}/clusters?");
        let mut clusters = Vec::new();
        for number in 1..=MOST_PAGES {
            let page = self.page(credential, &list, V2024, number, deadline).await?;
            for item in &page.items {
                if text(item, "encryptionAtRestProvider") == Some(provider.as_str()) {
                    let nameless = || unreadable(page.status, "Atlas' list holds a cluster without a name");
                    clusters.push(cluster(item).ok_or_else(nameless)?);
                }
            }
            if page.is_last {
                break;
            }
        }
        Ok(clusters)
    }

    /// Whether Atlas has an open alert that it cannot reach the project's key service.
    ///
    /// # Errors
    /// Not every page could be read within `timeout`, or Atlas refused.
    pub async fn network_denied(
        &self,
        credential: &str,
        group: &GroupId,
        timeout: Duration,
    ) -> Result<bool, Failure> {
        let deadline = Deadline::after(timeout);
        let list = format!("/api/atlas/v2/groups/{group}/alerts?status=OPEN&");
        for number in 1..=MOST_PAGES {
            let page = self.page(credential, &list, V2023, number, deadline).await?;
            if page.items.iter().any(is_network_denied) {
                return Ok(true);
            }
            if page.is_last {
                break;
            }
        }
        Ok(false)
    }

    async fn page(
        &self,
        credential: &str,
        list: &str,
        accept: &'static str,
        number: u32,
        deadline: Deadline,
    ) -> Result<Page, Failure> {
        let path = format!("{list}itemsPerPage={PER_PAGE}&pageNum={number}");
        let request = Request { method: Method::GET, path, accept, body: None };
        let answer = self.call(credential, &request, deadline).await.map_err(Broken::into_failure)?;
        let mut body = json(&answer)?;
        let Some(Value::Array(items)) = body.get_mut("results").map(Value::take) else {
            return Err(unreadable(answer.status, "Atlas' reply holds no list of results"));
        };
        let links = body.get("links").and_then(Value::as_array);
        let has_next = links.is_some_and(|links| links.iter().any(|link| text(link, "rel") == Some("next")));
        let is_last = !has_next || items.is_empty();
        if !is_last && number == MOST_PAGES {
            return Err(unreadable(answer.status, "Atlas' list does not end"));
        }
        Ok(Page { items, is_last, status: answer.status })
    }
}

struct Page {
    items: Vec<Value>,
    is_last: bool,
    status: u16,
}

fn cluster(item: &Value) -> Option<Cluster> {
    Some(Cluster {
        name: text(item, "name")?.to_owned(),
        state: text(item, "stateName").unwrap_or("UNKNOWN").to_owned(),
        paused: item.get("paused").and_then(Value::as_bool).unwrap_or(false),
    })
}

/// The list is asked for open alerts only, but a status that says otherwise counts.
fn is_network_denied(alert: &Value) -> bool {
    text(alert, "eventTypeName") == Some(NETWORK_DENIED)
        && text(alert, "status").is_none_or(|status| status == "OPEN")
}

fn text<'a>(item: &'a Value, name: &str) -> Option<&'a str> {
    item.get(name).and_then(Value::as_str)
}
