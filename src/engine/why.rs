//! Why a project has its status: the sentences that the API, the command line and the pages show.
//!
//! [`Engine::why`] reads the facts that are not in the project's own row; everything else here is text.
//! Nothing is decided and nothing is written.

use super::Engine;
use super::announce::remedy;
use super::command::CommandError;
use crate::domain::key::KeyRef;
use crate::domain::notice::Drifted;
use crate::domain::policy::Policy;
use crate::domain::preflight::{CheckName, failed};
use crate::domain::project::{Project, SinceSource};
use crate::domain::rotation::outcome::Observation;
use crate::domain::rotation::state::{Hold, Rotation};
use crate::domain::silence::Silence;
use crate::domain::time::Timestamp;
use crate::store::ConditionRow;

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
    looked_up: Option<(Timestamp, String)>,
    rotation: Option<&'a Rotation>,
    conditions: Vec<ConditionRow>,
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
        let beside = Beside { drift: drift.as_ref(), looked_up, rotation, conditions };
        let sentences = sentences(project, &self.settings.policy, &beside, self.clock.now());
        Ok(Why { sentences, drift })
    }
}

fn sentences(project: &Project, defaults: &Policy, beside: &Beside<'_>, now: Timestamp) -> Vec<String> {
    let seen = beside.rotation.and_then(|it| it.observing.last.as_ref());
    let mut told = vec![match (seen, &project.current_key) {
        (Some(seen), _) if seen.key.as_ref() != project.current_key.as_ref() => elsewhere(project, seen),
        (_, Some(key)) => format!("Atlas holds the key {key}."),
        (_, None) => "Atlas holds no customer-managed key, as far as Keywheel has seen.".to_owned(),
    }];
    told.extend(age(project, now));
    told.extend(due(project, defaults, now));
    // What an open rotation has read is newer than the record.
    let (valid, held) = match seen {
        Some(seen) => (seen.valid, seen.key.as_ref()),
        None => (project.valid, project.current_key.as_ref()),
    };
    if valid == Some(false) {
        let key = held.map_or_else(|| "the key".to_owned(), |key| format!("the key {key}"));
        told.push(format!(
            "Atlas reports {key} as invalid and will shut the clusters down; re-enable that key in its key service."
        ));
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
    told.extend(beside.rotation.map(open).unwrap_or_default());
    told
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
fn open(rotation: &Rotation) -> Vec<String> {
    let mut told = vec![format!("Rotation {} to {} is {}.", rotation.id, rotation.new_key, rotation.state)];
    if let Some(hold) = rotation.hold {
        told.push(format!("It waits: {hold}."));
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
                "Atlas holds the key 1234abcd-12ab-34cd-56ef-1234567890ab.",
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
            "holds no customer-managed key",
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
