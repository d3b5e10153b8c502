//! The configuration: the settings of `config/default.toml` as plain typed fields.
//!
//! Loading layers the sources, reads every setting, and checks them against each other and against
//! Atlas' behaviour. Only then is there a [`Config`]; a fault anywhere is an error that lists *all*
//! faults. There is no global configuration: values are passed as arguments. SIGHUP loads it again, and
//! `app/reload.rs` lists the settings that are then applied. Two things are deliberately outside:
//! whether the database or Atlas can be reached, and the overrides of a project.

pub mod access;
mod check;
pub mod hooks;
pub mod kms;
mod layer;
pub mod oidc;
mod reader;
mod show;
pub mod tls;
pub mod webhooks;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::domain::condition::Daily;
use crate::domain::emergency::Emergency;
use crate::domain::network::Network;
use crate::domain::policy::{Pace, Policy, Verify};
use crate::domain::role::Role;
use crate::domain::text::decoded;
use crate::domain::time::{Clock, Span, SystemClock};
use crate::secret::{Secret, SecretUrl};

pub use hooks::Hook;
pub use kms::Kms;
pub use layer::Origin;
pub use oidc::Oidc;
pub use reader::Entry;
use reader::Reader;
pub use tls::Tls;
pub use webhooks::Webhook;
pub use write::written;

/// The built-in defaults: the lowest layer and the reference.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// The file that is read from the working directory when none is named.
pub const FILE_NAME: &str = "keywheel.toml";

/// The configuration in force.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the SQLite file, the lock and the socket live; relative to the working directory.
    pub data_dir: PathBuf,
    /// The HTTP side.
    pub server: Server,
    /// The database.
    pub database: Database,
    /// The Atlas Admin API.
    pub atlas: Atlas,
    /// The identity providers whose people may sign in to the pages.
    pub oidc: Vec<Oidc>,
    /// Lookups at key services, by name.
    pub kms: BTreeMap<String, Kms>,
    /// The rules for projects that set none themselves.
    pub policy: Policy,
    /// How long after its announcement a loosened rule takes effect.
    pub loosen_after: Span,
    /// How long nothing is delayed after the installation was made; `None` in a demo.
    pub settle_in: Option<Span>,
    /// How a new key is verified.
    pub verify: Verify,
    /// The machine's fixed waits; the defaults outside of rehearsals.
    pub pace: Pace,
    /// When to check for due work.
    pub sweep: Sweep,
    /// The dead-man's switch, if one is set.
    pub heartbeat: Option<Heartbeat>,
    /// Mail.
    pub mail: Mail,
    /// The hooks, one for each sender of events.
    pub hooks: Vec<Hook>,
    /// The targets of webhooks.
    pub webhooks: Vec<Webhook>,
    /// How long finished records are kept.
    pub retention: Retention,
    /// Logs.
    pub log: Log,
}

/// Where the API is served.
#[derive(Clone, Debug)]
pub struct Server {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The server's public URL, without a slash at its end.
    pub public_url: String,
    /// The local admin socket, `data_dir` included; `None` when it is off.
    pub socket: Option<PathBuf>,
    /// What its users may.
    pub socket_role: Role,
    /// The file of the installation key, `data_dir` included.
    pub key_file: PathBuf,
    /// The certificate of the daemon's own TLS; `None` for plain HTTP.
    pub tls: Option<Tls>,
    /// The proxies whose word about a client's address counts.
    pub trusted_proxies: Vec<Network>,
}

/// Where plain HTTP is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlainHttp {
    /// On this machine's own addresses.
    Loopback,
    /// Anywhere: a proxy in front of the daemon ends TLS.
    BehindAProxy,
}

/// The database.
#[derive(Clone, Debug)]
pub struct Database {
    /// `sqlite:FILE` with `data_dir` already before a relative file, or `postgres://…`.
    pub url: SecretUrl,
    /// Whether `serve` migrates by itself.
    pub migrate: bool,
}

/// The Atlas Admin API.
#[derive(Clone, Debug)]
pub struct Atlas {
    /// Its address, without a slash at its end.
    pub base_url: String,
    /// The limit of one request; below 55 s.
    pub request_timeout: Span,
    /// The contents of a PATCH.
    pub patch_body: PatchBody,
    /// Credentials by name.
    pub credentials: BTreeMap<String, Credential>,
}

/// The contents of a PATCH of the encryption configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PatchBody {
    /// Only the changed field.
    KeyOnly,
    /// The provider's whole block as read back, with the key replaced.
    WholeBlock,
}

/// A login to an Atlas organisation.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A service account.
    ServiceAccount {
        /// Its client id, which is no secret.
        client_id: String,
        /// Its client secret.
        client_secret: Secret,
    },
    /// An API key.
    ApiKey {
        /// Its public key, which is no secret.
        public_key: String,
        /// Its private key.
        private_key: Secret,
    },
}

/// When to check for due work.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// Six cron fields in UTC.
    pub cron: String,
    /// How often each project's key is read from Atlas.
    pub drift_every: Span,
    /// How often a project is observed after the end of a rotation that sent a PATCH.
    pub watch_every: Span,
    /// For how long.
    pub watch_for: Span,
    /// How far apart the two readings are that begin or end a condition.
    pub confirm_after: Span,
    /// When an approved rotation that is held becomes a condition.
    pub told_after: Span,
    /// How often each project's key service is polled for its newest key.
    pub poll_every: Span,
}

/// A danger is told within two minutes; this much of them is left for looks themselves.
const LOOKS: Duration = Duration::from_secs(5);

impl Sweep {
    /// The longest `drift_every` that keeps the promise of two minutes: what is left of them after the longest time
    /// between two beats of the sweep, the second reading and the looks.
    #[must_use]
    pub fn longest_drift(&self) -> Span {
        let taken = LOOKS + LONGEST_BEAT + self.confirm_after.get();
        let left = PROMISE.saturating_sub(taken);
        Span::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)).max(Span::from_secs(15))
    }
}

/// A danger to a key that can be read is told within this time.
const PROMISE: Duration = Duration::from_mins(2);

/// The longest time between two beats of the sweep, whatever `cron` says.
pub const LONGEST_BEAT: Duration = Duration::from_secs(15);

/// A dead-man's switch.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// Its address, which is a secret.
    pub url: Secret,
    /// The shortest time between two requests.
    pub every: Span,
}

/// Mail.
#[derive(Clone, Debug)]
pub struct Mail {
    /// The SMTP server; `None` when mails stay in the outbox.
    pub smtp_url: Option<SecretUrl>,
    /// The sender.
    pub from: String,
    /// The name in EHLO; `None` for the machine's own, or the domain of [`Mail::from`] where that has no domain.
    pub helo: Option<String>,
    /// Certificates to trust beside the system's own.
    pub ca_file: Option<PathBuf>,
    /// Who gets every page beside the owners, and what concerns the installation.
    pub operators: Vec<String>,
    /// Who hears of tokens, loosened rules, settings that decide, and the use of revoked tokens; the operators hear of the
    /// last where none is named.
    pub security: Vec<String>,
    /// When daily notices leave.
    pub daily: Daily,
    /// When reminders that are not urgent leave; `None` for as soon as they are due.
    pub digest: Option<Daily>,
    /// How many mails may leave in a minute.
    pub per_minute: NonZeroU32,
}

/// How long finished records are kept. The audit log, and the entries that moved a rotation, stay for
/// good.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Mails and webhooks that were sent, refused, or had no recipient.
    pub messages: Span,
    /// Events that were handled.
    pub events: Span,
    /// Observations of ended rotations that changed nothing.
    pub observations: Span,
    /// Inputs of the steps of ended rotations.
    pub replays: Span,
}

/// Logs.
#[derive(Clone, Debug)]
pub struct Log {
    /// Text for people or JSON for machines.
    pub format: LogFormat,
    /// A level or filter directives.
    pub level: String,
    /// Where spans go: an OpenTelemetry collector's address for traces over HTTP.
    pub otlp_endpoint: Option<String>,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// One line of text.
    Text,
    /// One JSON object per line.
    Json,
}

/// Where settings are read from; the defaults lie below all of them.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file, which must exist.
    pub file: Option<PathBuf>,
    /// Environment variables; those of other programs are skipped.
    pub env: Vec<(String, String)>,
    /// Dotted paths and values that beat everything else.
    pub overrides: Vec<(String, String)>,
    /// A file that was found and belongs to somebody else.
    pub passed_over: Option<PathBuf>,
}

/// Keywheel's folder among the user's configurations; `None` when the environment names none.
#[must_use]
pub fn user_folder() -> Option<PathBuf> {
    let named = |name| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    let folder = named("XDG_CONFIG_HOME").or_else(|| Some(named("HOME")?.join(".config")))?;
    Some(folder.join("keywheel"))
}

/// Where a configuration file is searched when nobody names one.
fn places() -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from(FILE_NAME), PathBuf::from("/etc/keywheel").join(FILE_NAME)];
    places.extend(user_folder().map(|folder| folder.join(FILE_NAME)));
    places
}

/// Whether a file belongs to this user or to root; `None` when it does not exist.
fn is_ours(file: &Path) -> Option<bool> {
    let owner = std::fs::metadata(file).ok()?.uid();
    // Only Linux has /proc; elsewhere nobody is asked.
    let own = std::fs::metadata("/proc/self").map_or(owner, |own| own.uid());
    Some(owner == own || owner == 0)
}

fn is_proxy(name: &str) -> bool {
    ["https_proxy", "all_proxy", "http_proxy"].contains(&name.to_lowercase().as_str())
}

impl Sources {
    /// The sources of a process started by a person: `file`, or the first of `keywheel.toml` in the working directory
    /// (when it belongs to this user or to root), /etc/keywheel/keywheel.toml and keywheel/keywheel.toml in the user's
    /// configuration folder; and the environment.
    #[must_use]
    pub fn from_process(file: Option<PathBuf>) -> Self {
        // `vars` would panic on a value that is not UTF-8, even on another program's.
        let env: Vec<(String, String)> = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .filter(|(name, _)| name.starts_with("KEYWHEEL_") || is_proxy(name))
            .collect();
        let mut passed_over = None;
        let file = file.or_else(|| {
            places().into_iter().find(|file| match is_ours(file) {
                Some(true) => true,
                Some(false) => {
                    passed_over.get_or_insert_with(|| file.clone());
                    false
                }
                None => false,
            })
        });
        Self { file, env, overrides: Vec::new(), passed_over }
    }

    /// The layers merged, the lowest first.
    fn leaves(&self) -> Result<layer::Leaves, ConfigError> {
        let mut errors = Vec::new();
        let mut leaves = layer::from_toml(DEFAULTS, None).unwrap_or_else(|why| {
            errors.push(why.to_string());
            layer::Leaves::new()
        });
        if let Some(file) = &self.file {
            match read_file(file) {
                Ok(more) => leaves.extend(more),
                Err(why) => errors.push(why.to_string()),
            }
            // So that the daemon and a command in another folder meet the same database.
            if let Some(leaf) = leaves.get_mut("data_dir")
                && let (layer::Origin::File { file, .. }, layer::Raw::Toml(toml::Value::String(given))) =
                    (&leaf.origin, &mut leaf.raw)
                && !given.is_empty()
            {
                let folder = file.parent().unwrap_or(Path::new(""));
                *given = folder.join(&*given).to_string_lossy().into_owned();
            }
        }
        leaves.extend(layer::from_env(&self.env));
        leaves.extend(layer::from_flags(&self.overrides));
        if errors.is_empty() { Ok(leaves) } else { Err(ConfigError(errors)) }
    }
}

fn read_file(file: &Path) -> Result<layer::Leaves, layer::LayerError> {
    let text = std::fs::read(file)
        .and_then(decoded)
        .map_err(|source| layer::LayerError::Unreadable { file: file.to_owned(), source })?;
    layer::from_toml(&text, Some(file))
}

/// A valid configuration with its warnings.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Values that are legal but unwise, one sentence each.
    pub warnings: Vec<String>,
    /// Settings that break a promise, one sentence each: a danger would be told late, or a hook's secret can be
    /// guessed. `config check` refuses them; the daemon uses the bound instead, or stops that hook.
    pub unkept: Vec<String>,
    /// Every setting in force with its origin, secrets masked.
    pub entries: Vec<Entry>,
    /// The files with secrets and certificates that are in force.
    pub secret_files: BTreeSet<PathBuf>,
}

/// All faults of a configuration; never empty, never with a secret in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [only] => f.write_str(only),
            many => {
                write!(f, "the configuration has {} faults:", many.len())?;
                many.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
            }
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads, checks and returns the configuration.
    ///
    /// # Errors
    /// Fails with all faults at once, each with the setting, its origin, and the values that it takes.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
        let mut reader = Reader::new(sources.leaves()?);
        let named = sources.env.iter().find(|(name, value)| is_proxy(name) && !value.is_empty());
        reader.proxy_variable = named.map(|(name, _)| name.clone());
        if let Some(file) = &sources.passed_over {
            reader.warnings.push(format!(
                "{} belongs to another user and was passed over; name it with --config to use it",
                file.display()
            ));
        }
        let raw = RawConfig::read(&mut reader);
        reader.check_environment(&sources.env);
        reader.finish();
        let config = check::check(raw, &mut reader, SystemClock.now());
        match config {
            Some(config) if reader.is_clean() => {
                let (warnings, unkept) = (reader.warnings, reader.unkept);
                let secret_files = reader.files;
                Ok(Loaded { config, warnings, unkept, entries: reader.entries, secret_files })
            }
            _ => Err(ConfigError(reader.into_messages())),
        }
    }

    /// Where the local socket is, without reading or checking anything else: a client needs no
    /// access to the daemon's secrets.
    ///
    /// # Errors
    /// Fails when a source cannot be read at all or one of the two settings involved is no text.
    pub fn socket(sources: &Sources) -> Result<Option<PathBuf>, ConfigError> {
        let mut reader = Reader::new(sources.leaves()?);
        let data_dir: PathBuf = reader.take("data_dir", PathBuf::new());
        let socket: String = reader.take("server.socket", String::new());
        if reader.is_clean() {
            Ok(below(&data_dir, &socket))
        } else {
            Err(ConfigError(reader.into_messages()))
        }
    }
}

impl Loaded {
    /// The settings in force as TOML-like text, each with its origin as a comment.
    #[must_use]
    pub fn to_text(&self) -> String {
        show::text(&self.entries)
    }

    /// The settings in force as a JSON object: path to value and origin.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        show::json(&self.entries)
    }
}

/// `name` below `dir`; an empty name means no file.
fn below(dir: &Path, name: &str) -> Option<PathBuf> {
    (!name.is_empty()).then(|| dir.join(name))
}

/// The settings as read, before they are checked.
struct RawConfig {
    data_dir: PathBuf,
    listen: String,
    public_url: String,
    socket: String,
    socket_role: String,
    key_file: String,
    plain_http: PlainHttp,
    trusted_proxies: Vec<Network>,
    tls_cert_file: String,
    tls_key_file: String,
    database_url: Option<SecretUrl>,
    migrate: bool,
    base_url: String,
    request_timeout: Span,
    patch_body: PatchBody,
    credentials: Vec<(String, RawCredential)>,
    kms: Vec<(String, kms::RawKms)>,
    oidc: Vec<oidc::RawOidc>,
    policy: Policy,
    loosen_after: Span,
    settle_in: Span,
    verify: Verify,
    pace: Pace,
    sweep: Sweep,
    heartbeat_url: Option<Secret>,
    heartbeat_every: Span,
    smtp_url: Option<SecretUrl>,
    mail_from: String,
    mail_helo: String,
    mail_ca_file: String,
    mail_operators: Vec<String>,
    mail_security: Vec<String>,
    mail_daily_at: String,
    mail_digest_at: String,
    mail_timezone: String,
    mail_per_minute: u32,
    hooks: Vec<Hook>,
    webhooks: Vec<Webhook>,
    retention: Retention,
    log: Log,
}

/// A credential with the two parts that its kind needs: a public one and a secret.
struct RawCredential {
    kind: Option<String>,
    public: Option<String>,
    secret: Option<Secret>,
}

impl RawConfig {
    /// Reads every setting. The fallbacks matter only beside an error.
    fn read(r: &mut Reader) -> Self {
        let text = String::new;
        Self {
            data_dir: r.take("data_dir", PathBuf::new()),
            listen: r.take("server.listen", text()),
            public_url: r.take("server.public_url", text()),
            socket: r.take("server.socket", text()),
            socket_role: r.take("server.socket_role", text()),
            key_file: r.take("server.key_file", text()),
            plain_http: r.take("server.plain_http", PlainHttp::Loopback),
            trusted_proxies: r.take("server.trusted_proxies", Vec::new()),
            tls_cert_file: r.take("server.tls.cert_file", text()),
            tls_key_file: r.take("server.tls.key_file", text()),
            database_url: r.secret_url("database.url"),
            migrate: r.take("database.migrate", true),
            base_url: r.take("atlas.base_url", text()),
            request_timeout: r.take("atlas.request_timeout", Span::from_secs(30)),
            patch_body: r.take("atlas.patch_body", PatchBody::KeyOnly),
            credentials: RawCredential::read_all(r),
            kms: kms::RawKms::read_all(r),
            oidc: oidc::RawOidc::read_all(r),
            policy: read_policy(r),
            loosen_after: r.take("policy.loosen_after", Span::from_days(1)),
            settle_in: r.take("policy.settle_in", Span::from_days(1)),
            verify: read_verify(r),
            sweep: Sweep {
                cron: r.take("sweep.cron", text()),
                drift_every: r.take("sweep.drift_every", Span::from_secs(90)),
                watch_every: r.take("sweep.watch_every", Span::from_secs(30)),
                watch_for: r.take("sweep.watch_for", Span::from_secs(3600)),
                confirm_after: r.take("sweep.confirm_after", Span::from_secs(10)),
                told_after: r.take("sweep.told_after", Span::from_secs(900)),
                poll_every: r.take("sweep.poll_every", Span::from_secs(6 * 3600)),
            },
            heartbeat_url: r.secret("heartbeat.url"),
            heartbeat_every: r.take("heartbeat.every", Span::from_secs(60)),
            smtp_url: r.secret_url("mail.smtp_url"),
            mail_from: r.take("mail.from", text()),
            mail_helo: r.take("mail.helo", text()),
            mail_ca_file: r.take("mail.ca_file", text()),
            mail_operators: r.take("mail.operators", Vec::new()),
            mail_security: r.take("mail.security", Vec::new()),
            mail_daily_at: r.take("mail.daily_at", text()),
            mail_digest_at: r.take("mail.digest_at", text()),
            mail_timezone: r.take("mail.timezone", text()),
            mail_per_minute: r.take("mail.per_minute", 120),
            hooks: hooks::read(r),
            webhooks: webhooks::read(r),
            retention: Retention {
                messages: r.take("retention.messages", Span::from_days(400)),
                events: r.take("retention.events", Span::from_days(90)),
                observations: r.take("retention.observations", Span::from_days(400)),
                replays: r.take("retention.replays", Span::from_days(90)),
            },
            log: Log {
                format: r.take("log.format", LogFormat::Text),
                level: r.take("log.level", text()),
                otlp_endpoint: Some(r.take("log.otlp_endpoint", text())).filter(|it| !it.is_empty()),
            },
            pace: read_pace(r),
        }
    }
}

impl RawCredential {
    fn read_all(r: &mut Reader) -> Vec<(String, Self)> {
        let names = r.names_below("atlas.credentials");
        names
            .into_iter()
            .map(|name| (name.clone(), Self::read(r, &format!("atlas.credentials.{name}"))))
            .collect()
    }

    fn read(r: &mut Reader, at: &str) -> Self {
        let kind: Option<String> = r.optional(&format!("{at}.kind"));
        // For an unknown kind both pairs are read: otherwise each part would be reported as unknown
        // beside the fault of the kind.
        let mut pair = |public: &str, secret: &str| {
            (r.optional::<String>(&format!("{at}.{public}")), r.secret(&format!("{at}.{secret}")))
        };
        let (public, secret) = match kind.as_deref() {
            Some("service-account") => pair("client_id", "client_secret"),
            Some("api-key") => pair("public_key", "private_key"),
            _ => {
                pair("public_key", "private_key");
                pair("client_id", "client_secret")
            }
        };
        Self { kind, public, secret }
    }
}

fn read_policy(r: &mut Reader) -> Policy {
    let d = Policy::default();
    Policy {
        interval: r.take("policy.interval", d.interval),
        remind_before: r.take("policy.remind_before", d.remind_before),
        remind_overdue: r.take("policy.remind_overdue", d.remind_overdue),
        escalate: r.take("policy.escalate", d.escalate),
        approvals: r.take("policy.approvals", d.approvals),
        self_approval: r.take("policy.self_approval", d.self_approval),
        approval_ttl: r.take("policy.approval_ttl", d.approval_ttl),
        execution_ttl: r.take("policy.execution_ttl", d.execution_ttl),
        auto_approve: r.take("policy.auto_approve", d.auto_approve),
        windows: r.take("policy.windows", d.windows),
        freezes: r.take("policy.freezes", d.freezes),
        approvers: r.take("policy.approvers", d.approvers),
        approval_method: r.take("policy.approval_method", d.approval_method),
        emergency: Emergency {
            approvals: r.take("policy.emergency.approvals", d.emergency.approvals),
            by: r.take("policy.emergency.by", d.emergency.by),
        },
        allow_versionless: r.take("policy.allow_versionless", d.allow_versionless),
    }
}

fn read_verify(r: &mut Reader) -> Verify {
    let d = Verify::default();
    Verify {
        readings: r.take("verify.readings", d.readings),
        every: r.take("verify.every", d.every),
        false_grace: r.take("verify.false_grace", d.false_grace),
        max_flaps: r.take("verify.max_flaps", d.max_flaps),
        timeout: r.take("verify.timeout", d.timeout),
        guard: r.take("verify.guard", d.guard),
        private_network_hold: r.take("verify.private_network_hold", d.private_network_hold),
        deploy_poll: r.take("verify.deploy_poll", d.deploy_poll),
        deploy_grace: r.take("verify.deploy_grace", d.deploy_grace),
        deploy_timeout: r.take("verify.deploy_timeout", d.deploy_timeout),
    }
}

fn read_pace(r: &mut Reader) -> Pace {
    let d = Pace::default();
    Pace {
        backoff_min: r.take("pace.backoff_min", d.backoff_min),
        backoff_max: r.take("pace.backoff_max", d.backoff_max),
        rate_limit_floor: r.take("pace.rate_limit_floor", d.rate_limit_floor),
        settle: r.take("pace.settle", d.settle),
        fresh: r.take("pace.fresh", d.fresh),
        idle_every: r.take("pace.idle_every", d.idle_every),
        lease: r.take("pace.lease", d.lease),
        // The settings of the watch after an end are those of the sweep.
        watch_every: d.watch_every,
        watch_for: d.watch_for,
    }
}

#[cfg(test)]
mod tests;
