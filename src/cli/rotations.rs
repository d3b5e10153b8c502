//! Verbs on rotations: propose, decide, show.
//!
//! An approval carries the hash of the proposal that was just read and shown, so that it never counts
//! for another proposal. Following a rotation is in `watch`.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::json;

use super::client::Client;
use super::failure::{Exit, Failure};
use super::printer::Printer;
use super::watch;
use crate::api::rotation::{Checked, Decision, JournalEntry, Proposal, Rotation};
use crate::domain::ids::RotationId;
use crate::domain::preflight::{Verdict, failed};

pub(super) const ROTATE_HELP: &str = "\
Examples:
  keywheel rotate payments-prod --to 1234abcd-12ab-34cd-56ef-1234567890ab --dry-run
  keywheel rotate payments-prod --to 1234abcd-12ab-34cd-56ef-1234567890ab --reason \"Q3\" --watch

--dry-run runs every check and proposes nothing; exit code 3 when a check fails.
With --watch the exit code is the rotation's: 0 completed, 3 rejected, cancelled, expired or superseded,
1 anything else, such as rolled back.";

pub(super) const COLUMNS: [&str; 7] =
    ["id", "projectName", "state", "cause", "requestedBy", "createdAt", "newKey"];
pub(super) const CHECKS: [&str; 3] = ["name", "result", "detail"];
pub(super) const JOURNAL: [&str; 7] = ["seq", "at", "actor", "kind", "fromState", "toState", "detail"];
pub(super) const FIELDS: [&str; 13] = [
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
pub(super) enum RotationVerb {
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
    #[command(
        after_help = "Examples:\n  keywheel rotation show 0198c5a0-0000-7000-8000-000000000000\n  keywheel rotation show payments-prod\n  keywheel rotation show @latest"
    )]
    Show {
        /// Its id or the beginning of it, @latest, or a project: its newest rotation
        #[arg(value_name = "ROTATION")]
        id: String,
    },
    /// Follow a rotation to its end
    #[command(
        after_help = "Examples:\n  keywheel rotation watch @latest\n  keywheel rotation watch payments-prod -o json\n\nExit code 0 when the rotation completed or was accepted, 3 when it was rejected, cancelled,
expired or superseded, 1 otherwise."
    )]
    Watch {
        /// Its id or the beginning of it, @latest, or a project: its newest rotation
        #[arg(value_name = "ROTATION")]
        id: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Decide {
    /// Its id or the beginning of it, @latest, or a project: its newest rotation
    #[arg(value_name = "ROTATION")]
    id: String,
    /// Why, for the journal and the audit log
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

pub(super) async fn run(verb: RotationVerb, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    match verb {
        RotationVerb::List { state, project, limit } => list(state, project, limit, client, printer).await,
        RotationVerb::Show { id } => show(client.rotation(&id).await?, client, printer).await,
        RotationVerb::Watch { id } => watch::follow(client.rotation(&id).await?, client, printer).await,
    }
}

pub(super) async fn rotate(args: Rotate, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    let group = client.project(&args.project).await?;
    let proposal = Proposal { new_key: args.to, reason: args.reason, dry_run: args.dry_run };
    let path = format!("/projects/{group}/rotations");
    let reply = client.send(Method::POST, &path, Some(&proposal)).await?;
    if args.dry_run {
        reply.print(printer, |printer, checked: Checked| dry_run(printer, &checked))?;
        let passes = failed(&reply.read::<Checked>()?.checks).is_none();
        return Ok(if passes { Exit::Done } else { Exit::Refused });
    }
    if !reply.created {
        printer.note("this was proposed before and is still open; no new rotation was created");
    }
    if !args.watch {
        reply.print(printer, shown)?;
        return Ok(Exit::Done);
    }
    let id = reply.read::<Rotation>()?.id;
    printer.note(&format!("rotation {id}; stopping to watch does not stop it"));
    watch::follow(id, client, printer).await
}

/// A rotation, and under a blank line its pre-flight checklist.
fn shown(printer: &mut Printer, mut rotation: Rotation) -> std::io::Result<()> {
    let checks = std::mem::take(&mut rotation.checks);
    printer.object(&rotation, &FIELDS)?;
    if checks.is_empty() {
        return Ok(());
    }
    printer.line("")?;
    printer.list(&checks, &CHECKS)
}

fn dry_run(printer: &mut Printer, checked: &Checked) -> std::io::Result<()> {
    printer
        .object(&json!({ "oldKey": checked.old_key, "newKey": checked.new_key }), &["oldKey", "newKey"])?;
    printer.list(&checked.checks, &CHECKS)?;
    printer.note("nothing was proposed");
    Ok(())
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
    let list = client.items("/rotations", &query, Some(limit)).await?;
    let more = list.more;
    if printer.is_json() {
        printer.json(&list.raw())?;
    } else {
        let items: Vec<Rotation> = list.read()?;
        if items.is_empty() {
            printer.note(&match (&state, &group) {
                (None, None) => "no rotations; `keywheel rotate PROJECT --to KEY` proposes one".to_owned(),
                (None, Some(_)) => {
                    "this project has no rotations; `keywheel rotate PROJECT --to KEY` proposes one"
                        .to_owned()
                }
                (Some(state), _) if state == "needs_operator" => "no rotation needs an operator".to_owned(),
                (Some(state), _) => format!("no rotation is {}", state.replace('_', " ")),
            });
        } else {
            printer.list(&items, &COLUMNS)?;
        }
        list.tell_corrupt(printer)?;
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
    let journal = client.items(&format!("/rotations/{id}/journal"), &[], None).await?;
    shown(printer, reply.read()?)?;
    let entries: Vec<JournalEntry> = journal.read()?;
    if !entries.is_empty() {
        printer.line("")?;
        printer.list(&entries, &JOURNAL)?;
    }
    journal.tell_corrupt(printer)?;
    Ok(Exit::Done)
}

/// A decision that is ready to be sent.
pub(super) struct Deciding<'a> {
    verb: &'static str,
    args: Decide,
    client: &'a Client,
}

pub(super) fn decide<'a>(verb: &'static str, args: Decide, client: &'a Client) -> Deciding<'a> {
    Deciding { verb, args, client }
}

impl Deciding<'_> {
    pub(super) async fn say(self, printer: &mut Printer) -> Result<Exit, Failure> {
        let id = self.client.rotation(&self.args.id).await?;
        let mut decision = Decision { comment: self.args.comment, proposal_hash: None };
        if self.verb == "approve" {
            let rotation: Rotation = self.client.get(&format!("/rotations/{id}"), &[]).await?.read()?;
            let Rotation { project_name, group_id, old_key, new_key, .. } = &rotation;
            printer.note(&format!("approving for {project_name} ({group_id}): {old_key} -> {new_key}"));
            for check in rotation.checks.iter().filter(|check| check.result != Verdict::Pass) {
                printer.note(&format!("  {}: {}: {}", check.name, check.result, check.detail));
            }
            decision.proposal_hash = Some(rotation.proposal_hash);
        }
        let path = format!("/rotations/{id}/{}", self.verb);
        let reply = self.client.send(Method::POST, &path, Some(&decision)).await?;
        reply.print(printer, shown)?;
        if self.verb == "resume" && !printer.is_json() {
            printer.note(&format!(
                "that was its state before: it reads Atlas now and goes on with the key that it finds; follow it with `keywheel rotation watch {id}`"
            ));
        }
        Ok(Exit::Done)
    }
}
