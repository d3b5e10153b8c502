//! SIGHUP reads the configuration again, applies the settings that can change in a running daemon, and
//! names the others. A configuration with a fault changes nothing.
//!
//! Log-ins to Atlas, key services, identity providers and the mail server, hooks, webhook targets, the certificate and the log
//! level are taken over, secrets in files included, and the login to PostgreSQL. The same happens when a file with a
//! secret changes, as a mounted one does, where nothing else has changed. An open rotation keeps the rules it was proposed under; new rules need a
//! restart, which takes a second.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Context;
use rustls::ServerConfig;
use sha2::{Digest, Sha256};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::lookups::{LookUps, services};
use super::{atlas, hooks, smtp, webhooks};
use crate::config::{Config, Loaded, Sources};
use crate::engine::Engine;
use crate::lifecycle::pause;
use crate::mail::{Smtp, sender_domain};
use crate::telemetry::Telemetry;
use crate::web::hooks::LiveHooks;
use crate::web::oidc::Providers;

/// How often the files with secrets are compared with what was read.
const WATCH_EVERY: Duration = Duration::from_secs(5);

/// The parts of a running daemon that can be changed.
pub(super) struct Live {
    pub(super) engine: Engine,
    pub(super) smtp: watch::Sender<Option<Smtp>>,
    pub(super) hooks: Arc<LiveHooks>,
    pub(super) oidc: Arc<Providers>,
    pub(super) lookups: LookUps,
    pub(super) tls: Option<watch::Sender<Arc<ServerConfig>>>,
    pub(super) log: Arc<Telemetry>,
}

/// The SIGHUPs of this process, from now on.
pub(super) fn hangups() -> anyhow::Result<Signal> {
    signal(SignalKind::hangup()).context("the handler of SIGHUP cannot be installed")
}

/// Whether a running daemon takes this setting over.
fn is_live(path: &str) -> bool {
    path.starts_with("atlas.credentials.")
        || path.starts_with("webhooks.")
        || path.starts_with("hooks.")
        // The kind differs when a lookup is added, removed or replaced by one of another cloud.
        || (path.starts_with("kms.") && path.rsplit('.').next() != Some("kind"))
        || path.starts_with("server.tls.")
        // Who may sign in, and as what, is compared and told at a start.
        || (path.starts_with("oidc.") && path.ends_with(".client_secret"))
        || matches!(path, "mail.smtp_url" | "mail.from" | "mail.helo" | "mail.ca_file" | "log.level")
}

/// Reads `sources` at each SIGHUP until `stop`.
pub(super) async fn run(
    live: Live,
    mut loaded: Loaded,
    sources: Sources,
    mut hangups: Signal,
    stop: CancellationToken,
) {
    let mut watched = Watched { seen: contents(&loaded.secret_files), changing: None };
    loop {
        let asked = tokio::select! {
            heard = hangups.recv() => match heard {
                Some(()) => true,
                None => return stop.cancelled().await,
            },
            () = pause(WATCH_EVERY, &stop) => {
                let changed = watched.changed(contents(&loaded.secret_files));
                if changed.is_empty() {
                    continue;
                }
                tracing::info!("changed, so the configuration is read again: {}", changed.join(", "));
                false
            }
            () = stop.cancelled() => return,
        };
        if stop.is_cancelled() {
            return;
        }
        super::supervisor::reloading();
        // Read before the configuration: what changes in between differs at the next comparison.
        let before = contents(&loaded.secret_files);
        match Config::load(&sources).map_err(anyhow::Error::from).and_then(|fresh| {
            if !asked {
                only_secrets(&loaded, &fresh)?;
            }
            take_over(&live, &loaded, &fresh)?;
            Ok(fresh)
        }) {
            Ok(fresh) => {
                watched.seen = contents(&fresh.secret_files);
                watched.seen.extend(before.into_iter().filter(|(file, _)| fresh.secret_files.contains(file)));
                loaded = fresh;
            }
            Err(error) => {
                tracing::error!("the configuration was not reloaded, the old one stays in force: {error:#}");
            }
        }
        super::supervisor::ready();
    }
}

/// Refuses settings that somebody may still be editing: only a SIGHUP takes them over.
fn only_secrets(old: &Loaded, fresh: &Loaded) -> anyhow::Result<()> {
    let is_secret = |path: &String| {
        [old, fresh].into_iter().flat_map(|it| &it.entries).any(|it| it.path == *path && it.secret.is_some())
    };
    let others: Vec<_> = changed(old, fresh).into_iter().filter(|path| !is_secret(path)).collect();
    anyhow::ensure!(
        others.is_empty(),
        "other settings changed beside the secret ({}); send SIGHUP when they are complete",
        others.join(", ")
    );
    Ok(())
}

type Contents = BTreeMap<PathBuf, Option<[u8; 32]>>;

/// What the files hold; `None` for one that cannot be read, such as one that is being replaced.
fn contents(files: &BTreeSet<PathBuf>) -> Contents {
    let digest = |file: &PathBuf| std::fs::read(file).ok().map(|bytes| Sha256::digest(bytes).into());
    files.iter().map(|file| (file.clone(), digest(file))).collect()
}

/// The files with secrets as they were compared last.
struct Watched {
    seen: Contents,
    /// Another content that was there at the last comparison.
    changing: Option<Contents>,
}

impl Watched {
    /// The files that changed and then stayed the same for one comparison: half of a secret would lock Keywheel out.
    fn changed(&mut self, now: Contents) -> Vec<String> {
        if now == self.seen {
            self.changing = None;
            return Vec::new();
        }
        if self.changing.as_ref() != Some(&now) {
            self.changing = Some(now);
            return Vec::new();
        }
        let changed = now.iter().filter(|(file, content)| self.seen.get(*file) != Some(*content));
        let files = changed.map(|(file, _)| file.display().to_string()).collect();
        (self.seen, self.changing) = (now, None);
        files
    }
}

fn take_over(live: &Live, old: &Loaded, fresh: &Loaded) -> anyhow::Result<()> {
    // Every part is built before any is replaced: a fault in one changes nothing.
    let client = atlas(&fresh.config, &live.engine.store)?;
    let server = smtp(&fresh.config)?;
    let targets = webhooks(&fresh.config)?;
    let endpoints = hooks(&live.engine, &fresh.config)?;
    let lookups = services(&fresh.config)?;
    let database = fresh.config.database.url.expose();
    let same_database = live.engine.store.take_login(database)?;
    live.log.set_level(&fresh.config.log.level)?;
    live.engine.atlas.replace(Arc::new(client));
    live.engine.secret_ends.read_again();
    live.lookups.replace(&lookups);
    live.smtp.send_replace(server);
    *live.engine.mail_domain.write().unwrap_or_else(PoisonError::into_inner) =
        sender_domain(&fresh.config.mail.from);
    live.engine.webhooks.replace(targets);
    live.hooks.replace(endpoints);
    live.oidc.take_secrets(&fresh.config.oidc);
    live.engine.mail_due.notify_one();
    for warning in fresh.warnings.iter().chain(&fresh.unkept) {
        tracing::warn!("{warning}");
    }
    if let (Some(tls), Some(fresh)) = (&live.tls, &fresh.config.server.tls) {
        tls.send_replace(Arc::clone(&fresh.handshake));
    }
    // A listener cannot change between plain HTTP and TLS while it serves.
    let switched = live.tls.is_some() != fresh.config.server.tls.is_some();
    let (now, later): (Vec<_>, Vec<_>) =
        changed(old, fresh).into_iter().partition(|path| match path.as_str() {
            "database.url" => same_database,
            path => is_live(path) && !(switched && path.starts_with("server.tls.")),
        });
    tracing::info!(
        "the configuration was reloaded, secrets in files included; changed: {}",
        if now.is_empty() { "nothing that can change now".to_owned() } else { now.join(", ") }
    );
    if !later.is_empty() {
        tracing::warn!("these settings changed and need a restart: {}", later.join(", "));
    }
    Ok(())
}

/// The paths whose value changed, secrets included.
fn changed(old: &Loaded, fresh: &Loaded) -> Vec<String> {
    fn values(loaded: &Loaded) -> BTreeMap<&str, (&toml::Value, Option<[u8; 32]>)> {
        loaded.entries.iter().map(|it| (it.path.as_str(), (&it.value, it.secret))).collect()
    }
    let (old, fresh) = (values(old), values(fresh));
    let mut paths: Vec<String> = old.keys().chain(fresh.keys()).map(|path| (*path).to_owned()).collect();
    paths.sort();
    paths.dedup();
    paths.retain(|path| old.get(path.as_str()) != fresh.get(path.as_str()));
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_counts_as_changed_once_it_stays_the_same() {
        let holds = |byte: u8| Contents::from([(PathBuf::from("secret"), Some([byte; 32]))]);
        let mut it = Watched { seen: holds(1), changing: None };
        assert!(it.changed(holds(1)).is_empty());
        assert!(it.changed(holds(2)).is_empty() && it.changed(holds(3)).is_empty(), "it is being written");
        assert_eq!(it.changed(holds(3)), ["secret"]);
        assert!(it.changed(holds(3)).is_empty());
        assert!(
            it.changed(holds(4)).is_empty()
                && it.changed(holds(3)).is_empty()
                && it.changed(holds(4)).is_empty()
        );
    }
}
