//! The settings that decide, as the last start found them.
//!
//! They are sealed together, so that a value that somebody wrote into the database shortens no delay.

use std::collections::BTreeMap;

use super::lanes::Lane;
use super::loosenings::Governed;
use super::seal::Seal;
use super::seals::AGAIN;
use super::{NewAudit, NewOutbox, Sql, Store, StoreError, Tx, each, urgent};
use crate::domain::time::Timestamp;
use crate::seal::Digest;

const SETTINGS: Sql = Sql {
    sqlite: "SELECT name, value FROM settings ORDER BY name",
    postgres: "SELECT name, value FROM settings ORDER BY name COLLATE \"C\"",
};
const SET: Sql = Sql::same(
    "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = $2",
);
const UNSET: Sql = Sql::same("DELETE FROM settings WHERE name = $1");
const UNSET_ALL: Sql = Sql::same("DELETE FROM settings");

pub(super) const STATEMENTS: &[&Sql] = &[&SETTINGS, &SET, &UNSET, &UNSET_ALL];

/// The subject of the seal of all settings.
const SUBJECT: &str = "settings";

type Rows = Vec<(String, String)>;

/// The seal of all settings. No settings need no seal.
fn seal(rows: &Rows) -> Seal {
    if rows.is_empty() {
        return Seal::end(SUBJECT);
    }
    let fields: Vec<_> =
        rows.iter().flat_map(|(name, value)| [Some(name.as_str()), Some(value.as_str())]).collect();
    Seal::new(SUBJECT, Digest::of(SUBJECT, &fields))
}

/// Settings to record.
#[derive(Clone, Debug, Default)]
pub struct NewSettings {
    /// By name; `None`: no longer set.
    pub values: Vec<(String, Option<String>)>,
    /// Whether those on record are not what Keywheel wrote, and are forgotten.
    pub anew: bool,
}

impl Tx {
    async fn stored_settings(&mut self) -> Result<Rows, StoreError> {
        Ok(each!(self, SETTINGS, |conn, sql| sqlx::query_as(sql).fetch_all(conn).await)?)
    }

    /// The seal of the settings as they are stored.
    pub(super) async fn seal_of_settings(&mut self) -> Result<Seal, StoreError> {
        Ok(seal(&self.stored_settings().await?))
    }

    /// The settings; refuses those that are not what Keywheel wrote.
    pub(super) async fn sealed_settings(&mut self) -> Result<BTreeMap<String, String>, StoreError> {
        let rows = self.stored_settings().await?;
        self.check_seals(&[seal(&rows)]).await?;
        Ok(rows.into_iter().collect())
    }

    async fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), StoreError> {
        match value {
            Some(value) => each!(self, SET, |conn, sql| sqlx::query(sql)
                .bind(name)
                .bind(value)
                .execute(conn)
                .await
                .map(drop))?,
            None => {
                each!(self, UNSET, |conn, sql| sqlx::query(sql).bind(name).execute(conn).await.map(drop))?;
            }
        }
        Ok(())
    }
}

impl Store {
    /// The settings that decide, by name, as they are recorded.
    ///
    /// # Errors
    /// [`StoreError::Tampered`] when they are not what Keywheel wrote; fails when the database cannot be read.
    pub async fn recorded_settings(&self) -> Result<BTreeMap<String, String>, StoreError> {
        let mut again = 0..AGAIN;
        loop {
            let rows: Rows = urgent!(self, SETTINGS, |pool, sql| sqlx::query_as(sql).fetch_all(pool).await)?;
            match self.check_seals(&[seal(&rows)]).await {
                Err(StoreError::Tampered { .. }) if again.next().is_some() => {}
                checked => return checked.map(|()| rows.into_iter().collect()),
            }
        }
    }

    /// Records settings that decide, with the changes that take effect later.
    ///
    /// # Errors
    /// Fails when the database cannot be written, with [`StoreError::Conflict`] when a change that takes effect by this
    /// was changed meanwhile, and with [`StoreError::Tampered`] when what is recorded is not what Keywheel wrote.
    pub async fn record_settings(
        &self,
        new: NewSettings,
        governed: Governed,
        (audit, outbox): (&[NewAudit], &[NewOutbox]),
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let args = (new, governed, audit.to_vec(), outbox.to_vec());
        self.transact(
            "settings.record",
            Lane::Command,
            args,
            move |tx, (new, governed, audit, outbox), unsure| {
                Box::pin(async move {
                    if unsure && tx.is_appended(audit, now).await? {
                        return Ok(());
                    }
                    if new.anew {
                        each!(tx, UNSET_ALL, |conn, sql| sqlx::query(sql).execute(conn).await.map(drop))?;
                    } else {
                        tx.sealed_settings().await?;
                    }
                    for (name, value) in &new.values {
                        tx.set(name, value.as_deref()).await?;
                    }
                    let mut seals = tx.write_governed(governed, now).await?;
                    seals.push(tx.seal_of_settings().await?);
                    seals.extend(tx.write_announcing(outbox, now).await?);
                    tx.append_sealing(audit, seals, now).await
                })
            },
        )
        .await
    }
}
