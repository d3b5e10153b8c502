//! The calendar feed of a person: the forms that make its address and revoke it, and the feed itself, which needs no
//! sign-in.

use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::super::auth;
use super::super::problem::Problem;
use super::session::holder;
use super::{Frame, Here, Session, Signed, Trouble, Web, onward, page};
use crate::api::problem::Code;
use crate::engine::feeds::FeedHolder;
use crate::store::{FEED_ENDED, FEED_MADE};

#[derive(Deserialize)]
pub(super) struct Given {
    form: String,
    /// `revoke`, or nothing for a new address.
    #[serde(default)]
    decision: String,
}

#[derive(Template)]
#[template(path = "feed.html")]
struct FeedPage {
    frame: Frame,
    form: String,
    address: String,
}

/// Makes a new address and shows it, which cannot be shown again; or revokes the one in force.
pub(super) async fn make(
    State(web): State<Web>,
    Signed(session): Signed,
    Form(given): Form<Given>,
) -> Response {
    if given.decision == "revoke" {
        return match revoked(&web, &session, &given).await {
            Ok(()) => onward("/calendar", None),
            Err(problem) => Trouble::new(problem, &web, Some(&session)).into_response(),
        };
    }
    let made = async {
        session.check(&given.form)?;
        session.check_pace(&web, FEED_MADE).await?;
        let person = FeedHolder { name: session.caller.name.clone(), issuer: session.issuer.clone() };
        let secret = web.engine.make_feed(person).await?;
        let address = format!("{}/calendar/feed/{secret}.ics", web.engine.settings.public_url);
        let frame = Frame::of(&web, &session, Here::Calendar).await?;
        Ok::<_, Problem>(FeedPage { frame, form: session.form(), address })
    };
    match made.await {
        Ok(it) => page(StatusCode::OK, &it),
        Err(problem) => Trouble::new(problem, &web, Some(&session)).into_response(),
    }
}

async fn revoked(web: &Web, session: &Session, given: &Given) -> Result<(), Problem> {
    session.check(&given.form)?;
    session.check_pace(web, FEED_ENDED).await?;
    Ok(web.engine.revoke_feed(&session.caller.name).await?)
}

/// The feed of a secret address. Nothing of it is logged; wrong ones slow their sender down.
pub(super) async fn show(State(web): State<Web>, Path(name): Path<String>, parts: Parts) -> Response {
    let found = async {
        let Some(secret) = name.strip_suffix(".ics") else { return Ok(None) };
        let Some(it) = web.engine.feed_holder(secret).await? else { return Ok(None) };
        // Who may not sign in any more reads no feed either.
        let Some((_, mailbox)) = holder(&web, &it.name, it.issuer.as_deref()).await? else { return Ok(None) };
        Ok::<_, Problem>(Some(web.engine.feed(mailbox.as_deref()).await?))
    };
    match found.await {
        Ok(Some(text)) => ([(header::CONTENT_TYPE, "text/calendar; charset=utf-8")], text).into_response(),
        Ok(None) => {
            let unknown = || {
                Problem::new(
                    Code::NotFound,
                    "this calendar address is not known, was revoked or was replaced by a newer one; make one on the calendar's page",
                )
            };
            auth::wrong_link(&parts, &web).unwrap_or_else(unknown).into_response()
        }
        Err(problem) => problem.into_response(),
    }
}
