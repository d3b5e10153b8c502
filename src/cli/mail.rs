//! What mails look like, and whether the mail server takes one. Mails that were written are in `records`.

use std::fmt::Write as _;

use clap::Subcommand;
use serde_json::json;

use super::Global;
use super::failure::{Exit, Failure};
use super::local::load_and_warn;
use super::printer::Printer;
use crate::app::{self, MailTest};
use crate::domain::notice::Kind;

#[derive(Debug, Subcommand)]
pub(super) enum MailVerb {
    /// Send a mail through the configured server now, and show what it answered
    #[command(
        after_help = "Examples:\n  keywheel mail test ada@example.com\n  keywheel mail test ada@example.com --kind approval_requested\n\nExit code 0 when the server took the mail, 3 when it refused it, 5 when it could not be reached, 1 when no server is\nconfigured. Nothing is written to the outbox."
    )]
    Test {
        /// The recipient
        #[arg(value_name = "ADDRESS")]
        address: String,
        /// Send the sample of this kind, to see it in a mail program
        #[arg(long, value_name = "KIND")]
        kind: Option<Kind>,
    },
    /// Print the mail of a kind, with invented facts
    #[command(after_help = kinds())]
    Preview {
        /// The kind of notice
        kind: Kind,
        /// Print the HTML, instead of subject and plain text
        #[arg(long)]
        html: bool,
    },
}

/// The examples, and the names of all kinds in lines.
fn kinds() -> String {
    let mut text = String::from(
        "Examples:\n  keywheel mail preview reminder\n  keywheel mail preview approval_requested --html > mail.html\n\nKinds:",
    );
    let mut width = usize::MAX;
    for kind in Kind::ALL {
        let name = kind.as_str();
        if width.saturating_add(name.len() + 1) > 78 {
            text.push_str("\n ");
            width = 1;
        }
        let _ = write!(text, " {name}");
        width += name.len() + 1;
    }
    text
}

pub(super) async fn run(verb: &MailVerb, global: &Global, printer: &mut Printer) -> Result<Exit, Failure> {
    match verb {
        MailVerb::Preview { kind, html } => {
            let mail = app::mail_preview(*kind)?;
            if printer.is_json() {
                printer.json(
                    &json!({ "kind": kind, "subject": mail.subject, "text": mail.text, "html": mail.html }),
                )?;
            } else if *html {
                printer.text(&mail.html)?;
            } else {
                printer.text(&format!("Subject: {}\n\n{}", mail.subject, mail.text))?;
            }
            Ok(Exit::Done)
        }
        MailVerb::Test { address, kind } => {
            let config = load_and_warn(global, printer)?;
            match Box::pin(app::mail_test(&config, address, *kind)).await? {
                MailTest::Accepted(server, reply) => {
                    if printer.is_json() {
                        printer.json(&json!({ "server": server, "recipient": address, "reply": reply }))?;
                    } else {
                        printer.line(&format!("{server} took the mail to {address}: {reply}"))?;
                    }
                    Ok(Exit::Done)
                }
                MailTest::Refused(said, hint) => Err(Failure::Refused(format!("{said}\nhint: {hint}"))),
                MailTest::Unreachable(what, hint) => {
                    Err(Failure::Unreachable { what, hint: hint.to_owned() })
                }
                MailTest::NoAddress => Err(Failure::Usage(format!(
                    "{address:?} is not a mail address; give one such as ada@example.com"
                ))),
                MailTest::NoServer => Err(Failure::Failed(anyhow::anyhow!(
                    "mail.smtp_url is not set, so no mail is sent; set it, such as smtp://mail.example.com?tls=required"
                ))),
            }
        }
    }
}
