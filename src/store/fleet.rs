//! Projects by when they are due: pages of them, and their counts. One statement each, whatever the size of the fleet.
//!
//! The due date is computed as [`Project::due`](crate::domain::project::Project::due) does, in SQL and to the second, and
//! serves only to choose, sort and count. A row that cannot be read is counted; lists leave it out.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::FromRow;

use super::{Sql, Store, StoreError, read};
use crate::domain::ids::GroupId;
use crate::domain::key::Provider;
use crate::domain::project::{BEFORE_END, Project};
use crate::domain::rotation::state::State;
use crate::domain::time::{Span, Timestamp};

/// A project's own cryptoperiod is the first member of its stored rules. Not taken apart as JSON: one bad row would fail
/// the statement for all.
const OWN: &str = "{\"interval\":\"";

const PERIODS: Sql =
    Sql::same("SELECT DISTINCT substr(policy, 1, 64) FROM projects WHERE policy LIKE '{\"interval\":\"%'");

// Computed once for each row: SQLite would repeat the expression wherever it is used.
macro_rules! dated {
    ($since:literal, $ends:literal, $periods:literal) => {
        concat!(
            "WITH d AS MATERIALIZED (SELECT f.*, CASE WHEN f.period IS NULL THEN f.by_end WHEN f.by_end IS NULL OR f.period < f.by_end \
             THEN f.period ELSE f.by_end END AS due FROM (SELECT p.group_id, p.name, p.provider, p.environment, \
             p.drift_key, p.valid, p.last_error, r.state AS open_state, CASE WHEN p.provider = 'AZURE' AND p.current_key LIKE '%/keys/%' AND \
             p.current_key NOT LIKE '%/keys/%/%' THEN NULL ELSE ", $since, " + COALESCE(q.secs, $2) END AS period, \
             CASE WHEN p.key_ends_of = p.current_key THEN CASE WHEN ", $since, " > ", $ends, " - $3 THEN ", $since,
            " ELSE ", $ends, " - $3 END END AS by_end FROM projects p LEFT JOIN ", $periods,
            " ON substr(p.policy, 1, length(q.own)) = q.own LEFT JOIN rotations r ON r.group_id = p.group_id AND \
             r.state IN ('awaiting_approval', 'approved', 'applying', 'verifying', 'deploying', 'rolling_back', \
             'needs_operator')) f) "
        )
    };
}

macro_rules! on_sqlite {
    () => {
        dated!(
            "unixepoch(p.key_since)",
            "unixepoch(p.key_ends_at)",
            "(SELECT value ->> 'own' AS own, value ->> 'secs' AS secs FROM json_each($1)) q"
        )
    };
}

macro_rules! on_postgres {
    () => {
        dated!(
            "CAST(extract(epoch FROM p.key_since) AS bigint)",
            "CAST(extract(epoch FROM p.key_ends_at) AS bigint)",
            "json_to_recordset($1::text::json) AS q(own text, secs bigint)"
        )
    };
}

macro_rules! chosen {
    ($position:literal) => {
        concat!(
            "WHERE ($4 = '' OR ", $position, "(lower(d.name), $4) > 0 OR ", $position, "(d.group_id, $4) > 0 OR EXISTS \
             (SELECT 1 FROM owners o WHERE o.group_id = d.group_id AND ", $position, "(lower(o.mail), $4) > 0)) \
             AND ($5 = 9223372036854775807 OR d.due <= $5) AND ($6 = '' OR d.provider = $6) \
             AND ($7 = '' OR d.environment = $7) \
             AND (NOT $8 OR NOT EXISTS (SELECT 1 FROM owners o WHERE o.group_id = d.group_id)) \
             AND ($9 = '' OR d.open_state = $9 OR ($9 = 'drifted' AND d.drift_key IS NOT NULL) \
             OR ($9 = 'invalid' AND d.valid IS FALSE) OR ($9 = 'unreachable' AND d.last_error IS NOT NULL) \
             OR ($9 = 'not_started' AND d.open_state IS NULL) OR ($9 = 'in_flight' AND d.open_state IN ('approved', \
             'applying', 'verifying', 'deploying', 'rolling_back'))) "
        )
    };
}

macro_rules! list {
    ($dated:ident, $position:literal) => {
        concat!(
            $dated!(),
            "SELECT d.group_id, (SELECT COUNT(*) FROM d ",
            chosen!($position),
            ") AS total FROM d ",
            chosen!($position),
            "ORDER BY CASE WHEN d.due IS NULL THEN 1 ELSE 0 END, d.due, d.group_id LIMIT $10 OFFSET $11"
        )
    };
}

macro_rules! counts {
    ($dated:ident) => {
        concat!(
            $dated!(),
            "SELECT COUNT(*) AS projects, COUNT(CASE WHEN d.due <= $4 THEN 1 END) AS overdue, \
             COUNT(CASE WHEN d.due <= $4 AND d.open_state IS NULL THEN 1 END) AS overdue_idle, \
             COUNT(CASE WHEN d.due > $4 AND d.due <= $4 + 604800 THEN 1 END) AS in_7, \
             COUNT(CASE WHEN d.due > $4 AND d.due <= $4 + 604800 AND d.open_state IS NULL THEN 1 END) AS in_7_idle, \
             COUNT(CASE WHEN d.due > $4 AND d.due <= $4 + 2592000 THEN 1 END) AS in_30, \
             COUNT(CASE WHEN d.due > $4 AND d.due <= $4 + 2592000 AND d.open_state IS NULL THEN 1 END) AS in_30_idle, \
             COUNT(CASE WHEN d.open_state = 'awaiting_approval' THEN 1 END) AS to_approve, \
             COUNT(CASE WHEN d.open_state = 'needs_operator' THEN 1 END) AS need_operator, \
             COUNT(CASE WHEN d.open_state IN ('approved', 'applying', 'verifying', 'deploying', 'rolling_back') \
             THEN 1 END) AS in_flight, COUNT(d.drift_key) AS drifted, COUNT(CASE WHEN d.valid IS FALSE THEN 1 END) AS invalid, COUNT(CASE WHEN NOT EXISTS \
             (SELECT 1 FROM owners o WHERE o.group_id = d.group_id) THEN 1 END) AS without_owner FROM d"
        )
    };
}

// The date of an open rotation is found as text: one bad row would fail the statement for all. No other text of a machine
// has these quotes, because quotes within strings are escaped.
macro_rules! dues {
    ($dated:ident, $position:literal) => {
        concat!(
            $dated!(),
            "SELECT d.group_id, d.name, d.due, p.policy, d.open_state, CASE WHEN ", $position,
            "(r.machine, '\"planned_for\":\"') > 0 THEN substr(r.machine, ", $position,
            "(r.machine, '\"planned_for\":\"') + 15, 27) END AS planned FROM d JOIN projects p ON p.group_id = d.group_id \
             LEFT JOIN rotations r ON r.group_id = d.group_id AND r.state IN ('awaiting_approval', 'approved', 'applying', \
             'verifying', 'deploying', 'rolling_back', 'needs_operator') WHERE d.due <= $4 ORDER BY d.due, d.group_id"
        )
    };
}

const LIST: Sql = Sql { sqlite: list!(on_sqlite, "instr"), postgres: list!(on_postgres, "strpos") };
const COUNTS: Sql = Sql { sqlite: counts!(on_sqlite), postgres: counts!(on_postgres) };
const DUES: Sql = Sql { sqlite: dues!(on_sqlite, "instr"), postgres: dues!(on_postgres, "strpos") };
const ENVIRONMENTS: Sql = Sql::same(
    "SELECT DISTINCT environment FROM projects WHERE environment IS NOT NULL ORDER BY environment LIMIT 200",
);

pub(super) const STATEMENTS: &[&Sql] = &[&PERIODS, &LIST, &COUNTS, &DUES, &ENVIRONMENTS];

/// Which projects a page of the due list shows; everything that is given must fit.
#[derive(Clone, Debug, Default)]
pub struct DueFilter {
    /// A part of the name, of the group id or of an owner's address, in lower case.
    pub words: String,
    /// Due by this instant; `None` for all, those without a due date too.
    pub until: Option<Timestamp>,
    /// Of this provider.
    pub provider: Option<Provider>,
    /// With this tag.
    pub environment: String,
    /// Without an owner.
    pub without_owner: bool,
    /// The state of the open rotation, or `in_flight`, `not_started`, `drifted`, `invalid` or `unreachable`.
    pub state: String,
}

/// A page of the due list.
#[derive(Clone, Debug, Default)]
pub struct DuePage {
    /// The projects, the most urgent first, without those that cannot be read.
    pub projects: Vec<Project>,
    /// How many fit the filter.
    pub total: u64,
}

/// How many projects there are, and how many of them wait for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow)]
pub struct FleetCounts {
    /// All.
    pub projects: i64,
    /// Past their due date.
    pub overdue: i64,
    /// Of those, without an open rotation.
    pub overdue_idle: i64,
    /// Due within 7 days, and not overdue.
    pub in_7: i64,
    /// Of those, without an open rotation.
    pub in_7_idle: i64,
    /// Due within 30 days, and not overdue.
    pub in_30: i64,
    /// Of those, without an open rotation.
    pub in_30_idle: i64,
    /// With a rotation that waits for approvals.
    pub to_approve: i64,
    /// With a rotation that waits for an operator.
    pub need_operator: i64,
    /// With a rotation that is approved and goes on by itself.
    pub in_flight: i64,
    /// With a key that another actor has set.
    pub drifted: i64,
    /// With a key that Atlas reported as invalid at the last reading.
    pub invalid: i64,
    /// Without an owner.
    pub without_owner: i64,
}

/// The next due date of a project's key, and what binds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueDate {
    /// The project.
    pub group_id: GroupId,
    /// Its name in Atlas.
    pub name: String,
    /// When its key is due, to the second.
    pub due: Timestamp,
    /// The rules in which it differs, as they are stored.
    pub policy: Option<String>,
    /// The state of its open rotation.
    pub open: Option<State>,
    /// The date of that rotation.
    pub planned_for: Option<Timestamp>,
}

#[derive(FromRow)]
struct DueDateRow {
    group_id: String,
    name: String,
    due: i64,
    policy: Option<String>,
    open_state: Option<String>,
    planned: Option<String>,
}

/// A cryptoperiod as the statements take it.
#[derive(Serialize)]
struct Period {
    own: String,
    secs: i64,
}

fn seconds(span: Span) -> i64 {
    i64::try_from(span.get().as_secs()).unwrap_or(i64::MAX)
}

fn epoch(at: Timestamp) -> i64 {
    at.as_micros().div_euclid(1_000_000)
}

/// What the statements compute due dates from: the projects' own cryptoperiods, the default, and how long before its own
/// end a key is to be replaced.
struct Dates {
    periods: String,
    default: i64,
    before_end: i64,
}

impl Store {
    async fn dates(&self, default: Span) -> Result<Dates, StoreError> {
        let stored: Vec<(String,)> =
            read!(self, PERIODS, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        let own: BTreeMap<&str, Span> = (stored.iter())
            .filter_map(|(text,)| text.strip_prefix(OWN)?.split('"').next())
            .filter_map(|text| Some((text, text.parse().ok()?)))
            .collect();
        let periods: Vec<Period> = (own.into_iter())
            .map(|(text, span)| Period { own: format!("{OWN}{text}\""), secs: seconds(span) })
            .collect();
        let periods = serde_json::to_string(&periods).map_err(|source| StoreError::Unwritable {
            table: "projects",
            column: "policy",
            id: "all".to_owned(),
            source,
        })?;
        let before_end = i64::try_from(BEFORE_END.as_secs()).unwrap_or(i64::MAX);
        Ok(Dates { periods, default: seconds(default), before_end })
    }

    /// Projects that fit `filter`, the most urgent first; `default` is the cryptoperiod of those without one of their own.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn due_list(
        &self,
        filter: &DueFilter,
        default: Span,
        skip: usize,
        limit: usize,
    ) -> Result<DuePage, StoreError> {
        let Dates { periods, default, before_end } = self.dates(default).await?;
        let number = |it: usize| i64::try_from(it).unwrap_or(i64::MAX);
        let rows: Vec<(String, i64)> = read!(self, LIST, |pool, text| sqlx::query_as(text)
            .bind(&periods)
            .bind(default)
            .bind(before_end)
            .bind(&filter.words)
            .bind(filter.until.map_or(i64::MAX, epoch))
            .bind(filter.provider.map_or("", Provider::as_str))
            .bind(&filter.environment)
            .bind(filter.without_owner)
            .bind(&filter.state)
            .bind(number(limit))
            .bind(number(skip))
            .fetch_all(pool)
            .await)?;
        let total = rows.first().map_or(0, |(_, total)| u64::try_from(*total).unwrap_or_default());
        let ids: Vec<GroupId> = rows.iter().filter_map(|(id, _)| id.parse().ok()).collect();
        Ok(DuePage { projects: self.projects_of(&ids).await?, total })
    }

    /// The counts of the fleet at `now`.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn fleet_counts(&self, default: Span, now: Timestamp) -> Result<FleetCounts, StoreError> {
        let Dates { periods, default, before_end } = self.dates(default).await?;
        Ok(read!(self, COUNTS, |pool, text| sqlx::query_as(text)
            .bind(&periods)
            .bind(default)
            .bind(before_end)
            .bind(epoch(now))
            .fetch_one(pool)
            .await)?)
    }

    /// The next due dates of all projects that have one by `until`, the earliest first; rows without a readable id are
    /// left out.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn due_dates(&self, default: Span, until: Timestamp) -> Result<Vec<DueDate>, StoreError> {
        let Dates { periods, default, before_end } = self.dates(default).await?;
        let rows: Vec<DueDateRow> = read!(self, DUES, |pool, text| sqlx::query_as(text)
            .bind(&periods)
            .bind(default)
            .bind(before_end)
            .bind(epoch(until))
            .fetch_all(pool)
            .await)?;
        let date = |row: DueDateRow| {
            Some(DueDate {
                group_id: row.group_id.parse().ok()?,
                name: row.name,
                due: Timestamp::from_micros(row.due.checked_mul(1_000_000)?),
                policy: row.policy,
                open: row.open_state.and_then(|it| it.parse().ok()),
                planned_for: row.planned.and_then(|it| it.parse().ok()),
            })
        };
        Ok(rows.into_iter().filter_map(date).collect())
    }

    /// The tags that projects have, at most 200.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn environments(&self) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> =
            read!(self, ENVIRONMENTS, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        Ok(rows.into_iter().map(|(tag,)| tag).collect())
    }
}
