//! Hooks of the real program over loopback: what they take in and how fast they answer, what strangers
//! cost meanwhile, and how long it is from an event to a proposal.
//!
//! Senders hold their connections open and send on a schedule: the time of an answer counts from when its
//! event was due, so that an event which had to wait for a connection is not measured as a quick one. All
//! of a sender's requests are signed before the clock starts. Sender, simulator and daemon share the machine.

use std::future::Future;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use keywheel::domain::time::{Clock, SystemClock};
use keywheel::sim::world::KeyState;
use keywheel::store::{Access, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{House, binary, group, percentile, row};

const SECRET: &str = "the-secret-of-atlas-for-the-figures";
const KEY: &[u8] = b"twenty-four-bytes-of-key";

/// Tracked projects that events are about.
const PROJECTS: usize = 100;
/// Connections of those who send.
const LINES: usize = 64;
/// Events in a second, as offered.
const RATE: u32 = 2000;
/// For how many seconds.
const OFFERED: u32 = 10;
/// Events as fast as they are answered.
const FLAT_OUT: usize = 30_000;
/// Runs of which the middle one counts.
const RUNS: usize = 5;

/// Those who keep the daemon busy and send nothing of use.
const STRANGERS: u32 = 10_000;
/// Of these, who send bodies.
const WITH_BODIES: u32 = 1000;
/// For how many seconds.
const PESTERED: u32 = 20;
/// A head just short of the longest that is read.
const LARGE: usize = 30 * 1024;
/// How soon a stranger who was shown out comes again.
const AGAIN: Duration = Duration::from_secs(5);
/// Events in a second of a good sender meanwhile.
const GOOD_RATE: u32 = 100;

/// All figures of the hooks.
pub(super) async fn figures() {
    disk();
    intake().await;
    for (what, stranger) in [
        ("slow heads", Stranger::SlowHead),
        ("slow heads of 30 KiB", Stranger::LargeHead),
        ("endless bodies", Stranger::EndlessBody),
        ("slow bodies", Stranger::SlowBody),
    ] {
        pestered(what, stranger).await;
    }
    proposals("in turn", 1).await;
    proposals("at once", u32::try_from(PROJECTS).unwrap()).await;
}

// --- who sends ---

/// A connection that is kept, and made anew when the other side closed it.
struct Line {
    port: u16,
    stream: Option<TcpStream>,
    bytes: Vec<u8>,
}

impl Line {
    fn new(port: u16) -> Self {
        Self { port, stream: None, bytes: Vec::new() }
    }

    /// Sends a request that is put together and gives the status and the body of its answer. A line that fails is
    /// closed.
    async fn call(&mut self, request: &[u8]) -> std::io::Result<(u16, Vec<u8>)> {
        let mut stream = if let Some(stream) = self.stream.take() {
            stream
        } else {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            stream.set_nodelay(true)?;
            stream
        };
        stream.write_all(request).await?;
        let answer = read_answer(&mut stream, &mut self.bytes).await?;
        self.stream = Some(stream);
        Ok(answer)
    }
}

async fn read_answer(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> std::io::Result<(u16, Vec<u8>)> {
    bytes.clear();
    loop {
        if stream.read_buf(bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |text| text.parse().unwrap());
        let mut body = bytes[end + 4..].to_vec();
        while body.len() < length {
            if stream.read_buf(&mut body).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        return Ok((status, body));
    }
}

/// Runs on a thread of its own, so that nobody's tasks here hold up a measurement.
async fn apart<F, T>(work: impl FnOnce() -> F + Send + 'static) -> T
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    let thread = tokio::task::spawn_blocking(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work())
    });
    thread.await.unwrap()
}

/// An alert of Atlas, signed. Each `number` is another event.
fn alert(number: usize) -> Vec<u8> {
    let body = serde_json::json!({
        "id": format!("{:024x}", 0x0066_f000_0000_usize + number),
        "groupId": group(number % PROJECTS),
        "orgId": "4888442a3354817a7320eb61",
        "alertConfigId": "57b76ddc96e8215c017ceafb",
        "eventTypeName": "AWS_ENCRYPTION_KEY_NEEDS_ROTATION",
        "status": "OPEN",
        "created": "2026-08-02T02:27:02Z",
        "updated": "2026-08-02T02:27:02Z",
        "humanReadable": "AWS encryption key elapsed time since last rotation is above 90 days. Project: payments-prod",
    });
    let body = body.to_string();
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET.as_bytes());
    let signature = STANDARD.encode(hmac::sign(&key, body.as_bytes()));
    post("atlas", &format!("x-mms-signature: {signature}\r\n"), &body)
}

/// Somebody's own event that names a new key for the project `number`, signed.
fn wish(number: usize) -> Vec<u8> {
    let body = serde_json::json!({
        "type": "io.keywheel.rotation.requested.v1",
        "timestamp": SystemClock.now(),
        "data": { "groupId": group(number), "newKey": key(number, 2) },
    });
    let (id, at, body) =
        (format!("msg_{number}"), SystemClock.now().as_micros() / 1_000_000, body.to_string());
    let signed = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), format!("{id}.{at}.{body}").as_bytes());
    let signature = STANDARD.encode(signed);
    let head =
        format!("webhook-id: {id}\r\nwebhook-timestamp: {at}\r\nwebhook-signature: v1,{signature}\r\n");
    post("own", &head, &body)
}

fn post(hook: &str, head: &str, body: &str) -> Vec<u8> {
    let kind = "content-type: application/json\r\n";
    let length = body.len();
    format!(
        "POST /hooks/{hook} HTTP/1.1\r\nhost: keywheel\r\n{kind}{head}content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn key(number: usize, version: usize) -> String {
    format!("{number:08x}-aaaa-4aaa-8aaa-{version:012x}")
}

async fn house() -> House {
    let mut world = super::world(PROJECTS);
    for number in 0..PROJECTS {
        for version in 1..3 {
            world.keys.insert(key(number, version), KeyState::Enabled);
        }
    }
    let own = STANDARD.encode(KEY);
    let hooks = format!(
        "[[hooks]]\nname = \"atlas\"\nkind = \"atlas\"\nsecret = \"{SECRET}\"\n\
         [[hooks]]\nname = \"own\"\nkind = \"standard\"\nsecret = \"whsec_{own}\"\n"
    );
    House::start(PROJECTS, world, &hooks).await
}

impl House {
    /// Events in the inbox, and those of them that were handled.
    async fn inbox(&self) -> (usize, usize) {
        let store = Store::open("sqlite:kw.db", self.folder.path(), Access::Beside).await.unwrap();
        let Store::Sqlite { read, .. } = &store else { unreachable!() };
        let count = "SELECT COUNT(*), COUNT(handled_at) FROM inbox";
        let (all, handled): (i64, i64) = sqlx::query_as(count).fetch_one(read).await.unwrap();
        store.close().await;
        (usize::try_from(all).unwrap(), usize::try_from(handled).unwrap())
    }

    /// How long until every event was handled.
    async fn caught_up(&self) -> Duration {
        let started = Instant::now();
        loop {
            let (all, handled) = self.inbox().await;
            if all == handled {
                return started.elapsed();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The peak of resident memory counts from now on.
    fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.daemon.0.id()), "5").unwrap();
    }

    fn peak(&self) -> f64 {
        self.mebibytes("VmHWM:")
    }

    /// A token that may read.
    fn token(&self) -> String {
        let mut command =
            binary(self.folder.path(), &["token", "create", "--name", "reader", "--role", "viewer"]);
        let made = command.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }
}

// --- intake ---

/// What became of the events of one run.
#[derive(Default)]
struct Run {
    /// From when each was due to its last answer.
    took: Vec<Duration>,
    /// Answered with 202.
    accepted: usize,
    /// Told to come again, and not repeated here.
    put_off: usize,
    /// Lines that broke; what was on them is sent again at once.
    broken: usize,
    /// From the first event to the last answer.
    whole: Duration,
}

impl Run {
    fn add(&mut self, other: Run) {
        self.took.extend(other.took);
        self.accepted += other.accepted;
        self.put_off += other.put_off;
        self.broken += other.broken;
    }
}

/// Requests on their way, one each `pause` or, without one, each as soon as a line is free.
struct Schedule {
    requests: Vec<Vec<u8>>,
    pause: Duration,
    started: Instant,
    next: AtomicUsize,
}

impl Schedule {
    /// Sends over one line what is next, until nothing is left.
    async fn work(&self, port: u16) -> Run {
        let mut line = Line::new(port);
        let mut run = Run::default();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(request) = self.requests.get(number) else { return run };
            let mut due = Instant::now();
            if !self.pause.is_zero() {
                due = self.started + self.pause * u32::try_from(number).unwrap();
                tokio::time::sleep_until(due.into()).await;
            }
            let mut answer = line.call(request).await;
            while answer.is_err() && due.elapsed() < Duration::from_secs(30) {
                run.broken += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
                answer = line.call(request).await;
            }
            let status = answer.map_or(0, |(status, _)| status);
            run.accepted += usize::from(status == 202);
            run.put_off += usize::from(status == 503);
            run.took.push(due.elapsed());
        }
    }
}

/// Sends `requests`, one each `pause`, over so many lines.
async fn send(port: u16, lines: usize, requests: Vec<Vec<u8>>, pause: Duration) -> Run {
    apart(move || async move {
        let started = Instant::now();
        let all = Schedule { requests, pause, started, next: AtomicUsize::new(0) };
        let mut run = Run::default();
        join_all((0..lines).map(|_| all.work(port))).await.into_iter().for_each(|own| run.add(own));
        run.whole = started.elapsed();
        run
    })
    .await
}

/// Events as fast as they are answered, and then as they are offered, whether or not anybody keeps up.
async fn intake() {
    let (count, pause) = ((RATE * OFFERED) as usize, Duration::from_secs(1) / RATE);
    let (mut flat_out, mut offered) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let house = house().await;
        let fast = send(house.port, LINES, (0..FLAT_OUT).map(alert).collect(), Duration::ZERO).await;
        #[expect(clippy::cast_precision_loss, reason = "some thousand")]
        let rate = fast.accepted as f64 / fast.whole.as_secs_f64();
        flat_out.push((rate, percentile(99, fast.took), fast.accepted));
        // By now what grows once has grown, such as the database's cache.
        house.caught_up().await;
        let before = house.resident();
        house.forget_peak();
        let requests = (FLAT_OUT..FLAT_OUT + count).map(alert).collect();
        let run = send(house.port, LINES, requests, pause).await;
        let caught_up = house.caught_up().await;
        let memory = mebibytes(before, house.peak(), house.resident());
        let (stored, _) = house.inbox().await;
        assert!(stored >= fast.accepted + run.accepted, "what is answered with 202 is on disk");
        let accepted = format!("{} of {count} got 202, {stored} in the inbox", run.accepted);
        house.end().await;
        offered.push((
            percentile(99, run.took.clone()),
            percentile(50, run.took),
            accepted,
            caught_up,
            memory,
        ));
    }
    flat_out.sort_by(|(a, ..), (b, ..)| a.total_cmp(b));
    let all: Vec<_> = flat_out.iter().map(|(rate, ..)| format!("{rate:.0}")).collect();
    let (rate, p99, accepted) = flat_out[RUNS / 2];
    row(
        &format!("events/s as fast as {LINES} connections are answered"),
        &format!("{rate:.0}"),
        &format!(">= 2000  (p99 {}; runs {}; {accepted} of {FLAT_OUT} got 202)", millis(p99), all.join(", ")),
    );
    offered.sort_by_key(|(p99, ..)| *p99);
    let all: Vec<_> = offered.iter().map(|(p99, ..)| millis(*p99)).collect();
    let (p99, p50, accepted, caught_up, memory) = &offered[RUNS / 2];
    row(
        &format!("{RATE} events/s offered for {OFFERED} s, p99 of the answer"),
        &millis(*p99),
        &format!("<= 25 ms  (p50 {}; runs {}; {accepted})", millis(*p50), all.join(", ")),
    );
    row("memory before / peak / after these", memory, "flat");
    row("the last of these was followed after", &millis(*caught_up), "-");
}

/// Writes of a page into a file of their own, each synced: p50 and p99.
fn disk() {
    let mut file = tempfile::tempfile().unwrap();
    let took: Vec<_> = (0..1000)
        .map(|_| {
            let started = Instant::now();
            file.write_all(&[1; 4096]).unwrap();
            file.sync_data().unwrap();
            started.elapsed()
        })
        .collect();
    let text = format!("{} / {}", millis(percentile(50, took.clone())), millis(percentile(99, took)));
    row("one synced write on this disk, p50 / p99", &text, "-");
}

// --- strangers ---

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stranger {
    /// A line of a head each second, without end.
    SlowHead,
    /// The same, after a first line as long as a head may be.
    LargeHead,
    /// A body without a length, as fast as it is taken.
    EndlessBody,
    /// A body without a length, a byte each second.
    SlowBody,
}

impl Stranger {
    /// What is sent first, what then, and how long in between.
    fn says(self) -> (String, String, Duration) {
        let head = "POST /hooks/atlas HTTP/1.1\r\nhost: keywheel\r\n";
        let chunked = format!("{head}x-mms-signature: AAAA\r\ntransfer-encoding: chunked\r\n\r\n");
        let second = Duration::from_secs(1);
        match self {
            Stranger::SlowHead => (head.to_owned(), "x-slow: slow\r\n".to_owned(), second),
            Stranger::LargeHead => {
                (format!("{head}x-large: {}\r\n", "x".repeat(LARGE)), "x-slow: slow\r\n".to_owned(), second)
            }
            Stranger::EndlessBody => {
                (chunked, format!("{:x}\r\n{}\r\n", 65536, "x".repeat(65536)), Duration::ZERO)
            }
            Stranger::SlowBody => (chunked, "1\r\nx\r\n".to_owned(), second),
        }
    }

    /// Talks until the other side has enough.
    async fn pester(port: u16, (first, then, pause): &(String, String, Duration)) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let (mut reading, mut writing) = stream.split();
        let talking = async {
            writing.write_all(first.as_bytes()).await?;
            loop {
                tokio::time::sleep(*pause).await;
                writing.write_all(then.as_bytes()).await?;
            }
        };
        let mut answer = [0; 1024];
        let listening = async {
            while reading.read(&mut answer).await? > 0 {}
            Ok(())
        };
        tokio::select! {
            end = talking => end,
            end = listening => end,
        }
    }
}

/// As many as wanted, or as this process may open beside everything else.
fn strangers(wanted: u32) -> u32 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let most: u32 = files.split_whitespace().nth(3).unwrap().parse().unwrap_or(u32::MAX);
    wanted.min(most.saturating_sub(300))
}

/// What strangers cost, and how a good sender fares among them.
async fn pestered(what: &str, stranger: Stranger) {
    let house = house().await;
    let port = house.port;
    let count = strangers(if stranger == Stranger::EndlessBody { WITH_BODIES } else { STRANGERS });
    let before = house.resident();
    house.forget_peak();
    let says = Arc::new(stranger.says());
    let open = Arc::new(AtomicUsize::new(0));
    let pestering: Vec<_> = (0..count)
        .map(|number| {
            let (says, open) = (Arc::clone(&says), Arc::clone(&open));
            tokio::spawn(async move {
                // All of them within a second, and then again and again.
                tokio::time::sleep(Duration::from_secs(1) * number / count).await;
                loop {
                    open.fetch_add(1, Ordering::Relaxed);
                    let _ = Stranger::pester(port, &says).await;
                    tokio::time::sleep(AGAIN).await;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let requests = (0..GOOD_RATE * PESTERED).map(|number| alert(number as usize)).collect();
    let good = send(port, 8, requests, Duration::from_secs(1) / GOOD_RATE).await;
    let peak = house.peak();
    for one in pestering {
        one.abort();
    }
    // Longer than anything may take that they began.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let after = house.resident();
    house.end().await;
    let came = open.load(Ordering::Relaxed);
    row(
        &format!("memory before / peak / after {count} {what}"),
        &mebibytes(before, peak, after),
        &format!("-  ({came} connections in all)"),
    );
    let sent = good.took.len();
    row(
        &format!("p99 of a good sender among {count} {what}"),
        &millis(percentile(99, good.took.clone())),
        &format!(
            "-  (p50 {}, longest {}; {} of {sent} got 202, {} told to come again, {} lines broken)",
            millis(percentile(50, good.took.clone())),
            millis(percentile(100, good.took)),
            good.accepted,
            good.put_off,
            good.broken,
        ),
    );
}

// --- from an event to its proposal ---

/// Events that name a new key, each for another project, so many at a time: from sending one to the answer of the
/// API that shows what was proposed.
async fn proposals(words: &str, at_once: u32) {
    let house = house().await;
    let (port, token) = (house.port, house.token());
    // A query that never stops would slow down what it waits for.
    let look_every = Duration::from_millis(1) * at_once;
    let took = apart(move || async move {
        let next = AtomicUsize::new(0);
        let lane = async || {
            let mut line = Line::new(port);
            let mut took = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= PROJECTS {
                    return took;
                }
                let (event, look) = (wish(number), look(number, &token));
                let started = Instant::now();
                assert_eq!(line.call(&event).await.unwrap().0, 202);
                while !is_proposed(&line.call(&look).await.unwrap()) {
                    assert!(started.elapsed() < Duration::from_secs(60), "nothing is proposed");
                    tokio::time::sleep(look_every).await;
                }
                took.push(started.elapsed());
            }
        };
        join_all((0..at_once).map(|_| lane())).await.concat()
    })
    .await;
    house.end().await;
    row(
        &format!("event to its proposal in the API, {PROJECTS} {words}, p50 / p99"),
        &format!("{} / {}", millis(percentile(50, took.clone())), millis(percentile(99, took))),
        "-",
    );
}

/// Asks the API for the rotations of the project `number`.
fn look(number: usize, token: &str) -> Vec<u8> {
    let path = format!("/api/v1/rotations?groupId={}", group(number));
    format!("GET {path} HTTP/1.1\r\nhost: keywheel\r\nauthorization: Bearer {token}\r\n\r\n").into_bytes()
}

fn is_proposed((status, body): &(u16, Vec<u8>)) -> bool {
    assert_eq!(*status, 200, "{}", String::from_utf8_lossy(body));
    let page: serde_json::Value = serde_json::from_slice(body).unwrap();
    page["items"].as_array().is_some_and(|items| !items.is_empty())
}

fn millis(it: Duration) -> String {
    let ms = it.as_secs_f64() * 1000.0;
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

fn mebibytes(before: f64, peak: f64, after: f64) -> String {
    format!("{before:.1} / {peak:.1} / {after:.1} MiB")
}
