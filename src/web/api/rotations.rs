//! Rotations: propose, list, show, journal, and the decisions of people.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::projects::group;
use super::{Body, Object, Paging, Path, Query, views, word};
use crate::api::problem::Code;
use crate::api::rotation::{
    Checked, Decision, JournalEntry, NewComment, Proposal, Proposed, Rotation, RotationQuery,
};
use crate::api::{JournalPage, Listed, NumberedPage, Page, RotationPage};
use crate::domain::day::Planned;
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::role::Role;
use crate::domain::rotation::state::State as RotationState;
use crate::domain::time::BadTime;
use crate::engine::command::{CommandError, OperatorVerb};
use crate::engine::propose::{self, NewProposal};
use crate::store::{CorruptRow, RotationRow};
use crate::web::Web;
use crate::web::auth::Caller;
use crate::web::operation::{ATLAS, BODY, QUERY, body_optional, needs, needs_one_of};
use crate::web::problem::Problem;

/// The problems of a proposal.
const PROPOSAL: [Code; 11] = [
    Code::GroupIdInvalid,
    Code::ProjectNotFound,
    Code::KeyInvalid,
    Code::KeyOtherPlace,
    Code::KeyUnchanged,
    Code::Versionless,
    Code::PreflightFailed,
    Code::RotationOpen,
    Code::Conflict,
    Code::Forbidden,
    Code::ReviewOpen,
];

/// The problems of an address that names a rotation.
const ROTATION: [Code; 2] = [Code::NotFound, Code::RotationNotFound];

/// The problems of a decision.
const DECISION: [Code; 4] = [Code::IllegalTransition, Code::ProposalChanged, Code::Tampered, Code::Conflict];

pub(super) fn routes(web: &Web) -> OpenApiRouter<Web> {
    let read = |problems, routes| needs(web, Role::Viewer, problems, routes);
    let steer = |routes| needs(web, Role::Operator, &[&BODY, &ROTATION, &DECISION], body_optional(routes));
    let vote = |own: &[Code], routes| {
        needs(web, Role::Approver, &[&BODY, &ROTATION, &DECISION, own], body_optional(routes))
    };
    OpenApiRouter::new()
        .routes(needs(web, Role::Operator, &[&BODY, &PROPOSAL, &ATLAS], routes!(propose)))
        .routes(read(&[&QUERY, &[Code::GroupIdInvalid]], routes!(list)))
        .routes(read(&[&ROTATION], routes!(show)))
        .routes(read(&[&ROTATION, &QUERY], routes!(journal)))
        .routes(vote(&[Code::SelfApproval, Code::VoteNotCounted], routes!(approve)))
        .routes(vote(&[Code::NothingToWithdraw], routes!(withdraw)))
        .routes(vote(&[], routes!(reject)))
        .routes(needs_one_of(
            web,
            &[Role::Approver, Role::Operator],
            &[&BODY, &ROTATION, &[Code::IllegalTransition, Code::ProposalChanged]],
            routes!(comment),
        ))
        .routes(steer(routes!(cancel)))
        .routes(steer(routes!(resume)))
        .routes(steer(routes!(rollback)))
        .routes(steer(routes!(accept)))
        .routes(steer(routes!(close)))
}

#[utoipa::path(
    post, path = "/projects/{groupId}/rotations", tag = "rotations", operation_id = "proposeRotation",
    summary = "Propose a new key",
    params(("groupId" = GroupId, Path, description = "Atlas' id of the project.")),
    request_body = Proposal,
    responses(
        (status = 201, description = "The new rotation.", body = Rotation),
        (status = 200, description = "The open rotation with the same key, or the result of a dry run.", body = Proposed),
    ),
)]
async fn propose(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Object(body): Object<Proposal>,
) -> Result<(StatusCode, Json<Proposed>), Problem> {
    let Proposal { new_key, reason, planned_for, emergency, dry_run } = body;
    let group = group(&id)?;
    let new_key = new_key.parse().map_err(CommandError::KeyInvalid)?;
    let planned = planned_for.as_deref().map(planned).transpose()?;
    let ask = NewProposal { new_key, reason, planned, emergency, dry_run };
    let proposed = web.engine.propose_on(&caller.name, &group, ask).await?;
    let (status, answer) = match proposed {
        propose::Proposed::Created(row) => (StatusCode::CREATED, rotation(&web, &row).await?),
        propose::Proposed::Same(row) => (StatusCode::OK, rotation(&web, &row).await?),
        propose::Proposed::Checked { old_key, new_key, planned_for, checks } => {
            let (old_key, new_key) = (old_key.to_string(), new_key.to_string());
            let checked = Checked { dry_run: true, old_key, new_key, planned_for, checks };
            return Ok((StatusCode::OK, Json(Proposed::Checked(checked))));
        }
    };
    Ok((status, Json(Proposed::Rotation(Box::new(answer)))))
}

/// Reads the date of a proposal.
pub(in crate::web) fn planned(text: &str) -> Result<Planned, CommandError> {
    text.parse()
        .map_err(|error: BadTime| CommandError::Invalid { field: "plannedFor", rule: error.to_string() })
}

#[utoipa::path(
    get, path = "/rotations", tag = "rotations", operation_id = "listRotations",
    summary = "List rotations, the newest first",
    params(RotationQuery),
    responses((status = 200, description = "A page of rotations.", body = RotationPage)),
)]
async fn list(
    State(web): State<Web>,
    Query(query): Query<RotationQuery>,
) -> Result<Json<Page<Listed<Rotation>>>, Problem> {
    let state = word::<RotationState>("state", query.state.as_deref())?;
    let project = query.group_id.as_deref().map(group).transpose()?;
    let paging = Paging::new(query.limit, query.cursor);
    let rows =
        web.engine.store.list_rotations(state, project.as_ref(), paging.after()?, paging.limit).await?;
    let mut read = Vec::with_capacity(rows.len());
    for row in rows {
        read.push(match row {
            Ok(row) => Ok(rotation(&web, &row).await?),
            Err(corrupt) => Err(corrupt),
        });
    }
    Ok(paging.listed(read, |row| row.id.to_string(), |row| row))
}

#[utoipa::path(
    get, path = "/rotations/{id}", tag = "rotations", operation_id = "showRotation",
    summary = "Show a rotation",
    params(("id" = RotationId, Path, description = "The rotation's id.")),
    responses((status = 200, description = "The rotation.", body = Rotation)),
)]
async fn show(State(web): State<Web>, Path(id): Path<RotationId>) -> Result<Json<Rotation>, Problem> {
    Ok(Json(rotation(&web, &web.engine.rotation(id).await?).await?))
}

#[utoipa::path(
    get, path = "/rotations/{id}/journal", tag = "rotations", operation_id = "listJournal",
    summary = "List the journal of a rotation, the oldest entry first",
    params(("id" = RotationId, Path, description = "The rotation's id."), NumberedPage),
    responses((status = 200, description = "A page of the journal.", body = JournalPage)),
)]
async fn journal(
    State(web): State<Web>,
    Path(id): Path<RotationId>,
    Query(page): Query<NumberedPage>,
) -> Result<Json<Page<Listed<JournalEntry>>>, Problem> {
    web.engine.rotation(id).await?;
    let paging = Paging::new(page.limit, page.cursor);
    let rows = web.engine.store.list_journal(id, paging.after()?.unwrap_or(0), paging.limit).await?;
    // An entry's id on the wire is its number in the rotation.
    let number =
        |row: CorruptRow| CorruptRow { id: row.id.rsplit('/').next().unwrap_or_default().to_owned() };
    let rows = rows.into_iter().map(|row| row.map_err(number)).collect();
    Ok(paging.listed(rows, |row| row.seq.to_string(), views::journal))
}

#[utoipa::path(
    post, path = "/rotations/{id}/comment", tag = "rotations", operation_id = "commentOnRotation",
    summary = "Comment on an open rotation without deciding",
    description = "The comment is no vote, changes no state and no `version`, and keeps nobody from approving.",
    params(("id" = RotationId, Path, description = "The rotation's id.")),
    request_body = NewComment,
    responses((status = 200, description = "The rotation with the comment.", body = Rotation)),
)]
async fn comment(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<RotationId>,
    Object(body): Object<NewComment>,
) -> Result<Json<Rotation>, Problem> {
    let hash = body.proposal_hash.as_deref();
    let row = web.engine.comment(caller.name.as_str(), id, &body.comment, hash).await?;
    Ok(Json(rotation(&web, &row).await?))
}

/// The handler of a decision: each is an operation of its own, so that each names its role.
macro_rules! decision {
    ($name:ident, $verb:ident, $path:literal, $operation:literal, $summary:literal) => {
        #[utoipa::path(
            post, path = $path, tag = "rotations", operation_id = $operation, summary = $summary,
            params(("id" = RotationId, Path, description = "The rotation's id.")),
            request_body = Decision,
            responses((status = 200, description = "The rotation after the decision.", body = Rotation)),
        )]
        async fn $name(
            State(web): State<Web>,
            Extension(caller): Extension<Caller>,
            Path(id): Path<RotationId>,
            Body(body): Body,
        ) -> Result<Json<Rotation>, Problem> {
            decide(&web, &caller, id, OperatorVerb::$verb, &body).await
        }
    };
}

decision!(approve, Approve, "/rotations/{id}/approve", "approveRotation", "Approve a rotation");
decision!(
    withdraw,
    Withdraw,
    "/rotations/{id}/withdraw",
    "withdrawApproval",
    "Withdraw one's own approval before anything was sent to Atlas"
);
decision!(reject, Reject, "/rotations/{id}/reject", "rejectRotation", "Reject a rotation");
decision!(
    cancel,
    Cancel,
    "/rotations/{id}/cancel",
    "cancelRotation",
    "Cancel a rotation before anything was sent to Atlas"
);
decision!(
    resume,
    Resume,
    "/rotations/{id}/resume",
    "resumeRotation",
    "Let a rotation that needs an operator observe again and go on"
);
decision!(rollback, Rollback, "/rotations/{id}/rollback", "rollBackRotation", "Put the old key back");
decision!(
    accept,
    Accept,
    "/rotations/{id}/accept",
    "acceptRotation",
    "Accept the new key without Keywheel's verification"
);
decision!(
    close,
    Close,
    "/rotations/{id}/close",
    "closeRotation",
    "End a rotation that needs an operator and leave the key as it is"
);

async fn decide(
    web: &Web,
    caller: &Caller,
    id: RotationId,
    verb: OperatorVerb,
    body: &[u8],
) -> Result<Json<Rotation>, Problem> {
    let Decision { comment, proposal_hash, tail } =
        if body.is_empty() { Decision::default() } else { Object::from_bytes(body)?.0 };
    if let Some(tail) = tail
        && tail.trim() != web.engine.rotation(id).await?.rotation.new_key.tail()
    {
        return Err(Problem::invalid("tail", "it is not the end of the new key; nothing was decided"));
    }
    let row = web.engine.say(caller.name.as_str(), id, verb, comment, proposal_hash.as_deref()).await?;
    Ok(Json(rotation(web, &row).await?))
}

/// A rotation as the API answers it.
pub(in crate::web) async fn rotation(web: &Web, row: &RotationRow) -> Result<Rotation, Problem> {
    let (store, id) = (&web.engine.store, row.rotation.id);
    let why = web.engine.why_waiting(row).await?;
    let (votes, comments) = (store.approvals(id).await?, store.comments(id).await?);
    Ok(views::rotation(row, votes, comments, store.proof(id).await?.as_ref(), why))
}
