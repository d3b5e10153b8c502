//! The plan of the year ahead.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Paging, Query};
use crate::api::plan::{ConflictKind, Plan, PlanQuery, PlannedDue};
use crate::domain::ids::GroupId;
use crate::domain::plan::{Conflict, Due, MOST_DAYS, reminders};
use crate::domain::role::Role;
use crate::engine::plan::{Ahead, PER_DAY};
use crate::web::Web;
use crate::web::operation::{QUERY, needs};
use crate::web::problem::Problem;

/// The most keys on a day that can be asked for.
const MOST_PER_DAY: usize = 10_000;

pub(super) fn routes(web: &Web) -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(needs(web, Role::Viewer, &[&QUERY], routes!(show)))
}

#[utoipa::path(
    get, path = "/plan", tag = "projects", operation_id = "getPlan",
    summary = "Look ahead: due dates, those that cannot be kept, and earlier ones",
    description = "The rules of each project are run forward. Nothing is written.",
    params(PlanQuery),
    responses((status = 200, description = "The sums, and a page of due dates.", body = Plan)),
)]
async fn show(State(web): State<Web>, Query(query): Query<PlanQuery>) -> Result<Json<Plan>, Problem> {
    let days = query.days.unwrap_or(365);
    if !(1..=MOST_DAYS).contains(&days) {
        return Err(Problem::invalid("days", format!("it takes 1 to {MOST_DAYS}")));
    }
    let per_day = query.per_day.unwrap_or(PER_DAY);
    if !(1..=MOST_PER_DAY).contains(&per_day) {
        return Err(Problem::invalid("perDay", format!("it takes 1 to {MOST_PER_DAY}")));
    }
    let paging = Paging::new(query.limit, query.cursor);
    let skip = paging.after::<usize>()?.unwrap_or(0);
    let only = query.conflicts.unwrap_or(false);
    let ahead = web.engine.ahead(days, per_day).await?;
    let dues = &ahead.plan.dues;
    let mut fits = dues.iter().filter(|it| !only || it.conflict.is_some()).skip(skip);
    let page: Vec<&Due> = fits.by_ref().take(paging.limit).collect();
    let next = fits.next().map(|_| (skip + page.len()).to_string());
    let groups: Vec<GroupId> = page.iter().map(|it| ahead.projects[it.key].group_id.clone()).collect();
    let projects = web.engine.store.projects_of(&groups).await?;
    let owners: BTreeMap<GroupId, Vec<String>> =
        projects.into_iter().map(|it| (it.group_id, it.owners)).collect();
    let days = ahead.plan.by_day().into_iter().map(|(day, count)| (day.to_string(), count)).collect();
    let freezes = &ahead.defaults.policy().freezes;
    Ok(Json(Plan {
        from: ahead.from,
        until: ahead.until,
        due: dues.len(),
        conflicts: dues.iter().filter(|it| it.conflict.is_some()).count(),
        proposed: dues.iter().filter(|it| it.proposed.is_some()).count(),
        days,
        freezes: freezes.iter().filter(|it| it.is_ahead(ahead.from)).cloned().collect(),
        items: page.iter().map(|it| item(&ahead, it, &owners)).collect(),
        next,
    }))
}

fn item(ahead: &Ahead, due: &Due, owners: &BTreeMap<GroupId, Vec<String>>) -> PlannedDue {
    let (project, key) = (&ahead.projects[due.key], &ahead.keys[due.key]);
    let (conflict, freeze) = match &due.conflict {
        None => (None, None),
        Some(Conflict::Freeze(name)) => (Some(ConflictKind::Freeze), Some(name.clone())),
        Some(Conflict::NoWindow) => (Some(ConflictKind::NoWindow), None),
        Some(Conflict::Crowded) => (Some(ConflictKind::Crowded), None),
    };
    PlannedDue {
        group_id: project.group_id.clone(),
        project_name: project.name.clone(),
        due: due.at,
        is_next: due.is_next,
        conflict,
        freeze,
        proposed: due.proposed,
        open_rotation: project.open.filter(|_| due.is_next),
        planned_for: key.planned_for.filter(|_| due.is_next),
        owners: owners.get(&project.group_id).cloned().unwrap_or_default(),
        reminders: reminders(key.schedule.policy(), due.at, ahead.from),
    }
}
