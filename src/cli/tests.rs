//! The verbs against a server with scripted responses: exit codes, output, and requests.

mod screens;

use std::sync::{Arc, Mutex};

use axum::extract::{Path, Query, Request};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::fake::{AT, Shared, install_provider, on_socket, on_tcp, printer, printer_on, project, rotation};
use super::*;

const ID: &str = "0198c5a0-0000-7000-8000-000000000001";
const GROUP: &str = "32b6e34b3d91647abb20e7b8";

/// Runs one command line against `client`; gives exit code, standard output, standard error.
async fn run_on(client: &Client, line: &[&str], terminal: bool) -> (Exit, String, String) {
    let (width, height) = (terminal.then_some(80), terminal.then_some(24));
    run_on_screen(client, line, Screen { width, height, ..Screen::default() }).await
}

/// The same on any screen.
async fn run_on_screen(client: &Client, line: &[&str], screen: Screen) -> (Exit, String, String) {
    let cli = Cli::try_parse_from([&["keywheel"], line].concat()).unwrap();
    let (mut printer, out, err): (Printer, Shared, Shared) = printer_on(cli.global.output, screen);
    let exit = match remote(cli.verb, client, &mut printer).await {
        Ok(exit) => exit,
        Err(failure) => {
            failure.report(&mut printer);
            failure.exit()
        }
    };
    (exit, out.text(), err.text())
}

fn problem(status: u16, body: &Value) -> impl IntoResponse + Clone + use<> {
    let status = StatusCode::from_u16(status).unwrap();
    (status, [("content-type", "application/problem+json")], body.to_string())
}

#[test]
fn the_tree_of_verbs_is_sound() {
    Cli::command().debug_assert();
}

/// Calls `each` with every verb that has no verbs below it.
fn leaves(path: &str, command: &clap::Command, each: &mut impl FnMut(&str, &clap::Command)) {
    let below: Vec<_> = command.get_subcommands().filter(|it| it.get_name() != "help").collect();
    if below.is_empty() {
        each(path, command);
    }
    for verb in below {
        leaves(&format!("{path} {}", verb.get_name()), verb, each);
    }
}

/// What is wrong with a line of a shell: the commands of this program in it are parsed, up to where output is sent to a file.
fn faults_of(line: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for command in line.split("&&").flat_map(|part| part.split(" | ")) {
        let Some(words) = shlex::split(command) else {
            faults.push(format!("quotation marks: {line}"));
            continue;
        };
        if words.first().is_some_and(|word| word == "keywheel")
            && let Err(why) = Cli::try_parse_from(words.iter().take_while(|word| *word != ">"))
        {
            faults.push(format!("{line}: {why}"));
        }
    }
    faults
}

#[test]
fn every_verb_has_two_examples_that_can_be_run() {
    let (mut faults, mut count) = (Vec::new(), 0);
    leaves("keywheel", &Cli::command(), &mut |path, command| {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let section = help.split_once("Examples:\n").map_or("", |(_, rest)| rest);
        // The section ends with an empty line.
        let lines = section.lines().take_while(|line| !line.is_empty()).map(str::trim);
        let lines: Vec<_> = lines.filter(|line| line.starts_with("keywheel ")).collect();
        if lines.len() < 2 || !lines.iter().any(|line| line.starts_with(path)) {
            faults.push(format!("{path}: two examples, of which one is of this verb"));
        }
        faults.extend(lines.into_iter().flat_map(faults_of));
        count += 1;
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count > 40, "the test read {count} verbs only");
}

#[test]
fn verbs_of_later_versions_are_not_pretended() {
    for verb in ["import", "discover", "evidence"] {
        assert!(Cli::try_parse_from(["keywheel", verb]).is_err(), "{verb}");
    }
    assert!(Cli::try_parse_from(["keywheel", "audit", "export"]).is_err());
}

#[tokio::test]
async fn every_status_has_its_exit_code_and_problems_are_told_in_full() {
    for (status, wanted) in [
        (400, Exit::Usage),
        (401, Exit::Refused),
        (403, Exit::Refused),
        (404, Exit::NotFound),
        (409, Exit::Refused),
        (422, Exit::Refused),
        (429, Exit::Failed),
        (500, Exit::Failed),
        (502, Exit::Failed),
        (503, Exit::Failed),
    ] {
        let body = json!({"code": "some-code", "detail": "It did \u{1b}[2Jnot work.", "atlasErrorCode": "CANNOT_X", "atlasDetail": "No."});
        let answer = problem(status, &body);
        let router =
            Router::new().route("/api/v1/rotations/{id}/cancel", post(move || async move { answer }));
        let (client, _dir) = on_socket(router);
        let (exit, out, err) = run_on(&client, &["cancel", ID], false).await;
        assert_eq!(exit, wanted, "{status}");
        assert_eq!(out, "");
        assert!(
            err.contains("error: It did \\u{1b}[2Jnot work.\ncode: some-code\natlas: CANNOT_X: No.\n"),
            "{err}"
        );
    }
}

#[tokio::test]
async fn an_open_rotation_is_named_in_the_hint() {
    let answer =
        problem(409, &json!({"code": "rotation-open", "detail": "Another is open.", "rotationId": ID}));
    let router = Router::new().route("/api/v1/projects/{id}/rotations", post(move || async move { answer }));
    let (client, _dir) = on_socket(router);
    let (exit, _, err) = run_on(&client, &["rotate", GROUP, "--to", "k"], false).await;
    assert_eq!(exit, Exit::Refused);
    assert!(err.contains(&format!("hint: show it with `keywheel rotation show {ID}`")), "{err}");
}

#[tokio::test]
async fn an_answer_that_is_no_problem_document_still_gives_a_sentence() {
    let router = Router::new().fallback(|| async { (StatusCode::BAD_GATEWAY, "<html>") });
    let (client, _dir) = on_socket(router);
    let (exit, _, err) = run_on(&client, &["status"], false).await;
    assert_eq!(exit, Exit::Failed);
    assert!(err.starts_with("error: the server answered 502 without a reason\nhint: is there a"), "{err}");
    let router = Router::new().fallback(|| async { "<html>" });
    let (client, _dir) = on_socket(router);
    let (exit, _, err) = run_on(&client, &["status"], false).await;
    assert!(exit == Exit::Failed && err.contains("check that it is a Keywheel server"), "{err}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_how_to_start_one() {
    install_provider();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none.sock");
    let client = Client::over_socket(&socket).unwrap();
    let (exit, _, err) = run_on(&client, &["status"], false).await;
    assert_eq!(exit, Exit::Unreachable);
    assert!(err.contains(&format!("cannot reach the local socket {}", socket.display())), "{err}");
    assert!(err.contains("hint: start a server with `keywheel serve`"), "{err}");

    let token = dir.path().join("token");
    std::fs::write(&token, "kw_x\n").unwrap();
    let (mut printer, ..) = printer(Format::Table, false);
    let client = Client::over_http("http://u:canary@127.0.0.1:1", Some(&token), &mut printer).unwrap();
    let (exit, _, err) = run_on(&client, &["project", "list"], false).await;
    assert_eq!(exit, Exit::Unreachable);
    assert!(err.contains("cannot reach the server http://127.0.0.1:1/") && !err.contains("canary"), "{err}");
}

#[tokio::test]
async fn over_http_the_token_is_sent_and_needed() {
    let router =
        Router::new().route(
            "/base/api/v1/status",
            get(|headers: HeaderMap| async move {
                Json(json!({"got": headers["authorization"].to_str().unwrap()}))
            }),
        );
    let server = on_tcp(router).await + "/base/";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "kw_token\n").unwrap();
    let (mut printer, ..) = printer(Format::Table, false);
    let client = Client::over_http(&server, Some(file.path()), &mut printer).unwrap();
    let (exit, out, _) = run_on(&client, &["status", "-o", "json"], false).await;
    assert_eq!((exit, out.as_str()), (Exit::Done, "{\"got\":\"Bearer kw_token\"}\n"));
    assert!(!format!("{client:?}").contains("kw_token"));

    let missing = Client::over_http(&server, None, &mut printer).unwrap_err();
    assert_eq!(missing.exit(), Exit::Usage);
    std::fs::write(file.path(), "\n").unwrap();
    let empty = Client::over_http(&server, Some(file.path()), &mut printer).unwrap_err();
    assert!(empty.to_string().contains("is empty"), "{empty}");
}

/// Two pages of projects; the second holds a name twice.
fn projects() -> Router {
    async fn page(Query(query): Query<std::collections::HashMap<String, String>>) -> Json<Value> {
        let one = |id: char, name: &str| project(&id.to_string().repeat(24), name);
        Json(if query.contains_key("cursor") {
            json!({"items": [one('b', "twin"), one('c', "twin")], "next": null})
        } else {
            json!({"items": [one('a', "only")], "next": "2"})
        })
    }
    Router::new().route("/api/v1/projects", get(page)).route(
        "/api/v1/projects/{id}/why",
        get(|Path(id): Path<String>| async move {
            let sentences = [format!("It is {id}."), "Nothing to do.".to_owned()];
            Json(
                json!({"groupId": id, "name": "only", "status": "ok", "sentences": sentences, "drift": null}),
            )
        }),
    )
}

#[tokio::test]
async fn a_project_is_found_by_its_unique_name_over_all_pages() {
    let (client, _dir) = on_socket(projects());
    let (exit, out, _) = run_on(&client, &["why", "only"], false).await;
    assert_eq!(exit, Exit::Done);
    assert_eq!(out, format!("status: ok\nIt is {}.\nNothing to do.\n", "a".repeat(24)));
    let (exit, _, err) = run_on(&client, &["why", "twin"], false).await;
    assert_eq!(exit, Exit::Usage);
    assert!(err.contains(&"b".repeat(24)) && err.contains(&"c".repeat(24)), "{err}");
    let (exit, _, err) = run_on(&client, &["why", "nobody"], false).await;
    assert!(exit == Exit::NotFound && err.contains("no project is named \"nobody\""), "{err}");
    let (_, out, _) = run_on(&client, &["project", "list"], false).await;
    assert_eq!(out.lines().count(), 4, "{out}");
    let (_, out, _) = run_on(&client, &["project", "list", "-o", "json"], false).await;
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn json_is_the_servers_own_text() {
    let raw = "{\"zeta\": 1,  \"alpha\": 2.50}";
    let router = Router::new().route("/api/v1/status", get(move || async move { raw }));
    let (client, _dir) = on_socket(router);
    let (_, out, _) = run_on(&client, &["status", "-o", "json"], false).await;
    assert_eq!(out, format!("{raw}\n"));
}

#[tokio::test]
async fn an_answer_that_lacks_a_member_is_an_error_that_names_it_and_json_is_printed_all_the_same() {
    let mut older = rotation(ID, GROUP, "approved");
    older.as_object_mut().unwrap().remove("newKeyTail");
    older["newer"] = json!(1);
    let list = json!({"items": [rotation(ID, GROUP, "approved"), older], "next": null});
    let router = Router::new()
        .route("/api/v1/rotations/{id}", get(move || async move { Json(older) }))
        .route("/api/v1/rotations/{id}/journal", get(|| async { Json(json!({"items": [], "next": null})) }))
        .route("/api/v1/rotations", get(move || async move { Json(list) }));
    let (client, _dir) = on_socket(router);
    let (exit, out, err) = run_on(&client, &["rotation", "show", ID], false).await;
    assert_eq!((exit, out.as_str()), (Exit::Failed, ""));
    let named = format!("error: GET /rotations/{ID}: the answer: missing field `newKeyTail`");
    assert!(err.starts_with(&named), "{err}");
    let (exit, _, err) = run_on(&client, &["rotation", "list"], false).await;
    assert_eq!(exit, Exit::Failed);
    assert!(err.starts_with("error: GET /rotations: items[1]: missing field `newKeyTail`"), "{err}");
    // With -o json the server's text is printed, unknown members included.
    for line in [&["rotation", "show", ID, "-o", "json"][..], &["rotation", "list", "-o", "json"]] {
        let (exit, out, _) = run_on(&client, line, false).await;
        assert!(exit == Exit::Done && out.contains("\"newer\":"), "{out}");
    }
}

#[test]
fn every_column_is_a_member_of_its_type() {
    fn members<T: utoipa::PartialSchema>() -> Vec<String> {
        let utoipa::openapi::RefOr::T(utoipa::openapi::Schema::Object(object)) = T::schema() else {
            panic!("not an object")
        };
        object.properties.into_keys().collect()
    }
    let own = |mut members: Vec<String>| {
        members.extend(["left".to_owned(), "planned".to_owned()]);
        members
    };
    for (columns, members) in [
        (&projects::COLUMNS[..], members::<crate::api::project::Project>()),
        (&projects::FIELDS, members::<crate::api::project::Project>()),
        (&projects::DUE, own(members::<crate::api::project::Project>())),
        (&projects::KEYS, members::<crate::api::project::Key>()),
        (&projects::ROTATIONS, members::<crate::api::rotation::Rotation>()),
        (&discover::COLUMNS, members::<crate::api::project::Found>()),
        (&rotations::COLUMNS, members::<crate::api::rotation::Rotation>()),
        (&rotations::JOURNAL, members::<crate::api::rotation::JournalEntry>()),
        (&rotations::CHECKS, members::<crate::domain::preflight::Check>()),
        (&records::AUDIT, members::<crate::api::record::AuditEntry>()),
        (&records::OUTBOX, members::<crate::api::record::Mail>()),
        (&records::MAIL, members::<crate::api::record::Mail>()),
        (&records::DUE, members::<crate::api::project::Project>()),
        (&records::OPEN, members::<crate::api::record::OpenRotationOf>()),
    ] {
        let foreign: Vec<_> = columns.iter().filter(|name| !members.iter().any(|it| it == *name)).collect();
        assert!(foreign.is_empty(), "{foreign:?} are not among {members:?}");
    }
}

#[tokio::test]
async fn a_yes_carries_the_hash_of_what_was_shown() {
    let seen = Arc::new(Mutex::new(Value::Null));
    let keep = seen.clone();
    let router = Router::new()
        .route("/api/v1/rotations/{id}", get(|| async { Json(rotation(ID, GROUP, "awaiting_approval")) }))
        .route(
            "/api/v1/rotations/{id}/approve",
            post(move |Json(body): Json<Value>| async move {
                *keep.lock().unwrap() = body;
                Json(rotation(ID, GROUP, "approved"))
            }),
        );
    let (client, _dir) = on_socket(router);
    let (exit, out, err) = run_on(&client, &["approve", ID, "--comment", "fine"], false).await;
    assert_eq!(exit, Exit::Done);
    assert_eq!(*seen.lock().unwrap(), json!({"comment": "fine", "proposalHash": "h"}));
    assert!(
        out.contains("\u{25cf} approved") && err.contains(&format!("approving for p ({GROUP}): o -> n")),
        "{out}{err}"
    );
}

#[tokio::test]
async fn a_dry_run_prints_the_checks_and_fails_with_them() {
    for (result, wanted) in [("pass", Exit::Done), ("fail", Exit::Refused)] {
        let router = Router::new().route(
            "/api/v1/projects/{id}/rotations",
            post(move |Json(body): Json<Value>| async move {
                assert_eq!(body, json!({"newKey": "n", "dryRun": true, "reason": "r"}));
                Json(json!({"dryRun": true, "oldKey": "o", "newKey": "n", "checks": [{"name": "format", "result": result, "detail": "d"}]}))
            }),
        );
        let (client, _dir) = on_socket(router);
        let line = ["rotate", GROUP, "--to", "n", "--dry-run", "--reason", "r"];
        let (exit, out, err) = run_on(&client, &line, false).await;
        assert_eq!(exit, wanted);
        assert!(
            out.contains("format") && out.contains(result) && err.contains("nothing was proposed"),
            "{out}"
        );
    }
}

/// A stream that drops after two entries and goes on after the one the client names.
fn stream(last: &'static str) -> Router {
    let state = Arc::new(Mutex::new("verifying"));
    let shown = state.clone();
    let entries = move |request: Request| {
        let state = state.clone();
        async move {
            let after = request.headers().get("last-event-id").map(|id| id.to_str().unwrap().to_owned());
            let entry = |seq: u32, from: &str, to: &str| {
                let entry = json!({"seq": seq, "at": "2026-01-02T03:04:05.000000Z", "actor": "keywheel", "kind": "step", "fromState": from, "toState": to, "detail": {"n": seq}, "count": 1, "lastAt": AT});
                format!("id: {seq}\ndata: {entry}\n\n")
            };
            match after.as_deref() {
                // An old stop of a rotation that was resumed: it must not end the watch.
                None => entry(1, "applying", "needs_operator") + &entry(2, "verifying", "verifying"),
                Some("2") => {
                    *state.lock().unwrap() = last;
                    entry(3, "verifying", last)
                }
                Some(other) => panic!("resumed after {other}"),
            }
        }
    };
    Router::new()
        .route("/api/v1/rotations/{id}/stream", get(entries))
        .route("/api/v1/rotations/{id}/journal", get(|| async { Json(json!({"items": [], "next": null})) }))
        .route(
            "/api/v1/rotations/{id}",
            get(move || async move { Json(rotation(ID, GROUP, *shown.lock().unwrap())) }),
        )
}

#[tokio::test]
async fn a_watch_survives_a_drop_repeats_nothing_and_ends_with_the_rotation() {
    for (last, wanted) in
        [("completed", Exit::Done), ("rolled_back", Exit::Failed), ("superseded", Exit::Refused)]
    {
        let (client, _dir) = on_socket(stream(last));
        let (exit, out, err) = run_on(&client, &["rotation", "watch", ID], false).await;
        assert_eq!(exit, wanted, "{out}{err}");
        assert_eq!(
            out,
            format!(
                "2026-01-02T03:04:05Z  applying -> needs_operator  step  keywheel  n=1\n2026-01-02T03:04:05Z  verifying  step  keywheel  n=2\n2026-01-02T03:04:05Z  verifying -> {last}  step  keywheel  n=3\n"
            )
        );
        assert_eq!(err, format!("rotation {ID} is {last}\n"));
    }
}

#[tokio::test]
async fn a_watch_prints_json_lines_or_rewrites_a_tree_on_a_terminal() {
    let (client, _dir) = on_socket(stream("completed"));
    let (_, out, _) = run_on(&client, &["rotation", "watch", ID, "-o", "json"], false).await;
    let seqs: Vec<Value> =
        out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].clone()).collect();
    assert_eq!(seqs, [1, 2, 3]);
    let (client, _dir) = on_socket(stream("completed"));
    let (_, out, _) = run_on(&client, &["rotation", "watch", ID], true).await;
    assert!(out.contains("\u{25cf} verifying") && out.contains("A\r\u{1b}[J"), "{out:?}");
    let last = out.rsplit("\u{1b}[J").next().unwrap();
    assert!(last.starts_with(&format!("p  {ID}\n")) && last.contains("\u{2713} completed"), "{out:?}");
}

#[tokio::test]
async fn a_rotation_that_is_not_there_is_not_watched() {
    let router = Router::new()
        .fallback(|| async { problem(404, &json!({"detail": "No such rotation.", "code": "not-found"})) });
    let (client, _dir) = on_socket(router);
    let (exit, _, err) = run_on(&client, &["rotation", "watch", ID], false).await;
    assert!(exit == Exit::NotFound && err.contains("No such rotation."), "{err}");
}
