//! The counters of the process, and the gauges that a scrape adds from the database.
//!
//! Counters begin at zero with the process; gauges are read at each scrape. No metric carries a name, an
//! id or an address of a project or a person: a scraper gets numbers only. Webhook targets appear under
//! their names in the configuration.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use std::sync::atomic::AtomicU64;

use super::Engine;
use super::fleet::Fleet;
use crate::atlas::AtlasApi;
use crate::domain::condition::{ConditionKind, Telling};
use crate::domain::project::Status;
use crate::domain::rotation::outcome::EndpointSet;
use crate::domain::rotation::state::State;
use crate::domain::time::Timestamp;
use crate::store::{MessageState, StoreError};

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Named = [(&'static str, String); 2];
type Number = Gauge<f64, AtomicU64>;

/// Upper bounds of the latency buckets in seconds; the last is the longest timeout of a request.
const BUCKETS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 55.0];

/// The process's counters.
pub struct Metrics {
    registry: Registry,
    requests: Family<Labels<2>, Counter>,
    seconds: Family<Labels<1>, Histogram>,
    mails: Family<Labels<1>, Counter>,
    webhooks: Family<Named, Counter>,
    strangers: Family<Labels<1>, Counter>,
    links: Family<Labels<1>, Counter>,
    /// Claims that another daemon had taken over.
    pub lease_losses: Counter,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new(BUCKETS);
        let mut it = Self {
            registry: Registry::with_prefix("keywheel"),
            requests: Family::default(),
            seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            mails: Family::default(),
            webhooks: Family::default(),
            strangers: Family::default(),
            links: Family::default(),
            lease_losses: Counter::default(),
        };
        let registry = &mut it.registry;
        registry.register("atlas_requests", "Calls to Atlas by operation and outcome", it.requests.clone());
        registry.register("atlas_request_seconds", "Seconds a call to Atlas took", it.seconds.clone());
        registry.register("mails", "Attempts to send a mail by outcome", it.mails.clone());
        registry.register(
            "webhooks",
            "Attempts to deliver a webhook by target and outcome; dead: the webhook is given up",
            it.webhooks.clone(),
        );
        registry.register(
            "api_refusals",
            "API requests whose sender was not authenticated, by reason",
            it.strangers.clone(),
        );
        registry.register(
            "mail_links",
            "Requests with a link of a mail, by what became of them",
            it.links.clone(),
        );
        registry.register(
            "lease_losses",
            "Claims on a rotation that another daemon had taken over",
            it.lease_losses.clone(),
        );
        it
    }
}

impl Metrics {
    /// Counts one call to Atlas.
    pub(super) fn call(&self, operation: &'static str, class: &'static str, took: Duration) {
        self.requests.get_or_create(&[("operation", operation), ("class", class)]).inc();
        self.seconds.get_or_create(&[("operation", operation)]).observe(took.as_secs_f64());
    }

    /// Counts one attempt to send a mail: `sent`, `put_off` or `failed`.
    pub fn mail(&self, result: &'static str) {
        self.mails.get_or_create(&[("result", result)]).inc();
    }

    /// Counts one API request whose sender was not authenticated.
    pub(super) fn refused_stranger(&self, reason: &'static str) {
        self.strangers.get_or_create(&[("reason", reason)]).inc();
    }

    /// Counts a request with a link of a mail.
    pub(super) fn link(&self, outcome: &'static str) {
        self.links.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts webhooks for `target`: `sent`, `failed` (and tried again) or `dead` (given up).
    pub fn webhooks(&self, target: &str, result: &'static str, count: u64) {
        let labels = [("target", target.to_owned()), ("result", result.to_owned())];
        self.webhooks.get_or_create(&labels).inc_by(count);
    }
}

/// The response to a scrape, in the `OpenMetrics` format.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn scrape(engine: &Engine) -> Result<String, StoreError> {
    let now = engine.clock.now();
    let mut registry = Registry::with_prefix("keywheel");
    let build: Family<Labels<1>, Gauge> = Family::default();
    build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
    registry.register("build_info", "The program's version", build);
    rate_limits(engine, &mut registry, now);
    fleet(engine, &mut registry, now).await?;
    mails(engine, &mut registry, now).await?;
    webhooks(engine, &mut registry).await?;
    secrets(engine, &mut registry);
    let lag = super::due::lag(engine).await?;
    number(
        &mut registry,
        "sweep_lag_seconds",
        "Delay of the most overdue observation of a project",
        lag.as_secs_f64(),
    );
    let sending = !engine.epoch.in_doubt() && !engine.epoch.clocks_differ();
    number(
        &mut registry,
        "sending",
        "1 while PATCHes may be sent, 0 while the database or the clock is in doubt",
        f64::from(u8::from(sending)),
    );
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = encode_registry(&mut text, &registry);
    let _ = encode_registry(&mut text, &engine.metrics.registry);
    let _ = encode_eof(&mut text);
    Ok(text)
}

fn number(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge = Number::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

/// The rate limits that Atlas named, and the endpoint sets that wait because of one.
fn rate_limits(engine: &Engine, registry: &mut Registry, now: Timestamp) {
    let remaining: Family<Named, Gauge> = Family::default();
    let size: Family<Named, Gauge> = Family::default();
    for level in engine.atlas.levels() {
        let labels = [("credential", level.credential), ("set", level.set.as_str().to_owned())];
        remaining.get_or_create(&labels).set(whole(level.remaining));
        if let Some(limit) = level.limit {
            size.get_or_create(&labels).set(whole(limit));
        }
    }
    registry.register(
        "atlas_rate_limit_remaining",
        "RateLimit-Remaining by credential and endpoint set: the lowest of the last minute with a reply",
        remaining,
    );
    registry.register("atlas_rate_limit", "RateLimit-Limit that came with it", size);
    let waits: Family<Labels<1>, Gauge> = Family::default();
    for set in EndpointSet::ALL {
        let count = engine.atlas.waits().count(*set, now);
        waits.get_or_create(&[("set", set.as_str())]).set(whole(count));
    }
    registry.register(
        "atlas_rate_limit_waits",
        "Projects, organizations or users whose endpoint set waits until Atlas' Retry-After is over",
        waits,
    );
}

async fn fleet(engine: &Engine, registry: &mut Registry, now: Timestamp) -> Result<(), StoreError> {
    let fleet = Fleet::read(engine).await?;
    let projects: Family<Labels<1>, Gauge> = Family::default();
    for status in Status::ALL {
        let count = fleet.by_status.get(status).copied().unwrap_or_default();
        projects.get_or_create(&[("status", status.as_str())]).set(whole(count));
    }
    registry.register("projects", "Projects by status", projects);
    let conditions: Family<Labels<1>, Gauge> = Family::default();
    let counts = engine.store.condition_counts().await?;
    for kind in ConditionKind::ALL.iter().filter(|kind| kind.telling() != Telling::Shown) {
        let count = counts.get(kind.as_str()).copied().unwrap_or_default();
        conditions.get_or_create(&[("kind", kind.as_str())]).set(count);
    }
    registry.register(
        "conditions",
        "Projects, credentials and daemons for which a condition holds, by kind",
        conditions,
    );
    let gauge: Gauge = Gauge::default();
    gauge.set(whole(fleet.without_owner));
    registry.register(
        "projects_without_owner",
        "Projects without an owner; their messages are not sent",
        gauge,
    );
    let gauge: Gauge = Gauge::default();
    gauge.set(whole(fleet.silenced));
    registry.register("projects_silenced", "Projects whose mails wait for the end of a silence", gauge);
    if let Some((due, _)) = fleet.urgent.first() {
        let left = if *due > now { now.until(*due).as_secs_f64() } else { -now.since(*due).as_secs_f64() };
        number(
            registry,
            "next_due_seconds",
            "Seconds until the next key is due, negative when overdue",
            left,
        );
    }
    let rotations: Family<Labels<1>, Gauge> = Family::default();
    let counts = engine.store.rotation_counts().await?;
    for state in State::ALL {
        let count = counts.iter().find(|(name, _)| name == state.as_str()).map_or(0, |(_, count)| *count);
        rotations.get_or_create(&[("state", state.as_str())]).set(count);
    }
    registry.register("rotations", "Rotations by state", rotations);
    Ok(())
}

async fn mails(engine: &Engine, registry: &mut Registry, now: Timestamp) -> Result<(), StoreError> {
    let counts = engine.store.mail_counts().await?;
    let outbox: Family<Labels<1>, Gauge> = Family::default();
    for (state, count) in [
        (MessageState::Waiting.as_str(), counts.waiting),
        (MessageState::Sent.as_str(), counts.sent),
        (MessageState::Failed.as_str(), counts.failed),
        ("unaddressed", counts.unaddressed),
    ] {
        outbox.get_or_create(&[("state", state)]).set(count);
    }
    registry.register("outbox_messages", "Mails by state; unaddressed: their project has no owner", outbox);
    let oldest = counts.oldest_waiting.map(|at| now.since(at));
    number(
        registry,
        "outbox_oldest_seconds",
        "Age of the oldest mail that waits to be sent",
        oldest.unwrap_or_default().as_secs_f64(),
    );
    Ok(())
}

/// When the secrets of service accounts expire, where Atlas says it.
fn secrets(engine: &Engine, registry: &mut Registry) {
    let ends: Family<[(&'static str, String); 1], Gauge> = Family::default();
    for (name, at) in engine.secret_ends.known() {
        ends.get_or_create(&[("credential", name)]).set(at.as_micros() / 1_000_000);
    }
    registry.register(
        "credential_expires_timestamp_seconds",
        "When the secret of a credential expires, in seconds since 1970",
        ends,
    );
}

async fn webhooks(engine: &Engine, registry: &mut Registry) -> Result<(), StoreError> {
    let targets = engine.webhooks.all();
    if targets.is_empty() {
        return Ok(());
    }
    let counts = engine.store.webhook_counts().await?;
    let messages: Family<Named, Gauge> = Family::default();
    let disabled: Family<[(&'static str, String); 1], Gauge> = Family::default();
    for target in targets {
        let name = target.name();
        for state in MessageState::ALL.iter().copied() {
            let count = counts.iter().find(|it| it.target == name && it.state == state);
            let labels = [("target", name.to_owned()), ("state", state.to_string())];
            messages.get_or_create(&labels).set(count.map_or(0, |it| it.webhooks));
        }
        disabled.get_or_create(&[("target", name.to_owned())]).set(i64::from(target.retired_at().is_some()));
    }
    registry.register("webhook_messages", "Webhooks by target and state", messages);
    registry.register("webhook_disabled", "1 when the target answered 410 and gets no webhooks", disabled);
    Ok(())
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
