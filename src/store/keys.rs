//! The ledger of keys: which key served a project when.

use std::collections::{BTreeMap, BTreeSet};

use super::readable::{Listed, listed, readable};
use super::types::{Instant, instant};
use super::{Sql, Store, StoreError, Tx, each, read};
use crate::domain::ids::GroupId;
use crate::domain::key::KeyRef;
use crate::domain::project::{Project, SinceSource};
use crate::domain::time::Timestamp;

const KEYS: Sql =
    Sql::same("SELECT key, since, until, source FROM keys WHERE group_id = $1 ORDER BY since, key");
const EARLIER: Sql = Sql::same(
    "SELECT k.group_id, p.provider, k.key FROM keys k JOIN projects p ON p.group_id = k.group_id \
     WHERE k.until IS NOT NULL AND p.provider IS NOT NULL ORDER BY k.group_id, k.since",
);
const HAD: Sql = Sql::same(
    "SELECT group_id FROM projects p WHERE current_key IS NULL AND EXISTS (SELECT 1 FROM keys k WHERE k.group_id = p.group_id)",
);
const CLOSE_KEYS: Sql =
    Sql::same("UPDATE keys SET until = $2 WHERE group_id = $1 AND until IS NULL AND key <> $3");
const OPEN_KEY: Sql = Sql::same(
    "INSERT INTO keys (group_id, key, since, source) SELECT $1, $2, $3, $4 \
     WHERE NOT EXISTS (SELECT 1 FROM keys WHERE group_id = $1 AND key = $2 AND until IS NULL) ON CONFLICT DO NOTHING",
);

pub(super) const STATEMENTS: &[&Sql] = &[&KEYS, &EARLIER, &HAD, &CLOSE_KEYS, &OPEN_KEY];

/// A key's time in service.
#[derive(Clone, Debug)]
pub struct KeySpan {
    /// The key.
    pub key: String,
    /// Since when it served.
    pub since: Timestamp,
    /// Until when; `None` for the one in force.
    pub until: Option<Timestamp>,
    /// Where `since` comes from.
    pub source: SinceSource,
}

/// A new current key.
#[derive(Clone, Debug)]
pub struct KeyChange {
    /// The key.
    pub key: KeyRef,
    /// Since when it serves.
    pub since: Timestamp,
    /// The source of `since`.
    pub source: SinceSource,
}

impl Store {
    /// The keys a project has had, the oldest first.
    ///
    /// # Errors
    /// Fails when the database or a stored value cannot be read.
    pub async fn keys(&self, group: &GroupId) -> Result<Vec<KeySpan>, StoreError> {
        type KeyRow = (String, Timestamp, Option<Timestamp>, String);
        let rows: Vec<KeyRow> =
            read!(self, KEYS, |pool, text| sqlx::query_as(text).bind(group.as_str()).fetch_all(pool).await)?;
        rows.into_iter()
            .map(|(key, since, until, source)| {
                let source = source.parse().map_err(|_| {
                    StoreError::corrupt("keys", "source", format_args!("{group}/{key}/{since}"))
                })?;
                Ok(KeySpan { key, since, until, source })
            })
            .collect()
    }

    /// The same; a row that cannot be read by its key.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn list_keys(&self, group: &GroupId) -> Result<Vec<Listed<KeySpan>>, StoreError> {
        type KeyRow = (String, Instant, Option<Instant>, String);
        let rows: Vec<KeyRow> =
            read!(self, KEYS, |pool, text| sqlx::query_as(text).bind(group.as_str()).fetch_all(pool).await)?;
        listed(rows.into_iter().map(|(key, since, until, source)| {
            let bad = |column| StoreError::corrupt("keys", column, &key);
            let (since, until) = (since.or(bad("since"))?, instant(until, || bad("until"))?);
            let source = source.parse().map_err(|_| bad("source"))?;
            Ok(KeySpan { key, since, until, source })
        }))
    }

    /// The projects that have no key and had one before.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn lost_keys(&self) -> Result<BTreeSet<String>, StoreError> {
        let rows: Vec<(String,)> = read!(self, HAD, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        Ok(rows.into_iter().map(|(group,)| group).collect())
    }

    /// The keys that served before, by project, without those of rows that cannot be read.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn earlier_keys(&self) -> Result<BTreeMap<GroupId, Vec<KeyRef>>, StoreError> {
        let rows: Vec<(String, String, String)> =
            read!(self, EARLIER, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        let mut earlier: BTreeMap<GroupId, Vec<KeyRef>> = BTreeMap::new();
        let keys = rows.into_iter().map(|(group, provider, key)| {
            let provider =
                provider.parse().map_err(|_| StoreError::corrupt("projects", "provider", &group))?;
            let id: GroupId = group
                .parse()
                .map_err(|_| StoreError::corrupt("keys", "group_id", format_args!("{group}/{key}")))?;
            Ok((id, KeyRef::observed(provider, &key)))
        });
        for (group, key) in readable(keys)? {
            earlier.entry(group).or_default().push(key);
        }
        Ok(earlier)
    }
}

impl Tx {
    pub(super) async fn write_ledger(&mut self, it: &Project, now: Timestamp) -> Result<(), StoreError> {
        match (&it.current_key, it.key_since, it.key_since_source) {
            (Some(key), Some(since), Some(source)) => {
                self.ledger(&it.group_id, key, since, source, now).await
            }
            (None, ..) => self.close_keys(&it.group_id, "", now).await,
            _ => Ok(()),
        }
    }

    /// Ends the service of every key but `serving`.
    async fn close_keys(&mut self, group: &GroupId, serving: &str, now: Timestamp) -> Result<(), StoreError> {
        each!(self, CLOSE_KEYS, |conn, text| sqlx::query(text)
            .bind(group.as_str())
            .bind(now)
            .bind(serving)
            .execute(conn)
            .await
            .map(|_| ()))?;
        Ok(())
    }

    pub(super) async fn ledger(
        &mut self,
        group: &GroupId,
        key: &KeyRef,
        since: Timestamp,
        source: SinceSource,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let key = key.to_string();
        self.close_keys(group, &key, now).await?;
        each!(self, OPEN_KEY, |conn, text| sqlx::query(text)
            .bind(group.as_str())
            .bind(key.as_str())
            .bind(since)
            .bind(source.as_str())
            .execute(conn)
            .await
            .map(|_| ()))?;
        Ok(())
    }
}
