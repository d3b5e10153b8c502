//! Verbs on passkeys. They are enrolled in a browser.

use clap::Subcommand;
use clap_complete::ArgValueCandidates;
use reqwest::Method;

use super::client::Client;
use super::complete;
use super::failure::{Exit, Failure};
use super::printer::Printer;
use crate::api::passkey::{Confirmation, Passkey};
use crate::domain::text::visible;

#[derive(Debug, Subcommand)]
pub(super) enum PasskeyVerb {
    /// List the passkeys, and which of them count
    #[command(after_help = "Examples:\n  keywheel passkey list\n  keywheel passkey list -o json")]
    List,
    /// Confirm the passkey of somebody else, who reads its code to you
    #[command(
        after_help = "Examples:\n  keywheel passkey list\n  keywheel passkey confirm Zm9vYmFy 3f9a-02c1-77d0\n\nThe person and mail.security are told, and policy.loosen_after later its signatures count. An own passkey is\nconfirmed by another admin, by another passkey of one's own, or on the machine over the local socket."
    )]
    Confirm {
        /// Its id
        #[arg(add = ArgValueCandidates::new(complete::passkeys), allow_hyphen_values = true)]
        id: String,
        /// The code that its person reads on the page under the own name
        code: String,
    },
    /// Remove a passkey, such as one that was lost
    #[command(
        after_help = "Examples:\n  keywheel passkey list\n  keywheel passkey remove Zm9vYmFy\n\nVotes that it signed for rotations that have sent nothing do not count any more."
    )]
    Remove {
        /// Its id
        #[arg(add = ArgValueCandidates::new(complete::passkeys), allow_hyphen_values = true)]
        id: String,
    },
}

pub(super) async fn run(verb: &PasskeyVerb, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    match verb {
        PasskeyVerb::List => {
            let list = client.items("/passkeys", &[], None).await?;
            if printer.is_json() {
                printer.json(&list.raw())?;
                return Ok(Exit::Done);
            }
            let items: Vec<Passkey> = list.read()?;
            if items.is_empty() {
                printer.note(
                    "nobody has enrolled a passkey; a person does that on the pages, under the own name",
                );
            }
            for it in &items {
                printer.line(&line(it))?;
            }
        }
        PasskeyVerb::Confirm { id, code } => {
            let body = Confirmation { code: code.clone() };
            let reply = client.send(Method::POST, &format!("/passkeys/{id}/confirm"), Some(&body)).await?;
            reply.print(printer, |printer, it: Passkey| printer.line(&line(&it)))?;
        }
        PasskeyVerb::Remove { id } => {
            let reply = client.send(Method::DELETE, &format!("/passkeys/{id}"), None::<&()>).await?;
            reply.print(printer, |printer, it: Passkey| {
                printer.line(&format!("removed: {} of {}", visible(&it.name), visible(&it.holder)))
            })?;
        }
    }
    Ok(Exit::Done)
}

fn line(it: &Passkey) -> String {
    let state = match (it.confirmed_at, it.counts_from) {
        (None, _) => "to confirm".to_owned(),
        (Some(_), None) => format!("not told yet: {}", visible(&it.to_tell.join(", "))),
        // An older server does not say why.
        (Some(_), Some(from)) => match &it.why_not {
            Some(why) => format!("counts for nothing: {}", visible(why)),
            None => format!("counts from {from}"),
        },
    };
    let (holder, name) = (visible(&it.holder), visible(&it.name));
    format!("{}  {holder}  {name}  at {}, {}, {state}", it.id, visible(&it.site), it.algorithm)
}
