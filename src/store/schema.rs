//! The migrations, and the schema that follows from them.

use sqlx::migrate::Migrator;

pub(super) static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
pub(super) static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// The newest schema of this program.
#[must_use]
pub fn known_version() -> i64 {
    SQLITE.iter().map(|migration| migration.version).max().unwrap_or(0)
}
