//! The import for the fuzz targets: reads a file's bytes into rows.

use serde_json::{Map, Value};

use super::file::{Format, ImportRow, decoded, rows};

/// A row's number, its line, and the project; `None` for a refused row.
pub type Project = (usize, Option<u64>, Option<Map<String, Value>>);

/// The text of a file, and its rows in the `format`th of the formats.
#[must_use]
pub fn inventory(format: u8, bytes: Vec<u8>) -> Option<(String, Vec<Project>)> {
    let format = [Format::Csv, Format::Yaml, Format::Json][usize::from(format % 3)];
    let text = decoded(bytes).ok()?;
    let rows = rows(format, &text).ok()?;
    Some((text, rows.into_iter().map(|ImportRow { number, line, body }| (number, line, body.ok())).collect()))
}
