//! Looking on: the fleet at a glance, the audit log, the hooks, and the mails that rest in the outbox.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Page, Path, Query, page, views};
use crate::domain::ids::OutboxId;
use crate::domain::role::Role;
use crate::engine::fleet::Fleet;
use crate::web::Web;
use crate::web::auth::Caller;
use crate::web::problem::Problem;

pub(super) async fn audit(
    State(web): State<Web>,
    caller: Caller,
    Query(paging): Query<Page>,
) -> Result<axum::Json<Value>, Problem> {
    caller.must_be(Role::Viewer)?;
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

/// The hooks with what came by them since the process began.
pub(super) async fn hooks(State(web): State<Web>, _: Caller) -> axum::Json<Value> {
    let server = &web.engine.settings.public_url;
    let items =
        web.engine.intake.tallies().into_iter().map(|(name, tally)| views::hook(&name, &tally, server));
    page(items.collect(), None)
}

/// Counts by status, the most urgent projects, and what waits for people.
pub(super) async fn status(State(web): State<Web>, _: Caller) -> Result<axum::Json<Value>, Problem> {
    let (engine, now) = (&web.engine, web.engine.clock.now());
    let fleet = Fleet::read(engine).await?;
    let open = fleet.open.iter().filter_map(|project| Some((project, project.open_rotation?)));
    let open = open.map(|(project, open)| {
        json!({
            "id": open.id, "state": open.state, "groupId": project.group_id, "projectName": project.name,
        })
    });
    let urgent = fleet.urgent.iter().map(|(_, it)| views::project(it, &engine.settings.policy, now));
    let mails = engine.store.mail_counts().await?;
    let mails = |state: &str| mails.iter().find(|it| it.state == state).map_or(0, |it| it.mails);
    let by_status: BTreeMap<_, _> = fleet.by_status.iter().map(|(it, count)| (it.as_str(), count)).collect();
    Ok(axum::Json(json!({
        "at": now,
        "database": engine.guard.shown(),
        "projects": fleet.projects(),
        "byStatus": by_status,
        "withoutOwner": fleet.without_owner,
        "nextDue": urgent.collect::<Vec<_>>(),
        "openRotations": open.collect::<Vec<_>>(),
        "mails": { "waiting": mails("waiting"), "failed": mails("failed"), "unaddressed": mails("unaddressed") },
    })))
}
