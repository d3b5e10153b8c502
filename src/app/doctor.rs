//! `keywheel doctor`: checks configuration, webhook targets, database, Atlas, key services, mail and
//! clocks; each failed check names the fix. It also records an operator's acceptance of a restored
//! database or a broken audit row. Each acceptance is one audit row. Beyond that, only the write probe
//! and the epoch file of an accepted restore are written.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use chrono::Datelike;
use serde::Serialize;
use serde_json::{Value, json};

use super::installation::{PRESENT, announce, mark_file, unlock};
use super::locked::naming_writer;
use super::lookups::services;
use super::seen::{uncounted, way_out};
use super::{actor, atlas, engine, open, smtp};
use crate::atlas::Atlas;
use crate::config::{Config, Loaded};
use crate::domain::condition::{ConditionKind, of_secret};
use crate::domain::ids::GroupId;
use crate::domain::policy::Window;
use crate::domain::rotation::machine::MAX_SKEW;
use crate::domain::time::{Clock, Span, SystemClock, Timestamp};
use crate::domain::zone::Zone;
use crate::engine::credentials::end_of;
use crate::engine::epoch::{present_mark, read_mark, regression, write_mark};
use crate::net::cause::with_causes;
use crate::passkey::Site;
use crate::store::{Access, BREAK_ACCEPTED, NewAudit, ProjectFilter, Store, StoreError, sqlite_path};
use crate::web::oidc::Provider;
use crate::webhook::Target;

/// An operator's acceptances.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accept {
    /// That the database is an older copy of itself.
    pub restore: bool,
    /// That this audit row is broken.
    pub broken_row: Option<i64>,
}

/// The result of one check.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Pass,
    Warn,
    Fail,
}

#[derive(Serialize)]
struct Finding {
    name: String,
    result: Verdict,
    detail: String,
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, name: &str, result: Verdict, detail: &str) {
        self.0.push(Finding { name: name.to_owned(), result, detail: detail.to_owned() });
    }

    fn pass(&mut self, name: &str, detail: &str) {
        self.add(name, Verdict::Pass, detail);
    }

    fn warn(&mut self, name: &str, detail: &str) {
        self.add(name, Verdict::Warn, detail);
    }

    fn fail(&mut self, name: &str, detail: &str) {
        self.add(name, Verdict::Fail, detail);
    }

    /// Records a pass or a failure, each with its text.
    fn say(&mut self, name: &str, verdict: Result<impl Display, impl Display>) {
        match verdict {
            Ok(detail) => self.pass(name, &detail.to_string()),
            Err(detail) => self.fail(name, &detail.to_string()),
        }
    }
}

/// Records the acceptances and checks everything a daemon needs: `{"ok": …, "checks": […]}`.
///
/// # Errors
/// Fails when an acceptance cannot be recorded. A failed check is part of the result.
pub async fn doctor(loaded: Loaded, accept: Accept) -> anyhow::Result<Value> {
    let mut findings = Findings(Vec::new());
    let config = loaded.config;
    if loaded.warnings.is_empty() && loaded.unkept.is_empty() {
        findings.pass("configuration", "it can be used as it is");
    }
    for unkept in &loaded.unkept {
        findings.warn("configuration", unkept);
    }
    for warning in &loaded.warnings {
        findings.warn("configuration", warning);
    }
    schedule(&config, &mut findings);
    time_zones(SystemClock.now(), &mut findings);
    webhooks(&config, &mut findings);
    lookups(&config, &mut findings).await;
    providers(&config, &mut findings).await;
    // One that this command made would belong to this user, and not to the daemon's.
    if sqlite_path(config.database.url.expose()).is_ok_and(|file| !file.exists()) {
        let by = if config.database.migrate { "the first `keywheel serve`" } else { "`keywheel migrate`" };
        findings.warn("database", &format!("there is no database yet; {by} makes it"));
        unused_all(&config, &mut findings).await;
        mail(&config, &mut findings).await;
        return Ok(report(&findings));
    }
    let store = match open(&config, Access::Beside).await {
        Ok(store) => store,
        Err(error) => {
            findings.fail("database", &with_causes(error.as_ref()));
            mail(&config, &mut findings).await;
            return Ok(report(&findings));
        }
    };
    if !database(&config, &store, &mut findings).await {
        mail(&config, &mut findings).await;
        return Ok(report(&findings));
    }
    clock(&store, &mut findings).await;
    let unlocked = match unlock(&config, &store).await {
        Ok(_) if store.seals().is_stripped() && !accept.restore => Err(StoreError::Unsealed.into()),
        Ok(_) => Ok(store.follow_seals().await?),
        Err(error) => Err(error),
    };
    if let Err(error) = unlocked {
        findings.fail("seals", &with_causes(error.as_ref()));
        mail(&config, &mut findings).await;
        return Ok(report(&findings));
    }
    if let Some(row) = accept.broken_row {
        accept_broken(&config, &store, row, &mut findings).await?;
    }
    if accept.restore {
        accept_restore(&config, &store, &mut findings).await?;
    }
    installation_key(&config, &mut findings);
    records(&store, &mut findings).await;
    audit(&store, &mut findings).await;
    history(&config, &store, &mut findings).await;
    passkeys(&config, &store, &mut findings).await;
    outbox(&store, &mut findings).await;
    disabled(&store, &mut findings).await;
    credentials(&config, &store, &mut findings).await;
    store.close().await;
    mail(&config, &mut findings).await;
    Ok(report(&findings))
}

fn report(findings: &Findings) -> Value {
    let ok = findings.0.iter().all(|it| it.result != Verdict::Fail);
    json!({ "ok": ok, "checks": findings.0 })
}

/// Checks the schema and that it can be written; false when the checks that read it would only repeat the fault.
async fn database(config: &Config, store: &Store, findings: &mut Findings) -> bool {
    let written = match store.check_schema().await {
        Ok(()) => store.check_writable(SystemClock.now()).await,
        Err(error) => Err(error),
    };
    match written {
        Ok(()) => {
            let text = format!("it has schema {} and can be written", crate::store::known_version());
            findings.pass("database", &text);
            true
        }
        Err(StoreError::NotMigrated) if config.database.migrate => {
            findings.warn("database", "it is empty; the first `keywheel serve` sets it up");
            unused_all(config, findings).await;
            false
        }
        Err(error) => {
            let read = matches!(error, StoreError::Full | StoreError::ReadOnly(_));
            let error = naming_writer(config, error.into());
            findings.fail("database", &with_causes(error.as_ref()));
            read
        }
    }
}

async fn clock(store: &Store, findings: &mut Findings) {
    let asked = SystemClock.now();
    let verdict = match store.server_time().await {
        Err(error) => Err(error.to_string()),
        Ok(None) => Ok("SQLite has no clock of its own".to_owned()),
        Ok(Some(theirs)) => {
            let apart = asked.since(theirs).max(theirs.since(SystemClock.now()));
            let text = format!("this machine's clock and the database's are {} s apart", apart.as_secs());
            if apart > MAX_SKEW {
                Err(format!("{text}; no new key is sent until they agree: check NTP on both"))
            } else {
                Ok(text)
            }
        }
    };
    findings.say("clock", verdict);
}

/// Names the projects and rotations that a daemon skips because it cannot read them.
async fn records(store: &Store, findings: &mut Findings) {
    match store.unreadable().await {
        Err(error) => findings.fail("records", &error.to_string()),
        Ok(found) if found.is_empty() => {
            findings.pass("records", "every project and every rotation can be read");
        }
        Ok(found) => found.iter().for_each(|error| findings.fail("records", &error.to_string())),
    }
}

async fn audit(store: &Store, findings: &mut Findings) {
    let verdict = match store.verify_audit().await {
        Err(error) => Err(error.to_string()),
        Ok(report) => match (report.broken.first(), store.seals().fault()) {
            (None, None) => Ok(format!("{} audit rows, the chain is intact", report.rows)),
            (Some(broken), None) => {
                Ok(format!("audit row {} is broken ({}), which was accepted", broken.seq, broken.why))
            }
            (_, Some(broken)) => Err(format!(
                "audit row {} is broken: {}; find out who changed it; new keys are sent again after --accept-broken-chain {}",
                broken.seq, broken.why, broken.seq
            )),
        },
    };
    findings.say("audit", verdict);
    match store.tampered().await {
        Err(error) => findings.fail("seals", &error.to_string()),
        Ok(found) if found.is_empty() => {
            findings.pass("seals", "projects, tokens, people, open rotations, votes, changed rules and settings are as Keywheel wrote them");
        }
        Ok(found) => found.iter().for_each(|it| findings.fail("seals", &it.to_string())),
    }
}

/// Whether who writes the database can usually read the key that seals it.
fn installation_key(config: &Config, findings: &mut Findings) {
    let key = &config.server.key_file;
    let Some(database) = config.database.url.expose().strip_prefix("sqlite:") else {
        return findings
            .pass("key", &format!("{} is on this machine, and the database on a server", key.display()));
    };
    if key.parent() == Path::new(database.trim_start_matches("//")).parent() {
        findings.warn(
            "key",
            &format!(
                "{} is beside the database: who may write that file can usually read the key too, and approve with it. To part \
                 them, run the daemon as a user of its own, put server.key_file in another folder, or use PostgreSQL",
                key.display()
            ),
        );
    } else {
        findings.pass("key", &format!("{} is not beside the database", key.display()));
    }
}

async fn passkeys(config: &Config, store: &Store, findings: &mut Findings) {
    for found in [lost_passkeys(config, store).await, former_passkeys(store).await] {
        match found {
            Ok(None) => {}
            Ok(Some(lost)) => findings.warn("passkeys", &lost),
            Err(error) => findings.fail("passkeys", &with_causes(&error)),
        }
    }
}

/// The passkeys of addresses that accounts had before: they count for nobody.
async fn former_passkeys(store: &Store) -> Result<Option<String>, StoreError> {
    let former = store.former_addresses().await?;
    let mut held = store.passkey_holders().await?;
    held.retain(|(holder, _)| former.contains(holder));
    if held.is_empty() {
        return Ok(None);
    }
    let count: i64 = held.iter().map(|(_, count)| count).sum();
    let holders = held.iter().map(|(holder, _)| holder.as_str()).collect::<Vec<_>>().join(", ");
    Ok(Some(format!(
        "{count} passkeys are of former addresses of accounts ({holders}) and count for nothing. Their people enrol new ones; \
         `keywheel passkey list` names them, and `keywheel passkey remove ID` removes one"
    )))
}

/// What becomes of the passkeys that were enrolled at another host than that of `server.public_url`: there they belong.
pub(super) async fn lost_passkeys(config: &Config, store: &Store) -> Result<Option<String>, StoreError> {
    let url = &config.server.public_url;
    let site = Site::of(url);
    let sites = store.passkey_sites().await?;
    let all: i64 = sites.iter().map(|(_, count)| count).sum();
    let lost: Vec<_> =
        sites.iter().filter(|(host, _)| site.as_ref().map_or(true, |it| it.id != *host)).collect();
    if lost.is_empty() {
        return Ok(None);
    }
    let count: i64 = lost.iter().map(|(_, count)| count).sum();
    let hosts = lost.iter().map(|(host, _)| host.as_str()).collect::<Vec<_>>().join(", ");
    let why = site.err().map(|why| format!(" ({why})")).unwrap_or_default();
    Ok(Some(format!(
        "{count} of {all} passkeys were enrolled at {hosts} and do not work at server.public_url {url}{why}: nobody approves \
         with them. Set it back, or have their holders enrol new ones"
    )))
}

/// The same for a configuration that is not in use yet, where its database is there and can be read.
pub async fn passkeys_lost_by(config: &Config) -> Option<String> {
    if sqlite_path(config.database.url.expose()).is_ok_and(|file| !file.exists()) {
        return None;
    }
    let store = open(config, Access::Beside).await.ok()?;
    let lost = lost_passkeys(config, &store).await;
    store.close().await;
    lost.ok().flatten()
}

async fn history(config: &Config, store: &Store, findings: &mut Findings) {
    let verdict = match read_mark(&mark_file(config)) {
        Err(error) => Err(error.to_string()),
        Ok(None) if !store.seals().is_new() => Err(
            "data_dir has no epoch file, and this database was used before, so whether it is an older copy cannot be seen; \
             compare with `keywheel status`; rotations continue after --accept-restore"
                .to_owned(),
        ),
        Ok(None) => Ok("no daemon has run with this data_dir yet".to_owned()),
        Ok(Some(mark)) => match regression(store, &mark).await {
            Err(error) => Err(error.to_string()),
            Ok(None) => Ok(format!("it holds audit row {}, the last one in the epoch file", mark.seq)),
            Ok(Some(found)) => Err(format!(
                "{found}; compare with `keywheel status`; rotations continue after --accept-restore"
            )),
        },
    };
    findings.say("history", verdict);
}

fn schedule(config: &Config, findings: &mut Findings) {
    let beat =
        Window { cron: config.sweep.cron.clone(), duration: Span::from_secs(1), timezone: "UTC".to_owned() };
    findings.say(
        "schedule",
        match beat.next_start(SystemClock.now()) {
            Some(at) => Ok(format!("the next sweep is at {at}")),
            None => Err("sweep.cron matches no time".to_owned()),
        },
    );
}

/// The rules of time zones are a part of the program: windows of a zone that has changed since open at another hour.
fn time_zones(now: Timestamp, findings: &mut Findings) {
    let release = Zone::release();
    let year = release.get(..4).and_then(|year| year.parse::<i32>().ok());
    let said = format!("IANA {release}, a part of this program");
    if year.is_some_and(|year| now.as_chrono().year() > year + 1) {
        findings.warn("time zones", &format!("{said}: over a year old; install a newer Keywheel"));
    } else {
        findings.pass("time zones", &said);
    }
}

/// Lists the webhook targets without a call: a receiver would take a test for a real event.
fn webhooks(config: &Config, findings: &mut Findings) {
    for it in &config.webhooks {
        let verdict = match Target::new(it) {
            Ok(target) => Ok(format!("{}; it was not called", target.described())),
            Err(why) => Err(why),
        };
        findings.say(&format!("webhooks.{}", it.name), verdict);
    }
}

/// Logs in to each key service. Its rights on a key show only in a lookup of that key.
async fn lookups(config: &Config, findings: &mut Findings) {
    let services = match services(config) {
        Ok(services) => services,
        Err(error) => return findings.fail("kms", &with_causes(error.as_ref())),
    };
    for (name, service) in services {
        let check = format!("kms.{name}");
        match service.log_in().await {
            Err(error) if !service.is_telling(&error) => findings.warn(&check, &error.to_string()),
            verdict => findings.say(&check, verdict),
        }
    }
}

/// Reads the document and the keys of each identity provider. Whether it takes the secret shows only at a sign-in.
async fn providers(config: &Config, findings: &mut Findings) {
    for it in &config.oidc {
        let verdict = match Provider::new(it, &config.server.public_url) {
            Ok(provider) => provider.check(SystemClock.now()).await,
            Err(why) => Err(why.to_string()),
        };
        findings.say(&format!("oidc.{}", it.name), verdict);
    }
}

/// Tries each credential on a project that uses it.
async fn credentials(config: &Config, store: &Store, findings: &mut Findings) {
    if config.atlas.credentials.is_empty() {
        return findings.fail(
            "atlas",
            "no credential is configured; add [atlas.credentials.default] to the configuration",
        );
    }
    let atlas = match atlas(config, store) {
        Ok(atlas) => atlas,
        Err(error) => return findings.fail("atlas", &with_causes(error.as_ref())),
    };
    let timeout = config.atlas.request_timeout.get();
    for name in config.atlas.credentials.keys() {
        let check = format!("atlas.credentials.{name}");
        let group = match first_project(store, name).await {
            Ok(Some(group)) => group,
            Ok(None) => {
                unused(&atlas, name, timeout, findings).await;
                continue;
            }
            Err(error) => {
                findings.fail(&check, &error.to_string());
                continue;
            }
        };
        let seen = match atlas.observe(name, &group, timeout).await {
            Ok(seen) => seen,
            Err(failure) => {
                findings.fail(&check, &format!("project {group} cannot be read: {}", way_out(&failure)));
                continue;
            }
        };
        let verdict = match atlas.may_change(name, &group, timeout).await {
            Ok(true) => Ok(format!("it reads project {group} and may change its key")),
            Ok(false) => Err(format!(
                "it reads project {group} and may not change its key; give it the role Project Owner there"
            )),
            Err(failure) => Err(format!(
                "it reads project {group}; whether it may change the key is not known: {}",
                way_out(&failure)
            )),
        };
        findings.say(&check, verdict);
        if let Ok(Some(end)) = end_of(&atlas, name, timeout).await
            && let Some(soon) = of_secret(end, SystemClock.now())
        {
            let text = format!(
                "{}, at {end}; make a second one in Atlas, write it into the configuration, then revoke the old one",
                soon.cause.unwrap_or_default()
            );
            if end <= SystemClock.now() { findings.fail(&check, &text) } else { findings.warn(&check, &text) }
        }
        if let Some(skew) = seen.skew_ms {
            let apart = Duration::from_millis(skew.unsigned_abs());
            let text = format!("this machine's clock and Atlas' are {} s apart", apart.as_secs());
            let verdict = if apart > MAX_SKEW {
                Err(format!("{text}; no new key is sent until they agree: check NTP"))
            } else {
                Ok(text)
            };
            findings.say("clock", verdict);
        }
    }
}

/// Tries a credential that no project uses: what it may do can only be seen in a project.
async fn unused(atlas: &Atlas, name: &str, timeout: Duration, findings: &mut Findings) {
    let check = format!("atlas.credentials.{name}");
    match atlas.groups(name, 1, 1, timeout).await {
        Ok(_) => {
            let text = "Atlas takes it; what it may do was not tested, because no project uses it";
            findings.warn(&check, text);
        }
        Err(failure) => findings.fail(&check, &way_out(&failure)),
    }
}

/// Tries each credential before there is a database.
async fn unused_all(config: &Config, findings: &mut Findings) {
    match uncounted(config) {
        Ok(atlas) => {
            for name in config.atlas.credentials.keys() {
                unused(&atlas, name, config.atlas.request_timeout.get(), findings).await;
            }
        }
        Err(error) => findings.fail("atlas", &with_causes(error.as_ref())),
    }
}

/// A project that uses the credential.
async fn first_project(store: &Store, credential: &str) -> Result<Option<GroupId>, StoreError> {
    let mut after: Option<GroupId> = None;
    loop {
        let batch = store.projects(&ProjectFilter::default(), after.as_ref(), 500).await?;
        if let Some(found) = batch.iter().find(|it| it.credential == credential) {
            return Ok(Some(found.group_id.clone()));
        }
        match batch.last() {
            Some(last) => after = Some(last.group_id.clone()),
            None => return Ok(None),
        }
    }
}

/// Runs the steps of a mail up to its recipient; sends none.
async fn mail(config: &Config, findings: &mut Findings) {
    if config.mail.operators.is_empty() {
        findings.warn(
            "operators",
            "mail.operators names nobody, so what concerns the installation goes to every owner; name those who look after it",
        );
    }
    let smtp = match smtp(config) {
        Ok(Some(smtp)) => smtp,
        Ok(None) => {
            findings.warn(
                "mail",
                "mail.smtp_url is not set, so no mail is sent; mails stay in the outbox (`keywheel outbox list`)",
            );
            return;
        }
        Err(error) => return findings.fail("mail", &error.to_string()),
    };
    match smtp.check().await {
        Ok(found) if found.is_exposed() => findings.warn("mail", &found.to_string()),
        Ok(found) => findings.pass("mail", &found.to_string()),
        Err(trouble) => {
            findings.fail("mail", &format!("{smtp} cannot be used, {trouble}: {}", trouble.way_out()));
        }
    }
}

/// Mails that were not delivered, and mails without a recipient.
async fn outbox(store: &Store, findings: &mut Findings) {
    let counts = match store.mail_counts().await {
        Ok(counts) => counts,
        Err(error) => return findings.fail("outbox", &error.to_string()),
    };
    if counts.failed > 0 {
        findings.warn(
            "outbox",
            &format!(
                "{} mails were refused or given up; `keywheel outbox list` has the server's replies, `keywheel outbox retry --failed` sends \
                 them again, `dismiss --failed` takes them from the list",
                counts.failed
            ),
        );
    }
    if counts.unaddressed > 0 {
        findings.warn(
            "owners",
            &format!(
                "{} mails have no recipient, because their project has no owner; `keywheel project edit PROJECT --owner MAIL` names one",
                counts.unaddressed
            ),
        );
    }
    findings.pass("outbox", &format!("{} mails wait to be sent", counts.waiting));
}

/// The targets that a running daemon has disabled.
async fn disabled(store: &Store, findings: &mut Findings) {
    let holding = match store.conditions_of_installation().await {
        Ok(rows) => rows,
        Err(error) => return findings.fail("webhooks", &error.to_string()),
    };
    for it in holding.iter().filter(|it| it.kind == ConditionKind::WebhookDisabled) {
        let names = it.cause.as_deref().unwrap_or_default();
        let text = format!(
            "{names}: answered 410 (gone) and disabled since {}; remove it from the configuration, or fix it and run `keywheel \
             webhook enable NAME`",
            it.since
        );
        findings.fail("webhooks", &text);
    }
}

async fn accept_restore(config: &Config, store: &Store, findings: &mut Findings) -> anyhow::Result<()> {
    let file = mark_file(config);
    let mark = read_mark(&file)?;
    let stripped = store.seals().is_stripped();
    let found = match &mark {
        _ if stripped => {
            Some("the database has no seals, and this installation has sealed its rows before".to_owned())
        }
        Some(mark) => regression(store, mark).await?,
        None if store.seals().is_new() => None,
        None => Some("data_dir has no epoch file, and this database was used before".to_owned()),
    };
    let Some(found) = found else {
        findings.pass("accept-restore", "there was nothing to accept");
        return Ok(());
    };
    let differ = differing(config, store, findings).await;
    let row = NewAudit {
        actor: actor(),
        action: "database.restore_accepted".to_owned(),
        subject: "database".to_owned(),
        detail: json!({
            "found": found,
            "remembered": mark.as_ref().map(|mark| json!({ "seq": mark.seq, "hash": mark.hash })),
            "differ": differ,
        })
        .to_string(),
    };
    // The audit row first: the epoch file lets the daemon continue, and it must not continue before the
    // log names the operator who accepted.
    let now = SystemClock.now();
    store.accept_stripped(now).await?;
    let vouched = !stripped && mark.is_none() && !store.living(now - PRESENT).await?.is_empty();
    let then = if vouched {
        // Another daemon works with this database, and knows its history.
        store.append(&[row], now).await?;
        "another daemon vouches for its history".to_owned()
    } else {
        let (rotations, tokens) = store.void_after_restore(row, now).await?;
        let tokens = if tokens.is_empty() {
            "there are no tokens".to_owned()
        } else {
            format!("the tokens {} count again after `keywheel token confirm NAME`", tokens.join(", "))
        };
        format!(
            "{rotations} rotations wait for their approvals again; {tokens}; people sign in anew, and whom you removed after the copy was made is to be removed again (`keywheel person list`)"
        )
    };
    if let Some(present) = present_mark(store).await? {
        write_mark(&file, &present)?;
    }
    tell(config, store, format!("an older or unknown database was accepted: {found}; {then}"), findings)
        .await;
    findings.pass("accept-restore", &format!("accepted by {}: {found}; {then}", actor()));
    Ok(())
}

/// Names each project whose record differs from what Atlas holds, and makes it due to be read at once.
async fn differing(config: &Config, store: &Store, findings: &mut Findings) -> Vec<GroupId> {
    let found = match engine(config, store.clone()) {
        Ok(engine) => engine.differences().await.map_err(anyhow::Error::from),
        Err(error) => Err(error),
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            findings.warn(
                "differences",
                &format!("the records were not compared with Atlas: {}", with_causes(error.as_ref())),
            );
            return Vec::new();
        }
    };
    if found.is_empty() {
        findings.pass("differences", "every record agrees with what Atlas holds");
    }
    let text = |key: Option<&str>| key.unwrap_or("no key").to_owned();
    for it in &found {
        let held = match &it.error {
            Some(error) => format!("Atlas cannot be read: {error}"),
            None => format!("at Atlas: {}", text(it.atlas.as_deref())),
        };
        let recorded = text(it.recorded.as_deref());
        findings
            .warn("differences", &format!("{} ({}): on record: {recorded}; {held}", it.name, it.group_id));
    }
    let groups: Vec<_> = found.into_iter().map(|it| it.group_id).collect();
    if let Err(error) = store.look_soon(&groups, SystemClock.now()).await {
        findings.warn("differences", &format!("the projects are read at their usual time: {error}"));
    }
    groups
}

/// The acceptance stands, whether or not it can be told.
async fn tell(config: &Config, store: &Store, what: String, findings: &mut Findings) {
    if let Err(error) = announce(config, store, what).await {
        findings.warn("accepted", &format!("nobody could be told of it: {}", with_causes(error.as_ref())));
    }
}

async fn accept_broken(
    config: &Config,
    store: &Store,
    row: i64,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    match store.seals().fault().filter(|it| it.seq == row) {
        None => {
            findings.fail("accept-broken-chain", &format!("audit row {row} is not the next that is broken"));
        }
        Some(broken) => {
            let accepted = NewAudit {
                actor: actor(),
                action: BREAK_ACCEPTED.to_owned(),
                subject: format!("audit/{row}"),
                detail: json!({ "why": broken.why }).to_string(),
            };
            store.append(&[accepted], SystemClock.now()).await?;
            store.follow_seals().await?;
            let what = format!("audit row {row} was accepted although it does not fit: {}", broken.why);
            tell(config, store, what, findings).await;
            findings.pass("accept-broken-chain", &format!("row {row} accepted by {}", actor()));
        }
    }
    Ok(())
}
