//! Verbs on rotations: propose, decide, show.
//!
//! An approval carries the hash of the proposal that was just read and shown, so that it never counts
//! for another proposal. Following a rotation is in `watch`.

use clap::{Args, Subcommand};
use clap_complete::{ArgValueCandidates, ArgValueCompleter};
use reqwest::Method;
use serde_json::json;

use super::client::Client;
use super::failure::{Exit, Failure};
use super::many::{self, Chosen, Proposing};
use super::printer::Printer;
use super::tree::{Depth, tree};
use super::{LATEST, complete, watch};
use crate::api::project::NewestKey;
use crate::api::rotation::{Checked, Decision, JournalEntry, Proposal, Rotation};
use crate::domain::day::Planned;
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::preflight::{Verdict, failed};
use crate::domain::time::{BadTime, Span};

pub(super) const ROTATE_HELP: &str = "\
Examples:
  keywheel rotate payments-prod --to 1234abcd-12ab-34cd-56ef-1234567890ab --dry-run
  keywheel rotate payments-prod --to latest --reason \"Q3\" --watch
  keywheel rotate payments-prod --to latest --on 2026-12-12
  keywheel rotate payments-prod --to latest --emergency --reason \"the old key leaked\"
  keywheel rotate --environment prod --provider AZURE --due 14d --to latest

`latest` is the newest usable key that the project's lookup names: a version at Azure and Google, and on AWS
the key of the project's alias. With a filter a plan is printed first, and each project is proposed by itself:
exit code 0 when none was refused, 3 when one was, 1 when one failed. A project without a lookup is skipped.
An emergency needs a person whom policy.emergency names, still takes approvals, and leaves a review that
somebody else closes (`keywheel review list`). Freezes bind it, too.
--dry-run runs every check and proposes nothing; exit code 3 when a check fails.
With --watch the exit code is the rotation's: 0 completed, 3 rejected, cancelled, expired or superseded, 1 anything else, such as rolled back.";

pub(super) const COLUMNS: [&str; 7] =
    ["id", "projectName", "state", "cause", "requestedBy", "createdAt", "newKey"];
pub(super) const CHECKS: [&str; 3] = ["name", "result", "detail"];
pub(super) const JOURNAL: [&str; 7] = ["seq", "at", "actor", "kind", "fromState", "toState", "detail"];

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Rotate {
    /// Group id, or a name that only one project has
    #[arg(
        required_unless_present_any = ["Chosen", "due"],
        conflicts_with_all = ["Chosen", "due"],
        add = ArgValueCompleter::new(complete::projects)
    )]
    project: Option<String>,
    #[command(flatten)]
    chosen: Chosen,
    /// Every project whose key is overdue or due within this time, such as 14d
    #[arg(long, value_name = "SPAN", value_parser = span)]
    due: Option<Span>,
    /// The new key, written as the provider does, or `latest`
    #[arg(long, value_name = "KEY", add = ArgValueCandidates::new(complete::keys))]
    to: String,
    /// Why, for the approvers and the audit log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Send nothing before this day or instant, such as 2026-12-12; a day is one of the project's window
    #[arg(long, value_name = "DATE", value_parser = date)]
    on: Option<Planned>,
    /// Fewer approvals and no window, where `policy.emergency` allows you that; another person reviews it afterwards
    #[arg(long, requires = "reason", conflicts_with_all = ["Chosen", "due", "on"])]
    emergency: bool,
    /// Only check; propose nothing
    #[arg(long, conflicts_with = "watch")]
    dry_run: bool,
    /// Follow the rotation to its end
    #[arg(long, conflicts_with_all = ["Chosen", "due"])]
    watch: bool,
    /// Show every check, not only their number
    #[arg(long)]
    checks: bool,
    /// Propose the plan of a filter without asking
    #[arg(long, conflicts_with = "project")]
    yes: bool,
}

fn date(text: &str) -> Result<Planned, BadTime> {
    text.parse()
}

fn span(text: &str) -> Result<Span, BadTime> {
    text.parse()
}

#[derive(Debug, Subcommand)]
pub(super) enum RotationVerb {
    /// List rotations, the newest first
    #[command(
        after_help = "Examples:\n  keywheel rotation list --state needs_operator\n  keywheel rotation list --project payments-prod --limit 5"
    )]
    List {
        /// Only rotations in this state
        #[arg(long, add = ArgValueCandidates::new(complete::states))]
        state: Option<String>,
        /// Only rotations of this project
        #[arg(long, add = ArgValueCompleter::new(complete::projects))]
        project: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one rotation: its states, what it waits for and how to end it
    #[command(
        after_help = "Examples:\n  keywheel rotation show 0198c5a0-0000-7000-8000-000000000000\n  keywheel rotation show payments-prod --checks\n  keywheel rotation show @latest --journal"
    )]
    Show {
        /// Its id or the beginning of it, @latest, or a project: its newest rotation
        #[arg(value_name = "ROTATION", add = ArgValueCandidates::new(complete::rotations))]
        id: String,
        /// Show every check, not only their number
        #[arg(long)]
        checks: bool,
        /// Show every entry of the journal too
        #[arg(long)]
        journal: bool,
    },
    /// Follow a rotation to its end
    #[command(
        after_help = "Examples:\n  keywheel rotation watch @latest\n  keywheel rotation watch payments-prod -o json\n\nA terminal shows a tree that follows the rotation, a pipe one line for each entry of its journal.\n\nExit code 0 when the rotation completed or was accepted, 3 when it was rejected, cancelled, expired or superseded, 1 otherwise."
    )]
    Watch {
        /// Its id or the beginning of it, @latest, or a project: its newest rotation
        #[arg(value_name = "ROTATION", add = ArgValueCandidates::new(complete::rotations))]
        id: String,
        /// Show every check, not only their number
        #[arg(long)]
        checks: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Decide {
    /// Its id or the beginning of it, @latest, or a project: its newest rotation
    #[arg(value_name = "ROTATION", add = ArgValueCandidates::new(complete::rotations))]
    id: String,
    /// Why, for the journal and the audit log
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// The end of the new key; only an approval takes it.
    #[arg(skip)]
    tail: Option<String>,
}

impl From<(String, Option<String>, Option<String>)> for Decide {
    fn from((id, comment, tail): (String, Option<String>, Option<String>)) -> Self {
        Self { id, comment, tail }
    }
}

#[derive(Debug, Args)]
pub(super) struct Comment {
    /// Its id or the beginning of it, @latest, or a project: its newest rotation
    #[arg(value_name = "ROTATION", add = ArgValueCandidates::new(complete::rotations))]
    id: String,
    /// The text, for the journal and the audit log
    #[arg(long, value_name = "TEXT")]
    comment: String,
}

impl From<Comment> for Decide {
    fn from(Comment { id, comment }: Comment) -> Self {
        Self { id, comment: Some(comment), tail: None }
    }
}

pub(super) async fn run(verb: RotationVerb, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    match verb {
        RotationVerb::List { state, project, limit } => list(state, project, limit, client, printer).await,
        RotationVerb::Show { id, checks, journal } => {
            show(client.rotation(&id).await?, depth(checks), journal, client, printer).await
        }
        RotationVerb::Watch { id, checks } => {
            watch::follow(client.rotation(&id).await?, depth(checks), client, printer).await
        }
    }
}

pub(super) async fn rotate(args: Rotate, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    let Rotate { project, chosen, due, to, reason, on, emergency, dry_run, yes, .. } = args;
    let planned_for = on.map(|it| it.to_string());
    let Some(project) = project else {
        if to != LATEST {
            return Err(Failure::Usage(
                "each project has its own key, so many projects take --to latest; name one project to propose this key"
                    .to_owned(),
            ));
        }
        return many::propose(Proposing { chosen, due, reason, planned_for, dry_run, yes }, client, printer)
            .await;
    };
    let group = client.project(&project).await?;
    let new_key = if to == LATEST { latest(&group, client, printer).await? } else { to };
    let proposal = Proposal { new_key, reason, planned_for, emergency, dry_run };
    let path = format!("/projects/{group}/rotations");
    let reply = client.send(Method::POST, &path, Some(&proposal)).await?;
    if args.dry_run {
        reply.print(printer, |printer, checked: Checked| show_checked(printer, &checked))?;
        let passes = failed(&reply.read::<Checked>()?.checks).is_none();
        return Ok(if passes { Exit::Done } else { Exit::Refused });
    }
    if !reply.created {
        printer.note("this was proposed before and is still open; no new rotation was created");
    }
    let depth = depth(args.checks);
    if !args.watch {
        reply.print(printer, |printer, rotation: Rotation| shown(printer, &rotation, &[], depth))?;
        return Ok(Exit::Done);
    }
    let id = reply.read::<Rotation>()?.id;
    printer.note(&format!("rotation {id}; stopping to watch does not stop it"));
    watch::follow(id, depth, client, printer).await
}

/// The newest key of a project, which is printed before it is used.
async fn latest(group: &GroupId, client: &Client, printer: &mut Printer) -> Result<String, Failure> {
    let newest = client.get(&format!("/projects/{group}/newest-key"), &[]).await?;
    let NewestKey { key, kms, alias, created_at, .. } = newest.read()?;
    let alias = alias.map(|alias| format!(", {alias}")).unwrap_or_default();
    let made = created_at.map(|at| format!(", created {at}")).unwrap_or_default();
    printer.note(&format!("the newest key is {key} (lookup {kms}{alias}{made})"));
    Ok(key)
}

fn depth(checks: bool) -> Depth {
    if checks { Depth::Checks } else { Depth::Full }
}

/// A rotation as a tree, with its readings where the journal is known.
fn shown(
    printer: &mut Printer,
    rotation: &Rotation,
    journal: &[JournalEntry],
    depth: Depth,
) -> std::io::Result<()> {
    printer.lines(&tree(rotation, journal, depth, printer.now(), &printer.screen()))
}

fn show_checked(printer: &mut Printer, checked: &Checked) -> std::io::Result<()> {
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

async fn show(
    id: RotationId,
    depth: Depth,
    table: bool,
    client: &Client,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    let reply = client.get(&format!("/rotations/{id}"), &[]).await?;
    if printer.is_json() {
        printer.line(reply.text.trim_end())?;
        return Ok(Exit::Done);
    }
    let journal = client.items(&format!("/rotations/{id}/journal"), &[], None).await?;
    let entries: Vec<JournalEntry> = journal.read()?;
    shown(printer, &reply.read()?, &entries, depth)?;
    if table && !entries.is_empty() {
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
        let mut decision = Decision { comment: self.args.comment, proposal_hash: None, tail: self.args.tail };
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
        reply.print(printer, |printer, rotation: Rotation| shown(printer, &rotation, &[], Depth::Full))?;
        if self.verb == "resume" && !printer.is_json() {
            printer.note(&format!(
                "that was its state before: it reads Atlas now and goes on with the key that it finds; follow it with `keywheel rotation watch {id}`"
            ));
        }
        Ok(Exit::Done)
    }
}
