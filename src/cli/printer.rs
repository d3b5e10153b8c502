//! The only writer of standard output: tables for people, the API's JSON for programs.
//!
//! Data goes to standard output, notes about it to standard error. Names come from Atlas unchecked, so
//! hidden characters are shown as escapes in everything that is printed, JSON included. Ids and keys are never cut or
//! wrapped, because people copy them. A closed pipe is an error value.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

use crate::domain::text::{visible, visible_json, visible_lines};
use crate::domain::time::Timestamp;

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// The API's JSON, unchanged.
    Json,
}

/// Standard output and standard error of one verb.
pub(super) struct Printer {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// Tables or JSON.
    pub(super) format: Format,
    live: bool,
    status_shown: bool,
}

impl Printer {
    /// A printer to this process' own streams.
    #[must_use]
    pub(super) fn stdio(format: Format) -> Self {
        let live = io::stdout().is_terminal() && format == Format::Table;
        Self::new(Box::new(io::stdout()), Box::new(io::stderr()), format, live)
    }

    /// A printer to the given streams; `live` allows a line that rewrites itself.
    #[must_use]
    pub(super) fn new(
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
        format: Format,
        live: bool,
    ) -> Self {
        Self { out, err, format, live, status_shown: false }
    }

    /// Whether JSON was requested.
    #[must_use]
    pub(super) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether a line may rewrite itself.
    #[must_use]
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    /// The text with its hidden characters as escapes.
    fn shown(&self, text: &str) -> String {
        if self.is_json() { visible_json(text) } else { visible_lines(text) }
    }

    /// One line of data, or several.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        self.wipe()?;
        let text = self.shown(text);
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Text that ends its own lines.
    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        let text = self.shown(text);
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Text of this program's own, with what it does to a terminal.
    pub(super) fn raw(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// A line that the next one replaces; nothing where output is not a terminal.
    pub(super) fn status(&mut self, text: &str) -> io::Result<()> {
        if !self.live {
            return Ok(());
        }
        self.status_shown = true;
        let text = visible(text);
        write!(self.out, "\r\x1b[K{text}")?;
        self.out.flush()
    }

    fn wipe(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.status_shown) {
            write!(self.out, "\r\x1b[K")?;
        }
        Ok(())
    }

    /// A note about the data, on standard error. A failed write is ignored: there is no place left to
    /// report it.
    pub(super) fn note(&mut self, text: &str) {
        let _ = self.wipe().and_then(|()| self.out.flush());
        let text = visible_lines(text);
        let _ = writeln!(self.err, "{text}");
    }

    /// JSON that this command made, not the server.
    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.line(&serde_json::to_string_pretty(value)?)
    }

    /// A list: the chosen columns that any item has.
    pub(super) fn list(&mut self, items: &[impl Serialize], columns: &[&str]) -> io::Result<()> {
        let items = items.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
        let columns: Vec<&&str> =
            columns.iter().filter(|name| items.iter().any(|item| !item[**name].is_null())).collect();
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|name| heading(name)));
        for item in &items {
            table.add_row(columns.iter().map(|name| cell(&item[**name])));
        }
        let lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
        self.line(&lines.join("\n"))
    }

    /// One object: the named fields first, then the rest; fields without a value are left out.
    pub(super) fn object(&mut self, object: &impl Serialize, order: &[&str]) -> io::Result<()> {
        let object = serde_json::to_value(object)?;
        let mut rows = Vec::new();
        let rest = object.as_object().into_iter().flat_map(|map| map.keys()).map(String::as_str);
        for name in order.iter().copied().chain(rest.filter(|name| !order.contains(name))) {
            flatten(name, &object[name], &mut rows);
        }
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let mut out = String::new();
        for (name, value) in rows {
            if value.contains('\n') {
                let _ =
                    writeln!(out, "{name}:\n{}", value.lines().map(visible).collect::<Vec<_>>().join("\n"));
            } else {
                let _ = writeln!(out, "{name:width$}  {}", visible(&value));
            }
        }
        self.text(&out)
    }
}

fn flatten(name: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Array(items) if items.is_empty() => {}
        Value::Object(map) => {
            let below = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
            map.iter().for_each(|(key, value)| flatten(&below(key), value, rows));
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, item) in items.iter().enumerate() {
                flatten(&format!("{name}.{}", index + 1), item, rows);
            }
        }
        Value::String(text) if text.contains('\n') => rows.push((name.to_owned(), text.clone())),
        other => rows.push((name.to_owned(), cell(other))),
    }
}

fn heading(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push(' ');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

/// One value in one line.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => visible(&short_time(text)),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(_) => {
            let mut rows = Vec::new();
            flatten("", value, &mut rows);
            let pairs: Vec<_> =
                rows.iter().map(|(name, value)| format!("{}={}", visible(name), visible(value))).collect();
            pairs.join(" ")
        }
        other => other.to_string(),
    }
}

/// Instants lose their microseconds in tables; JSON keeps them.
fn short_time(text: &str) -> String {
    match text.split_once('.') {
        Some((head, rest)) if rest.ends_with('Z') && text.parse::<Timestamp>().is_ok() => format!("{head}Z"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fake::{Shared, printer};
    use super::*;

    #[test]
    fn tables_keep_whole_keys_and_show_no_control_characters() {
        let (mut printer, out, _) = printer(Format::Table, false);
        let key = "projects/p/locations/l/keyRings/r/cryptoKeys/".to_owned() + &"k".repeat(300);
        let items = [
            json!({"id": 1, "name": "a\u{1b}[31m\u{202e}b", "newKey": key, "at": "2026-01-02T03:04:05.123456Z"}),
        ];
        printer.list(&items, &["id", "name", "newKey", "at", "absent"]).unwrap();
        let text = out.text();
        assert!(text.contains(&key) && text.contains("2026-01-02T03:04:05Z"), "{text}");
        assert!(text.contains("a\\u{1b}[31m\\u{202e}b") && !text.contains("ABSENT"), "{text}");
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn json_shows_no_hidden_characters_and_means_the_same() {
        let (mut printer, out, _) = printer(Format::Json, false);
        let value = json!({ "name": "a\u{1b}]0;x\u{7}\u{9b}\u{202e}\u{200b}\u{2028}\u{7f}b\u{e0041}" });
        printer.line(&value.to_string()).unwrap();
        printer.json(&value).unwrap();
        let text = out.text();
        assert!(text.chars().all(|c| c == '\n' || c.is_ascii_graphic() || c == ' '), "{text:?}");
        let mut parsed = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        assert_eq!(parsed.next().unwrap().unwrap(), value);
        assert_eq!(parsed.next().unwrap().unwrap(), value);
    }

    #[test]
    fn objects_show_named_fields_first_and_skip_what_is_absent() {
        let (mut printer, out, _) = printer(Format::Table, false);
        printer
            .object(&json!({"b": 1, "a": {"x": true}, "z": null, "id": "i"}), &["id", "b", "none"])
            .unwrap();
        assert_eq!(out.text(), "id   i\nb    1\na.x  true\n");
    }

    #[test]
    fn a_status_line_is_only_for_terminals() {
        let (mut plain, out, _) = printer(Format::Table, false);
        plain.status("x").unwrap();
        assert_eq!(out.text(), "");
        let (mut live, out, _) = printer(Format::Table, true);
        live.status("x").unwrap();
        live.line("y").unwrap();
        assert_eq!(out.text(), "\r\x1b[Kx\r\x1b[Ky\n");
    }

    #[test]
    fn a_closed_pipe_is_an_error_and_no_panic() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut printer = Printer::new(Box::new(Closed), Box::new(Shared::default()), Format::Table, false);
        let failure = super::super::failure::Failure::from(printer.line("x").unwrap_err());
        assert!(matches!(failure, super::super::failure::Failure::Closed));
    }
}
