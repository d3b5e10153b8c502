//! The form that exports the evidence of a period.

use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{Datelike, Months, NaiveDate};
use serde::Deserialize;

use super::super::api::evidence::answer;
use super::super::problem::Problem;
use super::{Frame, Here, Session, Signed, Trouble, Web, page};
use crate::domain::role::Role;
use crate::domain::text::visible;
use crate::domain::time::Timestamp;
use crate::engine::evidence::EvidenceRequest;

#[derive(Template)]
#[template(path = "evidence.html")]
struct EvidencePage {
    frame: Frame,
    form: String,
    /// The fingerprint of the key that signs.
    fingerprint: String,
    may_export: bool,
    from: String,
    to: String,
    /// The field that is wrong, and why.
    wrong: Option<(String, String)>,
}

/// The days of the form.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Given {
    form: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    to: String,
}

pub(super) async fn show(State(web): State<Web>, Signed(session): Signed) -> Response {
    let today = web.engine.clock.now().as_chrono().date_naive();
    let to = today.with_day(1).unwrap_or(today);
    let from = to.checked_sub_months(Months::new(1)).unwrap_or(to);
    shown(&web, &session, (from.to_string(), to.to_string()), None).await
}

pub(super) async fn export(
    State(web): State<Web>,
    Signed(session): Signed,
    Form(given): Form<Given>,
) -> Response {
    match made(&web, &session, &given).await {
        Ok(bundle) => bundle,
        Err(problem) if problem.field().is_some() => {
            shown(&web, &session, (given.from, given.to), Some(problem)).await
        }
        Err(problem) => Trouble::new(problem, &web, Some(&session)).into_response(),
    }
}

async fn made(web: &Web, session: &Session, given: &Given) -> Result<Response, Problem> {
    session.check(&given.form)?;
    session.caller.must_be(Role::Auditor)?;
    let asked = EvidenceRequest { from: day("from", &given.from)?, to: day("to", &given.to)?, project: None };
    Ok(answer(web.engine.export_evidence(&session.caller.name, &asked).await?))
}

fn day(field: &str, text: &str) -> Result<Timestamp, Problem> {
    let day: Option<NaiveDate> = text.trim().parse().ok();
    let at = day.and_then(|it| it.and_hms_opt(0, 0, 0));
    at.map(|at| Timestamp::from_chrono(at.and_utc()))
        .ok_or_else(|| Problem::invalid(field, "it takes a date such as 2026-11-28"))
}

async fn shown(
    web: &Web,
    session: &Session,
    (from, to): (String, String),
    wrong: Option<Problem>,
) -> Response {
    let status = wrong.as_ref().map_or(StatusCode::OK, Problem::status);
    let frame = match Frame::of(web, session, Here::Audit).await {
        Ok(frame) => frame,
        Err(error) => return Trouble::new(error, web, Some(session)).into_response(),
    };
    let wrong = wrong.map(|it| (it.field().unwrap_or_default().to_owned(), visible(it.said().0)));
    let it = EvidencePage {
        frame,
        form: session.form(),
        fingerprint: web.engine.store.seals().fingerprint().unwrap_or_default(),
        may_export: session.caller.must_be(Role::Auditor).is_ok(),
        from,
        to,
        wrong,
    };
    page(status, &it)
}
