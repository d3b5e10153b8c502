//! Logging in: tokens of service accounts, and the calls that carry them.
//!
//! A credential has one token per process, asked for when it is first needed, replaced at 80 % of
//! its life, and replaced once when Atlas answers 401. Only one request for a token is on its way
//! at a time; whoever comes meanwhile waits for its result. Atlas allows 100 live tokens per
//! service account and then refuses new ones for up to an hour, so requests are counted
//! ([`TokenBudget`](super::TokenBudget)), and a 401 that a new token did not cure is not answered
//! with yet another token for a minute. Tokens live in memory only; none is revoked on exit.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::timeout;
use url::form_urlencoded::byte_serialize;

use super::client::{Answer, Broken, Deadline, Request};
use super::error::{failure, told};
use super::{Atlas, CredentialKind};
use crate::domain::rotation::outcome::{Class, Failure};
use crate::domain::time::{Span, Timestamp};

/// How long a token lives when the reply does not say: what Atlas documents.
const DEFAULT_LIFE_S: u64 = 3600;
/// How long after a vain replacement a 401 is final at once.
const VAIN: Span = Span::from_secs(60);
/// How long to go on with an old but living token after it could not be replaced.
const AGAIN: Span = Span::from_secs(30);

/// 401s that say who may do what; another token says the same.
const NOT_ABOUT_THE_TOKEN: [&str; 3] = ["USER_CANNOT_ACCESS_GROUP", "NOT_IN_GROUP", "USER_UNAUTHORIZED"];

/// A credential and its token.
pub(super) struct Account {
    name: String,
    kind: CredentialKind,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    token: Option<Token>,
    serial: u64,
    vain_until: Option<Timestamp>,
}

/// No `Debug`: the header is the token.
struct Token {
    bearer: Bearer,
    refresh_at: Timestamp,
    expires_at: Timestamp,
}

#[derive(Clone)]
struct Bearer {
    header: HeaderValue,
    /// Which token of this credential it is, to tell a token that was replaced meanwhile.
    serial: u64,
}

impl Account {
    pub(super) fn new(name: String, kind: CredentialKind) -> Self {
        Self { name, kind, slot: Mutex::default() }
    }
}

impl Atlas {
    /// Sends `request` in the name of `credential`; after a 401 once more with a new token.
    pub(super) async fn call(
        &self,
        credential: &str,
        request: &Request,
        deadline: Deadline,
    ) -> Result<Answer, Broken> {
        let account = self.account(credential).map_err(Broken::NotSent)?;
        let bearer = self.bearer(account, deadline).await.map_err(Broken::NotSent)?;
        let answer = self.http.send(request, &bearer.header, deadline).await?;
        if !may_need_a_new_token(&answer) {
            return Ok(answer);
        }
        // Atlas answered 401, so the request was not carried out.
        let Some(bearer) = self.replaced(account, &bearer, deadline).await.map_err(Broken::NotSent)? else {
            return Ok(answer);
        };
        let answer = self.http.send(request, &bearer.header, deadline).await?;
        if answer.status == 401
            && let Ok(mut slot) = lock(account, deadline).await
        {
            slot.vain_until = Some(self.clock.now() + VAIN.get());
        }
        Ok(answer)
    }

    fn account(&self, credential: &str) -> Result<&Account, Failure> {
        self.accounts.get(credential).ok_or_else(|| {
            let detail = format!(
                "the credential {credential:?} is not configured: add [atlas.credentials.{credential}], or name another in the project"
            );
            told(Class::Auth, detail)
        })
    }

    /// The credential's token, a new one when it is due.
    async fn bearer(&self, account: &Account, deadline: Deadline) -> Result<Bearer, Failure> {
        let mut slot = lock(account, deadline).await?;
        let now = self.clock.now();
        let living = slot.token.as_ref().filter(|token| now < token.expires_at);
        match living.map(|token| (token.bearer.clone(), token.refresh_at)) {
            Some((bearer, refresh_at)) if now < refresh_at => Ok(bearer),
            // Due, but still good: not worth failing or holding everybody up for.
            Some((bearer, _)) => match self.renew(account, &mut slot, deadline.third()).await {
                Ok(new) => Ok(new),
                Err(failure) => {
                    tracing::warn!(credential = account.name, detail = failure.detail, "atlas.token");
                    if let Some(token) = &mut slot.token {
                        token.refresh_at = now + AGAIN.get();
                    }
                    Ok(bearer)
                }
            },
            None => self.renew(account, &mut slot, deadline).await,
        }
    }

    /// A token in place of the refused one; `None` when that was tried in vain just now.
    async fn replaced(
        &self,
        account: &Account,
        refused: &Bearer,
        deadline: Deadline,
    ) -> Result<Option<Bearer>, Failure> {
        let mut slot = lock(account, deadline).await?;
        if let Some(token) = &slot.token
            && token.bearer.serial != refused.serial
        {
            return Ok(Some(token.bearer.clone()));
        }
        if slot.vain_until.is_some_and(|until| self.clock.now() < until) {
            return Ok(None);
        }
        self.renew(account, &mut slot, deadline).await.map(Some)
    }

    async fn renew(&self, account: &Account, slot: &mut Slot, deadline: Deadline) -> Result<Bearer, Failure> {
        let now = self.clock.now();
        if let Err(room_at) = self.budget.take(&account.name, now).await {
            return Err(out_of_budget(&account.name, now, room_at));
        }
        let (request, basic) = token_request(account)?;
        let answer = self.http.send(&request, &basic, deadline).await.map_err(|broken| {
            let failure = broken.into_failure();
            let detail = in_the_name_of(account, &failure.detail);
            // Whatever became of the token request, the call itself never left.
            Failure { class: Class::Transient, detail, ..failure }
        })?;
        let (header, life) = read_token(account, &answer)?;
        slot.serial += 1;
        let bearer = Bearer { header, serial: slot.serial };
        slot.token = Some(Token {
            bearer: bearer.clone(),
            refresh_at: now + life.get() * 4 / 5,
            expires_at: now + life.get(),
        });
        Ok(bearer)
    }
}

async fn lock(account: &Account, deadline: Deadline) -> Result<tokio::sync::MutexGuard<'_, Slot>, Failure> {
    timeout(deadline.left(), account.slot.lock()).await.map_err(|_| {
        told(Class::Transient, in_the_name_of(account, "another token request was not answered in time"))
    })
}

fn may_need_a_new_token(answer: &Answer) -> bool {
    answer.status == 401
        && failure(answer).code.is_none_or(|code| !NOT_ABOUT_THE_TOKEN.contains(&code.as_str()))
}

fn token_request(account: &Account) -> Result<(Request, HeaderValue), Failure> {
    let CredentialKind::ServiceAccount { client_id, client_secret } = &account.kind;
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encoded(client_id), encoded(client_secret.expose()));
    let mut basic = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)))
        .map_err(|_| told(Class::Auth, in_the_name_of(account, "id and secret make no header")))?;
    basic.set_sensitive(true);
    let request = Request {
        method: Method::POST,
        path: "/api/oauth/token".to_owned(),
        accept: "application/json",
        body: Some(("application/x-www-form-urlencoded", b"grant_type=client_credentials".to_vec())),
    };
    Ok((request, basic))
}

/// Reads the reply of the token endpoint: the `Authorization` header to send, and its life.
fn read_token(account: &Account, answer: &Answer) -> Result<(HeaderValue, Span), Failure> {
    let said: Option<Value> = answer.body.as_ref().ok().and_then(|body| serde_json::from_slice(body).ok());
    if !answer.is_success() {
        return Err(refused_token(account, answer, said.as_ref()));
    }
    let token = said.as_ref().and_then(|said| said.get("access_token")).and_then(Value::as_str);
    let header = token
        .filter(|token| !token.is_empty())
        .and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok());
    let Some(mut header) = header else {
        let detail = in_the_name_of(account, "the reply of the token endpoint holds no token");
        return Err(Failure { status: Some(answer.status), ..told(Class::Transient, detail) });
    };
    header.set_sensitive(true);
    let life = said.as_ref().and_then(|said| said.get("expires_in")).and_then(Value::as_u64);
    Ok((header, Span::from_secs(life.unwrap_or(DEFAULT_LIFE_S).min(86_400))))
}

fn refused_token(account: &Account, answer: &Answer, said: Option<&Value>) -> Failure {
    let word = |name: &str| said.and_then(|said| said.get(name)).and_then(Value::as_str);
    let code = word("error");
    let class = match answer.status {
        401 | 403 => Class::Auth,
        400 if matches!(code, Some("invalid_client" | "invalid_grant" | "unauthorized_client")) => {
            Class::Auth
        }
        300..=399 => Class::Config,
        _ => Class::Transient,
    };
    let plain = failure(answer);
    let detail = in_the_name_of(account, word("error_description").unwrap_or(&plain.detail));
    Failure { class, code: code.map(str::to_owned).or(plain.code), detail, ..plain }
}

fn out_of_budget(credential: &str, now: Timestamp, room_at: Timestamp) -> Failure {
    let detail = format!(
        "the credential {credential:?} has used up its token requests for this minute; the next may leave at {room_at}"
    );
    let wait = now.until(room_at).as_secs().saturating_add(1);
    Failure { retry_after: Some(Span::from_secs(wait)), ..told(Class::Transient, detail) }
}

fn in_the_name_of(account: &Account, what: &str) -> String {
    format!("no token for the credential {:?}: {what}", account.name)
}
