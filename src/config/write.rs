//! The configuration that `keywheel init` writes: what was chosen, and what people change first as comments.
//!
//! Words and values of the comments are those of `config/default.toml`, so the two cannot disagree. A setting that is
//! commented out has no blank after its `#`. Nothing here writes a file, and no secret passes through: the text names
//! the files that hold them.

use std::fmt::Write;

use toml::{Table, Value};

use super::{DEFAULTS, show};

/// Settings that a new configuration shows, in its order.
const SHOWN: [&str; 18] = [
    "data_dir",
    "server.listen",
    "server.public_url",
    "database.url",
    "atlas.base_url",
    "policy.interval",
    "policy.remind_before",
    "policy.approvals",
    "policy.self_approval",
    "policy.approval_ttl",
    "policy.windows",
    "mail.smtp_url",
    "mail.from",
    "mail.operators",
    "mail.security",
    "log.format",
    "log.level",
    "log.otlp_endpoint",
];

const HEAD: &str = "\
# Keywheel's configuration. A line that begins with # and a name is a default; remove the # to change it.
# All settings: config/default.toml, on Debian /usr/share/doc/keywheel/keywheel.toml.example.
# After a change: `keywheel config check`, then `systemctl reload keywheel` or SIGHUP.
";

/// The text of a configuration. `chosen` are dotted paths and values; a path with `_file` stands in for its secret.
#[must_use]
pub fn written(chosen: &[(String, Value)]) -> String {
    let mut out = HEAD.to_owned();
    let mut section = String::new();
    let below_atlas = |path: &str| path.starts_with("atlas.credentials.");
    for path in SHOWN {
        let (own, name) = path.rsplit_once('.').unwrap_or(("", path));
        if own != section {
            if section == "atlas" {
                credential(&mut out, chosen.iter().filter(|(path, _)| below_atlas(path)));
            }
            own.clone_into(&mut section);
            let _ = write!(out, "\n\n[{section}]");
        }
        let file = format!("{path}_file");
        let _ = writeln!(out, "\n{}", about(path));
        match chosen.iter().find(|(it, _)| it == path || *it == file) {
            Some((it, value)) => {
                let name = it.rsplit('.').next().unwrap_or(it);
                let _ = write!(out, "{name} = {}", show::inline(value));
            }
            None => {
                let _ = write!(out, "#{name} = {}", show::inline(&default_of(path)));
            }
        }
    }
    out.push('\n');
    out
}

fn credential<'a>(out: &mut String, parts: impl Iterator<Item = &'a (String, Value)>) {
    let mut section = "";
    for (path, value) in parts {
        let (own, name) = path.rsplit_once('.').unwrap_or(("", path));
        if own != section {
            let _ = write!(out, "\n\n# A project uses this one unless it names another.\n[{own}]");
            section = own;
        }
        let _ = write!(out, "\n{name} = {}", show::inline(value));
    }
}

fn default_of(path: &str) -> Value {
    let all: Table = toml::from_str(DEFAULTS).unwrap_or_default();
    let found = path.split('.').try_fold(Value::Table(all), |at, name| at.get(name).cloned());
    found.unwrap_or_else(|| Value::String(String::new()))
}

/// The comment above a setting in the built-in defaults.
fn about(path: &str) -> String {
    let (own, name) = path.rsplit_once('.').unwrap_or(("", path));
    let (mut section, mut comment) = ("", Vec::new());
    for line in DEFAULTS.lines() {
        if let Some(named) = line.strip_prefix('[') {
            section = named.split(']').next().unwrap_or_default();
        } else if line.starts_with('#') {
            comment.push(line);
            continue;
        } else if section == own && line.split(" =").next() == Some(name) {
            return comment.join("\n");
        }
        comment.clear();
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Sources};
    use super::*;

    fn loaded(text: &str) -> super::super::Loaded {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keywheel.toml");
        std::fs::write(&file, text).unwrap();
        let sources = Sources { file: Some(file), ..Sources::default() };
        Config::load(&sources).unwrap_or_else(|why| panic!("{why}\n{text}"))
    }

    #[test]
    fn each_commented_setting_is_taken_and_is_the_default() {
        let defaults = loaded("").entries;
        let text = written(&[]);
        let (mut section, mut read) = (String::new(), 0);
        for (at, line) in text.lines().enumerate() {
            if let Some(named) = line.strip_prefix('[') {
                section = format!("{}.", named.trim_end_matches(']'));
            }
            let Some(setting) = line.strip_prefix('#').filter(|it| it.starts_with(char::is_alphabetic))
            else {
                continue;
            };
            let path = format!("{section}{}", setting.split(" =").next().unwrap());
            let changed: Vec<&str> =
                text.lines().enumerate().map(|(it, line)| if it == at { setting } else { line }).collect();
            let all = loaded(&changed.join("\n")).entries;
            let value =
                |all: &[super::super::Entry]| all.iter().find(|it| it.path == path).unwrap().value.clone();
            if path == "data_dir" {
                assert!(value(&all).as_str().unwrap().ends_with("/keywheel-data"), "relative to the file");
            } else {
                assert_eq!(value(&all), value(&defaults), "{path}");
            }
            assert!(!all.iter().find(|it| it.path == path).unwrap().origin.contains("default"), "{path}");
            assert!(about(&path).starts_with("# "), "{path} has no comment");
            read += 1;
        }
        assert_eq!(read, SHOWN.len());
        assert_eq!(loaded(&text).config.atlas.credentials.len(), 0);
    }

    #[test]
    fn what_was_chosen_is_set() {
        let text = |it: &str| Value::String(it.to_owned());
        let chosen = [
            ("data_dir".to_owned(), text("/var/lib/keywheel")),
            ("atlas.credentials.default.kind".to_owned(), text("api-key")),
            ("atlas.credentials.default.public_key".to_owned(), text("abcdefgh")),
            ("atlas.credentials.default.private_key".to_owned(), text("x")),
            ("mail.from".to_owned(), text("\"K\" <k@example.com>")),
            ("mail.operators".to_owned(), Value::Array(vec![text("ada@example.com")])),
        ];
        let all = written(&chosen);
        assert!(
            all.contains("\nfrom = \"\\\"K\\\" <k@example.com>\"\n") && !all.contains("#data_dir"),
            "{all}"
        );
        let parsed: Table = toml::from_str(&all).unwrap();
        for (path, value) in chosen {
            let found =
                path.split('.').try_fold(Value::Table(parsed.clone()), |at, name| at.get(name).cloned());
            assert_eq!(found, Some(value), "{path}");
        }
    }
}
