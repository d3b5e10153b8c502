//! Limits: what strangers may cost the real program, and that those who may speak still get through.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{alert, atlas_signature};
use crate::support::daemon::{Daemon, answer, only_for_us, serve};
use crate::support::wait::{LIMIT, eventually};
use keywheel::store::{Access, Store};

const SECRET: &str = "the-present-secret-of-atlas";

/// A daemon with a hook.
async fn daemon() -> Daemon {
    let mut it = Daemon::start().await;
    it.child.kill().unwrap();
    it.child.wait().unwrap();
    let file = it.folder.path().join("keywheel.toml");
    let mut config = OpenOptions::new().append(true).open(&file).unwrap();
    writeln!(config, "[[hooks]]\nname = \"atlas\"\nkind = \"atlas\"\nsecret = {SECRET:?}").unwrap();
    only_for_us(&file);
    (it.child, it.base, it.log) = serve(it.folder.path());
    it
}

impl Daemon {
    async fn deliver(&self, secret: &str, updated: &str) -> u16 {
        let body = alert("AWS_ENCRYPTION_KEY_NEEDS_ROTATION", "OPEN", updated).to_string();
        let signature = atlas_signature(secret, body.as_bytes());
        answer(self.request("POST", "/hooks/atlas", "").header("x-mms-signature", signature).body(body))
            .await
            .status
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.base.strip_prefix("http://").unwrap()).await.unwrap()
    }
}

/// Everything that comes until the other side closes.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let read = tokio::time::timeout(LIMIT, stream.read_to_end(&mut text)).await.expect("it is kept open");
    // A reset is an end too.
    let _ = read;
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_has_a_size_and_a_time() {
    let it = daemon().await;
    let large = "x".repeat(1_100_001);
    let told = answer(it.request("POST", "/hooks/atlas", "").body(large.clone())).await;
    assert_eq!(told.problem(413), "too-large");
    // Announced and never sent.
    let mut stream = it.connect().await;
    stream
        .write_all(b"POST /hooks/atlas HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n")
        .await
        .unwrap();
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 413"));
    // Without a length, on and on.
    let mut stream = it.connect().await;
    stream
        .write_all(b"POST /hooks/atlas HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let (mut reading, mut writing) = stream.split();
    let chunk = format!("{:x}\r\n{}\r\n", 65536, "x".repeat(65536));
    let endless = async { while writing.write_all(chunk.as_bytes()).await.is_ok() {} };
    let mut text = Vec::new();
    let ends = async {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = reading.read(&mut buffer).await {
            text.extend_from_slice(&buffer[..count]);
        }
    };
    tokio::time::timeout(LIMIT, async { tokio::join!(endless, ends) }).await.expect("it takes everything");
    assert!(String::from_utf8_lossy(&text).starts_with("HTTP/1.1 413"), "{}", String::from_utf8_lossy(&text));
    // One byte, and then silence.
    let mut stream = it.connect().await;
    stream.write_all(b"POST /hooks/atlas HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{").await.unwrap();
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 408"));
    // A body that ends too early.
    let mut stream = it.connect().await;
    stream
        .write_all(b"POST /hooks/atlas HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
        .await
        .unwrap();
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 400"));
    assert_eq!(it.deliver(SECRET, "after").await, 202);
    let ada = it.token("ada", "viewer");
    let hooks = it.get(&ada, "/hooks").await.json;
    let refused = &hooks["items"][0]["refused"];
    assert_eq!(
        (&refused["too-large"], &refused["too-slow"], &refused["malformed"]),
        (&3.into(), &1.into(), &1.into()),
        "{hooks}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_make_room_for_those_who_speak() {
    let it = daemon().await;
    let mut silent = Vec::new();
    for _ in 0..2000 {
        let mut stream = it.connect().await;
        // Some say nothing, some begin and never end.
        let _ = stream.write_all(b"POST /hooks/atlas HTTP/1.1\r\nx-slow: ").await;
        silent.push(stream);
    }
    assert_eq!(it.deliver(SECRET, "between").await, 202);
    let ada = it.token("ada", "viewer");
    assert_eq!(it.get(&ada, "/status").await.status, 200);
    // The first had to go, and in the end all of them do.
    assert_eq!(read_to_end(&mut silent[0]).await, "");
    let last = silent.last_mut().unwrap();
    read_to_end(last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies_make_room_and_a_line_in_use_is_kept() {
    let it = daemon().await;
    let mut line = it.connect().await;
    let mut slow = Vec::new();
    for number in 0..2500 {
        let mut stream = it.connect().await;
        let begun = "POST /hooks/atlas HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n";
        let _ = stream.write_all(begun.as_bytes()).await;
        slow.push(stream);
        if number % 100 == 0 {
            line.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut answer = [0; 1024];
            let read = line.read(&mut answer).await.unwrap();
            assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "after {number}: {read} bytes");
        }
    }
    assert_eq!(it.deliver(SECRET, "between").await, 202);
    // It was silent for longest.
    assert_eq!(read_to_end(&mut slow[0]).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_head_is_refused() {
    let it = daemon().await;
    let mut stream = it.connect().await;
    stream.write_all(b"POST /hooks/atlas HTTP/1.1\r\n").await.unwrap();
    let line = format!("x-more: {}\r\n", "x".repeat(1000));
    while stream.write_all(line.as_bytes()).await.is_ok() {}
    assert_eq!(it.deliver(SECRET, "after").await, 202);
    for (method, path, status) in [
        ("POST", "/hooks/nobody", 404),
        ("GET", "/hooks/atlas", 405),
        ("OPTIONS", "/hooks/atlas", 405),
        ("POST", "/hooks/", 404),
    ] {
        assert_eq!(answer(it.request(method, path, "")).await.status, status, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guesser_is_slowed_down_and_the_sender_is_not() {
    let it = daemon().await;
    let mut slowed = 0;
    for guess in 0..200 {
        slowed += usize::from(it.deliver(&format!("guess-{guess}"), "x").await == 429);
    }
    assert!(slowed > 50, "{slowed} of 200 were told to slow down");
    // One that is slowed down learns nothing: the right secret is not compared either.
    while it.deliver("guess", "x").await != 429 {}
    assert_eq!(it.deliver(SECRET, "x").await, 429);
    let elsewhere = |path: &str, body: String| {
        let client = reqwest::Client::builder()
            .no_proxy()
            .local_address("127.0.0.2".parse::<std::net::IpAddr>().unwrap());
        client.build().unwrap().post(format!("{}{path}", it.base)).body(body)
    };
    let body = alert("AWS_ENCRYPTION_KEY_NEEDS_ROTATION", "OPEN", "x").to_string();
    let signature = atlas_signature(SECRET, body.as_bytes());
    let right = elsewhere("/hooks/atlas", body.clone()).header("x-mms-signature", &signature);
    assert_eq!(answer(right).await.status, 202);
    // Nobody becomes somebody else by a header.
    let named = it.request("POST", "/hooks/atlas", "").header("x-forwarded-for", "127.0.0.3");
    assert_eq!(answer(named.header("x-mms-signature", &signature).body(body)).await.status, 429);
    let warned = it.log.lock().unwrap().matches("a delivery was refused").count();
    assert!(warned <= 60, "{warned} lines");
    assert!(it.log.lock().unwrap().contains("sender=127.0.0.1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_secret_stops_its_hook_and_nothing_else() {
    let mut it = daemon().await;
    let ada = it.token("ada", "viewer");
    let more = [
        ("short", "kind = \"atlas\"\nsecret = \"fifteen-letters\"", "secret"),
        (
            "bus",
            "kind = \"aws-eventbridge\"\nbasic = { user = \"bus\", password = \"short\" }",
            "basic.password",
        ),
        (
            "ci",
            "kind = \"cloudevents\"\ntoken = \"long-enough-to-be-safe\"\nprevious_token = \"short\"",
            "token",
        ),
    ];
    let hooks: Vec<_> =
        more.iter().map(|(name, text, _)| format!("[[hooks]]\nname = {name:?}\n{text}\n")).collect();
    it.restart_with(|text| format!("{text}\n{}", hooks.concat()));
    let checked = it.cli(&["config", "check"]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    let doctor = it.cli(&["doctor"]);
    let listed = it.get(&ada, "/hooks").await.json;
    for (name, _, setting) in more {
        let told = format!("hooks.{name}.{setting}, or the previous one, has fewer than 16 characters");
        assert!(checked.err.contains(&told) && checked.err.contains("openssl rand -hex 32"), "{checked:?}");
        assert!(doctor.out.contains(&told), "{doctor:?}");
        assert!(it.log.lock().unwrap().contains(&told), "{}", it.log.lock().unwrap());
        let refused = answer(it.request("POST", &format!("/hooks/{name}"), "").body("{}")).await;
        assert_eq!(refused.problem(503), "unavailable");
        assert!(refused.headers.contains_key("retry-after"));
        let items = listed["items"].as_array().unwrap();
        let shown = items.iter().find(|item| item["name"] == name).unwrap();
        assert!(shown["stopped"].as_str().unwrap().starts_with(&told), "{shown}");
    }
    let whole = format!("{checked:?}{doctor:?}{listed}{}", it.log.lock().unwrap());
    assert!(!whole.contains("fifteen-letters"));
    assert_eq!(it.deliver(SECRET, "1").await, 202, "the others go on");
    it.rewrite(|text| text.replace("fifteen-letters", "sixteen--letters"));
    let pid = it.child.id().to_string();
    std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap();
    let goes = async || {
        let answered = answer(it.request("POST", "/hooks/short", "").body("{}")).await;
        (answered.status == 401).then_some(())
    };
    assert!(eventually(LIMIT, goes).await.is_some(), "a longer secret starts it again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hooks_secret_changes_without_a_restart() {
    let it = daemon().await;
    let ada = it.token("ada", "viewer");
    assert_eq!(it.deliver(SECRET, "1").await, 202);
    let file = it.folder.path().join("keywheel.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    let rotated = format!("secret = \"the-next-secret-of-atlas\"\nprevious_secret = {SECRET:?}");
    std::fs::write(&file, config.replace(&format!("secret = {SECRET:?}"), &rotated)).unwrap();
    let pid = i32::try_from(it.child.id()).unwrap();
    std::process::Command::new("kill").args(["-HUP", &pid.to_string()]).status().unwrap();
    let read_again = || it.log.lock().unwrap().contains("the configuration was reloaded");
    let heard = eventually(LIMIT, async || read_again().then_some(()));
    assert!(heard.await.is_some(), "{}", it.log.lock().unwrap());
    assert_eq!(it.deliver("the-next-secret-of-atlas", "2").await, 202);
    assert_eq!(it.deliver(SECRET, "3").await, 202);
    assert_eq!(it.deliver("another", "4").await, 401);
    let hooks = it.get(&ada, "/hooks").await.json;
    assert_eq!(
        (&hooks["items"][0]["accepted"], &hooks["items"][0]["refused"]["wrong-signature"]),
        (&3.into(), &1.into()),
        "{hooks}"
    );
    let log = it.log.lock().unwrap().clone();
    assert!(!log.contains("secret-of-atlas"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_instant_it_has_what_it_said_to_have() {
    let mut it = daemon().await;
    let mut promised = 0;
    for round in 0..8u64 {
        let (asked, mut told) = tokio::sync::mpsc::unbounded_channel();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let senders: Vec<_> = (0..8)
            .map(|sender| {
                let (http, base, asked) = (http.clone(), it.base.clone(), asked.clone());
                crate::support::wait::spawn(async move {
                    for number in 0.. {
                        let updated = format!("{round}-{sender}-{number}");
                        let body = alert("AWS_ENCRYPTION_KEY_NEEDS_ROTATION", "OPEN", &updated).to_string();
                        let signature = atlas_signature(SECRET, body.as_bytes());
                        let request =
                            http.post(format!("{base}/hooks/atlas")).header("x-mms-signature", signature);
                        // Until the connection breaks, because the other side is gone.
                        let Ok(reply) = request.body(body).send().await else { return };
                        if reply.status() == 202 {
                            asked.send(updated).unwrap();
                        }
                    }
                })
            })
            .collect();
        drop(asked);
        let mut taken = Vec::new();
        // In the middle of it, at another point each time.
        for _ in 0..40 + 37 * round {
            taken.push(told.recv().await.expect("the senders end before the kill"));
        }
        it.child.kill().unwrap();
        it.child.wait().unwrap();
        for sender in senders {
            sender.await.unwrap();
        }
        while let Some(updated) = told.recv().await {
            taken.push(updated);
        }
        let file = format!("sqlite:{}", it.folder.path().join("data/keywheel.db").display());
        let store = Store::open(&file, Path::new(""), Access::Beside).await.unwrap();
        for updated in &taken {
            let id = format!("66f0a1b2c3d4e5f60718293a/OPEN/{updated}");
            assert!(
                store.event_outcome("atlas", &id).await.unwrap().is_some(),
                "{updated} was taken and is lost"
            );
        }
        store.close().await;
        promised += taken.len();
        (it.child, it.base, it.log) = serve(it.folder.path());
    }
    assert!(promised > 8 * 40, "{promised}");
}
