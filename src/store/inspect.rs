//! Checks whether a database may be used, before anything is written to it.
//!
//! Every refusal names the setting, the finding and the way out, and never the password. The rows in our
//! tables are not checked here.

use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};

use super::lanes::Lane;
use super::pooler::{self, Shared};
use super::schema::known_version;
use super::{Sql, Store, StoreError, each};
use crate::domain::time::Timestamp;
use crate::net::cause::{TlsFault, root_cause, tls_fault};

/// The oldest server whose behaviour is tested.
const OLDEST: i32 = 130_000;

/// How long a server may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// The tables of the newest schema.
pub const TABLES: [&str; 32] = [
    "approvals",
    "assertions",
    "audit",
    "audit_head",
    "conditions",
    "daemons",
    "drifts",
    "due_acks",
    "former_projects",
    "inbox",
    "journal",
    "keys",
    "loosenings",
    "meta",
    "outbox",
    "owners",
    "passkeys",
    "people",
    "projects",
    "proofs",
    "readings",
    "refused_addresses",
    "reminders",
    "removals",
    "reviews",
    "rotations",
    "settings",
    "silences",
    "token_requests",
    "tokens",
    "visits",
    "web_sessions",
];

const SERVER: Sql = Sql {
    sqlite: "SELECT 0, 'UTF8', 'off', 'main'",
    postgres: "SELECT current_setting('server_version_num')::int4, current_setting('server_encoding'), \
     current_setting('transaction_read_only'), current_schema()::text",
};
const PRESENT: Sql = Sql {
    sqlite: "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')",
    postgres: "SELECT relname::text FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) \
     AND relkind IN ('r', 'p', 'v', 'm', 'f')",
};
const APPLIED: Sql = Sql::same("SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version");
const MAY_CREATE: Sql = Sql {
    sqlite: "SELECT TRUE",
    postgres: "SELECT COALESCE(has_schema_privilege(current_schema(), 'CREATE'), FALSE)",
};
const CLOSED: Sql = Sql {
    sqlite: "SELECT name FROM sqlite_master WHERE FALSE",
    postgres: "SELECT relname::text FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) \
     AND relkind = 'r' AND NOT (has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT') \
     AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE')) ORDER BY relname",
};

const TOUCH: Sql = Sql::same(
    "INSERT INTO meta (name, value) VALUES ('ready', $1) ON CONFLICT (name) DO UPDATE SET value = $1",
);

pub(super) const STATEMENTS: &[&Sql] = &[&SERVER, &PRESENT, &APPLIED, &MAY_CREATE, &CLOSED, &TOUCH];

/// Refuses a server of this `server_version_num` when it is too old.
///
/// # Errors
/// The error names the version found and the oldest supported one.
pub fn check_server_version(number: i32) -> Result<(), StoreError> {
    if number >= OLDEST {
        return Ok(());
    }
    let found = if number >= 100_000 {
        (number / 10_000).to_string()
    } else {
        format!("{}.{}", number / 10_000, number / 100 % 100)
    };
    Err(StoreError::Unusable(format!(
        "database.url: the server is PostgreSQL {found}, and the oldest supported version is {}; upgrade it, or name another server",
        OLDEST / 10_000
    )))
}

/// Refuses a server that is too old, stores no UTF-8, is read-only, or has no schema for this user.
pub(super) async fn check_server(options: &PgConnectOptions) -> Result<(), StoreError> {
    let mut connection = connect(options).await?;
    check_pooler(options).await?;
    let (version, encoding, read_only, schema): (i32, String, String, Option<String>) =
        sqlx::query_as(SERVER.postgres).fetch_one(&mut connection).await?;
    check_server_version(version)?;
    let place = place(options);
    let refuse = |why: String| Err(StoreError::Unusable(format!("database.url: {why}")));
    if encoding != "UTF8" {
        return refuse(format!(
            "{place} stores text as {encoding}, which cannot hold every name in Atlas; create a database with \
             CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        ));
    }
    if read_only == "on" {
        return refuse(format!(
            "{place} is read-only (a standby, or default_transaction_read_only is on); name the primary server, \
             or switch that setting off for this user"
        ));
    }
    if schema.is_none() {
        return refuse(format!(
            "{place} has no schema that user {} may use; create one, or set its search_path",
            options.get_username()
        ));
    }
    connection.close().await?;
    Ok(())
}

/// What a failure of TLS is about, and the setting to change.
fn tls_words(error: &sqlx::Error, options: &PgConnectOptions) -> String {
    match tls_fault(error) {
        Some(TlsFault::UnknownIssuer) => {
            "the server's certificate was issued by a CA that is not trusted here; name the CA's file with sslrootcert=FILE in \
             database.url"
                .to_owned()
        }
        Some(TlsFault::WrongName) => format!(
            "the server's certificate is not for {}; use the host name it was made for, or sslmode=verify-ca in database.url, \
             which checks the issuer only",
            options.get_host()
        ),
        Some(TlsFault::Expired) => {
            "the server's certificate has expired or is not valid yet; renew it, and compare the clocks".to_owned()
        }
        Some(TlsFault::OwnCa) => {
            "the server's certificate is its own CA; put a server certificate that this CA has signed on the server".to_owned()
        }
        Some(TlsFault::Other) | None => {
            format!("it cannot be reached over TLS ({}); check sslmode and sslrootcert in database.url", root_cause(error))
        }
        Some(TlsFault::NotTls) => {
            "what answers there does not speak TLS; check host and port, and sslmode in database.url".to_owned()
        }
    }
}

/// Refuses a pooler that shares the server's connections between transactions.
async fn check_pooler(options: &PgConnectOptions) -> Result<(), StoreError> {
    let mode = match pooler::find(options).await? {
        Shared::No => return Ok(()),
        Shared::Transactions => "transaction",
        Shared::Statements => "statement",
    };
    Err(StoreError::Unusable(format!(
        "database.url: {} is a connection pooler in {mode} mode (such as PgBouncer), which gives each {mode} another connection \
         of the server, and Keywheel's settings, locks and statements need one of their own; {}",
        place(options),
        pooler::WAY_OUT
    )))
}

/// Opens one connection without a pool: a pool would retry and then hide the reason.
async fn connect(options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let place = place(options);
    let refuse = |why: String| StoreError::Unusable(format!("database.url: {why}"));
    let error = match tokio::time::timeout(PATIENCE, options.connect()).await {
        Ok(Ok(connection)) => return Ok(connection),
        Ok(Err(error)) => error,
        Err(_) => {
            return Err(refuse(format!(
                "{place} did not answer within {} s; check host, port and firewall",
                PATIENCE.as_secs()
            )));
        }
    };
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    let user = options.get_username();
    Err(match (code.as_deref(), &error) {
        (Some("28P01" | "28000"), _) => refuse(format!(
            "{place} does not accept user {user} with this password ({error}); correct the URL or the file it comes from"
        )),
        (Some("3D000"), _) => refuse(format!("{place} does not exist; create it, or name another ({error})")),
        (Some("42501"), _) => {
            refuse(format!("user {user} may not connect to {place} ({error}); grant CONNECT to that user"))
        }
        // What a pooler refuses before it asks a server: `extra_float_digits`, which each driver sends.
        (Some("08P01"), _) => refuse(format!(
            "{place} refuses the connection as a pooler such as PgBouncer does ({error}); {}, with ignore_startup_parameters = \
             extra_float_digits",
            pooler::WAY_OUT
        )),
        (Some("53300"), _) => {
            refuse(format!("{place} has no free connection ({error}); raise max_connections"))
        }
        _ if tls_fault(&error).is_some() => refuse(format!("{place}: {}", tls_words(&error, options))),
        (_, sqlx::Error::Io(why)) => refuse(format!(
            "{place} cannot be reached ({why}); check host and port, and that the server runs"
        )),
        (_, sqlx::Error::Tls(why)) => {
            refuse(format!("{place} cannot be reached over TLS ({why}); check sslmode and sslrootcert"))
        }
        _ => refuse(format!("{place} refuses the connection ({error})")),
    })
}

fn place(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    match options.get_socket() {
        Some(socket) => format!("database {database} at {}", socket.display()),
        None => format!("database {database} at {}:{}", options.get_host(), options.get_port()),
    }
}

/// Runs a statement outside the macros, which need a transaction or the read pool.
macro_rules! rows {
    ($store:expr, $sql:expr) => {
        match $store {
            Store::Sqlite { write, .. } => sqlx::query_as($sql.sqlite).fetch_all(write).await,
            Store::Postgres { write: pool, .. } => sqlx::query_as($sql.postgres).fetch_all(pool).await,
        }
    };
}

impl Store {
    /// The applied versions of our schema; empty for an empty database.
    ///
    /// # Errors
    /// Fails for a database of another program or of a newer Keywheel, and leaves it as it is.
    pub(super) async fn applied(&self, known: &Migrator) -> Result<Vec<i64>, StoreError> {
        let present: Vec<(String,)> = rows!(self, PRESENT)?;
        let has = |name: &str| present.iter().any(|(it,)| it == name);
        let applied: Vec<(i64, Vec<u8>, bool)> =
            if has("_sqlx_migrations") { rows!(self, APPLIED)? } else { Vec::new() };
        let foreign = |found: String| {
            Err(StoreError::Unusable(format!(
                "database.url: this database belongs to another program: {found}; give keywheel a database of its own"
            )))
        };
        let Some((first, ..)) = applied.first() else {
            return match TABLES.iter().find(|name| has(name)) {
                Some(name) => foreign(format!("it holds a table {name:?} that keywheel did not make")),
                None => Ok(Vec::new()),
            };
        };
        let ours = |version: i64| known.iter().find(|it| it.version == version);
        let changed =
            |version: i64, checksum: &[u8]| ours(version).is_some_and(|it| *it.checksum != *checksum);
        let began = known.iter().next().map(|it| it.version);
        if Some(*first) != began || changed(*first, &applied[0].1) {
            return foreign(format!(
                "its _sqlx_migrations begins with migration {first}, which is not one of ours"
            ));
        }
        for (version, checksum, success) in &applied {
            if !success {
                return Err(StoreError::Unusable(format!(
                    "database.url: migration {version} stopped halfway; restore the backup made before it"
                )));
            }
            if changed(*version, checksum) {
                return Err(StoreError::Unusable(format!(
                    "database.url: migration {version} was applied with another text than this program has; use the keywheel that wrote this database"
                )));
            }
        }
        match applied.iter().map(|(version, ..)| *version).find(|version| ours(*version).is_none()) {
            Some(found) => Err(StoreError::NewerSchema { found, known: known_version() }),
            None => Ok(applied.into_iter().map(|(version, ..)| version).collect()),
        }
    }

    /// Checks that this user may create tables.
    ///
    /// # Errors
    /// The error names the missing right.
    pub(super) async fn check_may_create(&self) -> Result<(), StoreError> {
        let may: Vec<(bool,)> = rows!(self, MAY_CREATE)?;
        if may == [(true,)] {
            return Ok(());
        }
        Err(StoreError::Unusable(format!(
            "database.url: user {} may not create tables in this database; run GRANT CREATE ON SCHEMA public TO that user, \
             or run `keywheel migrate` as a user who may and set database.migrate = false",
            self.user()
        )))
    }

    /// Checks that this user may read and write every table of ours.
    ///
    /// # Errors
    /// The error names the first table without that right.
    pub(super) async fn check_rights(&self) -> Result<(), StoreError> {
        let closed: Vec<(String,)> = rows!(self, CLOSED)?;
        match closed.iter().find(|(name,)| TABLES.contains(&name.as_str())) {
            None => Ok(()),
            Some((name,)) => Err(StoreError::Unusable(format!(
                "database.url: user {} may not read and write the table {name}; run GRANT SELECT, INSERT, UPDATE, DELETE \
                 ON ALL TABLES IN SCHEMA public TO that user",
                self.user()
            ))),
        }
    }

    /// Writes one value, to see that writing works.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn check_writable(&self, now: Timestamp) -> Result<(), StoreError> {
        // Not repeated: a probe reports the present state, and the next one comes soon.
        self.transact_once("ready.probe", Lane::Rest, (), move |tx, (), _| {
            Box::pin(async move {
                each!(tx, TOUCH, |conn, text| sqlx::query(text)
                    .bind(now.to_string())
                    .execute(conn)
                    .await
                    .map(drop))?;
                Ok(())
            })
        })
        .await
    }

    fn user(&self) -> String {
        match self {
            Store::Sqlite { .. } => "this".to_owned(),
            Store::Postgres { write, .. } => write.connect_options().get_username().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_before_13_is_refused_by_its_name() {
        for (number, found) in [(120_022, "PostgreSQL 12,"), (90_624, "PostgreSQL 9.6,")] {
            let said = check_server_version(number).unwrap_err().to_string();
            assert!(said.contains(found) && said.contains("database.url") && said.contains("13"), "{said}");
        }
        for number in [130_000, 150_018, 180_000] {
            check_server_version(number).unwrap();
        }
    }
}
