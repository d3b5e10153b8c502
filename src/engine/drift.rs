//! Findings about a key that another actor has set: the actor, and whether an earlier key is back.
//!
//! The actor comes from Atlas' event feed, as far as an event is evidence (see [`crate::domain::event`]).
//! Whether the change is a revert comes from our own ledger of keys. Nothing here changes anything in
//! Atlas. A feed that cannot be read does not stop the drift from being recorded and announced: the
//! finding then states that the feed could not be read.

use std::time::Duration;

use super::announce::News;
use super::{Engine, announce};
use crate::atlas::AtlasApi;
use crate::domain::condition::{ConditionKind, condition_id};
use crate::domain::event::{KeyEvent, SLACK, atlas_time, began, clock};
use crate::domain::ids::GroupId;
use crate::domain::key::KeyRef;
use crate::domain::notice::{Content, DriftKind, Drifted, KeyText, Notice};
use crate::domain::project::{Project, SinceSource};
use crate::domain::rotation::outcome::{Failure, Observation};
use crate::domain::rotation::state::{Rotation, State};
use crate::domain::terraform::key_lines;
use crate::domain::time::Timestamp;
use crate::store::{Drift, KeySpan, NewOutbox, RotationRow, StoreError};

/// How far back the feed is read for a project without an earlier observation.
const FAR_BACK: Duration = Duration::from_secs(3 * 366 * 86_400);

/// Timeout for optional lookups.
const PATIENCE: Duration = Duration::from_secs(10);

/// Recent rotations that are searched for the one that was undone.
const RECENT: usize = 20;

/// The event that began the service of the key in `seen`. `after` is the last observation of another
/// key. `patches` are the spans of our own PATCHes by Atlas' clock; their events are left out.
async fn beginning(
    engine: &Engine,
    credential: &str,
    group: &GroupId,
    seen: &Observation,
    after: Option<Timestamp>,
    patches: &[(Timestamp, Timestamp)],
) -> Result<Option<KeyEvent>, Failure> {
    let Some(provider) = seen.provider else { return Ok(None) };
    let ours = |at| atlas_time(at, seen.skew_ms);
    let since = after.map_or(seen.at - FAR_BACK, |after| ours(after) - SLACK);
    let timeout = engine.settings.request_timeout.get().min(PATIENCE);
    let events = engine.atlas.key_events(credential, group, since, timeout).await?;
    let own = engine.atlas.identity(credential);
    let is_patch = |event: &KeyEvent| {
        own.as_deref().is_some_and(|own| event.by.is(own))
            && patches.iter().any(|(from, to)| *from <= event.at + SLACK && event.at <= *to + SLACK)
    };
    Ok(began(&events, provider, after.map(ours), ours(seen.at), is_patch).cloned())
}

/// Dates a project's new key by Atlas' event, where one event fits.
pub(super) async fn date(engine: &Engine, before: &Project, after: &mut Project, seen: &Observation) {
    if after.current_key.is_none() {
        return;
    }
    match beginning(engine, &after.credential, &after.group_id, seen, before.last_checked_at, &[]).await {
        Ok(Some(event)) => {
            after.key_since = Some(event.at.min(seen.at));
            after.key_since_source = Some(SinceSource::AtlasEvent);
        }
        Ok(None) => {}
        Err(failure) => tracing::info!(
            project.id = %after.group_id,
            "Atlas' event feed could not be read, so the age of the key is counted from now on: {}",
            failure.to_string()
        ),
    }
}

/// Explains the key that `after` has and `before` had not, and dates it: a key that is back keeps the
/// first day on which it served.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn explain(
    engine: &Engine,
    before: &Project,
    after: &mut Project,
    seen: &Observation,
) -> Result<Drift, StoreError> {
    let group = &before.group_id;
    let rotations = engine.store.rotations(None, Some(group), None, RECENT).await?;
    let after_look = last_seen(before, rotations.first());
    let patches: Vec<_> = rotations.iter().filter_map(|row| patching(&row.rotation)).collect();
    let feed = beginning(engine, &before.credential, group, seen, after_look, &patches).await;
    let event = feed.as_ref().ok().and_then(Option::as_ref);
    let since = match event {
        Some(event) => (event.at.min(seen.at), SinceSource::AtlasEvent),
        None => (seen.at, SinceSource::FirstSeen),
    };
    let earlier = match &seen.key {
        Some(key) => served_before(&engine.store.keys(group).await?, key, seen),
        None => None,
    };
    (after.key_since, after.key_since_source) = match (&seen.key, &earlier) {
        (None, _) => (None, None),
        (Some(_), Some(span)) => (Some(span.first), Some(span.source)),
        (Some(_), None) => (Some(since.0), Some(since.1)),
    };
    let undone = match (&earlier, &before.current_key) {
        (Some(_), Some(ours)) => {
            rotations.iter().find(|row| has_moved(row) && row.rotation.new_key.is_same(ours, &seen.place))
        }
        _ => None,
    };
    let mut sentences = vec![who(engine, &before.credential, &feed)];
    if let (Some(key), Some(span)) = (&seen.key, &earlier) {
        sentences.push(match span.until {
            Some(until) => {
                format!("It is a revert: {key} is the key that served until {}.", clock(until))
            }
            None => format!("It is a revert: {key} has served before."),
        });
    }
    if let Some(row) = undone {
        sentences.push(undid(row));
    }
    if seen.key.is_none() {
        sentences.push("Atlas no longer encrypts this project with a customer-managed key.".to_owned());
    }
    sentences.push("Keywheel does not change it back automatically.".to_owned());
    let text = |key: &Option<KeyRef>| key.as_ref().map(KeyText::from);
    let finding = Drifted {
        group_id: group.clone(),
        project_name: after.name.clone(),
        from: text(&before.current_key),
        to: text(&after.current_key),
        kind: match (&seen.key, &earlier) {
            (None, _) => DriftKind::Removed,
            (_, Some(_)) => DriftKind::Reverted,
            _ => DriftKind::Changed,
        },
        by: event.map(|event| event.by.to_string()),
        atlas_event_id: event.map(|event| event.id.clone()),
        atlas_event_at: event.map(|event| event.at),
        served_until: earlier.as_ref().and_then(|span| span.until),
        undone_rotation: undone.map(|row| row.rotation.id),
        undone_key: undone.map(|row| KeyText::from(&row.rotation.new_key)),
        sentences,
        terraform: undone.map(|row| key_lines(&row.rotation.new_key)),
        condition_id: Some(condition_id(&group.into(), ConditionKind::Drifted)),
    };
    Ok(Drift { finding, since })
}

fn has_moved(row: &RotationRow) -> bool {
    matches!(row.rotation.state, State::Completed | State::Accepted)
}

/// When the recorded key was seen last. A rotation that was overtaken by another actor observed the
/// project too: its last observation shows that actor's key, so the rotation's creation counts.
fn last_seen(project: &Project, newest: Option<&RotationRow>) -> Option<Timestamp> {
    let overtaken = newest.filter(|row| {
        !has_moved(row)
            && row.rotation.ending.finished_at.is_some_and(|at| project.last_checked_at <= Some(at))
    });
    overtaken.map_or(project.last_checked_at, |row| Some(row.rotation.created_at))
}

/// The span in which PATCHes of a rotation may have taken effect, by Atlas' clock.
fn patching(rotation: &Rotation) -> Option<(Timestamp, Timestamp)> {
    let first = rotation.patching.first_at?;
    let seen = rotation.observing.last.as_ref();
    let late = seen.filter(|_| rotation.ending.late_apply).map(|seen| seen.at);
    let last =
        rotation.patching.patched_at.filter(|_| !rotation.patching.sent_old).or(rotation.ending.finished_at);
    let last = late.max(last).unwrap_or(first);
    let skew = seen.and_then(|seen| seen.skew_ms);
    Some((atlas_time(first, skew), atlas_time(last, skew)))
}

/// A key's earlier time in service.
struct Earlier {
    first: Timestamp,
    source: SinceSource,
    until: Option<Timestamp>,
}

fn served_before(ledger: &[KeySpan], key: &KeyRef, seen: &Observation) -> Option<Earlier> {
    let is_same = |span: &&KeySpan| KeyRef::observed(key.provider(), &span.key).is_same(key, &seen.place);
    let first = ledger.iter().find(is_same)?;
    let until = ledger.iter().filter(is_same).filter_map(|span| span.until).max();
    Some(Earlier { first: first.since, source: first.source, until })
}

fn who(engine: &Engine, credential: &str, feed: &Result<Option<KeyEvent>, Failure>) -> String {
    match feed {
        Ok(Some(event)) => {
            let own = engine.atlas.identity(credential).is_some_and(|identity| event.by.is(&identity));
            let other = if own {
                " That is Keywheel's own credential: another installation or a script uses it too."
            } else {
                ""
            };
            format!(
                "Atlas reports that {} made the change, at {} (event {}).{other}",
                event.by,
                clock(event.at),
                event.id
            )
        }
        Ok(None) => "Atlas' event feed has no event that fits, so the actor is unknown.".to_owned(),
        Err(failure) => {
            format!("Atlas' event feed could not be read, so the actor is unknown: {failure}")
        }
    }
}

fn undid(row: &RotationRow) -> String {
    let rotation = &row.rotation;
    let ended =
        rotation.ending.finished_at.map_or_else(String::new, |at| format!(" ended at {} and", clock(at)));
    format!(
        "It undoes the rotation {}, which{ended} had moved the project to {}. A Terraform apply from a file that still \
         names the old key is the usual cause; the lines that make Terraform agree with the rotation are below.",
        rotation.id, rotation.new_key
    )
}

/// The finding with this server's address.
pub(super) fn content(engine: &Engine, finding: &Drifted) -> Content {
    announce::content(&engine.settings, Notice::Drifted(finding.clone()))
}

/// The rows that announce a drift.
pub(super) fn rows(engine: &Engine, project: &Project, finding: &Drifted, now: Timestamp) -> Vec<NewOutbox> {
    // The project's version, not the key: the same key may drift in twice. Of two daemons that observe
    // one drift, only one can write this version.
    let identity = format!("{}/drifted/{}", project.group_id, project.version);
    let news = News { identity, subject: (&project.group_id).into(), content: content(engine, finding) };
    news.rows(engine, &project.owners, now)
}
