//! Settings in force, printed for people (TOML with comments) and for programs (JSON).
//!
//! Entries arrive masked; nothing here sees a secret. The text can be read back as TOML as far as
//! it holds no masked value.

use std::fmt::Write;

use serde_json::json;
use toml::Value;

use super::reader::Entry;

pub(super) fn text(entries: &[Entry]) -> String {
    let width = entries.iter().map(|entry| line(entry).chars().count()).filter(|width| *width < 60).max();
    let mut out = String::new();
    let mut section = "";
    for entry in entries {
        let own = entry.path.rsplit_once('.').map_or("", |(section, _)| section);
        if own != section {
            let _ = writeln!(out, "\n[{own}]");
            section = own;
        }
        let _ = writeln!(out, "{:width$}  # {}", line(entry), entry.origin, width = width.unwrap_or(0));
    }
    out
}

impl Entry {
    /// The value as a configuration file has it.
    #[must_use]
    pub fn text(&self) -> String {
        inline(&self.value)
    }
}

fn line(entry: &Entry) -> String {
    let name = entry.path.rsplit('.').next().unwrap_or(&entry.path);
    format!("{name} = {}", inline(&entry.value))
}

pub(super) fn inline(value: &Value) -> String {
    match value {
        // A JSON string is a TOML basic string.
        Value::String(text) => serde_json::Value::from(text.as_str()).to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Table(table) => {
            let pairs: Vec<String> =
                table.iter().map(|(name, value)| format!("{name} = {}", inline(value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(flag) => flag.to_string(),
        Value::Datetime(at) => at.to_string(),
    }
}

pub(super) fn json(entries: &[Entry]) -> serde_json::Value {
    let pairs = entries.iter().map(|entry| {
        let value = serde_json::to_value(&entry.value).unwrap_or_default();
        (entry.path.clone(), json!({ "value": value, "origin": entry.origin }))
    });
    serde_json::Value::Object(pairs.collect())
}
