//! What leaves, and what is read from good replies.

use std::time::Duration;

use keywheel::config::PatchBody;
use keywheel::domain::event::Actor;
use keywheel::domain::key::{KeyRef, Provider};
use keywheel::domain::rotation::outcome::{Class, PatchReply};

use super::fake::{Fake, GENEROUS, ok, reply};
use super::{ARN, AZURE, GCP, build, client, enabled, group, key};

const PATH: &str = "/api/atlas/v2/groups/32b6e34b3d91647abb20e7b8/encryptionAtRest";

fn body(request: &str) -> &str {
    request.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test]
async fn a_look_is_one_get_of_the_one_version() {
    let fake = Fake::start([ok(&enabled(ARN))]).await;
    client(&fake).observe().await.unwrap();
    assert_eq!(
        fake.calls(),
        [format!(
            "GET {PATH} HTTP/1.1\r\n\
             authorization: Bearer tok-1\r\n\
             accept: application/vnd.atlas.2023-01-01+json\r\n\
             user-agent: keywheel/0.1.0\r\n\
             accept-encoding: gzip\r\n\
             host: HOST\r\n\
             \r\n"
        )]
    );
}

#[tokio::test]
async fn a_change_sends_the_key_and_nothing_else() {
    for (provider, text, sent) in [
        (Provider::Aws, ARN, format!(r#"{{"awsKms":{{"customerMasterKeyID":"{ARN}"}}}}"#)),
        (Provider::Azure, AZURE, format!(r#"{{"azureKeyVault":{{"keyIdentifier":"{AZURE}"}}}}"#)),
        (Provider::Gcp, GCP, format!(r#"{{"googleCloudKms":{{"keyVersionResourceID":"{GCP}"}}}}"#)),
    ] {
        let fake = Fake::start([ok("{}")]).await;
        let reply = client(&fake).atlas.set_key("default", &group(), &key(provider, text), GENEROUS).await;
        assert_eq!(reply, PatchReply::Accepted);
        let length = sent.len();
        assert_eq!(
            fake.calls(),
            [format!(
                "PATCH {PATH} HTTP/1.1\r\n\
                 authorization: Bearer tok-1\r\n\
                 accept: application/vnd.atlas.2023-01-01+json\r\n\
                 content-type: application/vnd.atlas.2023-01-01+json\r\n\
                 user-agent: keywheel/0.1.0\r\n\
                 accept-encoding: gzip\r\n\
                 host: HOST\r\n\
                 content-length: {length}\r\n\
                 \r\n\
                 {sent}"
            )]
        );
    }
}

#[tokio::test]
async fn putting_a_key_back_sends_what_atlas_had() {
    let fake = Fake::start([ok("{}")]).await;
    let odd = KeyRef::observed(Provider::Azure, "https://KV-PROD.vault.azure.net/keys/cmk/");
    client(&fake).atlas.set_key("default", &group(), &odd, GENEROUS).await;
    assert!(body(&fake.calls()[0]).contains("https://KV-PROD.vault.azure.net/keys/cmk/"));
}

async fn whole_block(config: &str, key: &KeyRef) -> (PatchReply, Vec<String>) {
    let fake = Fake::start([ok(config), ok("{}")]).await;
    let setup = build(&fake.url, 9, PatchBody::WholeBlock, GENEROUS);
    let reply = setup.atlas.set_key("default", &group(), key, GENEROUS).await;
    (reply, fake.calls())
}

#[tokio::test]
async fn a_whole_block_is_the_block_seen_with_the_key_replaced() {
    let config = r#"{"awsKms":{"enabled":false},"azureKeyVault":{"enabled":true,"valid":true,"clientID":"c","secret":null,
        "keyIdentifier":"https://kv-prod.vault.azure.net/keys/cmk/00000000000000000000000000000000","future":[1]}}"#;
    let (reply, calls) = whole_block(config, &key(Provider::Azure, AZURE)).await;
    assert_eq!(reply, PatchReply::Accepted);
    let sent: serde_json::Value = serde_json::from_str(body(&calls[1])).unwrap();
    let expected = serde_json::json!({"azureKeyVault":
        {"enabled": true, "clientID": "c", "keyIdentifier": AZURE, "future": [1]}});
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn a_whole_block_with_a_role_carries_no_static_secret() {
    let config = format!(
        r#"{{"awsKms":{{"enabled":true,"roleId":"32b6e34b3d91647abb20e7b8","accessKeyID":"AKIA","secretAccessKey":"s",
        "secret":"s","serviceAccountKey":"s","customerMasterKeyID":"{ARN}","valid":true}}}}"#
    );
    let (_, calls) = whole_block(&config, &key(Provider::Aws, ARN)).await;
    let sent: serde_json::Value = serde_json::from_str(body(&calls[1])).unwrap();
    let expected = serde_json::json!({"awsKms":
        {"enabled": true, "roleId": "32b6e34b3d91647abb20e7b8", "customerMasterKeyID": ARN}});
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn a_whole_block_never_turns_encryption_back_on() {
    let (reply, calls) = whole_block(r#"{"awsKms":{"enabled":false}}"#, &key(Provider::Aws, ARN)).await;
    assert!(matches!(&reply, PatchReply::NotTaken(failure) if failure.class == Class::Config), "{reply:?}");
    assert_eq!(calls.len(), 1);
}

#[tokio::test]
async fn an_observation_says_key_place_validity_and_network() {
    let config = format!(
        r#"{{"awsKms":{{"enabled":true,"valid":true,"customerMasterKeyID":"{ARN}","region":"US_GOV_WEST_1",
        "requirePrivateNetworking":true}},"azureKeyVault":{{"enabled":false}},"googleCloudKms":{{"enabled":false}}}}"#
    );
    let fake = Fake::start([ok(&config)]).await;
    let seen = client(&fake).observe().await.unwrap();
    assert_eq!(seen.at, super::noon());
    assert_eq!(seen.provider, Some(Provider::Aws));
    assert_eq!(seen.key, Some(key(Provider::Aws, ARN)));
    assert_eq!((seen.valid, seen.private_networking), (Some(true), true));
    assert_eq!(seen.place.aws_region.as_deref(), Some("us-gov-west-1"));
    assert_eq!(seen.block_hash.len(), 64);
}

#[tokio::test]
async fn nulls_unknown_fields_and_unknown_values_are_borne() {
    let config = format!(
        r#"{{"awsKms":null,"azureKeyVault":{{"enabled":true,"valid":null,"keyIdentifier":"{AZURE}","keyVaultName":"kv-prod",
        "azureEnvironment":"AZURE_MOON","requirePrivateNetworking":null,"new":{{"deep":[null]}}}},
        "googleCloudKms":{{"enabled":null,"valid":false,"keyVersionResourceID":null}},"oracleKms":{{"enabled":true}}}}"#
    );
    let fake = Fake::start([ok(&config)]).await;
    let seen = client(&fake).observe().await.unwrap();
    assert_eq!(seen.key, Some(key(Provider::Azure, AZURE)));
    assert_eq!((seen.valid, seen.private_networking), (None, false));
    assert_eq!(seen.place.azure_vault.as_deref(), Some("kv-prod"));
}

#[tokio::test]
async fn validity_has_three_values() {
    for (field, valid) in [
        ("", None),
        (r#","valid":null"#, None),
        (r#","valid":false"#, Some(false)),
        (r#","valid":true"#, Some(true)),
    ] {
        let config =
            format!(r#"{{"googleCloudKms":{{"enabled":true,"keyVersionResourceID":"{GCP}"{field}}}}}"#);
        let fake = Fake::start([ok(&config)]).await;
        assert_eq!(client(&fake).observe().await.unwrap().valid, valid, "{field}");
    }
}

#[tokio::test]
async fn disabled_encryption_and_a_second_provider_are_seen() {
    let both = format!(
        r#"{{"googleCloudKms":{{"enabled":true,"keyVersionResourceID":"{GCP}"}},
        "awsKms":{{"enabled":true,"customerMasterKeyID":"alias/prod","region":"GLOBAL"}}}}"#
    );
    let fake = Fake::start([ok(r#"{"awsKms":{"enabled":false},"azureKeyVault":{}}"#), ok(&both)]).await;
    let setup = client(&fake);
    let none = setup.observe().await.unwrap();
    assert_eq!((none.provider, none.key, none.valid), (None, None, None));
    let first = setup.observe().await.unwrap();
    assert_eq!(first.provider, Some(Provider::Aws));
    assert_eq!(first.key.unwrap().to_string(), "alias/prod");
    assert_eq!(first.place.aws_region, None);
}

#[tokio::test]
async fn the_hash_of_a_block_ignores_order_nulls_key_and_validity() {
    let block = |fields: &str| format!(r#"{{"awsKms":{{"enabled":true,{fields}}}}}"#);
    let fake = Fake::start([
        ok(&block(r#""region":"US_EAST_1","roleId":"a","x":{"a":1,"b":2},"customerMasterKeyID":"one","valid":true"#)),
        ok(&block(r#""x":{"b":2,"a":1},"accessKeyID":null,"roleId":"a","customerMasterKeyID":"two","region":"US_EAST_1""#)),
        ok(&block(r#""x":{"b":2,"a":1},"roleId":"b","region":"US_EAST_1""#)),
    ])
    .await;
    let setup = client(&fake);
    let mut hashes = Vec::new();
    for _ in 0..3 {
        hashes.push(setup.observe().await.unwrap().block_hash);
    }
    assert_eq!(hashes[0], hashes[1]);
    assert_ne!(hashes[0], hashes[2]);
}

#[tokio::test]
async fn the_clocks_difference_is_measured_where_atlas_says_the_time() {
    for (date, skew) in [
        ("Date: Mon, 23 Nov 2026 11:57:00 GMT\r\n", Some(180_000)),
        ("Date: Sun, 1 Nov 2026 12:00:00 GMT\r\n", Some(22 * 86_400_000)),
        ("Date: Mon, 23 Nov 2026 12:00:05 GMT\r\n", Some(-5_000)),
        ("Date: today\r\n", None),
        ("", None),
    ] {
        let fake = Fake::start([reply(200, date, enabled(ARN))]).await;
        assert_eq!(client(&fake).observe().await.unwrap().skew_ms, skew, "{date}");
    }
}

#[tokio::test]
async fn clusters_are_read_page_by_page_from_our_own_addresses() {
    let pages = [
        r#"{"results":[{"name":"a","stateName":"IDLE","encryptionAtRestProvider":"AWS","paused":null,"replicationSpecs":[
              {"regionConfigs":[{"regionName":"EU_WEST_1","electableSpecs":{"instanceSize":"M30"}},
              {"regionName":"EU_CENTRAL_1","electableSpecs":{"instanceSize":"M30"}}]},{"regionConfigs":"?"}]},
            {"name":"b","stateName":"IDLE","encryptionAtRestProvider":"NONE"},
            {"name":"c","encryptionAtRestProvider":"AWS","stateName":"LEVITATING","paused":true}],
            "links":[{"rel":"self","href":"x"},{"rel":"next","href":"https://evil.example/next"}]}"#,
        r#"{"results":[{"name":"d","encryptionAtRestProvider":"AWS"},{"name":"e"}],"links":null,"totalCount":9}"#,
    ];
    let fake = Fake::start(pages.map(ok)).await;
    let clusters =
        client(&fake).atlas.cmk_clusters("default", &group(), Provider::Aws, GENEROUS).await.unwrap();
    let shown: Vec<_> = clusters.iter().map(|it| (it.name.as_str(), it.state.as_str(), it.paused)).collect();
    assert_eq!(shown, [("a", "IDLE", false), ("c", "LEVITATING", true), ("d", "UNKNOWN", false)]);
    assert_eq!(clusters[0].label(), "a (M30, EU_CENTRAL_1, EU_WEST_1)");
    assert_eq!(clusters[1].label(), "c (paused)");
    for (call, page) in fake.calls().iter().zip(1..) {
        let path = format!("/api/atlas/v2/groups/{}/clusters?itemsPerPage=50&pageNum={page}", super::GROUP);
        assert!(call.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{call}");
        assert!(call.contains("accept: application/vnd.atlas.2024-08-05+json\r\n"), "{call}");
    }
}

#[tokio::test]
async fn the_alert_about_an_unreachable_key_service_is_found() {
    let other = r#"{"results":[{"eventTypeName":"OUTSIDE_METRIC_THRESHOLD","status":"OPEN"},{"eventTypeName":null},
        {"eventTypeName":"ENCRYPTION_AT_REST_KMS_NETWORK_ACCESS_DENIED","status":"CLOSED"}],"links":[]}"#;
    let denied =
        r#"{"results":[{"eventTypeName":"ENCRYPTION_AT_REST_KMS_NETWORK_ACCESS_DENIED","status":"OPEN"}]}"#;
    let fake = Fake::start([ok(other), ok(denied), ok(r#"{"results":{}}"#)]).await;
    let setup = client(&fake);
    assert_eq!(setup.atlas.network_denied("default", &group(), GENEROUS).await, Ok(false));
    assert_eq!(setup.atlas.network_denied("default", &group(), GENEROUS).await, Ok(true));
    let failure = setup.atlas.network_denied("default", &group(), GENEROUS).await.unwrap_err();
    assert_eq!(failure.class, Class::Unknown);
    assert!(fake.calls()[0].contains("/alerts?status=OPEN&itemsPerPage=50&pageNum=1 "));
}

#[tokio::test]
async fn a_projects_name_is_kept_as_it_is() {
    let own = format!(r#"{{"id":"{}","name":"<b>Zahlungen</b> é"}}"#, group());
    let other = r#"{"id":"ffffffffffffffffffffffff","name":"another"}"#;
    let fake = Fake::start([ok(&own), ok("[]"), ok(other)]).await;
    let setup = client(&fake);
    assert_eq!(setup.atlas.group("default", &group(), GENEROUS).await.unwrap().name, "<b>Zahlungen</b> é");
    for _ in 0..2 {
        assert!(setup.atlas.group("default", &group(), GENEROUS).await.is_err());
    }
}

#[tokio::test]
async fn events_about_the_key_are_read_with_who_did_it() {
    let first = r#"{"results":[
        {"id":"a","created":"2026-11-20T08:00:00Z","eventTypeName":"AWS_ENCRYPTION_KEY_ROTATED","username":"eve@example.com"},
        {"id":"b","created":"2026-11-21T08:00:00Z","eventTypeName":"AWS_ENCRYPTION_KEY_ROTATED","publicKey":"abcdefgh","apiKeyId":"x"},
        {"id":"x","created":"2026-11-21T09:00:00Z","eventTypeName":"SOMETHING_NEW","username":"eve@example.com"}],
        "links":[{"rel":"next","href":"https://evil.example/"}]}"#;
    let second = r#"{"results":[
        {"id":"c","created":"2026-11-22T08:00:00Z","eventTypeName":"GCP_ENCRYPTION_KEY_ROTATED","publicKey":"mdb_sa_id_1"},
        {"id":"d","created":"2026-11-19T08:00:00Z","eventTypeName":"AWS_ENCRYPTION_KEY_ROTATED","username":null},
        {"id":"e","created":"soon","eventTypeName":"AWS_ENCRYPTION_KEY_ROTATED"}]}"#;
    let fake = Fake::start([ok(first), ok(second)]).await;
    let since = "2026-11-01T00:00:00.5Z".parse().unwrap();
    let events = client(&fake).atlas.key_events("default", &group(), since, GENEROUS).await.unwrap();
    let shown: Vec<_> = events.iter().map(|it| (it.id.as_str(), it.by.clone())).collect();
    let (eve, key) = (Actor::Person("eve@example.com".to_owned()), Actor::ApiKey("abcdefgh".to_owned()));
    let account = Actor::ServiceAccount("mdb_sa_id_1".to_owned());
    assert_eq!(shown, [("c", account), ("b", key), ("a", eve), ("d", Actor::Unsaid)]);
    assert!(
        fake.calls()[0].contains(
            "/events?eventType=AWS_ENCRYPTION_KEY_ROTATED&eventType=AZURE_ENCRYPTION_KEY_ROTATED&\
             eventType=GCP_ENCRYPTION_KEY_ROTATED&minDate=2026-11-01T00:00:00Z&includeCount=false&\
             itemsPerPage=200&pageNum=1 "
        ),
        "{}",
        fake.calls()[0]
    );
}

#[tokio::test]
async fn the_lowest_level_of_the_last_minute_is_kept_for_each_endpoint_set() {
    let list = r#"{"results":[]}"#;
    let at = |limits: &str| reply(200, &format!("Content-Type: application/json\r\n{limits}"), list);
    let fake = Fake::start([
        at("Ratelimit-Limit: 1200\r\nRATELIMIT-REMAINING: 1100\r\n"),
        at("RateLimit-Remaining: 7\r\n"),
        at("ratelimit-limit: 1200\r\nratelimit-remaining: 1199\r\n"),
        at("ratelimit-limit: 5\r\n"),
        at("ratelimit-limit: many\r\nratelimit-remaining: -1\r\n"),
        at("ratelimit-limit: 10000\r\nratelimit-remaining: 9999\r\n"),
        at("ratelimit-limit: 1200\r\nratelimit-remaining: 1198\r\n"),
    ])
    .await;
    let (setup, group) = (client(&fake), group());
    let levels = || {
        let levels = setup.atlas.levels();
        levels
            .into_iter()
            .map(|it| (it.credential, it.set.as_str(), it.limit, it.remaining))
            .collect::<Vec<_>>()
    };
    let alerts = async || setup.atlas.network_denied("default", &group, GENEROUS).await.unwrap();
    let row = |set, limit, remaining| ("default".to_owned(), set, limit, remaining);
    assert_eq!(levels(), []);
    alerts().await;
    assert_eq!(levels(), [row("alerts", Some(1200), 1100)]);
    for _ in 0..4 {
        // A level without its limit, a higher one, and two that do not name a level.
        alerts().await;
        assert_eq!(levels(), [row("alerts", None, 7)]);
    }
    setup.atlas.cmk_clusters("default", &group, Provider::Aws, GENEROUS).await.unwrap();
    assert_eq!(levels(), [row("clusters", Some(10_000), 9999), row("alerts", None, 7)]);
    setup.clock.advance(Duration::from_mins(1));
    alerts().await;
    assert_eq!(levels(), [row("clusters", Some(10_000), 9999), row("alerts", Some(1200), 1198)]);
}

#[tokio::test]
async fn owners_are_active_people_with_the_role() {
    let people = r#"{"results":[
        {"username":"ada@example.com","roles":["GROUP_OWNER"],"orgMembershipStatus":"ACTIVE"},
        {"username":"bob@example.com","roles":["GROUP_READ_ONLY"],"orgMembershipStatus":"ACTIVE"},
        {"username":"new@example.com","roles":["GROUP_OWNER"],"orgMembershipStatus":"PENDING"},
        {"username":"old@example.com","roles":["GROUP_OWNER"],"orgMembershipStatus":"INVITATION_EXPIRED"},
        {"username":"odd@example.com","roles":null,"orgMembershipStatus":"ACTIVE"}]}"#;
    let org = r#"{"results":[
        {"username":"org@example.com","roles":{"orgRoles":["ORG_OWNER"]},"orgMembershipStatus":"ACTIVE"},
        {"username":"member@example.com","roles":{"orgRoles":["ORG_MEMBER"]},"orgMembershipStatus":"ACTIVE"},
        {"username":"soon@example.com","roles":{"orgRoles":["ORG_OWNER"]},"orgMembershipStatus":"PENDING"}]}"#;
    let teams = r#"{"results":[{"teamId":"65bb00000000000000000001","roleNames":["GROUP_OWNER"]},
        {"teamId":"65bb00000000000000000002","roleNames":["GROUP_READ_ONLY"]},{"teamId":"../../orgs","roleNames":[]}]}"#;
    let members = r#"{"results":[{"username":"tea@example.com","orgMembershipStatus":"ACTIVE"},
        {"username":"t2@example.com","orgMembershipStatus":"PENDING"}]}"#;
    let fake = Fake::start([people, org, teams, members, r#"{"name":"platform"}"#].map(ok)).await;
    let (setup, group) = (client(&fake), group());
    let atlas = &setup.atlas;
    let owners = atlas.project_owners("default", &group, GENEROUS).await.unwrap();
    assert_eq!(owners, ["ada@example.com"]);
    assert_eq!(atlas.org_owners("default", "o", GENEROUS).await.unwrap(), ["org@example.com"]);
    let teams = atlas.teams("default", &group, GENEROUS).await.unwrap();
    assert_eq!(teams.iter().map(|it| it.owns).collect::<Vec<_>>(), [true, false]);
    let team = atlas.team_members("default", "o", &teams[0].id, GENEROUS).await.unwrap();
    assert_eq!(team, ["tea@example.com"]);
    assert_eq!(atlas.team_name("default", "o", &teams[0].id, GENEROUS).await.unwrap(), "platform");
    let calls = fake.calls();
    for (number, version) in [(0, "2025-02-19"), (1, "2025-02-19"), (2, "2023-01-01"), (3, "2025-02-19")] {
        assert!(calls[number].contains(&format!("accept: application/vnd.atlas.{version}+json")), "{number}");
    }
}

#[tokio::test]
async fn only_a_list_that_is_read_to_its_end_must_have_one() {
    let page = r#"{"results":[{"id":"32b6e34b3d91647abb20e7b8"}],"links":[{"rel":"next","href":"x"}]}"#;
    let fake = Fake::start((0..201).map(|_| ok(page))).await;
    let setup = client(&fake);
    assert!(setup.atlas.groups("default", 200, 50, GENEROUS).await.unwrap().more);
    let failure = setup.atlas.network_denied("default", &group(), GENEROUS).await.unwrap_err();
    assert_eq!((failure.detail.as_str(), fake.calls().len()), ("Atlas' list does not end", 201));
}

#[tokio::test]
async fn the_list_of_projects_is_read_page_by_page() {
    let page = r#"{"results":[
        {"id":"32b6e34b3d91647abb20e7b8","name":"a","orgId":"65aa0000000000000000feed","clusterCount":3,
         "tags":[{"key":"environment","value":"prod"},{"key":7}]},
        {"id":"32b6e34b3d91647abb20e7b9","name":"b","orgId":"../x"},{"id":"no id"}],
        "links":[{"rel":"next","href":"x"}],"totalCount":51}"#;
    let fake = Fake::start([ok(page)]).await;
    let setup = client(&fake);
    let found = setup.atlas.groups("default", 2, 9000, GENEROUS).await.unwrap();
    assert_eq!((found.more, found.total, found.groups.len()), (true, Some(51), 2));
    let first = &found.groups[0];
    assert_eq!((first.name.as_str(), first.clusters), ("a", Some(3)));
    assert_eq!(first.tags, [("environment".to_owned(), "prod".to_owned())]);
    assert_eq!((&found.groups[1].org, found.groups[1].clusters), (&None, None));
    assert!(fake.calls()[0].starts_with("GET /api/atlas/v2/groups?itemsPerPage=500&pageNum=2 "));
    assert_eq!(setup.atlas.identity("default").as_deref(), Some("mdb_sa_id_1"));
    assert_eq!((setup.atlas.identity("none"), setup.atlas.credentials()), (None, vec!["default".to_owned()]));
}
