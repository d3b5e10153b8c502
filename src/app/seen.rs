//! What a credential can see in Atlas, before there is a database: `keywheel init` and `doctor` try it. Nothing is written.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};

use crate::atlas::{Atlas, Groups, TokenBudget};
use crate::config::Config;
use crate::domain::rotation::outcome::{Class, Failure};
use crate::domain::time::{SystemClock, Timestamp};

/// Projects that are read; more are only counted.
const SHOWN: u32 = 50;
/// Projects read at the same time.
const AT_ONCE: usize = 8;

/// One log-in by hand needs no count that outlives the process.
struct Uncounted;

impl TokenBudget for Uncounted {
    fn take<'a>(&'a self, _: &'a str, _: Timestamp) -> BoxFuture<'a, Result<(), Timestamp>> {
        Box::pin(async { Ok(()) })
    }
}

/// A client that needs no database.
pub(super) fn uncounted(config: &Config) -> anyhow::Result<Atlas> {
    Ok(Atlas::new(&config.atlas, Arc::new(SystemClock), Arc::new(Uncounted))?)
}

/// The projects that the credential can see, with provider and key: `{"projects": […], "total": N}`, the first 50 of them.
///
/// # Errors
/// Fails when Atlas does not list them; the error names the way out. A project that cannot be read is part of the result.
pub async fn seen(config: &Config, credential: &str) -> anyhow::Result<Value> {
    let atlas = uncounted(config)?;
    let timeout: Duration = config.atlas.request_timeout.get();
    let listed = atlas.groups(credential, 1, SHOWN, timeout).await;
    let Groups { groups, more, total } = listed.map_err(|failure| anyhow!("{}", way_out(&failure)))?;
    let read = stream::iter(groups).map(async |group| {
        let mut line = json!({ "groupId": group.id, "name": group.name });
        match atlas.observe(credential, &group.id, timeout).await {
            Ok(seen) => {
                line["provider"] = json!(seen.provider);
                line["key"] = json!(seen.key.map(|key| key.to_string()));
                line["valid"] = json!(seen.valid);
            }
            Err(failure) => line["error"] = json!(way_out(&failure)),
        }
        line
    });
    let projects: Vec<Value> = read.buffered(AT_ONCE).collect().await;
    let count = u64::try_from(projects.len()).unwrap_or(u64::MAX);
    Ok(json!({ "projects": projects, "total": total.filter(|_| more).unwrap_or(count) }))
}

/// Atlas' error, and the fix.
pub(super) fn way_out(failure: &Failure) -> String {
    let said = match &failure.code {
        Some(code) => format!("{code}: {}", failure.detail),
        None => failure.detail.clone(),
    };
    let what = match (failure.code.as_deref(), failure.class) {
        (Some("IP_ADDRESS_NOT_ON_ACCESS_LIST"), _) => {
            "add this machine's address to the credential's access list"
        }
        (Some("ORG_REQUIRES_ACCESS_LIST"), _) => {
            "the organization requires an access list for its API: give the credential one that has this machine's address; id and \
             secret are right"
        }
        (Some("USER_CANNOT_ACCESS_GROUP" | "USER_UNAUTHORIZED"), _) => {
            "invite the credential to that project as Project Owner"
        }
        (_, Class::Auth) => "check its id and secret, and that it is neither revoked nor expired",
        (_, Class::Gone) => {
            "check the project's id; remove a project that is gone with `keywheel project remove`"
        }
        (_, Class::TooOld) => {
            "this Keywheel is too old for Atlas: Atlas no longer serves the version of its API that it asks for; install a newer \
             one. Rotations wait until then, and no project is to be removed"
        }
        (_, Class::Transient) if failure.status.is_some() => "Atlas is busy; try again in a minute",
        (_, Class::Transient) => "check atlas.base_url, the proxy and the firewall",
        (_, Class::Unknown) => {
            "check atlas.base_url, and the way from this machine to Atlas (proxy, DNS, firewall)"
        }
        (_, Class::BadKey | Class::Refused | Class::Config) => {
            "check atlas.base_url and the project in Atlas"
        }
    };
    format!("{said}; {what}")
}
