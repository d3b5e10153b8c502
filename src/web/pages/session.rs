//! Who is signed in: a cookie that only its hash is stored of, bound to a token that is still in force, or to a person
//! of an identity provider that is still configured.
//!
//! A session ends an hour after its last use, eight hours after it began, and with its token or person. That a page
//! renews itself is no use. A form carries a text that only the cookie's holder can know, so another site cannot post in
//! somebody's name.

use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::http::{HeaderMap, HeaderValue, header};
use sha2::{Digest, Sha256};

use super::super::Web;
use super::super::auth::{Caller, new_token, token_hash};
use super::super::problem::Problem;
use crate::api::problem::Code;
use crate::domain::approver::Strength;
use crate::engine::command::Voter;
use crate::store::{NewAudit, StoreError, WebSession};

const COOKIE: &str = "__Host-keywheel";

/// How long a session lasts at most.
const LIFETIME: Duration = Duration::from_hours(8);

/// How often a person may do within a minute what leaves a row of the audit log.
const MOST_A_MINUTE: i64 = 10;

/// A person who is signed in.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// Who it is, with the roles that the token or the person has now.
    pub(super) caller: Caller,
    person: Option<String>,
    /// The issuer that vouched for a person; `None` for a token.
    pub(super) issuer: Option<String>,
    cookie: String,
}

/// Who signs in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder<'a> {
    pub(super) name: &'a str,
    /// The issuer that vouches for a person; `None` for a token.
    pub(super) issuer: Option<&'a str>,
}

impl Session {
    /// The session that a request's cookie names; `None` without one that is in force.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub(super) async fn of(headers: &HeaderMap, web: &Web) -> Result<Option<Self>, StoreError> {
        let (store, now) = (&web.engine.store, web.engine.clock.now());
        let Some(cookie) = cookie(headers, COOKIE) else { return Ok(None) };
        let hash = token_hash(cookie);
        let Some((session, caller, person)) = in_force(&hash, web).await? else { return Ok(None) };
        if !is_by_itself(headers)
            && now.since(session.seen_at) >= WebSession::NOTED_EVERY
            && let Err(error) = store.web_session_seen(&hash, &session, now).await
        {
            tracing::warn!(error = %error, "the use of a web session cannot be noted; it may end early");
        }
        Ok(Some(Self { caller, person, issuer: session.issuer, cookie: cookie.to_owned() }))
    }

    /// The mail address of this person, where it is known.
    pub(super) fn person(&self) -> Option<&str> {
        self.person.as_deref()
    }

    /// This person as a voter.
    pub(super) fn voter(&self) -> Voter<'_> {
        Voter { name: &self.caller.name, method: Strength::Session.as_str(), link: None, signed: None }
    }

    /// Whether the session is in force at this moment. Asking is no use of it.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub(super) async fn is_still(&self, web: &Web) -> Result<bool, StoreError> {
        Ok(in_force(&self.hash(), web).await?.is_some())
    }

    /// What the session is known by in this process and in the database.
    pub(super) fn hash(&self) -> String {
        token_hash(&self.cookie)
    }

    /// Begins a session; returns the header that sets its cookie.
    ///
    /// # Errors
    /// Fails without random bits, after too many sign-ins of this holder, or when the database cannot be written.
    pub(super) async fn start(web: &Web, holder: Holder<'_>) -> Result<HeaderValue, Problem> {
        let cookie =
            new_token().map_err(|_| Problem::new(Code::Internal, "the system gives no random bits"))?;
        let now = web.engine.clock.now();
        let session = WebSession {
            name: holder.name.to_owned(),
            issuer: holder.issuer.map(str::to_owned),
            created_at: now,
            ends_at: now + LIFETIME,
            seen_at: now,
        };
        let audit = record(holder, "web_session.started");
        if !web.engine.store.start_web_session(&token_hash(&cookie), &session, audit).await? {
            return Err(Problem::new(
                Code::TooManyFailures,
                "you have signed in ten times within a minute; wait one",
            ));
        }
        Ok(set(COOKIE, &cookie, LIFETIME))
    }

    /// Ends this session, or all of this person; returns the header that removes the cookie.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub(super) async fn end(&self, web: &Web, everywhere: bool) -> Result<HeaderValue, StoreError> {
        let hash = self.hash();
        let hash = Some(hash.as_str()).filter(|_| !everywhere);
        let holder = Holder { name: &self.caller.name, issuer: self.issuer.as_deref() };
        let audit = record(holder, "web_session.ended");
        let now = web.engine.clock.now();
        web.engine.store.end_web_sessions(&self.caller.name, (hash, now - LIFETIME), audit, now).await?;
        Ok(set(COOKIE, "", Duration::ZERO))
    }

    /// Ends another session of this person, by its hash.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub(super) async fn end_other(&self, web: &Web, hash: &str) -> Result<(), StoreError> {
        let holder = Holder { name: &self.caller.name, issuer: self.issuer.as_deref() };
        let (audit, now) = (record(holder, "web_session.ended"), web.engine.clock.now());
        web.engine.store.end_web_sessions(&self.caller.name, (Some(hash), now - LIFETIME), audit, now).await
    }

    /// The sessions of this token or account that are in force, by their hashes, the latest first.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub(super) async fn all(&self, web: &Web) -> Result<Vec<(String, WebSession)>, StoreError> {
        let now = web.engine.clock.now();
        let mut all = web.engine.store.web_sessions(&self.caller.name).await?;
        all.retain(|(_, it)| it.issuer == self.issuer && it.lasts(now));
        Ok(all)
    }

    /// Refuses what this person has done ten times within a minute: each time writes a row that stays.
    ///
    /// # Errors
    /// 429 then; fails when the database cannot be read.
    pub(super) async fn check_pace(&self, web: &Web, action: &str) -> Result<(), Problem> {
        let since = web.engine.clock.now() - Duration::from_mins(1);
        if web.engine.store.done_since(&self.caller.name, action, since).await? < MOST_A_MINUTE {
            return Ok(());
        }
        Err(Problem::new(Code::TooManyFailures, "you have done this ten times within a minute; wait one"))
    }

    /// The text that each form of this session carries.
    pub(super) fn form(&self) -> String {
        hex::encode(Sha256::digest(format!("keywheel form {}", self.cookie)))
    }

    /// Refuses a form that was not made for this session.
    ///
    /// # Errors
    /// 403 for another one's form.
    pub(super) fn check(&self, form: &str) -> Result<(), Problem> {
        verify_slices_are_equal(self.form().as_bytes(), form.as_bytes()).map_err(|_| {
            Problem::new(Code::Forbidden, "the form was made for another session; nothing was changed")
        })
    }
}

/// The session with this hash, who holds it and the mailbox of that person, where all are in force.
async fn in_force(hash: &str, web: &Web) -> Result<Option<(WebSession, Caller, Option<String>)>, StoreError> {
    let (store, now) = (&web.engine.store, web.engine.clock.now());
    let Some(session) = store.web_session(hash).await?.filter(|it| it.lasts(now)) else { return Ok(None) };
    let held = holder(web, &session.name, session.issuer.as_deref()).await?;
    Ok(held.map(|(caller, person)| (session, caller, person)))
}

/// Whether an open page asks without its reader: that is no use of a session and no visit.
fn is_by_itself(headers: &HeaderMap) -> bool {
    let accepts = headers.get(header::ACCEPT).and_then(|it| it.to_str().ok()).unwrap_or_default();
    headers.contains_key("x-keywheel-renewal") || accepts.starts_with("text/event-stream")
}

/// The holder of a token, or the person of an issuer, with the mailbox, while they may still sign in.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn holder(
    web: &Web,
    name: &str,
    issuer: Option<&str>,
) -> Result<Option<(Caller, Option<String>)>, StoreError> {
    let store = &web.engine.store;
    let Some(issuer) = issuer else {
        let token = store.token_in_force(name).await?;
        return Ok(token.map(|it| (Caller::signed_in(it.name, it.roles), it.person)));
    };
    if web.oidc.of_issuer(issuer).is_none() {
        return Ok(None);
    }
    let person = store.person(issuer, name).await?;
    // Without a verified address it is nobody's mailbox, and so not that of a link.
    Ok(person.map(|it| {
        let mailbox = it.mail.clone().unwrap_or_else(|| it.name.clone());
        (Caller::signed_in(it.name, it.roles), Some(mailbox))
    }))
}

/// The cookie of this name. Other sites of the host may have put anything beside it.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).iter().flat_map(|it| it.as_bytes().split(|byte| *byte == b';'));
    let mut texts = all.filter_map(|it| std::str::from_utf8(it).ok());
    texts.find_map(|it| it.trim().strip_prefix(name)?.strip_prefix('='))
}

/// The header that sets a cookie for this long.
pub(super) fn set(name: &str, value: &str, age: Duration) -> HeaderValue {
    let age = age.as_secs();
    let text = format!("{name}={value}; Path=/; Max-Age={age}; Secure; HttpOnly; SameSite=Lax");
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn record(Holder { name, issuer }: Holder<'_>, action: &str) -> NewAudit {
    let kind = if issuer.is_some() { "person" } else { "token" };
    NewAudit {
        actor: name.to_owned(),
        action: action.to_owned(),
        subject: format!("{kind}/{name}"),
        detail: "{}".to_owned(),
    }
}
