//! A TCP proxy between a daemon and PostgreSQL that loses what a network can lose.
//!
//! It knows one word of the protocol: the text of a commit, so that a test can lose a commit, or
//! the answer to one, and nothing else.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::process::Dice;
use super::wait::pause;

/// What goes wrong from now on.
#[derive(Clone)]
pub(crate) enum Mischief {
    /// Nothing.
    Quiet,
    /// Connections are cut instead of passing a commit on, this often.
    LoseCommits(u32),
    /// Commits are passed on and connections cut before the answer comes back, this often.
    LoseAnswers(u32),
    /// Now and then a connection is delayed, stalled, cut or half-closed.
    Random(Dice),
}

#[derive(Clone)]
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: CancellationToken,
}

struct State {
    mischief: Mischief,
    done: u32,
}

enum Deed {
    Pass,
    Cut,
    PassAndCut,
    Delay(u64),
    StallAndCut(u64),
    HalfClose,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if Arc::strong_count(&self.state) == 1 {
            self.stop.cancel();
        }
    }
}

impl Proxy {
    /// Stands before the server of `url`.
    pub(crate) async fn before(url: &str) -> Self {
        let url: url::Url = url.parse().unwrap();
        let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::new(Mutex::new(State { mischief: Mischief::Quiet, done: 0 })),
            stop: CancellationToken::new(),
        };
        let (state, stop) = (Arc::downgrade(&proxy.state), proxy.stop.clone());
        crate::support::wait::spawn(async move {
            loop {
                let (client, _) = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap(),
                    () = stop.cancelled() => return,
                };
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                let Some(state) = state.upgrade() else { return };
                join(client, server, &state, &stop);
            }
        });
        proxy
    }

    /// The same database through the proxy.
    pub(crate) fn url(&self, url: &str) -> String {
        let mut url: url::Url = url.parse().unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(self.address.port())).unwrap();
        url.to_string()
    }

    pub(crate) fn set(&self, mischief: Mischief) {
        self.state.lock().unwrap().mischief = mischief;
    }

    /// How many things went wrong so far, delays not counted.
    pub(crate) fn done(&self) -> u32 {
        self.state.lock().unwrap().done
    }
}

impl State {
    fn judge(&mut self, bytes: &[u8], to_server: bool) -> Deed {
        let commit = to_server && bytes.windows(7).any(|it| it == b"COMMIT\0");
        let deed = match &mut self.mischief {
            Mischief::LoseCommits(left) if commit && *left > 0 => {
                *left -= 1;
                Deed::Cut
            }
            Mischief::LoseAnswers(left) if commit && *left > 0 => {
                *left -= 1;
                Deed::PassAndCut
            }
            Mischief::Random(dice) => match dice.roll(2000) {
                0..3 => Deed::Cut,
                3..6 => Deed::PassAndCut,
                6..7 => Deed::HalfClose,
                7..8 => Deed::StallAndCut(200 + dice.roll(2000)),
                8..40 => Deed::Delay(dice.roll(150)),
                // A commit is where it hurts most.
                40..140 if commit => Deed::PassAndCut,
                140..200 if commit => Deed::Cut,
                _ => Deed::Pass,
            },
            _ => Deed::Pass,
        };
        if !matches!(deed, Deed::Pass | Deed::Delay(_)) {
            self.done += 1;
        }
        deed
    }
}

fn join(client: TcpStream, server: TcpStream, state: &Arc<Mutex<State>>, stop: &CancellationToken) {
    let cut = stop.child_token();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    crate::support::wait::spawn(pass(from_client, to_server, Arc::clone(state), cut.clone(), true));
    crate::support::wait::spawn(pass(from_server, to_client, Arc::clone(state), cut, false));
}

/// Passes bytes on in one direction until an end comes or something goes wrong.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: Arc<Mutex<State>>,
    cut: CancellationToken,
    to_server: bool,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            () = cut.cancelled() => return,
        };
        let Ok(length @ 1..) = read else { break };
        let bytes = &buffer[..length];
        let deed = state.lock().unwrap().judge(bytes, to_server);
        match deed {
            Deed::Pass => {}
            Deed::Cut => return cut.cancel(),
            Deed::PassAndCut => {
                // First the way back: an answer takes less than the wait below.
                cut.cancel();
                let _ = to.write_all(bytes).await;
                // The other side gets it before it sees the end.
                pause(Duration::from_millis(20)).await;
                return;
            }
            Deed::Delay(ms) => pause(Duration::from_millis(ms)).await,
            Deed::StallAndCut(ms) => {
                pause(Duration::from_millis(ms)).await;
                return cut.cancel();
            }
            Deed::HalfClose => break,
        }
        if to.write_all(bytes).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
