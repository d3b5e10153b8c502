//! Links that were used. The audit log alone knows them: a row of it that is taken away breaks the chain.

use std::collections::BTreeMap;

use sqlx::FromRow;

use super::readable::readable;
use super::types::Instant;
use super::{NewAudit, Sql, Store, StoreError, read};
use crate::domain::time::Timestamp;

/// The action of the row in which a link was used.
const ACTION: &str = "link.used";

const USED: Sql = Sql::same(
    "SELECT at, detail FROM audit WHERE action = 'link.used' AND subject = $1 ORDER BY seq LIMIT 1",
);

const USERS: Sql = Sql::same(
    "SELECT actor, MAX(at) AS at FROM audit WHERE action = 'link.used' GROUP BY actor ORDER BY actor",
);

pub(super) const STATEMENTS: &[&Sql] = &[&USED, &USERS];

/// What a link was used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkUse {
    /// When.
    pub at: Timestamp,
    /// The decision, such as `approve`.
    pub decision: String,
}

#[derive(FromRow)]
struct UsedRow {
    at: Instant,
    detail: String,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Detail {
    decision: String,
}

fn subject(hash: &str) -> String {
    format!("link/{hash}")
}

impl LinkUse {
    /// The audit row in which `actor` uses the link with this hash.
    #[must_use]
    pub fn record(actor: &str, hash: &str, decision: &str) -> NewAudit {
        NewAudit {
            actor: actor.to_owned(),
            action: ACTION.to_owned(),
            subject: subject(hash),
            detail: serde_json::json!(Detail { decision: decision.to_owned() }).to_string(),
        }
    }
}

#[derive(FromRow)]
struct UserRow {
    actor: String,
    at: Instant,
}

impl Store {
    /// Who has decided by a link, by name, and when last.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn link_users(&self) -> Result<BTreeMap<String, Timestamp>, StoreError> {
        let rows: Vec<UserRow> = read!(self, USERS, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        let used = rows.into_iter().map(|row| {
            let at = row.at.or(StoreError::corrupt("audit", "at", &row.actor))?;
            Ok((row.actor, at))
        });
        Ok(readable(used)?.into_iter().collect())
    }

    /// What the link with this hash was used for; `None` for one that was not.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn link_use(&self, hash: &str) -> Result<Option<LinkUse>, StoreError> {
        let row: Option<UsedRow> = read!(self, USED, |pool, text| sqlx::query_as(text)
            .bind(subject(hash))
            .fetch_optional(pool)
            .await)?;
        let Some(row) = row else { return Ok(None) };
        let bad = |column| StoreError::corrupt("audit", column, hash);
        let detail: Detail = serde_json::from_str(&row.detail).map_err(|_| bad("detail"))?;
        Ok(Some(LinkUse { at: row.at.or(bad("at"))?, decision: detail.decision }))
    }
}
