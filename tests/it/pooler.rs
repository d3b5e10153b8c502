//! What lies between Keywheel and PostgreSQL: a real `PgBouncer` in each of its modes, and TLS.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Stdio};

use keywheel::store::{Access, Store};
use sqlx::{Connection, Row};

use crate::support::db::{Backend, TestDb, as_server_user, local};
use crate::support::smtpd::Certificates;
use crate::support::wait::{LIMIT, eventually};

struct Pooler(Child, String);

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Pooler {
    async fn start(db: &TestDb, folder: &Path, mode: &str, rules: &str) -> Self {
        let server: url::Url = db.url.parse().unwrap();
        let (host, port) = (server.host_str().unwrap(), server.port().unwrap_or(5432));
        let name = server.path().trim_start_matches('/');
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        drop(listener);
        let password = server.password().map(|it| format!(" password={it}")).unwrap_or_default();
        let text = format!(
            "[databases]\n{name} = host={host} port={port} dbname={name} user={}{password}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {own}\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = 20\nunix_socket_dir =\n{rules}",
            server.username()
        );
        let file = folder.join(format!("{mode}.ini"));
        std::fs::write(&file, text).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder, open).unwrap();
        let program = std::path::PathBuf::from("/usr/sbin/pgbouncer");
        assert!(program.exists(), "this test needs PgBouncer: apt-get install pgbouncer");
        let mut command = as_server_user(program);
        let child = command.arg("-q").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let it = Self(child, format!("postgres://{}@127.0.0.1:{own}/{name}", server.username()));
        let ready = eventually(LIMIT, async || std::net::TcpStream::connect(("127.0.0.1", own)).ok()).await;
        if ready.is_some() {
            return it;
        }
        panic!("pgbouncer did not start with {}", file.display());
    }
}

const IGNORE: &str = "ignore_startup_parameters = extra_float_digits\n";

#[tokio::test]
async fn a_pooler_that_shares_connections_is_refused_by_name_and_left_as_it_was() {
    let db = TestDb::new(Backend::Postgres).await;
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    for (mode, more) in [
        ("transaction", IGNORE.to_owned()),
        ("transaction", format!("{IGNORE}server_round_robin = 1\n")),
        ("statement", IGNORE.to_owned()),
    ] {
        let pooler = Pooler::start(&db, folder.path(), mode, &more).await;
        for access in [Access::Daemon, Access::Beside, Access::Daemon] {
            let refused = Store::open(&pooler.1, Path::new(""), access).await.unwrap_err().to_string();
            assert!(refused.contains(&format!("connection pooler in {mode} mode")), "{mode}: {refused}");
            assert!(refused.contains("database.url") && refused.contains("session mode"), "{refused}");
        }
        let mut other = sqlx::PgConnection::connect(&pooler.1).await.unwrap();
        let mut rows = Vec::new();
        for setting in ["SHOW statement_timeout", "SHOW lock_timeout", "SHOW default_transaction_read_only"] {
            use futures_util::TryStreamExt;
            let all: Vec<_> = sqlx::raw_sql(setting).fetch(&mut other).try_collect().await.unwrap();
            rows.push(all[0].get::<String, _>(0));
        }
        assert_eq!(rows, ["0", "0", "off"], "{mode}");
    }
}

#[tokio::test]
async fn a_pool_of_sessions_works_and_one_that_refuses_our_parameters_is_named() {
    let db = TestDb::new(Backend::Postgres).await;
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let pooler = Pooler::start(&db, folder.path(), "session", IGNORE).await;
    let store = Store::open(&pooler.1, Path::new(""), Access::Daemon).await.unwrap();
    store.check_schema().await.unwrap();
    store.close().await;

    let strict = Pooler::start(&db, folder.path(), "session", "").await;
    let refused = Store::open(&strict.1, Path::new(""), Access::Daemon).await.unwrap_err().to_string();
    assert!(refused.contains("as a pooler such as PgBouncer does"), "{refused}");
    assert!(refused.contains("ignore_startup_parameters = extra_float_digits"), "{refused}");
}

/// TLS as libpq means it: each failure names its setting.
#[tokio::test]
async fn tls_to_the_server_means_what_libpq_means() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, admin) = local(&folder).await;
    let data = folder.path().join("pg/d");
    let good = Certificates::new(folder.path(), false);
    let server_owns = std::fs::metadata(&data).unwrap();
    for (file, name) in [(&good.certificate, "server.crt"), (&good.key, "server.key")] {
        let to = data.join(name);
        std::fs::copy(file, &to).unwrap();
        std::fs::set_permissions(&to, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(&to, Some(server_owns.uid()), Some(server_owns.gid())).unwrap();
    }
    let mut connection = sqlx::PgConnection::connect(&admin).await.unwrap();
    for statement in ["ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"] {
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    }
    let port = admin.parse::<url::Url>().unwrap().port().unwrap();
    let encrypted = async |host: &str, parameters: &str| {
        let url = format!("postgres://postgres@{host}:{port}/postgres?{parameters}");
        match Store::open(&url, Path::new(""), Access::Beside).await {
            Ok(store) => {
                store.close().await;
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    };
    // The server reads its settings again a moment later.
    let on = eventually(LIMIT, async || encrypted("localhost", "sslmode=require").await.ok());
    on.await.expect("TLS was not switched on");

    let other = tempfile::tempdir().unwrap();
    let stranger = Certificates::new(other.path(), false).issuer.display().to_string();
    let own = good.issuer.display().to_string();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    let empty = empty.display().to_string();
    for (host, parameters, told) in [
        ("localhost", format!("sslmode=verify-full&sslrootcert={own}"), None),
        ("localhost", format!("sslmode=require&sslrootcert={own}"), None),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={own}"), None),
        (
            "localhost",
            format!("sslmode=require&sslrootcert={stranger}"),
            Some("issued by a CA that is not trusted"),
        ),
        ("localhost", "sslmode=verify-full".to_owned(), Some("name the CA's file with sslrootcert=FILE")),
        ("localhost", "sslmode=verify-full&sslrootcert=system".to_owned(), Some("sslrootcert=FILE")),
        (
            "localhost",
            "sslmode=require&sslrootcert=system".to_owned(),
            Some("system takes sslmode=verify-full"),
        ),
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={own}"), Some("is not for 127.0.0.1")),
        (
            "localhost",
            "sslmode=verify-full&sslrootcert=/nowhere.pem".to_owned(),
            Some("/nowhere.pem cannot be read"),
        ),
        ("localhost", format!("sslmode=verify-ca&sslrootcert={empty}"), Some("holds no PEM certificate")),
    ] {
        let outcome = encrypted(host, &parameters).await;
        match told {
            None => assert_eq!(outcome, Ok(()), "{host} {parameters}"),
            Some(told) => {
                let said = outcome.expect_err(&parameters);
                assert!(said.starts_with("database.url: ") && said.contains(told), "{parameters}: {said}");
            }
        }
    }
}
