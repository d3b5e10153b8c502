//! Reads typed values from the merged leaves and records the paths that were read.
//!
//! The paths that the program reads *are* the schema: at the end, every leaf that was not read is an
//! unknown setting. Faults are collected, never returned one at a time; a value that cannot be read is
//! replaced by its fallback so that the remaining checks still run. Error texts never contain the value
//! of a setting that may hold a secret.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use toml::Value;

use super::access::open_to_others;
use super::layer::{Leaf, Leaves, Origin, Raw};
use crate::domain::text::{decoded, distance, nearest, with_nearest};
use crate::secret::{Secret, SecretUrl};

/// One setting in force, as it may be shown to anyone.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The dotted path.
    pub path: String,
    /// The value; secrets are already masked.
    pub value: Value,
    /// Where it was written; for a secret in a file this also names the file.
    pub origin: String,
    /// A digest of a secret's value, to find out whether it changed; not for anybody to see.
    pub(crate) secret: Option<[u8; 32]>,
}

/// How much of a secret setting may be shown.
#[derive(Clone, Copy)]
enum Mask {
    Whole,
    Password,
}

/// A fault of one setting.
pub(super) struct Fault {
    /// The setting.
    path: String,
    /// The message: the path, the place it was written at, and the values that it takes.
    text: String,
}

/// Why a file that should hold a secret cannot be used. The caller names the file before the text.
#[derive(Debug, thiserror::Error)]
enum SecretFileError {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("is empty: a secret is needed")]
    Empty,
}

/// Settings that have another name now: the old one is still taken, with a warning.
const RENAMED: [(&str, &str); 5] = [
    ("pace.watch_every", "sweep.watch_every"),
    ("pace.watch_for", "sweep.watch_for"),
    ("sweep.discover_every", "sweep.poll_every"),
    ("retention.mails", "retention.messages"),
    ("retention.looks", "retention.observations"),
];

pub(super) struct Reader {
    leaves: Leaves,
    known: BTreeSet<String>,
    sections: BTreeSet<String>,
    pub(super) entries: Vec<Entry>,
    faults: Vec<Fault>,
    pub(super) warnings: Vec<String>,
    /// Settings that break a promise; the daemon starts all the same.
    pub(super) unkept: Vec<String>,
    inline: BTreeMap<PathBuf, String>,
    /// The variable of the environment that names a proxy.
    pub(super) proxy_variable: Option<String>,
    /// The files with secrets and certificates that are in force.
    pub(super) files: BTreeSet<PathBuf>,
}

impl Reader {
    pub(super) fn new(leaves: Leaves) -> Self {
        let mut reader = Self {
            leaves,
            known: BTreeSet::new(),
            sections: BTreeSet::new(),
            entries: Vec::new(),
            faults: Vec::new(),
            warnings: Vec::new(),
            unkept: Vec::new(),
            inline: BTreeMap::new(),
            proxy_variable: None,
            files: BTreeSet::new(),
        };
        reader.take_old_names();
        reader
    }

    /// Moves a value under an old name to the new one. A value under both is a fault: which of the two
    /// is meant is not known.
    fn take_old_names(&mut self) {
        for (old, new) in RENAMED {
            let Some(leaf) = self.leaves.remove(old) else { continue };
            if let Some(both) = self.leaves.get(new).filter(|leaf| !matches!(leaf.origin, Origin::Default)) {
                let text = format!(
                    "{old} ({}) is {new} now, which is set too ({}); remove {old}",
                    leaf.origin, both.origin
                );
                self.report(old, text);
            } else {
                self.warnings.push(format!("{old} ({}) is called {new} now; rename it", leaf.origin));
                self.leaves.insert(new.to_owned(), leaf);
            }
        }
    }

    /// Records a fault of a setting, with the place it was written at.
    pub(super) fn fault(&mut self, path: &str, why: &str) {
        let place = self.leaves.get(path).map(|leaf| format!(" ({})", leaf.origin)).unwrap_or_default();
        self.report(path, format!("{path}{place}: {why}"));
    }

    /// Records the fault of a word that is not one of `known`, which `takes` lists.
    pub(super) fn odd_word(&mut self, path: &str, given: &str, known: &[&str], takes: &str) {
        match nearest(given, known.iter().copied()) {
            Some(near) => self.fault(path, &format!("did you mean {near:?}? It {takes}")),
            None => self.fault(path, takes),
        }
    }

    fn report(&mut self, path: &str, text: String) {
        self.faults.push(Fault { path: path.to_owned(), text });
    }

    /// Whether no fault was reported so far.
    pub(super) fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// The number of faults reported so far.
    pub(super) fn fault_count(&self) -> usize {
        self.faults.len()
    }

    /// Whether a fault of the setting at `path`, or of the file that holds it, was reported. Such a
    /// setting is present and must not be reported as missing.
    pub(super) fn is_faulty(&self, path: &str) -> bool {
        self.faults
            .iter()
            .any(|fault| fault.path.strip_prefix(path).is_some_and(|rest| matches!(rest, "" | "_file")))
    }

    /// All faults, for people.
    pub(super) fn into_messages(self) -> Vec<String> {
        self.faults.into_iter().map(|fault| fault.text).collect()
    }

    /// The value at `path`, or `None` when no layer has it.
    pub(super) fn optional<T: DeserializeOwned>(&mut self, path: &str) -> Option<T> {
        self.known.insert(path.to_owned());
        let leaf = self.leaves.get(path)?;
        match parse(&leaf.raw) {
            Ok((value, shown)) => {
                let origin = leaf.origin.to_string();
                // The installation key is changed by a command of its own.
                if let Some(file) = shown.as_str().filter(|it| !it.is_empty())
                    && path.ends_with("_file")
                    && path != "server.key_file"
                {
                    self.files.insert(file.into());
                }
                self.entries.push(Entry { path: path.to_owned(), value: shown, origin, secret: None });
                Some(value)
            }
            Err(why) => {
                self.fault(path, &with_nearest(why.message()));
                None
            }
        }
    }

    /// The value at `path`; `fallback` stands in for one that cannot be read.
    pub(super) fn take<T: DeserializeOwned>(&mut self, path: &str, fallback: T) -> T {
        self.optional(path).unwrap_or(fallback)
    }

    /// The names directly below `prefix`, such as those of the credentials.
    pub(super) fn names_below(&mut self, prefix: &str) -> BTreeSet<String> {
        self.sections.insert(prefix.to_owned());
        let start = format!("{prefix}.");
        let names = self.leaves.keys().filter_map(|path| path.strip_prefix(&start));
        names.map(|rest| rest.split('.').next().unwrap_or(rest).to_owned()).collect()
    }

    /// The secret at `path` or in the file that `{path}_file` names.
    pub(super) fn secret(&mut self, path: &str) -> Option<Secret> {
        self.hidden(path, Mask::Whole)
    }

    /// A URL that may hold a password; an empty one means not set.
    pub(super) fn secret_url(&mut self, path: &str) -> Option<SecretUrl> {
        self.hidden(path, Mask::Password).map(|secret| SecretUrl::new(secret.expose()))
    }

    fn hidden(&mut self, path: &str, mask: Mask) -> Option<Secret> {
        let file_path = format!("{path}_file");
        self.known.extend([path.to_owned(), file_path.clone()]);
        let inline = self.leaves.get(path).cloned();
        let Some(named) = self.leaves.get(&file_path).cloned() else {
            return self.inline_secret(path, &inline?, mask);
        };
        if let Some(inline) = inline.filter(|leaf| leaf.origin != Origin::Default) {
            let text = format!(
                "{path} ({}) and {file_path} ({}) are both set: keep one, better the file",
                inline.origin, named.origin
            );
            self.report(path, text);
            return None;
        }
        let file: String = self.optional(&file_path)?;
        self.entries.pop();
        match read_secret(Path::new(&file)) {
            Ok(secret) => {
                if let Some(why) = open_to_others(Path::new(&file)) {
                    self.fault(&file_path, &why);
                    return None;
                }
                let origin = format!("file {file}, named by {}", named.origin);
                if let Some(doubt) = doubtful(secret.expose()) {
                    self.warnings.push(format!("{file_path}: in {file}, {doubt}"));
                }
                self.push_secret(path, mask.shown(&secret), origin, &secret);
                Some(secret)
            }
            Err(why) => {
                self.fault(&file_path, &format!("the file {file} {why}"));
                None
            }
        }
    }

    fn inline_secret(&mut self, path: &str, leaf: &Leaf, mask: Mask) -> Option<Secret> {
        let text = match &leaf.raw {
            Raw::Toml(Value::String(text)) | Raw::Text(text) => text,
            Raw::Toml(_) => {
                self.fault(path, "this takes a text in quotation marks");
                return None;
            }
        };
        let secret = Secret::new(text.clone());
        if text.is_empty() && matches!(mask, Mask::Whole) {
            self.fault(path, "the secret is empty; write it, or name a file in its _file setting");
            return None;
        }
        let shown = mask.shown(&secret);
        if let Origin::File { file, .. } = &leaf.origin
            && shown.as_str() != Some(text)
        {
            self.inline.entry(file.clone()).or_insert_with(|| path.to_owned());
        }
        let origin = leaf.origin.to_string();
        self.push_secret(path, shown, origin, &secret);
        if let Some(doubt) = doubtful(text) {
            self.warnings.push(format!("{path} ({}): {doubt}", leaf.origin));
        }
        Some(secret).filter(|_| !text.is_empty())
    }

    fn push_secret(&mut self, path: &str, value: Value, origin: String, secret: &Secret) {
        let digest = Sha256::digest(secret.expose()).into();
        self.entries.push(Entry { path: path.to_owned(), value, origin, secret: Some(digest) });
    }

    /// Marks everything below `path` as known, where another fault was reported already.
    pub(super) fn forgive(&mut self, path: &str) {
        let start = format!("{path}.");
        let below: Vec<String> = self.leaves.keys().filter(|it| it.starts_with(&start)).cloned().collect();
        self.known.extend(below);
    }

    /// Refuses a variable that is a setting with one underscore for its dot: it would be passed over without a word.
    pub(super) fn check_environment(&mut self, env: &[(String, String)]) {
        for (name, _) in env {
            let Some(rest) = name.strip_prefix("KEYWHEEL_").filter(|rest| !rest.contains("__")) else {
                continue;
            };
            let lower = rest.to_lowercase();
            let meant = |path: &&String| path.contains('.') && path.replace('.', "_") == lower;
            if let Some(path) = self.known.iter().find(meant).cloned() {
                let right = path.to_uppercase().replace('.', "__");
                let text = format!(
                    "{name}: the parts of a setting are separated by two underscores: KEYWHEEL_{right} sets {path}"
                );
                self.report(&path, text);
            }
        }
    }

    /// Ends the reading: reports leaves that were not read, and files that expose secrets.
    pub(super) fn finish(&mut self) {
        let unknown: BTreeSet<(String, String)> = self
            .leaves
            .iter()
            .filter(|(path, leaf)| !self.is_known(path, leaf))
            .map(|(path, leaf)| (self.first_unknown(path), leaf.origin.to_string()))
            .collect();
        let mut told = BTreeSet::new();
        for (path, origin) in unknown {
            if told.insert(path.clone()) {
                let hint = self.nearest(&path);
                self.report(&path, format!("{path} ({origin}): there is no such setting; {hint}"));
            }
        }
        for (file, path) in std::mem::take(&mut self.inline) {
            if let Some(why) = open_to_others(&file) {
                self.report(
                    &path,
                    format!(
                        "{path} is a secret, and {why}; or move it to a file of its own with {path}_file"
                    ),
                );
            }
        }
    }

    fn is_known(&self, path: &str, leaf: &Leaf) -> bool {
        let empty = matches!(&leaf.raw, Raw::Toml(Value::Table(table)) if table.is_empty());
        self.known.contains(path) || (empty && self.is_section(path))
    }

    fn is_section(&self, path: &str) -> bool {
        let start = format!("{path}.");
        self.sections.contains(path) || self.known.iter().any(|known| known.starts_with(&start))
    }

    /// The shortest prefix of `path` that no setting has: `vault` rather than `vault.prod.kind`.
    fn first_unknown(&self, path: &str) -> String {
        path.match_indices('.')
            .map(|(at, _)| &path[..at])
            .find(|start| !self.is_section(start) && !self.known.contains(*start))
            .unwrap_or(path)
            .to_owned()
    }

    fn nearest(&self, path: &str) -> String {
        if self.is_section(path) {
            return "it is a section and takes names below it, not a value".to_owned();
        }
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
        if self.known.contains(parent) {
            return format!("{parent} is a value and has nothing below it");
        }
        let last = |known: &str| known.rsplit('.').next().unwrap_or(known).to_owned();
        if let Some(elsewhere) = self.known.iter().find(|known| last(known) == name) {
            return format!("did you mean {elsewhere}?");
        }
        let siblings = self.siblings(parent);
        let close = siblings.iter().map(|sibling| (distance(name, sibling), sibling)).min();
        match close {
            Some((far, sibling)) if far <= name.chars().count().div_ceil(2).max(2) => {
                format!(
                    "did you mean {}{sibling}?",
                    if parent.is_empty() { String::new() } else { format!("{parent}.") }
                )
            }
            _ => format!("known here: {}", siblings.into_iter().collect::<Vec<_>>().join(", ")),
        }
    }

    fn siblings(&self, parent: &str) -> BTreeSet<String> {
        let start = if parent.is_empty() { String::new() } else { format!("{parent}.") };
        let below = self.known.iter().chain(&self.sections).filter_map(|known| known.strip_prefix(&start));
        below.map(|rest| rest.split('.').next().unwrap_or(rest).to_owned()).collect()
    }
}

impl Mask {
    fn shown(self, secret: &Secret) -> Value {
        Value::String(match self {
            Mask::Whole => "***".to_owned(),
            Mask::Password => SecretUrl::new(secret.expose()).to_string(),
        })
    }
}

/// Reads a value; text is tried as it is first, then as TOML, so that `3`, `true` and lists work.
fn parse<T: DeserializeOwned>(raw: &Raw) -> Result<(T, Value), toml::de::Error> {
    let read = |value: &Value| value.clone().try_into::<T>();
    match raw {
        Raw::Toml(value) => Ok((read(value)?, value.clone())),
        Raw::Text(text) => {
            let plain = Value::String(text.clone());
            let as_text = match read(&plain) {
                Ok(value) => return Ok((value, plain)),
                Err(why) => why,
            };
            let typed: Option<Value> = toml::from_str::<toml::Table>(&format!("value = {text}"))
                .ok()
                .and_then(|mut table| table.remove("value"));
            let Some(typed) = typed else { return Err(as_text) };
            Ok((read(&typed)?, typed))
        }
    }
}

/// What of a secret is hardly meant; it is taken as it stands.
fn doubtful(text: &str) -> Option<&'static str> {
    let quoted = |mark| text.len() > 1 && text.starts_with(mark) && text.ends_with(mark);
    if quoted('"') || quoted('\'') {
        return Some(
            "the secret is in quotation marks, which are taken as a part of it; remove them if they do not belong to it",
        );
    }
    (text.trim() != text).then_some(
        "the secret begins or ends with a blank, which is taken as a part of it; remove it if it does not belong there",
    )
}

/// The secret in a file.
fn read_secret(file: &Path) -> Result<Secret, SecretFileError> {
    let text = decoded(std::fs::read(file)?)?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err(SecretFileError::Empty);
    }
    Ok(Secret::new(text))
}
