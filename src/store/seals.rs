//! What the audit log says about the rows that authorise: the last seal of each of them.
//!
//! A row that authorises (a project's rules, a rotation, its votes, a token, a person) counts only when its digest is the one
//! that the audit log has sealed last for its subject. The log is read once from its first row, then followed: each
//! row's place in the chain, its hash and its seal are checked before its seals are taken over. So it does not matter
//! what anybody writes into the tables, or removes from the log: what is taken over is kept here, in memory.
//!
//! A row of the log that is missing or does not fit is a fault, and no PATCH of a new key is recorded until an operator
//! has accepted it. What it sealed stays void.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures_util::TryStreamExt;
use futures_util::future::BoxFuture;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::audit::{AuditBroken, AuditEntry, AuditReport, BREAK_ACCEPTED, ListedRow, NewAudit};
use super::later::Head;
use super::seal::{REMOVAL, Seal};
use super::{Sql, Store, StoreError, Tx, TxConn, each, read, urgent};
use crate::domain::ids::RotationId;
use crate::domain::time::Timestamp;
use crate::seal::{Digest, InstallationKey, Sealer};

pub(super) const AFTER: Sql = Sql::same(
    "SELECT seq, at, actor, action, subject, detail, prev_hash, hash, seals, seal FROM audit WHERE seq > $1 AND seq <= $2 \
     ORDER BY seq",
);
pub(super) const HEAD: Sql = Sql::same("SELECT seq, hash FROM audit_head WHERE id = 1");
pub(super) const FINGERPRINT: Sql = Sql::same("SELECT value FROM meta WHERE name = 'installation'");

/// Some: a few of the last may be somebody else's.
const SEALED_LAST: Sql =
    Sql::same("SELECT hash, seal FROM audit WHERE seal <> '' ORDER BY seq DESC LIMIT 1000");

const ALL_SEALS: Sql = Sql::same("SELECT seals FROM audit WHERE seals <> '' ORDER BY seq");

const PROJECTS: Sql = Sql::same("SELECT COUNT(*) FROM projects WHERE group_id = $1");
const TOKENS: Sql = Sql::same("SELECT COUNT(*) FROM tokens WHERE name = $1");
const ROTATIONS: Sql = Sql::same("SELECT COUNT(*) FROM rotations WHERE id = $1");

pub(super) const STATEMENTS: &[&Sql] =
    &[&PROJECTS, &TOKENS, &ROTATIONS, &ALL_SEALS, &AFTER, &HEAD, &FINGERPRINT, &SEALED_LAST];

const UNREADABLE: &str = "it cannot be read";
const NOT_WRITTEN: &str = "it is not what Keywheel wrote there last";
const REMOVED: &str = "somebody removed it; Keywheel has not ended it";
const UNKNOWN: &str = "Keywheel wrote no such row, or has ended it since";

/// Rows that are checked again at once.
const PART: i64 = 1000;

/// How often rows are read again that do not fit: what was written between the reading of the rows and that of the
/// log is right the next time.
pub(super) const AGAIN: usize = 2;

/// The seals that the column holds.
fn read(text: &str) -> impl Iterator<Item = (&str, Option<Digest>)> {
    text.lines().filter_map(|line| {
        let (digest, subject) = line.split_once(' ')?;
        Some((subject, Digest::parse(digest)))
    })
}

/// A subject in little room: what it is one of, and a part of its hash.
type Name = [u8; 16];

fn name(subject: &str) -> Name {
    let mut name = [0; 16];
    name.copy_from_slice(&Sha256::digest(subject)[..16]);
    let is_one_of = |kinds: &[&str]| kinds.iter().any(|kind| subject.starts_with(kind));
    name[0] = match (is_one_of(&PRUNED), is_one_of(&IDENTITIES)) {
        (true, _) => 0,
        (_, false) => 1,
        (_, true) => 2,
    };
    name
}

/// The subjects of identities, who vote and propose, and of those who were removed.
const IDENTITIES: [&str; 3] = ["token/", "person/", REMOVAL];

/// Whether a row about `subject` may make a vote void.
fn decides(subject: &str) -> bool {
    subject == "settings"
        || ["token/", "person/", "passkey/", "loosening", REMOVAL]
            .iter()
            .any(|kind| subject.starts_with(kind))
}

/// The subjects whose rows are removed when they are old.
const PRUNED: [&str; 2] = ["outbox/", super::web_sessions::SUBJECT];

/// Whether a row must be there as long as its seal stands.
fn is_kept(name: &Name) -> bool {
    name[0] > 0
}

/// What was appended by a transaction and is not committed yet.
#[derive(Clone, Debug)]
pub(super) struct Appended {
    seq: i64,
    prev: String,
    hash: String,
    at: Timestamp,
    seals: Vec<Seal>,
    /// The broken row that it accepts.
    accepts: Option<i64>,
}

/// The broken row that an audit row accepts.
fn accepted(action: &str, subject: &str) -> Option<i64> {
    subject.strip_prefix("audit/").filter(|_| action == BREAK_ACCEPTED)?.parse().ok()
}

/// The seals, followed along the audit log.
#[derive(Debug)]
pub struct Seals {
    key: OnceLock<InstallationKey>,
    state: Mutex<State>,
    /// Whether this process has sealed the first row.
    is_new: AtomicBool,
    /// Whether the database has no seals although it had: nothing is sealed until it is accepted.
    is_stripped: AtomicBool,
    /// Whether the log was read to its end once.
    followed: watch::Sender<bool>,
    after_append: AfterAppend,
}

/// What is done after each commit that appended, before its caller is answered.
type Follow = Arc<dyn Fn(Store) -> BoxFuture<'static, ()> + Send + Sync>;

#[derive(Default)]
struct AfterAppend(Mutex<Option<Follow>>);

impl fmt::Debug for AfterAppend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AfterAppend")
    }
}

#[derive(Debug, Default)]
struct State {
    seq: i64,
    hash: String,
    /// The first row that this key has sealed: from it on, every row is sealed.
    since: Option<(i64, Timestamp)>,
    latest: BTreeMap<Name, Digest>,
    faults: Vec<AuditBroken>,
    accepted: BTreeSet<i64>,
    /// When a token, a rule or a setting was last changed that decides which votes count.
    decided: Option<Timestamp>,
    /// The log's end does not fit its head.
    end: Option<AuditBroken>,
    /// Counts how often the log was begun anew: what was read before is not taken over.
    era: u64,
    /// The row up to which the log was checked again, and its hash.
    again: (i64, String),
}

impl Default for Seals {
    fn default() -> Self {
        Self {
            key: OnceLock::new(),
            state: Mutex::default(),
            is_new: AtomicBool::new(false),
            is_stripped: AtomicBool::new(false),
            followed: watch::Sender::new(false),
            after_append: AfterAppend::default(),
        }
    }
}

impl Seals {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The seal of a row with this hash.
    ///
    /// # Errors
    /// [`StoreError::NoKey`] before the installation key was given.
    pub(super) fn seal(&self, hash: &str) -> Result<String, StoreError> {
        if self.is_stripped() {
            return Err(StoreError::Unsealed);
        }
        Ok(self.key()?.sealer().seal(hash))
    }

    /// Whether the database has no seals although it had, and was not accepted yet.
    #[must_use]
    pub fn is_stripped(&self) -> bool {
        self.is_stripped.load(Ordering::SeqCst)
    }

    /// Has `follow` done after each commit that appended to the audit log, before its caller is answered.
    pub fn set_after_append(&self, follow: impl Fn(Store) -> BoxFuture<'static, ()> + Send + Sync + 'static) {
        *self.after_append.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(follow));
    }

    pub(super) fn after_append(&self) -> Option<Follow> {
        self.after_append.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The installation key.
    ///
    /// # Errors
    /// [`StoreError::NoKey`] before it was given.
    pub fn key(&self) -> Result<&InstallationKey, StoreError> {
        self.key.get().ok_or(StoreError::NoKey)
    }

    /// The fingerprint of the installation key, once it was given.
    #[must_use]
    pub fn fingerprint(&self) -> Option<String> {
        self.key.get().map(InstallationKey::fingerprint)
    }

    /// Whether this process has sealed the first row.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new.load(Ordering::SeqCst)
    }

    /// Seals with the same key, that have read nothing yet.
    pub(super) fn of(other: &Self) -> Self {
        Self { key: other.key.clone(), ..Self::default() }
    }

    /// Forgets what was read: the log is read again from its first row, as after another database was accepted.
    pub fn begin_anew(&self) {
        self.followed.send_replace(false);
        let mut state = self.lock();
        *state = State { era: state.era + 1, ..State::default() };
    }

    /// What was found up to the end.
    pub fn report(&self) -> AuditReport {
        let state = self.lock();
        let broken = state.faults.iter().chain(&state.end).cloned().collect();
        AuditReport { rows: state.seq, head: state.hash.clone(), broken }
    }

    /// The first fault that no operator accepted.
    #[must_use]
    pub fn fault(&self) -> Option<AuditBroken> {
        let state = self.lock();
        let open = state.faults.iter().find(|it| !state.accepted.contains(&it.seq));
        open.or(state.end.as_ref()).cloned()
    }

    /// When a token, a rule or a setting was last changed that decides which votes count; `None` when none was.
    #[must_use]
    pub fn decided_at(&self) -> Option<Timestamp> {
        self.lock().decided
    }

    /// When the first row was sealed; `None` before that.
    #[must_use]
    pub fn since(&self) -> Option<Timestamp> {
        self.lock().since.map(|(_, at)| at)
    }

    /// Whether the log was read to its end once.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        *self.followed.borrow()
    }

    /// Whether `digest` is what was sealed last for `subject`.
    pub(super) fn fits(&self, subject: &str, digest: Digest) -> bool {
        self.lock().latest.get(&name(subject)) == Some(&digest)
    }

    /// Takes over what a committed transaction has appended, unless another one came in between: then the rows are
    /// read from the log.
    pub(super) fn advance(&self, appended: &[Appended]) {
        let mut state = self.lock();
        for row in appended {
            if row.seq != state.seq + 1 || row.prev != state.hash {
                return;
            }
            (state.seq, state.hash) = (row.seq, row.hash.clone());
            state.since.get_or_insert((row.seq, row.at));
            state.accepted.extend(row.accepts);
            for Seal { subject, digest } in &row.seals {
                if decides(subject) {
                    state.decided = Some(row.at);
                }
                state.take(name(subject), *digest);
            }
        }
    }
}

impl State {
    /// What is sealed, has to be there, and is not `there`.
    fn without(&self, there: &BTreeSet<Name>) -> BTreeSet<Name> {
        self.latest.keys().filter(|name| is_kept(name) && !there.contains(*name)).copied().collect()
    }

    fn take(&mut self, name: Name, digest: Option<Digest>) {
        match digest {
            Some(digest) => _ = self.latest.insert(name, digest),
            None => _ = self.latest.remove(&name),
        }
    }

    /// Checks the next row of the log, and takes over what it seals.
    fn follow(&mut self, era: u64, row: ListedRow, sealer: &Sealer) {
        if self.era != era || row.seq <= self.seq {
            return;
        }
        if row.seq != self.seq + 1 {
            self.faults.push(AuditBroken { seq: self.seq + 1, why: "the row is missing".to_owned() });
        }
        let (seq, hash) = (row.seq, row.hash.clone());
        let Ok(row) = AuditEntry::try_from(row) else {
            self.faults.push(AuditBroken { seq, why: UNREADABLE.to_owned() });
            (self.seq, self.hash) = (seq, hash);
            return;
        };
        let fault = self.fault(&row, &self.hash, sealer);
        let is_first = self.since.is_none() && !row.seal.is_empty();
        if let Some(why) = fault {
            self.faults.push(AuditBroken { seq: row.seq, why: why.to_owned() });
        } else if !is_first || sealer.fits(&row.hash, &row.seal) {
            if is_first {
                self.since = Some((row.seq, row.at));
            }
            self.accepted.extend(accepted(&row.action, &row.subject));
            for (subject, digest) in read(&row.seals) {
                if decides(subject) {
                    self.decided = Some(row.at);
                }
                self.take(name(subject), digest);
            }
        }
        (self.seq, self.hash) = (row.seq, row.hash);
    }

    /// Why `row` does not fit behind a row with the hash `prev`.
    fn fault(&self, row: &AuditEntry, prev: &str, sealer: &Sealer) -> Option<&'static str> {
        row.fault(prev).or_else(|| {
            // Rows of an earlier version have no seal, and those of an earlier key another one: the chain up to the first row
            // of this key is covered by that row's seal, and what they sealed was sealed again.
            let counts = self.since.is_some_and(|(since, _)| row.seq >= since);
            match (counts, row.seal.is_empty()) {
                (false, _) => None,
                (true, true) => Some("it has no seal"),
                (true, false) => Some("its seal does not fit").filter(|_| !sealer.fits(&row.hash, &row.seal)),
            }
        })
    }

    /// Checks a row again that was followed before. A row that was removed or changed since is a fault.
    fn check_again(&mut self, row: ListedRow, sealer: &Sealer) {
        let (before, prev) = self.again.clone();
        let (seq, hash) = (row.seq, row.hash.clone());
        let mut found = Vec::new();
        if seq != before + 1 {
            found.push((before + 1, "the row is missing"));
        }
        let fault = AuditEntry::try_from(row).map_or(Some(UNREADABLE), |row| self.fault(&row, &prev, sealer));
        found.extend(fault.map(|why| (seq, why)));
        for (seq, why) in found {
            if !self.faults.iter().any(|it| it.seq == seq) {
                self.faults.push(AuditBroken { seq, why: why.to_owned() });
            }
        }
        self.again = (seq, hash);
    }

    /// Compares the log's end with a head that was read after this state was at the row `from`. Meanwhile only a
    /// transaction of this daemon may have taken it past the head.
    fn compare(&mut self, from: i64, era: u64, head: &Head) {
        if self.era != era || (from <= head.seq && self.seq > head.seq) {
            return;
        }
        let why = if self.seq != head.seq {
            Some(format!("the log ends at row {}, its head names row {}", self.seq, head.seq))
        } else if self.hash != head.hash {
            Some("the log's head names another hash than its last row has".to_owned())
        } else {
            None
        };
        self.end = why.map(|why| AuditBroken { seq: self.seq.min(head.seq) + 1, why });
    }
}

/// Compares a row with what was sealed last for it.
fn fits(row: &Seal, sealed: Option<Digest>) -> Result<(), StoreError> {
    match why_unfit(row, sealed) {
        None => Ok(()),
        Some(why) => Err(StoreError::tampered(&row.subject, why)),
    }
}

fn why_unfit(row: &Seal, sealed: Option<Digest>) -> Option<&'static str> {
    match (sealed, row.digest) {
        (sealed, digest) if sealed == digest => None,
        (Some(_), Some(_)) => Some(NOT_WRITTEN),
        (Some(_), None) => Some(REMOVED),
        (None, _) => Some(UNKNOWN),
    }
}

/// The rows that were compared with their seals, by their names, and those that do not fit.
#[derive(Default)]
struct Unfit {
    there: BTreeSet<Name>,
    rows: Vec<(String, &'static str)>,
}

impl Unfit {
    fn compare(&mut self, seals: &Seals, row: Seal) {
        let name = name(&row.subject);
        let sealed = seals.lock().latest.get(&name).copied();
        self.there.insert(name);
        if let Some(why) = why_unfit(&row, sealed) {
            self.rows.push((row.subject, why));
        }
    }
}

impl Store {
    /// The seals of this database.
    #[must_use]
    pub fn seals(&self) -> &Seals {
        match self {
            Store::Sqlite { seals, .. } | Store::Postgres { seals, .. } => seals,
        }
    }

    /// Gives the store the installation key, without which nothing is written down in the audit log. `may_seal` is
    /// whether a database without a sealed row may be one of an earlier version, whose rows are sealed now, once. If it
    /// is not, nothing is sealed until [`Store::accept_stripped`].
    ///
    /// # Errors
    /// [`StoreError::OtherKey`] for a database of another installation.
    pub async fn unlock(
        &self,
        key: &InstallationKey,
        may_seal: bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (found, own) = (self.fingerprint().await?, key.fingerprint());
        match found {
            Some(found) if found != own => return Err(StoreError::OtherKey { found, own }),
            Some(_) => self.give_key(key),
            None => {
                let is_known = self.has_row_of(&key.sealer()).await?;
                self.give_key(key);
                if is_known {
                    tracing::error!(
                        "somebody removed the name of the installation key from the database; it is written again"
                    );
                    self.name_key(&own).await?;
                } else if may_seal {
                    self.seal_earlier(&own, now).await?;
                    self.seals().is_new.store(true, Ordering::SeqCst);
                } else {
                    self.seals().is_stripped.store(true, Ordering::SeqCst);
                }
            }
        }
        Ok(())
    }

    /// Seals a database that has lost its seals, as it is: an operator has accepted it.
    ///
    /// # Errors
    /// Fails when the database cannot be read or written.
    pub async fn accept_stripped(&self, now: Timestamp) -> Result<(), StoreError> {
        let Some(own) = self.seals().fingerprint() else {
            return Err(StoreError::NoKey);
        };
        if self.seals().is_stripped.swap(false, Ordering::SeqCst) {
            self.seal_earlier(&own, now).await?;
        }
        Ok(())
    }

    /// Whether another process has sealed a database that this one had found without seals.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn is_stripped_no_more(&self) -> Result<bool, StoreError> {
        let own = self.seals().fingerprint();
        let is_sealed = own.is_some() && self.fingerprint().await? == own;
        if is_sealed {
            self.seals().is_stripped.store(false, Ordering::SeqCst);
        }
        Ok(is_sealed)
    }

    /// Whether one of the last sealed rows fits this key.
    async fn has_row_of(&self, sealer: &Sealer) -> Result<bool, StoreError> {
        let rows: Vec<(String, String)> =
            read!(self, SEALED_LAST, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        Ok(rows.iter().any(|(hash, seal)| sealer.fits(hash, seal)))
    }

    /// Set once: a second call gives the same key.
    pub(super) fn give_key(&self, key: &InstallationKey) {
        let _ = self.seals().key.set(key.clone());
    }

    /// The fingerprint of the key that this database is sealed with; `None` when nothing in it is sealed.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn fingerprint(&self) -> Result<Option<String>, StoreError> {
        let found: Option<(String,)> =
            read!(self, FINGERPRINT, |pool, text| sqlx::query_as(text).fetch_optional(pool).await)?;
        Ok(found.map(|(found,)| found))
    }

    /// Reads the audit log to its end, from the last row that was read.
    ///
    /// # Errors
    /// Fails when the database cannot be read. What does not fit is a fault of the [`Seals`].
    pub async fn follow_seals(&self) -> Result<(), StoreError> {
        self.follow(self.seals()).await
    }

    /// Checks the whole log anew: each row's place, hash and seal.
    ///
    /// # Errors
    /// Fails when the database cannot be read. What does not fit is part of the report.
    pub async fn verify_audit(&self) -> Result<AuditReport, StoreError> {
        let seals = Seals::of(self.seals());
        self.follow(&seals).await?;
        Ok(seals.report())
    }

    /// Reads the end of the log, and checks the next part of it again, from its first row: who changes an old row is
    /// found a few sweeps later.
    ///
    /// # Errors
    /// Fails when the database cannot be read. What does not fit is a fault of the [`Seals`].
    pub async fn check_seals_again(&self) -> Result<(), StoreError> {
        self.follow_seals().await?;
        let seals = self.seals();
        let sealer = seals.key()?.sealer();
        let (from, end, era) = {
            let state = seals.lock();
            (state.again.0, state.seq, state.era)
        };
        let rows: Vec<ListedRow> = read!(self, AFTER, |pool, text| sqlx::query_as(text)
            .bind(from)
            .bind(end.min(from + PART))
            .fetch_all(pool)
            .await)?;
        let mut state = seals.lock();
        // Another sweep may have checked them meanwhile.
        if (state.again.0, state.era) != (from, era) {
            return Ok(());
        }
        for row in rows {
            state.check_again(row, &sealer);
        }
        if from + PART >= end {
            state.again = (0, String::new());
        }
        Ok(())
    }

    pub(super) async fn follow(&self, seals: &Seals) -> Result<(), StoreError> {
        let sealer = seals.key()?.sealer();
        let (from, era) = {
            let state = seals.lock();
            (state.seq, state.era)
        };
        let head: Head = urgent!(self, HEAD, |pool, text| sqlx::query_as(text).fetch_one(pool).await)?;
        if from < head.seq {
            urgent!(self, AFTER, |pool, text| {
                let mut rows = sqlx::query_as::<_, ListedRow>(text).bind(from).bind(head.seq).fetch(pool);
                while let Some(row) = rows.try_next().await? {
                    seals.lock().follow(era, row, &sealer);
                }
            });
        }
        seals.lock().compare(from, era, &head);
        seals.followed.send_replace(true);
        Ok(())
    }

    /// Whether `digest` is what the audit log has sealed last for `subject`.
    ///
    /// # Errors
    /// Fails when the audit log cannot be read, or was not read to its end since the start.
    pub(super) async fn is_sealed(&self, subject: &str, digest: Digest) -> Result<bool, StoreError> {
        if !*self.seals().followed.borrow() {
            return Err(StoreError::Unverified);
        }
        // Another process may have written or ended it meanwhile.
        self.follow_seals().await?;
        Ok(self.seals().fits(subject, digest))
    }

    /// Refuses rows with these seals unless each is what was sealed last; a seal without a digest stands for no row.
    ///
    /// # Errors
    /// [`StoreError::Tampered`] for the first that is not; fails when the audit log cannot be read, or was not read to its
    /// end since the start.
    pub(super) async fn check_seals(&self, all: &[Seal]) -> Result<(), StoreError> {
        if !self.seals().is_followed() {
            return Err(StoreError::Unverified);
        }
        self.follow_seals().await?;
        let state = self.seals().lock();
        all.iter().try_for_each(|it| fits(it, state.latest.get(&name(&it.subject)).copied()))
    }

    /// The rows that authorise and are not as the audit log has sealed them.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn tampered(&self) -> Result<Vec<StoreError>, StoreError> {
        if !*self.seals().followed.borrow() {
            return Err(StoreError::Unverified);
        }
        let mut found = self.unfit_rows().await?;
        for _ in 0..AGAIN {
            if !found.is_empty() {
                let again = self.unfit_rows().await?;
                found.retain(|it| again.contains(it));
            }
        }
        Ok(found.into_iter().map(|(subject, why)| StoreError::tampered(&subject, why)).collect())
    }

    /// Compares the rows with their seals, on a connection that delays no writer.
    #[expect(clippy::disallowed_methods, reason = "it only reads, and must not wait for the writer")]
    async fn unfit_rows(&self) -> Result<Vec<(String, &'static str)>, StoreError> {
        self.follow_seals().await?;
        let conn = match self {
            Store::Sqlite { read, .. } => TxConn::Sqlite(read.begin().await?),
            Store::Postgres { read, .. } => TxConn::Postgres(read.begin().await?),
        };
        let seals = match self {
            Store::Sqlite { seals, .. } | Store::Postgres { seals, .. } => Arc::clone(seals),
        };
        let mut tx = Tx::new(conn, seals);
        let (seals, mut found) = (Arc::clone(&tx.seals), Unfit::default());
        tx.each_seal_of_projects(|it| found.compare(&seals, it)).await?;
        let mut rest = tx.seals_of_tokens().await?;
        rest.extend(tx.seals_of_revoked().await?);
        rest.extend(tx.seals_of_people().await?);
        rest.extend(tx.seals_of_removals().await?);
        rest.extend(tx.seals_of_passkeys().await?);
        rest.extend(tx.seals_of_loosenings().await?);
        rest.extend(tx.seals_of_announcements().await?);
        rest.extend(tx.seals_of_rotations().await?);
        rest.push(tx.seal_of_settings().await?);
        rest.push(tx.seal_of_reviews().await?);
        for it in rest {
            found.compare(&seals, it);
        }
        let missing = seals.lock().without(&found.there);
        if !missing.is_empty() {
            for subject in tx.subjects(&missing).await? {
                // A row that cannot be read is told as that.
                if !tx.is_there(&subject).await? {
                    found.compare(&seals, Seal::end(subject));
                }
            }
        }
        let mut waits = tx.suspended_tokens().await?;
        waits.retain(|it| it.digest.is_some_and(|digest| seals.fits(&it.subject, digest)));
        found.rows.retain(|(subject, _)| waits.iter().all(|it| it.subject != *subject));
        Ok(found.rows)
    }

    /// Waits until the audit log was read to its end once.
    pub async fn seals_followed(&self) {
        // The sender lives as long as the store.
        let _ = self.seals().followed.subscribe().wait_for(|followed| *followed).await;
    }
}

impl Tx {
    /// Reads the log up to its head. On PostgreSQL a look at the seals does not wait for those who append.
    async fn follow(&mut self) -> Result<(), StoreError> {
        if self.followed {
            return Ok(());
        }
        let before = self.appended.first().map(|row| Head { seq: row.seq - 1, hash: row.prev.clone() });
        let seals = self.seals.clone();
        let (from, era) = {
            let state = seals.lock();
            (state.seq, state.era)
        };
        let head = match before.or_else(|| self.held.clone()) {
            Some(head) => head,
            None if matches!(self.conn, TxConn::Sqlite(_)) => self.audit_head().await?,
            None => each!(self, HEAD, |conn, text| sqlx::query_as(text).fetch_one(conn).await)?,
        };
        if !*seals.followed.borrow() {
            return Err(StoreError::Unverified);
        }
        if from < head.seq {
            let sealer = seals.key()?.sealer();
            let rows: Vec<ListedRow> = each!(self, AFTER, |conn, text| sqlx::query_as(text)
                .bind(from)
                .bind(head.seq)
                .fetch_all(conn)
                .await)?;
            for row in rows {
                seals.lock().follow(era, row, &sealer);
            }
        }
        seals.lock().compare(from, era, &head);
        self.followed = true;
        Ok(())
    }

    /// The subjects with these names, as the log has them.
    async fn subjects(&mut self, names: &BTreeSet<Name>) -> Result<BTreeSet<String>, StoreError> {
        let mut found = BTreeSet::new();
        self.write_later().await?;
        each!(self, ALL_SEALS, |conn, text| {
            let mut rows = sqlx::query_as::<_, (String,)>(text).fetch(conn);
            while let Some((seals,)) = rows.try_next().await? {
                let subjects = seals.lines().filter_map(|line| line.split_once(' '));
                let subjects = subjects.filter(|(_, subject)| names.contains(&name(subject)));
                found.extend(subjects.map(|(_, subject)| subject.to_owned()));
            }
            Ok::<(), sqlx::Error>(())
        })?;
        Ok(found)
    }

    /// Whether the row that `subject` names is there, whatever it says.
    async fn is_there(&mut self, subject: &str) -> Result<bool, StoreError> {
        let Some((kind, of)) = subject.split_once('/') else { return Ok(false) };
        let (found,): (i64,) = match kind {
            "project" => {
                each!(self, PROJECTS, |conn, text| sqlx::query_as(text).bind(of).fetch_one(conn).await)?
            }
            "token" => each!(self, TOKENS, |conn, text| sqlx::query_as(text).bind(of).fetch_one(conn).await)?,
            "person" => return self.is_person_there(of).await,
            "rotation" | "votes" | "intent" => {
                let Ok(id) = of.parse::<RotationId>() else { return Ok(false) };
                each!(self, ROTATIONS, |conn, text| sqlx::query_as(text).bind(id.0).fetch_one(conn).await)?
            }
            _ => return Ok(false),
        };
        Ok(found > 0)
    }

    /// Refuses identities from which one is missing: without it, whose votes are one person's cannot be told. `there` are
    /// the subjects of those that can be read.
    pub(super) async fn check_none_is_missing(
        &mut self,
        there: impl Iterator<Item = String>,
    ) -> Result<(), StoreError> {
        self.follow().await?;
        let own = self.appended.iter().flat_map(|row| row.seals.iter().map(|seal| seal.subject.clone()));
        let there: BTreeSet<Name> = there.chain(own).map(|subject| name(&subject)).collect();
        let mut missing = self.seals.lock().without(&there);
        missing.retain(|name| name[0] == 2);
        if missing.is_empty() {
            return Ok(());
        }
        let subject = self.subjects(&missing).await?.into_iter().next().unwrap_or_default();
        Err(StoreError::tampered(&subject, REMOVED))
    }

    /// What was sealed last for `subject`, with the rows of this transaction.
    pub(super) async fn sealed(&mut self, subject: &str) -> Result<Option<Digest>, StoreError> {
        self.follow().await?;
        let own = self.appended.iter().rev().flat_map(|row| row.seals.iter().rev());
        if let Some(seal) = own.into_iter().find(|seal| seal.subject == subject) {
            return Ok(seal.digest);
        }
        Ok(self.seals.lock().latest.get(&name(subject)).copied())
    }

    /// Refuses a row that does not say what was sealed for it.
    pub(super) async fn check_seal(&mut self, subject: &str, digest: Digest) -> Result<(), StoreError> {
        self.check_seals(&[Seal::new(subject, digest)]).await
    }

    /// The same for several; a seal without a digest stands for no row.
    pub(super) async fn check_seals(&mut self, all: &[Seal]) -> Result<(), StoreError> {
        for it in all {
            fits(it, self.sealed(&it.subject).await?)?;
        }
        Ok(())
    }

    /// Refuses everything while a row of the audit log does not fit. From here to the end of the transaction nothing is
    /// appended by others.
    pub(super) async fn check_log(&mut self) -> Result<(), StoreError> {
        self.audit_head().await?;
        self.followed = false;
        self.follow().await?;
        match self.seals.fault() {
            None => Ok(()),
            Some(broken) => Err(StoreError::tampered(&format!("audit/{}", broken.seq), &broken.why)),
        }
    }

    /// Appends rows; the last of them seals.
    pub(super) async fn append_sealing(
        &mut self,
        rows: &[NewAudit],
        seals: Vec<Seal>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if rows.is_empty() && !seals.is_empty() {
            let row = NewAudit {
                actor: "keywheel".to_owned(),
                action: "row.recorded".to_owned(),
                subject: seals[0].subject.clone(),
                detail: "{}".to_owned(),
            };
            return self.append_rows(std::slice::from_ref(&row), seals, now).await;
        }
        self.append_rows(rows, seals, now).await
    }

    /// Keeps in mind what was appended.
    pub(super) fn note_appended(
        &mut self,
        row: &NewAudit,
        (seq, prev, hash): (i64, String, String),
        seals: Vec<Seal>,
        at: Timestamp,
    ) {
        let accepts = accepted(&row.action, &row.subject);
        if seals.iter().any(|it| decides(&it.subject)) {
            self.compared.forget();
        }
        self.appended.push(Appended { seq, prev, hash, at, seals, accepts });
    }
}
