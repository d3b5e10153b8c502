//! Proposing the newest key for several projects: each old and new key with its checks, and only then the proposals.
//!
//! Each project is a proposal of its own, made by the command that the API uses: one that is refused does not stop the
//! others, and each still needs its own approval.

use std::collections::BTreeMap;

use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};

use super::super::api::rotations::planned;
use super::super::problem::Problem;
use super::due::{self, Asked};
use super::moment::moment;
use super::propose::CheckedKey;
use super::{Frame, Here, Session, Signed, Trouble, Web, page};
use crate::domain::day::Planned;
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::key::KeyRef;
use crate::domain::role::Role;
use crate::domain::text::visible;
use crate::engine::command::CommandError;
use crate::engine::propose::{NewProposal, Proposed};

/// Projects whose keys are looked up at the same time.
const AT_ONCE: usize = 4;

/// What can be proposed for a project.
struct Plan {
    group: GroupId,
    name: String,
    /// The date before which nothing is sent, and the same for people.
    on: Option<(Planned, String)>,
    checked: Option<CheckedKey>,
    refused: Option<String>,
}

/// What became of a proposal.
struct Outcome {
    name: String,
    group: GroupId,
    rotation: Option<RotationId>,
    refused: Option<String>,
}

#[derive(Template)]
#[template(path = "plan.html")]
struct PlanPage {
    frame: Frame,
    form: String,
    ready: usize,
    plans: Vec<Plan>,
    reason: String,
}

#[derive(Template)]
#[template(path = "proposed.html")]
struct ProposedPage {
    frame: Frame,
    heading: String,
    outcomes: Vec<Outcome>,
}

/// A form whose fields may come several times.
type Fields = Vec<(String, String)>;

fn all<'a>(fields: &'a Fields, name: &'a str) -> impl Iterator<Item = &'a str> {
    fields.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
}

pub(super) async fn decide(
    State(web): State<Web>,
    Signed(session): Signed,
    Form(fields): Form<Fields>,
) -> Response {
    match decided(&web, &session, &fields).await {
        Ok(answer) => answer,
        Err(problem) => Trouble::new(problem, &web, Some(&session)).into_response(),
    }
}

async fn decided(web: &Web, session: &Session, fields: &Fields) -> Result<Response, Problem> {
    session.check(all(fields, "form").next().unwrap_or_default())?;
    session.caller.must_be(Role::Operator)?;
    let reason = all(fields, "reason").next().unwrap_or_default().trim().to_owned();
    if all(fields, "step").next() == Some("propose") {
        return proposed(web, session, fields, &reason).await;
    }
    let mut groups = Vec::new();
    for text in all(fields, "project") {
        let group: GroupId = text.parse().map_err(CommandError::from)?;
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    if groups.is_empty() {
        return Ok(due::listed(web, session, &Asked::default(), Some("Tick at least one project.")).await);
    }
    if groups.len() > due::PAGE {
        return Err(Problem::invalid("project", format!("it takes at most {} projects at once", due::PAGE)));
    }
    let mut dates: BTreeMap<GroupId, Planned> = BTreeMap::new();
    for (group, date) in all(fields, "on").filter_map(|text| text.split_once(' ')) {
        dates.insert(group.parse().map_err(CommandError::from)?, planned(date)?);
    }
    let plans: Vec<Plan> = stream::iter(groups)
        .map(|group| {
            let on = dates.get(&group).copied();
            plan(web, session, group, on)
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    let frame = Frame::of(web, session, Here::Due).await?;
    let ready = plans.iter().filter(|it| it.refused.is_none()).count();
    Ok(page(StatusCode::OK, &PlanPage { frame, form: session.form(), ready, plans, reason }))
}

/// Looks the newest key of a project up and checks it; nothing is proposed.
async fn plan(web: &Web, session: &Session, group: GroupId, on: Option<Planned>) -> Plan {
    let engine = &web.engine;
    let name = name(web, &group).await;
    let checked = async {
        let newest = engine.newest_key(&group).await?;
        let ask =
            NewProposal { new_key: newest.key, reason: None, planned: on, emergency: false, dry_run: true };
        let proposal = engine.propose_on(&session.caller.name, &group, ask);
        Ok::<_, Problem>(Box::pin(proposal).await?)
    };
    let mut date = None;
    let (checked, refused) = match checked.await {
        Ok(Proposed::Checked { old_key, new_key, checks, planned_for }) => {
            date = on.zip(planned_for.map(|at| moment(at, engine.clock.now()).absolute));
            let mut it = CheckedKey::of(&old_key, &new_key, &checks);
            let refused = it.refused.take();
            (Some(it), refused)
        }
        Ok(Proposed::Same(_) | Proposed::Created(_)) => {
            (None, Some("a rotation to this key is open already".to_owned()))
        }
        Err(problem) => (None, Some(visible(problem.said().0))),
    };
    Plan { group, name, on: date, checked, refused }
}

async fn name(web: &Web, group: &GroupId) -> String {
    let project = web.engine.store.project(group).await.ok().flatten();
    project.map_or_else(|| group.to_string(), |it| visible(&it.name))
}

/// Proposes exactly the keys that were shown.
async fn proposed(web: &Web, session: &Session, fields: &Fields, reason: &str) -> Result<Response, Problem> {
    let shown: Vec<(GroupId, KeyRef, Option<Planned>)> = all(fields, "proposal")
        .map(|text| {
            let mut parts = text.split(' ');
            let group: GroupId = parts.next().unwrap_or_default().parse().map_err(CommandError::from)?;
            let key = parts.next().unwrap_or_default().parse().map_err(CommandError::KeyInvalid)?;
            Ok::<_, CommandError>((group, key, parts.next().map(planned).transpose()?))
        })
        .collect::<Result<_, _>>()?;
    if shown.is_empty() || shown.len() > due::PAGE {
        return Err(Problem::invalid("proposal", "go back to the list and tick the projects again"));
    }
    let reason = Some(reason.to_owned()).filter(|it| !it.is_empty());
    let outcomes: Vec<Outcome> = stream::iter(shown)
        .map(|(group, new_key, planned)| {
            let reason = reason.clone();
            async move {
                let name = name(web, &group).await;
                let ask = NewProposal { new_key, reason, planned, emergency: false, dry_run: false };
                let proposal = web.engine.propose_on(&session.caller.name, &group, ask);
                let (rotation, refused) = match Box::pin(proposal).await {
                    Ok(Proposed::Created(row) | Proposed::Same(row)) => (Some(row.rotation.id), None),
                    Ok(Proposed::Checked { .. }) => (None, None),
                    Err(error) => (None, Some(visible(Problem::from(error).said().0))),
                };
                Outcome { name, group, rotation, refused }
            }
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    let done = outcomes.iter().filter(|it| it.rotation.is_some()).count();
    let heading = match outcomes.len() - done {
        0 => format!("{done} proposed"),
        not => format!("{done} proposed, {not} not"),
    };
    let frame = Frame::of(web, session, Here::Due).await?;
    Ok(page(StatusCode::OK, &ProposedPage { frame, heading, outcomes }))
}
