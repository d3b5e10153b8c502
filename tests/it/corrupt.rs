//! Rows that somebody or something has broken: each list shows their ids beside the other rows.

use std::path::Path;

use keywheel::store::{Access, Store};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor};

use crate::support::daemon::Daemon;
use crate::support::{group, new_key};

/// Breaks rows of a daemon's database while it runs.
async fn break_rows(it: &Daemon, statements: &[String]) {
    let url = format!("sqlite:{}", it.folder.path().join("data/keywheel.db").display());
    let store = Store::open(&url, Path::new(""), Access::Beside).await.unwrap();
    let Store::Sqlite { write, .. } = &store else { unreachable!() };
    for statement in statements {
        let done = write.execute(sqlx::raw_sql(AssertSqlSafe(statement.clone()))).await.unwrap();
        assert_eq!(done.rows_affected(), 1, "{statement}");
    }
    store.close().await;
}

/// Page by page, no row is lost and none comes twice.
async fn pages_lose_nothing(it: &Daemon, token: &str) {
    for path in ["/projects", "/rotations", "/outbox", "/audit"] {
        let all = it.get(token, path).await.json["items"].as_array().unwrap().clone();
        let (mut paged, mut next) = (Vec::new(), String::new());
        loop {
            let page = it.get(token, &format!("{path}?limit=1{next}")).await.json;
            paged.extend(page["items"].as_array().unwrap().clone());
            let Some(cursor) = page["next"].as_str() else { break };
            next = format!("&cursor={cursor}");
        }
        let ids = |items: &[Value]| items.iter().map(|item| item["id"].clone()).collect::<Vec<_>>();
        assert_eq!(ids(&paged), ids(&all), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_list_shows_a_corrupt_row_by_its_id() {
    let mut it = Daemon::start().await;
    it.restart_with(|text| text.replace("drift_every = \"1h\"", "drift_every = \"90s\""));
    let ada = it.token("ada", "operator,viewer");
    it.token("bob", "viewer");
    for number in [1, 4] {
        it.add(&ada, number).await;
    }
    let id = it.propose(&ada, &group(1), &new_key()).await;
    let said = it.call(&ada, "POST", &format!("/rotations/{id}/cancel"), Value::Null).await;
    assert_eq!(said.status, 200, "{said:?}");
    let other = it.propose(&ada, &group(1), &new_key()).await;
    let mail = it.get(&ada, "/outbox").await.json["items"][0]["id"].as_str().unwrap().to_owned();
    let audit = it.get(&ada, "/audit").await.json["items"][1]["seq"].as_u64().unwrap();
    let key = it.get(&ada, &format!("/projects/{}/keys", group(1))).await.json["items"][0]["key"].clone();
    let bytes = |id: &str| format!("X'{}'", id.replace('-', ""));
    break_rows(
        &it,
        &[
            format!("UPDATE projects SET policy = 'none' WHERE group_id = '{}'", group(4)),
            format!("UPDATE rotations SET machine = '{{' WHERE id = {}", bytes(&id)),
            format!("UPDATE journal SET at = 'then' WHERE rotation_id = {} AND seq = 1", bytes(&other)),
            format!("UPDATE outbox SET created_at = 'then' WHERE id = {}", bytes(&mail)),
            format!("UPDATE audit SET at = 'then' WHERE seq = {audit}"),
            format!("UPDATE keys SET since = 'then' WHERE group_id = '{}'", group(1)),
            "UPDATE tokens SET created_at = 'then' WHERE name = 'bob'".to_owned(),
            "INSERT INTO conditions (subject, kind, since, name, told, damped, version) VALUES ('installation', \
             'nothing', '2026-03-01T12:00:00.000000Z', 'x', 0, 0, 1)"
                .to_owned(),
        ],
    )
    .await;
    for (path, wanted, others) in [
        ("/projects".to_owned(), group(4), true),
        ("/rotations".to_owned(), id.clone(), true),
        (format!("/rotations/{other}/journal"), "1".to_owned(), false),
        ("/outbox".to_owned(), mail.clone(), true),
        ("/audit".to_owned(), audit.to_string(), true),
        (format!("/projects/{}/keys", group(1)), key.as_str().unwrap().to_owned(), false),
        ("/conditions".to_owned(), "installation/nothing".to_owned(), false),
    ] {
        let list = it.get(&ada, &path).await;
        assert_eq!(list.status, 200, "{path}: {list:?}");
        let items = list.json["items"].as_array().unwrap();
        assert!(items.contains(&json!({ "id": wanted, "corrupt": true })), "{path}: {items:#?}");
        assert!(!others || items.iter().any(|item| item["corrupt"].is_null()), "{path}: {items:#?}");
    }
    pages_lose_nothing(&it, &ada).await;
    for (args, wanted) in [
        (&["project", "list"][..], group(4)),
        (&["rotation", "list"], id.clone()),
        (&["rotation", "show", &other], "1".to_owned()),
        (&["outbox", "list"], mail),
        (&["audit", "list"], audit.to_string()),
        (&["token", "list"], "bob".to_owned()),
        (&["due"], group(4)),
        (&["history", &group(1)], key.as_str().unwrap().to_owned()),
    ] {
        let said = it.cli(args);
        let line = format!("{wanted}  cannot be read; `keywheel doctor` on the server says more");
        assert!(said.code == Some(0) && said.out.lines().any(|it| it == line), "{args:?}: {said:?}");
        let json = it.cli(&[args, &["-o", "json"]].concat());
        assert_eq!(json.code, Some(0), "{json:?}");
        if args != ["rotation", "show", &other] {
            assert!(
                json.out.contains(&format!("\"{wanted}\"")) && json.out.contains("\"corrupt\""),
                "{args:?}: {json:?}"
            );
        }
    }
    assert_eq!(it.get(&ada, "/status").await.status, 200);
    assert_eq!(it.get(&it.token("carol", "viewer"), "/projects").await.status, 200);
}
