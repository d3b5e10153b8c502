//! The date of a key as a calendar entry (RFC 5545), beside the text of a reminder.
//!
//! A later mail about the same key of the same project replaces the entry, and one about its rotation cancels it. It
//! invites nobody, so there is nothing to answer.

use sha2::{Digest, Sha256};

use super::sentences::name;
use crate::domain::ics::{escaped, fold};
use crate::domain::ids::GroupId;
use crate::domain::notice::{KeyText, Reminder};
use crate::domain::text::visible;
use crate::domain::time::Timestamp;

/// The first second of 2020, from which sequences count.
const BEGIN: i64 = 1_577_836_800;

/// A calendar with the entries of one mail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    entries: Vec<Entry>,
    cancels: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    uid: String,
    written_at: Timestamp,
    /// `None` for a cancelled one, whose date does not count.
    day: Option<Timestamp>,
    summary: String,
    address: String,
}

/// The same for all mails about one key of one project.
fn uid(group: &GroupId, key: &str) -> String {
    format!("{}@keywheel", hex::encode(&Sha256::digest(format!("{group}/{key}/due"))[..16]))
}

impl Calendar {
    /// The due dates of reminders. Those of versions that did not state when they were written have none.
    pub(super) fn of_reminders(reminders: &[Reminder], server: &str) -> Option<Self> {
        let entry = |it: &Reminder| {
            let key = it.current_key.as_ref()?.to_string();
            Some(Entry {
                uid: uid(&it.group_id, &key),
                written_at: it.written_at?,
                day: Some(it.due),
                summary: format!("{}: encryption key due", name(&it.project_name, &it.group_id)),
                address: format!("{}/projects/{}", server.trim_end_matches('/'), it.group_id),
            })
        };
        let entries: Vec<_> = reminders.iter().filter_map(entry).collect();
        (!entries.is_empty()).then_some(Self { entries, cancels: false })
    }

    /// The end of the entry about `key`, which a rotation has replaced.
    pub(super) fn cancelled(
        group: &GroupId,
        project: &str,
        key: &KeyText,
        address: String,
        written_at: Timestamp,
    ) -> Self {
        let summary = format!("{}: encryption key due", name(project, group));
        let entry = Entry { uid: uid(group, &key.to_string()), written_at, day: None, summary, address };
        Self { entries: vec![entry], cancels: true }
    }

    /// What is to be done with the entries.
    #[must_use]
    pub fn method(&self) -> &'static str {
        if self.cancels { "CANCEL" } else { "PUBLISH" }
    }

    /// The calendar as it leaves.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| fold(&mut text, &format!("{name}:{value}"));
        line("BEGIN", "VCALENDAR");
        line("VERSION", "2.0");
        line("PRODID", "-//Keywheel//Keywheel//EN");
        line("METHOD", self.method());
        for entry in &self.entries {
            let at = entry.written_at.as_chrono();
            line("BEGIN", "VEVENT");
            line("UID", &entry.uid);
            line("DTSTAMP", &at.format("%Y%m%dT%H%M%SZ").to_string());
            // The second of its writing: more than that of every earlier mail, and within 31 bits for sixty years.
            line("SEQUENCE", &(at.timestamp() - BEGIN).max(0).to_string());
            let day = entry.day.unwrap_or(entry.written_at);
            line("DTSTART;VALUE=DATE", &day.as_chrono().format("%Y%m%d").to_string());
            line("SUMMARY", &escaped(&visible(&entry.summary)));
            line("URL", &entry.address);
            line("STATUS", if entry.day.is_some() { "CONFIRMED" } else { "CANCELLED" });
            line("TRANSP", "TRANSPARENT");
            line("END", "VEVENT");
        }
        line("END", "VCALENDAR");
        text
    }
}
