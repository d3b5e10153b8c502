//! The audit log, filtered and paged in SQL. A page recomputes nothing: it says what is checked, and by whom.

use askama::Template;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::NaiveDate;
use serde::Deserialize;

use super::super::problem::Problem;
use super::{Frame, Here, Session, Signed, Trouble, Web, page};
use crate::domain::text::visible;
use crate::domain::time::{Span, Timestamp};
use crate::store::{AuditEntry, AuditFilter, SEARCHED};

/// Rows of a page.
const PAGE: usize = 50;

/// Characters of a row's detail that are shown before the rest is folded.
const SHORT: usize = 140;

/// What is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    words: String,
    who: String,
    what: String,
    from: String,
    to: String,
    before: String,
}

/// A row of the log.
struct Line {
    seq: i64,
    at: String,
    who: String,
    what: String,
    on: String,
    to: Option<String>,
    detail: String,
    rest: Option<String>,
    hash: String,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    frame: Frame,
    asked: Asked,
    wrong: Option<(&'static str, &'static str)>,
    doubt: Option<String>,
    rows: i64,
    head: String,
    lines: Vec<Line>,
    older: Option<String>,
    has_filter: bool,
    searched: i64,
}

pub(super) async fn show(
    State(web): State<Web>,
    Signed(session): Signed,
    Query(asked): Query<Asked>,
) -> Response {
    match shown(&web, &session, asked).await {
        Ok(it) => {
            let status = if it.wrong.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
            page(status, &it)
        }
        Err(problem) => Trouble::new(problem, &web, Some(&session)).into_response(),
    }
}

/// The beginning of a day in UTC; `None` for an empty field.
fn day(text: &str) -> Result<Option<Timestamp>, ()> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let day: NaiveDate = text.parse().map_err(|_| ())?;
    Ok(Some(Timestamp::from_chrono(day.and_hms_opt(0, 0, 0).ok_or(())?.and_utc())))
}

/// The page of what a row is about.
fn target(subject: &str) -> Option<String> {
    let (kind, id) = subject.split_once('/')?;
    let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    match kind {
        "rotation" if is_plain => Some(format!("/rotations/{id}")),
        "project" if is_plain => Some(format!("/projects/{id}")),
        _ => None,
    }
}

/// A subject with the end of its id.
fn short(subject: &str) -> String {
    let Some((kind, id)) = subject.split_once('/').filter(|_| target(subject).is_some()) else {
        return visible(subject);
    };
    format!("{kind} …{}", id.get(id.len().saturating_sub(8)..).unwrap_or(id))
}

fn line(it: &AuditEntry) -> Line {
    let detail = if it.detail == "{}" { String::new() } else { visible(&it.detail) };
    let first: String = detail.chars().take(SHORT).collect();
    let rest = (first.len() < detail.len()).then(|| detail.clone());
    Line {
        seq: it.seq,
        at: it.at.as_chrono().format("%-d %b %Y %H:%M:%S").to_string(),
        who: visible(&it.actor),
        what: visible(&it.action),
        to: target(&it.subject),
        on: short(&it.subject),
        detail: if rest.is_some() { format!("{first}…") } else { first },
        rest,
        hash: it.hash.chars().take(8).collect(),
    }
}

async fn shown(web: &Web, session: &Session, asked: Asked) -> Result<AuditPage, Problem> {
    let store = &web.engine.store;
    let (from, to) = (day(&asked.from), day(&asked.to));
    let wrong = match (from, to) {
        (Err(()), _) => Some(("from", "This is no date. Write it as 2026-11-28.")),
        (_, Err(())) => Some(("to", "This is no date. Write it as 2026-11-28.")),
        _ => None,
    };
    let marks = store.audit_marks(0).await?;
    let before = match asked.before.trim() {
        "" => marks.seq.saturating_add(1),
        text => text.parse().map_err(|_| Problem::invalid("before", "it takes the number of a row"))?,
    };
    let filter = AuditFilter {
        words: asked.words.trim().to_owned(),
        actor: asked.who.trim().to_owned(),
        action: asked.what.trim().to_owned(),
        from: from.ok().flatten(),
        // The last day is in it.
        until: to.ok().flatten().map(|day| day + Span::from_days(1).get()),
    };
    let rows = store.search_audit(&filter, before, PAGE).await?;
    // Those that cannot be read are shown by their numbers.
    let last = rows.last().map(|row| match row {
        Ok(it) => it.seq,
        Err(corrupt) => corrupt.id.parse().unwrap_or(0),
    });
    // A page that is not full has searched its whole share of the log.
    let next = if rows.len() == PAGE { last } else { Some(before.saturating_sub(SEARCHED)) };
    let older = next.filter(|it| *it > 1).map(|it| {
        let before = it.to_string();
        let fields = [
            ("words", &asked.words),
            ("who", &asked.who),
            ("what", &asked.what),
            ("from", &asked.from),
            ("to", &asked.to),
            ("before", &before),
        ];
        super::address("/audit", fields.into_iter().map(|(name, value)| (name, value.as_str())))
    });
    let lines = rows.into_iter().map(|row| match row {
        Ok(it) => line(&it),
        Err(corrupt) => Line {
            seq: corrupt.id.parse().unwrap_or(0),
            at: String::new(),
            who: String::new(),
            what: "this row cannot be read".to_owned(),
            on: String::new(),
            to: None,
            detail: String::new(),
            rest: None,
            hash: String::new(),
        },
    });
    Ok(AuditPage {
        frame: Frame::of(web, session, Here::Audit).await?,
        has_filter: filter != AuditFilter::default(),
        asked,
        wrong,
        doubt: web.engine.epoch.shown().doubt.map(|it| visible(&it.detail)),
        rows: marks.seq,
        head: marks.hash,
        lines: lines.collect(),
        older,
        searched: SEARCHED,
    })
}
