//! Evidence bundles: export one from the server, verify one on this machine.

use std::fs::Permissions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueHint};
use clap_complete::ArgValueCompleter;
use serde_json::Value;

use super::Global;
use super::client::Client;
use super::complete;
use super::failure::{Exit, Failure};
use super::local::{expected, load_and_warn};
use super::printer::Printer;
use crate::api::evidence::EvidenceExport;
use crate::app;
use crate::domain::time::Timestamp;

#[derive(Debug, Subcommand)]
pub(super) enum EvidenceVerb {
    /// Export every rotation of a period, with all that was recorded about each, as one signed file
    #[command(
        after_help = "Examples:\n  keywheel evidence export --from 2026-01-01 --to 2026-04-01 --out q1.zip\n  keywheel evidence export --from 2026-01-01 --to 2027-01-01 --project payments-prod --out payments.zip\n\n\
            Dates are in UTC; --to is the first day that is not in the period. Needs the role auditor; the export is a row of\n\
            the audit log. README.txt in the file explains its tables."
    )]
    Export(Export),
    /// Verify a bundle on this machine, without a server, a configuration or a network
    #[command(
        after_help = "Examples:\n  keywheel evidence verify q1.zip --key installation.pem\n  keywheel evidence verify q2.zip --key installation.pem --previous q1.zip --expect 120:3f9a...\n\n\
            Says what the bundle proves, what only the installation says, and what would prove more.\n\
            Exit code 0 when everything fits, 1 when something does not: each fault names its file, line and rule."
    )]
    Verify(Verify),
    /// Print the public key that verifies the bundles of this installation, as PEM; nothing of it is secret
    #[command(
        after_help = "Examples:\n  keywheel evidence key > installation.pem\n  keywheel evidence key -o json"
    )]
    Key,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// First day of the period, or an instant
    #[arg(long, value_name = "DATE")]
    from: Timestamp,
    /// First day after the period, or an instant
    #[arg(long, value_name = "DATE")]
    to: Timestamp,
    /// The file to write
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    out: PathBuf,
    /// Group id or unique name; otherwise all projects
    #[arg(long, add = ArgValueCompleter::new(complete::projects))]
    project: Option<String>,
    /// Replace the file when it exists
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The bundle
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// The installation's public key, from another source than the bundle: a PEM file, or its fingerprint
    #[arg(long, value_name = "PUBLIC", value_hint = ValueHint::FilePath)]
    key: Option<String>,
    /// A row of the audit log as a signed end of the log named it
    #[arg(long, value_name = "SEQ:HASH")]
    expect: Option<String>,
    /// The bundle before: shows that nothing was rewritten since
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    previous: Option<PathBuf>,
}

pub(super) async fn export(args: Export, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    let Export { from, to, out, project, force } = args;
    let shown = out.display().to_string();
    if out.exists() && !force {
        return Err(Failure::Usage(format!(
            "{shown} exists already, and is left as it is; name a new file, or replace it with --force"
        )));
    }
    let failed = |error: std::io::Error| {
        Failure::Failed(
            anyhow::Error::new(error).context(format!("{shown} cannot be written; no bundle was kept")),
        )
    };
    let group_id = match project {
        Some(project) => Some(client.project(&project).await?),
        None => None,
    };
    let folder = out.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut staged = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(folder)
        .map_err(failed)?;
    let size = client.download("/evidence", &EvidenceExport { from, to, group_id }, &mut staged).await?;
    staged.as_file_mut().flush().and_then(|()| staged.as_file().sync_all()).map_err(failed)?;
    let kept = if force { staged.persist(&out) } else { staged.persist_noclobber(&out) };
    kept.map_err(|error| failed(error.error))?;
    printer.line(&shown)?;
    printer.note(&format!("{size} bytes; `keywheel evidence verify {shown}` checks it"));
    Ok(Exit::Done)
}

pub(super) fn key(global: &Global, printer: &mut Printer) -> Result<Exit, Failure> {
    let config = load_and_warn(global, printer)?;
    let key = app::evidence_key(&config)?;
    if printer.is_json() {
        printer.json(&key)?;
        return Ok(Exit::Done);
    }
    let text = |name: &str| key[name].as_str().unwrap_or_default();
    printer.text(text("pem"))?;
    printer.note(&format!("fingerprint {}, SHA-256 of the key {}", text("fingerprint"), text("keyId")));
    Ok(Exit::Done)
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let shown = file.display();
    let found = std::fs::metadata(file).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::NotFound(format!("there is no file {shown}")),
        _ => Failure::Failed(anyhow::anyhow!("{shown} cannot be read: {error}")),
    })?;
    if found.len() > app::LARGEST_BUNDLE {
        return Err(Failure::Failed(anyhow::anyhow!("{shown} is larger than any bundle (2 GiB)")));
    }
    std::fs::read(file).map_err(|error| Failure::Failed(anyhow::anyhow!("{shown} cannot be read: {error}")))
}

/// The public key that was given: a fingerprint is no name of a file, whatever lies in the folder.
fn key_text(given: &str) -> Result<String, Failure> {
    let file = Path::new(given);
    if app::is_evidence_key(given) || !file.exists() {
        return Ok(given.to_owned());
    }
    read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) fn verify(args: &Verify, printer: &mut Printer) -> Result<Exit, Failure> {
    let expect = args.expect.as_deref().map(expected).transpose()?;
    let bundle = read(&args.file)?;
    let previous = args.previous.as_deref().map(read).transpose()?;
    let key = args.key.as_deref().map(key_text).transpose()?;
    let Some(mut report) = app::evidence_verify(&bundle, key.as_deref(), expect, previous.as_deref()) else {
        return Err(Failure::Usage(format!(
            "--key {:?}: takes a PEM file as `keywheel evidence key` prints it, a fingerprint of 32 hexadecimal digits, or the \
             SHA-256 of the key with 64",
            args.key.as_deref().unwrap_or_default()
        )));
    };
    let verified = report["verified"] == true;
    if printer.is_json() {
        report["file"] = args.file.display().to_string().into();
        printer.json(&report)?;
    } else {
        tell(&args.file, &report, key.is_some(), printer)?;
    }
    Ok(if verified { Exit::Done } else { Exit::Failed })
}

fn tell(file: &Path, report: &Value, has_key: bool, printer: &mut Printer) -> Result<(), Failure> {
    let word = if report["verified"] == true { "verified" } else { "NOT verified" };
    let manifest = &report["manifest"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let about = match manifest {
        Value::Null => String::new(),
        it => format!(
            ": {} to {}, by installation {}, made {}",
            text(&it["period"]["from"]),
            text(&it["period"]["to"]),
            text(&it["installation"]["fingerprint"]),
            text(&it["madeAt"])
        ),
    };
    printer.line(&format!("{word}: {}{about}", file.display()))?;
    if !has_key && !manifest.is_null() {
        printer.line("Nothing shows yet who signed it: anybody can make a bundle that fits itself. Give the public key with --key.")?;
    }
    let faults = report["faults"].as_array().map_or(&[][..], Vec::as_slice);
    if !faults.is_empty() {
        printer.line("\nwhat does not fit:")?;
    }
    for it in faults {
        let place = match (it["file"].as_str(), it["line"].as_u64()) {
            (None, _) => String::new(),
            (Some(file), None) => format!("{file}: "),
            (Some(file), Some(line)) => format!("{file}, line {line}: "),
        };
        printer.line(&format!("  - {place}{}: {}", text(&it["rule"]), text(&it["what"])))?;
    }
    for (name, heading) in [
        ("proven", "proven:"),
        ("claimed", "claimed, by the installation alone:"),
        ("needed", "what would prove more:"),
    ] {
        let all = report[name].as_array().map_or(&[][..], Vec::as_slice);
        if !all.is_empty() {
            printer.line(&format!("\n{heading}"))?;
        }
        for it in all {
            printer.line(&format!("  - {}", text(it)))?;
        }
    }
    Ok(())
}
