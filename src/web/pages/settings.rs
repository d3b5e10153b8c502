//! The settings that the daemon was started with, each with its origin. Nothing is changed here:
//! settings are changed where they are written.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::{Frame, Here, Session, Signed, Trouble, Web, page};
use crate::domain::text::visible;
use crate::store::StoreError;

/// A setting in force.
struct Setting {
    path: String,
    value: String,
    origin: String,
    is_default: bool,
}

#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage {
    frame: Frame,
    own: Vec<Setting>,
    defaults: Vec<Setting>,
}

pub(super) async fn show(State(web): State<Web>, Signed(session): Signed) -> Response {
    match shown(&web, &session).await {
        Ok(it) => page(StatusCode::OK, &it),
        Err(error) => Trouble::new(error, &web, Some(&session)).into_response(),
    }
}

async fn shown(web: &Web, session: &Session) -> Result<SettingsPage, StoreError> {
    let settings = web.settings.iter().map(|it| Setting {
        path: visible(&it.path),
        value: visible(&it.text()),
        is_default: it.origin == "default",
        origin: visible(&it.origin),
    });
    let (defaults, own) = settings.partition(|it| it.is_default);
    Ok(SettingsPage { frame: Frame::of(web, session, Here::Settings).await?, own, defaults })
}
