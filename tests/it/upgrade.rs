//! The upgrade of a database from before there were conditions: what holds already is told once, as one list for each
//! recipient, and what was told then is not told again.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use keywheel::domain::condition::ConditionKind;
use keywheel::domain::time::Span;
use keywheel::engine::command::NewProject;
use keywheel::engine::mail_sender::MailSender;
use keywheel::engine::{conditions, driver, sweep};
use keywheel::mail::Smtp;
use keywheel::secret::SecretUrl;
use keywheel::sim::fault::{Fault, Kind};
use keywheel::sim::world::KeyState;
use keywheel::store::Store;
use serde_json::json;
use sqlx::migrate::Migrator;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::conditions::app;
use crate::support::db::{Backend, TestDb, unlock};
use crate::support::smtpd::{Accepted, Smtpd};
use crate::support::{TestApp, group};

const SECOND: Duration = Duration::from_secs(1);

/// The last schema without conditions.
const BEFORE: u32 = 9;

/// The migrations up to `last`.
async fn migrations(last: u32) -> Migrator {
    let all = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite");
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(all).unwrap().map(|it| it.unwrap().path()) {
        let name = file.file_name().unwrap().to_str().unwrap();
        if name.split('_').next().unwrap().parse::<u32>().unwrap() <= last {
            std::fs::copy(&file, folder.path().join(name)).unwrap();
        }
    }
    Migrator::new(folder.path()).await.unwrap()
}

/// A database as a daemon from before the conditions had left it: the rows of `newer`, as far as its schema has them. It
/// is brought up to date.
async fn upgraded(newer: &Path) -> TestDb {
    let db = TestDb::bare(Backend::Sqlite, "").await;
    let Store::Sqlite { write, .. } = &db.store else { unreachable!() };
    migrations(BEFORE).await.run(write).await.unwrap();
    let mut older = write.acquire().await.unwrap();
    let run = async |older: &mut sqlx::SqliteConnection, text: String| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(older).await.unwrap();
    };
    run(&mut older, format!("PRAGMA foreign_keys = OFF; ATTACH '{}' AS newer", newer.display())).await;
    let tables: Vec<(String, String)> = sqlx::query_as(
        "SELECT m.name, group_concat(o.name, ', ') FROM main.sqlite_schema m \
         JOIN pragma_table_info(m.name, 'main') o JOIN pragma_table_info(m.name, 'newer') n ON n.name = o.name \
         WHERE m.type = 'table' AND m.name NOT IN ('meta', 'audit', 'audit_head') AND m.name NOT LIKE '\\_%' ESCAPE '\\' \
         AND m.name NOT LIKE 'sqlite%' GROUP BY m.name",
    )
    .fetch_all(&mut *older)
    .await
    .unwrap();
    for (table, columns) in tables {
        let text = format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM newer.{table}");
        run(&mut older, text).await;
    }
    run(&mut older, "DETACH newer; PRAGMA foreign_keys = ON".to_owned()).await;
    drop(older);
    db.store.migrate().await.unwrap();
    unlock(&db.store).await;
    db
}

struct Upgraded {
    app: TestApp,
    smtpd: Smtpd,
    mails: MailSender,
}

impl Upgraded {
    fn sender(app: &TestApp, smtpd: &Smtpd) -> MailSender {
        let url = SecretUrl::new(format!("smtp://127.0.0.1:{}?tls=none", smtpd.port));
        let smtp = Smtp::new(&url, "keywheel@example.com", None, None).unwrap();
        let present = watch::channel(Some(smtp)).1;
        MailSender::new(app.engine.clone(), present, NonZeroU32::new(1000).unwrap())
    }

    fn rules(app: &mut TestApp) {
        app.rule(|settings| {
            settings.drift_every = Span::from_secs(90);
            settings.limits.confirm_after = Span::from_secs(10);
            settings.limits.gather = Span::from_secs(20);
            settings.operators = vec!["night@example.com".to_owned()];
        });
    }

    /// The new version's first start on the database of `app`.
    async fn start(mut app: TestApp) -> Self {
        app.db = upgraded(&app.db.folder.path().join("kw.db")).await;
        app.restart();
        Self::rules(&mut app);
        let smtpd = Smtpd::start(json!({}));
        let mails = Self::sender(&app, &smtpd);
        Self { app, smtpd, mails }
    }

    async fn live_for(&self, span: Duration) {
        let engine = &self.app.engine;
        let (end, stop) = (engine.clock.now() + span, CancellationToken::new());
        loop {
            sweep::once(engine, &stop).await.unwrap();
            driver::run_due(engine).await.unwrap();
            conditions::once(engine).await.unwrap();
            self.mails.round(&stop).await.unwrap();
            if engine.clock.now() >= end {
                return;
            }
            self.app.pass_until((engine.clock.now() + SECOND * 5).min(end));
        }
    }

    fn to(&self, recipient: &str) -> Vec<Accepted> {
        self.smtpd.mails().into_iter().filter(|mail| mail.to == recipient).collect()
    }
}

fn fault(number: u64, status: u16) -> Fault {
    let kind = Kind::Status { status, code: None, retry_after: None };
    Fault { operation: "get_ear".to_owned(), group_id: Some(group(number)), skip: 0, times: None, kind }
}

/// A rotation that waits for a person, a key that cannot be used, one that cannot be read, a drift that was told, and
/// one that is well.
async fn before() -> TestApp {
    let app = app(Backend::Sqlite).await;
    for number in 2..=5 {
        let more = (number == 2).then(|| "bob@example.com".to_owned());
        let owners = std::iter::once("ada@example.com".to_owned()).chain(more).collect();
        let new = NewProject { group_id: group(number), owners, ..NewProject::default() };
        app.engine.add_project("ada", new).await.unwrap();
    }
    app.stopped().await;
    let second = app.sim.with(|world| world.projects[&group(2)].key());
    app.make(&second, KeyState::Disabled);
    app.break_with(fault(3, 503));
    // The earlier version's mails have left.
    app.raw("DELETE FROM outbox".to_owned()).await;
    app.raw(format!("UPDATE projects SET drift_key = current_key WHERE group_id = '{}'", group(4))).await;
    app
}

#[tokio::test]
async fn what_an_upgrade_finds_is_one_list_for_each_recipient() {
    let mut it = Upgraded::start(before().await).await;
    it.live_for(SECOND * 90).await;
    assert!(it.smtpd.mails().is_empty(), "it is gathered until all is read");
    // A restart in between gathers on.
    it.app.restart();
    Upgraded::rules(&mut it.app);
    it.mails = Upgraded::sender(&it.app, &it.smtpd);
    it.live_for(SECOND * 30).await;
    for recipient in ["ada@example.com", "night@example.com"] {
        let [list] = &it.to(recipient)[..] else { panic!("{recipient}: {:?}", it.to(recipient)) };
        let text = list.read();
        let subject = list.header("Subject");
        assert_eq!(subject, Some("ACTION NEEDED: 3 projects: found at the upgrade"), "{text}");
        assert!(text.contains("Found at the upgrade"), "{text}");
        for number in 1..=5 {
            assert_eq!(text.contains(&group(number)), number <= 3, "{recipient} {number}: {text}");
        }
    }
    let [only] = &it.to("bob@example.com")[..] else { panic!("{:?}", it.smtpd.mails()) };
    assert!(only.read().contains("Found at the upgrade"), "{}", only.read());
    assert!(only.header("Subject").unwrap().starts_with("ACTION NEEDED"), "{:?}", only.header("Subject"));
    // What was told as a drift is known, and not told again.
    let subject = group(4).parse().unwrap();
    let held = it.app.engine.store.conditions_of(&subject, &subject).await.unwrap();
    assert_eq!(
        held.iter().map(|row| (row.kind, row.told)).collect::<Vec<_>>(),
        [(ConditionKind::Drifted, 1)]
    );
    assert_eq!(it.app.counts("drifted").await, (0, 0));
    // From now on each is repeated and ended by itself.
    let before = it.to("bob@example.com").len();
    it.live_for(SECOND * 400).await;
    assert_eq!(it.to("bob@example.com").len(), before + 1);
    it.app.cure();
    let second = it.app.sim.with(|world| world.projects[&group(2)].key());
    it.app.make(&second, KeyState::Enabled);
    it.live_for(SECOND * 300).await;
    let last = it.to("bob@example.com").pop().unwrap();
    assert!(last.header("Subject").unwrap().contains("valid again"), "{:?}", last.header("Subject"));
    assert_eq!(it.app.counts("unreachable").await.1, 2);
}

/// Nobody hears of an upgrade that finds nothing, and what begins after it is told by itself.
#[tokio::test]
async fn an_upgrade_that_finds_nothing_is_silent() {
    let app = app(Backend::Sqlite).await;
    let fresh = app.engine.store.gathered_until().await.unwrap();
    assert_eq!(fresh, None, "a new database was not upgraded");
    let it = Upgraded::start(app).await;
    assert_eq!(it.app.engine.store.gathered_until().await.unwrap(), Some(None));
    it.live_for(SECOND * 180).await;
    assert!(it.smtpd.mails().is_empty(), "{:?}", it.smtpd.mails());
    it.app.make(&crate::support::old_key(), KeyState::Disabled);
    it.live_for(SECOND * 140).await;
    let mails = it.to("ada@example.com");
    assert_eq!(mails.len(), 1);
    assert!(!mails[0].read().contains("upgrade"), "{}", mails[0].read());
}
