//! What a mail says: the same facts as plain text and as simple HTML.
//!
//! A letter is put together from an outbox row's kind and model. Models are read leniently: an old
//! row without a member must still become a mail. Keys are whole in both parts and never broken
//! over lines; names that come from outside show their control characters instead of acting on them.

use std::fmt::Write as _;

use askama::Template;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::domain::text::visible;
use crate::domain::time::Timestamp;

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
    /// Whether it should be read at once.
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

/// The parts of a model, read as what they should be.
struct Model<'a>(&'a Value);

impl Model<'_> {
    fn get(&self, name: &str) -> Option<String> {
        match &self.0[name] {
            Value::String(text) if !text.is_empty() => Some(visible(&day(text))),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_else(|| "unknown".to_owned())
    }

    /// The lines of a list.
    fn lines(&self, name: &str) -> Vec<String> {
        self.0[name].as_array().into_iter().flatten().filter_map(Value::as_str).map(visible).collect()
    }

    fn project(&self) -> String {
        self.get("projectName").unwrap_or_else(|| self.text("groupId"))
    }
}

/// Instants lose their microseconds.
fn day(text: &str) -> String {
    match text.split_once('.') {
        Some((head, rest)) if rest.ends_with('Z') && text.parse::<Timestamp>().is_ok() => {
            format!("{} UTC", head.replace('T', " "))
        }
        _ => text.to_owned(),
    }
}

impl Letter {
    /// The mail of this kind about this model.
    #[must_use]
    pub fn new(kind: &str, model: &Value) -> Self {
        let it = Model(model);
        let thread = model["rotationId"]
            .as_str()
            .map(|id| format!("<{}@keywheel>", hex::encode(&Sha256::digest(format!("{id}/thread"))[..16])));
        let (subject, paragraphs) = said(kind, &it);
        let urgent = matches!(kind, "needs_operator" | "late_apply" | "current_key_invalid" | "key_alarm");
        let mut letter = Self {
            subject: if urgent { format!("ACTION NEEDED: {subject}") } else { subject },
            urgent,
            thread,
            paragraphs,
            facts: facts(&it),
            commands: commands(kind, &it),
            server: it.get("server").unwrap_or_else(|| "your Keywheel server".to_owned()),
        };
        letter.facts.extend(model["checks"].as_array().into_iter().flatten().map(check));
        if kind == "reminder_digest" {
            letter.facts = model["items"].as_array().into_iter().flatten().map(line).collect();
        }
        letter
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
    /// When the template cannot be filled.
    pub fn html(&self) -> Result<String, String> {
        self.render().map_err(|why| why.to_string())
    }
}

/// Subject and paragraphs.
#[expect(clippy::too_many_lines, reason = "a paragraph for each kind, read as one list")]
fn said(kind: &str, it: &Model<'_>) -> (String, Vec<String>) {
    let project = it.project();
    let remedy = it.get("remedy");
    let (subject, first) = match kind {
        "approval_requested" => (
            format!("{project}: a key rotation waits for your approval"),
            format!(
                "{} proposes to move the encryption key of the Atlas project {project} to a new one. Nothing happens \
                 before somebody else has approved.",
                it.text("requestedBy")
            ),
        ),
        "auto_approved" => (
            format!("{project}: a key rotation was approved by the policy"),
            format!(
                "{} found a newer key for the Atlas project {project}, every check passed, and the policy agrees to that by \
                 itself. The rotation begins as soon as a window is open; an approver can stop it before.",
                it.text("requestedBy")
            ),
        ),
        "completed" => (
            format!("{project}: key rotated"),
            format!(
                "The Atlas project {project} is encrypted with its new key, and Atlas was seen to call it valid. The old key \
                 still protects older backup snapshots: do not delete it."
            ),
        ),
        "rolled_back" => (
            format!("{project}: rotation rolled back"),
            format!("Atlas could not use the new key of {project}. The old one is back in force, and Atlas calls it valid."),
        ),
        "failed" => (
            format!("{project}: rotation failed, the old key stays"),
            format!("The key of {project} was not changed."),
        ),
        "rejected" => (format!("{project}: rotation rejected"), "An approver said no. Nothing was changed.".to_owned()),
        "cancelled" => (format!("{project}: rotation cancelled"), "It was called off. Nothing was changed.".to_owned()),
        "expired" => (
            format!("{project}: rotation expired"),
            "Its time ran out before it could run. Nothing was changed; propose it again.".to_owned(),
        ),
        "superseded" => (
            format!("{project}: rotation overtaken"),
            format!("Somebody else changed the key of {project}, so Keywheel left it as it is."),
        ),
        "accepted" => (
            format!("{project}: new key accepted by an operator"),
            "An operator took the new key as it is, without Keywheel's proof.".to_owned(),
        ),
        "closed" => (
            format!("{project}: rotation closed by an operator"),
            "An operator ended it and left the key as it is.".to_owned(),
        ),
        "needs_operator" => (
            format!("{project}: rotation stopped ({})", it.text("cause")),
            format!(
                "Keywheel cannot prove that the key of {project} works, and will not guess. If the key in force is bad, \
                 Atlas shuts the clusters down within 15 minutes of finding out."
            ),
        ),
        "current_key_invalid" => (
            format!("{project}: Atlas cannot use the current key"),
            format!(
                "Atlas calls the key in force for {project} invalid and refuses any change until it works again. Re-enable it \
                 in its key service at once."
            ),
        ),
        "preflight_failed" => (
            format!("{project}: an approved rotation waits, a check fails"),
            "People agreed, but what was looked at before the change is not as it must be. Nothing was changed. The rotation \
             goes on by itself once the check passes, until its approval runs out."
                .to_owned(),
        ),
        "late_apply" => (
            format!("{project}: a change took effect after its rotation had ended"),
            format!("Atlas carried out a request of ours late. Compare the key it holds for {project} with the ones below."),
        ),
        "not_deployed" => (
            format!("{project}: clusters have not taken up the new key yet"),
            "The key is valid, but a cluster did not come back from its update in time.".to_owned(),
        ),
        "key_alarm" => key_alarm(it, &project),
        "drifted" => (
            format!("{project}: the key was changed outside of Keywheel"),
            "Atlas holds a key that Keywheel did not put there. If that was you, say since when it serves; if a Terraform file \
             still names the old one, change it there."
                .to_owned(),
        ),
        "overwrote" => (
            format!("{project}: a rotation replaced a change by {}", it.text("by")),
            format!("The rotation of {project} is done and its new key is proven, but somebody else had changed the key just before."),
        ),
        "reminder" => reminder(it, &project),
        "reminder_digest" => {
            let count = it.0["items"].as_array().map_or(0, Vec::len);
            (
                format!("{count} projects need a new encryption key"),
                format!("{count} Atlas projects that you own reached a reminder, the most urgent first."),
            )
        }
        other => (format!("{project}: {}", visible(other)), String::new()),
    };
    let paragraphs = [Some(first), it.get("openNote"), remedy].into_iter().flatten();
    (subject, paragraphs.chain(it.lines("sentences")).filter(|text| !text.is_empty()).collect())
}

fn days(count: i64) -> String {
    if count.abs() == 1 { "1 day".to_owned() } else { format!("{} days", count.abs()) }
}

/// `due in 3 days`, `due today`, `8 days overdue`.
fn when(left: i64) -> String {
    match left {
        0 => "due today".to_owned(),
        1.. => format!("due in {}", days(left)),
        _ => format!("{} overdue", days(left)),
    }
}

fn reminder(it: &Model<'_>, project: &str) -> (String, String) {
    let when = when(it.0["daysLeft"].as_i64().unwrap_or_default());
    (
        format!("{project}: encryption key {when}"),
        format!(
            "The encryption key of the Atlas project {project} is to be replaced every {}: it is {when}.",
            it.text("interval")
        ),
    )
}

/// What was reported is not proven: the mail says who reported it.
fn key_alarm(it: &Model<'_>, project: &str) -> (String, String) {
    let event = it.text("event");
    let after = if it.0["earlier"] == true {
        "That key served this project before, and older backup snapshots still need it. Undo it in the key service before \
         the key is gone for good."
    } else {
        "Atlas shuts the clusters down within 15 minutes of finding a key that it cannot use. Undo it in the key service at \
         once, or rotate to another key."
    };
    (
        format!("{project}: {event} is reported for a key it depends on"),
        format!("The hook {} received {event} about {}. {after}", it.text("hook"), it.text("subject")),
    )
}

/// One line of the pre-flight checklist.
fn check(item: &Value) -> (String, String) {
    let it = Model(item);
    let result = it.text("result").replace('_', " ");
    (format!("Check {}", it.text("name")), format!("{result}: {}", it.text("detail")))
}

/// One project of a digest.
fn line(item: &Value) -> (String, String) {
    let it = Model(item);
    let when = when(item["daysLeft"].as_i64().unwrap_or_default());
    (it.project(), format!("{when}  {}  {}", it.text("groupId"), it.text("currentKey")))
}

fn facts(it: &Model<'_>) -> Vec<(String, String)> {
    let names = [
        ("Project", "projectName"),
        ("Atlas project id", "groupId"),
        ("Rotation", "rotationId"),
        ("State", "state"),
        ("Cause", "cause"),
        ("Old key", "oldKey"),
        ("New key", "newKey"),
        ("Key in force", "currentKey"),
        ("Reported about", "subject"),
        ("In the sender's words", "words"),
        ("Was", "from"),
        ("Is now", "to"),
        ("By", "by"),
        ("Atlas' event", "atlasEventId"),
        ("Served until", "servedUntil"),
        ("Undoes rotation", "undoneRotation"),
        ("Serves since", "keySince"),
        ("Due", "due"),
        ("Reason", "reason"),
        ("Proposed by", "requestedBy"),
        ("Atlas said", "atlasErrorCode"),
        ("In its words", "atlasDetail"),
    ];
    names.iter().filter_map(|(label, name)| Some(((*label).to_owned(), it.get(name)?))).collect()
}

fn commands(kind: &str, it: &Model<'_>) -> Vec<(String, String)> {
    let server = it.get("server").unwrap_or_else(|| "URL".to_owned());
    let on_server = |rest: String| format!("keywheel --server {server} --token-file TOKEN_FILE {rest}");
    let rotation = it.get("rotationId").unwrap_or_else(|| "ID".to_owned());
    let group = it.text("groupId");
    match kind {
        "approval_requested" => vec![
            ("To approve exactly this change:".to_owned(), on_server(format!("approve {rotation}"))),
            ("Or to say no:".to_owned(), on_server(format!("reject {rotation} --comment \"...\""))),
        ],
        "auto_approved" => vec![
            ("To stop it:".to_owned(), on_server(format!("reject {rotation} --comment \"...\""))),
            ("Everything that happened:".to_owned(), on_server(format!("rotation show {rotation}"))),
        ],
        "needs_operator" | "late_apply" | "not_deployed" | "failed" | "rolled_back" | "preflight_failed" => {
            let mut commands = vec![(
                "Everything that happened:".to_owned(),
                on_server(format!("rotation show {rotation}")),
            )];
            if kind == "needs_operator" {
                commands.push((
                    "When it is mended (or: rollback, accept, close):".to_owned(),
                    on_server(format!("resume {rotation}")),
                ));
            }
            commands
        }
        "reminder" => vec![(
            "Make a new key or key version, then propose it:".to_owned(),
            on_server(format!("rotate {group} --to NEW_KEY")),
        )],
        "reminder_digest" => vec![("All that is due:".to_owned(), on_server("due".to_owned()))],
        "drifted" => {
            let mut commands = Vec::new();
            if let Some(key) = it.get("undoneKey") {
                let lines = it.lines("terraform").join("\n");
                commands
                    .push(("To make Terraform agree with the rotation, the file says:".to_owned(), lines));
                commands.push((
                    "Then, to rotate again:".to_owned(),
                    on_server(format!("rotate {group} --to {key}")),
                ));
            }
            let take = on_server(format!("project edit {group} --since DATE"));
            commands.push(("To take it over as it is:".to_owned(), take));
            commands
        }
        "overwrote" => {
            vec![("Everything that happened:".to_owned(), on_server(format!("rotation show {rotation}")))]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const KEY: &str = "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/2";

    fn model() -> Value {
        json!({
            "groupId": "32b6e34b3d91647abb20e7b8", "projectName": "pay\r\nBcc: eve@example.com <b>\u{202e}x",
            "rotationId": "0198c5a0-0000-7000-8000-000000000001", "oldKey": "o", "newKey": KEY.repeat(3),
            "requestedBy": "ada", "server": "https://kw.example", "state": "awaiting_approval", "cause": null,
        })
    }

    #[test]
    fn both_parts_hold_whole_keys_and_the_command() {
        let letter = Letter::new("approval_requested", &model());
        for part in [letter.text(), letter.html().unwrap()] {
            assert!(part.contains(&KEY.repeat(3)), "{part}");
            assert!(part.contains("approve 0198c5a0-0000-7000-8000-000000000001"), "{part}");
        }
    }

    #[test]
    fn what_comes_from_outside_acts_nowhere() {
        let letter = Letter::new("completed", &model());
        assert!(!letter.subject.contains(['\r', '\n', '\u{202e}']), "{:?}", letter.subject);
        assert!(letter.subject.contains("\\u{202e}"), "{:?}", letter.subject);
        let html = letter.html().unwrap();
        assert!(!html.contains("<b>") && html.contains("&#60;b&#62;"), "{html}");
        assert!(!letter.text().contains("\nBcc:"));
    }

    #[test]
    fn all_mails_of_a_rotation_are_one_thread() {
        let threads: std::collections::BTreeSet<_> = ["approval_requested", "needs_operator", "completed"]
            .map(|kind| Letter::new(kind, &model()).thread)
            .into();
        assert_eq!(threads.len(), 1);
        assert!(Letter::new("reminder", &json!({})).thread.is_none());
    }

    #[test]
    fn every_kind_can_be_said_even_of_an_empty_model() {
        for kind in [
            "approval_requested",
            "auto_approved",
            "preflight_failed",
            "completed",
            "needs_operator",
            "drifted",
            "key_alarm",
            "overwrote",
            "reminder",
            "reminder_digest",
            "new",
        ] {
            let letter = Letter::new(kind, &json!({}));
            assert!(
                !letter.subject.is_empty() && !letter.text().is_empty() && letter.html().is_ok(),
                "{kind}"
            );
        }
        assert!(Letter::new("needs_operator", &json!({})).subject.starts_with("ACTION NEEDED"));
    }

    #[test]
    fn the_lines_of_a_terraform_file_stay_lines() {
        let model = json!({
            "groupId": "g", "undoneKey": "k", "sentences": ["It is a revert.", "a\nb"],
            "terraform": ["resource \"x\" \"…\" {", "  aws_kms_config {", "    customer_master_key_id = \"k\""],
        });
        let letter = Letter::new("drifted", &model);
        let block =
            "    resource \"x\" \"…\" {\n      aws_kms_config {\n        customer_master_key_id = \"k\"\n";
        assert!(letter.text().contains(block), "{}", letter.text());
        assert!(letter.text().contains("rotate g --to k") && !letter.text().contains("a\nb"));
        assert!(letter.html().unwrap().contains("\n  aws_kms_config {\n"));
        assert!(!Letter::new("drifted", &json!({})).text().contains("Terraform agree"));
    }

    #[test]
    fn days_are_said_as_people_say_them() {
        assert_eq!(
            [when(0), when(1), when(30), when(-1), when(-8)],
            ["due today", "due in 1 day", "due in 30 days", "1 day overdue", "8 days overdue"]
        );
    }
}
