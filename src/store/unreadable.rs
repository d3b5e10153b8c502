//! The check for rows that cannot be read, page by page; `doctor` names them.

use super::{ProjectFilter, Store, StoreError};

/// Rows of one page of a check.
const PAGE: usize = 500;

impl Store {
    /// The rows of projects and rotations that cannot be read.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn unreadable(&self) -> Result<Vec<StoreError>, StoreError> {
        let mut found = self.unreadable_projects().await?;
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

    /// The rows that cannot be read and that the watch needs: projects, and the rotations that are open.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn unreadable_in_play(&self) -> Result<Vec<StoreError>, StoreError> {
        let mut found = self.unreadable_projects().await?;
        found.extend(self.unreadable_open_rotations().await?);
        Ok(found)
    }

    async fn unreadable_projects(&self) -> Result<Vec<StoreError>, StoreError> {
        let mut found = Vec::new();
        let mut after = String::new();
        loop {
            let (rows, last) = self.project_page(&ProjectFilter::default(), &after, PAGE).await?;
            found.extend(rows.into_iter().filter_map(Result::err));
            match last {
                Some(last) => after = last,
                None => return Ok(found),
            }
        }
    }
}
