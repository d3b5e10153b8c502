//! Rows that cannot be read: a list skips them, so that one of them does not hide the others.
//!
//! Each is named in the log, and `keywheel doctor` lists those of projects and rotations. A single row that
//! is asked for is an error instead, and so is a row that a decision about a key depends on.

use super::StoreError;

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
