//! Verbs on people: who is known to the server, and by what.

use clap::Subcommand;
use clap_complete::ArgValueCandidates;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::Client;
use super::complete;
use super::failure::{Exit, Failure};
use super::loosenings;
use super::printer::Printer;
use crate::api::loosening::Loosening;
use crate::api::person::{Account, Person, PersonPasskey, PersonRemoved, Untie};
use crate::domain::text::visible;

/// The columns of the list.
const PEOPLE: [&str; 7] = ["person", "knownBy", "roles", "approverGroups", "passkeys", "sessions", "vote"];

#[derive(Debug, Subcommand)]
pub(super) enum PersonVerb {
    /// List everybody who is known, by what, and whose votes count
    #[command(
        after_help = "Examples:\n  keywheel person list\n  keywheel person list -o json\n\nWhat shares a mail address, or had it, is one person with one vote: accounts at identity providers, tokens made with\n--person, links in mails."
    )]
    List,
    /// Remove a person: signed out everywhere, tokens revoked, passkeys removed, votes void
    #[command(
        after_help = "Examples:\n  keywheel person remove grace@example.com\n  keywheel person remove oidc:acme/1234 -o json\n\nThe person and mail.security are told. Take the account out of its groups at the identity provider as well: who\nsigns in again begins anew, and votes policy.loosen_after later. Owners of projects stay as they are."
    )]
    Remove {
        /// Mail address, or the name of an account without a verified one
        #[arg(add = ArgValueCandidates::new(complete::people))]
        person: String,
    },
    /// Separate an address from a token or a former account; it takes effect later
    #[command(
        after_help = "Examples:\n  keywheel person untie grace@example.com --from ci\n  keywheel person untie grace@example.com -o json\n\nThat loosens, because both may vote afterwards: it is announced, takes effect policy.loosen_after later and can be\nwithdrawn until then (`keywheel loosening withdraw ID`). On rotations proposed before, both count as one person.\n`keywheel token edit NAME --person MAIL` gives a token to another person, under the same rule."
    )]
    Untie {
        /// The address
        #[arg(add = ArgValueCandidates::new(complete::people))]
        person: String,
        /// The token or account from which it is separated, where there are several
        #[arg(long, value_name = "NAME")]
        from: Option<String>,
    },
}

/// The path of a person's own address. Names have slashes and spaces.
fn path(person: &str) -> String {
    format!("/people/{}", utf8_percent_encode(person, NON_ALPHANUMERIC))
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
        PersonVerb::Untie { person, from } => {
            let body = Untie { from: from.clone() };
            let reply = client.send(Method::POST, &format!("{}/untie", path(person)), Some(&body)).await?;
            reply.print(printer, |printer, it: Loosening| printer.line(&loosenings::line(&it)))?;
        }
        PersonVerb::Remove { person } => {
            let reply = client.send(Method::DELETE, &path(person), None::<&()>).await?;
            reply.print(printer, |printer, it: PersonRemoved| {
                removed(&it).iter().try_for_each(|line| printer.line(line))
            })?;
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

/// What went with a person, in lines.
fn removed(it: &PersonRemoved) -> Vec<String> {
    let was = &it.removed;
    let mut lines = vec![format!("removed: {}", visible(&was.address))];
    lines.extend(was.other_addresses.iter().map(|it| format!("  also known as {}", visible(it))));
    lines.extend(was.accounts.iter().map(|it| format!("  account at {}: signed out", visible(&it.issuer))));
    lines.extend(was.tokens.iter().map(|it| format!("  token {}: revoked", visible(&it.name))));
    lines.extend(was.passkeys.iter().map(|it| format!("  passkey {}: removed", visible(&it.name))));
    if !was.sessions.is_empty() {
        lines.push(format!("  open sessions ended: {}", was.sessions.len()));
    }
    if !it.still_owns.is_empty() {
        lines.push(format!(
            "  still owner of {}: name another with `keywheel project edit PROJECT --owner MAIL`",
            it.still_owns.join(", ")
        ));
    }
    lines
}
