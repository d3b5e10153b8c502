//! The text of a message for people: plain text and simple HTML with the same facts.
//!
//! A [`Letter`] is rendered from the content of a message; `sentences.rs` and `facts.rs` hold the texts.
//! Keys are whole in both parts and never broken over lines; names that come from outside show their
//! control characters instead of acting on them.

use std::fmt::Write as _;

use askama::Template;
use sha2::{Digest, Sha256};

use super::ID_DOMAIN;
use super::facts::{commands, facts};
use super::sentences::sentences;
use crate::domain::notice::{Content, Urgency};
use crate::domain::text::{visible, visible_lines};

/// A mail without its addresses.
#[derive(Clone, Debug, Template)]
#[template(
    ext = "html",
    source = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ subject }}</title></head>
<body style="font:16px/1.5 system-ui,sans-serif;color:#1a1a1a;max-width:44rem;margin:1rem auto;padding:0 1rem">
<h1 style="font-size:1.2rem">{{ subject }}</h1>
{% for text in paragraphs %}<p>{{ text }}</p>
{% endfor %}{% if !facts.is_empty() %}<table style="border-collapse:collapse">
{% for (name, value) in facts %}<tr><th style="text-align:left;vertical-align:top;padding:.2rem 1rem .2rem 0;font-weight:600">{{ name }}</th><td style="padding:.2rem 0;font-family:monospace;white-space:nowrap">{{ value }}</td></tr>
{% endfor %}</table>
{% endif %}{% for (what, command) in commands %}<p>{{ what }}</p>
<pre style="background:#f2f2f2;padding:.6rem;overflow-x:auto">{{ command }}</pre>
{% endfor %}<p style="color:#555;font-size:.85rem">Sent by Keywheel at {{ server }}. This mail asks for no reply.</p>
</body></html>
"#
)]
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
    commands: Vec<(String, String)>,
    server: String,
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
        Self {
            subject: if urgent { format!("ACTION NEEDED: {subject}") } else { subject },
            urgent,
            thread: notice.about().rotation.map(thread),
            paragraphs: paragraphs.iter().map(|text| visible_lines(text)).collect(),
            facts: shown(facts(notice)),
            commands: shown(commands(notice, &server)),
            server,
        }
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
            thread: None,
            paragraphs,
            facts: facts.collect(),
            commands: vec![("What is known of each:".to_owned(), why)],
            server,
        })
    }

    /// The plain text, complete in itself.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for paragraph in &self.paragraphs {
            let _ = writeln!(text, "{paragraph}\n");
        }
        let width = self.facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        for (name, value) in &self.facts {
            let _ = writeln!(text, "{name:<width$}  {value}");
        }
        for (what, command) in &self.commands {
            let _ = writeln!(text, "\n{what}\n\n    {}", command.replace('\n', "\n    "));
        }
        let _ = writeln!(text, "\n-- \nSent by Keywheel at {}. This mail asks for no reply.", self.server);
        text
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
        for part in [letter.text(), letter.html().unwrap()] {
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
