//! One claimed rotation, from its first observation until it rests.
//!
//! The loop is: carry out the effect, let the machine decide, commit, and only then carry out the
//! next effect. Every commit is a compare-and-swap on version and lease, so a worker that lost its
//! claim writes nothing. A PATCH leaves only after its attempt is committed, within `pace.fresh` after the
//! observation that allowed it, and within the rest of the lease. An observation may take longer than a
//! lease when Atlas is slow; the claim is renewed meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::announce;
use super::command::votes::{Recount, recount, terms};
use super::preflight::{self, Gathered, Subject};
use super::{ENGINE, Engine, conditions, sweep};
use crate::atlas::AtlasApi;
use crate::domain::preflight::{Check, Verdict};
use crate::domain::project::SinceSource;
use crate::domain::rotation::journal::JournalKind;
use crate::domain::rotation::machine::{self, Announcement, Effect, Resume, Sight, Step, next};
use crate::domain::rotation::outcome::{
    Class, Command, EndpointSet, Extras, Failure, Look, Outcome, PatchReply,
};
use crate::domain::rotation::state::{Cause, Rotation, State, Target};
use crate::domain::time::Timestamp;
use crate::store::{
    KeyChange, NewAudit, NewJournal, NewOutbox, ProjectWrite, RotationRow, StepWrite, StoreError, Vote,
};

/// How long after a look that would have led to a PATCH a frozen rotation is looked at again.
const FROZEN_AGAIN: Duration = Duration::from_secs(30);

/// How [`run`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The rotation rests or is another's, and the claim is given back.
    AtRest,
    /// The daemon stops. The claim is still held.
    Stopped,
}

/// Runs `row` until it rests, is final, or its claim is lost. `slot` is taken and dropped before the last commit,
/// which makes no call to Atlas: another rotation may begin meanwhile. After a stop no observation goes on, and no new key
/// is sent. A PATCH that has left is waited for, and the old key is still sent: the roll-back must not wait for a start.
///
/// # Errors
/// Fails when the database cannot be read or written. Every PATCH that was sent was committed before.
pub async fn run<S: Send>(
    engine: &Engine,
    mut row: RotationRow,
    slot: &mut Option<S>,
    stopping: &CancellationToken,
) -> Result<Ended, StoreError> {
    // What cannot be counted keeps nobody from reading the key, which waits for this step. Before a PATCH the votes are
    // counted anew.
    let recounted = Box::pin(recount(engine, &row)).await.unwrap_or_else(|error| {
        tracing::error!(rotation.id = %row.rotation.id, error = %error, "votes not counted");
        None
    });
    if let Some(Recount { command, why, outbox }) = recounted {
        let now = engine.clock.now();
        let outcome = Outcome::Said(command);
        let step = next(&row.rotation, &outcome, now);
        let said = Said { by: ENGINE, comment: Some(&why), vote: None, audit: Vec::new(), outbox };
        // The next claim goes on with the votes that are left.
        match Box::pin(commit(engine, &row, step, &outcome, said)).await {
            Err(StoreError::Tampered { subject, why }) => {
                return Box::pin(tampered(engine, &row, subject, why)).await.map(|()| Ended::AtRest);
            }
            done => done?,
        };
        engine.rotations_due.notify_one();
        return Ok(Ended::AtRest);
    }
    let mut outcome = match machine::resume(&row.rotation, engine.clock.now()) {
        Resume::Look(extras) => match look(engine, &row, extras, stopping).await? {
            Some(outcome) => outcome,
            None => return Ok(Ended::Stopped),
        },
        Resume::Blind(failure) => Outcome::Blind(failure),
    };
    loop {
        let now = engine.clock.now();
        let step = next(&row.rotation, &outcome, now);
        let effect = step.effect;
        if effect == Effect::Rest {
            drop(slot.take());
        }
        let watched = row.rotation.state.is_final();
        if effect == Effect::Patch(Target::New) {
            if stopping.is_cancelled() {
                return Ok(Ended::Stopped);
            }
            if engine.store.seals().fault().is_some() {
                // A freeze. The claim is given back: the sweep has a key read by the step of its open rotation, and who holds
                // it keeps the sweep from reading.
                return engine.store.put_off(&row, now + FROZEN_AGAIN).await.map(|()| Ended::AtRest);
            }
            match engine.store.check_stored_project(&row.rotation.group_id).await {
                Err(StoreError::Tampered { subject, why }) => {
                    return Box::pin(tampered(engine, &row, subject, why)).await.map(|()| Ended::AtRest);
                }
                checked => checked?,
            }
        }
        row = match commit(engine, &row, step, &outcome, Said::by(ENGINE)).await {
            Err(StoreError::Tampered { subject, why }) => {
                return Box::pin(tampered(engine, &row, subject, why)).await.map(|()| Ended::AtRest);
            }
            Err(StoreError::Unapproved { voters }) => {
                return Box::pin(void_votes(engine, &row, voters)).await.map(|()| Ended::AtRest);
            }
            done => done?,
        };
        if let (true, Outcome::Looked(look)) = (watched, &outcome) {
            sweep::hand_over(engine, &row.rotation.group_id, &look.seen).await?;
        }
        outcome = match effect {
            Effect::Rest => return Ok(Ended::AtRest),
            Effect::Look(extras) => match look(engine, &row, extras, stopping).await? {
                Some(outcome) => outcome,
                None => return Ok(Ended::Stopped),
            },
            Effect::Patch(target) => Outcome::Replied(patch(engine, &row, target).await),
        };
    }
}

/// Stops a rotation that is not, or whose votes are not, what Keywheel wrote.
async fn tampered(
    engine: &Engine,
    row: &RotationRow,
    subject: String,
    why: String,
) -> Result<(), StoreError> {
    tracing::error!(
        rotation.id = %row.rotation.id,
        project.id = %row.rotation.group_id,
        subject,
        why,
        "changed outside of Keywheel; no new key is sent for this rotation"
    );
    let outcome = Outcome::Tampered { subject, why };
    let step = next(&row.rotation, &outcome, engine.clock.now());
    if step.illegal {
        return Ok(());
    }
    commit(engine, row, step, &outcome, Said::by(ENGINE)).await.map(drop)
}

/// Withdraws the votes of those who may not approve any more, so that others are asked.
async fn void_votes(engine: &Engine, row: &RotationRow, voters: Vec<String>) -> Result<(), StoreError> {
    let mut row = row.clone();
    for voter in voters {
        let left = engine.store.approvals(row.rotation.id).await?;
        let left = left.iter().filter(|vote| vote.by != voter).count();
        let outcome = Outcome::Said(Command::Withdraw { given: u32::try_from(left).unwrap_or(u32::MAX) });
        let step = next(&row.rotation, &outcome, engine.clock.now());
        if step.illegal {
            break;
        }
        let comment = format!("{voter} was removed or may not approve any more, so this vote is void");
        let said = Said {
            by: ENGINE,
            comment: Some(&comment),
            vote: Some(Vote::Withdrawn(voter)),
            audit: Vec::new(),
            outbox: Vec::new(),
        };
        row = commit(engine, &row, step, &outcome, said).await?;
    }
    engine.rotations_due.notify_one();
    Ok(())
}

/// Observes the project, and renews the claim at each third of its life until the observation is over; `None` when a
/// stop came first.
async fn look(
    engine: &Engine,
    row: &RotationRow,
    extras: Extras,
    stopping: &CancellationToken,
) -> Result<Option<Outcome>, StoreError> {
    let lease = engine.settings.lease();
    let mut looking = std::pin::pin!(observe(engine, row, extras));
    loop {
        #[expect(clippy::disallowed_methods, reason = "the look has a deadline of its own")]
        let third = tokio::time::sleep(lease / 3);
        tokio::select! {
            outcome = &mut looking => {
                let outcome = outcome?;
                match &outcome {
                    // The sweep takes these over.
                    Outcome::Looked(_) if row.rotation.state.is_final() => {}
                    Outcome::Looked(look) => {
                        conditions::note_look(engine, &row.rotation.group_id, Ok(&look.seen)).await;
                    }
                    Outcome::Blind(failure) => {
                        conditions::note_look(engine, &row.rotation.group_id, Err(failure)).await;
                    }
                    Outcome::Replied(_) | Outcome::Said(_) | Outcome::Tampered { .. } => {}
                }
                return Ok(Some(outcome));
            }
            () = stopping.cancelled() => return Ok(None),
            () = third => engine.store.renew(row, engine.clock.now(), lease).await?,
        }
    }
}

/// One observation: first the extras, side by side, then the configuration, alone and last. So it is the
/// freshest part, and the PATCH that it allows leaves at once.
async fn observe(engine: &Engine, row: &RotationRow, extras: Extras) -> Result<Outcome, StoreError> {
    let (credential, group) = (&row.credential, &row.rotation.group_id);
    let timeout = engine.settings.request_timeout.get();
    let provider = row.rotation.provider;
    // A rate limit or another failure of these endpoints proves nothing about the key: only that part is
    // recorded as unanswered.
    let (gathered, denied, clusters) = tokio::join!(
        gather(engine, row, extras),
        asked(extras.alerts, engine.atlas.network_denied(credential, group, timeout)),
        asked(extras.clusters, engine.atlas.cmk_clusters(credential, group, provider, timeout)),
    );
    let gathered = gathered?;
    let seen = match engine.atlas.observe(credential, group, timeout).await {
        Ok(seen) => engine.epoch.with_skew(seen),
        Err(failure) => return Ok(Outcome::Blind(failure)),
    };
    let keys = (&row.rotation.old_key, &row.rotation.new_key);
    let checks = gathered.zip(clusters.as_ref()).map(|(gathered, clusters)| {
        let clusters = clusters.as_ref().map(Vec::as_slice);
        preflight::judge(&gathered, keys, &seen, clusters, engine.clock.now())
    });
    let mut unanswered = BTreeMap::new();
    let mut answered = |set, failure| _ = unanswered.insert(set, failure);
    let network_denied = denied.and_then(|it| it.map_err(|why| answered(EndpointSet::Alerts, why)).ok());
    let clusters = clusters.and_then(|it| it.map_err(|why| answered(EndpointSet::Clusters, why)).ok());
    Ok(Outcome::Looked(Look { seen, network_denied, clusters, checks, unanswered }))
}

/// The result of `call`, where it is `wanted`.
async fn asked<T>(
    wanted: bool,
    call: impl Future<Output = Result<T, Failure>>,
) -> Option<Result<T, Failure>> {
    if wanted { Some(call.await) } else { None }
}

/// The results that the pre-flight checklist needs beside the observation, when `extras` include it.
async fn gather(engine: &Engine, row: &RotationRow, extras: Extras) -> Result<Option<Gathered>, StoreError> {
    if !extras.preflight {
        return Ok(None);
    }
    let Rotation { group_id, new_key, block, .. } = &row.rotation;
    let subject = Subject {
        group_id,
        credential: &row.credential,
        new_key,
        place: &block.place,
        environment: row.environment.as_deref(),
        kms: row.kms.as_deref(),
        interval: row.rotation.rules.policy.interval,
    };
    preflight::gather(engine, subject).await.map(Some)
}

async fn patch(engine: &Engine, row: &RotationRow, target: Target) -> PatchReply {
    let rotation = &row.rotation;
    // No PATCH without its mark in the epoch file: otherwise a restored copy of the database would not be
    // noticed. The PATCH of the old key may leave without the mark, because a full disk must not block a
    // rollback; only a database in doubt does.
    if let Err(why) = engine.epoch.hold(&engine.store, engine.clock.now()).await
        && (target == Target::New || engine.epoch.in_doubt())
    {
        return not_sent(&why.to_string());
    }
    let now = engine.clock.now();
    let looked_at = rotation.observing.last.as_ref().map_or(rotation.created_at, |seen| seen.at);
    if now.since(looked_at) > rotation.rules.pace.fresh.get() {
        return not_sent("the observation before this PATCH was too old when its intent was committed");
    }
    let committed = rotation.patching.latest.as_ref().map_or(now, |patch| patch.sent_at);
    let (lease, reserve) = (engine.settings.lease(), engine.settings.lease_reserve());
    let left = lease.saturating_sub(now.since(committed)).saturating_sub(reserve);
    let timeout = left.min(engine.settings.request_timeout.get());
    if timeout < Duration::from_millis(50) {
        return not_sent("too little of the claim was left to send this PATCH");
    }
    engine.atlas.set_key(&row.credential, &rotation.group_id, rotation.key(target), timeout).await
}

fn not_sent(why: &str) -> PatchReply {
    PatchReply::NotTaken(Failure {
        class: Class::Transient,
        status: None,
        code: None,
        detail: why.to_owned(),
        retry_after: None,
    })
}

/// The actor of a step, with comment and vote.
pub(super) struct Said<'a> {
    pub(super) by: &'a str,
    pub(super) comment: Option<&'a str>,
    pub(super) vote: Option<Vote>,
    /// Audit rows beside those of the step.
    pub(super) audit: Vec<NewAudit>,
    /// Messages beside those that the step announces.
    pub(super) outbox: Vec<NewOutbox>,
}

impl<'a> Said<'a> {
    fn by(by: &'a str) -> Self {
        Self { by, comment: None, vote: None, audit: Vec::new(), outbox: Vec::new() }
    }
}

/// Writes one step: rotation, journal, audit, outbox and project in one transaction.
pub(super) async fn commit(
    engine: &Engine,
    before: &RotationRow,
    step: Step,
    outcome: &Outcome,
    said: Said<'_>,
) -> Result<RotationRow, StoreError> {
    let now = engine.clock.now();
    let Step { rotation: mut after, effect, notices, .. } = step;
    watch(engine, &mut after, now);
    let entry = journal(&before.rotation, &after, outcome, &said, effect);
    let mut audit = audit(&before.rotation, &after, outcome, &said, effect);
    audit.extend(said.audit);
    let project = project(&before.rotation, &after);
    let owners = if notices.is_empty() { Vec::new() } else { engine.store.owners(&after.group_id).await? };
    let mut outbox = announce::rows(engine, before, &after, &notices, &owners, now);
    let tells = !notices.is_empty() || !said.outbox.is_empty();
    outbox.extend(said.outbox);
    let keep_lease = before.lease.filter(|_| effect != Effect::Rest).map(|_| now + engine.settings.lease());
    let terms = (effect == Effect::Patch(Target::New)).then(|| terms(engine, before));
    let write = StepWrite {
        before,
        after: &after,
        keep_lease,
        journal: Some(entry),
        audit,
        outbox,
        project,
        vote: said.vote,
        sends: match effect {
            Effect::Patch(target) => Some(target),
            Effect::Rest | Effect::Look(_) => None,
        },
        terms,
        now,
    };
    let version = engine.store.commit(write).await?;
    if tells {
        engine.mail_due.notify_one();
    }
    if before.rotation.state != after.state && matches!(after.state, State::Completed | State::Accepted) {
        // The sweep searches the witness event of this rotation.
        engine.look_due.notify_one();
    }
    if changes_conditions(&before.rotation, &after) {
        engine.conditions_due.notify_one();
    }
    report(&before.rotation, &after, &notices);
    // Sending fails when no stream listens, which is no error.
    let _ = engine.journal.send(after.id);
    Ok(RotationRow { rotation: after, version, lease: before.lease, ..before.clone() })
}

/// How often and for how long an ended rotation is observed follows the settings in force, not the rules that the
/// rotation is bound to.
fn watch(engine: &Engine, it: &mut Rotation, now: Timestamp) {
    let (Some(ended), Some(_)) = (it.ending.finished_at, it.ending.watch_until) else { return };
    let until = ended + engine.settings.watch_for.get();
    it.ending.watch_until = Some(until);
    it.wake_at = Some(now + engine.settings.watch_every.get()).filter(|_| now < until);
}

/// Whether a step may begin or end a condition. One that is missed here is found a few seconds later.
fn changes_conditions(before: &Rotation, after: &Rotation) -> bool {
    let waits = |it: &Rotation| (it.state == State::NeedsOperator, it.cause);
    before.hold != after.hold || waits(before) != waits(after)
}

fn report(before: &Rotation, after: &Rotation, notices: &[Announcement]) {
    if before.state != after.state {
        tracing::info!(
            rotation.id = %after.id,
            project.id = %after.group_id,
            from = before.state.as_str(),
            to = after.state.as_str(),
            cause = after.cause.map(Cause::as_str),
            "rotation moved"
        );
    }
    if notices.iter().any(|notice| matches!(notice, Announcement::Page | Announcement::LateApply)) {
        tracing::warn!(rotation.id = %after.id, project.id = %after.group_id, "a rotation needs an operator");
    }
}

pub(super) fn journal(
    before: &Rotation,
    after: &Rotation,
    outcome: &Outcome,
    said: &Said<'_>,
    effect: Effect,
) -> NewJournal {
    let moved = before.state != after.state;
    let sends = matches!(effect, Effect::Patch(_));
    let (kind, mut detail) = describe(outcome);
    if let Some(comment) = said.comment {
        detail["comment"] = json!(comment);
    }
    if let Some(cause) = after.cause {
        detail["cause"] = json!(cause);
    }
    if let Some(hold) = after.hold {
        detail["hold"] = json!(hold);
    }
    if let (Effect::Patch(target), Some(patch)) = (effect, &after.patching.latest) {
        detail["patch"] =
            json!({ "attempt": patch.number, "target": target, "key": after.key(target).to_string() });
    }
    if let Some(deployed) = after.rollout.deployed.filter(|_| moved) {
        detail["deployed"] = json!(deployed);
    }
    if let Some(checks) = outcome.checks().filter(|_| sends) {
        detail["checks"] = json!(checks);
    }
    let kind = if sends { JournalKind::Patch } else { kind };
    NewJournal {
        actor: said.by.to_owned(),
        kind,
        from_state: Some(before.state),
        to_state: after.state,
        detail,
        // A transition carries the input of its decision, so that it can be replayed.
        replay: (moved || sends).then(|| replay(before, outcome)),
        merge: !moved && !sends && matches!(outcome, Outcome::Looked(_) | Outcome::Blind(_)),
    }
}

/// The input of a step's decision. The rules do not change before the rotation ends, so they are left out.
fn replay(before: &Rotation, outcome: &Outcome) -> serde_json::Value {
    let mut replay = json!({ "before": before, "outcome": outcome });
    if let Some(before) = replay["before"].as_object_mut() {
        before.remove("rules");
        // No decision reads the checks of an earlier observation.
        before.remove("checks");
        before.retain(|_, value| !value.is_null());
    }
    replay
}

fn describe(outcome: &Outcome) -> (JournalKind, serde_json::Value) {
    match outcome {
        Outcome::Looked(look) => {
            let seen = &look.seen;
            let mut detail =
                json!({ "key": seen.key.as_ref().map(ToString::to_string), "valid": seen.valid });
            if let Some(clusters) = &look.clusters {
                detail["clusters"] = clusters.iter().map(|it| (it.name.clone(), json!(it.state))).collect();
            }
            if let Some(denied) = look.network_denied {
                detail["networkDenied"] = json!(denied);
            }
            if let Some(checks) = &look.checks {
                detail["preflight"] = objections(checks);
            }
            if !look.unanswered.is_empty() {
                let parts = look.unanswered.iter();
                detail["unanswered"] =
                    parts.map(|(set, why)| (set.as_str().to_owned(), json!(why.to_string()))).collect();
            }
            (JournalKind::Look, detail)
        }
        Outcome::Blind(failure) => (JournalKind::Blind, failed(failure)),
        Outcome::Replied(reply) => {
            let (word, failure) = match reply {
                PatchReply::Accepted => ("accepted", None),
                PatchReply::Unknown(failure) => ("unknown", Some(failure)),
                PatchReply::Refused(failure) => ("refused", Some(failure)),
                PatchReply::NotTaken(failure) => ("not_taken", Some(failure)),
                PatchReply::Auth(failure) => ("auth", Some(failure)),
                PatchReply::Gone(failure) => ("gone", Some(failure)),
            };
            let mut detail = failure.map_or_else(|| json!({}), failed);
            detail["reply"] = json!(word);
            (JournalKind::Reply, detail)
        }
        Outcome::Said(command) => (JournalKind::Command, json!({ "command": command })),
        Outcome::Tampered { subject, why } => {
            (JournalKind::Tampered, json!({ "subject": subject, "why": why }))
        }
    }
}

/// The checks that failed or warn.
fn objections(checks: &[Check]) -> serde_json::Value {
    let bad = checks.iter().filter(|check| matches!(check.result, Verdict::Fail | Verdict::Warn));
    bad.map(|check| (check.name.as_str().to_owned(), json!(check.detail))).collect()
}

fn failed(failure: &Failure) -> serde_json::Value {
    json!({
        "class": failure.class,
        "status": failure.status,
        "atlasErrorCode": failure.code,
        "atlasDetail": failure.detail,
    })
}

pub(super) fn audit(
    before: &Rotation,
    after: &Rotation,
    outcome: &Outcome,
    said: &Said<'_>,
    effect: Effect,
) -> Vec<NewAudit> {
    let mut rows = Vec::new();
    let mut row = |action: &str, detail: serde_json::Value| {
        rows.push(NewAudit {
            actor: said.by.to_owned(),
            action: action.to_owned(),
            subject: format!("rotation/{}", after.id),
            detail: detail.to_string(),
        });
    };
    if let Outcome::Replied(_) = outcome {
        row("rotation.patch_reply", describe(outcome).1);
    }
    if before.state != after.state || matches!(outcome, Outcome::Said(_)) {
        let mut detail = json!({ "groupId": after.group_id, "from": before.state, "to": after.state });
        detail["why"] = describe(outcome).1;
        if let Some(comment) = said.comment {
            detail["comment"] = json!(comment);
        }
        row("rotation.moved", detail);
    }
    if let (Effect::Patch(target), Some(patch)) = (effect, &after.patching.latest) {
        row(
            "rotation.patch_intent",
            json!({ "groupId": after.group_id, "attempt": patch.number, "target": target, "key": after.key(target).to_string() }),
        );
    }
    rows
}

/// The change of the project by a transition, in the same transaction.
fn project(before: &Rotation, after: &Rotation) -> Option<ProjectWrite> {
    let late = after.ending.late_apply && !before.ending.late_apply;
    if before.state == after.state && !late {
        return None;
    }
    let seen = after.observing.last.as_ref();
    // Verified or not, a key that our PATCH has set is no drift.
    let ours = match (after.state, seen.map(|seen| machine::sight(after, seen))) {
        (State::Completed | State::Accepted, _) => Some(Target::New),
        (State::Closed, Some(Sight::New)) if after.patching.attempts > 0 => Some(Target::New),
        (_, Some(Sight::New)) if late => Some(Target::New),
        (_, Some(Sight::Old)) if late => Some(Target::Old),
        _ => None,
    };
    let changed = ours.map(|target| KeyChange {
        key: after.key(target).clone(),
        since: after.patching.patched_at.or(after.ending.finished_at).unwrap_or(after.created_at),
        source: SinceSource::Rotation,
    });
    Some(ProjectWrite {
        group_id: after.group_id.clone(),
        valid: seen.and_then(|seen| seen.valid),
        checked_at: seen.map(|seen| seen.at),
        key_change: changed,
    })
}
