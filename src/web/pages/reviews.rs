//! The reviews that emergency rotations leave open, with the form that closes one, and those that were closed.

use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::super::problem::Problem;
use super::moment::{Moment, moment};
use super::{Frame, Here, Session, Signed, Trouble, Web, onward, page};
use crate::domain::ids::RotationId;
use crate::domain::role::Role;
use crate::domain::text::visible;
use crate::store;

/// A review.
struct Review {
    id: RotationId,
    project: String,
    by: String,
    at: Moment,
    reason: String,
    /// Why this person may not close it; `None` for who may.
    refused: Option<String>,
    /// Who closed it, when, and what they found.
    closed: Option<(String, Moment, String)>,
    /// What was typed, and what is wrong with it.
    given: String,
    error: Option<String>,
}

#[derive(Template)]
#[template(path = "reviews.html")]
struct ReviewsPage {
    frame: Frame,
    heading: String,
    form: String,
    has_error: bool,
    open: Vec<Review>,
    closed: Vec<Review>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Given {
    form: String,
    #[serde(default)]
    finding: String,
}

pub(super) async fn show(State(web): State<Web>, Signed(session): Signed) -> Response {
    listed(&web, &session, None).await
}

pub(super) async fn close(
    State(web): State<Web>,
    Signed(session): Signed,
    Path(id): Path<RotationId>,
    Form(given): Form<Given>,
) -> Response {
    let closed = async {
        session.check(&given.form)?;
        session.caller.must_be(Role::Approver)?;
        Ok::<_, Problem>(web.engine.close_review(session.caller.actor(), id, &given.finding).await?)
    };
    match closed.await {
        Ok(_) => onward("/reviews", None),
        Err(problem) if problem.field() == Some("finding") => {
            listed(&web, &session, Some((id, &given.finding, problem))).await
        }
        Err(problem) => Trouble::new(problem, &web, Some(&session)).into_response(),
    }
}

async fn listed(web: &Web, session: &Session, wrong: Option<(RotationId, &str, Problem)>) -> Response {
    let status = wrong.as_ref().map_or(StatusCode::OK, |(.., problem)| problem.status());
    match shown(web, session, wrong.as_ref()).await {
        Ok(it) => page(status, &it),
        Err(problem) => Trouble::new(problem, web, Some(session)).into_response(),
    }
}

async fn shown(
    web: &Web,
    session: &Session,
    wrong: Option<&(RotationId, &str, Problem)>,
) -> Result<ReviewsPage, Problem> {
    let (mut open, mut closed) = (Vec::new(), Vec::new());
    for review in web.engine.reviews().await? {
        let list = if review.is_open() { &mut open } else { &mut closed };
        list.push(seen(web, session, review, wrong).await?);
    }
    closed.reverse();
    Ok(ReviewsPage {
        frame: Frame::of(web, session, Here::Elsewhere).await?,
        heading: match open.len() {
            0 => "No review is open".to_owned(),
            1 => "1 review is open".to_owned(),
            count => format!("{count} reviews are open"),
        },
        form: session.form(),
        has_error: wrong.is_some(),
        open,
        closed,
    })
}

async fn seen(
    web: &Web,
    session: &Session,
    it: store::Review,
    wrong: Option<&(RotationId, &str, Problem)>,
) -> Result<Review, Problem> {
    let (engine, now) = (&web.engine, web.engine.clock.now());
    let refused = if !it.is_open() {
        None
    } else if session.caller.must_be(Role::Approver).is_err() {
        Some("the role approver closes reviews".to_owned())
    } else {
        engine.may_not_close(&session.caller.name, &it).await?
    };
    let wrong = wrong.filter(|(id, ..)| *id == it.rotation_id);
    let closed = it.closed_by.as_ref().zip(it.closed_at);
    Ok(Review {
        id: it.rotation_id,
        project: visible(&it.project_name),
        by: visible(&it.requested_by),
        at: moment(it.requested_at, now),
        reason: visible(&it.reason),
        refused,
        closed: closed.map(|(by, at)| {
            (visible(by), moment(at, now), visible(it.finding.as_deref().unwrap_or_default()))
        }),
        given: wrong.map(|(_, given, _)| (*given).to_owned()).unwrap_or_default(),
        error: wrong.map(|(.., problem)| visible(problem.said().0)),
    })
}
