//! The way in for connections: deadlines and numbers that keep strangers from exhausting the process.
//!
//! Whoever connects has ten seconds for the head of a first request. Of those who wait without a request
//! under way only so many are kept: when more come, the oldest goes, so that ten thousand silent
//! connections cost no more than a few hundred and a caller who speaks at once still gets through. What a request
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
/// Connections without a request under way.
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
    /// It waits for a request again, and counts as silent until it sends one. Where silent ones are many, the
    /// oldest makes room.
    fn rests(&self, id: u64, leave: CancellationToken) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.insert(id, leave);
        if silent.len() > SILENT
            && let Some((_, oldest)) = silent.pop_first()
        {
            oldest.cancel();
        }
    }

    /// It has sent a request, or is gone.
    fn speaks(&self, id: u64) {
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
        crowd.all.fetch_add(1, Ordering::Relaxed);
        let (own, app, stop) = (Arc::clone(&crowd), app.clone(), stop.clone());
        shutdown.spawn(async move {
            connection(io, app, from, (&own, id), stop).await;
            own.speaks(id);
            own.all.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn connection<Io>(
    io: Io,
    app: Router,
    origin: Origin,
    (crowd, id): (&Arc<Crowd>, u64),
    stop: CancellationToken,
) where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (spoke, leave) = (CancellationToken::new(), CancellationToken::new());
    crowd.rests(id, leave.clone());
    let (heard, left, own) = (spoke.clone(), leave.clone(), Arc::clone(crowd));
    let service = service_fn(move |request: Request<Incoming>| {
        own.speaks(id);
        heard.cancel();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(origin.clone()));
        let answering = TowerToHyperService::new(app.clone()).call(request);
        let (own, left) = (Arc::clone(&own), left.clone());
        async move {
            let answer = answering.await;
            own.rests(id, left);
            answer
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(NEXT_HEAD)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(io), service);
    let mut serving = pin!(serving);
    tokio::select! {
        _ = &mut serving => return,
        () = spoke.cancelled() => {}
        () = leave.cancelled() => return,
        () = tokio::time::sleep(FIRST_HEAD) => return,
        () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = &mut serving => return,
        () = leave.cancelled() => return,
        () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    // Broken connections are everyday life and say nothing about us.
    let _ = serving.await;
}
