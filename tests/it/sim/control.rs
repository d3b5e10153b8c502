//! The control side: what it takes, what it refuses, what it keeps.

use serde_json::{Value, json};

use super::Site;
use crate::support::{group, new_key, old_key};

async fn error(site: &Site, line: &str, body: &str) -> (u16, String) {
    let reply = site.ask(line, &[], body).await.unwrap();
    (reply.status, reply.json()["error"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn an_unknown_field_is_refused_and_named() {
    let site = Site::new().await;
    let project = format!("/sim/v1/projects/{}", group(1));
    for (line, body) in [
        ("PUT /sim/v1/world".to_owned(), r#"{"colour":1}"#),
        ("POST /sim/v1/world".to_owned(), r#"{"colour":1}"#),
        ("POST /sim/v1/world".to_owned(), r#"{"odd":{"colour":true}}"#),
        (format!("PUT {project}"), r#"{"colour":1}"#),
        (format!("POST {project}"), r#"{"colour":1}"#),
        (format!("POST {project}"), r#"{"clusters":[{"name":"c","colour":1}]}"#),
        (format!("POST {project}/human-edit"), r#"{"key":"k","colour":1}"#),
        ("POST /sim/v1/keys".to_owned(), r#"{"id":"k","state":"enabled","colour":1}"#),
        ("POST /sim/v1/faults".to_owned(), r#"{"operation":"any","kind":"drop_reply","colour":1}"#),
    ] {
        let (status, text) = error(&site, &line, body).await;
        assert!(status == 400 && text.contains("colour"), "{line} {body}: {status} {text}");
    }
    for (line, body, word) in [
        ("POST /sim/v1/world", r#"{"tokenLife":"long"}"#, "long"),
        ("POST /sim/v1/keys", r#"{"id":"k","state":"tired"}"#, "tired"),
        ("POST /sim/v1/keys", r#"{"id":"k"}"#, "state"),
        ("POST /sim/v1/world", "nonsense", "expected"),
    ] {
        let (status, text) = error(&site, line, body).await;
        assert!(status == 400 && text.contains(word), "{line} {body}: {status} {text}");
    }
    assert_eq!(site.encryption(1).await["awsKms"]["customerMasterKeyID"], old_key());
}

#[tokio::test]
async fn a_project_that_is_not_there_cannot_be_changed() {
    let site = Site::new().await;
    for (line, body) in
        [("POST /sim/v1/projects/none", "{}"), ("POST /sim/v1/projects/none/human-edit", r#"{"key":"k"}"#)]
    {
        let (status, text) = error(&site, line, body).await;
        assert!(status == 404 && text.contains("none"), "{line}: {status} {text}");
    }
    site.control(&format!("POST /sim/v1/projects/{}", group(1)), r#"{"provider":"","block":{}}"#).await;
    let line = format!("POST /sim/v1/projects/{}/human-edit", group(1));
    assert_eq!(error(&site, &line, r#"{"key":"k"}"#).await.0, 404);
}

#[tokio::test]
async fn settings_change_one_thing_and_keep_the_rest() {
    let site = Site::new().await;
    let bearer = format!("Authorization: Bearer {}", site.token().await);
    let body = format!(r#"{{"awsKms":{{"customerMasterKeyID":"{}"}}}}"#, new_key());
    site.patch(1, &body).await;
    let project = format!("POST /sim/v1/projects/{}", group(1));
    site.control(&project, r#"{"updateAfterMs":0,"updateTakesMs":60000}"#).await;
    site.control("POST /sim/v1/world", r#"{"tokenLife":5}"#).await;
    assert_eq!(site.encryption(1).await["awsKms"]["customerMasterKeyID"], new_key());
    let clusters = site.of_group("/clusters").await.json();
    assert_eq!(clusters["results"][0]["stateName"], "UPDATING");
    let line = format!("GET /api/atlas/v2/groups/{}", group(1));
    let reply = site.ask(&line, &[&bearer, "Accept: application/vnd.atlas.2023-01-01+json"], "").await;
    assert_eq!(reply.unwrap().status, 200, "the old token is gone");
    let reply = site.ask_token(super::BASIC, "grant_type=client_credentials").await;
    assert_eq!(reply.json()["expires_in"], 5);
    assert!(site.sim.log().iter().any(|it| it.operation == "patch_ear"));
}

#[tokio::test]
async fn a_world_is_replaced_and_shown() {
    let site = Site::new().await;
    let seed = json!({
        "serviceAccounts": {"mdb_sa_id_demo": "mdb_sa_sk_demo"},
        "projects": {group(7): {"name": "lone"}},
    });
    site.control("PUT /sim/v1/world", &seed.to_string()).await;
    let shown: Value = site.ask("GET /sim/v1/world", &[], "").await.unwrap().json();
    assert_eq!(shown["projects"][group(7)]["name"], "lone");
    assert_eq!((&shown["tokenLife"], &shown["nonceLife"]), (&json!(3600), &json!(60)));
    let list = site.get("/groups").await.json();
    assert_eq!(list["totalCount"], 1);
    site.control(&format!("PUT /sim/v1/projects/{}", group(8)), r#"{"name":"second"}"#).await;
    assert_eq!(site.get("/groups").await.json()["totalCount"], 2);
}

#[tokio::test]
async fn keys_change_state_and_people_edit() {
    let site = Site::new().await;
    let key = json!({"id": old_key(), "state": "disabled"}).to_string();
    site.control("POST /sim/v1/keys", &key).await;
    assert_eq!(site.encryption(1).await["awsKms"]["valid"], false);
    let edit = json!({"key": new_key()}).to_string();
    site.control(&format!("POST /sim/v1/projects/{}/human-edit", group(1)), &edit).await;
    let block = site.encryption(1).await["awsKms"].clone();
    assert_eq!((&block["customerMasterKeyID"], &block["valid"]), (&json!(new_key()), &json!(true)));
}

#[tokio::test]
async fn faults_are_listed_and_cleared() {
    let site = Site::new().await;
    let fault = json!({"operation": "any", "kind": "truncate"}).to_string();
    site.control("POST /sim/v1/faults", &fault).await;
    let list = site.ask("GET /sim/v1/faults", &[], "").await.unwrap().json();
    assert_eq!(list[0]["kind"], "truncate");
    site.control("DELETE /sim/v1/faults", "").await;
    assert_eq!(site.ask("GET /sim/v1/faults", &[], "").await.unwrap().json(), json!([]));
}

#[tokio::test]
async fn the_log_is_told_as_json() {
    let site = Site::new().await;
    site.of_group("/encryptionAtRest").await;
    let log = site.ask("GET /sim/v1/log", &[], "").await.unwrap().json();
    let entry = &log[1];
    assert_eq!((&entry["seq"], &entry["operation"]), (&json!(2), &json!("get_ear")));
    assert_eq!((&entry["groupId"], &entry["credential"]), (&json!(group(1)), &json!("mdb_sa_id_demo")));
    assert_eq!((&entry["status"], &entry["at"]), (&json!(200), &json!("2026-03-01T12:00:00.000000Z")));
    for field in ["appliedAt", "repliedAt"] {
        assert!(entry[field].is_string(), "{field}");
    }
}
