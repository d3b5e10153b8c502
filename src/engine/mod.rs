//! The engine: claims rotations, carries out one effect at a time, and records its outcome.
//!
//! [`driver`] claims due rotations, and [`step`] runs a claimed rotation until it rests. [`sweep`] observes
//! projects, as many at the same time as `looks` allows, when [`due`] says. [`epoch`] decides whether the database may be acted on. [`command`] carries out the commands
//! of operators. [`propose`] records a proposal after `preflight` has checked it. [`intake`] stores events
//! from hooks. [`hint`] handles these events and [`poll`] polls the key services, both through `candidate`.
//! [`schedule`] only wakes the others. [`conditions`] tells conditions and their ends. [`announce`] and [`remind`] write messages; [`mail_sender`] and
//! [`webhook_sender`] send them. [`discover`] lists the projects that the credentials can see. [`witness`]
//! reads Atlas' event feed about ended rotations, `drift` about keys that another actor has set.
//! [`measured`] calls Atlas for all of them within its rate limits ([`waits`]). [`fleet`], [`why`] and
//! [`metrics`] only read. [`heartbeat`] requests a dead-man's switch. [`strangers`] counts and tells refused requests. `installation` gathers what is known of
//! the installation, and [`last_resort`] tells without the database that it cannot be written. `upgrade` says until when
//! the first findings after an upgrade are gathered.
//!
//! All decisions about a rotation are made by [`next`](crate::domain::rotation::machine::next). No code
//! here waits for a due time while it holds a claim, and no transaction is open during a call to Atlas.

pub mod announce;
mod authority;
mod candidate;
pub mod command;
pub mod conditions;
pub mod credentials;
pub mod deciding;
pub mod discover;
mod drift;
pub mod driver;
pub mod due;
mod emergency;
mod endings;
pub mod epoch;
pub mod evidence;
pub mod feeds;
pub mod fleet;
pub mod heads;
pub mod heartbeat;
pub mod hint;
mod installation;
pub mod intake;
pub mod last_resort;
mod late;
pub mod links;
mod looks;
pub mod loosen;
pub mod mail_sender;
pub mod measured;
pub mod metrics;
mod owners;
pub mod passkeys;
pub mod people;
pub mod plan;
pub mod poll;
mod preflight;
pub mod propose;
pub mod ready;
pub mod remind;
pub mod resend;
mod roles;
pub mod schedule;
mod settling;
pub mod step;
pub mod strangers;
pub mod sweep;
mod upgrade;
pub mod waits;
pub mod webhook_sender;
pub mod why;
pub mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use uuid::Uuid;

use crate::atlas::AtlasApi;
use crate::config::Retention;
use crate::domain::condition::Daily;
use crate::domain::condition::Limits;
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::policy::{Pace, Policy, Rules, Verify};
use crate::domain::project::Project;
use crate::domain::role::Role;
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
    /// How outcomes are verified.
    pub verify: Verify,
    /// The machine's fixed waits.
    pub pace: Pace,
    /// How often a project is observed.
    pub drift_every: Span,
    /// How often a project is observed after the end of a rotation that sent a PATCH.
    pub watch_every: Span,
    /// For how long.
    pub watch_for: Span,
    /// The settings of the watch.
    pub limits: Limits,
    /// Who gets every page beside the owners, and what concerns the installation; by mail address.
    pub operators: Vec<String>,
    /// When reminders that are not urgent leave; `None` for as soon as they are due.
    pub digest: Option<Daily>,
    /// Who hears of tokens, loosened rules, settings and what else concerns the security of the installation; by mail
    /// address.
    pub security: Vec<String>,
    /// Whether mail leaves: a mail server is configured.
    pub mails: bool,
    /// The domain in the Message-IDs that leave.
    pub mail_domain: String,
    /// How long after its announcement a loosened rule takes effect, as configured.
    pub loosen_after: Span,
    /// How long nothing is delayed after the installation was made, as configured; `None` in a demo, where nothing
    /// ever is.
    pub settle_in: Option<Span>,
    /// What users of the local socket may.
    pub socket_role: Role,
    /// The issuers of the configured identity providers.
    pub issuers: BTreeSet<String>,
    /// Names this daemon, the same after a restart: `HOST:PORT`.
    pub daemon: String,
    /// How often a project's key service is polled for the newest key.
    pub poll_every: Span,
    /// The time limit of one request.
    pub request_timeout: Span,
    /// Whether a PATCH carries the whole provider block.
    pub whole_block: bool,
    /// The address of this server, for messages.
    pub public_url: String,
    /// Rotations stepped at the same time.
    pub slots: usize,
    /// How long finished records are kept.
    pub retention: Retention,
}

impl Settings {
    /// How long a claim lasts without a renewal.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.pace.lease.get()
    }

    /// The part of the lease that must remain after a PATCH, so that its outcome can still be recorded: 5 s
    /// of 60.
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
            excluded: Vec::new(),
            owners: Vec::new(),
            planned_for: None,
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
    /// Wakes both senders, after a write to the outbox.
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
    /// The domain in the Message-IDs that leave, as it is configured now.
    pub mail_domain: Arc<RwLock<String>>,
    /// The webhook targets.
    pub webhooks: Arc<webhook_sender::Targets>,
    /// Wakes the handler of events.
    pub events_due: Arc<Notify>,
    /// The queue of the hooks to the inbox.
    pub intake: Arc<intake::Intake>,
    /// Wakes the sweep.
    pub look_due: Arc<Notify>,
    /// Wakes the comparison of conditions.
    pub conditions_due: Arc<Notify>,
    /// What this daemon remembers of the installation.
    pub watched: Arc<installation::Watched>,
    /// When the secrets of the credentials expire.
    pub secret_ends: Arc<credentials::SecretEnds>,
    /// The projects with readings that are not good.
    pub suspects: Arc<std::sync::Mutex<BTreeSet<GroupId>>>,
    /// The id of this daemon's presence among those that share the database.
    pub presence: Uuid,
    /// The looks without news that are not written yet.
    pub quiet: Arc<due::QuietLooks>,
    /// Sends streams the id of each rotation with a new journal row.
    pub journal: tokio::sync::broadcast::Sender<RotationId>,
    /// The configured hooks, and who owns each: names of identities or mail addresses.
    pub hook_owners: Arc<std::sync::Mutex<BTreeMap<String, Vec<String>>>>,
    /// Whether the database may be acted on.
    pub epoch: Arc<epoch::EpochWatch>,
    /// The counters.
    pub metrics: Arc<metrics::Metrics>,
    /// The limits of what is told about strangers.
    pub strangers: Arc<strangers::Strangers>,
    /// Whether the database can be written.
    pub readiness: Arc<ready::Readiness>,
    /// Instant of the last finished sweep.
    pub last_sweep: Arc<std::sync::Mutex<Option<crate::domain::time::Timestamp>>>,
    /// Until when what is found after an upgrade is gathered, once that is known.
    pub upgrade: Arc<std::sync::OnceLock<Option<crate::domain::time::Timestamp>>>,
    /// Whose turn it is to have an evidence bundle made.
    pub evidence: Arc<evidence::Turns>,
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
            rotations_due: Arc::default(),
            mail_due: Arc::default(),
            mail_domain: Arc::new(RwLock::new(settings.mail_domain.clone())),
            settings: Arc::new(settings),
            webhooks: Arc::default(),
            events_due: Arc::default(),
            intake: Arc::default(),
            look_due: Arc::default(),
            conditions_due: Arc::default(),
            watched: Arc::default(),
            secret_ends: Arc::default(),
            suspects: Arc::default(),
            presence: Uuid::now_v7(),
            quiet: Arc::default(),
            journal: tokio::sync::broadcast::channel(256).0,
            hook_owners: Arc::default(),
            epoch: Arc::default(),
            strangers: Arc::default(),
            readiness: Arc::default(),
            last_sweep: Arc::default(),
            upgrade: Arc::default(),
            evidence: Arc::default(),
        }
    }

    /// The same engine with this epoch watch. Its file is written after each commit that appended to the audit log, before
    /// anybody is answered.
    #[must_use]
    pub fn with_guard(mut self, epoch: epoch::EpochWatch) -> Self {
        let epoch = Arc::new(epoch);
        let (watch, clock) = (Arc::clone(&epoch), Arc::clone(&self.clock));
        self.store.seals().set_after_append(move |store| {
            let (watch, now) = (Arc::clone(&watch), clock.now());
            Box::pin(async move { watch.appended(&store, now).await })
        });
        self.epoch = epoch;
        self
    }

    /// The same engine with these lookups.
    #[must_use]
    pub fn with_kms(mut self, kms: BTreeMap<String, Arc<dyn KeyService>>) -> Self {
        self.kms = Arc::new(kms);
        self
    }
}
