//! One table for each sender: what it is documented to send, and the same mangled and forged.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{HookServer, alert, atlas_signature};
use crate::support::group;
use keywheel::sim::world::demo_key;

const ATLAS: &str = r#"
[[hooks]]
name = "atlas"
kind = "atlas"
secret = "the-present-secret-of-atlas"
previous_secret = "the-secret-of-atlas-before"
[[hooks]]
name = "hex"
kind = "atlas"
secret = "a-secret-of-atlas-in-hex"
encoding = "hex"
[[hooks]]
name = "documented"
kind = "atlas"
secret = "a-secret-of-atlas-in-hex"
"#;
const PRESENT: &str = "the-present-secret-of-atlas";

/// The body of the facts' own example, to the byte.
const DOCUMENTED: &str = r#"{"id":"66f0a1b2c3d4e5f60718293a","groupId":"32b6e34b3d91647abb20e7b8","orgId":"4888442a3354817a7320eb61","alertConfigId":"57b76ddc96e8215c017ceafb","eventTypeName":"AWS_ENCRYPTION_KEY_NEEDS_ROTATION","status":"OPEN","created":"2026-08-02T02:27:02Z","updated":"2026-08-02T02:27:02Z","lastNotified":"2026-08-02T02:27:10Z","humanReadable":"AWS encryption key elapsed time since last rotation is above 90 days. Project: payments-prod Organization: ExampleOrg","links":[{"rel":"self","href":"https://cloud.mongodb.com/api/atlas/v2/groups/32b6e34b3d91647abb20e7b8/alerts/66f0a1b2c3d4e5f60718293a"}]}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn atlas_signs_its_alerts_and_nothing_else_is_believed() {
    let server = HookServer::open(ATLAS).await;
    // The documented body, signed in both spellings.
    let base64 = atlas_signature("a-secret-of-atlas-in-hex", DOCUMENTED.as_bytes());
    let hex = hex::encode(STANDARD.decode(&base64).unwrap());
    for (hook, signature) in [("documented", base64), ("hex", hex)] {
        let taken = server.send(hook, &[("x-mms-signature", &signature)], DOCUMENTED).await;
        assert_eq!(taken.status, 202, "{hook}: {taken:?}");
        assert_eq!(server.counts(hook)[1], 1, "{hook}");
    }
    let body = alert("AWS_ENCRYPTION_KEY_NEEDS_ROTATION", "OPEN", "2026-08-02T02:27:02Z").to_string();
    let right = atlas_signature(PRESENT, body.as_bytes());
    let before = atlas_signature("the-secret-of-atlas-before", body.as_bytes());
    let forged = atlas_signature("another", body.as_bytes());
    let empty = atlas_signature("", body.as_bytes());
    let other = atlas_signature(PRESENT, b"{}");
    let stored = server.stored().await;
    for (what, headers, status) in [
        ("no signature", vec![], 401),
        ("a wrong secret", vec![("x-mms-signature", forged.as_str())], 401),
        ("an empty secret", vec![("x-mms-signature", empty.as_str())], 401),
        ("another body's signature", vec![("x-mms-signature", other.as_str())], 401),
        ("no Base64", vec![("x-mms-signature", "!!")], 401),
        ("an empty signature", vec![("x-mms-signature", "")], 401),
        ("a truncated signature", vec![("x-mms-signature", &right[..8])], 401),
        ("the secret as a bearer token", vec![("authorization", "Bearer the-present-secret-of-atlas")], 401),
    ] {
        let answered = server.send("atlas", &headers, body.clone()).await;
        assert_eq!(answered.problem(status), "unauthenticated", "{what}");
        let words = answered.json.to_string();
        assert!(!words.contains("secret") && !words.contains("signature"), "{words}");
    }
    assert_eq!(server.stored().await, stored, "something forged was stored");
    assert_eq!(server.refusals("atlas"), [("no-signature", 2), ("wrong-signature", 6)]);
    // Both secrets count while Atlas' own one is rotated; the second delivery is a repetition.
    for signature in [&right, &before] {
        assert_eq!(server.send("atlas", &[("x-mms-signature", signature)], body.clone()).await.status, 202);
    }
    assert_eq!(server.counts("atlas")[1..3], [1, 1]);
    // Cut short on its way.
    let cut = server.send("atlas", &[("x-mms-signature", &right)], &body.as_bytes()[..100]).await;
    assert_eq!(cut.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_may_have_any_shape() {
    let server = HookServer::open(ATLAS).await;
    let own = group(1);
    for (what, body, accepted) in [
        ("the default shape", alert("AWS_ENCRYPTION_KEY_INVALID", "OPEN", "2026-08-02T02:27:02Z").to_string(), 1),
        ("an alert about something else", json!({"id": "a", "groupId": own, "eventTypeName": "HOST_DOWN", "status": "OPEN", "updated": "x"}).to_string(), 0),
        ("a template with other names", json!({"text": format!("AWS_ENCRYPTION_KEY_INVALID in {own}"), "projectId": own}).to_string(), 1),
        ("a group id in a text", json!([["see", { "x": format!("project {own} needs you") }]]).to_string(), 1),
        ("an alert's id beside a project's", json!({"id": "66f0a1b2c3d4e5f60718293b", "payload": {"group": own}}).to_string(), 1),
        ("nothing that says which project", json!({"text": "hello"}).to_string(), 0),
        ("no JSON", "hello".to_owned(), 0),
        ("nothing", String::new(), 0),
        ("a number", "17".to_owned(), 0),
        ("deeper than any reader goes", "[".repeat(100_000), 0),
        ("broken text", "\"\u{fffd}".to_owned(), 0),
    ] {
        let before = server.counts("atlas");
        let signature = atlas_signature(PRESENT, body.as_bytes());
        let answered = server.send("atlas", &[("x-mms-signature", &signature)], body).await;
        assert_eq!(answered.status, 202, "{what}: {answered:?}");
        let counts = server.counts("atlas");
        assert_eq!((counts[1] - before[1], counts[3] - before[3]), (accepted, 1 - accepted), "{what}");
    }
    let body = [0xff, 0xfe, 0x00];
    let signature = atlas_signature(PRESENT, &body);
    assert_eq!(server.send("atlas", &[("x-mms-signature", &signature)], body).await.status, 202);
    assert_eq!(server.stored().await, 4);
}

const AZURE: &str = r#"
[[hooks]]
name = "grid"
kind = "azure-event-grid"
token = "the-secret-in-the-address"
previous_token = "the-secret-there-before"
[[hooks]]
name = "header"
kind = "azure-event-grid"
token = "the-secret-in-the-header"
header = "X-Keywheel-Token"
"#;

/// An event as Key Vault sends it.
pub(super) fn vault_event(kind: &str, version: u32, id: &str) -> Value {
    json!({
        "id": id,
        "topic": "/subscriptions/0b1f6471-1bf0-4dda-aec3-111122223333/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/kw-demo",
        "subject": "identity-prod", "eventType": format!("Microsoft.KeyVault.{kind}"), "eventTime": "2026-11-20T03:12:45.1036736Z",
        "data": {
            "Id": demo_key("AZURE", "identity-prod", 5, version), "VaultName": "kw-demo", "ObjectType": "Key",
            "ObjectName": "identity-prod", "Version": format!("{version:032x}"), "NBF": null, "EXP": 1_795_143_165,
        },
        "dataVersion": "1", "metadataVersion": "1",
    })
}

fn as_cloud_event(event: &Value) -> Value {
    json!({
        "id": event["id"], "source": event["topic"], "subject": event["subject"], "type": event["eventType"],
        "time": event["eventTime"], "specversion": "1.0", "data": event["data"],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_grid_speaks_two_schemas_and_one_secret() {
    let server = HookServer::open(AZURE).await;
    let created = vault_event("KeyNewVersionCreated", 2, "1");
    // As the documentation's sample has it: a space in a name, another in the version, dates as texts.
    let mut odd = vault_event("KeyNewVersionCreated", 2, "2");
    odd["data"] = json!({ "id": format!(" {} ", demo_key("AZURE", "identity-prod", 5, 2)), "VaultName": "kw-demo",
        "ObjectName ": "identity-prod", "Version": " 2", "NBF": "1559081980", "EXP": "1559082102" });
    let mut unknown = vault_event("SecretNewVersionCreated", 2, "3");
    unknown["data"]["Id"] = json!("https://kw-demo.vault.azure.net/secrets/x/1");
    let right = "?code=the-secret-in-the-address";
    for (what, query, body, status, accepted) in [
        ("an event", right, json!([created]), 202, 1),
        ("the secret before", "?code=the-secret-there-before", json!([created]), 202, 0),
        ("the documentation's sample", right, json!([odd]), 202, 1),
        ("a secret's event", right, json!([unknown]), 202, 0),
        ("the other schema, alone", right, as_cloud_event(&vault_event("KeyNearExpiry", 1, "4")), 202, 1),
        (
            "the other schema, in an array",
            right,
            json!([as_cloud_event(&vault_event("KeyExpired", 1, "5"))]),
            202,
            1,
        ),
        (
            "a batch",
            right,
            json!([
                vault_event("KeyExpired", 1, "6"),
                vault_event("VaultAccessPolicyChanged", 1, "7"),
                created
            ]),
            202,
            2,
        ),
        ("an empty batch", right, json!([]), 202, 0),
        ("an event without an id", right, json!([{ "eventType": "x" }]), 400, 0),
        ("no event", right, json!(["x"]), 400, 0),
        ("no secret", "", json!([created]), 401, 0),
        ("a wrong secret", "?code=x", json!([created]), 401, 0),
        ("the secret's beginning", "?code=the-secret-in-the", json!([created]), 401, 0),
    ] {
        let before = server.counts("grid");
        let headers = [("aeg-event-type", "Notification"), ("aeg-delivery-count", "0")];
        let answered = server.send(&format!("grid{query}"), &headers, body.to_string()).await;
        assert_eq!(answered.status, status, "{what}: {answered:?}");
        assert_eq!(server.counts("grid")[1] - before[1], accepted, "{what}");
    }
    assert_eq!(server.stored().await, 6);
    // What came with the secret in the address is nowhere in the inbox or in the refusals' names.
    assert_eq!(server.refusals("grid"), [("malformed", 2), ("no-token", 1), ("wrong-token", 2)]);
    let body = json!([vault_event("KeyExpired", 1, "8")]).to_string();
    assert_eq!(server.send("header?code=the-secret-in-the-header", &[], body.clone()).await.status, 401);
    let right = [("x-keywheel-token", "the-secret-in-the-header")];
    assert_eq!(server.send("header", &right, body).await.status, 202);
    assert_eq!(server.counts("header")[1], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consent_to_a_subscription_is_given_to_who_knows_the_secret() {
    let server = HookServer::open(AZURE).await;
    let asks = json!([{
        "id": "2d1781af-3a4c-4d7c-bd0c-e34b19da4e66", "topic": "/subscriptions/x", "subject": "",
        "data": { "validationCode": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6", "validationUrl": "https://rp-eastus2.eventgrid.azure.net:553/x" },
        "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent", "eventTime": "2026-11-20T03:12:45Z",
        "metadataVersion": "1", "dataVersion": "2",
    }])
    .to_string();
    let headers = [("aeg-event-type", "SubscriptionValidation")];
    let given = server.send("grid?code=the-secret-in-the-address", &headers, asks.clone()).await;
    assert_eq!(
        (given.status, &given.json),
        (200, &json!({ "validationResponse": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6" }))
    );
    let refused = server.send("grid", &headers, asks).await;
    assert_eq!(refused.status, 401);
    assert!(!refused.json.to_string().contains("512d38b6"));
    let ended = server
        .send("grid?code=the-secret-in-the-address", &[("aeg-event-type", "SubscriptionDeletion")], "[]")
        .await;
    assert_eq!(ended.status, 200);
    // CloudEvents ask by OPTIONS.
    let ask = async |path: &str, origin: Option<&str>| {
        let request = server.request("OPTIONS", path);
        let request = match origin {
            Some(origin) => {
                request.header("webhook-request-origin", origin).header("webhook-request-rate", "120")
            }
            None => request,
        };
        let reply = request.send().await.unwrap();
        (
            reply.status().as_u16(),
            reply.headers().get("webhook-allowed-origin").map(|it| it.to_str().unwrap().to_owned()),
            reply.headers().get("webhook-allowed-rate").is_some(),
        )
    };
    let right = "grid?code=the-secret-in-the-address";
    assert_eq!(
        ask(right, Some("eventgrid.azure.net")).await,
        (200, Some("eventgrid.azure.net".to_owned()), true)
    );
    assert_eq!(ask("grid", Some("eventgrid.azure.net")).await, (401, None, false));
    assert_eq!(ask(right, Some("evil.example")).await, (401, None, false));
    assert_eq!(ask(right, None).await, (400, None, false));
    assert_eq!(server.stored().await, 0);
}

const AWS: &str = r#"
[[hooks]]
name = "bus"
kind = "aws-eventbridge"
token = "the-key-of-the-connection"
previous_token = "the-key-of-it-before"
[[hooks]]
name = "basic"
kind = "aws-eventbridge"
basic = { user = "keywheel", password = "the-password-of-it" }
[[hooks]]
name = "bearer"
kind = "aws-eventbridge"
header = "authorization"
token = "the-token-that-it-fetched"
"#;

/// An event as KMS sends it, about the key of project 1.
pub(super) fn kms_event(kind: &str, id: &str) -> Value {
    let key = demo_key("AWS", "payments-prod", 1, 1);
    json!({
        "version": "0", "id": id, "detail-type": kind, "source": "aws.kms", "account": "111122223333",
        "time": "2026-11-20T03:11:54Z", "region": "eu-central-1",
        "resources": [format!("arn:aws:kms:eu-central-1:111122223333:key/{key}")],
        "detail": { "key-id": key },
    })
}

/// A call as CloudTrail reports it.
pub(super) fn trail(name: &str, asked: &Value, id: &str) -> Value {
    json!({
        "version": "0", "id": format!("outer-{id}"), "detail-type": "AWS API Call via CloudTrail", "source": "aws.kms",
        "account": "111122223333", "time": "2026-11-20T03:18:15Z", "region": "eu-central-1", "resources": [],
        "detail": {
            "eventVersion": "1.11", "userIdentity": { "type": "AssumedRole", "arn": "arn:aws:sts::111122223333:assumed-role/KeyOps/alice" },
            "eventTime": "2026-11-20T03:18:15Z", "eventSource": "kms.amazonaws.com", "eventName": name,
            "requestParameters": asked, "responseElements": null, "eventID": id,
        },
    })
}

/// What KMS did by itself, as CloudTrail reports it.
pub(super) fn service(name: &str, details: &Value, id: &str) -> Value {
    let mut event = trail(name, &Value::Null, id);
    event["detail-type"] = json!("AWS Service Event via CloudTrail");
    event["detail"]["eventType"] = json!("AwsServiceEvent");
    event["detail"]["serviceEventDetails"] = details.clone();
    event["detail"]["userIdentity"] = json!({ "accountId": "111122223333", "invokedBy": "AWS Internal" });
    let arn = format!("arn:aws:kms:eu-central-1:111122223333:key/{}", demo_key("AWS", "payments-prod", 1, 1));
    event["detail"]["resources"] = json!([{ "ARN": arn, "type": "AWS::KMS::Key" }]);
    event
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "one hook, many deliveries")]
async fn an_api_destination_brings_kms_and_cloudtrail() {
    let server = HookServer::open(AWS).await;
    let key = demo_key("AWS", "payments-prod", 1, 1);
    let mut failed = trail("UpdateAlias", &json!({ "aliasName": "alias/x", "targetKeyId": key }), "e1");
    failed["detail"]["errorCode"] = json!("AccessDenied");
    let bare = json!({ "version": "0", "id": "k2", "detail-type": "KMS CMK Rotation", "source": "aws.kms", "account": "111122223333",
        "region": "eu-central-1", "resources": [], "detail": { "key-id": key } });
    let own = json!({ "specversion": "1.0", "id": "t1", "source": "/transformer", "type": "io.keywheel.rotation.requested.v1",
        "data": { "groupId": group(1) } });
    let right = ("x-api-key", "the-key-of-the-connection");
    for (what, header, body, status, accepted) in [
        ("a rotation inside", right, kms_event("KMS CMK Rotation", "k1"), 202, 1),
        ("the same as in 2023", right, bare, 202, 1),
        ("a deletion", right, kms_event("KMS CMK Deletion", "k3"), 202, 1),
        ("material that expires", right, kms_event("KMS Imported Key Material Expiration", "k4"), 202, 1),
        ("something new from KMS", right, kms_event("KMS Something", "k5"), 202, 0),
        (
            "an alias",
            right,
            trail("UpdateAlias", &json!({ "aliasName": "alias/x", "targetKeyId": key }), "c1"),
            202,
            1,
        ),
        (
            "an alias given by ARN",
            right,
            trail(
                "CreateAlias",
                &json!({ "aliasName": "alias/x", "targetKeyId": format!("arn:aws:kms:eu-central-1:111122223333:key/{key}") }),
                "c2",
            ),
            202,
            1,
        ),
        ("a call that failed", right, failed, 202, 0),
        ("a key that is disabled", right, trail("DisableKey", &json!({ "keyId": key }), "c3"), 202, 1),
        ("a call that reads", right, trail("DescribeKey", &json!({ "keyId": key }), "c4"), 202, 0),
        ("a call without its parameters", right, trail("DisableKey", &Value::Null, "c5"), 202, 0),
        (
            "a call on another service",
            right,
            json!({ "id": "x", "detail-type": "AWS API Call via CloudTrail", "detail": { "eventSource": "s3.amazonaws.com" } }),
            202,
            0,
        ),
        ("the deletion itself", right, service("DeleteKey", &json!({ "keyId": key }), "s1"), 202, 1),
        ("material whose day came", right, service("DeleteExpiredKeyMaterial", &Value::Null, "s2"), 202, 1),
        ("the service's rotation", right, service("RotateKey", &json!({ "keyId": key }), "s3"), 202, 1),
        ("a replica", right, service("SynchronizeMultiRegionKey", &json!({ "keyId": key }), "s4"), 202, 1),
        ("a service event of another kind", right, service("Something", &Value::Null, "s5"), 202, 0),
        (
            "a key store that is cut off",
            right,
            trail("DisconnectCustomKeyStore", &json!({ "customKeyStoreId": "cks-1234567890abcdef0" }), "s6"),
            202,
            1,
        ),
        ("new material", right, trail("ImportKeyMaterial", &json!({ "keyId": key }), "s7"), 202, 1),
        ("what a transformer wrote", right, own, 202, 1),
        (
            "the key before",
            ("x-api-key", "the-key-of-it-before"),
            kms_event("KMS CMK Rotation", "k1"),
            202,
            0,
        ),
        ("no key", ("x-other", "the-key-of-the-connection"), kms_event("KMS CMK Rotation", "k6"), 401, 0),
        ("a wrong key", ("x-api-key", "x"), kms_event("KMS CMK Rotation", "k6"), 401, 0),
        ("no event", right, json!({ "hello": "world" }), 400, 0),
        ("an array", right, json!([kms_event("KMS CMK Rotation", "k6")]), 400, 0),
    ] {
        let before = server.counts("bus");
        let headers =
            [header, ("user-agent", "Amazon/EventBridge/ApiDestinations"), ("range", "bytes=0-1048575")];
        let answered = server.send("bus", &headers, body.to_string()).await;
        assert_eq!(answered.status, status, "{what}: {answered:?}");
        assert_eq!(server.counts("bus")[1] - before[1], accepted, "{what}");
    }
    let body = kms_event("KMS CMK Rotation", "k9").to_string();
    for (hook, value, status) in [
        ("basic", format!("Basic {}", STANDARD.encode("keywheel:the-password-of-it")), 202),
        ("basic", format!("Basic {}", STANDARD.encode("other:the-password-of-it")), 401),
        ("basic", format!("Basic {}", STANDARD.encode("keywheel:x")), 401),
        ("basic", "Basic !".to_owned(), 401),
        ("basic", "Bearer the-password-of-it".to_owned(), 401),
        ("bearer", "Bearer the-token-that-it-fetched".to_owned(), 202),
        ("bearer", "Bearer x".to_owned(), 401),
    ] {
        let answered = server.send(hook, &[("authorization", &value)], body.clone()).await;
        assert_eq!(answered.status, status, "{hook} {value}");
    }
}

const GENERIC: &str = r#"
[[hooks]]
name = "ci"
kind = "cloudevents"
token = "the-token-of-our-pipeline"
[[hooks]]
name = "signed"
kind = "standard"
secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
[[hooks]]
name = "both"
kind = "standard"
secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"
previous_secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "one world, many deliveries")]
async fn cloud_events_come_in_three_modes() {
    let server = HookServer::open(GENERIC).await;
    let event = |id: &str, data: Value| json!({ "specversion": "1.0", "id": id, "source": "/ci", "type": "io.keywheel.rotation.requested.v1", "data": data });
    let ask = || json!({ "groupId": group(1), "newKey": demo_key("AWS", "payments-prod", 1, 2), "reason": "quarterly" });
    let structured = "application/cloudevents+json; charset=utf-8";
    let batch = "application/cloudevents-batch+json";
    let encoded = json!({ "specversion": "1.0", "id": "b64", "source": "/ci", "type": "io.keywheel.rotation.requested.v1",
        "data_base64": STANDARD.encode(ask().to_string()) });
    for (what, kind, body, status, accepted, said) in [
        ("structured", structured, event("1", ask()), 202, 1, ""),
        ("the same again", structured, event("1", ask()), 202, 0, ""),
        ("in Base64", structured, encoded, 202, 1, ""),
        (
            "a batch",
            batch,
            json!([
                event("2", ask()),
                event("3", json!({ "groupId": group(1), "newKey": null })),
                event("1", ask())
            ]),
            202,
            2,
            "",
        ),
        (
            "another type",
            structured,
            json!({ "specversion": "1.0", "id": "4", "source": "/ci", "type": "com.example.x" }),
            202,
            0,
            "",
        ),
        ("no array in a batch", batch, event("5", ask()), 400, 0, "a batch takes an array"),
        (
            "an old version",
            structured,
            json!({ "specversion": "0.3", "id": "5", "source": "/ci", "type": "x" }),
            400,
            0,
            "specversion is not 1.0",
        ),
        (
            "no id",
            structured,
            json!({ "specversion": "1.0", "source": "/ci", "type": "x" }),
            400,
            0,
            "id is missing",
        ),
        (
            "no data",
            structured,
            json!({ "specversion": "1.0", "id": "5", "source": "/ci", "type": "io.keywheel.rotation.requested.v1" }),
            400,
            0,
            "data takes",
        ),
        (
            "a wrong project",
            structured,
            event("5", json!({ "groupId": "payments" })),
            400,
            0,
            "data.groupId takes 24 hexadecimal digits",
        ),
        (
            "a number for a key",
            structured,
            event("5", json!({ "groupId": group(1), "newKey": 5 })),
            400,
            0,
            "data.newKey takes a text",
        ),
        (
            "a text that is no key",
            structured,
            event("5", json!({ "groupId": group(1), "newKey": "<script>" })),
            400,
            0,
            "data.newKey takes the id or ARN of an AWS key",
        ),
        (
            "an alias",
            structured,
            event("5", json!({ "groupId": group(1), "newKey": "alias/atlas" })),
            400,
            0,
            "data.newKey takes the id or ARN of an AWS key",
        ),
        (
            "an endless reason",
            structured,
            event("5", json!({ "groupId": group(1), "reason": "x".repeat(501) })),
            400,
            0,
            "at most 500 characters",
        ),
        (
            "two lines of reason",
            structured,
            event("5", json!({ "groupId": group(1), "reason": "x\ny" })),
            400,
            0,
            "on one line",
        ),
        ("plain JSON", "application/json", event("5", ask()), 400, 0, "not a CloudEvent"),
    ] {
        let before = server.counts("ci");
        let headers = [("authorization", "Bearer the-token-of-our-pipeline"), ("content-type", kind)];
        let answered = server.send("ci", &headers, body.to_string()).await;
        assert_eq!(answered.status, status, "{what}: {answered:?}");
        assert!(answered.json.to_string().contains(said), "{what}: {answered:?}");
        assert_eq!(server.counts("ci")[1] - before[1], accepted, "{what}");
    }
    let binary = [
        ("authorization", "bearer the-token-of-our-pipeline"),
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "\"caf%C3%A9\""),
        ("ce-source", "/ci"),
        ("ce-type", "io.keywheel.rotation.requested.v1"),
    ];
    let taken = server.send("ci", &binary, ask().to_string()).await;
    assert_eq!(taken.status, 202, "{taken:?}");
    assert!(server.outcome("ci", "/ci/café").await.is_some());
    for token in ["", "Bearer ", "Bearer x", "the-token-of-our-pipeline", "Basic the-token-of-our-pipeline"] {
        let refused = server
            .send(
                "ci",
                &[("authorization", token), ("content-type", structured)],
                event("9", ask()).to_string(),
            )
            .await;
        assert_eq!(refused.status, 401, "{token:?}");
    }
    assert_eq!(server.stored().await, 5);
}

fn standard_signature(secret: &[u8], id: &str, at: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    format!("v1,{}", STANDARD.encode(hmac::sign(&key, format!("{id}.{at}.{body}").as_bytes())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_webhooks_hold_to_the_public_vector() {
    let server = HookServer::at("2022-04-07T21:39:00Z", GENERIC).await;
    let (id, at) = ("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", "1649367553");
    let body = r#"{"email":"test@example.com","username":"test_user"}"#;
    let vector = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";
    let headers =
        |signature| [("webhook-id", id), ("webhook-timestamp", at), ("webhook-signature", signature)];
    assert_eq!(server.send("signed", &headers(vector), body).await.status, 202);
    assert_eq!(server.send("both", &headers(vector), body).await.status, 202, "the secret before counts too");
    assert_eq!(server.counts("signed")[3], 1);
    let wrong = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let several = format!("{wrong} v1a,xyz {vector}");
    assert_eq!(server.send("signed", &headers(&several), body).await.status, 202, "one of several");
    // Nobody has so many secrets, and each would cost us work.
    let many = format!("{}{vector}", format!("{wrong} ").repeat(20));
    assert_eq!(server.send("signed", &headers(&many), body).await.status, 401, "one of too many");
    let empty = standard_signature(b"", id, at, body);
    let secret = STANDARD.decode("C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
    let (late, early) = ("1649366000", "1649369000");
    let stale = standard_signature(&secret, id, late, body);
    let ahead = standard_signature(&secret, id, early, body);
    let spelt = standard_signature(&secret, id, "+1649367553", body);
    for (what, headers, body) in [
        ("a forged one", headers(wrong).to_vec(), body),
        ("one made with an empty secret", headers(&empty).to_vec(), body),
        ("another version's", headers(&vector.replace("v1,", "v2,")).to_vec(), body),
        ("a changed body", headers(vector).to_vec(), r#"{"email":"eve@example.com"}"#),
        (
            "another id",
            vec![("webhook-id", "msg_x"), ("webhook-timestamp", at), ("webhook-signature", vector)],
            body,
        ),
        (
            "another instant",
            vec![("webhook-id", id), ("webhook-timestamp", "1649367554"), ("webhook-signature", vector)],
            body,
        ),
        (
            "one of long ago",
            vec![("webhook-id", id), ("webhook-timestamp", late), ("webhook-signature", &stale)],
            body,
        ),
        (
            "one of the future",
            vec![("webhook-id", id), ("webhook-timestamp", early), ("webhook-signature", &ahead)],
            body,
        ),
        ("no instant", vec![("webhook-id", id), ("webhook-signature", vector)], body),
        ("no signature", vec![("webhook-id", id), ("webhook-timestamp", at)], body),
    ] {
        assert_eq!(server.send("signed", &headers, body).await.status, 401, "{what}");
    }
    let odd =
        [("webhook-id", id), ("webhook-timestamp", "+1649367553"), ("webhook-signature", spelt.as_str())];
    assert_eq!(server.send("signed", &odd, body).await.status, 202, "signed as it is spelt");
    assert_eq!(server.stored().await, 0);
    let ask = json!({ "type": "io.keywheel.rotation.requested.v1", "timestamp": "2022-04-07T21:39:00Z", "data": { "groupId": group(1) } }).to_string();
    let signature = standard_signature(&secret, "msg_2", at, &ask);
    let headers =
        [("webhook-id", "msg_2"), ("webhook-timestamp", at), ("webhook-signature", signature.as_str())];
    for _ in 0..2 {
        assert_eq!(server.send("signed", &headers, ask.clone()).await.status, 202);
    }
    assert_eq!(server.counts("signed")[1..3], [1, 1]);
}
