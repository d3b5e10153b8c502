//! Adds many projects at once: from a file, or from discovery.
//!
//! Each project is one call to the API, so that one set of rules applies to every caller. A fault in one
//! project does not keep out the others. Only an unreachable server, or a token that may not add
//! projects, ends the import.

mod file;
#[cfg(fuzzing)]
pub(in crate::cli) mod fuzzing;
mod json;
mod yaml;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use reqwest::Method;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::client::Client;
use super::failure::{Exit, Failure};
use super::printer::{Printer, cell};
use crate::api::Page;
use crate::api::problem::Code;
use crate::api::project::{Project, ProjectEdit};
use crate::domain::text::visible;
pub(super) use file::{Format, format_of, guarded};
use file::{ImportRow, Refusal, STDIN};

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The file: CSV with a heading line, YAML or JSON; `-` for standard input, with --format
    file: PathBuf,
    /// Format of the file, when its name does not end in .csv, .yaml, .yml or .json
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Give the projects that are tracked already the values of the file; an empty cell changes nothing
    #[arg(long)]
    update: bool,
    /// Check every row, Atlas included, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// The result for one project.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is tracked now.
    Added,
    /// It would be tracked (dry run).
    WouldAdd,
    /// It was tracked before; the differences, as texts.
    Tracked(Vec<String>),
    /// It was tracked before and has these values of the file now.
    Updated(Vec<String>),
    /// The same, as a dry run.
    WouldUpdate(Vec<String>),
    /// It was tracked before and has the values of the file.
    Unchanged,
    /// An earlier row has the same project and the same values.
    Duplicate(String),
    /// It was refused.
    Refused(Refusal),
}

impl Outcome {
    fn word(&self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::WouldAdd => "would_add",
            Self::Tracked(_) => "already_tracked",
            Self::Updated(_) => "updated",
            Self::WouldUpdate(_) => "would_update",
            Self::Unchanged => "unchanged",
            Self::Duplicate(_) => "duplicate",
            Self::Refused(_) => "refused",
        }
    }

    /// The reason, where there is one.
    fn detail(&self) -> String {
        match self {
            Self::Added | Self::WouldAdd | Self::Unchanged => String::new(),
            Self::Updated(changes) | Self::WouldUpdate(changes) => changes.join("; "),
            Self::Tracked(differs) if differs.is_empty() => String::new(),
            Self::Tracked(differs) => format!("differs: {}", differs.join("; ")),
            Self::Duplicate(of) => format!("repeats {of}"),
            Self::Refused(Refusal { field, rule }) if field.is_empty() => rule.clone(),
            Self::Refused(Refusal { field, rule }) => format!("{field}: {rule}"),
        }
    }

    fn field(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => Some(refusal.field.as_str()).filter(|field| !field.is_empty()),
            _ => None,
        }
    }

    pub(super) fn refused(why: &str) -> Self {
        Self::Refused(Refusal { field: String::new(), rule: why.to_owned() })
    }
}

/// Requests that the server track one project. Status 200 instead of 201 is that of a dry run.
pub(super) async fn add(client: &Client, body: &impl Serialize) -> Result<Outcome, Failure> {
    match client.send(Method::POST, "/projects", Some(body)).await {
        Ok(reply) if reply.created => Ok(Outcome::Added),
        Ok(_) => Ok(Outcome::WouldAdd),
        Err(Failure::Problem(problem)) if problem.code() == Some(Code::ProjectExists) => {
            Ok(Outcome::Tracked(Vec::new()))
        }
        Err(failure) => refused(failure),
    }
}

/// The result for a row that the server refused, where the row is at fault.
fn refused(failure: Failure) -> Result<Outcome, Failure> {
    match failure {
        Failure::Problem(problem)
            // A field that the token may not set is the fault of this row.
            if (problem.field.is_some() || !matches!(problem.status, 401 | 403))
                && !problem.code.is_empty() =>
        {
            Ok(Outcome::refused(&problem.detail))
        }
        failure => Err(failure),
    }
}

/// Gives a tracked project the values of a row.
async fn update(
    client: &Client,
    row: &Map<String, Value>,
    project: &Project,
    dry_run: bool,
) -> Result<Outcome, Failure> {
    let (edit, mut changes) = edit(row, project)?;
    if edit.is_empty() {
        return Ok(Outcome::Unchanged);
    }
    if dry_run {
        return Ok(Outcome::WouldUpdate(changes));
    }
    match client.send(Method::PATCH, &format!("/projects/{}", project.group_id), Some(&edit)).await {
        Ok(reply) => {
            if !reply.read::<Project>()?.loosenings.is_empty() {
                changes.push("what loosens takes effect later, see `keywheel loosening list`".to_owned());
            }
            Ok(Outcome::Updated(changes))
        }
        Err(failure) => refused(failure),
    }
}

/// The fields of a row in which the project differs, as the body of an edit and as texts.
fn edit(row: &Map<String, Value>, project: &Project) -> Result<(Map<String, Value>, Vec<String>), Failure> {
    let mut row = row.clone();
    row.remove("groupId");
    // As the server would write it: `90d` and `2160h` are the same. What cannot be read, the server refuses by name.
    let given = Value::Object(row.clone());
    let row = match serde_json::from_value::<ProjectEdit>(given).and_then(serde_json::to_value) {
        Ok(Value::Object(row)) => row,
        _ => row,
    };
    let own = serde_json::to_value(&project.policy_override).map_err(anyhow::Error::from)?;
    let project = serde_json::to_value(project).map_err(anyhow::Error::from)?;
    let (mut edit, mut changes) = (Map::new(), Vec::new());
    let mut differs = |name: &str, file: &Value, held: &Value| {
        let same = is_same(file, held);
        if !same {
            changes.push(format!("{name}: {} -> {}", cell(held), cell(file)));
        }
        !same
    };
    for (name, mut file) in row {
        if name == "policy"
            && let Some(rules) = file.as_object_mut()
        {
            rules.retain(|rule, file| differs(&format!("policy.{rule}"), file, &own[rule]));
            if !rules.is_empty() {
                edit.insert(name, file);
            }
        } else if differs(&name, &file, &project[&name]) {
            edit.insert(name, file);
        }
    }
    Ok((edit, changes))
}

/// Whether a value of the file is that of the project. The order of a list says nothing, and a file keeps no blanks around
/// a text.
fn is_same(file: &Value, held: &Value) -> bool {
    match (file, held) {
        (Value::Array(one), Value::Array(two)) => {
            one.len() == two.len() && one.iter().all(|it| two.contains(it))
        }
        (Value::String(one), Value::String(two)) => one.trim() == two.trim(),
        _ => file == held,
    }
}

/// The project that a line of the report is about, as far as it is known.
#[derive(Default)]
pub(super) struct Named {
    group_id: Option<String>,
    name: Option<String>,
}

impl Named {
    pub(super) fn of(group_id: Option<&str>, name: Option<&str>) -> Self {
        Self { group_id: group_id.map(str::to_owned), name: name.map(str::to_owned) }
    }
}

/// The report of a whole run: a line for each project, and the sums at the end.
#[derive(Default)]
pub(super) struct Report {
    items: Vec<Value>,
    counts: BTreeMap<&'static str, usize>,
}

impl Report {
    /// Reports the result for one project; `place` is its source.
    pub(super) fn tell(
        &mut self,
        printer: &mut Printer,
        place: &str,
        project: &Named,
        added: &Outcome,
    ) -> Result<(), Failure> {
        *self.counts.entry(added.word()).or_default() += 1;
        if printer.is_json() {
            self.items.push(json!({
                "place": place, "groupId": project.group_id, "name": project.name, "result": added.word(),
                "field": added.field(), "detail": Some(added.detail()).filter(|text| !text.is_empty()),
            }));
            return Ok(());
        }
        let parts = [
            format!("{place}:"),
            added.word().replace('_', " "),
            project.group_id.clone().unwrap_or_default(),
            project.name.as_deref().map(visible).unwrap_or_default(),
        ];
        let mut line = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
        let detail = added.detail();
        if !detail.is_empty() {
            line = format!("{line}: {}", cell(&json!(detail)));
        }
        Ok(printer.line(&line)?)
    }

    /// Writes the sums and returns the exit code.
    pub(super) fn end(self, printer: &mut Printer) -> Result<Exit, Failure> {
        if printer.is_json() {
            printer.json(&Page { items: self.items, next: None })?;
        }
        let sums = self.counts.iter().map(|(word, count)| format!("{count} {}", word.replace('_', " ")));
        printer.note(&sums.collect::<Vec<_>>().join(", "));
        let refused = self.counts.contains_key("refused");
        Ok(if refused { Exit::Failed } else { Exit::Done })
    }
}

pub(super) async fn run(args: &Import, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    let path =
        if args.file.as_os_str() == STDIN { "standard input".into() } else { args.file.to_string_lossy() };
    let format = args.format.or_else(|| format_of(&args.file)).ok_or_else(|| {
        Failure::Usage(format!("{path}: name its format with --format csv, --format yaml or --format json"))
    })?;
    let bad = |why: file::FileError| Failure::Failed(anyhow::anyhow!("{path} {why}"));
    let rows = file::text(&args.file).and_then(|text| file::rows(format, &text)).map_err(bad)?;
    let tracked: Vec<Project> = client.items("/projects", &[("limit", "500")], None).await?.read()?;
    let tracked: BTreeMap<&str, &Project> =
        tracked.iter().map(|project| (project.group_id.as_str(), project)).collect();
    let mut earlier: BTreeMap<String, (String, Map<String, Value>)> = BTreeMap::new();
    let mut report = Report::default();
    for row in rows {
        let place = place(&row);
        let (project, added) = match row.body {
            Err(refusal) => (Named::default(), Outcome::Refused(refusal)),
            Ok(body) => {
                let id = body["groupId"].as_str().unwrap_or_default().to_owned();
                let added = match (earlier.get(&id), tracked.get(id.as_str())) {
                    (Some((of, same)), _) if *same == body => Outcome::Duplicate(of.clone()),
                    (Some((of, _)), _) => Outcome::Refused(Refusal {
                        field: "groupId".to_owned(),
                        rule: format!("{of} has other values for the same project; remove one of them"),
                    }),
                    (None, Some(project)) if args.update => {
                        update(client, &body, project, args.dry_run).await?
                    }
                    (None, Some(project)) => Outcome::Tracked(differences(&body, project)?),
                    (None, None) if args.dry_run => {
                        let mut body = body.clone();
                        body.insert("dryRun".to_owned(), json!(true));
                        add(client, &body).await?
                    }
                    (None, None) => add(client, &body).await?,
                };
                let named = Named::of(Some(&id), body.get("name").and_then(Value::as_str));
                earlier.entry(id).or_insert_with(|| (place.clone(), body));
                (named, added)
            }
        };
        report.tell(printer, &place, &project, &added)?;
    }
    report.end(printer)
}

fn place(row: &ImportRow) -> String {
    match row.line {
        Some(line) => format!("row {} (line {line})", row.number),
        None => format!("row {}", row.number),
    }
}

/// The fields in which a row differs from the server. Only policy fields that the row names are
/// compared.
fn differences(body: &Map<String, Value>, project: &Project) -> Result<Vec<String>, Failure> {
    let project = serde_json::to_value(project).map_err(anyhow::Error::from)?;
    let mut differs = Vec::new();
    let mut compare = |name: String, file: &Value, server: &Value| {
        if !is_same(file, server) {
            differs.push(format!("{name} (file: {}, tracked: {})", cell(file), cell(server)));
        }
    };
    for (name, file) in body {
        match (name.as_str(), file.as_object()) {
            ("policy", Some(fields)) => fields
                .iter()
                .for_each(|(name, file)| compare(format!("policy.{name}"), file, &project["policy"][name])),
            _ => compare(name.clone(), file, &project[name]),
        }
    }
    Ok(differs)
}
