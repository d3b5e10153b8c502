//! The calendar feeds that were made. The audit log alone knows them: the last row of a person says which address is in
//! force, and a row that is taken away breaks the chain.

use super::{NewAudit, Sql, Store, StoreError, Tx, each, read};

/// The action of the row in which a feed was made.
pub const FEED_MADE: &str = "calendar_feed.made";

/// The action of the row in which the feed of somebody ended.
pub const FEED_ENDED: &str = "calendar_feed.ended";

const LAST: Sql = Sql::same(
    "SELECT detail FROM audit WHERE action IN ('calendar_feed.made', 'calendar_feed.ended') AND subject = $1 \
     ORDER BY seq DESC LIMIT 1",
);

pub(super) const STATEMENTS: &[&Sql] = &[&LAST];

/// A calendar feed, as its row of the audit log tells it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FeedMade {
    /// When it was made, in microseconds since 1970; 0 where the last one ended and none followed.
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

impl FeedMade {
    /// The audit row in which the feed of `name` ends: its person has revoked it, was removed, or has another name.
    #[must_use]
    pub fn ended(by: &str, name: &str) -> NewAudit {
        let none = Self { made: 0, issuer: None };
        NewAudit { actor: by.to_owned(), action: FEED_ENDED.to_owned(), ..none.record(name) }
    }

    /// Whether there is an address that opens it.
    pub(super) const fn is_open(&self) -> bool {
        self.made > 0
    }
}

fn read_last(name: &str, row: Option<(String,)>) -> Result<Option<FeedMade>, StoreError> {
    let bad = |_| StoreError::corrupt("audit", "detail", subject(name));
    row.map(|(detail,)| serde_json::from_str(&detail).map_err(bad)).transpose()
}

impl Tx {
    /// The feed of `name` that was made or ended last.
    pub(super) async fn last_feed(&mut self, name: &str) -> Result<Option<FeedMade>, StoreError> {
        self.write_later().await?;
        let row = each!(self, LAST, |conn, text| sqlx::query_as(text)
            .bind(subject(name))
            .fetch_optional(conn)
            .await)?;
        read_last(name, row)
    }
}

impl Store {
    /// The feed of `name` that is in force; `None` where none was made, or the last one was revoked.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn last_feed(&self, name: &str) -> Result<Option<FeedMade>, StoreError> {
        let row: Option<(String,)> = read!(self, LAST, |pool, text| sqlx::query_as(text)
            .bind(subject(name))
            .fetch_optional(pool)
            .await)?;
        Ok(read_last(name, row)?.filter(FeedMade::is_open))
    }
}
