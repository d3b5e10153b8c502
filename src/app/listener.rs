//! Accepts connections, with deadlines and limits that keep clients from exhausting the process.
//!
//! A new connection has ten seconds for the head of its first request. Connections without a complete
//! request are limited in number: beyond the limit, the one silent for longest is closed. Ten thousand
//! slow connections thus cost no more than a few hundred, and a client that sends at once still gets
//! through. The handler of a body limits its size and time.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::serve::Listener;
use hyper::body::{Body as _, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::Shutdown;
use crate::web::auth::Origin;

/// Time limit for the head of the first request.
const FIRST_HEAD: Duration = Duration::from_secs(10);
/// Time limit for the head of each further request, idle time included. It is longer than proxies keep a
/// connection, so that the proxy closes it first.
const NEXT_HEAD: Duration = Duration::from_secs(75);
/// The longest head of a request, in bytes. Tokens have a few thousand.
const LONGEST_HEAD: usize = 32 * 1024;
/// The most connections without a complete request.
const SILENT: usize = 512;
/// The most connections in all.
const MOST: usize = 4096;

/// Counts the connections.
#[derive(Default)]
struct ConnectionLimiter {
    silent: Mutex<Silent>,
    all: AtomicUsize,
}

/// The connections without a complete request.
#[derive(Default)]
struct Silent {
    /// In the order in which they fell silent.
    since: BTreeMap<u64, CancellationToken>,
    last: u64,
}

/// One connection.
struct Permit {
    limiter: Arc<ConnectionLimiter>,
    /// Its key in [`Silent::since`], while it is there.
    since: AtomicU64,
    leave: CancellationToken,
}

impl Permit {
    fn new(limiter: &Arc<ConnectionLimiter>) -> Self {
        limiter.all.fetch_add(1, Ordering::Relaxed);
        let own =
            Self { limiter: Arc::clone(limiter), since: AtomicU64::new(0), leave: CancellationToken::new() };
        own.waits();
        own
    }

    /// Counts the connection as silent until its request is complete. Beyond the limit, the connection
    /// silent for longest is closed.
    fn waits(&self) {
        let mut silent = self.limiter.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.last += 1;
        let now = silent.last;
        silent.since.remove(&self.since.swap(now, Ordering::Relaxed));
        silent.since.insert(now, self.leave.clone());
        if silent.since.len() > SILENT
            && let Some((_, longest)) = silent.since.pop_first()
        {
            longest.cancel();
        }
    }

    /// The connection has sent a complete request, or is closed.
    fn speaks(&self) {
        let mut silent = self.limiter.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.since.remove(&self.since.load(Ordering::Relaxed));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.speaks();
        self.limiter.all.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body in transit; its connection counts as silent until all of it was read.
struct Coming {
    body: Incoming,
    permit: Arc<Permit>,
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
            self.permit.speaks();
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

/// Serves `app` on `listener` until `shutdown`; then no request is accepted any more and those in
/// progress are finished. `origin` names the client of a connection.
pub(super) async fn serve<L: Listener>(
    mut listener: L,
    app: Router,
    origin: impl Fn(&L::Io) -> Origin,
    shutdown: Shutdown,
) {
    let limiter = Arc::<ConnectionLimiter>::default();
    let stop = shutdown.token();
    loop {
        let (io, _) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        if limiter.all.load(Ordering::Relaxed) >= MOST {
            continue;
        }
        let from = origin(&io);
        shutdown.spawn(connection(io, app.clone(), from, Arc::new(Permit::new(&limiter)), stop.clone()));
    }
}

async fn connection<Io>(io: Io, app: Router, origin: Origin, permit: Arc<Permit>, stop: CancellationToken)
where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (spoke, leave) = (CancellationToken::new(), permit.leave.clone());
    let heard = spoke.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        heard.cancel();
        let mut request = request.map(|body| {
            if body.is_end_stream() {
                permit.speaks();
                return Body::empty();
            }
            permit.waits();
            Body::new(Coming { body, permit: Arc::clone(&permit) })
        });
        request.extensions_mut().insert(ConnectInfo(origin.clone()));
        let answering = TowerToHyperService::new(app.clone()).call(request);
        let permit = Arc::clone(&permit);
        async move {
            let answer = answering.await;
            permit.waits();
            answer
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(NEXT_HEAD)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(io), service);
    #[expect(clippy::disallowed_methods, reason = "the select below ends with a stop")]
    let first_head = tokio::time::sleep(FIRST_HEAD);
    let mut serving = pin!(serving);
    tokio::select! {
        _ = &mut serving => return,
        () = spoke.cancelled() => {}
        () = leave.cancelled() => return,
        () = first_head => return,
        () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = &mut serving => return,
        () = leave.cancelled() => return,
        () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    // A broken connection is normal and no fault of the server.
    let _ = serving.await;
}
