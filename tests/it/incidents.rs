//! Services that open and close incidents, over real HTTP: what they get at the start, at a repetition and at the
//! end of a condition, and what a late delivery must not open or close.

use std::time::Duration;

use keywheel::config::Webhook;
use keywheel::config::webhooks::Format;
use keywheel::domain::time::{Span, Timestamp};
use keywheel::engine::command::{OperatorVerb, ProjectEdit};
use keywheel::engine::webhook_sender::WebhookSender;
use keywheel::engine::{conditions, driver, resend, sweep};
use keywheel::secret::Secret;
use keywheel::sim::World;
use keywheel::sim::world::KeyState;
use keywheel::store::OutboxRow;
use keywheel::webhook::{Target, TargetResponse};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::db::Backend;
use crate::support::receiver::{Received, Receiver, reply};
use crate::support::{TestApp, group, new_key, old_key};

const SECOND: Duration = Duration::from_secs(1);
const THIRD: &str = "33333333-3333-4333-8333-333333333333";

/// A fleet of one project, and a service that its conditions are sent to.
struct Service {
    app: TestApp,
    receiver: Receiver,
}

fn options(format: Format, port: u16) -> Webhook {
    let path = match format {
        Format::PagerDuty => "v2/enqueue",
        Format::Opsgenie => "v2/alerts",
        _ => "api/v2/alerts",
    };
    let key =
        matches!(format, Format::PagerDuty | Format::Opsgenie).then(|| Secret::new("service-key-canary"));
    Webhook {
        name: "oncall".to_owned(),
        url: Secret::new(format!("http://127.0.0.1:{port}/{path}")),
        format,
        keys: Vec::new(),
        token: None,
        service_key: key,
        kinds: Vec::new(),
        allow_private: true,
        proxy: None,
        ca_file: None,
    }
}

impl Service {
    async fn new(format: Format) -> Self {
        Self::on(Backend::Sqlite, format).await
    }

    async fn on(backend: Backend, format: Format) -> Self {
        let receiver = Receiver::start().await;
        receiver.always(reply(202, ""));
        let mut app = TestApp::on(backend, World::demo()).await;
        app.rule(|settings| {
            settings.drift_every = Span::from_secs(90);
            settings.limits.confirm_after = Span::from_secs(10);
        });
        app.engine.webhooks.replace(vec![Target::new(&options(format, receiver.port)).unwrap()]);
        let it = Self { app, receiver };
        it.live_for(SECOND).await;
        it
    }

    /// Lets time pass, with everything but deliveries.
    async fn wait_for(&self, span: Duration) {
        let engine = &self.app.engine;
        let end = engine.clock.now() + span;
        loop {
            sweep::once(engine, &CancellationToken::new()).await.unwrap();
            driver::run_due(engine).await.unwrap();
            conditions::once(engine).await.unwrap();
            if engine.clock.now() >= end {
                return;
            }
            self.app.pass_until((engine.clock.now() + SECOND * 5).min(end));
        }
    }

    async fn deliver(&self) {
        WebhookSender::new(self.app.engine.clone()).round().await.unwrap();
    }

    async fn live_for(&self, span: Duration) {
        self.wait_for(span).await;
        self.deliver().await;
    }

    fn make(&self, key: &str, state: KeyState) {
        self.app.sim.with(|world| world.keys.insert(key.to_owned(), state));
    }

    /// What came since the last call.
    fn came(&self) -> Vec<Received> {
        // The clock of a database server does not follow the tests'.
        let mut came = self.receiver.take();
        came.retain(|it| !String::from_utf8_lossy(&it.body).contains("not_sending"));
        came
    }

    async fn rows(&self, kind: &str) -> Vec<OutboxRow> {
        let mut rows = self.app.engine.store.outbox(None, 500).await.unwrap();
        rows.retain(|row| row.recipient == "oncall" && row.kind == kind);
        rows.reverse();
        rows
    }
}

/// The page about the project.
fn link() -> String {
    format!("http://127.0.0.1/projects/{}", group(1))
}

/// The id of a condition of the project.
fn id(kind: &str) -> String {
    format!("{}/{kind}", group(1))
}

fn only(mut all: Vec<Received>) -> Received {
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn at(value: &Value) -> Timestamp {
    value.as_str().unwrap_or_else(|| panic!("{value}")).parse().unwrap()
}

async fn pagerduty_on(backend: Backend) {
    let it = Service::on(backend, Format::PagerDuty).await;
    it.make(&old_key(), KeyState::Disabled);
    it.live_for(SECOND * 120).await;
    let row = it.rows("current_key_invalid").await.remove(0);
    let got = only(it.came());
    assert_eq!((got.path.as_str(), got.header("authorization")), ("/v2/enqueue", None));
    assert_eq!((got.header("webhook-signature"), got.id()), (None, row.message_id.as_str()));
    let description = got.json()["payload"]["custom_details"]["Description"].clone();
    assert!(description.as_str().unwrap().contains("Re-enable it"), "{description}");
    let wanted = json!({
        "routing_key": "service-key-canary", "event_action": "trigger", "dedup_key": id("invalid"),
        "client": "Keywheel", "client_url": link(),
        "links": [{ "href": link(), "text": "Open in Keywheel" }],
        "payload": {
            "summary": "payments-prod: Atlas cannot use the current key", "source": "payments-prod",
            "severity": "critical", "timestamp": row.created_at, "component": "encryption at rest",
            "group": group(1), "class": "invalid",
            "custom_details": {
                "Project": "payments-prod", "Atlas project id": group(1), "Key in force": old_key(),
                "Condition": id("invalid"), "Description": description,
            },
        },
    });
    assert_eq!(got.json(), wanted);

    // The page is repeated: the same incident.
    it.live_for(SECOND * 290).await;
    let again = only(it.came());
    assert_ne!(again.id(), got.id());
    let (mut again, mut first) = (again.json(), wanted);
    for body in [&mut again, &mut first] {
        body["payload"]["timestamp"].take();
    }
    assert_eq!(again, first);

    it.make(&old_key(), KeyState::Enabled);
    it.live_for(SECOND * 120).await;
    let over = only(it.came()).json();
    assert_eq!(
        (&over["event_action"], &over["dedup_key"], &over["payload"]["class"]),
        (&json!("resolve"), &json!(id("invalid")), &json!("invalid"))
    );
    let summary = over["payload"]["summary"].as_str().unwrap();
    assert!(summary.starts_with("payments-prod: valid again after "), "{summary}");
    it.live_for(SECOND * 4000).await;
    assert!(it.came().is_empty());
}

#[tokio::test]
async fn pagerduty_opens_adds_to_and_resolves_one_incident() {
    Box::pin(pagerduty_on(Backend::Sqlite)).await;
}

#[tokio::test]
async fn pagerduty_opens_adds_to_and_resolves_one_incident_on_postgres() {
    Box::pin(pagerduty_on(Backend::Postgres)).await;
}

#[tokio::test]
async fn opsgenie_opens_and_closes_one_alert_at_its_encoded_address() {
    let it = Service::new(Format::Opsgenie).await;
    it.make(&old_key(), KeyState::Disabled);
    it.live_for(SECOND * 120).await;
    let got = only(it.came());
    assert_eq!(
        (got.path.as_str(), got.header("authorization")),
        ("/v2/alerts", Some("GenieKey service-key-canary"))
    );
    let body = got.json();
    let description = body["description"].as_str().unwrap();
    assert!(description.starts_with(&format!("{}\n\nAtlas", link())), "{description}");
    assert_eq!(
        body,
        json!({
            "message": "payments-prod: Atlas cannot use the current key", "alias": id("invalid"),
            "description": description, "priority": "P1", "source": "http://127.0.0.1",
            "entity": "payments-prod", "tags": ["keywheel", "invalid"], "user": "Keywheel",
            "details": {
                "Project": "payments-prod", "Atlas project id": group(1), "Key in force": old_key(),
                "Condition": id("invalid"),
            },
        })
    );
    it.live_for(SECOND * 290).await;
    assert_eq!(only(it.came()).json(), body);

    it.make(&old_key(), KeyState::Enabled);
    it.live_for(SECOND * 120).await;
    let over = only(it.came());
    let path = format!("/v2/alerts/{}%2Finvalid/close?identifierType=alias", group(1));
    assert_eq!(
        (over.path, over.headers["authorization"].to_str().unwrap()),
        (path, "GenieKey service-key-canary")
    );
    let over: Value = serde_json::from_slice(&over.body).unwrap();
    let note = over["note"].as_str().unwrap();
    assert!(
        note.starts_with("payments-prod: valid again after ") && note.contains("as valid again"),
        "{note}"
    );
    assert_eq!(over, json!({ "user": "Keywheel", "source": "http://127.0.0.1", "note": note }));
}

/// Sends again, and returns what came.
async fn resent(it: &Service) -> Vec<Value> {
    for (target, answer) in resend::once(&it.app.engine).await.unwrap() {
        assert!(target == "oncall" && matches!(answer, TargetResponse::Taken(_)), "{answer:?}");
    }
    it.came().iter().flat_map(|it| it.json().as_array().unwrap().clone()).collect()
}

#[tokio::test]
async fn alertmanager_is_told_again_each_minute_while_it_holds() {
    let it = Service::new(Format::Alertmanager).await;
    assert!(resent(&it).await.is_empty());
    it.make(&old_key(), KeyState::Disabled);
    it.live_for(SECOND * 120).await;
    let got = only(it.came());
    assert_eq!((got.path.as_str(), got.header("authorization")), ("/api/v2/alerts", None));
    let body = got.json();
    let [start] = &body.as_array().unwrap()[..] else { panic!("{got:?}") };
    let now = it.app.engine.clock.now();
    let held = it.app.engine.store.conditions(now).await.unwrap().remove(0);
    let labels = json!({
        "alertname": "keywheel_invalid", "condition": "invalid", "condition_id": id("invalid"),
        "severity": "critical", "project": "payments-prod", "group_id": group(1),
    });
    let minutes = |count: u32| now + Duration::from_mins(count.into());
    let annotations = &start["annotations"];
    assert_eq!(annotations["summary"], "payments-prod: Atlas cannot use the current key");
    assert!(annotations["description"].as_str().unwrap().contains("Re-enable it"), "{annotations}");
    assert_eq!(
        start,
        &json!({
            "labels": labels, "annotations": annotations, "startsAt": held.since, "endsAt": minutes(5),
            "generatorURL": link(),
        })
    );

    // Acknowledged or not, it holds.
    let project = group(1).parse().unwrap();
    it.app.engine.acknowledge("grace", &project, held.kind, None).await.unwrap();
    for minute in 1..=3 {
        it.wait_for(SECOND * 60).await;
        let [again] = &resent(&it).await[..] else { panic!("not sent again") };
        assert_eq!((&again["labels"], &again["startsAt"]), (&labels, &start["startsAt"]));
        assert_eq!((at(&again["endsAt"]), &again["annotations"]), (minutes(minute + 5), annotations));
    }

    it.make(&old_key(), KeyState::Enabled);
    it.live_for(SECOND * 120).await;
    let over = only(it.came()).json()[0].clone();
    assert_eq!((&over["labels"], &over["startsAt"]), (&labels, &start["startsAt"]));
    assert!(at(&over["endsAt"]) <= it.app.engine.clock.now(), "{over}");
    // An end is sent again, should an earlier sending have overtaken it; then nothing is.
    let [again] = &resent(&it).await[..] else { panic!("the end was not sent again") };
    assert_eq!(again, &over);
    it.app.pass(Duration::from_mins(4));
    assert!(resent(&it).await.is_empty());
    // The outbox held the start and the end, and nothing of what was sent between them.
    let rows = it.app.engine.store.outbox(None, 500).await.unwrap();
    assert_eq!(rows.iter().filter(|row| row.recipient == "oncall").count(), 2);
}

#[tokio::test]
async fn alertmanager_that_fails_is_told_again_and_gets_what_its_types_name() {
    let it = Service::new(Format::Alertmanager).await;
    it.make(&old_key(), KeyState::Disabled);
    it.live_for(SECOND * 120).await;
    it.came();
    it.receiver.then([reply(503, "not today")]);
    let results = resend::once(&it.app.engine).await.unwrap();
    let failed = TargetResponse::Failed { said: "503 not today".to_owned(), retry_after: None };
    assert_eq!(results, [("oncall".to_owned(), failed)]);
    it.came();
    assert_eq!(resent(&it).await.len(), 1);
    let mut drifts = options(Format::Alertmanager, it.receiver.port);
    drifts.kinds = vec![keywheel::domain::notice::Kind::Drifted];
    it.app.engine.webhooks.replace(vec![Target::new(&drifts).unwrap()]);
    assert!(resent(&it).await.is_empty());
}

#[tokio::test]
async fn a_drift_and_a_rotation_that_stopped_have_incidents_with_an_end() {
    let it = Service::new(Format::PagerDuty).await;
    it.app.set_by_hand(THIRD);
    it.live_for(SECOND * 120).await;
    let drifted = only(it.came()).json();
    assert_eq!(
        (&drifted["dedup_key"], &drifted["payload"]["severity"]),
        (&json!(id("drifted")), &json!("warning"))
    );
    let edit = ProjectEdit { key_since: Some(it.app.engine.clock.now()), ..ProjectEdit::default() };
    it.app.engine.edit_project("ada", &group(1).parse().unwrap(), edit).await.unwrap();
    it.live_for(SECOND * 10).await;
    let over = only(it.came()).json();
    assert_eq!((&over["dedup_key"], &over["event_action"]), (&json!(id("drifted")), &json!("resolve")));

    // Both keys go bad under way: an operator is needed.
    let row = it.app.approved().await;
    it.app.until(&row, |state| state.as_str() == "verifying").await;
    it.make(THIRD, KeyState::Disabled);
    it.make(&new_key(), KeyState::Disabled);
    let row = it.app.settle(&row).await;
    assert_eq!(row.rotation.state.as_str(), "needs_operator");
    // The page leaves before any comparison has written the condition.
    it.deliver().await;
    let stopped: Vec<_> = it.came().iter().map(Received::json).collect();
    assert_eq!(stopped.len(), 1, "{stopped:?}");
    assert_eq!(
        (&stopped[0]["dedup_key"], &stopped[0]["event_action"]),
        (&json!(id("needs_operator")), &json!("trigger"))
    );
    assert_eq!(stopped[0]["client_url"], format!("http://127.0.0.1/rotations/{}", row.rotation.id));
}

#[tokio::test]
async fn a_late_start_opens_nothing_and_a_late_end_closes_nothing_that_holds_again() {
    let it = Service::new(Format::PagerDuty).await;
    it.receiver.always(reply(503, "not today"));
    it.make(&old_key(), KeyState::Disabled);
    it.live_for(SECOND * 120).await;
    it.make(&old_key(), KeyState::Enabled);
    it.wait_for(SECOND * 200).await;
    it.came();
    it.receiver.always(reply(202, ""));
    it.deliver().await;
    let came: Vec<_> = it.came().iter().map(|it| it.json()["event_action"].clone()).collect();
    assert_eq!(came, ["resolve"], "the start was late");
    let start = it.rows("current_key_invalid").await.remove(0);
    assert_eq!((start.state.as_str(), start.sent_at), ("sent", None));
    assert!(
        start.last_reply.as_deref().unwrap().starts_with("not sent: the condition ended before"),
        "{start:?}"
    );

    // An end that comes after the next start.
    it.make(&old_key(), KeyState::Disabled);
    it.live_for(SECOND * 120).await;
    it.make(&old_key(), KeyState::Enabled);
    it.wait_for(SECOND * 120).await;
    it.receiver.then([reply(503, "not today")]);
    it.deliver().await;
    it.make(&old_key(), KeyState::Disabled);
    it.wait_for(SECOND * 120).await;
    it.came();
    it.deliver().await;
    it.app.pass(Duration::from_mins(4));
    it.deliver().await;
    let came: Vec<_> = it.came().iter().map(|it| it.json()["event_action"].clone()).collect();
    assert_eq!(came, ["trigger"], "the end was late");
    let ends = it.rows("current_key_invalid_over").await;
    assert_eq!(ends.len(), 2);
    assert!(
        ends[1].last_reply.as_deref().unwrap().starts_with("not sent: the condition holds again"),
        "{ends:?}"
    );
}

#[tokio::test]
async fn deliveries_to_a_service_go_one_after_another_and_only_conditions_go() {
    let it = Service::new(Format::PagerDuty).await;
    let target = |format| {
        let key = (format == Format::PagerDuty).then(|| Secret::new("service-key-canary"));
        let options = Webhook { format, service_key: key, ..options(Format::PagerDuty, it.receiver.port) };
        it.app.engine.webhooks.replace(vec![Target::new(&options).unwrap()]);
    };
    // A proposal has no end: no incident.
    let row = it.app.approved().await;
    it.deliver().await;
    assert!(it.came().is_empty() && it.rows("approval_requested").await.is_empty());
    // A message that was written for another format has no body here.
    target(Format::Slack);
    it.app.engine.say("ada", row.rotation.id, OperatorVerb::Cancel, None, None).await.unwrap();
    target(Format::PagerDuty);
    it.deliver().await;
    let cancelled = it.rows("cancelled").await.remove(0);
    assert_eq!((cancelled.state.as_str(), it.came().len()), ("failed", 0));
    assert!(cancelled.last_reply.unwrap().contains("tells no condition"));

    it.app.track(2).await;
    let second = it.app.sim.with(|world| world.projects[&group(2)].key());
    it.make(&old_key(), KeyState::Disabled);
    it.make(&second, KeyState::Disabled);
    it.wait_for(SECOND * 120).await;
    it.receiver.shut();
    let mut sender = WebhookSender::new(it.app.engine.clone());
    tokio::select! {
        () = it.receiver.arrived() => {}
        _ = sender.round() => panic!("nobody had answered"),
    }
    let rows = it.rows("current_key_invalid").await;
    let tried = rows.iter().filter(|row| row.attempts > 0).count();
    assert_eq!((rows.len(), it.came().len(), tried), (2, 1, 1));
}
