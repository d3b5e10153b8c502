//! Reminds owners of keys whose cryptoperiod ends.
//!
//! For each project the latest threshold that has passed is mailed once to each owner. After days of
//! downtime the earlier thresholds are recorded as passed over. An owner of many keys that are due
//! together gets one list. Who is named for keys that stay overdue gets a copy, and is told why. A due date that a person
//! has acknowledged reminds nobody until then. A webhook target that subscribes to reminders is treated like an owner of every
//! project; only chat targets get lists. `domain::reminder` defines thresholds; the senders send.

use std::collections::BTreeMap;
use std::time::Duration;

use super::announce::{NO_OWNER, content, message_id, webhook_id};
use super::{Engine, Settings};
use crate::domain::condition::Daily;
use crate::domain::notice::{KeyText, Kind, Notice, Reminder as Facts, ReminderDigest};
use crate::domain::policy::Policy;
use crate::domain::project::Project;
use crate::domain::reminder::{self, Threshold};
use crate::domain::time::{Span, Timestamp};
use crate::store::{Channel, NewOutbox, Reminder, StoreError};

/// Projects in one transaction.
const CHUNK: usize = 1000;

/// More reminders than this at once become one list.
const SINGLY: usize = 3;

/// The reminders to come that one names.
const NEXT: usize = 3;

/// How often a round is restarted when another writer changes a project meanwhile.
const TRIES: usize = 3;

/// Writes the reminders that are due; returns the number of messages.
///
/// # Errors
/// Fails when the database cannot be read or written.
pub async fn once(engine: &Engine) -> Result<usize, StoreError> {
    // With a wrong clock a key would be called overdue too early. A restored database lacks the records of
    // reminders that were sent.
    if engine.epoch.clocks_differ() || engine.epoch.in_doubt() {
        return Ok(0);
    }
    let now = engine.clock.now();
    let (mut mails, mut tries) = (0, 0);
    loop {
        let due = engine.store.due_reminders(now, CHUNK).await?;
        let last = due.len() < CHUNK;
        match give(engine, due, now).await {
            Ok(count) => mails += count,
            Err(StoreError::Conflict) if tries < TRIES => {
                tries += 1;
                continue;
            }
            // The reminders stay due.
            Err(StoreError::Conflict) => break,
            Err(error) => return Err(error),
        }
        if last {
            break;
        }
    }
    if mails > 0 {
        engine.mail_due.notify_one();
    }
    Ok(mails)
}

/// One project's reminder for one recipient.
struct Item {
    project: usize,
    threshold: Threshold,
    cycle: String,
    facts: Facts,
}

/// A recipient of reminders.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Reader {
    channel: Channel,
    recipient: String,
    /// Whether many reminders at once become one list.
    lists: bool,
}

impl Reader {
    fn owner(recipient: String) -> Self {
        let lists = recipient != NO_OWNER;
        Self { channel: Channel::Mail, recipient, lists }
    }

    /// The recipient's name in the records of reminders. No mail address begins with `webhook:`.
    fn recorded(&self) -> String {
        match self.channel {
            Channel::Mail => self.recipient.clone(),
            Channel::Webhook => format!("webhook:{}", self.recipient),
        }
    }

    fn id(&self, identity: &str) -> String {
        match self.channel {
            Channel::Mail => message_id(&format!("{identity}/{}", self.recipient)),
            Channel::Webhook => webhook_id(identity, &self.recipient),
        }
    }
}

/// The targets that subscribe to reminders.
fn targets(engine: &Engine) -> Vec<Reader> {
    let all = engine.webhooks.all();
    let wanting = all.iter().filter(|target| target.wants(Kind::Reminder));
    wanting
        .map(|target| Reader {
            channel: Channel::Webhook,
            recipient: target.name().to_owned(),
            lists: target.format().is_chat(),
        })
        .collect()
}

/// A reader, with the thresholds that have passed for it.
struct Owed {
    reader: Reader,
    passed: Vec<Threshold>,
    /// Why it gets a copy of an owner's reminder.
    copied_because: Option<String>,
}

/// When a reminder is due as a mail: one that is not urgent waits for the hour of the day.
fn leaves(digest: Option<&Daily>, threshold: Threshold, due: Timestamp) -> Timestamp {
    let at = threshold.at(due);
    match digest {
        Some(daily) if !threshold.is_urgent() => daily.next(at - Duration::from_micros(1)),
        _ => at,
    }
}

/// Who is to be reminded of a key due at `due`: the owners, those named for a key that stays overdue, and `targets`.
fn owed(
    settings: &Settings,
    project: &Project,
    policy: &Policy,
    targets: &[Reader],
    (due, now): (Timestamp, Timestamp),
) -> Vec<Owed> {
    let all = reminder::passed(policy, due, now);
    let digest = settings.digest.as_ref();
    let by_mail: Vec<_> = all.iter().copied().filter(|it| leaves(digest, *it, due) <= now).collect();
    let nobody = [NO_OWNER.to_owned()];
    let owners = if project.owners.is_empty() { &nobody[..] } else { &project.owners };
    let plain =
        |reader: Reader, passed: &[Threshold]| Owed { reader, passed: passed.to_vec(), copied_because: None };
    let mut found: Vec<_> = owners.iter().map(|it| plain(Reader::owner(it.clone()), &by_mail)).collect();
    for step in &policy.escalate {
        let days = step.after.days();
        let passed = reminder::copied(&all, Threshold(i32::try_from(days).unwrap_or(i32::MAX)), due, now);
        for mail in step.to.iter().filter(|_| !passed.is_empty()) {
            // Who heard of it at an earlier step, or owns it, hears of it once.
            if found.iter().any(|it| it.reader.recipient.eq_ignore_ascii_case(mail)) {
                continue;
            }
            let late = match days {
                0 => "on its due date".to_owned(),
                1 => "a day after its due date".to_owned(),
                days => format!("{days} days after its due date"),
            };
            let why = format!(
                "You get a copy because the key was not replaced {late} (policy.escalate names you); told before: {}.",
                owners.join(", ")
            );
            let reader = Reader::owner(mail.clone());
            found.push(Owed { reader, passed: passed.clone(), copied_because: Some(why) });
        }
    }
    found.extend(targets.iter().map(|it| plain(it.clone(), &all)));
    found
}

/// When the reminders of a key due at `due` are to be looked at next.
fn upcoming(settings: &Settings, policy: &Policy, due: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let passed = reminder::passed(policy, due, now).into_iter();
    let waiting = passed.map(|it| leaves(settings.digest.as_ref(), it, due));
    let steps = policy.escalate.iter().map(|it| due + Span::from_days(u64::from(it.after.days())).get());
    waiting.chain(steps).filter(|at| *at > now).chain(reminder::next(policy, due, now)).min()
}

async fn give(engine: &Engine, due: Vec<Project>, now: Timestamp) -> Result<usize, StoreError> {
    let mut reminders = Vec::new();
    let mut items: BTreeMap<Reader, Vec<Item>> = BTreeMap::new();
    let (targets, settings) = (targets(engine), &engine.settings);
    let mut next = Vec::with_capacity(due.len());
    for (number, project) in due.iter().enumerate() {
        let policy = project.policy(&settings.policy);
        let (Some(ends), Some(cycle)) = (project.due(&settings.policy), project.cycle(&settings.policy))
        else {
            next.push((project.clone(), None));
            continue;
        };
        if let Some(ack) = project.acknowledged(&settings.policy, now) {
            next.push((project.clone(), Some(ack.until)));
            continue;
        }
        next.push((project.clone(), upcoming(settings, &policy, ends, now)));
        let owed = owed(settings, project, &policy, &targets, (ends, now));
        if owed.iter().all(|it| it.passed.is_empty()) {
            continue;
        }
        let given = engine.store.reminders(&project.group_id, &cycle).await?;
        for Owed { reader, passed, copied_because } in owed {
            let recipient = reader.recorded();
            let done = |it: &Threshold| given.iter().any(|(days, who)| *days == it.0 && *who == recipient);
            let Some(latest) = passed.last().copied().filter(|it| !done(it)) else { continue };
            reminders.extend(passed.iter().filter(|it| !done(it)).map(|it| Reminder {
                group_id: project.group_id.clone(),
                cycle: cycle.clone(),
                threshold: it.0,
                recipient: recipient.clone(),
                mailed: *it == latest,
            }));
            let mut facts = Facts { copied_because, ..facts(settings, project, ends, now) };
            if reader.channel == Channel::Mail {
                facts.told.clone_from(&project.owners);
            }
            let item = Item { project: number, threshold: latest, cycle: cycle.clone(), facts };
            items.entry(reader).or_default().push(item);
        }
    }
    let mut mails = Vec::new();
    for (reader, items) in items {
        // What is urgent stands in no list with the rest.
        let (urgent, rest): (Vec<_>, Vec<_>) = items.into_iter().partition(|it| it.threshold.is_urgent());
        for items in [urgent, rest] {
            if items.len() > SINGLY && reader.lists {
                mails.push(digest(settings, &due, &reader, items, now));
            } else {
                mails.extend(items.into_iter().map(|item| single(settings, &due, &reader, item, now)));
            }
        }
    }
    engine.store.remind(&reminders, &mails, &next, now).await?;
    Ok(mails.len())
}

fn identity(due: &[Project], item: &Item) -> String {
    format!("{}/{}/{}", due[item.project].group_id, item.cycle, item.threshold.0)
}

fn single(settings: &Settings, due: &[Project], reader: &Reader, item: Item, now: Timestamp) -> NewOutbox {
    NewOutbox {
        channel: reader.channel,
        subject: (&due[item.project].group_id).into(),
        message_id: reader.id(&format!("reminder/{}", identity(due, &item))),
        recipient: reader.recipient.clone(),
        content: content(settings, Notice::Reminder(item.facts)),
        next_try_at: now,
    }
}

/// One mail for many projects, the most urgent first.
fn digest(
    settings: &Settings,
    due: &[Project],
    reader: &Reader,
    mut items: Vec<Item>,
    now: Timestamp,
) -> NewOutbox {
    items.sort_by_key(|item| item.facts.days_left);
    let identities: Vec<_> = items.iter().map(|item| identity(due, item)).collect();
    NewOutbox {
        channel: reader.channel,
        subject: (&due[items[0].project].group_id).into(),
        message_id: reader.id(&format!("digest/{}", identities.join("/"))),
        recipient: reader.recipient.clone(),
        content: content(
            settings,
            Notice::ReminderDigest(ReminderDigest {
                items: items.into_iter().map(|item| item.facts).collect(),
            }),
        ),
        next_try_at: now,
    }
}

fn facts(settings: &Settings, project: &Project, due: Timestamp, now: Timestamp) -> Facts {
    const DAY: u64 = 86_400;
    let whole = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    let left = if now < due {
        whole(now.until(due).as_secs().div_ceil(DAY))
    } else {
        -whole(now.since(due).as_secs() / DAY)
    };
    let policy = project.policy(&settings.policy);
    let interval = policy.interval;
    let seconds = interval.get().as_secs();
    let interval =
        if seconds.is_multiple_of(DAY) { format!("{} days", seconds / DAY) } else { interval.to_string() };
    let open = project.open_rotation.map(|open| {
        format!("A rotation is open already: {} is {}. No other proposal is needed.", open.id, open.state)
    });
    Facts {
        group_id: project.group_id.clone(),
        project_name: project.name.clone(),
        current_key: project.current_key.as_ref().map(KeyText::from),
        key_since: project.key_since,
        key_since_source: project.key_since_source,
        due,
        days_left: left,
        interval,
        key_ends_at: project.due_early(&settings.policy).and(project.key_ends_at),
        open_note: open,
        copied_because: None,
        provider: project.provider,
        environment: project.environment.clone(),
        remind_from: reminder::next(&policy, due, project.key_since.unwrap_or(due)).map(|at| at.min(due)),
        written_at: Some(now),
        next_reminders: {
            let after = |at: &Timestamp| reminder::next(&policy, due, *at);
            std::iter::successors(after(&now), after).take(NEXT).collect()
        },
        told: Vec::new(),
    }
}
