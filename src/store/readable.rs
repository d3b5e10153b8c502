//! Rows that cannot be read: work passes over them and people see their ids, so that one of them does not
//! hide the others.
//!
//! Each is named in the log, and `keywheel doctor` lists those of projects and rotations. A single row that
//! is asked for is an error instead, and so is a row that a decision about a key depends on.

use super::StoreError;

/// A row of a list for people, or the place of one that cannot be read.
pub type Listed<T> = Result<T, CorruptRow>;

/// A row that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorruptRow {
    /// Its id, as far as it can be read.
    pub id: String,
}

/// All rows, those that cannot be read by their ids.
///
/// # Errors
/// Fails with any error but [`StoreError::Corrupt`].
pub(super) fn listed<T>(
    rows: impl IntoIterator<Item = Result<T, StoreError>>,
) -> Result<Vec<Listed<T>>, StoreError> {
    let one = |row| match row {
        Ok(row) => Ok(Ok(row)),
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::error!(error = %error, "unreadable row listed: {error}");
            let StoreError::Corrupt { id, .. } = error else { return Err(error) };
            Ok(Err(CorruptRow { id }))
        }
        Err(error) => Err(error),
    };
    rows.into_iter().map(one).collect()
}

/// The rows that can be read.
///
/// # Errors
/// Fails with any error but [`StoreError::Corrupt`].
pub(super) fn readable<T>(
    rows: impl IntoIterator<Item = Result<T, StoreError>>,
) -> Result<Vec<T>, StoreError> {
    let mut read = Vec::new();
    for row in rows {
        match row {
            Ok(row) => read.push(row),
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(error = %error, "unreadable row skipped: {error}");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
