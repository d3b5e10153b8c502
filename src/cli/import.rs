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
use crate::api::project::Project;
use crate::domain::text::visible;
use file::{Format, ImportRow, Refusal};

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The file: CSV with a heading line, YAML or JSON
    file: PathBuf,
    /// Format of the file, when its name does not end in .csv, .yaml, .yml or .json
    #[arg(long, value_enum)]
    format: Option<Format>,
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
            Self::Duplicate(_) => "duplicate",
            Self::Refused(_) => "refused",
        }
    }

    /// The reason, where there is one.
    fn detail(&self) -> String {
        match self {
            Self::Added | Self::WouldAdd => String::new(),
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
        Err(Failure::Problem(problem))
            // A field that the token may not set is the fault of this row.
            if (problem.field.is_some() || !matches!(problem.status, 401 | 403))
                && !problem.code.is_empty() =>
        {
            Ok(Outcome::refused(&problem.detail))
        }
        Err(failure) => Err(failure),
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
    let path = args.file.display();
    let format = args.format.or_else(|| file::format_of(&args.file)).ok_or_else(|| {
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
        let same = match (file.as_array(), server.as_array()) {
            (Some(one), Some(two)) => one.len() == two.len() && one.iter().all(|it| two.contains(it)),
            _ => file == server,
        };
        if !same {
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
