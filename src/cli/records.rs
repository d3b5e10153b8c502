//! The audit log, the outbox, and the server's condition.
//!
//! Verifying the audit log's hash chain is not here: it reads the database itself.

use std::time::Duration;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::client::Client;
use super::complete;
use super::failure::{Exit, Failure};
use super::printer::Printer;
use super::reply::ApiResponse;
use super::tree::{Depth, tree};
use crate::api::WebhookTargetPage;
use crate::api::record::{
    AuditEntry, DatabaseStatus, Doubt, FleetStatus, Mail, MailCounts, SettledMessages, WebhookTarget,
};
use crate::api::rotation::Rotation;
use crate::domain::ids::OutboxId;
use crate::domain::text::visible;

pub(super) const AUDIT: [&str; 6] = ["seq", "at", "actor", "action", "subject", "detail"];
pub(super) const OUTBOX: [&str; 8] =
    ["id", "createdAt", "channel", "kind", "recipient", "state", "attempts", "lastReply"];
pub(super) const MAIL: [&str; 15] = [
    "id",
    "channel",
    "kind",
    "recipient",
    "state",
    "groupId",
    "rotationId",
    "messageId",
    "createdAt",
    "attempts",
    "lastTriedAt",
    "nextTryAt",
    "sentAt",
    "retriedAt",
    "lastReply",
];
const WEBHOOKS: [&str; 4] = ["name", "format", "host", "disabledSince"];
pub(super) const DUE: [&str; 6] = ["groupId", "name", "status", "due", "owners", "currentKey"];
pub(super) const OPEN: [&str; 4] = ["id", "projectName", "state", "groupId"];

#[derive(Debug, Subcommand)]
pub(super) enum AuditVerb {
    /// List all recorded actions, the newest first
    #[command(after_help = "Examples:\n  keywheel audit list --limit 20\n  keywheel audit list -o json")]
    List {
        /// How many at most
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Check the audit log in the database of this machine, and whether projects, tokens, rotations and votes are as it
    /// has sealed them; names all that does not fit
    #[command(
        after_help = "Examples:\n  keywheel audit verify\n  keywheel audit verify --expect 120:3f9a...\n\nExit code 0 when everything fits, 1 when something does not."
    )]
    Verify {
        /// A row that must be there, as an earlier check named it: shows that the log was not shortened or replaced since
        #[arg(long, value_name = "SEQ:HASH")]
        expect: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum WebhookVerb {
    /// List the targets of webhooks, and since when one is disabled
    #[command(after_help = "Examples:\n  keywheel webhook list\n  keywheel webhook list -o json")]
    List,
    /// Put a target that answered 410 (gone) back into service
    #[command(
        after_help = "Examples:\n  keywheel webhook enable ops\n  keywheel webhook enable ops && keywheel outbox retry --failed"
    )]
    Enable {
        /// Its name in the configuration
        #[arg(add = ArgValueCandidates::new(complete::webhooks))]
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum OutboxVerb {
    /// List mails and webhooks, the newest first
    #[command(after_help = "Examples:\n  keywheel outbox list\n  keywheel outbox list --limit 20 -o json")]
    List {
        /// How many at most
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one mail or webhook
    #[command(
        after_help = "Examples:\n  keywheel outbox show 0198c5a0-0000-7000-8000-000000000000\n  keywheel outbox show 0198c5a0-0000-7000-8000-000000000000 -o json"
    )]
    Show {
        /// Its id
        #[arg(add = ArgValueCandidates::new(complete::messages))]
        id: OutboxId,
    },
    /// Try a mail or webhook that failed or waits again, at once
    #[command(
        after_help = "Examples:\n  keywheel outbox retry 0198c5a0-0000-7000-8000-000000000000\n  keywheel outbox retry --failed"
    )]
    Retry(Which),
    /// Dismiss a mail or webhook that failed: it is not sent, and counts as failed no more
    #[command(
        after_help = "Examples:\n  keywheel outbox dismiss 0198c5a0-0000-7000-8000-000000000000\n  keywheel outbox dismiss --failed"
    )]
    Dismiss(Which),
}

/// One message, or all that failed.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Its id
    #[arg(
        required_unless_present = "failed",
        conflicts_with = "failed",
        add = ArgValueCandidates::new(complete::messages)
    )]
    id: Option<OutboxId>,
    /// All that failed
    #[arg(long)]
    failed: bool,
}

/// How often a watch reads the status; on a terminal it counts down in between.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// Open rotations that a watch shows as trees; with more, they are a table.
const TREES: usize = 8;

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Show it again after each change, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

pub(super) async fn status(args: &Status, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    if !args.watch {
        show_status(&client.get("/status", &[]).await?, &[], printer)?;
        return Ok(Exit::Done);
    }
    let mut last = None::<FleetStatus>;
    let mut shown = None;
    loop {
        let read = read_status(client, printer).await;
        // A first request that fails is not retried: the address or the token is probably wrong.
        let trouble = match read {
            Ok(read) => {
                shown = Some(read);
                None
            }
            Err(failure) if shown.is_none() => return Err(failure),
            Err(failure) => Some(format!("{failure}; trying again")),
        };
        for _ in 0..2 {
            if let Some((reply, open)) = &shown {
                let now: FleetStatus = reply.read()?;
                if printer.is_live() {
                    printer.frame_of(|printer| {
                        if let Some(trouble) = &trouble {
                            printer.note(trouble);
                        }
                        tell_doubt(&now, printer);
                        fleet(printer, &now, open)
                    })?;
                } else if last.as_ref().is_none_or(|last| differ(last, &now)) {
                    show_status(reply, open, printer)?;
                    last = Some(now);
                }
            }
            #[expect(clippy::disallowed_methods, reason = "a command ends with its process")]
            tokio::time::sleep(WATCH_EVERY / 2).await;
        }
    }
}

/// The status, and its open rotations as far as they are shown as trees.
async fn read_status(client: &Client, printer: &Printer) -> Result<(ApiResponse, Vec<Rotation>), Failure> {
    let reply = client.get("/status", &[]).await?;
    let mut open = Vec::new();
    if !printer.is_json() {
        let status: FleetStatus = reply.read()?;
        if status.open_rotations.len() <= TREES {
            for it in status.open_rotations {
                open.push(client.get(&format!("/rotations/{}", it.id), &[]).await?.read()?);
            }
        }
    }
    Ok((reply, open))
}

/// Whether a status differs apart from the time and the clock skew, which always change.
fn differ(last: &FleetStatus, now: &FleetStatus) -> bool {
    let database = DatabaseStatus { clock_skew_ms: last.database.clock_skew_ms, ..now.database.clone() };
    FleetStatus { at: last.at, database, ..now.clone() } != *last
}

fn show_status(reply: &ApiResponse, open: &[Rotation], printer: &mut Printer) -> Result<(), Failure> {
    // With -o json the response is printed whatever the server's version, so it need not parse.
    let status = reply.read::<FleetStatus>();
    if let Ok(status) = &status {
        tell_doubt(status, printer);
    }
    if printer.is_json() {
        return Ok(printer.line(reply.text.trim_end())?);
    }
    Ok(fleet(printer, &status?, open)?)
}

fn tell_doubt(status: &FleetStatus, printer: &mut Printer) {
    if let Some(Doubt { detail, way_out, .. }) = &status.database.doubt {
        printer.note(&format!("warning: nothing is sent to Atlas: {detail}. Way out: {way_out}"));
    }
}

/// Where the records of a database in doubt and Atlas differ.
fn differences(printer: &mut Printer, doubt: &Doubt) -> std::io::Result<()> {
    let Some(all) = &doubt.differences else {
        return printer.line("the records are being compared with Atlas: run this again in a moment");
    };
    if all.is_empty() {
        return printer.line("every record agrees with what Atlas holds");
    }
    printer.line("records that differ from Atlas:")?;
    for it in all {
        let project = format!("{} ({})", visible(&it.name), it.group_id);
        let recorded = it.recorded.as_deref().map_or("no key".into(), visible);
        let held = match (&it.error, &it.atlas) {
            (Some(error), _) => format!("Atlas cannot be read: {}", visible(error)),
            (None, None) => "at Atlas: no key".to_owned(),
            (None, Some(key)) => {
                let valid = match it.valid {
                    Some(true) => "valid",
                    Some(false) => "INVALID",
                    None => "valid is not told",
                };
                format!("at Atlas: {} ({valid})", visible(key))
            }
        };
        printer.line(&format!("  {project}"))?;
        printer.line(&format!("    on record: {recorded}"))?;
        printer.line(&format!("    {held}"))?;
        if let Some(rotation) = &it.rotation {
            printer.line(&format!("    open: {}", visible(rotation)))?;
        }
    }
    Ok(())
}

/// The fleet in one line, then the open rotations, as trees where they are given, then the projects due next.
fn fleet(printer: &mut Printer, status: &FleetStatus, open: &[Rotation]) -> std::io::Result<()> {
    for it in &status.conditions {
        let cause = it.cause.as_ref().map(|cause| format!(" ({})", visible(cause))).unwrap_or_default();
        let since = it.since.map(|at| format!(" since {at}")).unwrap_or_default();
        let by = it.acknowledged_by.as_ref().map(|by| format!(", acknowledged by {}", visible(by)));
        printer.line(&format!(
            "{}: {}{cause}{since}{}",
            visible(&it.subject),
            it.kind.as_str().replace('_', " "),
            by.unwrap_or_default()
        ))?;
    }
    if let Some(doubt) = &status.database.doubt {
        differences(printer, doubt)?;
    }
    let count = status.projects;
    if count == 0 {
        printer.line("0 projects")?;
        printer.note("no projects yet; `keywheel project add GROUP_ID` tracks one");
        return Ok(());
    }
    let by_status: Vec<_> = status.by_status.iter().map(|(name, count)| format!("{count} {name}")).collect();
    printer.line(&format!(
        "{count} {}: {}",
        if count == 1 { "project" } else { "projects" },
        by_status.join(", ")
    ))?;
    if status.without_owner > 0 {
        printer.line(&format!("{} without an owner: no mail is sent about those", status.without_owner))?;
    }
    let MailCounts { waiting, failed, .. } = status.mails;
    if failed + waiting > 0 {
        printer.line(&format!(
            "mails: {waiting} waiting, {failed} refused or given up (`keywheel outbox list`)"
        ))?;
    }
    if !status.open_rotations.is_empty() {
        printer.line("\nopen rotations:")?;
        for rotation in open {
            printer.lines(&tree(rotation, &[], Depth::Brief, printer.now(), &printer.screen()))?;
        }
        if open.is_empty() {
            printer.list(&status.open_rotations, &OPEN)?;
        }
    }
    if !status.next_due.is_empty() {
        printer.line("\ndue next:")?;
        printer.list(&status.next_due, &DUE)?;
    }
    Ok(())
}

pub(super) async fn audit(verb: &AuditVerb, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    let AuditVerb::List { limit } = verb else { return Ok(Exit::Usage) };
    list::<AuditEntry>("/audit", *limit, &AUDIT, client, printer).await
}

pub(super) async fn outbox(
    verb: &OutboxVerb,
    client: &Client,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    match verb {
        OutboxVerb::List { limit } => list::<Mail>("/outbox", *limit, &OUTBOX, client, printer).await,
        OutboxVerb::Show { id } => {
            let reply = client.get(&format!("/outbox/{id}"), &[]).await?;
            reply.print(printer, |printer, mail: Mail| printer.object(&mail, &MAIL))?;
            Ok(Exit::Done)
        }
        OutboxVerb::Retry(which) => settle(which, "retry", "tried again", client, printer).await,
        OutboxVerb::Dismiss(which) => settle(which, "dismiss", "dismissed", client, printer).await,
    }
}

pub(super) async fn webhook(
    verb: &WebhookVerb,
    client: &Client,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    match verb {
        WebhookVerb::List => {
            let reply = client.get("/webhooks", &[]).await?;
            reply.print(printer, |printer, page: WebhookTargetPage| {
                if page.items.is_empty() {
                    return printer.line("no webhook targets; [[webhooks]] in the configuration adds one");
                }
                printer.list(&page.items, &WEBHOOKS)
            })?;
        }
        WebhookVerb::Enable { name } => {
            let path = format!("/webhooks/{}/enable", utf8_percent_encode(name, NON_ALPHANUMERIC));
            let reply = client.send(Method::POST, &path, None::<&()>).await?;
            reply.print(printer, |printer, it: WebhookTarget| {
                printer.line(&format!(
                    "{} is in service; `keywheel outbox retry --failed` sends what ended meanwhile",
                    it.name
                ))
            })?;
        }
    }
    Ok(Exit::Done)
}

async fn settle(
    which: &Which,
    verb: &str,
    done: &str,
    client: &Client,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    if let Some(id) = which.id {
        let path = format!("/outbox/{id}/{verb}");
        let reply = client.send(Method::POST, &path, None::<&()>).await?;
        reply.print(printer, |printer, _: Mail| printer.line(&format!("{id}: {done}")))?;
        return Ok(Exit::Done);
    }
    let reply = client.send(Method::POST, &format!("/outbox/{verb}"), None::<&()>).await?;
    reply.print(printer, |printer, it: SettledMessages| match it.messages {
        0 => printer.line("no message has failed"),
        1 => printer.line(&format!("1 message: {done}")),
        many => printer.line(&format!("{many} messages: {done}")),
    })?;
    Ok(Exit::Done)
}

async fn list<T: DeserializeOwned + Serialize>(
    path: &str,
    limit: usize,
    columns: &[&str],
    client: &Client,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    let list = client.items(path, &[], Some(limit)).await?;
    let more = list.more;
    if printer.is_json() {
        printer.json(&list.raw())?;
    } else {
        let items: Vec<T> = list.read()?;
        if items.is_empty() {
            printer.note("nothing there yet");
        } else {
            printer.list(&items, columns)?;
        }
        list.tell_corrupt(printer)?;
    }
    if more {
        printer.note("there are more; --limit shows them");
    }
    Ok(Exit::Done)
}
