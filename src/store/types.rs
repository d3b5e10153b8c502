//! The encoding of our types in both databases: instants as fixed-width text on SQLite, so that text
//! order is time order, and as TIMESTAMPTZ on PostgreSQL.

use std::borrow::Cow;
use std::fmt::Display;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::{Database, Decode, Encode, Postgres, Sqlite, Type};

use super::StoreError;
use crate::domain::time::Timestamp;

/// Free text from outside as both databases can hold it: PostgreSQL stores no NUL in text.
pub(super) fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// A value as the JSON that a column holds.
///
/// # Errors
/// [`StoreError::Unwritable`] names the row.
pub(super) fn json<T: Serialize>(
    table: &'static str,
    column: &'static str,
    id: impl Display,
    value: &T,
) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| StoreError::Unwritable {
        table,
        column,
        id: id.to_string(),
        source,
    })
}

impl Type<Sqlite> for Timestamp {
    fn type_info() -> <Sqlite as Database>::TypeInfo {
        <str as Type<Sqlite>>::type_info()
    }
}

impl Encode<'_, Sqlite> for Timestamp {
    fn encode_by_ref(&self, buf: &mut <Sqlite as Database>::ArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <String as Encode<Sqlite>>::encode(self.to_string(), buf)
    }
}

impl<'r> Decode<'r, Sqlite> for Timestamp {
    fn decode(value: <Sqlite as Database>::ValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(<String as Decode<Sqlite>>::decode(value)?.parse()?)
    }
}

impl Type<Postgres> for Timestamp {
    fn type_info() -> <Postgres as Database>::TypeInfo {
        <DateTime<Utc> as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for Timestamp {
    fn encode_by_ref(&self, buf: &mut <Postgres as Database>::ArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <DateTime<Utc> as Encode<Postgres>>::encode(self.as_chrono(), buf)
    }
}

impl<'r> Decode<'r, Postgres> for Timestamp {
    fn decode(value: <Postgres as Database>::ValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self::from_chrono(<DateTime<Utc> as Decode<Postgres>>::decode(value)?))
    }
}

/// A stored instant that is read with its row: one that is no instant is a fault of that row, and not of the whole
/// statement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instant(Option<Timestamp>);

impl Instant {
    /// The instant, or `bad`.
    pub(super) fn or(self, bad: StoreError) -> Result<Timestamp, StoreError> {
        self.0.ok_or(bad)
    }

    /// As a seal covers it. One that cannot be read fits no seal.
    pub(super) fn sealed(self) -> String {
        self.0.map_or_else(String::new, |at| at.to_string())
    }
}

impl From<Timestamp> for Instant {
    fn from(at: Timestamp) -> Self {
        Self(Some(at))
    }
}

/// The same for a column that may be null.
pub(super) fn instant(
    it: Option<Instant>,
    bad: impl FnOnce() -> StoreError,
) -> Result<Option<Timestamp>, StoreError> {
    it.map(|it| it.or(bad())).transpose()
}

impl Type<Sqlite> for Instant {
    fn type_info() -> <Sqlite as Database>::TypeInfo {
        <Timestamp as Type<Sqlite>>::type_info()
    }
}

impl<'r> Decode<'r, Sqlite> for Instant {
    fn decode(value: <Sqlite as Database>::ValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self(<String as Decode<Sqlite>>::decode(value)?.parse().ok()))
    }
}

impl Type<Postgres> for Instant {
    fn type_info() -> <Postgres as Database>::TypeInfo {
        <Timestamp as Type<Postgres>>::type_info()
    }
}

impl<'r> Decode<'r, Postgres> for Instant {
    fn decode(value: <Postgres as Database>::ValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self(Some(<Timestamp as Decode<Postgres>>::decode(value)?)))
    }
}
