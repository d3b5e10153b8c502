//! Reminds owners of keys whose cryptoperiod ends.
//!
//! For each project the latest threshold that has passed is mailed once to each owner. After days of
//! downtime the earlier thresholds are recorded as passed over. An owner of many keys that are due
//! together gets one list. A webhook target that subscribes to reminders is treated like an owner of every
//! project; only chat targets get lists. `domain::reminder` defines thresholds; the senders send.

use std::collections::BTreeMap;

use super::announce::{NO_OWNER, content, message_id, webhook_id};
use super::{Engine, Settings};
use crate::domain::notice::{KeyText, Kind, Notice, Reminder as Facts, ReminderDigest};
use crate::domain::project::Project;
use crate::domain::reminder::{self, Threshold};
use crate::domain::time::Timestamp;
use crate::store::{Channel, NewOutbox, Reminder, StoreError};

/// Projects in one transaction.
const CHUNK: usize = 1000;

/// More reminders than this at once become one list.
const SINGLY: usize = 3;

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

async fn give(engine: &Engine, due: Vec<Project>, now: Timestamp) -> Result<usize, StoreError> {
    let mut reminders = Vec::new();
    let mut items: BTreeMap<Reader, Vec<Item>> = BTreeMap::new();
    let targets = targets(engine);
    let mut next = Vec::with_capacity(due.len());
    for (number, project) in due.iter().enumerate() {
        let policy = project.policy(&engine.settings.policy);
        let (Some(ends), Some(since)) = (project.due(&engine.settings.policy), project.key_since) else {
            next.push((project.clone(), None));
            continue;
        };
        next.push((project.clone(), reminder::next(&policy, ends, now)));
        let passed = reminder::passed(&policy, ends, now);
        let Some(latest) = passed.last().copied() else { continue };
        // A key that ends before its cryptoperiod has reminders of its own.
        let early = project.due_early(&engine.settings.policy);
        let cycle = early.map_or_else(|| since.to_string(), |early| format!("{since}/{early}"));
        let given = engine.store.reminders(&project.group_id, &cycle).await?;
        let nobody = [NO_OWNER.to_owned()];
        let owners = if project.owners.is_empty() { &nobody[..] } else { &project.owners };
        for reader in owners.iter().cloned().map(Reader::owner).chain(targets.iter().cloned()) {
            let recipient = reader.recorded();
            let done = |it: &Threshold| given.iter().any(|(days, who)| *days == it.0 && *who == recipient);
            if done(&latest) {
                continue;
            }
            reminders.extend(passed.iter().filter(|it| !done(it)).map(|it| Reminder {
                group_id: project.group_id.clone(),
                cycle: cycle.clone(),
                threshold: it.0,
                recipient: recipient.clone(),
                mailed: *it == latest,
            }));
            let facts = facts(&engine.settings, project, ends, now);
            let item = Item { project: number, threshold: latest, cycle: cycle.clone(), facts };
            items.entry(reader).or_default().push(item);
        }
    }
    let mut mails = Vec::new();
    for (reader, items) in items {
        if items.len() > SINGLY && reader.lists {
            mails.push(digest(&engine.settings, &due, &reader, items, now));
        } else {
            let single = items.into_iter().map(|item| single(&engine.settings, &due, &reader, item, now));
            mails.extend(single);
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
    let interval = project.policy(&settings.policy).interval;
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
    }
}
