//! One rotation: what it is, what it waits for, and the decision of the person who looks.

use std::borrow::Cow;

use askama::Template;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::super::api;
use super::super::problem::Problem;
use super::moment::{Moment, clock, moment};
use super::parts::{Part, compared};
use super::progress::Progress;
use super::seen::{self, Said, row, said, without_hidden};
use super::steps::{Step, steps};
use super::strip::Strip;
use super::word::{self, Word};
use super::{Frame, Here, Session, Signed, Trouble, Web, journal, needs_operator, onward, page, you};
use crate::api::rotation::Rotation;
use crate::domain::approver::Strength;
use crate::domain::key::KeyRef;
use crate::domain::preflight::CheckName;
use crate::domain::role::Role;
use crate::domain::rotation::state::State as RotationState;
use crate::engine::command::{CommandError, OperatorVerb, Voter};
use crate::engine::passkeys::{Answer, Asked, holder};
use crate::store::{RotationRow, SignedVote, StoreError};

#[derive(Template)]
#[template(path = "rotation.html")]
#[expect(clippy::struct_excessive_bools, reason = "each is a button or a field")]
pub(super) struct RotationPage {
    frame: Frame,
    heading: String,
    word: Word,
    it: Rotation,
    comments: Vec<Said>,
    /// What the stream of the page has to tell next to be news.
    seen: i64,
    wrong: Option<Wrong>,
    wrong_field: &'static str,
    progress: Progress,
    strip: Option<Strip>,
    rolls_back: bool,
    steps: Vec<Step>,
    /// Whether it waits for approvals: such a page does not renew itself while somebody decides on it.
    still: bool,
    /// Now, exactly and as a time of day.
    now: (String, String),
    /// Whether the page can reload by itself: nothing of it is to be filled in, and it has not ended.
    can_renew: bool,
    renews: bool,
    /// A change of this takes a form's buttons away.
    rests: String,
    proposed: Moment,
    expires: Option<Moment>,
    planned: Option<Moment>,
    parts: Vec<Part>,
    checks: Vec<(Word, String, String)>,
    checks_said: String,
    journal: Vec<(String, String, String)>,
    action: String,
    form: String,
    needs_tail: bool,
    tail_label: &'static str,
    typed: String,
    comment: String,
    can_approve: bool,
    /// What a passkey of the person signs to approve.
    signing: Option<Signing>,
    can_reject: bool,
    can_comment: bool,
    can_withdraw: bool,
    can_cancel: bool,
    again: Option<String>,
    explained: Vec<String>,
}

/// What is wrong with a form.
#[derive(Clone, Debug)]
pub(super) struct Wrong {
    pub(super) text: Cow<'static, str>,
    /// The field; empty where it is about no field.
    field: &'static str,
}

impl Wrong {
    const fn with(field: &'static str, text: &'static str) -> Self {
        Self { text: Cow::Borrowed(text), field }
    }

    /// Why a decision was refused.
    pub(super) fn refused(problem: &Problem) -> Self {
        let field = if problem.field() == Some("comment") { "comment" } else { "" };
        Self { text: problem.said().0.to_owned().into(), field }
    }
}

impl RotationPage {
    /// The clusters that depend on the key, as the checklist found them.
    fn depends(&self) -> Option<String> {
        let line = self.it.checks.iter().find(|it| it.name == CheckName::Clusters)?;
        let mut letters = line.detail.chars();
        Some(format!("{}{}.", letters.next()?.to_uppercase(), letters.as_str()))
    }
}

/// What a browser needs to have a passkey sign.
struct Signing {
    asked: Asked,
    site: String,
    /// The passkeys that may.
    known: String,
}

/// What a person decided.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Given {
    #[serde(default)]
    form: String,
    pub(super) hash: String,
    pub(super) decision: String,
    #[serde(default)]
    pub(super) tail: String,
    #[serde(default)]
    comment: String,
    #[serde(default)]
    ticket: String,
    /// What a passkey has signed.
    #[serde(default)]
    answer: String,
}

impl Given {
    /// The comment, where there is one.
    pub(super) fn words(&self) -> Option<String> {
        Some(self.comment.trim().to_owned()).filter(|it| !it.is_empty())
    }

    /// Whether the typed tail is not that of the new key.
    pub(super) fn is_wrong_tail(&self, row: &RotationRow) -> bool {
        self.tail.trim() != row.rotation.new_key.tail()
    }
}

/// Who looks, and what that person may do.
#[expect(clippy::struct_excessive_bools, reason = "each is a right of its own")]
pub(super) struct Viewer<'a> {
    pub(super) voter: Voter<'a>,
    pub(super) approver: bool,
    pub(super) operator: bool,
    /// Whether a person looks whom the policy may name: that needs no role.
    pub(super) person: bool,
    /// Whether every decision takes the tail of the key.
    pub(super) by_link: bool,
    /// The roles, for people.
    pub(super) roles: String,
    pub(super) frame: Frame,
    /// Where the form is sent, and what it carries.
    pub(super) action: String,
    pub(super) form: String,
    /// Whose passkeys sign.
    pub(super) holder: Option<String>,
}

impl<'a> Viewer<'a> {
    async fn of(session: &'a Session, web: &Web, id: &str) -> Result<Self, StoreError> {
        let may = |role| session.caller.must_be(role).is_ok();
        Ok(Self {
            voter: session.voter(),
            approver: may(Role::Approver),
            operator: may(Role::Operator),
            person: session.issuer.is_some(),
            by_link: false,
            roles: session.caller.roles(),
            frame: Frame::of(web, session, Here::Elsewhere).await?,
            action: format!("/rotations/{id}"),
            form: session.form(),
            holder: session.person().map(holder),
        })
    }
}

/// What a person reads whose tail is wrong.
pub(super) const WRONG_TAIL: Wrong = Wrong::with(
    "tail",
    "That is not the end of the new key. Nothing was decided. It ends in the boxed characters.",
);

/// What a person reads who rejects without a word.
pub(super) const NO_COMMENT: Wrong =
    Wrong::with("comment", "Write a comment to reject. Nothing was rejected.");

/// What a person reads who comments without a word.
pub(super) const NOTHING_SAID: Wrong = Wrong::with("comment", "Write a comment first. Nothing was recorded.");

/// How a page without a script is to renew itself.
#[derive(Debug, Deserialize)]
pub(super) struct Renewing {
    #[serde(default)]
    pub(super) every: String,
}

pub(super) async fn show(
    State(web): State<Web>,
    Signed(session): Signed,
    Path(id): Path<String>,
    Query(renewing): Query<Renewing>,
) -> Response {
    let made = async {
        let row = row(&web, &id).await?;
        if row.rotation.state == RotationState::NeedsOperator {
            return needs_operator::show(&web, &session, &row).await;
        }
        let viewer = Viewer::of(&session, &web, &id).await?;
        let it = shown(&web, viewer, &row, None, &Given::default()).await?;
        let renews = it.can_renew && renewing.every == "15";
        Ok(page(StatusCode::OK, &RotationPage { renews, ..it }))
    };
    made.await.unwrap_or_else(|problem| Trouble::new(problem, &web, Some(&session)).into_response())
}

pub(super) async fn decide(
    State(web): State<Web>,
    Signed(session): Signed,
    Path(id): Path<String>,
    Form(decision): Form<Given>,
) -> Response {
    let trouble = |problem: Problem| Trouble::new(problem, &web, Some(&session)).into_response();
    if let Err(problem) = session.check(&decision.form) {
        return trouble(problem);
    }
    let (status, wrong) = match decided(&web, &session, &id, &decision).await {
        Ok(None) => return onward(&format!("/rotations/{id}"), None),
        Ok(Some(wrong)) => (StatusCode::UNPROCESSABLE_ENTITY, wrong),
        Err(problem) if problem.status() == StatusCode::NOT_FOUND => return trouble(problem),
        Err(problem) => (problem.status(), Wrong::refused(&problem)),
    };
    let shown = async {
        let viewer = Viewer::of(&session, &web, &id).await?;
        shown(&web, viewer, &row(&web, &id).await?, Some(wrong), &decision).await
    };
    match shown.await {
        Ok(it) => page(status, &it),
        Err(problem) => trouble(problem),
    }
}

/// Carries a decision out; what is wrong with the form, where something is.
async fn decided(web: &Web, session: &Session, id: &str, decision: &Given) -> Result<Option<Wrong>, Problem> {
    if decision.decision == COMMENT {
        return commented(web, session, id, decision).await;
    }
    let (verb, role) = match decision.decision.as_str() {
        "approve" | BY_PASSKEY => (OperatorVerb::Approve, Role::Approver),
        "reject" => (OperatorVerb::Reject, Role::Approver),
        "withdraw" => (OperatorVerb::Withdraw, Role::Approver),
        "cancel" => (OperatorVerb::Cancel, Role::Operator),
        _ => {
            return Err(Problem::invalid(
                "decision",
                "it is one of approve, approve-passkey, reject, comment, withdraw and cancel",
            ));
        }
    };
    let row = row(web, id).await?;
    let by_passkey = decision.decision == BY_PASSKEY;
    if let Err(refused) = session.caller.must_be(role)
        && (role != Role::Approver || !is_named(web, session, &row, by_passkey).await?)
    {
        return Err(refused);
    }
    if row.proposal_hash != decision.hash {
        return Err(CommandError::ProposalChanged.into());
    }
    if verb == OperatorVerb::Approve && decision.is_wrong_tail(&row) {
        return Ok(Some(WRONG_TAIL));
    }
    let comment = decision.words();
    if verb == OperatorVerb::Reject && comment.is_none() {
        return Ok(Some(NO_COMMENT));
    }
    let signed = if by_passkey { Some(signed(web, session, &row, decision).await?) } else { None };
    let voter = session.voter();
    let voter = signed.as_ref().map_or(voter, |it| voter.signing(it));
    web.engine.say(voter, row.rotation.id, verb, comment, Some(&decision.hash)).await?;
    Ok(None)
}

/// Whether the policy names this person, who needs no role then.
async fn is_named(
    web: &Web,
    session: &Session,
    row: &RotationRow,
    by_passkey: bool,
) -> Result<bool, StoreError> {
    let voter = session.voter();
    let method = if by_passkey { Strength::Passkey.as_str() } else { voter.method };
    let say = web.engine.may_say(row, Voter { method, ..voter }).await?;
    Ok(session.issuer.is_some() && say.has_a_say())
}

/// Records a comment; what is wrong with the form, where something is.
async fn commented(web: &Web, session: &Session, id: &str, given: &Given) -> Result<Option<Wrong>, Problem> {
    let row = row(web, id).await?;
    if let Err(refused) = session.caller.must_be_one_of(&[Role::Approver, Role::Operator])
        && !is_named(web, session, &row, demands_passkey(&row)).await?
    {
        return Err(refused);
    }
    let Some(text) = given.words() else { return Ok(Some(NOTHING_SAID)) };
    web.engine.comment(session.voter(), row.rotation.id, &text, Some(&given.hash)).await?;
    Ok(None)
}

/// Whether only passkeys approve it.
fn demands_passkey(row: &RotationRow) -> bool {
    row.rotation.rules.policy.approval_method == Strength::Passkey
}

/// The form's value that comments and decides nothing.
pub(super) const COMMENT: &str = "comment";

/// The decision to approve with a passkey.
const BY_PASSKEY: &str = "approve-passkey";

/// The vote that a passkey has signed, with what the page showed.
async fn signed(
    web: &Web,
    session: &Session,
    row: &RotationRow,
    given: &Given,
) -> Result<SignedVote, Problem> {
    let answer: Answer = you::read(&given.answer)?;
    let holder = session.person().map(holder).unwrap_or_default();
    let it = &row.rotation;
    let planned = it.rules.planned_for.map(|at| format!("not before {at}, the planned date"));
    let shown = [
        heading(RotationState::AwaitingApproval, &row.project_name),
        format!("project {}, {}", it.group_id, it.provider),
        format!("old key {}", it.old_key),
        format!("new key {}", it.new_key),
    ];
    let shown = shown.into_iter().chain(planned).collect();
    Ok(web.engine.signed_vote(&holder, row, (&given.ticket, &answer), shown).await?)
}

/// What a passkey of this person signs to approve `row`; `None` where none can, or its vote would not count.
async fn signing(web: &Web, viewer: &Viewer<'_>, row: &RotationRow) -> Result<Option<Signing>, Problem> {
    let (Some(holder), Ok(site)) = (&viewer.holder, web.engine.site()) else { return Ok(None) };
    if row.rotation.state != RotationState::AwaitingApproval {
        return Ok(None);
    }
    let own = web.engine.signing_passkeys(holder).await?;
    let voter = Voter { method: Strength::Passkey.as_str(), ..viewer.voter };
    if own.is_empty() || web.engine.may_say(row, voter).await?.refused.is_some() {
        return Ok(None);
    }
    let known = own.iter().map(|it| it.id.as_str()).collect::<Vec<_>>().join(" ");
    Ok(Some(Signing { asked: web.engine.ask_to_approve(holder, row)?, site: site.id, known }))
}

/// The label of the field in which the tail of the new key is typed.
pub(super) fn tail_label(row: &RotationRow) -> &'static str {
    match row.rotation.new_key {
        KeyRef::Gcp(_) => "Type the key's name and version, as in ledger-cmk/9",
        _ => "Type the last 6 characters of the new key",
    }
}

fn heading(state: RotationState, project: &str) -> String {
    match state {
        RotationState::AwaitingApproval => format!("Approve a new key for {project}?"),
        RotationState::Applying => format!("{project}: sending the new key"),
        RotationState::Verifying => format!("{project}: proving the new key"),
        RotationState::Deploying => format!("{project}: clusters take up the new key"),
        RotationState::RollingBack => format!("{project}: putting the old key back"),
        _ => format!("{project}: {}", word::state(state).text.to_lowercase()),
    }
}

/// Why there is nothing to do in this state, where the form does not say what there is.
fn nothing_to_do(state: RotationState, has_buttons: bool) -> Option<&'static str> {
    match state {
        RotationState::Completed => Some("Nothing: it has ended."),
        _ if state.is_final() => None,
        RotationState::Approved if !has_buttons => {
            Some("It can be cancelled by an operator and rejected by an approver; your roles are neither.")
        }
        RotationState::AwaitingApproval | RotationState::Approved => None,
        _ => Some("Nothing, while the proof runs: no button would be legal."),
    }
}

pub(super) async fn shown(
    web: &Web,
    viewer: Viewer<'_>,
    row: &RotationRow,
    wrong: Option<Wrong>,
    given: &Given,
) -> Result<RotationPage, Problem> {
    let now = web.engine.clock.now();
    let it = without_hidden(api::rotations::rotation(web, row).await?);
    let state = it.state;
    let waits = matches!(state, RotationState::AwaitingApproval | RotationState::Approved);
    let by_passkey_alone = demands_passkey(row);
    let method = if by_passkey_alone { Strength::Passkey.as_str() } else { viewer.voter.method };
    let say = web.engine.may_say(row, Voter { method, ..viewer.voter }).await?;
    let approves = viewer.approver || viewer.person && say.has_a_say();
    let waits_for_approval = state == RotationState::AwaitingApproval;
    let can_approve = waits_for_approval && approves && say.refused.is_none() && !by_passkey_alone;
    let signing = if approves { signing(web, &viewer, row).await? } else { None };
    let can_reject = waits && approves;
    let can_withdraw = waits && approves && say.has_voted;
    let can_cancel = waits && viewer.operator;
    let can_comment = can_reject || can_cancel;
    let mut explained = Vec::new();
    let is_asked = waits_for_approval && !say.has_voted;
    if is_asked && !can_approve && signing.is_none() {
        explained.push(match (approves || viewer.person, say.refused) {
            (true, Some(why)) => format!("You cannot approve this: {why}."),
            _ => format!("Your roles ({}) do not include approver.", viewer.roles),
        });
    }
    explained.extend(nothing_to_do(state, can_comment).map(str::to_owned));
    let may_repeat = state.is_final() && state != RotationState::Completed && viewer.operator;
    let again = may_repeat.then(|| {
        let key = row.rotation.new_key.to_string();
        format!("/projects/{}/propose?key={}", it.group_id, utf8_percent_encode(&key, NON_ALPHANUMERIC))
    });
    let (checks, checks_said) = word::checks(&it.checks);
    let entries = web.engine.store.journal(row.rotation.id, 0, journal::ENTRIES).await?;
    let strip = Strip::of(&row.rotation, &entries, now);
    let steps = steps(&row.rotation, &it, &entries, now);
    Ok(RotationPage {
        frame: viewer.frame,
        heading: heading(state, &it.project_name),
        word: word::state(state),
        wrong_field: wrong.as_ref().map_or("", |it| it.field),
        wrong,
        comments: said(&it, now),
        seen: seen::shown(web, row).await?,
        progress: Progress::of(&row.rotation, &entries, now),
        strip,
        rolls_back: row.rotation.patching.sent_old,
        steps,
        still: state == RotationState::AwaitingApproval,
        now: (now.to_string(), clock(now)),
        can_renew: !(viewer.by_link || state.is_final() || can_comment),
        renews: false,
        rests: format!("{} {state}", it.proposal_hash),
        proposed: moment(it.created_at, now),
        planned: it.planned_for.filter(|_| waits).map(|at| moment(at, now)),
        expires: waits.then(|| moment(it.expires_at, now)),
        parts: compared(&row.rotation.old_key, &row.rotation.new_key),
        checks,
        checks_said,
        journal: journal::lines(entries),
        action: viewer.action,
        form: viewer.form,
        needs_tail: can_approve || signing.is_some() || viewer.by_link && waits,
        tail_label: tail_label(row),
        typed: given.tail.clone(),
        comment: given.comment.clone(),
        can_approve,
        signing,
        can_reject,
        can_comment,
        can_withdraw,
        can_cancel,
        again,
        explained,
        it,
    })
}
