//! Completion of command lines by shells: verbs, options, and the names that the server knows.
//!
//! A shell runs the program with [`VAR`] set and the words so far; clap's engine finds the argument, and the functions here
//! its values. Names are read from the server that the words, the environment or the configuration name. A server that
//! cannot be reached within [`DEADLINE`] gives no names and no message: there is no place for one beside a prompt.
//!
//! Bash inserts a candidate as it is, so one that a shell would split or expand is never offered: names come from Atlas
//! unchecked. Such a project is offered by its id.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::time::Duration;

use clap::CommandFactory;
use clap_complete::env::{Bash, Elvish, EnvCompleter, Fish, Powershell, Shells, Zsh};
use clap_complete::{CompleteEnv, CompletionCandidate as Candidate, Shell};
use serde::de::DeserializeOwned;

use super::client::Client;
use super::failure::Failure;
use super::printer::{Format, Printer};
use super::screen::Color;
use super::{Cli, Global, LATEST};
use crate::api::loosening::Loosening;
use crate::api::passkey::Passkey;
use crate::api::person::Person;
use crate::api::project::Project;
use crate::api::record::{Mail, WebhookTarget};
use crate::api::rotation::Rotation;
use crate::domain::condition::ConditionKind;
use crate::domain::key::Provider;
use crate::domain::project::Status;
use crate::domain::rotation::state::State;
use crate::domain::text::visible;

/// The variable by which a shell asks. It begins with an underscore because `KEYWHEEL_` begins settings.
const VAR: &str = "_KEYWHEEL_COMPLETE";
/// How long a person waits at most for the names of a server.
const DEADLINE: Duration = Duration::from_millis(800);
/// The most items of a list that are read.
const MOST_PROJECTS: usize = 2000;
const MOST_OTHERS: usize = 50;

/// Answers a shell, where one asks. Returns whether it did.
pub(super) fn answer() -> bool {
    let words = std::env::args_os();
    let folder = std::env::current_dir().ok();
    // The shell sees a failure as no candidates.
    let asked = CompleteEnv::with_factory(Cli::command).var(VAR).shells(SHELLS);
    asked.try_complete(words, folder.as_deref()).unwrap_or(true)
}

const SHELLS: Shells<'_> =
    Shells(&[&NamesFirst(Bash), &Elvish, &NamesFirst(Fish), &Powershell, &NamesFirst(Zsh)]);

/// A shell that is given no options where no word is begun and there are names: a person looks for those.
struct NamesFirst<T>(T);

impl<T: EnvCompleter> EnvCompleter for NamesFirst<T> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn is(&self, name: &str) -> bool {
        self.0.is(name)
    }

    fn write_registration(
        &self,
        var: &str,
        name: &str,
        bin: &str,
        completer: &str,
        buf: &mut dyn io::Write,
    ) -> Result<(), io::Error> {
        self.0.write_registration(var, name, bin, completer, buf)
    }

    fn write_complete(
        &self,
        cmd: &mut clap::Command,
        args: Vec<OsString>,
        current_dir: Option<&Path>,
        buf: &mut dyn io::Write,
    ) -> Result<(), io::Error> {
        let index = std::env::var("_CLAP_COMPLETE_INDEX").ok().and_then(|it| it.parse().ok());
        let is_begun =
            args.get(index.unwrap_or(args.len().saturating_sub(1))).is_some_and(|it| !it.is_empty());
        let mut all = Vec::new();
        self.0.write_complete(cmd, args, current_dir, &mut all)?;
        let all = String::from_utf8_lossy(&all);
        let between = std::env::var("_CLAP_IFS").unwrap_or_else(|_| "\n".to_owned());
        let names: Vec<&str> = all.split(&between).filter(|it| !it.starts_with('-')).collect();
        let only_names = !is_begun && names.iter().any(|it| !it.is_empty());
        buf.write_all(if only_names { names.join(&between) } else { all.into_owned() }.as_bytes())
    }
}

/// The script that makes `shell` ask.
pub(super) fn script(shell: Shell) -> Result<String, Failure> {
    let shells = Shells::builtins();
    let name = shell.to_string();
    let completer = shells.completer(&name).ok_or_else(|| {
        Failure::Usage(format!("there are no completions for {name}; known are {}", names()))
    })?;
    let mut script = Vec::new();
    completer.write_registration(VAR, "keywheel", "keywheel", "keywheel", &mut script)?;
    if shell == Shell::Zsh {
        // As a file among zsh's functions it is run by the first completion, which it must answer too.
        script.extend_from_slice(
            b"[ \"$funcstack[1]\" != _keywheel ] || _clap_dynamic_completer_keywheel \"$@\"\n",
        );
    }
    Ok(String::from_utf8_lossy(&script).into_owned())
}

fn names() -> String {
    SHELLS.names().collect::<Vec<_>>().join(", ")
}

/// The server as the words name it, as far as they do.
fn named(words: &[String]) -> Global {
    let value = |name: &str| {
        let mut words = words.iter();
        let mut last = None;
        while let Some(word) = words.next() {
            match word.strip_prefix(name) {
                Some("") => last = words.next().cloned(),
                Some(rest) => last = rest.strip_prefix('=').map(str::to_owned).or(last),
                None => {}
            }
        }
        last
    };
    let or_set =
        |name, variable| value(name).or_else(|| std::env::var(variable).ok()).filter(|it| !it.is_empty());
    Global {
        config: or_set("--config", "KEYWHEEL_CONFIG").map(Into::into),
        output: Format::Json,
        color: Color::Never,
        server: or_set("--server", "KEYWHEEL_SERVER"),
        token_file: or_set("--token-file", "KEYWHEEL_TOKEN_FILE").map(Into::into),
    }
}

/// Up to `most` items of a list of the server; none where it cannot be reached in time.
fn items<T: DeserializeOwned>(path: &str, query: &[(&str, &str)], most: usize) -> Vec<T> {
    let words: Vec<String> = std::env::args_os().map(|it| it.to_string_lossy().into_owned()).collect();
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let asked = async {
        // A saved command that prints the token may take as long as it likes.
        let made = move || Client::new(&named(&words), &mut Printer::silent()).ok();
        let client = tokio::task::spawn_blocking(made).await.ok()??;
        client.items(path, query, Some(most)).await.ok()?.read().ok()
    };
    let read = runtime.block_on(async { tokio::time::timeout(DEADLINE, asked).await });
    // A name that is looked up in a thread of its own must not hold back the prompt.
    runtime.shutdown_background();
    read.ok().flatten().unwrap_or_default()
}

/// Whether every shell takes the text as one word that stands for itself.
fn is_plain(text: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "-_.@+/%,".contains(c);
    !text.is_empty() && !text.starts_with('-') && text.chars().all(plain)
}

fn candidate(value: &str, help: &str) -> Candidate {
    Candidate::new(value).help(Some(visible(help).into())).id(Some(value.to_owned()))
}

fn fixed<'a>(all: impl IntoIterator<Item = &'a str>) -> Vec<Candidate> {
    all.into_iter().map(Candidate::new).collect()
}

fn tracked() -> Vec<Project> {
    items("/projects", &[("limit", "500")], MOST_PROJECTS)
}

/// Projects that begin with `current`: by name, and by id where the name is not unique or not plain, or an id was begun.
pub(super) fn projects(current: &OsStr) -> Vec<Candidate> {
    let begin = current.to_string_lossy();
    let all = tracked();
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for it in &all {
        *count.entry(&it.name).or_default() += 1;
    }
    let mut found = Vec::new();
    for it in &all {
        let by_name = is_plain(&it.name) && count.get(it.name.as_str()) == Some(&1);
        if by_name && it.name.starts_with(&*begin) {
            found.push(candidate(&it.name, &format!("{} {}", it.group_id, it.status)));
        }
        let by_id = !begin.is_empty() && it.group_id.as_str().starts_with(&*begin);
        if by_id || (!by_name && begin.is_empty()) {
            found.push(candidate(it.group_id.as_str(), &format!("{} {}", it.name, it.status)));
        }
    }
    found
}

/// The newest rotations: `@latest`, their projects, and their ids.
pub(super) fn rotations() -> Vec<Candidate> {
    let all: Vec<Rotation> = items("/rotations", &[], MOST_OTHERS);
    let mut found = Vec::new();
    if !all.is_empty() {
        found.push(candidate("@latest", "the newest rotation"));
    }
    let mut named = BTreeSet::new();
    for it in all.iter().filter(|it| is_plain(&it.project_name)) {
        if named.insert(&it.project_name) {
            found.push(candidate(&it.project_name, &format!("its newest rotation, {}", it.state)));
        }
    }
    found.extend(
        all.iter().map(|it| candidate(&it.id.to_string(), &format!("{} {}", it.project_name, it.state))),
    );
    found
}

/// What projects have in one of their fields.
fn in_use(of: impl Fn(Project) -> Vec<String>) -> Vec<Candidate> {
    let all: BTreeSet<String> = tracked().into_iter().flat_map(of).collect();
    fixed(all.iter().map(String::as_str).filter(|it| is_plain(it)))
}

pub(super) fn environments() -> Vec<Candidate> {
    in_use(|it| it.environment.into_iter().collect())
}

pub(super) fn owners() -> Vec<Candidate> {
    in_use(|it| it.owners)
}

pub(super) fn credentials() -> Vec<Candidate> {
    in_use(|it| vec![it.credential])
}

pub(super) fn lookups() -> Vec<Candidate> {
    in_use(|it| it.kms.into_iter().collect())
}

pub(super) fn webhooks() -> Vec<Candidate> {
    let all: Vec<WebhookTarget> = items("/webhooks", &[], MOST_OTHERS);
    fixed(all.iter().map(|it| it.name.as_str()).filter(|it| is_plain(it)))
}

pub(super) fn messages() -> Vec<Candidate> {
    let all: Vec<Mail> = items("/outbox", &[], MOST_OTHERS);
    let help = |it: &Mail| format!("{} to {}, {}", it.kind, it.recipient, it.state);
    all.iter().map(|it| candidate(&it.id.to_string(), &help(it))).collect()
}

pub(super) fn loosenings() -> Vec<Candidate> {
    let all: Vec<Loosening> = items("/loosenings", &[], MOST_OTHERS);
    all.iter()
        .map(|it| candidate(&it.id.to_string(), &format!("{} by {}", it.subject, it.requested_by)))
        .collect()
}

pub(super) fn passkeys() -> Vec<Candidate> {
    let all: Vec<Passkey> = items("/passkeys", &[], MOST_OTHERS);
    all.iter().map(|it| candidate(&it.id, &format!("{} of {}", it.name, it.holder))).collect()
}

pub(super) fn people() -> Vec<Candidate> {
    let all: Vec<Person> = items("/people", &[], MOST_OTHERS);
    all.iter().map(|it| candidate(&it.address, "")).collect()
}

pub(super) fn keys() -> Vec<Candidate> {
    vec![candidate(LATEST, "the newest key that the project's lookup names")]
}

pub(super) fn states() -> Vec<Candidate> {
    fixed(State::ALL.iter().map(|it| it.as_str()))
}

pub(super) fn statuses() -> Vec<Candidate> {
    fixed(Status::ALL.iter().map(|it| it.as_str()))
}

pub(super) fn conditions() -> Vec<Candidate> {
    fixed(ConditionKind::ALL.iter().map(|it| it.as_str()))
}

pub(super) fn providers() -> Vec<Candidate> {
    fixed(Provider::ALL.iter().map(|it| it.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_shell_would_act_on_is_not_offered() {
        for name in ["payments-prod", "Zahlungen", "a.b_c", "team@example.com"] {
            assert!(is_plain(name), "{name}");
        }
        for name in [
            "",
            "a b",
            "$(reboot)",
            "`id`",
            "a;b",
            "a&b",
            "*",
            "~",
            "-x",
            "a\nb",
            "a'b",
            "a\u{202e}b",
            "{a,b}",
            "!x",
        ] {
            assert!(!is_plain(name), "{name}");
        }
    }

    #[test]
    fn the_server_is_found_among_the_words() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let it = named(&words(
            "keywheel --server https://a.example rotate --server=https://b.example --token-file t --config=c x",
        ));
        assert_eq!(it.server.as_deref(), Some("https://b.example"));
        assert_eq!(it.token_file.as_deref(), Some(std::path::Path::new("t")));
        assert_eq!(it.config.as_deref(), Some(std::path::Path::new("c")));
        let set = std::env::var("KEYWHEEL_SERVER").ok().filter(|it| !it.is_empty());
        assert_eq!(named(&words("keywheel --serverless x")).server, set);
    }
}
