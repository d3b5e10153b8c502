//! The visits of people to the pages, and what ended between two of them.
//!
//! One row for each token or person, written once a visit and only beside a write that a session makes anyway. It says
//! what is shown first and lets nobody in, so it is not sealed.

use std::time::Duration;

use sqlx::FromRow;
use uuid::Uuid;

use super::types::{Instant, instant};
use super::{Sql, Store, StoreError, Tx, each, read};
use crate::domain::ids::RotationId;
use crate::domain::rotation::state::State;
use crate::domain::time::Timestamp;

/// A visit ends after this time without a page.
pub(super) const AWAY: Duration = Duration::from_mins(30);

const LAST_PAGE: Sql =
    Sql::same("SELECT MAX(seen_at) FROM web_sessions WHERE name = $1 AND COALESCE(issuer, '') = $2");
// A session that has ended is gone. Then the visit before is known by its beginning alone.
const BEGIN: Sql = Sql {
    sqlite: "INSERT INTO visits (name, issuer, began_at) VALUES ($1, $2, $3) ON CONFLICT (name, issuer) DO UPDATE SET \
             before_at = MAX(visits.began_at, COALESCE($4, visits.began_at)), began_at = excluded.began_at \
             WHERE visits.began_at <= $5",
    postgres: "INSERT INTO visits (name, issuer, began_at) VALUES ($1, $2, $3) ON CONFLICT (name, issuer) DO UPDATE SET \
               before_at = GREATEST(visits.began_at, $4), began_at = excluded.began_at WHERE visits.began_at <= $5",
};
const SINCE: Sql = Sql::same(
    "WITH v AS (SELECT before_at FROM visits WHERE name = $1 AND issuer = $2 AND before_at IS NOT NULL), \
     e AS (SELECT r.id, r.project_name, r.state, r.finished_at AS at FROM rotations r JOIN v ON r.finished_at > v.before_at \
     UNION ALL SELECT r.id, r.project_name, r.state, c.since AS at FROM conditions c JOIN v ON c.since > v.before_at \
     JOIN rotations r ON r.id = c.rotation_id AND r.state = 'needs_operator' \
     WHERE c.kind = 'needs_operator' AND c.ended_at IS NULL) \
     SELECT v.before_at, e.id, e.project_name, e.state, e.at FROM v LEFT JOIN e ON 1 = 1 ORDER BY e.at DESC LIMIT $3",
);

pub(super) const STATEMENTS: &[&Sql] = &[&LAST_PAGE, &BEGIN, &SINCE];

/// What a person has missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// When the person was here before this visit, as far as it is known.
    pub since: Timestamp,
    /// What ended after that, the latest first.
    pub ended: Vec<EndedRotation>,
}

/// A rotation that has ended, or that has stopped and needs an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedRotation {
    /// The rotation.
    pub id: RotationId,
    /// The project's name at the proposal.
    pub project_name: String,
    /// How it ended.
    pub state: State,
    /// When.
    pub at: Timestamp,
}

#[derive(FromRow)]
struct MissedRow {
    before_at: Instant,
    id: Option<Uuid>,
    project_name: Option<String>,
    state: Option<String>,
    at: Option<Instant>,
}

impl Tx {
    /// Notes that this token or person is here at `now`, where that begins a visit. The session's own note of it must
    /// come after.
    pub(super) async fn note_visit(
        &mut self,
        name: &str,
        issuer: Option<&str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let issuer = issuer.unwrap_or_default();
        let (last,): (Option<Instant>,) = each!(self, LAST_PAGE, |conn, text| sqlx::query_as(text)
            .bind(name)
            .bind(issuer)
            .fetch_one(conn)
            .await)?;
        // A note that cannot be read is as good as none.
        let last = instant(last, || StoreError::corrupt("web_sessions", "seen_at", name)).unwrap_or_default();
        if last.is_some_and(|last| now.since(last) < AWAY) {
            return Ok(());
        }
        each!(self, BEGIN, |conn, text| sqlx::query(text)
            .bind(name)
            .bind(issuer)
            .bind(now)
            .bind(last)
            .bind(now - AWAY)
            .execute(conn)
            .await
            .map(drop))?;
        Ok(())
    }
}

impl Store {
    /// What ended since this token or person was here before this visit, at most `most`; `None` on a first visit. Rows
    /// that cannot be read are left out.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn missed(
        &self,
        name: &str,
        issuer: Option<&str>,
        most: usize,
    ) -> Result<Option<Missed>, StoreError> {
        let rows: Vec<MissedRow> = read!(self, SINCE, |pool, text| sqlx::query_as(text)
            .bind(name)
            .bind(issuer.unwrap_or_default())
            .bind(i64::try_from(most).unwrap_or(i64::MAX))
            .fetch_all(pool)
            .await)?;
        let Some(first) = rows.first() else { return Ok(None) };
        let Ok(since) = first.before_at.or(StoreError::corrupt("visits", "before_at", name)) else {
            return Ok(None);
        };
        let ended = rows.into_iter().filter_map(|row| {
            let id = RotationId(row.id?);
            let at = row.at?.or(StoreError::corrupt("rotations", "finished_at", id)).ok()?;
            Some(EndedRotation { id, project_name: row.project_name?, state: row.state?.parse().ok()?, at })
        });
        Ok(Some(Missed { since, ended: ended.collect() }))
    }
}
