//! The only writer of standard output: tables for people, the API's JSON for programs.
//!
//! Data goes to standard output, notes about it to standard error. Names come from Atlas unchecked, so
//! hidden characters are shown as escapes in everything that is printed, JSON included. On a terminal nothing
//! is wider than it. JSON, ids, and what a pipe gets of keys are never cut, because people copy them. A closed
//! pipe is an error value.

use std::io::{self, Write};
use std::process::Stdio;

use serde::Serialize;
use serde_json::Value;
use textwrap::core::display_width;

use super::screen::{Color, Line, Mood, PIPE, Screen, wrap};
use super::table::{Cell, table};
use crate::domain::preflight::{Check, Verdict};
use crate::domain::text::{visible, visible_json, visible_lines};
use crate::domain::time::{Clock, SystemClock, Timestamp};

/// The longest value in a list of members that is no key; -o json has it whole.
const MEMBER: usize = 100;

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// The API's JSON, unchanged.
    Json,
}

/// An output, with its screen where that may change.
type Sized = Box<dyn Fn() -> Screen + Send>;

/// Standard output and standard error of one verb.
pub(super) struct Printer {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// Tables or JSON.
    pub(super) format: Format,
    /// Read for each output: a window is resized while a rotation is watched.
    out_screen: Sized,
    err_screen: Screen,
    clock: Box<dyn Clock>,
    /// The lines of the frame that the next output replaces.
    frame: usize,
    /// Lines that are gathered for a frame, instead of written.
    held: Option<Vec<Line>>,
    /// Whether nothing is printed at all.
    silent: bool,
}

impl Printer {
    /// A printer to this process' own streams.
    #[must_use]
    pub(super) fn stdio(format: Format, color: Color) -> Self {
        let (out, err) = (io::stdout(), io::stderr());
        let err_screen = Screen::of(&err, color);
        let out_screen = Box::new(move || Screen::stdout(color));
        Self::new(Box::new(out), Box::new(err), format, out_screen, err_screen, Box::new(SystemClock))
    }

    /// A printer to the given streams.
    #[must_use]
    pub(super) fn new(
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
        format: Format,
        out_screen: Sized,
        err_screen: Screen,
        clock: Box<dyn Clock>,
    ) -> Self {
        Self { out, err, format, out_screen, err_screen, clock, frame: 0, held: None, silent: false }
    }

    /// A printer that prints nothing.
    #[must_use]
    pub(super) fn silent() -> Self {
        let (out, err) = (Box::new(io::sink()), Box::new(io::sink()));
        let (screen, clock) = (Box::new(Screen::default), Box::new(SystemClock));
        Self { silent: true, ..Self::new(out, err, Format::Json, screen, Screen::default(), clock) }
    }

    /// Where a program that is run for the user may complain. Beside a prompt there is no place for that.
    #[must_use]
    pub(super) fn errors(&self) -> Stdio {
        if self.silent { Stdio::null() } else { Stdio::inherit() }
    }

    /// Whether JSON was requested.
    #[must_use]
    pub(super) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// The present, from which tables and trees count.
    #[must_use]
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The screen of standard output.
    #[must_use]
    pub(super) fn screen(&self) -> Screen {
        (self.out_screen)()
    }

    /// Whether lines may rewrite themselves: on a terminal that can, and not with JSON.
    #[must_use]
    pub(super) fn is_live(&self) -> bool {
        let screen = self.screen();
        screen.width.is_some() && !screen.dumb && !self.is_json()
    }

    /// One line of data, or several. Prose that is wider than the screen is wrapped.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        if self.is_json() {
            self.wipe()?;
            writeln!(self.out, "{}", visible_json(text))?;
            return self.out.flush();
        }
        let width = self.screen().prose();
        let lines: Vec<Line> =
            visible_lines(text).split('\n').flat_map(|line| hanging(line, width)).collect();
        self.lines(&lines)
    }

    /// Lines that are laid out for the screen.
    pub(super) fn lines(&mut self, lines: &[Line]) -> io::Result<()> {
        if let Some(held) = &mut self.held {
            held.extend_from_slice(lines);
            return Ok(());
        }
        self.wipe()?;
        let screen = self.screen();
        for line in lines {
            writeln!(self.out, "{}", line.render(&screen))?;
        }
        self.out.flush()
    }

    /// Text that ends its own lines, and keeps them.
    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        let text = if self.is_json() { visible_json(text) } else { visible_lines(text) };
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Text of this program's own, with what it does to a terminal.
    pub(super) fn raw(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Lines that the next output replaces; nothing where output is not a terminal. What is higher than the screen
    /// loses its beginning: what is waited for stands at the end.
    pub(super) fn frame(&mut self, lines: &[Line]) -> io::Result<()> {
        if !self.is_live() {
            return Ok(());
        }
        let lines = &lines[lines.len().saturating_sub(self.rows())..];
        self.lines(lines)?;
        self.frame = lines.len();
        Ok(())
    }

    /// What `show` prints and notes, as one frame; on a terminal only. What is higher than the screen loses its end.
    pub(super) fn frame_of(&mut self, show: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        self.held = Some(Vec::new());
        let shown = show(self);
        let mut lines = self.held.take().unwrap_or_default();
        shown?;
        lines.truncate(self.rows());
        self.frame(&lines)
    }

    /// The lines that a frame can have.
    fn rows(&self) -> usize {
        self.screen().height.unwrap_or(24).saturating_sub(1).max(1)
    }

    /// Removes the frame.
    fn wipe(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.frame) {
            0 => Ok(()),
            // Goes up to its first line and clears the screen from there.
            lines => write!(self.out, "\x1b[{lines}A\r\x1b[J"),
        }
    }

    /// A note about the data, on standard error. A failed write is ignored: there is no place left to
    /// report it.
    pub(super) fn note(&mut self, text: &str) {
        if self.held.is_some() {
            let _ = self.line(text);
            return;
        }
        let _ = self.wipe().and_then(|()| self.out.flush());
        let screen = self.err_screen;
        for text in visible_lines(text).split('\n') {
            for (index, line) in hanging(text, screen.prose()).into_iter().enumerate() {
                let line = if index == 0 { headed(line) } else { line };
                let _ = writeln!(self.err, "{}", line.render(&screen));
            }
        }
    }

    /// JSON that this command made, not the server.
    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.line(&serde_json::to_string_pretty(value)?)
    }

    /// A list: the chosen columns that any item has.
    pub(super) fn list(&mut self, items: &[impl Serialize], columns: &[&str]) -> io::Result<()> {
        let items = items.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
        let columns: Vec<(&str, String)> = columns
            .iter()
            .filter(|name| items.iter().any(|item| !item[**name].is_null()))
            .map(|name| (*name, heading(name)))
            .collect();
        let row = |item: &Value| {
            columns
                .iter()
                .map(|(name, _)| {
                    let text = cell(&item[*name]);
                    Cell { mood: Mood::of(name, &text), text }
                })
                .collect()
        };
        let rows: Vec<Vec<Cell>> = items.iter().map(row).collect();
        self.lines(&table(&columns, &rows, &self.screen()))
    }

    /// One object: the named fields first, then the rest; fields without a value are left out.
    pub(super) fn object(&mut self, object: &impl Serialize, order: &[&str]) -> io::Result<()> {
        let object = serde_json::to_value(object)?;
        let mut rows = Vec::new();
        let rest = object.as_object().into_iter().flat_map(|map| map.keys()).map(String::as_str);
        for name in order.iter().copied().chain(rest.filter(|name| !order.contains(name))) {
            flatten(name, &object[name], &mut rows);
        }
        let width = rows.iter().map(|(name, _)| display_width(name)).max().unwrap_or(0);
        let mut lines = Vec::new();
        for (name, value) in rows {
            if value.contains('\n') {
                lines.push(Line::plain(&format!("{name}:")));
                let text = visible_lines(&value);
                lines.extend(text.split('\n').flat_map(|line| hanging(line, self.screen().prose())));
            } else {
                lines.extend(field(&name, width, &value, &self.screen()));
            }
        }
        self.lines(&lines)
    }
}

/// A name and its value, whole: a text that is wider than the screen goes on below its beginning. A key stands below
/// the name where only that keeps it in one piece, which is easier to copy.
fn field(name: &str, width: usize, value: &str, screen: &Screen) -> Vec<Line> {
    let left = screen.prose().saturating_sub(width + 2).max(8);
    let mood = Mood::of(name, value);
    let value = visible(value);
    let long = display_width(&value);
    if !value.contains(' ') && long > left && long + 2 <= screen.prose() {
        return vec![Line::plain(name), Line::plain("  ").with(mood, &value)];
    }
    let mut name = Line::plain(name);
    let mut lines = Vec::new();
    for text in wrap(&value, left) {
        name.pad(width + 2);
        lines.push(std::mem::take(&mut name).with(mood, &text));
    }
    lines
}

/// A text in lines of at most `width` columns; those after the first stand a little to the right of it.
fn hanging(text: &str, width: usize) -> Vec<Line> {
    if display_width(text) <= width {
        return vec![Line::plain(text)];
    }
    let body = text.trim_start();
    let edge = display_width(text) - display_width(body);
    let rest = edge + 2;
    let mut lines = Vec::new();
    for line in wrap(body, width.saturating_sub(rest).max(8)) {
        let edge = if lines.is_empty() { edge } else { rest };
        lines.push(Line::plain(&format!("{}{line}", " ".repeat(edge))));
    }
    lines
}

/// The line of a note with its first word in the colour of what it means.
fn headed(line: Line) -> Line {
    line.headed(&[("error:", Mood::Bad), ("warning:", Mood::Waiting)])
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
        Value::Object(map) => {
            let mut rows = Vec::new();
            for (key, value) in map {
                match serde_json::from_value::<Vec<Check>>(value.clone()) {
                    Ok(checks) if !checks.is_empty() => rows.push((key.clone(), tally(&checks))),
                    _ => flatten(key, value, &mut rows),
                }
            }
            let ascii = Screen { ascii: true, ..Screen::default() };
            let pair = |(name, value): &(String, String)| {
                let value = visible(value);
                let is_key = name.to_ascii_lowercase().ends_with("key");
                let value = if is_key { value } else { ascii.cut(&value, MEMBER).into_owned() };
                format!("{}={value}", visible(name))
            };
            let pairs: Vec<_> = rows.iter().map(pair).collect();
            ascii.cut(&pairs.join(" "), PIPE).into_owned()
        }
        other => other.to_string(),
    }
}

/// A checklist in a few words.
pub(super) fn tally(checks: &[Check]) -> String {
    let count = |wanted| checks.iter().filter(|check| check.result == wanted).count();
    let warnings = count(Verdict::Warn);
    let parts = [
        (count(Verdict::Pass), "pass"),
        (warnings, if warnings == 1 { "warning" } else { "warnings" }),
        (count(Verdict::Fail), "failed"),
        (count(Verdict::NotChecked), "not checked"),
    ];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    parts.map(|(count, word)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
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
    fn a_frame_is_only_for_terminals_and_the_next_output_replaces_it() {
        let frame = [Line::plain("x"), Line::plain("y")];
        let (mut plain, out, _) = printer(Format::Table, false);
        plain.frame(&frame).unwrap();
        assert_eq!(out.text(), "");
        let (mut live, out, _) = printer(Format::Table, true);
        live.frame(&frame).unwrap();
        live.frame(&frame[..1]).unwrap();
        live.line("z").unwrap();
        assert_eq!(out.text(), "x\ny\n\x1b[2A\r\x1b[Jx\n\x1b[1A\r\x1b[Jz\n");
        // A frame that is higher than the screen could not be replaced.
        let (mut live, out, _) = printer(Format::Table, true);
        live.frame(&vec![Line::plain("x"); 99]).unwrap();
        assert_eq!(out.text().lines().count(), 23);
    }

    #[test]
    fn prose_is_wrapped_and_a_field_goes_on_below_its_beginning() {
        let (mut printer, out, err) = printer(Format::Table, true);
        let key = "k".repeat(100);
        printer.line(&format!("  {}", "word ".repeat(30))).unwrap();
        printer.object(&json!({ "newKey": key, "reason": "word ".repeat(30) }), &["newKey"]).unwrap();
        printer.note(&"word ".repeat(30));
        let text = out.text() + &err.text();
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        let values: String = text.lines().skip(2).take(2).map(|line| &line[8..]).collect();
        assert_eq!(values, key);
        let (mut printer, out, _) = super::super::fake::printer(Format::Table, true);
        printer.object(&json!({ "newKey": &key[..78], "id": "i" }), &["id"]).unwrap();
        assert_eq!(out.text(), format!("id      i\nnewKey\n  {}\n", &key[..78]));
    }

    #[test]
    fn a_checklist_is_told_in_a_few_words() {
        let check = |result: &str| json!({ "name": "place", "result": result, "detail": "d" });
        let checks = json!({ "checks": [check("pass"), check("pass"), check("warn"), check("not_checked")] });
        assert_eq!(cell(&checks), "checks=2 pass, 1 warning, 1 not checked");
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
        let mut printer = Printer::new(
            Box::new(Closed),
            Box::new(Shared::default()),
            Format::Table,
            Box::new(Screen::default),
            Screen::default(),
            Box::new(SystemClock),
        );
        let failure = super::super::failure::Failure::from(printer.line("x").unwrap_err());
        assert!(matches!(failure, super::super::failure::Failure::Closed));
    }
}
