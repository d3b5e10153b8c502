//! TCP connections that a handler can tamper with: cut, so that a dropped request or reply is really
//! dropped, and without the `Date` header that the HTTP server writes by itself.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// The client's address of one connection, and whether replies on it are cut or changed.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    ip: IpAddr,
    is_cut: Arc<AtomicBool>,
    hides_date: Arc<AtomicBool>,
}

impl Peer {
    fn new(ip: IpAddr) -> Self {
        Self { ip, is_cut: Arc::default(), hides_date: Arc::default() }
    }

    pub(super) fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Nothing more is written.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }

    /// Whether replies from now on have no `Date`.
    pub(super) fn hide_date(&self, hides: bool) {
        self.hides_date.store(hides, Ordering::SeqCst);
    }
}

pub(super) struct Listener(pub(super) TcpListener);

pub(super) struct Wire {
    stream: TcpStream,
    peer: Peer,
}

impl axum::serve::Listener for Listener {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wire, SocketAddr) {
        let (stream, address) = axum::serve::Listener::accept(&mut self.0).await;
        (Wire { stream, peer: Peer::new(address.ip()) }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, Listener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.io().peer.clone()
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.peer.is_cut.load(Ordering::SeqCst) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.peer.hides_date.load(Ordering::SeqCst) {
            let data = without_date(data);
            return Pin::new(&mut self.stream).poll_write(cx, &data);
        }
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Renames the header instead of removing it: a write may be partial, so lengths must not change.
fn without_date(data: &[u8]) -> Vec<u8> {
    const DATE: &[u8] = b"\r\ndate: ";
    let mut data = data.to_vec();
    if let Some(at) = data.windows(DATE.len()).position(|window| window == DATE) {
        data[at..at + DATE.len()].copy_from_slice(b"\r\nnone: ");
    }
    data
}
