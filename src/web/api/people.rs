//! People: who is known here, by what, and whose votes count.

use axum::extract::State;
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Object, Path, views};
use crate::api::PersonPage;
use crate::api::loosening::Loosening;
use crate::api::person::{
    Account, Person, PersonPasskey, PersonRemoved, PersonSession, PersonToken, PersonVote, Untie,
};
use crate::api::problem::Code;
use crate::domain::role::Role;
use crate::engine::people::Known;
use crate::web::Web;
use crate::web::auth::Caller;
use crate::web::operation::{BODY, needs};
use crate::web::problem::Problem;

pub(super) fn routes(web: &Web) -> OpenApiRouter<Web> {
    let unknown = [Code::NotFound, Code::Conflict, Code::Tampered];
    OpenApiRouter::new()
        .routes(needs(web, Role::Admin, &[], routes!(list)))
        .routes(needs(web, Role::Admin, &[&unknown], routes!(remove)))
        .routes(needs(web, Role::Admin, &[&unknown, &[Code::NobodyToTell], &BODY], routes!(untie)))
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

#[utoipa::path(
    delete, path = "/people/{person}", tag = "people", operation_id = "removePerson",
    summary = "Remove a person",
    description = "All goes by which the person is known: sessions of the pages end, tokens are revoked, passkeys removed, the calendar feed and unused links end, and votes on rotations that have sent nothing do not count any more. The person and `mail.security` are told. Who signs in with the identity provider again begins anew: a vote counts `policy.loosen_after` later. Owners of projects and policies stay as they are.",
    params(("person" = String, Path, description = "A mail address, or the name of an account without a verified one.")),
    responses((status = 200, description = "Who was removed, and what went.", body = PersonRemoved)),
)]
async fn remove(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(person): Path<String>,
) -> Result<Json<PersonRemoved>, Problem> {
    let done = web.engine.remove_person(caller.actor(), &person).await?;
    Ok(Json(PersonRemoved { removed: view(done.person), still_owns: done.still_owns }))
}

#[utoipa::path(
    post, path = "/people/{person}/untie", tag = "people", operation_id = "untiePerson",
    summary = "Separate an address from a token or an account",
    request_body = Untie,
    description = "That loosens: it is announced, takes effect `policy.loosen_after` later, and never for a rotation that is proposed before. Until then both count as one person. The present address of an account cannot be separated from it: its provider verifies it at each sign-in.",
    params(("person" = String, Path, description = "The address, or the former name of an account.")),
    responses((status = 200, description = "The change, which takes effect later.", body = Loosening)),
)]
async fn untie(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(person): Path<String>,
    Object(body): Object<Untie>,
) -> Result<Json<Loosening>, Problem> {
    let it = web.engine.untie_person(caller.actor(), &person, body.from.as_deref()).await?;
    Ok(Json(views::loosening(&it)))
}
