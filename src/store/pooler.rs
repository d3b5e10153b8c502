//! Finds a connection pooler that gives each transaction, or each statement, another connection of the
//! server (`PgBouncer` in its modes `transaction` and `statement`, and its like).
//!
//! It is searched before anything is set: a setting, a prepared statement or a lock would stay on a
//! connection that belongs to other programs, too. The statements here are sent without being prepared
//! and change nothing. A pool in session mode is not found and does no harm.

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, Row};

/// The way out of a pooler.
pub(super) const WAY_OUT: &str = "name the server's own address (often port 5432), or a pool in session mode that has 16 \
     server connections for each daemon";

/// Which process of the server answers.
async fn process(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    use futures_util::TryStreamExt;
    let rows: Vec<_> = sqlx::raw_sql("SELECT pg_backend_pid()").fetch(connection).try_collect().await?;
    rows.first().map_or(Err(sqlx::Error::RowNotFound), |row| row.try_get(0))
}

/// What was found between this program and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shared {
    /// Nothing: both connections keep a process of their own.
    No,
    /// Transactions change processes.
    Transactions,
    /// Transactions are refused.
    Statements,
}

/// Whether a connection with these options keeps one process of the server.
pub(super) async fn find(options: &PgConnectOptions) -> Result<Shared, sqlx::Error> {
    let mut one = options.connect().await?;
    let mut two = options.connect().await?;
    let found = compare(&mut one, &mut two).await;
    let _ = one.close().await;
    let _ = two.close().await;
    found
}

async fn compare(one: &mut PgConnection, two: &mut PgConnection) -> Result<Shared, sqlx::Error> {
    let first = process(one).await?;
    if sqlx::raw_sql("BEGIN READ ONLY").execute(&mut *two).await.is_err() {
        // A server refuses no transaction to a connection that it has just accepted.
        return Ok(Shared::Statements);
    }
    let second = process(two).await?;
    // While the second holds its process, a shared pool has to give the first one others.
    let mut seen = vec![process(one).await?, process(one).await?];
    sqlx::raw_sql("COMMIT").execute(&mut *two).await?;
    seen.extend([process(one).await?, process(one).await?]);
    let back = [process(two).await?, process(two).await?];
    let own = first != second && seen.iter().all(|it| *it == first) && back.iter().all(|it| *it == second);
    Ok(if own { Shared::No } else { Shared::Transactions })
}
