//! Outbox rows as earlier versions stored them: each kind still reads and renders. The rows in
//! `tests/notices` were written by the program of commit 2feff5b and are never edited.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use keywheel::config::webhooks::Format;
use keywheel::domain::ids::OutboxId;
use keywheel::domain::notice::{Kind, Urgency};
use keywheel::domain::time::Timestamp;
use keywheel::mail::Letter;
use keywheel::store::{OutboxRow, Store};
use keywheel::webhook::{Note, body};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor};

use crate::support::db::{Backend, TestDb};
use crate::support::events::described;

/// A row as the program of that commit wrote it.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    kind: String,
    group_id: String,
    rotation_id: Option<uuid::Uuid>,
    recipient: String,
    message_id: String,
    channel: String,
    created_at: Timestamp,
    model: Value,
}

/// The rows, by the names of their files.
fn stored() -> BTreeMap<String, Stored> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/notices");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|file| {
            let text = std::fs::read_to_string(&file).unwrap();
            let name = file.file_stem().unwrap().to_string_lossy().into_owned();
            (name, serde_json::from_str(&text).unwrap())
        })
        .collect()
}

async fn raw(store: &Store, text: String) {
    let text = AssertSqlSafe(text);
    match store {
        Store::Sqlite { write, .. } => drop(write.execute(sqlx::raw_sql(text)).await.unwrap()),
        Store::Postgres { write, .. } => drop(write.execute(sqlx::raw_sql(text)).await.unwrap()),
    }
}

/// Writes the row with the columns that the table had then.
async fn write(store: &Store, row: &Stored, id: OutboxId) {
    let bytes = |id: uuid::Uuid| {
        if store.is_shared() { format!("'{id}'") } else { format!("X'{}'", id.simple()) }
    };
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let (kind, group, recipient) = (quoted(&row.kind), quoted(&row.group_id), quoted(&row.recipient));
    let (message, channel) = (quoted(&row.message_id), quoted(&row.channel));
    let (model, at) = (quoted(&row.model.to_string()), quoted(&row.created_at.to_string()));
    let (id, rotation) = (bytes(id.0), row.rotation_id.map_or("NULL".to_owned(), bytes));
    raw(
        store,
        format!(
            "INSERT INTO outbox (id, kind, group_id, rotation_id, recipient, message_id, model, state, created_at, \
             next_try_at, channel) VALUES ({id}, {kind}, {group}, {rotation}, {recipient}, {message}, {model}, 'waiting', \
             {at}, {at}, {channel})"
        ),
    )
    .await;
}

/// The body of a webhook about the row.
fn rendered(row: &OutboxRow, format: Format) -> Value {
    let content = row.content().unwrap();
    let letter = Letter::new(&content);
    let note = Note {
        id: &row.message_id,
        at: row.created_at,
        server: &content.server,
        notice: &content.notice,
        title: &letter.subject,
        paragraphs: &letter.paragraphs,
        facts: &letter.facts,
    };
    serde_json::from_str(&body::body(format, &note, body::Sending { now: note.at, key: None }).unwrap())
        .unwrap()
}

#[tokio::test]
async fn a_stored_row_of_each_kind_still_reads_and_renders() {
    let stored = stored();
    let kinds: BTreeSet<_> = stored.values().map(|row| row.kind.as_str()).collect();
    assert_eq!(kinds, Kind::ALL.iter().map(|kind| kind.as_str()).collect::<BTreeSet<_>>());
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let db = TestDb::new(backend).await;
        for (name, old) in &stored {
            let id = OutboxId::new();
            write(&db.store, old, id).await;
            let row = db.store.outbox_row(id).await.unwrap().unwrap();
            assert_eq!(row.model, old.model, "{name}");
            let content = row.content().unwrap();
            assert_eq!(content.notice.kind().as_str(), old.kind, "{name}");
            assert_eq!(content.notice.about().rotation, row.rotation_id, "{name}");
            // Written anew, it is the same row.
            assert_eq!(content.model(), old.model, "{name}");
            let letter = Letter::new(&content);
            let (text, html) = (letter.text(), letter.html().unwrap());
            assert_eq!(letter.urgent, content.notice.urgency() == Urgency::Urgent, "{name}");
            assert_eq!(letter.subject.starts_with("ACTION NEEDED: "), letter.urgent, "{name}");
            let subject = old.model["subject"].as_str().map(|it| it.split('/').next_back().unwrap());
            let subject = subject.map(|it| if it == "installation" { "Keywheel" } else { it });
            let project = old.model["projectName"].as_str().or(subject).unwrap_or("projects need a new");
            assert!(letter.subject.contains(project), "{name}: {}", letter.subject);
            let group = old.model["groupId"].as_str().unwrap_or(&old.group_id);
            // One kind is named so.
            let html = html.replace("validity unknown", "");
            for part in [&text, &html] {
                assert!(part.contains(group) && !part.contains("unknown"), "{name}: {part}");
            }
            let event = rendered(&row, Format::CloudEvents);
            assert_eq!(event["type"], json!(format!("io.keywheel.{}.v1", old.kind)), "{name}");
            described(&event).unwrap_or_else(|why| panic!("{name}: {why}"));
            for format in [Format::Slack, Format::Teams] {
                let message = rendered(&row, format).to_string();
                assert!(
                    message.contains(project) && message.contains("Open in Keywheel"),
                    "{name}: {message}"
                );
            }
        }
    }
}

#[test]
fn the_schema_of_the_events_refuses_what_is_no_event() {
    let row = &stored()["completed"];
    let row: OutboxRow = OutboxRow {
        id: OutboxId::new(),
        channel: keywheel::store::Channel::Webhook,
        kind: row.kind.clone(),
        subject: row.group_id.clone(),
        rotation_id: None,
        recipient: "ops".to_owned(),
        message_id: "msg_1".to_owned(),
        model: row.model.clone(),
        state: keywheel::store::MessageState::Waiting,
        created_at: row.created_at,
        next_try_at: row.created_at,
        attempts: 0,
        last_tried_at: None,
        last_reply: None,
        sent_at: None,
        retried_at: None,
    };
    let event = rendered(&row, Format::CloudEvents);
    described(&event).unwrap();
    for (pointer, value) in [
        ("/type", json!("io.keywheel.drifted.v1")),
        ("/type", json!("io.keywheel.renewed.v1")),
        ("/specversion", json!("0.3")),
        ("/time", json!("today")),
        ("/data/rotationId", json!("1")),
        ("/data/groupId", json!("g")),
        ("/data/state", json!("asleep")),
        ("/data/newKey", Value::Null),
    ] {
        let mut wrong = event.clone();
        *wrong.pointer_mut(pointer).unwrap() = value;
        assert!(described(&wrong).is_err(), "{pointer}");
    }
    let mut more = event.clone();
    more["data"]["later"] = json!(1);
    described(&more).unwrap();
}

#[tokio::test]
async fn rows_stored_before_the_column_are_claimed_by_their_urgency() {
    for (backend, migration) in [
        (Backend::Sqlite, include_str!("../../migrations/sqlite/0009_urgency.sql")),
        (Backend::Postgres, include_str!("../../migrations/postgres/0009_urgency.sql")),
    ] {
        let db = TestDb::new(backend).await;
        raw(&db.store, "ALTER TABLE outbox DROP COLUMN urgency".to_owned()).await;
        let (mut rows, at) = (stored(), "2026-11-28T12:00:00Z".parse().unwrap());
        // Conditions and emergencies are told since a later version.
        rows.retain(|_, row| row.model.get("conditionId").is_none() && row.kind != "emergency_requested");
        for row in rows.values() {
            let row = Stored { channel: "mail".to_owned(), created_at: at, ..row.clone() };
            write(&db.store, &row, OutboxId::new()).await;
        }
        raw(&db.store, migration.to_owned()).await;
        let mut claimed = Vec::new();
        while let Some(mail) = db
            .store
            .claim_mail(
                at,
                std::time::Duration::from_secs(60),
                keywheel::domain::time::Timestamp::from_micros(0),
            )
            .await
            .unwrap()
        {
            claimed.push(mail.row.kind.parse::<Kind>().unwrap().urgency());
        }
        assert_eq!(claimed.len(), rows.len(), "{backend:?}");
        assert!(claimed.is_sorted() && claimed[0] == Urgency::Urgent, "{backend:?} {claimed:?}");
    }
}
