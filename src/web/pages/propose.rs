//! Proposing a new key for one project: a form, the checks, and only then the proposal.
//!
//! The first press checks and proposes nothing; the second proposes exactly the key that was shown, through the
//! command that the API uses.

use askama::Template;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::super::api::rotations::planned;
use super::super::problem::Problem;
use super::parts::{Part, compared};
use super::project::find;
use super::word::{Word, checks};
use super::{Frame, Here, Session, Signed, Trouble, Web, onward, page};
use crate::domain::ids::GroupId;
use crate::domain::key::{KeyRef, Provider};
use crate::domain::preflight::{Check, failed};
use crate::domain::role::Role;
use crate::domain::text::visible;
use crate::engine::command::CommandError;
use crate::engine::propose::{NewProposal, Proposed};

/// A key that was checked.
pub(super) struct CheckedKey {
    pub(super) parts: Vec<Part>,
    pub(super) old_key: String,
    pub(super) new_key: String,
    pub(super) checks: Vec<(Word, String, String)>,
    pub(super) said: String,
    /// Why it cannot be proposed.
    pub(super) refused: Option<String>,
}

impl CheckedKey {
    pub(super) fn of(old_key: &KeyRef, new_key: &KeyRef, all: &[Check]) -> Self {
        let (checks, said) = checks(all);
        Self {
            parts: compared(old_key, new_key),
            old_key: visible(&old_key.to_string()),
            new_key: new_key.to_string(),
            checks,
            said,
            refused: failed(all).map(|it| visible(&it.detail)),
        }
    }
}

#[derive(Template)]
#[template(path = "propose.html")]
struct ProposePage {
    frame: Frame,
    form: String,
    group: GroupId,
    project: String,
    service: &'static str,
    lookup: Option<String>,
    key: String,
    reason: String,
    on: String,
    error: Option<String>,
    /// The field that it is about.
    wrong: &'static str,
    /// Whom the policy names for emergencies; empty where it names nobody.
    may: String,
    emergency: bool,
    checked: Option<CheckedKey>,
    /// How many people are asked.
    approvals: u32,
}

/// A key that is to be proposed again.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Before {
    #[serde(default)]
    key: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Given {
    form: String,
    step: String,
    #[serde(default)]
    key: String,
    #[serde(default)]
    reason: String,
    /// A day before which nothing is sent.
    #[serde(default)]
    on: String,
    /// Ticked for an emergency.
    #[serde(default)]
    emergency: Option<String>,
}

pub(super) async fn show(
    State(web): State<Web>,
    Signed(session): Signed,
    Path(id): Path<String>,
    Query(before): Query<Before>,
) -> Response {
    let given = Given { key: before.key, ..Given::default() };
    form(&web, &session, &id, &given, (None, None)).await
}

pub(super) async fn decide(
    State(web): State<Web>,
    Signed(session): Signed,
    Path(id): Path<String>,
    Form(given): Form<Given>,
) -> Response {
    match decided(&web, &session, &id, &given).await {
        Ok(Next::To(path)) => onward(&path, None),
        Ok(Next::Checked(checked)) => form(&web, &session, &id, &given, (None, Some(checked))).await,
        Err(problem) if problem.status() == StatusCode::FORBIDDEN && given.emergency.is_none() => {
            Trouble::new(problem, &web, Some(&session)).into_response()
        }
        // The project itself may be what is not there.
        Err(problem) => form(&web, &session, &id, &given, (Some(problem), None)).await,
    }
}

/// What follows on a form.
enum Next {
    To(String),
    Checked(CheckedKey),
}

async fn decided(web: &Web, session: &Session, id: &str, given: &Given) -> Result<Next, Problem> {
    session.check(&given.form)?;
    session.caller.must_be(Role::Operator)?;
    let (project, name) = (find(web, id).await?, &session.caller.name);
    let engine = &web.engine;
    let key: KeyRef = match given.step.as_str() {
        "newest" => engine.newest_key(&project.group_id).await?.key,
        "check" | "propose" => given.key.trim().parse().map_err(CommandError::KeyInvalid)?,
        _ => return Err(Problem::invalid("step", "it is one of newest, check and propose")),
    };
    let reason = Some(given.reason.trim().to_owned()).filter(|it| !it.is_empty());
    let dry_run = given.step != "propose";
    let planned = Some(given.on.trim()).filter(|it| !it.is_empty()).map(planned).transpose()?;
    let ask = NewProposal { new_key: key, reason, planned, emergency: given.emergency.is_some(), dry_run };
    Ok(match engine.propose_on(name, &project.group_id, ask).await? {
        Proposed::Created(row) | Proposed::Same(row) => Next::To(format!("/rotations/{}", row.rotation.id)),
        Proposed::Checked { old_key, new_key, checks: all, .. } => {
            Next::Checked(CheckedKey::of(&old_key, &new_key, &all))
        }
    })
}

/// The field of the form that a problem is about.
fn wrong(problem: &Problem) -> &'static str {
    match (problem.field(), problem.said().1) {
        (Some("plannedFor"), _) => "on",
        (Some("reason"), _) => "reason",
        (_, "review-open" | "forbidden") => "emergency",
        _ => "key",
    }
}

async fn form(
    web: &Web,
    session: &Session,
    id: &str,
    given: &Given,
    (problem, checked): (Option<Problem>, Option<CheckedKey>),
) -> Response {
    let made = async {
        session.caller.must_be(Role::Operator)?;
        let project = find(web, id).await?;
        let policy = project.policy(&web.engine.settings.policy);
        Ok::<_, Problem>(ProposePage {
            frame: Frame::of(web, session, Here::Elsewhere).await?,
            form: session.form(),
            project: visible(&project.name),
            service: project.provider.map_or("the key service", Provider::service),
            lookup: project.kms.as_deref().map(visible),
            key: given.key.clone(),
            reason: given.reason.clone(),
            on: given.on.trim().to_owned(),
            wrong: problem.as_ref().map_or("", wrong),
            may: visible(&policy.emergency.names()),
            emergency: given.emergency.is_some(),
            error: problem.as_ref().map(|it| visible(it.said().0)),
            checked,
            approvals: if given.emergency.is_some() {
                policy.in_emergency().approvals
            } else {
                policy.approvals
            },
            group: project.group_id,
        })
    };
    match made.await {
        Ok(it) => page(problem.as_ref().map_or(StatusCode::OK, Problem::status), &it),
        Err(problem) => Trouble::new(problem, web, Some(session)).into_response(),
    }
}
