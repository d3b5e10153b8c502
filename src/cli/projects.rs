//! Verbs on projects.
//!
//! A project is given by its group id or by a name that only one project has. What a field may
//! hold is the server's to decide; here only what cannot be sent at all is refused.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::{Client, page};
use super::failure::{Exit, Failure};
use super::printer::Printer;
use crate::domain::ids::GroupId;
use crate::domain::time::{BadTime, Clock, Span, SystemClock, Timestamp};

const COLUMNS: [&str; 7] = ["groupId", "name", "provider", "status", "due", "keySince", "currentKey"];
const FIELDS: [&str; 16] = [
    "groupId",
    "name",
    "status",
    "provider",
    "currentKey",
    "valid",
    "keySince",
    "keySinceSource",
    "due",
    "openRotation",
    "owners",
    "environment",
    "credential",
    "kms",
    "alias",
    "lastCheckedAt",
];

#[derive(Debug, Args)]
pub(super) struct Named {
    /// Group id, or a name that only one project has
    project: String,
}

#[derive(Debug, Args)]
pub(super) struct Due {
    /// How far to look ahead, such as 14d
    #[arg(long, value_name = "SPAN", default_value = "30d", value_parser = span)]
    within: Span,
    /// Only projects of this owner
    #[arg(long, value_name = "MAIL")]
    owner: Option<String>,
}

fn span(text: &str) -> Result<Span, BadTime> {
    text.parse()
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Track a project; its key is read from Atlas at once
    #[command(
        after_help = "Example:\n  keywheel project add 32b6e34b3d91647abb20e7b8 --owner team@example.com --since 2026-06-01"
    )]
    Add {
        /// The project's id in Atlas: 24 hexadecimal digits
        group_id: GroupId,
        #[command(flatten)]
        fields: Fields,
    },
    /// List what the server's credentials can see in Atlas and is not tracked yet, and track it with --add
    #[command(
        after_help = "Example:\n  keywheel project discover --tag environment=prod\n  keywheel project discover --credential default --add\n\nExit code 1 when --add could not add all of it. An owner is whoever is one in the project, by a team, or in the\norganization; who has not accepted an invitation is none."
    )]
    Discover(super::discover::Discover),
    /// Track the projects of a file (CSV, YAML or JSON): one line of report for each row
    #[command(
        after_help = "Fields: groupId, name, owners (in CSV separated by \";\"), credential, environment, since, kms, alias, policy (a\nJSON object). Only groupId must be there. Projects that are tracked already are left as they are.\n\nExample:\n  keywheel project import fleet.csv --dry-run\n\n  groupId,owners,environment,since\n  32b6e34b3d91647abb20e7b8,ada@example.com;bob@example.com,prod,2026-06-01\n\nExit code 1 when a row was refused; the others are added all the same."
    )]
    Import(super::import::Import),
    /// List tracked projects
    #[command(after_help = "Example:\n  keywheel project list --status overdue")]
    List(Filter),
    /// Show one project
    #[command(after_help = "Example:\n  keywheel project show payments-prod")]
    Show(Named),
    /// Change what Keywheel knows about a project; nothing changes in Atlas
    #[command(
        after_help = "Example:\n  keywheel project edit payments-prod --owner a@example.com --policy '{\"approvals\": 2}'"
    )]
    Edit {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        fields: Fields,
    },
    /// Stop tracking a project; its history stays, and nothing changes in Atlas
    #[command(after_help = "Example:\n  keywheel project remove payments-prod")]
    Remove(Named),
}

#[derive(Debug, Default, Args)]
pub(super) struct Fields {
    /// Mail address of someone responsible; may be given more than once
    #[arg(long = "owner", value_name = "MAIL")]
    owners: Vec<String>,
    /// Since when the present key serves
    #[arg(long, value_name = "DATE", value_parser = instant)]
    since: Option<Timestamp>,
    /// Name to show, instead of Atlas' own
    #[arg(long)]
    name: Option<String>,
    /// Which of atlas.credentials to use
    #[arg(long, value_name = "NAME")]
    credential: Option<String>,
    /// A tag such as prod; an empty one takes it away
    #[arg(long, value_name = "TAG")]
    environment: Option<String>,
    /// Which of the configured kms look-ups knows its keys; an empty one takes it away
    #[arg(long, value_name = "NAME")]
    kms: Option<String>,
    /// On AWS, the alias that points at the key to use, such as alias/atlas-prod; an empty one takes it away
    #[arg(long, value_name = "ALIAS")]
    alias: Option<String>,
    /// What this project sets for itself of the policy, as a JSON object; replaces what it set before, {} takes all back
    #[arg(long, value_name = "JSON", value_parser = object)]
    policy: Option<Value>,
}

#[derive(Debug, Args)]
pub(super) struct Filter {
    /// Only projects of this status, such as `overdue`
    #[arg(long)]
    status: Option<String>,
    /// Only projects of this owner
    #[arg(long, value_name = "MAIL")]
    owner: Option<String>,
    /// Only projects on AWS, AZURE or GCP
    #[arg(long)]
    provider: Option<String>,
}

fn instant(text: &str) -> Result<Timestamp, BadTime> {
    text.parse()
}

/// Text that is not a JSON object.
#[derive(Debug, thiserror::Error)]
enum NoObject {
    #[error("this takes a JSON object")]
    OtherValue,
    #[error("this takes a JSON object: {0}")]
    NotJson(#[from] serde_json::Error),
}

fn object(text: &str) -> Result<Value, NoObject> {
    let value: Value = serde_json::from_str(text)?;
    if value.is_object() { Ok(value) } else { Err(NoObject::OtherValue) }
}

impl Fields {
    fn body(self) -> Map<String, Value> {
        let owners = (!self.owners.is_empty()).then(|| json!(self.owners));
        let fields = [
            ("owners", owners),
            ("keySince", self.since.map(|at| json!(at))),
            ("name", self.name.map(Value::from)),
            ("credential", self.credential.map(Value::from)),
            ("environment", self.environment.map(Value::from)),
            ("kms", self.kms.map(Value::from)),
            ("alias", self.alias.map(Value::from)),
            ("policy", self.policy),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

pub(super) async fn run(verb: Verb, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    match verb {
        Verb::Add { group_id, fields } => {
            let mut body = fields.body();
            body.insert("groupId".to_owned(), json!(group_id));
            let reply = client.send(Method::POST, "/projects", Some(&Value::Object(body))).await?;
            printer.reply(&reply, |printer, project| printer.object(project, &FIELDS))?;
        }
        Verb::Discover(args) => return super::discover::run(&args, client, printer).await,
        Verb::Import(args) => return super::import::run(&args, client, printer).await,
        Verb::List(filter) => list(&filter, client, printer).await?,
        Verb::Show(named) => {
            let id = client.project(&named.project).await?;
            let reply = client.get(&format!("/projects/{id}"), &[]).await?;
            printer.reply(&reply, |printer, project| printer.object(project, &FIELDS))?;
        }
        Verb::Edit { named, fields } => {
            let body = fields.body();
            if body.is_empty() {
                return Err(Failure::Usage(
                    "nothing to change: name at least one field, see `keywheel project edit --help`"
                        .to_owned(),
                ));
            }
            let id = client.project(&named.project).await?;
            let reply =
                client.send(Method::PATCH, &format!("/projects/{id}"), Some(&Value::Object(body))).await?;
            printer.reply(&reply, |printer, project| printer.object(project, &FIELDS))?;
        }
        Verb::Remove(named) => {
            let id = client.project(&named.project).await?;
            client.send(Method::DELETE, &format!("/projects/{id}"), None).await?;
            printer.note(&format!("the project {id} is no longer tracked; its key in Atlas stays as it is"));
        }
    }
    Ok(Exit::Done)
}

async fn list(filter: &Filter, client: &Client, printer: &mut Printer) -> Result<(), Failure> {
    let given = [("status", &filter.status), ("owner", &filter.owner), ("provider", &filter.provider)];
    let query: Vec<(&str, &str)> =
        given.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect();
    let (items, _) = client.items("/projects", &query, None).await?;
    if printer.is_json() {
        printer.json(&page(items))?;
    } else if items.is_empty() {
        printer.note(if query.is_empty() {
            "no projects; `keywheel project add GROUP_ID` tracks one, `keywheel project discover` shows what there is"
        } else {
            "no project is like that; `keywheel project list` shows them all"
        });
    } else {
        printer.list(&items, &COLUMNS)?;
    }
    Ok(())
}

/// Days until `due`, or since, in words.
fn left(due: Timestamp, now: Timestamp) -> String {
    const DAY: u64 = 86_400;
    let days = |count: u64| if count == 1 { "1 day".to_owned() } else { format!("{count} days") };
    if due > now {
        format!("in {}", days(now.until(due).as_secs().div_ceil(DAY)))
    } else {
        format!("{} overdue", days(now.since(due).as_secs() / DAY))
    }
}

pub(super) async fn due(args: &Due, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    let query: Vec<(&str, &str)> = args.owner.as_deref().map(|owner| ("owner", owner)).into_iter().collect();
    let (items, _) = client.items("/projects", &query, None).await?;
    let now = SystemClock.now();
    let end = now + args.within.get();
    let mut due: Vec<(Timestamp, Value)> = items
        .into_iter()
        .filter_map(|item| Some((item["due"].as_str()?.parse().ok()?, item)))
        .filter(|(due, _)| *due <= end)
        .collect();
    due.sort_by_key(|(due, _)| *due);
    if printer.is_json() {
        printer.json(&page(due.into_iter().map(|(_, item)| item).collect()))?;
        return Ok(Exit::Done);
    }
    if due.is_empty() {
        printer.note(&format!("no key is due within {}; `keywheel status` shows what is next", args.within));
        return Ok(Exit::Done);
    }
    let rows: Vec<_> = due
        .into_iter()
        .map(|(due, mut item)| {
            item["left"] = left(due, now).into();
            if item["owners"].as_array().is_some_and(Vec::is_empty) {
                item["owners"] = "nobody".into();
            }
            item
        })
        .collect();
    printer.list(&rows, &["left", "due", "groupId", "name", "status", "owners", "currentKey"])?;
    Ok(Exit::Done)
}

pub(super) async fn history(named: &Named, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    let id = client.project(&named.project).await?.to_string();
    let (keys, _) = client.items(&format!("/projects/{id}/keys"), &[], None).await?;
    let (rotations, _) = client.items("/rotations", &[("groupId", &id)], None).await?;
    if printer.is_json() {
        printer.json(&json!({ "keys": keys, "rotations": rotations }))?;
        return Ok(Exit::Done);
    }
    if keys.is_empty() {
        printer.note("no key is recorded yet");
    } else {
        printer.line("keys:")?;
        printer.list(&keys, &["since", "until", "source", "key"])?;
    }
    if rotations.is_empty() {
        printer.note("no rotations yet; `keywheel rotate PROJECT --to KEY` proposes one");
    } else {
        printer.line("\nrotations:")?;
        printer.list(
            &rotations,
            &["createdAt", "finishedAt", "state", "cause", "requestedBy", "id", "newKey"],
        )?;
    }
    Ok(Exit::Done)
}

pub(super) async fn why(named: &Named, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    let id = client.project(&named.project).await?;
    let reply = client.get(&format!("/projects/{id}/why"), &[]).await?;
    printer.reply(&reply, |printer, why| {
        printer.line(&format!("status: {}", super::printer::cell(&why["status"])))?;
        let sentences = why["sentences"].as_array().into_iter().flatten();
        for sentence in sentences {
            printer.line(&super::printer::cell(sentence))?;
        }
        for line in why["drift"]["terraform"].as_array().into_iter().flatten() {
            printer.line(&format!("    {}", super::printer::cell(line)))?;
        }
        Ok(())
    })?;
    Ok(Exit::Done)
}
