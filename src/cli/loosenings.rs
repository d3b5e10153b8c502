//! Verbs on loosened rules that have not taken effect.

use clap::Subcommand;
use clap_complete::ArgValueCandidates;
use reqwest::Method;

use super::client::Client;
use super::complete;
use super::failure::{Exit, Failure};
use super::printer::Printer;
use crate::api::loosening::Loosening;
use crate::domain::ids::LooseningId;
use crate::domain::loosening::Change;
use crate::domain::text::visible;

#[derive(Debug, Subcommand)]
pub(super) enum LooseningVerb {
    /// List the loosened rules that have not taken effect
    #[command(after_help = "Examples:\n  keywheel loosening list\n  keywheel loosening list -o json")]
    List,
    /// Withdraw one before it takes effect
    #[command(
        after_help = "Examples:\n  keywheel loosening list\n  keywheel loosening withdraw 0198c5a0-0000-7000-8000-000000000000"
    )]
    Withdraw {
        /// Its id
        #[arg(add = ArgValueCandidates::new(complete::loosenings))]
        id: LooseningId,
    },
}

pub(super) async fn run(
    verb: &LooseningVerb,
    client: &Client,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    match verb {
        LooseningVerb::List => {
            let list = client.items("/loosenings", &[], None).await?;
            if printer.is_json() {
                printer.json(&list.raw())?;
                return Ok(Exit::Done);
            }
            let items: Vec<Loosening> = list.read()?;
            if items.is_empty() {
                printer.note("no loosened rule is to take effect");
            }
            for it in &items {
                printer.line(&line(it))?;
            }
        }
        LooseningVerb::Withdraw { id } => {
            let path = format!("/loosenings/{id}/withdraw");
            let reply = client.send(Method::POST, &path, None::<&()>).await?;
            reply.print(printer, |printer, it: Loosening| {
                printer.line(&format!("withdrawn: {}", what(&it)))
            })?;
        }
    }
    Ok(Exit::Done)
}

/// A loosened rule in one line.
pub(super) fn line(it: &Loosening) -> String {
    let when = match (it.takes_effect_at, it.to_tell.as_slice()) {
        (Some(at), _) => format!("takes effect {at}"),
        (None, people) => format!("not announced yet, to tell: {}", visible(&people.join(", "))),
    };
    format!("{}  {}  {}  by {}, {when}", it.id, visible(&it.subject), what(it), visible(&it.requested_by))
}

fn what(it: &Loosening) -> String {
    let change = |it: &Change| format!("{} {} -> {}", it.field, it.from, it.to);
    visible(&it.changes.iter().map(change).collect::<Vec<_>>().join(", "))
}
