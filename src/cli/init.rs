//! `init`: asks for what a first configuration needs, writes it, and tries the credential at Atlas.
//!
//! The text is loaded by the daemon's own reader before it is put in place, so that no file is written that cannot be
//! used. Secrets are in no flag and not in the file: each gets a file of its own. Whether Atlas takes the credential
//! does not decide whether the file stays: an access list, for example, is often filled later.

mod ask;
mod place;

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use toml::Value;
use url::Url;

use super::Global;
use super::failure::{Exit, Failure};
use super::printer::Printer;
use crate::app;
use crate::config::{FILE_NAME, Loaded, Sources};
use ask::Questions;
use place::Plan;

/// The credential that is written.
const CREDENTIAL: &str = "default";

#[derive(Debug, Args)]
pub(super) struct Init {
    /// Folder of the database, the lock and the local socket; made with mode 0700
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How Keywheel logs in to Atlas
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Option<Kind>,
    /// Client id of the service account
    #[arg(long, value_name = "ID", conflicts_with_all = ["public_key", "private_key_file"])]
    client_id: Option<String>,
    /// File with its client secret; the configuration names it. Without it the secret is asked for
    #[arg(long, value_name = "FILE")]
    client_secret_file: Option<PathBuf>,
    /// Public key of the API key
    #[arg(long, value_name = "KEY", conflicts_with = "client_secret_file")]
    public_key: Option<String>,
    /// File with its private key; the configuration names it. Without it the key is asked for
    #[arg(long, value_name = "FILE", conflicts_with = "client_secret_file")]
    private_key_file: Option<PathBuf>,
    /// Mail server without its password, such as `smtp://keywheel@mail.example.com:587?tls=required`
    #[arg(long, value_name = "URL", conflicts_with = "smtp_url_file")]
    smtp_url: Option<String>,
    /// File with the URL of the mail server, password included; the configuration names it
    #[arg(long, value_name = "FILE")]
    smtp_url_file: Option<PathBuf>,
    /// Sender of mails, such as "Keywheel <keywheel@example.com>"
    #[arg(long, value_name = "MAIL")]
    mail_from: Option<String>,
    /// Mail address of who looks after the installation; may be given more than once
    #[arg(long = "operator", value_name = "MAIL")]
    operators: Vec<String>,
    /// Public URL of this server, for mails
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// The Atlas Admin API, when it is not MongoDB's own: `keywheel sim`
    #[arg(long, value_name = "URL")]
    atlas_base_url: Option<String>,
    /// Replace a configuration that is there
    #[arg(long)]
    force: bool,
    /// Ask nothing, also on a terminal
    #[arg(long)]
    non_interactive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    ServiceAccount,
    ApiKey,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::ServiceAccount => "service-account",
            Self::ApiKey => "api-key",
        }
    }
}

pub(super) async fn run(args: Init, global: &Global, printer: &mut Printer) -> Result<Exit, Failure> {
    let asks = !args.non_interactive && std::io::IsTerminal::is_terminal(&std::io::stdin());
    let mut questions = Questions::new(asks);
    let plan = planned(&args, global, &mut questions)?;
    questions.end()?;
    let loaded = place::place(&plan, args.force)?;
    for warning in &loaded.warnings {
        printer.note(&format!("warning: {warning}"));
    }
    let written = std::iter::once(&plan.file).chain(plan.secrets.iter().map(|(file, _)| file));
    for file in written {
        printer.note(&format!("written: {}", file.display()));
    }
    if plan.is_for_service() {
        printer.note("the user keywheel may read these files");
    }
    let found = found_by_search(&plan.file, printer);
    let tried = tell_projects(&plan, &loaded, printer).await;
    if tried.is_ok() {
        next_steps(&plan, found, printer);
    }
    tried
}

/// All answers, before anything is written.
fn planned(args: &Init, global: &Global, questions: &mut Questions) -> Result<Plan, Failure> {
    let file = match &global.config {
        Some(file) => file.clone(),
        None => {
            questions.optional(None, "Configuration file", &place::usual_file().to_string_lossy())?.into()
        }
    };
    let file = absolute(&file)?;
    // A link, as into a folder of dotfiles, stays one.
    let file = std::fs::canonicalize(&file).unwrap_or(file);
    place::may_write(&file, args.force)?;
    let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let usual = text(&place::usual_data_dir(&folder));
    let data_dir =
        questions.optional(args.data_dir.as_ref().map(text).as_deref(), "Folder for the database", &usual)?;
    let data_dir = absolute(Path::new(&data_dir))?;
    let mut plan = Plan::new(file, data_dir.clone());
    plan.choose("data_dir", &text(&data_dir));
    if let Some(url) = &args.atlas_base_url {
        plan.choose("atlas.base_url", url);
    }
    credential(args, &folder, questions, &mut plan)?;
    mail(args, &folder, questions, &mut plan)?;
    for (secret, _) in &plan.secrets {
        place::may_write(secret, args.force)?;
    }
    Ok(plan)
}

fn credential(args: &Init, folder: &Path, questions: &mut Questions, plan: &mut Plan) -> Result<(), Failure> {
    let by_flags = if args.public_key.is_some() || args.private_key_file.is_some() {
        Some(Kind::ApiKey)
    } else if args.client_id.is_some() || args.client_secret_file.is_some() {
        Some(Kind::ServiceAccount)
    } else {
        None
    };
    let kind = match args.kind.or(by_flags) {
        Some(kind) => kind,
        None => loop {
            let question = "Atlas credential, service-account or api-key";
            let answer = questions.optional(None, question, Kind::ServiceAccount.name())?;
            if let Ok(kind) = Kind::from_str(&answer, true) {
                break kind;
            }
        },
    };
    let (id, id_flag, id_question, named, secret, secret_flag, secret_question) = match kind {
        Kind::ServiceAccount => (
            ("client_id", args.client_id.as_deref()),
            "--client-id",
            "Client id (mdb_sa_id_...)",
            args.client_secret_file.as_ref(),
            "client_secret",
            "--client-secret-file",
            "Client secret",
        ),
        Kind::ApiKey => (
            ("public_key", args.public_key.as_deref()),
            "--public-key",
            "Public key",
            args.private_key_file.as_ref(),
            "private_key",
            "--private-key-file",
            "Private key",
        ),
    };
    let at = |name: &str| format!("atlas.credentials.{CREDENTIAL}.{name}");
    plan.choose(&at("kind"), kind.name());
    let (id, given) = id;
    let given = questions.required(given, id_flag, id_question)?;
    plan.choose(&at(id), &given);
    let setting = at(&format!("{secret}_file"));
    if let Some(file) = named {
        plan.choose(&setting, &absolute(file)?.to_string_lossy());
    } else {
        let text = questions.secret(secret_flag, secret_question)?;
        plan.keep_secret(&setting, plan.secret_file(folder, "atlas-secret"), text);
    }
    Ok(())
}

fn mail(args: &Init, folder: &Path, questions: &mut Questions, plan: &mut Plan) -> Result<(), Failure> {
    if let Some(file) = &args.smtp_url_file {
        plan.choose("mail.smtp_url_file", &absolute(file)?.to_string_lossy());
    } else {
        let question =
            "Mail server, such as smtp://keywheel@mail.example.com:587?tls=required; Enter for none";
        let url = questions.optional(args.smtp_url.as_deref(), question, "")?;
        if !url.is_empty() {
            smtp_url((&url, args.smtp_url.is_some()), folder, questions, plan)?;
        }
    }
    let has_mail = plan.has("mail.smtp_url") || plan.has("mail.smtp_url_file");
    // What only mails need is asked only with mails.
    let mut only_with_mail = |given: Option<&str>, question: &str| {
        if has_mail {
            questions.optional(given, question, "")
        } else {
            Ok(given.unwrap_or_default().to_owned())
        }
    };
    let operators = Some(args.operators.join(", ")).filter(|it| !it.is_empty());
    let from = only_with_mail(args.mail_from.as_deref(), "Sender of mails")?;
    let question = "Mail addresses of those who look after Keywheel, with commas; Enter for all owners";
    let operators = only_with_mail(operators.as_deref(), question)?;
    let public_url = only_with_mail(args.public_url.as_deref(), "Public URL of this server, for mails")?;
    if has_mail && from.is_empty() {
        questions
            .required(None, "--mail-from", "Sender of mails, such as Keywheel <keywheel@example.com>")
            .map(|from| plan.choose("mail.from", &from))?;
    } else if !from.is_empty() {
        plan.choose("mail.from", &from);
    }
    if !public_url.is_empty() {
        plan.choose("server.public_url", &public_url);
    }
    let operators: Vec<Value> = operators
        .split(',')
        .map(str::trim)
        .filter(|it| !it.is_empty())
        .map(|it| Value::String(it.to_owned()))
        .collect();
    if !operators.is_empty() {
        plan.chosen.push(("mail.operators".to_owned(), Value::Array(operators)));
    }
    Ok(())
}

/// A URL without a user holds no secret. With one, the password is asked for, and the whole URL gets a file of its own.
fn smtp_url(
    (text, by_flag): (&str, bool),
    folder: &Path,
    questions: &mut Questions,
    plan: &mut Plan,
) -> Result<(), Failure> {
    let url = Url::parse(text).ok();
    if url.as_ref().is_some_and(|url| url.password().is_some()) {
        if !by_flag {
            // Typed on the terminal, it is in no list of processes.
            plan.keep_secret("mail.smtp_url_file", plan.secret_file(folder, "smtp-url"), text.to_owned());
            return Ok(());
        }
        return Err(Failure::Usage(
            "--smtp-url holds a password, which other users of this machine can see in the list of processes: leave it out (it is \
             asked for), or write the whole URL into a file and name it with --smtp-url-file"
                .to_owned(),
        ));
    }
    let Some(mut url) = url.filter(|url| !url.username().is_empty()) else {
        plan.choose("mail.smtp_url", text);
        return Ok(());
    };
    let password = questions.secret("--smtp-url-file (for the password)", "Password at the mail server")?;
    let password = utf8_percent_encode(&password, NON_ALPHANUMERIC).to_string();
    if url.set_password(Some(&password)).is_err() {
        return Err(Failure::Usage(
            "the mail server's URL takes no password; give smtp://user@host".to_owned(),
        ));
    }
    plan.keep_secret("mail.smtp_url_file", plan.secret_file(folder, "smtp-url"), url.into());
    Ok(())
}

/// No shell has read an answer: `~` is the home folder there too.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let path = match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    };
    std::path::absolute(&path).map_err(|error| anyhow!("{}: {error}", path.display()).into())
}

/// A path as a word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "-_./:@%+,=".contains(c);
    if text.chars().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Whether other commands find the file by themselves; says what to do where they do not.
fn found_by_search(file: &Path, printer: &mut Printer) -> bool {
    let found = Sources::from_process(None).file;
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    if found.as_deref().and_then(real) == real(file) {
        return true;
    }
    let instead = found.map_or_else(
        || format!("commands do not find it by themselves ({FILE_NAME} is searched here, in /etc/keywheel and in your configuration folder)"),
        |other| format!("commands find {} first", other.display()),
    );
    printer
        .note(&format!("{instead}: name it with --config FILE, or export KEYWHEEL_CONFIG={}", quoted(file)));
    false
}

/// Lists what the credential can see.
async fn tell_projects(plan: &Plan, loaded: &Loaded, printer: &mut Printer) -> Result<Exit, Failure> {
    let seen = app::seen(&loaded.config, CREDENTIAL).await.map_err(|why| {
        anyhow!(
            "the configuration is written, and Atlas could not be asked with the credential: {why}. Then `keywheel doctor` tries it again"
        )
    })?;
    let projects = seen["projects"].as_array().map_or(&[][..], Vec::as_slice);
    if printer.is_json() {
        let secrets: Vec<_> = plan.secrets.iter().map(|(file, _)| file).collect();
        printer.json(&json!({
            "config": plan.file, "dataDir": plan.data_dir, "secretFiles": secrets,
            "projects": projects, "total": seen["total"],
        }))?;
        return Ok(Exit::Done);
    }
    if projects.is_empty() {
        printer.note("Atlas takes the credential, and it sees no project: give it the role Project Owner in those to rotate");
        return Ok(Exit::Done);
    }
    printer.list(projects, &["groupId", "name", "provider", "valid", "key", "error"])?;
    let total = seen["total"].as_u64().unwrap_or_default();
    let rest = total.saturating_sub(u64::try_from(projects.len()).unwrap_or(u64::MAX));
    let more = if rest > 0 { format!("; {rest} more are not listed here") } else { String::new() };
    printer.note(&format!("Atlas takes the credential: it sees {total} projects{more}"));
    Ok(Exit::Done)
}

fn next_steps(plan: &Plan, found: bool, printer: &mut Printer) {
    let config = if found { String::new() } else { format!(" --config {}", quoted(&plan.file)) };
    // The unit names this file.
    let serve = if plan.is_for_service() && plan.file == Path::new("/etc/keywheel").join(FILE_NAME) {
        "systemctl enable --now keywheel".to_owned()
    } else {
        format!("keywheel serve{config}")
    };
    let steps = [
        (format!("keywheel doctor{config}"), "checks the rest"),
        (serve, "starts the daemon"),
        (format!("keywheel project discover --add{config}"), "tracks the projects"),
        (format!("keywheel token create --name NAME --role ROLE{config}"), "a token for each person"),
    ];
    let width = steps.iter().map(|(command, _)| command.chars().count()).max().unwrap_or(0);
    printer.note("next:");
    for (command, what) in steps {
        printer.note(&format!("  {command:width$}  # {what}"));
    }
}
