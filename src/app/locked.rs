//! The process that keeps a command from the SQLite database.

use crate::config::Config;
use crate::store::{held, sqlite_path};

/// The error of a command, or, where another process' lock is the cause, one that names file and process.
#[must_use]
pub fn naming_writer(config: &Config, error: anyhow::Error) -> anyhow::Error {
    let path = sqlite_path(config.database.url.expose());
    path.ok().and_then(|path| held(&path, error.as_ref())).map_or(error, Into::into)
}
