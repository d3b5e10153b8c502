//! Accepts connections, with deadlines and limits that keep clients from exhausting the process.
//!
//! A new connection has ten seconds for its TLS handshake and the head of its first request. Connections
//! without a complete request are limited in number: beyond the limit, the one silent for longest is
//! closed. Ten thousand slow connections thus cost no more than a few hundred, and a client that sends at
//! once still gets through. A connection whose sender was authenticated is never closed for others'
//! sake. The handler of a body limits its size and time.

mod permit;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use axum::serve::Listener;
use hyper::body::{Body as _, Bytes, Frame, Incoming, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::{Shutdown, ends_after, pause};
use crate::web::auth::Authenticated;
use crate::web::sender::Origin;
use permit::{ConnectionLimiter, Open, Permit, Received};

/// Time limit for the handshake and the head of the first request.
const FIRST_HEAD: Duration = Duration::from_secs(10);
/// Time limit for the head of each further request, idle time included. It is longer than proxies keep a
/// connection, so that the proxy closes it first.
const NEXT_HEAD: Duration = Duration::from_secs(75);
/// The longest head of a request, in bytes. Tokens have a few thousand.
const LONGEST_HEAD: usize = 32 * 1024;
/// Requests of one HTTP/2 connection at the same time.
const STREAMS: u32 = 64;
/// Unread bytes of one HTTP/2 request, and of all requests of a connection.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// How long an idle HTTP/2 connection may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long requests in progress may take after a stop: a call to Atlas that hangs is not waited for.
const LAST_ANSWER: Duration = Duration::from_secs(30);

/// The settings of the TLS handshake; the newest count for new connections.
pub(super) type Handshake = watch::Receiver<Arc<ServerConfig>>;

/// A body in transit; its connection counts as silent until all of it was read.
struct Coming {
    body: Incoming,
    request: Arc<Received>,
}

impl hyper::body::Body for Coming {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.request.is_complete();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer; its request is open until the last byte was handed over.
struct Going {
    body: Body,
    _open: Open,
}

impl hyper::body::Body for Going {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Serves `app` on `listener` until `shutdown`; then no request is accepted any more and those in
/// progress are finished. `origin` names the client of a connection. With `tls` each connection begins
/// with a handshake.
pub(super) async fn serve<L: Listener>(
    mut listener: L,
    app: Router,
    origin: impl Fn(&L::Io, &L::Addr) -> Origin,
    tls: Option<Handshake>,
    shutdown: Shutdown,
) {
    let limiter = Arc::<ConnectionLimiter>::default();
    let stop = shutdown.token();
    loop {
        let (io, address) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Some(permit) = limiter.admit() else { continue };
        let from = origin(&io, &address);
        let tls = tls.as_ref().map(|newest| Arc::clone(&newest.borrow()));
        let (app, permit, tasks) = (app.clone(), Arc::new(permit), shutdown.clone());
        shutdown.spawn(async move {
            match tls {
                None => Connection::new(app, from, permit).http1(io, &tasks.token()).await,
                Some(tls) => encrypted(io, tls, Connection::new(app, from, permit), tasks).await,
            }
        });
    }
}

/// The address of a TCP client.
pub(super) fn network(_: &tokio::net::TcpStream, address: &std::net::SocketAddr) -> Origin {
    Origin::Network { peer: address.ip().to_canonical() }
}

/// The user behind a connection to the local socket.
pub(super) fn local(stream: &tokio::net::UnixStream, _: &tokio::net::unix::SocketAddr) -> Origin {
    Origin::local(stream)
}

/// A connection over TLS. A handshake that does not end is a head that does not come.
async fn encrypted<Io>(io: Io, tls: Arc<ServerConfig>, mut connection: Connection, tasks: Shutdown)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stop = tasks.token();
    let begun = tokio::time::Instant::now();
    let accepted = tokio::select! {
        accepted = TlsAcceptor::from(tls).accept(io) => accepted,
        () = connection.permit.leave.cancelled() => return,
        () = pause(FIRST_HEAD, &stop) => return,
    };
    // Whatever knocks on a public port fails here all day: no log line.
    let Ok(io) = accepted else { return };
    connection.first_head = FIRST_HEAD.saturating_sub(begun.elapsed());
    if io.get_ref().1.alpn_protocol() == Some(b"h2") {
        connection.http2(io, tasks).await;
    } else {
        connection.http1(io, &stop).await;
    }
}

/// Runs the requests of HTTP/2 connections, so that a shutdown waits for them.
#[derive(Clone)]
struct Requests(Shutdown);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Requests {
    fn execute(&self, request: F) {
        let stop = self.0.token();
        self.0.spawn(async move {
            ends_after(async { _ = request.await }, LAST_ANSWER, &stop).await;
        });
    }
}

/// The requests of one connection.
struct Connection {
    app: Router,
    origin: Origin,
    permit: Arc<Permit>,
    spoke: CancellationToken,
    /// What is left of [`FIRST_HEAD`].
    first_head: Duration,
}

impl Connection {
    fn new(app: Router, origin: Origin, permit: Arc<Permit>) -> Self {
        Self { app, origin, permit, spoke: CancellationToken::new(), first_head: FIRST_HEAD }
    }

    async fn http2<Io>(self, io: Io, tasks: Shutdown)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stop = tasks.token();
        let serving = http2::Builder::new(Requests(tasks))
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(u32::try_from(LONGEST_HEAD).unwrap_or(u32::MAX))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(NEXT_HEAD)
            .serve_connection(TokioIo::new(io), service_fn(|request| self.answer(request)));
        self.run(serving, true, &stop).await;
    }

    async fn http1<Io>(self, io: Io, stop: &CancellationToken)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(NEXT_HEAD)
            .max_buf_size(LONGEST_HEAD)
            .serve_connection(TokioIo::new(io), service_fn(|request| self.answer(request)));
        self.run(serving, false, stop).await;
    }

    /// Answers one request.
    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response, std::convert::Infallible>> + Send + use<> {
        self.spoke.cancel();
        let (received, open) = self.permit.received();
        let mut request = request.map(|body| {
            if body.is_end_stream() {
                received.is_complete();
                return Body::empty();
            }
            Body::new(Coming { body, request: Arc::clone(&received) })
        });
        request.extensions_mut().insert(ConnectInfo(self.origin.clone()));
        request.extensions_mut().insert(Authenticated(Arc::clone(&self.permit.authenticated)));
        let answering = TowerToHyperService::new(self.app.clone()).call(request);
        // Made outside of the future: a client may give up before its first poll.
        let answered = received.until_answered();
        async move {
            let answer = answering.await;
            drop(answered);
            answer.map(|it| it.map(|body| Body::new(Going { body, _open: open })))
        }
    }

    /// Serves to the end of the connection: its own, a deadline, the limiter's, or a stop.
    async fn run(&self, serving: impl GracefulConnection, idle_ends: bool, stop: &CancellationToken) {
        let leave = &self.permit.leave;
        let mut serving = pin!(serving);
        tokio::select! {
            _ = &mut serving => return,
            () = self.spoke.cancelled() => {}
            () = leave.cancelled() => return,
            () = pause(self.first_head, stop) => if !stop.is_cancelled() { return },
        }
        let idle = async {
            if idle_ends { self.permit.idle_for(NEXT_HEAD).await } else { std::future::pending().await }
        };
        tokio::select! {
            _ = &mut serving => return,
            () = leave.cancelled() => return,
            () = idle => {
                serving.as_mut().graceful_shutdown();
                let goodbye = pause(GOODBYE, stop);
                tokio::select! { _ = &mut serving => {}, () = goodbye => {} }
                return;
            }
            () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
        }
        // A broken connection is normal and no fault of the server.
        ends_after(async { _ = serving.await }, LAST_ANSWER, stop).await;
    }
}
