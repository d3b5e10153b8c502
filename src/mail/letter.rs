//! The text of a message for people: plain text and simple HTML with the same facts.
//!
//! A [`Letter`] is rendered from the content of a message; `sentences.rs` and `facts.rs` hold the texts.
//! Keys are whole in both parts and never broken over lines; names that come from outside show their
//! control characters instead of acting on them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use askama::Template;
use sha2::{Digest, Sha256};

use super::ID_DOMAIN;
use super::age::Age;
use super::calendar::Calendar;
use super::facts::{commands, facts};
use super::keys::{KeyLine, ONE_LINE, keys};
use super::reason::reason;
use super::sentences::{sentences, to_come};
use crate::domain::notice::{Content, Notice, RotationFacts, Urgency};
use crate::domain::text::{visible, visible_lines};
use crate::domain::time::Timestamp;

/// A mail without its addresses.
#[derive(Clone, Debug, Default, Template)]
#[template(path = "mail.html")]
pub struct Letter {
    /// One line.
    pub subject: String,
    /// Whether it is urgent.
    pub urgent: bool,
    /// The Message-ID that all mails about one rotation refer to.
    pub thread: Option<String>,
    /// Sentences.
    pub paragraphs: Vec<String>,
    /// Names and values.
    pub facts: Vec<(String, String)>,
    /// The dates of reminders, for calendars.
    pub calendar: Option<Calendar>,
    /// The kind of notice, in words.
    kind: String,
    /// The name that a first sentence is about, as the subject begins with it.
    project: String,
    keys: Vec<KeyLine>,
    /// The place of both keys, where it is one.
    place: Option<String>,
    age: Option<Age>,
    since: String,
    commands: Vec<(String, String)>,
    page: Option<Page>,
    to_come: Option<String>,
    reason: String,
    server: String,
}

/// The page that a mail opens.
#[derive(Clone, Debug)]
struct Page {
    title: &'static str,
    address: String,
    note: String,
}

/// The page about what a notice tells; opening it changes nothing.
fn page(notice: &Notice, server: &str) -> Option<Page> {
    let about = notice.about();
    let server = server.trim_end_matches('/');
    let (title, path) = match (notice, about.rotation, about.project) {
        (Notice::ReminderDigest(_), ..) => ("See what is due", "/due".to_owned()),
        (Notice::Reminder(it), ..) if it.open_note.is_none() => {
            ("Propose a new key", format!("/projects/{}/propose", it.group_id))
        }
        (Notice::ApprovalRequested(_), Some(id), _) => ("Look at it and decide", format!("/rotations/{id}")),
        (Notice::NeedsOperator(_), Some(id), _) => ("See what to do", format!("/rotations/{id}")),
        (_, Some(id), _) => ("Look at the rotation", format!("/rotations/{id}")),
        (_, None, Some(group)) => ("Look at the project", format!("/projects/{group}")),
        _ => return None,
    };
    let note = match notice {
        Notice::Reminder(it) if it.open_note.is_none() => {
            "The page asks you to sign in, and shows every check before you propose. Another person then approves."
        }
        _ => "The page asks you to sign in. To open it changes nothing.",
    };
    let note = note.to_owned();
    Some(Page { title, address: format!("{server}{path}"), note })
}

/// A command in words, each with the space after it.
fn words(command: &str) -> impl Iterator<Item = (&str, &str)> {
    command.split_inclusive([' ', '\n']).map(|word| word.split_at(word.trim_end().len()))
}

/// Whether a word of a command is an id or an option, which does not break at its hyphens.
fn stays_whole(word: &str) -> bool {
    word.len() <= ONE_LINE && word.contains('-')
}

impl Letter {
    /// The mail with this content.
    #[must_use]
    pub fn new(content: &Content) -> Self {
        let Content { server, notice } = content;
        let server = visible(server);
        let (subject, paragraphs) = sentences(notice);
        let urgent = notice.urgency() == Urgency::Urgent;
        let thread =
            |id| format!("<{}@{ID_DOMAIN}>", hex::encode(&Sha256::digest(format!("{id}/thread"))[..16]));
        // Each text showed its names already; here none can be forgotten.
        let shown = |pairs: Vec<(String, String)>| {
            pairs.into_iter().map(|(one, two)| (visible(&one), visible_lines(&two))).collect()
        };
        let subject = visible(&subject);
        let (keys, place) = keys(notice);
        let calendar = match notice {
            Notice::Reminder(it) => Calendar::of_reminders(std::slice::from_ref(it), &server),
            Notice::ReminderDigest(it) => Calendar::of_reminders(&it.items, &server),
            _ => None,
        };
        let reminder = if let Notice::Reminder(it) = notice { Some(it) } else { None };
        Self {
            calendar,
            kind: notice.kind().as_str().replace('_', " "),
            project: subject.split_once(": ").map_or_else(String::new, |(name, _)| name.to_owned()),
            subject: if urgent { format!("ACTION NEEDED: {subject}") } else { subject },
            urgent,
            thread: notice.about().rotation.map(thread),
            paragraphs: paragraphs.iter().map(|text| visible_lines(text)).collect(),
            facts: shown(facts(notice)),
            keys,
            place,
            age: reminder.and_then(Age::of),
            since: reminder
                .and_then(|it| it.key_since)
                .map(|at| at.as_chrono().format("%-d %b %Y").to_string())
                .unwrap_or_default(),
            commands: shown(commands(notice, &server)),
            page: page(notice, &server),
            to_come: reminder.and_then(to_come),
            reason: reason(notice),
            server,
        }
    }

    /// The mail by which an operator tries the mail server at `server`'s settings.
    #[must_use]
    pub fn test(server: &str) -> Self {
        Self {
            subject: "Keywheel: test of the mail server".to_owned(),
            paragraphs: vec![
                "Mails of Keywheel reach this address. `keywheel mail test` has sent this one; nothing follows from it.".to_owned(),
            ],
            kind: "test".to_owned(),
            reason: "You get this because an operator of Keywheel has named your address for a test.".to_owned(),
            server: visible(server),
            ..Self::default()
        }
    }

    /// The same mail for a mailbox in which nobody may take it for news.
    #[must_use]
    pub fn as_sample(mut self) -> Self {
        self.subject = format!("Sample: {}", self.subject);
        self.paragraphs.insert(0, "This is a sample with invented facts; there is nothing to do.".to_owned());
        self
    }

    /// The same mail with a link, the path `link` on this server, by which its recipient can decide.
    #[must_use]
    pub fn answered_by(mut self, link: &str) -> Self {
        if let Some(page) = &mut self.page {
            page.address = format!("{}{link}", self.server.trim_end_matches('/'));
            "The link is for you alone and approves nothing by itself: do not hand it on. The page asks for the end of the new key, and decides once."
                .clone_into(&mut page.note);
        }
        self
    }

    /// The List-Id of the installation, by which people sort its mails; another for each address of a server.
    #[must_use]
    pub fn list_id(&self) -> String {
        let address = self.server.split_once("://").map_or(self.server.as_str(), |(_, rest)| rest);
        let (host, rest) = address.find([':', '/']).map_or((address, ""), |at| address.split_at(at));
        let plain = |text: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
            text.chars().map(|c| if is_plain(c) { c.to_ascii_lowercase() } else { '-' }).collect::<String>()
        };
        format!("Keywheel <keywheel{}.{}>", plain(rest.trim_end_matches('/')), plain(host))
    }

    /// The same mail with the end of the calendar entry about the old key of its rotation.
    #[must_use]
    pub fn ending_entry(mut self, it: &RotationFacts, written_at: Timestamp) -> Self {
        let address = format!("{}/projects/{}", self.server.trim_end_matches('/'), it.group_id);
        self.calendar =
            Some(Calendar::cancelled(&it.group_id, &it.project_name, &it.old_key, address, written_at));
        self
    }

    /// One mail for several notices of one kind, the oldest first; `None` without any.
    #[must_use]
    pub fn list(contents: &[Content]) -> Option<Self> {
        let first = contents.first()?;
        let letters: Vec<_> = contents.iter().map(Self::new).collect();
        // A subject is the project's name and what is said of it.
        let said =
            |subject: &str| subject.split_once(": ").map_or(subject.to_owned(), |(_, said)| said.to_owned());
        let urgent = letters.iter().any(|letter| letter.urgent);
        let plain = |letter: &Self| {
            letter.subject.strip_prefix("ACTION NEEDED: ").unwrap_or(&letter.subject).to_owned()
        };
        let subject = format!("{} projects: {}", letters.len(), said(&plain(&letters[0])));
        let mut paragraphs =
            vec![format!("{} Atlas projects, the one that was found first at the top.", letters.len())];
        paragraphs.extend(letters[0].paragraphs.iter().skip(1).cloned());
        let facts = contents.iter().zip(&letters).map(|(content, letter)| {
            let name = plain(letter).split(": ").next().unwrap_or_default().to_owned();
            let group = content.notice.about().project.map(ToString::to_string).unwrap_or_default();
            (name, format!("{group}  {}", said(&plain(letter))))
        });
        let server = visible(&first.server);
        let why = format!("keywheel --server {server} --token-file TOKEN_FILE why PROJECT");
        Some(Self {
            subject: if urgent { format!("ACTION NEEDED: {subject}") } else { subject },
            urgent,
            paragraphs,
            facts: facts.collect(),
            kind: letters[0].kind.clone(),
            commands: vec![("What is known of each:".to_owned(), why)],
            reason: "You get this because you own these projects in Keywheel, or because mail.operators names you.".to_owned(),
            server,
            ..Self::default()
        })
    }

    /// One mail for all that was found after an upgrade, the oldest first; `None` without anything.
    #[must_use]
    pub fn found_at_upgrade(contents: &[Content]) -> Option<Self> {
        let found = "Found at the upgrade: from this version on Keywheel watches every key and tells what holds until it is over. \
                     It has read all keys since it was started, and this held already.";
        if let [only] = contents {
            let mut letter = Self::new(only);
            letter.paragraphs.insert(0, found.to_owned());
            return Some(letter);
        }
        let letter = Self::list(contents)?;
        let groups: BTreeSet<_> = contents.iter().filter_map(|it| it.notice.about().project).collect();
        let projects =
            if groups.len() == 1 { "1 project".to_owned() } else { format!("{} projects", groups.len()) };
        Some(Self {
            subject: format!("ACTION NEEDED: {projects}: found at the upgrade"),
            paragraphs: vec![
                found.to_owned(),
                "The one that was found first is at the top. What still holds is told again within minutes and then hourly, \
                 and the end of each is told, too."
                    .to_owned(),
            ],
            kind: "found at the upgrade".to_owned(),
            ..letter
        })
    }

    /// The plain text, complete in itself.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for paragraph in &self.paragraphs {
            let _ = writeln!(text, "{paragraph}\n");
        }
        if let Some(page) = &self.page {
            let _ = writeln!(text, "{}:\n\n    {}\n\n{}\n", page.title, page.address, page.note);
        }
        let width = self.facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        for (name, value) in &self.facts {
            let _ = writeln!(text, "{name:<width$}  {value}");
        }
        for (what, command) in &self.commands {
            let _ = writeln!(text, "\n{what}\n\n    {}", command.replace('\n', "\n    "));
        }
        if let Some(to_come) = &self.to_come {
            let _ = writeln!(text, "\n{to_come}");
        }
        let _ = writeln!(
            text,
            "\n-- \n{}\nSent by Keywheel at {}. This mail asks for no reply.",
            self.reason, self.server
        );
        text
    }

    /// The facts that the HTML does not show as keys.
    fn other_facts(&self) -> impl Iterator<Item = &(String, String)> {
        let is_key = |label: &str| self.keys.iter().any(|key| key.label == label);
        self.facts.iter().filter(move |(label, _)| !(is_key(label) || self.age.is_some() && label == "Age"))
    }

    /// A text around the first name of the project in it.
    fn parted<'a>(&self, text: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
        let at = text.find(&self.project).filter(|_| !self.project.is_empty())?;
        let (before, rest) = text.split_at(at);
        let (project, after) = rest.split_at(self.project.len());
        Some((before, project, after))
    }

    /// The same as HTML, with everything from outside escaped.
    ///
    /// # Errors
    /// Fails when the template cannot be rendered.
    pub fn html(&self) -> Result<String, askama::Error> {
        self.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const KEY: &str = "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/2";

    fn model() -> Value {
        json!({
            "groupId": "32b6e34b3d91647abb20e7b8", "projectName": "pay\r\nBcc: eve@example.com <b>\u{202e}x",
            "rotationId": "0198c5a0-0000-7000-8000-000000000001", "provider": "GCP", "oldKey": "o",
            "newKey": KEY.repeat(3), "requestedBy": "ada", "server": "https://kw.example",
            "state": "awaiting_approval", "cause": null, "checks": [],
        })
    }

    fn letter(kind: &str, model: &Value) -> Letter {
        Letter::new(&Content::read(kind, model).unwrap())
    }

    #[test]
    fn both_parts_hold_whole_keys_and_the_command() {
        let letter = letter("approval_requested", &model());
        let html = letter.html().unwrap();
        for part in [letter.text(), html.replace("<span style=\"white-space:nowrap\">", "")] {
            assert!(part.contains(&KEY.repeat(3)), "{part}");
            assert!(part.contains("approve 0198c5a0-0000-7000-8000-000000000001"), "{part}");
        }
    }

    #[test]
    fn what_comes_from_outside_acts_nowhere() {
        let letter = letter("completed", &model());
        assert!(!letter.subject.contains(['\r', '\n', '\u{202e}']), "{:?}", letter.subject);
        assert!(letter.subject.contains("\\u{202e}"), "{:?}", letter.subject);
        let html = letter.html().unwrap();
        assert!(!html.contains("<b>") && html.contains("&#60;b&#62;"), "{html}");
        assert!(!letter.text().contains("\nBcc:"));
    }

    #[test]
    fn a_project_without_a_name_is_called_by_its_id() {
        let mut model = model();
        model["projectName"] = json!("");
        assert_eq!(letter("failed", &model).subject.split_once(':').unwrap().0, "32b6e34b3d91647abb20e7b8");
    }

    #[test]
    fn all_mails_of_a_rotation_are_one_thread() {
        let threads: std::collections::BTreeSet<_> = ["approval_requested", "needs_operator", "completed"]
            .map(|kind| letter(kind, &model()).thread)
            .into();
        assert_eq!(threads.len(), 1);
        assert!(letter("drifted", &drift()).thread.is_none());
    }

    #[test]
    fn each_installation_has_a_list_of_its_own() {
        for (server, id) in [
            ("https://kw.example", "keywheel.kw.example"),
            ("https://kw.example/", "keywheel.kw.example"),
            ("https://Ops.example:8443/keywheel/a", "keywheel-8443-keywheel-a.ops.example"),
            ("http://127.0.0.1:8440", "keywheel-8440.127.0.0.1"),
        ] {
            let mut model = model();
            model["server"] = json!(server);
            assert_eq!(letter("completed", &model).list_id(), format!("Keywheel <{id}>"), "{server}");
        }
    }

    fn drift() -> Value {
        json!({
            "groupId": "32b6e34b3d91647abb20e7b8", "projectName": "p", "server": "https://kw.example",
            "kind": "reverted", "undoneKey": "k", "sentences": ["It is a revert.", "a\nb"],
            "terraform": ["resource \"x\" \"…\" {", "  aws_kms_config {", "    customer_master_key_id = \"k\""],
        })
    }

    #[test]
    fn the_lines_of_a_terraform_file_stay_lines() {
        let mut model = drift();
        let reverted = letter("drifted", &model);
        let block =
            "    resource \"x\" \"…\" {\n      aws_kms_config {\n        customer_master_key_id = \"k\"\n";
        assert!(reverted.text().contains(block), "{}", reverted.text());
        assert!(reverted.text().contains("rotate 32b6e34b3d91647abb20e7b8 --to k"));
        assert!(!reverted.text().contains("a\nb"));
        assert!(reverted.html().unwrap().contains("\n  aws_kms_config {\n"));
        (model["undoneKey"], model["terraform"]) = (Value::Null, Value::Null);
        assert!(!letter("drifted", &model).text().contains("Terraform agree"));
    }
}
