//! Projects by when they are due: pages of them, and their counts. One statement each, whatever the size of the fleet.
//!
//! The due date is computed as [`Project::due`](crate::domain::project::Project::due) does, in SQL and to the second, and
//! serves only to choose, sort and count. A row that cannot be read is counted; lists leave it out.

use serde::Serialize;
use sqlx::FromRow;

use super::{Sql, Store, StoreError, read};
use crate::domain::ids::GroupId;
use crate::domain::key::Provider;
use crate::domain::project::{BEFORE_END, Project};
use crate::domain::rotation::state::State;
use crate::domain::time::{Span, Timestamp};

/// What is later than every due date: of a project without one.
const NEVER: i64 = i64::MAX;

// The database keeps the columns (migration 29), and on SQLite one index answers what needs no rules and no rotation. The date
// of an open rotation is found as text: one bad row would fail the statement for all. No other text of a machine has these
// quotes, because quotes within strings are escaped.
macro_rules! dated {
    ($periods:literal, $least:literal, $position:literal) => {
        concat!(
            "WITH q AS MATERIALIZED (SELECT own, secs FROM ", $periods, "), d AS (SELECT p.group_id, p.name, p.provider, \
             p.environment, p.drift_key, p.valid, p.last_error, p.policy, r.state AS open_state, \
             CASE WHEN ", $position, "(r.machine, '\"planned_for\":\"') > 0 THEN substr(r.machine, ", $position,
            "(r.machine, '\"planned_for\":\"') + 15, 27) END AS planned, ", $least, "(CASE WHEN p.since_secs IS NULL OR \
             p.is_versionless THEN $3 WHEN p.own_interval IS NULL THEN p.since_secs + $1 ELSE p.since_secs + \
             COALESCE((SELECT q.secs FROM q WHERE q.own = p.own_interval), $1) END, CASE WHEN p.end_secs IS NULL THEN $3 \
             WHEN p.since_secs > p.end_secs - $2 THEN p.since_secs ELSE p.end_secs - $2 END) AS due \
             FROM projects p LEFT JOIN rotations r ON r.group_id = p.group_id AND r.state IN ('awaiting_approval', \
             'approved', 'applying', 'verifying', 'deploying', 'rolling_back', 'needs_operator')) "
        )
    };
}

macro_rules! on_sqlite {
    () => {
        dated!("(SELECT value ->> 'own' AS own, value ->> 'secs' AS secs FROM json_each($4))", "min", "instr")
    };
}

macro_rules! on_postgres {
    () => {
        dated!("json_to_recordset($4::text::json) AS t(own text, secs bigint)", "LEAST", "strpos")
    };
}

// What was chosen is sorted and counted, so it is computed once.
macro_rules! list {
    ($dated:ident, $position:literal) => {
        concat!(
            $dated!(),
            ", c AS MATERIALIZED (SELECT d.group_id, d.due FROM d WHERE d.due <= $6 AND ($5 = '' OR ", $position,
            "(lower(d.name), $5) > 0 OR ", $position, "(d.group_id, $5) > 0 OR EXISTS \
             (SELECT 1 FROM owners o WHERE o.group_id = d.group_id AND ", $position, "(lower(o.mail), $5) > 0)) \
             AND ($7 = '' OR d.provider = $7) AND ($8 = '' OR d.environment = $8) \
             AND (NOT $9 OR NOT EXISTS (SELECT 1 FROM owners o WHERE o.group_id = d.group_id)) \
             AND ($10 = '' OR d.open_state = $10 OR ($10 = 'drifted' AND d.drift_key IS NOT NULL) \
             OR ($10 = 'invalid' AND d.valid IS FALSE) OR ($10 = 'unreachable' AND d.last_error IS NOT NULL) \
             OR ($10 = 'not_started' AND d.open_state IS NULL) OR ($10 = 'in_flight' AND d.open_state IN ('approved', \
             'applying', 'verifying', 'deploying', 'rolling_back')))) \
             SELECT c.group_id, (SELECT COUNT(*) FROM c) AS total FROM c ORDER BY c.due, c.group_id LIMIT $11 OFFSET $12"
        )
    };
}

macro_rules! counts {
    ($dated:ident) => {
        concat!(
            $dated!(),
            ", c AS MATERIALIZED (SELECT d.due - $5 AS rest, d.open_state, d.drift_key, d.valid FROM d) \
             SELECT COUNT(*) AS projects, COUNT(CASE WHEN c.rest <= 0 THEN 1 END) AS overdue, \
             COUNT(CASE WHEN c.rest <= 0 AND c.open_state IS NULL THEN 1 END) AS overdue_idle, \
             COUNT(CASE WHEN c.rest > 0 AND c.rest <= 604800 THEN 1 END) AS in_7, \
             COUNT(CASE WHEN c.rest > 0 AND c.rest <= 604800 AND c.open_state IS NULL THEN 1 END) AS in_7_idle, \
             COUNT(CASE WHEN c.rest > 0 AND c.rest <= 2592000 THEN 1 END) AS in_30, \
             COUNT(CASE WHEN c.rest > 0 AND c.rest <= 2592000 AND c.open_state IS NULL THEN 1 END) AS in_30_idle, \
             COUNT(CASE WHEN c.open_state = 'awaiting_approval' THEN 1 END) AS to_approve, \
             COUNT(CASE WHEN c.open_state = 'needs_operator' THEN 1 END) AS need_operator, \
             COUNT(CASE WHEN c.open_state IN ('approved', 'applying', 'verifying', 'deploying', 'rolling_back') \
             THEN 1 END) AS in_flight, COUNT(c.drift_key) AS drifted, COUNT(CASE WHEN c.valid IS FALSE THEN 1 END) AS invalid, \
             COUNT(*) - (SELECT COUNT(DISTINCT o.group_id) FROM owners o) AS without_owner FROM c"
        )
    };
}

// One row, because each row is handed over on its own: ten thousand take longer than all the rest of a page.
macro_rules! dues {
    ($dated:ident, $all:literal, $each:literal) => {
        concat!(
            $dated!(),
            "SELECT CAST(",
            $all,
            "(",
            $each,
            "(d.group_id, d.name, d.due, d.policy, d.open_state, d.planned)) \
             AS TEXT) FROM d WHERE d.due <= $5"
        )
    };
}

const PERIODS: Sql = Sql::same("SELECT DISTINCT own_interval FROM projects WHERE own_interval IS NOT NULL");
const LIST: Sql = Sql { sqlite: list!(on_sqlite, "instr"), postgres: list!(on_postgres, "strpos") };
const COUNTS: Sql = Sql { sqlite: counts!(on_sqlite), postgres: counts!(on_postgres) };
const DUES: Sql = Sql {
    sqlite: dues!(on_sqlite, "json_group_array", "json_array"),
    postgres: dues!(on_postgres, "json_agg", "json_build_array"),
};
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

/// A project as the statement lists it: id, name, due date, rules, state of its open rotation and that rotation's date.
type DueDateRow = (String, String, i64, Option<String>, Option<String>, Option<String>);

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
        let period = |own: String| {
            let secs = seconds(own.parse().ok()?);
            Some(Period { own, secs })
        };
        let periods: Vec<Period> = stored.into_iter().filter_map(|(own,)| period(own)).collect();
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
            .bind(default)
            .bind(before_end)
            .bind(NEVER)
            .bind(&periods)
            .bind(&filter.words)
            .bind(filter.until.map_or(NEVER, epoch))
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
            .bind(default)
            .bind(before_end)
            .bind(NEVER)
            .bind(&periods)
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
        let (all,): (Option<String>,) = read!(self, DUES, |pool, text| sqlx::query_as(text)
            .bind(default)
            .bind(before_end)
            .bind(NEVER)
            .bind(&periods)
            .bind(epoch(until))
            .fetch_one(pool)
            .await)?;
        let rows: Vec<DueDateRow> = serde_json::from_str(all.as_deref().unwrap_or("[]"))
            .map_err(|_| StoreError::corrupt("projects", "since_secs", "all"))?;
        let date = |(group, name, due, policy, open, planned): DueDateRow| {
            Some(DueDate {
                group_id: group.parse().ok()?,
                name,
                due: Timestamp::from_micros(due.checked_mul(1_000_000)?),
                policy,
                open: open.and_then(|it| it.parse().ok()),
                planned_for: planned.and_then(|it| it.parse().ok()),
            })
        };
        let mut dates: Vec<DueDate> = rows.into_iter().filter_map(date).collect();
        dates.sort_unstable_by(|a, b| (a.due, &a.group_id).cmp(&(b.due, &b.group_id)));
        Ok(dates)
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
