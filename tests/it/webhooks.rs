//! Webhooks at a real receiver: how they arrive, and what becomes of those that do not.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keywheel::config::Webhook;
use keywheel::config::hooks::SigningKey;
use keywheel::config::webhooks::Format;
use keywheel::domain::notice::{Kind, Notice};
use keywheel::domain::time::{Clock, ManualClock, SystemClock};
use keywheel::engine::command::{NewProject, OperatorVerb, ProjectEdit};
use keywheel::engine::epoch::{EpochMark, EpochWatch, present_mark, write_mark};
use keywheel::engine::mail_sender::MailSender;
use keywheel::engine::webhook_sender::{WAITS, WebhookSender};
use keywheel::engine::{Engine, metrics, remind, sweep};
use keywheel::mail::Smtp;
use keywheel::secret::{Secret, SecretUrl};
use keywheel::sim::world::KeyState;
use keywheel::sim::{Sim, World};
use keywheel::store::{Channel, MessageState, NewOutbox, OutboxRow};
use keywheel::webhook::Target;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::db::{Backend, TestDb};
use crate::support::receiver::{Received, Receiver, reply};
use crate::support::smtpd::{Certificates, Smtpd};
use crate::support::wait::{LIMIT, eventually};
use crate::support::{engine_at, group, new_key, notice, old_key};

const SECRET: [u8; 32] = [7; 32];
const PREVIOUS: [u8; 24] = [9; 24];
const DAY: Duration = Duration::from_hours(24);

fn options(name: &str, url: &str) -> Webhook {
    Webhook {
        name: name.to_owned(),
        url: Secret::new(url),
        format: Format::CloudEvents,
        keys: vec![SigningKey::new(&SECRET).unwrap()],
        token: None,
        service_key: None,
        kinds: Vec::new(),
        allow_private: true,
        proxy: None,
        ca_file: None,
    }
}

/// A fleet without owners, and a clock of its own.
struct WebhookFixture {
    engine: Engine,
    clock: ManualClock,
    sim: Sim,
    _db: TestDb,
}

impl WebhookFixture {
    async fn on(backend: Backend, targets: &[Webhook]) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let clock = ManualClock::new(SystemClock.now());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sim = Sim::start(listener, World::demo(), Arc::new(clock.clone())).unwrap();
        let db = TestDb::new(backend).await;
        let engine = engine_at(&sim, db.store.clone(), Arc::new(clock.clone()));
        engine.add_project("ada", NewProject { group_id: group(1), ..NewProject::default() }).await.unwrap();
        let it = Self { engine, clock, sim, _db: db };
        it.configure(targets);
        it
    }

    async fn new(targets: &[Webhook]) -> Self {
        Self::on(Backend::Sqlite, targets).await
    }

    fn configure(&self, targets: &[Webhook]) {
        self.engine.webhooks.replace(targets.iter().map(|it| Target::new(it).unwrap()).collect());
    }

    /// Writes one webhook for each target.
    async fn propose(&self) {
        let group = group(1).parse().unwrap();
        self.engine
            .propose("ada", &group, new_key().parse().unwrap(), Some("Q3".to_owned()), false)
            .await
            .unwrap();
    }

    /// Writes another one.
    async fn reject(&self) {
        let id = self.rows().await.last().unwrap().rotation_id.unwrap();
        self.engine.say("bob", id, OperatorVerb::Reject, None, None).await.unwrap();
    }

    fn dispatch(&self) -> WebhookSender {
        WebhookSender::new(self.engine.clone())
    }

    /// The webhooks, the oldest first.
    async fn rows(&self) -> Vec<OutboxRow> {
        let mut rows = self.engine.store.outbox(None, 500).await.unwrap();
        rows.retain(|row| row.channel == Channel::Webhook);
        rows.reverse();
        rows
    }

    /// The only webhook there is.
    async fn row(&self) -> OutboxRow {
        let mut rows = self.rows().await;
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows.remove(0)
    }

    async fn audited(&self, action: &str) -> Vec<String> {
        let rows = self.engine.store.audit(None, 500).await.unwrap();
        rows.into_iter().filter(|row| row.action == action).map(|row| row.subject).collect()
    }
}

#[tokio::test]
async fn an_event_arrives_signed_and_complete_and_its_row_says_so() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let receiver = Receiver::start().await;
        receiver.always(reply(202, "taken,\r\n  thank you\u{1b}"));
        let mut ops = options("ops", &receiver.url());
        ops.keys.push(SigningKey::new(&PREVIOUS).unwrap());
        ops.token = Some(Secret::new("bearer-canary"));
        let it = WebhookFixture::on(backend, &[ops]).await;
        it.propose().await;
        it.dispatch().round().await.unwrap();
        let row = it.row().await;
        assert_eq!((row.state.as_str(), row.attempts, row.recipient.as_str()), ("sent", 1, "ops"), "{row:?}");
        assert_eq!(row.last_reply.as_deref(), Some("202 taken, thank you\\u{1b}"));
        let got = receiver.only();
        assert_eq!(got.header("content-type"), Some("application/cloudevents+json"));
        assert_eq!(got.header("authorization"), Some("Bearer bearer-canary"));
        assert!(got.header("user-agent").unwrap().starts_with("keywheel/"));
        assert_eq!(got.id(), row.message_id);
        let seconds = it.clock.now().as_chrono().timestamp().to_string();
        assert_eq!(got.header("webhook-timestamp"), Some(seconds.as_str()));
        assert!(
            got.is_signed_with(&SECRET) && got.is_signed_with(&PREVIOUS) && !got.is_signed_with(&[1; 32])
        );
        let rotation = row.rotation_id.unwrap();
        // Nobody could look: no lookup.
        let remarks: Vec<_> = got.json()["data"]["checks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|check| format!("{} {}", check["name"], check["result"]))
            .collect();
        assert_eq!(remarks, [r#""key_exists" "not_checked""#]);
        let mut event = got.json();
        let proposal = event["data"].as_object_mut().unwrap().remove("proposal").unwrap();
        assert_eq!((&proposal["approvals"], &proposal["approved"]), (&json!(1), &json!(0)), "{proposal}");
        assert_eq!(
            event,
            json!({
                "specversion": "1.0", "id": row.message_id, "source": "http://127.0.0.1",
                "type": "io.keywheel.approval_requested.v1", "time": row.created_at,
                "subject": format!("projects/{}/rotations/{rotation}", group(1)),
                "datacontenttype": "application/json",
                "data": {
                    "groupId": group(1), "projectName": "payments-prod", "rotationId": rotation, "provider": "AWS",
                    "oldKey": old_key(), "newKey": new_key(), "state": "awaiting_approval", "cause": null,
                    "requestedBy": "ada", "reason": "Q3", "checks": got.json()["data"]["checks"], "atlasErrorCode": null, "atlasDetail": null, "remedy": null,
                    "summary": "payments-prod: approve a new encryption key?",
                    "link": format!("http://127.0.0.1/rotations/{rotation}"),
                },
            })
        );
        it.dispatch().round().await.unwrap();
        assert_eq!(receiver.received().len(), 1, "{backend:?}");
    }
}

#[tokio::test]
async fn slack_and_teams_get_their_own_form() {
    let receiver = Receiver::start().await;
    let chat = |name, format| Webhook { format, keys: vec![], ..options(name, &receiver.url()) };
    let it = WebhookFixture::new(&[chat("slack", Format::Slack), chat("teams", Format::Teams)]).await;
    it.propose().await;
    it.dispatch().round().await.unwrap();
    let mut got = receiver.received();
    got.sort_by_key(|it| it.json()["attachments"].is_array());
    let [slack, teams] = &got[..] else { panic!("{got:?}") };
    for it in [slack, teams] {
        assert_eq!(it.header("content-type"), Some("application/json"));
        assert_eq!(it.header("webhook-signature"), None);
        assert!(String::from_utf8_lossy(&it.body).contains(&new_key()));
    }
    assert_eq!(slack.json()["text"], "payments-prod: approve a new encryption key?");
    let card = &teams.json()["attachments"][0]["content"];
    assert_eq!(card["type"], "AdaptiveCard");
    assert!(card["actions"][0]["url"].as_str().unwrap().starts_with("http://127.0.0.1/rotations/"), "{card}");
}

#[tokio::test]
async fn a_page_is_tried_again_soon_and_for_five_days() {
    let receiver = Receiver::start().await;
    receiver.always(reply(503, "not today"));
    let it = WebhookFixture::on(Backend::Sqlite, &[options("ops", &receiver.url())]).await;
    let now = it.clock.now();
    let page = NewOutbox {
        channel: Channel::Webhook,
        content: notice(&group(1), Notice::NeedsOperator),
        subject: group(1).parse().unwrap(),
        recipient: "ops".to_owned(),
        message_id: "msg_page".to_owned(),
        next_try_at: now,
    };
    it.engine.store.tell(Vec::new(), vec![page], Vec::new(), now).await.unwrap();
    let mut dispatch = it.dispatch();
    for wait in [10, 30, 60, 120, 300, 300, 300, 300, 300, 300, 300, 300] {
        dispatch.round().await.unwrap();
        let row = it.row().await;
        assert_eq!((row.state.as_str(), row.next_try_at.since(it.clock.now()).as_secs()), ("waiting", wait));
        it.clock.advance(Duration::from_secs(wait));
    }
    it.clock.advance(5 * DAY);
    dispatch.round().await.unwrap();
    assert_eq!(it.row().await.state.as_str(), "failed");
}

#[tokio::test]
async fn it_is_tried_on_the_published_schedule_under_one_id_and_then_given_up() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let receiver = Receiver::start().await;
        receiver.always(reply(500, "not today"));
        let it = WebhookFixture::on(backend, &[options("ops", &receiver.url())]).await;
        it.propose().await;
        let mut dispatch = it.dispatch();
        let began = it.clock.now();
        for (number, wait) in WAITS.iter().enumerate() {
            dispatch.round().await.unwrap();
            assert_eq!(receiver.received().len(), number + 1);
            let row = it.row().await;
            assert_eq!((row.state.as_str(), row.last_reply.as_deref()), ("waiting", Some("500 not today")));
            assert_eq!(row.next_try_at, it.clock.now() + *wait);
            let last = Duration::from_millis(1);
            it.clock.advance(wait.saturating_sub(last));
            dispatch.round().await.unwrap();
            assert_eq!(receiver.received().len(), number + 1, "too early");
            it.clock.advance(last);
        }
        dispatch.round().await.unwrap();
        let row = it.row().await;
        assert_eq!((row.state.as_str(), row.attempts), ("failed", 10), "{row:?}");
        it.clock.advance(10 * DAY);
        dispatch.round().await.unwrap();
        let all = receiver.received();
        assert_eq!(all.len(), 10);
        let distinct = |of: fn(&Received) -> Vec<u8>| all.iter().map(of).collect::<BTreeSet<_>>().len();
        assert_eq!(distinct(|it| it.id().as_bytes().to_vec()), 1);
        assert_eq!(distinct(|it| it.body.to_vec()), 1);
        assert_eq!(distinct(|it| it.header("webhook-timestamp").unwrap().as_bytes().to_vec()), 10);
        assert!(all.iter().all(|it| it.is_signed_with(&SECRET)));
        assert!(WAITS.iter().sum::<Duration>() < 5 * DAY && it.clock.now() > began);
        let text = metrics::scrape(&it.engine).await.unwrap();
        for line in [
            "keywheel_webhooks_total{target=\"ops\",result=\"failed\"} 9",
            "keywheel_webhooks_total{target=\"ops\",result=\"dead\"} 1",
            "keywheel_webhook_messages{target=\"ops\",state=\"failed\"} 1",
            "keywheel_webhook_disabled{target=\"ops\"} 0",
        ] {
            assert!(text.contains(line), "{line} not in {text}");
        }
    }
}

#[tokio::test]
async fn a_target_that_asks_for_patience_gets_it_within_bounds() {
    let receiver = Receiver::start().await;
    let asking = |seconds: &str| (429, vec![("retry-after", seconds.to_owned())], "slow down".to_owned());
    receiver.then([asking("600"), asking("99999999"), asking("0"), asking("soon")]);
    let it = WebhookFixture::new(&[options("ops", &receiver.url())]).await;
    it.propose().await;
    let mut dispatch = it.dispatch();
    dispatch.round().await.unwrap();
    assert_eq!(it.row().await.next_try_at, it.clock.now() + Duration::from_mins(10));
    // What comes meanwhile waits as well: the target asked for itself.
    it.reject().await;
    dispatch.round().await.unwrap();
    assert_eq!(receiver.received().len(), 1);
    it.clock.advance(Duration::from_mins(10));
    // Rejected first: it never waited for a schedule of its own.
    dispatch.round().await.unwrap();
    let asked = it.rows().await.into_iter().map(|row| row.next_try_at).max().unwrap();
    assert_eq!(asked, it.clock.now() + DAY);
    it.clock.advance(DAY);
    dispatch.round().await.unwrap();
    let rows = it.rows().await;
    assert!(
        rows.iter()
            .all(|row| row.state == MessageState::Sent || row.last_reply.as_deref() == Some("429 slow down")),
        "{rows:?}"
    );
    it.clock.advance(6 * DAY);
    dispatch.round().await.unwrap();
    let rows = it.rows().await;
    assert!(rows.iter().all(|row| row.state != MessageState::Waiting), "{rows:?}");
}

#[tokio::test]
async fn a_target_that_is_configured_again_is_tried_again_at_once() {
    let (receiver, fixed) = (Receiver::start().await, Receiver::start().await);
    receiver.then([(429, vec![("retry-after", "86400".to_owned())], "slow down".to_owned())]);
    let it = WebhookFixture::new(&[options("ops", &receiver.url())]).await;
    it.propose().await;
    let mut dispatch = it.dispatch();
    dispatch.round().await.unwrap();
    it.configure(&[options("ops", &fixed.url())]);
    it.reject().await;
    dispatch.round().await.unwrap();
    assert_eq!((receiver.received().len(), fixed.received().len()), (1, 1));
}

#[tokio::test]
async fn what_waited_five_days_is_given_up_untried() {
    let receiver = Receiver::start().await;
    let it = WebhookFixture::new(&[options("ops", &receiver.url())]).await;
    it.propose().await;
    it.clock.advance(5 * DAY + Duration::from_secs(1));
    it.dispatch().round().await.unwrap();
    let row = it.row().await;
    assert_eq!(row.last_reply.as_deref(), Some("not delivered within five days; last: it was not tried"));
    assert_eq!((row.state.as_str(), receiver.received().len()), ("failed", 0));
}

#[tokio::test]
async fn a_disabled_target_is_tried_once_a_day_and_enabled_by_a_person() {
    let receiver = Receiver::start().await;
    receiver.then([reply(410, "channel_is_archived"), reply(410, "channel_is_archived")]);
    let it = WebhookFixture::new(&[options("ops", &receiver.url())]).await;
    let mut dispatch = it.dispatch();
    let target = || it.engine.webhooks.all().remove(0);
    it.propose().await;
    dispatch.round().await.unwrap();
    assert_eq!(target().retired_at(), Some(it.clock.now()));
    it.reject().await;
    dispatch.round().await.unwrap();
    assert_eq!(receiver.received().len(), 1, "a disabled target was tried");
    it.clock.advance(DAY);
    for gone in [true, false] {
        it.propose().await;
        it.reject().await;
        dispatch.round().await.unwrap();
        // The first of the two is tried. After another 410 the second ends with it.
        assert_eq!(target().retired_at().is_some(), gone);
        assert_eq!(receiver.received().len(), if gone { 2 } else { 4 });
        it.clock.advance(DAY);
    }
    assert_eq!(it.audited("webhook.disabled").await, ["webhook/ops"], "each day's refusal is no news");

    receiver.then([reply(410, "")]);
    it.propose().await;
    dispatch.round().await.unwrap();
    assert!(target().retired_at().is_some());
    assert!(it.engine.enable_webhook("ann", "ops").await.unwrap());
    assert!(!it.engine.enable_webhook("ann", "ops").await.unwrap());
    let unknown = it.engine.enable_webhook("ann", "opps").await.unwrap_err();
    assert!(unknown.to_string().contains("no webhook target \"opps\""), "{unknown}");
    assert_eq!(it.audited("webhook.enabled").await, ["webhook/ops"]);
    it.reject().await;
    dispatch.round().await.unwrap();
    assert_eq!((target().retired_at(), receiver.received().len()), (None, 6));
}

#[tokio::test]
async fn a_reply_that_reports_a_failure_is_one_whatever_its_status() {
    let receiver = Receiver::start().await;
    receiver.then([reply(200, r#"{"ok":false,"error":"channel_not_found"}"#), reply(200, "ok")]);
    let slack = Webhook { format: Format::Slack, ..options("ops", &receiver.url()) };
    let it = WebhookFixture::new(&[slack]).await;
    it.propose().await;
    let mut dispatch = it.dispatch();
    dispatch.round().await.unwrap();
    let row = it.row().await;
    assert_eq!(row.state, MessageState::Waiting);
    let said = row.last_reply.unwrap();
    assert!(said.contains("channel_not_found") && said.contains("the body reports a failure"), "{said}");
    it.clock.advance(Duration::from_secs(5));
    dispatch.round().await.unwrap();
    assert_eq!(it.row().await.state, MessageState::Sent);
}

#[tokio::test]
async fn a_target_that_is_gone_is_left_alone_until_it_is_configured_again() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let (receiver, other) = (Receiver::start().await, Receiver::start().await);
        receiver.then([reply(500, ""), reply(410, "retired")]);
        let targets = [options("ops", &receiver.url()), options("other", &other.url())];
        let it = WebhookFixture::on(backend, &targets).await;
        it.propose().await;
        let mut dispatch = it.dispatch();
        dispatch.round().await.unwrap();
        it.reject().await;
        // The rejection gets the 410, and ends what waits for its next try.
        dispatch.round().await.unwrap();
        let rows = it.rows().await;
        let of = |target: &str| rows.iter().filter(|row| row.recipient == target).collect::<Vec<_>>();
        let [first, second] = of("ops")[..] else { panic!("{rows:?}") };
        assert_eq!((first.state.as_str(), second.state.as_str()), ("failed", "failed"));
        assert!(first.last_reply.as_deref().unwrap().contains("answered 410"), "{first:?}");
        assert_eq!(second.last_reply.as_deref(), Some("410 retired"));
        assert!(of("other").iter().all(|row| row.state == MessageState::Sent), "{rows:?}");
        assert_eq!(it.audited("webhook.disabled").await, ["webhook/ops"]);
        let text = metrics::scrape(&it.engine).await.unwrap();
        assert!(text.contains("keywheel_webhook_disabled{target=\"ops\"} 1"), "{text}");
        assert!(text.contains("keywheel_webhooks_total{target=\"ops\",result=\"dead\"} 2"), "{text}");

        it.propose().await;
        dispatch.round().await.unwrap();
        assert_eq!((receiver.received().len(), other.received().len()), (2, 3));
        if backend == Backend::Postgres {
            // Another daemon may know a fixed one.
            assert_eq!(it.rows().await.iter().filter(|row| row.state == MessageState::Waiting).count(), 1);
            it.clock.advance(Duration::from_mins(10));
            dispatch.round().await.unwrap();
        }
        assert!(it.rows().await.iter().all(|row| row.state != MessageState::Waiting));
        it.configure(&targets);
        it.reject().await;
        dispatch.round().await.unwrap();
        assert_eq!(receiver.received().len(), 3, "{backend:?}");
        assert_eq!(it.audited("webhook.disabled").await.len(), 1);
    }
}

#[tokio::test]
async fn a_daemon_that_was_told_410_ends_nothing_that_another_can_deliver() {
    let (receiver, fixed) = (Receiver::start().await, Receiver::start().await);
    receiver.then([reply(410, "retired")]);
    let it = WebhookFixture::on(Backend::Postgres, &[options("ops", &receiver.url())]).await;
    it.propose().await;
    let mut dispatch = it.dispatch();
    dispatch.round().await.unwrap();
    it.reject().await;
    dispatch.round().await.unwrap();
    let other = engine_at(&it.sim, it.engine.store.clone(), Arc::new(it.clock.clone()));
    other.webhooks.replace(vec![Target::new(&options("ops", &fixed.url())).unwrap()]);
    WebhookSender::new(other).round().await.unwrap();
    assert_eq!((receiver.received().len(), fixed.received().len()), (1, 1));
    assert_eq!(it.rows().await[1].state, MessageState::Sent);
}

#[tokio::test]
async fn the_410_of_a_target_that_was_replaced_meanwhile_ends_nothing_of_the_new_one() {
    let (receiver, fixed) = (Receiver::start().await, Receiver::start().await);
    receiver.always(reply(410, "retired"));
    receiver.shut();
    let it = WebhookFixture::new(&[options("ops", &receiver.url())]).await;
    it.propose().await;
    let mut dispatch = it.dispatch();
    let replaced = async {
        receiver.arrived().await;
        it.configure(&[options("ops", &fixed.url())]);
        receiver.open();
    };
    let (round, ()) = tokio::join!(dispatch.round(), replaced);
    round.unwrap();
    let row = it.row().await;
    assert_eq!((row.state.as_str(), row.last_reply.as_deref()), ("waiting", Some("410 retired")));
    assert!(it.audited("webhook.disabled").await.is_empty());
    it.clock.advance(WAITS[0]);
    dispatch.round().await.unwrap();
    assert_eq!((it.row().await.state.as_str(), fixed.received().len()), ("sent", 1));
}

#[tokio::test]
async fn no_redirect_is_followed() {
    for status in [301, 302, 303, 307, 308] {
        let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
        receiver.always((status, vec![("location", elsewhere.url())], String::new()));
        let it = WebhookFixture::new(&[options("ops", &receiver.url())]).await;
        it.propose().await;
        it.dispatch().round().await.unwrap();
        let row = it.row().await;
        let wanted =
            format!("{status} is a redirect, and none is followed: configure the address it leads to");
        assert_eq!((row.state.as_str(), row.last_reply.as_deref()), ("waiting", Some(wanted.as_str())));
        assert_eq!((receiver.received().len(), elsewhere.received().len()), (1, 0));
    }
}

#[tokio::test]
async fn a_name_that_leads_inside_is_not_connected_to() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in ["localhost", "LOCALHOST"] {
        let mut ops = options("ops", &format!("https://{host}:{port}/path-canary"));
        ops.allow_private = false;
        let it = WebhookFixture::new(&[ops]).await;
        it.propose().await;
        it.dispatch().round().await.unwrap();
        let said = it.row().await.last_reply.unwrap();
        assert!(said.contains("a loopback address: only public addresses are called"), "{said}");
        assert!(!said.contains("canary"), "{said}");
    }
    let connected = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
    assert!(connected.is_err(), "it was connected to");
}

#[tokio::test]
async fn nobody_there_is_said_in_the_systems_words_and_without_the_address() {
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let it = WebhookFixture::new(&[options("ops", &format!("http://127.0.0.1:{port}/path-canary"))]).await;
    it.propose().await;
    it.dispatch().round().await.unwrap();
    let said = it.row().await.last_reply.unwrap();
    assert!(said.starts_with("cannot connect to 127.0.0.1: Connection refused"), "{said}");
    assert!(!said.contains("canary"), "{said}");
}

#[tokio::test]
async fn a_certificate_of_ones_own_is_trusted_where_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::new(folder.path(), false);
    let server = TlsReceiver::start(&certificates).await;
    for (ca_file, wanted) in [(Some(certificates.issuer.clone()), "sent"), (None::<PathBuf>, "waiting")] {
        let trusted = ca_file.is_some();
        let url = format!("https://localhost:{}/x", server.port);
        let it = WebhookFixture::new(&[Webhook { ca_file, ..options("ops", &url) }]).await;
        it.propose().await;
        it.dispatch().round().await.unwrap();
        let row = it.row().await;
        assert_eq!(row.state.as_str(), wanted, "{row:?}");
        assert!(trusted || row.last_reply.as_deref().unwrap().contains("certificate"), "{row:?}");
    }
}

#[tokio::test]
async fn the_rows_of_a_target_that_was_removed_end_and_say_why() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let (receiver, other) = (Receiver::start().await, Receiver::start().await);
        receiver.always(reply(500, ""));
        let targets = [options("ops", &receiver.url()), options("other", &other.url())];
        let it = WebhookFixture::on(backend, &targets).await;
        it.propose().await;
        let mut dispatch = it.dispatch();
        dispatch.round().await.unwrap();
        it.configure(&targets[1..]);
        if backend == Backend::Postgres {
            // Another daemon may know it already.
            dispatch.round().await.unwrap();
            assert_eq!(it.rows().await[0].state, MessageState::Waiting);
            it.clock.advance(Duration::from_mins(10));
        }
        dispatch.round().await.unwrap();
        let row = it.rows().await.into_iter().find(|row| row.recipient == "ops").unwrap();
        assert_eq!(
            (row.state.as_str(), row.last_reply.as_deref()),
            ("failed", Some("there is no webhook target \"ops\" in the configuration any more"))
        );
        it.reject().await;
        dispatch.round().await.unwrap();
        assert_eq!((receiver.received().len(), other.received().len()), (1, 2), "{backend:?}");
    }
}

#[tokio::test]
async fn a_filter_lets_through_what_it_names() {
    let (all, some) = (Receiver::start().await, Receiver::start().await);
    let kinds = vec![Kind::Rejected, Kind::Completed];
    let it =
        WebhookFixture::new(&[options("all", &all.url()), Webhook { kinds, ..options("some", &some.url()) }])
            .await;
    it.propose().await;
    it.reject().await;
    it.dispatch().round().await.unwrap();
    let types = |it: &Receiver| -> BTreeSet<String> {
        it.received().iter().map(|it| it.json()["type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(types(&some), BTreeSet::from(["io.keywheel.rejected.v1".to_owned()]));
    assert_eq!(types(&all).len(), 2);
}

#[tokio::test]
async fn a_webhook_that_cannot_be_read_is_given_up_and_one_of_a_newer_version_waits() {
    let receiver = Receiver::start().await;
    let it = WebhookFixture::new(&[options("ops", &receiver.url())]).await;
    it.propose().await;
    it.reject().await;
    let keywheel::store::Store::Sqlite { write, .. } = &it.engine.store else { panic!("not SQLite") };
    for change in [
        "UPDATE outbox SET model = json_set(model, '$.groupId', '') WHERE kind = 'approval_requested'",
        "UPDATE outbox SET kind = 'renewed' WHERE kind = 'rejected'",
    ] {
        sqlx::query(change).execute(write).await.unwrap();
    }
    it.dispatch().round().await.unwrap();
    let rows = it.rows().await;
    let (torn, newer) = (&rows[0], &rows[1]);
    assert_eq!((torn.state.as_str(), torn.attempts), ("failed", 1), "{torn:?}");
    let said = torn.last_reply.as_deref().unwrap();
    assert!(said.starts_with(&format!("message {} cannot be read: ", torn.id)), "{said}");
    assert!(said.contains("groupId: groupId \"\" is not an Atlas project id"), "{said}");
    assert_eq!((newer.state.as_str(), newer.attempts), ("waiting", 1), "{newer:?}");
    assert!(
        newer.last_reply.as_deref().unwrap().contains("\"renewed\" is not a kind of notice"),
        "{newer:?}"
    );
    assert_eq!(newer.next_try_at, it.clock.now() + WAITS[0]);
    assert!(receiver.received().is_empty());
    sqlx::query("UPDATE outbox SET kind = 'rejected' WHERE kind = 'renewed'").execute(write).await.unwrap();
    it.clock.advance(WAITS[0]);
    it.dispatch().round().await.unwrap();
    assert_eq!((it.rows().await[1].state.as_str(), receiver.received().len()), ("sent", 1));
}

#[tokio::test]
async fn a_death_between_sending_and_writing_down_repeats_it_under_the_same_id() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let receiver = Receiver::start().await;
        receiver.shut();
        let it = WebhookFixture::on(backend, &[options("ops", &receiver.url())]).await;
        it.propose().await;
        let mut dying = it.dispatch();
        tokio::select! {
            () = receiver.arrived() => {}
            _ = dying.round() => panic!("nobody had answered"),
        }
        drop(dying);
        receiver.open();
        let mut dispatch = it.dispatch();
        // The dead one's claim holds for a while.
        dispatch.round().await.unwrap();
        assert_eq!(receiver.received().len(), 1);
        it.clock.advance(Duration::from_mins(1));
        dispatch.round().await.unwrap();
        let [first, second] = &receiver.received()[..] else { panic!("{:?}", receiver.received()) };
        assert_eq!((first.id(), &first.body), (second.id(), &second.body));
        assert_ne!(first.header("webhook-timestamp"), second.header("webhook-timestamp"));
        let row = it.row().await;
        assert_eq!((row.state.as_str(), row.attempts), ("sent", 2), "{backend:?}");
    }
}

#[tokio::test]
async fn a_target_that_hangs_holds_up_neither_mails_nor_other_targets() {
    let (hanging, other) = (Receiver::start().await, Receiver::start().await);
    hanging.shut();
    let server = Smtpd::start(json!({}));
    let it = WebhookFixture::new(&[options("hanging", &hanging.url()), options("other", &other.url())]).await;
    let owners = ProjectEdit { owners: Some(vec!["ada@example.com".to_owned()]), ..ProjectEdit::default() };
    it.engine.edit_project("ada", &group(1).parse().unwrap(), owners).await.unwrap();
    let url = SecretUrl::new(format!("smtp://127.0.0.1:{}", server.port));
    let smtp = tokio::sync::watch::channel(Some(Smtp::new(&url, "k@example.com", None, None).unwrap())).1;
    let stop = CancellationToken::new();
    let mail_sender = MailSender::new(it.engine.clone(), smtp, std::num::NonZeroU32::new(1000).unwrap());
    let sending = crate::support::wait::spawn(it.dispatch().run(stop.clone()));
    let mailing = crate::support::wait::spawn(mail_sender.run(stop.clone()));
    it.propose().await;
    hanging.arrived().await;
    other.arrived().await;
    it.reject().await;
    other.arrived().await;
    let mailed = eventually(LIMIT, async || (server.mails().len() >= 2).then_some(()));
    mailed.await.expect("the mails did not leave");
    assert_eq!(other.received().len(), 2);
    // A stop waits for what is on its way.
    stop.cancel();
    hanging.open();
    sending.await.unwrap();
    mailing.await.unwrap();
    let rows = it.rows().await;
    assert!(rows.iter().all(|row| row.state == MessageState::Sent), "{rows:?}");
}

#[tokio::test]
async fn at_most_four_are_on_their_way_to_one_target() {
    let receiver = Receiver::start().await;
    receiver.shut();
    let it = WebhookFixture::new(&[options("ops", &receiver.url())]).await;
    for _ in 0..3 {
        it.propose().await;
        it.reject().await;
    }
    let mut dispatch = it.dispatch();
    tokio::select! {
        () = async { for _ in 0..4 { receiver.arrived().await; } } => {}
        _ = dispatch.round() => panic!("nobody had answered"),
    }
    assert_eq!(receiver.received().len(), 4);
    assert_eq!(it.rows().await.iter().filter(|row| row.attempts > 0).count(), 4);
}

#[tokio::test]
async fn reminders_reach_programs_one_by_one_and_channels_as_a_list() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let (program, channel) = (Receiver::start().await, Receiver::start().await);
        let chat = Webhook { format: Format::Slack, keys: vec![], ..options("chat", &channel.url()) };
        let it = WebhookFixture::on(backend, &[options("ops", &program.url()), chat]).await;
        for number in 2..=5 {
            let new = NewProject { group_id: group(number), ..NewProject::default() };
            it.engine.add_project("ada", new).await.unwrap();
        }
        it.clock.advance(87 * DAY);
        remind::once(&it.engine).await.unwrap();
        remind::once(&it.engine).await.unwrap();
        it.dispatch().round().await.unwrap();
        let got = program.received();
        assert_eq!(got.len(), 5, "{backend:?}");
        for event in got.iter().map(Received::json) {
            assert_eq!(event["type"], "io.keywheel.reminder.v1");
            assert_eq!(
                (&event["data"]["daysLeft"], event["data"]["link"].is_string()),
                (&json!(3), true),
                "{event}"
            );
            let project = format!("projects/{}", event["data"]["groupId"].as_str().unwrap());
            assert_eq!(event["subject"], project);
        }
        let list = channel.only().json();
        assert_eq!(list["text"], "5 projects need a new encryption key");
        // A target that is new is told of where things stand, the others are not told again.
        let late = Receiver::start().await;
        it.configure(&[options("ops", &program.url()), options("late", &late.url())]);
        it.engine.store.look_at_all_reminders(it.clock.now()).await.unwrap();
        remind::once(&it.engine).await.unwrap();
        it.dispatch().round().await.unwrap();
        assert_eq!((program.received().len(), late.received().len()), (5, 5), "{backend:?}");
    }
}

#[tokio::test]
async fn a_key_that_was_changed_outside_is_told_with_both_keys() {
    let receiver = Receiver::start().await;
    let it = WebhookFixture::new(&[options("ops", &receiver.url())]).await;
    it.sim.with(|world| {
        world.keys.entry(new_key()).or_insert(KeyState::Enabled);
        let project = world.projects.get_mut(&group(1)).unwrap();
        project.block.insert("customerMasterKeyID".to_owned(), new_key().into());
    });
    it.clock.advance(Duration::from_hours(1));
    sweep::once(&it.engine, &CancellationToken::new()).await.unwrap();
    it.dispatch().round().await.unwrap();
    let event = receiver.only().json();
    assert_eq!(event["type"], "io.keywheel.drifted.v1");
    let data = &event["data"];
    assert_eq!((&data["oldKey"], &data["newKey"]), (&json!(old_key()), &json!(new_key())));
    assert_eq!((&data["projectName"], &data["groupId"]), (&json!("payments-prod"), &json!(group(1))));
    assert_eq!(data["link"], format!("http://127.0.0.1/projects/{}", group(1)));
}

#[tokio::test]
async fn what_a_server_repeats_of_our_address_is_not_kept() {
    let receiver = Receiver::start().await;
    receiver.always(reply(
        404,
        "Cannot POST /hooks/path-canary?key=query-canary (Bearer bearer-canary) at http://x/hooks/path-canary",
    ));
    let mut ops = options("ops", &format!("{}?key=query-canary", receiver.url()));
    ops.token = Some(Secret::new("bearer-canary"));
    let it = WebhookFixture::new(&[ops]).await;
    it.propose().await;
    it.dispatch().round().await.unwrap();
    assert_eq!(receiver.only().path, "/hooks/path-canary?key=query-canary");
    let said = it.row().await.last_reply.unwrap();
    assert!(said.starts_with("404 Cannot POST /***") && !said.contains("canary"), "{said}");
    // A reply without an end is not read to its end.
    receiver.always(reply(500, &"x".repeat(1_000_000)));
    it.clock.advance(Duration::from_secs(5));
    it.dispatch().round().await.unwrap();
    assert!(it.row().await.last_reply.unwrap().chars().count() < 310);
}

#[tokio::test]
async fn mails_and_webhooks_are_claimed_apart() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let it = WebhookFixture::on(
            backend,
            &[options("ops", "https://192.0.2.1/x"), options("b", "https://192.0.2.1/x")],
        )
        .await;
        it.propose().await;
        let (store, now) = (&it.engine.store, it.clock.now());
        let minute = Duration::from_mins(1);
        assert_eq!(store.next_mail(keywheel::domain::time::Timestamp::from_micros(0)).await.unwrap(), None);
        assert!(
            store
                .claim_mail(now, minute, keywheel::domain::time::Timestamp::from_micros(0))
                .await
                .unwrap()
                .is_none()
        );
        assert_eq!(store.mail_counts().await.unwrap().unaddressed, 1);
        let claimed = store
            .claim_webhook("ops", now, minute, keywheel::domain::time::Timestamp::from_micros(0))
            .await
            .unwrap()
            .unwrap();
        assert_eq!((claimed.row.recipient.as_str(), claimed.row.channel), ("ops", Channel::Webhook));
        assert!(
            store
                .claim_webhook("ops", now, minute, keywheel::domain::time::Timestamp::from_micros(0))
                .await
                .unwrap()
                .is_none()
        );
        assert!(
            store
                .claim_webhook("nobody", now, minute, keywheel::domain::time::Timestamp::from_micros(0))
                .await
                .unwrap()
                .is_none()
        );
        let lanes = store.webhook_lanes(keywheel::domain::time::Timestamp::from_micros(0)).await.unwrap();
        let lanes: Vec<_> = lanes.iter().map(|it| (it.target.as_str(), it.waiting, it.next > now)).collect();
        assert_eq!(lanes, [("b", 1, false), ("ops", 1, true)]);
        let counts = store.webhook_counts().await.unwrap();
        assert_eq!(counts.iter().map(|it| it.webhooks).sum::<i64>(), 2);
        // What is under way is not ended under somebody's hands.
        assert_eq!(store.end_webhooks("ops", "over", now, now).await.unwrap(), 0);
        assert_eq!(store.end_webhooks("ops", "over", now, now + minute).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_database_in_doubt_sends_nothing() {
    let receiver = Receiver::start().await;
    let it = WebhookFixture::new(&[options("ops", &receiver.url())]).await;
    it.propose().await;
    // It remembers more than the database holds: that was restored from a backup.
    let store = &it.engine.store;
    let mark = present_mark(store).await.unwrap().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("epoch");
    write_mark(&file, &EpochMark { seq: mark.seq + 10, ..mark }).unwrap();
    let guard = EpochWatch::new(file).unwrap();
    guard.start(store, it.clock.now()).await.unwrap();
    assert!(guard.in_doubt());
    let engine = it.engine.clone().with_guard(guard);
    WebhookSender::new(engine).round().await.unwrap();
    assert!(receiver.received().is_empty());
    it.dispatch().round().await.unwrap();
    assert_eq!(receiver.received().len(), 1);
}

#[test]
fn the_documentation_lists_every_type_and_every_wait() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/webhooks.md")).unwrap();
    for kind in Kind::ALL {
        assert!(text.contains(&format!("`{}`", kind.event_type())), "{kind} is not in docs/webhooks.md");
    }
    assert!(text.contains("0, 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h"));
    assert_eq!(
        WAITS.map(|wait| wait.as_secs()),
        [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]
    );
}

/// Answers 200 to everything, over TLS.
struct TlsReceiver {
    port: u16,
}

impl TlsReceiver {
    async fn start(certificates: &Certificates) -> Self {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let chain = CertificateDer::pem_file_iter(&certificates.certificate).unwrap().map(Result::unwrap);
        let key = PrivateKeyDer::from_pem_file(&certificates.key).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain.collect(), key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        crate::support::wait::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                crate::support::wait::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut seen = Vec::new();
                    while !String::from_utf8_lossy(&seen).contains("\"specversion\"") {
                        if stream.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let _ = stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                        .await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { port }
    }
}

/// Where a proxy is the only way out, a target names it; the name is the proxy's to resolve.
#[tokio::test]
async fn a_target_behind_a_proxy_is_called_through_it() {
    let receiver = Receiver::start().await;
    receiver.always(reply(202, "taken"));
    let mut ops = options("ops", "http://hooks.invalid/own");
    let way = receiver.url().parse::<url::Url>().unwrap();
    ops.proxy = Some(SecretUrl::new(format!("http://kw:canary@127.0.0.1:{}", way.port().unwrap())));
    let it = WebhookFixture::new(&[ops.clone()]).await;
    it.propose().await;
    it.dispatch().round().await.unwrap();
    assert_eq!(it.row().await.state.as_str(), "sent", "{:?}", it.row().await);
    let got = receiver.only();
    assert_eq!((got.path.as_str(), got.header("host")), ("http://hooks.invalid/own", Some("hooks.invalid")));
    assert!(got.header("proxy-authorization").unwrap().starts_with("Basic "));
    assert!(!format!("{ops:?}").contains("canary"));
}
