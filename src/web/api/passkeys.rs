//! Passkeys: list, confirm and remove. They are enrolled on the pages alone: that takes a browser.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Object, Path};
use crate::api::PasskeyPage;
use crate::api::passkey::{Confirmation, Passkey};
use crate::api::problem::Code;
use crate::domain::role::Role;
use crate::store::{self, StoreError};
use crate::web::Web;
use crate::web::auth::Caller;
use crate::web::operation::{BODY, needs};
use crate::web::problem::Problem;

pub(super) fn routes(web: &Web) -> OpenApiRouter<Web> {
    let unknown = [Code::NotFound];
    let refused = [Code::NotFound, Code::Invalid, Code::NobodyToTell];
    OpenApiRouter::new()
        .routes(needs(web, Role::Viewer, &[], routes!(list)))
        .routes(needs(web, Role::Admin, &[&BODY, &refused], routes!(confirm)))
        .routes(needs(web, Role::Admin, &[&unknown], routes!(remove)))
}

async fn view(web: &Web, it: store::Passkey) -> Result<Passkey, StoreError> {
    Ok(described(web, it, &web.engine.store.former_addresses().await?))
}

fn described(web: &Web, it: store::Passkey, former: &BTreeSet<String>) -> Passkey {
    Passkey {
        why_not: web.engine.why_unsigned(&it, former),
        algorithm: it.credential.algorithm().unwrap_or("unknown").to_owned(),
        may_be_copied: it.credential.may_be_copied,
        code: it.code(),
        id: it.id,
        holder: it.holder,
        name: it.name,
        site: it.site,
        enrolled_by: it.enrolled_by,
        enrolled_at: it.enrolled_at,
        confirmed_by: it.confirmed_by,
        confirmed_at: it.confirmed_at,
        to_tell: it.told,
        counts_from: it.counts_from,
    }
}

/// The person of a caller: of a token, whom it was given to.
async fn person(web: &Web, caller: &Caller) -> Result<Option<String>, StoreError> {
    Ok(web.engine.store.token_in_force(&caller.name).await?.and_then(|it| it.person))
}

#[utoipa::path(
    get, path = "/passkeys", tag = "people", operation_id = "listPasskeys",
    summary = "List the passkeys",
    description = "A passkey is enrolled on the pages, confirmed by an admin or by another passkey of its person, and counts `policy.loosen_after` after its person and `mail.security` were told.",
    responses((status = 200, description = "The passkeys, the oldest first.", body = PasskeyPage)),
)]
async fn list(State(web): State<Web>) -> Result<Json<PasskeyPage>, Problem> {
    let former = web.engine.store.former_addresses().await?;
    let all = web.engine.store.passkeys().await?;
    let items = all.into_iter().map(|it| described(&web, it, &former)).collect();
    Ok(Json(PasskeyPage { items, next: None }))
}

#[utoipa::path(
    post, path = "/passkeys/{passkeyId}/confirm", tag = "people", operation_id = "confirmPasskey",
    summary = "Confirm the passkey of somebody else",
    request_body = Confirmation,
    description = "Nobody confirms an own one here, but on the machine, over the local socket.",
    params(("passkeyId" = String, Path, description = "The id of the passkey.")),
    responses((status = 200, description = "The passkey, confirmed.", body = Passkey)),
)]
async fn confirm(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Object(body): Object<Confirmation>,
) -> Result<Json<Passkey>, Problem> {
    let person = person(&web, &caller).await?;
    let it = web.engine.confirm_passkey(caller.actor(), person.as_deref(), (&id, &body.code)).await?;
    Ok(Json(view(&web, it).await?))
}

#[utoipa::path(
    delete, path = "/passkeys/{passkeyId}", tag = "people", operation_id = "removePasskey",
    summary = "Remove a passkey",
    description = "Votes that it signed for rotations that have sent nothing do not count any more. Whose last one it was begins anew with one that an admin confirms.",
    params(("passkeyId" = String, Path, description = "The id of the passkey.")),
    responses((status = 200, description = "The passkey as it was.", body = Passkey)),
)]
async fn remove(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Passkey>, Problem> {
    let person = person(&web, &caller).await?;
    let it = web.engine.remove_passkey(caller.actor(), person.as_deref(), &id).await?;
    Ok(Json(view(&web, it).await?))
}
