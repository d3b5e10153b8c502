//! A rotation that waits for an operator: what to do first, what Keywheel does by itself then, and the decisions that
//! are legal. A decision that ends the rotation or sends the old key asks once more on a page of its own.
//!
//! Which decision is legal is the machine's; nothing is decided here.

use askama::Template;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::super::api;
use super::super::problem::Problem;
use super::moment::{Moment, moment, span};
use super::parts::{Part, compared, listed, short};
use super::seen::{Said, said, without_hidden};
use super::word::{self, Word};
use super::{Frame, Here, Session, Signed, Trouble, Web, journal, onward, page};
use crate::api::problem::Code;
use crate::api::rotation::Rotation;
use crate::domain::condition::ConditionKind;
use crate::domain::ids::RotationId;
use crate::domain::key::{KeyRef, Provider};
use crate::domain::role::Role;
use crate::domain::rotation::state::{Cause, Rotation as Facts, State as RotationState};
use crate::domain::text::visible;
use crate::domain::time::Timestamp;
use crate::engine::announce::{enable_command, restore_command};
use crate::engine::command::{CommandError, OperatorVerb};
use crate::store::{ConditionRow, RotationRow};

/// The decisions in the order of the page.
const VERBS: [OperatorVerb; 4] =
    [OperatorVerb::Resume, OperatorVerb::Rollback, OperatorVerb::Accept, OperatorVerb::Close];

/// A decision on the page.
struct Choice {
    verb: &'static str,
    button: &'static str,
    effect: &'static str,
    detail: String,
    /// Whether the person may take it now.
    is_open: bool,
    /// Whether a page of its own asks once more.
    asks: bool,
}

/// How far people have heard of it.
struct Paging {
    at: Option<Moment>,
    next: Option<Moment>,
    acknowledged: Option<(String, Moment)>,
    to: String,
    can_acknowledge: bool,
}

/// The last reading.
struct Seen {
    key: String,
    which: &'static str,
    valid: Word,
    at: Moment,
}

#[derive(Template)]
#[template(path = "needs_operator.html")]
struct NeedsOperatorPage {
    frame: Frame,
    form: String,
    it: Rotation,
    project: String,
    order: String,
    word: Word,
    happened: String,
    remedies: Vec<String>,
    false_for: Option<String>,
    paging: Paging,
    rights: &'static str,
    commands: Vec<String>,
    by_itself: String,
    seen: Option<Seen>,
    words: Option<String>,
    choices: Vec<Choice>,
    explained: Option<String>,
    old: String,
    old_was_valid: bool,
    parts: Vec<(&'static str, String)>,
    concerned: String,
    clusters: Vec<String>,
    journal: Vec<(String, String, String)>,
    comments: Vec<Said>,
}

#[derive(Template)]
#[template(path = "confirm.html")]
struct ConfirmPage {
    frame: Frame,
    form: String,
    id: RotationId,
    project: String,
    heading: String,
    effect: &'static str,
    verb: &'static str,
    button: &'static str,
    parts: Vec<Part>,
    old_key: String,
    new_key: String,
    serves: Option<KeyRef>,
    serves_which: &'static str,
    label: &'static str,
    error: Option<String>,
    comment: String,
}

/// Which decision is to be confirmed.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    decision: String,
}

/// A decision of an operator.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Given {
    form: String,
    decision: String,
    #[serde(default)]
    tail: String,
    #[serde(default)]
    comment: String,
}

/// The page of a rotation that waits for an operator.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn show(web: &Web, session: &Session, row: &RotationRow) -> Result<Response, Problem> {
    let (engine, now, facts) = (&web.engine, web.engine.clock.now(), &row.rotation);
    let it = without_hidden(api::rotations::rotation(web, row).await?);
    let is_operator = session.caller.must_be(Role::Operator).is_ok();
    let subject = (&facts.group_id).into();
    let conditions = engine.store.conditions_of(&subject, &subject).await?;
    let owners = engine.store.project(&facts.group_id).await?.map(|it| it.owners).unwrap_or_default();
    let concerned = concerned(facts);
    let legal = engine.legal(row);
    let choice = |verb| choice(verb, facts, legal.contains(&verb) && is_operator);
    let mut choices: Vec<Choice> = VERBS.into_iter().map(choice).collect();
    choices.sort_by_key(|it| !it.is_open);
    let failure = facts.observing.failure.as_ref();
    let page_of = NeedsOperatorPage {
        frame: Frame::of(web, session, Here::Elsewhere).await?,
        form: session.form(),
        project: visible(&row.project_name),
        order: order(facts),
        word: word::state(facts.state),
        happened: happened(facts),
        remedies: it.why.clone(),
        false_for: facts.readings.false_since.map(|since| span(now.since(since).as_secs())),
        paging: paging(
            &conditions,
            owners,
            (&engine.settings.operators, engine.settings.mails),
            is_operator,
            now,
        ),
        rights: match facts.provider {
            Provider::Aws => "AWS",
            Provider::Azure => "Azure",
            Provider::Gcp => "Google Cloud",
        },
        commands: commands(facts, concerned, &conditions),
        by_itself: by_itself(facts),
        seen: facts.observing.last.as_ref().map(|seen| Seen {
            key: seen.key.as_ref().map_or_else(|| "no customer-managed key".to_owned(), short),
            which: which(facts, seen.key.as_ref()),
            valid: word::reading(seen.valid),
            at: moment(seen.at, now),
        }),
        words: failure.map(|it| visible(&[it.code.as_deref().unwrap_or_default(), &it.detail].join(" "))),
        choices,
        explained: (!is_operator).then(|| {
            format!("An operator decides. Your roles ({}) do not include operator.", session.caller.roles())
        }),
        old: short(&facts.old_key),
        old_was_valid: facts.rollback.old_key_was_valid,
        parts: listed(concerned).into_iter().map(|(label, text)| (label, visible(&text))).collect(),
        concerned: visible(&concerned.to_string()),
        clusters: facts.rollout.clusters.iter().map(|it| visible(&it.name)).collect(),
        comments: said(&it, now),
        journal: journal::lines(web.engine.store.journal(facts.id, 0, journal::ENTRIES).await?),
        it,
    };
    Ok(page(StatusCode::OK, &page_of))
}

/// The page that asks once more.
pub(super) async fn confirm(
    State(web): State<Web>,
    Signed(session): Signed,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Response {
    let given = Given { decision: asked.decision, ..Given::default() };
    confirmation(&web, &session, &id, &given, None).await
}

/// Carries a decision out.
pub(super) async fn decide(
    State(web): State<Web>,
    Signed(session): Signed,
    Path(id): Path<String>,
    Form(given): Form<Given>,
) -> Response {
    match decided(&web, &session, &id, &given).await {
        Ok(None) => onward(&format!("/rotations/{id}"), None),
        Ok(Some(wrong)) => confirmation(&web, &session, &id, &given, Some(wrong)).await,
        Err(problem) => Trouble::new(problem, &web, Some(&session)).into_response(),
    }
}

async fn confirmation(
    web: &Web,
    session: &Session,
    id: &str,
    given: &Given,
    error: Option<String>,
) -> Response {
    let status = if error.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    match confirm_page(web, session, id, given, error).await {
        Ok(it) => page(status, &it),
        Err(problem) => Trouble::new(problem, web, Some(session)).into_response(),
    }
}

async fn find(web: &Web, id: &str) -> Result<RotationRow, Problem> {
    let id: RotationId =
        id.parse().map_err(|_| Problem::new(Code::RotationNotFound, "there is no such rotation"))?;
    Ok(web.engine.rotation(id).await?)
}

fn verb(text: &str) -> Result<OperatorVerb, Problem> {
    VERBS.into_iter().find(|it| it.as_str() == text).ok_or_else(|| {
        Problem::invalid("decision", "it is one of resume, rollback, accept, close and acknowledge")
    })
}

/// Carries a decision out; what is wrong with the form, where something is.
async fn decided(web: &Web, session: &Session, id: &str, given: &Given) -> Result<Option<String>, Problem> {
    session.check(&given.form)?;
    session.caller.must_be(Role::Operator)?;
    let row = find(web, id).await?;
    let (name, facts) = (&session.caller.name, &row.rotation);
    if given.decision == "acknowledge" {
        let comment = Some(given.comment.trim()).filter(|it| !it.is_empty());
        web.engine.acknowledge(name, &facts.group_id, ConditionKind::NeedsOperator, comment).await?;
        return Ok(None);
    }
    let verb = verb(&given.decision)?;
    let (key, _) = serves(verb, facts);
    let expected = key.map_or_else(|| "none".to_owned(), KeyRef::tail);
    if facts.state == RotationState::NeedsOperator
        && verb != OperatorVerb::Resume
        && given.tail.trim() != expected
    {
        return Ok(Some("That is not the end of the key that will serve. Nothing was changed.".to_owned()));
    }
    let comment = Some(given.comment.trim().to_owned()).filter(|it| !it.is_empty());
    web.engine.say(name.as_str(), facts.id, verb, comment, Some(&row.proposal_hash)).await?;
    Ok(None)
}

async fn confirm_page(
    web: &Web,
    session: &Session,
    id: &str,
    given: &Given,
    error: Option<String>,
) -> Result<ConfirmPage, Problem> {
    session.caller.must_be(Role::Operator)?;
    let (row, verb) = (find(web, id).await?, verb(&given.decision)?);
    let facts = &row.rotation;
    if !web.engine.legal(&row).contains(&verb) {
        let (verb, state) = (verb.as_str(), facts.state);
        return Err(CommandError::Illegal { verb, state, then: String::new() }.into());
    }
    let Choice { verb: name, button, effect, .. } = choice(verb, facts, true);
    let (serves, serves_which) = serves(verb, facts);
    let project = visible(&row.project_name);
    let mut parts = compared(&facts.old_key, &facts.new_key);
    if serves_which != "new" {
        // What is to be typed is the end of another key.
        for part in &mut parts {
            part.tail.clear();
        }
    }
    let heading = match verb {
        OperatorVerb::Rollback => format!("Put the old key of {project} back?"),
        OperatorVerb::Accept => format!("Accept the new key of {project} as it is?"),
        OperatorVerb::Close => format!("Close the rotation of {project} and leave its key as it is?"),
        _ => format!("Resume the rotation of {project}?"),
    };
    Ok(ConfirmPage {
        frame: Frame::of(web, session, Here::Elsewhere).await?,
        form: session.form(),
        id: facts.id,
        project,
        heading,
        effect,
        verb: name,
        button,
        parts,
        old_key: visible(&facts.old_key.to_string()),
        new_key: visible(&facts.new_key.to_string()),
        label: match serves {
            None => "Atlas shows no key. Type none",
            Some(KeyRef::Gcp(_)) => {
                "Type the name and version of the key that will serve, as in ledger-cmk/9"
            }
            Some(_) => "Type the last 6 characters of the key that will serve",
        },
        serves: serves.cloned(),
        serves_which,
        error,
        comment: given.comment.clone(),
    })
}

/// The key that serves after `verb`, and which of the two it is.
fn serves(verb: OperatorVerb, facts: &Facts) -> (Option<&KeyRef>, &'static str) {
    let held = facts.observing.last.as_ref().and_then(|seen| seen.key.as_ref());
    let key = match verb {
        OperatorVerb::Rollback => Some(&facts.old_key),
        OperatorVerb::Accept => Some(&facts.new_key),
        _ => held,
    };
    (key, which(facts, key))
}

/// Which of a rotation's keys `key` is.
fn which(facts: &Facts, key: Option<&KeyRef>) -> &'static str {
    let is = |other: &KeyRef| key.is_some_and(|key| key.is_same(other, &facts.block.place));
    match key {
        Some(_) if is(&facts.new_key) => "new",
        Some(_) if is(&facts.old_key) => "old",
        Some(_) => "neither of the two",
        None => "none",
    }
}

/// The key that has to work before the rotation can go on.
fn concerned(facts: &Facts) -> &KeyRef {
    match facts.cause {
        Some(Cause::OldKeyInvalid | Cause::RollbackUnproven) => &facts.old_key,
        _ => &facts.new_key,
    }
}

/// What the operator is to do, as the heading says it.
fn order(facts: &Facts) -> String {
    let enable = |key: &KeyRef| match key {
        KeyRef::Gcp(_) => format!("enable {} of its key now", short(key)),
        _ => format!("enable the key {} now", short(key)),
    };
    match facts.cause {
        Some(Cause::RollbackRefused | Cause::NewKeyInvalid) => enable(&facts.new_key),
        Some(Cause::OldKeyInvalid) => enable(&facts.old_key),
        Some(Cause::KmsUnreachable) => "open the network path to the key service".to_owned(),
        Some(Cause::ConfigChanged) => "check encryption at rest in Atlas".to_owned(),
        Some(Cause::Unproven) => "Atlas does not say whether the new key works".to_owned(),
        Some(Cause::Unreachable) => "check the key in Atlas, Keywheel cannot".to_owned(),
        Some(Cause::RollbackUnproven) => "check which key Atlas holds".to_owned(),
        Some(Cause::Auth) => "give Keywheel access to Atlas again".to_owned(),
        Some(Cause::Gone) => "check whether the project still exists in Atlas".to_owned(),
        Some(Cause::Tampered) => "find out who changed its records".to_owned(),
        _ => "decide how it ends".to_owned(),
    }
}

/// What stopped the rotation.
fn happened(facts: &Facts) -> String {
    let (new, old) = (short(&facts.new_key), short(&facts.old_key));
    match facts.cause {
        Some(Cause::RollbackRefused) => {
            "Atlas cannot use the new key and refuses to go back to the old one while that is so.".to_owned()
        }
        Some(Cause::NewKeyInvalid) => {
            format!("The new key {new} was verified and became invalid afterwards.")
        }
        Some(Cause::OldKeyInvalid) => {
            format!("The old key {old} cannot be verified as valid, so there is no safe way back.")
        }
        Some(Cause::KmsUnreachable) => {
            "Atlas cannot reach the key service, which shows nothing about the key.".to_owned()
        }
        Some(Cause::ConfigChanged) => {
            "Encryption at rest was disabled in Atlas, or moved to another provider.".to_owned()
        }
        Some(Cause::Unproven) => {
            format!("Atlas did not report in time whether the new key {new} is valid.")
        }
        Some(Cause::Unreachable) => "Atlas could not be read until the guard ended.".to_owned(),
        Some(Cause::RollbackUnproven) => {
            format!("The old key {old} was sent, and was not verified before the guard ended.")
        }
        Some(Cause::Auth) => "Atlas no longer accepts the credential of this project.".to_owned(),
        Some(Cause::Gone) => "Atlas reports that the project no longer exists.".to_owned(),
        Some(Cause::Tampered) => {
            "The rotation, its votes or the audit log were changed outside of Keywheel.".to_owned()
        }
        _ => "The key in force cannot be verified.".to_owned(),
    }
}

/// The provider's own commands, a flag a line. A key that Keywheel cannot read names none: its text is another's.
fn commands(facts: &Facts, key: &KeyRef, conditions: &[ConditionRow]) -> Vec<String> {
    let helps =
        matches!(facts.cause, Some(Cause::RollbackRefused | Cause::NewKeyInvalid | Cause::OldKeyInvalid));
    if !helps || matches!(key, KeyRef::Unrecognised { .. }) {
        return Vec::new();
    }
    let ends = |row: &&ConditionRow| row.kind == ConditionKind::KeyEnding && row.ended_at.is_none();
    let is_going = conditions.iter().filter(ends).any(|row| {
        let concerns = row.key.as_deref().is_none_or(|text| text == key.to_string());
        concerns
            && row.cause.as_deref().is_some_and(|cause| cause.contains("delet") || cause.contains("destroy"))
    });
    let restore = is_going.then(|| restore_command(key));
    restore.into_iter().chain([enable_command(key)]).map(|text| text.replace(" --", " \\\n  --")).collect()
}

/// What happens without a further decision.
fn by_itself(facts: &Facts) -> String {
    let readings = facts.rules.verify.readings;
    let every = facts.rules.verify.deploy_poll;
    match facts.cause {
        Some(Cause::RollbackRefused) if !facts.rollback.healed => format!(
            "Atlas is read every {every}. After {readings} true readings of the new key in a row its verification \
             begins again and this page says “Verifying”. Nothing needs to be pressed."
        ),
        Some(Cause::Auth) => format!(
            "Atlas is read every {every}. Once it accepts the credential and reports the key in force as valid \
             {readings} times in a row, the rotation goes on. Nothing needs to be pressed."
        ),
        Some(Cause::Tampered) => {
            "Nothing: no reading is believed while the records are in doubt. No key is sent until a person decides."
                .to_owned()
        }
        _ => format!(
            "Atlas is read every {every} and nothing is sent. The rotation waits for a decision: when the reason is \
             gone, press Resume."
        ),
    }
}

/// What a decision does, or why it is not legal.
fn choice(verb: OperatorVerb, facts: &Facts, is_open: bool) -> Choice {
    let believed = facts.cause != Some(Cause::Tampered);
    let doubt = "Its records were changed outside of Keywheel, so nothing goes on from them.";
    let (button, effect, detail, why_not) = match verb {
        OperatorVerb::Rollback => (
            "Put the old key back",
            "Atlas is asked again for the old key.",
            format!(
                "Keywheel sends {} and verifies it. Atlas may refuse while the new key is invalid.",
                short(&facts.old_key)
            ),
            "No PATCH was sent, so there is nothing to put back.",
        ),
        OperatorVerb::Accept => (
            "Accept",
            "The new key is recorded as the one that serves, unverified.",
            "Keywheel stops paging. The next sweep reads the key as any other.".to_owned(),
            if believed { "Atlas would have to show the new key now, and not as false." } else { doubt },
        ),
        OperatorVerb::Close => (
            "Close",
            "It ends and the key stays as it is.",
            format!("Keywheel stops paging. Atlas keeps the key that it holds ({}).", held(facts)),
            "The rotation does not wait for an operator.",
        ),
        _ => (
            "Resume",
            "Atlas is read again, and what it holds decides.",
            "New deadlines. The new key in force: it is verified. The old one: back to “approved”."
                .to_owned(),
            doubt,
        ),
    };
    let detail = if is_open { detail } else { why_not.to_owned() };
    Choice { verb: verb.as_str(), button, effect, detail, is_open, asks: verb != OperatorVerb::Resume }
}

/// The key that Atlas held at the last reading, in words.
fn held(facts: &Facts) -> String {
    let key = facts.observing.last.as_ref().and_then(|seen| seen.key.as_ref());
    match (key, which(facts, key)) {
        (None, _) => "none was read".to_owned(),
        (Some(key), which @ ("new" | "old")) => format!("{}, the {which} one", short(key)),
        (Some(key), _) => format!("{}, neither of the two", short(key)),
    }
}

fn paging(
    conditions: &[ConditionRow],
    owners: Vec<String>,
    (operators, mails): (&[String], bool),
    is_operator: bool,
    now: Timestamp,
) -> Paging {
    let row =
        conditions.iter().find(|row| row.kind == ConditionKind::NeedsOperator && row.ended_at.is_none());
    let mut to = owners;
    to.extend(operators.iter().filter(|it| !to.contains(it)).cloned().collect::<Vec<_>>());
    let to = match (mails, to.is_empty()) {
        (false, _) => "nobody by mail: no mail server is configured".to_owned(),
        (true, true) => "nobody: it has no owner".to_owned(),
        (true, false) => to.join(", "),
    };
    let acknowledged = row.and_then(|row| row.acknowledged_at.zip(row.acknowledged_by.as_deref()));
    let acknowledged = acknowledged.map(|(at, by)| (visible(by), moment(at, now)));
    Paging {
        at: row.and_then(|row| row.told_at).map(|at| moment(at, now)),
        next: row.and_then(|row| row.tell_at).map(|at| moment(at, now)),
        can_acknowledge: is_operator && acknowledged.is_none() && row.is_some_and(|row| row.told > 0),
        acknowledged,
        to: visible(&to),
    }
}
