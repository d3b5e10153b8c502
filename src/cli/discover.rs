//! What the server's credentials can see in Atlas, and adding it.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Map, Value, json};

use super::client::{Client, page};
use super::failure::{Exit, Failure};
use super::import::{Outcome, Report, add};
use super::printer::{Printer, cell};

/// Projects of Atlas' list that the server goes through in one call.
const PAGE: &str = "50";

const COLUMNS: [&str; 11] = [
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
    /// Everything: also what is tracked already, and what has no customer-managed key
    #[arg(long)]
    all: bool,
    /// Only projects with this tag in Atlas; given more than once, with all of them
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<String>,
    /// Only what this one of atlas.credentials can see
    #[arg(long, value_name = "NAME")]
    credential: Option<String>,
    /// Track what is listed, with its owners, and its tag "environment" where it has one
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
    let found = found(args, client, printer).await?;
    if args.add {
        return track(found, client, printer).await;
    }
    let unreadable = found.iter().filter(|item| !item["error"].is_null()).count();
    if printer.is_json() {
        printer.json(&page(found.clone()))?;
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
        for why in item["ownersUnknown"].as_array().into_iter().flatten() {
            printer.note(&format!("{}: not all owners are known: {}", name(item), cell(why)));
        }
    }
    if unreadable > 0 {
        printer.note(&format!("{unreadable} could not be read; their lines say why"));
    }
    Ok(Exit::Done)
}

/// Page by page, with a word on the way after each: a fleet takes minutes.
async fn found(args: &Discover, client: &Client, printer: &mut Printer) -> Result<Vec<Value>, Failure> {
    let mut query: Vec<(&str, &str)> = vec![("limit", PAGE)];
    query.extend(args.all.then_some(("all", "true")));
    query.extend(args.credential.as_deref().map(|name| ("credential", name)));
    query.extend(args.tags.iter().map(|tag| ("tag", tag.as_str())));
    let mut all = Vec::new();
    let mut known = BTreeMap::new();
    let mut cursor = None::<String>;
    loop {
        let mut query = query.clone();
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let mut reply = client.get("/discover", &query).await?.json;
        let items = reply["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
        for item in items {
            take(&mut all, &mut known, item);
        }
        let next = reply["next"].as_str().map(str::to_owned);
        if next.is_none() || next == cursor {
            return Ok(all);
        }
        let of = reply["total"].as_u64().map(|total| format!(" of {total}")).unwrap_or_default();
        printer.note(&format!(
            "looked at {}{of} projects that the credential {} can see",
            reply["seen"],
            cell(&reply["credential"])
        ));
        cursor = next;
    }
}

/// Two credentials may see the same project: the first one that could read it has it. `known` says
/// where in `all` a project is.
fn take(all: &mut Vec<Value>, known: &mut BTreeMap<String, usize>, item: Value) {
    let place = item["groupId"].as_str().map(|id| *known.entry(id.to_owned()).or_insert(all.len()));
    match place.and_then(|place| all.get_mut(place)) {
        Some(other) if !other["error"].is_null() && item["error"].is_null() => *other = item,
        Some(_) => {}
        None => all.push(item),
    }
}

fn name(item: &Value) -> String {
    let name = if item["name"].as_str().is_some_and(|name| !name.is_empty()) {
        &item["name"]
    } else {
        &item["groupId"]
    };
    if name.is_null() { format!("credential {}", cell(&item["credential"])) } else { cell(name) }
}

/// As a line of a table.
fn row(item: &Value) -> Value {
    let mut row = item.clone();
    let owners = item["owners"].as_array().into_iter().flatten();
    let owners = owners.map(|it| format!("{} ({})", cell(&it["mail"]), cell(&it["from"])));
    row["owners"] = json!(owners.collect::<Vec<_>>());
    let tags = item["tags"].as_array().into_iter().flatten();
    row["tags"] =
        json!(tags.map(|it| format!("{}={}", cell(&it["key"]), cell(&it["value"]))).collect::<Vec<_>>());
    row
}

async fn track(found: Vec<Value>, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    let mut report = Report::default();
    if found.is_empty() {
        printer.note("nothing to add");
    }
    for item in found {
        let added = if let Some(error) = item["error"].as_str() {
            Outcome::refused(error)
        } else if item["tracked"] == true {
            Outcome::Tracked(Vec::new())
        } else if item["provider"].is_null() {
            Outcome::refused("it has no customer-managed key")
        } else {
            add(client, &body(&item), false).await?
        };
        report.tell(printer, &format!("credential {}", cell(&item["credential"])), &item, &added)?;
    }
    report.end(printer)
}

/// What is sent for a project that was found. Its name is left to Atlas.
fn body(item: &Value) -> Map<String, Value> {
    let mails = item["owners"].as_array().into_iter().flatten().map(|it| it["mail"].clone());
    let mut tags = item["tags"].as_array().into_iter().flatten();
    let environment = tags.find(|it| it["key"] == "environment").map(|it| it["value"].clone());
    let fields = [
        ("groupId", Some(item["groupId"].clone())),
        ("owners", Some(mails.collect())),
        ("credential", Some(item["credential"].clone())),
        ("environment", environment),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_the_first_credentials_that_could_read_it() {
        let (mut all, mut known) = (Vec::new(), BTreeMap::new());
        for item in [
            json!({ "groupId": "a", "credential": "one", "error": "403" }),
            json!({ "groupId": null, "credential": "one", "error": "no list" }),
            json!({ "groupId": "b", "credential": "one", "error": null }),
            json!({ "groupId": "a", "credential": "two", "error": null }),
            json!({ "groupId": "b", "credential": "two", "error": "403" }),
            json!({ "groupId": "a", "credential": "three", "error": null }),
            json!({ "groupId": null, "credential": "three", "error": "no list" }),
        ] {
            take(&mut all, &mut known, item);
        }
        let told: Vec<_> = all.iter().map(|it| (it["groupId"].as_str(), cell(&it["credential"]))).collect();
        let owned = |it: &str| it.to_owned();
        assert_eq!(
            told,
            [
                (Some("a"), owned("two")),
                (None, owned("one")),
                (Some("b"), owned("one")),
                (None, owned("three"))
            ]
        );
    }
}
