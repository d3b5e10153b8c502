//! Why a project has its status: the sentences that the API, the command line and the pages show.
//!
//! [`Engine::why`] reads the facts that are not in the project's own row; everything else here is text.
//! Nothing is decided and nothing is written.

use std::time::Duration;

use super::Engine;
use super::announce::remedy;
use super::command::CommandError;
use super::command::votes::{Outstanding, outstanding};
use super::due::with_last_look;
use super::epoch::Difference;
use crate::domain::condition::ConditionKind;
use crate::domain::freeze::freeze_at;
use crate::domain::key::KeyRef;
use crate::domain::notice::Drifted;
use crate::domain::policy::Policy;
use crate::domain::preflight::{CheckName, failed};
use crate::domain::project::{Project, SinceSource};
use crate::domain::rotation::outcome::Observation;
use crate::domain::rotation::state::{Hold, Rotation, State};
use crate::domain::silence::Silence;
use crate::domain::time::Timestamp;
use crate::domain::zone::Zone;
use crate::store::{ConditionRow, RefusedAddress, RotationRow, StoreError};

/// Atlas shuts the clusters down about this long after a key became unusable.
const SHUT_DOWN: Duration = Duration::from_mins(15);

/// Why a project has the status it has.
#[derive(Clone, Debug, PartialEq)]
pub struct Why {
    /// The reasons, in sentences.
    pub sentences: Vec<String>,
    /// The finding about a key that another actor has set, until an operator settles the drift.
    pub drift: Option<Drifted>,
}

/// The facts that the database has beside a project's own row.
#[derive(Default)]
struct Beside<'a> {
    drift: Option<&'a Drifted>,
    /// Owners whose mail is refused.
    refused: Vec<RefusedAddress>,
    looked_up: Option<(Timestamp, String)>,
    rotation: Option<&'a Rotation>,
    conditions: Vec<ConditionRow>,
    /// Of a rotation that waits for approvals.
    votes: Option<Outstanding>,
    /// The last rotation that has ended, where none is open.
    last: Option<&'a Rotation>,
    /// What Atlas was found to hold while the database is in doubt.
    differs: Option<Difference>,
}

impl Engine {
    /// Why `project` has the status it has.
    ///
    /// # Errors
    /// Fails when the database cannot be read, or lacks the rotation that the project names.
    pub async fn why(&self, project: &Project) -> Result<Why, CommandError> {
        let drift = match &project.drift_key {
            Some(_) => self.store.last_drift(&project.group_id).await?,
            None => None,
        };
        let looked_up = match &project.kms {
            Some(_) => self.store.last_look_up(&project.group_id).await?,
            None => None,
        };
        let row = match project.open_rotation {
            Some(open) => Some(self.rotation(open.id).await?),
            None => None,
        };
        let rotation = row.as_ref().map(|row| &row.rotation);
        let subject = (&project.group_id).into();
        let conditions = self.store.conditions_of(&subject, &subject).await?;
        let votes = match &row {
            Some(row) if row.rotation.state == State::AwaitingApproval => Some(outstanding(self, row).await?),
            _ => None,
        };
        let ended = match rotation {
            None => self.store.rotations(None, Some(&project.group_id), None, 1).await?,
            Some(_) => Vec::new(),
        };
        let differs = self.epoch.shown().doubt.and_then(|doubt| doubt.differences).unwrap_or_default();
        let refused = self.store.refused_owners(&project.group_id).await?;
        let beside = Beside {
            refused,
            drift: drift.as_ref(),
            looked_up,
            rotation,
            conditions,
            votes,
            last: ended.first().map(|row| &row.rotation),
            differs: differs.into_iter().find(|it| it.group_id == project.group_id),
        };
        // The last look may not be written yet.
        let (project, _) = with_last_look(self, project.clone());
        let sentences = sentences(&project, &self.settings.policy, &beside, self.clock.now());
        Ok(Why { sentences, drift })
    }

    /// What a rotation waits for beside readings and clusters, and the remedy of its cause.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn why_waiting(&self, row: &RotationRow) -> Result<Vec<String>, StoreError> {
        let votes = match row.rotation.state {
            State::AwaitingApproval => Some(outstanding(self, row).await?),
            _ => None,
        };
        Ok(waiting(&row.rotation, votes.as_ref(), self.clock.now()))
    }
}

fn sentences(project: &Project, defaults: &Policy, beside: &Beside<'_>, now: Timestamp) -> Vec<String> {
    let seen = beside.rotation.and_then(|it| it.observing.last.as_ref());
    let mut told = vec![held(project, seen, beside.differs.as_ref())];
    told.extend(age(project, now));
    told.extend(due(project, defaults, now));
    told.extend(project.acknowledged(defaults, now).map(|it| {
        format!(
            "{} has acknowledged the due date: the key is to be replaced by {}, and nobody is reminded before.",
            it.by, it.until
        )
    }));
    // What an open rotation has read is newer than the record.
    let (valid, held) = match seen {
        Some(seen) => (seen.valid, seen.key.as_ref()),
        None => (project.valid, project.current_key.as_ref()),
    };
    if valid == Some(false) {
        let key = held.map_or_else(|| "the key".to_owned(), |key| format!("the key {key}"));
        let since = beside.conditions.iter().find(|row| row.kind == ConditionKind::Invalid).map(|row| {
            let by = row.since + SHUT_DOWN;
            if by > now {
                format!(" since {}; it shuts the clusters down by about {by}", row.since)
            } else {
                format!(" since {}; it shuts clusters down about 15 minutes after that", row.since)
            }
        });
        let since = since.unwrap_or_else(|| {
            "; it shuts clusters down about 15 minutes after a key became unusable".to_owned()
        });
        told.push(format!("Atlas reports {key} as invalid{since}. Re-enable that key in its key service."));
    }
    told.extend(beside.conditions.iter().map(|row| condition(row, project)));
    told.extend(project.silence.as_ref().filter(|it| it.lasts(now)).map(|it| silenced(it, project)));
    if let Some(key) = &project.drift_key {
        told.push(format!("Another actor set the key {key}. If the change was intended, give its date with `keywheel project edit --since`."));
        told.extend(beside.drift.iter().flat_map(|it| it.sentences.clone()));
    }
    if let Some(error) = &project.last_error {
        told.push(format!("The last observation failed: {error}"));
    }
    if project.current_key.as_ref().is_some_and(KeyRef::is_versionless) {
        told.push(
            "The identifier names no version, so the age of the key is unknown; set a versioned one."
                .to_owned(),
        );
    }
    if let Some(name) = &project.kms {
        told.push(match &beside.looked_up {
            Some((at, said)) => {
                format!("The lookup {name} was last polled for the newest key at {at}: {said}.")
            }
            None => format!("The lookup {name} was not polled for the newest key yet."),
        });
    }
    if project.owners.is_empty() {
        told.push(
            "It has no owner, so its messages are not sent; add one with `keywheel project edit --owner`."
                .to_owned(),
        );
    }
    told.extend(beside.refused.iter().map(|it| {
        let others = beside.refused.len() < project.owners.len();
        let rest = if others { "the other owners are told" } else { "nobody may be told" };
        format!("Mail to {} is refused since {}: {}; {rest}.", it.address, it.since, it.reply)
    }));
    told.extend(beside.rotation.map(|it| open(it, beside.votes.as_ref(), now)).unwrap_or_default());
    told.extend(beside.last.and_then(ended));
    told
}

/// The key that Atlas held when it was last read, and the one on record where that is another.
fn held(project: &Project, seen: Option<&Observation>, differs: Option<&Difference>) -> String {
    if let Some(it) = differs.filter(|it| it.error.is_none()) {
        let text = |key: Option<&str>| {
            key.map_or("no customer-managed key".to_owned(), |it| format!("the key {it}"))
        };
        return format!(
            "Atlas holds {}; {} is on record, in a database that is in doubt.",
            text(it.atlas.as_deref()),
            text(it.recorded.as_deref())
        );
    }
    if let Some(seen) = seen.filter(|seen| seen.key.as_ref() != project.current_key.as_ref()) {
        return elsewhere(project, seen);
    }
    let read = seen.map(|seen| seen.at).into_iter().chain(project.last_checked_at).max();
    let key = match &project.current_key {
        Some(key) => format!("the key {key}"),
        None => "no customer-managed key".to_owned(),
    };
    match (read, &project.last_error) {
        // The instant of the last reading is that of the attempt: nobody knows what Atlas holds since.
        (_, Some(_)) => format!("Atlas held {key} when it was last read; the last attempt failed."),
        (Some(at), None) => format!("Atlas holds {key} (read at {at})."),
        (None, None) => format!("Atlas holds {key}, as far as Keywheel has seen."),
    }
}

/// What the last rotation came to.
fn ended(it: &Rotation) -> Option<String> {
    let at = it.ending.finished_at?;
    let cause = it.cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
    Some(format!("Its last rotation, {} to {}, ended at {at} as {}{cause}.", it.id, it.new_key, it.state))
}

/// Atlas holds another key than the one on record: a rotation is under way, or another actor has set it.
fn elsewhere(project: &Project, seen: &Observation) -> String {
    let text =
        |key: Option<&KeyRef>| key.map_or("no customer-managed key".to_owned(), |it| format!("the key {it}"));
    format!(
        "Atlas holds {} (read at {}); {} is on record until the rotation has ended.",
        text(seen.key.as_ref()),
        seen.at,
        text(project.current_key.as_ref())
    )
}

/// A condition on record: since when, and how far people have heard of it.
fn condition(row: &ConditionRow, project: &Project) -> String {
    let cause = row.cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default();
    let told = match (row.told, row.told_at) {
        (0, _) | (_, None) => "nobody was told yet".to_owned(),
        (1, Some(at)) => format!("told at {at}"),
        (times, Some(at)) => format!("told {times} times, last at {at}"),
    };
    let next = match (&row.acknowledged_by, row.tell_at) {
        (Some(by), _) => format!("; acknowledged by {by}"),
        (None, Some(at)) if row.told > 0 => {
            format!(
                "; told again at {at}, unless it is over or `keywheel ack {} {}`",
                project.group_id, row.kind
            )
        }
        (None, Some(at)) => format!("; told at {at} if it still holds"),
        (None, None) => String::new(),
    };
    format!("It is {}{cause} since {}: {told}{next}.", row.kind.as_str().replace('_', " "), row.since)
}

/// The mails wait.
fn silenced(it: &Silence, project: &Project) -> String {
    format!(
        "Its mails are silenced until {} by {}; what still holds is mailed then. Webhooks go on. \
         `keywheel silence {} --end` ends it.",
        it.ends_at, it.by, project.group_id
    )
}

/// The age of the key, and the source of that date.
fn age(project: &Project, now: Timestamp) -> Option<String> {
    let since = project.key_since?;
    let days = now.since(since).as_secs() / 86_400;
    let source = match project.key_since_source {
        None => return Some(format!("It has served for {days} days.")),
        Some(SinceSource::FirstSeen) => {
            return Some(format!(
                "It has served for at least {days} days: it was in force at the first observation."
            ));
        }
        Some(source) => source,
    };
    let says = match source {
        SinceSource::Operator => "entered by an operator",
        SinceSource::Rotation => "Keywheel's own rotation",
        SinceSource::AtlasEvent => "Atlas' event about a rotated key, which does not name the key",
        SinceSource::FirstSeen => "the first observation",
    };
    Some(format!("It has served for {days} days, since {since} (source: {source}, {says})."))
}

/// When the cryptoperiod ends.
fn due(project: &Project, defaults: &Policy, now: Timestamp) -> Option<String> {
    let due = project.due(defaults)?;
    let interval = project.policy(defaults).interval;
    if let (Some(_), Some(ends)) = (project.due_early(defaults), project.key_ends_at) {
        return Some(format!(
            "Its key service says that it ends at {ends}, before the cryptoperiod of {interval} does. It is to be replaced by {due}."
        ));
    }
    Some(if due > now {
        format!(
            "Its cryptoperiod of {interval} ends in {} days, at {due}.",
            now.until(due).as_secs() / 86_400
        )
    } else {
        format!(
            "Its cryptoperiod of {interval} ended {} days ago, at {due}. Propose a new key with `keywheel rotate`.",
            now.since(due).as_secs() / 86_400
        )
    })
}

/// The state of the open rotation.
fn open(rotation: &Rotation, votes: Option<&Outstanding>, now: Timestamp) -> Vec<String> {
    let state = rotation.state.as_str().replace('_', " ");
    let mut told = vec![format!("Rotation {} to {} is {state}.", rotation.id, rotation.new_key)];
    told.extend(progress(rotation));
    told.extend(waiting(rotation, votes, now));
    told
}

/// The votes or the hold that a rotation waits for, its next step, and the remedy of its cause.
fn waiting(rotation: &Rotation, votes: Option<&Outstanding>, now: Timestamp) -> Vec<String> {
    let mut told: Vec<String> = votes.map(|votes| approvals(rotation, votes)).into_iter().collect();
    told.extend(planned(rotation, now));
    told.extend(next_step(rotation));
    if let Some(hold) = rotation.hold {
        let text = window(rotation, hold, now).unwrap_or_else(|| format!("It waits: {hold}."));
        told.extend(Some(text).filter(|text| !text.is_empty()));
        if let Some(check) = failed(&rotation.observing.checks).filter(|_| hold == Hold::Preflight) {
            told.push(format!("The check {} fails: {}.", check.name, check.detail));
        }
        let clusters = rotation.observing.checks.iter().find(|check| check.name == CheckName::Clusters);
        if let Some(check) = clusters.filter(|_| hold == Hold::ClustersUnknown) {
            told.push(format!("{}.", check.detail));
        }
    }
    told.extend(rotation.cause.map(|cause| remedy(cause, rotation)));
    told
}

/// Which votes are missing, whose they can be, and until when.
fn approvals(rotation: &Rotation, votes: &Outstanding) -> String {
    let required = rotation.permission.quorum.required;
    let by = if votes.voted.is_empty() { String::new() } else { format!(" (by {})", votes.voted.join(", ")) };
    let named = &rotation.rules.policy.approvers;
    let may = match (&votes.may[..], &votes.by_link[..]) {
        ([], []) if named.is_empty() => {
            "Nobody can give one now: make a token with the role approver for another person.".to_owned()
        }
        ([], []) => {
            let named = named.iter().map(ToString::to_string).collect::<Vec<_>>();
            format!("Nobody can give one now: the project's policy names {}.", some(&named))
        }
        ([], links) => by_mail(links),
        (may, links) => {
            let links = if links.is_empty() { String::new() } else { format!(" {}", by_mail(links)) };
            format!("{} can give one (`keywheel approve {}`).{links}", some(may), rotation.id)
        }
    };
    format!(
        "It waits for approvals: {} of {required} are given{by}; it expires at {}. {may}",
        votes.given, rotation.permission.expires_at
    )
}

fn by_mail(addresses: &[String]) -> String {
    format!("{} can give one by the link in the mail to that address.", some(addresses))
}

/// A few names, and how many more there are.
fn some(names: &[String]) -> String {
    const NAMED: usize = 8;
    let first = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// When the new key may be sent: when a window opens, in its own zone, and no freeze holds.
fn window(rotation: &Rotation, hold: Hold, now: Timestamp) -> Option<String> {
    if hold != Hold::Window {
        return None;
    }
    let policy = &rotation.rules.policy;
    let at = rotation.rules.next_open(now)?;
    // From the planned date on, windows and freezes count.
    let now_or_planned = rotation.rules.planned_for.map_or(now, |planned| planned.max(now));
    let left = now.until(at).as_secs();
    let left = match (left / 86_400, left / 3600, left.div_ceil(60)) {
        (2.., ..) => format!("{} days", left / 86_400),
        (_, 2.., _) => format!("{} hours", left / 3600),
        (.., minutes) => format!("{minutes} minutes"),
    };
    let window = policy.windows.iter().find(|it| it.is_open(at));
    let first = policy.windows.iter().filter_map(|it| it.next_start(now_or_planned)).min();
    let freeze = freeze_at(&policy.freezes, now_or_planned)
        .or_else(|| first.and_then(|first| freeze_at(&policy.freezes, first)));
    let what = match (window, freeze) {
        // The sentence of the planned date says it.
        _ if at == now_or_planned => return Some(String::new()),
        (Some(_), None) => "its window, which opens on".to_owned(),
        (Some(_), Some(it)) => {
            format!(
                "the freeze {:?} ({} to {}) to end and for its window, which opens on",
                it.name, it.from, it.to
            )
        }
        (None, Some(it)) => format!("the freeze {:?} ({} to {}), which ends on", it.name, it.from, it.to),
        (None, None) => return None,
    };
    let zone = window.map(|it| &it.timezone).or(freeze.map(|it| &it.timezone))?;
    let local = at.as_chrono().with_timezone(&zone.parse().unwrap_or(Zone::UTC)).format("%a %Y-%m-%d %H:%M");
    Some(format!(
        "It waits for {what} {local} {zone} ({at}), in {left}; the approval expires at {}.",
        rotation.permission.expires_at
    ))
}

/// The date before which nothing is sent.
fn planned(rotation: &Rotation, now: Timestamp) -> Option<String> {
    let at = rotation.rules.planned_for.filter(|at| *at > now)?;
    if !matches!(rotation.state, State::AwaitingApproval | State::Approved) {
        return None;
    }
    let zone = rotation.rules.policy.zone();
    let local = at.as_chrono().with_timezone(&zone).format("%a %Y-%m-%d %H:%M");
    let expires = match rotation.state {
        State::Approved => format!("; the approval expires at {}", rotation.permission.expires_at),
        _ => String::new(),
    };
    Some(format!("It is planned for {local} {zone} ({at}): nothing is sent before that{expires}."))
}

/// What happens next in the two states that end with the reply to a PATCH.
fn next_step(it: &Rotation) -> Option<String> {
    match it.state {
        State::Approved if it.hold.is_none() => {
            Some("Atlas is observed and every check is made again; then the new key is sent.".to_owned())
        }
        State::Applying => Some("The new key was sent; it waits until Atlas shows it.".to_owned()),
        _ => None,
    }
}

/// How far the verification or the roll-out is.
fn progress(it: &Rotation) -> Option<String> {
    let guard = it.patching.guard_deadline.map(|at| format!("; the guard ends at {at}")).unwrap_or_default();
    let readings =
        format!("{} of {} readings in a row are true", it.readings.trues, it.rules.verify.readings);
    match it.state {
        State::Verifying | State::RollingBack => {
            Some(format!("Its key is being verified: {readings}{guard}."))
        }
        State::Deploying => {
            let all = &it.rollout.clusters;
            let done = all.iter().filter(|cluster| cluster.seen_updating && cluster.idle >= 2).count();
            Some(format!("Its key is valid; {done} of {} clusters were seen to take it up.", all.len()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::key::{Place, Provider};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn project() -> Project {
        Project {
            group_id: "32b6e34b3d91647abb20e7b8".parse().unwrap(),
            name: "payments".to_owned(),
            provider: Some(Provider::Aws),
            current_key: Some("1234abcd-12ab-34cd-56ef-1234567890ab".parse().unwrap()),
            place: Place::default(),
            key_since: Some(at("2026-01-01T00:00:00Z")),
            key_since_source: Some(SinceSource::Operator),
            valid: Some(true),
            private_networking: false,
            owners: vec!["ada@example.com".to_owned()],
            environment: None,
            credential: "default".to_owned(),
            kms: None,
            alias: None,
            policy: None,
            drift_key: None,
            last_checked_at: None,
            last_error: None,
            next_check_at: at("2026-01-01T00:00:00Z"),
            next_reminder_at: None,
            created_at: at("2026-01-01T00:00:00Z"),
            open_rotation: None,
            holding: Vec::new(),
            silence: None,
            due_ack: None,
            key_ends_at: None,
            version: 1,
        }
    }

    fn told(project: &Project, beside: &Beside<'_>) -> Vec<String> {
        sentences(project, &Policy::default(), beside, at("2026-01-11T00:00:00Z"))
    }

    #[test]
    fn a_healthy_project_has_a_key_an_age_and_a_due_date() {
        assert_eq!(
            told(&project(), &Beside::default()),
            [
                "Atlas holds the key 1234abcd-12ab-34cd-56ef-1234567890ab, as far as Keywheel has seen.",
                "It has served for 10 days, since 2026-01-01T00:00:00.000000Z (source: operator, entered by an operator).",
                "Its cryptoperiod of 90d ends in 80 days, at 2026-04-01T00:00:00.000000Z.",
            ]
        );
    }

    #[test]
    fn everything_that_is_wrong_has_its_sentence() {
        let project = Project {
            current_key: None,
            key_since: None,
            valid: Some(false),
            drift_key: project().current_key,
            last_error: Some("timed out".to_owned()),
            kms: Some("aws".to_owned()),
            owners: Vec::new(),
            ..project()
        };
        let finding = serde_json::json!({
            "groupId": project.group_id, "projectName": "payments", "from": null, "to": null,
            "kind": "changed", "sentences": ["It was set by x."],
        });
        let finding = serde_json::from_value(finding).unwrap();
        let told = told(&project, &Beside { drift: Some(&finding), ..Beside::default() });
        for (sentence, part) in told.iter().zip([
            "held no customer-managed key",
            "reports the key as invalid",
            "Another actor set the key 1234abcd",
            "It was set by x.",
            "failed: timed out",
            "was not polled for the newest key yet",
            "has no owner",
        ]) {
            assert!(sentence.contains(part), "{sentence}: {part}");
        }
        assert_eq!(told.len(), 7, "{told:?}");
    }
}
