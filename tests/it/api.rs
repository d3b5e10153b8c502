//! The HTTP API of the real binary, row by row: statuses, problem codes, fields, roles, paging and
//! streams.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, answer};
use crate::support::wait::LIMIT;
use crate::support::{group, new_key, old_key};
use keywheel::sim::fault::{Fault, Kind};
use keywheel::sim::world::{KeyState, demo_key};

const NOBODY: &str = "0198c5a0-0000-7000-8000-000000000001";
const UNTRACKED: &str = "ffffffffffffffffffffffff";

/// Every member of every object, by its path; values of maps with free names are left out.
fn members(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let path = format!("{path}.{name}");
                if !path.ends_with("detail.clusters") && !path.ends_with("byStatus") {
                    members(value, &path, found);
                }
                found.insert(path);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| members(item, path, found)),
        _ => {}
    }
}

#[track_caller]
fn has_exactly_these(value: &Value, contract: &str, beside: &str) {
    let names: BTreeSet<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    let wanted: BTreeSet<&str> = contract.split_whitespace().chain(beside.split_whitespace()).collect();
    assert_eq!(names, wanted);
    let mut all = BTreeSet::new();
    members(value, "", &mut all);
    let foreign: Vec<_> = all.iter().filter(|path| path.contains('_')).collect();
    assert!(foreign.is_empty(), "not camelCase: {foreign:?}");
}

const PROJECT: &str = "groupId name provider currentKey keySince keySinceSource valid due status owners environment \
                       credential kms alias policy policyOverride lastCheckedAt openRotation conditions rulesKept silence \
                       acknowledgedDue loosenings keyEndsAt";
const ROTATION: &str = "id groupId projectName provider oldKey newKey state cause trigger reason requestedBy \
                        proposalHash approvals lastObservation hold attempts createdAt approvedAt patchedAt validAt \
                        deployedAt finishedAt expiresAt guardDeadline deployed version";
const BESIDE: &str = "newKeyTail why readings checks clusters comments atlasErrorCode atlasDetail atlasEvent atlasEventId atlasEventAt \
                      atlasEventBy overwrote plannedFor";
const ENTRY: &str = "seq at actor kind fromState toState detail";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_yes_can_be_taken_back_until_a_patch_leaves() {
    let it = Daemon::start().await;
    let (ada, grace) = (it.token("ada", "operator"), it.token("grace", "approver"));
    it.call(&ada, "POST", "/projects", json!({ "groupId": group(1), "policy": { "approvals": 2 } })).await;
    let path = format!("/projects/{}/rotations", group(1));
    let made = it.call(&ada, "POST", &path, json!({ "newKey": new_key() })).await.json;
    let id = made["id"].as_str().unwrap();
    let (approve, withdraw) = (format!("/rotations/{id}/approve"), format!("/rotations/{id}/withdraw"));
    let early = it.call(&grace, "POST", &withdraw, Value::Null).await;
    assert_eq!(early.problem(409), "nothing-to-withdraw");
    assert_eq!(it.call(&ada, "POST", &withdraw, Value::Null).await.problem(403), "forbidden");
    let once = it.call(&grace, "POST", &approve, Value::Null).await.json;
    assert_eq!(once["approvals"]["given"].as_array().unwrap().len(), 1);
    let back = it.call(&grace, "POST", &withdraw, json!({ "comment": "wrong week" })).await;
    assert_eq!((back.status, &back.json["state"]), (200, &json!("awaiting_approval")));
    assert_eq!(back.json["approvals"]["given"], json!([]));
    let journal = it.get(&ada, &format!("/rotations/{id}/journal")).await.json;
    let told = |it: &Value| it["actor"] == "grace" && it["detail"]["comment"] == "wrong week";
    assert!(journal["items"].as_array().unwrap().iter().any(told), "{journal}");
    // The same person may think again; alone that is not enough.
    let again = it.call(&grace, "POST", &approve, Value::Null).await.json;
    assert_eq!(
        (&again["state"], again["approvals"]["given"].as_array().unwrap().len()),
        (&json!("awaiting_approval"), 1)
    );
    let edsger = it.token("edsger", "approver");
    it.call(&edsger, "POST", &approve, Value::Null).await;
    it.until(&ada, id, |it| it["state"] == "completed").await;
    let late = it.call(&grace, "POST", &withdraw, Value::Null).await;
    assert_eq!(late.problem(409), "illegal-transition");
    let audit = it.get(&ada, "/audit").await.json;
    let said = audit["items"].as_array().unwrap().iter().any(|it| it.to_string().contains("withdraw"));
    assert!(said, "{audit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_up_and_an_alias_are_checked_kept_and_cleared() {
    let it = Daemon::start().await;
    let (ada, root) = (it.token("ada", "operator"), it.token("root", "admin"));
    let path = format!("/projects/{}", group(1));
    let refused = async |path: &str, body: Value, field: &str| {
        let method = if path == "/projects" { "POST" } else { "PATCH" };
        let answer = it.call(&ada, method, path, body).await;
        assert_eq!((answer.problem(422), &answer.json["field"]), ("invalid", &json!(field)), "{answer:?}");
    };
    refused("/projects", json!({ "groupId": group(1), "kms": "nowhere" }), "kms").await;
    refused("/projects", json!({ "groupId": group(5), "kms": "azure", "alias": "alias/x" }), "alias").await;
    let body = json!({ "groupId": group(1), "kms": "aws", "alias": "alias/payments-prod" });
    let made = it.call(&ada, "POST", "/projects", body).await;
    assert_eq!(
        (made.status, &made.json["kms"], &made.json["alias"]),
        (201, &json!("aws"), &json!("alias/payments-prod"))
    );
    refused(&path, json!({ "kms": "azure" }), "kms").await;
    for alias in ["payments-prod", "alias/", "alias/aws/ebs", "alias/a b"] {
        refused(&path, json!({ "alias": alias }), "alias").await;
    }
    let other =
        it.call(&root, "PATCH", &path, json!({ "environment": "prod", "alias": "alias/b" })).await.json;
    assert_eq!((&other["kms"], &other["alias"]), (&json!("aws"), &json!("alias/b")));
    let cleared = it.call(&ada, "PATCH", &path, json!({ "kms": null, "alias": null })).await.json;
    assert_eq!(
        (&cleared["kms"], &cleared["alias"], &cleared["environment"]),
        (&Value::Null, &Value::Null, &json!("prod"))
    );
    let shown = it.get(&ada, &path).await.json;
    assert_eq!((&shown["kms"], &shown["alias"]), (&Value::Null, &Value::Null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "one rotation, read field by field")]
async fn two_people_rotate_a_key_and_every_field_has_its_name() {
    let it = Daemon::start().await;
    let ada = it.token("ada", "operator,approver");
    let grace = it.token("grace", "approver");
    let root = it.token("root", "admin");
    let group = group(1);
    let body = json!({
        "groupId": group, "owners": ["ada@example.com"], "environment": "prod", "credential": "default",
        "keySince": "2026-01-02T03:04:05Z", "policy": { "interval": "30d", "selfApproval": false, "remindBefore": ["2d"] },
    });
    let project = it.call(&ada, "POST", "/projects", body).await;
    assert_eq!(project.status, 201);
    has_exactly_these(&project.json, PROJECT, "lastError");
    assert_eq!(project.json["policy"]["remindBefore"], json!(["2d"]));
    assert_eq!(project.json["policy"]["approvalTtl"], "7d");
    assert_eq!(project.json["keySinceSource"], "operator");
    assert_eq!(project.json["due"], "2026-02-01T03:04:05.000000Z");
    let same = it.call(&ada, "POST", "/projects", json!({ "groupId": group })).await;
    assert_eq!(same.problem(409), "project-exists");

    let path = format!("/projects/{group}/rotations");
    let dry = it.call(&ada, "POST", &path, json!({ "newKey": new_key(), "dryRun": true })).await;
    assert_eq!((dry.status, &dry.json["dryRun"]), (200, &json!(true)));
    let proposal = json!({ "newKey": new_key(), "reason": "Q3" });
    let made = it.call(&ada, "POST", &path, proposal.clone()).await;
    assert_eq!((made.status, &made.json["state"]), (201, &json!("awaiting_approval")));
    has_exactly_these(&made.json, ROTATION, BESIDE);
    let id = made.json["id"].as_str().unwrap();
    let again = it.call(&ada, "POST", &path, proposal).await;
    assert_eq!((again.status, again.json["id"].as_str()), (200, Some(id)));
    let open = it.get(&ada, &format!("/projects/{group}")).await.json;
    assert_eq!(open["openRotation"], json!({ "id": id, "state": "awaiting_approval" }));
    assert_eq!(open["status"], "rotating");

    let approve = format!("/rotations/{id}/approve");
    assert_eq!(it.call(&ada, "POST", &approve, Value::Null).await.problem(403), "self-approval");
    let stale = it.call(&grace, "POST", &approve, json!({ "proposalHash": "00" })).await;
    assert_eq!(stale.problem(409), "proposal-changed");
    let yes = json!({ "comment": "looks right", "proposalHash": made.json["proposalHash"] });
    let voted = it.call(&grace, "POST", &approve, yes).await;
    assert_eq!((voted.status, &voted.json["state"]), (200, &json!("approved")));
    let quorum = &voted.json["approvals"];
    assert_eq!(quorum["required"], 1);
    let names: Vec<_> = quorum["given"][0].as_object().unwrap().keys().collect();
    assert_eq!(names, ["at", "by", "comment", "method"]);
    assert_eq!(
        (&quorum["given"][0]["by"], &quorum["given"][0]["comment"]),
        (&json!("grace"), &json!("looks right"))
    );

    let done = it.until(&ada, id, |it| it["finishedAt"].is_string()).await;
    assert_eq!((&done["state"], &done["deployed"]), (&json!("completed"), &json!("observed")));
    has_exactly_these(&done, ROTATION, BESIDE);
    let seen: Vec<_> = done["lastObservation"].as_object().unwrap().keys().collect();
    assert_eq!(seen, ["at", "enabled", "key", "valid"]);
    assert_eq!((&done["oldKey"], &done["newKey"]), (&json!(old_key()), &json!(new_key())));
    assert_eq!((&done["reason"], &done["requestedBy"]), (&json!("Q3"), &json!("ada")));
    assert_eq!((&done["trigger"], &done["attempts"]), (&json!("operator"), &json!(1)));
    let ended = it.call(&grace, "POST", &approve, Value::Null).await;
    assert_eq!(ended.problem(409), "illegal-transition");
    assert_eq!(ended.json["state"], "completed");

    let moved = it.get(&ada, &format!("/projects/{group}")).await.json;
    assert_eq!(moved["currentKey"], new_key());
    assert_eq!((&moved["keySinceSource"], &moved["keySince"]), (&json!("rotation"), &done["patchedAt"]));
    assert_eq!((&moved["openRotation"], &moved["status"]), (&Value::Null, &json!("ok")));
    let journal = it.get(&ada, &format!("/rotations/{id}/journal")).await.json;
    for entry in journal["items"].as_array().unwrap() {
        has_exactly_these(entry, ENTRY, "count lastAt");
    }
    for path in ["/status", "/audit", "/outbox", "/rotations", "/projects"] {
        let mut all = BTreeSet::new();
        members(&it.get(&ada, path).await.json, "", &mut all);
        let foreign: Vec<_> = all.iter().filter(|path| path.contains('_')).collect();
        assert!(foreign.is_empty(), "{path}: {foreign:?}");
    }

    // An admin may do everything but this; where the project's policy says so, even this.
    let back = it.propose(&root, &group, &old_key()).await;
    let approve = format!("/rotations/{back}/approve");
    assert_eq!(it.call(&root, "POST", &approve, Value::Null).await.problem(403), "self-approval");
    let cancelled = it.call(&root, "POST", &format!("/rotations/{back}/cancel"), Value::Null).await;
    assert_eq!(cancelled.json["state"], "cancelled");
    let policy = json!({ "policy": { "selfApproval": true } });
    assert_eq!(it.call(&root, "PATCH", &format!("/projects/{group}"), policy).await.status, 200);
    let alone = it.propose(&root, &group, &old_key()).await;
    let voted = it.call(&root, "POST", &format!("/rotations/{alone}/approve"), Value::Null).await;
    assert_eq!((voted.status, &voted.json["state"]), (200, &json!("approved")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_of_a_proposal_has_its_code() {
    let it = Daemon::start().await;
    let ada = it.token("ada", "operator");
    let versionless = "https://kw-demo.vault.azure.net/keys/identity-test";
    it.sim.with(|world| {
        world.keys.insert(versionless.to_owned(), KeyState::Enabled);
        let block = &mut world.projects.get_mut(&group(6)).unwrap().block;
        block.insert("keyIdentifier".to_owned(), json!(versionless));
    });
    for number in [1, 6, 8] {
        it.add(&ada, number).await;
    }
    let azure = |name: &str, version: u32| demo_key("AZURE", name, 0, version);
    let elsewhere = "arn:aws:kms:us-east-1:123456789012:key/00000001-aaaa-4aaa-8aaa-000000000002";
    for (number, key, status, code) in [
        (1, "garbage".to_owned(), 422, "key-invalid"),
        (1, old_key(), 422, "key-unchanged"),
        (1, elsewhere.to_owned(), 422, "key-other-place"),
        (6, azure("identity-test", 2), 409, "versionless"),
        (8, azure("mobile-prod", 2), 409, "preflight-failed"),
        (8, azure("mobile-prod", 2).replace("kw-demo", "other"), 422, "key-other-place"),
        (8, versionless.to_owned(), 422, "key-invalid"),
    ] {
        let path = format!("/projects/{}/rotations", group(number));
        let refused = it.call(&ada, "POST", &path, json!({ "newKey": key })).await;
        assert_eq!(refused.problem(status), code, "{key}");
        if matches!(code, "key-invalid" | "key-other-place") {
            assert!(refused.json["rule"].as_str().is_some_and(|rule| !rule.is_empty()), "{refused:?}");
        }
    }
    assert_eq!(it.get(&ada, &format!("/projects/{}", group(6))).await.json["status"], "unmanaged_version");
    let allowed = json!({ "policy": { "allowVersionless": true } });
    let root = it.token("root", "admin");
    assert_eq!(it.call(&root, "PATCH", &format!("/projects/{}", group(6)), allowed).await.status, 200);
    it.propose(&ada, &group(6), &azure("identity-test", 2)).await;

    let id = it.propose(&ada, &group(1), &new_key()).await;
    let project = format!("/projects/{}", group(1));
    let other = json!({ "newKey": demo_key("AWS", "", 1, 3) });
    let refused = it.call(&ada, "POST", &format!("{project}/rotations"), other).await;
    assert_eq!((refused.problem(409), &refused.json["rotationId"]), ("rotation-open", &json!(id)));
    let refused = it.call(&ada, "DELETE", &project, Value::Null).await;
    assert_eq!((refused.problem(409), &refused.json["rotationId"]), ("rotation-open", &json!(id)));
    for verb in ["resume", "rollback", "accept", "close"] {
        let refused = it.call(&ada, "POST", &format!("/rotations/{id}/{verb}"), Value::Null).await;
        assert_eq!(
            (refused.problem(409), &refused.json["state"]),
            ("illegal-transition", &json!("awaiting_approval"))
        );
    }
    assert_eq!(it.call(&ada, "POST", &format!("/rotations/{id}/cancel"), Value::Null).await.status, 200);
    assert_eq!(it.call(&ada, "DELETE", &project, Value::Null).await.status, 204);
    assert_eq!(it.get(&ada, &project).await.problem(404), "project-not-found");
    assert_eq!(it.get(&ada, &format!("/rotations/{id}")).await.json["state"], "cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_atlas_refuses_is_told_in_its_own_words() {
    let it = Daemon::start().await;
    let ada = it.token("ada", "operator");
    let gone = it.call(&ada, "POST", "/projects", json!({ "groupId": UNTRACKED })).await;
    assert_eq!(gone.problem(502), "atlas-not-found");
    assert_eq!(gone.json["atlasErrorCode"], "GROUP_NOT_FOUND");
    assert!(gone.json["atlasDetail"].as_str().unwrap().contains(UNTRACKED), "{gone:?}");
    let strike = |kind| {
        let (operation, group_id) = ("get_ear".to_owned(), None);
        it.sim.with(|world| world.faults = vec![Fault { operation, group_id, skip: 0, times: None, kind }]);
    };
    let status = |status, code: &str| Kind::Status { status, code: Some(code.to_owned()), retry_after: None };
    for (kind, code, atlas) in [
        (status(403, "USER_UNAUTHORIZED"), "atlas-auth", json!("USER_UNAUTHORIZED")),
        (status(429, "RATE_LIMITED"), "atlas-busy", json!("RATE_LIMITED")),
        (Kind::DropReply, "atlas-unreachable", Value::Null),
    ] {
        strike(kind);
        let refused = it.call(&ada, "POST", "/projects", json!({ "groupId": group(1) })).await;
        assert_eq!((refused.problem(502), &refused.json["atlasErrorCode"]), (code, &atlas));
        assert!(refused.json["atlasDetail"].as_str().is_some_and(|text| !text.is_empty()), "{refused:?}");
    }
    // Nothing was written: the project can still be added.
    it.sim.with(|world| world.faults.clear());
    it.add(&ada, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "a list of mistakes")]
async fn every_mistake_is_answered_with_a_problem_that_names_it() {
    let it = Daemon::start().await;
    let root = it.token("root", "admin");
    it.add(&root, 1).await;
    let project = format!("/projects/{}", group(1));
    let id = it.propose(&root, &group(1), &new_key()).await;
    let (rotation, comment) = (format!("/rotations/{id}"), format!("/rotations/{id}/reject"));
    let nobody = format!("/rotations/{NOBODY}");
    let untracked = format!("/projects/{UNTRACKED}");
    let window = json!({ "policy": { "windows": [{ "cron": "x", "duration": "1h" }] } });
    for (method, path, body, status, code, field) in [
        ("GET", "/nothing", Value::Null, 404, "not-found", ""),
        ("GET", "/projects/abc", Value::Null, 422, "group-id-invalid", ""),
        ("GET", &untracked, Value::Null, 404, "project-not-found", ""),
        ("GET", &nobody, Value::Null, 404, "rotation-not-found", ""),
        ("GET", &format!("{nobody}/journal"), Value::Null, 404, "rotation-not-found", ""),
        ("GET", &format!("{nobody}/stream"), Value::Null, 404, "rotation-not-found", ""),
        ("GET", "/rotations/abc", Value::Null, 404, "not-found", ""),
        ("POST", "/rotations/abc/approve", Value::Null, 404, "not-found", ""),
        ("POST", &format!("{rotation}/bless"), Value::Null, 404, "not-found", ""),
        ("GET", &format!("/outbox/{NOBODY}"), Value::Null, 404, "mail-not-found", ""),
        ("DELETE", &rotation, Value::Null, 405, "method-not-allowed", ""),
        ("PUT", &project, json!({}), 405, "method-not-allowed", ""),
        ("GET", "/projects?status=fine", Value::Null, 422, "invalid", "status"),
        ("GET", "/projects?provider=IBM", Value::Null, 422, "invalid", "provider"),
        ("GET", "/projects?state=ok", Value::Null, 400, "malformed", ""),
        ("GET", "/projects?limit=many", Value::Null, 400, "malformed", ""),
        ("GET", "/projects?cursor=!", Value::Null, 422, "invalid", "cursor"),
        ("GET", "/rotations?state=fine", Value::Null, 422, "invalid", "state"),
        ("GET", "/rotations?groupId=abc", Value::Null, 422, "group-id-invalid", ""),
        ("GET", "/rotations?group_id=abc", Value::Null, 400, "malformed", ""),
        ("GET", "/audit?cursor=!", Value::Null, 422, "invalid", "cursor"),
        ("GET", "/audit?after=3", Value::Null, 400, "malformed", ""),
        ("POST", "/projects", json!({}), 422, "invalid", ""),
        ("POST", "/projects", json!({ "groupId": "abc" }), 422, "group-id-invalid", ""),
        ("POST", "/projects", json!({ "groupId": UNTRACKED, "nick": 1 }), 422, "invalid", "nick"),
        (
            "POST",
            "/projects",
            json!({ "groupId": UNTRACKED, "owners": "ada@example.com" }),
            422,
            "invalid",
            "owners",
        ),
        ("POST", "/projects", json!({ "groupId": UNTRACKED, "owners": ["ada"] }), 422, "invalid", "owners"),
        (
            "POST",
            "/projects",
            json!({ "groupId": UNTRACKED, "credential": "none" }),
            422,
            "invalid",
            "credential",
        ),
        (
            "POST",
            "/projects",
            json!({ "groupId": UNTRACKED, "keySince": "2999-01-01" }),
            422,
            "invalid",
            "keySince",
        ),
        ("PATCH", &project, json!({ "keySince": "soon" }), 422, "invalid", "keySince"),
        ("PATCH", &project, json!({ "environment": "a\nb" }), 422, "invalid", "environment"),
        ("PATCH", &project, json!({ "environment": "é".repeat(65) }), 422, "invalid", "environment"),
        (
            "POST",
            "/projects",
            json!({ "groupId": UNTRACKED, "environment": "prod\t" }),
            422,
            "invalid",
            "environment",
        ),
        ("PATCH", &project, json!({ "name": " " }), 422, "invalid", "name"),
        ("PATCH", &project, json!({ "name": "a\u{0}b" }), 422, "invalid", "name"),
        ("PATCH", &project, json!({ "owners": ["a@b", "a@b"] }), 422, "invalid", "owners"),
        (
            "PATCH",
            &project,
            json!({ "policy": { "self_approval": true } }),
            422,
            "invalid",
            "policy.self_approval",
        ),
        ("PATCH", &project, json!({ "policy": { "interval": "0d" } }), 422, "invalid", "policy.interval"),
        ("PATCH", &project, json!({ "policy": { "approvals": 0 } }), 422, "invalid", "policy.approvals"),
        ("PATCH", &project, json!({ "policy": { "approvals": 11 } }), 422, "invalid", "policy.approvals"),
        // A due date must stay one that the database can write.
        (
            "PATCH",
            &project,
            json!({ "policy": { "interval": "999999w" } }),
            422,
            "invalid",
            "policy.interval",
        ),
        (
            "PATCH",
            &project,
            json!({ "policy": { "approvalTtl": "9999w" } }),
            422,
            "invalid",
            "policy.approvalTtl",
        ),
        (
            "PATCH",
            &project,
            json!({ "policy": { "interval": "9d", "remindBefore": ["10d"] } }),
            422,
            "invalid",
            "policy.remindBefore",
        ),
        ("PATCH", &project, window, 422, "invalid", "policy.windows"),
        ("POST", &format!("{project}/rotations"), json!({ "key": "x" }), 422, "invalid", "key"),
        (
            "POST",
            &format!("{untracked}/rotations"),
            json!({ "newKey": new_key() }),
            404,
            "project-not-found",
            "",
        ),
        ("POST", &format!("{project}/rotations"), json!({ "newKey": "x" }), 422, "key-invalid", ""),
        ("POST", &comment, json!({ "remark": "x" }), 422, "invalid", "remark"),
        ("POST", &comment, json!({ "comment": "a\u{0}b" }), 422, "invalid", "comment"),
        (
            "POST",
            &format!("{project}/rotations"),
            json!({ "newKey": new_key(), "reason": "x".repeat(2001) }),
            422,
            "invalid",
            "reason",
        ),
    ] {
        let answer = it.call(&root, method, path, body).await;
        assert_eq!(answer.problem(status), code, "{method} {path}");
        assert_eq!(answer.json["field"].as_str().unwrap_or_default(), field, "{method} {path} {answer:?}");
    }
    for (field, list) in [("projects?status", "due_soon"), ("rotations?state", "awaiting_approval")] {
        let answer = it.get(&root, &format!("/{field}=fine")).await;
        assert!(answer.json["detail"].as_str().unwrap().contains(list), "{answer:?}");
    }
    for path in ["/projects".to_owned(), comment] {
        let path = format!("/api/v1{path}");
        let post = || it.request("POST", &path, &root).header("content-type", "application/json");
        assert_eq!(answer(post().body("{\"")).await.problem(400), "malformed");
        assert_eq!(answer(post().body("x".repeat(300 * 1024))).await.problem(413), "too-large");
        // An array is no object, though its items would fit one by one.
        assert_eq!(answer(post().body(" [null, null]")).await.problem(422), "invalid");
    }
    let edit = json!({ "policy": [null, null] });
    assert_eq!(
        it.call(&root, "PATCH", &format!("/projects/{}", group(1)), edit).await.json["field"],
        "policy"
    );
    let text = it.request("POST", "/api/v1/projects", &root).body("{}");
    assert_eq!(answer(text).await.problem(415), "malformed");
    assert_eq!(answer(it.request("GET", "/nothing", "")).await.problem(404), "not-found");
    assert_eq!(it.get(&root, &rotation).await.json["state"], "awaiting_approval");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_role_may_do_what_the_contract_says_and_no_more() {
    const VIEWER: usize = 0;
    const OPERATOR: usize = 1;
    const APPROVER: usize = 2;
    const AUDITOR: usize = 3;
    const ADMIN: usize = 4;
    const EVERYONE: &[usize] = &[VIEWER, OPERATOR, APPROVER, AUDITOR, ADMIN];
    const RUNS: &[usize] = &[OPERATOR, ADMIN];
    const VOTES: &[usize] = &[APPROVER, ADMIN];
    let it = Daemon::start().await;
    let roles = ["viewer", "operator", "approver", "auditor", "admin"];
    let tokens = roles.map(|role| it.token(role, role));
    it.add(&tokens[ADMIN], 1).await;
    let project = format!("/projects/{}", group(1));
    let untracked = format!("/projects/{UNTRACKED}");
    let rotation = it.propose(&tokens[ADMIN], &group(1), &new_key()).await;
    let say = |verb: &str| format!("/rotations/{NOBODY}/{verb}");
    // What is allowed goes on and finds nothing to work on, so that every row can be tried by all.
    for (method, path, body, may, allowed) in [
        ("GET", "/projects".to_owned(), Value::Null, EVERYONE, 200),
        ("GET", project.clone(), Value::Null, EVERYONE, 200),
        ("GET", format!("{project}/why"), Value::Null, EVERYONE, 200),
        ("GET", "/rotations".to_owned(), Value::Null, EVERYONE, 200),
        ("GET", format!("/rotations/{rotation}"), Value::Null, EVERYONE, 200),
        ("GET", format!("/rotations/{rotation}/journal"), Value::Null, EVERYONE, 200),
        ("GET", format!("/projects/{}/keys", group(1)), Value::Null, EVERYONE, 200),
        ("GET", "/audit".to_owned(), Value::Null, EVERYONE, 200),
        ("GET", "/status".to_owned(), Value::Null, EVERYONE, 200),
        ("GET", "/outbox".to_owned(), Value::Null, EVERYONE, 200),
        ("GET", "/hooks".to_owned(), Value::Null, EVERYONE, 200),
        ("GET", "/discover".to_owned(), Value::Null, RUNS, 200),
        ("POST", "/projects".to_owned(), json!({ "groupId": UNTRACKED }), RUNS, 502),
        ("PATCH", untracked.clone(), json!({ "name": "x" }), RUNS, 404),
        ("DELETE", untracked.clone(), Value::Null, RUNS, 404),
        ("POST", format!("{untracked}/rotations"), json!({ "newKey": new_key() }), RUNS, 404),
        ("POST", say("approve"), Value::Null, VOTES, 404),
        ("POST", say("withdraw"), Value::Null, VOTES, 404),
        ("POST", say("reject"), Value::Null, VOTES, 404),
        ("POST", say("comment"), json!({ "comment": "c" }), &[OPERATOR, APPROVER, ADMIN], 404),
        ("POST", say("cancel"), Value::Null, RUNS, 404),
        ("POST", say("resume"), Value::Null, RUNS, 404),
        ("POST", say("rollback"), Value::Null, RUNS, 404),
        ("POST", say("accept"), Value::Null, RUNS, 404),
        ("POST", say("close"), Value::Null, RUNS, 404),
    ] {
        let without = it.call("", method, &path, body.clone()).await;
        assert_eq!(without.problem(401), "unauthenticated", "{method} {path}");
        assert_eq!(without.headers["www-authenticate"], "Bearer");
        for (index, token) in tokens.iter().enumerate() {
            let answer = it.call(token, method, &path, body.clone()).await;
            if may.contains(&index) {
                assert_eq!(answer.status, allowed, "{} {method} {path}: {answer:?}", roles[index]);
            } else {
                assert_eq!(answer.problem(403), "forbidden", "{} {method} {path}", roles[index]);
            }
        }
    }
    let both = it.token("both", "viewer,approver");
    assert_eq!(it.call(&both, "POST", &say("approve"), Value::Null).await.status, 404);
    assert_eq!(it.cli(&["token", "revoke", "both"]).code, Some(0));
    assert_eq!(it.get(&both, "/status").await.problem(401), "unauthenticated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessed_tokens_are_slowed_down_and_good_ones_are_not() {
    let it = Daemon::start().await;
    let good = it.token("good", "viewer");
    let mut slowed = 0;
    for guess in 0..60 {
        let answer = it.get(&format!("kw_{guess}"), "/status").await;
        if answer.status == 429 {
            assert_eq!(answer.problem(429), "too-many-failures");
            assert_eq!(answer.headers["retry-after"], "1");
            slowed += 1;
        } else {
            assert_eq!(answer.problem(401), "unauthenticated");
        }
    }
    assert!(slowed > 0);
    assert_eq!(it.get(&good, "/status").await.status, 200);
    // No password of a URL and no other scheme is a token.
    let basic = it.request("GET", "/api/v1/status", "").basic_auth("good", Some(&good));
    assert_eq!(answer(basic).await.problem(401), "unauthenticated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_local_socket_knows_its_user_and_probes_need_nobody() {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let it = Daemon::start().await;
    let socket = it.folder.path().join("data/keywheel.sock");
    let file = std::fs::metadata(&socket).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    let folder = std::fs::metadata(it.folder.path().join("data")).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);
    let local = reqwest::Client::builder().no_proxy().unix_socket(socket).build().unwrap();
    let post = |path: String, body: Value| local.post(format!("http://localhost/api/v1{path}")).json(&body);
    let added = answer(post("/projects".to_owned(), json!({ "groupId": group(1) }))).await;
    assert_eq!(added.status, 201, "{added:?}");
    let path = format!("/projects/{}/rotations", group(1));
    let made = answer(post(path, json!({ "newKey": new_key() }))).await;
    let user = made.json["requestedBy"].as_str().unwrap();
    assert!(user.starts_with("local:") && user.len() > 6, "{user}");
    // Who makes a token beside the daemon is named in the same way.
    it.token("grace", "viewer");
    let audit = answer(local.get("http://localhost/api/v1/audit?limit=1")).await.json;
    assert_eq!(
        (&audit["items"][0]["action"], &audit["items"][0]["actor"]),
        (&json!("token.created"), &json!(user))
    );
    let id = made.json["id"].as_str().unwrap();
    let own = answer(post(format!("/rotations/{id}/approve"), json!({}))).await;
    assert_eq!(own.problem(403), "self-approval");

    assert_eq!(answer(it.request("GET", "/healthz", "")).await.status, 200);
    let ready = tokio::time::timeout(LIMIT, async {
        loop {
            let ready = answer(it.request("GET", "/readyz", "")).await;
            if ready.status == 200 {
                return;
            }
            assert_eq!(ready.problem(503), "sweep");
        }
    });
    ready.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_come_in_pages_that_neither_repeat_nor_skip() {
    let it = Daemon::start().await;
    let root = it.token("root", "admin");
    for number in [1, 2, 3, 5, 9] {
        it.add(&root, number).await;
    }
    for number in [1, 2, 3] {
        let name = ["payments-prod", "payments-staging", "ledger-prod"][usize::try_from(number - 1).unwrap()];
        let key = demo_key("AWS", name, u32::try_from(number).unwrap(), 2);
        it.propose(&root, &group(number), &key).await;
    }
    let pages = async |path: &str, name: &str| {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = it.get(&root, &format!("{path}{cursor}")).await.json;
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 2);
            all.extend(items.iter().map(|item| item[name].clone()));
            let Some(next) = page["next"].as_str() else { return all };
            cursor = format!("&cursor={next}");
        }
    };
    for (path, name, count) in [
        ("/projects?limit=2", "groupId", 5),
        ("/projects?limit=2&provider=AWS", "groupId", 3),
        ("/projects?limit=2&status=rotating", "groupId", 3),
        ("/projects?limit=2&owner=ada@example.com", "groupId", 5),
        ("/projects?limit=2&owner=nobody@example.com", "groupId", 0),
        ("/rotations?limit=2", "id", 3),
        ("/rotations?limit=2&state=awaiting_approval", "id", 3),
        ("/rotations?limit=2&state=completed", "id", 0),
        (&format!("/rotations?limit=2&groupId={}", group(2)), "id", 1),
        ("/outbox?limit=2", "id", 3),
        // One row records the settings that decide.
        ("/audit?limit=2", "seq", 11),
    ] {
        let all = pages(path, name).await;
        let different: BTreeSet<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!((all.len(), different.len()), (count, count), "{path}: {all:?}");
    }
    let audit = pages("/audit?limit=2", "seq").await;
    assert_eq!(audit.first(), Some(&json!(11)), "the newest first");
}

/// The ids of the events of a stream that ends.
async fn events(request: reqwest::RequestBuilder) -> Vec<(u64, Value)> {
    let reply = request.send().await.unwrap();
    assert_eq!(reply.headers()["content-type"], "text/event-stream");
    let text = tokio::time::timeout(LIMIT, reply.text()).await.unwrap().unwrap();
    let field = |event: &str, name: &str| {
        event.lines().find_map(|line| line.strip_prefix(name).map(|rest| rest.trim().to_owned()))
    };
    text.split("\n\n")
        .filter_map(|event| {
            let data = serde_json::from_str(&field(event, "data:")?).unwrap();
            Some((field(event, "id:")?.parse().unwrap(), data))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_follows_a_rotation_and_is_resumed_where_it_broke() {
    let it = Daemon::start().await;
    let (ada, grace) = (it.token("ada", "operator"), it.token("grace", "approver"));
    it.add(&ada, 1).await;
    let id = it.propose(&ada, &group(1), &new_key()).await;
    let stream = || it.request("GET", &format!("/api/v1/rotations/{id}/stream"), &ada);
    let live = crate::support::wait::spawn(events(stream()));
    let said = it.call(&grace, "POST", &format!("/rotations/{id}/approve"), Value::Null).await;
    assert_eq!(said.status, 200);
    let live = live.await.unwrap();
    let seqs: Vec<u64> = live.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    assert_eq!(live.last().unwrap().1["toState"], "completed");
    let rest = events(stream().header("last-event-id", "3")).await;
    assert_eq!(rest.first().unwrap().0, 4);
    let journal = it.get(&ada, &format!("/rotations/{id}/journal")).await.json;
    let last = journal["items"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(rest.last().unwrap().1, last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_say_with_a_decision_is_kept() {
    let it = Daemon::start().await;
    let (ada, grace) = (it.token("ada", "operator"), it.token("grace", "approver"));
    // The new key passes the check of the PATCH and fails on the nodes, and the key service cannot
    // be reached: a person has to decide.
    let stuck = async |number: u64, key: &str| {
        it.sim.with(|world| {
            world.keys.insert(key.to_owned(), KeyState::FailsOnNodes);
            let project = world.projects.get_mut(&group(number)).unwrap();
            project.change_while_invalid = true;
            project.open_alerts.insert("ENCRYPTION_AT_REST_KMS_NETWORK_ACCESS_DENIED".to_owned());
        });
        it.add(&ada, number).await;
        let id = it.propose(&ada, &group(number), key).await;
        it.call(&grace, "POST", &format!("/rotations/{id}/approve"), Value::Null).await;
        let seen = it.until(&ada, &id, |it| it["state"] == "needs_operator").await;
        assert_eq!(seen["cause"], "kms_unreachable");
        id
    };
    let kept = async |token: &str, id: &str, verb: &str| {
        let comment = format!("because of {verb}");
        let body = json!({ "comment": comment });
        let said = it.call(token, "POST", &format!("/rotations/{id}/{verb}"), body).await;
        assert_eq!(said.status, 200, "{verb}: {said:?}");
        let journal = it.get(&ada, &format!("/rotations/{id}/journal?limit=500")).await.json;
        let named = |entry: &&Value| entry["detail"]["comment"] == comment;
        let entry = journal["items"].as_array().unwrap().iter().find(named).unwrap();
        assert_eq!(entry["kind"], "command");
        let audit = it.get(&ada, "/audit?limit=500").await.json;
        let row = audit["items"].as_array().unwrap().iter().find(named).unwrap();
        assert_eq!((&row["actor"], &row["subject"]), (&entry["actor"], &json!(format!("rotation/{id}"))));
    };
    for (number, name) in [(2, "payments-staging"), (3, "ledger-prod")] {
        it.add(&ada, number).await;
        let key = demo_key("AWS", name, u32::try_from(number).unwrap(), 2);
        let id = it.propose(&ada, &group(number), &key).await;
        if number == 2 {
            kept(&grace, &id, "reject").await;
            let again = it.propose(&ada, &group(number), &key).await;
            kept(&grace, &again, "approve").await;
        } else {
            kept(&ada, &id, "cancel").await;
        }
    }
    let key = |number: u64| format!("{number:08x}-bbbb-4bbb-8bbb-000000000002");
    let id = stuck(1, &key(1)).await;
    kept(&ada, &id, "resume").await;
    let id = stuck(9, &demo_key("GCP", "analytics-prod", 9, 9)).await;
    kept(&ada, &id, "rollback").await;
    let id = stuck(4, &key(4)).await;
    it.sim.with(|world| world.keys.insert(key(4), KeyState::Enabled));
    it.until(&ada, &id, |it| it["lastObservation"]["valid"] == true).await;
    kept(&ada, &id, "accept").await;
    let id = stuck(5, &demo_key("AZURE", "identity-prod", 5, 9)).await;
    kept(&ada, &id, "close").await;
    assert_eq!(it.cli(&["audit", "verify"]).code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scraper_learns_how_much_and_not_what() {
    let it = Daemon::start().await;
    let ada = it.token("ada", "operator,approver");
    let grace = it.token("grace", "approver");
    let group = it.add(&ada, 1).await;
    let id = it.propose(&ada, &group, &new_key()).await;
    it.call(&grace, "POST", &format!("/rotations/{id}/approve"), Value::Null).await;
    it.until(&ada, &id, |it| it["state"] == "completed").await;
    let scraped = answer(it.request("GET", "/metrics", "")).await;
    assert_eq!(scraped.status, 200);
    assert!(scraped.headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let text = scraped.json.as_str().unwrap();
    for line in [
        "keywheel_rotations{state=\"completed\"} 1",
        "keywheel_rotations{state=\"needs_operator\"} 0",
        "keywheel_projects{status=\"ok\"} 1",
        "keywheel_projects_without_owner 0",
        "keywheel_projects_silenced 0",
        "keywheel_sending 1",
        "keywheel_atlas_requests_total{operation=\"set_key\",class=\"ok\"} 1",
        "keywheel_lease_losses_total 0",
        "keywheel_outbox_messages{state=\"waiting\"} 2",
        "keywheel_build_info{version=",
        "keywheel_next_due_seconds 77",
        "keywheel_sweep_lag_seconds ",
        "keywheel_atlas_request_seconds_bucket{le=\"0.05\",operation=\"set_key\"} ",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    for name in [&group[..], "payments", "example.com", &new_key()[..]] {
        assert!(!text.contains(name), "{name}");
    }
    let keys = it.get(&ada, &format!("/projects/{group}/keys")).await.json;
    let keys: Vec<_> =
        keys["items"].as_array().unwrap().iter().map(|it| it["key"].as_str().unwrap()).collect();
    assert_eq!(keys, [old_key(), new_key()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_links_in_webhooks_lead_to_the_pages_and_tell_strangers_nothing() {
    let it = Daemon::start().await;
    let read = async |path: &str| {
        let response = it.request("GET", path, "").send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let project = format!("/projects/{}", group(1));
    for path in ["/rotations/0198c5a0-0000-7000-8000-000000000001", &project] {
        let (status, text) = read(path).await;
        let back = format!("name=\"to\" value=\"{path}\"");
        assert!(status == 200 && text.contains("Sign in") && text.contains(&back), "{status} {text}");
    }
    let (status, text) = read("/projects/%3Cscript%3E").await;
    assert!(status == 200 && !text.contains("<script"), "{status} {text}");
}
