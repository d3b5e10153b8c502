//! The readers and verifications of the hooks for the fuzz targets, without a server.
//!
//! A head is given as lines, `name: value`. Nothing is fetched here: the keys and the certificates that a
//! verification needs are arguments.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use futures_util::FutureExt;
use url::Url;

use super::super::fetch::Fetcher;
use super::super::keys::Keys;
use super::sns::{Message, Sns, is_certificate};
use super::{HookReply, Received, Refusal, atlas, aws, azure, cloudevents, gcp, json, verification};
use crate::config::hooks::{Entra, SigningKey, signing_key};
use crate::domain::hint::Hint;
use crate::domain::time::Timestamp;
use crate::secret::Secret;

/// The id of an event, and its hint.
pub type Event = (String, Option<Hint>);

/// Is never used: the functions take a fetcher, and the keys given here are fresh.
static FETCHER: LazyLock<Option<Fetcher>> = LazyLock::new(|| {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Fetcher::new().ok()
});

fn headers(head: &[u8]) -> HeaderMap {
    let line = |line: &[u8]| {
        let at = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(line[..at].trim_ascii()).ok()?;
        Some((name, HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?))
    };
    head.split(|byte| *byte == b'\n').filter_map(line).collect()
}

/// The events of a verified delivery, read by the `kind`th reader; `None` when it is refused.
#[must_use]
pub fn events(kind: u8, head: &[u8], body: &[u8]) -> Option<Vec<Event>> {
    let head = headers(head);
    let one = |event| HookReply::Events(vec![event]);
    let read = || match kind % 7 {
        0 => Ok(one(atlas::read(body))),
        1 => azure::read(&head, body),
        2 => Ok(one(aws::read(&json(body)?)?)),
        3 => Ok(one(Message::read(body)?.event()?)),
        4 => Ok(one(gcp::read(&head, body)?)),
        5 => cloudevents::read(&head, body).map(HookReply::Events),
        _ => Ok(one(cloudevents::payload(body, "id".to_owned())?)),
    };
    let answer: Result<HookReply, Refusal> = read();
    Some(match answer.ok()? {
        HookReply::Events(events) => events.into_iter().map(|Received { id, hint }| (id, hint)).collect(),
        HookReply::Done(_) => Vec::new(),
    })
}

/// Whether a delivery passes the `kind`th verification with `secret`.
#[must_use]
pub fn is_proven(kind: u8, head: &[u8], body: &[u8], secret: &str, now: Timestamp) -> bool {
    let head = headers(head);
    let secrets = [Secret::new(secret)];
    let keys: Vec<SigningKey> = signing_key(&secrets[0]).into_iter().collect();
    match kind % 7 {
        0 => verification::secret(verification::bearer(&head), &secrets),
        1 => verification::secret(verification::header(&head, "x-api-key"), &secrets),
        2 => verification::basic(&head, "keywheel", &secrets),
        3 => verification::atlas(&head, body, &secrets, false),
        4 => verification::atlas(&head, body, &secrets, true),
        5 => azure::consent(&head, &["eventgrid.azure.net".to_owned()]).map(|_| ()),
        _ => verification::standard(&head, body, &keys, now).map(|_| ()),
    }
    .is_ok()
}

/// Whether `token` is accepted with `jwks` as its issuer's keys: for Event Grid, or else for Pub/Sub.
#[must_use]
pub fn is_token(grid: bool, jwks: &[u8], token: &str, now: Timestamp) -> Option<bool> {
    const AT: &str = "https://issuer.example/keys";
    let set = serde_json::from_slice(jwks).ok()?;
    let keys = Keys::fetched(AT, set, now);
    let head = headers(format!("authorization: Bearer {token}").as_bytes());
    let fetcher = FETCHER.as_ref()?;
    let proven = if grid {
        let entra = Entra {
            tenant_id: "tenant".to_owned(),
            audience: "audience".to_owned(),
            app_id: "app".to_owned(),
            jwks_url: AT.to_owned(),
        };
        keys.entra(fetcher, &head, &entra, now).now_or_never()
    } else {
        keys.google(fetcher, &head, (AT, "audience", "push@example.com"), now).now_or_never()
    };
    // The result is there at once, because these keys are fresh.
    Some(proven?.is_ok())
}

/// A message of SNS, and the values that are used before its signature is verified.
#[derive(Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Its members.
    pub members: BTreeMap<&'static str, String>,
    /// The text that its signature covers.
    pub signed: String,
    /// Whether it is neither old nor early.
    pub is_fresh: bool,
    /// The URL of its certificate.
    pub certificate: Option<Url>,
    /// The URL of its confirmation.
    pub confirmation: Option<Url>,
    /// The bytes of its signature.
    pub signature: Option<Vec<u8>>,
}

fn desk(roots_pem: Option<&[u8]>) -> Option<Sns> {
    Sns::new(Vec::new(), vec!["127.0.0.1:8441".to_owned()], roots_pem).ok()
}

/// Reads a message of SNS.
#[must_use]
pub fn envelope(body: &[u8], now: Timestamp) -> Option<Envelope> {
    let message = Message::read(body).ok()?;
    let sns = desk(None)?;
    let url = |name, other| sns.own_url(&message, message.address(name, other).ok()?).ok();
    Some(Envelope {
        certificate: url("SigningCertURL", "SigningCertUrl")
            .filter(|url| is_certificate(url) && url.query().is_none()),
        confirmation: url("SubscribeURL", "SubscribeUrl"),
        signed: message.signed_text(),
        is_fresh: message.check_time(now).is_ok(),
        signature: message.signature().ok(),
        members: message.0,
    })
}

/// The public key of a certificate that may sign for SNS; `roots_pem` must have signed it where given.
#[must_use]
pub fn certificate(pem: &[u8], roots_pem: Option<&[u8]>, now: Timestamp) -> Option<Vec<u8>> {
    desk(roots_pem)?.check(pem, now)
}
