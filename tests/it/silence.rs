//! Silences over real HTTP and SMTP: mail of a project waits, everything else goes on, and what still holds at the
//! end is told then.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keywheel::config::Webhook;
use keywheel::config::webhooks::Format;
use keywheel::domain::condition::ConditionKind;
use keywheel::domain::ids::GroupId;
use keywheel::domain::silence::LONGEST;
use keywheel::domain::time::Span;
use keywheel::engine::mail_sender::MailSender;
use keywheel::engine::webhook_sender::WebhookSender;
use keywheel::engine::{conditions, driver, sweep};
use keywheel::mail::Smtp;
use keywheel::secret::{Secret, SecretUrl};
use keywheel::sim::World;
use keywheel::sim::world::KeyState;
use keywheel::store::{OutboxRow, Store};
use keywheel::webhook::Target;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::db::Backend;
use crate::support::receiver::Receiver;
use crate::support::smtpd::Smtpd;
use crate::support::{TestApp, group, old_key};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

struct Quiet {
    app: TestApp,
    smtpd: Smtpd,
    receiver: Receiver,
    mails: MailSender,
    /// Whether no mail can leave.
    cut: AtomicBool,
}

impl Quiet {
    async fn new(backend: Backend) -> Self {
        let mut app = TestApp::on(backend, World::demo()).await;
        app.rule(|settings| {
            settings.drift_every = Span::from_secs(90);
            settings.limits.confirm_after = Span::from_secs(10);
        });
        let (smtpd, receiver) = (Smtpd::start(json!({})), Receiver::start().await);
        let ops = Webhook {
            name: "ops".to_owned(),
            url: Secret::new(receiver.url()),
            format: Format::Slack,
            keys: Vec::new(),
            token: None,
            service_key: None,
            kinds: Vec::new(),
            allow_private: true,
            proxy: None,
            ca_file: None,
        };
        app.engine.webhooks.replace(vec![Target::new(&ops).unwrap()]);
        let url = SecretUrl::new(format!("smtp://127.0.0.1:{}?tls=none", smtpd.port));
        let smtp = Smtp::new(&url, "keywheel@example.com", None, None).unwrap();
        let present = watch::channel(Some(smtp)).1;
        let mails = MailSender::new(app.engine.clone(), present, NonZeroU32::new(1000).unwrap());
        let it = Self { app, smtpd, receiver, mails, cut: AtomicBool::new(false) };
        it.live_for(SECOND).await;
        it
    }

    fn id() -> GroupId {
        group(1).parse().unwrap()
    }

    async fn live_for(&self, span: Duration) {
        let engine = &self.app.engine;
        let end = engine.clock.now() + span;
        let stop = CancellationToken::new();
        loop {
            sweep::once(engine, &stop).await.unwrap();
            driver::run_due(engine).await.unwrap();
            conditions::once(engine).await.unwrap();
            // As the sweep does.
            engine.store.recall_messages(engine.clock.now()).await.unwrap();
            if !self.cut.load(Ordering::SeqCst) {
                self.mails.round(&stop).await.unwrap();
            }
            WebhookSender::new(engine.clone()).round().await.unwrap();
            if engine.clock.now() >= end {
                return;
            }
            self.app.pass_until((engine.clock.now() + SECOND * 10).min(end));
        }
    }

    async fn silence(&self, hours: u64) {
        let span = Span::from_secs(hours * 3600);
        self.app.engine.silence("grace", &Self::id(), Some(span), Some("move")).await.unwrap();
    }

    fn make(&self, state: KeyState) {
        self.app.sim.with(|world| world.keys.insert(old_key(), state));
    }

    fn mailed(&self) -> usize {
        // The clock of a database server does not follow the tests'.
        self.smtpd.mails().iter().filter(|mail| !format!("{mail:?}").contains("clocks differ")).count()
    }

    async fn mails(&self, kind: &str) -> Vec<OutboxRow> {
        let mut rows = self.app.engine.store.outbox(None, 500).await.unwrap();
        rows.retain(|row| row.kind == kind && row.channel.as_str() == "mail");
        rows.reverse();
        rows
    }
}

async fn what_still_holds_is_told_at_the_end_on(backend: Backend) {
    let it = Box::pin(Quiet::new(backend)).await;
    it.silence(2).await;
    it.make(KeyState::Disabled);
    it.live_for(SECOND * 7000).await;
    assert_eq!(it.mailed(), 0);
    // Webhooks and the record go on: the start, after 5 and 10 minutes, then hourly.
    let received = it.receiver.received();
    let about =
        |it: &&crate::support::receiver::Received| String::from_utf8_lossy(&it.body).contains(&group(1));
    assert_eq!(received.iter().filter(about).count(), 4);
    let project = it.app.engine.store.project(&Quiet::id()).await.unwrap().unwrap();
    assert_eq!(project.holding, [ConditionKind::Invalid]);
    let why = it.app.engine.why(&project).await.unwrap().sentences.join("\n");
    assert!(why.contains("Its mails are silenced until") && why.contains("by grace"), "{why}");
    let waiting = it.mails("current_key_invalid").await;
    assert_eq!(waiting[0].attempts, 1, "what waits for the end of a silence is not tried meanwhile");
    assert!(waiting[0].last_reply.as_deref().unwrap().starts_with("silenced until "), "{waiting:?}");

    it.live_for(SECOND * 400).await;
    assert_eq!(it.mailed(), 1, "one mail, however often it was repeated");
    let rows = it.mails("current_key_invalid").await;
    let sent: Vec<_> = rows.iter().map(|row| row.sent_at.is_some()).collect();
    assert_eq!(sent, [false, false, false, true]);
    it.make(KeyState::Enabled);
    it.live_for(SECOND * 200).await;
    assert_eq!(it.mailed(), 2, "its end is mailed like any other");
}

#[tokio::test]
async fn what_still_holds_is_told_at_the_end() {
    Box::pin(what_still_holds_is_told_at_the_end_on(Backend::Sqlite)).await;
}

#[tokio::test]
async fn what_still_holds_is_told_at_the_end_on_postgres() {
    Box::pin(what_still_holds_is_told_at_the_end_on(Backend::Postgres)).await;
}

#[tokio::test]
async fn what_began_and_ended_within_is_not_mailed_and_what_began_before_has_its_end() {
    let it = Box::pin(Quiet::new(Backend::Sqlite)).await;
    it.silence(1).await;
    it.make(KeyState::Disabled);
    it.live_for(SECOND * 200).await;
    it.make(KeyState::Enabled);
    it.live_for(HOUR).await;
    assert_eq!(it.mailed(), 0);
    for kind in ["current_key_invalid", "current_key_invalid_over"] {
        let rows = it.mails(kind).await;
        assert_eq!(rows.len(), 1, "{kind}");
        assert!(rows[0].sent_at.is_none() && rows[0].state.as_str() == "sent", "{rows:?}");
        assert!(rows[0].last_reply.as_deref().unwrap().starts_with("not sent: "), "{rows:?}");
    }

    it.make(KeyState::Disabled);
    it.live_for(SECOND * 200).await;
    assert_eq!(it.mailed(), 1);
    it.silence(1).await;
    it.make(KeyState::Enabled);
    it.live_for(SECOND * 600).await;
    assert_eq!(it.mailed(), 1);
    it.live_for(HOUR).await;
    assert_eq!(it.mailed(), 2);
    assert!(it.mails("current_key_invalid_over").await[1].sent_at.is_some());
}

#[tokio::test]
async fn a_silence_is_lifted_at_once_and_other_projects_are_not_silent() {
    let it = Box::pin(Quiet::new(Backend::Sqlite)).await;
    it.silence(4).await;
    it.make(KeyState::Disabled);
    it.live_for(SECOND * 200).await;
    assert_eq!(it.mailed(), 0);
    it.app.engine.silence("bob", &Quiet::id(), None, None).await.unwrap();
    it.live_for(SECOND).await;
    assert_eq!(it.mailed(), 1);
    let audit = it.app.engine.store.audit(None, 50).await.unwrap();
    let actions: Vec<_> = audit.iter().map(|row| (row.actor.as_str(), row.action.as_str())).collect();
    assert!(
        actions.contains(&("grace", "project.silenced"))
            && actions.contains(&("bob", "project.silence_ended"))
    );
    assert!(audit.iter().any(|row| row.action == "project.silenced" && row.detail.contains("move")));

    // Nothing to end; too long; no such project.
    let refused = it.app.engine.silence("bob", &Quiet::id(), None, None).await.unwrap_err().to_string();
    assert!(refused.contains("for") && refused.contains("none lasts here"), "{refused}");
    let day = Span::from_secs(24 * 3600 + 1);
    let refused = it.app.engine.silence("bob", &Quiet::id(), Some(day), None).await.unwrap_err().to_string();
    assert!(refused.contains("at most 24h"), "{refused}");
    let nobody = group(9).parse().unwrap();
    assert!(it.app.engine.silence("bob", &nobody, Some(Span::from_secs(60)), None).await.is_err());
}

#[tokio::test]
async fn a_silence_from_a_clock_that_was_ahead_keeps_nothing_back() {
    let it = Box::pin(Quiet::new(Backend::Sqlite)).await;
    it.silence(1).await;
    let Store::Sqlite { write, .. } = &it.app.db.store else { panic!("not SQLite") };
    sqlx::raw_sql("UPDATE silences SET ends_at = '2999-01-01T00:00:00.000000Z'")
        .execute(write)
        .await
        .unwrap();
    it.make(KeyState::Disabled);
    it.live_for(SECOND * 200).await;
    assert_eq!(it.mailed(), 1);
    it.make(KeyState::Enabled);
    it.live_for(SECOND * 200).await;
    assert_eq!(it.mailed(), 2);
    // Not silent, so there is nothing to end; a new one counts from now.
    assert!(it.app.engine.silence("bob", &Quiet::id(), None, None).await.is_err());
    it.app.engine.silence("bob", &Quiet::id(), Some(Span::from_secs(86_400)), None).await.unwrap();
    let silence = it.app.engine.store.silence(&Quiet::id()).await.unwrap().unwrap();
    let now = it.app.engine.clock.now();
    assert_eq!((silence.began_at, silence.ends_at), (now, now + LONGEST));
}

/// A mail server that was away gets the last page, not each of them; and of a condition that has ended by then, only the end.
#[tokio::test]
async fn of_what_could_not_leave_one_mail_says_it_all() {
    let it = Box::pin(Quiet::new(Backend::Sqlite)).await;
    it.cut.store(true, Ordering::SeqCst);
    it.make(KeyState::Disabled);
    it.live_for(SECOND * 1200).await;
    assert!(it.mails("current_key_invalid").await.len() >= 3);
    it.cut.store(false, Ordering::SeqCst);
    it.live_for(SECOND * 60).await;
    assert_eq!(it.mailed(), 1);
    it.cut.store(true, Ordering::SeqCst);
    it.live_for(HOUR).await;
    it.make(KeyState::Enabled);
    it.live_for(SECOND * 300).await;
    it.cut.store(false, Ordering::SeqCst);
    it.live_for(SECOND * 60).await;
    assert_eq!(it.mailed(), 2);
    assert!(it.mails("current_key_invalid_over").await[0].sent_at.is_some());
    let last = it.mails("current_key_invalid").await.pop().unwrap();
    let words = last.last_reply.as_deref().unwrap();
    assert!(last.sent_at.is_none() && words.starts_with("not sent: it was over before"), "{words}");

    // An end that could not leave before the key was bad again says nothing.
    it.make(KeyState::Disabled);
    it.live_for(SECOND * 200).await;
    assert_eq!(it.mailed(), 3);
    it.cut.store(true, Ordering::SeqCst);
    it.make(KeyState::Enabled);
    it.live_for(SECOND * 300).await;
    it.make(KeyState::Disabled);
    it.live_for(SECOND * 200).await;
    it.cut.store(false, Ordering::SeqCst);
    it.live_for(SECOND * 60).await;
    assert_eq!(it.mailed(), 4);
    let end = it.mails("current_key_invalid_over").await.pop().unwrap();
    let start = it.mails("current_key_invalid").await.pop().unwrap();
    assert!(start.sent_at.is_some() && end.sent_at.is_none(), "{end:?}");
    assert!(end.last_reply.as_deref().unwrap().starts_with("not sent: it holds again"), "{end:?}");
}
