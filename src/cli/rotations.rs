//! Verbs on rotations: propose, decide, look.
//!
//! A yes is sent with the proposal's hash as it was just read and shown, so that it can never
//! count for something else. Following a rotation is in `watch`.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::{Client, page};
use super::failure::{Exit, Failure};
use super::printer::{Printer, cell};
use super::watch;
use crate::domain::ids::RotationId;

pub(super) const ROTATE_HELP: &str = "\
Examples:
  keywheel rotate payments-prod --to 1234abcd-12ab-34cd-56ef-1234567890ab --dry-run
  keywheel rotate payments-prod --to 1234abcd-12ab-34cd-56ef-1234567890ab --reason \"Q3\" --watch

--dry-run runs every check and proposes nothing; exit code 3 when a check fails.
With --watch the exit code is the rotation's: 0 completed, 3 called off or overtaken, 1 anything
else, such as rolled back.";

const COLUMNS: [&str; 7] = ["id", "projectName", "state", "cause", "requestedBy", "createdAt", "newKey"];
const FIELDS: [&str; 13] = [
    "id",
    "groupId",
    "projectName",
    "state",
    "cause",
    "hold",
    "provider",
    "oldKey",
    "newKey",
    "trigger",
    "reason",
    "requestedBy",
    "approvals",
];

#[derive(Debug, Args)]
pub(super) struct Rotate {
    /// Group id, or a name that only one project has
    project: String,
    /// The new key, written as the provider does
    #[arg(long, value_name = "KEY")]
    to: String,
    /// Why, for the approvers and the audit log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only check; propose nothing
    #[arg(long, conflicts_with = "watch")]
    dry_run: bool,
    /// Follow the rotation to its end
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List rotations, the newest first
    #[command(after_help = "Example:\n  keywheel rotation list --state needs_operator")]
    List {
        /// Only rotations in this state
        #[arg(long)]
        state: Option<String>,
        /// Only rotations of this project
        #[arg(long)]
        project: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one rotation and its journal
    #[command(after_help = "Example:\n  keywheel rotation show 0198c5a0-0000-7000-8000-000000000000")]
    Show {
        /// The rotation's id
        id: RotationId,
    },
    /// Follow a rotation to its end
    #[command(
        after_help = "Exit code 0 when the rotation completed or was accepted, 3 when it was rejected, cancelled,
expired or superseded, 1 otherwise."
    )]
    Watch {
        /// The rotation's id
        id: RotationId,
    },
}

#[derive(Debug, Args)]
pub(super) struct Decide {
    /// The rotation's id
    id: RotationId,
    /// Why, for the journal and the audit log
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

pub(super) async fn run(verb: Verb, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    match verb {
        Verb::List { state, project, limit } => list(state, project, limit, client, printer).await,
        Verb::Show { id } => show(id, client, printer).await,
        Verb::Watch { id } => watch::follow(id, client, printer).await,
    }
}

pub(super) async fn rotate(args: Rotate, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    let group = client.project(&args.project).await?;
    let mut body = Map::new();
    body.insert("newKey".to_owned(), args.to.into());
    if let Some(reason) = args.reason {
        body.insert("reason".to_owned(), reason.into());
    }
    if args.dry_run {
        body.insert("dryRun".to_owned(), true.into());
    }
    let path = format!("/projects/{group}/rotations");
    let reply = client.send(Method::POST, &path, Some(&Value::Object(body))).await?;
    if args.dry_run {
        printer.reply(&reply, dry_run)?;
        return Ok(if all_pass(&reply.json) { Exit::Done } else { Exit::Refused });
    }
    if !reply.created {
        printer.note("this was proposed before and is still open; nothing new was made");
    }
    if !args.watch {
        printer.reply(&reply, shown)?;
        return Ok(Exit::Done);
    }
    let id = reply.json["id"].as_str().and_then(|id| id.parse().ok());
    let id: RotationId =
        id.ok_or_else(|| Failure::Failed(anyhow::anyhow!("the server answered a rotation without an id")))?;
    printer.note(&format!("rotation {id}; stopping to watch does not stop it"));
    watch::follow(id, client, printer).await
}

/// A rotation, and under a blank line its pre-flight checklist.
fn shown(printer: &mut Printer, rotation: &Value) -> std::io::Result<()> {
    let mut fields = rotation.clone();
    let checks = fields.as_object_mut().and_then(|fields| fields.remove("checks"));
    printer.object(&fields, &FIELDS)?;
    let checks = checks.as_ref().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if checks.is_empty() {
        return Ok(());
    }
    printer.line("")?;
    printer.list(checks, &["name", "result", "detail"])
}

fn dry_run(printer: &mut Printer, reply: &Value) -> std::io::Result<()> {
    printer
        .object(&json!({ "oldKey": reply["oldKey"], "newKey": reply["newKey"] }), &["oldKey", "newKey"])?;
    let checks = reply["checks"].as_array().map_or(&[][..], Vec::as_slice);
    printer.list(checks, &["name", "result", "detail"])?;
    printer.note("nothing was proposed");
    Ok(())
}

/// Whether no check of a dry run says no.
fn all_pass(reply: &Value) -> bool {
    let mut checks = reply["checks"].as_array().into_iter().flatten();
    !checks.any(|check| {
        let result = check["result"].as_str().unwrap_or("failed");
        ["fail", "refuse", "error"].iter().any(|no| result.starts_with(no))
    })
}

async fn list(
    state: Option<String>,
    project: Option<String>,
    limit: usize,
    client: &Client,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    let group = match project {
        Some(project) => Some(client.project(&project).await?.to_string()),
        None => None,
    };
    let given = [("state", &state), ("groupId", &group)];
    let query: Vec<(&str, &str)> =
        given.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect();
    let (items, more) = client.items("/rotations", &query, Some(limit)).await?;
    if printer.is_json() {
        printer.json(&page(items))?;
    } else if items.is_empty() {
        printer.note("no rotations; `keywheel rotate PROJECT --to KEY` proposes one");
    } else {
        printer.list(&items, &COLUMNS)?;
    }
    if more {
        printer.note("there are more; --limit shows them");
    }
    Ok(Exit::Done)
}

async fn show(id: RotationId, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    let reply = client.get(&format!("/rotations/{id}"), &[]).await?;
    if printer.is_json() {
        printer.line(reply.text.trim_end())?;
        return Ok(Exit::Done);
    }
    let (journal, _) = client.items(&format!("/rotations/{id}/journal"), &[], None).await?;
    shown(printer, &reply.json)?;
    if !journal.is_empty() {
        printer.line("")?;
        printer.list(&journal, &["seq", "at", "actor", "kind", "fromState", "toState", "detail"])?;
    }
    Ok(Exit::Done)
}

/// A decision that is ready to be sent.
pub(super) struct Decision<'a> {
    verb: &'static str,
    args: Decide,
    client: &'a Client,
}

pub(super) fn decide<'a>(verb: &'static str, args: Decide, client: &'a Client) -> Decision<'a> {
    Decision { verb, args, client }
}

impl Decision<'_> {
    pub(super) async fn say(self, printer: &mut Printer) -> Result<Exit, Failure> {
        let id = self.args.id;
        let mut body = Map::new();
        if self.verb == "approve" {
            let rotation = self.client.get(&format!("/rotations/{id}"), &[]).await?.json;
            printer.note(&format!(
                "approving for {} ({}): {} -> {}",
                cell(&rotation["projectName"]),
                cell(&rotation["groupId"]),
                cell(&rotation["oldKey"]),
                cell(&rotation["newKey"])
            ));
            for check in rotation["checks"].as_array().into_iter().flatten() {
                if check["result"] != "pass" {
                    let words = ["name", "result", "detail"].map(|name| cell(&check[name]));
                    printer.note(&format!("  {}: {}: {}", words[0], words[1], words[2]));
                }
            }
            body.insert("proposalHash".to_owned(), rotation["proposalHash"].clone());
        }
        if let Some(comment) = self.args.comment {
            body.insert("comment".to_owned(), comment.into());
        }
        let path = format!("/rotations/{id}/{}", self.verb);
        let reply = self.client.send(Method::POST, &path, Some(&Value::Object(body))).await?;
        printer.reply(&reply, shown)?;
        Ok(Exit::Done)
    }
}
