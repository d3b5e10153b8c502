//! What tables and trees look like at 80 and 140 columns, with colour and without, in snapshots; and that no
//! line of any verb is wider than its screen, whatever its data.
//!
//! Escapes of colour are shown as `{31}` and `{0}`.

use std::fmt::Write as _;

use super::*;
use crate::api::rotation::{JournalEntry, Rotation};
use crate::cli::fake::NOW;
use crate::cli::tree::{Depth, tree, waits};

const OTHER: &str = "0198c5a0-0000-7000-8000-000000000002";
const AWS: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const AZURE: &str =
    "https://payments-vault.vault.azure.net/keys/atlas-encryption/0123456789abcdef0123456789abcdef";

/// A text that is as long as the API allows, where `long`.
fn text(long: bool, short: &str) -> String {
    if long { format!("{short} {}", "and many more words ".repeat(95)) } else { short.to_owned() }
}

fn name(long: bool, short: &str) -> String {
    if long { format!("{short}-{}", "\u{9375}x".repeat(120)) } else { short.to_owned() }
}

fn checks(long: bool) -> Value {
    let check = |name: &str, result: &str, detail: &str| json!({ "name": name, "result": result, "detail": text(long, detail) });
    json!([
        check("place", "pass", "its place matches Atlas' configuration"),
        check("key_exists", "pass", "the key service has it"),
        check("shared_key", "warn", "the project payments-test uses it too"),
        check("key_expiry", "not_checked", "no lookup was made"),
    ])
}

fn sample(long: bool, state: &str) -> Value {
    let mut it = rotation(ID, GROUP, state);
    it["projectName"] = json!(name(long, "payments-prod"));
    it["oldKey"] = json!(AWS.replace("1234", "0000"));
    it["newKey"] = json!(AWS);
    it["reason"] = json!(text(long, "quarterly"));
    it["checks"] = checks(long);
    it["why"] = json!([text(
        long,
        "It waits for approvals: 0 of 2 are given; it expires at 2026-01-09T03:04:05.123456Z. grace, heidi can give one."
    )]);
    it["lastObservation"] = json!({ "at": AT, "key": AWS, "enabled": true, "valid": true });
    it["expiresAt"] = json!("2026-01-09T03:04:05.123456Z");
    it["approvals"] = json!({ "required": 2, "given": [
        { "by": "grace", "at": AT, "method": "api", "comment": text(long, "looks right") },
    ]});
    if long {
        it["atlasDetail"] = json!("x".repeat(1900));
        it["clusters"] = (0..40)
            .map(|n| json!({ "name": format!("cluster-{n}"), "seenUpdating": false, "idle": 0, "exception": null }))
            .collect();
    }
    it
}

fn journal(long: bool) -> Value {
    let entry = |seq: u32, kind: &str, from: Value, to: &str, detail: Value| {
        json!({ "seq": seq, "at": AT, "actor": "ada", "kind": kind, "fromState": from, "toState": to,
            "detail": detail, "count": 3, "lastAt": AT })
    };
    json!([
        entry(
            1,
            "proposed",
            Value::Null,
            "awaiting_approval",
            json!({ "approvals": 2, "checks": checks(long),
            "newKey": AWS, "oldKey": AZURE, "reason": text(long, "quarterly") })
        ),
        entry(
            2,
            "command",
            json!("awaiting_approval"),
            "awaiting_approval",
            json!({ "command": "approve", "comment": text(long, "looks right") })
        ),
        entry(
            3,
            "look",
            json!("awaiting_approval"),
            "awaiting_approval",
            json!({ "key": AWS, "valid": true,
            "clusters": { name(long, "main"): "IDLE" } })
        ),
    ])
}

/// A server with something of everything.
fn world(long: bool) -> Router {
    let page = |items: Value| {
        let page = json!({ "items": items, "next": null });
        get(move || async move { Json(page) })
    };
    let one = |value: Value| get(move || async move { Json(value) });
    let mut overdue = project(GROUP, &name(long, "payments-prod"));
    overdue["currentKey"] = json!(AWS);
    overdue["status"] = json!("overdue");
    overdue["provider"] = json!("AWS");
    overdue["due"] = json!("2026-01-01T00:00:00Z");
    overdue["keySince"] = json!("2025-10-01T00:00:00Z");
    overdue["lastError"] = json!(text(long, "timed out"));
    let mut fine = project(&"a".repeat(24), &name(long, "identity-prod"));
    fine["currentKey"] = json!(AZURE);
    fine["provider"] = json!("AZURE");
    fine["owners"] = (0..if long { 30 } else { 2 }).map(|n| json!(format!("owner{n}@example.com"))).collect();
    fine["due"] = json!("2026-01-20T00:00:00Z");
    let projects = json!([overdue, fine]);
    let mail = json!({ "id": OTHER, "channel": "mail", "kind": "reminder", "groupId": GROUP, "rotationId": null,
        "recipient": "ada@example.com", "messageId": "<m@keywheel>", "state": "failed", "createdAt": AT,
        "attempts": 3, "nextTryAt": null, "lastTriedAt": AT, "lastReply": text(long, "550 no such user"),
        "sentAt": null, "retriedAt": null, "model": { "text": text(long, "The key is due.") } });
    let audit = json!([{ "seq": 1, "at": AT, "actor": name(long, "ada"), "action": "rotation.proposed",
        "subject": format!("rotation/{ID}"), "hash": "0", "prevHash": "0", "detail": { "checks": checks(long),
        "newKey": AWS, "oldKey": AZURE, "reason": text(long, "quarterly") } }]);
    let found = json!([{ "groupId": GROUP, "name": name(long, "payments-prod"), "credential": "default",
        "provider": "AZURE", "key": AZURE, "valid": false, "clusterCount": 3,
        "owners": [{ "mail": "ada@example.com", "from": ["project", "team operations"] }],
        "ownersUnknown": [], "tags": [{ "key": "environment", "value": text(long, "prod") }], "tracked": false,
        "error": text(long, "403") }]);
    let discovery = json!({ "items": found, "next": null, "credential": "default", "seen": 1, "total": 1 });
    let loosening = json!([{ "id": OTHER, "subject": format!("project/{GROUP}"), "groupId": GROUP,
        "state": "waiting", "changes": [{ "field": "owners", "course": "looser", "from": text(long, "ada"),
        "to": text(long, "eve") }], "requestedBy": "eve", "requestedAt": AT, "toTell": [], "announcedAt": AT,
        "takesEffectAt": AT }]);
    let status = json!({ "at": AT, "projects": 2, "byStatus": { "overdue": 1, "ok": 1 }, "withoutOwner": 1,
        "database": { "sending": true, "doubt": null, "clockSkewMs": { "database": 1, "atlas": 2 } },
        "conditions": [], "nextDue": projects, "mails": { "waiting": 1, "failed": 2, "unaddressed": 0 },
        "openRotations": [{ "id": ID, "state": "awaiting_approval", "groupId": GROUP,
            "projectName": name(long, "payments-prod") }] });
    let why = json!({ "groupId": GROUP, "name": "p", "status": "overdue", "drift": null,
        "sentences": [text(long, &format!("Atlas holds the key {AZURE} (read at {AT}).")), "It is overdue."] });
    let open = sample(long, "awaiting_approval");
    let approved = open.clone();
    let dry = json!({ "dryRun": true, "oldKey": AWS, "newKey": AZURE, "checks": checks(long) });
    Router::new()
        .route("/api/v1/projects", page(projects.clone()))
        .route("/api/v1/projects/{id}", one(projects[0].clone()))
        .route("/api/v1/projects/{id}/why", one(why))
        .route(
            "/api/v1/projects/{id}/keys",
            page(json!([{ "key": AZURE, "since": AT, "until": null, "source": "operator" }])),
        )
        .route("/api/v1/projects/{id}/rotations", post(move || async move { Json(dry) }))
        .route("/api/v1/discover", one(discovery))
        .route("/api/v1/loosenings", page(loosening))
        .route("/api/v1/status", one(status))
        .route("/api/v1/outbox", page(json!([mail])))
        .route("/api/v1/outbox/{id}", one(mail))
        .route("/api/v1/audit", page(audit))
        .route(
            "/api/v1/webhooks",
            one(json!({ "items": [{ "name": name(long, "ops"), "format": "slack",
            "host": "hooks.example.com", "disabledSince": AT }] })),
        )
        .route("/api/v1/rotations", page(json!([open])))
        .route("/api/v1/rotations/{id}", one(open))
        .route("/api/v1/rotations/{id}/journal", page(journal(long)))
        .route("/api/v1/rotations/{id}/approve", post(move || async move { Json(approved) }))
}

const LINES: [&str; 17] = [
    "status",
    "project list",
    "project show payments-prod",
    "due",
    "history payments-prod",
    "why payments-prod",
    "rotation list",
    "rotation show ID --checks",
    "rotation show ID --journal",
    "rotate payments-prod --to n --dry-run",
    "approve ID",
    "outbox list",
    "outbox show ID",
    "audit list",
    "webhook list",
    "loosening list",
    "project discover",
];

/// Runs every line, and prints the tables of the verbs that read this machine.
async fn all(long: bool, screen: Screen) -> String {
    let (client, _dir) = on_socket(world(long));
    let mut all = String::new();
    for line in LINES {
        // A name that is long is not the one on the command line.
        let line = line.replace("ID", ID).replace("payments-prod", GROUP);
        let words: Vec<&str> = line.split_whitespace().collect();
        let (exit, out, err) = run_on_screen(&client, &words, screen).await;
        assert_eq!(exit, Exit::Done, "{line}: {err}");
        let _ = writeln!(all, "$ keywheel {}\n{out}{err}", line.replace(ID, "ID"));
    }
    let doctor = ["pass", "warn", "fail"].map(|result| {
        json!({ "result": result, "name": "database", "detail": text(long, "the database answers in 3 ms") })
    });
    let token = json!({ "name": name(long, "ada"), "roles": ["operator", "viewer"], "person": "ada@example.com",
        "madeBy": "local:root", "createdAt": AT, "revokedAt": null, "suspended": true });
    let (mut printer, out, _) = printer_on(Format::Table, screen);
    printer.list(&doctor, &local::DOCTOR).unwrap();
    printer.list(&[token], &local::TOKENS).unwrap();
    let _ = writeln!(all, "$ keywheel doctor; keywheel token list\n{}", out.text());
    all
}

/// Colour as text.
fn shown(text: &str) -> String {
    let mut out = String::new();
    for (at, part) in text.split("\u{1b}[").enumerate() {
        match part.split_once('m').filter(|_| at > 0) {
            Some((code, rest)) => out.extend(["{", code, "}", rest]),
            None => out.push_str(part),
        }
    }
    out
}

const SCREENS: [(usize, bool); 4] = [(80, false), (80, true), (140, false), (140, true)];

fn screen(width: usize, colour: bool) -> Screen {
    Screen { width: Some(width), height: Some(24), colour, ..Screen::default() }
}

#[tokio::test]
async fn tables_at_80_and_140_columns_with_colour_and_without() {
    for width in [80, 140] {
        let plain = all(false, screen(width, false)).await;
        insta::assert_snapshot!(format!("tables_{width}"), plain);
        let colour = all(false, screen(width, true)).await;
        insta::assert_snapshot!(format!("tables_{width}_colour"), shown(&colour));
    }
    insta::assert_snapshot!("tables_pipe", all(false, Screen::default()).await);
}

#[tokio::test]
async fn no_line_is_wider_than_its_screen_and_a_pipe_gets_none_of_a_thousand() {
    for (width, ascii) in [(40, false), (80, true), (140, false)] {
        let text = all(true, Screen { ascii, ..screen(width, false) }).await;
        let wide: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with("$ ") && textwrap::core::display_width(line) > width)
            .collect();
        assert!(wide.is_empty(), "{width}: {wide:#?}");
    }
    let text = all(true, Screen::default()).await;
    let wide: Vec<&str> = text.lines().filter(|line| line.chars().count() > 1000).collect();
    assert!(wide.is_empty(), "{wide:#?}");
    assert!(text.contains(AWS) && text.contains(AZURE), "a pipe gets whole keys");
}

/// A rotation in one of its states, with what the API tells of it there.
fn stage(state: &str) -> (Rotation, Vec<JournalEntry>) {
    let mut it = sample(false, state);
    let mut entries = Vec::new();
    let mut at = 0;
    let mut add = |actor: &str, kind: &str, from: Option<&str>, to: &str, detail: Value| {
        at += 1;
        let instant = format!("2026-01-02T03:04:{at:02}.500000Z");
        entries.push(json!({ "seq": at, "at": instant, "actor": actor, "kind": kind, "fromState": from,
            "toState": to, "detail": detail, "count": 1, "lastAt": instant }));
    };
    let path = match state {
        "awaiting_approval" => &["awaiting_approval"][..],
        "approved" => &["awaiting_approval", "approved"],
        "rejected" => &["awaiting_approval", "rejected"],
        "verifying" => &["awaiting_approval", "approved", "applying", "verifying"],
        "deploying" => &["awaiting_approval", "approved", "applying", "verifying", "deploying"],
        "completed" => &["awaiting_approval", "approved", "applying", "verifying", "deploying", "completed"],
        other => &["awaiting_approval", "approved", "applying", "verifying", "rolling_back", other],
    };
    let mut from = None;
    for to in path {
        let detail = match *to {
            "approved" => json!({ "comment": "looks right" }),
            "rejected" => json!({ "comment": "wrong key" }),
            "needs_operator" => json!({ "cause": "rollback_refused" }),
            "verifying" => json!({ "valid": true }),
            _ => json!({}),
        };
        let actor = if matches!(*to, "approved" | "rejected") { "grace" } else { "keywheel" };
        let kind = if *to == "verifying" { "look" } else { "step" };
        add(actor, kind, from, to, detail);
        if matches!(*to, "verifying" | "rolling_back") {
            for valid in [json!(true), Value::Null, json!(false), json!(true)] {
                add("keywheel", "look", Some(to), to, json!({ "valid": valid }));
            }
        }
        from = Some(*to);
    }
    it["readings"] = json!({ "inARow": 1, "required": 3 });
    it["guardDeadline"] = json!("2026-01-02T03:17:05.000000Z");
    let (why, cause) = match state {
        "awaiting_approval" => return (read(it), entries.into_iter().map(read).collect()),
        "approved" => ("It waits for its window, which opens on Sat 2026-01-03 01:00 Europe/Kyiv.", None),
        "needs_operator" => (
            "Atlas refuses the rollback while the new key is invalid. Re-enable it: aws kms enable-key --key-id 1234abcd-12ab-34cd-56ef-1234567890ab",
            Some("rollback_refused"),
        ),
        _ => ("", None),
    };
    it["why"] = if why.is_empty() { json!([]) } else { json!([why]) };
    it["cause"] = json!(cause);
    it["attempts"] = json!(2);
    it["clusters"] = json!([
        { "name": "main", "seenUpdating": true, "idle": 2, "exception": null },
        { "name": "reports", "seenUpdating": true, "idle": 0, "exception": null },
        { "name": "old", "seenUpdating": false, "idle": 0, "exception": "paused" },
    ]);
    if state == "completed" {
        it["atlasEventId"] = json!("5f4e3d2c");
        it["atlasEventAt"] = json!(AT);
        it["atlasEventBy"] = json!("the service account mdb_sa_id_1");
    }
    if state == "needs_operator" {
        it["atlasErrorCode"] = json!("CANNOT_UPDATE_KEY");
        it["atlasDetail"] = json!("The key that is in force cannot be used, so no other can be set.");
    }
    (read(it), entries.into_iter().map(read).collect())
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

#[test]
fn trees_at_80_and_140_columns_with_colour_and_without() {
    let now = NOW.parse().unwrap();
    let states = [
        "awaiting_approval",
        "approved",
        "verifying",
        "deploying",
        "rolling_back",
        "needs_operator",
        "completed",
        "rolled_back",
        "rejected",
    ];
    for (width, colour) in SCREENS {
        let mut all = String::new();
        for state in states {
            let (rotation, journal) = stage(state);
            let depth = if state == "approved" { Depth::Checks } else { Depth::Full };
            for screen in [screen(width, colour), Screen { ascii: true, ..screen(width, colour) }] {
                // Signs of ASCII are shown once.
                if screen.ascii && (colour || state != "verifying") {
                    continue;
                }
                for (depth, journal) in [(depth, &journal[..]), (Depth::Brief, &[])] {
                    let lines = tree(&rotation, journal, depth, now, &screen);
                    assert!(lines.iter().all(|line| line.width() <= width), "{lines:?}");
                    for line in lines {
                        let _ = writeln!(all, "{}", line.render(&screen));
                    }
                    all.push('\n');
                }
            }
            if !colour {
                let _ = writeln!(all, "in a pipe: {:#?}\n", waits(&rotation, now));
            }
        }
        let name = if colour { format!("trees_{width}_colour") } else { format!("trees_{width}") };
        insta::assert_snapshot!(name, shown(&all));
    }
}

#[test]
fn a_tree_counts_down_to_the_guard_and_marks_the_readings() {
    let (rotation, journal) = stage("verifying");
    let told = |at: &str| {
        let lines = tree(&rotation, &journal, Depth::Full, at.parse().unwrap(), &screen(80, false));
        lines.iter().map(|line| line.render(&Screen::default())).collect::<Vec<_>>().join("\n")
    };
    assert!(told("2026-01-02T03:10:00Z").contains("guard ends in 7m 05s"));
    assert!(told("2026-01-02T03:16:55Z").contains("guard ends in 10s"));
    assert!(told("2026-01-02T03:10:00Z").contains("  \u{2713}\u{2713}?\u{2717}\u{2713}\n"));
}
