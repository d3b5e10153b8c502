//! Rotations: propose, list, show, journal, stream, and the verbs of people.

use std::convert::Infallible;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::projects::group;
use super::{Body, Json, Page, Path, Query, no_array, page, views, word};
use crate::domain::ids::RotationId;
use crate::domain::role::Role;
use crate::domain::rotation::state::State as RotationState;
use crate::engine::command::{CommandError, Verb};
use crate::engine::propose::Proposed;
use crate::store::{JournalEntry, RotationRow};
use crate::web::Web;
use crate::web::auth::Caller;
use crate::web::problem::Problem;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Propose {
    new_key: String,
    reason: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn propose(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
    Json(body): Json<Propose>,
) -> Result<(StatusCode, axum::Json<Value>), Problem> {
    caller.must_be(Role::Operator)?;
    let group = group(&id)?;
    let new_key = body.new_key.parse().map_err(CommandError::KeyInvalid)?;
    let proposed = web.engine.propose(&caller.name, &group, new_key, body.reason, body.dry_run).await?;
    Ok(match proposed {
        Proposed::Created(row) => (StatusCode::CREATED, shown(&web, &row).await?),
        Proposed::Same(row) => (StatusCode::OK, shown(&web, &row).await?),
        Proposed::Checked { old_key, new_key, checks } => (
            StatusCode::OK,
            axum::Json(json!({
                "dryRun": true, "oldKey": old_key.to_string(), "newKey": new_key.to_string(), "checks": checks,
            })),
        ),
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Filter {
    state: Option<String>,
    group_id: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

pub(super) async fn list(
    State(web): State<Web>,
    _: Caller,
    Query(filter): Query<Filter>,
) -> Result<axum::Json<Value>, Problem> {
    let state = word("state", filter.state.as_deref(), RotationState::ALL)?;
    let project = filter.group_id.as_deref().map(group).transpose()?;
    let paging = Page { limit: filter.limit, cursor: filter.cursor };
    let limit = paging.limit();
    let rows = web.engine.store.rotations(state, project.as_ref(), paging.after()?, limit).await?;
    let next = (rows.len() == limit).then(|| rows.last().map(|row| row.rotation.id.to_string())).flatten();
    let mut items = Vec::with_capacity(rows.len());
    for row in &rows {
        items.push(viewed(&web, row).await?);
    }
    Ok(page(items, next))
}

pub(super) async fn show(
    State(web): State<Web>,
    _: Caller,
    Path(id): Path<RotationId>,
) -> Result<axum::Json<Value>, Problem> {
    let row = web.engine.rotation(id).await?;
    shown(&web, &row).await
}

pub(super) async fn journal(
    State(web): State<Web>,
    _: Caller,
    Path(id): Path<RotationId>,
    Query(paging): Query<Page>,
) -> Result<axum::Json<Value>, Problem> {
    web.engine.rotation(id).await?;
    let limit = paging.limit();
    let rows = web.engine.store.journal(id, paging.after()?.unwrap_or(0), limit).await?;
    let next = (rows.len() == limit).then(|| rows.last().map(|row| row.seq.to_string())).flatten();
    Ok(page(rows.iter().map(views::journal).collect(), next))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Say {
    comment: Option<String>,
    proposal_hash: Option<String>,
}

pub(super) async fn say(
    State(web): State<Web>,
    caller: Caller,
    Path((id, verb)): Path<(RotationId, String)>,
    Body(body): Body,
) -> Result<axum::Json<Value>, Problem> {
    let (verb, role) = match verb.as_str() {
        "approve" => (Verb::Approve, Role::Approver),
        "withdraw" => (Verb::Withdraw, Role::Approver),
        "reject" => (Verb::Reject, Role::Approver),
        "cancel" => (Verb::Cancel, Role::Operator),
        "resume" => (Verb::Resume, Role::Operator),
        "rollback" => (Verb::Rollback, Role::Operator),
        "accept" => (Verb::Accept, Role::Operator),
        "close" => (Verb::Close, Role::Operator),
        _ => {
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                "not-found",
                format!("a rotation has no verb {verb:?}"),
            ));
        }
    };
    caller.must_be(role)?;
    no_array(&body)?;
    let body: Say = if body.is_empty() { Say::default() } else { axum::Json::from_bytes(&body)?.0 };
    let row = web.engine.say(&caller.name, id, verb, body.comment, body.proposal_hash.as_deref()).await?;
    shown(&web, &row).await
}

async fn viewed(web: &Web, row: &RotationRow) -> Result<Value, Problem> {
    let (store, id) = (&web.engine.store, row.rotation.id);
    Ok(views::rotation(row, &store.approvals(id).await?, store.proof(id).await?.as_ref()))
}

async fn shown(web: &Web, row: &RotationRow) -> Result<axum::Json<Value>, Problem> {
    Ok(axum::Json(viewed(web, row).await?))
}

/// One event for each journal row, resumable by `Last-Event-ID`; ends with the rotation.
pub(super) async fn stream(
    State(web): State<Web>,
    _: Caller,
    Path(id): Path<RotationId>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    web.engine.rotation(id).await?;
    let after = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse().ok())
        .unwrap_or(0);
    // Listening starts before the first read, so no row falls between the two.
    let news = web.engine.journal.subscribe();
    let feed = Feed { web, id, after, news, ready: Vec::new(), over: false };
    let events = stream::unfold(feed, |mut feed| async move {
        let row = feed.next().await?;
        let event = Event::default().id(row.seq.to_string()).data(views::journal(&row).to_string());
        Some((Ok(event), feed))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

struct Feed {
    web: Web,
    id: RotationId,
    after: i64,
    news: tokio::sync::broadcast::Receiver<RotationId>,
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
            self.wait().await;
        }
    }

    /// Until this rotation has a new row. Another daemon's rows are found by asking now and then.
    async fn wait(&mut self) {
        #[expect(clippy::disallowed_methods, reason = "the select below ends with a stop")]
        let poll = tokio::time::sleep(std::time::Duration::from_secs(2));
        tokio::pin!(poll);
        loop {
            tokio::select! {
                () = &mut poll => return,
                () = self.web.stop.cancelled() => return,
                news = self.news.recv() => match news {
                    Ok(id) if id != self.id => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => return,
                    Err(RecvError::Closed) => { self.over = true; return; }
                }
            }
        }
    }
}
