//! What keeps the open page of a rotation, and home, up to date: the script, and streams that say when to renew them.
//!
//! The stream carries no content. On an event the script asks for the page again and takes its marked parts over, so
//! there is one way to make a part, and a page that missed an event loses nothing. The stream ends with the session and
//! is no use of it. Nothing here decides anything.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;

use super::super::api::stream::{News, UNBUFFERED, until_news};
use super::super::problem::Problem;
use super::{Session, Signed, Trouble, Web, seen};
use crate::api::problem::Code;
use crate::domain::ids::RotationId;
use crate::domain::time::Timestamp;
use crate::store::StoreError;

/// A sign of life is sent this often. The script calls a page stale that has heard nothing for 45 s.
const ALIVE: Duration = Duration::from_secs(15);

/// Home is told of news this often at most.
const PAUSE: Duration = Duration::from_secs(5);

/// The streams of one session. A browser opens six connections to a server at most, and a page needs one too.
const MOST: u32 = 4;

pub(super) async fn script() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")],
        concat!(include_str!("live.js"), include_str!("passkey.js")),
    )
}

/// The open streams of each session, by its hash.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams(Arc<Mutex<HashMap<String, u32>>>);

/// One open stream. It counts until it is dropped.
struct Place {
    streams: Streams,
    hash: String,
}

impl Streams {
    fn enter(&self, hash: String) -> Option<Place> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = all.entry(hash.clone()).or_default();
        if *open >= MOST {
            return None;
        }
        *open += 1;
        drop(all);
        Some(Place { streams: self.clone(), hash })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = all.get_mut(&self.hash) {
            *open -= 1;
            if *open == 0 {
                all.remove(&self.hash);
            }
        }
    }
}

/// What the page shows, as [`shown`] counts it.
#[derive(Debug, Deserialize)]
pub(super) struct Seen {
    #[serde(default)]
    seen: i64,
}

pub(super) async fn follow(
    State(web): State<Web>,
    Signed(session): Signed,
    Path(id): Path<String>,
    Query(Seen { seen }): Query<Seen>,
    Extension(streams): Extension<Streams>,
    headers: HeaderMap,
) -> Response {
    let trouble = |problem: Problem| Trouble::new(problem, &web, Some(&session)).into_response();
    // Listening starts before the first read, so no change falls between the two.
    let news = web.engine.journal.subscribe();
    let id = match seen::row(&web, &id).await {
        Ok(row) => row.rotation.id,
        Err(problem) => return trouble(problem),
    };
    let Some(place) = streams.enter(session.hash()) else {
        return trouble(too_many());
    };
    let last = headers.get("last-event-id").and_then(|it| it.to_str().ok()?.parse().ok());
    let now = web.engine.clock.now();
    let feed =
        Feed { web, session, id, news, seen: last.unwrap_or(seen), told_at: now, over: false, _place: place };
    let events =
        stream::unfold(feed, |mut feed| async move { Some((Ok::<_, Infallible>(feed.next().await?), feed)) });
    (UNBUFFERED, Sse::new(events)).into_response()
}

/// What home shows of all that is open.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn open(web: &Web) -> Result<String, StoreError> {
    let (rotations, versions, conditions) = web.engine.store.moves().await?;
    Ok(format!("{rotations}-{versions}-{conditions}"))
}

/// What home shows, as [`open`] counts it.
#[derive(Debug, Deserialize)]
pub(super) struct SeenAll {
    #[serde(default)]
    seen: String,
}

/// One stream for all that is open.
pub(super) async fn follow_all(
    State(web): State<Web>,
    Signed(session): Signed,
    Query(SeenAll { seen }): Query<SeenAll>,
    Extension(streams): Extension<Streams>,
    headers: HeaderMap,
) -> Response {
    let Some(place) = streams.enter(session.hash()) else {
        return Trouble::new(too_many(), &web, Some(&session)).into_response();
    };
    let last = headers.get("last-event-id").and_then(|it| it.to_str().ok()).map(str::to_owned);
    let told_at = web.engine.clock.now();
    let feed = HomeFeed { web, session, seen: last.unwrap_or(seen), told_at, _place: place };
    let events =
        stream::unfold(feed, |mut feed| async move { Some((Ok::<_, Infallible>(feed.next().await?), feed)) });
    (UNBUFFERED, Sse::new(events)).into_response()
}

fn too_many() -> Problem {
    let told = format!("{MOST} pages of this session are live already; close one");
    Problem::new(Code::TooManyFailures, told)
}

struct HomeFeed {
    web: Web,
    session: Session,
    seen: String,
    told_at: Timestamp,
    _place: Place,
}

impl HomeFeed {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.web.stop.is_cancelled() || !self.session.is_still(&self.web).await.ok()? {
                return None;
            }
            let (shown, now) = (open(&self.web).await.ok()?, self.web.engine.clock.now());
            let is_new = shown != self.seen;
            if is_new || now.since(self.told_at) >= ALIVE {
                (self.seen, self.told_at) = (shown, now);
                let name = if is_new { "change" } else { "alive" };
                return Some(Event::default().event(name).id(&self.seen).data("1"));
            }
            // A fleet has news all the time: it is looked for, and not waited for.
            #[expect(clippy::disallowed_methods, reason = "the select ends with a stop")]
            let pause = tokio::time::sleep(PAUSE);
            tokio::select! {
                () = pause => {}
                () = self.web.stop.cancelled() => return None,
            }
        }
    }
}

struct Feed {
    web: Web,
    session: Session,
    id: RotationId,
    news: News,
    /// What the page shows.
    seen: i64,
    told_at: Timestamp,
    over: bool,
    _place: Place,
}

impl Feed {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.over || self.web.stop.is_cancelled() || !self.session.is_still(&self.web).await.ok()? {
                return None;
            }
            let row = self.web.engine.rotation(self.id).await.ok()?;
            let now = self.web.engine.clock.now();
            let shown = seen::shown(&self.web, &row).await.ok()?;
            let is_new = shown != self.seen;
            self.over = row.rotation.state.is_final();
            if is_new || self.over || now.since(self.told_at) >= ALIVE {
                (self.seen, self.told_at) = (shown, now);
                let name = match (self.over, is_new) {
                    (true, _) => "end",
                    (false, true) => "change",
                    (false, false) => "alive",
                };
                // Browsers drop an event without data.
                return Some(Event::default().event(name).id(self.seen.to_string()).data("1"));
            }
            if !until_news(self.id, &mut self.news, &self.web).await {
                return None;
            }
        }
    }
}
