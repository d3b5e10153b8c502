//! The configuration around the key: fields, providers, secrets, private networking.

use keywheel::sim::world::{KeyState, demo_key};
use serde_json::{Value, json};

use super::{Site, V2023};
use crate::support::{group, new_key, old_key};

fn new() -> String {
    format!(r#"{{"awsKms":{{"customerMasterKeyID":"{}"}}}}"#, new_key())
}

async fn set(site: &Site, fields: &Value) {
    site.control(&format!("POST /sim/v1/projects/{}", group(1)), &fields.to_string()).await;
}

#[tokio::test]
async fn all_three_providers_are_shown_and_one_is_enabled() {
    let site = Site::new().await;
    let body = site.encryption(1).await;
    assert_eq!(
        body["awsKms"],
        json!({
            "enabled": true, "customerMasterKeyID": old_key(), "region": "EU_CENTRAL_1",
            "roleId": "65aa00000000000000000001", "requirePrivateNetworking": false, "valid": true,
        })
    );
    assert_eq!(
        (&body["azureKeyVault"], &body["googleCloudKms"]),
        (&json!({"enabled": false}), &json!({"enabled": false}))
    );
    assert_eq!(body["enabledForSearchNodes"], false);
}

#[tokio::test]
async fn the_key_alone_is_enough_and_a_new_key_is_valid_at_once() {
    let site = Site::new().await;
    let reply = site.patch(1, &new()).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/vnd.atlas.2023-01-01+json;charset=utf-8"));
    assert_eq!(reply.header("date"), Some("Sun, 01 Mar 2026 12:00:00 GMT"));
    let block = &reply.json()["awsKms"];
    assert_eq!((&block["customerMasterKeyID"], &block["valid"]), (&json!(new_key()), &json!(true)));
    assert_eq!(block["roleId"], "65aa00000000000000000001");
    let entry = site.sim.log().into_iter().rfind(|it| it.operation == "patch_ear").unwrap();
    assert_eq!(entry.key, Some(new_key()));
    assert_eq!((entry.status, entry.applied_at.is_some()), (Some(200), true));
}

#[tokio::test]
async fn other_projects_and_malformed_ids_are_not_found() {
    let site = Site::new().await;
    site.get("/groups/ffffffffffffffffffffffff/encryptionAtRest").await.refused(404, "GROUP_NOT_FOUND");
    for id in ["nonsense", "FFFFFFFFFFFFFFFFFFFFFFFF", "65aa"] {
        let reply = site.get(&format!("/groups/{id}/encryptionAtRest")).await;
        reply.refused(404, "INVALID_GROUP_ID");
        assert_eq!(reply.json()["parameters"], json!([id]));
    }
    site.patch(99, &new()).await.refused(404, "GROUP_NOT_FOUND");
    site.get("/nothing").await.refused(404, "RESOURCE_NOT_FOUND");
}

#[tokio::test]
async fn the_body_must_be_a_json_object() {
    let site = Site::new().await;
    for (body, code) in [
        ("{", "MALFORMED_JSON"),
        ("nonsense", "MALFORMED_JSON"),
        ("[]", "INVALID_JSON"),
        ("\"text\"", "INVALID_JSON"),
    ] {
        site.patch(1, body).await.refused(400, code);
    }
}

#[tokio::test]
async fn the_content_type_must_be_json() {
    let site = Site::new().await;
    let bearer = format!("Authorization: Bearer {}", site.token().await);
    let line = format!("PATCH /api/atlas/v2/groups/{}/encryptionAtRest", group(1));
    for (kind, status) in [
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/json; charset=utf-8", 200),
        (V2023, 200),
    ] {
        let headers = [&bearer, &format!("Accept: {V2023}"), &format!("Content-Type: {kind}")];
        let headers = headers.map(String::as_str);
        assert_eq!(site.ask(&line, &headers, &new()).await.unwrap().status, status, "{kind}");
    }
}

#[tokio::test]
async fn unknown_fields_and_wrong_types_are_refused_and_named() {
    let site = Site::new().await;
    let key = new_key();
    for (body, code, name) in [
        (json!({"awsKms": {"customerMasterKeyID": key, "colour": "red"}}), "INVALID_ATTRIBUTE", "colour"),
        (
            json!({"awsKms": {"customerMasterKeyID": key, "keyIdentifier": "x"}}),
            "INVALID_ATTRIBUTE",
            "keyIdentifier",
        ),
        (json!({"oracleKms": {}}), "INVALID_ATTRIBUTE", "oracleKms"),
        (json!({"awsKms": "text"}), "INVALID_ATTRIBUTE", "awsKms"),
        (json!({"enabledForSearchNodes": "yes"}), "INVALID_ATTRIBUTE", "enabledForSearchNodes"),
        (json!({"awsKms": {"customerMasterKeyID": 7}}), "INVALID_ATTRIBUTE", "customerMasterKeyID"),
        (json!({"awsKms": {"enabled": "true"}}), "INVALID_ATTRIBUTE", "enabled"),
        (json!({"awsKms": {"valid": 1}}), "INVALID_ATTRIBUTE", "valid"),
        (json!({"awsKms": {"roleId": "65AA"}}), "INVALID_ATTRIBUTE", "roleId"),
        (json!({"awsKms": {"accessKeyID": "short"}}), "INVALID_ATTRIBUTE", "accessKeyID"),
        (json!({"awsKms": {"region": "eu-central-1"}}), "INVALID_ENUM_VALUE", "region"),
        (
            json!({"azureKeyVault": {"azureEnvironment": "AZURE_GERMANY"}}),
            "INVALID_ENUM_VALUE",
            "azureEnvironment",
        ),
        (json!({"azureKeyVault": {"tenantID": "nonsense"}}), "INVALID_ATTRIBUTE", "tenantID"),
        (
            json!({"googleCloudKms": {"requirePrivateNetworking": true}}),
            "INVALID_ATTRIBUTE",
            "requirePrivateNetworking",
        ),
    ] {
        let reply = site.patch(1, &body.to_string()).await;
        reply.refused(400, code);
        assert_eq!(reply.json()["parameters"], json!([name]), "{body}");
    }
    assert_eq!(site.encryption(1).await["awsKms"]["customerMasterKeyID"], old_key());
}

#[tokio::test]
async fn valid_may_be_sent_and_means_nothing() {
    let site = Site::new().await;
    site.sim.with(|world| world.keys.insert(new_key(), KeyState::FailsOnNodes));
    let body = json!({"awsKms": {"customerMasterKeyID": new_key(), "valid": true, "enabled": true}});
    let reply = site.patch(1, &body.to_string()).await;
    assert_eq!((reply.status, &reply.json()["awsKms"]["valid"]), (200, &json!(false)));
}

#[tokio::test]
async fn secrets_are_taken_in_and_never_shown() {
    let site = Site::new().await;
    for (number, body) in [
        (1, json!({"awsKms": {"secretAccessKey": "canary"}})),
        (5, json!({"azureKeyVault": {"secret": "canary"}})),
        (9, json!({"googleCloudKms": {"serviceAccountKey": "{\"private_key\":\"canary\"}"}})),
    ] {
        let reply = site.patch(number, &body.to_string()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let shown = site.encryption(number).await.to_string();
        assert!(!reply.text().contains("canary") && !shown.contains("canary"), "{shown}");
        let stored = site.sim.with(|world| format!("{:?}", world.projects[&group(number)].block));
        assert!(stored.contains("canary"));
    }
}

#[tokio::test]
async fn a_second_provider_is_refused() {
    let site = Site::new().await;
    let body = json!({"googleCloudKms": {
        "enabled": true, "keyVersionResourceID": demo_key("GCP", "analytics-prod", 9, 2),
        "roleId": "65aa00000000000000000002",
    }});
    site.patch(1, &body.to_string()).await.refused(409, "CANNOT_CHANGE_ENCRYPTION_AT_REST_PROVIDER");
    // What other tools send for the providers they do not use is borne.
    let body = json!({"awsKms": {"customerMasterKeyID": new_key()}, "azureKeyVault": {"enabled": false}});
    assert_eq!(site.patch(1, &body.to_string()).await.status, 200);
}

#[tokio::test]
async fn encryption_in_use_cannot_be_disabled() {
    let site = Site::new().await;
    let off = r#"{"awsKms":{"enabled":false}}"#;
    site.patch(1, off).await.refused(409, "CANNOT_DISABLE_ENCRYPTION_AT_REST");
    set(&site, &json!({"clusters": []})).await;
    let reply = site.patch(1, off).await;
    assert_eq!((reply.status, &reply.json()["awsKms"]), (200, &json!({"enabled": false})));
    site.patch(1, &new()).await.refused(409, "CANNOT_ROTATE_KEY_ENCRYPTION_DISABLED");
}

#[tokio::test]
async fn the_first_enablement_needs_all_fields() {
    let site = Site::new().await;
    set(&site, &json!({"provider": "", "block": {}})).await;
    let whole = json!({
        "enabled": true, "customerMasterKeyID": new_key(), "region": "EU_CENTRAL_1",
        "roleId": "65aa00000000000000000001",
    });
    for missing in ["customerMasterKeyID", "region", "roleId"] {
        let mut block = whole.clone();
        block.as_object_mut().unwrap().remove(missing);
        let reply = site.patch(1, &json!({"awsKms": block}).to_string()).await;
        reply.refused(400, "MISSING_ATTRIBUTE");
        assert_eq!(reply.json()["parameters"], json!([missing]));
    }
    let mut block = whole.clone();
    block["accessKeyID"] = json!("AKIAIOSFODNN7EXAMPLE");
    let reply = site.patch(1, &json!({"awsKms": block}).to_string()).await;
    reply.refused(400, "AWS_KMS_CREDENTIALS_AUTH_DEPRECATED");
    let two = json!({"awsKms": whole, "googleCloudKms": {"enabled": true}});
    site.patch(1, &two.to_string()).await.refused(409, "CANNOT_CHANGE_ENCRYPTION_AT_REST_PROVIDER");
    let reply = site.patch(1, &json!({"awsKms": whole}).to_string()).await;
    assert_eq!((reply.status, &reply.json()["awsKms"]["valid"]), (200, &json!(true)));
}

#[tokio::test]
async fn with_private_networking_the_truth_comes_later() {
    let site = Site::new().await;
    let mut block = site.sim.with(|world| world.projects[&group(1)].block.clone());
    block.insert("requirePrivateNetworking".to_owned(), json!(true));
    set(&site, &json!({"block": block, "nodeCheckMs": 60_000})).await;
    site.sim.with(|world| world.keys.insert(new_key(), KeyState::Disabled));
    let reply = site.patch(1, &new()).await;
    assert_eq!((reply.status, &reply.json()["awsKms"]["valid"]), (200, &json!(true)));
    site.pass(59);
    assert_eq!(site.encryption(1).await["awsKms"]["valid"], true);
    site.pass(1);
    assert_eq!(site.encryption(1).await["awsKms"]["valid"], false);
    let back = new().replace(&new_key(), &old_key());
    site.patch(1, &back).await.refused(400, "ENCRYPTION_AT_REST_SETTINGS_INVALID");
}

#[tokio::test]
async fn an_unreachable_key_service_makes_valid_false() {
    let site = Site::new().await;
    set(&site, &json!({"kmsUnreachable": true})).await;
    assert_eq!(site.encryption(1).await["awsKms"]["valid"], false);
    site.patch(1, &new()).await.refused(400, "ENCRYPTION_AT_REST_SETTINGS_INVALID");
    set(&site, &json!({"kmsUnreachable": false})).await;
    assert_eq!(site.encryption(1).await["awsKms"]["valid"], true);
}

#[tokio::test]
async fn valid_follows_its_script() {
    let site = Site::new().await;
    set(&site, &json!({"validSequence": [false, null, true]})).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(site.encryption(1).await["awsKms"].get("valid").cloned());
    }
    assert_eq!(seen, [Some(json!(false)), None, Some(json!(true)), Some(json!(true))]);
}

#[tokio::test]
async fn a_stale_read_shows_the_key_from_before() {
    let site = Site::new().await;
    set(&site, &json!({"staleReadMs": 5000})).await;
    site.patch(1, &new()).await;
    assert_eq!(site.encryption(1).await["awsKms"]["customerMasterKeyID"], old_key());
    site.pass(5);
    assert_eq!(site.encryption(1).await["awsKms"]["customerMasterKeyID"], new_key());
}

#[tokio::test]
async fn nulls_stand_for_absent_fields_where_set() {
    let site = Site::new().await;
    site.control("POST /sim/v1/world", r#"{"odd":{"nulls":true}}"#).await;
    let body = site.encryption(1).await;
    assert_eq!(body["awsKms"]["accessKeyID"], Value::Null);
    assert!(body["awsKms"].as_object().unwrap().contains_key("accessKeyID"));
    let azure = body["azureKeyVault"].as_object().unwrap();
    assert!(
        azure.contains_key("keyIdentifier") && azure["keyIdentifier"].is_null() && azure["valid"].is_null()
    );
    assert!(!azure.contains_key("secret"));
}
