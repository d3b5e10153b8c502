//! The body of a webhook: a CloudEvent for programs, a message for a channel of Slack or Teams, or what a
//! service for incidents takes (`incident.rs`).
//!
//! Every body stays below 20 KB: long texts are cut, with a mark. Text from outside is escaped for Slack
//! and plain for Teams, so that no name of a project becomes a link or mentions a whole channel.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::cut::{CUT, MOST, cut, shown};
use super::event::{self, CutData, Data, Event};
use super::incident;
use super::note::Note;
use crate::config::webhooks::Format;
use crate::domain::condition::Telling;
use crate::domain::notice::ToldCondition;
use crate::domain::time::Timestamp;
use crate::secret::Secret;

/// Bodies are shorter than this, in bytes, as Standard Webhooks ask for.
pub const LARGEST: usize = 20_000;

/// The first limit of each text in a body, in characters; halved until the body fits.
const LONGEST_TEXT: usize = 2000;

/// No text is cut to fewer characters: ids, instants and names of states are shorter and stay whole.
const SHORTEST_CUT: usize = 40;

impl Format {
    /// The type of its bodies.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::CloudEvents => "application/cloudevents+json",
            Format::Slack | Format::Teams | Format::PagerDuty | Format::Opsgenie | Format::Alertmanager => {
                "application/json"
            }
        }
    }

    /// Whether people read it: they prefer one list to many messages.
    #[must_use]
    pub const fn is_chat(self) -> bool {
        matches!(self, Format::Slack | Format::Teams)
    }
}

/// What a body for a service for incidents has besides the note.
#[derive(Clone, Copy, Debug)]
pub struct Sending<'a> {
    /// The instant of this attempt.
    pub now: Timestamp,
    /// The routing key of `PagerDuty`.
    pub key: Option<&'a Secret>,
}

/// The body of `note` in `format`; the same for the same note, but for the instants that Alertmanager needs.
/// `None` when a format for incidents has no body for it, because it tells no condition.
#[must_use]
pub fn body(format: Format, note: &Note<'_>, sending: Sending<'_>) -> Option<String> {
    let told = note.notice.condition();
    if format.has_incidents() && told.is_none() {
        return None;
    }
    let incident = |make: &dyn Fn(&ToldCondition<'_>) -> Value| told.as_ref().map_or(Value::Null, make);
    let make = |limit| match format {
        Format::CloudEvents => event(note, limit),
        Format::Slack => slack(note, limit),
        Format::Teams => teams(note, limit),
        Format::PagerDuty => incident(&|told| incident::pagerduty(note, told, sending.key, limit)),
        Format::Opsgenie => incident(&|told| incident::opsgenie(note, told, limit)),
        Format::Alertmanager => incident(&|told| json!([incident::alert(note, told, sending.now, limit)])),
    };
    let mut limit = LONGEST_TEXT;
    while limit >= SHORTEST_CUT {
        let text = make(limit).to_string();
        if text.len() < LARGEST {
            return Some(text);
        }
        limit /= 2;
    }
    Some(match format {
        Format::CloudEvents => short_event(note).to_string(),
        Format::Slack => json!({ "text": escaped(&note.link(), LONGEST_TEXT) }).to_string(),
        Format::Teams => card(&[plain(&note.link())], &note.link()).to_string(),
        // These take more than 20 KB: what they cannot do without is always sent.
        Format::PagerDuty | Format::Opsgenie | Format::Alertmanager => make(SHORTEST_CUT).to_string(),
    })
}

/// The title, and before it a mark that tells a start from an end.
fn marked(note: &Note<'_>) -> String {
    let mark = match note.notice.condition() {
        None => return note.title.to_owned(),
        Some(it) if it.over_at.is_some() => "\u{2705}",
        Some(it) if it.kind.telling() == Telling::Repeated => "\u{1f534}",
        Some(_) => "\u{1f7e0}",
    };
    format!("{mark} {}", note.title)
}

fn event(note: &Note<'_>, limit: usize) -> Value {
    let facts = shortened(&event::facts(note.notice), limit);
    json!(Event::new(note, Data { facts, summary: cut(note.title, limit), link: note.link() }))
}

/// The event when nothing longer fits.
fn short_event(note: &Note<'_>) -> Value {
    json!(Event::new(note, CutData::new(note.notice.about(), note.link())))
}

fn slack(note: &Note<'_>, limit: usize) -> Value {
    // Verbatim: nothing becomes a link by looking like one.
    let section = |text: String| json!({ "type": "section", "text": { "type": "mrkdwn", "text": text, "verbatim": true } });
    let title = marked(note);
    let mut blocks = vec![section(format!("*{}*", escaped(&title, limit)))];
    // Slack takes 3000 characters in one section.
    blocks.extend(note.paragraphs.iter().take(MOST).map(|it| section(escaped(it, limit))));
    let facts = shown(&note.all_facts(), limit);
    for some in facts.chunks(5) {
        let mut text = String::new();
        for (name, value) in some {
            let _ = writeln!(text, "{}: {}", escaped(name, limit), code(value, limit.min(400)));
        }
        blocks.push(section(text.trim_end().to_owned()));
    }
    blocks.push(section(format!("<{}|Open in Keywheel>", escaped(&note.link(), LONGEST_TEXT))));
    json!({ "text": escaped(&title, limit), "blocks": blocks, "unfurl_links": false })
}

/// The text with `&`, `<` and `>` escaped, of which Slack's links and mentions are made, and cut to at
/// most `limit` characters as they are sent.
fn escaped(text: &str, limit: usize) -> String {
    let (mut escaped, mut length) = (String::new(), 0);
    for char in text.chars() {
        let entity = match char {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            _ => "",
        };
        length += entity.len().max(1);
        if length > limit {
            return escaped + CUT;
        }
        if entity.is_empty() {
            escaped.push(char);
        } else {
            escaped.push_str(entity);
        }
    }
    escaped
}

fn code(text: &str, limit: usize) -> String {
    format!("`{}`", escaped(&text.replace('`', "'"), limit))
}

fn teams(note: &Note<'_>, limit: usize) -> Value {
    let title = cut(&marked(note), limit);
    let mut body = vec![
        json!({ "type": "RichTextBlock", "inlines": [{ "type": "TextRun", "text": title, "weight": "Bolder", "size": "Medium" }] }),
    ];
    body.extend(note.paragraphs.iter().take(MOST).map(|it| plain(&cut(it, limit))));
    for (name, value) in shown(&note.all_facts(), limit) {
        body.push(json!({ "type": "RichTextBlock", "spacing": "Small", "inlines": [
            { "type": "TextRun", "text": format!("{name}: "), "weight": "Bolder" },
            { "type": "TextRun", "text": cut(&value, limit), "fontType": "Monospace" },
        ] }));
    }
    let mut message = card(&body, &note.link());
    message["summary"] = title.into();
    message
}

/// A text run is shown as it is; a text block would read Markdown.
fn plain(text: &str) -> Value {
    json!({ "type": "RichTextBlock", "inlines": [{ "type": "TextRun", "text": text }] })
}

fn card(body: &[Value], link: &str) -> Value {
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "msteams": { "width": "Full" },
                "body": body,
                "actions": [{ "type": "Action.OpenUrl", "title": "Open in Keywheel", "url": link }],
            },
        }],
    })
}

fn shortened(value: &Value, limit: usize) -> Value {
    match value {
        Value::String(text) => cut(text, limit).into(),
        Value::Array(items) => items.iter().take(MOST).map(|item| shortened(item, limit)).collect(),
        Value::Object(members) => members
            .iter()
            .take(2 * MOST)
            .map(|(name, value)| (name.clone(), shortened(value, limit)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::notice::Content;

    const FORMATS: [Format; 3] = [Format::CloudEvents, Format::Slack, Format::Teams];

    fn model() -> Value {
        json!({
            "kind": "needs_operator", "groupId": "32b6e34b3d91647abb20e7b8", "projectName": "pay <!channel> & *co*",
            "rotationId": "0198c5a0-0000-7000-8000-000000000001", "provider": "AWS", "oldKey": "o`ld", "newKey": "n",
            "state": "needs_operator", "cause": "unproven", "atlasDetail": null, "requestedBy": "ada",
            "server": "https://kw.example",
        })
    }

    fn of(format: Format, kind: &str, model: &Value) -> Value {
        let Content { server, notice } = Content::read(kind, model).unwrap();
        let text = |name: &str| model[name].as_str().unwrap_or_default().to_owned();
        let facts = [("Project".to_owned(), text("projectName")), ("Old key".to_owned(), text("oldKey"))];
        let note = Note {
            id: "msg_1",
            at: "2026-03-01T12:00:00Z".parse().unwrap(),
            server: &server,
            notice: &notice,
            title: &format!("{}: stopped", text("projectName")),
            paragraphs: &[text("remedy"), "Second.".to_owned()],
            facts: &facts,
        };
        let body = body(format, &note, Sending { now: note.at, key: None }).unwrap();
        assert!(body.len() < LARGEST, "{format:?}: {}", body.len());
        let body: Value = serde_json::from_str(&body).unwrap();
        for section in body["blocks"].as_array().into_iter().flatten() {
            let text = section["text"]["text"].as_str().unwrap();
            assert!(text.chars().count() <= 3000, "{text}");
            assert_eq!(section["text"]["verbatim"], true, "a URL becomes a link");
            let half = |it: &str| !["amp;", "lt;", "gt;"].iter().any(|end| it.starts_with(end));
            assert!(!text.split('&').skip(1).any(half), "half an entity: {text}");
        }
        body
    }

    #[test]
    fn a_cloud_event_has_every_fact_and_where_to_look() {
        assert_eq!(
            of(Format::CloudEvents, "needs_operator", &model()),
            json!({
                "specversion": "1.0", "id": "msg_1", "source": "https://kw.example",
                "type": "io.keywheel.needs_operator.v1", "time": "2026-03-01T12:00:00.000000Z",
                "datacontenttype": "application/json",
                "subject": "projects/32b6e34b3d91647abb20e7b8/rotations/0198c5a0-0000-7000-8000-000000000001",
                "data": {
                    "groupId": "32b6e34b3d91647abb20e7b8", "projectName": "pay <!channel> & *co*",
                    "rotationId": "0198c5a0-0000-7000-8000-000000000001", "provider": "AWS",
                    "oldKey": "o`ld", "newKey": "n", "state": "needs_operator", "cause": "unproven",
                    "requestedBy": "ada", "reason": null, "atlasErrorCode": null, "atlasDetail": null,
                    "remedy": null, "summary": "pay <!channel> & *co*: stopped",
                    "link": "https://kw.example/rotations/0198c5a0-0000-7000-8000-000000000001",
                },
            })
        );
        let drift = of(
            Format::CloudEvents,
            "drifted",
            &json!({
                "groupId": "32b6e34b3d91647abb20e7b8", "projectName": "p", "from": "a", "to": "b",
                "kind": "changed", "sentences": [], "server": "https://kw.example",
            }),
        );
        assert_eq!((&drift["data"]["oldKey"], &drift["data"]["newKey"]), (&json!("a"), &json!("b")));
        assert_eq!((&drift["data"]["from"], &drift["data"]["kind"]), (&Value::Null, &json!("changed")));
        assert_eq!(
            (&drift["subject"], &drift["data"]["link"]),
            (
                &json!("projects/32b6e34b3d91647abb20e7b8"),
                &json!("https://kw.example/projects/32b6e34b3d91647abb20e7b8")
            )
        );
    }

    #[test]
    fn nothing_from_outside_acts_in_slack() {
        let message = of(Format::Slack, "needs_operator", &model());
        let text = message.to_string();
        assert!(text.contains("pay &lt;!channel&gt; &amp; *co*") && !text.contains("<!channel>"), "{text}");
        assert_eq!(message["text"], "pay &lt;!channel&gt; &amp; *co*: stopped");
        let blocks = message["blocks"].as_array().unwrap();
        let facts = blocks[3]["text"]["text"].as_str().unwrap();
        assert_eq!(facts, "Project: `pay &lt;!channel&gt; &amp; *co*`\nOld key: `o'ld`");
        assert_eq!(
            blocks[4]["text"]["text"],
            "<https://kw.example/rotations/0198c5a0-0000-7000-8000-000000000001|Open in Keywheel>"
        );
    }

    #[test]
    fn teams_gets_a_card_of_plain_text() {
        let message = of(Format::Teams, "needs_operator", &model());
        assert_eq!(message["type"], "message");
        let attachment = &message["attachments"][0];
        assert_eq!(attachment["contentType"], "application/vnd.microsoft.card.adaptive");
        let card = &attachment["content"];
        assert_eq!((&card["type"], &card["version"]), (&json!("AdaptiveCard"), &json!("1.4")));
        assert!(card["body"].as_array().unwrap().iter().all(|it| it["type"] == "RichTextBlock"));
        assert_eq!(card["body"][0]["inlines"][0]["text"], "pay <!channel> & *co*: stopped");
        assert_eq!(
            card["actions"][0]["url"],
            "https://kw.example/rotations/0198c5a0-0000-7000-8000-000000000001"
        );
    }

    #[test]
    fn whatever_the_texts_a_body_stays_below_20_kb_and_shows_the_cut() {
        for (text, times) in
            [("a", 100_000), ("ü", 50_000), ("\u{1}", 50_000), ("<&>", 50_000), ("😀", 3_000)]
        {
            let mut model = model();
            for name in ["projectName", "oldKey", "newKey", "atlasDetail", "remedy", "reason"] {
                model[name] = text.repeat(times).into();
            }
            for format in FORMATS {
                let body = of(format, "needs_operator", &model);
                assert!(body.to_string().contains(CUT), "{format:?} {text:?}");
                if format == Format::CloudEvents {
                    assert_eq!(body["data"]["rotationId"], model["rotationId"], "an id is never cut");
                }
            }
        }
        let mut model = model();
        let check = json!({ "name": "format", "result": "fail", "detail": "x\u{1}".repeat(3000) });
        model["checks"] = json!(vec![check; 1000]);
        for format in FORMATS {
            let body = of(format, "preflight_failed", &model);
            assert!(body.to_string().contains("0198c5a0-0000-7000-8000-000000000001"), "{format:?}");
        }
    }

    #[test]
    fn data_that_no_cut_makes_small_enough_are_reduced_to_ids() {
        let long = "\u{1}".repeat(100);
        let item = json!({
            "groupId": "32b6e34b3d91647abb20e7b8", "projectName": long, "currentKey": long, "interval": long,
            "openNote": long, "due": "2026-03-01T12:00:00Z", "daysLeft": 1,
        });
        let model = json!({ "server": "https://kw.example", "items": vec![item; 20] });
        let body = of(Format::CloudEvents, "reminder_digest", &model);
        assert_eq!(
            body["data"],
            json!({ "groupId": null, "rotationId": null, "link": "https://kw.example", "cut": true })
        );
    }

    #[test]
    fn a_start_an_end_and_a_notice_without_a_condition_are_told_apart() {
        let mut start = model();
        start["conditionId"] = "32b6e34b3d91647abb20e7b8/needs_operator".into();
        let over = json!({
            "kind": "held_over", "groupId": "32b6e34b3d91647abb20e7b8", "projectName": "p", "condition": "held",
            "conditionId": "32b6e34b3d91647abb20e7b8/held", "since": "2026-03-01T12:00:00Z",
            "overAt": "2026-03-01T12:30:00Z", "repeat": 0, "server": "https://kw.example",
        });
        for (kind, model, mark, id) in [
            ("needs_operator", &start, "\u{1f534} ", Some("needs_operator")),
            ("held_over", &over, "\u{2705} ", Some("held")),
            ("needs_operator", &model(), "", None),
        ] {
            let wanted = format!("{mark}{}: stopped", model["projectName"].as_str().unwrap());
            let [slack, teams] = [Format::Slack, Format::Teams].map(|format| of(format, kind, model));
            assert_eq!(slack["text"], escaped(&wanted, LONGEST_TEXT));
            assert_eq!(teams["summary"], wanted);
            for message in [slack, teams] {
                let shown = message.to_string().contains("32b6e34b3d91647abb20e7b8/");
                assert_eq!(shown, id.is_some(), "{message}");
            }
        }
    }

    #[test]
    fn whatever_the_texts_services_for_incidents_get_no_longer_ones_than_they_take() {
        for text in ["a", "ü", "\u{1}", "😀", "\u{202e}"].map(|text| text.repeat(20_000)) {
            let mut model = model();
            model["conditionId"] = "32b6e34b3d91647abb20e7b8/needs_operator".into();
            for name in ["projectName", "oldKey", "newKey", "atlasDetail", "remedy", "reason"] {
                model[name] = text.clone().into();
            }
            let long = |value: &Value| value.as_str().unwrap().chars().count();
            let event = of(Format::PagerDuty, "needs_operator", &model);
            assert_eq!(event["dedup_key"], model["conditionId"], "an id is never cut");
            assert!(long(&event["payload"]["summary"]) <= 1024 && long(&event["payload"]["source"]) <= 1024);
            let alert = of(Format::Opsgenie, "needs_operator", &model);
            assert_eq!((long(&alert["message"]), &alert["alias"]), (130, &model["conditionId"]));
            assert!(alert["message"].as_str().unwrap().ends_with('…'));
            assert!(long(&alert["description"]) <= 15_000 && long(&alert["entity"]) <= 512);
            let details = alert["details"].as_object().unwrap();
            assert!(details.iter().map(|(name, it)| name.chars().count() + long(it)).sum::<usize>() <= 8000);
            let alert = &of(Format::Alertmanager, "needs_operator", &model)[0];
            assert_eq!(alert["labels"]["condition_id"], model["conditionId"]);
            assert_eq!(long(&alert["labels"]["project"]), 200);
        }
    }

    #[test]
    fn a_short_text_is_left_alone() {
        assert_eq!((cut("äb", 2), cut("äbc", 2)), ("äb".to_owned(), format!("äb{CUT}")));
        assert_eq!((escaped("ä<", 5), escaped("ä<", 4)), ("ä&lt;".to_owned(), format!("ä{CUT}")));
    }
}
