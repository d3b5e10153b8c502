//! Projects and their owners.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sqlx::FromRow;

use super::lanes::Lane;
use super::readable::{Listed, listed, readable};
use super::retry::persist;
use super::seal::Seal;
use super::sealed_projects::SealedProject;
use super::types::{Instant, instant, json, storable};
use super::{
    FormerProject, Governed, KeyChange, NewAudit, NewOutbox, Sql, Store, StoreError, Tx, each, read, urgent,
};
use crate::domain::approver::Approver;
use crate::domain::hint::Watch;
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::key::{KeyRef, Place, Provider};
use crate::domain::notice::Drifted;
use crate::domain::project::{OpenRotation, PolicyOverride, Project, SinceSource};
use crate::domain::rotation::state::State;
use crate::domain::silence::{DueAck, Silence};
use crate::domain::time::Timestamp;

macro_rules! columns {
    () => {
        "SELECT p.group_id, p.name, p.provider, p.current_key, p.place, p.key_since, p.key_since_source, \
         CASE WHEN p.key_ends_of = p.current_key THEN p.key_ends_at END AS key_ends_at, p.valid, \
         p.private_networking, p.environment, p.credential, p.policy, p.drift_key, p.last_checked_at, p.last_error, \
         p.next_check_at, p.next_reminder_at, p.created_at, p.version, p.kms, p.alias, r.id AS open_id, r.state AS open_state, \
         (SELECT string_agg(c.kind, ',') FROM conditions c WHERE c.subject = p.group_id AND c.ended_at IS NULL) AS holding, \
         s.began_at AS silence_began, s.ends_at AS silence_ends, s.silenced_by, \
         a.cycle AS ack_cycle, a.until AS ack_until, a.acknowledged_by AS ack_by \
         FROM projects p LEFT JOIN rotations r ON r.group_id = p.group_id AND r.state IN ('awaiting_approval', \
         'approved', 'applying', 'verifying', 'deploying', 'rolling_back', 'needs_operator') \
         LEFT JOIN silences s ON s.group_id = p.group_id LEFT JOIN due_acks a ON a.group_id = p.group_id "
    };
}

const GET: Sql = Sql::same(concat!(columns!(), "WHERE p.group_id = $1"));
const LIST: Sql = Sql::same(concat!(
    columns!(),
    "WHERE p.group_id > $1 AND ($2 = '' OR p.provider = $2) AND ($3 = '' OR p.name = $3) \
     AND ($4 = '' OR EXISTS (SELECT 1 FROM owners o WHERE o.group_id = p.group_id AND o.mail = $4)) \
     ORDER BY p.group_id LIMIT $5"
));
const BY_IDS: Sql = Sql {
    sqlite: concat!(columns!(), "WHERE p.group_id IN (SELECT value FROM json_each($1))"),
    postgres: concat!(columns!(), "WHERE p.group_id IN (SELECT json_array_elements_text($1::text::json))"),
};
const OWNERS_OF: Sql = Sql {
    sqlite: "SELECT group_id, mail FROM owners WHERE group_id IN (SELECT value FROM json_each($1)) \
             ORDER BY group_id, position",
    postgres: "SELECT group_id, mail FROM owners WHERE group_id IN (SELECT json_array_elements_text($1::text::json)) \
               ORDER BY group_id, position",
};
// Two ranges of one index: with OR, SQLite would scan the whole index in its order.
const DUE: Sql = Sql::same(
    "SELECT group_id, credential, next_check_at, version, last_error IS NOT NULL AS failed FROM projects WHERE next_check_at <= $1 \
     UNION ALL \
     SELECT group_id, credential, next_check_at, version, last_error IS NOT NULL AS failed FROM projects WHERE next_check_at > $2 \
     ORDER BY next_check_at, group_id",
);
const LOOK_SOON: Sql =
    Sql::same("UPDATE projects SET next_check_at = $2 WHERE group_id = $1 AND next_check_at > $2");
// One whose last observation failed may wait for as long as Atlas asks.
const LOOK_BY: Sql =
    Sql::same("UPDATE projects SET next_check_at = $1 WHERE next_check_at > $1 AND last_error IS NULL");
const DUE_REMINDERS: Sql = Sql::same(concat!(
    columns!(),
    "WHERE p.next_reminder_at <= $1 ORDER BY p.next_reminder_at, p.group_id LIMIT $2"
));
// Whatever is not as it should be, and whatever was told to be so.
const SUSPECT: Sql = Sql::same(concat!(
    columns!(),
    "WHERE p.group_id IN (SELECT group_id FROM readings UNION SELECT subject FROM conditions WHERE ended_at IS NULL \
     UNION SELECT group_id FROM rotations WHERE state IN ('approved', 'applying', 'needs_operator') \
     UNION SELECT group_id FROM projects WHERE drift_key IS NOT NULL \
     UNION SELECT group_id FROM projects WHERE current_key IS NULL) ORDER BY p.group_id"
));
const OWNERS: Sql = Sql::same("SELECT mail FROM owners WHERE group_id = $1 ORDER BY position");
// For a page of the list, which is a range of ids: one statement instead of one for each project.
const OWNERS_BETWEEN: Sql = Sql::same(
    "SELECT group_id, mail FROM owners WHERE group_id >= $1 AND group_id <= $2 ORDER BY group_id, position",
);
const OWNED_BY: Sql = Sql::same("SELECT group_id FROM owners WHERE lower(mail) = lower($1)");
const ALL_OWNERS: Sql = Sql::same("SELECT DISTINCT mail FROM owners ORDER BY mail");
const BY_CREDENTIAL: Sql = Sql::same("SELECT credential, COUNT(*) FROM projects GROUP BY credential");
const WATCHES: Sql = Sql::same(
    "SELECT p.group_id, p.current_key, p.place, p.alias, p.provider, r.old_key, r.new_key, r.state FROM projects p \
     LEFT JOIN rotations r ON r.group_id = p.group_id AND r.state IN ('awaiting_approval', 'approved', 'applying', \
     'verifying', 'deploying', 'rolling_back', 'needs_operator') ORDER BY p.group_id",
);
const ELSEWHERE: Sql = Sql {
    sqlite: "SELECT group_id, name, environment, current_key FROM projects WHERE group_id <> $1 AND environment <> $2 \
             AND instr(lower(current_key), $3) > 0 ORDER BY group_id",
    postgres: "SELECT group_id, name, environment, current_key FROM projects WHERE group_id <> $1 AND environment <> $2 \
               AND strpos(lower(current_key), $3) > 0 ORDER BY group_id",
};
const NEXT_CHECK: Sql = Sql::same("SELECT MIN(next_check_at) FROM projects");
const INSERT: Sql = Sql::same(
    "INSERT INTO projects (group_id, name, provider, current_key, place, key_since, key_since_source, valid, \
     private_networking, environment, credential, policy, drift_key, last_checked_at, last_error, next_check_at, \
     next_reminder_at, created_at, kms, alias, version) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, \
     $13, $14, $15, $16, $17, $18, $19, $20, 1) \
     ON CONFLICT DO NOTHING",
);
// An observation that found nothing new may have come between the read and this write: its instant stays.
const UPDATE: Sql = Sql::same(
    "UPDATE projects SET name = $3, provider = $4, current_key = $5, place = $6, key_since = $7, \
     key_since_source = $8, valid = $9, private_networking = $10, environment = $11, credential = $12, policy = $13, \
     drift_key = $14, last_checked_at = CASE WHEN last_checked_at IS NULL OR $15 > last_checked_at THEN $15 ELSE last_checked_at END, last_error = $16, next_check_at = $17, next_reminder_at = $18, \
     kms = $19, alias = $20, version = version + 1 \
     WHERE group_id = $1 AND version = $2",
);
// An observation that found nothing new raises no version, so that no edit fails because of it.
const CHECKED: Sql = Sql::same(
    "UPDATE projects SET last_checked_at = $3, next_check_at = $4 WHERE group_id = $1 AND version = $2",
);
// Only rows that are as the looks have read them: another writer's instant stays.
/// Observations in one statement: the database takes their JSON apart in memory.
const QUIET_AT_ONCE: usize = 256;
const QUIET: Sql = Sql {
    sqlite: "UPDATE projects SET last_checked_at = CASE WHEN last_checked_at > q.at AND last_checked_at <= $2 \
             THEN last_checked_at ELSE COALESCE(q.at, last_checked_at) END, next_check_at = q.next FROM (SELECT \
             value ->> 'group_id' AS observed, value ->> 'version' AS seen, value ->> 'was' AS was, value ->> 'at' AS at, \
             value ->> 'next' AS next FROM json_each($1)) AS q WHERE group_id = q.observed AND version = q.seen \
             AND next_check_at = q.was",
    postgres: "UPDATE projects SET last_checked_at = CASE WHEN last_checked_at > q.at AND last_checked_at <= $2 \
               THEN last_checked_at ELSE COALESCE(q.at, last_checked_at) END, next_check_at = q.next \
               FROM json_to_recordset($1::text::json) AS q(group_id text, version bigint, was timestamptz, at timestamptz, \
               next timestamptz) WHERE projects.group_id = q.group_id AND projects.version = q.version \
               AND next_check_at = q.was",
};
const DELETE: Sql = Sql::same("DELETE FROM projects WHERE group_id = $1");
const DELETE_OWNERS: Sql = Sql::same("DELETE FROM owners WHERE group_id = $1");
const INSERT_OWNER: Sql =
    Sql::same("INSERT INTO owners (group_id, mail, position) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING");
const OBSERVED: Sql = Sql::same(
    "UPDATE projects SET version = version + CASE WHEN valid IS DISTINCT FROM $2 OR last_error IS NOT NULL THEN 1 ELSE 0 END, \
     valid = $2, last_checked_at = COALESCE($3, last_checked_at), last_error = NULL WHERE group_id = $1",
);
const NEW_KEY: Sql = Sql::same(
    "UPDATE projects SET current_key = $2, key_since = $3, key_since_source = $4, drift_key = NULL, \
     next_reminder_at = $3, version = version + 1 WHERE group_id = $1",
);
// Few projects have approvers of their own.
const NAMING: Sql = Sql::same(
    "SELECT group_id, policy FROM projects WHERE policy LIKE '%\"approvers\"%' OR policy LIKE '%\"emergency\"%' ORDER BY group_id",
);

pub(super) const STATEMENTS: &[&Sql] = &[
    &NAMING,
    &OWNED_BY,
    &ALL_OWNERS,
    &BY_CREDENTIAL,
    &GET,
    &LIST,
    &DUE,
    &LOOK_SOON,
    &LOOK_BY,
    &DUE_REMINDERS,
    &SUSPECT,
    &OWNERS,
    &OWNERS_BETWEEN,
    &BY_IDS,
    &OWNERS_OF,
    &WATCHES,
    &ELSEWHERE,
    &NEXT_CHECK,
    &INSERT,
    &UPDATE,
    &CHECKED,
    &QUIET,
    &DELETE,
    &DELETE_OWNERS,
    &INSERT_OWNER,
    &OBSERVED,
    &NEW_KEY,
];

/// Which projects a list shows; `None` means all.
#[derive(Clone, Debug, Default)]
pub struct ProjectFilter {
    /// Of this provider.
    pub provider: Option<Provider>,
    /// With this owner.
    pub owner: Option<String>,
    /// With exactly this name.
    pub name: Option<String>,
}

/// The change of a project by a step of its rotation.
#[derive(Clone, Debug)]
pub struct ProjectWrite {
    /// The project.
    pub group_id: GroupId,
    /// Atlas' `valid` at the last observation.
    pub valid: Option<bool>,
    /// The instant of that observation.
    pub checked_at: Option<Timestamp>,
    /// The key that serves from now on.
    pub key_change: Option<KeyChange>,
}

/// A key that another actor has set.
#[derive(Clone, Debug)]
pub struct Drift {
    /// The finding about it.
    pub finding: Drifted,
    /// The start of its present service, and the source; the project keeps the start of its first
    /// service.
    pub since: (Timestamp, SinceSource),
}

/// An observation that found nothing new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QuietLook {
    /// The project.
    pub group_id: GroupId,
    /// The version that was observed.
    pub version: i64,
    /// Since when the observation was due.
    pub was: Timestamp,
    /// The instant of the last observation.
    pub at: Option<Timestamp>,
    /// When the next one is due.
    pub next: Timestamp,
}

/// A project whose observation is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueLook {
    /// The project.
    pub group_id: GroupId,
    /// The credential that reads it.
    pub credential: String,
    /// Since when it is due.
    pub next_check_at: Timestamp,
    /// The project's version.
    pub version: i64,
    /// Whether its last observation failed.
    pub failed: bool,
}

#[derive(FromRow)]
struct DueRow {
    group_id: String,
    credential: String,
    next_check_at: Instant,
    version: i64,
    failed: bool,
}

impl DueRow {
    fn due(self) -> Result<DueLook, StoreError> {
        Ok(DueLook {
            group_id: self
                .group_id
                .parse()
                .map_err(|_| StoreError::corrupt("projects", "group_id", &self.group_id))?,
            credential: self.credential,
            next_check_at: self.next_check_at.or(StoreError::corrupt(
                "projects",
                "next_check_at",
                &self.group_id,
            ))?,
            version: self.version,
            failed: self.failed,
        })
    }
}

#[derive(FromRow)]
struct ProjectRow {
    group_id: String,
    name: String,
    provider: Option<String>,
    current_key: Option<String>,
    place: String,
    key_since: Option<Instant>,
    key_since_source: Option<String>,
    key_ends_at: Option<Instant>,
    valid: Option<bool>,
    private_networking: bool,
    environment: Option<String>,
    credential: String,
    policy: Option<String>,
    drift_key: Option<String>,
    last_checked_at: Option<Instant>,
    last_error: Option<String>,
    next_check_at: Instant,
    next_reminder_at: Option<Instant>,
    created_at: Instant,
    version: i64,
    kms: Option<String>,
    alias: Option<String>,
    open_id: Option<uuid::Uuid>,
    open_state: Option<String>,
    holding: Option<String>,
    silence_began: Option<Instant>,
    silence_ends: Option<Instant>,
    silenced_by: Option<String>,
    ack_cycle: Option<String>,
    ack_until: Option<Instant>,
    ack_by: Option<String>,
}

#[derive(FromRow)]
struct WatchRow {
    group_id: String,
    current_key: Option<String>,
    place: String,
    alias: Option<String>,
    provider: Option<String>,
    old_key: Option<String>,
    new_key: Option<String>,
    state: Option<String>,
}

impl WatchRow {
    fn watch(self) -> Result<Watch, StoreError> {
        let bad = |column| StoreError::corrupt("projects", column, &self.group_id);
        let provider: Option<Provider> =
            self.provider.map(|text| text.parse().map_err(|_| bad("provider"))).transpose()?;
        let state: Option<State> =
            self.state.map(|text| text.parse().map_err(|_| bad("state"))).transpose()?;
        let keys = [self.old_key, self.new_key].into_iter().flatten();
        Ok(Watch {
            key: self
                .current_key
                .map(|text| serde_json::from_str(&text).map_err(|_| bad("current_key")))
                .transpose()?,
            place: serde_json::from_str(&self.place).map_err(|_| bad("place"))?,
            alias: self.alias,
            earlier: Vec::new(),
            in_play: keys.filter_map(|key| Some(KeyRef::observed(provider?, &key))).collect(),
            patched: state.is_some_and(|it| it.is_after_patch() || it == State::NeedsOperator),
            group: self.group_id.parse().map_err(|_| bad("group_id"))?,
        })
    }
}

impl ProjectRow {
    fn project(self, owners: Vec<String>) -> Result<Project, StoreError> {
        let bad = |column| StoreError::corrupt("projects", column, &self.group_id);
        let key = |text: Option<String>, column: &'static str| -> Result<Option<KeyRef>, StoreError> {
            text.map(|text| serde_json::from_str(&text).map_err(|_| bad(column))).transpose()
        };
        let open_rotation = match (self.open_id, &self.open_state) {
            (Some(id), Some(state)) => {
                Some(OpenRotation { id: RotationId(id), state: state.parse().map_err(|_| bad("state"))? })
            }
            _ => None,
        };
        Ok(Project {
            group_id: self.group_id.parse().map_err(|_| bad("group_id"))?,
            provider: self.provider.map(|text| text.parse().map_err(|_| bad("provider"))).transpose()?,
            current_key: key(self.current_key, "current_key")?,
            place: serde_json::from_str::<Place>(&self.place).map_err(|_| bad("place"))?,
            key_since: instant(self.key_since, || bad("key_since"))?,
            key_since_source: self
                .key_since_source
                .map(|text| text.parse().map_err(|_| bad("key_since_source")))
                .transpose()?,
            // It authorises nothing, and the next lookup writes it anew: a bad one must not make the project unread.
            key_ends_at: self.key_ends_at.and_then(|at| at.or(bad("key_ends_at")).ok()),
            valid: self.valid,
            private_networking: self.private_networking,
            owners,
            environment: self.environment,
            credential: self.credential,
            kms: self.kms,
            alias: self.alias,
            policy: self
                .policy
                .map(|text| serde_json::from_str(&text).map_err(|_| bad("policy")))
                .transpose()?,
            drift_key: key(self.drift_key, "drift_key")?,
            last_checked_at: instant(self.last_checked_at, || bad("last_checked_at"))?,
            last_error: self.last_error,
            next_check_at: self.next_check_at.or(bad("next_check_at"))?,
            next_reminder_at: instant(self.next_reminder_at, || bad("next_reminder_at"))?,
            created_at: self.created_at.or(bad("created_at"))?,
            open_rotation,
            // Conditions of a newer version are left out.
            holding: self
                .holding
                .iter()
                .flat_map(|kinds| kinds.split(','))
                .filter_map(|kind| kind.parse().ok())
                .collect(),
            silence: match (self.silence_began, self.silence_ends, self.silenced_by) {
                (Some(began_at), Some(ends_at), Some(by)) => Some(Silence {
                    began_at: began_at.or(bad("silence_began"))?,
                    ends_at: ends_at.or(bad("silence_ends"))?,
                    by,
                }),
                _ => None,
            },
            due_ack: match (self.ack_cycle, self.ack_until, self.ack_by) {
                // One that cannot be read keeps nothing back.
                (Some(cycle), Some(until), Some(by)) => {
                    until.or(bad("ack_until")).ok().map(|until| DueAck { cycle, until, by })
                }
                _ => None,
            },
            version: self.version,
            name: self.name,
        })
    }
}

impl Store {
    /// Reads one project.
    ///
    /// # Errors
    /// Fails when the database or a stored value cannot be read.
    pub async fn project(&self, group: &GroupId) -> Result<Option<Project>, StoreError> {
        let row: Option<ProjectRow> = read!(self, GET, |pool, text| sqlx::query_as(text)
            .bind(group.as_str())
            .fetch_optional(pool)
            .await)?;
        match row {
            Some(row) => self.with_owners(row).await.map(Some),
            None => Ok(None),
        }
    }

    /// The owners of a project, for a step that writes to them.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn owners(&self, group: &GroupId) -> Result<Vec<String>, StoreError> {
        persist("project.owners", |_| async move {
            let owners: Vec<(String,)> = urgent!(self, OWNERS, |pool, text| sqlx::query_as(text)
                .bind(group.as_str())
                .fetch_all(pool)
                .await)?;
            Ok(owners.into_iter().map(|(mail,)| mail).collect())
        })
        .await
    }

    /// Projects in the order of their ids, after `after`, without those that cannot be read.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn projects(
        &self,
        filter: &ProjectFilter,
        after: Option<&GroupId>,
        limit: usize,
    ) -> Result<Vec<Project>, StoreError> {
        let mut after = after.map_or_else(String::new, ToString::to_string);
        loop {
            let (page, last) = self.project_page(filter, &after, limit).await?;
            let projects = readable(page)?;
            // A page of nothing but unreadable rows is not the end of the list.
            match last {
                Some(last) if projects.is_empty() => after = last,
                _ => return Ok(projects),
            }
        }
    }

    /// Projects in the order of their ids, after `after`; those that cannot be read by their ids.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn list_projects(
        &self,
        filter: &ProjectFilter,
        after: Option<&GroupId>,
        limit: usize,
    ) -> Result<Vec<Listed<Project>>, StoreError> {
        listed(self.project_page(filter, after.map_or("", GroupId::as_str), limit).await?.0)
    }

    /// One page of projects as they are stored, and its last id; `None` when it is empty.
    pub(super) async fn project_page(
        &self,
        filter: &ProjectFilter,
        after: &str,
        limit: usize,
    ) -> Result<(Vec<Result<Project, StoreError>>, Option<String>), StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows: Vec<ProjectRow> = read!(self, LIST, |pool, text| sqlx::query_as(text)
            .bind(after)
            .bind(filter.provider.map_or("", Provider::as_str))
            .bind(filter.name.as_deref().unwrap_or_default())
            .bind(filter.owner.as_deref().unwrap_or_default())
            .bind(limit)
            .fetch_all(pool)
            .await)?;
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok((Vec::new(), None)) };
        let owners: Vec<(String, String)> = read!(self, OWNERS_BETWEEN, |pool, text| sqlx::query_as(text)
            .bind(first.group_id.as_str())
            .bind(last.group_id.as_str())
            .fetch_all(pool)
            .await)?;
        let last = Some(last.group_id.clone());
        let mut owners = owners.into_iter().peekable();
        let mut projects = Vec::with_capacity(rows.len());
        for row in rows {
            let mut own = Vec::new();
            while let Some((_, mail)) = owners.next_if(|(group, _)| *group <= row.group_id) {
                own.push(mail);
            }
            projects.push(row.project(own));
        }
        Ok((projects, last))
    }

    /// These projects in the given order, without those that are gone or cannot be read.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn projects_of(&self, ids: &[GroupId]) -> Result<Vec<Project>, StoreError> {
        let list = serde_json::json!(ids).to_string();
        let rows: Vec<ProjectRow> =
            read!(self, BY_IDS, |pool, text| sqlx::query_as(text).bind(&list).fetch_all(pool).await)?;
        let mails: Vec<(String, String)> =
            read!(self, OWNERS_OF, |pool, text| sqlx::query_as(text).bind(&list).fetch_all(pool).await)?;
        let mut owners: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (group, mail) in mails {
            owners.entry(group).or_default().push(mail);
        }
        let projects = rows.into_iter().map(|row| {
            let own = owners.remove(&row.group_id).unwrap_or_default();
            row.project(own)
        });
        let mut projects = readable(projects)?;
        projects.sort_by_key(|it| ids.iter().position(|id| *id == it.group_id));
        Ok(projects)
    }

    /// Name and environment of the projects of another environment than `environment` that hold `key`, in
    /// any version.
    ///
    /// # Errors
    /// Fails when the database or a stored value cannot be read.
    pub async fn elsewhere(
        &self,
        group: &GroupId,
        environment: &str,
        key: &KeyRef,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let stem = &key.stem();
        let rows: Vec<(String, String, String, String)> = persist("project.elsewhere", |_| async move {
            let rows = urgent!(self, ELSEWHERE, |pool, text| sqlx::query_as(text)
                .bind(group.as_str())
                .bind(environment)
                .bind(stem)
                .fetch_all(pool)
                .await)?;
            Ok(rows)
        })
        .await?;
        let mut found = Vec::new();
        for (id, name, environment, held) in rows {
            let held: KeyRef = serde_json::from_str(&held)
                .map_err(|_| StoreError::corrupt("projects", "current_key", &id))?;
            if held.shares_key(key) {
                found.push((name, environment));
            }
        }
        Ok(found)
    }

    /// The identifiers of every project for hints, without the keys that served before and without
    /// projects that cannot be read.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn watches(&self) -> Result<Vec<Watch>, StoreError> {
        let rows: Vec<WatchRow> =
            read!(self, WATCHES, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        readable(rows.into_iter().map(WatchRow::watch))
    }

    /// When the next observation of a project is due, without the looks that are not written yet.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn next_check(&self) -> Result<Option<Timestamp>, StoreError> {
        let (at,): (Option<Timestamp>,) =
            read!(self, NEXT_CHECK, |pool, text| sqlx::query_as(text).fetch_one(pool).await)?;
        Ok(at)
    }

    /// Makes the observation of these projects due at `now`, where it is due later; returns whether any was.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn look_soon(&self, groups: &[GroupId], now: Timestamp) -> Result<bool, StoreError> {
        self.transact("project.look_soon", Lane::Step, groups.to_vec(), move |tx, groups, _| {
            Box::pin(async move {
                let mut changed = 0;
                for group in groups {
                    changed += each!(tx, LOOK_SOON, |conn, text| sqlx::query(text)
                        .bind(group.as_str())
                        .bind(now)
                        .execute(conn)
                        .await
                        .map(|done| done.rows_affected()))?;
                }
                Ok(changed > 0)
            })
        })
        .await
    }

    /// Has every project observed by `latest`: the interval may be shorter than when it was scheduled.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn look_by(&self, latest: Timestamp) -> Result<(), StoreError> {
        self.transact("project.look_by", Lane::Rest, latest, move |tx, latest, _| {
            Box::pin(async move {
                each!(tx, LOOK_BY, |conn, text| sqlx::query(text)
                    .bind(*latest)
                    .execute(conn)
                    .await
                    .map(drop))?;
                Ok(())
            })
        })
        .await
    }

    /// The observations that are due, the most overdue first, and those whose instant is after `beyond`: a clock
    /// that was wrong wrote it.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn due_looks(&self, now: Timestamp, beyond: Timestamp) -> Result<Vec<DueLook>, StoreError> {
        let rows: Vec<DueRow> =
            read!(self, DUE, |pool, text| sqlx::query_as(text).bind(now).bind(beyond).fetch_all(pool).await)?;
        readable(rows.into_iter().map(DueRow::due))
    }

    /// Projects whose reminders are due for a check, without those that cannot be read.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn due_reminders(&self, now: Timestamp, limit: usize) -> Result<Vec<Project>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = read!(self, DUE_REMINDERS, |pool, text| sqlx::query_as(text)
            .bind(now)
            .bind(limit)
            .fetch_all(pool)
            .await)?;
        self.with_all_owners(rows).await
    }

    /// The projects about which something holds or may hold, without their owners and without those that
    /// cannot be read.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn suspects(&self) -> Result<Vec<Project>, StoreError> {
        let rows: Vec<ProjectRow> =
            urgent!(self, SUSPECT, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        readable(rows.into_iter().map(|row| row.project(Vec::new())))
    }

    /// Everybody who owns a project.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn all_owners(&self) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> =
            urgent!(self, ALL_OWNERS, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        Ok(rows.into_iter().map(|(mail,)| mail).collect())
    }

    /// Whom the policies of single projects name as approvers, without those that cannot be read.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn named_approvers(&self) -> Result<BTreeSet<Approver>, StoreError> {
        let rows: Vec<(String, String)> =
            read!(self, NAMING, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        let policies = readable(rows.into_iter().map(|(group, policy)| {
            serde_json::from_str::<PolicyOverride>(&policy)
                .map_err(|_| StoreError::corrupt("projects", "policy", group))
        }))?;
        let named = |it: PolicyOverride| {
            it.approvers.unwrap_or_default().into_iter().chain(it.emergency.unwrap_or_default().by)
        };
        Ok(policies.into_iter().flat_map(named).collect())
    }

    /// The projects that this mailbox owns.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn groups_owned_by(&self, mail: &str) -> Result<BTreeSet<String>, StoreError> {
        let rows: Vec<(String,)> =
            read!(self, OWNED_BY, |pool, text| sqlx::query_as(text).bind(mail).fetch_all(pool).await)?;
        Ok(rows.into_iter().map(|(group,)| group).collect())
    }

    /// How many projects each credential reads.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn credential_counts(&self) -> Result<BTreeMap<String, usize>, StoreError> {
        let rows: Vec<(String, i64)> =
            urgent!(self, BY_CREDENTIAL, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        Ok(rows.into_iter().map(|(name, count)| (name, usize::try_from(count).unwrap_or_default())).collect())
    }

    async fn with_all_owners(&self, rows: Vec<ProjectRow>) -> Result<Vec<Project>, StoreError> {
        let mut projects = Vec::with_capacity(rows.len());
        for row in rows {
            projects.push(self.with_owners(row).await);
        }
        readable(projects)
    }

    async fn with_owners(&self, row: ProjectRow) -> Result<Project, StoreError> {
        let owners: Vec<(String,)> = read!(self, OWNERS, |pool, text| sqlx::query_as(text)
            .bind(row.group_id.as_str())
            .fetch_all(pool)
            .await)?;
        row.project(owners.into_iter().map(|(mail,)| mail).collect())
    }

    /// Writes a new project.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when it exists already.
    pub async fn insert_project(
        &self,
        it: &Project,
        audit: &[NewAudit],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.insert_governed_project(it, Governed::default(), audit, &[], now).await
    }

    /// The same, with the rows about its rules. What an earlier removal kept of it is forgotten.
    ///
    /// # Errors
    /// As [`Store::insert_project`], and [`StoreError::Tampered`] when what was kept is not what Keywheel wrote.
    pub async fn insert_governed_project(
        &self,
        it: &Project,
        governed: Governed,
        audit: &[NewAudit],
        outbox: &[NewOutbox],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let args = (it.clone(), governed, audit.to_vec(), outbox.to_vec());
        self.transact(
            "project.insert",
            Lane::Command,
            args,
            move |tx, (it, governed, audit, outbox), unsure| {
                Box::pin(async move {
                    if !tx.insert_project(it).await? {
                        let own = unsure && tx.is_appended(audit, now).await?;
                        let name = it.group_id.to_string();
                        return if own { Ok(()) } else { Err(StoreError::Exists { what: "project", name }) };
                    }
                    tx.write_owners(it).await?;
                    tx.write_ledger(it, now).await?;
                    let mut seals = vec![SealedProject::of(it).seal()?];
                    seals.extend(tx.forget_former(&it.group_id).await?);
                    seals.extend(tx.write_governed(governed, now).await?);
                    seals.extend(tx.write_announcing(outbox, now).await?);
                    tx.append_sealing(audit, seals, now).await
                })
            },
        )
        .await
    }

    /// Writes a project if it still has `version`; returns the new version.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when another write was faster.
    pub async fn update_project(
        &self,
        it: &Project,
        version: i64,
        audit: &[NewAudit],
        outbox: &[NewOutbox],
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        self.update_governed_project(it, version, Governed::default(), (audit, outbox), now).await
    }

    /// The same, with the rows about its rules.
    ///
    /// # Errors
    /// As [`Store::update_project`].
    pub async fn update_governed_project(
        &self,
        it: &Project,
        version: i64,
        governed: Governed,
        (audit, outbox): (&[NewAudit], &[NewOutbox]),
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        let write = ProjectChange {
            it: it.clone(),
            version,
            drift: None,
            governed,
            is_edit: true,
            audit: audit.to_vec(),
            outbox: outbox.to_vec(),
            now,
        };
        self.transact("project.update", Lane::Command, write, |tx, write, unsure| {
            Box::pin(tx.change_project(write, unsure))
        })
        .await
    }

    /// The same, with the finding about a key that another actor has set.
    ///
    /// # Errors
    /// As [`Store::update_project`].
    pub async fn drift_project(
        &self,
        it: &Project,
        version: i64,
        drift: Option<&Drift>,
        (audit, outbox): (&[NewAudit], &[NewOutbox]),
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        let write = ProjectChange {
            it: it.clone(),
            version,
            drift: drift.cloned(),
            governed: Governed::default(),
            is_edit: false,
            audit: audit.to_vec(),
            outbox: outbox.to_vec(),
            now,
        };
        self.transact("project.observe", Lane::Rest, write, |tx, write, unsure| {
            Box::pin(tx.change_project(write, unsure))
        })
        .await
    }

    /// Records an observation that found nothing new, if the project still has `version`; returns whether
    /// it had.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn project_checked(
        &self,
        group: &GroupId,
        version: i64,
        at: Option<Timestamp>,
        next: Timestamp,
    ) -> Result<bool, StoreError> {
        self.transact("project.checked", Lane::Rest, group.clone(), move |tx, group, _| {
            Box::pin(async move {
                let done = each!(tx, CHECKED, |conn, text| sqlx::query(text)
                    .bind(group.as_str())
                    .bind(version)
                    .bind(at)
                    .bind(next)
                    .execute(conn)
                    .await
                    .map(|done| done.rows_affected()))?;
                Ok(done > 0)
            })
        })
        .await
    }

    /// Records observations that found nothing new, in one transaction. A project that another writer has changed
    /// meanwhile, or whose next observation was pulled forward, is left as it is.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn write_quiet_looks(&self, looks: &[QuietLook], now: Timestamp) -> Result<(), StoreError> {
        let looks =
            looks.chunks(QUIET_AT_ONCE).map(|looks| json("projects", "next_check_at", "quiet looks", &looks));
        let looks: Vec<String> = looks.collect::<Result<_, _>>()?;
        self.transact("project.quiet_looks", Lane::Rest, looks, move |tx, looks, _| {
            Box::pin(async move {
                for looks in looks {
                    each!(tx, QUIET, |conn, text| sqlx::query(text)
                        .bind(looks.as_str())
                        .bind(now)
                        .execute(conn)
                        .await
                        .map(drop))?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Removes a project; its rotations and audit rows stay.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn delete_project(
        &self,
        group: &GroupId,
        audit: &[NewAudit],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.remove_governed_project(group, None, Governed::default(), audit, now).await
    }

    /// The same; `kept` comes back with the project when it is tracked again, unless it is not what Keywheel wrote.
    ///
    /// # Errors
    /// As [`Store::delete_project`].
    pub async fn remove_governed_project(
        &self,
        group: &GroupId,
        kept: Option<FormerProject>,
        governed: Governed,
        audit: &[NewAudit],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let args = (group.clone(), kept, governed, audit.to_vec());
        self.transact(
            "project.delete",
            Lane::Command,
            args,
            move |tx, (group, kept, governed, audit), unsure| {
                Box::pin(async move {
                    if unsure && tx.is_appended(audit, now).await? {
                        return Ok(());
                    }
                    let subject = format!("project/{group}");
                    let mut seals = vec![Seal::end(subject.as_str())];
                    if let Some(kept) = kept {
                        let seal = SealedProject::former(group, kept).seal()?;
                        // Otherwise its return would make rules of what somebody else wrote.
                        if tx.sealed(&subject).await? == seal.digest {
                            seals.push(tx.keep_former(group, kept, now).await?);
                        }
                    }
                    seals.extend(tx.write_governed(governed, now).await?);
                    tx.forget_readings(group).await?;
                    tx.forget_silence(group).await?;
                    tx.forget_due_ack(group).await?;
                    for sql in [DELETE_OWNERS, DELETE] {
                        each!(tx, sql, |conn, text| sqlx::query(text)
                            .bind(group.as_str())
                            .execute(conn)
                            .await
                            .map(drop))?;
                    }
                    tx.append_sealing(audit, seals, now).await
                })
            },
        )
        .await
    }
}

/// The columns of a project that hold JSON.
struct Texts {
    current_key: Option<String>,
    place: String,
    policy: Option<String>,
    drift_key: Option<String>,
}

impl Texts {
    fn of(it: &Project) -> Result<Self, StoreError> {
        let key = |column, key: &Option<KeyRef>| {
            key.as_ref().map(|key| json("projects", column, &it.group_id, key)).transpose()
        };
        let policy = it.policy.as_ref().map(|policy| json("projects", "policy", &it.group_id, policy));
        Ok(Self {
            current_key: key("current_key", &it.current_key)?,
            place: json("projects", "place", &it.group_id, &it.place)?,
            policy: policy.transpose()?,
            drift_key: key("drift_key", &it.drift_key)?,
        })
    }
}

/// The new value of a project, and the rows written with it.
struct ProjectChange {
    it: Project,
    version: i64,
    drift: Option<Drift>,
    governed: Governed,
    /// Whether it may change what the seal covers.
    is_edit: bool,
    audit: Vec<NewAudit>,
    outbox: Vec<NewOutbox>,
    now: Timestamp,
}

impl Tx {
    /// Writes a new project; false when it exists already.
    async fn insert_project(&mut self, it: &Project) -> Result<bool, StoreError> {
        let text = Texts::of(it)?;
        let done = each!(self, INSERT, |conn, sql| sqlx::query(sql)
            .bind(it.group_id.as_str())
            .bind(storable(&it.name))
            .bind(it.provider.map(Provider::as_str))
            .bind(text.current_key.as_deref())
            .bind(text.place.as_str())
            .bind(it.key_since)
            .bind(it.key_since_source.map(SinceSource::as_str))
            .bind(it.valid)
            .bind(it.private_networking)
            .bind(it.environment.as_deref().map(storable))
            .bind(it.credential.as_str())
            .bind(text.policy.as_deref())
            .bind(text.drift_key.as_deref())
            .bind(it.last_checked_at)
            .bind(it.last_error.as_deref().map(storable))
            .bind(it.next_check_at)
            .bind(it.next_reminder_at)
            .bind(it.created_at)
            .bind(it.kms.as_deref())
            .bind(it.alias.as_deref())
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))?;
        Ok(done > 0)
    }

    async fn change_project(&mut self, write: &ProjectChange, unsure: bool) -> Result<i64, StoreError> {
        let ProjectChange { it, version, drift, governed, is_edit, audit, outbox, now } = write;
        let (version, now) = (*version, *now);
        let mut seals = if *is_edit { self.new_seal(it).await? } else { Vec::new() };
        let text = Texts::of(it)?;
        let done = each!(self, UPDATE, |conn, sql| sqlx::query(sql)
            .bind(it.group_id.as_str())
            .bind(version)
            .bind(storable(&it.name))
            .bind(it.provider.map(Provider::as_str))
            .bind(text.current_key.as_deref())
            .bind(text.place.as_str())
            .bind(it.key_since)
            .bind(it.key_since_source.map(SinceSource::as_str))
            .bind(it.valid)
            .bind(it.private_networking)
            .bind(it.environment.as_deref().map(storable))
            .bind(it.credential.as_str())
            .bind(text.policy.as_deref())
            .bind(text.drift_key.as_deref())
            .bind(it.last_checked_at)
            .bind(it.last_error.as_deref().map(storable))
            .bind(it.next_check_at)
            .bind(it.next_reminder_at)
            .bind(it.kms.as_deref())
            .bind(it.alias.as_deref())
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))?;
        if done == 0 {
            // An own write is recognised by its audit row. A write without one is an observation, which
            // stays due after a conflict and is repeated.
            let own = unsure && self.is_appended(audit, now).await?;
            return if own { Ok(version + 1) } else { Err(StoreError::Conflict) };
        }
        self.write_owners(it).await?;
        if let Some(drift) = drift {
            if let Some(key) = &it.current_key {
                self.ledger(&it.group_id, key, drift.since.0, drift.since.1, now).await?;
            }
            self.write_drift(&it.group_id, &drift.finding, now).await?;
        }
        self.write_ledger(it, now).await?;
        seals.extend(self.write_governed(governed, now).await?);
        seals.extend(self.write_announcing(outbox, now).await?);
        self.append_sealing(audit, seals, now).await?;
        Ok(version + 1)
    }

    async fn write_owners(&mut self, it: &Project) -> Result<(), StoreError> {
        let group = it.group_id.as_str();
        each!(self, DELETE_OWNERS, |conn, text| sqlx::query(text)
            .bind(group)
            .execute(conn)
            .await
            .map(|_| ()))?;
        for (position, mail) in (0i64..).zip(&it.owners) {
            each!(self, INSERT_OWNER, |conn, text| sqlx::query(text)
                .bind(group)
                .bind(mail.as_str())
                .bind(position)
                .execute(conn)
                .await
                .map(|_| ()))?;
        }
        Ok(())
    }

    /// Writes the change of a project by a step of its rotation.
    pub(super) async fn write_project(
        &mut self,
        write: &ProjectWrite,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let group = write.group_id.as_str();
        each!(self, OBSERVED, |conn, text| sqlx::query(text)
            .bind(group)
            .bind(write.valid)
            .bind(write.checked_at)
            .execute(conn)
            .await
            .map(|_| ()))?;
        let Some(change) = &write.key_change else { return Ok(()) };
        let key = json("projects", "current_key", &write.group_id, &change.key)?;
        each!(self, NEW_KEY, |conn, sql| sqlx::query(sql)
            .bind(group)
            .bind(key.as_str())
            .bind(change.since)
            .bind(change.source.as_str())
            .execute(conn)
            .await
            .map(|_| ()))?;
        self.ledger(&write.group_id, &change.key, change.since, change.source, now).await
    }
}
