//! The engine: claims rotations, carries out one effect at a time, and writes down what came of it.
//!
//! [`step`] runs one claimed rotation until it rests, [`driver`] claims what is due, [`sweep`] looks
//! at projects, [`epoch`] says whether the database may be acted on, [`command`] is what people say.
//! [`propose`] writes down what they want a project moved to once `preflight` has looked, [`intake`] what
//! hooks bring; [`hint`] follows that and [`poll`] asks by itself, both through `candidate`; [`schedule`] only
//! wakes the others.
//! [`announce`] and [`remind`] write mails and webhooks, [`mail_sender`] sends the ones and [`webhook_sender`] the others.
//! [`discover`] lists what the credentials can see. [`witness`] asks Atlas' event feed about rotations that have ended, `drift` about keys that somebody else has set.
//! [`measured`] calls Atlas for all of them within its rate limits ([`waits`]).
//! [`fleet`], [`why`] and [`metrics`] only look. All decisions about a rotation are
//! [`next`](crate::domain::rotation::machine::next)'s; nothing here waits with a claim in hand, and
//! no transaction is open during a call to Atlas.

pub mod announce;
mod candidate;
pub mod command;
pub mod discover;
mod drift;
pub mod driver;
pub mod epoch;
pub mod fleet;
pub mod hint;
pub mod intake;
pub mod mail_sender;
pub mod measured;
pub mod metrics;
pub mod poll;
mod preflight;
pub mod propose;
pub mod ready;
pub mod remind;
pub mod schedule;
pub mod step;
pub mod sweep;
pub mod waits;
pub mod webhook_sender;
pub mod why;
pub mod witness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::atlas::AtlasApi;
use crate::config::Retention;
use crate::domain::ids::RotationId;
use crate::domain::policy::{Pace, Policy, Rules, Verify};
use crate::domain::project::Project;
use crate::domain::time::{Clock, Span};
use crate::kms::KeyService;
use crate::store::Store;

/// The actor named in journal and audit rows that the engine writes by itself.
pub const ENGINE: &str = "keywheel";

/// The settings the engine runs under.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Defaults for projects.
    pub policy: Policy,
    /// How outcomes are proven.
    pub verify: Verify,
    /// The machine's fixed waits.
    pub pace: Pace,
    /// How often a project is compared with Atlas.
    pub drift_every: Span,
    /// How often a project's key service is asked for its newest key.
    pub poll_every: Span,
    /// The time limit of one request.
    pub request_timeout: Span,
    /// Whether a PATCH carries the whole provider block.
    pub whole_block: bool,
    /// In mails.
    pub public_url: String,
    /// Rotations stepped at the same time.
    pub slots: usize,
    /// How long finished records are kept.
    pub retention: Retention,
}

impl Settings {
    /// How long a claim lasts without a sign of life.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.pace.lease.get()
    }

    /// What a PATCH must leave of the lease, so that its end is still ours to record: 5 s of 60.
    #[must_use]
    pub fn lease_reserve(&self) -> Duration {
        self.lease() / 12
    }

    /// The rules a proposal for `project` is bound to.
    #[must_use]
    pub fn rules(&self, project: &Project) -> Rules {
        Rules {
            policy: project.policy(&self.policy),
            verify: self.verify.clone(),
            pace: self.pace.clone(),
            whole_block: self.whole_block,
            request_timeout: self.request_timeout,
        }
    }
}

/// Wakes the mail sender and the webhook sender, each by a signal of its own: one must not take the other's.
#[derive(Debug, Default)]
pub struct Bell {
    mail: Notify,
    webhooks: Notify,
}

impl Bell {
    /// Something was written to the outbox.
    pub fn notify_one(&self) {
        self.mail.notify_one();
        self.webhooks.notify_one();
    }

    async fn mail(&self) {
        self.mail.notified().await;
    }

    async fn webhooks(&self) {
        self.webhooks.notified().await;
    }
}

/// Everything the engine's parts share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    /// The database.
    pub store: Store,
    /// Atlas.
    pub atlas: Arc<measured::Measured>,
    /// Lookups at key services, by the names that projects use.
    pub kms: Arc<BTreeMap<String, Arc<dyn KeyService>>>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The settings.
    pub settings: Arc<Settings>,
    /// Wakes the driver.
    pub rotations_due: Arc<Notify>,
    /// Wakes the senders of the outbox.
    pub mail_due: Arc<Bell>,
    /// Where webhooks go.
    pub webhooks: Arc<webhook_sender::Targets>,
    /// Wakes who handles events.
    pub events_due: Arc<Notify>,
    /// The hooks' way into the inbox.
    pub intake: Arc<intake::Intake>,
    /// Wakes the sweep.
    pub look_due: Arc<Notify>,
    /// Tells streams which rotation has a new journal row.
    pub journal: tokio::sync::broadcast::Sender<RotationId>,
    /// Whether the database may be acted on.
    pub epoch: Arc<epoch::EpochWatch>,
    /// What is counted.
    pub metrics: Arc<metrics::Metrics>,
    /// Whether the database can be written.
    pub readiness: Arc<ready::Readiness>,
    /// Instant of the last finished sweep.
    pub last_sweep: Arc<std::sync::Mutex<Option<crate::domain::time::Timestamp>>>,
}

impl Engine {
    /// Puts the parts together; nothing runs yet.
    #[must_use]
    pub fn new(store: Store, atlas: Arc<dyn AtlasApi>, clock: Arc<dyn Clock>, settings: Settings) -> Self {
        let metrics = Arc::<metrics::Metrics>::default();
        Self {
            store,
            atlas: Arc::new(measured::Measured::new(
                atlas,
                Arc::clone(&metrics),
                Arc::clone(&clock),
                settings.pace.rate_limit_floor,
            )),
            metrics,
            kms: Arc::default(),
            clock,
            settings: Arc::new(settings),
            rotations_due: Arc::default(),
            mail_due: Arc::default(),
            webhooks: Arc::default(),
            events_due: Arc::default(),
            intake: Arc::default(),
            look_due: Arc::default(),
            journal: tokio::sync::broadcast::channel(256).0,
            epoch: Arc::default(),
            readiness: Arc::default(),
            last_sweep: Arc::default(),
        }
    }

    /// The same engine under a guard that remembers.
    #[must_use]
    pub fn with_guard(mut self, epoch: epoch::EpochWatch) -> Self {
        self.epoch = Arc::new(epoch);
        self
    }

    /// The same engine with these lookups.
    #[must_use]
    pub fn with_kms(mut self, kms: BTreeMap<String, Arc<dyn KeyService>>) -> Self {
        self.kms = Arc::new(kms);
        self
    }
}
