//! Conditions of the installation: what concerns no single project.

use std::time::Duration;

use super::{Condition, ConditionKind, Failed, Telling};
use crate::domain::subject::Subject;
use crate::domain::time::{Span, Timestamp};

/// The fewest projects for which it is said that Atlas cannot be reached, and not that they cannot be read.
const MANY: usize = 3;

/// Clocks that differ for a moment are not told.
const SKEW_BORNE: Duration = Duration::from_mins(1);

/// After a pause of the whole process the watch catches up before anybody hears of it.
const LATE_BORNE: Duration = Duration::from_secs(15);

/// What is known of a credential.
#[derive(Clone, Debug)]
pub struct CredentialFacts<'a> {
    /// Its name in the configuration.
    pub name: &'a str,
    /// How many projects it reads.
    pub projects: usize,
    /// Those of them whose last reading failed.
    pub failed: Vec<&'a Failed>,
    /// A rotation of one of them is between its PATCH and its end.
    pub is_verifying: bool,
    /// The conditions that hold so far.
    pub holding: &'a [ConditionKind],
}

/// The conditions of a credential that hold at `now`. A refused one is told as that, and not as an Atlas that
/// cannot be reached.
#[must_use]
pub fn of_credential(facts: &CredentialFacts<'_>, now: Timestamp) -> Vec<Condition> {
    let mut found = Vec::new();
    let refused = |it: &&&Failed| it.refused;
    let subject = facts.name.to_owned();
    let words = |failed: &[&Failed]| failed.last().map(|it| it.words.clone());
    let refusals: Vec<&Failed> = facts.failed.iter().filter(refused).copied().collect();
    if let Some(since) = facts.begins(ConditionKind::CredentialRefused, &refusals, 1) {
        let telling = if facts.is_verifying { Telling::Repeated } else { Telling::Daily };
        found.push(Condition {
            cause: Some(subject.clone()),
            detail: words(&refusals),
            telling,
            ..Condition::new(ConditionKind::CredentialRefused, since.min(now), now)
        });
    }
    if let Some(since) = facts.begins(ConditionKind::AtlasUnreachable, &facts.failed, MANY) {
        found.push(Condition {
            cause: Some(subject),
            detail: words(&facts.failed),
            covered: !found.is_empty(),
            ..Condition::new(ConditionKind::AtlasUnreachable, since.min(now), now)
        });
    }
    found
}

/// When people hear that a secret expires: so long before, and in these words.
const STAGES: [(Duration, &str); 4] = [
    (Duration::ZERO, "its secret has expired"),
    (Duration::from_hours(24), "its secret expires within a day"),
    (Duration::from_hours(7 * 24), "its secret expires within 7 days"),
    (Duration::from_hours(30 * 24), "its secret expires within 30 days"),
];

/// The condition of a credential whose secret expires soon. Each stage is another cause, so it is told anew.
#[must_use]
pub fn of_secret(ends_at: Timestamp, now: Timestamp) -> Option<Condition> {
    let (_, cause) = STAGES.into_iter().find(|(before, _)| ends_at <= now + *before)?;
    let since = ends_at - STAGES[STAGES.len() - 1].0;
    Some(Condition {
        cause: Some(cause.to_owned()),
        detail: Some(format!("it expires at {ends_at}")),
        ..Condition::new(ConditionKind::CredentialEnding, since.min(now), now)
    })
}

impl CredentialFacts<'_> {
    /// Since when `failed` are most of the projects, and at least `fewest`, if that has lasted or holds already.
    ///
    /// Readings of one failure are spread over a round of looks: when the first project has failed for long, each
    /// of the others has failed twice.
    fn begins(&self, kind: ConditionKind, failed: &[&Failed], fewest: usize) -> Option<Timestamp> {
        let held = self.holding.contains(&kind);
        let counted = failed.iter().filter(|it| held || it.run.count >= 2 || it.run.is_long());
        let most = counted.clone().count() * 2 > self.projects && failed.len() >= fewest;
        let long = held || failed.iter().any(|it| it.run.is_long());
        (most && long).then(|| counted.map(|it| it.run.first).min()).flatten()
    }
}

/// What is known of this daemon, its database and its messages.
#[derive(Clone, Debug, Default)]
pub struct InstallationFacts {
    /// What only this daemon can see.
    pub daemon: DaemonFacts,
    /// Since when mails wait that were tried, and none has left.
    pub mail_stuck_since: Option<Timestamp>,
    /// What the mail server said last.
    pub mail_words: Option<String>,
    /// Since when rows are met that cannot be read, and which.
    pub unreadable: Option<(Timestamp, Vec<String>)>,
}

/// What only one daemon can see.
#[derive(Clone, Debug, Default)]
pub struct DaemonFacts {
    /// Its host and port.
    pub name: String,
    /// Why its database is in doubt, since when, and the way out.
    pub doubt: Option<(&'static str, Timestamp, String)>,
    /// How its clock differs from another one by too much.
    pub clock_skew: Option<String>,
    /// Since when the disk that holds the database is full.
    pub disk_full_since: Option<Timestamp>,
    /// Since when projects are read late.
    pub late_since: Option<Timestamp>,
    /// The webhook targets that have answered that they are gone.
    pub gone_targets: Vec<String>,
}

/// The conditions of the installation that hold at `now`, with their subjects, but for those of credentials.
#[must_use]
pub fn of_installation(
    facts: &InstallationFacts,
    told_after: Span,
    now: Timestamp,
) -> Vec<(Subject, Condition)> {
    let daemon = Subject::Daemon(facts.daemon.name.clone());
    let mut found = Vec::new();
    let sending = |since: Timestamp| Condition::new(ConditionKind::NotSending, since.min(now), now);
    if let Some((cause, since, detail)) = &facts.daemon.doubt {
        let it =
            Condition { cause: Some((*cause).to_owned()), detail: Some(detail.clone()), ..sending(*since) };
        found.push((daemon.clone(), it));
    } else if let Some(detail) = &facts.daemon.clock_skew {
        let it = Condition {
            cause: Some("clock_skew".to_owned()),
            detail: Some(detail.clone()),
            tell_at: now + SKEW_BORNE,
            ..sending(now)
        };
        found.push((daemon.clone(), it));
    }
    if let Some(since) = facts.daemon.disk_full_since {
        let it = Condition {
            cause: Some("disk_full".to_owned()),
            ..Condition::new(ConditionKind::DatabaseUnwritable, since.min(now), now)
        };
        found.push((daemon.clone(), it));
    }
    if let Some(since) = facts.daemon.late_since {
        let it = Condition {
            tell_at: now + LATE_BORNE,
            ..Condition::new(ConditionKind::SweepLate, since.min(now), now)
        };
        found.push((daemon.clone(), it));
    }
    if !facts.daemon.gone_targets.is_empty() {
        let it = Condition {
            cause: Some(facts.daemon.gone_targets.join(", ")),
            ..Condition::new(ConditionKind::WebhookDisabled, now, now)
        };
        found.push((daemon, it));
    }
    if let Some(since) = facts.mail_stuck_since
        && now.since(since) >= told_after.get()
    {
        let it = Condition {
            detail: facts.mail_words.clone(),
            ..Condition::new(ConditionKind::MailFailing, since, now)
        };
        found.push((Subject::Installation, it));
    }
    if let Some((since, rows)) = &facts.unreadable {
        let it = Condition {
            cause: Some(rows.join(", ")),
            ..Condition::new(ConditionKind::RowUnreadable, (*since).min(now), now)
        };
        found.push((Subject::Installation, it));
    }
    found
}
