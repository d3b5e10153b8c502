//! `keywheel backup` and `keywheel restore`: a copy of the SQLite database, and putting one back.

use std::path::Path;

use crate::config::Config;
use crate::domain::time::{Clock, SystemClock};
use crate::store::{self, Contents, sqlite_path};

/// Copies the SQLite database to a new file; returns a sentence with the result.
///
/// # Errors
/// Fails for PostgreSQL, and when the copy cannot be made.
pub async fn back_up(config: &Config, to: &Path) -> anyhow::Result<String> {
    let path = sqlite_path(config.database.url.expose())?;
    let found = store::back_up(&path, to).await?;
    Ok(format!("{} holds {}", to.display(), holds(&found)))
}

/// Puts a copy in the place of the SQLite database; returns what was done and what is to be done.
///
/// # Errors
/// Fails for PostgreSQL, while a daemon runs, and when the file cannot be used.
pub async fn restore(config: &Config, from: &Path) -> anyhow::Result<[String; 2]> {
    let path = sqlite_path(config.database.url.expose())?;
    let done = store::restore(&path, from, SystemClock.now()).await?;
    let before = done.aside.map_or_else(String::new, |aside| {
        format!("; the database before is {}, with its companions", aside.display())
    });
    Ok([
        format!("{} is restored: {}{before}", path.display(), holds(&done.contents)),
        "start the daemon: it watches and sends nothing until you compared `keywheel status` and ran `keywheel doctor \
         --accept-restore`"
            .to_owned(),
    ])
}

fn holds(found: &Contents) -> String {
    format!(
        "{} projects, {} rotations, audit rows up to {}",
        found.projects, found.rotations, found.audit_row
    )
}
