//! The status of the fleet: counts by status, the most urgent projects, open rotations, and mails.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::views;
use crate::api::record::{FleetStatus, MailCounts, OpenRotationOf};
use crate::domain::role::Role;
use crate::engine::fleet::Fleet;
use crate::web::Web;
use crate::web::operation::needs;
use crate::web::problem::Problem;

pub(super) fn routes(web: &Web) -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(needs(web, Role::Viewer, &[], routes!(show)))
}

#[utoipa::path(
    get, path = "/status", tag = "watching", operation_id = "showStatus",
    summary = "Show the status of the fleet",
    responses((status = 200, description = "The fleet.", body = FleetStatus)),
)]
async fn show(State(web): State<Web>) -> Result<Json<FleetStatus>, Problem> {
    let (engine, now) = (&web.engine, web.engine.clock.now());
    let fleet = Fleet::read(engine).await?;
    let open = fleet.open.iter().filter_map(|project| Some((project, project.open_rotation?)));
    let open = open.map(|(project, open)| OpenRotationOf {
        id: open.id,
        state: open.state,
        group_id: project.group_id.clone(),
        project_name: project.name.clone(),
    });
    let mut on_record = Vec::new();
    for (_, it) in &fleet.urgent {
        if !it.holding.is_empty() {
            on_record
                .extend(engine.store.conditions_of(&(&it.group_id).into(), &(&it.group_id).into()).await?);
        }
    }
    let urgent =
        fleet.urgent.iter().map(|(_, it)| views::project(it, &on_record, &engine.settings.policy, now));
    let mails = engine.store.mail_counts().await?;
    Ok(Json(FleetStatus {
        at: now,
        database: views::database(engine.epoch.shown()),
        conditions: engine.installation().await?.iter().map(views::condition).collect(),
        projects: fleet.projects(),
        by_status: fleet.by_status.iter().map(|(it, count)| (it.to_string(), *count)).collect(),
        without_owner: fleet.without_owner,
        next_due: urgent.collect(),
        open_rotations: open.collect(),
        mails: MailCounts { waiting: mails.waiting, failed: mails.failed, unaddressed: mails.unaddressed },
    }))
}
