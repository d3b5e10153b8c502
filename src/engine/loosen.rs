//! Has announced changes take effect: each after its delay, and only once everybody who must hear of it was reached.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::authority::{rows, together};
use super::command::loosening::{announcement, audit_row, facts};
use super::settling::loosen_after;
use super::{ENGINE, Engine, passkeys};
use crate::domain::ids::GroupId;
use crate::domain::loosening::LooseningState;
use crate::domain::notice::Kind;
use crate::domain::time::Timestamp;
use crate::lifecycle::pause;
use crate::store::{Governed, Loosening, NewSettings, StoreError};

/// The time between two rounds.
const EVERY: Duration = Duration::from_secs(5);

/// Looks after the changes until `stop`.
pub async fn run(engine: Engine, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = run_due(&engine).await {
            tracing::error!(error = %error, "changes of rules stay as they are; tried again in a few seconds");
        }
        pause(EVERY, &stop).await;
    }
}

/// One round over the changes that are to take effect, and the passkeys that are to count.
///
/// # Errors
/// Fails when the database cannot be read or written.
pub async fn run_due(engine: &Engine) -> Result<(), StoreError> {
    // In doubt, and before the audit log was read, it is not certain which changes were withdrawn.
    if engine.epoch.in_doubt() || !engine.store.seals().is_followed() {
        return Ok(());
    }
    passkeys::run_due(engine).await?;
    for it in engine.store.pending_loosenings().await? {
        let now = engine.clock.now();
        let done = match (it.state, it.effective_at) {
            (LooseningState::Announcing, _) => announced(engine, &it, now).await,
            (_, Some(at)) if at <= now => effective(engine, &it, now).await,
            _ => Ok(()),
        };
        match done {
            // Withdrawn, or done by another daemon.
            Ok(()) | Err(StoreError::Conflict) => {}
            // It never takes effect, and must not keep the others from it.
            Err(error @ StoreError::Tampered { .. }) => {
                tracing::error!(loosening.id = %it.id, error = %error, "a change of rules does not take effect");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Records that a change was announced, once one owner and every address of `mail.security` have the mail.
async fn announced(engine: &Engine, it: &Loosening, now: Timestamp) -> Result<(), StoreError> {
    let mut owner: Option<Timestamp> = None;
    for mail in &it.owners {
        let at = engine.store.announced_at(&announcement(it, mail)).await?;
        owner = [owner, at].into_iter().flatten().min();
    }
    if owner.is_none() && !it.owners.is_empty() {
        return Ok(());
    }
    let mut last = owner;
    for mail in &it.security {
        let Some(at) = engine.store.announced_at(&announcement(it, mail)).await? else { return Ok(()) };
        last = last.max(Some(at));
    }
    let at = last.unwrap_or(now);
    let effective_at = at + loosen_after(engine).await?.get();
    let after = Loosening { announced_at: Some(at), effective_at: Some(effective_at), ..it.clone() };
    let audit = [audit_row(ENGINE, "loosening.announced", &after)];
    engine.store.loosening_announced(it, at, effective_at, &audit, now).await
}

/// Has a change take effect.
async fn effective(engine: &Engine, it: &Loosening, now: Timestamp) -> Result<(), StoreError> {
    if ["token/", "person/"].iter().any(|kind| it.subject.starts_with(kind)) {
        return engine.separated(it).await;
    }
    let after = Loosening { effective_at: Some(now), ..it.clone() };
    let governed = Governed { effective: Some(it.clone()), by: ENGINE.to_owned(), ..Governed::default() };
    let group: Option<GroupId> = it.subject.parse().ok();
    let people = together(&it.owners, &it.security);
    let identity = format!("{}/effective", it.id);
    let Some(group) = group else {
        let set = it
            .changes
            .iter()
            .filter_map(|change| Some((change.field.clone(), Some(change.to.as_str()?.to_owned()))));
        let audit = [audit_row(&it.requested_by, "loosening.effective", &after)];
        let facts = facts(Kind::LooseningEffective, &after, None, &it.requested_by, now);
        let outbox = rows(engine, &identity, facts, &people, now);
        let new = NewSettings { values: set.collect(), anew: false };
        engine.store.record_settings(new, governed, (&audit, &outbox), now).await?;
        engine.mail_due.notify_one();
        return Ok(());
    };
    let Some(before) = engine.store.project(&group).await? else {
        let audit = [audit_row(ENGINE, "loosening.withdrawn", it)];
        engine.store.withdraw_loosening(it.id, ENGINE, &audit, &[], now).await?;
        return Ok(());
    };
    let mut project = before.clone();
    it.edit.clone().apply(&mut project);
    if let Some((field, rule)) =
        project.policy(&engine.settings.policy).faults(now).into_iter().find(|it| it.0 != "remind_before")
    {
        tracing::warn!(project.id = %group, "a loosened rule is withdrawn: {field} {rule}");
        let audit = [audit_row(ENGINE, "loosening.withdrawn", it)];
        engine.store.withdraw_loosening(it.id, ENGINE, &audit, &[], now).await?;
        return Ok(());
    }
    project.next_reminder_at = Some(now);
    let audit = [
        super::command::edited(&it.requested_by, &project, None),
        audit_row(&it.requested_by, "loosening.effective", &after),
    ];
    let facts = facts(Kind::LooseningEffective, &after, Some(&project), &it.requested_by, now);
    let outbox = rows(engine, &identity, facts, &together(&people, &before.owners), now);
    engine.store.update_governed_project(&project, before.version, governed, (&audit, &outbox), now).await?;
    engine.mail_due.notify_one();
    engine.look_due.notify_one();
    Ok(())
}
