//! How long each page takes, and how large it is, with 10,000 projects of which a fleet rotates; and the memory that 200
//! open pages hold.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;
use keywheel::sim::world::KeyState;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::flood::People;
use super::{House, group, percentile, row, world};

/// Tracked projects.
const PROJECTS: usize = 10_000;

/// Rotations that are under way at any time.
const FLEET: usize = 64;

/// How often each page is asked for.
const ASKED: usize = 200;

/// Open pages that are kept up to date, and how many of them one session may have.
const STREAMS: usize = 200;
const OF_A_SESSION: usize = 4;

/// How often somebody may sign in within a minute.
const SIGN_INS: usize = 10;

/// Rotations verify for as long as the measurement lasts, and each reads every few seconds.
const SLOW: &str = "[verify]\nevery = \"5s\"\nreadings = 30\n";

fn key(number: usize, version: usize) -> String {
    format!("{number:08x}-aaaa-4aaa-8aaa-{version:012x}")
}

/// Somebody who is signed in.
struct Browser {
    http: reqwest::Client,
    base: String,
    cookie: String,
}

impl Browser {
    async fn signed_in(token: &str, house: &House) -> Self {
        let base = format!("http://127.0.0.1:{}", house.port);
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(60))
            .build()
            .unwrap();
        let token = percent_encoding::utf8_percent_encode(token, percent_encoding::NON_ALPHANUMERIC);
        let form = http
            .post(format!("{base}/login"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("token={token}&to=%2F"));
        let answer = form.send().await.unwrap();
        assert_eq!(answer.status(), 303, "{}", answer.text().await.unwrap());
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        Self { http, base, cookie }
    }

    async fn open(&self, path: &str) -> reqwest::Response {
        let page = self.http.get(format!("{}{path}", self.base)).header("cookie", &self.cookie);
        let answer = page.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer
    }

    /// How long a page takes, and its size.
    async fn timed(&self, path: &str) -> (Duration, usize) {
        let asked = Instant::now();
        let text = self.open(path).await.bytes().await.unwrap();
        (asked.elapsed(), text.len())
    }
}

/// A rotation of a project that waits for approvals.
async fn proposed(people: &People, house: &House, number: usize) -> String {
    let path = format!("/projects/{}/rotations", group(number));
    let made: Value = people.post(house, &people.proposer, &path, json!({ "newKey": key(number, 2) })).await;
    made["id"].as_str().unwrap().to_owned()
}

/// One that is approved and runs.
async fn begun(people: &People, house: &House, number: usize) -> String {
    let id = proposed(people, house, number).await;
    people.post(house, &people.approver, &format!("/rotations/{id}/approve"), json!({})).await;
    id
}

/// Prints the p99 and the size of each page, and the memory of open ones.
pub(super) async fn figures() {
    let mut world = world(PROJECTS);
    for number in 0..PROJECTS {
        world.keys.insert(key(number, 2), KeyState::Enabled);
    }
    let house = Arc::new(House::start(PROJECTS, world, SLOW).await);
    let people = Arc::new(People::new(&house));
    let begin = |number: usize| {
        let (people, house) = (Arc::clone(&people), Arc::clone(&house));
        async move { begun(&people, &house, number).await }
    };
    let fleet: Vec<String> = stream::iter(0..FLEET).map(begin).buffered(8).collect().await;
    let stop = CancellationToken::new();
    let more = {
        let (stop, people, house) = (stop.clone(), Arc::clone(&people), Arc::clone(&house));
        tokio::spawn(async move {
            // Others are proposed and approved all the while.
            for number in FLEET.. {
                if stop.is_cancelled() {
                    break;
                }
                begun(&people, &house, number).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
    };
    let browser = Browser::signed_in(&people.approver, &house).await;
    let project = format!("/projects/{}", group(FLEET - 1));
    let rotation = format!("/rotations/{}", fleet[FLEET - 1]);
    let proposed = proposed(&people, &house, PROJECTS - 1).await;
    let approval = format!("/rotations/{proposed}");
    for (name, path) in [
        ("home", "/"),
        ("due", "/due"),
        ("due, every project", "/due?due=any"),
        ("project", &project),
        ("rotation under way", &rotation),
        ("approval", &approval),
        ("calendar", "/calendar"),
        ("audit", "/audit"),
        ("health", "/health"),
        ("settings", "/settings"),
        ("reviews", "/reviews"),
        ("you", "/you"),
    ] {
        let (mut took, mut size) = (Vec::new(), 0);
        for _ in 0..ASKED {
            let (time, bytes) = browser.timed(path).await;
            took.push(time);
            size = bytes;
        }
        let (median, p99) = (percentile(50, took.clone()), percentile(99, took));
        let ms = |it: Duration| format!("{:.1} ms", it.as_secs_f64() * 1000.0);
        let rest = format!("<= 50 ms  (median {}, {} KB)", ms(median), size.div_ceil(1000));
        row(&format!("page \"{name}\", {PROJECTS} projects, a fleet rotates, p99"), &ms(p99), &rest);
    }
    stop.cancel();
    more.await.unwrap();
    let before = house.resident();
    let (mut open, mut token) = (Vec::new(), String::new());
    for number in 0..STREAMS / OF_A_SESSION {
        if number % SIGN_INS == 0 {
            token = super::flood::token(&house, &format!("reader-{number}"), "viewer");
        }
        let other = Browser::signed_in(&token, &house).await;
        for _ in 0..OF_A_SESSION {
            open.push(other.open(&format!("{rotation}/stream?seen=0")).await);
        }
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    row(
        &format!("resident memory with {STREAMS} open pages that follow a rotation"),
        &format!("{:.1} MiB", house.resident()),
        &format!("<= 40 MiB  ({before:.1} MiB before)"),
    );
    drop(open);
}
