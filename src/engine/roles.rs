//! Whether the credential of a project is still Project Owner: asked once a day, long before a rotation needs it.
//!
//! Each project has its own time of the day, so that a fleet is spread over it and a restart asks for none again.

use std::time::Duration;

use super::looks::hash;
use super::{Engine, conditions};
use crate::atlas::AtlasApi;
use crate::domain::ids::GroupId;
use crate::domain::project::Project;
use crate::domain::time::Timestamp;
use crate::store::StoreError;

/// A day, in microseconds.
const DAY: i64 = 86_400_000_000;

/// A credential that is not Project Owner is asked for so often.
const AGAIN: Duration = Duration::from_mins(15);

/// Asks for the role when that is due since `project` was observed last. An answer that does not come says nothing,
/// and no fault here keeps the key from being read.
pub(super) async fn ask(engine: &Engine, project: &Project) {
    if let Err(error) = try_ask(engine, project).await {
        tracing::warn!(project.id = %project.group_id, error = %error, "the role of the credential was not asked for or not written down");
    }
}

async fn try_ask(engine: &Engine, project: &Project) -> Result<(), StoreError> {
    let (group, now) = (&project.group_id, engine.clock.now());
    if !is_due(group, project.last_checked_at, now) && !is_again(engine, group, now).await? {
        return Ok(());
    }
    let timeout = engine.settings.request_timeout.get();
    match engine.atlas.may_change(&project.credential, group, timeout).await {
        Ok(is_owner) => conditions::note_role(engine, group, is_owner).await,
        Err(failure) => {
            tracing::debug!(project.id = %group, detail = failure.detail, "Atlas did not say whether the credential is Project Owner");
            Ok(())
        }
    }
}

/// Whether the project's time of the day lies between its last observation and now.
fn is_due(group: &GroupId, last: Option<Timestamp>, now: Timestamp) -> bool {
    let offset = i64::try_from(hash(group.as_str()) >> 1).unwrap_or_default() % DAY;
    let slot = now.as_micros() - (now.as_micros() - offset).rem_euclid(DAY);
    last.is_none_or(|last| last.as_micros() < slot)
}

async fn is_again(engine: &Engine, group: &GroupId, now: Timestamp) -> Result<bool, StoreError> {
    if !conditions::suspects(engine).contains(group) {
        return Ok(false);
    }
    let asked = engine.store.readings(group).await?.not_owner.map(|run| run.last);
    Ok(asked.is_some_and(|at| at > now || now.since(at) >= AGAIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_project_has_its_time_of_the_day() {
        let (group, other): (GroupId, GroupId) =
            ("32b6e34b3d91647abb20e7b8".parse().unwrap(), "32b6e34b3d91647abb20e7b9".parse().unwrap());
        let begin: Timestamp = "2026-03-01".parse().unwrap();
        let every = Duration::from_secs(90);
        let asked = |group: &GroupId| -> Vec<u32> {
            (1..1920)
                .filter(|look| is_due(group, Some(begin + every * (look - 1)), begin + every * *look))
                .collect()
        };
        let (one, two) = (asked(&group), asked(&other));
        assert_eq!((one.len(), two.len()), (2, 2), "{one:?} {two:?}");
        assert_eq!(one[1] - one[0], 960);
        assert_ne!(one, two);
        assert!(is_due(&group, None, begin));
    }
}
