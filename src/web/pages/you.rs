//! One's own page: who one is here, one's sessions and passkeys; for admins also the passkeys of others that wait.

use std::collections::BTreeSet;

use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::super::problem::Problem;
use super::moment::{Moment, moment};
use super::word::{Word, word};
use super::{Frame, Here, Session, Signed, Trouble, Web, onward, page};
use crate::api::problem::Code;
use crate::domain::role::Role;
use crate::domain::text::visible;
use crate::domain::time::Timestamp;
use crate::engine::passkeys::{Answer, Asked, ENROLLED, Made, holder};
use crate::passkey::text;
use crate::store::Passkey;

/// A session in the list.
struct Listed {
    hash: String,
    is_this: bool,
    began: Moment,
    seen: Moment,
    ends: Moment,
}

/// A passkey in a list.
struct Shown {
    id: String,
    name: String,
    holder: String,
    code: String,
    enrolled: Moment,
    word: Word,
    state: String,
    /// What another passkey of the same person signs to confirm it.
    asked: Option<Asked>,
}

/// What a browser needs to make a passkey.
struct Enrolment {
    asked: Asked,
    /// Who it is for, as a number that says nothing about the person.
    user: String,
    person: String,
    /// The passkeys that there are.
    known: String,
}

#[derive(Template)]
#[template(path = "you.html")]
struct YouPage {
    frame: Frame,
    form: String,
    error: Option<String>,
    name: String,
    roles: String,
    person: Option<String>,
    sessions: Vec<Listed>,
    /// Why there can be no passkeys.
    no_passkeys: Option<String>,
    passkeys: Vec<Shown>,
    enrolment: Option<Enrolment>,
    site: String,
    /// Those that sign.
    signing: String,
    /// Passkeys of others that wait for an admin.
    waiting: Vec<Shown>,
    typed: String,
}

/// What a person does on the page.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Given {
    #[serde(default)]
    form: String,
    #[serde(default)]
    decision: String,
    /// The session or the passkey.
    #[serde(default)]
    about: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    ticket: String,
    /// What the browser says.
    #[serde(default)]
    answer: String,
}

pub(super) const NO_ANSWER: &str = "Your browser did not answer with a passkey. That takes a browser that has passkeys, and JavaScript. Nothing was changed.";

pub(super) async fn show(State(web): State<Web>, Signed(session): Signed) -> Response {
    match shown(&web, &session, None, String::new()).await {
        Ok(it) => page(StatusCode::OK, &it),
        Err(problem) => Trouble::new(problem, &web, Some(&session)).into_response(),
    }
}

pub(super) async fn decide(
    State(web): State<Web>,
    Signed(session): Signed,
    Form(given): Form<Given>,
) -> Response {
    let trouble = |problem: Problem| Trouble::new(problem, &web, Some(&session)).into_response();
    if let Err(problem) = session.check(&given.form) {
        return trouble(problem);
    }
    let problem = match decided(&web, &session, &given).await {
        Ok(()) => return onward("/you", None),
        Err(problem) => problem,
    };
    let (status, why) = (problem.status(), problem.said().0.to_owned());
    match shown(&web, &session, Some(why), given.name).await {
        Ok(it) => page(status, &it),
        Err(problem) => trouble(problem),
    }
}

/// What a browser sent as JSON.
pub(super) fn read<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T, Problem> {
    if text.is_empty() {
        return Err(Problem::invalid("passkey", NO_ANSWER));
    }
    serde_json::from_str(text)
        .map_err(|_| Problem::invalid("passkey", "what the browser sent cannot be read"))
}

async fn decided(web: &Web, session: &Session, given: &Given) -> Result<(), Problem> {
    let (by, about) = (session.caller.name.as_str(), given.about.as_str());
    let person = session.person();
    let own = || person.map(holder).ok_or_else(|| Problem::invalid("passkey", NOBODYS));
    match given.decision.as_str() {
        "end" => {
            let found = web.engine.store.web_session(about).await?;
            if found.is_none_or(|it| it.name != by || it.issuer != session.issuer) {
                return Err(Problem::new(Code::NotFound, "this session has ended already"));
            }
            session.end_other(web, about).await?;
        }
        "enrol" => {
            let made: Made = read(&given.answer)?;
            session.check_pace(web, ENROLLED).await?;
            web.engine.enrol_passkey((by, &own()?), &given.name, &given.ticket, &made).await?;
        }
        "confirm" => {
            let answer: Answer = read(&given.answer)?;
            web.engine.confirm_by_own((by, &own()?), about, (&given.ticket, &answer)).await?;
        }
        "confirm-other" => {
            session.caller.must_be(Role::Admin)?;
            web.engine.confirm_passkey(session.caller.actor(), person, (about, &given.code)).await?;
        }
        "remove" => {
            web.engine.remove_passkey(session.caller.actor(), person, about).await?;
        }
        _ => {
            return Err(Problem::invalid(
                "decision",
                "it is one of end, enrol, confirm, confirm-other and remove",
            ));
        }
    }
    Ok(())
}

const NOBODYS: &str = "a passkey belongs to a person, and this token was given to nobody: `keywheel token edit NAME --person MAIL` names whose it is";

async fn shown(
    web: &Web,
    session: &Session,
    error: Option<String>,
    typed: String,
) -> Result<YouPage, Problem> {
    let (engine, now) = (&web.engine, web.engine.clock.now());
    let own = session.person().map(holder);
    let site = engine.site();
    let sessions = session.all(web).await?;
    let all = engine.store.passkeys().await?;
    let mine: Vec<&Passkey> = all.iter().filter(|it| own.as_ref() == Some(&it.holder)).collect();
    let here = site.as_ref().map(|it| it.id.clone()).unwrap_or_default();
    let former = engine.store.former_addresses().await?;
    let signs = |it: &&&Passkey| engine.why_unsigned(it, &former).is_none();
    let signing: Vec<&str> = mine.iter().filter(signs).map(|it| it.id.as_str()).collect();
    let described = |it: &Passkey| described(it, (&here, &former), now);
    let mut passkeys: Vec<_> = mine.iter().map(|it| described(it)).collect();
    if let Some(own) = &own {
        for (it, shown) in mine.iter().zip(&mut passkeys) {
            if it.confirmed_at.is_none() && !signing.is_empty() {
                shown.asked = Some(engine.ask_to_confirm(own, it)?);
            }
        }
    }
    let no_passkeys = match (&own, &site) {
        (None, _) => Some(NOBODYS.to_owned()),
        (_, Err(why)) => Some(why.to_string()),
        _ => None,
    };
    let enrolment = match &own {
        Some(own) if no_passkeys.is_none() => Some(Enrolment {
            asked: engine.ask_to_enrol(own)?,
            user: text(&Sha256::digest(format!("keywheel {own}"))),
            person: own.clone(),
            known: mine.iter().map(|it| it.id.as_str()).collect::<Vec<_>>().join(" "),
        }),
        _ => None,
    };
    let is_admin = session.caller.must_be(Role::Admin).is_ok();
    let waits = |it: &&Passkey| it.confirmed_at.is_none() && own.as_ref() != Some(&it.holder);
    let waiting = all.iter().filter(waits).filter(|_| is_admin).map(described).collect();
    Ok(YouPage {
        frame: Frame::of(web, session, Here::Elsewhere).await?,
        form: session.form(),
        error,
        name: visible(&session.caller.name),
        roles: session.caller.roles(),
        person: session.person().map(visible),
        sessions: sessions
            .into_iter()
            .map(|(hash, it)| Listed {
                is_this: hash == session.hash(),
                hash,
                began: moment(it.created_at, now),
                seen: moment(it.seen_at, now),
                ends: moment(it.ends_at, now),
            })
            .collect(),
        no_passkeys,
        passkeys,
        enrolment,
        site: here,
        signing: signing.join(" "),
        waiting,
        typed,
    })
}

fn described(it: &Passkey, (here, former): (&str, &BTreeSet<String>), now: Timestamp) -> Shown {
    let (word, state) = match (it.confirmed_at, it.counts_from) {
        _ if it.site != here => {
            (word("Elsewhere", "question", "grey"), format!("It works at {}, not at this address.", it.site))
        }
        _ if former.contains(&it.holder) => (
            word("Former address", "question", "grey"),
            "Its address was yours before, so it counts for nothing. Add another one, and remove this one."
                .to_owned(),
        ),
        (None, _) => (
            word("To confirm", "person", "warn"),
            "It counts for nothing until an admin, or another passkey of its person, confirms it.".to_owned(),
        ),
        (Some(_), None) => (
            word("Announced", "clock", "live"),
            format!("It counts a while after these have heard of it: {}.", it.told.join(", ")),
        ),
        (Some(_), Some(from)) if from > now => {
            let from = moment(from, now);
            (word("Announced", "clock", "live"), format!("It counts {}, {}.", from.relative, from.absolute))
        }
        (Some(_), Some(from)) => {
            (word("Counts", "tick", "ok"), format!("It counts since {}.", moment(from, now).absolute))
        }
    };
    Shown {
        id: it.id.clone(),
        name: visible(&it.name),
        holder: visible(&it.holder),
        code: it.code(),
        enrolled: moment(it.enrolled_at, now),
        word,
        state: visible(&state),
        asked: None,
    }
}
