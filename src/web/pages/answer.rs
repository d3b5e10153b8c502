//! The page behind a mail's link: the change, and the decision of the link's owner.
//!
//! To open it changes nothing, however often: scanners follow links, run scripts and press buttons. A decision takes
//! the tail of the new key, and uses the link up.

use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

use super::super::auth;
use super::super::problem::Problem;
use super::moment::moment;
use super::rotation::{
    COMMENT, Given, NO_COMMENT, NOTHING_SAID, Viewer, WRONG_TAIL, Wrong, shown, tail_label,
};
use super::word;
use super::{Frame, Session, Trouble, Web, is_own, onward, page};
use crate::api::problem::Code;
use crate::domain::rotation::state::State as RotationState;
use crate::domain::text::visible;
use crate::engine::command::{OperatorVerb, Voter};
use crate::engine::links::Link;

#[derive(Template)]
#[template(path = "answered.html")]
struct AnsweredPage {
    frame: Frame,
    heading: String,
    sentences: Vec<String>,
    /// What is wrong with the form.
    error: Option<Wrong>,
    /// Where an approval is taken back.
    back: Option<String>,
    hash: String,
    tail_label: &'static str,
    /// Where a fresh link is asked for.
    fresh: Option<String>,
}

impl AnsweredPage {
    /// One without forms.
    fn plain(frame: Frame, heading: String, sentences: Vec<String>) -> Self {
        let (error, back, fresh) = (None, None, None);
        Self { frame, heading, sentences, error, back, hash: String::new(), tail_label: "", fresh }
    }
}

/// Why a link cannot be opened, as a page.
type Refused = Response;

/// The link, for a browser that may open it.
async fn opened(web: &Web, parts: &Parts, text: &str) -> Result<Link, Refused> {
    let trouble = |problem: Problem| Trouble::new(problem, web, None).into_response();
    let link = match web.engine.link(text).await {
        Ok(Some(link)) => link,
        Ok(None) => {
            let unknown = || {
                Problem::new(
                    Code::NotFound,
                    "this link was not made here, or its mailbox may not answer any more. Mail programs break long links over two lines: copy the whole of it",
                )
            };
            return Err(trouble(auth::wrong_link(parts, web).unwrap_or_else(unknown)));
        }
        Err(error) => return Err(trouble(error.into())),
    };
    // A link that was handed on must not become the yes of whom it was handed to.
    match Session::of(&parts.headers, web).await {
        Ok(Some(session)) if !session.person().is_some_and(|it| it.eq_ignore_ascii_case(&link.recipient)) => {
            web.engine.link_met("forwarded");
            Err(trouble(Problem::new(
                Code::Forbidden,
                "this link was sent to another mailbox than that of the person who is signed in here; sign out to use it, or decide on the rotation's page",
            )))
        }
        Ok(_) => Ok(link),
        Err(error) => Err(trouble(error.into())),
    }
}

fn frame(web: &Web, link: &Link) -> Frame {
    Frame { by_mail: Some(visible(&link.recipient)), ..Frame::new(web, None) }
}

/// What a link says that cannot decide any more; `None` for one that can.
fn over(web: &Web, link: &Link, text: &str) -> Option<AnsweredPage> {
    let (now, state) = (web.engine.clock.now(), link.row.rotation.state);
    let project = visible(&link.row.project_name);
    let (outcome, heading) = match &link.used {
        Some(used) => {
            let done = match used.decision.as_str() {
                "approve" => "approved",
                "reject" => "rejected",
                _ => "took your approval back",
            };
            ("used", format!("You {done} at {}", moment(used.at, now).absolute))
        }
        None if !link.waits() => (
            "superseded",
            format!("There is nothing left to decide: {}", word::state(state).text.to_lowercase()),
        ),
        None if now >= link.expires_at => ("expired", "This link has expired".to_owned()),
        None => return None,
    };
    web.engine.link_met(outcome);
    let quorum = link.row.rotation.permission.quorum;
    let mut sentences = match state {
        RotationState::AwaitingApproval => {
            vec![format!("{project}: {} of {} have approved.", quorum.given, quorum.required)]
        }
        RotationState::Approved => {
            let opens = link.row.rotation.rules.next_open(now).filter(|at| *at > now);
            let runs = opens.map_or("as soon as every check passes again".to_owned(), |at| {
                let at = moment(at, now);
                format!("at {}, {}", at.absolute, at.relative)
            });
            vec![format!("{project}: it is approved and runs {runs}.")]
        }
        _ => vec![format!("{project}: {}.", word::state(state).text)],
    };
    let back = may_take_back(link).then(|| format!("/a/{text}"));
    if back.is_some() {
        sentences.push("You can take your approval back until the PATCH is on its way.".to_owned());
    }
    // A request for approvals is mailed while it waits for them.
    let fresh = (state == RotationState::AwaitingApproval).then(|| format!("/a/{text}/fresh"));
    let (hash, tail_label) = (link.row.proposal_hash.clone(), tail_label(&link.row));
    Some(AnsweredPage {
        frame: frame(web, link),
        heading,
        sentences,
        error: None,
        back,
        hash,
        tail_label,
        fresh,
    })
}

/// Whether the link was used for an approval that can be taken back. It is the one thing that a used link does.
fn may_take_back(link: &Link) -> bool {
    link.waits() && link.used.as_ref().is_some_and(|used| used.decision == "approve")
}

/// Takes the approval back that was given by this link; what is wrong with the form, where something is.
async fn taken_back(web: &Web, link: &Link, given: &Given) -> Result<Option<Wrong>, Problem> {
    if given.is_wrong_tail(&link.row) {
        return Ok(Some(WRONG_TAIL));
    }
    let voter = Voter { link: None, ..link.voter() };
    let hash = Some(link.row.proposal_hash.as_str());
    web.engine.say(voter, link.row.rotation.id, OperatorVerb::Withdraw, given.words(), hash).await?;
    Ok(None)
}

fn viewer<'a>(web: &Web, link: &'a Link, text: &str) -> Viewer<'a> {
    Viewer {
        voter: link.voter(),
        approver: true,
        operator: false,
        person: true,
        by_link: true,
        roles: String::new(),
        frame: frame(web, link),
        action: format!("/a/{text}"),
        form: String::new(),
        holder: None,
    }
}

pub(super) async fn show(State(web): State<Web>, Path(text): Path<String>, parts: Parts) -> Response {
    let link = match opened(&web, &parts, &text).await {
        Ok(link) => link,
        Err(refused) => return refused,
    };
    if let Some(over) = over(&web, &link, &text) {
        return page(StatusCode::OK, &over);
    }
    web.engine.link_met("opened");
    match shown(&web, viewer(&web, &link, &text), &link.row, None, &Given::default()).await {
        Ok(it) => page(StatusCode::OK, &it),
        Err(problem) => Trouble::new(problem, &web, None).into_response(),
    }
}

pub(super) async fn decide(
    State(web): State<Web>,
    Path(text): Path<String>,
    parts: Parts,
    Form(given): Form<Given>,
) -> Response {
    let trouble = |problem: Problem| Trouble::new(problem, &web, None).into_response();
    if !is_own(&parts.headers) {
        return trouble(Problem::new(Code::Forbidden, "the form was sent by another site"));
    }
    let link = match opened(&web, &parts, &text).await {
        Ok(link) => link,
        Err(refused) => return refused,
    };
    if given.decision == "withdraw" && may_take_back(&link) {
        return match taken_back(&web, &link, &given).await {
            Ok(None) => {
                let sentences =
                    vec!["Your approval does not count any more. The proposal waits for another.".to_owned()];
                let heading = "You took your approval back".to_owned();
                page(StatusCode::OK, &AnsweredPage::plain(frame(&web, &link), heading, sentences))
            }
            Ok(error) => match over(&web, &link, &text) {
                Some(over) => page(StatusCode::UNPROCESSABLE_ENTITY, &AnsweredPage { error, ..over }),
                None => trouble(Problem::new(Code::Conflict, "it moved on while you read")),
            },
            Err(problem) => trouble(problem),
        };
    }
    if let Some(over) = over(&web, &link, &text) {
        return page(StatusCode::CONFLICT, &over);
    }
    let (status, wrong) = match answered(&web, &link, &given).await {
        Ok(None) => return onward(&format!("/a/{text}"), None),
        Ok(Some(wrong)) => (StatusCode::UNPROCESSABLE_ENTITY, wrong),
        Err(problem) => (problem.status(), Wrong::refused(&problem)),
    };
    // What stands in the way may have come about meanwhile.
    let link = match web.engine.link(&text).await {
        Ok(Some(link)) => link,
        Ok(None) => return trouble(Problem::new(Code::Conflict, "it moved on while you read")),
        Err(error) => return trouble(error.into()),
    };
    if let Some(over) = over(&web, &link, &text) {
        return page(StatusCode::CONFLICT, &over);
    }
    match shown(&web, viewer(&web, &link, &text), &link.row, Some(wrong), &given).await {
        Ok(it) => page(status, &it),
        Err(problem) => trouble(problem),
    }
}

/// Carries out what a link says; what is wrong with the form, where something is. A comment takes no tail and leaves the
/// link as it is: a scanner that presses the button leaves its text and nothing else.
async fn answered(web: &Web, link: &Link, given: &Given) -> Result<Option<Wrong>, Problem> {
    if given.decision == COMMENT {
        let Some(text) = given.words() else { return Ok(Some(NOTHING_SAID)) };
        web.engine.comment_by_link(link, &text).await?;
        return Ok(None);
    }
    let verb = match given.decision.as_str() {
        "approve" => OperatorVerb::Approve,
        "reject" => OperatorVerb::Reject,
        "withdraw" => OperatorVerb::Withdraw,
        _ => {
            return Err(Problem::invalid("decision", "it is one of approve, reject, comment and withdraw"));
        }
    };
    if given.is_wrong_tail(&link.row) {
        return Ok(Some(WRONG_TAIL));
    }
    if verb == OperatorVerb::Reject && given.words().is_none() {
        return Ok(Some(NO_COMMENT));
    }
    web.engine.answer(link, verb, given.words()).await?;
    web.engine.link_met("decided");
    Ok(None)
}

pub(super) async fn fresh(State(web): State<Web>, Path(text): Path<String>, parts: Parts) -> Response {
    if !is_own(&parts.headers) {
        let problem = Problem::new(Code::Forbidden, "the form was sent by another site");
        return Trouble::new(problem, &web, None).into_response();
    }
    let link = match opened(&web, &parts, &text).await {
        Ok(link) => link,
        Err(refused) => return refused,
    };
    if link.row.rotation.state != RotationState::AwaitingApproval {
        return onward(&format!("/a/{text}"), None);
    }
    match web.engine.send_fresh_link(&link).await {
        Ok(()) => {
            let sentences = vec![
                "A mail with a fresh link is on its way to the mailbox of this one. One is sent in ten minutes."
                    .to_owned(),
            ];
            let heading = "Look into your mailbox".to_owned();
            page(StatusCode::OK, &AnsweredPage::plain(frame(&web, &link), heading, sentences))
        }
        Err(error) => Trouble::new(error, &web, None).into_response(),
    }
}
