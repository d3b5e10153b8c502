//! People: who is known here, by what, and whose votes count.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::PersonPage;
use crate::api::person::{Account, Person, PersonPasskey, PersonSession, PersonToken, PersonVote};
use crate::domain::role::Role;
use crate::engine::people::Known;
use crate::web::Web;
use crate::web::operation::needs;
use crate::web::problem::Problem;

pub(super) fn routes(web: &Web) -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(needs(web, Role::Admin, &[], routes!(list)))
}

fn view(it: Known) -> Person {
    let accounts = it.accounts.into_iter().map(|(it, configured)| Account {
        issuer: it.issuer,
        name: it.name,
        roles: it.roles,
        since: it.since,
        last_sign_in: it.seen_at,
        configured,
    });
    let passkeys = it.passkeys.into_iter().map(|(it, why_not)| PersonPasskey {
        id: it.id,
        name: it.name,
        site: it.site,
        confirmed_at: it.confirmed_at,
        counts_from: it.counts_from,
        why_not,
    });
    let sessions = it.sessions.into_iter().map(|it| PersonSession {
        name: it.name,
        began_at: it.created_at,
        seen_at: it.seen_at,
        ends_at: it.ends_at,
    });
    let vote = PersonVote {
        counts: it.refused.is_none(),
        counts_from: it.refused.as_ref().and_then(|it| it.from),
        why: it.refused.map(|it| it.why),
    };
    Person {
        address: it.address,
        other_addresses: it.others.into_iter().collect(),
        accounts: accounts.collect(),
        tokens: it.tokens.into_iter().map(|it| PersonToken { name: it.name, roles: it.roles }).collect(),
        link_used_at: it.link_used_at,
        roles: it.roles.into_iter().collect(),
        approver_groups: it.approver_groups.into_iter().collect(),
        passkeys: passkeys.collect(),
        sessions: sessions.collect(),
        vote,
    }
}

#[utoipa::path(
    get, path = "/people", tag = "people", operation_id = "listPeople",
    summary = "List everybody who is known",
    description = "A person is known by an account at an identity provider, a token, a link in a mail that was used, or a passkey. What shares an address, or had it, is one person, with one vote. Tokens that were given to nobody are not among them.",
    responses((status = 200, description = "The people, by address.", body = PersonPage)),
)]
async fn list(State(web): State<Web>) -> Result<Json<PersonPage>, Problem> {
    let items = web.engine.known_people().await?.into_iter().map(view).collect();
    Ok(Json(PersonPage { items, next: None }))
}
