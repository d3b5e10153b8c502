//! Verbs on people: who is known to the server, and by what.

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::Client;
use super::failure::{Exit, Failure};
use super::printer::Printer;
use crate::api::person::{Account, Person, PersonPasskey};

/// The columns of the list.
const PEOPLE: [&str; 7] = ["person", "knownBy", "roles", "approverGroups", "passkeys", "sessions", "vote"];

#[derive(Debug, Subcommand)]
pub(super) enum PersonVerb {
    /// List everybody who is known, by what, and whose votes count
    #[command(
        after_help = "Examples:\n  keywheel person list\n  keywheel person list -o json\n\nWhat shares a mail address, or had it, is one person with one vote: accounts at identity providers, tokens made with\n--person, links in mails."
    )]
    List,
}

pub(super) async fn run(verb: &PersonVerb, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    match verb {
        PersonVerb::List => {
            let list = client.items("/people", &[], None).await?;
            if printer.is_json() {
                printer.json(&list.raw())?;
                return Ok(Exit::Done);
            }
            let items: Vec<Person> = list.read()?;
            if items.is_empty() {
                printer.note(
                    "nobody is known: no account has signed in, and no token names its person (`keywheel token create --person MAIL`)",
                );
                return Ok(Exit::Done);
            }
            let rows: Vec<Value> = items.iter().map(row).collect();
            printer.list(&rows, &PEOPLE)?;
        }
    }
    Ok(Exit::Done)
}

fn row(it: &Person) -> Value {
    let open = match it.sessions.len() {
        0 => Value::Null,
        count => json!(count),
    };
    let vote = match (&it.vote.why, it.vote.counts_from) {
        (None, _) => "counts".to_owned(),
        (Some(_), Some(from)) => format!("counts from {from} on"),
        (Some(why), None) => format!("does not count: {why}"),
    };
    let texts = |all: Vec<String>| Some(all.join("; ")).filter(|text| !text.is_empty());
    let others = it.other_addresses.join(", ");
    let person =
        if others.is_empty() { it.address.clone() } else { format!("{} (also {others})", it.address) };
    let roles: Vec<&str> = it.roles.iter().map(|role| role.as_str()).collect();
    json!({
        "person": person,
        "knownBy": texts(known_by(it)),
        "roles": Some(roles.join(", ")).filter(|text| !text.is_empty()),
        "approverGroups": Some(it.approver_groups.join(", ")).filter(|text| !text.is_empty()),
        "passkeys": texts(it.passkeys.iter().map(passkey).collect()),
        "sessions": open,
        "vote": vote,
    })
}

fn known_by(it: &Person) -> Vec<String> {
    let account = |it: &Account| {
        let off = if it.configured { "" } else { ", not configured any more" };
        format!("{} (last sign-in {}{off})", it.issuer, it.last_sign_in)
    };
    let mut found: Vec<String> = it.accounts.iter().map(account).collect();
    let tokens: Vec<&str> = it.tokens.iter().map(|it| it.name.as_str()).collect();
    if !tokens.is_empty() {
        found.push(format!("token {}", tokens.join(", ")));
    }
    found.extend(it.link_used_at.map(|at| format!("link in a mail (last used {at})")));
    found
}

fn passkey(it: &PersonPasskey) -> String {
    match &it.why_not {
        None => format!("{} counts", it.name),
        Some(why) => format!("{}: {why}", it.name),
    }
}
