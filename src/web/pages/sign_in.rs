//! Signing in with a token, and out. Strangers learn nothing here but the names of the identity providers.

use askama::Template;
use axum::Form;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::super::auth::{self, token_hash};
use super::super::problem::Problem;
use super::session::{Holder, Session};
use super::{Frame, Signed, Trouble, Web, is_own, onward, page};
use crate::api::problem::Code;

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    frame: Frame,
    to: String,
    wrong: Option<&'static str>,
    providers: Vec<Way>,
}

/// Another way to sign in.
struct Way {
    name: String,
    path: String,
}

#[derive(Template)]
#[template(path = "signed_out.html")]
struct SignedOutPage<'a> {
    frame: Frame,
    provider: &'a str,
    url: &'a str,
}

/// Where a person wanted to go.
#[derive(Debug, Deserialize)]
pub(super) struct Aim {
    #[serde(default)]
    pub(super) to: String,
}

#[derive(Debug, Deserialize)]
struct Given {
    token: String,
    #[serde(default)]
    to: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Leaving {
    form: String,
    #[serde(default)]
    everywhere: String,
}

/// A path of this server, whatever was asked for. Browsers drop tabs and line breaks from an address.
pub(super) fn own_path(to: &str) -> &str {
    let is_plain = to.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if is_plain && to.starts_with('/') && !to.starts_with("//") { to } else { "/" }
}

fn form(web: &Web, status: StatusCode, to: &str, wrong: Option<&'static str>) -> Response {
    let to = own_path(to);
    let encoded = utf8_percent_encode(to, NON_ALPHANUMERIC);
    let way = |name: &str| Way { name: name.to_owned(), path: format!("/login/oidc/{name}?to={encoded}") };
    let providers = web.oidc.names().map(way).collect();
    page(status, &SignInPage { frame: Frame::new(web, None), to: to.to_owned(), wrong, providers })
}

pub(super) async fn show(State(web): State<Web>, Query(aim): Query<Aim>) -> Response {
    form(&web, StatusCode::OK, &aim.to, None)
}

pub(super) async fn start(State(web): State<Web>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if !is_own(&parts.headers) {
        let problem = Problem::new(Code::Forbidden, "the form to sign in was sent by another site");
        return Trouble::new(problem, &web, None).into_response();
    }
    let whole = Request::from_parts(parts.clone(), body);
    let Ok(Form(given)) = <Form<Given> as axum::extract::FromRequest<Web>>::from_request(whole, &web).await
    else {
        return form(&web, StatusCode::UNPROCESSABLE_ENTITY, "/", Some("Enter a token."));
    };
    let hash = token_hash(given.token.trim());
    match web.engine.store.token_by_hash(&hash).await {
        Ok(Some(token)) => match Session::start(&web, Holder { name: &token.name, issuer: None }).await {
            Ok(cookie) => onward(own_path(&given.to), Some((header::SET_COOKIE, cookie))),
            Err(problem) => Trouble::new(problem, &web, None).into_response(),
        },
        Ok(None) => {
            let problem = auth::refuse(&parts, &web, Some(&hash)).await;
            let wrong = match problem.status() {
                StatusCode::TOO_MANY_REQUESTS => "Too many tries. Wait 30 s.",
                _ => "This token is not known or was revoked.",
            };
            form(&web, problem.status(), &given.to, Some(wrong))
        }
        Err(error) => Trouble::new(error, &web, None).into_response(),
    }
}

pub(super) async fn end(
    State(web): State<Web>,
    Signed(session): Signed,
    Form(leaving): Form<Leaving>,
) -> Response {
    if let Err(problem) = session.check(&leaving.form) {
        return Trouble::new(problem, &web, Some(&session)).into_response();
    }
    match session.end(&web, leaving.everywhere == "yes").await {
        Ok(cookie) => signed_out(&web, &session, (header::SET_COOKIE, cookie)).await,
        Err(error) => Trouble::new(error, &web, Some(&session)).into_response(),
    }
}

/// The end of a session. Who came by a provider is still known there, and is shown the way to end that, too: a form may
/// not lead to another server, and not everybody wants to leave everything.
async fn signed_out(web: &Web, session: &Session, cookie: (HeaderName, HeaderValue)) -> Response {
    let provider = session.issuer.as_deref().and_then(|issuer| web.oidc.of_issuer(issuer));
    let url = match provider {
        Some(provider) => provider.sign_out_url(web.engine.clock.now()).await,
        None => None,
    };
    let (Some(provider), Some(url)) = (provider, url) else { return onward("/login", Some(cookie)) };
    let frame = Frame::new(web, None);
    let mut answer = page(StatusCode::OK, &SignedOutPage { frame, provider: provider.name(), url: &url });
    answer.headers_mut().extend([cookie]);
    answer
}

#[cfg(test)]
mod tests {
    use super::own_path;

    #[test]
    fn nobody_is_sent_to_another_server() {
        for foreign in [
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "/\t/evil.example",
            "",
            "evil",
            "/a\r\nb",
            "/\0",
            "/\u{fc}",
        ] {
            assert_eq!(own_path(foreign), "/", "{foreign}");
        }
        assert_eq!(own_path("/rotations/1"), "/rotations/1");
    }
}
