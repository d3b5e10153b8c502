//! The fleet on its pages: a project, proposals for one and for several, the due list, the audit log, and the frame.

use std::time::Duration;

use keywheel::domain::time::{Clock, SystemClock};
use keywheel::sim::world::demo_key;
use serde_json::json;

use super::{Browser, hidden};
use crate::support::daemon::Daemon;
use crate::support::{group, new_key, old_key};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_proposed_from_the_projects_page_and_only_after_its_checks_were_shown() {
    let daemon = Daemon::start().await;
    let (ada, grace) = (daemon.token("ada", "operator"), daemon.token("grace", "approver"));
    let project = daemon.add(&ada, 1).await;
    let path = format!("/projects/{project}");
    let browser = Browser::signed_in(&daemon, &ada).await;
    let page = browser.get(&path).await;
    for part in [
        "payments-prod",
        &old_key(),
        "Propose a new key…",
        "Why it is as it is",
        "ada@example.com",
        "1 person, never the proposer",
    ] {
        assert!(page.text.contains(part), "{part:?} is not in {}", page.text);
    }
    let others = Browser::signed_in(&daemon, &grace).await;
    let page = others.get(&path).await;
    assert!(!page.text.contains("Propose a new key…"), "{}", page.text);
    assert_eq!(others.get(&format!("{path}/propose")).await.status, 403);

    let page = browser.get(&format!("{path}/propose?key={}", new_key())).await;
    assert!(page.text.contains(&format!("value=\"{}\"", new_key())), "{}", page.text);
    let form = hidden(&page.text, "form");
    let send = async |step: &str, key: &str| {
        let fields = [("form", &*form), ("step", step), ("key", key), ("reason", "Q4 <b>")];
        browser.post(&format!("{path}/propose"), &fields).await
    };
    for (key, said) in [("", "newKey"), ("no key", "newKey"), (&*old_key(), "nothing to rotate")] {
        let wrong = send("check", key).await;
        assert!(wrong.status >= 400 && wrong.text.contains(said), "{key}: {}", wrong.text);
        assert!(
            wrong.text.contains("aria-invalid") && wrong.text.contains("Q4 &#60;b&#62;"),
            "{}",
            wrong.text
        );
    }
    let checked = send("check", &new_key()).await;
    for part in ["Propose this key for payments-prod?", "changed", "Propose this key</button>", "not checked"]
    {
        assert!(checked.text.contains(part), "{part:?} is not in {}", checked.text);
    }
    assert_eq!(daemon.get(&ada, "/rotations").await.json["items"], json!([]), "a check proposed it");
    let strange = browser
        .post(&format!("{path}/propose"), &[("form", "0"), ("step", "propose"), ("key", &new_key())])
        .await;
    assert_eq!(strange.status, 403);
    let done = send("propose", &new_key()).await;
    assert_eq!(done.status, 303, "{}", done.text);
    let rotation = done.to.unwrap();
    // Twice is once.
    assert_eq!(send("propose", &new_key()).await.to.as_deref(), Some(&*rotation));
    let other = demo_key("AWS", "payments-prod", 1, 3);
    let open = send("check", &other).await;
    assert!(open.status == 409 && open.text.contains("is still open"), "{}", open.text);
    let page = browser.get(&path).await;
    assert!(page.text.contains("Review the change") && page.text.contains(&rotation), "{}", page.text);

    let form = hidden(&browser.get(&rotation).await.text, "form");
    let hash = hidden(&browser.get(&rotation).await.text, "hash");
    let cancel = [("form", &*form), ("hash", &*hash), ("decision", "cancel"), ("comment", "")];
    assert_eq!(browser.post(&rotation, &cancel).await.status, 303);
    let page = browser.get(&rotation).await;
    assert!(page.text.contains(&format!("/projects/{project}/propose?key=")), "{}", page.text);
    assert_eq!(browser.get("/projects/none").await.status, 422);
    assert_eq!(browser.get(&format!("/projects/{}", group(900))).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_keys_are_looked_up_shown_and_proposed_and_one_refusal_stops_no_other() {
    let daemon = Daemon::start().await;
    let ada = daemon.token("ada", "operator");
    let (mut groups, mut keys) = (Vec::new(), Vec::new());
    for (number, name) in [(1, "payments-prod"), (2, "payments-staging"), (3, "ledger-prod")] {
        let project = daemon.add(&ada, number).await;
        let edit =
            json!({ "kms": "aws", "alias": format!("alias/{name}"), "keySince": "2026-01-01T00:00:00Z" });
        let edited = daemon.call(&ada, "PATCH", &format!("/projects/{project}"), edit).await;
        assert_eq!(edited.status, 200, "{edited:?}");
        groups.push(project);
        keys.push(demo_key("AWS", name, u32::try_from(number).unwrap(), 2));
    }
    let browser = Browser::signed_in(&daemon, &ada).await;
    let list = browser.get("/due").await;
    assert!(list.text.contains("3 keys are overdue, 0 due in 30 days"), "{}", list.text);
    assert_eq!(list.text.matches("type=\"checkbox\"").count(), 3, "{}", list.text);
    let form = hidden(&list.text, "form");
    let none = browser.post("/due/propose", &[("form", &form), ("step", "check")]).await;
    assert!(none.status == 422 && none.text.contains("Tick at least one project."), "{}", none.text);
    // The last one has no newer key.
    daemon.sim.with(|world| {
        world.kms.aliases.insert("alias/payments-prod".to_owned(), keys[0].clone());
        world.kms.aliases.insert("alias/payments-staging".to_owned(), keys[1].clone());
    });
    let mut fields = vec![("form", &*form), ("step", "check")];
    fields.extend(groups.iter().map(|it| ("project", it.as_str())));
    let plan = browser.post("/due/propose", &fields).await;
    assert!(plan.status == 200 && plan.text.contains("Propose these 2"), "{}", plan.text);
    assert!(plan.text.contains(&keys[0]) && plan.text.contains("not proposed: "), "{}", plan.text);
    assert_eq!(daemon.get(&ada, "/rotations").await.json["items"], json!([]), "a check proposed it");
    let proposals: Vec<String> =
        groups.iter().zip(&keys).map(|(group, key)| format!("{group} {key}")).collect();
    daemon.propose(&ada, &groups[0], &demo_key("AWS", "payments-prod", 1, 3)).await;
    let mut fields = vec![("form", &*form), ("step", "propose"), ("reason", "all of them")];
    fields.extend(proposals[..2].iter().map(|it| ("proposal", it.as_str())));
    let done = browser.post("/due/propose", &fields).await;
    assert!(done.text.contains("1 proposed, 1 not") && done.text.contains("is still open"), "{}", done.text);
    let open = daemon.get(&ada, "/rotations").await.json["items"].as_array().unwrap().len();
    assert_eq!(open, 2);
    let list = browser.get("/due").await;
    assert_eq!(list.text.matches("a rotation is open").count(), 2, "{}", list.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_due_list_is_filtered_and_paged_and_says_why_it_is_empty() {
    let daemon = Daemon::start().await;
    let ada = daemon.token("ada", "operator");
    let viewer = daemon.token("vera", "viewer");
    let browser = Browser::signed_in(&daemon, &viewer).await;
    let empty = browser.get("/due").await;
    assert!(empty.text.contains("Keywheel watches no project yet."), "{}", empty.text);
    assert!(browser.get("/").await.text.contains("keywheel project discover"));
    for number in 1..=4 {
        daemon.add(&ada, number).await;
    }
    let day = |days: u64| (SystemClock.now() - Duration::from_hours(24 * days)).to_string();
    // Overdue by its own period, due soon by the default, and not due.
    for (number, edit) in [
        (1, json!({ "keySince": day(31), "policy": { "interval": "30d" }, "environment": "prod" })),
        (2, json!({ "keySince": day(70), "owners": [] })),
        (3, json!({ "keySince": day(10) })),
        (4, json!({ "keySince": day(40), "policy": { "interval": "41d12h" } })),
    ] {
        let edited = daemon.call(&ada, "PATCH", &format!("/projects/{}", group(number)), edit).await;
        assert!(edited.status == 200, "{edited:?}");
    }
    let found = async |query: &str| {
        let page = browser.get(&format!("/due{query}")).await;
        assert_eq!(page.status, 200, "{query}: {}", page.text);
        let shown = |number: &u64| page.text.contains(&format!("/projects/{}\"", group(*number)));
        ((1..=4).filter(shown).collect::<Vec<u64>>(), page.text)
    };
    let (shown, text) = found("").await;
    assert_eq!(shown, [1, 2, 4]);
    assert!(
        text.contains("1 key is overdue, 2 due in 30 days") && !text.contains("type=\"checkbox\""),
        "{text}"
    );
    let at = |number: u64| text.find(&group(number)).unwrap();
    assert!(at(1) < at(4) && at(4) < at(2), "not in the order of the due dates: {text}");
    for (query, expected) in [
        ("?due=overdue", vec![1]),
        ("?due=7", vec![1, 4]),
        ("?due=any", vec![1, 2, 3, 4]),
        ("?owner=none", vec![2]),
        ("?environment=prod", vec![1, 4]),
        ("?due=any&state=invalid", vec![]),
        ("?due=any&state=unreachable", vec![]),
        ("?due=any&provider=GCP", vec![]),
        ("?due=any&words=PAYMENTS", vec![1, 2]),
        ("?due=any&state=not_started", vec![1, 2, 3, 4]),
        ("?due=any&state=in_flight", vec![]),
        ("?page=2", vec![]),
    ] {
        assert_eq!(found(query).await.0, expected, "{query}");
    }
    let (_, text) = found("?environment=none").await;
    assert!(
        text.contains("No project fits. Remove a filter.") && text.contains("environment none"),
        "{text}"
    );
    for wrong in ["?due=soon", "?page=0", "?page=x", "?provider=aws", "?state=%27"] {
        assert_eq!(browser.get(&format!("/due{wrong}")).await.status, 422, "{wrong}");
    }
    let home = browser.get("/").await;
    for part in
        ["Key age, worst first", "href=\"/due?due=overdue\"", "nobody is told", "aria-current=\"page\">Home"]
    {
        assert!(home.text.contains(part), "{part:?} is not in {}", home.text);
    }
    // Three are overdue or due within 30 days, and none has a rotation.
    assert!(home.text.contains("Due <span class=\"small\">3<"), "{}", home.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_log_health_and_settings_are_read_with_any_role_and_show_no_secret() {
    let daemon = Daemon::start().await;
    let (ada, viewer) = (daemon.token("ada", "operator"), daemon.token("vera", "viewer"));
    let project = daemon.add(&ada, 1).await;
    let id = daemon.propose(&ada, &project, &new_key()).await;
    let browser = Browser::signed_in(&daemon, &viewer).await;
    let page = browser.get("/audit").await;
    for part in
        ["rotation.proposed", &format!("href=\"/rotations/{id}\""), "token.created", "keywheel audit verify"]
    {
        assert!(page.text.contains(part), "{part:?} is not in {}", page.text);
    }
    let today = SystemClock.now().to_string()[..10].to_owned();
    for (query, has) in [
        ("what=rotation.", true),
        ("what=token.", false),
        ("who=ada", true),
        ("who=ad", false),
        (&*format!("words={}", id.to_uppercase()), true),
        ("words=%27%25", false),
        (&*format!("from={today}&to={today}"), true),
        ("to=2020-01-01", false),
        ("before=1", false),
    ] {
        let page = browser.get(&format!("/audit?{query}")).await;
        assert_eq!(page.text.contains("rotation.proposed"), has, "{query}: {}", page.text);
    }
    let wrong = browser.get("/audit?from=yesterday").await;
    assert!(wrong.status == 422 && wrong.text.contains("This is no date."), "{}", wrong.text);
    assert_eq!(browser.get("/audit?before=x").await.status, 422);

    let health = browser.get("/health").await;
    for part in ["Keywheel", "No mail server is configured", "default", "SQLite", env!("CARGO_PKG_VERSION")] {
        assert!(health.text.contains(part), "{part:?} is not in {}", health.text);
    }
    let settings = browser.get("/settings").await;
    for part in ["atlas.base_url", "keywheel.toml", "vera"] {
        assert!(settings.text.contains(part), "{part:?} is not in {}", settings.text);
    }
    for secret in ["mdb_sa_sk_demo", "keywheel-demo-aws", "keywheel-demo-azure"] {
        assert!(!settings.text.contains(secret) && !health.text.contains(secret));
    }
    for path in ["/due", "/audit", "/health", "/settings", &format!("/projects/{project}")] {
        let stranger = Browser::new(&daemon).get(path).await;
        assert!(stranger.status == 303 && stranger.text.is_empty(), "{path}: {stranger:?}");
        let page = browser.get(path).await;
        assert_eq!(page.text.matches("<h1").count(), 1, "{path}");
    }
    let lost = browser.http.get(format!("{}/nothing", daemon.base)).header("accept", "text/html");
    let lost = browser.send(lost).await;
    assert!(lost.status == 404 && lost.text.contains("There is no such page"), "{}", lost.text);
    let refused = Browser::new(&daemon).post("/due/propose", &[("step", "propose")]).await;
    assert_eq!((refused.status, refused.to.as_deref()), (303, Some("/login?to=%2Fdue%2Fpropose")));
}
