//! The journal of one rotation as server-sent events: one for each row, resumable by `Last-Event-ID`.

use std::convert::Infallible;

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use tokio::sync::broadcast::error::RecvError;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Path, views};
use crate::api::problem::Code;
use crate::domain::ids::RotationId;
use crate::domain::role::Role;
use crate::store::JournalEntry;
use crate::web::Web;
use crate::web::auth::Caller;
use crate::web::operation::needs;
use crate::web::problem::Problem;

pub(super) fn routes(web: &Web) -> OpenApiRouter<Web> {
    let unknown = [Code::NotFound, Code::RotationNotFound];
    OpenApiRouter::new().routes(needs(web, Role::Viewer, &[&unknown], routes!(follow)))
}

/// Which rotations have new rows.
pub(in crate::web) type News = tokio::sync::broadcast::Receiver<RotationId>;

/// A header of the answer.
pub(in crate::web) type Unbuffered = [(&'static str, &'static str); 1];

/// nginx, and what is built on it, would otherwise keep events back until a buffer is full.
pub(in crate::web) const UNBUFFERED: Unbuffered = [("x-accel-buffering", "no")];

#[utoipa::path(
    get, path = "/rotations/{id}/stream", tag = "rotations", operation_id = "followRotation",
    summary = "Follow a rotation: one server-sent event for each journal entry, to its end",
    description = "The event's id is the entry's `seq`, its data the entry (`JournalEntry`) as JSON.",
    params(
        ("id" = RotationId, Path, description = "The rotation's id."),
        ("Last-Event-ID" = Option<String>, Header, description = "The last event seen; the stream goes on after it."),
    ),
    responses((status = 200, description = "The events.", body = String, content_type = "text/event-stream")),
)]
async fn follow(
    State(web): State<Web>,
    Path(id): Path<RotationId>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<(Unbuffered, Sse<impl Stream<Item = Result<Event, Infallible>>>), Problem> {
    web.engine.rotation(id).await?;
    let after = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse().ok())
        .unwrap_or(0);
    // Listening starts before the first read, so no row falls between the two.
    let news = web.engine.journal.subscribe();
    let feed = Feed { web, caller, id, after, news, ready: Vec::new(), over: false };
    let events = stream::unfold(feed, |mut feed| async move {
        let row = views::journal(feed.next().await?);
        let id = row.seq.to_string();
        let event = match Event::default().id(id).json_data(row) {
            Ok(event) => event,
            Err(error) => {
                tracing::error!(error = %error, rotation.id = %feed.id, "a journal entry cannot be written as JSON; its stream ends");
                return None;
            }
        };
        Some((Ok(event), feed))
    });
    Ok((UNBUFFERED, Sse::new(events).keep_alive(KeepAlive::default())))
}

struct Feed {
    web: Web,
    caller: Caller,
    id: RotationId,
    after: i64,
    news: News,
    ready: Vec<JournalEntry>,
    over: bool,
}

impl Feed {
    async fn next(&mut self) -> Option<JournalEntry> {
        loop {
            if let Some(row) = self.ready.pop() {
                self.after = row.seq;
                return Some(row);
            }
            if self.over || self.web.stop.is_cancelled() {
                return None;
            }
            // The stream ends with the token that opened it.
            if !self.caller.is_still(Role::Viewer, &self.web).await.ok()? {
                return None;
            }
            let ended = self.web.engine.rotation(self.id).await.ok()?.rotation.state.is_final();
            self.ready = self.web.engine.store.journal(self.id, self.after, 100).await.ok()?;
            self.ready.reverse();
            if !self.ready.is_empty() {
                continue;
            }
            if ended {
                self.over = true;
                continue;
            }
            if !until_news(self.id, &mut self.news, &self.web).await {
                self.over = true;
            }
        }
    }
}

/// Waits until a rotation has a new row; false when none will come. Rows of other daemons are found by polling.
pub(in crate::web) async fn until_news(id: RotationId, news: &mut News, web: &Web) -> bool {
    #[expect(clippy::disallowed_methods, reason = "the select below ends with a stop")]
    let poll = tokio::time::sleep(std::time::Duration::from_secs(2));
    tokio::pin!(poll);
    loop {
        tokio::select! {
            () = &mut poll => return true,
            () = web.stop.cancelled() => return false,
            news = news.recv() => match news {
                Ok(other) if other != id => {}
                Ok(_) | Err(RecvError::Lagged(_)) => return true,
                Err(RecvError::Closed) => return false,
            }
        }
    }
}
