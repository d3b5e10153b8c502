//! Web sessions: who is signed in to the pages, by a token or by an identity provider.
//!
//! A session is known by the hash of its cookie. Whose it is and when it ends at the latest is sealed, so a row that
//! somebody writes into the table signs nobody in. When it was used last is not: who writes the table can keep a session
//! in use, up to its sealed end. What is to end is read from the audit log too, so a row that somebody hides ends as well.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::FromRow;

use super::lanes::Lane;
use super::readable::readable;
use super::seal::Seal;
use super::types::Instant;
use super::visits::AWAY;
use super::{NewAudit, Sql, Store, StoreError, Tx, each, read};
use crate::domain::time::Timestamp;
use crate::seal::Digest;

/// How often one may sign in within a minute: each time writes a row that stays.
const MOST: i64 = 10;

const MINUTE: Duration = Duration::from_mins(1);

/// No session lasts longer.
const LONGEST: Duration = Duration::from_hours(24);

/// How long a session lasts without being used.
const IDLE: Duration = Duration::from_hours(1);

/// The end of the audit log in which those are looked for. Who fills it with other rows may write anyway.
const RECENT: i64 = 1000;

/// What the subject of a session's seal begins with.
pub(super) const SUBJECT: &str = "web-session/";

const START: Sql = Sql::same(
    "INSERT INTO web_sessions (hash, name, issuer, created_at, ends_at, seen_at) VALUES ($1, $2, $5, $3, $4, $3) ON CONFLICT DO NOTHING",
);
const BY_HASH: Sql =
    Sql::same("SELECT name, issuer, created_at, ends_at, seen_at FROM web_sessions WHERE hash = $1");
const SEEN: Sql = Sql::same("UPDATE web_sessions SET seen_at = $2 WHERE hash = $1 AND seen_at < $2");
const OF_NAME: Sql = Sql::same("SELECT hash FROM web_sessions WHERE name = $1 ORDER BY hash");
const END: Sql = Sql::same("DELETE FROM web_sessions WHERE hash = $1");
// The log, not the table, knows all that were begun.
const BEGUN: Sql = Sql::same(
    "SELECT seals FROM audit WHERE action = 'web_session.started' AND subject = $1 AND at >= $2 ORDER BY seq",
);
const LATELY: Sql = Sql::same(
    "SELECT COUNT(*) FROM audit WHERE seq > $1 AND action = 'web_session.started' AND subject = $2 AND at > $3",
);
const EVERY: Sql = Sql::same("SELECT hash FROM web_sessions ORDER BY hash");
const ALL: Sql = Sql::same(
    "SELECT hash, name, issuer, created_at, ends_at, seen_at FROM web_sessions ORDER BY created_at DESC, hash",
);
const OVER: Sql = Sql::same("DELETE FROM web_sessions WHERE ends_at < $1");

pub(super) const STATEMENTS: &[&Sql] =
    &[&START, &BY_HASH, &SEEN, &OF_NAME, &END, &BEGUN, &LATELY, &EVERY, &ALL, &OVER];

/// A session of the pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSession {
    /// The name of the token or person that signed in.
    pub name: String,
    /// The issuer that vouched for a person; `None` for a token.
    pub issuer: Option<String>,
    /// When it began.
    pub created_at: Timestamp,
    /// When it ends at the latest.
    pub ends_at: Timestamp,
    /// When it was used last, to a minute.
    pub seen_at: Timestamp,
}

#[derive(FromRow)]
struct SessionRow {
    name: String,
    issuer: Option<String>,
    created_at: Instant,
    ends_at: Instant,
    seen_at: Instant,
}

#[derive(FromRow)]
struct HashedRow {
    hash: String,
    #[sqlx(flatten)]
    session: SessionRow,
}

impl SessionRow {
    fn session(self, hash: &str) -> Result<WebSession, StoreError> {
        let bad = |column| StoreError::corrupt("web_sessions", column, hash);
        Ok(WebSession {
            name: self.name,
            issuer: self.issuer,
            created_at: self.created_at.or(bad("created_at"))?,
            ends_at: self.ends_at.or(bad("ends_at"))?,
            seen_at: self.seen_at.or(bad("seen_at"))?,
        })
    }
}

impl WebSession {
    /// How often the use of a session is noted.
    pub const NOTED_EVERY: Duration = MINUTE;

    /// Whether it has neither ended at `now` nor been left alone for too long.
    #[must_use]
    pub fn lasts(&self, now: Timestamp) -> bool {
        let is_used = now.since(self.seen_at) < IDLE && self.seen_at <= now + Self::NOTED_EVERY;
        now < self.ends_at && is_used
    }

    fn seal(&self, hash: &str) -> Seal {
        let subject = subject(hash);
        let (began, ends) = (self.created_at.to_string(), self.ends_at.to_string());
        let mut fields = vec![Some(self.name.as_str()), Some(&began), Some(&ends)];
        // Sessions of tokens are sealed without an issuer, as in earlier versions.
        fields.extend(self.issuer.as_deref().map(Some));
        let digest = Digest::of(&subject, &fields);
        Seal::new(subject, digest)
    }
}

fn subject(hash: &str) -> String {
    format!("{SUBJECT}{hash}")
}

impl Store {
    /// Begins a session under the hash of its cookie; false when its holder has begun too many within a minute. Sessions
    /// that are over are removed. The subject of `audit` is that of the holder.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn start_web_session(
        &self,
        hash: &str,
        session: &WebSession,
        audit: NewAudit,
    ) -> Result<bool, StoreError> {
        let args = (hash.to_owned(), session.clone(), audit);
        self.transact("web_session.start", Lane::Command, args, move |tx, (hash, session, audit), unsure| {
            Box::pin(async move {
                let audit = std::slice::from_ref(&*audit);
                let now = session.created_at;
                tx.write_later().await?;
                let head = tx.audit_head().await?.seq;
                let (lately,): (i64,) = each!(tx, LATELY, |conn, text| sqlx::query_as(text)
                    .bind(head - RECENT)
                    .bind(audit[0].subject.as_str())
                    .bind(now - MINUTE)
                    .fetch_one(conn)
                    .await)?;
                if lately >= MOST {
                    return Ok(false);
                }
                tx.note_visit(&session.name, session.issuer.as_deref(), now).await?;
                each!(tx, OVER, |conn, text| sqlx::query(text).bind(now).execute(conn).await.map(drop))?;
                let done = each!(tx, START, |conn, text| sqlx::query(text)
                    .bind(hash.as_str())
                    .bind(session.name.as_str())
                    .bind(now)
                    .bind(session.ends_at)
                    .bind(session.issuer.as_deref())
                    .execute(conn)
                    .await
                    .map(|done| done.rows_affected()))?;
                if done == 0 && unsure && tx.is_appended(audit, now).await? {
                    return Ok(true);
                }
                tx.append_sealing(audit, vec![session.seal(hash)], now).await?;
                Ok(true)
            })
        })
        .await
    }

    /// The session with this hash, over or not. A row that Keywheel did not write does not count.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn web_session(&self, hash: &str) -> Result<Option<WebSession>, StoreError> {
        let row: Option<SessionRow> =
            read!(self, BY_HASH, |pool, text| sqlx::query_as(text).bind(hash).fetch_optional(pool).await)?;
        let Some(row) = row else { return Ok(None) };
        let session = row.session(hash)?;
        let Seal { subject, digest: Some(digest) } = session.seal(hash) else { return Ok(None) };
        if self.is_sealed(&subject, digest).await? {
            return Ok(Some(session));
        }
        tracing::error!(
            name = session.name,
            "a web session was used that is not as Keywheel wrote it; it counts for nothing"
        );
        Ok(None)
    }

    /// The sessions under this name, by their hashes, the latest first. Rows that Keywheel did not write are left out.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn web_sessions(&self, name: &str) -> Result<Vec<(String, WebSession)>, StoreError> {
        let hashes: Vec<(String,)> =
            read!(self, OF_NAME, |pool, text| sqlx::query_as(text).bind(name).fetch_all(pool).await)?;
        let mut found = Vec::new();
        for (hash,) in hashes {
            if let Some(session) = self.web_session(&hash).await? {
                found.push((hash, session));
            }
        }
        found.sort_by_key(|(_, it)| std::cmp::Reverse(it.created_at));
        Ok(found)
    }

    /// Every session, over or not, the latest first. Rows that cannot be read, or that Keywheel did not write, are left
    /// out.
    ///
    /// # Errors
    /// Fails when the database cannot be read, and before the audit log was read.
    pub async fn all_web_sessions(&self) -> Result<Vec<WebSession>, StoreError> {
        let rows: Vec<HashedRow> = read!(self, ALL, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        // What was begun or ended meanwhile is known then.
        self.check_seals(&[]).await?;
        let sound = readable(rows.into_iter().map(|row| {
            let session = row.session.session(&row.hash)?;
            let Seal { subject, digest } = session.seal(&row.hash);
            Ok(digest.is_some_and(|digest| self.seals().fits(&subject, digest)).then_some(session))
        }))?;
        Ok(sound.into_iter().flatten().collect())
    }

    /// Notes that a session was used, and the visit that begins with that.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn web_session_seen(
        &self,
        hash: &str,
        session: &WebSession,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let args = (hash.to_owned(), session.clone());
        self.transact("web_session.seen", Lane::Rest, args, move |tx, (hash, session), _| {
            Box::pin(async move {
                if now.since(session.seen_at) >= AWAY {
                    tx.note_visit(&session.name, session.issuer.as_deref(), now).await?;
                }
                each!(tx, SEEN, |conn, text| sqlx::query(text)
                    .bind(hash.as_str())
                    .bind(now)
                    .execute(conn)
                    .await
                    .map(drop))?;
                Ok(())
            })
        })
        .await
    }

    /// Ends one session of a token or person, or with `hash` absent all that began at `since` or later. The subject of
    /// `audit` is that of the holder.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn end_web_sessions(
        &self,
        name: &str,
        (hash, since): (Option<&str>, Timestamp),
        audit: NewAudit,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let args = (name.to_owned(), hash.map(str::to_owned), audit);
        self.transact("web_session.end", Lane::Command, args, move |tx, (name, hash, audit), _| {
            Box::pin(async move {
                tx.write_later().await?;
                let ended = match hash {
                    Some(hash) => BTreeSet::from([hash.clone()]),
                    None => tx.web_sessions_of(name, &audit.subject, since).await?,
                };
                for it in &ended {
                    each!(tx, END, |conn, text| sqlx::query(text)
                        .bind(it.as_str())
                        .execute(conn)
                        .await
                        .map(drop))?;
                }
                let seals = ended.iter().map(|it| Seal::end(subject(it))).collect();
                tx.append_sealing(std::slice::from_ref(&*audit), seals, now).await
            })
        })
        .await
    }
}

impl Tx {
    /// The sessions of a token or person by the table and by the log.
    async fn web_sessions_of(
        &mut self,
        name: &str,
        log: &str,
        since: Timestamp,
    ) -> Result<BTreeSet<String>, StoreError> {
        let stored: Vec<(String,)> =
            each!(self, OF_NAME, |conn, text| sqlx::query_as(text).bind(name).fetch_all(conn).await)?;
        let begun: Vec<(String,)> = each!(self, BEGUN, |conn, text| sqlx::query_as(text)
            .bind(log)
            .bind(since)
            .fetch_all(conn)
            .await)?;
        let begun =
            begun.iter().flat_map(|(seals,)| seals.lines()).filter_map(|line| line.split_once(SUBJECT));
        Ok(stored.into_iter().map(|(hash,)| hash).chain(begun.map(|(_, hash)| hash.to_owned())).collect())
    }

    /// Ends every session of a token or person; returns the seals that say so.
    pub(super) async fn end_web_sessions_of(
        &mut self,
        name: &str,
        log: &str,
        now: Timestamp,
    ) -> Result<Vec<Seal>, StoreError> {
        self.write_later().await?;
        let ended = self.web_sessions_of(name, log, now - LONGEST).await?;
        for hash in &ended {
            each!(self, END, |conn, text| sqlx::query(text)
                .bind(hash.as_str())
                .execute(conn)
                .await
                .map(drop))?;
        }
        Ok(ended.iter().map(|it| Seal::end(subject(it))).collect())
    }

    /// Ends every session that the table has; returns the seals that say so.
    pub(super) async fn end_every_web_session(&mut self) -> Result<Vec<Seal>, StoreError> {
        let all: Vec<(String,)> =
            each!(self, EVERY, |conn, text| sqlx::query_as(text).fetch_all(conn).await)?;
        for (hash,) in &all {
            each!(self, END, |conn, text| sqlx::query(text)
                .bind(hash.as_str())
                .execute(conn)
                .await
                .map(drop))?;
        }
        Ok(all.iter().map(|(hash,)| Seal::end(subject(hash))).collect())
    }
}
