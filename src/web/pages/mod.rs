//! The pages: what people see and decide in a browser. Everything is made by the server and works without scripts;
//! but passkeys; the one script renews home and the page of a rotation (`live.rs`) and asks the browser for passkeys.
//!
//! A page never asks Atlas or a key service. Nothing is shown to strangers but the form to sign in. What changes
//! something is a POST with the text of the session's forms; a GET changes nothing.

mod age;
mod answer;
mod audit;
mod calendar;
mod due;
mod evidence;
mod feed;
mod health;
mod home;
mod journal;
mod live;
mod many;
mod moment;
mod needs_operator;
mod oidc;
mod parts;
mod progress;
mod project;
mod propose;
mod reviews;
mod rotation;
mod seen;
mod session;
mod settings;
mod sign_in;
mod steps;
mod strip;
mod word;
mod you;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Extension, FromRequestParts, OriginalUri, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::map_response_with_state;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;

use super::Web;
use super::problem::Problem;
use crate::api::problem::Code;
use crate::domain::time::Timestamp;
use crate::store::{FleetCounts, StoreError};
use session::Session;

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The largest form that is read: a comment of 4,000 characters, each written with up to twelve.
const FORM_LIMIT: usize = 64 * 1024;

/// How long a page may take, the arrival of its form included.
const FORM_TIME: Duration = Duration::from_secs(20);

pub(super) fn routes(web: &Web) -> Router<Web> {
    let streams = live::Streams::default();
    let header = |name, value| SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value));
    Router::new()
        .route("/", get(home::show))
        .route("/login", get(sign_in::show).post(sign_in::start))
        .route("/login/oidc/{name}", get(oidc::begin).post(oidc::begin))
        .route("/login/oidc/{name}/callback", get(oidc::finish))
        .route("/logout", post(sign_in::end))
        .route("/rotations/{id}", get(rotation::show).post(rotation::decide))
        .route("/a/{link}", get(answer::show).post(answer::decide))
        .route("/a/{link}/fresh", post(answer::fresh))
        .route("/rotations/{id}/confirm", get(needs_operator::confirm))
        .route("/rotations/{id}/operator", post(needs_operator::decide))
        .route("/due", get(due::show))
        .route("/calendar", get(calendar::show))
        .route("/calendar/feed", post(feed::make))
        .route("/calendar/feed/{name}", get(feed::show))
        .route("/audit", get(audit::show))
        .route("/evidence", get(evidence::show))
        .route("/reviews", get(reviews::show))
        .route("/reviews/{id}", post(reviews::close))
        .route("/health", get(health::show))
        .route("/settings", get(settings::show))
        .route("/you", get(you::show).post(you::decide))
        .route("/projects/{id}", get(project::show))
        .route("/projects/{id}/acknowledge", post(project::acknowledge))
        .route("/projects/{id}/propose", get(propose::show))
        .route("/style.css", get(style))
        .route("/rotations/{id}/stream", get(live::follow).layer(Extension(streams.clone())))
        .route("/stream", get(live::follow_all).layer(Extension(streams)))
        .route("/live.js", get(live::script))
        .route("/icon.svg", get(icon))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, FORM_TIME))
        .merge(asking())
        .layer(DefaultBodyLimit::max(FORM_LIMIT))
        .layer(map_response_with_state(web.clone(), for_people))
        .layer(header(header::CONTENT_SECURITY_POLICY, POLICY))
        .layer(header(header::REFERRER_POLICY, "no-referrer"))
}

/// The forms whose answer takes longer: those that ask Atlas and the key service, and the export; who is not signed in gets no further than the rest.
fn asking() -> Router<Web> {
    Router::new()
        .route("/projects/{id}/propose", post(propose::decide))
        .route("/due/propose", post(many::decide))
        .route("/evidence", post(evidence::export))
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, super::REQUEST_LIMIT))
}

async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("style.css"))
}

async fn icon() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "image/svg+xml")], include_str!("icon.svg"))
}

/// For so long the number in the navigation is not counted anew: it goes through every project.
const COUNTED_FOR: Duration = Duration::from_secs(5);

/// The last count of the fleet.
#[derive(Clone, Debug, Default)]
pub struct Counted(Arc<Mutex<Option<(Timestamp, FleetCounts)>>>);

impl Counted {
    fn lately(&self, now: Timestamp) -> Option<FleetCounts> {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.filter(|(at, _)| *at <= now && now.since(*at) < COUNTED_FOR).map(|(_, counts)| counts)
    }

    fn keep(&self, now: Timestamp, counts: FleetCounts) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, counts));
    }
}

/// What stands around each page.
#[derive(Clone, Debug)]
struct Frame {
    who: Option<Who>,
    /// The mailbox of a person who came by a link.
    by_mail: Option<String>,
    here: Here,
    /// Keys that are overdue or due soon and have no open rotation, where they were counted.
    due: Option<i64>,
    made: String,
    version: &'static str,
}

/// The page of the navigation that one is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Here {
    Home,
    Due,
    Calendar,
    Audit,
    Health,
    Settings,
    /// On none of them.
    Elsewhere,
}

/// The navigation, in order.
const PAGES: [(Here, &str, &str); 6] = [
    (Here::Home, "/", "Home"),
    (Here::Due, "/due", "Due"),
    (Here::Calendar, "/calendar", "Calendar"),
    (Here::Audit, "/audit", "Audit"),
    (Here::Health, "/health", "Health"),
    (Here::Settings, "/settings", "Settings"),
];

/// The person who is signed in.
#[derive(Clone, Debug)]
struct Who {
    name: String,
    roles: String,
    form: String,
}

impl Frame {
    fn new(web: &Web, session: Option<&Session>) -> Self {
        let who =
            session.map(|it| Who { name: it.caller.name.clone(), roles: it.caller.roles(), form: it.form() });
        let made = moment::made(web.engine.clock.now());
        Self {
            who,
            by_mail: None,
            here: Here::Elsewhere,
            due: None,
            made,
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// The same with the navigation of a page that was made in full.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    async fn of(web: &Web, session: &Session, here: Here) -> Result<Self, StoreError> {
        let (engine, now) = (&web.engine, web.engine.clock.now());
        if let Some(counts) = web.counted.lately(now) {
            return Ok(Self::counted(web, session, here, &counts));
        }
        let counts = engine.store.fleet_counts(engine.settings.policy.interval, now).await?;
        web.counted.keep(now, counts);
        Ok(Self::counted(web, session, here, &counts))
    }

    /// The same where the fleet was counted already.
    fn counted(web: &Web, session: &Session, here: Here, counts: &FleetCounts) -> Self {
        let due = Some(counts.overdue_idle + counts.in_30_idle);
        Self { here, due, ..Self::new(web, Some(session)) }
    }

    fn nav(&self) -> impl Iterator<Item = NavItem> {
        PAGES.into_iter().map(|(here, path, text)| NavItem {
            path,
            text,
            is_here: here == self.here,
            count: self.due.filter(|_| here == Here::Due),
        })
    }
}

/// A page of the navigation.
struct NavItem {
    path: &'static str,
    text: &'static str,
    is_here: bool,
    count: Option<i64>,
}

/// The address of a page with the fields that are not empty.
fn address<'a>(path: &str, fields: impl Iterator<Item = (&'static str, &'a str)>) -> String {
    let fields = fields.filter(|(_, value)| !value.is_empty());
    let fields =
        fields.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
    let fields = fields.collect::<Vec<_>>().join("&");
    if fields.is_empty() { path.to_owned() } else { format!("{path}?{fields}") }
}

/// The number of a page in an address; the first where none is given.
///
/// # Errors
/// Fails when it is no number from 1 on.
fn page_number(text: &str) -> Result<usize, Problem> {
    match text {
        "" => Ok(1),
        text => text
            .parse()
            .ok()
            .filter(|number| (1..=1_000_000).contains(number))
            .ok_or_else(|| Problem::invalid("page", "it takes a number from 1 on")),
    }
}

/// Something that went wrong, as a page.
#[derive(Debug)]
struct Trouble {
    problem: Problem,
    frame: Box<Frame>,
}

impl Trouble {
    fn new(problem: impl Into<Problem>, web: &Web, session: Option<&Session>) -> Self {
        Self { problem: problem.into(), frame: Box::new(Frame::new(web, session)) }
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage<'a> {
    frame: Frame,
    heading: &'a str,
    detail: &'a str,
    code: &'a str,
    way: &'a str,
    way_text: &'a str,
    /// Whether it is known that nothing was written.
    unchanged: bool,
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let (detail, code) = self.problem.said();
        let status = self.problem.status();
        let heading = match status {
            _ if code == Code::RotationNotFound.as_str() => "There is no such rotation",
            _ if code == Code::ProjectNotFound.as_str() => "There is no such project",
            _ if code == Code::ConditionNotFound.as_str() => "It does not hold any more",
            _ if code == Code::SelfApproval.as_str() => "You may not approve this",
            _ if code == Code::ProposalChanged.as_str() => "This proposal changed",
            StatusCode::NOT_FOUND => "There is no such page",
            StatusCode::FORBIDDEN => "You may not do this",
            StatusCode::CONFLICT => "It moved on while you read",
            StatusCode::SERVICE_UNAVAILABLE => "The database does not answer",
            StatusCode::TOO_MANY_REQUESTS => "Too many tries",
            StatusCode::BAD_GATEWAY => "Atlas or the key service refused or did not answer",
            _ => "This did not work",
        };
        problem_page(*self.frame, status, heading, &crate::domain::text::visible(detail), code)
    }
}

/// What went wrong, with one way on. What the server itself failed at may have been written.
fn problem_page(frame: Frame, status: StatusCode, heading: &str, detail: &str, code: &str) -> Response {
    let (way, way_text, unchanged) = ("/", "To the first page", status.is_client_error());
    page(status, &ProblemPage { frame, heading, detail, code, way, way_text, unchanged })
}

/// Gives people a page where a request was refused before a page could be made, as for a form without a field.
async fn for_people(State(web): State<Web>, answer: Response) -> Response {
    let status = answer.status();
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    if kind.starts_with("text/html") || !(status.is_client_error() || status.is_server_error()) {
        return answer;
    }
    let detail = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "What was sent is larger than any form of this server.",
        StatusCode::REQUEST_TIMEOUT => "It did not arrive in time. Send it again.",
        StatusCode::GATEWAY_TIMEOUT => {
            "Atlas or the key service did not answer in time. Look at the project before you repeat it."
        }
        _ => "The request cannot be read. Go back to the page and send its form again.",
    };
    problem_page(Frame::new(&web, None), status, "This did not work", detail, status.as_str())
}

/// An address without a page: a page for browsers, a problem document for programs.
pub(super) async fn lost(State(web): State<Web>, headers: HeaderMap) -> Response {
    let problem = Problem::new(Code::NotFound, "there is no such page");
    let accepts = headers.get(header::ACCEPT).and_then(|it| it.to_str().ok()).unwrap_or_default();
    if accepts.contains("text/html") {
        let mut answer = Trouble::new(problem, &web, None).into_response();
        let headers = [(header::CONTENT_SECURITY_POLICY, POLICY), (header::REFERRER_POLICY, "no-referrer")];
        answer.headers_mut().extend(headers.map(|(name, text)| (name, HeaderValue::from_static(text))));
        return answer;
    }
    problem.into_response()
}

/// A page as an answer.
fn page(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => {
            tracing::error!(error = %error, "a page cannot be made");
            Problem::new(Code::Internal, "the page cannot be made; the server's log has the reason")
                .into_response()
        }
    }
}

/// Where a person is sent after a form, so that loading the page again sends nothing again.
fn onward(to: &str, more: Option<(HeaderName, HeaderValue)>) -> Response {
    let mut answer = Redirect::to(to).into_response();
    answer.headers_mut().extend(more);
    answer
}

/// Whether a form comes from a page of this server, as far as the browser says.
fn is_own(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|it| it.to_str().ok());
    if let Some(site) = text(HeaderName::from_static("sec-fetch-site")) {
        return matches!(site, "same-origin" | "none");
    }
    // Browsers that do not say it name the page's origin.
    let host = text(header::HOST).unwrap_or_default();
    text(header::ORIGIN).is_none_or(|origin| origin.split_once("://").is_some_and(|(_, it)| it == host))
}

/// The person who asks. Others are sent to the form to sign in, and come back to where they were.
struct Signed(Session);

impl FromRequestParts<Web> for Signed {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, Response> {
        match Session::of(&parts.headers, web).await {
            Ok(Some(session)) => {
                super::auth::Authenticated::note(&parts.extensions);
                Ok(Self(session))
            }
            Ok(None) => {
                let path =
                    parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |it| &it.0).path().to_owned();
                let to = utf8_percent_encode(&path, NON_ALPHANUMERIC);
                Err(onward(&format!("/login?to={to}"), None))
            }
            Err(error) => Err(Trouble::new(error, web, None).into_response()),
        }
    }
}
