//! A stand-in for Atlas that answers with bytes written by hand.
//!
//! Every connection carries one request. Token requests are answered by themselves unless a test
//! scripts them; everything else is answered from the script, in order, except that a Digest login
//! may be demanded first. What came in is kept as it
//! was on the wire.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What one connection is answered with.
pub(crate) enum Step {
    /// These bytes; then the connection is closed.
    Bytes(Vec<u8>),
    /// These bytes, and then nothing more until the client goes.
    ThenHang(Vec<u8>),
}

/// No reply at all; the connection is closed.
pub(crate) fn close() -> Step {
    Step::Bytes(Vec::new())
}

/// No reply at all; the connection stays open.
pub(crate) fn hang() -> Step {
    Step::ThenHang(Vec::new())
}

/// A reply with these extra header lines.
pub(crate) fn reply(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Step {
    Step::Bytes(bytes(status, headers, body))
}

/// A successful reply with a JSON body.
pub(crate) fn ok(json: &str) -> Step {
    reply(200, "Content-Type: application/vnd.atlas.2023-01-01+json;charset=utf-8\r\n", json)
}

/// An error as Atlas words it.
pub(crate) fn refusal(status: u16, code: &str) -> Step {
    let body = format!(
        r#"{{"detail":"Words of {code}.","error":{status},"errorCode":"{code}","parameters":[1,null],"reason":"Bad"}}"#
    );
    reply(status, "Content-Type: application/json\r\n", body)
}

/// A 401 with this challenge, in the words of Atlas.
pub(crate) fn unauthorized(challenge: &str) -> Step {
    let body = r#"{"detail":"You are not authorized for this resource.","error":401,"errorCode":"UNEXPECTED_ERROR","parameters":[],"reason":"Unauthorized"}"#;
    reply(401, &format!("WWW-Authenticate: {challenge}\r\nContent-Type: application/json\r\n"), body)
}

/// A whole reply as it stands on the wire.
pub(crate) fn bytes(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[derive(Default)]
struct State {
    script: VecDeque<Step>,
    tokens: VecDeque<Step>,
    calls: Vec<String>,
    token_calls: Vec<String>,
    challenge: Option<String>,
}

#[derive(Clone)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    pub(crate) url: String,
}

impl Fake {
    pub(crate) async fn start(script: impl IntoIterator<Item = Step>) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = State { script: script.into_iter().collect(), ..State::default() };
        let fake = Fake { state: Arc::new(Mutex::new(state)), url };
        let served = fake.clone();
        crate::support::wait::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                crate::support::wait::spawn(serve(stream, served.clone()));
            }
        });
        fake
    }

    /// Answers token requests from this script first.
    pub(crate) fn script_tokens(&self, steps: impl IntoIterator<Item = Step>) {
        self.state.lock().unwrap().tokens.extend(steps);
    }

    /// Answers requests that come without a Digest login with this challenge and not from the script.
    pub(crate) fn demand(&self, challenge: &str) {
        self.state.lock().unwrap().challenge = Some(challenge.to_owned());
    }

    /// Requests other than for tokens, as they were on the wire, with `HOST` for our address.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    /// Requests for tokens.
    pub(crate) fn token_calls(&self) -> Vec<String> {
        self.state.lock().unwrap().token_calls.clone()
    }

    fn next(&self, request: &str) -> Step {
        let mut state = self.state.lock().unwrap();
        let request = request.replace(self.url.trim_start_matches("http://"), "HOST");
        if request.starts_with("POST /api/oauth/token ") {
            state.token_calls.push(request);
            let token = format!(
                r#"{{"access_token":"tok-{}","expires_in":3600,"token_type":"Bearer"}}"#,
                state.token_calls.len()
            );
            return state.tokens.pop_front().unwrap_or_else(|| ok(&token));
        }
        let is_proven = request.contains("\r\nauthorization: Digest ");
        state.calls.push(request);
        if let Some(challenge) = state.challenge.as_ref().filter(|_| !is_proven) {
            return unauthorized(challenge);
        }
        state.script.pop_front().unwrap_or_else(|| reply(599, "", "the script is over"))
    }
}

async fn serve(mut stream: TcpStream, fake: Fake) {
    let Some(request) = read_request(&mut stream).await else { return };
    let (bytes, hangs) = match fake.next(&request) {
        Step::Bytes(bytes) => (bytes, false),
        Step::ThenHang(bytes) => (bytes, true),
    };
    let _ = stream.write_all(&bytes).await;
    if hangs {
        // Ends when the client gives up and closes.
        let _ = stream.read(&mut [0]).await;
    }
    let _ = stream.shutdown().await;
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length: ").and_then(|it| it.parse().ok())
        });
        if body.len() >= length.unwrap_or(0usize) {
            return Some(text);
        }
    }
}

/// A small gzip file that unpacks to `size` zero bytes: one literal, then repetitions of
/// 258 bytes at distance one, in deflate's fixed code.
pub(crate) fn gzip_bomb(size: usize) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let (mut byte, mut used) = (0u8, 0);
    let mut put = |bits: &str| {
        for bit in bits.bytes() {
            byte |= (bit - b'0') << used;
            used += 1;
            if used == 8 {
                out.push(byte);
                (byte, used) = (0, 0);
            }
        }
    };
    put("110");
    put("00110000");
    for _ in 0..size / 258 {
        put("1100010100000");
    }
    put("0000000");
    put("0000000");
    out.extend_from_slice(&[0; 8]);
    out
}

/// Longer than anything that is not stuck.
pub(crate) const GENEROUS: Duration = Duration::from_secs(20);
