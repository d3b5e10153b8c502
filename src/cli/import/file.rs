//! Reads an inventory file into rows: each is a body for `POST /projects`, or a refusal with its reason.
//!
//! A fault of the whole file (no CSV, a column with an unknown name) is an error; a fault in one row
//! refuses that row. The server validates the values, except those that could not be sent at all.

use std::io::Read as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{json as strict, yaml};
use crate::domain::ids::GroupId;
use crate::domain::text::distance;
use crate::domain::time::Timestamp;

/// The most that a file may hold, in bytes.
const LARGEST: u64 = 16 << 20;

/// The fields of a project, and `since`, as the command line calls `keySince`.
const FIELDS: [&str; 10] =
    ["groupId", "name", "owners", "credential", "environment", "since", "keySince", "kms", "alias", "policy"];

/// Atlas' other names of `groupId`.
const GROUP_ID: [&str; 4] = ["id", "projectId", "project_id", "group_id"];

/// The formats of an inventory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Format {
    /// Columns with a heading, separated by commas, semicolons or tabs.
    Csv,
    /// A list of mappings.
    Yaml,
    /// A list of objects.
    Json,
}

/// Why a row is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Refusal {
    /// The field; empty when it is about the row as a whole.
    pub(super) field: String,
    /// The values that it takes.
    pub(super) rule: String,
}

/// Why a file is not an inventory. The caller names the file before the text.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("has {mib} MiB, and {} are taken at once: split it", LARGEST >> 20)]
    TooLarge { mib: u64 },
    #[error("is UTF-16: save it as UTF-8")]
    Utf16,
    #[error("is not UTF-8 at byte {}: save it as UTF-8", .0.utf8_error().valid_up_to())]
    NotUtf8(#[from] std::string::FromUtf8Error),
    #[error("is empty: it takes at least one project")]
    Empty,
    #[error("is not CSV: {0}")]
    NotCsv(#[from] csv::Error),
    #[error("has an unknown column {name:?}: {hint}")]
    UnknownColumn { name: String, hint: String },
    #[error("has the column {0} twice")]
    ColumnTwice(String),
    #[error("has no column groupId in its first line")]
    NoGroupId,
    #[error("is not JSON: {0}")]
    NotJson(#[source] serde_json::Error),
    /// JSON that breaks a rule of the inventory; the parser's text names it.
    #[error("{0}")]
    JsonRule(#[source] serde_json::Error),
    #[error("takes a list of projects: [{{\"groupId\": …}}, …]")]
    NoList,
    #[error(transparent)]
    Yaml(#[from] yaml::YamlError),
    #[error("holds no project")]
    NoProject,
}

/// The values that a field of a row takes.
#[derive(Debug, thiserror::Error)]
enum FieldError {
    #[error("takes mail addresses: separated by \";\", \",\" or blanks, or as a list")]
    Owners,
    #[error("takes a JSON object such as {{\"approvals\": 2}}")]
    Policy,
    #[error("takes a JSON object such as {{\"approvals\": 2}}: {0}")]
    PolicyJson(#[from] serde_json::Error),
}

/// One row.
#[derive(Clone, Debug)]
pub(super) struct ImportRow {
    /// Counts from 1.
    pub(super) number: usize,
    /// The line in the file, where the format has lines.
    pub(super) line: Option<u64>,
    /// The project, or the refusal.
    pub(super) body: Result<Map<String, Value>, Refusal>,
}

/// The format by the name of the file.
pub(in crate::cli) fn format_of(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "csv" => Some(Format::Csv),
        "yaml" | "yml" => Some(Format::Yaml),
        "json" => Some(Format::Json),
        _ => None,
    }
}

/// The name that stands for standard input.
pub(super) const STDIN: &str = "-";

/// The text of a file, or of standard input, without a byte order mark.
pub(super) fn text(path: &Path) -> Result<String, FileError> {
    if path == Path::new(STDIN) {
        let mut bytes = Vec::new();
        std::io::stdin().lock().take(LARGEST + 1).read_to_end(&mut bytes)?;
        let size = bytes.len() as u64;
        return if size > LARGEST { Err(FileError::TooLarge { mib: size >> 20 }) } else { decoded(bytes) };
    }
    let size = std::fs::metadata(path)?.len();
    if size > LARGEST {
        return Err(FileError::TooLarge { mib: size >> 20 });
    }
    decoded(std::fs::read(path)?)
}

/// The bytes of a file as text.
pub(super) fn decoded(bytes: Vec<u8>) -> Result<String, FileError> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(FileError::Utf16);
    }
    let text = String::from_utf8(bytes)?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// The rows of a text.
pub(super) fn rows(format: Format, text: &str) -> Result<Vec<ImportRow>, FileError> {
    if text.trim().is_empty() {
        return Err(FileError::Empty);
    }
    let rows = match format {
        Format::Csv => csv_rows(text)?,
        Format::Json => {
            let value = strict::read(text).map_err(|error| {
                if error.is_data() { FileError::JsonRule(error) } else { FileError::NotJson(error) }
            })?;
            let Value::Array(items) = value else {
                return Err(FileError::NoList);
            };
            numbered(items.into_iter().map(|item| (None, item)))
        }
        Format::Yaml => {
            let items = yaml::read(text)?;
            numbered(items.into_iter().map(|(line, item)| (u64::try_from(line).ok(), item)))
        }
    };
    if rows.is_empty() {
        return Err(FileError::NoProject);
    }
    Ok(rows)
}

fn numbered(items: impl Iterator<Item = (Option<u64>, Value)>) -> Vec<ImportRow> {
    (1..).zip(items).map(|(number, (line, item))| ImportRow { number, line, body: body(item) }).collect()
}

fn csv_rows(text: &str) -> Result<Vec<ImportRow>, FileError> {
    let (separator, skipped, text) = separated(text)?;
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let header = columns(reader.headers()?)?;
    let mut rows = Vec::new();
    for (number, record) in (1..).zip(reader.records()) {
        let record = record?;
        let line = record.position().map(|at| line(text, at) + skipped);
        // Programs for spreadsheets write the cells that once held something.
        let held = held_by(&record);
        if held == 0 && record.len() > 1 {
            continue;
        }
        let odd = record.iter().position(|cell| cell.contains(char::is_control));
        let body = if let Some(place) = odd {
            // An open quotation mark pulls the following lines into its cell.
            let rule = "holds a line break or another control character: is a quotation mark (\") left open?";
            let field = header.get(place).cloned().unwrap_or_default();
            Err(Refusal { field, rule: rule.to_owned() })
        } else if record.len() >= header.len() && held <= header.len() {
            let fields = header.iter().zip(&record);
            body(fields.map(|(name, text)| (name.clone(), json!(unguarded(text)))).collect())
        } else {
            let rule = format!("has {} fields, and the first line names {}", record.len(), header.len());
            Err(Refusal { field: String::new(), rule })
        };
        rows.push(ImportRow { number, line, body });
    }
    Ok(rows)
}

/// The first characters by which spreadsheets take a cell for a formula.
const FORMULA: [char; 4] = ['=', '+', '-', '@'];

/// A cell that no spreadsheet takes for a formula; [`unguarded`] gives the text back.
pub(in crate::cli) fn guarded(text: &str) -> String {
    if text.starts_with(FORMULA) || unguarded(text) != text { format!("'{text}") } else { text.to_owned() }
}

/// The text of a cell, without the apostrophe before a formula or before another such apostrophe.
fn unguarded(cell: &str) -> &str {
    cell.strip_prefix('\'').filter(|rest| rest.starts_with(FORMULA) || rest.starts_with('\'')).unwrap_or(cell)
}

/// The separator of a text, the lines before its heading, and the text from there on. Programs for spreadsheets write
/// semicolons where the comma separates decimals, and may say so in a first line `sep=;`.
fn separated(text: &str) -> Result<(u8, u64, &str), FileError> {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let first = first.trim_end_matches('\r').trim_matches('"');
    if let Some(&[separator]) = first.strip_prefix("sep=").map(str::as_bytes) {
        return Ok((separator, 1, rest));
    }
    let mut most = (b',', 0);
    for separator in [b',', b';', b'\t'] {
        let mut reader = csv::ReaderBuilder::new().delimiter(separator).from_reader(text.as_bytes());
        let columns = reader.headers()?.len();
        if columns > most.1 {
            most = (separator, columns);
        }
    }
    Ok((most.0, 0, text))
}

/// The names of the columns, without empty ones at the end.
fn columns(heading: &csv::StringRecord) -> Result<Vec<String>, FileError> {
    let last = held_by(heading);
    let names: Vec<String> = heading.iter().take(last).map(|name| known_as(name).to_owned()).collect();
    for (place, name) in names.iter().enumerate() {
        if !FIELDS.contains(&name.as_str()) {
            return Err(FileError::UnknownColumn { name: name.clone(), hint: nearest(name) });
        }
        if names.iter().take(place).any(|other| other == name) {
            return Err(FileError::ColumnTwice(name.clone()));
        }
    }
    if !names.iter().any(|name| name == "groupId") {
        return Err(FileError::NoGroupId);
    }
    Ok(names)
}

/// The number of cells up to the last one that holds something.
fn held_by(record: &csv::StringRecord) -> usize {
    (1..).zip(record).filter(|(_, cell)| !cell.is_empty()).last().map_or(0, |(number, _)| number)
}

/// The field behind a name: `groupId` has several in Atlas.
fn known_as(name: &str) -> &str {
    if GROUP_ID.iter().any(|other| other.eq_ignore_ascii_case(name)) { "groupId" } else { name }
}

/// The line on which a record begins. The reader's position lies before the rest of the previous line's
/// end and before blank lines, so these are counted here. A line of spaces is a record of its own.
fn line(text: &str, at: &csv::Position) -> u64 {
    let from = usize::try_from(at.byte()).unwrap_or(usize::MAX);
    let ends = text
        .as_bytes()
        .get(from..)
        .unwrap_or_default()
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'));
    at.line() + ends.map(|byte| u64::from(*byte == b'\n')).sum::<u64>()
}

/// A hint with the known name that is most similar to `name`.
fn nearest(name: &str) -> String {
    let close = FIELDS
        .iter()
        .map(|known| {
            (distance(&name.to_lowercase().replace(['_', '-', ' '], ""), &known.to_lowercase()), known)
        })
        .min();
    match close {
        Some((far, known)) if far <= name.chars().count().div_ceil(2).max(2) => {
            format!("did you mean {known}?")
        }
        _ => format!("known are {}", FIELDS.join(", ")),
    }
}

/// The request body of one project.
fn body(item: Value) -> Result<Map<String, Value>, Refusal> {
    let Value::Object(fields) = item else {
        return Err(Refusal { field: String::new(), rule: "a project is a set of named fields".to_owned() });
    };
    let mut body = Map::new();
    for (given, value) in fields {
        let name = known_as(&given);
        let refuse = |rule: String| Refusal { field: given.clone(), rule };
        if !FIELDS.contains(&name) {
            return Err(refuse(format!("there is no such field: {}", nearest(name))));
        }
        let empty = match &value {
            Value::Null => true,
            Value::String(text) => text.trim().is_empty(),
            _ => false,
        };
        if empty {
            continue;
        }
        let (key, value) = match name {
            "owners" => ("owners", owners(value).map_err(|why| refuse(why.to_string()))?),
            "policy" => ("policy", policy(value).map_err(|why| refuse(why.to_string()))?),
            other => {
                let Value::String(text) = value else {
                    return Err(refuse("takes a text: put it into quotation marks".to_owned()));
                };
                let text = text.trim();
                match other {
                    "groupId" => {
                        let id: GroupId = text.parse().map_err(|error| refuse(format!("{error}")))?;
                        ("groupId", json!(id))
                    }
                    "since" | "keySince" => {
                        let at: Timestamp = text.parse().map_err(|error| refuse(format!("{error}")))?;
                        ("keySince", json!(at))
                    }
                    other => (other, json!(text)),
                }
            }
        };
        if body.contains_key(key) {
            return Err(refuse(format!("is given twice, under two names of {key}: leave one out")));
        }
        body.insert(key.to_owned(), value);
    }
    if body.contains_key("groupId") {
        return Ok(body);
    }
    let rule = "is missing: the project's id in Atlas, 24 hexadecimal digits".to_owned();
    Err(Refusal { field: "groupId".to_owned(), rule })
}

fn owners(value: Value) -> Result<Value, FieldError> {
    let given: Vec<String> = match value {
        Value::String(text) => text.split([';', ',', ' ', '\u{a0}']).map(str::to_owned).collect(),
        Value::Array(items) => items
            .into_iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or(FieldError::Owners))
            .collect::<Result<_, _>>()?,
        _ => return Err(FieldError::Owners),
    };
    Ok(given.iter().map(|mail| mail.trim()).filter(|mail| !mail.is_empty()).map(Value::from).collect())
}

fn policy(value: Value) -> Result<Value, FieldError> {
    let value = match value {
        Value::String(text) => strict::read(&text)?,
        value => value,
    };
    if value.is_object() { Ok(value) } else { Err(FieldError::Policy) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "650000000000000000000001";

    fn bodies(format: Format, text: &str) -> Vec<Value> {
        let rows = rows(format, text).unwrap();
        rows.into_iter().map(|row| Value::Object(row.body.unwrap())).collect()
    }

    fn refusal(format: Format, text: &str) -> (usize, String, String) {
        let row = rows(format, text).unwrap().into_iter().find(|row| row.body.is_err()).unwrap();
        let Err(refusal) = row.body else { unreachable!() };
        (row.number, refusal.field, refusal.rule)
    }

    #[test]
    fn what_is_guarded_against_formulas_reads_back_as_it_was() {
        for text in
            ["=1+1", "+a", "-a", "@a", "'=a", "''x", "'", "''", "'tis", "a'b", "", "plain", "''=", "'-"]
        {
            let cell = guarded(text);
            assert!(!cell.starts_with(FORMULA), "{cell}");
            assert_eq!(unguarded(&cell), text);
        }
        let rows = bodies(Format::Csv, &format!("groupId,name\n{ID},'=1+1\n{ID},'tis\n"));
        assert_eq!((&rows[0]["name"], &rows[1]["name"]), (&json!("=1+1"), &json!("'tis")));
    }

    #[test]
    fn the_three_formats_say_the_same() {
        let csv = format!(
            "groupId,name,owners,since,policy\r\n{ID},\"a, b\",ada@example.com; bob@example.com,2026-06-01,\"{{\"\"approvals\"\":2}}\"\r\n"
        );
        let json = format!(
            r#"[{{"groupId":"{ID}","name":"a, b","owners":["ada@example.com","bob@example.com"],"keySince":"2026-06-01T00:00:00Z","policy":{{"approvals":2}}}}]"#
        );
        // Without quotation marks the id reads as a number to other programs.
        let yaml = format!(
            "# fleet\n- groupId: {ID}\n  name: 'a, b'\n  owners: [ada@example.com, bob@example.com]\n  since: 2026-06-01\n  policy:\n    approvals: 2\n"
        );
        let one = bodies(Format::Csv, &csv);
        assert_eq!(one[0]["keySince"], "2026-06-01T00:00:00.000000Z");
        assert_eq!(one[0]["policy"], json!({ "approvals": 2 }));
        assert_eq!(one, bodies(Format::Json, &json));
        assert_eq!(one, bodies(Format::Yaml, &yaml));
    }

    #[test]
    fn empty_cells_and_blank_lines_say_nothing() {
        let rows = bodies(Format::Csv, &format!("groupId,name,owners,kms\n\n{ID},,,aws-prod\n\n"));
        assert_eq!(rows, [json!({ "groupId": ID, "kms": "aws-prod" })]);
        assert_eq!(
            bodies(Format::Yaml, &format!("- groupId: {ID}\n  name: ~\n  owners:\n")),
            [json!({ "groupId": ID })]
        );
    }

    #[test]
    fn what_spreadsheets_save_is_read() {
        let owned =
            json!({ "groupId": ID, "name": "payments", "owners": ["a@example.test", "b@example.test"] });
        for text in [
            format!("groupId;name;owners\r\n{ID};payments;a@example.test, b@example.test\r\n"),
            format!("groupId;name;owners\r\n{ID};payments;a@example.test b@example.test\r\n;;\r\n"),
            format!(
                "\"groupId\";\"name\";\"owners\";;\r\n{ID};payments;\"a@example.test;b@example.test\";;\r\n"
            ),
            format!("sep=;\r\nID;name;owners\r\n{ID};payments;a@example.test,b@example.test\r\n"),
            format!("id\tname\towners\n{ID}\tpayments\ta@example.test,b@example.test\n"),
            format!("id,name,owners,,\n{ID},payments,\"a@example.test, b@example.test\",,\n,,,,\n"),
            format!("projectId,name,owners\n{ID},payments,a@example.test;b@example.test,,\n"),
        ] {
            assert_eq!(bodies(Format::Csv, &text), std::slice::from_ref(&owned), "{text}");
        }
        let json =
            format!(r#"[{{"id":"{ID}","name":"payments","owners":"a@example.test, b@example.test"}}]"#);
        assert_eq!(bodies(Format::Json, &json), [owned]);
        let lines = format!("sep=;\ngroupId;name\n{ID};a\nx;b\n");
        let lines: Vec<_> = rows(Format::Csv, &lines).unwrap().iter().map(|row| row.line).collect();
        assert_eq!(lines, [Some(3), Some(4)]);
        let too_many = refusal(Format::Csv, &format!("groupId;name\n{ID};a;b\n"));
        assert!(too_many.2.contains("has 3 fields"), "{too_many:?}");
    }

    #[test]
    fn rows_know_their_lines() {
        for end in ["\n", "\r\n"] {
            let text = ["groupId,name", "x,a", "", "y,\"b", "c\"", "z,d"].join(end);
            let lines: Vec<_> = rows(Format::Csv, &text).unwrap().iter().map(|row| row.line).collect();
            assert_eq!(lines, [Some(2), Some(4), Some(6)], "{end:?}");
        }
        let lines: Vec<_> =
            rows(Format::Csv, "groupId\n \n \n\n\nx\n").unwrap().iter().map(|row| row.line).collect();
        assert_eq!(lines, [Some(2), Some(3), Some(6)]);
        let lines: Vec<_> = rows(Format::Yaml, "# x\n- groupId: a\n\n- groupId: b\n")
            .unwrap()
            .iter()
            .map(|row| row.line)
            .collect();
        assert_eq!(lines, [Some(2), Some(4)]);
    }

    #[test]
    fn a_file_that_cannot_be_meant_is_refused_as_a_whole() {
        for (format, text, wanted) in [
            (Format::Csv, " \n", "is empty"),
            (Format::Csv, "groupId,onwers\n", "did you mean owners?"),
            (Format::Csv, "group\n", "did you mean groupId?"),
            (Format::Csv, "groupId|name\nx|y\n", "unknown column \"groupId|name\""),
            (Format::Csv, "id,groupId\nx,y\n", "the column groupId twice"),
            (Format::Csv, "groupId,,name\nx,,y\n", "unknown column \"\""),
            (Format::Csv, "groupId,name,name\n", "name twice"),
            (Format::Csv, "name\nx\n", "no column groupId"),
            (Format::Csv, "groupId\n", "holds no project"),
            (Format::Json, "{}", "takes a list"),
            (Format::Json, "[1,", "is not JSON"),
            (Format::Json, "[]", "holds no project"),
            (Format::Json, r#"[{"groupId": "x", "groupId": "y"}]"#, "groupId is there twice at line 1"),
            (Format::Yaml, "groupId: x\n", "line 1: a list of projects"),
            (Format::Yaml, "- groupId: x\n  groupId: y\n", "line 2: groupId is there twice"),
            (Format::Yaml, "- &a\n  groupId: x\n- *a\n", "anchors"),
            (Format::Yaml, "- groupId: x\n- *a\n", "this is not YAML"),
            (Format::Yaml, "- groupId: [\n", "this is not YAML"),
            (Format::Yaml, "- groupId: x\n---\n- groupId: y\n", "second document"),
            (Format::Yaml, &format!("- policy: {}{}", "[".repeat(40), "]".repeat(40)), "nested too deeply"),
        ] {
            let error = rows(format, text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_in_a_row_is_named_with_its_field() {
        for (format, text, number, field, rule) in [
            (Format::Csv, format!("groupId,name\n{ID},a\n{ID}\n"), 2, "", "has 1 fields"),
            (Format::Csv, format!("groupId,name\nnope,a\n{ID},b\n"), 1, "groupId", "24 hexadecimal digits"),
            (Format::Csv, format!("groupId,since\n{ID},soon\n"), 1, "since", "is not a date"),
            (Format::Csv, format!("groupId,policy\n{ID},[]\n"), 1, "policy", "JSON object"),
            (Format::Csv, "groupId,name\n,a\n".to_owned(), 1, "groupId", "is missing"),
            (Format::Csv, format!("groupId,name,kms\n{ID},\"a,b\n{ID},c,d\n"), 1, "name", "left open"),
            (Format::Csv, format!("groupId,name\n{ID},a\n{ID},b\tc\n"), 2, "name", "control character"),
            (Format::Csv, format!("groupId,name\n{ID},a\n{ID},\"b\r\nc\"\n"), 2, "name", "line break"),
            (Format::Json, format!(r#"[{{"groupId":"{ID}"}},7]"#), 2, "", "named fields"),
            (Format::Json, r#"[{"groupId":650}]"#.to_owned(), 1, "groupId", "takes a text"),
            (
                Format::Json,
                format!(r#"[{{"groupId":"{ID}","owner":"a"}}]"#),
                1,
                "owner",
                "did you mean owners?",
            ),
            (Format::Json, format!(r#"[{{"groupId":"{ID}","owners":[1]}}]"#), 1, "owners", "mail addresses"),
            (
                Format::Yaml,
                format!("- groupId: {ID}\n  since: 2026-01-01\n  keySince: 2026-01-01\n"),
                1,
                "since",
                "leave one out",
            ),
        ] {
            let found = refusal(format, &text);
            assert_eq!((found.0, found.1.as_str()), (number, field), "{text}: {found:?}");
            assert!(found.2.contains(rule), "{text}: {found:?}");
        }
    }

    #[test]
    fn files_are_read_whatever_saved_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleet.CSV");
        std::fs::write(&path, "\u{feff}groupId\r\n").unwrap();
        assert_eq!((text(&path).unwrap().as_str(), format_of(&path)), ("groupId\r\n", Some(Format::Csv)));
        std::fs::write(&path, b"\xff\xfeg\0").unwrap();
        assert!(text(&path).unwrap_err().to_string().contains("UTF-16"));
        std::fs::write(&path, b"abc\xe9").unwrap();
        assert!(text(&path).unwrap_err().to_string().contains("not UTF-8 at byte 3"));
        std::fs::File::create(&path).unwrap().set_len(LARGEST + (2 << 20)).unwrap();
        assert!(text(&path).unwrap_err().to_string().contains("has 18 MiB"));
        assert!(text(&dir.path().join("none.csv")).unwrap_err().to_string().contains("cannot be read"));
        assert_eq!(format_of(Path::new("fleet.txt")), None);
    }
}
