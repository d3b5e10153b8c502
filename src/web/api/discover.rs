//! Discovery: the Atlas projects that the credentials can see, tracked or not.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Query, views};
use crate::api::project::{DiscoverQuery, Discovery};
use crate::domain::role::Role;
use crate::domain::text::did_you_mean;
use crate::engine::discover::{Cursor, Wanted};
use crate::web::Web;
use crate::web::operation::{ATLAS, QUERY, needs};
use crate::web::problem::Problem;

/// Projects of one page, by default and at most: each costs a handful of calls to Atlas.
const LIMITS: (u32, u32) = (50, 100);

pub(super) fn routes(web: &Web) -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(needs(web, Role::Operator, &[&QUERY, &ATLAS], routes!(list)))
}

#[utoipa::path(
    get, path = "/discover", tag = "projects", operation_id = "discoverProjects",
    summary = "List the Atlas projects that the credentials can see",
    description = "By default only projects that have a customer-managed key and are not tracked yet.",
    params(DiscoverQuery),
    responses((status = 200, description = "A page of a credential's projects.", body = Discovery)),
)]
async fn list(
    State(web): State<Web>,
    Query(given): Query<Vec<(String, String)>>,
) -> Result<Json<Discovery>, Problem> {
    let found = web.engine.discover(&wanted(given)?).await?;
    Ok(Json(Discovery {
        items: found.items.into_iter().map(views::found).collect(),
        next: found.next.map(|cursor| cursor.to_string()),
        credential: found.credential,
        seen: found.seen,
        total: found.total,
    }))
}

/// Reads the parameters one by one, because `tag` may be given more than once.
fn wanted(given: Vec<(String, String)>) -> Result<Wanted, Problem> {
    let mut wanted = Wanted { limit: LIMITS.0, ..Wanted::default() };
    for (name, value) in given {
        match name.as_str() {
            "credential" => wanted.credential = Some(value),
            "all" => {
                wanted.all = value.parse().map_err(|_| Problem::invalid("all", "it takes true or false"))?;
            }
            "tag" => {
                let pair = value.split_once('=').filter(|(key, _)| !key.is_empty());
                let (key, value) = pair
                    .ok_or_else(|| Problem::invalid("tag", "it takes key=value, as the tag is in Atlas"))?;
                wanted.tags.push((key.to_owned(), value.to_owned()));
            }
            "limit" => {
                let limit: u32 = value.parse().map_err(|_| Problem::invalid("limit", "it takes a number"))?;
                wanted.limit = limit.clamp(1, LIMITS.1);
            }
            "cursor" => {
                let cursor: Result<Cursor, ()> = value.parse();
                let wrong = || Problem::invalid("cursor", "it takes `next` of the page before");
                wanted.cursor = Some(cursor.map_err(|()| wrong())?);
            }
            _ => {
                return Err(Problem::malformed(
                    StatusCode::BAD_REQUEST,
                    format!(
                        "query: there is no {name:?}; {}",
                        did_you_mean(&name, ["credential", "tag", "all", "limit", "cursor"])
                    ),
                ));
            }
        }
    }
    Ok(wanted)
}
