//! Writes the tracked projects as an inventory file, which `project import` reads back.
//!
//! It holds what an operator decides: no keys, statuses or rotations. Of the rules only those in which a project differs
//! from the defaults. A name with hidden characters is left out: no file keeps it, and an import takes Atlas' own.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use super::client::Client;
use super::failure::{Exit, Failure};
use super::import::{self, Format, guarded};
use super::printer::Printer;
use super::reply::corrupt_lines;
use crate::api::project::Project;
use crate::domain::text::is_hidden;

/// The columns, in the order in which a person reads them.
const COLUMNS: [&str; 9] =
    ["groupId", "name", "owners", "credential", "environment", "since", "kms", "alias", "policy"];

#[derive(Debug, Args)]
pub(super) struct Export {
    /// Format; otherwise by the name of the file, or CSV
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The file; otherwise standard output
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    out: Option<PathBuf>,
}

pub(super) async fn run(args: &Export, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    let by_name = args.out.as_deref().and_then(import::format_of);
    let default = if printer.is_json() { Format::Json } else { Format::Csv };
    let format = args.format.or(by_name).unwrap_or(default);
    let (list, corrupt) = client.items("/projects", &[("limit", "500")], None).await?.split();
    let projects: Vec<Project> = list.read()?;
    let rows = projects.iter().map(row).collect::<Result<Vec<_>, _>>().map_err(anyhow::Error::from)?;
    let text = match format {
        Format::Csv => csv(&rows).map_err(anyhow::Error::from)?,
        Format::Yaml => yaml(&rows),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&rows).map_err(anyhow::Error::from)?),
    };
    if let Some(file) = &args.out {
        let failed =
            |error| anyhow::Error::new(error).context(format!("{} cannot be written", file.display()));
        write(file, &text).map_err(failed)?;
        printer.note(&format!("{} projects are in {}", rows.len(), file.display()));
    } else {
        printer.text(&text)?;
    }
    for line in corrupt_lines(&corrupt) {
        printer.note(&format!("left out: {line}"));
    }
    Ok(if corrupt.is_empty() { Exit::Done } else { Exit::Failed })
}

/// Writes a file whole or not at all. What is no plain file, such as a pipe, is written to as it is.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let real = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let found = std::fs::metadata(&real).ok();
    if found.as_ref().is_some_and(|it| !it.is_file()) {
        return std::fs::write(real, text);
    }
    let folder = real.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = found.map_or(Permissions::from_mode(0o644), |it| it.permissions());
    let mut staged = tempfile::Builder::new().permissions(mode).tempfile_in(folder)?;
    staged.write_all(text.as_bytes())?;
    staged.as_file().sync_all()?;
    staged.persist(real).map_err(|error| error.error).map(drop)
}

/// The fields of a project that are set.
fn row(it: &Project) -> Result<Map<String, Value>, serde_json::Error> {
    let name = Some(&it.name).filter(|name| !name.contains(is_hidden));
    let policy = it.policy_override.as_ref().map(serde_json::to_value).transpose()?;
    let fields = [
        json!(it.group_id),
        json!(name),
        json!(it.owners),
        json!(it.credential),
        json!(it.environment),
        json!(it.key_since),
        json!(it.kms),
        json!(it.alias),
        json!(policy),
    ];
    let is_set = |value: &Value| match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        _ => true,
    };
    let named = COLUMNS.into_iter().map(str::to_owned).zip(fields);
    Ok(named.filter(|(_, value)| is_set(value)).collect())
}

fn csv(rows: &[Map<String, Value>]) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS)?;
    for row in rows {
        writer.write_record(COLUMNS.map(|name| match row.get(name) {
            None => String::new(),
            Some(Value::String(text)) => guarded(text),
            Some(Value::Array(items)) => {
                guarded(&items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(";"))
            }
            Some(other) => other.to_string(),
        }))?;
    }
    let bytes = writer.into_inner().map_err(csv::IntoInnerError::into_error)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Each value as JSON, which YAML contains: no text reads as a number, a date or a truth value.
fn yaml(rows: &[Map<String, Value>]) -> String {
    let mut out = String::new();
    for row in rows {
        let mut mark = "- ";
        for (name, value) in COLUMNS.iter().filter_map(|name| Some((name, row.get(*name)?))) {
            // Writing into a String cannot fail.
            let _ = match value.as_object() {
                Some(members) => {
                    let rules = members.iter().map(|(name, value)| format!("\n    {name}: {value}"));
                    writeln!(out, "{mark}{name}:{}", rules.collect::<String>())
                }
                None => writeln!(out, "{mark}{name}: {value}"),
            };
            mark = "  ";
        }
    }
    if rows.is_empty() { "[]\n".to_owned() } else { out }
}
