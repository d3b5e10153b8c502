//! Keys as the HTML of a mail shows them: the part that tells one key from another whole on one line, the place in words.
//!
//! The plain text has each key as Atlas names it, and so do webhooks.

use super::sentences::{name, when};
use crate::domain::key::KeyRef;
use crate::domain::notice::{CurrentKeyInvalid, KeyText, Notice};
use crate::domain::text::visible;

/// The longest text that stands on one line on a phone.
pub(super) const ONE_LINE: usize = 40;

/// One key of a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyLine {
    /// The label of the same key among the facts.
    pub(super) label: String,
    /// What is said beside the label: the place of the key, or what is so of its project.
    pub(super) note: String,
    /// The id or version.
    pub(super) id: String,
    /// Whether the mail is about this key more than about the others.
    pub(super) is_new: bool,
}

impl KeyLine {
    fn of(label: &str, key: Option<&KeyText>) -> Self {
        let (id, note) = key.map(split).unwrap_or_default();
        let is_new = matches!(label, "New key" | "Is now");
        Self { label: label.to_owned(), note, id, is_new }
    }

    pub(super) fn fits(&self) -> bool {
        self.id.chars().count() <= ONE_LINE
    }
}

/// What tells the key from others, and its place.
fn split(key: &KeyText) -> (String, String) {
    let text = key.to_string();
    let Ok(key) = text.parse::<KeyRef>() else { return (visible(&text), String::new()) };
    let parts = key.parts();
    let get = |label: &str| {
        parts.iter().find(|(it, _)| *it == label).map(|(_, it)| visible(it)).unwrap_or_default()
    };
    match &key {
        KeyRef::Aws(aws) if aws.account().is_some() => {
            (get("Key id"), format!("account {}, region {}", get("Account"), get("Region")))
        }
        KeyRef::Aws(_) => (get("Key id"), String::new()),
        KeyRef::Azure(azure) if azure.version().is_some() => {
            (get("Version"), format!("version of {} in the vault {}", get("Key"), get("Vault")))
        }
        KeyRef::Azure(_) => (get("Key"), format!("no version, in the vault {}", get("Vault"))),
        KeyRef::Gcp(_) => {
            let place = format!(
                "key ring {}, location {}, project {}",
                get("Key ring"),
                get("Location"),
                get("Project")
            );
            (format!("{} version {}", get("Key"), get("Version")), place)
        }
        KeyRef::Unrecognised { .. } => (visible(&text), String::new()),
    }
}

/// The keys of a notice. Those of one place state it once, after the last of them.
pub(super) fn keys(notice: &Notice) -> (Vec<KeyLine>, Option<String>) {
    let mut lines: Vec<_> = labelled(notice)
        .into_iter()
        .filter_map(|(label, key)| Some(KeyLine::of(label, Some(key?))))
        .collect();
    if let Notice::ReminderDigest(it) = notice {
        lines = it
            .items
            .iter()
            .map(|item| {
                let mut line =
                    KeyLine::of(&name(&item.project_name, &item.group_id), item.current_key.as_ref());
                let place = if line.note.is_empty() { String::new() } else { format!("; {}", line.note) };
                line.note = format!("{}, {}{place}", when(item.days_left), item.group_id);
                line
            })
            .collect();
    }
    let place = match &lines[..] {
        [one, two]
            if one.note == two.note
                && !one.note.is_empty()
                && !matches!(notice, Notice::ReminderDigest(_)) =>
        {
            Some(format!("Both: {}.", one.note))
        }
        _ => None,
    };
    if place.is_some() {
        for line in &mut lines {
            line.note.clear();
        }
    }
    (lines, place)
}

fn labelled(notice: &Notice) -> Vec<(&'static str, Option<&KeyText>)> {
    if let Some(it) = notice.rotation() {
        return vec![("Old key", Some(&it.old_key)), ("New key", Some(&it.new_key))];
    }
    match notice {
        Notice::CurrentKeyInvalid(CurrentKeyInvalid::Project(it)) => {
            vec![("Key in force", it.current_key.as_ref())]
        }
        Notice::Drifted(it) => vec![("Was", it.from.as_ref()), ("Is now", it.to.as_ref())],
        Notice::KeyAlarm(it) => vec![("Key in force", it.current_key.as_ref())],
        Notice::Overwrote(it) => vec![("Old key", Some(&it.old_key)), ("New key", Some(&it.new_key))],
        Notice::Reminder(it) => vec![("Key in force", it.current_key.as_ref())],
        Notice::Condition(it) => vec![("Key", it.current_key.as_ref())],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stands_on_one_line_of_a_phone_and_its_place_in_words() {
        for (key, id, place) in [
            ("8f1c2b7e-4d90-4a3b-9c55-0e7ad1f2b6c4", "8f1c2b7e-4d90-4a3b-9c55-0e7ad1f2b6c4", ""),
            (
                "arn:aws:kms:eu-central-1:418273905561:key/b27e9d04-c1f8-4e6a-8d23-5f90ab7c31de",
                "b27e9d04-c1f8-4e6a-8d23-5f90ab7c31de",
                "account 418273905561, region eu-central-1",
            ),
            (
                "https://kv-pay.vault.azure.net/keys/atlas-cmk/a8d25c90b14e47f3902f6c5e71c0e3b8",
                "a8d25c90b14e47f3902f6c5e71c0e3b8",
                "version of atlas-cmk in the vault kv-pay",
            ),
            ("https://kv-pay.vault.azure.net/keys/atlas-cmk", "atlas-cmk", "no version, in the vault kv-pay"),
            (
                "projects/p/locations/europe-west3/keyRings/atlas/cryptoKeys/ledger-cmk/cryptoKeyVersions/9",
                "ledger-cmk version 9",
                "key ring atlas, location europe-west3, project p",
            ),
            ("no key\u{202e}", "no key\\u{202e}", ""),
        ] {
            let line = KeyLine::of("New key", Some(&key.to_owned().into()));
            assert_eq!((line.id.as_str(), line.note.as_str(), line.fits()), (id, place, true), "{key}");
        }
    }
}
