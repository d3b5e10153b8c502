//! The functions of Atlas' client that the fuzz targets call: the readers of replies, without a request.

use reqwest::Method;
use serde_json::Value;

use super::client::wait;
use super::digest::{ApiKey, Unanswerable};
use super::encryption::observation;
use super::error::failure;
use super::inventory::{Group, group, key_event};
use super::response::AtlasResponse;
use super::token::{ServiceAccount, read_token};
use crate::domain::event::KeyEvent;
use crate::domain::rotation::outcome::{Failure, Observation};
use crate::domain::time::{Span, Timestamp};
use crate::net::header::http_date;
use crate::secret::Secret;

fn answer(status: u16, body: &[u8], at: Timestamp) -> AtlasResponse {
    AtlasResponse {
        status,
        at,
        error_code: None,
        retry_after: None,
        rate_limit: (None, None),
        skew_ms: None,
        redirect: None,
        challenges: Vec::new(),
        authentication_info: None,
        body: Ok(body.to_owned()),
    }
}

/// The observation in a reply with a project's encryption configuration.
///
/// # Errors
/// As in the client.
pub fn observed(status: u16, body: &[u8], at: Timestamp) -> Result<Observation, Failure> {
    observation(&answer(status, body, at))
}

/// The failure in a reply without success.
#[must_use]
pub fn refusal(status: u16, body: &[u8], at: Timestamp) -> Failure {
    failure(&answer(status, body, at))
}

/// The lifetime of the token in a reply of the token endpoint.
///
/// # Errors
/// As in the client.
pub fn token(status: u16, body: &[u8], at: Timestamp) -> Result<Span, Failure> {
    let account = ServiceAccount::new("default".to_owned(), "id".to_owned(), Secret::new("secret"));
    read_token(&account, &answer(status, body, at)).map(|(_, life)| life)
}

/// An entry of the list of projects, and one of the list of events.
#[must_use]
pub fn listed(item: &Value) -> (Option<Group>, Option<KeyEvent>) {
    (group(item), key_event(item))
}

/// The wait that `Retry-After` requests, and the instant of `Date`.
#[must_use]
pub fn times(value: &str, now: Timestamp) -> (Option<Span>, Option<Timestamp>) {
    (wait(value, now), http_date(value))
}

/// The `Authorization` that answers a challenge, and the one for the request after it.
///
/// # Errors
/// As in the client.
pub fn digest(
    challenges: Vec<String>,
    info: &str,
    at: Timestamp,
) -> Result<[String; 2], impl std::error::Error> {
    let key = ApiKey::new("public".to_owned(), Secret::new("private"));
    let info = Some(info.to_owned());
    let answer = AtlasResponse { challenges, authentication_info: info, ..answer(401, b"", at) };
    let text = |session: &_| {
        let header = key.authorization(session, &Method::GET, "/api/atlas/v2/groups")?;
        Ok::<_, Unanswerable>(String::from_utf8_lossy(header.as_bytes()).into_owned())
    };
    let session = key.challenged(&answer)?.session;
    let first = text(&session)?;
    key.accepted(&session, &answer);
    let next = key.current().unwrap_or(session);
    Ok::<_, Unanswerable>([first, text(&next)?])
}
