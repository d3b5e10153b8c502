//! How much people hear: nothing but reminders in a calm week, and on a bad day at most one mail for each recipient and
//! cause at a time. `KEYWHEEL_FLEET=1000` plays the same with a large fleet.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use keywheel::atlas::{Atlas, TokenBudget};
use keywheel::config::{self, Credential, PatchBody};
use keywheel::domain::time::{Span, Timestamp};
use keywheel::engine::command::{NewProject, ProjectEdit};
use keywheel::engine::mail_sender::MailSender;
use keywheel::engine::{Engine, Settings, conditions, driver, remind, sweep};
use keywheel::mail::Smtp;
use keywheel::secret::{Secret, SecretUrl};
use keywheel::sim::World;
use keywheel::sim::fault::{Fault, Kind};
use keywheel::sim::world::KeyState;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::db::Backend;
use crate::support::smtpd::Smtpd;
use crate::support::{TestApp, group};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// Owners in turn; each has the projects of both credentials.
const OWNERS: [&str; 3] = ["ada@example.com", "bob@example.com", "eve@example.com"];

struct Unlimited;

impl TokenBudget for Unlimited {
    fn take<'a>(&'a self, _: &'a str, _: Timestamp) -> BoxFuture<'a, Result<(), Timestamp>> {
        Box::pin(async { Ok(()) })
    }
}

struct Fleet {
    app: TestApp,
    smtpd: Smtpd,
    mails: MailSender,
    projects: u64,
}

/// Mails by recipient and by what their subject says.
type Heard = BTreeMap<(String, String), usize>;

impl Fleet {
    /// Two thirds of the projects have one credential, a third another.
    async fn new() -> Self {
        let projects = std::env::var("KEYWHEEL_FLEET").ok().map_or(12, |text| text.parse().unwrap());
        let mut app = TestApp::on(Backend::Sqlite, Self::world(projects)).await;
        app.rule(|settings| {
            settings.drift_every = Span::from_secs(90);
            settings.limits.confirm_after = Span::from_secs(10);
            settings.limits.gather = Span::from_secs(20);
        });
        app.engine = Self::engine(&app);
        let smtpd = Smtpd::start(json!({}));
        let url = SecretUrl::new(format!("smtp://127.0.0.1:{}?tls=none", smtpd.port));
        let smtp = Smtp::new(&url, "keywheel@example.com", None, None).unwrap();
        let present = watch::channel(Some(smtp)).1;
        let mails = MailSender::new(app.engine.clone(), present, NonZeroU32::new(100_000).unwrap());
        for number in 2..=projects {
            let owner = OWNERS[usize::try_from(number).unwrap() % OWNERS.len()].to_owned();
            let credential = if Self::is_other(number) { "other" } else { "default" };
            let new = NewProject {
                group_id: group(number),
                owners: vec![owner],
                credential: Some(credential.to_owned()),
                ..NewProject::default()
            };
            app.engine.add_project("ada", new).await.unwrap();
        }
        let it = Self { app, smtpd, mails, projects };
        it.live_for(MINUTE * 3, SECOND * 10).await;
        it
    }

    fn world(projects: u64) -> World {
        let mut world = World::demo();
        let model = world.projects[&group(1)].clone();
        for number in 2..=projects {
            let mut twin = model.clone();
            let key = format!("{number:08x}-aaaa-4aaa-8aaa-000000000001");
            world.keys.insert(key.clone(), KeyState::Enabled);
            twin.block.insert("customerMasterKeyID".to_owned(), key.into());
            world.projects.insert(group(number), twin);
        }
        world
    }

    /// The same with a second credential.
    fn engine(app: &TestApp) -> Engine {
        let credential = || Credential::ServiceAccount {
            client_id: "mdb_sa_id_demo".to_owned(),
            client_secret: Secret::new("mdb_sa_sk_demo"),
        };
        let options = config::Atlas {
            base_url: app.sim.base_url(),
            request_timeout: Span::from_secs(2),
            patch_body: PatchBody::KeyOnly,
            credentials: ["default", "other"].map(|name| (name.to_owned(), credential())).into(),
        };
        let clock = Arc::clone(&app.engine.clock);
        let atlas = Atlas::new(&options, Arc::clone(&clock), Arc::new(Unlimited)).unwrap();
        Engine::new(app.db.store.clone(), Arc::new(atlas), clock, Settings::clone(&app.engine.settings))
    }

    fn is_other(number: u64) -> bool {
        number.is_multiple_of(4)
    }

    async fn live_for(&self, span: Duration, tick: Duration) {
        let engine = &self.app.engine;
        let (end, stop) = (engine.clock.now() + span, CancellationToken::new());
        loop {
            sweep::once(engine, &stop).await.unwrap();
            driver::run_due(engine).await.unwrap();
            remind::once(engine).await.unwrap();
            // A part is written at a time: the rest follows at once.
            for _ in 0..=self.projects / 256 {
                conditions::once(engine).await.unwrap();
            }
            self.mails.round(&stop).await.unwrap();
            if engine.clock.now() >= end {
                return;
            }
            self.app.pass_until((engine.clock.now() + tick).min(end));
        }
    }

    fn heard(&self) -> Heard {
        let mut heard = Heard::new();
        for mail in self.smtpd.mails() {
            let subject = mail.header("Subject").unwrap_or_default().to_owned();
            *heard.entry((mail.to, subject)).or_default() += 1;
        }
        heard
    }

    /// What was heard since `before`.
    fn since(&self, before: &Heard) -> Heard {
        let mut heard = self.heard();
        for (what, count) in &mut heard {
            *count -= before.get(what).copied().unwrap_or_default();
        }
        heard.retain(|_, count| *count > 0);
        heard
    }

    /// Each owner has heard of each of these credentials once since `before`, and of nothing else.
    fn once_each(&self, before: &Heard, credentials: &[&str], when: &str) {
        let heard = self.since(before);
        let about = |owner: &str, credential: &str| {
            let says = |subject: &str| subject.contains(&format!("Credential {credential}"));
            heard
                .iter()
                .filter(|((to, subject), _)| to == owner && says(subject))
                .map(|it| it.1)
                .sum::<usize>()
        };
        for owner in OWNERS {
            assert!(credentials.iter().all(|it| about(owner, it) == 1), "{when}: {heard:#?}");
        }
        assert_eq!(heard.values().sum::<usize>(), OWNERS.len() * credentials.len(), "{when}: {heard:#?}");
    }

    fn every(status: u16) -> Fault {
        let kind = Kind::Status { status, code: None, retry_after: None };
        Fault { operation: "get_ear".to_owned(), group_id: None, skip: 0, times: None, kind }
    }
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "a figure for the reader")]
async fn a_calm_week_is_silent_but_for_reminders() {
    let fleet = Box::pin(Fleet::new()).await;
    assert!(fleet.heard().is_empty(), "{:?}", fleet.heard());
    // One key is due in eight days and a half: owners are reminded seven and three days before.
    let interval = fleet.app.engine.settings.policy.interval.get();
    let since = fleet.app.engine.clock.now() + Duration::from_hours(24 * 8 + 12) - interval;
    let edit = ProjectEdit { key_since: Some(since), ..ProjectEdit::default() };
    fleet.app.engine.edit_project("ada", &group(1).parse().unwrap(), edit).await.unwrap();
    fleet.live_for(MINUTE, SECOND * 10).await;
    let before = fleet.heard();
    fleet.live_for(Duration::from_hours(24 * 7), Duration::from_hours(1)).await;
    let heard = fleet.since(&before);
    println!("{} projects, a calm week: {heard:?}", fleet.projects);
    assert_eq!(
        heard.into_iter().map(|((to, _), count)| (to, count)).collect::<Vec<_>>(),
        [(OWNERS[0].to_owned(), 1), (OWNERS[0].to_owned(), 1)]
    );
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "a figure for the reader")]
async fn a_bad_day_is_one_mail_for_each_recipient_and_cause() {
    let fleet = Box::pin(Fleet::new()).await;
    // Atlas is down for an hour: each hears of it for each credential, after 5 and 10 minutes again, and of its end.
    let before = fleet.heard();
    fleet.app.break_with(Fleet::every(503));
    fleet.live_for(MINUTE * 7, SECOND * 10).await;
    fleet.once_each(&before, &["default", "other"], "Atlas is down");
    let before = fleet.heard();
    fleet.live_for(MINUTE * 5, SECOND * 10).await;
    fleet.once_each(&before, &["default", "other"], "it is repeated after five minutes");
    let before = fleet.heard();
    fleet.live_for(MINUTE * 10, SECOND * 10).await;
    fleet.once_each(&before, &["default", "other"], "and after ten more");
    let before = fleet.heard();
    fleet.live_for(MINUTE * 38, SECOND * 10).await;
    fleet.once_each(&before, &[], "then it is hourly");
    fleet.app.cure();
    fleet.live_for(MINUTE * 5, SECOND * 10).await;
    fleet.once_each(&before, &["default", "other"], "it is over");
    // One of two credentials is revoked: told once, for the rest of the day.
    let before = fleet.heard();
    for number in (1..=fleet.projects).filter(|number| Fleet::is_other(*number)) {
        fleet.app.break_with(Fault { group_id: Some(group(number)), ..Fleet::every(401) });
    }
    fleet.live_for(MINUTE * 10, SECOND * 10).await;
    fleet.once_each(&before, &["other"], "a credential is refused");
    let before = fleet.heard();
    fleet.live_for(Duration::from_hours(5), MINUTE * 5).await;
    // Again only at the hour of daily notices.
    let again = fleet.since(&before);
    assert!(again.len() <= OWNERS.len() && again.values().all(|count| *count == 1), "{again:#?}");
    let before = fleet.heard();
    fleet.app.cure();
    fleet.live_for(MINUTE * 5, SECOND * 10).await;
    fleet.once_each(&before, &["other"], "it is accepted again");
    println!("{} projects, a bad day: {:#?}", fleet.projects, fleet.heard());
}
