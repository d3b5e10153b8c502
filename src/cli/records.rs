//! Verbs that only read: the audit log, the outbox, and the server's condition.
//!
//! Verifying the audit log's hash chain is not here: it reads the database itself.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::{Client, page};
use super::failure::{Exit, Failure};
use super::printer::{Printer, cell};
use super::reply::Reply;
use crate::domain::ids::OutboxId;

const AUDIT: [&str; 6] = ["seq", "at", "actor", "action", "subject", "detail"];
const OUTBOX: [&str; 8] =
    ["id", "createdAt", "channel", "kind", "recipient", "state", "attempts", "lastReply"];
const MAIL: [&str; 14] = [
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
    "lastReply",
];
const DUE: [&str; 6] = ["groupId", "name", "status", "due", "owners", "currentKey"];
const OPEN: [&str; 4] = ["id", "projectName", "groupId", "state"];

#[derive(Debug, Subcommand)]
pub(super) enum AuditVerb {
    /// List what anyone did, the newest first
    #[command(after_help = "Example:\n  keywheel audit list --limit 20")]
    List {
        /// How many at most
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Check the hash chain in the database of this machine; names the first broken row
    #[command(after_help = "Exit code 0 when the chain is intact, 1 when it is broken.")]
    Verify,
}

#[derive(Debug, Subcommand)]
pub(super) enum OutboxVerb {
    /// List mails and webhooks, the newest first
    #[command(after_help = "Example:\n  keywheel outbox list")]
    List {
        /// How many at most
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one mail or webhook
    #[command(after_help = "Example:\n  keywheel outbox show 0198c5a0-0000-7000-8000-000000000000")]
    Show {
        /// Its id
        id: OutboxId,
    },
}

/// How often a watch looks again.
const WATCH_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Show it anew whenever something changes, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

pub(super) async fn status(args: &Status, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    if !args.watch {
        show_status(&client.get("/status", &[]).await?, printer)?;
        return Ok(Exit::Done);
    }
    let mut last = Value::Null;
    loop {
        match client.get("/status", &[]).await {
            Ok(reply) => {
                let mut now = reply.json.clone();
                now["at"].take();
                now["database"]["clockSkewMs"].take();
                if now != last {
                    if printer.is_live() {
                        // Clears the screen and goes to its upper left corner.
                        printer.text("\x1b[2J\x1b[H")?;
                    }
                    show_status(&reply, printer)?;
                    last = now;
                }
            }
            // What never worked does not get better by waiting.
            Err(failure) if last.is_null() => return Err(failure),
            Err(failure) => printer.status(&format!("{failure}; trying again"))?,
        }
        #[expect(clippy::disallowed_methods, reason = "a command ends with its process")]
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

fn show_status(reply: &Reply, printer: &mut Printer) -> std::io::Result<()> {
    let doubt = &reply.json["database"]["doubt"];
    if let (Some(detail), Some(way_out)) = (doubt["detail"].as_str(), doubt["wayOut"].as_str()) {
        printer.note(&format!("warning: nothing is sent to Atlas: {detail}. Way out: {way_out}"));
    }
    printer.reply(reply, fleet)
}

/// The fleet in one line, then what is open, then what is due next.
fn fleet(printer: &mut Printer, status: &Value) -> std::io::Result<()> {
    let count = status["projects"].as_u64().unwrap_or_default();
    if count == 0 {
        printer.line("0 projects")?;
        printer.note("no projects yet; `keywheel project add GROUP_ID` tracks one");
        return Ok(());
    }
    let by_status = status["byStatus"].as_object().into_iter().flatten();
    let by_status: Vec<_> = by_status.map(|(name, count)| format!("{} {}", cell(count), name)).collect();
    printer.line(&format!(
        "{count} {}: {}",
        if count == 1 { "project" } else { "projects" },
        by_status.join(", ")
    ))?;
    let unowned = status["withoutOwner"].as_u64().unwrap_or_default();
    if unowned > 0 {
        printer.line(&format!("{unowned} without an owner: nobody is told of those"))?;
    }
    let mails = |state: &str| status["mails"][state].as_u64().unwrap_or_default();
    if mails("failed") + mails("waiting") > 0 {
        let (failed, waiting) = (mails("failed"), mails("waiting"));
        printer.line(&format!(
            "mails: {waiting} waiting, {failed} refused or given up (`keywheel outbox list`)"
        ))?;
    }
    for (title, name, columns) in
        [("open rotations", "openRotations", &OPEN[..]), ("due next", "nextDue", &DUE[..])]
    {
        let items = status[name].as_array().map_or(&[][..], Vec::as_slice);
        if !items.is_empty() {
            printer.line(&format!("\n{title}:"))?;
            printer.list(items, columns)?;
        }
    }
    Ok(())
}

pub(super) async fn audit(verb: &AuditVerb, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    let AuditVerb::List { limit } = verb else { return Ok(Exit::Usage) };
    list("/audit", *limit, &AUDIT, client, printer).await
}

pub(super) async fn outbox(
    verb: &OutboxVerb,
    client: &Client,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    match verb {
        OutboxVerb::List { limit } => list("/outbox", *limit, &OUTBOX, client, printer).await,
        OutboxVerb::Show { id } => {
            let reply = client.get(&format!("/outbox/{id}"), &[]).await?;
            printer.reply(&reply, |printer, mail| printer.object(mail, &MAIL))?;
            Ok(Exit::Done)
        }
    }
}

async fn list(
    path: &str,
    limit: usize,
    columns: &[&str],
    client: &Client,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    let (items, more) = client.items(path, &[], Some(limit)).await?;
    if printer.is_json() {
        printer.json(&page(items))?;
    } else if items.is_empty() {
        printer.note("nothing there yet");
    } else {
        printer.list(&items, columns)?;
    }
    if more {
        printer.note("there are more; --limit shows them");
    }
    Ok(Exit::Done)
}
