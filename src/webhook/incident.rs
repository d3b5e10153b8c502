//! The bodies for services that open and close incidents: `PagerDuty`, Opsgenie and Alertmanager.
//!
//! The id of the condition is the key of the incident, from its start to its end, so a repetition adds to the open
//! incident and the end closes it. Texts are cut to the lengths that the services document.
//!
//! Alertmanager forgets an alert that is not sent again. Each sending says that it holds for [`HOLDS_FOR`] more, and
//! the engine sends it each minute.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::cut::{MOST, cut, shown};
use super::note::Note;
use crate::domain::condition::{ConditionKind, Telling};
use crate::domain::notice::ToldCondition;
use crate::domain::text::visible;
use crate::domain::time::Timestamp;
use crate::secret::Secret;

/// For so long after each sending Alertmanager keeps an alert open.
pub(super) const HOLDS_FOR: Duration = Duration::from_mins(5);

/// `PagerDuty`'s limit for a summary, in characters.
const SUMMARY: usize = 1024;

/// Opsgenie's limit for a message, in characters.
const MESSAGE: usize = 130;

/// Opsgenie's limit for a description, and about that for a value of which all must have 8000 together.
const DESCRIPTION: usize = 15_000;
const DETAIL: usize = 300;

/// Opsgenie's limits for a source and an entity, in characters.
const SOURCE: usize = 100;
const ENTITY: usize = 512;

/// The longest name of a project in a label or a source, in characters.
const NAME: usize = 200;

/// The longest text of an alert among others, in characters.
const ALERT_TEXT: usize = 1000;

/// Whether a person must act at once.
fn is_critical(kind: ConditionKind) -> bool {
    kind.telling() == Telling::Repeated
}

fn severity(kind: ConditionKind) -> &'static str {
    if is_critical(kind) { "critical" } else { "warning" }
}

/// The title, without the words that mark a mail as urgent: the severity says so.
fn title<'a>(note: &Note<'a>) -> &'a str {
    note.title.strip_prefix("ACTION NEEDED: ").unwrap_or(note.title)
}

/// At most `limit` characters of a text; a text that was cut ends with "…".
fn within(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

fn description(note: &Note<'_>, limit: usize) -> String {
    let paragraphs: Vec<_> = note.paragraphs.iter().take(MOST).map(|text| cut(text, limit)).collect();
    paragraphs.join("\n\n")
}

fn details(note: &Note<'_>, limit: usize) -> Map<String, Value> {
    let facts = shown(&note.all_facts(), limit);
    facts.into_iter().map(|(name, value)| (name, cut(&value, limit).into())).collect()
}

/// An event for the Events API v2: it opens an incident, adds to it, or resolves it.
pub(super) fn pagerduty(
    note: &Note<'_>,
    told: &ToldCondition<'_>,
    key: Option<&Secret>,
    limit: usize,
) -> Value {
    let name = visible(told.name);
    let mut details = details(note, limit);
    details.insert("Description".to_owned(), description(note, limit).into());
    json!({
        "routing_key": key.map(Secret::expose),
        "event_action": if told.over_at.is_some() { "resolve" } else { "trigger" },
        "dedup_key": told.id,
        "client": "Keywheel",
        "client_url": note.link(),
        "links": [{ "href": note.link(), "text": "Open in Keywheel" }],
        "payload": {
            "summary": within(title(note), SUMMARY.min(limit)),
            "source": if name.is_empty() { note.server.to_owned() } else { within(&name, NAME) },
            "severity": severity(told.kind),
            "timestamp": note.at,
            "component": "encryption at rest",
            "group": note.notice.about().project,
            "class": told.kind,
            "custom_details": details,
        },
    })
}

/// An alert for the Alert API, or the note with which one is closed.
pub(super) fn opsgenie(note: &Note<'_>, told: &ToldCondition<'_>, limit: usize) -> Value {
    let source = within(note.server, SOURCE);
    if told.over_at.is_some() {
        let text = format!("{}\n\n{}", cut(title(note), limit), description(note, limit));
        return json!({ "user": "Keywheel", "source": source, "note": text });
    }
    let link = note.link();
    json!({
        "message": within(title(note), MESSAGE),
        "alias": told.id,
        "description": within(&format!("{link}\n\n{}", description(note, limit)), DESCRIPTION),
        "priority": if is_critical(told.kind) { "P1" } else { "P3" },
        "source": source,
        "entity": within(&visible(told.name), ENTITY.min(limit)),
        "tags": ["keywheel", told.kind.as_str()],
        "details": details(note, limit.min(DETAIL)),
        "user": "Keywheel",
    })
}

/// An alert for Alertmanager, sent at `now`. Its labels are the same from the start to the end.
pub(super) fn alert(note: &Note<'_>, told: &ToldCondition<'_>, now: Timestamp, limit: usize) -> Value {
    let since = told.since.unwrap_or(note.at);
    let mut labels = json!({
        "alertname": format!("keywheel_{}", told.kind),
        "condition": told.kind,
        "condition_id": told.id,
        "severity": severity(told.kind),
    });
    // Alertmanager takes no empty label.
    if !told.name.is_empty() {
        labels["project"] = within(&visible(told.name), NAME).into();
    }
    if let Some(group) = note.notice.about().project {
        labels["group_id"] = json!(group);
    }
    json!({
        "labels": labels,
        "annotations": {
            "summary": within(title(note), SUMMARY.min(limit)),
            "description": description(note, limit),
        },
        "startsAt": since,
        // An alert must not end before it starts.
        "endsAt": told.over_at.unwrap_or(now + HOLDS_FOR).max(since),
        "generatorURL": note.link(),
    })
}

/// The alerts for conditions that hold on or have just ended.
pub(super) fn alerts(notes: &[Note<'_>], now: Timestamp) -> Value {
    let alert = |note: &Note<'_>| Some(alert(note, &note.notice.condition()?, now, ALERT_TEXT));
    notes.iter().filter_map(alert).collect()
}
