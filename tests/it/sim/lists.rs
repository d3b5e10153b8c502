//! Lists: pages, clusters, people, backups, events and alerts.

use keywheel::sim::world::KeyState;
use serde_json::{Value, json};

use super::{Raw, Site};
use crate::support::{group, new_key, old_key};

fn column(list: &Value, field: &str) -> Vec<String> {
    let items = list["results"].as_array().unwrap();
    items.iter().map(|it| it[field].as_str().unwrap().to_owned()).collect()
}

fn rels(list: &Value) -> Vec<&str> {
    list["links"].as_array().unwrap().iter().map(|it| it["rel"].as_str().unwrap()).collect()
}

async fn set(site: &Site, fields: &Value) {
    site.control(&format!("POST /sim/v1/projects/{}", group(1)), &fields.to_string()).await;
}

#[tokio::test]
async fn a_list_comes_in_pages() {
    let site = Site::new().await;
    let first = site.get("/groups?itemsPerPage=5&pageNum=1").await.json();
    assert_eq!((column(&first, "name").len(), &first["totalCount"]), (5, &json!(12)));
    assert_eq!(rels(&first), ["self", "next"]);
    assert_eq!(first["links"][1]["href"], "http://sim.example/api/atlas/v2/groups?itemsPerPage=5&pageNum=2");
    let last = site.get("/groups?itemsPerPage=5&pageNum=3&includeCount=false").await.json();
    assert_eq!((column(&last, "name").len(), rels(&last)), (2, vec!["self", "previous"]));
    assert!(last.get("totalCount").is_none());
    let beyond = site.get("/groups?itemsPerPage=5&pageNum=99").await.json();
    assert_eq!((beyond["results"].as_array().unwrap().len(), rels(&beyond)), (0, vec!["self", "previous"]));
    let all = site.get("/groups").await.json();
    assert_eq!((column(&all, "id")[0].clone(), rels(&all)), (group(1), vec!["self"]));
    site.control("POST /sim/v1/world", r#"{"odd":{"linksElsewhere":true}}"#).await;
    let elsewhere = site.get("/groups").await.json();
    assert!(elsewhere["links"][0]["href"].as_str().unwrap().starts_with("http://atlas.invalid/"));
}

#[tokio::test]
async fn page_numbers_must_make_sense() {
    let site = Site::new().await;
    for query in ["pageNum=0", "pageNum=x", "itemsPerPage=0", "itemsPerPage=501", "itemsPerPage=-1"] {
        site.get(&format!("/groups?{query}")).await.refused(400, "VALIDATION_ERROR");
    }
}

#[tokio::test]
async fn clusters_update_after_a_change_of_the_key_and_then_rest() {
    let site = Site::new().await;
    set(&site, &json!({"updateAfterMs": 1000, "updateTakesMs": 2000})).await;
    let state = async || {
        let list = site.of_group("/clusters").await.json();
        assert_eq!(column(&list, "encryptionAtRestProvider"), ["AWS"]);
        column(&list, "stateName")[0].clone()
    };
    assert_eq!(state().await, "IDLE");
    site.patch(1, &format!(r#"{{"awsKms":{{"customerMasterKeyID":"{}"}}}}"#, new_key())).await;
    assert_eq!(state().await, "IDLE");
    site.pass(1);
    assert_eq!(state().await, "UPDATING");
    site.pass(2);
    assert_eq!(state().await, "IDLE");
    set(&site, &json!({"clusters": [{"name": "c", "held": "REPAIRING"}]})).await;
    assert_eq!(state().await, "REPAIRING");
}

#[tokio::test]
async fn people_of_teams_and_of_the_organisation_are_shown_only_on_request() {
    let site = Site::new().await;
    let users = json!({"users": [
        {"username": "ada@example.com", "roles": ["GROUP_OWNER"]},
        {"username": "bob@example.com", "status": "PENDING"},
        {"username": "team@example.com", "roles": ["GROUP_OWNER"], "via": "team"},
        {"username": "org@example.com", "roles": ["ORG_OWNER"], "via": "org"},
    ]});
    set(&site, &users).await;
    let list = async |query: &str| {
        let path = format!("/groups/{}/users{query}", group(1));
        site.try_get(&path, "2025-02-19").await.unwrap().json()
    };
    let plain = list("").await;
    assert_eq!(column(&plain, "username"), ["ada@example.com", "bob@example.com"]);
    assert_eq!(column(&plain, "orgMembershipStatus"), ["ACTIVE", "PENDING"]);
    assert_eq!(plain["results"][0]["roles"], json!(["GROUP_OWNER"]));
    assert_eq!(column(&list("?flattenTeams=true").await, "username").len(), 3);
    assert_eq!(column(&list("?flattenTeams=true&includeOrgUsers=true").await, "username").len(), 4);
    site.of_group("/users").await.refused(406, "INVALID_VERSION_DATE");
}

#[tokio::test]
async fn snapshots_name_their_key_for_aws_only() {
    let site = Site::new().await;
    let dates = json!({"createdAt": "2026-01-01T00:00:00Z", "expiresAt": "2026-04-01T00:00:00Z"});
    let mut aws = dates.clone();
    aws["key"] = json!(format!("arn:aws:kms:eu-central-1:123456789012:key/{}", old_key()));
    let mut azure = dates;
    azure["key"] = json!("https://kw-demo.vault.azure.net/keys/a/00000000000000000000000000000001");
    set(&site, &json!({"clusters": [{"name": "c", "snapshots": [aws, azure]}]})).await;
    let list = site.of_group("/clusters/c/backup/snapshots").await.json();
    assert_eq!(list["results"][0]["masterKeyUUID"], old_key());
    assert!(list["results"][1].get("masterKeyUUID").is_none());
    assert_eq!(list["results"][1]["expiresAt"], "2026-04-01T00:00:00.000000Z");
    site.of_group("/clusters/d/backup/snapshots").await.refused(404, "CLUSTER_NOT_FOUND");
}

#[tokio::test]
async fn a_change_of_the_key_is_an_event_that_names_who_did_it() {
    let site = Site::new().await;
    site.patch(1, &format!(r#"{{"awsKms":{{"customerMasterKeyID":"{}"}}}}"#, new_key())).await;
    // The same key again is no change.
    site.patch(1, &format!(r#"{{"awsKms":{{"customerMasterKeyID":"{}"}}}}"#, new_key())).await;
    site.pass(60);
    let edit = json!({"key": old_key(), "by": "eve@example.com"}).to_string();
    site.control(&format!("POST /sim/v1/projects/{}/human-edit", group(1)), &edit).await;
    let list = site.of_group("/events").await.json();
    assert_eq!(column(&list, "eventTypeName"), ["AWS_ENCRYPTION_KEY_ROTATED"; 2]);
    let (newest, oldest) = (&list["results"][0], &list["results"][1]);
    assert_eq!((&newest["username"], newest.get("publicKey")), (&json!("eve@example.com"), None));
    assert_eq!((&oldest["publicKey"], oldest.get("username")), (&json!("mdb_sa_id_demo"), None));
    assert_eq!(newest["created"], "2026-03-01T12:01:00.000000Z");
    assert!(!list.to_string().contains(&new_key()), "Atlas' events do not name the key");
    let one = site.of_group(&format!("/events/{}", newest["id"].as_str().unwrap())).await;
    assert_eq!((one.status, one.json()["id"].clone()), (200, newest["id"].clone()));
    site.of_group("/events/none").await.refused(404, "RESOURCE_NOT_FOUND");
}

#[tokio::test]
async fn events_can_be_filtered() {
    let site = Site::new().await;
    site.sim.with(|world| world.keys.insert(old_key(), KeyState::Disabled));
    site.of_group("/events").await;
    site.pass(60);
    site.sim.with(|world| world.keys.insert(old_key(), KeyState::Enabled));
    let names = async |query: &str| {
        let list = site.of_group(&format!("/events?{query}")).await.json();
        column(&list, "eventTypeName")
    };
    let (valid, invalid) = ("AWS_ENCRYPTION_KEY_VALID", "AWS_ENCRYPTION_KEY_INVALID");
    assert_eq!(names("").await, [valid, invalid]);
    assert_eq!(names("eventType=AWS_ENCRYPTION_KEY_VALID").await, [valid]);
    assert_eq!(names("excludedEventType=AWS_ENCRYPTION_KEY_VALID").await, [invalid]);
    assert_eq!(names("minDate=2026-03-01T12:00:30Z").await, [valid]);
    assert_eq!(names("maxDate=2026-03-01T12:00:30Z").await, [invalid]);
    site.of_group("/events?minDate=yesterday").await.refused(400, "VALIDATION_ERROR");
}

fn open(reply: &Raw) -> Vec<String> {
    column(&reply.json(), "eventTypeName")
}

#[tokio::test]
async fn an_invalid_key_opens_an_alert_until_it_works_again() {
    let site = Site::new().await;
    assert!(open(&site.of_group("/alerts").await).is_empty());
    site.sim.with(|world| world.keys.insert(old_key(), KeyState::Disabled));
    let reply = site.of_group("/alerts?status=OPEN").await;
    assert_eq!(open(&reply), ["AWS_ENCRYPTION_KEY_INVALID"]);
    let alert = reply.json()["results"][0].clone();
    assert_eq!((&alert["status"], alert.get("resolved")), (&json!("OPEN"), None));
    site.pass(60);
    site.sim.with(|world| world.keys.insert(old_key(), KeyState::Enabled));
    assert!(open(&site.of_group("/alerts?status=OPEN").await).is_empty());
    let one = site.of_group(&format!("/alerts/{}", alert["id"].as_str().unwrap())).await.json();
    assert_eq!((&one["status"], &one["resolved"]), (&json!("CLOSED"), &json!("2026-03-01T12:01:00.000000Z")));
    site.of_group("/alerts/none").await.refused(404, "RESOURCE_NOT_FOUND");
    site.of_group("/alerts?status=MUTED").await.refused(400, "INVALID_ENUM_VALUE");
}

#[tokio::test]
async fn an_unreachable_key_service_opens_another_alert() {
    let site = Site::new().await;
    set(&site, &json!({"kmsUnreachable": true})).await;
    let reply = site.of_group("/alerts?status=OPEN").await;
    assert_eq!(open(&reply), ["ENCRYPTION_AT_REST_KMS_NETWORK_ACCESS_DENIED"]);
    set(&site, &json!({"kmsUnreachable": false, "openAlerts": ["OUTSIDE_METRIC_THRESHOLD"]})).await;
    assert_eq!(open(&site.of_group("/alerts?status=OPEN").await), ["OUTSIDE_METRIC_THRESHOLD"]);
    let events = site.of_group("/events").await.json();
    assert!(
        column(&events, "eventTypeName")
            .contains(&"ENCRYPTION_AT_REST_KMS_NETWORK_ACCESS_RESTORED".to_owned())
    );
}

#[tokio::test]
async fn unknown_fields_and_types_come_where_set() {
    let site = Site::new().await;
    site.control("POST /sim/v1/world", r#"{"odd":{"extras":true}}"#).await;
    let config = site.encryption(1).await;
    assert!(config["futureSetting"].is_object() && config["awsKms"]["futureSetting"].is_object());
    let alerts = site.of_group("/alerts").await.json();
    assert_eq!(
        (&alerts["results"][0]["eventTypeName"], &alerts["results"][0]["status"]),
        (&json!("SOMETHING_NEW"), &json!("MUTED"))
    );
    assert_eq!(column(&site.of_group("/events").await.json(), "eventTypeName"), ["SOMETHING_NEW"]);
}

#[tokio::test]
async fn teams_and_the_organisation_have_lists_of_their_own() {
    let site = Site::new().await;
    let team = "65bb00000000000000000001";
    let world = json!({
        "teams": { team: { "name": "platform", "members": [
            { "username": "tea@example.com" }, { "username": "new@example.com", "status": "PENDING" },
        ] } },
        "orgUsers": [{ "username": "org@example.com", "roles": ["ORG_OWNER"] }],
    });
    site.control("POST /sim/v1/world", &world.to_string()).await;
    set(&site, &json!({ "teams": { team: ["GROUP_OWNER"] }, "tags": { "environment": "prod" } })).await;
    let teams = site.of_group("/teams").await.json();
    assert_eq!(teams["results"][0]["teamId"], team);
    assert_eq!(teams["results"][0]["roleNames"], json!(["GROUP_OWNER"]));
    let org = "/orgs/65aa0000000000000000feed";
    assert_eq!(site.get(&format!("{org}/teams/{team}")).await.json()["name"], "platform");
    let members = site.try_get(&format!("{org}/teams/{team}/users"), "2025-02-19").await.unwrap().json();
    assert_eq!(column(&members, "orgMembershipStatus"), ["ACTIVE", "PENDING"]);
    let people = site.try_get(&format!("{org}/users"), "2025-02-19").await.unwrap().json();
    assert_eq!(
        people["results"][0]["roles"],
        json!({ "orgRoles": ["ORG_OWNER"], "groupRoleAssignments": [] })
    );
    // The project's own list shows them with the roles they have by the team.
    let path = format!("/groups/{}/users?flattenTeams=true&includeOrgUsers=true", group(1));
    let all = site.try_get(&path, "2025-02-19").await.unwrap().json();
    let tea =
        all["results"].as_array().unwrap().iter().find(|it| it["username"] == "tea@example.com").unwrap();
    assert_eq!(tea["roles"], json!(["GROUP_OWNER"]));
    assert_eq!(all["results"].as_array().unwrap().len(), 4);
    let first = site.get("/groups?itemsPerPage=1").await.json();
    assert_eq!(first["results"][0]["tags"], json!([{ "key": "environment", "value": "prod" }]));
    site.get("/orgs/65aa0000000000000000beef/teams/x").await.refused(404, "RESOURCE_NOT_FOUND");
    site.get(&format!("{org}/teams/x")).await.refused(404, "RESOURCE_NOT_FOUND");
    site.control("POST /sim/v1/world", r#"{"noOrg":["mdb_sa_id_demo"]}"#).await;
    let refused = site.try_get(&format!("{org}/users"), "2025-02-19").await.unwrap();
    refused.refused(401, "USER_UNAUTHORIZED");
}

#[tokio::test]
async fn a_parameter_given_more_than_once_is_a_list() {
    let site = Site::new().await;
    site.sim.with(|world| world.keys.insert(old_key(), KeyState::Disabled));
    site.of_group("/events").await;
    site.sim.with(|world| world.keys.insert(old_key(), KeyState::Enabled));
    let query = "eventType=AWS_ENCRYPTION_KEY_VALID&eventType=AWS_ENCRYPTION_KEY_INVALID";
    let list = site.of_group(&format!("/events?{query}")).await.json();
    assert_eq!(list["results"].as_array().unwrap().len(), 2, "{list}");
}
