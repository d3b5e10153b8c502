//! The composition root: puts configuration, database, Atlas client, engine and web together.
//!
//! `serve` is the daemon; `demo` is the same daemon with a simulator beside it, in one process. The
//! commands that need no daemon open the database themselves. Nothing is decided here.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::api::CorruptRow;
use crate::atlas::{Atlas, TokenBudget};
use crate::config::{self, Config, Entry, Loaded, Sources};
use crate::domain::condition::Limits;
use crate::domain::role::Role;
use crate::domain::time::{Clock, Span, SystemClock, Timestamp};
use crate::engine::command::{Actor, CommandError, TokenEdit};
use crate::engine::epoch::{self, EpochWatch};
use crate::engine::heartbeat::Heartbeat;
use crate::engine::last_resort::LastResort;
use crate::engine::mail_sender::MailSender;
use crate::engine::webhook_sender::WebhookSender;
use crate::engine::{
    Engine, Settings, conditions, credentials, deciding, driver, heads, hint, intake, loosen, poll, ready,
    resend, schedule, sweep,
};
use crate::lifecycle::{Shutdown, pause};
use crate::mail::{Smtp, sender_domain};
use crate::sim::{Sim, World};
use crate::store::{Access, AuditBroken, AuditReport, Store, StoreError, sqlite_path};
use crate::telemetry::Telemetry;
use crate::web::auth::{new_token, token_hash};
use crate::web::hooks::{Hooks, LiveHooks};
use crate::web::oidc::Providers;
use crate::web::sender::user_name;
use crate::web::{Counted, Web, router};
use crate::webhook::{Switch, Target};

mod backup;
mod demo;
mod doctor;
mod evidence;
mod installation;
mod listener;
mod locked;
mod lookups;
mod mail;
mod presence;
mod reload;
mod seen;
mod supervisor;

pub use installation::{key_replace, key_rotate, key_show, tokens_confirm};
use installation::{remember, unlock, unlock_and_follow, unlock_and_watch};
use lookups::LookUps;

pub use backup::{back_up, restore};
pub use demo::{Scene, demo};
pub use doctor::{Accept, doctor, passkeys_lost_by};
pub use evidence::{LARGEST_BUNDLE, evidence_key, evidence_verify, is_evidence_key};
pub use locked::naming_writer;
pub use mail::{MailPreview, MailTest, mail_preview, mail_test};
pub use seen::seen;

/// How long a shutdown waits for steps to park and responses to leave.
const DRAIN: Duration = Duration::from_secs(45);

/// Rotations stepped at the same time.
const SLOTS: usize = 64;

/// The log-in budget, kept in the database so that it outlives a restart.
struct Budget(Store);

impl TokenBudget for Budget {
    fn take<'a>(&'a self, credential: &'a str, now: Timestamp) -> BoxFuture<'a, Result<(), Timestamp>> {
        Box::pin(async move {
            match self.0.take_token_request(credential, now).await {
                Ok(taken) => taken,
                Err(error) => {
                    // Every token request must be counted: while the database fails, none is sent.
                    tracing::error!(error = %error, "token request not sent: the database cannot count it");
                    Err(now + Duration::from_secs(10))
                }
            }
        })
    }
}

async fn open(config: &Config, access: Access) -> anyhow::Result<Store> {
    // The folder holds mail addresses and token hashes. An existing folder keeps its mode.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.data_dir);
    made.with_context(|| {
        format!(
            "data_dir {} cannot be made; make it writable for this user or choose another",
            config.data_dir.display()
        )
    })?;
    let store = Store::open(config.database.url.expose(), Path::new(""), access).await?;
    Ok(store)
}

/// The Atlas client with the credentials as they are configured now.
fn atlas(config: &Config, store: &Store) -> anyhow::Result<Atlas> {
    let budget = Arc::new(Budget(store.clone()));
    Ok(Atlas::new(&config.atlas, Arc::new(SystemClock), budget)?)
}

/// The engine over an open database.
fn engine(config: &Config, store: Store) -> anyhow::Result<Engine> {
    let atlas = atlas(config, &store)?;
    let settings = Settings {
        policy: config.policy.clone(),
        verify: config.verify.clone(),
        pace: config.pace.clone(),
        drift_every: config.sweep.drift_every.min(config.sweep.longest_drift()),
        watch_every: config.sweep.watch_every,
        watch_for: config.sweep.watch_for,
        limits: Limits {
            confirm_after: config.sweep.confirm_after,
            told_after: config.sweep.told_after,
            gather: GATHER,
            daily: config.mail.daily,
        },
        operators: config.mail.operators.clone(),
        digest: config.mail.digest,
        mail_domain: sender_domain(&config.mail.from),
        security: config.mail.security.clone(),
        mails: config.mail.smtp_url.is_some(),
        loosen_after: config.loosen_after,
        settle_in: config.settle_in,
        socket_role: config.server.socket_role,
        issuers: config.oidc.iter().map(|it| it.issuer.clone()).collect(),
        daemon: presence::name(config),
        poll_every: config.sweep.poll_every,
        request_timeout: config.atlas.request_timeout,
        whole_block: config.atlas.patch_body == config::PatchBody::WholeBlock,
        public_url: config.server.public_url.clone(),
        slots: SLOTS,
        retention: config.retention,
    };
    Ok(Engine::new(store, Arc::new(atlas), Arc::new(SystemClock), settings))
}

/// The mail server; `None` when mails stay in the outbox.
fn smtp(config: &Config) -> anyhow::Result<Option<Smtp>> {
    let mail = &config.mail;
    let Some(url) = &mail.smtp_url else { return Ok(None) };
    Ok(Some(Smtp::new(url, &mail.from, mail.helo.as_deref(), mail.ca_file.as_deref())?))
}

/// The webhook targets.
fn webhooks(config: &Config) -> anyhow::Result<Vec<Target>> {
    config.webhooks.iter().map(|it| Ok(Target::new(it)?)).collect()
}

/// The configured hooks, registered with the intake, which counts their events.
fn hooks(engine: &Engine, config: &Config) -> anyhow::Result<Hooks> {
    let hooks = Hooks::new(&config.hooks)?;
    let named = config.hooks.iter().map(|hook| (hook.name.clone(), hook.sender.kind()));
    engine.intake.count_for(named, engine.clock.now());
    let owners = config.hooks.iter().map(|hook| (hook.name.clone(), hook.owners.clone())).collect();
    *engine.hook_owners.lock().unwrap_or_else(PoisonError::into_inner) = owners;
    Ok(hooks)
}

/// A daemon whose parts all run.
struct Running {
    engine: Engine,
    address: SocketAddr,
    smtp: watch::Sender<Option<Smtp>>,
    hooks: Arc<LiveHooks>,
    oidc: Arc<Providers>,
    lookups: LookUps,
    /// The settings of the TLS handshake; `None` where plain HTTP is served.
    tls: Option<watch::Sender<Arc<rustls::ServerConfig>>>,
}

/// Opens, migrates and starts everything; returns once requests are answered.
///
/// `found` are the settings that decide, to be compared with those on record; a demo has none. `shown` are all settings,
/// for people.
async fn start(
    config: &Config,
    found: Option<BTreeMap<String, String>>,
    shown: &[Entry],
    shutdown: &Shutdown,
) -> anyhow::Result<Running> {
    let store = open(config, Access::Daemon).await?;
    if config.database.migrate {
        store.migrate().await?;
    }
    store.check_schema().await?;
    if matches!(store, Store::Sqlite { .. }) {
        // This daemon holds the lock file, so the holder of any stored claim is gone.
        store.clear_leases().await?;
        store.leave_mark(&sqlite_path(config.database.url.expose())?).await?;
    }
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("data_dir {} cannot be made", config.data_dir.display()))?;
    let guard = EpochWatch::new(installation::mark_file(config))?;
    unlock_and_watch(config, &store, shutdown).await?;
    guard.start(&store, SystemClock.now()).await?;
    match guard.record(&store, SystemClock.now()).await {
        // A database in doubt is served, so that operators can inspect it.
        Err(_) if guard.in_doubt() => {}
        recorded => recorded?,
    }
    guard.compare_clocks(&store, &SystemClock).await?;
    let lookups = LookUps::new(lookups::services(config)?);
    let engine = engine(config, store)?.with_guard(guard).with_kms(lookups.for_engine());
    let smtp = smtp(config)?;
    engine.webhooks.replace(webhooks(config)?);
    let hooks = Arc::new(LiveHooks::new(hooks(&engine, config)?));
    record_settings(engine.clone(), found, shutdown);
    // The policy may have changed since the next reminders were computed.
    engine.store.look_at_all_reminders(SystemClock.now()).await?;
    if !engine.epoch.in_doubt() {
        engine.store.look_by(SystemClock.now() + engine.settings.drift_every.get()).await?;
    }
    let listener = TcpListener::bind(config.server.listen).await.with_context(|| {
        format!("server.listen {} cannot be used; choose a free port", config.server.listen)
    })?;
    let address = listener.local_addr()?;
    let present = presence::join(config, &engine.store, engine.presence).await?;
    shutdown.spawn_named("presence", presence::run(engine.store.clone(), present, shutdown.token()));
    let oidc = Arc::new(Providers::new(&config.oidc, &config.server.public_url)?);
    let app = router(web(config, &engine, (&hooks, &oidc), shown, shutdown));
    let (tls, handshake) =
        config.server.tls.as_ref().map(|it| watch::channel(Arc::clone(&it.handshake))).unzip();
    let serving = listener::serve(listener, app.clone(), listener::network, handshake, shutdown.clone());
    shutdown.spawn_named("http", serving);
    if let Some(path) = &config.server.socket {
        let (listener, path) = (local_socket(path)?, path.clone());
        let serving = listener::serve(listener, app, listener::local, None, shutdown.clone());
        shutdown.spawn_named("socket", async move {
            serving.await;
            // A leftover socket does not block the next start: `local_socket` replaces it.
            let _ = std::fs::remove_file(path);
        });
    }
    make_reserve(engine.store.clone());
    shutdown.spawn_watching("readiness", ready::run(engine.clone(), shutdown.token()));
    shutdown.spawn_named("driver", driver::run(engine.clone(), shutdown.token()));
    shutdown.spawn_named("intake", intake::run(engine.clone(), shutdown.token()));
    shutdown.spawn_watching("hints", hint::run(engine.clone(), shutdown.token()));
    shutdown.spawn_watching("loosen", loosen::run(engine.clone(), shutdown.token()));
    shutdown.spawn_watching("heads", heads::run(engine.clone(), shutdown.token()));
    shutdown.spawn_watching("poll", poll::run(engine.clone(), shutdown.token()));
    if let Some(heartbeat) = &config.heartbeat {
        let url = heartbeat.url.expose().parse().context("heartbeat.url is not an address")?;
        let heartbeat = Heartbeat::new(Switch::new(url)?, heartbeat.every.get());
        shutdown.spawn_watching("heartbeat", heartbeat.run(engine.clone(), shutdown.token()));
    }
    shutdown.spawn_watching("credentials", credentials::run(engine.clone(), shutdown.token()));
    shutdown.spawn_watching("conditions", conditions::run(engine.clone(), shutdown.token()));
    shutdown.spawn_watching("sweep", sweep::run(engine.clone(), shutdown.token()));
    let (smtp, present) = watch::channel(smtp);
    let last_resort = LastResort::new(engine.clone(), present.clone());
    shutdown.spawn_named("last_resort", last_resort.run(shutdown.token()));
    let mail_sender = MailSender::new(engine.clone(), present, config.mail.per_minute);
    shutdown.spawn_named("mail_sender", mail_sender.run(shutdown.token()));
    shutdown.spawn_watching("resend", resend::run(engine.clone(), shutdown.token()));
    shutdown.spawn_named("dispatch", WebhookSender::new(engine.clone()).run(shutdown.token()));
    schedule_sweeps(engine.clone(), config.sweep.cron.clone(), shutdown);
    Ok(Running { engine, address, smtp, hooks, oidc, lookups, tls })
}

/// What the handlers share.
fn web(
    config: &Config,
    engine: &Engine,
    (hooks, oidc): (&Arc<LiveHooks>, &Arc<Providers>),
    shown: &[Entry],
    shutdown: &Shutdown,
) -> Web {
    Web {
        counted: Counted::default(),
        engine: engine.clone(),
        hooks: Arc::clone(hooks),
        oidc: Arc::clone(oidc),
        guesses: Arc::default(),
        proxies: config.server.trusted_proxies.as_slice().into(),
        stop: shutdown.token(),
        settings: shown.into(),
        sweep_patience: supervisor::SWEEP_PATIENCE,
    }
}

fn schedule_sweeps(engine: Engine, cron: String, shutdown: &Shutdown) {
    let stop = shutdown.token();
    shutdown.spawn_named("schedule", async move {
        if let Err(error) = schedule::run(engine, &cron, stop).await {
            tracing::error!(error = %error, "the schedule of sweeps failed");
        }
    });
}

/// Compares the settings that decide with those on record, once the audit log was read: until then the delays on record
/// are in force, and nobody has to wait for it.
fn record_settings(engine: Engine, found: Option<BTreeMap<String, String>>, shutdown: &Shutdown) {
    let Some(found) = found else { return };
    let stop = shutdown.token();
    shutdown.spawn_named("settings", async move {
        tokio::select! {
            () = engine.store.seals_followed() => {}
            () = stop.cancelled() => return,
        }
        while !stop.is_cancelled() && !engine.epoch.in_doubt() {
            match deciding::record(&engine, found.clone()).await {
                // A task that ends would count as a fault.
                Ok(()) => break,
                Err(error) => {
                    tracing::error!(error = %error, "the settings that decide cannot be compared; tried again in a few seconds");
                    pause(Duration::from_secs(5), &stop).await;
                }
            }
        }
        stop.cancelled().await;
    });
}

/// Makes the room that is kept for roll-backs and pages.
fn make_reserve(store: Store) {
    tokio::task::spawn_blocking(move || {
        if let Err(error) = store.make_reserve() {
            tracing::warn!(error = %error, "no room for the reserve of 16 MiB beside the database; make room");
        }
    });
}

/// How long a mail about a condition waits for others like it, which then become one list.
const GATHER: Span = Span::from_secs(20);

/// The admin socket, for this user only. One left by a dead daemon is replaced.
fn local_socket(path: &Path) -> anyhow::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!(
            "server.socket {} is answered by another keywheel; stop that one or choose another path",
            path.display()
        );
    }
    let made = || {
        // Bound inside a private folder and moved once its mode is set, so that no other user can
        // connect in between. The folder's short name keeps the path within the limit of a socket
        // address.
        let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let private = tempfile::Builder::new().prefix(".s").rand_bytes(4).tempdir_in(folder)?;
        let first = private.path().join("s");
        let listener = UnixListener::bind(&first)?;
        std::fs::set_permissions(&first, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&first, path)?;
        std::io::Result::Ok(listener)
    };
    made().with_context(|| {
        format!("server.socket {} cannot be made; make its folder writable or set it to \"\"", path.display())
    })
}

/// Runs the daemon until SIGTERM or SIGINT. SIGHUP reads `sources` again.
///
/// # Errors
/// Fails when a part of the daemon cannot be started; the error names it.
pub async fn serve(loaded: Loaded, sources: Sources, log: Telemetry) -> anyhow::Result<ExitCode> {
    for warning in loaded.warnings.iter().chain(&loaded.unkept) {
        tracing::warn!("{warning}");
    }
    if loaded.config.mail.smtp_url.is_none() {
        tracing::warn!(
            "mail.smtp_url is not set, so no mail is sent; `keywheel outbox list` shows the waiting mails"
        );
    }
    let shutdown = Shutdown::new();
    shutdown.listen()?;
    // Installed before readiness is reported: without a handler, SIGHUP ends the process.
    let hangups = reload::hangups()?;
    let Running { engine, address, smtp, hooks, oidc, lookups, tls } =
        start(&loaded.config, Some(deciding_settings(&loaded)), &loaded.entries, &shutdown).await?;
    tracing::info!(address = %address, "keywheel serves");
    let store = engine.store.clone();
    if let Ok(Some(lost)) = doctor::lost_passkeys(&loaded.config, &store).await {
        tracing::warn!("{lost}");
    }
    shutdown.spawn_named("supervisor", supervisor::run(engine.clone(), shutdown.token()));
    let log = Arc::new(log);
    let live = reload::Live { engine, smtp, hooks, oidc, lookups, tls, log: Arc::clone(&log) };
    shutdown.spawn_named("reload", reload::run(live, loaded, sources, hangups, shutdown.token()));
    shutdown.ending().await;
    supervisor::stopping();
    tracing::info!("stopping: rotations park where they are and go on at the next start");
    let code = shutdown.finish(DRAIN).await;
    store.close().await;
    log.end().await;
    Ok(code)
}

/// The settings that decide who must agree, who hears of it and who may command, with secrets masked.
fn deciding_settings(loaded: &Loaded) -> BTreeMap<String, String> {
    const PARTS: [&str; 6] = ["policy.", "server.", "kms.", "oidc.", "mail.", "hooks."];
    const MAIL: [&str; 5] = ["mail.smtp_url", "mail.from", "mail.ca_file", "mail.operators", "mail.security"];
    // The delays have a record of their own.
    const DELAYS: [&str; 2] = ["policy.loosen_after", "policy.settle_in"];
    let decides = |path: &str| {
        let part = PARTS.iter().any(|part| path.starts_with(part));
        let mail = !path.starts_with("mail.") || MAIL.contains(&path);
        let hook = !path.starts_with("hooks.") || path.ends_with(".owners");
        path == "atlas.base_url" || (part && mail && hook && !DELAYS.contains(&path))
    };
    let entries = loaded.entries.iter().filter(|entry| decides(&entry.path));
    entries
        .map(|entry| {
            let value = serde_json::to_string(&entry.value).unwrap_or_default();
            (entry.path.clone(), value)
        })
        .collect()
}

/// Migrates the database to this version's schema; returns a sentence with the result.
///
/// # Errors
/// Fails when the database cannot be opened or migrated. A database newer than this program is left as
/// it is.
pub async fn migrate(config: Config) -> anyhow::Result<String> {
    let store = open(&config, Access::Beside).await?;
    store.migrate().await?;
    unlock(&config, &store).await?;
    remember(&config, &store).await?;
    Ok(format!("the database is at schema {}", crate::store::known_version()))
}

/// An existing database. A missing file is refused: an empty database, created on the spot, would answer
/// in place of the daemon's.
async fn existing(config: &Config) -> anyhow::Result<Store> {
    if let Some(file) = config.database.url.expose().strip_prefix("sqlite:")
        && !Path::new(file).exists()
    {
        bail!(
            "there is no database {file}; start the daemon once (`keywheel serve`), run this where it runs, or name its --config"
        );
    }
    let store = open(config, Access::Beside).await?;
    store.check_schema().await?;
    unlock_and_follow(config, &store).await?;
    Ok(store)
}

/// The user of this process, in the form that the local socket records.
fn actor() -> String {
    use std::os::unix::fs::MetadataExt;
    let user = match std::fs::metadata("/proc/self") {
        Ok(own) => user_name(own.uid()),
        // Only Linux has /proc; elsewhere the environment names the user.
        Err(_) => std::env::var("USER").unwrap_or_else(|_| "operator".to_owned()),
    };
    format!("local:{user}")
}

/// Makes a token of these roles and returns it; `None` when the name is taken.
///
/// # Errors
/// Fails when a part is not valid, or when the database cannot be opened or written.
pub async fn token_create(
    config: Config,
    name: String,
    roles: Vec<Role>,
    person: Option<String>,
) -> anyhow::Result<Option<String>> {
    // A database made on the spot would be another one than the daemon's.
    let engine = engine_beside(&config, existing(&config).await?)?;
    match make_token(&engine, &name, &roles, person.as_deref()).await {
        Ok(token) => {
            remember(&config, &engine.store).await?;
            Ok(Some(token))
        }
        Err(error)
            if matches!(error.downcast_ref(), Some(CommandError::Store(StoreError::Exists { .. }))) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The engine for a command beside the daemon: it writes messages, and the daemon sends them.
fn engine_beside(config: &Config, store: Store) -> anyhow::Result<Engine> {
    let engine = engine(config, store)?;
    engine.webhooks.replace(webhooks(config)?);
    Ok(engine)
}

async fn make_token(
    engine: &Engine,
    name: &str,
    roles: &[Role],
    person: Option<&str>,
) -> anyhow::Result<String> {
    let plain = !name.is_empty()
        && name.len() <= 64
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@".contains(c));
    if !plain {
        bail!("name {name:?}: a token's name takes 1 to 64 letters, digits, '-', '_', '.' or '@'");
    }
    if roles.is_empty() {
        bail!("role: at least one is needed: viewer, operator, approver, auditor or admin");
    }
    let token = new_token().map_err(|_| anyhow!("the system's random source failed"))?;
    engine.create_token(&actor(), (name, &token_hash(&token)), roles, person).await?;
    Ok(token)
}

/// Gives a token other roles (none: the same) or another person; returns what came of it, `None` when no token has that
/// name.
///
/// # Errors
/// Fails when a part is not valid, or when the database does not exist or cannot be written.
pub async fn token_edit(
    config: Config,
    name: String,
    roles: Vec<Role>,
    person: Option<String>,
) -> anyhow::Result<Option<String>> {
    let engine = engine_beside(&config, existing(&config).await?)?;
    let by = actor();
    let by = Actor { on_machine: true, ..Actor::admin(&by) };
    let edit = TokenEdit { roles: Some(roles).filter(|roles| !roles.is_empty()), person };
    match engine.edit_token(by, &name, edit).await {
        Ok(edited) => {
            remember(&config, &engine.store).await?;
            let Some(it) = edited.to_come else { return Ok(Some(format!("the token {name} is changed"))) };
            let when = it
                .effective_at
                .map_or_else(|| "a while after it was announced".to_owned(), |at| format!("at {at}"));
            Ok(Some(format!(
                "the token {name} gets its other person {when} ({}); until then, and on rotations proposed before, it counts \
                 as both persons'. `keywheel loosening list` shows it",
                it.id
            )))
        }
        Err(CommandError::NoToken(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The tokens, without their secrets.
///
/// # Errors
/// Fails when the database does not exist or cannot be read.
pub async fn token_list(config: Config) -> anyhow::Result<Value> {
    let store = existing(&config).await?;
    let (tokens, suspended) = (store.list_tokens().await?, store.suspended().await?);
    let items: Vec<_> = tokens
        .iter()
        .map(|it| match it {
            Ok(it) => json!({
                "name": it.name, "roles": it.roles, "person": it.person, "madeBy": it.made_by,
                "createdAt": it.created_at, "givenAt": it.given_at, "givenBy": it.given_by,
                "revokedAt": it.revoked_at, "suspended": suspended.contains(&it.name),
            }),
            Err(corrupt) => json!(CorruptRow::new(corrupt.id.clone())),
        })
        .collect();
    Ok(json!({ "items": items, "next": null }))
}

/// Revokes a token; false when no token has that name.
///
/// # Errors
/// Fails when the database does not exist or cannot be written.
pub async fn token_revoke(config: Config, name: String) -> anyhow::Result<bool> {
    let engine = engine_beside(&config, existing(&config).await?)?;
    let revoked = engine.revoke_token(&actor(), &name).await?;
    remember(&config, &engine.store).await?;
    Ok(revoked)
}

/// Checks the audit log from its first row, against the epoch file too, and whether the rows that authorise are as it has
/// sealed them.
///
/// # Errors
/// Fails when the database does not exist or cannot be read.
pub async fn audit_verify(
    config: Config,
    expected: Option<(i64, String)>,
) -> anyhow::Result<(AuditReport, Vec<StoreError>)> {
    // Read first: what the file names is in the database.
    let mark = epoch::read_mark(&installation::mark_file(&config))?;
    let store = existing(&config).await?;
    let (mut report, tampered) = (store.verify_audit().await?, store.tampered().await?);
    if let Some(mark) = mark
        && let Some(found) = epoch::regression(&store, &mark).await?
    {
        report.broken.push(AuditBroken { seq: mark.seq, why: format!("by the epoch file, {found}") });
    }
    if let Some((seq, hash)) = expected {
        let there = store.audit_marks(seq).await?.there;
        if there != hash {
            let why = if there.is_empty() {
                "it was expected, and is missing: the log was shortened, or this is another database"
                    .to_owned()
            } else {
                format!("the hash {hash} was expected, and it has {there}: the log was replaced")
            };
            report.broken.push(AuditBroken { seq, why });
        }
    }
    Ok((report, tampered))
}

/// Runs the Atlas simulator on its own.
///
/// # Errors
/// Fails when the seed cannot be read or the address is taken.
pub async fn sim(listen: SocketAddr, seed: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let world = match seed {
        None => World::demo(),
        Some(path) => {
            let text = std::fs::read_to_string(&path).with_context(|| format!("seed {}", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("seed {}", path.display()))?
        }
    };
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listen {listen}"))?;
    let shutdown = Shutdown::new();
    shutdown.listen()?;
    let sim = Sim::start(listener, world, Arc::new(SystemClock))?;
    writeln!(std::io::stdout(), "{}", sim.base_url())?;
    shutdown.ending().await;
    sim.shutdown().await;
    Ok(ExitCode::SUCCESS)
}
