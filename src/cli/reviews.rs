//! Verbs on the reviews of emergency rotations.

use clap::Subcommand;
use clap_complete::ArgValueCandidates;
use reqwest::Method;

use super::client::Client;
use super::complete;
use super::failure::{Exit, Failure};
use super::printer::Printer;
use crate::api::review::{Finding, Review};

pub(super) const COLUMNS: [&str; 6] =
    ["rotationId", "projectName", "requestedBy", "requestedAt", "closedBy", "reason"];

#[derive(Debug, Subcommand)]
pub(super) enum ReviewVerb {
    /// List the reviews that are open
    #[command(after_help = "Examples:\n  keywheel review list\n  keywheel review list --all -o json")]
    List {
        /// Closed ones, too
        #[arg(long)]
        all: bool,
    },
    /// Close the review of an emergency rotation that somebody else proposed
    #[command(
        after_help = "Examples:\n  keywheel review close payments-prod --finding \"the key had leaked; ticket 4711\"\n  keywheel review close 0198c5a0-0000-7000-8000-000000000000 --finding \"no emergency; talked to ann\"\n\nUntil then who proposed it proposes no second emergency rotation. What you found goes into the audit log."
    )]
    Close {
        /// Its id or the beginning of it, @latest, or a project: its newest rotation
        #[arg(value_name = "ROTATION", add = ArgValueCandidates::new(complete::rotations))]
        id: String,
        /// What you found
        #[arg(long, value_name = "TEXT")]
        finding: String,
    },
}

pub(super) async fn run(verb: ReviewVerb, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    match verb {
        ReviewVerb::List { all } => {
            let query: &[(&str, &str)] = if all { &[("all", "true")] } else { &[] };
            let list = client.items("/reviews", query, None).await?;
            if printer.is_json() {
                printer.json(&list.raw())?;
                return Ok(Exit::Done);
            }
            let items: Vec<Review> = list.read()?;
            if items.is_empty() {
                printer.note(
                    "no review is open; each emergency rotation (`keywheel rotate --emergency`) opens one",
                );
            } else {
                printer.list(&items, &COLUMNS)?;
            }
        }
        ReviewVerb::Close { id, finding } => {
            let id = client.rotation(&id).await?;
            let path = format!("/rotations/{id}/review/close");
            let reply = client.send(Method::POST, &path, Some(&Finding { finding })).await?;
            reply.print(printer, |printer, it: Review| {
                printer.line(&format!(
                    "closed: the review of rotation {} of {}",
                    it.rotation_id, it.requested_by
                ))
            })?;
        }
    }
    Ok(Exit::Done)
}
