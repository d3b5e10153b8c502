//! Looking on: the fleet at a glance, the audit log, and the mails that rest in the outbox.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Page, Path, Query, page, views};
use crate::domain::ids::{GroupId, OutboxId};
use crate::store::ProjectFilter;
use crate::web::Web;
use crate::web::auth::{Caller, Role};
use crate::web::problem::Problem;

pub(super) async fn audit(
    State(web): State<Web>,
    caller: Caller,
    Query(paging): Query<Page>,
) -> Result<axum::Json<Value>, Problem> {
    caller.must_be(&[Role::Auditor, Role::Operator, Role::Approver, Role::Viewer])?;
    let limit = paging.limit();
    let rows = web.engine.store.audit(paging.after()?, limit).await?;
    let next = (rows.len() == limit).then(|| rows.last().map(|row| row.seq.to_string())).flatten();
    Ok(page(rows.iter().map(views::audit).collect(), next))
}

pub(super) async fn outbox(
    State(web): State<Web>,
    _: Caller,
    Query(paging): Query<Page>,
) -> Result<axum::Json<Value>, Problem> {
    let limit = paging.limit();
    let rows = web.engine.store.outbox(paging.after()?, limit).await?;
    let next = (rows.len() == limit).then(|| rows.last().map(|row| row.id.to_string())).flatten();
    Ok(page(rows.iter().map(views::mail).collect(), next))
}

pub(super) async fn mail(
    State(web): State<Web>,
    _: Caller,
    Path(id): Path<OutboxId>,
) -> Result<axum::Json<Value>, Problem> {
    let row = web.engine.store.outbox_row(id).await?;
    row.map(|row| axum::Json(views::mail(&row))).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "mail-not-found", format!("there is no mail {id}"))
    })
}

/// Counts by status, the most urgent projects, and what waits for people.
pub(super) async fn status(State(web): State<Web>, _: Caller) -> Result<axum::Json<Value>, Problem> {
    let (engine, now) = (&web.engine, web.engine.clock.now());
    let defaults = &engine.settings.policy;
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut urgent = Vec::new();
    let mut waiting = Vec::new();
    let mut unowned = 0u64;
    let mut after: Option<GroupId> = None;
    loop {
        let batch = engine.store.projects(&ProjectFilter::default(), after.as_ref(), 500).await?;
        let last = batch.len() < 500;
        after = batch.last().map(|project| project.group_id.clone());
        for project in batch {
            *counts.entry(project.status(defaults, now).as_str()).or_default() += 1;
            unowned += u64::from(project.owners.is_empty());
            if let Some(due) = project.due(defaults) {
                urgent.push((due, views::project(&project, defaults, now)));
            }
            if let Some(open) = project.open_rotation {
                waiting.push(json!({
                    "id": open.id, "state": open.state, "groupId": project.group_id, "projectName": project.name,
                }));
            }
        }
        urgent.sort_by_key(|(due, _)| *due);
        urgent.truncate(10);
        if last {
            break;
        }
    }
    let urgent: Vec<_> = urgent.into_iter().map(|(_, project)| project).collect();
    let projects: u64 = counts.values().sum();
    Ok(axum::Json(json!({
        "at": now,
        "database": engine.guard.shown(),
        "projects": projects,
        "byStatus": counts,
        "withoutOwner": unowned,
        "nextDue": urgent,
        "openRotations": waiting,
    })))
}
