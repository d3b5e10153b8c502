//! The simulator, asked with requests written by hand: what is on the wire counts, not what a client
//! makes of it.

mod access;
mod control;
mod encryption;
mod faults;
mod keys;
mod lists;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use keywheel::domain::time::ManualClock;
use keywheel::sim::{Sim, World};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::group;

/// `mdb_sa_id_demo:mdb_sa_sk_demo`
const BASIC: &str = "bWRiX3NhX2lkX2RlbW86bWRiX3NhX3NrX2RlbW8=";
const V2023: &str = "application/vnd.atlas.2023-01-01+json";

/// A reply as it came.
#[derive(Debug)]
struct Raw {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Raw {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Asserts a refusal in Atlas' shape.
    fn refused(&self, status: u16, code: &str) {
        let body = self.json();
        assert_eq!((self.status, body["errorCode"].as_str()), (status, Some(code)), "{}", self.text());
        assert_eq!(body["error"], status);
        assert!(body["detail"].is_string() && body["reason"].is_string() && body["parameters"].is_array());
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(self.header("x-error-code"), Some(code));
    }
}

/// A simulator of the demo world, whose clock stands.
struct Site {
    sim: Sim,
    clock: ManualClock,
    address: SocketAddr,
}

impl Site {
    async fn new() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let clock = ManualClock::new("2026-03-01T12:00:00Z".parse().unwrap());
        let sim = Sim::start(listener, World::demo(), Arc::new(clock.clone())).unwrap();
        Self { sim, clock, address }
    }

    /// Sends a request; `None` when the connection ends without a reply.
    async fn send(&self, request: &str) -> Option<Raw> {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut bytes = Vec::new();
            // A cut connection may also end in an error; what came before counts.
            let _ = stream.read_to_end(&mut bytes).await;
            let at = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
            let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            Some(Raw { status, head, body: bytes[at + 4..].to_vec() })
        };
        tokio::time::timeout(Duration::from_secs(30), exchange).await.expect("no end of the reply")
    }

    /// Sends a request of a start line, header lines and a body.
    async fn ask(&self, line: &str, headers: &[&str], body: &str) -> Option<Raw> {
        let headers: String = headers.iter().flat_map(|header| [*header, "\r\n"]).collect();
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let request =
            format!("{line} HTTP/1.1\r\nHost: sim.example\r\nConnection: close\r\n{headers}{length}");
        self.send(&format!("{request}\r\n{body}")).await
    }

    async fn ask_token(&self, basic: &str, form: &str) -> Raw {
        let headers =
            [&format!("Authorization: Basic {basic}"), "Content-Type: application/x-www-form-urlencoded"];
        self.ask("POST /api/oauth/token", &headers, form).await.unwrap()
    }

    async fn token(&self) -> String {
        let reply = self.ask_token(BASIC, "grant_type=client_credentials").await;
        reply.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// GETs with a fresh token; the path is below `/api/atlas/v2`.
    async fn try_get(&self, path: &str, version: &str) -> Option<Raw> {
        let bearer = format!("Authorization: Bearer {}", self.token().await);
        let accept = format!("Accept: application/vnd.atlas.{version}+json");
        self.ask(&format!("GET /api/atlas/v2{path}"), &[&bearer, &accept], "").await
    }

    async fn get(&self, path: &str) -> Raw {
        self.try_get(path, "2023-01-01").await.unwrap()
    }

    /// GETs a list or object of the first project.
    async fn of_group(&self, rest: &str) -> Raw {
        self.get(&format!("/groups/{}{rest}", group(1))).await
    }

    /// GETs the encryption of project `number`.
    async fn encryption(&self, number: u64) -> Value {
        let reply = self.get(&format!("/groups/{}/encryptionAtRest", group(number))).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    }

    async fn try_patch(&self, number: u64, body: &str) -> Option<Raw> {
        let bearer = format!("Authorization: Bearer {}", self.token().await);
        let accept = format!("Accept: {V2023}");
        let line = format!("PATCH /api/atlas/v2/groups/{}/encryptionAtRest", group(number));
        self.ask(&line, &[&bearer, &accept, "Content-Type: application/json"], body).await
    }

    async fn patch(&self, number: u64, body: &str) -> Raw {
        self.try_patch(number, body).await.unwrap()
    }

    /// Changes the world by the control side, which must agree.
    async fn control(&self, line: &str, body: &str) {
        let reply = self.ask(line, &["Content-Type: application/json"], body).await.unwrap();
        assert!((200..300).contains(&reply.status), "{line}: {} {}", reply.status, reply.text());
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}
