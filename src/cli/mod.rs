//! The command line: the tree of verbs, and the file that implements each.
//!
//! Verbs on projects, rotations and records are clients of the API, so that one set of rules applies to
//! every caller. Only `serve demo sim migrate token config doctor` and `audit verify` work on files and
//! the database of this machine.

mod client;
mod discover;
mod failure;
#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    pub use super::import::fuzzing::*;
}
#[cfg(test)]
mod fake;
mod import;
mod local;
mod loosenings;
mod printer;
mod projects;
mod records;
mod reply;
mod rotations;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use client::Client;
use failure::{Exit, Failure};
use printer::{Format, Printer};

/// Rotates the customer-managed keys of MongoDB Atlas projects, and verifies each new key.
#[derive(Debug, Parser)]
#[command(
    name = "keywheel",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 110,
    after_help = "\
Try it:   keywheel demo
Run it:   keywheel config check && keywheel serve
Rotate:   keywheel project add 32b6e34b3d91647abb20e7b8 --owner team@example.com
          keywheel rotate payments-prod --to 1234abcd-12ab-34cd-56ef-1234567890ab --watch

Exit codes: 0 done, 1 failed, 2 usage, 3 refused, 4 not found, 5 cannot reach the server."
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: CliVerb,
}

/// Options of every verb.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Global {
    /// Configuration file; otherwise ./keywheel.toml, /etc/keywheel/keywheel.toml or ~/.config/keywheel/keywheel.toml
    #[arg(
        long,
        value_name = "FILE",
        env = "KEYWHEEL_CONFIG",
        hide_env_values = true,
        global = true,
        help_heading = "Everywhere"
    )]
    config: Option<PathBuf>,
    /// How data is printed: table, or json as the API has it
    #[arg(
        short,
        long,
        value_enum,
        value_name = "FORMAT",
        default_value_t,
        global = true,
        hide_possible_values = true,
        help_heading = "Everywhere"
    )]
    output: Format,
    /// Server to talk to, instead of the local socket
    #[arg(
        long,
        value_name = "URL",
        env = "KEYWHEEL_SERVER",
        hide_env_values = true,
        global = true,
        help_heading = "Everywhere"
    )]
    server: Option<String>,
    /// File that holds the token for --server
    #[arg(
        long,
        value_name = "FILE",
        env = "KEYWHEEL_TOKEN_FILE",
        hide_env_values = true,
        global = true,
        help_heading = "Everywhere"
    )]
    token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one for each run")]
enum CliVerb {
    /// Show three rotations in one process, against a simulated Atlas; nothing real is touched
    #[command(after_help = "Example:\n  keywheel demo --fast")]
    Demo(local::Demo),
    /// Run the daemon until SIGTERM or SIGINT; a second signal ends it at once
    #[command(after_help = "Example:\n  keywheel serve --config /etc/keywheel.toml")]
    Serve(local::Serve),
    /// Bring the database to this version's schema
    #[command(
        after_help = "Only needed where database.migrate = false:\n  keywheel migrate && keywheel serve"
    )]
    Migrate,
    /// Copy the SQLite database to a new file, beside a running daemon too
    #[command(
        after_help = "Examples:\n  keywheel backup /backup/keywheel.db\n  keywheel backup /backup/keywheel-$(date +%F).db\n\nThe copy is checked. PostgreSQL: use pg_dump."
    )]
    Backup {
        /// The new file; one that exists is left as it is
        file: PathBuf,
    },
    /// Put a copy in the place of the SQLite database; the daemon must be stopped
    #[command(
        after_help = "Examples:\n  systemctl stop keywheel && keywheel restore /backup/keywheel.db && systemctl start keywheel\n  keywheel restore /backup/keywheel-2026-11-01.db --config /etc/keywheel/keywheel.toml\n\nThe file is checked first. The database that is there is kept beside it, with its companions.\nPostgreSQL: use pg_restore."
    )]
    Restore {
        /// The copy; a write-ahead log beside it is taken in
        file: PathBuf,
    },
    /// Check everything a daemon needs (configuration, database, Atlas, mail, clocks) and name each fix;
    /// record an operator's acceptance
    #[command(
        after_help = "Example:\n  keywheel doctor -o json\n\nExit code 0 when nothing failed (warnings do not count), 1 otherwise."
    )]
    Doctor(local::Doctor),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(local::ConfigVerb),
    /// Run the Atlas simulator on its own, to rehearse against
    #[command(after_help = "Example:\n  keywheel sim --listen 127.0.0.1:8441 --seed projects.json\n\n\
        It also sends the events of Atlas and of the key services, signed as the real senders sign:\n  \
        curl 127.0.0.1:8441/sim/v1/emit -d '{\"kind\": \"atlas\", \"url\": \"http://127.0.0.1:8440/hooks/atlas\",\n    \
        \"secret\": \"...\", \"event\": \"AWS_ENCRYPTION_KEY_NEEDS_ROTATION\", \"groupId\": \"0000000000000065aa000001\"}'\n\
        Kinds: atlas azure-event-grid aws-eventbridge aws-sns gcp-pubsub cloudevents standard. With \"forge\",\n\
        \"replay\", \"duplicate\", \"shuffle\", \"truncate\", \"oversize\" or \"retries\" it misbehaves. A wrong field is named.\n\
        POST /sim/v1/subscriptions with the same fields, less the event: then changes send it by themselves.")]
    Sim(local::Sim),
    /// Show, rotate or replace the installation key, which seals what authorises
    #[command(subcommand)]
    Key(local::KeyVerb),
    /// Make, list, edit and revoke API tokens, beside a running daemon too
    #[command(subcommand)]
    Token(local::TokenVerb),
    /// Track Atlas projects
    #[command(subcommand)]
    Project(projects::ProjectVerb),
    /// List and withdraw loosened rules before they take effect
    #[command(subcommand)]
    Loosening(loosenings::LooseningVerb),
    /// Show the state of the server and its projects
    #[command(after_help = "Example:\n  keywheel status --watch")]
    Status(records::Status),
    /// List the projects whose key is overdue or due soon, the most urgent first
    #[command(
        after_help = "Example:\n  keywheel due --within 14d\n  keywheel due --owner team@example.com -o json"
    )]
    Due(projects::Due),
    /// Show which keys a project has had, and its rotations
    #[command(after_help = "Example:\n  keywheel history payments-prod")]
    History(projects::Named),
    /// Explain why a project is in its state and what happens next
    #[command(after_help = "Example:\n  keywheel why payments-prod")]
    Why(projects::Named),
    /// Acknowledge what holds for a project: it is not told again for twelve hours, its end is
    #[command(
        after_help = "Example:\n  keywheel ack payments-prod invalid --comment \"on it\"\n  keywheel ack --installation not_sending"
    )]
    Ack(projects::Acknowledge),
    /// Let the mails of a project wait; what still holds afterwards is mailed then
    #[command(
        after_help = "Example:\n  keywheel silence payments-prod --for 4h --comment \"key service moves\""
    )]
    Silence(projects::Silencing),
    /// Propose a new key for a project
    #[command(after_help = rotations::ROTATE_HELP)]
    Rotate(rotations::Rotate),
    /// List, show and follow rotations
    #[command(subcommand)]
    Rotation(rotations::RotationVerb),
    /// Approve a proposal; the approval is bound to exactly this project, old key and new key
    #[command(
        after_help = "Example:\n  keywheel approve 0198c5a0-0000-7000-8000-000000000000 --comment \"change 4711\""
    )]
    Approve(rotations::Decide),
    /// Withdraw your own approval, as long as nothing was sent to Atlas
    #[command(after_help = "Example:\n  keywheel withdraw ID --comment \"wrong week\"")]
    Withdraw(rotations::Decide),
    /// Reject a proposal
    #[command(after_help = "Example:\n  keywheel reject ID --comment \"not this week\"")]
    Reject(rotations::Decide),
    /// Cancel a rotation before anything was sent to Atlas
    #[command(after_help = "Example:\n  keywheel cancel ID")]
    Cancel(rotations::Decide),
    /// Resume a rotation that needs an operator: observe again and continue
    #[command(after_help = "Example:\n  keywheel resume ID")]
    Resume(rotations::Decide),
    /// Put the old key back
    #[command(after_help = "Example:\n  keywheel rollback ID --comment \"application errors\"")]
    Rollback(rotations::Decide),
    /// Accept the new key as it is, without Keywheel's verification
    #[command(after_help = "Example:\n  keywheel accept ID --comment \"checked by hand\"")]
    Accept(rotations::Decide),
    /// End a rotation that needs an operator and leave the key as it is
    #[command(after_help = "Example:\n  keywheel close ID --comment \"handled by hand\"")]
    Close(rotations::Decide),
    /// Read the audit log, or verify its hash chain
    #[command(subcommand)]
    Audit(records::AuditVerb),
    /// List and show mails and webhooks
    #[command(subcommand)]
    Outbox(records::OutboxVerb),
    /// The targets of webhooks
    #[command(subcommand)]
    Webhook(records::WebhookVerb),
    /// Write the man pages, one for each command, into a folder
    #[command(
        after_help = "Examples:\n  keywheel man /usr/local/share/man/man1\n  keywheel man . && man ./keywheel-rotate.1"
    )]
    Man {
        /// The folder; it is made when it does not exist
        folder: PathBuf,
    },
    /// Print a completion script
    #[command(after_help = "Example:\n  keywheel completions bash > /etc/bash_completion.d/keywheel")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Runs one command line and returns its exit code.
pub async fn run(cli: Cli) -> ExitCode {
    let mut printer = Printer::stdio(cli.global.output);
    match dispatch(cli.verb, &cli.global, &mut printer).await {
        Ok(code) => code,
        Err(failure) => {
            failure.report(&mut printer);
            failure.exit().into()
        }
    }
}

/// Refuses `--server` for a command that works on this machine, where it would be believed and not used. The variable is
/// set for other commands too, so it is only passed over.
fn without_server(verb: &CliVerb, global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let (name, tells) = match verb {
        CliVerb::Demo(_) => ("demo", false),
        CliVerb::Serve(_) => ("serve", false),
        CliVerb::Sim(_) => ("sim", false),
        CliVerb::Config(_) => ("config", false),
        CliVerb::Migrate => ("migrate", true),
        CliVerb::Doctor(_) => ("doctor", true),
        CliVerb::Token(_) => ("token", true),
        CliVerb::Key(_) => ("key", true),
        CliVerb::Backup { .. } => ("backup", true),
        CliVerb::Restore { .. } => ("restore", true),
        CliVerb::Audit(records::AuditVerb::Verify { .. }) => ("audit verify", true),
        _ => return Ok(()),
    };
    let Some(server) = &global.server else { return Ok(()) };
    if std::env::var("KEYWHEEL_SERVER").ok().as_ref() != Some(server) {
        return Err(Failure::Usage(format!(
            "`{name}` works on files and the database of this machine, so --server has no meaning for it: run it where the daemon \
             runs, or leave --server out"
        )));
    }
    if tells {
        printer.note(&format!("KEYWHEEL_SERVER is passed over: `{name}` works on this machine"));
    }
    Ok(())
}

async fn dispatch(verb: CliVerb, global: &Global, printer: &mut Printer) -> Result<ExitCode, Failure> {
    without_server(&verb, global, printer)?;
    let exit = match verb {
        // The long-running verbs return their own exit code.
        CliVerb::Demo(args) => return local::demo(args).await,
        CliVerb::Serve(args) => return local::serve(args, global).await,
        CliVerb::Sim(args) => return local::sim(args).await,
        CliVerb::Migrate => local::migrate(global, printer).await?,
        CliVerb::Backup { file } => local::backup(&file, global, printer).await?,
        CliVerb::Restore { file } => local::restore(&file, global, printer).await?,
        CliVerb::Doctor(args) => local::doctor(&args, global, printer).await?,
        CliVerb::Config(verb) => local::config(&verb, global, printer)?,
        CliVerb::Token(verb) => local::token(verb, global, printer).await?,
        CliVerb::Key(verb) => local::key(&verb, global, printer).await?,
        CliVerb::Audit(records::AuditVerb::Verify { expect }) => {
            local::audit_verify(expect.as_deref(), global, printer).await?
        }
        CliVerb::Completions { shell } => completions(shell, printer)?,
        CliVerb::Man { folder } => man(&folder, printer)?,
        over_the_api => {
            let client = Client::new(global, printer)?;
            remote(over_the_api, &client, printer).await?
        }
    };
    Ok(exit.into())
}

async fn remote(verb: CliVerb, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    let decide = |verb, args| rotations::decide(verb, args, client);
    match verb {
        CliVerb::Project(verb) => projects::run(verb, client, printer).await,
        CliVerb::Loosening(verb) => loosenings::run(&verb, client, printer).await,
        CliVerb::Status(args) => records::status(&args, client, printer).await,
        CliVerb::Due(args) => projects::due(&args, client, printer).await,
        CliVerb::History(args) => projects::history(&args, client, printer).await,
        CliVerb::Why(args) => projects::why(&args, client, printer).await,
        CliVerb::Ack(args) => projects::acknowledge(args, client, printer).await,
        CliVerb::Silence(args) => projects::silence(args, client, printer).await,
        CliVerb::Rotate(args) => rotations::rotate(args, client, printer).await,
        CliVerb::Rotation(verb) => rotations::run(verb, client, printer).await,
        CliVerb::Approve(args) => decide("approve", args).say(printer).await,
        CliVerb::Withdraw(args) => decide("withdraw", args).say(printer).await,
        CliVerb::Reject(args) => decide("reject", args).say(printer).await,
        CliVerb::Cancel(args) => decide("cancel", args).say(printer).await,
        CliVerb::Resume(args) => decide("resume", args).say(printer).await,
        CliVerb::Rollback(args) => decide("rollback", args).say(printer).await,
        CliVerb::Accept(args) => decide("accept", args).say(printer).await,
        CliVerb::Close(args) => decide("close", args).say(printer).await,
        CliVerb::Audit(verb) => records::audit(&verb, client, printer).await,
        CliVerb::Outbox(verb) => records::outbox(&verb, client, printer).await,
        CliVerb::Webhook(verb) => records::webhook(&verb, client, printer).await,
        // Run without a server; see `dispatch`.
        CliVerb::Demo(_)
        | CliVerb::Serve(_)
        | CliVerb::Migrate
        | CliVerb::Backup { .. }
        | CliVerb::Restore { .. }
        | CliVerb::Doctor(_)
        | CliVerb::Config(_)
        | CliVerb::Sim(_)
        | CliVerb::Token(_)
        | CliVerb::Key(_)
        | CliVerb::Completions { .. }
        | CliVerb::Man { .. } => Ok(Exit::Usage),
    }
}

fn completions(shell: clap_complete::Shell, printer: &mut Printer) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "keywheel", &mut script);
    printer.raw(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

fn man(folder: &Path, printer: &mut Printer) -> Result<Exit, Failure> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)?;
    printer.note(&format!("the man pages are in {}; keywheel.1 names the others", folder.display()));
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests;
