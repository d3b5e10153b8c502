//! Verbs on projects.
//!
//! A project is given by its group id or by a name that only one project has. The server validates the
//! fields; only a value that cannot be sent is refused here.

use clap::{Args, Subcommand};
use clap_complete::{ArgValueCandidates, ArgValueCompleter};
use reqwest::Method;
use serde::Serialize;
use serde_json::json;

use super::client::Client;
use super::complete;
use super::failure::{Exit, Failure};
use super::printer::Printer;
use super::reply::corrupt_lines;
use crate::api::ConditionPage;
use crate::api::project::{
    Acknowledgement, Condition, DueAcknowledgement, Key, NewProject, NewSilence, Project, ProjectEdit,
    RefreshedProjects, Why,
};
use crate::api::rotation::Rotation;
use crate::domain::day::Planned;
use crate::domain::ids::GroupId;
use crate::domain::patch::Patch;
use crate::domain::policy::Window;
use crate::domain::project::PolicyEdit;
use crate::domain::text::{visible, with_nearest};
use crate::domain::time::{BadTime, Clock, Span, SystemClock, Timestamp};

pub(super) const COLUMNS: [&str; 7] =
    ["groupId", "name", "provider", "status", "due", "keySince", "currentKey"];
pub(super) const KEYS: [&str; 4] = ["since", "until", "source", "key"];
pub(super) const ROTATIONS: [&str; 7] =
    ["createdAt", "finishedAt", "state", "cause", "requestedBy", "id", "newKey"];
/// `left` is computed for the row; the rest are fields of the project.
pub(super) const DUE: [&str; 8] =
    ["left", "due", "planned", "groupId", "name", "status", "owners", "currentKey"];
pub(super) const FIELDS: [&str; 21] = [
    "groupId",
    "name",
    "status",
    "conditions",
    "acknowledgedDue",
    "silence",
    "provider",
    "currentKey",
    "valid",
    "keySince",
    "keySinceSource",
    "keyEndsAt",
    "due",
    "openRotation",
    "owners",
    "environment",
    "credential",
    "kms",
    "alias",
    "loosenings",
    "lastCheckedAt",
];

#[derive(Debug, Args)]
pub(super) struct Named {
    /// Group id, or a name that only one project has
    #[arg(add = ArgValueCompleter::new(complete::projects))]
    project: String,
}

#[derive(Debug, Args)]
pub(super) struct Acknowledge {
    /// Group id, or a name that only one project has
    #[arg(required_unless_present = "installation", add = ArgValueCompleter::new(complete::projects))]
    project: Option<String>,
    /// Which condition, such as `invalid`, or `due` with --until; without it, every one that is told again and again
    #[arg(add = ArgValueCandidates::new(complete::conditions))]
    kind: Option<String>,
    /// A condition of the installation, such as `not_sending`, instead of a project's
    #[arg(
        long,
        value_name = "KIND",
        conflicts_with_all = ["project", "kind"],
        add = ArgValueCandidates::new(complete::conditions)
    )]
    installation: Option<String>,
    /// With `due`: the day on which the key is to be replaced; nobody is reminded of it before
    #[arg(long, value_name = "DATE", value_parser = planned, requires = "project")]
    until: Option<Planned>,
    /// Words for the audit log
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

/// The word for the due date, in the place of a condition.
const ACK_DUE: &str = "due";

fn planned(text: &str) -> Result<Planned, BadTime> {
    text.parse()
}

#[derive(Debug, Args)]
#[group(id = "how long", required = true, multiple = false, args = ["span", "end"])]
pub(super) struct Silencing {
    #[command(flatten)]
    named: Named,
    /// For how long from now on, such as 4h; at most 24h
    #[arg(long = "for", value_name = "SPAN", value_parser = span)]
    span: Option<Span>,
    /// End the silence
    #[arg(long)]
    end: bool,
    /// Words for the audit log
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Due {
    /// How far to look ahead, such as 14d
    #[arg(long, value_name = "SPAN", default_value = "30d", value_parser = span)]
    within: Span,
    /// Only projects of this owner
    #[arg(long, value_name = "MAIL", add = ArgValueCandidates::new(complete::owners))]
    owner: Option<String>,
}

fn span(text: &str) -> Result<Span, BadTime> {
    text.parse()
}

#[derive(Debug, Subcommand)]
pub(super) enum ProjectVerb {
    /// Track a project; its key is read from Atlas at once
    #[command(
        after_help = "Examples:\n  keywheel project add 32b6e34b3d91647abb20e7b8\n  keywheel project add 32b6e34b3d91647abb20e7b8 --owner team@example.com --since 2026-06-01"
    )]
    Add {
        /// The project's id in Atlas: 24 hexadecimal digits
        group_id: GroupId,
        #[command(flatten)]
        fields: Fields,
    },
    /// List the untracked projects that the server's credentials can see in Atlas, and track them with --add
    #[command(
        after_help = "Examples:\n  keywheel project discover --tag environment=prod\n  keywheel project discover --credential default --add\n\nExit code 1 when --add could not add all of it. Owners hold the role in the project, by a team, or in the organization; a person who has not accepted an invitation is not one."
    )]
    Discover(super::discover::Discover),
    /// Track the projects of a file (CSV, YAML or JSON): one line of report for each row
    #[command(
        after_help = "Fields: groupId, name, owners (in CSV separated by \";\"), credential, environment, since, kms, alias, policy (a JSON object). Only groupId must be there. Projects that are tracked already are left as they are; with --update they get the values of the file. An empty cell changes nothing.\n\nExamples:\n  keywheel project import fleet.csv --dry-run\n  keywheel project import fleet.csv --update\n\n  groupId,owners,environment,since\n  32b6e34b3d91647abb20e7b8,ada@example.com;bob@example.com,prod,2026-06-01\n\nExit code 1 when a row was refused; the others are taken all the same."
    )]
    Import(super::import::Import),
    /// Write the tracked projects as a file that `project import` reads back (CSV, YAML or JSON)
    #[command(
        after_help = "Examples:\n  keywheel project export --out fleet.csv\n  keywheel project export --format yaml > fleet.yaml\n\nOf the rules, the file has those in which a project differs from the defaults. In CSV, a text that a\nspreadsheet would take for a formula begins with an apostrophe; an import removes it."
    )]
    Export(super::export::Export),
    /// List tracked projects
    #[command(after_help = "Examples:\n  keywheel project list\n  keywheel project list --status overdue")]
    List(Filter),
    /// Show one project
    #[command(
        after_help = "Examples:\n  keywheel project show payments-prod\n  keywheel project show 32b6e34b3d91647abb20e7b8 -o json"
    )]
    Show(Named),
    /// Change Keywheel's record of a project; nothing changes in Atlas
    #[command(
        after_help = "Examples:\n  keywheel project edit payments-prod --owner ada@example.com --owner bob@example.com\n  keywheel project edit payments-prod --policy '{\"approvals\": 2}'"
    )]
    Edit {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        fields: Fields,
    },
    /// Read a project, or all of them, from Atlas now
    #[command(
        after_help = "Examples:\n  keywheel project refresh payments-prod\n  keywheel project refresh --all"
    )]
    Refresh {
        /// Group id, or a name that only one project has
        #[arg(required_unless_present = "all", add = ArgValueCompleter::new(complete::projects))]
        project: Option<String>,
        /// Every project, as soon as Atlas allows
        #[arg(long, conflicts_with = "project")]
        all: bool,
    },
    /// Stop tracking a project; its history stays, and nothing changes in Atlas
    #[command(
        after_help = "Examples:\n  keywheel project remove payments-prod\n  keywheel project remove 32b6e34b3d91647abb20e7b8"
    )]
    Remove(Named),
}

#[derive(Debug, Default, Args)]
pub(super) struct Fields {
    /// Mail address of someone responsible; may be given more than once
    #[arg(long = "owner", value_name = "MAIL", add = ArgValueCandidates::new(complete::owners))]
    owners: Vec<String>,
    /// Since when the present key serves
    #[arg(long, value_name = "DATE", value_parser = instant)]
    since: Option<Timestamp>,
    /// Name to show, instead of Atlas' own
    #[arg(long)]
    name: Option<String>,
    /// Which of atlas.credentials to use
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(complete::credentials))]
    credential: Option<String>,
    /// A tag such as prod, or empty for none; without it, a new project takes its tag "environment" in Atlas
    #[arg(long, value_name = "TAG", add = ArgValueCandidates::new(complete::environments))]
    environment: Option<String>,
    /// Which of the configured kms lookups finds its keys; an empty one removes it
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(complete::lookups))]
    kms: Option<String>,
    /// On AWS, the alias that points at the key to use, such as alias/atlas-prod; an empty one removes it
    #[arg(long, value_name = "ALIAS")]
    alias: Option<String>,
    /// Rules that differ from the defaults, as a JSON object; the others stay as they are, null clears one
    #[arg(long, value_name = "JSON", value_parser = policy)]
    policy: Option<PolicyEdit>,
}

#[derive(Debug, Args)]
pub(super) struct Filter {
    /// Only projects of this status, such as `overdue`
    #[arg(long, add = ArgValueCandidates::new(complete::statuses))]
    status: Option<String>,
    /// Only projects of this owner
    #[arg(long, value_name = "MAIL", add = ArgValueCandidates::new(complete::owners))]
    owner: Option<String>,
    /// Only projects on AWS, AZURE or GCP
    #[arg(long, add = ArgValueCandidates::new(complete::providers))]
    provider: Option<String>,
}

fn instant(text: &str) -> Result<Timestamp, BadTime> {
    text.parse()
}

/// Text that is not a policy.
#[derive(Debug, thiserror::Error)]
enum NoPolicy {
    #[error("this takes a JSON object")]
    OtherValue,
    #[error("this takes a JSON object: policy.{}: {}", .0.path(), with_nearest(&.0.inner().to_string()))]
    Unread(#[from] serde_path_to_error::Error<serde_json::Error>),
}

fn policy(text: &str) -> Result<PolicyEdit, NoPolicy> {
    // Serde would also read the fields from an array, by their order.
    if !text.trim_start().starts_with('{') {
        return Err(NoPolicy::OtherValue);
    }
    Ok(serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(text))?)
}

impl Fields {
    fn added(self, group_id: &GroupId) -> NewProject {
        NewProject {
            group_id: group_id.to_string(),
            name: self.name,
            owners: self.owners,
            credential: self.credential,
            environment: self.environment,
            kms: self.kms,
            alias: self.alias,
            key_since: self.since,
            policy: self.policy.and_then(|policy| policy.onto(None)),
            dry_run: false,
        }
    }

    fn edited(self) -> ProjectEdit {
        fn given<T>(field: Option<T>) -> Patch<T> {
            field.map_or(Patch::Absent, Patch::Value)
        }
        ProjectEdit {
            name: given(self.name),
            owners: given(Some(self.owners).filter(|owners| !owners.is_empty())),
            credential: given(self.credential),
            environment: given(self.environment),
            kms: given(self.kms),
            alias: given(self.alias),
            key_since: given(self.since),
            policy: given(self.policy),
        }
    }
}

/// The next three openings of a window.
pub(super) fn opens(window: &Window) -> String {
    let openings = window.openings(SystemClock.now()).join(", ");
    format!("a window opens at {openings} ({}), for {}", window.timezone, window.duration)
}

fn show(printer: &mut Printer, project: &Project) -> std::io::Result<()> {
    let mut shown = serde_json::to_value(project)?;
    // The rules in force are shown, which contain these.
    shown["policyOverride"] = serde_json::Value::Null;
    shown["conditions"] = project.conditions.iter().map(condition).collect();
    shown["loosenings"] = project.loosenings.iter().map(super::loosenings::line).collect();
    if project.rules_kept {
        printer.note("this project was tracked before and keeps the rules that it had");
    }
    if let Some(it) = &project.acknowledged_due {
        shown["acknowledgedDue"] = format!("planned for {} by {}", it.until, it.by).into();
    }
    if let Some(it) = &project.silence {
        shown["silence"] = format!("mails wait until {} by {}", it.until, it.by).into();
    }
    printer.object(&shown, &FIELDS)
}

/// A condition in one line.
fn condition(it: &Condition) -> String {
    let mut line = it.kind.to_string();
    let mut add = |text: String| line.push_str(&text);
    if let Some(cause) = &it.cause {
        add(format!(" ({cause})"));
    }
    if let Some(since) = it.since {
        add(format!(" since {since}"));
    }
    match it.told {
        0 => {}
        1 => add(", told once".to_owned()),
        times => add(format!(", told {times} times")),
    }
    if let Some(by) = &it.acknowledged_by {
        add(format!(", acknowledged by {by}"));
    }
    line
}

pub(super) async fn run(verb: ProjectVerb, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    match verb {
        ProjectVerb::Add { group_id, fields } => {
            let reply = client.send(Method::POST, "/projects", Some(&fields.added(&group_id))).await?;
            reply.print(printer, |printer, project| show(printer, &project))?;
        }
        ProjectVerb::Discover(args) => return super::discover::run(&args, client, printer).await,
        ProjectVerb::Export(args) => return super::export::run(&args, client, printer).await,
        ProjectVerb::Import(args) => return super::import::run(&args, client, printer).await,
        ProjectVerb::List(filter) => list(&filter, client, printer).await?,
        ProjectVerb::Show(named) => {
            let id = client.project(&named.project).await?;
            let reply = client.get(&format!("/projects/{id}"), &[]).await?;
            reply.print(printer, |printer, project| show(printer, &project))?;
        }
        ProjectVerb::Edit { named, fields } => {
            let edit = fields.edited();
            if edit == ProjectEdit::default() {
                return Err(Failure::Usage(
                    "nothing to change: name at least one field, see `keywheel project edit --help`"
                        .to_owned(),
                ));
            }
            let id = client.project(&named.project).await?;
            let reply = client.send(Method::PATCH, &format!("/projects/{id}"), Some(&edit)).await?;
            reply.print(printer, |printer, project| show(printer, &project))?;
            // A rule that loosens waits; what was meant can be seen at once.
            if let Patch::Value(PolicyEdit { windows: Patch::Value(windows), .. }) = &edit.policy {
                for window in windows {
                    printer.note(&opens(window));
                }
            }
        }
        ProjectVerb::Refresh { project: Some(project), .. } => {
            let id = client.project(&project).await?;
            let reply = client.send(Method::POST, &format!("/projects/{id}/refresh"), None::<&()>).await?;
            reply.print(printer, |printer, project| show(printer, &project))?;
        }
        ProjectVerb::Refresh { project: None, .. } => {
            let reply = client.send(Method::POST, "/projects/refresh", None::<&()>).await?;
            reply.print(printer, |printer, it: RefreshedProjects| {
                printer.line(&format!(
                    "{} projects are read as soon as Atlas allows; `keywheel status` shows what was found",
                    it.projects
                ))
            })?;
        }
        ProjectVerb::Remove(named) => {
            let id = client.project(&named.project).await?;
            client.send(Method::DELETE, &format!("/projects/{id}"), None::<&()>).await?;
            printer.note(&format!("the project {id} is no longer tracked; its key in Atlas stays as it is"));
        }
    }
    Ok(Exit::Done)
}

async fn list(filter: &Filter, client: &Client, printer: &mut Printer) -> Result<(), Failure> {
    let given = [("status", &filter.status), ("owner", &filter.owner), ("provider", &filter.provider)];
    let query: Vec<(&str, &str)> =
        given.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect();
    let list = client.items("/projects", &query, None).await?;
    if printer.is_json() {
        return Ok(printer.json(&list.raw())?);
    }
    let items: Vec<Project> = list.read()?;
    if items.is_empty() {
        printer.note(if query.is_empty() {
            "no projects; `keywheel project add GROUP_ID` tracks one, `keywheel project discover` lists those in Atlas"
        } else {
            "no project matches; `keywheel project list` shows them all"
        });
    } else {
        printer.list(&items, &COLUMNS)?;
    }
    list.tell_corrupt(printer)
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
    let (list, corrupt) = client.items("/projects", &query, None).await?.split();
    let projects: Vec<Project> = list.read()?;
    let now = printer.now();
    let end = now + args.within.get();
    let dated = projects.into_iter().enumerate().filter_map(|(place, it)| Some((it.due?, place, it)));
    let mut due: Vec<(Timestamp, usize, Project)> = dated.filter(|(due, ..)| *due <= end).collect();
    due.sort_by_key(|(due, ..)| *due);
    if printer.is_json() {
        let mut page = list.pick(due.into_iter().map(|(_, place, _)| place)).raw();
        page.items.extend(corrupt);
        printer.json(&page)?;
        return Ok(Exit::Done);
    }
    // Whether their keys are due is not known.
    for line in corrupt_lines(&corrupt) {
        printer.line(&line)?;
    }
    if due.is_empty() {
        printer.note(&format!("no key is due within {}; `keywheel status` shows what is next", args.within));
        return Ok(Exit::Done);
    }
    let rows = due.into_iter().map(|(due, _, mut project)| {
        if project.owners.is_empty() {
            project.owners.push("nobody".to_owned());
        }
        let planned = project.acknowledged_due.as_ref().map(|it| it.until.to_string()[..10].to_owned());
        DueRow { left: left(due, now), planned, project }
    });
    printer.list(&rows.collect::<Vec<_>>(), &DUE)?;
    Ok(Exit::Done)
}

/// A project and how long its key may still serve.
#[derive(Serialize)]
struct DueRow {
    left: String,
    /// The day until which its due date is acknowledged.
    planned: Option<String>,
    #[serde(flatten)]
    project: Project,
}

pub(super) async fn history(named: &Named, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    let id = client.project(&named.project).await?.to_string();
    let keys = client.items(&format!("/projects/{id}/keys"), &[], None).await?;
    let rotations = client.items("/rotations", &[("groupId", &id)], None).await?;
    if printer.is_json() {
        printer.json(&json!({ "keys": keys.raw().items, "rotations": rotations.raw().items }))?;
        return Ok(Exit::Done);
    }
    let corrupt = [keys.tell_corrupt(printer), rotations.tell_corrupt(printer)];
    corrupt.into_iter().collect::<Result<(), _>>()?;
    let keys: Vec<Key> = keys.read()?;
    let rotations: Vec<Rotation> = rotations.read()?;
    if keys.is_empty() {
        printer.note("no key is recorded yet");
    } else {
        printer.line("keys:")?;
        printer.list(&keys, &KEYS)?;
    }
    if rotations.is_empty() {
        printer.note("no rotations yet; `keywheel rotate PROJECT --to KEY` proposes one");
    } else {
        printer.line("\nrotations:")?;
        printer.list(&rotations, &ROTATIONS)?;
    }
    Ok(Exit::Done)
}

pub(super) async fn acknowledge(
    args: Acknowledge,
    client: &Client,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    if (args.kind.as_deref() == Some(ACK_DUE)) != args.until.is_some() {
        return Err(Failure::Usage(
            "`ack PROJECT due --until DATE` acknowledges a due date; the others take no --until".to_owned(),
        ));
    }
    if let (Some(project), Some(until)) = (&args.project, args.until) {
        let id = client.project(project).await?;
        let body = DueAcknowledgement { until: until.to_string(), comment: args.comment };
        let reply =
            client.send(Method::POST, &format!("/projects/{id}/due/acknowledge"), Some(&body)).await?;
        reply.print(printer, |printer, project: Project| {
            let until = project.acknowledged_due.map(|it| it.until.to_string()).unwrap_or_default();
            printer.line(&format!("acknowledged: due, planned for {until}; nobody is reminded before"))
        })?;
        return Ok(Exit::Done);
    }
    let body = Acknowledgement { comment: args.comment };
    let Some(project) = args.project else {
        let kind = args.installation.unwrap_or_default();
        let reply =
            client.send(Method::POST, &format!("/conditions/{kind}/acknowledge"), Some(&body)).await?;
        reply.print(printer, |printer, _: ConditionPage| printer.line(&format!("acknowledged: {kind}")))?;
        return Ok(Exit::Done);
    };
    let id = client.project(&project).await?;
    let kinds: Vec<String> = if let Some(kind) = args.kind {
        vec![kind]
    } else {
        let project: Project = client.get(&format!("/projects/{id}"), &[]).await?.read()?;
        let repeated = project.conditions.iter().filter(|it| it.tell_at.is_some() && it.told > 0);
        repeated.map(|it| it.kind.to_string()).collect()
    };
    if kinds.is_empty() {
        printer.note(&format!("nothing is told again about {project}; `keywheel why` says what holds"));
        return Ok(Exit::Done);
    }
    for kind in kinds {
        let path = format!("/projects/{id}/conditions/{kind}/acknowledge");
        let reply = client.send(Method::POST, &path, Some(&body)).await?;
        reply.print(printer, |printer, _: Project| printer.line(&format!("acknowledged: {kind}")))?;
    }
    Ok(Exit::Done)
}

pub(super) async fn silence(
    args: Silencing,
    client: &Client,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    let id = client.project(&args.named.project).await?;
    let body = NewSilence { span: args.span, comment: args.comment };
    let reply = client.send(Method::POST, &format!("/projects/{id}/silence"), Some(&body)).await?;
    reply.print(printer, |printer, project: Project| match project.silence {
        Some(it) => {
            printer.line(&format!("mails of {} wait until {}; webhooks go on", project.name, it.until))
        }
        None => printer.line(&format!("mails of {} are sent again", project.name)),
    })?;
    Ok(Exit::Done)
}

pub(super) async fn why(named: &Named, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    let id = client.project(&named.project).await?;
    let reply = client.get(&format!("/projects/{id}/why"), &[]).await?;
    reply.print(printer, |printer, why: Why| {
        printer.line(&format!("status: {}", why.status))?;
        for sentence in why.sentences {
            printer.line(&visible(&sentence))?;
        }
        for line in why.drift.and_then(|drift| drift.terraform).into_iter().flatten() {
            printer.line(&format!("    {}", visible(&line)))?;
        }
        Ok(())
    })?;
    Ok(Exit::Done)
}
