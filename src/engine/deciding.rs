//! The settings that decide, compared at each start with those on record.
//!
//! Who may replace the configuration and restart the daemon can do what the daemon can. So nothing is refused: a start
//! with other settings is written into the audit log and told to the addresses of before and of now. Only the two
//! delays stay as they were until their lower values were announced for long enough.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::authority::{plain, rows, together};
use super::command::loosening::{audit_row, facts, identity};
use super::settling::{delays, loosen_after, settling_in};
use super::{ENGINE, Engine, Settings};
use crate::domain::ids::LooseningId;
use crate::domain::loosening::{Change, Course, HeldEdit, LooseningKind, LooseningState};
use crate::domain::notice::{Authority, Kind};
use crate::domain::subject::Subject;
use crate::domain::time::{Span, Timestamp};
use crate::domain::vote::{LOOSEN_AFTER, SETTLE_IN, SINCE};
use crate::store::{Governed, Loosening, NewAudit, NewOutbox, NewSettings, StoreError};

/// The settings whose addresses hear of other settings.
const HEARERS: [&str; 2] = ["mail.security", "mail.operators"];

/// What is written at a start.
#[derive(Default)]
struct Record {
    set: Vec<(String, Option<String>)>,
    /// What is on record was changed outside of Keywheel.
    anew: bool,
    governed: Governed,
    audit: Vec<NewAudit>,
    outbox: Vec<NewOutbox>,
}

/// Compares `found`, the settings that decide by name, with those on record, and records them. Secrets are masked in
/// both.
///
/// # Errors
/// Fails when the database cannot be read or written.
pub async fn record(engine: &Engine, found: BTreeMap<String, String>) -> Result<(), StoreError> {
    let now = engine.clock.now();
    let mut record = Record::default();
    let mut recorded = match engine.store.recorded_settings().await {
        Err(StoreError::Tampered { subject, why }) => {
            tracing::error!("{subject}: {why}; the settings that decide are recorded anew");
            record.anew = true;
            BTreeMap::new()
        }
        recorded => recorded?,
    };
    let found = by_host(engine, found);
    let host = host(engine);
    recorded.retain(|name, _| name.split_once('@').is_none_or(|(_, it)| it == host));
    let delays = [LOOSEN_AFTER, SETTLE_IN].map(|name| (name, recorded.remove(name)));
    if recorded.remove(SINCE).is_none() {
        record.set.push((SINCE.to_owned(), Some(self::delays(engine).began.to_string())));
    }
    let hearers = hearers(&recorded, &found);
    ENGINE.clone_into(&mut record.governed.by);
    let changes = changes(&recorded, &found);
    let first = !record.anew && recorded.is_empty() && delays.iter().all(|(_, it)| it.is_none());
    if !changes.is_empty() {
        record.set.extend(changes.iter().map(|it| (it.field.clone(), found.get(&it.field).cloned())));
        let (action, delays) = if first {
            let Settings { loosen_after, settle_in, .. } = &*engine.settings;
            ("config.recorded", json!({ "loosenAfter": loosen_after, "settleIn": settle_in }))
        } else {
            ("config.changed", Value::Null)
        };
        record.audit.push(NewAudit {
            actor: ENGINE.to_owned(),
            action: action.to_owned(),
            subject: Subject::Installation.to_string(),
            detail: json!({ "changes": changes, "delays": delays }).to_string(),
        });
    }
    if !changes.is_empty() && !first {
        let names: Vec<_> = changes.iter().map(|it| it.field.as_str()).collect();
        tracing::warn!("started with other settings that decide: {}", names.join(", "));
        let facts = Authority {
            changes,
            ..plain(Kind::ConfigChanged, Subject::Installation.to_string(), ENGINE, now)
        };
        let identity = format!("config/{}/{}", engine.settings.daemon, now.as_micros());
        record.outbox.extend(rows(engine, &identity, facts, &hearers, now));
    }
    let configured = [Some(engine.settings.loosen_after), engine.settings.settle_in];
    for ((name, recorded), configured) in delays.into_iter().zip(configured) {
        if let Some(configured) = configured {
            if first {
                // The row of the first start names them.
                record.set.push((name.to_owned(), Some(configured.to_string())));
            } else {
                delay(engine, (name, recorded), configured, &hearers, &mut record).await?;
            }
        }
    }
    let Record { set, anew, governed, audit, outbox } = record;
    if set.is_empty() && audit.is_empty() {
        return Ok(());
    }
    let new = NewSettings { values: set, anew };
    engine.store.record_settings(new, governed, (&audit, &outbox), now).await?;
    engine.mail_due.notify_one();
    Ok(())
}

/// One of the two delays: a longer one is in force at once, a shorter one later.
async fn delay(
    engine: &Engine,
    (name, recorded): (&str, Option<String>),
    configured: Span,
    hearers: &[String],
    record: &mut Record,
) -> Result<(), StoreError> {
    let now = engine.clock.now();
    let in_force = recorded.as_deref().and_then(|text| text.parse::<Span>().ok());
    let pending = engine.store.pending_loosenings().await?;
    let mut pending: Vec<Loosening> =
        pending.into_iter().filter(|it| it.changes.iter().any(|change| change.field == name)).collect();
    let wanted = Value::String(configured.to_string());
    let lower = in_force.is_some_and(|it| configured < it) && !settling_in(engine).await?.covers(now);
    if lower {
        // What is announced already goes on.
        pending.retain(|it| it.changes.iter().all(|change| change.to != wanted));
        let known = engine.store.pending_loosenings().await?;
        if !known.iter().any(|it| it.changes.iter().any(|it| it.field == name && it.to == wanted)) {
            hold(engine, (name, in_force), wanted, hearers, record).await?;
        }
    } else if in_force != Some(configured) {
        record.set.push((name.to_owned(), Some(configured.to_string())));
        record.audit.push(NewAudit {
            actor: ENGINE.to_owned(),
            action: "config.delay".to_owned(),
            subject: Subject::Installation.to_string(),
            detail: json!({ "field": name, "from": recorded, "to": configured }).to_string(),
        });
    }
    for it in pending {
        record.audit.push(audit_row(ENGINE, "loosening.withdrawn", &it));
        record.governed.withdrawn.push(it.id);
    }
    Ok(())
}

/// A shorter delay that takes effect later.
async fn hold(
    engine: &Engine,
    (name, in_force): (&str, Option<Span>),
    wanted: Value,
    hearers: &[String],
    record: &mut Record,
) -> Result<(), StoreError> {
    let now = engine.clock.now();
    let change = Change { field: name.to_owned(), course: Course::Looser, from: json!(in_force), to: wanted };
    let security = if engine.settings.mails { hearers.to_vec() } else { Vec::new() };
    let told: Option<Timestamp> = security.is_empty().then_some(now);
    let after = loosen_after(engine).await?.get();
    let it = Loosening {
        id: LooseningId::new(),
        subject: Subject::Installation.to_string(),
        kind: LooseningKind::Loosening,
        state: if told.is_some() { LooseningState::Waiting } else { LooseningState::Announcing },
        requested_by: ENGINE.to_owned(),
        requested_at: now,
        changes: vec![change],
        edit: HeldEdit::default(),
        owners: Vec::new(),
        security,
        announced_at: told,
        effective_at: told.map(|at| at + after),
        ended_at: None,
        ended_by: None,
        version: 1,
    };
    let facts = facts(Kind::LooseningAnnounced, &it, None, ENGINE, now);
    record.outbox.extend(rows(engine, &identity(&it), facts, &it.security, now));
    record.audit.push(audit_row(ENGINE, "loosening.requested", &it));
    record.governed.new.push(it);
    Ok(())
}

/// Daemons that share a database have addresses of their own: `server.` settings are recorded for each host.
fn by_host(engine: &Engine, found: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let host = host(engine);
    let named = |name: String| if name.starts_with("server.") { format!("{name}@{host}") } else { name };
    found.into_iter().map(|(name, value)| (named(name), value)).collect()
}

fn host(engine: &Engine) -> &str {
    engine.settings.daemon.rsplit_once(':').map_or(&engine.settings.daemon, |(host, _)| host)
}

fn changes(recorded: &BTreeMap<String, String>, found: &BTreeMap<String, String>) -> Vec<Change> {
    let mut names: Vec<&String> = recorded.keys().chain(found.keys()).collect();
    names.sort();
    names.dedup();
    let differs = names.into_iter().filter(|name| recorded.get(*name) != found.get(*name));
    differs
        .map(|name| Change {
            field: name.clone(),
            course: Course::Looser,
            from: json!(recorded.get(name)),
            to: json!(found.get(name)),
        })
        .collect()
}

/// The addresses of before and of now.
fn hearers(recorded: &BTreeMap<String, String>, found: &BTreeMap<String, String>) -> Vec<String> {
    let of = |settings: &BTreeMap<String, String>| -> Vec<String> {
        let lists = HEARERS.iter().filter_map(|name| settings.get(*name));
        lists.flat_map(|text| serde_json::from_str::<Vec<String>>(text).unwrap_or_default()).collect()
    };
    together(&of(recorded), &of(found))
}
