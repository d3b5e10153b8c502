//! What the credentials can see in Atlas, tracked or not.

use axum::extract::State;
use serde_json::{Value, json};

use super::{Query, views};
use crate::domain::role::Role;
use crate::engine::discover::{Cursor, Wanted};
use crate::web::Web;
use crate::web::auth::Caller;
use crate::web::problem::Problem;

/// Projects of one page, unless asked, and at most: each costs a handful of calls to Atlas.
const LIMITS: (u32, u32) = (50, 100);

pub(super) async fn list(
    State(web): State<Web>,
    caller: Caller,
    Query(given): Query<Vec<(String, String)>>,
) -> Result<axum::Json<Value>, Problem> {
    caller.must_be(Role::Operator)?;
    let found = web.engine.discover(&wanted(given)?).await?;
    Ok(axum::Json(json!({
        "items": found.items.iter().map(views::found).collect::<Vec<_>>(),
        "next": found.next.map(|cursor| cursor.to_string()),
        "credential": found.credential,
        "seen": found.seen,
        "total": found.total,
    })))
}

/// `tag` may be given more than once, which is why the parameters are read one by one.
fn wanted(given: Vec<(String, String)>) -> Result<Wanted, Problem> {
    let mut wanted = Wanted { limit: LIMITS.0, ..Wanted::default() };
    for (name, value) in given {
        match name.as_str() {
            "credential" => wanted.credential = Some(value),
            "all" => {
                wanted.all = value.parse().map_err(|_| Problem::invalid("all", "it is true or false"))?;
            }
            "tag" => {
                let pair = value.split_once('=').filter(|(key, _)| !key.is_empty());
                let (key, value) =
                    pair.ok_or_else(|| Problem::invalid("tag", "it reads key=value, as the project has it"))?;
                wanted.tags.push((key.to_owned(), value.to_owned()));
            }
            "limit" => {
                let limit: u32 = value.parse().map_err(|_| Problem::invalid("limit", "it is a number"))?;
                wanted.limit = limit.clamp(1, LIMITS.1);
            }
            "cursor" => {
                let cursor: Result<Cursor, ()> = value.parse();
                let wrong = || Problem::invalid("cursor", "give back `next` as the last page had it");
                wanted.cursor = Some(cursor.map_err(|()| wrong())?);
            }
            _ => {
                return Err(Problem::new(
                    axum::http::StatusCode::BAD_REQUEST,
                    "malformed",
                    format!("unknown parameter {name:?}; there are credential, tag, all, limit and cursor"),
                ));
            }
        }
    }
    Ok(wanted)
}
