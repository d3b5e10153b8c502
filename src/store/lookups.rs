//! The schedule of the poll, which asks each project's key service for its newest key, and its results.
//!
//! These columns belong to the poll alone: a lookup does not change the project, so it raises no version.

use std::time::Duration;

use super::lanes::Lane;
use super::readable::readable;
use super::types::storable;
use super::{Sql, Store, StoreError, each, read};
use crate::domain::ids::GroupId;
use crate::domain::time::Timestamp;

// NULL means "at once", and so does an instant further ahead than any that is written: a clock that was wrong wrote
// it, or the interval is shorter now. The two databases sort NULL to different ends, so the statement sorts it first.
const NEXT: Sql = Sql::same(
    "SELECT next_look_up_at FROM projects WHERE kms IS NOT NULL \
     ORDER BY CASE WHEN next_look_up_at IS NULL OR next_look_up_at > $1 THEN 0 ELSE 1 END, next_look_up_at LIMIT 1",
);
const CLAIM: Sql = Sql {
    sqlite: "UPDATE projects SET next_look_up_at = $2 WHERE group_id IN (SELECT group_id FROM projects \
             WHERE kms IS NOT NULL AND (next_look_up_at IS NULL OR next_look_up_at <= $1 OR next_look_up_at > $4) LIMIT $3) RETURNING group_id",
    postgres: "UPDATE projects SET next_look_up_at = $2 WHERE group_id IN (SELECT group_id FROM projects \
               WHERE kms IS NOT NULL AND (next_look_up_at IS NULL OR next_look_up_at <= $1 OR next_look_up_at > $4) LIMIT $3 \
               FOR UPDATE SKIP LOCKED) RETURNING group_id",
};
const DONE: Sql = Sql::same(
    "UPDATE projects SET looked_up_at = $2, look_up_said = $3, next_look_up_at = $4 WHERE group_id = $1",
);
const SOON: Sql = Sql::same("UPDATE projects SET next_look_up_at = NULL WHERE group_id = $1");
const LAST: Sql = Sql::same(
    "SELECT looked_up_at, look_up_said FROM projects WHERE group_id = $1 AND looked_up_at IS NOT NULL",
);

pub(super) const STATEMENTS: &[&Sql] = &[&NEXT, &CLAIM, &DONE, &SOON, &LAST];

impl Store {
    /// When the next lookup is due; `None` when no project names a lookup. A project without any lookup
    /// yet is due at `now`, and so is one whose instant is after `beyond`.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn next_look_up(
        &self,
        now: Timestamp,
        beyond: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        let row: Option<(Option<Timestamp>,)> =
            read!(self, NEXT, |pool, text| sqlx::query_as(text).bind(beyond).fetch_optional(pool).await)?;
        Ok(row.map(|(at,)| at.filter(|at| *at <= beyond).unwrap_or(now)))
    }

    /// Claims projects whose lookup is due, or whose instant is after `beyond`; they are due again after `claim`.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn claim_look_ups(
        &self,
        now: Timestamp,
        beyond: Timestamp,
        claim: Duration,
        limit: i64,
    ) -> Result<Vec<GroupId>, StoreError> {
        // Projects that an unanswered attempt has claimed become due again by themselves.
        let rows = self
            .transact("lookup.claim", Lane::Rest, (), move |tx, (), _| {
                Box::pin(async move {
                    let rows: Vec<(String,)> = each!(tx, CLAIM, |conn, text| sqlx::query_as(text)
                        .bind(now)
                        .bind(now + claim)
                        .bind(limit)
                        .bind(beyond)
                        .fetch_all(conn)
                        .await)?;
                    Ok(rows)
                })
            })
            .await?;
        let bad = |text: &str| StoreError::corrupt("projects", "group_id", text);
        readable(rows.iter().map(|(text,)| text.parse().map_err(|_| bad(text))))
    }

    /// Records the result of a lookup, and when the next one is due.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn looked_up(
        &self,
        group: &GroupId,
        said: &str,
        now: Timestamp,
        next: Timestamp,
    ) -> Result<(), StoreError> {
        let args = (group.clone(), storable(said).into_owned());
        self.transact("lookup.done", Lane::Rest, args, move |tx, (group, said), _| {
            Box::pin(async move {
                each!(tx, DONE, |conn, text| sqlx::query(text)
                    .bind(group.as_str())
                    .bind(now)
                    .bind(said.as_str())
                    .bind(next)
                    .execute(conn)
                    .await
                    .map(drop))?;
                Ok(())
            })
        })
        .await
    }

    /// Makes a project's lookup due at once.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn look_up_soon(&self, group: &GroupId) -> Result<(), StoreError> {
        self.transact("lookup.soon", Lane::Command, group.clone(), |tx, group, _| {
            Box::pin(async move {
                each!(tx, SOON, |conn, text| sqlx::query(text)
                    .bind(group.as_str())
                    .execute(conn)
                    .await
                    .map(drop))?;
                Ok(())
            })
        })
        .await
    }

    /// The instant and the result of the poll's last lookup for a project.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn last_look_up(&self, group: &GroupId) -> Result<Option<(Timestamp, String)>, StoreError> {
        Ok(read!(self, LAST, |pool, text| sqlx::query_as(text)
            .bind(group.as_str())
            .fetch_optional(pool)
            .await)?)
    }
}
