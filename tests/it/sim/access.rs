//! Who is let in: tokens, API keys, versions, roles, addresses, limits.

use aws_lc_rs::digest::{SHA256, digest};
use md5::{Digest as _, Md5};
use serde_json::json;

use super::{BASIC, Raw, Site, V2023};
use crate::support::{group, new_key};

fn project() -> String {
    format!("GET /api/atlas/v2/groups/{}", group(1))
}

#[tokio::test]
async fn a_service_account_gets_a_token_that_works_until_it_expires() {
    let site = Site::new().await;
    let reply = site.ask_token(BASIC, "grant_type=client_credentials").await;
    let body = reply.json();
    assert_eq!(
        (reply.status, &body["expires_in"], &body["token_type"]),
        (200, &json!(3600), &json!("Bearer"))
    );
    let bearer = format!("Authorization: Bearer {}", body["access_token"].as_str().unwrap());
    let accept = format!("Accept: {V2023}");
    let get = async || site.ask(&project(), &[&bearer, &accept], "").await.unwrap();
    assert_eq!(get().await.status, 200);
    site.pass(3599);
    assert_eq!(get().await.status, 200);
    site.pass(1);
    get().await.refused(401, "UNEXPECTED_ERROR");
}

#[tokio::test]
async fn a_request_without_log_in_is_challenged() {
    let site = Site::new().await;
    let reply = site.ask(&project(), &[&format!("Accept: {V2023}")], "").await.unwrap();
    reply.refused(401, "UNEXPECTED_ERROR");
    assert!(reply.text().contains("\n  \"detail\""), "not set out in lines: {}", reply.text());
    let challenge = reply.header("www-authenticate").unwrap();
    assert!(challenge.starts_with("Digest realm=\"MMS Public API\", domain=\"\", nonce=\""), "{challenge}");
    assert!(challenge.ends_with("algorithm=MD5, qop=\"auth\", stale=false"), "{challenge}");
    assert_eq!(nonce(&reply).len(), 32);
}

#[tokio::test]
async fn an_unknown_bearer_is_refused() {
    let site = Site::new().await;
    let headers = ["Authorization: Bearer nonsense", &format!("Accept: {V2023}")];
    site.ask(&project(), &headers, "").await.unwrap().refused(401, "UNEXPECTED_ERROR");
}

#[tokio::test]
async fn the_token_endpoint_refuses_in_oauth_words() {
    let site = Site::new().await;
    let good = "grant_type=client_credentials";
    let wrong_secret = "bWRiX3NhX2lkX2RlbW86d3Jvbmc=";
    for (basic, form, status, error) in [
        (wrong_secret, good, 401, "invalid_client"),
        ("bm9ib2R5Ong=", good, 401, "invalid_client"),
        ("%%%", good, 401, "invalid_client"),
        (BASIC, "grant_type=password", 400, "unsupported_grant_type"),
        (BASIC, "scope=all", 400, "invalid_request"),
    ] {
        let reply = site.ask_token(basic, form).await;
        assert_eq!((reply.status, &reply.json()["error"]), (status, &json!(error)), "{basic} {form}");
        assert!(reply.json()["error_description"].is_string() && reply.header("x-error-code").is_none());
    }
    let headers = [&format!("Authorization: Basic {BASIC}"), "Content-Type: application/json"];
    let reply = site.ask("POST /api/oauth/token", &headers, "{}").await.unwrap();
    assert_eq!((reply.status, &reply.json()["error"]), (400, &json!("invalid_request")));
}

#[tokio::test]
async fn id_and_secret_are_form_encoded() {
    let site = Site::new().await;
    site.sim.with(|world| world.service_accounts.insert("id".to_owned(), "a+b".to_owned()));
    // "id:a%2Bb"
    assert_eq!(site.ask_token("aWQ6YSUyQmI=", "grant_type=client_credentials").await.status, 200);
}

#[tokio::test]
async fn a_service_account_has_at_most_a_hundred_live_tokens() {
    let site = Site::new().await;
    for _ in 0..100 {
        site.token().await;
    }
    let reply = site.ask_token(BASIC, "grant_type=client_credentials").await;
    assert_eq!((reply.status, &reply.json()["error"]), (403, &json!("access_denied")));
    site.pass(3600);
    site.token().await;
}

#[tokio::test]
async fn a_revoked_account_loses_its_tokens_and_gets_none() {
    let site = Site::new().await;
    let bearer = format!("Authorization: Bearer {}", site.token().await);
    site.control("POST /sim/v1/world", r#"{"revoked":["mdb_sa_id_demo"]}"#).await;
    let reply = site.ask(&project(), &[&bearer, &format!("Accept: {V2023}")], "").await.unwrap();
    reply.refused(401, "UNEXPECTED_ERROR");
    let reply = site.ask_token(BASIC, "grant_type=client_credentials").await;
    assert_eq!((reply.status, &reply.json()["error"]), (401, &json!("invalid_client")));
}

#[tokio::test]
async fn the_accept_header_must_name_a_version() {
    let site = Site::new().await;
    let bearer = format!("Authorization: Bearer {}", site.token().await);
    for (accept, status) in [
        ("application/json", 400),
        ("*/*", 400),
        ("application/vnd.atlas.2022-12-31+json", 406),
        ("application/vnd.atlas.2023-02-30+json", 406),
        ("application/vnd.atlas.soon+json", 406),
    ] {
        let reply = site.ask(&project(), &[&bearer, &format!("Accept: {accept}")], "").await.unwrap();
        reply.refused(status, "INVALID_VERSION_DATE");
    }
    site.ask(&project(), &[&bearer], "").await.unwrap().refused(400, "INVALID_VERSION_DATE");
}

#[tokio::test]
async fn the_newest_version_that_is_not_newer_is_served() {
    let site = Site::new().await;
    let reply = site.try_get(&format!("/groups/{}", group(1)), "2025-03-12").await.unwrap();
    assert_eq!(reply.header("content-type"), Some("application/vnd.atlas.2023-01-01+json;charset=utf-8"));
    assert_eq!(reply.header("sunset"), None);
    let clusters = format!("/groups/{}/clusters", group(1));
    let reply = site.try_get(&clusters, "2024-10-23").await.unwrap();
    assert_eq!(reply.header("content-type"), Some("application/vnd.atlas.2024-08-05+json;charset=utf-8"));
    let reply = site.try_get(&clusters, "2024-08-04").await.unwrap();
    assert_eq!(reply.header("content-type"), Some("application/vnd.atlas.2023-01-01+json;charset=utf-8"));
    assert_eq!(reply.header("sunset"), Some("Thu, 1 Jul 2027 00:00:00 GMT"));
    assert_eq!(reply.header("deprecation"), Some("Mon, 5 Aug 2024 00:00:00 GMT"));
}

#[tokio::test]
async fn a_credential_without_the_role_is_refused() {
    let site = Site::new().await;
    let body = r#"{"awsKms":{"customerMasterKeyID":"00000001-aaaa-4aaa-8aaa-000000000002"}}"#;
    site.control("POST /sim/v1/world", r#"{"roles":{"mdb_sa_id_demo":"read_only"}}"#).await;
    assert_eq!(site.of_group("/encryptionAtRest").await.status, 200);
    site.patch(1, body).await.refused(403, "USER_UNAUTHORIZED");
    let roles = r#"{"roles":{"mdb_sa_id_demo":"none"}}"#;
    site.control(&format!("POST /sim/v1/projects/{}", group(1)), roles).await;
    site.of_group("/encryptionAtRest").await.refused(401, "USER_CANNOT_ACCESS_GROUP");
    let list = site.get("/groups").await.json();
    assert_eq!(list["totalCount"], 11);
    site.control("POST /sim/v1/world", r#"{"roles":{}}"#).await;
    site.of_group("").await.refused(401, "USER_CANNOT_ACCESS_GROUP");
    assert_eq!(site.get(&format!("/groups/{}", group(2))).await.status, 200);
}

#[tokio::test]
async fn an_address_off_the_access_list_may_get_a_token_and_not_use_it() {
    let site = Site::new().await;
    site.control("POST /sim/v1/world", r#"{"accessList":["192.0.2.1"]}"#).await;
    let reply = site.of_group("").await;
    reply.refused(403, "IP_ADDRESS_NOT_ON_ACCESS_LIST");
    assert_eq!(reply.json()["parameters"], json!(["127.0.0.1"]));
    site.control("POST /sim/v1/world", r#"{"accessList":["192.0.2.1","127.0.0.1"]}"#).await;
    assert_eq!(site.of_group("").await.status, 200);
}

#[tokio::test]
async fn a_bucket_empties_says_so_and_fills_again() {
    let site = Site::new().await;
    assert_eq!(site.of_group("/encryptionAtRest").await.header("ratelimit-limit"), None);
    site.control("POST /sim/v1/world", r#"{"rateLimits":{"encryption":{"capacity":2,"refill":6}}}"#).await;
    for left in ["1", "0"] {
        let reply = site.of_group("/encryptionAtRest").await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("ratelimit-limit"), Some("2"));
        assert_eq!(reply.header("ratelimit-remaining"), Some(left));
    }
    let reply = site.of_group("/encryptionAtRest").await;
    reply.refused(429, "RATE_LIMITED_TOKEN_BUCKET");
    let path = format!("/api/atlas/v2/groups/{}/encryptionAtRest", group(1));
    assert_eq!(reply.json()["parameters"], json!([path, 10, 2, 6, 60]));
    assert_eq!((reply.header("retry-after"), reply.header("ratelimit-remaining")), (Some("10"), Some("0")));
    // Another project and another set have their own.
    assert_eq!(site.get(&format!("/groups/{}/encryptionAtRest", group(2))).await.status, 200);
    assert_eq!(site.of_group("/clusters").await.status, 200);
    site.pass(10);
    assert_eq!(site.of_group("/encryptionAtRest").await.status, 200);
    site.of_group("/encryptionAtRest").await.refused(429, "RATE_LIMITED_TOKEN_BUCKET");
    // It never holds more than its capacity.
    site.pass(3600);
    assert_eq!(site.of_group("/encryptionAtRest").await.header("ratelimit-remaining"), Some("1"));
}

#[tokio::test]
async fn each_endpoint_set_is_drained_by_itself() {
    let site = Site::new().await;
    let project = format!("/groups/{}", group(1));
    let org = "/orgs/65aa0000000000000000feed";
    let sets = [
        (
            "encryption",
            vec![
                format!("{project}/encryptionAtRest"),
                format!("{project}/encryptionAtRest/AWS/privateEndpoints"),
            ],
        ),
        ("clusters", vec![format!("{project}/clusters")]),
        ("alerts", vec![format!("{project}/alerts")]),
        ("events", vec![format!("{project}/events")]),
        ("groups", vec!["/groups".to_owned(), project.clone()]),
        ("users", vec![format!("{project}/users"), format!("{org}/users")]),
        ("teams", vec![format!("{project}/teams")]),
    ];
    for (drained, _) in &sets {
        let empty = json!({ "rateLimits": { *drained: { "capacity": 0, "refill": 6 } } });
        site.control("POST /sim/v1/world", &empty.to_string()).await;
        for (set, paths) in &sets {
            for path in paths {
                let version = if *set == "users" { "2025-02-19" } else { "2023-01-01" };
                let reply = site.try_get(path, version).await.unwrap();
                if set == drained {
                    reply.refused(429, "RATE_LIMITED_TOKEN_BUCKET");
                    assert_eq!(reply.header("retry-after"), Some("10"), "{path}");
                } else {
                    assert_ne!(reply.status, 429, "{path} while {drained} is drained");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_log_names_the_credential_and_no_secret() {
    let site = Site::new().await;
    site.of_group("").await;
    site.ask(&project(), &["Authorization: Bearer nonsense"], "").await.unwrap();
    let log = site.sim.log();
    let seen: Vec<_> =
        log.iter().map(|it| (it.operation.as_str(), it.credential.as_deref(), it.status)).collect();
    let demo = Some("mdb_sa_id_demo");
    assert_eq!(
        seen,
        [("token", demo, Some(200)), ("get_group", demo, Some(200)), ("get_group", None, Some(401))]
    );
    assert!(!format!("{log:?}").contains("mdb_sa_sk"));
}

fn nonce(reply: &Raw) -> String {
    let challenge = reply.header("www-authenticate").unwrap();
    challenge.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

fn md5(text: &str) -> String {
    hex::encode(Md5::digest(text))
}

fn sha256(text: &str) -> String {
    hex::encode(digest(&SHA256, text.as_bytes()))
}

/// Answers a challenge to a GET, computed from RFC 7616 and from nothing else.
fn answer(hash: fn(&str) -> String, algorithm: &str, secret: &str, uri: &str, nonce: &str) -> String {
    answer_to("GET", hash, algorithm, secret, uri, nonce)
}

fn answer_to(
    method: &str,
    hash: fn(&str) -> String,
    algorithm: &str,
    secret: &str,
    uri: &str,
    nonce: &str,
) -> String {
    let who = hash(&format!("pubkey:MMS Public API:{secret}"));
    let what = hash(&format!("{method}:{uri}"));
    let response = hash(&format!("{who}:{nonce}:00000001:0a4f113b:auth:{what}"));
    format!(
        "Authorization: Digest username=\"pubkey\", realm=\"MMS Public API\", nonce=\"{nonce}\", uri=\"{uri}\", \
         algorithm={algorithm}, qop=auth, nc=00000001, cnonce=\"0a4f113b\", response=\"{response}\""
    )
}

async fn with_api_key() -> (Site, String) {
    let site = Site::new().await;
    site.control("POST /sim/v1/world", r#"{"apiKeys":{"pubkey":"private"},"nonceLife":30}"#).await;
    let uri = format!("/api/atlas/v2/groups/{}/clusters?itemsPerPage=5", group(1));
    (site, uri)
}

async fn asked(site: &Site, uri: &str, authorization: &str) -> Raw {
    site.ask(&format!("GET {uri}"), &[authorization, &format!("Accept: {V2023}")], "").await.unwrap()
}

#[tokio::test]
async fn an_api_key_logs_in_by_digest() {
    let (site, uri) = with_api_key().await;
    let nonce = nonce(&asked(&site, &uri, "X-None: 1").await);
    let good = answer(md5, "MD5", "private", &uri, &nonce);
    assert_eq!(asked(&site, &uri, &good).await.status, 200);
    assert_eq!(site.sim.log().last().unwrap().credential.as_deref(), Some("pubkey"));
    // MD5 is what no algorithm means.
    assert_eq!(asked(&site, &uri, &good.replace("algorithm=MD5, ", "")).await.status, 200);
}

#[tokio::test]
async fn a_wrong_digest_gets_a_new_challenge() {
    let (site, uri) = with_api_key().await;
    let first = nonce(&asked(&site, &uri, "X-None: 1").await);
    let good = answer(md5, "MD5", "private", &uri, &first);
    for bad in [
        answer(md5, "MD5", "wrong", &uri, &first),
        answer(sha256, "SHA-256", "private", &uri, &first),
        answer(md5, "MD5", "private", "/elsewhere", &first),
        good.replace("username=\"pubkey\"", "username=\"nobody\""),
        good.replace("MMS Public API", "Another"),
        good.replace("uri=\"/api", "uri=\"/elsewhere"),
        good.replace("qop=auth", "qop=auth-int"),
        "Authorization: Digest nonsense".to_owned(),
    ] {
        let reply = asked(&site, &uri, &bad).await;
        reply.refused(401, "UNEXPECTED_ERROR");
        assert!(reply.head.contains("stale=false") && nonce(&reply) != first, "{bad}");
    }
    site.control("POST /sim/v1/world", r#"{"revoked":["pubkey"]}"#).await;
    asked(&site, &uri, &good).await.refused(401, "UNEXPECTED_ERROR");
}

#[tokio::test]
async fn an_old_nonce_is_refused_with_a_new_one_with_or_without_saying_stale() {
    let (site, uri) = with_api_key().await;
    for says in [false, true] {
        site.sim.with(|world| world.says_stale = says);
        let old = nonce(&asked(&site, &uri, "X-None: 1").await);
        site.pass(30);
        let reply = asked(&site, &uri, &answer(md5, "MD5", "private", &uri, &old)).await;
        reply.refused(401, "UNEXPECTED_ERROR");
        assert!(reply.header("www-authenticate").unwrap().ends_with(&format!("stale={says}")));
        let new = nonce(&reply);
        assert_ne!(old, new);
        assert_eq!(asked(&site, &uri, &answer(md5, "MD5", "private", &uri, &new)).await.status, 200);
    }
}

#[tokio::test]
async fn digest_with_sha_256_where_it_is_asked_for() {
    let (site, uri) = with_api_key().await;
    site.control("POST /sim/v1/world", r#"{"digestAlgorithm":"SHA-256"}"#).await;
    let reply = asked(&site, &uri, "X-None: 1").await;
    assert!(reply.header("www-authenticate").unwrap().contains("algorithm=SHA-256,"));
    let nonce = nonce(&reply);
    assert_eq!(asked(&site, &uri, &answer(sha256, "SHA-256", "private", &uri, &nonce)).await.status, 200);
    asked(&site, &uri, &answer(md5, "MD5", "private", &uri, &nonce)).await.refused(401, "UNEXPECTED_ERROR");
}

#[tokio::test]
async fn an_api_key_changes_a_key_and_is_named_in_the_event() {
    let (site, _) = with_api_key().await;
    let uri = format!("/api/atlas/v2/groups/{}/encryptionAtRest", group(1));
    let body = format!(r#"{{"awsKms":{{"customerMasterKeyID":"{}"}}}}"#, new_key());
    let patch = async |authorization: &str| {
        let headers = [authorization, &format!("Accept: {V2023}"), "Content-Type: application/json"];
        site.ask(&format!("PATCH {uri}"), &headers, &body).await.unwrap()
    };
    let nonce = nonce(&patch("X-None: 1").await);
    // The method is part of what is signed.
    let for_get = answer(md5, "MD5", "private", &uri, &nonce);
    patch(&for_get).await.refused(401, "UNEXPECTED_ERROR");
    assert_eq!(patch(&answer_to("PATCH", md5, "MD5", "private", &uri, &nonce)).await.status, 200);
    let events = site.of_group("/events").await.json();
    assert_eq!(events["results"][0]["publicKey"], "pubkey");
    let tries: Vec<_> = site.sim.log().into_iter().filter(|it| it.operation == "patch_ear").collect();
    assert_eq!(tries.iter().map(|it| it.applied_at.is_some()).collect::<Vec<_>>(), [false, false, true]);
}
