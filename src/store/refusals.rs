//! Mail addresses that a server has refused for good, until it takes a mail to them again.
//!
//! An address is marked and cleared in the transaction in which a mail to it ends. Who hears of it instead is decided
//! elsewhere; here it is written together with the mails, or not at all.

use sqlx::FromRow;

use super::lanes::Lane;
use super::readable::readable;
use super::types::Instant;
use super::{NewOutbox, Sql, Store, StoreError, Tx, each, read};
use crate::domain::ids::GroupId;
use crate::domain::time::Timestamp;

const REFUSE: Sql = Sql::same(
    "INSERT INTO refused_addresses (address, reply, since) VALUES ($1, $2, $3) \
     ON CONFLICT (address) DO UPDATE SET reply = excluded.reply",
);
const ACCEPT: Sql = Sql::same("DELETE FROM refused_addresses WHERE address = $1");
const UNTOLD: Sql = Sql::same(
    "SELECT address, reply, since FROM refused_addresses WHERE told_at IS NULL ORDER BY since LIMIT 20",
);
const OF: Sql = Sql::same(
    "SELECT r.address, r.reply, r.since FROM refused_addresses r JOIN owners o ON lower(o.mail) = r.address \
     WHERE o.group_id = $1 ORDER BY r.address",
);
const TELL: Sql =
    Sql::same("UPDATE refused_addresses SET told_at = $2 WHERE address = $1 AND told_at IS NULL");
const PROJECTS: Sql = Sql::same(
    "SELECT p.name, p.group_id FROM owners o JOIN projects p ON p.group_id = o.group_id WHERE lower(o.mail) = $1 \
     ORDER BY p.name, p.group_id",
);
const BESIDE: Sql = Sql::same(
    "SELECT DISTINCT other.mail FROM owners o JOIN owners other ON other.group_id = o.group_id WHERE lower(o.mail) = $1 \
     AND NOT EXISTS (SELECT 1 FROM refused_addresses r WHERE r.address = lower(other.mail)) ORDER BY other.mail",
);

pub(super) const STATEMENTS: &[&Sql] = &[&REFUSE, &ACCEPT, &UNTOLD, &OF, &TELL, &PROJECTS, &BESIDE];

/// An address that the mail server refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedAddress {
    /// The address, in lower case.
    pub address: String,
    /// The server's last reply, as it sent it.
    pub reply: String,
    /// Since when.
    pub since: Timestamp,
}

#[derive(FromRow)]
struct RefusedRow {
    address: String,
    reply: String,
    since: Instant,
}

impl TryFrom<RefusedRow> for RefusedAddress {
    type Error = StoreError;
    fn try_from(row: RefusedRow) -> Result<Self, StoreError> {
        let since = row.since.or(StoreError::corrupt("refused_addresses", "since", &row.address))?;
        Ok(Self { address: row.address, reply: row.reply, since })
    }
}

impl Store {
    /// The refused addresses of which nobody was told yet, without those that cannot be read.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn untold_refusals(&self) -> Result<Vec<RefusedAddress>, StoreError> {
        let rows: Vec<RefusedRow> =
            read!(self, UNTOLD, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        readable(rows.into_iter().map(RefusedAddress::try_from))
    }

    /// The refused addresses among the owners of a project.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn refused_owners(&self, group: &GroupId) -> Result<Vec<RefusedAddress>, StoreError> {
        let rows: Vec<RefusedRow> =
            read!(self, OF, |pool, text| sqlx::query_as(text).bind(group.as_str()).fetch_all(pool).await)?;
        readable(rows.into_iter().map(RefusedAddress::try_from))
    }

    /// The projects that an address owns: their names, or ids where Atlas has no name.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn owned_by(&self, address: &str) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String, String)> =
            read!(self, PROJECTS, |pool, text| sqlx::query_as(text).bind(address).fetch_all(pool).await)?;
        Ok(rows.into_iter().map(|(name, group)| if name.is_empty() { group } else { name }).collect())
    }

    /// The owners beside this one of the projects that it owns, without refused ones.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn owners_beside(&self, address: &str) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> =
            read!(self, BESIDE, |pool, text| sqlx::query_as(text).bind(address).fetch_all(pool).await)?;
        Ok(rows.into_iter().map(|(mail,)| mail).collect())
    }

    /// Writes the messages about a refused address, once.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn tell_refusal(
        &self,
        address: &str,
        messages: Vec<NewOutbox>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let args = (address.to_owned(), messages);
        self.transact("address.told", Lane::Rest, args, move |tx, (address, messages), unsure| {
            Box::pin(async move {
                let told = each!(tx, TELL, |conn, text| sqlx::query(text)
                    .bind(address.as_str())
                    .bind(now)
                    .execute(conn)
                    .await
                    .map(|done| done.rows_affected()))?;
                // The messages of an attempt without an answer have the same ids.
                if told > 0 || unsure { tx.write_outbox(messages, now).await } else { Ok(()) }
            })
        })
        .await
    }
}

impl Tx {
    /// Marks an address as refused, with the server's reply, or clears it.
    pub(super) async fn mark_address(
        &mut self,
        address: &str,
        refused: Option<&str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        match refused {
            Some(reply) => each!(self, REFUSE, |conn, text| sqlx::query(text)
                .bind(address)
                .bind(reply)
                .bind(now)
                .execute(conn)
                .await
                .map(drop))?,
            None => {
                each!(self, ACCEPT, |conn, text| sqlx::query(text)
                    .bind(address)
                    .execute(conn)
                    .await
                    .map(drop))?;
            }
        }
        Ok(())
    }
}
