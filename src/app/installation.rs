//! The installation key and the epoch file, for the daemon and for the commands beside it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::config::Config;
use crate::domain::time::{Clock, SystemClock};
use crate::engine::epoch;
use crate::lifecycle::{Shutdown, pause};
use crate::seal::{InstallationKey, KeyFileError, succession};
use crate::store::{Access, Belief, NewAudit, Store, StoreError};

/// A daemon that was seen within this time runs.
pub(super) const PRESENT: Duration = Duration::from_secs(35);

/// The path of the epoch file.
pub(super) fn mark_file(config: &Config) -> PathBuf {
    config.data_dir.join("epoch")
}

/// Reads the installation key and gives it to the store. It is made where neither the database nor the epoch file knows
/// of one.
pub(super) async fn unlock(config: &Config, store: &Store) -> anyhow::Result<InstallationKey> {
    let file = &config.server.key_file;
    let mark = epoch::read_mark(&mark_file(config))?;
    let was_sealed = mark.as_ref().is_some_and(|mark| mark.fingerprint.is_some());
    let is_new = store.fingerprint().await?.is_none() && !was_sealed;
    let (key, is_made) = match InstallationKey::read(file) {
        Err(KeyFileError::Missing(_)) if is_new => {
            let key = InstallationKey::random()?;
            key.create(file)?;
            tracing::info!(file = %file.display(), fingerprint = key.fingerprint(), "installation key made; keep a copy of it apart from backups of the database");
            (key, true)
        }
        read => (read?, false),
    };
    // Rows of an earlier version are sealed once. Without an epoch file that says that they were not sealed yet, only
    // an empty database may be sealed with a key that was there before.
    let may_seal = !was_sealed && (is_made || mark.is_some() || store.audit_marks(0).await?.seq == 0);
    match store.unlock(&key, may_seal, SystemClock.now()).await {
        Err(StoreError::OtherKey { found, own }) => {
            // A change of the key was interrupted after the database was sealed with the next one.
            let next =
                InstallationKey::read(&next_file(config)).ok().filter(|next| next.fingerprint() == found);
            let Some(next) = next else { return Err(StoreError::OtherKey { found, own }.into()) };
            put_in_place(config)?;
            store.unlock(&next, false, SystemClock.now()).await?;
            Ok(next)
        }
        done => {
            done?;
            Ok(key)
        }
    }
}

/// Reads the audit log, for a command that ends soon.
pub(super) async fn unlock_and_follow(config: &Config, store: &Store) -> anyhow::Result<InstallationKey> {
    let key = unlock(config, store).await?;
    if store.seals().is_stripped() {
        return Err(StoreError::Unsealed.into());
    }
    store.follow_seals().await?;
    Ok(key)
}

/// Writes the epoch file after a command has appended to the audit log. A database in doubt keeps the file that shows
/// the doubt.
pub(super) async fn remember(config: &Config, store: &Store) -> anyhow::Result<()> {
    let file = mark_file(config);
    let known = epoch::read_mark(&file)?;
    let fits = match &known {
        Some(mark) => epoch::regression(store, mark).await?.is_none(),
        None => store.seals().is_new(),
    };
    let mark = if fits {
        epoch::present_mark(store).await?
    } else {
        // What was written here is lost when the newer database comes back, so that must not end the doubt.
        known.map(|mark| epoch::EpochMark { diverged: true, ..mark })
    };
    if let Some(mark) = mark {
        epoch::write_mark(&file, &mark).with_context(|| {
            format!("the epoch file {} cannot be written; make data_dir writable", file.display())
        })?;
    }
    Ok(())
}

/// Gives the store the key, and reads the audit log beside everything else: it may be long. Until its end no token counts and no rotation is claimed.
pub(super) async fn unlock_and_watch(
    config: &Config,
    store: &Store,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    unlock(config, store).await?;
    let (store, stop) = (store.clone(), shutdown.token());
    shutdown.spawn_named("seals", async move {
        while !stop.is_cancelled() {
            match store.follow_seals().await {
                // From here on the sweep follows it.
                Ok(()) => stop.cancelled().await,
                Err(error) => {
                    tracing::error!(error = %error, "the audit log cannot be read; the next attempt is in a second");
                    pause(Duration::from_secs(1), &stop).await;
                }
            }
        }
    });
    Ok(())
}

/// Tells those who look after the security what was accepted or changed on this machine. The daemon sends it.
pub(super) async fn announce(config: &Config, store: &Store, what: String) -> anyhow::Result<()> {
    let engine = super::engine_beside(config, store.clone())?;
    Ok(engine.tell_acceptance(&super::actor(), what).await?)
}

/// Where the next key waits until the database is sealed with it.
fn next_file(config: &Config) -> PathBuf {
    let mut name = config.server.key_file.as_os_str().to_owned();
    name.push(".next");
    name.into()
}

/// What `keywheel key show` says: nothing of it is secret.
///
/// # Errors
/// Fails when the key file or the database cannot be read.
pub async fn key_show(config: Config) -> anyhow::Result<Value> {
    let store = super::existing(&config).await?;
    let key = InstallationKey::read(&config.server.key_file)?;
    Ok(json!({
        "fingerprint": key.fingerprint(),
        "publicKey": STANDARD.encode(key.public_key()),
        "file": config.server.key_file,
        "since": store.seals().since(),
    }))
}

/// Opens the database of an installation whose daemons are stopped: a daemon goes on sealing with the key that it has
/// read.
async fn open_alone(config: &Config) -> anyhow::Result<Store> {
    let store = super::open(config, Access::Daemon).await?;
    store.check_schema().await?;
    let living = store.living(SystemClock.now() - PRESENT).await?;
    if !living.is_empty() {
        bail!(
            "{} daemon(s) use this database, and would go on with the old key; stop all of them, then run this again",
            living.len()
        );
    }
    Ok(store)
}

/// Makes a new installation key, which the old one signs, and seals everything with it; returns its fingerprint. What
/// was interrupted goes on where it stopped.
///
/// # Errors
/// Fails, and changes nothing, while a daemon runs, and while something does not fit its seal.
pub async fn key_rotate(config: Config) -> anyhow::Result<String> {
    let store = open_alone(&config).await?;
    let old = unlock_and_follow(&config, &store).await?;
    if let Some(broken) = store.seals().fault() {
        bail!("audit row {} is broken: {}; accept it with `keywheel doctor` first", broken.seq, broken.why);
    }
    if let Some(tampered) = store.tampered().await?.first() {
        bail!("{tampered}");
    }
    store.close().await;
    // Its lock goes with it.
    drop(store);
    let new = next_key(&config)?;
    let signature = old.sign(&succession(new.public_key()));
    let row = NewAudit {
        actor: super::actor(),
        action: "installation.key_rotated".to_owned(),
        subject: "installation".to_owned(),
        detail: json!({
            "from": old.fingerprint(), "to": new.fingerprint(), "oldPublicKey": STANDARD.encode(old.public_key()),
            "publicKey": STANDARD.encode(new.public_key()), "signature": STANDARD.encode(signature),
        })
        .to_string(),
    };
    take(&config, &new, row, Belief::All).await?;
    Ok(new.fingerprint())
}

/// Puts a new key in the place of one that is lost. Nothing that only the old key vouched for is believed: rotations
/// whose key was not sent yet wait for their approvals again, and tokens must be confirmed. Returns its fingerprint.
///
/// # Errors
/// Fails, and changes nothing, while a daemon runs, and while the key that the database is sealed with is there.
pub async fn key_replace(config: Config) -> anyhow::Result<String> {
    let store = open_alone(&config).await?;
    let Some(sealed) = store.fingerprint().await? else {
        bail!("this database is not sealed yet; the first `keywheel serve` makes its key");
    };
    store.close().await;
    drop(store);
    let file = &config.server.key_file;
    match InstallationKey::read(file) {
        Ok(key) if key.fingerprint() == sealed => {
            bail!("{} is the key of this database; `keywheel key rotate` changes it", file.display())
        }
        Err(KeyFileError::Missing(_)) => {}
        // It may be the right one.
        Err(error @ (KeyFileError::Exposed { .. } | KeyFileError::Io { .. })) => return Err(error.into()),
        // What is there stays, under another name.
        Ok(_) | Err(_) => {
            let mut aside = file.as_os_str().to_owned();
            aside.push(".replaced");
            std::fs::rename(file, &aside)
                .with_context(|| format!("{} cannot be moved aside", file.display()))?;
        }
    }
    let new = next_key(&config)?;
    let row = NewAudit {
        actor: super::actor(),
        action: "installation.key_replaced".to_owned(),
        subject: "installation".to_owned(),
        detail: json!({ "from": sealed, "to": new.fingerprint() }).to_string(),
    };
    take(&config, &new, row, Belief::NoVotesNoTokens).await?;
    Ok(new.fingerprint())
}

/// The key that an interrupted change has made, or a fresh one.
fn next_key(config: &Config) -> anyhow::Result<InstallationKey> {
    let file = next_file(config);
    match InstallationKey::read(&file) {
        Err(KeyFileError::Missing(_)) => {
            let key = InstallationKey::random()?;
            key.create(&file)?;
            Ok(key)
        }
        read => Ok(read?),
    }
}

/// Seals the database with the next key, and puts its file in its place.
async fn take(config: &Config, key: &InstallationKey, row: NewAudit, belief: Belief) -> anyhow::Result<()> {
    let store = open_alone(config).await?;
    store.rekey(key, row, belief, SystemClock.now()).await?;
    put_in_place(config)?;
    if let Some(mark) = epoch::present_mark(&store).await? {
        epoch::write_mark(&mark_file(config), &mark)?;
    }
    let lost = match belief {
        Belief::All => "",
        Belief::NoVotesNoTokens => {
            "; votes on rotations that sent nothing are void, loosened rules that were to take effect are withdrawn, and \
             tokens count again after `keywheel token confirm NAME`"
        }
    };
    announce(config, &store, format!("the installation key is now {}{lost}", key.fingerprint()))
        .await
        .context("the installation key was changed, and nobody could be told of it")?;
    store.close().await;
    Ok(())
}

fn put_in_place(config: &Config) -> anyhow::Result<()> {
    let (from, to) = (next_file(config), &config.server.key_file);
    std::fs::rename(&from, to)
        .with_context(|| format!("{} cannot be moved to {}", from.display(), to.display()))
}

/// Lets tokens in that were suspended; returns those that are not in force.
///
/// # Errors
/// Fails when the database cannot be read or written.
pub async fn tokens_confirm(config: Config, names: Vec<String>) -> anyhow::Result<Vec<String>> {
    let store = super::existing(&config).await?;
    let mut unknown = Vec::new();
    for name in names {
        let row = NewAudit {
            actor: super::actor(),
            action: "token.confirmed".to_owned(),
            subject: format!("token/{name}"),
            detail: "{}".to_owned(),
        };
        if !store.confirm_token(&name, row, SystemClock.now()).await? {
            unknown.push(name);
        }
    }
    remember(&config, &store).await?;
    Ok(unknown)
}
