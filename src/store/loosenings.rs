//! Changes of what decides who must agree: those that are announced and take effect later, and those of people who
//! count as no approver of a project for a while. Also the rules of projects that are not tracked any more.
//!
//! Each row is sealed, and for each project the list of its rows, so that a row that somebody removed is missed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use uuid::Uuid;

use super::lanes::Lane;
use super::readable::readable;
use super::seal::Seal;
use super::seals::AGAIN;
use super::types::{Instant, instant, json};
use super::{NewAudit, NewOutbox, Sql, Store, StoreError, Tx, each, read, urgent};
use crate::domain::ids::{GroupId, LooseningId};
use crate::domain::loosening::{Change, HeldEdit, LooseningKind, LooseningState};
use crate::domain::project::{PolicyOverride, Project};
use crate::domain::time::Timestamp;
use crate::domain::vote::{BY_MAIL, Bar};
use crate::seal::Digest;

const FORMER_DIFFERS: &str = "what was kept of this project is not what was written there when it was removed. Put the \
                              row back: `keywheel audit list` shows its rules with project.removed";

macro_rules! columns {
    () => {
        "SELECT id, subject, kind, state, requested_by, requested_at, changes, edit, owners, security, announced_at, \
         effective_at, ended_at, ended_by, version FROM loosenings "
    };
}

const ONE: Sql = Sql::same(concat!(columns!(), "WHERE id = $1"));
const PENDING: Sql =
    Sql::same(concat!(columns!(), "WHERE state IN ('announcing', 'waiting') ORDER BY requested_at, id"));
const STANDING: Sql =
    Sql::same(concat!(columns!(), "WHERE subject = $1 AND state <> 'withdrawn' ORDER BY requested_at, id"));
const ALL_STANDING: Sql =
    Sql::same(concat!(columns!(), "WHERE state <> 'withdrawn' ORDER BY subject, requested_at, id"));
const OF_IDENTITIES: Sql = Sql::same(concat!(
    columns!(),
    "WHERE state <> 'withdrawn' AND (subject LIKE 'token/%' OR subject LIKE 'person/%') ORDER BY subject, requested_at, id"
));
const INSERT: Sql = Sql::same(
    "INSERT INTO loosenings (id, subject, kind, state, requested_by, requested_at, changes, edit, owners, security, \
     announced_at, effective_at, version) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 1)",
);
const ANNOUNCED: Sql = Sql::same(
    "UPDATE loosenings SET state = 'waiting', announced_at = $3, effective_at = $4, version = version + 1 \
     WHERE id = $1 AND version = $2 AND state = 'announcing'",
);
const EFFECTIVE: Sql = Sql::same(
    "UPDATE loosenings SET state = 'effective', effective_at = $3, version = version + 1 \
     WHERE id = $1 AND version = $2 AND state = 'waiting'",
);
const WITHDRAW: Sql = Sql::same(
    "UPDATE loosenings SET state = 'withdrawn', ended_at = $2, ended_by = $3, version = version + 1 \
     WHERE id = $1 AND state IN ('announcing', 'waiting')",
);
const WITHDRAW_ALL: Sql = Sql::same(
    "UPDATE loosenings SET state = 'withdrawn', ended_at = $1, ended_by = 'keywheel', version = version + 1 \
     WHERE state IN ('announcing', 'waiting')",
);
const FORMER: Sql = Sql::same("SELECT record FROM former_projects WHERE group_id = $1");
const KEEP_FORMER: Sql = Sql::same(
    "INSERT INTO former_projects (group_id, record, removed_at) VALUES ($1, $2, $3) \
     ON CONFLICT (group_id) DO UPDATE SET record = $2, removed_at = $3",
);
const ALL_FORMER: Sql = Sql::same("SELECT group_id, record FROM former_projects ORDER BY group_id");
const FORGET_FORMER: Sql = Sql::same("DELETE FROM former_projects WHERE group_id = $1");

pub(super) const STATEMENTS: &[&Sql] = &[
    &ONE,
    &PENDING,
    &STANDING,
    &ALL_STANDING,
    &OF_IDENTITIES,
    &INSERT,
    &ANNOUNCED,
    &EFFECTIVE,
    &WITHDRAW,
    &WITHDRAW_ALL,
    &FORMER,
    &ALL_FORMER,
    &KEEP_FORMER,
    &FORGET_FORMER,
];

/// A change as it is stored, and to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Loosening {
    /// Its id.
    pub id: LooseningId,
    /// A project's id, or `installation`.
    pub subject: String,
    /// What it does.
    pub kind: LooseningKind,
    /// How far it is.
    pub state: LooseningState,
    /// Who requested it.
    pub requested_by: String,
    /// When.
    pub requested_at: Timestamp,
    /// The fields.
    pub changes: Vec<Change>,
    /// What takes effect.
    pub edit: HeldEdit,
    /// The owners of before: one of them must be told.
    pub owners: Vec<String>,
    /// Who must be told, each of them.
    pub security: Vec<String>,
    /// When all of them were.
    pub announced_at: Option<Timestamp>,
    /// When it takes effect, or took effect.
    pub effective_at: Option<Timestamp>,
    /// When it was withdrawn.
    pub ended_at: Option<Timestamp>,
    /// By whom.
    pub ended_by: Option<String>,
    /// Counts writes.
    pub version: i64,
}

#[derive(Clone, Debug, FromRow)]
pub(super) struct LooseningRow {
    id: Uuid,
    subject: String,
    kind: String,
    state: String,
    requested_by: String,
    requested_at: Instant,
    changes: String,
    edit: String,
    owners: String,
    security: String,
    announced_at: Option<Instant>,
    effective_at: Option<Instant>,
    ended_at: Option<Instant>,
    ended_by: Option<String>,
    version: i64,
}

impl LooseningRow {
    /// What its seal covers until it is withdrawn.
    fn seal(&self) -> Seal {
        let times = [Some(self.requested_at), self.announced_at, self.effective_at];
        let [requested_at, announced_at, effective_at] = times.map(|at| at.map(Instant::sealed));
        let fields = [
            Some(self.subject.as_str()),
            Some(&self.kind),
            Some(&self.state),
            Some(&self.requested_by),
            requested_at.as_deref(),
            Some(&self.changes),
            Some(&self.edit),
            Some(&self.owners),
            Some(&self.security),
            announced_at.as_deref(),
            effective_at.as_deref(),
        ];
        let subject = subject(LooseningId(self.id));
        let digest = Digest::of(&subject, &fields);
        Seal::new(subject, digest)
    }

    fn of(it: &Loosening) -> Result<Self, StoreError> {
        let id = it.id;
        Ok(Self {
            id: id.0,
            subject: it.subject.clone(),
            kind: it.kind.as_str().to_owned(),
            state: it.state.as_str().to_owned(),
            requested_by: it.requested_by.clone(),
            requested_at: it.requested_at.into(),
            changes: json("loosenings", "changes", id, &it.changes)?,
            edit: json("loosenings", "edit", id, &it.edit)?,
            owners: json("loosenings", "owners", id, &it.owners)?,
            security: json("loosenings", "security", id, &it.security)?,
            announced_at: it.announced_at.map(Instant::from),
            effective_at: it.effective_at.map(Instant::from),
            ended_at: None,
            ended_by: None,
            version: 1,
        })
    }
}

/// The changes that separate addresses from identities, by the subject of the identity.
#[derive(Debug, Default)]
pub(super) struct Separations(BTreeMap<String, Vec<LooseningRow>>);

impl Separations {
    fn of(rows: Vec<LooseningRow>) -> Self {
        let mut all: BTreeMap<String, Vec<LooseningRow>> = BTreeMap::new();
        for row in rows {
            all.entry(row.subject.clone()).or_default().push(row);
        }
        Self(all)
    }

    fn rows(&self, subject: &str) -> &[LooseningRow] {
        self.0.get(subject).map_or(&[], Vec::as_slice)
    }

    /// The seals of the changes of an identity and of their list.
    pub(super) fn seals(&self, subject: &str) -> Vec<Seal> {
        seals_of(subject, self.rows(subject))
    }

    /// The addresses that count as those of an identity although it does not name them: one that it left, on rotations
    /// proposed until then, and one to which it is to be given.
    pub(super) fn ties(&self, subject: &str) -> Vec<(String, Option<Timestamp>)> {
        let readable = self.rows(subject).iter().cloned().filter_map(|row| Loosening::try_from(row).ok());
        let text = |value: &serde_json::Value| value.as_str().map(own_address);
        let mut ties = Vec::new();
        for it in readable {
            for change in it.changes.iter().filter(|change| change.field == "person") {
                match (it.state, it.effective_at) {
                    (LooseningState::Effective, Some(at)) => {
                        ties.extend(text(&change.from).map(|from| (from, Some(at))));
                    }
                    _ => ties.extend(text(&change.to).map(|to| (to, None))),
                }
            }
        }
        ties
    }
}

fn own_address(name: &str) -> String {
    name.strip_prefix(BY_MAIL).unwrap_or(name).to_owned()
}

/// Whom a change bars from approving for a while: who loosened a rule, or changed owners or lookup.
pub(super) fn bar(it: &Loosening) -> Option<Bar> {
    let what = match it.kind {
        LooseningKind::Owners => "changed the owners of this project",
        LooseningKind::Lookup => "changed the lookup of this project",
        LooseningKind::Loosening => "loosened a rule of this project",
        LooseningKind::Tightening => return None,
    };
    let effective_at = it.effective_at.filter(|_| it.state == LooseningState::Effective);
    Some(Bar { by: it.requested_by.clone(), what, effective_at })
}

/// The subject of the seal of a change.
fn subject(id: LooseningId) -> String {
    format!("loosening/{id}")
}

fn list_subject(of: &str) -> String {
    format!("loosenings/{of}")
}

/// The seal of the list of a project's changes, `rows` in their order. No changes need no seal.
fn list_seal(of: &str, rows: &[LooseningRow]) -> Seal {
    let subject = list_subject(of);
    if rows.is_empty() {
        return Seal::end(subject);
    }
    let ids: Vec<String> = rows.iter().map(|row| row.id.to_string()).collect();
    let ids: Vec<_> = ids.iter().map(|id| Some(id.as_str())).collect();
    let digest = Digest::of(&subject, &ids);
    Seal::new(subject, digest)
}

/// The seals of a project's changes and of their list.
fn seals_of(of: &str, rows: &[LooseningRow]) -> Vec<Seal> {
    rows.iter().map(LooseningRow::seal).chain([list_seal(of, rows)]).collect()
}

/// The seal of what a removed project has left.
fn former(group: &str, record: &str) -> Seal {
    let subject = format!("former/{group}");
    let digest = Digest::of(&subject, &[Some(record)]);
    Seal::new(subject, digest)
}

impl TryFrom<LooseningRow> for Loosening {
    type Error = StoreError;
    fn try_from(row: LooseningRow) -> Result<Self, StoreError> {
        let bad = |column| StoreError::corrupt("loosenings", column, row.id);
        Ok(Self {
            kind: row.kind.parse().map_err(|_| bad("kind"))?,
            state: row.state.parse().map_err(|_| bad("state"))?,
            changes: serde_json::from_str(&row.changes).map_err(|_| bad("changes"))?,
            edit: serde_json::from_str(&row.edit).map_err(|_| bad("edit"))?,
            owners: serde_json::from_str(&row.owners).map_err(|_| bad("owners"))?,
            security: serde_json::from_str(&row.security).map_err(|_| bad("security"))?,
            id: LooseningId(row.id),
            subject: row.subject,
            requested_by: row.requested_by,
            requested_at: row.requested_at.or(bad("requested_at"))?,
            announced_at: instant(row.announced_at, || bad("announced_at"))?,
            effective_at: instant(row.effective_at, || bad("effective_at"))?,
            ended_at: instant(row.ended_at, || bad("ended_at"))?,
            ended_by: row.ended_by,
            version: row.version,
        })
    }
}

/// What a removed project leaves for the case that it is tracked again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FormerProject {
    /// Its own rules.
    pub policy: Option<PolicyOverride>,
    /// Its owners.
    pub owners: Vec<String>,
    /// Its tag.
    pub environment: Option<String>,
    /// Its credential.
    pub credential: String,
    /// Its lookup.
    pub kms: Option<String>,
    /// AWS: its alias.
    pub alias: Option<String>,
}

impl From<&Project> for FormerProject {
    fn from(it: &Project) -> Self {
        Self {
            policy: it.policy.clone(),
            owners: it.owners.clone(),
            environment: it.environment.clone(),
            credential: it.credential.clone(),
            kms: it.kms.clone(),
            alias: it.alias.clone(),
        }
    }
}

impl FormerProject {
    /// `project` with what is kept here.
    #[must_use]
    pub fn onto(self, project: Project) -> Project {
        Project {
            policy: self.policy,
            owners: self.owners,
            environment: self.environment,
            credential: self.credential,
            kms: self.kms,
            alias: self.alias,
            ..project
        }
    }
}

/// The rows about its rules that are written with a project.
#[derive(Clone, Debug, Default)]
pub struct Governed {
    /// New changes.
    pub new: Vec<Loosening>,
    /// Changes that a newer one replaces.
    pub withdrawn: Vec<LooseningId>,
    /// Who does that.
    pub by: String,
    /// The change that takes effect by this write.
    pub effective: Option<Loosening>,
}

impl Tx {
    /// Writes the rows about a project's rules; returns their seals.
    pub(super) async fn write_governed(
        &mut self,
        it: &Governed,
        now: Timestamp,
    ) -> Result<Vec<Seal>, StoreError> {
        let mut seals = Vec::new();
        let mut subjects = BTreeSet::new();
        for id in &it.withdrawn {
            if let Some(row) = self.stored_loosening(*id).await? {
                subjects.insert(row.subject);
            }
        }
        subjects.extend(it.new.iter().chain(&it.effective).map(|it| it.subject.clone()));
        if !subjects.is_empty() {
            // The list is sealed as a whole: nobody else may add to it before this transaction ends.
            self.audit_head().await?;
        }
        for subject in &subjects {
            self.check_list(subject).await?;
        }
        for id in &it.withdrawn {
            self.withdraw_loosening(*id, &it.by, now).await?;
            seals.push(Seal::end(subject(*id)));
        }
        for new in &it.new {
            seals.push(self.insert_loosening(new).await?);
        }
        if let Some(effective) = &it.effective {
            self.check_loosening(effective).await?;
            seals.push(self.end_loosening(effective, now).await?);
        }
        for subject in &subjects {
            seals.push(list_seal(subject, &self.standing(subject).await?));
        }
        Ok(seals)
    }

    async fn stored_loosening(&mut self, id: LooseningId) -> Result<Option<LooseningRow>, StoreError> {
        Ok(each!(self, ONE, |conn, sql| sqlx::query_as(sql).bind(id.0).fetch_optional(conn).await)?)
    }

    /// The changes of a subject that were not withdrawn.
    async fn standing(&mut self, of: &str) -> Result<Vec<LooseningRow>, StoreError> {
        Ok(each!(self, STANDING, |conn, sql| sqlx::query_as(sql).bind(of).fetch_all(conn).await)?)
    }

    /// Refuses a list of changes from which one was removed, or to which one was added.
    async fn check_list(&mut self, of: &str) -> Result<(), StoreError> {
        let list = list_seal(of, &self.standing(of).await?);
        self.check_seals(&[list]).await
    }

    /// Refuses a change that is not what Keywheel wrote, or was withdrawn.
    async fn check_loosening(&mut self, it: &Loosening) -> Result<(), StoreError> {
        let Some(row) = self.stored_loosening(it.id).await? else { return Err(StoreError::Conflict) };
        let known = LooseningRow::of(it)?.seal();
        self.check_seals(&[row.seal(), known]).await
    }

    /// The changes of a project that were not withdrawn, each as Keywheel wrote it and none missing.
    pub(super) async fn sealed_loosenings(&mut self, of: &GroupId) -> Result<Vec<Loosening>, StoreError> {
        // Without a sealed list the project has no changes, whatever the table says.
        if self.sealed(&list_subject(of.as_str())).await?.is_none() {
            return Ok(Vec::new());
        }
        let rows = self.standing(of.as_str()).await?;
        self.check_seals(&seals_of(of.as_str(), &rows)).await?;
        rows.into_iter().map(Loosening::try_from).collect()
    }

    /// The changes of identities that were not withdrawn, as the table has them.
    pub(super) async fn separations(&mut self) -> Result<Separations, StoreError> {
        let rows = each!(self, OF_IDENTITIES, |conn, sql| sqlx::query_as(sql).fetch_all(conn).await)?;
        Ok(Separations::of(rows))
    }

    /// Whether the log knows of changes of this identity.
    pub(super) async fn was_changed(&mut self, identity: &str) -> Result<bool, StoreError> {
        Ok(self.sealed(&list_subject(identity)).await?.is_some())
    }

    /// The seals of all changes that were not withdrawn, of their lists, and of what removed projects have left.
    pub(super) async fn seals_of_loosenings(&mut self) -> Result<Vec<Seal>, StoreError> {
        let rows: Vec<LooseningRow> =
            each!(self, ALL_STANDING, |conn, sql| sqlx::query_as(sql).fetch_all(conn).await)?;
        let removed: Vec<(String, String)> =
            each!(self, ALL_FORMER, |conn, sql| sqlx::query_as(sql).fetch_all(conn).await)?;
        let lists = rows.chunk_by(|one, other| one.subject == other.subject);
        let standing = lists.flat_map(|rows| seals_of(&rows[0].subject, rows));
        Ok(standing.chain(removed.iter().map(|(group, record)| former(group, record))).collect())
    }

    /// Withdraws what is to take effect: nobody vouches for it any more. Returns the seals.
    pub(super) async fn withdraw_pending(&mut self, now: Timestamp) -> Result<Vec<Seal>, StoreError> {
        let rows: Vec<LooseningRow> =
            each!(self, PENDING, |conn, sql| sqlx::query_as(sql).fetch_all(conn).await)?;
        each!(self, WITHDRAW_ALL, |conn, sql| sqlx::query(sql).bind(now).execute(conn).await.map(drop))?;
        let mut seals: Vec<Seal> = rows.iter().map(|row| Seal::end(subject(LooseningId(row.id)))).collect();
        let lists: BTreeSet<_> = rows.into_iter().map(|row| row.subject).collect();
        for of in lists {
            seals.push(list_seal(&of, &self.standing(&of).await?));
        }
        Ok(seals)
    }

    /// Writes a change; returns its seal.
    async fn insert_loosening(&mut self, it: &Loosening) -> Result<Seal, StoreError> {
        let row = LooseningRow::of(it)?;
        each!(self, INSERT, |conn, sql| sqlx::query(sql)
            .bind(row.id)
            .bind(row.subject.as_str())
            .bind(row.kind.as_str())
            .bind(row.state.as_str())
            .bind(row.requested_by.as_str())
            .bind(it.requested_at)
            .bind(row.changes.as_str())
            .bind(row.edit.as_str())
            .bind(row.owners.as_str())
            .bind(row.security.as_str())
            .bind(it.announced_at)
            .bind(it.effective_at)
            .execute(conn)
            .await
            .map(drop))?;
        Ok(row.seal())
    }

    async fn withdraw_loosening(
        &mut self,
        id: LooseningId,
        by: &str,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        Ok(each!(self, WITHDRAW, |conn, sql| sqlx::query(sql)
            .bind(id.0)
            .bind(now)
            .bind(by)
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))?)
    }

    async fn end_loosening(&mut self, it: &Loosening, now: Timestamp) -> Result<Seal, StoreError> {
        let done = each!(self, EFFECTIVE, |conn, sql| sqlx::query(sql)
            .bind(it.id.0)
            .bind(it.version)
            .bind(now)
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))?;
        if done != 1 {
            return Err(StoreError::Conflict);
        }
        let after = Loosening { state: LooseningState::Effective, effective_at: Some(now), ..it.clone() };
        Ok(LooseningRow::of(&after)?.seal())
    }

    /// Keeps the rules of a project that is removed; returns their seal.
    pub(super) async fn keep_former(
        &mut self,
        group: &GroupId,
        record: &FormerProject,
        now: Timestamp,
    ) -> Result<Seal, StoreError> {
        let record = json("former_projects", "record", group, record)?;
        each!(self, KEEP_FORMER, |conn, sql| sqlx::query(sql)
            .bind(group.as_str())
            .bind(record.as_str())
            .bind(now)
            .execute(conn)
            .await
            .map(drop))?;
        Ok(former(group.as_str(), &record))
    }

    /// Forgets them: the project is tracked again. What is forgotten must be what was kept.
    pub(super) async fn forget_former(&mut self, group: &GroupId) -> Result<Option<Seal>, StoreError> {
        let row: Option<(String,)> = each!(self, FORMER, |conn, sql| sqlx::query_as(sql)
            .bind(group.as_str())
            .fetch_optional(conn)
            .await)?;
        let subject = format!("former/{group}");
        let sealed = self.sealed(&subject).await?;
        if row.as_ref().and_then(|(record,)| former(group.as_str(), record).digest) != sealed {
            return Err(StoreError::tampered(&subject, FORMER_DIFFERS));
        }
        if row.is_none() {
            return Ok(None);
        }
        each!(self, FORGET_FORMER, |conn, sql| sqlx::query(sql)
            .bind(group.as_str())
            .execute(conn)
            .await
            .map(drop))?;
        Ok(Some(Seal::end(subject)))
    }
}

impl Store {
    /// One change.
    ///
    /// # Errors
    /// Fails when the database or the row cannot be read.
    pub async fn loosening(&self, id: LooseningId) -> Result<Option<Loosening>, StoreError> {
        let row: Option<LooseningRow> =
            read!(self, ONE, |pool, sql| sqlx::query_as(sql).bind(id.0).fetch_optional(pool).await)?;
        row.map(Loosening::try_from).transpose()
    }

    /// The changes that are to take effect, the oldest first, without those that cannot be read.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn pending_loosenings(&self) -> Result<Vec<Loosening>, StoreError> {
        let rows: Vec<LooseningRow> =
            read!(self, PENDING, |pool, sql| sqlx::query_as(sql).fetch_all(pool).await)?;
        readable(rows.into_iter().map(Loosening::try_from))
    }

    /// The changes of identities that were not withdrawn, as the table has them.
    pub(super) async fn separations(&self) -> Result<Separations, StoreError> {
        let rows = urgent!(self, OF_IDENTITIES, |pool, sql| sqlx::query_as(sql).fetch_all(pool).await)?;
        Ok(Separations::of(rows))
    }

    /// Writes changes that are to come, with their announcement.
    ///
    /// # Errors
    /// Fails when the database cannot be written, and with [`StoreError::Tampered`] when a change that was to come is not
    /// what Keywheel wrote.
    pub async fn govern(
        &self,
        governed: Governed,
        (audit, outbox): (&[NewAudit], &[NewOutbox]),
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let args = (governed, audit.to_vec(), outbox.to_vec());
        self.transact("loosening.hold", Lane::Command, args, move |tx, (governed, audit, outbox), unsure| {
            Box::pin(async move {
                if unsure && tx.is_appended(audit, now).await? {
                    return Ok(());
                }
                let mut seals = tx.write_governed(governed, now).await?;
                seals.extend(tx.write_announcing(outbox, now).await?);
                tx.append_sealing(audit, seals, now).await
            })
        })
        .await
    }

    /// The changes of a project that were not withdrawn, as the table has them, without those that cannot be read.
    pub(super) async fn standing(&self, of: &GroupId) -> Result<Vec<Loosening>, StoreError> {
        let rows: Vec<LooseningRow> =
            urgent!(self, STANDING, |pool, sql| sqlx::query_as(sql).bind(of.as_str()).fetch_all(pool).await)?;
        readable(rows.into_iter().map(Loosening::try_from))
    }

    /// The changes of a project that were not withdrawn, the oldest first, each as Keywheel wrote it and none missing.
    ///
    /// # Errors
    /// [`StoreError::Tampered`] when one is missing or not what Keywheel wrote; fails when the database or a row cannot
    /// be read.
    pub async fn sealed_loosenings(&self, of: &GroupId) -> Result<Vec<Loosening>, StoreError> {
        let mut again = 0..AGAIN;
        let rows = loop {
            let rows: Vec<LooseningRow> = read!(self, STANDING, |pool, sql| sqlx::query_as(sql)
                .bind(of.as_str())
                .fetch_all(pool)
                .await)?;
            match self.check_seals(&seals_of(of.as_str(), &rows)).await {
                Err(StoreError::Tampered { .. }) if again.next().is_some() => {}
                checked => break checked.map(|()| rows)?,
            }
        };
        rows.into_iter().map(Loosening::try_from).collect()
    }

    /// Records that a change was announced at `at` and takes effect at `effective_at`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it was changed meanwhile.
    pub async fn loosening_announced(
        &self,
        it: &Loosening,
        at: Timestamp,
        effective_at: Timestamp,
        audit: &[NewAudit],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let args = (it.clone(), audit.to_vec());
        self.transact("loosening.announced", Lane::Command, args, move |tx, (it, audit), unsure| {
            Box::pin(async move {
                if !unsure {
                    tx.check_loosening(it).await?;
                }
                let done = each!(tx, ANNOUNCED, |conn, sql| sqlx::query(sql)
                    .bind(it.id.0)
                    .bind(it.version)
                    .bind(at)
                    .bind(effective_at)
                    .execute(conn)
                    .await
                    .map(|done| done.rows_affected()))?;
                if done == 0 {
                    let own = unsure && tx.is_appended(audit, now).await?;
                    return if own { Ok(()) } else { Err(StoreError::Conflict) };
                }
                let after = Loosening {
                    state: LooseningState::Waiting,
                    announced_at: Some(at),
                    effective_at: Some(effective_at),
                    ..it.clone()
                };
                tx.append_sealing(audit, vec![LooseningRow::of(&after)?.seal()], now).await
            })
        })
        .await
    }

    /// Withdraws a change; returns whether it was to take effect.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn withdraw_loosening(
        &self,
        id: LooseningId,
        by: &str,
        audit: &[NewAudit],
        outbox: &[NewOutbox],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let args = (id, by.to_owned(), audit.to_vec(), outbox.to_vec());
        self.transact(
            "loosening.withdraw",
            Lane::Command,
            args,
            move |tx, (id, by, audit, outbox), unsure| {
                Box::pin(async move {
                    let Some(row) = tx.stored_loosening(*id).await? else { return Ok(false) };
                    let of = row.subject;
                    // A list that somebody changed stays without a seal that fits: withdrawing makes nothing easier.
                    let fits = tx.check_list(&of).await;
                    if tx.withdraw_loosening(*id, by, now).await? == 0 {
                        return Ok(unsure && tx.is_appended(audit, now).await?);
                    }
                    let mut seals = vec![Seal::end(subject(*id))];
                    match fits {
                        Ok(()) => seals.push(list_seal(&of, &tx.standing(&of).await?)),
                        Err(StoreError::Tampered { .. }) => {}
                        Err(error) => return Err(error),
                    }
                    tx.write_outbox(outbox, now).await?;
                    tx.append_sealing(audit, seals, now).await?;
                    Ok(true)
                })
            },
        )
        .await
    }

    /// The rules of a project that was tracked before.
    ///
    /// # Errors
    /// [`StoreError::Tampered`] when they are not what Keywheel wrote; fails when the database or the row cannot be read.
    pub async fn former_project(&self, group: &GroupId) -> Result<Option<FormerProject>, StoreError> {
        let row: Option<(String,)> = read!(self, FORMER, |pool, sql| sqlx::query_as(sql)
            .bind(group.as_str())
            .fetch_optional(pool)
            .await)?;
        let Some((text,)) = row else { return Ok(None) };
        if let Seal { subject, digest: Some(digest) } = former(group.as_str(), &text)
            && !self.is_sealed(&subject, digest).await?
        {
            return Err(StoreError::tampered(&subject, FORMER_DIFFERS));
        }
        let read = serde_json::from_str(&text);
        read.map(Some).map_err(|_| StoreError::corrupt("former_projects", "record", group))
    }
}
