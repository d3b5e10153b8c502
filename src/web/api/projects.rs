//! Projects: list, add, show, edit, remove, and why one is as it is.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Json, Page, Path, Query, object, page, views, word};
use crate::domain::ids::GroupId;
use crate::domain::key::Provider;
use crate::domain::preflight::failed;
use crate::domain::project::{PolicyOverride, Project, SinceSource, Status};
use crate::domain::role::Role;
use crate::domain::rotation::state::Hold;
use crate::domain::time::Timestamp;
use crate::engine::announce::remedy;
use crate::engine::command::{CommandError, NewProject, ProjectEdit};
use crate::store::ProjectFilter;
use crate::web::Web;
use crate::web::auth::Caller;
use crate::web::problem::Problem;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    status: Option<String>,
    owner: Option<String>,
    provider: Option<String>,
    name: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

pub(super) async fn list(
    State(web): State<Web>,
    _: Caller,
    Query(filter): Query<Filter>,
) -> Result<axum::Json<Value>, Problem> {
    let status = word("status", filter.status.as_deref(), Status::ALL)?;
    let provider = filter.provider.as_deref().map(str::parse::<Provider>).transpose();
    let rows = ProjectFilter {
        provider: provider.map_err(|error| Problem::invalid("provider", error))?,
        owner: filter.owner,
        name: filter.name,
    };
    let paging = Page { limit: filter.limit, cursor: filter.cursor };
    let (limit, mut after) = (paging.limit(), paging.after::<GroupId>()?);
    let (engine, now) = (&web.engine, web.engine.clock.now());
    let mut items = Vec::new();
    // A status is computed, so the database cannot filter on it: read on until the page is full.
    loop {
        let batch = engine.store.projects(&rows, after.as_ref(), limit).await?;
        let last = batch.len() < limit;
        for project in batch {
            after = Some(project.group_id.clone());
            if status.is_none_or(|wanted| project.status(&engine.settings.policy, now) == wanted) {
                items.push(views::project(&project, &engine.settings.policy, now));
            }
            if items.len() == limit {
                return Ok(page(items, after.map(|id| id.to_string())));
            }
        }
        if last {
            return Ok(page(items, None));
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Add {
    group_id: String,
    name: Option<String>,
    #[serde(default)]
    owners: Vec<String>,
    credential: Option<String>,
    environment: Option<String>,
    kms: Option<String>,
    alias: Option<String>,
    key_since: Option<Timestamp>,
    #[serde(default, deserialize_with = "object")]
    policy: Option<PolicyOverride>,
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn add(
    State(web): State<Web>,
    caller: Caller,
    Json(body): Json<Add>,
) -> Result<(StatusCode, axum::Json<Value>), Problem> {
    caller.must_be(Role::Operator)?;
    check_policy(body.policy.as_ref(), &web)?;
    let new = NewProject {
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
        return Ok((StatusCode::OK, shown(&web, &web.engine.check_project(new).await?)));
    }
    let project = web.engine.add_project(&caller.name, new).await?;
    Ok((StatusCode::CREATED, shown(&web, &project)))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Edit {
    name: Option<String>,
    owners: Option<Vec<String>>,
    credential: Option<String>,
    environment: Option<String>,
    #[serde(default, deserialize_with = "cleared")]
    kms: Option<String>,
    #[serde(default, deserialize_with = "cleared")]
    alias: Option<String>,
    key_since: Option<Timestamp>,
    #[serde(default, deserialize_with = "object")]
    policy: Option<PolicyOverride>,
}

/// A field that null clears: the engine takes an empty text for that.
fn cleared<'de, D: serde::Deserializer<'de>>(field: D) -> Result<Option<String>, D::Error> {
    Ok(Some(Option::<String>::deserialize(field)?.unwrap_or_default()))
}

pub(super) async fn edit(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
    Json(body): Json<Edit>,
) -> Result<axum::Json<Value>, Problem> {
    caller.must_be(Role::Operator)?;
    check_policy(body.policy.as_ref(), &web)?;
    let edit = ProjectEdit {
        name: body.name,
        owners: body.owners,
        credential: body.credential,
        environment: body.environment,
        kms: body.kms,
        alias: body.alias,
        key_since: body.key_since,
        policy: body.policy,
    };
    let project = web.engine.edit_project(&caller.name, &group(&id)?, edit).await?;
    Ok(shown(&web, &project))
}

/// A policy that can never be met is refused where it is given, not when it is needed.
fn check_policy(policy: Option<&PolicyOverride>, web: &Web) -> Result<(), Problem> {
    let Some(policy) = policy else { return Ok(()) };
    let faults = policy.over(&web.engine.settings.policy).faults(web.engine.clock.now());
    // A default reminder that lies before a shorter cryptoperiod is left out, not refused.
    let own = |field: &str| field != "remind_before" || policy.remind_before.is_some();
    match faults.iter().find(|(field, _)| own(field)) {
        Some((field, rule)) => Err(Problem::invalid(&format!("policy.{}", camel(field)), rule)),
        None => Ok(()),
    }
}

/// A field's name as the API writes it.
fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (head, tail) = word.split_at(1);
        name + &head.to_uppercase() + tail
    })
}

pub(super) async fn show(
    State(web): State<Web>,
    _: Caller,
    Path(id): Path<String>,
) -> Result<axum::Json<Value>, Problem> {
    Ok(shown(&web, &find(&web, &id).await?))
}

pub(super) async fn remove(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.must_be(Role::Operator)?;
    web.engine.remove_project(&caller.name, &group(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Why a project has the status it has, in sentences.
#[expect(
    clippy::too_many_lines,
    reason = "one sentence after the other, in the order in which they are shown"
)]
pub(super) async fn why(
    State(web): State<Web>,
    _: Caller,
    Path(id): Path<String>,
) -> Result<axum::Json<Value>, Problem> {
    let project = find(&web, &id).await?;
    let (defaults, now) = (&web.engine.settings.policy, web.engine.clock.now());
    let (mut sentences, mut drift) = (Vec::new(), None);
    match &project.current_key {
        Some(key) => sentences.push(format!("Atlas holds the key {key}.")),
        None => {
            sentences.push("Atlas holds no customer-managed key, as far as Keywheel has seen.".to_owned());
        }
    }
    if let Some(since) = project.key_since {
        let days = now.since(since).as_secs() / 86_400;
        sentences.push(match project.key_since_source {
            Some(SinceSource::FirstSeen) => {
                format!("It has served for at least {days} days: it was there when Keywheel first looked.")
            }
            Some(source) => {
                let says = match source {
                    SinceSource::Operator => "a person said so",
                    SinceSource::Rotation => "Keywheel's own rotation",
                    SinceSource::AtlasEvent => {
                        "Atlas' event about a rotated key, which does not name the key"
                    }
                    SinceSource::FirstSeen => "the first look",
                };
                format!("It has served for {days} days, since {since} (source: {source}, {says}).")
            }
            None => format!("It has served for {days} days."),
        });
    }
    if let Some(due) = project.due(defaults) {
        let interval = project.policy(defaults).interval;
        sentences.push(if due > now {
            format!("Its cryptoperiod of {interval} ends in {} days, at {due}.", now.until(due).as_secs() / 86_400)
        } else {
            format!("Its cryptoperiod of {interval} ended {} days ago, at {due}. Propose a new key with `keywheel rotate`.", now.since(due).as_secs() / 86_400)
        });
    }
    if project.valid == Some(false) {
        sentences.push("Atlas calls the key invalid and will shut the clusters down; re-enable the key in its key service.".to_owned());
    }
    if let Some(key) = &project.drift_key {
        sentences.push(format!("Somebody else set the key {key}. If that is right, say since when with `keywheel project edit --since`."));
        drift = web.engine.store.last_drift(&project.group_id).await?;
        sentences.extend(drift.iter().flat_map(|it| it.sentences.clone()));
    }
    if let Some(error) = &project.last_error {
        sentences.push(format!("The last look failed: {error}"));
    }
    if project.current_key.as_ref().is_some_and(crate::domain::key::KeyRef::is_versionless) {
        sentences.push(
            "The identifier names no version, so nobody can know how old the key is; set a versioned one."
                .to_owned(),
        );
    }
    if let Some(name) = &project.kms {
        sentences.push(match web.engine.store.last_look_up(&project.group_id).await? {
            Some((at, said)) => {
                format!("The look-up {name} was last asked for its newest key at {at}: {said}.")
            }
            None => format!("The look-up {name} was not asked for its newest key yet."),
        });
    }
    if project.owners.is_empty() {
        sentences.push(
            "It has no owner, so nobody is told; add one with `keywheel project edit --owner`.".to_owned(),
        );
    }
    if let Some(open) = project.open_rotation {
        let row = web.engine.rotation(open.id).await?;
        sentences.push(format!("Rotation {} to {} is {}.", open.id, row.rotation.new_key, open.state));
        if let Some(hold) = row.rotation.hold {
            sentences.push(format!("It waits: {hold}."));
            if let Some(check) = failed(&row.rotation.observing.checks).filter(|_| hold == Hold::Preflight) {
                sentences.push(format!("The check {} fails: {}.", check.name, check.detail));
            }
        }
        if let Some(cause) = row.rotation.cause {
            sentences.push(remedy(cause, &row.rotation));
        }
    }
    let status = project.status(defaults, now);
    let drift = drift.as_ref().map(views::drift);
    Ok(axum::Json(json!({
        "groupId": project.group_id, "name": project.name, "status": status, "sentences": sentences, "drift": drift,
    })))
}

/// The keys a project has had, the oldest first.
pub(super) async fn keys(
    State(web): State<Web>,
    _: Caller,
    Path(id): Path<String>,
) -> Result<axum::Json<Value>, Problem> {
    let project = find(&web, &id).await?;
    let keys = web.engine.store.keys(&project.group_id).await?;
    let keys = keys
        .iter()
        .map(|it| json!({ "key": it.key, "since": it.since, "until": it.until, "source": it.source }));
    Ok(page(keys.collect(), None))
}

pub(super) fn group(text: &str) -> Result<GroupId, Problem> {
    Ok(text.parse::<GroupId>().map_err(CommandError::from)?)
}

async fn find(web: &Web, id: &str) -> Result<Project, Problem> {
    let id = group(id)?;
    web.engine.store.project(&id).await?.ok_or_else(|| CommandError::NoProject(id).into())
}

fn shown(web: &Web, project: &Project) -> axum::Json<Value> {
    axum::Json(views::project(project, &web.engine.settings.policy, web.engine.clock.now()))
}
