//! Signing in with an identity provider: to it, and back.
//!
//! A start and its answer are both plain requests of the browser: a form may not lead to another server. Whatever
//! fails is a page that says what happened and leads back to the ways to sign in; a token always is one of them.

use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::super::oidc::{self, Answer, PATIENCE, Provider, SignInError};
use super::super::problem::Problem;
use super::super::sender;
use super::session::{Holder, Session, cookie, set};
use super::sign_in::{Aim, own_path};
use super::{Frame, ProblemPage, Trouble, Web, onward, page};
use crate::api::problem::Code;

/// Keeps a sign-in that has begun in the browser.
const COOKIE: &str = "__Host-keywheel-oidc";

/// The longest path that a sign-in leads back to.
const LONGEST_PATH: usize = 1000;

/// Sends the browser to the provider.
pub(super) async fn begin(
    State(web): State<Web>,
    Path(name): Path<String>,
    Query(aim): Query<Aim>,
) -> Response {
    let Some(provider) = web.oidc.named(&name) else { return no_provider(&web) };
    let (store, now) = (&web.engine.store, web.engine.clock.now());
    // Browsers drop a cookie that is too long.
    let to = own_path(&aim.to);
    let to = if to.len() > LONGEST_PATH { "/" } else { to };
    match oidc::begin(provider, store, to, now).await {
        Ok((url, begun)) => onward(&url, Some((header::SET_COOKIE, set(COOKIE, &begun, PATIENCE)))),
        Err(error) => failed(&web, error),
    }
}

/// Takes the browser back from the provider.
pub(super) async fn finish(
    State(web): State<Web>,
    Path(name): Path<String>,
    Query(answer): Query<Answer>,
    request: Request,
) -> Response {
    let Some(provider) = web.oidc.named(&name) else { return no_provider(&web) };
    let (parts, _) = request.into_parts();
    let now = web.engine.clock.now();
    let from = sender::network(&parts.extensions, &parts.headers, &web.proxies);
    let begun = cookie(&parts.headers, COOKIE);
    // What no browser has begun here goes no further and counts for nothing: any page can send it.
    if begun.is_some() && from.is_some_and(|from| web.guesses.is_slowed(from, now)) {
        let problem = Problem::new(Code::TooManyFailures, "too many tries; wait 30 s");
        return Trouble::new(problem, &web, None).into_response();
    }
    let mut response = match sign_in(&web, provider, begun, answer).await {
        Ok((session, to)) => onward(&to, Some((header::SET_COOKIE, session))),
        Err(Failure::SignIn(error)) => {
            web.engine.refused_stranger("identity-provider", from);
            if let Some(from) = from.filter(|_| !matches!(error, SignInError::NotBegunHere)) {
                web.guesses.wrong(from, now);
            }
            failed(&web, error)
        }
        Err(Failure::Session(problem)) => Trouble::new(problem, &web, None).into_response(),
    };
    // An answer counts once, whatever became of it.
    response.headers_mut().append(header::SET_COOKIE, set(COOKIE, "", Duration::ZERO));
    response
}

enum Failure {
    SignIn(SignInError),
    Session(Problem),
}

impl<T: Into<SignInError>> From<T> for Failure {
    fn from(error: T) -> Self {
        Self::SignIn(error.into())
    }
}

/// The cookie of the session, and where the person wanted to go.
async fn sign_in(
    web: &Web,
    provider: &Provider,
    begun: Option<&str>,
    answer: Answer,
) -> Result<(HeaderValue, String), Failure> {
    let (store, now) = (&web.engine.store, web.engine.clock.now());
    let (seen, to) = oidc::finish(provider, store, (begun, answer), now).await?;
    let person = web.engine.sign_in_person(&seen).await?;
    let person = person.map_err(|why| oidc::refusal(provider, why))?;
    let holder = Holder { name: &person.name, issuer: Some(&person.issuer) };
    let session = Session::start(web, holder).await.map_err(Failure::Session)?;
    Ok((session, to))
}

fn no_provider(web: &Web) -> Response {
    let problem = Problem::new(Code::NotFound, "there is no identity provider of this name here");
    Trouble::new(problem, web, None).into_response()
}

/// Nothing was written before one of these.
fn failed(web: &Web, error: SignInError) -> Response {
    let (status, code) = match &error {
        SignInError::Store(_) => {
            let SignInError::Store(error) = error else { return no_provider(web) };
            return Trouble::new(error, web, None).into_response();
        }
        SignInError::NotBegunHere => (StatusCode::BAD_REQUEST, "sign-in-not-begun-here"),
        SignInError::OtherIssuer(_) => (StatusCode::BAD_REQUEST, "other-issuer"),
        SignInError::Refused { .. } => (StatusCode::FORBIDDEN, "refused-by-provider"),
        SignInError::Unavailable(_) | SignInError::Random => {
            (StatusCode::BAD_GATEWAY, "provider-unavailable")
        }
        SignInError::Code(_) => (StatusCode::BAD_REQUEST, "code-not-accepted"),
        SignInError::Claims { .. } => (StatusCode::FORBIDDEN, "identity-not-accepted"),
        SignInError::NoRole { .. } => (StatusCode::FORBIDDEN, "no-role"),
        SignInError::OtherAccount(_) => (StatusCode::FORBIDDEN, "other-account"),
        SignInError::TooManyNames(_) => (StatusCode::FORBIDDEN, "too-many-names"),
    };
    let detail = error.to_string();
    let (way, way_text) = ("/login", "To the ways to sign in");
    let frame = Frame::new(web, None);
    let heading = "You are not signed in";
    page(status, &ProblemPage { frame, heading, detail: &detail, code, way, way_text, unchanged: true })
}
