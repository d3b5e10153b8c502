//! The way in for connections: deadlines and numbers that keep strangers from exhausting the process.
//!
//! Whoever connects has ten seconds for the head of a first request. Of those who have not sent one
//! yet only so many are kept: when more come, the oldest goes, so that ten thousand silent connections
//! cost no more than a few hundred and a caller who speaks at once still gets through. What a request
//! may cost after its head is read is decided where it is handled.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::Shutdown;
use crate::web::auth::Origin;

/// For the head of the first request.
const FIRST_HEAD: Duration = Duration::from_secs(10);
/// For the head of each further request, the idle time before it included: longer than proxies keep a
/// connection, so that it is they who close it.
const NEXT_HEAD: Duration = Duration::from_secs(75);
/// The longest head of a request, in bytes.
const LONGEST_HEAD: usize = 64 * 1024;
/// Connections that have not sent a request yet.
const SILENT: usize = 512;
/// Connections in all.
const MOST: usize = 4096;

/// Who is connected.
#[derive(Default)]
struct Crowd {
    silent: Mutex<BTreeMap<u64, CancellationToken>>,
    all: AtomicUsize,
}

impl Crowd {
    /// Lets one more in; the oldest silent one makes room.
    fn enter(&self, id: u64) -> CancellationToken {
        let leave = CancellationToken::new();
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        if silent.len() >= SILENT
            && let Some((_, oldest)) = silent.pop_first()
        {
            oldest.cancel();
        }
        silent.insert(id, leave.clone());
        leave
    }

    /// It has sent a request, or is gone.
    fn spoke(&self, id: u64) {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

/// Answers at `listener` with `app` until `shutdown`; then no request is taken any more and those under
/// way are finished. `origin` says who a connection belongs to.
pub(super) async fn serve<L: Listener>(
    mut listener: L,
    app: Router,
    origin: impl Fn(&L::Io) -> Origin,
    shutdown: Shutdown,
) {
    let crowd = Arc::<Crowd>::default();
    let stop = shutdown.token();
    let mut id = 0;
    loop {
        let (io, _) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        if crowd.all.load(Ordering::Relaxed) >= MOST {
            continue;
        }
        id += 1;
        let from = origin(&io);
        let leave = crowd.enter(id);
        crowd.all.fetch_add(1, Ordering::Relaxed);
        let (own, app, stop) = (Arc::clone(&crowd), app.clone(), stop.clone());
        shutdown.spawn(async move {
            connection(io, app, from, (&own, id, leave), stop).await;
            own.spoke(id);
            own.all.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn connection<Io>(
    io: Io,
    app: Router,
    origin: Origin,
    (crowd, id, leave): (&Crowd, u64, CancellationToken),
    stop: CancellationToken,
) where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let spoke = CancellationToken::new();
    let heard = spoke.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        heard.cancel();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(origin.clone()));
        TowerToHyperService::new(app.clone()).call(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(NEXT_HEAD)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(io), service);
    let mut serving = pin!(serving);
    tokio::select! {
        _ = &mut serving => return,
        () = spoke.cancelled() => crowd.spoke(id),
        () = leave.cancelled() => return,
        () = tokio::time::sleep(FIRST_HEAD) => return,
        () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = &mut serving => return,
        () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    // Broken connections are everyday life and say nothing about us.
    let _ = serving.await;
}
