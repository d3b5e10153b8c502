//! From a hint to a proposal: handles the events in the inbox, and proposes newer keys.
//!
//! An event only names the project to observe; `candidate` finds the newer key. Waiting events about one
//! project are handled by one observation.
//!
//! An alarm (a key in use was disabled, will be deleted, has expired) is announced before any project is
//! observed, because minutes count then. It changes nothing else.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::announce::{News, content};
use super::candidate::{Ask, Deferred, Finding, Settled, consider};
use super::{ENGINE, Engine, conditions, endings};
use crate::domain::condition::{ConditionKind, Ending, Reporter, condition_id};
use crate::domain::hint::{Concern, Hint, Meaning, Subject, Watch};
use crate::domain::ids::{EventId, GroupId};
use crate::domain::notice::{KeyAlarm, KeyText, Notice};
use crate::domain::project::Project;
use crate::domain::time::Timestamp;
use crate::lifecycle::wait;
use crate::store::{ClaimedEvent, NewAudit, NewOutbox, StoreError};

/// Events that are handled together.
const BATCH: usize = 2048;
/// Events claimed in one transaction: the next event from a hook waits for its end.
const SHARE: usize = 256;
/// Projects that are observed at the same time.
const AT_ONCE: usize = 8;
/// How long a claim on an event lasts.
const CLAIM: Duration = Duration::from_mins(10);
/// The longest sleep before the database is read again.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// The wait after the database failed.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// After this many attempts an event is given up; by then it is four hours old.
const TRIES: i64 = 12;
/// The wait while another rotation of the project is open.
const LATER: Duration = Duration::from_mins(30);
/// The most keys, named by waiting events, that are tried for one project.
const MOST_KEYS: usize = 8;
/// How often a project is read when another writer changes it meanwhile.
const RACES: usize = 4;

/// The wait before the next attempt at an event.
fn backoff(attempts: i64) -> Duration {
    match attempts {
        ..=1 => Duration::from_secs(30),
        2 => Duration::from_mins(2),
        3 => Duration::from_mins(10),
        _ => Duration::from_mins(30),
    }
}

/// Events of one project and how they concern it.
type Concerned<'a> = [(Concern, &'a ClaimedEvent)];

/// Results for the keys that the events about one project name, or why the events must wait.
type Found = Result<Vec<Settled>, Deferred>;

/// Handles the events of the inbox until `stop`.
pub async fn run(engine: Engine, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let longest = once(&engine, &stop).await.unwrap_or_else(|error| {
            tracing::error!(error = %error, "events cannot be handled; they wait in the inbox");
            AFTER_FAILURE
        });
        wait(engine.events_due.notified(), longest, &stop).await;
    }
}

/// Handles the events that are due; returns the time until the next one is.
///
/// # Errors
/// Fails when the database cannot be read or written. The claims expire, and the events are due again.
pub async fn once(engine: &Engine, stop: &CancellationToken) -> Result<Duration, StoreError> {
    while !stop.is_cancelled() {
        let now = engine.clock.now();
        if engine.epoch.doubts(&engine.store, now).await? {
            return in_doubt(engine, now).await.map(|()| LONGEST_SLEEP);
        }
        if engine.store.next_event().await?.is_none_or(|at| at > now) {
            break;
        }
        let events = claim(engine, now).await?;
        if events.is_empty() {
            break;
        }
        handle(engine, events).await?;
    }
    let next = engine.store.next_event().await?;
    let wait = next.map_or(LONGEST_SLEEP, |at| engine.clock.now().until(at));
    Ok(wait.clamp(Duration::from_millis(50), LONGEST_SLEEP))
}

/// In doubt nothing is proposed, and no project is changed. An alarm is told all the same; its event is handled, and
/// not told again, when the doubt is over.
async fn in_doubt(engine: &Engine, now: Timestamp) -> Result<(), StoreError> {
    let events = claim(engine, now).await?;
    let alarms: Vec<_> =
        events.iter().filter(|event| matches!(event.hint.meaning, Meaning::Alarm { .. })).collect();
    let watches = if alarms.is_empty() { Vec::new() } else { watches(engine, &events).await? };
    for event in alarms {
        for watch in &watches {
            if let (Some(concern), Meaning::Alarm { once }) =
                (event.hint.concerns(watch), &event.hint.meaning)
                && let Some(project) = engine.store.project(&watch.group).await?
            {
                note_endings(engine, watch, concern, event).await?;
                let (_, rows) = alarm_rows(engine, &project, concern, event, once, now);
                engine.store.tell(Vec::new(), rows, Vec::new(), now).await?;
                engine.mail_due.notify_one();
            }
        }
    }
    let ids: Vec<_> = events.iter().map(|event| event.id).collect();
    engine.store.events_untried(&ids, "the database is in doubt", now + LONGEST_SLEEP).await
}

/// Claims due events, at most [`BATCH`].
async fn claim(engine: &Engine, now: Timestamp) -> Result<Vec<ClaimedEvent>, StoreError> {
    let mut events = Vec::new();
    while events.len() < BATCH {
        let share = engine.store.claim_events(now, now + CLAIM, SHARE).await?;
        let last = share.len() < SHARE;
        events.extend(share);
        if last {
            break;
        }
    }
    events.sort_by_key(|event| (event.received_at, event.id));
    Ok(events)
}

/// Groups events by the projects that they concern and observes each project once.
async fn handle(engine: &Engine, events: Vec<ClaimedEvent>) -> Result<(), StoreError> {
    let watches = watches(engine, &events).await?;
    let mut by_project: BTreeMap<GroupId, Vec<(Concern, &ClaimedEvent)>> = BTreeMap::new();
    let mut nobody = Vec::new();
    for event in &events {
        let mut known = false;
        for watch in &watches {
            if let Some(concern) = event.hint.concerns(watch) {
                by_project.entry(watch.group.clone()).or_default().push((concern, event));
                known = true;
            }
        }
        if !known {
            if let Some(tally) = engine.intake.tally(&event.source) {
                tally.unknown_subject();
            }
            nobody.push(event.id);
        }
    }
    // Before any observation, which may take as long as Atlas does.
    for (group, events) in &by_project {
        let watch = watches.iter().find(|watch| watch.group == *group);
        if let Err(error) = alarms(engine, group, watch, events).await {
            tracing::error!(project.id = %group, error = %error, "alarm not written; next attempt with the observation of the project");
        }
    }
    engine.store.events_handled(&nobody, "no tracked project is concerned", engine.clock.now()).await?;
    let mut looks: Vec<BoxFuture<'_, _>> = Vec::with_capacity(by_project.len());
    for (group, events) in &by_project {
        let watches = &watches;
        looks.push(Box::pin(async move {
            let watch = watches.iter().find(|watch| watch.group == *group);
            let found = look(engine, group, watch, events).await.unwrap_or_else(|error| {
                tracing::error!(project.id = %group, error = %error, "hint deferred: the database refused");
                Err(Deferred::Store)
            });
            (found, events.as_slice())
        }));
    }
    let looks: Vec<_> = futures_util::stream::iter(looks).buffer_unordered(AT_ONCE).collect().await;
    settle(engine, &looks).await
}

/// Records the results. An event may concern several projects; it is settled when all of them are.
async fn settle(engine: &Engine, looks: &[(Found, &Concerned<'_>)]) -> Result<(), StoreError> {
    let mut open: BTreeMap<EventId, (&ClaimedEvent, &Deferred)> = BTreeMap::new();
    let mut settled: BTreeMap<EventId, BTreeSet<String>> = BTreeMap::new();
    for (found, events) in looks {
        match found {
            Ok(found) => {
                let words: Vec<_> = found.iter().map(ToString::to_string).collect();
                for (_, event) in *events {
                    settled.entry(event.id).or_default().insert(words.join("; "));
                }
            }
            Err(why) => {
                open.extend(events.iter().map(|(_, event)| (event.id, (*event, why))));
            }
        }
    }
    let now = engine.clock.now();
    for (id, (event, why)) in &open {
        let next = match why {
            // A decision may take days; such an event is never given up.
            Deferred::RotationOpen(_) => now + LATER,
            _ if event.attempts >= TRIES => {
                tracing::error!(
                    hook = event.source, event = event.hint.kind, subject = %event.hint.subject,
                    "event given up: {why}; check the project's key by hand"
                );
                engine.store.events_handled(&[*id], &format!("given up: {why}"), now).await?;
                continue;
            }
            _ => now + backoff(event.attempts),
        };
        engine.store.events_put_off(&[*id], &why.to_string(), next).await?;
    }
    let mut alike: BTreeMap<String, Vec<EventId>> = BTreeMap::new();
    for (id, words) in settled.into_iter().filter(|(id, _)| !open.contains_key(id)) {
        alike.entry(words.into_iter().collect::<Vec<_>>().join("; ")).or_default().push(id);
    }
    for (words, ids) in alike {
        engine.store.events_handled(&ids, &words, now).await?;
    }
    Ok(())
}

/// All projects by the names that hints use. Keys that served before are read only when a hint is about
/// a single key.
async fn watches(engine: &Engine, events: &[ClaimedEvent]) -> Result<Vec<Watch>, StoreError> {
    let mut watches = engine.store.watches().await?;
    if events.iter().any(|event| matches!(event.hint.subject, Subject::Key { .. })) {
        let mut earlier = engine.store.earlier_keys().await?;
        for watch in &mut watches {
            watch.earlier = earlier.remove(&watch.group).unwrap_or_default();
        }
    }
    Ok(watches)
}

/// Announces the alarms among the events about one project, and keeps in mind which of its keys end.
async fn alarms(
    engine: &Engine,
    group: &GroupId,
    watch: Option<&Watch>,
    events: &Concerned<'_>,
) -> Result<(), StoreError> {
    for (concern, event) in events {
        match &event.hint.meaning {
            Meaning::Alarm { once } => {
                if let Some(watch) = watch {
                    note_endings(engine, watch, *concern, event).await?;
                }
                alarm(engine, group, *concern, event, once).await?;
            }
            Meaning::Usable => {
                for key in watch.map(|watch| watch.named_by(&event.hint.subject)).unwrap_or_default() {
                    conditions::forget_endings(engine, group, &key.to_string()).await?;
                }
            }
            Meaning::Look | Meaning::InPlace | Meaning::Requested => {}
        }
    }
    Ok(())
}

/// Keeps in mind which keys in play an alarm is about.
async fn note_endings(
    engine: &Engine,
    watch: &Watch,
    concern: Concern,
    event: &ClaimedEvent,
) -> Result<(), StoreError> {
    if concern == Concern::Earlier {
        return Ok(());
    }
    for key in watch.named_by(&event.hint.subject) {
        let ending = Ending {
            key: key.to_string(),
            event: event.hint.kind.clone(),
            from: event.source.clone(),
            at: event.received_at,
            ends_at: event.hint.ends_at,
            good: None,
            reporter: match &event.hint.subject {
                Subject::Key { .. } => Reporter::KeyService,
                _ => Reporter::Other,
            },
        };
        conditions::note_ending(engine, &watch.group, ending).await?;
        if watch.key.as_ref() == Some(key)
            && event.hint.ends_at.is_some()
            && let Some(project) = engine.store.project(&watch.group).await?
        {
            endings::note_end(engine, &project, key, event.hint.ends_at).await?;
        }
    }
    Ok(())
}

/// Handles the events about one project.
async fn look(
    engine: &Engine,
    group: &GroupId,
    watch: Option<&Watch>,
    events: &Concerned<'_>,
) -> Result<Found, StoreError> {
    // Again, in case a write failed before; an alarm that was written is not written twice.
    alarms(engine, group, watch, events).await?;
    let inside = |event: &&ClaimedEvent| matches!(event.hint.meaning, Meaning::InPlace);
    let (inside, asking): (Vec<_>, Vec<_>) = events.iter().map(|(_, event)| *event).partition(inside);
    let found = if asking.is_empty() {
        Ok(vec![Settled::InPlace])
    } else {
        consider_all(engine, group, &asking).await?
    };
    if found.is_ok() {
        for event in inside {
            rotated_in_place(engine, group, event).await?;
        }
    }
    Ok(found)
}

/// Tries the keys that the events name, the latest first, until one of them is proposed. Events without a
/// key are handled by one observation.
async fn consider_all(
    engine: &Engine,
    group: &GroupId,
    events: &[&ClaimedEvent],
) -> Result<Found, StoreError> {
    let mut keys = HashSet::new();
    let mut naming: Vec<&ClaimedEvent> = Vec::new();
    for event in events.iter().rev() {
        if event.hint.new_key.as_ref().is_some_and(|key| keys.insert(key)) && naming.len() < MOST_KEYS {
            naming.push(event);
        }
    }
    if naming.is_empty() {
        naming.extend(events.last());
    }
    let mut found = Vec::new();
    for event in naming {
        match consider(engine, group, &asked(event)).await? {
            Finding::Settled(settled) => {
                let proposed = settled.is_proposed();
                found.push(settled);
                if proposed {
                    break;
                }
            }
            Finding::Deferred(why) => return Ok(Err(why)),
        }
    }
    Ok(Ok(found))
}

fn asked(event: &ClaimedEvent) -> Ask {
    let hint = &event.hint;
    let by = hint.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    let said = hint.words.as_ref().map(|words| format!(": {words}")).unwrap_or_default();
    Ask {
        trigger: format!("hook:{}", event.source),
        named: hint.new_key.clone(),
        by_request: hint.meaning == Meaning::Requested,
        words: format!("{} about {}{by}{said}", hint.kind, hint.subject),
    }
}

/// Announces to the owners, once for each failure, that a key they depend on fails or will fail.
async fn alarm(
    engine: &Engine,
    group: &GroupId,
    concern: Concern,
    event: &ClaimedEvent,
    once: &str,
) -> Result<(), StoreError> {
    for _ in 0..RACES {
        let Some(project) = engine.store.project(group).await? else { return Ok(()) };
        let now = engine.clock.now();
        let (model, rows) = alarm_rows(engine, &project, concern, event, once, now);
        // The first row is a mail, to an owner or to `NO_OWNER`.
        if let Some(first) = rows.first()
            && engine.store.has_mail(&first.message_id).await?
        {
            return Ok(());
        }
        let audit = [record(group, "project.key_alarm", &event.source, &model)];
        let mut after = project.clone();
        after.next_check_at = now;
        match engine.store.update_project(&after, project.version, &audit, &rows, now).await {
            Ok(_) => {
                tracing::warn!(project.id = %group, hook = event.source, event = event.hint.kind, "a key in use is reported to be failing");
                engine.mail_due.notify_one();
                return Ok(());
            }
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::Conflict)
}

/// The model of an alarm, and its messages.
fn alarm_rows(
    engine: &Engine,
    project: &Project,
    concern: Concern,
    event: &ClaimedEvent,
    once: &str,
    now: Timestamp,
) -> (serde_json::Value, Vec<NewOutbox>) {
    let content = content(&engine.settings, Notice::KeyAlarm(alarm_facts(project, concern, event)));
    let (model, group) = (content.model(), &project.group_id);
    let news = News { identity: format!("{group}/key_alarm/{once}"), subject: group.into(), content };
    (model, news.rows(engine, &project.owners, now))
}

fn alarm_facts(project: &Project, concern: Concern, event: &ClaimedEvent) -> KeyAlarm {
    let Hint { kind, subject, by, words, .. } = event.hint.clone();
    KeyAlarm {
        group_id: project.group_id.clone(),
        project_name: project.name.clone(),
        provider: project.provider,
        current_key: project.current_key.as_ref().map(KeyText::from),
        event: kind,
        subject: subject.to_string(),
        by,
        words,
        hook: event.source.clone(),
        earlier: concern == Concern::Earlier,
        looked_up: false,
        proposed: concern == Concern::Proposed,
        condition_id: (concern != Concern::Earlier)
            .then(|| condition_id(&(&project.group_id).into(), ConditionKind::KeyEnding)),
    }
}

async fn rotated_in_place(engine: &Engine, group: &GroupId, event: &ClaimedEvent) -> Result<(), StoreError> {
    let detail = json!({
        "event": event.hint.kind, "subject": event.hint.subject.to_string(), "by": event.hint.by,
        "note": "AWS replaced the material inside the same key; there is nothing to do in Atlas",
    });
    let audit = [record(group, "project.key_rotated_in_place", &event.source, &detail)];
    engine.store.append(&audit, engine.clock.now()).await
}

fn record(group: &GroupId, action: &str, hook: &str, detail: &serde_json::Value) -> NewAudit {
    let actor = if hook.is_empty() { ENGINE.to_owned() } else { format!("hook:{hook}") };
    NewAudit {
        actor,
        action: action.to_owned(),
        subject: format!("project/{group}"),
        detail: detail.to_string(),
    }
}
