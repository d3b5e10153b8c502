//! How much later a PATCH and a roll-back leave while strangers send without a pause: 300 connections ask
//! `/readyz`, and then as many ask the probes, try tokens and secrets of a hook, and send it genuine events.

use std::time::Duration;

use futures_util::future::join_all;
use keywheel::domain::time::{Clock, SystemClock, Timestamp};
use keywheel::sim::world::KeyState;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::{House, binary, group, row, world};

/// Connections that send without a pause.
const CROWD: usize = 300;

/// Rotations with and without the crowd.
const ROUNDS: usize = 5;

/// Waits that a measurement can bear. The second reading rolls back; two that are further apart than twice
/// their cadence would begin anew.
const QUICK: &str = "[verify]\nevery = \"1s\"\nfalse_grace = \"200ms\"\ntimeout = \"20s\"\nguard = \"30s\"\n\
    private_network_hold = \"31s\"\n[pace]\nbackoff_min = \"50ms\"\nbackoff_max = \"300ms\"\nsettle = \"400ms\"\n";

/// A hook that strangers know and whose secret they do not.
const HOOK: &str =
    "[[hooks]]\nname = \"flood\"\nkind = \"cloudevents\"\ntoken = \"the-token-of-the-flood\"\n";

/// A request that a connection repeats; `number` is never the same twice.
type Asked = fn(number: u64) -> String;

const READY: [Asked; 1] = [|_| get("/readyz", "")];

/// Each connection repeats one of these.
const ALL: [Asked; 5] = [
    |_| get("/readyz", ""),
    |_| get("/healthz", ""),
    |number| get("/api/v1/projects", &format!("authorization: Bearer kw_{number}\r\n")),
    |number| event(&format!("a-wrong-token-of-a-stranger-{number}"), number),
    |number| event(GENUINE, number),
];

/// The secret of the hook. Its sender has another address than the strangers, whom it would share a brake with.
const GENUINE: &str = "the-token-of-the-flood";

fn get(path: &str, head: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: keywheel\r\n{head}\r\n")
}

/// An event about a project that is not tracked.
fn event(token: &str, number: u64) -> String {
    let body = json!({
        "specversion": "1.0", "id": number.to_string(), "source": "flood", "type": "io.keywheel.rotation.requested.v1",
        "data": { "groupId": "f".repeat(24) },
    });
    let body = body.to_string();
    let length = body.len();
    format!(
        "POST /hooks/flood HTTP/1.1\r\nhost: keywheel\r\nauthorization: Bearer {token}\r\n\
         content-type: application/cloudevents+json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn key(number: usize, version: usize) -> String {
    format!("{number:08x}-aaaa-4aaa-8aaa-{version:012x}")
}

/// Prints the delays of both floods.
pub(super) async fn figures() {
    flood(&format!("/readyz asked by {CROWD} connections"), &READY).await;
    flood(&format!("probes, wrong tokens and hooks asked by {CROWD} connections"), &ALL).await;
}

/// Prints both delays, the worst of the rounds under the crowd less the worst without it.
async fn flood(name: &str, asked: &'static [Asked]) {
    let mut world = world(2 * ROUNDS);
    for number in 0..2 * ROUNDS {
        for version in [1, 2] {
            world.keys.insert(key(number, version), KeyState::Enabled);
        }
    }
    let house = House::start(2 * ROUNDS, world, &format!("{QUICK}{HOOK}")).await;
    let people = People::new(&house);
    let (mut quiet, mut crowded) = ([Duration::ZERO; 2], [Duration::ZERO; 2]);
    for number in 0..ROUNDS {
        keep_worst(&mut quiet, people.rotate(&house, number).await);
    }
    let stop = CancellationToken::new();
    let one = |at: usize| ask(house.port, at, asked[at % asked.len()], stop.clone());
    let crowd = tokio::spawn(join_all((0..CROWD).map(one)));
    tokio::time::sleep(Duration::from_millis(500)).await;
    for number in ROUNDS..2 * ROUNDS {
        keep_worst(&mut crowded, people.rotate(&house, number).await);
    }
    stop.cancel();
    let answers: u64 = crowd.await.unwrap().into_iter().sum();
    house.end().await;
    for (which, what) in ["PATCH", "roll-back"].into_iter().enumerate() {
        let later = crowded[which].saturating_sub(quiet[which]);
        let text = format!("{} ms", later.as_millis());
        let hold = format!(
            "< 1000 ms  ({} to {} ms; {answers} answers)",
            crowded[which].as_millis(),
            quiet[which].as_millis()
        );
        row(&format!("{name}: {what} later by"), &text, &hold);
    }
}

fn keep_worst(worst: &mut [Duration; 2], took: [Duration; 2]) {
    for (worst, took) in worst.iter_mut().zip(took) {
        *worst = took.max(*worst);
    }
}

/// Asks again as soon as it is answered; says how often that was.
async fn ask(port: u16, at: usize, asked: Asked, stop: CancellationToken) -> u64 {
    let mut answers = 0;
    let mut bytes = [0; 4096];
    let genuine = asked(0).contains(GENUINE);
    while !stop.is_cancelled() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        if genuine {
            socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        }
        let Ok(mut stream) = socket.connect(([127, 0, 0, 1], port).into()).await else { continue };
        while !stop.is_cancelled() {
            let number = answers * CROWD as u64 + at as u64;
            let sent = stream.write_all(asked(number).as_bytes()).await;
            // Closed connections are made anew.
            match (sent, stream.read(&mut bytes).await) {
                (Ok(()), Ok(1..)) => answers += 1,
                _ => break,
            }
        }
    }
    answers
}

/// A new token.
pub(super) fn token(house: &House, name: &str, role: &str) -> String {
    let mut command = binary(house.folder.path(), &["token", "create", "--name", name, "--role", role]);
    let made = command.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

/// Somebody who proposes and somebody who approves.
pub(super) struct People {
    http: reqwest::Client,
    pub(super) proposer: String,
    pub(super) approver: String,
}

impl People {
    pub(super) fn new(house: &House) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
        Self { http, proposer: token(house, "ada", "operator"), approver: token(house, "grace", "approver") }
    }

    pub(super) async fn post(&self, house: &House, token: &str, path: &str, body: Value) -> Value {
        let url = format!("http://127.0.0.1:{}/api/v1{path}", house.port);
        let answer = self.http.post(url).bearer_auth(token).json(&body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{status}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// One rotation: from its approval to the PATCH, and from a key that went bad to the roll-back.
    async fn rotate(&self, house: &House, number: usize) -> [Duration; 2] {
        let proposed = format!("/projects/{}/rotations", group(number));
        let made = self.post(house, &self.proposer, &proposed, json!({ "newKey": key(number, 2) })).await;
        let approve = format!("/rotations/{}/approve", made["id"].as_str().unwrap());
        let approved = SystemClock.now();
        self.post(house, &self.approver, &approve, json!({})).await;
        let sent = patch(house, number, 1).await;
        let broken = SystemClock.now();
        house.sim.with(|world| world.keys.insert(key(number, 2), KeyState::Disabled));
        let back = patch(house, number, 2).await;
        [sent.since(approved), back.since(broken)]
    }
}

/// When Atlas received the `nth` PATCH of a project.
async fn patch(house: &House, number: usize, nth: usize) -> Timestamp {
    let limit = SystemClock.now() + Duration::from_secs(120);
    loop {
        let log = house.sim.log().into_iter();
        let own = |it: &keywheel::sim::world::LogEntry| {
            it.operation == "patch_ear" && it.group_id.as_deref() == Some(&*group(number))
        };
        if let Some(it) = log.filter(own).nth(nth - 1) {
            return it.at;
        }
        assert!(SystemClock.now() < limit, "PATCH {nth} of {number} did not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
