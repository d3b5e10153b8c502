//! Conditions: what is wrong with a project or with the installation, for as long as it is.
//!
//! A notice that hangs on a change is lost when the writer of the change does not announce it. So nothing
//! here looks at changes. [`Readings`] holds the last readings of a project's key as far as they are not
//! good, [`of_project`] derives from all facts the conditions that hold, and the engine compares those with
//! the ones it has told. A reading that fails, and an absent `valid`, end nothing: only a reading that says
//! the opposite does.
//!
//! `installation.rs` does the same for what concerns no single project.
//!
//! Not here: storage, recipients, and the texts for people.

mod installation;

use std::time::Duration;

use chrono::{TimeZone, Utc};
use serde::{Deserialize, Serialize};

use super::ids::RotationId;
use super::key::KeyRef;
use super::named::named;
use super::rotation::outcome::Class;
use super::rotation::state::{Cause, Hold, Rotation, State};
use super::subject::Subject;
use super::time::{Span, Timestamp};
use super::zone::Zone;

pub use installation::{
    CredentialFacts, DaemonFacts, InstallationFacts, of_credential, of_installation, of_secret,
};

named! {
    /// A condition: those of a project, the most urgent first, then those of the installation.
    ConditionKind, "condition" {
        /// A rotation waits for an operator.
        NeedsOperator = "needs_operator",
        /// Atlas cannot use the key in force.
        Invalid = "invalid",
        /// A key in play was disabled, is to be deleted or expires, as an event or a lookup says.
        KeyEnding = "key_ending",
        /// The key in force cannot be read from Atlas.
        Unreachable = "unreachable",
        /// The credential is not Project Owner, so Atlas would refuse a change of the key.
        NotOwner = "not_owner",
        /// Atlas does not report whether the key in force is valid.
        ValidityUnknown = "validity_unknown",
        /// Atlas holds no customer-managed key, and held one before.
        NoKey = "no_key",
        /// Atlas holds a key that Keywheel did not set and no operator recorded.
        Drifted = "drifted",
        /// An approved rotation is held for longer than `sweep.told_after`.
        Held = "held",
        /// A rotation is open.
        Rotating = "rotating",
        /// The cryptoperiod is over.
        Overdue = "overdue",
        /// Due within the first reminder threshold.
        DueSoon = "due_soon",
        /// The key is an Azure identifier without a version, so its age is unknown.
        UnmanagedVersion = "unmanaged_version",
        /// This daemon sends no new key to Atlas: its database is in doubt, or its clock is wrong.
        NotSending = "not_sending",
        /// The database cannot be written.
        DatabaseUnwritable = "database_unwritable",
        /// Most projects of a credential cannot be read.
        AtlasUnreachable = "atlas_unreachable",
        /// Atlas does not accept a credential.
        CredentialRefused = "credential_refused",
        /// The secret of a credential expires within 30 days.
        CredentialEnding = "credential_ending",
        /// No mail leaves.
        MailFailing = "mail_failing",
        /// A webhook target has answered that it is gone, and gets nothing any more.
        WebhookDisabled = "webhook_disabled",
        /// Projects are read later than promised.
        SweepLate = "sweep_late",
        /// Rows of the database cannot be read.
        RowUnreadable = "row_unreadable",
    }
}

/// How people hear of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// At its start, again until it is over or acknowledged, and at its end.
    Repeated,
    /// At its start, again each day, and at its end.
    Daily,
    /// At its start and at its end.
    Once,
    /// Never: reminders and the notices of rotations tell it.
    Shown,
}

/// A page is repeated so long after the telling before, the last one for ever.
const REPEATS: [Duration; 3] = [Duration::from_mins(5), Duration::from_mins(10), Duration::from_secs(3600)];

/// The longest time from one telling to the next. A stored instant further ahead comes from a clock that was wrong.
pub const LONGEST_REPEAT: Duration = REPEATS[2];

/// An acknowledgement of a repeated condition lasts so long.
pub const LONGEST_ACKNOWLEDGED: Duration = Duration::from_secs(12 * 3600);

/// The span within which a condition that starts again and again is damped, and the rest it then needs to end.
pub const DAMPED: Duration = Duration::from_mins(10);

/// From this start within [`DAMPED`] on, a condition ends only after a rest.
pub const DAMPED_AT: usize = 3;

/// `unreachable` and `validity_unknown` take so many readings in a row, or [`LONG`].
const ROW: u32 = 3;

/// See [`ROW`].
const LONG: Duration = Duration::from_mins(5);

/// A run that goes on is written down so often.
const AGAIN: Duration = Duration::from_mins(1);

impl ConditionKind {
    /// How people hear of it.
    #[must_use]
    pub const fn telling(self) -> Telling {
        match self {
            Self::NeedsOperator
            | Self::Invalid
            | Self::KeyEnding
            | Self::Unreachable
            | Self::NotSending
            | Self::AtlasUnreachable => Telling::Repeated,
            Self::CredentialRefused => Telling::Daily,
            Self::NotOwner
            | Self::ValidityUnknown
            | Self::NoKey
            | Self::Drifted
            | Self::Held
            | Self::DatabaseUnwritable
            | Self::CredentialEnding
            | Self::MailFailing
            | Self::WebhookDisabled
            | Self::SweepLate
            | Self::RowUnreadable => Telling::Once,
            Self::Rotating | Self::Overdue | Self::DueSoon | Self::UnmanagedVersion => Telling::Shown,
        }
    }

    /// Whether only the last readings of the key say that it holds.
    #[must_use]
    pub const fn follows_from_readings(self) -> bool {
        matches!(
            self,
            Self::Invalid | Self::KeyEnding | Self::Unreachable | Self::NotOwner | Self::ValidityUnknown
        )
    }

    /// Whether it concerns the installation and no single project.
    #[must_use]
    pub const fn is_of_installation(self) -> bool {
        match self {
            Self::NotSending
            | Self::DatabaseUnwritable
            | Self::AtlasUnreachable
            | Self::CredentialRefused
            | Self::CredentialEnding
            | Self::MailFailing
            | Self::WebhookDisabled
            | Self::SweepLate
            | Self::RowUnreadable => true,
            Self::NeedsOperator
            | Self::Invalid
            | Self::KeyEnding
            | Self::Unreachable
            | Self::NotOwner
            | Self::ValidityUnknown
            | Self::NoKey
            | Self::Drifted
            | Self::Held
            | Self::Rotating
            | Self::Overdue
            | Self::DueSoon
            | Self::UnmanagedVersion => false,
        }
    }
}

impl Telling {
    /// When a condition is told again, after it was told `told` times, last at `at`.
    #[must_use]
    pub fn repeat_at(self, told: u32, at: Timestamp, daily: &Daily) -> Option<Timestamp> {
        match self {
            Self::Repeated => Some(at + REPEATS[(told.max(1) as usize - 1).min(REPEATS.len() - 1)]),
            Self::Daily => Some(daily.next(at)),
            Self::Once | Self::Shown => None,
        }
    }
}

/// The time of day at which daily notices leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Daily {
    /// `mail.daily_at`.
    pub at: chrono::NaiveTime,
    /// `mail.timezone`.
    pub zone: Zone,
}

impl Default for Daily {
    fn default() -> Self {
        Self { at: chrono::NaiveTime::from_hms_opt(8, 0, 0).unwrap_or_default(), zone: Zone::UTC }
    }
}

impl Daily {
    /// The last such instant that is not after `at`; a day on which the clocks skip it is passed over.
    #[must_use]
    pub fn latest(&self, at: Timestamp) -> Timestamp {
        let today = at.as_chrono().with_timezone(&self.zone).date_naive();
        let days = today.iter_days().rev().take(3);
        let found = days.filter_map(|day| self.zone.from_local_datetime(&day.and_time(self.at)).earliest());
        let mut found = found.map(|local| Timestamp::from_chrono(local.with_timezone(&Utc)));
        found.find(|last| *last <= at).unwrap_or(at)
    }

    /// The first such instant after `at`; a day on which the clocks skip it is passed over.
    #[must_use]
    pub fn next(&self, at: Timestamp) -> Timestamp {
        let today = at.as_chrono().with_timezone(&self.zone).date_naive();
        let days = today.iter_days().take(3);
        let found = days.filter_map(|day| self.zone.from_local_datetime(&day.and_time(self.at)).earliest());
        let mut found = found.map(|local| Timestamp::from_chrono(local.with_timezone(&Utc)));
        found.find(|next| *next > at).unwrap_or(at + Duration::from_hours(24))
    }
}

/// One reading of a project's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading<'a> {
    /// Atlas answered.
    Seen {
        /// The key, when a customer-managed one is enabled.
        key: Option<&'a KeyRef>,
        /// Atlas' `valid`.
        valid: Option<bool>,
    },
    /// It did not, or not with the configuration.
    Failed {
        /// The class of the failure.
        class: Class,
        /// The failure in Atlas' words.
        words: &'a str,
        /// Atlas refused the credential itself, not this project.
        refused: bool,
    },
}

/// Equal readings, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The first of them.
    pub first: Timestamp,
    /// The last.
    pub last: Timestamp,
    /// How many.
    pub count: u32,
}

impl Run {
    /// One more at `at`. After a clock that was ahead, the run begins anew.
    fn more(run: Option<Self>, at: Timestamp) -> Self {
        match run.filter(|run| run.last <= at) {
            Some(run) => Self { last: at, count: run.count.saturating_add(1), ..run },
            None => Self { first: at, last: at, count: 1 },
        }
    }

    fn lasts(&self) -> Duration {
        self.last.since(self.first)
    }

    fn is_long(&self) -> bool {
        self.count >= ROW || self.lasts() >= LONG
    }
}

/// Readings that failed in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// How long they have.
    pub run: Run,
    /// The class of the last one.
    pub class: Class,
    /// Its words.
    pub words: String,
    /// Atlas refused the credential itself.
    #[serde(default)]
    pub refused: bool,
}

/// The last readings of a project's key, as far as they are not good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readings {
    /// `valid: false`, until two true readings far enough apart refute it.
    pub bad: Option<Run>,
    /// The key that was called invalid last.
    pub bad_key: Option<String>,
    /// `valid: true` since the last bad one.
    pub good: Option<Run>,
    /// `valid` absent, until it is there.
    pub absent: Option<Run>,
    /// No answer, until one comes.
    pub failed: Option<Failed>,
    /// Atlas said that the credential is not Project Owner, until it says the opposite.
    #[serde(default)]
    pub not_owner: Option<Run>,
    /// What was heard of keys that end.
    #[serde(default)]
    pub endings: Vec<Ending>,
}

/// A key that was disabled, is to be deleted or expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// The key.
    pub key: String,
    /// The sender's name of the event.
    pub event: String,
    /// The hook or the lookup that reported it.
    pub from: String,
    /// When it was heard of.
    pub at: Timestamp,
    /// From when on the key cannot be used; `None` when it cannot be already.
    pub ends_at: Option<Timestamp>,
    /// Readings that call the key valid all the same.
    pub good: Option<Run>,
    /// Who reported it.
    #[serde(default)]
    pub reporter: Reporter,
}

/// Who reported that a key ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reporter {
    /// Atlas, or an event about more than one key, to a hook that has told it. Of Atlas' own trouble with a key its key
    /// service knows nothing.
    #[default]
    Other,
    /// The key service, by an event about this key to a hook that has told it.
    KeyService,
    /// A lookup.
    Lookup,
}

/// Atlas checks each key about every 15 minutes: what it says until so long after the end of a key proves nothing.
const STALE: Duration = Duration::from_mins(16);

/// A key that ends within this time pages.
const SOON: Duration = Duration::from_hours(72);

/// So much is remembered of the keys of one project: senders choose the names of their events.
const MOST_ENDINGS: usize = 16;

/// What was heard of a key is forgotten so long after its end.
const FORGOTTEN: Duration = Duration::from_hours(45 * 24);

impl Ending {
    fn date(&self) -> Timestamp {
        self.ends_at.unwrap_or(self.at)
    }

    /// Adds a reading that calls the key valid or not; returns whether the readings refute the end.
    fn is_refuted(&mut self, valid: bool, at: Timestamp, confirm_after: Duration) -> bool {
        if at < self.date() + STALE {
            return false;
        }
        let run = Run::more(self.good, at);
        self.good = valid.then_some(run);
        valid && run.count >= 2 && run.lasts() >= confirm_after
    }
}

impl Readings {
    /// Adds a reading. `confirm_after` is how far apart the two true readings must be that end a bad run.
    pub fn note(&mut self, reading: &Reading<'_>, at: Timestamp, confirm_after: Duration) {
        match *reading {
            Reading::Failed { class, words, refused } => {
                let run = Run::more(self.failed.as_ref().map(|it| it.run), at);
                self.failed = Some(Failed { run, class, words: words.to_owned(), refused });
            }
            Reading::Seen { key, valid } => {
                self.failed = None;
                if let (Some(key), Some(valid)) = (key, valid) {
                    let key = key.to_string();
                    self.endings.retain_mut(|it| it.key != key || !it.is_refuted(valid, at, confirm_after));
                }
                self.endings.retain(|it| at < it.date() + FORGOTTEN);
                match valid.filter(|_| key.is_some()) {
                    Some(false) => {
                        self.bad = Some(Run::more(self.bad, at));
                        self.bad_key = key.map(ToString::to_string);
                        (self.good, self.absent) = (None, None);
                    }
                    Some(true) => {
                        self.absent = None;
                        let good = Run::more(self.good, at);
                        self.good = self.bad.map(|_| good);
                        if good.count >= 2 && good.lasts() >= confirm_after {
                            (self.bad, self.bad_key, self.good) = (None, None, None);
                        }
                    }
                    // Without a key nothing can be invalid: `no_key` says that.
                    None if key.is_none() => {
                        let Self { not_owner, endings, .. } = std::mem::take(self);
                        *self = Self { not_owner, endings, ..Self::default() };
                    }
                    None => (self.absent, self.good) = (Some(Run::more(self.absent, at)), None),
                }
            }
        }
    }

    /// Adds what Atlas said of the credential's role.
    pub fn note_role(&mut self, is_owner: bool, at: Timestamp) {
        self.not_owner = (!is_owner).then(|| Run::more(self.not_owner, at));
    }

    /// Adds what was heard of a key. What a lookup finds takes the place of what it found before.
    pub fn note_ending(&mut self, ending: Ending) {
        if ending.reporter == Reporter::Lookup {
            let before = |it: &Ending| it.reporter == Reporter::Lookup && it.key == ending.key;
            // The same again is no news.
            if self.endings.iter().any(|it| before(it) && it.event == ending.event) {
                return;
            }
            self.endings.retain(|it| !before(it));
        }
        self.endings.retain(|it| (&it.key, &it.event) != (&ending.key, &ending.event));
        if self.endings.len() >= MOST_ENDINGS {
            self.endings.remove(0);
        }
        self.endings.push(ending);
    }

    /// The key can be used again: an event said so.
    pub fn forget_endings(&mut self, key: &str) {
        self.endings.retain(|it| it.key != key);
    }

    /// A lookup that began at `asked_at` has found the key usable. It ends what lookups and the key service said before.
    pub fn refute_endings(&mut self, key: &str, asked_at: Timestamp) {
        self.endings.retain(|it| it.key != key || it.reporter == Reporter::Other || it.at > asked_at);
    }

    /// Nothing in it is worth keeping.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        *self == Self::default()
    }

    /// A second reading is to confirm or to refute the last one soon.
    #[must_use]
    pub fn is_unconfirmed(&self, confirm_after: Duration) -> bool {
        // After a reading that failed or said nothing, the schedule decides about the next one.
        let last_counts = self.failed.is_none() && self.absent.is_none();
        last_counts && (self.good.is_some() || self.bad.is_some_and(|bad| bad.lasts() < confirm_after))
    }

    /// When the key was tried last, where it could not be read, not for long yet, and Atlas asks for no pause.
    #[must_use]
    pub fn failed_lately(&self) -> Option<Timestamp> {
        let failed = self.failed.as_ref().filter(|it| !it.run.is_long() && it.class != Class::Transient);
        failed.map(|it| it.run.last)
    }

    /// Whether `after` says more than this and is to be written down: each failed reading and each success after
    /// one, the first of a run, the one that confirms it, and then one in a minute, so that a run grows as long as it lasts.
    #[must_use]
    pub fn is_news(&self, after: &Self, confirm_after: Duration) -> bool {
        let grows = |before: Option<Run>, after: Option<Run>| match (before, after) {
            (Some(before), Some(after)) => {
                let confirms = before.lasts() < confirm_after && after.lasts() >= confirm_after;
                let is_late = after.last.since(before.last) >= AGAIN;
                after.count <= ROW || is_late || confirms || after.first != before.first
            }
            (before, after) => before.is_some() != after.is_some(),
        };
        self.bad_key != after.bad_key
            || after.failed.is_some()
            || self.failed.is_some()
            || self.good != after.good
            || self.not_owner != after.not_owner
            || self.endings != after.endings
            || grows(self.bad, after.bad)
            || grows(self.absent, after.absent)
    }
}

/// A condition that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its kind.
    pub kind: ConditionKind,
    /// When it began.
    pub since: Timestamp,
    /// What makes it so, in one word or in Atlas' words. A change of it is news.
    pub cause: Option<String>,
    /// The key that it concerns. A change of it is news.
    pub key: Option<String>,
    /// The rotation that it concerns.
    pub rotation: Option<RotationId>,
    /// Another condition says it already.
    pub covered: bool,
    /// How people hear of it.
    pub telling: Telling,
    /// What is known beyond the cause, for people. A change of it is no news.
    pub detail: Option<String>,
    /// A lookup has found it, not an event.
    pub looked_up: bool,
    /// The notice of its start was written by the step or the look that found it.
    pub told: bool,
    /// Its start is not told before; or when it was told, by the step or the look that found it.
    pub tell_at: Timestamp,
}

/// What is known of a project.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The key on record.
    pub current_key: Option<&'a KeyRef>,
    /// A key that was found as drift and that no operator has recorded yet.
    pub drift_key: Option<&'a KeyRef>,
    /// When Atlas was last read.
    pub checked_at: Option<Timestamp>,
    /// When the project was added.
    pub created_at: Timestamp,
    /// Its open rotation.
    pub open: Option<&'a Rotation>,
    /// Its last readings.
    pub readings: &'a Readings,
    /// Whether it had a key before.
    pub had_key: bool,
    /// A condition of its credential says why it cannot be read.
    pub credential: Option<ConditionKind>,
    /// The conditions that hold so far: a reading begins one later than it keeps one.
    pub holding: &'a [ConditionKind],
}

/// The settings of the watch.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `sweep.confirm_after`.
    pub confirm_after: Span,
    /// `sweep.told_after`.
    pub told_after: Span,
    /// How long a mail waits for others like it.
    pub gather: Span,
    /// When daily notices leave.
    pub daily: Daily,
}

/// The conditions that hold at `now` and that people hear of; those that are only shown are computed by
/// [`Project::shown`](super::project::Project::shown).
#[must_use]
pub fn of_project(facts: &Facts<'_>, limits: &Limits, now: Timestamp) -> Vec<Condition> {
    let open = facts.open;
    let mut found = Vec::new();
    let waits = open.filter(|it| it.state == State::NeedsOperator);
    if let Some(it) = waits {
        let paged_at = it.operator.paged_at.unwrap_or(now);
        found.push(Condition {
            cause: it.cause.map(|cause| cause.as_str().to_owned()),
            key: Some(in_force(it)),
            rotation: Some(it.id),
            told: true,
            tell_at: paged_at,
            ..plain(facts, ConditionKind::NeedsOperator, paged_at, now)
        });
    }
    found.extend(of_readings(facts, waits, limits, now));
    found.extend(of_endings(facts, now));
    if let Some(run) = facts.readings.not_owner {
        found.push(plain(facts, ConditionKind::NotOwner, run.first, now));
    }
    if facts.current_key.is_none()
        && facts.had_key
        && let Some(at) = facts.checked_at
    {
        // A key that goes away while it is watched is told as drift.
        found.push(Condition { told: at > facts.created_at, ..plain(facts, ConditionKind::NoKey, at, now) });
    }
    if let Some(key) = facts.drift_key {
        let since = facts.checked_at.unwrap_or(now);
        found.push(Condition {
            key: Some(key.to_string()),
            told: true,
            ..plain(facts, ConditionKind::Drifted, since, now)
        });
    }
    if let Some(it) = open
        && let Some(hold) = hold(it, now)
    {
        found.push(Condition {
            cause: Some(hold.as_str().to_owned()),
            rotation: Some(it.id),
            // The key that cannot be used is told as that.
            covered: matches!(hold, Hold::CurrentKeyInvalid)
                && (facts.readings.bad.is_some() || facts.holding.contains(&ConditionKind::Invalid)),
            tell_at: now + limits.told_after.get(),
            ..plain(facts, ConditionKind::Held, now, now)
        });
    }
    found
}

/// The conditions that follow from the last readings. `waits` is the open rotation when it waits for an operator.
fn of_readings(
    facts: &Facts<'_>,
    waits: Option<&Rotation>,
    limits: &Limits,
    now: Timestamp,
) -> Vec<Condition> {
    let Facts { open, readings, holding, .. } = *facts;
    let held = |kind| holding.contains(&kind);
    let mut found = Vec::new();
    if let Some(bad) = readings.bad {
        // Between a PATCH and its end the machine bears a false reading for as long, and acts on it then.
        let patched = open.is_some_and(|it| it.state.is_after_patch());
        let bears = match open {
            Some(it) if patched => it.rules.verify.false_grace.get(),
            _ => limits.confirm_after.get(),
        };
        if held(ConditionKind::Invalid) || (bad.count >= 2 && bad.lasts() >= bears) {
            // A page that says nothing about the key covers no danger to it.
            let silent = |cause: Option<Cause>| match cause {
                Some(
                    Cause::Tampered | Cause::Auth | Cause::Gone | Cause::ConfigChanged | Cause::Unreachable,
                ) => true,
                Some(_) | None => false,
            };
            let about = |it: &Rotation| {
                !silent(it.cause) && readings.bad_key.as_deref() == Some(in_force(it).as_str())
            };
            found.push(Condition {
                key: readings.bad_key.clone(),
                covered: waits.is_some_and(about),
                ..plain(facts, ConditionKind::Invalid, bad.first, now)
            });
        }
    }
    if let Some(failed) = &readings.failed
        && (held(ConditionKind::Unreachable) || failed.run.is_long())
    {
        let waits =
            matches!(waits.and_then(|it| it.cause), Some(Cause::Auth | Cause::Gone | Cause::Unreachable));
        let covered = match facts.credential {
            Some(ConditionKind::CredentialRefused) => waits || failed.class == Class::Auth,
            Some(_) => true,
            None => waits,
        };
        found.push(Condition {
            cause: Some(class(failed.class).to_owned()),
            covered,
            ..plain(facts, ConditionKind::Unreachable, failed.run.first, now)
        });
    }
    if let Some(absent) = readings.absent
        && (held(ConditionKind::ValidityUnknown) || absent.is_long())
    {
        let unproven = waits.and_then(|it| it.cause) == Some(Cause::Unproven);
        found.push(Condition {
            covered: unproven,
            ..plain(facts, ConditionKind::ValidityUnknown, absent.first, now)
        });
    }
    found
}

/// The most urgent of the keys in play that end.
fn of_endings(facts: &Facts<'_>, now: Timestamp) -> Option<Condition> {
    let keys =
        facts.current_key.into_iter().chain(facts.open.into_iter().flat_map(|it| [&it.old_key, &it.new_key]));
    let keys: Vec<_> = keys.map(ToString::to_string).collect();
    let endings = facts.readings.endings.iter().filter(|it| keys.contains(&it.key));
    let it = endings.min_by_key(|it| (it.date(), it.at))?;
    let pages = it.date() <= now + SOON;
    Some(Condition {
        cause: Some(it.event.clone()),
        key: Some(it.key.clone()),
        detail: Some(it.from.clone()),
        looked_up: it.reporter == Reporter::Lookup,
        covered: facts.readings.bad_key.as_ref() == Some(&it.key)
            && facts.holding.contains(&ConditionKind::Invalid),
        telling: if pages { Telling::Repeated } else { Telling::Once },
        // An event that was heard is told with its words.
        told: it.reporter != Reporter::Lookup,
        ..plain(facts, ConditionKind::KeyEnding, it.at, now)
    })
}

/// A condition with nothing special about it.
fn plain(facts: &Facts<'_>, kind: ConditionKind, since: Timestamp, now: Timestamp) -> Condition {
    Condition { key: facts.current_key.map(ToString::to_string), ..Condition::new(kind, since.min(now), now) }
}

impl Condition {
    /// A condition without anything special about it, told at `now`.
    #[must_use]
    pub const fn new(kind: ConditionKind, since: Timestamp, now: Timestamp) -> Self {
        Self {
            kind,
            since,
            cause: None,
            key: None,
            rotation: None,
            covered: false,
            telling: kind.telling(),
            detail: None,
            looked_up: false,
            told: false,
            tell_at: now,
        }
    }
}

/// The key that Atlas holds, as far as the rotation has seen.
#[must_use]
pub fn in_force(it: &Rotation) -> String {
    let seen = it.observing.last.as_ref().and_then(|seen| seen.key.as_ref());
    seen.unwrap_or(&it.old_key).to_string()
}

/// Why an approved rotation waits: not for a window that opens before the approval expires.
fn hold(it: &Rotation, now: Timestamp) -> Option<Hold> {
    match it.state {
        State::Applying => it.patching.put_off_since.map(|_| it.put_off_by()),
        State::Approved => it.hold.filter(|hold| {
            let opens = || it.rules.next_open(now);
            *hold != Hold::Window || opens().is_none_or(|opens| opens >= it.permission.expires_at)
        }),
        _ => None,
    }
}

/// A class of failure as a condition names it.
#[must_use]
pub const fn class(class: Class) -> &'static str {
    match class {
        Class::Auth => "auth",
        Class::Gone => "gone",
        Class::TooOld => "too_old",
        Class::Transient | Class::Unknown => "unanswered",
        Class::BadKey | Class::Refused | Class::Config => "refused",
    }
}

/// The id of a condition: the same from its start to its end, and for each later start.
#[must_use]
pub fn condition_id(subject: &Subject, kind: ConditionKind) -> String {
    format!("{subject}/{kind}")
}

/// The subject and the kind in the id of a condition.
#[must_use]
pub fn parts_of_id(id: &str) -> Option<(&str, ConditionKind)> {
    let (subject, kind) = id.rsplit_once('/')?;
    Some((subject, kind.parse().ok()?))
}
