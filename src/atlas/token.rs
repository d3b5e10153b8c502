//! Tokens of service accounts, and the calls that carry them.
//!
//! A service account has one token per process. It is requested at the first use, replaced at 80 % of its
//! lifetime, and replaced once when Atlas answers 401. Only one token request is under way at a time; a
//! caller that comes meanwhile waits for its result, success or failure.
//!
//! Atlas allows 100 live tokens per service account and then refuses new ones for up to an hour. So token
//! requests are counted ([`TokenBudget`](super::TokenBudget)), and none is sent before `Retry-After` is
//! over. After a 401 that a new token did not cure, no other token is requested for a minute. Tokens are
//! kept in memory only; none is revoked on exit.

use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;
use url::form_urlencoded::byte_serialize;

use super::Atlas;
use super::client::{Broken, Deadline, Request};
use super::error::{cap, failure, is_about_the_login, told};
use super::response::AtlasResponse;
use crate::domain::rotation::outcome::{Class, Failure};
use crate::domain::time::{Span, Timestamp};
use crate::secret::Secret;

/// The lifetime of a token when the reply does not name it, as Atlas documents.
const DEFAULT_LIFE_S: u64 = 3600;
/// After a replacement that did not cure a 401, a 401 is final for this time.
const VAIN: Span = Span::from_secs(60);
/// The longest wait that a refusal can request: no key of this credential can be read meanwhile.
const LONGEST_WAIT: Span = Span::from_secs(300);

/// The wait after a failed replacement of a token that is still valid.
const AGAIN: Span = Span::from_secs(30);

/// A service account and its token. No `Debug`.
pub(super) struct ServiceAccount {
    name: String,
    client_id: String,
    client_secret: Secret,
    slot: Mutex<Slot>,
    /// The number of token requests that have ended.
    ended: AtomicU64,
}

#[derive(Default)]
struct Slot {
    token: Option<Token>,
    serial: u64,
    vain_until: Option<Timestamp>,
    failed: Option<Failed>,
}

/// The last token request, when it failed.
struct Failed {
    /// Its number: separates the callers that waited for it from those that came later.
    number: u64,
    failure: Failure,
    /// The end of `Retry-After`.
    not_before: Option<Timestamp>,
}

struct Token {
    bearer: Bearer,
    refresh_at: Timestamp,
    expires_at: Timestamp,
}

/// No `Debug`: the header is the token.
#[derive(Clone)]
struct Bearer {
    header: HeaderValue,
    /// The token's number in this account: shows whether it was replaced meanwhile.
    serial: u64,
}

impl ServiceAccount {
    /// Whether Atlas' masked value, which ends as the secret does, can be that of this account's secret.
    pub(super) fn has_secret(&self, masked: &str) -> bool {
        let tail = masked.rsplit(['*', '.', '•', '…']).next().unwrap_or_default();
        tail.len() >= 4 && self.client_secret.expose().ends_with(tail)
    }

    pub(super) fn new(name: String, client_id: String, client_secret: Secret) -> Self {
        Self { name, client_id, client_secret, slot: Mutex::default(), ended: AtomicU64::new(0) }
    }

    pub(super) fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Waits for the slot; returns it with the number of token requests that had ended before the wait.
    async fn turn(&self, deadline: Deadline) -> Result<(MutexGuard<'_, Slot>, u64), Failure> {
        let ended = self.ended.load(Ordering::SeqCst);
        let slot = timeout(deadline.left(), self.slot.lock()).await.map_err(|_| {
            told(Class::Transient, self.in_its_name("another token request was not answered in time"))
        })?;
        Ok((slot, ended))
    }

    fn in_its_name(&self, what: &str) -> String {
        format!("no token for the credential {:?}: {what}", self.name)
    }
}

impl Slot {
    /// The failure of an earlier token request that is valid for a request made now.
    fn told_already(&self, ended: u64, now: Timestamp) -> Option<Failure> {
        let failed = self.failed.as_ref()?;
        match failed.not_before {
            Some(not_before) if now < not_before => {
                Some(Failure { retry_after: Some(wait(now, not_before)), ..failed.failure.clone() })
            }
            _ => (failed.number > ended).then(|| failed.failure.clone()),
        }
    }
}

impl Atlas {
    /// Sends `request` with the account's token; after a 401 once more with a new one.
    pub(super) async fn call_with_token(
        &self,
        account: &ServiceAccount,
        request: &Request,
        deadline: Deadline,
    ) -> Result<AtlasResponse, Broken> {
        let bearer = self.bearer(account, deadline).await.map_err(Broken::NotSent)?;
        let answer = self.http.send(request, Some(&bearer.header), deadline).await?;
        if !is_about_the_login(&answer) {
            return Ok(answer);
        }
        let Some(bearer) = self.replaced(account, &bearer, deadline).await.map_err(Broken::NotSent)? else {
            return Ok(answer);
        };
        let answer = self.http.send(request, Some(&bearer.header), deadline).await?;
        if answer.status == 401
            && let Ok((mut slot, _)) = account.turn(deadline).await
        {
            slot.vain_until = Some(self.clock.now() + VAIN.get());
        }
        Ok(answer)
    }

    /// The account's token; a new one when the replacement is due.
    async fn bearer(&self, account: &ServiceAccount, deadline: Deadline) -> Result<Bearer, Failure> {
        let (mut slot, ended) = account.turn(deadline).await?;
        let now = self.clock.now();
        let living = slot.token.as_ref().filter(|token| now < token.expires_at);
        match living.map(|token| (token.bearer.clone(), token.refresh_at)) {
            Some((bearer, refresh_at)) if now < refresh_at => Ok(bearer),
            // Due, but still valid: a failed or slow replacement must not fail or delay the calls.
            Some((bearer, _)) => match self.renew(account, &mut slot, ended, deadline.third()).await {
                Ok(new) => Ok(new),
                Err(failure) => {
                    tracing::warn!(credential = account.name, detail = failure.detail, "atlas.token");
                    if let Some(token) = &mut slot.token {
                        token.refresh_at = now + failure.retry_after.unwrap_or(AGAIN).max(AGAIN).get();
                    }
                    Ok(bearer)
                }
            },
            None => self.renew(account, &mut slot, ended, deadline).await,
        }
    }

    /// A token in place of the refused one; `None` within [`VAIN`] of a replacement that did not help.
    async fn replaced(
        &self,
        account: &ServiceAccount,
        refused: &Bearer,
        deadline: Deadline,
    ) -> Result<Option<Bearer>, Failure> {
        let (mut slot, ended) = account.turn(deadline).await?;
        if let Some(token) = &slot.token
            && token.bearer.serial != refused.serial
        {
            return Ok(Some(token.bearer.clone()));
        }
        if slot.vain_until.is_some_and(|until| self.clock.now() < until) {
            return Ok(None);
        }
        self.renew(account, &mut slot, ended, deadline).await.map(Some)
    }

    /// Sends a token request, unless one that ended meanwhile failed, which is valid for this caller too.
    async fn renew(
        &self,
        account: &ServiceAccount,
        slot: &mut Slot,
        ended: u64,
        deadline: Deadline,
    ) -> Result<Bearer, Failure> {
        if let Some(failure) = slot.told_already(ended, self.clock.now()) {
            return Err(failure);
        }
        if deadline.left().is_zero() {
            // This failure is not stored for other callers, and it must not use up a token request.
            return Err(told(Class::Transient, account.in_its_name("no time was left for a token request")));
        }
        // The lifetime is counted from before the request: rather too short than too long.
        let began = self.clock.now();
        let result = self.ask(account, deadline).await;
        let number = account.ended.fetch_add(1, Ordering::SeqCst) + 1;
        match result {
            Ok((header, life)) => {
                slot.failed = None;
                slot.serial += 1;
                let bearer = Bearer { header, serial: slot.serial };
                slot.token = Some(Token {
                    bearer: bearer.clone(),
                    refresh_at: began + life.get() * 4 / 5,
                    expires_at: began + life.get(),
                });
                Ok(bearer)
            }
            Err(failure) => {
                let asked = failure.retry_after.map(|wait| wait.get().min(LONGEST_WAIT.get()));
                let not_before = asked.map(|wait| self.clock.now() + wait);
                slot.failed = Some(Failed { number, failure: failure.clone(), not_before });
                Err(failure)
            }
        }
    }

    async fn ask(
        &self,
        account: &ServiceAccount,
        deadline: Deadline,
    ) -> Result<(HeaderValue, Span), Failure> {
        let now = self.clock.now();
        if let Err(room_at) = self.budget.take(&account.name, now).await {
            return Err(out_of_budget(&account.name, now, room_at));
        }
        let (request, basic) = token_request(account)?;
        let answer = self.http.send(&request, Some(&basic), deadline).await.map_err(|broken| {
            let failure = broken.into_failure();
            let detail = account.in_its_name(&failure.detail);
            // Whether or not the token request arrived, the call itself was not sent.
            Failure { class: Class::Transient, detail, ..failure }
        })?;
        read_token(account, &answer)
    }
}

fn token_request(account: &ServiceAccount) -> Result<(Request, HeaderValue), Failure> {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encoded(&account.client_id), encoded(account.client_secret.expose()));
    let mut basic = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).map_err(|_| {
        told(
            Class::Auth,
            account.in_its_name("client_id or client_secret has a character that a header must not have"),
        )
    })?;
    basic.set_sensitive(true);
    let request = Request {
        method: Method::POST,
        path: "/api/oauth/token".to_owned(),
        accept: "application/json",
        body: Some(("application/x-www-form-urlencoded", b"grant_type=client_credentials".to_vec())),
    };
    Ok((request, basic))
}

/// Reads the reply of the token endpoint: the `Authorization` header to send, and its lifetime.
pub(super) fn read_token(
    account: &ServiceAccount,
    answer: &AtlasResponse,
) -> Result<(HeaderValue, Span), Failure> {
    let said: Option<Value> = answer.body.as_ref().ok().and_then(|body| serde_json::from_slice(body).ok());
    if !answer.is_success() {
        return Err(refused_token(account, answer, said.as_ref()));
    }
    let token = said.as_ref().and_then(|said| said.get("access_token")).and_then(Value::as_str);
    let header = token
        .filter(|token| !token.is_empty())
        .and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok());
    let Some(mut header) = header else {
        let detail = account.in_its_name("the reply of the token endpoint holds no token");
        return Err(Failure { status: Some(answer.status), ..told(Class::Transient, detail) });
    };
    header.set_sensitive(true);
    let life = said.as_ref().and_then(|said| said.get("expires_in")).and_then(Value::as_u64);
    Ok((header, Span::from_secs(life.unwrap_or(DEFAULT_LIFE_S).min(86_400))))
}

/// The failure in a reply: an error in OAuth's form, `{"error", "error_description"}`, or any other reply.
fn refused_token(account: &ServiceAccount, answer: &AtlasResponse, said: Option<&Value>) -> Failure {
    let word = |name: &str| {
        let text = said.and_then(|said| said.get(name)).and_then(Value::as_str)?.trim();
        (!text.is_empty()).then(|| cap(text.to_owned()))
    };
    let code = word("error");
    let class = match (answer.status, code.as_deref()) {
        // Too many tokens are live; one of them expires within the hour.
        (403, Some("access_denied")) => Class::Transient,
        (401 | 403, _) | (400, Some("invalid_client" | "invalid_grant" | "unauthorized_client")) => {
            Class::Auth
        }
        (300..=399, _) => Class::Config,
        _ => Class::Transient,
    };
    let plain = failure(answer);
    let words = match (&code, word("error_description")) {
        (_, Some(description)) => description,
        (Some(code), None) => format!("Atlas answered {} {code}", answer.status),
        (None, None) => plain.detail.clone(),
    };
    Failure { class, code: code.or(plain.code), detail: account.in_its_name(&words), ..plain }
}

fn out_of_budget(credential: &str, now: Timestamp, room_at: Timestamp) -> Failure {
    let detail = format!(
        "the credential {credential:?} has used up its token requests for this minute; the next may leave at {room_at}"
    );
    Failure { retry_after: Some(wait(now, room_at)), ..told(Class::Transient, detail) }
}

/// The whole seconds after which `then` has certainly passed.
fn wait(now: Timestamp, then: Timestamp) -> Span {
    Span::from_secs(now.until(then).as_secs().saturating_add(1))
}
