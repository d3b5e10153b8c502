//! The verbs that need no server: they read the configuration, files and the database themselves.
//!
//! Each loads the configuration, prints its warnings, and calls the composition root (`app`).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::PossibleValue;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::Global;
use super::client::Client;
use super::failure::{Exit, Failure};
use super::printer::{Format, Printer};
use super::projects::opens;
use super::reply::{corrupt_lines, is_corrupt};
use super::tree::Depth;
use super::watch;
use crate::config::{Config, ConfigError, Loaded, Log, LogFormat, Sources};
use crate::domain::role::Role;
use crate::domain::text::did_you_mean;

use crate::{app, telemetry};

pub(super) const DOCTOR: [&str; 3] = ["result", "name", "detail"];
pub(super) const TOKENS: [&str; 7] =
    ["name", "roles", "person", "madeBy", "createdAt", "revokedAt", "suspended"];

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Shrink every wait, so that a rotation takes seconds
    #[arg(long)]
    fast: bool,
}

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Address and port to listen on, instead of server.listen
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(super) struct Sim {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8441")]
    listen: SocketAddr,
    /// JSON file with the projects, keys and clusters to start with
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Accept a restored database and continue; check the differences in `keywheel status` first
    #[arg(long)]
    accept_restore: bool,
    /// Continue although this row of the audit log is broken
    #[arg(long, value_name = "ROW")]
    accept_broken_chain: Option<i64>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Read everything and report all faults and warnings at once
    #[command(
        after_help = "Examples:\n  keywheel config check\n  keywheel config check --config /etc/keywheel/keywheel.toml\n\nExit code 0 when it may be used, 1 when not."
    )]
    Check,
    /// Print the values in force and where each was written; secrets as ***
    #[command(after_help = "Examples:\n  keywheel config show\n  keywheel config show | grep -v '# default'")]
    Show,
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenVerb {
    /// Make a token; it is printed once, alone on standard output
    #[command(
        after_help = "Examples:\n  keywheel token create --name ada --role operator --person ada@example.com\n  keywheel token create --name ci --role operator --role viewer > ci.token\n\nRun `umask 077` before the token goes to a file, so that only you may read it."
    )]
    Create {
        /// The token's name: the identity in approvals and in the audit log
        #[arg(long)]
        name: String,
        /// A role of the token; may be given more than once
        #[arg(long = "role", value_enum, value_name = "ROLE", required = true, value_delimiter = ',', num_args = 1..)]
        roles: Vec<Role>,
        /// Mail address of the person that it is for; without it, it counts as a token of the user who makes it
        #[arg(long, value_name = "MAIL")]
        person: Option<String>,
    },
    /// Give a token other roles, or give it to another person
    #[command(
        after_help = "Examples:\n  keywheel token edit ci --role operator\n  keywheel token edit ci --role operator --person ada@example.com\n\nVotes count only policy.loosen_after after a token got the role to approve or another person. The person of a token\nthat has one changes later, too: that loosens, is announced, and takes effect policy.loosen_after afterwards."
    )]
    Edit {
        /// The token's name
        name: String,
        /// A role of the token, in the place of those that it has; may be given more than once
        #[arg(long = "role", value_enum, value_name = "ROLE", value_delimiter = ',', num_args = 1..)]
        roles: Vec<Role>,
        /// Mail address of the person that it is for
        #[arg(long, value_name = "MAIL")]
        person: Option<String>,
    },
    /// List tokens; their secrets are not kept
    #[command(after_help = "Examples:\n  keywheel token list\n  keywheel token list -o json")]
    List,
    /// Let tokens in again that a restore or a replaced installation key has suspended
    #[command(after_help = "Examples:\n  keywheel token confirm ci\n  keywheel token confirm ci grafana")]
    Confirm {
        /// The tokens' names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Revoke a token at once
    #[command(
        after_help = "Examples:\n  keywheel token revoke ci\n  keywheel token revoke ci --config /etc/keywheel/keywheel.toml"
    )]
    Revoke {
        /// The token's name
        name: String,
    },
}

impl ValueEnum for Role {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()).help(self.meaning()))
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyVerb {
    /// Show the fingerprint and the public half of the installation key; nothing of it is secret
    #[command(after_help = "Examples:\n  keywheel key show\n  keywheel key show -o json")]
    Show,
    /// Make a new installation key, signed by the old one, and seal everything with it; daemons must be stopped
    #[command(
        after_help = "Examples:\n  systemctl stop keywheel\n  keywheel key rotate && systemctl start keywheel\n  keywheel key rotate --config /etc/keywheel/keywheel.toml\n\n\
        What was interrupted goes on when it is run again. Copy the new file to the other daemons of the database."
    )]
    Rotate,
    /// Put a new key in the place of one that is lost: open rotations lose their votes, tokens wait for `token confirm`
    #[command(
        after_help = "Examples:\n  systemctl stop keywheel\n  keywheel key replace && systemctl start keywheel\n  keywheel key replace && keywheel token confirm ci"
    )]
    Replace,
}

pub(super) async fn key(verb: &KeyVerb, global: &Global, printer: &mut Printer) -> Result<Exit, Failure> {
    let config = load_and_warn(global, printer)?;
    let file = config.server.key_file.display().to_string();
    let made = match verb {
        KeyVerb::Show => {
            let shown = app::key_show(config).await?;
            if printer.is_json() {
                printer.json(&shown)?;
            } else {
                for name in ["fingerprint", "publicKey", "file", "since"] {
                    printer.line(&format!("{name:<12} {}", shown[name].as_str().unwrap_or_default()))?;
                }
            }
            return Ok(Exit::Done);
        }
        KeyVerb::Rotate => app::key_rotate(config).await?,
        KeyVerb::Replace => app::key_replace(config).await?,
    };
    printer.line(&made)?;
    printer.note(&format!(
        "{file} holds the new key; keep a copy of it apart from backups of the database, and give it to every daemon of this database"
    ));
    if matches!(verb, KeyVerb::Replace) {
        printer.note("rotations whose key was not sent yet wait for their approvals again; tokens count after `keywheel token confirm NAME`");
    }
    Ok(Exit::Done)
}

fn load(global: &Global) -> Result<Loaded, Failure> {
    Ok(Config::load(&Sources::from_process(global.config.clone()))?)
}

/// The failure of a command, with the process that holds the database where that is why it failed.
pub(super) fn explained(failure: Failure, global: &Global) -> Failure {
    match (failure, load(global)) {
        (Failure::Failed(error), Ok(loaded)) => Failure::Failed(app::naming_writer(&loaded.config, error)),
        (failure, _) => failure,
    }
}

pub(super) fn load_and_warn(global: &Global, printer: &mut Printer) -> Result<Config, Failure> {
    let loaded = load(global)?;
    // `config check` and the daemon's log list all warnings; here they would bury the result.
    match loaded.warnings.as_slice() {
        [] => {}
        [only] => printer.note(&format!("warning: {only}")),
        many => printer.note(&format!(
            "warning: the configuration has {} warnings; `keywheel config check` shows them",
            many.len()
        )),
    }
    Ok(loaded.config)
}

fn quiet_log(level: &str) -> Log {
    Log { format: LogFormat::Text, level: level.to_owned(), otlp_endpoint: None }
}

pub(super) async fn demo(args: Demo, printer: &mut Printer) -> Result<ExitCode, Failure> {
    telemetry::init(&quiet_log("warn"))?;
    // Its lines are a story; the API's JSON has none.
    printer.format = Format::Table;
    let mut client = None;
    let show = async |scene: app::Scene<'_>| -> anyhow::Result<()> {
        match (scene, &client) {
            (app::Scene::Line(line), _) => printer.line(line)?,
            (app::Scene::Server(server, token), _) => {
                client = Some(Client::over_http(server, Some(token), printer)?);
            }
            (app::Scene::Rotation(id), Some(client)) => {
                watch::follow(id, Depth::Full, client, printer).await?;
            }
            (app::Scene::Rotation(_), None) => {}
        }
        Ok(())
    };
    Ok(Box::pin(app::demo(args.fast, show)).await?)
}

pub(super) async fn serve(args: Serve, global: &Global) -> Result<ExitCode, Failure> {
    let mut sources = Sources::from_process(global.config.clone());
    if let Some(listen) = args.listen {
        sources.overrides.push(("server.listen".to_owned(), listen.to_string()));
    }
    let loaded = Config::load(&sources)?;
    let log = telemetry::init(&loaded.config.log)?;
    Ok(app::serve(loaded, sources, log).await?)
}

pub(super) async fn sim(args: Sim) -> Result<ExitCode, Failure> {
    telemetry::init(&quiet_log("info"))?;
    Ok(app::sim(args.listen, args.seed).await?)
}

pub(super) async fn migrate(global: &Global, printer: &mut Printer) -> Result<Exit, Failure> {
    let config = load_and_warn(global, printer)?;
    let done = app::migrate(config).await?;
    printer.note(&done);
    Ok(Exit::Done)
}

pub(super) async fn backup(file: &Path, global: &Global, printer: &mut Printer) -> Result<Exit, Failure> {
    let config = load_and_warn(global, printer)?;
    let done = app::back_up(&config, file).await?;
    printer.line(&done)?;
    printer.note("keep a copy of the installation key apart from it, and data_dir/epoch where it is");
    Ok(Exit::Done)
}

pub(super) async fn restore(file: &Path, global: &Global, printer: &mut Printer) -> Result<Exit, Failure> {
    let config = load_and_warn(global, printer)?;
    let [done, next] = app::restore(&config, file).await?;
    printer.line(&done)?;
    printer.note(&next);
    Ok(Exit::Done)
}

pub(super) async fn doctor(args: &Doctor, global: &Global, printer: &mut Printer) -> Result<Exit, Failure> {
    let loaded = load(global)?;
    let accept = app::Accept { restore: args.accept_restore, broken_row: args.accept_broken_chain };
    let report = app::doctor(loaded, accept).await?;
    if printer.is_json() {
        printer.json(&report)?;
    } else {
        let checks: &[Value] = report["checks"].as_array().map_or(&[], Vec::as_slice);
        printer.list(checks, &DOCTOR)?;
    }
    Ok(if report["ok"] == true { Exit::Done } else { Exit::Failed })
}

pub(super) async fn config(
    verb: &ConfigVerb,
    global: &Global,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    let sources = Sources::from_process(global.config.clone());
    match (Config::load(&sources), verb) {
        (Err(error), ConfigVerb::Check) if printer.is_json() => {
            printer.json(&json!({ "ok": false, "errors": error.0, "warnings": [] }))?;
            Ok(Exit::Failed)
        }
        (Err(error), _) => Err(error.into()),
        (Ok(loaded), ConfigVerb::Check) if !loaded.unkept.is_empty() => {
            if printer.is_json() {
                let (errors, warnings) = (&loaded.unkept, &loaded.warnings);
                printer.json(&json!({ "ok": false, "errors": errors, "warnings": warnings }))?;
                return Ok(Exit::Failed);
            }
            Err(ConfigError(loaded.unkept).into())
        }
        (Ok(mut loaded), ConfigVerb::Check) => {
            loaded.warnings.extend(app::passkeys_lost_by(&loaded.config).await);
            checked(&loaded, &sources, printer)?;
            Ok(Exit::Done)
        }
        (Ok(loaded), ConfigVerb::Show) => {
            if printer.is_json() {
                printer.json(&loaded.to_json())?;
            } else {
                printer.text(&loaded.to_text())?;
            }
            Ok(Exit::Done)
        }
    }
}

fn checked(loaded: &Loaded, sources: &Sources, printer: &mut Printer) -> Result<(), Failure> {
    if printer.is_json() {
        return Ok(printer.json(&json!({ "ok": true, "errors": [], "warnings": loaded.warnings }))?);
    }
    loaded.warnings.iter().for_each(|warning| printer.note(&format!("warning: {warning}")));
    for window in &loaded.config.policy.windows {
        printer.line(&opens(window))?;
    }
    let from = sources
        .file
        .as_ref()
        .map_or("no file, defaults and environment only".to_owned(), |file| file.display().to_string());
    let count = match loaded.warnings.len() {
        0 => String::new(),
        1 => ", with one warning".to_owned(),
        many => format!(", with {many} warnings"),
    };
    Ok(printer.line(&format!("the configuration may be used ({from}){count}"))?)
}

/// The failure of a command on a token that is not in force.
async fn no_token(name: &str, config: Config) -> Result<Failure, Failure> {
    let tokens = app::token_list(config).await?;
    let tokens = tokens["items"].as_array().map_or(&[][..], Vec::as_slice);
    let in_force = tokens.iter().filter(|it| it["revokedAt"].is_null()).filter_map(|it| it["name"].as_str());
    Ok(Failure::NotFound(format!(
        "no token named {name:?} is in force (`keywheel token list` shows them); {}",
        did_you_mean(name, in_force)
    )))
}

pub(super) async fn token(verb: TokenVerb, global: &Global, printer: &mut Printer) -> Result<Exit, Failure> {
    let config = load_and_warn(global, printer)?;
    match verb {
        TokenVerb::Create { name, roles, person } => {
            let made = app::token_create(config, name.clone(), roles, person).await?;
            let token = made.ok_or_else(|| {
                Failure::Refused(format!(
                    "a token named {name:?} exists already; choose another name: in the audit log, a name belongs to one token for good, revoked or not"
                ))
            })?;
            printer.line(&token)?;
            printer.note("keep it: it is not stored and cannot be shown again");
        }
        TokenVerb::Edit { roles, person, .. } if roles.is_empty() && person.is_none() => {
            return Err(Failure::Usage(
                "nothing to change: name --role or --person, see `keywheel token edit --help`".to_owned(),
            ));
        }
        TokenVerb::Edit { name, roles, person } => {
            match app::token_edit(config.clone(), name.clone(), roles, person).await? {
                Some(done) => printer.note(&done),
                None => return Err(no_token(&name, config).await?),
            }
        }
        TokenVerb::List => {
            let tokens = app::token_list(config).await?;
            if printer.is_json() {
                printer.json(&tokens)?;
            } else {
                let items = tokens.get("items").unwrap_or(&tokens);
                let items: &[Value] = items.as_array().map_or(&[], Vec::as_slice);
                if items.is_empty() {
                    printer.note("no tokens; `keywheel token create --name NAME --role ROLE` makes one");
                } else {
                    let (corrupt, read): (Vec<_>, Vec<_>) = items.iter().cloned().partition(is_corrupt);
                    printer.list(&read, &TOKENS)?;
                    for line in corrupt_lines(&corrupt) {
                        printer.line(&line)?;
                    }
                }
            }
        }
        TokenVerb::Confirm { names } => {
            let count = names.len();
            let unknown = app::tokens_confirm(config, names).await?;
            if !unknown.is_empty() {
                return Err(Failure::NotFound(format!(
                    "no token in force is named {}; `keywheel token list` shows them",
                    unknown.join(", ")
                )));
            }
            printer.note(&format!("{count} token(s) count again"));
        }
        TokenVerb::Revoke { name } => {
            if !app::token_revoke(config.clone(), name.clone()).await? {
                return Err(no_token(&name, config).await?);
            }
            printer.note(&format!("the token {name} is revoked"));
        }
    }
    Ok(Exit::Done)
}

/// Reads `SEQ:HASH`, as signed heads and earlier checks name a row.
pub(super) fn expected(text: &str) -> Result<(i64, String), Failure> {
    let parts = text.split_once(':').and_then(|(seq, hash)| Some((seq.parse().ok()?, hash)));
    let hash =
        |hash: &str| hash.len() == 64 && hash.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    match parts {
        Some((seq, digits)) if seq > 0 && hash(digits) => Ok((seq, digits.to_owned())),
        _ => Err(Failure::Refused(format!(
            "--expect {text:?}: takes the number of an audit row, a colon and its hash of 64 hexadecimal digits, such as 120:3f9a...; `keywheel audit verify` prints the head"
        ))),
    }
}

pub(super) async fn audit_verify(
    expect: Option<&str>,
    global: &Global,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    let expect = expect.map(expected).transpose()?;
    let config = load_and_warn(global, printer)?;
    let (report, tampered) = app::audit_verify(config, expect).await?;
    let broken = report.broken.iter().map(|it| format!("audit row {} is broken: {}", it.seq, it.why));
    let faults: Vec<String> = broken.chain(tampered.iter().map(ToString::to_string)).collect();
    let intact = faults.is_empty();
    let text = match report.rows {
        _ if !intact => faults.join("\n"),
        0 => "the audit log is empty".to_owned(),
        rows => format!("{rows} rows, the chain is intact, head {}", report.head),
    };
    if printer.is_json() {
        let (rows, head) = (report.rows, report.head);
        printer.json(
            &json!({ "intact": intact, "detail": text, "rows": rows, "head": head, "faults": faults }),
        )?;
    } else {
        printer.line(&text)?;
    }
    Ok(if intact { Exit::Done } else { Exit::Failed })
}
