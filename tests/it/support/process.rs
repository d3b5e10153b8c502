//! The real binary as a child process, told to serve a given database and Atlas.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use keywheel::engine::epoch::{present_mark, write_mark};
use keywheel::store::{Access, Store};

use super::wait::{LIMIT, eventually};

/// A small generator, so that a failing run can be repeated from its printed seed.
#[derive(Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    #[expect(clippy::print_stdout, reason = "the seed is for the reader of a failed run")]
    pub(crate) fn new() -> Self {
        let seed = match std::env::var("KEYWHEEL_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => uuid::Uuid::now_v7().as_u64_pair().1,
        };
        println!("KEYWHEEL_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What a daemon is told.
pub(crate) struct Orders<'a> {
    /// Its folder, log and configuration are named after it.
    pub(crate) name: &'a str,
    pub(crate) database: &'a str,
    pub(crate) atlas: &'a str,
    /// The client id; its secret is the demo world's.
    pub(crate) client_id: &'a str,
    /// Settings such as `pace.lease` that differ from the ones below.
    pub(crate) settings: &'a [(&'a str, &'a str)],
}

/// A rotation brings its rules along from its proposal; these are the daemon's own.
const SETTINGS: [(&str, &str); 3] =
    [("atlas.request_timeout", "2s"), ("sweep.drift_every", "1h"), ("log.level", "info")];

/// A running daemon, killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
    started_at: u64,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    /// Starts one; it is not waited for.
    pub(crate) fn start(folder: &Path, orders: &Orders<'_>) -> Self {
        let data = folder.join(orders.name);
        std::fs::create_dir_all(&data).unwrap();
        let config = data.join("keywheel.toml");
        crate::support::daemon::private(&config, text(&data, orders));
        let key_file = data.join("installation.key");
        if !key_file.exists() {
            super::db::key().create(&key_file).unwrap();
            knows(orders.database, data.join("epoch"));
        }
        let log = folder.join(format!("{}.log", orders.name));
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let started_at = file.metadata().unwrap().len();
        let child = Command::new(env!("CARGO_BIN_EXE_keywheel"))
            .args(["serve", "--config"])
            .arg(config)
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, log, started_at }
    }

    /// What this process, and not an earlier one of its name, has logged.
    pub(crate) fn said(&self) -> String {
        let all = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&all[usize::try_from(self.started_at).unwrap().min(all.len())..]).into_owned()
    }

    /// Waits until it serves.
    pub(crate) async fn ready(&mut self) {
        let ready = eventually(LIMIT, async || {
            let serves = self.said().contains("keywheel serves");
            assert!(serves || self.child.try_wait().unwrap().is_none(), "it ended:\n{}", self.said());
            serves.then_some(())
        });
        assert!(ready.await.is_some(), "it does not serve:\n{}", self.said());
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; it is not waited for.
    pub(crate) fn terminate(&self) {
        let done = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let ended = eventually(LIMIT, async || self.child.try_wait().unwrap());
        let Some(status) = ended.await else { panic!("it does not end:\n{}", self.said()) };
        status
    }
}

/// Writes the epoch file of a daemon that has worked with this database before.
fn knows(database: &str, file: PathBuf) {
    let database = database.to_owned();
    let written = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Store::open(&database, Path::new(""), Access::Beside).await.unwrap();
            super::db::unlock(&store).await;
            write_mark(&file, &present_mark(&store).await.unwrap().unwrap()).unwrap();
            store.close().await;
        });
    });
    written.join().unwrap();
}

fn text(data: &Path, orders: &Orders<'_>) -> String {
    let mut text = format!(
        r#"
data_dir = "{}"
server.listen = "127.0.0.1:0"
database.url = "{}"
atlas.base_url = "{}"
sweep.cron = "* * * * * *"
atlas.credentials.default = {{ kind = "service-account", client_id = "{}", client_secret = "mdb_sa_sk_demo" }}
"#,
        data.display(),
        orders.database,
        orders.atlas,
        orders.client_id
    );
    let own = |name: &str| orders.settings.iter().any(|(it, _)| *it == name);
    let kept = SETTINGS.iter().filter(|(name, _)| !own(name));
    for (name, value) in kept.chain(orders.settings) {
        writeln!(text, "{name} = \"{value}\"").unwrap();
    }
    text
}
