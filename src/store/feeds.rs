//! The calendar feeds that were made. The audit log alone knows them: the last row of a person says which address is in
//! force, and a row that is taken away breaks the chain.

use super::{NewAudit, Sql, Store, StoreError, read};

/// The action of the row in which a feed was revoked.
pub const FEED_REVOKED: &str = "calendar_feed.revoked";

/// The action of the row in which a feed was made.
pub const FEED_MADE: &str = "calendar_feed.made";

const LAST: Sql = Sql::same(
    "SELECT action, detail FROM audit WHERE action IN ('calendar_feed.made', 'calendar_feed.revoked') AND subject = $1 \
     ORDER BY seq DESC LIMIT 1",
);

pub(super) const STATEMENTS: &[&Sql] = &[&LAST];

/// A calendar feed, as its row of the audit log tells it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FeedMade {
    /// When it was made, in microseconds since 1970.
    pub made: u64,
    /// The issuer that vouches for the person; `None` for the holder of a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
}

fn subject(name: &str) -> String {
    format!("calendar-feed/{name}")
}

impl FeedMade {
    /// The audit row in which `name` gets this feed.
    #[must_use]
    pub fn record(&self, name: &str) -> NewAudit {
        NewAudit {
            actor: name.to_owned(),
            action: FEED_MADE.to_owned(),
            subject: subject(name),
            detail: serde_json::json!(self).to_string(),
        }
    }
}

/// The audit row in which `name` revokes the own feed.
#[must_use]
pub fn feed_revoked(name: &str) -> NewAudit {
    NewAudit {
        actor: name.to_owned(),
        action: FEED_REVOKED.to_owned(),
        subject: subject(name),
        detail: "{}".to_owned(),
    }
}

impl Store {
    /// The feed of `name` that is in force; `None` where none was made, or the last one was revoked.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn last_feed(&self, name: &str) -> Result<Option<FeedMade>, StoreError> {
        let row: Option<(String, String)> = read!(self, LAST, |pool, text| sqlx::query_as(text)
            .bind(subject(name))
            .fetch_optional(pool)
            .await)?;
        let bad = |_| StoreError::corrupt("audit", "detail", subject(name));
        let row = row.filter(|(action, _)| action == FEED_MADE);
        row.map(|(_, detail)| serde_json::from_str(&detail).map_err(bad)).transpose()
    }
}
