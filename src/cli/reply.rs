//! A response of the server, as received and as parsed.
//!
//! With -o json it is printed as received, whatever the server's version. To parse, it must have the
//! members that this version needs; an error names a missing one.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::failure::Failure;
use super::printer::Printer;
use crate::api::Page;

/// A successful response.
#[derive(Clone, Debug)]
pub(super) struct ApiResponse {
    /// The body as received.
    pub(super) text: String,
    /// Whether the server created something (201).
    pub(super) created: bool,
    /// The request, for messages.
    pub(super) asked: String,
}

impl ApiResponse {
    /// Parses the response. Members that this version does not have are ignored.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        read(&self.asked, &self.text)
    }

    /// Prints the response: its JSON as received, or the output of `table`.
    pub(super) fn print<T: DeserializeOwned>(
        &self,
        printer: &mut Printer,
        table: impl FnOnce(&mut Printer, T) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        if printer.is_json() {
            return Ok(printer.line(self.text.trim_end())?);
        }
        Ok(table(printer, self.read()?)?)
    }
}

/// Parses JSON of the server; the error names a member that is missing or has an unknown value.
pub(super) fn read<T: DeserializeOwned>(asked: &str, text: &str) -> Result<T, Failure> {
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(text))
        .map_err(|error| unread(asked, "", &error))
}

/// Whether an item is the place of a row that the server cannot read.
pub(super) fn is_corrupt(item: &Value) -> bool {
    item["corrupt"] == true
}

/// A line for each item that cannot be read.
pub(super) fn corrupt_lines(items: &[Value]) -> Vec<String> {
    let ids = items.iter().filter(|item| is_corrupt(item)).map(|item| item["id"].as_str().unwrap_or("?"));
    ids.map(|id| format!("{id}  cannot be read; `keywheel doctor` on the server says more")).collect()
}

/// The items of a list, from as many pages as needed.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) items: Vec<Value>,
    /// Whether there are more than were requested.
    pub(super) more: bool,
    /// The request, for messages.
    pub(super) asked: String,
}

impl List {
    /// Reads the items, without those that the server cannot read; [`Self::tell_corrupt`] names them.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<Vec<T>, Failure> {
        let read = |(index, item)| {
            let place = format!("items[{index}].");
            serde_path_to_error::deserialize(item).map_err(|error| unread(&self.asked, &place, &error))
        };
        self.items.iter().enumerate().filter(|(_, item)| !is_corrupt(item)).map(read).collect()
    }

    /// A line for each row that the server cannot read.
    pub(super) fn tell_corrupt(&self, printer: &mut Printer) -> Result<(), Failure> {
        corrupt_lines(&self.items).iter().try_for_each(|line| Ok(printer.line(line)?))
    }

    /// The items that the server can read, and the others.
    pub(super) fn split(self) -> (Self, Vec<Value>) {
        let (corrupt, items) = self.items.into_iter().partition(is_corrupt);
        (Self { items, ..self }, corrupt)
    }

    /// The items as the server wrote them, in one page.
    pub(super) fn raw(self) -> Page<Value> {
        Page { items: self.items, next: None }
    }

    /// Only the items at these places, in this order.
    pub(super) fn pick(self, places: impl Iterator<Item = usize>) -> Self {
        let items = places.filter_map(|place| self.items.get(place).cloned()).collect();
        Self { items, ..self }
    }
}

/// A response that this version cannot parse.
fn unread<E: std::fmt::Display>(asked: &str, place: &str, error: &serde_path_to_error::Error<E>) -> Failure {
    let path = error.path().to_string();
    let path = format!("{place}{path}");
    let path = path.trim_end_matches('.');
    let path = if path.is_empty() { "the answer" } else { path };
    Failure::Failed(anyhow::anyhow!(
        "{asked}: {path}: {}. The server is of another version than this command; -o json prints its answer as it is",
        error.inner()
    ))
}
