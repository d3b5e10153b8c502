//! `project discover`: lists the projects that the server's credentials can see in Atlas, and tracks
//! them.

use std::collections::BTreeMap;

use clap::Args;
use clap_complete::ArgValueCandidates;
use serde::Serialize;
use serde_json::Value;

use super::client::Client;
use super::complete;
use super::failure::{Exit, Failure};
use super::import::{Named, Outcome, Report, add};
use super::printer::Printer;
use crate::api::Page;
use crate::api::project::{Discovery, Found, NewProject};
use crate::domain::ids::GroupId;
use crate::domain::text::visible;

/// Projects of Atlas' list per call to the server.
const PAGE: &str = "50";

pub(super) const COLUMNS: [&str; 11] = [
    "groupId",
    "name",
    "provider",
    "valid",
    "clusterCount",
    "owners",
    "tags",
    "credential",
    "tracked",
    "key",
    "error",
];

#[derive(Debug, Args)]
pub(super) struct Discover {
    /// Every project: also those that are tracked already, and those without a customer-managed key
    #[arg(long)]
    all: bool,
    /// Only projects with this tag in Atlas; given more than once, with all of them
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<String>,
    /// Only projects that this one of atlas.credentials can see
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(complete::credentials))]
    credential: Option<String>,
    /// Track the listed projects, with their owners, and their tag "environment" where they have one
    #[arg(long)]
    add: bool,
}

/// Text that is not a tag.
#[derive(Debug, thiserror::Error)]
#[error("this takes KEY=VALUE, such as environment=prod")]
struct NoTag;

fn tag(text: &str) -> Result<String, NoTag> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    pair.map(|_| text.to_owned()).ok_or(NoTag)
}

pub(super) async fn run(args: &Discover, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    let (found, raw) = found(args, client, printer).await?;
    if args.add {
        return track(found, client, printer).await;
    }
    let unreadable = found.iter().filter(|item| item.error.is_some()).count();
    if printer.is_json() {
        printer.json(&raw)?;
    } else if found.is_empty() {
        printer.note(if args.all {
            "the credentials see no such project in Atlas"
        } else {
            "nothing new: every project with a customer-managed key is tracked; --all shows all"
        });
    } else {
        printer.list(&found.iter().map(row).collect::<Vec<_>>(), &COLUMNS)?;
    }
    for item in &found {
        for why in &item.owners_unknown {
            printer.note(&format!("{}: not all owners are known: {why}", name(item)));
        }
    }
    if unreadable > 0 {
        printer.note(&format!("{unreadable} could not be read; the column error has the reasons"));
    }
    Ok(Exit::Done)
}

/// Reads page by page and reports progress after each: a fleet takes minutes. Returns the projects
/// parsed, and as the server wrote them.
async fn found(
    args: &Discover,
    client: &Client,
    printer: &mut Printer,
) -> Result<(Vec<Found>, Page<Value>), Failure> {
    let mut query: Vec<(&str, &str)> = vec![("limit", PAGE)];
    query.extend(args.all.then_some(("all", "true")));
    query.extend(args.credential.as_deref().map(|name| ("credential", name)));
    query.extend(args.tags.iter().map(|tag| ("tag", tag.as_str())));
    let (mut all, mut known) = (Vec::new(), BTreeMap::new());
    let mut cursor = None::<String>;
    loop {
        let mut query = query.clone();
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let reply = client.get("/discover", &query).await?;
        let Discovery { items, next, credential, seen, total } = reply.read()?;
        for item in items.into_iter().zip(reply.read::<Page<Value>>()?.items) {
            take(&mut all, &mut known, item);
        }
        if next.is_none() || next == cursor {
            let (found, items) = all.into_iter().unzip();
            return Ok((found, Page { items, next: None }));
        }
        let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
        printer.note(&format!("read {seen}{of} projects that the credential {credential} can see"));
        cursor = next;
    }
}

/// Two credentials may see the same project: the first one that could read it is listed. `known` maps a
/// project to its index in `all`.
fn take<T>(all: &mut Vec<(Found, T)>, known: &mut BTreeMap<GroupId, usize>, item: (Found, T)) {
    let place = item.0.group_id.as_ref().map(|id| *known.entry(id.clone()).or_insert(all.len()));
    match place.and_then(|place| all.get_mut(place)) {
        Some(other) if other.0.error.is_some() && item.0.error.is_none() => *other = item,
        Some(_) => {}
        None => all.push(item),
    }
}

fn name(item: &Found) -> String {
    let name = item.name.as_deref().filter(|name| !name.is_empty());
    let name = name.or(item.group_id.as_ref().map(GroupId::as_str));
    name.map_or_else(|| format!("credential {}", item.credential), visible)
}

/// A project as a row of the table: each owner with the source of the ownership, each tag as key=value.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    found: &'a Found,
    owners: Vec<String>,
    tags: Vec<String>,
}

fn row(found: &Found) -> Row<'_> {
    let owners = found.owners.iter().map(|it| format!("{} ({})", it.mail, it.from.join(", ")));
    let tags = found.tags.iter().map(|it| format!("{}={}", it.key, it.value));
    Row { found, owners: owners.collect(), tags: tags.collect() }
}

async fn track(found: Vec<Found>, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    let mut report = Report::default();
    if found.is_empty() {
        printer.note("nothing to add");
    }
    for item in found {
        let place = format!("credential {}", item.credential);
        let named = Named::of(item.group_id.as_ref().map(GroupId::as_str), item.name.as_deref());
        let added = if let Some(error) = &item.error {
            Outcome::refused(error)
        } else if item.tracked {
            Outcome::Tracked(Vec::new())
        } else if item.provider.is_none() {
            Outcome::refused("it has no customer-managed key")
        } else if let Some(body) = body(&item) {
            add(client, &body).await?
        } else {
            Outcome::refused("the server gave no group id")
        };
        report.tell(printer, &place, &named, &added)?;
    }
    report.end(printer)
}

/// The request that tracks a discovered project. The server reads its name and its environment from Atlas.
fn body(item: &Found) -> Option<NewProject> {
    Some(NewProject {
        group_id: item.group_id.as_ref()?.to_string(),
        owners: item.owners.iter().map(|it| it.mail.clone()).collect(),
        credential: Some(item.credential.clone()),
        ..NewProject::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_the_first_credentials_that_could_read_it() {
        let found = |id: Option<char>, credential: &str, error: Option<&str>| Found {
            group_id: id.map(|id| id.to_string().repeat(24).parse().unwrap()),
            name: None,
            credential: credential.to_owned(),
            provider: None,
            key: None,
            valid: None,
            cluster_count: None,
            owners: Vec::new(),
            owners_unknown: Vec::new(),
            tags: Vec::new(),
            tracked: false,
            error: error.map(str::to_owned),
        };
        let (mut all, mut known) = (Vec::new(), BTreeMap::new());
        for item in [
            found(Some('a'), "one", Some("403")),
            found(None, "one", Some("no list")),
            found(Some('b'), "one", None),
            found(Some('a'), "two", None),
            found(Some('b'), "two", Some("403")),
            found(Some('a'), "three", None),
            found(None, "three", Some("no list")),
        ] {
            take(&mut all, &mut known, (item, ()));
        }
        let told = |it: &Found| format!("{} by {}", name(it), it.credential);
        let told: Vec<_> = all.iter().map(|(it, ())| told(it)).collect();
        let (a, b) = ("a".repeat(24), "b".repeat(24));
        assert_eq!(
            told,
            [
                format!("{a} by two"),
                "credential one by one".to_owned(),
                format!("{b} by one"),
                "credential three by three".to_owned()
            ]
        );
    }
}
