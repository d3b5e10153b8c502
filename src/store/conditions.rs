//! Conditions as they were told, and the readings that are not good.
//!
//! A row is written by the version that was read, so of two daemons that compare at the same time one tells.
//! Nothing here decides what holds.

use std::collections::BTreeMap;

use sqlx::FromRow;
use uuid::Uuid;

use super::lanes::Lane;
use super::readable::{CorruptRow, listed, readable};
use super::types::{Instant, instant, json, storable};
use super::{NewAudit, NewOutbox, Sql, Store, StoreError, Tx, each, urgent};
use crate::domain::condition::{ConditionKind, Readings};
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::subject::Subject;
use crate::domain::time::Timestamp;

macro_rules! columns {
    () => {
        "subject, kind, since, name, cause, key, rotation_id, told, told_at, tell_at, damped, calm_since, \
         acknowledged_at, acknowledged_by, ended_at, version"
    };
}

const RECENT: Sql = Sql::same(concat!(
    "SELECT ",
    columns!(),
    " FROM conditions WHERE ended_at IS NULL OR ended_at > $1 ORDER BY subject, kind, since"
));
const OF_SUBJECTS: Sql = Sql::same(concat!(
    "SELECT ",
    columns!(),
    " FROM conditions WHERE ended_at IS NULL AND subject >= $1 AND subject <= $2 ORDER BY subject, kind"
));
// Ids of projects have no slash.
const OF_INSTALLATION: Sql = Sql::same(concat!(
    "SELECT ",
    columns!(),
    " FROM conditions WHERE ended_at IS NULL AND (subject LIKE '%/%' OR subject = 'installation') ORDER BY subject, kind"
));
const OF_KIND: Sql = Sql::same(concat!(
    "SELECT ",
    columns!(),
    " FROM conditions WHERE subject = $1 AND kind = $2 AND (ended_at IS NULL OR ended_at > $3) ORDER BY since"
));
const BEGIN: Sql = Sql::same(concat!(
    "INSERT INTO conditions (",
    columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 1) ON CONFLICT DO NOTHING"
));
const CHANGE: Sql = Sql::same(
    "UPDATE conditions SET name = $4, cause = $5, key = $6, rotation_id = $7, told = $8, told_at = $9, tell_at = $10, \
     damped = $11, calm_since = $12, acknowledged_at = $13, acknowledged_by = $14, ended_at = $15, version = version + 1 \
     WHERE subject = $1 AND kind = $2 AND since = $3 AND version = $16",
);
const GATHERED: Sql = Sql::same("SELECT value FROM meta WHERE name = 'upgrade'");
const GATHER: Sql = Sql::same("UPDATE meta SET value = $1 WHERE name = 'upgrade' AND value = ''");
const LOOK_AT_ALL: Sql = Sql::same("UPDATE projects SET next_check_at = $1 WHERE next_check_at > $1");
const SET_ASIDE: Sql =
    Sql::same("DELETE FROM conditions WHERE subject = $1 AND kind = $2 AND (ended_at IS NULL OR since = $3)");
const COUNTS: Sql =
    Sql::same("SELECT kind, COUNT(*) FROM conditions WHERE ended_at IS NULL GROUP BY kind ORDER BY kind");
const READINGS: Sql = Sql::same("SELECT group_id, readings FROM readings ORDER BY group_id");
const READINGS_OF: Sql = Sql::same("SELECT group_id, readings FROM readings WHERE group_id = $1");
const WRITE_READINGS: Sql = Sql::same(
    "INSERT INTO readings (group_id, readings) SELECT $1, $2 WHERE EXISTS (SELECT 1 FROM projects WHERE group_id = $1) \
     ON CONFLICT (group_id) DO UPDATE SET readings = $2",
);
const CALM: Sql = Sql::same("DELETE FROM readings WHERE group_id = $1");

pub(super) const STATEMENTS: &[&Sql] = &[
    &RECENT,
    &OF_SUBJECTS,
    &OF_INSTALLATION,
    &OF_KIND,
    &BEGIN,
    &CHANGE,
    &GATHERED,
    &GATHER,
    &LOOK_AT_ALL,
    &SET_ASIDE,
    &COUNTS,
    &READINGS,
    &READINGS_OF,
    &WRITE_READINGS,
    &CALM,
];

/// A start of a condition, and how far it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionRow {
    /// What it is about.
    pub subject: Subject,
    /// The condition.
    pub kind: ConditionKind,
    /// When it began.
    pub since: Timestamp,
    /// The project's name: the project may be gone when it ends. Empty for the installation.
    pub name: String,
    /// What makes it so.
    pub cause: Option<String>,
    /// The key that it concerns.
    pub key: Option<String>,
    /// The rotation that it concerns.
    pub rotation_id: Option<RotationId>,
    /// How often it was told.
    pub told: u32,
    /// When it was told last.
    pub told_at: Option<Timestamp>,
    /// When it is told next; `None` when it is not.
    pub tell_at: Option<Timestamp>,
    /// It had started too often: it ends only after a rest.
    pub damped: bool,
    /// Since when it does not hold, while it is damped.
    pub calm_since: Option<Timestamp>,
    /// When a person acknowledged this start.
    pub acknowledged_at: Option<Timestamp>,
    /// That person.
    pub acknowledged_by: Option<String>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Counts writes; 0 before the first.
    pub version: i64,
}

impl ConditionRow {
    /// A start that was not written down and not told.
    #[must_use]
    pub const fn in_memory(subject: Subject, kind: ConditionKind, since: Timestamp) -> Self {
        Self {
            subject,
            kind,
            since,
            name: String::new(),
            cause: None,
            key: None,
            rotation_id: None,
            told: 0,
            told_at: None,
            tell_at: None,
            damped: false,
            calm_since: None,
            acknowledged_at: None,
            acknowledged_by: None,
            ended_at: None,
            version: 0,
        }
    }
}

#[derive(FromRow)]
struct Stored {
    subject: String,
    kind: String,
    since: Instant,
    name: String,
    cause: Option<String>,
    key: Option<String>,
    rotation_id: Option<Uuid>,
    told: i64,
    told_at: Option<Instant>,
    tell_at: Option<Instant>,
    damped: bool,
    calm_since: Option<Instant>,
    acknowledged_at: Option<Instant>,
    acknowledged_by: Option<String>,
    ended_at: Option<Instant>,
    version: i64,
}

impl TryFrom<Stored> for ConditionRow {
    type Error = StoreError;
    fn try_from(row: Stored) -> Result<Self, StoreError> {
        let bad =
            |column| StoreError::corrupt("conditions", column, format_args!("{}/{}", row.subject, row.kind));
        Ok(Self {
            subject: row.subject.parse().map_err(|_| bad("subject"))?,
            kind: row.kind.parse().map_err(|_| bad("kind"))?,
            told: row.told.try_into().map_err(|_| bad("told"))?,
            since: row.since.or(bad("since"))?,
            name: row.name,
            cause: row.cause,
            key: row.key,
            rotation_id: row.rotation_id.map(RotationId),
            told_at: instant(row.told_at, || bad("told_at"))?,
            tell_at: instant(row.tell_at, || bad("tell_at"))?,
            damped: row.damped,
            calm_since: instant(row.calm_since, || bad("calm_since"))?,
            acknowledged_at: instant(row.acknowledged_at, || bad("acknowledged_at"))?,
            acknowledged_by: row.acknowledged_by,
            ended_at: instant(row.ended_at, || bad("ended_at"))?,
            version: row.version,
        })
    }
}

impl Store {
    /// The conditions that hold, and those that ended after `since`.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn conditions(&self, since: Timestamp) -> Result<Vec<ConditionRow>, StoreError> {
        let rows: Vec<Stored> =
            urgent!(self, RECENT, |pool, text| sqlx::query_as(text).bind(since).fetch_all(pool).await)?;
        readable(rows.into_iter().map(ConditionRow::try_from))
    }

    /// Until when what is found after an upgrade is gathered, once a daemon has written that; `None` for a database that
    /// was not upgraded from a version without conditions.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn gathered_until(&self) -> Result<Option<Option<Timestamp>>, StoreError> {
        let found: Option<(String,)> =
            urgent!(self, GATHERED, |pool, text| sqlx::query_as(text).fetch_optional(pool).await)?;
        // A text that is no instant gathers nothing.
        Ok(found.and_then(|(text,)| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }))
    }

    /// Has what is found gathered until `until`, and every key read at `now`; returns what holds, which another daemon
    /// may have written.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn gather_until(
        &self,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        self.transact("condition.gather", Lane::Step, (until, now), |tx, (until, now), _| {
            Box::pin(async move {
                let taken = each!(tx, GATHER, |conn, text| sqlx::query(text)
                    .bind(until.to_string())
                    .execute(conn)
                    .await
                    .map(|done| done.rows_affected()))?;
                if taken > 0 {
                    each!(tx, LOOK_AT_ALL, |conn, text| sqlx::query(text)
                        .bind(*now)
                        .execute(conn)
                        .await
                        .map(drop))?;
                }
                Ok(())
            })
        })
        .await?;
        Ok(self.gathered_until().await?.flatten())
    }

    /// The conditions that hold of the subjects from `first` to `last`, in the order of their texts.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn conditions_of(
        &self,
        first: &Subject,
        last: &Subject,
    ) -> Result<Vec<ConditionRow>, StoreError> {
        let rows: Vec<Stored> = urgent!(self, OF_SUBJECTS, |pool, text| sqlx::query_as(text)
            .bind(first.to_string())
            .bind(last.to_string())
            .fetch_all(pool)
            .await)?;
        readable(rows.into_iter().map(ConditionRow::try_from))
    }

    /// The conditions of the installation that hold.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn conditions_of_installation(&self) -> Result<Vec<ConditionRow>, StoreError> {
        let rows: Vec<Stored> =
            urgent!(self, OF_INSTALLATION, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        readable(rows.into_iter().map(ConditionRow::try_from))
    }

    /// The rows of the installation that cannot be read, by subject and kind.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn corrupt_conditions(&self) -> Result<Vec<CorruptRow>, StoreError> {
        let rows: Vec<Stored> =
            urgent!(self, OF_INSTALLATION, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        let rows = listed(rows.into_iter().map(ConditionRow::try_from))?;
        Ok(rows.into_iter().filter_map(Result::err).collect())
    }

    /// The starts of one condition of a subject that hold, and those that ended after `since`.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn starts_of_condition(
        &self,
        subject: &str,
        kind: ConditionKind,
        since: Timestamp,
    ) -> Result<Vec<ConditionRow>, StoreError> {
        let rows: Vec<Stored> = urgent!(self, OF_KIND, |pool, text| sqlx::query_as(text)
            .bind(subject)
            .bind(kind.as_str())
            .bind(since)
            .fetch_all(pool)
            .await)?;
        readable(rows.into_iter().map(ConditionRow::try_from))
    }

    /// How many subjects each condition holds for.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn condition_counts(&self) -> Result<BTreeMap<String, i64>, StoreError> {
        let rows: Vec<(String, i64)> =
            urgent!(self, COUNTS, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        Ok(rows.into_iter().collect())
    }

    /// Writes conditions with the messages that tell them, all or nothing.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when another daemon was faster with one of them.
    pub async fn tell(
        &self,
        rows: Vec<ConditionRow>,
        outbox: Vec<NewOutbox>,
        audit: Vec<NewAudit>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.transact(
            "condition.tell",
            Lane::Step,
            (rows, outbox, audit),
            move |tx, (rows, outbox, audit), unsure| {
                Box::pin(async move {
                    for row in rows {
                        // Written by an earlier attempt whose answer was lost: the messages were written with it, and
                        // their ids are the same.
                        if !tx.write_condition(row).await? && !unsure {
                            return Err(StoreError::Conflict);
                        }
                    }
                    tx.write_outbox(outbox, now).await?;
                    if unsure && tx.is_appended(audit, now).await? {
                        return Ok(());
                    }
                    tx.append_audit(audit, now).await
                })
            },
        )
        .await
    }

    /// Removes a row that cannot be read and keeps a start at `since` from being written.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn set_condition_aside(
        &self,
        subject: &Subject,
        kind: ConditionKind,
        since: Timestamp,
    ) -> Result<(), StoreError> {
        self.transact("condition.set_aside", Lane::Step, subject.to_string(), move |tx, subject, _| {
            Box::pin(async move {
                each!(tx, SET_ASIDE, |conn, text| sqlx::query(text)
                    .bind(subject.as_str())
                    .bind(kind.as_str())
                    .bind(since)
                    .execute(conn)
                    .await
                    .map(drop))?;
                Ok(())
            })
        })
        .await
    }

    /// The readings that are not good, by project; `None` where they cannot be read.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn all_readings(&self) -> Result<BTreeMap<GroupId, Option<Readings>>, StoreError> {
        let rows: Vec<(String, String)> =
            urgent!(self, READINGS, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        let read = |row: &(String, String)| match readings(row) {
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(error = %error, "unreadable readings: {error}");
                Ok(row.0.parse().ok().map(|group| (group, None)))
            }
            read => read.map(|(group, readings)| Some((group, Some(readings)))),
        };
        rows.iter().filter_map(|row| read(row).transpose()).collect()
    }

    /// The readings of one project that are not good.
    ///
    /// # Errors
    /// Fails when the database or the row cannot be read.
    pub async fn readings(&self, group: &GroupId) -> Result<Readings, StoreError> {
        let row: Option<(String, String)> = urgent!(self, READINGS_OF, |pool, text| sqlx::query_as(text)
            .bind(group.as_str())
            .fetch_optional(pool)
            .await)?;
        row.as_ref().map_or_else(|| Ok(Readings::default()), |row| Ok(readings(row)?.1))
    }

    /// Changes the readings of a tracked project as they are at that moment, and returns them: looks, roles and
    /// events write them at the same time. What cannot be read begins anew.
    ///
    /// # Errors
    /// Fails when the database cannot be read or written.
    pub async fn change_readings<F>(&self, group: &GroupId, change: F) -> Result<Readings, StoreError>
    where
        F: Fn(&mut Readings) + Send + Sync + 'static,
    {
        self.transact("readings.write", Lane::Step, (group.clone(), change), |tx, (group, change), _| {
            Box::pin(async move {
                tx.take_turn(&format!("readings/{group}")).await?;
                let row: Option<(String, String)> = each!(tx, READINGS_OF, |conn, sql| sqlx::query_as(sql)
                    .bind(group.as_str())
                    .fetch_optional(conn)
                    .await)?;
                let mut it =
                    row.as_ref().and_then(|row| readings(row).ok()).map(|row| row.1).unwrap_or_default();
                change(&mut it);
                tx.write_readings(group, &it).await?;
                Ok(it)
            })
        })
        .await
    }

    /// Writes the readings of a project that is tracked.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn write_readings(&self, group: &GroupId, it: &Readings) -> Result<(), StoreError> {
        self.transact("readings.write", Lane::Step, (group.clone(), it.clone()), |tx, (group, it), _| {
            Box::pin(tx.write_readings(group, it))
        })
        .await
    }
}

fn readings((group, text): &(String, String)) -> Result<(GroupId, Readings), StoreError> {
    let bad = |column| StoreError::corrupt("readings", column, group);
    Ok((
        group.parse().map_err(|_| bad("group_id"))?,
        serde_json::from_str(text).map_err(|_| bad("readings"))?,
    ))
}

impl Tx {
    /// False when the row has another version than the one that was read.
    async fn write_condition(&mut self, row: &ConditionRow) -> Result<bool, StoreError> {
        let sql = if row.version == 0 { BEGIN } else { CHANGE };
        let subject = row.subject.to_string();
        let done = each!(self, sql, |conn, text| {
            let query = sqlx::query(text)
                .bind(subject.as_str())
                .bind(row.kind.as_str())
                .bind(row.since)
                .bind(storable(&row.name))
                .bind(row.cause.as_deref().map(storable))
                .bind(row.key.as_deref().map(storable))
                .bind(row.rotation_id.map(|id| id.0))
                .bind(i64::from(row.told))
                .bind(row.told_at)
                .bind(row.tell_at)
                .bind(row.damped)
                .bind(row.calm_since)
                .bind(row.acknowledged_at)
                .bind(row.acknowledged_by.as_deref())
                .bind(row.ended_at);
            let query = if row.version == 0 { query } else { query.bind(row.version) };
            query.execute(conn).await.map(|done| done.rows_affected())
        })?;
        Ok(done > 0)
    }

    async fn write_readings(&mut self, group: &GroupId, it: &Readings) -> Result<(), StoreError> {
        if it.is_calm() {
            return self.forget_readings(group).await;
        }
        let text = json("readings", "readings", group, it)?;
        each!(self, WRITE_READINGS, |conn, sql| sqlx::query(sql)
            .bind(group.as_str())
            .bind(storable(&text))
            .execute(conn)
            .await
            .map(drop))?;
        Ok(())
    }

    pub(super) async fn forget_readings(&mut self, group: &GroupId) -> Result<(), StoreError> {
        each!(self, CALM, |conn, text| sqlx::query(text).bind(group.as_str()).execute(conn).await.map(drop))?;
        Ok(())
    }
}
