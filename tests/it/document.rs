//! The document of the API: that the one in `docs/` is what the routes and types say, that it leaves no
//! route out, and that it names the roles and problems which the server enforces and answers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use keywheel::api::problem::Code;
use keywheel::domain::role::Role;
use serde_json::Value;

use crate::support::daemon::{Daemon, answer};
use crate::support::document::{checked_in, path, required};

/// No row has this id.
const NOBODY: &str = "0198c5a0-0000-7000-8000-000000000001";
/// No project has this id.
const UNTRACKED: &str = "ffffffffffffffffffffffff";

/// Method, path and operation of every operation.
fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let each = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().iter();
        methods.map(|(method, operation)| (method.to_uppercase(), path.clone(), operation))
    });
    each.collect()
}

/// With `KEYWHEEL_BLESS=1` this test writes the file that it compares otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_in_docs_is_what_the_routes_and_types_say() {
    let it = Daemon::start().await;
    let served = answer(it.request("GET", "/openapi.json", "")).await;
    assert_eq!((served.status, &served.headers["content-type"]), (200, &"application/json".parse().unwrap()));
    let text = format!("{:#}\n", served.json);
    if std::env::var_os("KEYWHEEL_BLESS").is_some() {
        fs::write(path(), &text).unwrap();
    }
    let kept = fs::read_to_string(path()).unwrap_or_default();
    let differs = kept.lines().zip(text.lines()).position(|(kept, now)| kept != now);
    assert!(
        kept == text,
        "docs/openapi.json is another document, from line {} on; KEYWHEEL_BLESS=1 writes it anew",
        differs.unwrap_or_default() + 1
    );
    assert_eq!(served.json["openapi"], "3.1.0");
}

/// Routes come into the document with their handlers; only a plain `route` goes past it.
#[test]
fn no_route_goes_past_the_document() {
    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { sources(&path, found) } else { found.push(path) }
        }
    }
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web"), &mut files);
    let (mut plain, mut described) = (Vec::new(), 0);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        plain
            .extend(text.split(".route(").skip(1).map(|rest| rest.lines().next().unwrap().trim().to_owned()));
        described += text.matches("#[utoipa::path(").count();
    }
    // Pages are for people.
    plain.sort();
    let paths: Vec<_> = plain.iter().filter_map(|route| route.split('"').nth(1)).collect();
    let pages = [
        "/",
        "/a/{link}",
        "/a/{link}/fresh",
        "/audit",
        "/calendar",
        "/calendar/feed",
        "/calendar/feed/{name}",
        "/due",
        "/due/propose",
        "/evidence",
        "/evidence",
        "/health",
        "/icon.svg",
        "/live.js",
        "/login",
        "/login/oidc/{name}",
        "/login/oidc/{name}/callback",
        "/logout",
        "/projects/{id}",
        "/projects/{id}/acknowledge",
        "/projects/{id}/propose",
        "/projects/{id}/propose",
        "/reviews",
        "/reviews/{id}",
        "/rotations/{id}",
        "/rotations/{id}/confirm",
        "/rotations/{id}/operator",
        "/rotations/{id}/stream",
        "/settings",
        "/stream",
        "/style.css",
        "/you",
    ];
    assert_eq!(paths, pages);
    let document = checked_in();
    // One attribute in a macro stands for all eight decisions.
    assert_eq!(operations(&document).len(), described + 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_lets_exactly_the_roles_in_that_the_document_names() {
    let it = Daemon::start().await;
    let tokens: Vec<_> =
        Role::ALL.iter().map(|role| (*role, it.token(role.as_str(), role.as_str()))).collect();
    let document = checked_in();
    let mut guarded = 0;
    for (method, path, operation) in operations(&document) {
        let filled = path.replace("{groupId}", UNTRACKED).replace("{id}", NOBODY).replace("{name}", "none");
        let without = answer(it.request(&method, &filled, "")).await;
        if !path.starts_with("/api/v1/") {
            assert_eq!(operation["security"], serde_json::json!([]), "{method} {path}");
            assert!(without.status != 401 && without.status != 403, "{method} {path}: {without:?}");
            continue;
        }
        guarded += 1;
        assert_eq!(without.problem(401), "unauthenticated", "{method} {path}");
        let needed = required(operation).unwrap_or_else(|| panic!("{method} {path}: no role"));
        let named: Vec<_> = needed.iter().map(|role| serde_json::json!({ "token": [role] })).collect();
        assert_eq!(operation["security"], serde_json::json!(named), "{method} {path}");
        let named = needed.iter().map(|role| role.as_str()).collect::<Vec<_>>().join("` or `");
        assert!(operation["description"].as_str().unwrap().contains(&format!("the role `{named}`")));
        for (role, token) in &tokens {
            let answered = answer(it.request(&method, &filled, token)).await;
            if needed.iter().any(|it| role.includes(*it)) {
                assert!(
                    answered.status != 401 && answered.status != 403,
                    "{role} {method} {path}: {answered:?}"
                );
            } else {
                assert_eq!(answered.problem(403), "forbidden", "{role} {method} {path}");
            }
        }
    }
    assert!(guarded > 20, "{guarded}");
}

#[test]
fn every_problem_code_is_documented_under_its_statuses() {
    let document = checked_in();
    let mut seen = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{method} {path}");
        for (status, response) in responses {
            assert!(!response["description"].as_str().unwrap().is_empty(), "{method} {path} {status}");
            let problem = &response["content"]["application/problem+json"]["schema"];
            let codes = problem["allOf"][1]["properties"]["code"]["enum"].as_array();
            for code in codes.into_iter().flatten() {
                let code: Code = code.as_str().unwrap().parse().unwrap();
                assert!(
                    code.statuses().contains(&status.parse().unwrap()),
                    "{method} {path} {status} {code}"
                );
                assert!(response["description"].as_str().unwrap().contains(code.meaning()));
                seen.insert(code);
            }
        }
        if path.starts_with("/api/v1/") {
            for status in ["401", "403", "429", "500", "503"] {
                assert!(responses.contains_key(status), "{method} {path}: no {status}");
            }
        }
    }
    let codes = &document["components"]["schemas"]["Code"]["enum"];
    assert_eq!(codes.as_array().unwrap().len(), Code::ALL.len());
    // A method that no operation has is no operation's problem.
    let missing: Vec<_> =
        Code::ALL.iter().filter(|code| **code != Code::MethodNotAllowed && !seen.contains(code)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
