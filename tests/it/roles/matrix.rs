//! Role by verb by field, for every operation of the document, against the running binary.

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::document;
use crate::support::{group, new_key};
use keywheel::domain::role::Role;

const NOBODY: &str = "0198c5a0-0000-7000-8000-000000000001";

/// An address of this operation that names nothing.
fn address(template: &str) -> String {
    let parts = template.split('/').map(|part| match part {
        "{groupId}" => "ffffffffffffffffffffffff",
        "{kind}" => "invalid",
        part if part.starts_with('{') => NOBODY,
        part => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_takes_its_role_and_no_less() {
    let it = Daemon::start().await;
    let tokens: Vec<(Role, String)> =
        Role::ALL.iter().map(|role| (*role, it.token(role.as_str(), role.as_str()))).collect();
    let document = document::checked_in();
    let mut seen = 0;
    for (template, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let Some(needed) = document::required(operation) else { continue };
            let path = address(template);
            let path = path.strip_prefix("/api/v1").unwrap_or(&path).to_owned();
            if path.ends_with("/stream") {
                continue;
            }
            seen += 1;
            for (role, token) in &tokens {
                let body = if method == "get" || method == "delete" { Value::Null } else { json!({}) };
                let answer = it.call(token, &method.to_uppercase(), &path, body).await;
                let admitted = answer.status != 403;
                let includes = needed.iter().any(|it| role.includes(*it));
                assert_eq!(admitted, includes, "{role}: {method} {path}: {answer:?}");
                if !admitted {
                    assert_eq!(answer.problem(403), "forbidden");
                    let detail = answer.json["detail"].as_str().unwrap();
                    assert!(needed.iter().all(|it| detail.contains(it.as_str())), "{answer:?}");
                }
            }
        }
    }
    assert!(seen > 20, "{seen} operations");
}

/// A value of the field that loosens, and where there is one, a value that tightens.
fn values(field: &str) -> (Value, Option<Value>) {
    let window = |day: &str| json!({ "cron": format!("0 0 1 * * {day}"), "duration": "4h" });
    match field {
        "policy.interval" => (json!("91d"), Some(json!("60d"))),
        "policy.approvals" => (json!(9), Some(json!(2))),
        "policy.selfApproval" | "policy.allowVersionless" => (json!(true), None),
        "policy.approvalTtl" | "policy.executionTtl" => (json!("8d"), Some(json!("6d"))),
        "policy.autoApprove" => (json!(["poll"]), None),
        "policy.windows" => (json!([window("Sat"), window("Sun")]), Some(json!([window("Sat")]))),
        // Without a freeze nothing can be taken away.
        "policy.freezes" => {
            (Value::Null, Some(json!([{ "name": "Winter", "from": "2026-12-14", "to": "2027-01-04" }])))
        }
        "policy.escalate" => (Value::Null, Some(json!([{ "after": "3d", "to": ["boss@example.com"] }]))),
        "policy.approvers" => (json!(["owners"]), None),
        "policy.approvalMethod" => (json!("link"), None),
        "policy.emergency" => (json!({ "by": ["owners"] }), Some(json!({ "approvals": 2, "by": [] }))),
        "credential" => (json!("other"), None),
        "kms" => (json!("aws"), None),
        "alias" => (json!("alias/payments-prod"), None),
        "environment" => (json!("prod"), None),
        other => panic!("{other} has no values here"),
    }
}

fn body(field: &str, value: &Value) -> Value {
    match field.strip_prefix("policy.") {
        Some(rule) => json!({ "policy": { rule: value } }),
        None => json!({ field: value }),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_that_decides_takes_an_admin_unless_it_is_tighter() {
    let it = Daemon::start().await;
    let (ada, grace, root) =
        (it.token("ada", "operator"), it.token("grace", "approver"), it.token("root", "admin"));
    it.add(&ada, 1).await;
    let path = format!("/projects/{}", group(1));
    // Each field is changed from what it is without a value; the environment came from Atlas' tag.
    assert_eq!(it.call(&root, "PATCH", &path, json!({ "environment": "" })).await.status, 200);
    let document = document::checked_in();
    let edit = &document["paths"]["/api/v1/projects/{groupId}"]["patch"];
    let fields: Vec<String> = edit["x-field-roles"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields, {
        let mut all: Vec<String> = keywheel::domain::loosening::fields().collect();
        all.sort();
        all
    });
    for field in &fields {
        let (looser, tighter) = values(field);
        let free = matches!(field.as_str(), "credential" | "kms" | "alias");
        if free {
            // They decide where autoApprove is on.
            let on = json!({ "policy": { "autoApprove": ["poll"] } });
            assert_eq!(it.call(&root, "PATCH", &path, on).await.status, 200);
        }
        if field == "alias" {
            assert_eq!(it.call(&root, "PATCH", &path, json!({ "kms": "aws" })).await.status, 200);
        }
        let refused = it.call(&grace, "PATCH", &path, body(field, &looser)).await;
        assert_eq!(refused.problem(403), "forbidden", "{field}");
        if field != "credential" && !looser.is_null() {
            let refused = it.call(&ada, "PATCH", &path, body(field, &looser)).await;
            assert_eq!((refused.problem(403), &refused.json["field"]), ("forbidden", &json!(field)));
            assert_eq!(refused.json["role"], "admin", "{refused:?}");
            assert!(refused.json["rule"].as_str().is_some_and(|rule| !rule.is_empty()), "{refused:?}");
            let done = it.call(&root, "PATCH", &path, body(field, &looser)).await;
            assert_eq!(done.status, 200, "{field}: {done:?}");
            let back = if field.starts_with("policy.") { Value::Null } else { json!("") };
            let done = it.call(&root, "PATCH", &path, body(field, &back)).await;
            assert_eq!(done.status, 200, "{field}: {done:?}");
        }
        if let Some(tighter) = tighter {
            let done = it.call(&ada, "PATCH", &path, body(field, &tighter)).await;
            assert_eq!(done.status, 200, "{field}: {done:?}");
            let undone = it.call(&ada, "PATCH", &path, body(field, &Value::Null)).await;
            assert_eq!(undone.status, 200, "{field}: its author undoes it: {undone:?}");
        }
        let off = json!({ "policy": { "autoApprove": null }, "kms": null, "alias": null });
        assert_eq!(it.call(&root, "PATCH", &path, off).await.status, 200);
    }
    for free in [json!({ "name": "pay" }), json!({ "owners": ["new@example.com"] }), json!({ "kms": "aws" })]
    {
        assert_eq!(it.call(&ada, "PATCH", &path, free.clone()).await.status, 200, "{free}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_project_takes_an_admin_for_looser_rules() {
    let it = Daemon::start().await;
    let (ada, root) = (it.token("ada", "operator"), it.token("root", "admin"));
    let rules = keywheel::domain::loosening::fields().filter(|field| field.starts_with("policy."));
    let looser = rules.map(|field| (values(&field).0, field)).filter(|(looser, _)| !looser.is_null());
    for (number, (looser, field)) in (1..).zip(looser) {
        let mut new = body(&field, &looser);
        new["groupId"] = json!(group(number));
        let refused = it.call(&ada, "POST", "/projects", new.clone()).await;
        assert_eq!((refused.problem(403), &refused.json["field"]), ("forbidden", &json!(field)));
        let mut dry = new.clone();
        dry["dryRun"] = json!(true);
        assert_eq!(it.call(&ada, "POST", "/projects", dry).await.problem(403), "forbidden");
        assert_eq!(it.call(&root, "POST", "/projects", new).await.status, 201, "{field}");
    }
    // A file of projects is one call for each row.
    let file = it.folder.path().join("fleet.csv");
    let row = format!("groupId,policy\n{},\"{{\"\"selfApproval\"\": true}}\"\n", group(12));
    std::fs::write(file, row).unwrap();
    let refused = it.cli_as("ada", &["project", "import", "fleet.csv"]);
    assert!(refused.code == Some(1) && refused.out.contains("policy.selfApproval"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_first_day_what_loosens_waits_and_is_shown() {
    let it = Daemon::start_with("policy.settle_in = \"1ms\"\nmail.smtp_url = \"smtp://127.0.0.1:9\"\n").await;
    let (ada, root) = (it.token("ada", "operator"), it.token("root", "admin"));
    it.add(&ada, 1).await;
    let path = format!("/projects/{}", group(1));
    let edited = it.call(&root, "PATCH", &path, json!({ "policy": { "selfApproval": true } })).await;
    assert_eq!((edited.status, &edited.json["policy"]["selfApproval"]), (200, &json!(false)));
    let id = edited.json["loosenings"][0]["id"].as_str().unwrap();
    assert_eq!(edited.json["loosenings"][0]["toTell"], json!(["ada@example.com"]));
    let shown = it.cli(&["project", "show", &group(1)]);
    assert!(shown.out.contains(id) && shown.out.contains("not announced yet"), "{shown:?}");
    let listed = it.cli(&["loosening", "list"]);
    assert!(listed.out.contains("policy.selfApproval false -> true"), "{listed:?}");
    // The new admin is the same person as who made it, and its votes do not count yet.
    let rotation = it.propose(&root, &group(1), &new_key()).await;
    let approve = format!("/rotations/{rotation}/approve");
    assert_eq!(it.call(&root, "POST", &approve, Value::Null).await.problem(403), "self-approval");
    let local = it.cli(&["approve", &rotation]);
    assert!(local.err.contains("self-approval"), "{local:?}");
    let grace = it.token("grace", "approver");
    let young = it.call(&grace, "POST", &approve, Value::Null).await;
    assert_eq!(young.problem(403), "vote-not-counted");
    assert!(young.json["countsFrom"].is_string(), "{young:?}");
    let withdrawn = it.cli(&["loosening", "withdraw", id]);
    assert_eq!(withdrawn.code, Some(0), "{withdrawn:?}");
    let none = it.get(&ada, "/loosenings").await.json;
    assert_eq!(none["items"], json!([]));
    let again = it.call(&ada, "POST", &format!("/loosenings/{id}/withdraw"), Value::Null).await;
    assert_eq!(again.problem(409), "loosening-ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_the_socket_has_the_role_that_is_configured() {
    let it = Daemon::start_with("server.socket_role = \"viewer\"\n").await;
    let ada = it.token("ada", "operator");
    it.add(&ada, 1).await;
    assert_eq!(it.cli(&["project", "list"]).code, Some(0));
    let refused = it.cli(&["project", "remove", &group(1)]);
    assert!(refused.code == Some(3) && refused.err.contains("operator"), "{refused:?}");
    let edited = it.cli(&["token", "edit", "ada", "--role", "viewer", "--person", "ada@example.com"]);
    assert_eq!(edited.code, Some(0), "{edited:?}");
    let refused = it.call(&ada, "DELETE", &format!("/projects/{}", group(1)), Value::Null).await;
    assert_eq!(refused.problem(403), "forbidden");
}
