//! Rotations and their journal: claims, and the one write that moves a rotation.
//!
//! A write names the version it read and, for a worker, the claim it holds; it changes nothing when
//! either is no longer true. Rotation, journal, audit, outbox and project change together.

use std::time::Duration;

use sqlx::FromRow;
use uuid::Uuid;

use super::lanes::Lane;
use super::later::JournalRow;
use super::outbox::CLEAR_CLAIMS;
use super::readable::{Listed, listed, readable};
use super::retry::persist;
use super::rotation_row::{ALL_OPEN, RotationRow, StoredRow, columns};
use super::seal::Seal;
use super::sealed_rotations::Sealing;
use super::types::{Instant, json, storable};
use super::{
    NewAudit, NewOutbox, ProjectWrite, Review, Sql, Store, StoreError, Tx, Vote, each, read, urgent,
};
use crate::domain::ids::{GroupId, LeaseToken, RotationId};
use crate::domain::rotation::journal::JournalKind;
use crate::domain::rotation::machine::MACHINE_VERSION;
use crate::domain::rotation::state::{Cause, Rotation, State, Target};
use crate::domain::time::Timestamp;
use crate::domain::vote::Terms;

const GET: Sql = Sql::same(concat!("SELECT ", columns!(), " FROM rotations WHERE id = $1"));
const LIST: Sql = Sql::same(concat!(
    "SELECT ",
    columns!(),
    " FROM rotations WHERE id < $1 AND ($2 = '' OR state = $2) AND ($3 = '' OR group_id = $3) ORDER BY id DESC LIMIT $4"
));
const OPEN: Sql = Sql::same(concat!(
    "SELECT ",
    columns!(),
    " FROM rotations WHERE state IN ('awaiting_approval', 'approved', 'applying', 'verifying', 'deploying', 'rolling_back', \
     'needs_operator') AND (state IN ('approved', 'applying', 'needs_operator') OR group_id IN (SELECT group_id FROM readings))"
));
// The first term is that of the index of open rotations.
const IN_FLIGHT: Sql = Sql::same(concat!(
    "SELECT ",
    columns!(),
    " FROM rotations WHERE state IN ('awaiting_approval', 'approved', 'applying', 'verifying', 'deploying', 'rolling_back', \
     'needs_operator') AND state NOT IN ('awaiting_approval', 'needs_operator') ORDER BY urgency, id DESC LIMIT $1"
));
const MOVES: Sql = Sql::same(
    "SELECT COUNT(*), CAST(COALESCE(SUM(version), 0) AS BIGINT), (SELECT COUNT(*) FROM conditions WHERE ended_at IS NULL) \
     FROM rotations WHERE state IN ('awaiting_approval', 'approved', 'applying', 'verifying', 'deploying', 'rolling_back', \
     'needs_operator')",
);
const AFTER_PATCH: Sql = Sql::same(
    "SELECT COUNT(*) FROM rotations WHERE state IN ('applying', 'verifying', 'deploying', 'rolling_back')",
);
const OPEN_OF: Sql = Sql::same(
    "SELECT id FROM rotations WHERE group_id = $1 AND state IN ('awaiting_approval', 'approved', 'applying', \
     'verifying', 'deploying', 'rolling_back', 'needs_operator')",
);
const INSERT: Sql = Sql::same(
    "INSERT INTO rotations (id, group_id, project_name, credential, old_key, new_key, state, trigger_name, reason, \
     requested_by, proposal_hash, policy_version, machine, machine_version, urgency, wake_at, created_at, version) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, 1) ON CONFLICT DO NOTHING",
);
const STEP: Sql = Sql::same(
    "UPDATE rotations SET state = $4, cause = $5, machine = $6, machine_version = $7, urgency = $8, guard_at = $9, \
     wake_at = $10, finished_at = $11, lease_token = NULL, lease_until = NULL, version = version + 1 \
     WHERE id = $1 AND version = $2 AND lease_token = $3",
);
const STEP_ON: Sql = Sql {
    sqlite: "UPDATE rotations SET state = $4, cause = $5, machine = $6, machine_version = $7, urgency = $8, \
     guard_at = $9, wake_at = $10, finished_at = $11, lease_until = $12, version = version + 1 \
     WHERE id = $1 AND version = $2 AND lease_token = $3 AND lease_until > $13",
    postgres: "UPDATE rotations SET state = $4, cause = $5, machine = $6, machine_version = $7, urgency = $8, \
     guard_at = $9, wake_at = $10, finished_at = $11, \
     lease_until = clock_timestamp() + ($12::timestamptz - $13::timestamptz), version = version + 1 \
     WHERE id = $1 AND version = $2 AND lease_token = $3 AND lease_until > clock_timestamp()",
};
const COMMAND: Sql = Sql::same(
    "UPDATE rotations SET state = $3, cause = $4, machine = $5, machine_version = $6, urgency = $7, guard_at = $8, \
     wake_at = $9, finished_at = $10, version = version + 1 WHERE id = $1 AND version = $2",
);
// Without NULLS LAST the databases disagree about the row that is claimed first.
const CLAIM: Sql = Sql {
    sqlite: concat!(
        "UPDATE rotations SET lease_token = $4, lease_until = $2 WHERE id IN (SELECT id FROM rotations \
         WHERE wake_at <= $1 AND (lease_until IS NULL OR lease_until <= $1 OR lease_token = $4) ORDER BY urgency, guard_at NULLS LAST, \
         wake_at, id LIMIT $3) RETURNING ",
        columns!()
    ),
    postgres: concat!(
        "UPDATE rotations SET lease_token = $4, lease_until = clock_timestamp() + ($2::timestamptz - $1::timestamptz) \
         WHERE id IN (SELECT id FROM rotations WHERE wake_at <= $1 AND (lease_until IS NULL OR lease_until <= \
         clock_timestamp() OR lease_token = $4) ORDER BY urgency, guard_at NULLS LAST, wake_at, id LIMIT $3 FOR UPDATE SKIP LOCKED) RETURNING ",
        columns!()
    ),
};
const WAKE: Sql = Sql::same("UPDATE rotations SET wake_at = $2 WHERE id = $1 AND wake_at > $2");
const RELEASE: Sql = Sql::same(
    "UPDATE rotations SET lease_token = NULL, lease_until = NULL WHERE id = $1 AND lease_token = $2",
);
const PUT_OFF: Sql = Sql::same(
    "UPDATE rotations SET lease_token = NULL, lease_until = NULL, wake_at = $3 WHERE id = $1 AND lease_token = $2",
);
const RENEW: Sql = Sql {
    sqlite: "UPDATE rotations SET lease_until = $4 WHERE id = $1 AND lease_token = $2 AND lease_until > $3",
    postgres: "UPDATE rotations SET lease_until = clock_timestamp() + ($4::timestamptz - $3::timestamptz) \
     WHERE id = $1 AND lease_token = $2 AND lease_until > clock_timestamp()",
};
const VERSION: Sql = Sql::same("SELECT version FROM rotations WHERE id = $1");
const WRITTEN: Sql =
    Sql::same("SELECT lease_token FROM rotations WHERE id = $1 AND version = $2 AND machine = $3");
const CLEAR_LEASES: Sql =
    Sql::same("UPDATE rotations SET lease_token = NULL, lease_until = NULL WHERE lease_token IS NOT NULL");
const NEXT_WAKE: Sql = Sql {
    sqlite: "SELECT MAX($1, MIN(CASE WHEN lease_until > wake_at THEN lease_until ELSE wake_at END)) FROM rotations \
     WHERE wake_at IS NOT NULL",
    // Each instant is measured by the clock that wrote it; the result is by the caller's clock.
    postgres: "SELECT $1::timestamptz + MIN(GREATEST(wake_at - $1::timestamptz, lease_until - clock_timestamp())) \
     FROM rotations WHERE wake_at IS NOT NULL",
};
const LAST_ENTRY: Sql = Sql::same(
    "SELECT seq, at, actor, kind, from_state, to_state, detail, count, last_at FROM journal \
     WHERE rotation_id = $1 ORDER BY seq DESC LIMIT 1",
);
pub(super) const JOURNAL: Sql = Sql::same(
    "SELECT seq, at, actor, kind, from_state, to_state, detail, count, last_at FROM journal \
     WHERE rotation_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
);
const AGAIN: Sql =
    Sql::same("UPDATE journal SET count = count + 1, last_at = $3 WHERE rotation_id = $1 AND seq = $2");

const COUNTS: Sql = Sql::same("SELECT state, COUNT(*) FROM rotations GROUP BY state ORDER BY state");

pub(super) const STATEMENTS: &[&Sql] = &[
    &GET,
    &LIST,
    &OPEN,
    &IN_FLIGHT,
    &MOVES,
    &AFTER_PATCH,
    &OPEN_OF,
    &INSERT,
    &STEP,
    &STEP_ON,
    &COMMAND,
    &CLAIM,
    &WAKE,
    &RELEASE,
    &PUT_OFF,
    &RENEW,
    &VERSION,
    &WRITTEN,
    &CLEAR_LEASES,
    &NEXT_WAKE,
    &LAST_ENTRY,
    &JOURNAL,
    &AGAIN,
    &COUNTS,
];

/// A journal row to write.
#[derive(Clone, Debug)]
pub struct NewJournal {
    /// The person or component that caused it.
    pub actor: String,
    /// The kind of event.
    pub kind: JournalKind,
    /// The state before; `None` for the proposal.
    pub from_state: Option<State>,
    /// The state after.
    pub to_state: State,
    /// The details.
    pub detail: serde_json::Value,
    /// The input of a transition's decision.
    pub replay: Option<serde_json::Value>,
    /// Whether the last row may count it when both are equal.
    pub merge: bool,
}

/// A stored journal row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// Counts from 1 in each rotation.
    pub seq: i64,
    /// When it first happened.
    pub at: Timestamp,
    /// The person or component that caused it.
    pub actor: String,
    /// The kind of event.
    pub kind: JournalKind,
    /// The state before.
    pub from_state: Option<State>,
    /// The state after.
    pub to_state: State,
    /// The details.
    pub detail: serde_json::Value,
    /// How often in a row it happened.
    pub count: i64,
    /// When it last happened.
    pub last_at: Timestamp,
}

#[derive(FromRow)]
pub(super) struct EntryRow {
    seq: i64,
    at: Instant,
    actor: String,
    kind: String,
    from_state: Option<String>,
    to_state: String,
    detail: String,
    count: i64,
    last_at: Instant,
}

impl EntryRow {
    pub(super) fn entry(self, id: RotationId) -> Result<JournalEntry, StoreError> {
        let row = self;
        let bad = |column| StoreError::corrupt("journal", column, format_args!("{id}/{}", row.seq));
        Ok(JournalEntry {
            from_state: row.from_state.map(|text| text.parse().map_err(|_| bad("from_state"))).transpose()?,
            to_state: row.to_state.parse().map_err(|_| bad("to_state"))?,
            detail: serde_json::from_str(&row.detail).map_err(|_| bad("detail"))?,
            seq: row.seq,
            at: row.at.or(bad("at"))?,
            actor: row.actor,
            kind: row.kind.parse().map_err(|_| bad("kind"))?,
            count: row.count,
            last_at: row.last_at.or(bad("last_at"))?,
        })
    }
}

/// Everything one step changes.
#[derive(Debug)]
pub struct StepWrite<'a> {
    /// The row that was read: id, version and claim.
    pub before: &'a RotationRow,
    /// The rotation after the step.
    pub after: &'a Rotation,
    /// Until when the claim is renewed; `None` gives it back.
    pub keep_lease: Option<Timestamp>,
    /// The journal row.
    pub journal: Option<NewJournal>,
    /// Audit rows.
    pub audit: Vec<NewAudit>,
    /// Mails and webhooks.
    pub outbox: Vec<NewOutbox>,
    /// The change of the project.
    pub project: Option<ProjectWrite>,
    /// A vote.
    pub vote: Option<Vote>,
    /// The PATCH that leaves after the step.
    pub sends: Option<Target>,
    /// By what the votes are counted before a PATCH of the new key.
    pub terms: Option<Terms>,
    /// The instant of the step.
    pub now: Timestamp,
}

/// A step as it is written.
struct StepRow {
    id: RotationId,
    /// The version that was read.
    version: i64,
    /// The claim that was read.
    lease: Option<LeaseToken>,
    state: State,
    cause: Option<Cause>,
    machine: String,
    guard_at: Option<Timestamp>,
    wake_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    keep_lease: Option<Timestamp>,
    journal: Option<NewJournal>,
    audit: Vec<NewAudit>,
    outbox: Vec<NewOutbox>,
    project: Option<ProjectWrite>,
    vote: Option<Vote>,
    /// Whether the search for the witness event starts.
    awaits_event: bool,
    sealing: Sealing,
    /// The project, and by what its votes are counted.
    terms: Option<(GroupId, Terms)>,
    now: Timestamp,
}

/// Post-PATCH states are claimed first.
const fn urgency(state: State) -> i64 {
    match state {
        State::RollingBack => 0,
        State::Applying | State::Verifying => 1,
        State::Deploying => 2,
        State::Approved => 3,
        State::NeedsOperator => 4,
        _ => 5,
    }
}

/// A proposal, and the rows written with it.
#[derive(Debug)]
pub struct NewRotation<'a> {
    /// The rotation.
    pub row: &'a RotationRow,
    /// The first rows of its journal.
    pub journal: Vec<NewJournal>,
    /// An approval that comes with it.
    pub vote: Option<Vote>,
    /// Audit rows.
    pub audit: Vec<NewAudit>,
    /// Mails and webhooks.
    pub outbox: Vec<NewOutbox>,
    /// What an emergency rotation leaves open.
    pub review: Option<Review>,
    /// The instant of the proposal.
    pub now: Timestamp,
}

impl Store {
    /// Writes one step, all of it or nothing; returns the new version.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when version or claim differs from the row that was read,
    /// [`StoreError::LeaseLost`] when the step is written and the claim has passed to another worker.
    pub async fn commit(&self, write: StepWrite<'_>) -> Result<i64, StoreError> {
        let machine = json("rotations", "machine", write.after.id, write.after)?;
        let (before, after) = (write.before, write.after);
        let ended = before.rotation.state != after.state
            && matches!(after.state, State::Completed | State::Accepted)
            && after.patching.patched_at.is_some();
        let step = StepRow {
            id: after.id,
            version: before.version,
            lease: before.lease,
            state: after.state,
            cause: after.cause,
            machine,
            guard_at: after.patching.guard_deadline,
            wake_at: after.wake_at,
            finished_at: after.ending.finished_at,
            keep_lease: write.keep_lease,
            journal: write.journal,
            audit: write.audit,
            outbox: write.outbox,
            project: write.project,
            vote: write.vote,
            awaits_event: ended,
            sealing: Sealing::of(before, after, write.sends)?,
            terms: write.terms.map(|it| (before.rotation.group_id.clone(), it)),
            now: write.now,
        };
        let lane = if before.lease.is_some() { Lane::Step } else { Lane::Command };
        self.transact("rotation.step", lane, step, |tx, step, unsure| Box::pin(tx.write_step(step, unsure)))
            .await
    }

    /// Writes a proposal.
    ///
    /// # Errors
    /// [`StoreError::OpenRotationExists`] when the project has an open rotation, [`StoreError::ReviewOpen`] when a review of
    /// the same person is open.
    pub async fn insert_rotation(&self, write: NewRotation<'_>) -> Result<(), StoreError> {
        let it = &write.row.rotation;
        let machine = json("rotations", "machine", it.id, it)?;
        let NewRotation { row, journal, vote, audit, outbox, review, now } = write;
        let sealed = row.seal()?;
        let args = (row.clone(), machine, journal, vote, audit, outbox, review, sealed);
        self.transact(
            "rotation.propose",
            Lane::Command,
            args,
            move |tx, (row, machine, journal, vote, audit, outbox, review, sealed), _| {
                Box::pin(async move {
                    if review.is_some() {
                        // In the order of a step: the end of the audit log, then the rotation.
                        tx.audit_head().await?;
                    }
                    if !tx.insert_rotation(row, machine).await? {
                        return tx.check_own_proposal(&row.rotation).await;
                    }
                    let id = row.rotation.id;
                    if let Some(vote) = vote {
                        tx.write_vote(id, vote, now).await?;
                    }
                    for entry in journal {
                        tx.write_journal(id, entry, now).await?;
                    }
                    tx.write_outbox(outbox, now).await?;
                    let mut seals = vec![sealed.clone(), tx.seal_of_votes(id).await?];
                    if let Some(review) = review {
                        seals.push(tx.open_review(review).await?);
                    }
                    tx.append_sealing(audit, seals, now).await
                })
            },
        )
        .await
    }

    /// Makes a rotation that rests due at once. Who has claimed it decides its next wait anew.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn wake(&self, id: RotationId, now: Timestamp) -> Result<(), StoreError> {
        self.transact("rotation.wake", Lane::Step, (), move |tx, (), _| {
            Box::pin(async move {
                each!(tx, WAKE, |conn, text| sqlx::query(text)
                    .bind(id.0)
                    .bind(now)
                    .execute(conn)
                    .await
                    .map(drop))?;
                Ok(())
            })
        })
        .await
    }

    /// The rotations that a condition may concern: those that wait, and those of projects with readings that
    /// are not good.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn open_rotations(&self) -> Result<Vec<RotationRow>, StoreError> {
        let rows: Vec<StoredRow> =
            urgent!(self, OPEN, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        readable(rows.into_iter().map(RotationRow::try_from))
    }

    /// The rotations that are approved and go on by themselves, the most urgent first, without those that cannot be read.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn rotations_in_flight(&self, most: usize) -> Result<Vec<RotationRow>, StoreError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows: Vec<StoredRow> =
            read!(self, IN_FLIGHT, |pool, text| sqlx::query_as(text).bind(most).fetch_all(pool).await)?;
        readable(rows.into_iter().map(RotationRow::try_from))
    }

    /// How many rotations are open, how often they have moved in all, and how many conditions hold: a step, a start and
    /// an end change one of the numbers.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn moves(&self) -> Result<(i64, i64, i64), StoreError> {
        Ok(read!(self, MOVES, |pool, text| sqlx::query_as(text).fetch_one(pool).await)?)
    }

    /// Whether a rotation is between its PATCH and its end.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn has_rotation_after_patch(&self) -> Result<bool, StoreError> {
        let (count,): (i64,) =
            urgent!(self, AFTER_PATCH, |pool, text| sqlx::query_as(text).fetch_one(pool).await)?;
        Ok(count > 0)
    }

    /// Those of them that cannot be read.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub(super) async fn unreadable_open_rotations(&self) -> Result<Vec<StoreError>, StoreError> {
        let rows: Vec<StoredRow> =
            urgent!(self, ALL_OPEN, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        Ok(rows.into_iter().map(RotationRow::try_from).filter_map(Result::err).collect())
    }

    /// Claims due rotations, the most urgent first, for `ttl`. A rotation that cannot be read is skipped;
    /// its claim ends by itself.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn claim(
        &self,
        now: Timestamp,
        limit: usize,
        ttl: Duration,
    ) -> Result<Vec<RotationRow>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let token = Uuid::now_v7();
        // A repetition under the same token finds the rows that an unanswered attempt has claimed.
        let rows = self.transact("rotation.claim", Lane::Step, (), move |tx, (), _| {
            Box::pin(async move {
                let rows: Vec<StoredRow> = each!(tx, CLAIM, |conn, text| sqlx::query_as(text)
                    .bind(now)
                    .bind(now + ttl)
                    .bind(limit)
                    .bind(token)
                    .fetch_all(conn)
                    .await)?;
                Ok(rows)
            })
        });
        let rows = rows.await?;
        let mut rows = readable(rows.into_iter().map(RotationRow::try_from))?;
        rows.sort_by_key(|row| {
            let it = &row.rotation;
            (
                urgency(it.state),
                it.patching.guard_deadline.is_none(),
                it.patching.guard_deadline,
                it.wake_at,
                it.id,
            )
        });
        Ok(rows)
    }

    /// Gives a claim back.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn release(&self, row: &RotationRow) -> Result<(), StoreError> {
        let Some(lease) = row.lease else { return Ok(()) };
        let id = row.rotation.id;
        self.transact("rotation.release", Lane::Step, (), move |tx, (), _| {
            Box::pin(async move {
                each!(tx, RELEASE, |conn, text| sqlx::query(text)
                    .bind(id.0)
                    .bind(lease.0)
                    .execute(conn)
                    .await
                    .map(drop))?;
                Ok(())
            })
        })
        .await
    }

    /// Gives a claim back, and has the rotation claimed again at `until`, or before by anyone who wakes it.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn put_off(&self, row: &RotationRow, until: Timestamp) -> Result<(), StoreError> {
        let Some(lease) = row.lease else { return Ok(()) };
        let id = row.rotation.id;
        self.transact("rotation.put_off", Lane::Step, (), move |tx, (), _| {
            Box::pin(async move {
                each!(tx, PUT_OFF, |conn, text| sqlx::query(text)
                    .bind(id.0)
                    .bind(lease.0)
                    .bind(until)
                    .execute(conn)
                    .await
                    .map(drop))?;
                Ok(())
            })
        })
        .await
    }

    /// Makes a claim last `ttl` from now on.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when it ran out before.
    pub async fn renew(&self, row: &RotationRow, now: Timestamp, ttl: Duration) -> Result<(), StoreError> {
        let Some(lease) = row.lease else { return Err(StoreError::LeaseLost) };
        let id = row.rotation.id;
        self.transact("rotation.renew", Lane::Step, (), move |tx, (), _| {
            Box::pin(async move {
                let done = each!(tx, RENEW, |conn, text| sqlx::query(text)
                    .bind(id.0)
                    .bind(lease.0)
                    .bind(now)
                    .bind(now + ttl)
                    .execute(conn)
                    .await
                    .map(|done| done.rows_affected()))?;
                if done == 0 { Err(StoreError::LeaseLost) } else { Ok(()) }
            })
        })
        .await
    }

    /// Ends every claim: only for SQLite, where the lock file guarantees that no other daemon holds one.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn clear_leases(&self) -> Result<(), StoreError> {
        self.transact("rotation.clear_leases", Lane::Step, (), |tx, (), _| {
            Box::pin(async move {
                for sql in [CLEAR_LEASES, CLEAR_CLAIMS] {
                    each!(tx, sql, |conn, text| sqlx::query(text).execute(conn).await.map(drop))?;
                }
                Ok(())
            })
        })
        .await
    }

    /// When the next rotation becomes due, by the clock of `now`.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn next_wake(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        persist("rotation.next_wake", |_| async move {
            let (at,): (Option<Timestamp>,) =
                urgent!(self, NEXT_WAKE, |pool, text| sqlx::query_as(text).bind(now).fetch_one(pool).await)?;
            Ok(at)
        })
        .await
    }

    /// How many rotations there are in each state.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn rotation_counts(&self) -> Result<Vec<(String, i64)>, StoreError> {
        Ok(read!(self, COUNTS, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?)
    }

    /// Reads one rotation.
    ///
    /// # Errors
    /// Fails when the database or the stored rotation cannot be read.
    pub async fn rotation(&self, id: RotationId) -> Result<Option<RotationRow>, StoreError> {
        let row: Option<StoredRow> =
            read!(self, GET, |pool, text| sqlx::query_as(text).bind(id.0).fetch_optional(pool).await)?;
        row.map(RotationRow::try_from).transpose()
    }

    /// Rotations, newest first, older than `before`, without those that cannot be read.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn rotations(
        &self,
        state: Option<State>,
        group: Option<&GroupId>,
        mut before: Option<RotationId>,
        limit: usize,
    ) -> Result<Vec<RotationRow>, StoreError> {
        loop {
            let (page, last) = self.rotation_page(state, group, before, limit).await?;
            let rows = readable(page)?;
            // A page of nothing but unreadable rows is not the end of the list.
            if !rows.is_empty() || last.is_none() {
                return Ok(rows);
            }
            before = last;
        }
    }

    /// One page of rotations as they are stored, and its last id; `None` when it is empty.
    pub(super) async fn rotation_page(
        &self,
        state: Option<State>,
        group: Option<&GroupId>,
        before: Option<RotationId>,
        limit: usize,
    ) -> Result<(Vec<Result<RotationRow, StoreError>>, Option<RotationId>), StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows: Vec<StoredRow> = read!(self, LIST, |pool, text| sqlx::query_as(text)
            .bind(before.map_or(Uuid::max(), |id| id.0))
            .bind(state.map_or("", State::as_str))
            .bind(group.map_or("", GroupId::as_str))
            .bind(limit)
            .fetch_all(pool)
            .await)?;
        let last = rows.last().map(|row| RotationId(row.id));
        Ok((rows.into_iter().map(RotationRow::try_from).collect(), last))
    }

    /// The journal of a rotation after `after`, oldest first.
    ///
    /// # Errors
    /// As [`Store::rotation`].
    pub async fn journal(
        &self,
        id: RotationId,
        after: i64,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, StoreError> {
        self.journal_page(id, after, limit).await?.into_iter().collect()
    }

    /// The same, entries that cannot be read by their ids.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn list_journal(
        &self,
        id: RotationId,
        after: i64,
        limit: usize,
    ) -> Result<Vec<Listed<JournalEntry>>, StoreError> {
        listed(self.journal_page(id, after, limit).await?)
    }

    async fn journal_page(
        &self,
        id: RotationId,
        after: i64,
        limit: usize,
    ) -> Result<Vec<Result<JournalEntry, StoreError>>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows: Vec<EntryRow> = read!(self, JOURNAL, |pool, text| sqlx::query_as(text)
            .bind(id.0)
            .bind(after)
            .bind(limit)
            .fetch_all(pool)
            .await)?;
        Ok(rows.into_iter().map(|row| row.entry(id)).collect())
    }

    /// Rotations, newest first, older than `before`; those that cannot be read by their ids.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn list_rotations(
        &self,
        state: Option<State>,
        group: Option<&GroupId>,
        before: Option<RotationId>,
        limit: usize,
    ) -> Result<Vec<Listed<RotationRow>>, StoreError> {
        listed(self.rotation_page(state, group, before, limit).await?.0)
    }
}

impl Tx {
    async fn write_step(&mut self, step: &StepRow, unsure: bool) -> Result<i64, StoreError> {
        if unsure && self.is_written(step).await? {
            return Ok(step.version + 1);
        }
        let mut seals = match self.check_step(step).await {
            // Another writer was first: what it wrote is sealed in the place of what this step was decided on.
            Err(StoreError::Tampered { .. }) if self.has_moved(step).await? => {
                return Err(StoreError::Conflict);
            }
            checked => checked?,
        };
        if self.move_rotation(step).await? == 0 {
            let own = unsure && self.is_written(step).await?;
            return if own { Ok(step.version + 1) } else { Err(StoreError::Conflict) };
        }
        let now = step.now;
        if let Some(vote) = &step.vote {
            seals.extend(self.write_vote(step.id, vote, now).await?);
            if !step.sealing.ends {
                seals.push(self.seal_of_votes(step.id).await?);
            }
        }
        if let Some(entry) = &step.journal {
            self.write_journal(step.id, entry, now).await?;
        }
        if let Some(project) = &step.project {
            self.write_project(project, now).await?;
        }
        if step.awaits_event {
            self.expect_witness(step.id, now).await?;
        }
        self.write_outbox(&step.outbox, now).await?;
        self.append_sealing(&step.audit, seals, now).await?;
        Ok(step.version + 1)
    }

    /// Checks what a step rests on; returns what it seals.
    async fn check_step(&mut self, step: &StepRow) -> Result<Vec<Seal>, StoreError> {
        let seals = self.seal_step(step.id, &step.sealing, step.terms.as_ref()).await?;
        if step.vote.is_some() {
            self.sealed_votes(step.id).await?;
        }
        Ok(seals)
    }

    /// Whether the rotation is not what it was when the step was decided.
    async fn has_moved(&mut self, step: &StepRow) -> Result<bool, StoreError> {
        let found: Option<(i64,)> = each!(self, VERSION, |conn, text| sqlx::query_as(text)
            .bind(step.id.0)
            .fetch_optional(conn)
            .await)?;
        Ok(found.is_some_and(|(version,)| version != step.version))
    }

    /// The compare-and-swap on version and claim.
    async fn move_rotation(&mut self, step: &StepRow) -> Result<u64, StoreError> {
        macro_rules! machine_columns {
            ($query:expr) => {
                $query
                    .bind(step.state.as_str())
                    .bind(step.cause.map(Cause::as_str))
                    .bind(step.machine.as_str())
                    .bind(i64::from(MACHINE_VERSION))
                    .bind(urgency(step.state))
                    .bind(step.guard_at)
                    .bind(step.wake_at)
                    .bind(step.finished_at)
            };
        }
        Ok(match (step.lease, step.keep_lease) {
            (Some(lease), Some(until)) => each!(self, STEP_ON, |conn, text| machine_columns!(
                sqlx::query(text).bind(step.id.0).bind(step.version).bind(lease.0)
            )
            .bind(until)
            .bind(step.now)
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))?,
            (Some(lease), None) => each!(self, STEP, |conn, text| machine_columns!(
                sqlx::query(text).bind(step.id.0).bind(step.version).bind(lease.0)
            )
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))?,
            (None, _) => each!(self, COMMAND, |conn, text| machine_columns!(
                sqlx::query(text).bind(step.id.0).bind(step.version)
            )
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))?,
        })
    }

    /// Whether the stored rotation is exactly the result of this step: its own write, whose answer was
    /// lost. The stored form holds the instant of the step, so no other write has the same bytes.
    async fn is_written(&mut self, step: &StepRow) -> Result<bool, StoreError> {
        let found: Option<(Option<Uuid>,)> = each!(self, WRITTEN, |conn, text| sqlx::query_as(text)
            .bind(step.id.0)
            .bind(step.version + 1)
            .bind(step.machine.as_str())
            .fetch_optional(conn)
            .await)?;
        let Some((holder,)) = found else { return Ok(false) };
        if step.keep_lease.is_some() && holder.map(LeaseToken) != step.lease {
            return Err(StoreError::LeaseLost);
        }
        Ok(true)
    }

    /// Writes a proposal; false when the project has an open rotation.
    async fn insert_rotation(&mut self, row: &RotationRow, machine: &str) -> Result<bool, StoreError> {
        let it = &row.rotation;
        let done = each!(self, INSERT, |conn, text| sqlx::query(text)
            .bind(it.id.0)
            .bind(it.group_id.as_str())
            .bind(storable(&row.project_name))
            .bind(row.credential.as_str())
            .bind(it.old_key.to_string())
            .bind(it.new_key.to_string())
            .bind(it.state.as_str())
            .bind(row.trigger.as_str())
            .bind(row.reason.as_deref().map(storable))
            .bind(row.requested_by.as_str())
            .bind(row.proposal_hash.as_str())
            .bind(row.policy_version.as_str())
            .bind(machine)
            .bind(i64::from(MACHINE_VERSION))
            .bind(urgency(it.state))
            .bind(it.wake_at)
            .bind(it.created_at)
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))?;
        Ok(done > 0)
    }

    /// `Ok` when the project's open rotation is this one: an earlier attempt was written and its answer lost.
    async fn check_own_proposal(&mut self, it: &Rotation) -> Result<(), StoreError> {
        let open: Option<(Uuid,)> = each!(self, OPEN_OF, |conn, text| sqlx::query_as(text)
            .bind(it.group_id.as_str())
            .fetch_optional(conn)
            .await)?;
        match open {
            Some((id,)) if id == it.id.0 => Ok(()),
            Some((id,)) => Err(StoreError::OpenRotationExists { id: RotationId(id) }),
            None => Err(StoreError::Conflict),
        }
    }

    pub(super) async fn write_journal(
        &mut self,
        id: RotationId,
        entry: &NewJournal,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if entry.merge && self.repeat_last_entry(id, entry, now).await? {
            return Ok(());
        }
        self.journal.push(JournalRow {
            id,
            at: now,
            actor: entry.actor.clone(),
            kind: entry.kind.as_str(),
            from_state: entry.from_state.map(State::as_str),
            to_state: entry.to_state.as_str(),
            detail: entry.detail.to_string(),
            replay: entry.replay.as_ref().map(ToString::to_string),
        });
        Ok(())
    }

    /// Counts the last entry once more when it says the same; false when it does not.
    async fn repeat_last_entry(
        &mut self,
        id: RotationId,
        entry: &NewJournal,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        if self.journal.waiting().iter().any(|row| row.id == id) {
            self.write_later().await?;
        }
        let last: Option<EntryRow> =
            each!(self, LAST_ENTRY, |conn, text| sqlx::query_as(text).bind(id.0).fetch_optional(conn).await)?;
        let Some(last) = last.map(|row| row.entry(id)).transpose()? else { return Ok(false) };
        let same = last.kind == entry.kind
            && last.from_state == entry.from_state
            && last.to_state == entry.to_state
            && last.detail == entry.detail;
        if same {
            each!(self, AGAIN, |conn, text| sqlx::query(text)
                .bind(id.0)
                .bind(last.seq)
                .bind(now)
                .execute(conn)
                .await
                .map(|_| ()))?;
        }
        Ok(same)
    }
}
