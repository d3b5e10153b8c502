//! Reviews of emergency rotations: what somebody else looks at afterwards.
//!
//! All rows carry one seal together, as few are ever written: a row that somebody removed, added or closed by hand is
//! noticed, and no emergency is proposed on top of it. Who may propose one and close a review is decided by the engine.

use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use super::lanes::Lane;
use super::readable::readable;
use super::seal::Seal;
use super::seals::AGAIN;
use super::types::{Instant, instant, storable};
use super::{NewAudit, NewOutbox, Sql, Store, StoreError, Tx, each, read};
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::time::Timestamp;
use crate::seal::Digest;

const ALL: Sql = Sql::same(
    "SELECT rotation_id, group_id, project_name, requested_by, people, reason, requested_at, closed_by, closed_at, \
     finding FROM reviews ORDER BY requested_at, rotation_id",
);
const INSERT: Sql = Sql::same(
    "INSERT INTO reviews (rotation_id, group_id, project_name, requested_by, people, reason, requested_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7)",
);
const CLOSE: Sql = Sql::same(
    "UPDATE reviews SET closed_by = $2, closed_at = $3, finding = $4 WHERE rotation_id = $1 AND closed_at IS NULL",
);

pub(super) const STATEMENTS: &[&Sql] = &[&ALL, &INSERT, &CLOSE];

/// The subject of the seal of all reviews.
const SUBJECT: &str = "reviews";

/// The review of an emergency rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// The rotation.
    pub rotation_id: RotationId,
    /// Its project.
    pub group_id: GroupId,
    /// Its name at the time.
    pub project_name: String,
    /// The identity that proposed the rotation.
    pub requested_by: String,
    /// The mail addresses and names of that person, at the time.
    pub people: Vec<String>,
    /// Why it was an emergency.
    pub reason: String,
    /// When it was proposed.
    pub requested_at: Timestamp,
    /// Who closed the review; `None` while it is open.
    pub closed_by: Option<String>,
    /// When.
    pub closed_at: Option<Timestamp>,
    /// What they found.
    pub finding: Option<String>,
}

impl Review {
    /// Whether nobody has closed it.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.closed_at.is_none()
    }

    /// Whether an identity with this name, of a person with these addresses and names, proposed the rotation.
    #[must_use]
    pub fn is_of(&self, name: &str, people: &[String]) -> bool {
        let mine = |it: &String| people.iter().any(|own| own.eq_ignore_ascii_case(it));
        self.requested_by == name || self.people.iter().any(mine)
    }
}

#[derive(FromRow)]
struct ReviewRow {
    rotation_id: Uuid,
    group_id: String,
    project_name: String,
    requested_by: String,
    people: String,
    reason: String,
    requested_at: Instant,
    closed_by: Option<String>,
    closed_at: Option<Instant>,
    finding: Option<String>,
}

impl TryFrom<ReviewRow> for Review {
    type Error = StoreError;
    fn try_from(row: ReviewRow) -> Result<Self, StoreError> {
        let id = RotationId(row.rotation_id);
        let bad = |column| StoreError::corrupt("reviews", column, id);
        Ok(Self {
            rotation_id: id,
            group_id: row.group_id.parse().map_err(|_| bad("group_id"))?,
            people: serde_json::from_str(&row.people).map_err(|_| bad("people"))?,
            requested_at: row.requested_at.or(bad("requested_at"))?,
            closed_at: instant(row.closed_at, || bad("closed_at"))?,
            project_name: row.project_name,
            requested_by: row.requested_by,
            reason: row.reason,
            closed_by: row.closed_by,
            finding: row.finding,
        })
    }
}

/// The seal of all reviews. No reviews need no seal.
fn seal(all: &[Review]) -> Seal {
    if all.is_empty() {
        return Seal::end(SUBJECT);
    }
    let texts: Vec<[Option<String>; 10]> = all
        .iter()
        .map(|it| {
            [
                Some(it.rotation_id.to_string()),
                Some(it.group_id.to_string()),
                Some(it.project_name.clone()),
                Some(it.requested_by.clone()),
                Some(json!(it.people).to_string()),
                Some(it.reason.clone()),
                Some(it.requested_at.to_string()),
                it.closed_by.clone(),
                it.closed_at.map(|at| at.to_string()),
                it.finding.clone(),
            ]
        })
        .collect();
    let fields: Vec<_> = texts.iter().flatten().map(Option::as_deref).collect();
    Seal::new(SUBJECT, Digest::of(SUBJECT, &fields))
}

impl Store {
    /// All reviews, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Tampered`] when they are not what Keywheel wrote; fails when the database cannot be read.
    pub async fn reviews(&self) -> Result<Vec<Review>, StoreError> {
        let mut again = 0..AGAIN;
        loop {
            let rows: Vec<ReviewRow> =
                read!(self, ALL, |pool, sql| sqlx::query_as(sql).fetch_all(pool).await)?;
            let all = readable(rows.into_iter().map(Review::try_from))?;
            match self.check_seals(&[seal(&all)]).await {
                Err(StoreError::Tampered { .. }) if again.next().is_some() => {}
                checked => return checked.map(|()| all),
            }
        }
    }

    /// Writes that a review was closed, with the messages that tell it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it was closed meanwhile, [`StoreError::Tampered`] when the reviews are not what
    /// Keywheel wrote; fails when the database cannot be written.
    pub async fn close_review(
        &self,
        closed: &Review,
        audit: NewAudit,
        outbox: &[NewOutbox],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let args = (closed.clone(), audit, outbox.to_vec());
        self.transact("review.close", Lane::Command, args, move |tx, (closed, audit, outbox), unsure| {
            Box::pin(async move {
                let audit = std::slice::from_ref(&*audit);
                if unsure && tx.is_appended(audit, now).await? {
                    return Ok(());
                }
                tx.sealed_reviews().await?;
                let done = each!(tx, CLOSE, |conn, sql| sqlx::query(sql)
                    .bind(closed.rotation_id.0)
                    .bind(closed.closed_by.as_deref())
                    .bind(closed.closed_at)
                    .bind(closed.finding.as_deref().map(storable))
                    .execute(conn)
                    .await
                    .map(|done| done.rows_affected()))?;
                if done != 1 {
                    return Err(StoreError::Conflict);
                }
                tx.write_outbox(outbox, now).await?;
                let seal = tx.seal_of_reviews().await?;
                tx.append_sealing(audit, vec![seal], now).await
            })
        })
        .await
    }
}

impl Tx {
    async fn stored_reviews(&mut self) -> Result<Vec<Review>, StoreError> {
        let rows: Vec<ReviewRow> = each!(self, ALL, |conn, sql| sqlx::query_as(sql).fetch_all(conn).await)?;
        // A row that cannot be read is one that does not fit.
        readable(rows.into_iter().map(Review::try_from))
    }

    /// The seal of the reviews as they are stored.
    pub(super) async fn seal_of_reviews(&mut self) -> Result<Seal, StoreError> {
        Ok(seal(&self.stored_reviews().await?))
    }

    /// The reviews as Keywheel wrote them. Nobody else writes one before this transaction ends: they are sealed together.
    async fn sealed_reviews(&mut self) -> Result<Vec<Review>, StoreError> {
        self.audit_head().await?;
        let all = self.stored_reviews().await?;
        self.check_seals(&[seal(&all)]).await?;
        Ok(all)
    }

    /// Opens the review of an emergency rotation; returns the seal of all reviews.
    pub(super) async fn open_review(&mut self, it: &Review) -> Result<Seal, StoreError> {
        let all = self.sealed_reviews().await?;
        let own = |earlier: &&Review| earlier.is_open() && earlier.is_of(&it.requested_by, &it.people);
        if let Some(earlier) = all.iter().find(own) {
            return Err(StoreError::ReviewOpen { id: earlier.rotation_id });
        }
        each!(self, INSERT, |conn, sql| sqlx::query(sql)
            .bind(it.rotation_id.0)
            .bind(it.group_id.as_str())
            .bind(storable(&it.project_name))
            .bind(it.requested_by.as_str())
            .bind(json!(it.people).to_string())
            .bind(storable(&it.reason))
            .bind(it.requested_at)
            .execute(conn)
            .await
            .map(drop))?;
        self.seal_of_reviews().await
    }
}
