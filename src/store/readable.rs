//! Rows that cannot be read: a list passes over them, so that one of them stops none of the others.
//!
//! Each is named in the log, and `keywheel doctor` lists those of projects and rotations. A single row that
//! is asked for is an error instead, and so is a row that a decision about a key depends on.

use super::{ProjectFilter, Store, StoreError};

/// Rows of one page of a check.
const PAGE: usize = 500;

/// The rows that can be read.
///
/// # Errors
/// Anything but [`StoreError::Corrupt`].
pub(super) fn readable<T>(
    rows: impl IntoIterator<Item = Result<T, StoreError>>,
) -> Result<Vec<T>, StoreError> {
    let mut read = Vec::new();
    for row in rows {
        match row {
            Ok(row) => read.push(row),
            Err(error @ StoreError::Corrupt { .. }) => tracing::error!(error = %error, "row skipped"),
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

impl Store {
    /// The rows of projects and rotations that cannot be read.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn unreadable(&self) -> Result<Vec<StoreError>, StoreError> {
        let mut found = Vec::new();
        let mut after = String::new();
        loop {
            let (rows, last) = self.project_page(&ProjectFilter::default(), &after, PAGE).await?;
            found.extend(rows.into_iter().filter_map(Result::err));
            match last {
                Some(last) => after = last,
                None => break,
            }
        }
        let mut before = None;
        loop {
            let (rows, last) = self.rotation_page(None, None, before, PAGE).await?;
            found.extend(rows.into_iter().filter_map(Result::err));
            if last.is_none() {
                return Ok(found);
            }
            before = last;
        }
    }
}
