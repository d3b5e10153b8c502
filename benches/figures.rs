//! The figures that Keywheel is held to, measured on the release build and printed as one table.
//!
//! `cargo bench` runs it. Nothing here fails a build over time: a slow machine is not a fault. What depends on
//! the disk is measured once more with 4 ms added to each flush (`slow-flush/slow_flush.c`, needs `cc`).

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that cannot go on must say so")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]

#[path = "figures/engine.rs"]
mod engine;
#[path = "figures/flood.rs"]
mod flood;
#[path = "figures/hooks.rs"]
mod hooks;
#[path = "figures/pages.rs"]
mod pages;
#[path = "figures/watch.rs"]
mod watch;

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keywheel::domain::key::{KeyRef, Place, Provider};
use keywheel::domain::project::{Project, SinceSource};
use keywheel::domain::time::{Clock, SystemClock, Timestamp};
use keywheel::engine::epoch::{present_mark, write_mark};
use keywheel::seal::InstallationKey;
use keywheel::sim::{KeyState, Sim, World};
use keywheel::store::{Access, Store};

/// Projects whose turn it is when the daemon starts.
const DUE: usize = 100;

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Milliseconds that the slow disk of the second round takes longer for each flush.
const FLUSH_DELAY: &str = "4";

/// Set in the process whose flushes are slow.
const SLOW: &str = "KEYWHEEL_FLUSH_DELAY_MS";

/// Measures again in a process whose flushes, and those of the daemons it starts, take longer.
fn with_slow_flushes() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let library = folder.join("libslow_flush.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/slow-flush/slow_flush.c");
    let built = Command::new("cc")
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .status();
    if !built.is_ok_and(|status| status.success()) {
        println!("no figures with slow flushes: cc cannot build benches/slow-flush/slow_flush.c");
        return;
    }
    println!("with {FLUSH_DELAY} ms added to each flush:");
    let mut again = Command::new(std::env::current_exe().unwrap());
    assert!(again.env("LD_PRELOAD", library).env(SLOW, FLUSH_DELAY).status().unwrap().success());
}

fn main() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        println!("{:<58} {:>12}  hold", "figure", "measured");
        // One alone while somebody works on it.
        let wanted = std::env::var("KEYWHEEL_FIGURE").unwrap_or_default();
        let slow = std::env::var_os(SLOW).is_some();
        let on_disk = |name: &str| wanted.is_empty() || wanted == name;
        let asked = |name: &str| !slow && on_disk(name);
        for (count, memory) in [(0, 20), (10_000, 40)].into_iter().filter(|_| asked("memory")) {
            let house = House::start(count, world(count), "").await;
            row(
                &format!("resident memory, {count} projects, after a sweep"),
                &format!("{:.1} MiB", house.resident()),
                &format!("<= {memory} MiB"),
            );
            if count > 0 {
                let text = format!("{:.0} ms", house.serving.as_secs_f64() * 1000.0);
                row(&format!("start to serving, {count} projects"), &text, "<= 150 ms");
            }
            house.end().await;
        }
        if on_disk("patch") {
            // One late packet decides a p99 of a hundred: the middle one of five runs.
            let mut runs = Vec::new();
            for _ in 0..5 {
                runs.push(engine::yes_to_patch().await);
            }
            runs.sort_by(|(a, b), (c, d)| {
                (a.as_secs_f64() * d.as_secs_f64()).total_cmp(&(c.as_secs_f64() * b.as_secs_f64()))
            });
            let (ours, bare) = runs[2];
            ratio("approved to PATCH, p99 of 100 at once, to a bare client", ours, bare, "<= 1");
        }
        if on_disk("fleet") {
            let (took, bound) = engine::fleet().await;
            let hold = if slow { "<= 1.15" } else { "<= 1.05" };
            ratio("1,000 rotations, 64 at a time, 50 ms Atlas, to the bound", took, bound, hold);
        }
        if asked("sweep") {
            let sweeps = engine::sweeps(&[1_000, 10_000, 100_000]).await;
            ratio("sweep, 100 due among 10,000 projects, to 1,000", sweeps[1], sweeps[0], "<= 1.5");
            ratio("sweep, 100 due among 100,000 projects, to 1,000", sweeps[2], sweeps[0], "<= 1.5");
        }
        if asked("growth") {
            #[expect(clippy::cast_precision_loss, reason = "some kilobytes")]
            let grown = Box::pin(engine::growth()).await as f64 / 1024.0;
            row("database growth per project and year", &format!("{grown:.1} KiB"), "<= 100 KiB");
        }
        if on_disk("flood") {
            flood::figures().await;
        }
        if asked("hooks") {
            hooks::figures().await;
        }
        if asked("pages") {
            pages::figures().await;
        }
        if asked("watch") {
            watch::figures().await;
        }
    });
    let wanted = std::env::var("KEYWHEEL_FIGURE").unwrap_or_default();
    let on_disk = ["", "patch", "fleet", "flood"].contains(&wanted.as_str());
    if on_disk && std::env::var_os(SLOW).is_none() {
        with_slow_flushes();
    }
}

fn ratio(figure: &str, ours: Duration, theirs: Duration, hold: &str) {
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    let ms = |it: Duration| format!("{:.0} ms", it.as_secs_f64() * 1000.0);
    row(figure, &format!("{ratio:.2}"), &format!("{hold}  ({} to {})", ms(ours), ms(theirs)));
}

fn row(figure: &str, measured: &str, hold: &str) {
    println!("{figure:<58} {measured:>12}  {hold}");
    std::io::stdout().flush().unwrap();
}

fn group(number: usize) -> String {
    format!("{:024x}", 0x0065_bb00_0000_usize + number)
}

fn project(number: usize, now: Timestamp) -> Project {
    let key = KeyRef::parse(Provider::Aws, &format!("{number:08x}-aaaa-4aaa-8aaa-000000000001")).unwrap();
    Project {
        group_id: group(number).parse().unwrap(),
        name: format!("project-{number}"),
        provider: Some(Provider::Aws),
        current_key: Some(key),
        place: Place::default(),
        key_since: Some(now - Duration::from_secs(86_400 * (number as u64 % 90))),
        key_since_source: Some(SinceSource::Operator),
        valid: Some(true),
        private_networking: false,
        owners: vec![format!("owner-{}@example.com", number % 50)],
        environment: Some("prod".to_owned()),
        credential: "default".to_owned(),
        kms: None,
        alias: None,
        policy: None,
        drift_key: None,
        last_checked_at: Some(now),
        last_error: None,
        next_check_at: if number < DUE { now } else { now + Duration::from_secs(3600) },
        next_reminder_at: Some(now + Duration::from_secs(3600)),
        created_at: now,
        open_rotation: None,
        holding: Vec::new(),
        silence: None,
        due_ack: None,
        key_ends_at: None,
        version: 1,
    }
}

/// What Atlas knows of the first `count` projects.
fn world(count: usize) -> World {
    let mut world = World::demo();
    let model = world.projects.values().next().unwrap().clone();
    for number in 0..count {
        let mut twin = model.clone();
        let key = format!("{number:08x}-aaaa-4aaa-8aaa-000000000001");
        world.keys.insert(key.clone(), KeyState::Enabled);
        twin.block.insert("customerMasterKeyID".to_owned(), key.into());
        world.projects.insert(group(number), twin);
    }
    world
}

/// The release binary with a database of its own, against a simulator in this process.
struct House {
    daemon: Daemon,
    sim: Sim,
    folder: tempfile::TempDir,
    port: u16,
    /// How long it took to serve.
    serving: Duration,
}

impl House {
    /// Starts it on `count` projects and with `more` settings; returns once it is ready.
    async fn start(count: usize, world: World, more: &str) -> Self {
        Self::begin(count, world, more, false).await
    }

    /// The same, with Atlas behind TLS.
    async fn start_over_tls(count: usize, world: World) -> Self {
        Self::begin(count, world, "", true).await
    }

    async fn begin(count: usize, world: World, more: &str, tls: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let now = SystemClock.now();
        let store =
            Store::open(&format!("sqlite:{}", path.join("kw.db").display()), Path::new(""), Access::Beside)
                .await
                .unwrap();
        store.migrate().await.unwrap();
        let key = InstallationKey::random().unwrap();
        key.create(&path.join("installation.key")).unwrap();
        unlock(&store, &key).await;
        for number in 0..count {
            store.insert_project(&project(number, now), &[], now).await.unwrap();
        }
        let mark = present_mark(&store).await.unwrap().unwrap();
        write_mark(&path.join("epoch"), &mark).unwrap();
        store.close().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sim = Sim::start(listener, world, Arc::new(SystemClock)).unwrap();
        let base_url = if tls {
            watch::tls(sim.base_url().trim_start_matches("http://").parse().unwrap(), path).await
        } else {
            sim.base_url()
        };
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "data_dir = \"{}\"\n[server]\nlisten = \"127.0.0.1:{port}\"\n[database]\nurl = \"sqlite:kw.db\"\n\
             [atlas]\nbase_url = \"{}\"\n[atlas.credentials.default]\nkind = \"service-account\"\n\
             client_id = \"mdb_sa_id_demo\"\nclient_secret = \"mdb_sa_sk_demo\"\n[log]\nlevel = \"warn\"\n{more}",
            path.display(),
            base_url,
        );
        let file = path.join("keywheel.toml");
        std::fs::write(&file, config).unwrap();
        // It holds secrets, and others may not read it.
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let started = Instant::now();
        let authority = path.join(watch::AUTHORITY);
        let mut command = binary(path, &["serve"]);
        if tls {
            command.env("SSL_CERT_FILE", authority);
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let daemon = Daemon(child);
        let mut serving = None;
        let limit = Instant::now() + Duration::from_secs(120);
        while !answers(port, "/readyz").await {
            assert!(Instant::now() < limit, "the daemon did not become ready");
            if serving.is_none() && answers(port, "/healthz").await {
                serving = Some(started.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let serving = serving.unwrap_or_else(|| started.elapsed());
        Self { daemon, sim, folder, port, serving }
    }

    /// Resident memory in MiB, as Linux counts it.
    fn resident(&self) -> f64 {
        self.mebibytes("VmRSS:")
    }

    /// A line of the process's status that counts memory, in MiB.
    fn mebibytes(&self, name: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.daemon.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024.0
    }

    async fn end(self) {
        drop(self.daemon);
        self.sim.shutdown().await;
    }
}

/// Gives a fresh database its key.
async fn unlock(store: &Store, key: &InstallationKey) {
    store.unlock(key, true, SystemClock.now()).await.unwrap();
    store.follow_seals().await.unwrap();
}

/// The release binary with the configuration in `folder`.
fn binary(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keywheel"));
    command.args(args).arg("--config").arg(folder.join("keywheel.toml")).stdin(Stdio::null());
    command
}

/// Whether `path` answers with 200.
async fn answers(port: u16, path: &str) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await else { return false };
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut reply = String::new();
    stream.write_all(request.as_bytes()).await.is_ok()
        && stream.read_to_string(&mut reply).await.is_ok()
        && reply.starts_with("HTTP/1.1 200")
}

/// The smallest of `all` that so many of a hundred do not exceed.
fn percentile(of_hundred: usize, mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[(all.len() * of_hundred).div_ceil(100) - 1]
}
