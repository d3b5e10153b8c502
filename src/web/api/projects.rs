//! Projects: list, add, show, edit, remove, explain, and list keys.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Object, Paging, Path, Query, listed_row, views, word};
use crate::api::problem::Code;
use crate::api::project::{
    Acknowledgement, DueAcknowledgement, Key, NewProject, NewSilence, NewestKey, Project, ProjectEdit,
    ProjectQuery, RefreshedProjects, Why,
};
use crate::api::{CorruptRow, KeyPage, Listed, Page, ProjectPage};
use crate::domain::condition::ConditionKind;
use crate::domain::ids::GroupId;
use crate::domain::key::Provider;
use crate::domain::loosening::fields;
use crate::domain::project::{self, Status};
use crate::domain::role::Role;
use crate::domain::time::BadTime;
use crate::engine::command::{self, Added, CommandError};
use crate::engine::why;
use crate::store::{ConditionRow, ProjectFilter};
use crate::web::Web;
use crate::web::auth::Caller;
use crate::web::operation::{ATLAS, BODY, QUERY, needs, with_admin_fields};
use crate::web::problem::Problem;

/// The problems of an address that names a project.
const PROJECT: [Code; 2] = [Code::GroupIdInvalid, Code::ProjectNotFound];

/// The problems of the lookup of the newest key.
const NEWEST: [Code; 3] = [Code::NoNewestKey, Code::KeyService, Code::PreflightFailed];

pub(super) fn routes(web: &Web) -> OpenApiRouter<Web> {
    let read = |problems, routes| needs(web, Role::Viewer, problems, routes);
    let write = |problems, routes| needs(web, Role::Operator, problems, routes);
    let add_problems = [Code::GroupIdInvalid, Code::ProjectExists, Code::NobodyToTell, Code::Conflict];
    OpenApiRouter::new()
        .routes(read(&[&QUERY], routes!(list)))
        .routes(write(&[&BODY, &add_problems, &ATLAS], with_admin_fields(fields(), routes!(add))))
        .routes(read(&[&PROJECT], routes!(show)))
        .routes(write(
            &[&PROJECT, &BODY, &[Code::NobodyToTell, Code::Conflict], &ATLAS],
            with_admin_fields(fields(), routes!(edit)),
        ))
        .routes(write(&[&PROJECT, &[Code::RotationOpen, Code::Conflict]], routes!(remove)))
        .routes(read(&[&PROJECT, &[Code::RotationNotFound]], routes!(explain)))
        .routes(read(&[&PROJECT], routes!(keys)))
        .routes(write(&[&PROJECT, &NEWEST, &ATLAS], routes!(newest_key)))
        .routes(write(&[&PROJECT, &BODY, &[Code::ConditionNotFound, Code::Conflict]], routes!(acknowledge)))
        .routes(write(&[&PROJECT, &BODY], routes!(silence)))
        .routes(write(&[&PROJECT, &BODY], routes!(acknowledge_due)))
        .routes(write(&[&PROJECT, &[Code::Conflict]], routes!(refresh)))
        .routes(write(&[], routes!(refresh_all)))
}

#[utoipa::path(
    get, path = "/projects", tag = "projects", operation_id = "listProjects",
    summary = "List tracked projects",
    params(ProjectQuery),
    responses((status = 200, description = "A page of projects.", body = ProjectPage)),
)]
async fn list(
    State(web): State<Web>,
    Query(query): Query<ProjectQuery>,
) -> Result<Json<Page<Listed<Project>>>, Problem> {
    let status = word::<Status>("status", query.status.as_deref())?;
    let provider = query.provider.as_deref().map(str::parse::<Provider>).transpose();
    let rows = ProjectFilter {
        provider: provider.map_err(|error| Problem::invalid("provider", error))?,
        owner: query.owner,
        name: query.name,
    };
    let paging = Paging::new(query.limit, query.cursor);
    let (limit, mut after) = (paging.limit, paging.after::<GroupId>()?);
    let (engine, now) = (&web.engine, web.engine.clock.now());
    let mut items = Vec::new();
    // A status is computed, so the database cannot filter on it: read on until the page is full.
    loop {
        let before = after.clone();
        let batch = engine.store.list_projects(&rows, after.as_ref(), limit).await?;
        let read: Vec<_> = batch.iter().filter_map(|row| row.as_ref().ok()).cloned().collect();
        let on_record = conditions(&web, &read).await?;
        let last = batch.len() < limit;
        for row in batch {
            let project = match row {
                Ok(project) => project,
                Err(corrupt) => {
                    // Its status is not known, so it is in no list of one status.
                    let Ok(id) = corrupt.id.parse::<GroupId>() else { continue };
                    after = Some(id);
                    if status.is_none() {
                        items.push(Listed::Corrupt(CorruptRow::new(corrupt.id)));
                    }
                    if items.len() == limit {
                        return Ok(Json(Page { items, next: after.map(|id| id.to_string()) }));
                    }
                    continue;
                }
            };
            after = Some(project.group_id.clone());
            if status.is_none_or(|wanted| project.status(&engine.settings.policy, now) == wanted) {
                let row = views::project(&project, &on_record, &engine.settings.policy, now);
                items.push(Listed::Row(row));
            }
            if items.len() == limit {
                return Ok(Json(Page { items, next: after.map(|id| id.to_string()) }));
            }
        }
        // Where no id of a page can be read, there is no place to go on from.
        if last || after == before {
            return Ok(Json(Page { items, next: None }));
        }
    }
}

#[utoipa::path(
    post, path = "/projects", tag = "projects", operation_id = "addProject",
    summary = "Track a project; its key is read from Atlas at once",
    request_body = NewProject,
    responses(
        (status = 201, description = "The project, tracked.", body = Project),
        (status = 200, description = "A dry run: the project as it would be tracked.", body = Project),
    ),
)]
async fn add(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Object(body): Object<NewProject>,
) -> Result<(StatusCode, Json<Project>), Problem> {
    let new = command::NewProject {
        group_id: body.group_id,
        name: body.name,
        owners: body.owners,
        credential: body.credential,
        environment: body.environment,
        kms: body.kms,
        alias: body.alias,
        key_since: body.key_since,
        policy: body.policy,
    };
    if body.dry_run {
        let added = web.engine.check_project(caller.actor(), new).await?;
        return Ok((StatusCode::OK, shown_added(&web, &added).await?));
    }
    let added = web.engine.track_project(caller.actor(), new).await?;
    Ok((StatusCode::CREATED, shown_added(&web, &added).await?))
}

#[utoipa::path(
    patch, path = "/projects/{groupId}", tag = "projects", operation_id = "editProject",
    summary = "Change the record of a project",
    params(("groupId" = GroupId, Path, description = "Atlas' id of the project.")),
    request_body = ProjectEdit,
    responses((status = 200, description = "The project after the change.", body = Project)),
)]
async fn edit(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Object(body): Object<ProjectEdit>,
) -> Result<Json<Project>, Problem> {
    let edit = command::ProjectEdit {
        name: body.name.value(),
        owners: body.owners.value(),
        credential: body.credential.value(),
        environment: body.environment.value(),
        kms: body.kms,
        alias: body.alias,
        key_since: body.key_since.value(),
        policy: body.policy.value().unwrap_or_default(),
    };
    let project = web.engine.edit_project(caller.actor(), &group(&id)?, edit).await?;
    shown(&web, &project).await
}

#[utoipa::path(
    get, path = "/projects/{groupId}", tag = "projects", operation_id = "showProject",
    summary = "Show a project",
    params(("groupId" = GroupId, Path, description = "Atlas' id of the project.")),
    responses((status = 200, description = "The project.", body = Project)),
)]
async fn show(State(web): State<Web>, Path(id): Path<String>) -> Result<Json<Project>, Problem> {
    shown(&web, &find(&web, &id).await?).await
}

#[utoipa::path(
    delete, path = "/projects/{groupId}", tag = "projects", operation_id = "removeProject",
    summary = "Stop tracking a project",
    description = "Refused while a rotation is open. Its history stays.",
    params(("groupId" = GroupId, Path, description = "Atlas' id of the project.")),
    responses((status = 204, description = "The project is not tracked any more.")),
)]
async fn remove(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    web.engine.remove_project(caller.actor(), &group(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    get, path = "/projects/{groupId}/why", tag = "projects", operation_id = "explainProject",
    summary = "Explain a project's status in sentences",
    params(("groupId" = GroupId, Path, description = "Atlas' id of the project.")),
    responses((status = 200, description = "The reasons.", body = Why)),
)]
async fn explain(State(web): State<Web>, Path(id): Path<String>) -> Result<Json<Why>, Problem> {
    let project = find(&web, &id).await?;
    let why::Why { sentences, drift } = web.engine.why(&project).await?;
    let drift = drift.map(views::drift);
    let status = project.status(&web.engine.settings.policy, web.engine.clock.now());
    Ok(Json(Why { group_id: project.group_id, name: project.name, status, sentences, drift }))
}

#[utoipa::path(
    get, path = "/projects/{groupId}/keys", tag = "projects", operation_id = "listKeys",
    summary = "List the keys a project has had, the oldest first",
    params(("groupId" = GroupId, Path, description = "Atlas' id of the project.")),
    responses((status = 200, description = "The keys.", body = KeyPage)),
)]
async fn keys(State(web): State<Web>, Path(id): Path<String>) -> Result<Json<Page<Listed<Key>>>, Problem> {
    let project = find(&web, &id).await?;
    let keys = web.engine.store.list_keys(&project.group_id).await?;
    Ok(Json(Page { items: keys.into_iter().map(|key| listed_row(key, views::key)).collect(), next: None }))
}

#[utoipa::path(
    get, path = "/projects/{groupId}/newest-key", tag = "projects", operation_id = "lookUpNewestKey",
    summary = "Look up the newest usable key of a project",
    description = "Asks Atlas for the key in force and the project's lookup (`kms`; on AWS, its `alias`) for the newest usable \
                   key. Nothing is proposed.",
    params(("groupId" = GroupId, Path, description = "Atlas' id of the project.")),
    responses((status = 200, description = "The newest key, which may be the one in force.", body = NewestKey)),
)]
async fn newest_key(State(web): State<Web>, Path(id): Path<String>) -> Result<Json<NewestKey>, Problem> {
    let it = web.engine.newest_key(&group(&id)?).await?;
    let (key, current_key) = (it.key.to_string(), it.current.to_string());
    Ok(Json(NewestKey { key, current_key, kms: it.lookup, alias: it.alias, created_at: it.created }))
}

pub(super) fn group(text: &str) -> Result<GroupId, Problem> {
    Ok(text.parse::<GroupId>().map_err(CommandError::from)?)
}

async fn find(web: &Web, id: &str) -> Result<project::Project, Problem> {
    let id = group(id)?;
    web.engine.store.project(&id).await?.ok_or_else(|| CommandError::NoProject(id).into())
}

async fn shown(web: &Web, project: &project::Project) -> Result<Json<Project>, Problem> {
    let on_record = conditions(web, std::slice::from_ref(project)).await?;
    let (defaults, now) = (&web.engine.settings.policy, web.engine.clock.now());
    let mut shown = views::project(project, &on_record, defaults, now);
    let pending = web.engine.loosenings().await?;
    let own = pending.iter().filter(|it| it.subject == project.group_id.as_str());
    shown.loosenings = own.map(views::loosening).collect();
    Ok(Json(shown))
}

async fn shown_added(web: &Web, added: &Added) -> Result<Json<Project>, Problem> {
    let mut answer = shown(web, &added.project).await?;
    answer.0.rules_kept = added.rules_kept;
    Ok(answer)
}

/// The conditions on record of these projects, which are in the order of their ids.
async fn conditions(web: &Web, projects: &[project::Project]) -> Result<Vec<ConditionRow>, Problem> {
    let mut held = projects.iter().filter(|it| !it.holding.is_empty()).map(|it| &it.group_id);
    let Some(first) = held.next() else { return Ok(Vec::new()) };
    let last = held.next_back().unwrap_or(first);
    Ok(web.engine.store.conditions_of(&first.into(), &last.into()).await?)
}

#[utoipa::path(
    post, path = "/projects/{groupId}/conditions/{kind}/acknowledge", tag = "projects",
    operation_id = "acknowledgeCondition",
    summary = "Stop the repetitions of a condition",
    description = "For this start only, and for at most twelve hours. Its end is told all the same. Another cause or key \
                   tells it anew.",
    params(
        ("groupId" = GroupId, Path, description = "Atlas' id of the project."),
        ("kind" = ConditionKind, Path, description = "The condition."),
    ),
    request_body = Acknowledgement,
    responses((status = 200, description = "The project with its conditions.", body = Project)),
)]
async fn acknowledge(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path((id, kind)): Path<(String, String)>,
    Object(body): Object<Acknowledgement>,
) -> Result<Json<Project>, Problem> {
    let id = group(&id)?;
    let kind = kind.parse::<ConditionKind>().map_err(|error| Problem::invalid("kind", error))?;
    web.engine.acknowledge(&caller.name, &id, kind, body.comment.as_deref()).await?;
    shown(&web, &find(&web, id.as_str()).await?).await
}

#[utoipa::path(
    post, path = "/projects/{groupId}/due/acknowledge", tag = "projects", operation_id = "acknowledgeDue",
    summary = "Have the reminders of a due date wait for a planned day",
    description = "Nobody is reminded of this key until then. It counts for this key only, and for at most 7 days after \
                   the due date.",
    params(("groupId" = GroupId, Path, description = "Atlas' id of the project.")),
    request_body = DueAcknowledgement,
    responses((status = 200, description = "The project with the acknowledgement.", body = Project)),
)]
async fn acknowledge_due(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Object(body): Object<DueAcknowledgement>,
) -> Result<Json<Project>, Problem> {
    let id = group(&id)?;
    let until = body.until.parse().map_err(|error: BadTime| Problem::invalid("until", error))?;
    web.engine.acknowledge_due(&caller.name, &id, until, body.comment.as_deref()).await?;
    shown(&web, &find(&web, id.as_str()).await?).await
}

#[utoipa::path(
    post, path = "/projects/{groupId}/refresh", tag = "projects", operation_id = "refreshProject",
    summary = "Read a project from Atlas now",
    description = "What is found is recorded as at any look: another key is drift. An open rotation reads the project itself.",
    params(("groupId" = GroupId, Path, description = "Atlas' id of the project.")),
    responses((status = 200, description = "The project as it was found; `lastError` says why Atlas could not be read.", body = Project)),
)]
async fn refresh(State(web): State<Web>, Path(id): Path<String>) -> Result<Json<Project>, Problem> {
    let project = web.engine.refresh_project(&group(&id)?).await?;
    shown(&web, &project).await
}

#[utoipa::path(
    post, path = "/projects/refresh", tag = "projects", operation_id = "refreshProjects",
    summary = "Read every project from Atlas as soon as Atlas allows",
    responses((status = 200, description = "How many are read.", body = RefreshedProjects)),
)]
async fn refresh_all(State(web): State<Web>) -> Result<Json<RefreshedProjects>, Problem> {
    Ok(Json(RefreshedProjects { projects: web.engine.refresh_all().await? }))
}

#[utoipa::path(
    post, path = "/projects/{groupId}/silence", tag = "projects", operation_id = "silenceProject",
    summary = "Let the mails of a project wait",
    description = "Webhooks, the API and metrics go on. What still holds at the end is mailed then; what began and ended \
                   meanwhile is not. Without `for`, the silence that lasts ends.",
    params(("groupId" = GroupId, Path, description = "Atlas' id of the project.")),
    request_body = NewSilence,
    responses((status = 200, description = "The project with its silence.", body = Project)),
)]
async fn silence(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Object(body): Object<NewSilence>,
) -> Result<Json<Project>, Problem> {
    let id = group(&id)?;
    web.engine.silence(&caller.name, &id, body.span, body.comment.as_deref()).await?;
    shown(&web, &find(&web, id.as_str()).await?).await
}
