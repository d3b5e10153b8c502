//! The command line: the tree of verbs, and the file that implements each.
//!
//! Verbs on projects, rotations and records are clients of the API, so that one set of rules applies to
//! every caller. Only `serve demo sim migrate token mail config doctor` and `audit verify` work on files and
//! the database of this machine.

mod ask;
mod client;
mod complete;
mod discover;
mod evidence;
mod export;
mod failure;
#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    pub use super::import::fuzzing::*;
}
#[cfg(test)]
mod fake;
mod import;
mod init;
mod local;
mod login;
mod loosenings;
mod mail;
mod many;
mod passkeys;
mod people;
mod plan;
mod printer;
mod projects;
mod records;
mod reply;
mod reviews;
mod rotations;
mod screen;
mod servers;
mod table;
mod tree;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use client::Client;
use evidence::EvidenceVerb;
use failure::{Exit, Failure};
use printer::{Format, Printer};
use screen::{Color, Screen};

/// The word for the newest key, in the place of a key.
const LATEST: &str = "latest";

/// Rotates the customer-managed keys of MongoDB Atlas projects, and verifies each new key.
#[derive(Debug, Parser)]
#[command(
    name = "keywheel",
    version,
    propagate_version = true,
    arg_required_else_help = true,
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
    /// When output is coloured: auto, always or never; auto honours `NO_COLOR`
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        global = true,
        hide_possible_values = true,
        help_heading = "Everywhere"
    )]
    color: Color,
    /// Server to talk to, instead of the local socket: an address, or a name that `keywheel login` saved
    #[arg(
        long,
        value_name = "URL|NAME",
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

impl Global {
    /// Without what an empty variable has set: to empty a variable is to unset it.
    fn without_empty(mut self) -> Self {
        let is_empty = |name: &str| std::env::var_os(name).is_some_and(|it| it.is_empty());
        if is_empty("KEYWHEEL_SERVER") {
            self.server.take_if(|it| it.is_empty());
        }
        for (name, path) in
            [("KEYWHEEL_CONFIG", &mut self.config), ("KEYWHEEL_TOKEN_FILE", &mut self.token_file)]
        {
            if is_empty(name) {
                path.take_if(|it| it.as_os_str().is_empty());
            }
        }
        self
    }

    /// The token file of the command line. One that only the environment names belongs to the server that it names.
    fn token_file_flag(&self) -> Option<&Path> {
        let of_env = std::env::var_os("KEYWHEEL_TOKEN_FILE").map(PathBuf::from);
        self.token_file.as_deref().filter(|file| of_env.as_deref() != Some(*file))
    }
}

#[derive(Debug, Subcommand)]
enum CliVerb {
    /// Show three rotations in one process, against a simulated Atlas; nothing real is touched
    #[command(after_help = "Examples:\n  keywheel demo\n  keywheel demo --fast")]
    Demo(local::Demo),
    /// Write a first configuration, after asking or from flags, and try its credential at Atlas
    #[command(
        after_help = "Examples:\n  keywheel init\n  keywheel init --client-id mdb_sa_id_... --client-secret-file /etc/keywheel/atlas-secret --non-interactive\n  keywheel init --config /etc/keywheel/keywheel.toml --data-dir /var/lib/keywheel --force\n\nSecrets that are asked for get a file each (mode 0600) beside the configuration. Exit code 1 when Atlas could not\nbe asked with the credential: the configuration is written all the same."
    )]
    Init(init::Init),
    /// Save a server and its token under a name, for --server
    #[command(
        after_help = "Examples:\n  keywheel login https://keywheel.example.com\n  keywheel login https://keywheel.example.com --name prod --token-command \"pass show keywheel/prod\"\n  keywheel login http://127.0.0.1:8440 --name here --token-file ada.token\n  keywheel login --list\n\nThe token comes from the flag, or is asked for; in a pipe it is read from standard input. The server is asked\nwhether it knows the token before anything is saved. They are kept in ~/.config/keywheel/servers.toml (mode 0600)."
    )]
    Login(login::Login),
    /// Forget a server that `keywheel login` saved, and its token
    #[command(
        after_help = "Examples:\n  keywheel logout prod\n  keywheel login --list\n\nThe token counts until it is revoked on the server: keywheel token revoke NAME"
    )]
    Logout(login::Logout),
    /// Run the daemon until SIGTERM or SIGINT; a second signal ends it at once
    #[command(
        after_help = "Examples:\n  keywheel serve\n  keywheel serve --config /etc/keywheel/keywheel.toml --listen 127.0.0.1:8450"
    )]
    Serve(local::Serve),
    /// Bring the database to this version's schema
    #[command(
        after_help = "Examples:\n  keywheel migrate\n  keywheel migrate && keywheel serve\n\nOnly needed where database.migrate = false."
    )]
    Migrate,
    /// Copy the SQLite database to a new file, beside a running daemon too
    #[command(
        after_help = "Examples:\n  keywheel backup /backup/keywheel.db\n  keywheel backup \"/backup/keywheel-$(date +%F).db\"\n\nThe copy is checked. PostgreSQL: use pg_dump."
    )]
    Backup {
        /// The new file; one that exists is left as it is
        file: PathBuf,
    },
    /// Put a copy in the place of the SQLite database; the daemon must be stopped
    #[command(
        after_help = "Examples:\n  systemctl stop keywheel\n  keywheel restore /backup/keywheel.db && systemctl start keywheel\n  keywheel restore /backup/keywheel-2026-11-01.db --config /etc/keywheel/keywheel.toml\n\nThe file is checked first. The database that is there is kept beside it, with its companions.\nPostgreSQL: use pg_restore."
    )]
    Restore {
        /// The copy; a write-ahead log beside it is taken in
        file: PathBuf,
    },
    /// Check everything a daemon needs (configuration, database, Atlas, mail, clocks) and name each fix;
    /// record an operator's acceptance
    #[command(
        after_help = "Examples:\n  keywheel doctor\n  keywheel doctor -o json\n  keywheel doctor --accept-restore\n\nExit code 0 when nothing failed (warnings do not count), 1 otherwise."
    )]
    Doctor(local::Doctor),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(local::ConfigVerb),
    /// Run the Atlas simulator on its own, to rehearse against
    #[command(
        after_help = "Examples:\n  keywheel sim\n  keywheel sim --listen 127.0.0.1:8441 --seed projects.json\n\n\
        It also sends the events of Atlas and of the key services, signed as the real senders sign:\n  \
        curl 127.0.0.1:8441/sim/v1/emit -d '{\"kind\": \"atlas\", \"url\": \"http://127.0.0.1:8440/hooks/atlas\",\n    \
        \"secret\": \"...\", \"event\": \"AWS_ENCRYPTION_KEY_NEEDS_ROTATION\", \"groupId\": \"0000000000000065aa000001\"}'\n\
        Kinds: atlas azure-event-grid aws-eventbridge aws-sns gcp-pubsub cloudevents standard. With \"forge\",\n\
        \"replay\", \"duplicate\", \"shuffle\", \"truncate\", \"oversize\" or \"retries\" it misbehaves. A wrong field is named.\n\
        POST /sim/v1/subscriptions with the same fields, less the event: then changes send it by themselves."
    )]
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
    /// List, confirm and remove passkeys, which people enrol in a browser
    #[command(subcommand)]
    Passkey(passkeys::PasskeyVerb),
    /// List and close the reviews that emergency rotations leave open
    #[command(subcommand)]
    Review(reviews::ReviewVerb),
    /// List, remove and separate people who are known here
    #[command(subcommand)]
    Person(people::PersonVerb),
    /// Show the state of the server and its projects
    #[command(after_help = "Examples:\n  keywheel status\n  keywheel status --watch")]
    Status(records::Status),
    /// List the projects whose key is overdue or due soon, the most urgent first
    #[command(
        after_help = "Examples:\n  keywheel due --within 14d\n  keywheel due --owner team@example.com -o json"
    )]
    Due(projects::Due),
    /// Look ahead: what falls due, what falls into a freeze or misses every window, and earlier dates for it
    #[command(
        after_help = "Examples:\n  keywheel plan --days 90\n  keywheel plan --conflicts -o json\n  keywheel plan --apply --reason \"winter freeze\"\n\n\
            A due date after the next one of a key assumes that the key is replaced when it is due. --apply prints what it\n\
            will propose and asks; nothing is sent before the proposed date, and each rotation needs its approvals.\n\
            Exit code 0 when none was refused, 3 when one was, 1 when one failed."
    )]
    Plan(plan::Planning),
    /// Show which keys a project has had, and its rotations
    #[command(
        after_help = "Examples:\n  keywheel history payments-prod\n  keywheel history 32b6e34b3d91647abb20e7b8 -o json"
    )]
    History(projects::Named),
    /// Explain why a project is in its state and what happens next
    #[command(
        after_help = "Examples:\n  keywheel why payments-prod\n  keywheel why 32b6e34b3d91647abb20e7b8 -o json"
    )]
    Why(projects::Named),
    /// Acknowledge what holds for a project: it is not told again for twelve hours, its end is; or its due date
    #[command(
        after_help = "Examples:\n  keywheel ack payments-prod invalid --comment \"on it\"\n  keywheel ack payments-prod due --until 2026-12-12\n  keywheel ack --installation not_sending"
    )]
    Ack(projects::Acknowledge),
    /// Let the mails of a project wait; what still holds afterwards is mailed then
    #[command(
        after_help = "Examples:\n  keywheel silence payments-prod --for 4h --comment \"key service moves\"\n  keywheel silence payments-prod --end"
    )]
    Silence(projects::Silencing),
    /// Propose a new key for a project
    #[command(after_help = rotations::ROTATE_HELP)]
    Rotate(rotations::Rotate),
    /// List, show and follow rotations
    #[command(subcommand)]
    Rotation(rotations::RotationVerb),
    /// Approve a proposal, or several one by one; the approval is bound to exactly this project, old key and new key
    #[command(
        after_help = "Examples:\n  keywheel approve payments-prod --comment \"change 4711\"\n  keywheel approve --environment prod\n\n\
            Several are shown one by one, and each asks for the end of its new key: at a terminal only.\n\
            Exit code 0 when none failed, 3 when one was refused, 1 when one failed."
    )]
    Approve(many::Approve),
    /// Withdraw your own approval, as long as nothing was sent to Atlas
    #[command(
        after_help = "Examples:\n  keywheel withdraw payments-prod\n  keywheel withdraw 0198c5a0-0000-7000-8000-000000000000 --comment \"wrong week\""
    )]
    Withdraw(rotations::Decide),
    /// Reject a proposal
    #[command(
        after_help = "Examples:\n  keywheel reject payments-prod\n  keywheel reject 0198c5a0-0000-7000-8000-000000000000 --comment \"not this week\""
    )]
    Reject(rotations::Decide),
    /// Comment on an open rotation without deciding
    #[command(
        after_help = "Examples:\n  keywheel comment payments-prod --comment \"waits for change 4711\"\n  keywheel comment 0198c5a0-0000-7000-8000-000000000000 --comment \"is this the key of staging?\"\n\nIt is shown with the rotation, counts as no vote and keeps nobody from approving."
    )]
    Comment(rotations::Comment),
    /// Cancel a rotation before anything was sent to Atlas
    #[command(
        after_help = "Examples:\n  keywheel cancel payments-prod\n  keywheel cancel 0198c5a0-0000-7000-8000-000000000000 --comment \"another key\""
    )]
    Cancel(rotations::Decide),
    /// Resume a rotation that needs an operator: observe again and continue
    #[command(
        after_help = "Examples:\n  keywheel resume payments-prod\n  keywheel resume 0198c5a0-0000-7000-8000-000000000000 --comment \"firewall fixed\""
    )]
    Resume(rotations::Decide),
    /// Put the old key back
    #[command(
        after_help = "Examples:\n  keywheel rollback payments-prod\n  keywheel rollback 0198c5a0-0000-7000-8000-000000000000 --comment \"application errors\""
    )]
    Rollback(rotations::Decide),
    /// Accept the new key as it is, without Keywheel's verification
    #[command(
        after_help = "Examples:\n  keywheel accept payments-prod\n  keywheel accept 0198c5a0-0000-7000-8000-000000000000 --comment \"checked by hand\""
    )]
    Accept(rotations::Decide),
    /// End a rotation that needs an operator and leave the key as it is
    #[command(
        after_help = "Examples:\n  keywheel close payments-prod\n  keywheel close 0198c5a0-0000-7000-8000-000000000000 --comment \"handled by hand\""
    )]
    Close(rotations::Decide),
    /// Read the audit log, or verify its hash chain
    #[command(subcommand)]
    Audit(records::AuditVerb),
    /// Export the evidence of a period as a signed file, or verify one
    #[command(subcommand)]
    Evidence(evidence::EvidenceVerb),
    /// List and show mails and webhooks
    #[command(subcommand)]
    Outbox(records::OutboxVerb),
    /// Try the mail server, and see what the mails look like
    #[command(subcommand)]
    Mail(mail::MailVerb),
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
    #[command(
        after_help = "Examples:\n  keywheel completions bash > /etc/bash_completion.d/keywheel\n  keywheel completions zsh > \"${fpath[1]}/_keywheel\""
    )]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// The widest help: longer lines are hard to read.
const WIDEST_HELP: usize = 110;

/// The command line, with help for a terminal of this width; `None` for that of a pipe.
#[must_use]
pub fn command(width: Option<usize>) -> clap::Command {
    Cli::command().term_width(width.unwrap_or(100).min(WIDEST_HELP))
}

/// Reads the command line of this process. Help and errors are coloured as `--color` says, which is looked for before
/// anything else is read.
#[must_use]
pub fn parse() -> Cli {
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let color = given(&args, "--color").and_then(|it| Color::from_str(it, true).ok()).unwrap_or_default();
    let screen = Screen::stdout(color);
    let matches = command(screen.width).color(color.into()).try_get_matches();
    matches.and_then(|it| Cli::from_arg_matches(&it)).unwrap_or_else(|error| {
        let is_json = [given(&args, "--output"), given(&args, "-o")].contains(&Some("json"));
        if error.use_stderr() && is_json {
            let text = error.render().to_string();
            let said = text.trim().strip_prefix("error: ").unwrap_or(text.trim());
            Failure::Usage(said.to_owned()).report(&mut Printer::stdio(Format::Json, color));
            std::process::exit(error.exit_code());
        }
        error.exit()
    })
}

/// The value of an option that is looked for before the command line is read; of several the last.
fn given<'a>(args: &'a [String], name: &str) -> Option<&'a str> {
    args.iter().enumerate().rev().find_map(|(at, arg)| match arg.strip_prefix(name)? {
        "" => args.get(at + 1).map(String::as_str),
        value if name.starts_with("--") => value.strip_prefix('='),
        value => Some(value.strip_prefix('=').unwrap_or(value)),
    })
}

/// Answers a shell that asks how a command line may go on. Returns whether that was asked: then nothing else is to be
/// done.
#[must_use]
pub fn completed() -> bool {
    complete::answer()
}

/// Runs one command line and returns its exit code.
pub async fn run(mut cli: Cli) -> ExitCode {
    cli.global = cli.global.without_empty();
    let mut printer = Printer::stdio(cli.global.output, cli.global.color);
    match dispatch(cli.verb, &cli.global, &mut printer).await {
        Ok(code) => code,
        Err(failure) => {
            let failure = local::explained(failure, &cli.global);
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
        CliVerb::Init(_) => ("init", false),
        CliVerb::Config(_) => ("config", false),
        CliVerb::Migrate => ("migrate", true),
        CliVerb::Doctor(_) => ("doctor", true),
        CliVerb::Token(_) => ("token", true),
        CliVerb::Key(_) => ("key", true),
        CliVerb::Mail(_) => ("mail", true),
        CliVerb::Backup { .. } => ("backup", true),
        CliVerb::Restore { .. } => ("restore", true),
        CliVerb::Audit(records::AuditVerb::Verify { .. }) => ("audit verify", true),
        CliVerb::Evidence(EvidenceVerb::Verify(_)) => ("evidence verify", true),
        CliVerb::Evidence(EvidenceVerb::Key) => ("evidence key", true),
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
        CliVerb::Demo(args) => return local::demo(args, printer).await,
        CliVerb::Serve(args) => return local::serve(args, global).await,
        CliVerb::Sim(args) => return local::sim(args).await,
        CliVerb::Init(args) => init::run(args, global, printer).await?,
        CliVerb::Login(args) => login::login(args, global, printer).await?,
        CliVerb::Logout(args) => login::logout(&args, printer)?,
        CliVerb::Migrate => local::migrate(global, printer).await?,
        CliVerb::Backup { file } => local::backup(&file, global, printer).await?,
        CliVerb::Restore { file } => local::restore(&file, global, printer).await?,
        CliVerb::Doctor(args) => local::doctor(&args, global, printer).await?,
        CliVerb::Config(verb) => local::config(&verb, global, printer).await?,
        CliVerb::Token(verb) => local::token(verb, global, printer).await?,
        CliVerb::Key(verb) => local::key(&verb, global, printer).await?,
        CliVerb::Audit(records::AuditVerb::Verify { expect }) => {
            local::audit_verify(expect.as_deref(), global, printer).await?
        }
        CliVerb::Evidence(EvidenceVerb::Verify(args)) => evidence::verify(&args, printer)?,
        CliVerb::Evidence(EvidenceVerb::Key) => evidence::key(global, printer)?,
        CliVerb::Mail(verb) => mail::run(&verb, global, printer).await?,
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
        CliVerb::Review(verb) => reviews::run(verb, client, printer).await,
        CliVerb::Passkey(verb) => passkeys::run(&verb, client, printer).await,
        CliVerb::Person(verb) => people::run(&verb, client, printer).await,
        CliVerb::Status(args) => records::status(&args, client, printer).await,
        CliVerb::Due(args) => projects::due(&args, client, printer).await,
        CliVerb::Plan(args) => plan::run(args, client, printer).await,
        CliVerb::History(args) => projects::history(&args, client, printer).await,
        CliVerb::Why(args) => projects::why(&args, client, printer).await,
        CliVerb::Ack(args) => projects::acknowledge(args, client, printer).await,
        CliVerb::Silence(args) => projects::silence(args, client, printer).await,
        CliVerb::Rotate(args) => rotations::rotate(args, client, printer).await,
        CliVerb::Rotation(verb) => rotations::run(verb, client, printer).await,
        CliVerb::Approve(args) => match args.single() {
            Some(one) => decide("approve", one.into()).say(printer).await,
            None => many::approve(&args, client, printer).await,
        },
        CliVerb::Withdraw(args) => decide("withdraw", args).say(printer).await,
        CliVerb::Reject(args) => decide("reject", args).say(printer).await,
        CliVerb::Comment(args) => decide("comment", args.into()).say(printer).await,
        CliVerb::Cancel(args) => decide("cancel", args).say(printer).await,
        CliVerb::Resume(args) => decide("resume", args).say(printer).await,
        CliVerb::Rollback(args) => decide("rollback", args).say(printer).await,
        CliVerb::Accept(args) => decide("accept", args).say(printer).await,
        CliVerb::Close(args) => decide("close", args).say(printer).await,
        CliVerb::Audit(verb) => records::audit(&verb, client, printer).await,
        CliVerb::Evidence(EvidenceVerb::Export(args)) => evidence::export(args, client, printer).await,
        CliVerb::Outbox(verb) => records::outbox(&verb, client, printer).await,
        CliVerb::Webhook(verb) => records::webhook(&verb, client, printer).await,
        // Run without a server; see `dispatch`.
        CliVerb::Demo(_)
        | CliVerb::Serve(_)
        | CliVerb::Init(_)
        | CliVerb::Login(_)
        | CliVerb::Logout(_)
        | CliVerb::Migrate
        | CliVerb::Backup { .. }
        | CliVerb::Restore { .. }
        | CliVerb::Doctor(_)
        | CliVerb::Config(_)
        | CliVerb::Sim(_)
        | CliVerb::Token(_)
        | CliVerb::Key(_)
        | CliVerb::Evidence(_)
        | CliVerb::Mail(_)
        | CliVerb::Completions { .. }
        | CliVerb::Man { .. } => Ok(Exit::Usage),
    }
}

fn completions(shell: clap_complete::Shell, printer: &mut Printer) -> Result<Exit, Failure> {
    printer.raw(&complete::script(shell)?)?;
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
