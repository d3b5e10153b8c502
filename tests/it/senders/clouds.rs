//! Atlas and the three clouds: bodies, headers, proofs and handshakes.

use serde_json::{Value, json};

use super::{Site, is_signed_by, unbase64, with};
use crate::support::group;

const KEY: &str = "https://kv-atlas-prod.vault.azure.net/keys/atlas-cmk/9c1e5b0c7d3a4f0f8e2b6a5d4c3b2a10";
const TENANT: &str = "0b1f6471-1bf0-4dda-aec3-111122223333";
const TOPIC: &str = "arn:aws:sns:us-west-2:111122223333:kms-events";
const CMK: &str = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const GOOGLE: &str =
    "projects/acme-sec/locations/us-east4/keyRings/atlas/cryptoKeys/atlas-cmk/cryptoKeyVersions/7";

fn names(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn an_alert_is_signed_over_its_bytes() {
    let site = Site::new().await;
    // The documented vector: these bytes, this secret, this signature.
    let body = r#"{"id":"66f0a1b2c3d4e5f60718293a","groupId":"32b6e34b3d91647abb20e7b8","orgId":"4888442a3354817a7320eb61","alertConfigId":"57b76ddc96e8215c017ceafb","eventTypeName":"AWS_ENCRYPTION_KEY_NEEDS_ROTATION","status":"OPEN","created":"2026-08-02T02:27:02Z","updated":"2026-08-02T02:27:02Z","lastNotified":"2026-08-02T02:27:10Z","humanReadable":"AWS encryption key elapsed time since last rotation is above 90 days. Project: payments-prod Organization: ExampleOrg","links":[{"rel":"self","href":"https://cloud.mongodb.com/api/atlas/v2/groups/32b6e34b3d91647abb20e7b8/alerts/66f0a1b2c3d4e5f60718293a"}]}"#;
    let order = json!({ "event": "AWS_ENCRYPTION_KEY_NEEDS_ROTATION", "groupId": group(1), "secret": "whsec-example" });
    let seen = site.one("atlas", with(&order, json!({ "body": body }))).await;
    assert_eq!((seen.text(), seen.header("x-mms-signature")), (body, Some("wWW1/uEjBzTK2Yk3tFkUGdliyhs=")));
    let seen = site.one("atlas", with(&order, json!({ "body": body, "encoding": "hex" }))).await;
    assert_eq!(seen.header("x-mms-signature"), Some("c165b5fee1230734cad98937b4591419d962ca1b"));
    for forge in ["signature", "stranger"] {
        let seen = site.one("atlas", with(&order, json!({ "body": body, "forge": forge }))).await;
        assert_eq!(unbase64(seen.header("x-mms-signature").unwrap()).len(), 20);
        assert_ne!(seen.header("x-mms-signature"), Some("wWW1/uEjBzTK2Yk3tFkUGdliyhs="), "{forge}");
    }
    assert_eq!(
        site.one("atlas", with(&order, json!({ "forge": "unsigned" }))).await.header("x-mms-signature"),
        None
    );
}

#[tokio::test]
async fn an_alert_has_the_shape_of_the_api_and_a_sentence() {
    let site = Site::new().await;
    let order = json!({ "event": "AWS_ENCRYPTION_KEY_NEEDS_ROTATION", "groupId": group(1) });
    let seen = site.one("atlas", order.clone()).await;
    assert_eq!(seen.header("x-mms-event"), Some("alert.open"));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("x-mms-signature"), None, "without a secret nothing is signed");
    let alert = seen.json();
    assert_eq!((&alert["status"], &alert["groupId"]), (&json!("OPEN"), &json!(group(1))));
    assert_eq!(
        (&alert["created"], &alert["updated"]),
        (&json!("2026-11-20T03:12:45Z"), &json!("2026-11-20T03:12:45Z"))
    );
    assert!(alert["humanReadable"].as_str().unwrap().contains("payments-prod"), "{alert}");
    assert!(!names(&alert).contains(&"severity") && !names(&alert).contains(&"resolved"));
    for (action, header, status) in [
        ("close", "alert.close", "CLOSED"),
        ("cancel", "alert.cancel", "CANCELLED"),
        ("update", "alert.update", "OPEN"),
        ("acknowledge", "alert.acknowledge", "OPEN"),
        ("inform", "alert.inform", "OPEN"),
    ] {
        let seen = site.one("atlas", with(&order, json!({ "action": action }))).await;
        let alert = seen.json();
        assert_eq!((seen.header("x-mms-event"), alert["status"].as_str()), (Some(header), Some(status)));
        assert_eq!(alert["resolved"].is_string(), ["close", "cancel"].contains(&action));
        assert_eq!(alert["acknowledgedUntil"].is_string(), action == "acknowledge");
    }
    let template = json!({ "body": { "any": ["shape"] }, "headers": { "Authorization": "Bearer mine" } });
    let seen = site.one("atlas", with(&order, template)).await;
    assert_eq!(
        (seen.json(), seen.header("authorization")),
        (json!({ "any": ["shape"] }), Some("Bearer mine"))
    );
}

#[tokio::test]
async fn event_grid_sends_arrays_with_its_odd_headers() {
    let site = Site::new().await;
    let order = json!({ "key": KEY, "exp": 1_795_143_165, "url": format!("{}?code=s3", site.hook) });
    let seen = site.one("azure-event-grid", order.clone()).await;
    assert_eq!(seen.uri.query(), Some("code=s3"));
    for (name, value) in [
        ("content-type", "application/json; charset=utf-8"),
        ("aeg-event-type", "Notification"),
        ("aeg-subscription-name", "ATLAS-CMK"),
        ("aeg-delivery-count", "0"),
        ("aeg-data-version", "1"),
        ("aeg-metadata-version", "1"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    let body = seen.json();
    let event = &body[0];
    assert_eq!(body.as_array().unwrap().len(), 1);
    assert_eq!(event["eventType"], "Microsoft.KeyVault.KeyNewVersionCreated");
    assert_eq!(event["subject"], "atlas-cmk");
    assert!(event["topic"].as_str().unwrap().ends_with("/providers/Microsoft.KeyVault/vaults/kv-atlas-prod"));
    assert_eq!(event["eventTime"], "2026-11-20T03:12:45.1036736Z");
    let data = json!({
        "Id": KEY, "VaultName": "kv-atlas-prod", "ObjectType": "Key", "ObjectName": "atlas-cmk",
        "Version": "9c1e5b0c7d3a4f0f8e2b6a5d4c3b2a10", "NBF": null, "EXP": 1_795_143_165,
    });
    assert_eq!(event["data"], data);
    assert_eq!(
        names(event),
        ["data", "dataVersion", "eventTime", "eventType", "id", "metadataVersion", "subject", "topic"]
    );

    let event =
        site.one("azure-event-grid", with(&order, json!({ "documented": true }))).await.json()[0].clone();
    assert_eq!((&event["data"]["id"], &event["data"]["ObjectName "]), (&json!(KEY), &json!("atlas-cmk")));
    assert_eq!(event["data"]["EXP"], "1795143165");
    assert!(event["data"]["Version"].as_str().unwrap().starts_with(' '));
    let policy = site
        .one("azure-event-grid", with(&order, json!({ "event": "VaultAccessPolicyChanged" })))
        .await
        .json();
    assert_eq!(policy[0]["data"]["ObjectType"], "Vault");
    for event in ["KeyNearExpiry", "KeyExpired"] {
        let body = site.one("azure-event-grid", with(&order, json!({ "event": event }))).await.json();
        assert_eq!(body[0]["eventType"], format!("Microsoft.KeyVault.{event}"));
    }
    let batch = site.one("azure-event-grid", with(&order, json!({ "batch": true, "count": 3 }))).await.json();
    let ids: std::collections::BTreeSet<_> =
        batch.as_array().unwrap().iter().map(|it| it["id"].to_string()).collect();
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn event_grid_speaks_cloud_events_too() {
    let site = Site::new().await;
    let order = json!({ "key": KEY, "schema": "cloud-events" });
    let seen = site.one("azure-event-grid", order.clone()).await;
    assert_eq!(seen.header("content-type"), Some("application/cloudevents-batch+json; charset=utf-8"));
    let body = seen.json();
    assert_eq!(names(&body[0]), ["data", "id", "source", "specversion", "subject", "time", "type"]);
    assert_eq!((&body[0]["specversion"], &body[0]["data"]["Id"]), (&json!("1.0"), &json!(KEY)));
    let seen = site.one("azure-event-grid", with(&order, json!({ "array": false }))).await;
    assert_eq!(seen.header("content-type"), Some("application/cloudevents+json; charset=utf-8"));
    assert_eq!(seen.json()["type"], "Microsoft.KeyVault.KeyNewVersionCreated");
    let odd = json!({ "contentType": "application/cloudevents+json" });
    let seen = site.one("azure-event-grid", with(&order, odd)).await;
    assert!(seen.json().is_array() && seen.header("content-type") == Some("application/cloudevents+json"));
}

#[tokio::test]
async fn a_code_must_come_back_with_200() {
    let site = Site::new().await;
    let order = json!({ "event": "SubscriptionValidation" });
    let (sent, seen) = site.emit("azure-event-grid", order.clone()).await;
    let event = &seen[0].json()[0];
    assert_eq!(seen[0].header("aeg-event-type"), Some("SubscriptionValidation"));
    assert_eq!(event["eventType"], "Microsoft.EventGrid.SubscriptionValidationEvent");
    assert_eq!(sent[0]["agreed"], false, "a 202 is no answer");
    // The code is not known before it is sent, so a right answer has to be made on the spot.
    site.answer(200, &[], r#"{"validationResponse":"not the code"}"#);
    let (sent, _) = site.emit("azure-event-grid", order.clone()).await;
    assert_eq!(
        (&sent[0]["agreed"], &sent[0]["reason"]),
        (&json!(false), &json!("validationResponse is not the code"))
    );
    let echo = axum::Router::new().fallback(async |body: axum::Json<Value>| {
        axum::Json(json!({ "validationResponse": body[0]["data"]["validationCode"] }))
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    crate::support::wait::spawn(async move { axum::serve(listener, echo).await.unwrap() });
    let (sent, _) = site.emit("azure-event-grid", with(&order, json!({ "url": url }))).await;
    assert_eq!(sent[0]["agreed"], true, "{sent}");
    let link = event["data"]["validationUrl"].as_str().unwrap();
    assert_eq!(site.fetch("/sim/v1/emissions").await, "[]");
    site.fetch(link.strip_prefix(&site.sim.base_url()).unwrap()).await;
    assert!(site.fetch("/sim/v1/emissions").await.contains("validated"));
}

#[tokio::test]
async fn consent_is_a_header_and_not_a_status() {
    let site = Site::new().await;
    let order = json!({ "event": "SubscriptionValidation", "schema": "cloud-events", "rate": 120 });
    for (headers, reason) in [
        (vec![], Some("there is no WebHook-Allowed-Origin")),
        (
            vec![("webhook-allowed-origin", "example.com")],
            Some("WebHook-Allowed-Origin is example.com, not eventgrid.azure.net"),
        ),
        (
            vec![("webhook-allowed-origin", "*")],
            Some("there is no WebHook-Allowed-Rate, and a rate was asked for"),
        ),
        (vec![("webhook-allowed-origin", "eventgrid.azure.net"), ("webhook-allowed-rate", "120")], None),
        (vec![("webhook-allowed-origin", "*"), ("webhook-allowed-rate", "*")], None),
    ] {
        site.answer(200, &headers, "");
        let (sent, seen) = site.emit("azure-event-grid", order.clone()).await;
        assert_eq!((seen[0].method.as_str(), seen[0].body.len()), ("OPTIONS", 0));
        assert_eq!(seen[0].header("webhook-request-origin"), Some("eventgrid.azure.net"));
        assert_eq!(seen[0].header("webhook-request-rate"), Some("120"));
        assert_eq!((sent[0]["agreed"] == true, sent[0]["reason"].as_str()), (reason.is_none(), reason));
    }
}

#[tokio::test]
async fn a_token_of_entra_has_the_claims_that_were_seen() {
    let site = Site::new().await;
    let entra = json!({ "tenantId": TENANT, "audience": "api://keywheel" });
    let order = json!({ "key": KEY, "entra": entra });
    let seen = site.one("azure-event-grid", order.clone()).await;
    let (head, claims) = seen.token();
    assert_eq!(head["alg"], "RS256");
    assert_eq!(claims["aud"], "api://keywheel");
    assert_eq!(claims["iss"], format!("https://sts.windows.net/{TENANT}/"));
    assert_eq!((&claims["tid"], &claims["ver"]), (&json!(TENANT), &json!("1.0")));
    assert_eq!(
        (&claims["appid"], &claims["appidacr"]),
        (&json!("4962773b-9cdb-44cf-a8bf-237846a00ab7"), &json!("2"))
    );
    assert!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap() == 86_400
            && claims["roles"].is_null()
    );
    let keys = site.fetch(&format!("/senders/entra/{TENANT}/keys")).await;
    assert!(is_signed_by(&keys, &seen.header("authorization").unwrap()[7..]));
    let second = with(&order, json!({ "entra": with(&entra, json!({ "version": 2, "roles": ["Sender"] })) }));
    let (_, claims) = site.one("azure-event-grid", second).await.token();
    assert_eq!(claims["iss"], format!("https://login.microsoftonline.com/{TENANT}/v2.0"));
    assert!(claims["azp"].is_string() && claims["appid"].is_null() && claims["roles"] == json!(["Sender"]));
    for (forge, claim) in
        [("audience", "aud"), ("issuer", "iss"), ("app-id", "appid"), ("expired", "exp"), ("early", "nbf")]
    {
        let forged = site.one("azure-event-grid", with(&order, json!({ "forge": forge }))).await;
        let genuine = site.one("azure-event-grid", order.clone()).await;
        assert!(
            is_signed_by(&keys, &forged.header("authorization").unwrap()[7..]),
            "{forge} is genuinely signed"
        );
        assert_ne!(forged.token().1[claim], genuine.token().1[claim], "{forge}");
    }
    for forge in ["signature", "stranger", "alg-none", "hs256", "kid"] {
        let forged = site.one("azure-event-grid", with(&order, json!({ "forge": forge }))).await;
        assert!(!is_signed_by(&keys, &forged.header("authorization").unwrap()[7..]), "{forge}");
        let (head, claims) = forged.token();
        let wanted = match forge {
            "alg-none" => "none",
            "hs256" => "HS256",
            _ => "RS256",
        };
        assert_eq!((&head["alg"], &claims["aud"]), (&json!(wanted), &json!("api://keywheel")));
    }
    let bare = site.one("azure-event-grid", with(&order, json!({ "forge": "unsigned" }))).await;
    assert_eq!(bare.header("authorization"), None);
}

#[tokio::test]
async fn an_api_destination_has_fixed_headers_and_one_proof() {
    let site = Site::new().await;
    let order = json!({ "event": "KMS CMK Rotation", "key": CMK });
    for (proof, name, value, forged) in [
        (json!({ "apiKey": { "value": "s3cret" } }), "x-api-key", "s3cret", "s3crex"),
        (json!({ "apiKey": { "header": "x-kw", "value": "s3cret" } }), "x-kw", "s3cret", "s3crex"),
        (
            json!({ "basic": { "user": "kw", "password": "pass" } }),
            "authorization",
            "Basic a3c6cGFzcw==",
            "Basic a3c6cGFzeA==",
        ),
        (json!({ "bearer": "t0ken" }), "authorization", "Bearer t0ken", "Bearer t0kex"),
    ] {
        let order = with(&order, proof);
        let seen = site.one("aws-eventbridge", order.clone()).await;
        assert_eq!(seen.header(name), Some(value));
        for (name, value) in [
            ("user-agent", "Amazon/EventBridge/ApiDestinations"),
            ("content-type", "application/json; charset=utf-8"),
            ("range", "bytes=0-1048575"),
            ("accept-encoding", "gzip,deflate"),
            ("connection", "close"),
        ] {
            assert_eq!(seen.header(name), Some(value));
        }
        assert_eq!(
            site.one("aws-eventbridge", with(&order, json!({ "forge": "signature" }))).await.header(name),
            Some(forged)
        );
        assert_eq!(
            site.one("aws-eventbridge", with(&order, json!({ "forge": "unsigned" }))).await.header(name),
            None
        );
    }
    let two = with(&order, json!({ "bearer": "t", "apiKey": { "value": "v" } }));
    site.endpoint.seen.lock().unwrap().clear();
    site.refused("aws-eventbridge", two, "apiKey", "one of").await;
}

#[tokio::test]
async fn the_key_service_of_aws_tells_of_keys_and_cloudtrail_of_calls() {
    let site = Site::new().await;
    let id = "1234abcd-12ab-34cd-56ef-1234567890ab";
    for (event, plain, fields) in [
        ("KMS CMK Rotation", false, 5),
        ("KMS CMK Rotation", true, 1),
        ("KMS Imported Key Material Expiration", true, 1),
        ("KMS CMK Deletion", false, 1),
    ] {
        let body =
            site.one("aws-eventbridge", json!({ "event": event, "key": CMK, "plain": plain })).await.json();
        assert_eq!((&body["detail-type"], &body["source"]), (&json!(event), &json!("aws.kms")));
        assert_eq!((&body["resources"], &body["region"]), (&json!([CMK]), &json!("us-west-2")));
        assert_eq!((&body["detail"]["key-id"], names(&body["detail"]).len()), (&json!(id), fields));
    }
    let moved = json!({ "event": "UpdateAlias", "key": CMK, "alias": "alias/atlas-prod" });
    let body = site.one("aws-eventbridge", moved.clone()).await.json();
    let detail = &body["detail"];
    assert_eq!(
        (&body["detail-type"], &body["resources"]),
        (&json!("AWS API Call via CloudTrail"), &json!([]))
    );
    assert_eq!(detail["requestParameters"], json!({ "aliasName": "alias/atlas-prod", "targetKeyId": id }));
    assert!(detail["errorCode"].is_null() && detail["eventID"] != body["id"]);
    let alias = "arn:aws:kms:us-west-2:111122223333:alias/atlas-prod";
    let arns = |detail: &Value| [0, 1].map(|at| detail["resources"][at]["ARN"].as_str().unwrap().to_owned());
    assert_eq!(arns(detail), [alias, CMK]);
    let odd = json!({ "reversed": true, "targetArn": true, "errorCode": "AccessDenied" });
    let detail = site.one("aws-eventbridge", with(&moved, odd)).await.json()["detail"].clone();
    assert_eq!(
        (arns(&detail), &detail["errorCode"]),
        ([CMK, alias].map(str::to_owned), &json!("AccessDenied"))
    );
    assert_eq!(detail["requestParameters"]["targetKeyId"], CMK);
    let call = async |event: &str, fields: Value| {
        site.one("aws-eventbridge", with(&fields, json!({ "event": event }))).await.json()["detail"].clone()
    };
    assert_eq!(call("CreateAlias", moved.clone()).await["eventName"], "CreateAlias");
    let gone = call("DeleteAlias", json!({ "alias": "alias/atlas-prod" })).await;
    assert_eq!(gone["requestParameters"], json!({ "aliasName": "alias/atlas-prod" }));
    for event in ["DisableKey", "ScheduleKeyDeletion", "PutKeyPolicy"] {
        let detail = call(event, json!({ "key": id })).await;
        assert_eq!(
            (&detail["eventName"], &detail["requestParameters"]["keyId"]),
            (&json!(event), &json!(id))
        );
    }
    let shaped = json!({ "event": "DisableKey", "key": id, "body": { "groupId": "g" } });
    assert_eq!(site.one("aws-eventbridge", shaped).await.json(), json!({ "groupId": "g" }));
    site.endpoint.seen.lock().unwrap().clear();
    site.refused("aws-eventbridge", json!({ "event": "Sneeze", "key": id }), "event", "UpdateAlias").await;
    site.refused("aws-eventbridge", json!({ "event": "UpdateAlias", "key": id }), "alias", "alias/").await;
    site.refused("aws-eventbridge", json!({ "event": "DisableKey" }), "key", "about a key").await;
}

#[tokio::test]
async fn a_notification_carries_an_event_as_text() {
    let site = Site::new().await;
    let order = json!({ "topicArn": TOPIC, "event": "DisableKey", "key": CMK });
    let seen = site.one("aws-sns", order.clone()).await;
    for (name, value) in [
        ("content-type", "text/plain; charset=UTF-8"),
        ("user-agent", "Amazon Simple Notification Service Agent"),
        ("x-amz-sns-message-type", "Notification"),
        ("x-amz-sns-topic-arn", TOPIC),
    ] {
        assert_eq!(seen.header(name), Some(value));
    }
    let body = seen.json();
    assert_eq!(seen.header("x-amz-sns-message-id"), body["MessageId"].as_str());
    assert_eq!((&body["SignatureVersion"], &body["TopicArn"]), (&json!("2"), &json!(TOPIC)));
    assert!(body["Subject"].is_null() && body["UnsubscribeURL"].is_string());
    let event: Value = serde_json::from_str(body["Message"].as_str().unwrap()).unwrap();
    assert_eq!(event["detail"]["eventName"], "DisableKey");
    assert_eq!(unbase64(body["Signature"].as_str().unwrap()).len(), 256);
    let path = |body: &Value, name: &str| {
        body[name].as_str().unwrap().strip_prefix(&site.sim.base_url()).unwrap().to_owned()
    };
    let certificate = site.fetch(&path(&body, "SigningCertURL")).await;
    assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----"));
    assert_ne!(certificate, site.fetch("/senders/sns/ca.pem").await);
    for forge in ["stranger", "certificate"] {
        let other = site.one("aws-sns", with(&order, json!({ "forge": forge }))).await.json();
        assert_ne!(site.fetch(&path(&other, "SigningCertURL")).await, certificate, "{forge}");
    }
    let lambda = site.one("aws-sns", with(&order, json!({ "lambdaSpelling": true }))).await.json();
    assert!(lambda["SigningCertUrl"].is_string() && lambda["SigningCertURL"].is_null());
    let raw = site.one("aws-sns", with(&order, json!({ "rawDelivery": true }))).await;
    assert_eq!(
        (raw.header("x-amz-sns-rawdelivery"), &raw.json()["source"]),
        (Some("true"), &json!("aws.kms"))
    );
    let bare = site.one("aws-sns", with(&order, json!({ "forge": "unsigned" }))).await.json();
    assert!(bare["Signature"].is_null() && bare["SigningCertURL"].is_null());
    let elsewhere = site.one("aws-sns", with(&order, json!({ "forge": "topic" }))).await.json();
    assert_ne!(elsewhere["TopicArn"], TOPIC);
    let old = site.one("aws-sns", with(&order, json!({ "forge": "expired" }))).await.json();
    assert_eq!(old["Timestamp"], "2026-11-20T01:12:45.103Z");
}

#[tokio::test]
async fn a_confirmation_is_noted() {
    let site = Site::new().await;
    let order = json!({ "topicArn": TOPIC, "event": "SubscriptionConfirmation" });
    let seen = site.one("aws-sns", order.clone()).await;
    let body = seen.json();
    assert_eq!(seen.header("x-amz-sns-message-type"), Some("SubscriptionConfirmation"));
    assert_eq!(seen.header("x-amz-sns-subscription-arn"), None);
    let link = body["SubscribeURL"].as_str().unwrap().strip_prefix(&site.sim.base_url()).unwrap().to_owned();
    assert!(link.contains(TOPIC) && link.contains(body["Token"].as_str().unwrap()));
    assert!(site.fetch(&link).await.contains("SubscriptionArn"));
    let notes: Value = serde_json::from_str(&site.fetch("/sim/v1/emissions").await).unwrap();
    assert_eq!((&notes[0]["what"], &notes[0]["topicArn"]), (&json!("confirmed"), &json!(TOPIC)));
    assert_eq!(notes[0]["token"], body["Token"]);
    let left = site.one("aws-sns", with(&order, json!({ "event": "UnsubscribeConfirmation" }))).await;
    assert_eq!(left.json()["Type"], "UnsubscribeConfirmation");
    let trap = with(&order, json!({ "subscribeUrl": "http://169.254.169.254/latest" }));
    assert_eq!(site.one("aws-sns", trap).await.json()["SubscribeURL"], "http://169.254.169.254/latest");
}

#[tokio::test]
async fn a_push_wraps_the_log_entry() {
    let site = Site::new().await;
    let order = json!({ "key": GOOGLE, "email": "push@acme-sec.iam.gserviceaccount.com" });
    let seen = site.one("gcp-pubsub", order.clone()).await;
    let body = seen.json();
    let message = &body["message"];
    assert_eq!(
        (&message["messageId"], &message["publishTime"]),
        (&message["message_id"], &message["publish_time"])
    );
    assert_eq!(body["subscription"], "projects/acme-sec/subscriptions/atlas-cmk-push");
    assert!(body["deliveryAttempt"].is_null());
    let entry: Value = serde_json::from_slice(&unbase64(message["data"].as_str().unwrap())).unwrap();
    assert_eq!(entry["protoPayload"]["methodName"], "UpdateCryptoKeyPrimaryVersion");
    assert_eq!(entry["protoPayload"]["response"]["primary"]["name"], GOOGLE);
    assert_eq!(entry["protoPayload"]["status"], json!({}));
    assert_eq!(entry["resource"]["labels"]["crypto_key_id"], "atlas-cmk");
    let (head, claims) = seen.token();
    assert_eq!((&head["alg"], &claims["aud"]), (&json!("RS256"), &json!(site.hook)));
    assert_eq!(
        (&claims["iss"], &claims["email_verified"]),
        (&json!("https://accounts.google.com"), &json!(true))
    );
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
    let keys = site.fetch("/senders/google/certs").await;
    assert!(is_signed_by(&keys, &seen.header("authorization").unwrap()[7..]));
    for (forge, claim) in [
        ("audience", "aud"),
        ("issuer", "iss"),
        ("email", "email"),
        ("email-unverified", "email_verified"),
        ("expired", "exp"),
    ] {
        let forged = site.one("gcp-pubsub", with(&order, json!({ "forge": forge }))).await;
        assert!(is_signed_by(&keys, &forged.header("authorization").unwrap()[7..]), "{forge}");
        assert_ne!(forged.token().1[claim], claims[claim], "{forge}");
    }
    for forge in ["signature", "stranger", "alg-none", "hs256", "kid"] {
        let forged = site.one("gcp-pubsub", with(&order, json!({ "forge": forge }))).await;
        assert!(!is_signed_by(&keys, &forged.header("authorization").unwrap()[7..]), "{forge}");
    }
    let odd =
        json!({ "snakeCase": false, "deliveryAttempt": true, "subscription": "projects/p/subscriptions/s" });
    let body = site.one("gcp-pubsub", with(&order, odd)).await.json();
    assert!(body["message"]["message_id"].is_null() && body["deliveryAttempt"] == 1);
    assert_eq!(body["subscription"], "projects/p/subscriptions/s");
}

#[tokio::test]
async fn an_unwrapped_push_is_the_log_entry_itself() {
    let site = Site::new().await;
    let order = json!({ "key": GOOGLE, "wrapped": false });
    let seen = site.one("gcp-pubsub", order.clone()).await;
    assert_eq!((seen.header("x-goog-pubsub-message-id"), seen.header("authorization")), (None, None));
    assert_eq!(seen.json()["logName"], "projects/acme-sec/logs/cloudaudit.googleapis.com%2Factivity");
    let entry = async |more: Value| site.one("gcp-pubsub", with(&order, more)).await;
    let seen = entry(json!({ "writeMetadata": true })).await;
    assert!(seen.header("x-goog-pubsub-message-id").is_some());
    assert!(seen.header("x-goog-pubsub-subscription-name").unwrap().contains("/subscriptions/"));
    let method = async |more: Value| entry(more).await.json()["protoPayload"].clone();
    let long = method(json!({ "event": "CreateCryptoKeyVersion", "longNames": true })).await;
    assert_eq!(long["methodName"], "google.cloud.kms.v1.KeyManagementService.CreateCryptoKeyVersion");
    assert!(
        !long["resourceName"].as_str().unwrap().contains("Versions") && long["response"]["name"] == GOOGLE
    );
    let gone = method(json!({ "event": "DestroyCryptoKeyVersion" })).await;
    assert_eq!(gone["resourceName"], GOOGLE);
    let failed = method(json!({ "statusCode": 7 })).await;
    assert_eq!((&failed["status"]["code"], &failed["response"]), (&json!(7), &Value::Null));
    let own = entry(json!({ "event": "rotationEvent" })).await;
    let body = own.json();
    assert_eq!(
        body["jsonPayload"]["@type"],
        "type.googleapis.com/google.cloud.kms.logging.v1.CryptoKeyEvent"
    );
    assert_eq!(body["jsonPayload"]["rotationEvent"], json!({ "status": {} }));
    assert!(!own.text().contains("cryptoKeyVersions"), "the platform log names no version");
    assert_eq!(body["resource"]["type"], "cloudkms_cryptokey");
    let made = entry(json!({ "event": "keyGenerationEvent" })).await.json();
    assert_eq!(made["resource"]["labels"]["crypto_key_version_id"], "7");
    site.endpoint.seen.lock().unwrap().clear();
    site.refused("gcp-pubsub", json!({ "key": "atlas-cmk" }), "key", "projects/P").await;
    site.refused("gcp-pubsub", json!({ "key": GOOGLE, "event": "Sneeze" }), "event", "rotationEvent").await;
}
