//! The layers a setting can come from, flattened to one map of dotted paths.
//!
//! Each layer (the built-in defaults, one file, the environment, flags) becomes leaves: a path, a value,
//! and the origin, so that every later message can say where a value was written. A higher layer
//! replaces a leaf whole; lists are never merged. Which paths exist, and their meaning, is the reader's
//! part.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Value;
use toml::de::{DeTable, DeValue};

/// Where a value in force was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The defaults built into the program.
    Default,
    /// A configuration file.
    File {
        /// Its path as it was named.
        file: PathBuf,
        /// The line of the setting, counted from 1.
        line: usize,
    },
    /// An environment variable.
    Env(String),
    /// A flag or the program itself.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { file, line } => write!(f, "{}:{line}", file.display()),
            Origin::Env(name) => write!(f, "environment {name}"),
            Origin::Flag(path) => write!(f, "flag {path}"),
        }
    }
}

/// A value as its layer wrote it: TOML has types, the environment and flags have only text.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    Toml(Value),
    Text(String),
}

#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) raw: Raw,
    pub(super) origin: Origin,
}

pub(super) type Leaves = BTreeMap<String, Leaf>;

/// Joins a path and one more name; a name with unusual characters is quoted, as TOML would.
pub(super) fn join(prefix: &str, name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let name = if bare { name.to_owned() } else { format!("{name:?}") };
    if prefix.is_empty() { name } else { format!("{prefix}.{name}") }
}

/// Why a layer cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub(super) enum LayerError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The text is not TOML. The parser's own error is left out: it quotes the text, which may be a secret
    /// with a missing quotation mark.
    #[error("{place}: this is not TOML: {message}")]
    NotToml {
        /// The file and the line.
        place: String,
        /// The parser's message.
        message: String,
    },
}

/// Flattens TOML text; `file` is `None` for the built-in defaults.
pub(super) fn from_toml(text: &str, file: Option<&Path>) -> Result<Leaves, LayerError> {
    let refuse = |error: &toml::de::Error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        let place = file.map_or("the defaults".to_owned(), |file| format!("{}:{line}", file.display()));
        LayerError::NotToml { place, message: error.message().to_owned() }
    };
    let spans = DeTable::parse(text).map_err(|error| refuse(&error))?;
    let table: toml::Table = toml::from_str(text).map_err(|error| refuse(&error))?;
    let mut leaves = Leaves::new();
    flatten(&table, spans.get_ref(), "", &mut |path, value, at| {
        let origin = file
            .map_or(Origin::Default, |file| Origin::File { file: file.to_owned(), line: line_of(text, at) });
        leaves.insert(path, Leaf { raw: Raw::Toml(value), origin });
    });
    Ok(leaves)
}

fn flatten(
    table: &toml::Table,
    spans: &DeTable<'_>,
    prefix: &str,
    visit: &mut impl FnMut(String, Value, usize),
) {
    for (key, spanned) in spans {
        let name = key.get_ref().as_ref();
        let path = join(prefix, name);
        match (table.get(name), spanned.get_ref()) {
            // An empty table stays a leaf: an unknown section must not vanish for being empty.
            (Some(Value::Table(inner)), DeValue::Table(spans)) if !inner.is_empty() => {
                flatten(inner, spans, &path, visit);
            }
            // `[[hooks]]`: each element goes by its name, so that the environment can reach its secret.
            (Some(Value::Array(inner)), DeValue::Array(spans)) if prefix.is_empty() && are_tables(inner) => {
                let mut names = BTreeSet::new();
                for (at, (value, spanned)) in inner.iter().zip(spans.iter()).enumerate() {
                    let (Value::Table(inner), DeValue::Table(spans)) = (value, spanned.get_ref()) else {
                        continue;
                    };
                    let own = inner.get("name").and_then(Value::as_str).filter(|own| names.insert(*own));
                    let element = own.map_or_else(|| at.to_string(), ToOwned::to_owned);
                    flatten(inner, spans, &join(&path, &element), visit);
                }
            }
            (Some(value), _) => visit(path, value.clone(), key.span().start),
            (None, _) => {}
        }
    }
}

fn are_tables(items: &[Value]) -> bool {
    !items.is_empty() && items.iter().all(|item| item.as_table().is_some_and(|table| !table.is_empty()))
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// Takes `KEYWHEEL_A__B` as `a.b`. Names without a double underscore count only when they are the
/// one setting on the top level: a cluster scheduler sets `KEYWHEEL_PORT` and the like by itself.
pub(super) fn from_env(env: &[(String, String)]) -> Leaves {
    env.iter()
        .filter_map(|(name, value)| {
            let rest = name.strip_prefix("KEYWHEEL_")?;
            if !rest.contains("__") && rest != "DATA_DIR" {
                return None;
            }
            let path = rest.split("__").fold(String::new(), |path, part| join(&path, &part.to_lowercase()));
            let leaf = Leaf { raw: Raw::Text(value.clone()), origin: Origin::Env(name.clone()) };
            Some((path, leaf))
        })
        .collect()
}

pub(super) fn from_flags(overrides: &[(String, String)]) -> Leaves {
    overrides
        .iter()
        .map(|(path, value)| {
            let leaf = Leaf { raw: Raw::Text(value.clone()), origin: Origin::Flag(path.clone()) };
            (path.clone(), leaf)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_knows_its_file_and_line() {
        let leaves =
            from_toml("a = 1\n\n[b]\nc = [1,\n 2]\n[b.\"x.y\"]\nd = 2\n[empty]\n", Some(Path::new("k.toml")))
                .unwrap();
        let shown: Vec<String> =
            leaves.iter().map(|(path, leaf)| format!("{path} {}", leaf.origin)).collect();
        assert_eq!(shown, ["a k.toml:1", "b.\"x.y\".d k.toml:7", "b.c k.toml:4", "empty k.toml:8"]);
    }

    #[test]
    fn a_syntax_error_names_the_line_and_never_quotes_it() {
        let message = from_toml("ok = 1\nclient_secret = \"canary\n", Some(Path::new("k.toml")))
            .unwrap_err()
            .to_string();
        assert!(message.starts_with("k.toml:2: this is not TOML"), "{message}");
        assert!(!message.contains("canary"), "{message}");
    }

    #[test]
    fn the_environment_speaks_in_double_underscores() {
        let pairs = [("KEYWHEEL_DATABASE__URL", "x"), ("KEYWHEEL_PORT", "tcp://1.2.3.4"), ("PATH", "y")];
        let env: Vec<(String, String)> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(from_env(&env).into_keys().collect::<Vec<_>>(), ["database.url"]);
    }
}
